// A snapshot's state as a stream, and back into a volume of any pool: the archive of pool/archive.ts with one image in it.

import type { StorageDevice } from '../device/device.ts';
import { messageOf, VarveError } from '../errors.ts';
import { checkName } from '../names.ts';
import { archiveStream, readArchive } from '../pool/archive.ts';

/** A snapshot view of a volume, or of a client of one. */
export interface SnapshotSource extends Pick<StorageDevice, 'sizeBytes' | 'read'> {
  readonly name: string;
  readonly createdAt: Date;
}

/** A volume, or a client of one. */
export interface SnapshotTarget extends Pick<StorageDevice, 'sizeBytes' | 'read' | 'write'> {
  discard(offset: number, length: number): Promise<void>;
  resize(size: number): Promise<void>;
  snapshot(name: string): Promise<void>;
  snapshots(): readonly { readonly name: string }[] | Promise<readonly { readonly name: string }[]>;
}

const IMAGE_NAME = 'snapshot.img';
const BLOCK_BYTES = 4096;

/** The whole state of a snapshot as a tar archive: `snapshot.img` is the image, byte for byte. */
export function exportSnapshot(view: SnapshotSource): ReadableStream<Uint8Array<ArrayBuffer>> {
  const about = { snapshot: view.name, createdAt: view.createdAt.toISOString() };
  return archiveStream('snapshot', about, [
    { name: IMAGE_NAME, sizeBytes: view.sizeBytes, read: (offset, into) => view.read(offset, into) },
  ]);
}

/**
 * Brings a volume to an exported state and takes a snapshot of it. Only blocks that differ are written; zeros become holes. When the archive is damaged or
 * cut off, no snapshot is taken, and the volume is partly what it was and partly what came; it is cut to the size of the image only when all was sound.
 * @param name of the snapshot; left out: the one that was exported
 * @returns the snapshot's name
 * @throws VarveError VARVE_CORRUPT, VARVE_UNSUPPORTED, VARVE_EXISTS, VARVE_NO_SPACE, VARVE_LIMIT
 */
export async function importSnapshot(stream: ReadableStream<Uint8Array>, volume: SnapshotTarget, name?: string): Promise<string> {
  const doing = 'importing a snapshot';
  let snapshot = '';
  let sizeBytes = 0;
  const resize = async (bytes: number): Promise<void> => {
    try {
      await volume.resize(bytes);
    } catch (cause) {
      if (!(cause instanceof RangeError)) throw cause;
      throw new VarveError('VARVE_LIMIT', doing, { detail: `it is larger than a volume can be: ${sizeBytes} bytes`, cause });
    }
  };
  await readArchive(stream, {
    begin: async ({ kind, about, files }) => {
      const [image] = files;
      if (kind !== 'snapshot' || image === undefined || files.length !== 1) {
        throw new VarveError('VARVE_UNSUPPORTED', doing, { detail: `expected the archive of a snapshot, got that of a ${kind}` });
      }
      const told = name ?? about['snapshot'];
      if (typeof told !== 'string') throw new VarveError('VARVE_CORRUPT', doing, { detail: 'the archive names no snapshot' });
      snapshot = name === undefined ? nameIn(told) : checkName(name, 'snapshot');
      if ((await volume.snapshots()).some((other) => other.name === snapshot))
        throw new VarveError('VARVE_EXISTS', doing, { detail: `there is a snapshot '${snapshot}' already` });
      sizeBytes = image.sizeBytes;
    },
    file: () => {
      let before = new Uint8Array(0);
      return Promise.resolve({
        write: async (offset: number, bytes: Uint8Array) => {
          // It grows with what comes, not to what the archive says of itself.
          const end = offset + bytes.length;
          if (volume.sizeBytes < end) await resize(Math.min(sizeBytes, Math.max(end, 2 * volume.sizeBytes)));
          if (before.length < bytes.length) before = new Uint8Array(bytes.length);
          const present = before.subarray(0, bytes.length);
          await volume.read(offset, present);
          for (const { start, end, zero } of changedRuns(present, bytes)) {
            if (zero) await volume.discard(offset + start, end - start);
            else await volume.write(offset + start, bytes.subarray(start, end));
          }
        },
        end: () => Promise.resolve(),
      });
    },
  });
  if (volume.sizeBytes !== sizeBytes) await resize(sizeBytes);
  await volume.snapshot(snapshot);
  return snapshot;
}

/** @throws VarveError VARVE_CORRUPT: nobody who calls chose it */
function nameIn(told: string): string {
  try {
    return checkName(told, 'snapshot');
  } catch (cause) {
    throw new VarveError('VARVE_CORRUPT', 'importing a snapshot', { detail: messageOf(cause), cause });
  }
}

interface Run {
  readonly start: number;
  readonly end: number;
  readonly zero: boolean;
}

/** Blocks that differ, neighbours of one kind together. */
function changedRuns(before: Uint8Array, after: Uint8Array): Run[] {
  const runs: Run[] = [];
  for (let start = 0; start < after.length; start += BLOCK_BYTES) {
    const end = Math.min(start + BLOCK_BYTES, after.length);
    const block = after.subarray(start, end);
    if (block.every((byte, at) => byte === before[start + at])) continue;
    const zero = block.every((byte) => byte === 0);
    const last = runs.at(-1);
    if (last !== undefined && last.end === start && last.zero === zero) runs[runs.length - 1] = { start: last.start, end, zero };
    else runs.push({ start, end, zero });
  }
  return runs;
}
