import { describe, expect, it } from 'vitest';
import fc from 'fast-check';
import { VarveError } from '../../src/errors.ts';
import {
  ANCESTORS_MAX,
  checkCatalogue,
  chooseCatalogue,
  decodeCatalogue,
  encodeCatalogue,
  nextAncestors,
  ZERO_UUID,
  type Catalogue,
  type FrameSeen,
} from '../../src/pool/catalogue.ts';
import { checkPolicy, DEFAULT_POLICY } from '../../src/pool/policy.ts';

const uuid = (n: number): string => `00000000-0000-0000-0000-${n.toString(16).padStart(12, '0')}`;

const SOUND: Catalogue = {
  settings: { volumeSizeBytes: 1 << 26, maxVolumes: 10 },
  nextVolumeId: 3,
  storageVolumes: [
    { id: 0, state: 'assigned', level: 'single', sizeBytes: 1 << 26, devices: [{ uuid: uuid(1), path: 'volume-0000-00000000.varve' }] },
    { id: 1, state: 'unassigned', level: 'single', sizeBytes: 1 << 26, devices: [{ uuid: uuid(2), path: null }] },
  ],
  retired: [{ uuid: uuid(3), path: 'volume-0002-00000000.varve' }],
  logs: [{ uuid: uuid(10), volumes: [0] }],
  virtualVolumes: [{ name: 'db', log: uuid(10), number: 0, policy: DEFAULT_POLICY, createdAt: 1_700_000_000_000 }],
  criteria: [],
  ancestors: [uuid(20)],
};

/** The catalogue with one place in it changed. */
function broken(path: string, value: unknown): unknown {
  const copy = JSON.parse(JSON.stringify(SOUND)) as Record<string, unknown>;
  const keys = path.split('.');
  let at: Record<string, unknown> = copy;
  for (const key of keys.slice(0, -1)) at = at[key] as Record<string, unknown>;
  at[keys.at(-1) ?? ''] = value;
  return copy;
}

function frame(generation: number, nonce: number, previous: number, catalogue: Catalogue = SOUND): FrameSeen {
  return { generation, nonce: uuid(nonce), previous: uuid(previous), payload: encodeCatalogue(catalogue) };
}

describe('the catalogue', () => {
  it('reads back what was written', () => {
    expect(decodeCatalogue(encodeCatalogue(SOUND))).toEqual(SOUND);
  });

  it.each([
    ['settings', null],
    ['settings.volumeSizeBytes', -1],
    ['settings.volumeSizeBytes', 1.5],
    ['settings.maxVolumes', 0],
    ['settings.maxVolumes', 1e9],
    ['storageVolumes', {}],
    ['storageVolumes.0.id', 0xfffe],
    ['storageVolumes.0.id', '0'],
    ['storageVolumes.1.id', 0],
    ['storageVolumes.0.state', 'gone'],
    ['storageVolumes.1.state', 'assigned'],
    ['storageVolumes.0.level', '5'],
    ['storageVolumes.0.sizeBytes', 2 ** 60],
    ['storageVolumes.0.devices', []],
    ['storageVolumes.0.devices.0.uuid', 'x'],
    ['storageVolumes.1.devices.0.uuid', uuid(1)],
    ['storageVolumes.0.devices.0.carries', 'x'],
    ['storageVolumes.0.devices.0.carries', ['x']],
    ['storageVolumes.0.devices.0.carries', [uuid(1), uuid(2), uuid(3), uuid(4)]],
    ['storageVolumes.0.devices.0.state', 'x'],
    ['storageVolumes.0.devices.0.state', 'missing'],
    ['storageVolumes.0.devices.0.path', ''],
    ['storageVolumes.0.devices.0.path', 'a\0b'],
    ['storageVolumes.0.devices.0.path', 'x'.repeat(5000)],
    ['retired.0.uuid', uuid(1)],
    ['logs.0.volumes', []],
    ['logs.0.volumes', [0, 0]],
    ['logs.0.volumes', [1]],
    ['logs.0.volumes', [7]],
    ['virtualVolumes.0.name', 'a/b'],
    ['virtualVolumes.0.name', 'a@b'],
    ['virtualVolumes.0.name', ''],
    ['virtualVolumes.0.name', 'e\u0301'],
    ['virtualVolumes.0.name', 17],
    ['virtualVolumes.0.log', uuid(11)],
    ['virtualVolumes.0.number', -1],
    ['virtualVolumes.0.createdAt', 1e300],
    ['virtualVolumes.0.policy.growAt', 2],
    ['virtualVolumes.0.policy.mode', 'maybe'],
    ['ancestors', Array.from({ length: ANCESTORS_MAX + 1 }, () => uuid(1))],
  ])('is refused as corrupt when %s is %j', (path, value) => {
    expect(() => checkCatalogue(broken(path, value))).toThrow(expect.objectContaining({ code: 'VARVE_CORRUPT' }));
  });

  it('names all devices that a volume of many leaves when it is deleted', () => {
    const retired = Array.from({ length: 5000 }, (_, index) => ({ uuid: uuid(100 + index), path: `volume-${index}` }));
    expect(checkCatalogue({ ...SOUND, retired }).retired).toEqual(retired);
  });

  it('drops what it does not know, and a prototype with it', () => {
    const text = JSON.stringify(SOUND).replace('{', '{"__proto__":{"polluted":1},"later":[1,2],');
    expect(decodeCatalogue(new TextEncoder().encode(text))).toEqual(SOUND);
    expect(({} as { polluted?: number }).polluted).toBeUndefined();
  });

  it('answers any bytes with a catalogue or VARVE_CORRUPT', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.uint8Array({ maxLength: 300 }),
          fc.json().map((text) => new TextEncoder().encode(text)),
        ),
        (bytes) => {
          try {
            decodeCatalogue(bytes);
          } catch (error) {
            expect(error).toBeInstanceOf(VarveError);
            expect((error as VarveError).code).toBe('VARVE_CORRUPT');
          }
        },
      ),
    );
  });

  it('is refused when it is nested deeper than any reader could follow', () => {
    expect(() => decodeCatalogue(new TextEncoder().encode('['.repeat(500_000)))).toThrow(
      expect.objectContaining({ code: 'VARVE_CORRUPT' }),
    );
  });
});

describe('choosing among the catalogues of the members', () => {
  it('takes the newest', () => {
    expect(chooseCatalogue([[frame(4, 40, 30), frame(5, 50, 40)], [frame(4, 40, 30)]]).frame.generation).toBe(5);
  });

  it('takes a member that missed commits for one that is behind', () => {
    const catalogue = { ...SOUND, ancestors: [uuid(40), uuid(30)] };
    expect(chooseCatalogue([[frame(6, 60, 50, catalogue)], [frame(3, 30, 20)]]).frame.generation).toBe(6);
  });

  it('is fenced when two members went on without each other', () => {
    expect(() => chooseCatalogue([[frame(6, 60, 50)], [frame(5, 51, 40)]])).toThrow(expect.objectContaining({ code: 'VARVE_FENCED' }));
    expect(() => chooseCatalogue([[frame(6, 60, 50)], [frame(6, 61, 50)]])).toThrow(expect.objectContaining({ code: 'VARVE_FENCED' }));
  });

  it('puts up with members that have none, but not with all', () => {
    expect(chooseCatalogue([[], [frame(1, 10, 0)]]).frame.generation).toBe(1);
    expect(() => chooseCatalogue([[], []])).toThrow(expect.objectContaining({ code: 'VARVE_CORRUPT' }));
  });

  it('remembers a bounded number of ancestors, newest first', () => {
    expect(nextAncestors({ previous: ZERO_UUID }, { ...SOUND, ancestors: [] })).toEqual([]);
    const many = Array.from({ length: ANCESTORS_MAX }, (_, index) => uuid(index + 100));
    const next = nextAncestors({ previous: uuid(7) }, { ...SOUND, ancestors: many });
    expect(next).toHaveLength(ANCESTORS_MAX);
    expect(next.slice(0, 2)).toEqual([uuid(7), uuid(100)]);
  });
});

describe('a policy', () => {
  it('is the default where nothing is said', () => {
    expect(checkPolicy()).toEqual(DEFAULT_POLICY);
    expect(checkPolicy({ growAt: 0.9 })).toEqual({ ...DEFAULT_POLICY, growAt: 0.9 });
  });

  it.each([
    { growAt: 0 },
    { growAt: 1.1 },
    { compactTo: Number.NaN },
    { shrinkBelow: 0.96 },
    { mode: 'x' as 'auto' },
    { minVolumes: 0 },
    { minVolumes: 3, maxVolumes: 2 },
  ])('refuses %j', (policy) => {
    expect(() => checkPolicy(policy)).toThrow(RangeError);
  });
});
