// A pool in a directory: the embedded default.
//
//   lock                        held while the pool is open (lock.ts)
//   pool.json                   the pool's uuid and a cache of where its members are; rewritten after each commit that changes them
//   making                      there as long as `init` is at work, that is until there is a `pool.json`: what an `init` that was killed leaves is no pool
//   volume-0003-5fa0c2d1.varve  a storage volume made on demand, sparse: id and start of the device uuid
//
// `pool.json` is hostile input, and so is every label. A name in it is followed only if it has the form above; such a file is opened in the directory and
// never through a symbolic link. A path outside the directory is opened only when the caller names it: in this call, or when the pool was made. For the
// latter `pool.json` has the inode number of the directory in which it was written: a directory that was unpacked or copied from somewhere else does not
// have it, and whoever opens that one names the devices again. Whatever is opened must be a regular file or block device with the labels of this pool
// before anything is written to it.

import {
  closeSync,
  constants,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  statSync,
  unlinkSync,
} from 'node:fs';
import { basename, dirname, isAbsolute, join, resolve } from 'node:path';
import { errnoOf, failed, FileDevice, syncDirectory, syncMadeDirectories } from '../device/file.ts';
import type { StorageDevice, SyncStorageDevice } from '../device/device.ts';
import { openMemberDevice, type RawDevice } from '../device/raw.ts';
import { isVarveError, messageOf, VarveError } from '../errors.ts';
import type { MemberRecord } from './catalogue.ts';
import { FencedDevice } from './fenced.ts';
import { formatUuid, LABEL_BYTES } from './label.ts';
import { PoolLock } from './lock.ts';
import { isFileOfMember, MEMBER_FILE, memberFileName } from './member-file.ts';
import { createParts, openParts, type CreatePoolOptions, type PoolOptions } from './assemble.ts';
import type { FoundDevice, PoolPlace } from './place.ts';
import { StoragePool, type ReplaceResult } from './pool.ts';
import type { RaidLevel } from './raid.ts';
import { foreignSignature, UNKNOWN_DATA, UNKNOWN_DATA_AT_END, VARVE_SIGNATURE } from './signature.ts';

export interface InitPoolOptions extends Omit<CreatePoolOptions, 'provide' | 'readOnly'> {
  /** Regular files or block devices, each a storage volume. Without any, storage volumes are files made in the directory on demand. */
  readonly devices?: readonly string[] | undefined;
  /** Takes devices that have something on them. */
  readonly force?: boolean | undefined;
}

export interface AddDevicesOptions {
  readonly raid?: RaidLevel | undefined;
  readonly stripSize?: number | string | undefined;
  readonly force?: boolean | undefined;
}

export interface OpenPoolOptions extends PoolOptions {
  /** Devices outside of the pool's directory, where they are now. */
  readonly devices?: readonly string[] | undefined;
}

const CACHE_NAME = 'pool.json';
const LOCK_NAME = 'lock';
const MAKING_NAME = 'making';
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
/** 65534 members of 100 bytes; what is larger is none of ours. */
const CACHE_BYTES_MAX = 16 << 20;
const PATHS_MAX = 65536;

/** `StoragePool` of `varve/node`: a pool in a directory. */
export class DirectoryPool extends StoragePool {
  /**
   * Makes a pool in a directory, which is made if it is not there, and opens it.
   *
   * @throws VarveError `VARVE_EXISTS` when there is a pool, or something on a device (see `force`); `VARVE_LOCKED`, `VARVE_LIMIT`, `VARVE_NO_SPACE`,
   *   `VARVE_READ_ONLY`, `VARVE_IO`
   */
  static async init(path: string, options: InitPoolOptions = {}): Promise<DirectoryPool> {
    const doing = `making a pool in '${path}'`;
    const directory = resolve(path);
    // The first directory that was made for it, if one was: then nothing of a pool that could not be made needs to stay.
    let madeFrom: string | undefined;
    try {
      madeFrom = mkdirSync(directory, { recursive: true, mode: 0o700 });
    } catch (cause) {
      throw failed(doing, cause);
    }
    checkNoPool(directory, doing);
    let lock: PoolLock;
    try {
      lock = PoolLock.acquire(join(directory, LOCK_NAME), 'exclusive');
    } catch (error) {
      if (madeFrom !== undefined && !isVarveError(error, 'VARVE_LOCKED')) removeDirectories(directory, madeFrom);
      throw error;
    }
    try {
      checkNoPool(directory, doing);
    } catch (error) {
      // Somebody made one meanwhile, or nobody knows: nothing in it is ours to take away.
      lock.release();
      throw error;
    }
    const opened: SyncStorageDevice[] = [];
    const made: Made[] = [];
    try {
      beginMaking(directory, options.devices ?? []);
      const place = new DirectoryPlace(directory, lock, made);
      const found = await openGiven(place, options.devices ?? [], options.force, doing, opened);
      const parts = await createParts(place, found, options);
      syncMadeDirectories(directory, madeFrom);
      endMaking(directory);
      const pool = new DirectoryPool(parts, options);
      places.set(pool, place);
      return pool;
    } catch (error) {
      for (const device of [...opened, ...made.map((each) => each.device)]) await device.close().catch(() => undefined);
      try {
        for (const name of [...made.map((each) => each.name), CACHE_NAME, MAKING_NAME]) remove(join(directory, name));
        if (madeFrom !== undefined) removeDirectories(directory, madeFrom);
      } catch {
        // The error that is told is the first; what stays is taken for cut off by the next.
      } finally {
        lock.release();
      }
      throw failed(doing, error);
    }
  }

  /**
   * Opens the pool in a directory; for writing as its only user, for reading together with other readers.
   *
   * @throws VarveError `VARVE_NOT_FOUND`, `VARVE_LOCKED`, `VARVE_FENCED`, `VARVE_CORRUPT`, `VARVE_UNSUPPORTED`, `VARVE_IO`
   */
  static async open(path: string, options: OpenPoolOptions = {}): Promise<DirectoryPool> {
    const doing = `opening pool '${path}'`;
    const directory = resolve(path);
    if (!isPool(directory)) throw new VarveError('VARVE_NOT_FOUND', doing, { detail: 'there is no pool' });
    const readOnly = options.readOnly ?? false;
    const lock = PoolLock.acquire(join(directory, LOCK_NAME), readOnly ? 'shared' : 'exclusive');
    const place = new DirectoryPlace(directory, lock, undefined);
    const found: (FoundDevice & { readonly device: SyncStorageDevice })[] = [];
    const notes: string[] = [];
    let unopened: unknown;
    try {
      const cache = readCache(directory, notes);
      if (!readOnly) endMaking(directory);
      for (const file of findMembers(directory, cache, options.devices ?? [], notes)) {
        try {
          // A file system that needs no lock for the pool (nothing on it is written) needs none for its devices.
          const how = { readOnly, noFollow: file.inside, exclusive: !readOnly, lockFd: readOnly ? undefined : lock.descriptor };
          const device = await openMemberDevice(file.location, how, readOnly && lock.descriptor >= 0);
          found.push({ device: readOnly ? device : place.fenced(device), path: file.path });
        } catch (error) {
          if (isVarveError(error, 'VARVE_LOCKED')) throw error;
          if (!isAbsent(error)) {
            // Without it a pool that is written to would call it missing.
            if (!readOnly) throw error;
            unopened ??= error;
          }
          notes.push(messageOf(error));
        }
      }
      const labels = found.map((each) => ({ ...each, says: labelOf(each.device) }));
      // Of two copies of a member the first one counts.
      const ordered = [...labels.filter(hasItsName), ...labels.filter((each) => !hasItsName(each))];
      const parts = await openParts(place, ordered, options, poolIdOf(directory, cache, ordered, notes));
      const pool = new DirectoryPool({ ...parts, notes: [...notes, ...parts.notes] }, options);
      places.set(pool, place);
      try {
        await pool.settle();
      } catch (error) {
        await pool.close();
        throw error;
      }
      return pool;
    } catch (error) {
      for (const { device } of found) await device.close();
      lock.release();
      if (!isVarveError(error, 'VARVE_NOT_FOUND')) throw error;
      if (unopened !== undefined) throw unopened;
      if (notes.length === 0) throw error;
      const detail = `none of its storage devices was found; name them (\`devices\`, --device) where they are now. ${notes.join('; ')}`;
      throw new VarveError('VARVE_NOT_FOUND', doing, { detail, cause: error });
    }
  }

  override get path(): string {
    return super.path ?? '';
  }

  /** One more storage volume over files or block devices. @returns its id. @throws VarveError `VARVE_EXISTS` when there is something on one (see `force`) */
  async addDevices(paths: readonly string[], options: AddDevicesOptions = {}): Promise<number> {
    return this.#withDevices(paths, options, 'adding a storage volume', (devices) => this.addStorageVolume(devices, options));
  }

  /** A file or block device that takes the place of a member that is out (`only`: as in addSpare). */
  async addSpareDevice(
    path: string,
    options: { readonly force?: boolean | undefined; readonly only?: 'faulted' | undefined } = {},
  ): Promise<number> {
    return this.#withDevices([path], options, 'adding a spare', ([device]) => this.addSpare(device!, { only: options.only }));
  }

  /**
   * Puts a file or block device in the place of a member and fills it. The same path: what is there is made anew. No path: a file in the pool's
   * directory.
   * @returns what could not be filled
   */
  async replaceDevice(
    volumeId: number,
    member: string,
    path: string | undefined,
    options: { readonly force?: boolean | undefined; readonly onProgress?: ((done: number, total: number) => void) | undefined } = {},
  ): Promise<ReplaceResult> {
    const named = /^[0-9a-f]{8}-/.test(member) || MEMBER_FILE.test(member) ? member : resolve(member);
    const doing = 'replacing a member';
    if (path === undefined) {
      this.deviceOf(doing, volumeId, named); // before anything is made
      const made = await this.makeMember(volumeId);
      try {
        return await this.replaceMember(volumeId, named, made, options);
      } catch (error) {
        if (!this.holds(made.device)) {
          await made.device.close();
          remove(join(this.path, made.path!)); // no catalogue ever named it
        }
        throw error;
      }
    }
    let own: Own | undefined;
    if (resolve(path) === named || resolve(this.path, named) === resolve(path)) {
      // What the pool has open there is the member. What it has not may be anything, because names of devices move; without labels it may be the member still.
      const { uuid, isOpen } = this.deviceOf(doing, volumeId, named);
      if (isOpen) await this.faultMember(volumeId, named);
      own = async (device, signature) =>
        isOpen || signature === UNKNOWN_DATA || signature === UNKNOWN_DATA_AT_END || this.carries(device, uuid);
    }
    return this.#withDevices([path], options, doing, ([device]) => this.replaceMember(volumeId, named, device!, options), own);
  }

  /** Opens devices that are to join the pool; they are closed again when they do not. */
  async #withDevices<T>(
    paths: readonly string[],
    options: { readonly force?: boolean | undefined },
    doing: string,
    use: (devices: FoundDevice[]) => Promise<T>,
    own?: Own,
  ): Promise<T> {
    const place = places.get(this);
    if (place === undefined) throw new VarveError('VARVE_CLOSED', doing);
    for (const path of paths)
      if (this.isAt(resolve(path)))
        throw new VarveError('VARVE_EXISTS', doing, { detail: `'${path}' holds ${VARVE_SIGNATURE}: of this one` });
    const opened: SyncStorageDevice[] = [];
    let found: FoundDevice[] = [];
    try {
      found = await openGiven(place, paths, options.force, doing, opened, own);
      return await use(found);
    } catch (error) {
      // Those that joined before it failed are the pool's.
      if (found.length === 0) for (const device of opened) await device.close();
      for (const { device } of found) if (!this.holds(device)) await device.close();
      throw error;
    }
  }
}

/** Whether what is on a device is what the caller means to overwrite. */
type Own = (device: StorageDevice, signature: string) => Promise<boolean>;

/** Which pool stands where. */
const places = new WeakMap<DirectoryPool, DirectoryPlace>();

/** Opens devices that the caller names for a pool, as its only user, and refuses those that have something on them. */
async function openGiven(
  place: DirectoryPlace,
  paths: readonly string[],
  force: boolean | undefined,
  doing: string,
  opened: SyncStorageDevice[],
  own?: Own,
): Promise<FoundDevice[]> {
  const found: FoundDevice[] = [];
  for (const given of paths) {
    const where = resolve(given);
    if (found.some((other) => other.path === where)) throw new RangeError(`${doing}: device '${given}' is given twice`);
    const device = await openMemberDevice(where, { noFollow: false, exclusive: true });
    opened.push(device);
    if (force !== true) {
      const signature = await signatureAt(where, device);
      if (signature !== null && (await own?.(device, signature)) !== true)
        throw new VarveError('VARVE_EXISTS', doing, { detail: `'${given}' holds ${signature}` });
    }
    // One of the directory's own is kept by its name, as those that were made there.
    const inside = MEMBER_FILE.test(basename(where)) && dirname(where) === place.path;
    found.push({ device: place.fenced(device), path: inside ? basename(where) : where });
  }
  return found;
}

/** A device that is used in whole blocks of 4 KiB is looked at to its last byte: a table of partitions has its copy there. */
async function signatureAt(path: string, device: FileDevice | RawDevice): Promise<string | null> {
  if (device.kind === 'file') return foreignSignature(device);
  const whole = await FileDevice.open(path, { readOnly: true });
  try {
    return await foreignSignature(whole);
  } finally {
    await whole.close();
  }
}

interface Made {
  readonly name: string;
  readonly device: FileDevice;
}

class DirectoryPlace implements PoolPlace {
  readonly path: string;
  readonly #lock: PoolLock;
  /** Files made so far, for `init` to take them away again when it fails. */
  readonly #made: Made[] | undefined;
  #remembered = '';
  onLost: ((error: VarveError) => void) | undefined;

  constructor(directory: string, lock: PoolLock, made: Made[] | undefined) {
    this.path = directory;
    this.#lock = lock;
    this.#made = made;
  }

  async make(id: number, uuid: string, sizeBytes: number, prepare: (device: StorageDevice) => Promise<void>): Promise<FoundDevice> {
    const name = memberFileName(id, uuid);
    const how = { create: 'exclusive', sizeBytes, noFollow: true, lockFd: this.#lock.descriptor } as const;
    const device = await FileDevice.open(join(this.path, name), how);
    this.#made?.push({ name, device });
    try {
      await prepare(device);
      syncDirectory(this.path);
    } catch (error) {
      await device.close();
      remove(join(this.path, name));
      throw error;
    }
    return { device: this.fenced(device), path: name };
  }

  locate(path: string): string {
    return resolve(this.path, path);
  }

  owns(path: string | null): boolean {
    return path !== null && MEMBER_FILE.test(path);
  }

  async remove(path: string, uuid: string): Promise<void> {
    if (!isFileOfMember(path, uuid)) {
      throw new VarveError('VARVE_INTERNAL', `deleting '${path}'`, { detail: `it is not the file of device ${uuid}` });
    }
    remove(join(this.path, path));
    syncDirectory(this.path);
  }

  fenced(device: SyncStorageDevice): FencedDevice {
    return new FencedDevice(device, () => {
      const error = this.fence();
      if (error !== undefined) this.onLost?.(error);
      return error;
    });
  }

  fence(): VarveError | undefined {
    try {
      this.#lock.check();
      return undefined;
    } catch (error) {
      if (error instanceof VarveError) return error;
      throw error;
    }
  }

  async remember(pool: string, members: readonly MemberRecord[]): Promise<void> {
    const directoryInode = inodeOf(this.path);
    const text = `${JSON.stringify({ pool, directoryInode, members: members.map(({ uuid, path }) => ({ uuid, path })) }, null, 2)}\n`;
    if (text === this.#remembered) return;
    const target = join(this.path, CACHE_NAME);
    const temporary = `${target}.new`;
    remove(temporary);
    try {
      const bytes = new TextEncoder().encode(text);
      const file = FileDevice.openSync(temporary, { create: 'exclusive', sizeBytes: bytes.length, noFollow: true });
      try {
        file.writeSync(0, bytes);
        file.flushSync();
      } finally {
        file.closeSync();
      }
      renameSync(temporary, target);
    } catch (error) {
      remove(temporary);
      throw error;
    }
    syncDirectory(this.path);
    this.#remembered = text;
  }

  release(): void {
    this.#lock.release();
  }
}

interface Cache {
  readonly pool: string;
  readonly directoryInode: string;
  readonly paths: readonly string[];
}

/** What `pool.json` says, if it says something; a cache that is missing or spoilt costs its knowledge only. */
function readCache(directory: string, notes: string[]): Cache | undefined {
  const path = join(directory, CACHE_NAME);
  let text: string;
  try {
    const descriptor = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    try {
      const stat = fstatSync(descriptor);
      if (!stat.isFile() || stat.size > CACHE_BYTES_MAX) throw new Error('it is no file of a sensible size');
      text = readFileSync(descriptor, 'utf8');
    } finally {
      closeSync(descriptor);
    }
    const value: unknown = JSON.parse(text);
    if (typeof value !== 'object' || value === null) throw new Error('it is no object');
    const { pool, directoryInode, members } = value as { pool?: unknown; directoryInode?: unknown; members?: unknown };
    if (typeof pool !== 'string' || !UUID.test(pool)) throw new Error('it names no pool');
    if (!Array.isArray(members) || members.length > PATHS_MAX) throw new Error('it has no list of members');
    const paths: string[] = [];
    for (const member of members as unknown[]) {
      const where = typeof member === 'object' && member !== null ? (member as { path?: unknown }).path : undefined;
      if (typeof where === 'string' && where.length > 0 && where.length <= 4096 && !where.includes('\0')) paths.push(where);
    }
    return { pool, directoryInode: typeof directoryInode === 'string' ? directoryInode : '', paths };
  } catch (error) {
    notes.push(`${CACHE_NAME} is of no use (${messageOf(error)}); the directory is searched instead`);
    return undefined;
  }
}

/** What a front label says, for what decides nothing about what is written: its checksum is not looked at. */
interface Said {
  readonly pool: string;
  readonly device: string;
}

interface Labelled extends FoundDevice {
  readonly says: Said | undefined;
}

const LABEL_MAGIC = 'VARVELBL';
const LABEL_POOL_AT = 48;
const LABEL_DEVICE_AT = 64;

function labelOf(device: SyncStorageDevice): Said | undefined {
  const label = new Uint8Array(LABEL_BYTES);
  try {
    device.readSync(0, label);
  } catch {
    return undefined; // opening the pool says what is wrong
  }
  if (Buffer.from(label.buffer, 0, LABEL_MAGIC.length).toString('latin1') !== LABEL_MAGIC) return undefined;
  const uuidAt = (at: number): string => formatUuid(label.subarray(at, at + 16));
  return { pool: uuidAt(LABEL_POOL_AT), device: uuidAt(LABEL_DEVICE_AT) };
}

function hasItsName({ path, says }: Labelled): boolean {
  return path !== null && says !== undefined && isFileOfMember(path, says.device);
}

/**
 * The pool that is meant: that of `pool.json`, unless all that is in the directory is another one's. Where devices outside were named for this directory, they may
 * be what is missing.
 */
function poolIdOf(directory: string, cache: Cache | undefined, devices: readonly Labelled[], notes: string[]): string | undefined {
  if (cache === undefined) return undefined;
  const inside = devices.filter(({ path }) => path !== null && MEMBER_FILE.test(path));
  const outside = isOf(directory, cache) && cache.paths.some((path) => isAbsolute(path));
  if (
    inside.length === 0 ||
    outside ||
    inside.some(({ says }) => says === undefined) ||
    devices.some(({ says }) => says?.pool === cache.pool)
  )
    return cache.pool;
  notes.push(`${CACHE_NAME} names pool ${cache.pool}, of which there is nothing here; left alone`);
  return undefined;
}

/** Was it written in this directory? */
function isOf(directory: string, cache: Cache): boolean {
  return cache.directoryInode === inodeOf(directory);
}

interface Candidate {
  /** As the catalogue keeps it. */
  readonly path: string;
  /** To open. */
  readonly location: string;
  readonly inside: boolean;
}

/** What may be a member: every file of the right name in the directory, what the caller names, and what the caller named when the pool was made. */
function findMembers(directory: string, cache: Cache | undefined, named: readonly string[], notes: string[]): Candidate[] {
  const found = new Map<string, Candidate>();
  for (const name of readdirSync(directory)) {
    if (MEMBER_FILE.test(name)) found.set(name, { path: name, location: join(directory, name), inside: true });
  }
  for (const path of named) {
    const location = resolve(path);
    found.set(location, { path: location, location, inside: false });
  }
  const trusted = cache !== undefined && isOf(directory, cache);
  for (const path of cache?.paths ?? []) {
    if (found.has(path) || MEMBER_FILE.test(path)) continue;
    if (!isAbsolute(path))
      notes.push(`${CACHE_NAME} names ${JSON.stringify(path)}, which is no storage volume of this directory; left alone`);
    else if (!trusted)
      notes.push(
        `${CACHE_NAME} names ${JSON.stringify(path)}, and was not written in this directory; name the device yourself if it is yours`,
      );
    else found.set(path, { path, location: path, inside: false });
  }
  return [...found.values()];
}

/** What says of a path that there is no device of a pool, now: nothing, something else, or one that does not answer. */
const ABSENCE: ReadonlySet<string> = new Set(['ENOENT', 'ENOTDIR', 'ENXIO', 'ENODEV', 'ENOMEDIUM', 'EIO', 'ELOOP', 'EISDIR']);

/** Is there no device? There may be one that this process may not open, or not now (EACCES, EMFILE). */
function isAbsent(error: unknown): boolean {
  const errno = errnoOf(error instanceof VarveError ? error.cause : error);
  return errno === undefined ? isVarveError(error, 'VARVE_UNSUPPORTED') : ABSENCE.has(errno);
}

/** What says that there is no directory at a path. ENAMETOOLONG: none can be, as at POOL/VOLUME with a name that is no file's. */
const NO_DIRECTORY: ReadonlySet<string | undefined> = new Set(['ENOENT', 'ENOTDIR', 'ENAMETOOLONG']);

/**
 * Does the directory hold a pool, as far as names can tell?
 *
 * @throws VarveError `VARVE_IO` when it is there and cannot be read: that is not to be taken for none
 */
export function isPool(directory: string): boolean {
  let names: string[];
  try {
    names = readdirSync(directory);
  } catch (cause) {
    if (NO_DIRECTORY.has(errnoOf(cause))) return false;
    throw new VarveError('VARVE_IO', `looking for a pool in '${directory}'`, { detail: messageOf(cause), cause });
  }
  return names.includes(CACHE_NAME) || (!names.includes(MAKING_NAME) && names.some((name) => MEMBER_FILE.test(name)));
}

/** @throws VarveError `VARVE_EXISTS`; `VARVE_IO` when it cannot be told */
export function checkNoPool(directory: string, doing: string): void {
  if (isPool(directory)) throw new VarveError('VARVE_EXISTS', doing, { detail: 'there is a pool already' });
}

/** Is it one of the files that a pool's directory has beside storage volumes? */
export function isPoolFile(path: string): boolean {
  const names: readonly string[] = [LOCK_NAME, CACHE_NAME, `${CACHE_NAME}.new`, MAKING_NAME];
  return names.includes(basename(path)) && isPool(dirname(path));
}

/** Says that a pool is being made, durably, before there is any of it; takes away what an `init` that was killed has left. The caller has the lock. */
function beginMaking(directory: string, devices: readonly string[]): void {
  const marker = join(directory, MAKING_NAME);
  const given = new Set(devices.map((device) => resolve(device)));
  for (const name of readdirSync(directory)) {
    const path = join(directory, name);
    if (MEMBER_FILE.test(name) && !given.has(path)) remove(path);
  }
  remove(marker);
  closeSync(openSync(marker, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW, 0o600));
  syncDirectory(directory);
}

/**
 * The pool is made: durably, before anything is kept in it. An `init` that a crash stopped right before this leaves it to the next open, or one day a pool that lost its
 * `pool.json` would be taken for the rest of a cut-off one.
 */
function endMaking(directory: string): void {
  if (!readdirSync(directory).includes(MAKING_NAME)) return;
  remove(join(directory, MAKING_NAME));
  syncDirectory(directory);
}

/** Takes away the lock file and, from the innermost on, the directories that were made; one that is not empty stays. */
function removeDirectories(directory: string, outermost: string): void {
  try {
    remove(join(directory, LOCK_NAME));
    for (let at = directory; at.length >= outermost.length; at = dirname(at)) rmdirSync(at);
  } catch {
    // somebody has put something into it
  }
}

/** Of the directory itself, also where a symbolic link leads to it. */
function inodeOf(directory: string): string {
  return String(statSync(directory, { bigint: true }).ino);
}

function remove(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}
