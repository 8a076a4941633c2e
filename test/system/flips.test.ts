// Flipped bits in a cleanly closed pool. What `dump --ranges` lists is what a check stands for: a flip of any bit in it is found, a flip outside of it changes
// nothing. And whatever flips: what is restored is what was there, or an error that names the place.
import { describe, expect, it } from 'vitest';
import { compileCore, isVarveError, StoragePool } from '../../src/index.ts';
import { Random } from '../../src/testing/random.ts';
import { amount, equal, FULL, record, SEED } from './support.ts';
import { BytesDevice, makeTinyPool, type TinyPool } from './tiny-pool.ts';

const core = await compileCore();
/** Bytes of the list that are tried: all of them in the soak, about 400,000. */
const INSIDE = amount(1500, Number.POSITIVE_INFINITY);
const OUTSIDE = amount(400, 60_000);
const RESTORES = amount(300, 50_000);
const timeout = FULL ? 7_200_000 : 120_000;

const open = (tiny: TinyPool): Promise<StoragePool> =>
  StoragePool.openDevices(
    tiny.devices.map((bytes) => new BytesDevice(bytes)),
    { readOnly: true, core },
  );

/** The problems and errors that opening and checking give; nothing: clean. */
async function damage(tiny: TinyPool): Promise<readonly string[]> {
  try {
    const pool = await open(tiny);
    try {
      const check = await pool.check();
      for (const problem of check.problems)
        if (problem.code !== 'VARVE_CORRUPT') expect.fail(`${problem.code}: ${problem.where}: ${problem.message}`);
      return check.problems.map((problem) => problem.where);
    } finally {
      await pool.close();
    }
  } catch (error) {
    if (!isVarveError(error, 'VARVE_CORRUPT')) throw error;
    return [error.message];
  }
}

async function inUse(tiny: TinyPool): Promise<{ device: number; offset: number; length: number; what: string }[]> {
  const pool = await open(tiny);
  const { devices } = await pool.describe();
  await pool.close();
  return devices.flatMap(({ ranges }, device) => ranges.map(({ offset, length, what }) => ({ device, offset, length, what })));
}

describe(`a cleanly closed pool, seed ${SEED}`, () => {
  it('tells of a flip in any byte that is in use', { timeout }, async () => {
    const tiny = await makeTinyPool(SEED, true, core);
    expect(await damage(tiny)).toEqual([]);
    const ranges = await inUse(tiny);
    const total = ranges.reduce((sum, range) => sum + range.length, 0);
    expect(new Set(ranges.map((range) => range.what))).toEqual(new Set(['label', 'catalogue', 'root', 'page', 'header', 'footer', 'data']));
    const step = Math.max(1, total / INSIDE);
    const random = new Random(SEED);
    let tried = 0;
    let at = 0;
    let next = random.below(Math.ceil(step));
    for (const { device, offset, length, what } of ranges) {
      const bytes = tiny.devices[device] as Uint8Array;
      for (; next < at + length; next += step) {
        const byte = offset + Math.floor(next) - at;
        const bit = 1 << random.below(8);
        bytes[byte] = (bytes[byte] as number) ^ bit;
        const found = await damage(tiny);
        if (found.length === 0) expect.fail(`device ${device}, byte ${byte} (${what} at ${offset}), bit ${bit}: not found`);
        bytes[byte] = (bytes[byte] as number) ^ bit;
        tried++;
      }
      at += length;
    }
    expect(await damage(tiny)).toEqual([]);
    if (FULL) expect(tried).toBe(total);
    record('flips', { bytesInUse: total, flippedInside: tried, missed: 0 });
  });

  it('does not mind a flip anywhere else', { timeout }, async () => {
    const tiny = await makeTinyPool(SEED + 1, true, core);
    const used = tiny.devices.map((bytes) => new Uint8Array(bytes.length));
    for (const { device, offset, length } of await inUse(tiny)) (used[device] as Uint8Array).fill(1, offset, offset + length);
    const random = new Random(SEED + 1);
    for (let tried = 0; tried < OUTSIDE;) {
      const device = random.below(tiny.devices.length);
      const bytes = tiny.devices[device] as Uint8Array;
      // Half of them where something is written: old headers, dead blocks, catalogues of yesterday.
      let byte = random.below(bytes.length);
      if (random.chance(0.5)) for (let probe = 0; probe < 4096 && bytes[byte] === 0; probe++) byte = (byte + 257) % bytes.length;
      if ((used[device] as Uint8Array)[byte]) continue;
      const bit = 1 << random.below(8);
      bytes[byte] = (bytes[byte] as number) ^ bit;
      expect(await damage(tiny), `device ${device}, byte ${byte}, bit ${bit}: nothing is there`).toEqual([]);
      bytes[byte] = (bytes[byte] as number) ^ bit;
      tried++;
    }
    record('flips', { flippedOutside: OUTSIDE, falselyFound: 0 });
  });

  it('restores what was there, or says where it is damaged', { timeout }, async () => {
    const tiny = await makeTinyPool(SEED + 2, true, core);
    const random = new Random(SEED + 2);
    const ranges = await inUse(tiny);
    let refused = 0;
    let whole = 0;
    for (let tried = 0; tried < RESTORES; tried++) {
      const flips: [Uint8Array, number, number][] = [];
      const labels = new Set<string>();
      for (let count = 1 + random.below(4); count > 0; count--) {
        const range = random.pick(ranges);
        const bytes = tiny.devices[range.device] as Uint8Array;
        const byte = random.chance(0.9) ? range.offset + random.below(range.length) : random.below(bytes.length);
        flips.push([bytes, byte, 1 << random.below(8)]);
        const hit = ranges.find((one) => one.device === range.device && byte >= one.offset && byte < one.offset + one.length);
        if (hit?.what === 'label') labels.add(`${hit.device} ${hit.offset}`);
      }
      // A device both of whose labels are spoilt is not known for one of the pool's any more: it is missing.
      const missing = [0, 1].some((device) => [...labels].filter((label) => label.startsWith(`${device} `)).length > 1);
      const flip = (): void => {
        for (const [bytes, byte, bit] of flips) bytes[byte] = (bytes[byte] as number) ^ bit;
      };
      const said = `flips at ${flips.map(([bytes, byte]) => `${tiny.devices.indexOf(bytes)}:${byte}`).join(' ')}`;
      flip();
      try {
        const pool = await open(tiny);
        try {
          const volume = await pool.volume('v');
          for (const { snapshot, bytes } of tiny.states) {
            const restored = new Uint8Array(bytes.length);
            try {
              await (snapshot === undefined ? volume : volume.at(snapshot)).read(0, restored);
              expect(equal(restored, bytes), `${said}: ${snapshot ?? 'now'} is wrong`).toBe(true);
              whole++;
            } catch (error) {
              if (!isVarveError(error, 'VARVE_CORRUPT')) throw error;
              expect(error.volume, said).toBeTypeOf('number');
              expect(error.block, said).toBeTypeOf('number');
              refused++;
            }
          }
        } finally {
          await pool.close();
        }
      } catch (error) {
        if (!isVarveError(error, 'VARVE_CORRUPT') && !(missing && isVarveError(error, 'VARVE_IO'))) throw error;
        expect(error.message, said).toMatch(/storage volume \d|label|catalogue|root/);
        refused++;
      }
      flip();
    }
    expect(refused).toBeGreaterThan(0);
    expect(whole).toBeGreaterThan(0);
    record('flips', { restores: RESTORES, statesWhole: whole, statesRefused: refused, wrong: 0 });
  });
});
