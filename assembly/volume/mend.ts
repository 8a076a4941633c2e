// Making the members of a storage volume agree: scrub, rebuild, and what a crash left half written. All three read every
// member's part of a segment, some stripes at a time, and bring it to what it should be:
//
//   1. What is missing of a row is computed from the rest.
//   2. Every block whose content is known by a checksum (headers, data, footers, pages) is checked; where it is wrong, each set
//      of members that the level can do without is taken for lost in turn, until it is right. Slots that hold nothing are
//      zeros if any of these gives zeros; what else is there stays.
//   3. Copies and parity are made anew; what differs from what was read is written. On members that are being rebuilt everything is.
//
// A row with a block that cannot be had is left as it is, and reported: its parity may be the only witness.
//
// A rebuild may be done in parts: each ends with a flush, and says where the next one begins. Segments before that place are right for good while
// the member stays one that is written to, also across lives: what changes in them later is written to it as to all others, and what a crash may have
// cost it of that is the tail, which an open writes to it whole. So one number is all that somebody has to remember (docs/FORMAT.md).
//
// Only what something stands on is looked at: stripes with slots in use and footers of segments that hold data, stripes with a
// live page of those that hold metadata. What is not durable yet is written to a member under rebuild as to all others.

import { allocate, allocateAligned, free } from '../std/allocator';
import { count } from '../std/counters';
import { xxh64 } from '../std/checksum';
import { PLANT_HEAL_REUSED, PLANT_REBUILD_SKIPS, planted } from '../std/plant';
import { DONE, ERROR_CLOSED, ERROR_CORRUPT, ERROR_IO, PLAN, WAIT, MEMORY, fail, lacks } from '../abi/status';
import {
  READ, T_A, T_B, T_C, T_D, T_E, T_EPOCH, T_F, T_LENGTH, T_OFFSET, T_PLAN_COUNT, T_RESULT, T_SPACE, T_STATE, T_VALUE, WRITE, planAdd, planClear,
  planDevice, planResult,
} from '../abi/ticket';
import { BLOCK_BYTES, BLOCK_SHIFT } from '../format/constants';
import { F_INCARNATION, SLOT_FLAG_PADDING, SLOT_HEADER, footerVerify } from '../format/footer';
import { blockSeed, logIdentity, pageSeed } from '../format/key';
import { O_GENERATION, ROOT_VALID, rootVerify } from '../format/root';
import { N_BLOCK_A, N_BLOCK_B, N_CHECKSUM, N_KIND, N_VOLUME_A, N_VOLUME_B } from '../format/page';
import { ENTRY_BYTES, R_INCARNATION, entryBirth, entryBlock, entryKind, entrySum, recordVerify } from '../format/record';
import { COLUMN_P, MEMBER_COUNT_MAX, copiesOf, memberOf, membersMask, parityOf, tolerates } from '../stripe/geometry';
import { columns, parityP, parityPQ, rowRestore } from '../stripe/parity';
import { liveCount } from '../table/live';
import {
  META, NEXT, FREE, SEG_BUFFER, SEG_FILL, SEG_FLAGS, SEG_HAS_FOOTER, SEG_PINS, SEG_STATE, SEG_USED, V_COLUMNS, V_DATA_SLOTS, V_DIRTY, V_FOOTER_BLOCKS,
  V_ROOTS, V_ID, V_LEVEL, V_MEMBERS, V_READABLE, V_SEGMENT_BLOCKS, V_SEGMENT_COUNT, V_STRIP_BLOCKS, V_WRITABLE, blockOf, handleOf, markWritten, planMemberFlushes,
  redundant, rowAt, segmentChanged, segmentOf, volumeAt, volumeById, volumeCount,
} from '../log/volumes';
import { B_DURABLE, B_ENTRIES, metadataWritten } from '../log/writer';
import { C_REBUILD_RESUMED, C_REBUILT, C_SCRUBBED, C_SCRUB_HEALED, C_TAIL_RESYNCED } from '../log/counting';
import { checkpointHold, checkpointOwner } from './checkpoint';
import { checking, finding, findingsBegin, findingsMany } from './check';
import { flushRun } from './flush';
import { blankRun, tailFooterGone, tailNext, tailSegment, tailSlot, tailVolume } from './replay';
import { isStale, rootHold, rootHome, rootOwner, rootRun, planRootReads } from './root';
import { healOwner, healOwnerSet, healedCount, lossAt, same } from './striped';
import { SCAN_FAILED, scanPlan, scanRoom, scanTake } from './sums';
import { levelCount, node, treeHeightNow } from './tree';

export const SCRUB_HEAL: u32 = 0;
export const SCRUB_REPORT: u32 = 1;
export const SCRUB_REBUILD: u32 = 2;

const UNREAD_AGAIN: u32 = 3;
const PASSED_OVER_MAX: u32 = 16;

/** Bytes of all members that are looked at in one go, about. */
const CHUNK_BYTES: u32 = 4194304;

const KIND_ROOT: u32 = 1;
const KIND_PAGE: u32 = 2;
const KIND_HEADER: u32 = 3;
const KIND_FOOTER: u32 = 4;
const KIND_DATA: u32 = 5;
const KIND_PARITY: u32 = 7;

// One segment at a time, and one ticket at a time.
export let owner: u32 = 0;
let volume: u32 = 0;
let index: u32 = 0;
let level: u32 = 0;
let members: u32 = 0;
let strip: u32 = 0;
let wide: u32 = 0;
let stage: u32 = 0; // 0 begin, 1 entries planned, 2 chunk to plan, 3 chunk read, 4 chunk to mend, 5 chunk written
let lingered: u32 = 0; // for the planted fault only, as is the next
let lingerFill: u64 = 0;
let scan: u32 = 0;
let entries: u32 = 0; // slot entries, or for metadata the checksums of live pages
let pages: bool = false;
let unknown: bool = false; // what belongs there: the headers could not be read
let used: u32 = 0;
let nextStripe: u32 = 0; // of the volume
let endStripe: u32 = 0;
let endSlot: u32 = 0; // slots from here on are somebody else's to write
let writes: bool = false;
let healing: bool = false; // not the tail of a log that is being opened
let rebuilt: u32 = 0; // members
let chunk: u32 = 0;
let chunkStripes: u32 = 0;
let unread: u32 = 0;
let again: u32 = 0; // how often the chunk could not be read to fill a member with
let passedOver: u32 = 0; // chunks that could not, in this part of a rebuild
let singlyUntil: u32 = 0; // stripes before this one are read one by one

let cancelled: bool = false;
/** The scrub or rebuild that is under way ends after the segment at hand: a rebuild that has done something as a part, else with CLOSED. */
export function scrubCancel(): void { cancelled = true; }

export let scrubDone: f64 = 0;
export let scrubTotal: f64 = 0;

function begin(ticket: u32, atVolume: u32, atIndex: u32): void {
  owner = ticket;
  volume = atVolume;
  index = atIndex;
  level = load<u32>(volume, V_LEVEL);
  members = load<u32>(volume, V_MEMBERS);
  strip = load<u32>(volume, V_STRIP_BLOCKS);
  wide = load<u32>(volume, V_COLUMNS);
  stage = 0;
  if (PLANTS) lingerFill = load<u64>(segmentOf(volume, index), SEG_FILL);
  again = 0;
  singlyUntil = 0;
}

/** Planted fault: a segment that nothing lives in is waited for, long enough for others to reuse it. */
function linger(segment: u32): bool {
  if (lingerFill != load<u64>(segment, SEG_FILL) || pages) return false;
  return (++lingered & (liveCount(load<u32>(volume, V_ID), index) ? 15 : 2047)) != 0;
}

/** Slots up to which the segment can be looked at. */
function slotsEnd(segment: u32): u32 {
  let buffer = load<u32>(segment, SEG_BUFFER);
  if (buffer) return load<u32>(buffer, B_DURABLE);
  if (load<u8>(segment, SEG_STATE) == <u8>META || load<u8>(segment, SEG_FLAGS) & <u8>SEG_HAS_FOOTER) return load<u32>(volume, V_SEGMENT_BLOCKS);
  return load<u16>(segment, SEG_USED);
}

/** Brings the segment that was begun in order from a slot on. */
function segmentRun(ticket: u32, fromSlot: u32): u32 {
  let segment = segmentOf(volume, index);
  while (true) {
    if (stage == 0) {
      let room = scanRoom(volume) + load<u32>(volume, V_SEGMENT_BLOCKS) * ENTRY_BYTES;
      if (lacks(room)) return MEMORY;
      planClear(ticket);
      let perStripe = wide * strip;
      let first = blockOf(volume, index, 0) / perStripe;
      nextStripe = first + fromSlot / perStripe;
      endSlot = slotsEnd(segment);
      endStripe = first + (endSlot + perStripe - 1) / perStripe;
      used = load<u16>(segment, SEG_USED);
      unknown = false;
      pages = load<u8>(segment, SEG_STATE) == <u8>META;
      let buffer = load<u32>(segment, SEG_BUFFER);
      if (pages) livePages();
      else if (buffer) {
        let bytes = load<u32>(volume, V_DATA_SLOTS) * ENTRY_BYTES;
        entries = allocate(bytes);
        memory.copy(entries, load<u32>(buffer, B_ENTRIES), bytes);
        used = min(used, load<u32>(buffer, B_DURABLE));
      } else {
        scan = scanPlan(ticket, volume, index);
        stage = 1;
        return PLAN;
      }
      stage = 2;
    } else if (stage == 1) {
      let taken = scanTake(volume, index, scan, planResult(ticket, 0));
      scan = 0;
      if (taken == SCAN_FAILED) {
        if (!rebuilt) {
          finding(ERROR_IO, KIND_HEADER, load<u32>(volume, V_ID), blockOf(volume, index, 0), 0, 0);
          return DONE;
        }
        unknown = true; // it is filled with what the others have, right or not: whoever reads it knows
        taken = allocate(8);
      }
      entries = taken;
      stage = taken ? 2 : 0;
    } else if (stage == 2) {
      while (nextStripe < endStripe && !stripeCounts(nextStripe)) nextStripe++;
      if (nextStripe >= endStripe) {
        free(entries);
        entries = 0;
        return DONE;
      }
      if (writes && healOwner && healOwner != ticket) return WAIT;
      chunkStripes = 1;
      let most: u32 = nextStripe < singlyUntil ? 1 : max(CHUNK_BYTES / (members * strip * BLOCK_BYTES), 1);
      let footer = footerStripe();
      while (nextStripe + chunkStripes < endStripe && (chunkStripes < most || nextStripe + chunkStripes > footer)) {
        if (nextStripe < footer && nextStripe + chunkStripes == footer) break; // the footer is one piece
        if (!stripeCounts(nextStripe + chunkStripes)) break;
        chunkStripes++;
      }
      // the rows of all members, a spare row, P and Q, the footer, for each row a mask and whether all of it could be had
      let room = (chunkStripes * strip + 1) * members * BLOCK_BYTES + (2 + load<u32>(volume, V_FOOTER_BLOCKS)) * BLOCK_BYTES + chunkStripes * strip * 8;
      if (lacks(room)) return MEMORY;
      if (writes) healOwnerSet(ticket);
      chunk = allocateAligned(room, BLOCK_BYTES);
      planClear(ticket);
      unread = membersMask(members) & ~load<u32>(volume, V_READABLE); // as it is now: it may change before the answer is here
      for (let member: u32 = 0; member < members; member++) {
        if (!(unread & (1 << member))) planAdd(ticket, READ, handleOf(volume) + member, rowAt(volume, nextStripe * strip), chunk + member * stride(), stride());
      }
      stage = 3;
      if (load<u32>(ticket, T_PLAN_COUNT)) return PLAN;
    } else if (stage == 3) {
      let at: u32 = 0;
      for (let member: u32 = 0; member < members; member++) {
        if (!(unread & (1 << member)) && planResult(ticket, at++)) unread |= 1 << member;
      }
      planClear(ticket);
      // A member is filled with what was read, never with what was not. A stripe that cannot be had is asked for again, and then passed over; many are no
      // bad places, but a device that does not answer.
      if (rebuilt && !tolerates(level, members, unread)) {
        singlyUntil = nextStripe + chunkStripes;
        if (++again <= UNREAD_AGAIN) {
          free(chunk);
          chunk = 0;
          if (healOwner == ticket) healOwnerSet(0);
          stage = 2;
          continue;
        }
        if (++passedOver > PASSED_OVER_MAX) return fail(ERROR_IO);
      }
      stage = 4;
    } else if (stage == 4) {
      if (PLANTS && planted == PLANT_HEAL_REUSED && linger(segment)) return PLAN;
      chunkMend();
      if (writes) planWrites(ticket);
      stage = 5;
      if (load<u32>(ticket, T_PLAN_COUNT)) return PLAN;
    } else {
      markWritten(ticket);
      let failed = load<u32>(ticket, T_RESULT);
      if (failed) finding(ERROR_IO, KIND_PARITY, load<u32>(volume, V_ID), 0, rowAt(volume, nextStripe * strip), 0);
      free(chunk);
      chunk = 0;
      if (healOwner == ticket) healOwnerSet(0);
      nextStripe += chunkStripes;
      again = 0;
      stage = 2;
      planClear(ticket);
      if (failed && rebuilt) return fail(ERROR_IO);
      return PLAN; // let others come in between
    }
  }
  return DONE; // not reached; the compiler does not see it
}

function stride(): u32 { return (chunkStripes * strip) << BLOCK_SHIFT; }
function spareRow(): u32 { return chunk + members * stride(); }
function footerArea(): u32 { return spareRow() + (members + 2) * BLOCK_BYTES; }
function rowMasks(): u32 { return footerArea() + (load<u32>(volume, V_FOOTER_BLOCKS) << BLOCK_SHIFT); }
function rowAddress(row: u32): u32 { return chunk + (row << BLOCK_SHIFT); }

/** The stripe in which the footer begins; beyond the end when there is none to be looked at. */
function footerStripe(): u32 {
  // As it was when the segment was begun: one that was sealed since is not looked at.
  if (pages || unknown || endSlot < load<u32>(volume, V_SEGMENT_BLOCKS) || !(load<u8>(segmentOf(volume, index), SEG_FLAGS) & <u8>SEG_HAS_FOOTER)) return 0xffffffff;
  return blockOf(volume, index, load<u32>(volume, V_DATA_SLOTS)) / (wide * strip);
}

/** Checksums of the pages that live in the segment, by slot: 0 where there is none. */
function livePages(): void {
  let blocks = load<u32>(volume, V_SEGMENT_BLOCKS);
  let first = blockOf(volume, index, 0);
  let id = load<u32>(volume, V_ID);
  entries = allocate(blocks * 8);
  memory.fill(entries, 0, blocks * 8);
  for (let depth: u32 = 0; depth <= treeHeightNow(); depth++) {
    for (let i: u32 = 0; i < levelCount(depth); i++) {
      let at = node(depth, i);
      if (load<u8>(at, N_KIND) == 0) continue;
      let slot = load<u32>(at, N_BLOCK_A) - first;
      if (<u32>load<u16>(at, N_VOLUME_A) == id && slot < blocks) store<u64>(entries + slot * 8, load<u64>(at, N_CHECKSUM));
      slot = load<u32>(at, N_BLOCK_B) - first;
      if (<u32>load<u16>(at, N_VOLUME_B) == id && slot < blocks) store<u64>(entries + slot * 8, load<u64>(at, N_CHECKSUM));
    }
  }
}

/** Whether anything stands on a stripe: a live page, a slot in use, the footer. */
function stripeCounts(stripe: u32): bool {
  if (unknown) return true;
  let slot = stripe * wide * strip - blockOf(volume, index, 0);
  if (!pages) return slot < used || stripe >= footerStripe();
  for (let i: u32 = 0; i < wide * strip; i++) if (load<u64>(entries + (slot + i) * 8)) return true;
  return false;
}

// ---- what a block should be ----------------------------------------------------------------------------------------

const KNOWN: u32 = 1;
const ZEROS: u32 = 2; // padding; or anything else
const ANYTHING: u32 = 3;
const FOOTER: u32 = 4; // looked at as a whole
let expectedKind: u32 = 0;
let expectedSlot: u32 = 0;
let expectedEntry: u32 = 0;

function expect(slot: u32): u32 {
  expectedSlot = slot;
  expectedKind = KIND_DATA;
  if (unknown) return ANYTHING;
  if (pages) {
    expectedKind = KIND_PAGE;
    expectedEntry = entries + slot * 8;
    return load<u64>(expectedEntry) ? KNOWN : ANYTHING;
  }
  let segment = segmentOf(volume, index);
  if (slot >= load<u32>(volume, V_DATA_SLOTS)) {
    if (endSlot < load<u32>(volume, V_SEGMENT_BLOCKS) || !(load<u8>(segment, SEG_FLAGS) & <u8>SEG_HAS_FOOTER)) return ANYTHING;
    return FOOTER;
  }
  if (slot >= used) return ANYTHING;
  expectedEntry = entries + slot * ENTRY_BYTES;
  let kind = entryKind(expectedEntry);
  if (kind == SLOT_HEADER) {
    expectedKind = KIND_HEADER;
    return KNOWN;
  }
  return kind ? KNOWN : isPadding(slot) ? ZEROS : ANYTHING;
}

function isPadding(slot: u32): bool {
  while (slot > 0 && entryKind(entries + slot * ENTRY_BYTES) == 0) slot--;
  let entry = entries + slot * ENTRY_BYTES;
  return entryKind(entry) == SLOT_HEADER && (load<u8>(entry, 1) & <u8>SLOT_FLAG_PADDING) != 0;
}

function isRight(block: u32, what: u32): bool {
  if (what == ZEROS) {
    for (let at: u32 = 0; at < BLOCK_BYTES; at += 8) if (load<u64>(block + at)) return false;
    return true;
  }
  let fill = load<u64>(segmentOf(volume, index), SEG_FILL);
  if (expectedKind == KIND_PAGE) return xxh64(block, BLOCK_BYTES, pageSeed) == load<u64>(expectedEntry);
  if (expectedKind == KIND_HEADER) {
    let sound = recordVerify(block, load<u32>(volume, V_ID), blockOf(volume, index, expectedSlot), expectedSlot, used - expectedSlot, fill);
    return sound && !isStale(fill, expectedSlot, load<u64>(block, R_INCARNATION));
  }
  return xxh64(block, BLOCK_BYTES, blockSeed(fill, expectedSlot, entryBlock(expectedEntry), entryBirth(expectedEntry))) == entrySum(expectedEntry);
}

// ---- one chunk -----------------------------------------------------------------------------------------------------

/** The row as it would be without these members, in the spare row. False: it cannot be had. */
function without(stripe: u32, row: u32, lost: u32): bool {
  let spare = spareRow();
  for (let member: u32 = 0; member < members; member++) memory.copy(spare + (member << BLOCK_SHIFT), rowAddress(row) + member * stride(), BLOCK_BYTES);
  return rowRestore(level, members, stripe, spare, BLOCK_BYTES, lost);
}

function chunkMend(): void {
  let perStripe = wide * strip;
  let first = blockOf(volume, index, 0);
  let masks = rowMasks();
  let rows = chunkStripes * strip;
  for (let row: u32 = 0; row < rows; row++) {
    let whole = !unread || rowRestore(level, members, nextStripe + row / strip, rowAddress(row), stride(), unread);
    store<u32>(masks + row * 8, 0);
    store<u32>(masks + row * 8, whole ? 1 : 0, 4);
  }
  if (footerStripe() >= nextStripe && footerStripe() < nextStripe + chunkStripes) footerMend();
  for (let row: u32 = 0; row < rows; row++) {
    let stripe = nextStripe + row / strip;
    let base = rowAddress(row);
    let dirty = load<u32>(masks + row * 8);
    let resolved = load<u32>(masks + row * 8, 4) != 0;
    let ours: u32 = parityOf(level) ? 0xffffffff : 0; // members whose block of this row is ours to write
    for (let column: u32 = 0; column < wide; column++) {
      let slot = stripe * perStripe + column * strip + (row % strip) - first;
      if (slot < endSlot) for (let copy: u32 = 0; copy < copiesOf(level, members); copy++) ours |= 1 << memberOf(level, members, stripe, column, copy);
      let what = expect(slot);
      // Where nobody knows what belongs there, mirrors need not agree: it may never have been written.
      if (what == FOOTER || (what == ANYTHING && copiesOf(level, members) > 1)) continue;
      let right = MEMBER_NONE;
      for (let copy: u32 = 0; copy < copiesOf(level, members); copy++) {
        let member = memberOf(level, members, stripe, column, copy);
        if (copy && unread & (1 << member)) continue;
        if (what == ANYTHING || isRight(base + member * stride(), what)) { right = member; break; }
      }
      let home = memberOf(level, members, stripe, column, 0);
      if (right == MEMBER_NONE && copiesOf(level, members) == 1) {
        for (let attempt: u32 = 0; ; attempt++) {
          let lost = lossAt(level, members, attempt);
          if (!lost) break;
          if (!((lost | unread) & (1 << home)) || !without(stripe, row, lost | unread)) continue;
          if (!isRight(spareRow() + (home << BLOCK_SHIFT), what)) continue;
          memory.copy(base + home * stride(), spareRow() + (home << BLOCK_SHIFT), BLOCK_BYTES);
          dirty |= 1 << home;
          right = home;
          break;
        }
      }
      if (right == MEMBER_NONE) {
        if (what == ZEROS) {
          if (copiesOf(level, members) > 1) continue;
          right = home;
        } else {
          resolved = false;
          if (!healing && unread && slot >= tailSlot) tailGone = true;
          finding(ERROR_CORRUPT, expectedKind, load<u32>(volume, V_ID), blockOf(volume, index, slot), rowAt(volume, stripe * strip + (row % strip)), <f64>BLOCK_BYTES);
          continue;
        }
      }
      for (let copy: u32 = 0; copy < copiesOf(level, members); copy++) {
        let member = memberOf(level, members, stripe, column, copy);
        if (same(base + member * stride(), base + right * stride())) continue;
        memory.copy(base + member * stride(), base + right * stride(), BLOCK_BYTES);
        dirty |= 1 << member;
      }
    }
    if (resolved && parityOf(level)) {
      for (let column: u32 = 0; column < wide; column++) store<u32>(columns + (column << 2), base + memberOf(level, members, stripe, column, 0) * stride());
      let p = spareRow() + (members << BLOCK_SHIFT);
      let q = p + BLOCK_BYTES;
      if (parityOf(level) > 1) parityPQ(wide, p, q, BLOCK_BYTES);
      else parityP(wide, p, BLOCK_BYTES);
      for (let i: u32 = 0; i < parityOf(level); i++) {
        let member = memberOf(level, members, stripe, COLUMN_P + i, 0);
        let from = i ? q : p;
        if (same(base + member * stride(), from)) continue;
        memory.copy(base + member * stride(), from, BLOCK_BYTES);
        dirty |= 1 << member;
      }
    }
    dirty &= ours;
    let wrong = dirty & load<u32>(volume, V_READABLE);
    if (healing && wrong) {
      let member = <u32>ctz(wrong);
      finding(0, KIND_PARITY, load<u32>(volume, V_ID), member, rowAt(volume, stripe * strip + (row % strip)), <f64>BLOCK_BYTES);
      if (writes) {
        count(C_SCRUB_HEALED);
        healedCount(1);
      }
    }
    let fill = rebuilt & ours;
    if (fill && !load<u32>(masks + row * 8, 4)) {
      finding(ERROR_IO, KIND_PARITY, load<u32>(volume, V_ID), 0, rowAt(volume, stripe * strip + (row % strip)), <f64>BLOCK_BYTES);
      fill = 0;
    }
    store<u32>(masks + row * 8, dirty | fill);
  }
}
const MEMBER_NONE: u32 = 32;

/** Where a block of the footer is in the chunk. */
function footerBlock(at: u32, copy: u32): u32 {
  let block = blockOf(volume, index, load<u32>(volume, V_DATA_SLOTS)) + at;
  let stripe = block / (wide * strip);
  footerRow = (stripe - nextStripe) * strip + (block % strip);
  footerMember = memberOf(level, members, stripe, (block / strip) % wide, copy);
  return rowAddress(footerRow) + footerMember * stride();
}
let footerRow: u32 = 0;
let footerMember: u32 = 0;

/** The footer is right only as a whole: each set of members in turn is taken for lost in all of it. */
function footerMend(): void {
  let blocks = load<u32>(volume, V_FOOTER_BLOCKS);
  let area = footerArea();
  let first = blockOf(volume, index, load<u32>(volume, V_DATA_SLOTS));
  let fill = load<u64>(segmentOf(volume, index), SEG_FILL);
  let loss: u32 = 0; // first as it was read, but for what was not
  for (let attempt: u32 = 0; attempt == 0 || loss; loss = lossAt(level, members, attempt++)) {
    let lost = loss | unread;
    let whole = true;
    for (let at: u32 = 0; at < blocks && whole; at++) {
      let from: u32 = 0;
      for (let copy: u32 = 0; copy < copiesOf(level, members) && !from; copy++) {
        let address = footerBlock(at, copy);
        if (!(lost & (1 << footerMember))) from = address;
      }
      if (!from) {
        whole = copiesOf(level, members) == 1 && without(nextStripe + footerRow / strip, footerRow, lost);
        from = spareRow() + (footerMember << BLOCK_SHIFT);
      }
      if (whole) memory.copy(area + (at << BLOCK_SHIFT), from, BLOCK_BYTES);
    }
    let slots = load<u32>(volume, V_DATA_SLOTS);
    if (!whole || !footerVerify(area, blocks, load<u32>(volume, V_ID), first, slots, fill) || isStale(fill, slots, load<u64>(area, F_INCARNATION))) continue;
    for (let at: u32 = 0; at < blocks; at++) {
      for (let copy: u32 = 0; copy < copiesOf(level, members); copy++) {
        let address = footerBlock(at, copy);
        if (same(address, area + (at << BLOCK_SHIFT))) continue;
        memory.copy(address, area + (at << BLOCK_SHIFT), BLOCK_BYTES);
        let mask = rowMasks() + footerRow * 8;
        store<u32>(mask, load<u32>(mask) | (1 << footerMember));
      }
    }
    return;
  }
  // Torn by a crash, with a member that went before it could be made whole: what it says is known from elsewhere, and the headers say the same.
  finding(0, KIND_FOOTER, load<u32>(volume, V_ID), first, 0, <f64>(blocks << BLOCK_SHIFT));
  let segment = segmentOf(volume, index);
  store<u8>(segment, load<u8>(segment, SEG_FLAGS) & ~(<u8>SEG_HAS_FOOTER), SEG_FLAGS);
  segmentChanged(volume, index);
}

/** Writes of what differs, neighbours joined. */
function planWrites(ticket: u32): void {
  let masks = rowMasks();
  let rows = chunkStripes * strip;
  for (let member: u32 = 0; member < members; member++) {
    let bit: u32 = 1 << member;
    if (!(load<u32>(volume, V_WRITABLE) & bit)) continue;
    for (let row: u32 = 0; row < rows; row++) {
      if (!(load<u32>(masks + row * 8) & bit)) continue;
      let end = row + 1;
      while (end < rows && load<u32>(masks + end * 8) & bit) end++;
      planAdd(ticket, WRITE, handleOf(volume) + member, rowAt(volume, nextStripe * strip + row), rowAddress(row) + member * stride(), (end - row) << BLOCK_SHIFT);
      metadataWritten(end - row);
      row = end;
    }
  }
}

function giveUp(ticket: u32): void {
  if (owner != ticket) return;
  if (entries) free(entries);
  if (chunk) free(chunk);
  entries = 0;
  chunk = 0;
  owner = 0;
  if (healOwner == ticket) healOwnerSet(0);
}

// ---- scrub and rebuild ---------------------------------------------------------------------------------------------

/**
 * Where a segment comes in a rebuild: segments of metadata first, then those of data. A segment that came to hold the other kind since was written to the
 * member meanwhile.
 */
function place(round: u32, atVolume: u32, at: u32): f64 {
  return <f64>round * <f64>load<u32>(atVolume, V_SEGMENT_COUNT) + <f64>at;
}

// T_SPACE: a storage volume, or 0xFFFF: all. T_EPOCH: what for. T_A volume index, T_B segment, T_C 0 metadata, 1 data, T_D pinned segment, T_E roots committed.
// A rebuild, of one storage volume: T_OFFSET the place where it begins, T_LENGTH how many segments it does (0: all). T_VALUE, its result: the place where the
// next part begins; 0: all is done.
export function scrubStep(ticket: u32): u32 {
  let what = load<u32>(ticket, T_EPOCH);
  while (true) {
    let state = load<u32>(ticket, T_STATE);
    if (state == 0) {
      if (owner || checking || rootOwner) return WAIT;
      if (lacks(1310720)) return MEMORY;
      owner = ticket;
      cancelled = false;
      findingsBegin();
      passedOver = 0;
      scrubDone = 0;
      scrubTotal = 0;
      let from = load<f64>(ticket, T_OFFSET);
      for (let i: u32 = 0; i < volumeCount; i++) {
        let each = volumeAt(i);
        if (!chosen(ticket, each)) continue;
        let segments = load<u32>(each, V_SEGMENT_COUNT);
        for (let at: u32 = 0; at < segments; at++) {
          if (!allocated(each, at)) continue;
          scrubTotal += 1;
          if (place(isMeta(each, at) ? 0 : 1, each, at) < from) scrubDone += 1;
        }
        if (from <= 0) continue;
        count(C_REBUILD_RESUMED);
        store<u32>(ticket, i, T_A);
        store<u32>(ticket, from < <f64>segments ? 0 : 1, T_C);
        store<u32>(ticket, <u32>min(from - (from < <f64>segments ? 0 : <f64>segments), <f64>segments), T_B);
      }
      // Roots first: copies of one slot must be the same on all members, or both are written anew in the end.
      rootHold(ticket);
      planClear(ticket);
      let copies: u32 = 0;
      for (let home: u32 = 0; home < 2; home++) if (isHome(ticket, home)) copies += 4 * <u32>popcnt(load<u32>(rootHome(home), V_READABLE));
      chunk = allocateAligned((copies + 1) * BLOCK_BYTES, BLOCK_BYTES);
      for (let home: u32 = 0; home < 2; home++) if (isHome(ticket, home)) planRootReads(ticket, rootHome(home), chunk);
      store<u32>(ticket, 7, T_STATE);
      if (copies) return PLAN;
    } else if (state == 7) {
      rootHold(0);
      if (rootsDiffer(ticket)) store<u32>(ticket, 1, T_F);
      free(chunk);
      chunk = 0;
      store<u32>(ticket, 1, T_STATE);
    } else if (state == 1) {
      // What was planned before the member was written to is behind this; pages hold still until they are done with.
      let status = flushRun(ticket, true);
      if (status != DONE) return status;
      store<u32>(ticket, 8, T_STATE);
      planClear(ticket);
      return PLAN; // who waits for the flush to end hears of it, before this waits for a checkpoint that does
    } else if (state == 8) {
      if (checkpointOwner) return WAIT;
      checkpointHold(ticket);
      store<u32>(ticket, 2, T_STATE);
    } else if (state == 2) {
      planClear(ticket);
      if (cancelled) {
        if (load<f64>(ticket, T_VALUE) == 0) return fail(ERROR_CLOSED);
        store<u32>(ticket, 9, T_STATE);
        continue;
      }
      if (findingsMany()) return PLAN;
      if (!segmentFind(ticket)) {
        if (checkpointOwner == ticket) checkpointHold(0);
        if (load<u32>(ticket, T_C) == 0) {
          store<u32>(ticket, 1, T_C);
          store<u32>(ticket, 0, T_A);
          store<u32>(ticket, 0, T_B);
          continue;
        }
        count(what == SCRUB_REBUILD ? C_REBUILT : C_SCRUBBED);
        store<f64>(ticket, 0, T_VALUE);
        if (what == SCRUB_REPORT) return DONE;
        store<u32>(ticket, 4, T_STATE);
        continue;
      }
      begin(ticket, volumeAt(load<u32>(ticket, T_A)), load<u32>(ticket, T_B));
      writes = what != SCRUB_REPORT;
      healing = true;
      rebuilt = what == SCRUB_REBUILD ? load<u32>(volume, V_WRITABLE) & ~load<u32>(volume, V_READABLE) : 0;
      let segment = segmentOf(volume, index);
      if (!(PLANTS && planted == PLANT_HEAL_REUSED)) {
        store<u32>(segment, load<u32>(segment, SEG_PINS) + 1, SEG_PINS);
        store<u32>(ticket, segment, T_D);
      }
      store<u32>(ticket, 3, T_STATE);
    } else if (state == 3) {
      let status = PLANTS && planted == PLANT_REBUILD_SKIPS && what == SCRUB_REBUILD && scrubDone == 3 ? DONE : segmentRun(ticket, 0);
      if (status != DONE) return status;
      unpin(ticket);
      scrubDone += 1;
      let next = load<u32>(ticket, T_B) + 1;
      store<u32>(ticket, next, T_B);
      store<u32>(ticket, 2, T_STATE);
      if (what != SCRUB_REBUILD) continue;
      store<f64>(ticket, place(load<u32>(ticket, T_C), volumeAt(load<u32>(ticket, T_A)), next), T_VALUE);
      let left = load<f64>(ticket, T_LENGTH) - 1;
      store<f64>(ticket, left, T_LENGTH);
      if (left == 0) store<u32>(ticket, 9, T_STATE);
    } else if (state == 9) {
      // A part ends here.
      if (checkpointOwner == ticket) checkpointHold(0);
      store<u32>(ticket, 4, T_STATE);
    } else if (state == 4) {
      planClear(ticket);
      for (let i: u32 = 0; i < volumeCount; i++) if (chosen(ticket, volumeAt(i))) planMemberFlushes(ticket, volumeAt(i), 0xffffffff);
      store<u32>(ticket, 5, T_STATE);
      if (load<u32>(ticket, T_PLAN_COUNT)) return PLAN;
    } else if (state == 5) {
      if (load<u32>(ticket, T_RESULT)) return fail(ERROR_IO);
      if (load<f64>(ticket, T_VALUE) > 0) return DONE;
      // A member that is new gets both roots.
      let roots = load<u32>(ticket, T_F) != 0 || (what == SCRUB_REBUILD && (isHome(ticket, 0) || isHome(ticket, 1)));
      if (!roots || load<u32>(ticket, T_E) == 2) return DONE;
      store<u32>(ticket, load<u32>(ticket, T_E) + 1, T_E);
      store<u32>(ticket, 6, T_STATE);
    } else {
      let status = rootRun(ticket);
      if (status != DONE) return status;
      planClear(ticket);
      store<u32>(ticket, 5, T_STATE);
    }
  }
}

export function scrubEnd(ticket: u32): void {
  unpin(ticket);
  if (rootOwner == ticket) rootHold(0);
  giveUp(ticket);
  if (checkpointOwner == ticket) checkpointHold(0);
}

function unpin(ticket: u32): void {
  let segment = load<u32>(ticket, T_D);
  if (!segment) return;
  store<u32>(segment, load<u32>(segment, SEG_PINS) - 1, SEG_PINS);
  store<u32>(ticket, 0, T_D);
}

function chosen(ticket: u32, candidate: u32): bool {
  return redundant(candidate) && (load<u32>(ticket, T_SPACE) == 0xffff || load<u32>(candidate, V_ID) == load<u32>(ticket, T_SPACE));
}

function isHome(ticket: u32, home: u32): bool {
  return rootHome(home) != 0 && chosen(ticket, rootHome(home));
}

/** Whether some copy of a root is not what the others are. Volumes that came to hold roots lately have only one yet. */
function rootsDiffer(ticket: u32): bool {
  let differ = false;
  for (let slot: u32 = 0; slot < 2; slot++) {
    let right: u32 = 0;
    for (let pass: u32 = 0; pass < 2; pass++) {
      for (let i: u32 = slot; i < load<u32>(ticket, T_PLAN_COUNT); i += 2) {
        let root = chunk + i * BLOCK_BYTES;
        let home = volumeById(planDevice(ticket, i) / MEMBER_COUNT_MAX);
        if (pass == 0) {
          if (!planResult(ticket, i) && rootVerify(root, logIdentity) == ROOT_VALID && (!right || load<u64>(root, O_GENERATION) > load<u64>(right, O_GENERATION))) right = root;
        } else if ((load<u32>(home, V_ROOTS) & 3) == 2 && (planResult(ticket, i) || !right || !same(root, right))) {
          finding(0, KIND_ROOT, load<u32>(home, V_ID), planDevice(ticket, i) % MEMBER_COUNT_MAX, 0, <f64>BLOCK_BYTES);
          differ = true;
        }
      }
    }
  }
  return differ;
}

function isMeta(atVolume: u32, at: u32): bool {
  return load<u8>(segmentOf(atVolume, at), SEG_STATE) == <u8>META;
}

function allocated(atVolume: u32, at: u32): bool {
  let state = <u32>load<u8>(segmentOf(atVolume, at), SEG_STATE);
  return state != FREE && state != NEXT;
}

/** The next segment of this round, from T_A and T_B on. */
function segmentFind(ticket: u32): bool {
  while (load<u32>(ticket, T_A) < volumeCount) {
    let candidate = volumeAt(load<u32>(ticket, T_A));
    let at = load<u32>(ticket, T_B);
    if (!chosen(ticket, candidate) || at >= load<u32>(candidate, V_SEGMENT_COUNT)) {
      store<u32>(ticket, load<u32>(ticket, T_A) + 1, T_A);
      store<u32>(ticket, 0, T_B);
      continue;
    }
    if (allocated(candidate, at) && isMeta(candidate, at) == (load<u32>(ticket, T_C) == 0)) return true;
    store<u32>(ticket, at + 1, T_B);
  }
  return false;
}

// ---- the tail of a log that is being opened ------------------------------------------------------------------------

let tailState: u32 = 0;
/** A block that nobody vouches for was on one member, and that has gone since replay saw it. */
let tailGone: bool = false;

/** What was being written when the log stopped may be on some members only: all get what was found. */
export function tailRun(ticket: u32): u32 {
  while (true) {
    if (tailState == 0) {
      if (lacks(1310720)) return MEMORY;
      findingsBegin();
      if (!tailNext()) {
        tailState = 2;
        continue;
      }
      if (!redundant(tailVolume)) continue;
      begin(ticket, tailVolume, tailSegment);
      writes = true;
      healing = false;
      // What a member that is being rebuilt got of it before the crash, nobody knows.
      rebuilt = load<u32>(volume, V_WRITABLE) & ~load<u32>(volume, V_READABLE);
      count(C_TAIL_RESYNCED);
      tailState = 1;
    } else if (tailState == 1) {
      let status = segmentRun(ticket, tailSlot);
      if (status != DONE) return status;
      if (tailGone) return fail(ERROR_IO); // the next open goes without it: for that one the log ends before
      if (!(load<u8>(segmentOf(tailVolume, tailSegment), SEG_FLAGS) & <u8>SEG_HAS_FOOTER)) tailFooterGone();
      owner = 0;
      tailState = 0;
    } else if (tailState == 2) {
      let status = blankRun(ticket);
      if (status != DONE) return status;
      planClear(ticket);
      for (let i: u32 = 0; i < volumeCount; i++) {
        if (!redundant(volumeAt(i))) continue;
        planMemberFlushes(ticket, volumeAt(i), load<u32>(volumeAt(i), V_DIRTY));
        store<u32>(volumeAt(i), 0, V_DIRTY);
      }
      tailState = 3;
      if (load<u32>(ticket, T_PLAN_COUNT)) return PLAN;
    } else {
      if (load<u32>(ticket, T_RESULT)) return fail(ERROR_IO);
      planClear(ticket);
      return DONE;
    }
  }
}
