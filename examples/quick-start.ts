// Keeps increments of a file, goes back to one of them, and reads the past.
//
//   node examples/quick-start.ts
//
// As it is, it wants Node 24: Node 20 takes no TypeScript, and neither 20 nor 22 knows `await using` (there `await pool.close()`, in a `finally`).
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { formatSize, replicate, restore, StoragePool } from 'varve/node';

const directory = mkdtempSync(join(tmpdir(), 'varve-example-'));
const image = join(directory, 'disk.img');
const bytes = new Uint8Array(8 * 1024 * 1024).map((_, index) => index % 251);
writeFileSync(image, bytes);

{
  // Storage volumes are files in the pool's directory, made when they are needed.
  await using pool = await StoragePool.init(join(directory, 'backups'), { volumeSize: '16MiB', maxVolumes: 8 });
  const volume = await pool.createVolume('disk');

  const monday = await replicate(image, volume, { snapshot: 'monday' });
  bytes.fill(7, 1_000_000, 1_100_000);
  writeFileSync(image, bytes);
  const tuesday = await replicate(image, volume, { snapshot: 'tuesday' });
  console.log(`monday: ${formatSize(monday.changedBytes)}, tuesday: ${formatSize(tuesday.changedBytes)}`);

  for await (const { offset, length, kind } of volume.diff('monday', 'tuesday')) console.log(`${kind} at ${offset}, ${length} bytes`);

  // Any moment is a read-only device; here it goes into a file.
  await restore(volume.at('monday'), join(directory, 'monday.img'));

  // The volume itself can be written, and put back. What is written is durable once `flush` returns.
  await volume.write(4096, new TextEncoder().encode('by mistake'));
  await volume.flush();
  await volume.rollback('tuesday');
}

// Later, in another process perhaps:
await using pool = await StoragePool.open(join(directory, 'backups'), { readOnly: true });
const volume = await pool.volume('disk');
const now = new Uint8Array(volume.sizeBytes);
await volume.read(0, now);
console.log(`tuesday again: ${Buffer.compare(now, bytes) === 0}`);
console.log(`monday restored: ${readFileSync(join(directory, 'monday.img'))[1_000_000] === 1_000_000 % 251}`);
console.log(`clean: ${(await pool.check()).clean}`);
rmSync(directory, { recursive: true });
