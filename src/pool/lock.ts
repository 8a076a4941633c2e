// One writer, or any number of readers, per pool and host (P8).
//
// The lock is `flock` on the pool's lock file (device/claim.ts says how): it goes when the process does, however that ends.
//
// A lock file that was deleted or replaced under us locks nobody out any more: another process locks the new file and writes.
// So each flush compares the inode at the path with the one that is held, and rejects with `VARVE_FENCED` when they differ.

import { closeSync, constants, fstatSync, lstatSync, openSync } from 'node:fs';
import { lockDescriptor, unlockDescriptor, type LockMode } from '../device/claim.ts';
import { errnoOf, failed } from '../device/file.ts';
import { isVarveError, messageOf, VarveError } from '../errors.ts';

/** Between opening a lock file and locking it somebody may delete it; that does not happen over and over. */
const ATTEMPTS_MAX = 8;
const RELEASED = -1;
const NEEDLESS = -2;

export class PoolLock {
  readonly path: string;
  readonly mode: LockMode;
  #descriptor: number;
  readonly #device: bigint;
  readonly #inode: bigint;

  private constructor(path: string, mode: LockMode, descriptor: number, device: bigint, inode: bigint) {
    this.path = path;
    this.mode = mode;
    this.#descriptor = descriptor;
    this.#device = device;
    this.#inode = inode;
  }

  /**
   * Takes the lock at once or not at all.
   *
   * @throws VarveError `VARVE_LOCKED` when it is held in a way that excludes this one; `VARVE_READ_ONLY`, `VARVE_NO_SPACE`, `VARVE_IO`
   */
  static acquire(path: string, mode: LockMode): PoolLock {
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
      const descriptor = openLockFile(path, mode);
      if (descriptor === undefined) return new PoolLock(path, mode, NEEDLESS, 0n, 0n);
      try {
        lock(path, mode, descriptor);
        const held = fstatSync(descriptor, { bigint: true });
        if (isAt(path, held.dev, held.ino)) return new PoolLock(path, mode, descriptor, held.dev, held.ino);
      } catch (error) {
        closeSync(descriptor);
        throw error;
      }
      closeSync(descriptor);
    }
    throw new VarveError('VARVE_LOCKED', `locking ${path}`, { detail: 'the lock file keeps being replaced' });
  }

  /** For children that go on when this process is killed: the lock is there until the last of them ends. */
  get descriptor(): number {
    return this.#descriptor;
  }

  /** @throws VarveError `VARVE_FENCED` when the file at the path is no longer the one that is locked. */
  check(): void {
    if (this.#descriptor === NEEDLESS) return;
    if (this.#descriptor === RELEASED)
      throw new VarveError('VARVE_FENCED', `checking the lock ${this.path}`, { detail: 'it was released' });
    if (!isAt(this.path, this.#device, this.#inode)) {
      throw new VarveError('VARVE_FENCED', `checking the lock ${this.path}`, {
        detail: 'the file was removed or replaced: another process may own the pool now',
      });
    }
  }

  /** Idempotent. */
  release(): void {
    if (this.#descriptor >= 0) {
      unlockDescriptor(this.#descriptor);
      closeSync(this.#descriptor);
    }
    this.#descriptor = RELEASED;
  }
}

/** @returns undefined when no lock is needed: on a file system that is read-only, where no writer has left one */
function openLockFile(path: string, mode: LockMode): number | undefined {
  const doing = `opening the lock file ${path}`;
  try {
    return openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW | constants.O_NONBLOCK, 0o600);
  } catch (error) {
    const errno = errnoOf(error);
    const mayRead = errno === 'EACCES' || errno === 'EROFS' || errno === 'EPERM';
    if (mode === 'exclusive' || !mayRead) throw refused(doing, error);
    try {
      return openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    } catch (cause) {
      if (errno === 'EROFS' && errnoOf(cause) === 'ENOENT') return undefined;
      throw new VarveError('VARVE_IO', doing, { detail: messageOf(cause), cause });
    }
  }
}

/** Permissions and room by their own codes; whatever else it is, a symbolic link say, there is no telling from here. */
function refused(doing: string, error: unknown): Error {
  const told = failed(doing, error);
  return isVarveError(told, 'VARVE_READ_ONLY') || isVarveError(told, 'VARVE_NO_SPACE')
    ? told
    : new VarveError('VARVE_IO', doing, { detail: messageOf(error), cause: error });
}

function lock(path: string, mode: LockMode, descriptor: number): void {
  if (!fstatSync(descriptor).isFile())
    throw new VarveError('VARVE_IO', `opening the lock file ${path}`, { detail: 'it is no regular file' });
  if (lockDescriptor(`locking ${path}`, descriptor, mode)) return;
  const how = mode === 'exclusive' ? '' : ' for writing';
  throw new VarveError('VARVE_LOCKED', `locking ${path}`, { detail: `the pool is open${how} already, in this process or another` });
}

function isAt(path: string, device: bigint, inode: bigint): boolean {
  try {
    const found = lstatSync(path, { bigint: true });
    return found.dev === device && found.ino === inode;
  } catch {
    return false;
  }
}
