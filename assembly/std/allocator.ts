// The arena: every byte that the core owns beyond its globals comes from here.
//
// Two-level segregated fit (Masmano 2004): free blocks hang in doubly linked lists by size class, two levels of bitmaps
// find the first list that surely fits, so allocate and free take constant time. Sizes under 256 have a class for each
// 8 bytes; above, every power of two is cut into 32 classes, so a search looks past at most 1/32 of its size.
//
//   block in use    ▼ pointer - 4     ▼ pointer (8-aligned)
//                   │ size | flags    │ payload: size - 4 bytes                           │
//   block free      │ size | flags    │ next │ previous │            …            │ size │
//                                                                       boundary tag ────┘ lets the block after find it
//
// - size counts the header, is a multiple of 8 and at least 16; bit 0 = this block is free, bit 1 = the block before is.
// - Two free blocks never touch, and the block below `top` is never free: freed there, it sinks into the untouched end.
//   So the arena's extent falls again when its last blocks go.
// - Blocks may slide together: their owners mark those that they can follow, and bit 2 says so while it lasts.
// - The memory never grows in here. What does not fit traps: callers asked available() first. A memory that the host
//   grew is noticed because its size is read anew each time.
// - Shrinking with resize() never moves a block and never needs room.

import { strict } from './plant';

const CLASS_BITS: u32 = 5;
const CLASSES: u32 = 1 << CLASS_BITS;
const LINEAR_LIMIT: u32 = 256; // below: one class for each 8 bytes (256 / 8 = 32 classes)
const LEVELS: u32 = 25; // 0: linear; 1…24: sizes from 2^8 to 2^32 - 1
const BLOCK_MIN: u32 = 16;
const FREE: u32 = 1;
const PREVIOUS_FREE: u32 = 2;
const MARKED: u32 = 4; // while blocks slide
const SIZE_MASK: u32 = ~7;

let levelBitmap: u32 = 0;
let classBitmaps: u32 = 0; // u32 for each level
let heads: u32 = 0; // u32 for each class of each level: header address of the first free block
let base: u32 = 0; // header address of the first block
let top: u32 = 0; // header address where the untouched end begins
let usedBytes: u64 = 0;

/** Manages memory from __heap_base up. */
export function allocatorInitialize(): void {
  classBitmaps = (<u32>__heap_base + 15) & ~15;
  heads = classBitmaps + LEVELS * 4;
  const end = heads + LEVELS * CLASSES * 4;
  memory.fill(classBitmaps, 0, end - classBitmaps);
  base = ((end + 7) & ~7) + 4;
  top = base;
  levelBitmap = 0;
  usedBytes = 0;
}

// One byte short of 4 GiB's last block, so that addresses never wrap.
function limit(): u32 {
  const pages = <u32>memory.size();
  return pages >= 65536 ? 0xfffffff0 : pages << 16;
}

// The tests' builds trap where a step takes more than it asked for, whatever the memory has; `strict`, also where it fits
// into what others left.
let grantedEnd: u32 = 0xffffffff;
const STRICT_EXTENT: u32 = 0x10000000; // then holes are used again

/** A step begins. What its ticket was granted by the last one may still hold. */
export function grantNone(): void { if (PLANTS) grantedEnd = top + 16; }
/** So many bytes beyond what is in use were asked for, and are there. */
export function grant(bytes: u32): void { if (PLANTS) grantedEnd = max(grantedEnd, top + 16 + bytes); }
/** No step is under way. */
export function grantAll(): void { if (PLANTS) grantedEnd = 0xffffffff; }

let mappedLevel: u32 = 0;
let mappedClass: u32 = 0;

function mapSize(size: u32): void {
  if (size < LINEAR_LIMIT) {
    mappedLevel = 0;
    mappedClass = size >> 3;
  } else {
    const log = 31 - clz(size);
    mappedLevel = log - 7;
    mappedClass = (size >> (log - CLASS_BITS)) & (CLASSES - 1);
  }
}

function link(block: u32, size: u32): void {
  mapSize(size);
  const head = heads + ((mappedLevel << CLASS_BITS) + mappedClass) * 4;
  const next = load<u32>(head);
  store<u32>(block, size | FREE);
  store<u32>(block, next, 4);
  store<u32>(block, 0, 8);
  store<u32>(block + size - 4, size);
  if (next) store<u32>(next, block, 8);
  store<u32>(head, block);
  levelBitmap |= 1 << mappedLevel;
  const bits = classBitmaps + mappedLevel * 4;
  store<u32>(bits, load<u32>(bits) | (1 << mappedClass));
  const after = block + size;
  store<u32>(after, load<u32>(after) | PREVIOUS_FREE);
}

function unlink(block: u32): void {
  const size = load<u32>(block) & SIZE_MASK;
  const next = load<u32>(block, 4);
  const previous = load<u32>(block, 8);
  if (next) store<u32>(next, previous, 8);
  if (previous) {
    store<u32>(previous, next, 4);
  } else {
    mapSize(size);
    store<u32>(heads + ((mappedLevel << CLASS_BITS) + mappedClass) * 4, next);
    if (!next) {
      const bits = classBitmaps + mappedLevel * 4;
      const left = load<u32>(bits) & ~(1 << mappedClass);
      store<u32>(bits, left);
      if (!left) levelBitmap &= ~(1 << mappedLevel);
    }
  }
}

// A free block of at least `size` bytes, or 0. First the head of size's own class, which may do and keeps reuse tight;
// then the first class in which every block does.
function search(size: u32): u32 {
  mapSize(size);
  let level = mappedLevel;
  const own = load<u32>(heads + ((level << CLASS_BITS) + mappedClass) * 4);
  if (own && (load<u32>(own) & SIZE_MASK) >= size) return own;
  const bits = mappedClass == CLASSES - 1 ? 0 : load<u32>(classBitmaps + level * 4) & (~0 << (mappedClass + 1));
  let found = bits;
  if (!found) {
    const levels = levelBitmap & (~0 << (level + 1));
    if (!levels) return 0;
    level = ctz(levels);
    found = load<u32>(classBitmaps + level * 4);
  }
  return load<u32>(heads + ((level << CLASS_BITS) + ctz(found)) * 4);
}

function grossSize(bytes: u32): u32 {
  const size = (bytes + 11) & SIZE_MASK;
  return size < BLOCK_MIN ? BLOCK_MIN : size;
}

/** 8-aligned, not cleared. Traps when it does not fit. */
export function allocate(bytes: u32): u32 {
  assert(bytes < 0xffff0000);
  const size = grossSize(bytes);
  usedBytes += size;
  let block: u32 = PLANTS && strict && grantedEnd != 0xffffffff && top < STRICT_EXTENT ? 0 : search(size);
  if (!block) {
    assert(<u64>top + size + 4 <= <u64>limit());
    if (PLANTS) assert(top + size <= grantedEnd, 'more memory than was asked for');
    block = top;
    top += size;
    store<u32>(block, size);
    store<u32>(top, 0);
    return block + 4;
  }
  unlink(block);
  const whole = load<u32>(block) & SIZE_MASK;
  const rest = whole - size;
  if (rest >= BLOCK_MIN) {
    store<u32>(block, size);
    link(block + size, rest);
  } else {
    usedBytes += rest;
    store<u32>(block, whole);
    const after = block + whole;
    store<u32>(after, load<u32>(after) & ~PREVIOUS_FREE);
  }
  return block + 4;
}

/** 8-aligned, all zero. */
export function allocateZeroed(bytes: u32): u32 {
  const pointer = allocate(bytes);
  memory.fill(pointer, 0, bytes);
  return pointer;
}

/** Nothing happens to 0. */
export function free(pointer: u32): void {
  if (!pointer) return;
  let block = pointer - 4;
  const header = load<u32>(block);
  if (PLANTS) assert(!(header & FREE) && block >= base && block < top);
  let size = header & SIZE_MASK;
  usedBytes -= size;
  if (header & PREVIOUS_FREE) {
    const before = load<u32>(block - 4);
    block -= before;
    unlink(block);
    size += before;
  }
  const after = block + size;
  if (after == top) {
    top = block;
    store<u32>(top, 0);
    return;
  }
  if (load<u32>(after) & FREE) {
    unlink(after);
    size += load<u32>(after) & SIZE_MASK;
  }
  link(block, size);
}

/** Frees what the word at `cell` points to, and zeroes it. */
export function freeAt(cell: usize): void {
  free(load<u32>(cell));
  store<u32>(cell, 0);
}

// Gives back what a block of `whole` bytes does not need beyond `size`.
function trimBlock(block: u32, whole: u32, size: u32): void {
  const rest = whole - size;
  if (rest < BLOCK_MIN) return;
  store<u32>(block, size | (load<u32>(block) & PREVIOUS_FREE));
  store<u32>(block + size, rest);
  free(block + size + 4);
}

/** Payload of `bytes` bytes with the old contents (as far as they fit); shrinking stays in place. 0 becomes a new one. */
export function resize(pointer: u32, bytes: u32): u32 {
  if (!pointer) return allocate(bytes);
  const block = pointer - 4;
  const header = load<u32>(block);
  let whole = header & SIZE_MASK;
  const size = grossSize(bytes);
  if (size > whole) {
    const after = block + whole;
    let room = 0;
    if (after == top) {
      if (<u64>block + size + 4 <= <u64>limit()) {
        if (PLANTS) assert(block + size <= grantedEnd, 'more memory than was asked for');
        usedBytes += size - whole;
        top = block + size;
        store<u32>(top, 0);
        store<u32>(block, size | (header & PREVIOUS_FREE));
        return pointer;
      }
    } else if (load<u32>(after) & FREE) {
      room = load<u32>(after) & SIZE_MASK;
    }
    if (whole + room < size) {
      const moved = allocate(bytes);
      memory.copy(moved, pointer, whole - 4);
      free(pointer);
      return moved;
    }
    unlink(after);
    usedBytes += room;
    whole += room;
    store<u32>(block, whole | (header & PREVIOUS_FREE));
    const next = block + whole;
    store<u32>(next, load<u32>(next) & ~PREVIOUS_FREE);
  }
  trimBlock(block, whole, size);
  return pointer;
}

const HOLES_TRIED: u32 = 64;

/**
 * The aligned block out of a hole of its own size class, or 0. A hole that one of them left fits the next one exactly, and not what has to be asked for where
 * the alignment is unknown: without this a log that opens and frees segments took each from the end, and many times what it used.
 */
function allocateInHole(size: u32, alignment: u32): u32 {
  mapSize(size);
  let hole = load<u32>(heads + ((mappedLevel << CLASS_BITS) + mappedClass) * 4);
  for (let tries: u32 = 0; hole && tries < HOLES_TRIED; tries++, hole = load<u32>(hole, 4)) {
    const whole = load<u32>(hole) & SIZE_MASK;
    const pointer = (hole + 4 + alignment - 1) & ~(alignment - 1);
    const front = pointer - 4 - hole;
    if ((front && front < BLOCK_MIN) || front + size > whole) continue;
    unlink(hole);
    usedBytes += whole;
    const after = hole + whole;
    store<u32>(after, load<u32>(after) & ~PREVIOUS_FREE);
    store<u32>(pointer - 4, whole - front);
    if (front) {
      store<u32>(hole, front);
      free(hole + 4);
    }
    trimBlock(pointer - 4, whole - front, size);
    return pointer;
  }
  return 0;
}

/** `alignment`: a power of two. Freed with free() like any other. */
export function allocateAligned(bytes: u32, alignment: u32): u32 {
  if (alignment <= 8) return allocate(bytes);
  const size = grossSize(bytes);
  if (RAID) {
    const found = allocateInHole(size, alignment);
    if (found) return found;
  }
  const raw = allocate(size + alignment + BLOCK_MIN);
  let pointer = (raw + alignment - 1) & ~(alignment - 1);
  if (pointer != raw) {
    if (pointer - raw < BLOCK_MIN) pointer += alignment;
    // Cut the front off as a block of its own and free it.
    const block = raw - 4;
    const header = load<u32>(block);
    const front = pointer - raw;
    store<u32>(pointer - 4, (header & SIZE_MASK) - front);
    store<u32>(block, front | (header & PREVIOUS_FREE));
    free(raw);
  }
  trimBlock(pointer - 4, load<u32>(pointer - 4) & SIZE_MASK, size);
  return pointer;
}

/** Blocks of 4096 bytes in a row, aligned to them. */
export function allocateBlocks(blocks: u32): u32 {
  return allocateAligned(blocks << 12, 4096);
}

export function usableSize(pointer: u32): u32 {
  return (load<u32>(pointer - 4) & SIZE_MASK) - 4;
}

/**
 * What is certain to be allocatable as one piece now, without growing the memory: the untouched end. Several allocations
 * fit when the sum of their sizes, each rounded up to 8 and with 8 more for its header, does.
 */
export function available(): u32 {
  const end = limit();
  const first = top + 16;
  return end > first ? end - first : 0;
}

/** Where available() begins: scratch for one call that allocates nothing. */
export function untouched(): u32 {
  return top + 12;
}

/** Sum of what is allocated, headers and rounding included. */
export function heapUsedBytes(): f64 {
  return <f64>usedBytes;
}

/** What the arena occupies, free blocks between others included. */
export function heapExtentBytes(): f64 {
  return <f64>(top - base);
}

/** For tests: walks every block and checks the rules in the head comment; 0 when they hold, else the number of the rule. */
export function allocatorVerify(): u32 {
  let block = base;
  let previousFree = false;
  let previousSize: u32 = 0;
  let used: u64 = 0;
  while (block < top) {
    const header = load<u32>(block);
    const size = header & SIZE_MASK;
    const isFree = (header & FREE) != 0;
    if (size < BLOCK_MIN || block + size > top) return 1;
    if (((header & PREVIOUS_FREE) != 0) != previousFree) return 2;
    if (previousFree && load<u32>(block - 4) != previousSize) return 3;
    if (isFree && previousFree) return 4;
    if (isFree) {
      mapSize(size);
      let at = load<u32>(heads + ((mappedLevel << CLASS_BITS) + mappedClass) * 4);
      while (at && at != block) at = load<u32>(at, 4);
      if (!at) return 5;
    } else {
      used += size;
    }
    previousFree = isFree;
    previousSize = size;
    block += size;
  }
  if (block != top) return 6;
  if (previousFree) return 7;
  return used == usedBytes ? 0 : 8;
}

// --- sliding: blocks move down against each other, and the holes between them become one -------------------------------
//
//   before   │ used │ hole │ marked │ hole │ marked │ stays │ hole │ marked │ …
//   after    │ used │ marked │ marked │ hole        │ stays │ marked │ hole │ …
//
// slideMark() some, slideBegin() at the lowest of them, slideNext() once for each, slideEnd(). Nothing else in between.

let slideFrom: u32 = 0; // the block to be looked at next
let slideTo: u32 = 0; // where the next block that moves goes: what lies from here to slideFrom is free, and in no list

export function slideMark(pointer: u32): void {
  store<u32>(pointer - 4, load<u32>(pointer - 4) | MARKED);
}

/** The hole before this block, if there is one, is the first that is filled. */
export function slideBegin(pointer: u32): void {
  slideFrom = pointer - 4;
  slideTo = slideFrom;
  if (!(load<u32>(slideFrom) & PREVIOUS_FREE)) return;
  slideTo -= load<u32>(slideFrom - 4);
  unlink(slideTo);
}

/** Moves the next marked block down. Its new pointer. */
export function slideNext(): u32 {
  while (true) {
    assert(slideFrom < top);
    const block = slideFrom;
    const header = load<u32>(block);
    const size = header & SIZE_MASK;
    slideFrom += size;
    if (header & FREE) {
      unlink(block);
    } else if (header & MARKED) {
      const to = slideTo;
      if (to != block) memory.copy(to + 4, block + 4, size - 4);
      store<u32>(to, size);
      slideTo += size;
      return to + 4;
    } else {
      slideGap(block);
      slideTo = slideFrom;
    }
  }
}

/** Answers the address behind the hole that is left. */
export function slideEnd(): u32 {
  if (slideFrom < top && load<u32>(slideFrom) & FREE) {
    unlink(slideFrom);
    slideFrom += load<u32>(slideFrom) & SIZE_MASK;
  }
  slideGap(slideFrom);
  return slideFrom;
}

// What is free before `end`, a block in use or the top, becomes a hole.
function slideGap(end: u32): void {
  if (end == top) {
    top = slideTo;
    store<u32>(top, 0);
  } else if (end != slideTo) {
    link(slideTo, end - slideTo);
  } else {
    store<u32>(end, load<u32>(end) & ~PREVIOUS_FREE);
  }
}
