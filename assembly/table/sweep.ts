// Dropping what nobody can see any more, after pins went: history entries whose [birth, death) has no pin, and in a space
// without a name (not CURRENT) also current entries, which count as [birth, infinity). Needs no memory: histories and
// leaves only shrink, in place.
import { bump } from '../std/bytes';
import { COUNT_SWEEP_CURRENT, COUNT_SWEEP_HISTORY, count } from '../std/counters';
import { LEAF_NONE, directoryFree, directoryNext, slotChunk, slotFind } from './directory';
import { gateHas, recovering } from './gate';
import { HISTORY_BIRTH, HISTORY_BLOCK, HISTORY_BYTES, HISTORY_DEATH, HISTORY_HEADER, HISTORY_VOLUME, historyCut } from './history';
import { ENTRY_BIRTH, ENTRY_BYTES, ENTRY_VOLUME, EPOCH_NOW, LEAF_HISTORY, LEAF_NEWEST_CHANGE, SHAPE_MASK, SPACE_NONE, VOLUME_ABSENT, VOLUME_HOLE,
  leafBlocks } from './layout';
import { entryStore, leafDirty, leafExpand, leafRebuild, leafRemove, scratchOther } from './leaf';
import { liveRemove } from './live';
import { SPACE_CURRENT, SPACE_FLAGS, SPACE_HISTORY, SPACE_MAPPED, SPACE_PARENT, SPACE_PARENT_EPOCH, pinRemove, pinnedBetween, spaceForget,
  spacePointer } from './space';
import { leafCountLive } from './walk';

// Whether history entries went.
function sweepHistory(space: u32, leaf: u32, sequence: u64): bool {
  const history = load<u32>(leaf, LEAF_HISTORY);
  if (!history) return false;
  const end = history + HISTORY_HEADER + load<u32>(history) * HISTORY_BYTES;
  let to = history + HISTORY_HEADER;
  for (let at = to; at < end; at += HISTORY_BYTES) {
    if (pinnedBetween(space, load<u32>(at, HISTORY_BIRTH), load<u32>(at, HISTORY_DEATH))) {
      if (to != at) memory.copy(to, at, HISTORY_BYTES);
      to += HISTORY_BYTES;
    } else {
      count(COUNT_SWEEP_HISTORY);
      const volume = <u32>load<u16>(at, HISTORY_VOLUME);
      if (volume != VOLUME_HOLE) liveRemove(volume, load<u32>(at, HISTORY_BLOCK), sequence);
    }
  }
  if (to == end) return false;
  historyCut(space, leaf, (to - history - HISTORY_HEADER) / HISTORY_BYTES);
  return true;
}

// Whether current entries went.
function sweepCurrent(space: u32, slot: u32, sequence: u64): bool {
  const entries = scratchOther;
  leafExpand(load<u32>(slot), entries);
  let dropped: u32 = 0;
  for (let at = entries; at < entries + leafBlocks * ENTRY_BYTES; at += ENTRY_BYTES) {
    const volume = <u32>load<u16>(at, ENTRY_VOLUME);
    if (volume == VOLUME_ABSENT || pinnedBetween(space, load<u32>(at, ENTRY_BIRTH), EPOCH_NOW)) continue;
    count(COUNT_SWEEP_CURRENT);
    dropped++;
    if (volume != VOLUME_HOLE) {
      liveRemove(volume, load<u32>(at), sequence);
      bump(space, SPACE_MAPPED, -1);
    }
    entryStore(at, VOLUME_ABSENT, 0, 0);
  }
  if (dropped) leafRebuild(slot, entries);
  return dropped != 0;
}

let sweepSpace: u32 = SPACE_NONE;
let sweepSequence: u64 = 0;
let sweepLeaf: u32 = 0;

export function sweepBegin(spaceId: u32, sequence: u64): void {
  sweepSpace = spaceId;
  sweepSequence = sequence;
  sweepLeaf = 0;
}

/** Sweeps so many leaves more; false when all of the space are done. */
export function sweepStep(leaves: u32): bool {
  const space = spacePointer(sweepSpace);
  if (!space) return false;
  const named = load<u32>(space, SPACE_FLAGS) & SPACE_CURRENT;
  for (let left = leaves; left > 0; left--) {
    const index = directoryNext(space, sweepLeaf);
    if (index == LEAF_NONE) return false;
    sweepLeaf = index + 1;
    const slot = slotFind(space, index);
    const chunk = slotChunk;
    const leaf = load<u32>(slot) & ~SHAPE_MASK;
    if (recovering && gateHas(leaf, sweepSequence)) continue;
    let changed = sweepHistory(space, leaf, sweepSequence);
    // Every birth is <= newestChange, so a pin there keeps all that is current.
    if (!named && !pinnedBetween(space, load<u32>(leaf, LEAF_NEWEST_CHANGE), EPOCH_NOW)) {
      if (sweepCurrent(space, slot, sweepSequence)) changed = true;
    }
    if (changed) leafDirty(load<u32>(slot) & ~SHAPE_MASK, chunk);
  }
  return true;
}

export function tableSweep(spaceId: u32, sequence: u64): void {
  sweepBegin(spaceId, sequence);
  sweepStep(0xffffffff);
}

/** Every mapping of the space dies, its images are released, its parent is unpinned, and it is gone. Nothing may stand on it. */
export function spaceDestroy(spaceId: u32, sequence: u64): void {
  const space = spacePointer(spaceId);
  if (!space) return;
  for (let index = directoryNext(space, 0); index != LEAF_NONE; index = directoryNext(space, index)) {
    if (!recovering) leafCountLive(load<u32>(slotFind(space, index)), false, sequence);
    leafRemove(space, index);
  }
  store<u32>(space, 0, SPACE_MAPPED);
  store<u32>(space, 0, SPACE_HISTORY);
  directoryFree(space);
  const parent = load<u32>(space, SPACE_PARENT);
  if (parent != SPACE_NONE) pinRemove(parent, load<u32>(space, SPACE_PARENT_EPOCH));
  spaceForget(spaceId);
}
