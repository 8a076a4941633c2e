import { expect, test } from 'vitest';
import { EPOCH_NOW, NONE, VOLUMES } from './table.constants.ts';
import { type TableCore, coreOf, ensure, random, tableModule } from './table.support.ts';

const module = tableModule();
const [V] = VOLUMES;
const IMAGE = 12;

function open(leafBlocks = 512): TableCore {
  const core = coreOf(module);
  ensure(core, 2 ** 27);
  core.tableInitialize(leafBlocks);
  core.liveAttach(V, 1024, 2 ** 22);
  core.spaceCreate(0, 1n, NONE, 0, 2 ** 50);
  core.spaceFlag(0, 1, true);
  return core;
}

test('packed fields hold their limits: volume, block, birth, virtual block', () => {
  const core = open();
  core.liveAttach(0xfffd, 1024, 2 ** 22);
  const last = 2n ** 40n - 1n;
  ensure(core, core.leafRoom() * 4);
  core.tablePut(0, last, 0xfffd, 0xffffffff, 0xfffffffe, 1n);
  expect(core.tableFind(0, last, EPOCH_NOW)).toBe(2);
  expect([core.foundVolume.value, (core.foundBlock.value as number) >>> 0, (core.foundBirth.value as number) >>> 0]).toEqual([
    0xfffd, 0xffffffff, 0xfffffffe,
  ]);
  expect(core.tableFind(0, last - 1n, EPOCH_NOW)).toBe(0);
  expect(core.tableFind(0, last, 0xfffffffd)).toBe(0);
  expect(core.liveCount(0xfffd, 2 ** 22 - 1)).toBe(1);
  core.tablePut(0, 0n, V, 0, 1, 2n);
  expect(core.tableFind(0, 0n, 1)).toBe(2);
  core.tableTrim(0, 0n, 2n ** 40n, 0xfffffffe, 3n);
  expect(core.mappedBlocks(0)).toBe(0);
});

test('trimming 2^40 blocks of which few exist takes no time', () => {
  const core = open();
  for (let k = 0; k < 100; k++) {
    ensure(core, core.leafRoom() * 2);
    core.tablePut(0, BigInt(k) * 2n ** 33n + 5n, V, k, 1, 1n);
  }
  const begin = performance.now();
  ensure(core, core.leafRoom() * 2);
  expect(core.tableTrim(0, 0n, 2n ** 40n, 2, 2n)).toBe(1);
  expect(performance.now() - begin).toBeLessThan(5000); // one by one it would be hours
  expect(core.mappedBlocks(0)).toBe(0);
  expect(core.liveTotal(V)).toBe(0);
  expect(core.trimFirst(0, 2n ** 33n + 6n)).toBe(2n ** 33n + 6n);
  expect(core.trimFirst(0, 2n ** 32n)).toBe(2n ** 33n);
});

test('the cursor gives all leaves in order while they change, and the dirty one only what changed', () => {
  const core = open(16);
  const next = random(4);
  const expected = new Set<string>();
  for (const id of [0, 7, 300, 65000]) {
    if (id) core.spaceCreate(id, BigInt(id + 1), NONE, 0, 0);
    for (let k = 0; k < 60; k++) {
      const leaf = next(20) ? next(4000) : next(2 ** 31);
      ensure(core, core.leafRoom() * 2);
      core.tablePut(id, BigInt(leaf) * 16n, V, next(1000), 1, 1n);
      expected.add(`${id}:${leaf}`);
    }
  }
  const walk = (dirty: boolean, touch: boolean): string[] => {
    const seen: string[] = [];
    core.leafCursorBegin();
    for (;;) {
      const leaf = dirty ? core.leafCursorNextDirty() : core.leafCursorNext();
      if (!leaf) return seen;
      const [id, index] = [core.cursorSpace.value as number, (core.cursorLeaf.value as number) >>> 0];
      seen.push(`${id}:${index}`);
      expect(core.leafFind(id, index)).toBe(leaf);
      if (touch) {
        new DataView(core.memory.buffer).setUint32(leaf + 16, 0, true); // clean
        ensure(core, core.leafRoom() * 2);
        if (next(3) === 0) core.tablePut(id, BigInt(index) * 16n + BigInt(next(16)), V, next(1000), 1, 1n); // dirty again, and it may move
      }
    }
  };
  const order = [...expected]
    .map((key) => key.split(':').map(Number) as [number, number])
    .sort((a, b) => a[0] - b[0] || a[1] - b[1])
    .map((key) => key.join(':'));
  expect(walk(false, false)).toEqual(order);
  expect(walk(true, false)).toEqual(order);
  for (let round = 0; round < 12; round++) {
    const dirty = order.filter((key) => {
      const [id, index] = key.split(':').map(Number) as [number, number];
      return new DataView(core.memory.buffer).getUint32(core.leafFind(id, index) + 16, true) & 1;
    });
    expect(walk(true, true)).toEqual(dirty);
    const again = order[next(order.length)] ?? '';
    const [id, index] = again.split(':').map(Number) as [number, number];
    expect(core.leafMarkDirty(id, index)).toBe(1);
  }
});

test('released images come back once each: dropped, destroyed and stolen leaves', () => {
  const core = open(16);
  const image = (space: number, leaf: number, number: number): void =>
    new DataView(core.memory.buffer).setUint32(core.leafFind(space, leaf) + IMAGE, number, true);
  const take = (): number[] => {
    const taken: number[] = [];
    for (let number = core.releasedImageTake(); number; number = core.releasedImageTake()) taken.push(number);
    return taken.sort((a, b) => a - b);
  };
  ensure(core, core.leafRoom() * 12);
  for (let leaf = 0; leaf < 4; leaf++) core.tablePut(0, BigInt(leaf * 16), V, leaf, 1, 1n);
  for (let leaf = 0; leaf < 4; leaf++) image(0, leaf, 10 + leaf);
  core.tableTrim(0, 0n, 16n, 1, 2n);
  expect(core.leafFind(0, 0), 'an emptied leaf stays for the checkpoint').not.toBe(0);
  expect(take()).toEqual([]);
  expect(core.leafDropIfEmpty(0, 0)).toBe(1);
  expect(core.leafDropIfEmpty(0, 1)).toBe(0);
  expect(take()).toEqual([10]);
  core.spaceCreate(1, 2n, 0, 1, 0);
  core.spaceFlag(0, 1, false);
  core.spaceFlag(1, 1, true);
  core.tablePut(1, 16n, V, 50, 2, 3n);
  image(1, 1, 20);
  core.mergeBegin(0, 1, 4n);
  while (core.mergeStep(1));
  expect(take(), 'the leaf merged into and the stolen ones').toEqual([11, 12, 13]);
  expect(core.mappedBlocks(1)).toBe(3);
  expect(core.liveTotal(V)).toBe(3);
  core.spaceDestroy(1, 5n);
  expect(take()).toEqual([20]);
  expect(core.liveTotal(V)).toBe(0);
});

test('leafRoom() is enough for any change to a leaf', () => {
  for (const leafBlocks of [16, 512, 1024]) {
    const core = open(leafBlocks);
    const next = random(leafBlocks);
    let epoch = 1;
    for (let step = 0; step < 3000; step++) {
      ensure(core, core.leafRoom());
      const room = core.available();
      const extent = core.heapExtentBytes();
      const block = BigInt(next(4)) * 2n ** 34n + BigInt(next(leafBlocks));
      if (next(5)) core.tablePut(0, block, V, next(2 ** 31), epoch, 1n);
      else core.tableTrim(0, block - (block % BigInt(leafBlocks)), BigInt(leafBlocks), epoch, 1n);
      expect(core.heapExtentBytes() - extent).toBeLessThanOrEqual(Math.min(room, core.leafRoom()));
      if (next(20) === 0) core.pinAdd(0, epoch++);
    }
  }
});

test('a leaf takes every shape and comes back from it', () => {
  const core = open();
  const next = random(8);
  const order = Array.from({ length: 512 }, (_, i) => ({ i, key: next(2 ** 30) }))
    .sort((a, b) => a.key - b.key)
    .map((each) => each.i);
  const addresses = new Map<number, number>();
  const check = (shape: number): void => {
    expect(core.leafFindShape(0, 0)).toBe(shape);
    expect(core.tableVerify()).toBe(0);
    for (let i = 0; i < 512; i++) {
      expect(core.tableFind(0, BigInt(i), EPOCH_NOW)).toBe(addresses.has(i) ? 2 : 0);
      if (addresses.has(i)) expect(core.foundBlock.value).toBe(addresses.get(i));
    }
  };
  let address = 0;
  const put = (i: number, block = (address += 3)): void => {
    core.tablePut(0, BigInt(i), V, block, 1, 1n);
    addresses.set(i, block);
  };
  const trim = (i: number): void => {
    core.tableTrim(0, BigInt(i), 1n, 1, 1n);
    addresses.delete(i);
  };
  order.slice(0, 3).forEach((i) => put(i));
  check(1);
  order.slice(3, 470).forEach((i) => put(i));
  check(2);
  order.slice(470).forEach((i) => put(i));
  check(3);
  order.slice(0, 60).forEach(trim);
  check(3);
  order.slice(60, 80).forEach(trim);
  check(2);
  for (let i = 0; i < 512; i++) put(i, 9000 + i);
  check(1);
  order.slice(0, 450).forEach((i) => put(i));
  check(3);
  order.forEach((i) => put(i));
  for (let i = 0; i < 512; i++) put(i, 20000 + i);
  check(1);
  order.forEach((i) => put(i));
  check(3);
  order.forEach(trim);
  check(1);
  for (const id of [1, 2, 3, 5, 6, 8]) expect(core.counterGet(id), `counter ${id}`).toBeGreaterThan(0);
  expect(core.liveTotal(V)).toBe(0);
});

test('lookups stay inside a memory that is full to the last byte', () => {
  for (const blocks of [16, 512, 1024]) {
    const core = open(blocks);
    core.tablePut(0, 0n, V, 1, 1, 1n);
    const buffer = core.allocate(1024);
    core.allocate(core.available() - 32); // leaves 44 bytes: a leaf of one run and the arena's end mark
    const last = 2 * blocks - 1;
    core.tablePut(0, BigInt(last), V, 77, 1, 2n);
    expect(core.leafFind(0, 1)).toBeGreaterThan(core.memory.buffer.byteLength - 44);
    new Float64Array(core.memory.buffer, buffer, 2).set([last, last - 1]);
    core.lookupBatch(0, EPOCH_NOW, buffer, 2, buffer + 16);
    expect(Array.from(new Uint32Array(core.memory.buffer, buffer + 16, 8))).toEqual([2, V, 77, 1, 0, 0xfffe, 0, 0]);
    for (let block = blocks; block <= last; block++) core.tableExpect(0, BigInt(block));
    core.tableWarm();
    expect(() => core.tablePut(0, BigInt(last - 5), V, 78, 1, 2n), 'asked for without room').toThrow();
  }
});

test('death sequences are the highest', () => {
  const core = open();
  core.tablePut(0, 1n, V, 1, 1, 1n);
  core.tablePut(0, 2n, V, 2, 1, 2n);
  core.tablePut(0, 1n, V, 3, 1, 9n);
  core.tablePut(0, 2n, V, 5000, 1, 5n);
  expect(core.liveDeathSequence(V, 0)).toBe(9n);
  expect(core.liveCount(V, 0)).toBe(1);
  expect(core.liveCount(V, 4)).toBe(1);
  expect(core.liveDeathSequence(V, 4)).toBe(0n);
});
