// Test-only entry: the stripe map and its parity. The production entry is assembly/index.ts.

import { allocateAligned, allocatorInitialize } from '../std/allocator';
import { columnsOf, copiesOf, memberOf } from '../stripe/geometry';
import { columns, parityP, parityPQ } from '../stripe/parity';

export { columnOf, columnsOf, copiesOf, levelFits, memberOf, parityOf, tolerates } from '../stripe/geometry';
export { rowRestore } from '../stripe/parity';
export { plant } from '../std/plant';

let ready: bool = false;
export function take(bytes: u32): u32 {
  if (!ready) allocatorInitialize();
  ready = true;
  memory.grow(((bytes + 65535) >>> 16) + 1);
  return allocateAligned(bytes, 4096);
}

/** P (and Q, if it is not 0) of columns that lie `stride` apart. */
export function parity(count: u32, from: u32, stride: u32, p: u32, q: u32, bytes: u32): void {
  for (let i: u32 = 0; i < count; i++) store<u32>(columns + (i << 2), from + i * stride);
  if (q) parityPQ(count, p, q, bytes);
  else parityP(count, p, bytes);
}

/** The slow way, for the bench: a byte at a time. */
export function parityScalar(count: u32, from: u32, stride: u32, p: u32, bytes: u32): void {
  for (let at: u32 = 0; at < bytes; at++) {
    let sum: u32 = 0;
    for (let i: u32 = 0; i < count; i++) sum ^= load<u8>(from + i * stride + at);
    store<u8>(p + at, <u8>sum);
  }
}

export function copy(to: u32, from: u32, bytes: u32): void { memory.copy(to, from, bytes); }

/** Member and row of `count` blocks from `first` on, one after the other: u32 member, u32 row. */
export function mapWalk(level: u32, members: u32, strip: u32, first: u32, count: u32, into: u32): void {
  let wide = columnsOf(level, members);
  let copies = copiesOf(level, members);
  for (let i: u32 = 0; i < count; i++) {
    let block = first + i;
    let stripe = block / (wide * strip);
    for (let copy: u32 = 0; copy < copies; copy++) {
      store<u32>(into, memberOf(level, members, stripe, (block / strip) % wide, copy));
      store<u32>(into, stripe * strip + (block % strip), 4);
      into += 8;
    }
  }
}
