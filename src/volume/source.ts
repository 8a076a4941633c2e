// One source of a virtual volume as a storage device: any byte range, asynchronous and (in a pool open in sync mode) synchronous.
//
// The space behind the name changes with a rollback, so it is looked up again whenever the log says that sources or snapshots changed.
import { EPOCH_NOW } from '../core/exports.ts';
import { checkBytes, checkOpen, checkRange, type DeviceSupports, type SyncStorageDevice } from '../device/device.ts';
import { VarveError } from '../errors.ts';
import { normalName } from '../names.ts';
import { parseVirtualSize } from '../units.ts';
import type { DiffRun, DiffState } from './diff.ts';
import type { Log } from './log.ts';
import { SnapshotView } from './snapshot.ts';
import type { SnapshotState } from './state.ts';

export interface CallOptions {
  /** An aborted call rejects with the signal's reason. A write may or may not be applied; its buffer is not touched afterwards. */
  readonly signal?: AbortSignal | undefined;
}

export interface VolumeWriteOptions extends CallOptions {
  /** Durable when it resolves. */
  readonly fua?: boolean;
}

/** A virtual volume has this one unless more are added. */
export const DEFAULT_SOURCE = 'default';

export class VolumeSource implements SyncStorageDevice {
  /** Block of the log. Any range may be read or written; edges are read and merged by the log. */
  readonly blockSize = 4096;
  readonly supports: DeviceSupports;
  /** The log that holds it. Several virtual volumes (clones) may be in one. */
  readonly log: Log;
  /** Number of the virtual volume in its log. */
  readonly number: number;
  readonly sourceName: string;
  /** For messages: `'db'`, or `'db' (source 'sda1')`. */
  protected readonly subject: string;
  #closed = false;
  #version = 0;
  #space = 0;
  #sizeBytes = 0;

  constructor(log: Log, number: number, volumeName: string, sourceName: string) {
    this.log = log;
    this.number = number;
    this.sourceName = sourceName;
    this.subject = sourceName === DEFAULT_SOURCE ? `'${volumeName}'` : `'${volumeName}' (source '${sourceName}')`;
    this.supports = { discard: true, fua: 'native', sync: log.sync, persistent: log.persistent };
  }

  /** Virtual size, bytes. @throws VarveError VARVE_NOT_FOUND when the source was deleted */
  get sizeBytes(): number {
    this.#refresh();
    return this.#sizeBytes;
  }

  /** The space that has the source's name now. */
  get space(): number {
    this.#refresh();
    return this.#space;
  }

  /** Bytes that the source maps itself: without what it stands on after a rollback (`VirtualVolume.countMapped`). */
  get mappedBytes(): number {
    const { space } = this;
    return this.log.sources().find((source) => source.space === space)?.mappedBytes ?? 0;
  }

  #refresh(): void {
    if (this.#closed || this.log.closed) checkOpen(`use of ${this.subject}`, true);
    const { version } = this.log;
    if (this.#version === version) return;
    const state = this.log.findSource(this.number, this.sourceName);
    if (!state) throw new VarveError('VARVE_NOT_FOUND', `use of ${this.subject}`, { detail: `there is no source '${this.sourceName}'` });
    this.#space = state.space;
    this.#sizeBytes = state.sizeBytes;
    this.#version = version;
  }

  #check(verb: string, offset: number, length: number): void {
    this.#refresh();
    if (offset >= 0 && length >= 0 && offset + length <= this.#sizeBytes && Number.isSafeInteger(offset) && Number.isSafeInteger(length))
      return;
    checkRange(`${verb} of ${this.subject}`, this.#sizeBytes, offset, length);
  }

  #checkWritable(verb: string): void {
    if (this.log.readOnly) throw new VarveError('VARVE_READ_ONLY', `${verb} of ${this.subject}`);
  }

  /**
   * Any byte range inside the size. Every acknowledged write is in what it returns.
   * @throws RangeError, TypeError; VarveError VARVE_CORRUPT, VARVE_IO, VARVE_CLOSED
   */
  read(offset: number, into: Uint8Array, options?: CallOptions): Promise<void> {
    try {
      checkBytes('read', into);
      this.#check('read', offset, into.length);
    } catch (error) {
      return Promise.reject(error);
    }
    return into.length === 0 ? Promise.resolve() : this.log.read(this.#space, EPOCH_NOW, offset, into, this.subject, options?.signal);
  }

  /**
   * Any byte range inside the size. Resolves when it is in the log's open segment: durable after the next flush, or at once with `fua`.
   * @throws RangeError, TypeError; VarveError VARVE_NO_SPACE, VARVE_LIMIT, VARVE_IO, VARVE_READ_ONLY, VARVE_CLOSED
   */
  write(offset: number, from: Uint8Array, options?: VolumeWriteOptions): Promise<void> {
    try {
      checkBytes('write', from);
      this.#checkWritable('write');
      this.#check('write', offset, from.length);
    } catch (error) {
      return Promise.reject(error);
    }
    if (from.length === 0) return options?.fua ? this.flush(options) : Promise.resolve();
    return this.log.write(this.#space, offset, from, options?.fua === true, this.subject, options?.signal);
  }

  /** Everything acknowledged before the call is durable when it resolves. */
  flush(options?: CallOptions): Promise<void> {
    try {
      this.#refresh();
    } catch (error) {
      return Promise.reject(error);
    }
    return this.log.flush(options?.signal);
  }

  /** The range reads zero afterwards; whole blocks in it take no space any more. */
  discard(offset: number, length: number, options?: CallOptions): Promise<void> {
    try {
      this.#checkWritable('discard');
      this.#check('discard', offset, length);
    } catch (error) {
      return Promise.reject(error);
    }
    return length === 0 ? Promise.resolve() : this.log.trim(this.#space, offset, length, this.subject, options?.signal);
  }

  /** Another word for `discard`. */
  trim(offset: number, length: number, options?: CallOptions): Promise<void> {
    return this.discard(offset, length, options);
  }

  /** The range reads zero afterwards. In a log that is the same as a discard. */
  writeZeroes(offset: number, length: number, options?: CallOptions): Promise<void> {
    return this.discard(offset, length, options);
  }

  readSync(offset: number, into: Uint8Array): void {
    checkBytes('read', into);
    this.#check('read', offset, into.length);
    if (into.length > 0) this.log.readSync(this.#space, EPOCH_NOW, offset, into, this.subject);
  }

  writeSync(offset: number, from: Uint8Array, options?: { fua?: boolean }): void {
    checkBytes('write', from);
    this.#checkWritable('write');
    this.#check('write', offset, from.length);
    if (from.length > 0) this.log.writeSync(this.#space, offset, from, options?.fua === true, this.subject);
    else if (options?.fua) this.log.flushSync();
  }

  flushSync(): void {
    this.#refresh();
    this.log.flushSync();
  }

  discardSync(offset: number, length: number): void {
    this.#checkWritable('discard');
    this.#check('discard', offset, length);
    if (length > 0) this.log.trimSync(this.#space, offset, length, this.subject);
  }

  /**
   * A new virtual size: plain bytes or `'10GiB'`. What is cut off is gone; what is added reads zero.
   * @throws RangeError when it is above 2^52 bytes (4096 TiB), or what the volume's leaves can map
   */
  async resize(size: number | string, options?: CallOptions): Promise<void> {
    const sizeBytes = parseVirtualSize(size);
    this.#checkWritable('resize');
    this.#refresh();
    await this.log.resize(this.#space, sizeBytes, options?.signal);
  }

  /**
   * A snapshot's state of this source, as a read-only device. It stays readable while the snapshot exists.
   * @throws VarveError VARVE_NOT_FOUND
   */
  at(name: string): SnapshotView {
    this.#checkOpen();
    return new SnapshotView(this.log, this.number, name, this.sourceName, this.subject);
  }

  /**
   * What changed from one snapshot to another or (left out) to now, ascending, adjacent runs of one kind as one. `from` null: everything that is there.
   * @throws VarveError VARVE_NOT_FOUND
   */
  diff(from: string | null, to?: string, options?: CallOptions): AsyncGenerator<DiffRun, void, undefined> {
    this.#checkOpen();
    const before = from === null ? () => undefined : this.#stateAt(from);
    const after = to === undefined ? this.#stateNow() : this.#stateAt(to);
    return this.log.diff(() => ({ from: before(), to: after() }), options?.signal);
  }

  /** Looks up the state of the snapshot that has the name now. */
  #stateAt(name: string): () => DiffState {
    const doing = `diff of ${this.subject}`;
    const { id } = this.findSnapshot(name, doing);
    return () => {
      const snapshot = this.log.snapshots().find((one) => one.id === id && one.volumeNumber === this.number);
      if (!snapshot) throw new VarveError('VARVE_NOT_FOUND', doing, { detail: `snapshot '${name}' was deleted` });
      const member = snapshot.members.find((candidate) => candidate.source === this.sourceName);
      if (!member)
        throw new VarveError('VARVE_NOT_FOUND', doing, { detail: `snapshot '${name}' does not have source '${this.sourceName}'` });
      return { space: member.space, epoch: snapshot.epoch, sizeBytes: member.sizeBytes };
    };
  }

  #stateNow(): () => DiffState {
    const { space, sizeBytes } = this;
    return () => {
      if (this.space !== space)
        throw new VarveError('VARVE_NOT_FOUND', `diff of ${this.subject}`, { detail: 'it was rolled back meanwhile' });
      return { space, epoch: EPOCH_NOW, sizeBytes };
    };
  }

  protected findSnapshot(name: string, doing: string): SnapshotState {
    const snapshot = this.log.findSnapshot(this.number, normalName(name, 'snapshot'));
    if (!snapshot) throw new VarveError('VARVE_NOT_FOUND', doing, { detail: `there is no snapshot '${name}'` });
    return snapshot;
  }

  #checkOpen(): void {
    checkOpen(`use of ${this.subject}`, this.#closed || this.log.closed);
  }

  /** Flushes, and closes this handle; the volume stays in the pool. Idempotent. */
  async close(): Promise<void> {
    if (this.#closed) return;
    try {
      if (!this.log.closed && !this.log.readOnly) await this.log.flush();
    } finally {
      this.#closed = true;
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
