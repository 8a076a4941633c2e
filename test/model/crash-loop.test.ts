// A log whose program crashes again and again and never gets as far as a checkpoint, nearly full or full: each open goes on where the last one stood, and a log that is
// opened for nothing loses nothing.
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { deviceBytes, storageVolume } from '../../bench/harness/log.ts';
import { StampDevice } from '../../bench/harness/stamp-device.ts';
import { Log } from '../../src/volume/log.ts';
import { VirtualVolume } from '../../src/volume/volume.ts';

const BLOCK = 4096;
const SEGMENTS = 40;
const SEGMENT_BLOCKS = 16;
const UUID = Uint8Array.from({ length: 16 }, (_, index) => index + 1);
const KEY = new Uint8Array(16).fill(7);
const POLICY = { growAt: 0.95, compactTo: 0.8, shrinkBelow: 0.7, mode: 'fixed', volumesMin: 1, volumesMax: 1 } as const;

describe.each([
  ['single', 0, 1, 120],
  ['RAID 1', 2, 2, 240],
  ['RAID 5', 3, 5, 120],
  ['RAID 6', 4, 4, 120],
])('a log that crashes at every start: %s', (_, level, members, some) => {
  const core = new Uint8Array(readFileSync(new URL('../../build/core.raid.wasm', import.meta.url)));

  it.each([
    ['after a flush, with some room', true, some],
    ['after a flush, full', true, Infinity],
    ['with nothing written, full', false, Infinity],
  ])('can be opened: %s', async (_title, writing, most) => {
    const devices = Array.from({ length: members }, () => new StampDevice(deviceBytes(SEGMENTS, SEGMENT_BLOCKS)));
    const volumes = [{ ...storageVolume(devices[0]!, SEGMENT_BLOCKS), level, members: devices }];
    const bytes = new Uint8Array(BLOCK);
    const words = new Uint32Array(bytes.buffer);
    let log = await Log.create({ name: 'loop', uuid: UUID, key: KEY, volumes, policy: POLICY, core });
    await log.createSource(0, 'default', SEGMENTS * SEGMENT_BLOCKS * BLOCK);
    let volume = new VirtualVolume(log, 'loop', 0);
    // As full as it gets, what is left is the reserve; or three quarters of that.
    let live = 0;
    while (live < most) {
      words[0] = 1;
      words[1] = live;
      const full = await volume.write(live * BLOCK, bytes).then(
        () => false,
        (error: unknown) => {
          expect(error).toMatchObject({ code: 'VARVE_NO_SPACE' });
          return true;
        },
      );
      if (full) break;
      live++;
    }
    await volume.flush();
    expect(live).toBeGreaterThan(100);
    const versions = new Uint32Array(live).fill(1);
    for (let crash = 0; crash < 60; crash++) {
      await log.abandon();
      log = await Log.open({ name: 'loop', uuid: UUID, volumes, policy: POLICY, core });
      volume = new VirtualVolume(log, 'loop', 0);
      const at = (crash * 7) % live;
      if (writing) {
        // A trim always works, and what it frees may be written.
        await volume.trim(at * BLOCK, BLOCK);
        words[0] = versions[at] = crash + 2;
        words[1] = at;
        await volume.write(at * BLOCK, bytes).catch((error: unknown) => {
          expect(error).toMatchObject({ code: 'VARVE_NO_SPACE' });
          versions[at] = 0;
        });
        await volume.flush();
      }
      for (let block = 0; block < live; block++) {
        await volume.read(block * BLOCK, bytes);
        if (words[0] !== versions[block]) expect.fail(`crash ${crash}, block ${block}: version ${words[0]}, not ${versions[block]}`);
      }
    }
    await log.close();
  });
});
