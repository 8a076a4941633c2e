// The simulator: random histories on the real core, for as long as one likes, on all processors. Docs: docs/TESTING.md.
//
//   npm run simulate -- --seeds N           seeds 0 … N − 1 (default 1000); a failing seed is printed at once, and first
//     --first S                             begin at seed S; from 1000000000 on storage volumes have several members (RAID), from 4200000000 on
//                                           they are scrubbed while their segments are filled again and again
//     --plant P                             switch a planted fault on (number or name): it must be found; `--plant all` tries each
//     --verbose SEED                        one seed, with every ticket and command
//     --shrink SEED                         one seed, shrunk: prints the smallest history that fails in the same way
//     --history FILE                        a history as --shrink prints it, with every ticket and command; means the same for ever, as a seed does not
//     --workers W  --keep-going  --core FILE  --json  --no-counters
//
// Exit status 0: no promise broken and every rare path taken (with --plant: the fault was found). A run of at least 5000 seeds fails when a rare path of
// the list below was never taken: then it proves nothing about that path.
import { existsSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { parseArgs } from 'node:util';
import { makeHistory, RAID_SEEDS, readHistory, SCRUB_SEEDS, shrink, writeHistory } from '../test/model/history.ts';
import { importingMemory, Instances } from '../test/model/instances.ts';
import { runHistory, runSeed } from '../test/model/world.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
/** Seeds that a worker takes at a time. */
const BATCH = 25;
const SEEDS_FOR_COUNTERS = 5000;
/** Planted faults from here on are of storage volumes with several members. */
const PLANTS_RAID = 64;
/** It needs a segment that is freed and filled again while a scrub looks at it. */
const PLANT_HEAL_REUSED = 69;
/** Within how many seeds a planted fault must be found. */
const SEEDS_FOR_PLANT = 10_000;

/** What the simulator itself must have met. */
const REQUIRED_EVENTS = [
  'power cut',
  'kill',
  'cut inside recovery',
  'clean close',
  'read-only open after a cut',
  'snapshot read',
  'diff',
  'grown',
  'evacuation begun',
  'volume released',
  'write failed with 1',
  'flush failed with 3',
  'damage found at open',
  'damaged block refused',
  'damage found by check',
];
/** And where storage volumes have several members. */
const REQUIRED_EVENTS_RAID = [
  'power cut',
  'kill',
  'cut inside recovery',
  'clean close',
  'read-only open after a cut',
  'grown',
  'volume released',
  'member lost',
  'member faulted',
  'member back',
  'member back unnoticed',
  'rot',
  'rebuild begun',
  'rebuilt in part',
  'rebuild goes on',
  'rebuilt well',
  'scrub',
  'scrub mended',
];
/** Counters of what only storage volumes of several members have: a range, and one that came later. */
const RAID_COUNTERS = { first: 73, last: 84 };
const RAID_COUNTERS_LATER = new Set(['C_REBUILD_RESUMED']);
/** What seeds of several members need not reach: nothing is damaged there beyond what a level bears, and there is room. */
const NOT_REQUIRED_RAID = new Set(['C_NO_SPACE', 'C_PAGE_COPY_USED', 'C_CORRUPT_FOUND', 'C_READ_RETRIED']);
/** Counters of the core that random histories need not reach, and why. */
const NOT_REQUIRED: Readonly<Record<string, string>> = {
  COUNT_CHUNK_FREED: 'a part of the directory covers 1024 leaves: more than tiny spaces have',
  COUNT_IMAGE_REFUSED: 'needs a forged page: a damaged one fails its checksum before',
  C_CHECKPOINT_AT_OPEN:
    'more streams in a row that end within a stripe than random histories bring: one is kept for it (test/model/seeds.json)',
};

/** The core's names for its counters or planted faults, from the sources. */
function namesOf(prefix: string, files: readonly string[]): Map<number, string> {
  const names = new Map<number, string>();
  for (const file of files) {
    const path = `${ROOT}assembly/${file}`;
    if (!existsSync(path)) continue;
    for (const match of readFileSync(path, 'utf8').matchAll(new RegExp(`export const (${prefix}\\w+): u32 = (\\d+);`, 'g')))
      names.set(Number(match[2]), match[1] as string);
  }
  return names;
}

const counterNames = (): Map<number, string> => new Map([...namesOf('C_', ['log/counting.ts']), ...namesOf('COUNT_', ['std/counters.ts'])]);
const plantNames = (): Map<number, string> => namesOf('PLANT_', ['std/plant.ts', 'log/counting.ts']);

interface Report {
  seed: number;
  failure: string | undefined;
  step: number;
}

interface BatchResult {
  seeds: number;
  failures: Report[];
  counters: number[];
  events: [string, number][];
}

interface WorkerOptions {
  core: Uint8Array<ArrayBuffer>;
  plant: number;
}

function runBatch(instances: Instances, fresh: Instances, plant: number, first: number, count: number): BatchResult {
  const result: BatchResult = { seeds: 0, failures: [], counters: [], events: [] };
  const events = new Map<string, number>();
  for (let seed = first; seed < first + count; seed++) {
    const outcome = runSeed(instances, seed, { plant });
    result.seeds++;
    outcome.counters.forEach((value, i) => (result.counters[i] = (result.counters[i] ?? 0) + value));
    for (const [name, value] of outcome.events) events.set(name, (events.get(name) ?? 0) + value);
    if (outcome.failure === undefined) continue;
    const again = runSeed(fresh, seed, { plant });
    const note = again.failure === outcome.failure ? '' : ` (in fresh memory: ${again.failure ?? 'nothing'})`;
    result.failures.push({ seed, failure: outcome.failure + note, step: outcome.step });
  }
  result.events = [...events];
  return result;
}

interface Summary {
  seeds: number;
  failures: Report[];
  counters: number[];
  events: Map<string, number>;
  seconds: number;
}

/** Deals batches of seeds to workers, in order; stops early when told to. */
async function simulate(
  core: Uint8Array<ArrayBuffer>,
  plant: number,
  first: number,
  seeds: number,
  workers: number,
  stopAtFailure: boolean,
  progress: boolean,
): Promise<Summary> {
  const summary: Summary = { seeds: 0, failures: [], counters: [], events: new Map(), seconds: 0 };
  const started = performance.now();
  let next = first;
  let told = started;
  await Promise.all(
    Array.from({ length: workers }, async () => {
      const worker = new Worker(fileURLToPath(import.meta.url), { workerData: { core, plant } satisfies WorkerOptions });
      try {
        await new Promise<void>((resolve, reject) => {
          const deal = (): void => {
            const last = Math.min(
              first + seeds,
              stopAtFailure && summary.failures.length
                ? Math.min(...summary.failures.map((report) => report.seed))
                : Number.POSITIVE_INFINITY,
            );
            if (next >= last) return resolve();
            const count = Math.min(BATCH, first + seeds - next);
            worker.postMessage({ first: next, count });
            next += count;
          };
          worker.on('message', (result: BatchResult) => {
            summary.seeds += result.seeds;
            for (const report of result.failures) {
              if (plant === 0) console.log(`seed ${report.seed}: step ${report.step}: ${report.failure}`);
              summary.failures.push(report);
            }
            result.counters.forEach((value, i) => (summary.counters[i] = (summary.counters[i] ?? 0) + value));
            for (const [name, value] of result.events) summary.events.set(name, (summary.events.get(name) ?? 0) + value);
            const now = performance.now();
            if (progress && now - told > 10_000) {
              told = now;
              console.error(
                `${summary.seeds} of ${seeds} seeds, ${summary.failures.length} failed, ${((now - started) / summary.seeds).toFixed(2)} ms a seed`,
              );
            }
            deal();
          });
          worker.on('error', reject);
          deal();
        });
      } finally {
        await worker.terminate();
      }
    }),
  );
  summary.failures.sort((a, b) => a.seed - b.seed);
  summary.seconds = (performance.now() - started) / 1000;
  return summary;
}

function coreBytes(file: string | undefined): Uint8Array<ArrayBuffer> {
  const path = file ?? [`${ROOT}build/core.planted.wasm`, `${ROOT}build/core.wasm`].find((candidate) => existsSync(candidate));
  if (!path) {
    console.error('there is no core: npm run build:core');
    process.exit(2);
  }
  return new Uint8Array(readFileSync(path));
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      seeds: { type: 'string', default: '1000' },
      first: { type: 'string', default: '0' },
      plant: { type: 'string' },
      verbose: { type: 'string' },
      shrink: { type: 'string' },
      history: { type: 'string' },
      workers: { type: 'string' },
      core: { type: 'string' },
      'keep-going': { type: 'boolean', default: false },
      'no-counters': { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
    },
  });
  const core = coreBytes(values.core);
  const fresh = new Instances(new WebAssembly.Module(core));
  const plants = plantNames();
  plants.delete(0);
  const plantNumber = (name: string): number => {
    const found = [...plants].find(
      ([id, known]) => String(id) === name || known.toLowerCase() === `plant_${name.toLowerCase().replaceAll('-', '_')}`,
    );
    if (!found)
      throw new Error(
        `expected one of: ${[...plants.values()].map((known) => known.slice(6).toLowerCase().replaceAll('_', '-')).join(' ')}`,
      );
    return found[0];
  };
  const plant = values.plant === undefined || values.plant === 'all' ? 0 : plantNumber(values.plant);

  const told = values.history === undefined ? values.verbose : values.history;
  if (told !== undefined) {
    const history = values.history === undefined ? makeHistory(Number(told)) : readHistory(readFileSync(told, 'utf8'));
    console.log(JSON.stringify(history.setup));
    let shown = -1;
    const outcome = runHistory(fresh, history, {
      plant,
      trace: (line) => console.log(line),
      onStep: (index, step) => {
        if (index !== shown) console.log(`--- ${(shown = index)} ${JSON.stringify(step)}`);
      },
    });
    console.log(outcome.failure === undefined ? 'no promise broken' : `seed ${outcome.seed}: step ${outcome.step}: ${outcome.failure}`);
    return outcome.failure === undefined ? 0 : 1;
  }
  if (values.shrink !== undefined) {
    const history = makeHistory(Number(values.shrink));
    const smallest = shrink(history, (candidate) => runHistory(fresh, candidate, { plant }).failure);
    const outcome = runHistory(fresh, smallest, { plant });
    console.log(writeHistory(smallest, outcome.failure ?? 'does not fail'));
    console.error(`${history.steps.length} steps → ${smallest.steps.length}; step ${outcome.step}: ${outcome.failure ?? 'does not fail'}`);
    return outcome.failure === undefined ? 0 : 1;
  }

  const workers = Number(values.workers ?? availableParallelism());
  const first = Number(values.first);
  if (values.plant !== undefined) {
    const seeds = values.seeds === '1000' ? SEEDS_FOR_PLANT : Number(values.seeds);
    let missed = 0;
    for (const [id, name] of [...plants].filter(([id]) => plant === 0 || id === plant)) {
      const base = id === PLANT_HEAL_REUSED ? SCRUB_SEEDS : id >= PLANTS_RAID ? RAID_SEEDS : 0;
      const from = first < base ? base + first : first;
      const summary = await simulate(core, id, from, seeds, workers, true, false);
      const found = summary.failures[0];
      if (!found) missed++;
      console.log(
        `${name}: ${found ? `found by seed ${found.seed} after ${summary.seconds.toFixed(1)} s: step ${found.step}: ${found.failure}` : `NOT FOUND by ${seeds} seeds`}`,
      );
    }
    return missed === 0 ? 0 : 1;
  }

  const seeds = Number(values.seeds);
  const summary = await simulate(core, 0, first, seeds, workers, !values['keep-going'], true);
  const names = counterNames();
  const counters = Object.fromEntries([...names].sort(([a], [b]) => a - b).map(([id, name]) => [name, summary.counters[id] ?? 0]));
  const raid = first >= RAID_SEEDS;
  const isRequired = (id: number, name: string): boolean =>
    NOT_REQUIRED[name] === undefined &&
    (raid ? !NOT_REQUIRED_RAID.has(name) : (id < RAID_COUNTERS.first || id > RAID_COUNTERS.last) && !RAID_COUNTERS_LATER.has(name));
  const missing = [
    ...[...names].filter(([id, name]) => counters[name] === 0 && isRequired(id, name)).map(([, name]) => name),
    ...(raid ? REQUIRED_EVENTS_RAID : REQUIRED_EVENTS).filter((name) => !summary.events.has(name)),
  ];
  const complete = seeds < SEEDS_FOR_COUNTERS || values['no-counters'] || missing.length === 0;
  const report = {
    seeds: summary.seeds,
    first,
    failed: summary.failures.length,
    seconds: Math.round(summary.seconds * 10) / 10,
    millisecondsPerSeed: Math.round((summary.seconds / Math.max(1, summary.seeds)) * 100000) / 100,
    neverTaken: missing,
    counters,
    events: Object.fromEntries([...summary.events].sort(([a], [b]) => (a < b ? -1 : 1))),
    failures: summary.failures.slice(0, 20),
  };
  console.log(JSON.stringify(report, null, values.json ? undefined : 2));
  if (!complete) console.error(`rare paths that no seed took: ${missing.join(', ')}`);
  return summary.failures.length === 0 && complete ? 0 : 1;
}

if (isMainThread) process.exitCode = await main();
else {
  const { core, plant } = workerData as WorkerOptions;
  const instances = new Instances(new WebAssembly.Module(importingMemory(core)));
  const fresh = new Instances(new WebAssembly.Module(core));
  parentPort?.on('message', ({ first, count }: { first: number; count: number }) =>
    parentPort?.postMessage(runBatch(instances, fresh, plant, first, count)),
  );
}
