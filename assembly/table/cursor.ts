// A walk over all leaves of all spaces in the order (space, leaf). The cursor is a key, not a pointer: between two calls
// leaves may change shape, appear and go, and the walk neither misses nor repeats one that was there all the time.
// Any number of walks can take turns: keep (cursorSpace, cursorLeaf) of the last leaf and set them again.
import { CHUNK_DIRTY, LEAF_NONE, directoryNext, slotChunk, slotFind } from './directory';
import { LEAF_DIRTY, LEAF_FLAGS, SHAPE_MASK, SPACE_NONE } from './layout';
import { spaceNext, spacePointer } from './space';

// The leaf that the last call gave.
export let cursorSpace: u32 = 0;
export let cursorLeaf: u32 = 0;
export let cursorShape: u32 = 0;

let nextSpace: u32 = 0;
let nextLeaf: u32 = 0;

// The chunk that leafCursorNextDirty() has seen nothing dirty in so far, from its first leaf on.
const CHUNK_LEAVES: u32 = 1024;

export function leafCursorBegin(): void {
  nextSpace = 0;
  nextLeaf = 0;
}

/** The next call gives the first leaf behind this one. */
export function leafCursorSet(space: u32, leafIndex: u32): void {
  nextSpace = space;
  nextLeaf = leafIndex + 1;
}

/** Pointer to the next leaf, 0 at the end; cursorSpace, cursorLeaf, cursorShape say which. */
export function leafCursorNext(): u32 {
  return advance(false);
}

/**
 * The same, but only leaves that are DIRTY, passing over chunks of 1024 leaves that are clean without looking into them.
 * A chunk in which a full pass finds nothing dirty counts as clean from then on.
 */
export function leafCursorNextDirty(): u32 {
  while (true) {
    const leaf = advance(true);
    if (!leaf || load<u32>(leaf, LEAF_FLAGS) & LEAF_DIRTY) return leaf;
    const skipped = passClean(cursorSpace, cursorLeaf);
    if (skipped) nextLeaf = skipped;
  }
}

// From a clean leaf on to the next dirty one of its chunk, or behind the chunk; unmarks the chunk when none of it is dirty.
function passClean(id: u32, leafIndex: u32): u32 {
  const slot = slotFind(spacePointer(id), leafIndex);
  const chunk = slotChunk;
  const base = leafIndex & ~(CHUNK_LEAVES - 1);
  const words = slot - (leafIndex - base) * 4;
  for (let i = leafIndex - base + 1; i < CHUNK_LEAVES; i++) {
    const word = load<u32>(words + i * 4);
    if (word && load<u32>(word & ~SHAPE_MASK, LEAF_FLAGS) & LEAF_DIRTY) return base + i;
  }
  let dirty = false;
  for (let i: u32 = 0; i < leafIndex - base && !dirty; i++) {
    const word = load<u32>(words + i * 4);
    if (word && load<u32>(word & ~SHAPE_MASK, LEAF_FLAGS) & LEAF_DIRTY) dirty = true;
  }
  if (!dirty) store<u32>(chunk, 0, CHUNK_DIRTY);
  return base + CHUNK_LEAVES;
}

function advance(dirty: bool): u32 {
  while (nextSpace < SPACE_NONE) {
    const id = spaceNext(nextSpace);
    if (id != nextSpace) {
      nextSpace = id;
      nextLeaf = 0;
      if (id == SPACE_NONE) break;
    }
    const space = spacePointer(id);
    const index = nextLeaf == LEAF_NONE ? LEAF_NONE : directoryNext(space, nextLeaf, dirty);
    if (index == LEAF_NONE) {
      nextSpace = id + 1;
      nextLeaf = 0;
      continue;
    }
    const word = load<u32>(slotFind(space, index));
    cursorSpace = id;
    cursorLeaf = index;
    cursorShape = word & SHAPE_MASK;
    nextLeaf = index + 1;
    return word & ~SHAPE_MASK;
  }
  return 0;
}
