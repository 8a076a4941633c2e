// Merging a space into the one child that stands on it.
//
// The parent has lost its name and nothing but the child pins it, at epoch E. Leaf by leaf, what the parent shows at E
// (entries with birth <= E < death; all else dies) goes under what the child has:
//
//   the child has no leaf     the parent's leaf itself goes over, after what is not visible at E was taken out
//   the child is absent there, and always was    becomes current, with its birth
//   the child's oldest entry there was born at o  goes to history as [birth, o) if some pin of the child lies in it, else dies
//
// The child's first entry ends the parent's view for good, since a trim over a parent that is not absent leaves a hole
// (update.ts): so one interval is all there is to fill. A leaf of the parent goes as soon as it is merged; between two
// steps every lookup is right. At the end the child stands on what the parent stood on (the pin there passes to it).
import { COUNT_MERGE_CURRENT, COUNT_MERGE_DEAD, COUNT_MERGE_FILTERED, COUNT_MERGE_HISTORY, COUNT_MERGE_STEAL, count } from '../std/counters';
import { LEAF_NONE, directoryFree, directoryNext, slotChunk, slotClear, slotFill, slotFind, slotMake } from './directory';
import { gateHas, recovering } from './gate';
import { HISTORY_BIRTH, HISTORY_BLOCK, HISTORY_BYTES, HISTORY_DEATH, HISTORY_HEADER, HISTORY_VOLUME, historyCut, historyFrom, historyMerge,
  historyStore } from './history';
import { ENTRY_BIRTH, ENTRY_BYTES, ENTRY_VOLUME, LEAF_APPLIED, LEAF_DIRTY, LEAF_FLAGS, LEAF_HISTORY, LEAF_NEWEST_CHANGE, SHAPE_MASK, SPACE_NONE, VOLUME_ABSENT, VOLUME_HOLE, leafBlocks } from './layout';
import { entryStore, leafExpand, leafIsEmpty, leafRebuild, leafRemove, leafTouch, scratchEntries, scratchHistory, scratchOther, mappedIn } from './leaf';
import { liveRemove } from './live';
import { leafForgetImage } from './release';
import {
  SPACE_CURRENT, SPACE_EXTERNAL, SPACE_FLAGS, SPACE_PARENT, SPACE_PARENT_EPOCH, pinCount, pinEpoch, pinReferences, pinnedBetween, spaceForget,
  spacePointer, mappedAdd,
} from './space';

let parentId: u32 = SPACE_NONE;
let childId: u32 = SPACE_NONE;
let mergeSequence: u64 = 0;

/** Whether the parent may be merged into the child: has no name, and the child is all that pins it. */
export function mergeAllowed(parent: u32, child: u32): bool {
  const from = parent < SPACE_NONE ? spacePointer(parent) : 0;
  const into = child < SPACE_NONE ? spacePointer(child) : 0;
  if (!from || !into || load<u32>(into, SPACE_PARENT) != parent || load<u32>(from, SPACE_FLAGS) & SPACE_CURRENT) return false;
  return pinCount(parent) == 1 && pinReferences(parent, 0) == 1 && pinEpoch(parent, 0) == load<u32>(into, SPACE_PARENT_EPOCH);
}

function die(volume: u32, block: u32): void {
  count(COUNT_MERGE_DEAD);
  if (volume != VOLUME_HOLE) liveRemove(volume, block, mergeSequence);
}

// Leaves in `entries` only what is visible at `epoch`; everything else, and the history as such, goes.
function filterVisible(from: u32, leaf: u32, entries: u32, epoch: u32): void {
  for (let at = entries; at < entries + leafBlocks * ENTRY_BYTES; at += ENTRY_BYTES) {
    const volume = <u32>load<u16>(at, ENTRY_VOLUME);
    if (volume == VOLUME_ABSENT || load<u32>(at, ENTRY_BIRTH) <= epoch) continue;
    die(volume, load<u32>(at));
    entryStore(at, VOLUME_ABSENT, 0, 0);
  }
  const history = load<u32>(leaf, LEAF_HISTORY);
  if (!history) return;
  const end = history + HISTORY_HEADER + load<u32>(history) * HISTORY_BYTES;
  for (let at = history + HISTORY_HEADER; at < end; at += HISTORY_BYTES) {
    const volume = <u32>load<u16>(at, HISTORY_VOLUME);
    const block = load<u32>(at, HISTORY_BLOCK);
    const birth = load<u32>(at, HISTORY_BIRTH);
    if (birth <= epoch && epoch < load<u32>(at, HISTORY_DEATH)) entryStore(entries + <u32>load<u16>(at) * ENTRY_BYTES, volume, block, birth);
    else die(volume, block);
  }
  historyCut(from, leaf, 0);
}

// The child has no leaf there: the parent's goes over.
function steal(from: u32, into: u32, leafIndex: u32, epoch: u32): void {
  const slot = slotFind(from, leafIndex);
  let leaf = load<u32>(slot) & ~SHAPE_MASK;
  leafExpand(load<u32>(slot), scratchOther);
  if (load<u32>(leaf, LEAF_HISTORY) || load<u32>(leaf, LEAF_NEWEST_CHANGE) > epoch) {
    filterVisible(from, leaf, scratchOther, epoch);
    leafRebuild(slot, scratchOther);
    count(COUNT_MERGE_FILTERED);
  } else {
    count(COUNT_MERGE_STEAL);
  }
  const word = load<u32>(slot);
  leaf = word & ~SHAPE_MASK;
  if (leafIsEmpty(leaf)) {
    leafRemove(from, leafIndex);
    return;
  }
  slotClear(from, leafIndex);
  leafForgetImage(leaf);
  store<u32>(leaf, 0, LEAF_APPLIED);
  const target = slotMake(into, leafIndex);
  slotFill(into, target, word);
  mappedAdd(into, mappedIn(scratchOther));
  store<u32>(leaf, load<u32>(leaf, LEAF_FLAGS) & ~LEAF_DIRTY, LEAF_FLAGS); // it may be dirty already: its new chunk must know too
  leafTouch(leaf, slotChunk, 0);
}

// Both have a leaf.
function join(from: u32, into: u32, leafIndex: u32, epoch: u32): void {
  const word = load<u32>(slotFind(from, leafIndex));
  const under = scratchOther;
  const over = scratchEntries;
  leafExpand(word, under);
  filterVisible(from, word & ~SHAPE_MASK, under, epoch);
  const slot = slotFind(into, leafIndex);
  const chunk = slotChunk;
  const leaf = load<u32>(slot) & ~SHAPE_MASK;
  leafExpand(load<u32>(slot), over);
  let kept: u32 = 0;
  let mapped: u32 = 0;
  let newest: u32 = 0;
  for (let i: u32 = 0; i < leafBlocks; i++) {
    const at = under + i * ENTRY_BYTES;
    const volume = <u32>load<u16>(at, ENTRY_VOLUME);
    if (volume == VOLUME_ABSENT) continue;
    const block = load<u32>(at);
    const birth = load<u32>(at, ENTRY_BIRTH);
    const place = over + i * ENTRY_BYTES;
    const oldest = historyFrom(leaf, i, 0);
    if (!oldest && load<u16>(place, ENTRY_VOLUME) == VOLUME_ABSENT) {
      count(COUNT_MERGE_CURRENT);
      entryStore(place, volume, block, birth);
      mapped += u32(volume != VOLUME_HOLE);
      if (birth > newest) newest = birth;
      continue;
    }
    const death = oldest ? load<u32>(oldest, HISTORY_BIRTH) : load<u32>(place, ENTRY_BIRTH);
    if (birth < death && pinnedBetween(into, birth, death)) {
      count(COUNT_MERGE_HISTORY);
      historyStore(scratchHistory + kept * HISTORY_BYTES, i, volume, block, birth, death);
      kept++;
    } else {
      die(volume, block);
    }
  }
  historyMerge(into, leaf, scratchHistory, kept);
  leafRebuild(slot, over);
  mappedAdd(into, mapped);
  leafTouch(load<u32>(slot) & ~SHAPE_MASK, chunk, newest);
  leafRemove(from, leafIndex);
}

/** Checked by mergeAllowed() before. */
export function mergeBegin(parent: u32, child: u32, sequence: u64): void {
  if (CHECKED) assert(mergeAllowed(parent, child));
  parentId = parent;
  childId = child;
  mergeSequence = sequence;
}

/** Merges so many leaves more, each needing leafRoom(); false when the parent is gone. Nothing else may change either space meanwhile. */
export function mergeStep(leaves: u32): bool {
  const from = spacePointer(parentId);
  const into = spacePointer(childId);
  const epoch = load<u32>(into, SPACE_PARENT_EPOCH);
  for (let left = leaves; left > 0; left--) {
    const index = directoryNext(from, 0);
    if (index == LEAF_NONE) {
      finish(from, into);
      return false;
    }
    const slot = slotFind(into, index);
    const word = slot ? load<u32>(slot) : 0;
    if (!word) steal(from, into, index, epoch);
    else if (recovering && gateHas(word & ~SHAPE_MASK, mergeSequence)) leafRemove(from, index);
    else join(from, into, index, epoch);
  }
  return true;
}

function finish(from: u32, into: u32): void {
  directoryFree(from);
  if (RAID) store<u32>(into, load<u32>(into, SPACE_FLAGS) | (load<u32>(from, SPACE_FLAGS) & SPACE_EXTERNAL), SPACE_FLAGS);
  store<u32>(into, load<u32>(from, SPACE_PARENT), SPACE_PARENT);
  store<u32>(into, load<u32>(from, SPACE_PARENT_EPOCH), SPACE_PARENT_EPOCH);
  spaceForget(parentId);
}

export function tableMerge(parent: u32, child: u32, sequence: u64): void {
  mergeBegin(parent, child, sequence);
  mergeStep(0xffffffff);
}
