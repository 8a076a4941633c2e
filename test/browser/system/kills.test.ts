// P1 and P2 in real browsers: the whole browser killed under write load (SIGKILL of all its processes), and the worker alone terminated, at random moments.
// Neither is a power cut, which only the simulator plays: what a dead process wrote stays in the system's cache. It is the end of the host at any instruction,
// with its handles, its locks and its half of a commit.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Random } from '../../../src/testing/random.ts';
import { amount, FULL, record, SEED, sleep } from '../../system/support.ts';
import { Browser, ENGINES, freshProfile, removeProfile, type Engine } from './browser.ts';
import type { CrashReport, CrashRequest } from './crash.worker.ts';
import { isSnapshotLost, judge, LIFE, type Life } from './history.ts';
import { Site } from './site.ts';

type Found = Extract<CrashReport, { found: unknown }>;

const KILLS = amount(3, 30);
const TERMINATIONS = amount(10, 200);

describe.each(ENGINES)('%s', (engine: Engine) => {
  let site: Site;
  let reports: CrashReport[] = [];
  beforeAll(async () => {
    site = await Site.start({ onReport: (body) => reports.push(JSON.parse(body) as CrashReport) });
  });
  afterAll(() => site.close());

  it(
    `keeps P1 and P2 when it is killed under write load, ${KILLS} times (seed ${SEED})`,
    { timeout: FULL ? 1_800_000 : 240_000 },
    async () => {
      const random = new Random(SEED);
      const profile = freshProfile();
      const seen = { flushes: 0, snapshots: 0, torn: 0 };
      let previous: (Life & { readonly snapshot: string | undefined }) | undefined;
      try {
        for (let life = 1; life <= KILLS + 1; life++) {
          const browser = await Browser.start(engine, { profile });
          reports = [];
          const last = life === KILLS + 1;
          let found: Found;
          try {
            const tab = await browser.open(site.url);
            const request: CrashRequest = { path: 'killed', seed: SEED, life, ...(last ? { only: 'look' as const } : {}) };
            found = await tab.evaluate<Found>(`tab.crash(${JSON.stringify(request)})`);
            if (!last) await sleep(50 + random.below(1500));
          } finally {
            await browser.kill();
          }
          if (previous !== undefined) {
            expect(judge(previous, found.found), `after kill ${previous.life} of ${engine}`).toBeUndefined();
            if (previous.snapshot !== undefined)
              expect(isSnapshotLost(previous.snapshot, Object.keys(found.snapshots)), previous.snapshot).toBe(false);
            for (const [name, numbers] of Object.entries(found.snapshots)) {
              const at = Number(name.slice(1));
              if (at <= previous.life * LIFE) continue;
              seen.snapshots++;
              expect(judge({ ...previous, flushed: at }, numbers), `snapshot ${name}`).toBeUndefined();
              expect(Math.max(...numbers)).toBeLessThanOrEqual(at);
            }
          }
          let flushed = 0;
          let snapshot: string | undefined;
          for (const report of reports) {
            if ('error' in report) throw new Error(report.error);
            if ('flushed' in report) {
              seen.flushes++;
              flushed = Math.max(flushed, report.flushed);
            } else if ('snapshot' in report && report.at > Number(snapshot?.slice(1) ?? 0)) snapshot = report.snapshot;
          }
          previous = { seed: SEED, life, before: found.found, flushed, snapshot };
        }
      } finally {
        removeProfile(profile);
      }
      record('browser-kills', { engine, kills: KILLS, ...seen });
      expect(seen.flushes, 'flushes that were heard of').toBeGreaterThan(0);
    },
  );

  it(
    `keeps P1 and P2 when its worker is terminated, ${TERMINATIONS} times (seed ${SEED})`,
    { timeout: FULL ? 1_800_000 : 240_000 },
    async () => {
      const browser = await Browser.start(engine);
      try {
        const tab = await browser.open(site.url);
        const result = await tab.evaluate<{ findings: string[]; flushes: number; snapshots: number; lives: number }>(
          `tab.terminations('terminated', ${SEED}, ${TERMINATIONS})`,
        );
        record('browser-terminations', { engine, terminations: result.lives, flushes: result.flushes, snapshots: result.snapshots });
        expect(result.findings).toEqual([]);
        expect(result.flushes, 'flushes that were heard of').toBeGreaterThan(0); // how many depends on the machine
      } finally {
        await browser.dispose();
      }
    },
  );
});

describe('what judges a state after a crash', () => {
  const life: Life = { seed: 7, life: 1, before: Array.from({ length: 768 }, () => 0), flushed: 0 };

  it('knows a prefix from what is none', async () => {
    const { writesOf, BLOCKS } = await import('./history.ts');
    const state = Array.from({ length: BLOCKS }, () => 0);
    const states: number[][] = [];
    for (const write of writesOf(7, 1)) {
      for (let at = 0; at < write.count; at++) {
        state[write.block + at] = write.first + at;
        states.push([...state]);
      }
      if (states.length > 3000) break;
    }
    expect(judge(life, life.before)).toBeUndefined();
    for (const n of [1, 10, 500, 2999]) expect(judge(life, states[n - 1] as number[]), `prefix of ${n}`).toBeUndefined();
    // Older than the flush.
    expect(judge({ ...life, flushed: 1_000_000 + 2000 }, states[1000] as number[])).toMatch('no prefix fits');
    expect(judge({ ...life, flushed: 1_000_000 + 1001 }, states[1000] as number[])).toBeUndefined();
    // A write lost in the middle: the block has what it had before, though later writes are there.
    const lost = [...(states[2000] as number[])];
    const victim = lost.findIndex((number) => number > 1_000_000 && number < 1_001_000);
    lost[victim] = 0;
    expect(judge(life, lost)).toMatch('no prefix fits');
    // A block of another place.
    const misdirected = [...(states[2000] as number[])];
    misdirected[5] = misdirected[700] as number;
    misdirected[700] = 1_000_001;
    expect(judge(life, misdirected)).toBeDefined();
  });
});
