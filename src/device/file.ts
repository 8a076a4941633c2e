// A regular file or block device, by node:fs (Node, Deno and Bun).
//
// Callbacks, not fs.promises: 4 KiB reads from the page cache, 13 k/s by promises at depth 1 against about 85 k/s by callbacks at depth 32 (2026-11).
// Every count is checked. A short count is not yet an error: the rest is asked for again, and then the system says what is wrong (ENOSPC, EIO) or that
// there is nothing more. The end of a file before its size is an error.
//
// Views of the core's memory are legal buffers; the plan loop sees to it that they stay put while a call is in flight.
import * as fs from 'node:fs';
import * as os from 'node:os';
import { dirname } from 'node:path';
import { isVarveError, messageOf, VarveError, type VarveErrorCode } from '../errors.ts';
import { formatSize, parseSize } from '../units.ts';
import { deviceNumber, lockDescriptor, unlockDescriptor, type LockMode } from './claim.ts';
import { canPunch, punch, punchSync } from './punch.ts';
import {
  checkBytes,
  checkOpen,
  checkRange,
  type CallbackDevice,
  type PromptDevice,
  type DeviceSupports,
  type SyncStorageDevice,
  type WriteOptions,
} from './device.ts';

export interface FileDeviceOptions {
  /** Opens it for reading only. */
  readonly readOnly?: boolean | undefined;
  /** `true`: makes the file if it is not there. `'exclusive'`: it must not be there (VARVE_EXISTS). */
  readonly create?: boolean | 'exclusive' | undefined;
  /** Bytes, or `'256MiB'`. A file that is shorter is made so long (sparse); one that is longer keeps its length, and only so much of it is used. */
  readonly sizeBytes?: number | string | undefined;
  /** Refuses a symbolic link as last part of the path. For files that the pool owns. */
  readonly noFollow?: boolean | undefined;
  /** Block devices: claims it, so that no mount or other claimant has it meanwhile (VARVE_LOCKED). Deno cannot, and goes without. */
  readonly exclusive?: boolean | undefined;
  /** Past the page cache (O_DIRECT), where the platform and the file system have that; see `FileDevice.direct`. For `RawDevice`, which knows how. */
  readonly direct?: boolean | undefined;
  /** A descriptor with the lock that keeps others from the file: the lock then also outlives this process as long as a discard does that it has begun. */
  readonly lockFd?: number | undefined;
  /** Permissions of a file that is made; default 0o600. */
  readonly mode?: number | undefined;
}

/** Linux ends one read or write at this many bytes (MAX_RW_COUNT). */
const TRANSFER_BYTES_MAX = 0x7ffff000;

/**
 * The thread pool works on so many calls at a time, unless it was made larger. What comes while it has that many is held back until it has no more than
 * that, and goes to it in one burst: each call that finds a thread asleep costs a system call that wakes it, and a burst wakes each thread once.
 */
const THREADS = 4;
const SPARE_MAX = 64;

/**
 * A read in the call itself that took longer was not from the page cache, or the machine is busy. The next so many reads go to the thread pool before one
 * is tried again, and twice as many each time that the try is slow again: a slow disk holds the program up for one read in thousands, not for each.
 */
const PROMPT_MILLISECONDS = 0.1;
const PROMPT_REST = 512;
const PROMPT_REST_MAX = 65536;
/**
 * After so many reads in a row that were fast only every so many-th is timed: looking at the clock twice takes 0.15 of the 1.6 µs (2026-11). One that is slow
 * makes all be timed again, when reads go on in the call.
 */
const PROMPT_TRUST = 256;
const PROMPT_UNTIMED = 8;

/**
 * Linux: a write on a descriptor with O_DSYNC is durable when it returns, as if fdatasync had followed for its range; one request to the thread pool and one
 * answer less. Elsewhere what such a descriptor promises is not known, and a flush follows the write. As in Deno: a program with permissions for its own files
 * would ask its user for all of them before it opens one of its descriptors anew.
 */
const O_DSYNC = process.platform === 'linux' && process.versions['deno'] === undefined ? fs.constants.O_DSYNC : undefined;

/**
 * File systems that note a write that failed in the file, whoever made it, so that a flush through any descriptor tells of it (statfs(2): ext2 to ext4, XFS,
 * Btrfs, F2FS, bcachefs, ZFS, tmpfs, overlayfs). Network file systems are not among them: NFS kept it by who wrote until Linux 5.4.
 */
const KEEPS_FAILURES: ReadonlySet<number> = new Set([
  0xef53, 0x58465342, 0x9123683e, 0xf2f52010, 0xca451a4e, 0x2fc12fc1, 0x01021994, 0x794c7630,
]);

/**
 * The file once more, with O_DSYNC, for all that makes something durable; `fd` itself where that is not to be had: when the runtime did not pass the flag on
 * (asked of the kernel, not of the runtime), and without /proc. A block device notes failures in itself, whatever its node lies on.
 */
function openThrough(fd: number, kind: 'file' | 'block', direct: boolean): number {
  if (O_DSYNC === undefined) return fd;
  const wanted = O_DSYNC | (direct ? fs.constants.O_DIRECT : 0);
  let through = fd;
  try {
    const link = `/proc/self/fd/${fd}`;
    if (kind === 'file' && !KEEPS_FAILURES.has(fs.statfsSync(link).type)) return fd;
    through = fs.openSync(link, fs.constants.O_RDWR | wanted);
    const flags = Number.parseInt(/^flags:\s*([0-7]+)/m.exec(fs.readFileSync(`/proc/self/fdinfo/${through}`, 'utf8'))?.[1] ?? '', 8);
    if ((flags & wanted) === wanted) return through;
  } catch {
    // not known, so not used
  }
  if (through !== fd) fs.closeSync(through);
  return fd;
}

const NOTHING = new Uint8Array(0);
const nobody = (): void => {};

/** One read or write in as many calls as the system makes of it; then it is there for another. */
class Transfer {
  /** Hears when it is over: with the system's error, with null when nothing came or was taken and no error said why, or with undefined. */
  readonly #over: (transfer: Transfer, error: Error | null | undefined) => void;
  fd = -1;
  write = false;
  offset = 0;
  bytes: Uint8Array = NOTHING;
  /** Of the bytes, when it began: a buffer that is transferred away meanwhile has none. */
  length = 0;
  ended: (error: unknown) => void = nobody;
  done = 0;
  readonly #called = (error: Error | null, count: number): void => {
    if (error || count <= 0) return this.#over(this, error);
    this.done += count;
    if (this.done < this.length) this.next();
    else this.#over(this, undefined);
  };

  constructor(over: (transfer: Transfer, error: Error | null | undefined) => void) {
    this.#over = over;
  }

  next(): void {
    const { bytes, done } = this;
    const length = Math.min(this.length - done, TRANSFER_BYTES_MAX);
    try {
      if (bytes.length !== this.length)
        throw new TypeError(`expected the buffer to stay as it is until the call ends, its length is ${bytes.length} now`);
      if (this.write) fs.write(this.fd, bytes, done, length, this.offset + done, this.#called);
      else fs.read(this.fd, bytes, done, length, this.offset + done, this.#called);
    } catch (error) {
      queueMicrotask(() => this.#over(this, error as Error)); // the buffer was transferred away before it was our turn
    }
  }
}

export class FileDevice implements SyncStorageDevice, CallbackDevice, PromptDevice {
  readonly path: string;
  readonly blockSize = 512;
  readonly supports: DeviceSupports;
  readonly readOnly: boolean;
  /** Reads and writes go past the page cache: buffers, offsets and lengths have to be aligned. */
  readonly direct: boolean;
  /** What is at the path. */
  readonly kind: 'file' | 'block';
  readonly #fd: number;
  readonly #lockFd: number | undefined;
  /**
   * What makes something durable goes through this one, flushes and writes with `fua` alike. It may be `#fd`. Never two of them: Linux tells each descriptor once
   * of a write that failed, so a second one would tell of the same failure again, to the retry.
   */
  readonly #throughFd: number;
  #sizeBytes: number;
  #inFlight = 0;
  #claimed = false;
  /** Transfers that the thread pool has. */
  #started = 0;
  #held: Transfer[] = [];
  /** Reads that go to the thread pool before one is tried in the call again, and how many it will be after the next slow one. */
  #resting = 0;
  #rest = PROMPT_REST;
  /** Reads in the call since one was slow. */
  #prompt = 0;
  /** Transfers that are over. */
  readonly #spare: Transfer[] = [];
  readonly #over = (transfer: Transfer, error: Error | null | undefined): void => {
    const { write, offset, bytes, done, ended } = transfer;
    if (--this.#started <= THREADS && this.#held.length > 0) {
      const held = this.#held;
      this.#held = [];
      this.#started += held.length;
      for (const each of held) each.next();
    }
    const verb = write ? 'write' : 'read';
    transfer.bytes = NOTHING;
    transfer.ended = nobody;
    if (this.#spare.length < SPARE_MAX) this.#spare.push(transfer);
    if (error === undefined) this.#ended(ended, undefined);
    else this.#ended(ended, error ? failed(this.#doing(verb, offset, bytes), error) : this.#short(verb, offset, bytes, done));
  };
  #closed: Promise<void> | undefined;
  #drained: (() => void) | undefined;

  private constructor(
    path: string,
    fd: number,
    sizeBytes: number,
    readOnly: boolean,
    kind: 'file' | 'block',
    direct: boolean,
    lockFd: number | undefined,
  ) {
    this.#fd = fd;
    this.#lockFd = lockFd;
    // Now, not when it is first asked for: a descriptor tells of failures since it was opened.
    this.#throughFd = readOnly ? fd : openThrough(fd, kind, direct);
    this.supports = { discard: !readOnly && canPunch(), fua: this.#throughFd === fd ? 'emulated' : 'native', sync: true, persistent: true };
    this.direct = direct;
    this.path = path;
    this.#sizeBytes = sizeBytes;
    this.readOnly = readOnly;
    this.kind = kind;
  }

  /**
   * Opens a regular file or block device; anything else is refused.
   * @throws VarveError VARVE_NOT_FOUND, VARVE_EXISTS, VARVE_READ_ONLY (no permission to write), VARVE_LOCKED, VARVE_UNSUPPORTED, VARVE_NO_SPACE, VARVE_IO
   */
  // oxlint-disable-next-line require-await -- errors are to reject
  static async open(path: string, options: FileDeviceOptions = {}): Promise<FileDevice> {
    return FileDevice.openSync(path, options);
  }

  /** As `open`, in this call. */
  static openSync(path: string, options: FileDeviceOptions = {}): FileDevice {
    const doing = `opening '${path}'`;
    const readOnly = options.readOnly ?? false;
    const wanted = options.sizeBytes === undefined ? undefined : parseSize(options.sizeBytes);
    const { O_RDONLY, O_RDWR, O_CREAT, O_EXCL } = fs.constants;
    // O_NONBLOCK: opening a FIFO or a modem must not wait. It means nothing to files and block devices. Absent on Windows, as O_NOFOLLOW.
    let flags = (readOnly ? O_RDONLY : O_RDWR) | (fs.constants.O_NONBLOCK ?? 0);
    if (options.noFollow) flags |= fs.constants.O_NOFOLLOW ?? 0;
    if (options.create && !readOnly) flags |= O_CREAT | (options.create === 'exclusive' ? O_EXCL : 0);
    else if (options.exclusive && isBlockDevice(path)) flags |= O_EXCL;

    const directFlag = options.direct ? (fs.constants.O_DIRECT ?? 0) : 0;
    let direct = directFlag !== 0;
    let fd: number;
    try {
      fd = openAs(path, flags | directFlag, options);
    } catch (error) {
      // EINVAL: a file system that has no direct I/O.
      if (!direct || errnoOf(error) !== 'EINVAL') throw notOpened(doing, error, readOnly);
      direct = false;
      try {
        fd = openAs(path, flags, options);
      } catch (again) {
        throw notOpened(doing, again, readOnly);
      }
    }
    try {
      const stat = fs.fstatSync(fd);
      const kind = stat.isFile() ? 'file' : stat.isBlockDevice() ? 'block' : undefined;
      if (!kind) throw new VarveError('VARVE_UNSUPPORTED', doing, { detail: 'it is neither a regular file nor a block device' });
      let sizeBytes = kind === 'file' ? stat.size : blockDeviceBytes(fd, stat.rdev);
      if (wanted !== undefined) {
        if (wanted > sizeBytes) {
          if (kind === 'block' || readOnly) {
            throw new VarveError('VARVE_NO_SPACE', doing, {
              detail: `it has ${formatSize(sizeBytes)}, ${formatSize(wanted)} are asked for`,
            });
          }
          fs.ftruncateSync(fd, wanted);
        }
        sizeBytes = wanted;
      }
      return new FileDevice(path, fd, sizeBytes, readOnly, kind, direct, options.lockFd);
    } catch (error) {
      fs.closeSync(fd);
      // It was not there before, and whoever asked does not get it: nobody else would take it away.
      if (options.create === 'exclusive' && !readOnly) fs.unlinkSync(path);
      throw failed(doing, error);
    }
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /** The descriptor, for locks that live on the open file. Valid until `close`. */
  get fd(): number {
    return this.#fd;
  }

  /**
   * Takes it for this process, until it is closed or the process ends, however that ends; keeps out whoever claims it in the same way. `'shared'`: together
   * with others that do so, against those that claim it for themselves.
   * @throws VarveError VARVE_LOCKED
   */
  claimSync(mode: LockMode = 'exclusive'): void {
    const doing = `claiming '${this.path}'`;
    if (!lockDescriptor(doing, this.#fd, mode)) {
      throw new VarveError('VARVE_LOCKED', doing, { detail: 'it is claimed already, by this process or another' });
    }
    this.#claimed = true;
  }

  /** Makes a file longer, sparse, or shorter. Not for use by a log under way: its volumes keep their size. */
  resizeSync(sizeBytes: number): void {
    const doing = `resizing '${this.path}'`;
    this.#checkWritable(doing);
    if (this.kind === 'block') throw new VarveError('VARVE_UNSUPPORTED', doing, { detail: 'it is a block device' });
    try {
      fs.ftruncateSync(this.#fd, sizeBytes);
    } catch (error) {
      throw failed(doing, error);
    }
    this.#sizeBytes = sizeBytes;
  }

  read(offset: number, into: Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      this.readThen(offset, into, (error) => (error === undefined ? resolve() : reject(error)));
    });
  }

  write(offset: number, from: Uint8Array, options?: WriteOptions): Promise<void> {
    const through = options?.fua === true && this.#throughFd !== this.#fd;
    const written = new Promise<void>((resolve, reject) => {
      this.#writeThen(through ? this.#throughFd : this.#fd, offset, from, (error) => (error === undefined ? resolve() : reject(error)));
    });
    return options?.fua && !through ? written.then(() => this.flush()) : written;
  }

  readThen(offset: number, into: Uint8Array, ended: (error: unknown) => void): void {
    try {
      this.#check('read', offset, into);
    } catch (error) {
      return queueMicrotask(() => ended(error));
    }
    if (into.length === 0) return queueMicrotask(() => ended(undefined));
    this.#start(this.#fd, false, offset, into, ended);
  }

  writeThen(offset: number, from: Uint8Array, ended: (error: unknown) => void): void {
    this.#writeThen(this.#fd, offset, from, ended);
  }

  #writeThen(fd: number, offset: number, from: Uint8Array, ended: (error: unknown) => void): void {
    try {
      this.#check('write', offset, from);
      if (this.readOnly) this.#checkWritable(this.#doing('write', offset, from));
    } catch (error) {
      return queueMicrotask(() => ended(error));
    }
    if (from.length === 0) return queueMicrotask(() => ended(undefined));
    this.#start(fd, true, offset, from, ended);
  }

  /** Hands a transfer to the thread pool, or holds it back. */
  #start(fd: number, write: boolean, offset: number, bytes: Uint8Array, ended: (error: unknown) => void): void {
    const transfer = this.#spare.pop() ?? new Transfer(this.#over);
    transfer.fd = fd;
    transfer.write = write;
    transfer.offset = offset;
    transfer.bytes = bytes;
    transfer.length = bytes.length;
    transfer.ended = ended;
    transfer.done = 0;
    this.#inFlight++;
    if (this.#started < THREADS) {
      this.#started++;
      transfer.next();
    } else this.#held.push(transfer);
  }

  flush(): Promise<void> {
    return new Promise((resolve, reject) => {
      checkOpen(`flush of '${this.path}'`, this.#closed !== undefined);
      if (this.readOnly) return resolve();
      this.#inFlight++;
      // fdatasync also writes what is needed of the inode to find the data: the size, the map.
      fs.fdatasync(this.#throughFd, (error) => {
        if (error) this.#ended(reject, failed(`flush of '${this.path}'`, error));
        else this.#ended(resolve);
      });
    });
  }

  readPrompt(offset: number, into: Uint8Array): boolean {
    if (this.kind !== 'file' || this.direct) return false;
    if (this.#resting > 0) {
      this.#resting--;
      return false;
    }
    const timed = ++this.#prompt < PROMPT_TRUST || this.#prompt % PROMPT_UNTIMED === 0;
    const before = timed ? performance.now() : 0;
    let count: number;
    try {
      this.#check('read', offset, into);
      count = fs.readSync(this.#fd, into, 0, into.length, offset);
    } catch {
      return false;
    }
    if (timed) {
      if (performance.now() - before <= PROMPT_MILLISECONDS) this.#rest = PROMPT_REST;
      else {
        this.#resting = this.#rest;
        this.#rest = Math.min(this.#rest * 2, PROMPT_REST_MAX);
        this.#prompt = 0;
      }
    }
    return count === into.length;
  }

  readSync(offset: number, into: Uint8Array): void {
    this.#check('read', offset, into);
    for (let done = 0; done < into.length;) {
      let count: number;
      try {
        count = fs.readSync(this.#fd, into, done, Math.min(into.length - done, TRANSFER_BYTES_MAX), offset + done);
      } catch (error) {
        throw failed(this.#doing('read', offset, into), error);
      }
      if (count <= 0) throw this.#short('read', offset, into, done);
      done += count;
    }
  }

  writeSync(offset: number, from: Uint8Array, options?: WriteOptions): void {
    this.#check('write', offset, from);
    this.#checkWritable(this.#doing('write', offset, from));
    const fd = options?.fua ? this.#throughFd : this.#fd;
    for (let done = 0; done < from.length;) {
      let count: number;
      try {
        count = fs.writeSync(fd, from, done, Math.min(from.length - done, TRANSFER_BYTES_MAX), offset + done);
      } catch (error) {
        throw failed(this.#doing('write', offset, from), error);
      }
      if (count <= 0) throw this.#short('write', offset, from, done);
      done += count;
    }
    if (options?.fua && this.#throughFd === this.#fd) this.flushSync();
  }

  flushSync(): void {
    checkOpen(`flush of '${this.path}'`, this.#closed !== undefined);
    if (this.readOnly) return;
    try {
      fs.fdatasyncSync(this.#throughFd);
    } catch (error) {
      throw failed(`flush of '${this.path}'`, error);
    }
  }

  /** Gives the space of the range back to the file system (a hole) or to the device; it reads zero afterwards where the device does so, files always. */
  discard(offset: number, length: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#checkDiscard(offset, length);
      if (length === 0) return resolve();
      this.#inFlight++;
      this.#cleaned()
        .then(() => punch(this.#fd, this.kind, offset, length, this.#lockFd))
        .then(
          () => this.#ended(resolve),
          (error: unknown) => this.#ended(reject, error),
        );
    });
  }

  discardSync(offset: number, length: number): void {
    this.#checkDiscard(offset, length);
    if (this.kind === 'block') this.flushSync(); // see #cleaned
    if (length > 0) punchSync(this.#fd, this.kind, offset, length, this.#lockFd);
  }

  /** Linux refuses (EBUSY) to discard what is dirty in the page cache of a block device that is claimed. */
  async #cleaned(): Promise<void> {
    if (this.kind === 'block') await this.flush();
  }

  #checkDiscard(offset: number, length: number): void {
    const doing = `discard of ${length} bytes at ${offset} of '${this.path}'`;
    checkOpen(doing, this.#closed !== undefined);
    this.#checkWritable(doing);
    checkRange(doing, this.#sizeBytes, offset, length);
    if (!this.supports.discard) throw new VarveError('VARVE_UNSUPPORTED', doing, { detail: 'only Linux has the programs for it' });
  }

  /** Waits for the calls in flight (a descriptor that is closed under them could be another file's by then). Does not flush. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  /** Before anything was asked of it: by who opened it and cannot use it. */
  closeSync(): void {
    this.#closed ??= Promise.resolve();
    this.#giveBack();
    fs.closeSync(this.#fd);
  }

  /** All but the descriptor itself. */
  #giveBack(): void {
    if (this.#claimed) unlockDescriptor(this.#fd);
    if (this.#throughFd !== this.#fd) fs.closeSync(this.#throughFd);
  }

  async #close(): Promise<void> {
    if (this.#inFlight > 0) await new Promise<void>((resolve) => (this.#drained = resolve));
    this.#giveBack();
    await new Promise<void>((resolve, reject) =>
      fs.close(this.#fd, (error) => (error ? reject(failed(`closing '${this.path}'`, error)) : resolve())),
    );
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #ended<T extends unknown[]>(settle: (...result: T) => void, ...result: T): void {
    this.#inFlight--;
    settle(...result);
    if (this.#inFlight === 0) this.#drained?.();
  }

  #doing(verb: string, offset: number, bytes: Uint8Array): string {
    return `${verb} of ${bytes.length} bytes at ${offset} of '${this.path}'`;
  }

  #check(verb: string, offset: number, bytes: Uint8Array): void {
    checkBytes(verb, bytes);
    if (this.#closed !== undefined) checkOpen(this.#doing(verb, offset, bytes), true);
    if (!(offset >= 0 && offset + bytes.length <= this.#sizeBytes && Number.isSafeInteger(offset))) {
      checkRange(this.#doing(verb, offset, bytes), this.#sizeBytes, offset, bytes.length);
    }
  }

  #checkWritable(doing: string): void {
    if (this.readOnly) throw new VarveError('VARVE_READ_ONLY', doing);
  }

  /** Nothing came, or nothing was taken, and no error said why. */
  #short(verb: 'read' | 'write', offset: number, bytes: Uint8Array, done: number): VarveError {
    const detail = verb === 'read' ? `the file ends after ${done} of them` : `only ${done} of them were taken`;
    return new VarveError(verb === 'read' ? 'VARVE_IO' : 'VARVE_NO_SPACE', this.#doing(verb, offset, bytes), { detail });
  }
}

/** Makes what was created, renamed or deleted in a directory durable. A no-op where directories cannot be opened (Windows). */
export function syncDirectory(path: string): void {
  let fd: number;
  try {
    fd = fs.openSync(path, fs.constants.O_RDONLY);
  } catch (error) {
    if (process.platform === 'win32') return;
    throw failed(`opening directory '${path}'`, error);
  }
  try {
    fs.fsyncSync(fd);
  } catch (error) {
    throw failed(`flush of directory '${path}'`, error);
  } finally {
    fs.closeSync(fd);
  }
}

/** As `syncDirectory`, for directories that `mkdir` made on the way to this one: `madeFrom` is what it answered, the outermost of them. */
export function syncMadeDirectories(path: string, madeFrom: string | undefined): void {
  if (madeFrom === undefined) return;
  for (let at = path; at.length >= madeFrom.length && at !== dirname(at); at = dirname(at)) syncDirectory(dirname(at));
}

const CODES: Readonly<Record<string, VarveErrorCode>> = {
  ENOSPC: 'VARVE_NO_SPACE',
  EDQUOT: 'VARVE_NO_SPACE',
  EFBIG: 'VARVE_NO_SPACE',
  ENOENT: 'VARVE_NOT_FOUND',
  ENOTDIR: 'VARVE_NOT_FOUND',
  EEXIST: 'VARVE_EXISTS',
  EROFS: 'VARVE_READ_ONLY',
  EACCES: 'VARVE_READ_ONLY',
  EPERM: 'VARVE_READ_ONLY',
  EBUSY: 'VARVE_LOCKED',
  ELOOP: 'VARVE_UNSUPPORTED',
  EISDIR: 'VARVE_UNSUPPORTED',
  ENXIO: 'VARVE_UNSUPPORTED',
};

/** The system's name for what went wrong, ENOENT say, if the system said it. */
export function errnoOf(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  if ('code' in error && typeof error.code === 'string') return error.code;
  // Deno 2.9 gives a code to the more frequent errors only: EFBIG and EDQUOT come as `File too large (os error 27)`.
  const number = Number(/\(os error (\d+)\)$/.exec(error.message)?.[1]);
  return Object.entries(os.constants.errno).find(([, value]) => value === number)?.[0];
}

/** What the system said, as a VarveError; those that are one already stay. */
export function failed(doing: string, error: unknown): Error {
  if (error instanceof VarveError || error instanceof RangeError || error instanceof TypeError) return error;
  return new VarveError(CODES[errnoOf(error) ?? ''] ?? 'VARVE_IO', doing, { detail: messageOf(error), cause: error });
}

/** One that may not even be read is not merely read-only. */
function notOpened(doing: string, error: unknown, readOnly: boolean): Error {
  const told = failed(doing, error);
  return readOnly && isVarveError(told, 'VARVE_READ_ONLY')
    ? new VarveError('VARVE_IO', doing, { detail: messageOf(error), cause: error })
    : told;
}

/** Opens with O_EXCL where the runtime can. */
function openAs(path: string, flags: number, options: FileDeviceOptions): number {
  const mode = options.mode ?? 0o600;
  try {
    return fs.openSync(path, flags, mode);
  } catch (error) {
    // Deno answers EEXIST to O_EXCL without O_CREAT, even to the first (2.9, 2026-11).
    if (!(options.exclusive && !options.create && errnoOf(error) === 'EEXIST')) throw error;
    return fs.openSync(path, flags & ~fs.constants.O_EXCL, mode);
  }
}

function isBlockDevice(path: string): boolean {
  try {
    return fs.statSync(path).isBlockDevice();
  } catch {
    return false;
  }
}

/** fstat says 0. Linux has the size in /sys; elsewhere the end is searched for. */
function blockDeviceBytes(fd: number, rdev: number): number {
  try {
    const sectors = Number(fs.readFileSync(`/sys/dev/block/${deviceNumber(rdev)}/size`, 'utf8').trim());
    if (Number.isSafeInteger(sectors) && sectors > 0) return sectors * 512;
  } catch {
    // no /sys
  }
  return bisectBytes((offset) => {
    try {
      return fs.readSync(fd, new Uint8Array(1), 0, 1, offset) === 1;
    } catch {
      return false;
    }
  });
}

/**
 * The size of something of which only single bytes can be tried.
 * @param has is there a byte at this offset? True below the size, false from there on
 */
export function bisectBytes(has: (offset: number) => boolean): number {
  if (!has(0)) return 0;
  let below = 0; // has
  let above = 512; // has not
  while (above < Number.MAX_SAFE_INTEGER && has(above)) {
    below = above;
    above = Math.min(above * 2, Number.MAX_SAFE_INTEGER);
  }
  while (above - below > 1) {
    const middle = below + Math.floor((above - below) / 2);
    if (has(middle)) below = middle;
    else above = middle;
  }
  return above;
}
