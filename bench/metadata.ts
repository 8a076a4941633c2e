// What the log writes beside the data: headers, footers and checkpoints, over 16 GiB of uniformly random 4 KiB writes with a flush after each 32. On level
// `single` each page of a checkpoint is written twice. Padding would be apart; on `single` there is none.
import { createLog, deviceBytes } from './harness/log.ts';
import { BLOCK, GIB, MIB, plain } from './harness/measure.ts';
import { Digest, expectSame, round, type Question, type Result } from './harness/question.ts';
import { StampDevice } from './harness/stamp-device.ts';
import { random, stamp, stampOf } from './harness/workload.ts';

const PER_FLUSH = 32;

export const question: Question = {
  name: 'metadata',
  asks: 'What share of what is written is not data?',
  async run(context): Promise<Result[]> {
    const bytes = context.toy ? 16 * MIB : 16 * GIB;
    const virtualBytes = bytes;
    const blocks = virtualBytes / BLOCK;
    const geometry = context.toy ? { checkpointEntries: 1000 } : {};
    const device = new StampDevice(deviceBytes(Math.ceil((virtualBytes / MIB) * 0.36) + 100));
    const { log, volume } = await createLog(context, device, { virtualBytes, geometry, sync: true });
    const versions = new Uint32Array(blocks);
    const block = new Uint8Array(BLOCK);
    const next = random(41);
    for (let version = 1; version <= bytes / BLOCK; version++) {
      const at = next(blocks);
      versions[at] = version;
      stamp(block, 0, at, version);
      volume.writeSync(at * BLOCK, block);
      if (version % PER_FLUSH === 0) volume.flushSync();
    }
    volume.flushSync();
    const figures = log.figures();
    const digest = new Digest();
    const large = new Uint8Array(MIB);
    for (let offset = 0; offset < virtualBytes; offset += MIB) {
      volume.readSync(offset, large);
      for (let at = 0; at < MIB; at += BLOCK) {
        const found = stampOf(large, at).version;
        if (found !== versions[(offset + at) / BLOCK])
          expectSame(`metadata: block ${(offset + at) / BLOCK}`, found, versions[(offset + at) / BLOCK]);
      }
      digest.add(large);
    }
    await log.close();
    expectSame('metadata: at least 3 checkpoints', figures.checkpoints >= 3, true);
    const all = bytes + figures.movedBytes + figures.metadataBytesWritten + figures.paddingBytesWritten;
    return [
      plain({
        name: 'metadata',
        about: `headers, footers, checkpoints over user data written; ${PER_FLUSH} blocks a flush, pages twice (level single)`,
        ours: (100 * figures.metadataBytesWritten) / bytes,
        bar: '<= 7',
        unit: '%',
        also: {
          ofAllBytesWritten: round((100 * figures.metadataBytesWritten) / all),
          padding: round((100 * figures.paddingBytesWritten) / all),
          moved: round((100 * figures.movedBytes) / bytes),
          checkpoints: figures.checkpoints,
        },
        hash: digest.toString(),
      }),
    ];
  },
};
