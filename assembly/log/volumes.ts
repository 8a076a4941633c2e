// The storage volumes assigned to this log, and their segments.
//
// A segment is in one of these states:
//
//   FREE    nobody refers to anything in it
//   NEXT    promised to a stream by the newest root, with a fill sequence; not used yet
//   OPEN    being filled
//   SEALED  full, or given up at `used` slots; holds what is live in it until that is nothing and reuse is safe
//   META    holds metadata pages, or is being filled with them
//
// A storage volume of a level other than `single` is written and read by its blocks all the same: `planBlocks` is all that its
// users need; how blocks become commands for members is volume/striped.ts's business. Members that are missing or faulted are
// neither written nor read; one that is being rebuilt is written, and not read.
//
// Segments are taken in the order of the volumes, so that a volume that came later stays empty as long as possible.

import { bump } from '../std/bytes';
import { allocate, allocateZeroed, free, resize } from '../std/allocator';
import { capacityAfter, listRemove } from '../std/list';
import { failAt, stepRoomSet } from '../abi/status';
import { T_PLAN_COUNT, planAdd, planDevice, planFlush, planIsThrough, planMark, planMarked } from '../abi/ticket';
import { BLOCK_SHIFT } from '../format/constants';
import { footerBlocksOf } from '../format/footer';
import { liveAttach, liveDetach } from '../table/live';
import { LEVEL_0, LEVEL_SINGLE, MEMBER_COUNT_MAX, columnsOf, deviceHandle, membersMask, parityOf, rowOffset } from '../stripe/geometry';

export const FREE: u32 = 0;
export const NEXT: u32 = 1;
export const OPEN: u32 = 2;
export const SEALED: u32 = 3;
export const META: u32 = 4;

export const VOLUME_ACTIVE: u32 = 1;
export const VOLUME_EVACUATING: u32 = 2;
export const VOLUME_RELEASED: u32 = 3;

export const VOLUME_COUNT_MAX: u32 = 4096;

export const V_ID: usize = 0;
export const V_SEGMENT_BLOCKS: usize = 4;
export const V_SEGMENT_COUNT: usize = 8;
export const V_STATE: usize = 12;
export const V_LEVEL: usize = 16;
export const V_MEMBERS: usize = 20;
export const V_STRIP_BLOCKS: usize = 24;
export const V_FOOTER_BLOCKS: usize = 28;
export const V_DATA_OFFSET: usize = 32; // f64
export const V_ROOT_FRONT: usize = 40; // f64
export const V_ROOT_BACK: usize = 48; // f64
export const V_SEGMENTS: usize = 56;
export const V_FREE: usize = 60;
export const V_DATA_SLOTS: usize = 64;
export const V_DIRTY: usize = 68; // members written since their last flush, bit mask
export const V_HINT: usize = 72;
export const V_FULL: usize = 76; // a write ran out of space here: choose others first
export const V_TABLE_IMAGES: usize = 80; // array of segment table chunks: u32 page slot + 1, u32 dirty
export const V_RELEASE_COMMITS: usize = 84; // roots committed without this volume
export const V_ROOTS: usize = 88; // root slots that hold a root of ours, as far as this life knows: 0 to 2
export const V_NEXT: usize = 92; // the volume behind it in order, 0 for the last
export const V_COLUMNS: usize = 96; // strips of data in a stripe
export const V_UNIT: usize = 100; // blocks that can only be written together: a stripe where there is parity, else 1
export const V_WRITABLE: usize = 104; // members, bit masks
export const V_READABLE: usize = 108;
export const V_FAULT: usize = 112; // failed a write or flush: to be faulted before anything that rests on it is acknowledged
export const V_DENIED: usize = 116; // the host could not have them faulted
const V_BYTES: u32 = 120;

export const SEG_STATE: usize = 0;
export const SEG_STREAM: usize = 1; // 0 users' writes, 1 survivors, 2 and 3 metadata
export const SEG_FLAGS: usize = 2;
export const SEG_USED: usize = 4;
export const SEG_FILL: usize = 8;
export const SEG_FIRST: usize = 16;
export const SEG_LAST: usize = 24;
export const SEG_SUMS: usize = 32;
export const SEG_BUFFER: usize = 36;
export const SEG_META_LIVE: usize = 40;
export const SEG_TICK: usize = 44;
export const SEG_PINS: usize = 48; // tickets that read it
export const SEG_BYTES: u32 = 56;

export const SEG_HAS_FOOTER: u32 = 1;
export const SEG_VICTIM: u32 = 2; // being cleaned (metadata), or being copied (data)
export const SEG_UNREAD: u32 = 8; // the last read of its footer failed
export const SEG_BAD: u32 = 4; // something in it could not be read: compaction leaves it alone

/** Segments described by one fragment of the segment table: 128 × 24 bytes. */
export const TABLE_CHUNK: u32 = 128;

/** The first volume in order; the others follow by V_NEXT. */
export let volumeHead: u32 = 0;
let order: u32 = 0;
export let volumeCount: u32 = 0;
let orderCapacity: u32 = 0;
const byId: usize = memory.data(1024); // 256 chunks of 256 pointers
export let segmentTotal: u32 = 0;
export let freeTotal: u32 = 0; // FREE segments of active volumes
/** Blocks of the largest segment of any volume. */
export let segmentBlocksMost: u32 = 8;
export let capacityBlocks: f64 = 0; // data slots of active volumes

export function volumeAt(index: u32): u32 {
  return load<u32>(order + (index << 2));
}

export function volumeById(id: u32): u32 {
  if (id > 0xfffd) return 0;
  let chunk = load<u32>(byId + ((id >>> 8) << 2));
  return chunk ? load<u32>(chunk + ((id & 255) << 2)) : 0;
}

export function segmentOf(volume: u32, segment: u32): u32 {
  return load<u32>(volume, V_SEGMENTS) + segment * SEG_BYTES;
}

// The segment that a walk over all of them stands at: for (segmentsBegin(); segmentsNext(); ). One walk at a time.
export let eachVolume: u32 = 0;
export let eachIndex: u32 = 0;
export let eachSegment: u32 = 0;

export function segmentsBegin(): void {
  eachVolume = 0;
}

export function segmentsNext(): bool {
  eachIndex++;
  eachSegment += SEG_BYTES;
  if (eachVolume && eachIndex < load<u32>(eachVolume, V_SEGMENT_COUNT)) return true;
  eachVolume = eachVolume ? load<u32>(eachVolume, V_NEXT) : volumeHead;
  if (!eachVolume) return false;
  eachIndex = 0; // a volume has at least one
  eachSegment = load<u32>(eachVolume, V_SEGMENTS);
  return true;
}

/** Segments of all volumes, active or not. */
export function segmentsOfAll(): u32 {
  let total: u32 = 0;
  for (let volume = volumeHead; volume; volume = load<u32>(volume, V_NEXT)) total += load<u32>(volume, V_SEGMENT_COUNT);
  return total;
}

/** Bytes that volumeCreate allocates, at most. */
export function volumeBytes(segmentCount: u32): u32 {
  return segmentCount * (SEG_BYTES + 16) + 65536;
}

/** Fields that say what a volume is, at the places of its record: V_ID, V_SEGMENT_BLOCKS, V_SEGMENT_COUNT, V_LEVEL … V_STRIP_BLOCKS, V_DATA_OFFSET … V_ROOT_BACK. */
export const VOLUME_DESCRIPTION_BYTES: u32 = 56;

export function volumeCreate(description: usize): void {
  let id = load<u32>(description, V_ID);
  let segmentBlocks = load<u32>(description, V_SEGMENT_BLOCKS);
  let segmentCount = load<u32>(description, V_SEGMENT_COUNT);
  if (volumeCount == orderCapacity) {
    orderCapacity = capacityAfter(orderCapacity);
    order = resize(order, orderCapacity << 2);
  }
  let chunk = load<u32>(byId + ((id >>> 8) << 2));
  if (!chunk) {
    chunk = allocateZeroed(1024);
    store<u32>(byId + ((id >>> 8) << 2), chunk);
  }
  let volume = allocateZeroed(V_BYTES);
  memory.copy(volume, description, VOLUME_DESCRIPTION_BYTES);
  store<u32>(volume, VOLUME_ACTIVE, V_STATE);
  let level = levelOf(volume);
  let members = membersOf(volume);
  let wide = columnsOf(level, members);
  let unit = RAID && parityOf(level) ? wide * load<u32>(volume, V_STRIP_BLOCKS) : 1;
  if (RAID) {
    store<u32>(volume, wide, V_COLUMNS);
    store<u32>(volume, unit, V_UNIT);
    store<u32>(volume, membersMask(members), V_WRITABLE);
    store<u32>(volume, membersMask(members), V_READABLE);
  }
  let footerBlocks = footerBlocksOf(segmentBlocks, unit);
  store<u32>(volume, footerBlocks, V_FOOTER_BLOCKS);
  store<u32>(volume, segmentBlocks - footerBlocks, V_DATA_SLOTS);
  store<u32>(volume, allocateZeroed(segmentCount * SEG_BYTES), V_SEGMENTS);
  store<u32>(volume, segmentCount, V_FREE);
  store<u32>(volume, allocateZeroed(((segmentCount + TABLE_CHUNK - 1) / TABLE_CHUNK) * 8), V_TABLE_IMAGES);
  store<u32>(chunk + ((id & 255) << 2), volume);
  if (volumeCount) store<u32>(volumeAt(volumeCount - 1), volume, V_NEXT);
  else volumeHead = volume;
  store<u32>(order + (volumeCount << 2), volume);
  volumeCount++;
  liveAttach(id, segmentBlocks, segmentCount);
  volumeTotals();
}

export function volumeForget(id: u32): void {
  let volume = volumeById(id);
  volumeCount = listRemove(order, volumeCount, volume);
  let next = load<u32>(volume, V_NEXT);
  if (volumeHead == volume) volumeHead = next;
  for (let each = volumeHead; each; each = load<u32>(each, V_NEXT)) if (load<u32>(each, V_NEXT) == volume) store<u32>(each, next, V_NEXT);
  store<u32>(load<u32>(byId + ((id >>> 8) << 2)) + ((id & 255) << 2), 0);
  free(load<u32>(volume, V_SEGMENTS));
  free(load<u32>(volume, V_TABLE_IMAGES));
  free(volume);
  liveDetach(id);
  volumeTotals();
}

/** Counts anew what the figures and the reserve stand on: segments, free ones and data slots of the active volumes. */
export function volumeTotals(): void {
  segmentTotal = 0;
  freeTotal = 0;
  capacityBlocks = 0;
  segmentBlocksMost = 8;
  for (let volume = volumeHead; volume; volume = load<u32>(volume, V_NEXT)) {
    segmentBlocksMost = max(segmentBlocksMost, load<u32>(volume, V_SEGMENT_BLOCKS));
    if (load<u32>(volume, V_STATE) != VOLUME_ACTIVE) continue;
    segmentTotal += load<u32>(volume, V_SEGMENT_COUNT);
    freeTotal += load<u32>(volume, V_FREE);
    capacityBlocks += <f64>load<u32>(volume, V_SEGMENT_COUNT) * <f64>load<u32>(volume, V_DATA_SLOTS);
  }
  stepRoomSet(segmentBlocksMost * 256); // entries of one segment, and checksums of a batch of them
}

export let foundVolumePointer: u32 = 0;
export let foundSegment: u32 = 0;

/**
 * Takes a free segment: of the first volume in order that has one, not `avoid` when another has one too, and not one
 * that ran full unless there is no other. Answers false when there is none; the segment's state becomes `state`.
 */
export function segmentTake(state: u32, avoid: u32): bool {
  let fallback: u32 = 0;
  let chosen: u32 = 0;
  for (let volume = volumeHead; volume; volume = load<u32>(volume, V_NEXT)) {
    if (load<u32>(volume, V_STATE) != VOLUME_ACTIVE || load<u32>(volume, V_FREE) == 0) continue;
    if (volume == avoid || load<u32>(volume, V_FULL)) {
      if (!fallback || (load<u32>(fallback, V_FULL) && !load<u32>(volume, V_FULL))) fallback = volume;
      continue;
    }
    chosen = volume;
    break;
  }
  if (!chosen) chosen = fallback;
  if (!chosen) return false;
  let count = load<u32>(chosen, V_SEGMENT_COUNT);
  let hint = load<u32>(chosen, V_HINT);
  for (let probe: u32 = 0; probe < count; probe++) {
    let index = hint + probe;
    if (index >= count) index -= count;
    let segment = segmentOf(chosen, index);
    if (load<u8>(segment, SEG_STATE) == <u8>FREE) {
      store<u32>(chosen, index + 1 == count ? 0 : index + 1, V_HINT);
      foundVolumePointer = chosen;
      foundSegment = index;
      segmentLeaveFree(chosen, segment, state);
      return true;
    }
  }
  assert(false);
  return false;
}

export function segmentLeaveFree(volume: u32, segment: u32, state: u32): void {
  assert(load<u8>(segment, SEG_STATE) == <u8>FREE);
  store<u8>(segment, <u8>state, SEG_STATE);
  bump(volume, V_FREE, -1);
  if (load<u32>(volume, V_STATE) == VOLUME_ACTIVE) freeTotal--;
}

/** Frees the segment that the walk stands at when it holds metadata pages of which none is left. */
export function emptyMetaFree(): void {
  if (load<u8>(eachSegment, SEG_STATE) == <u8>META && !load<u32>(eachSegment, SEG_META_LIVE) && !load<u32>(eachSegment, SEG_BUFFER) && !(RAID && load<u32>(eachSegment, SEG_PINS))) {
    segmentFree(eachVolume, eachSegment);
  }
}

/** One ticket more (1) or less (−1) reads the segment: it is not freed meanwhile. */
export function segmentPin(segment: u32, by: i32): void {
  bump(segment, SEG_PINS, by);
}

/** The segment holds nothing, in this state. */
export function segmentBlank(segment: u32, state: u32): void {
  store<u8>(segment, <u8>state, SEG_STATE);
  store<u8>(segment, 0, SEG_FLAGS);
  store<u16>(segment, 0, SEG_USED);
  store<u64>(segment, 0, SEG_FIRST);
  store<u64>(segment, 0, SEG_LAST);
}

export function segmentFree(volume: u32, segment: u32): void {
  assert(load<u8>(segment, SEG_STATE) != <u8>FREE && load<u32>(segment, SEG_PINS) == 0 && load<u32>(segment, SEG_BUFFER) == 0);
  if (load<u32>(segment, SEG_SUMS)) sumsDrop(segment);
  segmentBlank(segment, FREE);
  store<u32>(segment, 0, SEG_META_LIVE);
  bump(volume, V_FREE, 1);
  if (load<u32>(volume, V_STATE) == VOLUME_ACTIVE) freeTotal++;
}

/** Marks the chunk of the segment table that describes this segment as changed. */
export function segmentChanged(volume: u32, segment: u32): void {
  store<u32>(load<u32>(volume, V_TABLE_IMAGES) + ((segment / TABLE_CHUNK) << 3), 1, 4);
}

export function blockOf(volume: u32, segment: u32, slot: u32): u32 {
  return segment * load<u32>(volume, V_SEGMENT_BLOCKS) + slot;
}

/** The handle of a volume's first member; the others follow. */
export function handleOf(volume: u32): u32 {
  return deviceHandle(load<u32>(volume, V_ID), 0);
}

/** A failure at a slot of a segment. */
export function failAtSlot(code: u32, volume: u32, segment: u32, slot: u32): u32 {
  return failAt(code, load<u32>(volume, V_ID), blockOf(volume, segment, slot));
}

// A core without RAID has volumes of one member only: here that is a constant, so that what is for others falls away.
export function levelOf(volume: u32): u32 { return RAID ? load<u32>(volume, V_LEVEL) : LEVEL_SINGLE; }
export function membersOf(volume: u32): u32 { return RAID ? load<u32>(volume, V_MEMBERS) : 1; }
export function unitOf(volume: u32): u32 { return RAID ? load<u32>(volume, V_UNIT) : 1; }
export function writableOf(volume: u32): u32 { return RAID ? load<u32>(volume, V_WRITABLE) : 1; }
export function readableOf(volume: u32): u32 { return RAID ? load<u32>(volume, V_READABLE) : 1; }

/** The row of a block, the same on every member. */
export function rowOf(volume: u32, block: u32): u32 {
  if (!RAID) return block;
  let strip = load<u32>(volume, V_STRIP_BLOCKS);
  return load<u32>(volume, V_LEVEL) ? (block / (load<u32>(volume, V_COLUMNS) * strip)) * strip + (block % strip) : block;
}

/** Byte offset of a block on the member that holds it. */
export function offsetOf(volume: u32, block: u32): f64 {
  return rowAt(volume, rowOf(volume, block));
}

/** Whether what a member holds is somewhere else, too, or can be computed. */
export function redundant(volume: u32): bool {
  return levelOf(volume) != LEVEL_SINGLE && levelOf(volume) != LEVEL_0;
}

/** Byte offset of a row of the data area on every member. On `single` a row is a block. */
export function rowAt(volume: u32, row: u32): f64 {
  return rowOffset(load<f64>(volume, V_DATA_OFFSET), row);
}

// What the bytes of a read are, for `planChecked`.
/** A metadata page; the key is its checksum. */
export const CHECK_PAGE: u32 = 1;
/** A whole footer; the key is the fill sequence. */
export const CHECK_FOOTER: u32 = 2;
/** Records from their first header on; the key is the fill sequence. Headers only, or their data as well. */
export const CHECK_HEADERS: u32 = 3;
export const CHECK_RECORDS: u32 = 4;
/** One header, wherever its data is. */
export const CHECK_FIRST: u32 = 5;

/** The command of a plan that reads or writes blocks of a storage volume, whatever its level. Writes are whole units. */
export function planBlocks(ticket: u32, operation: u32, volume: u32, block: u32, address: u32, blocks: u32): void {
  planChecked(ticket, operation, volume, block, address, blocks, 0, 0);
}

/**
 * The same, for bytes of which can be seen whether they are what was written: where they are not, they are rebuilt from the
 * other members, before the ticket sees them. `check` says what they are (volume/striped.ts), `key` points to a u64 for it.
 */
export function planChecked(ticket: u32, operation: u32, volume: u32, block: u32, address: u32, blocks: u32, check: u32, key: usize): void {
  if (!levelOf(volume)) planAdd(ticket, operation, handleOf(volume), rowAt(volume, block), address, blocks << BLOCK_SHIFT);
  else planMark(ticket, operation, handleOf(volume), block, address, blocks << BLOCK_SHIFT, check, key);
}

/** Members that a command of a plan writes to or flushes, as a mask of its volume. */
function membersWritten(volume: u32, marked: bool, handle: u32): u32 {
  return RAID && !marked ? 1 << (handle & 31) : writableOf(volume);
}

/** Members that a ticket's plan wrote to are dirty from when the writes ended: a flush beside them covers nothing of what was still under way. */
export function markWritten(ticket: u32): void {
  for (let i: u32 = 0; i < load<u32>(ticket, T_PLAN_COUNT); i++) {
    if (planIsThrough(ticket, i)) continue;
    let handle = planDevice(ticket, i);
    let volume = volumeById(handle / MEMBER_COUNT_MAX);
    if (RAID && !volume) continue; // given back while a block of it was mended
    store<u32>(volume, load<u32>(volume, V_DIRTY) | membersWritten(volume, planMarked(ticket, i), handle), V_DIRTY);
  }
}

/** Flushes of all writable members in the mask. */
export function planMemberFlushes(ticket: u32, volume: u32, mask: u32): void {
  if (!RAID) {
    if (mask & 1) planFlush(ticket, handleOf(volume));
    return;
  }
  mask &= writableOf(volume);
  for (let member: u32 = 0; member < membersOf(volume); member++) {
    if (mask & (1 << member)) planFlush(ticket, handleOf(volume) + member);
  }
}

// Checksums of sealed segments: u64 for each slot, kept in a bounded cache, least recently used out first.

export let sumsBytes: u32 = 0;
export let sumsBytesMax: u32 = 33554432; // 32 MiB: sums of 16 GiB of data
let tick: u32 = 0;

export function sumsLimit(bytes: u32): void {
  sumsBytesMax = bytes;
}

export function sumsDrop(segment: u32): void {
  let sums = load<u32>(segment, SEG_SUMS);
  sumsBytes -= load<u32>(sums);
  free(sums);
  store<u32>(segment, 0, SEG_SUMS);
}

/** Room for the sums of `slots` slots of a segment: pointer to the u64 array. Evicts others beyond the bound. */
export function sumsMake(segment: u32, slots: u32): u32 {
  assert(load<u32>(segment, SEG_SUMS) == 0);
  let bytes = slots * 8 + 8;
  while (sumsBytes + bytes > sumsBytesMax && sumsEvict()) {}
  let sums = allocate(bytes);
  store<u32>(sums, bytes);
  store<u32>(segment, sums, SEG_SUMS);
  store<u32>(segment, ++tick, SEG_TICK);
  sumsBytes += bytes;
  return sums + 8;
}

export function sumsOf(segment: u32): u32 {
  let sums = load<u32>(segment, SEG_SUMS);
  if (!sums) return 0;
  store<u32>(segment, ++tick, SEG_TICK);
  return sums + 8;
}

// Samples a few segments and drops the oldest: exact order is not worth a list.
let evictVolume: u32 = 0;
let evictSegment: u32 = 0;
function sumsEvict(): bool {
  let victim: u32 = 0;
  let seen: u32 = 0;
  let budget = segmentsOfAll();
  while (budget > 0 && seen < 8) {
    budget--;
    if (evictVolume >= volumeCount) { evictVolume = 0; evictSegment = 0; }
    let volume = volumeAt(evictVolume);
    if (evictSegment >= load<u32>(volume, V_SEGMENT_COUNT)) { evictVolume++; evictSegment = 0; continue; }
    let segment = segmentOf(volume, evictSegment++);
    if (!load<u32>(segment, SEG_SUMS) || load<u32>(segment, SEG_PINS)) continue;
    seen++;
    if (!victim || tick - load<u32>(segment, SEG_TICK) > tick - load<u32>(victim, SEG_TICK)) victim = segment;
  }
  if (!victim) return false;
  sumsDrop(victim);
  return true;
}
