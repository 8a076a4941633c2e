// Spaces and their pins.
//
// A space is one address space in the log; it may stand on (parent, parentEpoch) and then shows through where it is absent.
// A pin at epoch e keeps what is visible at e: entries with birth <= e < death. Snapshots pin, and so does every child on
// its parent: spaceCreate() pins the parent and spaceDestroy() unpins it, the callers never do that for children. The
// CURRENT flag (some source's name is on the space) is like a pin at infinity.
//
//   pins  a sorted array of { epoch u32, references u32 }
//
// Spaces must be created parents first (in the order of their uids does it: a parent is always older than its child).
import { allocateZeroed, free, resize } from '../std/allocator';
import { SPACE_NONE, geometrySet } from './layout';
import { scratchInitialize } from './leaf';

export const SPACE_CURRENT: u32 = 1;
export const SPACE_EXTERNAL: u32 = 2; // a baseline lies under it: absent is not zero, so trims must leave holes

export const SPACE_ID: usize = 0;
export const SPACE_FLAGS: usize = 4;
export const SPACE_PARENT: usize = 8;
export const SPACE_PARENT_EPOCH: usize = 12;
export const SPACE_UID: usize = 16;
export const SPACE_SIZE: usize = 24; // f64, bytes
export const SPACE_ROOT: usize = 32; // directory (directory.ts)
export const SPACE_ROOT_CAPACITY: usize = 36;
export const SPACE_PINS: usize = 40;
export const SPACE_PIN_COUNT: usize = 44;
export const SPACE_PIN_CAPACITY: usize = 48;
export const SPACE_LEAVES: usize = 52;
export const SPACE_MAPPED: usize = 56; // current mapped blocks
export const SPACE_HISTORY: usize = 60; // history entries
export const SPACE_BYTES: u32 = 64;

/** Bytes that creating one space, or adding one pin, may need. */
export const SPACE_ROOM: u32 = 2048;

const CHUNK: u32 = 256;
let spaces: u32 = 0; // 256 pointers to chunks of 256 pointers
let spaceCountAll: u32 = 0;
let idNext: u32 = 0; // not kept: a log that is opened has no calls under way

/** Once, after allocatorInitialize(). `blocks`: of a leaf, a power of two 16…1024. */
export function tableInitialize(blocks: u32): void {
  geometrySet(blocks);
  spaces = allocateZeroed(CHUNK * 4);
  scratchInitialize();
}

export function spacePointer(id: u32): u32 {
  const chunk = load<u32>(spaces + ((id >> 8) & 255) * 4);
  return chunk ? load<u32>(chunk + (id & 255) * 4) : 0;
}

/** The first existing space with an id >= `id`, SPACE_NONE when there is none: for walking all of them in order. */
export function spaceNext(id: u32): u32 {
  let next = id;
  while (next < SPACE_NONE) {
    if (!load<u32>(spaces + (next >> 8) * 4)) next = (next | 255) + 1;
    else if (spacePointer(next)) return next;
    else next++;
  }
  return SPACE_NONE;
}

/** The one behind the last that was used. */
export function spaceIdNext(): u32 { return idNext; }

export function spaceCount(): u32 {
  return spaceCountAll;
}

/** The new space's pointer; 0 when the id is taken or out of range, or the parent does not exist. No flags are set. */
export function spaceCreate(id: u32, uid: u64, parent: u32, parentEpoch: u32, sizeBytes: f64): u32 {
  if (id >= SPACE_NONE || spacePointer(id)) return 0;
  if (parent != SPACE_NONE && !(parent < SPACE_NONE && spacePointer(parent))) return 0;
  const cell = spaces + (id >> 8) * 4;
  let chunk = load<u32>(cell);
  if (!chunk) {
    chunk = allocateZeroed(CHUNK * 4);
    store<u32>(cell, chunk);
  }
  const space = allocateZeroed(SPACE_BYTES);
  idNext = id + 1;
  store<u32>(space, id, SPACE_ID);
  store<u32>(space, parent, SPACE_PARENT);
  store<u32>(space, parent == SPACE_NONE ? 0 : parentEpoch, SPACE_PARENT_EPOCH);
  store<u64>(space, uid, SPACE_UID);
  store<f64>(space, sizeBytes, SPACE_SIZE);
  store<u32>(chunk + (id & 255) * 4, space);
  spaceCountAll++;
  if (parent != SPACE_NONE) pinAdd(parent, parentEpoch);
  return space;
}

/** Takes the record away; its leaves are gone already. The parent's pin is the caller's. */
export function spaceForget(id: u32): void {
  const space = spacePointer(id);
  free(load<u32>(space, SPACE_PINS));
  free(space);
  store<u32>(load<u32>(spaces + (id >> 8) * 4) + (id & 255) * 4, 0);
  spaceCountAll--;
}

export function spaceFlag(id: u32, flag: u32, on: bool): void {
  const space = spacePointer(id);
  const flags = load<u32>(space, SPACE_FLAGS);
  store<u32>(space, on ? flags | flag : flags & ~flag, SPACE_FLAGS);
}

export function spaceFlags(id: u32): u32 {
  return load<u32>(spacePointer(id), SPACE_FLAGS);
}

export function spaceParent(id: u32): u32 {
  return load<u32>(spacePointer(id), SPACE_PARENT);
}

export function spaceParentEpoch(id: u32): u32 {
  return load<u32>(spacePointer(id), SPACE_PARENT_EPOCH);
}

export function spaceUid(id: u32): u64 {
  return load<u64>(spacePointer(id), SPACE_UID);
}

export function spaceSizeBytes(id: u32): f64 {
  return load<f64>(spacePointer(id), SPACE_SIZE);
}

export function spaceResize(id: u32, sizeBytes: f64): void {
  store<f64>(spacePointer(id), sizeBytes, SPACE_SIZE);
}

/** How many spaces lie between this one and the last of its chain, itself counted; more than DEPTH_MAX is refused above. */
export function spaceDepth(id: u32): u32 {
  let depth: u32 = 0;
  let at = id;
  while (at != SPACE_NONE && depth <= 64) {
    const space = spacePointer(at);
    if (!space) break;
    depth++;
    at = load<u32>(space, SPACE_PARENT);
  }
  return depth;
}

// Index of the first pin with an epoch >= `epoch`.
function pinSearch(space: u32, epoch: u32): u32 {
  const pins = load<u32>(space, SPACE_PINS);
  let low: u32 = 0;
  let high = load<u32>(space, SPACE_PIN_COUNT);
  while (low < high) {
    const middle = (low + high) >> 1;
    if (load<u32>(pins + middle * 8) < epoch) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Whether some pin p has from <= p < to. `space` is a pointer. */
export function pinnedBetween(space: u32, from: u32, to: u32): bool {
  const count = load<u32>(space, SPACE_PIN_COUNT);
  if (!count) return false;
  const pins = load<u32>(space, SPACE_PINS);
  const last = load<u32>(pins + (count - 1) * 8);
  if (last < from) return false;
  if (last < to) return true;
  const index = pinSearch(space, from);
  return index < count && load<u32>(pins + index * 8) < to;
}

export function pinAdd(id: u32, epoch: u32): void {
  const space = spacePointer(id);
  const count = load<u32>(space, SPACE_PIN_COUNT);
  let pins = load<u32>(space, SPACE_PINS);
  const index = pinSearch(space, epoch);
  if (index < count && load<u32>(pins + index * 8) == epoch) {
    store<u32>(pins + index * 8, load<u32>(pins + index * 8, 4) + 1, 4);
    return;
  }
  if (count == load<u32>(space, SPACE_PIN_CAPACITY)) {
    const capacity = count + 2 + (count >> 2);
    pins = resize(pins, capacity * 8);
    store<u32>(space, pins, SPACE_PINS);
    store<u32>(space, capacity, SPACE_PIN_CAPACITY);
  }
  const at = pins + index * 8;
  memory.copy(at + 8, at, (count - index) * 8);
  store<u32>(at, epoch);
  store<u32>(at, 1, 4);
  store<u32>(space, count + 1, SPACE_PIN_COUNT);
}

/** Takes one reference away; frees nothing by itself (tableSweep does). False when there was no such pin. */
export function pinRemove(id: u32, epoch: u32): bool {
  const space = spacePointer(id);
  if (!space) return false;
  const count = load<u32>(space, SPACE_PIN_COUNT);
  const index = pinSearch(space, epoch);
  const at = load<u32>(space, SPACE_PINS) + index * 8;
  if (index == count || load<u32>(at) != epoch) return false;
  const references = load<u32>(at, 4) - 1;
  store<u32>(at, references, 4);
  if (!references) {
    memory.copy(at, at + 8, (count - index - 1) * 8);
    store<u32>(space, count - 1, SPACE_PIN_COUNT);
  }
  return true;
}

/** Number of different pinned epochs. */
export function pinCount(id: u32): u32 {
  return load<u32>(spacePointer(id), SPACE_PIN_COUNT);
}

export function pinEpoch(id: u32, index: u32): u32 {
  return load<u32>(load<u32>(spacePointer(id), SPACE_PINS) + index * 8);
}

export function pinReferences(id: u32, index: u32): u32 {
  return load<u32>(load<u32>(spacePointer(id), SPACE_PINS) + index * 8, 4);
}

/** Bytes that adding a pin may need, for this space. */
export function pinRoom(id: u32): u32 {
  const space = spacePointer(id);
  return space ? 64 + load<u32>(space, SPACE_PIN_COUNT) * 10 : SPACE_ROOM;
}

/** `space` is a pointer. */
export function mappedAdd(space: u32, amount: i32): void {
  store<u32>(space, load<u32>(space, SPACE_MAPPED) + amount, SPACE_MAPPED);
}

/** Current mapped blocks of this space alone. */
export function mappedBlocks(id: u32): f64 {
  return <f64>load<u32>(spacePointer(id), SPACE_MAPPED);
}

export function historyEntries(id: u32): f64 {
  return <f64>load<u32>(spacePointer(id), SPACE_HISTORY);
}

export function leafCount(id: u32): u32 {
  return load<u32>(spacePointer(id), SPACE_LEAVES);
}
