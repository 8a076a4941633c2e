// Pools on several members, as files and as loop devices: what two lost, zeroed, cut, deleted or swapped devices of RAID 6 cost (nothing), and that a
// scrub finds and mends exactly what is wrong. Command line and package, on real devices; the odd moments are the simulator's (test/model).
import { execFileSync, spawnSync } from 'node:child_process';
import { closeSync, cpSync, openSync, readFileSync, renameSync, rmSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { afterAll, describe, expect, it } from 'vitest';
import { replicate, StoragePool } from '../../src/node.ts';
import { Random } from '../../src/testing/random.ts';
import { amount, BLOCK, failure, json, MIB, noise, record, SEED, varve, Workshop } from './support.ts';

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

/** A pool with two snapshots of an image, and copies of both states. */
function makePool(level: string, devices: readonly string[], ...more: string[]): { pool: string; states: string[] } {
  const pool = workshop.fresh();
  const image = workshop.fresh();
  const states = [workshop.fresh(), workshop.fresh()];
  json('init', pool, '--raid', level, ...devices.flatMap((device) => ['--device', device]), ...more);
  const bytes = noise(new Uint8Array(IMAGE_BYTES), SEED);
  writeFileSync(image, bytes);
  cpSync(image, states[0]!);
  json('replicate', image, `${pool}/v`, '--snapshot', 'one');
  const random = new Random(SEED + 1);
  for (let i = 0; i < IMAGE_BYTES / BLOCK / 8; i++) {
    const at = random.below(IMAGE_BYTES / BLOCK) * BLOCK;
    noise(bytes.subarray(at, at + BLOCK), random.word());
  }
  writeFileSync(image, bytes);
  cpSync(image, states[1]!);
  json('replicate', image, `${pool}/v`, '--snapshot', 'two');
  return { pool, states };
}

function expectStates(pool: string, states: readonly string[], ...more: string[]): void {
  states.forEach((state, index) => {
    const target = workshop.fresh();
    json('restore', `${pool}/v@${index === 0 ? 'one' : 'two'}`, target, ...more);
    expect(readFileSync(target).equals(readFileSync(state)), `snapshot ${index === 0 ? 'one' : 'two'} of ${pool}`).toBe(true);
    rmSync(target);
  });
}

const memberStates = (pool: string): string[] =>
  json<Status>('status', pool).storageVolumes.flatMap((volume) => volume.devices.map((device) => device.state));

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

describe('RAID 6 over six devices', { timeout: 300_000 }, () => {
  for (const kind of ['files', ...(loops ? ['loop devices'] : [])]) {
    it(`on ${kind}: two of them zeroed while a replication runs cost nothing (seed ${SEED})`, async () => {
      const files = blankFiles(6);
      const devices = kind === 'files' ? files : loopDevices(files);
      try {
        const { pool, states } = makePool('6', devices);
        const random = new Random(SEED + 2);
        const bytes = readFileSync(states[1]!);
        for (let at = 0; at < bytes.length; at += 2 * BLOCK) noise(bytes.subarray(at, at + BLOCK), random.word());
        const image = workshop.fresh();
        writeFileSync(image, bytes);
        const open = await StoragePool.open(pool);
        let zeroed = 0;
        await replicate(image, await open.volume('v'), {
          snapshot: 'three',
          onProgress: ({ scannedBytes }) => {
            if (zeroed < 1 && scannedBytes > IMAGE_BYTES / 4) zero(devices[(zeroed++, 1)]!);
            else if (zeroed < 2 && scannedBytes > IMAGE_BYTES / 2) zero(devices[(zeroed++, 4)]!);
          },
        });
        await open.close();
        expect(zeroed).toBe(2);
        expect(memberStates(pool).filter((state) => state !== 'online').length).toBe(2);
        expectStates(pool, states);
        for (const which of [1, 4]) json('replace', pool, '--volume', '0', '--device', devices[which]!, devices[which]!);
        expect(memberStates(pool)).toEqual(Array(6).fill('online'));
        expect(json<Scrub>('scrub', pool)).toMatchObject({ clean: true, healed: [], problems: [] });
        expectStates(pool, states);
        const target = workshop.fresh();
        json('restore', `${pool}/v@three`, target);
        expect(readFileSync(target).equals(bytes)).toBe(true);
        expect(json<{ clean: boolean }>('check', pool).clean).toBe(true);
      } finally {
        if (kind !== 'files') for (const device of devices) execFileSync('losetup', ['-d', device]);
      }
    });
  }

  it('two cut to half, two deleted, two swapped: all the same; a third is one too many, and named', () => {
    const devices = blankFiles(6);
    const { pool, states } = makePool('6', devices);
    const moved = (from: string, to: string): void => {
      renameSync(from, `${from}.aside`);
      renameSync(to, from);
      renameSync(`${from}.aside`, to);
    };
    moved(devices[0]!, devices[3]!);
    expect(json<Scrub>('scrub', pool).clean).toBe(true);
    expectStates(pool, states);
    moved(devices[0]!, devices[3]!);

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

describe('overwriting 1 % of the blocks of one member', { timeout: 300_000 }, () => {
  for (const [level, members, strip] of [
    ['1', 2, '4KiB'],
    ['5', 4, '4KiB'],
    ['6', 5, '16KiB'],
    ['10', 4, '64KiB'],
  ] as const) {
    it(`RAID ${level}: every snapshot is as it was, a scrub mends exactly what is in use, a second finds nothing (seed ${SEED})`, () => {
      const devices = blankFiles(members);
      const { pool, states } = makePool(level, devices, '--strip-size', strip);
      expect(json<Scrub>('scrub', pool).clean).toBe(true);
      const random = new Random(SEED + members);
      const victim = devices[random.below(members)]!;
      const before = readFileSync(victim);
      const descriptor = openSync(victim, 'r+');
      const overwritten = new Set<number>();
      const rubbish = new Uint8Array(BLOCK);
      while (overwritten.size < DEVICE_BYTES / BLOCK / 100) {
        const block = random.below(DEVICE_BYTES / BLOCK);
        overwritten.add(block);
        writeSync(descriptor, noise(rubbish, random.word()), 0, BLOCK, block * BLOCK);
      }
      closeSync(descriptor);
      expectStates(pool, states);
      const scrub = json<Scrub>('scrub', pool);
      expect(scrub.problems).toEqual([]);
      const after = readFileSync(victim);
      const at = (bytes: Buffer, block: number): Buffer => bytes.subarray(block * BLOCK, (block + 1) * BLOCK);
      const mended = [...overwritten].filter((block) => at(after, block).equals(at(before, block)));
      const rows = scrub.healed.filter((one) => one.what === 'row').length;
      record('raid-rot', { level, overwritten: overwritten.size, mended: mended.length });
      expect(rows).toBeGreaterThan(0);
      // Roots and catalogues are written anew as a whole, so they need not be as they were.
      expect(Math.abs(mended.length - rows)).toBeLessThanOrEqual(scrub.healed.length - rows);
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
    expect(
      json<Status>('status', pool).storageVolumes.map((volume) =>
        volume.devices.map((device) => `${device.path === spare ? 'spare' : ''}${device.state}`),
      ),
    ).toEqual([['online', 'spareonline', 'online']]);
    expect(json<Scrub>('scrub', pool).clean).toBe(true);
    expectStates(pool, states);
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
    json('replace', pool, '--volume', '0', '--device', gone!.path); // a file of its own
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
