// An origin private file system in memory, and workers in this thread that own pools in it: what a test of hand-overs can break on purpose. The owners, links and
// clients are the real ones; so are Node's Web Locks and BroadcastChannels. Each worker has modules of its own, as in a browser.
import { vi } from 'vitest';

/** Bytes of a file: as they are, and as the last flush left them. */
export class FakeFile {
  now = new Uint8Array(0);
  durable = new Uint8Array(0);
  open = false;
  /** Writes and flushes of this one fail. */
  broken = false;

  /** The power goes: what was not flushed is lost. */
  crash(): void {
    this.now = this.durable.slice();
  }
}

/** A worker as `connect` is given one. */
export interface FakeWorker {
  readonly worker: () => Worker;
  post(message: object): void;
}

const named = (name: string): Error => Object.assign(new Error(name), { name });
export const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

export class FakeOrigin {
  /** Of the only directory. */
  readonly files = new Map<string, FakeFile>();
  /** How long it takes to open a file. */
  openMilliseconds = 0;
  /** Writes and flushes fail. */
  broken = false;
  /** Closing a file closes it, and fails. */
  closeFails = false;
  /** How long a read keeps the thread. */
  readMilliseconds = 0;
  /** No file can be made. */
  full = false;

  constructor() {
    const directory = {
      kind: 'directory',
      getDirectoryHandle: () => Promise.resolve(directory),
      getFileHandle: async (name: string, { create = false } = {}) => {
        await sleep(0);
        let file = this.files.get(name);
        if (file === undefined) {
          if (!create) throw named('NotFoundError');
          if (this.full) throw named('QuotaExceededError');
          this.files.set(name, (file = new FakeFile()));
        }
        return this.#fileHandle(name, file);
      },
      removeEntry: async (name: string) => {
        await sleep(0);
        if (this.files.get(name)?.open === true) throw named('NoModificationAllowedError');
        if (!this.files.delete(name)) throw named('NotFoundError');
      },
      keys: () => [...this.files.keys()].values(),
    };
    const storage = { getDirectory: () => Promise.resolve(directory), estimate: () => Promise.resolve({ usage: 0, quota: 2 ** 40 }) };
    vi.stubGlobal('navigator', { locks: globalThis.navigator.locks, storage });
  }

  get openFiles(): number {
    return [...this.files.values()].filter((file) => file.open).length;
  }

  /** The names of Web Locks that are held, without those of sessions. */
  async locks(): Promise<(string | undefined)[]> {
    const { held } = await navigator.locks.query();
    return (held ?? []).map(({ name }) => name).filter((name) => name?.includes('session') !== true);
  }

  async newWorker(): Promise<FakeWorker> {
    let listener: ((event: { data: object }) => void) | undefined;
    vi.stubGlobal('addEventListener', (_type: string, given: typeof listener) => (listener = given));
    vi.resetModules();
    const { serve } = await import('../../src/opfs/owner.ts');
    serve();
    let ended = false;
    const post = (data: object): void =>
      void setTimeout(() => {
        if (!ended) listener?.({ data });
      });
    const worker = { postMessage: post, addEventListener: () => undefined, terminate: () => (ended = true) };
    return { worker: () => worker as unknown as Worker, post };
  }

  #fileHandle(name: string, file: FakeFile): object {
    return {
      kind: 'file',
      name,
      createSyncAccessHandle: async () => {
        await sleep(this.openMilliseconds);
        if (file.open) throw named('NoModificationAllowedError');
        file.open = true;
        return {
          read: (into: Uint8Array, { at }: { at: number }) => {
            for (const end = performance.now() + this.readMilliseconds; performance.now() < end;);
            const bytes = file.now.subarray(at, at + into.length);
            into.set(bytes);
            return bytes.length;
          },
          write: (from: Uint8Array, { at }: { at: number }) => {
            if (this.broken || file.broken) throw named('InvalidStateError');
            file.now.set(from, at);
            return from.length;
          },
          flush: () => {
            if (this.broken || file.broken) throw named('InvalidStateError');
            file.durable = file.now.slice();
          },
          truncate: (size: number) => {
            const bytes = new Uint8Array(size);
            bytes.set(file.now.subarray(0, size));
            file.now = bytes;
          },
          getSize: () => file.now.length,
          close: () => {
            file.open = false;
            if (this.closeFails) throw named('InvalidStateError');
          },
        };
      },
    };
  }
}
