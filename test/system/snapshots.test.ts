// A hundred snapshots with random overwrites between them: each restores bit for bit, before and after compaction; when most are deleted, storage volumes
// come back. The reference is dumb: which version of each block each snapshot saw.
import { readdirSync } from 'node:fs';
import { afterAll, describe, expect, it } from 'vitest';
import { StoragePool } from '../../src/node.ts';
import { Random } from '../../src/testing/random.ts';
import type { VirtualVolume } from '../../src/volume/volume.ts';
import { BLOCK, equal, json, MIB, noise, record, SEED, Workshop } from './support.ts';

const workshop = new Workshop();
afterAll(() => workshop.dispose());

const SNAPSHOTS = 100;
/** The ten that stay: the first, one in the middle, the newest. */
const STAY: ReadonlySet<number> = new Set([0, 45, 92, 93, 94, 95, 96, 97, 98, 99]);
const BLOCKS = 2048;
const WRITES = 60;

interface Status {
  storageVolumes: { id: number; state: string; virtualVolume: string | null }[];
  virtualVolumes: { storageVolumes: number[] }[];
}

describe('a hundred snapshots', () => {
  it(`restore bit for bit, before and after compaction, and give storage volumes back (seed ${SEED})`, async () => {
    const random = new Random(SEED);
    const path = workshop.fresh();
    const files = (): number => readdirSync(path).filter((name) => name.endsWith('.varve')).length;
    /** Version of each block; 0: zeroes. */
    const versions = new Uint32Array(BLOCKS);
    let newest = 0;
    const kept = new Map<string, Uint32Array>();
    const content = (into: Uint8Array, block: number, version: number): Uint8Array =>
      version === 0 ? into.fill(0) : noise(into, block * 100_003 + version);

    const pool = await StoragePool.init(path, { volumeSize: '4MiB' });
    let volume = await pool.createVolume('disk', { size: BLOCKS * BLOCK });
    const expected = new Uint8Array(BLOCK);
    const verify = async (of: VirtualVolume, when: string): Promise<void> => {
      const buffer = new Uint8Array(MIB);
      for (const [name, seen] of kept) {
        const view = of.at(name);
        for (let offset = 0; offset < BLOCKS * BLOCK; offset += MIB) {
          await view.read(offset, buffer);
          for (let at = 0; at < MIB; at += BLOCK) {
            const block = (offset + at) / BLOCK;
            if (!equal(buffer.subarray(at, at + BLOCK), content(expected, block, seen[block] as number)))
              expect.fail(`${when}: block ${block} of snapshot ${name} differs`);
          }
        }
      }
    };

    const bytes = new Uint8Array(8 * BLOCK);
    for (let count = 0; count < SNAPSHOTS; count++) {
      for (let write = 0; write < WRITES; write++) {
        const length = 1 + random.below(random.chance(0.2) ? 8 : 2);
        const block = random.below(BLOCKS - length);
        if (random.chance(0.08)) {
          await volume.discard(block * BLOCK, length * BLOCK);
          versions.fill(0, block, block + length);
          continue;
        }
        for (let i = 0; i < length; i++) {
          versions[block + i] = ++newest;
          content(bytes.subarray(i * BLOCK, (i + 1) * BLOCK), block + i, newest);
        }
        await volume.write(block * BLOCK, bytes.subarray(0, length * BLOCK));
      }
      await volume.snapshot(`s${count}`);
      kept.set(`s${count}`, versions.slice());
    }
    await verify(volume, 'before compaction');
    await pool.close();
    json('compact', `${path}/disk`);
    let again = await StoragePool.open(path);
    volume = await again.volume('disk');
    await verify(volume, 'after compaction');
    await again.close();

    const before = json<Status>('status', path).virtualVolumes[0]?.storageVolumes.length ?? 0;
    const filesBefore = files();
    expect(before).toBeGreaterThan(4);
    again = await StoragePool.open(path);
    volume = await again.volume('disk');
    for (let count = 0; count < SNAPSHOTS; count++) {
      if (STAY.has(count)) continue;
      await volume.deleteSnapshot(`s${count}`);
      kept.delete(`s${count}`);
    }
    await again.close();
    json('compact', `${path}/disk`);
    const status = json<Status>('status', path);
    const after = status.virtualVolumes[0]?.storageVolumes.length ?? 0;
    expect(after, `${before} storage volumes before`).toBeLessThan(0.8 * before);
    expect(status.storageVolumes.filter((one) => one.state === 'assigned')).toHaveLength(after);
    expect(files(), `${filesBefore} files before`).toBeLessThan(filesBefore);
    again = await StoragePool.open(path, { readOnly: true });
    expect((await again.check()).problems).toEqual([]);
    await verify(await again.volume('disk'), 'after deletion');
    await again.close();
    record('snapshots', { snapshots: SNAPSHOTS, storageVolumesBefore: before, storageVolumesAfter: after });
  });
});
