// Measures in a dedicated worker: a volume (sync mode) over OPFS files against a raw access handle that does the same calls with the same flushes. Each round
// measures both, one right after the other; what was written is read back and compared.
import { OpfsDevice } from '../../src/device/opfs.ts';
import { OpfsPool } from '../../src/opfs/pool.ts';
import { Random } from '../../src/testing/random.ts';

export interface BenchRequest {
  readonly rounds: number;
  /** Of the volume and of the raw file. */
  readonly sizeBytes: number;
  /** Of 4 KiB calls in a round. */
  readonly calls: number;
}

export interface Measured {
  readonly name: string;
  /** Milliseconds of each round. */
  readonly raw: number[];
  readonly volume: number[];
  /** Calls or bytes of a round. */
  readonly work: number;
  readonly unit: 'calls' | 'bytes';
}

export interface BenchAnswer {
  readonly measured: readonly Measured[];
  /** Milliseconds. */
  readonly snapshot: number[];
  readonly reopen: number[];
}

interface Sync {
  readSync(offset: number, into: Uint8Array): void;
  writeSync(offset: number, from: Uint8Array): void;
  flushSync(): void;
}

const BLOCK = 4096;
const MIB = 1 << 20;
const FLUSH_EVERY = 32;
const SEQUENTIAL_FLUSH_BYTES = 16 * MIB;

function elapsed(work: () => void): number {
  const begin = performance.now();
  work();
  return performance.now() - begin;
}

/** Says where it goes and in which round. */
function stamp(bytes: Uint8Array, block: number, version: number): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  view.setUint32(0, block, true);
  view.setUint32(4, version, true);
}

function expectStamp(bytes: Uint8Array, block: number, version: number | undefined, what: string): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const found = [view.getUint32(0, true), view.getUint32(4, true)];
  if (found[0] !== block || (version !== undefined && found[1] !== version))
    throw new Error(`${what}: block ${block} holds ${found.join(', version ')}`);
}

function places(count: number, sizeBytes: number, seed: number): Uint32Array {
  const random = new Random(seed);
  return Uint32Array.from({ length: count }, () => random.below(sizeBytes / BLOCK));
}

function randomWrites(device: Sync, blocks: Uint32Array, bytes: Uint8Array, version: number): void {
  for (let index = 0; index < blocks.length; index++) {
    const block = blocks[index] as number;
    stamp(bytes, block, version);
    device.writeSync(block * BLOCK, bytes);
    if (index % FLUSH_EVERY === FLUSH_EVERY - 1) device.flushSync();
  }
}

function randomReads(device: Sync, blocks: Uint32Array, into: Uint8Array): void {
  for (const block of blocks) {
    device.readSync(block * BLOCK, into);
    expectStamp(into, block, undefined, 'random read');
  }
}

function sequentialWrites(device: Sync, sizeBytes: number, bytes: Uint8Array, version: number): void {
  for (let at = 0; at < sizeBytes; at += bytes.length) {
    for (let inside = 0; inside < bytes.length; inside += BLOCK) stamp(bytes.subarray(inside), (at + inside) / BLOCK, version);
    device.writeSync(at, bytes);
    if ((at + bytes.length) % SEQUENTIAL_FLUSH_BYTES === 0) device.flushSync();
  }
  device.flushSync();
}

function sequentialReads(device: Sync, sizeBytes: number, into: Uint8Array, version: number): void {
  for (let at = 0; at < sizeBytes; at += into.length) {
    device.readSync(at, into);
    expectStamp(into, at / BLOCK, version, 'sequential read');
  }
}

async function run({ rounds, sizeBytes, calls }: BenchRequest): Promise<BenchAnswer> {
  const root = await navigator.storage.getDirectory();
  const name = `raw-${crypto.randomUUID()}`;
  const path = `bench-${crypto.randomUUID()}`;
  const raw = await OpfsDevice.open(root, name, { create: 'exclusive', sizeBytes });
  // Room for the volume three times over: what is measured is the log, and a bench of cleaning is another one (bench/amplification.ts).
  let pool = await OpfsPool.init(path, { volumeSize: 3 * sizeBytes, maxVolumes: 3, sync: true });
  let volume = await pool.createVolume('v', { size: sizeBytes });
  const contestants: readonly ['raw', 'volume'] = ['raw', 'volume'];
  const device = (which: 'raw' | 'volume'): Sync => (which === 'raw' ? raw : volume);
  const large = crypto.getRandomValues(new Uint8Array(65536));
  const mib = new Uint8Array(MIB);
  for (let at = 0; at < MIB; at += large.length) mib.set(large, at);
  const small = mib.slice(0, BLOCK);
  let version = 0;
  const results = new Map<string, { raw: number[]; volume: number[]; work: number; unit: 'calls' | 'bytes' }>();

  const measure = (
    title: string,
    work: number,
    unit: 'calls' | 'bytes',
    act: (device: Sync, round: number) => void,
    round: number,
  ): void => {
    let entry = results.get(title);
    if (entry === undefined) results.set(title, (entry = { raw: [], volume: [], work, unit }));
    const order = round % 2 === 0 ? contestants : contestants.toReversed();
    for (const which of order) {
      const took = elapsed(() => act(device(which), round));
      if (round >= 0) entry[which as 'raw' | 'volume'].push(took); // the first round only warms up
    }
  };
  const snapshot: number[] = [];
  const reopen: number[] = [];
  try {
    for (let round = -1; round < rounds; round++) {
      const seed = 1000 + round;
      const blocks = places(calls, sizeBytes, seed);
      version++;
      measure('sequential 1 MiB writes', sizeBytes, 'bytes', (on) => sequentialWrites(on, sizeBytes, mib, version), round);
      measure('sequential 1 MiB reads', sizeBytes, 'bytes', (on) => sequentialReads(on, sizeBytes, mib, version), round);
      const fourths = sizeBytes / 4;
      measure('sequential 4 KiB writes', fourths / BLOCK, 'calls', (on) => sequentialWrites(on, fourths, small, version), round);
      measure('sequential 4 KiB reads', fourths / BLOCK, 'calls', (on) => sequentialReads(on, fourths, small, version), round);
      version++;
      measure('random 4 KiB writes, a flush every 32', calls, 'calls', (on) => randomWrites(on, blocks, small, version), round);
      measure('random 4 KiB reads', calls, 'calls', (on) => randomReads(on, blocks, small), round);
      for (const block of blocks.slice(-64)) {
        volume.readSync(block * BLOCK, small);
        expectStamp(small, block, version, 'after random writes');
      }
      const begun = performance.now();
      await volume.snapshot(`s${round}`);
      if (round >= 0) snapshot.push(performance.now() - begun);
      await volume.deleteSnapshot(`s${round}`);
      await pool.maintain();
    }
    for (let round = 0; round < Math.min(rounds, 3); round++) {
      await pool.close();
      const begun = performance.now();
      pool = await OpfsPool.open(path, { sync: true });
      volume = await pool.volume('v');
      volume.readSync(0, small);
      reopen.push(performance.now() - begun);
    }
    expectStamp(small, 0, undefined, 'after reopening');
  } finally {
    await pool.close();
    await OpfsPool.destroy(path);
    await raw.close();
    await root.removeEntry(name);
  }
  return { measured: [...results].map(([title, entry]) => ({ name: title, ...entry })), snapshot, reopen };
}

const scope = globalThis as unknown as {
  onmessage: (event: MessageEvent<BenchRequest>) => void;
  postMessage(answer: { answer: BenchAnswer } | { error: string }): void;
};
scope.onmessage = ({ data }) => {
  run(data).then(
    (answer) => scope.postMessage({ answer }),
    (error: unknown) => scope.postMessage({ error: error instanceof Error ? `${error.message}\n${error.stack}` : String(error) }),
  );
};
