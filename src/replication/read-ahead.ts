// Reads a device from front to back, one chunk ahead of whoever uses it.

import type { StorageDevice } from '../device/device.ts';
import { CHUNK_BYTES } from './compare.ts';

export interface Chunk {
  readonly offset: number;
  readonly length: number;
  /** Valid until the next chunk is asked for. */
  readonly bytes: Uint8Array;
}

/** @throws TypeError when it is none */
export function checkDevice(what: string, device: StorageDevice): void {
  if (!device?.read) throw new TypeError(`${what}: expected a device, got ${typeof device}`);
}

/**
 * A range of the device (all of it, as a rule) in chunks of 1 MiB. The next one is being read while this one is in use. From a start that is a multiple
 * of the device's block size every read is aligned but the last, which may be short.
 */
export async function* readAhead(
  device: StorageDevice,
  endOffset: number,
  signal: AbortSignal | undefined,
  startOffset = 0,
): AsyncGenerator<Chunk, void, void> {
  const buffers = [new Uint8Array(CHUNK_BYTES), new Uint8Array(CHUNK_BYTES)] as const;
  const start = (offset: number, index: number): Promise<Chunk> | null => {
    if (offset >= endOffset) return null;
    const length = Math.min(CHUNK_BYTES, endOffset - offset);
    const bytes = buffers[(index % 2) as 0 | 1].subarray(0, length);
    const reading = device.read(offset, bytes).then(() => ({ offset, length, bytes }));
    // It is awaited later, or not at all when the user stops before; then nobody else catches it.
    reading.catch(() => undefined);
    return reading;
  };
  let next = start(startOffset, 0);
  try {
    for (let index = 1; next !== null; index++) {
      signal?.throwIfAborted();
      const chunk: Chunk = await next;
      next = start(chunk.offset + chunk.length, index);
      yield chunk;
    }
  } finally {
    await next?.catch(() => undefined);
  }
}
