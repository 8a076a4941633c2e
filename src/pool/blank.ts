// The ends of a device, where labels, partition tables and superblocks are, and whether there is anything.

import type { StorageDevice } from '../device/device.ts';

/** ZFS has its first uberblocks from 128 KiB on. */
const LOOK_BYTES = 256 * 1024;

export interface Ends {
  readonly front: Uint8Array;
  readonly back: Uint8Array;
  /** Where `back` begins on the device. */
  readonly backAt: number;
}

/** The first and the last of a device, which may overlap; nothing of one that has not a whole block. */
export async function readEnds(device: StorageDevice): Promise<Ends> {
  const alignment = device.blockSize;
  const length = Math.min(LOOK_BYTES, Math.floor(device.sizeBytes / alignment) * alignment);
  const front = new Uint8Array(length);
  const back = new Uint8Array(length);
  const backAt = Math.floor((device.sizeBytes - length) / alignment) * alignment;
  if (length > 0) {
    await device.read(0, front);
    await device.read(backAt, back);
  }
  return { front, back, backAt };
}

export function isZero(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0);
}

/** Both ends of the device are zero. */
export async function isBlank(device: StorageDevice): Promise<boolean> {
  const { front, back } = await readEnds(device);
  return isZero(front) && isZero(back);
}
