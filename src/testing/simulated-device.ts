// A storage device in memory that misbehaves as real ones do, by seed or by order.
//
// What was written is in the *cache* first: reads see it, a flush makes it durable. At a power cut each write that was not flushed survives, is lost,
// or is torn at 512 bytes, and later ones may survive earlier ones. Beyond that, faults are armed one by one (`arm`), or done to the medium at rest
// (`flip`, `regress`, `scribble`).
//
//            write ──► pending ──flush──► durable
//                        │                  ▲
//     read ◄── current ◄─┘      crash: some sectors of some pending writes
//
// A failed flush is the nasty one: as in Linux, pages that could not be written are marked clean. What they held is still readable until the cache drops
// them, and no later flush makes it durable (pgsql-hackers, "PostgreSQL's handling of fsync() errors is unsafe", 2018).
//
// Bytes are kept in blocks of 4096 that never change once written; a state of the device is an array of block numbers. So the cache, the durable state,
// the version before (for stale reads) and images of the whole device cost a number per block each.
import { checkBytes, checkOpen, checkRange, type DeviceSupports, type SyncStorageDevice, type WriteOptions } from '../device/device.ts';
import { VarveError } from '../errors.ts';
import { Random } from './random.ts';

export const SECTOR_BYTES = 512;
const BLOCK_BYTES = 4096;
const SECTORS = BLOCK_BYTES / SECTOR_BYTES;
const WHOLE = (1 << SECTORS) - 1;
const CHUNK_BLOCKS = 256;
const RECENT = 64;

/** What the synchronous block interface answers. */
export const DEVICE_OK = 0;
export const DEVICE_FAILED = 1;
export const DEVICE_FULL = 2;

/** Blocks of 4096 bytes with counts of who refers to them. Devices may share one; block 0 is all zeros and is never freed. */
export class BlockArena {
  #views: Uint8Array[] = [];
  #counts: number[] = [];
  #free: number[] = [];

  constructor() {
    this.#grow();
    this.#free.pop();
    this.#counts[0] = 1;
  }

  /** Blocks in use, the one of zeros not counted. */
  get used(): number {
    return this.#views.length - this.#free.length - 1;
  }

  bytes(block: number): Uint8Array {
    return this.#views[block] as Uint8Array;
  }

  /** A block with one reference; what is in it is not defined. */
  take(): number {
    if (this.#free.length === 0) this.#grow();
    const block = this.#free.pop() as number;
    this.#counts[block] = 1;
    return block;
  }

  retain(block: number): number {
    if (block !== 0) (this.#counts[block] as number)++;
    return block;
  }

  release(block: number): void {
    if (block !== 0 && --(this.#counts[block] as number) === 0) this.#free.push(block);
  }

  #grow(): void {
    const first = this.#views.length;
    const chunk = new Uint8Array(CHUNK_BLOCKS * BLOCK_BYTES);
    for (let i = 0; i < CHUNK_BLOCKS; i++) {
      this.#views.push(chunk.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES));
      this.#counts.push(0);
    }
    for (let i = CHUNK_BLOCKS - 1; i >= 0; i--) this.#free.push(first + i);
  }
}

/**
 * - `readFails` `writeFails` `flushFails`: the request fails; of a failed write any part may be there, of a failed flush too
 * - `full`: the write fails for lack of space (as a sparse file on a full file system does)
 * - `writeLost` `writeTorn` `writeMisdirected` `writeFlipped`: succeeds, and nothing, some sectors, the wrong place, or a wrong bit is written
 * - `readFlipped` `readStale`: succeeds once with a wrong bit, or with the bytes before the last write
 */
export type FaultKind =
  | 'readFails'
  | 'writeFails'
  | 'flushFails'
  | 'full'
  | 'writeLost'
  | 'writeTorn'
  | 'writeMisdirected'
  | 'writeFlipped'
  | 'readFlipped'
  | 'readStale';

export interface DeviceFault {
  readonly kind: FaultKind;
  /** Requests of that sort that pass before the first one is hit. */
  after: number;
  /** Requests that are hit. */
  count: number;
}

const READ_KINDS: readonly FaultKind[] = ['readFails', 'readFlipped', 'readStale'];
const WRITE_KINDS: readonly FaultKind[] = ['writeFails', 'full', 'writeLost', 'writeTorn', 'writeMisdirected', 'writeFlipped'];
const FLUSH_KINDS: readonly FaultKind[] = ['flushFails'];

export interface SimulatedDeviceOptions {
  /** A multiple of 512. */
  readonly sizeBytes: number;
  /** Decides everything that is left to chance. Default: seed 1. */
  readonly random?: Random;
  /** Shared with other devices, to save memory. */
  readonly arena?: BlockArena;
}

/** The durable bytes of a device at one moment: see `image`. */
export interface DeviceImage {
  readonly blocks: Int32Array;
}

export class SimulatedDevice implements SyncStorageDevice {
  readonly sizeBytes: number;
  readonly blockSize = SECTOR_BYTES;
  readonly supports: DeviceSupports = { discard: true, fua: 'emulated', sync: true, persistent: false };
  /** Who decides. May be replaced at any time, so that one seed governs several devices. */
  random: Random;
  /** How often each kind of fault hit. */
  readonly fired = new Map<FaultKind, number>();
  /** Blocks that a fault may have left different from what was written, for those who want to know what to expect. Never cleared. */
  damage = 0;

  readonly #arena: BlockArena;
  readonly #current: Int32Array;
  readonly #durable: Int32Array;
  readonly #previous: Int32Array;
  // Writes since the last flush, block by block, in order; `Request` tells which belong to one request.
  #pendingBlock: number[] = [];
  #pendingBytes: number[] = [];
  #pendingSectors: number[] = [];
  #pendingRequest: number[] = [];
  #requests = 0;
  /** Blocks written last, oldest overwritten first: where damage hurts most. */
  readonly #recent = new Int32Array(RECENT).fill(-1);
  #written = 0;
  /** Blocks whose current bytes will never be durable: a flush of them failed. */
  readonly #doomed = new Set<number>();
  #faults: DeviceFault[] = [];
  #closed = false;

  constructor(options: SimulatedDeviceOptions) {
    checkRange('simulated device', Number.MAX_SAFE_INTEGER, 0, options.sizeBytes, SECTOR_BYTES);
    this.sizeBytes = options.sizeBytes;
    this.random = options.random ?? new Random(1);
    this.#arena = options.arena ?? new BlockArena();
    const blocks = Math.ceil(options.sizeBytes / BLOCK_BYTES);
    this.#current = new Int32Array(blocks);
    this.#durable = new Int32Array(blocks);
    this.#previous = new Int32Array(blocks);
  }

  /** Requests since the last flush that a power cut may take. */
  get pending(): number {
    return this.#pendingBlock.length;
  }

  get blocks(): number {
    return this.#current.length;
  }

  // ---- the synchronous block interface: ranges in multiples of 512, answers instead of exceptions ----

  readResult(offset: number, into: Uint8Array): number {
    checkRange('simulated read', this.sizeBytes, offset, into.length, SECTOR_BYTES);
    const fault = this.#faults.length ? this.#take(READ_KINDS) : undefined;
    if (fault === 'readFails') return DEVICE_FAILED;
    this.#copyOut(fault === 'readStale' ? this.#previous : this.#current, offset, into);
    if (fault === 'readFlipped' && into.length > 0) flipBit(into, this.random.below(into.length), this.random.below(8));
    return DEVICE_OK;
  }

  writeResult(offset: number, from: Uint8Array): number {
    checkRange('simulated write', this.sizeBytes, offset, from.length, SECTOR_BYTES);
    if (this.#faults.length) {
      const fault = this.#take(WRITE_KINDS);
      if (fault) return this.#writeBadly(fault, offset, from);
    }
    this.#write(offset, from, false);
    return DEVICE_OK;
  }

  /**
   * A write that is durable when it answers. Of what was written before, only what it covers is (a request through to the medium), or all is (a write and a
   * flush), by chance.
   */
  throughResult(offset: number, from: Uint8Array): number {
    const first = this.#requests + 1;
    const result = this.writeResult(offset, from);
    if (result !== DEVICE_OK || (this.#faults.length > 0 && this.armed(FLUSH_KINDS)) || this.random.chance(0.5)) {
      return result === DEVICE_OK ? this.flushResult() : result;
    }
    const blocks = new Set<number>();
    for (let i = 0; i < this.#pendingBlock.length; i++) {
      if ((this.#pendingRequest[i] as number) < first) continue;
      this.#makeDurable(i, this.#pendingSectors[i] as number);
      blocks.add(this.#pendingBlock[i] as number);
    }
    this.#forgetPending(blocks);
    return DEVICE_OK;
  }

  flushResult(): number {
    if (this.#faults.length && this.#take(FLUSH_KINDS)) {
      this.#flushBadly();
      return DEVICE_FAILED;
    }
    for (let i = 0; i < this.#pendingBlock.length; i++) this.#makeDurable(i, this.#pendingSectors[i] as number);
    this.#clearPending();
    return DEVICE_OK;
  }

  /** Each whole block in the range may become zeros. */
  discardResult(offset: number, length: number): number {
    checkRange('simulated discard', this.sizeBytes, offset, length, SECTOR_BYTES);
    this.#requests++;
    for (let block = Math.ceil(offset / BLOCK_BYTES); (block + 1) * BLOCK_BYTES <= offset + length; block++) {
      if (this.random.chance(0.5)) this.#put(block, 0, WHOLE);
    }
    return DEVICE_OK;
  }

  // ---- faults ----

  arm(kind: FaultKind, after = 0, count = 1): void {
    this.#faults.push({ kind, after, count });
  }

  /** Forgets the armed faults: those of these kinds, or all. */
  disarm(kinds?: readonly FaultKind[]): void {
    this.#faults = kinds ? this.#faults.filter((fault) => !kinds.includes(fault.kind)) : [];
  }

  armed(kinds?: readonly FaultKind[]): boolean {
    return this.#faults.some((fault) => !kinds || kinds.includes(fault.kind));
  }

  /** The power goes. What was not flushed survives, is lost or is torn; the cache is gone. */
  crash(): void {
    const count = this.#pendingBlock.length;
    const { random } = this;
    const order = Array.from({ length: count }, (_, i) => i);
    const requests = count ? (this.#pendingRequest[count - 1] as number) - (this.#pendingRequest[0] as number) + 1 : 0;
    const firstRequest = count ? (this.#pendingRequest[0] as number) : 0;
    const style = count === 0 ? 0 : random.below(7);
    const at = random.below(count);
    const request = firstRequest + random.below(requests);
    let last = -1;
    let kept = false;
    if (style === 3) random.shuffle(order);
    for (const i of order) {
      let sectors = this.#pendingSectors[i] as number;
      const mine = this.#pendingRequest[i] as number;
      switch (style) {
        case 0: // nothing survives
          sectors = 0;
          break;
        case 1: // everything does
          break;
        case 2: // whole requests, by chance
          if (mine !== last) kept = random.chance(0.5);
          last = mine;
          if (!kept) sectors = 0;
          break;
        case 3: // single sectors, in any order
          sectors &= random.chance(0.4) ? WHOLE : random.chance(0.4) ? 0 : random.word();
          break;
        case 4: // all up to one that is torn
          if (i > at) sectors = 0;
          else if (i === at) sectors &= (1 << random.below(SECTORS + 1)) - 1;
          break;
        case 5: // all but one request
          if (mine === request) sectors = 0;
          break;
        default: // all but one block, or one torn block
          if (i === at) sectors &= random.chance(0.5) ? 0 : random.word();
      }
      if (sectors) this.#makeDurable(i, sectors);
    }
    for (const block of this.#pendingBlock) this.#setCurrent(block, this.#durable[block] as number);
    this.#evict();
    this.#clearPending();
  }

  /** The process dies, the machine lives: the cache stays, but for pages that a failed flush left clean. */
  kill(): void {
    if (this.#doomed.size === 0) return;
    const doomed = new Set(this.#doomed);
    this.#evict();
    for (let i = 0; i < this.#pendingBlock.length; i++) {
      const block = this.#pendingBlock[i] as number;
      if (!doomed.has(block)) continue;
      const merged = this.#merge(this.#current[block] as number, this.#pendingBytes[i] as number, this.#pendingSectors[i] as number);
      this.#setCurrent(block, merged);
      this.#arena.release(merged);
    }
  }

  /** A bit of the medium turns over. */
  flip(offset: number, bit: number): void {
    checkRange('simulated flip', this.sizeBytes, offset, 1);
    this.damage++;
    const block = Math.floor(offset / BLOCK_BYTES);
    const before = this.#durable[block] as number;
    const flipped = this.#flipped(before, offset % BLOCK_BYTES, bit);
    if (this.#current[block] !== before) {
      const other = this.#flipped(this.#current[block] as number, offset % BLOCK_BYTES, bit);
      this.#setCurrent(block, other);
      this.#arena.release(other);
    } else {
      this.#setCurrent(block, flipped);
    }
    this.#setDurable(block, flipped);
    this.#arena.release(flipped);
  }

  /** A block holds again what it held before its last write. Answers whether it was written twice. */
  regress(block: number): boolean {
    const old = this.#previous[block] as number;
    if (old === 0) return false;
    this.damage++;
    this.#setCurrent(block, old);
    this.#setDurable(block, old);
    return true;
  }

  /** Somebody else used the device meanwhile: every block holds rubbish. `share` is the part of the blocks that is hit. */
  scribble(share = 1): void {
    const rubbish: number[] = [];
    for (let i = 0; i < 4; i++) {
      const bytes = this.#arena.take();
      const view = this.#arena.bytes(bytes);
      for (let at = 0; at < BLOCK_BYTES; at += 4) {
        const word = this.random.word();
        view[at] = word;
        view[at + 1] = word >>> 8;
        view[at + 2] = word >>> 16;
        view[at + 3] = word >>> 24;
      }
      rubbish.push(bytes);
    }
    this.#clearPending();
    this.#doomed.clear();
    for (let block = 0; block < this.blocks; block++) {
      if (share < 1 && !this.random.chance(share)) continue;
      const bytes = this.random.pick(rubbish);
      this.#setCurrent(block, bytes);
      this.#setDurable(block, bytes);
    }
    for (const bytes of rubbish) this.#arena.release(bytes);
  }

  /** Zeros everywhere, as new. */
  clear(): void {
    this.#clearPending();
    this.#doomed.clear();
    for (let block = 0; block < this.blocks; block++) {
      this.#setCurrent(block, 0);
      this.#setDurable(block, 0);
      this.#arena.release(this.#previous[block] as number);
      this.#previous[block] = 0;
    }
  }

  /** A block that was written and is not zeros; −1 when there is none. */
  pickWritten(random: Random = this.random): number {
    for (let probe = 0, at = random.below(this.blocks); probe < this.blocks; probe++) {
      const block = (at + probe) % this.blocks;
      if (this.#current[block] !== 0) return block;
    }
    return -1;
  }

  /** One of the blocks written last, the newest `among` of them; −1 when nothing was written. */
  pickRecent(among: number, random: Random = this.random): number {
    const count = Math.min(among, this.#written, RECENT);
    return count === 0 ? -1 : (this.#recent[(this.#written - 1 - random.below(count)) % RECENT] as number);
  }

  /** The durable state, to come back to later (`restore`): a device that returns from the dead. Keeps its blocks until `forget`. */
  image(): DeviceImage {
    const blocks = this.#durable.slice();
    for (const block of blocks) this.#arena.retain(block);
    return { blocks };
  }

  restore(image: DeviceImage): void {
    this.#clearPending();
    this.#doomed.clear();
    for (let block = 0; block < this.blocks; block++) {
      this.#setCurrent(block, image.blocks[block] as number);
      this.#setDurable(block, image.blocks[block] as number);
    }
  }

  forget(image: DeviceImage): void {
    for (const block of image.blocks) this.#arena.release(block);
  }

  /** Gives every block back to the arena. */
  dispose(): void {
    this.clear();
    this.#closed = true;
  }

  // ---- the contract ----

  readSync(offset: number, into: Uint8Array): void {
    const doing = `read of ${into.length} bytes at ${offset} of a simulated device`;
    checkOpen(doing, this.#closed);
    checkBytes(doing, into);
    raise(doing, this.readResult(offset, into));
  }

  writeSync(offset: number, from: Uint8Array, options?: WriteOptions): void {
    const doing = `write of ${from.length} bytes at ${offset} of a simulated device`;
    checkOpen(doing, this.#closed);
    checkBytes(doing, from);
    raise(doing, options?.fua ? this.throughResult(offset, from) : this.writeResult(offset, from));
  }

  flushSync(): void {
    const doing = 'flush of a simulated device';
    checkOpen(doing, this.#closed);
    raise(doing, this.flushResult());
  }

  discardSync(offset: number, length: number): void {
    const doing = `discard of ${length} bytes at ${offset} of a simulated device`;
    checkOpen(doing, this.#closed);
    raise(doing, this.discardResult(offset, length));
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    this.readSync(offset, into);
  }

  async write(offset: number, from: Uint8Array, options?: WriteOptions): Promise<void> {
    this.writeSync(offset, from, options);
  }

  async flush(): Promise<void> {
    this.flushSync();
  }

  async discard(offset: number, length: number): Promise<void> {
    this.discardSync(offset, length);
  }

  /** The bytes stay: the same object may be opened again with `reopen`. */
  async close(): Promise<void> {
    this.#closed = true;
  }

  reopen(): void {
    this.#closed = false;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  // ---- inside ----

  #take(kinds: readonly FaultKind[]): FaultKind | undefined {
    for (let i = 0; i < this.#faults.length; i++) {
      const fault = this.#faults[i] as DeviceFault;
      if (!kinds.includes(fault.kind)) continue;
      if (fault.after > 0) {
        fault.after--;
        continue;
      }
      if (--fault.count <= 0) this.#faults.splice(i, 1);
      this.fired.set(fault.kind, (this.fired.get(fault.kind) ?? 0) + 1);
      return fault.kind;
    }
    return undefined;
  }

  #write(offset: number, from: Uint8Array, torn: boolean): void {
    this.#requests++;
    for (let done = 0; done < from.length;) {
      const block = Math.floor((offset + done) / BLOCK_BYTES);
      const start = (offset + done) % BLOCK_BYTES;
      const length = Math.min(BLOCK_BYTES - start, from.length - done);
      let sectors = ((1 << (length / SECTOR_BYTES)) - 1) << (start / SECTOR_BYTES);
      if (torn) sectors &= this.random.word();
      if (sectors) {
        const bytes = this.#arena.take();
        const view = this.#arena.bytes(bytes);
        if (length < BLOCK_BYTES) view.set(this.#arena.bytes(this.#current[block] as number));
        view.set(from.subarray(done, done + length), start);
        if (torn) {
          const merged = this.#merge(this.#current[block] as number, bytes, sectors);
          this.#arena.release(bytes);
          this.#put(block, merged, sectors);
        } else {
          this.#put(block, bytes, sectors);
        }
      }
      done += length;
    }
  }

  /** Takes over the caller's reference to `bytes`. */
  #put(block: number, bytes: number, sectors: number): void {
    this.#arena.release(this.#previous[block] as number);
    this.#previous[block] = this.#arena.retain(this.#current[block] as number);
    this.#setCurrent(block, bytes);
    this.#recent[this.#written++ % RECENT] = block;
    this.#pendingBlock.push(block);
    this.#pendingBytes.push(bytes);
    this.#pendingSectors.push(sectors);
    this.#pendingRequest.push(this.#requests);
  }

  #writeBadly(fault: FaultKind, offset: number, from: Uint8Array): number {
    const { random } = this;
    switch (fault) {
      case 'writeFails':
        this.#write(offset, from, true);
        return DEVICE_FAILED;
      case 'full':
        if (random.chance(0.5)) this.#write(offset, from.subarray(0, random.below(from.length / SECTOR_BYTES) * SECTOR_BYTES), false);
        return DEVICE_FULL;
      case 'writeTorn':
        this.damage++;
        this.#write(offset, from, true);
        return DEVICE_OK;
      case 'writeMisdirected': {
        this.damage++;
        const places = Math.floor((this.sizeBytes - from.length) / BLOCK_BYTES) + 1;
        this.#write(random.below(places) * BLOCK_BYTES, from, false);
        return DEVICE_OK;
      }
      case 'writeFlipped': {
        this.damage++;
        const bytes = from.slice();
        flipBit(bytes, random.below(bytes.length), random.below(8));
        this.#write(offset, bytes, false);
        return DEVICE_OK;
      }
      default: // lost
        this.damage++;
        return DEVICE_OK;
    }
  }

  #flushBadly(): void {
    const touched = this.#pendingBlock.slice();
    const keep = this.random.below(3); // nothing, some, all of it reached the medium
    for (let i = 0; i < touched.length; i++) {
      if (keep === 2 || (keep === 1 && this.random.chance(0.5))) this.#makeDurable(i, this.#pendingSectors[i] as number);
    }
    this.#clearPending();
    for (const block of touched) if (this.#current[block] !== this.#durable[block]) this.#doomed.add(block);
    if (this.random.chance(0.5)) this.#evict();
  }

  #evict(): void {
    for (const block of this.#doomed) this.#setCurrent(block, this.#durable[block] as number);
    this.#doomed.clear();
  }

  #makeDurable(i: number, sectors: number): void {
    const block = this.#pendingBlock[i] as number;
    const merged = this.#merge(this.#durable[block] as number, this.#pendingBytes[i] as number, sectors);
    this.#setDurable(block, merged);
    this.#arena.release(merged);
  }

  /** `under` with these sectors of `over`; the caller owns a reference to the answer. */
  #merge(under: number, over: number, sectors: number): number {
    if ((sectors & WHOLE) === WHOLE) return this.#arena.retain(over);
    const merged = this.#arena.take();
    const view = this.#arena.bytes(merged);
    view.set(this.#arena.bytes(under));
    const source = this.#arena.bytes(over);
    for (let sector = 0; sector < SECTORS; sector++) {
      if (sectors & (1 << sector)) view.set(source.subarray(sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES), sector * SECTOR_BYTES);
    }
    return merged;
  }

  #flipped(bytes: number, at: number, bit: number): number {
    const copy = this.#arena.take();
    const view = this.#arena.bytes(copy);
    view.set(this.#arena.bytes(bytes));
    flipBit(view, at, bit);
    return copy;
  }

  #copyOut(state: Int32Array, offset: number, into: Uint8Array): void {
    for (let done = 0; done < into.length;) {
      const block = Math.floor((offset + done) / BLOCK_BYTES);
      const start = (offset + done) % BLOCK_BYTES;
      const length = Math.min(BLOCK_BYTES - start, into.length - done);
      const view = this.#arena.bytes(state[block] as number);
      into.set(length === BLOCK_BYTES ? view : view.subarray(start, start + length), done);
      done += length;
    }
  }

  #setCurrent(block: number, bytes: number): void {
    this.#arena.retain(bytes);
    this.#arena.release(this.#current[block] as number);
    this.#current[block] = bytes;
  }

  #setDurable(block: number, bytes: number): void {
    this.#arena.retain(bytes);
    this.#arena.release(this.#durable[block] as number);
    this.#durable[block] = bytes;
  }

  /** Of these blocks nothing is pending any more: older writes of them were overtaken. */
  #forgetPending(blocks: ReadonlySet<number>): void {
    const kept = this.#pendingBlock.map((_, i) => i).filter((i) => !blocks.has(this.#pendingBlock[i] as number));
    this.#pendingBytes.forEach((bytes, i) => blocks.has(this.#pendingBlock[i] as number) && this.#arena.release(bytes));
    const pick = (list: readonly number[]): number[] => kept.map((i) => list[i] as number);
    this.#pendingBytes = pick(this.#pendingBytes);
    this.#pendingSectors = pick(this.#pendingSectors);
    this.#pendingRequest = pick(this.#pendingRequest);
    this.#pendingBlock = pick(this.#pendingBlock);
  }

  #clearPending(): void {
    for (const bytes of this.#pendingBytes) this.#arena.release(bytes);
    this.#pendingBlock = [];
    this.#pendingBytes = [];
    this.#pendingSectors = [];
    this.#pendingRequest = [];
  }
}

function flipBit(bytes: Uint8Array, at: number, bit: number): void {
  bytes[at] = (bytes[at] as number) ^ (1 << bit);
}

function raise(doing: string, result: number): void {
  if (result === DEVICE_FULL) throw new VarveError('VARVE_NO_SPACE', doing);
  if (result !== DEVICE_OK) throw new VarveError('VARVE_IO', doing);
}
