// A pool over real access handles: made, grown, shrunk, opened again, held against others; in sync mode, too.
import { OpfsDevice } from '../../../src/device/opfs.ts';
import { lockName, OpfsPool } from '../../../src/opfs/pool.ts';
import { restore } from '../../../src/replication/restore.ts';
import { replicate } from '../../../src/replication/replicate.ts';
import { MemoryDevice } from '../../../src/device/memory.ts';
import { deviceConformance } from '../../../src/testing/conformance.ts';
import { equal, failsWith, noise, ok, sameBytes } from '../worker/check.ts';
import { describe, it, serveTests } from '../worker/runner.ts';

const MIB = 1 << 20;
let pools = 0;
const fresh = (): string => `pools/${pools++}-${crypto.randomUUID()}`;

async function files(path: string): Promise<string[]> {
  let directory = await navigator.storage.getDirectory();
  for (const part of path.split('/')) directory = await directory.getDirectoryHandle(part);
  const names: string[] = [];
  for await (const name of (directory as unknown as { keys(): AsyncIterable<string> }).keys()) names.push(name);
  return names;
}

for (const sync of [false, true]) {
  deviceConformance(
    `a virtual volume over OPFS files${sync ? ' in sync mode' : ''}`,
    async () => {
      const path = fresh();
      let pool = await OpfsPool.init(path, { volumeSize: '4MiB', sync });
      return {
        device: await pool.createVolume('v', { size: '8MiB' }),
        reopen: async () => {
          await pool.close();
          pool = await OpfsPool.open(path, { sync });
          return pool.volume('v');
        },
        release: async () => {
          await pool.close();
          await OpfsPool.destroy(path);
        },
      };
    },
    { describe, it },
    { anyRange: true },
  );
}

describe('a pool in an OPFS directory', () => {
  it('keeps volumes and snapshots, and opens again with all of them', async () => {
    const path = fresh();
    const first = noise(3 * MIB, 1);
    const second = noise(MIB, 2);
    {
      await using pool = await OpfsPool.init(path, { volumeSize: '8MiB' });
      equal(pool.path, path, 'path');
      const volume = await pool.createVolume('db', { size: '64MiB' });
      await volume.write(5000, first);
      await volume.snapshot('monday');
      await volume.write(MIB, second);
      await volume.flush();
    }
    {
      await using pool = await OpfsPool.open(path);
      const volume = await pool.volume('db');
      const into = new Uint8Array(first.length);
      await volume.at('monday').read(5000, into);
      sameBytes(into, first, 'the snapshot');
      await volume.read(MIB, into.subarray(0, MIB));
      sameBytes(into.subarray(0, MIB), second, 'the present');
      equal((await pool.check()).problems, [], 'problems');
      const { quota } = await pool.status();
      ok(quota !== undefined && quota.quotaBytes > 0 && quota.usageBytes >= 8 * MIB, 'the quota in the status');
    }
    await OpfsPool.destroy(path);
    equal(await OpfsPool.exists(path), false, 'there after it was destroyed');
  });

  it('grows by whole files while it is written, and gives them back', async () => {
    const path = fresh();
    const pool = await OpfsPool.init(path, { volumeSize: '4MiB', maxVolumes: 20 });
    const volume = await pool.createVolume('v', { size: '40MiB' });
    equal((await files(path)).length, 1, 'files at first');
    const bytes = noise(16 * MIB, 4);
    for (let at = 0; at < bytes.length; at += MIB) await volume.write(at, bytes.subarray(at, at + MIB));
    await volume.flush();
    const grown = (await files(path)).length;
    ok(grown >= 5 && grown <= 20, `5 to 20 files after 16 MiB in files of 4 MiB, got ${grown}`);
    const into = new Uint8Array(bytes.length);
    await volume.read(0, into);
    sameBytes(into, bytes, 'what was written');
    await volume.discard(MIB, 39 * MIB);
    await volume.flush();
    await volume.compact();
    await pool.maintain();
    const shrunk = (await files(path)).length;
    ok(shrunk < grown - 1, `fewer than ${grown - 1} files after nearly all was discarded, got ${shrunk}`);
    await volume.read(0, into.subarray(0, MIB));
    sameBytes(into.subarray(0, MIB), bytes.subarray(0, MIB), 'what was left');
    await pool.deleteVolume('v');
    ok((await files(path)).length <= 1, 'at most a spare left after the volume is gone');
    await pool.close();
    await OpfsPool.destroy(path);
  });

  it('never has more than 64 files, says so, and loses nothing by it', async () => {
    const path = fresh();
    await failsWith('RangeError', () => OpfsPool.init(path, { maxVolumes: 64 }));
    const pool = await OpfsPool.init(path, { volumeSize: '1MiB' });
    // Most of the files at once: each growth is a commit on all members, and sixty of them take half a minute.
    const volume = await pool.createVolume('v', { size: '256MiB', policy: { minVolumes: 60 } });
    const block = noise(65536, 7);
    let written = 0;
    const error = await failsWith('VARVE_NO_SPACE', async () => {
      for (; written < 128 * MIB; written += block.length) await volume.write(written, block);
      await volume.flush();
    });
    ok(error.message.length > 0, 'a message');
    equal((await files(path)).length, 63, 'files');
    await volume.flush();
    const into = new Uint8Array(block.length);
    for (let at = 0; at < written; at += block.length) {
      await volume.read(at, into);
      sameBytes(into, block, `bytes at ${at}`);
    }
    await volume.discard(0, written);
    await volume.flush();
    await volume.write(0, block);
    await volume.flush();
    await pool.close();
    await OpfsPool.destroy(path);
  });

  it('works synchronously, growing from the spare that maintain makes', async () => {
    const path = fresh();
    const pool = await OpfsPool.init(path, { volumeSize: '2MiB', sync: true });
    const volume = await pool.createVolume('v', { size: '16MiB' });
    const bytes = noise(65536, 9);
    for (let at = 0; at < 8 * MIB; at += bytes.length) {
      if (at % (MIB / 4) === 0) await pool.maintain();
      volume.writeSync(at, bytes);
    }
    volume.flushSync();
    const into = new Uint8Array(bytes.length);
    for (let at = 0; at < 8 * MIB; at += bytes.length) {
      volume.readSync(at, into);
      sameBytes(into, bytes, `bytes at ${at}`);
    }
    await pool.close();
    await OpfsPool.destroy(path);
  });

  it('deletes a file whose making was cut off, and begins anew where a pool’s was', async () => {
    const path = fresh();
    const pool = await OpfsPool.init(path, { volumeSize: '2MiB' });
    await pool.createVolume('v', { size: '1MiB' });
    await pool.close();
    let directory = await navigator.storage.getDirectory();
    for (const part of path.split('/')) directory = await directory.getDirectoryHandle(part);
    for (const [name, sizeBytes] of [
      ['volume-0001-0123abcd.varve', 0],
      ['volume-0002-0123abcd.varve', 2 * MIB],
    ] as const) {
      await (await OpfsDevice.open(directory, name, { create: true, sizeBytes })).close();
    }
    equal((await files(path)).length, 3, 'files with those that were being made');
    await (await OpfsPool.open(path)).close();
    equal((await files(path)).length, 1, 'files after it was opened');
    await directory.getFileHandle('making', { create: true });
    equal(await OpfsPool.exists(path), false, 'a pool that was only being made is there');
    await failsWith('VARVE_NOT_FOUND', () => OpfsPool.open(path));
    const anew = await OpfsPool.init(path, { volumeSize: '2MiB' });
    equal(anew.volumes, [], 'volumes of the new one');
    await anew.close();
    equal((await files(path)).length, 1, 'files of the new one');
    await OpfsPool.destroy(path);
  });

  it('has one writer, and tells a second one VARVE_LOCKED', async () => {
    const path = fresh();
    const pool = await OpfsPool.init(path, { volumeSize: '2MiB' });
    await failsWith('VARVE_LOCKED', () => OpfsPool.open(`/${path}/`, { patienceMs: 0 }));
    await failsWith('VARVE_LOCKED', () => OpfsPool.open(path, { readOnly: true, patienceMs: 0 }));
    await failsWith('VARVE_LOCKED', () => OpfsPool.init(path, { patienceMs: 0 }));
    await failsWith('VARVE_LOCKED', () => OpfsPool.destroy(path));
    // A second one that has patience gets it when the first is gone.
    const later = OpfsPool.open(path);
    setTimeout(() => void pool.close(), 100);
    await (await later).close();
    await failsWith('VARVE_EXISTS', () => OpfsPool.init(path));
    await (await OpfsPool.open(path)).close();
    await OpfsPool.destroy(path);
    await failsWith('VARVE_NOT_FOUND', () => OpfsPool.open(path));
  });

  it('writes nothing more when its lock was stolen', async () => {
    const path = fresh();
    const pool = await OpfsPool.init(path, { volumeSize: '2MiB' });
    const volume = await pool.createVolume('v', { size: '4MiB' });
    await volume.write(0, noise(4096, 1));
    await volume.flush();
    await navigator.locks.request(lockName(path), { steal: true }, async () => {
      await new Promise((resolve) => setTimeout(resolve, 20));
      await volume.write(0, noise(4096, 2)).catch(() => undefined);
      await failsWith('VARVE_FENCED', () => volume.flush());
      await failsWith('VARVE_FENCED', () => pool.createVolume('w', { size: 4096 }));
    });
    await pool.close().catch(() => undefined);
    const again = await OpfsPool.open(path);
    const into = new Uint8Array(4096);
    await (await again.volume('v')).read(0, into);
    sameBytes(into, noise(4096, 1), 'what was flushed');
    await again.close();
    await OpfsPool.destroy(path);
  });

  it('replicates into a volume and restores a snapshot of it', async () => {
    const path = fresh();
    await using pool = await OpfsPool.init(path, { volumeSize: '4MiB' });
    const primary = new MemoryDevice('3MiB');
    await primary.write(MIB, noise(MIB, 5));
    const volume = await pool.createVolume('disk');
    await replicate(primary, volume, { snapshot: 'one' });
    await primary.write(0, noise(8192, 6));
    const result = await replicate(primary, volume, { snapshot: 'two' });
    equal(result.writtenBytes, 8192, 'written');
    const target = new MemoryDevice('3MiB');
    await restore(volume.at('two'), target);
    const [a, b] = [new Uint8Array(3 * MIB), new Uint8Array(3 * MIB)];
    await primary.read(0, a);
    await target.read(0, b);
    sameBytes(b, a, 'restored');
  });
});

serveTests();
