// Opening a log again after the process was killed: 100 GiB mapped at random, and 8,000,000 entries written since the last checkpoint, which are replayed. The
// device is in memory (stamp-device.ts), so what is measured is the work and not the reads.
import { createLog, deviceBytes, openLog } from './harness/log.ts';
import { BLOCK, GIB, MIB, millisecondsOf, plain } from './harness/measure.ts';
import { Digest, expectSame, type Question, type Result } from './harness/question.ts';
import { StampDevice } from './harness/stamp-device.ts';
import { permutation, random, stamp, stampOf } from './harness/workload.ts';

export const question: Question = {
  name: 'reopen',
  asks: 'How long does it take to open a large log after a kill?',
  async run(context): Promise<Result[]> {
    const virtualBytes = context.toy ? 16 * MIB : 100 * GIB;
    const blocks = virtualBytes / BLOCK;
    const entries = context.toy ? 1000 : 8_000_000;
    const rounds = context.toy ? 1 : 6;
    // So many segments that no checkpoint comes by itself: only the one that is asked for.
    const device = new StampDevice(deviceBytes(context.toy ? 3200 : 280_000, context.toy ? 64 : 1024));
    const shape = context.toy ? { segmentBlocks: 64 } : {};
    const geometry = { checkpointEntries: 2 ** 31 };
    const { log, volume } = await createLog(context, device, { virtualBytes, geometry, sync: true, ...shape });
    const versions = new Uint32Array(blocks);
    const block = new Uint8Array(BLOCK);
    const next = random(13);
    context.say('reopen: mapping');
    for (const at of permutation(blocks, next)) {
      stamp(block, 0, at, 0);
      volume.writeSync(at * BLOCK, block);
    }
    context.say('reopen: checkpoint');
    await log.checkpoint();
    expectSame('reopen: checkpoints', log.figures().checkpoints, 1);
    context.say('reopen: entries to replay');
    for (let version = 1; version <= entries; version++) {
      const at = next(blocks);
      versions[at] = version;
      stamp(block, 0, at, version);
      volume.writeSync(at * BLOCK, block);
    }
    volume.flushSync();
    expectSame('reopen: checkpoints', log.figures().checkpoints, 1);
    await log.abandon();

    const costs: number[] = [];
    const also = { mebibytesRead: 0, heapMebibytes: 0, firstMilliseconds: 0 };
    let hash = '';
    for (let round = 0; round < rounds; round++) {
      const readBefore = device.blocksRead;
      let stand: Awaited<ReturnType<typeof openLog<StampDevice>>> | undefined;
      costs.push(
        await millisecondsOf(async () => {
          stand = await openLog(context, device, { geometry, sync: true, ...shape });
        }),
      );
      const opened = stand!;
      const figures = opened.log.figures();
      expectSame('reopen: entries replayed', figures.replayedEntries, entries);
      also.mebibytesRead = Math.round(((device.blocksRead - readBefore) * BLOCK) / MIB);
      also.heapMebibytes = Math.round(figures.heapExtentBytes / MIB);
      context.say(`reopen: ${costs.at(-1)!.toFixed(0)} ms`);
      const digest = new Digest();
      const draw = random(19);
      for (let count = 0; count < Math.min(20_000, blocks); count++) {
        const at = draw(blocks);
        opened.volume.readSync(at * BLOCK, block);
        const found = stampOf(block, 0);
        expectSame('reopen: block', found.block, at);
        expectSame(`reopen: version of block ${at}`, found.version, versions[at]);
        digest.add(at, found.version);
      }
      hash = digest.toString();
      await opened.log.abandon();
    }
    // The first round does not count: its memory is the machine's to find.
    if (rounds > 1) also.firstMilliseconds = Math.round(costs.shift()!);
    return [
      plain({
        name: 'reopen',
        about: `opening after a kill: ${blocks} random mappings, ${entries} entries to replay, from memory`,
        ours: costs,
        bar: '<= 1500',
        unit: 'ms',
        also,
        hash,
      }),
    ];
  },
};
