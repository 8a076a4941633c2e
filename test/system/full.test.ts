// A pool that runs full: the write fails and nothing else does; after space comes, writing goes on. Through the command line.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { afterAll, describe, expect, it } from 'vitest';
import { amount, equal, failure, FULL, json, MIB, noise, record, SEED, varve, Workshop } from './support.ts';

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
