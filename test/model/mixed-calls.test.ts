// Logs as users have them (segments of 8 to 1024 blocks, leaves of 16 to 1024), under up to two dozen calls at a time of every kind, killed and opened again. The
// simulator's logs are tiny: what only fills up in a large one (a record of many trims, the list of a root, a bound for memory) is not reached there. In the planted
// build a step that takes more memory than it asked for traps, so nothing has to run short of it. check() finds nothing, at any time.
// What is in the blocks is compared elsewhere (large-leaves.test.ts, and the simulator).
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { createLog, openLog } from '../../bench/harness/log.ts';
import { StampDevice } from '../../bench/harness/stamp-device.ts';
import { stamp } from '../../bench/harness/workload.ts';
import { VarveError } from '../../src/errors.ts';
import { Random } from '../../src/testing/random.ts';

const BLOCK = 4096;
const CALL_BLOCKS = 256;
const STEPS = 300;
const ALLOWED = new Set(['VARVE_NO_SPACE', 'VARVE_BUSY', 'VARVE_LIMIT', 'VARVE_NOT_FOUND', 'VARVE_EXISTS']);

const bytes = new Uint8Array(CALL_BLOCKS * BLOCK);
for (let index = 0; index < CALL_BLOCKS; index++) stamp(bytes, index * BLOCK, index, 1);

/** What may come of calls that meet: a source that is gone or smaller, a name that is taken, a log that is full. */
function allow(error: unknown): void {
  if (!(error instanceof RangeError) && !(error instanceof VarveError && ALLOWED.has(error.code))) throw error;
}

async function live(seed: number, core: Uint8Array<ArrayBuffer>): Promise<void> {
  const random = new Random(seed);
  const any = <T>(choices: readonly T[]): T => choices[random.below(choices.length)] as T;
  const segmentBlocks = any([8, 32, 64, 256, 1024]);
  const shape = { segmentBlocks, geometry: { leafBlocks: any([16, 128, 512, 1024]) } };
  const device = new StampDevice((400 + random.below(3000)) * segmentBlocks * BLOCK);
  const size = Math.floor((device.sizeBytes * (20 + random.below(60))) / 100 / BLOCK) * BLOCK;
  const share = any([0.02, 1]); // of the volume that is used
  const context = { core, toy: true, directory: '', say: () => undefined };
  let { log, volume } = await createLog(context, device, { virtualBytes: size, ...shape });
  let names = 0;
  const snapshots: string[] = [];

  const call = (): Promise<unknown> | undefined => {
    const blocks = Math.floor(volume.sizeBytes / BLOCK);
    const first = random.below(Math.max(1, Math.floor(blocks * share)));
    const count = Math.min(blocks - first, 1 + random.below(any([1, 8, CALL_BLOCKS, CALL_BLOCKS])));
    const kind = random.below(100);
    if (kind < 45) return volume.write(first * BLOCK, bytes.subarray(0, count * BLOCK));
    if (kind < 50) return volume.write(first * BLOCK + 17, bytes.subarray(0, 100));
    if (kind < 66) return volume.read(first * BLOCK, new Uint8Array(count * BLOCK));
    if (kind < 74) return volume.discard(first * BLOCK, Math.min(blocks - first, count * (1 + random.below(2000))) * BLOCK);
    if (kind < 82) return volume.discard(first * BLOCK, BLOCK);
    if (kind < 85) return volume.flush();
    if (kind < 90) {
      const name = `a snapshot with a rather long name, number ${names++}`;
      snapshots.push(name);
      return volume.snapshot(name);
    }
    if (kind < 93 && snapshots.length > 0) return volume.deleteSnapshot(snapshots.splice(random.below(snapshots.length), 1)[0]!);
    if (kind < 94 && snapshots.length > 0) return volume.rollback(any(snapshots), { keepAs: `left ${names++}` });
    if (kind < 95) return volume.resize(Math.max(BLOCK, Math.floor((size * random.below(100)) / 100)));
    if (kind < 96) return volume.addSource(`source ${names++}`, size);
    if (kind < 97) {
      const others = volume.sources().filter((source) => source.name !== 'default');
      return others.length > 0 ? volume.deleteSource(any(others).name) : undefined;
    }
    return kind < 98 ? log.checkpoint() : undefined;
  };

  for (let step = 0; step < STEPS; step++) {
    const calls: (Promise<unknown> | undefined)[] = [];
    for (let count = random.below(24); count >= 0; count--) calls.push(call()?.catch(allow));
    await Promise.all(calls);
    if (random.below(40) === 0) expect(await log.check()).toEqual([]);
    if (random.below(60) === 0) expect(await log.scrub()).toEqual({ problems: [], mended: [] });
    if (random.below(30) > 0) continue;
    await volume.flush().catch(allow);
    if (random.below(2) === 0) await log.close();
    else await log.abandon();
    ({ log, volume } = await openLog(context, device, shape));
  }
  await log.close();
}

describe('many calls at a time, in logs as users have them', () => {
  const planted = new Uint8Array(readFileSync(new URL('../../build/core.planted.wasm', import.meta.url)));
  const small = new Uint8Array(readFileSync(new URL('../../build/core.wasm', import.meta.url)));
  // 145, 178: more than 33 discards, then a write of 127 blocks, in one record. 176, 191: more than 64 segments between two flushes, and a root.
  it.each([1, 2, 3, 4, 5, 145, 176, 178, 191])('seed %i', (seed) => live(seed, planted), 120_000);
  it.each([6, 7, 8])('seed %i, in the core without RAID', (seed) => live(seed, small), 120_000);
});
