// Where a block of a storage volume lies on its members. A level is a pure function from numbers to numbers; `single` is
// the identity. Everything above asks only for the device handle and the offset of a run of blocks that does not cross a
// stripe.

import { BLOCK_BYTES } from '../format/constants';

export const LEVEL_SINGLE: u32 = 0;
export const MEMBER_COUNT_MAX: u32 = 32;

export function deviceHandle(volume: u32, member: u32): u32 {
  return volume * MEMBER_COUNT_MAX + member;
}

/** Byte offset on the member for level `single`: the data area holds the blocks in order. */
export function singleOffset(dataOffset: f64, block: u32): f64 {
  return dataOffset + <f64>block * <f64>BLOCK_BYTES;
}
