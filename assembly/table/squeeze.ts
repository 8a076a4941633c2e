// Taking the holes out of the arena. While a table grows at random every leaf outgrows its place again and again, and what it
// leaves behind is too small for those that come: a fifth to a third of the arena (2026-11). No allocator that leaves blocks
// where they are avoids that. Leaves and histories can move, because one word each leads to them; so they slide together:
//
//   1. One pass over the directories marks the leaves and histories in the next window of the arena. A list keeps for each
//      where the word lies that leads to it; its second word holds its number in the list meanwhile.
//   2. They slide down, in the order of their addresses, and the words follow. What is not the table's stays where it is.
//   3. The next window begins behind the hole that is left, which moves up like that until it reaches the end and is gone.
//
// A step is one window: a pass over the directories (as many times as there are windows) and a copy of its bytes, at most
// 8 MiB of them. Between two steps anything may happen; within one nothing allocates.
//
// Not in the smaller core, which has no room for it.
import { available, heapExtentBytes, heapUsedBytes, slideBegin, slideEnd, slideMark, slideNext, untouched } from '../std/allocator';
import { LEAF_NONE, directoryNext, slotFind } from './directory';
import { LEAF_HISTORY, SHAPE_MASK, SPACE_NONE } from './layout';
import { SPACE_HISTORY, spaceNext, spacePointer } from './space';

// Fewer holes are not worth a pass. Test builds squeeze whenever they can, in windows of a few leaves.
const HOLES_BYTES: f64 = PLANTS ? 64 : 1048576;
const WINDOW_MIN: u32 = PLANTS ? 256 : 65536;
const WINDOW_MAX: u32 = 8388608; // a few milliseconds: between two steps others come in
const BLOCK_LEAST: u32 = 32; // a leaf of one run, a history of one entry
const SECOND: usize = 4; // the word of a leaf or history that its number takes the place of
const IS_HISTORY: u32 = 1; // in an owner: the word is not the slot, but the history's in the leaf of that slot

let at: u32 = 0; // below, everything has been squeezed
let list: u32 = 0; // { owner u32, second word u32 }, in the untouched end: nothing allocates meanwhile
let listed: u32 = 0;
let lowest: u32 = 0;

/** More than a sixteenth of the arena is holes. */
export function squeezeWanted(): bool {
  const extent = heapExtentBytes();
  const holes = extent - heapUsedBytes();
  return holes > HOLES_BYTES && holes * 16 > extent;
}

function note(pointer: u32, owner: u32): void {
  const item = list + listed * 8;
  store<u32>(item, owner);
  store<u32>(item, load<u32>(pointer, SECOND), 4);
  store<u32>(pointer, listed, SECOND);
  slideMark(pointer);
  listed++;
  if (pointer < lowest) lowest = pointer;
}

/** One window of the arena (0: a 32nd of it, within bounds). True: there is more. Not while a log is being recovered. */
export function squeezeStep(bytes: u32 = 0): bool {
  const window = bytes ? bytes : min(WINDOW_MAX, max(WINDOW_MIN, <u32>(heapExtentBytes() / 32)));
  const room = (window / BLOCK_LEAST + 1) * 8;
  if (available() < room) {
    at = 0;
    return false;
  }
  list = untouched();
  listed = 0;
  lowest = 0xffffffff;
  const from = at;
  let beyond = false; // something lies behind the window
  for (let id = spaceNext(0); id != SPACE_NONE; id = spaceNext(id + 1)) {
    const space = spacePointer(id);
    const histories = load<u32>(space, SPACE_HISTORY) != 0;
    for (let index = directoryNext(space, 0); index != LEAF_NONE; index = directoryNext(space, index + 1)) {
      const slot = slotFind(space, index);
      const leaf = load<u32>(slot) & ~SHAPE_MASK;
      const history = histories ? load<u32>(leaf, LEAF_HISTORY) : 0;
      if (leaf >= from) {
        if (leaf - from < window) note(leaf, slot);
        else beyond = true;
      }
      if (history >= from && history) {
        if (history - from < window) note(history, slot | IS_HISTORY);
        else beyond = true;
      }
    }
  }
  at = from + window;
  if (listed) {
    slideBegin(lowest);
    for (let k: u32 = 0; k < listed; k++) {
      const pointer = slideNext();
      const item = list + load<u32>(pointer, SECOND) * 8;
      store<u32>(pointer, load<u32>(item, 4), SECOND);
      const owner = load<u32>(item);
      const slot = owner & ~IS_HISTORY;
      const word = load<u32>(slot);
      if (owner & IS_HISTORY) store<u32>(word & ~SHAPE_MASK, pointer, LEAF_HISTORY);
      else store<u32>(slot, pointer | (word & SHAPE_MASK));
    }
    at = slideEnd();
  }
  if (!beyond) at = 0;
  return beyond;
}
