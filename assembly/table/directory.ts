// The directory of a space: leaf index → leaf word (pointer | shape), a sparse radix tree of three levels.
//
//   leaf index  │ 12 bits root │ 10 bits middle │ 10 bits chunk │
//   root     a plain array that grows by doubling, so a small space pays for few words
//   middle   used u32 │ 0 u32     │ 1024 × pointer to chunk
//   chunk    used u32 │ dirty u32 │ 1024 × leaf word │ (core with RAID) a mark for each, 1024 bits: of the replay, see update.ts
//
// - A chunk or middle exists only while something is in it; skipping what does not exist is one step whatever its width.
// - A chunk's dirty word is set when a leaf in it becomes DIRTY, so that a checkpoint passes over clean chunks. It may be
//   set without reason (leaves were cleaned since), never clear with reason.
// - slotChunk names the chunk of the slot that was found last.
import { allocateZeroed, free, resize } from '../std/allocator';
import { COUNT_CHUNK_FREED, count } from '../std/counters';
import { SPACE_LEAVES, SPACE_ROOT, SPACE_ROOT_CAPACITY } from './space';
import { bump, clear } from '../std/bytes';

const FAN_BITS: u32 = 10;
const FAN: u32 = 1 << FAN_BITS;
const NODE_HEADER: u32 = 8;
const NODE_BYTES: u32 = NODE_HEADER + FAN * 4;
const CHUNK_BYTES: u32 = NODE_BYTES + (RAID ? FAN / 8 : 0);
export const CHUNK_DIRTY: usize = 4;

/** No such leaf; so leaf indices stay below it. */
export const LEAF_NONE: u32 = 0xffffffff;

/** Bytes that one new slot may need: root, middle, chunk. */
export const SLOT_ROOM: u32 = 4096 * 4 + NODE_BYTES + CHUNK_BYTES + 64;

export let slotChunk: u32 = 0;

/** Address of the leaf word, 0 when there is no chunk for it. `space` is a pointer. */
export function slotFind(space: u32, leafIndex: u32): u32 {
  const top = leafIndex >> (2 * FAN_BITS);
  if (top >= load<u32>(space, SPACE_ROOT_CAPACITY)) return 0;
  const middle = load<u32>(load<u32>(space, SPACE_ROOT) + top * 4);
  if (!middle) return 0;
  const chunk = load<u32>(middle + NODE_HEADER + ((leafIndex >> FAN_BITS) & (FAN - 1)) * 4);
  if (!chunk) return 0;
  slotChunk = chunk;
  return chunk + NODE_HEADER + (leafIndex & (FAN - 1)) * 4;
}

function nodeMake(cell: u32, bytes: u32): u32 {
  const node = allocateZeroed(bytes);
  store<u32>(cell, node);
  return node;
}

/** The slot, with all that leads to it. An empty slot is counted by slotFill(). */
export function slotMake(space: u32, leafIndex: u32): u32 {
  const slot = slotFind(space, leafIndex);
  if (slot) return slot;
  assert(leafIndex != LEAF_NONE);
  const top = leafIndex >> (2 * FAN_BITS);
  let root = load<u32>(space, SPACE_ROOT);
  const before = load<u32>(space, SPACE_ROOT_CAPACITY);
  if (top >= before) {
    let capacity: u32 = before ? before : 2;
    while (capacity <= top) capacity <<= 1;
    root = resize(root, capacity * 4);
    clear(root + before * 4, (capacity - before) * 4);
    store<u32>(space, root, SPACE_ROOT);
    store<u32>(space, capacity, SPACE_ROOT_CAPACITY);
  }
  let middle = load<u32>(root + top * 4);
  if (!middle) middle = nodeMake(root + top * 4, NODE_BYTES);
  const cell = middle + NODE_HEADER + ((leafIndex >> FAN_BITS) & (FAN - 1)) * 4;
  let chunk = load<u32>(cell);
  if (!chunk) {
    chunk = nodeMake(cell, CHUNK_BYTES);
    store<u32>(middle, load<u32>(middle) + 1);
  }
  slotChunk = chunk;
  return chunk + NODE_HEADER + (leafIndex & (FAN - 1)) * 4;
}

function markCell(slot: u32): u32 {
  return slotChunk + NODE_BYTES + ((slot - slotChunk - NODE_HEADER) >> 5);
}

function markBit(slot: u32): u32 {
  return 1 << (((slot - slotChunk - NODE_HEADER) >> 2) & 7);
}

/** Whether the leaf in the slot that was found last is marked. */
export function slotMarked(slot: u32): bool {
  return (<u32>load<u8>(markCell(slot)) & markBit(slot)) != 0;
}

/** Marks it, or takes the mark away: a leaf that comes into a slot has none. */
export function slotMark(slot: u32, on: bool): void {
  const cell = markCell(slot);
  const bits = <u32>load<u8>(cell);
  const bit = markBit(slot);
  store<u8>(cell, on ? bits | bit : bits & ~bit);
}

/** Leaves of all spaces. */
export let leavesTotal: u32 = 0;

/** Puts a leaf word into the empty slot that slotMake() gave last. */
export function slotFill(space: u32, slot: u32, word: u32): void {
  store<u32>(slot, word);
  if (RAID) slotMark(slot, false);
  store<u32>(slotChunk, load<u32>(slotChunk) + 1);
  bump(space, SPACE_LEAVES, 1);
  if (RAID) leavesTotal++;
}

/** Empties a slot that has a leaf; the leaf itself is the caller's. Chunks and middles that empty go. */
export function slotClear(space: u32, leafIndex: u32): void {
  store<u32>(slotFind(space, leafIndex), 0);
  bump(space, SPACE_LEAVES, -1);
  if (RAID) leavesTotal--;
  const chunk = slotChunk;
  const used = load<u32>(chunk) - 1;
  store<u32>(chunk, used);
  if (used) return;
  count(COUNT_CHUNK_FREED);
  free(chunk);
  const rootCell = load<u32>(space, SPACE_ROOT) + (leafIndex >> (2 * FAN_BITS)) * 4;
  const middle = load<u32>(rootCell);
  store<u32>(middle + NODE_HEADER + ((leafIndex >> FAN_BITS) & (FAN - 1)) * 4, 0);
  const chunks = load<u32>(middle) - 1;
  store<u32>(middle, chunks);
  if (chunks) return;
  free(middle);
  store<u32>(rootCell, 0);
}

/** Frees the root of a directory that has no leaf left. */
export function directoryFree(space: u32): void {
  assert(!load<u32>(space, SPACE_LEAVES));
  free(load<u32>(space, SPACE_ROOT));
}

/** The first leaf with an index >= `from` (its slot: slotFind), LEAF_NONE when there is none. `dirty`: only in chunks that are dirty. */
export function directoryNext(space: u32, from: u32, dirty: bool = false): u32 {
  const capacity = load<u32>(space, SPACE_ROOT_CAPACITY);
  const root = load<u32>(space, SPACE_ROOT);
  let index = from;
  let top = index >> (2 * FAN_BITS);
  while (top < capacity) {
    const middle = load<u32>(root + top * 4);
    if (middle) {
      let inMiddle = (index >> FAN_BITS) & (FAN - 1);
      while (inMiddle < FAN) {
        const chunk = load<u32>(middle + NODE_HEADER + inMiddle * 4);
        if (chunk && (!dirty || load<u32>(chunk, CHUNK_DIRTY))) {
          const words = chunk + NODE_HEADER;
          for (let i = index & (FAN - 1); i < FAN; i++) {
            if (load<u32>(words + i * 4)) return (top << (2 * FAN_BITS)) | (inMiddle << FAN_BITS) | i;
          }
        }
        inMiddle++;
        index = 0; // whatever comes next is looked at from its beginning
      }
    }
    index = 0;
    top++;
  }
  return LEAF_NONE;
}
