// The client's side of the wire: finds the owner of a pool, follows it when it changes, and says how each call ended.
//
//   state         what it means                                         a new call
//   searching     no owner is known                                     waits, at most `patienceMs`, then VARVE_LOCKED
//   linking       an owner is known and has not answered yet            waits, as above
//   linked        there is a session                                    is sent
//   unresponsive  the owner has not answered for `patienceMs`: frozen   fails at once with VARVE_LOCKED, until the owner answers or its locks go
//   closed                                                              VARVE_CLOSED
//
// How a call ends when the owner goes away:
//   answered `moved`, or not before the owner's last words
//                               it was not performed: it is sent to the next owner
//   not answered, only reads    it is sent to the next owner
//   not answered, changes       VARVE_FENCED: it may or may not have been performed. It is never sent twice.
// An owner that gives up in order says whether all that it acknowledged is durable. One that crashed takes with it what was not flushed: whoever has such
// writes hears of it (`onLoss`), and none of his calls goes to another owner before he told his caller (`refused`): a write behind one that is lost would break
// the order of the two, a flush or snapshot its promise.
//
// An owner that does not answer has its locks still, so nobody else can write. The client lets go of its session's lock, by which the owner, when it thaws,
// knows that the calls in its queue are void (owner.ts).

import { VarveError } from '../errors.ts';
import { OriginLock } from './lock.ts';
import {
  channelName,
  ChannelWire,
  decodeError,
  isRecord,
  ownerLockName,
  PortWire,
  sessionLockName,
  wireName,
  type JsonRecord,
  type Wire,
  type WireError,
} from './wire.ts';

interface Call {
  readonly id: number;
  readonly call: string;
  readonly args: JsonRecord;
  /** Changes nothing, so it may be asked again. */
  readonly repeatable: boolean;
  readonly refused: () => Error | undefined;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
}

export interface CallWays {
  /** It changes nothing, so it may be asked again. */
  readonly repeatable?: boolean;
  readonly signal?: AbortSignal | undefined;
  /** Asked when it is made and when an owner went: why no other one is to have it. */
  readonly refused?: () => Error | undefined;
}

export interface LinkOptions {
  readonly path: string;
  readonly patienceMs: number;
  /** Name of the tab's own worker, and the port to it; undefined when it has none. */
  readonly worker?: { readonly name: string; readonly port: MessagePort } | undefined;
}

export interface LossListener {
  /** Of the volume. */
  readonly log: string;
  /** What was acknowledged and not flushed is gone. */
  onLoss(): void;
  /** All that was acknowledged is durable. */
  onDurable(): void;
  /** As its user would, because the pool is closed. */
  close(): Promise<void>;
}

type State = 'searching' | 'linking' | 'linked' | 'unresponsive' | 'closed';

const BEAT_MS = 200;
/** A beat that comes so late says that this page was frozen or busy itself: the owner is not to blame. */
const SUSPICION_MS = 1000;
/** Between the end of an owner's lock and the last words on its wire. */
const LAST_WORDS_MS = 50;

export class Link {
  readonly path: string;
  readonly #patienceMs: number;
  readonly #worker: LinkOptions['worker'];
  readonly #channel: BroadcastChannel;
  readonly listeners = new Set<LossListener>();
  #state: State = 'searching';
  #owner: string | undefined;
  /** An owner that was announced while the present one had not gone yet. */
  #next: string | undefined;
  #watch = new AbortController();
  /** It is being asked who holds locks. */
  #asking = false;
  /** The session that waits for its lock. */
  #attempt = '';
  #session: { readonly name: string; readonly wire: Wire; readonly lock: OriginLock } | undefined;
  #calls = 0;
  #sent = new Map<number, Call>();
  #queue: Call[] = [];
  #beat: ReturnType<typeof setInterval> | undefined;
  #beatAt = 0;
  #heardAt = 0;
  /** A late beat was forgiven since something was heard. */
  #forgiven = false;
  #pingedAt = 0;
  /** The last words of the owner that is going: the logs of which something is lost, or all. */
  #released: { readonly lost: readonly unknown[] | 'all' } | undefined;
  /** This tab's worker was heard from. */
  #workerRuns = false;
  /** It said last that it is opening the pool. */
  #workerOpens = false;
  /** Why it does not run. */
  #failure: VarveError | undefined;

  constructor(options: LinkOptions) {
    this.path = options.path;
    this.#patienceMs = options.patienceMs;
    this.#worker = options.worker;
    const heard = (): void => {
      this.#workerRuns = true;
      this.#failure = undefined;
    };
    options.worker?.port.addEventListener('message', heard, { once: true });
    this.#channel = new BroadcastChannel(channelName(options.path));
    this.#channel.onmessage = ({ data }: MessageEvent<unknown>) => {
      if (isRecord(data)) this.#announced(data);
    };
  }

  /** The owner is the worker of this tab. */
  get ownsItself(): boolean {
    return this.#isOwn(this.#owner);
  }

  /** The worker of this tab may have locks of the pool. */
  get mayHold(): boolean {
    return this.ownsItself || this.#workerOpens;
  }

  /** The term of this tab's own worker. */
  get ownTerm(): string | undefined {
    return this.ownsItself ? this.#owner : undefined;
  }

  /** The worker of this tab never came to run. */
  get workerFails(): boolean {
    return this.#failure !== undefined;
  }

  #isOwn(owner: unknown): boolean {
    return this.#worker !== undefined && typeof owner === 'string' && owner.startsWith(`${this.#worker.name}:`);
  }

  get closed(): boolean {
    return this.#state === 'closed';
  }

  /** Name of the owner's term, for tests and for people. */
  get owner(): string | undefined {
    return this.#state === 'linked' ? this.#owner : undefined;
  }

  /**
   * @param args a Uint8Array in it is copied when it is sent, and must stay as it is until the call has ended
   * @throws VarveError VARVE_LOCKED, VARVE_FENCED, VARVE_CLOSED, the signal's reason, and what the call itself throws. An aborted call may or may not be
   * performed; its bytes are not touched afterwards.
   */
  call<T>(call: string, args: JsonRecord = {}, { repeatable = false, signal, refused = nothing }: CallWays = {}): Promise<T> {
    if (signal?.aborted) return Promise.reject(signal.reason);
    if (this.#state === 'closed') return Promise.reject(new VarveError('VARVE_CLOSED', `a call to pool '${this.path}'`));
    if (this.#state === 'unresponsive') return Promise.reject(this.#lockedError());
    const reason = refused();
    if (reason !== undefined) return Promise.reject(reason);
    return new Promise<T>((resolve, reject) => {
      const id = ++this.#calls;
      const abort = (): void => {
        this.#sent.delete(id);
        this.#queue = this.#queue.filter((other) => other.id !== id);
        reject(signal?.reason);
      };
      signal?.addEventListener('abort', abort, { once: true });
      const one: Call = {
        id,
        call,
        args,
        repeatable,
        refused,
        resolve: (value) => {
          signal?.removeEventListener('abort', abort);
          resolve(value as T);
        },
        reject: (error) => {
          signal?.removeEventListener('abort', abort);
          reject(error);
        },
      };
      if (this.#state === 'linked') this.#send(one);
      else this.#queue.push(one);
      this.#startBeat();
    });
  }

  /** This tab's worker threw an error. One that does not even run cannot own the pool: calls that wait for an owner fail, unless there is another. */
  workerFailed(error: VarveError): void {
    if (this.#workerRuns) return;
    this.#failure = error;
    if (this.#owner === undefined) for (const call of this.#queue.splice(0)) call.reject(error);
  }

  close(): void {
    if (this.#state === 'closed') return;
    this.#state = 'closed';
    clearInterval(this.#beat);
    this.#watch.abort(new VarveError('VARVE_CLOSED', `pool '${this.path}'`));
    this.#session?.wire.post({ bye: true });
    this.#endSession();
    this.#channel.close();
    const error = new VarveError('VARVE_CLOSED', `a call to pool '${this.path}'`);
    for (const call of [...this.#sent.values(), ...this.#queue]) call.reject(error);
    this.#sent.clear();
    this.#queue = [];
  }

  // ——— the owner ———

  #announced(message: JsonRecord): void {
    if (this.#state === 'closed') return;
    if (this.#isOwn(message['opening'])) this.#workerOpens = true;
    else if (this.#isOwn(message['owner']) || message['worker'] === this.#worker?.name) this.#workerOpens = false;
    if (typeof message['owner'] === 'string') this.#ownerIs(message['owner']);
    else if (typeof message['opening'] === 'string') {
      if (this.#state === 'searching') this.#heardAt = performance.now();
    } else if (isRecord(message['failed']) && this.#state === 'searching') {
      // Another tab's failure is not the last word while this tab's own worker stands, too, perhaps with leave to make the pool.
      if (this.#worker !== undefined && message['worker'] !== this.#worker.name) return;
      const error = decodeError(message['failed'] as unknown as WireError);
      for (const call of this.#queue.splice(0)) call.reject(error);
    }
  }

  #ownerIs(owner: string): void {
    if (owner === this.#owner && (this.#state === 'linking' || this.#state === 'linked')) return;
    if (this.#owner !== undefined && owner !== this.#owner) {
      this.#next = owner; // as soon as it is known how the present one ended
      void this.#doubt();
      return;
    }
    if (this.#owner === undefined) {
      this.#owner = owner;
      this.#watchOwner(owner);
    }
    this.#heardAt = performance.now();
    this.#link(owner);
  }

  /** Hears when the owner has let go of its lock, however. */
  #watchOwner(owner: string): void {
    const watch = (this.#watch = new AbortController());
    OriginLock.wait(ownerLockName(this.path, owner), 'shared', watch.signal).then(
      async (lock) => {
        await lock.release();
        await this.#ended(owner);
      },
      () =>
        setTimeout(() => {
          if (!watch.signal.aborted) this.#watchOwner(owner); // it failed by itself
        }, BEAT_MS),
    );
  }

  /** Somebody else says that he is the owner, or the owner says nothing: the end of its lock may not have been told to the watch. */
  async #doubt(): Promise<void> {
    const owner = this.#owner;
    if (owner === undefined || this.#asking) return;
    this.#asking = true;
    try {
      const { held } = await globalThis.navigator.locks.query();
      const name = ownerLockName(this.path, owner);
      if (held?.some((lock) => lock.name === name && lock.mode === 'exclusive') === false) await this.#ended(owner);
    } catch {
      // asked again at the next beat
    } finally {
      this.#asking = false;
    }
  }

  async #ended(owner: string): Promise<void> {
    if (this.#released === undefined) await new Promise((resolve) => setTimeout(resolve, LAST_WORDS_MS));
    if (this.#owner !== owner || this.#state === 'closed') return;
    this.#watch.abort();
    this.#ownerGone();
  }

  #link(owner: string): void {
    this.#state = 'linking';
    const name = (this.#attempt = globalThis.crypto.randomUUID());
    const awaited = (): boolean => this.#attempt === name && this.#state === 'linking' && this.#owner === owner;
    OriginLock.acquire(sessionLockName(this.path, name)).then(
      (lock) => {
        if (!awaited()) return void lock.release();
        const port = this.ownsItself ? this.#worker?.port : undefined;
        const wire: Wire = port === undefined ? new ChannelWire(wireName(this.path, name)) : new PortWire(port, name);
        this.#session = { name, wire, lock };
        wire.onmessage = (message) => {
          if (isRecord(message) && this.#session?.name === name) this.#heard(message);
        };
        (port ?? this.#channel).postMessage({ hello: name, to: owner });
      },
      () => setTimeout(() => awaited() && this.#link(owner), BEAT_MS),
    );
  }

  #endSession(): void {
    const session = this.#session;
    this.#session = undefined;
    session?.wire.close();
    void session?.lock.release();
  }

  /** It closed, crashed, or its tab did. */
  #ownerGone(): void {
    const released = this.#released;
    this.#released = undefined;
    this.#endSession();
    this.#owner = undefined;
    this.#state = 'searching';
    this.#heardAt = performance.now();
    for (const listener of this.listeners) {
      if (released === undefined || released.lost === 'all' || released.lost.includes(listener.log)) listener.onLoss();
      else listener.onDurable();
    }
    for (const call of this.#sent.values()) {
      // What an owner performed it had answered before its last words.
      if (call.repeatable || released !== undefined) this.#enqueue(call);
      else {
        const detail = 'the owner of the pool went away before it answered: the call may or may not have been performed';
        call.reject(new VarveError('VARVE_FENCED', `'${call.call}' of pool '${this.path}'`, { detail }));
      }
    }
    this.#sent.clear();
    this.#queue = this.#queue.filter((call) => {
      const reason = call.refused();
      if (reason !== undefined) call.reject(reason);
      return reason === undefined;
    });
    const next = this.#next;
    this.#next = undefined;
    if (next !== undefined) this.#ownerIs(next);
    else if (this.#queue.length > 0) this.#who();
    this.#startBeat();
  }

  #heard(message: JsonRecord): void {
    this.#heardAt = performance.now();
    this.#forgiven = false;
    if (typeof message['welcome'] === 'string') {
      this.#state = 'linked';
      for (const call of this.#queue.splice(0)) this.#send(call);
      return;
    }
    if (typeof message['released'] === 'boolean') {
      const { lost } = message;
      this.#released = { lost: message['released'] ? [] : Array.isArray(lost) ? lost : 'all' };
      return;
    }
    const { id } = message;
    if (typeof id !== 'number') return;
    const call = this.#sent.get(id);
    if (call === undefined) return;
    this.#sent.delete(id);
    if (message['moved'] === true) this.#enqueue(call);
    else if (isRecord(message['error'])) call.reject(decodeError(message['error'] as unknown as WireError));
    else call.resolve(message['ok']);
  }

  // ——— calls ———

  #send(call: Call): void {
    const session = this.#session;
    if (session === undefined) return this.#enqueue(call);
    if (this.#sent.size === 0) this.#heardAt = performance.now(); // nothing was to be heard until now
    this.#sent.set(call.id, call);
    try {
      const { args, transfer } = copied(call);
      session.wire.post({ id: call.id, call: call.call, args }, transfer);
    } catch (error) {
      this.#sent.delete(call.id); // an argument that cannot be sent
      call.reject(error);
    }
  }

  /** In the order in which they were made. */
  #enqueue(call: Call): void {
    const at = this.#queue.findIndex((other) => other.id > call.id);
    if (at < 0) this.#queue.push(call);
    else this.#queue.splice(at, 0, call);
  }

  // ——— time ———

  #startBeat(): void {
    if (this.#beat !== undefined || this.#state === 'closed') return;
    this.#beatAt = performance.now();
    if (this.#state === 'searching') {
      this.#heardAt = this.#beatAt;
      this.#who();
    }
    this.#beat = setInterval(() => this.#onBeat(), BEAT_MS);
  }

  #onBeat(): void {
    const now = performance.now();
    // Once: the timers of a page that nobody sees may be that slow all the time.
    if (now - this.#beatAt > SUSPICION_MS && !this.#forgiven) {
      this.#heardAt = now;
      this.#forgiven = true;
    }
    this.#beatAt = now;
    const idle = this.#sent.size === 0 && this.#queue.length === 0;
    if (idle && this.#state !== 'unresponsive') {
      clearInterval(this.#beat);
      this.#beat = undefined;
      return;
    }
    const silent = now - this.#heardAt;
    if (this.#state === 'unresponsive' || this.#next !== undefined) void this.#doubt();
    if (this.#state === 'unresponsive') this.#who();
    else if (silent > this.#patienceMs) this.#giveUp();
    else if (this.#state === 'searching') this.#who();
    else if (this.#state === 'linked' && now - this.#pingedAt > this.#patienceMs / 8) {
      this.#pingedAt = now;
      this.#session?.wire.post({ ping: now });
    }
  }

  #who(): void {
    this.#channel.postMessage({ who: true });
    this.#worker?.port.postMessage({ who: true });
  }

  /** Nobody answers. */
  #giveUp(): void {
    this.#endSession();
    const error = this.#lockedError();
    for (const call of [...this.#sent.values(), ...this.#queue]) call.reject(error);
    this.#sent.clear();
    this.#queue = [];
    // Without an owner there is nothing to wait for but the next call.
    if (this.#owner !== undefined) this.#state = 'unresponsive';
  }

  #lockedError(): VarveError {
    if (this.#owner === undefined && this.#failure !== undefined) return this.#failure;
    const detail =
      this.#owner === undefined
        ? `no page or worker of this origin owns the pool, and none took it within ${this.#patienceMs} ms`
        : `the tab that owns the pool has not answered for ${this.#patienceMs} ms (frozen?); a change that it was asked for may or may not have been made`;
    return new VarveError('VARVE_LOCKED', `a call to pool '${this.path}'`, { detail });
  }
}

/** Bytes as they are now, in a buffer of their own: a view would be sent with all of its buffer. */
function copied({ call, args }: Call): { args: JsonRecord; transfer: Transferable[] } {
  const bytes = args['bytes'];
  if (!(bytes instanceof Uint8Array)) return { args, transfer: [] };
  // Nothing is ever sent for no bytes at all.
  if (bytes.length === 0) throw new TypeError(`'${call}': the buffer was transferred while the call waited`);
  const copy = new Uint8Array(bytes);
  return { args: { ...args, bytes: copy }, transfer: [copy.buffer] };
}

function nothing(): undefined {
  return undefined;
}
