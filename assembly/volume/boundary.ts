// What the host calls. Numbers only; names, keys and batches go through the exchange buffer. No logic here beyond handing
// a ticket to its operation.

import { allocate, allocatorInitialize, available, free, grantAll, grantNone, heapExtentBytes, heapUsedBytes } from '../std/allocator';
import { count, counterGet } from '../std/counters';
import { plant as plantSet } from '../std/plant';
import {
  DONE, PLAN, ERROR_BUSY, ERROR_CLOSED, ERROR_EXISTS, ERROR_LIMIT, ERROR_NOT_FOUND, ERROR_RANGE, ERROR_READ_ONLY, ERROR_UNSUPPORTED, FAILED, fail,
  failureBlock as failedBlock, failureCode, failureVolume as failedVolume, MEMORY, lacks, memoryNeededPages, RESULT_IO, STATUS_BITS, WAIT,
} from '../abi/status';
import {
  COPY_IN, KIND_OPERATION, KIND_READ, KIND_TRIM, KIND_WRITE, TICKET_COUNT_MAX,
  FLUSH, T_DENIED, T_EPOCH, T_KIND, T_LENGTH, T_MARKED, T_OFFSET, T_PLAN, T_PLAN_COUNT, T_RESULT, T_ROOT_STATE, T_SPACE, T_STATE, T_STRIPED, T_VALUE,
  planComplete, planOperation, ticketClose, ticketOpen, ticketPointer, ticketsInitialize,
} from '../abi/ticket';
import { BLOCK_SHIFT, SPACE_NONE } from '../format/constants';
import { footerBlocksOf } from '../format/footer';
import { STRIP_BLOCKS_MAX, columnsOf, levelFits, parityOf, tolerates } from '../stripe/geometry';
import { liveTotal, mappedBlocks, spacePointer } from '../table/index';
import * as tableDiff from '../table/diff';
import {
  VOLUME_ACTIVE, VOLUME_COUNT_MAX, VOLUME_RELEASED, V_FREE, V_MEMBERS, V_NEXT, V_SEGMENT_COUNT, V_STATE, capacityBlocks, freeTotal, segmentTotal,
  sumsLimit, volumeById, volumeBytes, volumeCount, volumeCreate, volumeForget, volumeHead, V_DATA_OFFSET, V_ID, V_LEVEL, V_ROOT_BACK, V_ROOT_FRONT,
  V_ROOTS, V_SEGMENT_BLOCKS, V_STRIP_BLOCKS, readableOf, writableOf,
} from '../log/volumes';
import {
  dataBlocksWritten, durableSequence, epoch, incarnation, metadataBlocksWritten, movedBlocks, paddingBlocks, sequence, unflushedBlocks,
} from '../log/writer';
import { C_GROWN } from '../log/counting';
import {
  canGiveVolume as policyGives, growthAllowed as allowGrowth, growthDenied as denyGrowth, liveBlocks, policySet as setPolicy, reserveSegments,
  spaceWaitersClear, unflushedLimitSet, wantsVolume as policyWants,
} from './admit';
import { checkEnd, checkStep, findingTake } from './check';
import { checkpointCount, checkpointRun, tableImagesRelease } from './checkpoint';
import { compactStep } from './compact';
import { flushOwner, writeOutRun } from './flush';
import {
  JOB_CHECKPOINT, JOB_COMPACT, JOB_FLUSH, JOB_MERGE, JOB_ROOT, JOB_WRITEOUT, backgroundWanted as wantedJob, checkpointEntriesSet, closeStep,
  evacuate, flushJob, jobBegins, jobEnds, mergeStep, operationEnd, operationKeep, operationStep, rootStep,
} from './jobs';
import { MODE_CLOSED, MODE_WRITE, closing, failedReadOnly, flushLost, logFlushEnds, logFlushes, mode, rootFlushEnds, rootFlushes } from './mode';
import { readStep, readWriteEnd, writeStep } from './readwrite';
import { createStep, openStep } from './recover';
import { replayedEntries } from './replay';
import { generation, rootOwner } from './root';
import { scrubCancel as cancelScrub, scrubDone, scrubEnd, scrubStep, scrubTotal } from './mend';
import {
  faultPending, faultWanted as wantedFault, flushFaults, flushUnsure, healedBlocks, memberSet as setMember, stripedBegin, stripedEnd, stripedStep,
} from './striped';
import { snapshotCount as snapshots, snapshotGet as snapshotWrite, sourceCount as sources, sourceGet as sourceWrite, sourceSpace } from './state';

const KIND_CREATE: u32 = 1;
const KIND_OPEN: u32 = 2;
const KIND_CLOSE: u32 = 11;
const KIND_CHECK: u32 = 15;
const KIND_SCRUB: u32 = 16;

const EXCHANGE_BYTES: u32 = 65536;
let exchangePointer: u32 = 0;
let configuredLeafBlocks: u32 = 512;
/** A piece of memory kept back, so that a submit always finds room for its ticket; the next step asks for more. */
let spare: u32 = 0;
const SPARE_BYTES: u32 = 65536;

function ready(): void {
  if (exchangePointer) return;
  allocatorInitialize();
  if (available() < 4 * EXCHANGE_BYTES) memory.grow(4);
  ticketsInitialize();
  exchangePointer = allocate(EXCHANGE_BYTES);
  spare = allocate(SPARE_BYTES);
}

export function exchange(): u32 {
  ready();
  return exchangePointer;
}

/** Geometry and bounds; 0 keeps the default. Once, before anything else. 0, or a code. */
export function configure(leaf: u32, checkpointEntries: u32, unflushedLimitBytes: u32, sumsCacheBytes: u32): u32 {
  ready();
  if (leaf) {
    if (leaf < 16 || leaf > 1024 || (leaf & (leaf - 1))) return ERROR_RANGE;
    configuredLeafBlocks = leaf;
  }
  if (checkpointEntries) checkpointEntriesSet(checkpointEntries);
  if (unflushedLimitBytes) unflushedLimitSet(unflushedLimitBytes >>> BLOCK_SHIFT);
  if (sumsCacheBytes) sumsLimit(sumsCacheBytes);
  return 0;
}

// A volume that came while its memory was not there: its description, taken in by the next step.
const pendingVolume: usize = memory.data(56, 8); // VOLUME_DESCRIPTION_BYTES
let pending: bool = false;

/** A storage volume of this log, in the order of assignment. 0, or a code. While the log is open its memory may come with a later step. */
export function volumeAdd(
  id: u32, level: u32, members: u32, stripBlocks: u32, segmentBlocks: u32, segmentCount: u32, dataOffset: f64, rootFrontOffset: f64, rootBackOffset: f64,
): u32 {
  ready();
  if (!RAID && level) return ERROR_UNSUPPORTED;
  if (id > 0xfff0 || !(RAID ? levelFits(level, members) : members == 1) || stripBlocks == 0 || (RAID && stripBlocks > STRIP_BLOCKS_MAX)) return ERROR_RANGE;
  let stripe = RAID ? columnsOf(level, members) * stripBlocks : 1;
  let unit = RAID && parityOf(level) ? stripe : 1;
  if (RAID && level && segmentBlocks % stripe != 0) return ERROR_RANGE;
  if (segmentBlocks < 8 || segmentBlocks > max<u32>(1024, min<u32>(8 * stripe, 0xffff)) || segmentCount < 1 || <u64>segmentBlocks * <u64>segmentCount > 0xffffffff) return ERROR_RANGE;
  if (footerBlocksOf(segmentBlocks, unit) + 2 > segmentBlocks) return ERROR_RANGE;
  if (volumeById(id)) return ERROR_EXISTS;
  if (volumeCount == VOLUME_COUNT_MAX) return ERROR_LIMIT;
  if (pending && !volumeTakeIn()) return ERROR_LIMIT;
  store<u32>(pendingVolume, id, V_ID);
  store<u32>(pendingVolume, segmentBlocks, V_SEGMENT_BLOCKS);
  store<u32>(pendingVolume, segmentCount, V_SEGMENT_COUNT);
  store<u32>(pendingVolume, level, V_LEVEL);
  store<u32>(pendingVolume, members, V_MEMBERS);
  store<u32>(pendingVolume, stripBlocks, V_STRIP_BLOCKS);
  store<f64>(pendingVolume, dataOffset, V_DATA_OFFSET);
  store<f64>(pendingVolume, rootFrontOffset, V_ROOT_FRONT);
  store<f64>(pendingVolume, rootBackOffset, V_ROOT_BACK);
  pending = true;
  if (mode == MODE_CLOSED) { // nothing is in flight: the memory may grow here
    if (lacks(pendingBytes()) && memory.grow(memoryNeededPages) < 0) return ERROR_LIMIT;
  }
  volumeTakeIn();
  return 0;
}

function pendingBytes(): u32 { return volumeBytes(load<u32>(pendingVolume, V_SEGMENT_COUNT)); }

function volumeTakeIn(): bool {
  if (lacks(pendingBytes())) return false;
  pending = false;
  volumeCreate(pendingVolume);
  if (mode == MODE_WRITE) {
    count(C_GROWN);
    allowGrowth();
  } else store<u32>(volumeById(load<u32>(pendingVolume, V_ID)), 2, V_ROOTS); // the open mends or refuses what is not
  return true;
}

/** What a member is: 1 online, 2 missing or faulted, 3 being rebuilt, 4 could not be faulted. At any time once the volume was added; the catalogue knows. */
export function memberSet(id: u32, member: u32, state: u32): u32 {
  if (pending && load<u32>(pendingVolume) == id && !volumeTakeIn()) return ERROR_LIMIT;
  let volume = volumeById(id);
  if (!volume) return ERROR_NOT_FOUND;
  if (member >= load<u32>(volume, V_MEMBERS) || state < 1 || state > 4) return ERROR_RANGE;
  setMember(volume, member, state);
  return 0;
}

/** A member whose write or flush failed, as a handle, which the host is to have faulted (catalogue, then memberSet); −1: none. */
export function faultWanted(): i32 { return <i32>wantedFault(); }

/** Ends a scrub or rebuild that is under way. */
export function scrubCancel(): void { cancelScrub(); }

/** Whether a volume can do without the members that are not readable. */
export function volumeTolerates(level: u32, members: u32, lost: u32): u32 {
  return levelFits(level, members) && tolerates(level, members, lost) ? 1 : 0;
}

/**
 * Begins to give a volume back. 0, or a code: it is not there, or the last. The caller sees to it that the others have room right now, as canGiveVolume() does:
 * without, checkpoints find none (NO_SPACE) until the log is closed.
 */
export function volumeEvacuate(id: u32): u32 {
  let volume = volumeById(id);
  if (!volume) return ERROR_NOT_FOUND;
  if (mode != MODE_WRITE) return ERROR_READ_ONLY;
  if (load<u32>(volume, V_STATE) != VOLUME_ACTIVE) return 0;
  let active: u32 = 0;
  for (let each = volumeHead; each; each = load<u32>(each, V_NEXT)) if (load<u32>(each, V_STATE) == VOLUME_ACTIVE) active++;
  if (active < 2) return ERROR_LIMIT;
  evacuate(volume);
  return 0;
}

/** 0 unknown, 1 active, 2 evacuating, 3 released. */
export function volumeState(id: u32): u32 {
  if (pending && load<u32>(pendingVolume, V_ID) == id) return VOLUME_ACTIVE;
  let volume = volumeById(id);
  return volume ? load<u32>(volume, V_STATE) : 0;
}

/** Forgets a released volume: the catalogue does not name it any more. */
export function volumeRemove(id: u32): u32 {
  let volume = volumeById(id);
  if (!volume) return ERROR_NOT_FOUND;
  if (load<u32>(volume, V_STATE) != VOLUME_RELEASED) return ERROR_RANGE;
  tableImagesRelease(volume);
  volumeForget(id);
  return 0;
}

export function wantsVolume(): u32 { return mode == MODE_WRITE && !pending ? policyWants() : 0; }
export function canGiveVolume(): i32 { return mode == MODE_WRITE && !pending ? policyGives() : -1; }
export function policySet(growAt: f64, compactTo: f64, shrinkBelow: f64, growMode: u32, volumesMin: u32, volumesMax: u32): void {
  setPolicy(growAt, compactTo, shrinkBelow, growMode, volumesMin, volumesMax);
}
export function growthDenied(): void { denyGrowth(); }
export function growthAllowed(): void { allowGrowth(); }

/** A ticket ≥ 0, or −code. */
export function submit(kind: u32, space: u32, onEpoch: u32, offset: f64, length: f64): i32 {
  ready();
  if (kind == KIND_CREATE || kind == KIND_OPEN) {
    if (mode != MODE_CLOSED || generation != 0) return -<i32>ERROR_EXISTS;
  } else if (mode == MODE_CLOSED || closing) return -<i32>ERROR_CLOSED;
  else if (mode != MODE_WRITE && kind != KIND_READ && kind != KIND_CLOSE && kind != KIND_CHECK) return -<i32>ERROR_READ_ONLY;
  if (spare && available() < 16384) {
    free(spare);
    spare = 0;
  }
  if (available() < 4096) return -<i32>ERROR_LIMIT;
  let index = ticketOpen(kind);
  if (index < 0) return -<i32>ERROR_BUSY;
  let ticket = ticketPointer(index);
  store<u32>(ticket, space, T_SPACE);
  store<u32>(ticket, onEpoch, T_EPOCH);
  store<f64>(ticket, offset, T_OFFSET);
  store<f64>(ticket, length, T_LENGTH);
  if (kind == KIND_OPERATION) operationKeep(ticket, exchangePointer);
  if (kind <= KIND_OPEN) {
    let identity = allocate(32);
    memory.copy(identity, exchangePointer, 32);
    store<f64>(ticket, <f64>identity, T_OFFSET);
  }
  jobBegins(kind);
  return index;
}

function run(ticket: u32, kind: u32): u32 {
  switch (kind) {
    case KIND_READ: return readStep(ticket);
    case KIND_WRITE: return writeStep(ticket, false);
    case KIND_TRIM: return writeStep(ticket, true);
    case JOB_FLUSH: return flushJob(ticket);
    case KIND_OPERATION: return operationStep(ticket);
    case JOB_CHECKPOINT: return checkpointRun(ticket, false);
    case JOB_COMPACT: return compactStep(ticket);
    case KIND_CLOSE: return closeStep(ticket);
    case JOB_WRITEOUT: {
      let state = load<u32>(ticket, T_STATE);
      store<u32>(ticket, 1, T_STATE);
      return writeOutRun(ticket, state);
    }
    case JOB_ROOT: return rootStep(ticket);
    case JOB_MERGE: return mergeStep(ticket);
    case KIND_CHECK: return checkStep(ticket);
    case KIND_CREATE: return createStep(ticket, <usize>load<f64>(ticket, T_OFFSET), configuredLeafBlocks);
    case KIND_OPEN: return openStep(ticket, <usize>load<f64>(ticket, T_OFFSET));
  }
  if (RAID && kind == KIND_SCRUB) return scrubStep(ticket);
  return fail(ERROR_RANGE);
}

/** The same, with what lies between blocks of a storage volume and commands for its members. */
function runStriped(ticket: u32, kind: u32): u32 {
  let status: u32 = load<u32>(ticket, T_STRIPED) || load<u32>(ticket, T_RESULT) ? stripedStep(ticket) : DONE;
  while (status == DONE) {
    status = run(ticket, kind);
    if (status != PLAN || !load<u32>(ticket, T_MARKED)) break;
    status = stripedBegin(ticket); // DONE: there was nothing to be performed
  }
  return status;
}

/** Whether a ticket can end for want of memory: a client's, in the middle of nothing that others wait for. */
function deniable(ticket: u32, kind: u32): bool {
  return (kind == KIND_READ || kind == KIND_WRITE || kind == KIND_TRIM || kind == KIND_OPERATION) && flushOwner != ticket && rootOwner != ticket;
}

let result: f64 = 0;

export function step(index: u32): u32 {
  if (!PLANTS) return stepOnce(index);
  if (grantedTo != index) grantNone();
  let status = stepOnce(index);
  let ticket = ticketPointer(index);
  grantedTo = index;
  // What was asked for still holds in the next step: nobody else is there, or comes in between.
  if (ticket && (load<u32>(ticket, T_KIND) <= KIND_OPEN || ((status & ((1 << STATUS_BITS) - 1)) == PLAN && planOperation(ticket, 0) == COPY_IN))) return status;
  grantedTo = TICKET_COUNT_MAX;
  grantAll();
  return status;
}
let grantedTo: u32 = TICKET_COUNT_MAX;

function stepOnce(index: u32): u32 {
  let ticket = ticketPointer(index);
  if (!ticket) return fail(ERROR_RANGE);
  if (!load<u32>(ticket, T_DENIED)) {
    if (lacks(0)) return MEMORY;
    if (!spare) spare = allocate(SPARE_BYTES);
    if (pending && !volumeTakeIn()) return MEMORY;
  }
  let kind = load<u32>(ticket, T_KIND);
  let status: u32;
  if (RAID && faultPending && flushUnsure(ticket)) return WAIT;
  if (load<u32>(ticket, T_DENIED) && deniable(ticket, kind)) status = fail(ERROR_LIMIT);
  else status = RAID ? runStriped(ticket, kind) : run(ticket, kind);
  if (status == PLAN) return load<u32>(ticket, T_PLAN_COUNT) << STATUS_BITS | PLAN;
  if (status != DONE && status != FAILED) return status;
  result = load<f64>(ticket, T_VALUE);
  if (kind == KIND_READ || kind == KIND_WRITE || kind == KIND_TRIM) readWriteEnd(ticket);
  else if (kind == KIND_OPERATION) {
    readWriteEnd(ticket);
    operationEnd(ticket);
  } else if (kind == JOB_MERGE) operationEnd(ticket);
  else if (kind == KIND_CHECK) checkEnd(ticket);
  else if (RAID && kind == KIND_SCRUB) scrubEnd(ticket);
  else if (kind <= KIND_OPEN) free(<u32>load<f64>(ticket, T_OFFSET));
  else if (kind == JOB_COMPACT || kind == JOB_CHECKPOINT || kind == JOB_FLUSH) spaceWaitersClear(kind == JOB_COMPACT);
  if (RAID) stripedEnd(ticket);
  if (PLANTS) assert(flushOwner != ticket && rootOwner != ticket);
  ticketClose(index);
  jobEnds(kind);
  return status;
}

export function planPointer(index: u32): u32 { return load<u32>(ticketPointer(index), T_PLAN); }
export function complete(index: u32, command: u32, outcome: u32): void {
  let ticket = ticketPointer(index);
  planComplete(ticket, command, outcome);
  let failed = outcome != 0;
  if (RAID && failed && planOperation(ticket, command) == FLUSH) {
    failed = outcome != RESULT_IO || !flushFaults(ticket, command);
    if (failed && !load<u32>(ticket, T_ROOT_STATE) && flushOwner != ticket) flushLost();
  }
  // While flushes of either are under way, its ticket has no other commands.
  if (load<u32>(ticket, T_ROOT_STATE)) {
    if (rootFlushes) rootFlushEnds(failed);
  } else if (flushOwner == ticket && logFlushes) logFlushEnds(failed);
}
export function ticketResult(index: u32): f64 { return result; }
export function failure(): u32 { return failureCode; }
export function failureVolume(): u32 { return failedVolume; }
export function failureBlock(): u32 { return failedBlock; }
/** The host could not grow the memory as far as the ticket's last step asked: its next one fails with LIMIT. */
export function memoryDenied(index: u32): void { store<u32>(ticketPointer(index), 1, T_DENIED); }
export function memoryNeeded(): u32 { return memoryNeededPages; }
export function backgroundWanted(): u32 { return wantedJob(); }

export function sourceCount(): u32 { return sources; }
export function sourceGet(index: u32): u32 {
  let space = sourceSpace(index);
  return space == SPACE_NONE ? 0 : sourceWrite(index, exchangePointer, mappedBytes(space));
}
/** Bytes that a space shows as data now, what it stands on not counted. */
function mappedBytes(space: u32): f64 { return mappedBlocks(space) * 4096; }
export function snapshotCount(): u32 { return snapshots; }
export function snapshotGet(index: u32): u32 { return snapshotWrite(index, exchangePointer, EXCHANGE_BYTES); }
export function currentEpoch(): u32 { return epoch; }

export function figure(n: u32): f64 {
  switch (n) {
    case 0: return capacityBlocks;
    case 1: return liveBlocks();
    case 2: return <f64>freeTotal;
    case 3: return <f64>reserveSegments();
    case 4: return <f64>segmentTotal;
    case 5: return <f64>dataBlocksWritten;
    case 6: return <f64>metadataBlocksWritten;
    case 8: return <f64>movedBlocks;
    case 9: return <f64>sequence;
    case 10: return <f64>durableSequence;
    case 11: return <f64>incarnation;
    case 12: return heapUsedBytes();
    case 13: return heapExtentBytes();
    case 14: return <f64>unflushedBlocks();
    case 15: return <f64>replayedEntries;
    case 16: return <f64>generation;
    case 18: return <f64>checkpointCount;
    case 19: return <f64>failedReadOnly;
  }
  if (RAID) {
    if (n == 7) return <f64>paddingBlocks;
    if (n == 22) return healedBlocks;
    if (n == 23) return scrubDone;
    if (n == 24) return scrubTotal;
  }
  return 0;
}

export function volumeFigure(id: u32, n: u32): f64 {
  let volume = volumeById(id);
  if (!volume) return 0;
  if (n == 0) return <f64>load<u32>(volume, V_SEGMENT_COUNT);
  if (n == 1) return <f64>(load<u32>(volume, V_SEGMENT_COUNT) - load<u32>(volume, V_FREE));
  if (n == 2) return <f64>liveTotal(id);
  if (RAID && n == 4) return <f64>readableOf(volume);
  if (RAID && n == 5) return <f64>writableOf(volume);
  return <f64>load<u32>(volume, V_STATE);
}

export function counter(n: u32): f64 { return counterGet(n); }
/** One finding of CHECK into the exchange buffer (volume/check.ts); 0 when there is none. */
export function problemTake(): u32 { return findingTake(exchangePointer); }
export function plant(n: u32): void { if (PLANTS) plantSet(n); }

export function diffBegin(spaceA: u32, epochA: u32, spaceB: u32, epochB: u32, fromBlock: f64): u32 {
  if (spaceA != SPACE_NONE && !spacePointer(spaceA)) return ERROR_NOT_FOUND;
  if (!spacePointer(spaceB)) return ERROR_NOT_FOUND;
  tableDiff.diffBegin(spaceA, epochA, spaceB, epochB, <u64>fromBlock);
  return 0;
}
export function diffNext(): u32 { return tableDiff.diffNext(); }
export function diffBlock(): f64 { return <f64>tableDiff.diffBlock; }
export function diffCount(): u32 { return tableDiff.diffCount; }
export function diffKind(): u32 { return tableDiff.diffKind; }
