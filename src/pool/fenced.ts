// A storage device that is written only while the pool's lock is ours.
//
// The log asks before each flush; that alone would let a writer that lost its lock spoil, between two flushes, what its successor has written in the
// same place. So each write asks too (2 µs beside at least 20 of the write itself, 2026-11). A lock that is lost between the question and the write
// is not seen: nobody takes it away but who deletes the lock file by hand.
//
// Two parties flush it: the log, and the pool, which keeps labels and catalogue on the same device. The device tells of a failure once, to whoever asked, and
// what both wrote may be gone; so they are told of each other's. A flush that succeeded waits for those of the other party that were under way with it.

import type { VarveError } from '../errors.ts';
import {
  isCallbackDevice,
  isPromptDevice,
  type CallbackDevice,
  type DeviceSupports,
  type PromptDevice,
  type SyncStorageDevice,
  type WriteOptions,
} from '../device/device.ts';

/** A failure that a party was not told of by the device itself. */
interface Told {
  readonly error: unknown;
}

type Party = 'log' | 'pool';
const OTHER = { log: 'pool', pool: 'log' } as const;

export class FencedDevice implements SyncStorageDevice, CallbackDevice, PromptDevice {
  readonly #device: SyncStorageDevice;
  readonly #lost: () => VarveError | undefined;
  readonly #flushing = { log: new Set<Promise<void>>(), pool: new Set<Promise<void>>() };
  readonly #told: Record<Party, Told | undefined> = { log: undefined, pool: undefined };

  /** @param lost the error when the lock is not ours any more */
  constructor(device: SyncStorageDevice, lost: () => VarveError | undefined) {
    this.#device = device;
    this.#lost = lost;
  }

  get sizeBytes(): number {
    return this.#device.sizeBytes;
  }

  get blockSize(): number {
    return this.#device.blockSize;
  }

  get supports(): DeviceSupports {
    return this.#device.supports;
  }

  read(offset: number, into: Uint8Array): Promise<void> {
    return this.#device.read(offset, into);
  }

  write(offset: number, from: Uint8Array, options?: WriteOptions): Promise<void> {
    const fenced = this.#fenced();
    if (fenced !== undefined) return fenced;
    const written = this.#device.write(offset, from, options);
    return options?.fua ? this.#flushed('log', written) : written;
  }

  /** As `write`, by the pool. */
  writeOwn(offset: number, from: Uint8Array): Promise<void> {
    this.#told.pool = undefined; // what failed before took nothing of this
    return this.#fenced() ?? this.#device.write(offset, from);
  }

  readThen(offset: number, into: Uint8Array, ended: (error: unknown) => void): void {
    const device = this.#device;
    if (isCallbackDevice(device)) device.readThen(offset, into, ended);
    else
      device.read(offset, into).then(
        () => ended(undefined),
        (error: unknown) => ended(error ?? new Error('the device gave no reason')),
      );
  }

  writeThen(offset: number, from: Uint8Array, ended: (error: unknown) => void): void {
    const device = this.#device;
    const error = this.#lost();
    if (error !== undefined) queueMicrotask(() => ended(error));
    else if (isCallbackDevice(device)) device.writeThen(offset, from, ended);
    else
      device.write(offset, from).then(
        () => ended(undefined),
        (error: unknown) => ended(error ?? new Error('the device gave no reason')),
      );
  }

  readPrompt(offset: number, into: Uint8Array): boolean {
    return isPromptDevice(this.#device) && this.#device.readPrompt(offset, into);
  }

  flush(): Promise<void> {
    return this.#fenced() ?? this.#flushed('log', this.#device.flush());
  }

  /** As `flush`, by the pool: what it wrote with `writeOwn` is durable. */
  flushOwn(): Promise<void> {
    return this.#fenced() ?? this.#flushed('pool', this.#device.flush());
  }

  discard(offset: number, length: number): Promise<void> {
    return this.#fenced() ?? this.#device.discard?.(offset, length) ?? Promise.resolve();
  }

  readSync(offset: number, into: Uint8Array): void {
    this.#device.readSync(offset, into);
  }

  writeSync(offset: number, from: Uint8Array, options?: WriteOptions): void {
    this.#check();
    if (options?.fua) this.#flushedSync('log', () => this.#device.writeSync(offset, from, options));
    else this.#device.writeSync(offset, from, options);
  }

  flushSync(): void {
    this.#check();
    this.#flushedSync('log', () => this.#device.flushSync());
  }

  writeOwnSync(offset: number, from: Uint8Array): void {
    this.#told.pool = undefined;
    this.writeSync(offset, from);
  }

  flushOwnSync(): void {
    this.#check();
    this.#flushedSync('pool', () => this.#device.flushSync());
  }

  discardSync(offset: number, length: number): void {
    this.#check();
    this.#device.discardSync?.(offset, length);
  }

  close(): Promise<void> {
    return this.#device.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #flushed(party: Party, flush: Promise<void>): Promise<void> {
    const flushing = this.#flushing[party];
    flushing.add(flush);
    try {
      await flush;
    } catch (error) {
      this.#told[OTHER[party]] = { error };
      throw error;
    } finally {
      flushing.delete(flush);
    }
    const others = this.#flushing[OTHER[party]];
    if (others.size > 0) await Promise.allSettled(others);
    this.#hear(party);
  }

  #flushedSync(party: Party, flush: () => void): void {
    try {
      flush();
    } catch (error) {
      this.#told[OTHER[party]] = { error };
      throw error;
    }
    this.#hear(party);
  }

  #hear(party: Party): void {
    const told = this.#told[party];
    if (told === undefined) return;
    this.#told[party] = undefined;
    throw told.error;
  }

  /** The rejection when the lock is lost. */
  #fenced(): Promise<void> | undefined {
    const error = this.#lost();
    return error === undefined ? undefined : Promise.reject(error);
  }

  #check(): void {
    const error = this.#lost();
    if (error !== undefined) throw error;
  }
}
