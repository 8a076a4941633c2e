// Keeps what a file was like each time that this is run, and lists the moments.
//
//   deno run --allow-read=. --allow-write=. --allow-run=flock --allow-env examples/deno.ts POOL FILE
//
// `flock` (util-linux) keeps other processes out of the pool while it is open; Deno gives a child process the environment, hence --allow-env.
import { replicate, StoragePool, isVarveError } from 'varve/node';

declare const Deno: { readonly args: readonly string[] };

const [directory, file] = Deno.args;
if (directory === undefined || file === undefined) throw new TypeError('usage: deno.ts POOL FILE');

await using pool = await StoragePool.open(directory).catch((error: unknown) => {
  if (isVarveError(error, 'VARVE_NOT_FOUND')) return StoragePool.init(directory, { volumeSize: '64MiB' });
  throw error;
});
const volume = pool.has('file') ? await pool.volume('file') : await pool.createVolume('file');
const snapshot = `run ${volume.snapshots().length + 1}`;
const { changedBytes } = await replicate(file, volume, { snapshot });
console.log(`${snapshot}: ${changedBytes} bytes changed`);
for (const { name } of volume.snapshots()) console.log(name);
