// The one file that makes views of the core's memory, and makes them anew when it has grown (growth detaches the old ones).
// DataView and not Uint32Array for numbers: the memory is little-endian whatever the machine is, and V8 compiles both to one load (2026-11).

import { markAligned } from '../aligned.ts';
import type { CoreMemoryObject } from './exports.ts';

export const PAGE_BYTES = 65536;
/** wasm32: 65536 pages = 4 GiB. */
export const PAGES_MAX = 65536;
/** Views that are kept for another time, and how far apart those begin that do not displace each other. */
const SLICES = 128;
const SLICE_STEP = 4096;

export class CoreMemory {
  readonly memory: CoreMemoryObject;
  #bytes!: Uint8Array<ArrayBuffer>;
  #view!: DataView<ArrayBuffer>;
  /** Some that were made, by address: the same places are read to again and again. Making one takes 0.1 µs, and the collector later as much. */
  #slices: (Uint8Array<ArrayBuffer> | undefined)[] = [];

  constructor(memory: CoreMemoryObject) {
    this.memory = memory;
    this.#remake();
  }

  /** The whole memory; dead after every growth, so never kept across one. */
  get bytes(): Uint8Array<ArrayBuffer> {
    if (this.#bytes.length === 0) this.#remake(); // detached: before it is open, the core grows its memory by itself
    return this.#bytes;
  }

  get view(): DataView<ArrayBuffer> {
    if (this.#bytes.length === 0) this.#remake();
    return this.#view;
  }

  get pages(): number {
    return this.bytes.length / PAGE_BYTES;
  }

  /** A view for one I/O. Dead after the next `grow`: the loop drains its I/O before it grows. */
  slice(address: number, length: number): Uint8Array<ArrayBuffer> {
    const place = ((address / SLICE_STEP) % SLICES) | 0;
    const last = this.#slices[place];
    if (last !== undefined && last.byteOffset === address && last.length === length) return last;
    return (this.#slices[place] = new Uint8Array(this.bytes.buffer, address, length));
  }

  /**
   * Grows by at least `pages`, and by an eighth of what there is, so that n pages cost O(log n) growths. When so much is not to be had, by exactly `pages`.
   * @returns false when not even that is to be had; nothing has changed then
   */
  grow(pages: number): boolean {
    const room = PAGES_MAX - this.pages;
    if (pages > room) return false;
    for (const step of [Math.min(room, Math.max(pages, Math.ceil(this.pages / 8))), pages]) {
      try {
        this.memory.grow(step);
      } catch {
        continue; // the engine or the machine has no more (RangeError)
      }
      this.#remake();
      return true;
    }
    return false;
  }

  #remake(): void {
    const buffer = this.memory.buffer as ArrayBuffer;
    this.#slices = Array.from({ length: SLICES }, () => undefined);
    markAligned(buffer);
    this.#bytes = new Uint8Array(buffer);
    this.#view = new DataView(buffer);
  }
}
