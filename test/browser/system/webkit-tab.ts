// The page of webkit.test.ts: does everything, and posts what it saw.
import { MemoryDevice } from '../../../src/device/memory.ts';
import { isVarveError } from '../../../src/errors.ts';
import { connect } from '../../../src/opfs/client.ts';
import { OriginLock } from '../../../src/opfs/lock.ts';
import { archiveStream, readArchive } from '../../../src/pool/archive.ts';
import { StoragePool } from '../../../src/pool/pool.ts';
import { noise } from '../worker/check.ts';

const codeOf = (error: unknown): string => (isVarveError(error) ? error.code : String(error));
const same = (a: Uint8Array, b: Uint8Array): boolean => a.length === b.length && a.every((byte, at) => byte === b[at]);

const webkit = {
  async pool(): Promise<{ snapshot: boolean; present: boolean; problems: number }> {
    /** Closing a pool closes its devices, and a memory device is gone then. */
    const kept = new MemoryDevice('16MiB');
    const lasting = (): MemoryDevice =>
      new Proxy(kept, {
        get: (target, key) =>
          key === 'close'
            ? () => Promise.resolve()
            : ((Reflect.get(target, key, target) as { bind?: (to: unknown) => unknown }).bind?.(target) ??
              Reflect.get(target, key, target)),
      });
    const pool = await StoragePool.create([lasting()]);
    const volume = await pool.createVolume('v', { size: '8MiB' });
    const [first, second] = [noise(1 << 20, 1), noise(1 << 20, 2)];
    await volume.write(4097, first);
    await volume.snapshot('one');
    await volume.write(4097, second);
    await volume.flush();
    await pool.close();
    const again = await StoragePool.openDevices([lasting()]);
    const reopened = await again.volume('v');
    const into = new Uint8Array(1 << 20);
    await reopened.at('one').read(4097, into);
    const snapshot = same(into, first);
    await reopened.read(4097, into);
    const { problems } = await again.check();
    await again.close();
    return { snapshot, present: same(into, second), problems: problems.length };
  },

  /** How a worker's wish for a synchronous handle ends. */
  handles: (): Promise<string> =>
    new Promise((resolve) => {
      const source = `onmessage = async () => {
        try {
          const root = await navigator.storage.getDirectory();
          const file = await root.getFileHandle('probe', { create: true });
          (await file.createSyncAccessHandle()).close();
          postMessage('it has them');
        } catch (error) { postMessage(error.name); }
      }`;
      const worker = new Worker(URL.createObjectURL(new Blob([source], { type: 'text/javascript' })));
      worker.onmessage = ({ data }: MessageEvent<string>) => resolve(data);
      worker.postMessage(0);
    }),

  /** In the page, asynchronously. */
  async directory(): Promise<string> {
    const root = await navigator.storage.getDirectory();
    const file = await root.getFileHandle('written', { create: true });
    const stream = await file.createWritable();
    const bytes = noise(5000, 9);
    await stream.write(bytes.slice());
    await stream.close();
    return same(new Uint8Array(await (await file.getFile()).arrayBuffer()), bytes) ? 'ok' : 'other bytes';
  },

  async lock(): Promise<string> {
    const lock = await OriginLock.acquire('probe');
    const second = await OriginLock.acquire('probe').then(() => 'had twice', codeOf);
    await lock.release();
    await (await OriginLock.acquire('probe', 'exclusive', 1000)).release();
    return second === 'VARVE_LOCKED' ? 'ok' : second;
  },

  connect: (): Promise<string> =>
    connect('webkit', { worker: () => new Worker('/storage.js', { type: 'module' }), create: { volumeSize: '4MiB' } }).then(
      () => 'connected',
      codeOf,
    ),

  nobody: (): Promise<string> => connect('nobody', { patienceMs: 1500 }).then(() => 'connected', codeOf),

  async archive(): Promise<string> {
    const bytes = noise(100_000, 3);
    const stream = archiveStream('pool', {}, [
      {
        name: 'a',
        sizeBytes: bytes.length,
        read: (offset, into) => Promise.resolve(into.set(bytes.subarray(offset, offset + into.length))),
      },
    ]);
    const found = new Uint8Array(bytes.length);
    await readArchive(stream, {
      begin: () => Promise.resolve(),
      file: () => Promise.resolve({ write: (offset, part) => Promise.resolve(found.set(part, offset)), end: () => Promise.resolve() }),
    });
    return same(found, bytes) ? 'ok' : 'other bytes';
  },
};

export type WebkitReport = { readonly [Name in keyof typeof webkit]: Awaited<ReturnType<(typeof webkit)[Name]>> | string };

const report: Record<string, unknown> = {};
for (const [name, step] of Object.entries(webkit)) report[name] = await step().catch(codeOf);
await fetch('/report', { method: 'POST', body: JSON.stringify(report) });
