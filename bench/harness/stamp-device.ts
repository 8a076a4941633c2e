// A device in memory for logs that are far larger than the memory: of each block it keeps the first 8 bytes when the rest is zero, and the whole block
// otherwise. It is exact for any content; it is small when the users' blocks are a stamp and zeros, and only headers, footers, pages and roots are more.
//
//   chunk (1024 blocks)   stamps  [version, block] × 1024
//                         places  0 = the stamp is all there is, else 1 + a place in the slabs
//   slab                  1024 whole blocks
import type { SyncStorageDevice } from '../../src/device/device.ts';

const BLOCK = 4096;
const CHUNK = 1024;
const ZEROS = new Uint8Array(BLOCK - 8);
const RESOLVED = Promise.resolve();

interface Chunk {
  readonly stamps: Uint32Array;
  readonly places: Uint32Array;
}

export class StampDevice implements SyncStorageDevice {
  readonly sizeBytes: number;
  readonly blockSize = BLOCK;
  readonly supports = { discard: false, fua: 'native', sync: true, persistent: false } as const;
  readonly #chunks: (Chunk | undefined)[] = [];
  readonly #slabs: Uint8Array[] = [];
  readonly #free: number[] = [];
  #placesUsed = 0;
  /** Since it was made. */
  blocksRead = 0;
  blocksWritten = 0;
  flushes = 0;

  constructor(sizeBytes: number) {
    this.sizeBytes = sizeBytes - (sizeBytes % BLOCK);
  }

  /** Blocks that it keeps whole. */
  get wholeBlocks(): number {
    return this.#placesUsed - this.#free.length;
  }

  writeSync(offset: number, from: Uint8Array): void {
    this.#check(offset, from.length);
    const words = new Uint32Array(from.buffer, from.byteOffset, from.length >>> 2);
    for (let at = 0; at < from.length; at += BLOCK) {
      const block = (offset + at) / BLOCK;
      const index = Math.floor(block / CHUNK);
      const inChunk = block % CHUNK;
      const chunk = (this.#chunks[index] ??= { stamps: new Uint32Array(CHUNK * 2), places: new Uint32Array(CHUNK) });
      const word = at >>> 2;
      const place = chunk.places[inChunk]!;
      if (words[word + 2] === 0 && words[word + 3] === 0 && Buffer.compare(from.subarray(at + 8, at + BLOCK), ZEROS) === 0) {
        chunk.stamps[inChunk * 2] = words[word]!;
        chunk.stamps[inChunk * 2 + 1] = words[word + 1]!;
        if (place !== 0) {
          chunk.places[inChunk] = 0;
          this.#free.push(place);
        }
        continue;
      }
      const kept = place || (this.#free.pop() ?? ++this.#placesUsed);
      chunk.places[inChunk] = kept;
      const slab = (this.#slabs[Math.floor((kept - 1) / CHUNK)] ??= new Uint8Array(CHUNK * BLOCK));
      slab.set(from.subarray(at, at + BLOCK), ((kept - 1) % CHUNK) * BLOCK);
    }
    this.blocksWritten += from.length / BLOCK;
  }

  readSync(offset: number, into: Uint8Array): void {
    this.#check(offset, into.length);
    const words = new Uint32Array(into.buffer, into.byteOffset, into.length >>> 2);
    for (let at = 0; at < into.length; at += BLOCK) {
      const block = (offset + at) / BLOCK;
      const chunk = this.#chunks[Math.floor(block / CHUNK)];
      const inChunk = block % CHUNK;
      const place = chunk?.places[inChunk] ?? 0;
      if (place !== 0) {
        const start = ((place - 1) % CHUNK) * BLOCK;
        into.set(this.#slabs[Math.floor((place - 1) / CHUNK)]!.subarray(start, start + BLOCK), at);
        continue;
      }
      into.fill(0, at, at + BLOCK);
      if (chunk) {
        words[at >>> 2] = chunk.stamps[inChunk * 2]!;
        words[(at >>> 2) + 1] = chunk.stamps[inChunk * 2 + 1]!;
      }
    }
    this.blocksRead += into.length / BLOCK;
  }

  flushSync(): void {
    this.flushes++;
  }

  read(offset: number, into: Uint8Array): Promise<void> {
    this.readSync(offset, into);
    return RESOLVED;
  }

  write(offset: number, from: Uint8Array): Promise<void> {
    this.writeSync(offset, from);
    return RESOLVED;
  }

  flush(): Promise<void> {
    this.flushSync();
    return RESOLVED;
  }

  close(): Promise<void> {
    return RESOLVED;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #check(offset: number, length: number): void {
    if (offset % BLOCK !== 0 || length % BLOCK !== 0 || offset < 0 || offset + length > this.sizeBytes) {
      throw new RangeError(`stamp device: expected whole blocks inside ${this.sizeBytes} bytes, got ${length} at ${offset}`);
    }
  }
}
