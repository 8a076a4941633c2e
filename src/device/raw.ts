// A block device, past the page cache where the platform lets it (O_DIRECT; Node, Deno and Bun on Linux), buffered elsewhere.
//
//   alignment   Everything in multiples of 4096 bytes, whatever the sector size. Memory of the core is aligned as it is and goes to the device without a
//               copy; other buffers go through slots of aligned memory that all raw devices of the process share (a misaligned buffer is EINVAL at best).
//   size        /sys, else bisected; rounded down to 4096.
//   claim       O_EXCL against mounts, volume managers and other claimants; flock on the device against other programs of this kind, because Deno cannot
//               open with O_EXCL; and a look at what the system says of mounts and holders, because that tells by name who has it.
//   counts      FileDevice checks every one: a write across the end comes back short in some runtimes and as ENOSPC in others.
//
// A regular file may be opened in the same way.
import * as fs from 'node:fs';
import { isAligned, markAligned } from '../aligned.ts';
import { isVarveError, VarveError } from '../errors.ts';
import { deviceNumber, systemUseOf, systemUseOfFile, type LockMode } from './claim.ts';
import {
  checkBytes,
  checkOpen,
  checkRange,
  type CallbackDevice,
  type DeviceSupports,
  type SyncStorageDevice,
  type WriteOptions,
} from './device.ts';
import { FileDevice, type FileDeviceOptions } from './file.ts';

export interface RawDeviceOptions {
  /** Opens it for reading only. */
  readonly readOnly?: boolean | undefined;
  /** Keeps everybody else out (VARVE_LOCKED), until the device is closed or the process ends. Default: true for writing, false for reading. */
  readonly exclusive?: boolean | undefined;
  /** Without `exclusive`: keeps out whoever wants it for himself (VARVE_LOCKED), and lets others share it. Default false. */
  readonly shared?: boolean | undefined;
  /** Past the page cache. Default true; `direct` of the device tells whether it is so. */
  readonly direct?: boolean | undefined;
  /** Uses so many bytes from the start. Default: all. */
  readonly sizeBytes?: number | string | undefined;
  /** Refuses a symbolic link as last part of the path. */
  readonly noFollow?: boolean | undefined;
}

export const RAW_ALIGNMENT_BYTES = 4096;
const SLOT_BYTES = 1 << 20;
/** Of them one is for synchronous calls, which cannot wait for another to come free. */
const SLOTS = 5;

/**
 * Of a write that is larger: a record of 4 MiB in one call occupies one thread and one place in the device's queue, four calls fill both. A log's
 * sequential writes took 110 ms for 128 MiB so, 120 in one call each, 115 to 140 in pieces of half a MiB (bench/direct.ts on a file, 2026-11).
 */
const PIECE_BYTES = 1 << 20;

const ATTEMPTS_MAX = 8;
const ATTEMPT_MS = 50;

/** What the system says of a block device. */
export interface RawGeometry {
  /** Smallest unit that the device takes. */
  readonly logicalBlockBytes: number;
  /** Smallest unit that it writes without reading. */
  readonly physicalBlockBytes: number;
  /** 0: it cannot discard. */
  readonly discardGranularityBytes: number;
}

/** Pieces of aligned memory that buffers which are not aligned go through. */
class Bounce {
  readonly #memory: ArrayBuffer;
  readonly #free: number[] = [];
  readonly #waiting: ((slot: number) => void)[] = [];

  constructor() {
    const pages = (SLOTS * SLOT_BYTES) / 65536;
    this.#memory = new WebAssembly.Memory({ initial: pages, maximum: pages }).buffer as ArrayBuffer;
    markAligned(this.#memory);
    for (let slot = 1; slot < SLOTS; slot++) this.#free.push(slot);
  }

  take(): number | Promise<number> {
    return this.#free.pop() ?? new Promise((resolve) => this.#waiting.push(resolve));
  }

  give(slot: number): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free.push(slot);
    else next(slot);
  }

  view(slot: number, length: number): Uint8Array {
    return new Uint8Array(this.#memory, slot * SLOT_BYTES, length);
  }
}

let shared: Bounce | undefined;
const bounce = (): Bounce => (shared ??= new Bounce());
const SYNC_SLOT = 0;

/**
 * A block device, or a regular file opened like one. When it is claimed (`exclusive`) neither mounts nor other processes of Varve get it; under Deno, which
 * cannot open with O_EXCL and wants `--allow-all` for block devices, `mount` still does.
 */
export class RawDevice implements SyncStorageDevice, CallbackDevice {
  readonly blockSize = RAW_ALIGNMENT_BYTES;
  /**
   * A multiple of 4096: what a partition of an odd number of sectors has behind its last whole block does not belong to it. `replicate` and `restore` of
   * `varve/node`, given the path, take all of it.
   */
  readonly sizeBytes: number;
  readonly supports: DeviceSupports;
  readonly geometry: RawGeometry;
  readonly #file: FileDevice;
  #closed = false;

  private constructor(file: FileDevice, sizeBytes: number, geometry: RawGeometry) {
    this.#file = file;
    this.sizeBytes = sizeBytes;
    this.geometry = geometry;
    this.supports = { ...file.supports, discard: file.supports.discard && (file.kind === 'file' || geometry.discardGranularityBytes > 0) };
  }

  /**
   * @throws VarveError VARVE_LOCKED (mounted, or claimed by somebody), VARVE_NOT_FOUND, VARVE_READ_ONLY (no permission), VARVE_UNSUPPORTED (neither block
   * device nor file; no `flock` program to claim it with), VARVE_IO
   */
  static async open(path: string, options: RawDeviceOptions = {}): Promise<RawDevice> {
    return claiming(() => RawDevice.openSync(path, options));
  }

  /** As `open`, at once. */
  static openSync(path: string, options: RawDeviceOptions = {}): RawDevice {
    const doing = `opening '${path}'`;
    const readOnly = options.readOnly ?? false;
    const exclusive = options.exclusive ?? !readOnly;
    const how: FileDeviceOptions = {
      readOnly,
      exclusive,
      direct: options.direct ?? true,
      sizeBytes: options.sizeBytes,
      noFollow: options.noFollow,
    };
    const file = exclusive ? claimed(path, how) : options.shared === true ? withClaim(path, how, 'shared') : FileDevice.openSync(path, how);
    try {
      const sizeBytes = file.sizeBytes - (file.sizeBytes % RAW_ALIGNMENT_BYTES);
      return new RawDevice(file, sizeBytes, geometryOf(doing, file));
    } catch (error) {
      file.closeSync();
      throw error;
    }
  }

  get path(): string {
    return this.#file.path;
  }

  get kind(): 'file' | 'block' {
    return this.#file.kind;
  }

  get readOnly(): boolean {
    return this.#file.readOnly;
  }

  /** Past the page cache? */
  get direct(): boolean {
    return this.#file.direct;
  }

  read(offset: number, into: Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      this.readThen(offset, into, (error) => (error === undefined ? resolve() : reject(error)));
    });
  }

  write(offset: number, from: Uint8Array, options?: WriteOptions): Promise<void> {
    // What is written in pieces, or through slots, is flushed once behind them.
    if (options?.fua && (!this.direct || isAligned(from)) && from.length <= PIECE_BYTES && this.#wrong('write', offset, from) === undefined)
      return this.#file.write(offset, from, options);
    const written = new Promise<void>((resolve, reject) => {
      this.writeThen(offset, from, (error) => (error === undefined ? resolve() : reject(error)));
    });
    return options?.fua ? written.then(() => this.flush()) : written;
  }

  readThen(offset: number, into: Uint8Array, ended: (error: unknown) => void): void {
    const wrong = this.#wrong('read', offset, into);
    if (wrong !== undefined) return queueMicrotask(() => ended(wrong));
    if (!this.direct || isAligned(into)) return this.#file.readThen(offset, into, ended);
    this.#inSlots(into, async (slot, at, length) => {
      await this.#file.read(offset + at, slot);
      into.set(slot, at);
      return length;
    }).then(() => ended(undefined), ended);
  }

  writeThen(offset: number, from: Uint8Array, ended: (error: unknown) => void): void {
    const wrong = this.#wrong('write', offset, from);
    if (wrong !== undefined) return queueMicrotask(() => ended(wrong));
    if (!this.direct) return this.#file.writeThen(offset, from, ended);
    if (isAligned(from)) return this.#writeInPieces(offset, from, ended);
    this.#inSlots(from, async (slot, at, length) => {
      slot.set(from.subarray(at, at + length));
      await this.#file.write(offset + at, slot);
      return length;
    }).then(() => ended(undefined), ended);
  }

  flush(): Promise<void> {
    return this.#file.flush();
  }

  readSync(offset: number, into: Uint8Array): void {
    const wrong = this.#wrong('read', offset, into);
    if (wrong !== undefined) throw wrong;
    if (!this.direct || isAligned(into)) return this.#file.readSync(offset, into);
    for (let at = 0; at < into.length; at += SLOT_BYTES) {
      const slot = bounce().view(SYNC_SLOT, Math.min(SLOT_BYTES, into.length - at));
      this.#file.readSync(offset + at, slot);
      into.set(slot, at);
    }
  }

  writeSync(offset: number, from: Uint8Array, options?: WriteOptions): void {
    const wrong = this.#wrong('write', offset, from);
    if (wrong !== undefined) throw wrong;
    if (!this.direct || isAligned(from)) return this.#file.writeSync(offset, from, options);
    else {
      for (let at = 0; at < from.length; at += SLOT_BYTES) {
        const slot = bounce().view(SYNC_SLOT, Math.min(SLOT_BYTES, from.length - at));
        slot.set(from.subarray(at, at + slot.length));
        this.#file.writeSync(offset + at, slot);
      }
    }
    if (options?.fua) this.flushSync();
  }

  flushSync(): void {
    this.#file.flushSync();
  }

  /** Rounded inwards to what the device can give back. Whether the range reads zero afterwards is the device's business. */
  discard(offset: number, length: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const range = this.#discardable(offset, length);
      if (range === undefined) resolve();
      else this.#file.discard(range.offset, range.length).then(resolve, reject);
    });
  }

  discardSync(offset: number, length: number): void {
    const range = this.#discardable(offset, length);
    if (range !== undefined) this.#file.discardSync(range.offset, range.length);
  }

  #discardable(offset: number, length: number): { offset: number; length: number } | undefined {
    const doing = `discard of '${this.path}'`;
    checkOpen(doing, this.#closed);
    checkRange(doing, this.sizeBytes, offset, length, RAW_ALIGNMENT_BYTES);
    if (!this.supports.discard) throw new VarveError('VARVE_UNSUPPORTED', doing, { detail: 'the device has no discard' });
    const unit = Math.max(RAW_ALIGNMENT_BYTES, this.geometry.discardGranularityBytes);
    const begin = Math.ceil(offset / unit) * unit;
    const end = Math.floor((offset + length) / unit) * unit;
    return end > begin ? { offset: begin, length: end - begin } : undefined;
  }

  /** Also gives the claim back. */
  close(): Promise<void> {
    this.#closed = true;
    return this.#file.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #writeInPieces(offset: number, from: Uint8Array, ended: (error: unknown) => void): void {
    let pending = Math.ceil(from.length / PIECE_BYTES);
    if (pending <= 1) return this.#file.writeThen(offset, from, ended);
    let failure: unknown;
    // Told when all have ended, failed or not: the memory is the caller's again then.
    const pieceEnded = (error: unknown): void => {
      failure ??= error;
      if (--pending === 0) ended(failure);
    };
    for (let at = 0; at < from.length; at += PIECE_BYTES)
      this.#file.writeThen(offset + at, from.subarray(at, at + PIECE_BYTES), pieceEnded);
  }

  async #inSlots(bytes: Uint8Array, move: (slot: Uint8Array, at: number, length: number) => Promise<number>): Promise<void> {
    const slots = bounce();
    for (let at = 0; at < bytes.length;) {
      const slot = await slots.take();
      try {
        at += await move(slots.view(slot, Math.min(SLOT_BYTES, bytes.length - at)), at, Math.min(SLOT_BYTES, bytes.length - at));
      } finally {
        slots.give(slot);
      }
    }
  }

  #wrong(verb: 'read' | 'write', offset: number, bytes: Uint8Array): unknown {
    try {
      const doing = `${verb} of '${this.path}'`;
      checkBytes(doing, bytes);
      checkOpen(doing, this.#closed);
      checkRange(doing, this.sizeBytes, offset, bytes.length, RAW_ALIGNMENT_BYTES);
      if (verb === 'write' && this.readOnly) throw new VarveError('VARVE_READ_ONLY', doing);
      return undefined;
    } catch (error) {
      return error;
    }
  }
}

/**
 * A member of a pool, by what is at its path: a block device raw, a regular file through the page cache. Where the lock of the pool's directory does not
 * reach (`noFollow` left out) a file is claimed as a device is: a copy of the directory leads to the same one. So do readers, together, with `shared`.
 */
export async function openMemberDevice(path: string, options: FileDeviceOptions, shared = false): Promise<FileDevice | RawDevice> {
  const { readOnly, exclusive, noFollow, sizeBytes } = options;
  if (isBlockDevice(path)) return RawDevice.open(path, { readOnly, exclusive, shared, noFollow, sizeBytes });
  if (noFollow === true || (exclusive !== true && !shared)) return FileDevice.open(path, options);
  return claiming(() => (shared ? withClaim(path, options, 'shared') : claimed(path, options)));
}

/** What is at a path, to be written into, through the page cache, when nobody uses it; a block device is claimed as `RawDevice` claims it. */
export async function openTarget(path: string): Promise<FileDevice> {
  if (isBlockDevice(path)) return claiming(() => claimed(path, { exclusive: true }));
  refuseInUse(`opening '${path}'`, path);
  return FileDevice.open(path);
}

function claimed(path: string, options: FileDeviceOptions): FileDevice {
  refuseInUse(`opening '${path}'`, path);
  return withClaim(path, options, 'exclusive');
}

function withClaim(path: string, options: FileDeviceOptions, mode: LockMode): FileDevice {
  const file = FileDevice.openSync(path, options);
  try {
    file.claimSync(mode);
    return file;
  } catch (error) {
    file.closeSync();
    throw error;
  }
}

/** A claim that was given back stays for a moment when a child is just being started (claim.ts); nothing can give that one back. */
async function claiming<T>(open: () => T): Promise<T> {
  for (let attempt = 0; ; attempt++) {
    try {
      return open();
    } catch (error) {
      if (!isVarveError(error, 'VARVE_LOCKED') || attempt === ATTEMPTS_MAX) throw error;
      await new Promise((resolve) => setTimeout(resolve, ATTEMPT_MS));
    }
  }
}

function isBlockDevice(path: string): boolean {
  try {
    return fs.statSync(path).isBlockDevice();
  } catch {
    return false; // opening it says what is wrong
  }
}

function refuseInUse(doing: string, path: string): void {
  let stat;
  try {
    stat = fs.statSync(path);
  } catch {
    return; // as above
  }
  const use = stat.isBlockDevice() ? systemUseOf(deviceNumber(stat.rdev)) : stat.isFile() ? systemUseOfFile(path) : undefined;
  if (use !== undefined) throw new VarveError('VARVE_LOCKED', doing, { detail: use });
}

function geometryOf(doing: string, file: FileDevice): RawGeometry {
  if (file.kind === 'file')
    return {
      logicalBlockBytes: RAW_ALIGNMENT_BYTES,
      physicalBlockBytes: RAW_ALIGNMENT_BYTES,
      discardGranularityBytes: RAW_ALIGNMENT_BYTES,
    };
  const sys = `/sys/dev/block/${deviceNumber(fs.fstatSync(file.fd).rdev)}`;
  const number = (name: string): number | undefined => {
    // A partition has no queue of its own: its disk's, one folder up.
    for (const folder of [`${sys}/queue`, `${sys}/../queue`]) {
      try {
        const value = Number(fs.readFileSync(`${folder}/${name}`, 'utf8').trim());
        if (Number.isSafeInteger(value) && value >= 0) return value;
      } catch {
        // not here
      }
    }
    return undefined;
  };
  const logicalBlockBytes = number('logical_block_size') ?? 512;
  if (RAW_ALIGNMENT_BYTES % logicalBlockBytes !== 0) {
    throw new VarveError('VARVE_UNSUPPORTED', doing, {
      detail: `its blocks are ${logicalBlockBytes} bytes long; expected a divisor of ${RAW_ALIGNMENT_BYTES}`,
    });
  }
  return {
    logicalBlockBytes,
    physicalBlockBytes: number('physical_block_size') ?? logicalBlockBytes,
    discardGranularityBytes: (number('discard_max_bytes') ?? 0) === 0 ? 0 : Math.max(logicalBlockBytes, number('discard_granularity') ?? 0),
  };
}
