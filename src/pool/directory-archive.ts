// A pool directory as a stream, and back: what a browser exported, for Node, Deno and Bun, and the other way.

import { mkdirSync, mkdtempSync, renameSync, rmSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { FileDevice, syncDirectory, syncMadeDirectories } from '../device/file.ts';
import { messageOf, VarveError } from '../errors.ts';
import { archiveStream, readArchive } from './archive.ts';
import { checkNoPool, DirectoryPool } from './directory.ts';
import { MEMBER_FILE } from './member-file.ts';

/** Zeros of this length are not written: the file stays sparse there. */
const HOLE_BYTES = 65536;

/**
 * The pool in a directory as a tar archive. It is held against writers until the stream has ended or was cancelled.
 * @throws VarveError VARVE_NOT_FOUND, VARVE_LOCKED, VARVE_UNSUPPORTED when it has devices outside of its directory
 */
export async function exportPool(path: string): Promise<ReadableStream<Uint8Array<ArrayBuffer>>> {
  const doing = `exporting pool '${path}'`;
  const directory = resolve(path);
  const pool = await DirectoryPool.open(directory, { readOnly: true });
  const devices: FileDevice[] = [];
  const done = async (): Promise<void> => {
    for (const device of devices) await device.close();
    await pool.close();
  };
  try {
    const { storageVolumes } = await pool.status();
    const files = [];
    for (const { path: location } of storageVolumes.flatMap((volume) => volume.devices)) {
      const name = location?.slice(directory.length + 1) ?? '';
      if (location === null || dirname(location) !== directory || !MEMBER_FILE.test(name)) {
        throw new VarveError('VARVE_UNSUPPORTED', doing, { detail: `its device '${location ?? ''}' is no file of the pool's directory` });
      }
      const device = await FileDevice.open(location, { readOnly: true, noFollow: true });
      devices.push(device);
      files.push({ name, sizeBytes: device.sizeBytes, read: (offset: number, into: Uint8Array) => device.read(offset, into) });
    }
    return archiveStream('pool', { pool: pool.id }, files, done);
  } catch (error) {
    await done();
    throw error;
  }
}

/**
 * Makes a directory with the pool of an archive in it. It is there whole, or not at all.
 * @throws VarveError VARVE_EXISTS, VARVE_CORRUPT, VARVE_UNSUPPORTED, VARVE_NO_SPACE, VARVE_IO
 */
export async function importPool(path: string, stream: ReadableStream<Uint8Array>): Promise<void> {
  const doing = `importing a pool into '${path}'`;
  const directory = resolve(path);
  try {
    checkNoPool(directory, doing);
  } catch (error) {
    await stream.cancel();
    throw error;
  }
  // Under another name until all of it is there and its checksums held.
  let making: string | undefined;
  let device: FileDevice | undefined;
  try {
    const above = dirname(directory);
    syncMadeDirectories(above, mkdirSync(above, { recursive: true, mode: 0o700 }));
    // A new one each time: what an import that was killed has left is none of this one's.
    const made = mkdtempSync(`${directory}.importing-`);
    making = made;
    await readArchive(stream, {
      begin: ({ kind, files }) => {
        const strange = files.find((file) => !MEMBER_FILE.test(file.name));
        if (kind !== 'pool' || files.length === 0) {
          throw new VarveError('VARVE_UNSUPPORTED', doing, { detail: `expected the archive of a pool, got that of a ${kind}` });
        }
        if (strange !== undefined) throw new VarveError('VARVE_CORRUPT', doing, { detail: `'${strange.name}' is no storage volume` });
        return Promise.resolve();
      },
      file: async (name, sizeBytes) => {
        const target = await FileDevice.open(join(made, name), { create: 'exclusive', sizeBytes, noFollow: true });
        device = target;
        return {
          write: async (offset, bytes) => {
            for (let at = 0; at < bytes.length; at += HOLE_BYTES) {
              const part = bytes.subarray(at, at + HOLE_BYTES);
              if (part.some((byte) => byte !== 0)) await target.write(offset + at, part);
            }
          },
          end: async () => {
            await target.flush();
            await target.close();
          },
        };
      },
    });
    syncDirectory(made);
    renameSync(made, directory);
    syncDirectory(above);
  } catch (cause) {
    await device?.close();
    if (making !== undefined) rmSync(making, { recursive: true, force: true });
    if (cause instanceof VarveError || cause instanceof TypeError) throw cause;
    throw new VarveError('VARVE_IO', doing, { detail: messageOf(cause), cause });
  }
}
