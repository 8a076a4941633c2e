// Canonical workloads: what is written where is the same in every run (docs/BENCHMARKING.md).

export type Random = (below: number) => number;

/** mulberry32: whole numbers in [0, below), below ≤ 2^32. */
export function random(seed: number): Random {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 4294967296) * below);
  };
}

/**
 * Zipf over [0, count), after Gray et al., "Quickly generating billion-record synthetic databases" (as YCSB does it). Rank 0 is the most frequent; the
 * caller scatters ranks over the address space.
 */
export function zipf(count: number, theta: number, next: Random): () => number {
  let zeta = 0;
  for (let rank = 1; rank <= count; rank++) zeta += 1 / rank ** theta;
  const alpha = 1 / (1 - theta);
  const half = 0.5 ** theta;
  const eta = (1 - (2 / count) ** (1 - theta)) / (1 - (1 + half) / zeta);
  return () => {
    const u = next(2 ** 32) / 2 ** 32;
    const uz = u * zeta;
    if (uz < 1) return 0;
    if (uz < 1 + half) return 1;
    return Math.min(count - 1, Math.floor(count * (eta * u - eta + 1) ** alpha));
  };
}

/** A permutation of [0, count): Fisher and Yates. */
export function permutation(count: number, next: Random): Uint32Array {
  const order = new Uint32Array(count);
  for (let i = 0; i < count; i++) order[i] = i;
  for (let i = count - 1; i > 0; i--) {
    const j = next(i + 1);
    const swap = order[i]!;
    order[i] = order[j]!;
    order[j] = swap;
  }
  return order;
}

/** Bytes that do not compress and are the same in every run. */
export function noise(length: number, seed: number): Uint8Array<ArrayBuffer> {
  const words = new Uint32Array(Math.ceil(length / 4));
  let state = (Math.imul(seed, 0x9e3779b1) | 1) >>> 0;
  for (let at = 0; at < words.length; at++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[at] = state;
  }
  return new Uint8Array(words.buffer, 0, length);
}

/** Puts (block, version) at the start of a block, so that what is read back tells which write it is. */
export function stamp(bytes: Uint8Array, at: number, block: number, version: number): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, 8);
  view.setUint32(0, version, true);
  view.setUint32(4, block, true);
}

export function stampOf(bytes: Uint8Array, at: number): { version: number; block: number } {
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, 8);
  return { version: view.getUint32(0, true), block: view.getUint32(4, true) };
}
