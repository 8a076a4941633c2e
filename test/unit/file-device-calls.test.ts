// What a file device asks of the system. The tests put functions of node:fs in the place of the real ones, which Deno and Bun do not honour: Node alone.
import fs, { mkdtempSync, rmSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, it, vi } from 'vitest';
import { FileDevice } from '../../src/device/file.ts';

const root = mkdtempSync(join(tmpdir(), 'varve-file-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));
const { fdatasync, fdatasyncSync, openSync, readSync, statfsSync, write, writeSync } = fs;
afterEach(() => {
  Object.assign(fs, { fdatasync, fdatasyncSync, openSync, readSync, statfsSync, write, writeSync });
  syncBuiltinESMExports();
});
let count = 0;
const open = (): Promise<FileDevice> => FileDevice.open(join(root, `f${count++}`), { create: true, sizeBytes: 65536 });

/** What a descriptor of this process is open on; '' when it is gone meanwhile. */
function linkOf(fd: string): string {
  try {
    return fs.readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return '';
  }
}

describe('a file device', () => {
  /** Which descriptors were written to and flushed, in order: `w3 f4`. */
  const calls = (): string[] => {
    const seen: string[] = [];
    fs.write = ((fd: number, ...rest: unknown[]) => {
      seen.push(`w${fd}`);
      (write as (...args: unknown[]) => void)(fd, ...rest);
    }) as typeof fs.write;
    fs.writeSync = ((fd: number, ...rest: unknown[]) => {
      seen.push(`w${fd}`);
      return (writeSync as (...args: unknown[]) => number)(fd, ...rest);
    }) as typeof fs.writeSync;
    fs.fdatasync = ((fd: number, done: (error: NodeJS.ErrnoException | null) => void) => {
      seen.push(`f${fd}`);
      fdatasync(fd, done);
    }) as typeof fs.fdatasync;
    fs.fdatasyncSync = (fd) => {
      seen.push(`f${fd}`);
      fdatasyncSync(fd);
    };
    return seen;
  };
  const on = (type: number): void => {
    fs.statfsSync = (() => ({ type })) as unknown as typeof fs.statfsSync;
  };
  const all = async (device: FileDevice): Promise<void> => {
    await device.write(0, new Uint8Array(4096));
    await device.write(0, new Uint8Array(4096), { fua: true });
    device.writeSync(0, new Uint8Array(4096), { fua: true });
    await device.flush();
    device.flushSync();
  };

  it('flushes a write with fua before it says that it is done, where no descriptor with O_DSYNC is to be trusted', async () => {
    const seen = calls();
    on(0x6969); // NFS
    syncBuiltinESMExports();
    await using device = await open();
    expect(device.supports.fua).toBe('emulated');
    await all(device);
    const { fd } = device;
    expect(seen).toEqual([`w${fd}`, `w${fd}`, `f${fd}`, `w${fd}`, `f${fd}`, `f${fd}`, `f${fd}`]);
  });

  it.runIf(process.platform === 'linux')('makes things durable through one descriptor only, which has O_DSYNC', async () => {
    const seen = calls();
    on(0xef53); // ext4
    syncBuiltinESMExports();
    const device = await open();
    expect(device.supports.fua).toBe('native');
    await all(device);
    const through = Number(seen[1]?.slice(1));
    expect(through).not.toBe(device.fd);
    expect(seen).toEqual([`w${device.fd}`, `w${through}`, `w${through}`, `f${through}`, `f${through}`]);
    const info = `/proc/self/fdinfo/${through}`;
    const flags = Number.parseInt(/^flags:\s*([0-7]+)/m.exec(fs.readFileSync(info, 'utf8'))?.[1] ?? '', 8);
    expect(flags & fs.constants.O_DSYNC).toBe(fs.constants.O_DSYNC);
    await device.close();
    expect(fs.readdirSync('/proc/self/fd').filter((each) => linkOf(each) === device.path)).toEqual([]);
  });

  it('tries no read in the call for a while after one that was slow', async () => {
    let reads = 0;
    let slow = true;
    fs.readSync = ((...args: Parameters<typeof readSync>) => {
      reads++;
      for (const until = performance.now() + (slow ? 1 : 0); performance.now() < until;);
      return readSync(...args);
    }) as typeof readSync;
    syncBuiltinESMExports();
    await using device = await open();
    const into = new Uint8Array(4096);
    expect(device.readPrompt(0, into)).toBe(true); // slow, and done all the same
    slow = false;
    for (let tries = 0; tries < 512; tries++) expect(device.readPrompt(0, into)).toBe(false);
    expect(reads).toBe(1);
    expect(device.readPrompt(0, into)).toBe(true);
    expect(device.readPrompt(65536, into)).toBe(false); // outside: the other way of reading says what is wrong
  });

  it('looks at the clock for every eighth read only when all were fast for long, and for each again after a slow one', async () => {
    let clock = 0;
    let looks = 0;
    let milliseconds = 0;
    const now = vi.spyOn(performance, 'now').mockImplementation(() => {
      looks++;
      return clock;
    });
    fs.readSync = ((...args: Parameters<typeof readSync>) => {
      clock += milliseconds;
      return readSync(...args);
    }) as typeof readSync;
    syncBuiltinESMExports();
    try {
      await using device = await open();
      const into = new Uint8Array(4096);
      const tried = (): number => {
        let count = 0;
        while (count < 1000 && device.readPrompt(0, into)) count++;
        return count;
      };
      const looksOf = (work: () => void): number => {
        const before = looks;
        work();
        return looks - before;
      };
      expect(looksOf(tried)).toBe(2 * 255 + 2 * 94); // 255 are timed, and then those of the other 745 whose number divides by 8
      milliseconds = 1;
      expect(tried()).toBeLessThanOrEqual(8);
      for (let tries = 1; tries < 512; tries++) expect(device.readPrompt(0, into)).toBe(false);
      expect(tried()).toBe(1);
      milliseconds = 0;
      for (let tries = 1; tries < 1024; tries++) expect(device.readPrompt(0, into)).toBe(false);
      expect(looksOf(() => expect(device.readPrompt(0, into)).toBe(true))).toBe(2);
      expect(looksOf(() => expect(device.readPrompt(0, into)).toBe(true))).toBe(2);
    } finally {
      now.mockRestore();
    }
  });

  it('that may not be read is no read-only one', async () => {
    const path = join(root, `f${count++}`);
    await (await FileDevice.open(path, { create: true, sizeBytes: 4096 })).close();
    fs.openSync = () => {
      throw Object.assign(new Error('EACCES: permission denied'), { code: 'EACCES' });
    };
    syncBuiltinESMExports();
    await expect(FileDevice.open(path, { readOnly: true })).rejects.toMatchObject({
      code: 'VARVE_IO',
      message: expect.stringContaining('permission denied') as string,
    });
    await expect(FileDevice.open(path)).rejects.toMatchObject({ code: 'VARVE_READ_ONLY' });
  });
});
