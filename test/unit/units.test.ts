import { describe, expect, it } from 'vitest';
import { checkName } from '../../src/names.ts';
import { formatSize, formatSizeExactly, parseSize, parseVirtualSize } from '../../src/units.ts';

describe('parseSize', () => {
  it.each([
    ['0', 0],
    ['4096', 4096],
    ['1KiB', 1024],
    ['256MiB', 268435456],
    ['256 MiB', 268435456],
    ['1.5GiB', 1610612736],
    ['2tib', 2199023255552],
    ['512B', 512],
    [' 7 ', 7],
    ['9007199254740991', 9007199254740991],
  ])('reads %s', (text, bytes) => {
    expect(parseSize(text)).toBe(bytes);
  });

  it('takes numbers as bytes', () => {
    expect(parseSize(8192)).toBe(8192);
  });

  it.each(['', 'MiB', '-1', '1 MB', '1k', '1e6', '0x10', '1.MiB', '.5MiB', '1,5GiB', '10 20'])('refuses %j with a TypeError', (text) => {
    expect(() => parseSize(text)).toThrow(TypeError);
  });

  it.each(['0.3', '0.3KiB', '9007199254740992', '9000TiB'])('refuses %j with a RangeError', (text) => {
    expect(() => parseSize(text)).toThrow(RangeError);
  });

  it('refuses numbers that are no sizes', () => {
    for (const size of [-1, 0.5, Number.NaN, Infinity, 2 ** 53]) expect(() => parseSize(size, '--size')).toThrow(/--size: expected/);
    expect(() => parseSize(undefined as unknown as string)).toThrow(TypeError);
  });
});

describe('parseVirtualSize', () => {
  it('reads sizes up to 2^52 bytes, and says of larger ones what was expected', () => {
    expect(parseVirtualSize('4096TiB')).toBe(2 ** 52);
    expect(parseVirtualSize(0)).toBe(0);
    expect(() => parseVirtualSize(2 ** 52 + 1, '--size')).toThrow(
      new RangeError('--size: expected at most 2^52 bytes (4096 TiB), got 4503599627370497'),
    );
    expect(() => parseVirtualSize('big')).toThrow(TypeError);
  });
});

describe('formatSize', () => {
  it('writes for people', () => {
    expect([0, 1, 1023, 1024, 1536, 268435456, 1.25 * 1024 ** 4].map((bytes) => formatSize(bytes))).toEqual([
      '0 B',
      '1 B',
      '1023 B',
      '1 KiB',
      '1.5 KiB',
      '256 MiB',
      '1.3 TiB',
    ]);
  });

  it('writes exactly what parseSize reads', () => {
    for (const bytes of [0, 1, 1000, 1024, 1536, 4097 * 1024, 1024 ** 3, 3 * 1024 ** 4, 2 ** 53 - 1])
      expect(parseSize(formatSizeExactly(bytes))).toBe(bytes);
    expect(formatSizeExactly(268435456)).toBe('256MiB');
  });
});

describe('checkName', () => {
  it('gives the name in NFC', () => {
    expect(checkName('e\u0301te\u0301', 'snapshot')).toBe('\u00e9t\u00e9');
    expect(checkName('monday 1', 'snapshot')).toBe('monday 1');
  });

  it('counts bytes, not characters', () => {
    expect(checkName('ä'.repeat(127), 'volume')).toHaveLength(127);
    expect(() => checkName('ä'.repeat(128), 'volume')).toThrow(/1 to 255 bytes of UTF-8, got 256/);
  });

  it.each(['', 'a/b', 'a@b', 'a\nb', 'a\u0000', '\u007f', '\u0085', '\ud800'])('refuses %j', (name) => {
    expect(() => checkName(name, 'volume')).toThrow(RangeError);
  });

  it('refuses what is no string', () => {
    expect(() => checkName(7 as unknown as string, 'volume')).toThrow(TypeError);
  });
});
