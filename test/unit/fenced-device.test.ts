// Without the lock nothing reaches a device of the pool, by whichever of the ways to write and flush; what is there stays readable.
import { describe, expect, it } from 'vitest';
import { MemoryDevice } from '../../src/device/memory.ts';
import { VarveError } from '../../src/errors.ts';
import { FencedDevice } from '../../src/pool/fenced.ts';

const gone = new VarveError('VARVE_FENCED', 'test');
const ended = (start: (done: (error: unknown) => void) => void): Promise<unknown> => new Promise((resolve) => start(resolve));

describe('a fenced device', () => {
  it('writes and flushes while the lock is ours', async () => {
    const device = new FencedDevice(new MemoryDevice(8192), () => undefined);
    expect(await ended((done) => device.writeThen(0, new Uint8Array(512).fill(3), done))).toBeUndefined();
    await device.write(512, new Uint8Array(512).fill(4), { fua: true });
    await device.flush();
    const into = new Uint8Array(1024);
    expect(await ended((done) => device.readThen(0, into, done))).toBeUndefined();
    expect([into[0], into[512]]).toEqual([3, 4]);
  });

  it('refuses every write, flush and discard without it, and leaves the bytes as they are', async () => {
    const memory = new MemoryDevice(8192);
    memory.writeSync(0, new Uint8Array(8192).fill(7));
    const device = new FencedDevice(memory, () => gone);
    const bytes = new Uint8Array(512);
    await expect(device.write(0, bytes)).rejects.toBe(gone);
    await expect(device.write(0, bytes, { fua: true })).rejects.toBe(gone);
    expect(await ended((done) => device.writeThen(0, bytes, done))).toBe(gone);
    await expect(device.flush()).rejects.toBe(gone);
    await expect(device.discard(0, 4096)).rejects.toBe(gone);
    expect(() => device.writeSync(0, bytes)).toThrow(gone);
    expect(() => device.flushSync()).toThrow(gone);
    expect(() => device.discardSync(0, 4096)).toThrow(gone);
    const into = new Uint8Array(8192);
    await device.read(0, into);
    expect(into.every((byte) => byte === 7)).toBe(true);
  });

  describe('tells of a failed flush whoever else wrote to it', () => {
    const failure = new VarveError('VARVE_IO', 'test');
    const bytes = new Uint8Array(512);
    /** A device whose flushes end when they are told to, in any order. */
    const slow = () => {
      const memory = new MemoryDevice(8192);
      const ends: { resolve: () => void; reject: (error: unknown) => void }[] = [];
      memory.flush = () => new Promise<void>((resolve, reject) => ends.push({ resolve, reject }));
      return { device: new FencedDevice(memory, () => undefined), ends };
    };

    it('the log of one of the pool that came before, once', async () => {
      const { device, ends } = slow();
      const own = device.flushOwn();
      ends[0]!.reject(failure);
      await expect(own).rejects.toBe(failure);
      const told = device.flush();
      ends[1]!.resolve();
      await expect(told).rejects.toBe(failure);
      const after = device.flush();
      ends[2]!.resolve();
      await after;
    });

    it('the log of one of the pool that was under way with its own, and ended later', async () => {
      for (const through of [false, true]) {
        const { device, ends } = slow();
        const own = device.flushOwn();
        const mine = through ? device.write(0, bytes, { fua: true }) : device.flush();
        let settled = false;
        const seen = mine.catch((error: unknown) => error).finally(() => (settled = true));
        if (!through) ends[1]!.resolve();
        await new Promise((resolve) => setTimeout(resolve, 1));
        expect(settled).toBe(false);
        ends[0]!.reject(failure);
        await expect(own).rejects.toBe(failure);
        expect(await seen).toBe(failure);
      }
    });

    it('the pool of one of the log between its write and its flush, and of none before', async () => {
      const { device, ends } = slow();
      const lose = async (): Promise<void> => {
        const lost = device.flush();
        ends.pop()!.reject(failure);
        await expect(lost).rejects.toBe(failure);
      };
      await lose();
      await device.writeOwn(0, bytes);
      const sound = device.flushOwn();
      ends.pop()!.resolve();
      await sound;
      await device.writeOwn(0, bytes);
      await lose();
      const told = device.flushOwn();
      ends.pop()!.resolve();
      await expect(told).rejects.toBe(failure);
    });

    it('in sync mode too', () => {
      const memory = new MemoryDevice(8192);
      const device = new FencedDevice(memory, () => undefined);
      const { flushSync } = memory;
      memory.flushSync = () => {
        throw failure;
      };
      device.writeOwnSync(0, bytes);
      expect(() => device.flushOwnSync()).toThrow(failure);
      memory.flushSync = flushSync;
      expect(() => device.writeSync(0, bytes, { fua: true })).toThrow(failure);
      device.writeSync(0, bytes, { fua: true });
      device.flushSync();
    });
  });
});
