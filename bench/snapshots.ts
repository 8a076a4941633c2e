// The time of a snapshot with 1 MiB, 1 GiB and 64 GiB mapped. The device is in memory and its flush costs nothing, so what is measured is what the snapshot
// takes beside the one flush that makes it durable.
import type { VirtualVolume } from '../src/volume/volume.ts';
import { createLog, deviceBytes } from './harness/log.ts';
import { BLOCK, GIB, MIB, millisecondsOf, plain } from './harness/measure.ts';
import { Digest, expectSame, round, type Question, type Result } from './harness/question.ts';
import { StampDevice } from './harness/stamp-device.ts';
import { random, stamp, stampOf } from './harness/workload.ts';

/** Maps the whole volume from front to back; every block tells its place. */
async function fill(volume: VirtualVolume, bytes: number): Promise<void> {
  const buffer = new Uint8Array(MIB);
  for (let offset = 0; offset < bytes; offset += MIB) {
    for (let at = 0; at < MIB; at += BLOCK) stamp(buffer, at, (offset + at) / BLOCK, 1);
    await volume.write(offset, buffer);
  }
  await volume.flush();
}

export const question: Question = {
  name: 'snapshots',
  asks: 'How long does a snapshot take, however much is mapped?',
  async run(context): Promise<Result[]> {
    const results: Result[] = [];
    const sizes: [string, number][] = context.toy
      ? [
          ['1MiB', MIB],
          ['4MiB', 4 * MIB],
        ]
      : [
          ['1MiB', MIB],
          ['1GiB', GIB],
          ['64GiB', 64 * GIB],
        ];
    const rounds = context.toy ? 3 : 50;
    for (const [name, bytes] of sizes) {
      context.say(`snapshots: mapping ${name}`);
      const device = new StampDevice(deviceBytes(Math.ceil((bytes / MIB) * 0.28) + 80));
      const { log, volume } = await createLog(context, device, { virtualBytes: bytes });
      await fill(volume, bytes);
      const block = new Uint8Array(BLOCK);
      const next = random(5);
      const digest = new Digest();
      const costs: number[] = [];
      for (let index = 0; index < rounds; index++) {
        // There is always something new: a few blocks since the last one.
        for (let count = 0; count < 32; count++) {
          const at = next(bytes / BLOCK);
          stamp(block, 0, at, 2 + index);
          await volume.write(at * BLOCK, block);
        }
        costs.push(await millisecondsOf(() => volume.snapshot(`s${index}`)));
      }
      // The first snapshot must not have what was written after it.
      const draw = random(5);
      const view = volume.at('s0');
      for (let count = 0; count < 64; count++) {
        const at = draw(bytes / BLOCK);
        await view.read(at * BLOCK, block);
        const found = stampOf(block, 0);
        expectSame('snapshots: block', found.block, at);
        digest.add(found.version);
      }
      expectSame('snapshots: count', volume.snapshots().length, rounds);
      await log.close();
      results.push(
        plain({
          name: `snapshots.${name}`,
          about: `a snapshot with ${name} mapped, beside its one flush`,
          ours: costs,
          bar: '< 1',
          unit: 'ms',
          also: { longest: round(Math.max(...costs)) },
          hash: digest.toString(),
        }),
      );
    }
    return results;
  },
};
