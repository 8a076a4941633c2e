// Write amplification in the steady state: blocks copied by compaction plus blocks written, over blocks written. By load (live blocks over the blocks of all
// segments but the reserve) for uniformly random overwrites, and for Zipf 0.99. What headers, footers and checkpoints add, and padding, is told apart, as
// further blocks per block written.
//
// The closed form for uniform overwrites, with victims by least live and no overhead, is 2.69 at 0.8 (Desnoyers, "Analytic models of SSD write performance").
import { createLog, deviceBytes } from './harness/log.ts';
import { BLOCK, plain } from './harness/measure.ts';
import { Digest, expectSame, round, type Context, type Question, type Result } from './harness/question.ts';
import { StampDevice } from './harness/stamp-device.ts';
import { permutation, random, stamp, stampOf, zipf } from './harness/workload.ts';

const CASES = [
  { name: 'uniform70', load: 0.7, theta: 0, bar: undefined },
  { name: 'uniform80', load: 0.8, theta: 0, bar: '<= 3' },
  { name: 'uniform90', load: 0.9, theta: 0, bar: undefined },
  { name: 'zipf70', load: 0.7, theta: 0.99, bar: undefined },
  { name: 'zipf80', load: 0.8, theta: 0.99, bar: '<= 2.3' },
  { name: 'zipf90', load: 0.9, theta: 0.99, bar: undefined },
] as const;

export const question: Question = {
  name: 'amplification',
  asks: 'How often is a block written, compaction included?',
  async run(context): Promise<Result[]> {
    const results: Result[] = [];
    for (const each of CASES) {
      context.say(`amplification: ${each.name}`);
      results.push(await measure(context, each));
    }
    return results;
  },
};

async function measure(context: Context, { name, load, theta, bar }: (typeof CASES)[number]): Promise<Result> {
  const segments = context.toy ? 192 : 640;
  const segmentBlocks = context.toy ? 64 : 256;
  const device = new StampDevice(deviceBytes(segments, segmentBlocks));
  const stand = await createLog(context, device, { virtualBytes: segments * segmentBlocks * BLOCK, segmentBlocks, sync: true });
  const { log, volume } = stand;
  const space = log.figures();
  const usable = (space.capacityBytes * (space.segmentCount - space.reserveSegments)) / space.segmentCount / BLOCK;
  const live = Math.floor(load * usable);
  const versions = new Uint32Array(live);
  const block = new Uint8Array(BLOCK);
  const next = random(29);
  let version = 0;
  const write = (at: number): void => {
    versions[at] = ++version;
    stamp(block, 0, at, version);
    volume.writeSync(at * BLOCK, block);
  };
  for (const at of permutation(live, next)) write(at);

  let draw: () => number = () => next(live);
  if (theta > 0) {
    const rank = zipf(live, theta, next);
    const scattered = permutation(live, next); // the frequent ones are not neighbours
    draw = () => scattered[rank()]!;
  }
  // Until the figure stands still: the fill decays over several times the capacity; what is reported is the last part.
  const warm = live * (context.toy ? 1 : 4);
  const counted = live * (context.toy ? 1 : 2);
  for (let count = 0; count < warm; count++) write(draw());
  volume.flushSync();
  const before = log.figures();
  for (let count = 0; count < counted; count++) write(draw());
  volume.flushSync();
  const after = log.figures();

  const digest = new Digest();
  for (let at = 0; at < live; at++) {
    volume.readSync(at * BLOCK, block);
    const found = stampOf(block, 0);
    if (found.block !== at || found.version !== versions[at]) expectSame(`amplification: block ${at}`, found.version, versions[at]);
    digest.add(found.version);
  }
  await log.close();
  const writtenBytes = counted * BLOCK;
  const moved = after.movedBytes - before.movedBytes;
  return plain({
    name: `amplification.${name}`,
    about: `blocks written and copied over blocks written; ${theta ? `Zipf ${theta}` : 'uniform'}, live/(blocks − reserve) ${load}, ${segments} segments`,
    ours: (moved + writtenBytes) / writtenBytes,
    ...(bar ? { bar } : {}),
    unit: 'blocks/block',
    also: {
      metadata: round((after.metadataBytesWritten - before.metadataBytesWritten) / writtenBytes),
      padding: round((after.paddingBytesWritten - before.paddingBytesWritten) / writtenBytes),
      checkpoints: after.checkpoints - before.checkpoints,
      reserveSegments: after.reserveSegments,
    },
    hash: digest.toString(),
  });
}
