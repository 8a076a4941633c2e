// The history of a leaf: mappings and holes that are no longer current but that some pin still sees, each valid in
// [birth, death). One allocation for each leaf that has any:
//
//   count u32 │ capacity u32 │ entries of 16 bytes: blockInLeaf u16 │ volume u16 │ block u32 │ birth u32 │ death u32
//
// sorted by (blockInLeaf, birth); the intervals of one block never overlap and end at or before the birth of its current
// entry. It grows by an eighth: 16 bytes an entry become 18 at most, so the bar of 20 holds from 4 entries a leaf on.
// An insert moves what lies behind it; a history of 10,000 entries (512 blocks under 20 snapshots) costs 8 µs an insert at
// worst. That price was taken over a tree: most leaves have none or few.
import { allocate, free, resize, usableSize } from '../std/allocator';
import { LEAF_HISTORY } from './layout';
import { SPACE_HISTORY } from './space';

export const HISTORY_HEADER: u32 = 8;
export const HISTORY_CAPACITY: usize = 4;
export const HISTORY_BYTES: u32 = 16;
export const HISTORY_VOLUME: usize = 2;
export const HISTORY_BLOCK: usize = 4;
export const HISTORY_BIRTH: usize = 8;
export const HISTORY_DEATH: usize = 12;

let largest: u32 = 0;

/** The size of the largest history there ever was, in bytes. */
export function largestHistoryBytes(): u32 {
  return largest;
}

/** Bytes that adding `entries` to any one history may need. */
export function historyRoom(entries: u32): u32 {
  const bytes = largest + entries * HISTORY_BYTES;
  return bytes + (bytes >> 3) + 64;
}

export function historyStore(at: u32, i: u32, volume: u32, block: u32, birth: u32, death: u32): void {
  store<u16>(at, i);
  store<u16>(at, volume, HISTORY_VOLUME);
  store<u32>(at, block, HISTORY_BLOCK);
  store<u32>(at, birth, HISTORY_BIRTH);
  store<u32>(at, death, HISTORY_DEATH);
}

// Index of the first of the first `count` entries that lies at or behind (i, birth).
function search(history: u32, count: u32, i: u32, birth: u32): u32 {
  const key = (<u64>i << 32) | birth;
  let low: u32 = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >> 1;
    const at = history + HISTORY_HEADER + middle * HISTORY_BYTES;
    if (((<u64>load<u16>(at) << 32) | <u64>load<u32>(at, HISTORY_BIRTH)) < key) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The entry of block i that is valid at `epoch`, 0 when there is none. */
export function historyAt(leaf: u32, i: u32, epoch: u32): u32 {
  const history = load<u32>(leaf, LEAF_HISTORY);
  if (!history || epoch == 0xffffffff) return 0;
  const index = search(history, load<u32>(history), i, epoch + 1);
  if (!index) return 0;
  const at = history + HISTORY_HEADER + (index - 1) * HISTORY_BYTES;
  return load<u16>(at) == i && load<u32>(at, HISTORY_DEATH) > epoch ? at : 0;
}

/** The oldest entry of block i with a birth >= `birth`, 0 when there is none. */
export function historyFrom(leaf: u32, i: u32, birth: u32): u32 {
  const history = load<u32>(leaf, LEAF_HISTORY);
  if (!history) return 0;
  const count = load<u32>(history);
  const index = search(history, count, i, birth);
  const at = history + HISTORY_HEADER + index * HISTORY_BYTES;
  return index < count && load<u16>(at) == i ? at : 0;
}

/** An empty history with room for exactly so many entries. */
export function historyMake(leaf: u32, capacity: u32): u32 {
  const bytes = HISTORY_HEADER + capacity * HISTORY_BYTES;
  const history = allocate(bytes);
  store<u32>(history, 0);
  store<u32>(history, capacity, HISTORY_CAPACITY);
  store<u32>(leaf, history, LEAF_HISTORY);
  if (bytes > largest) largest = bytes;
  return history;
}

/** Adds `count` entries, sorted like the history itself, from the back: each old entry moves once. `space` is a pointer. */
export function historyMerge(space: u32, leaf: u32, entries: u32, count: u32): void {
  if (!count) return;
  let history = load<u32>(leaf, LEAF_HISTORY);
  if (!history) history = historyMake(leaf, count);
  let old = load<u32>(history);
  const total = old + count;
  if (total > load<u32>(history, HISTORY_CAPACITY)) {
    history = resize(history, HISTORY_HEADER + (total + (total >> 3)) * HISTORY_BYTES);
    const usable = usableSize(history);
    store<u32>(history, (usable - HISTORY_HEADER) / HISTORY_BYTES, HISTORY_CAPACITY);
    store<u32>(leaf, history, LEAF_HISTORY);
    if (usable > largest) largest = usable;
  }
  const body = history + HISTORY_HEADER;
  for (let left = count; left > 0; left--) {
    const entry = entries + (left - 1) * HISTORY_BYTES;
    const index = search(history, old, load<u16>(entry), load<u32>(entry, HISTORY_BIRTH));
    const at = body + index * HISTORY_BYTES;
    memory.copy(at + left * HISTORY_BYTES, at, (old - index) * HISTORY_BYTES);
    memory.copy(at + (left - 1) * HISTORY_BYTES, entry, HISTORY_BYTES);
    old = index;
  }
  store<u32>(history, total);
  store<u32>(space, load<u32>(space, SPACE_HISTORY) + count, SPACE_HISTORY);
}

/** After entries were taken out (the first `count` are left): gives the rest back, the whole of it when none is left. */
export function historyCut(space: u32, leaf: u32, count: u32): void {
  const history = load<u32>(leaf, LEAF_HISTORY);
  store<u32>(space, load<u32>(space, SPACE_HISTORY) + count - load<u32>(history), SPACE_HISTORY);
  if (!count) {
    free(history);
    store<u32>(leaf, 0, LEAF_HISTORY);
    return;
  }
  store<u32>(history, count);
  store<u32>(history, count, HISTORY_CAPACITY);
  store<u32>(leaf, resize(history, HISTORY_HEADER + count * HISTORY_BYTES), LEAF_HISTORY);
}
