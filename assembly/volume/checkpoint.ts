// Checkpoints: images of what changed, written while reads and writes go on.
//
//   1. Close the open records. C0 = the last sequence; note where both streams stand; image the state (it is small and must
//      be of exactly this moment, because replay interprets every later record with it).
//   2. Image the changed leaves, some at a time; each image knows the sequence that it includes (its appliedSequence).
//   3. Image the changed parts of the segment table; finish the pages; write the index pages over them.
//   4. Flush everything, so that the log is durable beyond every appliedSequence.
//   5. Commit a root with the new tree and C0; recount metadata, free what is free.
//
// A flush that failed meanwhile may have taken pages with it: everything that this checkpoint imaged is changed again and
// the checkpoint starts anew. Metadata segments with little left are cleaned by imaging their contents again.

import { allocate, free } from '../std/allocator';
import { count } from '../std/counters';
import { DONE, ERROR_NO_SPACE, FAILED, MEMORY, PLAN, WAIT, fail, lacks } from '../abi/status';
import { T_FLUSH_STATE, T_STATE, planClear } from '../abi/ticket';
import { BLOCK_BYTES, SPACE_NONE, VOLUME_NONE } from '../format/constants';
import { PAGE_LEAVES, PAGE_SEGMENTS, PAGE_STATE } from '../format/page';
import { CUT_BYTES } from '../format/root';
import {
  LEAF_DIRTY, LEAF_FLAGS, LEAF_IMAGE, LEAF_NONE, cursorLeaf, cursorShape, cursorSpace, largestHistoryBytes, leafCursorBegin, leafCursorNext,
  leafCursorNextDirty, leafCursorSet, leafImageSize, leafImageWrite, leafMarkDirty, liveCount, releasedImageTake, spaceUid,
  squeezeStep, squeezeWanted,
} from '../table/index';
import { NODE_BYTES } from '../format/page';
import {
  META, OPEN, SEALED, SEG_FILL, SEG_FIRST, SEG_FLAGS, SEG_META_LIVE, SEG_STATE, SEG_STREAM, SEG_USED, SEG_VICTIM, TABLE_CHUNK, VOLUME_ACTIVE, V_FULL,
  V_ID, V_NEXT, V_SEGMENT_BLOCKS, V_SEGMENT_COUNT, V_STATE, V_TABLE_IMAGES, eachIndex, eachSegment, eachVolume, emptyMetaFree, freeTotal,
  segmentBlocksMost, segmentOf, segmentsBegin, segmentsNext, segmentsOfAll, volumeCount, volumeHead,
} from '../log/volumes';
import {
  bufferBytes, chainOf, nextCount, nextListTrim, nextListsFill, openBuffer, pendingStarts, recordClose, sequence, starts, unflushedBlocks, bufferPlace,
} from '../log/writer';
import { C_CHECKPOINT, C_CHECKPOINT_ABORTED, C_CHECKPOINT_CONCURRENT, C_META_CLEANED, C_SQUEEZED } from '../log/counting';
import { collectFree, flushRun } from './flush';
import {
  checkpointNumber, checkpointNumberSet, cutCount, cutCountSet, cuts, rootCleanSet, rootRun, startSequence, startSequenceSet, topNodes, topSet,
} from './root';
import { checkpointLost, checkpointLostSet, wantCheckpoint, wantRoot } from './mode';
import { checkpointFloor, unflushedLimit } from './admit';
import { forwardsDrop, hasForwards, stateImageBytes, stateImageWrite } from './state';
import {
  TREE_ROOM, imageInVictim, imageOfCheckpoint, imageRelease, imageStore, indexPagesMax, indexWrite, levelCount, metaRecount, node, pageFinish, treeAbort,
  treeHeightNow,
} from './tree';
import { clear } from '../std/bytes';

const LEAVES_A_STEP: u32 = PLANTS ? 3 : 32; // few in test builds, so that others come in between in tiny logs too

export let checkpointOwner: u32 = 0;
/** Keeps checkpoints away while somebody reads the pages. */
export function checkpointHold(owner: u32): void { checkpointOwner = owner; }
export let stateReference: u32 = 0;
export function stateReferenceSet(reference: u32): void { stateReference = reference; }
export let checkpointCount: u32 = 0;
/** Sequence at the newest committed checkpoint, for pacing. */
let pendingSequence: u64 = 0;
let pendingCuts: u32 = 0;
let cursorAtSpace: u32 = 0;
let cursorAtLeaf: u32 = 0;
let imageArea: u32 = 0;
let imageAreaBytes: u32 = 0;
let aborts: u32 = 0;

function area(bytes: u32): u32 {
  if (imageAreaBytes < bytes) {
    free(imageArea);
    imageAreaBytes = bytes + bytes / 4;
    imageArea = allocate(imageAreaBytes);
  }
  return imageArea;
}

function drainReleased(): void {
  for (let reference = releasedImageTake(); reference; reference = releasedImageTake()) imageRelease(reference);
}

/** Where a stream stands: 24 bytes as in the root's stream record. */
function noteStart(stream: u32): void {
  let record = pendingStarts + stream * 24;
  clear(record, 24);
  let buffer = openBuffer(stream);
  if (buffer) bufferPlace(record, buffer);
  else store<u16>(record, <u16>VOLUME_NONE);
  store<u64>(record, chainOf(stream), 16);
}

// The ticket's T_STATE is the checkpoint's; CLOSE runs it with its own states kept elsewhere.
export function checkpointRun(ticket: u32, closing: bool): u32 {
  while (true) {
    let state = load<u32>(ticket, T_STATE);
    // Not in the middle of the flush that lost it: that one ends first.
    if (state != 0 && state < 6 && checkpointLost && load<u32>(ticket, T_FLUSH_STATE) == 0) {
      abort();
      if (++aborts > 4) return end(ticket, fail(ERROR_NO_SPACE));
      store<u32>(ticket, 1, T_STATE);
      continue;
    }
    switch (state) {
    case 0: {
      if (checkpointOwner) return WAIT;
      checkpointOwner = ticket;
      aborts = 0;
      store<u32>(ticket, 1, T_STATE);
      continue;
    }
    case 1: {
      let bytes = stateImageBytes();
      if (lacks(roomNeeded() + bytes * 4)) return MEMORY;
      wantCheckpoint(false);
      checkpointLostSet(false);
      recordClose(0);
      recordClose(1);
      checkpointNumberSet(checkpointNumber + 1);
      pendingSequence = sequence;
      pendingCuts = cutCount;
      noteStart(0);
      noteStart(1);
      drainReleased();
      // What one that was given up wrote to had buffers then.
      if (RAID) for (segmentsBegin(); segmentsNext(); ) emptyMetaFree();
      chooseMetaVictims();
      if (hasForwards()) forwardsDrop(oldestLive());
      bytes = stateImageBytes();
      let image = area(bytes);
      stateImageWrite(image);
      imageRelease(stateReference);
      stateReference = imageStore(PAGE_STATE, 0, 0, 0, sequence, image, bytes);
      if (!stateReference) return noRoom(ticket);
      cursorAtSpace = 0;
      cursorAtLeaf = LEAF_NONE; // before the first
      if (RAID) squeezing = !closing && squeezeWanted();
      store<u32>(ticket, 2, T_STATE);
      continue;
    }
    case 2: {
      if (unflushedBlocks() >= unflushedLimit) {
        store<u32>(ticket, 8, T_STATE);
        continue;
      }
      if (lacks(roomNeeded())) return MEMORY;
      if (RAID && squeezing) {
        squeezing = squeezeStep();
        count(C_SQUEEZED);
        planClear(ticket);
        return PLAN; // as below
      }
      drainReleased();
      leafCursorSet(cursorAtSpace, cursorAtLeaf);
      let done: u32 = 0;
      let leaf: u32 = 1;
      // Fewer when there are long histories: each image fills pages, twice.
      let most = max(LEAVES_A_STEP * 16384 / (16384 + 4 * largestHistoryBytes()), <u32>1);
      while (done < most && (leaf = leafCursorNextDirty()) != 0) {
        if (!imageLeaf(leaf)) return noRoom(ticket);
        done++;
      }
      if (leaf) {
        nextKey();
        count(C_CHECKPOINT_CONCURRENT);
        planClear(ticket);
        return PLAN; // nothing to perform: let others come in between
      }
      store<u32>(ticket, 3, T_STATE);
      continue;
    }
    case 3: {
      // All changed pages of the tree's index and of the segment table, two copies of each.
      if (lacks(roomNeeded() + (indexPagesMax() + segmentsOfAll() / TABLE_CHUNK + volumeCount) * 3 * BLOCK_BYTES)) return MEMORY;
      drainReleased();
      for (let volume = volumeHead; volume; volume = load<u32>(volume, V_NEXT)) if (!imageSegments(volume)) return noRoom(ticket);
      if (!pageFinish(PAGE_STATE) || !pageFinish(PAGE_SEGMENTS) || !pageFinish(PAGE_LEAVES)) return noRoom(ticket);
      if (!indexWrite(area(BLOCK_BYTES), false)) return noRoom(ticket);
      noteTop();
      store<u32>(ticket, 4, T_STATE);
      continue;
    }
    case 4: {
      let status = flushRun(ticket, true);
      if (status == FAILED) return end(ticket, abortAfter(status));
      if (status != DONE) return status;
      if (checkpointLost) continue;
      store<u32>(ticket, 5, T_STATE);
      continue;
    }
    case 5: {
      memory.copy(starts, pendingStarts, 48);
      startSequenceSet(pendingSequence);
      memory.copy(topNodes, pendingTop, 768);
      topSet(pendingTopCount, pendingHeight, pendingNodes);
      cutCountSet(cutCount - pendingCuts);
      memory.copy(cuts, cuts + pendingCuts * CUT_BYTES, cutCount * CUT_BYTES);
      listsRenew();
      rootCleanSet(closing && sequence == pendingSequence);
      store<u32>(ticket, 6, T_STATE);
      continue;
    }
    case 6: {
      let status = rootRun(ticket);
      if (status == FAILED) return end(ticket, status);
      if (status != DONE) return status;
      count(C_CHECKPOINT);
      checkpointCount++;
      for (let volume = volumeHead; volume; volume = load<u32>(volume, V_NEXT)) store<u32>(volume, 0, V_FULL);
      metaRecount(true);
      collectFree();
      return end(ticket, DONE);
    }
    default: {
      // 8: a flush in between, so that unflushed pages stay bounded
      let status = flushRun(ticket, true);
      if (status == FAILED) return end(ticket, abortAfter(status));
      if (status != DONE) return status;
      store<u32>(ticket, 2, T_STATE);
      continue;
    }
    }
  }
}

// The top of the tree as the index pages of this checkpoint know it. Later changes of the tree belong to the next.
const pendingTop: usize = memory.data(768, 8);
let pendingTopCount: u32 = 0;
let pendingHeight: u32 = 0;
let pendingNodes: u32 = 0;
function noteTop(): void {
  pendingHeight = treeHeightNow();
  pendingTopCount = levelCount(pendingHeight);
  pendingNodes = levelCount(0);
  clear(pendingTop, 768);
  for (let i: u32 = 0; i < pendingTopCount; i++) memory.copy(pendingTop + i * NODE_BYTES, node(pendingHeight, i), NODE_BYTES);
}

/** The holes of the table's memory are being taken out: now, because a checkpoint looks at every leaf that changed anyway. */
let squeezing: bool = false;

function nextKey(): void {
  cursorAtSpace = cursorSpace;
  cursorAtLeaf = cursorLeaf;
}

function roomNeeded(): u32 {
  return TREE_ROOM + LEAVES_A_STEP * 16384 + 6 * largestHistoryBytes() + 4 * bufferBytes(segmentBlocksMost);
}

function end(ticket: u32, status: u32): u32 {
  clear(pendingStarts, 48); // volume 0, not "none": nothing to be noted
  checkpointOwner = 0;
  store<u32>(ticket, 0, T_STATE);
  return status;
}

function noRoom(ticket: u32): u32 {
  abort();
  return end(ticket, fail(ERROR_NO_SPACE));
}

function abortAfter(status: u32): u32 {
  abort();
  return status;
}

/** Everything that this checkpoint imaged is changed again. */
function abort(): void {
  count(C_CHECKPOINT_ABORTED);
  checkpointLostSet(false);
  drainReleased();
  let lost = checkpointNumber;
  leafCursorBegin();
  for (let leaf = leafCursorNext(); leaf; leaf = leafCursorNext()) {
    if (imageOfCheckpoint(load<u32>(leaf, LEAF_IMAGE), lost)) leafMarkDirty(cursorSpace, cursorLeaf);
  }
  for (let volume = volumeHead; volume; volume = load<u32>(volume, V_NEXT)) {
    let images = load<u32>(volume, V_TABLE_IMAGES);
    for (let chunk: u32 = 0; chunk * TABLE_CHUNK < load<u32>(volume, V_SEGMENT_COUNT); chunk++) {
      if (imageOfCheckpoint(load<u32>(images + chunk * 8), lost)) store<u32>(images + chunk * 8, 1, 4);
    }
  }
  treeAbort();
  // Segments that only this checkpoint wrote to: the root on disk names nothing in them (SEG_META_LIVE is as of its commit).
  for (segmentsBegin(); segmentsNext(); ) emptyMetaFree();
}

function imageLeaf(leaf: u32): bool {
  let space = cursorSpace;
  let bytes = leafImageSize(leaf, cursorShape);
  let image = area(bytes + 64);
  bytes = leafImageWrite(space, cursorLeaf, image);
  imageRelease(load<u32>(leaf, LEAF_IMAGE));
  let reference = imageStore(PAGE_LEAVES, space, cursorLeaf, spaceUid(space), sequence, image, bytes);
  store<u32>(leaf, reference, LEAF_IMAGE);
  if (!reference) return false;
  store<u32>(leaf, load<u32>(leaf, LEAF_FLAGS) & ~LEAF_DIRTY, LEAF_FLAGS);
  return true;
}

// Segment table entry, 24 bytes: u64 fillSequence · u64 firstSequence · u16 used · u8 stream · u8 flags (1 has a footer) ·
// u8 state (0 free, 3 holds data, 4 metadata) · zeros
const SEGMENT_ENTRY: u32 = 24;
function imageSegments(volume: u32): bool {
  let total = load<u32>(volume, V_SEGMENT_COUNT);
  let images = load<u32>(volume, V_TABLE_IMAGES);
  for (let chunk: u32 = 0; chunk * TABLE_CHUNK < total; chunk++) {
    let item = images + chunk * 8;
    if (!load<u32>(item, 4) && !imageInVictim(load<u32>(item))) continue;
    let entries = min(TABLE_CHUNK, total - chunk * TABLE_CHUNK);
    let image = area(entries * SEGMENT_ENTRY);
    clear(image, entries * SEGMENT_ENTRY);
    for (let i: u32 = 0; i < entries; i++) {
      let segment = segmentOf(volume, chunk * TABLE_CHUNK + i);
      let entry = image + i * SEGMENT_ENTRY;
      let state = <u32>load<u8>(segment, SEG_STATE);
      store<u64>(entry, load<u64>(segment, SEG_FILL));
      if (state == OPEN || state == SEALED) {
        store<u64>(entry, load<u64>(segment, SEG_FIRST), 8);
        store<u16>(entry, load<u16>(segment, SEG_USED), 16);
        store<u8>(entry, load<u8>(segment, SEG_STREAM), 18);
        store<u8>(entry, load<u8>(segment, SEG_FLAGS) & 1, 19);
        store<u8>(entry, <u8>SEALED, 20);
      } else if (state == META) store<u8>(entry, <u8>META, 20);
    }
    imageRelease(load<u32>(item));
    let reference = imageStore(PAGE_SEGMENTS, SPACE_NONE, (load<u32>(volume, V_ID) << 16) | chunk, 0, sequence, image, entries * SEGMENT_ENTRY);
    store<u32>(item, reference);
    store<u32>(item, 0, 4);
    if (!reference) return false;
  }
  return true;
}

/** A volume goes: its part of the segment table is given up. */
export function tableImagesRelease(volume: u32): void {
  let images = load<u32>(volume, V_TABLE_IMAGES);
  for (let chunk: u32 = 0; chunk * TABLE_CHUNK < load<u32>(volume, V_SEGMENT_COUNT); chunk++) {
    imageRelease(load<u32>(images + chunk * 8));
    store<u32>(images + chunk * 8, 0);
  }
}

/** A segment table entry read back. False: not plausible. */
export function segmentEntryRead(volume: u32, index: u32, entry: u32): bool {
  let state = load<u8>(entry, 20);
  let segment = segmentOf(volume, index);
  store<u64>(segment, load<u64>(entry), SEG_FILL);
  if (state == <u8>SEALED) {
    if (load<u16>(entry, 16) > <u16>load<u32>(volume, V_SEGMENT_BLOCKS) || load<u8>(entry, 18) > 1 || load<u8>(entry, 19) > 1) return false;
    store<u8>(segment, <u8>SEALED, SEG_STATE);
    store<u64>(segment, load<u64>(entry, 8), SEG_FIRST);
    store<u16>(segment, load<u16>(entry, 16), SEG_USED);
    store<u8>(segment, load<u8>(entry, 18), SEG_STREAM);
    store<u8>(segment, load<u8>(entry, 19), SEG_FLAGS);
    return true;
  }
  return state == 0 || state == <u8>META;
}

/** The least first sequence of all segments with live blocks. */
function oldestLive(): u64 {
  let oldest: u64 = sequence + 1;
  for (segmentsBegin(); segmentsNext(); ) {
    let state = load<u8>(eachSegment, SEG_STATE);
    let first = load<u64>(eachSegment, SEG_FIRST);
    if (state == <u8>OPEN || (state == <u8>SEALED && (liveCount(load<u32>(eachVolume, V_ID), eachIndex) || first > startSequence))) oldest = min(oldest, first);
  }
  return oldest;
}

/** Marks metadata segments for cleaning: those on volumes that are given back, and the emptier ones when most of it is garbage. */
function chooseMetaVictims(): void {
  let held: u32 = 0;
  let pages: f64 = 0;
  let slots: f64 = 0;
  for (segmentsBegin(); segmentsNext(); ) {
    if (load<u8>(eachSegment, SEG_STATE) != <u8>META) continue;
    held++;
    pages += <f64>load<u32>(eachSegment, SEG_META_LIVE);
    slots += <f64>load<u32>(eachVolume, V_SEGMENT_BLOCKS);
  }
  let crowded = held > 4 && pages * 2 < slots;
  let any = false;
  for (segmentsBegin(); segmentsNext(); ) {
    if (load<u8>(eachSegment, SEG_STATE) != <u8>META) continue;
    let sparse = crowded && load<u32>(eachSegment, SEG_META_LIVE) * 2 < load<u32>(eachVolume, V_SEGMENT_BLOCKS);
    let flags = load<u8>(eachSegment, SEG_FLAGS) & ~(<u8>SEG_VICTIM);
    if (sparse || load<u32>(eachVolume, V_STATE) != VOLUME_ACTIVE) {
      flags |= <u8>SEG_VICTIM;
      any = true;
    }
    store<u8>(eachSegment, flags, SEG_FLAGS);
  }
  if (!any) return;
  count(C_META_CLEANED);
  leafCursorBegin();
  for (let leaf = leafCursorNext(); leaf; leaf = leafCursorNext()) {
    if (imageInVictim(load<u32>(leaf, LEAF_IMAGE))) leafMarkDirty(cursorSpace, cursorLeaf);
  }
}

/**
 * Lists of next segments for the coming root: up to 64, at most a quarter of the free ones (of survivors a sixteenth), at least two. A quarter, because a writer
 * whose list runs out waits for a root, and a root for the device to write everything back.
 */
export function listsRenew(): void {
  wantRoot(false);
  let wanted = max((freeTotal + nextCount(0) + nextCount(1)) / 4, 2);
  let few = max(wanted / 4, 2);
  nextListTrim(0, wanted); // what was promised when there was more goes back
  nextListTrim(1, few);
  if (RAID) nextListsFill(2, 2, checkpointFloor()); // neither stream may take what the other needs
  nextListsFill(wanted, few, checkpointFloor());
}
