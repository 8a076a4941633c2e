// A virtual volume: the name under which users see spaces of a log. As a device it is its default source; what concerns all its sources is here.
import { VarveError } from '../errors.ts';
import { checkName, normalName } from '../names.ts';
import { parseVirtualSize } from '../units.ts';
import type { LogFigures, Log } from './log.ts';
import { DEFAULT_SOURCE, VolumeSource, type CallOptions } from './source.ts';
import type { SnapshotMember, SnapshotState } from './state.ts';

/** A snapshot as its users see it. */
export interface SnapshotInfo {
  readonly name: string;
  readonly createdAt: Date;
  /** Made by a rollback, of the state that it left. */
  readonly automatic: boolean;
  readonly sources: readonly { readonly name: string; readonly sizeBytes: number }[];
}

export interface SourceInfo {
  readonly name: string;
  readonly sizeBytes: number;
  readonly mappedBytes: number;
}

export interface SnapshotOptions extends CallOptions {
  /** Only this source; left out: all of them, at one moment. */
  readonly source?: string | undefined;
  /** Milliseconds; left out: now. */
  readonly createdAt?: number | undefined;
}

/** What the virtual volume and its log hold. `liveBytes` and `usedBytes` are the log's: it may hold clones too. */
export interface VolumeFigures extends LogFigures {
  /** Of all sources, bytes. */
  readonly sizeBytes: number;
  /** Mapped by the sources themselves, bytes: without what they stand on after a rollback (`countMapped`). */
  readonly mappedBytes: number;
}

export class VirtualVolume extends VolumeSource {
  readonly name: string;

  /** @param number its number in the log, from the catalogue */
  constructor(log: Log, name: string, number: number) {
    super(log, number, name, DEFAULT_SOURCE);
    this.name = name;
  }

  // ——— sources ———

  sources(): SourceInfo[] {
    return this.log
      .sources()
      .filter((source) => source.volumeNumber === this.number)
      .map(({ name, sizeBytes, mappedBytes }) => ({ name, sizeBytes, mappedBytes }));
  }

  /** One source as a device. @throws VarveError VARVE_NOT_FOUND */
  source(name: string): VolumeSource {
    const normal = normalName(name, 'source');
    if (!this.log.findSource(this.number, normal)) throw new VarveError('VARVE_NOT_FOUND', `source '${name}' of ${this.subject}`);
    return new VolumeSource(this.log, this.number, this.name, normal);
  }

  /** One more source, empty. @throws VarveError VARVE_EXISTS, VARVE_LIMIT; RangeError when the size is above 2^52 bytes (4096 TiB) */
  async addSource(name: string, size: number | string, options?: CallOptions): Promise<VolumeSource> {
    const normal = checkName(name, 'source');
    await this.log.createSource(this.number, normal, parseVirtualSize(size), options?.signal);
    return this.source(normal);
  }

  /** What snapshots hold of it stays. @throws VarveError VARVE_NOT_FOUND */
  async deleteSource(name: string, options?: CallOptions): Promise<void> {
    await this.log.deleteSource(this.source(name).space, options?.signal);
  }

  // ——— snapshots ———

  /** Keeps the state of this moment: everything acknowledged so far is in it, and it is durable when this resolves. @throws VarveError VARVE_EXISTS, VARVE_LIMIT */
  async snapshot(name: string, options: SnapshotOptions = {}): Promise<void> {
    const { source, createdAt, signal } = options;
    await this.log.snapshot(this.number, name, { space: source === undefined ? undefined : this.source(source).space, createdAt, signal });
  }

  /** Oldest first. */
  snapshots(): SnapshotInfo[] {
    return this.log
      .snapshots()
      .filter((snapshot) => snapshot.volumeNumber === this.number)
      .map(infoOf);
  }

  /** @throws VarveError VARVE_NOT_FOUND */
  async deleteSnapshot(name: string, options?: CallOptions): Promise<void> {
    await this.log.deleteSnapshot(this.findSnapshot(name, `deleting a snapshot of ${this.subject}`).id, options?.signal);
  }

  /**
   * Puts the volume back to a snapshot. The state that it leaves is kept under an automatic name until that is deleted, so it can be undone.
   * @param options.keepAs a name for the state left; by default `before-NAME-TIME`
   * @returns the name under which the state left is kept
   * @throws VarveError VARVE_NOT_FOUND, VARVE_EXISTS, VARVE_LIMIT
   */
  async rollback(name: string, options: CallOptions & { readonly keepAs?: string } = {}): Promise<string> {
    const snapshot = this.findSnapshot(name, `rollback of ${this.subject}`);
    const automatic = checkName(options.keepAs ?? this.#automaticName(snapshot.name), 'snapshot');
    await this.log.rollback(snapshot.id, automatic, options.signal);
    return automatic;
  }

  #automaticName(name: string): string {
    const time = new Date().toISOString();
    // The name of the snapshot is shortened so that all of it fits in 255 bytes: up to 3 bytes for each UTF-16 unit.
    const base = `before-${[...name].slice(0, 50).join('')}-${time}`;
    let candidate = base;
    for (let count = 2; this.log.findSnapshot(this.number, candidate); count++) candidate = `${base}-${count}`;
    return candidate;
  }

  // ——— the whole ———

  /** Gathers live blocks so that segments, and with them storage volumes, become free. @returns how many segments were compacted */
  compact(options: CallOptions & { readonly onProgress?: (segments: number) => void } = {}): Promise<number> {
    return this.log.compact(options);
  }

  /** Bytes mapped in the current state of all sources, also those that a source stands on since a rollback. */
  async countMapped(options?: CallOptions): Promise<number> {
    let bytes = 0;
    for (const source of this.log.sources())
      if (source.volumeNumber === this.number) bytes += await this.log.countMapped(source, options?.signal);
    return bytes;
  }

  figures(): VolumeFigures {
    const sources = this.sources();
    return {
      ...this.log.figures(),
      sizeBytes: sources.reduce((sum, source) => sum + source.sizeBytes, 0),
      mappedBytes: sources.reduce((sum, source) => sum + source.mappedBytes, 0),
    };
  }
}

function infoOf(snapshot: SnapshotState): SnapshotInfo {
  const { name, createdAt, automatic } = snapshot;
  return {
    name,
    createdAt,
    automatic,
    sources: snapshot.members.map((member: SnapshotMember) => ({ name: member.source, sizeBytes: member.sizeBytes })),
  };
}
