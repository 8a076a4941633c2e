// Pools on several members, as files and as loop devices: what two lost, zeroed, cut, deleted or swapped devices of RAID 6 cost (nothing), and that a
// scrub finds and mends exactly what is wrong. Command line and package, on real devices; the odd moments are the simulator's (test/model).
import { execFileSync, spawnSync } from 'node:child_process';
import { closeSync, cpSync, openSync, readFileSync, renameSync, rmSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { replicate, StoragePool } from '../../src/node.ts';
import { Random } from '../../src/testing/random.ts';
import { amount, BLOCK, failure, json, MIB, noise, record, SEED, varve, Workshop } from './support.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const workshop = new Workshop();
afterAll(() => workshop.dispose());

const IMAGE_BYTES = amount(8, 128) * MIB;
const DEVICE_BYTES = amount(24, 384) * MIB;

interface Status {
  readonly storageVolumes: readonly {
    readonly id: number;
    readonly state: string;
    readonly raid: string;
    readonly devices: readonly { readonly path: string; readonly state: string }[];
  }[];
}
interface Scrub {
  readonly clean: boolean;
  readonly healed: readonly { readonly where: string; readonly what: string }[];
  readonly problems: readonly { readonly message: string }[];
}

function blankFiles(count: number): string[] {
  return Array.from({ length: count }, () => {
    const path = workshop.fresh();
    writeFileSync(path, '');
    truncateSync(path, DEVICE_BYTES);
    return path;
  });
}

/** A file system with the sources of this project in it, and something that does not compress; `mke2fs` and `debugfs` need no privileges. */
function makeImage(image: string): void {
  const tree = workshop.fresh();
  for (const folder of ['src', 'assembly']) cpSync(join(ROOT, folder), join(tree, folder), { recursive: true });
  writeFileSync(join(tree, 'noise'), noise(new Uint8Array(IMAGE_BYTES / 4), SEED));
  execFileSync('mke2fs', ['-q', '-F', '-t', 'ext4', '-d', tree, image, `${IMAGE_BYTES / 1024}k`]);
  rmSync(tree, { recursive: true });
}

/** The image as it is after somebody worked with it. */
function work(image: string, round: number): void {
  const file = workshop.fresh();
  writeFileSync(file, noise(new Uint8Array(IMAGE_BYTES / 8), SEED + round));
  const lines = [`write ${file} round${round}`, ...(round > 1 ? [`rm round${round - 1}`] : []), 'rm src/index.ts', 'mkdir kept', ''];
  const child = spawnSync('debugfs', ['-w', '-f', '-', image], { input: lines.join('\n') });
  expect(child.status).toBe(0);
  rmSync(file);
}

/** A pool with two snapshots of an image, and copies of both states. */
function makePool(level: string, devices: readonly string[], ...more: string[]): { pool: string; image: string; states: string[] } {
  const pool = workshop.fresh();
  const image = workshop.fresh();
  const states = [workshop.fresh(), workshop.fresh()];
  json('init', pool, '--raid', level, ...devices.flatMap((device) => ['--device', device]), ...more);
  makeImage(image);
  cpSync(image, states[0]!);
  json('replicate', image, `${pool}/v`, '--snapshot', 'one');
  work(image, 1);
  cpSync(image, states[1]!);
  json('replicate', image, `${pool}/v`, '--snapshot', 'two');
  return { pool, image, states };
}

function expectStates(pool: string, states: readonly string[], ...more: string[]): void {
  states.forEach((state, index) => {
    const target = workshop.fresh();
    const name = ['one', 'two', 'three'][index]!;
    json('restore', `${pool}/v@${name}`, target, ...more);
    expect(readFileSync(target).equals(readFileSync(state)), `snapshot ${name} of ${pool}`).toBe(true);
    rmSync(target);
  });
}

const memberStates = (pool: string): string[] =>
  json<Status>('status', pool).storageVolumes.flatMap((volume) => volume.devices.map((device) => device.state));

/** The members' states, and which of them are these devices. */
const membersOf = (pool: string, ...spares: string[]): string[][] =>
  json<Status>('status', pool).storageVolumes.map((volume) =>
    volume.devices.map((device) => `${spares.includes(device.path) ? 'spare ' : ''}${device.state}`),
  );

function zero(path: string): void {
  const descriptor = openSync(path, 'r+');
  const zeroes = new Uint8Array(MIB);
  for (let at = 0; at < DEVICE_BYTES; at += MIB) writeSync(descriptor, zeroes, 0, MIB, at);
  closeSync(descriptor);
}

/** Loop devices over files, which go with the test. */
function loopDevices(files: readonly string[]): string[] {
  return files.map((file) => execFileSync('losetup', ['-f', '--show', file], { encoding: 'utf8' }).trim());
}
/** They need privileges: where there are none, files stand for them. */
const loops = ((): boolean => {
  const file = workshop.fresh();
  writeFileSync(file, '');
  truncateSync(file, MIB);
  const made = spawnSync('losetup', ['-f', '--show', file], { encoding: 'utf8' });
  if (made.status !== 0) return false;
  spawnSync('losetup', ['-d', made.stdout.trim()]);
  return true;
})();

/** What becomes of two members while somebody writes: members 1 and 4, the first one before the second. */
const HARMS: readonly {
  readonly name: string;
  readonly on: readonly ('files' | 'loop devices')[];
  /** `file` is what the device is made of. */
  readonly harm: (file: string, device: string) => void;
  /** Whether they can be replaced by themselves; else others take their places. */
  readonly again: boolean;
  /** Members that are not online when the pool is opened again. */
  readonly lost: number;
}[] = [
  { name: 'zeroed', on: ['files', 'loop devices'], harm: (_, device) => zero(device), again: true, lost: 2 },
  { name: 'cut to half', on: ['files', 'loop devices'], harm: (file) => truncateSync(file, DEVICE_BYTES / 2), again: false, lost: NaN },
  { name: 'deleted', on: ['files'], harm: (file) => rmSync(file), again: false, lost: 2 },
  { name: 'swapped with each other', on: ['files'], harm: swapped, again: false, lost: 0 },
];

function exchange(a: string, b: string): void {
  renameSync(a, `${a}.aside`);
  renameSync(b, a);
  renameSync(`${a}.aside`, b);
}
/** The second of two calls does it. */
function swapped(file: string): void {
  if (waiting === undefined) waiting = file;
  else {
    exchange(waiting, file);
    waiting = undefined;
  }
}
let waiting: string | undefined;

describe('RAID 6 over six devices', { timeout: 300_000 }, () => {
  for (const kind of ['files', ...(loops ? (['loop devices'] as const) : [])] as const) {
    for (const { name, on, harm, again, lost } of HARMS) {
      if (!on.includes(kind)) continue;
      it(`on ${kind}: two of them ${name} while a replication runs cost nothing (seed ${SEED})`, async () => {
        const files = blankFiles(8);
        const devices = kind === 'files' ? files : loopDevices(files);
        try {
          const { pool, image, states } = makePool('6', devices.slice(0, 6));
          work(image, 2);
          states.push(workshop.fresh());
          cpSync(image, states[2]!);
          const open = await StoragePool.open(pool);
          let harmed = 0;
          await replicate(image, await open.volume('v'), {
            snapshot: 'three',
            onProgress: ({ scannedBytes }) => {
              for (const [share, which] of [
                [1 / 4, 1],
                [1 / 2, 4],
              ] as const)
                if (harmed === (which === 1 ? 0 : 1) && scannedBytes > IMAGE_BYTES * share)
                  harm(files[which]!, devices[(harmed++, which)]!);
            },
          });
          await open.close();
          expect(harmed).toBe(2);
          if (!Number.isNaN(lost)) expect(memberStates(pool).filter((state) => state !== 'online').length).toBe(lost);
          expectStates(pool, states);
          for (const [which, fresh] of [
            [1, 6],
            [4, 7],
          ] as const)
            json('replace', pool, '--volume', '0', '--device', devices[which]!, devices[again ? which : fresh]!);
          expect(memberStates(pool)).toEqual(Array(6).fill('online'));
          expect(json<Scrub>('scrub', pool)).toMatchObject({ clean: true, healed: [], problems: [] });
          expectStates(pool, states);
          expect(json<{ clean: boolean }>('check', pool).clean).toBe(true);
        } finally {
          if (kind !== 'files') for (const device of devices) execFileSync('losetup', ['-d', device]);
        }
      });
    }
  }

  it('two cut to half, two deleted, two swapped: all the same; a third is one too many, and named', () => {
    const devices = blankFiles(6);
    const { pool, states } = makePool('6', devices);
    exchange(devices[0]!, devices[3]!);
    expect(json<Scrub>('scrub', pool).clean).toBe(true);
    expectStates(pool, states);
    exchange(devices[0]!, devices[3]!);

    for (const which of [2, 5]) truncateSync(devices[which]!, DEVICE_BYTES / 2);
    expectStates(pool, states);
    expect(varve('check', pool).status).toBe(1); // degraded, and says so
    const fresh = blankFiles(2);
    json('replace', pool, '--volume', '0', '--device', devices[2]!, fresh[0]!);
    json('replace', pool, '--volume', '0', '--device', devices[5]!, fresh[1]!);
    expect(json<Scrub>('scrub', pool).clean).toBe(true);
    expectStates(pool, states);

    rmSync(devices[0]!);
    rmSync(devices[1]!);
    expectStates(pool, states);
    rmSync(fresh[0]!);
    const refused = varve('restore', `${pool}/v@one`, workshop.fresh());
    expect(refused.status).toBe(1);
    for (const gone of [devices[0]!, devices[1]!, fresh[0]!]) expect(refused.stderr).toContain(gone);
  });
});

/** Where the labels of a pool's members lie, and the data area, in blocks; the same on all. */
async function layoutOf(pool: string): Promise<{ labels: [number, number]; dataBlocks: [number, number] }> {
  const open = await StoragePool.open(pool, { readOnly: true });
  const { lines, devices } = await open.describe();
  await open.close();
  const labels = devices[0]!.ranges.filter((range) => range.what === 'label').map((range) => range.offset / BLOCK);
  const from = Number(/from byte (\d+)/.exec(lines.join('\n'))?.[1]) / BLOCK;
  return { labels: [labels[0]!, labels[1]!], dataBlocks: [from, labels[1]!] };
}

describe('overwriting 1 % of the blocks of one member', { timeout: 300_000 }, () => {
  for (const [level, members, strip] of [
    ['1', 2, '4KiB'],
    ['5', 4, '4KiB'],
    ['6', 5, '16KiB'],
    ['10', 4, '64KiB'],
  ] as const) {
    it(`RAID ${level}: every snapshot is as it was, a scrub mends exactly what is in use, a second finds nothing (seed ${SEED})`, async () => {
      const devices = blankFiles(members);
      const { pool, states } = makePool(level, devices, '--strip-size', strip);
      expect(json<Scrub>('scrub', pool).clean).toBe(true);
      const { dataBlocks, labels } = await layoutOf(pool);
      const random = new Random(SEED + members);
      const victim = devices[random.below(members)]!;
      const before = readFileSync(victim);
      const descriptor = openSync(victim, 'r+');
      const [front, back] = labels;
      const overwritten = new Set<number>([front]); // one of its labels for certain; without both it would be nobody's
      const rubbish = new Uint8Array(BLOCK);
      while (overwritten.size < DEVICE_BYTES / BLOCK / 100) {
        const block = random.below(DEVICE_BYTES / BLOCK);
        if (block !== back) overwritten.add(block);
      }
      for (const block of overwritten) writeSync(descriptor, noise(rubbish, SEED + block), 0, BLOCK, block * BLOCK);
      closeSync(descriptor);
      // The label's turn comes when the pool is opened for writing; everything before is read without that.
      expectStates(pool, states);
      const scrub = json<Scrub & { notes: string[] }>('scrub', pool);
      expect(scrub.problems).toEqual([]);
      expect(scrub.notes.filter((note) => note.includes('front label was damaged and has been mended'))).toHaveLength(1);
      const after = readFileSync(victim);
      const at = (bytes: Buffer, block: number): Buffer => bytes.subarray(block * BLOCK, (block + 1) * BLOCK);
      const isData = (block: number): boolean => block >= dataBlocks[0] && block < dataBlocks[1];
      const inOrder = (blocks: Iterable<number>): number[] => [...blocks].toSorted((a, b) => a - b);
      // What it says it has mended is what was wrong and is right again, and nothing else; what is not in use is as it was left.
      const said = scrub.healed
        .filter((one) => one.what === 'row')
        .map((one) => Number(/byte (\d+) of its members/.exec(one.where)?.[1]) / BLOCK)
        .filter(isData);
      const mended = [...overwritten].filter((block) => isData(block) && at(after, block).equals(at(before, block)));
      record('raid-rot', { level, overwritten: overwritten.size, mended: mended.length });
      expect(mended.length).toBeGreaterThan(0);
      expect(inOrder(said)).toEqual(inOrder(mended));
      for (const block of overwritten)
        if (isData(block) && !mended.includes(block))
          expect(at(after, block).equals(noise(rubbish, SEED + block)), `block ${block}`).toBe(true);
      expect(at(after, front).equals(at(before, front))).toBe(true);
      expect(json<Scrub>('scrub', pool)).toMatchObject({ clean: true, healed: [] });
      // Nothing that is in use was left: without another member everything has to come from this one too.
      const other = devices.find((device, index) => device !== victim && (level !== '10' || index >> 1 === devices.indexOf(victim) >> 1))!;
      renameSync(other, `${other}.gone`);
      expectStates(pool, states);
      renameSync(`${other}.gone`, other);
      expect(memberStates(pool)).toEqual(Array(members).fill('online'));
    });
  }
});

describe('members that go and come back', { timeout: 300_000 }, () => {
  it('what comes back stale is rebuilt and not believed; two histories are refused', () => {
    const devices = blankFiles(2);
    const { pool, states } = makePool('1', devices);
    renameSync(devices[1]!, `${devices[1]!}.away`);
    const source = workshop.fresh();
    writeFileSync(source, noise(readFileSync(states[1]!).subarray(0, MIB), 5));
    json('replicate', source, `${pool}/v`, '--snapshot', 'three'); // written without it
    renameSync(`${devices[1]!}.away`, devices[1]!);
    expect(memberStates(pool)).toEqual(['online', 'missing']);
    expect(json<Scrub>('scrub', pool).problems).toEqual([]); // opened for writing: it is rebuilt, and a scrub waits for that
    expect(memberStates(pool)).toEqual(['online', 'online']);
    renameSync(devices[0]!, `${devices[0]!}.away`);
    expectStates(pool, states);
    // Used alone, each of the two: neither is the truth.
    json('snapshot', `${pool}/v@only1`);
    renameSync(devices[1]!, `${devices[1]!}.away`);
    renameSync(`${devices[0]!}.away`, devices[0]!);
    json('snapshot', `${pool}/v@only0`);
    renameSync(`${devices[1]!}.away`, devices[1]!);
    expect(failure('status', pool)).toBe('VARVE_FENCED');
  });

  it('a spare takes the place of a member that is missing', () => {
    const devices = blankFiles(3);
    const { pool, states } = makePool('5', devices);
    rmSync(devices[1]!);
    const [spare] = blankFiles(1) as [string];
    json('compact', `${pool}/v`); // opened for writing: it is missing from here on
    json('spare', pool, '--device', spare);
    expect(membersOf(pool, spare)).toEqual([['online', 'spare online', 'online']]);
    expect(json<Scrub>('scrub', pool).clean).toBe(true);
    expectStates(pool, states);
  });

  it('a spare takes the place of a member that is not there when the pool is opened; what comes back then is nobody’s', () => {
    const devices = blankFiles(6);
    const { pool, states } = makePool('6', devices.slice(0, 4));
    const spares = devices.slice(4);
    for (const spare of spares) json('spare', pool, '--device', spare);
    renameSync(devices[0]!, `${devices[0]!}.away`);
    renameSync(devices[2]!, `${devices[2]!}.away`);
    expect(membersOf(pool, ...spares)[0]).toEqual(['missing', 'online', 'missing', 'online']); // opened for reading: nothing changes
    expectStates(pool, states);
    expect(json<Scrub>('scrub', pool).problems).toEqual([]); // opened for writing; it waits for the rebuild
    expect(membersOf(pool, ...spares)).toEqual([['spare online', 'online', 'spare online', 'online']]);
    for (const which of [0, 2]) renameSync(`${devices[which]!}.away`, devices[which]!);
    expect(json<Scrub>('scrub', pool)).toMatchObject({ clean: true, healed: [] });
    expect(membersOf(pool, ...spares)).toEqual([['spare online', 'online', 'spare online', 'online']]);
    for (const which of [1, 3]) rmSync(devices[which]!);
    expectStates(pool, states); // everything is on the spares
  });

  it('a spare for failed members alone leaves one that is missing its place, and it is rebuilt when it is back', () => {
    const devices = blankFiles(4);
    const { pool, states } = makePool('5', devices.slice(0, 3));
    const spare = devices[3]!;
    json('spare', pool, '--device', spare, '--failed-only');
    renameSync(devices[1]!, `${devices[1]!}.away`);
    json('snapshot', `${pool}/v@without`);
    expect(membersOf(pool, spare)).toEqual([['online', 'missing', 'online'], ['spare online']]);
    renameSync(`${devices[1]!}.away`, devices[1]!);
    expect(json<Scrub>('scrub', pool).problems).toEqual([]);
    expect(membersOf(pool, spare)).toEqual([['online', 'online', 'online'], ['spare online']]);
    rmSync(devices[0]!);
    expectStates(pool, states);
  });

  it('replace says what was damaged beyond repair before, and ends with 1', async () => {
    const devices = blankFiles(2);
    const { pool } = makePool('1', devices);
    rmSync(devices[1]!);
    const { dataBlocks } = await layoutOf(pool);
    const file = openSync(devices[0]!, 'r+');
    writeSync(file, noise(new Uint8Array(64 * BLOCK), 77), 0, 64 * BLOCK, (dataBlocks[0] + 10) * BLOCK);
    closeSync(file);
    const [fresh] = blankFiles(1);
    const { status, stdout } = varve('replace', pool, '--volume', '0', '--device', devices[1]!, fresh!);
    expect(stdout.toString()).toContain('damaged beyond repair before');
    expect(status).toBe(1);
    expect(varve('check', pool).status).toBe(1);
  });

  it('storage volumes of several levels in one pool, and RAID in a pool directory', () => {
    const pool = workshop.fresh();
    json('init', pool, '--raid', '5', '--volume-size', '16MiB');
    const image = workshop.fresh();
    writeFileSync(image, noise(new Uint8Array(20 * MIB), 9));
    json('replicate', image, `${pool}/v`, '--snapshot', 'one');
    const status = json<Status>('status', pool);
    expect(status.storageVolumes.length).toBeGreaterThan(1);
    expect(status.storageVolumes.every((volume) => volume.raid === '5' && volume.devices.length === 3)).toBe(true);
    const [gone] = status.storageVolumes[0]!.devices;
    rmSync(gone!.path);
    const whole = json('replace', pool, '--volume', '0', '--device', gone!.path); // a file of its own
    expect(whole).toMatchObject({ volume: 0, unfilledBytes: 0, damagedBytes: 0 });
    const mirror = blankFiles(2);
    json('add', pool, '--raid', '1', '--device', mirror[0]!, '--device', mirror[1]!);
    expect(json<Status>('status', pool).storageVolumes.at(-1)).toMatchObject({ raid: '1', state: 'unassigned' });
    expect(json<Scrub>('scrub', pool).clean).toBe(true);
    const target = workshop.fresh();
    json('restore', `${pool}/v@one`, target);
    expect(readFileSync(target).equals(readFileSync(image))).toBe(true);
    expect(failure('add', pool, '--raid', '1', '--device', mirror[0]!, '--device', mirror[1]!)).toBe('VARVE_EXISTS');
  });
});
