// Replicating from, and restoring to, files and block devices by their paths (`varve/node`).
//
// A restore makes its file beside the target, whole and flushed, before it gets the target's name: whoever looks finds the old state (none) or the new one.
// An existing target is only touched `inPlace`, and then only where it differs; block devices can be restored in no other way.

import { linkSync, lstatSync, realpathSync, renameSync, unlinkSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import type { StorageDevice } from '../device/device.ts';
import { FileDevice, syncDirectory } from '../device/file.ts';
import { openTarget } from '../device/raw.ts';
import { isVarveError, messageOf, VarveError } from '../errors.ts';
import { isPoolFile } from '../pool/directory.ts';
import { foreignSignature, VARVE_SIGNATURE } from '../pool/signature.ts';
import type { VirtualVolume } from '../volume/volume.ts';
import { checkDevice } from './read-ahead.ts';
import { replicate as replicateDevice, type ReplicateOptions, type ReplicateResult } from './replicate.ts';
import { restoreDevice, type RestoreOptions, type RestoreResult } from './restore.ts';

export interface RestorePathOptions extends RestoreOptions {
  /** Writes into an existing file or block device. */
  readonly inPlace?: boolean | undefined;
}

/** As `replicate` of `varve`; the primary may also be the path of a regular file or block device. */
export async function replicate(
  primary: string | StorageDevice,
  volume: VirtualVolume,
  options: ReplicateOptions = {},
): Promise<ReplicateResult> {
  if (typeof primary !== 'string') return replicateDevice(primary, volume, options);
  const device = await FileDevice.open(primary, { readOnly: true });
  try {
    return await replicateDevice(device, volume, options);
  } finally {
    await device.close();
  }
}

/**
 * As `restore` of `varve`; the target may also be a path.
 *
 * @throws VarveError `VARVE_EXISTS` when there is something at the path and `inPlace` is not set; `VARVE_LOCKED` when it is a block device that is mounted, or
 * otherwise in use
 */
export async function restore(
  view: StorageDevice,
  target: string | StorageDevice,
  options: RestorePathOptions = {},
): Promise<RestoreResult> {
  if (typeof target !== 'string') return restoreDevice(view, target, options);
  checkDevice('view', view);
  const path = resolve(target);
  if (!isThere(path)) return restoreBeside(view, path, options);
  if (options.inPlace !== true) {
    throw new VarveError('VARVE_EXISTS', `restoring to '${target}'`, {
      detail: 'there is something already; restoring into it has to be asked for (in place)',
    });
  }
  return restoreInto(view, path, options);
}

async function restoreBeside(view: StorageDevice, path: string, options: RestoreOptions): Promise<RestoreResult> {
  const suffix = globalThis.crypto.randomUUID().slice(0, 8);
  // The name is cut so that it stays one: 255 bytes.
  const temporary = join(dirname(path), `.${basename(path).slice(0, 60)}.varve-${suffix}.tmp`);
  let device: FileDevice | undefined;
  try {
    device = await FileDevice.open(temporary, { create: 'exclusive', noFollow: true, sizeBytes: view.sizeBytes, mode: 0o666 });
    const result = await restoreDevice(view, device, options, true);
    await device.close();
    publish(temporary, path);
    syncDirectory(dirname(path));
    return result;
  } catch (error) {
    await device?.close().catch(() => undefined);
    if (device !== undefined) removeQuietly(temporary);
    throw error;
  }
}

/** Gives the file its name, but never in the place of another that came meanwhile. */
function publish(temporary: string, path: string): void {
  const doing = `restoring to '${path}'`;
  try {
    linkSync(temporary, path);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'EEXIST') throw new VarveError('VARVE_EXISTS', doing, { detail: 'somebody else has made it meanwhile' });
    // File systems without links (FAT, some of FUSE).
    try {
      renameSync(temporary, path);
    } catch (cause) {
      throw new VarveError('VARVE_IO', doing, { detail: messageOf(cause), cause });
    }
    return;
  }
  removeQuietly(temporary);
}

async function restoreInto(view: StorageDevice, path: string, options: RestoreOptions): Promise<RestoreResult> {
  const device = await openTarget(path).catch(async (error: unknown) => {
    if (isVarveError(error, 'VARVE_LOCKED')) await refuseMember(path);
    throw error;
  });
  try {
    if (isPoolFile(realpathSync(path))) {
      throw new VarveError('VARVE_EXISTS', `restoring to '${path}'`, { detail: 'it is a file that a Varve pool keeps for itself' });
    }
    await refuseMember(path, device);
    if (device.kind === 'file' && device.sizeBytes !== view.sizeBytes) device.resizeSync(view.sizeBytes);
    return await restoreDevice(view, device, options);
  } finally {
    await device.close();
  }
}

/** @throws VarveError `VARVE_EXISTS` when it is a storage device of a pool */
async function refuseMember(path: string, open?: FileDevice): Promise<void> {
  const device = open ?? (await FileDevice.open(path, { readOnly: true }));
  try {
    const signature = await foreignSignature(device).catch((error: unknown) => {
      if (isVarveError(error)) return null; // it cannot be read; the restore itself will say so
      throw error;
    });
    if (signature === VARVE_SIGNATURE)
      throw new VarveError('VARVE_EXISTS', `restoring to '${path}'`, { detail: 'it is a storage device of a Varve pool' });
  } finally {
    if (open === undefined) await device.close();
  }
}

function isThere(path: string): boolean {
  try {
    lstatSync(path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw new VarveError('VARVE_IO', `looking at '${path}'`, { detail: messageOf(error), cause: error });
  }
}

function removeQuietly(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // it is gone, or it stays: nothing depends on it
  }
}
