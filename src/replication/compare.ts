// Which blocks of two buffers differ, and which of them are zero: the whole of "what changed" when nobody kept track.

export const BLOCK_BYTES = 4096;
/** Read and compared at a time: large enough that a call costs nothing beside its bytes, small enough to stay in the second-level cache. */
export const CHUNK_BYTES = 1 << 20;

/** Blocks that are to be written (`data`) or to become holes (`hole`), as a range of bytes inside the chunk. */
export interface Run {
  readonly start: number;
  readonly end: number;
  readonly kind: 'data' | 'hole';
}

const ZEROES = new Uint8Array(CHUNK_BYTES);

type Equal = (a: Uint8Array, b: Uint8Array, start: number, end: number) => boolean;

/** memcmp where there is one (Node, Deno, Bun: 10 GB/s), words elsewhere (1.5 GB/s, 2026-11). */
export const rangesEqual: Equal = typeof globalThis.Buffer === 'function' ? bufferEqual : wordsEqual;

function bufferEqual(a: Uint8Array, b: Uint8Array, start: number, end: number): boolean {
  return Buffer.prototype.compare.call(a, b, start, end, start, end) === 0;
}

export function wordsEqual(a: Uint8Array, b: Uint8Array, start: number, end: number): boolean {
  let at = start;
  if ((a.byteOffset + start) % 4 === 0 && (b.byteOffset + start) % 4 === 0) {
    const count = (end - start) >>> 2;
    const x = new Uint32Array(a.buffer, a.byteOffset + start, count);
    const y = new Uint32Array(b.buffer, b.byteOffset + start, count);
    for (let index = 0; index < count; index++) if (x[index] !== y[index]) return false;
    at += count * 4;
  }
  for (; at < end; at++) if (a[at] !== b[at]) return false;
  return true;
}

export function isZero(bytes: Uint8Array, start: number, end: number): boolean {
  for (let at = start; at < end; at += CHUNK_BYTES) {
    const stop = Math.min(end, at + CHUNK_BYTES);
    const part = bytes.subarray(at, stop);
    if (!rangesEqual(part, ZEROES, 0, stop - at)) return false;
  }
  return true;
}

/** Runs of blocks in which `wanted` differs from `present`, in order; neighbours of one kind are one run. The last block may be short. */
export function differences(wanted: Uint8Array, present: Uint8Array, length: number): Run[] {
  const runs: Run[] = [];
  if (rangesEqual(wanted, present, 0, length)) return runs;
  for (let start = 0; start < length; start += BLOCK_BYTES) {
    const end = Math.min(length, start + BLOCK_BYTES);
    if (rangesEqual(wanted, present, start, end)) continue;
    append(runs, start, end, isZero(wanted, start, end) ? 'hole' : 'data');
  }
  return runs;
}

/** Runs of blocks that are not zero, in order. */
export function dataRuns(wanted: Uint8Array, length: number): Run[] {
  const runs: Run[] = [];
  if (isZero(wanted, 0, length)) return runs;
  for (let start = 0; start < length; start += BLOCK_BYTES) {
    const end = Math.min(length, start + BLOCK_BYTES);
    if (!isZero(wanted, start, end)) append(runs, start, end, 'data');
  }
  return runs;
}

function append(runs: Run[], start: number, end: number, kind: Run['kind']): void {
  const last = runs.at(-1);
  if (last !== undefined && last.end === start && last.kind === kind) runs[runs.length - 1] = { start: last.start, end, kind };
  else runs.push({ start, end, kind });
}
