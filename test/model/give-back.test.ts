// A storage volume is given back, a checkpoint falls into it, and what is left there is trimmed before the power goes. The volume is empty when the log is opened again, but the pages of
// that checkpoint may still name its blocks: it must not be gone before they are written anew, or the log cannot be opened without it.
import { readFileSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { deviceBytes, storageVolume } from '../../bench/harness/log.ts';
import { MemoryDevice } from '../../src/device/memory.ts';
import { Log, type LogVolume } from '../../src/volume/log.ts';
import { VirtualVolume } from '../../src/volume/volume.ts';

const BLOCK = 4096;
const SEGMENTS = 60;
const SEGMENT_BLOCKS = 8;
const BYTES = deviceBytes(SEGMENTS, SEGMENT_BLOCKS);
const UUID = Uint8Array.from({ length: 16 }, (_, index) => index + 1);
const KEY = new Uint8Array(16).fill(7);
const POLICY = { growAt: 0.95, compactTo: 0.8, shrinkBelow: 0.7, mode: 'fixed', volumesMin: 1, volumesMax: 2 } as const;
/** Of the virtual volume. */
const BLOCKS = 400;
/** Trimmed at the beginning, so that there is room on volume 0 for all that is left. */
const ROOM = 100;
/** On volume 1. */
const LEAVING = 60;

function imageOf(device: MemoryDevice): Uint8Array {
  const image = new Uint8Array(BYTES);
  device.readSync(0, image);
  return image;
}

const place = (id: number, device: MemoryDevice): LogVolume => ({ ...storageVolume(device, SEGMENT_BLOCKS), id, members: [device] });

describe.each(['core.wasm', 'core.raid.wasm'])('a storage volume that is given back: %s', (file) => {
  const core = new Uint8Array(readFileSync(new URL(`../../build/${file}`, import.meta.url)));
  const bytes = new Uint8Array(BLOCK);
  const words = new Uint32Array(bytes.buffer);

  /** A log with something on either volume, and how many blocks it has. */
  async function made(): Promise<{ images: Uint8Array[]; blocks: number }> {
    const devices = [0, 1].map(() => new MemoryDevice(BYTES));
    const volumes = devices.map((device, id) => place(id, device));
    const log = await Log.create({ name: 'giving', uuid: UUID, key: KEY, volumes, policy: POLICY, core });
    await log.createSource(0, 'default', BLOCKS * BLOCK);
    const volume = new VirtualVolume(log, 'giving', 0);
    let blocks = 0;
    while (log.volumeFigures(1).liveBytes < LEAVING * BLOCK) {
      words[0] = 1;
      words[1] = blocks;
      await volume.write(blocks++ * BLOCK, bytes);
    }
    await volume.trim(0, ROOM * BLOCK);
    await volume.flush();
    await log.checkpoint();
    await log.abandon();
    return { images: devices.map(imageOf), blocks };
  }

  async function open(images: readonly Uint8Array[]): Promise<{ log: Log; volume: VirtualVolume; devices: MemoryDevice[] }> {
    const devices = images.map((image) => {
      const device = new MemoryDevice(BYTES);
      device.writeSync(0, image);
      return device;
    });
    const volumes = devices.map((device, id) => place(id, device));
    const log = await Log.open({ name: 'giving', uuid: UUID, volumes, policy: POLICY, core });
    return { log, volume: new VirtualVolume(log, 'giving', 0), devices };
  }

  it('is not named by anything when it is gone', async () => {
    const { images, blocks } = await made();
    const kept = blocks - LEAVING - 10;
    let partly = 0;
    for (let turns = 0; turns < 80; turns++) {
      const first = await open(images);
      first.log.evacuateVolume(1);
      for (let turn = 0; turn < turns >> 1; turn++) await (turns & 1 ? Promise.resolve() : setImmediate());
      await first.log.checkpoint();
      if (first.log.volumeFigures(1).liveBytes > 0) partly++;
      await Promise.all(Array.from({ length: blocks - kept }, (_, index) => first.volume.trim((kept + index) * BLOCK, BLOCK)));
      await first.volume.flush();
      await first.log.abandon();

      const second = await open(first.devices.map(imageOf));
      second.log.evacuateVolume(1);
      for (let turn = 0; turn < 2000 && second.log.volumeState(1) !== 'released'; turn++) await setImmediate();
      expect(second.log.volumeState(1)).toBe('released');
      second.log.removeVolume(1);
      await second.log.abandon();

      const without = await open([imageOf(second.devices[0]!)]);
      for (let block = 0; block < blocks; block++) {
        await without.volume.read(block * BLOCK, bytes);
        const live = block >= ROOM && block < kept;
        if (words[0] !== Number(live) || words[1] !== (live ? block : 0))
          expect.fail(`after ${turns} turns: block ${block} holds ${words[0]}, ${words[1]}`);
      }
      await without.log.close();
    }
    expect(partly).toBeGreaterThan(10);
  });
});
