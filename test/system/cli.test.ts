// The command line as its users have it: real processes, on files.
import { spawn, spawnSync, type ChildProcessByStdio, type SpawnSyncReturns } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Writable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { firstWrite } from './support.ts';

const MIB = 1 << 20;
const BLOCK = 4096;
const main = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));
const directory = mkdtempSync(join(tmpdir(), 'varve-cli-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));
let count = 0;
const fresh = (): string => join(directory, `x${count++}`);

function varve(args: readonly string[], input?: Uint8Array): SpawnSyncReturns<Buffer> {
  return spawnSync(process.execPath, [main, ...args], { input, maxBuffer: 256 * MIB });
}

function ok(...args: string[]): string {
  const child = varve(args);
  expect(child.stderr.toString(), args.join(' ')).toBe('');
  expect(child.status, args.join(' ')).toBe(0);
  return child.stdout.toString();
}

function json<T>(...args: string[]): T {
  return JSON.parse(ok(...args, '--json')) as T;
}

function fails(status: number, ...args: string[]): string {
  const child = varve(args);
  expect(child.status, `${args.join(' ')}: ${child.stderr}`).toBe(status);
  expect(child.stderr.toString()).toMatch(/^varve: /);
  return child.stderr.toString();
}

function noise(length: number, seed: number): Buffer {
  const bytes = Buffer.alloc(length);
  let state = (seed * 2_654_435_761) >>> 0 || 1;
  for (let index = 0; index < length; index++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    bytes[index] = state;
  }
  return bytes;
}

function poke(path: string, offset: number, bytes: Uint8Array): void {
  const descriptor = openSync(path, 'r+');
  writeSync(descriptor, bytes, 0, bytes.length, offset);
  closeSync(descriptor);
}

interface Replicated {
  snapshot: string;
  scannedBytes: number;
  changedBytes: number;
  writtenBytes: number;
  metadataBytes: number;
  seconds: number;
}

interface Status {
  pool: { id: string; path: string; generation: number };
  storageVolumes: {
    id: number;
    state: string;
    virtualVolume: string | null;
    raid: string;
    sizeBytes: number;
    usedBytes: number;
    devices: { path: string; state: string }[];
  }[];
  virtualVolumes: {
    name: string;
    sizeBytes: number;
    mappedBytes: number;
    liveBytes: number;
    usedBytes: number;
    storageVolumes: number[];
    snapshots: { name: string; createdAt: string }[];
    sources: { name: string; sizeBytes: number }[];
    policy: { mode: string; growAt: number };
  }[];
  requests: unknown[];
}

describe('the command line', () => {
  it('replicates, lists, diffs, reads, restores, rolls back, deletes and checks', () => {
    const pool = fresh();
    const image = fresh();
    ok('init', pool, '--volume-size', '16MiB', '--max-volumes', '20');
    const monday = Buffer.alloc(24 * MIB + 1000);
    noise(20 * MIB, 1).copy(monday, 2 * MIB);
    noise(1000, 2).copy(monday, 24 * MIB);
    writeFileSync(image, monday);

    const first = json<Replicated>('replicate', image, `${pool}/disk`, '--snapshot', 'monday');
    expect(first).toMatchObject({ snapshot: 'monday', scannedBytes: monday.length, writtenBytes: 20 * MIB + BLOCK });
    expect(first.metadataBytes).toBeGreaterThan(0);

    const tuesday = Buffer.from(monday);
    noise(10, 3).copy(tuesday, 3 * MIB + 17);
    tuesday.fill(0, 5 * MIB, 6 * MIB);
    writeFileSync(image, tuesday);
    const second = json<Replicated>('replicate', image, `${pool}/disk`, '--snapshot', 'tuesday');
    expect(second).toMatchObject({ changedBytes: MIB + BLOCK, writtenBytes: BLOCK });
    expect(fails(1, 'replicate', image, `${pool}/disk`, '--snapshot', 'tuesday')).toContain('tuesday');
    const third = json<Replicated>('replicate', image, `${pool}/disk`);
    expect(third).toMatchObject({ changedBytes: 0, writtenBytes: 0 });
    expect(third.snapshot).toMatch(/^\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ$/);

    const status = json<Status>('status', pool);
    expect(status.virtualVolumes).toHaveLength(1);
    expect(status.virtualVolumes[0]).toMatchObject({
      name: 'disk',
      sizeBytes: monday.length,
      mappedBytes: 19 * MIB + BLOCK,
      liveBytes: 20 * MIB + 2 * BLOCK,
      snapshots: [{ name: 'monday' }, { name: 'tuesday' }, { name: third.snapshot }],
      sources: [{ name: 'default', sizeBytes: monday.length }],
      policy: { mode: 'auto', growAt: 0.95 },
    });
    expect(status.virtualVolumes[0]?.storageVolumes.length).toBeGreaterThanOrEqual(2);
    expect(
      status.storageVolumes.every((volume) => volume.raid === 'single' && volume.virtualVolume === 'disk' && volume.state === 'assigned'),
    ).toBe(true);
    expect(
      status.storageVolumes.every((volume) =>
        volume.devices.every((device) => device.state === 'online' && statSync(device.path).size === 16 * MIB),
      ),
    ).toBe(true);
    expect(status.requests).toEqual([]);

    expect(json('diff', `${pool}/disk`, '--from', 'monday', '--to', 'tuesday')).toEqual([
      { offset: 3 * MIB, length: BLOCK, kind: 'data' },
      { offset: 5 * MIB, length: MIB, kind: 'hole' },
    ]);
    expect(json('diff', `${pool}/disk`, '--from', 'tuesday')).toEqual([]);

    expect(varve(['cat', `${pool}/disk@monday`]).stdout.equals(monday)).toBe(true);
    expect(varve(['cat', `${pool}/disk`]).stdout.equals(tuesday)).toBe(true);
    expect(
      varve(['cat', `${pool}/disk@monday`, '--offset', '3145745', '--length', '9']).stdout.equals(monday.subarray(3_145_745, 3_145_754)),
    ).toBe(true);
    fails(1, 'cat', `${pool}/disk`, '--offset', '1TiB');

    // A file that takes only a part, be it of the last piece, is no success.
    const cut = fresh();
    const script = `ulimit -f ${20 * 1024 + 256} || exit 3; exec "$0" "$@" >"$CUT"`;
    const limited = spawnSync(
      'bash',
      ['-c', script, process.execPath, main, 'cat', `${pool}/disk@monday`, '--length', String(20.5 * MIB)],
      {
        env: { ...process.env, CUT: cut },
      },
    );
    expect(limited.status).toBe(1);
    expect(limited.stderr.toString()).toMatch(/^varve: /);
    expect(statSync(cut).size).toBe(20.25 * MIB);
    fails(1, 'cat', `${pool}/disk@nothing`);

    const target = fresh();
    ok('restore', `${pool}/disk@monday`, target);
    expect(readFileSync(target).equals(monday)).toBe(true);
    expect(statSync(target).blocks * 512).toBeLessThan(22 * MIB); // holes stayed holes
    fails(1, 'restore', `${pool}/disk@tuesday`, target);
    expect(json<{ writtenBytes: number }>('restore', `${pool}/disk@tuesday`, target, '--in-place').writtenBytes).toBe(MIB + BLOCK);
    expect(readFileSync(target).equals(tuesday)).toBe(true);
    expect(readdirSync(directory).filter((name) => name.includes('tmp'))).toEqual([]);
    for (const own of ['lock', 'pool.json'])
      expect(fails(1, 'restore', `${pool}/disk@monday`, join(pool, own), '--in-place')).toContain('a Varve pool keeps for itself');

    const back = json<{ keptAs: string }>('rollback', `${pool}/disk@monday`);
    expect(varve(['cat', `${pool}/disk`]).stdout.equals(monday)).toBe(true);
    expect(varve(['cat', `${pool}/disk@${back.keptAs}`]).stdout.equals(tuesday)).toBe(true);
    ok('delete', `${pool}/disk@monday`);
    ok('delete', `${pool}/disk@${third.snapshot}`);
    expect(json<{ snapshots: { name: string }[] }>('list', `${pool}/disk`).snapshots.map((snapshot) => snapshot.name)).toEqual([
      'tuesday',
      back.keptAs,
    ]);
    expect(varve(['cat', `${pool}/disk`]).stdout.equals(monday)).toBe(true);
    expect(varve(['cat', `${pool}/disk@tuesday`]).stdout.equals(tuesday)).toBe(true);
    ok('compact', `${pool}/disk`);
    expect(varve(['cat', `${pool}/disk@tuesday`]).stdout.equals(tuesday)).toBe(true);
    expect(json('check', pool)).toMatchObject({ clean: true, problems: [] });
    ok('delete', `${pool}/disk`);
    expect(json<Status>('status', pool).virtualVolumes).toEqual([]);
    expect(readdirSync(pool).filter((name) => name.endsWith('.varve'))).toHaveLength(1);
  });

  it('creates, writes, snapshots and resizes', () => {
    const pool = fresh();
    ok('init', pool, '--volume-size', '16MiB');
    ok('create', `${pool}/v`, '--size', '1MiB', '--grow-at', '90%', '--mode', 'fixed');
    fails(1, 'create', `${pool}/v`, '--size', '1MiB');
    expect(varve(['write', `${pool}/v`, '--offset', '5000'], Buffer.from('hello')).status).toBe(0);
    ok('snapshot', `${pool}/v@s`);
    fails(1, 'snapshot', `${pool}/v@s`);
    expect(varve(['write', `${pool}/v`, '--offset', '5000'], Buffer.from('HELLO')).status).toBe(0);
    expect(varve(['write', `${pool}/v`, '--offset', '1048574'], Buffer.from('xyz')).status).toBe(1);
    expect(ok('cat', `${pool}/v`, '--offset', '1048574', '--length', '2')).toBe('\0\0');
    expect(ok('cat', `${pool}/v@s`, '--offset', '5000', '--length', '5')).toBe('hello');
    expect(ok('cat', `${pool}/v`, '--offset', '5000', '--length', '5')).toBe('HELLO');
    ok('resize', `${pool}/v`, '--size', '4100');
    ok('resize', `${pool}/v`, '--size', '2MiB');
    expect(varve(['cat', `${pool}/v`]).stdout.equals(Buffer.alloc(2 * MIB))).toBe(true);
    expect(ok('cat', `${pool}/v@s`, '--offset', '5000', '--length', '5')).toBe('hello');
    expect(ok('list', pool)).toMatch(/^VOLUME +SIZE/);
    expect(ok('list', `${pool}/v`)).toMatch(/^SNAPSHOT +CREATED\ns /);
    expect(ok('status', pool)).toContain('fixed');
    expect(ok('dump', pool)).toContain("snapshot 's'");
    expect(ok('check', pool)).toBe('clean\n');
  });

  it('makes no more storage volumes than it may, and takes what is added beyond', () => {
    const pool = fresh();
    const device = fresh();
    writeFileSync(device, '');
    truncateSync(device, 16 * MIB);
    expect(ok('init', '--help')).toContain('with so many in the pool none is made on demand; `add` may go beyond');
    ok('init', pool, '--volume-size', '16MiB', '--max-volumes', '1');
    ok('create', `${pool}/a`, '--size', '1MiB');
    expect(fails(1, 'create', `${pool}/b`, '--size', '1MiB')).toContain('has all of its 1 storage volumes');
    ok('add', pool, '--device', device);
    ok('create', `${pool}/b`, '--size', '1MiB');
    expect(fails(1, 'create', `${pool}/c`, '--size', '1MiB')).toContain('has all of its 2 storage volumes');
    expect(json<Status>('status', pool).storageVolumes).toHaveLength(2);
  });

  it('asks which source is meant where there are several', () => {
    const pool = fresh();
    ok('init', pool, '--volume-size', '16MiB');
    const [a, b] = [fresh(), fresh()];
    writeFileSync(a, noise(100_000, 1));
    writeFileSync(b, noise(200_000, 2));
    ok('replicate', a, `${pool}/host`, '--source', 'a', '--snapshot', 'a1');
    ok('replicate', b, `${pool}/host`, '--source', 'b', '--snapshot', 'b1');
    expect(json<Status>('status', pool).virtualVolumes[0]?.sources.map((source) => source.name)).toEqual(['a', 'b']);
    fails(2, 'cat', `${pool}/host`);
    fails(2, 'replicate', a, `${pool}/host`);
    fails(1, 'cat', `${pool}/host`, '--source', 'c');
    expect(varve(['cat', `${pool}/host`, '--source', 'b']).stdout.equals(readFileSync(b))).toBe(true);
    expect(varve(['cat', `${pool}/host@a1`]).stdout.equals(readFileSync(a))).toBe(true);
    fails(1, 'cat', `${pool}/host@a1`, '--source', 'b');
  });

  it('finds any damage in what is in use, and changes nothing unless it is asked to repair', () => {
    const pool = fresh();
    ok('init', pool, '--volume-size', '16MiB');
    const image = fresh();
    writeFileSync(image, noise(2 * MIB, 7));
    ok('replicate', image, `${pool}/disk`, '--snapshot', 's');
    const [file = ''] = readdirSync(pool).filter((name) => name.endsWith('.varve'));
    const path = join(pool, file);
    const whole = readFileSync(path);
    const block = whole.indexOf(readFileSync(image).subarray(64 * BLOCK, 65 * BLOCK));
    expect(block).toBeGreaterThan(0);
    poke(path, block + 100, Uint8Array.of((whole[block + 100] ?? 0) ^ 1));
    const damaged = varve(['check', pool, '--json']);
    expect(damaged.status).toBe(1);
    expect(JSON.parse(damaged.stdout.toString())).toMatchObject({ clean: false, problems: [{ code: 'VARVE_CORRUPT' }] });
    expect(varve(['cat', `${pool}/disk`]).status).toBe(1);
    // A reader that goes away does not make it clean.
    for (const args of [`check "${pool}"`, `check "${pool}" --json`, `scrub "${pool}"`, `status "${pool}"`]) {
      const shell = spawnSync('bash', ['-c', `"${process.execPath}" "${main}" ${args} | true; exit \${PIPESTATUS[0]}`]);
      expect([args, shell.status]).toEqual([args, args.startsWith('status') ? 0 : 1]);
    }
    writeFileSync(path, whole);
    poke(path, 50, Uint8Array.of(0xff, 0xfe));
    const before = readFileSync(path);
    expect(varve(['check', pool]).status).toBe(1);
    expect(readFileSync(path).equals(before)).toBe(true);
    expect(varve(['check', pool, '--repair']).status).toBe(0);
    expect(varve(['check', pool]).status).toBe(0);
    // Its only device, zeroed and gone.
    for (const harm of [() => writeFileSync(path, new Uint8Array(whole.length)), () => rmSync(path)]) {
      harm();
      const lost = varve(['check', pool, '--json']);
      expect(lost.status).toBe(1);
      expect(JSON.parse(lost.stdout.toString())).toMatchObject({ clean: false, problems: [{ code: 'VARVE_NOT_FOUND', where: pool }] });
    }
  });

  it('tells wrong usage from failure', () => {
    const pool = fresh();
    for (const args of [
      [],
      ['nonsense'],
      ['init'],
      ['init', pool, '--volume-size'],
      ['init', pool, '--volume-size', 'big'],
      ['init', pool, '--volume-size', '1KiB'],
      ['init', pool, '--raid', '5', '--strip-size', 'big'],
      ['init', pool, '--strip-size', '3KiB'],
      ['init', pool, '--raid', '7'],
      ['create', pool],
      ['create', `${pool}/v`],
      ['create', `${pool}/v@s`, '--size', '1'],
      ['snapshot', `${pool}/v`],
      ['diff', `${pool}/v`],
      ['status', pool, 'more'],
      ['status', pool, '--bogus'],
      ['serve', pool],
      ['add', pool],
      ['cat', `${pool}/v`, '--json'],
      ['replicate', 'x', `${pool}/v`, '--baseline', 'y'],
    ]) {
      fails(2, ...args);
    }
    // An empty path is not the working directory, nor is an empty argument one that was left out.
    const here = fresh();
    mkdirSync(here);
    for (const args of [
      ['init', ''],
      ['init', '--', ''],
      ['status', ''],
      ['replace', pool, '', '--volume', '0', '--device', 'x'],
    ]) {
      const child = spawnSync(process.execPath, [main, ...args], { cwd: here });
      expect(child.status, args.join(' ')).toBe(2);
      expect(child.stderr.toString()).toContain('an argument is empty');
    }
    expect(readdirSync(here)).toEqual([]);
    // Larger than a volume can be; nothing is opened for that.
    for (const [verb, size] of [
      ['create', '9007199254740991'],
      ['resize', '8191TiB'],
    ] as const)
      expect(fails(2, verb, `${pool}/v`, '--size', size)).toContain('--size: expected at most 2^52 bytes (4096 TiB), got ');
    fails(1, 'status', pool);
    const raid = fresh();
    ok('init', raid, '--volume-size', '16MiB', '--raid', '1');
    expect(fails(1, 'replace', raid, '--volume', '9', '--device', 'x')).toContain('no such storage volume');
    expect(varve(['--help']).status).toBe(0);
    expect(ok('replicate', '--help')).toContain('--snapshot NAME');
    const failure = varve(['status', pool, '--json']);
    expect(JSON.parse(failure.stdout.toString())).toMatchObject({ error: { code: 'VARVE_NOT_FOUND' } });
    expect(existsSync(pool)).toBe(false);
  });

  it('lets one writer in, and readers together', async () => {
    const pool = fresh();
    ok('init', pool, '--volume-size', '16MiB');
    ok('create', `${pool}/v`, '--size', '1MiB');
    const begin = (): { writer: ChildProcessByStdio<Writable, null, null>; exited: Promise<unknown> } => {
      const writer = spawn(process.execPath, [main, 'write', `${pool}/v`], { stdio: ['pipe', 'ignore', 'inherit'] });
      writer.stdin.on('error', () => undefined); // it may be gone by now
      writer.stdin.write('first');
      return { writer, exited: new Promise((resolve) => writer.once('exit', resolve)) };
    };
    let { writer, exited } = begin();
    for (let tries = 0; varve(['status', pool]).status === 0 && tries < 50; tries++) {
      await sleep(100); // a reader that is there when the writer comes keeps it out: then another one
      if (writer.exitCode !== null) ({ writer, exited } = begin());
    }
    expect(fails(1, 'status', pool)).toContain('in this process or another');
    expect(fails(1, 'snapshot', `${pool}/v@s`)).toContain('in this process or another');
    writer.stdin.end();
    expect(await exited).toBe(0);
    expect(ok('cat', `${pool}/v`, '--length', '5')).toBe('first');
  });

  it('stops cleanly on Ctrl-C, and goes on where it stopped', async () => {
    const pool = fresh();
    const image = fresh();
    writeFileSync(image, '');
    truncateSync(image, 4096 * MIB);
    poke(image, 0, noise(4 * MIB, 1));
    poke(image, 4095 * MIB, noise(MIB, 2));
    ok('init', pool, '--volume-size', '64MiB');
    ok('create', `${pool}/v`, '--size', '1MiB');
    const written = firstWrite(pool);
    const child = spawn(process.execPath, [main, 'replicate', image, `${pool}/v`, '--snapshot', 's'], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let told = '';
    child.stderr.on('data', (bytes: Buffer) => (told += bytes.toString()));
    const exited = new Promise((resolve) => child.once('exit', resolve));
    await written();
    child.kill('SIGINT');
    expect(await exited).toBe(1);
    expect(told).toContain('SIGINT');
    expect(json('check', pool)).toMatchObject({ clean: true });
    expect(json<Status>('status', pool).virtualVolumes[0]?.snapshots).toEqual([]);
    const rest = json<Replicated>('replicate', image, `${pool}/v`, '--snapshot', 's');
    expect(rest.writtenBytes).toBeLessThanOrEqual(5 * MIB);
    expect(varve(['cat', `${pool}/v@s`, '--length', '4MiB']).stdout.equals(noise(4 * MIB, 1))).toBe(true);
  });

  it.each(['replace', 'spare'])('stops %s on Ctrl-C in the middle of filling a device, and goes on at the next open', async (verb) => {
    const pool = fresh();
    const devices = Array.from({ length: 3 }, () => {
      const device = fresh();
      writeFileSync(device, '');
      truncateSync(device, 256 * MIB);
      return device;
    });
    const [first, second, next] = devices as [string, string, string];
    ok('init', pool, '--raid', '1', '--device', first, '--device', second);
    ok('create', `${pool}/v`, '--size', '1GiB');
    expect(varve(['write', `${pool}/v`], noise(128 * MIB, 1)).status).toBe(0);
    if (verb === 'spare') rmSync(second);
    const before = statSync(next).blocks;
    const args = verb === 'spare' ? ['--device', next] : ['--volume', '0', '--device', second, next];
    const child = spawn(process.execPath, [main, verb, pool, ...args], { stdio: ['ignore', 'ignore', 'pipe'] });
    let told = '';
    child.stderr.on('data', (bytes: Buffer) => (told += bytes.toString()));
    const exited = new Promise((resolve) => child.once('exit', resolve));
    while (child.exitCode === null && statSync(next).blocks - before < (8 * MIB) / 512) await sleep(2);
    child.kill('SIGINT');
    expect(await exited, told).toBe(1);
    expect(told.replace(/^varve: note: .*\n/gm, '')).toBe('varve: stopped by SIGINT; nothing is lost\n');
    const states = (): string[] =>
      json<Status>('status', pool).storageVolumes.flatMap((volume) => volume.devices.map(({ state }) => state));
    expect(states()).toEqual(['online', 'rebuilding']);
    ok('scrub', pool);
    expect(states()).toEqual(['online', 'online']);
    expect(json('check', pool)).toMatchObject({ clean: true });
    for (const device of devices) rmSync(device, { force: true });
  });

  it('does not stop for a hang-up that it was started to ignore', async () => {
    const pool = fresh();
    ok('init', pool, '--volume-size', '16MiB');
    ok('create', `${pool}/v`, '--size', '4MiB');
    for (const [start, status] of [
      ['"$@" <&3 &', 1],
      ['nohup "$@" <&3 &', 0],
      [`trap '' HUP; "$@" <&3 &`, 0],
    ] as const) {
      const written = firstWrite(pool);
      const shell = spawn('bash', ['-c', `exec 3<&0; ${start} echo $!; wait $!`, 'bash', process.execPath, main, 'write', `${pool}/v`], {
        stdio: ['pipe', 'pipe', 'ignore'],
      });
      const exited = new Promise((resolve) => shell.once('exit', resolve));
      const pid = await new Promise<Buffer>((resolve) => shell.stdout.once('data', resolve));
      shell.stdin.on('error', () => undefined);
      shell.stdin.write(noise(2 * MIB, count));
      await written();
      process.kill(Number(pid), 'SIGHUP');
      await sleep(200);
      shell.stdin.end();
      expect(await exited, start).toBe(status);
    }
  });

  it('keeps what was flushed when it is killed, and is clean afterwards', async () => {
    const pool = fresh();
    ok('init', pool, '--volume-size', '16MiB');
    ok('create', `${pool}/v`, '--size', '64MiB');
    expect(varve(['write', `${pool}/v`], noise(MIB, 1)).status).toBe(0);
    for (let round = 0; round < 5; round++) {
      const child = spawn(process.execPath, [main, 'write', `${pool}/v`, '--offset', '1MiB'], { stdio: ['pipe', 'ignore', 'ignore'] });
      child.stdin.on('error', () => undefined);
      child.stdin.write(noise(20 * MIB, round + 2));
      const exited = new Promise((resolve) => child.once('exit', resolve));
      await new Promise((resolve) => setTimeout(resolve, 150 + 120 * round));
      child.kill('SIGKILL');
      await exited;
      expect(varve(['cat', `${pool}/v`, '--length', '1MiB']).stdout.equals(noise(MIB, 1))).toBe(true);
      expect(json('check', pool)).toMatchObject({ clean: true });
    }
    expect(varve(['write', `${pool}/v`, '--offset', '1MiB'], noise(MIB, 99)).status).toBe(0);
    expect(varve(['cat', `${pool}/v`, '--offset', '1MiB', '--length', '1MiB']).stdout.equals(noise(MIB, 99))).toBe(true);
  });

  it('makes a pool whole or not at all: an init that was killed is done again', async () => {
    let cutOff = 0;
    for (let round = 0; round < 8; round++) {
      const pool = fresh();
      const child = spawn(process.execPath, [main, 'init', pool, '--volume-size', '16MiB'], { stdio: 'ignore' });
      const exited = new Promise((resolve) => child.once('exit', resolve));
      while (child.exitCode === null && !existsSync(join(pool, 'making'))) await sleep(1);
      await sleep(2 * round);
      child.kill('SIGKILL');
      await exited;
      if (!existsSync(join(pool, 'pool.json'))) {
        cutOff++;
        expect(fails(1, 'status', pool)).toContain('there is no pool');
        ok('init', pool, '--volume-size', '16MiB');
      }
      ok('create', `${pool}/v`, '--size', '64MiB');
      expect(json('check', pool)).toMatchObject({ clean: true });
    }
    expect(cutOff).toBeGreaterThan(0);
  });

  it('does not mind a reader that has had enough', () => {
    const pool = fresh();
    ok('init', pool, '--volume-size', '16MiB');
    ok('create', `${pool}/v`, '--size', '64MiB');
    const shell = spawnSync('bash', ['-c', `set -o pipefail; "${process.execPath}" "${main}" cat "${pool}/v" | head -c 10 | wc -c`]);
    expect(shell.stderr.toString()).toBe('');
    expect(shell.status).toBe(0);
    expect(shell.stdout.toString().trim()).toBe('10');
  });

  it('says with every verb what a pool has lost, once, and in the documents too', () => {
    const pool = fresh();
    const [one, two] = [fresh(), fresh()];
    for (const device of [one, two]) {
      writeFileSync(device, '');
      truncateSync(device, 32 * MIB);
    }
    const image = fresh();
    writeFileSync(image, noise(MIB, 1));
    ok('init', pool, '--raid', '1', '--device', one, '--device', two);
    ok('replicate', image, `${pool}/v`, '--snapshot', 's');
    rmSync(two);
    const missing = `storage volume 0: a member is missing (${two})`;
    const notes = (stderr: Buffer): string[] =>
      [...stderr.toString().matchAll(/^varve: note: (.*)$/gm)].map(([, text]) => text!).filter((text) => text === missing);
    const before = noise(BLOCK, 2);
    for (const args of [
      ['write', `${pool}/v`],
      ['replicate', image, `${pool}/v`, '--snapshot', 't'],
      ['snapshot', `${pool}/v@u`],
      ['resize', `${pool}/v`, '--size', '2MiB'],
      ['rollback', `${pool}/v@t`],
      ['compact', `${pool}/v`],
      ['delete', `${pool}/v@u`],
      ['list', pool],
      ['restore', `${pool}/v`, fresh()],
    ]) {
      const plain = varve(args, before);
      expect(notes(plain.stderr), `${args.join(' ')}: ${plain.stderr}`).toEqual([missing]);
      expect(plain.stdout.toString()).not.toContain('missing');
      const again = args.map((word) => (word === 't' ? 'again' : word === `${pool}/v@u` ? `${pool}/v@s2` : word));
      if (args[0] === 'delete' || args[0] === 'restore') continue; // nothing to do it to any more
      const told = varve([...again, '--json'], before);
      expect(notes(told.stderr)).toEqual([missing]);
      expect((JSON.parse(told.stdout.toString()) as { notes: string[] }).notes, args.join(' ')).toContain(missing);
    }
    for (const args of [
      ['cat', `${pool}/v`],
      ['diff', `${pool}/v`, '--from', 's'],
      ['dump', pool],
    ])
      expect(notes(varve(args).stderr), args.join(' ')).toEqual([missing]);
    expect(JSON.parse(varve(['diff', `${pool}/v`, '--from', 's', '--json']).stdout.toString())).toHaveLength(1);
    for (const verb of ['status', 'check', 'scrub']) {
      const plain = varve([verb, pool]);
      expect(plain.stderr.toString(), verb).toBe('');
      expect(plain.stdout.toString().split(`note: ${missing}`), verb).toHaveLength(2);
      expect((JSON.parse(varve([verb, pool, '--json']).stdout.toString()) as { notes: string[] }).notes, verb).toContain(missing);
    }
    const failed = varve(['delete', `${pool}/w`, '--json']);
    expect(failed.status).toBe(1);
    expect(JSON.parse(failed.stdout.toString())).toMatchObject({
      error: { code: 'VARVE_NOT_FOUND' },
      notes: expect.arrayContaining([missing]),
    });
  });

  it.runIf(process.platform === 'linux')('says what failed, on which device', () => {
    const pool = fresh();
    ok('init', pool, '--volume-size', '32MiB');
    ok('create', `${pool}/v`, '--size', '64MiB');
    const limited = (...args: string[]): SpawnSyncReturns<Buffer> =>
      spawnSync('bash', ['-c', 'ulimit -f 2000; trap "" XFSZ; exec "$@"', 'bash', process.execPath, main, 'write', `${pool}/v`, ...args], {
        input: noise(BLOCK, 1),
      });
    const why =
      /^open of the log of 'v': a storage device failed \(write of 4096 bytes at \d+ of '.*volume-0000-.*\.varve': EFBIG: [^()]*\)$/;
    const plain = limited();
    expect(plain.status).toBe(1);
    expect(plain.stderr.toString().replace(/^varve: |\n$/g, '')).toMatch(why);
    const { error } = JSON.parse(limited('--json').stdout.toString()) as { error: { code: string; message: string } };
    expect(error.code).toBe('VARVE_IO');
    expect(error.message).toMatch(why);
  });

  it('says whose space it is that is not left', () => {
    const input = noise(24 * MIB, 1);
    const refused = (pool: string): string => {
      const child = varve(['write', `${pool}/v`], input);
      expect(child.status).toBe(1);
      return child.stderr.toString();
    };
    const made = (init: string[], create: string[]): string => {
      const pool = fresh();
      ok('init', pool, '--volume-size', '8MiB', ...init);
      ok('create', `${pool}/v`, '--size', '64MiB', ...create);
      return pool;
    };
    expect(refused(made(['--max-volumes', '2'], []))).toMatch(/: no space left: the pool makes no more than 2 storage volumes\n$/);
    expect(refused(made([], ['--max-volumes', '2']))).toMatch(
      /: no space left: its policy gives the volume no more than 2 storage volumes\n$/,
    );
    expect(refused(made([], ['--mode', 'fixed']))).toMatch(
      /: no space left: its policy \(mode fixed\) gives the volume no more than its 1 storage volume\n$/,
    );
    const shared = made(['--max-volumes', '2'], []);
    ok('create', `${shared}/w`, '--size', '64MiB');
    expect(refused(shared)).toMatch(/: no space left: the pool has no storage volume to give beyond the volume's 1 storage volume\n$/);
  });
});
