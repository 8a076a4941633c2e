// The second half of opening: walking the streams, replaying them, and going on where they end. See recover.ts.

import { allocate, free, resize, freeAt, allocateBlocks } from '../std/allocator';
import { count } from '../std/counters';
import { xxh64 } from '../std/checksum';
import { PLANT_BAD_RECORD_ENDS_LOG, PLANT_STALE_INCARNATION, planted } from '../std/plant';
import { DONE, ERROR_CORRUPT, ERROR_IO, ERROR_LIMIT, ERROR_NO_SPACE, MEMORY, PLAN, fail, failAt, lacks, lacksTimes } from '../abi/status';
import { READ, T_RESULT, WRITE, planClear, planResult } from '../abi/ticket';
import { BLOCK_BYTES, BLOCK_SHIFT, VOLUME_NONE } from '../format/constants';
import { blockSeed } from '../format/key';
import {
  FOOTER_FIXED_BYTES, F_DURABLE, F_INCARNATION, F_LAST_HEADER, F_NEXT_FILL, F_NEXT_SEGMENT, F_NEXT_VOLUME, F_USED, SLOT_FLAG_MOVE,
  SLOT_FLAG_OPERATIONS, SLOT_FLAG_PADDING, SLOT_HEADER, footerVerify,
} from '../format/footer';
import {
  ENTRY_BYTES, ENTRY_TRIM, RECORD_FIXED_BYTES, RECORD_MOVE, RECORD_OPERATION, R_CHECKSUM, R_DATA, R_DURABLE, R_ENTRIES, R_FIRST, R_INCARNATION,
  R_KIND, R_PAYLOAD, R_PREVIOUS, R_SOURCE_SEGMENT, R_SOURCE_VOLUME, entryBirth, entryBlock, entryKind, entrySourceSlot, entrySpace, entrySum,
  recordSequences, recordSlots, recordVerify,
} from '../format/record';
import {
  LIST_BYTES, LIST_STRIDE, O_END, O_FLAGS, O_LISTS, O_META, O_NEXT_FILL, O_STREAMS, STREAM_BYTES, S_LIST_COUNT, S_OPEN_CHAIN, S_OPEN_FILL,
  S_OPEN_SEGMENT, S_OPEN_SLOT, S_OPEN_VOLUME, S_START_CHAIN, S_START_FILL, S_START_SEGMENT, S_START_SLOT, S_START_VOLUME,
} from '../format/root';
import { gateEnd, leafBlocks, leafRoom, liveCount, spacePointer, tableExpect, tableMove, tablePut, tableRecount, tableTrim, tableWarm } from '../table/index';
import {
  FREE, META, SEALED, SEG_FILL, SEG_FIRST, SEG_FLAGS, SEG_HAS_FOOTER, SEG_LAST, SEG_META_LIVE, SEG_STATE, SEG_STREAM, SEG_USED, V_DATA_SLOTS,
  V_FOOTER_BLOCKS, CHECK_FIRST, CHECK_FOOTER, CHECK_HEADERS, CHECK_RECORDS, V_FREE, V_ID, V_SEGMENT_BLOCKS, V_SEGMENT_COUNT, blockOf, planBlocks,
  planChecked, planMemberFlushes, redundant, segmentBlank, segmentBlocksMost, segmentChanged, segmentLeaveFree, segmentOf, volumeById, volumeTotals, V_NEXT,
  volumeHead, failAtSlot, markWritten, unitOf,
} from '../log/volumes';
import {
  B_DATA, B_DURABLE, B_DURABLE_CHAIN, B_ENTRIES, B_FILL, B_LOADED, B_SUBMITTED, STREAM_META, openBuffer, segmentAdvance, bufferBytes, bufferOpen,
  chainSet, durableSequence, durableSet, epoch, footerBuild, incarnation, nextCountSet, placeStore, sequenceSet, starts,
} from '../log/writer';
import {
  C_CUT_FOLLOWED, C_FOOTERLESS_REPLAYED, C_FOOTER_MENDED, C_INCARNATION_REFUSED, C_STREAM_MERGE, C_STRIPE_CUT, C_TAIL_DATA_BAD, C_TAIL_GAP,
  C_TAIL_TORN,
} from '../log/counting';
import { FILL_MARGIN, cutFind, cutTo, incarnationStart, isStale, lifeBegin, openedRoot, startSequence } from './root';
import { TRIM_LEAVES } from './readwrite';
import { OPERATION_LACKS, operationApply, operationLacks, operationResult, payloadBytes, spaceForward } from './state';
import { headersToEntries } from './sums';
import { bump, clear } from '../std/bytes';

export let replayedEntries: u32 = 0;

// A segment of the walk, 56 bytes.
const W_VOLUME: usize = 0;
const W_SEGMENT: usize = 4;
const W_MODE: usize = 8; // 1 from its footer, 2 from its headers
const W_FIRST: usize = 12; // slot of the first record to replay
const W_END: usize = 16; // slot behind the last sound record
const W_FILL: usize = 24; // u64
const W_CHAIN: usize = 32; // u64, chain at W_FIRST
const W_CHAIN_END: usize = 40; // u64, chain at W_END
const W_UNSURE: usize = 48; // slot + 1 of its first record that nobody vouches for: it may not be on all members
const W_BYTES: u32 = 56;

const walks: usize = memory.data(8); // per stream: array of items
const walkCounts: usize = memory.data(8);
const walkCapacities: usize = memory.data(8);
function walkCount(stream: u32): u32 { return load<u32>(walkCounts + (stream << 2)); }
function walkAt(stream: u32, index: u32): u32 { return load<u32>(walks + (stream << 2)) + index * W_BYTES; }

function walkAdd(stream: u32): u32 {
  let total = walkCount(stream);
  let capacity = load<u32>(walkCapacities + (stream << 2));
  if (total == capacity) {
    capacity = capacity ? capacity * 2 : 16;
    let items = load<u32>(walks + (stream << 2));
    store<u32>(walks + (stream << 2), resize(items, capacity * W_BYTES));
    store<u32>(walkCapacities + (stream << 2), capacity);
  }
  store<u32>(walkCounts + (stream << 2), total + 1);
  let item = walkAt(stream, total);
  clear(item, W_BYTES);
  return item;
}

let clean: bool = false;
let stream: u32 = 0;
let walkState: u32 = 0;
let area: u32 = 0;
let nextVolume: u32 = 0; // the segment to walk next: storage volume id, index, fill
let nextSegment: u32 = 0;
let nextFill: u64 = 0;
let firstSlot: u32 = 0;
let chain: u64 = 0;
let lastIncarnation: u64 = 0;
let believed: u32 = 0; // slot + 1 where the last read of the segment at hand ended
let guessed: bool = false; // the segment to walk follows one without a footer: only its first header can show that it does
let durableMost: u64 = 0; // the highest durableSequence that anything names

function streamRecord(which: u32): usize { return openedRoot + O_STREAMS + which * STREAM_BYTES; }
function listEntry(which: u32, index: u32): usize { return openedRoot + O_LISTS + which * LIST_STRIDE + index * LIST_BYTES; }

export function walkBegin(): void {
  clean = (load<u32>(openedRoot, O_FLAGS) & 1) != 0 && load<u64>(openedRoot, O_END) == startSequence;
  durableMost = durableSequence;
  stream = 0;
  streamBegin();
}

function streamBegin(): void {
  let record = streamRecord(stream);
  if (RAID) lifeBegin(stream, load<u16>(record, S_OPEN_VOLUME) == <u16>VOLUME_NONE ? 0 : load<u64>(record, S_OPEN_FILL), load<u16>(record, S_OPEN_SLOT));
  nextVolume = load<u16>(record, S_START_VOLUME);
  nextSegment = load<u32>(record, S_START_SEGMENT);
  nextFill = load<u64>(record, S_START_FILL);
  firstSlot = load<u16>(record, S_START_SLOT);
  chain = load<u64>(record, S_START_CHAIN);
  lastIncarnation = 0;
  guessed = false;
  walkState = 0;
  if (nextVolume == VOLUME_NONE && !clean) {
    nextFromList(0);
    if (nextVolume != VOLUME_NONE) {
      // From now on that is where the stream starts: the next root's list will be another one.
      let start = starts + stream * 24;
      store<u16>(start, <u16>nextVolume);
      store<u16>(start, 0, 2);
      store<u32>(start, nextSegment, 4);
      store<u64>(start, nextFill, 8);
    }
  }
  if (clean) { // nothing to replay: the open segment is where the stream stands
    nextVolume = load<u16>(record, S_OPEN_VOLUME);
    if (nextVolume != VOLUME_NONE && volumeById(nextVolume)) {
      let item = walkAdd(stream);
      store<u32>(item, volumeById(nextVolume), W_VOLUME);
      store<u32>(item, load<u32>(record, S_OPEN_SEGMENT), W_SEGMENT);
      store<u32>(item, 2, W_MODE);
      store<u32>(item, load<u16>(record, S_OPEN_SLOT), W_FIRST);
      store<u32>(item, load<u16>(record, S_OPEN_SLOT), W_END);
      store<u64>(item, load<u64>(record, S_OPEN_FILL), W_FILL);
      store<u64>(item, load<u64>(record, S_OPEN_CHAIN), W_CHAIN);
      store<u64>(item, load<u64>(record, S_OPEN_CHAIN), W_CHAIN_END);
    }
    nextVolume = VOLUME_NONE;
  }
}

/** The segment that the root's list names at `index`, or none. */
function nextFromList(index: u32): void {
  nextVolume = VOLUME_NONE;
  if (index >= <u32>load<u16>(streamRecord(stream), S_LIST_COUNT)) return;
  let entry = listEntry(stream, index);
  nextVolume = load<u16>(entry);
  nextSegment = load<u32>(entry, 4);
  nextFill = load<u64>(entry, 8);
}

/** Whether the stream stood in this fill when the root was written. */
function wasOpen(fill: u64): bool {
  let record = streamRecord(stream);
  return load<u16>(record, S_OPEN_VOLUME) != <u16>VOLUME_NONE && load<u64>(record, S_OPEN_FILL) == fill;
}

/** Which segment follows this fill in the root's order (open, then the list); false when the root does not know it. */
function successorOf(fill: u64): bool {
  if (wasOpen(fill)) {
    nextFromList(0);
    return true;
  }
  for (let i: u32 = 0; i < <u32>load<u16>(streamRecord(stream), S_LIST_COUNT); i++) {
    if (load<u64>(listEntry(stream, i), 8) == fill) {
      nextFromList(i + 1);
      return true;
    }
  }
  return false;
}

function streamEnd(): void {
  nextVolume = VOLUME_NONE;
}

let probeStream: u32 = 0;
let probeIndex: u32 = 0;
let probeState: u32 = 0;

/**
 * Behind the end of a stream: the segments that the root promised to it and that the walk did not reach. What their
 * headers and footers say to be durable tells a break in the middle of the log, which is damage, from its torn end.
 */
function probeRun(ticket: u32): u32 {
  while (probeStream < 2) {
    if (probeIndex >= <u32>load<u16>(streamRecord(probeStream), S_LIST_COUNT)) {
      probeStream++;
      probeIndex = 0;
      continue;
    }
    let entry = listEntry(probeStream, probeIndex);
    let fill = load<u64>(entry, 8);
    let volume = volumeById(load<u16>(entry));
    let index = load<u32>(entry, 4);
    if (!volume || index >= load<u32>(volume, V_SEGMENT_COUNT) || walked(probeStream, fill)) {
      probeIndex++;
      continue;
    }
    let id = load<u32>(volume, V_ID);
    let dataSlots = load<u32>(volume, V_DATA_SLOTS);
    let footerBlocks = load<u32>(volume, V_FOOTER_BLOCKS);
    if (probeState == 0) {
      if (lacks(bufferBytes(load<u32>(volume, V_SEGMENT_BLOCKS)))) return MEMORY;
      planClear(ticket);
      area = allocateBlocks(footerBlocks + 1);
      planEnds(ticket, volume, index, entry + 8);
      probeState = 1;
      return PLAN;
    }
    if (load<u32>(ticket, T_RESULT)) return failAtSlot(ERROR_IO, volume, index, 0);
    if (probeState == 1) {
      if (footerVerify(area, footerBlocks, id, blockOf(volume, index, dataSlots), dataSlots, fill)) {
        durableMost = max(durableMost, load<u64>(area, F_DURABLE));
      } else if (recordVerify(area + (footerBlocks << BLOCK_SHIFT), id, blockOf(volume, index, 0), 0, dataSlots, fill)) {
        if (RAID && lacks(dataSlots << BLOCK_SHIFT)) return MEMORY;
        free(area);
        planClear(ticket);
        area = allocateBlocks(dataSlots);
        planChecked(ticket, READ, volume, blockOf(volume, index, 0), area, dataSlots, CHECK_HEADERS, entry + 8);
        probeState = 2;
        return PLAN;
      }
    } else {
      let slot: u32 = 0;
      while (slot < dataSlots) {
        let header = area + (slot << BLOCK_SHIFT);
        if (!recordVerify(header, id, blockOf(volume, index, slot), slot, dataSlots - slot, fill)) break;
        durableMost = max(durableMost, load<u64>(header, R_DURABLE));
        slot += recordSlots(header);
      }
    }
    free(area);
    probeState = 0;
    probeIndex++;
  }
  return DONE;
}

function walked(which: u32, fill: u64): bool {
  for (let i: u32 = 0; i < walkCount(which); i++) if (load<u64>(walkAt(which, i), W_FILL) == fill) return true;
  return false;
}

/** Finds the segments of both streams and how far they are sound. */
export function walkRun(ticket: u32): u32 {
  while (true) {
    if (walkState == 0) {
      if (nextVolume == VOLUME_NONE) {
        if (stream) return clean ? DONE : probeRun(ticket);
        stream = 1;
        streamBegin();
        continue;
      }
      let volume = volumeById(nextVolume);
      if (!volume || nextSegment >= load<u32>(volume, V_SEGMENT_COUNT) || firstSlot > load<u32>(volume, V_DATA_SLOTS)) {
        return failAt(ERROR_CORRUPT, nextVolume, 0);
      }
      if (lacks(bufferBytes(load<u32>(volume, V_SEGMENT_BLOCKS)) + walkCount(stream) * W_BYTES * 2)) return MEMORY;
      planClear(ticket);
      if (RAID) store<u64>(walkFill, nextFill);
      if (cutFind(nextFill)) return planWhole(ticket, volume);
      // The footer, and the first header: one of them says whether there is anything.
      let footerBlocks = load<u32>(volume, V_FOOTER_BLOCKS);
      area = allocateBlocks(footerBlocks + 1);
      planEnds(ticket, volume, nextSegment, walkFill);
      walkState = 1;
      return PLAN;
    }
    if (walkState == 1) {
      let volume = volumeById(nextVolume);
      let id = load<u32>(volume, V_ID);
      let dataSlots = load<u32>(volume, V_DATA_SLOTS);
      let footerBlocks = load<u32>(volume, V_FOOTER_BLOCKS);
      if (planResult(ticket, 0)) return failAtSlot(ERROR_IO, volume, nextSegment, dataSlots); // unreadable is not absent
      if (guessed) {
        if (planResult(ticket, 1)) return failAtSlot(ERROR_IO, volume, nextSegment, 0);
        let header = area + (footerBlocks << BLOCK_SHIFT);
        if (!recordVerify(header, id, blockOf(volume, nextSegment, 0), 0, dataSlots, nextFill) || load<u64>(header, R_PREVIOUS) != chain) {
          free(area);
          streamEnd();
          walkState = 0;
          continue;
        }
        guessed = false;
      }
      let sound = footerVerify(area, footerBlocks, id, blockOf(volume, nextSegment, dataSlots), dataSlots, nextFill);
      if (sound && wasOpen(nextFill) && load<u64>(area, F_INCARNATION) < incarnation && !(PLANTS && planted == PLANT_STALE_INCARNATION)) {
        count(C_INCARNATION_REFUSED);
        sound = false;
      }
      if (sound && load<u64>(area, F_INCARNATION) > incarnation) return failAtSlot(ERROR_CORRUPT, volume, nextSegment, dataSlots);
      if (sound) {
        let used = <u32>load<u16>(area, F_USED);
        if (firstSlot > used) return failAtSlot(ERROR_CORRUPT, volume, nextSegment, dataSlots);
        let item = itemAdd(volume, 1, used);
        chain = load<u64>(area, F_LAST_HEADER);
        store<u64>(item, chain, W_CHAIN_END);
        durableMost = max(durableMost, load<u64>(area, F_DURABLE));
        nextVolume = load<u16>(area, F_NEXT_VOLUME);
        nextSegment = load<u32>(area, F_NEXT_SEGMENT);
        nextFill = load<u64>(area, F_NEXT_FILL);
        firstSlot = 0;
        free(area);
        walkState = 0;
        continue;
      }
      if (RAID && lacks(dataSlots << BLOCK_SHIFT)) return MEMORY; // what was read took some of what was asked for
      free(area);
      return planWhole(ticket, volume);
    }
    // 2: the whole segment is in memory. Where its records end is believed when two reads in a row say so: one that was answered with old bytes, or
    // with a wrong bit, would hide whatever no other record tells of.
    let volume = volumeById(nextVolume);
    let id = load<u32>(volume, V_ID);
    if (load<u32>(ticket, T_RESULT)) return failAtSlot(ERROR_IO, volume, nextSegment, 0);
    let cut = cutFind(nextFill);
    let limit = cut ? <u32>load<u16>(cut, 2) : load<u32>(volume, V_DATA_SLOTS);
    if (firstSlot > limit || limit > load<u32>(volume, V_DATA_SLOTS)) return failAtSlot(ERROR_CORRUPT, volume, nextSegment, limit);
    let slot = firstSlot;
    let expected = chain;
    let latest = lastIncarnation;
    while (slot < limit) {
      let header = area + (slot << BLOCK_SHIFT);
      if (!recordVerify(header, id, blockOf(volume, nextSegment, slot), slot, limit - slot, nextFill)) break;
      if (load<u64>(header, R_PREVIOUS) != expected) break;
      if (!incarnationFits(header, latest) || (RAID && isStale(nextFill, slot, load<u64>(header, R_INCARNATION)))) { count(C_INCARNATION_REFUSED); break; }
      latest = load<u64>(header, R_INCARNATION);
      durableMost = max(durableMost, load<u64>(header, R_DURABLE));
      expected = load<u64>(header, R_CHECKSUM);
      slot += recordSlots(header);
    }
    // Behind a break: sound headers of this fill are no part of the log any more, but what they say to be durable is.
    for (let behind = slot + 1; behind < limit; behind++) {
      let header = area + (behind << BLOCK_SHIFT);
      if (!recordVerify(header, id, blockOf(volume, nextSegment, behind), behind, limit - behind, nextFill)) continue;
      if (load<u64>(header, R_INCARNATION) == incarnation) durableMost = max(durableMost, load<u64>(header, R_DURABLE));
    }
    if (slot < limit && slot >= believed) {
      if (RAID && lacks(load<u32>(volume, V_DATA_SLOTS) << BLOCK_SHIFT)) return MEMORY;
      believed = slot + 1;
      free(area);
      return planWhole(ticket, volume);
    }
    free(area);
    if (slot + 1 < believed) return changed(volume, nextSegment, slot);
    believed = 0;
    count(C_FOOTERLESS_REPLAYED);
    let item = itemAdd(volume, 2, slot);
    lastIncarnation = latest;
    chain = expected;
    store<u64>(item, chain, W_CHAIN_END);
    if (cut) {
      if (slot != limit) return failAtSlot(ERROR_CORRUPT, volume, nextSegment, slot);
      count(C_CUT_FOLLOWED);
      nextVolume = load<u16>(cut, 16);
      nextSegment = load<u32>(cut, 20);
      nextFill = load<u64>(cut, 24);
    } else if (slot == 0) {
      streamEnd();
    } else if (successorOf(nextFill)) {
      guessed = true;
    } else if (nextFill >= load<u64>(openedRoot, O_NEXT_FILL) - FILL_MARGIN) {
      streamEnd(); // taken after this root was written: nothing acknowledged can stand behind it
    } else {
      // It was sealed and durable before the root: what follows cannot be found any more.
      return failAtSlot(ERROR_CORRUPT, volume, nextSegment, load<u32>(volume, V_DATA_SLOTS));
    }
    firstSlot = 0;
    walkState = 0;
  }
  return DONE; // not reached; the compiler does not see it
}

/** A record beyond the last life's end must be of the root's incarnation, and none may be of an older one than the record before. */
function incarnationFits(header: u32, before: u64): bool {
  if (PLANTS && planted == PLANT_STALE_INCARNATION) return true;
  let own = load<u64>(header, R_INCARNATION);
  if (own < before || own > incarnation) return false;
  return load<u64>(header, R_FIRST) <= incarnationStart || own >= incarnation;
}

function itemAdd(volume: u32, mode: u32, end: u32): u32 {
  let item = walkAdd(stream);
  store<u32>(item, volume, W_VOLUME);
  store<u32>(item, nextSegment, W_SEGMENT);
  store<u32>(item, mode, W_MODE);
  store<u32>(item, firstSlot, W_FIRST);
  store<u32>(item, end, W_END);
  store<u64>(item, nextFill, W_FILL);
  store<u64>(item, chain, W_CHAIN);
  return item;
}

function planWhole(ticket: u32, volume: u32): u32 {
  let blocks = load<u32>(volume, V_DATA_SLOTS);
  area = allocateBlocks(blocks);
  planClear(ticket);
  planChecked(ticket, READ, volume, blockOf(volume, nextSegment, 0), area, blocks, CHECK_RECORDS, walkFill);
  walkState = 2;
  return PLAN;
}

/** The footer of a segment, and its first header behind it. */
function planEnds(ticket: u32, volume: u32, index: u32, fill: usize): void {
  let blocks = load<u32>(volume, V_FOOTER_BLOCKS);
  planChecked(ticket, READ, volume, blockOf(volume, index, load<u32>(volume, V_DATA_SLOTS)), area, blocks, CHECK_FOOTER, fill);
  planChecked(ticket, READ, volume, blockOf(volume, index, 0), area + (blocks << BLOCK_SHIFT), 1, CHECK_FIRST, fill);
}
const walkFill: usize = memory.data(8, 8); // of the segment at hand

// ---- replay: a cursor per stream ---------------------------------------------------------------------------------

const K_ITEM: usize = 0;
const K_SLOT: usize = 4;
const K_AREA: usize = 8; // footer, or the whole segment
const K_HEADER: usize = 12; // header block of the record at hand (mode 1, with other operations)
const K_DATA: usize = 16; // its data blocks (mode 1, to be verified)
const K_STATE: usize = 20; // 0 to load, 1 record at hand, 2 at the end, 3 footer read planned, 4 header read planned, 5 data read planned
const K_PLAN: usize = 24; // index of the read in the plan
const K_FIRST: usize = 32; // u64, of the record at hand
const K_COUNT: usize = 40; // sequences of it
const K_BLOCKS: usize = 44; // data blocks of it
const K_VERIFIED: usize = 48;
const K_AGAIN: usize = 52; // low half of the first sequence of the record that was read anew last
const K_CHAIN: usize = 56; // u64, chain behind the last applied record
const K_INCARNATION: usize = 64; // u64, of the record at hand
const cursors: usize = memory.data(144, 8);
function cursor(which: u32): usize { return cursors + which * 72; }

let applied: u64 = 0;
let appliedIncarnation: u64 = 0;
let stopVolume: u32 = 0xffffffff;
let stopBlock: u32 = 0;
let lastStream: u32 = 0;

export function replayBegin(): void {
  clear(cursors, 144);
  applied = clean ? load<u64>(openedRoot, O_END) : startSequence;
  appliedIncarnation = 0;
  for (let which: u32 = 0; which < 2; which++) {
    if (walkCount(which) == 0) store<u32>(cursor(which), 2, K_STATE);
    else {
      let item = walkAt(which, 0);
      store<u32>(cursor(which), load<u32>(item, W_FIRST), K_SLOT);
      store<u64>(cursor(which), load<u64>(item, W_CHAIN), K_CHAIN);
    }
  }
}

function stop(which: u32): void {
  let at = cursor(which);
  let item = walkAt(which, load<u32>(at, K_ITEM));
  stopVolume = load<u32>(load<u32>(item, W_VOLUME), V_ID);
  stopBlock = blockOf(load<u32>(item, W_VOLUME), load<u32>(item, W_SEGMENT), load<u32>(at, K_SLOT));
  drop(at);
  store<u32>(at, 2, K_STATE);
}

/** The record at hand is not sound: it is read once more, with all that was read for it, and then the log ends before it. */
function torn(which: u32, at: usize): u32 {
  let first = load<u32>(at, K_FIRST);
  if (load<u32>(at, K_AGAIN) == first) stop(which);
  else {
    store<u32>(at, first, K_AGAIN);
    drop(at);
    store<u32>(at, 0, K_STATE);
  }
  return DONE;
}

function drop(at: usize): void {
  freeAt(at + K_AREA);
  dropRecord(at);
}

function dropRecord(at: usize): void {
  freeAt(at + K_HEADER);
  freeAt(at + K_DATA);
  store<u32>(at, 0, K_VERIFIED);
}

export function replayRun(ticket: u32): u32 {
  // What was read is taken before anything new is planned.
  for (let which: u32 = 0; which < 2; which++) {
    let at = cursor(which);
    let state = load<u32>(at, K_STATE);
    if (state < 3) continue;
    let status = advance(ticket, which, at);
    if (status != DONE) return status;
  }
  assert(planned == 0);
  planClear(ticket);
  while (true) {
    // Bring both cursors to a record, or to the end of their stream.
    let plans = false;
    for (let which: u32 = 0; which < 2; which++) {
      let at = cursor(which);
      while (true) {
        let state = load<u32>(at, K_STATE);
        if (state == 1 || state == 2) break;
        let status = advance(ticket, which, at);
        if (status == DONE) continue;
        if (status == PLAN || (status == MEMORY && plans)) { plans = true; break; }
        return status;
      }
    }
    if (plans) return PLAN;
    let a = cursor(0);
    let b = cursor(1);
    // Padding is behind when everything that had been given out before it is applied; padding of a tail that is missing ends its stream.
    if (RAID && (padded(0) || padded(1))) continue;
    let hasA = load<u32>(a, K_STATE) == 1;
    let hasB = load<u32>(b, K_STATE) == 1;
    if (RAID) {
      hasA = hasA && load<u32>(a, K_COUNT) != 0;
      hasB = hasB && load<u32>(b, K_COUNT) != 0;
      for (let which: u32 = 0; which < 2 && !hasA && !hasB; which++) if (load<u32>(cursor(which), K_STATE) == 1) stop(which);
    }
    if (!hasA && !hasB) return replayEnd();
    let which: u32 = hasA ? 0 : 1;
    if (hasA && hasB) {
      count(C_STREAM_MERGE);
      let firstA = load<u64>(a, K_FIRST);
      let firstB = load<u64>(b, K_FIRST);
      if (firstB < firstA || (firstA == firstB && load<u64>(b, K_INCARNATION) > load<u64>(a, K_INCARNATION))) which = 1;
    }
    let at = cursor(which);
    if (load<u64>(at, K_FIRST) != applied + 1) {
      // Behind: left over from another life. Ahead: something before it is missing, and so is all that follows.
      count(C_TAIL_GAP);
      stop(which);
      continue;
    }
    let own = load<u64>(at, K_INCARNATION);
    if (own < appliedIncarnation && !(PLANTS && planted == PLANT_STALE_INCARNATION)) {
      count(C_INCARNATION_REFUSED);
      stop(which);
      continue;
    }
    let last = applied + <u64>load<u32>(at, K_COUNT);
    if (last > durableMost && !load<u32>(at, K_VERIFIED)) {
      let status = verifyData(ticket, which, at);
      if (status == PLAN) return PLAN;
      if (status != DONE) return status;
      if (load<u32>(at, K_STATE) != 1) continue; // it did not verify: the log ends before it
    }
    let status = apply(which, at);
    if (status != DONE) return status;
    applied = last;
    appliedIncarnation = own;
    lastStream = which;
    replayedEntries += load<u32>(at, K_COUNT);
  }
}

let planned: u32 = 0; // reads of the plan at hand that no cursor has taken yet

function planRead(ticket: u32, at: usize, volume: u32, block: u32, into: u32, blocks: u32, check: u32): void {
  if (planned == 0) planClear(ticket);
  store<u32>(at, load<u32>(ticket, 44), K_PLAN);
  let item = RAID ? walkAt(at == cursor(1) ? 1 : 0, load<u32>(at, K_ITEM)) : 0;
  planChecked(ticket, READ, volume, block, into, blocks, check, item + <u32>W_FILL);
  planned++;
}

function readTaken(ticket: u32, at: usize): u32 {
  planned--;
  return planResult(ticket, load<u32>(at, K_PLAN));
}

/**
 * It was sound a moment ago. A tail that was never flushed may be on one member only, and that member may have gone meanwhile: then
 * this open fails for the device, and the next one goes without it. On a single device it is damage.
 */
function changed(volume: u32, index: u32, slot: u32): u32 {
  return failAtSlot(redundant(volume) ? ERROR_IO : ERROR_CORRUPT, volume, index, slot);
}

/** One step of a cursor towards its next record. DONE: look at its state again; PLAN: a read was planned. */
function advance(ticket: u32, which: u32, at: usize): u32 {
  let item = walkAt(which, load<u32>(at, K_ITEM));
  let volume = load<u32>(item, W_VOLUME);
  let index = load<u32>(item, W_SEGMENT);
  let mode = load<u32>(item, W_MODE);
  let state = load<u32>(at, K_STATE);
  let slot = load<u32>(at, K_SLOT);
  if (state == 3) {
    if (readTaken(ticket, at)) return failAtSlot(ERROR_IO, volume, index, 0);
    if (mode == 1) { // what was read now must be what was verified before
      let dataSlots = load<u32>(volume, V_DATA_SLOTS);
      let footerBlock = blockOf(volume, index, dataSlots);
      if (!footerVerify(load<u32>(at, K_AREA), load<u32>(volume, V_FOOTER_BLOCKS), load<u32>(volume, V_ID), footerBlock, dataSlots, load<u64>(item, W_FILL))) {
        return changed(volume, index, dataSlots);
      }
    }
    store<u32>(at, 0, K_STATE);
    return DONE;
  }
  if (state == 5) {
    if (readTaken(ticket, at)) return failAtSlot(ERROR_IO, volume, index, slot + 1);
    store<u32>(at, 1, K_STATE);
    return DONE;
  }
  if (state == 4) {
    let bad = readTaken(ticket, at);
    let header = load<u32>(at, K_HEADER);
    let left = load<u32>(item, W_END) - slot;
    if (bad || !recordVerify(header, load<u32>(volume, V_ID), blockOf(volume, index, slot), slot, left, load<u64>(item, W_FILL))) {
      // Its footer vouches for it, so below the durable sequence this is damage; above it the log ends here.
      if (bad) return failAtSlot(ERROR_IO, volume, index, slot);
      count(C_TAIL_TORN);
      return torn(which, at);
    }
    take(at, header);
    return DONE;
  }
  if (slot >= load<u32>(item, W_END)) {
    drop(at);
    if (load<u32>(at, K_ITEM) + 1 >= walkCount(which)) {
      store<u32>(at, 2, K_STATE);
      return DONE;
    }
    bump(<u32>at, K_ITEM, 1);
    store<u32>(at, load<u32>(walkAt(which, load<u32>(at, K_ITEM)), W_FIRST), K_SLOT);
    return DONE;
  }
  if (!load<u32>(at, K_AREA)) {
    let blocks = mode == 1 ? load<u32>(volume, V_FOOTER_BLOCKS) : load<u32>(item, W_END);
    let room = blocks << BLOCK_SHIFT;
    if (lacks(room)) return MEMORY;
    store<u32>(at, allocateBlocks(blocks), K_AREA);
    planRead(ticket, at, volume, blockOf(volume, index, mode == 1 ? load<u32>(volume, V_DATA_SLOTS) : 0), load<u32>(at, K_AREA), blocks, mode == 1 ? CHECK_FOOTER : CHECK_RECORDS);
    store<u32>(at, 3, K_STATE);
    return PLAN;
  }
  if (mode == 2) {
    let header = load<u32>(at, K_AREA) + (slot << BLOCK_SHIFT);
    let left = load<u32>(item, W_END) - slot;
    if (!recordVerify(header, load<u32>(volume, V_ID), blockOf(volume, index, slot), slot, left, load<u64>(item, W_FILL))) {
      return changed(volume, index, slot);
    }
    take(at, header);
    return DONE;
  }
  let entry = load<u32>(at, K_AREA) + FOOTER_FIXED_BYTES + slot * ENTRY_BYTES;
  if (entryKind(entry) != SLOT_HEADER) return failAtSlot(ERROR_CORRUPT, volume, index, slot);
  store<u64>(at, load<u64>(entry, 16), K_FIRST);
  if (load<u8>(entry, 1) & <u8>SLOT_FLAG_OPERATIONS) {
    if (lacks(BLOCK_BYTES)) return MEMORY;
    store<u32>(at, allocateBlocks(1), K_HEADER);
    planRead(ticket, at, volume, blockOf(volume, index, slot), load<u32>(at, K_HEADER), 1, CHECK_FIRST);
    store<u32>(at, 4, K_STATE);
    return PLAN;
  }
  store<u32>(at, RAID && load<u8>(entry, 1) & <u8>SLOT_FLAG_PADDING ? 0 : <u32>load<u16>(entry, 2), K_COUNT);
  store<u32>(at, load<u16>(entry, 2), K_BLOCKS);
  store<u64>(at, load<u32>(entry, 4), K_INCARNATION);
  store<u32>(at, 1, K_STATE);
  return DONE;
}

function take(at: usize, header: u32): void {
  store<u64>(at, load<u64>(header, R_FIRST), K_FIRST);
  store<u32>(at, recordSequences(header), K_COUNT);
  store<u32>(at, load<u16>(header, R_DATA), K_BLOCKS);
  store<u64>(at, load<u64>(header, R_INCARNATION), K_INCARNATION);
  store<u32>(at, 1, K_STATE);
}

/** Checks the data blocks of a record that nobody vouches for. DONE with the cursor at its end when they are not sound. */
function verifyData(ticket: u32, which: u32, at: usize): u32 {
  let item = walkAt(which, load<u32>(at, K_ITEM));
  let volume = load<u32>(item, W_VOLUME);
  let index = load<u32>(item, W_SEGMENT);
  let slot = load<u32>(at, K_SLOT);
  let blocks = load<u32>(at, K_BLOCKS);
  let data: u32 = 0;
  // From a footer the header is read too: a footer may have reached the disk without it, and the log cannot go on behind that.
  if (load<u32>(item, W_MODE) == 2) data = load<u32>(at, K_AREA) + ((slot + 1) << BLOCK_SHIFT);
  else {
    if (!load<u32>(at, K_DATA)) {
      let room = (blocks + 1) << BLOCK_SHIFT;
      if (lacks(room)) return MEMORY;
      store<u32>(at, allocateBlocks(blocks + 1), K_DATA);
      planRead(ticket, at, volume, blockOf(volume, index, slot), load<u32>(at, K_DATA), blocks + 1, CHECK_RECORDS);
      store<u32>(at, 5, K_STATE);
      return PLAN;
    }
    let first = load<u32>(at, K_DATA);
    if (!recordVerify(first, load<u32>(volume, V_ID), blockOf(volume, index, slot), slot, load<u32>(item, W_END) - slot, load<u64>(item, W_FILL))) {
      count(C_TAIL_TORN);
      return torn(which, at);
    }
    data = first + BLOCK_BYTES;
  }
  let header = headerOf(item, at);
  let fill = load<u64>(item, W_FILL);
  let place: u32 = 0;
  let entries = header ? <u32>load<u16>(header, R_ENTRIES) : blocks;
  for (let i: u32 = 0; i < entries && place < blocks; i++) {
    let entry = header ? header + RECORD_FIXED_BYTES + i * ENTRY_BYTES : load<u32>(at, K_AREA) + FOOTER_FIXED_BYTES + (slot + 1 + i) * ENTRY_BYTES;
    if (entryKind(entry) == ENTRY_TRIM) continue;
    let seed = blockSeed(fill, slot + 1 + place, entryBlock(entry), entryBirth(entry));
    if (xxh64(data + (place << BLOCK_SHIFT), BLOCK_BYTES, seed) != entrySum(entry)) {
      count(C_TAIL_DATA_BAD);
      return torn(which, at);
    }
    place++;
  }
  store<u32>(at, 1, K_VERIFIED);
  return DONE;
}

/** The header of the record at hand, where it is in memory; 0 where its footer stands for it. */
function headerOf(item: u32, at: usize): u32 {
  if (load<u32>(item, W_MODE) == 2) return load<u32>(at, K_AREA) + (load<u32>(at, K_SLOT) << BLOCK_SHIFT);
  return load<u32>(at, K_HEADER);
}

/** Passes over padding whose sequence is applied. */
function padded(which: u32): bool {
  let at = cursor(which);
  if (load<u32>(at, K_STATE) != 1 || load<u32>(at, K_COUNT) || load<u64>(at, K_FIRST) > applied) return false;
  let item = walkAt(which, load<u32>(at, K_ITEM));
  let header = headerOf(item, at);
  taken(at, item, header, load<u32>(at, K_SLOT) + 1 + load<u32>(at, K_BLOCKS), load<u32>(item, W_VOLUME), load<u32>(item, W_SEGMENT));
  return true;
}

/** Entries of the record at hand that are applied, and where the next one's block is: memory ran short in between. */
let resumed: u32 = 0;
let resumedPlace: u32 = 0;
function resume(entry: u32, place: u32): u32 {
  resumed = entry;
  resumedPlace = place;
  return MEMORY;
}

/** A trim stopped for want of memory: room for many leaves more, since it begins anew. */
function trimLacks(): u32 {
  lacksTimes(RAID && leafRoom() > 131072 ? 3 : TRIM_LEAVES, leafRoom(), 0);
  return MEMORY;
}

function apply(which: u32, at: usize): u32 {
  let item = walkAt(which, load<u32>(at, K_ITEM));
  let volume = load<u32>(item, W_VOLUME);
  let id = load<u32>(volume, V_ID);
  let index = load<u32>(item, W_SEGMENT);
  let slot = load<u32>(at, K_SLOT);
  let first = load<u64>(at, K_FIRST);
  let blocks = load<u32>(at, K_BLOCKS);
  let header = headerOf(item, at);
  let block = blockOf(volume, index, slot);
  let kind: u32 = 0;
  if (header) kind = load<u8>(header, R_KIND);
  if (kind == RECORD_OPERATION) {
    let payload = header + RECORD_FIXED_BYTES;
    let bytes = load<u32>(header, R_PAYLOAD);
    if (!payloadBytes(payload, 3840)) return failAt(ERROR_CORRUPT, id, block);
    if (operationLacks(payload)) return MEMORY;
    if (!operationApply(payload, bytes, first)) return operationResult == OPERATION_LACKS ? trimLacks() : failAt(ERROR_CORRUPT, id, block);
  } else {
    let footerEntry = header ? 0 : load<u32>(at, K_AREA) + FOOTER_FIXED_BYTES + slot * ENTRY_BYTES;
    let move = header ? kind == RECORD_MOVE : (load<u8>(footerEntry, 1) & <u8>SLOT_FLAG_MOVE) != 0;
    let sourceVolume: u32 = 0;
    let sourceBlock: u32 = 0;
    if (move) {
      sourceVolume = header ? <u32>load<u16>(header, R_SOURCE_VOLUME) : <u32>load<u16>(footerEntry, 8);
      let from = volumeById(sourceVolume);
      // The volume may have been given back since: then the image has the move already, and this changes nothing.
      if (from) sourceBlock = (header ? load<u32>(header, R_SOURCE_SEGMENT) : load<u32>(footerEntry, 10)) * load<u32>(from, V_SEGMENT_BLOCKS);
    }
    let entries = header ? <u32>load<u16>(header, R_ENTRIES) : blocks;
    let place = resumed ? resumedPlace : block + 1;
    if (RAID && !resumed) { // the smaller core does without: it has no room for it
      let entry = header ? header + RECORD_FIXED_BYTES : footerEntry + ENTRY_BYTES;
      for (let i: u32 = 0; i < entries; i++, entry += ENTRY_BYTES) tableExpect(entrySpace(entry), entryBlock(entry));
      tableWarm();
    }
    let sure: u32 = 0; // entries from here on for which there is room
    for (let i = resumed; i < entries; i++) {
      // A history may be of megabytes: room for one entry at a time then, else for some.
      let room = leafRoom();
      if (!RAID || room > 1048576) {
        if (lacks(room)) return resume(i, place);
      } else if (sure == 0) {
        if (lacks(16 * room)) return resume(i, place);
        sure = 15;
      } else sure--;
      let entry = header ? header + RECORD_FIXED_BYTES + i * ENTRY_BYTES : footerEntry + (1 + i) * ENTRY_BYTES;
      let space = entrySpace(entry);
      let sequence = first + <u64>i;
      if (move) {
        space = spaceForward(space);
        if (spacePointer(space)) {
          tableMove(space, entryBlock(entry), entryBirth(entry), sourceVolume, sourceBlock + entrySourceSlot(entry), id, place, sequence);
        }
        place++;
        continue;
      }
      let beyond = entryBlock(entry) + (entryKind(entry) == ENTRY_TRIM ? entrySum(entry) : 1) > <u64>0xfffffffe * <u64>leafBlocks;
      if (!spacePointer(space) || entryBirth(entry) != epoch || beyond) return failAt(ERROR_CORRUPT, id, block);
      if (entryKind(entry) == ENTRY_TRIM) {
        if (entrySum(entry) > 300 * <u64>leafBlocks) return failAt(ERROR_CORRUPT, id, block);
        if (!tableTrim(space, entryBlock(entry), entrySum(entry), entryBirth(entry), sequence)) {
          resume(i, place);
          return trimLacks();
        }
        sure = 0;
      } else {
        tablePut(space, entryBlock(entry), id, place, entryBirth(entry), sequence);
        place++;
      }
    }
    resumed = 0;
  }
  // The segment's own record: it is in the replay range.
  let segment = segmentOf(volume, index);
  let last = first + <u64>load<u32>(at, K_COUNT) - 1;
  if (load<u8>(segment, SEG_STATE) != <u8>SEALED || load<u64>(segment, SEG_FILL) != load<u64>(item, W_FILL)) {
    store<u8>(segment, <u8>SEALED, SEG_STATE);
    store<u64>(segment, load<u64>(item, W_FILL), SEG_FILL);
    store<u64>(segment, first, SEG_FIRST);
    store<u8>(segment, <u8>which, SEG_STREAM);
  }
  if (!load<u64>(segment, SEG_FIRST)) store<u64>(segment, first, SEG_FIRST);
  store<u64>(segment, last, SEG_LAST);
  if (RAID && last > durableMost && !load<u32>(item, W_UNSURE)) store<u32>(item, slot + 1, W_UNSURE);
  taken(at, item, header, slot + 1 + blocks, volume, index);
  return DONE;
}

/** The cursor goes behind a record: up to here the segment is in use. */
function taken(at: usize, item: u32, header: u32, slot: u32, volume: u32, index: u32): void {
  let segment = segmentOf(volume, index);
  store<u16>(segment, <u16>slot, SEG_USED);
  let whole = load<u32>(item, W_MODE) == 1 && slot == load<u32>(item, W_END);
  store<u8>(segment, whole ? <u8>SEG_HAS_FOOTER : 0, SEG_FLAGS);
  segmentChanged(volume, index);
  store<u32>(at, slot, K_SLOT);
  store<u64>(at, header ? load<u64>(header, R_CHECKSUM) : 0, K_CHAIN); // unknown in the middle of a footer; known again at its end
  if (slot == load<u32>(item, W_END)) store<u64>(at, load<u64>(item, W_CHAIN_END), K_CHAIN);
  dropRecord(at);
  store<u32>(at, 0, K_STATE);
}

/** Both streams have ended. A log that ends before what is known to be durable is damaged. */
function replayEnd(): u32 {
  if (applied < durableMost && !(PLANTS && planted == PLANT_BAD_RECORD_ENDS_LOG)) {
    return failAt(ERROR_CORRUPT, stopVolume, stopBlock);
  }
  return DONE;
}

export function replayFinish(): void {
  gateEnd();
  sequenceSet(applied);
  durableSet(applied);
  tableRecount();
  // Where replay starts is not free, even if nothing in it counts, whatever the table knew of an earlier fill.
  for (let start = starts; start < starts + 48; start += 24) {
    let volume = volumeById(load<u16>(start));
    if (!volume) continue;
    let segment = segmentOf(volume, load<u32>(start, 4));
    let fill = load<u64>(start, 8);
    if (load<u8>(segment, SEG_STATE) && load<u64>(segment, SEG_FILL) >= fill) continue;
    segmentBlank(segment, SEALED);
    store<u64>(segment, fill, SEG_FILL);
  }
  for (let volume = volumeHead; volume; volume = load<u32>(volume, V_NEXT)) {
    let id = load<u32>(volume, V_ID);
    let unused: u32 = 0;
    for (let index: u32 = 0; index < load<u32>(volume, V_SEGMENT_COUNT); index++) {
      let segment = segmentOf(volume, index);
      if (load<u32>(segment, SEG_META_LIVE)) store<u8>(segment, <u8>META, SEG_STATE);
      else if (load<u8>(segment, SEG_STATE) == <u8>FREE) {
        if (liveCount(id, index)) store<u8>(segment, <u8>SEALED, SEG_STATE); // referred to, whatever the table says
        else unused++;
      }
    }
    store<u32>(volume, unused, V_FREE);
  }
  volumeTotals();
}

// ---- going on ----------------------------------------------------------------------------------------------------

let continueState: u32 = 0;

/** Where a stream stands: its last segment with a record, or the empty one that follows a sealed segment. */
function standing(which: u32): u32 {
  let total = walkCount(which);
  if (!total) return 0;
  let at = cursor(which);
  let item = load<u32>(at, K_ITEM);
  // Behind the last record of a sealed segment: the one that its footer names goes on.
  while (load<u32>(walkAt(which, item), W_MODE) == 1 && load<u32>(at, K_SLOT) == load<u32>(walkAt(which, item), W_END) && item + 1 < total) {
    item++;
    store<u32>(at, item, K_ITEM);
    store<u32>(at, load<u32>(walkAt(which, item), W_FIRST), K_SLOT);
  }
  return walkAt(which, item);
}

// Segments of the tail, one after the other, for volume/mend.ts: those with records that nobody vouches for, from there on,
// and footers that may have been written after the last flush that is known.
export let tailVolume: u32 = 0;
export let tailSegment: u32 = 0;
export let tailSlot: u32 = 0;
let tailStream: u32 = 0;
let tailAt: u32 = 0;
export function tailNext(): bool {
  while (!clean && tailStream < 2) {
    let total = walkCount(tailStream);
    if (tailAt >= total || tailAt > load<u32>(cursor(tailStream), K_ITEM)) {
      tailStream++;
      tailAt = 0;
      continue;
    }
    let item = walkAt(tailStream, tailAt++);
    tailVolume = load<u32>(item, W_VOLUME);
    tailSegment = load<u32>(item, W_SEGMENT);
    tailSlot = load<u32>(item, W_UNSURE);
    let segment = segmentOf(tailVolume, tailSegment);
    if (load<u8>(segment, SEG_STATE) != <u8>SEALED || load<u64>(segment, SEG_FILL) != load<u64>(item, W_FILL)) continue;
    // Sealed right behind where replay starts: no record of it was applied to say so.
    if (load<u32>(item, W_MODE) == 1 && <u32>load<u16>(segment, SEG_USED) == load<u32>(item, W_END)) {
      store<u8>(segment, load<u8>(segment, SEG_FLAGS) | <u8>SEG_HAS_FOOTER, SEG_FLAGS);
      segmentChanged(tailVolume, tailSegment);
    }
    if (tailSlot) tailSlot--;
    else if (load<u8>(segment, SEG_FLAGS) & <u8>SEG_HAS_FOOTER && (tailAt >= load<u32>(cursor(tailStream), K_ITEM) || load<u32>(walkAt(tailStream, tailAt), W_UNSURE))) tailSlot = load<u32>(tailVolume, V_DATA_SLOTS);
    else continue;
    return true;
  }
  return false;
}

/** The footer of the segment at hand cannot be had any more: it gets another one, from its headers. */
export function tailFooterGone(): void {
  store<u32>(walkAt(tailStream, tailAt - 1), 2, W_MODE);
}

let blankStream: u32 = 0;
let blanking: bool = false;

/**
 * Zeros behind the end of each segment that a stream goes on in, where blocks stand more than once. A life before may have written more of that fill, records or the
 * footer: on a member that loses a write of this life it would be sound still, and of the same fill. A flush must follow.
 */
export function blankRun(ticket: u32): u32 {
  while (true) {
    if (blanking) {
      markWritten(ticket);
      if (load<u32>(ticket, T_RESULT)) return fail(ERROR_IO);
      planClear(ticket);
      free(area);
      blanking = false;
      blankStream++;
    }
    if (clean || blankStream == 2) return DONE;
    let item = standing(blankStream);
    let volume = item ? load<u32>(item, W_VOLUME) : 0;
    let slots = load<u32>(cursor(blankStream), K_SLOT);
    if (!goesOn(blankStream, item) || !redundant(volume) || slots % unitOf(volume)) {
      blankStream++;
      continue;
    }
    if (lacks(2 * bufferBytes(load<u32>(volume, V_SEGMENT_BLOCKS)))) return MEMORY;
    let blocks = load<u32>(volume, V_SEGMENT_BLOCKS) - slots;
    area = allocateBlocks(blocks);
    clear(area, blocks << BLOCK_SHIFT);
    planClear(ticket);
    planBlocks(ticket, WRITE, volume, blockOf(volume, load<u32>(item, W_SEGMENT), slots), area, blocks);
    blanking = true;
    return PLAN;
  }
  return DONE; // not reached; the compiler does not see it
}

/** Whether the stream goes on in this segment, or in another one as the segment is sealed. */
function goesOn(which: u32, item: u32): bool {
  return item != 0 && (load<u32>(item, W_MODE) != 1 || load<u32>(cursor(which), K_SLOT) != load<u32>(item, W_END));
}

let mendStream: u32 = 0;
let mendItem: u32 = 0;
let mendState: u32 = 0;

/**
 * A segment that the stream went on from, whose footer was lost with the tail, gets it now: the next root names a later
 * segment as the open one, and only a footer tells what follows.
 */
function mendFooters(ticket: u32): u32 {
  while (mendStream < 2) {
    if (!walkCount(mendStream) || mendItem >= load<u32>(cursor(mendStream), K_ITEM)) {
      mendStream++;
      mendItem = 0;
      continue;
    }
    let item = walkAt(mendStream, mendItem);
    if (mendState == 0 && (load<u32>(item, W_MODE) == 1 || cutFind(load<u64>(item, W_FILL)))) {
      mendItem++;
      continue;
    }
    let volume = load<u32>(item, W_VOLUME);
    let index = load<u32>(item, W_SEGMENT);
    let used = load<u32>(item, W_END);
    let dataSlots = load<u32>(volume, V_DATA_SLOTS);
    let footerBlocks = load<u32>(volume, V_FOOTER_BLOCKS);
    if (mendState == 0) {
      if (lacks(2 * bufferBytes(load<u32>(volume, V_SEGMENT_BLOCKS)))) return MEMORY;
      planClear(ticket);
      area = allocateBlocks(used + footerBlocks);
      planChecked(ticket, READ, volume, blockOf(volume, index, 0), area, used, CHECK_HEADERS, item + <u32>W_FILL);
      mendState = 1;
      return PLAN;
    }
    if (load<u32>(ticket, T_RESULT)) return failAtSlot(ERROR_IO, volume, index, 0);
    if (mendState == 1) {
      let entries = allocate(used * ENTRY_BYTES + 8);
      if (RAID) memory.fill(entries, 0, used * ENTRY_BYTES); // padding has none
      if (headersToEntries(area, volume, index, used, load<u64>(item, W_FILL), entries) != used) {
        return changed(volume, index, 0);
      }
      let next = walkAt(mendStream, mendItem + 1);
      let footer = area + (used << BLOCK_SHIFT);
      clear(footer, footerBlocks << BLOCK_SHIFT);
      footerBuild(
        footer, volume, index, mendStream, used, entries, load<u64>(item, W_CHAIN_END), load<u32>(next, W_VOLUME), load<u32>(next, W_SEGMENT),
        load<u64>(next, W_FILL),
      );
      free(entries);
      planClear(ticket);
      planBlocks(ticket, WRITE, volume, blockOf(volume, index, dataSlots), footer, footerBlocks);
      mendState = 2;
      return PLAN;
    }
    if (mendState == 2) {
      planClear(ticket);
      planMemberFlushes(ticket, volume, 0xffffffff);
      mendState = 3;
      return PLAN;
    }
    let segment = segmentOf(volume, index);
    store<u8>(segment, load<u8>(segment, SEG_FLAGS) | <u8>SEG_HAS_FOOTER, SEG_FLAGS);
    segmentChanged(volume, index);
    count(C_FOOTER_MENDED);
    free(area);
    mendState = 0;
    mendItem++;
  }
  return DONE;
}

let cutting: u32 = 0;

/** A stream that ends within a stripe goes on in a fresh segment, which the root names. 0, or a code. */
function goElsewhere(which: u32): u32 {
  let item = standing(which);
  if (!segmentAdvance(which, true)) return ERROR_NO_SPACE;
  let cut = cutTo(which, openBuffer(which));
  if (!cut) return ERROR_LIMIT;
  count(C_STRIPE_CUT);
  placeStore(cut, load<u32>(item, W_VOLUME), load<u32>(cursor(which), K_SLOT), load<u32>(item, W_SEGMENT), load<u64>(item, W_FILL));
  return 0;
}

/** Loads the open segments of both streams, so that they can be filled further, and takes up the metadata streams. */
export function continueRun(ticket: u32): u32 {
  while (true) {
    if (continueState >= 2) {
      let status = mendFooters(ticket);
      if (status != DONE) return status;
      let room: u32 = 4 * bufferBytes(segmentBlocksMost);
      if (lacks(room)) return MEMORY;
      if (RAID) for (let stream: u32 = 0; stream < 2; stream++) {
        if (!(cutting & (1 << stream))) continue;
        let bad = goElsewhere(stream);
        if (bad) return fail(bad);
      }
      openMeta();
      return DONE;
    }
    let which = continueState & 1;
    let item = standing(which);
    let at = cursor(which);
    if (!goesOn(which, item)) {
      // No segment, or one sealed without a successor: the next one comes from the list.
      chainSet(which, item ? load<u64>(at, K_CHAIN) : load<u64>(streamRecord(which), S_START_CHAIN));
      continueState++;
      continue;
    }
    let volume = load<u32>(item, W_VOLUME);
    let slots = load<u32>(at, K_SLOT);
    if (walkState != 9) {
      if (lacks(bufferBytes(load<u32>(volume, V_SEGMENT_BLOCKS)) * 2)) return MEMORY;
      walkState = 9;
      planClear(ticket);
      area = allocateBlocks(max(slots, 1));
      if (slots) {
        planChecked(ticket, READ, volume, blockOf(volume, load<u32>(item, W_SEGMENT), 0), area, slots, CHECK_HEADERS, item + <u32>W_FILL);
        return PLAN;
      }
    }
    if (RAID && lacks(bufferBytes(load<u32>(volume, V_SEGMENT_BLOCKS)))) return MEMORY; // what lies between took some
    walkState = 0;
    let index = load<u32>(item, W_SEGMENT);
    let fill = load<u64>(item, W_FILL);
    if (slots && load<u32>(ticket, T_RESULT)) return fail(ERROR_IO);
    let segment = segmentOf(volume, index);
    let firstSequence = load<u64>(segment, SEG_FIRST);
    let lastSequence = load<u64>(segment, SEG_LAST);
    if (load<u8>(segment, SEG_STATE) == <u8>FREE) segmentLeaveFree(volume, segment, SEALED);
    chainSet(which, load<u64>(at, K_CHAIN));
    if (RAID && slots % unitOf(volume)) {
      // Within a stripe whose other blocks are durable nothing may be written again.
      if (!load<u64>(at, K_CHAIN)) chainSet(which, lastHeader(area, slots));
      free(area);
      cutting |= 1 << which; // when both streams have what is theirs
      continueState++;
      continue;
    }
    let buffer = bufferOpen(which, volume, index, fill);
    memory.copy(load<u32>(buffer, B_DATA), area, slots << BLOCK_SHIFT);
    free(area);
    let sound = headersToEntries(load<u32>(buffer, B_DATA), volume, index, slots, fill, load<u32>(buffer, B_ENTRIES));
    if (sound != slots) return changed(volume, index, sound);
    if (slots && !load<u64>(at, K_CHAIN)) chainSet(which, lastHeader(load<u32>(buffer, B_DATA), slots));
    store<u32>(buffer, slots, B_FILL);
    store<u32>(buffer, slots, B_SUBMITTED);
    store<u32>(buffer, slots, B_DURABLE);
    store<u32>(buffer, slots, B_LOADED);
    store<u64>(buffer, load<u64>(at, K_CHAIN) ? load<u64>(at, K_CHAIN) : lastHeader(load<u32>(buffer, B_DATA), slots), B_DURABLE_CHAIN);
    store<u64>(segment, firstSequence, SEG_FIRST);
    store<u64>(segment, lastSequence, SEG_LAST);
    store<u16>(segment, <u16>slots, SEG_USED);
    continueState++;
  }
}

/** Checksum of the last header among the first `slots` slots of a segment's image. */
function lastHeader(data: u32, slots: u32): u64 {
  let slot: u32 = 0;
  let last: u64 = 0;
  while (slot < slots) {
    let header = data + (slot << BLOCK_SHIFT);
    last = load<u64>(header, R_CHECKSUM);
    slot += recordSlots(header);
  }
  return last;
}

function openMeta(): void {
  nextCountSet(0, 0);
  nextCountSet(1, 0);
  for (let copy: u32 = 0; copy < 2; copy++) {
    let record = openedRoot + O_META + copy * 16;
    let volume = volumeById(load<u16>(record));
    let index = load<u32>(record, 4);
    let slot = <u32>load<u16>(record, 2);
    if (RAID && volume) slot = ((slot + unitOf(volume) - 1) / unitOf(volume)) * unitOf(volume);
    if (!volume || index >= load<u32>(volume, V_SEGMENT_COUNT) || slot >= load<u32>(volume, V_SEGMENT_BLOCKS)) continue;
    let segment = segmentOf(volume, index);
    if (load<u8>(segment, SEG_STATE) != <u8>META) continue; // nothing in it counts any more: it is free
    let buffer = bufferOpen(STREAM_META + copy, volume, index, 0);
    store<u32>(buffer, slot, B_FILL);
    store<u32>(buffer, slot, B_SUBMITTED);
    store<u32>(buffer, slot, B_DURABLE);
    store<u16>(segment, <u16>slot, SEG_USED);
  }
}
