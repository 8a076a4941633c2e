// Plans for storage volumes of several members. Operations plan in blocks of a volume (`planBlocks`), whatever its level; here
// those commands become commands for members before the host sees them, and what comes back becomes what the operation
// asked for. `stripedBegin` follows a step that answers PLAN, `stripedStep` comes before the next step of the ticket.
//
//   1. Reads are cut along strips. A member of which one piece is wanted is read in place, one of which there are several in
//      one go, with what lies between, and the pieces are copied out. Writes are gathered the other way round, and whole
//      stripes get their parity computed on the way.
//   2. Pieces whose member is missing, or failed to read, are computed from the same rows of all others.
//   3. Reads that can be checked are. What is wrong is looked for again: each set of members that the level can do without
//      is taken for lost in turn, until the bytes are right. Then the wrong block is written anew ("healed").
//   4. A member that fails a write or flush, and can be done without, is out: the host is asked to commit that, and until
//      it has the ticket waits. What it failed to do then counts as done.

import { allocate, allocateAligned, free } from '../std/allocator';
import { count } from '../std/counters';
import { xxh64 } from '../std/checksum';
import { PLANT_HEAL_UNVERIFIED, PLANT_NO_PARITY, PLANT_STALE_TRUSTED, planted } from '../std/plant';
import { DONE, FAILED, PLAN, RESULT_IO, MEMORY, WAIT, lacks } from '../abi/status';
import {
  COMMAND_BYTES, FLUSH, MARKED, READ, T_ASIDE, T_JOB, T_JOBS, T_KIND, T_LOST, T_MARKED, T_PLAN, T_PLAN_COUNT, T_RESCUE, T_RESULT, T_RESULT_INDEX,
  T_ROWS, T_SCRATCH, T_STRIPED, WRITE, planAdd, planClear, planMark, planResult, planSwap,
} from '../abi/ticket';
import { BLOCK_BYTES, BLOCK_SHIFT } from '../format/constants';
import { F_INCARNATION, footerVerify } from '../format/footer';
import { blockSeed, pageSeed } from '../format/key';
import {
  ENTRY_BYTES, ENTRY_TRIM, RECORD_FIXED_BYTES, RECORD_OPERATION, RECORD_PADDING, R_ENTRIES, R_INCARNATION, R_KIND, entryBirth, entryBlock, entryKind, entrySum,
  recordSlots, recordVerify,
} from '../format/record';
import { COLUMN_P, COLUMN_Q, LEVEL_1, LEVEL_6, MEMBER_COUNT_MAX, copiesOf, memberOf, membersMask, parityOf, tolerates } from '../stripe/geometry';
import { columns, parityP, parityPQ, rowRestore } from '../stripe/parity';
import {
  CHECK_FIRST, CHECK_FOOTER, CHECK_PAGE, CHECK_RECORDS, V_COLUMNS, V_DATA_SLOTS, V_DENIED, V_FAULT, V_ID, V_LEVEL, V_MEMBERS, V_NEXT,
  V_READABLE, V_SEGMENT_BLOCKS, V_STRIP_BLOCKS, V_WRITABLE, handleOf, markWritten, redundant, rowAt, rowOf, volumeById, volumeHead,
} from '../log/volumes';
import { C_BLOCK_HEALED, C_BLOCK_RESCUED, C_MEMBER_FAULTED, C_READ_DEGRADED, C_READ_REDIRECTED } from '../log/counting';
import { MODE_WRITE, failedReadOnly, flushLost, mode } from './mode';
import { isStale } from './root';

/** Reads rows of all readable members: member m's part lies m times the length behind the address. Marked, for this file alone. */
const ROWS: u32 = 8;
const KIND_CHECK: u32 = 15;

const J_FIRST: usize = 0; // its first command for a member
const J_COUNT: usize = 4;
const J_SCRATCH: usize = 8;
const J_GONE: usize = 12; // members that were not to be read when it was planned
const J_LOST: usize = 16; // those, and the ones that failed
const J_COPY: usize = 20;
const J_LOW: usize = 24; // rows that are wanted from the other members
const J_HIGH: usize = 28;
const J_AREA: usize = 32;
const J_SOUND: usize = 36; // blocks that are known to be right; all of them: nothing more to look for
const J_BYTES: u32 = 40;

const BEGIN: u32 = 1;
const PERFORMED: u32 = 2;
const OTHERS: u32 = 3;
const OTHERS_READ: u32 = 4;
const LOOK: u32 = 5;
const ROWS_READ: u32 = 6;
const HEALED: u32 = 7;
const ALL: u32 = 0xffffffff;

export let healedBlocks: f64 = 0;
export function healedCount(blocks: u32): void { healedBlocks += <f64>blocks; }
/** Who writes blocks anew at the moment: one at a time, so that no two write the same one. */
export let healOwner: u32 = 0;
export function healOwnerSet(ticket: u32): void { healOwner = ticket; }

export function mayHeal(ticket: u32): bool {
  return mode == MODE_WRITE && !failedReadOnly && !healOwner && load<u32>(ticket, T_KIND) != KIND_CHECK;
}

function jobAt(ticket: u32, index: u32): u32 { return load<u32>(ticket, T_JOBS) + index * J_BYTES; }
/** A command of the plan that is aside: the one that the operation made. */
function asked(ticket: u32, index: u32): u32 { return load<u32>(ticket, T_ASIDE) + index * COMMAND_BYTES; }
function askedCount(ticket: u32): u32 { return load<u32>(ticket, T_ASIDE + 4); }
function commandVolume(command: u32): u32 { return volumeById(load<u32>(command, 4) / MEMBER_COUNT_MAX); }
function commandBlocks(command: u32): u32 { return load<u32>(command, 20) >>> BLOCK_SHIFT; }
function isMarked(command: u32): bool { return (load<u32>(command) & MARKED) != 0; }

function unreadable(volume: u32): u32 {
  let there = load<u32>(volume, V_READABLE);
  if (PLANTS && planted == PLANT_STALE_TRUSTED) there = load<u32>(volume, V_WRITABLE);
  return membersMask(load<u32>(volume, V_MEMBERS)) & ~there;
}

// ---- pieces: a run of blocks, cut along strips ---------------------------------------------------------------------

let level: u32 = 0;
let members: u32 = 0;
let strip: u32 = 0;
let wide: u32 = 0;
let pieceBlock: u32 = 0;
let pieceEnd: u32 = 0;
let pieceFrom: u32 = 0;
let pieceStripe: u32 = 0;
let pieceColumn: u32 = 0;
let pieceRow: u32 = 0;
let pieceBlocks: u32 = 0;
let pieceAt: u32 = 0; // its first block, counted from the run's

function geometry(volume: u32): void {
  level = load<u32>(volume, V_LEVEL);
  members = load<u32>(volume, V_MEMBERS);
  strip = load<u32>(volume, V_STRIP_BLOCKS);
  wide = load<u32>(volume, V_COLUMNS);
}

function piecesBegin(volume: u32, block: u32, blocks: u32): void {
  geometry(volume);
  pieceBlock = block;
  pieceFrom = block;
  pieceEnd = block + blocks;
}

function pieceNext(): bool {
  if (pieceBlock >= pieceEnd) return false;
  let within = pieceBlock % strip;
  let number = pieceBlock / strip;
  pieceStripe = number / wide;
  pieceColumn = number % wide;
  pieceRow = pieceStripe * strip + within;
  pieceBlocks = min(strip - within, pieceEnd - pieceBlock);
  pieceAt = pieceBlock - pieceFrom;
  pieceBlock += pieceBlocks;
  return true;
}

/** A member that has the piece and is not in the mask, beginning with the given copy; 32: none. */
function pieceMember(without: u32, copy: u32): u32 {
  let copies = copiesOf(level, members);
  for (let i: u32 = 0; i < copies; i++) {
    let member = memberOf(level, members, pieceStripe, pieceColumn, (copy + i) % copies);
    if (!(without & (1 << member))) return member;
  }
  return MEMBER_COUNT_MAX;
}

// What of each member (or column) a run touches: first row, row behind the last, pieces, address of the only one.
const spans: usize = memory.data(RAID ? 512 : 16);
function spanAdd(which: u32, address: u32): void {
  let span = spans + (which << 4);
  if (!load<u32>(span, 8)) {
    store<u32>(span, pieceRow);
    store<u32>(span, address + (pieceAt << BLOCK_SHIFT), 12);
  }
  store<u32>(span, pieceRow + pieceBlocks, 4);
  store<u32>(span, load<u32>(span, 8) + 1, 8);
}

/** Rows that a run of blocks touches, at most. */
function rowsTouched(volume: u32, block: u32, blocks: u32): u32 {
  geometry(volume);
  let stripe = strip * wide;
  return blocks <= strip ? blocks * 2 : ((block + blocks - 1) / stripe - block / stripe + 1) * strip;
}

function spansOf(job: u32, command: u32): void {
  memory.fill(spans, 0, 512);
  piecesBegin(commandVolume(command), load<u32>(command, 8), commandBlocks(command));
  while (pieceNext()) {
    let member = pieceMember(load<u32>(job, J_GONE), load<u32>(job, J_COPY));
    if (member < MEMBER_COUNT_MAX) spanAdd(member, load<u32>(command, 16));
  }
}

// ---- beginning -----------------------------------------------------------------------------------------------------

let turn: u32 = 0; // reads of mirrors go round

export function stripedBegin(ticket: u32): u32 {
  let total = load<u32>(ticket, T_PLAN_COUNT);
  let plan = load<u32>(ticket, T_PLAN);
  let scratch: u32 = 0;
  for (let i: u32 = 0; i < total; i++) {
    let command = plan + i * COMMAND_BYTES;
    if (!isMarked(command) || load<u32>(command) == (ROWS | MARKED)) continue;
    let rows = rowsTouched(commandVolume(command), load<u32>(command, 8), commandBlocks(command));
    if (wide > 1) scratch += rows * members;
    else if (load<u32>(command) == (READ | MARKED)) scratch += rows; // what is written to mirrors is written from where it is
  }
  let room = scratch * BLOCK_BYTES + total * (J_BYTES + 40 * COMMAND_BYTES);
  if (lacks(room)) {
    store<u32>(ticket, BEGIN, T_STRIPED);
    return MEMORY;
  }
  let jobs = allocate(total * J_BYTES);
  memory.fill(jobs, 0, total * J_BYTES);
  store<u32>(ticket, jobs, T_JOBS);
  let at: u32 = 0;
  if (scratch) {
    at = allocateAligned(scratch * BLOCK_BYTES, BLOCK_BYTES);
    store<u32>(ticket, at, T_SCRATCH);
  }
  planSwap(ticket);
  planClear(ticket);
  for (let i: u32 = 0; i < total; i++) {
    let command = plan + i * COMMAND_BYTES;
    let job = jobs + i * J_BYTES;
    store<u32>(command, 0, 28);
    store<u32>(job, load<u32>(ticket, T_PLAN_COUNT), J_FIRST);
    store<u32>(job, at, J_SCRATCH);
    if (!isMarked(command)) planAdd(ticket, load<u32>(command), load<u32>(command, 4), load<f64>(command, 8), load<u32>(command, 16), load<u32>(command, 20));
    else {
      let volume = commandVolume(command);
      let gone = unreadable(volume);
      store<u32>(job, gone, J_GONE);
      store<u32>(job, gone, J_LOST);
      if (load<u32>(command) == (READ | MARKED)) at = planPieces(ticket, job, command, volume, at);
      else if (load<u32>(command) == (WRITE | MARKED)) at = planStripes(ticket, command, volume, at);
      else planRows(ticket, volume, gone, <u32>load<u32>(command, 8), load<u32>(command, 16), load<u32>(command, 20));
    }
    store<u32>(job, load<u32>(ticket, T_PLAN_COUNT) - load<u32>(job, J_FIRST), J_COUNT);
  }
  store<u32>(ticket, PERFORMED, T_STRIPED);
  return load<u32>(ticket, T_PLAN_COUNT) ? PLAN : stripedStep(ticket);
}

function planPieces(ticket: u32, job: u32, command: u32, volume: u32, scratch: u32): u32 {
  geometry(volume);
  store<u32>(job, mode == MODE_WRITE ? turn++ : 0, J_COPY); // an open reads the same every time
  spansOf(job, command);
  for (let member: u32 = 0; member < members; member++) {
    let span = spans + (member << 4);
    if (!load<u32>(span, 8)) continue;
    let bytes = (load<u32>(span, 4) - load<u32>(span)) << BLOCK_SHIFT;
    let single = load<u32>(span, 8) == 1;
    planAdd(ticket, READ, handleOf(volume) + member, rowAt(volume, load<u32>(span)), single ? load<u32>(span, 12) : scratch, bytes);
    if (!single) scratch += bytes;
  }
  return scratch;
}

function planRows(ticket: u32, volume: u32, without: u32, row: u32, address: u32, bytes: u32): void {
  for (let member: u32 = 0; member < load<u32>(volume, V_MEMBERS); member++) {
    if (!(without & (1 << member))) planAdd(ticket, READ, handleOf(volume) + member, rowAt(volume, row), address + member * bytes, bytes);
  }
}

/** Writes of a run: of whole stripes where there is parity. */
function planStripes(ticket: u32, command: u32, volume: u32, scratch: u32): u32 {
  let block = load<u32>(command, 8);
  let blocks = commandBlocks(command);
  let address = load<u32>(command, 16);
  let writable = load<u32>(volume, V_WRITABLE);
  geometry(volume);
  let parity = parityOf(level);
  if (!parity) {
    memory.fill(spans, 0, 512);
    piecesBegin(volume, block, blocks);
    while (pieceNext()) spanAdd(pieceColumn, address);
    for (let column: u32 = 0; column < wide; column++) {
      let span = spans + (column << 4);
      if (!load<u32>(span, 8)) continue;
      let low = load<u32>(span);
      let bytes = (load<u32>(span, 4) - low) << BLOCK_SHIFT;
      let from = load<u32>(span, 12);
      if (load<u32>(span, 8) > 1 && wide > 1) {
        from = scratch;
        scratch += bytes;
        piecesBegin(volume, block, blocks);
        while (pieceNext()) if (pieceColumn == column) memory.copy(from + ((pieceRow - low) << BLOCK_SHIFT), address + (pieceAt << BLOCK_SHIFT), pieceBlocks << BLOCK_SHIFT);
      }
      for (let copy: u32 = 0; copy < copiesOf(level, members); copy++) {
        let member = memberOf(level, members, 0, column, copy);
        if (writable & (1 << member)) planAdd(ticket, WRITE, handleOf(volume) + member, rowAt(volume, low), from, bytes);
      }
    }
    return scratch;
  }
  let stripe = strip * wide;
  assert(block % stripe == 0 && blocks % stripe == 0);
  let first = block / stripe;
  let stripes = blocks / stripe;
  let share = (stripes * strip) << BLOCK_SHIFT;
  let part = strip << BLOCK_SHIFT;
  for (let i: u32 = 0; i < stripes; i++) {
    let to = scratch + i * part;
    for (let column: u32 = 0; column < wide; column++) {
      let from = address + (i * wide + column) * part;
      store<u32>(columns + (column << 2), from);
      let member = memberOf(level, members, first + i, column, 0);
      if (writable & (1 << member)) memory.copy(to + member * share, from, part);
    }
    if (PLANTS && planted == PLANT_NO_PARITY) continue;
    let p = to + memberOf(level, members, first + i, COLUMN_P, 0) * share;
    if (parity > 1) parityPQ(wide, p, to + memberOf(level, members, first + i, COLUMN_Q, 0) * share, part);
    else parityP(wide, p, part);
  }
  for (let member: u32 = 0; member < members; member++) {
    if (writable & (1 << member)) planAdd(ticket, WRITE, handleOf(volume) + member, rowAt(volume, first * strip), scratch + member * share, share);
  }
  return scratch + members * share;
}

// ---- members that fail a write -------------------------------------------------------------------------------------

/**
 * A write or flush failed. Whether the volume can do without the member, or does already; then it is to be faulted, and a flush that ends from now on is not
 * believed before that is committed: the device tells of what it lost only once.
 */
function faultNote(command: u32): bool {
  let volume = commandVolume(command);
  if (!volume || !redundant(volume)) return false;
  let bit: u32 = 1 << (load<u32>(command, 4) % MEMBER_COUNT_MAX);
  if (!(load<u32>(volume, V_WRITABLE) & bit)) return true;
  let fault = load<u32>(volume, V_FAULT);
  let others = membersMask(load<u32>(volume, V_MEMBERS)) & ~load<u32>(volume, V_READABLE);
  if (load<u32>(volume, V_DENIED) & bit || !tolerates(load<u32>(volume, V_LEVEL), load<u32>(volume, V_MEMBERS), others | fault | bit)) return false;
  if (!(fault & bit)) count(C_MEMBER_FAULTED);
  store<u32>(volume, fault | bit, V_FAULT);
  faultPending = true;
  return true;
}

/** A member is to be faulted, and the host has not answered yet. */
export let faultPending: bool = false;

/** The same for a flush, when its command ends. */
export function flushFaults(ticket: u32, index: u32): bool { return faultNote(load<u32>(ticket, T_PLAN) + index * COMMAND_BYTES); }

/** Whether a flush in the ticket's plan is of a volume of which a member is to be faulted. */
export function flushUnsure(ticket: u32): bool {
  for (let i: u32 = 0; i < load<u32>(ticket, T_PLAN_COUNT); i++) {
    let command = load<u32>(ticket, T_PLAN) + i * COMMAND_BYTES;
    let volume = commandVolume(command);
    if (load<u32>(command) == FLUSH && volume && load<u32>(volume, V_FAULT)) return true;
  }
  return false;
}

/** Looks at failed writes and flushes of volumes that can do without the member. False: the host has to commit that it is out. */
function judge(ticket: u32): bool {
  let worst: u32 = 0;
  let waits = false;
  let lost = false; // a flush that cannot be done without
  for (let i: u32 = 0; i < load<u32>(ticket, T_PLAN_COUNT); i++) {
    let result = planResult(ticket, i);
    if (!result) continue;
    let command = load<u32>(ticket, T_PLAN) + i * COMMAND_BYTES;
    let operation = load<u32>(command);
    if ((operation == WRITE || operation == FLUSH) && result == RESULT_IO && faultNote(command)) {
      let volume = commandVolume(command);
      if (load<u32>(volume, V_WRITABLE) & (1 << (load<u32>(command, 4) % MEMBER_COUNT_MAX))) waits = true;
      else store<u32>(command, 0, 28); // it is out, and what it did not do does not matter
      continue;
    }
    if (!worst) store<u32>(ticket, i, T_RESULT_INDEX);
    worst = max(worst, result);
    if (operation == FLUSH && redundant(commandVolume(command))) lost = true; // it may have been thought that the member could be faulted
  }
  if (waits) return false;
  if (lost) flushLost();
  store<u32>(ticket, worst, T_RESULT);
  return true;
}

/** Handle of a member that is to be faulted, or 0xFFFFFFFF. */
export function faultWanted(): u32 {
  for (let volume = volumeHead; volume; volume = load<u32>(volume, V_NEXT)) {
    let fault = load<u32>(volume, V_FAULT);
    if (fault) return handleOf(volume) + <u32>ctz(fault);
  }
  return 0xffffffff;
}

export const MEMBER_ONLINE: u32 = 1;
export const MEMBER_OUT: u32 = 2;
export const MEMBER_REBUILDING: u32 = 3;
export const MEMBER_DENIED: u32 = 4;

/** What a member is from now on; the catalogue says so already. DENIED: it could not be made to say that the member is out. */
export function memberSet(volume: u32, member: u32, state: u32): void {
  let bit: u32 = 1 << member;
  store<u32>(volume, load<u32>(volume, V_FAULT) & ~bit, V_FAULT);
  faultPending = faultWanted() != 0xffffffff;
  if (state == MEMBER_DENIED) {
    store<u32>(volume, load<u32>(volume, V_DENIED) | bit, V_DENIED);
    return;
  }
  store<u32>(volume, load<u32>(volume, V_DENIED) & ~bit, V_DENIED);
  let writable = load<u32>(volume, V_WRITABLE) & ~bit;
  let readable = load<u32>(volume, V_READABLE) & ~bit;
  store<u32>(volume, state == MEMBER_OUT ? writable : writable | bit, V_WRITABLE);
  store<u32>(volume, state == MEMBER_ONLINE ? readable | bit : readable, V_READABLE);
}

// ---- what came back ------------------------------------------------------------------------------------------------

/** DONE: the operation may be stepped, its plan has its results. */
export function stripedStep(ticket: u32): u32 {
  if (load<u32>(ticket, T_RESULT) && !judge(ticket)) return WAIT;
  if (load<u32>(ticket, T_STRIPED) == BEGIN) return stripedBegin(ticket);
  while (true) {
    let state = load<u32>(ticket, T_STRIPED);
    let total = askedCount(ticket);
    if (state == 0) return DONE;
    if (state == PERFORMED) {
      for (let i: u32 = 0; i < total; i++) take(ticket, jobAt(ticket, i), asked(ticket, i));
      store<u32>(ticket, OTHERS, T_STRIPED);
    } else if (state == OTHERS) {
      let room: u32 = 0;
      for (let i: u32 = 0; i < total; i++) room += othersBytes(jobAt(ticket, i), asked(ticket, i));
      if (!room) {
        store<u32>(ticket, LOOK, T_STRIPED);
        continue;
      }
      if (lacks(room)) return MEMORY;
      planClear(ticket);
      for (let i: u32 = 0; i < total; i++) {
        let job = jobAt(ticket, i);
        let bytes = othersBytes(job, asked(ticket, i));
        if (!bytes) continue;
        count(C_READ_DEGRADED);
        store<u32>(job, allocateAligned(bytes, BLOCK_BYTES), J_AREA);
        store<u32>(job, load<u32>(ticket, T_PLAN_COUNT), J_FIRST);
        planRows(ticket, commandVolume(asked(ticket, i)), load<u32>(job, J_LOST), load<u32>(job, J_LOW), load<u32>(job, J_AREA), bytes / members);
      }
      store<u32>(ticket, OTHERS_READ, T_STRIPED);
      if (load<u32>(ticket, T_PLAN_COUNT)) return PLAN;
    } else if (state == OTHERS_READ) {
      for (let i: u32 = 0; i < total; i++) if (load<u32>(jobAt(ticket, i), J_AREA)) compute(ticket, jobAt(ticket, i), asked(ticket, i));
      store<u32>(ticket, LOOK, T_STRIPED);
    } else if (state == LOOK) {
      let status = look(ticket);
      if (status != DONE) return status;
      finish(ticket);
      return DONE;
    } else {
      // a rescue of one of the reads
      let i = load<u32>(ticket, T_JOB);
      let status = rescueStep(ticket, jobAt(ticket, i), asked(ticket, i), state);
      if (status != DONE) return status;
      store<u32>(ticket, LOOK, T_STRIPED);
    }
  }
}

/** Results of the first round: scattered pieces go to their places, missing ones are noted. */
function take(ticket: u32, job: u32, command: u32): void {
  let first = load<u32>(job, J_FIRST);
  let operation = load<u32>(command);
  if (operation == (READ | MARKED)) {
    spansOf(job, command);
    let lost = load<u32>(job, J_LOST);
    let scratch = load<u32>(job, J_SCRATCH);
    for (let member: u32 = 0; member < members; member++) {
      let span = spans + (member << 4);
      if (!load<u32>(span, 8)) continue;
      if (planResult(ticket, first++)) lost |= 1 << member;
      if (load<u32>(span, 8) == 1) continue;
      store<u32>(span, scratch, 12);
      scratch += (load<u32>(span, 4) - load<u32>(span)) << BLOCK_SHIFT;
    }
    if (lost != load<u32>(job, J_LOST)) count(C_READ_REDIRECTED);
    store<u32>(job, lost, J_LOST);
    let low: u32 = ALL;
    let high: u32 = 0;
    piecesBegin(commandVolume(command), load<u32>(command, 8), commandBlocks(command));
    while (pieceNext()) {
      let member = pieceMember(load<u32>(job, J_GONE), load<u32>(job, J_COPY));
      if (member < MEMBER_COUNT_MAX && !(lost & (1 << member))) {
        let span = spans + (member << 4);
        if (load<u32>(span, 8) > 1) {
          memory.copy(load<u32>(command, 16) + (pieceAt << BLOCK_SHIFT), load<u32>(span, 12) + ((pieceRow - load<u32>(span)) << BLOCK_SHIFT), pieceBlocks << BLOCK_SHIFT);
        }
        continue;
      }
      low = min(low, pieceRow);
      high = max(high, pieceRow + pieceBlocks);
    }
    store<u32>(job, low, J_LOW);
    store<u32>(job, high, J_HIGH);
    return;
  }
  let lost = load<u32>(job, J_GONE);
  for (let i: u32 = 0; i < load<u32>(job, J_COUNT); i++) {
    let result = planResult(ticket, first + i);
    if (!result) continue;
    if (operation == (ROWS | MARKED)) lost |= 1 << (load<u32>(load<u32>(ticket, T_PLAN) + (first + i) * COMMAND_BYTES, 4) % MEMBER_COUNT_MAX);
    else store<u32>(command, max(load<u32>(command, 28), result), 28);
  }
  if (operation == (ROWS | MARKED)) store<u32>(ticket, lost, T_LOST);
}

/** Memory for the rows that a read wants from the other members. Sets the geometry. */
function othersBytes(job: u32, command: u32): u32 {
  if (load<u32>(command) != (READ | MARKED) || load<u32>(job, J_HIGH) <= load<u32>(job, J_LOW)) return 0;
  geometry(commandVolume(command));
  return ((load<u32>(job, J_HIGH) - load<u32>(job, J_LOW)) * members) << BLOCK_SHIFT;
}

/** The missing pieces of a read, from the rows of the others. */
function compute(ticket: u32, job: u32, command: u32): void {
  let volume = commandVolume(command);
  geometry(volume);
  let before = load<u32>(job, J_LOST);
  let lost = before;
  let index = load<u32>(job, J_FIRST);
  for (let member: u32 = 0; member < members; member++) {
    if (!(before & (1 << member)) && planResult(ticket, index++)) lost |= 1 << member;
  }
  let area = load<u32>(job, J_AREA);
  let low = load<u32>(job, J_LOW);
  let stride = (load<u32>(job, J_HIGH) - low) << BLOCK_SHIFT;
  piecesBegin(volume, load<u32>(command, 8), commandBlocks(command));
  while (pieceNext()) {
    let member = pieceMember(load<u32>(job, J_GONE), load<u32>(job, J_COPY));
    if (member < MEMBER_COUNT_MAX && !(before & (1 << member))) continue;
    let from = memberOf(level, members, pieceStripe, pieceColumn, 0);
    for (let i: u32 = 0; i < pieceBlocks; i++) {
      let row = area + ((pieceRow + i - low) << BLOCK_SHIFT);
      if (copiesOf(level, members) > 1) {
        from = pieceMember(lost, 0);
        if (from == MEMBER_COUNT_MAX) { store<u32>(command, RESULT_IO, 28); break; }
      } else if (!rowRestore(level, members, pieceStripe, row, stride, lost)) { store<u32>(command, RESULT_IO, 28); break; }
      memory.copy(load<u32>(command, 16) + ((pieceAt + i) << BLOCK_SHIFT), row + from * stride, BLOCK_BYTES);
    }
  }
  store<u32>(job, lost, J_LOST);
  free(area);
  store<u32>(job, 0, J_AREA);
}

function finish(ticket: u32): void {
  planSwap(ticket);
  free(load<u32>(ticket, T_JOBS));
  store<u32>(ticket, 0, T_JOBS);
  let scratch = load<u32>(ticket, T_SCRATCH);
  if (scratch) free(scratch);
  store<u32>(ticket, 0, T_SCRATCH);
  store<u32>(ticket, 0, T_STRIPED);
  store<u32>(ticket, 0, T_MARKED);
  let worst: u32 = 0;
  for (let i: u32 = 0; i < load<u32>(ticket, T_PLAN_COUNT); i++) {
    let result = planResult(ticket, i);
    if (result && !worst) store<u32>(ticket, i, T_RESULT_INDEX);
    worst = max(worst, result);
  }
  store<u32>(ticket, worst, T_RESULT);
}

// ---- reads that can be checked -------------------------------------------------------------------------------------

/** The first block that is not what it should be, from the one on that was found sound; ALL: none. */
function firstBad(job: u32, command: u32): u32 {
  let volume = commandVolume(command);
  let check = load<u32>(command, 12);
  let address = load<u32>(command, 16);
  let block = load<u32>(command, 8);
  let blocks = commandBlocks(command);
  let key = load<u64>(load<u32>(command, 24));
  let id = load<u32>(volume, V_ID);
  if (check == CHECK_PAGE) return xxh64(address, BLOCK_BYTES, pageSeed) == key ? ALL : 0;
  let slot = block % load<u32>(volume, V_SEGMENT_BLOCKS);
  if (check == CHECK_FOOTER) {
    return footerVerify(address, blocks, id, block, load<u32>(volume, V_DATA_SLOTS), key) && !isStale(key, slot, load<u64>(address, F_INCARNATION)) ? ALL : 0;
  }
  if (check == CHECK_FIRST) {
    return recordVerify(address, id, block, slot, load<u32>(volume, V_DATA_SLOTS) - slot, key) && !isStale(key, slot, load<u64>(address, R_INCARNATION)) ? ALL : 0;
  }
  for (let at = load<u32>(job, J_SOUND); at < blocks; ) {
    let header = address + (at << BLOCK_SHIFT);
    if (!recordVerify(header, id, block + at, slot + at, blocks - at, key) || isStale(key, slot + at, load<u64>(header, R_INCARNATION))) return at;
    if (check == CHECK_RECORDS) {
      let bad = recordBad(header, key, slot + at);
      if (bad) return at + bad;
    }
    store<u32>(job, at, J_SOUND);
    at += recordSlots(header);
  }
  return ALL;
}

/** Which of the data blocks behind a header (1 …) is not what its entry says; 0: all are right. */
export function recordBad(header: u32, fill: u64, slot: u32): u32 {
  let kind = <u32>load<u8>(header, R_KIND);
  if (kind == RECORD_OPERATION || kind == RECORD_PADDING) return 0;
  let place: u32 = 0;
  for (let i: u32 = 0; i < <u32>load<u16>(header, R_ENTRIES); i++) {
    let entry = header + RECORD_FIXED_BYTES + i * ENTRY_BYTES;
    if (entryKind(entry) == ENTRY_TRIM) continue;
    place++;
    if (xxh64(header + (place << BLOCK_SHIFT), BLOCK_BYTES, blockSeed(fill, slot + place, entryBlock(entry), entryBirth(entry))) != entrySum(entry)) return place;
  }
  return 0;
}

/** Looks through the checked reads; DONE when there is nothing more to be mended. */
function look(ticket: u32): u32 {
  for (let i: u32 = 0; i < askedCount(ticket); i++) {
    let command = asked(ticket, i);
    let job = jobAt(ticket, i);
    if (load<u32>(command) != (READ | MARKED) || !load<u32>(command, 12) || load<u32>(command, 28) || load<u32>(job, J_SOUND) == ALL) continue;
    let volume = commandVolume(command);
    if (!redundant(volume)) continue;
    let bad = firstBad(job, command);
    if (bad == ALL) {
      store<u32>(job, ALL, J_SOUND);
      continue;
    }
    let whole = load<u32>(command, 12) == CHECK_FOOTER;
    let status = rowsBegin(ticket, volume, load<u32>(command, 8) + bad, whole ? commandBlocks(command) : 1);
    if (status != PLAN) return status;
    planClear(ticket);
    store<u32>(job, unreadable(volume), J_GONE); // as it is now: it may change before the answer is here
    planRows(ticket, volume, load<u32>(job, J_GONE), rowsLow, load<u32>(ticket, T_ROWS), rowsCount << BLOCK_SHIFT);
    store<u32>(ticket, i, T_JOB);
    store<u32>(job, bad, J_LOW); // the piece's rows are done with
    store<u32>(ticket, ROWS_READ, T_STRIPED);
    return PLAN;
  }
  return DONE;
}

let rowsLow: u32 = 0;
let rowsCount: u32 = 0;
/** The rows in which blocks lie. */
function rowsSpan(volume: u32, block: u32, blocks: u32): void {
  geometry(volume);
  rowsLow = rowOf(volume, block);
  rowsCount = 1;
  if (blocks == 1) return;
  let stripe = strip * wide;
  rowsLow = (block / stripe) * strip;
  rowsCount = ((block + blocks - 1) / stripe) * strip + strip - rowsLow;
}

/** Memory for the rows of these blocks, and for one more row. PLAN, or MEMORY. */
function rowsBegin(ticket: u32, volume: u32, block: u32, blocks: u32): u32 {
  rowsSpan(volume, block, blocks);
  let room = (rowsCount + 1) * members * BLOCK_BYTES;
  if (lacks(room)) return MEMORY;
  store<u32>(ticket, allocateAligned(room, BLOCK_BYTES), T_ROWS);
  return PLAN;
}

function rowsEnd(ticket: u32): void {
  free(load<u32>(ticket, T_ROWS));
  store<u32>(ticket, 0, T_ROWS);
}

function rescueStep(ticket: u32, job: u32, command: u32, state: u32): u32 {
  let volume = commandVolume(command);
  let bad = load<u32>(job, J_LOW);
  let whole = load<u32>(command, 12) == CHECK_FOOTER;
  let blocks = whole ? commandBlocks(command) : 1;
  let block = load<u32>(command, 8) + bad;
  let into = load<u32>(command, 16) + (bad << BLOCK_SHIFT);
  if (state == ROWS_READ) {
    let lost = load<u32>(job, J_GONE);
    let index: u32 = 0;
    for (let member: u32 = 0; member < load<u32>(volume, V_MEMBERS); member++) {
      if (!(load<u32>(job, J_GONE) & (1 << member)) && planResult(ticket, index++)) lost |= 1 << member;
    }
    planClear(ticket); // what failed is known
    let found = false;
    for (let attempt: u32 = 0; !found; attempt++) {
      let tried = candidate(ticket, volume, block, blocks, lost, attempt, into);
      if (tried == NO_MORE) break;
      found = tried == TRY && firstBad(job, command) > bad;
    }
    if (!found) {
      asRead(ticket, volume, block, blocks, lost, into);
      rowsEnd(ticket);
      store<u32>(job, ALL, J_SOUND);
      return DONE;
    }
    count(C_BLOCK_RESCUED);
    if (mayHeal(ticket) && healPlan(ticket, volume, block, blocks, lost, into)) {
      healOwner = ticket;
      store<u32>(ticket, HEALED, T_STRIPED);
      return PLAN;
    }
  } else {
    healOwner = 0;
    markWritten(ticket);
    healedBlocks += <f64>load<u32>(ticket, T_PLAN_COUNT);
    count(C_BLOCK_HEALED);
  }
  planClear(ticket);
  rowsEnd(ticket);
  return DONE;
}

const NO_MORE: u32 = 0;
const TRY: u32 = 1;
const USELESS: u32 = 2;

/** The n-th set of members to be taken for lost; 0: there are no more. */
export function lossAt(level: u32, members: u32, n: u32): u32 {
  if (level != LEVEL_6) return n >= members ? 0 : level == LEVEL_1 ? membersMask(members) & ~(1 << n) : 1 << n;
  let first: u32 = 0;
  while (first < members && n >= members - 1 - first) {
    n -= members - 1 - first;
    first++;
  }
  return first + 1 >= members ? 0 : (1 << first) | (1 << (first + 1 + n));
}

/** Blocks as they would be if the n-th set of members were lost, and those that are. */
function candidate(ticket: u32, volume: u32, block: u32, blocks: u32, lost: u32, n: u32, into: u32): u32 {
  rowsSpan(volume, block, blocks);
  let gone = lossAt(level, members, n);
  if (!gone) return NO_MORE;
  gone |= lost;
  let area = load<u32>(ticket, T_ROWS);
  let stride = rowsCount << BLOCK_SHIFT;
  let spare = area + members * stride;
  piecesBegin(volume, block, blocks);
  while (pieceNext()) {
    let member = pieceMember(gone, 0);
    for (let i: u32 = 0; i < pieceBlocks; i++) {
      let row = area + ((pieceRow + i - rowsLow) << BLOCK_SHIFT);
      let from = row + member * stride;
      if (member == MEMBER_COUNT_MAX) {
        if (copiesOf(level, members) > 1) return USELESS;
        for (let other: u32 = 0; other < members; other++) memory.copy(spare + (other << BLOCK_SHIFT), row + other * stride, BLOCK_BYTES);
        if (!rowRestore(level, members, pieceStripe, spare, BLOCK_BYTES, gone)) return USELESS;
        from = spare + (memberOf(level, members, pieceStripe, pieceColumn, 0) << BLOCK_SHIFT);
      } else if (blocks == 1 && n && copiesOf(level, members) == 1) return USELESS; // as it was read
      memory.copy(into + ((pieceAt + i) << BLOCK_SHIFT), from, BLOCK_BYTES);
    }
  }
  return TRY;
}

/** The blocks as they were read. */
function asRead(ticket: u32, volume: u32, block: u32, blocks: u32, without: u32, into: u32): void {
  rowsSpan(volume, block, blocks);
  piecesBegin(volume, block, blocks);
  let area = load<u32>(ticket, T_ROWS);
  while (pieceNext()) {
    let member = pieceMember(without, 0);
    if (member == MEMBER_COUNT_MAX) continue;
    memory.copy(into + (pieceAt << BLOCK_SHIFT), area + ((member * rowsCount + pieceRow - rowsLow) << BLOCK_SHIFT), pieceBlocks << BLOCK_SHIFT);
  }
}

export function same(a: u32, b: u32): bool {
  for (let at: u32 = 0; at < BLOCK_BYTES; at += 8) if (load<u64>(a + at) != load<u64>(b + at)) return false;
  return true;
}

/** Plans writes of the blocks where members hold something else; false: none do. */
function healPlan(ticket: u32, volume: u32, block: u32, blocks: u32, lost: u32, from: u32): bool {
  rowsSpan(volume, block, blocks);
  planClear(ticket);
  let area = load<u32>(ticket, T_ROWS);
  piecesBegin(volume, block, blocks);
  while (pieceNext()) {
    for (let copy: u32 = 0; copy < copiesOf(level, members); copy++) {
      let member = memberOf(level, members, pieceStripe, pieceColumn, copy);
      if (lost & (1 << member) || !(load<u32>(volume, V_WRITABLE) & (1 << member))) continue;
      for (let i: u32 = 0; i < pieceBlocks; i++) {
        let right = from + ((pieceAt + i) << BLOCK_SHIFT);
        if (same(right, area + ((member * rowsCount + pieceRow + i - rowsLow) << BLOCK_SHIFT))) continue;
        planAdd(ticket, WRITE, handleOf(volume) + member, rowAt(volume, pieceRow + i), right, BLOCK_BYTES);
      }
    }
  }
  return load<u32>(ticket, T_PLAN_COUNT) != 0;
}

// ---- one block, for an operation that knows its checksum -----------------------------------------------------------

/**
 * Finds the right content of a block that was read wrong into `into`, and writes it back. A sub-operation: PLAN and MEMORY as
 * usual, DONE when the content is there, FAILED when nothing that the members hold gives it. The caller has looked the
 * address up again and holds the segment, so what is written anew is still the block that was read.
 */
export function rescueRun(ticket: u32, volume: u32, block: u32, into: u32, seed: u64, sum: u64): u32 {
  let state = load<u32>(ticket, T_RESCUE);
  if (state == 0) {
    if (!redundant(volume)) return FAILED;
    let status = rowsBegin(ticket, volume, block, 1);
    if (status != PLAN) return status;
    planClear(ticket);
    planMark(ticket, ROWS, handleOf(volume), rowsLow, load<u32>(ticket, T_ROWS), BLOCK_BYTES, 0, 0);
    store<u32>(ticket, 1, T_RESCUE);
    return PLAN;
  }
  let lost = load<u32>(ticket, T_LOST);
  if (state == 1) {
    let found = false;
    for (let attempt: u32 = 0; !found; attempt++) {
      let tried = candidate(ticket, volume, block, 1, lost, attempt, into);
      if (tried == NO_MORE) break;
      found = tried == TRY && (xxh64(into, BLOCK_BYTES, seed) == sum || (PLANTS && planted == PLANT_HEAL_UNVERIFIED));
    }
    if (!found) {
      asRead(ticket, volume, block, 1, lost, into);
      return rescueEnd(ticket, FAILED);
    }
    count(C_BLOCK_RESCUED);
    if (!mayHeal(ticket)) return rescueEnd(ticket, DONE);
    if (healPlan(ticket, volume, block, 1, lost, into)) {
      healOwner = ticket;
      store<u32>(ticket, 2, T_RESCUE);
      return PLAN;
    }
  }
  markWritten(ticket);
  healedBlocks += <f64>load<u32>(ticket, T_PLAN_COUNT);
  count(C_BLOCK_HEALED);
  return rescueEnd(ticket, DONE);
}

function rescueEnd(ticket: u32, status: u32): u32 {
  if (healOwner == ticket) healOwner = 0;
  planClear(ticket);
  rowsEnd(ticket);
  store<u32>(ticket, 0, T_RESCUE);
  return status;
}

/** A ticket ends: what it still holds of this file's is given up. */
export function stripedEnd(ticket: u32): void {
  if (healOwner == ticket) healOwner = 0;
}
