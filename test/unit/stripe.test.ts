// The stripe map (assembly/testing/stripe.ts), walked; parity against arithmetic on single bytes, written from the definition.
import { beforeAll, describe, expect, test } from 'vitest';
import { testingModule } from './testing-module.ts';
import { random } from './table.support.ts';

interface StripeCore {
  readonly memory: WebAssembly.Memory;
  take(bytes: number): number;
  plant(id: number): void;
  levelFits(level: number, members: number): number;
  columnsOf(level: number, members: number): number;
  copiesOf(level: number, members: number): number;
  parityOf(level: number): number;
  tolerates(level: number, members: number, lost: number): number;
  memberOf(level: number, members: number, stripe: number, column: number, copy: number): number;
  columnOf(level: number, members: number, stripe: number, member: number): number;
  mapWalk(level: number, members: number, strip: number, first: number, count: number, into: number): void;
  parity(count: number, from: number, stride: number, p: number, q: number, bytes: number): void;
  rowRestore(level: number, members: number, stripe: number, row: number, stride: number, lost: number): number;
}

const LEVELS = { single: 0, raid0: 1, raid1: 2, raid5: 3, raid6: 4, raid10: 5 } as const;
const [P, Q] = [0xfe, 0xff];
const BLOCK = 4096;

let core: StripeCore;
let area: number;
beforeAll(() => {
  const instance = new WebAssembly.Instance(testingModule('stripe'), {
    env: {
      abort: () => {
        throw new Error('abort');
      },
    },
  });
  core = instance.exports as unknown as StripeCore;
  area = core.take(24 << 20) >>> 0;
}, 120_000);

function geometries(membersMax: number): { name: string; level: number; members: number }[] {
  return Object.entries(LEVELS).flatMap(([name, level]) =>
    Array.from({ length: membersMax }, (_, i) => i + 1)
      .filter((members) => core.levelFits(level, members) !== 0)
      .map((members) => ({ name, level, members })),
  );
}

const placeOf = (member: number, row: number): number => row * 32 + member;

/** Walks blocks and says where each copy is; checks that no two share a place and that members hold them in ascending order. */
function walk(level: number, members: number, strip: number, first: number, count: number): Map<number, number> {
  const copies = core.copiesOf(level, members);
  core.mapWalk(level, members, strip, first, count, area);
  const words = new Uint32Array(core.memory.buffer, area, count * copies * 2);
  const seen = new Map<number, number>();
  for (let i = 0; i < count * copies; i++) {
    const place = placeOf(words[2 * i] as number, words[2 * i + 1] as number);
    if (seen.has(place)) throw new Error(`blocks ${seen.get(place)} and ${first + Math.floor(i / copies)} share member and row ${place}`);
    if ((words[2 * i] as number) >= members) throw new Error(`block ${first + i}: there is no member ${words[2 * i]}`);
    seen.set(place, first + Math.floor(i / copies));
  }
  return seen;
}

describe('the stripe map', () => {
  test('takes the members that a level allows, up to 32', () => {
    const fits = (level: number): number[] =>
      Array.from({ length: 40 }, (_, i) => i).filter((members) => core.levelFits(level, members) !== 0);
    const range = (from: number, step = 1): number[] =>
      Array.from({ length: Math.floor((32 - from) / step) + 1 }, (_, i) => from + i * step);
    expect(fits(LEVELS.single)).toEqual([1]);
    expect(fits(LEVELS.raid0)).toEqual(range(2));
    expect(fits(LEVELS.raid1)).toEqual(range(2));
    expect(fits(LEVELS.raid5)).toEqual(range(3));
    expect(fits(LEVELS.raid6)).toEqual(range(4));
    expect(fits(LEVELS.raid10)).toEqual(range(4, 2));
    expect(fits(6)).toEqual([]);
  });

  test('is a bijection: no two blocks share a place, and with parity the places of whole stripes fill their rows', () => {
    for (const { name, level, members } of [...geometries(8), ...geometries(32).filter(({ members: n }) => n > 30)]) {
      for (const strip of members > 8 ? [4] : [1, 2, 16, 256]) {
        const stripeBlocks = core.columnsOf(level, members) * strip;
        const copies = core.copiesOf(level, members);
        const count = Math.max(Math.floor(65536 / copies / stripeBlocks) * stripeBlocks, stripeBlocks);
        const seen = walk(level, members, strip, 0, count);
        const rows = (count / stripeBlocks) * strip;
        for (let row = 0; row < rows; row++) {
          const stripe = Math.floor(row / strip);
          for (let member = 0; member < members; member++) {
            const column = core.columnOf(level, members, stripe, member);
            const block = seen.get(placeOf(member, row));
            const where = (): string => `${name} of ${members}, strip ${strip}: member ${member}, row ${row}`;
            if (column >= P) {
              if (block !== undefined) throw new Error(`${where()} holds parity and block ${block}`);
              if (core.memberOf(level, members, stripe, column, 0) !== member) throw new Error(`${where()}: parity is elsewhere`);
            } else {
              const wanted = stripe * stripeBlocks + column * strip + (row % strip);
              if (block !== wanted) throw new Error(`${where()} holds block ${block}, its column says ${wanted}`);
            }
          }
        }
      }
    }
  });

  test('and so it is at the end of 32 bits', () => {
    for (const { level, members } of geometries(8)) {
      for (const strip of [1, 8, 256]) {
        const window = 4096;
        const end = 0xffffffff;
        const seen = walk(level, members, strip, end - window, window);
        // The same rows from the member's side: every block of the window is found again by what its member says that it holds there.
        for (const [place, block] of seen) {
          const [member, row] = [place % 32, Math.floor(place / 32)];
          const stripe = Math.floor(row / strip);
          const column = core.columnOf(level, members, stripe, member);
          const back = stripe * core.columnsOf(level, members) * strip + column * strip + (row % strip);
          if (column >= P || back !== block)
            throw new Error(`level ${level} of ${members}, strip ${strip}: block ${block} is at ${place}, which is ${back}`);
        }
        walk(level, members, strip, 0x80000000 - window / 2, window);
      }
    }
  });

  test('parity goes round: each member holds it equally often', () => {
    for (const [level, members] of [
      [LEVELS.raid5, 5],
      [LEVELS.raid6, 6],
    ] as const) {
      const counts = new Uint32Array(members);
      for (let stripe = 0; stripe < members * 7; stripe++) counts[core.memberOf(level, members, stripe, P, 0)]!++;
      expect(new Set(counts)).toEqual(new Set([7]));
    }
  });

  test('says which losses can be borne', () => {
    for (const { level, members } of geometries(8)) {
      for (let lost = 0; lost < 1 << members; lost++) {
        const gone = Array.from({ length: members }, (_, i) => i).filter((i) => lost & (1 << i));
        const expected =
          level === LEVELS.raid1
            ? gone.length < members
            : level === LEVELS.raid10
              ? !gone.some((i) => i % 2 === 0 && gone.includes(i + 1))
              : gone.length <= (level === LEVELS.raid5 ? 1 : level === LEVELS.raid6 ? 2 : 0);
        expect(core.tolerates(level, members, lost) !== 0).toBe(expected);
      }
    }
  });
});

// ---- parity, from the definition: a product is a sum of shifts, reduced by 0x11d ----

function product(a: number, b: number): number {
  let wide = 0;
  for (let bit = 0; bit < 8; bit++) if (b & (1 << bit)) wide ^= a << bit;
  for (let bit = 14; bit >= 8; bit--) if (wide & (1 << bit)) wide ^= 0x11d << (bit - 8);
  return wide;
}

function slowParity(data: readonly Uint8Array[]): { p: Uint8Array; q: Uint8Array } {
  const p = new Uint8Array(data[0]!.length);
  const q = new Uint8Array(p.length);
  let factor = 1;
  for (const column of data) {
    for (let i = 0; i < p.length; i++) {
      p[i]! ^= column[i]!;
      q[i]! ^= product(factor, column[i]!);
    }
    factor = product(factor, 2);
  }
  return { p, q };
}

describe('parity', () => {
  test('P and Q are what the definition says, for 1 to 31 columns', () => {
    const next = random(7);
    for (const count of [1, 2, 3, 4, 5, 8, 17, 30, 31]) {
      const data = Array.from({ length: count }, () => Uint8Array.from({ length: BLOCK }, () => next(256)));
      const bytes = new Uint8Array(core.memory.buffer);
      data.forEach((column, i) => bytes.set(column, area + i * BLOCK));
      const at = area + count * BLOCK;
      core.parity(count, area, BLOCK, at, at + BLOCK, BLOCK);
      const { p, q } = slowParity(data);
      expect(Buffer.compare(bytes.slice(at, at + BLOCK), p)).toBe(0);
      expect(Buffer.compare(bytes.slice(at + BLOCK, at + 2 * BLOCK), q)).toBe(0);
      bytes.fill(0, at, at + BLOCK);
      core.parity(count, area, BLOCK, at, 0, BLOCK);
      expect(Buffer.compare(bytes.slice(at, at + BLOCK), p)).toBe(0);
    }
  });

  /** Lays a row out by the map, with parity by the slow way; then every combination of lost members is filled in again. */
  function rebuilds(level: number, members: number, stripe: number, lossesMax: number): void {
    const next = random(members * 100 + stripe);
    const copies = core.copiesOf(level, members);
    const data = Array.from({ length: core.columnsOf(level, members) }, () => Uint8Array.from({ length: BLOCK }, () => next(256)));
    const row = new Uint8Array(members * BLOCK);
    const { p, q } = slowParity(data);
    data.forEach((column, i) => {
      for (let copy = 0; copy < copies; copy++) row.set(column, core.memberOf(level, members, stripe, i, copy) * BLOCK);
    });
    if (core.parityOf(level) > 0) row.set(p, core.memberOf(level, members, stripe, P, 0) * BLOCK);
    if (core.parityOf(level) > 1) row.set(q, core.memberOf(level, members, stripe, Q, 0) * BLOCK);
    for (let lost = 0; lost < 2 ** members; lost++) {
      if (popcount(lost) > lossesMax) continue;
      const bytes = new Uint8Array(core.memory.buffer, area, row.length);
      bytes.set(row);
      for (let member = 0; member < members; member++) if (lost & (1 << member)) bytes.fill(0xa5, member * BLOCK, (member + 1) * BLOCK);
      const spoilt = bytes.slice();
      const restored = core.rowRestore(level, members, stripe, area, BLOCK, lost) !== 0;
      expect(restored).toBe(core.tolerates(level, members, lost) !== 0);
      if (Buffer.compare(bytes, restored ? row : spoilt) !== 0)
        throw new Error(`level ${level} of ${members}, stripe ${stripe}: losing ${lost.toString(2)} is not made good`);
    }
  }
  function popcount(value: number): number {
    let count = 0;
    for (let rest = value; rest; rest &= rest - 1) count++;
    return count;
  }

  test('every tolerated loss is rebuilt, and one more is refused: RAID 5 and 6 up to 10 members', () => {
    for (let members = 3; members <= 10; members++) for (const stripe of [0, 1, members - 1]) rebuilds(LEVELS.raid5, members, stripe, 2);
    for (let members = 4; members <= 10; members++) for (const stripe of [0, 1, members - 1]) rebuilds(LEVELS.raid6, members, stripe, 3);
  });

  test('and for mirrors and stripes without redundancy', () => {
    for (let members = 2; members <= 4; members++) rebuilds(LEVELS.raid1, members, 3, members);
    for (let members = 2; members <= 3; members++) rebuilds(LEVELS.raid0, members, 3, 1);
  });

  test('a wrong rotation, planted, is found by this', () => {
    core.plant(65);
    try {
      expect(() => rebuilds(LEVELS.raid5, 5, 1, 1)).toThrow();
    } finally {
      core.plant(0);
    }
  });
});
