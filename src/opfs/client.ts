// A pool for pages: the same words as `StoragePool`, `VirtualVolume` and `SnapshotView`, answered by whichever worker of the origin owns the pool.
//
// The differences: what is a property or an immediate answer there (`volumes`, `has`, `at`, `snapshots`, `figures`) is a promise here; volumes have their
// default source only; there is nothing synchronous. A read or write of more than 4 MiB goes in parts.

import { checkBytes, checkOpen, checkRange, type StorageDevice, type WriteOptions } from '../device/device.ts';
import { isVarveError, VarveError } from '../errors.ts';
import type { CreateVolumeOptions } from '../pool/pool.ts';
import type { CheckResult, PoolStatus } from '../pool/report.ts';
import type { DiffRun } from '../volume/diff.ts';
import type { CallOptions } from '../volume/source.ts';
import type { SnapshotInfo, VolumeFigures } from '../volume/volume.ts';
import { importPool as importPoolHere } from './archive.ts';
import { normalPath } from './directory.ts';
import { Link } from './link.ts';
import {
  SUSPICION_MS,
  TRANSFER_BYTES_MAX,
  type ImportAnswer,
  type ImportRequest,
  type JoinRequest,
  type ReleaseAnswer,
  type ReleaseRequest,
} from './owner.ts';
import type { InitOpfsPoolOptions } from './pool.ts';
import { servePulls } from './pulled.ts';
import { OriginLock } from './lock.ts';
import { decodeError, ownerLockName } from './wire.ts';

export interface ConnectOptions {
  /**
   * Makes a worker whose program is `serve()`, so that this tab can own the pool when it is its turn:
   * `() => new Worker(new URL('./storage.worker.ts', import.meta.url), { type: 'module' })`. Without it the tab can only be a client of others.
   */
  readonly worker?: (() => Worker) | undefined;
  /** When there is no pool: makes one so. Left out: VARVE_NOT_FOUND. */
  readonly create?: Pick<InitOpfsPoolOptions, 'volumeSize' | 'maxVolumes'> | undefined;
  /** How long an owner may be silent before calls fail with VARVE_LOCKED, milliseconds; at least 1500, default 5000. */
  readonly patienceMs?: number | undefined;
}

const REPEATABLE = { repeatable: true };
const PATIENCE_MS = 5000;
const PARTS_AT_ONCE = 8;
/** From the end of the own worker's lock until its last word is there. */
const LAST_WORDS_MS = 1000;
/** An owner that was away for less does not notice it, so a client must not give up before. */
const PATIENCE_MIN_MS = SUSPICION_MS * 1.5;
/** How long a page that is about to be frozen or closed waits for its worker to give the pool up. */
const RELEASE_MS = 250;

/**
 * The pool at a path of the origin private file system, from a page or a worker. One worker of the origin owns it, in this tab or in another; when that goes
 * away another takes over.
 * @throws VarveError VARVE_NOT_FOUND, VARVE_LOCKED, VARVE_CORRUPT, VARVE_NO_SPACE, VARVE_UNSUPPORTED
 */
export async function connect(path: string, options: ConnectOptions = {}): Promise<PoolClient> {
  const patienceMs = options.patienceMs ?? PATIENCE_MS;
  if (!(patienceMs >= PATIENCE_MIN_MS)) throw new RangeError(`patienceMs: expected at least ${PATIENCE_MIN_MS}, got ${patienceMs}`);
  if ((globalThis.navigator as Partial<Navigator> | undefined)?.locks === undefined)
    throw new VarveError('VARVE_UNSUPPORTED', `connecting to pool '${path}'`, {
      detail: 'there are no Web Locks here: expected a browser and a secure context (https or localhost)',
    });
  const pool = new PoolClient(normalPath(path), { ...options, patienceMs });
  try {
    await pool.ready();
    return pool;
  } catch (error) {
    await pool.close().catch(() => undefined); // the first error is the one to tell
    throw error;
  }
}

/**
 * Makes a pool out of an archive (`export` of a pool, `exportPool` of any runtime). It is there whole, or not at all. In a page it needs a worker as
 * `connect` does; in a dedicated worker it needs none.
 * @throws VarveError VARVE_EXISTS, VARVE_LOCKED, VARVE_CORRUPT, VARVE_UNSUPPORTED, VARVE_LIMIT, VARVE_NO_SPACE
 */
export async function importPool(
  path: string,
  stream: ReadableStream<Uint8Array>,
  options: Pick<ConnectOptions, 'worker' | 'patienceMs'> = {},
): Promise<void> {
  const normal = normalPath(path);
  if (options.worker === undefined) return importPoolHere(normal, stream);
  const worker = options.worker();
  const pulls = new MessageChannel();
  const answers = new MessageChannel();
  const { patienceMs = PATIENCE_MS } = options;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let stop: (() => Promise<void>) | undefined;
  try {
    stop = servePulls(pulls.port1, stream);
    await new Promise<void>((resolve, reject) => {
      const fail = (detail: string): void => reject(new VarveError('VARVE_UNSUPPORTED', `importing a pool into '${normal}'`, { detail }));
      timer = setTimeout(() => fail(`its worker did not answer within ${patienceMs} ms; expected a module that calls serve()`), patienceMs);
      answers.port1.onmessage = ({ data }: MessageEvent<ImportAnswer>) => {
        clearTimeout(timer);
        if (data === 'begun') return;
        if ('error' in data) reject(decodeError(data.error));
        else resolve();
      };
      worker.addEventListener('error', (event) => fail(`its worker failed: ${event.message}`));
      const request: ImportRequest = { varve: 'import', path: normal, stream: pulls.port2, answer: answers.port2 };
      worker.postMessage(request, [pulls.port2, answers.port2]);
    });
  } finally {
    clearTimeout(timer);
    answers.port1.close();
    pulls.port1.close();
    worker.terminate();
    await stop?.();
  }
}

export class PoolClient {
  readonly path: string;
  readonly #link: Link;
  readonly #worker: Worker | undefined;
  readonly #patienceMs: number;
  /** Of the page that is about to stop running, and of the one that runs again. */
  readonly #retiring = new AbortController();
  readonly #standing = new AbortController();
  #closing: Promise<void> | undefined;
  /** Each cancels an export that goes on. */
  readonly #exports = new Set<() => Promise<void>>();
  #id = '';

  /** @internal use `connect` */
  constructor(path: string, options: ConnectOptions & { readonly patienceMs: number }) {
    this.path = path;
    this.#patienceMs = options.patienceMs;
    const worker = options.worker?.();
    this.#worker = worker;
    if (worker === undefined) {
      this.#link = new Link({ path, patienceMs: options.patienceMs });
      return;
    }
    const { port1, port2 } = new MessageChannel();
    port1.start();
    const name = globalThis.crypto.randomUUID();
    this.#link = new Link({ path, patienceMs: options.patienceMs, worker: { name, port: port1 } });
    worker.postMessage({ varve: 'join', path, worker: name, create: options.create ?? null, port: port2 } satisfies JoinRequest, [port2]);
    worker.addEventListener('error', (event) => {
      const detail = `its worker cannot run${event.message ? `: ${event.message}` : ''}; expected a module that calls serve()`;
      this.#link.workerFailed(new VarveError('VARVE_UNSUPPORTED', `owning pool '${path}'`, { detail }));
    });
    this.#listen(worker);
  }

  /** A page that is about to stop running gives the pool up, and stands for it again when it runs again. */
  #listen(worker: Worker): void {
    const { document } = globalThis as { document?: Document };
    if (document === undefined) return;
    const retire = (): void => {
      const shared = globalThis.crossOriginIsolated ? new Int32Array(new SharedArrayBuffer(4)) : undefined;
      worker.postMessage({ varve: 'release', path: this.path, flag: shared } satisfies ReleaseRequest);
      if (!this.#link.mayHold) return;
      // A frozen page freezes its workers as soon as this returns, a closed one ends them: the only way to give the worker time is to take it.
      for (const end = performance.now() + RELEASE_MS; performance.now() < end;)
        if (shared !== undefined && Atomics.load(shared, 0) === 1) break;
    };
    const stand = (): void => worker.postMessage({ varve: 'stand', path: this.path } satisfies ReleaseRequest);
    document.addEventListener('freeze', retire, { signal: this.#retiring.signal });
    document.addEventListener('resume', stand, { signal: this.#standing.signal });
    globalThis.addEventListener('pagehide', retire, { signal: this.#retiring.signal });
    globalThis.addEventListener('pageshow', stand, { signal: this.#standing.signal });
  }

  /** @internal */
  async ready(): Promise<void> {
    this.#id = (await this.#link.call<{ id: string }>('pool.info', {}, REPEATABLE)).id;
  }

  get id(): string {
    return this.#id;
  }

  /** This tab's worker owns the pool. */
  get isOwner(): boolean {
    return this.#link.owner !== undefined && this.#link.ownsItself;
  }

  /** Names of the virtual volumes, in order of creation. */
  volumes(): Promise<readonly string[]> {
    return this.#link.call('pool.volumes', {}, REPEATABLE);
  }

  async has(name: string): Promise<boolean> {
    return (await this.volumes()).includes(name.normalize('NFC'));
  }

  /** @throws VarveError VARVE_NOT_FOUND, VARVE_CORRUPT, VARVE_IO */
  async volume(name: string): Promise<VolumeClient> {
    const info = await this.#link.call<VolumeInfo>('volume.info', { volume: name }, REPEATABLE);
    return new VolumeClient(this.#link, info);
  }

  /** @throws VarveError VARVE_EXISTS, VARVE_NO_SPACE */
  async createVolume(name: string, options: Omit<CreateVolumeOptions, 'source'> = {}): Promise<VolumeClient> {
    const info = await this.#link.call<VolumeInfo>('pool.createVolume', { volume: name, options });
    return new VolumeClient(this.#link, info);
  }

  /** @throws VarveError VARVE_NOT_FOUND */
  async deleteVolume(name: string): Promise<void> {
    await this.#link.call('pool.deleteVolume', { volume: name });
  }

  status(): Promise<PoolStatus> {
    return this.#link.call('pool.status', {}, REPEATABLE);
  }

  check(): Promise<CheckResult> {
    return this.#link.call('pool.check', {}, REPEATABLE);
  }

  async maintain(): Promise<void> {
    await this.#link.call('pool.maintain');
  }

  /**
   * The whole pool as a tar archive, for `importPool` anywhere. While it is read, all other calls to the pool wait; one that is not read any more is to be
   * cancelled. It fails with VARVE_FENCED when the owner changes, or when nobody read on for 30 seconds.
   */
  export(): ReadableStream<Uint8Array> {
    const id = Math.floor(Math.random() * Number.MAX_SAFE_INTEGER);
    const link = this.#link;
    let opened: Promise<void>;
    // It may be cancelled before it is open.
    const cancel = (): Promise<void> => {
      this.#exports.delete(cancel);
      return opened.then(
        () => link.call<void>('export.close', { export: id }),
        () => undefined,
      );
    };
    return new ReadableStream<Uint8Array>(
      {
        start: () => {
          this.#exports.add(cancel);
          return (opened = link.call<void>('export.open', { export: id }));
        },
        pull: async (controller) => {
          const bytes = await link.call<Uint8Array | null>('export.next', { export: id });
          if (bytes !== null) return controller.enqueue(bytes);
          this.#exports.delete(cancel);
          controller.close();
        },
        cancel,
      },
      { highWaterMark: 0 },
    );
  }

  /**
   * Asks the browser to keep what this origin stores when it needs room. Only in a page; the browser may ask its user, and take its time.
   * @throws VarveError VARVE_UNSUPPORTED in a worker
   */
  persist(): Promise<boolean> {
    const storage = globalThis.navigator.storage as StorageManager | undefined;
    if (typeof storage?.persist === 'function') return storage.persist();
    return Promise.reject(new VarveError('VARVE_UNSUPPORTED', 'asking for persistent storage', { detail: 'only a page can ask' }));
  }

  /**
   * Closes the volumes as their `close` does, and lets go of the pool; when this tab owns it, it is closed in order, and another tab takes over. Idempotent.
   * @throws VarveError what the volumes' `close` throws; when the pool of this tab could not be closed in order: what was not flushed, of any client, may
   *   be lost. The pool is let go of all the same.
   */
  close(): Promise<void> {
    return (this.#closing ??= this.#close());
  }

  async #close(): Promise<void> {
    this.#standing.abort();
    for (const cancel of this.#exports) void cancel().catch(() => undefined); // what is closed next would wait for them
    const closed = await Promise.allSettled(Array.from(this.#link.listeners, (volume) => volume.close()));
    this.#link.close();
    const worker = this.#worker;
    if (worker !== undefined) {
      try {
        if (!this.#link.workerFails) await this.#release(worker);
      } finally {
        this.#retiring.abort();
        worker.terminate();
      }
    }
    for (const each of closed) if (each.status === 'rejected') throw each.reason;
  }

  async #release(worker: Worker): Promise<void> {
    const { port1, port2 } = new MessageChannel();
    const { ownTerm } = this.#link;
    const watch = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    try {
      await new Promise<void>((resolve, reject) => {
        // One that says nothing is ended as a crash would end it. If it is not known to own the pool, no client relies on it.
        const end = (): void => {
          if (ownTerm === undefined) return resolve();
          const detail = 'its worker did not say that it is closed, and was ended: what was not flushed, of any client, may be lost';
          reject(new VarveError('VARVE_FENCED', `closing pool '${this.path}'`, { detail }));
        };
        timer = setTimeout(end, this.#patienceMs);
        port1.onmessage = ({ data }: MessageEvent<ReleaseAnswer>) => {
          clearTimeout(timer);
          if (typeof data === 'object') reject(decodeError(data.error));
          else if (data) resolve();
          else if (ownTerm === undefined) timer = setTimeout(end, this.#patienceMs);
          // Closing takes as long as it takes; but it may crash over it.
          else
            OriginLock.wait(ownerLockName(this.path, ownTerm), 'shared', watch.signal).then(
              (lock) => {
                void lock.release();
                timer = setTimeout(end, LAST_WORDS_MS);
              },
              () => undefined, // it has answered
            );
        };
        worker.postMessage({ varve: 'release', path: this.path, done: port2 } satisfies ReleaseRequest, [port2]);
        worker.addEventListener('error', () => this.#link.workerFails && resolve()); // it never comes to run
      });
    } finally {
      clearTimeout(timer);
      watch.abort(new VarveError('VARVE_CLOSED', `closing pool '${this.path}'`));
      port1.close();
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

interface VolumeInfo {
  readonly name: string;
  /** Which volume it is, whatever its name. */
  readonly log: string;
  readonly sizeBytes: number;
}

/**
 * A virtual volume of a pool that another worker owns. When an owner went away with changes of this handle that it had acknowledged and not flushed, every
 * call on the handle fails with VARVE_FENCED until `flush`, `snapshot` or `close` has said so: nothing is read as if they were there, nothing is written behind them.
 */
export class VolumeClient implements StorageDevice {
  readonly name: string;
  readonly blockSize = 4096;
  readonly supports = { discard: true, fua: 'native', sync: false, persistent: true } as const;
  readonly #link: Link;
  /** Which volume it is, whatever its name. @internal */
  readonly log: string;
  #sizeBytes: number;
  #closed = false;
  /** Changes that were acknowledged, and how many of them a flush has covered. */
  #acknowledged = 0;
  #flushed = 0;
  /** Why the next flush cannot keep its promise, and nothing else is done before it. */
  #lost: VarveError | undefined;

  /** @internal use `PoolClient.volume` */
  constructor(link: Link, info: VolumeInfo) {
    this.#link = link;
    this.name = info.name;
    this.log = info.log;
    this.#sizeBytes = info.sizeBytes;
    link.listeners.add(this);
  }

  /** Virtual size as this client knows it: another one may have resized the volume. */
  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /** @internal */
  onLoss(): void {
    if (this.#acknowledged === this.#flushed) return;
    const detail = `the owner of the pool went away with ${this.#acknowledged - this.#flushed} changes that were acknowledged and not flushed: they may be lost; \
calls fail until flush, snapshot or close has said so`;
    this.#lost = new VarveError('VARVE_FENCED', `use of '${this.name}'`, { detail });
    this.#flushed = this.#acknowledged;
  }

  /** @internal */
  onDurable(): void {
    this.#flushed = this.#acknowledged;
  }

  async read(offset: number, into: Uint8Array, options?: CallOptions): Promise<void> {
    checkBytes('read', into);
    this.#check('read', offset, into.length);
    await readParts((part, length) => this.#ask('volume.read', { offset: part, length }, true, options), offset, into);
  }

  /** Resolves when the owner has it: durable after the next flush, or at once with `fua`. */
  async write(offset: number, from: Uint8Array, options?: WriteOptions & CallOptions): Promise<void> {
    checkBytes('write', from);
    this.#check('write', offset, from.length);
    const { length } = from;
    const fua = options?.fua === true;
    // The parts of a larger one may go to different owners: it is durable when all are.
    const through = fua && length > 0 && length <= TRANSFER_BYTES_MAX;
    for (let at = 0; at < length; at += TRANSFER_BYTES_MAX) {
      const bytes = from.subarray(at, at + TRANSFER_BYTES_MAX);
      await this.#change('volume.write', { offset: offset + at, bytes, fua: through }, options, !through);
      // Transferred or resized: the parts to come would be none, or short.
      if (from.length !== length && at + TRANSFER_BYTES_MAX < length)
        throw new TypeError(
          `write of '${this.name}': expected the buffer to stay as it is until the call ends, its length is ${from.length} now`,
        );
    }
    if (fua && !through) await this.flush(options);
  }

  /** Everything acknowledged before the call is durable when it resolves. @throws VarveError VARVE_FENCED when an owner crashed before it could flush */
  async flush(options?: CallOptions): Promise<void> {
    this.#checkOpen('flush');
    const covers = this.#acknowledged;
    await this.#telling(this.#change('volume.flush', {}, options, false));
    this.#flushed = Math.max(this.#flushed, covers);
  }

  async discard(offset: number, length: number, options?: CallOptions): Promise<void> {
    this.#check('discard', offset, length);
    if (length > 0) await this.#change('volume.discard', { offset, length }, options, true);
  }

  /** Another word for `discard`. */
  trim(offset: number, length: number, options?: CallOptions): Promise<void> {
    return this.discard(offset, length, options);
  }

  /** @throws RangeError */
  async resize(size: number | string, options?: CallOptions): Promise<void> {
    await this.#change('volume.resize', { size }, options, false);
  }

  /** Everything acknowledged so far is in it, and it is durable when this resolves. @throws VarveError VARVE_EXISTS, VARVE_LIMIT, VARVE_FENCED as `flush` */
  async snapshot(name: string, options?: CallOptions): Promise<void> {
    const covers = this.#acknowledged;
    await this.#telling(this.#change('volume.snapshot', { snapshot: name }, options, false));
    this.#flushed = Math.max(this.#flushed, covers);
  }

  /** Oldest first. */
  snapshots(): Promise<SnapshotInfo[]> {
    return this.#ask('volume.snapshots', {}, true);
  }

  /** @throws VarveError VARVE_NOT_FOUND */
  async deleteSnapshot(name: string, options?: CallOptions): Promise<void> {
    await this.#change('volume.deleteSnapshot', { snapshot: name }, options, false);
  }

  /** @returns the name under which the state left is kept. @throws VarveError VARVE_NOT_FOUND, VARVE_EXISTS */
  async rollback(name: string, options: CallOptions & { readonly keepAs?: string } = {}): Promise<string> {
    this.#checkOpen('rollback');
    const { kept, sizeBytes } = await this.#ask<{ kept: string; sizeBytes: number }>(
      'volume.rollback',
      { snapshot: name, keepAs: options.keepAs },
      false,
      options,
    );
    this.#sizeBytes = sizeBytes;
    return kept;
  }

  /** A snapshot's state as a read-only device. @throws VarveError VARVE_NOT_FOUND */
  async at(name: string): Promise<SnapshotClient> {
    const info = await this.#ask<SnapshotHandle>('snapshot.info', { snapshot: name }, true);
    return new SnapshotClient(this.#link, { volume: this.name, log: this.log }, name, info);
  }

  /** What changed from one snapshot to another or (left out) to now. `from` null: everything that is there. */
  async *diff(from: string | null, to?: string): AsyncGenerator<DiffRun, void, undefined> {
    const diff = Math.floor(Math.random() * Number.MAX_SAFE_INTEGER);
    await this.#ask('volume.diff', { diff, from, to });
    let ended = false;
    try {
      while (!ended) {
        const { runs, done } = await this.#ask<{ runs: DiffRun[]; done: boolean }>('diff.next', { diff });
        ended = done;
        yield* runs;
      }
    } finally {
      if (!this.#link.closed) await this.#ask('diff.close', { diff });
    }
  }

  compact(): Promise<number> {
    return this.#ask('volume.compact', {});
  }

  figures(): Promise<VolumeFigures> {
    return this.#ask('volume.figures', {}, true);
  }

  /** Flushes, and closes this handle; the volume stays in the pool. Idempotent. */
  async close(): Promise<void> {
    if (this.#closed) return;
    try {
      if (this.#acknowledged > this.#flushed || this.#lost !== undefined) await this.flush();
    } catch (error) {
      if (!isVarveError(error, 'VARVE_NOT_FOUND')) throw error; // it was deleted, and all that was written to it
    } finally {
      this.#closed = true;
      this.#link.listeners.delete(this);
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** @param buffered it is durable only after a flush */
  async #change(call: string, args: Record<string, unknown>, options: CallOptions | undefined, buffered: boolean): Promise<void> {
    this.#checkOpen(call);
    this.#know(await this.#ask(call, args, false, options));
    if (buffered) this.#acknowledged++;
  }

  #ask<T>(call: string, args: Record<string, unknown>, repeatable = false, options?: CallOptions): Promise<T> {
    const refused = (): VarveError | undefined => this.#lost;
    return this.#link.call<T>(call, { ...args, volume: this.name, log: this.log }, { repeatable, signal: options?.signal, refused });
  }

  #know(info: { readonly sizeBytes: number }): void {
    this.#sizeBytes = info.sizeBytes;
  }

  /** What was lost is said by all calls that were under way, and then no more, as a device says once that a flush failed. */
  async #telling(call: Promise<void>): Promise<void> {
    try {
      await call;
    } catch (error) {
      const lost = this.#lost;
      if (lost === undefined || !isVarveError(error, 'VARVE_FENCED')) throw error;
      this.#lost = undefined;
      throw lost;
    }
  }

  #checkOpen(verb: string): void {
    checkOpen(`${verb} of '${this.name}'`, this.#closed || this.#link.closed);
  }

  #check(verb: string, offset: number, length: number): void {
    this.#checkOpen(verb);
    if (
      !(offset >= 0 && length >= 0 && offset + length <= this.#sizeBytes && Number.isSafeInteger(offset) && Number.isSafeInteger(length))
    ) {
      checkRange(`${verb} of '${this.name}'`, this.#sizeBytes, offset, length);
    }
  }
}

interface SnapshotHandle {
  readonly id: number;
  readonly sizeBytes: number;
  readonly createdAt: Date;
}

/** A snapshot's state, read through the owner. */
export class SnapshotClient implements StorageDevice {
  readonly blockSize = 4096;
  readonly supports = { discard: false, fua: 'native', sync: false, persistent: true } as const;
  readonly name: string;
  readonly createdAt: Date;
  readonly sizeBytes: number;
  readonly #link: Link;
  readonly #of: { readonly volume: string; readonly log: string };
  readonly #id: number;
  #closed = false;

  /** @internal use `VolumeClient.at` */
  constructor(link: Link, of: { readonly volume: string; readonly log: string }, name: string, handle: SnapshotHandle) {
    this.#link = link;
    this.#of = of;
    this.name = name.normalize('NFC');
    this.#id = handle.id;
    this.sizeBytes = handle.sizeBytes;
    this.createdAt = handle.createdAt;
  }

  /** @throws VarveError VARVE_NOT_FOUND when the snapshot was deleted */
  async read(offset: number, into: Uint8Array, options?: CallOptions): Promise<void> {
    const doing = `read of '${this.#of.volume}' at '${this.name}'`;
    checkBytes('read', into);
    checkOpen(doing, this.#closed || this.#link.closed);
    checkRange(doing, this.sizeBytes, offset, into.length);
    const args = { ...this.#of, snapshot: this.name, id: this.#id };
    const ask = (part: number, length: number): Promise<Uint8Array> =>
      this.#link.call<Uint8Array>('snapshot.read', { ...args, offset: part, length }, { repeatable: true, signal: options?.signal });
    await readParts(ask, offset, into);
  }

  write(): Promise<void> {
    return Promise.reject(new VarveError('VARVE_READ_ONLY', `write of '${this.#of.volume}' at '${this.name}'`));
  }

  /** Nothing to do: a snapshot was durable when it was taken. */
  flush(): Promise<void> {
    return Promise.resolve();
  }

  close(): Promise<void> {
    this.#closed = true;
    return Promise.resolve();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** Fills `into`, in parts that the owner takes, some of them at a time: each is in memory twice while it is under way. */
async function readParts(ask: (offset: number, length: number) => Promise<Uint8Array>, offset: number, into: Uint8Array): Promise<void> {
  const { length } = into;
  let next = 0;
  const fill = async (): Promise<void> => {
    while (next < length) {
      const at = next;
      next += TRANSFER_BYTES_MAX;
      try {
        const bytes = await ask(offset + at, Math.min(TRANSFER_BYTES_MAX, length - at));
        if (next < Infinity) into.set(bytes, at);
      } catch (error) {
        next = Infinity; // nothing more is asked for, and what comes late is not put where the caller may have something else by then
        throw error;
      }
    }
  };
  await Promise.all(Array.from({ length: PARTS_AT_ONCE }, fill));
}
