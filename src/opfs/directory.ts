// Directories of the origin private file system, by paths such as `app` or `app/backups`, and what of a pool is in them.

import { failed, patiently } from '../device/opfs.ts';
import { VarveError } from '../errors.ts';
import { MEMBER_FILE } from '../pool/member-file.ts';

/** What TypeScript's types of pages leave out in some versions. */
type Entries = FileSystemDirectoryHandle & { keys(): AsyncIterableIterator<string> };

/** The parts of a path. @throws RangeError when it is none */
export function pathParts(path: string): string[] {
  const parts = path.split('/').filter((part) => part !== '');
  if (parts.length === 0 || parts.some((part) => part === '.' || part === '..' || part.includes('\0'))) {
    throw new RangeError(`path of a pool: expected names divided by '/', got '${path}'`);
  }
  return parts;
}

/** The path in the one form that names its locks: the same pool is never two. */
export function normalPath(path: string): string {
  return pathParts(path).join('/');
}

/** @returns undefined when it is not there and not to be made. @throws VarveError VARVE_UNSUPPORTED, VARVE_IO */
export async function openDirectory(path: string, create: boolean): Promise<FileSystemDirectoryHandle | undefined> {
  const doing = `opening directory '${path}' of the origin private file system`;
  const storage = (globalThis.navigator as Navigator | undefined)?.storage;
  if (typeof storage?.getDirectory !== 'function') {
    throw new VarveError('VARVE_UNSUPPORTED', doing, {
      detail: 'there is none here: expected a browser and a secure context (https or localhost)',
    });
  }
  try {
    let directory = await storage.getDirectory();
    for (const part of pathParts(path)) directory = await directory.getDirectoryHandle(part, { create });
    return directory;
  } catch (error) {
    if (isMissing(error) && !create) return undefined;
    throw failed(doing, error);
  }
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && error.name === 'NotFoundError';
}

/**
 * Is there while a pool is being made or deleted. What lies beside it after a crash never was a pool, and holds nothing: whoever made it was not told that it is there.
 */
const MAKING_NAME = 'making';

export async function beginMaking(directory: FileSystemDirectoryHandle): Promise<void> {
  try {
    await directory.getFileHandle(MAKING_NAME, { create: true });
  } catch (error) {
    throw failed('making a pool', error);
  }
}

export async function endMaking(directory: FileSystemDirectoryHandle): Promise<void> {
  await removeFile(directory, MAKING_NAME);
}

/** Does the directory hold a pool, as far as names can tell? */
export async function holdsPool(directory: FileSystemDirectoryHandle): Promise<boolean> {
  let found = false;
  for await (const name of (directory as Entries).keys()) {
    if (name === MAKING_NAME) return false;
    if (MEMBER_FILE.test(name)) found = true;
  }
  return found;
}

/** Names of the files of storage volumes that are in the directory, sorted. */
export async function memberFiles(directory: FileSystemDirectoryHandle): Promise<string[]> {
  const names: string[] = [];
  for await (const name of (directory as Entries).keys()) if (MEMBER_FILE.test(name)) names.push(name);
  return names.sort();
}

/** The handles of a worker that was ended stay for a moment, and forbid it. */
export async function removeFile(directory: FileSystemDirectoryHandle, name: string): Promise<void> {
  try {
    await patiently(() => directory.removeEntry(name));
  } catch (error) {
    if (!isMissing(error)) throw failed(`deleting '${name}' of the origin private file system`, error);
  }
}
