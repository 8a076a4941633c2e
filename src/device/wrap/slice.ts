// A part of a device as a device of its own.
import { VarveError } from '../../errors.ts';
import { checkRange, syncDevice, type DeviceSupports, type StorageDevice, type SyncStorageDevice, type WriteOptions } from '../device.ts';

export class SliceDevice implements SyncStorageDevice {
  readonly sizeBytes: number;
  readonly blockSize: number;
  readonly supports: DeviceSupports;
  readonly #device: StorageDevice;
  readonly #start: number;
  readonly #owned: boolean;
  #closed = false;

  /**
   * @param start bytes, a multiple of the device's block size
   * @param sizeBytes bytes, a multiple of the block size too, unless the slice ends with the device
   * @param owned `close` closes the device below
   * @throws RangeError when it does not fit
   */
  constructor(device: StorageDevice, start: number, sizeBytes: number, owned = false) {
    checkRange('slice', device.sizeBytes, start, sizeBytes);
    checkRange('slice', device.sizeBytes, start, start + sizeBytes === device.sizeBytes ? 0 : sizeBytes, device.blockSize);
    this.sizeBytes = sizeBytes;
    this.blockSize = device.blockSize;
    this.supports = device.supports;
    this.#device = device;
    this.#start = start;
    this.#owned = owned;
  }

  #check(doing: string, offset: number, length: number): void {
    if (this.#closed) throw new VarveError('VARVE_CLOSED', `${doing} of a slice`);
    checkRange(`${doing} of a slice`, this.sizeBytes, offset, length);
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    this.#check('read', offset, into.length);
    await this.#device.read(this.#start + offset, into);
  }

  async write(offset: number, from: Uint8Array, options?: WriteOptions): Promise<void> {
    this.#check('write', offset, from.length);
    await this.#device.write(this.#start + offset, from, options);
  }

  async flush(): Promise<void> {
    this.#check('flush', 0, 0);
    await this.#device.flush();
  }

  async discard(offset: number, length: number): Promise<void> {
    this.#check('discard', offset, length);
    await this.#device.discard?.(this.#start + offset, length);
  }

  readSync(offset: number, into: Uint8Array): void {
    this.#check('read', offset, into.length);
    syncDevice(this.#device, 'read of a slice').readSync(this.#start + offset, into);
  }

  writeSync(offset: number, from: Uint8Array, options?: WriteOptions): void {
    this.#check('write', offset, from.length);
    syncDevice(this.#device, 'write of a slice').writeSync(this.#start + offset, from, options);
  }

  flushSync(): void {
    this.#check('flush', 0, 0);
    syncDevice(this.#device, 'flush of a slice').flushSync();
  }

  discardSync(offset: number, length: number): void {
    this.#check('discard', offset, length);
    syncDevice(this.#device, 'discard of a slice').discardSync?.(this.#start + offset, length);
  }

  async close(): Promise<void> {
    this.#closed = true;
    if (this.#owned) await this.#device.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
