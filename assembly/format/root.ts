// The root of a log: one block. Two slots, A and B, each with a front and a back copy on every member of the log's first
// two storage volumes. The newest valid one counts.
//
//     0 u32 magic "VVL1"   4 u16 major   6 u16 minor
//     8 u64 checksum       of the 4096 bytes with this field zero, seed 0x56415256
//    16 u32 incompatible  20 u32 read-only-compatible  24 u32 compatible features   28 u32 flags (1: closed cleanly)
//    32 16 bytes log uuid  48 16 bytes log key
//    64 u64 generation    72 u64 incarnation    80 u64 incarnationStart (last sequence before this incarnation)
//    88 u64 replaySequence (what is in the images at least; replay starts after it)
//    96 u64 endSequence (the last sequence when closed cleanly)   104 u64 durableSequence
//   112 u64 nextFill (never used yet)   120 u64 checkpoint (number of the newest)
//   128 u32 leafBlocks    132 u16 height    134 u16 topCount    136 u32 nodeCount (page slots)   140 u16 cutCount   142 u16 0
//   144 two streams (users' writes, survivors of compaction), 64 bytes each:
//         0 u16 startVolume (0xFFFF: at the first segment of the list)   2 u16 startSlot   4 u32 startSegment   8 u64 startFill   16 u64 startChain
//        24 u16 openVolume (0xFFFF: none)   26 u16 openSlot   28 u32 openSegment   32 u64 openFill   40 u64 openChain   48 u16 listCount   50 zeros
//   272 two metadata streams, 16 bytes each: u16 volume (0xFFFF: none), u16 slot, u32 segment, u64 0
//   304 zeros
//   512 two lists of next segments, 64 × 16 bytes each: u16 volume, u16 0, u32 segment, u64 fillSequence
//  2560 cuts, 16 × 40 bytes: u16 volume, u16 cutSlot, u32 segment, u64 fill, u16 nextVolume, u16 stream, u32 nextSegment, u64 nextFill, u64 0
//  3200 top nodes of the page tree, 24 × 32 bytes (see page.ts)
//  3968 zeros
//
// The reader takes nothing from a root before magic, bounds, checksum and version held.

import { BLOCK_BYTES, FORMAT_MAJOR, FORMAT_MINOR } from './constants';
import { sealedChecksum } from './key';
import { NODE_BYTES, nodePlausible } from './page';

export const ROOT_MAGIC: u32 = 0x314c5656;
export const ROOT_SEED: u64 = 0x56415256;
export const LIST_MAX: u32 = 64;
export const CUT_MAX: u32 = 16;
export const TOP_MAX: u32 = 24;
export const HEIGHT_MAX: u32 = 4;

export const O_FLAGS: usize = 28;
export const O_UUID: usize = 32;
export const O_KEY: usize = 48;
export const O_GENERATION: usize = 64;
export const O_INCARNATION: usize = 72;
export const O_INCARNATION_START: usize = 80;
export const O_REPLAY: usize = 88;
export const O_END: usize = 96;
export const O_DURABLE: usize = 104;
export const O_NEXT_FILL: usize = 112;
export const O_CHECKPOINT: usize = 120;
export const O_LEAF_BLOCKS: usize = 128;
export const O_HEIGHT: usize = 132;
export const O_TOP_COUNT: usize = 134;
export const O_NODE_COUNT: usize = 136;
export const O_CUT_COUNT: usize = 140;
export const O_STREAMS: usize = 144;
export const O_META: usize = 272;
export const O_LISTS: usize = 512;
export const O_CUTS: usize = 2560;
export const O_TOP: usize = 3200;

export const STREAM_BYTES: u32 = 64;
export const S_START_VOLUME: usize = 0;
export const S_START_SLOT: usize = 2;
export const S_START_SEGMENT: usize = 4;
export const S_START_FILL: usize = 8;
export const S_START_CHAIN: usize = 16;
export const S_OPEN_VOLUME: usize = 24;
export const S_OPEN_SLOT: usize = 26;
export const S_OPEN_SEGMENT: usize = 28;
export const S_OPEN_FILL: usize = 32;
export const S_OPEN_CHAIN: usize = 40;
export const S_LIST_COUNT: usize = 48;

export const LIST_BYTES: u32 = 16;
export const LIST_STRIDE: u32 = 1024;
export const CUT_BYTES: u32 = 40;

export const ROOT_BLANK: u32 = 0;
export const ROOT_BAD: u32 = 1;
export const ROOT_VALID: u32 = 2;
export const ROOT_FOREIGN: u32 = 3; // a sound root of another log: what a volume held before it came to this one
export const ROOT_UNKNOWN: u32 = 4; // a sound root of a format that this build does not know

export function rootSeal(root: u32): void {
  store<u32>(root, ROOT_MAGIC);
  store<u16>(root, FORMAT_MAJOR, 4);
  store<u16>(root, FORMAT_MINOR, 6);
  store<u64>(root, sealedChecksum(root, BLOCK_BYTES, 8, ROOT_SEED), 8);
}

/** What a root slot holds; `uuid` points to the 16 bytes of the log that is looked for. */
export function rootVerify(root: u32, uuid: usize): u32 {
  if (load<u32>(root) != ROOT_MAGIC) {
    for (let at: u32 = 0; at < BLOCK_BYTES; at += 8) if (load<u64>(root + at)) return ROOT_BAD;
    return ROOT_BLANK;
  }
  if (sealedChecksum(root, BLOCK_BYTES, 8, ROOT_SEED) != load<u64>(root, 8)) return ROOT_BAD;
  if (load<u16>(root, 4) != FORMAT_MAJOR || load<u32>(root, 16) != 0) return ROOT_UNKNOWN;
  if (load<u64>(root, O_UUID) != load<u64>(uuid) || load<u64>(root, O_UUID + 8) != load<u64>(uuid, 8)) return ROOT_FOREIGN;
  let height = <u32>load<u16>(root, O_HEIGHT);
  let top = <u32>load<u16>(root, O_TOP_COUNT);
  let leafBlocks = load<u32>(root, O_LEAF_BLOCKS);
  if (height > HEIGHT_MAX || top > TOP_MAX || load<u16>(root, O_CUT_COUNT) > <u16>CUT_MAX) return ROOT_BAD;
  if (leafBlocks < 16 || leafBlocks > 1024 || (leafBlocks & (leafBlocks - 1)) != 0) return ROOT_BAD;
  if (load<u64>(root, O_REPLAY) > load<u64>(root, O_DURABLE) || load<u64>(root, O_GENERATION) == 0) return ROOT_BAD;
  for (let stream: u32 = 0; stream < 2; stream++) {
    if (load<u16>(root + <u32>O_STREAMS + stream * STREAM_BYTES, S_LIST_COUNT) > <u16>LIST_MAX) return ROOT_BAD;
  }
  for (let i: u32 = 0; i < top; i++) if (!nodePlausible(root + <u32>O_TOP + i * NODE_BYTES)) return ROOT_BAD;
  return ROOT_VALID;
}
