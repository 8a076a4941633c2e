// The page's side of runner.ts.
import { describe, expect, it } from 'vitest';
import type { RunnerAnswer, RunnerRequest } from './runner.ts';

/** Makes a vitest test of each test in the worker. */
export async function testsOfWorker(worker: Worker): Promise<void> {
  const ask = <T extends RunnerAnswer>(request: RunnerRequest): Promise<T> =>
    new Promise((resolve, reject) => {
      worker.onmessage = ({ data }: MessageEvent<T>) => resolve(data);
      worker.onerror = (event) => reject(new Error(event.message || 'the worker could not be loaded'));
      worker.postMessage(request);
    });
  const { list } = await ask<Extract<RunnerAnswer, { list: unknown }>>({ list: true });
  expect(list.length).toBeGreaterThan(0);
  const groups = new Map<string, { sentence: string; run: number }[]>();
  list.forEach((names, run) => {
    const group = names.slice(0, -1).join(' › ');
    groups.set(group, [...(groups.get(group) ?? []), { sentence: names.at(-1) as string, run }]);
  });
  for (const [group, sentences] of groups) {
    describe(group, () => {
      for (const { sentence, run } of sentences) {
        it(sentence, async () => {
          const { error } = await ask<Extract<RunnerAnswer, { error: unknown }>>({ run });
          if (error === null) return;
          const failure = new Error(error.message);
          failure.stack = error.stack.includes(error.message) ? error.stack : `${error.message}\n${error.stack}`;
          throw failure;
        });
      }
    });
  }
}
