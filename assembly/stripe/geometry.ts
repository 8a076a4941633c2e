// Where a block of a storage volume lies on its members. A level is a row of numbers and pure functions from numbers to
// numbers; nothing here knows of devices or bytes.
//
// All members are equal and are read as rows: row r is block r of the data area of every member. `strip` rows are a stripe;
// a member's part of a stripe is a strip. Columns are the strips of a stripe that hold data, in the order of the blocks:
//
//   volume block b → stripe b / (columns · strip), column (b / strip) mod columns, row stripe · strip + b mod strip
//
//   level       columns   copies    parity   member of (stripe s, column c, copy k), with p = N − 1 − s mod N
//   single      1         1                  0
//   raid 0      N         1                  c
//   raid 1      1         N                  k
//   raid 5      N − 1     1         P        P at p, data at p + 1 + c                   (mod N)
//   raid 6      N − 2     1         P, Q     P at p, Q at p + 1, data at p + 2 + c       (mod N)
//   raid 10     N / 2     2                  2 c + k
//
// The rotation is the left-symmetric one: N blocks in a row lie on N members, so that large reads use all of them.

import { BLOCK_BYTES } from '../format/constants';
import { PLANT_WRONG_ROTATION, planted } from '../std/plant';

export const LEVEL_SINGLE: u32 = 0;
export const LEVEL_0: u32 = 1;
export const LEVEL_1: u32 = 2;
export const LEVEL_5: u32 = 3;
export const LEVEL_6: u32 = 4;
export const LEVEL_10: u32 = 5;
export const LEVEL_MAX: u32 = 5;

export const MEMBER_COUNT_MAX: u32 = 32;
/** 1 MiB. */
export const STRIP_BLOCKS_MAX: u32 = 256;
/** A member that holds no data in this stripe, but P or Q. */
export const COLUMN_P: u32 = 0xfe;
export const COLUMN_Q: u32 = 0xff;

export function deviceHandle(volume: u32, member: u32): u32 {
  return volume * MEMBER_COUNT_MAX + member;
}

/** Byte offset of a row on a member. */
export function rowOffset(dataOffset: f64, row: u32): f64 {
  return dataOffset + <f64>row * <f64>BLOCK_BYTES;
}

/** Whether a level can have so many members. */
export function levelFits(level: u32, members: u32): bool {
  if (level == LEVEL_SINGLE) return members == 1;
  if (level > LEVEL_MAX || members > MEMBER_COUNT_MAX) return false;
  if (level == LEVEL_10) return members >= 4 && (members & 1) == 0;
  return members >= (level == LEVEL_5 ? 3 : level == LEVEL_6 ? 4 : 2);
}

/** Strips of P and Q in a stripe. */
export function parityOf(level: u32): u32 {
  return level == LEVEL_5 ? 1 : level == LEVEL_6 ? 2 : 0;
}

/** Places at which each block of data is. */
export function copiesOf(level: u32, members: u32): u32 {
  return level == LEVEL_1 ? members : level == LEVEL_10 ? 2 : 1;
}

/** Strips of data in a stripe. */
export function columnsOf(level: u32, members: u32): u32 {
  return (members - parityOf(level)) / copiesOf(level, members);
}

/** Whether everything can still be read without the members in the mask. */
export function tolerates(level: u32, members: u32, lost: u32): bool {
  if (level == LEVEL_10) return (lost & (lost >>> 1) & 0x55555555) == 0;
  return popcnt(lost) <= (level == LEVEL_1 ? members - 1 : parityOf(level));
}

/** The mask of all members. */
export function membersMask(members: u32): u32 {
  return 0xffffffff >>> (32 - members);
}

function parityFirst(members: u32, stripe: u32): u32 {
  return members - 1 - (stripe % members);
}

export function memberOf(level: u32, members: u32, stripe: u32, column: u32, copy: u32): u32 {
  if (level == LEVEL_1) return copy;
  if (level == LEVEL_10) return column * 2 + copy;
  if (level < LEVEL_5) return column;
  let first = parityFirst(members, stripe);
  if (column >= COLUMN_P) return (first + column - COLUMN_P) % members;
  return (first + parityOf(level) + column) % members;
}

/** What a member holds in a stripe: a column, COLUMN_P or COLUMN_Q. */
export function columnOf(level: u32, members: u32, stripe: u32, member: u32): u32 {
  if (level == LEVEL_1) return 0;
  if (level == LEVEL_10) return member >>> 1;
  if (level < LEVEL_5) return member;
  let distance = (member + members - parityFirst(members, stripe)) % members;
  if (PLANTS && planted == PLANT_WRONG_ROTATION && stripe & 1) distance = (distance + 1) % members;
  let parity = parityOf(level);
  return distance < parity ? COLUMN_P + distance : distance - parity;
}
