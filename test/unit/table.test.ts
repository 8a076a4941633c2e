import { describe, expect, test } from 'vitest';
import { World, type WorldOptions } from './table.model.ts';
import { tableModule } from './table.support.ts';

const module = tableModule();

/** Takes the holes out, in windows of so many bytes; puts come in between two of them. */
function squeeze(world: World, windowBytes: number): void {
  for (let more = 1; more !== 0;) {
    more = world.core.squeezeStep(windowBytes);
    expect(world.core.allocatorVerify()).toBe(0);
    expect(world.core.tableVerify()).toBe(0);
    if (more && windowBytes % 3 === 0) world.step();
  }
}

function history(seed: number, options: WorldOptions, steps: number): World {
  const world = new World(module, seed, options);
  for (let step = 0; step < steps; step++) {
    world.step();
    if (step % 37 === 0) {
      world.checkStates();
      world.checkDiff();
    }
    if (step % 29 === 0) squeeze(world, 64 + 32 * (step % 64));
    if (step % 61 === 0) {
      world.sweepAll();
      world.checkLive();
    }
    if (step % 97 === 96) {
      world.sweepAll();
      world.recover(world.root()); // everything through images, into a new instance
      world.checkLive();
      world.checkStates();
    }
  }
  world.sweepAll();
  world.checkLive();
  world.checkStates();
  return world;
}

// Recovery from a root whose leaf images were made at different moments, then the whole log behind it.
function recovery(seed: number, options: WorldOptions): void {
  const world = new World(module, seed, options);
  for (let step = 0; step < 60; step++) world.step();
  for (let round = 0; round < 3; round++) {
    const root = world.root();
    for (let k = 0; k < 4; k++) {
      for (let step = 0; step < 12; step++) world.step();
      world.refresh(root);
    }
    for (let step = 0; step < 15; step++) world.step();
    world.sweepAll();
    world.checkLive();
    world.recover(root);
    world.checkLive();
    world.checkStates();
    world.checkDiff();
  }
}

describe('the table against a naive model', () => {
  test.each([1, 2, 3, 4, 5, 6, 7, 8])('tiny leaves, seed %i', (seed) => {
    history(seed, { leafBlocks: 16, blocks: 200, external: seed % 4 === 0 }, 400);
  });
  test.each([11, 12, 13])('leaves of 512 blocks, seed %i', (seed) => {
    history(seed, { leafBlocks: 512, blocks: 2000, external: seed === 13, sequential: 70 }, 300);
  });
  test('leaves of 64 and 1024 blocks', () => {
    history(21, { leafBlocks: 64, blocks: 600 }, 200);
    history(22, { leafBlocks: 1024, blocks: 3000, sequential: 80 }, 150);
  });
  test.each([31, 32, 33, 34, 35, 36, 37, 38, 39, 40])('recovery passes over what an image has already, seed %i', (seed) => {
    recovery(seed, { leafBlocks: 16, blocks: 150, external: seed % 5 === 0 });
  });
  test('a long history takes every rare path', () => {
    const counts = Array.from({ length: 28 }, () => 0);
    for (const options of [
      { leafBlocks: 16, blocks: 120 },
      { leafBlocks: 32, blocks: 120, sequential: 80 },
    ]) {
      for (let seed = 50; seed < 56; seed++) {
        const world = new World(module, seed, options);
        for (let step = 0; step < 300; step++) world.step();
        world.checkStates();
        world.checkDiff();
        counts.forEach((count, id) => {
          counts[id] = count + world.core.counterGet(id);
        });
      }
    }
    const outside = [6, 8, 22, 23, 24]; // packed ↔ dense, the gate, released images, refused images: tested apart
    expect(
      counts.flatMap((count, id) => (count || outside.includes(id) ? [] : [id])),
      'counters never reached',
    ).toEqual([]);
  });
});

describe('planted faults are found', () => {
  const found = (run: () => void): string => {
    try {
      run();
    } catch (error) {
      return String(error);
    }
    return '';
  };
  const plants: [plant: number, name: string][] = [
    [1, 'FREE_SNAPSHOT_BLOCK'],
    [2, 'TRIM_DROPS_HOLE'],
    [3, 'MOVE_UNCONDITIONAL'],
    [5, 'LIVE_OFF_BY_ONE'],
  ];
  test.each(plants)('plant %i %s', (plant) => {
    expect(found(() => history(1, { leafBlocks: 16, blocks: 200, plant }, 400))).not.toBe('');
  });
  test('plant 4 REPLAY_IGNORES_APPLIED', () => {
    const seeds = [31, 32, 33].map((seed) => found(() => recovery(seed, { leafBlocks: 16, blocks: 150, plant: 4 })));
    expect(seeds.some((message) => message !== '')).toBe(true);
  });
});
