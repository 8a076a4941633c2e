// One write of 4 KiB, made durable: the latency of a commit. Ours writes a header and the block in one piece (8 KiB). Asked for a log of 1 GiB and for one of
// 1 TiB, because what a flush does besides must not grow with the capacity.
import type { FileDevice } from '../src/device/file.ts';
import { createLog, deviceBytes, dropFile, newFile, type Stand } from './harness/log.ts';
import { BLOCK, compare, interleave, MIB, millisecondsOf } from './harness/measure.ts';
import { Digest, expectSame, type Question, type Result } from './harness/question.ts';
import { noise, random, stamp, stampOf } from './harness/workload.ts';

/** In one round. */
const COMMITS = 20;

export const question: Question = {
  name: 'flush',
  asks: 'How long does it take until a small write is durable?',
  async run(context): Promise<Result[]> {
    const rounds = context.toy ? 2 : 40;
    const virtualBytes = context.toy ? MIB : 64 * MIB;
    const segments = context.toy ? [40, 80] : [256, 262_144];
    const results: Result[] = [];
    const raw = newFile(context, 'flush.raw', virtualBytes);
    for (const [index, count] of segments.entries()) {
      // Only the front of either is ever written by a run.
      const bytes = deviceBytes(count);
      const file = newFile(context, 'flush.varve', bytes, Math.min(bytes, 256 * MIB));
      const stand = await createLog(context, file, { virtualBytes });
      results.push(await measure(stand, raw, rounds, `flush.${index === 0 ? 'small' : 'large'}`, count));
      await stand.log.close();
      await dropFile(file);
    }
    await dropFile(raw);
    return results;
  },
};

async function measure({ volume }: Stand<FileDevice>, raw: FileDevice, rounds: number, name: string, segments: number): Promise<Result> {
  const blocks = raw.sizeBytes / BLOCK;
  const buffer = noise(BLOCK, 1);
  const draws = { ours: random(3), floor: random(3) };
  const last = new Map<number, number>();
  let version = 0;
  /** The mean of some commits, one after the other. */
  const commits = async (next: (below: number) => number, commit: (block: number) => Promise<void>): Promise<number> => {
    let cost = 0;
    for (let count = 0; count < COMMITS; count++) {
      const block = next(blocks);
      stamp(buffer, 0, block, ++version);
      cost += await millisecondsOf(() => commit(block));
    }
    return cost / COMMITS;
  };
  const costs = await interleave(rounds, {
    ours: () =>
      commits(draws.ours, async (block) => {
        await volume.write(block * BLOCK, buffer);
        await volume.flush();
        last.set(block, version);
      }),
    floor: () =>
      commits(draws.floor, async (block) => {
        await raw.write(block * BLOCK, buffer);
        await raw.flush();
      }),
  });
  const digest = new Digest();
  const into = new Uint8Array(BLOCK);
  for (const [block, expected] of last) {
    await volume.read(block * BLOCK, into);
    expectSame('flush: version', stampOf(into, 0).version, expected);
    digest.add(into);
  }
  return compare({
    name,
    about: `a 4 KiB write and a flush in a log of ${segments} segments, against a 4 KiB write in place and fdatasync`,
    ...costs,
    against: 'floor',
    unit: 'µs',
    show: (cost) => cost * 1000,
    hash: digest.toString(),
  });
}
