// Members that are missing, come back stale, or went on alone: what a pool makes of them when it is opened. The devices outlive the pools, in memory.
//
// The last test plants a fault, in the way in which the core's are planted: it believes the highest generation, without a look at whose history it is.
// What it loses is the reason for the list of ancestors.
import { describe, expect, it, vi } from 'vitest';
import type { StorageDevice } from '../../src/device/device.ts';
import { MemoryDevice } from '../../src/device/memory.ts';
import { SliceDevice } from '../../src/device/wrap/slice.ts';
import { ANCESTORS_MAX, chooseCatalogue, decodeCatalogue, type FrameSeen } from '../../src/pool/catalogue.ts';
import { FormatCodec } from '../../src/pool/label.ts';
import { Member } from '../../src/pool/member.ts';
import { StoragePool } from '../../src/pool/pool.ts';
import { dataColumns, type RaidLevel } from '../../src/pool/raid.ts';
import { copyOf } from './log-fixture.ts';

const BLOCK = 4096;
const code = (wanted: string) => expect.objectContaining({ code: wanted });
const lend = (device: MemoryDevice): StorageDevice => new SliceDevice(device, 0, device.sizeBytes);
const open = (devices: readonly MemoryDevice[], readOnly = false): Promise<StoragePool> =>
  StoragePool.openDevices(devices.map(lend), { readOnly });

async function make(level: RaidLevel, members: number): Promise<MemoryDevice[]> {
  const devices = Array.from({ length: members }, () => new MemoryDevice('16MiB'));
  const pool = await StoragePool.create(devices.map(lend), { raid: level });
  const volume = await pool.createVolume('v', { size: '1MiB' });
  await volume.write(0, new Uint8Array(64 * BLOCK).fill(1));
  await pool.close();
  return devices;
}

async function write(devices: readonly MemoryDevice[], value: number): Promise<void> {
  const pool = await open(devices);
  await (await pool.volume('v')).write(8 * BLOCK, new Uint8Array(8 * BLOCK).fill(value));
  await pool.close();
}

/** The first byte of what was written last, and of what was there before. */
async function read(devices: readonly MemoryDevice[]): Promise<{ new: number; old: number }> {
  const pool = await open(devices, true);
  const bytes = new Uint8Array(64 * BLOCK);
  await (await pool.volume('v')).read(0, bytes);
  await pool.close();
  for (let block = 0; block < 64; block++) {
    expect(bytes.subarray(block * BLOCK, (block + 1) * BLOCK).every((byte) => byte === bytes[block * BLOCK])).toBe(true);
  }
  return { new: bytes[8 * BLOCK] as number, old: bytes[0] as number };
}

const states = async (devices: readonly MemoryDevice[]): Promise<string[]> => {
  const pool = await open(devices, true);
  const status = await pool.status();
  await pool.close();
  return status.storageVolumes[0]?.devices.map((device) => device.state) ?? [];
};

describe('a pool of several members', () => {
  it('takes no strip size that is none, whatever its level', async () => {
    for (const raid of ['single', '1'] as const) {
      const devices = (): MemoryDevice[] =>
        raid === 'single' ? [new MemoryDevice('16MiB')] : [new MemoryDevice('16MiB'), new MemoryDevice('16MiB')];
      for (const stripSize of ['3KiB', '2KiB', '2MiB', '12KiB', 0])
        await expect(StoragePool.create(devices(), { raid, stripSize }), `${raid} ${stripSize}`).rejects.toThrow(
          /^stripSize: expected a power of two from 4 KiB to 1 MiB, got /,
        );
      const pool = await StoragePool.create(devices(), { raid, stripSize: '64KiB' });
      const added = devices().map((device) => ({ device, path: null }));
      await expect(pool.addStorageVolume(added, { raid, stripSize: '3KiB' })).rejects.toThrow(RangeError);
      await pool.addStorageVolume(added, { raid, stripSize: '4KiB' });
      await pool.close();
    }
  });

  it.each([
    ['1', 2, 1],
    ['1', 3, 2],
    ['5', 4, 1],
    ['6', 5, 2],
    ['10', 4, 1],
  ] as const)('RAID %s over %i: opens without %i, names them when one more is missing', async (level, members, tolerated) => {
    const devices = await make(level, members);
    const there = devices.slice(tolerated);
    expect(await read(there)).toEqual({ new: 1, old: 1 });
    await write(there, 2);
    expect(await read(there)).toEqual({ new: 2, old: 1 });
    expect((await states(there)).filter((state) => state === 'missing')).toHaveLength(tolerated);
    const tooFew = level === '10' ? devices.slice(2) : devices.slice(tolerated + 1);
    if (tooFew.length > 0) {
      const refused = open(tooFew).then(async (pool) => {
        try {
          await pool.volume('v');
        } finally {
          await pool.close();
        }
      });
      await expect(refused).rejects.toThrow(/cannot do without all of/);
    }
  });

  it.each(['1', '5', '6', '10'] as const)('RAID %s: a member that comes back stale is rebuilt before it is believed', async (level) => {
    const devices = await make(level, level === '1' ? 2 : 4);
    const stale = copyOf(devices[0]!);
    await write(devices.slice(1), 2);
    const together = [stale, ...devices.slice(1)];
    expect((await states(together))[0]).toBe('missing');
    expect(await read(together)).toEqual({ new: 2, old: 1 });
    const pool = await open(together);
    expect(pool.notes.some((note) => note.includes('was away, and is rebuilt'))).toBe(true);
    expect((await pool.scrub()).problems).toEqual([]); // it waits for the rebuild
    await pool.close();
    expect(await states(together)).toEqual(Array(together.length).fill('online'));
    // Now it bears the loss of another.
    expect(await read(together.slice(0, -1))).toEqual({ new: 2, old: 1 });
  });

  it('a member that was away for more commits than the list of ancestors has is still no stranger', async () => {
    const devices = await make('1', 2);
    await write([devices[1]!], 2);
    const pool = await open([devices[1]!]);
    for (let i = 0; i < ANCESTORS_MAX + 6; i++) await pool.addStorageVolume([{ device: new MemoryDevice('1MiB'), path: null }]);
    await pool.close();
    expect(await read(devices)).toEqual({ new: 2, old: 1 });
    await write(devices, 3);
    expect(await read(devices)).toEqual({ new: 3, old: 1 });
  });

  /** Two volumes, each on a device of its own, which nothing can do without; and room for one more on a third. */
  async function alone(): Promise<{ v: MemoryDevice; w: MemoryDevice; free: MemoryDevice }> {
    const [v, w, free] = [new MemoryDevice('16MiB'), new MemoryDevice('16MiB'), new MemoryDevice('16MiB')];
    const pool = await StoragePool.create([v, w, free].map(lend));
    for (const name of ['v', 'w']) {
      const volume = await pool.createVolume(name, { size: '1MiB' });
      await volume.write(0, new Uint8Array(64 * BLOCK).fill(1));
    }
    await pool.close();
    return { v, w, free };
  }

  async function commits(devices: readonly MemoryDevice[], rounds: number): Promise<void> {
    const pool = await open(devices);
    for (let i = 0; i < rounds; i++) {
      await pool.createVolume('t', { size: '1MiB' });
      await pool.deleteVolume('t');
    }
    await pool.close();
  }

  it.each(['in use afterwards', 'looked at only'])(
    'a device that nothing can do without, away for longer than the list of ancestors, is no stranger: %s',
    async (how) => {
      const { v, w, free } = await alone();
      for (let round = 2; round < 5; round++) {
        await commits([v, free], ANCESTORS_MAX / 2 + 3);
        await write([v, free], round);
        expect(await read([v, w, free])).toEqual({ new: round, old: 1 });
        const pool = await open([w, v, free]);
        const bytes = new Uint8Array(BLOCK);
        await (await pool.volume('w')).read(63 * BLOCK, bytes);
        expect(bytes.every((byte) => byte === 1)).toBe(true);
        await pool.close();
        // Whether the first commit reached it nobody knows before the next.
        if (how === 'in use afterwards') await commits([v, w, free], ANCESTORS_MAX);
      }
    },
  );

  it('one that comes back with its catalogues spoilt is put in order', async () => {
    const { v, w, free } = await alone();
    await commits([v, free], ANCESTORS_MAX / 2 + 3);
    const { label } = await Member.read(await FormatCodec.create(), lend(w), null);
    for (const at of [label.catalogueFrontOffset, label.catalogueBackOffset]) w.writeSync(at, new Uint8Array(2 * label.slotBytes).fill(7));
    await commits([v, w, free], 1);
    await commits([v, free], ANCESTORS_MAX / 2 + 3);
    expect(await read([v, w, free])).toEqual({ new: 1, old: 1 });
  });

  it('one that was used alone meanwhile is of another history', async () => {
    const { v, w, free } = await alone();
    const before = { w: copyOf(w), free: copyOf(free) };
    await commits([v, free], ANCESTORS_MAX / 2 + 3);
    await commits([w, before.free], 1);
    for (const order of [
      [v, w, free],
      [w, free, v],
    ])
      await expect(open(order)).rejects.toEqual(code('VARVE_FENCED'));
    expect(await read([v, before.w, free])).toEqual({ new: 1, old: 1 });
  });

  it.each(['the first commit after they were back', 'the last before they went'])(
    'single devices that %s did not reach, used alone, are of another history, however long ago',
    async (which) => {
      for (const later of [0, ANCESTORS_MAX]) {
        const { v, w, free } = await alone();
        const more = new MemoryDevice('16MiB');
        const add = await open([v, w, free]);
        await add.addStorageVolume([{ device: lend(more), path: null }]);
        await add.close();
        let [here, away]: (readonly MemoryDevice[])[] = [
          [v, free],
          [w, more],
        ];
        if (which === 'the first commit after they were back') await commits(here!, 4);
        const cutOff = away!.map(copyOf);
        const pool = await open([...here!, ...away!]);
        if (which !== 'the first commit after they were back') await pool.createVolume('t', { size: '1MiB' });
        [here, away] = [here!.map(copyOf), cutOff];
        await pool.close();
        if (which !== 'the first commit after they were back') {
          const first = await open(here);
          await first.deleteVolume('t');
          await first.close();
        }
        if (later > 0) await commits(here, later);
        const second = await open(away);
        await (await second.createVolume('precious', { size: '1MiB' })).flush();
        await second.close();
        await expect(open([...here, ...away])).rejects.toEqual(code('VARVE_FENCED'));
      }
    },
  );

  it('a mirror that the commit of its return did not reach, used alone, is of another history', async () => {
    const devices = await make('1', 2);
    await write([devices[0]!], 2);
    const cutOff = copyOf(devices[1]!);
    const pool = await open(devices);
    const here = copyOf(devices[0]!);
    await pool.close();
    await write([cutOff], 3);
    await expect(open([here, cutOff])).rejects.toEqual(code('VARVE_FENCED'));
    expect([await read([here]), await read([cutOff])]).toEqual([
      { new: 2, old: 1 },
      { new: 3, old: 1 },
    ]);
  });

  it('two histories are refused, whichever is the longer one', async () => {
    for (const longer of [0, 1]) {
      const devices = await make('1', 2);
      await write([devices[0]!], 2);
      await write([devices[1]!], 3);
      await write([devices[longer]!], 4);
      for (const order of [devices, devices.toReversed()]) await expect(open(order)).rejects.toEqual(code('VARVE_FENCED'));
      expect((await read([devices[0]!])).new).toBe(longer === 0 ? 4 : 2);
      expect((await read([devices[1]!])).new).toBe(longer === 1 ? 4 : 3);
    }
  });
});

/** Flushes fail while it is said so, and what was written since the last one that did not is forgotten then, as a kernel drops pages. */
class FailingDevice extends MemoryDevice {
  failing = 0;
  #kept: { readonly offset: number; readonly bytes: Uint8Array }[] = [];
  override write(offset: number, from: Uint8Array): Promise<void> {
    const bytes = new Uint8Array(from.length);
    this.readSync(offset, bytes);
    this.#kept.push({ offset, bytes });
    return super.write(offset, from);
  }
  override flush(): Promise<void> {
    const kept = this.#kept.splice(0).toReversed();
    if (this.failing-- <= 0) return super.flush();
    for (const { offset, bytes } of kept) this.writeSync(offset, bytes);
    return Promise.reject(new Error('EIO: a flush failed'));
  }
}

describe('a flush that fails on members', () => {
  async function begin(): Promise<{ pool: StoragePool; devices: FailingDevice[] }> {
    const devices = Array.from({ length: 2 }, () => new FailingDevice('16MiB'));
    const pool = await StoragePool.create(devices.map(lend), { raid: '1' });
    const volume = await pool.createVolume('v', { size: '1MiB' });
    await volume.write(0, new Uint8Array(64 * BLOCK).fill(1));
    await volume.flush();
    return { pool, devices };
  }

  it('costs one that can be done without its place, before the flush is acknowledged', async () => {
    const { pool, devices } = await begin();
    const volume = await pool.volume('v');
    await volume.write(8 * BLOCK, new Uint8Array(8 * BLOCK).fill(2));
    devices[1]!.failing = 1;
    await volume.flush();
    const crashed = devices.map(copyOf); // what a crash at this moment leaves
    expect(await read([crashed[0]!])).toEqual({ new: 2, old: 1 });
    expect(await states(crashed)).toEqual(['online', 'faulted']);
    expect(await read(crashed)).toEqual({ new: 2, old: 1 });
    await pool.close();
  });

  it('costs nothing that was acknowledged where it cannot be done without them: what they lost is written anew', async () => {
    const { pool, devices } = await begin();
    const volume = await pool.volume('v');
    await volume.write(8 * BLOCK, new Uint8Array(8 * BLOCK).fill(2));
    for (const device of devices) device.failing = 1;
    await Promise.all([volume.flush(), volume.flush()]);
    const crashed = devices.map(copyOf);
    const believed = await states(crashed);
    expect(believed).toContain('online');
    for (const [index, member] of crashed.entries()) {
      if (believed[index] === 'online') expect(await read([member])).toEqual({ new: 2, old: 1 });
    }
    expect(await read(crashed)).toEqual({ new: 2, old: 1 });
    await pool.close();
  });
});

describe('a spare', () => {
  /** Tells of each write, when it is done. */
  class ToldDevice extends MemoryDevice {
    told: () => void = () => undefined;
    override async write(offset: number, from: Uint8Array): Promise<void> {
      await super.write(offset, from);
      this.told();
    }
  }

  it('takes the place of a member that fails, however often that is cut off', async () => {
    const devices = [new MemoryDevice('16MiB'), new FailingDevice('16MiB')];
    const spare = new ToldDevice('17MiB');
    const pool = await StoragePool.create(devices.map(lend), { raid: '1' });
    const volume = await pool.createVolume('v', { size: '1MiB' });
    await volume.write(0, new Uint8Array(64 * BLOCK).fill(1));
    await volume.flush();
    await pool.addSpare({ device: lend(spare), path: null });
    const images: MemoryDevice[][] = [];
    spare.told = () => {
      if (images.length < 8) images.push([...devices, spare].map(copyOf));
    };
    await volume.write(8 * BLOCK, new Uint8Array(8 * BLOCK).fill(2));
    (devices[1] as FailingDevice).failing = 1;
    await volume.flush();
    await until(async () => (await pool.status()).storageVolumes[0]?.devices.every((device) => device.state === 'online') === true);
    await pool.close();
    expect(await read([spare])).toEqual({ new: 2, old: 1 });
    expect(images.length).toBe(8);
    for (const image of images) {
      const again = await open(image);
      await again.volume('v');
      await until(async () => (await again.status()).storageVolumes[0]?.devices.every((device) => device.state === 'online') === true);
      expect((await again.status()).storageVolumes).toHaveLength(1); // the spare is none any more
      await again.close();
      expect(await read([image[2]!])).toEqual({ new: 2, old: 1 });
    }
  });

  async function until(condition: () => Promise<boolean>): Promise<void> {
    const started = Date.now();
    while (!(await condition())) {
      if (Date.now() - started > 10_000) throw new Error('it has not come to pass within ten seconds');
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }
});

describe('a rebuild', () => {
  class CountedDevice extends MemoryDevice {
    readonly touched: number[] = [];
    override read(offset: number, into: Uint8Array): Promise<void> {
      this.touched.push(offset);
      return super.read(offset, into);
    }
    override write(offset: number, from: Uint8Array): Promise<void> {
      this.touched.push(offset);
      return super.write(offset, from);
    }
  }

  it.each(['1', '5', '6', '10'] as const)('RAID %s: reads and writes nothing of segments that hold nothing', async (level) => {
    const devices = Array.from({ length: level === '1' ? 2 : 4 }, () => new CountedDevice('32MiB'));
    const pool = await StoragePool.create(devices.map(lend), { raid: level });
    const volume = await pool.createVolume('v', { size: '8MiB' });
    await volume.write(0, new Uint8Array(4 << 20).fill(1));
    await volume.flush();
    const codec = await FormatCodec.create();
    const { label } = await Member.read(codec, lend(devices[0]!), null);
    const partBytes = (label.segmentBlocks / dataColumns(level, devices.length)) * BLOCK;
    const segmentOf = (offset: number): number => Math.floor((offset - label.dataOffset) / partBytes);
    const uuid = (await Member.read(codec, lend(devices[1]!), null)).uuid;
    const fresh = new CountedDevice('32MiB');
    for (const device of devices) device.touched.length = 0;
    await pool.replaceMember(0, uuid, { device: lend(fresh), path: null });
    const held = (await pool.status()).storageVolumes[0]!.usedBytes / (label.segmentBlocks * BLOCK);
    for (const device of [...devices.filter((_, index) => index !== 1), fresh]) {
      const segments = new Set(device.touched.map(segmentOf).filter((at) => at >= 0 && at < label.segmentCount));
      expect(segments.size).toBeGreaterThan(0);
      expect(segments.size).toBeLessThanOrEqual(held);
    }
    expect(held).toBeLessThan(label.segmentCount / 2);
    await pool.close();
    expect(await read([devices[0]!, fresh, ...devices.slice(2)])).toEqual({ new: 1, old: 1 });
  });
});

describe('a rebuild that cannot read what it needs', () => {
  /** Reads of some blocks fail so many times. */
  class UnreadableDevice extends MemoryDevice {
    bad = 0;
    badEnd = 0;
    failing = 0;
    badPlaces = new Set<number>();
    reads = 0;
    override read(offset: number, into: Uint8Array): Promise<void> {
      this.reads++;
      for (const place of this.badPlaces)
        if (offset <= place && place < offset + into.length) return Promise.reject(new Error('EIO: a read failed'));
      if (this.failing === 0 || offset >= this.badEnd || offset + into.length <= this.bad) return super.read(offset, into);
      this.failing--;
      return Promise.reject(new Error('EIO: a read failed'));
    }
  }

  const data = new Uint8Array(512 * BLOCK);
  for (let at = 0; at < data.length; at++) data[at] = 1 + ((at >>> 12) % 250);

  /** A pool with the data in it; `replaced` is the uuid of member 1. */
  async function filled(level: RaidLevel, count: number) {
    const devices = Array.from({ length: count }, () => new UnreadableDevice('16MiB'));
    const pool = await StoragePool.create(devices.map(lend), { raid: level });
    const volume = await pool.createVolume('v', { size: '4MiB' });
    await volume.write(0, data);
    await volume.flush();
    const codec = await FormatCodec.create();
    const { label } = await Member.read(codec, lend(devices[0]!), null);
    return { devices, pool, label, replaced: (await Member.read(codec, lend(devices[1]!), null)).uuid };
  }

  it.each([
    ['1', 2, 'once'],
    ['5', 4, 'once'],
    ['6', 4, 'once'],
    ['10', 4, 'once'],
    ['1', 2, 'for good'],
    ['5', 4, 'for good'],
    ['6', 4, 'for good'],
    ['10', 4, 'for good'],
    ['1', 2, 'everywhere'],
    ['5', 4, 'everywhere'],
    ['6', 4, 'everywhere'],
    ['10', 4, 'everywhere'],
  ] as const)(
    'RAID %s over %i, %s: asks again, passes over single places, and says that a member is whole only when it is',
    async (level, count, how) => {
      const { devices, pool, label, replaced } = await filled(level, count);
      const fresh = new MemoryDevice('16MiB');
      // RAID 6 can do without one more.
      const bad = level === '6' ? devices.toSpliced(1, 1) : [devices[0]!];
      for (const device of bad) {
        device.bad = label.dataOffset + 10 * BLOCK;
        device.badEnd = how === 'everywhere' ? device.sizeBytes / 2 : device.bad + BLOCK;
        device.failing = how === 'once' ? 2 : 2 ** 30;
      }
      const before = devices[0]!.reads;
      const replacing = pool.replaceMember(0, replaced, { device: lend(fresh), path: null });
      const state = async (): Promise<string | undefined> => (await pool.status()).storageVolumes[0]?.devices[1]?.state;
      if (how === 'everywhere') {
        await expect(replacing).rejects.toThrow(code('VARVE_IO'));
        expect(await state()).toBe('rebuilding');
      } else {
        expect((await replacing).unfilledBytes > 0).toBe(how === 'for good');
        expect(await state()).toBe('online');
        // What is around it is read in small pieces, the rest is not.
        expect(devices[0]!.reads - before).toBeLessThan(300);
      }
      expect(pool.notes.some((note) => note.includes('could not be rebuilt'))).toBe(how === 'for good');
      for (const device of devices) device.failing = 0;
      if (how === 'for good') {
        // Whole again as soon as it can be read again.
        const healed = await pool.scrub();
        expect(healed.problems).toEqual([]);
      }
      await pool.close();
      if (how === 'everywhere') {
        const again = await open([devices[0]!, fresh, ...devices.slice(2)]);
        await again.volume('v');
        await vi.waitFor(async () => expect((await again.status()).storageVolumes[0]?.devices[1]?.state).toBe('online'));
        await again.close();
      }
      const left = await open([fresh, ...devices.slice(2)]);
      const bytes = new Uint8Array(data.length);
      await (await left.volume('v')).read(0, bytes);
      expect(Buffer.compare(bytes, data)).toBe(0);
      await left.close();
    },
  );

  it.each([
    ['1', 2],
    ['5', 3],
    ['10', 4],
  ] as const)('RAID %s over %i: fills a segment of which it cannot read what is in it with what there is', async (level, count) => {
    const { devices, pool, label, replaced } = await filled(level, count);
    const rows = label.segmentBlocks / dataColumns(level, count);
    // One place among the data of a segment, and one in its footer: neither headers nor footer can be had in one piece.
    const places = [10, rows - 1].map((row) => label.dataOffset + row * BLOCK);
    devices[0]!.badPlaces = new Set(places);
    const fresh = new MemoryDevice('16MiB');
    await pool.replaceMember(0, replaced, { device: lend(fresh), path: null });
    expect(pool.notes.some((note) => note.includes('could not be rebuilt'))).toBe(true);
    await pool.close();
    devices[0]!.badPlaces = new Set();
    const left = await open([fresh, ...devices.slice(2)]);
    const alone = await left.volume('v');
    let lost = 0;
    for (let at = 0; at < 512; at++) {
      const bytes = new Uint8Array(BLOCK);
      await alone.read(at * BLOCK, bytes).then(
        () => expect(bytes[0]).toBe(data[at * BLOCK]),
        () => lost++,
      );
    }
    expect(lost).toBeLessThanOrEqual(places.length * label.stripBlocks * dataColumns(level, count)); // as many stripes
    await left.close();
  });

  it.each([
    ['1', 2],
    ['5', 3],
    ['10', 4],
  ] as const)('RAID %s over %i: says what was damaged beyond repair before', async (level, count) => {
    const { devices, pool, label, replaced } = await filled(level, count);
    devices[0]!.writeSync(label.dataOffset + 10 * BLOCK, new Uint8Array(BLOCK).fill(0xff));
    const result = await pool.replaceMember(0, replaced, { device: lend(new MemoryDevice('16MiB')), path: null });
    const { problems } = await pool.check();
    expect(problems.length).toBeGreaterThan(0);
    expect(result).toEqual({ unfilledBytes: 0, damagedBytes: problems.length * BLOCK });
    await pool.close();
  });

  it('loses no more than that place when the others go', async () => {
    const { devices, pool, label, replaced } = await filled('1', 2);
    const fresh = new MemoryDevice('16MiB');
    Object.assign(devices[0]!, { bad: label.dataOffset + 10 * BLOCK, badEnd: label.dataOffset + 11 * BLOCK, failing: 2 ** 30 });
    expect(await pool.replaceMember(0, replaced, { device: lend(fresh), path: null })).toEqual({ unfilledBytes: BLOCK, damagedBytes: 0 });
    await pool.close();
    const left = await open([fresh]);
    const alone = await left.volume('v');
    let lost = 0;
    for (let at = 0; at < 512; at++) {
      const bytes = new Uint8Array(BLOCK);
      try {
        await alone.read(at * BLOCK, bytes);
        expect(bytes[0]).toBe(data[at * BLOCK]);
      } catch (error) {
        expect(error).toEqual(code('VARVE_CORRUPT'));
        lost++;
      }
    }
    expect(lost).toBe(1);
    await left.close();
  });
});

describe('a rebuild that a crash cuts off', () => {
  /** Copies what a crash would leave, at the first write of data after it was asked to. */
  class WatchedDevice extends MemoryDevice {
    written = new Set<number>();
    asked = false;
    image: (() => void) | undefined;
    override async write(offset: number, from: Uint8Array): Promise<void> {
      this.written.add(offset);
      if (this.asked && offset > 64 * BLOCK) {
        this.image?.();
        this.image = undefined;
      }
      return super.write(offset, from);
    }
  }

  it.each(['1', '5', '6', '10'] as const)('RAID %s: goes on where it was', async (level) => {
    const devices: MemoryDevice[] = Array.from({ length: level === '1' ? 2 : 4 }, () => new MemoryDevice('16MiB'));
    const pool = await StoragePool.create(devices.map(lend), { raid: level, rebuildPartBytes: BLOCK });
    const volume = await pool.createVolume('v', { size: '8MiB' });
    const data = new Uint8Array(6 << 20);
    for (let at = 0; at < data.length; at += 4) data[at] = (at >>> 12) + (at >>> 20) + 1;
    for (let at = 0; at < data.length; at += 1 << 18) {
      await volume.write(at, data.subarray(at, at + (1 << 18)));
      await volume.flush();
    }
    const codec = await FormatCodec.create();
    const { label, uuid } = await Member.read(codec, lend(devices[1]!), null);
    const fresh = new WatchedDevice('16MiB');
    devices[1] = fresh;
    const crashed: WatchedDevice[] = [];
    fresh.image = () => {
      for (const device of devices) {
        const bytes = new Uint8Array(device.sizeBytes);
        device.readSync(0, bytes);
        const copy = new WatchedDevice(device.sizeBytes);
        copy.writeSync(0, bytes);
        crashed.push(copy);
      }
    };
    const seen: number[] = [];
    await pool.replaceMember(
      0,
      uuid,
      { device: lend(fresh), path: null },
      {
        onProgress: (done, total) => {
          seen.push(done);
          fresh.asked = done >= total * 0.7;
        },
      },
    );
    await pool.close();
    expect(seen).toEqual(seen.toSorted((a, b) => a - b)); // over all parts
    expect(crashed).toHaveLength(devices.length);

    const member = await Member.read(codec, lend(crashed[1]!), null);
    await member.readSlots(codec);
    const record = chooseCatalogue([member.frames()]).catalogue.storageVolumes[0]!.devices[1]!;
    expect(record.state).toBe('rebuilding');
    expect(record.filled).toBeGreaterThan(0);
    const again = await open(crashed);
    await again.volume('v');
    expect((await again.scrub()).problems).toEqual([]); // it waits for the rebuild
    expect((await again.status()).storageVolumes[0]!.devices.every((device) => device.state === 'online')).toBe(true);
    await again.close();
    const partBytes = (label.segmentBlocks / dataColumns(level, devices.length)) * BLOCK;
    const segments = (device: WatchedDevice): number =>
      new Set(
        [...device.written].map((at) => Math.floor((at - label.dataOffset) / partBytes)).filter((at) => at >= 0 && at < label.segmentCount),
      ).size;
    // Beside what the rebuild writes: zeros behind the end of the segment that is open.
    expect(segments(crashed[1]!)).toBeLessThan(segments(fresh) * 0.6 + 1);
    const rest = await open(crashed.slice(1), true);
    const read = new Uint8Array(data.length);
    await (await rest.volume('v')).read(0, read);
    await rest.close();
    expect(Buffer.compare(read, data)).toBe(0);
  });

  it('begins anew when the pool was used without the member meanwhile', async () => {
    const devices = await make('5', 4);
    const pool = await StoragePool.openDevices(devices.map(lend), { rebuildPartBytes: BLOCK });
    const codec = await FormatCodec.create();
    const { uuid } = await Member.read(codec, lend(devices[2]!), null);
    const fresh = new WatchedDevice('16MiB');
    devices[2] = fresh;
    let crashed: MemoryDevice[] = [];
    fresh.image = () => (crashed = devices.map(copyOf));
    await pool.replaceMember(0, uuid, { device: lend(fresh), path: null }, { onProgress: (done) => (fresh.asked = done >= 1) });
    await pool.close();
    expect(await states(crashed)).toEqual(['online', 'online', 'rebuilding', 'online']);
    await write([crashed[0]!, crashed[1]!, crashed[3]!], 3);
    expect(await states(crashed)).toEqual(['online', 'online', 'missing', 'online']);
    const again = await open(crashed);
    await again.volume('v');
    await again.scrub();
    await again.close();
    expect(await states(crashed)).toEqual(Array(4).fill('online'));
    expect(await read([crashed[0]!, crashed[2]!, crashed[3]!])).toEqual({ new: 3, old: 1 });
  });
});

describe('the planted fault HIGHEST_GENERATION', () => {
  /** What it would be without ancestry. */
  function highestGeneration(members: readonly (readonly FrameSeen[])[]): FrameSeen {
    return members.flat().reduce((best, frame) => (frame.generation > best.generation ? frame : best));
  }
  async function framesOf(devices: readonly MemoryDevice[]): Promise<(readonly FrameSeen[])[]> {
    const codec = await FormatCodec.create();
    const frames: (readonly FrameSeen[])[] = [];
    for (const device of devices) {
      const member = await Member.read(codec, lend(device), null);
      await member.readSlots(codec);
      frames.push(member.frames());
    }
    return frames;
  }
  const devicesOf = (frame: FrameSeen): number => decodeCatalogue(frame.payload).storageVolumes.length;
  async function add(devices: readonly MemoryDevice[]): Promise<void> {
    const pool = await open(devices);
    await pool.addStorageVolume([{ device: new MemoryDevice('1MiB'), path: null }]);
    await pool.close();
  }

  it('is found: it forgets what was acknowledged, and would write over it', async () => {
    const devices = await make('1', 2);
    await write([devices[0]!], 2);
    await write([devices[1]!], 3);
    await add([devices[1]!]);
    const [first, second] = await framesOf(devices);
    const believed = highestGeneration([first!, second!]);
    // The write of 2 is on the first alone: to this catalogue it is the member that was away, to be filled from the other one.
    expect(believed).toEqual(highestGeneration([second!]));
    expect(decodeCatalogue(believed.payload).storageVolumes[0]?.devices.map((device) => device.state)).toEqual(['missing', undefined]);
    expect(await read([devices[0]!])).toEqual({ new: 2, old: 1 });
    expect(() => chooseCatalogue([first!, second!])).toThrow(code('VARVE_FENCED'));
    await expect(open(devices)).rejects.toEqual(code('VARVE_FENCED'));
    expect(await read([devices[0]!])).toEqual({ new: 2, old: 1 });
  });

  it('is not found where one history is the other’s beginning: there both say the same', async () => {
    const devices = await make('1', 2);
    await add([devices[0]!]);
    const frames = await framesOf(devices);
    expect(chooseCatalogue(frames).frame).toEqual(highestGeneration(frames));
    expect(devicesOf(chooseCatalogue(frames).frame)).toBe(2);
  });
});
