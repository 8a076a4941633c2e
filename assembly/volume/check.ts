// Check: everything on disk that this log stands on is read and verified, nothing is changed. What is found comes out as
// findings, which the host takes after each step:
//
//   u32 code (0: a range in use, else an error code)  u32 volume id  u32 block  u32 kind  f64 device offset  f64 bytes
//   kind: 1 root  2 page  3 header  4 footer  5 data  6 a mapping that no entry of its segment backs
//
// In range mode it lists the bytes in use instead: exactly those of which one flipped bit is found.

import { bump } from '../std/bytes';
import { allocate, free, allocateZeroed, freeAt, allocateBlocks } from '../std/allocator';
import { xxh64 } from '../std/checksum';
import { DONE, ERROR_CORRUPT, ERROR_IO, PLAN, WAIT, MEMORY, lacks } from '../abi/status';
import { READ, T_A, T_B, T_C, T_D, T_E, T_EPOCH, T_F, T_PLAN_COUNT, T_STATE, planClear, planDevice, planResult } from '../abi/ticket';
import { BLOCK_BYTES, BLOCK_SHIFT } from '../format/constants';
import { MEMBER_COUNT_MAX } from '../stripe/geometry';
import { blockSeed, logIdentity, pageSeed } from '../format/key';
import { SLOT_HEADER } from '../format/footer';
import { N_BLOCK_A, N_BLOCK_B, N_CHECKSUM, N_KIND, N_VOLUME_A, N_VOLUME_B } from '../format/page';
import { ENTRY_BYTES, RECORD_DATA_MAX, entryBirth, entryBlock, entryKind, entrySum, recordVerify } from '../format/record';
import { O_FLAGS, O_STREAMS, ROOT_BAD, ROOT_VALID, STREAM_BYTES, S_OPEN_FILL, S_OPEN_VOLUME, rootVerify } from '../format/root';
import { liveCount } from '../table/index';
import {
  META, SEALED, SEG_BUFFER, SEG_FILL, SEG_FLAGS, SEG_LAST, SEG_STATE, SEG_UNREAD, SEG_USED, V_DATA_SLOTS, V_FOOTER_BLOCKS, V_ID, V_ROOTS,
  V_SEGMENT_COUNT, readableOf, CHECK_PAGE, blockOf, offsetOf, planChecked, segmentOf, segmentPin, volumeAt, volumeById, volumeCount, planBlocks,
} from '../log/volumes';
import { VOLUME_NONE } from '../format/constants';
import { B_DURABLE, B_ENTRIES, sequence } from '../log/writer';
import { owner as mendOwner } from './mend';
import { checkpointHold, checkpointOwner } from './checkpoint';
import { generation, openedRoot, rootHold, rootHome, rootOwner, planRootReads, rootOffset } from './root';
import { MODE_WRITE, failedReadOnly, mode, replaySequence } from './mode';
import { SCAN_FAILED, scanEnd, scanFree, scanIsHeaders, scanPlan, scanRoom, scanTake, slotLive } from './sums';
import { levelCount, node, treeHeightNow } from './tree';

const RING: u32 = 2048;
const FINDING_BYTES: u32 = 32;
let ring: u32 = 0;
let ringCount: u32 = 0;
let ringTaken: u32 = 0;

const KIND_ROOT: u32 = 1;
const KIND_PAGE: u32 = 2;
const KIND_HEADER: u32 = 3;
const KIND_FOOTER: u32 = 4;
const KIND_DATA: u32 = 5;
const KIND_UNBACKED: u32 = 6;

/** Memory for findings is there from here on. */
export function findingsBegin(): void {
  if (!ring) ring = allocate(RING * FINDING_BYTES);
}

/** More findings than the host should leave there. */
export function findingsMany(): bool { return ringCount > RING / 4; }

export function finding(code: u32, kind: u32, volume: u32, block: u32, offset: f64, bytes: f64): void {
  if (ringCount == RING) return; // the caller leaves room; a step adds at most one segment's worth
  let at = ring + ringCount++ * FINDING_BYTES;
  store<u32>(at, code);
  store<u32>(at, volume, 4);
  store<u32>(at, block, 8);
  store<u32>(at, kind, 12);
  store<f64>(at, offset, 16);
  store<f64>(at, bytes, 24);
}

/** The same for blocks in a row of a volume. */
function findingIn(code: u32, kind: u32, volume: u32, block: u32, blocks: u32): void {
  finding(code, kind, load<u32>(volume, V_ID), block, offsetOf(volume, block), <f64>(blocks << BLOCK_SHIFT));
}

/** One finding into the exchange buffer; its length, or 0 when there is none. */
export function findingTake(into: u32): u32 {
  if (ringTaken == ringCount) {
    ringTaken = 0;
    ringCount = 0;
    return 0;
  }
  memory.copy(into, ring + ringTaken++ * FINDING_BYTES, FINDING_BYTES);
  return FINDING_BYTES;
}

// T_EPOCH 1: list ranges. T_A volume index, T_B segment, T_C slot, T_D area, T_E entries, T_F level; pages: T_B node.
export function checkStep(ticket: u32): u32 {
  let ranges = load<u32>(ticket, T_EPOCH) == 1;
  while (true) {
    let state = load<u32>(ticket, T_STATE);
    switch (state) {
    case 0: {
      if (RAID && mendOwner) return WAIT; // it has findings of its own
      if (lacks(RING * FINDING_BYTES + 1310720)) return MEMORY;
      // Pages and roots hold still while no checkpoint and no root is under way: this ticket takes both places.
      if (mode == MODE_WRITE) {
        if (checkpointOwner || rootOwner) return WAIT;
        checkpointHold(ticket);
        rootHold(ticket);
      }
      findingsBegin();
      if (RAID) checking = ticket;
      planClear(ticket);
      let copies: u32 = RAID ? 0 : 8;
      if (RAID) for (let home: u32 = 0; home < 2; home++) if (rootHome(home)) copies += <u32>popcnt(readableOf(rootHome(home))) * 4;
      let area = allocateBlocks(copies);
      store<u32>(ticket, area, T_D);
      for (let home: u32 = 0; home < 2; home++) {
        let volume = rootHome(home);
        if (volume) planRootReads(ticket, volume, area);
      }
      store<u32>(ticket, 1, T_STATE);
      return PLAN;
    }
    case 1: {
      // By the plan: what holds roots may have changed since.
      for (let index: u32 = 0; index < load<u32>(ticket, T_PLAN_COUNT); index++) {
        let volume = volumeById(planDevice(ticket, index) / MEMBER_COUNT_MAX);
        let copy = index & 3;
        let offset = rootOffset(volume, copy);
        // A volume that came to hold roots lately has one of them, or none yet. And after a crash any copy may be torn, or missing on such a volume:
        // the open for writing that follows writes them anew.
        let missing: u32 = load<u32>(openedRoot, O_FLAGS) & 1 ? 0 : 2;
        if (mode == MODE_WRITE) missing = failedReadOnly ? 2 : 2 - (load<u32>(volume, V_ROOTS) & 3);
        let kind = rootVerify(load<u32>(ticket, T_D) + index * BLOCK_BYTES, logIdentity);
        let excused = missing == 2 || (missing == 1 && (copy & 1) != (<u32>generation & 1));
        let sound = !planResult(ticket, index) && (kind != ROOT_BAD || excused);
        let id = load<u32>(volume, V_ID);
        if (ranges) {
          if (kind == ROOT_VALID) finding(0, KIND_ROOT, id, 0xffffffff, offset, <f64>BLOCK_BYTES);
        } else if (!sound) finding(planResult(ticket, index) ? ERROR_IO : ERROR_CORRUPT, KIND_ROOT, id, 0xffffffff, offset, <f64>BLOCK_BYTES);
      }
      if (rootOwner == ticket) rootHold(0);
      freeAt(ticket + <u32>T_D);
      store<u32>(ticket, 0, T_F);
      store<u32>(ticket, 0, T_B);
      store<u32>(ticket, 2, T_STATE);
      continue;
    }
    case 2: {
      if (ringCount) { planClear(ticket); if (ringCount > RING / 2) return PLAN; }
      if (lacks(65 * BLOCK_BYTES * 2)) return MEMORY;
      if (!pagesPlan(ticket, ranges)) {
        store<u32>(ticket, 0, T_A);
        store<u32>(ticket, 0, T_B);
        store<u32>(ticket, 4, T_STATE);
        continue;
      }
      if (ranges) continue;
      store<u32>(ticket, 3, T_STATE);
      return PLAN;
    }
    case 3: {
      pagesTake(ticket);
      store<u32>(ticket, 2, T_STATE);
      continue;
    }
    case 4: {
      planClear(ticket);
      if (findingsMany()) return PLAN; // let the host take what there is
      if (!segmentFind(ticket)) return DONE;
      checkedAt = sequence;
      let volume = volumeAt(load<u32>(ticket, T_A));
      if (lacks(scanRoom(volume))) return MEMORY;
      let index = load<u32>(ticket, T_B);
      let segment = segmentOf(volume, index);
      if (RAID) {
        held = heldSlots(segment);
        if (held) {
          let entries = allocate(held * ENTRY_BYTES);
          memory.copy(entries, load<u32>(load<u32>(segment, SEG_BUFFER), B_ENTRIES), held * ENTRY_BYTES);
          store<u32>(ticket, entries, T_E);
          store<u32>(ticket, 0, T_C);
          segmentPin(segment, 1);
          store<u32>(ticket, 6, T_STATE);
          continue;
        }
      }
      store<u8>(segment, load<u8>(segment, SEG_FLAGS) & ~(<u8>SEG_UNREAD), SEG_FLAGS); // the footer is what is checked
      store<u32>(ticket, scanPlan(ticket, volume, index), T_D);
      segmentPin(segment, 1);
      store<u32>(ticket, 5, T_STATE);
      return PLAN;
    }
    case 5: {
      if (lacks(scanRoom(volumeAt(load<u32>(ticket, T_A))) * 2)) return MEMORY;
      if (!entriesTake(ticket, ranges)) return PLAN;
      store<u32>(ticket, 0, T_C);
      liveFound = 0;
      store<u32>(ticket, 6, T_STATE);
      continue;
    }
    case 6: {
      if (RAID && findingsMany()) { planClear(ticket); return PLAN; } // segments of many slots, when ranges are asked for
      if (lacks(RECORD_DATA_MAX << BLOCK_SHIFT)) return MEMORY;
      if (!slotsPlan(ticket, ranges)) {
        let volume = volumeAt(load<u32>(ticket, T_A));
        let id = load<u32>(volume, V_ID);
        let index = load<u32>(ticket, T_B);
        let segment = segmentOf(volume, index);
        segmentPin(segment, -1);
        if (!ranges && !(RAID && held) && sequence == checkedAt && liveFound != liveCount(id, index)) {
          findingIn(ERROR_CORRUPT, KIND_UNBACKED, volume, blockOf(volume, index, 0), 0);
        }
        freeAt(ticket + <u32>T_E);
        bump(ticket, T_B, 1);
        store<u32>(ticket, 4, T_STATE);
        continue;
      }
      if (ranges) continue;
      store<u32>(ticket, 7, T_STATE);
      return PLAN;
    }
    default: {
      slotsTake(ticket);
      store<u32>(ticket, 6, T_STATE);
      continue;
    }
    }
  }
}

/** Plans the reads of both copies of up to 32 pages; false when all were read. */
function pagesPlan(ticket: u32, ranges: bool): bool {
  planClear(ticket);
  if (!ranges) store<u32>(ticket, allocateBlocks(64), T_D);
  let taken: u32 = 0;
  while (taken < 32) {
    let level = load<u32>(ticket, T_F);
    let index = load<u32>(ticket, T_B);
    if (index >= levelCount(level)) {
      if (level >= treeHeightNow()) break;
      store<u32>(ticket, level + 1, T_F);
      store<u32>(ticket, 0, T_B);
      continue;
    }
    store<u32>(ticket, index + 1, T_B);
    let at = node(level, index);
    if (load<u8>(at, N_KIND) == 0) continue;
    for (let copy: u32 = 0; copy < 2; copy++) {
      let volume = volumeById(load<u16>(at + <u32>(copy ? N_VOLUME_B : N_VOLUME_A)));
      let block = load<u32>(at + <u32>(copy ? N_BLOCK_B : N_BLOCK_A));
      if (ranges) findingIn(0, KIND_PAGE, volume, block, 1);
      else {
        store<u32>(pageNodes + ((taken * 2 + copy) << 2), at);
        planChecked(ticket, READ, volume, block, load<u32>(ticket, T_D) + (taken * 2 + copy) * BLOCK_BYTES, 1, CHECK_PAGE, at + <u32>N_CHECKSUM);
      }
    }
    taken++;
  }
  if (!taken && !ranges) {
    freeAt(ticket + <u32>T_D);
  }
  return taken != 0;
}
const pageNodes: usize = memory.data(256);

function pagesTake(ticket: u32): void {
  for (let i: u32 = 0; i < load<u32>(ticket, T_PLAN_COUNT); i++) {
    let at = load<u32>(pageNodes + (i << 2));
    let page = load<u32>(ticket, T_D) + i * BLOCK_BYTES;
    if (!planResult(ticket, i) && xxh64(page, BLOCK_BYTES, pageSeed) == load<u64>(at, N_CHECKSUM)) continue;
    let volume = volumeById(load<u16>(at + <u32>(i & 1 ? N_VOLUME_B : N_VOLUME_A)));
    let block = load<u32>(at + <u32>(i & 1 ? N_BLOCK_B : N_BLOCK_A));
    findingIn(planResult(ticket, i) ? ERROR_IO : ERROR_CORRUPT, KIND_PAGE, volume, block, 1);
  }
  freeAt(ticket + <u32>T_D);
}

/** The next segment that something stands on: live blocks, or records that an open would read. */
function segmentFind(ticket: u32): bool {
  while (true) {
    let i = load<u32>(ticket, T_A);
    if (i >= volumeCount) return false;
    let volume = volumeAt(i);
    let index = load<u32>(ticket, T_B);
    if (index >= load<u32>(volume, V_SEGMENT_COUNT)) {
      store<u32>(ticket, i + 1, T_A);
      store<u32>(ticket, 0, T_B);
      continue;
    }
    let segment = segmentOf(volume, index);
    let state = load<u8>(segment, SEG_STATE);
    if (RAID && heldSlots(segment)) return true;
    if (state == <u8>SEALED && !load<u32>(segment, SEG_BUFFER) && load<u16>(segment, SEG_USED)) {
      if (liveCount(load<u32>(volume, V_ID), index) || load<u64>(segment, SEG_LAST) > replaySequence || wasOpen(load<u64>(segment, SEG_FILL))) return true;
    }
    store<u32>(ticket, index + 1, T_B);
  }
}

/** Slots that are durable of a segment that is being filled, or is not durable as a whole yet: what is in its buffer says what they hold. */
function heldSlots(segment: u32): u32 {
  let buffer = load<u32>(segment, SEG_BUFFER);
  return buffer && load<u8>(segment, SEG_STATE) != <u8>META ? min(<u32>load<u16>(segment, SEG_USED), load<u32>(buffer, B_DURABLE)) : 0;
}
let held: u32 = 0; // of the segment at hand

function wasOpen(fill: u64): bool {
  for (let stream: u32 = 0; stream < 2; stream++) {
    let record = openedRoot + O_STREAMS + stream * STREAM_BYTES;
    if (load<u16>(record, S_OPEN_VOLUME) != <u16>VOLUME_NONE && load<u64>(record, S_OPEN_FILL) == fill) return true;
  }
  return false;
}

/** Slot entries of the segment from its footer or its headers; false: the footer is bad (said), the headers are read now. */
function entriesTake(ticket: u32, ranges: bool): bool {
  let volume = volumeAt(load<u32>(ticket, T_A));
  let index = load<u32>(ticket, T_B);
  let used = <u32>load<u16>(segmentOf(volume, index), SEG_USED);
  let scan = load<u32>(ticket, T_D);
  let code = planResult(ticket, 0) ? ERROR_IO : ERROR_CORRUPT;
  let entries = scanTake(volume, index, scan, planResult(ticket, 0));
  store<u32>(ticket, 0, T_D);
  if (!scanIsHeaders(scan)) {
    if (!entries || ranges) findingIn(entries ? 0 : code, KIND_FOOTER, volume, blockOf(volume, index, load<u32>(volume, V_DATA_SLOTS)), load<u32>(volume, V_FOOTER_BLOCKS));
    if (!entries) {
      planClear(ticket);
      store<u32>(ticket, scanPlan(ticket, volume, index), T_D);
      return false;
    }
  } else {
    let end = scanEnd;
    if (entries == SCAN_FAILED) {
      entries = allocateZeroed(used * ENTRY_BYTES + 8);
      end = 0;
    }
    if (end != used) findingIn(code, KIND_HEADER, volume, blockOf(volume, index, end), 1);
    if (ranges) {
      for (let slot: u32 = 0; slot < used; slot++) {
        if (entryKind(entries + slot * ENTRY_BYTES) == SLOT_HEADER) findingIn(0, KIND_HEADER, volume, blockOf(volume, index, slot), 1);
      }
    }
  }
  store<u32>(ticket, entries, T_E);
  return true;
}

const slotBatch: usize = memory.data(256);
let slotCount: u32 = 0;
let liveFound: u32 = 0;
let checkedAt: u64 = 0; // sequence when the segment at hand was begun

function isHeader(ticket: u32, slot: u32): bool {
  return entryKind(load<u32>(ticket, T_E) + slot * ENTRY_BYTES) == SLOT_HEADER;
}

/** Plans the reads of the next live slots; false when there are no more. */
function slotsPlan(ticket: u32, ranges: bool): bool {
  let volume = volumeAt(load<u32>(ticket, T_A));
  let index = load<u32>(ticket, T_B);
  let used = RAID && held ? held : <u32>load<u16>(segmentOf(volume, index), SEG_USED);
  let slot = load<u32>(ticket, T_C);
  slotCount = 0;
  while (slot < used && slotCount < RECORD_DATA_MAX) {
    if (slotLive(volume, index, load<u32>(ticket, T_E), slot) || (RAID && held && isHeader(ticket, slot))) store<u16>(slotBatch + (slotCount++ << 1), <u16>slot);
    slot++;
  }
  store<u32>(ticket, slot, T_C);
  if (!slotCount) return false;
  liveFound += slotCount;
  planClear(ticket);
  if (!ranges) store<u32>(ticket, allocateBlocks(slotCount), T_D);
  for (let i: u32 = 0; i < slotCount; i++) {
    let block = blockOf(volume, index, load<u16>(slotBatch + (i << 1)));
    if (ranges) findingIn(0, RAID && isHeader(ticket, load<u16>(slotBatch + (i << 1))) ? KIND_HEADER : KIND_DATA, volume, block, 1);
    else planBlocks(ticket, READ, volume, block, load<u32>(ticket, T_D) + (i << BLOCK_SHIFT), 1);
  }
  return true;
}

function slotsTake(ticket: u32): void {
  let volume = volumeAt(load<u32>(ticket, T_A));
  let index = load<u32>(ticket, T_B);
  let fill = load<u64>(segmentOf(volume, index), SEG_FILL);
  for (let i: u32 = 0; i < slotCount; i++) {
    let slot = <u32>load<u16>(slotBatch + (i << 1));
    let entry = load<u32>(ticket, T_E) + slot * ENTRY_BYTES;
    let block = blockOf(volume, index, slot);
    let content = load<u32>(ticket, T_D) + (i << BLOCK_SHIFT);
    let header = RAID && isHeader(ticket, slot);
    if (!planResult(ticket, i)) {
      if (header && recordVerify(content, load<u32>(volume, V_ID), block, slot, held - slot, fill)) continue;
      if (!header && xxh64(content, BLOCK_BYTES, blockSeed(fill, slot, entryBlock(entry), entryBirth(entry))) == entrySum(entry)) continue;
    }
    findingIn(planResult(ticket, i) ? ERROR_IO : ERROR_CORRUPT, header ? KIND_HEADER : KIND_DATA, volume, block, 1);
  }
  freeAt(ticket + <u32>T_D);
}

/** The ticket that checks. */
export let checking: u32 = 0;

export function checkEnd(ticket: u32): void {
  if (checking == ticket) checking = 0;
  if (rootOwner == ticket) rootHold(0);
  if (checkpointOwner == ticket) checkpointHold(0);
  scanFree(load<u32>(ticket, T_D));
  free(load<u32>(ticket, T_E));
}
