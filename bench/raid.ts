// What the stripe map costs: parity against memcpy and a scalar loop in the same wasm, each level against `single` on memory devices, reads without a
// member, rebuilding one, and what padding takes when somebody flushes often. On memory devices, so that it is the core and the loop that are measured; and
// the same on files, one for each member: what a pool in a directory gets. Members that share one disk say nothing about members that do not.
import { FileDevice } from '../src/device/file.ts';
import { MemoryDevice } from '../src/device/memory.ts';
import { Log, type LogVolume } from '../src/volume/log.ts';
import { VirtualVolume } from '../src/volume/volume.ts';
import { testingModule } from '../test/unit/testing-module.ts';
import { dropFile, LABEL_AREA, newFile } from './harness/log.ts';
import { BLOCK, compare, interleave, median, MIB, mibPerSecond, milliseconds, millisecondsOf, plain } from './harness/measure.ts';
import { Digest, expectSame, round, type Context, type Question, type Result } from './harness/question.ts';
import { noise } from './harness/workload.ts';

interface StripeCore {
  readonly memory: WebAssembly.Memory;
  take(bytes: number): number;
  copy(to: number, from: number, bytes: number): void;
  mapWalk(level: number, members: number, strip: number, first: number, count: number, into: number): void;
  parity(count: number, from: number, stride: number, p: number, q: number, bytes: number): void;
  parityScalar(count: number, from: number, stride: number, p: number, bytes: number): void;
}

const UUID = new Uint8Array(16).fill(3);
const POLICY = { growAt: 0.95, compactTo: 0.8, shrinkBelow: 0.7, mode: 'fixed', volumesMin: 1, volumesMax: 1 } as const;
const LEVELS = {
  single: [0, 1, 1, 0],
  '0': [1, 4, 4, 16],
  '1': [2, 2, 1, 1],
  '5': [3, 5, 4, 1],
  '6': [4, 6, 4, 1],
  '10': [5, 4, 2, 16],
} as const;
type Level = keyof typeof LEVELS;

export const question: Question = {
  name: 'raid',
  asks: 'What do parity, striping, a missing member and a rebuild cost?',
  async run(context): Promise<Result[]> {
    return [
      ...(await parity(context)),
      map(context),
      ...(await levels(context, memory)),
      await padding(context),
      ...(await levels(context, files)),
    ];
  },
};

function stripeCore(): StripeCore {
  return new WebAssembly.Instance(testingModule('stripe', false), { env: { abort: () => undefined } }).exports as unknown as StripeCore;
}

/** Member and row of every copy of each block, one block after the other, stored: as plans do it for a piece, not for a block. */
function map(context: Context): Result {
  const core = stripeCore();
  const count = 65536;
  const into = core.take(count * 2 * 8) >>> 0;
  const digest = new Digest();
  const also: Record<string, number> = {};
  for (const [level, [number, members, , strip]] of Object.entries(LEVELS)) {
    const costs: number[] = [];
    for (let turn = -1; turn < (context.toy ? 1 : 20); turn++) {
      const cost = milliseconds(() => core.mapWalk(number, members, Math.max(strip, 1), 12_345, count, into));
      if (turn >= 0) costs.push((cost * 1e6) / count);
    }
    also[level] = round(median(costs));
    digest.add(new Uint8Array(core.memory.buffer, into, count * 8));
  }
  return plain({
    name: 'raid.map',
    about: `the stripe map of each level: member and row of all copies, ${count} blocks one after the other`,
    ours: also['5'] ?? 0,
    unit: 'ns per block on RAID 5',
    also,
    hash: digest.toString(),
  });
}

async function parity(context: Context): Promise<Result[]> {
  const core = stripeCore();
  const share = context.toy ? 64 * 1024 : MIB;
  const times = context.toy ? 2 : 40;
  const area = core.take(9 * share) >>> 0;
  new Uint8Array(core.memory.buffer, area, 4 * share).set(noise(4 * share, 1));
  const p = area + 4 * share;
  const q = area + 5 * share;
  const repeat = (work: () => void) => (): number =>
    milliseconds(() => {
      for (let i = 0; i < times; i++) work();
    });
  const bytes = 4 * share * times;
  const results: Result[] = [];
  for (const [name, count, bar] of [
    ['raid.parity', 1, '>= 0.5'],
    ['raid.parityPQ', 2, '>= 0.25'],
  ] as const) {
    const costs = await interleave(context.toy ? 2 : 12, {
      ours: repeat(() => core.parity(4, area, share, p, count > 1 ? q : 0, share)),
      floor: repeat(() => core.copy(area + 5 * share, area, 4 * share)),
      peer: repeat(() => core.parityScalar(4, area, share, p, share)),
    });
    const hash = new Digest().add(new Uint8Array(core.memory.buffer, p, share)).toString();
    const about = `${count > 1 ? 'P and Q' : 'P'} of four strips of ${share / 1024} KiB, against memcpy of the same bytes (floor) and a byte at a time (peer), all in wasm`;
    results.push(compare({ name, about, ...costs, against: 'floor', bar, unit: 'MiB/s of data', show: mibPerSecond(bytes), hash }));
  }
  return results;
}

type Member = MemoryDevice | FileDevice;

/** What members are, and how large a run is. */
interface Kind {
  readonly prefix: string;
  readonly about: string;
  readonly bytes: number;
  readonly rounds: number;
  /** Of a segment, at most: on files small ones, since all of them are written before anything is measured. */
  readonly segmentBlocks: number;
  device(context: Context, name: string, sizeBytes: number): Member;
}

const memory: Kind = {
  prefix: 'raid.',
  about: 'memory devices',
  bytes: 64 * MIB,
  rounds: 5,
  segmentBlocks: 1024,
  device(_, __, sizeBytes) {
    const device = new MemoryDevice(sizeBytes);
    for (let at = 0; at < sizeBytes; at += MIB) device.writeSync(at, new Uint8Array(Math.min(MIB, sizeBytes - at)));
    return device;
  },
};

const files: Kind = {
  prefix: 'raid.files.',
  about: 'files',
  bytes: 64 * MIB,
  rounds: 3,
  segmentBlocks: 256,
  device: newFile,
};

interface Stand {
  readonly log: Log;
  readonly volume: VirtualVolume;
  readonly devices: readonly Member[];
}

let stands = 0;

async function stand(context: Context, kind: Kind, level: Level, dataBytes: number): Promise<Stand> {
  const [number, members, columns, strip] = LEVELS[level];
  const stripe = columns * Math.max(strip, 1);
  const segmentBlocks = Math.floor(kind.segmentBlocks / stripe) * stripe;
  const segmentCount = Math.ceil((dataBytes * 1.5) / (segmentBlocks * BLOCK)) + 40;
  const rows = (segmentCount * segmentBlocks) / columns;
  const serial = stands++;
  const devices = Array.from({ length: members }, (_, index) =>
    kind.device(context, `raid-${serial}-${index}.varve`, rows * BLOCK + 2 * LABEL_AREA),
  );
  const storage: LogVolume = {
    id: 0,
    level: number,
    members: devices,
    stripBlocks: Math.max(strip, 1),
    segmentBlocks,
    segmentCount,
    dataOffset: LABEL_AREA,
    rootFrontOffset: LABEL_AREA - 8192,
    rootBackOffset: LABEL_AREA + rows * BLOCK,
  };
  const log = await Log.create({ name: 'raid', uuid: UUID, key: UUID, volumes: [storage], policy: POLICY, core: context.core });
  await log.createSource(0, 'default', dataBytes);
  return { log, volume: new VirtualVolume(log, 'raid', 0), devices };
}

async function drop({ log, devices }: Stand): Promise<void> {
  await log.abandon();
  for (const device of devices) if (device instanceof FileDevice) await dropFile(device);
}

async function levels(context: Context, kind: Kind): Promise<Result[]> {
  const bytes = context.toy ? 4 * MIB : kind.bytes;
  const rounds = context.toy ? 1 : kind.rounds;
  const chunk = noise(MIB, 2);
  const write = async ({ volume }: Stand): Promise<number> =>
    millisecondsOf(async () => {
      for (let at = 0; at < bytes; at += chunk.length) await volume.write(at, chunk);
      await volume.flush();
    });
  const into = new Uint8Array(MIB);
  const read = async ({ volume }: Stand): Promise<number> =>
    millisecondsOf(async () => {
      for (let at = 0; at < bytes; at += into.length) await volume.read(at, into);
    });
  const results: Result[] = [];
  for (const level of ['0', '1', '5', '6', '10'] as const) {
    let kept: Stand | undefined;
    const fresh = (of: Level) => async (): Promise<number> => {
      const one = await stand(context, kind, of, bytes);
      const cost = await write(one);
      if (kept === undefined && of === level) kept = one;
      else await drop(one);
      return cost;
    };
    const costs = await interleave(rounds, { ours: fresh(level), peer: fresh('single') });
    const last = kept!;
    await last.volume.read(0, into);
    expectSame('what was written', Buffer.compare(into, chunk), 0);
    const hash = new Digest().add(into).toString();
    results.push(
      compare({
        name: `${kind.prefix}write${level}`,
        about: `sequential writes of 1 MiB to ${last.devices.length} ${kind.about} as RAID ${level}, and a flush, against one as single (peer)`,
        ours: costs.ours,
        peer: costs.peer,
        against: 'peer',
        ...(level === '5' && kind === memory ? { bar: '>= 0.6' } : {}),
        unit: 'MiB/s',
        show: mibPerSecond(bytes),
        hash,
      }),
    );
    if (level === '5' || level === '6') {
      const whole = await interleave(rounds, { ours: () => read(last) });
      last.log.setMember(0, 1, 'out');
      const degraded = await interleave(rounds, { ours: () => read(last) });
      expectSame('what was read without a member', Buffer.compare(into, chunk), 0);
      results.push(
        compare({
          name: `${kind.prefix}degraded${level}`,
          about: `sequential reads without one of the ${kind.about}, against with all (peer)`,
          ours: degraded.ours,
          peer: whole.ours,
          against: 'peer',
          unit: 'MiB/s',
          show: mibPerSecond(bytes),
          hash,
        }),
      );
      const used = last.log.volumeFigures(0).usedBytes;
      last.log.setMember(0, 1, 'rebuilding');
      const cost = await millisecondsOf(() => last.log.rebuild(0));
      results.push(
        plain({
          name: `${kind.prefix}rebuild${level}`,
          about: `filling one of the ${kind.about} again, by the bytes of data in the segments that are in use; unallocated ones are not touched`,
          ours: used / MIB / (cost / 1000),
          unit: 'MiB/s',
          hash,
        }),
      );
    }
    await drop(last);
  }
  return results;
}

/** What is written for each byte of data when somebody flushes every so often. */
async function padding(context: Context): Promise<Result> {
  const also: Record<string, number> = {};
  const digest = new Digest();
  for (const level of ['single', '5', '6'] as const) {
    for (const every of [4, 64, 1024]) {
      const bytes = (context.toy ? 1 : 16) * MIB;
      const { volume, log } = await stand(context, memory, level, bytes);
      const chunk = noise(every * 1024, 3);
      for (let at = 0; at < bytes; at += chunk.length) {
        await volume.write(at, chunk);
        await volume.flush();
      }
      const { dataBytesWritten, metadataBytesWritten, paddingBytesWritten } = log.figures();
      also[`${level} every ${every} KiB`] = round(dataBytesWritten / (dataBytesWritten + metadataBytesWritten + paddingBytesWritten));
      digest.add(paddingBytesWritten);
    }
  }
  return plain({
    name: 'raid.padding',
    about:
      'share of data in what is written (headers and padding count, parity does not) on RAID 5 4+1 and 6 4+2 with strips of 4 KiB, by bytes between flushes',
    ours: [also['5 every 64 KiB'] ?? 0],
    unit: 'share on RAID 5 every 64 KiB',
    also,
    hash: digest.toString(),
  });
}
