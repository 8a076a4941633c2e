// The words and bytes that the files of the table share.
//
// A block in one space at one moment is ABSENT (falls through to what the space stands on), a HOLE (reads zero, does not
// fall through) or MAPPED. In entries the volume word tells which: 0xFFFE absent, 0xFFFF hole, else a storage volume.
// Holes have births like mappings; an absent entry is all zero but for its volume.
//
//   leaf    history u32 │ count u16 │ capacity u16 │ newestChange u32 │ image u32 │ flags u32 │ applied u32 │ body …
//   shapes  1 extents  runs of 12 bytes: start u16 │ volume u16 │ block u32 │ birth u32; a run ends where the next begins,
//                      before the first run everything is absent, a mapped run's blocks are consecutive. count = runs
//           2 packed   groups, one for each 64 blocks: bitmap of the blocks present (holes are) u64 │ blocks present before
//                      this group u16; then one entry for each bit, in order. count = entries. The ranks cost 1/8 byte a
//                      block at a quarter full and save a lookup 8 ns of counting bits; beside their bits they share a
//                      cache line with them (16,000,000 mappings, 2026-11)
//           3 dense    an entry for each block of the leaf. count = entries that are not absent
//   entry   block u32 │ birth u32 │ volume u16: 10 bytes, unaligned. Three parallel arrays take the same room but three
//           cache misses where this takes 1.14; a random put or lookup is made of little else.
export const KIND_ABSENT: u32 = 0;
export const KIND_HOLE: u32 = 1;
export const KIND_MAPPED: u32 = 2;

export const VOLUME_ABSENT: u32 = 0xfffe;
export const VOLUME_HOLE: u32 = 0xffff;
export const EPOCH_NOW: u32 = 0xffffffff;
export const SPACE_NONE: u32 = 0xffff;
export const DEPTH_MAX: u32 = 32;

export const SHAPE_EXTENTS: u32 = 1;
export const SHAPE_PACKED: u32 = 2;
export const SHAPE_DENSE: u32 = 3;
export const SHAPE_MASK: u32 = 7;

export const LEAF_HISTORY: usize = 0;
export const LEAF_COUNT: usize = 4;
export const LEAF_CAPACITY: usize = 6;
export const LEAF_NEWEST_CHANGE: usize = 8;
export const LEAF_IMAGE: usize = 12;
export const LEAF_FLAGS: usize = 16;
export const LEAF_APPLIED: usize = 20;
export const LEAF_HEADER: u32 = 24;
export const LEAF_DIRTY: u32 = 1;
export const LEAF_TOUCHED: u32 = 2;

export const RUN_BYTES: u32 = 12;
export const RUN_VOLUME: usize = 2;
export const RUN_BLOCK: usize = 4;
export const RUN_BIRTH: usize = 8;

export const GROUP_BYTES: u32 = 10;
export const GROUP_RANK: usize = 8;

export const ENTRY_BYTES: u32 = 10;
export const ENTRY_BIRTH: usize = 4;
export const ENTRY_VOLUME: usize = 8;

// Geometry, fixed for the life of the instance by tableInitialize().
export let leafBlocks: u32 = 512;
export let leafShift: u32 = 9;
export let leafMask: u32 = 511;
export let packedEntries: u32 = 104; // where a packed leaf's entries begin
export let packedOverhead: u32 = 80; // its groups

export function geometrySet(blocks: u32): void {
  assert(popcnt(blocks) == 1 && blocks >= 16 && blocks <= 1024);
  leafBlocks = blocks;
  leafShift = ctz(blocks);
  leafMask = blocks - 1;
  packedOverhead = ((blocks + 63) >> 6) * GROUP_BYTES;
  packedEntries = LEAF_HEADER + packedOverhead;
}
