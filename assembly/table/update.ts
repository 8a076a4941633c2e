// The three changes that the log makes to the table: put, trim, move. Live ones and replayed ones take the same way; while
// recovering, a leaf whose image has the change already is passed over (gate.ts).
//
// What becomes of the entry (birth b) that a put or trim at epoch n replaces:
//   b = n                        nobody can see it any more: dead at once
//   some pin p with b <= p < n   goes to the leaf's history as [b, n)
//   else                         dead
//
// What a trimmed block becomes, by what lies below it (the parent's resolved state at the parent's epoch):
//   MAPPED     HOLE
//   HOLE       HOLE when the block was mapped here, else it stays absent. (Absent would read the same, but then a block
//              could go from mapped back to absent, and a merge would have to fill such gaps with the parent's hole.)
//   nothing    absent; HOLE when a baseline lies under the chain (SPACE_EXTERNAL)
// A hole stays the hole it is.
import { available, grant } from '../std/allocator';
import { COUNT_HISTORY_INSERT, COUNT_HOLE_MADE, COUNT_HOLE_TO_HISTORY, COUNT_MOVE_CURRENT, COUNT_MOVE_HISTORY, COUNT_MOVE_REFUSED,
  COUNT_PUT_RECOVERED, COUNT_TRIM_LEAF, count } from '../std/counters';
import { PLANT_FREE_SNAPSHOT_BLOCK, PLANT_MOVE_UNCONDITIONAL, PLANT_TRIM_DROPS_HOLE, planted } from '../std/plant';
import { LEAF_NONE, directoryNext, slotChunk, slotFind, slotMake, slotMark, slotMarked } from './directory';
import { gateHas, recovering } from './gate';
import { HISTORY_BIRTH, HISTORY_BLOCK, HISTORY_BYTES, HISTORY_VOLUME, historyFrom, historyMerge, historyStore } from './history';
import { DEPTH_MAX, ENTRY_BIRTH, ENTRY_BYTES, ENTRY_VOLUME, KIND_ABSENT, KIND_HOLE, KIND_MAPPED, LEAF_HEADER, SHAPE_DENSE, SHAPE_MASK, SPACE_NONE, VOLUME_ABSENT,
  VOLUME_HOLE, leafMask, leafShift } from './layout';
import { entryAt, entryBirth, entryBlock, entryGet, entrySet, entryStore, entryVolume, leafDirty, leafExpand, leafMake, leafRebuild, leafRoom, leafTighten,
  leafTouch, scratchHistory, scratchOther, scratchRecords } from './leaf';
import { liveAdd, liveRemove } from './live';
import { tableResolveRange } from './lookup';
import { SPACE_EXTERNAL, SPACE_FLAGS, SPACE_PARENT, SPACE_PARENT_EPOCH, SPACE_PIN_COUNT, pinnedBetween, spacePointer, mappedAdd } from './space';
import { clear } from '../std/bytes';

// Entries on their way to the history, in scratchHistory.
let retired: u32 = 0;

// The old entry of block i, replaced at `epoch`: to the list for the history, or dead.
function retire(space: u32, i: u32, volume: u32, block: u32, birth: u32, epoch: u32, sequence: u64): void {
  if (birth < epoch && pinnedBetween(space, birth, epoch) && !(PLANTS && planted == PLANT_FREE_SNAPSHOT_BLOCK)) {
    count(volume == VOLUME_HOLE ? COUNT_HOLE_TO_HISTORY : COUNT_HISTORY_INSERT);
    historyStore(scratchHistory + retired * HISTORY_BYTES, i, volume, block, birth, epoch);
    retired++;
  } else if (volume != VOLUME_HOLE) {
    liveRemove(volume, block, sequence);
  }
}

// A mark in the directory says that a leaf is known to be dirty, and to have changed in this epoch: replay then has no business with the
// leaf's header, which lies in another cache line, and mostly in another page, than the entry. Of one epoch only: few logs have
// snapshots behind their last checkpoint.
let markBirth: u32 = 0;

// Most puts of a replay: into a dense leaf, over a mapping that no pin can see. Nothing is counted while recovering, so nothing but
// the entry changes. False, and nothing done, where there is more to it.
function putRecovered(space: u32, leaf: u32, i: u32, volume: u32, block: u32, birth: u32): bool {
  const at = leaf + LEAF_HEADER + i * ENTRY_BYTES;
  if (<u32>load<u16>(at, ENTRY_VOLUME) >= VOLUME_ABSENT || (load<u32>(space, SPACE_PIN_COUNT) && load<u32>(at, ENTRY_BIRTH) < birth)) return false;
  entryStore(at, volume, block, birth);
  count(COUNT_PUT_RECOVERED);
  return true;
}

/** A new mapping, born at the current epoch. Needs leafRoom(). */
export function tablePut(spaceId: u32, vblock: u64, volume: u32, block: u32, birth: u32, sequence: u64): void {
  const space = spacePointer(spaceId);
  assert(space && vblock >> leafShift < LEAF_NONE);
  const slot = slotMake(space, <u32>(vblock >> leafShift));
  const chunk = slotChunk;
  let word = load<u32>(slot);
  if (!word) word = leafMake(space, slot);
  else if (recovering && gateHas(word & ~SHAPE_MASK, sequence)) return;
  const i = <u32>vblock & leafMask;
  if (RAID && recovering && (word & SHAPE_MASK) == SHAPE_DENSE && putRecovered(space, word & ~SHAPE_MASK, i, volume, block, birth)) {
    if (birth != markBirth || !slotMarked(slot)) {
      leafTouch(word & ~SHAPE_MASK, chunk, birth);
      if (!markBirth) markBirth = birth;
      if (birth == markBirth) slotMark(slot, true);
    }
    leafTighten(slot, i);
    return;
  }
  entryGet(word, i);
  const at = entryAt;
  const oldVolume = entryVolume;
  if (oldVolume != VOLUME_ABSENT) {
    retired = 0;
    retire(space, i, oldVolume, entryBlock, entryBirth, birth, sequence);
    historyMerge(space, word & ~SHAPE_MASK, scratchHistory, retired);
  }
  if (oldVolume >= VOLUME_ABSENT) mappedAdd(space, 1);
  if (at && oldVolume != VOLUME_ABSENT) entryStore(at, volume, block, birth);
  else entrySet(slot, i, volume, block, birth);
  leafTighten(slot, i);
  leafTouch(load<u32>(slot) & ~SHAPE_MASK, chunk, birth);
  liveAdd(volume, block);
}

// The first leaf with an index >= `from` that any space of the chain has.
function chainNext(spaceId: u32, from: u32): u32 {
  let next = LEAF_NONE;
  let id = spaceId;
  for (let depth: u32 = 0; depth <= DEPTH_MAX && id != SPACE_NONE; depth++) {
    const space = spacePointer(id);
    if (!space) break;
    const here = directoryNext(space, from);
    if (here < next) next = here;
    id = load<u32>(space, SPACE_PARENT);
  }
  return next;
}

/** Whether a baseline lies under this space or one that it stands on. No log of format 1.0 has one, and the smaller core does not look. */
export function chainExternal(spaceId: u32): bool {
  if (!RAID) return false;
  let id = spaceId;
  for (let depth: u32 = 0; depth <= DEPTH_MAX && id != SPACE_NONE; depth++) {
    const space = spacePointer(id);
    if (!space) break;
    if (load<u32>(space, SPACE_FLAGS) & SPACE_EXTERNAL) return true;
    id = load<u32>(space, SPACE_PARENT);
  }
  return false;
}

// The next leaf at or after `from` that a trim has to look at.
function trimNext(spaceId: u32, space: u32, from: u32, external: bool): u32 {
  if (external) return from;
  return load<u32>(space, SPACE_PARENT) == SPACE_NONE ? directoryNext(space, from) : chainNext(spaceId, from);
}

const TRIM_EXPAND: u32 = 8; // from so many blocks of a leaf on, spreading it out is cheaper than changing single entries

function trimLeaf(space: u32, leafIndex: u32, first: u32, blocks: u32, epoch: u32, sequence: u64, external: bool): void {
  const parent = load<u32>(space, SPACE_PARENT);
  const slotNow = slotFind(space, leafIndex);
  let word = slotNow ? load<u32>(slotNow) : 0;
  if (word && recovering && gateHas(word & ~SHAPE_MASK, sequence)) return;
  count(COUNT_TRIM_LEAF);
  if (parent != SPACE_NONE) {
    tableResolveRange(parent, load<u32>(space, SPACE_PARENT_EPOCH), (<u64>leafIndex << leafShift) + first, blocks, scratchRecords);
  } else {
    clear(scratchRecords, blocks * 16);
  }
  const spread = blocks >= TRIM_EXPAND;
  if (spread) leafExpand(word, scratchOther);
  let slot: u32 = 0;
  let chunk: u32 = 0;
  let mapped: i32 = 0;
  retired = 0;
  for (let k: u32 = 0; k < blocks; k++) {
    const i = first + k;
    const entry = scratchOther + i * ENTRY_BYTES;
    let volume = VOLUME_ABSENT;
    if (spread) volume = load<u16>(entry, ENTRY_VOLUME);
    else if (word) {
      entryGet(word, i);
      volume = entryVolume;
    }
    if (volume == VOLUME_HOLE) continue;
    const below = load<u32>(scratchRecords + k * 16);
    let hole = below == KIND_MAPPED || (external && below == KIND_ABSENT);
    if (volume == VOLUME_ABSENT) {
      if (!hole) continue;
    } else {
      if (below == KIND_HOLE) hole = true;
      if (spread) retire(space, i, volume, load<u32>(entry), load<u32>(entry, ENTRY_BIRTH), epoch, sequence);
      else retire(space, i, volume, entryBlock, entryBirth, epoch, sequence);
      mapped--;
    }
    if (PLANTS && planted == PLANT_TRIM_DROPS_HOLE) hole = false;
    if (hole) count(COUNT_HOLE_MADE);
    if (!slot) {
      slot = slotMake(space, leafIndex);
      chunk = slotChunk;
      if (!word) word = leafMake(space, slot);
    }
    const newVolume = hole ? VOLUME_HOLE : VOLUME_ABSENT;
    const newBirth = hole ? epoch : 0;
    if (spread) {
      entryStore(entry, newVolume, 0, newBirth);
    } else {
      entrySet(slot, i, newVolume, 0, newBirth);
      word = load<u32>(slot);
    }
  }
  if (!slot) return;
  mappedAdd(space, mapped);
  historyMerge(space, load<u32>(slot) & ~SHAPE_MASK, scratchHistory, retired);
  if (spread) leafRebuild(slot, scratchOther);
  leafTouch(load<u32>(slot) & ~SHAPE_MASK, chunk, epoch);
}

/** The first block at or after this one in which a trim may change something; beyond all blocks when there is none. */
export function trimFirst(spaceId: u32, vblock: u64): u64 {
  const index = <u32>(vblock >> leafShift);
  const next = trimNext(spaceId, spacePointer(spaceId), index, chainExternal(spaceId));
  return next == index ? vblock : <u64>next << leafShift;
}

/**
 * Makes the blocks read zero from `epoch` on. Leaves that do not exist cost nothing unless holes must be made in them. Each that it works on needs leafRoom():
 * where that is not there it stops, with false, and is called again for all of the blocks, in the same epoch and before anything else.
 */
export function tableTrim(spaceId: u32, vblock: u64, amount: u64, epoch: u32, sequence: u64): bool {
  const space = spacePointer(spaceId);
  assert(space);
  const external = chainExternal(spaceId);
  const limit = <u64>LEAF_NONE << leafShift;
  const end = min<u64>(vblock + amount, limit);
  let at = vblock;
  while (at < end) {
    const index = <u32>(at >> leafShift);
    const next = trimNext(spaceId, space, index, external);
    if (next != index) at = <u64>next << leafShift;
    if (at >= end) break;
    const leafEnd = min<u64>((<u64>next + 1) << leafShift, end);
    if (available() < leafRoom()) return false;
    grant(leafRoom());
    trimLeaf(space, next, <u32>at & leafMask, <u32>(leafEnd - at), epoch, sequence, external);
    at = leafEnd;
  }
  return true;
}

/** Compaction moved a block: only if the entry with this birth still points at the old address. Needs leafRoom(). True when it did. */
export function tableMove(
  spaceId: u32, vblock: u64, birth: u32, oldVolume: u32, oldBlock: u32, newVolume: u32, newBlock: u32, sequence: u64,
): bool {
  const space = spacePointer(spaceId);
  if (!space || vblock >> leafShift >= LEAF_NONE) return false;
  const slot = slotFind(space, <u32>(vblock >> leafShift));
  const word = slot ? load<u32>(slot) : 0;
  if (!word) return false;
  const chunk = slotChunk;
  const leaf = word & ~SHAPE_MASK;
  if (recovering && gateHas(leaf, sequence)) return false;
  const i = <u32>vblock & leafMask;
  entryGet(word, i);
  let moved = entryVolume == oldVolume && entryBlock == oldBlock && entryBirth == birth;
  if (PLANTS && planted == PLANT_MOVE_UNCONDITIONAL && entryVolume < VOLUME_ABSENT) moved = true;
  if (moved) {
    count(COUNT_MOVE_CURRENT);
    if (entryAt) entryStore(entryAt, newVolume, newBlock, birth);
    else entrySet(slot, i, newVolume, newBlock, birth);
    leafTighten(slot, i);
  } else {
    const at = historyFrom(leaf, i, birth);
    moved = at != 0 && load<u32>(at, HISTORY_BIRTH) == birth && <u32>load<u16>(at, HISTORY_VOLUME) == oldVolume && load<u32>(at, HISTORY_BLOCK) == oldBlock;
    if (!moved) {
      count(COUNT_MOVE_REFUSED);
      return false;
    }
    count(COUNT_MOVE_HISTORY);
    store<u16>(at, newVolume, HISTORY_VOLUME);
    store<u32>(at, newBlock, HISTORY_BLOCK);
  }
  leafDirty(load<u32>(slot) & ~SHAPE_MASK, chunk);
  liveAdd(newVolume, newBlock);
  liveRemove(oldVolume, oldBlock, sequence);
  return true;
}
