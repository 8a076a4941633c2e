// A naive model of the lookup table, and a world that drives it and the wasm through one random history.
//
// The model keeps for each space and block the list of all versions there ever were ({ birth, address } where address -1 is
// "reads zero") and forgets none; what is visible, what is live and what differs it works out from definitions:
//   state at e   the last version born at or before e, else the parent's state at the parent's epoch, else nothing
//   live         addresses of versions that are current in a named space, or visible at one of the space's pins
import { EPOCH_NOW, NONE, SEGMENTS, VOLUMES } from './table.constants.ts';
import { type Random, type TableCore, coreOf, ensure, random } from './table.support.ts';

const CURRENT = 1;
const EXTERNAL = 2;
const ZERO = -1;

interface Version {
  birth: number;
  address: number;
}

class Space {
  readonly id: number;
  readonly uid: number;
  parent: Space | null;
  parentEpoch: number;
  named = true;
  external: boolean;
  pins = new Map<number, number>();
  snapshots: number[] = [];
  timeline = new Map<number, Version[]>();

  constructor(id: number, uid: number, parent: Space | null, parentEpoch: number, external: boolean) {
    this.id = id;
    this.uid = uid;
    this.parent = parent;
    this.parentEpoch = parentEpoch;
    this.external = external;
  }

  own(block: number, epoch: number): Version | undefined {
    return this.timeline.get(block)?.findLast((version) => version.birth <= epoch);
  }

  /** Address, ZERO, or null when nothing of the chain has the block. */
  resolve(block: number, epoch: number): number | null {
    const version = this.own(block, epoch);
    if (version) return version.address;
    return this.parent ? this.parent.resolve(block, this.parentEpoch) : null;
  }

  chainExternal(): boolean {
    return this.external || (this.parent?.chainExternal() ?? false);
  }

  visible(): Set<Version> {
    const seen = new Set<Version>();
    for (const versions of this.timeline.values()) {
      const last = versions.at(-1);
      if (this.named && last) seen.add(last);
      for (const epoch of this.pins.keys()) {
        const version = versions.findLast((each) => each.birth <= epoch);
        if (version) seen.add(version);
      }
    }
    return seen;
  }

  set(block: number, birth: number, address: number): void {
    const versions = this.timeline.get(block) ?? [];
    if (versions.at(-1)?.birth === birth) versions.pop();
    versions.push({ birth, address });
    this.timeline.set(block, versions);
  }

  pin(epoch: number, by: number): void {
    const references = (this.pins.get(epoch) ?? 0) + by;
    if (references) this.pins.set(epoch, references);
    else this.pins.delete(epoch);
  }
}

// One change as the log would have it: what recovery replays.
type Change =
  | { kind: 'put'; space: number; block: number; address: number; birth: number }
  | { kind: 'trim'; space: number; block: number; count: number; epoch: number }
  | { kind: 'move'; space: number; block: number; birth: number; from: number; to: number }
  | { kind: 'pin'; space: number; epoch: number; by: number }
  | { kind: 'name'; space: number; on: boolean }
  | { kind: 'create'; space: number; uid: number; parent: number; parentEpoch: number; external: boolean }
  | { kind: 'sweep'; space: number }
  | { kind: 'merge'; parent: number; child: number }
  | { kind: 'destroy'; space: number };

interface Root {
  sequence: number;
  spaces: { id: number; uid: number; parent: number; parentEpoch: number; named: boolean; external: boolean; pins: [number, number][] }[];
  images: Map<string, { space: number; leaf: number; bytes: Uint8Array; applied: number }>;
}

const volumeOf = (address: number): number => VOLUMES[Math.floor(address / 2 ** 32)] ?? 0;
const blockOf = (address: number): number => address % 2 ** 32;

export interface WorldOptions {
  leafBlocks: number;
  blocks: number;
  merges?: boolean;
  external?: boolean;
  plant?: number;
  sequential?: number;
}

export class World {
  readonly seed: number;
  readonly next: Random;
  readonly options: WorldOptions;
  core: TableCore;
  readonly spaces = new Map<number, Space>();
  epoch = 1;
  sequence = 1;
  uid = 1;
  unswept = false;
  readonly log: { sequence: number; change: Change }[] = [];
  private readonly module: WebAssembly.Module;
  private readonly cursors = VOLUMES.map((_, index) => index * 2 ** 32);
  private buffer = 0;
  private bufferBytes = 0;

  constructor(module: WebAssembly.Module, seed: number, options: WorldOptions) {
    this.module = module;
    this.seed = seed;
    this.next = random(seed);
    this.options = options;
    this.core = this.fresh();
    this.create(null, 0);
  }

  fail(what: string): never {
    throw new Error(`seed ${this.seed}, ${this.options.leafBlocks}-block leaves, change ${this.log.length}: ${what}`);
  }

  private fresh(): TableCore {
    const core = coreOf(this.module);
    ensure(core, 2 ** 20);
    core.tableInitialize(this.options.leafBlocks);
    VOLUMES.forEach((volume, index) => core.liveAttach(volume, SEGMENTS[index]?.[0] ?? 0, SEGMENTS[index]?.[1] ?? 0));
    this.bufferBytes = 2 ** 19;
    this.buffer = core.allocate(this.bufferBytes);
    if (this.options.plant) core.plant(this.options.plant);
    return core;
  }

  // --- changes: to the model, to the log, to the wasm ---

  private change(change: Change): void {
    const sequence = ++this.sequence;
    this.log.push({ sequence, change });
    this.apply(this.core, change, sequence);
  }

  private apply(core: TableCore, change: Change, sequence: number): void {
    const s = BigInt(sequence);
    ensure(core, core.leafRoom() * 2);
    switch (change.kind) {
      case 'put':
        core.tablePut(change.space, BigInt(change.block), volumeOf(change.address), blockOf(change.address), change.birth, s);
        break;
      case 'trim':
        // Little memory at a time, so that it stops and is called again.
        while (core.tableTrim(change.space, BigInt(change.block), BigInt(change.count), change.epoch, s) === 0)
          ensure(core, core.leafRoom() * 2);
        break;
      case 'move':
        core.tableMove(
          change.space,
          BigInt(change.block),
          change.birth,
          volumeOf(change.from),
          blockOf(change.from),
          volumeOf(change.to),
          blockOf(change.to),
          s,
        );
        break;
      case 'pin':
        if (change.by > 0) core.pinAdd(change.space, change.epoch);
        else core.pinRemove(change.space, change.epoch);
        break;
      case 'name':
        core.spaceFlag(change.space, CURRENT, change.on);
        break;
      case 'create':
        if (!core.spaceCreate(change.space, BigInt(change.uid), change.parent, change.parentEpoch, 2 ** 40))
          this.fail('spaceCreate refused');
        core.spaceFlag(change.space, CURRENT, true);
        core.spaceFlag(change.space, EXTERNAL, change.external);
        break;
      case 'sweep':
        core.sweepBegin(change.space, s);
        while (core.sweepStep(2));
        break;
      case 'merge':
        if (!core.mergeAllowed(change.parent, change.child)) this.fail('merge refused');
        core.mergeBegin(change.parent, change.child, s);
        do ensure(core, core.leafRoom() * 4);
        while (core.mergeStep(3));
        break;
      case 'destroy':
        core.spaceDestroy(change.space, s);
        break;
    }
  }

  private allocateAddress(): number {
    const index = this.next(VOLUMES.length);
    const cursor = this.cursors[index] ?? 0;
    this.cursors[index] = cursor + 1 + (this.next(16) ? 0 : 1 + this.next(3));
    return cursor;
  }

  create(parent: Space | null, parentEpoch: number): Space {
    let id = this.next(3) ? this.next(8) : this.next(65535);
    while (this.spaces.has(id)) id = this.next(65535);
    const space = new Space(id, this.uid++, parent, parentEpoch, !parent && (this.options.external ?? false));
    this.spaces.set(id, space);
    parent?.pin(parentEpoch, 1);
    this.change({ kind: 'create', space: id, uid: space.uid, parent: parent?.id ?? NONE, parentEpoch, external: space.external });
    return space;
  }

  put(space: Space, block: number, address: number): void {
    space.set(block, this.epoch, address);
    this.change({ kind: 'put', space: space.id, block, address, birth: this.epoch });
  }

  trim(space: Space, block: number, count: number): void {
    for (let i = block; i < block + count; i++) {
      const state = space.resolve(i, EPOCH_NOW);
      if ((state === null && space.chainExternal()) || (state !== null && state !== ZERO)) space.set(i, this.epoch, ZERO);
    }
    this.change({ kind: 'trim', space: space.id, block, count, epoch: this.epoch });
  }

  move(space: Space, block: number, version: Version, stale: boolean): void {
    const to = this.allocateAddress();
    const from = stale ? this.allocateAddress() : version.address;
    if (!stale) version.address = to;
    this.change({ kind: 'move', space: space.id, block, birth: version.birth, from, to });
  }

  sweep(space: Space): void {
    this.change({ kind: 'sweep', space: space.id });
  }

  snapshot(space: Space): number {
    const epoch = this.epoch++;
    space.snapshots.push(epoch);
    space.pin(epoch, 1);
    this.change({ kind: 'pin', space: space.id, epoch, by: 1 });
    return epoch;
  }

  merge(parent: Space, child: Space): void {
    for (const [block, versions] of parent.timeline) {
      const shown = versions.findLast((version) => version.birth <= child.parentEpoch);
      if (shown) child.timeline.set(block, [shown, ...(child.timeline.get(block) ?? [])]);
    }
    child.parent = parent.parent;
    child.parentEpoch = parent.parentEpoch;
    child.external ||= parent.external;
    this.spaces.delete(parent.id);
    this.change({ kind: 'merge', parent: parent.id, child: child.id });
  }

  // --- one random step ---

  private pick<T>(items: readonly T[]): T | undefined {
    return items[this.next(items.length)];
  }

  private children(space: Space): Space[] {
    return [...this.spaces.values()].filter((each) => each.parent === space);
  }

  private depth(space: Space): number {
    return 1 + (space.parent ? this.depth(space.parent) : 0);
  }

  step(): void {
    const named = [...this.spaces.values()].filter((space) => space.named);
    const space = this.pick(named);
    if (!space) return void this.create(null, 0);
    const { blocks } = this.options;
    const op = this.next(100);
    if (op < 50) {
      const sequential = this.next(100) < (this.options.sequential ?? 40);
      const count = sequential ? 1 + this.next(this.next(6) ? 20 : this.options.leafBlocks * 2) : 1 + this.next(6);
      const start = this.next(blocks);
      const volume = this.next(VOLUMES.length);
      for (let k = 0; k < count; k++) {
        if (sequential) {
          const address = this.cursors[volume] ?? 0;
          this.cursors[volume] = address + 1;
          this.put(space, (start + k) % blocks, address);
        } else {
          this.put(space, this.next(blocks), this.allocateAddress());
        }
      }
    } else if (op < 62) {
      const start = this.next(blocks);
      const count = this.next(3) ? 1 + this.next(12) : 1 + this.next(blocks - start);
      this.trim(space, start, Math.min(count, blocks - start));
    } else if (op < 70) {
      this.snapshot(space);
    } else if (op < 77) {
      const from = this.pick([...this.spaces.values()].filter((each) => each.snapshots.length));
      if (!from) return;
      const index = this.next(from.snapshots.length);
      const epoch = from.snapshots.splice(index, 1)[0] ?? 0;
      from.pin(epoch, -1);
      this.change({ kind: 'pin', space: from.id, epoch, by: -1 });
      if (this.next(4)) this.sweep(from);
      else this.unswept = true;
    } else if (op < 89) {
      for (let k = 0; k < 10; k++) {
        const where = this.pick([...this.spaces.values()]);
        const block = where && this.pick([...where.timeline.keys()]);
        const version = where && block !== undefined && this.pick(where.timeline.get(block) ?? []);
        if (where && block !== undefined && version && version.address !== ZERO && (where.visible().has(version) || this.next(2))) {
          const visible = where.visible().has(version);
          // A version that may be in the table still, unswept, must not be moved twice to one address: only visible ones move.
          this.move(where, block, version, !visible || this.next(4) === 0);
        }
      }
    } else if (op < 93) {
      const from = this.pick([...this.spaces.values()].filter((each) => each.snapshots.length && this.depth(each) < 6));
      if (!from || this.spaces.size > 9) return;
      const epoch = this.pick(from.snapshots) ?? 0;
      this.create(from, epoch);
      if (from.named && this.next(2)) this.unname(from); // a rollback: the name goes to the new space
    } else if (op < 96) {
      const gone = this.pick([...this.spaces.values()].filter((each) => !each.pins.size && this.spaces.size > 2));
      if (!gone) return;
      this.spaces.delete(gone.id);
      if (gone.parent) {
        gone.parent.pin(gone.parentEpoch, -1);
        this.unswept = true;
      }
      this.change({ kind: 'destroy', space: gone.id });
    } else {
      if (this.options.merges === false) return;
      if (this.next(3) === 0) {
        const old = this.pick(named.filter((each) => this.children(each).length));
        if (old) this.unname(old);
      }
      for (const parent of this.spaces.values()) {
        const children = this.children(parent);
        const child = children[0];
        if (parent.named || children.length !== 1 || !child || parent.pins.size !== 1 || parent.pins.get(child.parentEpoch) !== 1) continue;
        if (this.next(2)) this.merge(parent, child);
      }
    }
  }

  private unname(space: Space): void {
    space.named = false;
    this.change({ kind: 'name', space: space.id, on: false });
    if (this.next(2)) this.sweep(space);
    else this.unswept = true;
  }

  // --- checks ---

  sweepAll(): void {
    for (const space of this.spaces.values()) this.sweep(space);
    this.unswept = false;
  }

  private view(bytes: number): DataView {
    if (bytes > this.bufferBytes) throw new Error('buffer');
    return new DataView(this.core.memory.buffer, this.buffer, bytes);
  }

  private expectRecord(view: DataView, at: number, expected: number | null, what: string): void {
    const kind = view.getUint32(at, true);
    const address =
      kind === 2
        ? (VOLUMES as readonly number[]).indexOf(view.getUint32(at + 4, true)) * 2 ** 32 + view.getUint32(at + 8, true)
        : kind === 1
          ? ZERO
          : null;
    // Zero in a space without anything below may be absent or a hole; with a baseline the two differ.
    const same = address === expected || (expected === ZERO && address === null && what.includes('(plain)'));
    if (!same) this.fail(`${what}: expected ${expected}, got ${address}`);
  }

  /** Every state that can be read, whole. */
  checkStates(): void {
    const { core, options } = this;
    for (const space of this.spaces.values()) {
      const epochs = [...space.pins.keys(), ...(space.named ? [EPOCH_NOW] : [])];
      const plain = space.chainExternal() ? '' : ' (plain)';
      for (const epoch of epochs) {
        core.tableResolveRange(space.id, epoch, 0n, options.blocks, this.buffer);
        const view = this.view(options.blocks * 16);
        for (let block = 0; block < options.blocks; block++) {
          this.expectRecord(view, block * 16, space.resolve(block, epoch), `space ${space.id} epoch ${epoch} block ${block}${plain}`);
        }
        const some = Array.from({ length: 40 }, () => this.next(options.blocks));
        const doubles = new Float64Array(core.memory.buffer, this.buffer, some.length);
        some.forEach((block, k) => {
          doubles[k] = block;
        });
        core.lookupBatch(space.id, epoch, this.buffer, some.length, this.buffer + 8 * some.length);
        const batch = this.view(some.length * 24);
        some.forEach((block, k) => {
          this.expectRecord(
            batch,
            8 * some.length + 16 * k,
            space.resolve(block, epoch),
            `batch: space ${space.id} epoch ${epoch} block ${block}${plain}`,
          );
          const expected = space.resolve(block, epoch);
          const kind = core.tableResolve(space.id, BigInt(block), epoch);
          if ((kind === 2) !== (expected !== null && expected !== ZERO))
            this.fail(`tableResolve: space ${space.id} epoch ${epoch} block ${block}`);
          const own = space.own(block, epoch);
          if (
            own &&
            own.address !== ZERO &&
            !core.tableOwns(space.id, BigInt(block), own.birth, volumeOf(own.address), blockOf(own.address))
          )
            this.fail('tableOwns');
        });
      }
    }
    const rule = core.tableVerify();
    if (rule) this.fail(`tableVerify: rule ${Math.floor(rule / 1000)} in space ${rule % 1000}`);
    const arena = core.allocatorVerify();
    if (arena) this.fail(`allocatorVerify: ${arena}`);
  }

  /** After a sweep of everything: exactly what is visible is live. */
  checkLive(core = this.core): void {
    const expected = SEGMENTS.map(([, count]) => new Uint32Array(count));
    let total = 0;
    for (const space of this.spaces.values()) {
      let mapped = 0;
      for (const version of space.visible()) {
        if (version.address === ZERO) continue;
        const index = Math.floor(version.address / 2 ** 32);
        const segment = Math.floor(blockOf(version.address) / (SEGMENTS[index]?.[0] ?? 1));
        const counts = expected[index];
        if (counts) counts[segment] = (counts[segment] ?? 0) + 1;
        total++;
        mapped++;
      }
      if (core.mappedBlocks(space.id) > mapped) this.fail(`mappedBlocks of space ${space.id}: ${core.mappedBlocks(space.id)} > ${mapped}`);
    }
    expected.forEach((counts, index) =>
      counts.forEach((count, segment) => {
        const got = core.liveCount(VOLUMES[index] ?? 0, segment);
        if (got !== count) this.fail(`live count of volume ${VOLUMES[index]} segment ${segment}: expected ${count}, got ${got}`);
      }),
    );
    const sum = VOLUMES.reduce((all, volume) => all + core.liveTotal(volume), 0);
    if (sum !== total) this.fail(`live total ${sum}, expected ${total}`);
  }

  /** Two random states against each other. */
  checkDiff(): void {
    const { core, options } = this;
    const states = [...this.spaces.values()].flatMap((space) =>
      [...space.pins.keys(), ...(space.named ? [EPOCH_NOW] : [])].map((epoch) => ({ space, epoch })),
    );
    for (let k = 0; k < 6; k++) {
      const a = this.next(8) ? this.pick(states) : undefined;
      const same = states.filter((state) => state.space === a?.space);
      const b = this.pick(this.next(2) && same.length ? same : states);
      if (!b) return;
      const external = (a?.space.chainExternal() ?? false) || b.space.chainExternal();
      const got = new Map<number, number>();
      core.diffBegin(a?.space.id ?? NONE, a?.epoch ?? 0, b.space.id, b.epoch, 0n);
      for (let calls = 0; ; calls++) {
        if (calls > 100_000) this.fail('diff does not end');
        const result = core.diffNext();
        if (result === 0) break;
        if (result === 3) continue;
        const start = Number(core.diffBlock.value as bigint);
        const count = core.diffCount.value as number;
        for (let block = start; block < start + count; block++) {
          if (got.has(block)) this.fail('diff gives a block twice');
          got.set(block, core.diffKind.value as number);
        }
        if (this.next(3) === 0) core.diffBegin(a?.space.id ?? NONE, a?.epoch ?? 0, b.space.id, b.epoch, BigInt(start + count));
      }
      for (let block = 0; block < options.blocks; block++) {
        const normal = (state: number | null): number | null => (state === null && !external ? ZERO : state);
        const from = normal(a ? a.space.resolve(block, a.epoch) : null);
        const to = normal(b.space.resolve(block, b.epoch));
        const expected = from === to ? undefined : to === ZERO ? 2 : 1;
        if (got.get(block) !== expected) {
          this.fail(
            `diff (${a?.space.id}, ${a?.epoch}) → (${b.space.id}, ${b.epoch}) block ${block}: expected ${expected}, got ${got.get(block)}`,
          );
        }
      }
    }
  }

  // --- images ---

  image(core: TableCore, space: number, leaf: number): Uint8Array {
    const size = core.leafImageSize(core.leafFind(space, leaf), core.leafFindShape(space, leaf));
    if (size > this.bufferBytes) throw new Error('image too large');
    const written = core.leafImageWrite(space, leaf, this.buffer);
    if (written !== size) this.fail(`image size ${size}, written ${written}`);
    return new Uint8Array(core.memory.buffer, this.buffer, size).slice();
  }

  leaves(): { space: number; leaf: number }[] {
    const found: { space: number; leaf: number }[] = [];
    this.core.leafCursorBegin();
    while (this.core.leafCursorNext())
      found.push({ space: this.core.cursorSpace.value as number, leaf: (this.core.cursorLeaf.value as number) >>> 0 });
    return found;
  }

  root(): Root {
    const images: Root['images'] = new Map();
    for (const { space, leaf } of this.leaves())
      images.set(this.key(space, leaf), { space, leaf, bytes: this.image(this.core, space, leaf), applied: this.sequence });
    const spaces = [...this.spaces.values()]
      .sort((x, y) => x.uid - y.uid)
      .map((space) => ({
        id: space.id,
        uid: space.uid,
        parent: space.parent?.id ?? NONE,
        parentEpoch: space.parentEpoch,
        named: space.named,
        external: space.external,
        pins: [...space.pins],
      }));
    return { sequence: this.sequence, spaces, images };
  }

  key(space: number, leaf: number): string {
    return `${this.spaces.get(space)?.uid}:${leaf}`;
  }

  /** Newer images of some leaves, of spaces that the root knows. */
  refresh(root: Root): void {
    const known = new Set(root.spaces.map((space) => space.uid));
    for (const { space, leaf } of this.leaves()) {
      if (this.next(3) || !known.has(this.spaces.get(space)?.uid ?? -1)) continue;
      root.images.set(this.key(space, leaf), { space, leaf, bytes: this.image(this.core, space, leaf), applied: this.sequence });
    }
  }

  /** A new instance from the root's spaces and images, replayed to the present. */
  recover(root: Root): void {
    const core = this.fresh();
    core.gateBegin(4);
    for (const space of root.spaces) {
      if (!core.spaceCreate(space.id, BigInt(space.uid), space.parent, space.parentEpoch, 2 ** 40)) this.fail('spaceCreate refused');
      core.spaceFlag(space.id, CURRENT, space.named);
      core.spaceFlag(space.id, EXTERNAL, space.external);
    }
    for (const space of root.spaces) {
      const children = root.spaces.filter((each) => each.parent === space.id);
      for (const [epoch, references] of space.pins) {
        const own = references - children.filter((child) => child.parentEpoch === epoch).length;
        for (let k = 0; k < own; k++) core.pinAdd(space.id, epoch);
      }
    }
    for (const { space, leaf, bytes, applied } of root.images.values()) {
      ensure(core, core.leafImageRoom(bytes.length) + 65536);
      new Uint8Array(core.memory.buffer, this.buffer, bytes.length).set(bytes);
      if (!core.leafImageRead(space, leaf, this.buffer, bytes.length)) this.fail(`image of leaf ${leaf} refused`);
      core.gateSet(core.leafFind(space, leaf), BigInt(applied));
    }
    for (const { sequence, change } of this.log) if (sequence > root.sequence) this.apply(core, change, sequence);
    core.gateEnd();
    ensure(core, 65536);
    core.recountBegin();
    while (core.recountStep(3));
    this.core = core;
  }
}
