// A volume brought to one state after the other, each kept in a snapshot: in a browser through a client, in the other runtimes as it is. Each runtime knows
// from the number alone what every snapshot has to be.
import type { StorageDevice } from '../../../src/device/device.ts';
import { DISK_BYTES, stateAfter } from './states.ts';

interface Volume {
  write(offset: number, from: Uint8Array): Promise<void>;
  discard(offset: number, length: number): Promise<void>;
  snapshot(name: string): Promise<void>;
  at(name: string): Pick<StorageDevice, 'read'> | Promise<Pick<StorageDevice, 'read'>>;
}

const same = (a: Uint8Array, b: Uint8Array): boolean => a.length === b.length && a.every((byte, at) => byte === b[at]);

/** From the state before to this one, block by block. */
export async function takeStep(volume: Volume, step: number): Promise<void> {
  const [before, after] = [stateAfter(step - 1), stateAfter(step)];
  for (let at = 0; at < after.length; at += 4096) {
    const block = after.slice(at, at + 4096);
    if (same(block, before.subarray(at, at + 4096))) continue;
    if (block.every((byte) => byte === 0)) await volume.discard(at, block.length);
    else await volume.write(at, block);
  }
  await volume.snapshot(`step-${step}`);
}

/** @returns the snapshots that are not what they should be */
export async function verifySteps(volume: Volume, steps: number): Promise<string[]> {
  const wrong: string[] = [];
  for (let step = 1; step <= steps; step++) {
    const into = new Uint8Array(DISK_BYTES);
    await (await volume.at(`step-${step}`)).read(0, into);
    if (!same(into, stateAfter(step))) wrong.push(`step-${step}`);
  }
  return wrong;
}
