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
});
