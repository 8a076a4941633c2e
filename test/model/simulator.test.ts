// The simulator tests itself: on a core that keeps every promise it finds nothing, in one that breaks a promise it finds that.
import { describe, expect, test } from 'vitest';
import { makeHistory, shrink, type History } from './history.ts';
import { type Bug, makeToyCore } from './toy-core.ts';
import { runHistory } from './world.ts';

/** The toy grows no storage volumes, knows no diff, and does not see damage. */
function toyHistory(seed: number): History | undefined {
  const history = makeHistory(seed);
  if (history.setup.trouble === 'damage') return undefined;
  return { ...history, steps: history.steps.filter((step) => !['diff', 'grow', 'evacuate'].includes(step.op)) };
}

function firstFailure(bug: Bug, seeds: number): { history: History; failure: string } | undefined {
  for (let seed = 0; seed < seeds; seed++) {
    const history = toyHistory(seed);
    if (!history) continue;
    const { failure } = runHistory(undefined, history, { makeCore: () => makeToyCore(bug) });
    if (failure !== undefined) return { history, failure };
  }
  return undefined;
}

describe('the simulator', () => {
  test('makes the same history of the same seed', () => {
    expect(makeHistory(17)).toEqual(makeHistory(17));
    expect(makeHistory(17)).not.toEqual(makeHistory(18));
  });

  test('finds nothing in a core that keeps its promises', () => {
    expect(firstFailure('none', 60)).toBeUndefined();
  });

  const bugs: Bug[] = [
    'no flush',
    'flush one volume only',
    'no checksums',
    'acknowledges a failed flush',
    'snapshot by reference',
    'edges lose data',
    'forgets trims',
  ];
  // Histories in which a flush fails and the power is cut before the next one are few.
  test.each(bugs)('finds the bug: %s', { timeout: 240_000 }, (bug) => {
    expect(firstFailure(bug, 600)).toBeDefined();
  });

  test('shrinks a history to a few steps that fail in the same way', () => {
    const found = firstFailure('edges lose data', 60);
    const fails = (history: History): string | undefined =>
      runHistory(undefined, history, { makeCore: () => makeToyCore('edges lose data') }).failure;
    const smallest = shrink(found?.history as History, fails, 300);
    expect(smallest.steps.length).toBeLessThan(10);
    expect(fails(smallest)).toBeDefined();
  });
});
