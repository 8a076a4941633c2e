// The time of a diff between two snapshots of a large volume, by the number of blocks that changed between them: the cost is to follow the change and not the
// size. The floor is what a comparison of all blocks' bytes would read, at memory speed.
import { createLog, deviceBytes } from './harness/log.ts';
import { BLOCK, GIB, MIB, millisecondsOf, plain } from './harness/measure.ts';
import { Digest, expectSame, type Question, type Result } from './harness/question.ts';
import { StampDevice } from './harness/stamp-device.ts';
import { random, stamp } from './harness/workload.ts';

export const question: Question = {
  name: 'diffs',
  asks: 'How long does a diff take, by the number of changed blocks?',
  async run(context): Promise<Result[]> {
    const bytes = context.toy ? 4 * MIB : 16 * GIB;
    const blocks = bytes / BLOCK;
    const changes = context.toy ? [1, 64] : [1, 1024, 65_536, 1_048_576];
    const rounds = context.toy ? 1 : 5;
    const device = new StampDevice(deviceBytes(Math.ceil((bytes / MIB) * 0.45) + 80));
    const { log, volume } = await createLog(context, device, { virtualBytes: bytes });
    const large = new Uint8Array(MIB);
    for (let offset = 0; offset < bytes; offset += MIB) await volume.write(offset, large);
    const block = new Uint8Array(BLOCK);
    const next = random(17);
    await volume.snapshot('before0');
    const results: Result[] = [];
    let none = 0;
    for (const [index, count] of changes.entries()) {
      const changed = new Set<number>();
      while (changed.size < count) {
        const at = next(blocks);
        if (changed.has(at)) continue;
        changed.add(at);
        stamp(block, 0, at, index + 1);
        await volume.write(at * BLOCK, block);
      }
      await volume.snapshot(`before${index + 1}`);
      const costs: number[] = [];
      const digest = new Digest();
      for (let round = -1; round < rounds; round++) {
        let found = 0;
        const cost = await millisecondsOf(async () => {
          for await (const run of volume.diff(`before${index}`, `before${index + 1}`)) {
            found += run.length / BLOCK;
            if (round < 0) {
              digest.add(run.offset, run.length, run.kind);
              for (let at = run.offset; at < run.offset + run.length; at += BLOCK)
                expectSame('diffs: changed', changed.has(at / BLOCK), true);
            }
          }
        });
        expectSame('diffs: blocks', found, count);
        if (round >= 0) costs.push(cost);
      }
      if (index === 0) none = costs.toSorted((a, b) => a - b)[costs.length >> 1]!;
      results.push(
        plain({
          name: `diffs.${count}`,
          about: `a diff that finds ${count} changed blocks among ${blocks} mapped ones`,
          ours: costs,
          unit: 'ms',
          also: {
            microsecondsPerChangedBlock: Math.round(((1000 * Math.max(0, costs[0]! - (index === 0 ? 0 : none))) / count) * 1000) / 1000,
          },
          hash: digest.toString(),
        }),
      );
    }
    await log.close();
    return results;
  },
};
