// A log on storage volumes of several members, where the order of two things counts that a random history seldom brings together: what is mended beside a
// flush, and what a rebuild that goes on after a crash may rely on.
import { describe, expect, it, vi } from 'vitest';
import { MemoryDevice } from '../../src/device/memory.ts';
import { Log, type LogVolume, type MemberState } from '../../src/volume/log.ts';
import { VirtualVolume } from '../../src/volume/volume.ts';
import { copyOf, KEY, pattern, POLICY, UUID } from './log-fixture.ts';

const BLOCK = 4096;
const DATA_OFFSET = 1 << 18;
const LEVELS = {
  0: { level: 1, columns: 2, members: 2 },
  1: { level: 2, columns: 1, members: 2 },
  5: { level: 3, columns: 2, members: 3 },
  6: { level: 4, columns: 2, members: 4 },
  10: { level: 5, columns: 2, members: 4 },
} as const;

interface Shape {
  readonly raid: keyof typeof LEVELS;
  readonly segmentBlocks: number;
  readonly segmentCount: number;
  readonly stripBlocks?: number;
}

function storage(id: number, shape: Shape, members: readonly (MemoryDevice | undefined)[], states?: readonly MemberState[]): LogVolume {
  const { level, columns } = LEVELS[shape.raid];
  return {
    id,
    level,
    members,
    states,
    stripBlocks: shape.stripBlocks ?? 1,
    segmentBlocks: shape.segmentBlocks,
    segmentCount: shape.segmentCount,
    dataOffset: DATA_OFFSET,
    rootFrontOffset: BLOCK,
    rootBackOffset: DATA_OFFSET + ((shape.segmentBlocks * shape.segmentCount) / columns) * BLOCK,
  };
}

function devicesFor<T extends MemoryDevice>(shape: Shape, make: (sizeBytes: number) => T): T[] {
  const { columns, members } = LEVELS[shape.raid];
  const sizeBytes = DATA_OFFSET + ((shape.segmentBlocks * shape.segmentCount) / columns) * BLOCK + 4 * BLOCK;
  return Array.from({ length: members }, () => make(sizeBytes));
}

async function create(volumes: LogVolume[], virtualBytes: number): Promise<{ log: Log; volume: VirtualVolume }> {
  const log = await Log.create({ name: 'v', uuid: UUID, key: KEY, volumes, policy: POLICY });
  await log.createSource(0, 'default', virtualBytes);
  return { log, volume: new VirtualVolume(log, 'v', 0) };
}

async function open(volumes: LogVolume[]): Promise<{ log: Log; volume: VirtualVolume }> {
  const log = await Log.open({ name: 'v', uuid: UUID, volumes, policy: POLICY });
  return { log, volume: new VirtualVolume(log, 'v', 0) };
}

describe('a rebuild in parts', () => {
  it.each([1, 5, 6] as const)('RAID %i: goes on after a crash that took the tail from the member, and loses none of it', async (raid) => {
    const shape: Shape = { raid, segmentBlocks: 64, segmentCount: 40 };
    const devices = devicesFor(shape, (bytes) => new MemoryDevice(bytes));
    const first = await create([storage(0, shape, devices)], 2 << 20);
    const old = pattern(160 * BLOCK, raid);
    await first.volume.write(0, old);
    await first.volume.flush();
    const fresh = new MemoryDevice(devices[1]!.sizeBytes);
    first.log.setMember(0, 1, 'out');
    first.log.setDevice(0, 1, fresh);
    first.log.setMember(0, 1, 'rebuilding');
    const places: number[] = [];
    for (let from: number | undefined = 0; from !== undefined;) {
      const part = await first.log.rebuild(0, { from, segments: 1 });
      expect(part.problems).toEqual([]);
      if (part.next !== undefined) {
        expect(part.next).toBeGreaterThan(from);
        places.push(part.next);
      }
      from = part.next;
    }
    expect(places.length).toBeGreaterThan(2);
    const place = places.at(-1)!; // all that there is lies before it
    const tailless = copyOf(fresh);
    const late = pattern(24 * BLOCK, raid + 100);
    await first.volume.write(8 * BLOCK, late);
    await first.volume.flush(); // nothing on the others says so: what they have and the member lacks may as well have been cut off in the middle of it
    const crashed = devices.map((device, index) => (index === 1 ? tailless : copyOf(device)));
    await first.log.abandon();

    const states = devices.map((_, index): MemberState => (index === 1 ? 'rebuilding' : 'online'));
    const second = await open([storage(0, shape, crashed, states)]);
    expect((await second.log.rebuild(0, { from: place })).next).toBeUndefined();
    second.log.setMember(0, 1, 'online');
    expect((await second.log.scrub({ report: true })).mended).toEqual([]);
    await second.log.close();

    const without = devices.map((_, index): MemberState => (index === 0 ? 'out' : 'online'));
    const third = await open([storage(0, shape, [undefined, ...crashed.slice(1)], without)]);
    const bytes = new Uint8Array(160 * BLOCK);
    await third.volume.read(0, bytes);
    old.set(late, 8 * BLOCK);
    expect(bytes).toEqual(old);
    await third.log.close();
  });

  it('cancelled, says how far it came', async () => {
    const shape: Shape = { raid: 5, segmentBlocks: 64, segmentCount: 40 };
    const devices = devicesFor(shape, (bytes) => new MemoryDevice(bytes));
    const { log, volume } = await create([storage(0, shape, devices)], 4 << 20);
    await volume.write(0, pattern(600 * BLOCK, 3));
    await volume.flush();
    log.setMember(0, 2, 'out');
    log.setDevice(0, 2, new MemoryDevice(devices[2]!.sizeBytes));
    log.setMember(0, 2, 'rebuilding');
    const abort = new AbortController();
    const { next } = await log.rebuild(0, { signal: abort.signal, onProgress: (done) => (done >= 3 ? abort.abort() : undefined) });
    expect(next).toBeGreaterThan(0);
    let least = Number.POSITIVE_INFINITY;
    let most = 0;
    await log.rebuild(0, {
      from: next,
      onProgress: (done, total) => {
        least = Math.min(least, done);
        most = done / total;
      },
    });
    expect(least).toBeGreaterThanOrEqual(3);
    expect(most).toBe(1);
    log.setMember(0, 2, 'online');
    expect(await log.scrub({ report: true })).toEqual({ problems: [], mended: [] });
    await log.close();
  });
});

describe('a block that is mended', () => {
  /** Counts flushes, and holds a write back on demand. */
  class GatedDevice extends MemoryDevice {
    flushes = 0;
    writes = 0;
    held: Promise<void> | undefined;
    arrived: (() => void) | undefined;
    override async write(offset: number, from: Uint8Array): Promise<void> {
      this.writes++;
      if (this.held) {
        this.arrived?.();
        await this.held;
      }
      return super.write(offset, from);
    }
    override flush(): Promise<void> {
      this.flushes++;
      return super.flush();
    }
  }

  it('while a flush is under way is flushed by the next one', async () => {
    const small: Shape = { raid: 1, segmentBlocks: 64, segmentCount: 24 };
    const large: Shape = { raid: 1, segmentBlocks: 64, segmentCount: 40 };
    const [a, b] = devicesFor(small, (bytes) => new GatedDevice(bytes)) as [GatedDevice, GatedDevice];
    const others = devicesFor(large, (bytes) => new GatedDevice(bytes)) as [GatedDevice, GatedDevice];
    const { log, volume } = await create([storage(0, small, [a, b]), storage(1, large, others)], 16 << 20);
    // The first storage volume fills; from then on writes go to the second.
    const data = pattern(1024 * BLOCK, 9);
    let block = 0;
    const write = async (): Promise<void> => {
      await volume.write(block * BLOCK, data.subarray((block % 1024) * BLOCK, ((block % 1024) + 8) * BLOCK));
      await volume.flush();
      block += 8;
    };
    for (let quiet = 0; quiet < 8;) {
      const before = a.writes;
      await write();
      quiet = a.writes === before ? quiet + 1 : 0;
      expect(block).toBeLessThan(3072);
    }
    // Every block of one member that has data is wrong, so that whichever is read from it is mended.
    const zero = new Uint8Array(BLOCK);
    for (let at = DATA_OFFSET; at < DATA_OFFSET + 64 * BLOCK; at += BLOCK) b.writeSync(at, zero);
    let release: () => void = () => undefined;
    b.held = new Promise((resolve) => (release = resolve));
    const arrival = new Promise<void>((resolve) => (b.arrived = resolve));
    const into = new Uint8Array(BLOCK);
    const reads: Promise<void>[] = [];
    for (let i = 0; i < 8; i++) reads.push(volume.read(i * BLOCK, into));
    await arrival;
    await write(); // beside it: the flush ends before the mended block is written
    const before = b.flushes;
    b.held = undefined;
    release();
    await Promise.all(reads);
    await write();
    expect(b.flushes).toBeGreaterThan(before);
    await log.close();
  });
});

describe('a scrub of the open segment', () => {
  /** Takes what is there at once, and tells it later. */
  class SlowDevice extends MemoryDevice {
    static gate: Promise<void> | undefined;
    static held = 0;
    override async read(offset: number, into: Uint8Array): Promise<void> {
      await super.read(offset, into);
      if (SlowDevice.gate === undefined || into.length <= 65536) return;
      SlowDevice.held++;
      const then = into.slice();
      await SlowDevice.gate;
      into.set(then);
    }
  }

  // In 58 slots of 64 are data and the stripe of 8 has the footer's beginning in it.
  it.each([54, 58])('RAID 10, %i blocks in it: leaves the footer alone that is written meanwhile', async (blocks) => {
    const shape: Shape = { raid: 10, segmentBlocks: 64, segmentCount: 60, stripBlocks: 4 };
    const devices = devicesFor(shape, (bytes) => new SlowDevice(bytes));
    const { log, volume } = await create([storage(0, shape, devices)], 1000 * BLOCK);
    let written = 0;
    const write = async (count: number): Promise<void> => {
      const bytes = new Uint8Array(count * BLOCK);
      for (let at = 0; at < count; at++) bytes[at * BLOCK] = 1 + ((written + at) % 250);
      await volume.write(written * BLOCK, bytes);
      await volume.flush();
      written += count;
    };
    await write(blocks);
    let open_ = (): void => undefined;
    SlowDevice.held = 0;
    SlowDevice.gate = new Promise((resolve) => (open_ = resolve));
    const scrub = log.scrub();
    await vi.waitFor(() => expect(SlowDevice.held).toBeGreaterThan(0));
    await write(20); // seals it
    await new Promise((resolve) => setTimeout(resolve, 20));
    SlowDevice.gate = undefined;
    open_();
    expect(await scrub).toMatchObject({ problems: [], mended: [] });
    // Member 2 is replaced and filled; then its twin is lost, and the program crashes.
    devices[2] = devicesFor(shape, (bytes) => new SlowDevice(bytes))[0]!;
    log.setMember(0, 2, 'out');
    log.setDevice(0, 2, devices[2]);
    log.setMember(0, 2, 'rebuilding');
    expect((await log.rebuild(0)).problems).toEqual([]);
    log.setMember(0, 2, 'online');
    await write(5);
    await log.abandon();
    const states: MemberState[] = ['online', 'online', 'online', 'out'];
    const left = devices.map((device, index) => (index === 3 ? undefined : device));
    const again = await open([storage(0, shape, left, states)]);
    const bytes = new Uint8Array(written * BLOCK);
    await again.volume.read(0, bytes);
    for (let at = 0; at < written; at++) expect(bytes[at * BLOCK]).toBe(1 + (at % 250));
    await again.log.close();
  });
});
