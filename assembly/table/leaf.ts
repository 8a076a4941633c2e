// A leaf: the entries of leafBlocks consecutive blocks in the smallest of three shapes (layout.ts draws them).
//
// Single entries are read with entryGet() and changed in place with entrySet(), which knows every shape. Everything that
// touches many entries at once (trim, merge, sweep, images, change of shape) spreads the leaf out into a scratch array of
// one entry for each block, works there, and builds the leaf anew in the best shape: 1 µs or so for 512 blocks, and one
// piece of code instead of one for each pair of shapes.
//
// Shapes and their hysteresis (bytes of body: extents 12 × runs, packed 80 + 10 × present, dense 10 × leafBlocks):
//   build anew         extents when smallest; else dense from 15/16 full on, packed below
//   extents → other    a run more than fits, and extents would be 48 bytes larger than the best other shape
//   packed → dense     15/16 full          dense → packed     under 7/8 full
//   packed, dense → extents   looked at only when a sequential write passes a multiple of 64 blocks or the leaf's end
//                             (counting the runs costs 1 µs), and taken when it saves 96 bytes
//   extents' spare room       given back when a put reaches the leaf's end, or when it is more than 4 runs and a quarter
// A packed leaf grows by 8 entries, extents by one run while they are few: at 5 runs of 12 bytes over a header of 24,
// slack is what decides whether a sequential leaf stays under 0.2 bytes a block.
//
// A slot is the address of a leaf's word in the directory: whatever may move the leaf takes the slot and stores the new word.
import { allocate, allocateAligned, allocateZeroed, free, resize, usableSize } from '../std/allocator';
import {
  COUNT_DENSE_TO_EXTENTS, COUNT_DENSE_TO_PACKED, COUNT_ENTER_EXTENTS, COUNT_EXTENTS_TO_DENSE, COUNT_EXTENTS_TO_PACKED, COUNT_PACKED_TO_DENSE,
  COUNT_PACKED_TO_EXTENTS, count,
} from '../std/counters';
import { CHUNK_DIRTY, LEAF_NONE, SLOT_ROOM, slotChunk, slotClear, slotFill, slotFind } from './directory';
import { recovering } from './gate';
import { historyRoom } from './history';
import {
  ENTRY_BIRTH, ENTRY_BYTES, ENTRY_VOLUME, GROUP_BYTES, GROUP_RANK, LEAF_CAPACITY, LEAF_COUNT, LEAF_DIRTY, LEAF_FLAGS, LEAF_HEADER, LEAF_HISTORY,
  LEAF_NEWEST_CHANGE, LEAF_TOUCHED, RUN_BIRTH, RUN_BLOCK, RUN_BYTES, RUN_VOLUME, SHAPE_DENSE, SHAPE_EXTENTS, SHAPE_MASK, SHAPE_PACKED,
  VOLUME_ABSENT, leafBlocks, leafMask, packedEntries, packedOverhead,
} from './layout';
import { leafFree } from './release';
import { spacePointer } from './space';
import { clear } from '../std/bytes';

const EXTENTS_HYSTERESIS: u32 = 48;
const TIGHTEN_GAIN: u32 = 96;
const PACKED_STEP: u32 = 8;

// Scratch arrays, one entry for each block of a leaf. Used within one call of the table, never across.
export let scratchEntries: u32 = 0; // 10-byte entries
export let scratchOther: u32 = 0; // 10-byte entries
export let scratchRecords: u32 = 0; // 16-byte lookup records
export let scratchRecordsOther: u32 = 0; // 16-byte lookup records
export let scratchHistory: u32 = 0; // 16-byte history entries
export let scratchPlaces: u32 = 0; // of a batch of lookups: { leaf word, then address of the entry u32 │ block in leaf u32 } for each block
export let scratchTouches: u32 = 0; // addresses u32 that a lookup touches, as many as a batch and a remainder of four; aligned to 16
export let entryNone: u32 = 0; // one absent entry

export function scratchInitialize(): void {
  scratchEntries = allocate(leafBlocks * ENTRY_BYTES);
  scratchOther = allocate(leafBlocks * ENTRY_BYTES);
  scratchRecords = allocate(leafBlocks * 16);
  scratchRecordsOther = allocate(leafBlocks * 16);
  scratchHistory = allocate(leafBlocks * 16);
  scratchPlaces = allocate(4096);
  scratchTouches = allocateAligned(2064, 16);
  entryNone = allocate(16);
  entryStore(entryNone, VOLUME_ABSENT, 0, 0);
}

export function entryStore(at: u32, volume: u32, block: u32, birth: u32): void {
  store<u32>(at, block);
  store<u32>(at, birth, ENTRY_BIRTH);
  store<u16>(at, volume, ENTRY_VOLUME);
}

function runStore(at: u32, start: u32, volume: u32, block: u32, birth: u32): void {
  store<u16>(at, start);
  store<u16>(at, volume, RUN_VOLUME);
  store<u32>(at, block, RUN_BLOCK);
  store<u32>(at, birth, RUN_BIRTH);
}

// Whether an entry that follows (volume, block - 1, birth) belongs to the same run.
function continues(volume: u32, block: u32, birth: u32, nextVolume: u32, nextBlock: u32, nextBirth: u32): bool {
  return volume == nextVolume && birth == nextBirth && (volume >= VOLUME_ABSENT || block + 1 == nextBlock);
}

// --- single entries ---------------------------------------------------------------------------------------------------

// What entryGet() found; entryAt: where the entry lies (0: absent from a packed leaf, or any entry of extents).
export let entryVolume: u32 = 0;
export let entryBlock: u32 = 0;
export let entryBirth: u32 = 0;
export let entryAt: u32 = 0;

/** Number of present blocks before block i of a packed leaf. */
export function packedRank(leaf: u32, i: u32): u32 {
  const group = leaf + LEAF_HEADER + (i >> 6) * GROUP_BYTES;
  return <u32>load<u16>(group, GROUP_RANK) + <u32>popcnt<u64>(load<u64>(group) & ~(~(<u64>0) << (i & 63)));
}

export function packedBit(leaf: u32, i: u32): u32 {
  return <u32>(load<u64>(leaf + LEAF_HEADER + (i >> 6) * GROUP_BYTES) >> (i & 63)) & 1;
}

// Marks block i as present or not; the ranks behind it follow.
function packedMark(leaf: u32, i: u32, by: i32): void {
  let group = leaf + LEAF_HEADER + (i >> 6) * GROUP_BYTES;
  store<u64>(group, load<u64>(group) ^ (<u64>1 << (i & 63)));
  const end = leaf + packedEntries;
  for (group += GROUP_BYTES; group < end; group += GROUP_BYTES) store<u16>(group, <i32>load<u16>(group, GROUP_RANK) + by, GROUP_RANK);
}

/** Index of the last run that starts at or before i; -1 when i lies before the first. */
export function runSearch(leaf: u32, i: u32): i32 {
  let low: u32 = 0;
  let high = <u32>load<u16>(leaf, LEAF_COUNT);
  while (low < high) {
    const middle = (low + high) >> 1;
    if (<u32>load<u16>(leaf + LEAF_HEADER + middle * RUN_BYTES) <= i) low = middle + 1;
    else high = middle;
  }
  return <i32>low - 1;
}

export function entryGet(word: u32, i: u32): void {
  const leaf = word & ~SHAPE_MASK;
  const shape = word & SHAPE_MASK;
  let at: u32;
  if (shape == SHAPE_EXTENTS) {
    entryAt = 0;
    const run = runSearch(leaf, i);
    if (run < 0) {
      entryVolume = VOLUME_ABSENT;
      entryBlock = 0;
      entryBirth = 0;
      return;
    }
    at = leaf + LEAF_HEADER + <u32>run * RUN_BYTES;
    const volume = <u32>load<u16>(at, RUN_VOLUME);
    entryVolume = volume;
    entryBlock = volume < VOLUME_ABSENT ? load<u32>(at, RUN_BLOCK) + i - <u32>load<u16>(at) : 0;
    entryBirth = load<u32>(at, RUN_BIRTH);
    return;
  }
  if (shape == SHAPE_DENSE) {
    at = leaf + LEAF_HEADER + i * ENTRY_BYTES;
    entryAt = at;
  } else {
    const present = packedBit(leaf, i);
    at = present ? leaf + packedEntries + packedRank(leaf, i) * ENTRY_BYTES : entryNone;
    entryAt = present ? at : 0;
  }
  entryBlock = load<u32>(at);
  entryBirth = load<u32>(at, ENTRY_BIRTH);
  entryVolume = load<u16>(at, ENTRY_VOLUME);
}

/** Makes block i of the leaf in this slot what is given, VOLUME_ABSENT included. The leaf may move and change shape. */
export function entrySet(slot: u32, i: u32, volume: u32, block: u32, birth: u32): void {
  const word = load<u32>(slot);
  const shape = word & SHAPE_MASK;
  if (shape == SHAPE_EXTENTS) extentsSet(slot, i, volume, block, birth);
  else if (shape == SHAPE_PACKED) packedSet(slot, i, volume, block, birth);
  else denseSet(slot, i, volume, block, birth);
}

function denseSet(slot: u32, i: u32, volume: u32, block: u32, birth: u32): void {
  const leaf = load<u32>(slot) & ~SHAPE_MASK;
  const at = leaf + LEAF_HEADER + i * ENTRY_BYTES;
  const present = <u32>load<u16>(leaf, LEAF_COUNT) + u32(volume != VOLUME_ABSENT) - u32(load<u16>(at, ENTRY_VOLUME) != VOLUME_ABSENT);
  store<u16>(leaf, present, LEAF_COUNT);
  entryStore(at, volume, block, birth);
  if (present * 8 < leafBlocks * 7) leafReshape(slot);
}

function packedSet(slot: u32, i: u32, volume: u32, block: u32, birth: u32): void {
  let leaf = load<u32>(slot) & ~SHAPE_MASK;
  const present = <u32>load<u16>(leaf, LEAF_COUNT);
  const capacity = <u32>load<u16>(leaf, LEAF_CAPACITY);
  const rank = packedRank(leaf, i);
  let at = leaf + packedEntries + rank * ENTRY_BYTES;
  if (packedBit(leaf, i)) {
    if (volume != VOLUME_ABSENT) {
      entryStore(at, volume, block, birth);
      return;
    }
    memory.copy(at, at + ENTRY_BYTES, (present - rank - 1) * ENTRY_BYTES);
    packedMark(leaf, i, -1);
    store<u16>(leaf, present - 1, LEAF_COUNT);
    if (present == 1 || capacity - present >= 2 * PACKED_STEP) leafReshape(slot);
    return;
  }
  if (volume == VOLUME_ABSENT) return;
  if (present == capacity) {
    if ((present + 1) * 16 >= leafBlocks * 15) {
      leafExpand(load<u32>(slot), scratchEntries);
      entryStore(scratchEntries + i * ENTRY_BYTES, volume, block, birth);
      leafRebuild(slot, scratchEntries);
      return;
    }
    leaf = resize(leaf, packedEntries + (capacity + PACKED_STEP) * ENTRY_BYTES);
    store<u16>(leaf, capacity + PACKED_STEP, LEAF_CAPACITY);
    store<u32>(slot, leaf | SHAPE_PACKED);
    at = leaf + packedEntries + rank * ENTRY_BYTES;
  }
  memory.copy(at + ENTRY_BYTES, at, (present - rank) * ENTRY_BYTES);
  entryStore(at, volume, block, birth);
  packedMark(leaf, i, 1);
  store<u16>(leaf, present + 1, LEAF_COUNT);
}

// Block i leaves the run that has it now; what is left of that run stays in front and behind, and the new entry joins the
// run before (when i was the first of its run) and after (when it was the last) if it continues them.
//
//   before   │ run r-1 │ run r: start … i … end │ run r+1 │         r = -1: nothing before the first run; absent, not stored
//   after    │ run r-1 │ head │ i │ tail         │ run r+1 │
function extentsSet(slot: u32, i: u32, volume: u32, block: u32, birth: u32): void {
  let leaf = load<u32>(slot) & ~SHAPE_MASK;
  const runs = <u32>load<u16>(leaf, LEAF_COUNT);
  const run = runSearch(leaf, i);
  const body = leaf + LEAF_HEADER;
  let start: u32 = 0;
  let oldVolume: u32 = VOLUME_ABSENT;
  let oldBlock: u32 = 0; // of the run's first block
  let oldBirth: u32 = 0;
  if (run >= 0) {
    const at = body + <u32>run * RUN_BYTES;
    start = load<u16>(at);
    oldVolume = load<u16>(at, RUN_VOLUME);
    oldBlock = load<u32>(at, RUN_BLOCK);
    oldBirth = load<u32>(at, RUN_BIRTH);
  }
  const step: u32 = oldVolume < VOLUME_ABSENT ? 1 : 0;
  if (volume == oldVolume && birth == oldBirth && block == oldBlock + (i - start) * step) return;
  const next = <u32>(run + 1);
  const end = next < runs ? <u32>load<u16>(body + next * RUN_BYTES) : leafBlocks;
  const head = run >= 0 && i > start;
  const tail = i + 1 < end;
  let joinBefore = false;
  if (run < 0 || (i == start && run == 0)) {
    joinBefore = volume == VOLUME_ABSENT; // the implicit absence before the first run
  } else if (i == start) {
    const at = body + <u32>(run - 1) * RUN_BYTES;
    const before = <u32>load<u16>(at, RUN_VOLUME);
    const last = load<u32>(at, RUN_BLOCK) + (before < VOLUME_ABSENT ? i - 1 - <u32>load<u16>(at) : 0);
    joinBefore = continues(before, last, load<u32>(at, RUN_BIRTH), volume, block, birth);
  }
  let joinAfter = false;
  if (!tail && next < runs) {
    const at = body + next * RUN_BYTES;
    joinAfter = continues(volume, block, birth, load<u16>(at, RUN_VOLUME), load<u32>(at, RUN_BLOCK), load<u32>(at, RUN_BIRTH));
  }
  const first: u32 = run < 0 ? 0 : <u32>run; // the runs first … replacedEnd - 1 are replaced
  const replacedEnd = next + u32(joinAfter);
  const made = u32(head) + u32(!joinBefore) + u32(tail);
  const total = runs - (replacedEnd - first) + made;
  if (total > <u32>load<u16>(leaf, LEAF_CAPACITY)) {
    if (extentsTooLarge(leaf, total)) {
      leafReshape(slot, true);
      entrySet(slot, i, volume, block, birth);
      return;
    }
    leaf = resize(leaf, LEAF_HEADER + (total < 8 ? total : total + (total >> 3)) * RUN_BYTES);
    store<u16>(leaf, (usableSize(leaf) - LEAF_HEADER) / RUN_BYTES, LEAF_CAPACITY);
    store<u32>(slot, leaf | SHAPE_EXTENTS);
  }
  let at = leaf + LEAF_HEADER + first * RUN_BYTES;
  memory.copy(at + made * RUN_BYTES, leaf + LEAF_HEADER + replacedEnd * RUN_BYTES, (runs - replacedEnd) * RUN_BYTES);
  store<u16>(leaf, total, LEAF_COUNT);
  if (head) {
    runStore(at, start, oldVolume, oldBlock, oldBirth);
    at += RUN_BYTES;
  }
  if (!joinBefore) {
    runStore(at, i, volume, block, birth);
    at += RUN_BYTES;
  }
  if (tail) runStore(at, i + 1, oldVolume, oldBlock + (i + 1 - start) * step, oldBirth);
  if (<u32>load<u16>(leaf, LEAF_CAPACITY) > total + 4 + (total >> 2)) extentsFit(slot);
}

// Gives back the room for runs that is not used.
function extentsFit(slot: u32): void {
  const leaf = resize(load<u32>(slot) & ~SHAPE_MASK, LEAF_HEADER + <u32>load<u16>(load<u32>(slot) & ~SHAPE_MASK, LEAF_COUNT) * RUN_BYTES);
  store<u16>(leaf, (usableSize(leaf) - LEAF_HEADER) / RUN_BYTES, LEAF_CAPACITY);
}

// Blocks that are not absent in a leaf of extents.
function extentsPresent(leaf: u32): u32 {
  const runs = <u32>load<u16>(leaf, LEAF_COUNT);
  let present: u32 = 0;
  let end = leafBlocks;
  for (let at = leaf + LEAF_HEADER + runs * RUN_BYTES; at > leaf + LEAF_HEADER; ) {
    at -= RUN_BYTES;
    const start = <u32>load<u16>(at);
    if (load<u16>(at, RUN_VOLUME) != VOLUME_ABSENT) present += end - start;
    end = start;
  }
  return present;
}

function extentsTooLarge(leaf: u32, runs: u32): bool {
  if (runs * RUN_BYTES <= packedOverhead + EXTENTS_HYSTERESIS) return false;
  const packed = packedOverhead + extentsPresent(leaf) * ENTRY_BYTES;
  const dense = leafBlocks * ENTRY_BYTES;
  return runs * RUN_BYTES > (packed < dense ? packed : dense) + EXTENTS_HYSTERESIS;
}

// --- whole leaves -----------------------------------------------------------------------------------------------------

/** One entry for each block of the leaf. `word` 0: all absent. */
export function leafExpand(word: u32, into: u32): void {
  const leaf = word & ~SHAPE_MASK;
  const shape = word & SHAPE_MASK;
  if (shape == SHAPE_DENSE) {
    memory.copy(into, leaf + LEAF_HEADER, leafBlocks * ENTRY_BYTES);
    return;
  }
  if (shape == SHAPE_PACKED) {
    let from = leaf + packedEntries;
    let to = into;
    for (let i: u32 = 0; i < leafBlocks; i++) {
      if (packedBit(leaf, i)) {
        store<u64>(to, load<u64>(from));
        store<u16>(to, load<u16>(from, ENTRY_VOLUME), ENTRY_VOLUME);
        from += ENTRY_BYTES;
      } else {
        entryStore(to, VOLUME_ABSENT, 0, 0);
      }
      to += ENTRY_BYTES;
    }
    return;
  }
  let i: u32 = 0;
  let to = into;
  let run = leaf + LEAF_HEADER;
  const runsEnd = word ? run + <u32>load<u16>(leaf, LEAF_COUNT) * RUN_BYTES : run;
  let volume = VOLUME_ABSENT;
  let block: u32 = 0;
  let birth: u32 = 0;
  while (i < leafBlocks) {
    const end = run < runsEnd ? <u32>load<u16>(run) : leafBlocks;
    const step: u32 = volume < VOLUME_ABSENT ? 1 : 0;
    while (i < end) {
      entryStore(to, volume, block, birth);
      block += step;
      to += ENTRY_BYTES;
      i++;
    }
    if (run == runsEnd) break;
    volume = load<u16>(run, RUN_VOLUME);
    block = load<u32>(run, RUN_BLOCK);
    birth = load<u32>(run, RUN_BIRTH);
    run += RUN_BYTES;
  }
}

// What measure() counted.
export let measuredPresent: u32 = 0;
export let measuredRuns: u32 = 0;

/** Counts the present blocks and the runs (as extents store them) of a scratch array. */
export function measure(entries: u32): void {
  let present: u32 = 0;
  let runs: u32 = 0;
  let volume = VOLUME_ABSENT;
  let block: u32 = 0;
  let birth: u32 = 0;
  const end = entries + leafBlocks * ENTRY_BYTES;
  for (let at = entries; at < end; at += ENTRY_BYTES) {
    const nextVolume = <u32>load<u16>(at, ENTRY_VOLUME);
    const nextBlock = load<u32>(at);
    const nextBirth = load<u32>(at, ENTRY_BIRTH);
    runs += u32(!continues(volume, block, birth, nextVolume, nextBlock, nextBirth));
    present += u32(nextVolume != VOLUME_ABSENT);
    volume = nextVolume;
    block = nextBlock;
    birth = nextBirth;
  }
  measuredPresent = present;
  measuredRuns = runs;
}

/** How many blocks of a scratch array are mapped: neither absent nor holes. */
export function mappedIn(entries: u32): u32 {
  let mapped: u32 = 0;
  for (let i: u32 = 0; i < leafBlocks; i++) mapped += u32(load<u16>(entries + i * ENTRY_BYTES, ENTRY_VOLUME) < VOLUME_ABSENT);
  return mapped;
}

/** Writes the runs of a scratch array; measure() said how many. */
export function writeRuns(entries: u32, into: u32): void {
  let to = into;
  let volume = VOLUME_ABSENT;
  let block: u32 = 0;
  let birth: u32 = 0;
  let at = entries;
  for (let i: u32 = 0; i < leafBlocks; i++) {
    const nextVolume = <u32>load<u16>(at, ENTRY_VOLUME);
    const nextBlock = load<u32>(at);
    const nextBirth = load<u32>(at, ENTRY_BIRTH);
    if (!continues(volume, block, birth, nextVolume, nextBlock, nextBirth)) {
      runStore(to, i, nextVolume, nextBlock, nextBirth);
      to += RUN_BYTES;
    }
    volume = nextVolume;
    block = nextBlock;
    birth = nextBirth;
    at += ENTRY_BYTES;
  }
}

function countConversion(from: u32, to: u32): void {
  if (from == to) return;
  count(COUNT_ENTER_EXTENTS + to - 1);
  if (from == SHAPE_EXTENTS) count(to == SHAPE_PACKED ? COUNT_EXTENTS_TO_PACKED : COUNT_EXTENTS_TO_DENSE);
  else if (from == SHAPE_PACKED) count(to == SHAPE_EXTENTS ? COUNT_PACKED_TO_EXTENTS : COUNT_PACKED_TO_DENSE);
  else count(to == SHAPE_EXTENTS ? COUNT_DENSE_TO_EXTENTS : COUNT_DENSE_TO_PACKED);
}

/** Builds the leaf in this slot anew from a scratch array, in the best shape (`split`: but not as extents). Its header stays. */
export function leafRebuild(slot: u32, entries: u32, split: bool = false): void {
  measure(entries);
  leafBuild(slot, entries, measuredPresent, split ? leafBlocks : measuredRuns);
}

/** The same when the blocks present and the runs are known (`runs` = leafBlocks: not as extents). */
export function leafBuild(slot: u32, entries: u32, present: u32, runs: u32): void {
  const word = load<u32>(slot);
  let leaf = word & ~SHAPE_MASK;
  let shape: u32 = present * 16 >= leafBlocks * 15 ? SHAPE_DENSE : SHAPE_PACKED;
  const other = shape == SHAPE_DENSE ? leafBlocks * ENTRY_BYTES : packedOverhead + present * ENTRY_BYTES;
  let bytes = other;
  if (runs * RUN_BYTES <= other) {
    shape = SHAPE_EXTENTS;
    bytes = runs * RUN_BYTES;
  }
  leaf = resize(leaf, LEAF_HEADER + bytes);
  const body = leaf + LEAF_HEADER;
  let amount = present;
  let capacity = present;
  if (shape == SHAPE_EXTENTS) {
    amount = runs;
    capacity = (usableSize(leaf) - LEAF_HEADER) / RUN_BYTES;
    writeRuns(entries, body);
  } else if (shape == SHAPE_DENSE) {
    capacity = leafBlocks;
    memory.copy(body, entries, leafBlocks * ENTRY_BYTES);
  } else {
    clear(body, packedOverhead);
    let to = leaf + packedEntries;
    let at = entries;
    for (let i: u32 = 0; i < leafBlocks; i++) {
      if (load<u16>(at, ENTRY_VOLUME) != VOLUME_ABSENT) {
        const group = body + (i >> 6) * GROUP_BYTES;
        store<u64>(group, load<u64>(group) | (<u64>1 << (i & 63)));
        store<u64>(to, load<u64>(at));
        store<u16>(to, load<u16>(at, ENTRY_VOLUME), ENTRY_VOLUME);
        to += ENTRY_BYTES;
      }
      at += ENTRY_BYTES;
    }
    let rank: u32 = 0;
    for (let group = body; group < leaf + packedEntries; group += GROUP_BYTES) {
      store<u16>(group, rank, GROUP_RANK);
      rank += <u32>popcnt<u64>(load<u64>(group));
    }
  }
  store<u16>(leaf, amount, LEAF_COUNT);
  store<u16>(leaf, capacity, LEAF_CAPACITY);
  store<u32>(slot, leaf | shape);
  countConversion(word & SHAPE_MASK, shape);
}

function leafReshape(slot: u32, split: bool = false): void {
  leafExpand(load<u32>(slot), scratchEntries);
  leafRebuild(slot, scratchEntries, split);
}

/** After a put to block i: a leaf that has become sequential goes back to extents. Looks only where the head comment says. */
export function leafTighten(slot: u32, i: u32): void {
  if ((i & 63) != 63 && i != leafMask) return;
  const word = load<u32>(slot);
  const shape = word & SHAPE_MASK;
  if (shape == SHAPE_EXTENTS) {
    if (i == leafMask) extentsFit(slot);
    return;
  }
  entryGet(word, i - 1);
  const volume = entryVolume;
  const block = entryBlock;
  const birth = entryBirth;
  entryGet(word, i);
  if (!continues(volume, block, birth, entryVolume, entryBlock, entryBirth)) return;
  leafExpand(word, scratchEntries);
  measure(scratchEntries);
  const bytes = shape == SHAPE_DENSE ? leafBlocks * ENTRY_BYTES : packedOverhead + measuredPresent * ENTRY_BYTES;
  if (measuredRuns * RUN_BYTES + TIGHTEN_GAIN <= bytes) leafRebuild(slot, scratchEntries);
}

// --- existence --------------------------------------------------------------------------------------------------------

/** Gives an empty slot (slotMake, just called) an empty leaf; returns its word. */
export function leafMake(space: u32, slot: u32): u32 {
  const leaf = allocateZeroed(LEAF_HEADER + RUN_BYTES);
  store<u16>(leaf, 1, LEAF_CAPACITY);
  slotFill(space, slot, leaf | SHAPE_EXTENTS);
  return leaf | SHAPE_EXTENTS;
}

/** Frees a leaf, its history and its place in the directory; its image is released. Counts are the caller's. */
export function leafRemove(space: u32, leafIndex: u32): void {
  const leaf = load<u32>(slotFind(space, leafIndex)) & ~SHAPE_MASK;
  free(load<u32>(leaf, LEAF_HISTORY));
  leafFree(leaf);
  slotClear(space, leafIndex);
}

/** A change at this epoch: what a diff and a checkpoint look at. */
export function leafTouch(leaf: u32, chunk: u32, epoch: u32): void {
  if (load<u32>(leaf, LEAF_NEWEST_CHANGE) < epoch) store<u32>(leaf, epoch, LEAF_NEWEST_CHANGE);
  leafDirty(leaf, chunk);
}

export function leafDirty(leaf: u32, chunk: u32): void {
  const flags = load<u32>(leaf, LEAF_FLAGS);
  if (flags & LEAF_DIRTY && !recovering) return;
  store<u32>(leaf, flags | (recovering ? LEAF_DIRTY | LEAF_TOUCHED : LEAF_DIRTY), LEAF_FLAGS);
  store<u32>(chunk, 1, CHUNK_DIRTY);
}

function wordOf(spaceId: u32, leafIndex: u32): u32 {
  const space = spacePointer(spaceId);
  if (!space || leafIndex == LEAF_NONE) return 0;
  const slot = slotFind(space, leafIndex);
  return slot ? load<u32>(slot) : 0;
}

/** Pointer to the leaf's header, 0 when there is none. */
export function leafFind(spaceId: u32, leafIndex: u32): u32 {
  return wordOf(spaceId, leafIndex) & ~SHAPE_MASK;
}

/** 1 extents, 2 packed, 3 dense; 0 when there is no such leaf. */
export function leafFindShape(spaceId: u32, leafIndex: u32): u32 {
  return wordOf(spaceId, leafIndex) & SHAPE_MASK;
}

/** Has the next checkpoint write this leaf; false when there is none. */
export function leafMarkDirty(spaceId: u32, leafIndex: u32): bool {
  const word = wordOf(spaceId, leafIndex);
  if (!word) return false;
  const leaf = word & ~SHAPE_MASK;
  store<u32>(leaf, load<u32>(leaf, LEAF_FLAGS) | LEAF_DIRTY, LEAF_FLAGS);
  store<u32>(slotChunk, 1, CHUNK_DIRTY);
  return true;
}

/** Whether nothing is in the leaf, current or history: its checkpoint image would be an empty one. */
export function leafIsEmpty(leaf: u32): bool {
  return !load<u16>(leaf, LEAF_COUNT) && !load<u32>(leaf, LEAF_HISTORY);
}

/** Frees a leaf that has become empty, dirty or not; an image that it still had is released. True when it did. */
export function leafDropIfEmpty(spaceId: u32, leafIndex: u32): bool {
  const leaf = leafFind(spaceId, leafIndex);
  if (!leaf || !leafIsEmpty(leaf)) return false;
  leafRemove(spacePointer(spaceId), leafIndex);
  return true;
}

/** Bytes of memory that any change to one leaf may need, its history not counted. */
export function leafRoomPlain(): u32 {
  return SLOT_ROOM + LEAF_HEADER + leafBlocks * RUN_BYTES + RUN_BYTES * 64 + 128;
}

/** Bytes of memory that any change to one leaf may need, directory and history included: ask for available() >= this. */
export function leafRoom(): u32 {
  return leafRoomPlain() + historyRoom(leafBlocks);
}
