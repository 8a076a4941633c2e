// Before each test file, in every runtime.
//
// Bytes are compared as bytes: vitest's own `toEqual` walks two arrays of 8 MiB element by element through its general comparison, 3 s in V8 and 50 s in
// JavaScriptCore (2026-11).
import { expect } from 'vitest';

function sameBytes(a: unknown, b: unknown): boolean | undefined {
  if (!(a instanceof Uint8Array) || !(b instanceof Uint8Array) || Object.getPrototypeOf(a) !== Object.getPrototypeOf(b)) return undefined;
  return Buffer.compare(a, b) === 0;
}

expect.addEqualityTesters([sameBytes]);

// Deno 2.9 has the method, and it throws; vitest calls it when a worker ends, after all tests.
if ('Deno' in globalThis) {
  const { parentPort } = await import('node:worker_threads');
  if (parentPort !== null) parentPort.removeAllListeners = () => parentPort;
}
