// A pool that runs full: the write fails and nothing else does; after space comes, writing goes on. Through the command line.
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, statfsSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { BlockDevices, system } from '../block-devices.ts';
import { amount, BLOCK, equal, failure, FULL, json, MAIN, MIB, noise, record, SEED, varve, Workshop } from './support.ts';

const workshop = new Workshop();
afterAll(() => workshop.dispose());

interface Status {
  storageVolumes: { id: number }[];
  virtualVolumes: { snapshots: { name: string }[]; liveBytes: number }[];
}

describe('a full pool', () => {
  it(
    `refuses what does not fit, keeps every snapshot, and goes on when one is deleted (seed ${SEED})`,
    { timeout: FULL ? 3_600_000 : 240_000 },
    () => {
      const rounds = amount(1, 20);
      for (let round = 0; round < rounds; round++) {
        const pool = workshop.fresh();
        const primary = workshop.fresh();
        json('init', pool, '--volume-size', '8MiB', '--max-volumes', '3');
        const kept = new Map<string, Uint8Array>();
        let image = noise(new Uint8Array(5 * MIB), SEED + round);
        const save = (name: string): string[] => {
          writeFileSync(primary, image);
          return ['replicate', primary, `${pool}/disk`, '--snapshot', name];
        };
        json(...save('s0'));
        kept.set('s0', image);

        // Increments until there is no room for one more.
        let refused = '';
        for (let count = 1; count < 12; count++) {
          const next = image.slice();
          noise(next.subarray((count % 5) * MIB, ((count % 5) + 1) * MIB), SEED + 100 * round + count);
          noise(next.subarray(((count + 2) % 5) * MIB, (((count + 2) % 5) + 1) * MIB), SEED + 100 * round + count + 50);
          image = next;
          const name = `s${count}`;
          const child = varve(...save(name), '--json');
          if (child.status === 0) {
            kept.set(name, image);
            continue;
          }
          expect(child.status).toBe(1);
          expect(JSON.parse(child.stdout.toString())).toMatchObject({ error: { code: 'VARVE_NO_SPACE' } });
          refused = name;
          break;
        }
        expect(refused, 'the pool never ran full').not.toBe('');
        expect(kept.size).toBeGreaterThan(2);

        const verify = (): void => {
          const status = json<Status>('status', pool);
          expect(status.storageVolumes.length).toBeLessThanOrEqual(3);
          expect(status.virtualVolumes[0]?.snapshots.map((snapshot) => snapshot.name)).toEqual([...kept.keys()]);
          for (const [name, bytes] of kept) {
            const target = workshop.fresh();
            json('restore', `${pool}/disk@${name}`, target);
            expect(equal(readFileSync(target), bytes), `${name} of round ${round}`).toBe(true);
          }
          expect(json('check', pool)).toMatchObject({ clean: true });
        };
        verify();
        // Full is full, again and again, and the pool can still be opened, read and asked.
        expect(failure(...save(refused))).toBe('VARVE_NO_SPACE');
        verify();
        expect(readdirSync(pool).filter((name) => name.endsWith('.varve')).length).toBeLessThanOrEqual(3);

        // Deleting works on a full pool, and makes room.
        const names = [...kept.keys()];
        const deleted = names.slice(0, Math.max(2, names.length - 1));
        for (const name of deleted) {
          json('delete', `${pool}/disk@${name}`);
          kept.delete(name);
        }
        json(...save(refused));
        kept.set(refused, image);
        verify();
        record('full', { round, snapshots: names.length, deleted: deleted.length });
      }
    },
  );
});

describe('a full file system below the pool', () => {
  const devices = new BlockDevices();
  afterAll(() => devices.dispose());
  const small = (sizeMib: number): string => {
    const directory = devices.fresh();
    mkdirSync(directory);
    system('mount', '-t', 'tmpfs', '-o', `size=${sizeMib}m`, 'tmpfs', directory);
    devices.onDispose(() => system('umount', directory));
    return directory;
  };
  /** All of it but so many pages. */
  const fill = (directory: string, pages: number): void => {
    const { bfree, bsize } = statfsSync(directory);
    writeFileSync(join(directory, 'fill'), new Uint8Array((bfree - pages) * bsize), { flag: 'a' });
  };

  it('does not make a failure of what was done before there was no room for a checkpoint', () => {
    const directory = small(24);
    const pool = join(directory, 'pool');
    json('init', pool, '--volume-size', '16MiB');
    json('create', `${pool}/v`, '--size', '8MiB');
    expect(varveWith(noise(new Uint8Array(2 * MIB), 1), 'write', `${pool}/v`).status).toBe(0);
    const bytes = noise(new Uint8Array(BLOCK), 2);
    const ends: string[] = [];
    fill(directory, 0);
    for (let pages = 1; pages < 16; pages++) {
      truncateSync(join(directory, 'fill'), statSync(join(directory, 'fill')).size - BLOCK);
      const child = varveWith(bytes, 'write', `${pool}/v`);
      ends.push(child.status === 0 ? (child.stderr === '' ? 'done' : child.stderr) : 'refused');
      if (child.status === 0) expect(equal(varve('cat', `${pool}/v`, '--length', '4KiB').stdout, bytes)).toBe(true);
      if (ends.at(-1) === 'done') break;
    }
    expect(ends.find((end) => end !== 'done' && end !== 'refused')).toMatch(
      /^varve: note: close of the log of 'v': no space left \(write of .*: ENOSPC: .*\); all that was done is durable.*\n$/m,
    );
    expect(json('check', pool)).toMatchObject({ clean: true });
  });

  it('is what init says, and nothing is left of it', () => {
    const directory = small(4);
    fill(directory, 0);
    const device = devices.loop(16 * MIB);
    expect(failure('init', join(directory, 'a', 'pool'), '--device', device)).toBe('VARVE_NO_SPACE');
    expect(readdirSync(directory)).toEqual(['fill']);
  });

  it('is given free space back by compact', () => {
    const directory = small(32);
    const pool = join(directory, 'pool');
    const image = noise(new Uint8Array(8 * MIB), 2);
    json('init', pool, '--volume-size', '32MiB');
    json('create', `${pool}/v`, '--size', '8MiB');
    expect(varveWith(noise(new Uint8Array(8 * MIB), 1), 'write', `${pool}/v`).status).toBe(0);
    expect(varveWith(image, 'write', `${pool}/v`).status).toBe(0);
    fill(directory, 0);
    const child = varve('compact', `${pool}/v`);
    expect(child.stderr).toContain('no space left');
    expect(child.status).toBe(0);
    const { bfree, bsize } = statfsSync(directory);
    expect(bfree * bsize).toBeGreaterThan(4 * MIB);
    expect(json('check', pool)).toMatchObject({ clean: true });
    expect(varve('compact', `${pool}/v`)).toMatchObject({ status: 0, stderr: '' });
    expect(equal(varve('cat', `${pool}/v`).stdout, image)).toBe(true);
  });
});

function varveWith(input: Uint8Array, ...args: string[]): { status: number | null; stderr: string } {
  const child = spawnSync(process.execPath, [MAIN, ...args], { input });
  return { status: child.status, stderr: child.stderr.toString() };
}
