// Tabs of a real browser and one pool: who owns it, what happens when the owner's tab goes away in each way that there is, and what a full quota does.
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { Browser, ENGINES, type Engine, type Tab } from './browser.ts';
import { Site } from './site.ts';

const MIB = 1 << 20;
let pools = 0;
const fresh = (): string => `pools/${pools++}`;
const call = (name: string, ...args: unknown[]): string => `tab.${name}(${args.map((arg) => JSON.stringify(arg)).join(', ')})`;
const text = (value: unknown): string => JSON.stringify(value);

let site: Site;
let isolated: Site;
beforeAll(async () => {
  site = await Site.start();
  isolated = await Site.start({ isolated: true });
});
afterAll(async () => {
  await site.close();
  await isolated.close();
});

const PREFERENCES = {
  // Tabs of one origin share a process otherwise, and would crash together.
  'dom.ipc.processCount.webIsolated': 4,
};

/** What takes two seconds at most may be held up by whatever else the machine does: a second and a third try, with fresh pools. */
const TIMED = { retry: 2 };

describe.each(ENGINES)('two tabs in %s', TIMED, (engine: Engine) => {
  let browser: Browser;
  let tabs: Tab[] = [];
  beforeAll(async () => {
    browser = await Browser.start(engine, { preferences: PREFERENCES });
  });
  afterAll(() => browser?.dispose());
  afterEach(async () => {
    for (const tab of tabs) await tab.close().catch(() => undefined); // some are closed or crashed by their test
    tabs = [];
  });
  const open = async (where = site): Promise<Tab> => {
    const tab = await browser.open(where.url);
    tabs.push(tab);
    return tab;
  };
  /** The first tab owns the pool and has made a volume; the second is its client. */
  const two = async (options: object = {}, where = site): Promise<{ path: string; first: Tab; second: Tab }> => {
    const path = fresh();
    const first = await open(where);
    expect(await first.evaluate(call('connect', path, { create: { volumeSize: '4MiB' }, ...options }))).toBe(true);
    await first.evaluate(call('create', 'v', '16MiB'));
    const second = await open(where);
    expect(await second.evaluate(call('connect', path, options))).toBe(false);
    return { path, first, second };
  };

  it('write at once, and both succeed through one owner', async () => {
    const { first, second } = await two();
    const [a, b] = await Promise.all([
      first.evaluate<string[]>(call('load', 'v', 0, 200, 1000)),
      second.evaluate<string[]>(call('load', 'v', 200, 200, 5000)),
    ]);
    expect([a, b]).toEqual([[], []]);
    expect(await first.evaluate(call('compare', 'v', 200, 200, 5000))).toEqual([]);
    expect(await second.evaluate(call('compare', 'v', 0, 200, 1000))).toEqual([]);
    expect([await first.evaluate('tab.isOwner()'), await second.evaluate('tab.isOwner()')]).toEqual([true, false]);
    expect(await second.evaluate('tab.check()')).toBe(0);
  });

  it.each(['as it closes', 'in the middle of its calls'])(
    'the other takes over within two seconds when the owner’s tab is closed, %s',
    async (when) => {
      const { first, second } = await two();
      expect(await first.evaluate(call('load', 'v', 0, 16, 100))).toEqual([]);
      expect(await second.evaluate(call('load', 'v', 16, 16, 200))).toEqual([]);
      const loading = when === 'as it closes' ? Promise.resolve([]) : second.evaluate<string[]>(call('load', 'v', 100, 400, 900));
      await first.close();
      const took = await second.evaluate<number>(call('untilWritten', 'v', 50, 300));
      expect(took).toBeLessThan(2000);
      // Each call in flight completed or failed with a typed error; nothing else is allowed.
      expect((await loading).filter((code) => code !== 'VARVE_FENCED')).toEqual([]);
      await second.evaluate(call('flush', 'v')); // may say once that something acknowledged was lost
      expect(await second.evaluate(call('flush', 'v'))).toBe('ok');
      expect(await second.evaluate('tab.isOwner()')).toBe(true);
      expect(await second.evaluate(call('compare', 'v', 0, 16, 100))).toEqual([]);
      expect(await second.evaluate(call('compare', 'v', 16, 16, 200))).toEqual([]);
      expect(await second.evaluate(call('holds', 'v', 50, 300))).toBe('ok');
      expect(await second.evaluate('tab.check()')).toBe(0);
    },
  );

  it('a third comes, the first goes, the second goes, and nothing flushed is lost', async () => {
    const { path, first, second } = await two();
    expect(await first.evaluate(call('load', 'v', 0, 8, 1))).toEqual([]);
    const third = await open();
    await third.evaluate(call('connect', path));
    await first.close();
    expect(await second.evaluate(call('load', 'v', 8, 8, 2))).toEqual([]);
    await second.close();
    expect(await third.evaluate<number>(call('untilWritten', 'v', 20, 3))).toBeLessThan(2000);
    expect(await third.evaluate(call('compare', 'v', 0, 8, 1))).toEqual([]);
    expect(await third.evaluate(call('compare', 'v', 8, 8, 2))).toEqual([]);
  });

  it('the other takes over within two seconds when the owner’s tab crashes', async () => {
    const { first, second } = await two();
    expect(await first.evaluate(call('load', 'v', 0, 16, 100))).toEqual([]);
    await first.crash();
    expect(await second.evaluate<number>(call('untilWritten', 'v', 50, 300))).toBeLessThan(2000);
    expect(await second.evaluate(call('compare', 'v', 0, 16, 100))).toEqual([]);
    expect(await second.evaluate('tab.isOwner()')).toBe(true);
  });

  it('one frozen without warning makes the others fail with VARVE_LOCKED until it thaws, and performs nothing of what failed', async () => {
    const { path, first, second } = await two({ patienceMs: 1500 });
    expect(await second.evaluate(call('load', 'v', 0, 8, 1))).toEqual([]);
    await first.evaluate('tab.deafen()');
    await first.evaluate(call('beat', path));
    await first.freeze();
    await second.evaluate(call('untilStill', path));
    expect(await second.evaluate(call('write', 'v', 30, 33))).toBe('VARVE_LOCKED');
    expect(await second.evaluate(call('flush', 'v'))).toBe('VARVE_LOCKED');
    expect(await second.evaluate('tab.isOwner()')).toBe(false);
    const third = await open();
    await expect(third.evaluate(call('connect', path, { patienceMs: 1500 }))).rejects.toThrow(/frozen|owns the pool/);
    await first.thaw();
    expect(await second.evaluate<number>(call('untilWritten', 'v', 40, 44))).toBeLessThan(2000);
    expect(await second.evaluate(call('holds', 'v', 30, 0))).toBe('ok'); // it was told that it failed, and it did not happen afterwards
    expect(await first.evaluate('tab.isOwner()')).toBe(true);
    expect(await second.evaluate(call('flush', 'v'))).toBe('ok');
    expect(await first.evaluate(call('compare', 'v', 0, 8, 1))).toEqual([]);
  });

  if (engine === 'chromium') {
    it.each(['without', 'with'])(
      'a tab that is about to be frozen releases, nothing acknowledged is lost (%s shared memory)',
      async (shared) => {
        const { first, second } = await two({}, shared === 'with' ? isolated : site);
        expect(await second.evaluate(call('write', 'v', 7, 70))).toBe('ok'); // acknowledged by the tab that freezes, not flushed
        await first.freeze();
        expect(await second.evaluate<number>(call('untilWritten', 'v', 50, 300))).toBeLessThan(2000);
        expect(await second.evaluate(call('flush', 'v'))).toBe('ok');
        expect(await second.evaluate(call('holds', 'v', 7, 70))).toBe('ok');
        expect(await second.evaluate('tab.isOwner()')).toBe(true);
        await first.thaw();
        expect(await first.evaluate(call('load', 'v', 60, 8, 400))).toEqual([]);
        expect(await first.evaluate('tab.isOwner()')).toBe(false);
        // It stands again: when the other goes, it takes over.
        await second.close();
        expect(await first.evaluate<number>(call('untilWritten', 'v', 51, 301))).toBeLessThan(2000);
        expect(await first.evaluate(call('holds', 'v', 50, 300))).toBe('ok');
      },
    );

    it('storage is persistent when the browser grants it', async () => {
      const { first } = await two();
      await browser.grantPersistence(site.origin);
      expect(await first.evaluate('tab.persist()')).toBe(true);
      expect(await first.evaluate<{ quota: { persisted: boolean } }>('tab.status()')).toMatchObject({ quota: { persisted: true } });
    });
  }
});

describe.each(ENGINES)('a quota in %s', (engine: Engine) => {
  it('is met and survived: nothing is lost, deleting frees, writing goes on', async () => {
    const preferences = { 'dom.quotaManager.temporaryStorage.fixedLimit': 64 * 1024, 'dom.quotaManager.temporaryStorage.chunkSize': 1 };
    const browser = await Browser.start(engine, { preferences });
    try {
      const tab = await browser.open(site.url);
      if (engine === 'chromium') await browser.setQuota(site.origin, 32 * MIB);
      const path = fresh();
      await tab.evaluate(call('connect', path, { create: { volumeSize: '4MiB' } }));
      await tab.evaluate(call('create', 'v', '256MiB'));
      await tab.evaluate(call('create', 'other', '1MiB'));
      expect(await tab.evaluate(call('load', 'other', 0, 16, 9))).toEqual([]);
      const filled = await tab.evaluate<{ writtenBytes: number; ended: string; damaged: number; afterDelete: string }>(
        call('fill', 'v', 128 * MIB),
      );
      expect(filled, text(filled)).toMatchObject({ ended: 'VARVE_NO_SPACE', damaged: 0, afterDelete: 'ok' });
      expect(filled.writtenBytes).toBeGreaterThan(4 * MIB);
      const status = await tab.evaluate<{ quota: { usageBytes: number }; storageVolumes: unknown[] }>('tab.status()');
      expect(status.quota.usageBytes).toBeGreaterThan(4 * MIB);
      expect(status.storageVolumes.length).toBeLessThan(16);
      expect(await tab.evaluate(call('compare', 'other', 0, 16, 9))).toEqual([]);
      expect(await tab.evaluate('tab.check()')).toBe(0);
      // A whole volume gone makes room for another.
      await tab.evaluate(call('deleteVolume', 'v'));
      await tab.evaluate(call('create', 'w', '16MiB'));
      expect(await tab.evaluate(call('load', 'w', 0, 512, 5))).toEqual([]);
      expect(await tab.evaluate(call('compare', 'w', 0, 512, 5))).toEqual([]);
    } finally {
      await browser.dispose();
    }
  });
});
