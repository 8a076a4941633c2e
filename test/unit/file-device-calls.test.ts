// What a file device asks of the system. The tests put functions of node:fs in the place of the real ones, which Deno and Bun do not honour: Node alone.
import fs, { mkdtempSync, rmSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, it, vi } from 'vitest';
import { FileDevice } from '../../src/device/file.ts';

const root = mkdtempSync(join(tmpdir(), 'varve-file-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));
const { fdatasync, fdatasyncSync, readSync } = fs;
afterEach(() => {
  Object.assign(fs, { fdatasync, fdatasyncSync, readSync });
  syncBuiltinESMExports();
});
let count = 0;
const open = (): Promise<FileDevice> => FileDevice.open(join(root, `f${count++}`), { create: true, sizeBytes: 65536 });

describe('a file device', () => {
  it('flushes a write with fua before it says that it is done', async () => {
    let flushes = 0;
    fs.fdatasync = ((fd: number, done: (error: NodeJS.ErrnoException | null) => void) => {
      flushes++;
      fdatasync(fd, done);
    }) as typeof fs.fdatasync;
    fs.fdatasyncSync = (fd) => {
      flushes++;
      fdatasyncSync(fd);
    };
    syncBuiltinESMExports();
    await using device = await open();
    await device.write(0, new Uint8Array(4096));
    expect(flushes).toBe(0);
    await device.write(0, new Uint8Array(4096), { fua: true });
    expect(flushes).toBe(1);
    device.writeSync(0, new Uint8Array(4096), { fua: true });
    expect(flushes).toBe(2);
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
});
