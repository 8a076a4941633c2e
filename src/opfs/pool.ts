// A pool in a directory of the origin private file system: in one dedicated worker, held against the rest of the origin by a Web Lock.
//
//   volume-0003-5fa0c2d1.varve   a storage volume, made on demand at its full size (a sparse file is charged in full anyway), deleted when it is empty
//
//   making                       is there only while the pool is being made
//
// There is no cache of paths: the directory is listed. Storage volumes are few and not small, because a browser has a bound on open handles (from 250 on)
// and because each is charged to the quota as a whole from the moment it is made. One file more than the pool may have exists for a moment when the last
// storage volumes are exchanged for an empty one.

import { isVarveError, messageOf, VarveError } from '../errors.ts';
import type { StorageDevice } from '../device/device.ts';
import { OpfsDevice } from '../device/opfs.ts';
import { createParts, openParts, type CreatePoolOptions, type PoolOptions } from '../pool/assemble.ts';
import { FencedDevice } from '../pool/fenced.ts';
import { isFileOfMember, MEMBER_FILE, memberFileName } from '../pool/member-file.ts';
import type { FoundDevice, PoolPlace, PoolQuota } from '../pool/place.ts';
import { StoragePool } from '../pool/pool.ts';
import { isBlank } from '../pool/blank.ts';
import { beginMaking, endMaking, holdsPool, memberFiles, normalPath, openDirectory, removeFile } from './directory.ts';
import { OriginLock } from './lock.ts';

export interface InitOpfsPoolOptions extends Omit<CreatePoolOptions, 'provide' | 'readOnly'> {
  /** Bytes of each storage volume; default 64 MiB. */
  readonly volumeSize?: number | string | undefined;
  /** Most storage volumes that the pool may have, 1 … 63; default 63. */
  readonly maxVolumes?: number | undefined;
  /** How long to wait for somebody else's lock before VARVE_LOCKED, milliseconds; default 5000. */
  readonly patienceMs?: number | undefined;
}

export interface OpenOpfsPoolOptions extends PoolOptions {
  /** How long to wait for somebody else's lock before VARVE_LOCKED, milliseconds; default 5000. */
  readonly patienceMs?: number | undefined;
}

export const OPFS_FILES_MAX = 64;
const MAX_VOLUMES = OPFS_FILES_MAX - 1;
const DEFAULT_VOLUME_BYTES = 64 << 20;
/** Chromium gives a worker that is terminated in the middle of a loop two seconds to come to an end, and only then ends it, and its locks. */
export const PATIENCE_MS = 5000;

/** The Web Lock that whoever writes to the pool at this path holds. */
export function lockName(path: string): string {
  return `varve:pool:${path}`;
}

/** `StoragePool` of `varve/opfs`. For pages, and for more than one tab: `connect`. */
export class OpfsPool extends StoragePool {
  /**
   * Makes a pool in a directory of the origin private file system, which is made if it is not there, and opens it. Only in a dedicated worker.
   *
   * @throws VarveError VARVE_EXISTS, VARVE_LOCKED, VARVE_NO_SPACE, VARVE_UNSUPPORTED, VARVE_IO
   */
  static async init(path: string, options: InitOpfsPoolOptions = {}): Promise<OpfsPool> {
    const normal = normalPath(path);
    const lock = await OriginLock.acquire(lockName(normal), 'exclusive', options.patienceMs ?? PATIENCE_MS);
    try {
      return await OpfsPool.initHeld(normal, lock, options, () => lock.release());
    } catch (error) {
      await lock.release();
      throw error;
    }
  }

  /**
   * Opens the pool in a directory of the origin private file system. Only in a dedicated worker.
   *
   * @throws VarveError VARVE_NOT_FOUND, VARVE_LOCKED, VARVE_FENCED, VARVE_CORRUPT, VARVE_UNSUPPORTED, VARVE_IO
   */
  static async open(path: string, options: OpenOpfsPoolOptions = {}): Promise<OpfsPool> {
    const normal = normalPath(path);
    const lock = await OriginLock.acquire(
      lockName(normal),
      options.readOnly === true ? 'shared' : 'exclusive',
      options.patienceMs ?? PATIENCE_MS,
    );
    try {
      return await OpfsPool.openHeld(normal, lock, options, () => lock.release());
    } catch (error) {
      await lock.release();
      throw error;
    }
  }

  /** Is there a pool, as far as names can tell? Anywhere, not only in workers. */
  static async exists(path: string): Promise<boolean> {
    const directory = await openDirectory(path, false);
    return directory !== undefined && (await holdsPool(directory));
  }

  /**
   * Deletes a pool with everything in it. Anywhere, not only in workers.
   * @throws VarveError VARVE_LOCKED while somebody has it open
   */
  static async destroy(path: string): Promise<void> {
    const normal = normalPath(path);
    // It is free a moment after whoever had it has said so.
    const lock = await OriginLock.acquire(lockName(normal), 'exclusive', 1000);
    try {
      const directory = await openDirectory(normal, false);
      if (directory === undefined) return;
      // What is left when it is cut off in the middle is no pool. One of which nothing could be deleted is one still.
      const whole = await holdsPool(directory);
      const names = await memberFiles(directory);
      await beginMaking(directory).catch(() => undefined); // no room for it is no reason to keep the pool
      let deleted = 0;
      try {
        for (const name of names) {
          await removeFile(directory, name);
          deleted++;
        }
      } finally {
        if (deleted === names.length || (deleted === 0 && whole)) await endMaking(directory);
      }
    } finally {
      await lock.release();
    }
  }

  /** As `init`, under a lock that is held already. `closed` is called when the pool has closed everything. @internal */
  static async initHeld(
    path: string,
    lock: OriginLock,
    options: InitOpfsPoolOptions,
    closed: () => Promise<void> = nothing,
  ): Promise<OpfsPool> {
    const doing = `making a pool in '${path}'`;
    const maxVolumes = options.maxVolumes ?? MAX_VOLUMES;
    if (!Number.isInteger(maxVolumes) || maxVolumes < 1 || maxVolumes > MAX_VOLUMES) {
      throw new RangeError(`maxVolumes: expected a whole number from 1 to ${MAX_VOLUMES}, got ${maxVolumes}`);
    }
    const directory = await openDirectory(path, true);
    if (directory === undefined) throw new VarveError('VARVE_INTERNAL', doing);
    if (await holdsPool(directory)) throw new VarveError('VARVE_EXISTS', doing, { detail: 'there is a pool already' });
    await beginMaking(directory);
    for (const name of await memberFiles(directory)) await removeFile(directory, name);
    const place = new OpfsPlace(path, directory, lock, closed);
    try {
      const parts = await createParts(place, [], { ...options, volumeSize: options.volumeSize ?? DEFAULT_VOLUME_BYTES, maxVolumes });
      await endMaking(directory);
      return new OpfsPool(parts, options);
    } catch (error) {
      await place.closeAll();
      for (const name of await memberFiles(directory)) await removeFile(directory, name);
      await endMaking(directory);
      throw error;
    }
  }

  /** As `open`, under a lock that is held already. `closed` is called when the pool has closed everything. @internal */
  static async openHeld(
    path: string,
    lock: OriginLock,
    options: OpenOpfsPoolOptions,
    closed: () => Promise<void> = nothing,
  ): Promise<OpfsPool> {
    const doing = `opening pool '${path}'`;
    const readOnly = options.readOnly ?? false;
    const directory = await openDirectory(path, false);
    if (directory === undefined || !(await holdsPool(directory)))
      throw new VarveError('VARVE_NOT_FOUND', doing, { detail: 'there is no pool' });
    const names = await memberFiles(directory);
    if (names.length > OPFS_FILES_MAX) {
      throw new VarveError('VARVE_LIMIT', doing, {
        detail: `it has ${names.length} storage volumes, a browser's pool has at most ${OPFS_FILES_MAX}`,
      });
    }
    const place = new OpfsPlace(path, directory, lock, closed);
    const found: FoundDevice[] = [];
    const notes: string[] = [];
    try {
      for (const name of names) {
        try {
          found.push({ device: await place.open(name, readOnly), path: name });
        } catch (error) {
          if (isVarveError(error, 'VARVE_LOCKED') || isVarveError(error, 'VARVE_UNSUPPORTED')) throw error;
          notes.push(messageOf(error));
        }
      }
      const blank = readOnly ? [] : await blankFiles(found);
      const parts = await openParts(place, found, options);
      const pool = new OpfsPool({ ...parts, notes: [...notes, ...parts.notes] }, options);
      // Labels come before the catalogue's word, so a file that has none was being made when its worker ended. Each costs quota and one of few files.
      const named = new Set(parts.catalogue.storageVolumes.flatMap((volume) => volume.devices.map((device) => device.path)));
      for (const name of blank) if (!named.has(name)) await removeFile(directory, name);
      await pool.settle();
      return pool;
    } catch (error) {
      await place.closeAll();
      throw error;
    }
  }

  override get path(): string {
    return super.path ?? '';
  }
}

const nothing = (): Promise<void> => Promise.resolve();

/** Files with nothing in them where labels are. */
async function blankFiles(found: readonly FoundDevice[]): Promise<string[]> {
  const blank: string[] = [];
  for (const { device, path } of found) if (path !== null && (await isBlank(device))) blank.push(path);
  return blank;
}

class OpfsPlace implements PoolPlace {
  readonly path: string;
  readonly #directory: FileSystemDirectoryHandle;
  readonly #lock: OriginLock;
  readonly release: () => Promise<void>;
  readonly #devices = new Set<OpfsDevice>();
  onLost: ((error: VarveError) => void) | undefined;

  constructor(path: string, directory: FileSystemDirectoryHandle, lock: OriginLock, closed: () => Promise<void>) {
    this.release = closed;
    this.path = path;
    this.#directory = directory;
    this.#lock = lock;
  }

  async open(name: string, readOnly: boolean): Promise<StorageDevice> {
    const device = await OpfsDevice.open(this.#directory, name, { readOnly });
    this.#devices.add(device);
    return readOnly ? device : this.#fenced(device);
  }

  async make(id: number, uuid: string, sizeBytes: number, prepare: (device: StorageDevice) => Promise<void>): Promise<FoundDevice> {
    const name = memberFileName(id, uuid);
    const doing = `making storage volume ${id} of pool '${this.path}'`;
    if ((await memberFiles(this.#directory)).length >= OPFS_FILES_MAX) {
      throw new VarveError('VARVE_NO_SPACE', doing, { detail: `a pool has at most ${OPFS_FILES_MAX} files in a browser` });
    }
    let device: OpfsDevice | undefined;
    try {
      device = await OpfsDevice.open(this.#directory, name, { create: 'exclusive', sizeBytes });
      await prepare(device);
    } catch (error) {
      await device?.close();
      await removeFile(this.#directory, name);
      throw error;
    }
    this.#devices.add(device);
    return { device: this.#fenced(device), path: name };
  }

  owns(path: string | null): boolean {
    return path !== null && MEMBER_FILE.test(path);
  }

  async remove(path: string, uuid: string): Promise<void> {
    if (!isFileOfMember(path, uuid)) {
      throw new VarveError('VARVE_INTERNAL', `deleting '${path}'`, { detail: `it is not the file of device ${uuid}` });
    }
    await removeFile(this.#directory, path);
  }

  fence(): VarveError | undefined {
    return this.#lock.lost;
  }

  async quota(): Promise<PoolQuota> {
    const { storage } = globalThis.navigator;
    const { usage = 0, quota = 0 } = await storage.estimate();
    return { usageBytes: usage, quotaBytes: quota, persisted: (await storage.persisted?.()) ?? false };
  }

  async closeAll(): Promise<void> {
    // All of them, whatever becomes of one.
    const closed = await Promise.allSettled(Array.from(this.#devices, (device) => device.close()));
    for (const each of closed) if (each.status === 'rejected') throw each.reason;
  }

  #fenced(device: OpfsDevice): StorageDevice {
    return new FencedDevice(device, () => {
      const error = this.fence();
      if (error !== undefined) this.onLost?.(error);
      return error;
    });
  }
}
