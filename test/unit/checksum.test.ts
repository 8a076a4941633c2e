import { expect, test } from 'vitest';
import { coreOf, random, tableModule } from './table.support.ts';

const core = coreOf(tableModule());
const at = core.allocate(4096);

function hash(bytes: Uint8Array, seed = 0n, offset = 0): bigint {
  new Uint8Array(core.memory.buffer).set(bytes, at + offset);
  return BigInt.asUintN(64, core.xxh64(at + offset, bytes.length, seed));
}

// The generator of the reference's own sanity test (xxhash, cli/xsum_sanity_check.c): the top byte of a 64-bit product.
function sanityBuffer(length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let generator = 2654435761n;
  for (let i = 0; i < length; i++) {
    bytes[i] = Number(generator >> 56n);
    generator = BigInt.asUintN(64, generator * 11400714785074694797n);
  }
  return bytes;
}

const PRIME32 = 2654435761n;
const published: [length: number, seed: bigint, sum: bigint][] = [
  [0, 0n, 0xef46db3751d8e999n],
  [0, PRIME32, 0xac75fda2929b17efn],
  [1, 0n, 0xe934a84adb052768n],
  [1, PRIME32, 0x5014607643a9b4c3n],
  [4, 0n, 0x9136a0dca57457een],
  [14, 0n, 0x8282dcc4994e35c8n],
  [14, PRIME32, 0xc3bd6bf63deb6df0n],
  [222, 0n, 0xb641ae8cb691c174n],
  [222, PRIME32, 0x20cb8ab7ae10c14an],
];

test('xxh64 gives the published sums of the reference implementation', () => {
  for (const [length, seed, sum] of published) expect(hash(sanityBuffer(length), seed), `length ${length}`).toBe(sum);
  const text = (s: string): Uint8Array => new TextEncoder().encode(s);
  expect(hash(text('a'))).toBe(0xd24ec4f1a98c6e5bn);
  expect(hash(text('abc'))).toBe(0x44bc2cf5ad770999n);
  expect(hash(text('Nobody inspects the spammish repetition'))).toBe(0xfbcea83c8a378bf1n);
});

// The specification's algorithm on BigInt, byte by byte, for every length and alignment.
function slow(bytes: Uint8Array, seed: bigint): bigint {
  const [p1, p2, p3, p4, p5] = [0x9e3779b185ebca87n, 0xc2b2ae3d27d4eb4fn, 0x165667b19e3779f9n, 0x85ebca77c2b2ae63n, 0x27d4eb2f165667c5n];
  const u = (x: bigint): bigint => BigInt.asUintN(64, x);
  const rotate = (x: bigint, by: bigint): bigint => u((x << by) | (x >> (64n - by)));
  const number = (from: number, size: number): bigint =>
    bytes.subarray(from, from + size).reduceRight((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
  const round = (lane: bigint, input: bigint): bigint => u(rotate(u(lane + input * p2), 31n) * p1);
  let i = 0;
  let h = u(seed + p5);
  if (bytes.length >= 32) {
    const lanes = [u(seed + p1 + p2), u(seed + p2), seed, u(seed - p1)];
    for (; i + 32 <= bytes.length; i += 32) for (let k = 0; k < 4; k++) lanes[k] = round(lanes[k] ?? 0n, number(i + 8 * k, 8));
    h = u([1n, 7n, 12n, 18n].reduce((sum, by, k) => sum + rotate(lanes[k] ?? 0n, by), 0n));
    for (const lane of lanes) h = u((h ^ round(0n, lane)) * p1 + p4);
  }
  h = u(h + BigInt(bytes.length));
  for (; i + 8 <= bytes.length; i += 8) h = u(rotate(h ^ round(0n, number(i, 8)), 27n) * p1 + p4);
  for (; i + 4 <= bytes.length; i += 4) h = u(rotate(h ^ u(number(i, 4) * p1), 23n) * p2 + p3);
  for (; i < bytes.length; i++) h = u(rotate(h ^ u(BigInt(bytes[i] ?? 0) * p5), 11n) * p1);
  h = u((h ^ (h >> 33n)) * p2);
  h = u((h ^ (h >> 29n)) * p3);
  return h ^ (h >> 32n);
}

test('xxh64 agrees with the specification at every length and alignment', () => {
  const next = random(7);
  for (let length = 0; length <= 130; length++) {
    const bytes = Uint8Array.from({ length }, () => next(256));
    const seed = BigInt(next(2 ** 32)) * 0x100000001n;
    expect(hash(bytes, seed, length % 8), `length ${length}`).toBe(slow(bytes, seed));
  }
});
