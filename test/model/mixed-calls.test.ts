// Logs as users have them (segments of 8 to 1024 blocks, leaves of 16 to 1024), under up to two dozen calls at a time of every kind, killed and opened again. The
// simulator's logs are tiny: what only fills up in a large one (a record of many trims, the list of a root, a bound for memory) is not reached there. In the planted
// build a step that takes more memory than it asked for traps, so nothing has to run short of it. check() finds nothing, at any time.
// What is in the blocks is compared elsewhere (large-leaves.test.ts, and the simulator).
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { createLog, openLog } from '../../bench/harness/log.ts';
import { StampDevice } from '../../bench/harness/stamp-device.ts';
import { stamp } from '../../bench/harness/workload.ts';
import { SliceDevice } from '../../src/device/wrap/slice.ts';
import { VarveError } from '../../src/errors.ts';
import { StoragePool } from '../../src/pool/pool.ts';
import { Random } from '../../src/testing/random.ts';
import type { Log } from '../../src/volume/log.ts';
import type { VirtualVolume } from '../../src/volume/volume.ts';

const BLOCK = 4096;
const MIB = 2 ** 20;
const CALL_BLOCKS = 256;
const STEPS = 300;
/** 145, 149: more than 33 discards, then a write of 127 blocks, in one record. 176, 191: more than 64 segments between two flushes, and a root. */
const SINGLE = [1, 2, 3, 145, 149, 176, 191];
const STRIPED = [1, 2, 3, 5];
const ALLOWED = new Set(['VARVE_NO_SPACE', 'VARVE_BUSY', 'VARVE_LIMIT', 'VARVE_NOT_FOUND', 'VARVE_EXISTS']);

const bytes = new Uint8Array(CALL_BLOCKS * BLOCK);
for (let index = 0; index < CALL_BLOCKS; index++) stamp(bytes, index * BLOCK, index, 1);

/** What may come of calls that meet: a source that is gone or smaller, a name that is taken, a log that is full. */
function allow(error: unknown): void {
  if (!(error instanceof RangeError) && !(error instanceof VarveError && ALLOWED.has(error.code))) throw error;
}

interface Stand {
  readonly log: Log;
  readonly volume: VirtualVolume;
  /** Closed, or just left, and opened again. */
  again(clean: boolean): Promise<Stand>;
  close(): Promise<void>;
}

const any = <T>(random: Random, choices: readonly T[]): T => choices[random.below(choices.length)] as T;
const leafBlocks = (random: Random): number => any(random, [16, 128, 512, 1024]);

/** On one device. */
async function single(random: Random, core: Uint8Array<ArrayBuffer>): Promise<Stand> {
  const segmentBlocks = any(random, [8, 32, 64, 256, 1024]);
  const shape = { segmentBlocks, geometry: { leafBlocks: leafBlocks(random) } };
  const device = new StampDevice((400 + random.below(3000)) * segmentBlocks * BLOCK);
  const context = { core, toy: true, directory: '', say: () => undefined };
  const stand = ({ log, volume }: { log: Log; volume: VirtualVolume }): Stand => ({
    log,
    volume,
    close: () => log.close(),
    again: async (clean) => {
      await (clean ? log.close() : log.abandon());
      return stand(await openLog(context, device, shape));
    },
  });
  const virtualBytes = Math.floor((device.sizeBytes * (20 + random.below(60))) / 100 / BLOCK) * BLOCK;
  return stand(await createLog(context, device, { virtualBytes, ...shape }));
}

/** In a pool on several devices, with strips of any length. */
async function striped(random: Random, core: Uint8Array<ArrayBuffer>): Promise<Stand> {
  const raid = any(random, ['0', '1', '5', '6', '10'] as const);
  const members = { 0: 2, 1: 2, 5: 3, 6: 4, 10: 4 }[raid] + 2 * random.below(2) + (raid === '10' ? 0 : random.below(2));
  const stripSize = any(random, [4096, 16_384, 65_536, 262_144, MIB]);
  const devices = Array.from({ length: members }, () => new StampDevice((40 + random.below(100)) * MIB * (stripSize < 262_144 ? 1 : 8)));
  const lent = (): SliceDevice[] => devices.map((device) => new SliceDevice(device, 0, device.sizeBytes));
  const options = { core, geometry: { leafBlocks: leafBlocks(random) } };
  const stand = (pool: StoragePool, volume: VirtualVolume): Stand => ({
    log: volume.log,
    volume,
    close: () => pool.close(),
    again: async (clean) => {
      if (!clean) await volume.log.abandon();
      await pool.close();
      const opened = await StoragePool.openDevices(lent(), options);
      return stand(opened, await opened.volume('v'));
    },
  });
  const pool = await StoragePool.create(lent(), { raid, stripSize, ...options });
  const { storageVolumes } = await pool.status();
  const size = Math.floor((storageVolumes[0]!.sizeBytes * (20 + random.below(50))) / 100 / BLOCK) * BLOCK;
  return stand(pool, await pool.createVolume('v', { size }));
}

async function live(
  seed: number,
  core: Uint8Array<ArrayBuffer>,
  make: (random: Random, core: Uint8Array<ArrayBuffer>) => Promise<Stand>,
): Promise<void> {
  const random = new Random(seed);
  let stand = await make(random, core);
  const size = stand.volume.sizeBytes;
  const share = any(random, [0.02, 1]); // of the volume that is used
  let names = 0;
  const snapshots: string[] = [];

  const call = (): Promise<unknown> | undefined => {
    const { log, volume } = stand;
    const blocks = Math.floor(volume.sizeBytes / BLOCK);
    const first = random.below(Math.max(1, Math.floor(blocks * share)));
    const count = Math.min(blocks - first, 1 + random.below(any(random, [1, 8, CALL_BLOCKS, CALL_BLOCKS])));
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
    if (kind < 94 && snapshots.length > 0) return volume.rollback(any(random, snapshots), { keepAs: `left ${names++}` });
    if (kind < 95) return volume.resize(Math.max(BLOCK, Math.floor((size * random.below(100)) / 100)));
    if (kind < 96) return volume.addSource(`source ${names++}`, size);
    if (kind < 97) {
      const others = volume.sources().filter((source) => source.name !== 'default');
      return others.length > 0 ? volume.deleteSource(any(random, others).name) : undefined;
    }
    return kind < 98 ? log.checkpoint() : undefined;
  };

  for (let step = 0; step < STEPS; step++) {
    const calls: (Promise<unknown> | undefined)[] = [];
    for (let count = random.below(24); count >= 0; count--) calls.push(call()?.catch(allow));
    await Promise.all(calls);
    if (random.below(40) === 0) expect(await stand.log.check()).toEqual([]);
    if (random.below(60) === 0) expect(await stand.log.scrub()).toEqual({ problems: [], mended: [] });
    if (random.below(30) > 0) continue;
    await stand.volume.flush().catch(allow);
    stand = await stand.again(random.below(2) === 0);
  }
  await stand.close();
}

describe('many calls at a time, in logs as users have them', () => {
  const planted = new Uint8Array(readFileSync(new URL('../../build/core.planted.wasm', import.meta.url)));
  const small = new Uint8Array(readFileSync(new URL('../../build/core.wasm', import.meta.url)));
  it.each(SINGLE)('seed %i', (seed) => live(seed, planted, single), 120_000);
  it.each([6, 7, 8])('seed %i, in the core without RAID', (seed) => live(seed, small, single), 120_000);
  it.each(STRIPED)('seed %i, on several devices', (seed) => live(seed, planted, striped), 120_000);
});
