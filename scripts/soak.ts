// The whole counts, for hours on two cores: what the samples in `npm test` stand for. Results go to docs/soak.json, part by part.
//
//   npm run soak                              everything that is not done yet for this core
//   npm run soak -- --only seeds,plants       some parts: seeds members plants kills flips fuzz full snapshots raid browsers
//   npm run soak -- --seeds 20000             fewer seeds (100000)
//   npm run soak -- --again                   from the start
//
// Seeds are done in chunks and the file is written after each, so that it can be stopped at any time and goes on where it was; a core that changed starts
// anew. Exit status 1 when anything was found. Docs: docs/TESTING.md.
import { execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { RAID_SEEDS } from '../test/model/history.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const RESULT = join(ROOT, 'docs', 'soak.json');
const SEEDS_CHUNK = 5000;
/** Parts that are tests, run with the whole counts. */
const TESTS = ['kills', 'flips', 'fuzz', 'full', 'snapshots', 'raid'] as const;
/** Parts whose tests take long, each some minutes to half an hour: every one is a run of its own. */
const APART: Readonly<Record<string, readonly string[]>> = {
  fuzz: [
    'logs and core\\W+never',
    'logs and core\\.checked\\W+never',
    'labels and catalogue frames',
    'the checks in the decoders',
    'forged pools',
  ],
  flips: ['tells of a flip in any byte', 'does not mind a flip', 'restores what was there'],
};
/** The tests of part `browsers`, each some minutes: by engine and by what it is that they kill. */
const BROWSER_TESTS = ['chromium', 'firefox'].flatMap((engine) =>
  ['it is', ...[1, 2, 3, 4].map((round) => `its worker is .*round ${round}`)].map((victim) => `${engine}.* keeps P1 and P2 when ${victim}`),
);
const PARTS = ['seeds', 'members', 'plants', ...TESTS, 'browsers'] as const;
type Part = (typeof PARTS)[number];

interface Sum {
  first: number;
  count: number;
  failed: number;
  seconds: number;
}

interface Soak {
  /** Of the core: another one makes the results worth nothing. */
  core: string;
  commit: string;
  date: string;
  machine: string;
  /** Histories of the simulator without a planted fault. */
  seeds: Sum;
  /** The same of storage volumes with several members. */
  members: Sum;
  /** The core's rare paths and the simulator's own events, summed over all seeds. */
  counters: Record<string, number>;
  plants: Record<string, { foundAtSeed: number | null }>;
  /** What the tests recorded: figures of each, and how it ended. */
  tests: Record<string, { passed: boolean; figures: unknown[] }>;
  /** What was found: none is to be left here. */
  findings: string[];
}

interface Simulated {
  seeds: number;
  failed: number;
  seconds: number;
  counters: Record<string, number>;
  events: Record<string, number>;
  failures: { seed: number; step: number; failure: string }[];
}

const { values } = parseArgs({
  options: {
    only: { type: 'string', default: PARTS.join(',') },
    seeds: { type: 'string', default: '100000' },
    first: { type: 'string', default: '0' },
    again: { type: 'boolean', default: false },
  },
});
const parts = values.only.split(',') as Part[];
for (const part of parts) if (!PARTS.includes(part)) throw new Error(`--only: expected some of ${PARTS.join(' ')}, got ${part}`);

const environment = { ...process.env, PATH: [join(ROOT, 'node_modules', '.bin'), process.env['PATH'] ?? ''].join(delimiter) };

/** Runs a program of this project; answers its status and its output, which is shown as it comes when `show` is set. */
function run(
  args: readonly string[],
  extra: Readonly<Record<string, string>> = {},
  show = false,
): Promise<{ status: number; output: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, args, { cwd: ROOT, env: { ...environment, ...extra }, stdio: ['ignore', 'pipe', 'inherit'] });
    let output = '';
    child.stdout.on('data', (bytes: Buffer) => {
      output += bytes.toString();
      if (show) process.stdout.write(bytes);
    });
    child.once('error', reject);
    child.once('exit', (status) => resolve({ status: status ?? 1, output }));
  });
}

function git(...args: string[]): string {
  return execFileSync('git', args, { cwd: ROOT, encoding: 'utf8' }).trim();
}

function coreHash(): string {
  const hash = createHash('sha256');
  for (const name of ['core', 'core.raid', 'core.planted']) hash.update(readFileSync(join(ROOT, 'build', `${name}.wasm`)));
  return hash.digest('hex').slice(0, 16);
}

function blank(): Soak {
  return {
    core: coreHash(),
    commit: '',
    date: '',
    machine: `${availableParallelism()} × ${cpus()[0]?.model ?? 'unknown'}, Node ${process.versions.node}`,
    seeds: { first: Number(values.first), count: 0, failed: 0, seconds: 0 },
    members: { first: RAID_SEEDS + Number(values.first), count: 0, failed: 0, seconds: 0 },
    counters: {},
    plants: {},
    tests: {},
    findings: [],
  };
}

function load(): Soak {
  if (values.again || !existsSync(RESULT)) return blank();
  const soak = JSON.parse(readFileSync(RESULT, 'utf8')) as Soak;
  if (soak.core === coreHash()) return soak;
  console.log('the core is not the one of docs/soak.json: everything anew');
  return blank();
}

function save(soak: Soak): void {
  soak.commit = `${git('rev-parse', 'HEAD')}${git('status', '--porcelain', '--', 'assembly', 'src', 'test') === '' ? '' : ' and what was not committed'}`;
  soak.date = new Date().toISOString().slice(0, 10);
  writeFileSync(`${RESULT}.new`, `${JSON.stringify(soak, null, 2)}\n`);
  renameSync(`${RESULT}.new`, RESULT);
}

async function seeds(soak: Soak, part: 'seeds' | 'members'): Promise<void> {
  const sum = soak[part];
  const wanted = Number(values.seeds);
  while (sum.count < wanted) {
    const first = sum.first + sum.count;
    const count = Math.min(SEEDS_CHUNK, wanted - sum.count);
    const { output } = await run([
      'scripts/simulate.ts',
      '--seeds',
      String(count),
      '--first',
      String(first),
      '--keep-going',
      '--no-counters',
      '--json',
    ]);
    const line = output.trimEnd().split('\n').at(-1) ?? '';
    if (!line.startsWith('{')) throw new Error(`the simulator ended without a report: ${output.slice(-500)}`);
    const report = JSON.parse(line) as Simulated;
    sum.count += report.seeds;
    sum.failed += report.failed;
    sum.seconds += report.seconds;
    for (const [name, value] of [...Object.entries(report.counters), ...Object.entries(report.events)])
      soak.counters[name] = (soak.counters[name] ?? 0) + value;
    for (const { seed, step, failure } of report.failures) find(`seed ${seed}: step ${step}: ${failure}`);
    save(soak);
    console.log(`${part}: ${sum.count} of ${wanted}, ${sum.failed} failed, ${Math.round(sum.seconds)} s`);
  }
}

async function plants(soak: Soak): Promise<void> {
  forget(/^PLANT_/);
  const { output } = await run(['scripts/simulate.ts', '--plant', 'all'], {}, true);
  for (const match of output.matchAll(/^(PLANT_\w+): (?:found by seed (\d+)|NOT FOUND)/gm)) {
    const [, name, seed] = match as unknown as [string, string, string | undefined];
    soak.plants[name] = { foundAtSeed: seed === undefined ? null : Number(seed) };
    if (seed === undefined) find(`${name} was not found`);
  }
  save(soak);
}

/** @param args of vitest */
async function test(soak: Soak, name: string, ...args: string[]): Promise<void> {
  if (soak.tests[name]?.passed === true) return;
  forget(new RegExp(`'${name}'`));
  const directory = mkdtempSync(join(tmpdir(), 'varve-soak-'));
  const file = join(directory, 'figures');
  const { status } = await run(
    ['node_modules/vitest/vitest.mjs', 'run', '--project', 'system', ...args],
    { VARVE_SOAK: 'full', VARVE_SOAK_FILE: file },
    true,
  );
  const figures = existsSync(file)
    ? readFileSync(file, 'utf8')
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line) as unknown)
    : [];
  // Vitest is content when a pattern fits nothing.
  const passed = status === 0 && figures.length > 0;
  soak.tests[name] = { passed, figures };
  if (!passed) find(`the tests '${name}' ${status === 0 ? 'recorded nothing' : 'failed'}`);
  save(soak);
  rmSync(directory, { recursive: true, force: true });
}

async function browsers(soak: Soak): Promise<void> {
  const file = 'test/browser/system/kills.test.ts';
  for (const title of BROWSER_TESTS)
    await test(
      soak,
      `browsers: ${title.replaceAll('.*', '')}`,
      '--config',
      'test/browser/vitest.config.ts',
      file,
      '--testNamePattern',
      title,
    );
}

for (const target of ['core', 'core.raid', 'core.checked', 'core.planted']) {
  if (existsSync(join(ROOT, 'build', `${target}.wasm`))) continue;
  console.error('there is no core: npm run build:core');
  process.exit(2);
}
const soak = load();
const find = (what: string): void => {
  if (!soak.findings.includes(what)) soak.findings.push(what);
};
/** Before a part is done again: what it found the last time. */
const forget = (of: RegExp): void => {
  soak.findings = soak.findings.filter((finding) => !of.test(finding));
};
for (const part of parts) {
  console.log(`——— ${part}`);
  if (part === 'seeds' || part === 'members') await seeds(soak, part);
  else if (part === 'plants') {
    const found = Object.values(soak.plants);
    if (found.length === 0 || found.some(({ foundAtSeed }) => foundAtSeed === null)) await plants(soak);
  } else if (part === 'browsers') await browsers(soak);
}
// The tests are processes that use one processor, or wait: two at a time.
const tests = TESTS.filter((part) => parts.includes(part)).flatMap((part) => {
  const file = `test/system/${part}.test.ts`;
  const titles = APART[part];
  return titles === undefined
    ? [[part, file]]
    : titles.map((title) => [`${part}: ${title.replaceAll('\\W+', ' ').replaceAll('\\', '')}`, file, '--testNamePattern', title]);
});
await Promise.all(
  [0, 1].map(async () => {
    for (let next = tests.shift(); next !== undefined; next = tests.shift()) await test(soak, next[0] as string, ...next.slice(1));
  }),
);
save(soak);
for (const finding of soak.findings) console.log(finding);
console.log(
  `${soak.seeds.count} seeds and ${soak.members.count} with members, ${Object.keys(soak.plants).length} plants, ${Object.keys(soak.tests).length} tests; ${soak.findings.length} findings; see docs/soak.json`,
);
process.exitCode = soak.findings.length === 0 && soak.seeds.failed + soak.members.failed === 0 ? 0 : 1;
