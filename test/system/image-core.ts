// Drives the core synchronously over bytes in memory, and watches it: a trap, a step that never ends and memory that runs away are what fuzzing looks for.
// No host, no promises, so that a log is opened, read, written and closed in a few milliseconds.
import {
  EPOCH_NOW,
  KIND,
  OPERATION,
  RESULT,
  SPACE_NONE,
  STATUS,
  STATUS_BITS,
  STATUS_MASK,
  type CoreExports,
} from '../../src/core/exports.ts';
import { CoreAbort, instantiateCoreSync } from '../../src/core/instantiate.ts';
import { CoreMemory } from '../../src/core/memory.ts';
import { blankCommand, COMMAND_BYTES, decodeCommand, MEMBERS_MAX, OP } from '../../src/core/plan.ts';

const BLOCK = 4096;

/** A promise broken by the core: no error code, but a trap, a hang or a flood. */
export class Broken extends Error {
  override readonly name = 'Broken';
}

/** Bytes under a copy-on-write layer, so that a thousand histories can start from one image. */
export class Disk {
  readonly bytes: Uint8Array;
  readonly #overlay = new Map<number, Uint8Array>();
  readonly #kept = new Map<number, Uint8Array>();

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }

  /** Back to the bytes below. */
  reset(): void {
    this.#overlay.clear();
    this.#kept.clear();
  }

  /** Remembers this moment for `rewind`. */
  keep(): void {
    this.#kept.clear();
    for (const [block, bytes] of this.#overlay) this.#kept.set(block, bytes.slice());
  }

  rewind(): void {
    this.#overlay.clear();
    for (const [block, bytes] of this.#kept) this.#overlay.set(block, bytes.slice());
  }

  /** One block, to read. */
  peek(offset: number): Uint8Array {
    return this.#overlay.get(offset / BLOCK) ?? this.bytes.subarray(offset, offset + BLOCK);
  }

  /** One block, to change. */
  block(offset: number): Uint8Array {
    let block = this.#overlay.get(offset / BLOCK);
    if (!block) this.#overlay.set(offset / BLOCK, (block = this.bytes.slice(offset, offset + BLOCK)));
    return block;
  }

  /** What lies below becomes what is seen now. */
  settle(): void {
    for (const [block, bytes] of this.#overlay) this.bytes.set(bytes, block * BLOCK);
    this.reset();
  }
}

export interface ImageVolume {
  readonly id: number;
  readonly disk: Disk;
  readonly segmentBlocks: number;
  readonly segmentCount: number;
  readonly dataOffset: number;
  readonly rootFront: number;
  readonly rootBack: number;
}

export interface Limits {
  /** Steps of tickets in one call. */
  readonly steps: number;
  /** Pages of memory. */
  readonly pages: number;
}

export interface Answer {
  /** 0: done. */
  readonly code: number;
  readonly result: number;
}

export interface SourceSeen {
  readonly space: number;
  readonly sizeBytes: number;
}

export interface SnapshotSeen {
  readonly id: number;
  readonly epoch: number;
  readonly members: readonly SourceSeen[];
}

const BUSY = 12;

export class ImageCore {
  readonly core: CoreExports;
  readonly #memory: CoreMemory;
  readonly #disks = new Map<number, Disk>();
  readonly #limits: Limits;
  /** So many of the next writes fail, having written nothing. */
  failWrites = 0;
  #steps = 0;
  #findings = 0;

  constructor(module: WebAssembly.Module, volumes: readonly ImageVolume[], limits: Limits, leafBlocks = 16) {
    this.core = instantiateCoreSync<CoreExports>(module);
    this.#memory = new CoreMemory(this.core.memory);
    this.#limits = limits;
    this.core.configure(leafBlocks, 0, 0, 0);
    for (const volume of volumes) {
      this.#disks.set(volume.id * MEMBERS_MAX, volume.disk);
      const { id, segmentBlocks, segmentCount, dataOffset, rootFront, rootBack } = volume;
      const code = this.#guard('volumeAdd', () =>
        this.core.volumeAdd(id, 0, 1, 1, segmentBlocks, segmentCount, dataOffset, rootFront, rootBack),
      );
      if (code !== 0) throw new Error(`volumeAdd: ${code}`);
    }
  }

  get pages(): number {
    return this.core.memory.buffer.byteLength / 65536;
  }

  #guard<T>(doing: string, call: () => T): T {
    const result = this.#untrapped(doing, call);
    if (this.pages > this.#limits.pages) throw new Broken(`memory: ${this.pages} pages in ${doing}`);
    return result;
  }

  #untrapped<T>(doing: string, call: () => T): T {
    try {
      return call();
    } catch (error) {
      if (error instanceof WebAssembly.RuntimeError || error instanceof CoreAbort || error instanceof RangeError) {
        // The frames inside the core: names in a build that has them, else numbers of functions.
        const frames = [...String(error.stack).matchAll(/^\s+at (?:(\S+) \()?wasm:\/\/[^\n]*?(wasm-function\[\d+\])/gm)].map(
          ([, name, number]) => name ?? number,
        );
        throw new Broken(`trap in ${doing}: ${error.message} ${frames.slice(0, 4).join(' ← ')}`.trim(), { cause: error });
      }
      throw error;
    }
  }

  #exchange(): DataView {
    return new DataView(this.core.memory.buffer, this.core.exchange() >>> 0, 65536);
  }

  /** One call of a client, driven to its end together with the background work that it waits for. */
  run(kind: number, space = 0, epoch = 0, offset = 0, length = 0, buffer?: Uint8Array): Answer {
    const doing = `ticket of kind ${kind}`;
    this.#steps = 0;
    const id = this.#guard(doing, () => this.core.submit(kind, space, epoch, offset, length));
    if (id < 0) return { code: -id, result: 0 };
    for (;;) {
      const answer = this.#advance(id, doing, buffer);
      if (answer) return answer;
      if (!this.background()) {
        // Nothing moves any more: the host would end here with VARVE_BUSY, and this log is of no further use.
        return { code: BUSY, result: 0 };
      }
    }
  }

  /** One background ticket, if the core wants one. False: none, or it could not move either. */
  background(): boolean {
    const kind = this.#guard('backgroundWanted', () => this.core.backgroundWanted());
    if (kind === 0) return false;
    const id = this.#guard(`submit of background ${kind}`, () => this.core.submit(kind, 0, 0, 0, 0));
    if (id < 0) return false;
    for (let tries = 0; tries < 4; tries++) {
      const answer = this.#advance(id, `background ticket of kind ${kind}`, undefined);
      if (answer) return answer.code === 0;
      if (!this.background()) return false;
    }
    return false;
  }

  /** Steps until the ticket ends or waits (undefined). */
  #advance(id: number, doing: string, buffer: Uint8Array | undefined): Answer | undefined {
    const { core } = this;
    for (;;) {
      if (++this.#steps > this.#limits.steps) throw new Broken(`hang: ${doing} has not ended after ${this.#limits.steps} steps`);
      const stepped = this.#guard(doing, () => core.step(id));
      const status = stepped & STATUS_MASK;
      this.#guard('problemTake', () => this.#takeFindings());
      if (status === STATUS.DONE) return { code: 0, result: core.ticketResult(id) };
      if (status === STATUS.FAILED) return { code: core.failure(), result: 0 };
      if (status === STATUS.WAIT) return undefined;
      if (status === STATUS.MEMORY) {
        const pages = core.memoryNeeded();
        if (this.pages + pages > this.#limits.pages) throw new Broken(`memory: ${doing} asks for ${pages} pages and has ${this.pages}`);
        this.#memory.grow(pages);
        continue;
      }
      this.#perform(id, stepped >>> STATUS_BITS, doing, buffer);
    }
  }

  #perform(id: number, count: number, doing: string, buffer: Uint8Array | undefined): void {
    const { core } = this;
    const at = core.planPointer(id) >>> 0;
    const command = blankCommand();
    for (let index = 0; index < count; index++) {
      decodeCommand(this.#memory.view, at + index * COMMAND_BYTES, command);
      let result = 0;
      if (command.op === OP.COPY_IN) this.#memory.slice(command.address, command.length).set(need(buffer, command, doing));
      else if (command.op === OP.COPY_OUT) need(buffer, command, doing).set(this.#memory.slice(command.address, command.length));
      else if (command.op === OP.ZERO_OUT) need(buffer, command, doing).fill(0);
      else if (command.op === OP.READ || command.op === OP.WRITE) result = this.#transfer(command, doing);
      core.complete(id, index, result);
    }
  }

  #transfer(command: { op: number; device: number; offset: number; address: number; length: number }, doing: string): number {
    const disk = this.#disks.get(command.device);
    const { op, offset, address, length } = command;
    // The host checks ranges, too, and answers with an I/O error; a plan outside of the volume is still a mistake of the core's.
    if (!disk || offset % BLOCK !== 0 || length % BLOCK !== 0 || offset < 0 || offset + length > disk.bytes.length)
      throw new Broken(`plan: ${doing} ${op === OP.READ ? 'reads' : 'writes'} ${length} bytes at ${offset} of device ${command.device}`);
    if (address + length > this.#memory.bytes.length) throw new Broken(`plan: ${doing} names memory at ${address}+${length}`);
    if (op === OP.WRITE && this.failWrites > 0) {
      this.failWrites--;
      return RESULT.IO;
    }
    for (let at = 0; at < length; at += BLOCK) {
      if (op === OP.READ) this.#memory.slice(address + at, BLOCK).set(disk.peek(offset + at));
      else disk.block(offset + at).set(this.#memory.slice(address + at, BLOCK));
    }
    return 0;
  }

  create(uuid: Uint8Array, key: Uint8Array): Answer {
    const view = this.#exchange();
    new Uint8Array(view.buffer, view.byteOffset, 16).set(uuid);
    new Uint8Array(view.buffer, view.byteOffset + 16, 16).set(key);
    return this.run(KIND.CREATE);
  }

  open(uuid: Uint8Array, readOnly: boolean): Answer {
    const view = this.#exchange();
    new Uint8Array(view.buffer, view.byteOffset, 16).set(uuid);
    return this.run(KIND.OPEN, readOnly ? 1 : 0);
  }

  operation(op: number, a: number, b = 0, c = 0, name = ''): Answer {
    const view = this.#exchange();
    const bytes = new TextEncoder().encode(name);
    view.setUint16(0, op, true);
    view.setUint16(2, bytes.length, true);
    view.setUint32(4, a, true);
    view.setFloat64(8, b, true);
    view.setUint32(16, c, true);
    view.setUint32(20, 0, true);
    new Uint8Array(view.buffer, view.byteOffset + 24, bytes.length).set(bytes);
    return this.run(KIND.OPERATION);
  }

  createSource(name: string, sizeBytes: number): Answer {
    return this.operation(OPERATION.CREATE_SOURCE, 0, sizeBytes, 0, name);
  }

  snapshot(name: string): Answer {
    return this.operation(OPERATION.SNAPSHOT, 0, 1, SPACE_NONE, name);
  }

  /** All findings of a check. The core keeps few of them: they are taken after each step. */
  check(mode: 0 | 1): { code: number; findings: number } {
    this.#findings = 0;
    const answer = this.run(KIND.CHECK, 0, mode);
    return { code: answer.code, findings: this.#findings };
  }

  #takeFindings(): void {
    while (this.core.problemTake() !== 0) if (++this.#findings > 1_000_000) throw new Broken('hang: problems without end');
  }

  sources(): SourceSeen[] {
    const found: SourceSeen[] = [];
    const count = this.#guard('sourceCount', () => this.core.sourceCount());
    if (count > 65536) throw new Broken(`${count} sources`);
    for (let index = 0; index < count; index++) {
      if (this.#guard('sourceGet', () => this.core.sourceGet(index)) === 0) continue;
      const view = this.#exchange();
      found.push({ space: view.getUint32(0, true), sizeBytes: view.getFloat64(8, true) });
    }
    return found;
  }

  snapshots(): SnapshotSeen[] {
    const found: SnapshotSeen[] = [];
    const count = this.#guard('snapshotCount', () => this.core.snapshotCount());
    if (count > 1_000_000) throw new Broken(`${count} snapshots`);
    for (let index = 0; index < count; index++) {
      const length = this.#guard('snapshotGet', () => this.core.snapshotGet(index)) >>> 0;
      if (length === 0 || length > 65536) continue;
      const view = this.#exchange();
      const members: SourceSeen[] = [];
      for (let m = 0; m < view.getUint32(12, true) && 32 + m * 16 + 16 <= 65536; m++)
        members.push({ space: view.getUint32(32 + m * 16, true), sizeBytes: view.getFloat64(32 + m * 16 + 8, true) });
      found.push({ id: view.getUint32(0, true), epoch: view.getUint32(8, true), members });
    }
    return found;
  }

  /** Walks a diff, no more than so many runs. */
  diff(spaceA: number, epochA: number, spaceB: number, epochB: number, most = 5000): number {
    let runs = 0;
    if (this.#guard('diffBegin', () => this.core.diffBegin(spaceA, epochA, spaceB, epochB, 0)) !== 0) return 0;
    for (let calls = 0; calls < most; calls++) {
      const kind = this.#guard('diffNext', () => this.core.diffNext());
      if (kind === 0) return runs;
      if (kind === 1) runs++;
    }
    return runs;
  }

  read(space: number, epoch: number, offset: number, into: Uint8Array): Answer {
    return this.run(KIND.READ, space, epoch, offset, into.length, into);
  }

  write(space: number, offset: number, from: Uint8Array, fua = false): Answer {
    return this.run(KIND.WRITE, space, fua ? 1 : 0, offset, from.length, from);
  }
}

function need(buffer: Uint8Array | undefined, command: { offset: number; length: number }, doing: string): Uint8Array {
  if (!buffer || command.offset < 0 || command.offset + command.length > buffer.length)
    throw new Broken(`plan: ${doing} copies ${command.length} bytes at ${command.offset} of a buffer of ${buffer?.length ?? 0}`);
  return buffer.subarray(command.offset, command.offset + command.length);
}

export { EPOCH_NOW, KIND, OPERATION };
