// What goes wrong, and how it is told.
//
// Three kinds of failure, three ways:
//   1. a bad argument            → `TypeError` or `RangeError`, with what was expected and what came;
//   2. trouble that can happen   → `VarveError` with a stable `code`, what was being done, and the `cause`;
//   3. a bug of ours             → the core traps; the log is poisoned and every call rejects with `VARVE_INTERNAL`.
// Programs look at `code`; messages may change in any release.

/** The stable codes. New ones may be added; none changes its meaning. */
export type VarveErrorCode =
  | 'VARVE_NO_SPACE'
  | 'VARVE_CORRUPT'
  | 'VARVE_IO'
  | 'VARVE_FENCED'
  | 'VARVE_LOCKED'
  | 'VARVE_NOT_FOUND'
  | 'VARVE_EXISTS'
  | 'VARVE_LIMIT'
  | 'VARVE_READ_ONLY'
  | 'VARVE_CLOSED'
  | 'VARVE_BUSY'
  | 'VARVE_UNSUPPORTED'
  | 'VARVE_INTERNAL';

const EXPLANATION: Record<VarveErrorCode, string> = {
  VARVE_NO_SPACE: 'no space left',
  VARVE_CORRUPT: 'the bytes that were read are damaged',
  VARVE_IO: 'a storage device failed',
  VARVE_FENCED: 'another writer has taken over',
  VARVE_LOCKED: 'it is open for writing already',
  VARVE_NOT_FOUND: 'there is no such thing',
  VARVE_EXISTS: 'the name is taken',
  VARVE_LIMIT: 'a limit of the format or of memory is reached',
  VARVE_READ_ONLY: 'it is read-only',
  VARVE_CLOSED: 'it is closed',
  VARVE_BUSY: 'it cannot proceed until something else has finished',
  VARVE_UNSUPPORTED: 'it is not supported here',
  VARVE_INTERNAL: 'a bug in Varve; nothing more is read or written through this log, and what was flushed is safe',
};

export interface VarveErrorOptions {
  /** What exactly is wrong; replaces the general explanation of the code. */
  readonly detail?: string | undefined;
  readonly cause?: unknown;
  /** The storage volume (id) where it happened, if it happened on one. */
  readonly volume?: number | undefined;
  /** The block (LBA in that storage volume's data area) where it happened. */
  readonly block?: number | undefined;
}

/** Trouble with a stable `code`. `message` reads "what was being done: what is wrong". */
export class VarveError extends Error {
  override readonly name = 'VarveError';
  readonly code: VarveErrorCode;
  /** What was being done, as in "write of 4096 bytes at 8192 of 'db'". */
  readonly doing: string;
  readonly volume: number | undefined;
  readonly block: number | undefined;

  constructor(code: VarveErrorCode, doing: string, options: VarveErrorOptions = {}) {
    const where =
      options.volume === undefined
        ? ''
        : ` (storage volume ${options.volume}${options.block === undefined ? '' : `, block ${options.block}`})`;
    super(`${doing}: ${options.detail ?? EXPLANATION[code]}${where}`, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.doing = doing;
    this.volume = options.volume;
    this.block = options.block;
  }
}

/** Is this a VarveError (of that code)? Looks at the code, so it also knows errors that came from another copy of the library or another realm. */
export function isVarveError(error: unknown, code?: VarveErrorCode): error is VarveError {
  if (!(error instanceof Error) || !('code' in error) || typeof error.code !== 'string') return false;
  return code === undefined ? error.code in EXPLANATION : error.code === code;
}

/** The core's failure codes (assembly/abi/status.ts), by number. 11 is RANGE: a bad argument, no VarveError. */
const CORE_CODES: readonly (VarveErrorCode | undefined)[] = [
  undefined,
  'VARVE_NO_SPACE',
  'VARVE_CORRUPT',
  'VARVE_IO',
  'VARVE_FENCED',
  'VARVE_LOCKED',
  'VARVE_NOT_FOUND',
  'VARVE_EXISTS',
  'VARVE_LIMIT',
  'VARVE_READ_ONLY',
  'VARVE_CLOSED',
  undefined,
  'VARVE_BUSY',
  'VARVE_UNSUPPORTED',
];
export const CORE_LIMIT = 8;
export const CORE_RANGE = 11;
export const CORE_BUSY = 12;

/**
 * The error for a failure that the core reported.
 * @param failure the core's code, 1 … 13
 * @param doing what was being done
 * @param place the storage volume and block that the core names; left out where there is none
 * @param cause the device's error, if one led to this
 */
export function errorFromCore(
  failure: number,
  doing: string,
  place?: { volume: number; block: number },
  cause?: unknown,
): VarveError | RangeError {
  if (failure === CORE_RANGE) return new RangeError(`${doing}: expected a range inside the volume, or a number inside its bounds`);
  const code = CORE_CODES[failure];
  const detail = code === undefined ? `the core failed with the unknown code ${failure}` : undefined;
  return new VarveError(code ?? 'VARVE_INTERNAL', doing, { ...place, detail, cause });
}

/** What an error says, and in parentheses its cause where that says more; for people, and for messages that quote another one. */
export function messageOf(error: unknown, levels = 8): string {
  if (!(error instanceof Error)) return String(error);
  const { message, cause } = error;
  if (cause === undefined || levels === 0) return message;
  const because = messageOf(cause, levels - 1);
  return message.includes(because) ? message : `${message} (${because})`;
}
