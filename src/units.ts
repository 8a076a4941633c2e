// Sizes as people write them: plain bytes, or a number with KiB, MiB, GiB or TiB (powers of 1024).

const UNITS = [
  ['TiB', 1024 ** 4],
  ['GiB', 1024 ** 3],
  ['MiB', 1024 ** 2],
  ['KiB', 1024],
] as const;

const SIZE = /^(\d+)(?:\.(\d+))?\s*(B|KiB|MiB|GiB|TiB)?$/i;

/**
 * A size in bytes: `4096`, `'4096'`, `'256MiB'`, `'1.5 GiB'`. Units in any case.
 * @throws TypeError when it is neither a number nor a string in that form
 * @throws RangeError when it is not a whole number of bytes from 0 to 2^53 − 1
 */
export function parseSize(size: number | string, what = 'size'): number {
  let bytes: number;
  if (typeof size === 'number') bytes = size;
  else {
    if (typeof size !== 'string')
      throw new TypeError(`${what}: expected a number of bytes or a string such as '256MiB', got ${typeof size}`);
    const match = SIZE.exec(size.trim());
    if (!match) throw new TypeError(`${what}: expected bytes, or a number with KiB, MiB, GiB or TiB, got '${size}'`);
    const unit = UNITS.find(([name]) => name.toLowerCase() === match[3]?.toLowerCase())?.[1] ?? 1;
    // The fraction is taken apart from the whole so that 0.1 TiB is not spoilt by 0.1 having no exact double above 2^53.
    bytes = Number(match[1]) * unit + (match[2] === undefined ? 0 : Number(`0.${match[2]}`) * unit);
  }
  if (!Number.isSafeInteger(bytes) || bytes < 0)
    throw new RangeError(`${what}: expected a whole number of bytes from 0 to 2^53 − 1, got ${size}`);
  return bytes;
}

/** The largest virtual size of a volume or source, in bytes: 2^40 blocks. */
const VIRTUAL_BYTES_MAX = 2 ** 52;

/**
 * A virtual size in bytes, written as for `parseSize`.
 * @throws TypeError as `parseSize`
 * @throws RangeError when it is not a whole number of bytes from 0 to 2^52 (4096 TiB)
 */
export function parseVirtualSize(size: number | string, what = 'size'): number {
  const bytes = parseSize(size, what);
  if (bytes > VIRTUAL_BYTES_MAX) throw new RangeError(`${what}: expected at most 2^52 bytes (4096 TiB), got ${size}`);
  return bytes;
}

/** Bytes for people: the largest unit in which it is at least 1, with up to `digits` decimals (`'1.5 GiB'`, `'512 B'`). */
export function formatSize(bytes: number, digits = 1): string {
  for (const [name, unit] of UNITS) {
    if (Math.abs(bytes) >= unit) return `${Number((bytes / unit).toFixed(digits))} ${name}`;
  }
  return `${bytes} B`;
}

/** Bytes in a form that `parseSize` reads back to exactly the same number: `'256MiB'`, `'1000'`. */
export function formatSizeExactly(bytes: number): string {
  for (const [name, unit] of UNITS) {
    if (bytes >= unit && bytes % unit === 0) return `${bytes / unit}${name}`;
  }
  return String(bytes);
}
