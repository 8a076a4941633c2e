import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { StorageDevice } from '../../src/device/device.ts';
import { FileDevice, syncDirectory } from '../../src/device/file.ts';
import { MemoryDevice } from '../../src/device/memory.ts';
import { FaultDevice, type Fault, type FaultCall } from '../../src/device/wrap/fault.ts';
import { ReadOnlyDevice } from '../../src/device/wrap/read-only.ts';
import { SliceDevice } from '../../src/device/wrap/slice.ts';
import { TraceDevice, type TraceEvent } from '../../src/device/wrap/trace.ts';
import { VarveError } from '../../src/errors.ts';
import { deviceConformance } from '../../src/testing/conformance.ts';
import { SimulatedDevice } from '../../src/testing/simulated-device.ts';
import { programOf } from '../program.ts';

const runner = { describe, it };
let directory = '';
let files = 0;

beforeAll(() => {
  directory = fs.mkdtempSync(join(tmpdir(), 'varve-devices-'));
});
afterAll(() => {
  fs.rmSync(directory, { recursive: true, force: true });
});

const fresh = (): string => join(directory, `file-${files++}`);
const memory = (): MemoryDevice => new MemoryDevice('1MiB');

deviceConformance('a memory device', async () => ({ device: memory() }), runner);
deviceConformance('a memory device of odd size', async () => ({ device: new MemoryDevice(600_001) }), runner);
deviceConformance('a slice', async () => ({ device: new SliceDevice(memory(), 65536, 131072) }), runner);
deviceConformance('a slice that is the end', async () => ({ device: new SliceDevice(new MemoryDevice(200_000), 512, 199_488) }), runner);
deviceConformance('a read-only device', async () => ({ device: new ReadOnlyDevice(memory()) }), runner, { readOnly: true });
deviceConformance('a traced device', async () => ({ device: new TraceDevice(memory(), () => undefined) }), runner);
deviceConformance('a faulty device that has no faults', async () => ({ device: new FaultDevice(memory(), () => undefined) }), runner);

deviceConformance(
  'a file',
  async () => {
    const path = fresh();
    return { device: await FileDevice.open(path, { create: true, sizeBytes: '1MiB' }), reopen: () => FileDevice.open(path) };
  },
  runner,
);
deviceConformance(
  'a file opened for reading',
  async () => {
    const path = fresh();
    fs.writeFileSync(path, new Uint8Array(100_000).fill(3));
    return { device: await FileDevice.open(path, { readOnly: true }) };
  },
  runner,
  { readOnly: true },
);

describe('a file device', () => {
  it('makes a sparse file of the size asked for', async () => {
    const path = fresh();
    await using device = await FileDevice.open(path, { create: 'exclusive', sizeBytes: '64MiB' });
    expect(device.sizeBytes).toBe(64 * 1024 * 1024);
    const stat = fs.statSync(path);
    expect(stat.size).toBe(64 * 1024 * 1024);
    expect(stat.blocks * 512).toBeLessThan(1024 * 1024);
    expect(stat.mode & 0o777).toBe(0o600);
  });

  it('uses only the size asked for of a longer file, and leaves its length', async () => {
    const path = fresh();
    fs.writeFileSync(path, new Uint8Array(10_000));
    await using device = await FileDevice.open(path, { sizeBytes: 4096 });
    expect(device.sizeBytes).toBe(4096);
    await expect(device.read(4096, new Uint8Array(1))).rejects.toBeInstanceOf(RangeError);
    expect(fs.statSync(path).size).toBe(10_000);
  });

  it('says what is wrong with a path', async () => {
    const path = fresh();
    await expect(FileDevice.open(path)).rejects.toMatchObject({
      code: 'VARVE_NOT_FOUND',
      message: expect.stringContaining(path),
      cause: { code: 'ENOENT' },
    });
    fs.writeFileSync(path, 'x');
    await expect(FileDevice.open(path, { create: 'exclusive' })).rejects.toMatchObject({ code: 'VARVE_EXISTS' });
    await expect(FileDevice.open(directory)).rejects.toMatchObject({ code: 'VARVE_UNSUPPORTED' });
    await expect(FileDevice.open('/dev/null')).rejects.toMatchObject({
      code: 'VARVE_UNSUPPORTED',
      message: expect.stringContaining('neither'),
    });
    await expect(FileDevice.open(path, { readOnly: true, sizeBytes: 4096 })).rejects.toMatchObject({ code: 'VARVE_NO_SPACE' });
  });

  it('does not hang on a FIFO', async () => {
    const path = fresh();
    execFileSync('mkfifo', [path]);
    await expect(FileDevice.open(path, { readOnly: true })).rejects.toMatchObject({ code: 'VARVE_UNSUPPORTED' });
  });

  it('follows symbolic links only where it may', async () => {
    const path = fresh();
    const link = fresh();
    fs.writeFileSync(path, new Uint8Array(4096));
    fs.symlinkSync(path, link);
    await (await FileDevice.open(link)).close();
    await expect(FileDevice.open(link, { noFollow: true })).rejects.toMatchObject({ code: 'VARVE_UNSUPPORTED' });
  });

  it('takes the end of a file before its size for an I/O error, never for a short result', async () => {
    const path = fresh();
    await using device = await FileDevice.open(path, { create: true, sizeBytes: 8192 });
    fs.truncateSync(path, 6000);
    await expect(device.read(4096, new Uint8Array(4096))).rejects.toMatchObject({
      code: 'VARVE_IO',
      message: expect.stringContaining('ends after 1904'),
    });
    expect(() => device.readSync(4096, new Uint8Array(4096))).toThrow(VarveError);
  });

  it('takes a full file system for VARVE_NO_SPACE', async () => {
    // The limit on file sizes is the one fullness that needs no root: EFBIG, by ulimit -f, in a process of its own that does not die of SIGXFSZ.
    const program = `import { FileDevice } from '../../src/device/file.ts';
      const device = FileDevice.openSync(${JSON.stringify(fresh())}, { create: true });
      let error;
      try { device.resizeSync(1048576); device.writeSync(524288, new Uint8Array(4096)); } catch (reason) { error = reason; }
      console.log(error?.code);`;
    const file = `${fresh()}.mjs`;
    const args = await programOf(program, file);
    const out = execFileSync('bash', ['-c', 'trap "" XFSZ; ulimit -f 64; exec "$0" "$@"', process.execPath, ...args], { encoding: 'utf8' });
    expect(out.trim()).toBe('VARVE_NO_SPACE');
  });

  it('waits with closing until the calls in flight have ended', async () => {
    const device = await FileDevice.open(fresh(), { create: true, sizeBytes: '1MiB' });
    const writes = Array.from({ length: 16 }, (_, index) => device.write(index * 65536, new Uint8Array(65536).fill(index)));
    const closed = device.close();
    await Promise.all(writes);
    await closed;
    await expect(device.flush()).rejects.toMatchObject({ code: 'VARVE_CLOSED' });
  });

  it('refuses to write where it was opened for reading', async () => {
    const path = fresh();
    fs.writeFileSync(path, new Uint8Array(4096));
    await using device = await FileDevice.open(path, { readOnly: true });
    await expect(device.write(0, new Uint8Array(512))).rejects.toMatchObject({ code: 'VARVE_READ_ONLY' });
    await device.flush();
  });

  it('a directory can be made durable', () => {
    syncDirectory(directory);
    expect(() => syncDirectory(join(directory, 'nowhere'))).toThrow(VarveError);
  });
});

describe('a slice', () => {
  it('lands where it lies', async () => {
    const whole = memory();
    const slice = new SliceDevice(whole, 4096, 8192);
    await slice.write(512, new Uint8Array(512).fill(5));
    const into = new Uint8Array(1);
    await whole.read(4608, into);
    expect(into[0]).toBe(5);
    await slice.close();
    await whole.read(0, into); // not owned: still open
  });

  it('owned, closes what it is of', async () => {
    const whole = memory();
    await new SliceDevice(whole, 0, 4096, true).close();
    await expect(whole.flush()).rejects.toMatchObject({ code: 'VARVE_CLOSED' });
  });

  it('must fit and be aligned', () => {
    expect(() => new SliceDevice(memory(), 0, 2 ** 21)).toThrow(RangeError);
    expect(() => new SliceDevice(memory(), 100, 512)).toThrow(RangeError);
    expect(() => new SliceDevice(memory(), 512, 100)).toThrow(RangeError);
  });
});

describe('a trace', () => {
  it('tells of each call before and after, and of failures', async () => {
    const events: string[] = [];
    const device = new TraceDevice(memory(), ({ op, offset, length, fua, phase }: TraceEvent) =>
      events.push(`${op} ${offset}+${length}${fua ? ' fua' : ''} ${phase}`),
    );
    await device.write(512, new Uint8Array(512), { fua: true });
    await device.flush();
    device.readSync(0, new Uint8Array(1));
    await device.read(2 ** 21, new Uint8Array(1)).catch(() => undefined);
    await device.discard(0, 512);
    expect(events).toEqual([
      'write 512+512 fua start',
      'write 512+512 fua done',
      'flush 0+0 start',
      'flush 0+0 done',
      'read 0+1 start',
      'read 0+1 done',
      'read 2097152+1 start',
      'read 2097152+1 failed',
      'discard 0+512 start',
      'discard 0+512 done',
    ]);
  });
});

describe('a faulty device', () => {
  const ways: [
    string,
    (device: FaultDevice) => {
      write: (offset: number, from: Uint8Array) => Promise<void>;
      read: (offset: number, into: Uint8Array) => Promise<void>;
      flush: () => Promise<void>;
    },
  ][] = [
    ['asynchronous', (device) => device],
    [
      'synchronous',
      (device) => ({
        write: async (offset, from) => device.writeSync(offset, from),
        read: async (offset, into) => device.readSync(offset, into),
        flush: async () => device.flushSync(),
      }),
    ],
  ];

  it.each(ways)('fails, tears, loses, misdirects and flips as it is told (%s)', async (_, way) => {
    const below: StorageDevice = memory();
    let next: Fault | undefined;
    const calls: FaultCall[] = [];
    const faulty = new FaultDevice(below, (call) => {
      calls.push(call);
      const fault = next;
      next = undefined;
      return fault;
    });
    const device = way(faulty);
    const at = async (offset: number): Promise<number> => {
      const into = new Uint8Array(1);
      await below.read(offset, into);
      return into[0]!;
    };
    const ones = new Uint8Array(1024).fill(1);

    next = { kind: 'fail' };
    await expect(device.write(0, ones)).rejects.toMatchObject({ code: 'VARVE_IO' });
    expect(await at(0)).toBe(0);

    next = { kind: 'tear', bytes: 512, error: new Error('torn') };
    await expect(device.write(0, ones)).rejects.toThrow('torn');
    expect([await at(511), await at(512)]).toEqual([1, 0]);

    next = { kind: 'lose' };
    await device.write(4096, ones);
    expect(await at(4096)).toBe(0);

    next = { kind: 'misdirect', offset: 8192 };
    await device.write(4096, ones);
    expect([await at(4096), await at(8192)]).toEqual([0, 1]);

    next = { kind: 'flip', bit: 9 };
    await device.write(16384, ones);
    expect([await at(16384), await at(16385)]).toEqual([1, 3]);
    expect(ones[1]).toBe(1);

    const into = new Uint8Array(512);
    next = { kind: 'misdirect', offset: 8192 };
    await device.read(4096, into);
    expect(into[0]).toBe(1);
    next = { kind: 'flip', bit: 0 };
    await device.read(8192, into);
    expect(into[0]).toBe(0);
    next = { kind: 'fail' };
    await expect(device.read(8192, into)).rejects.toBeInstanceOf(VarveError);

    next = { kind: 'fail' };
    await expect(device.flush()).rejects.toBeInstanceOf(VarveError);
    next = { kind: 'lose' };
    await device.flush();
    expect(calls.map((call) => call.index)).toEqual(calls.map((_call, index) => index));
  });
});

describe('a memory device', () => {
  it('takes memory only for what was written, and gives it back', async () => {
    const device = new MemoryDevice('1TiB');
    expect(device.heldBytes).toBe(0);
    await device.write(2 ** 39, new Uint8Array(4096).fill(1));
    const held = device.heldBytes;
    expect(held).toBeLessThanOrEqual(1024 * 1024);
    await device.discard(2 ** 39 - 2 ** 20, 2 ** 21);
    expect(device.heldBytes).toBe(0);
    const into = new Uint8Array(8).fill(9);
    await device.read(2 ** 39, into);
    expect(into.every((byte) => byte === 0)).toBe(true);
  });
});

deviceConformance(
  'a simulated device that has no faults',
  async () => ({ device: new SimulatedDevice({ sizeBytes: 1024 * 1024 }) }),
  runner,
);
