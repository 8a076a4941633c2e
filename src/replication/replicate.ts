// replicate(primary → virtual volume): the volume becomes what the primary is, and a snapshot keeps it.
//
//   1. the name of the snapshot is free, or nothing is read at all
//   2. the source gets the primary's size, if it has another
//   3. primary and volume are read side by side, a chunk ahead; blocks that differ are written, blocks that are zero become holes
//   4. the snapshot is taken, which makes everything durable
//
// A run that is cut off leaves the last snapshot as it was. What had become durable is in the current state, so the next run finds it equal and does not
// write it again: there is no cursor to keep, and none that could be wrong.

import type { StorageDevice } from '../device/device.ts';
import { VarveError } from '../errors.ts';
import { checkName } from '../names.ts';
import { DEFAULT_SOURCE, type VolumeSource } from '../volume/source.ts';
import type { VirtualVolume } from '../volume/volume.ts';
import { CHUNK_BYTES, differences } from './compare.ts';
import { checkDevice, readAhead } from './read-ahead.ts';

export interface ReplicateOptions {
  /** Name of the snapshot; left out: the UTC time, `2026-11-23T02-11-55Z`. */
  readonly snapshot?: string | undefined;
  /** The source of the volume that is replicated into; added when the volume does not have it. */
  readonly source?: string | undefined;
  /**
   * What is compared with the state in the volume. Both find the same: the log verifies each block that it reads against its checksum. `checksum` is there
   * for a core that gives out checksums without reading blocks.
   */
  readonly compare?: 'bytes' | 'checksum' | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: ReplicateProgress) => void) | undefined;
}

export interface ReplicateProgress {
  readonly scannedBytes: number;
  readonly totalBytes: number;
  readonly changedBytes: number;
}

export interface ReplicateResult {
  readonly snapshot: string;
  /** Bytes of the primary that were read and compared. */
  readonly scannedBytes: number;
  /** Bytes of blocks that differed, those that became holes included. */
  readonly changedBytes: number;
  /** Bytes of data blocks that were written. */
  readonly writtenBytes: number;
  /** Bytes that the log and its checkpoints added. */
  readonly metadataBytes: number;
  readonly seconds: number;
}

const BLOCK_BYTES = 4096;
/** A run that finds little to write would otherwise lose it all when it is cut off. */
const FLUSH_EVERY_MS = 5000;

/**
 * @throws VarveError `VARVE_EXISTS` when the snapshot's name is taken, before anything is read; `VARVE_NO_SPACE`, `VARVE_READ_ONLY`, `VARVE_IO`;
 * the signal's reason when it was aborted
 */
export async function replicate(primary: StorageDevice, volume: VirtualVolume, options: ReplicateOptions = {}): Promise<ReplicateResult> {
  checkDevice('primary', primary);
  checkDevice('volume', volume);
  const { signal, onProgress } = options;
  const compare = options.compare ?? 'bytes';
  if (compare !== 'bytes' && compare !== 'checksum')
    throw new RangeError(`compare: expected 'bytes' or 'checksum', got ${String(compare)}`);
  const snapshot = snapshotName(volume, options.snapshot);
  signal?.throwIfAborted();
  const begun = Date.now();
  const before = volume.log.figures();

  const totalBytes = primary.sizeBytes;
  const source = await sourceOf(volume, options.source ?? DEFAULT_SOURCE, totalBytes, signal);
  if (source.sizeBytes !== totalBytes) await source.resize(totalBytes, { signal });

  const present = new Uint8Array(CHUNK_BYTES);
  let scannedBytes = 0;
  let changedBytes = 0;
  let writtenBytes = 0;
  let flushedAt = Date.now();
  let unflushed = false;
  for await (const { offset, length, bytes } of readAhead(primary, totalBytes, signal)) {
    const old = present.subarray(0, length);
    await source.read(offset, old, { signal });
    const changes: Promise<void>[] = [];
    for (const { start, end, kind } of differences(bytes, old, length)) {
      changedBytes += end - start;
      if (kind === 'data') {
        writtenBytes += Math.ceil((end - start) / BLOCK_BYTES) * BLOCK_BYTES;
        changes.push(source.write(offset + start, bytes.subarray(start, end), { signal }));
      } else changes.push(source.discard(offset + start, end - start, { signal }));
    }
    await settled(changes);
    unflushed ||= changes.length > 0;
    scannedBytes += length;
    onProgress?.({ scannedBytes, totalBytes, changedBytes });
    if (unflushed && Date.now() - flushedAt >= FLUSH_EVERY_MS) {
      await source.flush({ signal });
      flushedAt = Date.now();
      unflushed = false;
    }
  }
  signal?.throwIfAborted();
  await volume.snapshot(snapshot, { source: source.sourceName, signal });

  const after = volume.log.figures();
  return {
    snapshot,
    scannedBytes,
    changedBytes,
    writtenBytes,
    metadataBytes: after.metadataBytesWritten - before.metadataBytesWritten,
    seconds: (Date.now() - begun) / 1000,
  };
}

/** @throws VarveError `VARVE_EXISTS` when the name is given and taken */
function snapshotName(volume: VirtualVolume, given: string | undefined): string {
  const names = new Set(volume.snapshots().map((snapshot) => snapshot.name));
  if (given !== undefined) {
    const name = checkName(given, 'snapshot');
    if (names.has(name))
      throw new VarveError('VARVE_EXISTS', `replicating into '${volume.name}'`, { detail: `there is a snapshot '${name}' already` });
    return name;
  }
  const base = new Date()
    .toISOString()
    .replace(/\.\d+Z$/, 'Z')
    .replaceAll(':', '-');
  let name = base;
  // Two runs in one second.
  for (let count = 2; names.has(name); count++) name = `${base}-${count}`;
  return name;
}

async function sourceOf(volume: VirtualVolume, name: string, sizeBytes: number, signal: AbortSignal | undefined): Promise<VolumeSource> {
  const normal = checkName(name, 'source');
  if (volume.sources().some((source) => source.name === normal)) return volume.source(normal);
  return volume.addSource(normal, sizeBytes, { signal });
}

/** All have ended when it returns or throws: their buffer is free again. */
async function settled(changes: readonly Promise<void>[]): Promise<void> {
  for (const result of await Promise.allSettled(changes)) if (result.status === 'rejected') throw result.reason;
}
