// A device in memory: for tests, for scratch volumes, and as the floor that benches compare with.
//
// Sparse: a chunk exists once something in it was written, so that a large device costs what it holds. Synchronous underneath; the asynchronous calls
// do their work at once and resolve, which is within the contract.
import { parseSize } from '../units.ts';
import { checkBytes, checkOpen, checkRange, type SyncStorageDevice, type WriteOptions } from './device.ts';

const CHUNK_BYTES = 256 * 1024;
const RESOLVED = Promise.resolve();

export class MemoryDevice implements SyncStorageDevice {
  readonly sizeBytes: number;
  readonly blockSize: number = 512;
  readonly supports = { discard: true, fua: 'native', sync: true, persistent: false } as const;
  readonly #chunks = new Map<number, Uint8Array>();
  #closed = false;

  /** @param size bytes, or `'64MiB'` @throws TypeError, RangeError */
  constructor(size: number | string) {
    this.sizeBytes = parseSize(size);
  }

  /** Bytes of memory that it takes now. */
  get heldBytes(): number {
    return this.#chunks.size * CHUNK_BYTES;
  }

  readSync(offset: number, into: Uint8Array): void {
    this.#check('read', offset, into);
    for (let at = 0; at < into.length;) {
      const index = Math.floor((offset + at) / CHUNK_BYTES);
      const start = (offset + at) % CHUNK_BYTES;
      const length = Math.min(into.length - at, CHUNK_BYTES - start);
      const chunk = this.#chunks.get(index);
      if (chunk) into.set(chunk.subarray(start, start + length), at);
      else into.fill(0, at, at + length);
      at += length;
    }
  }

  writeSync(offset: number, from: Uint8Array, _options?: WriteOptions): void {
    this.#check('write', offset, from);
    for (let at = 0; at < from.length;) {
      const index = Math.floor((offset + at) / CHUNK_BYTES);
      const start = (offset + at) % CHUNK_BYTES;
      const length = Math.min(from.length - at, CHUNK_BYTES - start);
      let chunk = this.#chunks.get(index);
      if (!chunk) this.#chunks.set(index, (chunk = new Uint8Array(CHUNK_BYTES)));
      chunk.set(from.subarray(at, at + length), start);
      at += length;
    }
  }

  flushSync(): void {
    checkOpen('flush of a memory device', this.#closed);
  }

  /** The range reads zero afterwards; chunks that lie in it whole are given back. */
  discardSync(offset: number, length: number): void {
    checkOpen('discard of a memory device', this.#closed);
    checkRange('discard of a memory device', this.sizeBytes, offset, length);
    for (let at = 0; at < length;) {
      const index = Math.floor((offset + at) / CHUNK_BYTES);
      const start = (offset + at) % CHUNK_BYTES;
      const part = Math.min(length - at, CHUNK_BYTES - start);
      if (part === CHUNK_BYTES) this.#chunks.delete(index);
      else this.#chunks.get(index)?.fill(0, start, start + part);
      at += part;
    }
  }

  read(offset: number, into: Uint8Array): Promise<void> {
    return settled(() => this.readSync(offset, into));
  }

  write(offset: number, from: Uint8Array, options?: WriteOptions): Promise<void> {
    return settled(() => this.writeSync(offset, from, options));
  }

  flush(): Promise<void> {
    return settled(() => this.flushSync());
  }

  discard(offset: number, length: number): Promise<void> {
    return settled(() => this.discardSync(offset, length));
  }

  /** Gives the memory back. */
  close(): Promise<void> {
    this.#closed = true;
    this.#chunks.clear();
    return RESOLVED;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #check(verb: string, offset: number, bytes: Uint8Array): void {
    const doing = `${verb} of a memory device`;
    checkBytes(doing, bytes);
    checkOpen(doing, this.#closed);
    checkRange(doing, this.sizeBytes, offset, bytes.length);
  }
}

function settled(call: () => void): Promise<void> {
  try {
    call();
    return RESOLVED;
  } catch (error) {
    return Promise.reject(error);
  }
}
