// A tiny pool in memory, and devices whose bytes a test can damage: the ground for flips and forgeries.
import { StoragePool } from '../../src/index.ts';
import type { CoreSource } from '../../src/core/instantiate.ts';
import type { SyncStorageDevice } from '../../src/device/device.ts';
import { Random } from '../../src/testing/random.ts';
import { BLOCK, noise } from './support.ts';

/** A device over bytes that belong to the test; closing it does nothing. */
export class BytesDevice implements SyncStorageDevice {
  readonly bytes: Uint8Array;
  readonly sizeBytes: number;
  readonly blockSize = 512;
  readonly supports = { discard: false, fua: 'native', sync: true, persistent: false } as const;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.sizeBytes = bytes.length;
  }

  readSync(offset: number, into: Uint8Array): void {
    into.set(this.bytes.subarray(offset, offset + into.length));
  }

  writeSync(offset: number, from: Uint8Array): void {
    this.bytes.set(from, offset);
  }

  flushSync(): void {}

  read(offset: number, into: Uint8Array): Promise<void> {
    this.readSync(offset, into);
    return Promise.resolve();
  }

  write(offset: number, from: Uint8Array): Promise<void> {
    this.writeSync(offset, from);
    return Promise.resolve();
  }

  flush(): Promise<void> {
    return Promise.resolve();
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve();
  }
}

export const DEVICE_BYTES = 1 << 20;
export const VOLUME_BLOCKS = 48;

export interface State {
  /** Undefined: now. */
  readonly snapshot: string | undefined;
  readonly bytes: Uint8Array;
}

export interface TinyPool {
  readonly devices: readonly Uint8Array[];
  readonly states: readonly State[];
}

/** A pool with something of everything on it: overwrites under snapshots, holes, a rollback, what compaction moved, replayed records when it is not closed. */
export async function makeTinyPool(seed: number, closed: boolean, core?: CoreSource): Promise<TinyPool> {
  const devices = [0, 1].map(() => new BytesDevice(new Uint8Array(DEVICE_BYTES)));
  const random = new Random(seed);
  const pool = await StoragePool.create(devices, { segmentBlocks: 8, geometry: { leafBlocks: 16 }, core });
  const volume = await pool.createVolume('v', { size: VOLUME_BLOCKS * BLOCK, policy: { minVolumes: 2, mode: 'fixed' } });
  const now = new Uint8Array(VOLUME_BLOCKS * BLOCK);
  const states: State[] = [];
  const some = async (writes: number): Promise<void> => {
    for (let count = 0; count < writes; count++) {
      const length = 1 + random.below(3);
      const block = random.below(VOLUME_BLOCKS - length);
      const part = now.subarray(block * BLOCK, (block + length) * BLOCK);
      if (random.chance(0.2)) {
        part.fill(0);
        await volume.discard(block * BLOCK, part.length);
      } else await volume.write(block * BLOCK, noise(part, random.word()).slice());
      if (random.chance(0.3)) await volume.flush();
    }
  };
  const keep = async (name: string): Promise<void> => {
    await volume.snapshot(name);
    states.push({ snapshot: name, bytes: now.slice() });
  };
  await some(12);
  await keep('a');
  await some(8);
  await keep('b');
  await volume.log.checkpoint();
  await some(8);
  const automatic = (await volume.rollback('a')) as unknown;
  states.push({ snapshot: nameOf(automatic), bytes: now.slice() });
  now.set((states[0] as State).bytes);
  await some(6);
  await keep('c');
  await volume.compact();
  await some(4);
  await volume.flush();
  states.push({ snapshot: undefined, bytes: now.slice() });
  if (closed) await pool.close();
  else {
    await volume.log.abandon();
    await pool.close().catch(() => undefined);
  }
  return { devices: devices.map((device) => device.bytes), states };
}

function nameOf(result: unknown): string {
  if (typeof result === 'string') return result;
  const { name, keptAs } = result as { name?: string; keptAs?: string };
  return keptAs ?? (name as string);
}
