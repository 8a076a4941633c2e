// Making an empty log, and opening one.
//
//   1. For writing: flush every member before anything else, because what is read may be only in a page cache.
//   2. Read all root copies; take the newest sound one; heal its slot where a copy is not it.
//   3. Load the page tree: index pages from the top, then the state, the segment table, the leaves. Each page is verified
//      against the checksum in its node and read from its second copy when the first fails.
//   4. Walk both streams from where the checkpoint started: which segments, up to which slot, and the highest
//      durableSequence that any header or footer names.
//   5. Replay: merge the streams by sequence up to the first gap. Records beyond the known durable sequence count only if
//      their data blocks verify. A break at or below it is damage, never the end of the log.
//   6. Recount what is live. For writing: load the open segments, commit a root with the next incarnation.
//
// A segment whose footer is sound is replayed from it (only headers with trims or operations are read as well). One
// that has none is read whole. The segment that was open when the root was committed may hold a footer of a life whose
// tail was dropped: it counts only if its incarnation is the root's.

import { allocate, free, allocateZeroed, allocateBlocks } from '../std/allocator';
import { bump, bytesEqual } from '../std/bytes';
import { count } from '../std/counters';
import { xxh64 } from '../std/checksum';
import { PLANT_NO_FLUSH_AT_OPEN, planted } from '../std/plant';
import { DONE, FAILED, ERROR_CORRUPT, ERROR_IO, ERROR_NOT_FOUND, ERROR_UNSUPPORTED, PLAN, failAt, fail, MEMORY, lacks, lacksTimes } from '../abi/status';
import { READ, T_A, T_PLAN_COUNT, T_RESULT, T_SPACE, T_STATE, WRITE, planAdd, planClear, planResult } from '../abi/ticket';
import {
  BLOCK_BYTES, VOLUME_NONE,
} from '../format/constants';
import { identitySet, pageSeed } from '../format/key';


import {
  CUT_BYTES, LIST_BYTES, LIST_STRIDE, O_CHECKPOINT, O_CUTS, O_CUT_COUNT, O_DURABLE, O_GENERATION, O_HEIGHT, O_INCARNATION, O_INCARNATION_START, O_KEY,
  O_LEAF_BLOCKS, O_LISTS, O_META, O_NEXT_FILL, O_NODE_COUNT, O_REPLAY, O_STREAMS, O_TOP, O_TOP_COUNT, O_UUID, ROOT_BAD, ROOT_UNKNOWN, ROOT_VALID,
  STREAM_BYTES, S_LIST_COUNT, S_OPEN_SEGMENT, S_OPEN_SLOT, S_OPEN_VOLUME, S_START_SEGMENT, S_START_SLOT, S_START_VOLUME, rootVerify,
} from '../format/root';
import {
  FRAGMENT_BYTES, G_APPLIED, G_BYTES, G_CHECKPOINT, G_COUNT, G_INDEX, G_KEY, G_SPACE, G_UID, INDEX_NODES, NODE_BYTES, N_BLOCK_A, N_BLOCK_B,
  N_CHECKSUM, N_KIND, N_VOLUME_A, N_VOLUME_B, PAGE_FIXED_BYTES, PAGE_INDEX, PAGE_LEAVES, PAGE_SEGMENTS, PAGE_STATE, P_CHECKPOINT, P_COUNT,
  pagePlausible,
} from '../format/page';
import {
  LEAF_IMAGE, leafBlocks, gateBegin, gateSet, leafFind, leafImageRead, leafImageRoom, spacePointer, spaceUid, tableInitialize,
} from '../table/index';
import {
  FREE, SEG_STATE, TABLE_CHUNK, CHECK_PAGE, V_SEGMENT_BLOCKS, V_SEGMENT_COUNT, V_TABLE_IMAGES, handleOf, membersOf, planChecked, planMemberFlushes,
  freeTotal, readableOf, segmentOf, volumeAt, volumeById, volumeCount, V_NEXT, volumeHead,
} from '../log/volumes';
import { B_FILL, bufferFillSequence, durableSet, incarnation, incarnationSet, nextFillSet, openBuffer, sequence, starts } from '../log/writer';
import { C_IMAGE_AHEAD, C_PAGE_COPY_USED, C_ROOT_HEALED } from '../log/counting';

import { checkpointFloor } from './admit';
import { checkpointRun, listsRenew, segmentEntryRead, stateReferenceSet } from './checkpoint';
import { collectFree } from './flush';
import { failedReadOnly, MODE_READ, MODE_WRITE, modeSet, replaySet } from './mode';
import { continueRun, replayBegin, replayFinish, replayRun, walkBegin, walkRun } from './replay';
import {
  checkpointNumberSet, cutCount, cutCountSet, cuts, generationSet, incarnationStartSet, lifeBegin, openedRoot, planRootReads, rootCleanSet, rootHome, rootOffset,
  rootRun, startSequenceSet, topNodes, topSet,
} from './root';
import { CUT_MAX } from '../format/root';
import { C_CHECKPOINT_AT_OPEN } from '../log/counting';
import { tailRun } from './mend';
import { stateImageLacks, stateImageRead, stateInitialize } from './state';

import {
  TREE_ROOM, levelCount, listReference, metaRecount, node, nodeCheckpoint, nodeLoaded, slotHold, treeHeightNow, treeInitialize, treeRoom, treeSize,
  treeSweep,
} from './tree';

let area: u32 = 0;
let planCopies: u32 = 0;

// ---- an empty log ------------------------------------------------------------------------------------------------

/** CREATE: `identity` is uuid and key in the exchange buffer. */
export function createStep(ticket: u32, identity: usize, blocks: u32): u32 {
  let state = load<u32>(ticket, T_STATE);
  if (state == 0) {
    if (lacks(2 * TREE_ROOM)) return MEMORY;
    begin(blocks);
    identitySet(identity, identity + 16);
    generationSet(1);
    incarnationSet(1);
    store<u16>(starts, <u16>VOLUME_NONE);
    store<u16>(starts + 24, <u16>VOLUME_NONE);
    store<u32>(ticket, 1, T_STATE);
  }
  if (load<u32>(ticket, T_STATE) <= 2) {
    // Both slots, so that none holds what another log left there.
    listsRenew();
    let status = rootRun(ticket);
    if (status != DONE) return status;
    bump(ticket, T_STATE, 1);
    if (load<u32>(ticket, T_STATE) == 2) return rootRun(ticket);
  }
  modeSet(MODE_WRITE);
  return DONE;
}

function begin(blocks: u32): void {
  tableInitialize(blocks);
  treeInitialize();
  stateInitialize();
}

// ---- opening -----------------------------------------------------------------------------------------------------

const identityWanted: usize = memory.data(16);
let forWriting: bool = false;

export function openStep(ticket: u32, identity: usize): u32 {
  if (RAID && load<u32>(ticket, T_A) == 2) {
    let status = checkpointRun(ticket, false);
    if (status != DONE && (status != FAILED || failedReadOnly)) return status; // without room for it things stay as they are
    store<u32>(ticket, 9, T_STATE);
    store<u32>(ticket, 3, T_A);
  }
  while (true) {
    let state = load<u32>(ticket, T_STATE);
    switch (state) {
    case 0: {
      if (RAID && lacks(volumeCount * 4096)) return MEMORY; // plans for all members
      memory.copy(identityWanted, identity, 16);
      forWriting = load<u32>(ticket, T_SPACE) == 0;
      planClear(ticket);
      store<u32>(ticket, 1, T_STATE);
      if (forWriting && !(PLANTS && planted == PLANT_NO_FLUSH_AT_OPEN)) {
        for (let volume = volumeHead; volume; volume = load<u32>(volume, V_NEXT)) planMemberFlushes(ticket, volume, 0xffffffff);
        return PLAN;
      }
      continue;
    }
    case 1: {
      if (load<u32>(ticket, T_RESULT)) return fail(ERROR_IO);
      let copies: u32 = RAID ? 0 : volumeCount * 4;
      if (RAID) for (let volume = volumeHead; volume; volume = load<u32>(volume, V_NEXT)) copies += <u32>popcnt(readableOf(volume)) * 4;
      if (lacks(copies * (BLOCK_BYTES + 128))) return MEMORY;
      planClear(ticket);
      area = allocateBlocks(copies);
      for (let i: u32 = 0; i < volumeCount; i++) planRootReads(ticket, volumeAt(i), area);
      planCopies = copies;
      store<u32>(ticket, 2, T_STATE);
      return PLAN;
    }
    case 2: {
      let bad = rootChoose(ticket);
      if (bad) return fail(bad);
      store<u32>(ticket, 4, T_STATE);
      if (forWriting && planHeal(ticket)) {
        count(C_ROOT_HEALED);
        store<u32>(ticket, 3, T_STATE);
        return PLAN;
      }
      free(area);
      continue;
    }
    case 3: {
      if (load<u32>(ticket, T_RESULT)) return fail(ERROR_IO);
      free(area);
      planClear(ticket);
      for (let home: u32 = 0; home < 2; home++) {
        let volume = rootHome(home);
        if (volume) planMemberFlushes(ticket, volume, 0xffffffff);
      }
      store<u32>(ticket, 4, T_STATE);
      return PLAN;
    }
    case 4: {
      if (!treeBounded()) return failAt(ERROR_CORRUPT, 0xffffffff, 0);
      if (lacks(treeRoom(load<u32>(openedRoot, O_NODE_COUNT)) + TREE_ROOM)) return MEMORY;
      planClear(ticket);
      rootTake();
      if (!rootInside(openedRoot) || !treeBegin()) return failAt(ERROR_CORRUPT, 0xffffffff, 0);
      store<u32>(ticket, 5, T_STATE);
      continue;
    }
    case 5: {
      let status = treeLoad(ticket);
      if (status != DONE) return status;
      if (!loadedState()) return failAt(ERROR_CORRUPT, 0xffffffff, 1);
      store<u32>(ticket, 6, T_STATE);
      walkBegin();
      continue;
    }
    case 6: {
      let status = walkRun(ticket);
      if (status != DONE) return status;
      replayBegin();
      store<u32>(ticket, 7, T_STATE);
      continue;
    }
    case 7: {
      let status = replayRun(ticket);
      if (status != DONE) return status;
      replayFinish();
      if (!forWriting) {
        modeSet(MODE_READ);
        return DONE;
      }
      store<u32>(ticket, 8, T_STATE);
      continue;
    }
    case 8: {
      let status: u32 = !RAID || load<u32>(ticket, T_A) ? DONE : tailRun(ticket);
      if (status != DONE) return status;
      if (RAID) store<u32>(ticket, 1, T_A);
      status = continueRun(ticket);
      if (status != DONE) return status;
      incarnationSet(incarnation + 1);
      if (RAID) for (let stream: u32 = 0; stream < 2; stream++) {
        let buffer = openBuffer(stream);
        lifeBegin(stream, buffer ? bufferFillSequence(buffer) : 0, buffer ? load<u32>(buffer, B_FILL) : 0);
      }
      incarnationStartSet(sequence);
      rootCleanSet(false);
      listsRenew();
      store<u32>(ticket, 9, T_STATE);
      continue;
    }
    default: {
      // From here on T_A says what is going on, because a checkpoint has its own use for T_STATE. One is due when many segments were left
      // half filled by crashes: a root has room for so many cuts, and what was left comes free by a checkpoint only.
      if (!RAID || load<u32>(ticket, T_A) == 1) {
        let status = rootRun(ticket);
        if (status != DONE) return status;
        if (RAID && (cutCount > CUT_MAX / 2 || (cutCount && freeTotal <= checkpointFloor() + 4))) {
          count(C_CHECKPOINT_AT_OPEN);
          store<u32>(ticket, 2, T_A);
          store<u32>(ticket, 0, T_STATE);
          return openStep(ticket, identity);
        }
      }
      modeSet(MODE_WRITE);
      collectFree();
      return DONE;
    }
    }
  }
}

/** The newest sound root of this log into openedRoot; 0 or an error code. A slot of which no copy is sound is damage. */
function rootChoose(ticket: u32): u32 {
  let found = false;
  let unknown = false;
  let newest: u64 = 0;
  let readErrors = false;
  for (let slot: u32 = 0; slot < 2; slot++) {
    let bad = false;
    let sound = false;
    for (let i: u32 = 0; i < planCopies; i++) {
      if ((i & 1) != slot) continue;
      let root = area + i * BLOCK_BYTES;
      if (planResult(ticket, i)) {
        bad = true;
        readErrors = true;
        continue;
      }
      let kind = rootVerify(root, identityWanted);
      if (kind == ROOT_BAD) bad = true;
      if (kind == ROOT_UNKNOWN) unknown = true;
      if (kind != ROOT_VALID) continue;
      sound = true;
      if (load<u64>(root, O_GENERATION) > newest) {
        newest = load<u64>(root, O_GENERATION);
        memory.copy(openedRoot, root, BLOCK_BYTES);
        found = true;
      }
    }
    if (bad && !sound) return readErrors ? ERROR_IO : ERROR_CORRUPT;
  }
  if (found) return 0;
  return unknown ? ERROR_UNSUPPORTED : ERROR_NOT_FOUND;
}

/** Writes the newest root where a copy of its slot is not it. */
function planHeal(ticket: u32): bool {
  let slot = <u32>load<u64>(openedRoot, O_GENERATION) & 1;
  let healing = allocateBlocks(1); // it stays for the writes, if there are any
  memory.copy(healing, openedRoot, BLOCK_BYTES);
  planClear(ticket);
  let first = area;
  for (let volume = volumeHead; volume; volume = load<u32>(volume, V_NEXT)) {
    let home = volume == rootHome(0) || volume == rootHome(1);
    for (let member: u32 = 0; !RAID || member < membersOf(volume); member++) {
      if (RAID && !(readableOf(volume) & (1 << member))) continue;
      for (let back: u32 = 0; back < 2 && home; back++) {
        if (bytesEqual(first + (back * 2 + slot) * BLOCK_BYTES, healing, BLOCK_BYTES)) continue;
        planAdd(ticket, WRITE, handleOf(volume) + member, rootOffset(volume, back * 2 + slot), healing, BLOCK_BYTES);
      }
      first += 4 * BLOCK_BYTES;
      if (!RAID) break;
    }
  }
  if (load<u32>(ticket, T_PLAN_COUNT)) return true;
  free(healing);
  return false;
}


function rootTake(): void {
  identitySet(openedRoot + O_UUID, openedRoot + O_KEY);
  begin(load<u32>(openedRoot, O_LEAF_BLOCKS));
  generationSet(load<u64>(openedRoot, O_GENERATION));
  incarnationSet(load<u64>(openedRoot, O_INCARNATION));
  incarnationStartSet(load<u64>(openedRoot, O_INCARNATION_START));
  startSequenceSet(load<u64>(openedRoot, O_REPLAY));
  replaySet(load<u64>(openedRoot, O_REPLAY));
  durableSet(load<u64>(openedRoot, O_DURABLE));
  nextFillSet(load<u64>(openedRoot, O_NEXT_FILL));
  checkpointNumberSet(load<u64>(openedRoot, O_CHECKPOINT));
  cutCountSet(load<u16>(openedRoot, O_CUT_COUNT));
  memory.copy(cuts, openedRoot + O_CUTS, <u32>load<u16>(openedRoot, O_CUT_COUNT) * CUT_BYTES);
  topSet(load<u16>(openedRoot, O_TOP_COUNT), load<u16>(openedRoot, O_HEIGHT), load<u32>(openedRoot, O_NODE_COUNT));
  memory.copy(topNodes, openedRoot + O_TOP, <u32>load<u16>(openedRoot, O_TOP_COUNT) * NODE_BYTES);
  for (let stream: u32 = 0; stream < 2; stream++) memory.copy(starts + stream * 24, openedRoot + O_STREAMS + stream * STREAM_BYTES, 24);
}

// ---- the page tree -----------------------------------------------------------------------------------------------

const BATCH: u32 = 64;
const batch: usize = memory.data(256); // index in the level of each page of the batch
let batchCount: u32 = 0;
let batchArea: u32 = 0;
let batchAt: u32 = 0; // the page of the batch that is being taken
let loadLevel: u32 = 0;
let loadKind: u32 = 0;
let loadAt: u32 = 0;
let loadRound: u32 = 0; // 0 nothing read, 1 first copies read, 2 second copies read
let stateBytes: u32 = 0;
let stateBuffer: u32 = 0;
let stateList: u32 = 0;
// Images of several fragments, being put together: lists, by key. In one list they made opening quadratic (80 s for 100 GiB of random mappings, 2026-11).
const PENDING_LISTS: u32 = 4096;
const pendingImages: usize = memory.data(16384);

/** Whether both addresses of a node lie on volumes that are there, and its kind belongs to its level. */
function nodeInside(at: u32, level: u32): bool {
  let kind = <u32>load<u8>(at, N_KIND);
  if (kind == 0) return true;
  if ((kind == PAGE_INDEX) != (level > 0)) return false;
  return placeInside(load<u16>(at, N_VOLUME_A), load<u32>(at, N_BLOCK_A)) && placeInside(load<u16>(at, N_VOLUME_B), load<u32>(at, N_BLOCK_B));
}

function placeInside(volumeId: u32, block: u32): bool {
  let volume = volumeById(volumeId);
  return volume != 0 && block / load<u32>(volume, V_SEGMENT_BLOCKS) < load<u32>(volume, V_SEGMENT_COUNT);
}

function segmentInside(volumeId: u32, segment: u32, slot: u32): bool {
  if (volumeId == VOLUME_NONE) return true;
  let volume = volumeById(volumeId);
  return volume != 0 && segment < load<u32>(volume, V_SEGMENT_COUNT) && slot <= load<u32>(volume, V_SEGMENT_BLOCKS);
}

/** Every place that a root names lies on a volume that is there, and no segment belongs to both streams. */
function rootInside(root: usize): bool {
  for (let stream: u32 = 0; stream < 2; stream++) {
    let record = root + O_STREAMS + stream * STREAM_BYTES;
    if (!segmentInside(load<u16>(record, S_START_VOLUME), load<u32>(record, S_START_SEGMENT), load<u16>(record, S_START_SLOT))) return false;
    if (!segmentInside(load<u16>(record, S_OPEN_VOLUME), load<u32>(record, S_OPEN_SEGMENT), load<u16>(record, S_OPEN_SLOT))) return false;
    for (let i: u32 = 0; i < <u32>load<u16>(record, S_LIST_COUNT); i++) {
      let entry = root + O_LISTS + stream * LIST_STRIDE + i * LIST_BYTES;
      if (load<u16>(entry) == <u16>VOLUME_NONE || !segmentInside(load<u16>(entry), load<u32>(entry, 4), 0)) return false;
    }
    if (!segmentInside(load<u16>(root + O_META + stream * 16), load<u32>(root + O_META + stream * 16, 4), load<u16>(root + O_META + stream * 16, 2))) return false;
  }
  for (let i: u32 = 0; i < <u32>load<u16>(root, O_CUT_COUNT); i++) {
    let cut = root + O_CUTS + i * CUT_BYTES;
    if (!segmentInside(load<u16>(cut), load<u32>(cut, 4), load<u16>(cut, 2)) || !segmentInside(load<u16>(cut, 16), load<u32>(cut, 20), 0)) return false;
  }
  for (let i: u32 = 0; i < rootNames(root, 0); i++) {
    rootNames(root, 0, i);
    let volume = namedVolume;
    let segment = namedSegment;
    if (volume == VOLUME_NONE) continue;
    for (let k: u32 = 0; k < rootNames(root, 1); k++) {
      rootNames(root, 1, k);
      if (namedVolume == volume && namedSegment == segment) return false;
    }
  }
  return true;
}

let namedVolume: u32 = 0;
let namedSegment: u32 = 0;
/** How many segments a root names for a stream (start, open, list); with `at`, that one. */
function rootNames(root: usize, stream: u32, at: u32 = 0): u32 {
  let record = root + O_STREAMS + stream * STREAM_BYTES;
  let entry = root + O_LISTS + stream * LIST_STRIDE + (at - 2) * LIST_BYTES;
  namedVolume = at == 0 ? load<u16>(record, S_START_VOLUME) : at == 1 ? load<u16>(record, S_OPEN_VOLUME) : load<u16>(entry);
  namedSegment = at == 0 ? load<u32>(record, S_START_SEGMENT) : at == 1 ? load<u32>(record, S_OPEN_SEGMENT) : load<u32>(entry, 4);
  return 2 + <u32>load<u16>(record, S_LIST_COUNT);
}

/** Whether the root has no more slots for pages than fit into memory. They may be more than the log has blocks: it was larger once. */
function treeBounded(): bool {
  return load<u32>(openedRoot, O_NODE_COUNT) <= 16777216;
}

function treeBegin(): bool {
  let height = <u32>load<u16>(openedRoot, O_HEIGHT);
  let top = <u32>load<u16>(openedRoot, O_TOP_COUNT);
  treeSize(load<u32>(openedRoot, O_NODE_COUNT));
  if (treeHeightNow() != height || levelCount(height) != top) return false;
  for (let i: u32 = 0; i < top; i++) if (!nodeInside(<u32>(openedRoot + O_TOP) + i * NODE_BYTES, height)) return false;
  for (let i: u32 = 0; i < top; i++) nodeLoaded(height, i, <u32>(openedRoot + O_TOP) + i * NODE_BYTES);
  loadLevel = height;
  loadKind = PAGE_STATE;
  loadAt = 0;
  loadRound = 0;
  gateBegin(1024);
  return true;
}

/** Whether the node at this place of the current level is to be read in this pass. */
function wanted(index: u32): bool {
  let kind = <u32>load<u8>(node(loadLevel, index), N_KIND);
  return loadLevel ? kind == PAGE_INDEX : kind == loadKind;
}

function planPage(ticket: u32, index: u32, into: u32, second: bool): bool {
  let at = node(loadLevel, index);
  let volume = volumeById(load<u16>(at + <u32>(second ? N_VOLUME_B : N_VOLUME_A)));
  let block = load<u32>(at + <u32>(second ? N_BLOCK_B : N_BLOCK_A));
  if (!volume || block / load<u32>(volume, V_SEGMENT_BLOCKS) >= load<u32>(volume, V_SEGMENT_COUNT)) return false;
  planChecked(ticket, READ, volume, block, into, 1, CHECK_PAGE, at + <u32>N_CHECKSUM);
  return true;
}

// Page slots by descending checkpoint: of several images of one object the first that is met counts. Of one checkpoint by slot: the pages of an image
// follow each other then, and few images wait for the rest of their fragments (in any order of them, opening was quadratic: 80 s for 100 GiB of random
// mappings, 2026-11).
let order: u32 = 0;
function orderMake(): void {
  let total = levelCount(0);
  order = allocate(total * 4 + 8);
  let sorted = true;
  for (let i: u32 = 0; i < total; i++) {
    store<u32>(order + (i << 2), i);
    if (RAID && sorted && i && later(i - 1, i)) sorted = false;
  }
  if (RAID && sorted) return; // one checkpoint wrote all of them, or nearly
  // Heapsort with the last one on top, so that the array ends up descending.
  for (let i = <i32>(total / 2) - 1; i >= 0; i--) sift(<u32>i, total);
  for (let last = <i32>total - 1; last > 0; last--) {
    let top = load<u32>(order);
    store<u32>(order, load<u32>(order + (last << 2)));
    store<u32>(order + (last << 2), top);
    sift(0, <u32>last);
  }
}

function later(at: u32, than: u32): bool {
  let slot = load<u32>(order + (at << 2));
  let other = load<u32>(order + (than << 2));
  let checkpoint = nodeCheckpoint(0, slot);
  let otherCheckpoint = nodeCheckpoint(0, other);
  return checkpoint == otherCheckpoint ? slot > other : checkpoint < otherCheckpoint;
}

function sift(from: u32, size: u32): void {
  let at = from;
  while (true) {
    let child = at * 2 + 1;
    if (child >= size) return;
    if (child + 1 < size && later(child + 1, child)) child++;
    if (!later(child, at)) return;
    let kept = load<u32>(order + (at << 2));
    store<u32>(order + (at << 2), load<u32>(order + (child << 2)));
    store<u32>(order + (child << 2), kept);
    at = child;
  }
}

function treeLoad(ticket: u32): u32 {
  while (true) {
    if (loadRound == 0) {
      let pages = min(BATCH, levelCount(loadLevel));
      if (lacksTimes(imageMost, 3 * BLOCK_BYTES, pages * BLOCK_BYTES + 1048576 + pages * 17 * leafImageRoom(leafBlocks))) return MEMORY;
      batchCount = 0;
      if (loadLevel == 0 && loadAt == 0 && !order) {
        if (lacks(levelCount(0) * 4)) return MEMORY;
        orderMake();
      }
      while (loadAt < levelCount(loadLevel) && batchCount < BATCH) {
        let index = loadLevel ? loadAt : load<u32>(order + (loadAt << 2));
        if (wanted(index)) store<u32>(batch + (batchCount++ << 2), index);
        loadAt++;
      }
      if (!batchCount) {
        if (loadLevel) loadLevel--;
        else if (loadKind < PAGE_LEAVES) {
          if (loadKind == PAGE_STATE) {
            if (stateImageLacks(stateBytes)) return MEMORY;
            if (!stateTake()) return failAt(ERROR_CORRUPT, 0xffffffff, 1);
          }
          loadKind++;
        } else {
          free(order);
          return DONE;
        }
        loadAt = 0;
        continue;
      }
      batchArea = allocateBlocks(batchCount);
      planClear(ticket);
      for (let i: u32 = 0; i < batchCount; i++) {
        // an impossible first address is read as if its copy had failed: from the second
        if (!planPage(ticket, load<u32>(batch + (i << 2)), batchArea + i * BLOCK_BYTES, false) && !planPage(ticket, load<u32>(batch + (i << 2)), batchArea + i * BLOCK_BYTES, true)) {
          return failAt(ERROR_CORRUPT, 0xffffffff, 2);
        }
      }
      loadRound = 1;
      return PLAN;
    }
    // Verify; what failed is read from its second copy, once.
    let again: u32 = 0;
    let first = loadRound == 1;
    let firstBad: u32 = 0;
    let ioError = load<u32>(ticket, T_RESULT) != 0;
    for (let i: u32 = 0; i < batchCount; i++) {
      let page = batchArea + i * BLOCK_BYTES;
      let at = node(loadLevel, load<u32>(batch + (i << 2)));
      let failed = first && planResult(ticket, i);
      if (!failed && xxh64(page, BLOCK_BYTES, pageSeed) == load<u64>(at, N_CHECKSUM) && pagePlausible(page, loadLevel ? PAGE_INDEX : loadKind, loadLevel)) continue;
      if (!again++) {
        if (first) planClear(ticket);
        firstBad = at;
      }
      if (first && !planPage(ticket, load<u32>(batch + (i << 2)), page, true)) return failAt(ERROR_CORRUPT, load<u16>(at, N_VOLUME_A), load<u32>(at, N_BLOCK_A));
      // a page that was zeroed by a failed read must not pass for sound: its old bytes are of no use
    }
    if (again) {
      if (!first) return failAt(ioError ? ERROR_IO : ERROR_CORRUPT, load<u16>(firstBad, N_VOLUME_B), load<u32>(firstBad, N_BLOCK_B));
      count(C_PAGE_COPY_USED);
      loadRound = 2;
      return PLAN;
    }
    for (let i: u32 = 0; i < batchCount; i++) {
      let index = load<u32>(batch + (i << 2));
      batchAt = i;
      if (!takePage(batchArea + i * BLOCK_BYTES, index)) {
        let at = node(loadLevel, index);
        return failAt(ERROR_CORRUPT, load<u16>(at, N_VOLUME_A), load<u32>(at, N_BLOCK_A));
      }
    }
    free(batchArea);
    loadRound = 0;
  }
}

function takePage(page: u32, index: u32): bool {
  let total = <u32>load<u16>(page, P_COUNT);
  if (load<u64>(page, P_CHECKPOINT) != nodeCheckpoint(loadLevel, index)) return false;
  if (loadLevel) {
    let below = levelCount(loadLevel - 1);
    for (let i: u32 = 0; i < total; i++) {
      let child = index * INDEX_NODES + i;
      if (child >= below || !nodeInside(page + PAGE_FIXED_BYTES + i * NODE_BYTES, loadLevel - 1)) return false;
      nodeLoaded(loadLevel - 1, child, page + PAGE_FIXED_BYTES + i * NODE_BYTES);
    }
    return true;
  }
  let fragment = page + PAGE_FIXED_BYTES;
  for (let i: u32 = 0; i < total; i++) {
    let sound = loadKind == PAGE_STATE ? takeState(fragment, index) : loadKind == PAGE_SEGMENTS ? takeSegments(fragment, index) : takeLeaf(fragment, index);
    if (!sound) return false;
    fragment += FRAGMENT_BYTES + ((<u32>load<u16>(fragment, G_BYTES) + 7) & ~7);
  }
  return true;
}

// An image in several fragments: u32 next, u32 space, u32 key, u32 count, u32 got, u64 checkpoint (24), u64 applied, u64 uid, then `count` × {u32 slot + 1, u32 bytes, u32 address}.
const IMAGE_HEAD: u32 = 48;
function pendingList(key: u32): usize { return pendingImages + ((key & (PENDING_LISTS - 1)) << 2); }

function imageFor(fragment: u32): u32 {
  let space = <u32>load<u16>(fragment, G_SPACE);
  let key = load<u32>(fragment, G_KEY);
  let total = <u32>load<u16>(fragment, G_COUNT);
  let list = pendingList(key);
  for (let image = load<u32>(list); image; image = load<u32>(image)) {
    if (load<u32>(image, 4) == space && load<u32>(image, 8) == key && load<u64>(image, 24) == load<u64>(fragment, G_CHECKPOINT)) {
      return load<u32>(image, 12) == total ? image : 0;
    }
  }
  let image = allocateZeroed(IMAGE_HEAD + total * 12);
  store<u32>(image, load<u32>(list));
  store<u32>(image, space, 4);
  store<u32>(image, key, 8);
  store<u32>(image, total, 12);
  store<u64>(image, load<u64>(fragment, G_CHECKPOINT), 24);
  store<u64>(image, load<u64>(fragment, G_APPLIED), 32);
  store<u64>(image, load<u64>(fragment, G_UID), 40);
  store<u32>(list, image);
  return image;
}

function imageUnlink(image: u32): void {
  let walk = <u32>pendingList(load<u32>(image, 8)); // the head is a link like any other
  while (load<u32>(walk) != image) walk = load<u32>(walk);
  store<u32>(walk, load<u32>(image));
}

/** Adds a fragment; answers the image when it is whole, 1 when it is not yet, 0 when it does not fit. */
function imageAdd(fragment: u32, slot: u32): u32 {
  let image = imageFor(fragment);
  if (!image) return 0;
  imageMost = max(imageMost, min(load<u32>(image, 12), levelCount(0))); // each is in a page of its own
  let part = image + IMAGE_HEAD + <u32>load<u16>(fragment, G_INDEX) * 12;
  if (load<u32>(part)) return 0;
  let bytes = <u32>load<u16>(fragment, G_BYTES);
  let copy = allocate(bytes + 8);
  memory.copy(copy, fragment + FRAGMENT_BYTES, bytes);
  store<u32>(part, slot + 1);
  store<u32>(part, bytes, 4);
  store<u32>(part, copy, 8);
  store<u32>(image, load<u32>(image, 16) + 1, 16);
  if (load<u32>(image, 16) < load<u32>(image, 12)) return 1;
  imageUnlink(image);
  return image;
}

/** Fragments of the largest image so far, which takes several batches: it is joined in the end, and read, a history into memory of its own. */
let imageMost: u32 = 0;
let joined: u32 = 0;
let joinedBytes: u32 = 0;
let joinedReference: u32 = 0;
/** Joins a whole image into one piece of memory and makes the reference to its pages. */
function imageJoin(image: u32): void {
  let total = load<u32>(image, 12);
  joinedBytes = 0;
  for (let i: u32 = 0; i < total; i++) joinedBytes += load<u32>(image + IMAGE_HEAD + i * 12, 4);
  joined = allocate(joinedBytes + 8);
  let list = allocate(4 + total * 4);
  store<u32>(list, total);
  let at = joined;
  for (let i: u32 = 0; i < total; i++) {
    let part = image + IMAGE_HEAD + i * 12;
    memory.copy(at, load<u32>(part, 8), load<u32>(part, 4));
    at += load<u32>(part, 4);
    free(load<u32>(part, 8));
    slotHold(load<u32>(part) - 1);
    store<u32>(list + 4 + i * 4, load<u32>(part) - 1);
  }
  joinedReference = listReference(list);
  free(image);
}

/**
 * Nearly always the other fragments of an image are the first ones of the pages that follow in the batch: they are joined from there, without a
 * copy of each, and are passed over when their turn comes, because the leaf is there then. False, and nothing done, where they are not.
 */
function joinAhead(fragment: u32, slot: u32): bool {
  let total = <u32>load<u16>(fragment, G_COUNT);
  if (load<u16>(fragment, G_INDEX) || batchAt + total > batchCount) return false;
  let bytes = <u32>load<u16>(fragment, G_BYTES);
  for (let i: u32 = 1; i < total; i++) {
    let page = batchArea + (batchAt + i) * BLOCK_BYTES;
    let other = page + PAGE_FIXED_BYTES;
    if (!load<u16>(page, P_COUNT) || load<u16>(other, G_INDEX) != <u16>i || load<u16>(other, G_COUNT) != <u16>total) return false;
    if (load<u16>(other, G_SPACE) != load<u16>(fragment, G_SPACE) || load<u32>(other, G_KEY) != load<u32>(fragment, G_KEY)) return false;
    if (load<u64>(other, G_UID) != load<u64>(fragment, G_UID) || load<u64>(other, G_CHECKPOINT) != load<u64>(fragment, G_CHECKPOINT)) return false;
    bytes += <u32>load<u16>(other, G_BYTES);
  }
  count(C_IMAGE_AHEAD);
  joined = allocate(bytes + 8);
  joinedBytes = bytes;
  let list = allocate(4 + total * 4);
  store<u32>(list, total);
  let to = joined;
  for (let i: u32 = 0; i < total; i++) {
    let part = i ? batchArea + (batchAt + i) * BLOCK_BYTES + PAGE_FIXED_BYTES : fragment;
    let its = <u32>load<u16>(part, G_BYTES);
    memory.copy(to, part + FRAGMENT_BYTES, its);
    to += its;
    let held = i ? load<u32>(batch + ((batchAt + i) << 2)) : slot;
    slotHold(held);
    store<u32>(list + 4 + i * 4, held);
  }
  joinedReference = listReference(list);
  return true;
}

function takeState(fragment: u32, slot: u32): bool {
  if (stateBuffer) return true; // newer pages come first
  if (load<u16>(fragment, G_COUNT) == 1) {
    stateBytes = load<u16>(fragment, G_BYTES);
    stateBuffer = allocate(stateBytes + 8);
    memory.copy(stateBuffer, fragment + FRAGMENT_BYTES, stateBytes);
    slotHold(slot);
    stateList = slot + 1;
  } else {
    let image = imageAdd(fragment, slot);
    if (image < 2) return image == 1;
    imageJoin(image);
    stateBuffer = joined;
    stateBytes = joinedBytes;
    stateList = joinedReference;
  }
  return true;
}

let stateFound: bool = false;
function stateTake(): bool {
  if (!stateBuffer) {
    // A log that never had a checkpoint has no pages at all.
    stateFound = levelCount(0) == 0;
    return stateFound;
  }
  stateFound = stateImageRead(stateBuffer, stateBytes);
  free(stateBuffer);
  stateReferenceSet(stateList);
  return stateFound;
}
function loadedState(): bool {
  for (let key: u32 = 0; key < PENDING_LISTS; key++) { // fragments of images that were superseded before they were whole
    let list = pendingList(key);
    while (load<u32>(list)) {
      let image = load<u32>(list);
      store<u32>(list, load<u32>(image));
      for (let i: u32 = 0; i < load<u32>(image, 12); i++) free(load<u32>(image + IMAGE_HEAD + i * 12, 8));
      free(image);
    }
  }
  // Pages in which nothing counts any more are named by the root on disk until the next is committed: every open reads them.
  metaRecount(false);
  treeSweep();
  return stateFound;
}

function takeSegments(fragment: u32, slot: u32): bool {
  let key = load<u32>(fragment, G_KEY);
  let volume = volumeById(key >>> 16);
  if (!volume) return true; // of a volume that was given back
  let chunk = key & 0xffff;
  let total = load<u32>(volume, V_SEGMENT_COUNT);
  if (load<u16>(fragment, G_COUNT) != 1 || chunk * TABLE_CHUNK >= total) return false;
  let entries = min(TABLE_CHUNK, total - chunk * TABLE_CHUNK);
  if (<u32>load<u16>(fragment, G_BYTES) != entries * 24) return false;
  let item = load<u32>(volume, V_TABLE_IMAGES) + chunk * 8;
  let had = load<u32>(item);
  if (had) return true; // newer pages come first
  slotHold(slot);
  store<u32>(item, slot + 1);
  for (let i: u32 = 0; i < entries; i++) {
    let segment = segmentOf(volume, chunk * TABLE_CHUNK + i);
    store<u8>(segment, <u8>FREE, SEG_STATE);
    if (!segmentEntryRead(volume, chunk * TABLE_CHUNK + i, fragment + FRAGMENT_BYTES + i * 24)) return false;
  }
  return true;
}

function takeLeaf(fragment: u32, slot: u32): bool {
  let space = <u32>load<u16>(fragment, G_SPACE);
  let key = load<u32>(fragment, G_KEY);
  if (!spacePointer(space) || spaceUid(space) != load<u64>(fragment, G_UID)) return true; // of a space that is gone
  if (leafFind(space, key)) return true; // newer pages come first
  let payload = fragment + FRAGMENT_BYTES;
  let bytes = <u32>load<u16>(fragment, G_BYTES);
  let applied = load<u64>(fragment, G_APPLIED);
  let reference = slot + 1;
  let whole = load<u16>(fragment, G_COUNT) == 1;
  if (!whole) {
    if (!RAID || !joinAhead(fragment, slot)) {
      let image = imageAdd(fragment, slot);
      if (image < 2) return image == 1;
      imageJoin(image);
    }
    payload = joined;
    bytes = joinedBytes;
    reference = joinedReference;
  } else slotHold(slot);
  let sound = leafImageRead(space, key, payload, bytes);
  if (!whole) free(payload);
  if (!sound) return false;
  let leaf = leafFind(space, key);
  store<u32>(leaf, reference, LEAF_IMAGE);
  gateSet(leaf, applied);
  return true;
}
