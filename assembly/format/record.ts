// A record of the log: one header block, then its data blocks in the following slots of the same segment.
//
//     0 u32 magic "VVR1"        4 u16 major   6 u8 kind   7 u8 stream
//     8 u64 checksum            of the 4096 bytes with this field zero, seeded by headerSeed
//    16 u64 firstSequence       of its first entry; entries count on from it
//    24 u64 durableSequence     the last entry known durable when the header was made
//    32 u64 fillSequence       40 u64 incarnation
//    48 u64 previousChecksum    of the header before in this stream
//    56 u32 slot               60 u16 entryCount   62 u16 dataCount
//    64 u16 sourceVolume       66 u16 0            68 u32 sourceSegment   (kind move: where the blocks came from)
//    72 u64 sourceFillSequence
//    80 u32 epoch              84 u32 payloadBytes (kind operation)
//    A record of kind padding has no entries and no sequences of its own: firstSequence is the last one before it, dataCount
//    the slots behind its header that hold nothing. It fills a stripe up, on levels with parity.
//    88 16 bytes log uuid      104 zeros up to 256
//   256 entries of 24 bytes (kind data and move), or the payload of an operation
//
// Entry:  0 u8 kind (1 data, 2 trim, 3 moved)  1 u8 0  2 u16 space  4 u32 birth  8 u48 virtual block
//        14 u16 source slot (moved)           16 u64 checksum of the block (data, moved), or block count (trim)

import { BLOCK_BYTES, FORMAT_MAJOR, VIRTUAL_BLOCK_MAX } from './constants';
import { PLANT_SKIP_FILL_CHECK, planted } from '../std/plant';
import { headerSeed, logIdentity, sealedChecksum } from './key';

export const RECORD_MAGIC: u32 = 0x31525656;
export const RECORD_DATA: u32 = 1;
export const RECORD_MOVE: u32 = 2;
export const RECORD_OPERATION: u32 = 3;
export const RECORD_PADDING: u32 = 4;

export const ENTRY_DATA: u32 = 1;
export const ENTRY_TRIM: u32 = 2;
export const ENTRY_MOVED: u32 = 3;

export const ENTRY_BYTES: u32 = 24;
export const RECORD_FIXED_BYTES: u32 = 256;
export const RECORD_ENTRIES_MAX: u32 = 160;
export const RECORD_DATA_MAX: u32 = 127;
export const RECORD_PAYLOAD_MAX: u32 = 3840; // 4096 - 256

export const R_KIND: usize = 6;
export const R_STREAM: usize = 7;
export const R_CHECKSUM: usize = 8;
export const R_FIRST: usize = 16;
export const R_DURABLE: usize = 24;
export const R_FILL: usize = 32;
export const R_INCARNATION: usize = 40;
export const R_PREVIOUS: usize = 48;
export const R_SLOT: usize = 56;
export const R_ENTRIES: usize = 60;
export const R_DATA: usize = 62;
export const R_SOURCE_VOLUME: usize = 64;
export const R_SOURCE_SEGMENT: usize = 68;
export const R_SOURCE_FILL: usize = 72;
export const R_EPOCH: usize = 80;
export const R_PAYLOAD: usize = 84;
export const R_UUID: usize = 88;

export function entryKind(entry: u32): u32 { return load<u8>(entry); }
export function entrySpace(entry: u32): u32 { return load<u16>(entry, 2); }
export function entryBirth(entry: u32): u32 { return load<u32>(entry, 4); }
export function entryBlock(entry: u32): u64 { return load<u64>(entry, 8) & 0xffffffffffff; }
export function entrySourceSlot(entry: u32): u32 { return load<u16>(entry, 14); }
export function entrySum(entry: u32): u64 { return load<u64>(entry, 16); }

export function entryWrite(entry: u32, kind: u32, space: u32, birth: u32, virtualBlock: u64, sourceSlot: u32, sum: u64): void {
  store<u16>(entry, <u16>kind);
  store<u16>(entry, <u16>space, 2);
  store<u32>(entry, birth, 4);
  store<u64>(entry, virtualBlock | ((<u64>sourceSlot) << 48), 8);
  store<u64>(entry, sum, 16);
}

/** Slots that a record takes. */
export function recordSlots(header: u32): u32 { return 1 + <u32>load<u16>(header, R_DATA); }

/** Sequences that a record takes: an operation counts as one entry, padding takes none. */
export function recordSequences(header: u32): u32 {
  return load<u8>(header, R_KIND) == RECORD_OPERATION ? 1 : <u32>load<u16>(header, R_ENTRIES);
}

export function recordSeal(header: u32, volume: u32, block: u32): u64 {
  let sum = sealedChecksum(header, BLOCK_BYTES, <u32>R_CHECKSUM, headerSeed(load<u64>(header, R_FILL), load<u64>(header, R_INCARNATION), volume, block));
  store<u64>(header, sum, R_CHECKSUM);
  return sum;
}

/**
 * Whether the block is a sound header that belongs at this place. `slotsLeft` counts the slots from the header's own to
 * the end of the segment's data slots. Magic, then bounds, then checksum, then version.
 */
export function recordVerify(header: u32, volume: u32, block: u32, slot: u32, slotsLeft: u32, fillSequence: u64): bool {
  if (load<u32>(header) != RECORD_MAGIC) return false;
  let kind = <u32>load<u8>(header, R_KIND);
  let entries = <u32>load<u16>(header, R_ENTRIES);
  let data = <u32>load<u16>(header, R_DATA);
  if (kind < RECORD_DATA || kind > (RAID ? RECORD_PADDING : RECORD_OPERATION) || 1 + data > slotsLeft) return false;
  if (entries > RECORD_ENTRIES_MAX || ((!RAID || kind != RECORD_PADDING) && (data > entries || data > RECORD_DATA_MAX))) return false;
  if (load<u32>(header, R_SLOT) != slot) return false;
  if (load<u64>(header, R_FILL) != fillSequence && !(PLANTS && planted == PLANT_SKIP_FILL_CHECK)) return false;
  if (load<u32>(header, R_PAYLOAD) > RECORD_PAYLOAD_MAX) return false;
  if (load<u64>(header, R_UUID) != load<u64>(logIdentity) || load<u64>(header, R_UUID + 8) != load<u64>(logIdentity, 8)) return false;
  let seed = headerSeed(fillSequence, load<u64>(header, R_INCARNATION), volume, block);
  if (sealedChecksum(header, BLOCK_BYTES, <u32>R_CHECKSUM, seed) != load<u64>(header, R_CHECKSUM)) return false;
  if (load<u16>(header, 4) != FORMAT_MAJOR) return false;
  // Sealed by us, and still checked: a header with our key may come from a faulty writer or a fuzzer.
  if (kind == RECORD_OPERATION) return entries == 0 && data == 0;
  if (load<u32>(header, R_PAYLOAD) != 0) return false;
  if (RAID && kind == RECORD_PADDING) return entries == 0;
  let seen: u32 = 0;
  for (let i: u32 = 0; i < entries; i++) {
    let entry = header + RECORD_FIXED_BYTES + i * ENTRY_BYTES;
    let at = entryKind(entry);
    if (load<u8>(entry, 1) != 0 || entryBlock(entry) >= VIRTUAL_BLOCK_MAX || entryBirth(entry) == 0) return false;
    if (at == ENTRY_TRIM) {
      if (kind != RECORD_DATA || entrySum(entry) > VIRTUAL_BLOCK_MAX - entryBlock(entry)) return false;
    } else if (at == ENTRY_DATA || at == ENTRY_MOVED) {
      if ((at == ENTRY_MOVED) != (kind == RECORD_MOVE)) return false;
      seen++;
    } else return false;
  }
  return seen == data;
}
