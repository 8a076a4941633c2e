// A pool when something goes wrong in the middle: members that fail while a volume is made, devices that are not what their name says, callers whose own code throws.
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, describe, expect, it } from 'vitest';
import { MemoryDevice } from '../../src/device/memory.ts';
import { DirectoryPool } from '../../src/pool/directory.ts';
import { StoragePool } from '../../src/pool/pool.ts';

const MIB = 1 << 20;
const directory = mkdtempSync(join(tmpdir(), 'varve-trouble-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));
let count = 0;
const fresh = (): string => join(directory, `x${count++}`);

function file(bytes: number): string {
  const path = fresh();
  writeFileSync(path, '');
  truncateSync(path, bytes);
  return path;
}

const filled = (bytes: number, value: number): Uint8Array => new Uint8Array(bytes).fill(value);

/** Fails the writes that are named; it stays there when a pool closes it, for another one. */
class FailingDevice extends MemoryDevice {
  fails: (write: number) => boolean = () => false;
  writes = 0;

  override write(offset: number, from: Uint8Array): Promise<void> {
    return this.fails(this.writes++) ? Promise.reject(new Error('EIO')) : super.write(offset, from);
  }

  override close(): Promise<void> {
    return Promise.resolve();
  }
}

async function states(pool: StoragePool): Promise<string[]> {
  return (await pool.status()).storageVolumes.flatMap((volume) => volume.devices.map((device) => device.state));
}

describe('a member fails', () => {
  it('while a volume is made: it is out, and the volume is there', async () => {
    const devices = [new FailingDevice(16 * MIB), new FailingDevice(16 * MIB)];
    const pool = await StoragePool.create(devices, { raid: '1' });
    devices[1]!.fails = () => true;
    const volume = await pool.createVolume('v', { size: MIB });
    await volume.write(0, filled(4096, 1));
    await volume.flush();
    expect(await states(pool)).toEqual(['online', 'faulted']);
    await pool.close();
  });

  it('and another one with it, while a volume is made: either commit is there', async () => {
    const devices = Array.from({ length: 4 }, () => new FailingDevice(16 * MIB));
    const pool = await StoragePool.create(devices, { raid: '6' });
    for (const which of [1, 2]) devices[which]!.fails = () => true;
    const volume = await pool.createVolume('v', { size: MIB });
    await volume.write(0, filled(4096, 1));
    await volume.flush();
    expect(await states(pool)).toEqual(['online', 'faulted', 'faulted', 'online']);
    await pool.close();
    const again = await StoragePool.openDevices(devices);
    const bytes = new Uint8Array(4096);
    await (await again.volume('v')).read(0, bytes);
    expect(bytes).toEqual(filled(4096, 1));
    await again.close();
  });

  it('while a volume is opened that is deleted at the same time', async () => {
    const devices = [new FailingDevice(16 * MIB), new FailingDevice(16 * MIB)];
    const first = await StoragePool.create(devices, { raid: '1' });
    await first.createVolume('v', { size: MIB });
    await first.close();
    const pool = await StoragePool.openDevices(devices);
    devices[1]!.fails = () => true;
    const opening = pool.volume('v').catch(() => undefined);
    await pool.deleteVolume('v');
    await opening;
    expect(pool.volumes).toEqual([]);
    await pool.close();
  });

  it('as soon as it has taken the place of another: the pool is not said to be whole', async () => {
    const pool = await StoragePool.create([new MemoryDevice(8 * MIB), new MemoryDevice(8 * MIB)], { raid: '1' });
    const volume = await pool.createVolume('v', { size: 4 * MIB });
    await volume.write(0, filled(MIB, 3));
    await volume.flush();
    const lines = (await pool.describe()).lines.filter((line) => line.includes('device '));
    const second = lines[1]!.split('device ')[1]!.split(' ')[0]!;
    let faulted = 0;
    for (let nth = 0; nth < 12; nth++) {
      const device = new FailingDevice(8 * MIB);
      device.fails = (write) => write === nth;
      const current = nth === 0 ? second : (await memberUuids(pool))[1]!;
      const replaced = await pool.replaceMember(0, current, { device, path: null }).then(
        () => true,
        () => false,
      );
      const [, state] = await states(pool);
      if (replaced) expect(state).toBe('online');
      if (state === 'faulted') faulted++;
    }
    expect(faulted).toBeGreaterThan(0);
    await pool.replaceMember(0, (await memberUuids(pool))[1]!, { device: new MemoryDevice(8 * MIB), path: null });
    expect(await states(pool)).toEqual(['online', 'online']);
    const bytes = new Uint8Array(MIB);
    await volume.read(0, bytes);
    expect(Buffer.compare(bytes, filled(MIB, 3))).toBe(0);
    await pool.close();
  });
});

describe('a device without redundancy fails', () => {
  /** The error of what must fail. */
  const failure = (call: Promise<unknown>): Promise<Error> =>
    call.then(
      () => expect.unreachable(),
      (error: unknown) => error as Error,
    );
  const SINCE = 'it is read-only since a storage device failed; open the pool again';

  it('and every later call, the close and the status say what failed', async () => {
    const device = new FailingDevice(16 * MIB);
    const pool = await StoragePool.create([device]);
    const volume = await pool.createVolume('v', { size: 4 * MIB });
    await volume.write(0, filled(MIB, 1));
    await volume.flush();
    expect((await pool.status()).virtualVolumes[0]).not.toHaveProperty('error');
    device.fails = () => true;
    await volume.write(0, filled(MIB, 2));
    const first = await failure(volume.flush());
    expect(first).toMatchObject({ code: 'VARVE_IO', cause: { message: 'EIO' } });
    for (const call of [
      () => volume.write(0, filled(4096, 3)),
      () => volume.flush(),
      () => volume.discard(0, 4096),
      () => volume.snapshot('s'),
      () => volume.resize(8 * MIB),
    ]) {
      const later = await failure(call());
      expect(later).toMatchObject({ code: 'VARVE_READ_ONLY', message: new RegExp(`${SINCE}$`) });
      expect(later.cause).toBe(first.cause);
    }
    const bytes = new Uint8Array(MIB);
    await volume.read(0, bytes);
    expect(Buffer.compare(bytes, filled(MIB, 2))).toBe(0);
    expect((await pool.status()).virtualVolumes[0]).toMatchObject({
      mappedBytes: MIB,
      error: { code: 'VARVE_READ_ONLY', message: `write of 'v': ${SINCE} (EIO)` },
    });
    const closing = await failure(pool.close());
    expect(closing).toMatchObject({ code: 'VARVE_IO', message: new RegExp(`${SINCE}$`) });
    expect(closing.cause).toBe(first.cause);
  });

  it('in the background: the note and the first call that is refused say what failed', async () => {
    const device = new FailingDevice(64 * MIB);
    const pool = await StoragePool.create([device], { geometry: { checkpointEntries: 256 } });
    const volume = await pool.createVolume('v', { size: 16 * MIB });
    await volume.write(0, filled(4 * MIB, 1));
    await volume.flush();
    device.fails = () => true;
    let refused: unknown;
    for (let round = 0; refused === undefined && round < 1000; round++) {
      refused = await volume.write((round % 16) * MIB, filled(MIB, round)).catch((error: unknown) => error);
      await sleep(1);
    }
    expect(refused).toMatchObject({ code: 'VARVE_READ_ONLY', cause: { message: 'EIO' } });
    expect(pool.notes[0]).toMatch(/^volume 'v': background .* of the log: .* \(EIO\)$/);
    await expect(pool.close()).rejects.toMatchObject({ code: 'VARVE_IO', cause: { message: 'EIO' } });
  });
});

async function memberUuids(pool: StoragePool): Promise<string[]> {
  const text = (await pool.describe()).lines.join('\n');
  return [...text.matchAll(/device ([0-9a-f-]{36})/g)].map((match) => match[1]!);
}

describe('a snapshot that is deleted', () => {
  it('is not read as holes while that becomes durable', async () => {
    const pool = await DirectoryPool.init(fresh(), { volumeSize: '64MiB' });
    const volume = await pool.createVolume('v', { size: MIB });
    let refused = 0;
    for (let round = 0; round < 20; round++) {
      await volume.write(0, filled(MIB, 1));
      await volume.snapshot('s');
      await volume.write(0, filled(MIB, 2));
      await volume.flush();
      const view = volume.at('s');
      const deleting = volume.deleteSnapshot('s');
      const bytes = filled(MIB, 0xee);
      if (round % 2 === 1) await sleep(0);
      await view.read(0, bytes).then(
        () => expect(Buffer.compare(bytes, filled(MIB, 1))).toBe(0),
        (error: unknown) => {
          refused++;
          expect(error).toMatchObject({ code: 'VARVE_NOT_FOUND' });
        },
      );
      await deleting;
    }
    expect(refused).toBeGreaterThan(0);
    await pool.close();
  });

  it('is not read as holes by a read that was under way', async () => {
    class Slow extends MemoryDevice {
      slow = false;
      override async read(offset: number, into: Uint8Array): Promise<void> {
        if (this.slow) await sleep(4);
        return super.read(offset, into);
      }
    }
    const device = new Slow(128 * MIB);
    const pool = await StoragePool.create([device]);
    const volume = await pool.createVolume('v', { size: 32 * MIB });
    let refused = 0;
    for (let delay = 0; delay < 5; delay++) {
      await volume.write(0, filled(16 * MIB, 1));
      await volume.snapshot('s');
      await volume.write(0, filled(16 * MIB, 2));
      await volume.flush();
      device.slow = true;
      const bytes = filled(16 * MIB, 0xee);
      const reading = volume
        .at('s')
        .read(0, bytes)
        .then(
          () => expect(Buffer.compare(bytes, filled(16 * MIB, 1))).toBe(0),
          (error: unknown) => {
            refused++;
            expect(error).toMatchObject({ code: 'VARVE_NOT_FOUND' });
          },
        );
      await sleep(delay);
      await volume.deleteSnapshot('s');
      await reading;
      device.slow = false;
    }
    expect(refused).toBeGreaterThan(0);
    await pool.close();
  });

  it('does not keep writes from a volume that is rolled back meanwhile', async () => {
    const pool = await DirectoryPool.init(fresh(), { volumeSize: '64MiB' });
    const volume = await pool.createVolume('v', { size: MIB });
    await volume.write(0, filled(MIB, 1));
    await volume.snapshot('s');
    for (let round = 0; round < 10; round++) {
      const rolling = volume.rollback('s');
      for (let turn = 0; turn < round; turn++) await Promise.resolve();
      await volume.write(0, filled(4096, round));
      await rolling;
      await volume.flush();
    }
    await pool.close();
  });
});

describe('callers', () => {
  it('whose onProgress throws end their scrub, and nothing else', async () => {
    const pool = await StoragePool.create([new MemoryDevice(8 * MIB), new MemoryDevice(8 * MIB)], { raid: '1' });
    const volume = await pool.createVolume('v', { size: 4 * MIB });
    await volume.write(0, filled(MIB, 3));
    await volume.flush();
    await volume.write(0, filled(4096, 9));
    const scrub = pool.scrub({
      onProgress: () => {
        throw new Error('of the caller');
      },
    });
    await expect(scrub).rejects.toThrow('of the caller');
    await volume.flush();
    expect(await pool.scrub()).toMatchObject({ clean: true });
    await pool.close();
  });
});

describe('devices', () => {
  it('of two copies of a pool’s directory have one writer', async () => {
    const device = file(8 * MIB);
    const [one, two] = [fresh(), fresh()];
    await (await DirectoryPool.init(one, { devices: [device] })).close();
    cpSync(one, two, { recursive: true });
    const pool = await DirectoryPool.open(one, { devices: [device] });
    await expect(DirectoryPool.open(two, { devices: [device] })).rejects.toMatchObject({ code: 'VARVE_LOCKED' });
    await expect(DirectoryPool.init(fresh(), { devices: [device], force: true })).rejects.toMatchObject({ code: 'VARVE_LOCKED' });
    await pool.close();
    await (await DirectoryPool.open(two, { devices: [device] })).close();
  });

  it('that stand where a member stood are not overwritten unless forced', async () => {
    const [one, two] = [file(8 * MIB), file(8 * MIB)];
    const path = fresh();
    await (await DirectoryPool.init(path, { devices: [one, two], raid: '1' })).close();
    const table = filled(8 * MIB, 0x5a);
    table.set([0x55, 0xaa], 510);
    writeFileSync(two, table);
    const pool = await DirectoryPool.open(path);
    await expect(pool.replaceDevice(0, two, two)).rejects.toMatchObject({ code: 'VARVE_EXISTS' });
    await expect(pool.addDevices([one], { force: true })).rejects.toMatchObject({ code: 'VARVE_EXISTS' });
    expect(Buffer.compare(readFileSync(two), table)).toBe(0);
    await pool.replaceDevice(0, two, two, { force: true });
    expect(await states(pool)).toEqual(['online', 'online']);
    // A living one is what the pool has open there.
    await pool.replaceDevice(0, two, two);
    expect(await states(pool)).toEqual(['online', 'online']);
    await pool.close();
  });

  it('that became a spare stay open when a volume cannot be opened', async () => {
    const [one, two] = [file(4 * MIB), file(4 * MIB)];
    const path = fresh();
    let pool = await DirectoryPool.init(path, { devices: [one, two] });
    await pool.createVolume('one', { size: MIB });
    await pool.createVolume('two', { size: MIB });
    await pool.close();
    renameSync(two, `${two}.away`);
    pool = await DirectoryPool.open(path);
    await pool.addDevices([file(4 * MIB)]);
    expect(await pool.addSpareDevice(file(4 * MIB))).toBe(3);
    await pool.createVolume('three', { size: MIB });
    await pool.close();
  });

  it('that are being filled when the pool is closed go on when it is opened', async () => {
    const path = fresh();
    const fill = { rebuildPartBytes: 4 * MIB };
    const [one, two, three] = [file(96 * MIB), file(96 * MIB), file(96 * MIB)];
    let pool = await DirectoryPool.init(path, { devices: [one, two], raid: '1', ...fill });
    const volume = await pool.createVolume('v', { size: 32 * MIB });
    for (let at = 0; at < 28; at++) await volume.write(at * MIB, filled(MIB, at + 1));
    await volume.flush();
    let closing: Promise<void> | undefined;
    const replacing = pool.replaceDevice(0, two, three, {
      onProgress: (done) => {
        if (done > 4) closing ??= sleep(0).then(() => pool.close());
      },
    });
    await expect(replacing).rejects.toThrow();
    await closing;
    pool = await DirectoryPool.open(path, fill);
    await pool.volume('v');
    for (let turn = 0; turn < 200 && (await states(pool))[1] !== 'online'; turn++) await sleep(50);
    expect(await states(pool)).toEqual(['online', 'online']);
    await pool.close();
  });

  it('made for a member that could not be replaced are deleted again', async () => {
    const path = fresh();
    const pool = await DirectoryPool.init(path, { volumeSize: '16MiB' });
    await pool.createVolume('v', { size: MIB });
    const before = readdirSync(path).toSorted();
    const [member] = before.filter((name) => name.endsWith('.varve'));
    await expect(pool.replaceDevice(0, join(path, member!), undefined)).rejects.toThrow();
    expect(readdirSync(path).toSorted()).toEqual(before);
    expect(existsSync(join(path, member!))).toBe(true);
    await pool.close();
  });
});

it('takes the storage volumes that are free before it counts those that it may make', async () => {
  const pool = await DirectoryPool.init(fresh(), { volumeSize: '8MiB', maxVolumes: 2 });
  await pool.createVolume('v', { size: MIB, policy: { minVolumes: 2 } });
  await pool.close();
});
