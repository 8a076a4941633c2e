// Archives of pools and snapshots: there and back, readable by tar, and refused when they are cut off, spoilt or hostile.
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { crc32 as zlibCrc32 } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { exportPool, exportSnapshot, importPool, importSnapshot, StoragePool } from '../../src/node.ts';
import { archiveStream, readArchive, type ArchiveSource } from '../../src/pool/archive.ts';
import { crc32 } from '../../src/pool/crc32.ts';
import { noise } from '../system/support.ts';

let directory = '';
let count = 0;
const fresh = (): string => join(directory, `x${count++}`);
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'varve-archive-'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const MIB = 1 << 20;

async function collect(stream: ReadableStream<Uint8Array>): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  for await (const piece of stream) pieces.push(piece);
  return Buffer.concat(pieces);
}

/** In pieces of odd sizes, as networks deliver. */
function streamOf(bytes: Uint8Array, pieceBytes = 100_003): ReadableStream<Uint8Array> {
  let at = 0;
  return new ReadableStream<Uint8Array>({
    pull(controller) {
      if (at >= bytes.length) return controller.close();
      controller.enqueue(bytes.slice(at, at + pieceBytes));
      at += pieceBytes;
    },
  });
}

async function makePool(path: string): Promise<Map<string, Uint8Array>> {
  const states = new Map<string, Uint8Array>();
  const pool = await StoragePool.init(path, { volumeSize: '4MiB' });
  const volume = await pool.createVolume('v', { size: '3MiB' });
  const image = new Uint8Array(3 * MIB);
  for (const [index, name] of ['one', 'two', 'three'].entries()) {
    const part = image.subarray(index * 700_000, index * 700_000 + 600_001);
    noise(part, index + 1);
    await volume.write(part.byteOffset - image.byteOffset, part);
    await volume.snapshot(name);
    states.set(name, image.slice());
  }
  await pool.close();
  return states;
}

async function expectStates(path: string, states: ReadonlyMap<string, Uint8Array>): Promise<void> {
  const pool = await StoragePool.open(path);
  const volume = await pool.volume('v');
  for (const [name, bytes] of states) {
    const into = new Uint8Array(bytes.length);
    await volume.at(name).read(0, into);
    expect(Buffer.compare(into, bytes), name).toBe(0);
  }
  expect((await pool.check()).problems).toEqual([]);
  await pool.close();
}

it('CRC-32 is the one of gzip, in any pieces', () => {
  const bytes = noise(new Uint8Array(100_007), 1);
  for (const length of [0, 1, 7, 8, 9, 4095, 100_007])
    expect(crc32(0, bytes.subarray(0, length))).toBe(zlibCrc32(bytes.subarray(0, length)));
  expect(crc32(crc32(0, bytes.subarray(0, 333)), bytes.subarray(333))).toBe(zlibCrc32(bytes));
});

describe('a pool', () => {
  it('goes through a stream and is the same, snapshot by snapshot', async () => {
    const [path, other] = [fresh(), fresh()];
    const states = await makePool(path);
    await importPool(other, await exportPool(path));
    await expectStates(other, states);
    await expect(importPool(other, await exportPool(path))).rejects.toMatchObject({ code: 'VARVE_EXISTS' });
    await expectStates(path, states);
  });

  it('is imported without anything of an import that was killed', async () => {
    const path = fresh();
    const states = await makePool(path);
    const target = fresh();
    const [file] = readdirSync(path).filter((name) => name.endsWith('.varve'));
    mkdirSync(`${target}.importing-${process.pid}`);
    writeFileSync(join(`${target}.importing-${process.pid}`, 'volume-0007-01234567.varve'), 'cut off');
    await importPool(target, await exportPool(path));
    expect(readdirSync(target)).toEqual([file]);
    await expectStates(target, states);
  });

  it('exported is what tar unpacks into a pool', async () => {
    const [path, file, unpacked] = [fresh(), fresh(), fresh()];
    const states = await makePool(path);
    writeFileSync(file, await collect(await exportPool(path)));
    mkdirSync(unpacked);
    expect(execFileSync('tar', ['-tf', file], { encoding: 'utf8' }).trim().split('\n').at(0)).toBe('varve.json');
    execFileSync('tar', ['-xf', file, '-C', unpacked]);
    const { crc32: sums } = JSON.parse(readFileSync(join(unpacked, 'checksums.json'), 'utf8')) as { crc32: Record<string, string> };
    for (const [name, sum] of Object.entries(sums)) {
      expect(
        zlibCrc32(readFileSync(join(unpacked, name)))
          .toString(16)
          .padStart(8, '0'),
      ).toBe(sum);
    }
    await expectStates(unpacked, states);
  });

  it('is held while it is exported, and free afterwards', async () => {
    const path = fresh();
    await makePool(path);
    const stream = await exportPool(path);
    await expect(StoragePool.open(path)).rejects.toMatchObject({ code: 'VARVE_LOCKED' });
    await stream.cancel();
    await (await StoragePool.open(path)).close();
  });

  it('cut off or spoilt anywhere is refused, and leaves nothing behind', async () => {
    const path = fresh();
    await makePool(path);
    const whole = await collect(await exportPool(path));
    const target = join(fresh(), 'pool');
    for (const length of [0, 100, 512, 5000, MIB, whole.length - 1025, whole.length - 1536]) {
      await expect(importPool(target, streamOf(whole.subarray(0, length))), `cut at ${length}`).rejects.toMatchObject({
        code: 'VARVE_CORRUPT',
      });
    }
    for (let at = 300; at < whole.length - 1024; at += 397_003) {
      const spoilt = Buffer.from(whole);
      spoilt[at]! ^= 4;
      const ended = await importPool(target, streamOf(spoilt)).then(
        () => 'taken',
        (error: unknown) => (error as { code?: string }).code,
      );
      // Padding and the unused ends of headers may be anything; headers and files may not.
      if (ended !== 'VARVE_CORRUPT' && ended !== 'VARVE_UNSUPPORTED') expect(whole[at], `byte ${at}: ${ended}`).toBe(0);
      rmSync(target, { recursive: true, force: true });
    }
    expect(readdirSync(join(target, '..')).filter((name) => name.includes('importing'))).toEqual([]);
  });

  it('whose archive names a file outside, or another one, is refused', async () => {
    const file = (name: string): ArchiveSource => ({ name, sizeBytes: 10, read: async (_offset, into) => void into.fill(1) });
    for (const name of ['../volume-0001-0123abcd.varve', '/etc/passwd', 'lock', 'volume-0001-0123abcd.varve.x']) {
      const target = fresh();
      await expect(importPool(target, archiveStream('pool', {}, [file(name)])), name).rejects.toMatchObject({ code: 'VARVE_CORRUPT' });
      expect(readdirSync(directory)).not.toContain(target);
    }
    await expect(importPool(fresh(), archiveStream('snapshot', {}, [file('snapshot.img')]))).rejects.toMatchObject({
      code: 'VARVE_UNSUPPORTED',
    });
  });
});

describe('a file of more than 8 GiB', () => {
  it('has its size in the header, as tar reads it', async () => {
    const sizeBytes = 9 * 2 ** 30 + 5;
    const stream = archiveStream('pool', {}, [{ name: 'large', sizeBytes, read: async () => undefined }]);
    const reader = stream.getReader();
    const pieces: Uint8Array[] = [];
    for (let index = 0; index < 3; index++) pieces.push((await reader.read()).value as Uint8Array);
    await reader.cancel();
    const path = fresh();
    writeFileSync(path, Buffer.concat(pieces));
    let listed = '';
    try {
      listed = execFileSync('tar', ['-tvf', path], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
    } catch (error) {
      listed = String((error as { stdout?: unknown }).stdout); // it misses the rest
    }
    expect(listed).toContain(String(sizeBytes));
  });
});

describe('a snapshot', () => {
  it('goes into another volume; only what differs is written', async () => {
    const [path, other] = [fresh(), fresh()];
    const states = await makePool(path);
    const from = await StoragePool.open(path);
    const to = await StoragePool.init(other, { volumeSize: '8MiB' });
    const source = await from.volume('v');
    const target = await to.createVolume('copy', { size: 4096 });
    expect(await importSnapshot(exportSnapshot(source.at('one')), target)).toBe('one');
    await target.flush();
    const before = target.figures().dataBytesWritten;
    expect(await importSnapshot(exportSnapshot(source.at('two')), target, 'second')).toBe('second');
    await target.flush();
    const written = target.figures().dataBytesWritten - before;
    expect(written).toBeGreaterThanOrEqual(600_001);
    expect(written).toBeLessThan(650_000);
    const into = new Uint8Array(3 * MIB);
    for (const [name, state] of [
      ['one', 'one'],
      ['second', 'two'],
    ] as const) {
      await target.at(name).read(0, into);
      expect(Buffer.compare(into, states.get(state) as Uint8Array), name).toBe(0);
    }
    // Back: what was written since becomes a hole again.
    await importSnapshot(exportSnapshot(source.at('one')), target, 'back');
    await target.at('back').read(0, into);
    expect(Buffer.compare(into, states.get('one') as Uint8Array)).toBe(0);
    await from.close();
    await to.close();
  });

  it('that is cut off is not taken', async () => {
    const path = fresh();
    await makePool(path);
    const pool = await StoragePool.open(path);
    const volume = await pool.volume('v');
    const bytes = await collect(exportSnapshot(volume.at('one')));
    const target = await pool.createVolume('target', { size: 4096 });
    await expect(importSnapshot(streamOf(bytes.subarray(0, bytes.length - 3000)), target)).rejects.toMatchObject({ code: 'VARVE_CORRUPT' });
    expect(target.snapshots()).toEqual([]);
    // What it says of itself counts only when it was all there.
    const large = await pool.createVolume('large', { size: 8 * MIB });
    await large.write(7 * MIB, new Uint8Array(4096).fill(5));
    const written = large.figures().dataBytesWritten;
    for (const length of [1024, bytes.length - 3000]) {
      await expect(importSnapshot(streamOf(bytes.subarray(0, length)), large)).rejects.toMatchObject({ code: 'VARVE_CORRUPT' });
      expect(large.sizeBytes).toBe(8 * MIB);
      if (length === 1024) expect(large.figures().dataBytesWritten).toBe(written);
    }
    const into = new Uint8Array(1);
    await large.read(7 * MIB, into);
    expect(into[0]).toBe(5);
    expect(await importSnapshot(streamOf(bytes), large)).toBe('one');
    expect(large.sizeBytes).toBe(3 * MIB);
    await pool.close();
  });

  it('that says that it is very large, or is larger than a volume can be, does not make the volume so', async () => {
    const path = fresh();
    await using pool = await StoragePool.init(path, { volumeSize: '8MiB' });
    const target = await pool.createVolume('target', { size: 4096 });
    for (const sizeBytes of [2 ** 52, Number.MAX_SAFE_INTEGER]) {
      let pieces = 2;
      const view = {
        name: 's',
        createdAt: new Date(),
        sizeBytes,
        read: () => (pieces-- > 0 ? Promise.resolve() : Promise.reject(new Error())),
      };
      const bytes: Uint8Array[] = [];
      const all = exportSnapshot(view).pipeTo(new WritableStream({ write: (piece) => void bytes.push(piece) }));
      await expect(all).rejects.toThrow();
      await expect(importSnapshot(streamOf(Buffer.concat(bytes)), target)).rejects.toMatchObject({ code: 'VARVE_CORRUPT' });
      expect(target.sizeBytes).toBeLessThanOrEqual(4 * MIB);
    }
    // One that came whole; a volume that refuses its size.
    const full = {
      sizeBytes: 0,
      read: (_offset: number, into: Uint8Array) => Promise.resolve(void into.fill(0)),
      write: () => Promise.resolve(),
      discard: () => Promise.resolve(),
      resize: () => Promise.reject(new RangeError('size')),
      snapshot: () => Promise.resolve(),
      snapshots: () => [],
    };
    await target.snapshot('s');
    await expect(importSnapshot(exportSnapshot(target.at('s')), full)).rejects.toMatchObject({ code: 'VARVE_LIMIT' });
  });

  it('whose name is taken, or is none, changes nothing', async () => {
    const path = fresh();
    await makePool(path);
    const pool = await StoragePool.open(path);
    const target = await pool.createVolume('target', { size: 4096 });
    await target.write(0, new Uint8Array(4096).fill(8));
    await target.snapshot('one');
    const stream = async () => exportSnapshot((await pool.volume('v')).at('one'));
    await expect(importSnapshot(await stream(), target)).rejects.toMatchObject({ code: 'VARVE_EXISTS' });
    await expect(importSnapshot(await stream(), target, 'a/b')).rejects.toThrow(/name/);
    const into = new Uint8Array(4096);
    await target.read(0, into);
    expect([target.sizeBytes, into.every((byte) => byte === 8)]).toEqual([4096, true]);
    await pool.close();
  });
});

it('a newer archive is refused, not guessed', async () => {
  const bytes = Buffer.from(await collect(archiveStream('pool', {}, [])));
  const at = bytes.indexOf('"version": 1');
  bytes[at + 11] = 0x32;
  await expect(
    readArchive(streamOf(bytes), { begin: () => Promise.resolve(), file: () => Promise.reject(new Error('never asked')) }),
  ).rejects.toMatchObject({ code: 'VARVE_UNSUPPORTED' });
});
