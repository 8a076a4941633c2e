// The footer of a sealed segment: the last blocks of the segment, one checksum over all of them.
//
//     0 u32 magic "VVF1"        4 u16 major   6 u8 stream   7 u8 0
//     8 u64 checksum            of all footer blocks with this field zero, seeded by headerSeed (of its first block)
//    16 u64 fillSequence       24 u64 incarnation (of the life that sealed it)
//    32 u64 durableSequence    40 u16 usedSlots   42 u16 0   44 u16 nextVolume   46 u16 0
//    48 u32 nextSegment        52 u32 0           56 u64 nextFillSequence      (nextVolume 0xFFFF: none)
//    64 u64 lastHeaderChecksum (of the stream, at the end of this segment)
//    72 u64 firstSequence      80 u64 lastSequence    88 u64 0
//    96 one entry of 24 bytes for each slot 0 … usedSlots-1, zeros after them
//
// Slot entry: data and moved blocks as in the record (kind 1, 3); a header is kind 8:
//     0 u8 8   1 u8 flags (1: has other operations than data, read the header; 2: move; 4: padding)   2 u16 dataCount
//     The slots that padding fills have entries of zeros.
//     4 u32 incarnation (its low half)  8 u16 sourceVolume  10 u32 sourceSegment  14 u16 0  16 u64 firstSequence

import { BLOCK_BYTES, FORMAT_MAJOR, VIRTUAL_BLOCK_MAX } from './constants';
import { PLANT_SKIP_FILL_CHECK, planted } from '../std/plant';
import { headerSeed, sealedChecksum } from './key';
import { ENTRY_BYTES, ENTRY_DATA, ENTRY_MOVED, RECORD_DATA_MAX, entryBirth, entryBlock, entryKind } from './record';

export const FOOTER_MAGIC: u32 = 0x31465656;
export const FOOTER_FIXED_BYTES: u32 = 96;
export const SLOT_HEADER: u32 = 8;
export const SLOT_FLAG_OPERATIONS: u32 = 1;
export const SLOT_FLAG_MOVE: u32 = 2;
export const SLOT_FLAG_PADDING: u32 = 4;

export const F_STREAM: usize = 6;
export const F_CHECKSUM: usize = 8;
export const F_FILL: usize = 16;
export const F_INCARNATION: usize = 24;
export const F_DURABLE: usize = 32;
export const F_USED: usize = 40;
export const F_NEXT_VOLUME: usize = 44;
export const F_NEXT_SEGMENT: usize = 48;
export const F_NEXT_FILL: usize = 56;
export const F_LAST_HEADER: usize = 64;
export const F_FIRST: usize = 72;
export const F_LAST: usize = 80;

/**
 * Footer blocks of a segment: the least F with 96 + 24 × (segmentBlocks − F) ≤ 4096 × F that is a multiple of `unit`, the blocks
 * that can only be written together. 1024 → 6 (24,528 of 24,576 bytes), 8 → 1.
 */
export function footerBlocksOf(segmentBlocks: u32, unit: u32): u32 {
  let blocks = unit;
  while (FOOTER_FIXED_BYTES + ENTRY_BYTES * (segmentBlocks - blocks) > BLOCK_BYTES * blocks) blocks += unit;
  return blocks;
}

export function footerSeal(footer: u32, blocks: u32, volume: u32, block: u32): void {
  let seed = headerSeed(load<u64>(footer, F_FILL), load<u64>(footer, F_INCARNATION), volume, block);
  store<u64>(footer, sealedChecksum(footer, blocks * BLOCK_BYTES, <u32>F_CHECKSUM, seed), F_CHECKSUM);
}

export function footerVerify(footer: u32, blocks: u32, volume: u32, block: u32, dataSlots: u32, fillSequence: u64): bool {
  if (load<u32>(footer) != FOOTER_MAGIC) return false;
  let used = <u32>load<u16>(footer, F_USED);
  if (used > dataSlots || load<u8>(footer, F_STREAM) > 1) return false;
  if (load<u64>(footer, F_FILL) != fillSequence && !(PLANTS && planted == PLANT_SKIP_FILL_CHECK)) return false;
  let seed = headerSeed(fillSequence, load<u64>(footer, F_INCARNATION), volume, block);
  if (sealedChecksum(footer, blocks * BLOCK_BYTES, <u32>F_CHECKSUM, seed) != load<u64>(footer, F_CHECKSUM)) return false;
  if (load<u16>(footer, 4) != FORMAT_MAJOR) return false;
  // Records must tile the slots: a header, then as many data slots as follow up to the next header.
  let entry = footer + FOOTER_FIXED_BYTES;
  let left: u32 = 0; // entries that the last header still has
  let padding = false; // they are of zeros
  for (let slot: u32 = 0; slot < used; slot++, entry += ENTRY_BYTES) {
    let kind = entryKind(entry);
    if (kind == SLOT_HEADER) {
      if (left) return false;
      left = load<u16>(entry, 2);
      if (RAID) padding = (load<u8>(entry, 1) & <u8>SLOT_FLAG_PADDING) != 0;
      if (left > RECORD_DATA_MAX && (!RAID || !padding)) return false;
    } else if (RAID && padding) {
      if (kind != 0 || left == 0) return false;
      left--;
    } else {
      if ((kind != ENTRY_DATA && kind != ENTRY_MOVED) || left == 0) return false;
      if (entryBlock(entry) >= VIRTUAL_BLOCK_MAX || entryBirth(entry) == 0) return false;
      left--;
    }
  }
  return left == 0 && (used == 0 || entryKind(footer + FOOTER_FIXED_BYTES) == SLOT_HEADER);
}
