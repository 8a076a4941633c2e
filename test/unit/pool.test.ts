import { describe, expect, it, vi } from 'vitest';
import { MemoryDevice } from '../../src/device/memory.ts';
import type { StorageDevice, SyncStorageDevice } from '../../src/device/device.ts';
import { SliceDevice } from '../../src/device/wrap/slice.ts';
import { StoragePool } from '../../src/pool/pool.ts';
import { replicate } from '../../src/replication/replicate.ts';
import { restore } from '../../src/replication/restore.ts';
import { Log } from '../../src/volume/log.ts';
import { nextTask } from '../../src/turn.ts';

const MIB = 1 << 20;
const BLOCK = 4096;
const code = (wanted: string) => expect.objectContaining({ code: wanted });

function noise(length: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let state = (seed * 2_654_435_761) >>> 0 || 1;
  for (let index = 0; index < length; index++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    bytes[index] = state;
  }
  return bytes;
}

async function bytesOf(device: StorageDevice): Promise<Uint8Array> {
  const bytes = new Uint8Array(device.sizeBytes);
  await device.read(0, bytes);
  return bytes;
}

class SlowDevice extends MemoryDevice {
  /** Reads wait for it. */
  gate: Promise<void> = Promise.resolve();
  override async read(offset: number, into: Uint8Array): Promise<void> {
    await this.gate;
    return super.read(offset, into);
  }
  override async flush(): Promise<void> {
    await new Promise((resolve) => setTimeout(resolve, 2));
    return super.flush();
  }
}

/** Devices that outlive the pool: closing the pool closes what it was given. */
const lend = (device: SyncStorageDevice): StorageDevice => new SliceDevice(device, 0, device.sizeBytes);

describe('a pool', () => {
  it('has volumes of at most 2^52 bytes, and says so to larger ones', async () => {
    const pool = await StoragePool.create([new MemoryDevice('64MiB')]);
    const told = /expected at most 2\^52 bytes \(4096 TiB\), got /;
    for (const size of [2 ** 52 + 1, Number.MAX_SAFE_INTEGER, '8191TiB']) {
      const refused = async (call: Promise<unknown>): Promise<void> => {
        const error = await call.catch((cause: unknown) => cause);
        expect(error).toBeInstanceOf(RangeError);
        expect((error as Error).message).toMatch(told);
        expect((error as Error).message).toContain(`got ${size}`);
      };
      await refused(pool.createVolume('a', { size }));
      expect(pool.volumes).toEqual([]);
      const volume = await pool.createVolume('a', { size: MIB });
      await refused(volume.resize(size));
      await refused(volume.addSource('more', size));
      expect(volume.sources().map(({ sizeBytes }) => sizeBytes)).toEqual([MIB]);
      await pool.deleteVolume('a');
    }
    const volume = await pool.createVolume('largest', { size: '4096TiB' });
    await volume.write(2 ** 52 - 4096, noise(4096, 1));
    await volume.resize(2 ** 52 - 1);
    await volume.resize(2 ** 52);
    await pool.close();
  });

  it('keeps volumes and their bytes over closing and opening', async () => {
    const device = new MemoryDevice('64MiB');
    const data = noise(MIB, 1);
    {
      const pool = await StoragePool.create([lend(device)]);
      const volume = await pool.createVolume('db', { size: '16MiB' });
      await volume.write(12_345, data);
      await volume.snapshot('one');
      await pool.close();
    }
    const pool = await StoragePool.openDevices([lend(device)]);
    expect(pool.volumes).toEqual(['db']);
    const volume = await pool.volume('db');
    const read = new Uint8Array(MIB);
    await volume.read(12_345, read);
    expect(read).toEqual(data);
    expect(volume.snapshots().map((snapshot) => snapshot.name)).toEqual(['one']);
    const status = await pool.status();
    expect(status.storageVolumes).toMatchObject([{ id: 0, state: 'assigned', virtualVolume: 'db', raid: 'single' }]);
    expect(status.virtualVolumes).toMatchObject([
      { name: 'db', sizeBytes: 16 * MIB, storageVolumes: [0], sources: [{ name: 'default', sizeBytes: 16 * MIB }] },
    ]);
    expect(status.virtualVolumes[0]?.mappedBytes).toBeGreaterThanOrEqual(MIB);
    expect(await pool.check()).toEqual({ clean: true, problems: [], notes: [] });
    await pool.close();
  });

  it('refuses names that are taken, volumes that are not there, and more volumes than it has devices', async () => {
    const pool = await StoragePool.create([new MemoryDevice('16MiB'), new MemoryDevice('16MiB')]);
    await pool.createVolume('a', { size: MIB });
    await expect(pool.createVolume('a', { size: MIB })).rejects.toThrow(code('VARVE_EXISTS'));
    await expect(pool.createVolume('a/b', { size: MIB })).rejects.toThrow(RangeError);
    await expect(pool.volume('b')).rejects.toThrow(code('VARVE_NOT_FOUND'));
    await expect(pool.deleteVolume('b')).rejects.toThrow(code('VARVE_NOT_FOUND'));
    await pool.createVolume('b', { size: MIB });
    await expect(pool.createVolume('c', { size: MIB })).rejects.toThrow(code('VARVE_NO_SPACE'));
    await pool.deleteVolume('a');
    await pool.createVolume('c', { size: MIB });
    expect(pool.volumes).toEqual(['b', 'c']);
    await pool.close();
    await expect(pool.volume('b')).rejects.toThrow(code('VARVE_CLOSED'));
  });

  it('grows over several storage volumes while it is written, and gives them back', async () => {
    const made: MemoryDevice[] = [];
    const provide = async (sizeBytes: number): Promise<MemoryDevice> => {
      const device = new MemoryDevice(sizeBytes);
      made.push(device);
      return device;
    };
    const pool = await StoragePool.create([new MemoryDevice('16MiB')], { provide, volumeSize: '16MiB', maxVolumes: 8 });
    const volume = await pool.createVolume('big', { size: '256MiB' });
    const chunks = Array.from({ length: 40 }, (_, index) => noise(MIB, index + 1));
    for (const [index, chunk] of chunks.entries()) await volume.write(index * MIB, chunk);
    await volume.flush();
    const count = (await pool.status()).virtualVolumes[0]?.storageVolumes.length ?? 0;
    expect(count).toBeGreaterThanOrEqual(3);
    expect(made.length).toBeGreaterThanOrEqual(count - 1); // one more may be on its way
    const read = new Uint8Array(MIB);
    for (const [index, chunk] of chunks.entries()) {
      await volume.read(index * MIB, read);
      expect(Buffer.compare(read, chunk)).toBe(0);
    }
    await volume.discard(MIB, 39 * MIB);
    await volume.flush();
    await volume.compact();
    await pool.maintain();
    const after = await pool.status();
    expect(after.virtualVolumes[0]?.storageVolumes.length).toBeLessThan(count);
    await volume.read(0, read);
    expect(Buffer.compare(read, chunks[0]!)).toBe(0);
    expect((await pool.check()).problems).toEqual([]);
    await pool.close();
  });

  it('gives back all that it can when snapshots are deleted', async () => {
    const provide = async (sizeBytes: number): Promise<MemoryDevice> => new MemoryDevice(sizeBytes);
    const pool = await StoragePool.create([new MemoryDevice('8MiB')], { provide, volumeSize: '8MiB', maxVolumes: 60 });
    const volume = await pool.createVolume('d', { size: '64MiB' });
    for (let index = 0; index < 48; index++) await volume.write(index * MIB, noise(MIB, index + 1));
    let state = 7;
    for (let snapshot = 0; snapshot < 8; snapshot++) {
      for (let count = 0; count < 10; count++) {
        state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
        await volume.write((state % (47 * 256)) * BLOCK, noise(MIB, state));
      }
      await volume.snapshot(`s${snapshot}`);
    }
    for (let snapshot = 0; snapshot < 8; snapshot++) await volume.deleteSnapshot(`s${snapshot}`);
    expect(volume.log.volumes().length).toBeGreaterThanOrEqual(16);
    await volume.compact();
    await pool.maintain();
    // 48 MiB of live data under shrinkBelow 0.7: 10 volumes of 61 × 128 KiB.
    expect(volume.log.volumes().length).toBeLessThanOrEqual(11);
    expect(pool.notes).toEqual([]);
    expect((await pool.check()).problems).toEqual([]);
    await pool.close();
  });

  // Where the pages of closing go depends on how full their segments are: checkpoints before, some more each time, have some of these closes take new ones.
  it.each([0, 1].flatMap((takes) => [0, 1, 2, 3].map((checkpoints) => [takes, checkpoints] as const)))(
    'a storage volume whose return was committed half (on %i devices of two) is not filled again when the pool is closed (%i)',
    async (takes, checkpoints) => {
      let armed = false;
      let left = takes;
      class Trap extends MemoryDevice {
        override write(offset: number, from: Uint8Array): Promise<void> {
          const catalogue = offset >= BLOCK && offset < 33 * BLOCK;
          if (armed && catalogue && left-- <= 0) return Promise.reject(new Error('EIO: the catalogue was not written'));
          return super.write(offset, from);
        }
      }
      const devices = Array.from({ length: 2 }, () => new Trap('16MiB'));
      const lent = (): SliceDevice[] => devices.map((device) => new SliceDevice(device, 0, device.sizeBytes));
      const pool = await StoragePool.create(lent(), { segmentBlocks: 8 });
      const volume = await pool.createVolume('v', { size: '64MiB' });
      for (let index = 0; index < 18; index++) await volume.write(index * MIB, noise(MIB, index + 1));
      await volume.flush();
      expect(volume.log.volumes()).toHaveLength(2);
      await volume.discard(MIB, 17 * MIB);
      await volume.flush();
      await volume.compact();
      armed = true;
      await pool.maintain();
      armed = false;
      expect(pool.notes.some((note) => note.startsWith('giving back a storage volume'))).toBe(true);
      const late = noise(MIB, 99);
      await volume.write(0, late);
      for (let index = 0; index < checkpoints; index++) {
        await volume.write((2 + index) * MIB, late.subarray(0, BLOCK));
        await volume.log.checkpoint();
      }
      await pool.close();
      const again = await StoragePool.openDevices(lent());
      expect((await again.status()).virtualVolumes[0]?.storageVolumes).toHaveLength(2 - takes); // which catalogue it found
      const read = new Uint8Array(MIB);
      await (await again.volume('v')).read(0, read);
      expect(Buffer.compare(read, late)).toBe(0);
      expect((await again.check()).problems).toEqual([]);
      await again.close();
    },
  );

  it('does not open again what is being deleted', async () => {
    const device = new SlowDevice('16MiB');
    const pool = await StoragePool.create([lend(device)]);
    await (await pool.createVolume('a', { size: MIB })).write(0, noise(MIB, 1));
    const opens = vi.spyOn(Log, 'open');
    let over = false;
    const deleted = pool.deleteVolume('a').finally(() => (over = true));
    // Somebody who watches the pool meanwhile opens each volume that the catalogue still names.
    while (!over) {
      await pool.status();
      await nextTask();
    }
    await deleted;
    expect(opens).not.toHaveBeenCalled();
    opens.mockRestore();
    const volume = await pool.createVolume('b', { size: MIB });
    await volume.write(0, noise(MIB, 2));
    await volume.snapshot('s');
    await pool.close();
    const again = await StoragePool.openDevices([lend(device)]);
    expect(await again.check()).toMatchObject({ clean: true });
    expect(Buffer.compare(await bytesOf((await again.volume('b')).at('s')), noise(MIB, 2))).toBe(0);
    await again.close();
  });

  it('tells its status while a volume is deleted', async () => {
    const devices = [new SlowDevice('8MiB'), new SlowDevice('8MiB')];
    const first = await StoragePool.create(devices.map(lend));
    for (const name of ['a', 'b']) await first.createVolume(name, { size: MIB });
    await first.close();
    const pool = await StoragePool.openDevices(devices.map(lend));
    let open = (): void => undefined;
    devices[0]!.gate = new Promise((resolve) => (open = resolve));
    const status = pool.status(); // it opens `a` first
    await pool.deleteVolume('b');
    open();
    expect((await status).virtualVolumes.map((volume) => volume.name)).toEqual(['a']);
    await pool.close();
  });

  it('counts as mapped what a volume shows, after a rollback too', async () => {
    const pool = await StoragePool.create([new MemoryDevice('32MiB')]);
    const volume = await pool.createVolume('v', { size: MIB + 100 });
    const mapped = async (): Promise<number | undefined> => (await pool.status()).virtualVolumes[0]?.mappedBytes;
    await volume.write(0, noise(MIB + 100, 1));
    await volume.snapshot('all');
    await volume.discard(0, MIB);
    expect(await mapped()).toBe(BLOCK);
    await volume.rollback('all');
    expect(await mapped()).toBe(MIB + BLOCK);
    await volume.write(0, noise(2 * BLOCK, 2));
    await volume.discard(4 * BLOCK, 3 * BLOCK);
    expect(await mapped()).toBe(MIB - 2 * BLOCK);
    expect((await pool.status()).virtualVolumes[0]?.sources).toHaveLength(1);
    await pool.close();
  });

  it('says NO_SPACE when it is full, reads and deletes all the same, and goes on when there is space', async () => {
    const pool = await StoragePool.create([new MemoryDevice('16MiB')]);
    const volume = await pool.createVolume('full', { size: '64MiB' });
    const chunk = noise(MIB, 5);
    let written = 0;
    let failure: unknown;
    for (; written < 64 && failure === undefined; written++) {
      await volume
        .write(written * MIB, chunk)
        .then(() => volume.flush())
        .catch((error: unknown) => {
          failure = error;
        });
    }
    expect(failure).toEqual(code('VARVE_NO_SPACE'));
    const read = new Uint8Array(MIB);
    await volume.read(0, read);
    expect(Buffer.compare(read, chunk)).toBe(0);
    await volume.discard(MIB, 8 * MIB);
    await volume.write(0, noise(MIB, 6));
    await volume.flush();
    expect((await pool.check()).problems).toEqual([]);
    await pool.close();
  });

  it('asks for a storage volume again with each write that needs one, though there was none before', async () => {
    let asked = 0;
    let room = false;
    const provide = (sizeBytes: number): Promise<StorageDevice | undefined> => {
      asked++;
      return Promise.resolve(room ? new MemoryDevice(sizeBytes) : undefined);
    };
    const pool = await StoragePool.create([new MemoryDevice('4MiB')], { volumeSize: '4MiB', provide });
    const volume = await pool.createVolume('v', { size: '32MiB' });
    let written = 0;
    let failure: unknown;
    while (failure === undefined && written < 4096) {
      await volume.write(written * BLOCK, noise(BLOCK, written)).then(
        () => written++,
        (error: unknown) => (failure = error),
      );
    }
    expect(failure).toEqual(code('VARVE_NO_SPACE'));
    const before = asked;
    const three = [0, 1, 2].map((at) => volume.write((written + at) * BLOCK, noise(BLOCK, written + at)));
    for (const result of await Promise.allSettled(three)) expect(result).toMatchObject({ reason: { code: 'VARVE_NO_SPACE' } });
    expect(asked).toBeGreaterThan(before);
    expect(asked).toBeLessThanOrEqual(before + 3);
    room = true;
    await volume.write(written * BLOCK, noise(BLOCK, written));
    await volume.flush();
    expect((await pool.status()).storageVolumes).toHaveLength(2);
    await pool.close();
  });

  it('mends a label and a catalogue from their other copies', async () => {
    const device = new MemoryDevice('16MiB');
    await (await StoragePool.create([lend(device)])).close();
    device.writeSync(0, new Uint8Array(4096));
    device.writeSync(4096 + 65536, new Uint8Array(4096).fill(7)); // generation 1 is in slot B
    const reader = await StoragePool.openDevices([lend(device)], { readOnly: true });
    expect((await reader.check()).problems.map((problem) => problem.message)).toEqual([
      'front label: there is none',
      'front catalogue, slot B: it is no catalogue',
    ]);
    await reader.close();
    const pool = await StoragePool.openDevices([lend(device)]);
    expect(pool.generation).toBe(2);
    expect((await pool.check()).clean).toBe(true);
    await pool.close();
  });

  it('finds a flipped bit in any block that is in use, and clean is what it was', async () => {
    const device = new MemoryDevice('4MiB');
    {
      const pool = await StoragePool.create([lend(device)]);
      const volume = await pool.createVolume('v', { size: '8MiB' });
      await volume.write(0, noise(500_000, 1));
      await volume.snapshot('s');
      await volume.write(100_000, noise(100_000, 2));
      await volume.discard(300_000, 50_000);
      await pool.close();
    }
    const read = async <T>(use: (pool: StoragePool) => Promise<T>): Promise<T> => {
      const pool = await StoragePool.openDevices([lend(device)], { readOnly: true });
      try {
        return await use(pool);
      } finally {
        await pool.close();
      }
    };
    const ranges = (await read((pool) => pool.describe())).devices[0]?.ranges ?? [];
    expect(new Set(ranges.map((range) => range.what))).toEqual(new Set(['label', 'catalogue', 'root', 'page', 'header', 'footer', 'data']));
    const byte = new Uint8Array(1);
    let state = 1;
    for (const { offset, length, what } of ranges) {
      for (let block = offset; block < offset + length; block += BLOCK) {
        state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
        const at = block + (state % Math.min(BLOCK, offset + length - block));
        device.readSync(at, byte);
        device.writeSync(at, Uint8Array.of((byte[0] ?? 0) ^ (1 << (state >>> 29))));
        const result = await read((pool) => pool.check()).catch((error: unknown) => ({ clean: false, error }));
        expect(result.clean, `${what} at ${at}`).toBe(false);
        device.writeSync(at, byte);
        await nextTask(); // a browser takes the memories of closed pools back between tasks, and has room for some hundred
      }
    }
    expect(await read((pool) => pool.check())).toEqual({ clean: true, problems: [], notes: [] });
  });

  it('is fenced when its devices were used without each other', async () => {
    const devices = [new MemoryDevice('16MiB'), new MemoryDevice('16MiB')] as const;
    await (await StoragePool.create(devices.map(lend))).close();
    for (const [index, device] of devices.entries()) {
      const half = await StoragePool.openDevices([lend(device)]);
      expect(half.notes).toHaveLength(1);
      await half.createVolume(`v${index}`, { size: MIB });
      await half.close();
    }
    await expect(StoragePool.openDevices(devices.map(lend))).rejects.toThrow(code('VARVE_FENCED'));
  });

  it('takes a member back that missed a commit, and does without one that is missing until it is needed', async () => {
    const devices = [new MemoryDevice('16MiB'), new MemoryDevice('16MiB')] as const;
    {
      const pool = await StoragePool.create(devices.map(lend));
      await pool.createVolume('first', { size: MIB });
      await pool.createVolume('second', { size: MIB });
      await pool.deleteVolume('first');
      await pool.close();
    }
    {
      const half = await StoragePool.openDevices([lend(devices[0])]);
      expect((await half.status()).storageVolumes.map((volume) => volume.state)).toEqual(['unassigned', 'faulted']);
      await expect(half.volume('second')).rejects.toThrow(code('VARVE_IO'));
      expect((await half.check()).clean).toBe(false);
      await half.createVolume('third', { size: MIB });
      await half.close();
    }
    const pool = await StoragePool.openDevices(devices.map(lend));
    expect(pool.volumes).toEqual(['second', 'third']);
    await pool.volume('second');
    expect((await pool.check()).clean).toBe(true);
    await pool.close();
  });

  it('takes a catalogue commit back that fails half-way', async () => {
    const devices = [new MemoryDevice('16MiB'), new MemoryDevice('16MiB')] as const;
    let failing = false;
    const faulty = lend(devices[1]);
    const write = faulty.write.bind(faulty);
    faulty.write = (offset, from, options) =>
      failing && offset < 143_360 ? Promise.reject(new Error('made to fail')) : write(offset, from, options);
    const pool = await StoragePool.create([lend(devices[0]), faulty]);
    failing = true;
    await expect(pool.createVolume('v', { size: MIB })).rejects.toThrow(code('VARVE_IO'));
    // Not even the old content can be written: nothing is committed any more, and both contents are sound.
    failing = false;
    await expect(pool.createVolume('v', { size: MIB })).rejects.toThrow(code('VARVE_READ_ONLY'));
    await pool.close();
    const again = await StoragePool.openDevices(devices.map(lend));
    expect((await again.check()).clean).toBe(true);
    await again.close();
  });

  it('works synchronously, and grows from a spare made beforehand', async () => {
    const provide = async (sizeBytes: number): Promise<MemoryDevice> => new MemoryDevice(sizeBytes);
    const pool = await StoragePool.create([new MemoryDevice('16MiB')], { provide, volumeSize: '16MiB', sync: true });
    const volume = await pool.createVolume('sync', { size: '64MiB' });
    await pool.maintain();
    const chunks = Array.from({ length: 16 }, (_, index) => noise(MIB, index + 1));
    for (const [index, chunk] of chunks.entries()) volume.writeSync(index * MIB, chunk);
    volume.flushSync();
    const read = new Uint8Array(MIB);
    for (const [index, chunk] of chunks.entries()) {
      volume.readSync(index * MIB, read);
      expect(Buffer.compare(read, chunk)).toBe(0);
    }
    expect((await pool.status()).virtualVolumes[0]?.storageVolumes).toHaveLength(2);
    await pool.close();
  });

  it('keeps the policy of a volume', async () => {
    const device = new MemoryDevice('16MiB');
    const pool = await StoragePool.create([lend(device)]);
    await pool.createVolume('v', { size: MIB, policy: { growAt: 0.9, mode: 'fixed' } });
    await expect(pool.createVolume('w', { size: MIB, policy: { growAt: 3 } })).rejects.toThrow(RangeError);
    await pool.close();
    const again = await StoragePool.openDevices([lend(device)], { readOnly: true });
    expect(again.policyOf('v')).toMatchObject({ growAt: 0.9, mode: 'fixed', shrinkBelow: 0.7 });
    await expect(again.createVolume('w', { size: MIB })).rejects.toThrow(code('VARVE_READ_ONLY'));
    await again.close();
  });
});

describe('replicate and restore', () => {
  it('writes everything but zeroes first, then only what changed', async () => {
    const pool = await StoragePool.create([new MemoryDevice('64MiB')]);
    const volume = await pool.createVolume('disk');
    const primary = new MemoryDevice(8 * MIB + 1536);
    await primary.write(0, noise(3 * MIB, 1));
    await primary.write(6 * MIB, noise(MIB, 2));
    await primary.write(8 * MIB, noise(1536, 3));
    const monday = await bytesOf(primary);

    const first = await replicate(primary, volume, { snapshot: 'monday' });
    expect(first).toMatchObject({ snapshot: 'monday', scannedBytes: primary.sizeBytes, writtenBytes: 4 * MIB + BLOCK });
    expect(first.metadataBytes).toBeGreaterThan(0);
    expect(volume.sizeBytes).toBe(primary.sizeBytes);
    expect(volume.mappedBytes).toBe(4 * MIB + BLOCK);

    await primary.write(BLOCK + 7, noise(10, 4));
    await primary.write(2 * MIB, new Uint8Array(MIB));
    await primary.write(7 * MIB + 4 * BLOCK, noise(2 * BLOCK, 5));
    const tuesday = await bytesOf(primary);
    const second = await replicate(primary, volume, { snapshot: 'tuesday' });
    expect(second).toMatchObject({ changedBytes: 3 * BLOCK + MIB, writtenBytes: 3 * BLOCK });
    const third = await replicate(primary, volume);
    expect(third).toMatchObject({ changedBytes: 0, writtenBytes: 0 });
    expect(third.snapshot).toMatch(/^\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ$/);

    expect(Buffer.compare(await bytesOf(volume.at('monday')), monday)).toBe(0);
    expect(Buffer.compare(await bytesOf(volume.at('tuesday')), tuesday)).toBe(0);
    const target = new MemoryDevice(primary.sizeBytes);
    expect(await restore(volume.at('monday'), target)).toMatchObject({ sizeBytes: primary.sizeBytes });
    expect(Buffer.compare(await bytesOf(target), monday)).toBe(0);
    const inPlace = await restore(volume.at('tuesday'), target);
    expect(inPlace.writtenBytes).toBe(3 * BLOCK + MIB);
    expect(Buffer.compare(await bytesOf(target), tuesday)).toBe(0);
    await pool.close();
  });

  it('goes onto a device that takes whole blocks only, and leaves what is behind the end', async () => {
    class Aligned extends MemoryDevice {
      override readonly blockSize = BLOCK;
      override read(offset: number, into: Uint8Array): Promise<void> {
        return this.#whole(into) ?? super.read(offset, into);
      }
      override write(offset: number, from: Uint8Array): Promise<void> {
        return this.#whole(from) ?? super.write(offset, from);
      }
      #whole({ length }: Uint8Array): Promise<void> | undefined {
        return length % BLOCK === 0 ? undefined : Promise.reject(new RangeError(`${length} bytes`));
      }
    }
    const pool = await StoragePool.create([new MemoryDevice('16MiB')]);
    const bytes = noise(MIB + 1536, 1);
    const volume = await pool.createVolume('disk', { size: bytes.length });
    await volume.write(0, bytes);
    const before = noise(2 * MIB, 2);
    const target = new Aligned(2 * MIB);
    await target.write(0, before);
    expect(await restore(volume, target)).toMatchObject({ sizeBytes: bytes.length, writtenBytes: bytes.length });
    before.set(bytes);
    expect(Buffer.compare(await bytesOf(target), before)).toBe(0);
    expect(await restore(volume, target)).toMatchObject({ writtenBytes: 0 });
    await pool.close();
  });

  it('follows a source that changes its size', async () => {
    const pool = await StoragePool.create([new MemoryDevice('64MiB')]);
    const volume = await pool.createVolume('disk', { size: 123 });
    for (const [index, size] of [3 * MIB, MIB + 5, 2 * MIB].entries()) {
      const primary = new MemoryDevice(size);
      await primary.write(0, noise(size, index + 1));
      await replicate(primary, volume, { snapshot: `s${index}` });
      expect(volume.sizeBytes).toBe(size);
      expect(Buffer.compare(await bytesOf(volume), await bytesOf(primary))).toBe(0);
    }
    expect(volume.at('s0').sizeBytes).toBe(3 * MIB);
    expect(Buffer.compare(await bytesOf(volume.at('s0')), noise(3 * MIB, 1))).toBe(0);
    await pool.close();
  });

  it('refuses a name that exists before anything is read', async () => {
    const pool = await StoragePool.create([new MemoryDevice('16MiB')]);
    const volume = await pool.createVolume('disk', { size: MIB });
    await volume.snapshot('taken');
    const primary = new MemoryDevice(MIB);
    primary.read = () => Promise.reject(new Error('read'));
    await expect(replicate(primary, volume, { snapshot: 'taken' })).rejects.toThrow(code('VARVE_EXISTS'));
    await pool.close();
  });

  it('stops when it is told to, keeps the last snapshot, and goes on where it stopped', async () => {
    const pool = await StoragePool.create([new MemoryDevice('64MiB')]);
    const volume = await pool.createVolume('disk');
    const primary = new MemoryDevice(8 * MIB);
    await replicate(primary, volume, { snapshot: 'empty' });
    await primary.write(0, noise(8 * MIB, 1));
    const stop = new AbortController();
    const onProgress = ({ scannedBytes }: { scannedBytes: number }): void => {
      if (scannedBytes >= 4 * MIB) stop.abort(new Error('enough'));
    };
    await expect(replicate(primary, volume, { snapshot: 'full', signal: stop.signal, onProgress })).rejects.toThrow('enough');
    expect(volume.snapshots().map((snapshot) => snapshot.name)).toEqual(['empty']);
    expect((await bytesOf(volume.at('empty'))).every((byte) => byte === 0)).toBe(true);
    const rest = await replicate(primary, volume, { snapshot: 'full' });
    expect(rest.writtenBytes).toBe(4 * MIB);
    expect(Buffer.compare(await bytesOf(volume.at('full')), noise(8 * MIB, 1))).toBe(0);
    await pool.close();
  });

  it('keeps several primaries in one volume apart', async () => {
    const pool = await StoragePool.create([new MemoryDevice('64MiB')]);
    const volume = await pool.createVolume('host', { source: 'a' });
    const [a, b] = [new MemoryDevice(MIB), new MemoryDevice(2 * MIB)];
    await a.write(0, noise(MIB, 1));
    await b.write(0, noise(2 * MIB, 2));
    await replicate(a, volume, { source: 'a', snapshot: 'a1' });
    await replicate(b, volume, { source: 'b', snapshot: 'b1' });
    expect(volume.sources().map((source) => [source.name, source.sizeBytes])).toEqual([
      ['a', MIB],
      ['b', 2 * MIB],
    ]);
    expect(Buffer.compare(await bytesOf(volume.source('b').at('b1')), noise(2 * MIB, 2))).toBe(0);
    expect(() => volume.source('a').at('b1')).toThrow(code('VARVE_NOT_FOUND'));
    await pool.close();
  });
});
