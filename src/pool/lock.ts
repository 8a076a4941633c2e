// One writer, or any number of readers, per pool and host (P8).
//
// The lock is `flock` on the pool's lock file. Node has no call for it, so a child `flock` takes it on a descriptor that it
// inherits: the lock belongs to the open file that both share, stays when the child exits, and goes when this process does,
// however it ends. It is never taken by time-out.
//
// A lock file that was deleted or replaced under us locks nobody out any more: another process locks the new file and writes.
// So each flush compares the inode at the path with the one that is held, and rejects with `VARVE_FENCED` when they differ.

import { spawnSync } from 'node:child_process';
import { closeSync, constants, fstatSync, lstatSync, openSync } from 'node:fs';
import { messageOf, VarveError } from '../errors.ts';

export type LockMode = 'exclusive' | 'shared';

/** Between opening a lock file and locking it somebody may delete it; that does not happen over and over. */
const ATTEMPTS_MAX = 8;

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
   * @throws VarveError `VARVE_LOCKED` when it is held in a way that excludes this one.
   */
  static acquire(path: string, mode: LockMode): PoolLock {
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
      const descriptor = openLockFile(path, mode);
      try {
        lockDescriptor(path, mode, descriptor);
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

  /** @throws VarveError `VARVE_FENCED` when the file at the path is no longer the one that is locked. */
  check(): void {
    if (this.#descriptor === -1) throw new VarveError('VARVE_FENCED', `checking the lock ${this.path}`, { detail: 'it was released' });
    if (!isAt(this.path, this.#device, this.#inode)) {
      throw new VarveError('VARVE_FENCED', `checking the lock ${this.path}`, {
        detail: 'the file was removed or replaced: another process may own the pool now',
      });
    }
  }

  /** Idempotent. */
  release(): void {
    if (this.#descriptor === -1) return;
    closeSync(this.#descriptor);
    this.#descriptor = -1;
  }
}

function openLockFile(path: string, mode: LockMode): number {
  try {
    return openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW | constants.O_NONBLOCK, 0o600);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (mode === 'shared' && (code === 'EACCES' || code === 'EROFS' || code === 'EPERM')) {
      try {
        return openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
      } catch (cause) {
        throw new VarveError('VARVE_IO', `opening the lock file ${path}`, { detail: messageOf(cause), cause });
      }
    }
    throw new VarveError('VARVE_IO', `opening the lock file ${path}`, { detail: messageOf(error), cause: error });
  }
}

function lockDescriptor(path: string, mode: LockMode, descriptor: number): void {
  if (!fstatSync(descriptor).isFile())
    throw new VarveError('VARVE_IO', `opening the lock file ${path}`, { detail: 'it is no regular file' });
  // The child sees our descriptor as its descriptor 3.
  const child = spawnSync('flock', ['-n', mode === 'exclusive' ? '-x' : '-s', '3'], { stdio: ['ignore', 'ignore', 'pipe', descriptor] });
  if (child.error !== undefined) {
    const detail = 'cannot run `flock` (a part of util-linux), which holds the pool against other processes';
    throw new VarveError('VARVE_UNSUPPORTED', `locking ${path}`, { detail, cause: child.error });
  }
  if (child.status === 0) return;
  if (child.status === 1) {
    const detail = mode === 'exclusive' ? 'another process has the pool open' : 'another process has the pool open for writing';
    throw new VarveError('VARVE_LOCKED', `locking ${path}`, { detail });
  }
  throw new VarveError('VARVE_IO', `locking ${path}`, {
    detail: `\`flock\` failed: ${String(child.stderr).trim() || `status ${child.status}, signal ${child.signal}`}`,
  });
}

function isAt(path: string, device: bigint, inode: bigint): boolean {
  try {
    const found = lstatSync(path, { bigint: true });
    return found.dev === device && found.ino === inode;
  } catch {
    return false;
  }
}
