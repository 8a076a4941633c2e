import { describe, expect, it } from 'vitest';
import { CoreMemory, PAGE_BYTES } from '../../src/core/memory.ts';
import { blankCommand, COMMAND_BYTES, decodeCommand, deviceHandle, encodeCommand } from '../../src/core/plan.ts';
import { bisectBytes } from '../../src/device/file.ts';

describe('the memory of the core', () => {
  it('gives views that are the memory', () => {
    const memory = new CoreMemory(new WebAssembly.Memory({ initial: 1 }));
    memory.view.setUint32(8, 0x01020304, true);
    expect(memory.slice(8, 4)).toEqual(Uint8Array.of(4, 3, 2, 1));
  });

  it('grows by what is needed, and by an eighth at least', () => {
    const memory = new CoreMemory(new WebAssembly.Memory({ initial: 16 }));
    expect(memory.grow(1)).toBe(true);
    expect(memory.pages).toBe(18);
    expect(memory.grow(20)).toBe(true);
    expect(memory.pages).toBe(38);
    expect(memory.bytes.length).toBe(38 * PAGE_BYTES);
    expect(memory.view.byteLength).toBe(38 * PAGE_BYTES);
  });

  it('takes less than an eighth where no more is to be had, and says so when it is not enough', () => {
    const memory = new CoreMemory(new WebAssembly.Memory({ initial: 16, maximum: 17 }));
    expect(memory.grow(2)).toBe(false);
    expect(memory.pages).toBe(16);
    expect(memory.grow(1)).toBe(true);
    expect(memory.pages).toBe(17);
    expect(memory.grow(1)).toBe(false);
    expect(memory.grow(70000)).toBe(false);
    expect(memory.bytes.length).toBe(17 * PAGE_BYTES);
  });

  it('keeps its contents when it grows', () => {
    const memory = new CoreMemory(new WebAssembly.Memory({ initial: 1 }));
    memory.bytes.fill(7, 100, 200);
    memory.grow(1);
    expect(memory.bytes.subarray(100, 200).every((byte) => byte === 7)).toBe(true);
  });
});

describe('commands', () => {
  it('are 32 little-endian bytes', () => {
    const bytes = new Uint8Array(2 * COMMAND_BYTES).fill(0xff);
    const view = new DataView(bytes.buffer);
    const command = { op: 2, device: deviceHandle(0xfffd, 31), offset: 2 ** 52 + 4096, address: 0xfffff000, length: 4096, flags: 1 };
    encodeCommand(view, COMMAND_BYTES, command);
    expect([...bytes.subarray(COMMAND_BYTES, COMMAND_BYTES + 4)]).toEqual([2, 0, 0, 0]);
    const decoded = blankCommand();
    decodeCommand(view, COMMAND_BYTES, decoded);
    expect(decoded).toEqual(command);
  });
});

describe('bisectBytes', () => {
  it.each([0, 1, 2, 511, 512, 513, 1048576, 5 * 2 ** 40 + 3, Number.MAX_SAFE_INTEGER])('finds %d', (size) => {
    let tries = 0;
    expect(
      bisectBytes((offset) => {
        tries++;
        return offset < size;
      }),
    ).toBe(size);
    expect(tries).toBeLessThan(110);
  });
});
