// The label of a storage device: 4096 bytes at its front, and once more in front of its back label area.
//
//   front                                                                                    back
//   | label | catalogue A | catalogue B | root A | root B | data … | label | catalogue A | catalogue B | root A | root B |
//   0       4096                        R                 D        E = size − D                                          size
//
//   R = 4096 + 2·C,  D = R + 2·4096,  C = bytes of one catalogue slot. The data area holds the member's part of whole segments from
//   D on: segments · segmentBlocks / columns blocks, where columns are the strips of data in a stripe (1 on `single`). All members
//   of a storage volume have the same size in their labels, that of the smallest, so that all offsets are the same.
//
// Bytes of a label, little-endian, everything not named is reserved and zero:
//
//     0   8  magic "VARVELBL"                 96   2  storage volume id
//     8   2  version, major (breaks)          98   1  member index
//    10   2  version, minor (does not)        99   1  member count
//    12   4  length of the label, 4096       100   1  level (1 single, 2 raid 0, 3 raid 1, 4 raid 5, 5 raid 6, 6 raid 10)
//    16   8  checksum: XXH64 of all 4096     101   1  side (1 front, 2 back)
//            bytes, this field taken as 0    102   2  reserved
//    24   8  features: incompatible          104   4  strip, blocks (0 on single)
//    32   8  features: read-only compatible  108   4  segment, blocks
//    40   8  features: compatible            112   4  segments
//    48  16  pool uuid                       116   4  catalogue slot, bytes (C)
//    64  16  device uuid                     120   8  device size, bytes
//    80  16  reserved                        128   8  front: catalogue slot A     136   8  front: root slot A
//                                            144   8  data area (D)               152   8  back: label (E)
//                                            160   8  back: catalogue slot A      168   8  back: root slot A
//                                            176   8  catalogue generation that first named this device
//
// The offsets follow from the size and C; they are stored so that a reader in any language can be checked against them, and
// a label whose offsets do not follow is refused.

import { columnsOf, levelFits, STRIP_BLOCKS_MAX } from '../stripe/geometry';
import { sealedChecksum } from './key';
import { FORMAT_BOUNDS, FORMAT_CHECKSUM, FORMAT_FEATURES, FORMAT_FIELDS, FORMAT_MAGIC, FORMAT_OK, FORMAT_VERSION } from './result';
import { clear } from '../std/bytes';

export const LABEL_BYTES: u32 = 4096;
export const LABEL_MAGIC: u64 = (<u64>0x4c424c45 << 32) | 0x56524156; // "VARVELBL"
export const LABEL_VERSION_MAJOR: u32 = 1;
export const LABEL_VERSION_MINOR: u32 = 0;
/** Features that this build knows, by word. An unknown incompatible one refuses the device, an unknown read-only one its writing. */
export const LABEL_FEATURES_INCOMPATIBLE: u64 = 0;
export const LABEL_FEATURES_READ_ONLY: u64 = 0;

const OFFSET_MAGIC: usize = 0;
const OFFSET_MAJOR: usize = 8;
const OFFSET_MINOR: usize = 10;
const OFFSET_LENGTH: usize = 12;
const OFFSET_CHECKSUM: usize = 16;
const OFFSET_INCOMPATIBLE: usize = 24;
const OFFSET_READ_ONLY: usize = 32;
const OFFSET_COMPATIBLE: usize = 40;
const OFFSET_POOL: usize = 48;
const OFFSET_DEVICE: usize = 64;
const OFFSET_RESERVED_A: usize = 80; // 16 bytes
const OFFSET_VOLUME: usize = 96;
const OFFSET_MEMBER: usize = 98;
const OFFSET_MEMBERS: usize = 99;
const OFFSET_LEVEL: usize = 100;
const OFFSET_SIDE: usize = 101;
const OFFSET_RESERVED_B: usize = 102; // 2 bytes
const OFFSET_STRIP: usize = 104;
const OFFSET_SEGMENT_BLOCKS: usize = 108;
const OFFSET_SEGMENT_COUNT: usize = 112;
const OFFSET_SLOT: usize = 116;
const OFFSET_SIZE: usize = 120;
const OFFSET_FRONT_CATALOGUE: usize = 128;
const OFFSET_FRONT_ROOT: usize = 136;
const OFFSET_DATA: usize = 144;
const OFFSET_BACK_LABEL: usize = 152;
const OFFSET_BACK_CATALOGUE: usize = 160;
const OFFSET_BACK_ROOT: usize = 168;
const OFFSET_GENERATION: usize = 176;
const OFFSET_END: usize = 184;

/** A label as the host sees it: two uuids and then f64 numbers, in this order (a feature word is two numbers, low and high). */
export const LABEL_FIELDS_BYTES: u32 = 232;
const FIELD_POOL: usize = 0;
const FIELD_DEVICE: usize = 16;
const FIELD_MAJOR: usize = 32;
const FIELD_MINOR: usize = 40;
const FIELD_INCOMPATIBLE: usize = 48; // low, high
const FIELD_READ_ONLY: usize = 64; // low, high
const FIELD_COMPATIBLE: usize = 80; // low, high
const FIELD_VOLUME: usize = 96;
const FIELD_MEMBER: usize = 104;
const FIELD_MEMBERS: usize = 112;
const FIELD_LEVEL: usize = 120;
const FIELD_STRIP: usize = 128;
const FIELD_SEGMENT_BLOCKS: usize = 136;
const FIELD_SEGMENT_COUNT: usize = 144;
const FIELD_SIZE: usize = 152;
const FIELD_SLOT: usize = 160;
const FIELD_FRONT_CATALOGUE: usize = 168;
const FIELD_FRONT_ROOT: usize = 176;
const FIELD_DATA: usize = 184;
const FIELD_BACK_LABEL: usize = 192;
const FIELD_BACK_CATALOGUE: usize = 200;
const FIELD_BACK_ROOT: usize = 208;
const FIELD_SIDE: usize = 216;
const FIELD_GENERATION: usize = 224;

// Where the numbers from FIELD_VOLUME on, one after the other, are on disk: offset and width in bytes of each.
const NUMBERS: u32 = 17;
const numbers: usize = memory.data<u8>([
  <u8>OFFSET_VOLUME, 2, <u8>OFFSET_MEMBER, 1, <u8>OFFSET_MEMBERS, 1, <u8>OFFSET_LEVEL, 1, <u8>OFFSET_STRIP, 4, <u8>OFFSET_SEGMENT_BLOCKS, 4,
  <u8>OFFSET_SEGMENT_COUNT, 4, <u8>OFFSET_SIZE, 8, <u8>OFFSET_SLOT, 4, <u8>OFFSET_FRONT_CATALOGUE, 8, <u8>OFFSET_FRONT_ROOT, 8, <u8>OFFSET_DATA, 8,
  <u8>OFFSET_BACK_LABEL, 8, <u8>OFFSET_BACK_CATALOGUE, 8, <u8>OFFSET_BACK_ROOT, 8, <u8>OFFSET_SIDE, 1, <u8>OFFSET_GENERATION, 8,
]);
function numberOffset(number: u32): u32 { return load<u8>(numbers + number * 2); }
function numberMask(number: u32): u64 { return ~(<u64>0) >> (64 - 8 * <u64>load<u8>(numbers + number * 2, 1)); }

/** Numbers above this do not cross the boundary whole. */
const EXACT_MAX: u64 = 0x1fffffffffffff;
/** 0xFFFE and 0xFFFF mean "absent" and "hole" in the lookup table. */
const VOLUME_MAX: u32 = 0xfffd;
const SEGMENT_BLOCKS_MIN: u32 = 8;
const SEGMENT_BLOCKS_MAX: u32 = 1024;
/** A segment is never less than so many stripes, but for the widest: a slot has 16 bits, so that 32 strips of 1 MiB are seven times in it. */
const SEGMENT_STRIPES_MIN: u32 = 8;
const SEGMENT_SLOTS_MAX: u32 = 0xffff;
/** Two open segments, two victims, metadata twice: with less a log cannot turn round. */
const SEGMENT_COUNT_MIN: u64 = 8;
const SLOT_BYTES_MIN: u32 = 4096;
const SLOT_BYTES_MAX: u32 = 1 << 20;
const BLOCK_BYTES: u64 = 4096;

function field(fields: usize, offset: usize): f64 {
  return load<f64>(fields + offset);
}

function fieldWord(fields: usize, offset: usize): u64 {
  return ((<u64>field(fields, offset + 8)) << 32) | <u64>field(fields, offset);
}

function storeWord(fields: usize, offset: usize, value: u64): void {
  store<f64>(fields + offset, <f64>(<u32>value));
  store<f64>(fields + offset + 8, <f64>(<u32>(value >> 32)));
}

function labelChecksum(label: usize): u64 {
  return sealedChecksum(<u32>label, LABEL_BYTES, <u32>OFFSET_CHECKSUM, 0);
}

/** Bytes of one catalogue slot on a device of this size: a pool of small devices has few of them, and must not lose its room to its catalogue. */
function slotBytesFor(size: u64): u32 {
  return size < (<u64>1) << 30 ? 64 << 10 : 1 << 20;
}

/** Where the back label of a device of this size is, for one whose front label cannot be read; 0 when the device is too small for one. */
export function labelBackOffset(sizeBytes: f64): f64 {
  const size = <u64>sizeBytes & ~4095;
  const area = BLOCK_BYTES + 2 * <u64>slotBytesFor(size) + 2 * BLOCK_BYTES;
  return size < 2 * area ? 0 : <f64>(size - area);
}

/**
 * Lays out a member whose size, level, member count and strip are in `fields`: rounds the size down to blocks and fills in the catalogue slot and the
 * segments. On `single` the segment is the largest power of two of blocks, from 8 to 1024, that gives at least 32 segments; on the others the largest
 * number of whole stripes that does and is at most 1024 blocks, but never less than 8 stripes. One that is there already is kept (tests).
 * FORMAT_BOUNDS when the device is too small, FORMAT_FIELDS when the level cannot be like that. A build without RAID takes
 * it for granted that the level is `single`.
 */
export function labelLayout(fields: u32): u32 {
  const f = <usize>fields;
  const size = <u64>field(f, FIELD_SIZE) & ~4095;
  const slot = slotBytesFor(size);
  const area = BLOCK_BYTES + 2 * <u64>slot + 2 * BLOCK_BYTES;
  if (size > EXACT_MAX || size < 2 * area + SEGMENT_COUNT_MIN * SEGMENT_BLOCKS_MIN * BLOCK_BYTES) return FORMAT_BOUNDS;
  const level = <u32>field(f, FIELD_LEVEL) - 1;
  const members = <u32>field(f, FIELD_MEMBERS);
  const strip = <u32>field(f, FIELD_STRIP);
  if (RAID && !geometryFits(level, members, strip)) return FORMAT_FIELDS;
  const stripe = RAID && level ? columnsOf(level, members) * strip : 1;
  let blocks = RAID && level ? ((size - 2 * area) / BLOCK_BYTES / strip) * stripe : (size - 2 * area) / BLOCK_BYTES;
  if (blocks > 0xffffffff) blocks = 0xffffffff; // a block number has 32 bits: 16 TiB are used of a larger device
  let segmentBlocks = <u32>field(f, FIELD_SEGMENT_BLOCKS);
  if (segmentBlocks == 0) {
    segmentBlocks = SEGMENT_BLOCKS_MAX;
    if (RAID && level) {
      const most = min<u64>(segmentBlocks / stripe, blocks / stripe / 32);
      segmentBlocks = stripe * max<u32>(<u32>most, min<u32>(SEGMENT_STRIPES_MIN, SEGMENT_SLOTS_MAX / stripe));
    } else while (segmentBlocks > SEGMENT_BLOCKS_MIN && blocks / segmentBlocks < 32) segmentBlocks >>= 1;
  }
  const count = blocks / segmentBlocks;
  if (count < SEGMENT_COUNT_MIN) return FORMAT_BOUNDS;
  store<f64>(f + FIELD_SIZE, <f64>size);
  store<f64>(f + FIELD_SLOT, <f64>slot);
  store<f64>(f + FIELD_SEGMENT_BLOCKS, <f64>segmentBlocks);
  store<f64>(f + FIELD_SEGMENT_COUNT, <f64>count);
  return FORMAT_OK;
}

/** Whether a storage volume of this level can have so many members and such strips. */
export function geometryFits(level: u32, members: u32, strip: u32): bool {
  if (!levelFits(level, members)) return false;
  return level ? strip > 0 && strip <= STRIP_BLOCKS_MAX && popcnt(strip) == 1 : strip <= 1;
}

/** Writes the label that `fields` describe to the 4096 bytes at `into`. Version numbers are this build's and offsets follow from size and slot. */
export function labelEncode(fields: u32, into: u32): void {
  const f = <usize>fields;
  const label = <usize>into;
  clear(label, LABEL_BYTES);
  store<u64>(label + OFFSET_MAGIC, LABEL_MAGIC);
  store<u16>(label + OFFSET_MAJOR, <u16>LABEL_VERSION_MAJOR);
  store<u16>(label + OFFSET_MINOR, <u16>LABEL_VERSION_MINOR);
  store<u32>(label + OFFSET_LENGTH, LABEL_BYTES);
  store<u64>(label + OFFSET_INCOMPATIBLE, fieldWord(f, FIELD_INCOMPATIBLE));
  store<u64>(label + OFFSET_READ_ONLY, fieldWord(f, FIELD_READ_ONLY));
  store<u64>(label + OFFSET_COMPATIBLE, fieldWord(f, FIELD_COMPATIBLE));
  memory.copy(label + OFFSET_POOL, f + FIELD_POOL, 32); // and the device's
  for (let number: u32 = 0; number < NUMBERS; number++) {
    const at = label + numberOffset(number);
    store<u64>(at, load<u64>(at) | (<u64>field(f, FIELD_VOLUME + number * 8) & numberMask(number)));
  }
  const root = BLOCK_BYTES + 2 * <u64>field(f, FIELD_SLOT);
  const data = root + 2 * BLOCK_BYTES;
  const back = <u64>field(f, FIELD_SIZE) - data;
  store<u64>(label + OFFSET_FRONT_CATALOGUE, BLOCK_BYTES);
  store<u64>(label + OFFSET_FRONT_ROOT, root);
  store<u64>(label + OFFSET_DATA, data);
  store<u64>(label + OFFSET_BACK_LABEL, back);
  store<u64>(label + OFFSET_BACK_CATALOGUE, back + BLOCK_BYTES);
  store<u64>(label + OFFSET_BACK_ROOT, back + root);
  store<u64>(label + OFFSET_CHECKSUM, labelChecksum(label));
}

/** Reads the 4096 bytes at `from`, which nobody vouches for, into `fields`; FORMAT_OK or the first thing that is wrong with them. */
export function labelDecode(from: u32, fields: u32): u32 {
  const label = <usize>from;
  if (load<u64>(label + OFFSET_MAGIC) != LABEL_MAGIC) return FORMAT_MAGIC;
  if (load<u32>(label + OFFSET_LENGTH) != LABEL_BYTES) return FORMAT_BOUNDS;
  if (load<u64>(label + OFFSET_CHECKSUM) != labelChecksum(label)) return FORMAT_CHECKSUM;

  const f = <usize>fields;
  clear(f, LABEL_FIELDS_BYTES);
  const major: u32 = load<u16>(label + OFFSET_MAJOR);
  const minor: u32 = load<u16>(label + OFFSET_MINOR);
  store<f64>(f + FIELD_MAJOR, <f64>major);
  store<f64>(f + FIELD_MINOR, <f64>minor);
  if (major != LABEL_VERSION_MAJOR) return FORMAT_VERSION;
  const incompatible = load<u64>(label + OFFSET_INCOMPATIBLE);
  storeWord(f, FIELD_INCOMPATIBLE, incompatible);
  storeWord(f, FIELD_READ_ONLY, load<u64>(label + OFFSET_READ_ONLY));
  storeWord(f, FIELD_COMPATIBLE, load<u64>(label + OFFSET_COMPATIBLE));
  if ((incompatible & ~LABEL_FEATURES_INCOMPATIBLE) != 0) return FORMAT_FEATURES;

  // A later minor version may have put something there; our own has not.
  if (minor <= LABEL_VERSION_MINOR) {
    if (load<u64>(label + OFFSET_RESERVED_A) != 0 || load<u64>(label + OFFSET_RESERVED_A + 8) != 0) return FORMAT_FIELDS;
    if (load<u16>(label + OFFSET_RESERVED_B) != 0) return FORMAT_FIELDS;
    for (let at: usize = OFFSET_END; at < LABEL_BYTES; at += 8) if (load<u64>(label + at) != 0) return FORMAT_FIELDS;
  }

  const volume: u32 = load<u16>(label + OFFSET_VOLUME);
  const member: u32 = load<u8>(label + OFFSET_MEMBER);
  const members: u32 = load<u8>(label + OFFSET_MEMBERS);
  const level: u32 = load<u8>(label + OFFSET_LEVEL);
  const side: u32 = load<u8>(label + OFFSET_SIDE);
  const strip = load<u32>(label + OFFSET_STRIP);
  const segmentBlocks = load<u32>(label + OFFSET_SEGMENT_BLOCKS);
  const segmentCount = load<u32>(label + OFFSET_SEGMENT_COUNT);
  const slot = load<u32>(label + OFFSET_SLOT);
  const size = load<u64>(label + OFFSET_SIZE);
  const generation = load<u64>(label + OFFSET_GENERATION);
  if (volume > VOLUME_MAX) return FORMAT_FIELDS;
  if (!RAID && level > 1) return FORMAT_FEATURES;
  if (member >= members || (RAID ? !geometryFits(level - 1, members, strip) : level == 0 || members != 1 || strip > 1)) return FORMAT_FIELDS;
  if (side != 1 && side != 2) return FORMAT_FIELDS;
  const wide = RAID ? columnsOf(level - 1, members) : 1;
  const most = RAID ? max<u32>(SEGMENT_BLOCKS_MAX, min<u32>(SEGMENT_STRIPES_MIN * wide * strip, SEGMENT_SLOTS_MAX)) : SEGMENT_BLOCKS_MAX;
  if (segmentBlocks < SEGMENT_BLOCKS_MIN || segmentBlocks > most || segmentCount == 0) return FORMAT_FIELDS;
  if (RAID && level > 1 && segmentBlocks % (wide * strip) != 0) return FORMAT_FIELDS;
  if (slot < SLOT_BYTES_MIN || slot > SLOT_BYTES_MAX || slot % 4096 != 0) return FORMAT_FIELDS;
  if (size > EXACT_MAX || size % BLOCK_BYTES != 0 || generation > EXACT_MAX) return FORMAT_FIELDS;
  const blocks = <u64>segmentBlocks * segmentCount;
  if (blocks > 0xffffffff) return FORMAT_FIELDS;

  const root = BLOCK_BYTES + 2 * <u64>slot;
  const data = root + 2 * BLOCK_BYTES;
  if (size < 2 * data) return FORMAT_FIELDS;
  const back = size - data;
  if (load<u64>(label + OFFSET_FRONT_CATALOGUE) != BLOCK_BYTES) return FORMAT_FIELDS;
  if (load<u64>(label + OFFSET_FRONT_ROOT) != root) return FORMAT_FIELDS;
  if (load<u64>(label + OFFSET_DATA) != data) return FORMAT_FIELDS;
  if (load<u64>(label + OFFSET_BACK_LABEL) != back) return FORMAT_FIELDS;
  if (load<u64>(label + OFFSET_BACK_CATALOGUE) != back + BLOCK_BYTES) return FORMAT_FIELDS;
  if (load<u64>(label + OFFSET_BACK_ROOT) != back + root) return FORMAT_FIELDS;
  if (data + (blocks / wide) * BLOCK_BYTES > back) return FORMAT_FIELDS;

  memory.copy(f + FIELD_POOL, label + OFFSET_POOL, 32); // and the device's
  for (let number: u32 = 0; number < NUMBERS; number++) {
    store<f64>(f + FIELD_VOLUME + number * 8, <f64>(load<u64>(label + numberOffset(number)) & numberMask(number)));
  }
  return FORMAT_OK;
}
