// What clients of a pool are told when its owner changes at an awkward moment. In real browsers test/browser kills owners; here the moment can be chosen.
import { afterEach, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { connect, importPool, type PoolClient, type VolumeClient } from '../../src/opfs/client.ts';
import { OpfsPool } from '../../src/opfs/pool.ts';
import { OriginLock } from '../../src/opfs/lock.ts';
import { VarveError } from '../../src/errors.ts';
import { FakeOrigin, sleep, type FakeWorker } from './fake-opfs.ts';

const MIB = 2 ** 20;
const code = (wanted: string): Error => expect.objectContaining({ code: wanted }) as Error;
const block = (value: number): Uint8Array => new Uint8Array(4096).fill(value);

let origin: FakeOrigin;
let path = '';
let count = 0;
let clients: PoolClient[];
/** Owns the pool at first. */
let first: { readonly worker: FakeWorker; readonly pool: PoolClient };

async function join(worker?: FakeWorker): Promise<PoolClient> {
  const pool = await connect(path, worker === undefined ? {} : { worker: worker.worker, create: { volumeSize: '32MiB' } });
  clients.push(pool);
  return pool;
}

beforeEach(async () => {
  origin = new FakeOrigin();
  path = `owners-${++count}`;
  clients = [];
  const worker = await origin.newWorker();
  first = { worker, pool: await join(worker) };
  await (await first.pool.createVolume('v', { size: '16MiB' })).flush();
});

afterEach(async () => {
  origin.openMilliseconds = 0;
  origin.broken = false;
  origin.full = false;
  origin.readMilliseconds = 0;
  origin.closeFails = false;
  for (const client of clients) await client.close().catch(() => undefined); // what was lost is told there, too
  vi.unstubAllGlobals();
});

const byte = async (volume: VolumeClient, offset: number): Promise<number> => {
  const bytes = new Uint8Array(1);
  await volume.read(offset, bytes);
  return bytes[0] as number;
};

/** Something that the owner has to end before it hands over. */
function keepBusy(pool: PoolClient): void {
  origin.openMilliseconds = 300;
  void pool.createVolume('busy', { size: MIB }).catch(() => undefined);
}

/** The owner hands over, and cannot make durable what it acknowledged. */
async function lose(): Promise<void> {
  origin.broken = true;
  while (origin.openFiles > 0) await sleep(1);
  origin.broken = false;
  for (const file of origin.files.values()) file.crash();
  origin.openMilliseconds = 0;
}

describe('an owner that goes away with changes that it acknowledged', () => {
  let second: PoolClient;
  let volume: VolumeClient;

  beforeEach(async () => {
    vi.spyOn(console, 'error').mockImplementation(() => undefined); // that it cannot close is said there
    second = await join(await origin.newWorker());
    volume = await (await join()).volume('v');
  });

  const handOver = async (): Promise<void> => {
    keepBusy(second);
    await sleep(50);
    first.worker.post({ varve: 'release', path });
    await sleep(5);
  };

  it('nothing is written behind them, and nothing read as if they were there, before that was said', async () => {
    await volume.write(0, block(1));
    await handOver();
    const behind = Promise.allSettled([volume.write(4096, block(2)), volume.read(0, block(0)), volume.discard(8192, 4096)]);
    await lose();
    for (const each of await behind) expect(each).toEqual({ status: 'rejected', reason: code('VARVE_FENCED') });
    await expect(volume.write(4096, block(2))).rejects.toThrow(code('VARVE_FENCED'));
    await expect(volume.flush()).rejects.toThrow(/1 changes that were acknowledged/);
    const other = await second.volume('v');
    await other.flush();
    expect([await byte(other, 0), await byte(other, 4096)]).toEqual([0, 0]);
    await volume.write(4096, block(3));
    await volume.flush();
    expect(await byte(other, 4096)).toBe(3);
  });

  it('all flushes that are under way say so', async () => {
    await volume.write(0, block(1));
    await handOver();
    const flushes = Promise.allSettled([volume.flush(), volume.flush()]);
    await lose();
    for (const each of await flushes) expect(each).toEqual({ status: 'rejected', reason: code('VARVE_FENCED') });
    await volume.flush();
  });

  it('a snapshot that would lack them is not taken', async () => {
    await volume.write(0, block(1));
    await handOver();
    const taken = volume.snapshot('s');
    void taken.catch(() => undefined);
    await lose();
    await expect(taken).rejects.toThrow(code('VARVE_FENCED'));
    expect(await volume.snapshots()).toEqual([]);
    await volume.snapshot('s');
  });

  it('those that a snapshot made durable are not among them', async () => {
    await volume.write(0, block(1));
    await volume.snapshot('s');
    await (await second.volume('v')).write(4096, block(2)); // somebody else's
    await handOver();
    await lose();
    expect(await byte(volume, 0)).toBe(1);
    await volume.flush();
  });

  it('a write with fua that went in parts to both owners fails', async () => {
    // The hand-over begins when the first part is taken, before the second is sent.
    const post = BroadcastChannel.prototype.postMessage;
    let parts = 0;
    const spy = vi.spyOn(BroadcastChannel.prototype, 'postMessage').mockImplementation(function (
      this: BroadcastChannel,
      message: { call?: string },
    ) {
      if (message.call !== 'volume.write' || ++parts !== 2) return post.call(this, message);
      first.worker.post({ varve: 'release', path });
      setTimeout(() => post.call(this, message), 5);
    } as never);
    onTestFinished(() => spy.mockRestore());
    keepBusy(second);
    await sleep(50);
    const written = volume.write(0, new Uint8Array(8 * MIB).fill(1), { fua: true });
    void written.catch(() => undefined);
    await lose();
    await expect(written).rejects.toThrow(code('VARVE_FENCED'));
    expect(parts).toBe(2);
    expect(await byte(volume, 0).catch(() => 0)).toBe(0);
  });
});

it('changes that an owner took with it are told of at once, not when there is another owner', async () => {
  vi.spyOn(console, 'error').mockImplementation(() => undefined);
  const volume = await (await join()).volume('v');
  await volume.write(0, block(1));
  keepBusy(first.pool);
  await sleep(50);
  first.worker.post({ varve: 'release', path });
  await sleep(5);
  const flushed = volume.flush();
  const seen = expect(flushed).rejects.toThrow(/1 changes that were acknowledged/);
  await lose();
  await seen;
  first.worker.post({ varve: 'stand', path });
  await volume.flush();
});

describe('an owner that gives up', () => {
  it('lets go of the pool, also when a client went away with a call under way', async () => {
    const second = await join(await origin.newWorker());
    const third = await join();
    keepBusy(third);
    await sleep(50);
    await third.close();
    await first.pool.close();
    origin.openMilliseconds = 0;
    expect(await second.volumes()).toContain('v');
    expect(second.isOwner).toBe(true);
  });

  it('goes by the last word', async () => {
    for (const word of ['release', 'stand', 'release', 'stand', 'release']) first.worker.post({ varve: word, path });
    await sleep(500); // it may be in the middle of opening the pool
    expect(await origin.locks()).toEqual([]);
    first.worker.post({ varve: 'stand', path });
    expect(await first.pool.volumes()).toEqual(['v']);
    expect(first.pool.isOwner).toBe(true);
  });

  it('says that nothing is held only when nothing is, also while it opens the pool', async () => {
    first.worker.post({ varve: 'release', path });
    await vi.waitFor(async () => expect(await origin.locks()).toEqual([]));
    origin.openMilliseconds = 200;
    first.worker.post({ varve: 'stand', path });
    await sleep(50);
    first.worker.post({ varve: 'release', path });
    first.worker.post({ varve: 'stand', path });
    const { port1, port2 } = new MessageChannel();
    const told = new Promise<void>((resolve) => (port1.onmessage = ({ data }) => data === true && resolve()));
    first.worker.post({ varve: 'release', path, done: port2 });
    await told;
    expect([await origin.locks(), origin.openFiles]).toEqual([[], 0]);
    port1.close();
  });
});

describe('an export', () => {
  const pieces = async (pool: PoolClient): Promise<{ last: Promise<unknown> }> => {
    const reader = pool.export().getReader();
    origin.openMilliseconds = 0;
    await reader.read();
    origin.openMilliseconds = 200; // so opening the pool again, with the last piece, takes its time
    for (;;) {
      const last = reader.read();
      const done = await Promise.race([last.then((piece) => piece.done), sleep(100).then(() => 'late')]);
      if (done === 'late') return { last };
      if (done === true) throw new Error('the pool was opened again at once');
    }
  };

  it('that ends while its owner gives up leaves nothing open', async () => {
    const second = await join(await origin.newWorker());
    const { last } = await pieces(await join());
    void last.catch(() => undefined);
    first.worker.post({ varve: 'release', path });
    await sleep(3000);
    origin.openMilliseconds = 0;
    expect(await second.volumes()).toEqual(['v']);
    expect(second.isOwner).toBe(true);
  });

  it('whose reader goes with the last piece changes no owner', async () => {
    await join(await origin.newWorker());
    const reading = await join();
    const { last } = await pieces(reading);
    void last.catch(() => undefined);
    await reading.close();
    await sleep(3000);
    origin.openMilliseconds = 0;
    expect(await first.pool.volumes()).toEqual(['v']);
    expect(first.pool.isOwner).toBe(true);
  });

  it('that is asked for while its owner gives up, or whose reader has gone, holds nobody up', async () => {
    const second = await join(await origin.newWorker());
    const reading = await join();
    origin.openMilliseconds = 200;
    const failed = reading
      .export()
      .getReader()
      .closed.catch(() => 'failed');
    await sleep(50);
    await reading.close();
    expect(await failed).toBe('failed');
    const begun = performance.now();
    await first.pool.volumes();
    void (await join())
      .export()
      .getReader()
      .closed.catch(() => undefined);
    await sleep(50);
    first.worker.post({ varve: 'release', path });
    await vi.waitFor(() => second.volumes().then(() => expect(second.isOwner).toBe(true)), { timeout: 10_000 });
    expect(performance.now() - begun).toBeLessThan(15_000); // an export that nobody reads is given up after 30 s
  }, 60_000);
});

it('an export that is cancelled before it has begun holds nobody up', async () => {
  await first.pool.export().cancel();
  expect(await Promise.race([first.pool.volumes(), sleep(2000)])).toEqual(['v']);
  expect(first.pool.isOwner).toBe(true);
});

it.each(['check', 'compact'])('an export waits for a %s that is under way, and others wait for the export', async (what) => {
  const volume = await first.pool.createVolume('w', { size: '32MiB' });
  await volume.write(0, new Uint8Array(24 * MIB).fill(1));
  for (let at = 0; at < 24 * MIB; at += 131072) await volume.discard(at, 65536);
  await volume.flush();
  const other = await join();
  origin.readMilliseconds = 10;
  let ended = false;
  const called = (what === 'check' ? first.pool.check() : volume.compact()).finally(() => (ended = true));
  await sleep(50);
  expect(ended).toBe(false);
  const streams = [first.pool.export(), other.export()];
  const volumes = first.pool.volumes();
  await sleep(200); // it has heard of them
  expect(ended).toBe(false);
  origin.readMilliseconds = 0;
  await called;
  for (const stream of streams) await stream.cancel();
  expect(await volumes).toEqual(['v', 'w']);
});

it('a call that waited for an export is not begun by an owner that was frozen meanwhile, for a client that is gone', async () => {
  const before = await navigator.locks.query();
  const volume = await (await join()).volume('v');
  const { query } = navigator.locks;
  const own = (await navigator.locks.query()).held?.filter(({ name }) => before.held?.every((other) => other.name !== name));
  expect(own).toHaveLength(1);
  const reader = first.pool.export().getReader();
  await reader.read();
  const written = volume.write(0, block(2));
  void written.catch(() => undefined);
  await sleep(100); // it is held back
  const spy = vi.spyOn(navigator.locks, 'query').mockImplementation(async () => {
    const { held = [] } = await query.call(navigator.locks);
    return { held: held.filter(({ name }) => name !== own?.[0]?.name) };
  });
  onTestFinished(() => spy.mockRestore());
  // The pool is opened again, and the worker stands still over it, once.
  let reads = 0;
  Object.defineProperty(origin, 'readMilliseconds', { get: () => (++reads === 5 ? 1300 : 0), set: () => {} });
  await reader.cancel();
  expect(reads).toBeGreaterThan(5);
  expect(spy).toHaveBeenCalled();
  expect(await byte(await first.pool.volume('v'), 0)).toBe(0);
});

it('an export at whose end a file cannot be closed in order fails, and leaves the pool to others', async () => {
  await (await first.pool.createVolume('w', { size: '64MiB' })).write(0, new Uint8Array(36 * MIB).fill(1));
  const reader = first.pool.export().getReader();
  await reader.read();
  expect(origin.openFiles).toBeGreaterThan(1);
  origin.closeFails = true;
  const all = async (): Promise<void> => {
    while (!(await reader.read()).done);
  };
  await expect(all()).rejects.toThrow('InvalidStateError');
  origin.closeFails = false;
  expect(await Promise.race([first.pool.volumes(), sleep(2000)])).toEqual(['v', 'w']);
  expect(first.pool.isOwner).toBe(true);
});

it('an export for which the pool cannot be closed fails, and whoever has changes hears that they may be lost', async () => {
  vi.spyOn(console, 'error').mockImplementation(() => undefined);
  const volume = await (await join()).volume('v');
  await volume.write(0, block(1));
  origin.broken = true;
  const reader = (await join()).export().getReader();
  await expect(reader.read()).rejects.toThrow();
  origin.broken = false;
  await expect(volume.flush()).rejects.toThrow(code('VARVE_FENCED'));
  await volume.write(0, block(2));
  await volume.flush();
  expect(await byte(volume, 0)).toBe(2);
  expect(first.pool.isOwner).toBe(true);
});

it('an owner that cannot close the pool says so to the page that closes it', async () => {
  vi.spyOn(console, 'error').mockImplementation(() => undefined);
  const volume = await first.pool.volume('v');
  await volume.write(0, block(1));
  origin.broken = true;
  await expect(first.pool.close()).rejects.toThrow(code('VARVE_IO'));
  origin.broken = false;
  expect([await origin.locks(), origin.openFiles]).toEqual([[], 0]);
  for (const file of origin.files.values()) file.crash();
  expect(await byte(await (await join(await origin.newWorker())).volume('v'), 0)).toBe(0);
});

describe('a pool that is closed', () => {
  /** A worker whose end can be told from here. */
  const watched = async (post: (message: { varve: string; done?: MessagePort }, on: (message: object) => void) => void) => {
    const worker = await origin.newWorker();
    const real = worker.worker();
    const postMessage = (message: never): void => post(message, (each) => real.postMessage(each));
    const given = { ...real, postMessage, terminate: () => undefined } as unknown as Worker;
    return { worker, pool: await connect(path, { worker: () => given, patienceMs: 1500 }) };
  };

  it('says the same to each that closes it', async () => {
    vi.spyOn(console, 'error').mockImplementation(() => undefined);
    await (await first.pool.volume('v')).write(0, block(1));
    origin.broken = true;
    const closed = await Promise.allSettled([first.pool.close(), first.pool.close()]);
    for (const each of closed) expect(each).toEqual({ status: 'rejected', reason: code('VARVE_IO') });
    origin.broken = false;
  });

  it('has made durable what was acknowledged to it by another tab', async () => {
    const client = await join();
    await (await client.volume('v')).write(0, block(7));
    await client.close();
    for (const file of origin.files.values()) expect(Buffer.from(file.durable).includes(Buffer.from(block(7)))).toBe(true);
  });

  it('says that what was not flushed may be lost when its own worker does not answer, or goes away over it', async () => {
    await first.pool.close();
    const busy = await watched((message, on) => (message.varve === 'release' ? undefined : on(message)));
    await expect(busy.pool.close()).rejects.toThrow(code('VARVE_FENCED'));
    busy.worker.post({ varve: 'release', path });
    await vi.waitFor(async () => expect(await origin.locks()).toEqual([]));

    const dying = await watched((message, on) => {
      if (message.varve !== 'release') return on(message);
      message.done?.postMessage(false); // and all that it held goes, without another word
      on({ varve: 'release', path });
    });
    await expect(dying.pool.close()).rejects.toThrow(/may be lost/);
  });

  it('does not mind a volume that was deleted with what was written to it', async () => {
    const volume = await first.pool.createVolume('w', { size: '1MiB' });
    await volume.write(0, block(1));
    await first.pool.deleteVolume('w');
    await first.pool.close();
  });

  it('does not wait for an export that nobody reads on', async () => {
    const client = await join();
    await (await client.volume('v')).write(0, block(7));
    const reader = client.export().getReader();
    await reader.read();
    const closed = client.close().then(() => 'closed');
    expect(await Promise.race([closed, sleep(5000)])).toBe('closed');
    await expect(
      (async () => {
        while (!(await reader.read()).done);
      })(),
    ).rejects.toThrow(VarveError);
    expect(await byte(await first.pool.volume('v'), 0)).toBe(7);
  });

  it('has time when its page goes away meanwhile', async () => {
    await first.pool.close();
    const page = new EventTarget();
    const worker = await origin.newWorker();
    vi.stubGlobal('document', page);
    vi.stubGlobal('addEventListener', page.addEventListener.bind(page));
    const pool = await connect(path, { worker: worker.worker });
    const closing = pool.close();
    const begun = performance.now();
    page.dispatchEvent(new Event('pagehide'));
    expect(performance.now() - begun).toBeGreaterThan(200);
    await closing;
  });
});

it('there is no pool to connect to without Web Locks, and no worker is made for it', async () => {
  vi.stubGlobal('navigator', {});
  const worker = vi.fn<() => Worker>();
  await expect(connect(path, { worker })).rejects.toThrow(code('VARVE_UNSUPPORTED'));
  expect(worker).not.toHaveBeenCalled();
});

it('a log that turned read-only takes changes again when its term has lasted a while', async () => {
  vi.spyOn(console, 'error').mockImplementation(() => undefined);
  const volume = await first.pool.volume('v');
  await volume.write(0, block(1));
  origin.broken = true;
  await expect(volume.flush()).rejects.toThrow(code('VARVE_IO'));
  origin.broken = false;
  for (const file of origin.files.values()) file.crash();
  await expect(volume.write(0, block(2))).rejects.toThrow(code('VARVE_READ_ONLY'));
  await sleep(2000);
  await expect(volume.write(0, block(2))).rejects.toThrow(code('VARVE_READ_ONLY'));
  // What was acknowledged and is lost is told once, as of any owner that went.
  await vi.waitFor(() => expect(volume.flush()).rejects.toThrow(code('VARVE_FENCED')));
  await volume.write(0, block(3));
  await volume.flush();
  expect(await byte(volume, 0)).toBe(3);
}, 20_000);

it('an owner that gives up with one log failed takes nothing of the others with it', async () => {
  vi.spyOn(console, 'error').mockImplementation(() => undefined);
  const other = await join();
  const sound = await other.volume('v');
  const before = new Set(origin.files.keys());
  const failed = await other.createVolume('w', { size: '1MiB' });
  const made = Array.from(origin.files.keys()).filter((name) => !before.has(name));
  expect(made).toHaveLength(1);
  await sound.write(0, block(1));
  await failed.write(0, block(1));
  origin.files.get(made[0]!)!.broken = true;
  const second = await join(await origin.newWorker());
  first.worker.post({ varve: 'release', path });
  await vi.waitFor(async () => {
    await second.volumes();
    expect(second.isOwner).toBe(true);
  }, 5000);
  origin.files.get(made[0]!)!.broken = false;
  origin.files.get(made[0]!)!.crash();
  await expect(failed.flush()).rejects.toThrow(code('VARVE_FENCED'));
  await sound.write(4096, block(2)); // behind one that is not lost
  await sound.flush();
  expect(await byte(await second.volume('v'), 0)).toBe(1);
});

describe('a handle', () => {
  it('of a deleted volume does not reach another one of its name', async () => {
    const other = await join();
    const old = await other.volume('v');
    const view = async () => (await other.volume('v')).at('s');
    await old.snapshot('s');
    const snapshot = await view();
    await first.pool.deleteVolume('v');
    const fresh = await first.pool.createVolume('v', { size: '1MiB' });
    await fresh.snapshot('s');
    await expect(old.write(0, block(9))).rejects.toThrow(code('VARVE_NOT_FOUND'));
    await expect(snapshot.read(0, block(0))).rejects.toThrow(code('VARVE_NOT_FOUND'));
    expect(await byte(fresh, 0)).toBe(0);
  });

  it('is found by a name in any normal form', async () => {
    const other = await join();
    await first.pool.createVolume('e\u0301', { size: MIB });
    await (await other.volume('e\u0301')).write(0, block(1));
    await first.pool.deleteVolume('\u00e9');
    await first.pool.createVolume('\u00e9', { size: MIB });
    const again = await other.volume('e\u0301');
    await again.write(0, block(2));
    expect(await byte(again, 0)).toBe(2);
  });
});

describe('a browser that', () => {
  type Ask = (name: string, ...rest: [options: LockOptions, granted: LockGrantedCallback<unknown>]) => Promise<unknown>;

  /** Requests for locks go through this. */
  function meddle(how: (ask: Ask, ...request: Parameters<Ask>) => Promise<unknown>): void {
    const ask = navigator.locks.request.bind(navigator.locks) as Ask;
    const meddled = (...request: Parameters<Ask>): Promise<unknown> => how(ask, ...request);
    const spy = vi.spyOn(navigator.locks, 'request').mockImplementation(meddled as never);
    onTestFinished(() => spy.mockRestore());
  }
  const never = new Promise<never>(() => undefined);
  const isWatch = (name: string, mode?: LockMode): boolean => name.startsWith('varve:owner:') && mode === 'shared';

  it.each(['fails', 'waits for good'])('%s to tell of the end of an owner does not keep a client from the next one', async (how) => {
    let left = 1;
    meddle((ask, name, options, granted) => {
      if (!isWatch(name, options.mode) || left-- <= 0) return ask(name, options, granted);
      return how === 'fails' ? Promise.reject(new Error('InvalidStateError')) : never;
    });
    const other = await join();
    const volume = await other.volume('v');
    await volume.write(0, block(1));
    await volume.flush();
    const second = await join(await origin.newWorker());
    await first.pool.close();
    await vi.waitFor(() => second.volumes().then(() => expect(second.isOwner).toBe(true)));
    expect(await Promise.race([byte(volume, 0), sleep(2000)])).toBe(1);
  });

  it('never tells of the end of an owner does not keep a client from the next one that comes later', async () => {
    meddle((ask, name, options, granted) => (isWatch(name, options.mode) ? never : ask(name, options, granted)));
    const other = await connect(path, { patienceMs: 1500 });
    clients.push(other);
    first.worker.post({ varve: 'release', path });
    await vi.waitFor(async () => expect(await origin.locks()).toEqual([]));
    await expect(other.volumes()).rejects.toThrow(code('VARVE_LOCKED')); // the only one it knows says nothing
    first.worker.post({ varve: 'stand', path });
    await vi.waitFor(() => other.volumes().then((names) => expect(names).toEqual(['v'])), { timeout: 5000 });
  });

  const isSession = (name: string, mode?: LockMode): boolean => name.startsWith('varve:session:') && mode !== 'shared';

  it('refuses the lock of a session once is asked again', async () => {
    let asked = 0;
    meddle((ask, name, options, granted) =>
      isSession(name, options.mode) && ++asked === 1 ? Promise.reject(new Error('InvalidStateError')) : ask(name, options, granted),
    );
    expect(await (await join()).volumes()).toEqual(['v']);
    expect(asked).toBe(2);
  });

  it('gives the locks of two sessions late, and both at once, leaves one of them', async () => {
    const sessions = async (): Promise<number> =>
      ((await navigator.locks.query()).held ?? []).filter(({ name }) => name?.startsWith(`varve:session:${path}:`)).length;
    const other = await connect(path, { patienceMs: 1500 });
    clients.push(other);
    const before = await sessions();
    const late = sleep(2500);
    meddle(async (ask, name, options, granted) => {
      if (isSession(name, options.mode)) await late;
      return ask(name, options, granted);
    });
    first.worker.post({ varve: 'release', path });
    await vi.waitFor(async () => expect(await origin.locks()).toEqual([]));
    first.worker.post({ varve: 'stand', path });
    await expect(other.volumes()).rejects.toThrow(code('VARVE_LOCKED'));
    await vi.waitFor(() => Promise.all([first.pool.volumes(), other.volumes()]), { timeout: 10_000 });
    expect(await sessions()).toBe(before);
  }, 30_000);

  it('does not tell an owner that was frozen of the locks at first leaves its sessions as they are', async () => {
    const other = await join();
    const volume = await other.volume('v');
    await volume.write(0, block(1));
    const spy = vi.spyOn(navigator.locks, 'query');
    onTestFinished(() => spy.mockRestore());
    spy.mockRejectedValueOnce(new Error('InvalidStateError')).mockRejectedValueOnce(new Error('InvalidStateError'));
    for (const end = performance.now() + 1300; performance.now() < end;);
    await vi.waitFor(() => expect(spy.mock.calls.length).toBeGreaterThan(2), { timeout: 2000 });
    expect(await Promise.race([byte(volume, 0), sleep(2000)])).toBe(1);
    await volume.flush();
  });

  it('grants a lock after its time, or does not hear that it is over, has the lock back', async () => {
    const held = await OriginLock.acquire('late');
    meddle((ask, name, { mode = 'exclusive' }, granted) => ask(name, { mode }, granted));
    await expect(OriginLock.acquire('late', 'exclusive', 50)).rejects.toThrow(code('VARVE_LOCKED'));
    await held.release();
    await (await OriginLock.acquire('late', 'exclusive', 1000)).release();
  });
});

describe('a worker', () => {
  const dumb = { postMessage: () => undefined, addEventListener: () => undefined, terminate: () => undefined } as unknown as Worker;
  const settled = (call: Promise<unknown>): Promise<unknown> =>
    Promise.race([
      call.then(
        () => 'ok',
        (error: unknown) => error,
      ),
      sleep(4000).then(() => 'never'),
    ]);

  it('that does not call serve() keeps nobody waiting for good', async () => {
    expect(await settled(connect('nowhere', { worker: () => dumb, patienceMs: 1500 }))).toEqual(code('VARVE_LOCKED'));
    const imported = importPool('nowhere', new Blob(['no archive']).stream(), { worker: () => dumb, patienceMs: 1500 });
    expect(await settled(imported)).toEqual(code('VARVE_UNSUPPORTED'));
  });

  it('that was ended does not keep its client from closing', async () => {
    const second = await origin.newWorker();
    const { postMessage } = second.worker();
    let ended = false;
    const worker = { ...dumb, postMessage: (message: object) => ended || postMessage(message) } as unknown as Worker;
    const pool = await connect(path, { worker: () => worker, patienceMs: 1500 });
    ended = true;
    expect(await settled(pool.close())).toBe('ok');
    second.post({ varve: 'release', path });
  });

  /** A worker, and what throws an error in it. */
  async function throwing(): Promise<{ worker: () => Worker; fail: () => void }> {
    const listeners: ((event: object) => void)[] = [];
    const worker = (await origin.newWorker()).worker();
    const addEventListener = (_type: string, listener: (event: object) => void): void => void listeners.push(listener);
    const fail = (): void => listeners.forEach((listener) => listener({ message: 'something else in it' }));
    return { worker: () => Object.assign(worker, { addEventListener }), fail };
  }

  it('in which something else throws an error goes on, and hands over when its client closes', async () => {
    await first.pool.close();
    const { worker, fail } = await throwing();
    const pool = await connect(path, { worker });
    const volume = await pool.volume('v');
    await volume.write(0, block(7));
    fail();
    expect(await byte(volume, 0)).toBe(7);
    const closing = pool.close();
    fail();
    await closing;
    expect([await origin.locks(), origin.openFiles]).toEqual([[], 0]);
    const other = await join(await origin.newWorker());
    expect(await byte(await other.volume('v'), 0)).toBe(7);
  });

  it('that fails before it runs is ended at once, and says why', async () => {
    const listeners: ((event: object) => void)[] = [];
    const worker = { ...dumb, addEventListener: (_type: string, listener: (event: object) => void) => void listeners.push(listener) };
    const connected = connect('nowhere', { worker: () => worker as unknown as Worker, patienceMs: 60_000 });
    for (const listener of listeners) listener({ message: 'no such file' });
    expect(await settled(connected)).toEqual(code('VARVE_UNSUPPORTED'));
  });

  it('of a page that is about to be frozen gets time to give the pool up also while it opens it', async () => {
    const events = new EventTarget();
    vi.stubGlobal('document', events);
    const second = await origin.newWorker();
    vi.stubGlobal('addEventListener', () => undefined); // of the page
    await connect(path, { worker: second.worker }).then((pool) => clients.push(pool));
    const frozen = (): number => {
      const begun = performance.now();
      events.dispatchEvent(new Event('freeze'));
      return performance.now() - begun;
    };
    expect(frozen()).toBeLessThan(200); // it waits for its turn
    second.post({ varve: 'stand', path });
    origin.openMilliseconds = 200;
    await first.pool.close();
    await sleep(50);
    expect(frozen()).toBeGreaterThan(200);
    origin.openMilliseconds = 0;
    await vi.waitFor(async () => expect(await origin.locks()).toEqual([]));
  });
});

it('a large read asks for some parts at a time', async () => {
  const volume = await first.pool.createVolume('large', { size: '256MiB' });
  let asked = 0;
  let most = 0;
  const post = MessagePort.prototype.postMessage;
  const spy = vi.spyOn(MessagePort.prototype, 'postMessage').mockImplementation(function (this: MessagePort, ...args: unknown[]) {
    const { message } = args[0] as { message?: { call?: string; ok?: unknown } };
    if (message?.call === 'volume.read') most = Math.max(most, ++asked);
    if (message?.ok instanceof Uint8Array) asked--;
    post.apply(this, args as never);
  } as never);
  onTestFinished(() => spy.mockRestore());
  await volume.write(100 * MIB, block(1));
  const into = new Uint8Array(128 * MIB + 1);
  await volume.read(1, into);
  expect([most, into[100 * MIB - 1], into[100 * MIB - 2], into.indexOf(1)]).toEqual([8, 1, 0, 100 * MIB - 1]);
  await expect(volume.read(1, into, { signal: AbortSignal.abort() })).rejects.toThrow('abort');
});

const transfer = (bytes: Uint8Array): unknown => structuredClone(bytes.buffer, { transfer: [bytes.buffer as ArrayBuffer] });

it('a buffer that is transferred while its write waits for an owner fails that write, and no call behind it', async () => {
  const other = await join(await origin.newWorker());
  const volume = await other.volume('v');
  origin.openMilliseconds = 100;
  await first.pool.close();
  const bytes = block(1);
  const written = volume.write(0, bytes);
  const calls = Promise.all([volume.write(4096, block(2)), other.volumes()]);
  transfer(bytes);
  await expect(written).rejects.toThrow(/transferred while the call waited/);
  await calls;
  expect([await byte(volume, 0), await byte(volume, 4096)]).toEqual([0, 2]);
});

it('a write of several parts whose buffer is transferred under way is not acknowledged', async () => {
  const volume = await (await join()).volume('v');
  const bytes = new Uint8Array(12 * MIB).fill(1);
  const written = volume.write(0, bytes);
  await sleep(0); // the first part is on its way
  transfer(bytes);
  await expect(written).rejects.toThrow(/'v': expected the buffer to stay as it is until the call ends, its length is 0 now/);
  expect(await byte(volume, 11 * MIB)).toBe(0);
});

it('a write whose buffer is transferred when it was sent is acknowledged', async () => {
  const volume = await (await join()).volume('v');
  const bytes = block(7);
  const written = volume.write(0, bytes, { fua: true });
  await sleep(0);
  transfer(bytes);
  await written;
  expect(await byte(volume, 0)).toBe(7);
});

it('nothing is put into the buffer of a read that has failed', async () => {
  const volume = await (await join()).volume('v');
  await volume.write(0, new Uint8Array(12 * MIB).fill(1));
  // The last part fails, the others are answered later.
  const post = BroadcastChannel.prototype.postMessage;
  const spy = vi.spyOn(BroadcastChannel.prototype, 'postMessage').mockImplementation(function (
    this: BroadcastChannel,
    message: { id?: number; ok?: unknown; error?: unknown },
  ) {
    if (!(message.ok instanceof Uint8Array)) post.call(this, message);
    else if (message.ok.length < 4 * MIB) post.call(this, { id: message.id, error: { kind: 'other', message: 'no such part' } });
    else setTimeout(() => post.call(this, message), 100);
  } as never);
  onTestFinished(() => spy.mockRestore());
  const into = new Uint8Array(9 * MIB);
  await expect(volume.read(0, into)).rejects.toThrow('no such part');
  await sleep(300);
  expect(into.indexOf(1)).toBe(-1);
});

describe('a pool', () => {
  const dead = (name: string): void => void ((origin.files.get(name) as { open: boolean }).open = true);
  const members = (): string[] => [...origin.files.keys()].filter((name) => name.endsWith('.varve')).toSorted();

  beforeEach(() => first.pool.close());

  it('is deleted although the handles of a worker that was ended stay for a moment', async () => {
    const [name] = members() as [string];
    dead(name);
    setTimeout(() => (origin.files.get(name)!.open = false), 300);
    await OpfsPool.destroy(path);
    expect(origin.files.size).toBe(0);
  });

  it('of which nothing can be deleted is what it was', async () => {
    for (const name of members()) dead(name);
    await expect(OpfsPool.destroy(path)).rejects.toThrow(code('VARVE_LOCKED'));
    for (const name of members()) origin.files.get(name)!.open = false;
    expect(await (await join(await origin.newWorker())).volumes()).toEqual(['v']);
  });

  it('whose deletion was cut off is none, and makes room for another', async () => {
    const pool = await join(await origin.newWorker());
    await (await pool.createVolume('w', { size: '64MiB' })).write(0, new Uint8Array(36 * MIB).fill(1));
    await pool.close();
    expect(members().length).toBeGreaterThan(1);
    dead(members().at(-1) as string);
    await expect(OpfsPool.destroy(path)).rejects.toThrow(code('VARVE_LOCKED'));
    for (const file of origin.files.values()) file.open = false;
    await expect(connect(path, { worker: (await origin.newWorker()).worker })).rejects.toThrow(code('VARVE_NOT_FOUND'));
    expect(await (await join(await origin.newWorker())).volumes()).toEqual([]);
  });

  it('for which there is no room says so, and is deleted all the same', async () => {
    origin.full = true;
    await OpfsPool.destroy(path);
    expect(origin.files.size).toBe(0);
    await expect(join(await origin.newWorker())).rejects.toThrow(code('VARVE_NO_SPACE'));
  });
});

it('an import of a stream that somebody else reads is refused, and ends its worker', async () => {
  const stream = new Blob(['no archive']).stream();
  stream.getReader();
  const terminate = vi.fn<() => void>();
  await expect(importPool(path, stream, { worker: () => ({ terminate }) as unknown as Worker })).rejects.toThrow(TypeError);
  expect(terminate).toHaveBeenCalledOnce();
});

it.each([
  ['an object', { not: 'bytes' }],
  ['a string', 'abc'],
  ['an ArrayBuffer', new ArrayBuffer(8)],
])('a stream of %s is refused as what it is', async (_what, chunk) => {
  await first.pool.close();
  origin.files.clear();
  const { worker } = await origin.newWorker();
  const stream = new ReadableStream({ pull: (controller) => controller.enqueue(chunk) });
  const imported = importPool(path, stream as ReadableStream<Uint8Array>, { worker });
  await expect(Promise.race([imported, sleep(2000)])).rejects.toThrow(TypeError);
  expect(origin.files.size).toBe(0);
});
