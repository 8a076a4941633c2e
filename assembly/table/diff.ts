// What differs between state A and state B, each (space, epoch), the same space or two.
//
// Both states are resolved and compared: a block is unchanged when both read zero, or both are the same mapping. Each
// storage block belongs to exactly one mapping, so "the same mapping" is "the same address"; births need not be compared.
//
// What can be skipped: each state's chain is (space, epoch), (parent, parentEpoch), …. Links that end both chains alike
// cannot differ. If the last links left are one space at two epochs (always so when A and B are one space; also when a
// state is compared with what was rolled back from it), a leaf there matters only if something changed in it after the
// older of the two. Everything else left matters where it has a leaf. So the cost follows the change.
//
//   A  a2 ── a1 ── (s, 5) ── (r, 3)          left: a2, a1, b1, and s from epoch 5 on
//   B        b1 ── (s, 9) ── (r, 3)
import { COUNT_DIFF_SKIP, count } from '../std/counters';
import { LEAF_NONE, directoryNext, slotFind } from './directory';
import { DEPTH_MAX, KIND_ABSENT, KIND_MAPPED, LEAF_NEWEST_CHANGE, SHAPE_MASK, SPACE_NONE, leafBlocks, leafMask, leafShift } from './layout';
import { scratchRecords, scratchRecordsOther } from './leaf';
import { tableResolveRange } from './lookup';
import { SPACE_PARENT, SPACE_PARENT_EPOCH, spacePointer } from './space';
import { chainExternal } from './update';

export const DIFF_END: u32 = 0;
export const DIFF_RUN: u32 = 1;
export const DIFF_MORE: u32 = 3;

export const DIFF_DATA: u32 = 1;
export const DIFF_HOLE: u32 = 2;

/** Leaves that one diffNext() looks at; at 512 blocks each some 20 µs to resolve both sides. */
const LEAVES_A_CALL: u32 = 32;

export let diffBlock: u64 = 0;
export let diffCount: u32 = 0;
export let diffKind: u32 = 0;

const LINKS: u32 = DEPTH_MAX + 1;
const chainA: usize = memory.data(264, 8); // 33 × { space u32, epoch u32 }
const chainB: usize = memory.data(264, 8);

let spaceOfA: u32 = SPACE_NONE;
let epochOfA: u32 = 0;
let spaceOfB: u32 = SPACE_NONE;
let epochOfB: u32 = 0;
let external: bool = false;
let cursor: u64 = 0;
let linksA: u32 = 0;
let linksB: u32 = 0;
let sharedSpace: u32 = SPACE_NONE; // one space at two epochs
let sharedEpoch: u32 = 0; // the older

function chain(into: usize, spaceId: u32, epoch: u32): u32 {
  let links: u32 = 0;
  let id = spaceId;
  let at = epoch;
  while (id != SPACE_NONE && links < LINKS) {
    const space = spacePointer(id);
    if (!space) break;
    store<u32>(into + links * 8, id);
    store<u32>(into + links * 8, at, 4);
    links++;
    at = load<u32>(space, SPACE_PARENT_EPOCH);
    id = load<u32>(space, SPACE_PARENT);
  }
  return links;
}

// Anew in each call: spaces may have merged or gone since the last.
function chains(): void {
  linksA = chain(chainA, spaceOfA, epochOfA);
  linksB = chain(chainB, spaceOfB, epochOfB);
  while (linksA && linksB && load<u64>(chainA + (linksA - 1) * 8) == load<u64>(chainB + (linksB - 1) * 8)) {
    linksA--;
    linksB--;
  }
  sharedSpace = SPACE_NONE;
  if (linksA && linksB && load<u32>(chainA + (linksA - 1) * 8) == load<u32>(chainB + (linksB - 1) * 8)) {
    linksA--;
    linksB--;
    sharedSpace = load<u32>(chainA + linksA * 8);
    sharedEpoch = min(load<u32>(chainA + linksA * 8, 4), load<u32>(chainB + linksB * 8, 4));
  }
}

/** A = (SPACE_NONE, …) is nothing at all: everything in B differs. EPOCH_NOW = the current state. Starts at block `vblock`. */
export function diffBegin(spaceA: u32, epochA: u32, spaceB: u32, epochB: u32, vblock: u64): void {
  spaceOfA = spaceA;
  epochOfA = epochA;
  spaceOfB = spaceB;
  epochOfB = epochB;
  external = chainExternal(spaceA) || chainExternal(spaceB);
  cursor = vblock;
}

function nextIn(links: usize, amount: u32, from: u32, best: u32): u32 {
  let next = best;
  for (let k: u32 = 0; k < amount; k++) {
    const here = directoryNext(spacePointer(load<u32>(links + k * 8)), from);
    if (here < next) next = here;
  }
  return next;
}

// The first leaf from `from` on in which A and B may differ; gives up (with that leaf) after LEAVES_A_CALL unchanged ones.
let looked: u32 = 0;
function nextLeaf(from: u32): u32 {
  const other = nextIn(chainB, linksB, from, nextIn(chainA, linksA, from, LEAF_NONE));
  if (sharedSpace == SPACE_NONE) return other;
  const space = spacePointer(sharedSpace);
  let index = from;
  while (true) {
    index = directoryNext(space, index);
    if (index >= other) return other;
    const leaf = load<u32>(slotFind(space, index)) & ~SHAPE_MASK;
    if (load<u32>(leaf, LEAF_NEWEST_CHANGE) > sharedEpoch) return index;
    count(COUNT_DIFF_SKIP);
    if (++looked >= LEAVES_A_CALL * 64) return index;
    index++;
  }
}

// 0 unchanged, else DIFF_DATA or DIFF_HOLE.
function compare(a: u32, b: u32): u32 {
  const kindA = load<u32>(a);
  const kindB = load<u32>(b);
  if (kindB == KIND_MAPPED) {
    if (kindA == KIND_MAPPED && load<u32>(a, 4) == load<u32>(b, 4) && load<u32>(a, 8) == load<u32>(b, 8)) return 0;
    return DIFF_DATA;
  }
  if (kindA == KIND_MAPPED || (external && kindA != kindB)) return external && kindB == KIND_ABSENT ? DIFF_DATA : DIFF_HOLE;
  return 0;
}

/**
 * The next changed run: DIFF_RUN with diffBlock, diffCount, diffKind; DIFF_END; or DIFF_MORE when nothing was found with
 * the work that one call may do. Neighbouring runs may be of one kind. To go on later: diffBegin() at diffBlock + diffCount.
 */
export function diffNext(): u32 {
  chains();
  looked = 0;
  const limit = <u64>LEAF_NONE << leafShift;
  diffCount = 0;
  for (let left = LEAVES_A_CALL; left > 0; left--) {
    if (cursor >= limit) break;
    const index = <u32>(cursor >> leafShift);
    const next = nextLeaf(index);
    if (next != index) {
      if (diffCount) return DIFF_RUN; // the run ends before the gap
      if (next == LEAF_NONE) {
        cursor = limit;
        break;
      }
      cursor = <u64>next << leafShift;
    }
    if (looked >= LEAVES_A_CALL * 64) break;
    const first = <u32>cursor & leafMask;
    const blocks = leafBlocks - first;
    tableResolveRange(spaceOfA, epochOfA, cursor, blocks, scratchRecords);
    tableResolveRange(spaceOfB, epochOfB, cursor, blocks, scratchRecordsOther);
    for (let k: u32 = 0; k < blocks; k++) {
      const kind = compare(scratchRecords + k * 16, scratchRecordsOther + k * 16);
      if (diffCount) {
        if (kind != diffKind) {
          cursor += k;
          return DIFF_RUN;
        }
        diffCount++;
      } else if (kind) {
        diffBlock = cursor + k;
        diffCount = 1;
        diffKind = kind;
      }
    }
    cursor += blocks;
  }
  if (diffCount) return DIFF_RUN;
  return cursor >= limit ? DIFF_END : DIFF_MORE;
}
