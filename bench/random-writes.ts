// 32 random writes of 4 KiB, then a flush: what a database or a file system asks of a disk. A log makes one sequential write of it, so the floor is one write
// of 136 KiB (32 blocks, a header, and one block to spare) and fdatasync; the peer is the raw file that takes the same 32 writes where they belong.
import * as fs from 'node:fs';
import type { VirtualVolume } from '../src/volume/volume.ts';
import { createLog, deviceBytes, dropFile, newFile } from './harness/log.ts';
import { BLOCK, compare, interleave, MIB, millisecondsOf, thousandsPerSecond } from './harness/measure.ts';
import { Digest, expectSame, type Question, type Result } from './harness/question.ts';
import { noise, random, stamp, stampOf } from './harness/workload.ts';

const WRITES = 32;
/** In one round, so that the caches are warm for each contestant as they are in a program that does nothing else. */
const TRANSACTIONS = 20;
const FLOOR_BYTES = 136 * 1024;

function written(fd: number, bytes: Uint8Array, offset: number): Promise<void> {
  return new Promise((resolve, reject) => {
    fs.write(fd, bytes, 0, bytes.length, offset, (error, count) => {
      if (error || count !== bytes.length) reject(error ?? new Error('short write'));
      else resolve();
    });
  });
}

function synced(fd: number): Promise<void> {
  return new Promise((resolve, reject) => fs.fdatasync(fd, (error) => (error ? reject(error) : resolve())));
}

export const question: Question = {
  name: 'random-writes',
  asks: 'What does a small random transaction cost?',
  async run(context): Promise<Result[]> {
    const virtualBytes = context.toy ? 4 * MIB : 512 * MIB;
    const blocks = virtualBytes / BLOCK;
    const rounds = context.toy ? 2 : 40;
    const file = newFile(context, 'random-writes.varve', deviceBytes(context.toy ? 40 : 400));
    const raw = newFile(context, 'random-writes.raw', virtualBytes);
    const { log, volume } = await createLog(context, file, { virtualBytes });
    const versions = new Uint32Array(blocks);
    const buffers = Array.from({ length: WRITES }, (_, index) => noise(BLOCK, index));
    const large = noise(FLOOR_BYTES, 99);
    for (let at = 0; at < blocks; at++) {
      stamp(buffers[0]!, 0, at, 0);
      await volume.write(at * BLOCK, buffers[0]!);
    }
    await volume.flush();

    const draws = { ours: random(3), peer: random(3) };
    let transaction = 0;
    let floorAt = 0;
    /** The cost of some transactions; to choose the places and to stamp the blocks is not in it. */
    const transactions = async (next: (below: number) => number, run: (places: readonly number[]) => Promise<void>): Promise<number> => {
      let cost = 0;
      for (let count = 0; count < TRANSACTIONS; count++) {
        const places = buffers.map(() => next(blocks));
        transaction++;
        places.forEach((at, index) => stamp(buffers[index]!, 0, at, transaction));
        cost += await millisecondsOf(() => run(places));
      }
      return cost;
    };
    const costs = await interleave(rounds, {
      ours: () =>
        transactions(draws.ours, async (places) => {
          for (const [index, at] of places.entries()) await volume.write(at * BLOCK, buffers[index]!);
          await volume.flush();
          for (const at of places) versions[at] = transaction;
        }),
      floor: () =>
        transactions(
          () => 0,
          async () => {
            floorAt = floorAt + 2 * FLOOR_BYTES > virtualBytes ? 0 : floorAt + FLOOR_BYTES;
            await written(raw.fd, large, floorAt);
            await synced(raw.fd);
          },
        ),
      peer: () =>
        transactions(draws.peer, async (places) => {
          await Promise.all(places.map((at, index) => written(raw.fd, buffers[index]!, at * BLOCK)));
          await synced(raw.fd);
        }),
    });
    const hash = (await verified(volume, versions)).toString();
    await log.close();
    await dropFile(file);
    await dropFile(raw);
    const show = thousandsPerSecond(WRITES * TRANSACTIONS);
    return [
      compare({
        name: 'random-writes.append',
        about: '32 random 4 KiB writes and a flush, against one write of 136 KiB and fdatasync',
        ours: costs.ours,
        floor: costs.floor,
        against: 'floor',
        bar: '>= 0.8',
        unit: 'thousand/s',
        show,
        hash,
      }),
      compare({
        name: 'random-writes.in-place',
        about: '32 random 4 KiB writes and a flush, against the raw file taking the same writes in place and fdatasync',
        ours: costs.ours,
        peer: costs.peer,
        against: 'peer',
        unit: 'thousand/s',
        show,
        hash,
      }),
    ];
  },
};

/** Every block must tell the last transaction that wrote it. */
async function verified(volume: VirtualVolume, versions: Uint32Array): Promise<Digest> {
  const digest = new Digest();
  const into = new Uint8Array(MIB);
  for (let offset = 0; offset < volume.sizeBytes; offset += MIB) {
    await volume.read(offset, into);
    for (let at = 0; at < MIB; at += BLOCK) {
      const block = (offset + at) / BLOCK;
      const found = stampOf(into, at);
      expectSame('random-writes: block', found.block, block);
      expectSame(`random-writes: version of block ${block}`, found.version, versions[block]);
      digest.add(found.version);
    }
  }
  return digest;
}
