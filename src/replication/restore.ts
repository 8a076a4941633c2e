// restore(view → device): the device becomes what the view is; only what differs is written.

import type { StorageDevice } from '../device/device.ts';
import { VarveError } from '../errors.ts';
import { CHUNK_BYTES, dataRuns, differences, type Run } from './compare.ts';
import { checkDevice, readAhead } from './read-ahead.ts';

export interface RestoreOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: RestoreProgress) => void) | undefined;
}

export interface RestoreProgress {
  readonly doneBytes: number;
  readonly totalBytes: number;
  readonly writtenBytes: number;
}

export interface RestoreResult {
  /** Size of the state that was restored. */
  readonly sizeBytes: number;
  /** Bytes that had to be written. */
  readonly writtenBytes: number;
  readonly seconds: number;
}

/**
 * @param view a snapshot view, a volume, or any device
 * @param target at least as large as the view; what is beyond stays as it is
 * @param blank the target reads zero all over, so it is not read and zeroes are not written
 * @throws VarveError `VARVE_NO_SPACE` when the target is smaller, before anything is written; the signal's reason when it was aborted
 */
export async function restoreDevice(
  view: StorageDevice,
  target: StorageDevice,
  options: RestoreOptions = {},
  blank = false,
): Promise<RestoreResult> {
  checkDevice('view', view);
  checkDevice('target', target);
  const { signal, onProgress } = options;
  const begun = Date.now();
  const totalBytes = view.sizeBytes;
  if (target.sizeBytes < totalBytes) {
    throw new VarveError('VARVE_NO_SPACE', 'restoring', { detail: `the target has ${target.sizeBytes} bytes, ${totalBytes} are needed` });
  }
  const present = blank ? undefined : new Uint8Array(CHUNK_BYTES);
  let writtenBytes = 0;
  for await (const { offset, length, bytes } of readAhead(view, totalBytes, signal)) {
    let wanted = bytes;
    // Raw devices take whole blocks: the last one with what is behind the end now.
    const span = Math.ceil(length / target.blockSize) * target.blockSize;
    if (span > length && offset + span <= target.sizeBytes) {
      wanted = new Uint8Array(span);
      if (present !== undefined) await target.read(offset, wanted);
      wanted.set(bytes);
    }
    let runs: readonly Run[];
    if (present === undefined) runs = dataRuns(wanted, wanted.length);
    else {
      await target.read(offset, present.subarray(0, wanted.length));
      runs = differences(wanted, present, wanted.length);
    }
    for (const { start, end } of runs) {
      await target.write(offset + start, wanted.subarray(start, end));
      writtenBytes += Math.min(end, length) - start;
    }
    onProgress?.({ doneBytes: offset + length, totalBytes, writtenBytes });
  }
  signal?.throwIfAborted();
  await target.flush();
  return { sizeBytes: totalBytes, writtenBytes, seconds: (Date.now() - begun) / 1000 };
}

/** As `restoreDevice`: the form for every platform. `varve/node` has one that also takes a path. */
export function restore(view: StorageDevice, target: StorageDevice, options: RestoreOptions = {}): Promise<RestoreResult> {
  return restoreDevice(view, target, options);
}
