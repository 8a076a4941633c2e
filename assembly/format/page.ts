// Metadata pages: one block each, named by a node that holds the page's checksum, so that the tree below a root is
// self-verifying. A page has two copies in different segments (the same block twice where there is only one copy).
//
//   0 u32 magic "VVP1"   4 u16 major   6 u8 kind   7 u8 level (index: 1…)   8 u64 checkpoint
//  16 u16 count          18 u16 usedBytes (of fragments)                    20 zeros up to 32
//  32 kind index: `count` nodes; others: `count` fragments, packed
//
// Node, 32 bytes:  0 u16 volumeA  2 u16 volumeB  4 u32 blockA  8 u32 blockB  12 u8 kind (0: a free page slot)  13 u8 0  14 u16 0  16 u64 checksum
//   24 u64 checkpoint that wrote it
//   checksum = XXH64 of the 4096 bytes, seeded with pageSeed
//
// Fragment, 40 bytes and its payload, padded to 8:
//   0 u8 kind   1 u8 0   2 u16 payloadBytes   4 u16 index   6 u16 count   8 u16 space   10 u16 0   12 u32 key
//  16 u64 uid (of the space: the sequence that made it; else 0)   24 u64 checkpoint   32 u64 appliedSequence
// An object whose image is larger than a page's payload spans `count` fragments. Of several images of one object that
// live pages hold, the one with the highest checkpoint counts.

import { FORMAT_MAJOR, VOLUME_NONE } from './constants';

export const PAGE_MAGIC: u32 = 0x31505656;
export const PAGE_STATE: u32 = 1;
export const PAGE_SEGMENTS: u32 = 2;
export const PAGE_LEAVES: u32 = 3;
export const PAGE_INDEX: u32 = 4;

export const PAGE_FIXED_BYTES: u32 = 32;
export const FRAGMENT_BYTES: u32 = 40;
export const FRAGMENT_PAYLOAD_MAX: u32 = 4024; // 4096 - 32 - 40

export const P_KIND: usize = 6;
export const P_LEVEL: usize = 7;
export const P_CHECKPOINT: usize = 8;
export const P_COUNT: usize = 16;
export const P_USED: usize = 18;

export const NODE_BYTES: u32 = 32;
export const INDEX_NODES: u32 = 127; // (4096 - 32) / 32
export const N_VOLUME_A: usize = 0;
export const N_VOLUME_B: usize = 2;
export const N_BLOCK_A: usize = 4;
export const N_BLOCK_B: usize = 8;
export const N_KIND: usize = 12;
export const N_CHECKSUM: usize = 16;
export const N_CHECKPOINT: usize = 24;

export const G_KIND: usize = 0;
export const G_BYTES: usize = 2;
export const G_INDEX: usize = 4;
export const G_COUNT: usize = 6;
export const G_SPACE: usize = 8;
export const G_KEY: usize = 12;
export const G_UID: usize = 16;
export const G_CHECKPOINT: usize = 24;
export const G_APPLIED: usize = 32;

export function nodePlausible(node: u32): bool {
  let kind = <u32>load<u8>(node, N_KIND);
  if (kind > PAGE_INDEX || load<u8>(node, 13) != 0 || load<u16>(node, 14) != 0) return false;
  return kind == 0 || (load<u16>(node, N_VOLUME_A) != <u16>VOLUME_NONE && load<u16>(node, N_VOLUME_B) != <u16>VOLUME_NONE);
}

/** Structure of a page whose checksum already held: kind, counts and the bounds of every fragment. */
export function pagePlausible(page: u32, kind: u32, level: u32): bool {
  if (load<u32>(page) != PAGE_MAGIC || load<u16>(page, 4) != FORMAT_MAJOR) return false;
  if (load<u8>(page, P_KIND) != <u8>kind || load<u8>(page, P_LEVEL) != <u8>level) return false;
  let count = <u32>load<u16>(page, P_COUNT);
  if (kind == PAGE_INDEX) {
    if (count > INDEX_NODES) return false;
    for (let i: u32 = 0; i < count; i++) if (!nodePlausible(page + PAGE_FIXED_BYTES + i * NODE_BYTES)) return false;
    return true;
  }
  let at = PAGE_FIXED_BYTES;
  for (let i: u32 = 0; i < count; i++) {
    if (at + FRAGMENT_BYTES > 4096) return false;
    let fragment = page + at;
    let bytes = <u32>load<u16>(fragment, G_BYTES);
    if (<u32>load<u8>(fragment) != kind || bytes > 4096 - at - FRAGMENT_BYTES) return false;
    if (load<u16>(fragment, G_COUNT) == 0 || load<u16>(fragment, G_INDEX) >= load<u16>(fragment, G_COUNT)) return false;
    at += FRAGMENT_BYTES + ((bytes + 7) & ~7);
  }
  return at <= 4096 && at - PAGE_FIXED_BYTES == <u32>load<u16>(page, P_USED);
}
