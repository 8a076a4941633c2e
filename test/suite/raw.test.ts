// Raw block devices: loop devices with sectors of 512 and 4096 bytes, a zram device, and a file opened in the same way.
import { spawn } from 'node:child_process';
import * as fs from 'node:fs';
import { readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { afterAll, describe, expect, it } from 'vitest';
import { markAligned } from '../../src/aligned.ts';
import { FileDevice } from '../../src/device/file.ts';
import { RawDevice } from '../../src/device/raw.ts';
import { MemoryDevice } from '../../src/device/memory.ts';
import { restore, StoragePool } from '../../src/node.ts';
import { deviceConformance } from '../../src/testing/conformance.ts';
import { BlockDevices, system } from '../block-devices.ts';
import { programOf } from '../program.ts';

const MIB = 1 << 20;
const devices = new BlockDevices();
afterAll(() => devices.dispose());
const code = (wanted: string) => expect.objectContaining({ code: wanted });
const runner = { describe, it };
const unmount = (_path: string, point: string): string => system('umount', point);

const LOOP_512 = devices.loop(2 * MIB, 512);
const LOOP_4096 = devices.loop(2 * MIB, 4096);
const ZRAM = devices.zram(2 * MIB);
const FILE = devices.fresh();
writeFileSync(FILE, '');
truncateSync(FILE, 2 * MIB);

for (const [name, path] of [
  ['a loop device with sectors of 512 bytes', LOOP_512],
  ['a loop device with sectors of 4096 bytes', LOOP_4096],
  ['a zram device', ZRAM],
  ['a file past the page cache', FILE],
] as const) {
  deviceConformance(name, async () => ({ device: await RawDevice.open(path), reopen: () => RawDevice.open(path) }), runner);
}
deviceConformance(
  'a loop device through the page cache',
  async () => ({ device: await RawDevice.open(LOOP_512, { direct: false }) }),
  runner,
);
deviceConformance(
  'a loop device opened for reading',
  async () => ({ device: await RawDevice.open(LOOP_4096, { readOnly: true }) }),
  runner,
  {
    readOnly: true,
  },
);

/** Flags of this process's descriptors of what is at a path. */
function descriptorsOf(path: string): number[] {
  return fs.readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      if (fs.readlinkSync(`/proc/self/fd/${fd}`) !== path) return [];
      return [Number.parseInt(/^flags:\s*([0-7]+)/m.exec(fs.readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1] ?? '', 8)];
    } catch {
      return []; // gone meanwhile: it was the listing's own
    }
  });
}

describe('a raw device', () => {
  it('is read and written past the page cache, from aligned memory and from any other', async () => {
    for (const path of [LOOP_512, LOOP_4096, ZRAM, FILE]) {
      await using device = await RawDevice.open(path);
      expect(device.direct).toBe(true);
      const memory = new WebAssembly.Memory({ initial: 64 });
      const aligned = new Uint8Array(memory.buffer, 4096, MIB).fill(3);
      const crooked = new Uint8Array(memory.buffer, 2 * MIB + 13, MIB).fill(4);
      await device.write(0, aligned);
      await device.write(4096, crooked.subarray(0, 8192));
      const into = new Uint8Array(MIB + 1).subarray(1); // at an odd address
      await device.read(0, into);
      expect([into[4095], into[4096], into[12_287], into[12_288]]).toEqual([3, 4, 4, 3]);
      // Larger than a slot, and more at once than there are slots.
      const large = Array.from({ length: 8 }, () => new Uint8Array(2 * MIB - 4096));
      await Promise.all(large.map((bytes) => device.read(4096, bytes)));
      for (const bytes of large) expect([bytes[0], bytes[8191], bytes[8192]]).toEqual([4, 4, 3]);
    }
  });

  it('takes a large write from aligned memory in pieces: all of it, or an error when all pieces have ended', async () => {
    const memory = new WebAssembly.Memory({ initial: 64 });
    markAligned(memory.buffer);
    const words = new Uint32Array(memory.buffer).map((_, index) => Math.imul(index >>> 10, 2_654_435_761));
    new Uint32Array(memory.buffer).set(words);
    const bytes = new Uint8Array(memory.buffer);
    for (const path of [LOOP_4096, FILE]) {
      await using device = await RawDevice.open(path);
      await device.write(4096, bytes.subarray(0, 2 * MIB - 8192)); // the last piece is shorter
      const into = new Uint8Array(2 * MIB - 8192);
      await device.read(4096, into);
      expect(Buffer.compare(into, bytes.subarray(0, into.length))).toBe(0);
    }
    const file = devices.fresh();
    const path = devices.loop(4 * MIB, 512, file);
    await using device = await RawDevice.open(path);
    truncateSync(file, 2 * MIB);
    system('losetup', '-c', path);
    await expect(device.write(0, bytes.subarray(0, 4 * MIB))).rejects.toThrow(code(expect.stringMatching(/^VARVE_(NO_SPACE|IO)$/)));
    // A piece that was still under way would write what the memory holds by now.
    bytes.fill(0);
    const into = new Uint8Array(2 * MIB);
    await device.read(0, into);
    expect(Buffer.compare(into, new Uint8Array(words.buffer, 0, into.length))).toBe(0);
  });

  it('knows its size and its blocks', async () => {
    for (const [path, logical] of [
      [LOOP_512, 512],
      [LOOP_4096, 4096],
    ] as const) {
      await using device = await RawDevice.open(path);
      expect(device.sizeBytes).toBe(2 * MIB);
      expect(device.geometry.logicalBlockBytes).toBe(logical);
      expect(device.geometry.physicalBlockBytes).toBeGreaterThanOrEqual(logical);
      expect(device.blockSize).toBe(4096);
    }
    const crooked = devices.loop(3 * 4096 + 512);
    await using device = await RawDevice.open(crooked);
    expect(device.sizeBytes).toBe(3 * 4096);
  });

  it('refuses what leaves it, and what is not aligned, before the system sees it', async () => {
    await using device = await RawDevice.open(LOOP_512);
    for (const call of [
      () => device.write(2 * MIB - 4096, new Uint8Array(8192)),
      () => device.write(512, new Uint8Array(4096)),
      () => device.read(0, new Uint8Array(512)),
    ])
      await expect(call()).rejects.toBeInstanceOf(RangeError);
  });

  it('says VARVE_NO_SPACE or VARVE_IO, and never a short count, when the device is smaller than it was', async () => {
    const file = devices.fresh();
    const path = devices.loop(MIB, 512, file);
    await using device = await RawDevice.open(path);
    truncateSync(file, MIB / 2);
    system('losetup', '-c', path);
    for (const offset of [MIB / 2 - 4096, MIB / 2, MIB - 8192]) {
      await expect(device.write(offset, new Uint8Array(8192))).rejects.toThrow(code(expect.stringMatching(/^VARVE_(NO_SPACE|IO)$/)));
      await expect(device.read(offset, new Uint8Array(8192))).rejects.toThrow(code('VARVE_IO'));
      expect(() => device.writeSync(offset, new Uint8Array(8192))).toThrow(code(expect.stringMatching(/^VARVE_(NO_SPACE|IO)$/)));
    }
  });

  it('writes with fua by a descriptor that writes through and past the page cache, too; but for Deno, which would ask its user', async () => {
    const native = process.versions['deno'] === undefined;
    for (const path of [LOOP_512, LOOP_4096, ZRAM, FILE]) {
      const device = await RawDevice.open(path);
      expect(device.supports.fua).toBe(native ? 'native' : 'emulated');
      const both = fs.constants.O_DIRECT | fs.constants.O_DSYNC;
      const through = descriptorsOf(path).filter((flags) => (flags & both) === both);
      expect(through).toHaveLength(native ? 1 : 0);
      const aligned = new Uint8Array(new WebAssembly.Memory({ initial: 64 }).buffer, 4096, 2 * MIB);
      const crooked = new Uint8Array(8193).subarray(1);
      const into = new Uint8Array(2 * MIB);
      for (const [value, bytes] of [
        [1, aligned], // in pieces
        [2, aligned.subarray(0, 8192)],
        [3, crooked],
      ] as const) {
        bytes.fill(value);
        await device.write(0, bytes, { fua: true });
        await device.read(0, into);
        expect(into.subarray(0, bytes.length).every((byte) => byte === value)).toBe(true);
        bytes.fill(value + 10);
        device.writeSync(0, bytes, { fua: true });
        device.readSync(0, into);
        expect(into.subarray(0, bytes.length).every((byte) => byte === value + 10)).toBe(true);
      }
      await device.close();
      expect(descriptorsOf(path)).toEqual([]);
    }
  });

  it('is one claimant’s, and free again when it closes', async () => {
    const first = await RawDevice.open(LOOP_512);
    await expect(RawDevice.open(LOOP_512)).rejects.toThrow(code('VARVE_LOCKED'));
    const reader = await RawDevice.open(LOOP_512, { readOnly: true });
    await reader.close();
    await first.close();
    await (await RawDevice.open(LOOP_512)).close();
  });

  it('is free again when its claimant is killed', async () => {
    const program = `import { RawDevice } from '../../src/device/raw.ts';
      const device = await RawDevice.open(${JSON.stringify(LOOP_4096)});
      console.log('held');
      setInterval(() => device.path, 1000);`;
    const child = spawn(process.execPath, await programOf(program, `${devices.fresh()}.mjs`), { stdio: ['ignore', 'pipe', 'inherit'] });
    await new Promise((resolve) => child.stdout.once('data', resolve));
    await expect(RawDevice.open(LOOP_4096)).rejects.toThrow(code('VARVE_LOCKED'));
    const gone = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await gone;
    await (await RawDevice.open(LOOP_4096)).close();
  });

  const uses: readonly [string, number, (path: string, point: string) => unknown, (path: string, point: string) => unknown][] = [
    ['a mounted ext4', 16, (path, point) => (system('mke2fs', '-q', '-F', '-t', 'ext4', path), system('mount', path, point)), unmount],
    ['a mounted btrfs', 128, (path, point) => (system('mkfs.btrfs', '-q', path), system('mount', path, point)), unmount],
    [
      'another device of a mounted btrfs',
      128,
      (path, point) => {
        const first = devices.loop(128 * MIB);
        system('mkfs.btrfs', '-q', first, path);
        system('mount', '-o', `device=${path}`, first, point);
      },
      unmount,
    ],
    ['swap space', 16, (path) => (system('mkswap', path), system('swapon', path)), (path) => system('swapoff', path)],
  ];

  // In Deno, which cannot open with O_EXCL, nothing but this keeps it.
  it.each(uses)('that is %s is neither taken nor restored into', async (what, sizeMib, use, end) => {
    const path = devices.loop(sizeMib * MIB);
    const point = devices.fresh();
    system('mkdir', point);
    use(path, point);
    const seen = what === 'swap space' ? 'swap space' : what.startsWith('another') ? 'btrfs' : point;
    const refusal = expect.objectContaining({ code: 'VARVE_LOCKED', message: expect.stringContaining(seen) });
    try {
      await expect(RawDevice.open(path)).rejects.toThrow(refusal);
      await expect(restore(new MemoryDevice(sizeMib * MIB), path, { inPlace: true })).rejects.toThrow(refusal);
    } finally {
      end(path, point);
    }
    await (await RawDevice.open(path)).close();
  });

  it('that is claimed is not restored into', async () => {
    const claimed = await RawDevice.open(LOOP_512);
    const restored = restore(new MemoryDevice(2 * MIB), LOOP_512, { inPlace: true });
    await expect(restored).rejects.toThrow(code('VARVE_LOCKED'));
    await claimed.close();
    await restore(new MemoryDevice(2 * MIB), LOOP_512, { inPlace: true });
  });

  it('gives space back: a discard takes the blocks from under a loop device and a file', async () => {
    const file = devices.fresh();
    const loop = devices.loop(8 * MIB, 512, file);
    const plain = devices.fresh();
    for (const [under, open] of [
      [file, () => RawDevice.open(loop)],
      [plain, () => FileDevice.open(plain, { create: true, sizeBytes: 8 * MIB })],
    ] as const) {
      await using device = await open();
      expect(device.supports.discard).toBe(true);
      await device.write(0, new Uint8Array(8 * MIB).fill(5));
      await device.flush();
      const before = statSync(under).blocks * 512;
      expect(before).toBeGreaterThanOrEqual(8 * MIB);
      await device.discard?.(MIB, 4 * MIB);
      device.discardSync?.(6 * MIB, MIB);
      expect(statSync(under).blocks * 512).toBeLessThanOrEqual(before - 5 * MIB);
      expect(statSync(under).size).toBe(8 * MIB);
      const bytes = new Uint8Array(8 * MIB);
      await device.read(0, bytes);
      expect([bytes[MIB - 1], bytes[MIB], bytes[5 * MIB - 1], bytes[5 * MIB], bytes[6 * MIB], bytes[7 * MIB]]).toEqual([5, 0, 0, 5, 0, 5]);
    }
  });

  it('holds a pool: its members are opened raw, and the directory has the cache and the lock only', async () => {
    const paths = [devices.loop(16 * MIB, 512), devices.loop(16 * MIB, 4096), devices.zram(16 * MIB)];
    const directory = devices.fresh();
    const pool = await StoragePool.init(directory, { devices: paths });
    const volume = await pool.createVolume('v', { size: '24MiB' });
    const bytes = new Uint8Array(20 * MIB).map((_, index) => (index * 2_654_435_761) >>> 24);
    await volume.write(12_345, bytes);
    await volume.snapshot('s');
    for (const path of paths) await expect(RawDevice.open(path)).rejects.toThrow(code('VARVE_LOCKED'));
    await volume.write(0, new Uint8Array(MIB));
    await pool.close();
    const again = await StoragePool.open(directory);
    expect((await again.check()).clean).toBe(true);
    const read = new Uint8Array(bytes.length);
    await (await again.volume('v')).at('s').read(12_345, read);
    expect(read).toEqual(bytes);
    await again.close();
    expect(JSON.parse(readFileSync(`${directory}/pool.json`, 'utf8'))).toMatchObject({ members: paths.map((path) => ({ path })) });
  });
});
