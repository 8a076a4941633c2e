// Makes test/fixtures/NAME: a small pool as this version writes it, kept so that all later versions can be tested with it. Only for a new version of the
// format or a new feature of it; what is kept is never made anew.
//
//   node scripts/fixture.ts NAME
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import type { StorageDevice } from '../src/device/device.ts';
import { StoragePool } from '../src/node.ts';

const [name] = process.argv.slice(2);
if (name === undefined || !/^[\w.-]+$/.test(name)) throw new TypeError('usage: fixture.ts NAME');
const target = fileURLToPath(new URL(`../test/fixtures/${name}`, import.meta.url));
if (existsSync(target)) throw new Error(`${target} is kept: choose another name`);

const KIB = 1024;
const directory = mkdtempSync(join(tmpdir(), 'varve-fixture-'));
const path = join(directory, 'pool');

/** Bytes that differ from block to block and compress well. */
function pattern(bytes: number, seed: number): Uint8Array {
  const line = new TextEncoder().encode(`layer ${seed} `);
  return new Uint8Array(bytes).map((_, at) => (line[at % line.length] as number) ^ ((at >> 12) & 0x1f));
}

async function digest(device: StorageDevice): Promise<string> {
  const bytes = new Uint8Array(device.sizeBytes);
  await device.read(0, bytes);
  return createHash('sha256').update(bytes).digest('hex');
}

const pool = await StoragePool.init(path, { volumeSize: '2MiB', maxVolumes: 6, segmentBlocks: 32 });
const first = await pool.createVolume('first', { size: 1500 * KIB + 123 });
await first.write(4096, pattern(700 * KIB, 1));
await first.snapshot('written');
await first.write(100_001, pattern(90 * KIB, 2));
await first.discard(300 * KIB, 64 * KIB);
await first.snapshot('trimmed');
await first.rollback('written');
await first.write(1000 * KIB, pattern(480 * KIB, 3));
await first.snapshot('after the rollback');
for (let round = 0; round < 3; round++) await first.write(0, pattern(600 * KIB, 10 + round));
await first.compact();
const second = await pool.createVolume('ünicode', { size: 256 * KIB });
await second.write(0, pattern(200 * KIB, 4));
await second.snapshot('only');
await second.write(8192, pattern(4096, 5));

const states: Record<string, { current: string; snapshots: Record<string, string> }> = {};
for (const volume of [first, second]) {
  await volume.flush();
  const snapshots: Record<string, string> = {};
  for (const { name: snapshot } of volume.snapshots()) snapshots[snapshot] = await digest(volume.at(snapshot));
  states[volume.name] = { current: await digest(volume), snapshots };
}
await pool.close();
mkdirSync(target, { recursive: true });
for (const file of readdirSync(path)) {
  if (file !== 'lock') writeFileSync(join(target, `${file}.gz`), gzipSync(readFileSync(join(path, file)), { level: 9 }));
}
writeFileSync(join(target, 'states.json'), `${JSON.stringify(states, null, 2)}\n`);
rmSync(directory, { recursive: true });
console.log(readdirSync(target).join('\n'));
