// Assertions for tests in workers.

export function ok(value: unknown, what: string): asserts value {
  if (!value) throw new Error(`expected ${what}`);
}

export function equal<T>(actual: T, expected: T, what: string): void {
  const [a, e] = [JSON.stringify(actual), JSON.stringify(expected)];
  if (a !== e) throw new Error(`${what}: expected ${e}, got ${a}`);
}

export function sameBytes(actual: Uint8Array, expected: Uint8Array, what: string): void {
  if (actual.length !== expected.length) throw new Error(`${what}: expected ${expected.length} bytes, got ${actual.length}`);
  for (let at = 0; at < actual.length; at++) {
    if (actual[at] !== expected[at]) throw new Error(`${what}: byte ${at} is ${actual[at]}, expected ${expected[at]}`);
  }
}

/** The call must fail with this code of a VarveError, or this name of an error. @returns the error */
export async function failsWith(expected: string, call: () => unknown): Promise<Error> {
  try {
    await call();
  } catch (error) {
    if (error instanceof Error && (('code' in error && error.code === expected) || error.name === expected)) return error;
    throw new Error(`expected ${expected}, got ${String(error)}`, { cause: error });
  }
  throw new Error(`expected ${expected}, and it succeeded`);
}

/** Bytes that a seed determines. */
export function noise(length: number, seed: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  let state = (seed * 2654435761 + 1) >>> 0 || 1;
  for (let at = 0; at < length; at++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    bytes[at] = state & 255;
  }
  return bytes;
}
