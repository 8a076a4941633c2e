// One writer, or any number of readers, per pool and origin (P8), by Web Locks: the lock goes when its worker or page does, however that ends, and is
// never taken by time-out. Whoever calls `request` with `steal` breaks it; then the holder hears of it, and every write and flush is refused.

import { messageOf, VarveError } from '../errors.ts';

export class OriginLock {
  readonly name: string;
  #lost: VarveError | undefined;
  #let: (() => void) | undefined;
  #gone: Promise<void> = Promise.resolve();

  private constructor(name: string) {
    this.name = name;
  }

  /**
   * Takes the lock, if it is to be had within so many milliseconds: the worker of a page that was just left or reloaded may hold it for a moment still.
   * @throws VarveError VARVE_LOCKED when somebody holds it in a way that excludes this one; VARVE_UNSUPPORTED
   */
  static async acquire(name: string, mode: LockMode = 'exclusive', patienceMs = 0): Promise<OriginLock> {
    if (patienceMs > 0) {
      // A browser may leave a request be whose signal says that it is over, or grant it all the same.
      const patience = new AbortController();
      const waiting = OriginLock.wait(name, mode, patience.signal);
      const late = new Promise<undefined>((resolve) => setTimeout(() => resolve(undefined), Math.min(patienceMs, 0x7fffffff)));
      const lock = await Promise.race([waiting, late]);
      if (lock !== undefined) return lock;
      waiting.then(
        (granted) => granted.release(),
        () => undefined,
      );
      patience.abort();
    } else {
      const lock = new OriginLock(name);
      if (await lock.#request({ mode, ifAvailable: true })) return lock;
    }
    throw new VarveError('VARVE_LOCKED', `locking '${name}'`, { detail: 'the pool is open already, in a page or worker of this origin' });
  }

  /**
   * Waits for its turn.
   * @throws the signal's reason
   */
  static async wait(name: string, mode: LockMode, signal: AbortSignal): Promise<OriginLock> {
    signal.throwIfAborted();
    const lock = new OriginLock(name);
    await lock.#request({ mode, signal });
    return lock;
  }

  /** The error when the lock was stolen or released. */
  get lost(): VarveError | undefined {
    return this.#lost;
  }

  /** Resolves when it is held no longer: released, or stolen. */
  get ended(): Promise<void> {
    return this.#gone;
  }

  /** Resolves when others can have it. Idempotent. */
  async release(): Promise<void> {
    this.#lost ??= new VarveError('VARVE_FENCED', `holding the lock '${this.name}'`, { detail: 'it was released' });
    this.#let?.();
    await this.#gone;
  }

  /** @returns false when it was not available */
  #request(options: LockOptions): Promise<boolean> {
    const locks = (globalThis.navigator as Navigator | undefined)?.locks;
    if (locks === undefined)
      return Promise.reject(new VarveError('VARVE_UNSUPPORTED', `locking '${this.name}'`, { detail: 'there are no Web Locks here' }));
    return new Promise((resolve, reject) => {
      const held = locks.request(this.name, options, (granted) => {
        if (granted === null) return resolve(false);
        const until = new Promise<void>((let_) => (this.#let = let_));
        resolve(true);
        return until;
      });
      this.#gone = Promise.resolve(held).then(
        () => undefined,
        (error: unknown) => {
          // While it waits: the signal. While it is held: stolen.
          this.#lost ??= new VarveError('VARVE_FENCED', `holding the lock '${this.name}'`, { detail: messageOf(error), cause: error });
          reject(error);
        },
      );
    });
  }
}
