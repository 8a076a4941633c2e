// What the tests of the table and of std share: the planted test build of the core (made once, when its sources are newer),
// a seeded random source, and a naive model of the table.
import { testingModule } from './testing-module.ts';

export interface TableCore {
  memory: WebAssembly.Memory;
  allocatorInitialize(): void;
  allocate(bytes: number): number;
  allocateAligned(bytes: number, alignment: number): number;
  free(pointer: number): void;
  resize(pointer: number, bytes: number): number;
  usableSize(pointer: number): number;
  available(): number;
  heapUsedBytes(): number;
  heapExtentBytes(): number;
  allocatorVerify(): number;
  xxh64(pointer: number, length: number, seed: bigint): bigint;
  counterGet(id: number): number;
  plant(id: number): void;
  tableInitialize(leafBlocks: number): void;
  liveAttach(volume: number, segmentBlocks: number, segmentCount: number): void;
  liveCount(volume: number, segment: number): number;
  liveDeathSequence(volume: number, segment: number): bigint;
  liveTotal(volume: number): number;
  spaceCreate(id: number, uid: bigint, parent: number, parentEpoch: number, sizeBytes: number): number;
  spaceFlag(id: number, flag: number, on: boolean): void;
  spaceDestroy(id: number, sequence: bigint): void;
  spaceParent(id: number): number;
  pinAdd(space: number, epoch: number): void;
  pinRemove(space: number, epoch: number): number;
  mappedBlocks(space: number): number;
  historyEntries(space: number): number;
  leafCount(space: number): number;
  leafFind(space: number, leafIndex: number): number;
  leafFindShape(space: number, leafIndex: number): number;
  leafDropIfEmpty(space: number, leafIndex: number): number;
  leafMarkDirty(space: number, leafIndex: number): number;
  leafRoom(): number;
  leafCursorBegin(): void;
  leafCursorNext(): number;
  leafCursorNextDirty(): number;
  cursorSpace: WebAssembly.Global;
  cursorLeaf: WebAssembly.Global;
  cursorShape: WebAssembly.Global;
  foundVolume: WebAssembly.Global;
  foundBlock: WebAssembly.Global;
  foundBirth: WebAssembly.Global;
  tableFind(space: number, vblock: bigint, epoch: number): number;
  tableResolve(space: number, vblock: bigint, epoch: number): number;
  tableResolveRange(space: number, epoch: number, vblock: bigint, count: number, out: number): void;
  tableExpect(space: number, vblock: bigint): void;
  tableWarm(): void;
  lookupBatch(space: number, epoch: number, vblocks: number, count: number, out: number): void;
  tableOwns(space: number, vblock: bigint, birth: number, volume: number, block: number): number;
  tablePut(space: number, vblock: bigint, volume: number, block: number, birth: number, sequence: bigint): void;
  tableTrim(space: number, vblock: bigint, count: bigint, epoch: number, sequence: bigint): number;
  trimFirst(space: number, vblock: bigint): bigint;
  tableMove(
    space: number,
    vblock: bigint,
    birth: number,
    oldVolume: number,
    oldBlock: number,
    newVolume: number,
    newBlock: number,
    sequence: bigint,
  ): number;
  tableSweep(space: number, sequence: bigint): void;
  sweepBegin(space: number, sequence: bigint): void;
  sweepStep(leaves: number): number;
  mergeAllowed(parent: number, child: number): number;
  mergeBegin(parent: number, child: number, sequence: bigint): void;
  mergeStep(leaves: number): number;
  diffBegin(spaceA: number, epochA: number, spaceB: number, epochB: number, vblock: bigint): void;
  diffNext(): number;
  diffBlock: WebAssembly.Global;
  diffCount: WebAssembly.Global;
  diffKind: WebAssembly.Global;
  tableRecount(): void;
  recountBegin(): void;
  recountStep(leaves: number): number;
  leafImageSize(leaf: number, shape: number): number;
  leafImageWrite(space: number, leafIndex: number, into: number): number;
  leafImageRead(space: number, leafIndex: number, from: number, length: number): number;
  leafImageRoom(length: number): number;
  gateBegin(capacity: number): void;
  gateSet(leaf: number, applied: bigint): void;
  gateEnd(): void;
  releasedImageTake(): number;
  tableVerify(): number;
  squeezeWanted(): number;
  squeezeStep(bytes: number): number;
  findOne(space: number, vblock: number): number;
  putRecords(space: number, volume: number, records: number, count: number, sequence: number): void;
  putMany(space: number, volume: number, records: number, count: number, sequence: number): void;
}

/** Compiles assembly/testing/table.ts unless it is up to date; returns the module. */
export function tableModule(planted = true): WebAssembly.Module {
  return testingModule('table', planted);
}

/** A fresh core, its arena initialised. Memory grows as ensure() is asked. */
export function coreOf(module: WebAssembly.Module): TableCore {
  const instance = new WebAssembly.Instance(module, {
    env: {
      abort: () => {
        throw new Error('abort');
      },
    },
  });
  const core = instance.exports as unknown as TableCore;
  core.allocatorInitialize();
  return core;
}

/** Grows the memory until so many bytes are available. */
export function ensure(core: TableCore, bytes: number): void {
  const missing = bytes - (core.available() >>> 0);
  if (missing > 0) core.memory.grow(Math.max(Math.ceil(missing / 65536) + 1, core.memory.buffer.byteLength >>> 19));
}

export type Random = (below: number) => number;

/** mulberry32: whole numbers in [0, below). */
export function random(seed: number): Random {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 4294967296) * below);
  };
}
