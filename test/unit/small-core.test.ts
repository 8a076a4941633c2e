// What the core without RAID does in its own way, or did.
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { MemoryDevice } from '../../src/device/memory.ts';
import { FaultDevice } from '../../src/device/wrap/fault.ts';
import { createLog, pattern } from './log-fixture.ts';

const BLOCK = 4096;

describe('the core without RAID', () => {
  it('goes on after any number of flushes that failed once', async () => {
    const core = new Uint8Array(readFileSync(new URL('../../build/core.wasm', import.meta.url)));
    let failing = false;
    const device = new FaultDevice(new MemoryDevice('64MiB'), ({ op }) => {
      if (!failing || op === 'read') return undefined;
      failing = false;
      return { kind: 'fail' };
    });
    const { log, volume } = await createLog({ devices: [device], core });
    for (let round = 0; round < 40; round++) {
      await volume.write(round * BLOCK, pattern(BLOCK, round));
      await volume.flush();
      await volume.write((100 + round) * BLOCK, pattern(BLOCK, round));
      failing = true;
      await volume.flush();
    }
    expect(log.figures().failedReadOnly).toBe(false);
    await log.close();
  });
});
