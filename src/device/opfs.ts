// A file of the origin private file system, by its synchronous access handle: browsers, in a dedicated worker.
//
// Every count that comes back is checked. At the quota Chromium throws QuotaExceededError, Firefox takes less than it was given or nothing and says no
// word, and some versions answer with a negative number as 2^32 less something. All three are `VARVE_NO_SPACE`. A short count is not yet an error: the
// rest is offered again, and when nothing is taken then, there is no space.
//
// The file gets its whole size when it is opened: both engines charge a sparse file to the quota in full, so what can be refused is refused there, and no
// later write inside of the size needs more.
//
// One handle excludes all others. After the end of a worker its handles stay for a moment (Chromium 180 ms, Firefox 15 ms, 2026-11): opening is tried
// again for two seconds.
//
// A call costs 50 to 350 µs in Firefox whatever its size, so the plan loop's calls, which are whole records, are passed on as they are.
//
// What is done when a call returns is answered by a promise that is resolved already, and who awaits only such promises never leaves the microtasks: a check,
// a compaction or a long read would be one task of seconds in which an owner (src/opfs/owner.ts) answers no ping and hears no `release`, so that its
// clients take it for frozen and its own page ends it with what was not flushed. So once in `TASK_MS` the answer comes in a new task.
import { nextTask } from '../turn.ts';
import { messageOf, VarveError } from '../errors.ts';
import { formatSize, parseSize } from '../units.ts';
import { checkBytes, checkOpen, checkRange, type DeviceSupports, type SyncStorageDevice, type WriteOptions } from './device.ts';

/** What is used of `FileSystemSyncAccessHandle`, which the types of pages do not have. */
export interface AccessHandle {
  read(into: Uint8Array, options: { at: number }): number;
  write(from: Uint8Array, options: { at: number }): number;
  truncate(sizeBytes: number): void;
  getSize(): number;
  flush(): void;
  close(): void;
}

interface AccessibleFile extends FileSystemFileHandle {
  createSyncAccessHandle(options?: { mode: 'readwrite' | 'read-only' }): Promise<AccessHandle>;
}

export interface OpfsDeviceOptions {
  readonly readOnly?: boolean | undefined;
  /** `true`: makes the file if it is not there. `'exclusive'`: it must not be there (VARVE_EXISTS). */
  readonly create?: boolean | 'exclusive' | undefined;
  /** Bytes, or `'16MiB'`. A file that is shorter is made so long; of one that is longer only so much is used. */
  readonly sizeBytes?: number | string | undefined;
  /** How long opening is tried while another handle has the file, milliseconds. */
  readonly patienceMs?: number | undefined;
}

const PATIENCE_MS = 2000;
const PAUSE_MS = 20;
const RESOLVED = Promise.resolve();
const TASK_MS = 30;
/** The clock is looked at after so many bytes; a call counts as `CALL_BYTES` more, a flush as all of them. */
const LOOK_BYTES = 1 << 18;
const CALL_BYTES = 1 << 15;

/** Of this thread, so of all devices together. */
let unseenBytes = 0;
let taskAt = 0;
let task: Promise<void> | undefined;

export class OpfsDevice implements SyncStorageDevice {
  readonly name: string;
  readonly sizeBytes: number;
  readonly blockSize = 512;
  readonly supports: DeviceSupports = { discard: false, fua: 'emulated', sync: true, persistent: true };
  readonly readOnly: boolean;
  readonly #handle: AccessHandle;
  #closed = false;

  /** Over a handle that is open already; closing the device closes it. `open` is the usual way. */
  constructor(name: string, handle: AccessHandle, sizeBytes: number, readOnly = false) {
    this.name = name;
    this.#handle = handle;
    this.sizeBytes = sizeBytes;
    this.readOnly = readOnly;
  }

  /**
   * Opens a file in a directory of the origin private file system. Only in a dedicated worker.
   * @throws VarveError VARVE_NOT_FOUND, VARVE_EXISTS, VARVE_LOCKED (another handle has it), VARVE_NO_SPACE, VARVE_UNSUPPORTED, VARVE_IO
   */
  static async open(directory: FileSystemDirectoryHandle, name: string, options: OpfsDeviceOptions = {}): Promise<OpfsDevice> {
    const doing = `opening '${name}' of the origin private file system`;
    const readOnly = options.readOnly ?? false;
    const wanted = options.sizeBytes === undefined ? undefined : parseSize(options.sizeBytes);
    if (options.create === 'exclusive' && (await hasFile(directory, name))) throw new VarveError('VARVE_EXISTS', doing);
    let handle: AccessHandle | undefined;
    try {
      const file = (await directory.getFileHandle(name, { create: !readOnly && Boolean(options.create) })) as AccessibleFile;
      handle = await accessHandle(file, readOnly, doing, options.patienceMs ?? PATIENCE_MS);
      let sizeBytes = handle.getSize();
      if (wanted !== undefined) {
        if (wanted > sizeBytes) {
          if (readOnly)
            throw new VarveError('VARVE_NO_SPACE', doing, {
              detail: `it has ${formatSize(sizeBytes)}, ${formatSize(wanted)} are asked for`,
            });
          extend(handle, wanted, doing);
        }
        sizeBytes = wanted;
      }
      return new OpfsDevice(name, handle, sizeBytes, readOnly);
    } catch (error) {
      handle?.close();
      throw failed(doing, error);
    }
  }

  readSync(offset: number, into: Uint8Array): void {
    this.#check('read', offset, into);
    for (let done = 0; done < into.length;) {
      let count: number;
      try {
        count = this.#handle.read(done === 0 ? into : into.subarray(done), { at: offset + done });
      } catch (error) {
        throw failed(this.#doing('read', offset, into), error);
      }
      if (!(count > 0 && count <= into.length - done)) {
        const detail = count === 0 ? `the file ends after ${done} of them` : `expected at most ${into.length - done} bytes, got ${count}`;
        throw new VarveError('VARVE_IO', this.#doing('read', offset, into), { detail });
      }
      done += count;
    }
  }

  writeSync(offset: number, from: Uint8Array, options?: WriteOptions): void {
    this.#check('write', offset, from);
    if (this.readOnly) throw new VarveError('VARVE_READ_ONLY', this.#doing('write', offset, from));
    for (let done = 0; done < from.length;) {
      let count: number;
      try {
        count = this.#handle.write(done === 0 ? from : from.subarray(done), { at: offset + done });
      } catch (error) {
        throw failed(this.#doing('write', offset, from), error);
      }
      if (!(count > 0 && count <= from.length - done)) {
        const detail = `only ${done} of them were taken${count === 0 ? '' : ` (the last call answered ${count})`}`;
        throw new VarveError('VARVE_NO_SPACE', this.#doing('write', offset, from), { detail });
      }
      done += count;
    }
    if (options?.fua) this.flushSync();
  }

  flushSync(): void {
    const doing = `flush of '${this.name}'`;
    checkOpen(doing, this.#closed);
    if (this.readOnly) return;
    try {
      this.#handle.flush();
    } catch (error) {
      throw failed(doing, error);
    }
  }

  read(offset: number, into: Uint8Array): Promise<void> {
    return settled(() => this.readSync(offset, into), into);
  }

  write(offset: number, from: Uint8Array, options?: WriteOptions): Promise<void> {
    return settled(() => this.writeSync(offset, from, options), from);
  }

  flush(): Promise<void> {
    return settled(() => this.flushSync());
  }

  close(): Promise<void> {
    if (this.#closed) return RESOLVED;
    this.#closed = true;
    return settled(() => {
      try {
        this.#handle.close();
      } catch (error) {
        throw failed(`closing '${this.name}'`, error);
      }
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #doing(verb: string, offset: number, bytes: Uint8Array): string {
    return `${verb} of ${bytes.length} bytes at ${offset} of '${this.name}'`;
  }

  #check(verb: string, offset: number, bytes: Uint8Array): void {
    checkBytes(verb, bytes);
    if (this.#closed) checkOpen(this.#doing(verb, offset, bytes), true);
    if (!(offset >= 0 && offset + bytes.length <= this.sizeBytes && Number.isSafeInteger(offset))) {
      checkRange(this.#doing(verb, offset, bytes), this.sizeBytes, offset, bytes.length);
    }
  }
}

async function hasFile(directory: FileSystemDirectoryHandle, name: string): Promise<boolean> {
  try {
    await directory.getFileHandle(name);
    return true;
  } catch (error) {
    if (error instanceof Error && error.name === 'NotFoundError') return false;
    throw failed(`looking for '${name}'`, error);
  }
}

/** A handle, as soon as nobody else has one. */
async function accessHandle(file: AccessibleFile, readOnly: boolean, doing: string, patienceMs: number): Promise<AccessHandle> {
  if (typeof file.createSyncAccessHandle !== 'function') {
    throw new VarveError('VARVE_UNSUPPORTED', doing, {
      detail: 'there are no synchronous access handles here: expected a dedicated worker of a browser that has them',
    });
  }
  return patiently(() => file.createSyncAccessHandle({ mode: readOnly ? 'read-only' : 'readwrite' }), patienceMs);
}

/** What a handle that somebody else has forbids is tried again, for so long. */
export async function patiently<T>(attempt: () => Promise<T>, patienceMs = PATIENCE_MS): Promise<T> {
  for (const end = Date.now() + patienceMs; ;) {
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof Error) || error.name !== 'NoModificationAllowedError' || Date.now() >= end) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
}

/** Firefox throws an error of no particular name when the quota forbids it, so what any engine says here counts as that; the cause has its words. */
function extend(handle: AccessHandle, sizeBytes: number, doing: string): void {
  let cause: unknown;
  try {
    handle.truncate(sizeBytes);
  } catch (error) {
    cause = error;
  }
  if (cause === undefined && handle.getSize() === sizeBytes) return;
  const detail = `a file of ${formatSize(sizeBytes)} is not to be had${cause === undefined ? '' : `: ${messageOf(cause)}`}`;
  throw new VarveError('VARVE_NO_SPACE', doing, { detail, cause });
}

const CODES: Readonly<Record<string, 'VARVE_NO_SPACE' | 'VARVE_NOT_FOUND' | 'VARVE_LOCKED' | 'VARVE_UNSUPPORTED'>> = {
  QuotaExceededError: 'VARVE_NO_SPACE',
  NotFoundError: 'VARVE_NOT_FOUND',
  NoModificationAllowedError: 'VARVE_LOCKED',
  NotSupportedError: 'VARVE_UNSUPPORTED',
  SecurityError: 'VARVE_UNSUPPORTED',
  TypeMismatchError: 'VARVE_UNSUPPORTED',
};

/** What the engine said, as a VarveError; those that are one already stay, and so do complaints about arguments. */
export function failed(doing: string, error: unknown): Error {
  if (error instanceof VarveError || error instanceof RangeError) return error;
  const name = error instanceof Error ? error.name : '';
  return new VarveError(CODES[name] ?? 'VARVE_IO', doing, { detail: messageOf(error), cause: error });
}

function settled(call: () => void, bytes?: Uint8Array): Promise<void> {
  try {
    call();
  } catch (error) {
    return Promise.reject(error);
  }
  if (task !== undefined) return task;
  unseenBytes += CALL_BYTES + (bytes?.length ?? LOOK_BYTES);
  if (unseenBytes < LOOK_BYTES) return RESOLVED;
  unseenBytes = 0;
  if (performance.now() - taskAt < TASK_MS) return RESOLVED;
  return (task = nextTask().then(() => {
    task = undefined;
    taskAt = performance.now();
  }));
}
