// Reads, writes and trims of any byte range in a space.
//
// A write is acknowledged when its blocks are in the open segment's buffer. It goes in chunks: runs of whole blocks (at most
// one record's data), and partial blocks, whose rest is gathered first. A partial block is only written if nobody wrote
// the block since it was gathered; else it is gathered again, so overlapping writes are serialised without locks.

import { count } from '../std/counters';
import { DONE, ERROR_NOT_FOUND, ERROR_RANGE, MEMORY, PLAN, WAIT, fail, lacksTimes } from '../abi/status';
import {
  COPY_IN, COPY_OUT, T_A, T_B, T_C, T_D, T_EPOCH, T_LENGTH, T_OFFSET, T_PROGRESS, T_SPACE, T_STATE, ZERO_OUT, planAdd, planClear,
} from '../abi/ticket';
import { BLOCK_BYTES, BLOCK_SHIFT, EPOCH_CURRENT } from '../format/constants';
import { ENTRY_DATA, ENTRY_TRIM, RECORD_DATA, RECORD_DATA_MAX } from '../format/record';
import { KIND_MAPPED, leafBlocks, leafRoom, leafShift, spacePointer, spaceSizeBytes, tablePut, tableTrim, trimFirst } from '../table/index';
import { V_ID, blockOf } from '../log/volumes';
import {
  B_SEGMENT, B_VOLUME, STREAM_USER, entryAppend, epoch, recordEnsure, recordRoom, sequenceTake, slotAddress, slotsTake,
} from '../log/writer';
import { C_EDGE_WAIT } from '../log/counting';
import { admit } from './admit';
import { flushRun } from './flush';
import { GATHER_BLOCKS_MAX, KIND_BUFFER, gatherClose, gatherCurrent, gatherOpen, gatherPlace, gatherRun } from './gather';
import { isSource, trimLeaves } from './state';
import { clear } from '../std/bytes';

/** Trims go in entries of at most so many leaves, which bounds what one of them does. */
/** Leaves that one trim entry covers at most, and what they may need. */
export const TRIM_LEAVES: u32 = 256;
const TRIM_ROOM: u32 = 33554432;

/** Where a ticket stands, in bytes of its space, and how many it has before it. */
function positionOf(ticket: u32): f64 { return load<f64>(ticket, T_OFFSET) + load<f64>(ticket, T_PROGRESS); }
function leftOf(ticket: u32): f64 { return load<f64>(ticket, T_LENGTH) - load<f64>(ticket, T_PROGRESS); }
function advance(ticket: u32, bytes: u64): void { store<f64>(ticket, load<f64>(ticket, T_PROGRESS) + <f64>bytes, T_PROGRESS); }

/** The block that has the byte at this position, and the byte's place in it. */
function blockAt(position: f64): u64 { return <u64>position >> BLOCK_SHIFT; }
function edgeAt(position: f64): u32 { return <u32>(<u64>position) & (BLOCK_BYTES - 1); }

// T_A holds the gather request. Read: T_B first block's offset in it.
export function readStep(ticket: u32): u32 {
  while (true) {
    let state = load<u32>(ticket, T_STATE);
    if (state == 0) {
      let space = load<u32>(ticket, T_SPACE);
      if (!spacePointer(space)) return fail(ERROR_NOT_FOUND);
      let position = positionOf(ticket);
      let left = leftOf(ticket);
      if (left <= 0) return DONE;
      let block = blockAt(position);
      let edge = edgeAt(position);
      let blocks = <u32>min<u64>(blockAt(left + <f64>(edge + BLOCK_BYTES - 1)), GATHER_BLOCKS_MAX);
      store<u32>(ticket, gatherOpen(space, load<u32>(ticket, T_EPOCH), block, blocks), T_A);
      store<u32>(ticket, edge, T_B);
      store<u32>(ticket, blocks, T_C);
      store<u32>(ticket, 1, T_STATE);
      planClear(ticket);
    } else if (state == 1) {
      let status = gatherRun(ticket, load<u32>(ticket, T_A));
      if (status != DONE) return status;
      planOut(ticket);
      store<u32>(ticket, 2, T_STATE);
      return PLAN;
    } else {
      gatherClose(load<u32>(ticket, T_A));
      store<u32>(ticket, 0, T_A);
      store<u32>(ticket, 0, T_STATE);
    }
  }
}

/** Copies of the gathered places to the caller's buffer, neighbours joined; advances the progress. */
function planOut(ticket: u32): void {
  planClear(ticket);
  let request = load<u32>(ticket, T_A);
  let blocks = load<u32>(ticket, T_C);
  let skip = load<u32>(ticket, T_B);
  let progress = load<f64>(ticket, T_PROGRESS);
  let left = load<f64>(ticket, T_LENGTH) - progress;
  let runAddress: u32 = 0;
  let runBytes: u32 = 0;
  let runOffset: f64 = 0;
  let runZero = false;
  for (let i: u32 = 0; i < blocks; i++) {
    let place = gatherPlace(request, i);
    let kind = load<u32>(place);
    let zero = kind != KIND_MAPPED && kind != KIND_BUFFER;
    let address = zero ? 0 : load<u32>(place, 16) + skip;
    let bytes = <u32>min<f64>(<f64>(BLOCK_BYTES - skip), left);
    if (runBytes && runZero == zero && (zero || runAddress + runBytes == address)) {
      runBytes += bytes;
    } else {
      if (runBytes) planAdd(ticket, runZero ? ZERO_OUT : COPY_OUT, 0, runOffset, runAddress, runBytes);
      runAddress = address;
      runOffset = progress;
      runBytes = bytes;
      runZero = zero;
    }
    progress += <f64>bytes;
    left -= <f64>bytes;
    skip = 0;
  }
  planAdd(ticket, runZero ? ZERO_OUT : COPY_OUT, 0, runOffset, runAddress, runBytes);
  store<f64>(ticket, progress, T_PROGRESS);
}

/** Checks of a write or trim: the space is a source's, the range lies in it. 0, or a code. */
export function rangeCheck(ticket: u32): u32 {
  let space = load<u32>(ticket, T_SPACE);
  if (!spacePointer(space) || !isSource(space)) return ERROR_NOT_FOUND;
  let offset = load<f64>(ticket, T_OFFSET);
  let length = load<f64>(ticket, T_LENGTH);
  if (!(offset >= 0 && length >= 0 && offset + length <= spaceSizeBytes(space))) return ERROR_RANGE;
  return 0;
}

/** The ticket that is making a space smaller: nobody else writes to that one meanwhile, so that what it zeroed stays. */
export let cutter: u32 = 0;
export function cutterSet(ticket: u32): void { cutter = ticket; }
function cutBy(ticket: u32): bool {
  return cutter != 0 && cutter != ticket && load<u32>(cutter, T_SPACE) == load<u32>(ticket, T_SPACE);
}

// State 1: choose the next chunk. 2: gather a partial block. 3: admit and copy in. 4: append. 5: flush (FUA).
// T_B first slot, T_C blocks of the chunk, T_D bytes of the chunk; T_A gather request of a partial block.
export function writeStep(ticket: u32, zeros: bool): u32 {
  while (true) {
    let state = load<u32>(ticket, T_STATE);
    switch (state) {
    case 0: {
      let bad = rangeCheck(ticket);
      if (bad) return fail(bad);
      store<u32>(ticket, 1, T_STATE);
      continue;
    }
    case 1: {
      let position = positionOf(ticket);
      let left = leftOf(ticket);
      if (left <= 0) {
        if (load<u32>(ticket, T_EPOCH) != 1 || zeros) return DONE;
        store<u32>(ticket, 5, T_STATE);
        continue;
      }
      if (cutBy(ticket)) return WAIT;
      let block = blockAt(position);
      let edge = edgeAt(position);
      if (edge || left < <f64>BLOCK_BYTES) {
        // The last block of a space whose size is not a multiple of the block has nothing behind its end to keep.
        // Nothing is gathered, and pinned, while there is no room for it: what it pins may be what has to come free.
        let status = admit(ticket, RECORD_DATA, 1, zeros);
        if (status != DONE) return status;
        store<u32>(ticket, <u32>min<f64>(left, <f64>(BLOCK_BYTES - edge)), T_D);
        store<u32>(ticket, gatherOpen(load<u32>(ticket, T_SPACE), EPOCH_CURRENT, block, 1), T_A);
        planClear(ticket);
        store<u32>(ticket, 2, T_STATE);
      } else if (zeros) {
        store<u32>(ticket, 6, T_STATE);
      } else {
        store<u32>(ticket, 0, T_D);
        store<u32>(ticket, 3, T_STATE);
      }
      continue;
    }
    case 2: {
      let status = gatherRun(ticket, load<u32>(ticket, T_A));
      if (status != DONE) return status;
      let kind = load<u32>(gatherPlace(load<u32>(ticket, T_A), 0));
      if (zeros && kind != KIND_MAPPED && kind != KIND_BUFFER) {
        gatherDrop(ticket); // zeros over nothing
        advance(ticket, load<u32>(ticket, T_D));
        store<u32>(ticket, 1, T_STATE);
      } else store<u32>(ticket, 3, T_STATE);
      continue;
    }
    case 3: {
      let bad = rangeCheck(ticket); // the space may have been cut or left meanwhile
      if (bad) return fail(bad);
      let partial = load<u32>(ticket, T_D);
      let wanted = partial ? 1 : <u32>min<u64>(blockAt(leftOf(ticket)), RECORD_DATA_MAX);
      let status = cutBy(ticket) ? WAIT : admit(ticket, RECORD_DATA, wanted, zeros);
      if (status == WAIT && partial) {
        gatherDrop(ticket);
        store<u32>(ticket, 1, T_STATE);
      }
      if (status != DONE) return status;
      if (partial && !gatherCurrent(load<u32>(ticket, T_A))) {
        count(C_EDGE_WAIT);
        gatherDrop(ticket);
        store<u32>(ticket, 1, T_STATE);
        continue;
      }
      let buffer = recordEnsure(STREAM_USER, RECORD_DATA);
      let blocks = min(recordRoom(STREAM_USER, RECORD_DATA), wanted);
      let slot = slotsTake(buffer, blocks);
      let address = slotAddress(buffer, slot);
      store<u32>(ticket, slot, T_B);
      store<u32>(ticket, blocks, T_C);
      planClear(ticket);
      store<u32>(ticket, 4, T_STATE);
      if (partial) {
        let place = gatherPlace(load<u32>(ticket, T_A), 0);
        if (load<u32>(place) == KIND_MAPPED || load<u32>(place) == KIND_BUFFER) memory.copy(address, load<u32>(place, 16), BLOCK_BYTES);
        else clear(address, BLOCK_BYTES);
        gatherDrop(ticket);
        let edge = edgeAt(positionOf(ticket));
        if (zeros) {
          clear(address + edge, partial);
          continue;
        }
        planAdd(ticket, COPY_IN, 0, load<f64>(ticket, T_PROGRESS), address + edge, partial);
      } else planAdd(ticket, COPY_IN, 0, load<f64>(ticket, T_PROGRESS), address, blocks << BLOCK_SHIFT);
      return PLAN;
    }
    case 4: {
      append(ticket);
      store<u32>(ticket, 1, T_STATE);
      continue;
    }
    case 5: {
      let status = flushRun(ticket, false);
      if (status != DONE) return status;
      return DONE;
    }
    default: {
      let status = trimPart(ticket);
      if (status != DONE) return status;
      store<u32>(ticket, 1, T_STATE);
      continue;
    }
    }
  }
}

function gatherDrop(ticket: u32): void {
  gatherClose(load<u32>(ticket, T_A));
  store<u32>(ticket, 0, T_A);
}

/** The copied blocks become entries of the record and mappings of the space: the write of this chunk is acknowledged. */
function append(ticket: u32): void {
  let buffer = recordEnsure(STREAM_USER, RECORD_DATA);
  let volume = load<u32>(buffer, B_VOLUME);
  let id = load<u32>(volume, V_ID);
  let slot = load<u32>(ticket, T_B);
  let blocks = load<u32>(ticket, T_C);
  let space = load<u32>(ticket, T_SPACE);
  let virtualBlock = blockAt(positionOf(ticket));
  let block = blockOf(volume, load<u32>(buffer, B_SEGMENT), slot);
  for (let i: u32 = 0; i < blocks; i++) {
    let at = sequenceTake();
    entryAppend(buffer, ENTRY_DATA, space, epoch, virtualBlock + <u64>i, 0, slot + i, 0, at);
    tablePut(space, virtualBlock + <u64>i, id, block + i, epoch, at);
  }
  let partial = load<u32>(ticket, T_D);
  advance(ticket, partial ? partial : blocks << BLOCK_SHIFT);
}

/** One trim entry over whole blocks. */
function trimPart(ticket: u32): u32 {
  let bad = rangeCheck(ticket);
  if (bad) return fail(bad);
  let space = load<u32>(ticket, T_SPACE);
  let block = blockAt(positionOf(ticket));
  let blocks = blockAt(leftOf(ticket));
  if (RAID) {
    let skipped = trimFirst(space, block) - block;
    if (skipped) {
      advance(ticket, min(skipped, blocks) << BLOCK_SHIFT);
      return DONE;
    }
  }
  // So many leaves that what they may need together is to be had.
  let leaves = TRIM_LEAVES;
  if (RAID) leaves = max(min(leaves, TRIM_ROOM / leafRoom()), 1);
  let first = block & <u64>(leafBlocks - 1);
  blocks = min(blocks, (<u64>leaves << leafShift) - first);
  leaves = <u32>((first + blocks + leafBlocks - 1) >> leafShift);
  if (RAID) leaves = min(leaves, trimLeaves(space));
  let status = admit(ticket, RECORD_DATA, 0, true);
  if (status != DONE) return status;
  if (lacksTimes(leaves + 2, leafRoom(), 0)) return MEMORY; // after it has taken a segment
  let buffer = recordEnsure(STREAM_USER, RECORD_DATA);
  let at = sequenceTake();
  entryAppend(buffer, ENTRY_TRIM, space, epoch, block, 0, 0, blocks, at);
  let trimmed = tableTrim(space, block, blocks, epoch, at);
  assert(trimmed);
  advance(ticket, blocks << BLOCK_SHIFT);
  return DONE;
}

/** Frees what a ticket that ends early still holds. */
export function readWriteEnd(ticket: u32): void {
  if (load<u32>(ticket, T_A)) gatherDrop(ticket);
}
