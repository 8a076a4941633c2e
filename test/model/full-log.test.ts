// A full log: deletes and trims always work, and what they free can be written again. Writes must not use up what is kept for that, not even a block at a time in segments that
// trims opened.
import { readFileSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { deviceBytes, storageVolume } from '../../bench/harness/log.ts';
import { StampDevice } from '../../bench/harness/stamp-device.ts';
import { Log } from '../../src/volume/log.ts';
import { VirtualVolume } from '../../src/volume/volume.ts';

const BLOCK = 4096;
const UUID = Uint8Array.from({ length: 16 }, (_, index) => index + 1);
const KEY = new Uint8Array(16).fill(7);
const POLICY = { growAt: 0.95, compactTo: 0.8, shrinkBelow: 0.7, mode: 'fixed', volumesMin: 1, volumesMax: 1 } as const;

const cores = {
  small: new Uint8Array(readFileSync(new URL('../../build/core.wasm', import.meta.url))),
  raid: new Uint8Array(readFileSync(new URL('../../build/core.raid.wasm', import.meta.url))),
};

interface Shape {
  readonly core: keyof typeof cores;
  readonly level: number;
  readonly members: number;
  readonly segments: number;
  readonly segmentBlocks: number;
}

/** True if it went through; false if there was no space. */
async function done(operation: Promise<unknown>): Promise<boolean> {
  return operation.then(
    () => true,
    (error: unknown) => {
      expect(error).toMatchObject({ code: 'VARVE_NO_SPACE' });
      return false;
    },
  );
}

class Full {
  #log: Log;
  #volume: VirtualVolume;
  readonly #reopen: () => Promise<Log>;
  readonly #devices: readonly StampDevice[];
  readonly #bytes = new Uint8Array(BLOCK);
  readonly #words = new Uint32Array(this.#bytes.buffer);
  /** What is in each block; 0: a hole. */
  readonly versions: number[] = [];

  private constructor(log: Log, devices: readonly StampDevice[], reopen: () => Promise<Log>) {
    this.#log = log;
    this.#volume = new VirtualVolume(log, 'full', 0);
    this.#reopen = reopen;
    this.#devices = devices;
  }

  static async create({ core, level, members, segments, segmentBlocks }: Shape): Promise<Full> {
    const devices = Array.from({ length: members }, () => new StampDevice(deviceBytes(segments, segmentBlocks)));
    const volumes = [{ ...storageVolume(devices[0]!, segmentBlocks), level, members: devices }];
    const options = { name: 'full', uuid: UUID, volumes, policy: POLICY, core: cores[core] };
    const log = await Log.create({ ...options, key: KEY });
    const full = new Full(log, devices, () => Log.open(options));
    await log.createSource(0, 'default', members * segments * segmentBlocks * BLOCK);
    while (await full.write(full.versions.length, 1));
    full.versions.pop();
    await full.flush();
    return full;
  }

  async write(block: number, version: number): Promise<boolean> {
    this.#words[0] = version;
    this.#words[1] = block;
    const written = await done(this.#volume.write(block * BLOCK, this.#bytes));
    if (written) this.versions[block] = version;
    else this.versions[block] ??= 0;
    return written;
  }

  async trim(block: number): Promise<void> {
    await this.#volume.trim(block * BLOCK, BLOCK);
    this.versions[block] = 0;
  }

  flush(): Promise<void> {
    return this.#volume.flush();
  }

  async crash(): Promise<void> {
    await this.#log.abandon();
    this.#log = await this.#reopen();
    this.#volume = new VirtualVolume(this.#log, 'full', 0);
  }

  async verify(): Promise<void> {
    for (const [block, version] of this.versions.entries()) {
      await this.#volume.read(block * BLOCK, this.#bytes);
      if (this.#words[0] !== version || this.#words[1] !== (version && block))
        expect.fail(`block ${block}: version ${this.#words[0]}, not ${version}`);
    }
  }

  /** Left alone, it comes to an end with what it does in the background. */
  async settles(): Promise<void> {
    let before = -1;
    for (let tries = 0; tries < 100 && before !== this.#blocksRead(); tries++) {
      before = this.#blocksRead();
      await setTimeout(50);
    }
    expect(this.#blocksRead()).toBe(before);
  }

  #blocksRead(): number {
    return this.#devices.reduce((sum, device) => sum + device.blocksRead, 0);
  }

  close(): Promise<void> {
    return this.#log.close();
  }
}

describe('a full log', () => {
  it.each<[string, Shape]>([
    ['segments of 8 blocks', { core: 'raid', level: 0, members: 1, segments: 160, segmentBlocks: 8 }],
    ['segments of 16 blocks', { core: 'raid', level: 0, members: 1, segments: 160, segmentBlocks: 16 }],
    ['the small core, segments of 8 blocks', { core: 'small', level: 0, members: 1, segments: 160, segmentBlocks: 8 }],
    ['the small core, segments of 64 blocks', { core: 'small', level: 0, members: 1, segments: 160, segmentBlocks: 64 }],
    ['mirrors', { core: 'raid', level: 2, members: 2, segments: 160, segmentBlocks: 16 }],
    ['parity', { core: 'raid', level: 3, members: 5, segments: 160, segmentBlocks: 16 }],
  ])('can be trimmed and written for ever: %s', async (_, shape) => {
    const full = await Full.create(shape);
    const { length } = full.versions;
    expect(length).toBeGreaterThan(700);
    let written = 0;
    for (let round = 0; round < 2000; round++) {
      const block = (round * 7 + Math.floor(round / length)) % length;
      await full.trim(block);
      if (await full.write(block, round + 2)) written++;
      await full.flush();
    }
    expect(written).toBeGreaterThan(1000);
    await full.settles();
    await full.verify();
    await full.close();
  });

  it.each<[string, Shape]>([
    ['single', { core: 'raid', level: 0, members: 1, segments: 160, segmentBlocks: 8 }],
    ['the small core', { core: 'small', level: 0, members: 1, segments: 160, segmentBlocks: 16 }],
    ['mirrors', { core: 'raid', level: 2, members: 2, segments: 160, segmentBlocks: 16 }],
    ['parity', { core: 'raid', level: 3, members: 5, segments: 160, segmentBlocks: 16 }],
    ['two parities', { core: 'raid', level: 4, members: 4, segments: 120, segmentBlocks: 16 }],
  ])('that crashes after every trim and write can be emptied and filled again: %s', async (_, shape) => {
    const full = await Full.create(shape);
    const { length } = full.versions;
    for (let crash = 0; crash < 120; crash++) {
      const block = (crash * 11) % length;
      await full.trim(block);
      await full.write(block, crash + 2);
      await full.flush();
      await full.crash();
    }
    await full.settles();
    await full.verify();
    for (let block = 0; block < length; block++) {
      await full.trim(block);
      if (block % 3 === 0) await full.flush();
    }
    for (let block = 0; block < length * 0.8; block++) expect(await full.write(block, 7)).toBe(true);
    await full.flush();
    await full.crash();
    await full.settles();
    await full.verify();
    await full.close();
  });
});
