// A device that nothing can write through.
import { VarveError } from '../../errors.ts';
import { syncDevice, type DeviceSupports, type StorageDevice, type SyncStorageDevice } from '../device.ts';

export class ReadOnlyDevice implements SyncStorageDevice {
  readonly supports: DeviceSupports;
  readonly #device: StorageDevice;

  /** `close` closes the device below. */
  constructor(device: StorageDevice) {
    this.#device = device;
    this.supports = { ...device.supports, discard: false };
  }

  get sizeBytes(): number {
    return this.#device.sizeBytes;
  }

  get blockSize(): number {
    return this.#device.blockSize;
  }

  read(offset: number, into: Uint8Array): Promise<void> {
    return this.#device.read(offset, into);
  }

  readSync(offset: number, into: Uint8Array): void {
    syncDevice(this.#device, 'read of a read-only device').readSync(offset, into);
  }

  /** @throws VarveError VARVE_READ_ONLY, always */
  write(): Promise<void> {
    return Promise.reject(refusal());
  }

  /** @throws VarveError VARVE_READ_ONLY, always */
  writeSync(): void {
    throw refusal();
  }

  /** Nothing was written, so nothing is to be flushed. */
  flush(): Promise<void> {
    return Promise.resolve();
  }

  flushSync(): void {
    // as `flush`
  }

  close(): Promise<void> {
    return this.#device.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function refusal(): VarveError {
  return new VarveError('VARVE_READ_ONLY', 'write of a read-only device');
}
