// The host's side of labels and catalogue frames. The bytes are known to the core alone (assembly/format/label.ts, frame.ts);
// here they become records. Any instance of the core can do it, so the pool keeps a small one of its own.

import { VarveError } from '../errors.ts';
import { instantiateCore, type CoreSource } from '../core/instantiate.ts';
import { CoreMemory, PAGE_BYTES } from '../core/memory.ts';

interface FormatExports {
  readonly memory: WebAssembly.Memory;
  exchange(): number;
  frameBuffer(bytes: number): number;
  labelLayout(fields: number): number;
  labelBackOffset(sizeBytes: number): number;
  labelEncode(fields: number, into: number): void;
  labelDecode(from: number, fields: number): number;
  /** Not in a core without RAID. */
  volumeTolerates?(level: number, members: number, lost: number): number;
  frameEncode(fields: number, into: number): number;
  frameSize(from: number, capacity: number): number;
  frameDecode(from: number, capacity: number, fields: number): number;
}

/** Why bytes are no label or frame, in the order in which it is looked for. */
export type FormatProblem = 'magic' | 'bounds' | 'checksum' | 'version' | 'features' | 'fields';
const PROBLEMS: readonly FormatProblem[] = ['magic', 'bounds', 'checksum', 'version', 'features', 'fields'];

export type Parsed<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly problem: FormatProblem };

export interface Label {
  readonly pool: string;
  readonly device: string;
  readonly versionMajor: number;
  readonly versionMinor: number;
  /** A feature that this build does not know forbids writing. */
  readonly readOnlyFeatures: boolean;
  readonly volume: number;
  readonly member: number;
  readonly members: number;
  /** As the core counts levels: 0 single. */
  readonly level: number;
  readonly stripBlocks: number;
  readonly segmentBlocks: number;
  readonly segmentCount: number;
  readonly sizeBytes: number;
  readonly slotBytes: number;
  readonly side: 'front' | 'back';
  readonly generation: number;
  /** Byte offsets on the device. */
  readonly catalogueFrontOffset: number;
  readonly rootFrontOffset: number;
  readonly dataOffset: number;
  readonly labelBackOffset: number;
  readonly catalogueBackOffset: number;
  readonly rootBackOffset: number;
}

/** What the pool decides about a new device; the rest of its label follows. */
export interface LabelRequest {
  readonly pool: string;
  readonly device: string;
  readonly volume: number;
  readonly sizeBytes: number;
  readonly generation: number;
  /** As the core counts levels; left out: single. */
  readonly level?: number;
  readonly members?: number;
  readonly member?: number;
  readonly stripBlocks?: number;
  /** Blocks of a segment; 0 or nothing: chosen by size. For tests. */
  readonly segmentBlocks?: number;
  /** Of the device, for errors. */
  readonly path?: string | null;
}

export interface Frame {
  readonly pool: string;
  readonly generation: number;
  readonly nonce: string;
  readonly previous: string;
  readonly payload: Uint8Array;
}

export const LABEL_BYTES = 4096;
export const FRAME_HEADER_BYTES = 128;
/** The fields are in front, the label or frame behind them. */
const FIELDS_BYTES = 4096;
const FORMAT_BOUNDS = 2;

// Where a field is among the fields of a label: number n is at 32 + 8·n.
const LABEL_NUMBERS = 32;
const NUMBER = {
  major: 0,
  minor: 1,
  readOnlyLow: 4,
  readOnlyHigh: 5,
  volume: 8,
  member: 9,
  members: 10,
  level: 11,
  strip: 12,
  segmentBlocks: 13,
  segmentCount: 14,
  size: 15,
  slot: 16,
  frontCatalogue: 17,
  frontRoot: 18,
  data: 19,
  backLabel: 20,
  backCatalogue: 21,
  backRoot: 22,
  side: 23,
  generation: 24,
} as const;

export class FormatCodec {
  readonly #exports: FormatExports;
  readonly #memory: CoreMemory;

  private constructor(exports: FormatExports) {
    this.#exports = exports;
    // Sets the core's heap up, which frameBuffer() takes for granted: without it buffers lie over the core's constants.
    exports.exchange();
    this.#memory = new CoreMemory(exports.memory);
  }

  static async create(core?: CoreSource): Promise<FormatCodec> {
    return new FormatCodec(await instantiateCore<FormatExports>(core));
  }

  /** Where the back label of a device of this size is; 0: the device is too small. */
  labelBackOffset(sizeBytes: number): number {
    return this.#exports.labelBackOffset(sizeBytes);
  }

  /**
   * The two labels of a new device, front and back. Members of one storage volume all get the size of the smallest.
   *
   * @throws VarveError `VARVE_LIMIT` when the device is too small; `VARVE_UNSUPPORTED` when the core has no RAID; RangeError when the level cannot be like that.
   */
  encodeLabels(request: LabelRequest): { label: Label; front: Uint8Array; back: Uint8Array } {
    if (this.#exports.volumeTolerates === undefined && (request.level ?? 0) > 0) {
      throw new VarveError('VARVE_UNSUPPORTED', 'laying out a storage device', {
        detail: 'this core knows storage volumes of one device only: expected the one of `varve` or `varve/core.raid.wasm`',
      });
    }
    const fields = this.#buffer(LABEL_BYTES);
    const into = fields + FIELDS_BYTES;
    this.#memory.bytes.fill(0, fields, fields + FIELDS_BYTES);
    this.#putUuid(fields, request.pool);
    this.#putUuid(fields + 16, request.device);
    const put = (number: number, value: number): void => this.#memory.view.setFloat64(fields + LABEL_NUMBERS + 8 * number, value, true);
    put(NUMBER.volume, request.volume);
    put(NUMBER.member, request.member ?? 0);
    put(NUMBER.members, request.members ?? 1);
    put(NUMBER.level, (request.level ?? 0) + 1);
    put(NUMBER.strip, request.stripBlocks ?? 0);
    put(NUMBER.segmentBlocks, request.segmentBlocks ?? 0);
    put(NUMBER.size, request.sizeBytes);
    put(NUMBER.generation, request.generation);
    const problem = this.#exports.labelLayout(fields);
    if (problem === FORMAT_BOUNDS) {
      throw new VarveError('VARVE_LIMIT', `laying out ${request.path ?? 'a storage device'} of ${request.sizeBytes} bytes`, {
        detail: `it is too small (${(request.members ?? 1) > 1 ? 'with these members and strips' : '1 MiB is enough'})`,
      });
    }
    if (problem !== 0) {
      throw new RangeError(
        `laying out a storage device: a strip is a power of two of blocks, from 4 KiB to 1 MiB, got ${(request.stripBlocks ?? 0) * 4096} bytes`,
      );
    }
    put(NUMBER.side, 2);
    this.#exports.labelEncode(fields, into);
    const back = this.#memory.bytes.slice(into, into + LABEL_BYTES);
    put(NUMBER.side, 1);
    this.#exports.labelEncode(fields, into);
    const front = this.#memory.bytes.slice(into, into + LABEL_BYTES);
    const parsed = this.decodeLabel(front);
    if (!parsed.ok) throw new VarveError('VARVE_INTERNAL', 'encoding a label', { detail: `its own reader refuses it (${parsed.problem})` });
    return { label: parsed.value, front, back };
  }

  /** The same label for the other side of its device: to mend the one that is damaged. */
  encodeSide(label: Label, side: 'front' | 'back'): Uint8Array {
    const { front, back } = this.encodeLabels({ ...label });
    return side === 'front' ? front : back;
  }

  /** Can everything be read without the members in the mask? */
  tolerates(level: number, members: number, lost: number): boolean {
    return this.#exports.volumeTolerates === undefined ? lost === 0 : this.#exports.volumeTolerates(level, members, lost) !== 0;
  }

  decodeLabel(bytes: Uint8Array): Parsed<Label> {
    const fields = this.#buffer(LABEL_BYTES);
    this.#memory.bytes.set(bytes.subarray(0, LABEL_BYTES), fields + FIELDS_BYTES);
    const problem = this.#exports.labelDecode(fields + FIELDS_BYTES, fields);
    if (problem !== 0) return { ok: false, problem: PROBLEMS[problem - 1] ?? 'fields' };
    const number = (n: number): number => this.#memory.view.getFloat64(fields + LABEL_NUMBERS + 8 * n, true);
    return {
      ok: true,
      value: {
        pool: this.#uuid(fields),
        device: this.#uuid(fields + 16),
        versionMajor: number(NUMBER.major),
        versionMinor: number(NUMBER.minor),
        readOnlyFeatures: number(NUMBER.readOnlyLow) !== 0 || number(NUMBER.readOnlyHigh) !== 0,
        volume: number(NUMBER.volume),
        member: number(NUMBER.member),
        members: number(NUMBER.members),
        level: number(NUMBER.level) - 1,
        stripBlocks: number(NUMBER.strip),
        segmentBlocks: number(NUMBER.segmentBlocks),
        segmentCount: number(NUMBER.segmentCount),
        sizeBytes: number(NUMBER.size),
        slotBytes: number(NUMBER.slot),
        side: number(NUMBER.side) === 1 ? 'front' : 'back',
        generation: number(NUMBER.generation),
        catalogueFrontOffset: number(NUMBER.frontCatalogue),
        rootFrontOffset: number(NUMBER.frontRoot),
        dataOffset: number(NUMBER.data),
        labelBackOffset: number(NUMBER.backLabel),
        catalogueBackOffset: number(NUMBER.backCatalogue),
        rootBackOffset: number(NUMBER.backRoot),
      },
    };
  }

  /** Bytes of the frame, header and padding included: what goes to the slot, whole blocks. */
  encodeFrame(frame: Frame): Uint8Array {
    const bytes = (FRAME_HEADER_BYTES + frame.payload.length + 4095) & ~4095;
    const fields = this.#buffer(bytes);
    const into = fields + FIELDS_BYTES;
    this.#putUuid(fields, frame.pool);
    this.#putUuid(fields + 16, frame.nonce);
    this.#putUuid(fields + 32, frame.previous);
    this.#memory.view.setFloat64(fields + 48, frame.generation, true);
    this.#memory.view.setFloat64(fields + 56, frame.payload.length, true);
    this.#memory.bytes.set(frame.payload, into + FRAME_HEADER_BYTES);
    const written = this.#exports.frameEncode(fields, into);
    return this.#memory.bytes.slice(into, into + written);
  }

  /** Bytes that the frame starting with these 4096 bytes claims to have; 0 when there is none that fits the slot. */
  frameSize(head: Uint8Array, slotBytes: number): number {
    const fields = this.#buffer(4096);
    this.#memory.bytes.set(head.subarray(0, 4096), fields + FIELDS_BYTES);
    return this.#exports.frameSize(fields + FIELDS_BYTES, slotBytes);
  }

  decodeFrame(bytes: Uint8Array): Parsed<Frame> {
    const fields = this.#buffer(bytes.length);
    const from = fields + FIELDS_BYTES;
    this.#memory.bytes.set(bytes, from);
    const problem = this.#exports.frameDecode(from, bytes.length, fields);
    if (problem !== 0) return { ok: false, problem: PROBLEMS[problem - 1] ?? 'fields' };
    const length = this.#memory.view.getFloat64(fields + 56, true);
    return {
      ok: true,
      value: {
        pool: this.#uuid(fields),
        nonce: this.#uuid(fields + 16),
        previous: this.#uuid(fields + 32),
        generation: this.#memory.view.getFloat64(fields + 48, true),
        payload: this.#memory.bytes.slice(from + FRAME_HEADER_BYTES, from + FRAME_HEADER_BYTES + length),
      },
    };
  }

  /** Room for the fields and `bytes` behind them. */
  #buffer(bytes: number): number {
    const wanted = FIELDS_BYTES + bytes;
    let pointer = this.#exports.frameBuffer(wanted) >>> 0;
    if (pointer === 0) {
      if (!this.#memory.grow(Math.ceil((wanted + 4 * 4096) / PAGE_BYTES)))
        throw new VarveError('VARVE_LIMIT', 'making room for a catalogue');
      pointer = this.#exports.frameBuffer(wanted) >>> 0;
    }
    if (pointer === 0) throw new VarveError('VARVE_INTERNAL', 'making room for a catalogue');
    return pointer;
  }

  #uuid(address: number): string {
    return formatUuid(this.#memory.bytes.subarray(address, address + 16));
  }

  #putUuid(address: number, uuid: string): void {
    this.#memory.bytes.set(uuidBytes(uuid), address);
  }
}

/** 16 bytes as `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`. */
export function formatUuid(bytes: Uint8Array): string {
  const hex = Array.from(bytes.subarray(0, 16), (byte) => byte.toString(16).padStart(2, '0')).join('');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

export function uuidBytes(uuid: string): Uint8Array {
  const hex = uuid.replaceAll('-', '');
  if (!/^[0-9a-f]{32}$/.test(hex)) throw new TypeError(`expected a uuid, got ${JSON.stringify(uuid)}`);
  return Uint8Array.from({ length: 16 }, (_, index) => Number.parseInt(hex.slice(2 * index, 2 * index + 2), 16));
}

/** 16 random bytes as a uuid. Not marked as a version 4: all 128 bits are random. */
export function randomUuid(): string {
  return formatUuid(globalThis.crypto.getRandomValues(new Uint8Array(16)));
}
