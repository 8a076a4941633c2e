// The page of the bench: starts its worker, and measures what a page sees through the owner of a pool.
import { connect } from '../../src/opfs/client.ts';
import { OpfsPool } from '../../src/opfs/pool.ts';
import type { BenchAnswer, BenchRequest } from './bench.worker.ts';

export interface ClientAnswer {
  /** Calls a second. */
  readonly writes: number;
  readonly reads: number;
  /** MiB a second. */
  readonly writeSpeed: number;
  readonly readSpeed: number;
}

const MIB = 1 << 20;
const BLOCK = 4096;

const bench = {
  run: (request: BenchRequest): Promise<BenchAnswer> =>
    new Promise((resolve, reject) => {
      const worker = new Worker('/bench.js', { type: 'module' });
      worker.onmessage = ({ data }: MessageEvent<{ answer: BenchAnswer } | { error: string }>) => {
        worker.terminate();
        if ('answer' in data) resolve(data.answer);
        else reject(new Error(data.error));
      };
      worker.onerror = (event) => reject(new Error(event.message));
      worker.postMessage(request);
    }),

  /** 4 KiB calls 32 at a time with a flush after each 32, 1 MiB calls one after the other; `other`: as another tab, over a BroadcastChannel. */
  async client(other: boolean, calls: number, megabytes: number): Promise<ClientAnswer> {
    const path = `client-${crypto.randomUUID()}`;
    const owner = await connect(path, { worker: () => new Worker('/storage.js', { type: 'module' }), create: { volumeSize: '128MiB' } });
    const pool = other ? await connect(path) : owner;
    const volume = await pool.createVolume('v', { size: '64MiB' });
    const small = crypto.getRandomValues(new Uint8Array(BLOCK));
    const large = new Uint8Array(MIB).fill(7);
    const seconds = async (work: () => Promise<void>): Promise<number> => {
      const begun = performance.now();
      await work();
      return (performance.now() - begun) / 1000;
    };
    const places = Array.from({ length: calls }, (_, index) => ((index * 7919) % ((64 * MIB) / BLOCK)) * BLOCK);
    const groups = Array.from({ length: calls / 32 }, (_, group) => places.slice(group * 32, group * 32 + 32));
    const writing = await seconds(async () => {
      for (const group of groups) {
        await Promise.all(group.map((place) => volume.write(place, small)));
        await volume.flush();
      }
    });
    const reading = await seconds(async () => {
      for (const group of groups) await Promise.all(group.map((place) => volume.read(place, new Uint8Array(BLOCK))));
    });
    const streaming = await seconds(async () => {
      for (let at = 0; at < megabytes; at++) await volume.write((at % 64) * MIB, large);
      await volume.flush();
    });
    const fetching = await seconds(async () => {
      for (let at = 0; at < megabytes; at++) await volume.read((at % 64) * MIB, large);
    });
    if (other) await pool.close();
    await owner.close();
    await OpfsPool.destroy(path);
    return { writes: calls / writing, reads: calls / reading, writeSpeed: megabytes / streaming, readSpeed: megabytes / fetching };
  },
};

export type BenchFunctions = typeof bench;
(globalThis as unknown as { bench: BenchFunctions }).bench = bench;
