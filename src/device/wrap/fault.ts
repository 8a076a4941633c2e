// Makes a device fail on purpose. One function decides for each call; everything that a disk does wrong *at the moment of a call* is here. What a disk
// does wrong later (losing, tearing and reordering what was not flushed) is the simulated device's.
import { VarveError } from '../../errors.ts';
import { syncDevice, type DeviceSupports, type StorageDevice, type SyncStorageDevice, type WriteOptions } from '../device.ts';

export interface FaultCall {
  readonly op: 'read' | 'write' | 'flush' | 'discard';
  /** Bytes; 0 for flush. */
  readonly offset: number;
  readonly length: number;
  /** Calls before this one. */
  readonly index: number;
}

/** What happens to a call. */
export type Fault =
  /** it fails, and nothing was done */
  | { readonly kind: 'fail'; readonly error?: Error }
  /** it fails, and the first so many bytes were written */
  | { readonly kind: 'tear'; readonly bytes: number; readonly error?: Error }
  /** a write or flush says that it was done, and was not */
  | { readonly kind: 'lose' }
  /** a write lands, or a read looks, somewhere else */
  | { readonly kind: 'misdirect'; readonly offset: number }
  /** bit `bit` (0: lowest of the first byte) of what is read or written is wrong */
  | { readonly kind: 'flip'; readonly bit: number };

export class FaultDevice implements SyncStorageDevice {
  readonly #device: StorageDevice;
  readonly #decide: (call: FaultCall) => Fault | undefined;
  #index = 0;

  /** @param decide undefined: the call is performed as it is */
  constructor(device: StorageDevice, decide: (call: FaultCall) => Fault | undefined) {
    this.#device = device;
    this.#decide = decide;
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

  #fault(op: FaultCall['op'], offset: number, length: number): Fault | undefined {
    return this.#decide({ op, offset, length, index: this.#index++ });
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    const fault = this.#fault('read', offset, into.length);
    if (fault?.kind === 'fail' || fault?.kind === 'tear') throw errorOf(fault, 'read');
    await this.#device.read(fault?.kind === 'misdirect' ? fault.offset : offset, into);
    if (fault?.kind === 'flip') flip(into, fault.bit);
  }

  async write(offset: number, from: Uint8Array, options?: WriteOptions): Promise<void> {
    const fault = this.#fault('write', offset, from.length);
    const actual = altered(fault, offset, from);
    if (actual) await this.#device.write(actual.offset, actual.bytes, options);
    if (fault?.kind === 'fail' || fault?.kind === 'tear') throw errorOf(fault, 'write');
  }

  async flush(): Promise<void> {
    const fault = this.#fault('flush', 0, 0);
    if (fault?.kind === 'lose') return;
    if (fault) throw errorOf(fault, 'flush');
    await this.#device.flush();
  }

  async discard(offset: number, length: number): Promise<void> {
    const fault = this.#fault('discard', offset, length);
    if (fault?.kind === 'lose') return;
    if (fault) throw errorOf(fault, 'discard');
    await this.#device.discard?.(offset, length);
  }

  readSync(offset: number, into: Uint8Array): void {
    const fault = this.#fault('read', offset, into.length);
    if (fault?.kind === 'fail' || fault?.kind === 'tear') throw errorOf(fault, 'read');
    syncDevice(this.#device, 'read of a faulty device').readSync(fault?.kind === 'misdirect' ? fault.offset : offset, into);
    if (fault?.kind === 'flip') flip(into, fault.bit);
  }

  writeSync(offset: number, from: Uint8Array, options?: WriteOptions): void {
    const fault = this.#fault('write', offset, from.length);
    const actual = altered(fault, offset, from);
    if (actual) syncDevice(this.#device, 'write of a faulty device').writeSync(actual.offset, actual.bytes, options);
    if (fault?.kind === 'fail' || fault?.kind === 'tear') throw errorOf(fault, 'write');
  }

  flushSync(): void {
    const fault = this.#fault('flush', 0, 0);
    if (fault?.kind === 'lose') return;
    if (fault) throw errorOf(fault, 'flush');
    syncDevice(this.#device, 'flush of a faulty device').flushSync();
  }

  discardSync(offset: number, length: number): void {
    const fault = this.#fault('discard', offset, length);
    if (fault?.kind === 'lose') return;
    if (fault) throw errorOf(fault, 'discard');
    syncDevice(this.#device, 'discard of a faulty device').discardSync?.(offset, length);
  }

  close(): Promise<void> {
    return this.#device.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function errorOf(fault: Fault, op: string): Error {
  return ('error' in fault && fault.error) || new VarveError('VARVE_IO', op, { detail: 'made to fail' });
}

function flip(bytes: Uint8Array, bit: number): void {
  const at = (bit >>> 3) % bytes.length;
  bytes[at] = bytes[at]! ^ (1 << (bit & 7));
}

/** What is written in truth; undefined: nothing. The caller's bytes stay as they are. */
function altered(fault: Fault | undefined, offset: number, from: Uint8Array): { offset: number; bytes: Uint8Array } | undefined {
  switch (fault?.kind) {
    case 'fail':
    case 'lose':
      return undefined;
    case 'tear':
      return fault.bytes > 0 ? { offset, bytes: from.subarray(0, fault.bytes) } : undefined;
    case 'misdirect':
      return { offset: fault.offset, bytes: from };
    case 'flip': {
      const bytes = from.slice();
      flip(bytes, fault.bit);
      return { offset, bytes };
    }
    case undefined:
      return { offset, bytes: from };
  }
}
