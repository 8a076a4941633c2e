// Everything that shows that the project works, in a quarter of an hour: builds the core and dist/, lints, runs the tests (unit, suite, model, system), under
// every runtime and in browsers what runs there, then the sampled proofs. The last line is `N passed, N failed`: vitest's tests and the proofs, each build and lint step a proof of its own.
//
//   npm test
//   node scripts/test.ts --seeds 500         fewer or more seeds for the simulator (2000)
//   node scripts/test.ts --first 12345       where they begin (0; a run of the simulator by itself finds what lies beyond)
//   node scripts/test.ts --only proofs       one part: build, lint, vitest, runtimes, browsers, proofs
//   npm run test:browsers                    builds, and runs the tests in Chromium, Firefox and WebKitGTK alone
//
// Whole counts (100,000 seeds, every plant, 200 kills, every flip) are `npm run soak`. Docs: docs/TESTING.md.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { RAID_SEEDS } from '../test/model/history.ts';
import { ENGINES, installNode20, type Engine } from '../test/runtimes/engines.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const BIN = join(ROOT, 'node_modules', '.bin');
const REPORT = join(ROOT, 'build', 'vitest.json');
const PARTS = ['build', 'lint', 'vitest', 'runtimes', 'browsers', 'proofs'] as const;

/** What runs under every runtime, and not only under the Node that runs the rest. */
const RUNTIME_SUITES = [
  'test/suite/devices.test.ts',
  'test/suite/raw.test.ts',
  'test/unit/volume.test.ts',
  'test/unit/pool.test.ts',
  'test/unit/pool-directory.test.ts',
  'test/unit/pool-lock.test.ts',
  'test/model/core.test.ts',
];
/** Histories of the simulator under each of them. */
const RUNTIME_SEEDS = '20';

/** Programs that tests call, and the Debian packages that bring them. */
const PROGRAMS: readonly (readonly [string, string])[] = [
  ['flock', 'util-linux'],
  ['losetup', 'mount'],
  ['mount', 'mount'],
  ['blkdiscard', 'util-linux'],
  ['sfdisk', 'fdisk'],
  ['mkfs.xfs', 'xfsprogs'],
  ['mkfs.btrfs', 'btrfs-progs'],
  ['mkfs.vfat', 'dosfstools'],
  ['cryptsetup', 'cryptsetup-bin'],
  ['pvcreate', 'lvm2'],
  ['mke2fs', 'e2fsprogs'],
  ['debugfs', 'e2fsprogs'],
  ['e2fsck', 'e2fsprogs'],
  ['python3', 'python3'],
];

/** 215 MB of packages. */
const BROWSERS: readonly (readonly [string, string])[] = [
  ['chromium', 'chromium'],
  ['firefox-esr', 'firefox-esr'],
  ['Xvfb', 'xvfb'],
  ['WebKitWebDriver', 'webkit2gtk-driver'],
];
/** Older ones speak another protocol than the tests' drivers (test/browser). */
const FIREFOX_MIN = 153;

const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '2000' },
    first: { type: 'string', default: '0' },
    only: { type: 'string', multiple: true, default: [...PARTS] },
  },
});
const environment = {
  ...process.env,
  PATH: [BIN, process.env['PATH'] ?? '', '/usr/sbin', '/sbin'].join(delimiter),
};
let passed = 0;
let failed = 0;
const failures: string[] = [];

function tell(ok: boolean, what: string, seconds: number): boolean {
  if (ok) passed++;
  else {
    failed++;
    failures.push(what);
  }
  console.log(`${ok ? 'passed' : 'FAILED'}: ${what} (${seconds.toFixed(1)} s)\n`);
  return ok;
}

/** Runs a program of this project; its output goes where ours goes. */
function run(args: readonly string[], program = process.execPath, env: NodeJS.ProcessEnv = environment): Promise<number> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd: ROOT, env, stdio: ['ignore', 'inherit', 'inherit'] });
    child.once('error', reject);
    child.once('exit', (code) => resolve(code ?? 1));
  });
}

async function proof(what: string, ...args: string[]): Promise<boolean> {
  console.log(`——— ${what}`);
  const started = performance.now();
  const code = await run(args);
  return tell(code === 0, what, (performance.now() - started) / 1000);
}

function bring(): void {
  const has = (program: string): boolean => environment.PATH.split(delimiter).some((folder) => existsSync(join(folder, program)));
  const firefoxVersion = (): number => {
    const { stdout } = spawnSync('firefox-esr', ['--version'], { env: { ...environment, HOME: ROOT }, encoding: 'utf8' });
    return Number(/ (\d+)\./.exec(stdout ?? '')?.[1] ?? 0);
  };
  const programs = values.only.includes('browsers') ? [...PROGRAMS, ...BROWSERS] : PROGRAMS;
  const missing = programs.filter(([program]) => !has(program) || (program === 'firefox-esr' && firefoxVersion() < FIREFOX_MIN));
  if (missing.length === 0) return;
  const packages = [...new Set(missing.map(([, name]) => name))];
  console.log(`——— ${missing.map(([program]) => program).join(', ')} missing or too old: installing ${packages.join(', ')}`);
  if (process.getuid?.() !== 0 || !has('apt-get')) {
    console.log(`only root can, on Debian: apt-get install ${packages.join(' ')}\n`);
    return;
  }
  const apt = (...args: string[]): number | null =>
    spawnSync('apt-get', ['-o', 'DPkg::Lock::Timeout=300', ...args], {
      env: { ...environment, DEBIAN_FRONTEND: 'noninteractive' },
      stdio: ['ignore', 'ignore', 'inherit'],
    }).status;
  const install = ['install', '-y', '--no-install-recommends', ...packages];
  // Browsers come with security updates, and an index of before has old ones.
  if (packages.includes('firefox-esr')) apt('update');
  if (apt(...install) !== 0 && apt('update') === 0) apt(...install);
}

interface VitestReport {
  readonly numPassedTests: number;
  readonly numFailedTests: number;
  readonly numPendingTests: number;
  readonly testResults: readonly {
    readonly name: string;
    readonly status: string;
    readonly assertionResults: readonly {
      readonly status: string;
      readonly fullName: string;
      readonly failureMessages: readonly string[];
    }[];
  }[];
}

/**
 * @param by how it is started: under the Node that runs this, or under another runtime
 * @param prefix of what it says
 */
async function vitest(
  by: Engine | undefined,
  args: readonly string[] = [],
  prefix = by === undefined ? '' : `${by.name}: `,
): Promise<void> {
  console.log(`——— ${prefix}tests`);
  mkdirSync(join(ROOT, 'build'), { recursive: true });
  rmSync(REPORT, { force: true });
  const code = await run(
    [
      ...(by?.arguments ?? []),
      join(ROOT, 'node_modules/vitest/vitest.mjs'),
      'run',
      // The other pool fails in Bun; browsers are one of their own.
      ...(args.some((arg) => arg.startsWith('--config=')) ? [] : ['--pool=threads']),
      // Vitest's own reports of failures need Node 22; the JSON one does not.
      ...(by === undefined ? ['--reporter=default'] : []),
      '--reporter=json',
      `--outputFile.json=${REPORT}`,
      ...args,
    ],
    by?.program,
    by === undefined ? environment : { ...environment, VARVE_SEEDS: RUNTIME_SEEDS },
  );
  if (!existsSync(REPORT)) {
    tell(false, `${prefix}vitest: no report`, 0);
    return;
  }
  const report = JSON.parse(readFileSync(REPORT, 'utf8')) as VitestReport;
  passed += report.numPassedTests;
  let bad = report.numFailedTests;
  failed += report.numFailedTests;
  for (const file of report.testResults) {
    const wrong = file.assertionResults.filter((test) => test.status === 'failed');
    failures.push(...wrong.map((test) => `${prefix}${test.fullName}`));
    if (by !== undefined) for (const test of wrong) console.log(`${prefix}${test.fullName}\n${test.failureMessages.join('\n')}`);
    // A file that cannot be loaded, or a hook that fails, has no test that says so.
    if (file.status === 'failed' && wrong.length === 0) {
      bad++;
      failed++;
      failures.push(`${prefix}${file.name} as a whole`);
    }
    for (const test of file.assertionResults)
      if (test.status === 'pending' || test.status === 'skipped' || test.status === 'todo')
        console.log(`skipped: ${prefix}${test.fullName}`);
  }
  if (by !== undefined) console.log(`${prefix}${report.numPassedTests} passed, ${bad} failed\n`);
  if (code !== 0 && bad === 0) tell(false, `${prefix}vitest ended with ${code}`, 0);
}

async function proofs(): Promise<void> {
  const first = values.first;
  await proof(
    `${values.seeds} seeds from ${first} keep every promise`,
    'scripts/simulate.ts',
    '--seeds',
    values.seeds,
    '--first',
    first,
    '--no-counters',
  );
  const raid = String(RAID_SEEDS + Number(first));
  await proof(
    `${values.seeds} seeds of storage volumes with several members from ${raid} keep every promise`,
    'scripts/simulate.ts',
    '--seeds',
    values.seeds,
    '--first',
    raid,
    '--no-counters',
  );
}

const wanted = new Set(values.only);
for (const part of wanted)
  if (!(PARTS as readonly string[]).includes(part)) throw new Error(`--only: expected one of ${PARTS.join(' ')}, got ${part}`);
const started = performance.now();
bring();
const built =
  !wanted.has('build') ||
  ((await proof('build of the core', 'scripts/build-core.ts')) && (await proof('build of dist', 'scripts/build.ts')));
if (wanted.has('lint')) {
  await proof('oxlint', 'node_modules/oxlint/bin/oxlint', '--deny-warnings', 'src', 'test', 'bench', 'scripts', 'examples');
  await proof('format', 'node_modules/oxfmt/bin/oxfmt', '--check', 'src', 'test', 'scripts', 'bench', 'examples');
  await proof('types', 'node_modules/typescript/bin/tsc', '-p', 'tsconfig.json');
  await proof('tidy', 'scripts/tidy.ts');
  if (existsSync(join(ROOT, 'dist', 'types'))) await proof('the API reference says what the docstrings say', 'scripts/api.ts', '--check');
}
if (built && wanted.has('vitest')) await vitest(undefined);
if (built && wanted.has('runtimes')) {
  installNode20();
  for (const by of ENGINES) if (by.name !== 'Node 24') await vitest(by, ['--project=unit', ...RUNTIME_SUITES]);
}
if (built && wanted.has('browsers')) {
  await vitest(undefined, ['--config=test/browser/vitest.config.ts'], 'browsers: ');
  await proof('the bench in browsers runs', 'bench/browser/main.ts', '--toy');
}
if (built && wanted.has('proofs')) await proofs();
console.log(`\n${((performance.now() - started) / 60_000).toFixed(1)} minutes`);
for (const what of failures) console.log(`FAILED: ${what}`);
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
