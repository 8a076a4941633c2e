// A volume against what one would take instead as a store of blocks: better-sqlite3 with blobs, and classic-level. The same blocks, the same order, durable at
// the same moments: sequential writes of 1 MiB, durable after each 64 MiB; sequential reads of 1 MiB; transactions of 32 random blocks, each durable; random
// reads of one block. All of them synchronous where there is such a call, because that is how these are used at their fastest.
import { mkdirSync } from 'node:fs';
import { levelStore, sqliteStore, volumeStore, type BlockStore } from './harness/block-stores.ts';
import { createLog, deviceBytes, dropFile, newFile } from './harness/log.ts';
import { BLOCK, compare, interleave, MIB, mibPerSecond, millisecondsOf, thousandsPerSecond } from './harness/measure.ts';
import { Digest, expectSame, type Question, type Result } from './harness/question.ts';
import { noise, random, stamp, stampOf } from './harness/workload.ts';

const PER_CALL = MIB / BLOCK;
const PER_TRANSACTION = 32;
const NAMES = ['varve', 'sqlite', 'level'] as const;
type Name = (typeof NAMES)[number];

interface Work {
  readonly name: string;
  readonly about: string;
  readonly unit: string;
  readonly show: (cost: number) => number;
  /** Does it once on the store, and answers the milliseconds. */
  readonly run: (store: Tracked) => Promise<number>;
}

/** A store, and which version of each block it must have. */
interface Tracked {
  readonly store: BlockStore;
  readonly versions: Uint32Array;
  readonly next: (below: number) => number;
  version: number;
}

export const question: Question = {
  name: 'block-stores',
  asks: 'How does a volume compare with SQLite and LevelDB as stores of blocks?',
  async run(context): Promise<Result[]> {
    const blocks = (context.toy ? 4 * MIB : 128 * MIB) / BLOCK;
    const callsPerFlush = context.toy ? 2 : 64;
    const transactions = context.toy ? 4 : 50;
    const reads = context.toy ? 200 : 10_000;
    const rounds = context.toy ? 1 : 7;
    const file = newFile(context, 'block-stores.varve', deviceBytes(context.toy ? 40 : 192));
    const { log, volume } = await createLog(context, file, { virtualBytes: blocks * BLOCK, sync: true });
    for (const name of ['sqlite', 'level']) mkdirSync(`${context.directory}/${name}`);
    const track = (store: BlockStore): Tracked => ({ store, versions: new Uint32Array(blocks), next: random(3), version: 0 });
    const stores: Record<Name, Tracked> = {
      varve: track(volumeStore(volume)),
      sqlite: track(sqliteStore(`${context.directory}/sqlite`)),
      level: track(await levelStore(`${context.directory}/level`)),
    };
    const buffers = Array.from({ length: PER_CALL }, (_, index) => noise(BLOCK, index + 1));
    /** Stamps the buffers for these places, which is not measured, and writes them, which is. */
    const written = (tracked: Tracked, places: readonly number[], durable: boolean): Promise<number> => {
      tracked.version++;
      for (const [index, place] of places.entries()) {
        stamp(buffers[index]!, 0, place, tracked.version);
        tracked.versions[place] = tracked.version;
      }
      return millisecondsOf(() => tracked.store.write(places, buffers.slice(0, places.length), durable));
    };
    const check = (tracked: Tracked, place: number, bytes: Uint8Array): void => {
      const found = stampOf(bytes, 0);
      if (found.block !== place || found.version !== tracked.versions[place])
        throw new Error(
          `block-stores: block ${place}: expected version ${tracked.versions[place]}, got ${found.version} of ${found.block}`,
        );
    };
    const order = Array.from({ length: PER_CALL }, (_, index) => index);
    const works: Work[] = [
      {
        name: 'sequential-write',
        about: '1 MiB writes in order, durable after each 64 MiB',
        unit: 'MiB/s',
        show: mibPerSecond(blocks * BLOCK),
        async run(tracked) {
          let cost = 0;
          for (let call = 0; call < blocks / PER_CALL; call++) {
            const places = order.map((index) => call * PER_CALL + index);
            cost += await written(tracked, places, (call + 1) % callsPerFlush === 0);
          }
          return cost;
        },
      },
      {
        name: 'sequential-read',
        about: '1 MiB reads in order',
        unit: 'MiB/s',
        show: mibPerSecond(blocks * BLOCK),
        run: (tracked) =>
          millisecondsOf(async () => {
            for (let first = 0; first < blocks; first += PER_CALL) {
              let place = first;
              await tracked.store.readRange(first, PER_CALL, (bytes) => check(tracked, place++, bytes));
              expectSame('block-stores: blocks read', place, first + PER_CALL);
            }
          }),
      },
      {
        name: 'random-write',
        about: `transactions of ${PER_TRANSACTION} random blocks, each durable`,
        unit: 'thousand/s',
        show: thousandsPerSecond(transactions * PER_TRANSACTION),
        async run(tracked) {
          let cost = 0;
          for (let count = 0; count < transactions; count++) {
            const places = new Set<number>();
            while (places.size < PER_TRANSACTION) places.add(tracked.next(blocks));
            cost += await written(tracked, [...places], true);
          }
          return cost;
        },
      },
      {
        name: 'random-read',
        about: 'reads of one random block from the caches',
        unit: 'thousand/s',
        show: thousandsPerSecond(reads),
        async run(tracked) {
          const places = Array.from({ length: reads }, () => tracked.next(blocks));
          return millisecondsOf(async () => {
            for (const place of places) check(tracked, place, tracked.store.read(place));
          });
        },
      },
    ];
    const results: Result[] = [];
    for (const work of works) {
      context.say(`block-stores: ${work.name}`);
      const costs = await interleave(rounds, {
        varve: () => work.run(stores.varve),
        sqlite: () => work.run(stores.sqlite),
        level: () => work.run(stores.level),
      });
      const digest = new Digest();
      for (const name of NAMES) for (let place = 0; place < blocks; place++) check(stores[name], place, stores[name].store.read(place));
      digest.add(new Uint8Array(stores.varve.versions.buffer));
      for (const [name, product] of [
        ['sqlite', 'better-sqlite3'],
        ['level', 'classic-level'],
      ] as const)
        results.push(
          compare({
            name: `block-stores.${work.name}.${name}`,
            about: `${work.about}, against ${product}`,
            ours: costs.varve,
            peer: costs[name],
            against: 'peer',
            unit: work.unit,
            show: work.show,
            hash: digest.toString(),
          }),
        );
    }
    for (const name of NAMES) await stores[name].store.close();
    await log.close();
    await dropFile(file);
    return results;
  },
};
