// Random reads of 4 KiB from the page cache: synchronous against fs.readSync, and 32 under way against fs.read with callbacks at the same depth. The volume
// was written at random too, so each read is a lookup, a read of the file, a checksum and a copy.
import * as fs from 'node:fs';
import type { FileDevice } from '../src/device/file.ts';
import type { VirtualVolume } from '../src/volume/volume.ts';
import { createLog, deviceBytes, dropFile, newFile, openLog } from './harness/log.ts';
import { BLOCK, compare, interleave, MIB, milliseconds, millisecondsOf, thousandsPerSecond } from './harness/measure.ts';
import { Digest, expectSame, type Context, type Question, type Result } from './harness/question.ts';
import { noise, permutation, random, stamp, stampOf } from './harness/workload.ts';

const DEPTH = 32;

/** Fills volume and raw file with the same blocks; the volume in random order. */
async function fill(context: Context, virtualBytes: number): Promise<{ file: FileDevice; raw: FileDevice }> {
  const blocks = virtualBytes / BLOCK;
  const file = newFile(context, 'random-reads.varve', deviceBytes(Math.ceil((virtualBytes / MIB) * 0.3) + 80));
  const raw = newFile(context, 'random-reads.raw', virtualBytes);
  const { log, volume } = await createLog(context, file, { virtualBytes });
  const block = noise(BLOCK, 1);
  for (const at of permutation(blocks, random(7))) {
    stamp(block, 0, at, 1);
    await volume.write(at * BLOCK, block);
    raw.writeSync(at * BLOCK, block);
  }
  await log.close();
  raw.flushSync();
  return { file, raw };
}

function readSync(volume: VirtualVolume, offsets: Float64Array, into: Uint8Array): void {
  for (const offset of offsets) volume.readSync(offset, into);
}

function rawReadSync(fd: number, offsets: Float64Array, into: Uint8Array): void {
  for (const offset of offsets) fs.readSync(fd, into, 0, BLOCK, offset);
}

async function readAsync(volume: VirtualVolume, offsets: Float64Array, buffers: readonly Uint8Array[]): Promise<void> {
  let next = 0;
  const worker = async (into: Uint8Array): Promise<void> => {
    while (next < offsets.length) await volume.read(offsets[next++]!, into);
  };
  await Promise.all(buffers.map(worker));
}

function rawReadAsync(fd: number, offsets: Float64Array, buffers: readonly Uint8Array[]): Promise<void> {
  return new Promise((resolve, reject) => {
    let next = 0;
    let done = 0;
    const start = (into: Uint8Array): void => {
      if (next >= offsets.length) return;
      fs.read(fd, into, 0, BLOCK, offsets[next++]!, (error, count) => {
        if (error || count !== BLOCK) return reject(error ?? new Error('short read'));
        if (++done === offsets.length) resolve();
        else start(into);
      });
    };
    for (const buffer of buffers) start(buffer);
  });
}

function checked(volume: VirtualVolume, offsets: Float64Array): Digest {
  const digest = new Digest();
  const into = new Uint8Array(BLOCK);
  for (const offset of offsets.subarray(0, 4096)) {
    volume.readSync(offset, into);
    expectSame('random-reads: block', stampOf(into, 0).block, offset / BLOCK);
    digest.add(into);
  }
  return digest;
}

export const question: Question = {
  name: 'random-reads',
  asks: 'What of a raw file’s speed of random 4 KiB reads is left through a volume?',
  async run(context): Promise<Result[]> {
    const virtualBytes = context.toy ? 4 * MIB : 512 * MIB;
    // Many short rounds: on a machine that others use, two neighbours of 20 ms see the same of it, two of a second do not.
    const reads = context.toy ? 500 : 5000;
    const rounds = context.toy ? 1 : 201;
    const { file, raw } = await fill(context, virtualBytes);
    const next = random(11);
    const offsets = Float64Array.from({ length: reads }, () => next(virtualBytes / BLOCK) * BLOCK);
    const into = new Uint8Array(BLOCK);
    const buffers = Array.from({ length: DEPTH }, () => new Uint8Array(BLOCK));
    const show = thousandsPerSecond(reads);

    const sync = await openLog(context, file, { sync: true });
    const hash = checked(sync.volume, offsets).toString();
    const synchronous = await interleave(rounds, {
      ours: () => milliseconds(() => readSync(sync.volume, offsets, into)),
      floor: () => milliseconds(() => rawReadSync(raw.fd, offsets, into)),
    });
    await sync.log.close();

    const { log, volume } = await openLog(context, file);
    const asynchronous = await interleave(rounds, {
      ours: () => millisecondsOf(() => readAsync(volume, offsets, buffers)),
      floor: () => millisecondsOf(() => rawReadAsync(raw.fd, offsets, buffers)),
    });
    await log.close();
    await dropFile(file);
    await dropFile(raw);
    return [
      compare({
        name: 'random-reads.sync',
        about: 'random 4 KiB reads from the page cache, readSync, against fs.readSync of the raw file',
        ...synchronous,
        against: 'floor',
        bar: '>= 0.45',
        unit: 'thousand/s',
        show,
        hash,
      }),
      compare({
        name: `random-reads.depth${DEPTH}`,
        about: `random 4 KiB reads from the page cache, ${DEPTH} under way, against fs.read with callbacks at that depth`,
        ...asynchronous,
        against: 'floor',
        bar: '>= 0.7',
        unit: 'thousand/s',
        show,
        hash,
      }),
    ];
  },
};
