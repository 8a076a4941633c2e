import { expect, test } from 'vitest';
import { coreOf, ensure, random, tableModule } from './table.support.ts';

const module = tableModule();

test('a random history of allocations keeps blocks apart, contents whole and the arena well-formed', () => {
  for (let seed = 1; seed <= 12; seed++) {
    const core = coreOf(module);
    const next = random(seed);
    const held = new Map<number, { bytes: number; fill: number }>();
    const size = (): number => {
      const kind = next(10);
      return kind < 6 ? next(120) : kind < 9 ? next(6000) : next(80_000);
    };
    const check = (pointer: number, what: { bytes: number; fill: number }): void => {
      const view = new Uint8Array(core.memory.buffer, pointer, what.bytes);
      if (view.some((byte) => byte !== what.fill)) throw new Error(`seed ${seed}: block at ${pointer} was overwritten`);
    };
    const fill = (pointer: number, bytes: number): void => {
      const value = next(256);
      new Uint8Array(core.memory.buffer, pointer, bytes).fill(value);
      held.set(pointer, { bytes, fill: value });
    };
    const pick = (): number => [...held.keys()][next(held.size)] ?? 0;
    for (let step = 0; step < 3000; step++) {
      ensure(core, 300_000);
      const op = next(10);
      if (op < 4 || held.size === 0) {
        const bytes = size();
        const alignment = next(8) === 0 ? 16 << next(9) : 8;
        const pointer = alignment === 8 ? core.allocate(bytes) : core.allocateAligned(bytes, alignment);
        if (pointer % alignment) throw new Error(`seed ${seed}: alignment`);
        if (held.has(pointer)) throw new Error(`seed ${seed}: ${pointer} given twice`);
        if (core.usableSize(pointer) < bytes) throw new Error(`seed ${seed}: usable size`);
        fill(pointer, bytes);
      } else if (op < 7) {
        const pointer = pick();
        const what = held.get(pointer);
        if (what) check(pointer, what);
        held.delete(pointer);
        core.free(pointer);
      } else {
        const pointer = pick();
        const what = held.get(pointer) ?? { bytes: 0, fill: 0 };
        const bytes = next(2) ? size() : Math.max(0, what.bytes + next(40) - 20);
        held.delete(pointer);
        const moved = core.resize(pointer, bytes);
        if (bytes <= what.bytes && moved !== pointer) throw new Error(`seed ${seed}: shrinking moved`);
        check(moved, { bytes: Math.min(bytes, what.bytes), fill: what.fill });
        fill(moved, bytes);
      }
      if (step % 50 === 0) expect(core.allocatorVerify(), `seed ${seed} step ${step}`).toBe(0);
    }
    for (const [pointer, what] of held) check(pointer, what);
    for (const pointer of held.keys()) core.free(pointer);
    expect(core.allocatorVerify()).toBe(0);
    expect(core.heapUsedBytes()).toBe(0);
    expect(core.heapExtentBytes(), 'everything freed: the arena is empty again').toBe(0);
  }
});

test('available() bytes can be allocated, in one piece or several, and more traps', () => {
  const core = coreOf(module);
  ensure(core, 500_000);
  const whole = core.available();
  const pointer = core.allocate(whole);
  expect(() => core.allocate(64)).toThrow();
  core.free(pointer);
  const core2 = coreOf(module);
  let room = core2.available();
  while (room >= 1016) {
    core2.allocate(1000);
    room -= 1008 + 8;
  }
  expect(core2.allocatorVerify()).toBe(0);
  core2.memory.grow(2);
  expect(core2.available()).toBeGreaterThan(2 * 65536 - 64);
});

test('freed neighbours become one block again', () => {
  const core = coreOf(module);
  ensure(core, 100_000);
  const blocks = Array.from({ length: 100 }, () => core.allocate(500));
  const guard = core.allocate(8);
  for (const pointer of blocks.filter((_, i) => i % 2)) core.free(pointer);
  for (const pointer of blocks.filter((_, i) => i % 2 === 0)) core.free(pointer);
  const extent = core.heapExtentBytes();
  core.free(core.allocate(50_000));
  expect(core.heapExtentBytes()).toBe(extent);
  core.free(guard);
  expect(core.heapExtentBytes()).toBe(0);
});
