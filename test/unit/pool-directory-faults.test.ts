// A pool directory when the system does something rare at the wrong moment. The tests put a function of node:fs, or a program on the PATH, in the place of the
// real one; Deno lets neither be replaced, so these run under Node alone.
import fs, { mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { exportPool, importPool, StoragePool } from '../../src/node.ts';

const root = mkdtempSync(join(tmpdir(), 'varve-pool-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));
let count = 0;
const fresh = (): string => join(root, `p${count++}`);
const code = (wanted: string) => expect.objectContaining({ code: wanted });
const volumeFiles = (path: string): string[] => readdirSync(path).filter((name) => name.endsWith('.varve'));

async function made(path: string): Promise<void> {
  const pool = await StoragePool.init(path, { volumeSize: '16MiB' });
  await pool.createVolume('v', { size: '4MiB' });
  await pool.close();
}

describe('a pool directory', () => {
  it('leaves no file behind that could not be made as large as it was to be', async () => {
    const path = fresh();
    mkdirSync(path);
    const { ftruncateSync } = fs;
    fs.ftruncateSync = () => {
      throw Object.assign(new Error('file too large'), { code: 'EFBIG' });
    };
    syncBuiltinESMExports();
    try {
      await expect(StoragePool.init(path, { volumeSize: '16MiB' })).rejects.toThrow(code('VARVE_NO_SPACE'));
      expect(volumeFiles(path)).toEqual([]);
    } finally {
      fs.ftruncateSync = ftruncateSync;
      syncBuiltinESMExports();
    }
    await made(path);
  });

  it('takes nothing away from a pool that another process makes at the same time', async () => {
    const path = fresh();
    mkdirSync(path);
    // The other one is done just before the lock can be had.
    const programs = fresh();
    mkdirSync(programs);
    writeFileSync(join(programs, 'flock'), `#!/bin/sh\necho theirs > '${join(path, 'pool.json')}'\nPATH="$WITHOUT" exec flock "$@"\n`, {
      mode: 0o755,
    });
    const { PATH } = process.env;
    process.env['WITHOUT'] = PATH;
    process.env['PATH'] = `${programs}:${PATH}`;
    try {
      await expect(StoragePool.init(path)).rejects.toThrow(code('VARVE_EXISTS'));
    } finally {
      process.env['PATH'] = PATH;
      delete process.env['WITHOUT'];
    }
    expect(readFileSync(join(path, 'pool.json'), 'utf8')).toBe('theirs\n');
  });

  it('is durable in all directories that were made for it', async () => {
    const above = fresh();
    mkdirSync(above);
    const path = join(above, 'a', 'b', 'pool');
    const synced: string[] = [];
    const { fsyncSync } = fs;
    fs.fsyncSync = (descriptor) => {
      synced.push(readlinkSync(`/proc/self/fd/${descriptor}`));
      fsyncSync(descriptor);
    };
    syncBuiltinESMExports();
    try {
      await made(path);
    } finally {
      fs.fsyncSync = fsyncSync;
      syncBuiltinESMExports();
    }
    for (const directory of [above, join(above, 'a'), join(above, 'a', 'b'), path]) expect(synced).toContain(directory);
    expect(synced).not.toContain(root);
  });

  it('keeps its pool.json when there is no room for a new one', async () => {
    const path = fresh();
    await made(path);
    const before = readFileSync(join(path, 'pool.json'), 'utf8');
    const pool = await StoragePool.open(path);
    const { writeSync } = fs;
    let room = 100;
    fs.writeSync = ((descriptor: number, bytes: Uint8Array, offset: number, length: number, position: number) => {
      const isIt = readlinkSync(`/proc/self/fd/${descriptor}`).includes('pool.json');
      if (isIt && room === 0) throw Object.assign(new Error('no space left on device'), { code: 'ENOSPC' });
      const taken = isIt ? Math.min(room, length) : length;
      if (isIt) room -= taken;
      return writeSync(descriptor, bytes, offset, taken, position);
    }) as typeof writeSync;
    syncBuiltinESMExports();
    try {
      await pool.createVolume('w', { size: '4MiB' });
    } finally {
      fs.writeSync = writeSync;
      syncBuiltinESMExports();
      await pool.close();
    }
    expect(room).toBe(0);
    expect(readFileSync(join(path, 'pool.json'), 'utf8')).toBe(before);
    expect(readdirSync(path)).not.toContain('pool.json.new');
  });

  it('does not take a member that may not be opened, or not now, for one that is gone', async () => {
    const path = fresh();
    await (await StoragePool.init(path, { volumeSize: '16MiB', raid: '1' })).close();
    const [first, second] = volumeFiles(path).map((name) => join(path, name)) as [string, string];
    const states = async (): Promise<string[]> => {
      await using pool = await StoragePool.open(path, { readOnly: true });
      return (await pool.status()).storageVolumes.flatMap(({ devices }) => devices.map(({ state }) => state)).toSorted();
    };
    const { openSync } = fs;
    let refused = '';
    let errno = '';
    fs.openSync = (where, ...how) => {
      if (String(where).startsWith(refused)) throw Object.assign(new Error(`${errno}: refused`), { code: errno });
      return openSync(where, ...how);
    };
    syncBuiltinESMExports();
    try {
      for (errno of ['EACCES', 'EPERM', 'EROFS', 'EMFILE', 'ENFILE', 'ENOMEM']) {
        refused = second;
        await expect(StoragePool.open(path), errno).rejects.toThrow(`${errno}: refused`);
        expect(await states()).toEqual(['missing', 'online']);
        refused = join(path, 'volume-');
        await expect(StoragePool.open(path, { readOnly: true }), errno).rejects.toThrow(`${errno}: refused`);
      }
      refused = 'nothing';
      expect(await states()).toEqual(['online', 'online']);
      refused = first;
      errno = 'ENXIO';
      await (await StoragePool.open(path)).close();
      expect(await states()).toEqual(['missing', 'online']);
    } finally {
      fs.openSync = openSync;
      syncBuiltinESMExports();
    }
  });

  it('that may not be read is not called none', async () => {
    const path = fresh();
    await made(path);
    const archive = await exportPool(path);
    const { readdirSync: read } = fs;
    const other = fresh();
    mkdirSync(other);
    let [target, after, errno] = [path, 0, ''];
    fs.readdirSync = ((where: string, ...how: []) => {
      if (where === target && after-- <= 0) throw Object.assign(new Error(`${errno}: refused`), { code: errno });
      return read(where, ...how);
    }) as typeof read;
    syncBuiltinESMExports();
    const refused = expect.objectContaining({ code: 'VARVE_IO', message: expect.stringContaining('refused') as string });
    try {
      for (errno of ['EACCES', 'EPERM', 'EMFILE', 'EIO']) {
        await expect(StoragePool.open(path, { readOnly: true }), errno).rejects.toThrow(refused);
        await expect(StoragePool.init(path), errno).rejects.toThrow(refused);
      }
      await expect(importPool(path, archive)).rejects.toThrow(refused);
      // Refused when it is looked at again, behind the lock: that is given back.
      [target, after] = [other, 1];
      await expect(StoragePool.init(other)).rejects.toThrow(refused);
      target = '';
      await made(other);
    } finally {
      fs.readdirSync = read;
      syncBuiltinESMExports();
    }
    await (await StoragePool.open(path)).close();
    // By the system itself: links that go in a circle. No directory: a file, and a name that none can have.
    const loop = fresh();
    symlinkSync(loop, loop);
    await expect(StoragePool.open(loop)).rejects.toThrow(code('VARVE_IO'));
    for (const none of [join(path, 'pool.json'), join(root, 'x'.repeat(300))])
      await expect(StoragePool.open(none)).rejects.toThrow(code('VARVE_NOT_FOUND'));
  });

  it('that cannot be made leaves no lock and no open file, whatever fails in addition', async () => {
    const path = join(fresh(), 'pool');
    const { renameSync, unlinkSync } = fs;
    fs.renameSync = () => {
      throw Object.assign(new Error('no space left on device'), { code: 'ENOSPC' });
    };
    let stays = 'making';
    fs.unlinkSync = (where) => {
      if (String(where).endsWith(stays)) throw Object.assign(new Error('no'), { code: 'EPERM' });
      unlinkSync(where);
    };
    syncBuiltinESMExports();
    const opened = (): string[] =>
      readdirSync('/proc/self/fd')
        .map((name) => (fs.existsSync(`/proc/self/fd/${name}`) ? readlinkSync(`/proc/self/fd/${name}`) : ''))
        .filter((where) => where.startsWith(path));
    try {
      // Neither before it is made nor when it is cleaned up.
      await expect(StoragePool.init(path, { volumeSize: '16MiB' })).rejects.toThrow(code('VARVE_READ_ONLY'));
      expect(opened()).toEqual([]);
      stays = 'nothing';
      await expect(StoragePool.init(path, { volumeSize: '16MiB' })).rejects.toThrow(code('VARVE_NO_SPACE'));
      expect(opened()).toEqual([]);
      expect(readdirSync(path)).toEqual(['lock']);
    } finally {
      fs.renameSync = renameSync;
      fs.unlinkSync = unlinkSync;
      syncBuiltinESMExports();
    }
    await made(path);
  });
});
