/// <reference lib="esnext.disposable" preserve="true" />
// The one contract below and above: what Varve stands on, and what a volume, a source and a snapshot view are themselves.
import { VarveError } from '../errors.ts';

export interface DeviceSupports {
  /** `discard` does something. */
  readonly discard: boolean;
  /**
   * Does a write with `fua` reach the medium by itself (`native`), or by a flush after it (`emulated`)? Either way the device does what is needed: a flush of one
   * write is asked for like that, and nothing else follows.
   */
  readonly fua: 'native' | 'emulated';
  /** `readSync`, `writeSync` and `flushSync` are there (`SyncStorageDevice`). */
  readonly sync: boolean;
  /** What was flushed outlives the process. */
  readonly persistent: boolean;
}

export interface WriteOptions {
  /** Durable when the write resolves. */
  readonly fua?: boolean;
}

export interface StorageDevice {
  /** ≤ 2^53 − 1 */
  readonly sizeBytes: number;
  /** Alignment that read and write ask for, bytes, power of two, ≥ 512. Volumes and views take any range. */
  readonly blockSize: number;
  readonly supports: DeviceSupports;
  /** Fills all of `into` or rejects; a short read is an error, never a result. */
  read(offset: number, into: Uint8Array): Promise<void>;
  /** May be lost, torn or reordered until a flush resolves. */
  write(offset: number, from: Uint8Array, options?: WriteOptions): Promise<void>;
  /** All writes that resolved before the call are durable when it resolves. */
  flush(): Promise<void>;
  /** The range may read as anything afterwards until it is written (zeros on devices of this package that support it). */
  discard?(offset: number, length: number): Promise<void>;
  /** Idempotent. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** A device that can also work synchronously (files, OPFS access handles, memory). Present when `supports.sync`. */
export interface SyncStorageDevice extends StorageDevice {
  readSync(offset: number, into: Uint8Array): void;
  writeSync(offset: number, from: Uint8Array, options?: WriteOptions): void;
  flushSync(): void;
  discardSync?(offset: number, length: number): void;
}

/**
 * A device whose I/O ends in callbacks may offer them bare as well: the plan loop then makes no promise for a command (of 4 KiB reads it was half the
 * garbage, 2026-11). What is wrong, with the arguments too, comes as the error; on success that is undefined. Called once, not in the turn of the call.
 */
export interface CallbackDevice extends StorageDevice {
  readThen(offset: number, into: Uint8Array, ended: (error: unknown) => void): void;
  writeThen(offset: number, from: Uint8Array, ended: (error: unknown) => void): void;
}

/**
 * A device that can tell whether a short read would come from memory may offer to make it in the call itself. The thread pool costs several times what
 * such a read does.
 */
export interface PromptDevice extends StorageDevice {
  /** Fills `into` in this call, or answers false, having done nothing that counts: `read` does it then, and says what is wrong if something is. */
  readPrompt(offset: number, into: Uint8Array): boolean;
}

export function isPromptDevice(device: StorageDevice): device is PromptDevice {
  return 'readPrompt' in device;
}

export function isCallbackDevice(device: StorageDevice): device is CallbackDevice {
  return 'readThen' in device;
}

/** Can it work synchronously? */
export function isSyncDevice(device: StorageDevice): device is SyncStorageDevice {
  return device.supports.sync && 'readSync' in device && typeof device.readSync === 'function';
}

/**
 * The device as one that works synchronously.
 * @throws VarveError VARVE_UNSUPPORTED when it cannot
 */
export function syncDevice(device: StorageDevice, doing: string): SyncStorageDevice {
  if (isSyncDevice(device)) return device;
  throw new VarveError('VARVE_UNSUPPORTED', doing, { detail: 'the device does not work synchronously' });
}

/**
 * Both sides of every seam check the range: a device never lets one pass that leaves it.
 * @throws TypeError when the numbers are no whole numbers; RangeError when the range leaves the device or is not aligned to `alignment`
 */
export function checkRange(doing: string, sizeBytes: number, offset: number, length: number, alignment = 1): void {
  if (offset >= 0 && length >= 0 && offset + length <= sizeBytes && Number.isSafeInteger(offset) && Number.isSafeInteger(length)) {
    if (alignment === 1 || (offset % alignment === 0 && length % alignment === 0)) return;
    throw new RangeError(`${doing}: expected offset and length in multiples of ${alignment} bytes, got offset ${offset}, length ${length}`);
  }
  if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(length)) {
    throw new TypeError(`${doing}: expected offset and length in whole bytes, got offset ${offset}, length ${length}`);
  }
  throw new RangeError(`${doing}: expected a range inside ${sizeBytes} bytes, got offset ${offset}, length ${length}`);
}

/** @throws TypeError when it is not a Uint8Array */
export function checkBytes(doing: string, bytes: Uint8Array): void {
  if (!(bytes instanceof Uint8Array)) throw new TypeError(`${doing}: expected a Uint8Array, got ${bytes === null ? 'null' : typeof bytes}`);
}

/** @throws VarveError VARVE_CLOSED */
export function checkOpen(doing: string, closed: boolean): void {
  if (closed) throw new VarveError('VARVE_CLOSED', doing);
}
