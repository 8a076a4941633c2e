// The main job on raw block devices, as its users do it, and what keeps a device from being taken: what is on it already, who holds it.
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { StoragePool } from '../../src/node.ts';
import { foreignSignature } from '../../src/pool/signature.ts';
import { MemoryDevice } from '../../src/device/memory.ts';
import { BlockDevices, system } from '../block-devices.ts';
import { BLOCK, equal, failure, json, MAIN, MIB, noise, varve } from './support.ts';

const devices = new BlockDevices();
afterAll(() => devices.dispose());
const NODE = fileURLToPath(new URL('../../src/node.ts', import.meta.url));

const KINDS: readonly [string, (sizeBytes: number) => string][] = [
  ['loop devices with sectors of 512 bytes', (sizeBytes) => devices.loop(sizeBytes, 512)],
  ['loop devices with sectors of 4096 bytes', (sizeBytes) => devices.loop(sizeBytes, 4096)],
  ['zram devices', (sizeBytes) => devices.zram(sizeBytes)],
];

describe.each(KINDS)('on %s', (_kind, make) => {
  it('init, replicate, snapshot, restore and check do what they do on files', () => {
    const pool = devices.fresh();
    const members = [make(24 * MIB), make(24 * MIB)];
    const source = make(20 * MIB);
    const image = new Uint8Array(20 * MIB);
    noise(image.subarray(MIB, 15 * MIB), 1);
    writeFileSync(source, image);
    json('init', pool, ...members.flatMap((path) => ['--device', path]));
    expect(json('replicate', source, `${pool}/disk`, '--snapshot', 'monday')).toMatchObject({ changedBytes: 14 * MIB });
    const changed = image.slice();
    noise(changed.subarray(2 * MIB, 3 * MIB), 2);
    changed.fill(0, 8 * MIB, 8 * MIB + BLOCK);
    writeFileSync(source, changed);
    expect(json('replicate', source, `${pool}/disk`, '--snapshot', 'tuesday')).toMatchObject({ changedBytes: MIB + BLOCK });
    json('snapshot', `${pool}/disk@again`);
    const file = devices.fresh();
    json('restore', `${pool}/disk@monday`, file);
    expect(equal(readFileSync(file), image)).toBe(true);
    // Into a device: an existing target, so it has to be asked for.
    const target = make(20 * MIB);
    expect(failure('restore', `${pool}/disk@tuesday`, target)).toBe('VARVE_EXISTS');
    json('restore', `${pool}/disk@tuesday`, target, '--in-place');
    expect(equal(readFileSync(target), changed)).toBe(true);
    expect(json('check', pool)).toMatchObject({ clean: true });
    // A member is not restored into, and not taken for another pool.
    expect(failure('restore', `${pool}/disk@monday`, members[0] as string, '--in-place')).toBe('VARVE_EXISTS');
    const other = varve('init', devices.fresh(), '--device', members[1] as string);
    expect(other.status).toBe(1);
    expect(other.stderr).toContain('a storage device of a Varve pool');
    expect(json('check', pool)).toMatchObject({ clean: true });
  });

  it('two processes: one works, the other gets VARVE_LOCKED; a holder that was killed leaves no lock', async () => {
    const pool = devices.fresh();
    const member = make(24 * MIB);
    json('init', pool, '--device', member);
    json('create', `${pool}/disk`, '--size', '8MiB');
    const program = `import { StoragePool } from ${JSON.stringify(NODE)};
      const pool = await StoragePool.open(${JSON.stringify(pool)});
      const volume = await pool.volume('disk');
      await volume.write(0, new Uint8Array(4096).fill(9));
      await volume.flush();
      console.log('held');
      for (;;) { await volume.write(0, new Uint8Array(4096).fill(9)); await volume.flush(); }`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', program], { stdio: ['ignore', 'pipe', 'inherit'] });
    await new Promise((resolve) => child.stdout.once('data', resolve));
    expect(failure('snapshot', `${pool}/disk@no`)).toBe('VARVE_LOCKED');
    // Nor by another pool directory, by force.
    expect(failure('init', devices.fresh(), '--device', member, '--force')).toBe('VARVE_LOCKED');
    const gone = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await gone;
    expect(json('check', pool)).toMatchObject({ clean: true });
    const { stdout } = varve('cat', `${pool}/disk`, '--length', '4096');
    expect(stdout.every((byte) => byte === 9) && stdout.length === 4096).toBe(true);
    json('snapshot', `${pool}/disk@yes`);
  });
});

describe('a block device as stdin and stdout', () => {
  const redirected = (redirection: string, ...args: string[]): ReturnType<typeof spawnSync> =>
    spawnSync('bash', ['-c', `exec "$@" ${redirection}`, 'bash', process.execPath, MAIN, ...args]);

  it('is written by cat and diff, and read by write', () => {
    const pool = devices.fresh();
    const device = devices.loop(3 * MIB);
    const image = noise(new Uint8Array(3 * MIB), 1);
    writeFileSync(device, image);
    json('init', pool, '--volume-size', '16MiB');
    json('create', `${pool}/v`, '--size', '3MiB');
    json('snapshot', `${pool}/v@s`);
    expect(redirected(`< ${device}`, 'write', `${pool}/v`)).toMatchObject({ status: 0 });
    expect(equal(varve('cat', `${pool}/v`).stdout, image)).toBe(true);

    const target = devices.loop(3 * MIB);
    expect(redirected(`> ${target}`, 'cat', `${pool}/v`)).toMatchObject({ status: 0 });
    expect(equal(readFileSync(target), image)).toBe(true);
    expect(redirected(`> ${target}`, 'diff', `${pool}/v`, '--from', 's', '--json')).toMatchObject({ status: 0 });
    const text = readFileSync(target, 'latin1');
    expect(JSON.parse(text.slice(0, text.indexOf(']') + 1))).toMatchObject([{ offset: 0, length: 3 * MIB, kind: 'data' }]);

    // One that is too small takes what it can, and that is no success.
    const small = redirected(`> ${devices.loop(MIB)}`, 'cat', `${pool}/v`);
    expect(small.status).toBe(1);
    expect(String(small.stderr)).toContain('ENOSPC');
    const full = redirected('> /dev/full', 'cat', `${pool}/v`);
    expect(full.status).toBe(1);
    const directory = redirected('< /', 'write', `${pool}/v`);
    expect(directory.status).toBe(1);
    expect(String(directory.stderr)).toContain('a directory');
    expect(equal(varve('cat', `${pool}/v`).stdout, image)).toBe(true);
  });
});

it('a device that is too small to restore into is what is said to be', () => {
  const pool = devices.fresh();
  json('init', pool);
  json('create', `${pool}/disk`, '--size', '8MiB');
  json('snapshot', `${pool}/disk@s`);
  const target = devices.loop(4 * MIB);
  const child = varve('restore', `${pool}/disk@s`, target, '--in-place');
  expect(child.status).toBe(1);
  expect(child.stderr).toContain('the target has 4194304 bytes, 8388608 are needed');
});

it('a pool on a file system that is read-only is read, with its lock file and without, and not written', () => {
  const directory = devices.fresh();
  mkdirSync(directory);
  system('mount', '-t', 'tmpfs', 'tmpfs', directory);
  devices.onDispose(() => system('umount', directory));
  const pool = join(directory, 'pool');
  json('init', pool, '--volume-size', '16MiB');
  json('create', `${pool}/v`, '--size', '1MiB');
  for (const lock of [true, false]) {
    if (!lock) rmSync(join(pool, 'lock'));
    system('mount', '-o', 'remount,ro', directory);
    expect(varve('cat', `${pool}/v`).stdout.length).toBe(MIB);
    expect(json('check', pool)).toMatchObject({ clean: true });
    expect(failure('snapshot', `${pool}/v@s`)).toBe('VARVE_READ_ONLY');
    system('mount', '-o', 'remount,rw', directory);
  }
});

describe('what is on a device already', () => {
  const made: readonly [string, number, (device: string) => unknown][] = [
    ['an ext2, ext3 or ext4 file system', 16, (device) => system('mke2fs', '-q', '-F', '-t', 'ext4', device)],
    ['an XFS file system', 320, (device) => system('mkfs.xfs', '-q', device)],
    ['a btrfs file system', 128, (device) => system('mkfs.btrfs', '-q', device)],
    ['a FAT file system', 16, (device) => system('mkfs.vfat', device)],
    ['swap space', 16, (device) => system('mkswap', device)],
    ['a GPT partition table', 16, (device) => system('sh', '-c', `echo label: gpt | sfdisk -q ${device}`)],
    ['a boot sector or partition table', 16, (device) => system('sh', '-c', `echo label: dos | sfdisk -q ${device}`)],
    [
      'a LUKS volume',
      32,
      (device) =>
        system('sh', '-c', `printf secret | cryptsetup luksFormat --batch-mode --pbkdf pbkdf2 --pbkdf-force-iterations 1000 ${device} -`),
    ],
    [
      'an LVM physical volume',
      16,
      (device) => system('pvcreate', '-ff', '-y', '--devicesfile', '', '--config', 'devices { filter = [ "a|.*|" ] }', device),
    ],
  ];

  it.each(made)('%s is refused by its name, left as it is, and taken by force', async (what, sizeMib, make) => {
    const file = devices.fresh();
    const device = devices.loop(sizeMib * MIB, 512, file);
    make(device);
    system('sync', device);
    const before = system('sha256sum', file);
    await expect(StoragePool.init(devices.fresh(), { devices: [device] })).rejects.toThrow(
      expect.objectContaining({ code: 'VARVE_EXISTS', message: expect.stringContaining(what) }),
    );
    expect(system('sha256sum', file)).toBe(before);
    await using pool = await StoragePool.init(devices.fresh(), { devices: [device], force: true });
    expect((await pool.check()).clean).toBe(true);
  });

  it('a table of partitions of which only the copy behind the last whole 4 KiB is left is seen', async () => {
    const device = devices.loop(16 * MIB + 3 * 512);
    system('sh', '-c', `echo label: gpt | sfdisk -q ${device}`);
    system('dd', 'if=/dev/zero', `of=${device}`, 'bs=512', 'count=34', 'conv=notrunc,fsync', 'status=none');
    await expect(StoragePool.init(devices.fresh(), { devices: [device] })).rejects.toThrow(
      expect.objectContaining({ code: 'VARVE_EXISTS', message: expect.stringContaining('a GPT partition table') }),
    );
  });

  it('a file that a loop device stands on is not to be had, not by force either', async () => {
    const image = devices.fresh();
    const loop = devices.loop(16 * MIB, 512, image);
    await expect(StoragePool.init(devices.fresh(), { devices: [image], force: true })).rejects.toThrow(
      expect.objectContaining({ code: 'VARVE_LOCKED', message: expect.stringContaining(`${loop} stands on it`) }),
    );
    const pool = devices.fresh();
    json('init', pool);
    json('create', `${pool}/disk`, '--size', '1MiB');
    json('snapshot', `${pool}/disk@s`);
    expect(failure('restore', `${pool}/disk@s`, image, '--in-place')).toBe('VARVE_LOCKED');
  });

  // What cannot be made here: no md and no ZFS in the kernel, no hardware. The bytes are those that the formats' documents give.
  const written: readonly [string, number, readonly number[] | string][] = [
    ['a member of a Linux software RAID (md)', 0, [0xfc, 0x4e, 0x2b, 0xa9, 1]],
    ['a member of a Linux software RAID (md)', 4096, [0xfc, 0x4e, 0x2b, 0xa9, 1]],
    ['a member of a Linux software RAID (md)', -8192, [0xfc, 0x4e, 0x2b, 0xa9, 1]],
    ['a member of a Linux software RAID (md)', -65536, [0xfc, 0x4e, 0x2b, 0xa9, 0]],
    ['a member of a ZFS pool', 128 * 1024 + 5 * 1024, [0x0c, 0xb1, 0xba, 0, 0, 0, 0, 0]],
    ['a member of an Intel RAID', -1024, 'Intel Raid ISM Cfg Sig. 1.0.00'],
    ['a bcache device', 4096 + 24, [0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca, 0x82, 0x65, 0xf5, 0x7f, 0x48, 0xba, 0x6d, 0x81]],
    ['a Ceph OSD', 0, 'bluestore block device\n'],
    ['an APFS container', 32, 'NXSB'],
    ['a GPT partition table', -512, 'EFI PART'],
    ['data at its end', -100, 'x'],
    ['data', 200_000, 'x'],
  ];

  it.each(written)('%s is known by its bytes at %i', async (what, offset, bytes) => {
    const device = new MemoryDevice('2MiB');
    const block = new Uint8Array(4096);
    const at = offset < 0 ? device.sizeBytes + offset : offset;
    block.set(typeof bytes === 'string' ? new TextEncoder().encode(bytes) : bytes, at % 4096);
    expect(await foreignSignature(device)).toBeNull();
    await device.write(at - (at % 4096), block);
    expect(await foreignSignature(device)).toBe(what);
  });
});
