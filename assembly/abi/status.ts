// What step() answers, and the codes of failures. The host maps codes to VarveError; numbers are part of the boundary
// and never change their meaning.
import { available, grant } from '../std/allocator';

export const DONE: u32 = 0;
export const PLAN: u32 = 1;
export const WAIT: u32 = 2;
export const MEMORY: u32 = 3;
export const FAILED: u32 = 4;
/** Above it, PLAN has the number of commands. */
export const STATUS_BITS: u32 = 3;

export const ERROR_NO_SPACE: u32 = 1;
export const ERROR_CORRUPT: u32 = 2;
export const ERROR_IO: u32 = 3;
export const ERROR_NOT_FOUND: u32 = 6;
export const ERROR_EXISTS: u32 = 7;
export const ERROR_LIMIT: u32 = 8;
export const ERROR_READ_ONLY: u32 = 9;
export const ERROR_CLOSED: u32 = 10;
export const ERROR_RANGE: u32 = 11;
export const ERROR_BUSY: u32 = 12;
export const ERROR_UNSUPPORTED: u32 = 13;

// Results with which the host completes a command.
export const RESULT_OK: u32 = 0;
export const RESULT_IO: u32 = 1;
export const RESULT_NO_SPACE: u32 = 2;

/** The place of the last failure, for messages: storage volume (0xFFFFFFFF: none) and block in it. */
export let failureCode: u32 = 0;
export let failureVolume: u32 = 0xffffffff;
export let failureBlock: u32 = 0;

export function fail(code: u32): u32 {
  return failAt(code, 0xffffffff, 0);
}

export function failAt(code: u32, volume: u32, block: u32): u32 {
  failureCode = code;
  failureVolume = volume;
  failureBlock = block;
  return FAILED;
}

/** Pages of 64 KiB by which the host must grow the memory before it steps a ticket that answered MEMORY. */
export let memoryNeededPages: u32 = 0;

/** Plans, the checksums of all segments that one flush may complete (128 MiB in segments of 32 KiB), and what submit() keeps back. */
const STEP_ROOM: u32 = 458752;
/** What each step may take without asking, and beyond what it asks for: that, and what is as long as segments have slots. */
let stepRoom: u32 = STEP_ROOM;
export function stepRoomSet(bytes: u32): void { stepRoom = STEP_ROOM + bytes; }

/** As lacks(), of a sum that may be more than there can ever be: then the host is asked for what it does not have. */
export function lacksTimes(count: u32, each: u32, more: u32): bool {
  let bytes = <u64>count * each + more;
  return lacks(bytes < 0xf8000000 ? <u32>bytes : 0xf8000000);
}

/** Whether so many bytes of memory are not there; the host is asked for them then, and the step answers MEMORY. */
export function lacks(bytes: u32): bool {
  bytes += stepRoom;
  if (available() >= bytes) {
    grant(bytes);
    return false;
  }
  memoryNeededPages = (bytes >>> 16) + 2;
  return true;
}
