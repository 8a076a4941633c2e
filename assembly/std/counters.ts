// How often each rare path was taken: tests assert that a random history reached it. Test builds count, the published one does not. Ids are given out
// in ranges: 0…31 the lookup table (below), 32…95 log and volume (log/counting.ts).
const COUNTERS: u32 = 96;
const cells: usize = memory.data(PLANTS ? 768 : 8, 8); // 96 × u64

export const COUNT_ENTER_EXTENTS: u32 = 0; // a leaf changed its shape to this one
export const COUNT_ENTER_PACKED: u32 = 1;
export const COUNT_ENTER_DENSE: u32 = 2;
export const COUNT_EXTENTS_TO_PACKED: u32 = 3;
export const COUNT_EXTENTS_TO_DENSE: u32 = 4;
export const COUNT_PACKED_TO_EXTENTS: u32 = 5;
export const COUNT_PACKED_TO_DENSE: u32 = 6;
export const COUNT_DENSE_TO_EXTENTS: u32 = 7;
export const COUNT_DENSE_TO_PACKED: u32 = 8;
export const COUNT_HISTORY_INSERT: u32 = 9;
export const COUNT_HOLE_MADE: u32 = 10;
export const COUNT_HOLE_TO_HISTORY: u32 = 11;
export const COUNT_MERGE_STEAL: u32 = 12; // a leaf went to the child by pointer, as it was
export const COUNT_MERGE_FILTERED: u32 = 13; // … after what the child cannot see was taken out
export const COUNT_MERGE_CURRENT: u32 = 14; // an entry of the parent became current in a leaf of the child
export const COUNT_MERGE_HISTORY: u32 = 15; // … went to the child's history
export const COUNT_MERGE_DEAD: u32 = 16; // … died
export const COUNT_SWEEP_HISTORY: u32 = 17; // a history entry that no pin sees was freed
export const COUNT_SWEEP_CURRENT: u32 = 18; // a current entry of a space without a name was freed
export const COUNT_MOVE_CURRENT: u32 = 19;
export const COUNT_MOVE_HISTORY: u32 = 20;
export const COUNT_MOVE_REFUSED: u32 = 21; // the mapping no longer pointed at the old address
export const COUNT_GATE_SKIP: u32 = 22; // replay passed over a leaf whose image has the change already
export const COUNT_IMAGE_RELEASED: u32 = 23;
export const COUNT_IMAGE_REFUSED: u32 = 24; // a malformed leaf image
export const COUNT_CHUNK_FREED: u32 = 25; // a part of the directory emptied and went
export const COUNT_DIFF_SKIP: u32 = 26; // a diff passed over a leaf without reading it
export const COUNT_TRIM_LEAF: u32 = 27; // a trim found a leaf to work on
export const COUNT_IMAGE_DIRECT: u32 = 28; // a leaf was made from its image in place
export const COUNT_PUT_RECOVERED: u32 = 29; // replay put a block into a leaf that kept its form and its history

export function count(id: u32): void {
  if (!PLANTS) return; // the published core is smaller and faster without
  const cell = cells + id * 8;
  store<u64>(cell, load<u64>(cell) + 1);
}

export function counterGet(id: u32): f64 {
  return PLANTS && id < COUNTERS ? <f64>load<u64>(cells + id * 8) : 0;
}
