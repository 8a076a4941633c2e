// The device conformance suite: what every storage device has to do, as sentences. A new device is one factory.
//
//   import { describe, it } from 'vitest';                       // or node:test, or whatever has the two
//   deviceConformance('my device', async () => ({ device: await MyDevice.open() }), { describe, it });
//
// It has its own checks and no opinion about the test runner. The factory is called for each test; the device must be at least 64 of its blocks long.
import { isSyncDevice, type StorageDevice, type SyncStorageDevice } from '../device/device.ts';
import { isVarveError, messageOf, type VarveErrorCode } from '../errors.ts';

export interface ConformanceRunner {
  describe(name: string, body: () => void): unknown;
  it(name: string, body: () => Promise<void>): unknown;
}

export interface DeviceUnderTest {
  readonly device: StorageDevice;
  /** Opens the same storage again after `device` was closed. Left out: nothing outlives it. */
  readonly reopen?: (() => Promise<StorageDevice>) | undefined;
  /** After the test; the devices are closed by then. */
  readonly release?: (() => Promise<void>) | undefined;
}

export interface ConformanceOptions {
  /** Every write is to reject with VARVE_READ_ONLY. */
  readonly readOnly?: boolean;
  /** Takes any byte range, as volumes and views do. */
  readonly anyRange?: boolean;
}

export function deviceConformance(
  name: string,
  factory: () => Promise<DeviceUnderTest>,
  runner: ConformanceRunner,
  options: ConformanceOptions = {},
): void {
  const { describe, it } = runner;

  const test = (sentence: string, body: (device: StorageDevice, under: DeviceUnderTest) => Promise<void>): void => {
    it(sentence, async () => {
      const under = await factory();
      try {
        await body(under.device, under);
      } finally {
        await under.device.close();
        await under.release?.();
      }
    });
  };

  describe(`${name} is a storage device`, () => {
    test('it has a size, a block size and says what it supports', async (device) => {
      check(Number.isSafeInteger(device.sizeBytes) && device.sizeBytes >= 0, `sizeBytes is ${device.sizeBytes}`);
      check(
        device.blockSize >= 512 && Number.isInteger(Math.log2(device.blockSize)),
        `blockSize is ${device.blockSize}, no power of two from 512`,
      );
      check(device.sizeBytes >= 64 * device.blockSize, `the suite needs 64 blocks, sizeBytes is ${device.sizeBytes}`);
      check(device.supports.fua === 'native' || device.supports.fua === 'emulated', `supports.fua is ${String(device.supports.fua)}`);
      check(isSyncDevice(device) === device.supports.sync, 'supports.sync and readSync do not agree');
      check(!device.supports.discard || typeof device.discard === 'function', 'supports.discard without discard');
    });

    test('a read fills the whole buffer and nothing beside it', async (device) => {
      const { blockSize } = device;
      const around = new Uint8Array(3 * blockSize).fill(0xee);
      await device.read(0, around.subarray(blockSize, 2 * blockSize));
      check(around.subarray(0, blockSize).every(is(0xee)) && around.subarray(2 * blockSize).every(is(0xee)), 'it wrote beside the buffer');
      const again = new Uint8Array(blockSize);
      await device.read(0, again);
      same(around.subarray(blockSize, 2 * blockSize), again, 'two reads of one block');
    });

    test('a read beyond the end rejects with a RangeError', async (device) => {
      const block = new Uint8Array(device.blockSize);
      await rejectsWith(RangeError, () => device.read(device.sizeBytes, block));
      await rejectsWith(RangeError, () => device.read(-device.blockSize, block));
      await rejectsWith(RangeError, () =>
        device.read(device.sizeBytes - (device.sizeBytes % device.blockSize), new Uint8Array(2 * device.blockSize)),
      );
      await rejectsWith(TypeError, () => device.read(Number.NaN, block));
    });

    test('reading nothing is allowed everywhere up to the end', async (device) => {
      await device.read(0, new Uint8Array(0));
      await device.read(device.sizeBytes, new Uint8Array(0));
    });

    test('closing twice is closing once, and a closed device rejects with VARVE_CLOSED', async (device) => {
      await device.close();
      await device.close();
      await device[Symbol.asyncDispose]();
      await rejectsWithCode('VARVE_CLOSED', () => device.read(0, new Uint8Array(4096)));
    });

    if (options.readOnly) {
      test('a write rejects with VARVE_READ_ONLY and changes nothing', async (device) => {
        const before = new Uint8Array(device.blockSize);
        const after = new Uint8Array(device.blockSize);
        await device.read(0, before);
        await rejectsWithCode('VARVE_READ_ONLY', () => device.write(0, new Uint8Array(device.blockSize).fill(1)));
        if (isSyncDevice(device)) throwsWithCode('VARVE_READ_ONLY', () => device.writeSync(0, new Uint8Array(device.blockSize).fill(1)));
        await device.flush();
        await device.read(0, after);
        same(after, before, 'the block');
      });
      return;
    }

    test('what was written is read, at the first block, at the last and across', async (device) => {
      const { blockSize } = device;
      const last = Math.floor(device.sizeBytes / blockSize) - 1;
      for (const [block, blocks] of [
        [0, 1],
        [last, 1],
        [3, 5],
        [last - 7, 8],
      ] as const) {
        const bytes = pattern(blocks * blockSize, block + 1);
        await device.write(block * blockSize, bytes);
        same(await readBack(device, block * blockSize, bytes.length), bytes, `${blocks} blocks at ${block}`);
      }
    });

    test('a write changes its range only', async (device) => {
      const { blockSize } = device;
      const whole = pattern(8 * blockSize, 9);
      await device.write(0, whole);
      const part = pattern(2 * blockSize, 10);
      await device.write(3 * blockSize, part);
      whole.set(part, 3 * blockSize);
      same(await readBack(device, 0, whole.length), whole, 'the neighbourhood');
    });

    test('the buffer of a write is the caller’s again when it resolves', async (device) => {
      const bytes = pattern(4 * device.blockSize, 11);
      const copy = bytes.slice();
      await device.write(0, bytes);
      bytes.fill(0);
      same(await readBack(device, 0, copy.length), copy, 'what was written');
    });

    test('a write does not change its buffer', async (device) => {
      const bytes = pattern(2 * device.blockSize, 12);
      const copy = bytes.slice();
      await device.write(device.blockSize, bytes);
      same(bytes, copy, 'the buffer');
    });

    test('a write beyond the end rejects with a RangeError and writes nothing', async (device) => {
      const { blockSize } = device;
      const end = device.sizeBytes - (device.sizeBytes % blockSize);
      const bytes = pattern(blockSize, 13);
      await device.write(end - blockSize, bytes);
      await rejectsWith(RangeError, () => device.write(end - blockSize, new Uint8Array(3 * blockSize).fill(7)));
      await rejectsWith(RangeError, () => device.write(device.sizeBytes, new Uint8Array(blockSize)));
      same(await readBack(device, end - blockSize, blockSize), bytes, 'the last block');
    });

    test('writing nothing is allowed', async (device) => {
      await device.write(0, new Uint8Array(0));
    });

    test('what is no Uint8Array is refused with a TypeError', async (device) => {
      const wrong = 'bytes' as unknown as Uint8Array;
      await rejectsWith(TypeError, () => device.write(0, wrong));
      await rejectsWith(TypeError, () => device.read(0, wrong));
    });

    test('views of WebAssembly memory are buffers like any other', async (device) => {
      const memory = new WebAssembly.Memory({ initial: 1 });
      const from = new Uint8Array(memory.buffer, 4096, device.blockSize);
      const into = new Uint8Array(memory.buffer, 32768, device.blockSize);
      from.set(pattern(device.blockSize, 14));
      await device.write(0, from);
      await device.read(0, into);
      same(into, from, 'the block');
    });

    test('many requests at once do not disturb each other', async (device) => {
      const { blockSize } = device;
      const written = Array.from({ length: 48 }, (_, index) => pattern(blockSize, 100 + index));
      await Promise.all(written.map((bytes, index) => device.write(index * blockSize, bytes)));
      const read = await Promise.all(written.map((bytes, index) => readBack(device, index * blockSize, bytes.length)));
      read.forEach((bytes, index) => same(bytes, written[index]!, `block ${index}`));
    });

    test('a flush resolves, and a write with fua too', async (device) => {
      const bytes = pattern(device.blockSize, 15);
      await device.flush();
      await device.write(0, bytes, { fua: true });
      await device.flush();
      same(await readBack(device, 0, bytes.length), bytes, 'the block');
    });

    test('a discard leaves its neighbours alone, and the range can be written again', async (device) => {
      if (!device.discard) return;
      const { blockSize } = device;
      const whole = pattern(8 * blockSize, 16);
      await device.write(0, whole);
      await device.discard(2 * blockSize, 4 * blockSize);
      same(await readBack(device, 0, 2 * blockSize), whole.subarray(0, 2 * blockSize), 'before it');
      same(await readBack(device, 6 * blockSize, 2 * blockSize), whole.subarray(6 * blockSize), 'behind it');
      const bytes = pattern(blockSize, 17);
      await device.write(3 * blockSize, bytes);
      same(await readBack(device, 3 * blockSize, blockSize), bytes, 'the range');
      await rejectsWith(RangeError, async () => device.discard?.(device.sizeBytes, blockSize));
    });

    test('it behaves as a plain array of bytes does', async (device) => {
      await againstArray(device, options.anyRange ? 1 : device.blockSize, {
        read: (offset, into) => device.read(offset, into),
        write: (offset, from) => device.write(offset, from),
      });
    });

    test('its synchronous methods do what the asynchronous ones do', async (device) => {
      if (!isSyncDevice(device)) return;
      const sync: SyncStorageDevice = device;
      const { blockSize } = device;
      const bytes = pattern(3 * blockSize, 18);
      sync.writeSync(blockSize, bytes);
      sync.flushSync();
      same(await readBack(device, blockSize, bytes.length), bytes, 'written synchronously');
      const other = pattern(3 * blockSize, 19);
      await device.write(blockSize, other);
      const into = new Uint8Array(other.length);
      sync.readSync(blockSize, into);
      same(into, other, 'read synchronously');
      throwsWith(RangeError, () => sync.readSync(device.sizeBytes, new Uint8Array(blockSize)));
      throwsWith(RangeError, () => sync.writeSync(device.sizeBytes, new Uint8Array(blockSize)));
      await againstArray(device, options.anyRange ? 1 : device.blockSize, {
        read: async (offset, into) => sync.readSync(offset, into),
        write: async (offset, from) => sync.writeSync(offset, from),
      });
      await device.close();
      throwsWithCode('VARVE_CLOSED', () => sync.readSync(0, new Uint8Array(blockSize)));
    });

    test('what was flushed is there when it is opened again', async (device, under) => {
      if (!under.reopen || !device.supports.persistent) return;
      const bytes = pattern(5 * device.blockSize, 20);
      await device.write(2 * device.blockSize, bytes);
      await device.flush();
      const { sizeBytes } = device;
      await device.close();
      const again = await under.reopen();
      try {
        check(again.sizeBytes === sizeBytes, `its size was ${sizeBytes} and is ${again.sizeBytes}`);
        same(await readBack(again, 2 * again.blockSize, bytes.length), bytes, 'what was flushed');
      } finally {
        await again.close();
      }
    });

    if (options.anyRange) {
      test('any range may be read and written', async (device) => {
        const model = pattern(4 * device.blockSize, 21);
        await device.write(0, model);
        for (const [offset, length] of [
          [1, 1],
          [device.blockSize - 1, 2],
          [511, 513],
          [device.blockSize + 7, 2 * device.blockSize],
        ] as const) {
          const bytes = pattern(length, offset);
          await device.write(offset, bytes);
          model.set(bytes, offset);
          same(await readBack(device, offset, length), bytes, `${length} bytes at ${offset}`);
        }
        same(await readBack(device, 0, model.length), model, 'the whole');
      });
    }
  });
}

/** Random reads and writes against an array. The generator is fixed, so that every run is the same. */
async function againstArray(
  device: StorageDevice,
  alignment: number,
  calls: { read(offset: number, into: Uint8Array): Promise<void>; write(offset: number, from: Uint8Array): Promise<void> },
): Promise<void> {
  const units = Math.floor((64 * device.blockSize) / alignment);
  const model = pattern(units * alignment, 22);
  await calls.write(0, model);
  let state = 12345;
  const random = (below: number): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  for (let step = 0; step < 200; step++) {
    const offset = random(units) * alignment;
    const length = Math.min((1 + random((8 * device.blockSize) / alignment)) * alignment, model.length - offset);
    if (random(2) === 0) {
      const bytes = pattern(length, step);
      await calls.write(offset, bytes);
      model.set(bytes, offset);
    } else {
      const into = new Uint8Array(length);
      await calls.read(offset, into);
      same(into, model.subarray(offset, offset + length), `step ${step}: ${length} bytes at ${offset}`);
    }
  }
  const whole = new Uint8Array(model.length);
  await calls.read(0, whole);
  same(whole, model, 'in the end');
}

const is =
  (value: number) =>
  (byte: number): boolean =>
    byte === value;

/** Bytes that differ from place to place and from seed to seed. */
function pattern(length: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let state = (seed * 2654435761 + 1) >>> 0;
  for (let at = 0; at < length; at++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[at] = state >>> 24;
  }
  return bytes;
}

async function readBack(device: StorageDevice, offset: number, length: number): Promise<Uint8Array> {
  const into = new Uint8Array(length).fill(0xa5);
  await device.read(offset, into);
  return into;
}

function check(condition: boolean, message: string): void {
  if (!condition) throw new Error(message);
}

function same(actual: Uint8Array, expected: Uint8Array, what: string): void {
  check(actual.length === expected.length, `${what}: expected ${expected.length} bytes, got ${actual.length}`);
  for (let at = 0; at < expected.length; at++) {
    if (actual[at] !== expected[at])
      throw new Error(`${what}: byte ${at} of ${expected.length}: expected ${expected[at]}, got ${actual[at]}`);
  }
}

function checkError(error: unknown, expected: abstract new (...args: never[]) => Error): void {
  if (!(error instanceof expected)) throw new Error(`expected a ${expected.name}, got ${messageOf(error)}`, { cause: error });
}

function checkCode(error: unknown, code: VarveErrorCode): void {
  if (!isVarveError(error, code)) throw new Error(`expected ${code}, got ${messageOf(error)}`, { cause: error });
}

/** Both a rejected promise and an exception in the call would reach an `await`; a device rejects. */
async function errorOf(call: () => Promise<unknown>): Promise<unknown> {
  let promise: Promise<unknown>;
  try {
    promise = call();
  } catch (error) {
    throw new Error(`expected a promise that rejects, got an exception: ${messageOf(error)}`, { cause: error });
  }
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error('expected it to reject, it resolved');
}

async function rejectsWith(expected: abstract new (...args: never[]) => Error, call: () => Promise<unknown>): Promise<void> {
  checkError(await errorOf(call), expected);
}

async function rejectsWithCode(code: VarveErrorCode, call: () => Promise<unknown>): Promise<void> {
  checkCode(await errorOf(call), code);
}

function thrownBy(call: () => unknown): unknown {
  try {
    call();
  } catch (error) {
    return error;
  }
  throw new Error('expected an exception');
}

function throwsWith(expected: abstract new (...args: never[]) => Error, call: () => unknown): void {
  checkError(thrownBy(call), expected);
}

function throwsWithCode(code: VarveErrorCode, call: () => unknown): void {
  checkCode(thrownBy(call), code);
}
