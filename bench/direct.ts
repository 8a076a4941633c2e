// Past the page cache: a log on a loop device and on a file opened with O_DIRECT, against the same kind of device without a log, which takes the same writes
// in place out of aligned memory. 32 random writes of 4 KiB and a flush; and 1 MiB writes from front to back. Root only: it attaches a loop device.
import { execFileSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { RawDevice } from '../src/device/raw.ts';
import { createLog, deviceBytes, newFile } from './harness/log.ts';
import { BLOCK, compare, interleave, MIB, mibPerSecond, millisecondsOf, thousandsPerSecond } from './harness/measure.ts';
import { Digest, expectSame, type Context, type Question, type Result } from './harness/question.ts';
import { noise, random, stamp, stampOf } from './harness/workload.ts';
import { markAligned } from '../src/aligned.ts';

const WRITES = 32;
const TRANSACTIONS = 20;
const FLUSH_BYTES = 64 * MIB;

/** A device for one contestant, and how it goes away again. */
interface Stand {
  readonly device: RawDevice;
  dispose(): Promise<void>;
}

async function newStand(context: Context, kind: 'loop' | 'file', name: string, sizeBytes: number): Promise<Stand> {
  // Written before, so that no block is allocated while it is measured.
  const file = newFile(context, name, sizeBytes);
  await file.close();
  const path = kind === 'file' ? file.path : loopOver(file.path);
  const device = await RawDevice.open(path);
  return {
    device,
    async dispose() {
      await device.close();
      if (kind === 'loop') execFileSync('losetup', ['-d', path]);
      rmSync(file.path);
    },
  };
}

function loopOver(path: string): string {
  return execFileSync('losetup', ['--direct-io=on', '-f', '--show', path], { encoding: 'utf8' }).trim();
}

/** Buffers as a program has them that knows what O_DIRECT wants: no copy for the raw device. */
function alignedBuffers(count: number, bytes: number): Uint8Array[] {
  const memory = new WebAssembly.Memory({ initial: Math.ceil((count * bytes) / 65536) });
  markAligned(memory.buffer);
  return Array.from({ length: count }, (_, index) => {
    const buffer = new Uint8Array(memory.buffer, index * bytes, bytes);
    buffer.set(noise(bytes, index + 1));
    return buffer;
  });
}

async function run(context: Context, kind: 'loop' | 'file'): Promise<Result[]> {
  const virtualBytes = context.toy ? 4 * MIB : 256 * MIB;
  const blocks = virtualBytes / BLOCK;
  const ours = await newStand(context, kind, `direct-${kind}.varve`, deviceBytes(context.toy ? 40 : 200));
  const raw = await newStand(context, kind, `direct-${kind}.raw`, virtualBytes);
  if (!ours.device.direct || !raw.device.direct) throw new Error(`${context.directory} has no direct I/O: measure on another file system`);
  const { log, volume } = await createLog(context, ours.device, { virtualBytes });
  const large = alignedBuffers(4, MIB);
  const version = { random: 0, sequential: 0 };
  const digest = new Digest();

  const sequential = async (device: { write(offset: number, from: Uint8Array): Promise<void>; flush(): Promise<void> }): Promise<void> => {
    version.sequential++;
    for (let begin = 0; begin < virtualBytes; begin += FLUSH_BYTES) {
      const end = Math.min(virtualBytes, begin + FLUSH_BYTES);
      let next = begin;
      await Promise.all(
        large.map(async (buffer) => {
          while (next < end) {
            const offset = next;
            next += MIB;
            stamp(buffer, 0, offset / BLOCK, version.sequential);
            await device.write(offset, buffer);
          }
        }),
      );
      await device.flush();
    }
  };
  await sequential(volume);
  const streams = await interleave(context.toy ? 1 : 7, {
    ours: () => millisecondsOf(() => sequential(volume)),
    peer: () => millisecondsOf(() => sequential(raw.device)),
  });
  await sequential(volume);
  const into = new Uint8Array(MIB);
  for (let offset = 0; offset < virtualBytes; offset += MIB) {
    await volume.read(offset, into);
    const found = stampOf(into, 0);
    expectSame('direct: block', found.block, offset / BLOCK);
    expectSame('direct: version', found.version, version.sequential);
    digest.add(found.block, found.version);
  }

  const small = alignedBuffers(WRITES, BLOCK);
  const versions = new Uint32Array(blocks);
  const draws = { ours: random(5), peer: random(5) };
  const transactions = async (next: (below: number) => number, perform: (places: readonly number[]) => Promise<void>): Promise<number> => {
    let cost = 0;
    for (let count = 0; count < TRANSACTIONS; count++) {
      const places = small.map(() => next(blocks));
      version.random++;
      places.forEach((at, index) => stamp(small[index] as Uint8Array, 0, at, version.random));
      cost += await millisecondsOf(() => perform(places));
    }
    return cost;
  };
  const costs = await interleave(context.toy ? 2 : 30, {
    ours: () =>
      transactions(draws.ours, async (places) => {
        await Promise.all(places.map((at, index) => volume.write(at * BLOCK, small[index] as Uint8Array)));
        await volume.flush();
        for (const at of places) versions[at] = version.random;
      }),
    peer: () =>
      transactions(draws.peer, async (places) => {
        await Promise.all(places.map((at, index) => raw.device.write(at * BLOCK, small[index] as Uint8Array)));
        await raw.device.flush();
      }),
  });
  for (let at = 0; at < blocks; at++) {
    if (versions[at] === 0) continue;
    await volume.read(at * BLOCK, into.subarray(0, BLOCK));
    expectSame(`direct: version of block ${at}`, stampOf(into, 0).version, versions[at]);
    digest.add(versions[at] as number);
  }
  await log.close();
  await ours.dispose();
  await raw.dispose();
  const where = kind === 'loop' ? 'a loop device' : 'a file';
  return [
    compare({
      name: `direct.${kind}.random`,
      about: `O_DIRECT on ${where}: 32 random 4 KiB writes and a flush, against the raw device taking them in place`,
      ...costs,
      against: 'peer',
      bar: kind === 'loop' ? '>= 2' : '>= 4',
      unit: 'thousand/s',
      show: thousandsPerSecond(WRITES * TRANSACTIONS),
      hash: digest.toString(),
    }),
    compare({
      name: `direct.${kind}.sequential`,
      about: `O_DIRECT on ${where}: 1 MiB writes, 4 under way, a flush after 64 MiB, against the raw device doing the same`,
      ...streams,
      against: 'peer',
      bar: '>= 0.85',
      unit: 'MiB/s',
      show: mibPerSecond(virtualBytes),
      hash: digest.toString(),
    }),
  ];
}

export const question: Question = {
  name: 'direct',
  asks: 'What does a log gain where nothing is cached?',
  async run(context): Promise<Result[]> {
    return [...(await run(context, 'loop')), ...(await run(context, 'file'))];
  },
};
