// A file on a medium that fails for a while: an ext4 on a loop device whose sparse file lies on a file system that runs full. Root only.
//
// Linux tells each open descriptor once of a write that failed. The log gives a range up when it hears of a failure and writes it anew elsewhere; were it told
// of the same failure again by then, it would take that for a second one and turn read-only.
import { rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { FileDevice } from '../../src/device/file.ts';
import { BlockDevices, system } from '../block-devices.ts';

const MIB = 1 << 20;
const devices = new BlockDevices();
afterAll(() => devices.dispose());

/** A directory on a medium, and a switch that takes the room away that is not taken yet. */
function medium(): { directory: string; fail(): void; mend(): void } {
  const under = devices.fresh();
  system('mkdir', under);
  system('mount', '-t', 'tmpfs', '-o', 'size=24m', 'tmpfs', under);
  devices.onDispose(() => system('umount', under));
  const image = join(under, 'image');
  writeFileSync(image, '');
  truncateSync(image, 64 * MIB);
  system('mke2fs', '-q', '-F', '-t', 'ext4', '-O', '^has_journal', image);
  const loop = devices.loop(64 * MIB, 512, image);
  const directory = devices.fresh();
  system('mkdir', directory);
  system('mount', loop, directory);
  devices.onDispose(() => system('umount', directory));
  const filler = join(under, 'filler');
  return {
    directory,
    fail() {
      for (const step of [MIB, 4096]) {
        try {
          for (;;) writeFileSync(filler, new Uint8Array(step), { flag: 'a' });
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
        }
      }
    },
    mend: () => rmSync(filler),
  };
}

describe('a file on a medium that fails', () => {
  it('tells of a failure once: to the flush or the write with fua that met it, and not to the next of the other kind', async () => {
    const { directory, fail, mend } = medium();
    await using device = await FileDevice.open(join(directory, 'volume'), { create: true, sizeBytes: 32 * MIB });
    expect(device.supports.fua).toBe('native');
    const block = (value: number, count: number): Uint8Array => new Uint8Array(count * 4096).fill(value);
    let place = 0;
    /** Where nothing was written yet, so that the medium needs room for it. */
    const next = (): number => (place += MIB);
    await device.write(next(), block(1, 8), { fua: true });
    await device.flush();

    fail();
    await device.write(next(), block(2, 256));
    await expect(device.flush()).rejects.toThrow('flush of');
    mend();
    const after = next();
    await device.write(after, block(3, 8), { fua: true });
    device.writeSync(next(), block(4, 8), { fua: true });
    await device.flush();

    fail();
    await expect(device.write(next(), block(5, 256), { fua: true })).rejects.toThrow('write of');
    mend();
    await device.write(next(), block(6, 8));
    await device.flush();
    await device.write(next(), block(7, 8), { fua: true });

    fail();
    expect(() => device.writeSync(next(), block(8, 256), { fua: true })).toThrow('write of');
    mend();
    device.flushSync();

    const into = new Uint8Array(4096);
    await device.read(after, into);
    expect(into).toEqual(block(3, 1));
  });
});
