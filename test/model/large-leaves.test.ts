// Logs with leaves and images as users have them (512 and 1024 blocks a leaf, images in several fragments, dense leaves), killed again and again. The simulator's leaves are
// of 16 blocks, so that its histories reach what is rare everywhere else; what only large leaves do is reached here: images that go straight into a leaf, images joined
// from the pages of a batch, replay over dense leaves, the arena squeezed beside all that. After every kill each block of each state is compared with an array.
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { createLog, deviceBytes, openLog } from '../../bench/harness/log.ts';
import { StampDevice } from '../../bench/harness/stamp-device.ts';
import { Random } from '../../src/testing/random.ts';

const BLOCK = 4096;
const BLOCKS = 16 * 1024;
const SEGMENTS = 2600;
const SEGMENT_BLOCKS = 64;
const ROUNDS = 14;
const SNAPSHOTS_MAX = 4;
const CALL_BLOCKS = 256;

/** The version of each block; 0: zeros. */
type State = Uint32Array;

class World {
  readonly random: Random;
  readonly leafBlocks: number;
  readonly now: State = new Uint32Array(BLOCKS);
  readonly snapshots = new Map<string, State>();
  #version = 0;
  #names = 0;

  constructor(seed: number, leafBlocks: number) {
    this.random = new Random(seed);
    this.leafBlocks = leafBlocks;
  }

  version(): number {
    return ++this.#version;
  }

  name(): string {
    return `s${this.#names++}`;
  }
}

type Stand = Awaited<ReturnType<typeof openLog<StampDevice>>>;

function stamped(first: number, count: number, versionOf: (block: number) => number): Uint8Array {
  const bytes = new Uint8Array(count * BLOCK);
  const words = new Uint32Array(bytes.buffer);
  for (let index = 0; index < count; index++) {
    const version = versionOf(first + index);
    if (version === 0) continue;
    words[(index * BLOCK) / 4] = version;
    words[(index * BLOCK) / 4 + 1] = first + index;
  }
  return bytes;
}

async function put(world: World, stand: Stand, first: number, count: number): Promise<void> {
  for (let index = first; index < first + count; index++) world.now[index] = world.version();
  await stand.volume.write(
    first * BLOCK,
    stamped(first, count, (block) => world.now[block]!),
  );
}

/** One or two leaves: written in a row, or some, most or nearly all of their blocks one by one in any order; or trimmed. */
async function change(world: World, stand: Stand): Promise<void> {
  const { random, leafBlocks } = world;
  const first = random.below(BLOCKS / leafBlocks) * leafBlocks;
  const kind = random.below(8);
  if (kind === 0) await put(world, stand, first, Math.min(2 * leafBlocks, BLOCKS - first));
  else if (kind === 1) {
    const at = first + random.below(leafBlocks);
    const count = Math.min(1 + random.below(leafBlocks), BLOCKS - at);
    await stand.volume.trim(at * BLOCK, count * BLOCK);
    world.now.fill(0, at, at + count);
  } else {
    const share = [0.01, 0.1, 0.5, 0.85, 0.95, 1][kind - 2]!;
    const order = Array.from({ length: leafBlocks }, (_, index) => first + index);
    for (let index = order.length - 1; index > 0; index--) {
      const other = random.below(index + 1);
      [order[index], order[other]] = [order[other]!, order[index]!];
    }
    for (const block of order) if (random.below(1000) < share * 1000) await put(world, stand, block, 1);
  }
}

async function expectStates(world: World, { log, volume }: Stand): Promise<void> {
  const states: [string | null, State][] = [[null, world.now], ...world.snapshots];
  for (const [name, state] of states) {
    const view = name === null ? volume : volume.at(name);
    const bytes = new Uint8Array(CALL_BLOCKS * BLOCK);
    for (let first = 0; first < BLOCKS; first += CALL_BLOCKS) {
      await view.read(first * BLOCK, bytes);
      if (
        Buffer.compare(
          bytes,
          stamped(first, CALL_BLOCKS, (block) => state[block]!),
        ) === 0
      )
        continue;
      const words = new Uint32Array(bytes.buffer);
      const wrong = Array.from({ length: CALL_BLOCKS }, (_, index) => index).find((index) => words[index * 1024] !== state[first + index])!;
      expect.fail(`${name ?? 'now'}: block ${first + wrong} has version ${words[wrong * 1024]}, expected ${state[first + wrong]}`);
    }
  }
  expect(await log.check()).toEqual([]);
}

async function live(seed: number, leafBlocks: number, core: Uint8Array<ArrayBuffer>): Promise<{ replayed: number; checkpoints: number }> {
  const world = new World(seed, leafBlocks);
  const { random } = world;
  const context = { core, toy: true, directory: '', say: () => {} };
  const device = new StampDevice(deviceBytes(SEGMENTS, SEGMENT_BLOCKS));
  const shape = { segmentBlocks: SEGMENT_BLOCKS, geometry: { leafBlocks, checkpointEntries: 30_000 } };
  let stand: Stand = await createLog(context, device, { virtualBytes: BLOCKS * BLOCK, ...shape });
  const sums = { replayed: 0, checkpoints: 0 };
  for (let round = 0; round < ROUNDS; round++) {
    for (let step = 4 + random.below(10); step > 0; step--) {
      const kind = random.below(12);
      if (kind === 0 && world.snapshots.size < SNAPSHOTS_MAX) {
        const name = world.name();
        await stand.volume.snapshot(name);
        world.snapshots.set(name, world.now.slice());
      } else if (kind === 1 && world.snapshots.size > 0) {
        const name = [...world.snapshots.keys()][random.below(world.snapshots.size)]!;
        await stand.volume.deleteSnapshot(name);
        world.snapshots.delete(name);
      } else if (kind === 2) {
        await stand.log.checkpoint();
      } else await change(world, stand);
    }
    await stand.volume.flush();
    sums.checkpoints += stand.log.figures().checkpoints;
    if (random.below(6) === 0) await stand.log.close();
    else await stand.log.abandon();
    stand = await openLog(context, device, shape);
    sums.replayed += stand.log.figures().replayedEntries;
    await expectStates(world, stand);
  }
  await stand.log.close();
  return sums;
}

describe.each(['core', 'core.raid'])('%s: logs with leaves as users have them', (name) => {
  const core = new Uint8Array(readFileSync(new URL(`../../build/${name}.wasm`, import.meta.url)));
  it.each([
    [1, 512],
    [2, 512],
    [3, 1024],
    [4, 1024],
  ])('bring back every state after every kill: seed %i, %i blocks a leaf', async (seed, leafBlocks) => {
    const { replayed, checkpoints } = await live(seed, leafBlocks, core);
    expect(replayed).toBeGreaterThan(1000);
    expect(checkpoints).toBeGreaterThan(3);
  });
});
