// What a JS developer would take for a store of blocks: SQLite through better-sqlite3, a row with a blob for each block, and LevelDB through classic-level, a
// key for each block. Each is set up as its documentation says for speed with durable commits: SQLite with a write-ahead log, synchronous = FULL, and pages
// of 8 KiB so that a row with 4 KiB stays in one page; LevelDB with synced batches and without compression (the blocks are noise).
import { createRequire } from 'node:module';
import { ClassicLevel } from 'classic-level';
import type { VirtualVolume } from '../../src/volume/volume.ts';
import { BLOCK } from './measure.ts';

export interface BlockStore {
  /** `buffers[i]` becomes block `places[i]`. When it resolves and `durable` was asked for, all that was written so far is. */
  write(places: readonly number[], buffers: readonly Uint8Array[], durable: boolean): Promise<void>;
  read(place: number): Uint8Array;
  /** `count` blocks from `first` on, in order. */
  readRange(first: number, count: number, each: (bytes: Uint8Array) => void): Promise<void>;
  close(): Promise<void>;
}

interface Statement {
  run(...values: unknown[]): unknown;
  get(...values: unknown[]): unknown;
  iterate(...values: unknown[]): IterableIterator<unknown>;
}

/** The part of better-sqlite3 that is used here; it brings no types. */
interface Sqlite {
  pragma(text: string): unknown;
  exec(text: string): unknown;
  prepare(text: string): Statement & { pluck(on: boolean): Statement };
  close(): void;
}

const SqliteDatabase = createRequire(import.meta.url)('better-sqlite3') as new (path: string) => Sqlite;

export function sqliteStore(directory: string): BlockStore {
  const database = new SqliteDatabase(`${directory}/blocks.sqlite`);
  database.pragma('page_size = 8192');
  database.pragma('journal_mode = WAL');
  database.pragma('synchronous = FULL');
  database.pragma('cache_size = -65536'); // 64 MiB, what a log may hold unflushed
  database.exec('CREATE TABLE blocks (block INTEGER PRIMARY KEY, bytes BLOB NOT NULL)');
  const put = database.prepare('INSERT INTO blocks VALUES (?, ?) ON CONFLICT (block) DO UPDATE SET bytes = excluded.bytes');
  const get = database.prepare('SELECT bytes FROM blocks WHERE block = ?').pluck(true);
  const range = database.prepare('SELECT bytes FROM blocks WHERE block >= ? AND block < ? ORDER BY block').pluck(true);
  const begin = database.prepare('BEGIN');
  const commit = database.prepare('COMMIT');
  let open = false;
  return {
    async write(places, buffers, durable) {
      if (!open) begin.run();
      open = true;
      for (const [index, place] of places.entries()) put.run(place, buffers[index]);
      if (!durable) return;
      commit.run();
      open = false;
    },
    read: (place) => get.get(place) as Uint8Array,
    async readRange(first, count, each) {
      for (const bytes of range.iterate(first, first + count)) each(bytes as Uint8Array);
    },
    async close() {
      if (open) commit.run();
      database.close();
    },
  };
}

export async function levelStore(directory: string): Promise<BlockStore> {
  const options = { keyEncoding: 'buffer', valueEncoding: 'buffer', compression: false } as const;
  const database = new ClassicLevel<Buffer, Buffer>(`${directory}/blocks.level`, options);
  await database.open();
  const keyOf = (place: number): Buffer => {
    const key = Buffer.allocUnsafe(4);
    key.writeUInt32BE(place);
    return key;
  };
  return {
    async write(places, buffers, durable) {
      const puts = places.map((place, index) => {
        const { buffer, byteOffset, byteLength } = buffers[index]!;
        return { type: 'put' as const, key: keyOf(place), value: Buffer.from(buffer, byteOffset, byteLength) };
      });
      await database.batch(puts, { sync: durable });
    },
    read: (place) => database.getSync(keyOf(place))!,
    async readRange(first, count, each) {
      for await (const bytes of database.values({ gte: keyOf(first), lt: keyOf(first + count) })) each(bytes);
    },
    close: () => database.close(),
  };
}

/** A synchronous volume. Blocks that follow each other are one write, as any caller would have them. */
export function volumeStore(volume: VirtualVolume): BlockStore {
  const block = new Uint8Array(BLOCK);
  let large = new Uint8Array(0);
  return {
    async write(places, buffers, durable) {
      const first = places[0]!;
      if (places.length > 1 && places.at(-1)! - first === places.length - 1) {
        if (large.length !== places.length * BLOCK) large = new Uint8Array(places.length * BLOCK);
        for (const [index, buffer] of buffers.entries()) large.set(buffer, index * BLOCK);
        volume.writeSync(first * BLOCK, large);
      } else {
        for (const [index, place] of places.entries()) volume.writeSync(place * BLOCK, buffers[index]!);
      }
      if (durable) volume.flushSync();
    },
    read(place) {
      volume.readSync(place * BLOCK, block);
      return block;
    },
    async readRange(first, count, each) {
      if (large.length !== count * BLOCK) large = new Uint8Array(count * BLOCK);
      volume.readSync(first * BLOCK, large);
      for (let at = 0; at < large.length; at += BLOCK) each(large.subarray(at, at + BLOCK));
    },
    close: () => Promise.resolve(),
  };
}
