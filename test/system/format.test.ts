// The format as docs/FORMAT.md has it: a reader written from that text alone (test/format/reader.py) finds in real pools what Varve finds, bit for bit.
import { spawn, spawnSync } from 'node:child_process';
import {
  closeSync,
  cpSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import type { StorageDevice, WriteOptions } from '../../src/device/device.ts';
import { StoragePool } from '../../src/node.ts';
import { StoragePool as DevicePool } from '../../src/pool/pool.ts';
import { Random } from '../../src/testing/random.ts';
import { SimulatedDevice } from '../../src/testing/simulated-device.ts';
import { History, sha256, type Told } from '../format/history.ts';

const MIB = 1 << 20;
const BLOCK = 4096;
const main = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));
const reader = fileURLToPath(new URL('../format/reader.py', import.meta.url));
const writer = fileURLToPath(new URL('../format/writer.ts', import.meta.url));
const directory = mkdtempSync(join(tmpdir(), 'varve-format-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));
let count = 0;
const fresh = (): string => join(directory, `x${count++}`);

interface Listing {
  pool: string;
  virtualVolumes: {
    name: string;
    sizeBytes: number;
    sources: { name: string; sizeBytes: number }[];
    snapshots: { name: string; createdAt: string; automatic: boolean }[];
    log: { clean: boolean; incarnation: number; sequence: number; replayedEntries: number; spaces: number; storageVolumes: number[] };
  }[];
}

interface Digest {
  volume: string;
  snapshot: string | null;
  source: string;
  sizeBytes: number;
  sha256: string;
}

interface Checked {
  clean: boolean;
  blocks: number;
  problems: string[];
}

function python(args: readonly string[], status = 0): string {
  const child = spawnSync('python3', [reader, ...args], { maxBuffer: 64 * MIB, env: { ...process.env, PYTHONDONTWRITEBYTECODE: '1' } });
  expect(child.status, `reader.py ${args.join(' ')}: ${child.error?.message ?? child.stderr.toString()}`).toBe(status);
  return status === 0 || args.includes('--json') ? child.stdout.toString() : child.stderr.toString();
}

const listed = (pool: string): Listing => JSON.parse(python([pool, 'list', '--json'])) as Listing;
const checked = (pool: string, status = 0): Checked => JSON.parse(python([pool, 'check', '--json'], status)) as Checked;
const digests = (pool: string, ...more: string[]): Digest[] =>
  JSON.parse(python([pool, 'digest', ...more.flatMap((device) => ['--device', device])])) as Digest[];

function extracted(pool: string, what: string, source?: string): Buffer {
  const out = fresh();
  python([pool, 'extract', what, out, ...(source === undefined ? [] : ['--source', source])]);
  const bytes = readFileSync(out);
  rmSync(out);
  return bytes;
}

function varve(args: readonly string[], input?: Uint8Array): Buffer {
  const child = spawnSync(process.execPath, [main, ...args], { input, maxBuffer: 256 * MIB });
  expect(child.status, `varve ${args.join(' ')}: ${child.stderr}`).toBe(0);
  return child.stdout;
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

/** Which member a file is, from its label. */
const memberOf = (path: string): number => readFileSync(path)[98] as number;
const byKey = (a: Digest, b: Digest): number => (keyOf(a) < keyOf(b) ? -1 : 1);
const keyOf = ({ snapshot, source }: { snapshot: string | null; source: string }): string => JSON.stringify([snapshot, source]);

/** What Varve itself reads from a pool, which is closed then. */
async function digestsOfVarve(pool: DevicePool): Promise<Digest[]> {
  try {
    const found: Digest[] = [];
    for (const name of pool.volumes) {
      const volume = await pool.volume(name);
      const add = async (snapshot: string | null, source: string, sizeBytes: number): Promise<void> => {
        const bytes = new Uint8Array(sizeBytes);
        await (snapshot === null ? volume.source(source) : volume.source(source).at(snapshot)).read(0, bytes);
        found.push({ volume: name, snapshot, source, sizeBytes, sha256: sha256(bytes) });
      };
      for (const { name: source, sizeBytes } of volume.sources()) await add(null, source, sizeBytes);
      for (const snapshot of volume.snapshots())
        for (const { name: source, sizeBytes } of snapshot.sources) await add(snapshot.name, source, sizeBytes);
    }
    return found;
  } finally {
    await pool.close();
  }
}

/** Reader and Varve read every state alike, and the reader finds no damage. */
async function expectAlike(pool: string): Promise<Digest[]> {
  const own = digests(pool).sort(byKey);
  expect(own).toEqual((await digestsOfVarve(await StoragePool.open(pool, { readOnly: true }))).sort(byKey));
  expect(checked(pool)).toMatchObject({ clean: true, problems: [] });
  return own;
}

/** Runs the writer until it ends or, after so many steps, is killed where it happens to be. */
function history(
  pool: string,
  seed: number,
  steps: number,
  leafBlocks: number,
  segmentBlocks: number,
  size: string,
  kill: boolean,
): Promise<Told[]> {
  const args = [writer, pool, seed, kill ? 1_000_000 : steps, leafBlocks, segmentBlocks, size].map(String);
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  const told: Told[] = [];
  let error = '';
  child.stderr.on('data', (bytes: Buffer) => (error += bytes.toString()));
  createInterface({ input: child.stdout }).on('line', (line) => {
    if (!line.endsWith('}')) return; // cut off by the kill
    const one = JSON.parse(line) as Told;
    told.push(one);
    if (kill && one.step === steps) child.kill('SIGKILL');
  });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => {
      if (kill ? signal === 'SIGKILL' : code === 0) resolve(told);
      else reject(new Error(`writer, seed ${seed}: ended with ${code ?? signal}: ${error}`));
    });
  });
}

/** Of what the writer told, all that cannot have gone again is there. */
function expectKept(told: readonly Told[], found: readonly Digest[]): number {
  const there = new Map(found.map((one) => [keyOf(one), one.sha256]));
  const deleted = new Set(told.map((one) => one.delete));
  let kept = 0;
  for (const one of told) {
    if (one.snapshot === undefined || deleted.has(one.snapshot)) continue;
    expect(there.get(keyOf({ snapshot: one.snapshot, source: one.source ?? '' })), one.snapshot).toBe(one.sha256);
    kept++;
  }
  return kept;
}

/** A device that obeys so many writes and flushes, and then is not there any more. */
class Plug implements StorageDevice {
  readonly sizeBytes: number;
  readonly blockSize: number;
  readonly supports: StorageDevice['supports'];
  readonly #device: SimulatedDevice;
  readonly #power: { left: number };

  constructor(device: SimulatedDevice, power: { left: number }) {
    this.#device = device;
    this.#power = power;
    this.sizeBytes = device.sizeBytes;
    this.blockSize = device.blockSize;
    this.supports = { ...device.supports, sync: false };
  }

  async #while(command: () => Promise<void>, cost: number): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve)); // so that others come in between
    if (this.#power.left <= 0) throw new Error('no power');
    this.#power.left -= cost;
    await command();
  }

  read(offset: number, into: Uint8Array): Promise<void> {
    return this.#while(() => this.#device.read(offset, into), 0);
  }

  write(offset: number, from: Uint8Array, options?: WriteOptions): Promise<void> {
    return this.#while(() => this.#device.write(offset, from, options), 1);
  }

  flush(): Promise<void> {
    return this.#while(() => this.#device.flush(), 1);
  }

  async close(): Promise<void> {}
  async [Symbol.asyncDispose](): Promise<void> {}
}

interface Shape {
  leafBlocks: number;
  segmentBlocks: number;
  sizeBytes: number;
}

/** Several lives of a pool on two devices, with failing writes and flushes, each ended by a power cut; after each, reader and Varve must agree. */
async function powerCuts(seed: number, lives: number, shape: Shape): Promise<void> {
  const random = new Random(seed);
  const devices = [0, 1].map(() => new SimulatedDevice({ sizeBytes: shape.sizeBytes, random }));
  const files = devices.map(() => fresh());
  const geometry = { leafBlocks: shape.leafBlocks, checkpointEntries: 500, unflushedLimitBytes: 1 << 20 };
  const told: Told[] = [];
  for (let life = 0; life < lives; life++) {
    const power = { left: Infinity };
    const plugs = devices.map((device) => new Plug(device, power));
    const cut = random.between(5, 300);
    let pool: DevicePool | undefined;
    try {
      if (life === 0) pool = await DevicePool.create(plugs, { segmentBlocks: shape.segmentBlocks, geometry });
      else {
        power.left = cut;
        pool = await DevicePool.openDevices(plugs, { geometry });
      }
      const history = await History.begin(pool, random, (line) => told.push(line));
      power.left = Math.min(power.left, cut);
      for (let fault = random.below(3); fault > 0; fault--)
        devices[random.below(2)]?.arm(random.chance(0.5) ? 'flushFails' : 'writeFails', random.below(60));
      // A second failure makes the log read-only: then nothing uses up the power any more.
      for (let step = 0; power.left > 0 && step < 200; step++) {
        try {
          await history.step();
        } catch {
          await history.load();
        }
      }
    } catch (error) {
      if (power.left > 0 && !devices.some((device) => device.fired.size > 0)) throw error;
    }
    power.left = 0;
    await pool?.close().catch(() => undefined);
    for (const [index, device] of devices.entries()) {
      device.disarm();
      device.fired.clear();
      device.crash();
      const bytes = new Uint8Array(device.sizeBytes);
      device.readSync(0, bytes);
      writeFileSync(files[index] ?? '', bytes);
    }
    const live = devices.map((device) => new Plug(device, { left: Infinity }));
    const found = digests(files[0] ?? '', files[1] ?? '').sort(byKey);
    expect(found, `life ${life}`).toEqual((await digestsOfVarve(await DevicePool.openDevices(live, { readOnly: true }))).sort(byKey));
    expectKept(told, found);
  }
  for (const file of files) rmSync(file);
}

describe('the reader written from FORMAT.md', () => {
  it('knows XXH64', () => {
    const program = [
      'import sys; sys.path.insert(0, sys.argv[1]); from reader import xxh64',
      'text = lambda n: bytes(sanity[:n])',
      'sanity, g = [], 2654435761',
      'for i in range(222): sanity.append(g >> 56); g = g * 11400714785074694797 & (1 << 64) - 1',
      'print([hex(xxh64(text(n), s)) for n, s in ((0, 0), (0, 2654435761), (1, 0), (4, 0), (14, 2654435761), (222, 0), (222, 2654435761))])',
    ].join('\n');
    const child = spawnSync('python3', ['-B', '-c', program, join(reader, '..')]);
    expect(child.stderr.toString()).toBe('');
    expect(child.stdout.toString().match(/0x[0-9a-f]+/g)).toEqual([
      '0xef46db3751d8e999',
      '0xac75fda2929b17ef',
      '0xe934a84adb052768',
      '0x9136a0dca57457ee',
      '0xc3bd6bf63deb6df0',
      '0xb641ae8cb691c174',
      '0x20cb8ab7ae10c14a',
    ]);
  });

  it('lists and extracts what the command line made: snapshots, rollback, resize, deletes, several sources and volumes', async () => {
    const pool = fresh();
    const image = fresh();
    varve(['init', pool, '--volume-size', '16MiB', '--max-volumes', '20']);
    const monday = Buffer.alloc(24 * MIB + 1000);
    noise(20 * MIB, 1).copy(monday, 2 * MIB);
    noise(1000, 2).copy(monday, 24 * MIB);
    writeFileSync(image, monday);
    varve(['replicate', image, `${pool}/disk`, '--snapshot', 'monday']);
    const tuesday = Buffer.from(monday);
    noise(10, 3).copy(tuesday, 3 * MIB + 17);
    tuesday.fill(0, 5 * MIB, 6 * MIB);
    writeFileSync(image, tuesday);
    varve(['replicate', image, `${pool}/disk`, '--snapshot', 'tuesday']);
    varve(['rollback', `${pool}/disk@monday`]);
    const written = noise(70_000, 4);
    varve(['write', `${pool}/disk`, '--offset', '5000'], written);
    varve(['resize', `${pool}/disk`, '--size', `${20 * MIB + 10}`]);
    varve(['snapshot', `${pool}/disk@small`]);
    varve(['resize', `${pool}/disk`, '--size', '24MiB']);
    const now = Buffer.alloc(24 * MIB);
    monday.copy(now, 0, 0, 20 * MIB + 10);
    written.copy(now, 5000);

    const [a, b] = [fresh(), fresh()];
    writeFileSync(a, noise(100_000, 5));
    writeFileSync(b, noise(200_000, 6));
    varve(['replicate', a, `${pool}/host`, '--source', 'a', '--snapshot', 'a1']);
    varve(['replicate', b, `${pool}/host`, '--source', 'b', '--snapshot', 'b1']);

    const own = JSON.parse(varve(['list', pool, '--json']).toString()) as Listing;
    const listing = listed(pool);
    expect(listing.pool).toBe((JSON.parse(varve(['status', pool, '--json']).toString()) as { pool: { id: string } }).pool.id);
    expect(listing.virtualVolumes.map(({ name, sizeBytes }) => ({ name, sizeBytes }))).toEqual(
      own.virtualVolumes.map(({ name, sizeBytes }) => ({ name, sizeBytes })),
    );
    for (const [index, volume] of listing.virtualVolumes.entries()) {
      expect(volume.snapshots.map(({ name, createdAt }) => ({ name, createdAt }))).toEqual(
        own.virtualVolumes[index]?.snapshots.map(({ name, createdAt }) => ({ name, createdAt })),
      );
      expect(volume.log.clean).toBe(true);
    }
    expect(listing.virtualVolumes[0]?.log.storageVolumes.length).toBeGreaterThan(1);

    expect(extracted(pool, 'disk@monday').equals(monday)).toBe(true);
    expect(extracted(pool, 'disk@tuesday').equals(tuesday)).toBe(true);
    expect(extracted(pool, 'disk@small').equals(now.subarray(0, 20 * MIB + 10))).toBe(true);
    expect(extracted(pool, 'disk').equals(now)).toBe(true);
    const left = listing.virtualVolumes[0]?.snapshots.find((snapshot) => snapshot.automatic)?.name ?? '';
    expect(extracted(pool, `disk@${left}`).equals(tuesday)).toBe(true);
    expect(extracted(pool, 'host', 'b').equals(noise(200_000, 6))).toBe(true);
    expect(extracted(pool, 'host@a1').equals(noise(100_000, 5))).toBe(true);
    const target = fresh();
    for (const what of ['disk@monday', `disk@${left}`, 'disk']) {
      const own = extracted(pool, what);
      expect(varve(['cat', `${pool}/${what}`]).equals(own), what).toBe(true);
      varve(['restore', `${pool}/${what}`, target]);
      expect(readFileSync(target).equals(own), what).toBe(true);
      rmSync(target);
    }
    await expectAlike(pool);

    // What was left by the rollback goes, its space merges, live blocks move, storage volumes are given back.
    for (const snapshot of ['monday', 'tuesday', left]) varve(['delete', `${pool}/disk@${snapshot}`]);
    varve(['delete', `${pool}/host`]);
    varve(['compact', `${pool}/disk`]);
    expect(extracted(pool, 'disk').equals(now)).toBe(true);
    expect(extracted(pool, 'disk@small').equals(now.subarray(0, 20 * MIB + 10))).toBe(true);
    expect(listed(pool).virtualVolumes[0]?.log.spaces).toBe(1);
    await expectAlike(pool);
  });

  it('replays what a writer on the command line left when it was killed', async () => {
    const pool = fresh();
    const bytes = noise(6 * MIB, 1);
    varve(['init', pool, '--volume-size', '32MiB']);
    varve(['create', `${pool}/v`, '--size', '64MiB']);
    varve(['write', `${pool}/v`], bytes.subarray(0, MIB));
    varve(['snapshot', `${pool}/v@s`]);
    for (let round = 0; round < 3; round++) {
      const child = spawn(process.execPath, [main, 'write', `${pool}/v`, '--offset', '1MiB'], { stdio: ['pipe', 'ignore', 'ignore'] });
      child.stdin.on('error', () => undefined);
      child.stdin.write(noise(20 * MIB, round + 2));
      const exited = new Promise((resolve) => child.once('exit', resolve));
      await new Promise((resolve) => setTimeout(resolve, 250 + 120 * round));
      child.kill('SIGKILL');
      await exited;
      expect(extracted(pool, 'v').subarray(0, MIB).equals(bytes.subarray(0, MIB))).toBe(true);
      expect(varve(['cat', `${pool}/v`]).equals(extracted(pool, 'v'))).toBe(true);
      expect(extracted(pool, 'v@s').subarray(0, MIB).equals(bytes.subarray(0, MIB))).toBe(true);
      await expectAlike(pool);
    }
  });

  // Leaves of one page and of several, an index over the pages and none, footers of 1 and of 6 blocks.
  it.each([
    { leafBlocks: 16, segmentBlocks: 16, size: '16MiB' },
    { leafBlocks: 64, segmentBlocks: 8, size: '32MiB' },
    { leafBlocks: 512, segmentBlocks: 32, size: '8MiB' },
    { leafBlocks: 1024, segmentBlocks: 1024, size: '128MiB' },
  ])(
    'reads random histories, closed and killed: $leafBlocks blocks a leaf, $segmentBlocks a segment',
    async ({ leafBlocks, segmentBlocks, size }) => {
      const pool = fresh();
      const told: Told[] = [];
      let replayed = 0;
      const seed = leafBlocks * 7 + segmentBlocks;
      for (let round = 0; round < 4; round++) {
        const kill = round % 4 !== 2;
        told.push(...(await history(pool, seed + round, kill ? 60 + 37 * round : 80, leafBlocks, segmentBlocks, size, kill)));
        const found = await expectAlike(pool);
        expectKept(told, found);
        const log = listed(pool).virtualVolumes[0]?.log;
        expect(log?.clean).toBe(!kill);
        expect(log?.incarnation).toBe(round + 1);
        replayed += log?.replayedEntries ?? 0;
        if (!kill) {
          for (const one of told.slice(-3)) {
            if (one.flushed !== undefined)
              expect(found.find((state) => state.snapshot === null && state.source === one.flushed)?.sha256).toBe(one.sha256);
          }
        }
      }
      expect(replayed).toBeGreaterThan(0);
      expect(expectKept(told, digests(pool))).toBeGreaterThan(0);
    },
  );

  it('replays the merge of a space into the one that stands on it', async () => {
    const device = new SimulatedDevice({ sizeBytes: 16 * MIB });
    const power = { left: Infinity };
    const pool = await DevicePool.create([new Plug(device, power)], { segmentBlocks: 64, geometry: { leafBlocks: 16 } });
    const volume = await pool.createVolume('disk', { size: MIB });
    const whole = noise(MIB, 1);
    await volume.write(0, whole);
    await volume.snapshot('old');
    await volume.write(0, noise(MIB / 2, 2));
    const left = await volume.rollback('old');
    await volume.snapshot('kept');
    await volume.write(8 * BLOCK, noise(40 * BLOCK, 3)); // over what only the parent has: goes under it, into its history
    await volume.discard(100 * BLOCK, 20 * BLOCK);
    const now = Buffer.from(whole);
    noise(40 * BLOCK, 3).copy(now, 8 * BLOCK);
    now.fill(0, 100 * BLOCK, 120 * BLOCK);
    await volume.deleteSnapshot('old');
    await volume.deleteSnapshot(left); // now nothing but its child holds the first space
    const file = fresh();
    let log: Listing['virtualVolumes'][number]['log'] | undefined;
    for (let tries = 0; log?.spaces !== 1 && tries < 50; tries++) {
      await volume.flush();
      const bytes = new Uint8Array(device.sizeBytes);
      device.readSync(0, bytes);
      writeFileSync(file, bytes);
      log = listed(file).virtualVolumes[0]?.log;
    }
    power.left = 0;
    await pool.close().catch(() => undefined);
    expect(log).toMatchObject({ clean: false, spaces: 1 });
    expect(log?.replayedEntries).toBe(log?.sequence); // all of it, for there was no checkpoint
    expect(extracted(file, 'disk').equals(now)).toBe(true);
    expect(extracted(file, 'disk@kept').equals(whole)).toBe(true);
    expect(checked(file)).toMatchObject({ clean: true });
  });

  // FORMAT_SEEDS=first,count tries others.
  it.each([
    { leafBlocks: 16, segmentBlocks: 16, sizeBytes: 16 * MIB },
    { leafBlocks: 512, segmentBlocks: 64, sizeBytes: 16 * MIB },
    { leafBlocks: 64, segmentBlocks: 8, sizeBytes: 24 * MIB },
  ])('reads what power cuts leave: $leafBlocks blocks a leaf, $segmentBlocks a segment', async (shape) => {
    const [first = 1, many = 1] = (process.env['FORMAT_SEEDS'] ?? '1,1').split(',').map(Number);
    for (let seed = first; seed < first + many; seed++) {
      await powerCuts(seed, 4, shape).catch((error: unknown) => {
        throw new Error(`seed ${seed}, ${JSON.stringify(shape)}: ${error instanceof Error ? error.message : String(error)}`, {
          cause: error,
        });
      });
    }
  });

  it.each([
    ['0', 2, 0, '64KiB'],
    ['1', 2, 1, '4KiB'],
    ['5', 3, 1, '4KiB'],
    ['5', 4, 1, '16KiB'],
    ['6', 4, 2, '4KiB'],
    ['6', 6, 2, '8KiB'],
    ['10', 4, 2, '4KiB'],
  ] as const)(
    'reads RAID %s over %i: closed, broken off, and without %i members (strips of %s)',
    async (level, members, lost, stripSize) => {
      const path = fresh();
      const pool = await StoragePool.init(path, { raid: level, members, stripSize, volumeSize: '16MiB' });
      const volume = await pool.createVolume('v', { size: '4MiB' });
      const random = new Random(100 + members);
      for (let step = 0; step < 60; step++) {
        const offset = random.below(1000) * 4096;
        if (random.chance(0.8)) await volume.write(offset, noise(4096 * (1 + random.below(20)), random.word() | 1));
        else await volume.discard(offset, 4096 * (1 + random.below(20)));
        if (random.chance(0.4)) await volume.flush();
        if (step % 20 === 10) await volume.snapshot(`s${step}`);
      }
      await volume.flush();
      const crashed = fresh();
      cpSync(path, crashed, { recursive: true });
      rmSync(join(crashed, 'pool.json'), { force: true });
      await pool.close();
      const states = await expectAlike(path);
      expect(states).toHaveLength(4);
      expect(digests(crashed).sort(byKey)).toEqual(states);
      const files = readdirSync(path)
        .filter((name) => name.endsWith('.varve'))
        .toSorted();
      expect(files).toHaveLength(members);
      // Of a mirror's pairs one each: which file is which member only its label says.
      const gone = level === '10' ? files.filter((name) => memberOf(join(path, name)) % 2 === 0) : files.slice(0, lost);
      for (const name of gone) rmSync(join(path, name));
      expect(digests(path).sort(byKey)).toEqual(states);
      rmSync(path, { recursive: true });
      rmSync(crashed, { recursive: true });
    },
  );

  it('finds flipped bits, and reads on where there is a second copy', () => {
    const pool = fresh();
    const image = fresh();
    varve(['init', pool, '--volume-size', '16MiB']);
    const bytes = noise(2 * MIB, 7);
    writeFileSync(image, bytes);
    varve(['replicate', image, `${pool}/disk`, '--snapshot', 's']);
    const [name = ''] = readdirSync(pool).filter((entry) => entry.endsWith('.varve'));
    const path = join(pool, name);
    const whole = readFileSync(path);
    const flip = (...offsets: number[]): void => {
      const descriptor = openSync(path, 'r+');
      writeSync(descriptor, whole, 0, whole.length, 0);
      for (const offset of offsets) writeSync(descriptor, Uint8Array.of((whole[offset] ?? 0) ^ 0x10), 0, 1, offset);
      closeSync(descriptor);
    };
    expect(checked(pool)).toEqual({ clean: true, blocks: 512, problems: [] });

    const block = whole.indexOf(bytes.subarray(64 * BLOCK, 65 * BLOCK));
    flip(block + 100);
    expect(checked(pool, 1).problems).toHaveLength(1);
    expect(python([pool, 'extract', 'disk@s', fresh()], 1)).toContain('virtual block 64');

    const root = BLOCK + 2 * 65536;
    const back = whole.length - root - 2 * BLOCK;
    const page = whole.lastIndexOf(Buffer.from('VVP1')); // earlier ones may be of an older checkpoint
    expect(page).toBeGreaterThan(0);
    for (const offset of [50, back + 4000, root + 70, back + root + 2000, BLOCK + 200, page + 3]) {
      flip(offset);
      expect(checked(pool, 1).problems, String(offset)).toHaveLength(1);
      expect(extracted(pool, 'disk@s').equals(bytes), String(offset)).toBe(true);
    }
    flip(50, back + 50);
    expect(python([pool, 'list'], 1)).toContain('no sound label');
    flip(root + 70, back + root + 70);
    expect(python([pool, 'list'], 1)).toContain('both copies of root A are damaged');
    flip();
    truncateSync(path, whole.length - BLOCK);
    expect(python([pool, 'list'], 1)).toContain('shorter than its label says');
  });
});
