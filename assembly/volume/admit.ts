// What may be written, and when a volume is wanted.
//
// The reserve is what delete, trim, compaction and checkpoint need so that they always work: two generations of the
// metadata's worst case in two copies, the open and next segments of each stream, two victims. A user's write takes no
// segment out of it; other records leave what a checkpoint takes.

import { count } from '../std/counters';
import { DONE, ERROR_NO_SPACE, ERROR_READ_ONLY, FAILED, MEMORY, WAIT, fail, lacksTimes } from '../abi/status';
import { T_E, T_F, T_NUMBER, ticketsOpened } from '../abi/ticket';
import { FRAGMENT_PAYLOAD_MAX, INDEX_NODES } from '../format/page';
import { stateBytesNow } from './state';
import { historyRoom, leafRoomPlain, leavesTotal, liveCount, liveDeathSequence, liveTotal } from '../table/index';
import {
  SEALED, SEG_BAD, SEG_BUFFER, SEG_FILL, SEG_FLAGS, SEG_LAST, SEG_STATE, VOLUME_ACTIVE, V_DATA_SLOTS, V_FREE, V_ID, V_NEXT, V_SEGMENT_BLOCKS,
  V_SEGMENT_COUNT, V_STATE, capacityBlocks, eachIndex, eachSegment, eachVolume, freeTotal, segmentBlocksMost, segmentTotal, segmentsBegin,
  segmentsNext, volumeCount, volumeHead,
} from '../log/volumes';
import {
  B_PINS, STREAM_SURVIVOR, STREAM_USER, bufferBytes, durableSequence, headerRoom, isStart, nextCount, openBuffer, recordRoom, segmentAdvance,
  slotsLeft, unflushedBlocks, nextLists,
} from '../log/writer';
import { LIST_STRIDE } from '../format/root';
import { listHead } from './root';
import { RECORD_DATA_MAX } from '../format/record';
import { C_NO_SPACE, C_RESERVE_REACHED } from '../log/counting';
import { collectFree } from './flush';
import { failedReadOnly, flushFailure, replaySequence, running, wantCheckpoint, wantFlush, wantRoot } from './mode';

/**
 * With so many blocks unflushed the log flushes by itself, with twice as many a write waits for that. The core with RAID begins with half: its devices flush beside
 * the writer (sequential writes with a flush every 64 MiB: 0.88 and 0.80 of the raw file's speed against 0.74 and 0.73, bench/sequential.ts, 2026-11, medians of five runs of either, when a root followed
 * such flushes).
 */
export let unflushedLimit: u32 = 16384; // 64 MiB
export function unflushedLimitSet(blocks: u32): void { unflushedLimit = blocks; }

// Capacity policy.
export let growAt: f64 = 0.95;
export let compactTo: f64 = 0.8;
export let shrinkBelow: f64 = 0.7;
export let growMode: u32 = 0; // 0 auto, 1 fixed
export let volumesMin: u32 = 1;
export let volumesMax: u32 = 0xffffffff;
export function policySet(grow: f64, compact: f64, shrink: f64, mode: u32, least: u32, most: u32): void {
  growAt = grow;
  compactTo = compact;
  shrinkBelow = shrink;
  growMode = mode;
  volumesMin = max(least, 1);
  volumesMax = most;
}

let denied: bool = false;
/** Tickets opened when growing was denied last. That answers them; one that comes later and needs room asks anew. */
let deniedAt: u32 = 0;
export function growthDenied(): void {
  denied = true;
  deniedAt = ticketsOpened;
  growUrgent = false;
}
export function growthAllowed(): void { denied = false; }
/** Tickets that wait for space since the last job ended: compaction is urgent then. */
export let spaceWaiters: u32 = 0;
export function spaceWaitersClear(copied: bool): void {
  spaceWaiters = 0;
  growUrgent = false;
  if (!copied) noRoom = 0;
}
/**
 * How often in a row compaction found no room to copy into, since something may have come free: after the first time the volume that is being given back
 * has to wait for segments that gain something, after the second nothing is to be had by copying.
 */
export let noRoom: u32 = 0;
export function noRoomSet(times: u32): void { noRoom = times; }
/** A write waits that only growing can help. */
let growUrgent: bool = false;
/** Kinds of tickets that free segments when they end: flush, checkpoint, compaction. */
const MAKING_ROOM: u32 = (1 << 7) | (1 << 9) | (1 << 10);
/** Compactions finished: a waiter that has seen too many of them without getting room gives up. */
export let compactions: u32 = 0;
export function compactionCount(): void { compactions++; }

let largestSegment: u32 = 8;
/**
 * Worst-case metadata pages per copy for the capacity: 20 bytes a block and 64 a leaf, what names snapshots, one partly filled page per fragment, index over
 * them.
 */
function metadataPages(): u32 {
  let bytes = capacityBlocks * 20;
  if (RAID) bytes += <f64>leavesTotal * 64 + <f64>stateBytesNow;
  let pages = <u32>(bytes / <f64>(FRAGMENT_PAYLOAD_MAX - 40)) + 3 + segmentTotal / 128;
  return pages + pages / INDEX_NODES + 2;
}

/** Segments that one copy of the metadata takes in the worst case. */
function metadataSegments(): u32 {
  largestSegment = 8;
  let smallest: u32 = 0xffff;
  for (let volume = volumeHead; volume; volume = load<u32>(volume, V_NEXT)) {
    if (load<u32>(volume, V_STATE) != VOLUME_ACTIVE) continue;
    largestSegment = max(largestSegment, load<u32>(volume, V_SEGMENT_BLOCKS));
    smallest = min(smallest, load<u32>(volume, V_SEGMENT_BLOCKS));
  }
  if (RAID) smallestSegment = smallest;
  return (metadataPages() + smallest - 1) / smallest;
}
let smallestSegment: u32 = 0;

/** Segments of 8 blocks hold so few records that some snapshots of a full log would leave no room for the trims that free some: a few more of those. */
export function reserveSegments(): u32 {
  return 4 * metadataSegments() + 8 + (RAID ? 32 / smallestSegment : 0);
}

/** Free segments that are left to the checkpoint whatever happens: both copies of its pages. */
export function checkpointFloor(): u32 {
  return 2 * metadataSegments() + 2;
}

export function freeSegments(): u32 {
  return freeTotal + nextCount(STREAM_USER);
}

export function liveBlocks(): f64 {
  let live: f64 = 0;
  for (let volume = volumeHead; volume; volume = load<u32>(volume, V_NEXT)) live += <f64>liveTotal(load<u32>(volume, V_ID));
  return live;
}

/**
 * Blocks that copying the segment's live blocks away gains at least: its slots, less the blocks, their headers, and one header
 * more because a record does not cross the end of a segment.
 */
export function segmentGain(dataSlots: u32, live: u32): i32 {
  return <i32>dataSlots - <i32>live - <i32>((live + RECORD_DATA_MAX - 1) / RECORD_DATA_MAX) - 1;
}

/** 1: policy says that the log should grow now; 2: a write waits for it. */
export function wantsVolume(): u32 {
  if (growMode != 0 || denied || volumeCount >= volumesMax || failedReadOnly) return 0;
  if (spaceWaiters && (growUrgent || liveHigh())) return 2;
  let total = <f64>segmentTotal;
  let reserve = reserveSegments();
  let room = <f64>freeSegments();
  let full = room <= (1 - growAt) * total || room <= <f64>(reserve + 2);
  return full && liveHigh() ? 1 : 0;
}

/** live / (capacity − reserve) ≥ compactTo: cleaning would not help enough. */
function liveHigh(): bool {
  let segments = <f64>segmentTotal;
  if (segments == 0) return true;
  let usable = capacityBlocks * (segments - <f64>reserveSegments()) / segments;
  return usable <= 0 || liveBlocks() >= compactTo * usable;
}

/** A volume that could be given back: without it live data would stay under shrinkBelow. The last in order, or -1. */
export function canGiveVolume(): i32 {
  if (growMode != 0 || volumeCount <= volumesMin || spaceWaiters) return -1;
  let candidate: u32 = 0;
  let active: u32 = 0;
  for (let volume = volumeHead; volume; volume = load<u32>(volume, V_NEXT)) {
    if (load<u32>(volume, V_STATE) != VOLUME_ACTIVE) return -1; // one at a time
    active++;
    candidate = volume;
  }
  if (active < 2) return -1;
  let own = <f64>load<u32>(candidate, V_SEGMENT_COUNT);
  let left = capacityBlocks - own * <f64>load<u32>(candidate, V_DATA_SLOTS);
  let segments = <f64>segmentTotal - own;
  let usable = left * (segments - <f64>reserveSegments()) / segments;
  // The others must have room right now: a volume that is being given back has none to offer.
  if (freeTotal - load<u32>(candidate, V_FREE) < reserveSegments() + load<u32>(candidate, V_SEGMENT_COUNT) / 4) return -1;
  return liveBlocks() < shrinkBelow * usable ? <i32>load<u32>(candidate, V_ID) : -1;
}

/**
 * Whether jobs should make room before anyone has to wait. A log that does not grow, or no further, has nothing to prepare for but the next write: it copies in
 * step with what is written, so that about one more segment can be filled beyond the reserve, the rest of the open ones included. At 80 % live (bench/amplification.ts,
 * 2026-11), uniform and Zipf: 2.99 and 2.28 with three quarters of a segment, 3.00 and 2.28 with one, 3.07 and 2.33 with three segments and without
 * the open ones; 2.98 and 2.37 with half, when writes come to wait, and checkpoints are asked for.
 */
export function spaceLow(): bool {
  let room = freeSegments();
  let reserve = reserveSegments();
  if (RAID && (growMode != 0 || volumeCount >= volumesMax)) return <f64>room + <f64>(slotsLeft(STREAM_USER) + slotsLeft(STREAM_SURVIVOR)) / <f64>segmentBlocksMost <= <f64>reserve + 0.75;
  return <f64>room <= (1 - growAt) * <f64>segmentTotal || room <= reserve + 3;
}

/** Memory for one more record of neighbours, and for a segment to put it into. They lie in two leaves: two histories, each of which may move a few times. */
function recordLacks(blocks: u32): bool {
  return lacksTimes(8, historyRoom(blocks), blocks * leafRoomPlain() + bufferBytes(segmentBlocksMost));
}

/** Whether a record of so many blocks may be made now, as far as memory and what is not flushed go. */
function recordAllowed(blocks: u32): u32 {
  if (failedReadOnly) return fail(ERROR_READ_ONLY);
  if (recordLacks(blocks)) return MEMORY;
  if (unflushedBlocks() < 2 * unflushedLimit) return DONE;
  wantFlush(true); // also after one that failed: the next may succeed, and then writing goes on
  return flushFailure ? fail(flushFailure) : WAIT;
}

/** The stream goes on in its next segment. FAILED: it has none, and what is free is the checkpoint's. */
function nextSegment(stream: u32): u32 {
  let left = nextCount(stream);
  if (!left && freeTotal <= checkpointFloor()) return FAILED;
  // Only the root leads to a stream's first segment, a footer to all others.
  if (!openBuffer(stream) && listHead(stream) != load<u64>(nextLists + stream * LIST_STRIDE, 8)) left = 0;
  if (left <= 1) wantRoot(true);
  if (!left) return WAIT;
  segmentAdvance(stream, false);
  return DONE;
}

/**
 * The user's open segment is out of the reserve: for deletes and trims alone. Their records are garbage with the next checkpoint; were writes to fill what such
 * segments have left, the reserve would be used up for good. After an open it is taken to be so.
 */
let lent: bool = true;

/** Whether `blocks` (0: a header alone) can go into the user stream now. `privileged` records may use half the reserve. */
export function admit(ticket: u32, kind: u32, blocks: u32, privileged: bool): u32 {
  let status = recordAllowed(blocks);
  if (status != DONE) return status;
  if (unflushedBlocks() >= (RAID ? unflushedLimit / 2 : unflushedLimit)) wantFlush(true);
  let room: bool = blocks ? recordRoom(STREAM_USER, kind) > 0 : headerRoom(STREAM_USER, kind);
  if (!privileged && (!room || lent) && freeSegments() <= reserveSegments()) {
    collectFree();
    if (freeSegments() <= reserveSegments()) return spaceWait(ticket, false);
  }
  if (room) return DONE;
  status = nextSegment(STREAM_USER);
  if (RAID && status == FAILED) {
    collectFree(); // not every flush does
    status = nextSegment(STREAM_USER);
  }
  lent = freeSegments() < reserveSegments();
  return status == FAILED ? spaceWait(ticket, privileged) : status;
}

/** The same for survivors of compaction, which may use all of the reserve. */
export function admitSurvivor(kind: u32): u32 {
  let status = recordAllowed(RECORD_DATA_MAX);
  if (status != DONE) return status;
  if (openBuffer(STREAM_SURVIVOR) && recordRoom(STREAM_SURVIVOR, kind) > 0) return DONE;
  status = nextSegment(STREAM_SURVIVOR);
  return status == FAILED ? fail(ERROR_NO_SPACE) : status;
}

/** Whether the survivors of one more victim may find no segment. */
export function survivorsShort(): bool {
  return nextCount(STREAM_SURVIVOR) < 2 && freeTotal <= checkpointFloor() + 2;
}

function spaceWait(ticket: u32, privileged: bool): u32 {
  count(C_RESERVE_REACHED);
  if (!load<u32>(ticket, T_F)) {
    store<u32>(ticket, 1, T_F);
    store<u32>(ticket, compactions, T_E);
  }
  spaceWaiters++;
  if (<i32>(load<u32>(ticket, T_NUMBER) - deniedAt) > 0) denied = false;
  if (wantsVolume()) return WAIT;
  if (running & MAKING_ROOM) return WAIT; // what it frees is not known before it ends
  if (compactions - load<u32>(ticket, T_E) <= 4 * segmentTotal + 16 && reclaim(privileged ? 1 : largestSegment)) return WAIT; // a write must not cost thousands of copies
  if (growMode == 0 && !denied && volumeCount < volumesMax) {
    growUrgent = true; // cleaning gives nothing: only another volume helps
    return WAIT;
  }
  spaceWaiters--;
  count(C_NO_SPACE);
  return fail(ERROR_NO_SPACE);
}

/**
 * Asks for the job that makes room soonest: a flush, a checkpoint, or compaction. False: there is nothing to be had. Copying counts
 * when it gains `gainLeast` blocks in all.
 */
function reclaim(gainLeast: i64): bool {
  let gain: i64 = 0;
  let flush = false;
  let checkpoint = false;
  let victim = false;
  let pinned = false; // somebody reads it: it is free when that ends
  for (segmentsBegin(); segmentsNext(); ) {
    let segment = eachSegment;
    if (load<u8>(segment, SEG_STATE) != <u8>SEALED || load<u8>(segment, SEG_FLAGS) & <u8>SEG_BAD) continue;
    let id = load<u32>(eachVolume, V_ID);
    let live = liveCount(id, eachIndex);
    let replayed = load<u64>(segment, SEG_LAST) > replaySequence || isStart(load<u64>(segment, SEG_FILL));
    if (live == 0) {
      if (replayed) checkpoint = true;
      else if (liveDeathSequence(id, eachIndex) > durableSequence || (load<u32>(segment, SEG_BUFFER) && !load<u32>(load<u32>(segment, SEG_BUFFER), B_PINS))) flush = true;
      else pinned = true;
      continue;
    }
    let gained = segmentGain(load<u32>(eachVolume, V_DATA_SLOTS), live);
    if (gained <= 0) continue;
    gain += gained;
    if (!replayed && !load<u32>(segment, SEG_BUFFER)) victim = true;
  }
  if (noRoom > 1) gain = 0;
  if (flush) wantFlush(true);
  else if (checkpoint) wantCheckpoint(true);
  else if (pinned) return true;
  else if (gain < gainLeast) return false;
  else if (!victim) wantCheckpoint(true);
  return true;
}

/** Whether segments that compaction emptied come free by a flush or a checkpoint, which is asked for. */
export function emptiedWanted(): bool {
  collectFree();
  return !failedReadOnly && !flushFailure && reclaim(i64.MAX_VALUE);
}
