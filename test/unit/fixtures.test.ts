// Pools that earlier versions wrote (test/fixtures): each opens, has what it had, is clean, and takes a write.
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { afterAll, describe, expect, it } from 'vitest';
import { importPool, StoragePool } from '../../src/node.ts';
import { FIXTURE, stateAfter } from '../fixtures/states.ts';

const FIXTURES = fileURLToPath(new URL('../fixtures/', import.meta.url));
const directory = mkdtempSync(join(tmpdir(), 'varve-fixtures-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const archives = readdirSync(FIXTURES).filter((name) => name.endsWith('.tar.gz'));

it('there is one of the present format', () => {
  expect(archives).toContain('pool-1.0.tar.gz');
});

describe.each(archives)('%s', (name) => {
  it('opens, has what it had, is clean, and takes a write', async () => {
    const path = join(directory, name);
    await importPool(path, new Blob([gunzipSync(readFileSync(join(FIXTURES, name)))]).stream());
    for (const readOnly of [true, false]) {
      const pool = await StoragePool.open(path, { readOnly });
      expect(pool.volumes).toEqual(['disk', 'Zweite – ½']);
      expect((await pool.check()).problems).toEqual([]);
      const volume = await pool.volume('disk');
      expect(volume.snapshots().map((snapshot) => snapshot.name)).toEqual([...FIXTURE.snapshots, 'left']);
      const into = new Uint8Array(FIXTURE.sizeBytes);
      for (const [step, snapshot] of FIXTURE.snapshots.entries()) {
        await volume.at(snapshot).read(0, into);
        expect(Buffer.compare(into, stateAfter(step + 1)), snapshot).toBe(0);
      }
      await volume.read(0, into);
      expect(Buffer.compare(into, stateAfter(1)), 'rolled back').toBe(0);
      await volume.at('left').read(0, into);
      expect(Buffer.compare(into, stateAfter(FIXTURE.snapshots.length)), 'what the rollback left').toBe(0);
      const second = new Uint8Array(8192);
      await (await pool.volume('Zweite – ½')).read(0, second);
      expect(new TextDecoder().decode(second.subarray(100, 106))).toBe('second');
      if (!readOnly) {
        await volume.write(0, new Uint8Array(4096).fill(9));
        await volume.snapshot('now');
      }
      await pool.close();
    }
    const pool = await StoragePool.open(path, { readOnly: true });
    expect((await pool.check()).problems).toEqual([]);
    await pool.close();
  });
});
