// Operations, closing, and the jobs in the background: which of them is wanted, and the small ones themselves.
//
// In order of urgency: next segments for the streams, writing out, flushing, giving a volume back, checkpoints,
// merging spaces, compaction. A job that is running is not asked for again.

import { allocate, free } from '../std/allocator';
import { count } from '../std/counters';
import { PLANT_UNASSIGN_EARLY, planted } from '../std/plant';
import { DONE, ERROR_IO, FAILED, MEMORY, WAIT, fail, lacks } from '../abi/status';
import { T_A, T_DENIED, T_G, T_LENGTH, T_LOCK, T_OFFSET, T_SPACE, T_STATE, T_VALUE, ticketCount } from '../abi/ticket';
import { RECORD_OPERATION } from '../format/record';
import { LIST_BYTES, LIST_STRIDE } from '../format/root';
import { liveTotal, spaceSizeBytes } from '../table/index';
import {
  VOLUME_ACTIVE, VOLUME_EVACUATING, VOLUME_RELEASED, V_FREE, V_ID, V_NEXT, V_RELEASE_COMMITS, V_SEGMENT_COUNT, V_STATE, segmentBlocksMost,
  segmentFree, segmentOf, segmentsOfAll, volumeHead, volumeTotals,
} from '../log/volumes';
import {
  B_DURABLE, B_FILL, B_INFLIGHT, B_PINS, B_VOLUME, STREAM_META, bufferBytes, bufferFree, nextCount, nextCountSet, nextLists, openBuffer,
  openBufferSet, operationAppend, sealedCount, segmentAdvance, sequence, sequenceTake, unflushedBlocks, unsubmittedBlocks,
} from '../log/writer';
import { C_VOLUME_RELEASED } from '../log/counting';
import { BLOCK_BYTES } from '../format/constants';
import { admit, noRoom, spaceLow, spaceWaiters, wantsVolume } from './admit';
import { checkpointCount, checkpointOwner, checkpointRun, listsRenew } from './checkpoint';
import { choose, isCompacting } from './compact';
import { collectFree, cutsPending, flushRun } from './flush';
import { owner as mendOwner } from './mend';
import {
  MODE_CLOSED, MODE_WRITE, checkpointWanted, closing, closingSet, compactedFlushed, compactedUnflushed, failedReadOnly, flushWanted, mode, modeSet,
  rootWanted, running, runningSet, wantFlush,
} from './mode';
import { cutter, cutterSet, writeStep } from './readwrite';
import { homesFresh, lastDeath, rootCleanSet, rootOwner, rootRun, startSequence } from './root';
import {
  OP_CREATE_SOURCE, OP_FIXED_BYTES, OP_MERGE, OP_RESIZE, OP_SNAPSHOT, mergeChild, mergeFind, mergeParent, operationApply, operationBytes, operationLacks,
  operationPrepare, operationResult,
} from './state';
import { clear } from '../std/bytes';

export const JOB_FLUSH: u32 = 7;
export const JOB_CHECKPOINT: u32 = 9;
export const JOB_COMPACT: u32 = 10;
export const JOB_WRITEOUT: u32 = 12;
export const JOB_ROOT: u32 = 13;
export const JOB_MERGE: u32 = 14;

const WRITEOUT_BLOCKS: u32 = 512; // 2 MiB
let checkpointEntries: u64 = 2097152;
export function checkpointEntriesSet(entries: u32): void { checkpointEntries = entries; }

export function jobBegins(kind: u32): void { runningSet(running | (1 << kind)); }
export function jobEnds(kind: u32): void {
  runningSet(running & ~(1 << kind));
  activity++;
  if (RAID && kind == JOB_CHECKPOINT) mergeAsked = true; // one that was denied memory is tried again, now and then
}
function idle(kind: u32): bool { return (running & (1 << kind)) == 0; }

let activity: u32 = 1; // tickets ended: something may have changed
let mergeAsked: bool = true;
let compactedAt: u64 = 0; // sequence when compaction last found nothing
let compactionFailed: bool = false;
let sealedAtCheckpoint: u32 = 0;
let evacuationSeen: u64 = u64.MAX_VALUE;
let evacuationActivity: u32 = 0;

/** The kind of ticket that the core wants driven now, or 0. */
export function backgroundWanted(): u32 {
  if (mode != MODE_WRITE || failedReadOnly || closing) return 0;
  if (rootWanted && idle(JOB_ROOT) && !rootOwner) return JOB_ROOT;
  if (idle(JOB_WRITEOUT) && unsubmittedBlocks() >= WRITEOUT_BLOCKS) return JOB_WRITEOUT;
  if (flushWanted && idle(JOB_FLUSH)) return JOB_FLUSH;
  let job = evacuationJob();
  if (job) return job;
  if (idle(JOB_CHECKPOINT) && !checkpointOwner) {
    if (checkpointWanted || sequence - startSequence >= checkpointEntries || sealedCount - sealedAtCheckpoint >= strandedMost()) {
      sealedAtCheckpoint = sealedCount;
      return JOB_CHECKPOINT;
    }
  }
  if (mergeAsked && idle(JOB_MERGE) && !checkpointOwner) {
    if (mergeFind()) return JOB_MERGE;
    mergeAsked = false;
  }
  if (idle(JOB_COMPACT) && !isCompacting() && (spaceWaiters || spaceLow())) {
    if (spaceWaiters == 0 && wantsVolume() == 1) return 0; // growing comes first, the host is asked
    if (compactedUnflushed >= 2) return idle(JOB_FLUSH) ? JOB_FLUSH : 0;
    // Without room to copy into it is tried again once something may have come free: a job that ends at once and is wanted again would never stop.
    if (spaceWaiters == 0 && (noRoom || (compactionFailed && sequence - compactedAt < 64))) return 0;
    if (choose(spaceWaiters ? 1 : 0)) {
      compactionFailed = false;
      return JOB_COMPACT;
    }
    compactionFailed = true;
    compactedAt = sequence;
    // What could be copied lies in the replay range: a checkpoint puts it before.
    if (idle(JOB_CHECKPOINT) && !checkpointOwner && sealedCount - sealedAtCheckpoint >= 4) {
      sealedAtCheckpoint = sealedCount;
      return JOB_CHECKPOINT;
    }
  }
  return 0;
}

/**
 * Sealed segments in the replay range that strand too much: a sixth of all. They are not copied from meanwhile, and what is written often dies there:
 * at 80 % live, Zipf, 2.31 with an eighth, 2.27 with a sixth, 2.50 with a sixteenth (bench/amplification.ts, 2026-11).
 */
function strandedMost(): u32 {
  return max(segmentsOfAll() / 6, 4);
}

// ---- giving a volume back ----------------------------------------------------------------------------------------

function leavingVolume(): u32 {
  for (let volume = volumeHead; volume; volume = load<u32>(volume, V_NEXT)) if (load<u32>(volume, V_STATE) == VOLUME_EVACUATING) return volume;
  return 0;
}

function stateSet(volume: u32, state: u32): void {
  store<u32>(volume, state, V_STATE);
  volumeTotals();
}

/** Begins to give a volume back: nothing new goes there. */
export function evacuate(volume: u32): void {
  stateSet(volume, VOLUME_EVACUATING);
  store<u32>(volume, 0, V_RELEASE_COMMITS);
  evacuationSeen = u64.MAX_VALUE;
  for (let stream: u32 = 0; stream < 2; stream++) {
    let list = nextLists + stream * LIST_STRIDE;
    let kept: u32 = 0;
    for (let i: u32 = 0; i < nextCount(stream); i++) {
      let entry = list + i * LIST_BYTES;
      if (load<u16>(entry) == <u16>load<u32>(volume, V_ID)) {
        segmentFree(volume, segmentOf(volume, load<u32>(entry, 4)));
        continue;
      }
      memory.copy(list + kept * LIST_BYTES, entry, LIST_BYTES);
      kept++;
    }
    nextCountSet(stream, kept);
  }
}

// An open segment without a record stays where it is until it gets one: sealed, it would be nobody's, and come free while replay still goes through it.
function isOn(buffer: u32, volume: u32): bool {
  return buffer != 0 && load<u32>(buffer, B_VOLUME) == volume && load<u32>(buffer, B_FILL) != 0;
}

function openOn(volume: u32): bool {
  for (let stream: u32 = 0; stream < 4; stream++) if (isOn(openBuffer(stream), volume)) return true;
  return false;
}

function evacuationJob(): u32 {
  let volume = leavingVolume();
  if (!volume) return 0;
  if (running & ((1 << JOB_ROOT) | (1 << JOB_CHECKPOINT) | (1 << JOB_COMPACT) | (1 << JOB_FLUSH)) || rootOwner || checkpointOwner) return 0;
  let held = load<u32>(volume, V_SEGMENT_COUNT) - load<u32>(volume, V_FREE);
  if (held == 0) {
    if (RAID && mendOwner) return 0; // it flushes the members that it has written to
    if (load<u32>(volume, V_RELEASE_COMMITS) >= (PLANTS && planted == PLANT_UNASSIGN_EARLY ? <u32>0 : <u32>2)) {
      store<u32>(volume, VOLUME_RELEASED, V_STATE);
      count(C_VOLUME_RELEASED);
      return 0;
    }
    // Images of before the last move still name its blocks: they are written anew first.
    return lastDeath(volume) > startSequence ? JOB_CHECKPOINT : JOB_ROOT;
  }
  // The same picture as after the last round: wait until something else happened (a reader's pin goes, say).
  let picture = (<u64>held << 33) + (<u64>liveTotal(load<u32>(volume, V_ID)) << 1) + <u64>openOn(volume);
  if (picture != evacuationSeen) {
    evacuationSeen = picture;
    evacuationFrom = checkpointCount;
    evacuationActivity = activity;
  } else if (checkpointCount >= evacuationFrom + 2) {
    if (activity - evacuationActivity <= 4) return 0; // the ends of the jobs themselves are not news
    evacuationFrom = checkpointCount;
    evacuationActivity = activity;
  }
  if (openOn(volume)) return JOB_ROOT;
  if (compactedUnflushed >= 2) return JOB_FLUSH;
  if (liveTotal(load<u32>(volume, V_ID)) && choose(1)) return JOB_COMPACT;
  return JOB_CHECKPOINT; // it flushes, moves the replay range and the pages
}
let evacuationFrom: u32 = 0;

/** Takes the streams off a volume that is given back. */
function leaveVolume(volume: u32): u32 {
  if (lacks(4 * bufferBytes(segmentBlocksMost))) return MEMORY;
  for (let stream: u32 = 0; stream < 2; stream++) {
    let buffer = openBuffer(stream);
    if (isOn(buffer, volume) && nextCount(stream)) segmentAdvance(stream, false);
  }
  if (checkpointOwner) return DONE;
  for (let stream = STREAM_META; stream < STREAM_META + 2; stream++) {
    let buffer = openBuffer(stream);
    if (!isOn(buffer, volume) || load<u32>(buffer, B_DURABLE) != load<u32>(buffer, B_FILL)) continue;
    if (load<u32>(buffer, B_INFLIGHT) || load<u32>(buffer, B_PINS)) continue;
    openBufferSet(stream, 0);
    bufferFree(buffer);
  }
  return DONE;
}

/** ROOT: flush, fill the lists of next segments, commit. */
export function rootStep(ticket: u32): u32 {
  while (true) {
    let state = load<u32>(ticket, T_STATE);
    switch (state) {
    case 0: {
      let status = flushRun(ticket, false);
      if (status != DONE) return status;
      store<u32>(ticket, 1, T_STATE);
      continue;
    }
    case 1: {
      if (rootOwner) return WAIT;
      listsRenew();
      store<u32>(ticket, 2, T_STATE);
      continue;
    }
    case 2: {
      let status = rootRun(ticket);
      if (status != DONE) return status;
      store<u32>(ticket, 3, T_STATE);
      continue;
    }
    default: {
      let volume = leavingVolume();
      if (volume) {
        let status = leaveVolume(volume);
        if (status != DONE) return status;
      }
      collectFree();
      return DONE;
    }
    }
  }
}

export function flushJob(ticket: u32): u32 {
  if (load<u32>(ticket, T_STATE) == 0) {
    wantFlush(false);
    store<u32>(ticket, 1, T_STATE);
  }
  let status = flushRun(ticket, true); // pages that an abandoned checkpoint left unflushed count against the bound too
  if (status == DONE) compactedFlushed();
  return status;
}

// ---- operations --------------------------------------------------------------------------------------------------

/** Keeps the payload of an OPERATION, with room for the ids that preparing it adds. */
export function operationKeep(ticket: u32, payload: usize): void {
  let copy = allocate(1024);
  memory.copy(copy, payload, OP_FIXED_BYTES + 256);
  store<u64>(ticket, copy, T_G);
}

// T_LOCK: 0 begin, 1 zero what is cut off, 2 apply, 3 flush. T_G the payload.
export function operationStep(ticket: u32): u32 {
  let payload = <u32>load<u64>(ticket, T_G);
  while (true) {
    let phase = load<u32>(ticket, T_LOCK);
    switch (phase) {
    case 0: {
      if (cutter && load<u16>(payload) == <u16>OP_RESIZE) return WAIT;
      store<u32>(ticket, 2, T_LOCK);
      let code = operationPrepare(payload);
      if (code) return fail(code);
      if (load<u16>(payload) == <u16>OP_RESIZE) {
        let space = load<u32>(payload, 4);
        let size = load<f64>(payload, 8);
        let old = spaceSizeBytes(space);
        // What is cut off is trimmed before, in parts: nobody has the memory to do all of it at once. First the block in which the new size lies, which has to be
        // read, and may fail; the last one, of which less than a block may be in use, is left to the operation.
        if (old > size) {
          let end = <f64>(<u64>old & ~<u64>(BLOCK_BYTES - 1));
          store<u32>(ticket, space, T_SPACE);
          store<f64>(ticket, size, T_OFFSET);
          store<f64>(ticket, (end > size ? end : old) - size, T_LENGTH);
          store<u32>(ticket, 1, T_LOCK);
          cutterSet(ticket);
        }
      }
      continue;
    }
    case 1: {
      let status = writeStep(ticket, true);
      if (status != DONE) return status;
      store<u32>(ticket, 2, T_LOCK);
      continue;
    }
    case 2: {
      let code = operationPrepare(payload);
      if (code) return fail(code);
      // What makes the state larger takes nothing of what is kept back for trims and deletes.
      let op = <u32>load<u16>(payload);
      let status = admit(ticket, RECORD_OPERATION, 0, !RAID || (op != OP_SNAPSHOT && op != OP_CREATE_SOURCE));
      if (status != DONE) return status;
      if (operationLacks(payload)) return MEMORY; // after it has taken a segment
      perform(payload);
      store<f64>(ticket, <f64>operationResult, T_VALUE);
      mergeAsked = true;
      store<u32>(ticket, 3, T_LOCK);
      continue;
    }
    default: {
      return flushRun(ticket, false);
    }
    }
  }
}

function perform(payload: u32): void {
  let at = sequenceTake();
  let bytes = operationBytes(payload);
  operationAppend(payload, bytes, at);
  let applied = operationApply(payload, bytes, at);
  assert(applied);
}

export function operationEnd(ticket: u32): void {
  if (cutter == ticket) cutterSet(0);
  free(<u32>load<u64>(ticket, T_G));
}

/** MERGE: a space whose only holder is one child goes into it. Not while a checkpoint images either. */
export function mergeStep(ticket: u32): u32 {
  if (checkpointOwner || !mergeFind()) return DONE;
  let payload = <u32>load<u64>(ticket, T_G);
  if (!payload) {
    payload = allocate(64);
    store<u64>(ticket, payload, T_G);
  }
  clear(payload, 64);
  store<u16>(payload, <u16>OP_MERGE);
  store<u32>(payload, mergeParent, 4);
  store<u32>(payload, mergeChild, 16);
  let status = admit(ticket, RECORD_OPERATION, 0, true);
  if (status == FAILED && !failedReadOnly) return DONE; // no room now: another time
  if (load<u32>(ticket, T_DENIED)) {
    mergeAsked = false; // both spaces stay, and nothing waits for that
    return DONE;
  }
  if (status != DONE) return status;
  if (operationLacks(payload)) return MEMORY;
  perform(payload);
  return DONE;
}

// ---- closing -----------------------------------------------------------------------------------------------------

// T_A: 0 wait for the others, 1 flush, 2 checkpoint with a clean root. T_STATE is the checkpoint's.
export function closeStep(ticket: u32): u32 {
  while (true) {
    let phase = load<u32>(ticket, T_A);
    if (phase == 0) {
      if (mode != MODE_WRITE) {
        modeSet(MODE_CLOSED);
        return DONE;
      }
      if (ticketCount > 1) return WAIT;
      if (failedReadOnly) {
        modeSet(MODE_CLOSED);
        return unflushedBlocks() || cutsPending ? fail(ERROR_IO) : DONE;
      }
      closingSet(true);
      // The next open knows nothing of a volume that was being given back, and looks for roots where they are without that.
      for (let volume = volumeHead; volume; volume = load<u32>(volume, V_NEXT)) {
        if (load<u32>(volume, V_STATE) != VOLUME_ACTIVE) stateSet(volume, VOLUME_ACTIVE);
      }
      store<u32>(ticket, 1, T_A);
    } else if (phase == 1) {
      let status = flushRun(ticket, false);
      if (status == FAILED) closingSet(false);
      if (status != DONE) return status;
      store<u32>(ticket, 2, T_A);
    } else if (phase == 3) {
      // A volume that came to hold roots lately gets the second one too.
      let status = rootRun(ticket);
      if (status == FAILED) closingSet(false);
      if (status != DONE) return status;
      modeSet(MODE_CLOSED);
      return DONE;
    } else {
      let status = checkpointRun(ticket, true);
      if (status == FAILED) {
        rootCleanSet(false);
        closingSet(false);
      }
      if (status != DONE) return status;
      store<u32>(ticket, 3, T_A);
      if (!homesFresh()) {
        modeSet(MODE_CLOSED);
        return DONE;
      }
      continue;
    }
  }
}
