// A pool in the origin private file system as a stream, and back. In a dedicated worker, under the pool's lock; pages go through `connect` (client.ts).

import { VarveError } from '../errors.ts';
import { OpfsDevice } from '../device/opfs.ts';
import { archiveStream, readArchive } from '../pool/archive.ts';
import { MEMBER_FILE } from '../pool/member-file.ts';
import { beginMaking, endMaking, holdsPool, memberFiles, normalPath, openDirectory, removeFile } from './directory.ts';
import { OriginLock } from './lock.ts';
import { lockName, OPFS_FILES_MAX, PATIENCE_MS } from './pool.ts';

/**
 * The pool as a tar archive. It is held against everybody else until the stream has ended or was cancelled.
 * @throws VarveError VARVE_NOT_FOUND, VARVE_LOCKED, VARVE_UNSUPPORTED
 */
export async function exportPool(path: string): Promise<ReadableStream<Uint8Array<ArrayBuffer>>> {
  const normal = normalPath(path);
  const lock = await OriginLock.acquire(lockName(normal), 'exclusive', PATIENCE_MS);
  try {
    return await exportHeld(normal, () => lock.release());
  } catch (error) {
    await lock.release();
    throw error;
  }
}

/** As `exportPool`, of a pool that is closed, under a lock that is held already. */
export async function exportHeld(path: string, done: () => Promise<void>): Promise<ReadableStream<Uint8Array<ArrayBuffer>>> {
  const directory = await openDirectory(path, false);
  if (directory === undefined || !(await holdsPool(directory))) {
    throw new VarveError('VARVE_NOT_FOUND', `exporting pool '${path}'`, { detail: 'there is no pool' });
  }
  const devices: OpfsDevice[] = [];
  const close = async (): Promise<void> => {
    const ends = await Promise.allSettled(devices.map((device) => device.close()));
    for (const end of ends) if (end.status === 'rejected') throw end.reason;
  };
  try {
    for (const name of await memberFiles(directory)) devices.push(await OpfsDevice.open(directory, name, { readOnly: true }));
  } catch (error) {
    await close();
    throw error;
  }
  return archiveStream('pool', {}, devices, async () => {
    try {
      await close();
    } finally {
      await done();
    }
  });
}

/**
 * Makes a pool out of an archive. It is there whole, or not at all.
 * @throws VarveError VARVE_EXISTS, VARVE_LOCKED, VARVE_CORRUPT, VARVE_UNSUPPORTED, VARVE_LIMIT, VARVE_NO_SPACE
 */
export async function importPool(path: string, stream: ReadableStream<Uint8Array>): Promise<void> {
  const normal = normalPath(path);
  const doing = `importing a pool into '${normal}'`;
  let lock: OriginLock | undefined;
  try {
    lock = await OriginLock.acquire(lockName(normal), 'exclusive', PATIENCE_MS);
    const directory = await openDirectory(normal, true);
    if (directory === undefined) throw new VarveError('VARVE_INTERNAL', doing);
    if (await holdsPool(directory)) throw new VarveError('VARVE_EXISTS', doing, { detail: 'there is a pool already' });
    await beginMaking(directory);
    for (const name of await memberFiles(directory)) await removeFile(directory, name);
    let device: OpfsDevice | undefined;
    try {
      await readArchive(stream, {
        begin: ({ kind, files }) => {
          const strange = files.find((file) => !MEMBER_FILE.test(file.name));
          if (kind !== 'pool' || files.length === 0) {
            throw new VarveError('VARVE_UNSUPPORTED', doing, { detail: `expected the archive of a pool, got that of a ${kind}` });
          }
          if (strange !== undefined) throw new VarveError('VARVE_CORRUPT', doing, { detail: `'${strange.name}' is no storage volume` });
          if (files.length > OPFS_FILES_MAX) {
            throw new VarveError('VARVE_LIMIT', doing, {
              detail: `it has ${files.length} storage volumes, a browser's pool at most ${OPFS_FILES_MAX}`,
            });
          }
          return Promise.resolve();
        },
        file: async (name, sizeBytes) => {
          const target = await OpfsDevice.open(directory, name, { create: 'exclusive', sizeBytes });
          device = target;
          return {
            write: (offset, bytes) => target.write(offset, bytes),
            end: async () => {
              await target.flush();
              await target.close();
            },
          };
        },
      });
      await endMaking(directory);
    } catch (error) {
      await device?.close();
      for (const name of await memberFiles(directory)) await removeFile(directory, name);
      await endMaking(directory);
      throw error;
    }
  } catch (error) {
    await stream.cancel(error).catch(() => undefined); // the reader of an archive has cancelled it already
    throw error;
  } finally {
    await lock?.release();
  }
}
