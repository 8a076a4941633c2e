// What the tests call in a tab.
import { connect, importPool, type ConnectOptions, type PoolClient, type VolumeClient } from '../../../src/opfs/client.ts';
import { isVarveError } from '../../../src/errors.ts';
import { OpfsPool } from '../../../src/opfs/pool.ts';
import { Random } from '../../../src/testing/random.ts';
import { noise } from '../worker/check.ts';
import { takeStep, verifySteps } from './steps.ts';
import type { CrashReport, CrashRequest } from './crash.worker.ts';
import { isSnapshotLost, judge, LIFE, type Life } from './history.ts';

export interface Terminations {
  readonly findings: readonly string[];
  readonly flushes: number;
  readonly snapshots: number;
  readonly lives: number;
  /** The longest that a worker waited for what the one before it still held, milliseconds. */
  readonly openMsMax: number;
}

const BLOCK = 4096;
let pool: PoolClient | undefined;
const volumes = new Map<string, VolumeClient>();

const worker = (): Worker => new Worker('/storage.js', { type: 'module' });

/** How a call ended: `ok`, or the code of its error. */
async function outcome(call: () => Promise<unknown>): Promise<string> {
  try {
    await call();
    return 'ok';
  } catch (error) {
    return isVarveError(error) ? error.code : String(error);
  }
}

async function volumeOf(name: string): Promise<VolumeClient> {
  let volume = volumes.get(name);
  if (volume === undefined) volumes.set(name, (volume = await pool!.volume(name)));
  return volume;
}

const tab = {
  async connect(path: string, options: Omit<ConnectOptions, 'worker'> = {}): Promise<boolean> {
    pool = await connect(path, { worker, ...options });
    return pool.isOwner;
  },

  isOwner: (): boolean => pool!.isOwner,
  close: (): Promise<void> => pool!.close(),
  status: () => pool!.status(),
  check: async (): Promise<number> => (await pool!.check()).problems.length,
  persist: (): Promise<boolean> => pool!.persist(),

  async create(name: string, size: string): Promise<void> {
    volumes.set(name, await pool!.createVolume(name, { size }));
  },
  deleteVolume: (name: string): Promise<void> => pool!.deleteVolume(name),

  /** Fills a block with what the number determines. */
  async write(name: string, block: number, number: number): Promise<string> {
    return outcome(async () => (await volumeOf(name)).write(block * BLOCK, noise(BLOCK, number)));
  },
  flush: (name: string): Promise<string> => outcome(async () => (await volumeOf(name)).flush()),
  snapshot: (name: string, snapshot: string): Promise<string> => outcome(async () => (await volumeOf(name)).snapshot(snapshot)),

  /** Is the block what the number determines (0: zeros)? Else how reading it failed, or `other`. */
  async holds(name: string, block: number, number: number): Promise<string> {
    const into = new Uint8Array(BLOCK);
    const read = await outcome(async () => (await volumeOf(name)).read(block * BLOCK, into));
    if (read !== 'ok') return read;
    const wanted = number === 0 ? new Uint8Array(BLOCK) : noise(BLOCK, number);
    return into.every((byte, at) => byte === wanted[at]) ? 'ok' : 'other';
  },

  /** Writes blocks from … on with a flush every 8. Each outcome that is not `ok`. */
  async load(name: string, from: number, count: number, number: number): Promise<string[]> {
    const bad: string[] = [];
    for (let index = 0; index < count; index++) {
      const ended = await tab.write(name, from + index, number + index);
      if (ended !== 'ok') bad.push(ended);
      if (index % 8 !== 7) continue;
      const flushed = await tab.flush(name);
      if (flushed !== 'ok') bad.push(flushed);
    }
    return bad;
  },

  async compare(name: string, from: number, count: number, number: number): Promise<string[]> {
    const bad: string[] = [];
    for (let index = 0; index < count; index++) {
      const ended = await tab.holds(name, from + index, number + index);
      if (ended !== 'ok') bad.push(`${from + index}: ${ended}`);
    }
    return bad;
  },

  /** Milliseconds until a write succeeds. */
  async untilWritten(name: string, block: number, number: number): Promise<number> {
    const begun = performance.now();
    for (;;) {
      if ((await tab.write(name, block, number)) === 'ok') return performance.now() - begun;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  },

  /** Milliseconds until a write succeeds with this tab's own worker as the owner. */
  async untilOwner(name: string, block: number, number: number): Promise<number> {
    const begun = performance.now();
    for (;;) {
      if ((await tab.write(name, block, number)) === 'ok' && pool!.isOwner) return performance.now() - begun;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  },

  /** Takes the warning away: the page's other listeners do not hear of it. */
  deafen(): void {
    document.addEventListener('freeze', (event) => event.stopImmediatePropagation(), { capture: true });
    globalThis.addEventListener('pagehide', (event) => event.stopImmediatePropagation(), { capture: true });
  },

  /** A worker of this page says on a channel that it runs, every 20 ms. */
  beat(channel: string): void {
    const source = `const channel = new BroadcastChannel(${JSON.stringify(channel)}); setInterval(() => channel.postMessage(0), 20);`;
    new Worker(URL.createObjectURL(new Blob([source], { type: 'text/javascript' })));
  },

  /** Until no worker was heard on the channel for a second; some engines freeze a tab a while after they said so. */
  async untilStill(channel: string): Promise<void> {
    const beats = new BroadcastChannel(channel);
    let heard = performance.now();
    beats.onmessage = () => (heard = performance.now());
    while (performance.now() - heard < 1000) await new Promise((resolve) => setTimeout(resolve, 50));
    beats.close();
  },

  /** Writes 64 KiB pieces until the pool has no more, then shows that nothing is lost, deletes, and writes on. */
  async fill(name: string, limitBytes: number): Promise<{ writtenBytes: number; ended: string; damaged: number; afterDelete: string }> {
    const PIECE = 65536;
    const volume = await volumeOf(name);
    let writtenBytes = 0;
    let flushedBytes = 0;
    let ended = 'ok';
    while (ended === 'ok' && writtenBytes < limitBytes) {
      ended = await outcome(() => volume.write(writtenBytes, noise(PIECE, writtenBytes / PIECE)));
      if (ended !== 'ok') break;
      writtenBytes += PIECE;
      if (writtenBytes % (8 * PIECE) !== 0) continue;
      ended = await outcome(() => volume.flush());
      if (ended === 'ok') flushedBytes = writtenBytes;
    }
    if ((await outcome(() => volume.flush())) === 'ok') flushedBytes = writtenBytes;
    let damaged = 0;
    const into = new Uint8Array(PIECE);
    for (let at = 0; at < flushedBytes; at += PIECE) {
      await volume.read(at, into);
      const wanted = noise(PIECE, at / PIECE);
      if (!into.every((byte, index) => byte === wanted[index])) damaged++;
    }
    await volume.discard(0, writtenBytes / 2);
    const afterDelete = await outcome(async () => {
      await volume.flush();
      for (let at = 0; at < writtenBytes / 4; at += PIECE) await volume.write(at, noise(PIECE, 7));
      await volume.flush();
    });
    return { writtenBytes: flushedBytes, ended, damaged, afterDelete };
  },

  // ——— streams ———

  /** The state of that number, and the snapshot of it. */
  step: async (number: number): Promise<void> => takeStep(await volumeOf('disk'), number),
  /** Which snapshots are not what they should be. */
  verify: async (numbers: number): Promise<string[]> => verifySteps(await volumeOf('disk'), numbers),

  async exportTo(name: string): Promise<void> {
    await fetch(`/files/${name}`, { method: 'PUT', body: await new Response(pool!.export()).blob() });
  },

  async importFrom(name: string, path: string): Promise<void> {
    const { body } = await fetch(`/files/${name}`);
    await importPool(path, body as ReadableStream<Uint8Array>, { worker });
  },

  // ——— crashes ———

  /** A worker under load, until the browser is killed: all that it says goes to the site. Resolves with what it found. */
  async crash(request: CrashRequest): Promise<Extract<CrashReport, { found: unknown }>> {
    const load = new Worker('/crash.js', { type: 'module' });
    return new Promise((resolve, reject) => {
      load.onmessage = ({ data }: MessageEvent<CrashReport>) => {
        if ('found' in data) resolve(data);
        else if ('error' in data) reject(new Error(data.error));
        if (!('found' in data)) void fetch('/report', { method: 'POST', body: JSON.stringify(data) }).catch(() => undefined);
      };
      load.onerror = (event) => reject(new Error(event.message));
      load.postMessage(request);
    });
  },

  /** The worker under load, terminated at random moments, again and again. What is wrong, and how much happened. */
  async terminations(path: string, seed: number, count: number): Promise<Terminations> {
    const random = new Random(seed);
    const findings: string[] = [];
    let flushes = 0;
    let snapshotsSeen = 0;
    let openMsMax = 0;
    let previous: (Life & { readonly kept: ReadonlyMap<string, number> }) | undefined;
    /** Each snapshot's numbers when it was first seen after a crash. */
    const known = new Map<string, string>();
    for (let life = 1; life <= count + 1; life++) {
      const load = new Worker('/crash.js', { type: 'module' });
      const state = { flushed: 0, kept: new Map<string, number>() };
      const found = await new Promise<Extract<CrashReport, { found: unknown }>>((resolve, reject) => {
        load.onmessage = ({ data }: MessageEvent<CrashReport>) => {
          if ('found' in data) resolve(data);
          else if ('error' in data) reject(new Error(`life ${life}: ${data.error}`));
          else if ('flushed' in data) {
            flushes++;
            state.flushed = data.flushed;
          } else {
            state.flushed = data.at;
            state.kept.set(data.snapshot, data.at);
          }
        };
        load.onerror = (event) => reject(new Error(event.message));
        load.postMessage({ path, seed, life } satisfies CrashRequest);
      });
      openMsMax = Math.max(openMsMax, Math.round(found.openMs));
      if (previous !== undefined) {
        const wrong = judge(previous, found.found);
        if (wrong !== undefined) findings.push(`after life ${previous.life}: ${wrong}`);
        const last = [...previous.kept.keys()].at(-1);
        if (last !== undefined && isSnapshotLost(last, Object.keys(found.snapshots)))
          findings.push(`after life ${previous.life}: snapshot ${last} is gone`);
      }
      for (const [name, numbers] of Object.entries(found.snapshots)) {
        snapshotsSeen++;
        const text = JSON.stringify(numbers);
        if ((known.get(name) ?? text) !== text) findings.push(`life ${life}: snapshot ${name} changed`);
        known.set(name, text);
        const at = Number(name.slice(1));
        if (previous === undefined || at <= previous.life * LIFE) continue;
        // Taken in the life before: exactly what was written until then.
        const wrong = judge({ ...previous, flushed: at }, numbers);
        if (wrong !== undefined || Math.max(...numbers) > at)
          findings.push(`snapshot ${name}: ${wrong ?? 'it has what was written after it'}`);
      }
      await new Promise((resolve) => setTimeout(resolve, random.below(life % 4 === 0 ? 10 : 150)));
      load.terminate();
      previous = { seed, life, before: found.found, flushed: state.flushed, kept: state.kept };
    }
    for (let tries = 0; tries < 20; tries++) {
      if ((await outcome(() => OpfsPool.destroy(path))) === 'ok') break;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    return { findings, flushes, snapshots: snapshotsSeen, lives: count, openMsMax };
  },
};

export type TabFunctions = typeof tab;
(globalThis as unknown as { tab: TabFunctions }).tab = tab;
