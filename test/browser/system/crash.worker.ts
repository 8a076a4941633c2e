// A worker under write load, to be ended at any moment: opens the pool (or makes it), says what it found, and goes on writing the numbered blocks of
// history.ts until it is no more. What it has done it tells the page as it goes.
import { isVarveError } from '../../../src/errors.ts';
import { OpfsPool } from '../../../src/opfs/pool.ts';
import { BLOCK, BLOCKS, fill, numberIn, SNAPSHOTS_KEPT, WRITE_MAX, writesOf } from './history.ts';

export interface CrashRequest {
  readonly path: string;
  readonly seed: number;
  readonly life: number;
  /** Finds out and stops. */
  readonly only?: 'look';
}

export type CrashReport =
  | { readonly found: number[]; readonly snapshots: Record<string, number[]> }
  | { readonly flushed: number }
  | { readonly snapshot: string; readonly at: number }
  | { readonly error: string };

const scope = globalThis as unknown as { onmessage: (event: MessageEvent<CrashRequest>) => void; postMessage(report: CrashReport): void };

async function numbers(read: (offset: number, into: Uint8Array) => Promise<void>): Promise<number[]> {
  const bytes = new Uint8Array(BLOCKS * BLOCK);
  await read(0, bytes);
  return Array.from({ length: BLOCKS }, (_, block) => numberIn(bytes.subarray(block * BLOCK, (block + 1) * BLOCK)));
}

async function run({ path, seed, life, only }: CrashRequest): Promise<void> {
  // A pool whose making was cut off is none; so is one that has no volume yet.
  const pool = (await OpfsPool.exists(path)) ? await OpfsPool.open(path) : await OpfsPool.init(path, { volumeSize: '3MiB' });
  const volume = pool.has('v') ? await pool.volume('v') : await pool.createVolume('v', { size: BLOCKS * BLOCK });
  const problems = (await pool.check()).problems;
  if (problems.length > 0) throw new Error(`check: ${JSON.stringify(problems.slice(0, 3))}`);
  const snapshots: Record<string, number[]> = {};
  for (const { name } of volume.snapshots()) {
    const view = volume.at(name);
    snapshots[name] = await numbers((offset, into) => view.read(offset, into));
  }
  scope.postMessage({ found: await numbers((offset, into) => volume.read(offset, into)), snapshots });
  if (only === 'look') return pool.close();
  const bytes = new Uint8Array(WRITE_MAX * BLOCK);
  for (const write of writesOf(seed, life)) {
    for (let at = 0; at < write.count; at++) fill(bytes.subarray(at * BLOCK, (at + 1) * BLOCK), write.first + at);
    await volume.write(write.block * BLOCK, bytes.subarray(0, write.count * BLOCK));
    const last = write.first + write.count - 1;
    if (write.next === 'flush') {
      await volume.flush();
      scope.postMessage({ flushed: last });
    } else if (write.next === 'snapshot') {
      const name = `s${last}`;
      await volume.snapshot(name);
      scope.postMessage({ snapshot: name, at: last });
      const old = volume.snapshots().slice(0, -SNAPSHOTS_KEPT);
      for (const snapshot of old) await volume.deleteSnapshot(snapshot.name);
    }
  }
}

scope.onmessage = ({ data }) => {
  run(data).catch((error: unknown) => {
    const text = error instanceof Error ? `${isVarveError(error) ? error.code : error.name}: ${error.message}` : String(error);
    scope.postMessage({ error: text });
  });
};
