// What the whole log is doing, as far as several operations must know it.

/** 0 closed or not opened yet, 1 open for reading, 2 open for writing. */
export let mode: u32 = 0;
/** A failure that could not be mended: nothing is written from here on; what is acknowledged stays readable. */
export let failedReadOnly: bool = false;
export const MODE_CLOSED: u32 = 0;
export const MODE_READ: u32 = 1;
export const MODE_WRITE: u32 = 2;

export function modeSet(value: u32): void { mode = value; }
export function failReadOnly(): void { failedReadOnly = true; }

/** Sequence in the newest durable root up to which everything is in images. */
export let replaySequence: u64 = 0;
export function replaySet(value: u64): void { replaySequence = value; }

/** Waiters and jobs ask for background work here; background.ts answers in order of urgency. */
export let rootWanted: bool = false;
export let flushWanted: bool = false;
export let checkpointWanted: bool = false;
export function wantRoot(value: bool): void { rootWanted = value; }
export function wantFlush(value: bool): void { flushWanted = value; }
export function wantCheckpoint(value: bool): void { checkpointWanted = value; }

/** A failed flush took metadata pages with it: the checkpoint that is under way starts anew. */
export let checkpointLost: bool = false;
export function checkpointLostSet(value: bool): void { checkpointLost = value; }

/** Why the last flush failed; 0 once one succeeded. A writer that waits for a flush takes it as its answer. */
export let flushFailure: u32 = 0;
export function flushFailureSet(code: u32): void { flushFailure = code; }

/** Compactions whose moves are not known durable yet: their victims come free with the next flush. */
export let compactedUnflushed: u32 = 0;
export function compactedNote(): void { compactedUnflushed++; }
export function compactedFlushed(): void { compactedUnflushed = 0; }

/** The log is being closed: nothing new begins. */
export let closing: bool = false;
export function closingSet(value: bool): void { closing = value; }

// A device reports a failed flush once, to whoever asked; what anybody wrote before may be gone. It is noted when the command ends, not when its
// ticket is stepped: a flush of somebody else's that succeeds in between covers nothing of that.
/** Of the log's flush: the root that is being committed must be written again. */
export let rootLost: bool = false;
export function rootLostSet(value: bool): void { rootLost = value; }
/** Of a root's flush: the log must give its unflushed range up. */
export let deviceFlushFailed: bool = false;
export function deviceFlushFailedSet(value: bool): void { deviceFlushFailed = value; }
/** Flushes of either that are under way, told neither good nor bad. */
export let logFlushes: u32 = 0;
export let rootFlushes: u32 = 0;
export function logFlushesSet(count: u32): void { logFlushes = count; }
export function rootFlushesSet(count: u32): void { rootFlushes = count; }
export function rootFlushEnds(failed: bool): void {
  rootFlushes--;
  if (failed) deviceFlushFailed = true;
}
/** A flush of neither failed, or one of either that was thought to be a member's own: what both wrote may be gone. */
export function flushLost(): void {
  deviceFlushFailed = true;
  rootLost = true;
}
export function logFlushEnds(failed: bool): void {
  logFlushes--;
  if (failed) rootLost = true;
}

/** Kinds of tickets under way, as bits. */
export let running: u32 = 0;
export function runningSet(bits: u32): void { running = bits; }
