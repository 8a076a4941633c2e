// A random history of one virtual volume with two sources: writes, trims, flushes, snapshots, rollbacks, sizes, compaction. It holds a plain array of bytes
// for each source and tells what a reader must find:
//
//   { snapshot, source, sha256 }   once the snapshot's call returned
//   { delete }                     before a snapshot is deleted
//   { flushed, sha256 }            once a flush returned
import { createHash } from 'node:crypto';
import type { StoragePool } from '../../src/pool/pool.ts';
import { Random } from '../../src/testing/random.ts';
import type { VirtualVolume } from '../../src/volume/volume.ts';

const BLOCK = 4096;
export const SIZE_MAX = 8 << 20;
const SNAPSHOTS_MAX = 30;

export interface Told {
  step?: number;
  snapshot?: string;
  source?: string;
  sha256?: string;
  delete?: string;
  flushed?: string;
  closed?: boolean;
}

export const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

export class History {
  readonly #pool: StoragePool;
  readonly #volume: VirtualVolume;
  readonly #random: Random;
  readonly #tell: (line: Told) => void;
  readonly #contents = new Map<string, Uint8Array>();

  private constructor(pool: StoragePool, volume: VirtualVolume, random: Random, tell: (line: Told) => void) {
    this.#pool = pool;
    this.#volume = volume;
    this.#random = random;
    this.#tell = tell;
  }

  /** Goes on with the volume as it is; makes it if it is not there. */
  static async begin(pool: StoragePool, random: Random, tell: (line: Told) => void): Promise<History> {
    const volume = pool.has('disk') ? await pool.volume('disk') : await pool.createVolume('disk', { size: SIZE_MAX });
    if (volume.sources().length === 1) await volume.addSource('log', 1 << 20);
    const history = new History(pool, volume, random, tell);
    await history.load();
    return history;
  }

  get contents(): ReadonlyMap<string, Uint8Array> {
    return this.#contents;
  }

  /** What the sources hold now: after a rollback, or when it is not known whether a failed call was applied. */
  async load(): Promise<void> {
    this.#contents.clear();
    for (const { name, sizeBytes } of this.#volume.sources()) {
      const bytes = new Uint8Array(sizeBytes);
      await this.#volume.source(name).read(0, bytes);
      this.#contents.set(name, bytes);
    }
  }

  async step(): Promise<void> {
    const volume = this.#volume;
    const random = this.#random;
    const sources = volume.sources().map((source) => source.name);
    const name = (random.below(10) < 8 ? sources[0] : sources[1]) ?? 'default';
    const source = volume.source(name);
    const bytes = this.#contents.get(name) ?? new Uint8Array();
    const snapshots = volume.snapshots().map((snapshot) => snapshot.name);
    const what = random.below(100);
    if (what < 55 && bytes.length > 0) {
      const pieces: { offset: number; piece: Uint8Array }[] = [];
      for (let many = random.below(3); many >= 0; many--) {
        const one = this.#piece(bytes.length);
        // At the same time, but not in the same place: nobody says which of two would win.
        const apart = pieces.every(({ offset, piece }) => one.offset + one.piece.length <= offset || offset + piece.length <= one.offset);
        if (apart) pieces.push(one);
      }
      for (const { offset, piece } of pieces) bytes.set(piece, offset);
      await Promise.all(pieces.map(({ offset, piece }) => source.write(offset, piece)));
    } else if (what < 68 && bytes.length > 0) {
      const offset = random.below(bytes.length);
      const length = Math.min(1 + random.below(random.below(4) === 0 ? 1 << 20 : 50_000), bytes.length - offset);
      await source.discard(offset, length);
      bytes.fill(0, offset, offset + length);
    } else if (what < 76) {
      await source.flush();
      this.#tell({ flushed: name, sha256: sha256(bytes) });
    } else if (what < 84 && snapshots.length < SNAPSHOTS_MAX) {
      const snapshot = `snapshot ${Date.now()} ${random.word()} ${'é'.repeat(random.below(60))}`;
      const only = random.below(2) === 0 ? name : undefined;
      await volume.snapshot(snapshot, { source: only });
      for (const one of only === undefined ? sources : [only]) {
        this.#tell({ snapshot, source: one, sha256: sha256(this.#contents.get(one) ?? new Uint8Array()) });
      }
    } else if (what < 90 && snapshots.length > 0) {
      const doomed = snapshots[random.below(snapshots.length)] ?? '';
      this.#tell({ delete: doomed });
      await volume.deleteSnapshot(doomed);
    } else if (what < 93 && snapshots.length > 0) {
      await volume.rollback(snapshots[random.below(snapshots.length)] ?? '', { keepAs: `left ${Date.now()} ${random.word()}` });
      await this.load();
    } else if (what < 96) {
      const size = random.below(SIZE_MAX);
      await source.resize(size);
      const resized = new Uint8Array(size);
      resized.set(bytes.subarray(0, size));
      this.#contents.set(name, resized);
    } else if (what < 99) {
      await volume.compact();
    } else {
      await this.#pool.maintain();
    }
  }

  #piece(sizeBytes: number): { offset: number; piece: Uint8Array } {
    const random = this.#random;
    let offset = random.below(Math.ceil(sizeBytes / BLOCK)) * BLOCK;
    let length = (1 + random.below(random.below(8) === 0 ? 200 : 6)) * BLOCK;
    if (random.below(6) === 0) {
      offset = random.below(sizeBytes);
      length = 1 + random.below(20_000);
    }
    const piece = new Uint8Array(Math.min(length, sizeBytes - offset));
    for (let at = 0; at < piece.length; at += 4) piece[at] = random.word();
    return { offset, piece };
  }
}
