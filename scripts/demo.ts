// The demo: a real disk image, replicated twice through the real command line, and both of its moments back, bit for bit.
//
//   1. builds an ext4 image of 320 MiB or more out of a real tree (this project's node_modules)
//   2. `varve init` with small storage volumes, `varve replicate` as "monday": the pool grows by itself over several of them
//   3. changes a few files in the image with debugfs, `varve replicate` as "tuesday": only what changed is written
//   4. `varve restore` of both, compared with copies of the two moments and checked with e2fsck; `varve check`
//
//   node scripts/demo.ts [DIRECTORY]        (a directory that is not there yet; without one, a temporary one that is deleted again)
//
// Exits with 1 when anything differs.

import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const cli = join(root, 'src/cli/main.ts');
const MIB = 1 << 20;
const IMAGE_BYTES_MIN = 320 * MIB;
/** Of the image: what the tree takes, and as much again for file system structures and free space. */
const IMAGE_FACTOR = 1.3;

function run(command: string, args: readonly string[]): string {
  const child = spawnSync(command, args, { encoding: 'utf8', maxBuffer: 64 * MIB });
  if (child.error !== undefined) throw new Error(`${command}: ${child.error.message}`);
  if (child.status !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${child.status}\n${child.stdout}${child.stderr}`);
  return child.stdout;
}

function varve(...args: string[]): unknown {
  const text = run(process.execPath, [cli, ...args, '--json']);
  return JSON.parse(text) as unknown;
}

interface Replicated {
  scannedBytes: number;
  changedBytes: number;
  writtenBytes: number;
  metadataBytes: number;
  seconds: number;
}

interface Status {
  storageVolumes: { state: string; usedBytes: number }[];
  virtualVolumes: { storageVolumes: number[]; liveBytes: number }[];
}

function directoryBytes(path: string): number {
  let bytes = 0;
  for (const entry of readdirSync(path, { recursive: true, withFileTypes: true })) {
    if (entry.isFile()) bytes += Math.ceil(statSync(join(entry.parentPath, entry.name)).size / 4096) * 4096;
  }
  return bytes;
}

function mib(bytes: number): string {
  return `${(bytes / MIB).toFixed(1)} MiB`.padStart(10);
}

function expect(condition: boolean, what: string): void {
  if (!condition) throw new Error(`not so: ${what}`);
  console.log(`  ok: ${what}`);
}

function demo(directory: string): void {
  for (const tool of ['mke2fs', 'debugfs', 'e2fsck']) {
    if (spawnSync(tool, ['-V']).error !== undefined) throw new Error(`${tool} is missing: apt-get install e2fsprogs`);
  }
  const image = join(directory, 'disk.img');
  const pool = join(directory, 'pool');
  const [monday, tuesday] = [join(directory, 'monday.img'), join(directory, 'tuesday.img')];

  console.log('1. an ext4 image out of a real tree');
  const tree = join(root, 'node_modules');
  const imageBytes = Math.max(IMAGE_BYTES_MIN, Math.ceil((directoryBytes(tree) * IMAGE_FACTOR) / MIB) * MIB);
  writeFileSync(image, '');
  run('truncate', ['-s', String(imageBytes), image]);
  run('mke2fs', ['-q', '-F', '-t', 'ext4', '-d', tree, image]);
  copyFileSync(image, monday);
  console.log(`  ${image}, ${mib(imageBytes).trim()}, ${mib(statSync(image).blocks * 512).trim()} of it in use`);

  console.log('2. the first replication');
  varve('init', pool, '--volume-size', '64MiB');
  const first = varve('replicate', image, `${pool}/disk`, '--snapshot', 'monday') as Replicated;
  const status = varve('status', pool) as Status;
  console.log(
    `  scanned ${mib(first.scannedBytes)}, wrote ${mib(first.writtenBytes)} and ${mib(first.metadataBytes)} of metadata in ${first.seconds.toFixed(1)} s`,
  );
  expect(
    (status.virtualVolumes[0]?.storageVolumes.length ?? 0) >= 3,
    `the volume grew over ${status.virtualVolumes[0]?.storageVolumes.length} storage volumes by itself`,
  );

  console.log('3. a changed image, the second replication');
  const note = join(directory, 'note.txt');
  writeFileSync(note, `written ${new Date().toISOString()}\n`.repeat(10_000));
  run('debugfs', ['-w', '-R', `write ${note} note.txt`, image]);
  run('debugfs', ['-w', '-R', 'rm .package-lock.json', image]);
  copyFileSync(image, tuesday);
  const second = varve('replicate', image, `${pool}/disk`, '--snapshot', 'tuesday') as Replicated;
  console.log(
    `  scanned ${mib(second.scannedBytes)}, wrote ${mib(second.writtenBytes)} and ${mib(second.metadataBytes)} of metadata in ${second.seconds.toFixed(1)} s`,
  );
  expect(second.changedBytes > 0, `${second.changedBytes} bytes had changed`);
  expect(second.writtenBytes <= second.changedBytes + 4096, 'the second run wrote only what had changed');
  expect(
    second.writtenBytes < first.writtenBytes / 20,
    `that is ${((100 * second.writtenBytes) / first.writtenBytes).toFixed(2)} % of the first run`,
  );

  console.log('4. both moments back');
  for (const [name, wanted] of [
    ['monday', monday],
    ['tuesday', tuesday],
  ] as const) {
    const restored = join(directory, `${name}.restored.img`);
    varve('restore', `${pool}/disk@${name}`, restored);
    run('cmp', [wanted, restored]);
    expect(true, `${name} is equal to its original, bit for bit`);
    run('e2fsck', ['-fn', restored]);
    expect(true, `${name} is a sound file system`);
  }
  const check = varve('check', pool) as { clean: boolean };
  expect(check.clean, 'the pool is clean');
  console.log('\nEverything as it should be.');
}

const given = process.argv[2];
if (given !== undefined && existsSync(given)) {
  console.error(`${given} is there already`);
  process.exit(1);
}
const directory = given ?? mkdtempSync(join(tmpdir(), 'varve-demo-'));
if (given !== undefined) mkdirSync(given, { recursive: true });
let status = 0;
try {
  demo(directory);
} catch (error) {
  console.error(`\nFAILED: ${error instanceof Error ? error.message : String(error)}`);
  status = 1;
} finally {
  if (given === undefined) rmSync(directory, { recursive: true, force: true });
  else console.log(`Left in ${directory}: pool, images and restored images.`);
}
process.exitCode = status;
