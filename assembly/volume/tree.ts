// The page tree in memory: which metadata pages there are, where they lie, and which of them the next checkpoint must
// write. Level 0 is an array of page slots (state, segment table, leaves); each higher level holds the index pages over
// the one below; the root names the top nodes.
//
// Node, 40 bytes: the 32 bytes of the disk node, then u16 live (fragments that count, level 0), u16 flags (1: changed,
// its parent must be written; 2: under construction), u32 0.
//
// Images are referred to by a u32: page slot + 1, or 0x80000000 | address/8 of a list (u32 count, u32 slots) where an
// image spans several pages.

import { allocate, allocateZeroed, free, resize, allocateBlocks } from '../std/allocator';
import { count } from '../std/counters';
import { xxh64 } from '../std/checksum';
import { BLOCK_BYTES, FORMAT_MAJOR } from '../format/constants';
import { pageSeed } from '../format/key';
import { TOP_MAX } from '../format/root';
import {
  FRAGMENT_BYTES, FRAGMENT_PAYLOAD_MAX, G_APPLIED, G_BYTES, G_CHECKPOINT, G_COUNT, G_INDEX, G_KEY, G_KIND, G_SPACE, G_UID, INDEX_NODES, NODE_BYTES,
  N_BLOCK_A, N_BLOCK_B, N_CHECKPOINT, N_CHECKSUM, N_KIND, N_VOLUME_A, N_VOLUME_B, PAGE_FIXED_BYTES, PAGE_INDEX, PAGE_LEAVES, PAGE_MAGIC,
  P_CHECKPOINT, P_COUNT, P_KIND, P_LEVEL, P_USED,
} from '../format/page';
import {
  SEG_FLAGS, SEG_META_LIVE, SEG_VICTIM, V_SEGMENT_BLOCKS, eachSegment, emptyMetaFree, segmentOf, segmentsBegin, segmentsNext, volumeById,
} from '../log/volumes';
import { B_VOLUME, openBuffer, pageAppend, pageBlock, pageVolume } from '../log/writer';
import { C_LEAF_FRAGMENTED } from '../log/counting';
import { checkpointNumber } from './root';
import { bump, clear } from '../std/bytes';

export const TN_BYTES: u32 = 40;
const TN_LIVE: usize = 32;
const TN_FLAGS: usize = 34;
const CHANGED: u16 = 1;
const BUILDING: u16 = 2;
const CHUNK_NODES: u32 = 512;
export const LEVELS: u32 = 5;

const chunkLists: usize = memory.data(20); // per level: pointer to the list of chunks
const counts: usize = memory.data(20); // per level: nodes
const capacities: usize = memory.data(20); // per level: chunks in the list
let freeSlots: u32 = 0;
let freeHint: u32 = 0;

// Pages under construction, one for each kind of fragments (state, segments, leaves).
let pages: u32 = 0;
const pageSlot: usize = memory.data(16); // slot + 1
const pageUsed: usize = memory.data(16);
const pageCount: usize = memory.data(16);

export function levelCount(level: u32): u32 { return load<u32>(counts + (level << 2)); }

export function node(level: u32, index: u32): u32 {
  return load<u32>(load<u32>(chunkLists + (level << 2)) + ((index / CHUNK_NODES) << 2)) + (index % CHUNK_NODES) * TN_BYTES;
}

/** Memory that growing the tree by some thousand nodes takes, and writing a page of each kind. */
export const TREE_ROOM: u32 = 1048576;

/** Memory for a tree of so many pages: a node for each, in chunks that are in a list, and an index page for each 127 of them. */
export function treeRoom(slots: u32): u32 {
  return slots * (TN_BYTES + 1) + TREE_ROOM;
}

export function treeInitialize(): void {
  pages = allocateBlocks(3);
}

function levelGrow(level: u32, total: u32): void {
  let chunks = (total + CHUNK_NODES - 1) / CHUNK_NODES;
  let capacity = load<u32>(capacities + (level << 2));
  if (chunks > capacity) {
    let list = load<u32>(chunkLists + (level << 2));
    let wanted = max(chunks, capacity * 2);
    list = resize(list, wanted << 2);
    for (let i = capacity; i < wanted; i++) store<u32>(list + (i << 2), 0);
    store<u32>(chunkLists + (level << 2), list);
    store<u32>(capacities + (level << 2), wanted);
  }
  let list = load<u32>(chunkLists + (level << 2));
  for (let i: u32 = 0; i < chunks; i++) {
    if (load<u32>(list + (i << 2))) continue;
    store<u32>(list + (i << 2), allocateZeroed(CHUNK_NODES * TN_BYTES));
  }
  store<u32>(counts + (level << 2), total);
}

/** Sets the number of page slots as a root or a page slot taken says; the levels above follow, new nodes changed. */
export function treeSize(slots: u32): void {
  levelGrow(0, slots);
  let below = slots;
  for (let level: u32 = 1; level < LEVELS && below > TOP_MAX; level++) {
    let wanted = (below + INDEX_NODES - 1) / INDEX_NODES;
    let had = levelCount(level);
    if (wanted > had) {
      levelGrow(level, wanted);
      for (let i = had; i < wanted; i++) store<u16>(node(level, i), CHANGED, TN_FLAGS);
    }
    below = wanted;
  }
}

export function treeHeightNow(): u32 {
  let level: u32 = 0;
  while (levelCount(level) > TOP_MAX) level++;
  return level;
}

function changed(level: u32, index: u32): void {
  let above = index / INDEX_NODES;
  if (level + 1 < LEVELS && above < levelCount(level + 1)) {
    let parent = node(level + 1, above);
    store<u16>(parent, load<u16>(parent, TN_FLAGS) | CHANGED, TN_FLAGS);
  }
}

function slotTake(): u32 {
  if (freeSlots) {
    for (let probe: u32 = 0, total = levelCount(0); probe < total; probe++) {
      let slot = freeHint + probe;
      if (slot >= total) slot -= total;
      let at = node(0, slot);
      // Of no kind, not under construction, and (after a checkpoint was given up) not referred to any more: live and flags are one word.
      if (load<u8>(at, N_KIND) == 0 && load<u32>(at, TN_LIVE) == 0) {
        freeSlots--;
        freeHint = slot + 1;
        return slot;
      }
    }
    freeSlots = 0;
  }
  let slot = levelCount(0);
  treeSize(slot + 1);
  return slot;
}

/** Appends `bytes` of payload as one fragment to the page under construction of this kind; answers the page slot, or 0xFFFFFFFF when no page could be written. */
function fragmentAppend(kind: u32, space: u32, key: u32, uid: u64, applied: u64, payload: u32, bytes: u32, index: u32, total: u32): u32 {
  let which = (kind - 1) << 2;
  let page = pages + (kind - 1) * BLOCK_BYTES;
  let size = FRAGMENT_BYTES + ((bytes + 7) & ~7);
  if (load<u32>(pageSlot + which) && PAGE_FIXED_BYTES + load<u32>(pageUsed + which) + size > BLOCK_BYTES) {
    if (!pageFinish(kind)) return 0xffffffff;
  }
  if (!load<u32>(pageSlot + which)) {
    clear(page, BLOCK_BYTES);
    let slot = slotTake();
    let at = node(0, slot);
    clear(at, TN_BYTES);
    store<u16>(at, BUILDING, TN_FLAGS);
    store<u64>(at, checkpointNumber, N_CHECKPOINT);
    store<u32>(pageSlot + which, slot + 1);
    store<u32>(pageUsed + which, 0);
    store<u32>(pageCount + which, 0);
  }
  let used = load<u32>(pageUsed + which);
  let fragment = page + PAGE_FIXED_BYTES + used;
  store<u8>(fragment, <u8>kind, G_KIND);
  store<u16>(fragment, <u16>bytes, G_BYTES);
  store<u16>(fragment, <u16>index, G_INDEX);
  store<u16>(fragment, <u16>total, G_COUNT);
  store<u16>(fragment, <u16>space, G_SPACE);
  store<u32>(fragment, key, G_KEY);
  store<u64>(fragment, uid, G_UID);
  store<u64>(fragment, checkpointNumber, G_CHECKPOINT);
  store<u64>(fragment, applied, G_APPLIED);
  memory.copy(fragment + FRAGMENT_BYTES, payload, bytes);
  store<u32>(pageUsed + which, used + size);
  store<u32>(pageCount + which, load<u32>(pageCount + which) + 1);
  let slot = load<u32>(pageSlot + which) - 1;
  let at = node(0, slot);
  store<u16>(at, load<u16>(at, TN_LIVE) + 1, TN_LIVE);
  return slot;
}

/** Writes the page under construction of this kind to both copies. False: no segment could be had. */
export function pageFinish(kind: u32): bool {
  let which = (kind - 1) << 2;
  let slot = load<u32>(pageSlot + which);
  if (!slot) return true;
  slot--;
  store<u32>(pageSlot + which, 0);
  let at = node(0, slot);
  store<u16>(at, 0, TN_FLAGS);
  if (load<u16>(at, TN_LIVE) == 0) { // all of it was given up meanwhile
    freeSlots++;
    return true;
  }
  let page = pages + (kind - 1) * BLOCK_BYTES;
  store<u16>(page, <u16>load<u32>(pageCount + which), P_COUNT);
  store<u16>(page, <u16>load<u32>(pageUsed + which), P_USED);
  return pageStore(0, slot, page, kind);
}

/** Header, checksum, both copies, node. */
function pageStore(level: u32, index: u32, page: u32, kind: u32): bool {
  store<u32>(page, PAGE_MAGIC);
  store<u16>(page, FORMAT_MAJOR, 4);
  store<u8>(page, <u8>kind, P_KIND);
  store<u8>(page, <u8>level, P_LEVEL);
  store<u64>(page, checkpointNumber, P_CHECKPOINT);
  let at = node(level, index);
  let other = openBuffer(3);
  if (!pageAppend(2, page, other ? load<u32>(other, B_VOLUME) : 0)) return false;
  store<u16>(at, <u16>pageVolume, N_VOLUME_A);
  store<u32>(at, pageBlock, N_BLOCK_A);
  if (!pageAppend(3, page, load<u32>(openBuffer(2), B_VOLUME))) return false;
  store<u16>(at, <u16>pageVolume, N_VOLUME_B);
  store<u32>(at, pageBlock, N_BLOCK_B);
  store<u8>(at, <u8>kind, N_KIND);
  store<u64>(at, xxh64(page, BLOCK_BYTES, pageSeed), N_CHECKSUM);
  store<u64>(at, checkpointNumber, N_CHECKPOINT);
  store<u16>(at, 0, TN_FLAGS);
  changed(level, index);
  return true;
}

/** Writes an object's image as fragments; answers the reference to it, or 0 when a page could not be written. */
export function imageStore(kind: u32, space: u32, key: u32, uid: u64, applied: u64, payload: u32, bytes: u32): u32 {
  if (bytes <= FRAGMENT_PAYLOAD_MAX) {
    let slot = fragmentAppend(kind, space, key, uid, applied, payload, bytes, 0, 1);
    return slot == 0xffffffff ? 0 : slot + 1;
  }
  if (kind == PAGE_LEAVES) count(C_LEAF_FRAGMENTED);
  let total = (bytes + FRAGMENT_PAYLOAD_MAX - 1) / FRAGMENT_PAYLOAD_MAX;
  let list = allocate(4 + total * 4);
  store<u32>(list, total);
  for (let i: u32 = 0; i < total; i++) {
    let slot = fragmentAppend(kind, space, key, uid, applied, payload + i * FRAGMENT_PAYLOAD_MAX, min(FRAGMENT_PAYLOAD_MAX, bytes - i * FRAGMENT_PAYLOAD_MAX), i, total);
    if (slot == 0xffffffff) {
      store<u32>(list, i);
      imageRelease(listReference(list));
      return 0;
    }
    store<u32>(list + 4 + i * 4, slot);
  }
  return listReference(list);
}

export function listReference(list: u32): u32 { return 0x80000000 | (list >>> 3); }
function listOf(reference: u32): u32 { return (reference & 0x7fffffff) << 3; }

/** Pages that an image lies in, and the slot of each. */
function imageParts(reference: u32): u32 {
  return reference & 0x80000000 ? load<u32>(listOf(reference)) : u32(reference != 0);
}
function imagePart(reference: u32, part: u32): u32 {
  return reference & 0x80000000 ? load<u32>(listOf(reference) + 4 + part * 4) : reference - 1;
}

/** Gives an image up: its pages lose a fragment, pages without any lose their slot. */
export function imageRelease(reference: u32): void {
  for (let part: u32 = 0; part < imageParts(reference); part++) slotRelease(imagePart(reference, part));
  if (reference & 0x80000000) free(listOf(reference));
}

function slotRelease(slot: u32): void {
  let at = node(0, slot);
  let live = load<u16>(at, TN_LIVE) - 1;
  store<u16>(at, live, TN_LIVE);
  if (live || load<u16>(at, TN_FLAGS) & BUILDING) return;
  clear(at, TN_BYTES);
  freeSlots++;
  changed(0, slot);
}

/** Recovery: one more fragment of this page counts. */
export function slotHold(slot: u32): void {
  let at = node(0, slot);
  store<u16>(at, load<u16>(at, TN_LIVE) + 1, TN_LIVE);
}

/** Recovery: pages of which nothing counts lose their slots. */
export function treeSweep(): void {
  for (let slot: u32 = 0; slot < levelCount(0); slot++) {
    let at = node(0, slot);
    if (load<u8>(at, N_KIND) == 0) { freeSlots++; continue; }
    if (load<u16>(at, TN_LIVE)) continue;
    clear(at, TN_BYTES);
    freeSlots++;
    changed(0, slot);
  }
}

export function nodeCheckpoint(level: u32, index: u32): u64 { return load<u64>(node(level, index), N_CHECKPOINT); }
export function nodeLoaded(level: u32, index: u32, from: u32): void {
  let at = node(level, index);
  clear(at, TN_BYTES);
  memory.copy(at, from, NODE_BYTES);
}

/** Writes the index pages over what changed, from the bottom. Runs to the end: index pages are few. False: no room. */
export function indexWrite(scratch: u32, rewriteAll: bool): bool {
  let height = treeHeightNow();
  for (let level: u32 = 1; level <= height; level++) {
    for (let i: u32 = 0; i < levelCount(level); i++) {
      let at = node(level, i);
      if (!rewriteAll && !(load<u16>(at, TN_FLAGS) & CHANGED) && !nodeInVictim(level, i)) continue;
      clear(scratch, BLOCK_BYTES);
      let children = min(INDEX_NODES, levelCount(level - 1) - i * INDEX_NODES);
      for (let child: u32 = 0; child < children; child++) {
        memory.copy(scratch + PAGE_FIXED_BYTES + child * NODE_BYTES, node(level - 1, i * INDEX_NODES + child), NODE_BYTES);
      }
      store<u16>(scratch, <u16>children, P_COUNT);
      if (!pageStore(level, i, scratch, PAGE_INDEX)) return false;
    }
  }
  return true;
}

/** Blocks that index pages may take now, in each copy. */
export function indexPagesMax(): u32 {
  let total: u32 = 0;
  for (let level: u32 = 1; level <= treeHeightNow(); level++) total += levelCount(level);
  return total;
}

/** The segment that holds a copy (0 or 1) of the page. */
function segmentHolding(node: u32, copy: u32): u32 {
  let volume = volumeById(load<u16>(node + (copy << 1), N_VOLUME_A));
  return segmentOf(volume, load<u32>(node + (copy << 2), N_BLOCK_A) / load<u32>(volume, V_SEGMENT_BLOCKS));
}

/** Whether a copy of the page lies in a segment that is being cleaned. */
export function nodeInVictim(level: u32, index: u32): bool {
  let at = node(level, index);
  if (load<u8>(at, N_KIND) == 0) return false;
  return ((load<u8>(segmentHolding(at, 0), SEG_FLAGS) | load<u8>(segmentHolding(at, 1), SEG_FLAGS)) & <u8>SEG_VICTIM) != 0;
}

export function imageInVictim(reference: u32): bool {
  for (let part: u32 = 0; part < imageParts(reference); part++) if (nodeInVictim(0, imagePart(reference, part))) return true;
  return false;
}

/** Whether the image, or a part of it, was written by this checkpoint. */
export function imageOfCheckpoint(reference: u32, checkpoint: u64): bool {
  for (let part: u32 = 0; part < imageParts(reference); part++) if (nodeCheckpoint(0, imagePart(reference, part)) == checkpoint) return true;
  return false;
}

/** Pages under construction are dropped (the checkpoint starts anew); their images must be released by the caller. */
export function treeAbort(): void {
  for (let kind: u32 = 1; kind <= PAGE_LEAVES; kind++) {
    let which = (kind - 1) << 2;
    let slot = load<u32>(pageSlot + which);
    if (!slot) continue;
    store<u32>(pageSlot + which, 0);
    let at = node(0, slot - 1);
    store<u16>(at, 0, TN_FLAGS);
    if (load<u16>(at, TN_LIVE) == 0) freeSlots++;
  }
  for (let level: u32 = 1; level < LEVELS; level++) {
    for (let i: u32 = 0; i < levelCount(level); i++) store<u16>(node(level, i), CHANGED, TN_FLAGS);
  }
}

/** After a root was committed: counts the pages in each segment anew; metadata segments without any are free. */
export function metaRecount(release: bool): void {
  for (segmentsBegin(); segmentsNext(); ) store<u32>(eachSegment, 0, SEG_META_LIVE);
  let height = treeHeightNow();
  for (let level: u32 = 0; level <= height; level++) {
    for (let i: u32 = 0; i < levelCount(level); i++) {
      let at = node(level, i);
      if (load<u8>(at, N_KIND) == 0) continue;
      for (let copy: u32 = 0; copy < 2; copy++) {
        let segment = segmentHolding(at, copy);
        bump(segment, SEG_META_LIVE, 1);
      }
    }
  }
  if (!release) return;
  for (segmentsBegin(); segmentsNext(); ) emptyMetaFree();
}
