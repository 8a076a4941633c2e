import { describe, expect, it } from 'vitest';
import fc from 'fast-check';
import { BLOCK_BYTES, dataRuns, differences, isZero, rangesEqual, wordsEqual } from '../../src/replication/compare.ts';

/** A chunk of blocks: 0 is a zero block, other numbers fill it. */
function chunk(blocks: readonly number[], tail = 0): Uint8Array {
  const bytes = new Uint8Array(blocks.length * BLOCK_BYTES + tail);
  blocks.forEach((fill, index) => bytes.fill(fill, index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES));
  return bytes;
}

const inBlocks = (runs: readonly { start: number; end: number; kind: string }[]) =>
  runs.map(({ start, end, kind }) => [start / BLOCK_BYTES, end / BLOCK_BYTES, kind]);

describe('comparing blocks', () => {
  it('finds nothing in equal chunks', () => {
    expect(differences(chunk([1, 0, 2]), chunk([1, 0, 2]), 3 * BLOCK_BYTES)).toEqual([]);
  });

  it('makes one run of neighbours of one kind, and a hole of zeroes', () => {
    expect(inBlocks(differences(chunk([1, 2, 0, 0, 5, 6]), chunk([9, 9, 9, 9, 5, 9]), 6 * BLOCK_BYTES))).toEqual([
      [0, 2, 'data'],
      [2, 4, 'hole'],
      [5, 6, 'data'],
    ]);
  });

  it('sees a last block that is short', () => {
    const a = chunk([1], 100);
    const b = chunk([1], 100);
    b[BLOCK_BYTES + 99] = 1;
    expect(differences(b, a, b.length)).toEqual([{ start: BLOCK_BYTES, end: BLOCK_BYTES + 100, kind: 'data' }]);
    expect(differences(a, b, b.length)).toEqual([{ start: BLOCK_BYTES, end: BLOCK_BYTES + 100, kind: 'hole' }]);
  });

  it('finds the blocks that are not zero', () => {
    expect(inBlocks(dataRuns(chunk([0, 1, 2, 0, 3]), 5 * BLOCK_BYTES))).toEqual([
      [1, 3, 'data'],
      [4, 5, 'data'],
    ]);
    expect(dataRuns(chunk([0, 0]), 2 * BLOCK_BYTES)).toEqual([]);
    expect(isZero(chunk([0, 0, 1]), 0, 2 * BLOCK_BYTES)).toBe(true);
  });

  it('agrees with a comparison byte by byte, however the arrays lie', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 1, maxLength: 64 }),
        fc.nat(7),
        fc.nat(7),
        fc.option(fc.nat(63)),
        (bytes, shiftA, shiftB, flip) => {
          const a = new Uint8Array(bytes.length + 8).subarray(shiftA, shiftA + bytes.length);
          const b = new Uint8Array(bytes.length + 8).subarray(shiftB, shiftB + bytes.length);
          a.set(bytes);
          b.set(bytes);
          if (flip !== null) b[flip % b.length]! ^= 1;
          const start = bytes.length >> 2;
          const wanted = a.subarray(start).every((byte, index) => byte === b[start + index]);
          expect(wordsEqual(a, b, start, a.length)).toBe(wanted);
          expect(rangesEqual(a, b, start, a.length)).toBe(wanted);
        },
      ),
    );
  });
});
