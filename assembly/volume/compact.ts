// Compaction: one victim at a time. Its live blocks are read, verified and appended to the survivors' stream as move
// records; a mapping follows only if it still points at the old place. The segment is free once nothing in it is live,
// the moves are durable, and it lies before the replay start.
//
// choose() is pure: from each segment's live count and age it answers nothing or a victim. Cost-benefit as in Rosenblum and
// Ousterhout's log-structured file system: (1 − u) · age / (1 + u), age counted in sequences, so that cold garbage is
// collected early and hot segments are left to empty by themselves. But by its fourth root: what was copied is old and counts
// as young, so the age itself says too much. At 80 % live, uniform and Zipf (bench/amplification.ts, 2026-11): 2.96 and 2.46
// with the age, 2.95 and 2.29 with its fourth root, 2.95 and 2.37 with none, 3.06 and 2.44 with the time since the last block died (of a smaller reserve).

import { free, freeAt, allocateBlocks } from '../std/allocator';
import { count } from '../std/counters';
import { xxh64 } from '../std/checksum';
import { DONE, ERROR_CORRUPT, ERROR_IO, FAILED, PLAN, WAIT, failAt, MEMORY, lacks } from '../abi/status';
import { READ, T_A, T_B, T_C, T_D, T_EPOCH, T_FLUSH_STATE, T_PLAN_COUNT, T_RESCUE, T_STATE, T_VALUE, planClear, planResult } from '../abi/ticket';
import { BLOCK_BYTES, BLOCK_SHIFT } from '../format/constants';
import { blockSeed } from '../format/key';
import { ENTRY_BYTES, ENTRY_MOVED, RECORD_DATA_MAX, RECORD_MOVE, entryBirth, entryBlock, entrySpace, entrySum } from '../format/record';
import { liveCount, tableMove } from '../table/index';
import {
  SEALED, SEG_BAD, SEG_BUFFER, SEG_FILL, SEG_FLAGS, SEG_LAST, SEG_STATE, SEG_USED, VOLUME_ACTIVE, V_DATA_SLOTS, V_ID, V_STATE, blockOf, planBlocks,
  segmentOf, eachIndex, eachSegment, eachVolume, segmentsBegin, segmentsNext, segmentPin,
} from '../log/volumes';
import {
  B_SEGMENT, B_SOURCE_FILL, B_VOLUME, STREAM_SURVIVOR, entryAppend, movedCount, recordClose, recordEnsure, recordRoom, recordSource, sequence,
  sequenceTake, slotAddress, slotsTake, openBuffer, B_RECORD, NO_RECORD,
} from '../log/writer';
import { C_COMPACTED, C_MOVE_STALE } from '../log/counting';
import { admitSurvivor, compactionCount, emptiedWanted, noRoom, noRoomSet, segmentGain, survivorsShort } from './admit';
import { compactedNote, failedReadOnly, replaySequence } from './mode';
import { spaceForward } from './state';
import { rescueRun } from './striped';
import { SCAN_FAILED, scanFree, scanPlan, scanRoom, scanTake, slotLive } from './sums';

/** Blocks of the batch that were moved: a field of the flush sub-operation, which compaction does not run. */
const T_MOVED: usize = T_FLUSH_STATE;

let compacting: bool = false;
export function isCompacting(): bool { return compacting; }

let chosenVolume: u32 = 0;
let chosenSegment: u32 = 0;

/**
 * The best victim, or false. How much garbage makes it worth copying: `eager` 0 a twentieth, 1 anything (somebody waits for
 * space), 2 a sixteenth (asked for). Volumes that are given back come first, whatever is in them, while there is room to copy it into.
 */
export function choose(eager: u32): bool {
  let best: f64 = 0;
  chosenVolume = 0;
  for (segmentsBegin(); segmentsNext(); ) {
    let segment = eachSegment;
    if (load<u8>(segment, SEG_STATE) != <u8>SEALED || load<u32>(segment, SEG_BUFFER) || load<u8>(segment, SEG_FLAGS) & <u8>SEG_BAD) continue;
    let last = load<u64>(segment, SEG_LAST);
    let live = liveCount(load<u32>(eachVolume, V_ID), eachIndex);
    if (live == 0 || last > replaySequence) continue;
    let slots = load<u32>(eachVolume, V_DATA_SLOTS);
    let leaving = load<u32>(eachVolume, V_STATE) != VOLUME_ACTIVE && !noRoom;
    let gain = segmentGain(slots, live);
    let used = <f64>live / <f64>slots;
    if (!leaving && (gain <= 0 || (eager == 0 && used > 0.95) || (eager == 2 && gain * 16 < <i32>slots))) continue;
    let age = <f64>(sequence - last) + 1;
    let score = ((1 - used) * sqrt<f64>(sqrt<f64>(age))) / (1 + used);
    if (leaving) score = 1e30 - <f64>live;
    if (score > best) {
      best = score;
      chosenVolume = eachVolume;
      chosenSegment = eachIndex;
    }
  }
  return chosenVolume != 0;
}

// T_A victim's volume, T_B its segment, T_C slot entries, T_D area of a batch; the batch's slots are kept here, one compaction at a time.
const batch: usize = memory.data(512);
let batchCount: u32 = 0;
let nextSlot: u32 = 0;
let soundSlots: u32 = 0; // of the batch, verified already

export function compactStep(ticket: u32): u32 {
  while (true) {
    let state = load<u32>(ticket, T_STATE);
    switch (state) {
    case 0: {
      store<f64>(ticket, 0, T_VALUE);
      // Asked for, it goes on until nothing is to be gained: what was emptied comes free before the room runs out.
      let asked = load<u32>(ticket, T_EPOCH) == 1;
      if (asked && (compacting || (survivorsShort() && emptiedWanted()))) return WAIT;
      if (compacting || !choose(asked ? 2 : 1)) return DONE;
      compacting = true;
      let segment = segmentOf(chosenVolume, chosenSegment);
      segmentPin(segment, 1);
      store<u32>(ticket, chosenVolume, T_A);
      store<u32>(ticket, chosenSegment, T_B);
      store<u32>(ticket, 1, T_STATE);
      continue;
    }
    case 1: {
      let volume = load<u32>(ticket, T_A);
      if (lacks(scanRoom(volume))) return MEMORY;
      planClear(ticket);
      store<u32>(ticket, scanPlan(ticket, volume, load<u32>(ticket, T_B)), T_D);
      store<u32>(ticket, 2, T_STATE);
      return PLAN;
    }
    case 2: {
      let entries = scanTake(load<u32>(ticket, T_A), load<u32>(ticket, T_B), load<u32>(ticket, T_D), planResult(ticket, 0));
      store<u32>(ticket, 0, T_D);
      if (!entries) {
        store<u32>(ticket, 1, T_STATE);
        continue;
      }
      if (entries == SCAN_FAILED) return spoiled(ticket, ERROR_IO, blockOf(load<u32>(ticket, T_A), load<u32>(ticket, T_B), 0));
      store<u32>(ticket, entries, T_C);
      nextSlot = 0;
      store<u32>(ticket, 3, T_STATE);
      continue;
    }
    case 3: {
      // The next live slots: one record's worth.
      let volume = load<u32>(ticket, T_A);
      let index = load<u32>(ticket, T_B);
      if (lacks(RECORD_DATA_MAX * BLOCK_BYTES)) return MEMORY;
      let used = <u32>load<u16>(segmentOf(volume, index), SEG_USED);
      batchCount = 0;
      while (nextSlot < used && batchCount < RECORD_DATA_MAX) {
        if (isLive(ticket, nextSlot)) store<u16>(batch + (batchCount++ << 1), <u16>nextSlot);
        nextSlot++;
      }
      if (!batchCount) return finish(ticket);
      let area = allocateBlocks(batchCount);
      store<u32>(ticket, area, T_D);
      planClear(ticket);
      let first: u32 = 0;
      for (let i: u32 = 1; i <= batchCount; i++) {
        if (i < batchCount && load<u16>(batch + (i << 1)) == load<u16>(batch + ((i - 1) << 1)) + 1) continue;
        let slot = <u32>load<u16>(batch + (first << 1));
        planBlocks(ticket, READ, volume, blockOf(volume, index, slot), area + (first << BLOCK_SHIFT), i - first);
        first = i;
      }
      store<u32>(ticket, 4, T_STATE);
      return PLAN;
    }
    case 4: {
      let volume = load<u32>(ticket, T_A);
      let index = load<u32>(ticket, T_B);
      let fill = load<u64>(segmentOf(volume, index), SEG_FILL);
      for (let i: u32 = 0; i < load<u32>(ticket, T_PLAN_COUNT); i++) {
        if (planResult(ticket, i) && !(RAID && load<u32>(ticket, T_RESCUE))) return spoiled(ticket, ERROR_IO, blockOf(volume, index, load<u16>(batch)));
      }
      for (let i = soundSlots; i < batchCount; i++) {
        let slot = <u32>load<u16>(batch + (i << 1));
        let entry = load<u32>(ticket, T_C) + slot * ENTRY_BYTES;
        let seed = blockSeed(fill, slot, entryBlock(entry), entryBirth(entry));
        let content = load<u32>(ticket, T_D) + (i << BLOCK_SHIFT);
        if (!(RAID && load<u32>(ticket, T_RESCUE)) && xxh64(content, BLOCK_BYTES, seed) == entrySum(entry)) continue;
        let status = RAID ? rescueRun(ticket, volume, blockOf(volume, index, slot), content, seed, entrySum(entry)) : FAILED;
        if (status == FAILED) return spoiled(ticket, ERROR_CORRUPT, blockOf(volume, index, slot));
        if (status != DONE) {
          soundSlots = i;
          return status;
        }
      }
      soundSlots = 0;
      // A record names one source: what another victim left open is closed while there is room for a header.
      let open = openBuffer(STREAM_SURVIVOR);
      if (open && load<u64>(open, B_SOURCE_FILL) != fill) recordClose(STREAM_SURVIVOR);
      store<u32>(ticket, 0, T_MOVED);
      store<u32>(ticket, 5, T_STATE);
      continue;
    }
    default: {
      let moved = load<u32>(ticket, T_MOVED);
      while (moved < batchCount) {
        let status = admitSurvivor(RECORD_MOVE);
        if (status != DONE) {
          store<u32>(ticket, moved, T_MOVED);
          if (status == FAILED) {
            release(ticket);
            compactionCount();
            noRoomSet(noRoom + 1);
            if (failedReadOnly) return status;
            if (load<u32>(ticket, T_EPOCH) != 1) return DONE; // no room to copy into now
            store<u32>(ticket, 0, T_C);
            store<u32>(ticket, 0, T_D);
            store<u32>(ticket, 0, T_MOVED);
            store<u32>(ticket, 0, T_STATE);
            return emptiedWanted() ? WAIT : DONE;
          }
          return status;
        }
        move(ticket, moved++);
      }
      store<u32>(ticket, 0, T_MOVED);
      freeAt(ticket + <u32>T_D);
      store<u32>(ticket, 3, T_STATE);
      // Everything copied in one call is one batch: let others come in between.
      planClear(ticket);
      return PLAN;
    }
    }
  }
}

function isLive(ticket: u32, slot: u32): bool {
  return slotLive(load<u32>(ticket, T_A), load<u32>(ticket, T_B), load<u32>(ticket, T_C), slot);
}

function move(ticket: u32, index: u32): void {
  let slot = <u32>load<u16>(batch + (index << 1));
  if (!isLive(ticket, slot)) {
    count(C_MOVE_STALE);
    return;
  }
  let from = load<u32>(ticket, T_A);
  let fromSegment = load<u32>(ticket, T_B);
  let fill = load<u64>(segmentOf(from, fromSegment), SEG_FILL);
  let open = openBuffer(STREAM_SURVIVOR);
  if (load<u32>(open, B_RECORD) != NO_RECORD && load<u64>(open, B_SOURCE_FILL) != fill) recordClose(STREAM_SURVIVOR);
  if (recordRoom(STREAM_SURVIVOR, RECORD_MOVE) == 0) return; // closing left no room: the block stays for another round
  let buffer = recordEnsure(STREAM_SURVIVOR, RECORD_MOVE);
  recordSource(buffer, load<u32>(from, V_ID), fromSegment, fill);
  let entry = load<u32>(ticket, T_C) + slot * ENTRY_BYTES;
  let space = spaceForward(entrySpace(entry));
  let place = slotsTake(buffer, 1);
  memory.copy(slotAddress(buffer, place), load<u32>(ticket, T_D) + (index << BLOCK_SHIFT), BLOCK_BYTES);
  let at = sequenceTake();
  entryAppend(buffer, ENTRY_MOVED, space, entryBirth(entry), entryBlock(entry), slot, place, 0, at);
  let volume = load<u32>(buffer, B_VOLUME);
  tableMove(
    space, entryBlock(entry), entryBirth(entry), load<u32>(from, V_ID), blockOf(from, fromSegment, slot), load<u32>(volume, V_ID),
    blockOf(volume, load<u32>(buffer, B_SEGMENT), place), at,
  );
  movedCount(1);
}

function release(ticket: u32): void {
  soundSlots = 0;
  let segment = segmentOf(load<u32>(ticket, T_A), load<u32>(ticket, T_B));
  segmentPin(segment, -1);
  free(load<u32>(ticket, T_C));
  if (load<u32>(ticket, T_D)) scanFree(load<u32>(ticket, T_D));
  compacting = false;
}

function finish(ticket: u32): u32 {
  let segment = segmentOf(load<u32>(ticket, T_A), load<u32>(ticket, T_B));
  // What its entries do not show as live cannot be moved by them: without this it would be chosen for ever.
  if (liveCount(load<u32>(load<u32>(ticket, T_A), V_ID), load<u32>(ticket, T_B))) markUnlessMoved(segment);
  release(ticket);
  count(C_COMPACTED);
  compactedNote();
  compactionCount();
  noRoomSet(0);
  store<f64>(ticket, 1, T_VALUE);
  return DONE;
}

function markUnlessMoved(segment: u32): void {
  if (leftBehind == segment) store<u8>(segment, load<u8>(segment, SEG_FLAGS) | <u8>SEG_BAD, SEG_FLAGS);
  leftBehind = segment;
}
let leftBehind: u32 = 0;

/** Something in the victim is damaged, or cannot be read now: it stays as it is, and so does the damage, for reads and check to report. */
function spoiled(ticket: u32, code: u32, block: u32): u32 {
  let volume = load<u32>(ticket, T_A);
  let segment = segmentOf(volume, load<u32>(ticket, T_B));
  if (code == ERROR_CORRUPT) store<u8>(segment, load<u8>(segment, SEG_FLAGS) | <u8>SEG_BAD, SEG_FLAGS);
  release(ticket);
  compactionCount();
  return failAt(code, load<u32>(volume, V_ID), block);
}
