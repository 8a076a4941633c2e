// The owner's side: a dedicated worker in which the pool is, for all pages and workers of the origin.
//
//   1. Every worker that serves a pool stands for it: it waits for the pool's Web Lock, which has one holder. The others stay in the queue.
//   2. Who gets it opens the pool (again and again for two seconds while the handles of a dead predecessor go away), takes a lock of its own name for this
//      term, and tells everybody on the pool's BroadcastChannel.
//   3. Sessions are calls over a wire (wire.ts), each performed when it arrives and answered when it is done. A client that is gone lets go of its session's
//      lock; that ends the session.
//   4. When its tab is about to be frozen or closed, the owner gives up: it performs no further call (`moved`: the client asks the next owner), ends those
//      under way, closes the pool, says whether all that it acknowledged is durable, and in which logs it is not, and lets go of the locks.
//   5. Frozen without warning it keeps its locks, so nobody else writes. Its clients give up meanwhile and let go of their sessions. When it thaws, the
//      messages of before are still in its queue: it notices that time has passed, and performs nothing until it knows which sessions still live. So a call
//      of which its client was told that it failed is not begun afterwards. One that had begun when the freeze came (it takes more than one task) ends
//      then: the client's error says that it may have been made.

import type { StorageDevice } from '../device/device.ts';
import { isVarveError, messageOf, VarveError } from '../errors.ts';
import type { CreateVolumeOptions } from '../pool/pool.ts';
import type { DiffRun } from '../volume/diff.ts';
import type { SnapshotView } from '../volume/snapshot.ts';
import type { VirtualVolume } from '../volume/volume.ts';
import { exportHeld, importPool } from './archive.ts';
import { OriginLock } from './lock.ts';
import { lockName, OpfsPool, type InitOpfsPoolOptions } from './pool.ts';
import { pulledStream } from './pulled.ts';
import {
  channelName,
  ChannelWire,
  encodeError,
  isRecord,
  ownerLockName,
  PortWire,
  sessionLockName,
  wireName,
  type JsonRecord,
  type Wire,
  type WireError,
} from './wire.ts';

/** What a page asks its worker for. */
export interface JoinRequest {
  readonly varve: 'join';
  readonly path: string;
  /** Name of the worker: begins the names of its terms as owner. */
  readonly worker: string;
  readonly create: Pick<InitOpfsPoolOptions, 'volumeSize' | 'maxVolumes'> | null;
  readonly port: MessagePort;
}

/** Gives the pool up (again), or stands for it again. */
export interface ReleaseRequest {
  readonly varve: 'release' | 'stand';
  readonly path: string;
  /** Set to 1 and notified when nothing is held any more. */
  readonly flag?: Int32Array<SharedArrayBuffer> | undefined;
  /** Hears `ReleaseAnswer`s. */
  readonly done?: MessagePort | undefined;
}

/** False at once; another when nothing is held any more: true, or why the pool could not be closed, so that what was not flushed may be lost. */
export type ReleaseAnswer = boolean | { readonly error: WireError };

/** Makes a pool out of an archive. */
export interface ImportRequest {
  readonly varve: 'import';
  readonly path: string;
  /** Gives the archive (pulled.ts). */
  readonly stream: MessagePort;
  /** Hears `ImportAnswer`s. */
  readonly answer: MessagePort;
}

export type ImportAnswer = 'begun' | { readonly ok: true } | { readonly error: WireError };

/** A tick that comes so late says that the worker was frozen, or busy for as long. */
export const SUSPICION_MS = 1000;
const TICK_MS = 250;
const ANNOUNCE_MS = 250;
const EXPORT_IDLE_MS = 30_000;
/** A term is not ended for a log that failed before it was so long: the next may meet the same failure. */
const TERM_MS = 2000;
/** Runs of a diff in one answer. */
const DIFF_RUNS = 1024;
/** One read or write of a client; larger ones are cut by it. */
export const TRANSFER_BYTES_MAX = 4 << 20;

const owners = new Map<string, Owner>();

/**
 * Makes this dedicated worker one that can own pools: the whole program of the worker that `connect` is given. To be called at once, before anything is
 * awaited, so that no message is missed.
 */
export function serve(): void {
  globalThis.addEventListener('message', ({ data }: MessageEvent<unknown>) => {
    if (!isRecord(data) || typeof data['path'] !== 'string') return;
    if (data['varve'] === 'join') {
      const request = data as unknown as JoinRequest;
      const known = owners.get(request.path);
      if (known === undefined) owners.set(request.path, new Owner(request));
      else known.join(request.port);
    } else if (data['varve'] === 'import') {
      const { path, stream, answer } = data as unknown as ImportRequest;
      const tell = (word: ImportAnswer): void => answer.postMessage(word);
      tell('begun');
      importPool(path, pulledStream(stream)).then(
        () => tell({ ok: true }),
        (error: unknown) => tell({ error: encodeError(error) }),
      );
    } else if (data['varve'] === 'release' || data['varve'] === 'stand') {
      const request = data as unknown as ReleaseRequest;
      const owner = owners.get(request.path);
      const tell = (word: ReleaseAnswer): void => request.done?.postMessage(word);
      tell(false);
      if (request.varve === 'stand') owner?.stand();
      else
        void (owner?.retire() ?? Promise.resolve(undefined)).then((error) => {
          tell(error === undefined ? true : { error: encodeError(error) });
          if (request.flag === undefined) return;
          Atomics.store(request.flag, 0, 1);
          Atomics.notify(request.flag, 0);
        });
    }
  });
}

class Session {
  readonly name: string;
  readonly wire: Wire;
  readonly ended = new AbortController();
  readonly diffs = new Map<number, AsyncGenerator<DiffRun, void, undefined>>();
  readonly exports = new Map<number, ReadableStreamDefaultReader<Uint8Array<ArrayBuffer>>>();

  constructor(name: string, wire: Wire) {
    this.name = name;
    this.wire = wire;
  }
}

interface Answer {
  readonly value: unknown;
  readonly transfer?: Transferable[];
}

type State = 'idle' | 'waiting' | 'opening' | 'owner' | 'retiring' | 'retired';

class Owner {
  readonly #path: string;
  readonly #worker: string;
  readonly #create: JoinRequest['create'];
  readonly #channel: BroadcastChannel;
  readonly #sessions = new Map<string, Session>();
  readonly #volumes = new Map<string, Promise<VirtualVolume>>();
  #state: State = 'idle';
  #candidacy = new AbortController();
  #terms = 0;
  #id = '';
  /** When the term began. */
  #since = 0;
  #pool: OpfsPool | undefined;
  #locks: OriginLock[] = [];
  /** Aborted when the owner gives up: what takes long ends. */
  #term = new AbortController();
  readonly #running = new Set<Promise<void>>();
  /** Those of `export.`, which wait for the others. */
  readonly #runningExports = new Set<Promise<void>>();
  #retiring: Promise<unknown> | undefined;
  /** The last word was to stand, not to retire. */
  #wanted = false;
  /** Until it has the pool, or has let go of what it had. */
  #campaigning: Promise<void> = Promise.resolve();
  #tickedAt = performance.now();
  #verifying: Promise<void> | undefined;
  /** While the pool is exported it is closed: other calls wait until it is open again. */
  #exporting: Promise<void> | undefined;
  #exportTimer: ReturnType<typeof setTimeout> | undefined;

  constructor(request: JoinRequest) {
    this.#path = request.path;
    this.#worker = request.worker;
    this.#create = request.create;
    this.#channel = new BroadcastChannel(channelName(request.path));
    this.#channel.onmessage = ({ data }: MessageEvent<unknown>) => {
      if (isRecord(data)) this.#hear(data, (session) => new ChannelWire(wireName(this.#path, session)));
    };
    this.join(request.port);
    setInterval(() => {
      this.#suspect();
      this.#tickedAt = performance.now();
    }, TICK_MS);
    this.stand();
  }

  /** A page of this worker's own tab. */
  join(port: MessagePort): void {
    port.addEventListener('message', ({ data }: MessageEvent<unknown>) => {
      if (isRecord(data)) this.#hear(data, (session) => new PortWire(port, session));
    });
    port.start();
    port.postMessage({ joined: true });
  }

  #hear(message: JsonRecord, wire: (session: string) => Wire): void {
    if (message['who'] === true) {
      if (this.#state === 'owner') this.#announce({ owner: this.#id });
      else if (this.#state === 'idle') this.stand(); // its last attempt failed; somebody wants another
    } else if (typeof message['hello'] === 'string' && message['to'] === this.#id && this.#state === 'owner') {
      this.#accept(new Session(message['hello'], wire(message['hello'])));
    }
  }

  #announce(message: object): void {
    this.#channel.postMessage(message);
  }

  // ——— terms ———

  /** Waits for its turn to own the pool, if it does not already. */
  stand(): void {
    this.#wanted = true;
    if (this.#state !== 'idle' && this.#state !== 'retired') return;
    this.#state = 'waiting';
    this.#candidacy = new AbortController();
    const { signal } = this.#candidacy;
    // One that was given up may still be letting go of what it had.
    const before = this.#campaigning;
    const campaign = this.#campaign(signal).catch((error: unknown) => {
      if (signal.aborted) return;
      this.#state = 'idle';
      this.#announce({ failed: encodeError(error), worker: this.#worker });
    });
    this.#campaigning = Promise.all([before, campaign]).then(() => undefined);
  }

  async #campaign(signal: AbortSignal): Promise<void> {
    const lock = await OriginLock.wait(lockName(this.#path), 'exclusive', signal);
    if (signal.aborted) {
      await lock.release();
      throw signal.reason;
    }
    const locks = [lock];
    const id = `${this.#worker}:${++this.#terms}`;
    this.#state = 'opening';
    const tell = (): void => this.#announce({ opening: id });
    tell();
    const timer = setInterval(tell, ANNOUNCE_MS);
    try {
      locks.push(await OriginLock.acquire(ownerLockName(this.#path, id)));
      const pool =
        this.#create !== null && !(await OpfsPool.exists(this.#path))
          ? await OpfsPool.initHeld(this.#path, lock, this.#create)
          : await OpfsPool.openHeld(this.#path, lock, {});
      if (signal.aborted) {
        await pool.close();
        throw signal.reason;
      }
      this.#pool = pool;
      this.#id = id;
      this.#locks = locks;
      this.#term = new AbortController();
      this.#state = 'owner';
      this.#since = performance.now();
      this.#announce({ owner: id });
      // Somebody may steal it. Nothing is written from then on (fenced.ts); whoever is next has the pool.
      void lock.ended.then(() => {
        if (this.#id === id && this.#state === 'owner') this.#standAgain();
      });
    } catch (error) {
      for (const held of locks.reverse()) await held.release();
      throw error;
    } finally {
      clearInterval(timer);
    }
  }

  /** Gives the pool up, or the wish for it. Resolves when nothing is held. @returns why the pool could not be closed */
  async retire(): Promise<unknown> {
    this.#wanted = false;
    if (this.#state === 'owner') {
      this.#state = 'retiring';
      this.#retiring = this.#giveUp();
    } else if (this.#state === 'waiting' || this.#state === 'opening' || this.#state === 'idle') {
      this.#candidacy.abort(new VarveError('VARVE_CLOSED', `standing for pool '${this.#path}'`));
      this.#state = 'retired';
    }
    const [error] = await Promise.all([this.#retiring, this.#campaigning]);
    return error;
  }

  #standAgain(): void {
    if (this.#state !== 'owner') return;
    void this.retire();
    this.stand(); // when it has given up
  }

  async #giveUp(): Promise<unknown> {
    this.#term.abort(new VarveError('VARVE_FENCED', `a call to pool '${this.#path}'`, { detail: 'its owner is handing over' }));
    for (const session of this.#sessions.values()) cancelExports(session);
    await this.#exporting;
    await Promise.allSettled([...this.#running, ...this.#runningExports]);
    // Each log by itself: one that fails takes nothing of the others with it.
    const lost: string[] = [];
    for (const [name, volume] of this.#volumes) {
      await volume
        .then((one) => one.flush())
        .catch(() => {
          if (this.#pool?.has(name) === true) lost.push(this.#pool.logOf(name));
        });
    }
    let failure: unknown;
    try {
      await this.#pool?.close();
    } catch (error) {
      failure = error;
      console.error(`varve: closing pool '${this.#path}': ${messageOf(error)}`);
    }
    this.#pool = undefined;
    this.#volumes.clear();
    for (const session of Array.from(this.#sessions.values())) {
      // A pool that cannot be closed although each log could be flushed: of which it is, nobody knows.
      session.wire.post({ released: failure === undefined, lost: lost.length > 0 ? lost : undefined });
      this.#drop(session);
    }
    for (const lock of this.#locks.reverse()) await lock.release();
    this.#locks = [];
    this.#state = 'retired';
    this.#retiring = undefined;
    if (this.#wanted) this.stand();
    return failure;
  }

  // ——— sessions ———

  #accept(session: Session): void {
    if (this.#sessions.has(session.name)) return session.wire.close();
    this.#sessions.set(session.name, session);
    session.wire.onmessage = (message) => this.#arrived(session, message);
    session.wire.post({ welcome: session.name, owner: this.#id });
    OriginLock.wait(sessionLockName(this.#path, session.name), 'shared', session.ended.signal).then(
      (lock) => {
        this.#drop(session);
        return lock.release();
      },
      () => undefined, // the session ended first
    );
  }

  #drop(session: Session): void {
    this.#sessions.delete(session.name);
    session.ended.abort(new VarveError('VARVE_CLOSED', 'a session'));
    for (const diff of session.diffs.values()) void diff.return(undefined);
    cancelExports(session);
    session.wire.close();
  }

  /** Was the worker frozen? Then nothing is performed before the sessions that ended meanwhile are known. */
  #suspect(): void {
    if (performance.now() - this.#tickedAt <= SUSPICION_MS) return;
    this.#tickedAt = performance.now();
    const verifying = this.#verify().finally(() => {
      if (this.#verifying === verifying) this.#verifying = undefined;
    });
    this.#verifying = verifying;
  }

  async #verify(): Promise<void> {
    let living: Set<string | undefined> | undefined;
    while (living === undefined) {
      try {
        const { held } = await globalThis.navigator.locks.query();
        living = new Set(held?.map((lock) => lock.name));
      } catch {
        // Asked again: to be sure, all sessions would have to end, and a living client does not hear of that.
        await new Promise((resolve) => setTimeout(resolve, TICK_MS));
      }
    }
    for (const session of Array.from(this.#sessions.values())) {
      if (!living.has(sessionLockName(this.#path, session.name))) this.#drop(session);
    }
  }

  #arrived(session: Session, message: unknown): void {
    this.#suspect();
    if (this.#verifying === undefined) this.#receive(session, message);
    else void this.#receiveVerified(session, message);
  }

  /** It may be frozen again while it asks: then the answer is of before. */
  async #receiveVerified(session: Session, message: unknown): Promise<void> {
    while (this.#verifying !== undefined) {
      await this.#verifying;
      this.#suspect();
    }
    this.#receive(session, message);
  }

  #receive(session: Session, message: unknown): void {
    if (!isRecord(message) || !this.#sessions.has(session.name)) return;
    if ('ping' in message) return session.wire.post({ pong: message['ping'] });
    if ('bye' in message) return this.#drop(session);
    const { id, call, args } = message;
    if (typeof id !== 'number' || typeof call !== 'string') return;
    if (this.#state !== 'owner') return session.wire.post({ id, moved: true });
    const running = call.startsWith('export.') ? this.#runningExports : this.#running;
    if (this.#exporting !== undefined && running === this.#running) {
      void this.#exporting.then(() => this.#arrived(session, message)); // it may have been frozen meanwhile
      return;
    }
    const done = this.#perform(session, call, isRecord(args) ? args : {})
      .then(({ value, transfer }) => this.#answer(session, { id, ok: value }, transfer))
      .catch((error: unknown) => {
        this.#answer(session, { id, error: encodeError(error) });
        // A log that its devices failed takes no more changes until it is opened again.
        if ((isVarveError(error, 'VARVE_READ_ONLY') || isVarveError(error, 'VARVE_INTERNAL')) && performance.now() - this.#since > TERM_MS)
          this.#standAgain();
      })
      .finally(() => running.delete(done));
    running.add(done);
  }

  /** Who asked may be gone. */
  #answer(session: Session, message: object, transfer?: Transferable[]): void {
    if (this.#sessions.get(session.name) === session) session.wire.post(message, transfer);
  }

  // ——— exports ———

  /** Who does not read on keeps everybody else waiting: for so long, and no longer. */
  #limit(session: Session): void {
    clearTimeout(this.#exportTimer);
    this.#exportTimer = setTimeout(() => cancelExports(session), EXPORT_IDLE_MS);
  }

  /** Closes the pool, so that its files are what a reader of them may rely on; it is opened again when the stream has ended or is given up. */
  async #export(): Promise<ReadableStreamDefaultReader<Uint8Array<ArrayBuffer>>> {
    while (this.#exporting !== undefined) await this.#exporting;
    this.#term.signal.throwIfAborted();
    let ended = (): void => undefined;
    this.#exporting = new Promise<void>((resolve) => (ended = resolve));
    const reopen = async (): Promise<void> => {
      try {
        // One that gives up meanwhile waits for it, and closes it.
        if (this.#state === 'owner') this.#pool = await OpfsPool.openHeld(this.#path, this.#locks[0] as OriginLock, {});
      } catch (error) {
        console.error(`varve: opening pool '${this.#path}' after an export: ${messageOf(error)}`);
        this.#standAgain(); // whoever opens it next tells its clients why it does not open, if it does not
      } finally {
        this.#exporting = undefined;
        ended();
      }
    };
    await Promise.allSettled(this.#running);
    try {
      await this.#pool?.close();
    } catch (error) {
      // What was acknowledged may be lost: all clients hear of that as of an owner that went.
      this.#exporting = undefined;
      ended();
      this.#standAgain();
      throw error;
    }
    try {
      this.#volumes.clear();
      return (await exportHeld(this.#path, reopen)).getReader();
    } catch (error) {
      await reopen();
      throw error;
    }
  }

  // ——— calls ———

  async #volume(args: JsonRecord): Promise<VirtualVolume> {
    const name = (args['volume'] as string).normalize('NFC');
    const log = args['log'] as string | undefined;
    if (log !== undefined && this.#pool!.has(name) && this.#pool!.logOf(name) !== log)
      throw new VarveError('VARVE_NOT_FOUND', `use of '${name}'`, {
        detail: 'the volume was deleted, and this is another one of its name',
      });
    let volume = this.#volumes.get(name);
    if (volume === undefined) {
      volume = this.#pool!.volume(name);
      this.#volumes.set(name, volume);
      volume.catch(() => this.#volumes.delete(name));
    }
    return volume;
  }

  #info(volume: VirtualVolume): object {
    return { name: volume.name, log: this.#pool!.logOf(volume.name), sizeBytes: volume.sizeBytes };
  }

  #snapshot(volume: VirtualVolume, args: JsonRecord): SnapshotView {
    const view = volume.at(args['snapshot'] as string);
    if (args['id'] === undefined || args['id'] === view.id) return view;
    throw new VarveError('VARVE_NOT_FOUND', `reading '${volume.name}' at '${view.name}'`, { detail: 'the snapshot was deleted' });
  }

  async #perform(session: Session, call: string, args: JsonRecord): Promise<Answer> {
    const pool = this.#pool!;
    const { signal } = this.#term;
    switch (call) {
      case 'pool.info':
        return { value: { id: pool.id, notes: pool.notes } };
      case 'pool.volumes':
        return { value: pool.volumes };
      case 'pool.status':
        return { value: await pool.status() };
      case 'pool.check':
        return { value: await pool.check({ signal }) };
      case 'pool.maintain':
        return { value: await pool.maintain({ signal }) };
      case 'pool.createVolume': {
        const volume = await pool.createVolume(args['volume'] as string, args['options'] as CreateVolumeOptions);
        this.#volumes.set(volume.name, Promise.resolve(volume));
        return { value: this.#info(volume) };
      }
      case 'pool.deleteVolume':
        this.#volumes.delete((args['volume'] as string).normalize('NFC'));
        return { value: await pool.deleteVolume(args['volume'] as string) };
      case 'export.open': {
        const reader = await this.#export();
        if (signal.aborted || this.#sessions.get(session.name) !== session) {
          await reader.cancel(); // nobody is left to read it
          signal.throwIfAborted();
          return { value: undefined };
        }
        session.exports.set(args['export'] as number, reader);
        this.#limit(session);
        return { value: undefined };
      }
      case 'export.next': {
        const reader = session.exports.get(args['export'] as number);
        if (reader === undefined) throw exportEnded();
        this.#limit(session);
        const { value, done } = await reader.read();
        // One that was cancelled meanwhile ends as one that is whole.
        if (session.exports.get(args['export'] as number) !== reader) throw exportEnded();
        if (done) session.exports.delete(args['export'] as number);
        return done ? { value: null } : { value, transfer: [value.buffer] };
      }
      case 'export.close':
        await session.exports.get(args['export'] as number)?.cancel();
        session.exports.delete(args['export'] as number);
        return { value: undefined };
      case 'diff.next': {
        const diff = session.diffs.get(args['diff'] as number);
        if (diff === undefined) throw new VarveError('VARVE_CLOSED', 'a diff');
        const runs: DiffRun[] = [];
        while (runs.length < DIFF_RUNS) {
          const { value, done } = await diff.next();
          if (done === true) return { value: { runs, done: true } };
          runs.push(value);
        }
        return { value: { runs, done: false } };
      }
      case 'diff.close':
        await session.diffs.get(args['diff'] as number)?.return(undefined);
        session.diffs.delete(args['diff'] as number);
        return { value: undefined };
      default:
        return this.#performOnVolume(session, await this.#volume(args), call, args);
    }
  }

  async #performOnVolume(session: Session, volume: VirtualVolume, call: string, args: JsonRecord): Promise<Answer> {
    const { signal } = this.#term;
    const offset = args['offset'] as number;
    const length = args['length'] as number;
    const snapshot = args['snapshot'] as string;
    const done = async (step: Promise<unknown>): Promise<Answer> => {
      await step;
      return { value: { sizeBytes: volume.sizeBytes } };
    };
    switch (call) {
      case 'volume.info':
        return { value: this.#info(volume) };
      case 'volume.read':
        return readFrom(volume, offset, length);
      case 'volume.write':
        return done(volume.write(offset, args['bytes'] as Uint8Array, { fua: args['fua'] === true }));
      case 'volume.flush':
        return done(volume.flush());
      case 'volume.discard':
        return done(volume.discard(offset, length));
      case 'volume.resize':
        return done(volume.resize(args['size'] as number | string));
      case 'volume.snapshot':
        return done(volume.snapshot(snapshot));
      case 'volume.snapshots':
        return { value: volume.snapshots() };
      case 'volume.deleteSnapshot':
        return done(volume.deleteSnapshot(snapshot));
      case 'volume.rollback': {
        const keepAs = args['keepAs'] as string | undefined;
        const kept = await volume.rollback(snapshot, keepAs === undefined ? {} : { keepAs });
        return { value: { kept, sizeBytes: volume.sizeBytes } };
      }
      case 'volume.compact':
        return { value: await volume.compact({ signal }) };
      case 'volume.figures':
        return { value: volume.figures() };
      case 'volume.diff': {
        const id = args['diff'] as number;
        session.diffs.set(
          id,
          volume.diff(args['from'] as string | null, args['to'] as string | undefined, { signal: session.ended.signal }),
        );
        return { value: undefined };
      }
      case 'snapshot.info': {
        const view = this.#snapshot(volume, args);
        return { value: { id: view.id, sizeBytes: view.sizeBytes, createdAt: view.createdAt } };
      }
      case 'snapshot.read':
        return readFrom(this.#snapshot(volume, args), offset, length);
      default:
        throw new VarveError('VARVE_UNSUPPORTED', `the call '${call}'`, {
          detail: 'the page has another version of Varve than the owner of the pool',
        });
    }
  }
}

function exportEnded(): VarveError {
  const detail = `the owner of the pool changed, or nobody read on for ${EXPORT_IDLE_MS / 1000} s`;
  return new VarveError('VARVE_FENCED', 'an export', { detail });
}

function cancelExports(session: Session): void {
  for (const reader of session.exports.values()) reader.cancel().catch(() => undefined); // it failed by itself, or there is nobody left to tell
  session.exports.clear();
}

async function readFrom(device: StorageDevice, offset: number, length: number): Promise<Answer> {
  if (!(length >= 0 && length <= TRANSFER_BYTES_MAX))
    throw new RangeError(`read: expected at most ${TRANSFER_BYTES_MAX} bytes, got ${length}`);
  const bytes = new Uint8Array(length);
  await device.read(offset, bytes);
  return { value: bytes, transfer: [bytes.buffer] };
}
