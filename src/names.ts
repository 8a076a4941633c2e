// Names of virtual volumes, sources, snapshots and criteria: UTF-8 in Unicode form NFC, 1 to 255 bytes, without '/', '@' and control characters.

export const NAME_BYTES_MAX = 255;

// eslint-disable-next-line no-control-regex
const FORBIDDEN = /[/@\u0000-\u001f\u007f-\u009f]/;
const encoder = new TextEncoder();

/**
 * The name in NFC.
 * @param what what is being named, for the message: `'snapshot'`
 * @throws TypeError when it is not a string
 * @throws RangeError when it is empty, too long, or has a character that names may not have
 */
export function checkName(name: string, what: string): string {
  const normal = normalName(name, what);
  if (!name.isWellFormed()) throw new RangeError(`${what} name: expected well-formed Unicode, got ${JSON.stringify(name)}`);
  const bytes = encoder.encode(normal).length;
  if (bytes === 0 || bytes > NAME_BYTES_MAX)
    throw new RangeError(`${what} name: expected 1 to ${NAME_BYTES_MAX} bytes of UTF-8, got ${bytes}`);
  if (FORBIDDEN.test(normal)) throw new RangeError(`${what} name: expected no '/', '@' or control character, got ${JSON.stringify(name)}`);
  return normal;
}

/**
 * The name in NFC, to look something up by: what no name may be is not found, and that is all.
 * @throws TypeError when it is not a string
 */
export function normalName(name: string, what: string): string {
  if (typeof name !== 'string') throw new TypeError(`${what} name: expected a string, got ${typeof name}`);
  return name.normalize('NFC');
}
