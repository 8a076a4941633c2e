// The core under the simulator, a little of it: `npm run simulate` goes on for as long as one likes.
import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { makeHistory, RAID_SEEDS, readHistory, SCRUB_SEEDS, type History, type Op, type Step } from './history.ts';
import { importingMemory, Instances } from './instances.ts';
import { runHistory, runSeed } from './world.ts';

const FILE = new URL('../../build/core.planted.wasm', import.meta.url);
const built = existsSync(FILE);
const module = built ? new Instances(new WebAssembly.Module(importingMemory(readFileSync(FILE)))) : undefined;
const SEEDS = Number(process.env['VARVE_SEEDS'] ?? 150);
const SMALL_FIRST = 10_000;
const SALTS = SEEDS < 100 ? 1 : 3;

interface Kept {
  readonly seeds: readonly { readonly seed: number; readonly note: string }[];
  readonly histories: readonly (History & { readonly note: string })[];
  /** Each reaches a rare path of the core that seeds do not. */
  readonly reaches: readonly (History & { readonly note: string; readonly counter: number })[];
  readonly plants: readonly { readonly plant: number; readonly name: string; readonly seed: number }[];
}
const kept = JSON.parse(readFileSync(new URL('seeds.json', import.meta.url), 'utf8')) as Kept;

function step(op: Op, rest: Partial<Step> = {}): Step {
  return { op, a: 0, at: 0, count: 8, flag: 0, wait: true, turns: 0, seed: 1, ...rest };
}

/** A bit of everything, one thing after the other. */
const SHORT: readonly Step[] = [
  step('write', { count: 80 }),
  step('write', { a: 1, at: 16, count: 24 }),
  step('flush'),
  step('snapshot', { flag: 4 }),
  step('write', { at: 8, count: 40 }),
  step('write', { a: 2, at: 3, count: 9 }),
  step('trim', { at: 24, count: 16 }),
  step('write', { at: 64, count: 8, flag: 1 }),
  step('checkpoint'),
  step('write', { at: 0, count: 64 }),
  step('rollback'),
  step('write', { at: 32, count: 24 }),
  step('flush'),
  step('compact'),
  step('resize', { a: 1, at: 100 }),
  step('deleteSnapshot'),
  step('write', { at: 8, count: 56 }),
  step('flush'),
  step('compact'),
  step('checkpoint'),
  step('write', { a: 1, at: 40, count: 16 }),
];

describe.skipIf(!built)('the core under the simulator', () => {
  test(`keeps every promise in ${SEEDS} histories`, { timeout: 120_000 }, () => {
    for (let seed = 0; seed < SEEDS; seed++) {
      const { failure, step: at } = runSeed(module, seed);
      expect(failure === undefined ? '' : `seed ${seed}: step ${at}: ${failure}`).toBe('');
    }
  });

  test(`keeps every promise in ${SEEDS} histories of storage volumes with several members`, { timeout: 240_000 }, () => {
    for (let seed = RAID_SEEDS; seed < RAID_SEEDS + SEEDS; seed++) {
      const { failure, step: at } = runSeed(module, seed);
      expect(failure === undefined ? '' : `seed ${seed}: step ${at}: ${failure}`).toBe('');
    }
  });

  test(`keeps every promise in ${SEEDS} histories in which segments are filled again while they are scrubbed`, { timeout: 240_000 }, () => {
    for (let seed = SCRUB_SEEDS; seed < SCRUB_SEEDS + SEEDS; seed++) {
      const { failure, step: at } = runSeed(module, seed);
      expect(failure === undefined ? '' : `seed ${seed}: step ${at}: ${failure}`).toBe('');
    }
  });

  test('the published core without RAID keeps them, too', { timeout: 120_000 }, () => {
    const small = new Instances(new WebAssembly.Module(readFileSync(new URL('../../build/core.wasm', import.meta.url))));
    for (let seed = SMALL_FIRST; seed < SMALL_FIRST + SEEDS / 3; seed++) {
      const { failure, step: at } = runSeed(small, seed);
      expect(failure === undefined ? '' : `seed ${seed}: step ${at}: ${failure}`).toBe('');
    }
  });

  test.each(kept.seeds)('seed $seed: $note', ({ seed }) => {
    expect(runSeed(module, seed).failure).toBeUndefined();
  });

  test.each(kept.histories)('history of seed $seed: $note', (history) => {
    expect(runHistory(module, readHistory(JSON.stringify(history))).failure).toBeUndefined();
  });

  test.each(kept.reaches)('history of seed $seed reaches what seeds do not: $note', (history) => {
    const { failure, counters } = runHistory(module, readHistory(JSON.stringify(history)));
    expect(failure).toBeUndefined();
    expect(counters[history.counter]).toBeGreaterThan(0);
  });

  test.each(kept.plants)('the planted fault $name is found by seed $seed, which finds nothing without it', ({ plant, seed }) => {
    expect(runSeed(module, seed, { plant }).failure).toBeDefined();
    expect(runSeed(module, seed).failure).toBeUndefined();
  });

  test('survives a power cut after every single command of a short history', { timeout: 120_000 }, () => {
    const { setup } = makeHistory(0);
    for (const disorder of SEEDS < 100 ? [1] : [0, 1]) {
      const history: History = {
        seed: 0,
        setup: { ...setup, disorder, trouble: 'none', segmentBlocks: 8, segments: [16, 16, 16, 16, 16], assigned: 3 },
        steps: SHORT,
      };
      const whole = runHistory(module, history);
      expect(whole.failure).toBeUndefined();
      expect(whole.commands).toBeGreaterThan(50);
      for (let salt = 0; salt < SALTS; salt++) {
        const salted = { ...history, steps: SHORT.map((other, i) => ({ ...other, seed: salt * 100 + i })) };
        for (let cutAfter = 0; cutAfter < whole.commands; cutAfter++) {
          const { failure } = runHistory(module, salted, { cutAfter });
          expect(failure === undefined ? '' : `cut after ${cutAfter}, salt ${salt}, disorder ${disorder}: ${failure}`).toBe('');
        }
      }
    }
  });
});
