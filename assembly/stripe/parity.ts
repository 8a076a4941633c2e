// P and Q over a row of a stripe, and the members that are lost computed from those that are there.
//
//   P = d0 ⊕ d1 ⊕ …            Q = d0 ⊕ g·d1 ⊕ g²·d2 ⊕ …       over GF(2⁸) with x⁸+x⁴+x³+x²+1 (0x11d), g = 2
//
// Q is summed from the last column down (Horner), so the only product is by 2: a shift, and 0x1d where a bit fell out. Other
// constants are multiplied by two lookups of 16 bytes each (i8x16.swizzle): half-bytes of a number are independent. After
// H. P. Anvin, "The mathematics of RAID-6" (2004), and J. Plank, "Screaming Fast Galois Field Arithmetic" (2013).
//
// A row is described by the address of member 0's block and the stride from member to member.

import { BLOCK_BYTES } from '../format/constants';
import { COLUMN_P, COLUMN_Q, columnOf, columnsOf, copiesOf, memberOf, parityOf } from './geometry';

/** The addresses of a stripe's columns, 0 where one counts as zeros. */
export const columns: usize = memory.data(RAID ? 128 : 16, 16);

// The inner loops do 64 bytes of each column at a time: four registers of P and four of Q (2026-11).
const CHUNK: u32 = 64;

/** P of `count` columns into `p`; `bytes` is a multiple of 64. */
export function parityP(count: u32, p: u32, bytes: u32): void {
  for (let at: u32 = 0; at < bytes; at += CHUNK) {
    let a = i64x2.splat(0);
    let b = a;
    let c = a;
    let d = a;
    for (let column: u32 = 0; column < count; column++) {
      let from = load<u32>(columns + (column << 2));
      if (!from) continue;
      from += at;
      a = v128.xor(a, v128.load(from));
      b = v128.xor(b, v128.load(from, 16));
      c = v128.xor(c, v128.load(from, 32));
      d = v128.xor(d, v128.load(from, 48));
    }
    v128.store(p + at, a);
    v128.store(p + at, b, 16);
    v128.store(p + at, c, 32);
    v128.store(p + at, d, 48);
  }
}

@inline
function doubled(value: v128, poly: v128): v128 {
  return v128.xor(i8x16.shl(value, 1), v128.and(i8x16.lt_s(value, i64x2.splat(0)), poly));
}

/** P and Q of `count` columns. */
export function parityPQ(count: u32, p: u32, q: u32, bytes: u32): void {
  let poly = i8x16.splat(0x1d);
  for (let at: u32 = 0; at < bytes; at += CHUNK) {
    let a = i64x2.splat(0);
    let b = a;
    let c = a;
    let d = a;
    let e = a;
    let f = a;
    let g = a;
    let h = a;
    for (let column = count; column > 0; column--) {
      e = doubled(e, poly);
      f = doubled(f, poly);
      g = doubled(g, poly);
      h = doubled(h, poly);
      let from = load<u32>(columns + ((column - 1) << 2));
      if (!from) continue;
      from += at;
      let value = v128.load(from);
      a = v128.xor(a, value);
      e = v128.xor(e, value);
      value = v128.load(from, 16);
      b = v128.xor(b, value);
      f = v128.xor(f, value);
      value = v128.load(from, 32);
      c = v128.xor(c, value);
      g = v128.xor(g, value);
      value = v128.load(from, 48);
      d = v128.xor(d, value);
      h = v128.xor(h, value);
    }
    v128.store(p + at, a);
    v128.store(p + at, b, 16);
    v128.store(p + at, c, 32);
    v128.store(p + at, d, 48);
    v128.store(q + at, e);
    v128.store(q + at, f, 16);
    v128.store(q + at, g, 32);
    v128.store(q + at, h, 48);
  }
}

function product(a: u32, b: u32): u32 {
  let sum: u32 = 0;
  for (; b; b >>>= 1) {
    if (b & 1) sum ^= a;
    a = (a << 1) ^ (a & 0x80 ? 0x11d : 0);
  }
  return sum;
}

function power(base: u32, exponent: u32): u32 {
  let result: u32 = 1;
  for (; exponent; exponent--) result = product(result, base);
  return result;
}

function inverse(value: u32): u32 {
  return power(value, 254);
}

const nibbles: usize = memory.data(RAID ? 32 : 16, 16);

/** into = into ⊕ factor · from. */
function productAdd(into: u32, from: u32, factor: u32, bytes: u32): void {
  for (let i: u32 = 0; i < 16; i++) {
    store<u8>(nibbles + i, <u8>product(factor, i));
    store<u8>(nibbles + i, <u8>product(factor, i << 4), 16);
  }
  let low = v128.load(nibbles);
  let high = v128.load(nibbles, 16);
  let mask = i8x16.splat(15);
  for (let at: u32 = 0; at < bytes; at += 16) {
    let value = v128.load(from + at);
    let sum = v128.xor(i8x16.swizzle(low, v128.and(value, mask)), i8x16.swizzle(high, v128.and(i8x16.shr_u(value, 4), mask)));
    v128.store(into + at, v128.xor(v128.load(into + at), sum));
  }
}

const scratch: usize = memory.data(RAID ? 8192 : 16, 16);

/**
 * Fills in the blocks of one row that the members in `lost` should hold, from the other members. False where they cannot be
 * had; then nothing of the row is changed.
 */
export function rowRestore(level: u32, members: u32, stripe: u32, row: u32, stride: u32, lost: u32): bool {
  if (copiesOf(level, members) > 1) {
    let first = columnsOf(level, members);
    for (let column: u32 = 0; column < first; column++) {
      let source: u32 = 0;
      let any: bool = false;
      for (let copy: u32 = 0; copy < copiesOf(level, members); copy++) {
        let member = memberOf(level, members, stripe, column, copy);
        if (lost & (1 << member)) any = true;
        else source = row + member * stride;
      }
      if (!any) continue;
      if (!source) return false;
      for (let copy: u32 = 0; copy < copiesOf(level, members); copy++) {
        let member = memberOf(level, members, stripe, column, copy);
        if (lost & (1 << member)) memory.copy(row + member * stride, source, BLOCK_BYTES);
      }
    }
    return true;
  }
  let parity = parityOf(level);
  if (<u32>popcnt(lost) > parity) return false;
  if (!lost) return true;
  let count = columnsOf(level, members);
  let x: u32 = COLUMN_P; // the lost columns of data
  let y: u32 = COLUMN_P;
  let p = row + memberOf(level, members, stripe, COLUMN_P, 0) * stride;
  let q = parity > 1 ? row + memberOf(level, members, stripe, COLUMN_Q, 0) * stride : 0;
  let pLost = false;
  let qLost = false;
  for (let column: u32 = 0; column < count; column++) store<u32>(columns + (column << 2), row + memberOf(level, members, stripe, column, 0) * stride);
  for (let member: u32 = 0; member < members; member++) {
    if (!(lost & (1 << member))) continue;
    let column = columnOf(level, members, stripe, member);
    if (column == COLUMN_P) pLost = true;
    else if (column == COLUMN_Q) qLost = true;
    else {
      store<u32>(columns + (column << 2), 0);
      if (x == COLUMN_P) x = column;
      else y = column;
    }
  }
  let toP = <u32>scratch;
  let toQ = <u32>scratch + BLOCK_BYTES;
  if (x == COLUMN_P) {
    if (q) parityPQ(count, pLost ? p : toP, qLost ? q : toQ, BLOCK_BYTES);
    else parityP(count, p, BLOCK_BYTES);
    return true;
  }
  let atX = row + memberOf(level, members, stripe, x, 0) * stride;
  if (y == COLUMN_P && !pLost) {
    parityP(count, toP, BLOCK_BYTES);
    productAdd(toP, p, 1, BLOCK_BYTES);
    memory.copy(atX, toP, BLOCK_BYTES);
  } else {
    parityPQ(count, toP, toQ, BLOCK_BYTES);
    productAdd(toQ, q, 1, BLOCK_BYTES); // what the lost columns add to Q
    if (y == COLUMN_P) {
      memory.fill(atX, 0, BLOCK_BYTES);
      productAdd(atX, toQ, inverse(power(2, x)), BLOCK_BYTES);
    } else {
      // P' = dx + dy, Q' = gˣ dx + gʸ dy  ⇒  dy = (Q' + gˣ P') / (gˣ + gʸ), dx = P' + dy
      productAdd(toP, p, 1, BLOCK_BYTES);
      let gx = power(2, x);
      productAdd(toQ, toP, gx, BLOCK_BYTES);
      let atY = row + memberOf(level, members, stripe, y, 0) * stride;
      memory.fill(atY, 0, BLOCK_BYTES);
      productAdd(atY, toQ, inverse(gx ^ power(2, y)), BLOCK_BYTES);
      memory.copy(atX, toP, BLOCK_BYTES);
      productAdd(atX, atY, 1, BLOCK_BYTES);
      return true;
    }
  }
  if (pLost || qLost) {
    store<u32>(columns + (x << 2), atX);
    if (q) parityPQ(count, pLost ? p : toP, qLost ? q : toQ, BLOCK_BYTES);
    else parityP(count, p, BLOCK_BYTES);
  }
  return true;
}
