// Arguments of the wrong kind, as programs without types pass them: what was expected is said where they come in.
import { expect, it } from 'vitest';
import { MemoryDevice, replicate, restore, StoragePool, type StorageDevice, type VirtualVolume } from '../../src/index.ts';

const nothing = undefined as never;

async function poolWithVolume(): Promise<{ pool: StoragePool; volume: VirtualVolume }> {
  const pool = await StoragePool.create([new MemoryDevice('16MiB')]);
  return { pool, volume: await pool.createVolume('a', { size: '1MiB' }) };
}

it('a name that is no string', async () => {
  const { pool, volume } = await poolWithVolume();
  const expected = (what: string): Error => new TypeError(`${what} name: expected a string, got undefined`);
  expect(() => volume.diff(nothing)).toThrow(expected('snapshot'));
  expect(() => volume.at(nothing)).toThrow(expected('snapshot'));
  await expect(volume.rollback(nothing)).rejects.toThrow(expected('snapshot'));
  await expect(volume.deleteSnapshot(nothing)).rejects.toThrow(expected('snapshot'));
  expect(() => volume.source(nothing)).toThrow(expected('source'));
  expect(() => pool.has(nothing)).toThrow(expected('volume'));
  expect(() => pool.policyOf(nothing)).toThrow(expected('volume'));
  await expect(pool.volume(nothing)).rejects.toThrow(expected('volume'));
  await expect(pool.deleteVolume(nothing)).rejects.toThrow(expected('volume'));
  await pool.close();
});

it('a device that is none', async () => {
  const { pool, volume } = await poolWithVolume();
  const device = new MemoryDevice('1MiB');
  const expected = (what: string, got: string): Error => new TypeError(`${what}: expected a device, got ${got}`);
  await expect(replicate(nothing, volume)).rejects.toThrow(expected('primary', 'undefined'));
  await expect(replicate('disk.img' as unknown as StorageDevice, volume)).rejects.toThrow(expected('primary', 'string'));
  await expect(replicate(device, nothing)).rejects.toThrow(expected('volume', 'undefined'));
  await expect(restore(nothing, device)).rejects.toThrow(expected('view', 'undefined'));
  await expect(restore(volume, nothing)).rejects.toThrow(expected('target', 'undefined'));
  await pool.close();
});

it('a core that is another module', async () => {
  const core = new Uint8Array([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0]); // the smallest there is
  await expect(StoragePool.create([new MemoryDevice('16MiB')], { core })).rejects.toThrow(new TypeError('core: expected a core of Varve'));
});
