// Opening a log whose root names many metadata pages: the core keeps 40 bytes for each in memory, and asks for that memory before it takes it. A real log has
// so many pages from some 90 GiB of random mappings on (bench/reopen.ts); here a root is forged to say so.
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { createLog, deviceBytes, openLog, storageVolume } from '../../bench/harness/log.ts';
import { StampDevice } from '../../bench/harness/stamp-device.ts';
import { sealedSum } from '../system/forge.ts';

const BLOCK = 4096;
const ROOT_MAGIC = 0x314c5656;
const ROOT_SEED = 0x56415256n;
const SUM_AT = 8;
const NODE_COUNT_AT = 136;
const SEGMENTS = 400; // of 1024 blocks: a root may not name more pages than there are blocks

/** Changes the number of pages in every root that there is, and seals it again. */
function claimPages(device: StampDevice, pages: number): number {
  const { rootFrontOffset, rootBackOffset } = storageVolume(device);
  let changed = 0;
  for (const offset of [rootFrontOffset, rootFrontOffset + BLOCK, rootBackOffset, rootBackOffset + BLOCK]) {
    const root = new Uint8Array(BLOCK);
    device.readSync(offset, root);
    const fields = new DataView(root.buffer);
    if (fields.getUint32(0, true) !== ROOT_MAGIC) continue;
    fields.setUint32(NODE_COUNT_AT, pages, true);
    fields.setBigUint64(SUM_AT, sealedSum(root, SUM_AT, ROOT_SEED), true);
    device.writeSync(offset, root);
    changed++;
  }
  return changed;
}

describe('a root that names more pages than fit into the memory that the core begins with', () => {
  const core = new Uint8Array(readFileSync(new URL('../../build/core.wasm', import.meta.url)));
  const context = { core, toy: true, directory: '', say: () => {} };

  test('is read with more memory, and refused for what is wrong with it', async () => {
    const device = new StampDevice(deviceBytes(SEGMENTS));
    const { log, volume } = await createLog(context, device, { virtualBytes: 2 ** 24 });
    await volume.write(0, new Uint8Array(BLOCK).fill(1));
    await log.close();
    const { log: sound } = await openLog(context, device, { readOnly: true });
    await sound.abandon();
    // Two slots, front and back.
    expect(claimPages(device, 300_000)).toBe(4);
    await expect(openLog(context, device, { readOnly: true })).rejects.toMatchObject({ code: 'VARVE_CORRUPT' });
  });
});
