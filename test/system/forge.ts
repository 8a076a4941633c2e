// Forges logs: finds the structures of a sound one, changes bytes in them, and seals everything above again, so that no checksum stands between the forgery
// and what decodes it. It has the log key from the root, which no guest has; whoever holds the media has it too (SECURITY.md).
//
//   page    new checksum → its node, in an index page or the root → … → the root's checksum, all copies
//   header  new checksum (keyed) → previousChecksum of the next header in its stream → … → footers and roots that name one of them
//   footer  new checksum (keyed)
//
// Offsets are those of docs/FORMAT.md, written down once more: not taken from the core, which is what is tested.
import { Random } from '../../src/testing/random.ts';
import { coreOf, tableModule } from '../unit/table.support.ts';
import type { Disk, ImageVolume } from './image-core.ts';

const BLOCK = 4096;
const ROOT_SEED = 0x56415256n;
const NODE_BYTES = 32;
const ENTRY_BYTES = 24;

const hasher = coreOf(tableModule());
const hashed = hasher.allocateAligned(1 << 17, 4096) >>> 0;

/** XXH64 by the core's code, which test/unit/checksum.test.ts compares with the published sums. */
export function xxh64(bytes: Uint8Array, seed = 0n): bigint {
  new Uint8Array(hasher.memory.buffer, hashed, bytes.length).set(bytes);
  return BigInt.asUintN(64, hasher.xxh64(hashed, bytes.length, seed));
}

const view = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** The checksum of bytes that hold it themselves, at `field`. */
export function sealedSum(bytes: Uint8Array, field: number, seed: bigint): bigint {
  const copy = bytes.slice();
  view(copy).setBigUint64(field, 0n, true);
  return xxh64(copy, seed);
}

function seal(bytes: Uint8Array, field: number, seed: bigint): bigint {
  const sum = sealedSum(bytes, field, seed);
  view(bytes).setBigUint64(field, sum, true);
  return sum;
}

interface Place {
  readonly disk: Disk;
  /** Bytes from the start of the device. */
  readonly offset: number;
}

export type StructureKind = 'root' | 'index' | 'state' | 'segments' | 'leaves' | 'header' | 'footer';

export interface Structure {
  readonly kind: StructureKind;
  /** All copies; they are the same bytes. */
  readonly places: readonly Place[];
  readonly blocks: number;
  /** Of a page: where the node that names it is. */
  readonly parent: Structure | undefined;
  readonly nodeAt: number;
  /** Of a header or footer. */
  readonly volume: number;
  readonly block: number;
  readonly stream: number;
}

const PAGE_KINDS: readonly StructureKind[] = ['root', 'state', 'segments', 'leaves', 'index'];

export class Forge {
  readonly structures: readonly Structure[];
  readonly uuid: Uint8Array;
  readonly #key: Uint8Array;
  readonly #volumes: readonly ImageVolume[];
  readonly #pageSeed: bigint;
  readonly #root: Structure;
  readonly #headers: readonly Structure[];
  readonly #footers: readonly Structure[];

  constructor(volumes: readonly ImageVolume[]) {
    this.#volumes = volumes;
    const slots = [0, 1].map((slot) => ({
      places: volumes.flatMap((volume) =>
        [volume.rootFront, volume.rootBack].map((offset) => ({ disk: volume.disk, offset: offset + slot * BLOCK })),
      ),
    }));
    const sound = slots
      .map(({ places }) => ({ places: places.filter((place) => isRoot(place.disk.peek(place.offset))) }))
      .filter(({ places }) => places.length > 0);
    const newest = sound.toSorted((a, b) => Number(generationOf(b.places) - generationOf(a.places)))[0];
    if (!newest) throw new Error('no root');
    this.#root = { kind: 'root', places: newest.places, blocks: 1, parent: undefined, nodeAt: 0, volume: 0, block: 0, stream: 0 };
    const root = this.bytes(this.#root);
    this.uuid = root.slice(32, 48);
    this.#key = root.slice(48, 64);
    this.#pageSeed = xxh64(concat(this.#key, this.uuid));
    const pages: Structure[] = [];
    const top = view(root).getUint16(134, true);
    for (let i = 0; i < top; i++) this.#findPages(this.#root, 3200 + i * NODE_BYTES, pages);
    const headers: Structure[] = [];
    const footers: Structure[] = [];
    for (const volume of volumes) this.#findRecords(volume, headers, footers);
    this.#headers = headers;
    this.#footers = footers;
    this.structures = [this.#root, ...pages, ...headers, ...footers];
  }

  /** The first copy. */
  bytes(structure: Structure): Uint8Array {
    const { disk, offset } = structure.places[0] as Place;
    if (structure.blocks === 1) return disk.peek(offset);
    return concat(...Array.from({ length: structure.blocks }, (_, index) => disk.peek(offset + index * BLOCK)));
  }

  /** Puts bytes into all copies. */
  #store(structure: Structure, bytes: Uint8Array): void {
    for (const { disk, offset } of structure.places)
      for (let index = 0; index < structure.blocks; index++)
        disk.block(offset + index * BLOCK).set(bytes.subarray(index * BLOCK, (index + 1) * BLOCK));
  }

  /** Stores changed bytes without sealing anything, in one copy or in all. */
  damage(structure: Structure, bytes: Uint8Array, everywhere: boolean): void {
    this.#store(everywhere ? structure : { ...structure, places: structure.places.slice(0, 1) }, bytes);
  }

  #addressOf(volume: number, block: number): Place | undefined {
    const found = this.#volumes.find((one) => one.id === volume);
    return found && { disk: found.disk, offset: found.dataOffset + block * BLOCK };
  }

  #findPages(parent: Structure, nodeAt: number, pages: Structure[]): void {
    const node = view(this.bytes(parent).slice(nodeAt, nodeAt + NODE_BYTES));
    const kind = PAGE_KINDS[node.getUint8(12)];
    if (!kind || kind === 'root') return;
    const places = [
      this.#addressOf(node.getUint16(0, true), node.getUint32(4, true)),
      this.#addressOf(node.getUint16(2, true), node.getUint32(8, true)),
    ];
    const page: Structure = {
      kind,
      places: places.filter((place) => place !== undefined),
      blocks: 1,
      parent,
      nodeAt,
      volume: 0,
      block: 0,
      stream: 0,
    };
    const bytes = this.bytes(page);
    if (xxh64(bytes, this.#pageSeed) !== node.getBigUint64(16, true))
      throw new Error(`the checksum of a page (${kind}) is not that of docs/FORMAT.md`);
    pages.push(page);
    if (kind !== 'index') return;
    const count = view(bytes).getUint16(16, true);
    for (let i = 0; i < count; i++) this.#findPages(page, 32 + i * NODE_BYTES, pages);
  }

  headerSeed(fill: bigint, incarnation: bigint, volume: number, block: number): bigint {
    const seed = new Uint8Array(40);
    seed.set(this.#key);
    view(seed).setBigUint64(16, fill, true);
    view(seed).setBigUint64(24, incarnation, true);
    view(seed).setUint32(32, volume, true);
    view(seed).setUint32(36, block, true);
    return xxh64(seed);
  }

  #seedOf(structure: Structure, bytes: Uint8Array): bigint {
    const at = structure.kind === 'header' ? 32 : 16;
    const fields = view(bytes);
    return this.headerSeed(fields.getBigUint64(at, true), fields.getBigUint64(at + 8, true), structure.volume, structure.block);
  }

  #findRecords(volume: ImageVolume, headers: Structure[], footers: Structure[]): void {
    let footerBlocks = 1;
    while (96 + ENTRY_BYTES * (volume.segmentBlocks - footerBlocks) > BLOCK * footerBlocks) footerBlocks++;
    const dataSlots = volume.segmentBlocks - footerBlocks;
    for (let segment = 0; segment < volume.segmentCount; segment++) {
      for (let slot = 0; slot <= dataSlots; slot++) {
        const block = segment * volume.segmentBlocks + slot;
        const footer = slot === dataSlots;
        const structure: Structure = {
          kind: footer ? 'footer' : 'header',
          places: [{ disk: volume.disk, offset: volume.dataOffset + block * BLOCK }],
          blocks: footer ? footerBlocks : 1,
          parent: undefined,
          nodeAt: 0,
          volume: volume.id,
          block,
          stream: volume.disk.peek(volume.dataOffset + block * BLOCK)[footer ? 6 : 7] as number,
        };
        const bytes = this.bytes(structure);
        if (view(bytes).getUint32(0, true) !== (footer ? 0x31465656 : 0x31525656)) continue;
        if (sealedSum(bytes, 8, this.#seedOf(structure, bytes)) === view(bytes).getBigUint64(8, true))
          (footer ? footers : headers).push(structure);
      }
    }
  }

  /** Stores changed bytes and seals whatever vouches for them. Without `chain`, a header's followers do not hear of it. */
  put(structure: Structure, bytes: Uint8Array, chain = true): void {
    if (structure.kind === 'root') {
      seal(bytes, 8, ROOT_SEED);
      this.#store(structure, bytes);
    } else if (structure.kind === 'header' || structure.kind === 'footer') {
      const before = view(this.bytes(structure)).getBigUint64(8, true);
      const after = seal(bytes, 8, this.#seedOf(structure, bytes));
      this.#store(structure, bytes);
      if (chain && structure.kind === 'header' && before !== after) this.#rechain(structure.stream, before, after, 0);
    } else {
      this.#store(structure, bytes);
      const parent = structure.parent as Structure;
      const above = this.bytes(parent).slice();
      view(above).setBigUint64(structure.nodeAt + 16, xxh64(bytes, this.#pageSeed), true);
      // A page names the checkpoint that wrote it, and its node names it again.
      above.set(bytes.subarray(8, 16), structure.nodeAt + 24);
      this.put(parent, above);
    }
  }

  /** What named the old checksum of a header names the new one. */
  #rechain(stream: number, before: bigint, after: bigint, depth: number): void {
    if (depth > 2000) return;
    for (const footer of this.#footers) {
      const bytes = this.bytes(footer);
      if (view(bytes).getBigUint64(64, true) !== before) continue;
      const changed = bytes.slice();
      view(changed).setBigUint64(64, after, true);
      this.put(footer, changed);
    }
    const root = this.bytes(this.#root);
    for (const at of [144 + 16, 144 + 40, 208 + 16, 208 + 40]) {
      if (view(root).getBigUint64(at, true) !== before) continue;
      const changed = this.bytes(this.#root).slice();
      view(changed).setBigUint64(at, after, true);
      this.put(this.#root, changed);
    }
    for (const header of this.#headers) {
      if (header.stream !== stream) continue;
      const bytes = this.bytes(header);
      if (view(bytes).getBigUint64(48, true) !== before) continue;
      const changed = bytes.slice();
      view(changed).setBigUint64(48, after, true);
      const old = view(changed).getBigUint64(8, true);
      const now = seal(changed, 8, this.#seedOf(header, changed));
      this.#store(header, changed);
      this.#rechain(stream, old, now, depth + 1);
      return;
    }
  }

  /** After a header's entries changed: its segment's footer repeats them, if there is one. */
  repeatInFooter(header: Structure): void {
    const volume = this.#volumes.find((one) => one.id === header.volume) as ImageVolume;
    const segment = Math.floor(header.block / volume.segmentBlocks);
    const footer = this.#footers.find((one) => one.volume === header.volume && Math.floor(one.block / volume.segmentBlocks) === segment);
    if (!footer) return;
    const bytes = this.bytes(header);
    const changed = this.bytes(footer).slice();
    let slot = (header.block % volume.segmentBlocks) + 1;
    for (let i = 0; i < view(bytes).getUint16(60, true) && 256 + (i + 1) * ENTRY_BYTES <= BLOCK; i++) {
      const entry = bytes.subarray(256 + i * ENTRY_BYTES, 256 + (i + 1) * ENTRY_BYTES);
      if (entry[0] === 2) continue; // trims are in the header alone
      if (96 + (slot + 1) * ENTRY_BYTES > changed.length) break;
      changed.set(entry, 96 + slot++ * ENTRY_BYTES);
    }
    this.put(footer, changed);
  }
}

function isRoot(bytes: Uint8Array): boolean {
  return view(bytes).getUint32(0, true) === 0x314c5656 && sealedSum(bytes, 8, ROOT_SEED) === view(bytes).getBigUint64(8, true);
}

function generationOf(places: readonly Place[]): bigint {
  const { disk, offset } = places[0] as Place;
  return view(disk.peek(offset)).getBigUint64(64, true);
}

function concat(...parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

// ——— mutations ———

const NUMBERS = [
  0, 1, 2, 3, 4, 7, 8, 15, 16, 24, 25, 31, 32, 63, 64, 65, 127, 128, 160, 161, 255, 256, 1023, 1024, 1025, 4023, 4024, 4025, 0x7fff, 0x8000,
];
const LARGE = [0xfff0, 0xfffd, 0xfffe, 0xffff, 0x10000, 0xffffff, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff];
const HUGE = [
  0xffn << 40n,
  (1n << 40n) - 1n,
  1n << 40n,
  (1n << 48n) - 1n,
  1n << 53n,
  (1n << 63n) - 1n,
  1n << 63n,
  (1n << 64n) - 2n,
  (1n << 64n) - 1n,
];
const FLOATS = [
  0,
  -0,
  -1,
  0.5,
  1e-300,
  4096,
  2 ** 32,
  2 ** 52,
  2 ** 53,
  2 ** 53 + 2,
  1e300,
  Number.POSITIVE_INFINITY,
  Number.NEGATIVE_INFINITY,
  Number.NaN,
];

/** Where the interesting bytes of a structure are: its fields, then its items. */
export function rangesOf(kind: StructureKind, bytes: Uint8Array): readonly (readonly [from: number, to: number, item: number])[] {
  const fields = view(bytes);
  switch (kind) {
    case 'root':
      return [
        [0, 32, 8],
        [64, 144, 8],
        [144, 304, 64],
        [512, 512 + 16 * 12, 16],
        [1536, 1536 + 16 * 12, 16],
        [2560, 3200, 40],
        [3200, 3200 + 32 * Math.min(24, fields.getUint16(134, true) + 1), 32],
      ];
    case 'index':
      return [
        [0, 32, 8],
        [32, Math.min(BLOCK, 32 + 32 * fields.getUint16(16, true)), 32],
      ];
    case 'state':
    case 'segments':
    case 'leaves':
      return [
        [0, 32, 8],
        [32, Math.min(BLOCK, 72 + 64), 8],
        [32, Math.max(72, Math.min(BLOCK, 32 + fields.getUint16(18, true))), kind === 'segments' ? 24 : 16],
      ];
    case 'header': {
      const payload = fields.getUint32(84, true);
      return [
        [0, 104, 8],
        [256, Math.min(BLOCK, 256 + Math.max(ENTRY_BYTES, payload, fields.getUint16(60, true) * ENTRY_BYTES)), ENTRY_BYTES],
      ];
    }
    case 'footer':
      return [
        [0, 96, 8],
        [96, Math.min(bytes.length, 96 + Math.max(1, fields.getUint16(40, true)) * ENTRY_BYTES), ENTRY_BYTES],
      ];
  }
}

/** A fragment of a page gets longer or shorter, the others move, and the page's own figures fit. */
export function resizeFragment(page: Uint8Array, random: Random): void {
  const fields = view(page);
  const count = fields.getUint16(16, true);
  const chosen = random.below(count); // of a page that was changed before, anything may be there
  let at = 32;
  for (let index = 0; index < count && at + 40 <= BLOCK; index++) {
    const length = fields.getUint16(at + 2, true);
    const end = at + 40 + ((length + 7) & ~7);
    if (index === chosen) {
      const wanted = Math.max(
        0,
        random.chance(0.3) ? random.below(200) : length + random.pick([-24, -16, -12, -8, -4, -2, -1, 1, 2, 4, 8, 16, 24]),
      );
      const moved = at + 40 + ((wanted + 7) & ~7);
      const used = 32 + fields.getUint16(18, true);
      if (end > used || used > BLOCK || moved + (used - end) > BLOCK) return;
      const rest = page.slice(end, used);
      if (moved > end) page.fill(0, end, moved);
      page.set(rest, moved);
      page.fill(0, Math.min(BLOCK, moved + rest.length), Math.max(used, moved + rest.length));
      fields.setUint16(at + 2, wanted, true);
      fields.setUint16(18, moved + rest.length - 32, true);
      return;
    }
    at = end;
  }
}

/** Changes a few bytes between `from` and `to`. */
export function mutate(bytes: Uint8Array, from: number, to: number, item: number, random: Random): void {
  const fields = view(bytes);
  const at = (size: number): number => from + random.below(Math.max(1, Math.floor((to - from) / size))) * size;
  const fits = (offset: number, size: number): boolean => offset + size <= bytes.length;
  const number = (): number => (random.chance(0.6) ? random.pick(NUMBERS) : random.chance(0.7) ? random.pick(LARGE) : random.word());
  switch (random.below(11)) {
    case 0: {
      bytes[at(1)] = random.below(256);
      return;
    }
    case 1: {
      const offset = at(2);
      if (fits(offset, 2)) fields.setUint16(offset, number() & 0xffff, true);
      return;
    }
    case 2: {
      const offset = at(4);
      if (fits(offset, 4)) fields.setUint32(offset, number() >>> 0, true);
      return;
    }
    case 3: {
      const offset = at(8);
      if (fits(offset, 8)) fields.setBigUint64(offset, random.chance(0.5) ? random.pick(HUGE) : BigInt(number()), true);
      return;
    }
    case 4: {
      const offset = at(1);
      bytes[offset] = (bytes[offset] as number) ^ (1 << random.below(8));
      return;
    }
    case 5: {
      const offset = at(8);
      if (fits(offset, 8)) fields.setFloat64(offset, random.pick(FLOATS), true);
      return;
    }
    case 6: {
      // one item over another
      const a = at(item);
      const b = at(item);
      if (fits(a, item) && fits(b, item)) bytes.copyWithin(a, b, b + item);
      return;
    }
    case 7: {
      const a = at(item);
      const b = at(item);
      if (!fits(a, item) || !fits(b, item)) return;
      const kept = bytes.slice(a, a + item);
      bytes.copyWithin(a, b, b + item);
      bytes.set(kept, b);
      return;
    }
    case 8: {
      const offset = at(4);
      bytes.fill(random.pick([0, 0xff]), offset, Math.min(bytes.length, offset + 4 * (1 + random.below(8))));
      return;
    }
    case 9: {
      // a little more or less
      const offset = at(4);
      if (fits(offset, 4)) fields.setUint32(offset, (fields.getUint32(offset, true) + random.pick([-1, 1, 2, 8, 16, 127])) >>> 0, true);
      return;
    }
    default: {
      const offset = at(2);
      if (fits(offset, 2)) fields.setUint16(offset, (fields.getUint16(offset, true) + random.pick([-1, 1, 2, 8])) & 0xffff, true);
    }
  }
}
