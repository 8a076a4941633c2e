// Logs of segments as users have them (256 blocks), nearly full, and a writer that always waits for room: what makes room must not wait for the writer.
// The simulator's segments are of 8 blocks, so that what is ready to be written there never amounts to a write-out unless a segment is sealed.
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { createLog, deviceBytes } from '../../bench/harness/log.ts';
import { StampDevice } from '../../bench/harness/stamp-device.ts';
import { Random } from '../../src/testing/random.ts';

const BLOCK = 4096;
const SEGMENT_BLOCKS = 256;

describe.each(['core', 'core.raid'])('%s: a log that is nearly full goes on, or says that it is full', (name) => {
  const core = new Uint8Array(readFileSync(new URL(`../../build/${name}.wasm`, import.meta.url)));

  it.each([
    [48, 0.8],
    [96, 0.9],
  ])('%d segments, %d of what is not reserve is live', async (segments, load) => {
    const device = new StampDevice(deviceBytes(segments, SEGMENT_BLOCKS));
    const { log, volume } = await createLog({ core, toy: true, directory: '', say: () => {} }, device, {
      virtualBytes: segments * SEGMENT_BLOCKS * BLOCK,
      segmentBlocks: SEGMENT_BLOCKS,
      sync: true,
    });
    const { capacityBytes, segmentCount, reserveSegments } = log.figures();
    const live = Math.floor((load * capacityBytes * (segmentCount - reserveSegments)) / segmentCount / BLOCK);
    const versions = new Uint32Array(live);
    const random = new Random(segments);
    const bytes = new Uint8Array(BLOCK);
    const words = new Uint32Array(bytes.buffer);
    for (let count = 0; count < 4 * live; count++) {
      const at = count < live ? count : random.below(live);
      words[0] = count + 1;
      words[1] = at;
      try {
        volume.writeSync(at * BLOCK, bytes);
      } catch (error) {
        // The core for browsers keeps more free than the other, and may be full. VARVE_BUSY would mean that nobody was asked to make room.
        expect(error).toMatchObject({ code: 'VARVE_NO_SPACE' });
        expect(name).toBe('core');
        expect(count).toBeGreaterThan(live);
        break;
      }
      versions[at] = count + 1;
    }
    for (let at = 0; at < live; at++) {
      volume.readSync(at * BLOCK, bytes);
      if (words[0] !== versions[at] || words[1] !== at) expect.fail(`block ${at}: version ${words[0]}, not ${versions[at]}`);
    }
    expect(log.figures().movedBytes).toBeGreaterThan(0);
    await log.close();
  });
});
