import { describe, expect, test } from 'vitest';
import { deviceConformance } from '../../src/testing/conformance.ts';
import { Random } from '../../src/testing/random.ts';
import { BlockArena, DEVICE_FAILED, DEVICE_FULL, DEVICE_OK, SECTOR_BYTES, SimulatedDevice } from '../../src/testing/simulated-device.ts';

const BLOCK = 4096;

function make(seed = 1, blocks = 16): { device: SimulatedDevice; arena: BlockArena } {
  const arena = new BlockArena();
  return { device: new SimulatedDevice({ sizeBytes: blocks * BLOCK, random: new Random(seed), arena }), arena };
}

function filled(length: number, value: number): Uint8Array {
  return new Uint8Array(length).fill(value);
}

function get(device: SimulatedDevice, offset: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  expect(device.readResult(offset, bytes)).toBe(DEVICE_OK);
  return bytes;
}

/** The values of the sectors in a range; fails when one is mixed. */
function sectors(device: SimulatedDevice, offset: number, length: number): number[] {
  const bytes = get(device, offset, length);
  const values: number[] = [];
  for (let at = 0; at < length; at += SECTOR_BYTES) {
    const part = bytes.subarray(at, at + SECTOR_BYTES);
    expect(new Set(part).size).toBe(1);
    values.push(part[0] as number);
  }
  return values;
}

describe('random', () => {
  test('the same seed gives the same numbers, another seed others', () => {
    const draw = (seed: number): number[] => {
      const random = new Random(seed);
      return Array.from({ length: 50 }, () => random.word());
    };
    expect(draw(7)).toEqual(draw(7));
    expect(draw(7)).not.toEqual(draw(8));
    expect(new Set(draw(0)).size).toBe(50);
  });

  test('below, between and weighted stay in their ranges and reach the ends', () => {
    const random = new Random(3);
    const seen = new Set<number>();
    for (let i = 0; i < 500; i++) seen.add(random.between(2, 6));
    expect([...seen].sort()).toEqual([2, 3, 4, 5, 6]);
    const weights = [0, 5, 0, 1];
    const chosen = new Set(Array.from({ length: 200 }, () => random.weighted(weights)));
    expect([...chosen].sort()).toEqual([1, 3]);
    expect(random.below(0)).toBe(0);
  });
});

deviceConformance('a simulated device', async () => ({ device: make(5, 512).device }), { describe, it: test });

describe('simulated device', () => {
  test('a read sees what was written, whether it was flushed or not', () => {
    const { device } = make();
    device.writeResult(512, filled(8192, 7));
    expect(sectors(device, 0, 12288)).toEqual([0, ...filled(16, 7), ...filled(7, 0)]);
    device.flushResult();
    expect(sectors(device, 0, 12288)).toEqual([0, ...filled(16, 7), ...filled(7, 0)]);
  });

  test('what was flushed survives every power cut; what was not is there, gone or torn by sectors, and over many seeds all three', () => {
    const seen = { kept: 0, lost: 0, torn: 0, reordered: 0 };
    for (let seed = 0; seed < 300; seed++) {
      const { device } = make(seed);
      device.writeResult(0, filled(4 * BLOCK, 1));
      device.flushResult();
      device.writeResult(BLOCK, filled(BLOCK, 2));
      device.writeResult(BLOCK, filled(BLOCK, 3));
      device.writeResult(3 * BLOCK, filled(BLOCK, 4));
      device.crash();
      expect(sectors(device, 0, BLOCK)).toEqual([...filled(8, 1)]);
      expect(sectors(device, 2 * BLOCK, BLOCK)).toEqual([...filled(8, 1)]);
      const first = sectors(device, BLOCK, BLOCK);
      const last = sectors(device, 3 * BLOCK, BLOCK);
      for (const value of first) expect([1, 2, 3]).toContain(value);
      for (const value of last) expect([1, 4]).toContain(value);
      if (last.every((value) => value === 4)) seen.kept++;
      else if (last.every((value) => value === 1)) seen.lost++;
      else seen.torn++;
      if (last.includes(4) && first.every((value) => value === 1)) seen.reordered++;
      const again = sectors(device, 0, 4 * BLOCK);
      device.crash();
      expect(sectors(device, 0, 4 * BLOCK)).toEqual(again);
    }
    for (const count of Object.values(seen)) expect(count).toBeGreaterThan(5);
  });

  test('a killed process loses nothing that the machine holds; the power cut after it may', () => {
    let lost = 0;
    for (let seed = 0; seed < 50; seed++) {
      const { device } = make(seed);
      device.writeResult(0, filled(BLOCK, 9));
      device.kill();
      expect(sectors(device, 0, BLOCK)).toEqual([...filled(8, 9)]);
      device.crash();
      if (sectors(device, 0, BLOCK).includes(0)) lost++;
    }
    expect(lost).toBeGreaterThan(5);
  });

  test('after a failed flush a second one succeeds and makes nothing durable; only what is written again is', () => {
    const seen = { readable: 0, dropped: 0, durable: 0 };
    for (let seed = 0; seed < 200; seed++) {
      const { device } = make(seed);
      device.writeResult(0, filled(BLOCK, 5));
      device.writeResult(BLOCK, filled(BLOCK, 5));
      device.arm('flushFails');
      expect(device.flushResult()).toBe(DEVICE_FAILED);
      if (sectors(device, 0, BLOCK).includes(5)) seen.readable++;
      else seen.dropped++;
      expect(device.flushResult()).toBe(DEVICE_OK);
      device.writeResult(BLOCK, filled(BLOCK, 6));
      expect(device.flushResult()).toBe(DEVICE_OK);
      device.crash();
      expect(sectors(device, BLOCK, BLOCK)).toEqual([...filled(8, 6)]);
      if (sectors(device, 0, BLOCK).includes(5)) seen.durable++;
    }
    for (const count of Object.values(seen)) expect(count).toBeGreaterThan(20);
    expect(seen.durable).toBeLessThan(150);
  });

  test('faults hit the request they were armed for, as often as they were armed', () => {
    const { device } = make();
    device.arm('writeFails', 1, 2);
    device.arm('readFails');
    device.arm('full', 3);
    expect(device.writeResult(0, filled(BLOCK, 1))).toBe(DEVICE_OK);
    expect(device.writeResult(0, filled(BLOCK, 1))).toBe(DEVICE_FAILED);
    expect(device.writeResult(0, filled(BLOCK, 1))).toBe(DEVICE_FAILED);
    expect(device.writeResult(0, filled(BLOCK, 1))).toBe(DEVICE_OK);
    expect(device.armed(['full'])).toBe(true);
    expect(device.readResult(0, new Uint8Array(512))).toBe(DEVICE_FAILED);
    expect(device.readResult(0, new Uint8Array(512))).toBe(DEVICE_OK);
    expect(device.writeResult(0, filled(BLOCK, 1))).toBe(DEVICE_OK);
    expect(device.writeResult(0, filled(BLOCK, 1))).toBe(DEVICE_FULL);
    expect(device.fired.get('writeFails')).toBe(2);
    device.arm('flushFails');
    device.disarm();
    expect(device.flushResult()).toBe(DEVICE_OK);
  });

  test('a lost, torn, misdirected or flipped write succeeds, and the medium is wrong', () => {
    for (const kind of ['writeLost', 'writeTorn', 'writeMisdirected', 'writeFlipped'] as const) {
      let wrong = 0;
      for (let seed = 0; seed < 40; seed++) {
        const { device } = make(seed);
        device.writeResult(0, filled(2 * BLOCK, 1));
        device.flushResult();
        device.arm(kind);
        expect(device.writeResult(0, filled(BLOCK, 2))).toBe(DEVICE_OK);
        device.flushResult();
        if (get(device, 0, BLOCK).some((byte) => byte !== 2)) wrong++;
      }
      expect(wrong).toBeGreaterThan(kind === 'writeMisdirected' ? 30 : 35);
    }
  });

  test('a stale read shows the bytes before the last write, once; a flipped read one wrong bit, once', () => {
    const { device } = make();
    device.writeResult(0, filled(BLOCK, 1));
    device.writeResult(0, filled(BLOCK, 2));
    device.arm('readStale');
    expect(sectors(device, 0, BLOCK)).toEqual([...filled(8, 1)]);
    expect(sectors(device, 0, BLOCK)).toEqual([...filled(8, 2)]);
    device.arm('readFlipped');
    expect(get(device, 0, BLOCK).filter((byte) => byte !== 2)).toHaveLength(1);
    expect(sectors(device, 0, BLOCK)).toEqual([...filled(8, 2)]);
  });

  test('flips, old blocks and rubbish stay', () => {
    const { device } = make();
    device.writeResult(0, filled(2 * BLOCK, 1));
    device.writeResult(0, filled(2 * BLOCK, 2));
    device.flushResult();
    device.flip(100, 3);
    expect(get(device, 0, BLOCK)[100]).toBe(2 ^ 8);
    expect(device.regress(1)).toBe(true);
    expect(sectors(device, BLOCK, BLOCK)).toEqual([...filled(8, 1)]);
    expect(device.regress(5)).toBe(false);
    device.crash();
    expect(get(device, 0, BLOCK)[100]).toBe(2 ^ 8);
    device.scribble();
    const rubbish = get(device, 0, 16 * BLOCK);
    device.crash();
    expect(get(device, 0, 16 * BLOCK)).toEqual(rubbish);
    expect(new Set(rubbish).size).toBeGreaterThan(200);
  });

  test('a device returns from the dead with old bytes', () => {
    const { device } = make();
    device.writeResult(0, filled(BLOCK, 1));
    device.flushResult();
    const image = device.image();
    device.writeResult(0, filled(BLOCK, 2));
    device.flushResult();
    device.restore(image);
    expect(sectors(device, 0, BLOCK)).toEqual([...filled(8, 1)]);
    device.forget(image);
  });

  test('no block of the arena is lost or used twice, whatever is done', () => {
    const { device, arena } = make(11, 8);
    const random = new Random(4);
    for (let i = 0; i < 3000; i++) {
      const offset = random.below(8 * 8) * SECTOR_BYTES;
      const length = Math.min(random.between(1, 20) * SECTOR_BYTES, device.sizeBytes - offset);
      switch (random.below(12)) {
        case 0:
          device.flushResult();
          break;
        case 1:
          device.crash();
          break;
        case 2:
          device.arm(random.pick(['flushFails', 'writeFails', 'writeTorn', 'writeMisdirected', 'writeFlipped', 'full'] as const));
          break;
        case 3:
          device.kill();
          break;
        case 4:
          device.flip(random.below(device.sizeBytes), 1);
          break;
        case 5:
          device.regress(random.below(8));
          break;
        case 6:
          device.discardResult(offset, length);
          break;
        case 7:
          if (random.chance(0.1)) device.scribble(0.5);
          break;
        default:
          device.writeResult(offset, filled(length, 1 + (i % 250)));
      }
    }
    expect(arena.used).toBeGreaterThan(0);
    device.dispose();
    expect(arena.used).toBe(0);
  });

  test('ranges outside of the device or its sectors are refused', () => {
    const { device } = make();
    expect(() => device.writeSync(100, filled(512, 1))).toThrow(RangeError);
    expect(() => device.readSync(16 * BLOCK, filled(512, 1))).toThrow(RangeError);
    expect(() => new SimulatedDevice({ sizeBytes: 1000 })).toThrow(RangeError);
  });
});
