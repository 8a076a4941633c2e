import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
  writeSync,
  cpSync,
} from 'node:fs';
import { execFileSync } from 'node:child_process';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { StoragePool } from '../../src/node.ts';

const MIB = 1 << 20;
const root = mkdtempSync(join(tmpdir(), 'varve-pool-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));
let count = 0;
const fresh = (): string => join(root, `p${count++}`);
const code = (wanted: string) => expect.objectContaining({ code: wanted });
const volumeFiles = (path: string): string[] =>
  readdirSync(path)
    .filter((name) => name.endsWith('.varve'))
    .toSorted();

async function made(path: string, options: Parameters<typeof StoragePool.init>[1] = { volumeSize: '16MiB' }): Promise<string> {
  const pool = await StoragePool.init(path, options);
  await pool.createVolume('v', { size: '4MiB' });
  await pool.close();
  return path;
}

function changeCache(
  path: string,
  change: (cache: { pool: string; directoryInode: string; members: { uuid: string; path: string }[] }) => unknown,
): void {
  const file = join(path, 'pool.json');
  writeFileSync(file, JSON.stringify(change(JSON.parse(readFileSync(file, 'utf8')))));
}

describe('a pool directory', () => {
  it('is made once', async () => {
    const path = await made(fresh());
    expect(readdirSync(path).toSorted()).toEqual(['lock', 'pool.json', ...volumeFiles(path)]);
    await expect(StoragePool.init(path)).rejects.toThrow(code('VARVE_EXISTS'));
    await expect(StoragePool.open(fresh())).rejects.toThrow(code('VARVE_NOT_FOUND'));
  });

  it('takes what an init that was killed has left for no pool, and never a pool for that', async () => {
    const path = fresh();
    await (await StoragePool.init(path, { volumeSize: '16MiB' })).close();
    expect(readdirSync(path)).not.toContain('making');
    writeFileSync(join(path, 'making'), '');
    await expect(StoragePool.init(path)).rejects.toThrow(code('VARVE_EXISTS'));
    // Whoever opens it for writing takes the mark away before anything is kept in it: without pool.json it is a pool still.
    await (await StoragePool.open(path)).close();
    expect(readdirSync(path)).not.toContain('making');
    unlinkSync(join(path, 'pool.json'));
    await (await StoragePool.open(path)).close();
    unlinkSync(join(path, 'pool.json'));
    writeFileSync(join(path, 'making'), '');
    await expect(StoragePool.open(path)).rejects.toThrow(code('VARVE_NOT_FOUND'));
    const pool = await StoragePool.init(path, { volumeSize: '16MiB' });
    expect(readdirSync(path).filter((name) => name.endsWith('.varve'))).toHaveLength(1);
    await pool.close();
  });

  it('leaves nothing behind when it cannot be made', async () => {
    const path = fresh();
    await expect(StoragePool.init(path, { volumeSize: 1000 })).rejects.toThrow(RangeError);
    await expect(StoragePool.init(path, { devices: [join(root, 'nothing')] })).rejects.toThrow(code('VARVE_NOT_FOUND'));
    expect(existsSync(path)).toBe(false);
  });

  it('deletes the files of a volume that is deleted', async () => {
    const path = await made(fresh());
    const pool = await StoragePool.open(path);
    await pool.createVolume('w', { size: MIB });
    expect(volumeFiles(path)).toHaveLength(2);
    await pool.deleteVolume('v');
    expect(volumeFiles(path)).toHaveLength(1);
    await pool.deleteVolume('w');
    await pool.close();
    // The catalogue lives on members: the last one stays.
    expect(volumeFiles(path)).toHaveLength(1);
    const again = await StoragePool.open(path);
    await again.createVolume('x', { size: MIB });
    expect((await again.check()).clean).toBe(true);
    await again.close();
  });

  it.each(['not json', '{}', '[]', '{"pool":1}', '{"pool":"../..","members":[]}', JSON.stringify({ pool: 'x', members: 'y' })])(
    'opens with a pool.json of %j',
    async (text) => {
      const path = await made(fresh());
      writeFileSync(join(path, 'pool.json'), text);
      const pool = await StoragePool.open(path);
      expect(pool.volumes).toEqual(['v']);
      expect(pool.notes[0]).toContain('pool.json');
      await pool.close();
    },
  );

  it('opens without pool.json, and writes it anew', async () => {
    const path = await made(fresh());
    unlinkSync(join(path, 'pool.json'));
    await (await StoragePool.open(path)).close();
    expect(existsSync(join(path, 'pool.json'))).toBe(true);
  });

  it('does not open what a foreign pool.json names outside', async () => {
    const path = await made(fresh());
    const victim = join(root, 'victim');
    writeFileSync(victim, 'mine');
    const fifo = join(root, 'fifo');
    execFileSync('mkfifo', [fifo]);
    for (const directoryInode of ['0', undefined]) {
      changeCache(path, (cache) => ({
        ...cache,
        ...(directoryInode === undefined ? {} : { directoryInode }),
        members: [
          ...cache.members,
          { uuid: cache.pool, path: victim },
          { uuid: cache.pool, path: '../victim' },
          { uuid: cache.pool, path: fifo },
          { uuid: cache.pool, path: '/dev/tty' },
        ],
      }));
      const pool = await StoragePool.open(path);
      expect(pool.volumes).toEqual(['v']);
      await pool.close();
      expect(readFileSync(victim, 'utf8')).toBe('mine');
    }
  });

  it('does not follow a symbolic link to a storage volume', async () => {
    const path = await made(fresh());
    const [file = ''] = volumeFiles(path);
    const elsewhere = join(root, `moved-${count}`);
    renameSync(join(path, file), elsewhere);
    symlinkSync(elsewhere, join(path, file));
    await expect(StoragePool.open(path)).rejects.toThrow(expect.objectContaining({ code: expect.stringMatching(/^VARVE_/) as string }));
  });

  it('takes of two copies of a member the one that has its name', async () => {
    const path = await made(fresh());
    const [file = ''] = volumeFiles(path);
    for (const copy of ['volume-0000-00000000.varve', 'volume-0000-ffffffff.varve']) cpSync(join(path, file), join(path, copy));
    let pool = await StoragePool.open(path);
    await (await pool.volume('v')).snapshot('later');
    await pool.close();
    pool = await StoragePool.open(path);
    expect((await pool.volume('v')).snapshots().map(({ name }) => name)).toEqual(['later']);
    expect((await pool.status()).storageVolumes.map(({ devices }) => devices[0]?.path)).toEqual([join(path, file)]);
    await pool.close();
  });

  it('is the pool that its files are when pool.json names another one', async () => {
    const path = await made(fresh());
    const { pool: id } = JSON.parse(readFileSync(join(path, 'pool.json'), 'utf8')) as { pool: string };
    const other = await made(fresh());
    cpSync(join(other, 'pool.json'), join(path, 'pool.json'));
    const pool = await StoragePool.open(path);
    expect(pool.id).toBe(id);
    expect(pool.has('v')).toBe(true);
    expect((await pool.check()).notes.join()).toContain('of which there is nothing here');
    await pool.close();
    expect(readFileSync(join(path, 'pool.json'), 'utf8')).toContain(id);

    // Not where its own devices are only away.
    const device = join(root, `device-${count}`);
    writeFileSync(device, '');
    truncateSync(device, 16 * MIB);
    const away = await made(fresh(), { devices: [device] });
    renameSync(device, `${device}.away`);
    const [file = ''] = volumeFiles(path);
    cpSync(join(path, file), join(away, file));
    await expect(StoragePool.open(away)).rejects.toThrow(code('VARVE_NOT_FOUND'));
  });

  it('leaves a file alone that is not in its catalogue, and says so', async () => {
    const path = await made(fresh());
    const other = await made(fresh());
    const [foreign = ''] = volumeFiles(other);
    cpSync(join(other, foreign), join(path, foreign));
    const before = readFileSync(join(path, foreign));
    writeFileSync(join(path, 'volume-0009-00000000.varve'), 'garbage');
    const pool = await StoragePool.open(path);
    expect(pool.notes.join('\n')).toContain(foreign);
    expect(pool.notes.join('\n')).toContain('volume-0009-00000000.varve');
    const result = await pool.check();
    expect(result.clean).toBe(true);
    await pool.close();
    expect(readFileSync(join(path, foreign)).equals(before)).toBe(true);
  });

  it('opens beside the file of a device that it gave up long ago, but not beside another history', async () => {
    const path = await made(fresh(), { volumeSize: MIB });
    const away = join(root, `away-${count}`);
    const commits = async (pool: StoragePool, times: number): Promise<void> => {
      for (let time = 0; time < times; time++) {
        await pool.createVolume('w', { size: MIB });
        await pool.deleteVolume('w');
      }
    };
    let pool = await StoragePool.open(path);
    await pool.createVolume('u', { size: MIB });
    await pool.close();
    const [, file = ''] = volumeFiles(path);
    renameSync(join(path, file), away);
    pool = await StoragePool.open(path);
    await pool.deleteVolume('u');
    await commits(pool, 30);
    const { generation } = pool;
    await pool.close();
    cpSync(away, join(path, file));
    pool = await StoragePool.open(path);
    expect(pool.generation).toBe(generation);
    expect(pool.notes.join()).toContain(`${file}: not in the pool's catalogue; left alone`);
    await pool.close();
    // The same file, after it had been used alone.
    const alone = fresh();
    mkdirSync(alone);
    cpSync(away, join(alone, file));
    pool = await StoragePool.open(alone);
    await commits(pool, 30);
    await pool.close();
    cpSync(join(alone, file), join(path, file));
    await expect(StoragePool.open(path)).rejects.toThrow(code('VARVE_FENCED'));
  }, 60_000);

  it('keeps devices that the caller named, also when they are named again', async () => {
    const devices = [0, 1].map((index) => {
      const device = join(root, `device-${count}-${index}`);
      writeFileSync(device, '');
      truncateSync(device, 16 * MIB);
      return device;
    });
    const path = await made(fresh(), { devices });
    expect(volumeFiles(path)).toEqual([]);
    const pool = await StoragePool.open(path);
    expect((await pool.status()).storageVolumes.map((volume) => volume.devices[0]?.path)).toEqual(devices);
    await pool.deleteVolume('v');
    await pool.close();
    expect(devices.every((device) => existsSync(device))).toBe(true);
    // The directory copied somewhere else: its pool.json is anybody's word there.
    const copy = fresh();
    mkdirSync(copy);
    cpSync(join(path, 'pool.json'), join(copy, 'pool.json'));
    await expect(StoragePool.open(copy)).rejects.toThrow(
      expect.objectContaining({
        code: 'VARVE_NOT_FOUND',
        message: expect.stringContaining(`${devices[0]}", and was not written in this directory`),
      }),
    );
    await (await StoragePool.open(copy, { devices })).close();
    await (await StoragePool.open(copy)).close();
    // Whoever writes through one of the two keeps the other out, readers too; and a reader keeps writers out.
    const writer = await StoragePool.open(path);
    await expect(StoragePool.open(copy, { readOnly: true })).rejects.toThrow(code('VARVE_LOCKED'));
    await expect(StoragePool.open(copy)).rejects.toThrow(code('VARVE_LOCKED'));
    await writer.close();
    const reader = await StoragePool.open(path, { readOnly: true });
    await (await StoragePool.open(copy, { readOnly: true })).close();
    await expect(StoragePool.open(copy)).rejects.toThrow(code('VARVE_LOCKED'));
    await reader.close();
    await (await StoragePool.open(copy)).close();
  }, 30_000);

  it('is not made on any of the devices when it cannot be made on all', async () => {
    const large = join(root, `large-${count}`);
    const small = join(root, `small-${count}`);
    for (const [device, sizeBytes] of [
      [large, 16 * MIB],
      [small, MIB / 2],
    ] as const) {
      writeFileSync(device, '');
      truncateSync(device, sizeBytes);
    }
    await expect(StoragePool.init(fresh(), { devices: [large, small] })).rejects.toThrow(
      expect.objectContaining({ code: 'VARVE_LIMIT', message: expect.stringContaining(`${small} of 524288 bytes`) }),
    );
    await expect(StoragePool.init(fresh(), { devices: [large, small], raid: '1' })).rejects.toThrow(code('VARVE_LIMIT'));
    await made(fresh(), { devices: [large] });
  });

  it('keeps them when it is reached by a symbolic link', async () => {
    const device = join(root, `device-${count}`);
    writeFileSync(device, '');
    truncateSync(device, 16 * MIB);
    const target = fresh();
    mkdirSync(target);
    const path = fresh();
    symlinkSync(target, path);
    await made(path, { devices: [device] });
    for (const way of [path, target, path]) await (await StoragePool.open(way)).close();
  });

  it('refuses a device with something on it, unless forced', async () => {
    const device = join(root, `used-${count}`);
    writeFileSync(device, 'my letters');
    truncateSync(device, 16 * MIB);
    await expect(StoragePool.init(fresh(), { devices: [device] })).rejects.toThrow(code('VARVE_EXISTS'));
    expect(readFileSync(device, 'utf8').startsWith('my letters')).toBe(true);
    await (await StoragePool.init(fresh(), { devices: [device], force: true })).close();
    await expect(StoragePool.init(fresh(), { devices: [device] })).rejects.toThrow('a storage device of a Varve pool');
  });

  it('writes nothing when its lock file is gone', async () => {
    const path = await made(fresh());
    const pool = await StoragePool.open(path);
    const volume = await pool.volume('v');
    await volume.write(0, new Uint8Array(4096).fill(1));
    unlinkSync(join(path, 'lock'));
    const second = await StoragePool.open(path);
    const theirs = await second.volume('v');
    const bytes = new Uint8Array(40_960).fill(2);
    await theirs.write(0, bytes);
    await theirs.flush();
    await expect(volume.flush()).rejects.toThrow(code('VARVE_FENCED'));
    await expect(pool.createVolume('w', { size: MIB })).rejects.toThrow(code('VARVE_FENCED'));
    await pool.close().catch(() => undefined);
    await second.close();
    const third = await StoragePool.open(path);
    expect((await third.check()).clean).toBe(true);
    expect(third.volumes).toEqual(['v']);
    const read = new Uint8Array(40_960);
    await (await third.volume('v')).read(0, read);
    expect(read).toEqual(bytes);
    await third.close();
  });

  it('answers a storage volume with any bytes spoilt by a typed error or by itself', async () => {
    const path = await made(fresh());
    const [file = ''] = volumeFiles(path);
    const bytes = readFileSync(join(path, file));
    let state = 12345;
    const random = (limit: number): number => (state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0) % limit;
    for (let round = 0; round < 30; round++) {
      writeFileSync(join(path, file), bytes);
      const descriptor = openSync(join(path, file), 'r+');
      for (let change = 0; change < 8; change++) {
        const area = [0, 4096, 69_632, 135_168, 143_360, bytes.length - 143_360][random(6)] ?? 0;
        writeSync(descriptor, Uint8Array.of(random(256), random(256), random(256), random(256)), 0, 4, area + random(4000));
      }
      closeSync(descriptor);
      try {
        const pool = await StoragePool.open(path, { readOnly: true });
        await pool.check();
        await pool.status();
        await pool.close();
      } catch (error) {
        expect(error).toEqual(
          expect.objectContaining({ code: expect.stringMatching(/^VARVE_(CORRUPT|NOT_FOUND|UNSUPPORTED|FENCED|IO)$/) as string }),
        );
      }
    }
  });
});
