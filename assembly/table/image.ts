// Leaf images: what a checkpoint stores of one leaf, all of it, in whichever of two shapes is smaller.
//
//   0   shape u8 (1 runs, 2 packed) │ 0 u8 │ count u16 │ historyCount u32 │ newestChange u32 │ 0 u32
//   16  runs      count × { start u16, volume u16, block u32, birth u32 }
//       packed    bitmap of leafBlocks bits (at least 4 bytes) │ block u32 × count │ birth u32 × count │ volume u16 × count │ 0…2 bytes of zero
//   …   history   historyCount × { blockInLeaf u16, volume u16, block u32, birth u32, death u32 }
//
// Volume 0xFFFF is a hole, 0xFFFE (in runs only) absent; blocks before the first run are absent. Little-endian; every part
// begins at a multiple of 4. Three arrays, where memory has 10-byte entries, so that nothing on disk is unaligned.
//
// An image is bytes from a disk: everything is checked before it is believed. Where an address lies outside the attached
// storage volumes, an order, a range or a reserved byte is wrong, the reader refuses and leaves no trace.
import { allocate, free } from '../std/allocator';
import { COUNT_ENTER_EXTENTS, COUNT_IMAGE_DIRECT, COUNT_IMAGE_REFUSED, count } from '../std/counters';
import { LEAF_NONE, SLOT_ROOM, slotFill, slotFind, slotMake } from './directory';
import { HISTORY_BIRTH, HISTORY_BLOCK, HISTORY_BYTES, HISTORY_DEATH, HISTORY_HEADER, HISTORY_VOLUME, historyMake } from './history';
import { ENTRY_BIRTH, ENTRY_BYTES, ENTRY_VOLUME, EPOCH_NOW, GROUP_BYTES, GROUP_RANK, LEAF_CAPACITY, LEAF_COUNT, LEAF_HEADER, LEAF_HISTORY,
  LEAF_NEWEST_CHANGE, RUN_BIRTH, RUN_BLOCK, RUN_BYTES, RUN_VOLUME, SHAPE_DENSE, SHAPE_MASK, SHAPE_PACKED, SPACE_NONE, VOLUME_ABSENT, VOLUME_HOLE,
  leafBlocks, packedEntries } from './layout';
import { entryStore, leafBuild, leafExpand, leafMake, leafRebuild, measure, measuredPresent, measuredRuns, scratchOther, writeRuns, mappedIn } from './leaf';
import { liveBlocks } from './live';
import { SPACE_HISTORY, spacePointer, mappedAdd } from './space';
import { clear } from '../std/bytes';

const IMAGE_HEADER: u32 = 16;
const IMAGE_RUNS: u32 = 1;
const IMAGE_PACKED: u32 = 2;

function imageBitmapBytes(): u32 {
  return max<u32>(4, leafBlocks >> 3);
}

function packedBytes(present: u32): u32 {
  return imageBitmapBytes() + present * 8 + ((present * 2 + 3) & ~3);
}

/** Bytes of this leaf's image. Expands the leaf into scratchOther. */
export function leafImageSize(leaf: u32, shape: u32): u32 {
  leafExpand(leaf | shape, scratchOther);
  measure(scratchOther);
  const history = load<u32>(leaf, LEAF_HISTORY);
  const historyCount = history ? load<u32>(history) : 0;
  return IMAGE_HEADER + min(measuredRuns * RUN_BYTES, packedBytes(measuredPresent)) + historyCount * HISTORY_BYTES;
}

/** Writes the leaf's image; its length, 0 when there is no such leaf. */
export function leafImageWrite(spaceId: u32, leafIndex: u32, into: u32): u32 {
  const space = spacePointer(spaceId);
  const slot = space ? slotFind(space, leafIndex) : 0;
  const word = slot ? load<u32>(slot) : 0;
  if (!word) return 0;
  const leaf = word & ~SHAPE_MASK;
  const size = leafImageSize(leaf, word & SHAPE_MASK);
  const present = measuredPresent;
  const runs = measuredRuns;
  const history = load<u32>(leaf, LEAF_HISTORY);
  const historyCount = history ? load<u32>(history) : 0;
  const asRuns = runs * RUN_BYTES <= packedBytes(present);
  store<u16>(into, asRuns ? IMAGE_RUNS : IMAGE_PACKED);
  store<u16>(into, asRuns ? runs : present, 2);
  store<u32>(into, historyCount, 4);
  store<u32>(into, load<u32>(leaf, LEAF_NEWEST_CHANGE), 8);
  store<u32>(into, 0, 12);
  const body = into + IMAGE_HEADER;
  if (asRuns) {
    writeRuns(scratchOther, body);
  } else {
    clear(body, packedBytes(present));
    let block = body + imageBitmapBytes();
    let birth = block + present * 4;
    let volume = birth + present * 4;
    let at = scratchOther;
    for (let i: u32 = 0; i < leafBlocks; i++, at += ENTRY_BYTES) {
      if (load<u16>(at, ENTRY_VOLUME) == VOLUME_ABSENT) continue;
      store<u8>(body + (i >> 3), <u32>load<u8>(body + (i >> 3)) | (1 << (i & 7)));
      store<u32>(block, load<u32>(at));
      store<u32>(birth, load<u32>(at, ENTRY_BIRTH));
      store<u16>(volume, load<u16>(at, ENTRY_VOLUME));
      block += 4;
      birth += 4;
      volume += 2;
    }
  }
  if (historyCount) memory.copy(into + size - historyCount * HISTORY_BYTES, history + HISTORY_HEADER, historyCount * HISTORY_BYTES);
  return size;
}

// The volume that was asked for last and its blocks: most leaves have one. A hole is never asked for, so VOLUME_HOLE: none yet.
let rangeVolume: u32 = VOLUME_HOLE;
let rangeBlocks: u64 = 0;

// Whether (volume, block …, birth) can be: a hole, or `length` blocks that exist; born between 1 and the leaf's newest change.
function believable(volume: u32, block: u32, birth: u32, length: u32, newest: u32): bool {
  if (!birth || birth > newest) return false;
  if (volume == VOLUME_HOLE) return !block;
  if (volume != rangeVolume) {
    if (volume == VOLUME_ABSENT) return false;
    rangeVolume = volume;
    rangeBlocks = liveBlocks(volume);
  }
  return <u64>block + length <= rangeBlocks;
}

// Runs into a scratch array; false when malformed.
function readRuns(from: u32, runs: u32, newest: u32, entries: u32): bool {
  let i: u32 = 0;
  let at = from;
  for (let run: u32 = 0; run < runs; run++, at += RUN_BYTES) {
    const start = <u32>load<u16>(at);
    const end = run + 1 < runs ? <u32>load<u16>(at, RUN_BYTES) : leafBlocks;
    if (start >= end || end > leafBlocks) return false;
    while (i < start) entryStore(entries + i++ * ENTRY_BYTES, VOLUME_ABSENT, 0, 0); // before the first run
    const volume = <u32>load<u16>(at, RUN_VOLUME);
    const block = load<u32>(at, RUN_BLOCK);
    const birth = load<u32>(at, RUN_BIRTH);
    if (volume == VOLUME_ABSENT) {
      if (block || birth) return false;
    } else if (!believable(volume, block, birth, end - start, newest)) {
      return false;
    }
    const step: u32 = volume < VOLUME_ABSENT ? 1 : 0;
    for (; i < end; i++) entryStore(entries + i * ENTRY_BYTES, volume, block + (i - start) * step, birth);
  }
  while (i < leafBlocks) entryStore(entries + i++ * ENTRY_BYTES, VOLUME_ABSENT, 0, 0);
  return true;
}

// Packed entries into a scratch array; false when malformed.
function readPacked(from: u32, present: u32, newest: u32, entries: u32): bool {
  let block = from + imageBitmapBytes();
  let birth = block + present * 4;
  let volume = birth + present * 4;
  const last = volume + present * 2;
  let bits: u32 = 0;
  for (let i: u32 = 0; i < imageBitmapBytes() * 8; i++) {
    if (!(i & 7)) bits = load<u8>(from + (i >> 3));
    const bit = (bits >> (i & 7)) & 1;
    if (i >= leafBlocks) {
      if (bit) return false;
      continue;
    }
    const at = entries + i * ENTRY_BYTES;
    if (!bit) {
      entryStore(at, VOLUME_ABSENT, 0, 0);
      continue;
    }
    if (volume == last) return false;
    const entryVolume = <u32>load<u16>(volume);
    const entryBlock = load<u32>(block);
    const entryBirth = load<u32>(birth);
    if (!believable(entryVolume, entryBlock, entryBirth, 1, newest)) return false;
    entryStore(at, entryVolume, entryBlock, entryBirth);
    block += 4;
    birth += 4;
    volume += 2;
  }
  return volume == last && (!(present & 1) || !load<u16>(last));
}

// The history against itself and the current entries; false when malformed.
function checkHistory(from: u32, amount: u32, newest: u32, entries: u32): bool {
  let lastBlock: u32 = 0;
  let lastDeath: u32 = 0;
  for (let k: u32 = 0; k < amount; k++) {
    const at = from + k * HISTORY_BYTES;
    const i = <u32>load<u16>(at);
    const birth = load<u32>(at, HISTORY_BIRTH);
    const death = load<u32>(at, HISTORY_DEATH);
    if (i >= leafBlocks || i < lastBlock) return false;
    if (i == lastBlock && birth < lastDeath) return false;
    if (!believable(load<u16>(at, HISTORY_VOLUME), load<u32>(at, HISTORY_BLOCK), birth, 1, newest)) return false;
    if (death <= birth || death > newest) return false;
    const current = entries + i * ENTRY_BYTES;
    if (load<u16>(current, ENTRY_VOLUME) != VOLUME_ABSENT && load<u32>(current, ENTRY_BIRTH) < death) return false;
    lastBlock = i;
    lastDeath = death;
  }
  return true;
}

// A packed image without a history goes straight into a leaf of its final size: 26,000,000 mappings take 60 ms less than by way of
// a scratch array (2026-11), and no leaf that is too small is left behind as a hole. The leaf has the shape that leafBuild()
// would give it. False when malformed.
function readDirect(space: u32, leafIndex: u32, from: u32, present: u32, newest: u32): bool {
  const dense = present * 16 >= leafBlocks * 15;
  const leaf = allocate(dense ? LEAF_HEADER + leafBlocks * ENTRY_BYTES : packedEntries + present * ENTRY_BYTES);
  clear(leaf, LEAF_HEADER);
  const mapped = fill(leaf, dense, from, present, newest);
  if (mapped < 0) {
    free(leaf);
    return false;
  }
  store<u16>(leaf, present, LEAF_COUNT);
  store<u16>(leaf, dense ? leafBlocks : present, LEAF_CAPACITY);
  store<u32>(leaf, newest, LEAF_NEWEST_CHANGE);
  const shape = dense ? SHAPE_DENSE : SHAPE_PACKED;
  slotFill(space, slotMake(space, leafIndex), leaf | shape);
  mappedAdd(space, mapped);
  count(COUNT_ENTER_EXTENTS + shape - 1);
  count(COUNT_IMAGE_DIRECT);
  return true;
}

// The body of such a leaf. How many of its blocks are mapped, -1 when the image is malformed.
function fill(leaf: u32, dense: bool, from: u32, present: u32, newest: u32): i32 {
  let block = from + imageBitmapBytes();
  let birth = block + present * 4;
  let volume = birth + present * 4;
  const last = volume + present * 2;
  if (present & 1 && load<u16>(last)) return -1;
  let to = leaf + (dense ? LEAF_HEADER : packedEntries);
  let usual: u32 = VOLUME_HOLE; // the volume of most, once it is known to be believable, and its blocks
  let usualBlocks: u64 = 0;
  let mapped: i32 = 0;
  for (let first: u32 = 0; first < leafBlocks; first += 64) {
    let bits = leafBlocks < 64 ? <u64>load<u32>(from) : load<u64>(from + (first >> 3));
    if (leafBlocks < 32 && bits >> leafBlocks) return -1;
    const amount = <u32>popcnt<u64>(bits);
    if (volume + amount * 2 > last) return -1;
    if (!dense) {
      const group = leaf + LEAF_HEADER + (first >> 6) * GROUP_BYTES;
      store<u64>(group, bits);
      store<u16>(group, (to - leaf - packedEntries) / ENTRY_BYTES, GROUP_RANK);
    }
    const end = volume + amount * 2;
    while (volume < end) {
      if (dense) for (; !(bits & 1); bits >>= 1, to += ENTRY_BYTES) entryStore(to, VOLUME_ABSENT, 0, 0);
      bits >>= 1;
      const itsVolume = <u32>load<u16>(volume);
      const itsBlock = load<u32>(block);
      const itsBirth = load<u32>(birth);
      if (itsVolume != usual || <u64>itsBlock >= usualBlocks || itsBirth - 1 >= newest) {
        if (!believable(itsVolume, itsBlock, itsBirth, 1, newest)) return -1;
        if (itsVolume != VOLUME_HOLE) {
          usual = itsVolume;
          usualBlocks = rangeBlocks;
        } else mapped--;
      }
      mapped++;
      store<u64>(to, <u64>itsBlock | (<u64>itsBirth << 32));
      store<u16>(to, itsVolume, ENTRY_VOLUME);
      to += ENTRY_BYTES;
      block += 4;
      birth += 4;
      volume += 2;
    }
    if (dense) {
      const behind = leaf + LEAF_HEADER + min<u32>(first + 64, leafBlocks) * ENTRY_BYTES;
      for (; to < behind; to += ENTRY_BYTES) entryStore(to, VOLUME_ABSENT, 0, 0);
    }
  }
  return volume == last ? mapped : -1;
}

function readChecked(space: u32, leafIndex: u32, from: u32, length: u32): bool {
  if (length < IMAGE_HEADER || leafIndex == LEAF_NONE) return false;
  const shape = <u32>load<u16>(from);
  const amount = <u32>load<u16>(from, 2);
  const historyCount = load<u32>(from, 4);
  const newest = load<u32>(from, 8);
  if ((shape != IMAGE_RUNS && shape != IMAGE_PACKED) || load<u32>(from, 12) || newest == EPOCH_NOW || amount > leafBlocks) return false;
  const bodyBytes = shape == IMAGE_RUNS ? amount * RUN_BYTES : packedBytes(amount);
  if (<u64>IMAGE_HEADER + bodyBytes + <u64>historyCount * HISTORY_BYTES != length) return false;
  const body = from + IMAGE_HEADER;
  const entries = scratchOther;
  rangeVolume = VOLUME_HOLE;
  if (RAID && shape == IMAGE_PACKED && !historyCount) {
    const existing = slotFind(space, leafIndex);
    return !(existing && load<u32>(existing)) && readDirect(space, leafIndex, body, amount, newest);
  }
  if (!(shape == IMAGE_RUNS ? readRuns(body, amount, newest, entries) : readPacked(body, amount, newest, entries))) return false;
  if (!checkHistory(body + bodyBytes, historyCount, newest, entries)) return false;
  const existing = slotFind(space, leafIndex);
  if (existing && load<u32>(existing)) return false;

  const slot = slotMake(space, leafIndex);
  leafMake(space, slot);
  if (shape == IMAGE_PACKED) leafBuild(slot, entries, amount, leafBlocks);
  else leafRebuild(slot, entries);
  const leaf = load<u32>(slot) & ~SHAPE_MASK;
  store<u32>(leaf, newest, LEAF_NEWEST_CHANGE);
  mappedAdd(space, mappedIn(entries));
  if (historyCount) {
    const history = historyMake(leaf, historyCount);
    store<u32>(history, historyCount);
    memory.copy(history + HISTORY_HEADER, body + bodyBytes, historyCount * HISTORY_BYTES);
    store<u32>(space, load<u32>(space, SPACE_HISTORY) + historyCount, SPACE_HISTORY);
  }
  return true;
}

/**
 * Makes the leaf from an image of exactly `length` bytes; false when it is malformed, the space does not exist, or the
 * leaf does already. The leaf is clean, its image number 0; live blocks are not counted (tableRecount). Needs leafImageRoom(length).
 */
export function leafImageRead(spaceId: u32, leafIndex: u32, from: u32, length: u32): bool {
  const space = spaceId < SPACE_NONE ? spacePointer(spaceId) : 0;
  if (space && readChecked(space, leafIndex, from, length)) return true;
  count(COUNT_IMAGE_REFUSED);
  return false;
}

/** Bytes of memory that leafImageRead() of an image of this length may need. */
export function leafImageRoom(length: u32): u32 {
  return SLOT_ROOM + leafBlocks * RUN_BYTES + length + 256;
}
