// The append side of the log: streams, their open segments in memory, records and footers.
//
// Every segment that is being filled, or has content that is not known durable, has a buffer: the segment's whole image
// in memory, written out in runs. Slots are handed out in order; a record is open from its header's slot until it is
// closed (full, at a flush, or because the other stream takes sequences), and only closed records are written out.
//
//      0        durable      submitted      record        fill        dataSlots   segmentBlocks
//      |--------|------------|--------------|=============|-----------|-----------|
//        flushed  in flight     to be written  open record   free       footer
//
// Sequences are global: an open record's entries follow each other without a gap, so whoever takes sequences on one
// stream first closes the open record of the other.

import { allocateZeroed, free, allocateBlocks } from '../std/allocator';
import { xxh64 } from '../std/checksum';
import { count } from '../std/counters';
import { BLOCK_BYTES, BLOCK_SHIFT, FORMAT_MAJOR, VOLUME_NONE } from '../format/constants';
import { blockSeed, logIdentity } from '../format/key';
import {
  ENTRY_BYTES, ENTRY_MOVED, ENTRY_TRIM, RECORD_DATA_MAX, RECORD_ENTRIES_MAX, RECORD_FIXED_BYTES, RECORD_MAGIC, RECORD_MOVE, RECORD_OPERATION,
  RECORD_PADDING, R_DATA, R_DURABLE, R_ENTRIES, R_EPOCH, R_FILL, R_FIRST, R_INCARNATION, R_KIND, R_PAYLOAD, R_PREVIOUS, R_SLOT, R_SOURCE_FILL,
  R_SOURCE_SEGMENT, R_SOURCE_VOLUME, R_STREAM, R_UUID, entryWrite, recordSeal,
} from '../format/record';
import {
  FOOTER_FIXED_BYTES, FOOTER_MAGIC, F_DURABLE, F_FILL, F_FIRST, F_INCARNATION, F_LAST, F_LAST_HEADER, F_NEXT_FILL, F_NEXT_SEGMENT, F_NEXT_VOLUME,
  F_STREAM, F_USED, SLOT_FLAG_MOVE, SLOT_FLAG_OPERATIONS, SLOT_FLAG_PADDING, SLOT_HEADER, footerSeal,
} from '../format/footer';
import { LIST_BYTES, LIST_MAX, LIST_STRIDE } from '../format/root';
import { strict } from '../std/plant';
import {
  META, NEXT, OPEN, SEALED, SEG_BUFFER, SEG_FILL, SEG_FIRST, SEG_FLAGS, SEG_HAS_FOOTER, SEG_LAST, SEG_STATE, SEG_STREAM, SEG_SUMS, SEG_USED,
  V_DATA_SLOTS, V_FOOTER_BLOCKS, V_ID, V_SEGMENT_BLOCKS, blockOf, foundSegment, foundVolumePointer, freeTotal, segmentChanged, segmentFree, segmentOf,
  segmentTake, sumsMake, volumeById, segmentBlank, unitOf,
} from './volumes';
import { C_PADDED, C_SEGMENT_REUSED, C_SEGMENT_SEALED, C_STREAM_SWITCH } from './counting';
import { bump, clear } from '../std/bytes';

export const STREAM_USER: u32 = 0;
export const STREAM_SURVIVOR: u32 = 1;
export const STREAM_META: u32 = 2; // and 3: the second copy

export const B_DATA: usize = 0;
export const B_VOLUME: usize = 4;
export const B_SEGMENT: usize = 8;
export const B_STREAM: usize = 12;
export const B_FILL: usize = 16;
export const B_SUBMITTED: usize = 20;
export const B_DURABLE: usize = 24;
export const B_SEALED: usize = 28;
export const B_RECORD: usize = 32;
export const B_ENTRIES: usize = 36;
export const B_INFLIGHT: usize = 40;
export const B_NEXT: usize = 44;
export const B_PINS: usize = 48;
export const B_USED: usize = 52;
export const B_RECORD_ENTRIES: usize = 56;
export const B_RECORD_DATA: usize = 60;
export const B_RECORD_KIND: usize = 64;
export const B_SOURCE_VOLUME: usize = 68;
export const B_SOURCE_SEGMENT: usize = 72;
export const B_RECORD_TRIMS: usize = 76;
export const B_FIRST: usize = 80; // u64
export const B_DURABLE_CHAIN: usize = 88; // u64
export const B_FLUSHING: usize = 96;
export const B_DETACHED: usize = 100; // given up after a failure; goes when nobody reads it
export const B_FLUSHING_CHAIN: usize = 104; // u64
export const B_SOURCE_FILL: usize = 112; // u64
export const B_LOADED: usize = 120; // slots below were read from the device at open: they are read and verified there
const B_BYTES: u32 = 128;

export const NO_RECORD: u32 = 0xffffffff;

/** Last sequence given to an entry, and the last that is known durable. */
export let sequence: u64 = 0;
export let durableSequence: u64 = 0;
export let incarnation: u64 = 0;
/** Fill sequences at and above this were never used. */
export let nextFill: u64 = 1;
/** Epoch that new blocks are born in. */
export let epoch: u32 = 1;

export let dataBlocksWritten: u64 = 0;
export let metadataBlocksWritten: u64 = 0;
export let movedBlocks: u64 = 0;
export let paddingBlocks: u64 = 0;
/** Segments sealed so far: how much replay a checkpoint would save. */
export let sealedCount: u32 = 0;

export function sequenceSet(value: u64): void { sequence = value; }
export function durableSet(value: u64): void { durableSequence = value; }
export function incarnationSet(value: u64): void { incarnation = value; }
export function nextFillSet(value: u64): void { nextFill = value; }
export function epochSet(value: u32): void { epoch = value; }
export function metadataWritten(blocks: u32): void { metadataBlocksWritten += blocks; }
export function movedCount(blocks: u32): void { movedBlocks += blocks; }

const open: usize = memory.data(16); // open buffer of each stream
const chains: usize = memory.data(16, 8); // checksum of the last closed header of streams 0 and 1
export let bufferHead: u32 = 0;
let bufferTail: u32 = 0;

/** Lists of next segments, as they stand in the newest root less what was taken since. */
export const nextLists: usize = memory.data(2048, 8);
const nextCounts: usize = memory.data(8);

export function openBuffer(stream: u32): u32 { return load<u32>(open + (stream << 2)); }
export function openBufferSet(stream: u32, buffer: u32): void { store<u32>(open + (stream << 2), buffer); }
export function chainOf(stream: u32): u64 { return load<u64>(chains + (stream << 3)); }
export function chainSet(stream: u32, value: u64): void { store<u64>(chains + (stream << 3), value); }
export function nextCount(stream: u32): u32 { return load<u32>(nextCounts + (stream << 2)); }
export function nextCountSet(stream: u32, value: u32): void { store<u32>(nextCounts + (stream << 2), value); }

/**
 * Where replay starts on each stream, 24 bytes as in the root's stream record: of the newest checkpoint, and of the one
 * under way. A stream that had no segment then starts at the first one that it opened after.
 */
export const starts: usize = memory.data(48, 8);
export const pendingStarts: usize = memory.data(48, 8);

/** Whether replay starts in the segment with this fill sequence. */
export function isStart(fill: u64): bool {
  return load<u64>(starts, 8) == fill || load<u64>(starts, 24 + 8) == fill;
}

function startNote(record: usize, volume: u32, index: u32, fillSequence: u64): void {
  if (load<u16>(record) == <u16>VOLUME_NONE) placeStore(record, volume, 0, index, fillSequence);
}

/** How roots name a slot of a fill, 16 bytes: u16 storage volume, u16 slot, u32 segment, u64 fill sequence. */
export function placeStore(at: usize, volume: u32, slot: u32, segment: u32, fillSequence: u64): void {
  store<u16>(at, <u16>load<u32>(volume, V_ID));
  store<u16>(at, <u16>slot, 2);
  store<u32>(at, segment, 4);
  store<u64>(at, fillSequence, 8);
}

/** The same of the slot up to which a buffer is filled; `slot` another one. */
export function bufferPlace(at: usize, buffer: u32, slot: u32 = load<u32>(buffer, B_FILL)): void {
  placeStore(at, load<u32>(buffer, B_VOLUME), slot, load<u32>(buffer, B_SEGMENT), bufferFillSequence(buffer));
}

/** Memory that opening one more segment of `segmentBlocks` takes. */
export function bufferBytes(segmentBlocks: u32): u32 {
  return segmentBlocks * (BLOCK_BYTES + ENTRY_BYTES) + 3 * BLOCK_BYTES;
}

export function bufferOpen(stream: u32, volume: u32, index: u32, fillSequence: u64): u32 {
  let segmentBlocks = load<u32>(volume, V_SEGMENT_BLOCKS);
  let buffer = allocateZeroed(B_BYTES);
  let data = allocateBlocks(segmentBlocks);
  store<u32>(buffer, data, B_DATA);
  store<u32>(buffer, volume, B_VOLUME);
  store<u32>(buffer, index, B_SEGMENT);
  store<u32>(buffer, stream, B_STREAM);
  store<u32>(buffer, NO_RECORD, B_RECORD);
  let segment = segmentOf(volume, index);
  if (stream < STREAM_META) {
    store<u32>(buffer, allocateZeroed(load<u32>(volume, V_DATA_SLOTS) * ENTRY_BYTES), B_ENTRIES);
    store<u64>(buffer, chainOf(stream), B_DURABLE_CHAIN);
    startNote(starts + stream * 24, volume, index, fillSequence);
    startNote(pendingStarts + stream * 24, volume, index, fillSequence);
    if (load<u64>(segment, SEG_FILL)) count(C_SEGMENT_REUSED);
    store<u64>(segment, fillSequence, SEG_FILL);
  }
  segmentBlank(segment, stream < STREAM_META ? OPEN : META);
  store<u8>(segment, <u8>stream, SEG_STREAM);
  store<u32>(segment, buffer, SEG_BUFFER);
  segmentChanged(volume, index);
  if (bufferTail) store<u32>(bufferTail, buffer, B_NEXT);
  else bufferHead = buffer;
  bufferTail = buffer;
  openBufferSet(stream, buffer);
  return buffer;
}

export function bufferFillSequence(buffer: u32): u64 {
  return load<u64>(segmentOf(load<u32>(buffer, B_VOLUME), load<u32>(buffer, B_SEGMENT)), SEG_FILL);
}

/** Takes the buffer off the list and frees it. A sealed data segment leaves its checksums in the cache. */
export function bufferFree(buffer: u32): void {
  let previous: u32 = 0;
  let walk = bufferHead;
  while (walk != buffer) {
    previous = walk;
    walk = load<u32>(walk, B_NEXT);
  }
  let next = load<u32>(buffer, B_NEXT);
  if (previous) store<u32>(previous, next, B_NEXT);
  else bufferHead = next;
  if (bufferTail == buffer) bufferTail = previous;
  let segment = segmentOf(load<u32>(buffer, B_VOLUME), load<u32>(buffer, B_SEGMENT));
  if (load<u32>(segment, SEG_BUFFER) == buffer) store<u32>(segment, 0, SEG_BUFFER);
  let entries = load<u32>(buffer, B_ENTRIES);
  if (entries) {
    let used = <u32>load<u16>(segment, SEG_USED);
    if (!load<u32>(buffer, B_DETACHED) && used && !load<u32>(segment, SEG_SUMS)) {
      let sums = sumsMake(segment, used);
      for (let slot: u32 = 0; slot < used; slot++) store<u64>(sums + (slot << 3), load<u64>(entries + slot * ENTRY_BYTES, 16));
    }
    free(entries);
  }
  free(load<u32>(buffer, B_DATA));
  free(buffer);
}

export function slotAddress(buffer: u32, slot: u32): u32 {
  return load<u32>(buffer, B_DATA) + (slot << BLOCK_SHIFT);
}

export function bufferDataSlots(buffer: u32): u32 {
  return load<u32>(load<u32>(buffer, B_VOLUME), V_DATA_SLOTS);
}

/** Blocks of data that fit into the stream's open segment now, in one record of this kind. */
export function recordRoom(stream: u32, kind: u32): u32 {
  let buffer = openBuffer(stream);
  if (!buffer) return 0;
  let left = bufferDataSlots(buffer) - load<u32>(buffer, B_FILL);
  if (recordFits(buffer, kind)) return min(left, RECORD_DATA_MAX - load<u32>(buffer, B_RECORD_ENTRIES));
  return left < 2 ? 0 : min(left - 1, RECORD_DATA_MAX);
}

/** Slots that are free in the stream's open segment. */
export function slotsLeft(stream: u32): u32 {
  let buffer = openBuffer(stream);
  return buffer ? bufferDataSlots(buffer) - load<u32>(buffer, B_FILL) : 0;
}

/** Whether the open record takes one more entry of this kind. Trims count with the blocks: together they never pass what a header holds. */
function recordFits(buffer: u32, kind: u32): bool {
  return load<u32>(buffer, B_RECORD) != NO_RECORD && load<u32>(buffer, B_RECORD_KIND) == kind && load<u32>(buffer, B_RECORD_ENTRIES) < RECORD_DATA_MAX;
}

/** Whether a header without data (trims, an operation) fits. */
export function headerRoom(stream: u32, kind: u32): bool {
  let buffer = openBuffer(stream);
  return buffer != 0 && (load<u32>(buffer, B_FILL) < bufferDataSlots(buffer) || (kind != RECORD_OPERATION && recordFits(buffer, kind)));
}

/** Opens a record of this kind unless one is open that takes another entry. `slots` data slots must fit behind it. */
export function recordEnsure(stream: u32, kind: u32): u32 {
  let other = stream ^ 1;
  if (openBuffer(other) && load<u32>(openBuffer(other), B_RECORD) != NO_RECORD) {
    count(C_STREAM_SWITCH);
    recordClose(other);
  }
  let buffer = openBuffer(stream);
  if (!recordFits(buffer, kind)) {
    recordClose(stream);
    let slot = load<u32>(buffer, B_FILL);
    assert(slot < bufferDataSlots(buffer));
    clear(slotAddress(buffer, slot), BLOCK_BYTES);
    store<u32>(buffer, slot, B_RECORD);
    store<u32>(buffer, slot + 1, B_FILL);
    store<u32>(buffer, 0, B_RECORD_ENTRIES);
    store<u32>(buffer, 0, B_RECORD_DATA);
    store<u32>(buffer, 0, B_RECORD_TRIMS);
    store<u32>(buffer, kind, B_RECORD_KIND);
    store<u64>(buffer, 0, B_FIRST);
  }
  return buffer;
}

/** Names the fill that a move record copies from; a record of another source is closed first by the caller. */
export function recordSource(buffer: u32, volume: u32, segment: u32, fillSequence: u64): void {
  store<u32>(buffer, volume, B_SOURCE_VOLUME);
  store<u32>(buffer, segment, B_SOURCE_SEGMENT);
  store<u64>(buffer, fillSequence, B_SOURCE_FILL);
}

/**
 * Appends an entry to the open record. For data and moved blocks `slot` holds the block already (taken with slotsTake)
 * and the checksum is computed here. Entries carry `at` as sequence; they must follow each other.
 */
export function entryAppend(buffer: u32, kind: u32, space: u32, birth: u32, virtualBlock: u64, sourceSlot: u32, slot: u32, blocks: u64, at: u64): void {
  let header = slotAddress(buffer, load<u32>(buffer, B_RECORD));
  let index = load<u32>(buffer, B_RECORD_ENTRIES);
  let entry = header + RECORD_FIXED_BYTES + index * ENTRY_BYTES;
  if (!index) store<u64>(buffer, at, B_FIRST);
  assert(index < RECORD_ENTRIES_MAX && load<u64>(buffer, B_FIRST) + <u64>index == at);
  if (kind == ENTRY_TRIM) {
    entryWrite(entry, kind, space, birth, virtualBlock, 0, blocks);
    bump(buffer, B_RECORD_TRIMS, 1);
  } else {
    let sum = xxh64(slotAddress(buffer, slot), BLOCK_BYTES, blockSeed(bufferFillSequence(buffer), slot, virtualBlock, birth));
    entryWrite(entry, kind, space, birth, virtualBlock, kind == ENTRY_MOVED ? sourceSlot : 0, sum);
    memory.copy(load<u32>(buffer, B_ENTRIES) + slot * ENTRY_BYTES, entry, ENTRY_BYTES);
    bump(buffer, B_RECORD_DATA, 1);
  }
  store<u32>(buffer, index + 1, B_RECORD_ENTRIES);
}

/** Takes `blocks` data slots behind the open record; answers the first. */
export function slotsTake(buffer: u32, blocks: u32): u32 {
  let slot = load<u32>(buffer, B_FILL);
  assert(slot + blocks <= bufferDataSlots(buffer));
  store<u32>(buffer, slot + blocks, B_FILL);
  return slot;
}

export function sequenceTake(): u64 {
  return ++sequence;
}

/** Closes the stream's open record, if any: its header is final from here. */
export function recordClose(stream: u32): void {
  let buffer = openBuffer(stream);
  if (!buffer) return;
  let slot = load<u32>(buffer, B_RECORD);
  if (slot == NO_RECORD) return;
  store<u32>(buffer, NO_RECORD, B_RECORD);
  let kind = load<u32>(buffer, B_RECORD_KIND);
  let entries = load<u32>(buffer, B_RECORD_ENTRIES);
  if (entries == 0 && kind != RECORD_OPERATION) {
    assert(load<u32>(buffer, B_FILL) == slot + 1);
    store<u32>(buffer, slot, B_FILL); // nothing came: the slot goes back
    return;
  }
  let volume = load<u32>(buffer, B_VOLUME);
  let index = load<u32>(buffer, B_SEGMENT);
  let segment = segmentOf(volume, index);
  let first = load<u64>(buffer, B_FIRST);
  let last = kind == RECORD_OPERATION ? first : first + <u64>entries - 1;
  headerWrite(stream, buffer, slot, kind, first, kind == RECORD_OPERATION ? 0 : entries, load<u32>(buffer, B_RECORD_DATA), volume, index);
  if (!load<u64>(segment, SEG_FIRST)) store<u64>(segment, first, SEG_FIRST);
  store<u64>(segment, last, SEG_LAST);
  store<u16>(segment, <u16>load<u32>(buffer, B_FILL), SEG_USED);
  segmentChanged(volume, index);
  dataBlocksWritten += load<u32>(buffer, B_RECORD_DATA);
  metadataBlocksWritten++;
}

/** The fixed part of a record's header, its seal, and its entry for the footer. */
function headerWrite(stream: u32, buffer: u32, slot: u32, kind: u32, first: u64, entries: u32, data: u32, volume: u32, index: u32): void {
  let header = slotAddress(buffer, slot);
  store<u32>(header, RECORD_MAGIC);
  store<u16>(header, FORMAT_MAJOR, 4);
  store<u8>(header, <u8>kind, R_KIND);
  store<u8>(header, <u8>stream, R_STREAM);
  store<u64>(header, first, R_FIRST);
  store<u64>(header, durableSequence, R_DURABLE);
  store<u64>(header, bufferFillSequence(buffer), R_FILL);
  store<u64>(header, incarnation, R_INCARNATION);
  store<u64>(header, chainOf(stream), R_PREVIOUS);
  store<u32>(header, slot, R_SLOT);
  store<u16>(header, <u16>entries, R_ENTRIES);
  store<u16>(header, <u16>data, R_DATA);
  store<u32>(header, epoch, R_EPOCH);
  memory.copy(header + <u32>R_UUID, logIdentity, 16);
  if (kind == RECORD_MOVE) {
    store<u16>(header, <u16>load<u32>(buffer, B_SOURCE_VOLUME), R_SOURCE_VOLUME);
    store<u32>(header, load<u32>(buffer, B_SOURCE_SEGMENT), R_SOURCE_SEGMENT);
    store<u64>(header, load<u64>(buffer, B_SOURCE_FILL), R_SOURCE_FILL);
  }
  chainSet(stream, recordSeal(header, load<u32>(volume, V_ID), blockOf(volume, index, slot)));
  slotHeaderWrite(load<u32>(buffer, B_ENTRIES) + slot * ENTRY_BYTES, header);
}

/** Fills the open segment up to whole units with a record that has nothing in it, so that all of it can be written. No record is open. */
export function bufferPad(stream: u32): void {
  if (!RAID) return;
  let buffer = openBuffer(stream);
  if (!buffer) return;
  let volume = load<u32>(buffer, B_VOLUME);
  let slot = load<u32>(buffer, B_FILL);
  let over = slot % unitOf(volume);
  if (!over) return;
  let slots = unitOf(volume) - over;
  memory.fill(slotAddress(buffer, slot), 0, slots << BLOCK_SHIFT);
  store<u32>(buffer, slot + slots, B_FILL);
  store<u16>(segmentOf(volume, load<u32>(buffer, B_SEGMENT)), <u16>(slot + slots), SEG_USED);
  segmentChanged(volume, load<u32>(buffer, B_SEGMENT));
  if (stream < STREAM_META) headerWrite(stream, buffer, slot, RECORD_PADDING, sequence, 0, slots - 1, volume, load<u32>(buffer, B_SEGMENT));
  paddingBlocks += slots;
  count(C_PADDED);
}

/** The footer's entry for a header slot. */
export function slotHeaderWrite(entry: u32, header: u32): void {
  let kind = <u32>load<u8>(header, R_KIND);
  let entries = <u32>load<u16>(header, R_ENTRIES);
  let data = <u32>load<u16>(header, R_DATA);
  let flags: u32 = kind == RECORD_MOVE ? SLOT_FLAG_MOVE : 0;
  if (RAID && kind == RECORD_PADDING) flags = SLOT_FLAG_PADDING;
  else if (kind == RECORD_OPERATION || entries != data) flags |= SLOT_FLAG_OPERATIONS;
  store<u8>(entry, <u8>SLOT_HEADER);
  store<u8>(entry, <u8>flags, 1);
  store<u16>(entry, <u16>data, 2);
  store<u32>(entry, <u32>load<u64>(header, R_INCARNATION), 4);
  store<u64>(entry, 0, 8);
  if (kind == RECORD_MOVE) {
    store<u16>(entry, load<u16>(header, R_SOURCE_VOLUME), 8);
    store<u32>(entry, load<u32>(header, R_SOURCE_SEGMENT), 10);
  }
  store<u64>(entry, load<u64>(header, R_FIRST), 16);
}

/** An operation is a record of its own, with no data; its payload is copied from `payload`. */
export function operationAppend(payload: u32, bytes: u32, at: u64): void {
  recordClose(STREAM_USER);
  let buffer = recordEnsure(STREAM_USER, RECORD_OPERATION);
  let header = slotAddress(buffer, load<u32>(buffer, B_RECORD));
  memory.copy(header + RECORD_FIXED_BYTES, payload, bytes);
  store<u32>(header, bytes, R_PAYLOAD);
  store<u64>(buffer, at, B_FIRST);
  recordClose(STREAM_USER);
}

/** Takes the next segment for a stream: the head of its list, or (after a failure) any free one. False: none. */
function segmentNext(stream: u32, anyFree: bool): bool {
  let list = nextLists + stream * LIST_STRIDE;
  let left = nextCount(stream);
  if (left) {
    foundNextVolume = volumeById(load<u16>(list));
    foundNextSegment = load<u32>(list, 4);
    nextFound = load<u64>(list, 8);
    nextCountSet(stream, --left);
    memory.copy(list, list + LIST_BYTES, left * LIST_BYTES);
    return true;
  }
  if (!anyFree || !segmentTake(NEXT, 0)) return false;
  foundNextVolume = foundVolumePointer;
  foundNextSegment = foundSegment;
  nextFound = nextFill++;
  return true;
}
let foundNextVolume: u32 = 0;
let foundNextSegment: u32 = 0;
let nextFound: u64 = 0;

/** Seals the stream's open segment and opens the next. False: there is no next; nothing changed. */
export function segmentAdvance(stream: u32, anyFree: bool): bool {
  recordClose(stream);
  if (!segmentNext(stream, anyFree)) return false;
  let volume = foundNextVolume;
  let index = foundNextSegment;
  let fillSequence = nextFound;
  if (openBuffer(stream)) segmentSeal(stream, volume, index, fillSequence);
  bufferOpen(stream, volume, index, fillSequence);
  return true;
}

/** Writes the footer into the buffer; the segment takes no more records. */
export function segmentSeal(stream: u32, nextVolume: u32, nextSegment: u32, nextFillSequence: u64): void {
  recordClose(stream);
  let buffer = openBuffer(stream);
  let volume = load<u32>(buffer, B_VOLUME);
  let index = load<u32>(buffer, B_SEGMENT);
  let segment = segmentOf(volume, index);
  let dataSlots = load<u32>(volume, V_DATA_SLOTS);
  let footerBlocks = load<u32>(volume, V_FOOTER_BLOCKS);
  let used = load<u32>(buffer, B_FILL);
  let footer = slotAddress(buffer, dataSlots);
  clear(slotAddress(buffer, used), (dataSlots - used + footerBlocks) << BLOCK_SHIFT);
  footerBuild(footer, volume, index, stream, used, load<u32>(buffer, B_ENTRIES), chainOf(stream), nextVolume, nextSegment, nextFillSequence);
  store<u32>(buffer, load<u32>(volume, V_SEGMENT_BLOCKS), B_FILL);
  store<u32>(buffer, used, B_USED);
  store<u32>(buffer, 1, B_SEALED);
  store<u8>(segment, <u8>SEALED, SEG_STATE);
  store<u8>(segment, <u8>SEG_HAS_FOOTER, SEG_FLAGS);
  store<u16>(segment, <u16>used, SEG_USED);
  segmentChanged(volume, index);
  metadataBlocksWritten += footerBlocks;
  openBufferSet(stream, 0);
  count(C_SEGMENT_SEALED);
  sealedCount++;
}

/** Fills zeroed memory with the footer of a segment: `entries` are its slots, `chain` the last header's checksum. */
export function footerBuild(
  footer: u32, volume: u32, index: u32, stream: u32, used: u32, entries: u32, chain: u64, nextVolume: u32, nextSegment: u32, nextFillSequence: u64,
): void {
  let segment = segmentOf(volume, index);
  store<u32>(footer, FOOTER_MAGIC);
  store<u16>(footer, FORMAT_MAJOR, 4);
  store<u8>(footer, <u8>stream, F_STREAM);
  store<u64>(footer, load<u64>(segment, SEG_FILL), F_FILL);
  store<u64>(footer, incarnation, F_INCARNATION);
  store<u64>(footer, durableSequence, F_DURABLE);
  store<u16>(footer, <u16>used, F_USED);
  store<u16>(footer, <u16>load<u32>(nextVolume, V_ID), F_NEXT_VOLUME);
  store<u32>(footer, nextSegment, F_NEXT_SEGMENT);
  store<u64>(footer, nextFillSequence, F_NEXT_FILL);
  store<u64>(footer, chain, F_LAST_HEADER);
  store<u64>(footer, load<u64>(segment, SEG_FIRST), F_FIRST);
  store<u64>(footer, load<u64>(segment, SEG_LAST), F_LAST);
  memory.copy(footer + FOOTER_FIXED_BYTES, entries, used * ENTRY_BYTES);
  footerSeal(footer, load<u32>(volume, V_FOOTER_BLOCKS), load<u32>(volume, V_ID), blockOf(volume, index, load<u32>(volume, V_DATA_SLOTS)));
}

/** Appends one metadata page to stream 2 or 3. False: no segment could be had. */
export function pageAppend(stream: u32, page: u32, avoid: u32): bool {
  let buffer = openBuffer(stream);
  if (!buffer || load<u32>(buffer, B_FILL) == load<u32>(load<u32>(buffer, B_VOLUME), V_SEGMENT_BLOCKS)) {
    if (!segmentTake(META, avoid)) return false;
    if (buffer) store<u32>(buffer, 1, B_SEALED);
    buffer = bufferOpen(stream, foundVolumePointer, foundSegment, 0);
  }
  let slot = load<u32>(buffer, B_FILL);
  memory.copy(slotAddress(buffer, slot), page, BLOCK_BYTES);
  store<u32>(buffer, slot + 1, B_FILL);
  pageVolume = load<u32>(load<u32>(buffer, B_VOLUME), V_ID);
  pageBlock = blockOf(load<u32>(buffer, B_VOLUME), load<u32>(buffer, B_SEGMENT), slot);
  let segment = segmentOf(load<u32>(buffer, B_VOLUME), load<u32>(buffer, B_SEGMENT));
  store<u16>(segment, <u16>(slot + 1), SEG_USED);
  metadataBlocksWritten++;
  return true;
}
export let pageVolume: u32 = 0;
export let pageBlock: u32 = 0;

/** Blocks up to which the buffer's content is final. */
export function bufferFinal(buffer: u32): u32 {
  let record = load<u32>(buffer, B_RECORD);
  return record == NO_RECORD ? load<u32>(buffer, B_FILL) : record;
}

/** Blocks up to which the buffer may be written out: whole units. */
export function bufferReady(buffer: u32): u32 {
  let final = bufferFinal(buffer);
  return final - (final % unitOf(load<u32>(buffer, B_VOLUME)));
}

export function unflushedBlocks(): u32 {
  let blocks: u32 = 0;
  for (let buffer = bufferHead; buffer; buffer = load<u32>(buffer, B_NEXT)) {
    if (!load<u32>(buffer, B_DETACHED)) blocks += load<u32>(buffer, B_FILL) - load<u32>(buffer, B_DURABLE);
  }
  return blocks;
}

/** Blocks that are ready and not submitted, over all buffers. */
export function unsubmittedBlocks(): u32 {
  let blocks: u32 = 0;
  for (let buffer = bufferHead; buffer; buffer = load<u32>(buffer, B_NEXT)) {
    if (!load<u32>(buffer, B_DETACHED)) blocks += bufferReady(buffer) - load<u32>(buffer, B_SUBMITTED);
  }
  return blocks;
}

/** Few in strict histories of the simulator, whose logs are too small to fill a list. */
export function listMax(): u32 { return PLANTS && strict ? 3 : LIST_MAX; }

/** Gives the entries of a list of next segments beyond `wanted` back. */
export function nextListTrim(stream: u32, wanted: u32): void {
  let left = nextCount(stream);
  while (left > wanted) {
    let entry = nextLists + stream * LIST_STRIDE + --left * LIST_BYTES;
    let volume = volumeById(load<u16>(entry));
    segmentFree(volume, segmentOf(volume, load<u32>(entry, 4)));
  }
  nextCountSet(stream, left);
}

/**
 * Fills the lists of next segments with free ones, as long as more than `floor` are left. Takes effect with the next root, which has to list what a stream
 * has that is not durable as well: of both together there are never more than fit.
 */
export function nextListsFill(wantedUser: u32, wantedSurvivor: u32, floor: u32): void {
  for (let stream: u32 = 0; stream < 2; stream++) {
    let list = nextLists + stream * LIST_STRIDE;
    let most: i32 = listMax();
    for (let buffer = bufferHead; buffer; buffer = load<u32>(buffer, B_NEXT)) {
      // What is durable is in memory for readers alone.
      if (load<u32>(buffer, B_STREAM) == stream && !load<u32>(buffer, B_DETACHED) && load<u32>(buffer, B_DURABLE) != load<u32>(buffer, B_FILL)) most--;
    }
    most = min<i32>(most, stream ? wantedSurvivor : wantedUser);
    let listed = nextCount(stream);
    while (<i32>listed < most && freeTotal > floor && segmentTake(NEXT, 0)) placeStore(list + listed++ * LIST_BYTES, foundVolumePointer, 0, foundSegment, nextFill++);
    nextCountSet(stream, listed);
  }
}
