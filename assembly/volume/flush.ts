// Making the log durable: one flush at a time; whoever comes meanwhile waits and is often covered by it (group commit).
//
//   1. Close the open records of both streams; everything up to `target` is final.
//   2. Write what is ready and not submitted, after the background writes that are in flight.
//   3. Flush every member that was written to.
//   4. durableSequence = target; buffers of sealed segments go.
//
// A write or flush that failed is never repeated in place, because the kernel may have dropped the dirty pages: the range is abandoned
// at the last durable slot, every record behind it goes to fresh segments with its old sequences, blocks are
// hashed for their new places and their mappings follow. A root then names the cut before the flush is acknowledged. If
// the second attempt fails too, the log turns read-only. A device that ran full is no damage: the flush rejects with
// NO_SPACE, the records stay readable, the next flush writes them elsewhere.

import { count } from '../std/counters';
import { PLANT_FLUSH_RETRIED, PLANT_REUSE_BEFORE_FLUSH, planted } from '../std/plant';
import { DONE, ERROR_IO, ERROR_NO_SPACE, ERROR_READ_ONLY, FAILED, PLAN, RESULT_IO, RESULT_NO_SPACE, WAIT, MEMORY, fail, lacksTimes } from '../abi/status';
import {
  T_FLUSH_ATTEMPT, T_FLUSH_STATE, T_FLUSH_TARGET, T_MARKED, T_RESULT, WRITE, planClear, planDevice, planThrough,
} from '../abi/ticket';
import { BLOCK_BYTES } from '../format/constants';
import {
  ENTRY_BYTES, ENTRY_TRIM, RECORD_FIXED_BYTES, RECORD_MOVE, RECORD_OPERATION, RECORD_PADDING, R_ENTRIES, R_FIRST, R_KIND, R_PAYLOAD, R_SOURCE_FILL,
  R_SOURCE_SEGMENT, R_SOURCE_VOLUME, entryBirth, entryBlock, entryKind, entrySourceSlot, entrySpace, entrySum, recordSlots,
} from '../format/record';
import { MEMBER_COUNT_MAX } from '../stripe/geometry';
import {
  SEALED, SEG_BUFFER, SEG_FILL, SEG_FLAGS, SEG_LAST, SEG_PINS, SEG_STATE, SEG_USED, VOLUME_ACTIVE, V_DIRTY, V_FREE, V_FULL, V_ID, V_SEGMENT_BLOCKS,
  V_STATE, blockOf, markWritten, planBlocks, planMemberFlushes, segmentChanged, segmentFree, segmentOf, volumeById, V_NEXT, eachIndex,
  eachSegment, eachVolume, freeTotal, segmentBlocksMost, segmentsBegin, segmentsNext, volumeHead,
} from '../log/volumes';
import {
  B_DETACHED, B_DURABLE, B_DURABLE_CHAIN, B_FILL, B_FLUSHING, B_FLUSHING_CHAIN, B_INFLIGHT, B_NEXT, B_PINS, B_SEALED, B_SEGMENT, B_STREAM,
  B_SUBMITTED, B_USED, B_VOLUME, STREAM_META, bufferBytes, bufferFillSequence, bufferFinal, bufferFree, bufferHead, bufferPad, bufferReady, chainOf, chainSet,
  durableSequence, durableSet, entryAppend, headerRoom, openBuffer, openBufferSet, operationAppend, recordClose, recordEnsure, recordRoom,
  recordSource, sealedCount, segmentAdvance, sequence, slotAddress, slotsTake, isStart, unflushedBlocks,
} from '../log/writer';
import { C_DEVICE_FULL, C_FLUSH_FAILED, C_FLUSH_GROUPED, C_FLUSH_THROUGH, C_RANGE_ABANDONED, C_READ_ONLY, C_RECORD_SPLIT } from '../log/counting';
import { emptied, liveCount, liveDeathSequence } from '../table/live';
import { CUT_MAX } from '../format/root';
import { tableMove } from '../table/index';
import { spaceForward } from './state';
import { cutAdd, cutCount, cutRedirect, rootOwner, rootRun } from './root';
import {
  checkpointLostSet, compactedFlushed, deviceFlushFailed, logFlushesSet, rootFlushes, deviceFlushFailedSet, failReadOnly, flushFailureSet,
  failedReadOnly, replaySequence, wantCheckpoint,
} from './mode';

export let flushOwner: u32 = 0;
/** Result of a background write that failed: the next flush abandons the range. */
let writeFailed: u32 = 0;
/** A range was abandoned and no root names the cut yet. */
export let cutsPending: bool = false;
let pendingAttempt: u32 = 0;

export function dirtyAnywhere(): bool {
  if (writeFailed || deviceFlushFailed || cutsPending) return true;
  if (RAID) for (let volume = volumeHead; volume; volume = load<u32>(volume, V_NEXT)) if (load<u32>(volume, V_DIRTY)) return true; // blocks that were mended
  for (let buffer = bufferHead; buffer; buffer = load<u32>(buffer, B_NEXT)) {
    if (!load<u32>(buffer, B_DETACHED) && load<u32>(buffer, B_DURABLE) < bufferFinal(buffer)) return true;
  }
  return false;
}

/** Flushes the log; with `everything`, metadata pages too. A sub-operation: any ticket may run it. */
export function flushRun(ticket: u32, everything: bool): u32 {
  while (true) {
    let state = load<u32>(ticket, T_FLUSH_STATE);
    switch (state) {
    case 0: {
      if (failedReadOnly) return fail(ERROR_READ_ONLY);
      recordClose(0);
      recordClose(1);
      store<u64>(ticket, sequence, T_FLUSH_TARGET);
      store<u32>(ticket, 0, T_FLUSH_ATTEMPT);
      store<u32>(ticket, 1, T_FLUSH_STATE);
      continue;
    }
    case 1: {
      if (failedReadOnly) { store<u32>(ticket, 0, T_FLUSH_STATE); return fail(ERROR_READ_ONLY); }
      if (flushOwner) return WAIT;
      let covered = load<u64>(ticket, T_FLUSH_TARGET) <= durableSequence && !cutsPending;
      if (covered && (!everything || !dirtyAnywhere())) {
        count(C_FLUSH_GROUPED);
        store<u32>(ticket, 0, T_FLUSH_STATE);
        return DONE;
      }
      flushOwner = ticket;
      store<u32>(ticket, 2, T_FLUSH_STATE);
      continue;
    }
    case 2: {
      if (inflight()) return WAIT;
      if (deviceFlushFailed && !writeFailed) writeFailed = RESULT_IO;
      if (writeFailed) {
        let status = flushFailed(ticket, writeFailed);
        if (status != DONE) return status;
        continue;
      }
      recordClose(0);
      recordClose(1);
      store<u64>(ticket, sequence, T_FLUSH_TARGET);
      planClear(ticket);
      if (RAID) for (let stream: u32 = 0; stream < STREAM_META + 2; stream++) if (stream < STREAM_META || everything) bufferPad(stream);
      let dirty: u32 = 0;
      for (let volume = volumeHead; volume; volume = load<u32>(volume, V_NEXT)) dirty |= load<u32>(volume, V_DIRTY);
      for (let buffer = bufferHead; buffer; buffer = load<u32>(buffer, B_NEXT)) {
        if (load<u32>(buffer, B_DETACHED)) continue;
        planWrite(ticket, buffer);
        store<u32>(buffer, load<u32>(buffer, B_SUBMITTED), B_FLUSHING);
        if (load<u32>(buffer, B_STREAM) < STREAM_META && !load<u32>(buffer, B_SEALED)) store<u64>(buffer, chainOf(load<u32>(buffer, B_STREAM)), B_FLUSHING_CHAIN);
      }
      store<u32>(ticket, 3, T_FLUSH_STATE);
      if (planCountOf(ticket) == 1 && !dirty && !(RAID && load<u32>(ticket, T_MARKED))) {
        // One write, and nothing written before it that a flush would be needed for.
        planThrough(ticket);
        logFlushesSet(1);
        count(C_FLUSH_THROUGH);
      }
      if (planCountOf(ticket)) return PLAN;
      continue;
    }
    case 3: {
      markWritten(ticket);
      if (load<u32>(ticket, T_RESULT)) {
        noteFull(ticket);
        let status = flushFailed(ticket, load<u32>(ticket, T_RESULT));
        if (status != DONE) return status;
        continue;
      }
      planFlushes(ticket);
      logFlushesSet(planCountOf(ticket));
      store<u32>(ticket, 4, T_FLUSH_STATE);
      if (planCountOf(ticket)) return PLAN;
      continue;
    }
    case 4: {
      if (load<u32>(ticket, T_RESULT)) {
        if (PLANTS && planted == PLANT_FLUSH_RETRIED && load<u32>(ticket, T_FLUSH_ATTEMPT) == 0) {
          store<u32>(ticket, 1, T_FLUSH_ATTEMPT);
          planClear(ticket);
          continue;
        }
        markWritten(ticket);
        let status = flushFailed(ticket, load<u32>(ticket, T_RESULT));
        if (status != DONE) return status;
        continue;
      }
      if (rootFlushes) return WAIT; // one that failed may be told after one that came later and succeeded
      if (deviceFlushFailed) {
        let status = flushFailed(ticket, RESULT_IO);
        if (status != DONE) return status;
        continue;
      }
      durableSet(load<u64>(ticket, T_FLUSH_TARGET));
      pendingAttempt = 0;
      flushFailureSet(0);
      compactedFlushed();
      settle();
      if (cutsPending) {
        store<u32>(ticket, 5, T_FLUSH_STATE);
      } else {
        return flushEnd(ticket, DONE);
      }
      continue;
    }
    case 5: {
      let status = rootRun(ticket);
      if (status == FAILED) { count(C_READ_ONLY); return flushEnd(ticket, FAILED); }
      if (status != DONE) return status;
      cutsPending = false;
      if (cutCount > CUT_MAX / 2) wantCheckpoint(true); // it takes them out of the root
      return flushEnd(ticket, DONE);
    }
    default: {
      // 6: a failure whose records could not be given a new place yet for want of memory
      let status = flushFailed(ticket, writeFailed);
      if (status != DONE) return status;
      continue;
    }
    }
  }
}

function flushEnd(ticket: u32, status: u32): u32 {
  planClear(ticket);
  flushOwner = 0;
  store<u32>(ticket, 0, T_FLUSH_STATE);
  // A walk over all segments: with many free ones, and few that came or may go, there is no hurry.
  if (status == DONE && (!RAID || sealedCount + emptied - collectedAt >= freeTotal >> 8)) collectFree();
  return status;
}

function planCountOf(ticket: u32): u32 {
  return load<u32>(ticket, 44);
}

function inflight(): bool {
  for (let buffer = bufferHead; buffer; buffer = load<u32>(buffer, B_NEXT)) if (load<u32>(buffer, B_INFLIGHT)) return true;
  return false;
}

/** Adds the write of what is ready in the buffer, if anything; marks it submitted. */
function planWrite(ticket: u32, buffer: u32): bool {
  let from = load<u32>(buffer, B_SUBMITTED);
  let to = bufferReady(buffer);
  if (from >= to) return false;
  let volume = load<u32>(buffer, B_VOLUME);
  planBlocks(ticket, WRITE, volume, blockOf(volume, load<u32>(buffer, B_SEGMENT), from), slotAddress(buffer, from), to - from);
  store<u32>(buffer, to, B_SUBMITTED);
  return true;
}

function noteFull(ticket: u32): void {
  if (load<u32>(ticket, T_RESULT) != RESULT_NO_SPACE) return;
  count(C_DEVICE_FULL);
  for (let i: u32 = 0; i < planCountOf(ticket); i++) {
    if (load<u32>(load<u32>(ticket, 40) + i * 32, 28) == RESULT_NO_SPACE) store<u32>(volumeById(planDevice(ticket, i) / MEMBER_COUNT_MAX), 1, V_FULL);
  }
}

function planFlushes(ticket: u32): void {
  planClear(ticket);
  for (let volume = volumeHead; volume; volume = load<u32>(volume, V_NEXT)) {
    planMemberFlushes(ticket, volume, load<u32>(volume, V_DIRTY));
    store<u32>(volume, 0, V_DIRTY);
  }
}

/** What was written and flushed is durable: sealed buffers go. */
function settle(): void {
  let buffer = bufferHead;
  while (buffer) {
    let next = load<u32>(buffer, B_NEXT);
    if (!load<u32>(buffer, B_DETACHED)) {
      let flushed = load<u32>(buffer, B_FLUSHING);
      if (flushed > load<u32>(buffer, B_DURABLE)) {
        store<u32>(buffer, flushed, B_DURABLE);
        store<u64>(buffer, load<u64>(buffer, B_FLUSHING_CHAIN), B_DURABLE_CHAIN);
      }
    }
    bufferRelease(buffer);
    buffer = next;
  }
}

/** Frees a buffer that nobody needs any more. */
export function bufferRelease(buffer: u32): void {
  if (load<u32>(buffer, B_PINS) || load<u32>(buffer, B_INFLIGHT)) return;
  if (load<u32>(buffer, B_DETACHED)) { bufferFree(buffer); return; }
  if (!load<u32>(buffer, B_SEALED)) return;
  if (load<u32>(buffer, B_DURABLE) == load<u32>(load<u32>(buffer, B_VOLUME), V_SEGMENT_BLOCKS)) bufferFree(buffer);
}

function flushFailed(ticket: u32, result: u32): u32 {
  // Room for the records once more, and for the segments that they go to.
  if (lacksTimes(unflushedBlocks(), BLOCK_BYTES * 3 / 2, 4 * bufferBytes(segmentBlocksMost))) {
    writeFailed = result;
    store<u32>(ticket, 6, T_FLUSH_STATE);
    return MEMORY;
  }
  writeFailed = 0;
  deviceFlushFailedSet(false);
  count(C_FLUSH_FAILED);
  if (result == RESULT_NO_SPACE && !roomElsewhere()) {
    // Every byte that is not durable is written again by the next flush: nothing rests on what a full device took.
    for (let buffer = bufferHead; buffer; buffer = load<u32>(buffer, B_NEXT)) store<u32>(buffer, load<u32>(buffer, B_DURABLE), B_SUBMITTED);
    return failEnd(ticket, ERROR_NO_SPACE);
  }
  let attempt = pendingAttempt;
  if (result != RESULT_NO_SPACE) pendingAttempt = attempt + 1;
  if (attempt > 0 || !abandon()) {
    count(C_READ_ONLY);
    failReadOnly();
    return failEnd(ticket, ERROR_IO);
  }
  if (result == RESULT_NO_SPACE) return failEnd(ticket, ERROR_NO_SPACE);
  store<u32>(ticket, 2, T_FLUSH_STATE);
  return DONE;
}

/** Whether a volume that did not run full has several free segments. */
function roomElsewhere(): bool {
  for (let volume = volumeHead; volume; volume = load<u32>(volume, V_NEXT)) {
    if (load<u32>(volume, V_STATE) == VOLUME_ACTIVE && !load<u32>(volume, V_FULL) && load<u32>(volume, V_FREE) > 4) return true;
  }
  return false;
}

function failEnd(ticket: u32, code: u32): u32 {
  flushFailureSet(code);
  flushEnd(ticket, FAILED);
  return fail(code);
}

/** Moves every record that is not durable to fresh segments. False: there are none, or too many cuts. */
function abandon(): bool {
  count(C_RANGE_ABANDONED);
  recordClose(0);
  recordClose(1);
  cutsPending = true;
  for (let stream: u32 = 0; stream < 2; stream++) if (!abandonStream(stream)) return false;
  for (let stream = STREAM_META; stream < STREAM_META + 2; stream++) {
    let buffer = openBuffer(stream);
    if (buffer && load<u32>(buffer, B_DURABLE) < load<u32>(buffer, B_FILL)) openBufferSet(stream, 0);
  }
  for (let buffer = bufferHead; buffer; buffer = load<u32>(buffer, B_NEXT)) {
    if (load<u32>(buffer, B_STREAM) >= STREAM_META && load<u32>(buffer, B_DURABLE) < load<u32>(buffer, B_FILL)) {
      store<u32>(buffer, 1, B_DETACHED);
      detach(buffer);
    }
  }
  checkpointLostSet(true);
  let buffer = bufferHead;
  while (buffer) {
    let next = load<u32>(buffer, B_NEXT);
    bufferRelease(buffer);
    buffer = next;
  }
  return true;
}

function detach(buffer: u32): void {
  let segment = segmentOf(load<u32>(buffer, B_VOLUME), load<u32>(buffer, B_SEGMENT));
  if (load<u32>(segment, SEG_BUFFER) == buffer) store<u32>(segment, 0, SEG_BUFFER);
}

function abandonStream(stream: u32): bool {
  let first: u32 = 0;
  let last: u32 = 0;
  for (let buffer = bufferHead; buffer; buffer = load<u32>(buffer, B_NEXT)) {
    if (load<u32>(buffer, B_STREAM) != stream || load<u32>(buffer, B_DETACHED)) continue;
    // All that follows goes with it, also a segment that nothing is in yet.
    if (!first && load<u32>(buffer, B_DURABLE) < load<u32>(buffer, B_FILL)) first = buffer;
    if (first) last = buffer;
  }
  if (!first) return true;
  let cutSlot = load<u32>(first, B_DURABLE);
  if (load<u32>(first, B_SEALED)) cutSlot = min(cutSlot, load<u32>(first, B_USED));
  chainSet(stream, load<u64>(first, B_DURABLE_CHAIN));
  openBufferSet(stream, 0);
  if (!segmentAdvance(stream, true)) return false;
  let fresh = openBuffer(stream);
  // A segment of which nothing became durable is not worth a cut of its own: who pointed at it points past it.
  if ((cutSlot != 0 || !cutRedirect(stream, bufferFillSequence(first), fresh)) && !cutAdd(stream, first, cutSlot, fresh)) return false;
  for (let buffer = first; ; buffer = load<u32>(buffer, B_NEXT)) {
    if (load<u32>(buffer, B_STREAM) == stream && !load<u32>(buffer, B_DETACHED)) {
      let from = buffer == first ? cutSlot : 0;
      let to = load<u32>(buffer, B_SEALED) ? load<u32>(buffer, B_USED) : load<u32>(buffer, B_FILL);
      if (!rehome(stream, buffer, from, to)) return false;
      let old = segmentOf(load<u32>(buffer, B_VOLUME), load<u32>(buffer, B_SEGMENT));
      store<u8>(old, <u8>SEALED, SEG_STATE);
      store<u8>(old, 0, SEG_FLAGS);
      store<u16>(old, <u16>from, SEG_USED);
      if (sequence > load<u64>(old, SEG_LAST)) store<u64>(old, sequence, SEG_LAST);
      segmentChanged(load<u32>(buffer, B_VOLUME), load<u32>(buffer, B_SEGMENT));
      store<u32>(buffer, 1, B_DETACHED);
      detach(buffer);
    }
    if (buffer == last) break;
  }
  return true;
}

/** Appends the records in slots [from, to) of an abandoned buffer again, with their sequences, to the stream's new segments. */
function rehome(stream: u32, old: u32, from: u32, to: u32): bool {
  let oldVolume = load<u32>(old, B_VOLUME);
  let oldId = load<u32>(oldVolume, V_ID);
  let oldFirstBlock = blockOf(oldVolume, load<u32>(old, B_SEGMENT), 0);
  let slot = from;
  while (slot < to) {
    let header = slotAddress(old, slot);
    let kind = <u32>load<u8>(header, R_KIND);
    let at = load<u64>(header, R_FIRST);
    if (RAID && kind == RECORD_PADDING) {
      slot += recordSlots(header);
      continue;
    }
    recordClose(stream);
    if (kind == RECORD_OPERATION) {
      if (!headerRoom(stream, kind) && !segmentAdvance(stream, true)) return false;
      operationAppend(header + RECORD_FIXED_BYTES, load<u32>(header, R_PAYLOAD), at);
    } else {
      let dataSlot = slot + 1;
      let entries = <u32>load<u16>(header, R_ENTRIES);
      for (let i: u32 = 0; i < entries; i++, at++) {
        let entry = header + RECORD_FIXED_BYTES + i * ENTRY_BYTES;
        let entryType = entryKind(entry);
        if (entryType == ENTRY_TRIM ? !headerRoom(stream, kind) : recordRoom(stream, kind) == 0) {
          if (i) count(C_RECORD_SPLIT);
          if (!segmentAdvance(stream, true)) return false;
        }
        let buffer = recordEnsure(stream, kind);
        if (kind == RECORD_MOVE) recordSource(buffer, load<u16>(header, R_SOURCE_VOLUME), load<u32>(header, R_SOURCE_SEGMENT), load<u64>(header, R_SOURCE_FILL));
        if (entryType == ENTRY_TRIM) {
          entryAppend(buffer, ENTRY_TRIM, entrySpace(entry), entryBirth(entry), entryBlock(entry), 0, 0, entrySum(entry), at);
        } else {
          let place = slotsTake(buffer, 1);
          memory.copy(slotAddress(buffer, place), slotAddress(old, dataSlot), BLOCK_BYTES);
          entryAppend(buffer, entryType, entrySpace(entry), entryBirth(entry), entryBlock(entry), entrySourceSlot(entry), place, 0, at);
          let volume = load<u32>(buffer, B_VOLUME);
          tableMove(
            spaceForward(entrySpace(entry)), entryBlock(entry), entryBirth(entry), oldId, oldFirstBlock + dataSlot, load<u32>(volume, V_ID),
            blockOf(volume, load<u32>(buffer, B_SEGMENT), place), sequence,
          );
          dataSlot++;
        }
      }
    }
    slot += recordSlots(header);
  }
  recordClose(stream);
  return true;
}

/** Background: writes out what is ready, without a flush. All of it: what is left would keep unsubmittedBlocks() up, and with it this job before all others. */
export function writeOutRun(ticket: u32, state: u32): u32 {
  if (state == 0) {
    planClear(ticket);
    if (failedReadOnly || writeFailed) return DONE;
    for (let buffer = bufferHead; buffer; buffer = load<u32>(buffer, B_NEXT)) {
      if (load<u32>(buffer, B_DETACHED)) continue;
      if (planWrite(ticket, buffer)) store<u32>(buffer, load<u32>(buffer, B_INFLIGHT) | 0x80000000, B_INFLIGHT);
    }
    return planCountOf(ticket) ? PLAN : DONE;
  }
  markWritten(ticket);
  // What was given up while it was being written is in fresh segments already: that the old place failed is no second failure.
  let needed = false;
  for (let buffer = bufferHead; buffer; buffer = load<u32>(buffer, B_NEXT)) {
    if (load<u32>(buffer, B_INFLIGHT) >>> 31 && !load<u32>(buffer, B_DETACHED)) needed = true;
    store<u32>(buffer, load<u32>(buffer, B_INFLIGHT) & 0x7fffffff, B_INFLIGHT);
  }
  if (load<u32>(ticket, T_RESULT)) {
    if (needed) writeFailed = load<u32>(ticket, T_RESULT);
    noteFull(ticket);
  }
  return DONE;
}

let collectedAt: u32 = 0; // segments sealed and emptied when the last walk started

/**
 * Frees sealed segments that hold nothing live, when reuse is safe: (i) they lie before the replay start of the newest
 * durable root, (ii) the records that killed or moved their blocks are durable, (iii) no ticket reads them.
 */
export function collectFree(): void {
  if (rootOwner) return; // two roots are candidates until this one is committed
  if (RAID) collectedAt = sealedCount + emptied;
  for (segmentsBegin(); segmentsNext(); ) {
    let segment = eachSegment;
    if (load<u8>(segment, SEG_STATE) != <u8>SEALED || load<u32>(segment, SEG_BUFFER) || load<u32>(segment, SEG_PINS)) continue;
    let id = load<u32>(eachVolume, V_ID);
    if (liveCount(id, eachIndex) || load<u64>(segment, SEG_LAST) > replaySequence) continue;
    if (liveDeathSequence(id, eachIndex) > durableSequence && !(PLANTS && planted == PLANT_REUSE_BEFORE_FLUSH)) continue;
    if (isStart(load<u64>(segment, SEG_FILL))) continue;
    segmentFree(eachVolume, segment);
  }
}
