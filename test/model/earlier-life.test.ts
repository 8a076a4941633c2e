// Two mirrors, and on one of them a record that a life before wrote and lost, at the place where the life at hand writes: of the same fill, sound in itself. Power is cut so that
// the right record is on the other mirror only. Whoever believes the wrong one when the log is opened writes it over the right one.
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { deviceBytes, storageVolume } from '../../bench/harness/log.ts';
import { MemoryDevice } from '../../src/device/memory.ts';
import { Log } from '../../src/volume/log.ts';
import { VirtualVolume } from '../../src/volume/volume.ts';

const BLOCK = 4096;
const SEGMENTS = 40;
const SEGMENT_BLOCKS = 16;
const BYTES = deviceBytes(SEGMENTS, SEGMENT_BLOCKS);
const UUID = Uint8Array.from({ length: 16 }, (_, index) => index + 1);
const KEY = new Uint8Array(16).fill(7);
const RAID1 = 2;
const POLICY = { growAt: 0.95, compactTo: 0.8, shrinkBelow: 0.7, mode: 'fixed', volumesMin: 1, volumesMax: 1 } as const;
const core = new Uint8Array(readFileSync(new URL('../../build/core.raid.wasm', import.meta.url)));

interface Life {
  readonly log: Log;
  readonly volume: VirtualVolume;
  readonly devices: readonly MemoryDevice[];
}

function deviceOf(image: Uint8Array): MemoryDevice {
  const device = new MemoryDevice(BYTES);
  device.writeSync(0, image);
  return device;
}

function imageOf(device: MemoryDevice): Uint8Array {
  const image = new Uint8Array(BYTES);
  device.readSync(0, image);
  return image;
}

/** Blocks that differ. */
function changed(before: Uint8Array, after: Uint8Array): number[] {
  const blocks: number[] = [];
  for (let at = 0; at < BYTES; at += BLOCK) {
    if (Buffer.compare(before.subarray(at, at + BLOCK), after.subarray(at, at + BLOCK)) !== 0) blocks.push(at / BLOCK);
  }
  return blocks;
}

function withBlocks(image: Uint8Array, from: Uint8Array, blocks: readonly number[]): Uint8Array {
  const copy = image.slice();
  for (const block of blocks) copy.set(from.subarray(block * BLOCK, (block + 1) * BLOCK), block * BLOCK);
  return copy;
}

async function life(images: readonly Uint8Array[] | undefined): Promise<Life> {
  const devices = images ? images.map(deviceOf) : [0, 1].map(() => new MemoryDevice(BYTES));
  const geometry = storageVolume(devices[0]!, SEGMENT_BLOCKS);
  const volumes = [{ ...geometry, level: RAID1, members: devices }];
  const log = images
    ? await Log.open({ name: 'mirrors', uuid: UUID, volumes, policy: POLICY, core })
    : await Log.create({ name: 'mirrors', uuid: UUID, key: KEY, volumes, policy: POLICY, core });
  if (!images) await log.createSource(0, 'default', 64 * BLOCK);
  return { log, volume: new VirtualVolume(log, 'mirrors', 0), devices };
}

/** Does something that ends with a flush; answers which blocks of the devices it changed. */
async function done({ devices }: Life, work: () => Promise<unknown>): Promise<number[]> {
  const before = devices.map(imageOf);
  await work();
  const [one, other] = devices.map((device, index) => changed(before[index]!, imageOf(device)));
  expect(one).toEqual(other);
  return one!;
}

/** One record: a header and a data block. */
function write(life: Life, block: number, version: number): Promise<void> {
  return life.volume.write(block * BLOCK, new Uint8Array(BLOCK).fill(version));
}

/** One record: a header. */
function create(life: Life, name: string): Promise<unknown> {
  return life.log.createSource(0, name, BLOCK);
}

function names({ log }: Life): string[] {
  return log.sources().map(({ name }) => name);
}

async function versions({ volume }: Life): Promise<number[]> {
  const found: number[] = [];
  for (let block = 0; block < 3; block++) {
    const bytes = new Uint8Array(BLOCK);
    await volume.read(block * BLOCK, bytes);
    expect(bytes.every((byte) => byte === bytes[0])).toBe(true);
    found.push(bytes[0]!);
  }
  return found;
}

describe('a record of an earlier life on one mirror', () => {
  it.each([
    ['behind what is durable, on the first', 0, 1],
    ['behind what is durable, on the second', 1, 1],
    ['in a segment with nothing durable in it, on the first', 0, 0],
    ['in a segment with nothing durable in it, on the second', 1, 0],
  ])('is not believed: %s', async (_, stale, durable) => {
    // The first life: a record that is durable, perhaps, then two that are lost, of which the second reached one mirror.
    const first = await life(undefined);
    if (durable) await done(first, () => write(first, 0, 11).then(() => first.volume.flush()));
    const images = first.devices.map(imageOf);
    const both = await done(first, () => Promise.all([write(first, 1, 12), create(first, 'lost')]));
    expect(both.length).toBe(3);
    const place = both.slice(2);
    const lost = imageOf(first.devices[stale]!);
    await first.log.abandon();
    images[stale] = withBlocks(images[stale]!, lost, place);

    // The second takes that fill up where it found its end, and leaves nothing behind it.
    const second = await life(images);
    expect(await versions(second)).toEqual([durable ? 11 : 0, 0, 0]);
    for (const block of place)
      expect(imageOf(second.devices[stale]!).subarray(block * BLOCK, (block + 1) * BLOCK)).toEqual(new Uint8Array(BLOCK));
    expect(await done(second, () => write(second, 1, 22).then(() => second.volume.flush()))).toEqual(both.slice(0, 2));
    const atSecond = second.devices.map(imageOf);
    // A member that came back may hold it nevertheless, and lack what is written there now.
    expect(await done(second, () => create(second, 'kept'))).toEqual(place);
    const again = second.devices.map(imageOf);
    await second.log.abandon();
    again[stale] = withBlocks(atSecond[stale]!, lost, place);

    let third = await life(again);
    const right = { versions: [durable ? 11 : 0, 22, 0], names: ['default', 'kept'] };
    expect({ versions: await versions(third), names: names(third) }).toEqual(right);
    await third.log.close();
    const closed = third.devices.map(imageOf);
    third = await life(closed);
    expect({ versions: await versions(third), names: names(third) }).toEqual(right);
    await third.log.close();
    // And each mirror by itself.
    for (const image of closed) {
      const alone = await life([image, image]);
      expect({ versions: await versions(alone), names: names(alone) }).toEqual(right);
      await alone.log.close();
    }
  });
});
