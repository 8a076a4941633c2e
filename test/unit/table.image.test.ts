import { expect, test } from 'vitest';
import { EPOCH_NOW, NONE, SEGMENTS, VOLUMES } from './table.constants.ts';
import { World } from './table.model.ts';
import { type Random, type TableCore, coreOf, ensure, random, tableModule } from './table.support.ts';

const module = tableModule();

function open(leafBlocks: number): { core: TableCore; buffer: number } {
  const core = coreOf(module);
  ensure(core, 2 ** 20);
  core.tableInitialize(leafBlocks);
  VOLUMES.forEach((volume, index) => core.liveAttach(volume, SEGMENTS[index]?.[0] ?? 0, SEGMENTS[index]?.[1] ?? 0));
  core.spaceCreate(0, 1n, NONE, 0, 2 ** 40);
  core.spaceFlag(0, 1, true);
  return { core, buffer: core.allocate(2 ** 18) };
}

function read(core: TableCore, buffer: number, bytes: Uint8Array, length = bytes.length): boolean {
  ensure(core, core.leafImageRoom(length));
  new Uint8Array(core.memory.buffer, buffer, bytes.length).set(bytes);
  return core.leafImageRead(0, 0, buffer, length) !== 0;
}

// Reads an image that may be anything: a refusal leaves no trace, an acceptance a valid leaf that can be written and changed.
function offer(core: TableCore, buffer: number, bytes: Uint8Array, what: string): boolean {
  const used = core.heapUsedBytes();
  let accepted = false;
  try {
    accepted = read(core, buffer, bytes);
    if (accepted) {
      if (core.tableVerify()) throw new Error(`rule ${core.tableVerify()}`);
      core.tableRecount();
      const size = core.leafImageWrite(0, 0, buffer);
      const again = new Uint8Array(core.memory.buffer, buffer, size).slice();
      core.spaceDestroy(0, 1n);
      for (const volume of VOLUMES) if (core.liveTotal(volume)) throw new Error('live blocks are left');
      core.spaceCreate(0, 1n, NONE, 0, 2 ** 40);
      if (!read(core, buffer, again)) throw new Error('its own image is refused');
      core.tableRecount();
      core.pinAdd(0, 5);
      for (let block = 0; block < 16; block++) core.tablePut(0, BigInt(block), VOLUMES[0], block, EPOCH_NOW - 1, 2n);
      core.spaceDestroy(0, 3n);
      core.spaceCreate(0, 1n, NONE, 0, 2 ** 40);
    } else {
      if (core.leafFind(0, 0)) throw new Error('refused, but there is a leaf');
      if (core.heapUsedBytes() !== used) throw new Error('refused, but memory is used');
    }
  } catch (error) {
    throw new Error(`${what}: ${String(error)}\n${Buffer.from(bytes).toString('hex')}`);
  }
  return accepted;
}

// Images as they are, of many shapes.
function samples(leafBlocks: number, seed: number): Uint8Array[] {
  const world = new World(module, seed, { leafBlocks, blocks: leafBlocks * 6, merges: false });
  const found: Uint8Array[] = [];
  for (let round = 0; round < 6; round++) {
    for (let step = 0; step < 25; step++) world.step();
    for (const { space, leaf } of world.leaves()) found.push(world.image(world.core, space, leaf));
  }
  return found;
}

function mutate(bytes: Uint8Array, next: Random): Uint8Array {
  const copy = bytes.slice();
  for (let k = 1 + next(3); k > 0; k--) {
    const at = next(3) ? next(copy.length) : next(Math.min(16, copy.length));
    const kind = next(4);
    if (kind === 0) copy[at] = next(256);
    else if (kind === 1) copy[at] = (copy[at] ?? 0) ^ (1 << next(8));
    else if (kind === 2) copy.fill(next(2) ? 255 : 0, at, at + 1 + next(8));
    else copy.copyWithin(at, next(copy.length), next(copy.length));
  }
  const cut = next(12);
  return cut === 0 ? copy.subarray(0, next(copy.length)) : cut === 1 ? Uint8Array.from([...copy, ...new Uint8Array(next(40))]) : copy;
}

test.each([16, 32, 512])('mutated images of %i-block leaves are refused or become valid leaves', (leafBlocks) => {
  const next = random(leafBlocks);
  const { core, buffer } = open(leafBlocks);
  let accepted = 0;
  let refused = 0;
  const originals = samples(leafBlocks, 3).slice(0, leafBlocks === 512 ? 60 : 200);
  for (const bytes of originals) {
    expect(offer(core, buffer, bytes, 'an image as written')).toBe(true);
    for (let k = 0; k < 30; k++)
      if (offer(core, buffer, mutate(bytes, next), `leafBlocks ${leafBlocks}`)) accepted++;
      else refused++;
  }
  expect(accepted).toBeGreaterThan(0);
  expect(refused).toBeGreaterThan(accepted);
});

test('random bytes are refused or become valid leaves', () => {
  const next = random(99);
  const { core, buffer } = open(16);
  for (let k = 0; k < 20_000; k++) {
    const bytes = Uint8Array.from({ length: next(80) }, () => (next(3) ? next(4) : next(256)));
    if (bytes.length > 1 && next(2)) bytes.set([1 + next(2), 0]);
    if (bytes.length > 15 && next(2)) bytes.set([0, 0, 0, 0], 12);
    offer(core, buffer, bytes, 'random');
  }
});

test('each field of an image is checked', () => {
  const { core, buffer } = open(16);
  core.pinAdd(0, 1);
  for (let block = 0; block < 16; block += 2) core.tablePut(0, BigInt(block), VOLUMES[0], 100 + 7 * block, 1, 1n);
  core.tablePut(0, 0n, VOLUMES[1], 5, 2, 2n);
  const size = core.leafImageWrite(0, 0, buffer);
  const good = new Uint8Array(core.memory.buffer, buffer, size).slice();
  core.spaceDestroy(0, 3n);
  core.spaceCreate(0, 1n, NONE, 0, 0);
  // 16 header, bitmap 4, 8 × block, 8 × birth, 8 × volume, 1 history entry
  const [block, birth, volume, history] = [20, 52, 84, 100];
  expect(size).toBe(116);
  const put16 = (bytes: DataView, at: number, value: number): void => bytes.setUint16(at, value, true);
  const put32 = (bytes: DataView, at: number, value: number): void => bytes.setUint32(at, value, true);
  const wrong: [string, (bytes: DataView) => void][] = [
    ['shape 0', (bytes) => bytes.setUint8(0, 0)],
    ['shape 3', (bytes) => bytes.setUint8(0, 3)],
    ['reserved byte', (bytes) => bytes.setUint8(1, 1)],
    ['count', (bytes) => put16(bytes, 2, 7)],
    ['history count', (bytes) => put32(bytes, 4, 2)],
    ['huge history count', (bytes) => put32(bytes, 4, 0x10000001)],
    ['newest change under a birth', (bytes) => put32(bytes, 8, 1)],
    ['newest change now', (bytes) => put32(bytes, 8, EPOCH_NOW)],
    ['reserved word', (bytes) => put32(bytes, 12, 1)],
    ['bitmap beyond the leaf', (bytes) => bytes.setUint8(18, 1)],
    ['bitmap bit more', (bytes) => bytes.setUint8(16, 0x57)],
    ['block outside', (bytes) => put32(bytes, block + 4, 64 * 4096)],
    ['birth 0', (bytes) => put32(bytes, birth + 4, 0)],
    ['birth above newest change', (bytes) => put32(bytes, birth + 4, 3)],
    ['volume unknown', (bytes) => put16(bytes, volume + 2, 9)],
    ['volume absent', (bytes) => put16(bytes, volume + 2, 0xfffe)],
    ['first volume absent', (bytes) => put16(bytes, volume, 0xfffe)],
    ['hole with a block', (bytes) => put16(bytes, volume + 2, 0xffff)],
    ['history block', (bytes) => put16(bytes, history, 16)],
    ['history volume', (bytes) => put16(bytes, history + 2, 0xfffe)],
    ['history address', (bytes) => put32(bytes, history + 4, 0xffffffff)],
    ['history birth 0', (bytes) => put32(bytes, history + 8, 0)],
    ['history death before birth', (bytes) => put32(bytes, history + 12, 1)],
    [
      'history over the current entry',
      (bytes) => {
        put16(bytes, history, 2);
      },
    ],
  ];
  expect(offer(core, buffer, good, 'good')).toBe(true);
  for (const [what, spoil] of wrong) {
    const bytes = good.slice();
    spoil(new DataView(bytes.buffer));
    expect(offer(core, buffer, bytes, what), what).toBe(false);
  }
  expect(read(core, buffer, good)).toBe(true);
  expect(read(core, buffer, good), 'a leaf that is there already').toBe(false);
  expect(core.leafImageRead(5, 0, buffer, size), 'no such space').toBe(0);
  expect(core.leafImageRead(0xffff, 0, buffer, size)).toBe(0);
  expect(core.leafImageRead(0, 0xffffffff, buffer, size)).toBe(0);
});

// Without a history an image goes straight into its leaf: 24 of 64 blocks make a packed leaf, 61 a dense one.
test.each([24, 61])('each field of a packed image without a history is checked, %i of 64 blocks', (present) => {
  const { core, buffer } = open(64);
  for (let block = 0; block < present; block++) core.tablePut(0, BigInt((block * 5) % 64), VOLUMES[0], 3 * block, 1 + (block & 1), 1n);
  const size = core.leafImageWrite(0, 0, buffer);
  const good = new Uint8Array(core.memory.buffer, buffer, size).slice();
  core.spaceDestroy(0, 3n);
  core.spaceCreate(0, 1n, NONE, 0, 0);
  const [bitmap, block] = [16, 24];
  const birth = block + present * 4;
  const volume = birth + present * 4;
  const padding = volume + present * 2;
  expect(size).toBe(padding + (present & 1) * 2);
  const put16 = (bytes: DataView, at: number, value: number): void => bytes.setUint16(at, value, true);
  const put32 = (bytes: DataView, at: number, value: number): void => bytes.setUint32(at, value, true);
  const flip = (bytes: DataView, block: number): void =>
    bytes.setUint8(bitmap + (block >> 3), bytes.getUint8(bitmap + (block >> 3)) ^ (1 << (block & 7)));
  const missing = (present * 5) % 64; // the block that would have come next
  const wrong: [string, (bytes: DataView) => void][] = [
    ['a bit more', (bytes) => flip(bytes, missing)],
    ['a bit less', (bytes) => flip(bytes, 0)],
    ['birth 0', (bytes) => put32(bytes, birth + 4, 0)],
    ['birth above newest change', (bytes) => put32(bytes, birth + 4, 3)],
    ['newest change under a birth', (bytes) => put32(bytes, 8, 1)],
    ['block outside', (bytes) => put32(bytes, block + 4, 64 * 4096)],
    ['last block outside', (bytes) => put32(bytes, birth - 4, 0xffffffff)],
    ['first volume absent', (bytes) => put16(bytes, volume, 0xfffe)],
    ['volume absent', (bytes) => put16(bytes, volume + 2, 0xfffe)],
    ['volume unknown', (bytes) => put16(bytes, volume + 2, 9)],
    ['hole with a block', (bytes) => put16(bytes, volume + 2, 0xffff)],
  ];
  if (present & 1) wrong.push(['padding', (bytes) => put16(bytes, padding, 1)]);
  for (const [what, spoil] of wrong) {
    expect(offer(core, buffer, good, 'good'), what).toBe(true); // and so the leaf read before knows volumes and ranges
    const bytes = good.slice();
    spoil(new DataView(bytes.buffer));
    expect(offer(core, buffer, bytes, what), what).toBe(false);
  }
  const hole = good.slice();
  put16(new DataView(hole.buffer), volume + 2, 0xffff);
  put32(new DataView(hole.buffer), block + 4, 0);
  expect(read(core, buffer, hole)).toBe(true);
  expect(core.tableVerify()).toBe(0);
  expect(core.mappedBlocks(0)).toBe(present - 1);
});
