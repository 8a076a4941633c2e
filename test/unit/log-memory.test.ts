// The core asks for memory before it takes it. Here is little of it, or much that is needed: what it asks for has to be enough, also in logs with large leaves,
// histories and names, and where there is no more it says so and goes on.
import { readFileSync } from 'node:fs';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { createLog, deviceBytes, LABEL_AREA, openLog, storageVolume } from '../../bench/harness/log.ts';
import { StampDevice } from '../../bench/harness/stamp-device.ts';
import { stamp } from '../../bench/harness/workload.ts';
import { CoreMemory } from '../../src/core/memory.ts';
import { Log } from '../../src/volume/log.ts';
import { VirtualVolume } from '../../src/volume/volume.ts';

const BLOCK = 4096;
const GIB = 2 ** 30;
const PART = 256; // blocks of a write
const RAID_1 = 2; // as the core knows it
const FIXED = { growAt: 0.95, compactTo: 0.8, shrinkBelow: 0.7, mode: 'fixed', volumesMin: 1, volumesMax: 1 } as const;
const core = (name: string): Uint8Array<ArrayBuffer> => new Uint8Array(readFileSync(new URL(`../../build/${name}.wasm`, import.meta.url)));
const context = (name: string) => ({ core: core(name), toy: true, directory: '', say: () => undefined });

/** Blocks that a StampDevice keeps in 8 bytes. */
const bytes = new Uint8Array(PART * BLOCK);
function stamped(first: number, version: number, count = PART): Uint8Array {
  for (let index = 0; index < count; index++) stamp(bytes, index * BLOCK, first + index, version);
  return bytes.subarray(0, count * BLOCK);
}

const isStamped = async (
  device: { read(offset: number, into: Uint8Array): Promise<void> },
  block: number,
  version: number,
): Promise<void> => {
  const found = new Uint8Array(BLOCK);
  await device.read(block * BLOCK, found);
  expect(Buffer.compare(found, stamped(block, version, 1))).toBe(0);
};

afterEach(() => vi.restoreAllMocks());

describe.each(['core', 'core.raid'])('%s', (name) => {
  it.each(['resize', 'discard'])('10 GiB under a snapshot are cut off (%s), and the log opens after a crash', async (how) => {
    const device = new StampDevice(13 * GIB);
    const size = 10 * GIB;
    const { log, volume } = await createLog(context(name), device, { virtualBytes: size });
    for (let block = 0; block < size / BLOCK; block += PART) await volume.write(block * BLOCK, stamped(block, 1));
    await volume.snapshot('kept');
    if (how === 'resize') await volume.resize(BLOCK);
    else await volume.discard(0, size);
    await volume.flush();
    await log.abandon();
    const again = await openLog(context(name), device);
    expect(again.volume.sizeBytes).toBe(how === 'resize' ? BLOCK : size);
    for (const block of [0, 12345, size / BLOCK - 1]) await isStamped(again.volume.at('kept'), block, 1);
    if (how === 'discard') {
      const found = new Uint8Array(BLOCK);
      await again.volume.read(size - BLOCK, found);
      expect(found.every((byte) => byte === 0)).toBe(true);
    }
    await again.log.close();
  });

  it('thousands of snapshots of a hundred sources are read again', async () => {
    const device = new StampDevice(deviceBytes(512, 64));
    const { log } = await createLog(context(name), device, { virtualBytes: GIB, segmentBlocks: 64 });
    for (let source = 0; source < 127; source++) await log.createSource(0, `source ${source}`, GIB);
    for (let at = 0; at < 2500; at++) await log.snapshot(0, `snapshot ${at}`);
    await log.close();
    const again = await openLog(context(name), device, { segmentBlocks: 64 });
    expect(again.log.snapshots().length).toBe(2500);
    expect(again.log.snapshots()[2499]!.members.length).toBe(128);
    await again.log.close();
  });

  it('a log that was larger once is opened, though it had more pages then than it has blocks now', async () => {
    const [small, large] = [new StampDevice(deviceBytes(200, 32)), new StampDevice(deviceBytes(2000, 64))];
    const volumes = [storageVolume(small, 32), { ...storageVolume(large, 64), id: 1 }];
    const policy = { growAt: 0.95, compactTo: 0.8, shrinkBelow: 0.7, mode: 'auto', volumesMin: 1, volumesMax: 2 } as const;
    const made = { name: 'bench', uuid: new Uint8Array(16).fill(7), policy, core: core(name) };
    const log = await Log.create({ ...made, key: new Uint8Array(16).fill(9), volumes });
    await log.createSource(0, 'default', GIB);
    for (let source = 0; source < 127; source++) await log.createSource(0, `${source}`.padEnd(255, 'x'), BLOCK);
    const volume = new VirtualVolume(log, 'bench', 0);
    for (let block = 0; block < 1024; block += PART) await volume.write(block * BLOCK, stamped(block, 1));
    for (let count = 0; count < 1500; count++) await log.snapshot(0, `p${count}`);
    await log.checkpoint();
    expect(small.wholeBlocks + large.wholeBlocks).toBeGreaterThan(small.sizeBytes / BLOCK);
    for (const snapshot of log.snapshots()) await log.deleteSnapshot(snapshot.id);
    log.evacuateVolume(1);
    await vi.waitFor(
      async () => {
        await log.checkpoint();
        expect(log.volumeState(1)).toBe('released');
      },
      { timeout: 60_000 },
    );
    log.removeVolume(1);
    await log.close();
    const again = await Log.open({ ...made, volumes: volumes.slice(0, 1) });
    await isStamped(new VirtualVolume(again, 'bench', 0), 1000, 1);
    await again.close();
  });

  it('more sources come and go than there are numbers for', async () => {
    const device = new StampDevice(deviceBytes(64, 64));
    const { log, volume } = await createLog(context(name), device, { virtualBytes: GIB, segmentBlocks: 64 });
    const numbers = new Set<number>();
    for (let round = 0; round < 70_000; round++) {
      numbers.add((await volume.addSource('passing', BLOCK)).space);
      await volume.deleteSource('passing');
    }
    expect(numbers.size).toBeGreaterThan(65_000);
    await volume.addSource('last', BLOCK);
    await log.close();
    const again = await openLog(context(name), device, { segmentBlocks: 64 });
    expect(again.volume.sources().map((source) => source.name)).toEqual(['default', 'last']);
    await again.log.close();
  });

  it('a leaf with a history of megabytes is written and replayed without asking for gigabytes', async () => {
    const asked: number[] = [];
    const { grow } = CoreMemory.prototype;
    vi.spyOn(CoreMemory.prototype, 'grow').mockImplementation(function (this: CoreMemory, pages) {
      asked.push(pages);
      return grow.call(this, pages);
    });
    const device = new StampDevice(deviceBytes(300));
    const { log, volume } = await createLog(context(name), device, { virtualBytes: GIB });
    const ROUNDS = 300;
    for (let round = 0; round < ROUNDS; round++) {
      await volume.write(0, stamped(0, round));
      await volume.write(PART * BLOCK, stamped(PART, round));
      await volume.snapshot(`${round}`);
    }
    await log.checkpoint();
    await volume.write(0, stamped(0, ROUNDS));
    await volume.flush();
    await log.abandon();
    const again = await openLog(context(name), device);
    await isStamped(again.volume, 5, ROUNDS);
    for (const round of [0, 17, ROUNDS - 1]) await isStamped(again.volume.at(`${round}`), 300, round);
    await again.log.close();
    expect(Math.max(...asked) * 65536).toBeLessThan(128 * 2 ** 20);
  });
});

it('a snapshot is refused before what names them all cannot be read any more', async () => {
  const device = new StampDevice(deviceBytes(100));
  const { log } = await createLog(context('core'), device, { virtualBytes: GIB });
  for (let source = 0; source < 127; source++) await log.createSource(0, `${source}`.padEnd(255, 'x'), BLOCK);
  let taken = 0;
  await expect(
    (async () => {
      for (; ; taken++) await log.snapshot(0, `${taken}`.padEnd(255, 'x'));
    })(),
  ).rejects.toMatchObject({ code: 'VARVE_LIMIT' });
  expect(taken).toBeGreaterThan(1500);
  await log.close();
  const again = await openLog(context('core'), device);
  expect(again.log.snapshots().length).toBe(taken);
  await again.log.deleteSnapshot(again.log.snapshots()[0]!.id);
  await again.log.snapshot(0, 'one more');
  await again.log.close();
}, 240_000);

it('a source has no size that its leaves cannot map', async () => {
  const [device, shape] = [new StampDevice(deviceBytes(64, 64)), { segmentBlocks: 64, geometry: { leafBlocks: 16 } }];
  const { log, volume } = await createLog(context('core'), device, { virtualBytes: GIB, ...shape });
  await expect(volume.resize(2 ** 52)).rejects.toThrow(RangeError);
  const size = (2 ** 32 - 2) * 16 * BLOCK;
  await volume.resize(size);
  await volume.write(size - BLOCK, stamped(5, 1, 1));
  await volume.discard(size - GIB, GIB - BLOCK);
  await volume.flush();
  await log.abandon();
  const again = await openLog(context('core'), device, shape);
  const found = new Uint8Array(BLOCK);
  await again.volume.read(size - BLOCK, found);
  expect(Buffer.compare(found, stamped(5, 1, 1))).toBe(0);
  await again.log.close();
});

it('a reader that waits for its device, with many segments held in memory, stops no writer and asks for no root', async () => {
  const { grow } = CoreMemory.prototype;
  vi.spyOn(CoreMemory.prototype, 'grow').mockImplementation(function (this: CoreMemory, pages) {
    return grow.call(this, Math.max(pages, 4000)); // to grow it waits for what is under way
  });
  const under = new StampDevice(deviceBytes(4000, 8));
  let held: (() => void)[] | undefined;
  let committed = 0;
  const device = new Proxy(under, {
    get: (target, name) => {
      if (name === 'supports') return { ...target.supports, sync: false };
      if (name === 'read')
        return async (offset: number, into: Uint8Array) => {
          if (held !== undefined) await new Promise<void>((resolve) => held!.push(resolve));
          target.readSync(offset, into);
        };
      if (name === 'write')
        return async (offset: number, from: Uint8Array) => {
          if (offset < LABEL_AREA || offset >= target.sizeBytes - LABEL_AREA) committed++;
          target.writeSync(offset, from);
        };
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
  const { log, volume } = await createLog(context('core'), device, { virtualBytes: 2000 * 8 * BLOCK, segmentBlocks: 8 });
  for (let block = 100; block < 200; block++) await volume.write(block * BLOCK, stamped(block, 1, 1)); // on the device when it is read
  for (let round = 0; round < 300; round++) await volume.write(4000 * BLOCK, stamped(4000, round, 6));
  await volume.flush();
  await log.checkpoint();
  for (let block = 0; block < 62; block++) {
    await volume.write(block * BLOCK, stamped(block, 2, 1));
    await volume.write(4000 * BLOCK, stamped(4000, block, 5));
  }
  held = [];
  const reading = Array.from({ length: 4 }, () => volume.read(0, new Uint8Array(200 * BLOCK)));
  await new Promise((resolve) => void setImmediate(resolve));
  await volume.flush();
  committed = 0;
  for (let round = 0; round < 400; round++) {
    await volume.write((1000 + round) * BLOCK, stamped(1000 + round, 3, 6));
    if (round % 20 === 19) await volume.flush();
  }
  expect(held.length).toBeGreaterThan(0);
  expect(committed).toBeLessThan(400);
  for (const resume of held.splice(0)) resume();
  held = undefined;
  await Promise.all(reading);
  await log.close();
});

it('mirrors take no memory for what is written to them', async () => {
  const grow = vi.spyOn(CoreMemory.prototype, 'grow');
  const pages = async (members: number): Promise<number> => {
    grow.mockClear();
    const devices = Array.from({ length: members }, () => new StampDevice(deviceBytes(64)));
    const made = { name: 'bench', uuid: new Uint8Array(16).fill(7), policy: FIXED, core: core('core.raid') };
    const volumes = [{ ...storageVolume(devices[0]!), members: devices, level: RAID_1 }];
    const log = await Log.create({ ...made, key: new Uint8Array(16).fill(9), volumes });
    await log.createSource(0, 'default', GIB);
    const volume = new VirtualVolume(log, 'bench', 0);
    for (let round = 0; round < 40; round++) {
      const bytes = stamped(0, round);
      await Promise.all(Array.from({ length: 32 }, (_, at) => volume.write(at * PART * BLOCK, bytes)));
    }
    await volume.flush();
    await log.close();
    return grow.mock.calls.reduce((sum, [count]) => sum + count, 0);
  };
  expect(await pages(16)).toBeLessThan(1.5 * (await pages(2)));
});

it('a log of hundreds of storage volumes with 32 members each is opened', async () => {
  const devices = Array.from({ length: 300 }, () => Array.from({ length: 32 }, () => new StampDevice(deviceBytes(16, 8))));
  const volumes = devices.map((members, id) => ({ ...storageVolume(members[0]!, 8), id, members, level: RAID_1 }));
  const made = { name: 'bench', uuid: new Uint8Array(16).fill(7), policy: { ...FIXED, volumesMax: 300 }, core: core('core.raid') };
  const log = await Log.create({ ...made, key: new Uint8Array(16).fill(9), volumes });
  await log.createSource(0, 'default', GIB);
  await new VirtualVolume(log, 'bench', 0).write(0, stamped(0, 1));
  await log.close();
  const again = await Log.open({ ...made, volumes });
  await isStamped(new VirtualVolume(again, 'bench', 0), 200, 1);
  await again.close();
});

it('a checkpoint images leaves with long histories, many of them', async () => {
  const [ROUNDS, LEAVES] = [640, 12];
  const blocks = LEAVES * 512;
  const device = new StampDevice(deviceBytes(Math.ceil((ROUNDS * blocks) / 950) + 400));
  const { log, volume } = await createLog(context('core.raid'), device, { virtualBytes: 8 * GIB });
  for (let round = 0; round < ROUNDS; round++) {
    for (let block = 0; block < blocks; block += PART) await volume.write(block * BLOCK, stamped(block, round));
    await volume.snapshot(`${round}`);
    await volume.discard(0, blocks * BLOCK);
  }
  await log.checkpoint();
  await log.close();
  const again = await openLog(context('core.raid'), device);
  await isStamped(again.volume.at('77'), 5000, 77);
  await again.log.close();
}, 300_000);

it('a log that grows at random takes not many times the memory that it uses', async () => {
  const device = new StampDevice(deviceBytes(300));
  const { log, volume } = await createLog(context('core.raid'), device, { virtualBytes: 2 ** 50 });
  for (let at = 0; at < 150_000; at++) await volume.write(at * 512 * BLOCK, stamped(at * 512, 1, 1));
  const { heapExtentBytes, heapUsedBytes } = log.figures();
  expect(heapExtentBytes).toBeLessThan(4 * heapUsedBytes);
  await log.close();
});

describe('where there is no more memory', () => {
  it('a space that could be merged stays, and nothing else', async () => {
    const device = new StampDevice(deviceBytes(190, 64));
    const LEAVES = 3000;
    const { log, volume } = await createLog(context('core.raid'), device, { virtualBytes: 2 ** 40, segmentBlocks: 64 });
    for (let leaf = 0; leaf < LEAVES; leaf++) await volume.write(leaf * 512 * BLOCK, stamped(leaf * 512, 1, 1));
    await volume.snapshot('a');
    const kept = await volume.rollback('a');
    for (let leaf = 0; leaf < LEAVES; leaf++) await volume.write((leaf * 512 + 1) * BLOCK, stamped(leaf * 512 + 1, 2, 1));
    await volume.flush();
    let denied = 0;
    vi.spyOn(CoreMemory.prototype, 'grow').mockImplementation(() => {
      denied++;
      return false;
    });
    await volume.deleteSnapshot(kept);
    await volume.deleteSnapshot('a');
    await vi.waitFor(() => expect(denied).toBeGreaterThan(0));
    vi.restoreAllMocks();
    await volume.write(0, stamped(0, 3, 1));
    await volume.flush();
    await isStamped(volume, 512, 1);
    await isStamped(volume, 513, 2);
    // Nor does anything wait for it: the log is filled over and over, and cleaned.
    const { grow } = CoreMemory.prototype;
    vi.spyOn(CoreMemory.prototype, 'grow').mockImplementation(function (this: CoreMemory, pages) {
      return pages < 1000 && grow.call(this, pages);
    });
    for (let at = 0; at < 200_000; at++) {
      const block = ((at * 7919) % LEAVES) * 512;
      await volume.write(block * BLOCK, stamped(block, at, 1));
    }
    await log.close();
  });
});

describe('a log that is full of what describes its data', () => {
  const fill = async (write: (at: number) => Promise<void>): Promise<number> => {
    for (let at = 0; ; at++) {
      try {
        await write(at);
      } catch (error) {
        expect(error).toMatchObject({ code: 'VARVE_NO_SPACE' });
        return at;
      }
    }
  };

  it('with one block in each leaf is trimmed, loses its snapshot, and closes', async () => {
    const device = new StampDevice(deviceBytes(512, 64));
    const choice = { virtualBytes: 2 ** 50, segmentBlocks: 64 };
    const { log, volume } = await createLog(context('core.raid'), device, choice);
    const count = await fill(async (at) => {
      await volume.write(at * 512 * BLOCK, stamped(at * 512, 1, 1));
      if (at === 1500) await volume.snapshot('kept');
    });
    expect(count).toBeGreaterThan(2000);
    await volume.flush();
    await volume.discard(0, count * 512 * BLOCK);
    await log.close();
    for (let round = 0; round < 2; round++) {
      const again = await openLog(context('core.raid'), device, choice);
      for (let at = 0; at < 500; at++) {
        await again.volume.discard(at * BLOCK, BLOCK);
        await again.volume.flush();
      }
      if (round === 1) {
        await isStamped(again.volume.at('kept'), 512, 1);
        await again.volume.deleteSnapshot('kept');
        for (let at = 0; at < 500; at++) await again.volume.write(at * 512 * BLOCK, stamped(at * 512, 2, 1));
      }
      await again.log.close();
    }
  });

  it('of snapshots with long names loses them again, and closes', async () => {
    const device = new StampDevice(deviceBytes(64, 32));
    const { log, volume } = await createLog(context('core.raid'), device, { virtualBytes: GIB, segmentBlocks: 32 });
    await volume.write(0, stamped(0, 1, 1));
    const name = (at: number): string => `${at} ${'x'.repeat(200)}`;
    const count = await fill((at) => volume.snapshot(name(at)));
    expect(count).toBeGreaterThan(1000);
    for (let at = 0; at < 20; at++) await volume.deleteSnapshot(name(at));
    await volume.discard(0, BLOCK);
    await log.close();
    const again = await openLog(context('core.raid'), device, { segmentBlocks: 32 });
    expect(again.volume.snapshots().length).toBe(count - 20);
    for (let at = 20; at < 200; at++) await again.volume.deleteSnapshot(name(at));
    await again.volume.write(0, stamped(0, 2, 1));
    await again.log.close();
  });
});
