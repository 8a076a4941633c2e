// Writing and reading from front to back, 1 MiB at a time, through a volume on a file against the raw file doing the same: asynchronous, one call or several
// under way, a flush after each 64 MiB written. Steady state: both files have been written before, and each round overwrites the whole.
import type { StorageDevice } from '../src/device/device.ts';
import { createLog, deviceBytes, dropFile, newFile } from './harness/log.ts';
import { BLOCK, compare, interleave, MIB, mibPerSecond, millisecondsOf } from './harness/measure.ts';
import { Digest, expectSame, type Question, type Result } from './harness/question.ts';
import { noise, stamp, stampOf } from './harness/workload.ts';

const CALL = MIB;

/** Keeps `depth` calls under way. */
async function inOrder(count: number, depth: number, call: (index: number) => Promise<void>): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < count) await call(next++);
  };
  await Promise.all(Array.from({ length: depth }, worker));
}

/** The first block of each call says where it goes and in which round. */
async function writeAll(
  device: StorageDevice,
  bytes: number,
  buffers: readonly Uint8Array[],
  flushBytes: number,
  version: number,
): Promise<void> {
  const free = [...buffers];
  for (let begin = 0; begin < bytes; begin += flushBytes) {
    await inOrder(Math.min(flushBytes, bytes - begin) / CALL, buffers.length, async (index) => {
      const buffer = free.pop()!; // its own until the call ends
      const offset = begin + index * CALL;
      stamp(buffer, 0, offset / BLOCK, version);
      await device.write(offset, buffer);
      free.push(buffer);
    });
    await device.flush();
  }
}

async function readAll(
  device: StorageDevice,
  bytes: number,
  buffers: readonly Uint8Array[],
  version: number,
  digest?: Digest,
): Promise<void> {
  const free = [...buffers];
  await inOrder(bytes / CALL, buffers.length, async (index) => {
    const buffer = free.pop()!;
    await device.read(index * CALL, buffer);
    const found = stampOf(buffer, 0);
    expectSame('sequential: block', found.block, (index * CALL) / BLOCK);
    expectSame('sequential: version', found.version, version);
    digest?.add(buffer);
    free.push(buffer);
  });
}

export const question: Question = {
  name: 'sequential',
  asks: 'What of a raw file’s sequential speed is left through a volume?',
  async run(context): Promise<Result[]> {
    const bytes = context.toy ? 4 * MIB : 128 * MIB;
    const flushBytes = context.toy ? 2 * MIB : 64 * MIB;
    const rounds = context.toy ? 1 : 21;
    const results: Result[] = [];
    const log = await createLog(context, newFile(context, 'sequential.varve', deviceBytes(context.toy ? 40 : 160)), {
      virtualBytes: bytes,
    });
    const raw = newFile(context, 'sequential.raw', bytes);
    let version = 0;
    // With one call at a time a volume has an advantage: its writes go out behind the caller's back. So both are asked.
    for (const depth of [1, 4]) {
      const buffers = Array.from({ length: depth }, (_, index) => noise(CALL, index + 1));
      const written = await interleave(rounds, {
        ours: () => millisecondsOf(() => writeAll(log.volume, bytes, buffers, flushBytes, ++version)),
        floor: () => millisecondsOf(() => writeAll(raw, bytes, buffers, flushBytes, version)),
      });
      await writeAll(raw, bytes, buffers, flushBytes, version);
      const read = await interleave(rounds, {
        ours: () => millisecondsOf(() => readAll(log.volume, bytes, buffers, version)),
        floor: () => millisecondsOf(() => readAll(raw, bytes, buffers, version)),
      });
      const digest = new Digest();
      await readAll(log.volume, bytes, buffers.slice(0, 1), version, digest);
      const show = mibPerSecond(bytes);
      results.push(
        compare({
          name: `sequential.write.depth${depth}`,
          about: `1 MiB writes, ${depth} under way, flush per 64 MiB, against the raw file doing the same`,
          ...written,
          against: 'floor',
          bar: '>= 0.8',
          unit: 'MiB/s',
          show,
          hash: digest.toString(),
        }),
        compare({
          name: `sequential.read.depth${depth}`,
          about: `1 MiB reads from the page cache, ${depth} under way, against the raw file doing the same`,
          ...read,
          against: 'floor',
          unit: 'MiB/s',
          show,
          hash: digest.toString(),
        }),
      );
    }
    await log.log.close();
    await dropFile(log.device);
    await dropFile(raw);
    return results;
  },
};
