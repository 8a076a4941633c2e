// One forged log: built from a sound one by a seed, then opened and used in every way. A typed error or an answer is fine, whatever it says; a trap, a hang,
// a plan outside of the volume or memory without bound is not.
import { Random } from '../../src/testing/random.ts';
import { Forge, mutate, rangesOf, resizeFragment, type Structure, type StructureKind } from './forge.ts';
import { Broken, Disk, EPOCH_NOW, ImageCore, KIND, OPERATION, type ImageVolume } from './image-core.ts';

const BLOCK = 4096;
const ROOT_BYTES = 2 * BLOCK;
export const LIMITS = { steps: 20_000, pages: 2048 } as const;
const UUID = Uint8Array.from({ length: 16 }, (_, i) => i + 1);
const KEY = Uint8Array.from({ length: 16 }, (_, i) => 0xa0 + i);

export interface Base {
  readonly name: string;
  readonly volumes: readonly ImageVolume[];
  readonly forge: Forge;
}

function volumesOf(count: number, segmentBlocks: number, segmentCount: number): ImageVolume[] {
  return Array.from({ length: count }, (_, id) => ({
    id,
    segmentBlocks,
    segmentCount,
    rootFront: 0,
    dataOffset: ROOT_BYTES,
    rootBack: ROOT_BYTES + segmentBlocks * segmentCount * BLOCK,
    disk: new Disk(new Uint8Array(2 * ROOT_BYTES + segmentBlocks * segmentCount * BLOCK)),
  }));
}

/** The logs that forgeries start from. */
export function makeBases(module: WebAssembly.Module): Base[] {
  const make = (
    name: string,
    volumes: ImageVolume[],
    use: (core: ImageCore, again: () => ImageCore) => void,
    leafBlocks?: number,
  ): Base => {
    const start = (): ImageCore => new ImageCore(module, volumes, { steps: 1_000_000, pages: 8192 }, leafBlocks);
    const core = start();
    succeed(core.create(UUID, KEY));
    use(core, () => {
      const next = start();
      succeed(next.open(UUID, false));
      return next;
    });
    for (const { disk } of volumes) disk.settle();
    return { name, volumes, forge: new Forge(volumes) };
  };
  const busy = (core: ImageCore, random: Random, rounds: number, blocks: number, calm = false): void => {
    const bytes = new Uint8Array(8 * BLOCK);
    for (let round = 0; round < rounds; round++) {
      const spaces = core.sources().map((source) => source.space);
      const length = 1 + random.below(4);
      bytes.fill(random.below(255) + 1);
      succeed(core.write(random.pick(spaces), random.below(blocks - length) * BLOCK, bytes.subarray(0, length * BLOCK)));
      if (random.chance(0.2)) succeed(core.run(KIND.TRIM, random.pick(spaces), 0, random.below(blocks - 6) * BLOCK, 6 * BLOCK));
      if (random.chance(0.15)) succeed(core.run(KIND.FLUSH));
      while (!calm && core.background()) continue;
    }
  };
  const lively = (core: ImageCore, seed: number): void => {
    const random = new Random(seed);
    succeed(core.createSource('one', 96 * BLOCK));
    succeed(core.createSource('two', 40 * BLOCK));
    busy(core, random, 10, 36);
    const { result: a } = succeed(core.snapshot('a'));
    busy(core, random, 10, 36);
    succeed(core.snapshot('b'));
    busy(core, random, 4, 36);
    succeed(core.operation(OPERATION.ROLLBACK, a, 7, 0, 'left'));
    busy(core, random, 8, 36);
  };
  const tall = volumesOf(2, 64, 80);
  return [
    make('closed', volumesOf(2, 8, 60), (core) => {
      lively(core, 1);
      succeed(core.run(KIND.CHECKPOINT));
      for (let count = 0; count < 6; count++) core.run(KIND.COMPACT, 0, 1);
      busy(core, new Random(2), 3, 36);
      succeed(core.run(KIND.CLOSE));
    }),
    make('crashed', volumesOf(2, 8, 60), (first, again) => {
      let core = first;
      lively(core, 3);
      succeed(core.run(KIND.CHECKPOINT));
      succeed(core.operation(OPERATION.RESIZE, core.sources()[1]?.space ?? 0, 30 * BLOCK));
      busy(core, new Random(4), 12, 30);
      for (let count = 0; count < 4; count++) core.run(KIND.COMPACT, 0, 1);
      succeed(core.snapshot('c'));
      core = again(); // another life, another incarnation
      busy(core, new Random(5), 6, 30);
      succeed(core.run(KIND.FLUSH));
      succeed(core.write(core.sources()[0]?.space ?? 0, 0, new Uint8Array(3 * BLOCK).fill(1)));
      core.failWrites = 1; // a range is abandoned: a cut
      core.run(KIND.FLUSH);
      succeed(core.write(core.sources()[0]?.space ?? 0, 0, new Uint8Array(3 * BLOCK).fill(2)));
      succeed(core.run(KIND.FLUSH));
    }),
    make('young', volumesOf(1, 16, 40), (core) => {
      lively(core, 6);
      succeed(core.run(KIND.FLUSH));
    }),
    // Nothing but records: every operation is replayed from its header.
    make('fresh', volumesOf(2, 16, 40), (core) => {
      const random = new Random(7);
      succeed(core.createSource('one', 64 * BLOCK));
      busy(core, random, 5, 36, true);
      const { result: a } = succeed(core.snapshot('a'));
      busy(core, random, 3, 36, true);
      succeed(core.createSource('two', 20 * BLOCK));
      const { result: b } = succeed(core.snapshot('b'));
      succeed(core.operation(OPERATION.RESIZE, core.sources()[1]?.space ?? 0, 10 * BLOCK));
      busy(core, random, 2, 10, true);
      succeed(core.operation(OPERATION.ROLLBACK, b, 7, 0, 'left'));
      busy(core, random, 2, 10, true);
      succeed(core.operation(OPERATION.DELETE_SNAPSHOT, a));
      succeed(core.operation(OPERATION.DELETE_SOURCE, core.sources()[1]?.space ?? 0));
      busy(core, random, 2, 36, true);
      succeed(core.run(KIND.FLUSH));
    }),
    // A leaf whose image is of several pages, one behind the other.
    make(
      'broad',
      volumesOf(2, 64, 40),
      (core) => {
        const random = new Random(8);
        succeed(core.createSource('broad', 1024 * BLOCK));
        const bytes = new Uint8Array(BLOCK).fill(1);
        for (let count = 0; count < 1500; count++) succeed(core.write(0, random.below(1024) * BLOCK, bytes));
        succeed(core.run(KIND.CHECKPOINT));
        busy(core, random, 3, 36);
        succeed(core.run(KIND.FLUSH));
      },
      1024,
    ),
    // Leaves of blocks here and there, with history, and a name that is all that a state ends with.
    make(
      'sparse',
      volumesOf(2, 64, 40),
      (core) => {
        const random = new Random(9);
        succeed(core.createSource('sparse', 1024 * BLOCK));
        const bytes = new Uint8Array(BLOCK).fill(1);
        for (let count = 0; count < 400; count++) succeed(core.write(0, random.below(1024) * BLOCK, bytes));
        succeed(core.snapshot('only'));
        for (let count = 0; count < 40; count++) succeed(core.write(0, random.below(1024) * BLOCK, bytes));
        succeed(core.run(KIND.CHECKPOINT));
        busy(core, random, 3, 36);
        succeed(core.run(KIND.FLUSH));
      },
      256,
    ),
    // Small leaves of which no two neighbours follow one another, with history: packed, with bits for more blocks than there are.
    make('shuffled', volumesOf(2, 64, 40), (core) => {
      succeed(core.createSource('shuffled', 64 * BLOCK));
      const bytes = new Uint8Array(BLOCK).fill(1);
      for (let count = 0; count < 64; count++) succeed(core.write(0, ((count * 7) % 64) * BLOCK, bytes));
      succeed(core.snapshot('before'));
      for (let count = 0; count < 24; count++) succeed(core.write(0, ((count * 13) % 64) * BLOCK, bytes));
      succeed(core.run(KIND.CHECKPOINT));
      busy(core, new Random(10), 3, 36);
      succeed(core.run(KIND.FLUSH));
    }),
    make('tall', tall, (core) => {
      succeed(core.createSource('wide', 2000 * 16 * BLOCK));
      const bytes = new Uint8Array(BLOCK).fill(1);
      for (let leaf = 0; leaf < 1800; leaf++) succeed(core.write(0, leaf * 16 * BLOCK, bytes));
      succeed(core.snapshot('a'));
      for (let leaf = 0; leaf < 200; leaf++) succeed(core.write(0, leaf * 16 * BLOCK, bytes));
      succeed(core.run(KIND.CHECKPOINT));
      for (let leaf = 0; leaf < 20; leaf++) succeed(core.write(0, (leaf * 16 + 1) * BLOCK, bytes));
      succeed(core.run(KIND.FLUSH));
    }),
  ];
}

function succeed<T extends { readonly code: number }>(answer: T): T {
  if (answer.code !== 0) throw new Error(`a sound log failed with ${answer.code}`);
  return answer;
}

export interface Trial {
  readonly seed: number;
  readonly base: string;
  readonly kinds: readonly StructureKind[];
  /** Codes of opening for reading and for writing. */
  readonly opened: readonly [number, number];
  /** What broke, or undefined. */
  readonly broken: string | undefined;
  /** How far it was when it broke. */
  readonly at: string;
  readonly pages: number;
}

/** Forges by the seed, and uses what came out. `counters` gets what the core counted, if it counts anything (`refusals`). */
export function tryForgery(module: WebAssembly.Module, bases: readonly Base[], seed: number, onCore?: (core: ImageCore) => void): Trial {
  const random = new Random(seed);
  // The tall one takes ten times as long. The shuffled one is there to be aimed at.
  const base = (random.chance(0.06) ? bases.at(-1) : random.pick(bases.slice(0, -1).filter(({ name }) => name !== 'shuffled'))) as Base;
  return tryOn(module, base, seed, (maker) => forge(maker, random), onCore);
}

/** The same with a forgery that is given. */
export function tryOn(
  module: WebAssembly.Module,
  base: Base,
  seed: number,
  make: (maker: Forge) => StructureKind[],
  onCore?: (core: ImageCore) => void,
): Trial {
  const random = new Random(seed);
  for (const { disk } of base.volumes) disk.reset();
  const kinds = make(base.forge);
  for (const { disk } of base.volumes) disk.keep();
  const opened: [number, number] = [-1, -1];
  let at = 'opening to read';
  let broken: string | undefined;
  let pages = 0;
  const life = (use: (core: ImageCore) => void): void => {
    const core = new ImageCore(module, base.volumes, LIMITS);
    try {
      use(core);
    } finally {
      pages = Math.max(pages, core.pages);
      onCore?.(core);
    }
  };
  try {
    life((core) => {
      opened[0] = core.open(base.forge.uuid, true).code;
      if (opened[0] !== 0) return;
      at = 'reading';
      look(core, random);
      at = 'checking';
      core.check(0);
      core.check(1);
    });
    for (const { disk } of base.volumes) disk.rewind();
    at = 'opening to write';
    life((core) => {
      opened[1] = core.open(base.forge.uuid, false).code;
      if (opened[1] !== 0) return;
      at = 'writing';
      use(core, random);
    });
    at = 'opening again';
    life((core) => {
      if (core.open(base.forge.uuid, true).code !== 0) return;
      at = 'looking again';
      look(core, random);
    });
  } catch (error) {
    if (!(error instanceof Broken)) throw error;
    broken = error.message;
  }
  return { seed, base: base.name, kinds, opened, broken, at, pages };
}

/** Of a record's header. */
const R_INCARNATION = 40;

type Aim = (maker: Forge) => StructureKind[];

/** What chance hardly ever brings: each field of a few structures of every kind at its ends, and forgeries that need several changes at once. */
export function aims(base: Base): Aim[] {
  const maker = base.forge;
  for (const { disk } of base.volumes) disk.reset();
  const found: Aim[] = [];
  const of = (kind: StructureKind): Structure[] => maker.structures.filter((structure) => structure.kind === kind);
  const change = (structure: Structure, edit: (fields: DataView) => void): void => {
    found.push((forger) => {
      const bytes = forger.bytes(structure).slice();
      edit(new DataView(bytes.buffer));
      forger.put(structure, bytes);
      return [structure.kind];
    });
  };
  for (const kind of base.name === 'tall' ? (['root'] as const) : (['root', 'state', 'segments', 'leaves'] as const)) {
    for (const structure of of(kind).slice(0, 4)) {
      const whole = 32 + new DataView(maker.bytes(structure).slice().buffer).getUint16(18, true);
      const used = kind === 'root' ? 144 : Math.min(260, whole);
      if (kind === 'state' || kind === 'leaves') {
        for (let at = used; at + 2 <= whole && (kind === 'state' || at < 1600); at += 2)
          change(structure, (fields) => fields.setUint16(at, kind === 'state' ? 255 : 0xffff, true));
        // A packed image (shape 2) with a block that its leaf does not have.
        const page = new DataView(maker.bytes(structure).slice().buffer);
        for (let at = 32; kind === 'leaves' && at + 20 <= whole; at += 4) {
          if (page.getUint16(at, true) !== 2 || page.getUint16(at + 2, true) === 0 || page.getUint16(at + 2, true) > 16) continue;
          change(structure, (fields) => fields.setUint8(at + 18, fields.getUint8(at + 18) | 1));
        }
        // A page of nothing.
        change(structure, (fields) => fields.setUint32(16, 0, true));
      }
      for (let at = kind === 'root' ? 128 : 16; at + 4 <= used; at += 2) {
        for (const value of [0, 1, 255, 0xfffe, 0xffff]) change(structure, (fields) => fields.setUint16(at, value, true));
        for (const step of [-1, 1]) change(structure, (fields) => fields.setUint16(at, (fields.getUint16(at, true) + step) & 0xffff, true));
        if (at % 4 === 0) change(structure, (fields) => fields.setUint32(at, 0xffffffff, true));
      }
    }
  }
  for (const structure of of('header')
    .filter((header) => maker.bytes(header)[6] === 1)
    .slice(0, 3)) {
    // A move that holds a trim.
    change(structure, (fields) => {
      fields.setUint8(6, 2);
      fields.setUint8(256, 2);
      fields.setUint8(257, 0);
      fields.setUint32(260, 1, true);
      fields.setBigUint64(272, 1n, true);
    });
  }
  for (const structure of of('footer').slice(0, 3)) {
    // Padding that ends before the next header.
    const fields = new DataView(maker.bytes(structure).slice().buffer);
    for (let slot = 0; slot + 1 < fields.getUint16(40, true); slot++) {
      const entry = 96 + slot * 24;
      if (fields.getUint8(entry) !== 8 || fields.getUint16(entry + 2, true) === 0) continue;
      // And padding that is none.
      change(structure, (forged) => forged.setUint8(entry + 1, 4));
      change(structure, (forged) => {
        forged.setUint8(entry + 1, 4);
        forged.setUint16(entry + 2, 0, true);
        for (let at = entry + 24; at < entry + 48; at++) forged.setUint8(at, 0);
      });
    }
  }
  for (const root of of('root')) {
    // Each stream's start behind the cut that its fill has; and a cut in the footer.
    for (const [start, slot, cut] of [
      [144, 3, 1],
      [208, 3, 1],
      [144, 0, base.volumes[0]?.segmentBlocks ?? 0],
      [208, 0, base.volumes[0]?.segmentBlocks ?? 0],
    ] as const) {
      change(root, (fields) => {
        if (fields.getUint16(start, true) === 0xffff) return;
        fields.setUint16(140, 1, true);
        fields.setUint16(start + 2, slot, true);
        for (const [to, from, length] of [
          [2560, start, 2],
          [2564, start + 4, 4],
          [2568, start + 8, 8],
          [2576, start, 2],
          [2580, start + 4, 4],
        ] as const)
          for (let at = 0; at < length; at++) fields.setUint8(to + at, fields.getUint8(from + at));
        fields.setUint16(2562, cut, true);
        fields.setBigUint64(2584, fields.getBigUint64(start + 8, true) + 1n, true);
      });
    }
    // A cut that leads nowhere, or comes from nowhere; and a start behind all that its sealed segment holds.
    for (const nowhere of [2560, 2576]) {
      change(root, (fields) => {
        fields.setUint16(140, 1, true);
        for (const at of [2560, 2576]) {
          fields.setUint16(at, at === nowhere ? 0xfffe : 0, true);
          fields.setUint16(at + 2, 0, true);
          fields.setUint32(at + 4, 0, true);
        }
      });
    }
    for (const start of [144, 208]) {
      found.push((forger) => {
        for (const footer of of('footer')) {
          const bytes = forger.bytes(footer).slice();
          new DataView(bytes.buffer).setUint16(40, 0, true);
          forger.put(footer, bytes);
        }
        const bytes = forger.bytes(root).slice();
        new DataView(bytes.buffer).setUint16(start + 2, 1, true);
        forger.put(root, bytes);
        return ['footer', 'root'];
      });
    }
    change(root, (fields) => fields.setBigUint64(40, 1n, true));
    change(root, (fields) => fields.setUint32(136, fields.getUint32(136, true) - 1, true));
  }
  // A record of a life before the one whose record it follows.
  if (base.name !== 'tall') {
    for (const structure of of('header').slice(0, 60)) {
      change(structure, (fields) => fields.setBigUint64(R_INCARNATION, fields.getBigUint64(R_INCARNATION, true) - 1n, true));
    }
  }
  return found;
}

function forge(maker: Forge, random: Random): StructureKind[] {
  const byKind = new Map<StructureKind, (typeof maker.structures)[number][]>();
  for (const structure of maker.structures) byKind.set(structure.kind, [...(byKind.get(structure.kind) ?? []), structure]);
  const kinds: StructureKind[] = [];
  for (let count = random.chance(0.75) ? 1 : 1 + random.below(3); count > 0; count--) {
    const kind = random.pick([...byKind.keys()]);
    const all = byKind.get(kind) ?? [];
    // Few headers are operations, and few of them say much.
    const operations = kind === 'header' && random.chance(0.4) ? all.filter((one) => maker.bytes(one)[6] === 3) : [];
    const structure = random.pick(operations.length > 0 ? operations : all);
    const bytes = maker.bytes(structure).slice();
    if ((kind === 'state' || kind === 'segments' || kind === 'leaves') && random.chance(0.25)) resizeFragment(bytes, random);
    else if (random.chance(0.02)) for (let i = 16; i < bytes.length; i++) bytes[i] = random.below(256);
    else {
      for (let changes = random.chance(0.6) ? 1 : 1 + random.below(4); changes > 0; changes--) {
        const [from, to, item] = random.pick(rangesOf(kind, bytes));
        if (to > from) mutate(bytes, from, to, item, random);
      }
    }
    if (random.chance(0.05)) {
      maker.damage(structure, bytes, random.chance(0.5));
      continue;
    }
    maker.put(structure, bytes, random.chance(0.95));
    if (kind === 'header' && random.chance(0.7)) maker.repeatInFooter(structure);
    kinds.push(kind);
  }
  return kinds;
}

const READ_BYTES = 64 * BLOCK;

/** Everything that a reader can ask for. */
function look(core: ImageCore, random: Random): void {
  const buffer = new Uint8Array(READ_BYTES);
  const read = (space: number, epoch: number, sizeBytes: number): void => {
    if (!(sizeBytes > 0) || !Number.isFinite(sizeBytes)) return;
    const length = Math.min(sizeBytes, READ_BYTES);
    core.read(space, epoch, 0, buffer.subarray(0, length));
    if (sizeBytes > length)
      core.read(space, epoch, Math.floor(random.below(1000) * ((sizeBytes - length) / 1000)), buffer.subarray(0, length));
  };
  const sources = core.sources();
  const snapshots = core.snapshots();
  for (const { space, sizeBytes } of sources.slice(0, 8)) read(space, EPOCH_NOW, sizeBytes);
  for (const { epoch, members } of snapshots.slice(0, 8)) {
    for (const { space, sizeBytes } of members.slice(0, 4)) {
      read(space, epoch, sizeBytes);
      core.diff(0xffff, EPOCH_NOW, space, epoch);
      for (const source of sources.slice(0, 4)) core.diff(space, epoch, source.space, EPOCH_NOW);
    }
  }
}

/** Everything that a writer can do. */
function use(core: ImageCore, random: Random): void {
  const bytes = new Uint8Array(4 * BLOCK).fill(random.below(256));
  for (let round = 0; round < 6; round++) {
    for (const { space, sizeBytes } of core.sources().slice(0, 4)) {
      if (!(sizeBytes >= 8 * BLOCK) || sizeBytes > 2 ** 50) continue;
      const blocks = Math.min(2000 * 16, Math.floor(sizeBytes / BLOCK) - 4);
      core.write(space, random.below(blocks) * BLOCK, bytes, random.chance(0.2));
      core.write(space, random.below(blocks) * BLOCK + 100, bytes.subarray(0, 5000));
      core.run(KIND.TRIM, space, 0, random.below(blocks) * BLOCK, 3 * BLOCK);
    }
    const snapshots = core.snapshots();
    switch (round) {
      case 0:
        core.run(KIND.FLUSH);
        core.snapshot('forged');
        break;
      case 1:
        core.run(KIND.CHECKPOINT);
        break;
      case 2:
        for (let count = 0; count < 6; count++) core.run(KIND.COMPACT, 0, 1);
        break;
      case 3:
        if (snapshots.length > 0) core.operation(OPERATION.ROLLBACK, random.pick(snapshots).id, 9, 0, 'again');
        break;
      case 4:
        for (const snapshot of snapshots.slice(0, 3)) core.operation(OPERATION.DELETE_SNAPSHOT, snapshot.id);
        break;
      default:
        core.run(KIND.CHECKPOINT);
    }
    for (let count = 0; count < 8 && core.background(); count++) continue;
  }
  look(core, random);
  core.check(0);
  core.run(KIND.CLOSE);
}
