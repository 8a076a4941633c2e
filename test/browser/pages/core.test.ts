// The core, the volume suite and the model in a page: everything that needs no file. The simulator cuts the power and spoils devices with the engine's own
// WebAssembly underneath, so that what an engine does differently shows.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { compileCore } from '../../../src/core/instantiate.ts';
import { Instances } from '../../model/instances.ts';
import { runSeed } from '../../model/world.ts';

import '../../unit/model.test.ts';
import '../../unit/pool.test.ts';
import '../../unit/pool-catalogue.test.ts';
import '../../unit/pool-label.test.ts';
import '../../unit/simulated-device.test.ts';
import '../../unit/volume.test.ts';

/** The one thing of Node in these suites. While they run only: who finds a `Buffer` takes the place for Node. */
class Comparing {
  static compare(a: Uint8Array, b: Uint8Array): number {
    return a.length === b.length && a.every((byte, at) => byte === b[at]) ? 0 : 1;
  }
}
const scope = globalThis as { Buffer?: unknown };
beforeAll(() => {
  scope.Buffer = Comparing;
});
afterAll(() => {
  delete scope.Buffer;
});

const SEEDS = 40;

it('compiles, and imports nothing but the texts of failed assertions', async () => {
  const names = WebAssembly.Module.imports(await compileCore()).map(({ name }) => name);
  expect(names.filter((name) => name !== 'abort')).toEqual([]);
});

it(`${SEEDS} seeds of the simulator keep every promise`, async () => {
  const instances = new Instances(await compileCore());
  const failures: string[] = [];
  for (let seed = 0; seed < SEEDS; seed++) {
    const { failure, step } = runSeed(instances, seed);
    if (failure !== undefined) failures.push(`seed ${seed}: step ${step}: ${failure}`);
  }
  expect(failures).toEqual([]);
});
