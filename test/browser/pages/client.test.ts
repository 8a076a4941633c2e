// A pool from a page: through the worker of this tab, and through another client of the origin (a second connection, which has no worker of its own and so
// talks over a BroadcastChannel, as another tab does).
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { connect, importPool, type PoolClient, type VolumeClient } from '../../../src/opfs/client.ts';
import { lockName, OpfsPool } from '../../../src/opfs/pool.ts';
import { exportSnapshot, importSnapshot } from '../../../src/replication/snapshot-stream.ts';
import { deviceConformance } from '../../../src/testing/conformance.ts';
import { noise } from '../worker/check.ts';

const MIB = 1 << 20;
const path = `clients/${crypto.randomUUID()}`;
/** A lock is free a moment after its holder has said so. */
const destroyed = (at: string): Promise<void> => vi.waitFor(() => OpfsPool.destroy(at), { timeout: 5000 });
const worker = (): Worker => new Worker(new URL('../worker/storage.worker.ts', import.meta.url), { type: 'module' });
/** What takes so long at most may be held up by whatever else the machine does: a second and a third try. */
const TIMED = { retry: 2 };
let own: PoolClient;
let other: PoolClient;
let volumes = 0;

beforeAll(async () => {
  own = await connect(path, { worker, create: { volumeSize: '8MiB' } });
  other = await connect(path);
});
afterAll(async () => {
  await other?.close();
  await own?.close();
  await OpfsPool.destroy(path);
});

for (const name of ['the worker of this tab', 'the worker of another tab']) {
  deviceConformance(
    `a volume through ${name}`,
    async () => {
      const pool = name.includes('another') ? other : own;
      const volume = `v${volumes++}`;
      return {
        device: await pool.createVolume(volume, { size: '1MiB' }),
        reopen: () => pool.volume(volume),
        release: () => pool.deleteVolume(volume),
      };
    },
    { describe, it },
    { anyRange: true },
  );
}

describe('a pool from a page', () => {
  it('is owned by the worker of the tab that has one', () => {
    expect(own.isOwner).toBe(true);
    expect(other.isOwner).toBe(false);
    expect(other.id).toBe(own.id);
  });

  it('has no access handles in the page itself', async () => {
    await expect(OpfsPool.init(`${path}-page`)).rejects.toMatchObject({ code: 'VARVE_UNSUPPORTED' });
    expect(await OpfsPool.exists(`${path}-page`)).toBe(false);
  });

  it('lists, finds and deletes volumes, and says what is wrong', async () => {
    const volume = await own.createVolume('list', { size: 4096 });
    expect(await other.volumes()).toContain('list');
    expect(await other.has('list')).toBe(true);
    await expect(other.createVolume('list')).rejects.toMatchObject({ name: 'VarveError', code: 'VARVE_EXISTS' });
    await expect(other.volume('nowhere')).rejects.toMatchObject({ code: 'VARVE_NOT_FOUND', message: expect.stringContaining("'nowhere'") });
    await expect(volume.write(4096, new Uint8Array(1))).rejects.toBeInstanceOf(RangeError);
    await expect(own.createVolume('bad', { policy: { growAt: 7 } })).rejects.toBeInstanceOf(RangeError);
    await other.deleteVolume('list');
    await expect(volume.read(0, new Uint8Array(1))).rejects.toMatchObject({ code: 'VARVE_NOT_FOUND' });
  });

  it('keeps snapshots, shows what changed between them, and rolls back', async () => {
    const volume = await own.createVolume('snapshots', { size: '2MiB' });
    const through = await other.volume('snapshots');
    const first = noise(MIB, 1);
    await volume.write(0, first);
    await volume.snapshot('one');
    await through.write(8192, noise(4096, 2));
    await through.discard(65536, 65536);
    await through.snapshot('two');
    expect((await volume.snapshots()).map(({ name, createdAt }) => [name, createdAt instanceof Date])).toEqual([
      ['one', true],
      ['two', true],
    ]);
    const runs = [];
    for await (const run of through.diff('one', 'two')) runs.push(run);
    expect(runs).toEqual([
      { offset: 8192, length: 4096, kind: 'data' },
      { offset: 65536, length: 65536, kind: 'hole' },
    ]);
    const view = await through.at('one');
    const into = new Uint8Array(MIB);
    await view.read(0, into);
    expect(into).toEqual(first);
    await expect(view.write()).rejects.toMatchObject({ code: 'VARVE_READ_ONLY' });
    const kept = await volume.rollback('one', { keepAs: 'left' });
    expect(kept).toBe('left');
    await through.read(0, into);
    expect(into).toEqual(first);
    await volume.deleteSnapshot('one');
    await expect(view.read(0, into)).rejects.toMatchObject({ code: 'VARVE_NOT_FOUND' });
    expect((await volume.figures()).sizeBytes).toBe(2 * MIB);
    expect((await own.check()).problems).toEqual([]);
    await own.deleteVolume('snapshots');
  });

  it('moves more than one message holds, and leaves the buffer alone', async () => {
    const volume = await other.createVolume('large', { size: '16MiB' });
    const bytes = noise(9 * MIB, 3);
    const part = bytes.subarray(100, 100 + 8 * MIB + 7);
    await volume.write(50, part);
    await volume.flush();
    const into = new Uint8Array(part.length);
    await volume.read(50, into);
    expect(into.every((byte, at) => byte === part[at])).toBe(true);
    expect(bytes.length).toBe(9 * MIB);
    await volume.resize('20MiB');
    expect(volume.sizeBytes).toBe(20 * MIB);
    await own.deleteVolume('large');
  });

  it('an aborted call rejects with the reason', async () => {
    const volume = await own.createVolume('aborted', { size: '1MiB' });
    const control = new AbortController();
    const write = volume.write(0, noise(65536, 4), { signal: control.signal });
    control.abort(new Error('enough'));
    await expect(write).rejects.toThrow('enough');
    await expect(volume.read(0, new Uint8Array(1), { signal: control.signal })).rejects.toThrow('enough');
    await volume.flush();
    await own.deleteVolume('aborted');
  });

  it('says how much the origin keeps', async () => {
    const { quota } = await other.status();
    expect(quota?.quotaBytes).toBeGreaterThan(quota?.usageBytes ?? 0);
  });
});

describe('a pool as a stream', () => {
  const make = async (at: string): Promise<{ pool: PoolClient; bytes: Uint8Array }> => {
    const pool = await connect(at, { worker, create: { volumeSize: '4MiB' } });
    const volume = await pool.createVolume('v', { size: '2MiB' });
    const bytes = noise(MIB, 11);
    await volume.write(4096, bytes);
    await volume.snapshot('kept');
    await volume.write(0, noise(4096, 12));
    await volume.flush();
    return { pool, bytes };
  };

  it('goes to another place, while calls of others wait, and both are the same', async () => {
    const [at, copy] = [`${path}-from`, `${path}-to`];
    const { pool, bytes } = await make(at);
    const second = await connect(at);
    const exported = importPool(copy, pool.export(), { worker });
    const meanwhile = (await second.volume('v')).write(8192, noise(4096, 13));
    await exported;
    await meanwhile;
    const other_ = await connect(copy, { worker });
    const view = await (await other_.volume('v')).at('kept');
    const into = new Uint8Array(bytes.length);
    await view.read(4096, into);
    expect(into).toEqual(bytes);
    expect((await other_.check()).problems).toEqual([]);
    await expect(importPool(copy, pool.export(), { worker })).rejects.toMatchObject({ code: 'VARVE_LOCKED' });
    // An export that is given up lets the others go on.
    const reader = pool.export().getReader();
    await reader.read();
    const waiting = second.volumes();
    await reader.cancel();
    expect(await waiting).toEqual(['v']);
    for (const client of [second, pool, other_]) await client.close();
    await expect(importPool(copy, new Blob(['x']).stream(), { worker })).rejects.toMatchObject({ code: 'VARVE_EXISTS' });
    await OpfsPool.destroy(at);
    await OpfsPool.destroy(copy);
    await expect(importPool(copy, new Blob(['not a pool']).stream(), { worker })).rejects.toMatchObject({ code: 'VARVE_CORRUPT' });
    expect(await OpfsPool.exists(copy)).toBe(false);
  });

  it('a snapshot goes from one pool into another', async () => {
    const at = `${path}-snapshot`;
    const { pool, bytes } = await make(at);
    const view = await (await pool.volume('v')).at('kept');
    const target = await own.createVolume('copied', { size: 4096 });
    expect(await importSnapshot(exportSnapshot(view), target)).toBe('kept');
    const into = new Uint8Array(bytes.length);
    await (await target.at('kept')).read(4096, into);
    expect(into).toEqual(bytes);
    await own.deleteVolume('copied');
    await pool.close();
    await OpfsPool.destroy(at);
  });
});

describe('who owns a pool', () => {
  it('is the next one when the owner closes in order, and nothing acknowledged is lost', async () => {
    const at = `${path}-order`;
    const first = await connect(at, { worker, create: { volumeSize: '4MiB' } });
    const second = await connect(at, { worker });
    expect([first.isOwner, second.isOwner]).toEqual([true, false]);
    await first.createVolume('v', { size: '1MiB' });
    const volume = await second.volume('v');
    const bytes = noise(4096, 5);
    await volume.write(0, bytes); // acknowledged, not flushed
    const closing = first.close();
    // Under way while the owner changes: each is performed once, by one or by the other.
    await Promise.all(Array.from({ length: 20 }, (_, index) => volume.write(8192 + index * 4096, bytes)));
    await closing;
    await volume.flush();
    expect(second.isOwner).toBe(true);
    const into = new Uint8Array(4096);
    await volume.read(0, into);
    expect(into).toEqual(bytes);
    await second.close();
    await destroyed(at);
  });

  it('changes within two seconds when its worker is terminated, and what was not flushed is told, once', TIMED, async () => {
    const at = `${path}-crash-${crypto.randomUUID()}`;
    let killed: Worker | undefined;
    const first = await connect(at, { worker: () => (killed = worker()), create: { volumeSize: '4MiB' } });
    const second = await connect(at, { worker });
    await first.createVolume('v', { size: '1MiB' });
    const volume = await second.volume('v');
    await volume.write(0, noise(4096, 6));
    await volume.flush();
    await volume.write(4096, noise(4096, 7));
    const clean = await second.volume('v'); // a handle that has nothing to lose
    const begun = performance.now();
    killed?.terminate();
    const into = new Uint8Array(4096);
    await clean.read(0, into);
    expect(performance.now() - begun).toBeLessThan(2000);
    expect(into).toEqual(noise(4096, 6));
    await expect(volume.write(8192, into)).rejects.toMatchObject({ code: 'VARVE_FENCED' });
    await expect(volume.flush()).rejects.toMatchObject({ code: 'VARVE_FENCED', message: expect.stringContaining('1 changes') });
    await volume.read(0, into);
    await volume.flush();
    await clean.flush();
    expect(second.isOwner).toBe(true);
    await second.close();
    await destroyed(at);
  });

  it('is nobody when no tab has a worker: VARVE_LOCKED', async () => {
    await expect(connect(`${path}-nobody`, { patienceMs: 1500 })).rejects.toMatchObject({ code: 'VARVE_LOCKED' });
    await expect(connect(`${path}-nobody`, { patienceMs: 100 })).rejects.toBeInstanceOf(RangeError);
  });

  it('is whoever steals the lock, and then the next one; nothing is written meanwhile', async () => {
    const at = `${path}-stolen`;
    const pool = await connect(at, { worker, create: { volumeSize: '4MiB' }, patienceMs: 1500 });
    const volume = await pool.createVolume('v', { size: '1MiB' });
    await volume.write(0, noise(4096, 1));
    await volume.flush();
    // What is durable before the owner noticed stays; from then on nothing is.
    let durable = 1;
    const write = async (): Promise<void> => {
      await volume.write(0, noise(4096, 2));
      await volume.flush();
      durable = 2;
    };
    const refused = { code: expect.stringMatching(/^VARVE_(FENCED|LOCKED)$/) };
    await navigator.locks.request(lockName(at), { steal: true }, () =>
      vi.waitFor(() => expect(write()).rejects.toMatchObject(refused), { timeout: 10_000 }),
    );
    await volume.flush().catch(() => volume.flush()); // the owner went with a write, perhaps, and flush says so
    const into = new Uint8Array(4096);
    await volume.read(0, into);
    expect(into).toEqual(noise(4096, durable));
    await volume.write(0, noise(4096, 3));
    await volume.flush();
    await pool.close();
    await destroyed(at);
  });

  it('is nobody when its worker cannot run, and that is said at once', TIMED, async () => {
    const broken = (): Worker => new Worker(URL.createObjectURL(new Blob(['nonsense('], { type: 'text/javascript' })), { type: 'module' });
    const begun = performance.now();
    await expect(connect(`${path}-broken`, { worker: broken })).rejects.toMatchObject({ code: 'VARVE_UNSUPPORTED' });
    expect(performance.now() - begun).toBeLessThan(4000);
  });

  it('fails as the pool fails', async () => {
    await expect(connect(`${path}-missing`, { worker })).rejects.toMatchObject({ code: 'VARVE_NOT_FOUND' });
  });

  it('an open pool is not destroyed or opened beside its owner', async () => {
    await expect(OpfsPool.destroy(path)).rejects.toMatchObject({ code: 'VARVE_LOCKED' });
  });
});

it('many handles write at once through one owner', async () => {
  const volume = await own.createVolume('many', { size: '4MiB' });
  const handles: VolumeClient[] = [volume, ...(await Promise.all(Array.from({ length: 3 }, () => other.volume('many'))))];
  await Promise.all(
    handles.map(async (handle, who) => {
      for (let index = 0; index < 32; index++) {
        await handle.write((index * 4 + who) * 4096, noise(4096, who * 100 + index));
        if (index % 8 === 7) await handle.flush();
      }
    }),
  );
  const into = new Uint8Array(4096);
  for (let who = 0; who < handles.length; who++) {
    for (let index = 0; index < 32; index++) {
      await volume.read((index * 4 + who) * 4096, into);
      expect(into).toEqual(noise(4096, who * 100 + index));
    }
  }
  await own.deleteVolume('many');
});
