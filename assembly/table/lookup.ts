// Lookups: one block, a range, a batch.
//
// At epoch e an entry is visible when birth <= e < death. The current entry has no death, so it is what is visible unless
// it was born later; then the history is asked. What is absent in a space is looked up in its parent at the parent's epoch.
//
// The batch goes in phases over 512 blocks at a time (directory words, then groups of packed leaves, then entries): in one phase no load
// depends on another, so cache misses overlap and the CPU keeps ten or so in flight, where one lookup after the other
// waits for each. The branches on what was loaded are kept out of the phases (an absent block reads the empty entry), and
// each phase is preceded by one that only touches: so few instructions that far more misses fit into the CPU's window.
// 16,000,000 mappings a quarter full: 76 ns a lookup without the touching, 25 with it, 15 for a plain array of f64 as large
// as the address space, 144 for a Map (2026-11).
import { DEPTH_MAX, ENTRY_BIRTH, ENTRY_BYTES, ENTRY_VOLUME, EPOCH_NOW, KIND_ABSENT, KIND_HOLE, KIND_MAPPED, LEAF_HEADER, SHAPE_DENSE, SHAPE_EXTENTS,
  SHAPE_MASK, SPACE_NONE, VOLUME_ABSENT, VOLUME_HOLE, leafBlocks, leafMask, leafShift, packedEntries } from './layout';
import { LEAF_NONE, slotFind, slotMarked } from './directory';
import { HISTORY_BIRTH, HISTORY_BLOCK, HISTORY_VOLUME, historyAt, historyFrom } from './history';
import { entryBirth, entryBlock, entryGet, entryNone, entryVolume, packedBit, packedRank, scratchPlaces, scratchTouches } from './leaf';
import { SPACE_PARENT, SPACE_PARENT_EPOCH, spacePointer } from './space';
import { clear } from '../std/bytes';

// What the last lookup found; foundSpace is set by tableResolve() only.
export let foundVolume: u32 = 0;
export let foundBlock: u32 = 0;
export let foundBirth: u32 = 0;
export let foundSpace: u32 = SPACE_NONE;

/** Word of the leaf that has this block, 0 when there is none. `space` is a pointer. */
export function wordAt(space: u32, vblock: u64): u32 {
  const index = vblock >> leafShift;
  if (index >= LEAF_NONE) return 0;
  const slot = slotFind(space, <u32>index);
  return slot ? load<u32>(slot) : 0;
}

/** Block i of a leaf at an epoch. */
export function leafLookup(word: u32, i: u32, epoch: u32): u32 {
  entryGet(word, i);
  if (entryVolume != VOLUME_ABSENT && entryBirth <= epoch) {
    foundVolume = entryVolume;
    foundBlock = entryBlock;
    foundBirth = entryBirth;
  } else {
    const at = historyAt(word & ~SHAPE_MASK, i, epoch);
    if (!at) return KIND_ABSENT;
    foundVolume = load<u16>(at, HISTORY_VOLUME);
    foundBlock = load<u32>(at, HISTORY_BLOCK);
    foundBirth = load<u32>(at, HISTORY_BIRTH);
  }
  return foundVolume == VOLUME_HOLE ? KIND_HOLE : KIND_MAPPED;
}

/** In this space alone; epoch EPOCH_NOW: the current state. */
export function tableFind(spaceId: u32, vblock: u64, epoch: u32): u32 {
  const space = spacePointer(spaceId);
  if (!space) return KIND_ABSENT;
  const word = wordAt(space, vblock);
  return word ? leafLookup(word, <u32>vblock & leafMask, epoch) : KIND_ABSENT;
}

/** Through the parents; ABSENT when nothing of the chain has the block. */
export function tableResolve(spaceId: u32, vblock: u64, epoch: u32): u32 {
  let id = spaceId;
  let at = epoch;
  for (let depth: u32 = 0; depth <= DEPTH_MAX && id != SPACE_NONE; depth++) {
    const space = spacePointer(id);
    if (!space) break;
    const kind = tableFind(id, vblock, at);
    if (kind != KIND_ABSENT) {
      foundSpace = id;
      return kind;
    }
    at = load<u32>(space, SPACE_PARENT_EPOCH);
    id = load<u32>(space, SPACE_PARENT);
  }
  return KIND_ABSENT;
}

/** `count` records of 16 bytes { kind u32, volume u32, block u32, birth u32 }, resolved through the parents; all zero when absent. */
export function tableResolveRange(spaceId: u32, epoch: u32, vblock: u64, count: u32, out: u32): void {
  clear(out, count * 16);
  let id = spaceId;
  let epochHere = epoch;
  let missing = count;
  for (let depth: u32 = 0; depth <= DEPTH_MAX && id != SPACE_NONE && missing; depth++) {
    const space = spacePointer(id);
    if (!space) return;
    let done: u32 = 0;
    while (done < count) {
      const first = <u32>(vblock + done) & leafMask;
      const room = leafBlocks - first;
      const n = count - done < room ? count - done : room;
      const word = wordAt(space, vblock + done);
      if (word) {
        let record = out + done * 16;
        for (let i = first; i < first + n; i++) {
          if (!load<u32>(record)) {
            const kind = leafLookup(word, i, epochHere);
            if (kind != KIND_ABSENT) {
              missing--;
              store<u32>(record, kind);
              store<u32>(record, foundVolume, 4);
              store<u32>(record, foundBlock, 8);
              store<u32>(record, foundBirth, 12);
            }
          }
          record += 16;
        }
      }
      done += n;
    }
    epochHere = load<u32>(space, SPACE_PARENT_EPOCH);
    id = load<u32>(space, SPACE_PARENT);
  }
}

const BATCH: u32 = 512;
let touched: u32 = 0; // what those loads summed up to: keeps them from being optimised away

// Loads 10 bytes' first and last byte at each address from `scratchTouches` to `end`: a group of a packed leaf or an entry, of which
// one in seven lies across two cache lines. Four at a time: the fewer instructions a load, the more loads are under way.
function touch(end: u32): void {
  let last = end;
  for (; last & 15; last += 4) store<u32>(last, scratchTouches);
  let sum: u32 = 0;
  for (let at = scratchTouches; at < last; at += 16) {
    const a = load<u32>(at);
    const b = load<u32>(at, 4);
    const c = load<u32>(at, 8);
    const d = load<u32>(at, 12);
    sum += <u32>load<u8>(a) + <u32>load<u8>(b) + <u32>load<u8>(c) + <u32>load<u8>(d);
    sum += <u32>load<u8>(a, 9) + <u32>load<u8>(b, 9) + <u32>load<u8>(c, 9) + <u32>load<u8>(d, 9);
  }
  touched = sum;
}

// The first place to look at for block i: its entry when dense, its group when packed (as large as an entry), else the header:
// 10 bytes from there on are the leaf's own, whatever its size, so a touch never leaves the memory.
function firstLook(word: u32, i: u32): u32 {
  const shape = word & SHAPE_MASK;
  const leaf = word & ~SHAPE_MASK;
  return shape <= SHAPE_EXTENTS ? leaf : leaf + LEAF_HEADER + (shape == SHAPE_DENSE ? i : i >> 6) * ENTRY_BYTES;
}

function batch(space: u32, vblocks: u32, count: u32, out: u32): void {
  const end = scratchPlaces + count * 8;
  let from = vblocks;
  let next = scratchTouches;
  for (let place = scratchPlaces; place < end; place += 8) {
    const vblock = <u64>load<f64>(from);
    const word = wordAt(space, vblock);
    const i = <u32>vblock & leafMask;
    store<u32>(place, word);
    store<u32>(place, i, 4);
    store<u32>(next, firstLook(word, i));
    next += 4;
    from += 8;
  }
  touch(next);
  let record = out;
  next = scratchTouches;
  for (let place = scratchPlaces; place < end; place += 8) {
    const word = load<u32>(place);
    const shape = word & SHAPE_MASK;
    const leaf = word & ~SHAPE_MASK;
    const i = load<u32>(place, 4);
    let at: u32;
    if (shape == SHAPE_DENSE) {
      at = leaf + LEAF_HEADER + i * ENTRY_BYTES;
    } else if (shape > SHAPE_EXTENTS) {
      at = select<u32>(leaf + packedEntries + packedRank(leaf, i) * ENTRY_BYTES, entryNone, packedBit(leaf, i));
    } else {
      at = entryNone;
      if (word) {
        entryGet(word, i);
        // Kept in the record itself, which the last phase leaves alone when the address is 0.
        recordStore(record, entryVolume, entryBlock, entryBirth);
        at = 0;
      }
    }
    store<u32>(place, at);
    store<u32>(next, at);
    next += 4;
    record += 16;
  }
  touch(next);
  record = out;
  for (let place = scratchPlaces; place < end; place += 8) {
    const at = load<u32>(place);
    if (at) recordStore(record, load<u16>(at, ENTRY_VOLUME), load<u32>(at), load<u32>(at, ENTRY_BIRTH));
    record += 16;
  }
}

function recordStore(record: u32, volume: u32, block: u32, birth: u32): void {
  // absent 0xFFFE → 0, hole 0xFFFF → 1, else 2
  store<u32>(record, volume < VOLUME_ABSENT ? KIND_MAPPED : volume & 1);
  store<u32>(record, volume, 4);
  store<u32>(record, block, 8);
  store<u32>(record, birth, 12);
}

/**
 * `count` blocks (f64 each, at `vblocks`) at once into records as of tableResolveRange (an absent block's volume is
 * VOLUME_ABSENT). Blocks that are not current at `epoch`, and absent ones of a space with a parent, are then resolved one by one.
 */
export function lookupBatch(spaceId: u32, epoch: u32, vblocks: u32, count: u32, out: u32): void {
  const space = spacePointer(spaceId);
  assert(space);
  const chained = load<u32>(space, SPACE_PARENT) != SPACE_NONE;
  for (let done: u32 = 0; done < count; done += BATCH) {
    const n = count - done < BATCH ? count - done : BATCH;
    const records = out + done * 16;
    batch(space, vblocks + done * 8, n, records);
    if (!chained && epoch == EPOCH_NOW) continue;
    for (let k: u32 = 0; k < n; k++) {
      const record = records + k * 16;
      if (load<u32>(record) != KIND_ABSENT && load<u32>(record, 12) <= epoch) continue;
      const kind = tableResolve(spaceId, <u64>load<f64>(vblocks + (done + k) * 8), epoch);
      if (kind == KIND_ABSENT) recordStore(record, VOLUME_ABSENT, 0, 0);
      else recordStore(record, foundVolume, foundBlock, foundBirth);
    }
  }
}

/** Whether this storage block is what (space, vblock, birth) refers to, current or history. */
export function tableOwns(spaceId: u32, vblock: u64, birth: u32, volume: u32, block: u32): bool {
  const space = spacePointer(spaceId);
  if (!space) return false;
  const word = wordAt(space, vblock);
  if (!word) return false;
  const i = <u32>vblock & leafMask;
  entryGet(word, i);
  if (entryVolume == volume && entryBirth == birth) return entryBlock == block;
  const at = historyFrom(word & ~SHAPE_MASK, i, birth);
  return at != 0 && load<u32>(at, HISTORY_BIRTH) == birth && <u32>load<u16>(at, HISTORY_VOLUME) == volume && load<u32>(at, HISTORY_BLOCK) == block;
}

let expected: u32 = 0;

/**
 * Says that this block is about to be put or looked up. After it was said for the entries of a record (of 256 at most, more
 * are not minded), tableWarm() brings what they will touch into the cache, all misses at once: random puts over 26,000,000
 * mappings take half the time. Changes nothing.
 */
export function tableExpect(spaceId: u32, vblock: u64): void {
  const space = spacePointer(spaceId);
  const index = vblock >> leafShift;
  if (!space || expected > BATCH - 2 || index >= LEAF_NONE) return;
  const slot = slotFind(space, <u32>index);
  const word = slot ? load<u32>(slot) : 0;
  if (!word) return;
  // Nothing will look at the header of a marked dense leaf (update.ts).
  if ((word & SHAPE_MASK) != SHAPE_DENSE || !slotMarked(slot)) store<u32>(scratchTouches + expected++ * 4, word & ~SHAPE_MASK);
  store<u32>(scratchTouches + expected++ * 4, firstLook(word, <u32>vblock & leafMask));
}

export function tableWarm(): void {
  touch(scratchTouches + expected * 4);
  expected = 0;
}
