// Logs of which only the shape is large: the devices keep of each block no more than a stamp.
import { describe, expect, it } from 'vitest';
import { StampDevice } from '../../bench/harness/stamp-device.ts';
import { SliceDevice } from '../../src/device/wrap/slice.ts';
import { StoragePool } from '../../src/pool/pool.ts';
import type { RaidLevel } from '../../src/pool/raid.ts';
import { createLog, storageVolume } from './log-fixture.ts';

const BLOCK = 4096;
const MIB = 2 ** 20;

function stamped(blocks: number, value: number): Uint8Array {
  const bytes = new Uint8Array(blocks * BLOCK);
  const words = new Uint32Array(bytes.buffer);
  for (let at = 0; at < blocks; at++) {
    words[at * 1024] = value;
    words[at * 1024 + 1] = at;
  }
  return bytes;
}

describe('strips of 1 MiB', () => {
  it.each([
    ['0', 32],
    ['0', 31],
    ['1', 32],
    ['5', 32],
    ['5', 5],
    ['6', 32],
    ['10', 32],
  ] as [RaidLevel, number][])('RAID %s over %i devices: takes data, and has it when it is opened again', async (raid, count) => {
    const devices = Array.from({ length: count }, () => new StampDevice(600 * MIB));
    const lent = () => devices.map((device) => new SliceDevice(device, 0, device.sizeBytes));
    const pool = await StoragePool.create(lent(), { raid, stripSize: '1MiB' });
    const volume = await pool.createVolume('v', { size: '1GiB' });
    const blocks = raid === '1' ? 4096 : 8192;
    // More than a segment, so that one is sealed.
    for (let round = 1; round <= 3 * (raid === '5' ? 5 : raid === '6' ? 5 : 3); round++) await volume.write(0, stamped(blocks, round));
    await volume.write(0, stamped(blocks, 99));
    await volume.flush();
    const { storageVolumes } = await pool.status();
    expect(storageVolumes[0]!.usedBytes).toBeGreaterThan(blocks * BLOCK);
    await pool.close();
    const again = await StoragePool.openDevices(lent());
    const into = new Uint8Array(blocks * BLOCK);
    const opened = await again.volume('v');
    await opened.read(0, into);
    expect(Buffer.compare(into, stamped(blocks, 99))).toBe(0);
    // Most of the storage volume is for data, and not held back.
    expect(opened.log.figures().reserveSegments).toBeLessThan(16);
    await again.close();
  });
});

it('what a trim leaves empty is free after the next flush, also in a log of many segments', async () => {
  const [segmentBlocks, segments] = [64, 2000];
  const sizeBytes = 2 * 4096 * 40 + segments * segmentBlocks * BLOCK + 2 * MIB;
  const devices = [0, 1].map(() => new StampDevice(sizeBytes));
  const { log, volume } = await createLog({ devices, segmentBlocks, virtualBytes: 190_000 * BLOCK });
  expect(storageVolume(0, devices[0]!, segmentBlocks).segmentCount).toBeGreaterThanOrEqual(segments);
  for (let at = 0; at + 256 <= 186_000; at += 256) await volume.write(at * BLOCK, stamped(256, at + 1));
  await volume.flush();
  await log.checkpoint();
  const full = log.figures().freeSegments;
  expect(full).toBeLessThan(1000);
  await volume.trim(0, 190_000 * BLOCK);
  await volume.flush();
  expect(log.figures().freeSegments).toBeGreaterThan(3500);
  await log.close();
});
