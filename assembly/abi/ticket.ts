// Tickets and their plans. A ticket is one operation in progress; it lives in an allocated record, and its plan is an
// array of 32-byte commands that the host performs in any order before it steps the ticket again:
//
//    0 u32 operation   4 u32 device handle   8 f64 device offset   16 u32 memory address   20 u32 length   24 u32 flags   28 u32 0
//
// A device handle is storage volume id * 32 + member.
//
// A plan may also hold marked commands (operation | MARKED), which are for blocks of a storage volume of several members and
// not for a device: they never reach the host, volume/striped.ts puts commands for members in their place.
//
//    0 u32 operation   4 u32 handle of the volume   8 u32 block   12 u32 check   16 u32 memory address   20 u32 length   24 u32 key   28 u32 result

import { allocateZeroed, free, resize } from '../std/allocator';

export const READ: u32 = 1;
export const WRITE: u32 = 2;
export const FLUSH: u32 = 3;
export const DISCARD: u32 = 4;
export const COPY_IN: u32 = 5;
export const COPY_OUT: u32 = 6;
export const ZERO_OUT: u32 = 7;

export const MARKED: u32 = 0x100;

export const COMMAND_BYTES: u32 = 32;
export const TICKET_COUNT_MAX: u32 = 4096;

// Fields of a ticket, all at fixed offsets. `a`…`h` belong to the operation, `flush*` and `root*` to the shared sub-operations.
export const T_KIND: usize = 0;
export const T_STATE: usize = 4;
export const T_SPACE: usize = 8;
export const T_EPOCH: usize = 12;
export const T_OFFSET: usize = 16; // f64
export const T_LENGTH: usize = 24; // f64
export const T_PROGRESS: usize = 32; // f64, bytes done
export const T_PLAN: usize = 40;
export const T_PLAN_COUNT: usize = 44;
export const T_PLAN_CAPACITY: usize = 48;
export const T_RESULT: usize = 52; // worst result of the plan's commands
export const T_FLUSH_STATE: usize = 56;
export const T_FLUSH_ATTEMPT: usize = 60;
export const T_FLUSH_TARGET: usize = 64; // u64
export const T_ROOT_STATE: usize = 72;
export const T_SUMS_STATE: usize = 76;
export const T_VALUE: usize = 80; // f64 result
export const T_A: usize = 88;
export const T_B: usize = 92;
export const T_C: usize = 96;
export const T_D: usize = 100;
export const T_E: usize = 104;
export const T_F: usize = 108;
export const T_G: usize = 112; // u64
export const T_RESULT_INDEX: usize = 120; // first failed command
export const T_LOCK: usize = 124;
export const T_DENIED: usize = 128; // the host could not grow the memory
export const T_MARKED: usize = 132; // marked commands of the plan
export const T_STRIPED: usize = 136; // state of the plan for the members (volume/striped.ts)
export const T_ASIDE: usize = 140; // the ticket's own plan meanwhile: pointer, count, capacity
export const T_JOBS: usize = 152;
export const T_SCRATCH: usize = 156;
export const T_LOST: usize = 160; // members that a command for rows did without
export const T_RESCUE: usize = 164; // state of the rescue of a block, and its memory
export const T_ROWS: usize = 168;
export const T_JOB: usize = 172; // index of the command that is being rescued
export const T_NUMBER: usize = 176; // counts tickets
export const T_SIZE: u32 = 180;

export const KIND_READ: u32 = 3;
export const KIND_WRITE: u32 = 4;
export const KIND_TRIM: u32 = 5;
export const KIND_OPERATION: u32 = 8;

let slots: u32 = 0; // TICKET_COUNT_MAX words
let slotHint: u32 = 0;
export let ticketCount: u32 = 0;
export let ticketsOpened: u32 = 0;

/** Once, before anything else here. */
export function ticketsInitialize(): void {
  slots = allocateZeroed(TICKET_COUNT_MAX * 4);
}

export function ticketOpen(kind: u32): i32 {
  for (let probe: u32 = 0; probe < TICKET_COUNT_MAX; probe++) {
    let index = (slotHint + probe) & (TICKET_COUNT_MAX - 1);
    if (!ticketPointer(index)) {
      let ticket = allocateZeroed(T_SIZE);
      store<u32>(ticket, kind, T_KIND);
      store<u32>(ticket, ++ticketsOpened, T_NUMBER);
      store<u32>(slots + (index << 2), ticket);
      slotHint = index + 1;
      ticketCount++;
      return index;
    }
  }
  return -1;
}

export function ticketPointer(index: u32): u32 {
  return index < TICKET_COUNT_MAX ? load<u32>(slots + (index << 2)) : 0;
}

export function ticketClose(index: u32): void {
  let ticket = ticketPointer(index);
  free(load<u32>(ticket, T_PLAN));
  if (RAID) {
    free(load<u32>(ticket, T_ASIDE));
    free(load<u32>(ticket, T_JOBS));
    free(load<u32>(ticket, T_SCRATCH));
    free(load<u32>(ticket, T_ROWS));
  }
  free(ticket);
  store<u32>(slots + (index << 2), 0);
  slotHint = index;
  ticketCount--;
}

export function planClear(ticket: u32): void {
  store<u32>(ticket, 0, T_PLAN_COUNT);
  store<u32>(ticket, 0, T_RESULT);
  if (RAID) store<u32>(ticket, 0, T_MARKED);
}

export function planAdd(ticket: u32, operation: u32, device: u32, offset: f64, address: u32, length: u32): void {
  let count = load<u32>(ticket, T_PLAN_COUNT);
  let capacity = load<u32>(ticket, T_PLAN_CAPACITY);
  let plan = load<u32>(ticket, T_PLAN);
  if (count == capacity) {
    capacity = capacity ? capacity * 2 : 4;
    plan = resize(plan, capacity * COMMAND_BYTES);
    store<u32>(ticket, plan, T_PLAN);
    store<u32>(ticket, capacity, T_PLAN_CAPACITY);
  }
  let command = plan + count * COMMAND_BYTES;
  store<u32>(command, operation);
  store<u32>(command, device, 4);
  store<f64>(command, offset, 8);
  store<u32>(command, address, 16);
  store<u32>(command, length, 20);
  store<u64>(command, 0, 24);
  store<u32>(ticket, count + 1, T_PLAN_COUNT);
}

export function planFlush(ticket: u32, device: u32): void {
  planAdd(ticket, FLUSH, device, 0, 0, 0);
}

/** Puts the plan aside and begins another one, or brings the one that is aside back. */
export function planSwap(ticket: u32): void {
  for (let i: u32 = 0; i < 12; i += 4) {
    let mine = load<u32>(ticket + i, T_PLAN);
    store<u32>(ticket + i, load<u32>(ticket + i, T_ASIDE), T_PLAN);
    store<u32>(ticket + i, mine, T_ASIDE);
  }
}

/** A command for blocks of a storage volume of several members. */
export function planMark(ticket: u32, operation: u32, handle: u32, block: u32, address: u32, length: u32, check: u32, key: usize): void {
  planAdd(ticket, operation | MARKED, handle, 0, address, length);
  let command = load<u32>(ticket, T_PLAN) + (load<u32>(ticket, T_PLAN_COUNT) - 1) * COMMAND_BYTES;
  store<u32>(command, block, 8);
  store<u32>(command, check, 12);
  store<u32>(command, key, 24);
  store<u32>(ticket, load<u32>(ticket, T_MARKED) + 1, T_MARKED);
}

/** A failed command is remembered in its reserved word, so that an operation can tell which of several copies failed. */
export function planComplete(ticket: u32, index: u32, result: u32): void {
  assert(index < load<u32>(ticket, T_PLAN_COUNT));
  if (!result) return;
  store<u32>(load<u32>(ticket, T_PLAN) + index * COMMAND_BYTES, result, 28);
  if (!load<u32>(ticket, T_RESULT)) store<u32>(ticket, index, T_RESULT_INDEX);
  if (result > load<u32>(ticket, T_RESULT)) store<u32>(ticket, result, T_RESULT);
}

export function planOperation(ticket: u32, index: u32): u32 {
  return load<u32>(load<u32>(ticket, T_PLAN) + index * COMMAND_BYTES);
}
/** The first command, a write, goes through to the medium: it is written and flushed in one. */
export function planThrough(ticket: u32): void { store<u32>(load<u32>(ticket, T_PLAN), 1, 24); }

export function planIsThrough(ticket: u32, index: u32): bool {
  return load<u32>(load<u32>(ticket, T_PLAN) + index * COMMAND_BYTES, 24) != 0;
}
export function planResult(ticket: u32, index: u32): u32 {
  return load<u32>(load<u32>(ticket, T_PLAN) + index * COMMAND_BYTES, 28);
}
export function planMarked(ticket: u32, index: u32): bool {
  return (load<u32>(load<u32>(ticket, T_PLAN) + index * COMMAND_BYTES) & MARKED) != 0;
}
export function planDevice(ticket: u32, index: u32): u32 {
  return load<u32>(load<u32>(ticket, T_PLAN) + index * COMMAND_BYTES, 4);
}
export function planAddress(ticket: u32, index: u32): u32 {
  return load<u32>(load<u32>(ticket, T_PLAN) + index * COMMAND_BYTES, 16);
}
