// Check of a log that is open for writing: the segments that are being filled are verified as well, as far as they are durable.
import { describe, expect, it } from 'vitest';
import type { MemoryDevice } from '../../src/device/memory.ts';
import type { Log } from '../../src/volume/log.ts';
import type { VirtualVolume } from '../../src/volume/volume.ts';
import { createLog, openLog, pattern } from './log-fixture.ts';

const BLOCK = 4096;
const BLOCKS = 150; // fewer than a segment has: all of them lie in one that is open

/** Data, a header of data, one of a trim and an operation, all flushed; and one block that is not. */
async function fill(volume: VirtualVolume): Promise<void> {
  await volume.write(0, pattern(BLOCKS * BLOCK, 3));
  await volume.flush();
  await volume.discard(10 * BLOCK, 2 * BLOCK);
  await volume.snapshot('s');
  await volume.write(20 * BLOCK, pattern(BLOCK, 4));
  await volume.flush();
  await volume.write(21 * BLOCK, pattern(BLOCK, 5));
}

async function flip(device: MemoryDevice, offset: number): Promise<void> {
  const byte = new Uint8Array(1);
  await device.read(offset, byte);
  byte[0]! ^= 1;
  await device.write(offset, byte);
}

/** Flips a bit in each range that is in use, one after the other. @returns how many there were of each kind */
async function flipEach(log: Log, device: MemoryDevice): Promise<Record<string, number>> {
  const counts: Record<string, number> = {};
  for (const { structure, offset, bytes } of await log.usedRanges()) {
    const at = offset + bytes - 1;
    await flip(device, at);
    const problems = await log.check();
    expect(problems, `a bit flipped in the last byte of ${structure} at ${offset}`).not.toEqual([]);
    await flip(device, at);
    counts[structure] = (counts[structure] ?? 0) + 1;
  }
  expect(await log.check()).toEqual([]);
  return counts;
}

describe('check of a log that is open for writing', () => {
  it('finds a flipped bit in what was written in this life', async () => {
    const { log, volume, devices } = await createLog({ size: '64MiB', segmentBlocks: 512 });
    await fill(volume);
    const counts = await flipEach(log, devices[0] as MemoryDevice);
    expect(counts).toMatchObject({ data: BLOCKS - 2 + 1, header: expect.toSatisfy((count: number) => count >= 5) });
    await log.close();
  });

  it('finds a flipped bit in what an earlier life wrote, in a segment that is filled further', async () => {
    const made = await createLog({ size: '64MiB', segmentBlocks: 512 });
    await fill(made.volume);
    await made.log.close();
    const { log, volume } = await openLog(made.volumes);
    await volume.write(30 * BLOCK, pattern(BLOCK, 6));
    await volume.flush();
    const counts = await flipEach(log, made.devices[0] as MemoryDevice);
    expect(counts['data']).toBeGreaterThan(BLOCKS);
    await log.close();
  });
});
