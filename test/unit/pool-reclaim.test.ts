// Space given back from under a pool: nothing that is in use is ever hit, and what is free is really gone from the disk.
import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { MemoryDevice } from '../../src/device/memory.ts';
import { StoragePool as DevicePool } from '../../src/index.ts';
import { StoragePool } from '../../src/node.ts';
import type { StorageDevice } from '../../src/device/device.ts';
import { Random } from '../../src/testing/random.ts';

const MIB = 1 << 20;
const BLOCK = 4096;
const directory = mkdtempSync(join(tmpdir(), 'varve-reclaim-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const allocated = (pool: string): number =>
  readdirSync(pool)
    .filter((name) => name.endsWith('.varve'))
    .reduce((sum, name) => sum + statSync(join(pool, name)).blocks * 512, 0);

function fill(bytes: Uint8Array, random: Random): void {
  const words = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0; at + 4 <= bytes.length; at += 4) words.setUint32(at, random.word(), true);
}

/** A device that gives garbage where it was discarded, as some do; and that remembers where. */
class Forgetful extends MemoryDevice {
  discards = 0;

  override discardSync(offset: number, length: number): void {
    this.discards++;
    this.writeSync(offset, new Uint8Array(length).fill(0xdb));
  }
}

describe('space given back when a pool is closed', () => {
  it('takes the blocks of free segments from under files, and leaves what is in use', async () => {
    const path = join(directory, 'pool');
    const random = new Random(1);
    const bytes = new Uint8Array(24 * MIB);
    fill(bytes, random);
    const pool = await StoragePool.init(path, { volumeSize: '64MiB', maxVolumes: 1 });
    const volume = await pool.createVolume('v', { size: '32MiB', policy: { mode: 'fixed' } });
    await volume.write(0, bytes);
    await volume.snapshot('kept');
    for (let round = 0; round < 2; round++) await volume.write(8 * MIB, bytes.subarray(0, 8 * MIB));
    await volume.discard(16 * MIB, 8 * MIB);
    await volume.deleteSnapshot('kept');
    await volume.compact();
    await pool.close();
    const before = allocated(path);
    await (await StoragePool.open(path, { discard: true })).close();
    const after = allocated(path);
    expect(after).toBeLessThan(before - 16 * MIB);
    expect(after).toBeLessThan(16 * MIB + 12 * MIB);
    const again = await StoragePool.open(path);
    expect((await again.check()).clean).toBe(true);
    const read = new Uint8Array(24 * MIB);
    await (await again.volume('v')).read(0, read);
    bytes.copyWithin(8 * MIB, 0, 8 * MIB);
    bytes.fill(0, 16 * MIB);
    expect(read).toEqual(bytes);
    await again.close();
  });

  it.each([
    ['single', [3, 2, 2], [1, 2, 3]],
    ['1', [6, 6], [4]],
    ['5', [4, 4, 4], [5, 6]],
    ['6', [4, 4, 4, 4], [7]],
    ['10', [4, 4, 4, 4], [8]],
  ] as const)('RAID %s: hits nothing in use, over many sessions', { timeout: 60_000 }, async (level, sizes, seeds) => {
    for (const seed of seeds) {
      const random = new Random(seed);
      const devices = sizes.map((size) => new Forgetful(`${size}MiB`));
      const raid = level === 'single' ? {} : { raid: level, stripSize: '4KiB' };
      const options = { discard: true, segmentBlocks: 16, geometry: { leafBlocks: 16, checkpointEntries: 64 }, ...raid };
      const model = new Uint8Array(2 * MIB);
      const snapshots = new Map<string, Uint8Array>();
      const pool = await DevicePool.create(devices.map(bound), options);
      await pool.createVolume('v', { size: model.length });
      await pool.close();
      for (let session = 0; session < 25; session++) {
        const open = await DevicePool.openDevices(devices.map(bound), options);
        const volume = await open.volume('v');
        for (const [name, bytes] of snapshots) {
          const read = new Uint8Array(bytes.length);
          await volume.at(name).read(0, read);
          expect(read, `seed ${seed}, session ${session}, ${name}`).toEqual(bytes);
        }
        const read = new Uint8Array(model.length);
        await volume.read(0, read);
        expect(read, `seed ${seed}, session ${session}`).toEqual(model);
        expect((await open.check()).problems, `seed ${seed}, session ${session}`).toEqual([]);
        for (let step = 0; step < 12; step++) {
          const offset = random.below(model.length / BLOCK) * BLOCK;
          const length = Math.min((1 + random.below(24)) * BLOCK, model.length - offset);
          if (random.chance(0.75)) {
            fill(model.subarray(offset, offset + length), random);
            await volume.write(offset, model.subarray(offset, offset + length));
          } else {
            model.fill(0, offset, offset + length);
            await volume.discard(offset, length);
          }
          if (random.chance(0.2)) await volume.flush();
        }
        if (random.chance(0.4)) {
          await volume.snapshot(`s${session}`);
          snapshots.set(`s${session}`, model.slice());
        }
        const [oldest] = snapshots.keys();
        if (snapshots.size > 2 && oldest !== undefined) {
          await volume.deleteSnapshot(oldest);
          snapshots.delete(oldest);
        }
        if (random.chance(0.3)) await volume.compact();
        await open.close();
      }
      expect(devices.reduce((sum, device) => sum + device.discards, 0)).toBeGreaterThan(25);
    }
  });

  it('is a note where the device cannot', async () => {
    const device = new (class extends MemoryDevice {
      override discardSync(): void {
        throw new Error('not today');
      }
    })('16MiB');
    const pool = await DevicePool.create([device], { discard: true });
    await pool.createVolume('v', { size: '4MiB' });
    await pool.close();
    expect(pool.notes.join('\n')).toMatch(/free space stays where it is: not today/);
  });
});

/** The device without its end: the pool closes what it is given. */
function bound(device: Forgetful): StorageDevice {
  return {
    sizeBytes: device.sizeBytes,
    blockSize: device.blockSize,
    supports: { ...device.supports, sync: false },
    read: (offset, into) => device.read(offset, into),
    write: (offset, from) => device.write(offset, from),
    flush: () => device.flush(),
    discard: (offset, length) => device.discard(offset, length),
    close: () => Promise.resolve(),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}
