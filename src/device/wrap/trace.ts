// Tells a listener of every call before it is made and after it ended. For golden transcripts, statistics and debugging.
import { syncDevice, type DeviceSupports, type StorageDevice, type SyncStorageDevice, type WriteOptions } from '../device.ts';

export interface TraceEvent {
  readonly op: 'read' | 'write' | 'flush' | 'discard' | 'close';
  /** Bytes; 0 for flush and close. */
  readonly offset: number;
  readonly length: number;
  readonly fua: boolean;
  /** `start`, and then one of the others. */
  readonly phase: 'start' | 'done' | 'failed';
  readonly error?: unknown;
}

export class TraceDevice implements SyncStorageDevice {
  readonly #device: StorageDevice;
  readonly #listener: (event: TraceEvent) => void;

  constructor(device: StorageDevice, listener: (event: TraceEvent) => void) {
    this.#device = device;
    this.#listener = listener;
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
    return this.#traced('read', offset, into.length, false, () => this.#device.read(offset, into));
  }

  write(offset: number, from: Uint8Array, options?: WriteOptions): Promise<void> {
    return this.#traced('write', offset, from.length, options?.fua ?? false, () => this.#device.write(offset, from, options));
  }

  flush(): Promise<void> {
    return this.#traced('flush', 0, 0, false, () => this.#device.flush());
  }

  async discard(offset: number, length: number): Promise<void> {
    await this.#traced('discard', offset, length, false, async () => this.#device.discard?.(offset, length));
  }

  readSync(offset: number, into: Uint8Array): void {
    this.#tracedSync('read', offset, into.length, false, (device) => device.readSync(offset, into));
  }

  writeSync(offset: number, from: Uint8Array, options?: WriteOptions): void {
    this.#tracedSync('write', offset, from.length, options?.fua ?? false, (device) => device.writeSync(offset, from, options));
  }

  flushSync(): void {
    this.#tracedSync('flush', 0, 0, false, (device) => device.flushSync());
  }

  discardSync(offset: number, length: number): void {
    this.#tracedSync('discard', offset, length, false, (device) => device.discardSync?.(offset, length));
  }

  close(): Promise<void> {
    return this.#traced('close', 0, 0, false, () => this.#device.close());
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #traced(op: TraceEvent['op'], offset: number, length: number, fua: boolean, call: () => Promise<void>): Promise<void> {
    this.#listener({ op, offset, length, fua, phase: 'start' });
    try {
      await call();
    } catch (error) {
      this.#listener({ op, offset, length, fua, phase: 'failed', error });
      throw error;
    }
    this.#listener({ op, offset, length, fua, phase: 'done' });
  }

  #tracedSync(op: TraceEvent['op'], offset: number, length: number, fua: boolean, call: (device: SyncStorageDevice) => void): void {
    this.#listener({ op, offset, length, fua, phase: 'start' });
    try {
      call(syncDevice(this.#device, `${op} of a traced device`));
    } catch (error) {
      this.#listener({ op, offset, length, fua, phase: 'failed', error });
      throw error;
    }
    this.#listener({ op, offset, length, fua, phase: 'done' });
  }
}
