// Live counts: how many blocks of each segment some mapping refers to, and the sequence of the last death in it.
// Compaction chooses its victims by the counts; a freed segment may be filled again only when the log is durable beyond
// its death sequence. Counts are not stored: after replay the table counts every mapping anew (recount.ts), and while
// replay runs nothing is counted at all.
//
//   volume record:  segmentBlocks │ shift (0xFF: not a power of two) │ segmentCount │ total │ count u32 × n │ pad │ death u64 × n
import { allocateZeroed, free, resize } from '../std/allocator';
import { PLANT_LIVE_OFF_BY_ONE, planted } from '../std/plant';
import { recovering } from './gate';
import { ENTRY_BYTES, ENTRY_VOLUME, VOLUME_ABSENT } from './layout';
import { bump, clear } from '../std/bytes';

const SEGMENT_BLOCKS: usize = 0;
const SHIFT: usize = 4;
const SEGMENT_COUNT: usize = 8;
const TOTAL: usize = 12;
const COUNTS: u32 = 16;
const VOLUME_LIMIT: u32 = 0xfffe;

let volumes: u32 = 0; // pointer for each volume id
let volumeCapacity: u32 = 0;
let removals: u32 = 0; // for the planted fault only
/** Segments in which the last live block died; wraps. */
export let emptied: u32 = 0;

function deathsOf(record: u32): u32 {
  return record + COUNTS + ((load<u32>(record, SEGMENT_COUNT) * 4 + 7) & ~7);
}

function recordOf(volume: u32): u32 {
  return volume < volumeCapacity ? load<u32>(volumes + volume * 4) : 0;
}

function segmentOf(record: u32, block: u32): u32 {
  const shift = load<u32>(record, SHIFT);
  return shift < 32 ? block >> shift : block / load<u32>(record, SEGMENT_BLOCKS);
}

/** Room that liveAttach() may need. */
export function liveAttachRoom(volume: u32, segmentCount: u32): u32 {
  return 64 + segmentCount * 12 + (volume + 17) * 4;
}

export function liveAttach(volume: u32, segmentBlocks: u32, segmentCount: u32): void {
  assert(volume < VOLUME_LIMIT && segmentBlocks > 0 && !recordOf(volume));
  if (volume >= volumeCapacity) {
    const capacity = volume + 16;
    volumes = resize(volumes, capacity * 4);
    clear(volumes + volumeCapacity * 4, (capacity - volumeCapacity) * 4);
    volumeCapacity = capacity;
  }
  const bytes = COUNTS + ((segmentCount * 4 + 7) & ~7) + segmentCount * 8;
  const record = allocateZeroed(bytes);
  store<u32>(record, segmentBlocks, SEGMENT_BLOCKS);
  store<u32>(record, popcnt(segmentBlocks) == 1 ? ctz(segmentBlocks) : 0xff, SHIFT);
  store<u32>(record, segmentCount, SEGMENT_COUNT);
  store<u32>(volumes + volume * 4, record);
}

export function liveDetach(volume: u32): void {
  const record = recordOf(volume);
  if (!record) return;
  free(record);
  store<u32>(volumes + volume * 4, 0);
}

/** How many blocks an attached volume has; 0 when it is not attached. */
export function liveBlocks(volume: u32): u64 {
  const record = recordOf(volume);
  return record ? <u64>load<u32>(record, SEGMENT_BLOCKS) * load<u32>(record, SEGMENT_COUNT) : 0;
}

/** Whether blocks block … block + count - 1 exist on an attached volume: what every address from disk is asked first. */
export function liveInRange(volume: u32, block: u32, count: u32): bool {
  return <u64>block + count <= liveBlocks(volume);
}

export function liveAdd(volume: u32, block: u32): void {
  if (recovering) return;
  const record = recordOf(volume);
  assert(record);
  const segment = segmentOf(record, block);
  assert(segment < load<u32>(record, SEGMENT_COUNT));
  const cell = record + COUNTS + segment * 4;
  store<u32>(cell, load<u32>(cell) + 1);
  store<u32>(record, load<u32>(record, TOTAL) + 1, TOTAL);
}

/**
 * Counts what the entries (of 10 bytes, as leaves have them) from `at` to `end` map. Nearly all are of one volume, so its record is looked
 * up once, and its total changes once.
 */
export function liveAddEntries(entries: u32, end: u32): void {
  if (recovering) return;
  let volume: u32 = VOLUME_ABSENT;
  let record: u32 = 0;
  let segments: u32 = 0;
  let added: u32 = 0;
  for (let at = entries; at < end; at += ENTRY_BYTES) {
    const its = <u32>load<u16>(at, ENTRY_VOLUME);
    if (its >= VOLUME_ABSENT) continue;
    if (its != volume) {
      if (record) bump(record, TOTAL, added);
      added = 0;
      volume = its;
      record = recordOf(its);
      assert(record);
      segments = load<u32>(record, SEGMENT_COUNT);
    }
    const segment = segmentOf(record, load<u32>(at));
    assert(segment < segments);
    bump(record, COUNTS + segment * 4, 1);
    added++;
  }
  if (record) bump(record, TOTAL, added);
}

export function liveRemove(volume: u32, block: u32, sequence: u64): void {
  if (recovering) return;
  if (PLANTS && planted == PLANT_LIVE_OFF_BY_ONE && !(++removals & 63)) return;
  const record = recordOf(volume);
  assert(record);
  const segment = segmentOf(record, block);
  assert(segment < load<u32>(record, SEGMENT_COUNT));
  const cell = record + COUNTS + segment * 4;
  const count = load<u32>(cell);
  assert(count);
  store<u32>(cell, count - 1);
  if (RAID && count == 1) emptied++;
  store<u32>(record, load<u32>(record, TOTAL) - 1, TOTAL);
  const death = deathsOf(record) + segment * 8;
  if (load<u64>(death) < sequence) store<u64>(death, sequence);
}

export function liveCount(volume: u32, segment: u32): u32 {
  return load<u32>(recordOf(volume) + COUNTS + segment * 4);
}

export function liveDeathSequence(volume: u32, segment: u32): u64 {
  return load<u64>(deathsOf(recordOf(volume)) + segment * 8);
}

export function liveTotal(volume: u32): u32 {
  const record = recordOf(volume);
  return record ? load<u32>(record, TOTAL) : 0;
}

/** Counts and death sequences of every volume back to zero. */
export function liveClear(): void {
  for (let volume: u32 = 0; volume < volumeCapacity; volume++) {
    const record = load<u32>(volumes + volume * 4);
    if (!record) continue;
    store<u32>(record, 0, TOTAL);
    clear(record + COUNTS, deathsOf(record) - record - COUNTS + load<u32>(record, SEGMENT_COUNT) * 8);
  }
}
