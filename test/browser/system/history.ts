// A history of numbered block writes that a seed determines, and what a state that was found after a crash says about it (P1, P2).
//
// Every block of every write has a number, in the order in which they were submitted one after the other; the block holds its number. After a crash the
// volume must be what it was after the first n of them, for some n not below what the last flush covered. For each block the number found in it says: n is
// at least this, and less than the number of the next write to the same block.
import { Random } from '../../../src/testing/random.ts';

export const BLOCK = 4096;
export const BLOCKS = 768;
/** Blocks of one write at most. */
export const WRITE_MAX = 12;
/** Numbers of one life. Those of the next begin above. */
export const LIFE = 1_000_000;

export interface Write {
  /** Number of its first block. */
  readonly first: number;
  readonly block: number;
  readonly count: number;
  /** What follows it. */
  readonly next: 'nothing' | 'flush' | 'snapshot';
}

/** The writes of a life, without end. */
export function* writesOf(seed: number, life: number): Generator<Write, never, undefined> {
  const random = new Random(seed + life);
  for (let first = life * LIFE + 1; ;) {
    const count = 1 + random.below(WRITE_MAX);
    // A hot tenth of the volume, so that blocks are overwritten and segments have something to be cleaned of.
    const block = random.chance(0.5) ? random.below(BLOCKS / 10) : random.below(BLOCKS - count);
    const draw = random.below(100);
    yield { first, block, count, next: draw < 8 ? 'flush' : draw < 9 ? 'snapshot' : 'nothing' };
    first += count;
  }
}

/** A block that holds its number in every word, so that a torn one shows. */
export function fill(into: Uint8Array<ArrayBuffer>, number: number): void {
  new Uint32Array(into.buffer, into.byteOffset, into.byteLength / 4).fill(number);
}

/** The number in a block; 0: never written. @throws Error when it is torn */
export function numberIn(bytes: Uint8Array<ArrayBuffer>): number {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  const number = words[0] as number;
  if (words.some((word) => word !== number))
    throw new Error(`a block is torn: it begins with ${number} and has ${words.find((word) => word !== number)}`);
  return number;
}

export interface Life {
  readonly seed: number;
  readonly life: number;
  /** The number in each block when the life began. */
  readonly before: readonly number[];
  /** The last number that a flush covered which returned, as far as was heard of; 0: none. */
  readonly flushed: number;
}

/** @returns what is wrong with the state found after a life, or nothing */
export function judge(life: Life, found: readonly number[]): string | undefined {
  const start = life.life * LIFE;
  let least = Math.max(life.flushed, start);
  let most = Number.POSITIVE_INFINITY;
  // Where each block's number was written, and what came next. Behind what is demanded anyway nothing matters.
  const end = Math.max(least, ...found);
  const next = Array.from({ length: found.length }, () => 0);
  const seen = found.map((number, block) => number <= start && number === life.before[block]);
  for (const write of writesOf(life.seed, life.life)) {
    if (write.first > end) break;
    for (let at = 0; at < write.count; at++) {
      const number = write.first + at;
      const block = write.block + at;
      if (found[block] === number) {
        seen[block] = true;
        next[block] = 0;
      } else if (seen[block] && next[block] === 0) next[block] = number;
    }
  }
  for (let block = 0; block < found.length; block++) {
    if (!seen[block]) return `block ${block} holds ${found[block]}, which was never written to it (before: ${life.before[block]})`;
    if ((found[block] as number) > start) least = Math.max(least, found[block] as number);
    if (next[block] !== 0) most = Math.min(most, (next[block] as number) - 1);
  }
  if (least <= most) return undefined;
  return `no prefix fits: something demands at least the first ${least - start} blocks (${life.flushed - start} were flushed), something else at most ${most - start}`;
}

/** So many are kept; an older one is deleted when a newer one's call has returned. */
export const SNAPSHOTS_KEPT = 3;

/** Is a snapshot, whose call returned, neither there nor pushed out by newer ones? The writer may have gone on for a while without being heard. */
export function isSnapshotLost(name: string, found: readonly string[]): boolean {
  const numberOf = (snapshot: string): number => Number(snapshot.slice(1));
  return !found.includes(name) && found.filter((other) => numberOf(other) > numberOf(name)).length < SNAPSHOTS_KEPT;
}
