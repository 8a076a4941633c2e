// What engines answer when they are asked for too much, played by a fake access handle: the real ones are asked in test/browser.
import { describe, expect, it } from 'vitest';
import { OpfsDevice, type AccessHandle } from '../../src/device/opfs.ts';

class FakeHandle implements AccessHandle {
  readonly bytes = new Uint8Array(65536);
  /** What the next writes answer; a number that is not a whole write is what was taken. */
  answers: (number | Error)[] = [];
  reads: number[] = [];
  flushError: Error | undefined;
  calls = 0;

  read(into: Uint8Array, { at }: { at: number }): number {
    const count = this.reads.shift() ?? into.length;
    into.set(this.bytes.subarray(at, at + Math.min(count, into.length)));
    return count;
  }
  write(from: Uint8Array, { at }: { at: number }): number {
    this.calls++;
    const answer = this.answers.shift() ?? from.length;
    if (answer instanceof Error) throw answer;
    this.bytes.set(from.subarray(0, Math.min(answer, from.length)), at);
    return answer;
  }
  truncate(): void {}
  getSize(): number {
    return this.bytes.length;
  }
  flush(): void {
    if (this.flushError) throw this.flushError;
  }
  close(): void {}
}

function named(name: string): Error {
  const error = new Error(`the engine says ${name}`);
  error.name = name;
  return error;
}

const make = (): { handle: FakeHandle; device: OpfsDevice } => {
  const handle = new FakeHandle();
  return { handle, device: new OpfsDevice('fake', handle, handle.bytes.length) };
};
const ones = (length: number): Uint8Array => new Uint8Array(length).fill(1);

describe('an OPFS device at the quota', () => {
  it('takes an engine that throws for VARVE_NO_SPACE', async () => {
    const { handle, device } = make();
    handle.answers = [named('QuotaExceededError')];
    await expect(device.write(0, ones(4096))).rejects.toMatchObject({ code: 'VARVE_NO_SPACE', cause: { name: 'QuotaExceededError' } });
    expect(() => ((handle.answers = [named('QuotaExceededError')]), device.writeSync(0, ones(4096)))).toThrow('QuotaExceededError');
  });

  it('takes an engine that takes nothing and says nothing for VARVE_NO_SPACE', async () => {
    const { handle, device } = make();
    handle.answers = [0];
    await expect(device.write(0, ones(4096))).rejects.toMatchObject({
      code: 'VARVE_NO_SPACE',
      message: expect.stringContaining('only 0 of them'),
    });
  });

  it('takes an engine that answers with a negative number for VARVE_NO_SPACE', async () => {
    const { handle, device } = make();
    handle.answers = [4294967288];
    await expect(device.write(0, ones(4096))).rejects.toMatchObject({
      code: 'VARVE_NO_SPACE',
      message: expect.stringContaining('4294967288'),
    });
    handle.answers = [-8];
    await expect(device.write(0, ones(4096))).rejects.toMatchObject({ code: 'VARVE_NO_SPACE' });
  });

  it('offers the rest again after a short count, and fails only when nothing is taken', async () => {
    const { handle, device } = make();
    handle.answers = [1000, 96];
    await device.write(512, ones(4096));
    expect(handle.calls).toBe(3);
    expect(handle.bytes.subarray(512, 4608).every((byte) => byte === 1)).toBe(true);
    handle.answers = [1000, 0];
    await expect(device.write(0, ones(4096))).rejects.toMatchObject({
      code: 'VARVE_NO_SPACE',
      message: expect.stringContaining('only 1000 of them'),
    });
  });

  it('takes any other error for VARVE_IO, of a flush too', async () => {
    const { handle, device } = make();
    handle.answers = [named('InvalidStateError')];
    await expect(device.write(0, ones(512))).rejects.toMatchObject({ code: 'VARVE_IO' });
    handle.flushError = named('UnknownError');
    await expect(device.flush()).rejects.toMatchObject({ code: 'VARVE_IO', cause: { name: 'UnknownError' } });
    handle.flushError = named('QuotaExceededError');
    await expect(device.write(0, ones(512), { fua: true })).rejects.toMatchObject({ code: 'VARVE_NO_SPACE' });
  });

  it('reads on after a short count, and never returns a short result', async () => {
    const { handle, device } = make();
    handle.bytes.fill(7);
    handle.reads = [100, 1];
    const into = new Uint8Array(512);
    await device.read(0, into);
    expect(into.every((byte) => byte === 7)).toBe(true);
    handle.reads = [100, 0];
    await expect(device.read(0, into)).rejects.toMatchObject({ code: 'VARVE_IO', message: expect.stringContaining('ends after 100') });
    handle.reads = [4294967295];
    await expect(device.read(0, into)).rejects.toMatchObject({ code: 'VARVE_IO' });
  });
});

it('says that it needs a worker where there are no access handles', async () => {
  const directory = { getFileHandle: async () => ({}) } as unknown as FileSystemDirectoryHandle;
  await expect(OpfsDevice.open(directory, 'x', { create: true })).rejects.toMatchObject({
    code: 'VARVE_UNSUPPORTED',
    message: expect.stringContaining('dedicated worker'),
  });
});

describe('an OPFS device that is used all the time', () => {
  /** Tasks that others had meanwhile. */
  async function tasks(call: () => Promise<void>): Promise<number> {
    let count = 0;
    let ended = false;
    const next = (): void => void (ended || (count++, setImmediate(next)));
    setImmediate(next);
    await call();
    ended = true;
    return count;
  }

  const verbs = (device: OpfsDevice): [string, () => Promise<void>][] => [
    ['read', () => device.read(0, ones(4096))],
    ['write', () => device.write(0, ones(65536))],
    ['flush', () => device.flush()],
  ];

  it('lets others have the thread every now and then', async () => {
    const { handle, device } = make();
    const busy = (): void => {
      for (const end = performance.now() + 1; performance.now() < end;);
    };
    for (const verb of ['read', 'write', 'flush'] as const) {
      const perform = handle[verb].bind(handle) as (...args: unknown[]) => number;
      Object.assign(handle, { [verb]: (...args: unknown[]) => (busy(), perform(...args)) });
    }
    for (const [verb, call] of verbs(device)) {
      let ticks = 0;
      const others = setInterval(() => ticks++, 1);
      for (let left = 200; left > 0; left--) await call();
      clearInterval(others);
      expect([verb, ticks >= 3]).toEqual([verb, true]);
    }
  });

  it('answers what is quick at once', async () => {
    const { device } = make();
    for (const [, call] of verbs(device)) {
      const begun = performance.now();
      const count = await tasks(async () => {
        for (let left = 2000; left > 0; left--) await call();
      });
      expect(count).toBeLessThanOrEqual(2 * (1 + (performance.now() - begun) / 30));
    }
  });

  it('has all who are answered later answered in the same task', async () => {
    const { device } = make();
    const promises = new Set(Array.from({ length: 100 }, () => device.read(0, ones(4096))));
    await Promise.all(promises);
    expect(promises.size).toBeLessThanOrEqual(2);
  });

  it('says of an argument that is none of bytes what it is', async () => {
    const { device } = make();
    await expect(device.read(0, null as never)).rejects.toThrow(TypeError);
  });
});
