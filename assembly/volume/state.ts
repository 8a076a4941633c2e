// The log's named things: sources (a space under a name, in a virtual volume), snapshots, and where merged spaces went.
// They change only by operations, which are records of the log; the same function applies them live and in replay.
//
// A snapshot with epoch e pins e in each member's space; a child space pins its parent's epoch. A space that is neither
// current nor pinned is destroyed; one that is not current and is pinned by a single child alone merges into that child.

import { allocate, allocateZeroed, free, resize } from '../std/allocator';
import { count } from '../std/counters';
import { capacityAfter, listRemove } from '../std/list';
import { ERROR_EXISTS, ERROR_LIMIT, ERROR_NOT_FOUND, ERROR_RANGE, lacksTimes } from '../abi/status';
import { BLOCK_BYTES, SPACE_NONE } from '../format/constants';
import {
  SPACE_CURRENT, leafBlocks, leafCount, leafRoom, pinAdd, pinCount, pinReferences, pinRemove, spaceCount, spaceCreate, spaceDepth, spaceDestroy, spaceFlag, spaceFlags,
  spaceIdNext, spaceNext, spaceParent, spaceParentEpoch, spacePointer, spaceResize, spaceSizeBytes, spaceUid, tableMerge, tableSweep, tableTrim,
} from '../table/index';
import { epoch, epochSet } from '../log/writer';
import { checkpointOwner } from './checkpoint';
import { checkpointLostSet } from './mode';
import { C_FORWARD_DROPPED, C_FORWARD_FOLLOWED, C_ROLLBACK, C_SNAPSHOT_DELETED, C_SPACE_MERGED } from '../log/counting';
import { bytesEqual, clear } from '../std/bytes';

export const OP_CREATE_SOURCE: u32 = 1;
export const OP_SNAPSHOT: u32 = 2;
export const OP_DELETE_SNAPSHOT: u32 = 3;
export const OP_RESIZE: u32 = 4;
export const OP_ROLLBACK: u32 = 5;
export const OP_MERGE: u32 = 6;
export const OP_DELETE_SOURCE: u32 = 7;

// Payload of an operation: 0 u16 op · 2 u16 nameBytes · 4 u32 a · 8 f64 b · 16 u32 c · 20 u32 d · 24 name · then, at the
// next multiple of 4, u32 spaces made (rollback).
export const OP_FIXED_BYTES: u32 = 24;
export const NAME_BYTES_MAX: u32 = 255;
export const SOURCE_COUNT_MAX: u32 = 128;
export const SNAPSHOT_COUNT_MAX: u32 = 65535;
export const SIZE_BYTES_MAX: f64 = 4503599627370496; // 2^40 blocks
const LEAVES_BYTES: f64 = 17592186036224; // for each block of a leaf: 2^32 − 2 leaves
const STATE_BYTES_MAX: u32 = 67108864; // beyond it a snapshot is refused: an open takes twenty times as much memory, and an image has at most 65535 fragments
const DEPTH_MAX: u32 = 32;

// Source, 272 bytes: u32 space, u32 nameBytes, u32 volume, u32 0, name[256]. A snapshot's member has the first two and the name alike.
const X_SPACE: usize = 0;
const X_NAME_BYTES: usize = 4;
const X_VOLUME: usize = 8;
const X_NAME: usize = 16;
const SOURCE_BYTES: u32 = 272;

// Snapshot, 288 bytes and 272 for each member: u32 id, u32 volume, u32 epoch, u32 flags, f64 createdAt, u32 nameBytes,
// u32 members, name[256]; member: u32 space, u32 sourceNameBytes, f64 sizeBytes, sourceName[256].
const Y_ID: usize = 0;
const Y_VOLUME: usize = 4;
const Y_EPOCH: usize = 8;
const Y_FLAGS: usize = 12;
const Y_CREATED: usize = 16;
const Y_NAME_BYTES: usize = 24;
const Y_MEMBERS: usize = 28;
const Y_NAME: usize = 32;
const SNAPSHOT_BYTES: u32 = 288;
const MEMBER_BYTES: u32 = 272;
export const SNAPSHOT_AUTOMATIC: u32 = 1;

let sources: u32 = 0;
export let sourceCount: u32 = 0;
let snapshots: u32 = 0;
let snapshotCapacity: u32 = 0;
export let snapshotCount: u32 = 0;
let nextSnapshotId: u32 = 1;
let forwards: u32 = 0; // u32 from, u32 to, u64 sequence
let forwardCapacity: u32 = 0;
let forwardCount: u32 = 0;

function sourceAt(index: u32): u32 { return load<u32>(sources + (index << 2)); }
function snapshotAt(index: u32): u32 { return load<u32>(snapshots + (index << 2)); }
function memberAt(snapshot: u32, index: u32): u32 { return snapshot + SNAPSHOT_BYTES + index * MEMBER_BYTES; }

export function stateInitialize(): void {
  sources = allocate(SOURCE_COUNT_MAX * 4);
}

/** Where the contents of a space are now: itself, or the space that it merged into. */
export function spaceForward(space: u32): u32 {
  for (let hops: u32 = 0; hops < forwardCount && spacePointer(space) == 0; hops++) {
    for (let i: u32 = 0; i < forwardCount; i++) {
      if (load<u32>(forwards + i * 16) == space) {
        count(C_FORWARD_FOLLOWED);
        space = load<u32>(forwards + i * 16, 4);
        break;
      }
    }
  }
  return space;
}

function forwardAdd(from: u32, to: u32, at: u64): void {
  if (forwardCount == forwardCapacity) {
    forwardCapacity = capacityAfter(forwardCapacity);
    forwards = resize(forwards, forwardCapacity * 16);
  }
  let forward = forwards + forwardCount * 16;
  store<u32>(forward, from);
  store<u32>(forward, to, 4);
  store<u64>(forward, at, 8);
  forwardCount++;
}

/** Forgets forwards that no entry in any segment needs: every segment with live blocks began after the merge. */
export function forwardsDrop(oldestSequence: u64): void {
  let kept: u32 = 0;
  for (let i: u32 = 0; i < forwardCount; i++) {
    let forward = forwards + i * 16;
    if (load<u64>(forward, 8) < oldestSequence) { count(C_FORWARD_DROPPED); continue; }
    memory.copy(forwards + kept * 16, forward, 16);
    kept++;
  }
  forwardCount = kept;
}
export function hasForwards(): bool { return forwardCount != 0; }

function forwardNames(space: u32): bool {
  for (let i: u32 = 0; i < forwardCount; i++) {
    let forward = forwards + i * 16;
    if (load<u32>(forward) == space || load<u32>(forward, 4) == space) return true;
  }
  return false;
}

function spaceIdUsable(id: u32): bool { return id < 0xfff0 && !spacePointer(id); }

/** Whether fewer ids may be left than one operation needs: a forward names two. */
function spaceIdsShort(): bool { return spaceCount() + 2 * forwardCount > 0xff00; }

let idFrom: u32 = 0; // the last one that was used, and one; within one operation behind the last that it was given

/**
 * An id that no space and no forward uses. They go round: a call that waits while its source is deleted would meet
 * the next one under the same number, so a number that was let go comes back behind all the others.
 */
function spaceIdFree(): u32 {
  let id: u32;
  do {
    id = idFrom++ & 0xffff;
  } while (!spaceIdUsable(id) || forwardNames(id));
  return id;
}

function sourceByName(volume: u32, name: u32, bytes: u32): u32 {
  for (let i: u32 = 0; i < sourceCount; i++) {
    let source = sourceAt(i);
    if (load<u32>(source, X_VOLUME) == volume && load<u32>(source, X_NAME_BYTES) == bytes && bytesEqual(source + <u32>X_NAME, name, bytes)) return source;
  }
  return 0;
}

/** The source that has the name of this member of a snapshot now, or 0. */
function sourceOfMember(snapshot: u32, member: u32): u32 {
  return sourceByName(load<u32>(snapshot, Y_VOLUME), member + <u32>X_NAME, load<u32>(member, X_NAME_BYTES));
}

/** Whether a snapshot of the virtual volume, or of its space `only`, has this source as a member. */
function isMember(source: u32, volume: u32, only: u32): bool {
  return load<u32>(source, X_VOLUME) == volume && (only == SPACE_NONE || load<u32>(source, X_SPACE) == only);
}

function membersOf(volume: u32, only: u32): u32 {
  let members: u32 = 0;
  for (let i: u32 = 0; i < sourceCount; i++) if (isMember(sourceAt(i), volume, only)) members++;
  return members;
}

function sourceBySpace(space: u32): u32 {
  for (let i: u32 = 0; i < sourceCount; i++) if (load<u32>(sourceAt(i), X_SPACE) == space) return sourceAt(i);
  return 0;
}

export function isSource(space: u32): bool { return sourceBySpace(space) != 0; }

function snapshotById(id: u32): u32 {
  for (let i: u32 = 0; i < snapshotCount; i++) if (load<u32>(snapshotAt(i), Y_ID) == id) return snapshotAt(i);
  return 0;
}

function snapshotNamed(volume: u32, name: u32, bytes: u32): bool {
  for (let i: u32 = 0; i < snapshotCount; i++) {
    let snapshot = snapshotAt(i);
    if (load<u32>(snapshot, Y_VOLUME) == volume && load<u32>(snapshot, Y_NAME_BYTES) == bytes && bytesEqual(snapshot + <u32>Y_NAME, name, bytes)) return true;
  }
  return false;
}

/** Whether another snapshot of this name may be made: 0, or an error code. */
function snapshotAllowed(volume: u32, name: u32, bytes: u32): u32 {
  if (bytes == 0) return ERROR_RANGE;
  if (snapshotNamed(volume, name, bytes)) return ERROR_EXISTS;
  return snapshotCount == SNAPSHOT_COUNT_MAX || epoch >= 0xfffffff0 || stateImageBytes() > STATE_BYTES_MAX ? ERROR_LIMIT : 0;
}

function sizeAllowed(bytes: f64): bool { return bytes >= 0 && bytes <= min<f64>(SIZE_BYTES_MAX, <f64>leafBlocks * LEAVES_BYTES); }
function blocksOf(bytes: f64): u64 { return <u64>((bytes + <f64>(BLOCK_BYTES - 1)) / <f64>BLOCK_BYTES); }
/** A name in a payload, padded. */
function payloadName(bytes: u32): u32 { return (bytes + 3) & ~3; }

/** Bytes of the payload that begins at `payload`, or 0 when it does not fit into `limit`. */
export function payloadBytes(payload: u32, limit: u32): u32 {
  if (limit < OP_FIXED_BYTES) return 0;
  let name = <u32>load<u16>(payload, 2);
  let bytes = OP_FIXED_BYTES + payloadName(name);
  if (name > NAME_BYTES_MAX) return 0;
  if (load<u16>(payload) == <u16>OP_ROLLBACK) bytes += 4 * SOURCE_COUNT_MAX;
  return bytes <= limit ? bytes : 0;
}

/** Completes a request (fills in the ids that it makes) and says whether it may be applied: 0, or an error code. */
export function operationPrepare(payload: u32): u32 {
  idFrom = spaceIdNext();
  let op = <u32>load<u16>(payload);
  let nameBytes = <u32>load<u16>(payload, 2);
  let a = load<u32>(payload, 4);
  let b = load<f64>(payload, 8);
  let name = payload + OP_FIXED_BYTES;
  if (nameBytes > NAME_BYTES_MAX) return ERROR_RANGE;
  if (op == OP_CREATE_SOURCE) {
    if (nameBytes == 0 || !sizeAllowed(b)) return ERROR_RANGE;
    if (sourceByName(a, name, nameBytes)) return ERROR_EXISTS;
    if (sourceCount == SOURCE_COUNT_MAX || spaceIdsShort()) return ERROR_LIMIT;
    store<u32>(payload, spaceIdFree(), 16);
    return 0;
  }
  if (op == OP_SNAPSHOT) {
    let refused = snapshotAllowed(a, name, nameBytes);
    if (refused) return refused;
    if (!membersOf(a, load<u32>(payload, 16))) return ERROR_NOT_FOUND;
    store<u32>(payload, nextSnapshotId, 20);
    return 0;
  }
  if (op == OP_DELETE_SNAPSHOT) return snapshotById(a) ? 0 : ERROR_NOT_FOUND;
  if (op == OP_RESIZE) {
    if (!sizeAllowed(b)) return ERROR_RANGE;
    return sourceBySpace(a) ? 0 : ERROR_NOT_FOUND;
  }
  if (op == OP_ROLLBACK) {
    let snapshot = snapshotById(a);
    if (!snapshot) return ERROR_NOT_FOUND;
    let refused = snapshotAllowed(load<u32>(snapshot, Y_VOLUME), name, nameBytes);
    if (refused) return refused;
    let made = name + payloadName(nameBytes);
    for (let i: u32 = 0; i < load<u32>(snapshot, Y_MEMBERS); i++) {
      let member = memberAt(snapshot, i);
      if (!sourceOfMember(snapshot, member)) return ERROR_NOT_FOUND;
      if (spaceDepth(load<u32>(member)) + 1 >= DEPTH_MAX || spaceIdsShort()) return ERROR_LIMIT;
      store<u32>(made + i * 4, spaceIdFree());
    }
    store<u32>(payload, nextSnapshotId, 20);
    return 0;
  }
  if (op == OP_DELETE_SOURCE) return sourceBySpace(a) ? 0 : ERROR_NOT_FOUND;
  return ERROR_RANGE;
}

/** Bytes of the state's image, about: it was as long when it was last read or written, and has grown since. */
export let stateBytesNow: u32 = 0;

/** Bytes of a prepared payload as it goes into the log. */
export function operationBytes(payload: u32): u32 {
  let bytes = OP_FIXED_BYTES + payloadName(load<u16>(payload, 2));
  if (load<u16>(payload) == <u16>OP_ROLLBACK) bytes += 4 * load<u32>(snapshotById(load<u32>(payload, 4)), Y_MEMBERS);
  return bytes;
}

/** Whether the memory that applying the operation takes at most is not there. */
export function operationLacks(payload: u32): bool {
  let room: u32 = 69632 + SNAPSHOT_BYTES + sourceCount * (MEMBER_BYTES + 4096 + snapshotCapacity * 12) + snapshotCapacity * 8;
  let op = <u32>load<u16>(payload);
  let leaves: u32 = 2;
  if (op == OP_MERGE) {
    let parent = leafCount(load<u32>(payload, 4));
    leaves = min(parent, leafCount(load<u32>(payload, 16))) + 64;
    room += parent * 16;
  }
  return lacksTimes(leaves, leafRoom(), room);
}

/** Leaves that trimming all of a space may change: its own, and holes over everything that its parents have. */
export function trimLeaves(space: u32): u32 {
  let leaves = leafCount(space);
  for (let up = spaceParent(space), hops = 0; up != SPACE_NONE && hops < 64; up = spaceParent(up), hops++) leaves += leafCount(up);
  return leaves;
}

export let operationResult: u32 = 0;
/** Memory ran short in the middle: it is to be applied again, before anything else. */
export const OPERATION_LACKS: u32 = 0xffffffff;

/** Applies an operation, live or in replay. Payloads from disk are checked: false means that this one cannot be, or what the result says. */
export function operationApply(payload: u32, bytes: u32, at: u64): bool {
  operationResult = 0;
  if (bytes < OP_FIXED_BYTES) return false;
  let op = <u32>load<u16>(payload);
  let nameBytes = <u32>load<u16>(payload, 2);
  let a = load<u32>(payload, 4);
  let b = load<f64>(payload, 8);
  let c = load<u32>(payload, 16);
  let d = load<u32>(payload, 20);
  let name = payload + OP_FIXED_BYTES;
  if (nameBytes > NAME_BYTES_MAX || OP_FIXED_BYTES + payloadName(nameBytes) > bytes) return false;
  if (op == OP_CREATE_SOURCE) {
    if (!spaceIdUsable(c) || !sizeAllowed(b) || sourceCount == SOURCE_COUNT_MAX || nameBytes == 0) return false;
    spaceCreate(c, at, SPACE_NONE, 0, b);
    spaceFlag(c, SPACE_CURRENT, true);
    sourceAdd(c, a, name, nameBytes);
    operationResult = c;
    return true;
  }
  if (op == OP_SNAPSHOT) {
    if (nameBytes == 0 || snapshotCount == SNAPSHOT_COUNT_MAX) return false;
    snapshotTake(d, a, c, b, 0, name, nameBytes);
    epochSet(epoch + 1);
    operationResult = d;
    return true;
  }
  if (op == OP_DELETE_SNAPSHOT) {
    let snapshot = snapshotById(a);
    if (!snapshot) return false;
    count(C_SNAPSHOT_DELETED);
    snapshotCount = listRemove(snapshots, snapshotCount, snapshot);
    for (let i: u32 = 0; i < load<u32>(snapshot, Y_MEMBERS); i++) {
      let space = load<u32>(memberAt(snapshot, i));
      pinRemove(space, load<u32>(snapshot, Y_EPOCH));
      spaceRelax(space, at);
    }
    free(snapshot);
    return true;
  }
  if (op == OP_RESIZE) {
    if (!spacePointer(a) || !sizeAllowed(b)) return false;
    let from = blocksOf(b);
    let to = blocksOf(spaceSizeBytes(a));
    if (to > from && !tableTrim(a, from, to - from, epoch, at)) {
      operationResult = OPERATION_LACKS;
      return false;
    }
    spaceResize(a, b);
    return true;
  }
  if (op == OP_ROLLBACK) {
    let snapshot = snapshotById(a);
    if (!snapshot || nameBytes == 0 || snapshotCount == SNAPSHOT_COUNT_MAX) return false;
    let members = load<u32>(snapshot, Y_MEMBERS);
    let made = name + payloadName(nameBytes);
    if (made + members * 4 > payload + bytes) return false;
    for (let i: u32 = 0; i < members; i++) {
      let id = load<u32>(made + i * 4);
      let member = memberAt(snapshot, i);
      if (!spaceIdUsable(id) || !sourceOfMember(snapshot, member) || !spacePointer(load<u32>(member))) return false;
    }
    count(C_ROLLBACK);
    snapshotTake(d, load<u32>(snapshot, Y_VOLUME), SPACE_NONE, b, SNAPSHOT_AUTOMATIC, name, nameBytes);
    for (let i: u32 = 0; i < members; i++) {
      let id = load<u32>(made + i * 4);
      let member = memberAt(snapshot, i);
      spaceCreate(id, at, load<u32>(member), load<u32>(snapshot, Y_EPOCH), load<f64>(member, 8));
      let source = sourceOfMember(snapshot, member);
      let left = load<u32>(source, X_SPACE);
      store<u32>(source, id, X_SPACE);
      spaceFlag(left, SPACE_CURRENT, false);
      spaceFlag(id, SPACE_CURRENT, true);
      spaceRelax(left, at);
    }
    epochSet(epoch + 1);
    operationResult = d;
    return true;
  }
  if (op == OP_MERGE) {
    if (!mergeable(a) || spacePointer(c) == 0 || spaceParent(c) != a) return false;
    count(C_SPACE_MERGED);
    tableMerge(a, c, at);
    forwardAdd(a, c, at);
    return true;
  }
  if (op == OP_DELETE_SOURCE) {
    let source = sourceBySpace(a);
    if (!source) return false;
    sourceCount = listRemove(sources, sourceCount, source);
    free(source);
    spaceFlag(a, SPACE_CURRENT, false);
    spaceRelax(a, at);
    return true;
  }
  return false;
}

function sourceAdd(space: u32, volume: u32, name: u32, nameBytes: u32): void {
  let source = allocateZeroed(SOURCE_BYTES);
  store<u32>(source, space, X_SPACE);
  store<u32>(source, volume, X_VOLUME);
  store<u32>(source, nameBytes, X_NAME_BYTES);
  memory.copy(source + <u32>X_NAME, name, nameBytes);
  store<u32>(sources + (sourceCount << 2), source);
  sourceCount++;
}

function snapshotAllocate(members: u32): u32 {
  if (snapshotCount == snapshotCapacity) {
    snapshotCapacity = capacityAfter(snapshotCapacity);
    snapshots = resize(snapshots, snapshotCapacity * 4);
  }
  let snapshot = allocateZeroed(SNAPSHOT_BYTES + members * MEMBER_BYTES);
  store<u32>(snapshots + (snapshotCount << 2), snapshot);
  snapshotCount++;
  return snapshot;
}

function snapshotTake(id: u32, volume: u32, only: u32, createdAt: f64, flags: u32, name: u32, nameBytes: u32): void {
  let members = membersOf(volume, only);
  let snapshot = snapshotAllocate(members);
  if (RAID) stateBytesNow += SNAPSHOT_BYTES + members * 32;
  store<u32>(snapshot, id, Y_ID);
  store<u32>(snapshot, volume, Y_VOLUME);
  store<u32>(snapshot, epoch, Y_EPOCH);
  store<u32>(snapshot, flags, Y_FLAGS);
  store<f64>(snapshot, createdAt, Y_CREATED);
  store<u32>(snapshot, nameBytes, Y_NAME_BYTES);
  store<u32>(snapshot, members, Y_MEMBERS);
  memory.copy(snapshot + <u32>Y_NAME, name, nameBytes);
  let at: u32 = 0;
  for (let i: u32 = 0; i < sourceCount; i++) {
    let source = sourceAt(i);
    if (!isMember(source, volume, only)) continue;
    let space = load<u32>(source, X_SPACE);
    let member = memberAt(snapshot, at++);
    memory.copy(member, source, SOURCE_BYTES);
    store<f64>(member, spaceSizeBytes(space), 8);
    pinAdd(space, epoch);
  }
  if (id >= nextSnapshotId) nextSnapshotId = id + 1;
}

/** After a space lost its name or a pin: it goes when nothing holds it (its parent may follow), else what nobody sees goes. */
function spaceRelax(space: u32, at: u64): void {
  while (space != SPACE_NONE && !(spaceFlags(space) & SPACE_CURRENT) && pinCount(space) == 0) {
    let parent = spaceParent(space);
    spaceDestroy(space, at); // gives its pin on the parent back
    // A checkpoint that has noted the space and not all of its leaves would bring back older images of those that changed.
    if (checkpointOwner) checkpointLostSet(true);
    space = parent;
  }
  if (space != SPACE_NONE) tableSweep(space, at);
}

function mergeable(space: u32): bool {
  return (
    spacePointer(space) != 0 && !(spaceFlags(space) & SPACE_CURRENT) && pinCount(space) == 1 && pinReferences(space, 0) == 1 && childOf(space) != SPACE_NONE
  );
}

function childOf(space: u32): u32 {
  for (let id = spaceNext(0); id != SPACE_NONE; id = spaceNext(id + 1)) if (spaceParent(id) == space) return id;
  return SPACE_NONE;
}

export let mergeParent: u32 = 0;
export let mergeChild: u32 = 0;

/** A space that can merge into its only child; sets mergeParent and mergeChild. */
export function mergeFind(): bool {
  for (let id = spaceNext(0); id != SPACE_NONE; id = spaceNext(id + 1)) {
    let parent = spaceParent(id);
    if (parent != SPACE_NONE && mergeable(parent)) {
      mergeParent = parent;
      mergeChild = id;
      return true;
    }
  }
  return false;
}

// The state as bytes, for checkpoints:
//
//   0 u32 version (1) · 4 u32 epoch · 8 u32 nextSnapshotId · 12 u32 spaces · 16 u32 sources · 20 u32 snapshots · 24 u32 forwards · 28 u32 0
//   space      u16 id · u16 parent · u32 parentEpoch · u64 uid · f64 sizeBytes · u32 flags · u32 0                  32 bytes
//   source     u16 space · u16 nameBytes · u32 volume · name padded to 8
//   snapshot   u32 id · u32 volume · u32 epoch · u32 flags · f64 createdAt · u16 nameBytes · u16 members · u32 0 · name padded to 8 · members
//   member     u16 space · u16 nameBytes · u32 0 · f64 sizeBytes · name padded to 8
//   forward    u32 from · u32 to · u64 sequence
const STATE_VERSION: u32 = 1;

function padded(bytes: u32): u32 { return (bytes + 7) & ~7; }

export function stateImageBytes(): u32 {
  let bytes: u32 = 32 + forwardCount * 16;
  for (let id = spaceNext(0); id != SPACE_NONE; id = spaceNext(id + 1)) bytes += 32;
  for (let i: u32 = 0; i < sourceCount; i++) bytes += 8 + padded(load<u32>(sourceAt(i), X_NAME_BYTES));
  for (let i: u32 = 0; i < snapshotCount; i++) {
    let snapshot = snapshotAt(i);
    bytes += 32 + padded(load<u32>(snapshot, Y_NAME_BYTES));
    for (let m: u32 = 0; m < load<u32>(snapshot, Y_MEMBERS); m++) bytes += 16 + padded(load<u32>(memberAt(snapshot, m), 4));
  }
  return bytes;
}

export function stateImageWrite(into: u32): void {
  let bytes = stateImageBytes();
  if (RAID) stateBytesNow = bytes;
  clear(into, bytes);
  store<u32>(into, STATE_VERSION);
  store<u32>(into, epoch, 4);
  store<u32>(into, nextSnapshotId, 8);
  let spaces: u32 = 0;
  let at = into + 32;
  for (let id = spaceNext(0); id != SPACE_NONE; id = spaceNext(id + 1)) {
    store<u16>(at, <u16>id);
    store<u16>(at, <u16>spaceParent(id), 2);
    store<u32>(at, spaceParentEpoch(id), 4);
    store<u64>(at, spaceUid(id), 8);
    store<f64>(at, spaceSizeBytes(id), 16);
    store<u32>(at, spaceFlags(id), 24);
    at += 32;
    spaces++;
  }
  store<u32>(into, spaces, 12);
  store<u32>(into, sourceCount, 16);
  store<u32>(into, snapshotCount, 20);
  store<u32>(into, forwardCount, 24);
  for (let i: u32 = 0; i < sourceCount; i++) {
    let source = sourceAt(i);
    let bytes = load<u32>(source, X_NAME_BYTES);
    store<u16>(at, <u16>load<u32>(source, X_SPACE));
    store<u16>(at, <u16>bytes, 2);
    store<u32>(at, load<u32>(source, X_VOLUME), 4);
    memory.copy(at + 8, source + <u32>X_NAME, bytes);
    at += 8 + padded(bytes);
  }
  for (let i: u32 = 0; i < snapshotCount; i++) {
    let snapshot = snapshotAt(i);
    let bytes = load<u32>(snapshot, Y_NAME_BYTES);
    memory.copy(at, snapshot, 24); // id, volume, epoch, flags, createdAt
    store<u16>(at, <u16>bytes, 24);
    store<u16>(at, <u16>load<u32>(snapshot, Y_MEMBERS), 26);
    memory.copy(at + 32, snapshot + <u32>Y_NAME, bytes);
    at += 32 + padded(bytes);
    for (let m: u32 = 0; m < load<u32>(snapshot, Y_MEMBERS); m++) {
      let member = memberAt(snapshot, m);
      bytes = load<u32>(member, 4);
      store<u16>(at, <u16>load<u32>(member));
      store<u16>(at, <u16>bytes, 2);
      store<f64>(at, load<f64>(member, 8), 8);
      memory.copy(at + 16, member + 16, bytes);
      at += 16 + padded(bytes);
    }
  }
  memory.copy(at, forwards, forwardCount * 16);
}

/** Reads a state image: every count and length is checked before it is used. False: malformed. */
export function stateImageRead(from: u32, length: u32): bool {
  if (length < 32 || load<u32>(from) != STATE_VERSION) return false;
  let end = from + length;
  let spaces = load<u32>(from, 12);
  let sourceTotal = load<u32>(from, 16);
  let snapshotTotal = load<u32>(from, 20);
  let forwardTotal = load<u32>(from, 24);
  if (spaces > 0xfff0 || sourceTotal > SOURCE_COUNT_MAX || snapshotTotal > SNAPSHOT_COUNT_MAX || forwardTotal > 0xffff) return false;
  if (load<u32>(from, 4) == 0) return false;
  epochSet(load<u32>(from, 4));
  nextSnapshotId = load<u32>(from, 8);
  let at = from + 32;
  if (spaces * 32 > end - at) return false;
  // Parents before children, in as many rounds as the deepest chain asks for.
  let spacesAt = at;
  let made: u32 = 0;
  for (let round: u32 = 0; made < spaces; round++) {
    if (round > DEPTH_MAX) return false;
    at = spacesAt;
    for (let i: u32 = 0; i < spaces; i++, at += 32) {
      let id = <u32>load<u16>(at);
      let parent = <u32>load<u16>(at, 2);
      let size = load<f64>(at, 16);
      if (spacePointer(id)) {
        continue; // made in an earlier round; twice in the image: `made` never gets there
      }
      if (id >= 0xfff0 || !sizeAllowed(size)) return false;
      if (parent != SPACE_NONE && !spacePointer(parent)) continue;
      if (!spaceCreate(id, load<u64>(at, 8), parent, load<u32>(at, 4), size)) return false;
      spaceFlag(id, load<u32>(at, 24), true);
      made++;
    }
  }
  at = spacesAt + spaces * 32;
  for (let i: u32 = 0; i < sourceTotal; i++) {
    if (end - at < 8) return false;
    let bytes = <u32>load<u16>(at, 2);
    if (bytes == 0 || bytes > NAME_BYTES_MAX || padded(bytes) > end - at - 8 || !spacePointer(load<u16>(at))) return false;
    sourceAdd(load<u16>(at), load<u32>(at, 4), at + 8, bytes);
    at += 8 + padded(bytes);
  }
  for (let i: u32 = 0; i < snapshotTotal; i++) {
    if (end - at < 32) return false;
    let bytes = <u32>load<u16>(at, 24);
    let members = <u32>load<u16>(at, 26);
    if (bytes == 0 || bytes > NAME_BYTES_MAX || padded(bytes) > end - at - 32 || members > SOURCE_COUNT_MAX || members * 16 > end - at) return false;
    let snapshot = snapshotAllocate(members);
    memory.copy(snapshot, at, 24);
    store<u32>(snapshot, bytes, Y_NAME_BYTES);
    store<u32>(snapshot, members, Y_MEMBERS);
    memory.copy(snapshot + <u32>Y_NAME, at + 32, bytes);
    at += 32 + padded(bytes);
    for (let m: u32 = 0; m < members; m++) {
      if (end - at < 16) return false;
      let sourceBytes = <u32>load<u16>(at, 2);
      let space = <u32>load<u16>(at);
      let size = load<f64>(at, 8);
      if (sourceBytes > NAME_BYTES_MAX || padded(sourceBytes) > end - at - 16 || !spacePointer(space) || !sizeAllowed(size)) return false;
      let member = memberAt(snapshot, m);
      store<u32>(member, space);
      store<u32>(member, sourceBytes, 4);
      store<f64>(member, size, 8);
      memory.copy(member + 16, at + 16, sourceBytes);
      pinAdd(space, load<u32>(snapshot, Y_EPOCH));
      at += 16 + padded(sourceBytes);
    }
  }
  if (RAID) stateBytesNow = length;
  if (forwardTotal * 16 > end - at) return false;
  for (let i: u32 = 0; i < forwardTotal; i++, at += 16) forwardAdd(load<u32>(at), load<u32>(at, 4), load<u64>(at, 8));
  return true;
}

/** Whether the memory that reading a state image of this length takes at most is not there: members and names are padded to their bounds. */
export function stateImageLacks(length: u32): bool {
  return lacksTimes(20, length, 262144);
}

// Getters for the host: one thing at a time, into the exchange buffer.

export function sourceGet(index: u32, into: u32, mapped: f64): u32 {
  if (index >= sourceCount) return 0;
  let source = sourceAt(index);
  let space = load<u32>(source, X_SPACE);
  let bytes = load<u32>(source, X_NAME_BYTES);
  store<u32>(into, space);
  store<u32>(into, load<u32>(source, X_VOLUME), 4);
  store<f64>(into, spaceSizeBytes(space), 8);
  store<f64>(into, mapped, 16);
  store<u32>(into, spaceFlags(space) | (spaceParent(space) == SPACE_NONE ? 0 : 4), 24);
  store<u32>(into, bytes, 28);
  memory.copy(into + 32, source + <u32>X_NAME, bytes);
  return 32 + bytes;
}

export function sourceSpace(index: u32): u32 {
  return index < sourceCount ? load<u32>(sourceAt(index), X_SPACE) : SPACE_NONE;
}

/** u32 id · u32 volume · u32 epoch · u32 members · f64 createdAt · u32 flags · u32 nameBytes · members {u32 space, u32 sourceNameBytes, f64 sizeBytes} · names */
export function snapshotGet(index: u32, into: u32, limit: u32): u32 {
  if (index >= snapshotCount) return 0;
  let snapshot = snapshotAt(index);
  let members = load<u32>(snapshot, Y_MEMBERS);
  if (members * (16 + 256) + 288 > limit) return 0;
  store<u32>(into, load<u32>(snapshot, Y_ID));
  store<u32>(into, load<u32>(snapshot, Y_VOLUME), 4);
  store<u32>(into, load<u32>(snapshot, Y_EPOCH), 8);
  store<u32>(into, members, 12);
  store<f64>(into, load<f64>(snapshot, Y_CREATED), 16);
  store<u32>(into, load<u32>(snapshot, Y_FLAGS), 24);
  store<u32>(into, load<u32>(snapshot, Y_NAME_BYTES), 28);
  for (let m: u32 = 0; m < members; m++) memory.copy(into + 32 + m * 16, memberAt(snapshot, m), 16);
  let at = into + 32 + members * 16;
  memory.copy(at, snapshot + <u32>Y_NAME, load<u32>(snapshot, Y_NAME_BYTES));
  at += load<u32>(snapshot, Y_NAME_BYTES);
  for (let m: u32 = 0; m < members; m++) {
    let member = memberAt(snapshot, m);
    memory.copy(at, member + 16, load<u32>(member, 4));
    at += load<u32>(member, 4);
  }
  return at - into;
}
