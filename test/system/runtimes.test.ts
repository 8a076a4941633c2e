// The package as it is published, under each runtime that it is for: the command line does the main job, a pool goes from one to the other and back (P9), a
// lock that one holds keeps the others out and dies with its process (P8), and a killed replication leaves nothing behind.
//
// The suites themselves run under each runtime in a part of their own (scripts/test.ts, `runtimes`).
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Random } from '../../src/testing/random.ts';
import { engine, ENGINES, installNode20, type Engine } from '../runtimes/engines.ts';
import { amount, BLOCK, equal, firstWrite, MIB, noise, SEED, sleep, Workshop, type Ended } from './support.ts';

const workshop = new Workshop();
afterAll(() => workshop.dispose());
const FIXTURE_DIRECTORY = fileURLToPath(new URL('../fixtures/', import.meta.url));
const FIXTURES = readdirSync(FIXTURE_DIRECTORY);
const DIST = fileURLToPath(new URL('../../dist/', import.meta.url));
const MAIN = `${DIST}cli.js`;

beforeAll(() => {
  if (!existsSync(MAIN)) throw new Error('dist/ is not there: `npm run build` makes it');
  installNode20();
});

function run(by: Engine, ...args: string[]): Ended {
  const child = spawnSync(by.program, [...by.arguments, MAIN, ...args], { maxBuffer: 256 * MIB });
  return { status: child.status, stdout: child.stdout, stderr: child.stderr.toString() };
}

function ok(by: Engine, ...args: string[]): unknown {
  const child = run(by, ...args, '--json');
  expect(child.stderr, `${by.name}: ${args.join(' ')}`).toBe('');
  expect(child.status, `${by.name}: ${args.join(' ')}: ${child.stdout.toString()}`).toBe(0);
  return JSON.parse(child.stdout.toString());
}

function failure(by: Engine, ...args: string[]): string {
  const child = run(by, ...args, '--json');
  expect(child.status, `${by.name}: ${args.join(' ')}: ${child.stderr}`).toBe(1);
  return (JSON.parse(child.stdout.toString()) as { error: { code: string } }).error.code;
}

function expectState(by: Engine, snapshot: string, bytes: Uint8Array): void {
  const target = workshop.fresh();
  ok(by, 'restore', snapshot, target);
  expect(equal(readFileSync(target), bytes), `${by.name}: ${snapshot}`).toBe(true);
}

/** Opens a pool for writing, says so, and keeps it. */
async function hold(by: Engine, pool: string): Promise<ChildProcess> {
  const program = `${workshop.fresh()}.mjs`;
  writeFileSync(
    program,
    `import { StoragePool } from ${JSON.stringify(`${DIST}node.js`)};
     const pool = await StoragePool.open(${JSON.stringify(pool)});
     await (await pool.volume('disk')).write(0, new Uint8Array(4096).fill(7));
     console.log('held');
     setInterval(() => pool.volumes, 1000);`,
  );
  const child = spawn(by.program, [...by.arguments, program], { stdio: ['ignore', 'pipe', 'inherit'] });
  await new Promise<void>((resolve, reject) => {
    child.stdout.once('data', () => resolve());
    child.once('exit', (code) => reject(new Error(`${by.name} ended with ${code} before it held the pool`)));
  });
  return child;
}

/** Sends a signal, and answers with what the process said of its end: null when the signal ended it. */
async function ended(child: ChildProcess, signal: NodeJS.Signals): Promise<number | null> {
  const gone = new Promise<number | null>((resolve) => child.once('exit', resolve));
  child.kill(signal);
  return gone;
}

describe.each(ENGINES)('under $name', (by) => {
  it('the command line replicates, diffs, restores, rolls back, reads and checks', () => {
    const pool = workshop.fresh();
    const primary = workshop.fresh();
    const monday = new Uint8Array(20 * MIB);
    noise(monday.subarray(MIB, 15 * MIB), 1);
    const tuesday = monday.slice();
    noise(tuesday.subarray(5 * MIB, 6 * MIB), 2);
    tuesday.fill(0, 8 * MIB, 8 * MIB + BLOCK);
    ok(by, 'init', pool, '--volume-size', '16MiB', '--max-volumes', '8');
    writeFileSync(primary, monday);
    expect(ok(by, 'replicate', primary, `${pool}/disk`, '--snapshot', 'monday')).toMatchObject({ changedBytes: 14 * MIB });
    writeFileSync(primary, tuesday);
    expect(ok(by, 'replicate', primary, `${pool}/disk`, '--snapshot', 'tuesday')).toMatchObject({ changedBytes: MIB + BLOCK });
    expect(ok(by, 'diff', `${pool}/disk`, '--from', 'monday', '--to', 'tuesday')).toEqual([
      { offset: 5 * MIB, length: MIB, kind: 'data' },
      { offset: 8 * MIB, length: BLOCK, kind: 'hole' },
    ]);
    expectState(by, `${pool}/disk@monday`, monday);
    expectState(by, `${pool}/disk@tuesday`, tuesday);
    ok(by, 'rollback', `${pool}/disk@monday`);
    const out = run(by, 'cat', `${pool}/disk`);
    expect(out.status).toBe(0);
    expect(equal(out.stdout, monday)).toBe(true);
    expect(ok(by, 'check', pool)).toMatchObject({ clean: true });
    expect(failure(by, 'restore', `${pool}/disk@friday`, workshop.fresh())).toBe('VARVE_NOT_FOUND');
    expect(run(by, 'frobnicate').status).toBe(2);
  });

  it('a replication that is killed, or stopped by Ctrl-C, leaves no lock and nothing half', async () => {
    const random = new Random(SEED);
    const pool = workshop.fresh();
    const primary = workshop.fresh();
    const image = noise(new Uint8Array(24 * MIB), 3);
    writeFileSync(primary, image);
    ok(by, 'init', pool, '--volume-size', '16MiB');
    ok(by, 'replicate', primary, `${pool}/disk`, '--snapshot', 's0');
    const first = image.slice();
    for (let kill = 0; kill < amount(2, 20); kill++) {
      noise(image, random.word());
      writeFileSync(primary, image);
      const written = firstWrite(pool);
      const child = spawn(by.program, [...by.arguments, MAIN, 'replicate', primary, `${pool}/disk`, '--snapshot', `k${kill}`], {
        stdio: 'ignore',
      });
      await written(); // it knows of signals by now
      await sleep(random.below(60));
      if (child.exitCode === null) {
        const code = await ended(child, kill % 2 === 0 ? 'SIGINT' : 'SIGKILL');
        if (kill % 2 === 0) expect([0, 1]).toContain(code);
      }
      expect(ok(by, 'check', pool)).toMatchObject({ clean: true });
    }
    expectState(by, `${pool}/disk@s0`, first);
    ok(by, 'replicate', primary, `${pool}/disk`, '--snapshot', 'after');
    expectState(by, `${pool}/disk@after`, image);
  });

  it.each(FIXTURES)('the pool %s that an earlier version wrote is what it was, and can be written', (name) => {
    const kept = join(FIXTURE_DIRECTORY, name);
    const pool = workshop.fresh();
    mkdirSync(pool);
    for (const file of readdirSync(kept)) {
      if (file.endsWith('.gz')) writeFileSync(join(pool, file.slice(0, -3)), gunzipSync(readFileSync(join(kept, file))));
    }
    const states = JSON.parse(readFileSync(join(kept, 'states.json'), 'utf8')) as Record<
      string,
      { current: string; snapshots: Record<string, string> }
    >;
    const expectStates = (): void => {
      for (const [volume, { current, snapshots }] of Object.entries(states)) {
        for (const [snapshot, wanted] of [['', current] as const, ...Object.entries(snapshots)]) {
          const { stdout, status } = run(by, 'cat', `${pool}/${volume}${snapshot === '' ? '' : `@${snapshot}`}`);
          expect(status).toBe(0);
          expect(createHash('sha256').update(stdout).digest('hex'), `${volume}@${snapshot}`).toBe(wanted);
        }
      }
    };
    expectStates();
    const [first] = Object.keys(states) as [string];
    ok(by, 'snapshot', `${pool}/${first}@now`);
    const written = spawnSync(by.program, [...by.arguments, MAIN, 'write', `${pool}/${first}`], {
      input: noise(new Uint8Array(100_000), 9),
    });
    expect(written.status, written.stderr.toString()).toBe(0);
    ok(by, 'compact', `${pool}/${first}`);
    expect(ok(by, 'check', pool)).toMatchObject({ clean: true });
    ok(by, 'rollback', `${pool}/${first}@now`);
    expectStates();
  });

  it('keeps every runtime out while it holds the pool, and leaves no lock when it is killed', async () => {
    const pool = workshop.fresh();
    ok(by, 'init', pool, '--volume-size', '16MiB');
    ok(by, 'create', `${pool}/disk`, '--size', '8MiB');
    const holder = await hold(by, pool);
    try {
      for (const other of ENGINES) {
        expect(failure(other, 'snapshot', `${pool}/disk@no`)).toBe('VARVE_LOCKED');
        expect(failure(other, 'list', pool)).toBe('VARVE_LOCKED');
      }
    } finally {
      await ended(holder, 'SIGKILL');
    }
    const next = ENGINES[(ENGINES.indexOf(by) + 1) % ENGINES.length] as Engine;
    ok(next, 'snapshot', `${pool}/disk@after`);
    expect(ok(next, 'check', pool)).toMatchObject({ clean: true });
  });
});

it('a pool goes from one runtime to the next and back, every snapshot bit-equal at every stop', () => {
  const pool = workshop.fresh();
  const primary = workshop.fresh();
  const image = noise(new Uint8Array(6 * MIB), 4);
  const states = new Map<string, Uint8Array>();
  ok(engine('Node 24'), 'init', pool, '--volume-size', '16MiB');
  const order = ['Node 24', 'Deno', 'Bun', 'Node 20', 'Node 24'].map(engine);
  for (const [stop, by] of order.entries()) {
    noise(image.subarray(stop * MIB, stop * MIB + 300_000), 10 + stop);
    image.fill(0, stop * 40_960, stop * 40_960 + 8192);
    writeFileSync(primary, image);
    ok(by, 'replicate', primary, `${pool}/disk`, '--snapshot', `stop${stop}`);
    states.set(`stop${stop}`, image.slice());
    if (stop === 2) {
      ok(by, 'rollback', `${pool}/disk@stop1`);
      ok(by, 'compact', `${pool}/disk`);
    }
    for (const [snapshot, bytes] of states) expectState(by, `${pool}/disk@${snapshot}`, bytes);
    expect(ok(by, 'check', pool)).toMatchObject({ clean: true });
  }
});

describe('Deno with permissions', () => {
  const deno = engine('Deno');
  /** As the README says. */
  const limited = (directory: string, ...more: string[]): Engine => ({
    ...deno,
    arguments: ['run', '--no-prompt', '--no-lock', `--allow-read=${directory}`, `--allow-write=${directory}`, '--allow-env', ...more],
  });

  it('needs reading and writing of the pool, the environment, and flock', () => {
    const by = limited(workshop.directory, '--allow-run=flock');
    const pool = workshop.fresh();
    const primary = workshop.fresh();
    const image = noise(new Uint8Array(MIB), 5);
    writeFileSync(primary, image);
    ok(by, 'init', pool, '--volume-size', '16MiB');
    ok(by, 'replicate', primary, `${pool}/disk`, '--snapshot', 'a');
    expectState(by, `${pool}/disk@a`, image);
  });

  it('says what is missing without flock, and touches nothing', () => {
    const pool = workshop.fresh();
    const child = run(limited(workshop.directory), 'init', pool, '--json');
    expect(child.status).toBe(1);
    expect(JSON.parse(child.stdout.toString())).toMatchObject({
      error: { code: 'VARVE_UNSUPPORTED', message: expect.stringContaining('--allow-run=flock') as string },
    });
    expect(existsSync(pool)).toBe(false);
  });
});
