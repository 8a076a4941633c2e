// Committing a root: front copies – flush – back copies – flush, into the slot that the newest root does not occupy.
//
// A root may be committed only when the log is durable beyond everything it refers to; its callers flush first. A copy that
// cannot be written is tried again with all its bytes (rewriting makes it dirty again, so the flush that follows
// covers it), twice; then the log turns read-only, because either root may now be the one that the next open finds.
// A flush of a device that fails is told to one caller only, and may have dropped what others wrote: the log's flush and the
// root's tell each other.

import { count } from '../std/counters';
import { DONE, ERROR_IO, ERROR_READ_ONLY, PLAN, WAIT, fail } from '../abi/status';
import { READ, T_PLAN_COUNT, T_RESULT, T_ROOT_STATE, WRITE, planAdd, planClear } from '../abi/ticket';
import { BLOCK_BYTES, VOLUME_NONE } from '../format/constants';
import { logIdentity } from '../format/key';
import {
  CUT_BYTES, CUT_MAX, LIST_BYTES, LIST_MAX, LIST_STRIDE, O_CHECKPOINT, O_CUTS, O_CUT_COUNT, O_DURABLE, O_END, O_FLAGS, O_GENERATION, O_HEIGHT,
  O_INCARNATION, O_INCARNATION_START, O_LEAF_BLOCKS, O_LISTS, O_META, O_NEXT_FILL, O_NODE_COUNT, O_REPLAY, O_STREAMS, O_TOP, O_TOP_COUNT, O_UUID,
  STREAM_BYTES, S_LIST_COUNT, S_OPEN_CHAIN, S_OPEN_VOLUME, rootSeal,
} from '../format/root';
import { NODE_BYTES } from '../format/page';
import {
  V_FREE, V_ID, V_RELEASE_COMMITS, V_ROOTS, V_ROOT_BACK, V_ROOT_FRONT, V_SEGMENT_COUNT, V_STATE, VOLUME_ACTIVE, handleOf, membersOf,
  planMemberFlushes, readableOf, writableOf, V_SEGMENT_BLOCKS, V_NEXT, volumeHead,
} from '../log/volumes';
import {
  B_DETACHED, B_DURABLE, B_FILL, B_NEXT, B_STREAM, B_VOLUME, bufferHead, chainOf, durableSequence, incarnation, listMax, metadataWritten, nextCount, nextListTrim,
  nextFill, nextLists, openBuffer, sequence, starts, bufferPlace,
} from '../log/writer';
import { C_ROOT_SLOT_A, C_ROOT_SLOT_B } from '../log/counting';
import { leafBlocks, liveDeathSequence } from '../table/index';
import { failReadOnly, failedReadOnly, logFlushes, replaySet, rootFlushesSet, rootLost, rootLostSet } from './mode';
import { PLANT_STALE_INCARNATION, planted } from '../std/plant';
import { clear } from '../std/bytes';
import { allocateBlocks } from '../std/allocator';

/** Fill sequences that a life may use beyond what its root lists, before it commits another. */
export const FILL_MARGIN: u64 = 256;

export let generation: u64 = 0;
export let incarnationStart: u64 = 0;
export let checkpointNumber: u64 = 0;
/** What the newest checkpoint fixed: the sequence of its images, the page tree's top (and `starts`, log/writer). */
export let startSequence: u64 = 0;
export const topNodes: usize = memory.data(768, 8);
export let topCount: u32 = 0;
export let treeHeight: u32 = 0;
export let nodeTotal: u32 = 0;
export const cuts: usize = memory.data(640, 8);
export let cutCount: u32 = 0;
/** Where the metadata streams go on: 2 × 16 bytes as in the root. */
export const metaPositions: usize = memory.data(32, 8);

export let rootOwner: u32 = 0;
/** Keeps roots from being written while somebody reads them. */
export function rootHold(owner: u32): void { rootOwner = owner; }
let image: u32 = 0;
let attempts: u32 = 0;
export let rootClean: bool = false;

export function generationSet(value: u64): void { generation = value; }
export function incarnationStartSet(value: u64): void { incarnationStart = value; }
export function checkpointNumberSet(value: u64): void { checkpointNumber = value; }
export function startSequenceSet(value: u64): void { startSequence = value; }
export function topSet(count: u32, height: u32, nodes: u32): void { topCount = count; treeHeight = height; nodeTotal = nodes; }
export function cutCountSet(value: u32): void { cutCount = value; }
export function rootCleanSet(value: bool): void { rootClean = value; }

/** In V_ROOTS: the root that is being committed goes there too. */
const BUILT: u32 = 256;

/** A volume that came to hold roots lately does not hold both yet. */
export function homesFresh(): bool {
  for (let home: u32 = 0; home < 2; home++) if (rootHome(home) && load<u32>(rootHome(home), V_ROOTS) != 2) return true;
  return false;
}

/** Storage volumes that hold root slots: the first two that are not being given back. */
export function rootHome(index: u32): u32 {
  let seen: u32 = 0;
  for (let volume = volumeHead; volume; volume = load<u32>(volume, V_NEXT)) {
    if (load<u32>(volume, V_STATE) != VOLUME_ACTIVE) continue;
    if (seen == index) return volume;
    seen++;
  }
  return 0;
}

/** Room for a cut that leads to the start of the fill in `fresh`; where it comes from is the caller's to store. 0: there are too many cuts. */
export function cutTo(stream: u32, fresh: u32): usize {
  if (cutCount == CUT_MAX) return 0;
  let cut = cuts + cutCount++ * CUT_BYTES;
  bufferPlace(cut + 16, fresh, stream);
  store<u64>(cut, 0, 32);
  return cut;
}

/** The stream goes on from `slot` of the fill in `buffer` at the start of the fill in `fresh`. False: there are too many cuts. */
export function cutAdd(stream: u32, buffer: u32, slot: u32, fresh: u32): bool {
  if (RAID && cutCount >= CUT_MAX - 2) return false; // an open may need one for each stream
  let cut = cutTo(stream, fresh);
  if (cut) bufferPlace(cut, buffer, slot);
  return cut != 0;
}

/** Points a cut that leads to the fill to that in `fresh`. False: none does. */
export function cutRedirect(stream: u32, fill: u64, fresh: u32): bool {
  for (let i: u32 = 0; i < cutCount; i++) {
    let cut = cuts + i * CUT_BYTES;
    if (load<u64>(cut, 24) != fill) continue;
    bufferPlace(cut + 16, fresh, stream);
    return true;
  }
  return false;
}

/** The cut in this fill, or 0. */
export function cutFind(fill: u64): usize {
  for (let i: u32 = 0; i < cutCount; i++) {
    let cut = cuts + i * CUT_BYTES;
    if (load<u64>(cut, 8) == fill) return cut;
  }
  return 0;
}

// Where the life at hand began in each stream's fill: its number and the slot. While a log is being opened that is the life whose root was found.
const lives: usize = memory.data(32, 8);
export function lifeBegin(stream: u32, fill: u64, slot: u32): void {
  store<u64>(lives + (stream << 4), fill);
  store<u64>(lives + (stream << 4), slot, 8);
}

/**
 * Whether a record at the slot, or the footer, is of a life before this one though it stands where this one writes: what a crash left of it on some members
 * only, which the life at hand did not find. It is no part of the log, and may stand on one member beside what belongs there on another.
 */
export function isStale(fill: u64, slot: u32, own: u64): bool {
  if (PLANTS && planted == PLANT_STALE_INCARNATION) return false;
  for (let life = lives; life < lives + 32; life += 16) if (load<u64>(life) == fill) return <u64>slot >= load<u64>(life, 8) && own < incarnation;
  return false;
}

/** The sequence of the last block that left the volume: images up to then may still name it. */
export function lastDeath(volume: u32): u64 {
  let last = incarnationStart; // what was replayed at open is not told apart
  for (let index: u32 = 0; index < load<u32>(volume, V_SEGMENT_COUNT); index++) last = max(last, liveDeathSequence(load<u32>(volume, V_ID), index));
  return last;
}

function build(): void {
  for (let volume = volumeHead; volume; volume = load<u32>(volume, V_NEXT)) {
    let referred = load<u32>(volume, V_FREE) != load<u32>(volume, V_SEGMENT_COUNT) || lastDeath(volume) > startSequence;
    store<u32>(volume, referred ? 0 : load<u32>(volume, V_RELEASE_COMMITS) + 1, V_RELEASE_COMMITS);
    store<u32>(volume, volume == rootHome(0) || volume == rootHome(1) ? load<u32>(volume, V_ROOTS) | BUILT : 0, V_ROOTS);
  }
  if (!image) image = allocateBlocks(1);
  clear(image, BLOCK_BYTES);
  rootLostSet(false);
  generation++;
  memory.copy(image + <u32>O_UUID, logIdentity, 32);
  store<u32>(image, rootClean ? 1 : 0, O_FLAGS);
  store<u64>(image, generation, O_GENERATION);
  store<u64>(image, incarnation, O_INCARNATION);
  store<u64>(image, incarnationStart, O_INCARNATION_START);
  store<u64>(image, startSequence, O_REPLAY);
  store<u64>(image, rootClean ? sequence : 0, O_END);
  store<u64>(image, durableSequence, O_DURABLE);
  store<u64>(image, nextFill + FILL_MARGIN, O_NEXT_FILL);
  store<u64>(image, checkpointNumber, O_CHECKPOINT);
  store<u32>(image, leafBlocks, O_LEAF_BLOCKS);
  store<u16>(image, <u16>treeHeight, O_HEIGHT);
  store<u16>(image, <u16>topCount, O_TOP_COUNT);
  store<u32>(image, nodeTotal, O_NODE_COUNT);
  store<u16>(image, <u16>cutCount, O_CUT_COUNT);
  for (let stream: u32 = 0; stream < 2; stream++) {
    let record = image + <u32>O_STREAMS + stream * STREAM_BYTES;
    memory.copy(record, starts + stream * 24, 24);
    store<u16>(record, <u16>VOLUME_NONE, S_OPEN_VOLUME);
    store<u64>(record, chainOf(stream), S_OPEN_CHAIN);
    // Writes went on since the flush: a segment that was sealed meanwhile has no durable footer yet. The order of the
    // stream from the first such segment on is therefore written here: it counts as the open one, the others lead the list.
    let list = image + <u32>O_LISTS + stream * LIST_STRIDE;
    let listed: u32 = 0;
    for (let buffer = bufferHead; buffer; buffer = load<u32>(buffer, B_NEXT)) {
      if (load<u32>(buffer, B_STREAM) != stream || load<u32>(buffer, B_DETACHED)) continue;
      if (load<u16>(record, S_OPEN_VOLUME) == <u16>VOLUME_NONE) {
        if (buffer != openBuffer(stream) && load<u32>(buffer, B_DURABLE) == load<u32>(load<u32>(buffer, B_VOLUME), V_SEGMENT_BLOCKS)) continue;
        // A reader believes records behind this slot if they are of this life; what is not durable yet may stand beside an earlier life's on some member.
        if (RAID && !rootClean) bufferPlace(record + <u32>S_OPEN_VOLUME, buffer, min(load<u32>(buffer, B_DURABLE), load<u32>(buffer, B_FILL)));
        else bufferPlace(record + <u32>S_OPEN_VOLUME, buffer);
      } else {
        assert(listed < LIST_MAX);
        bufferPlace(list + listed++ * LIST_BYTES, buffer, 0);
      }
    }
    // Segments of an abandoned range may have come from outside the list; what does not fit then waits for the next root.
    let fits = PLANTS && listed > listMax() ? 0 : min(nextCount(stream), listMax() - listed);
    nextListTrim(stream, fits);
    memory.copy(list + listed * LIST_BYTES, nextLists + stream * LIST_STRIDE, fits * LIST_BYTES);
    store<u16>(record, <u16>(listed + fits), S_LIST_COUNT);
  }
  for (let copy: u32 = 0; copy < 2; copy++) {
    let record = image + <u32>O_META + copy * 16;
    let buffer = openBuffer(2 + copy);
    if (buffer) {
      bufferPlace(record, buffer);
      store<u64>(record, 0, 8);
    } else store<u16>(record, <u16>VOLUME_NONE);
  }
  memory.copy(image + <u32>O_CUTS, cuts, cutCount * CUT_BYTES);
  memory.copy(image + <u32>O_TOP, topNodes, topCount * NODE_BYTES);
  rootSeal(image);
}

/** Byte offset of a root copy on the members of its volume: 0 and 1 in front (slots A, B), 2 and 3 at the back. */
export function rootOffset(volume: u32, copy: u32): f64 {
  return load<f64>(volume + <u32>(copy < 2 ? V_ROOT_FRONT : V_ROOT_BACK)) + <f64>((copy & 1) * BLOCK_BYTES);
}

/** Reads the four root copies on each readable member of a volume, behind what the plan reads already, one after the other from `area` on. */
export function planRootReads(ticket: u32, volume: u32, area: u32): void {
  for (let member: u32 = 0; !RAID || member < membersOf(volume); member++) {
    if (RAID && !(readableOf(volume) & (1 << member))) continue;
    for (let copy: u32 = 0; copy < 4; copy++) {
      planAdd(ticket, READ, handleOf(volume) + member, rootOffset(volume, copy), area + load<u32>(ticket, T_PLAN_COUNT) * BLOCK_BYTES, BLOCK_BYTES);
    }
    if (!RAID) break;
  }
}

function planCopies(ticket: u32, back: bool): void {
  planClear(ticket);
  for (let home: u32 = 0; home < 2; home++) {
    let volume = rootHome(home);
    if (!volume) continue;
    let offset = rootOffset(volume, (back ? 2 : 0) + (<u32>generation & 1));
    for (let member: u32 = 0; !RAID || member < membersOf(volume); member++) {
      if (RAID && !(writableOf(volume) & (1 << member))) continue;
      planAdd(ticket, WRITE, handleOf(volume) + member, offset, image, BLOCK_BYTES);
      metadataWritten(1);
      if (!RAID) break;
    }
  }
}

function planFlushes(ticket: u32): void {
  planClear(ticket);
  for (let home: u32 = 0; home < 2; home++) {
    let volume = rootHome(home);
    if (volume) planMemberFlushes(ticket, volume, 0xffffffff);
  }
}

/** Fill sequence of the first segment that the newest durable root lists for a stream; 0: none, or another root is under way. */
export function listHead(stream: u32): u64 {
  return rootOwner ? 0 : load<u64>(image + stream * LIST_STRIDE, O_LISTS + 8);
}

/** Commits a root with everything as it stands; one at a time. */
export function rootRun(ticket: u32): u32 {
  let state = load<u32>(ticket, T_ROOT_STATE);
  if (state == 0) {
    if (failedReadOnly) return fail(ERROR_READ_ONLY); // either root may be the one that the next open finds: no third
    if (rootOwner) return WAIT;
    rootOwner = ticket;
    attempts = 0;
    build();
    planCopies(ticket, false);
    store<u32>(ticket, 1, T_ROOT_STATE);
    return PLAN;
  }
  let flushing = state == 2 || state == 4;
  if (flushing && logFlushes && !load<u32>(ticket, T_RESULT)) return WAIT;
  if (load<u32>(ticket, T_RESULT) || (flushing && rootLost)) {
    if (attempts++ < 2) {
      generation++; // the same slot again: the other one holds the newest root that is known good
      build();
      planCopies(ticket, false);
      store<u32>(ticket, 1, T_ROOT_STATE);
      return PLAN;
    }
    failReadOnly();
    rootOwner = 0;
    store<u32>(ticket, 0, T_ROOT_STATE);
    return fail(ERROR_IO);
  }
  if (state == 1 || state == 3) {
    planFlushes(ticket);
    rootFlushesSet(load<u32>(ticket, T_PLAN_COUNT));
    store<u32>(ticket, state + 1, T_ROOT_STATE);
    return PLAN;
  }
  if (state == 2) {
    planCopies(ticket, true);
    store<u32>(ticket, 3, T_ROOT_STATE);
    return PLAN;
  }
  count(generation & 1 ? C_ROOT_SLOT_B : C_ROOT_SLOT_A);
  rootOwner = 0;
  store<u32>(ticket, 0, T_ROOT_STATE);
  replaySet(load<u64>(image, O_REPLAY));
  for (let volume = volumeHead; volume; volume = load<u32>(volume, V_NEXT)) {
    let roots = load<u32>(volume, V_ROOTS);
    if (roots & BUILT) store<u32>(volume, min((roots & ~BUILT) + 1, 2), V_ROOTS);
  }
  return DONE;
}

/** The root that the log was opened from. */
export const openedRoot: usize = memory.data(4096, 8);
