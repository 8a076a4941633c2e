// The read module: a snapshot's state of one source as a read-only storage device.
import { checkBytes, checkOpen, checkRange, type DeviceSupports, type SyncStorageDevice } from '../device/device.ts';
import { VarveError } from '../errors.ts';
import { normalName } from '../names.ts';
import type { Log } from './log.ts';

export class SnapshotView implements SyncStorageDevice {
  readonly blockSize = 4096;
  readonly supports: DeviceSupports;
  readonly log: Log;
  /** Name of the snapshot. */
  readonly name: string;
  readonly createdAt: Date;
  /** Size of the source at that moment, bytes. */
  readonly sizeBytes: number;
  readonly sourceName: string;
  readonly #volumeNumber: number;
  readonly #id: number;
  readonly #subject: string;
  #closed = false;
  #version = 0;
  #space = 0;
  #epoch = 0;

  /** @throws VarveError VARVE_NOT_FOUND when there is no such snapshot, or the source is not in it */
  constructor(log: Log, volumeNumber: number, name: string, sourceName: string, volumeSubject: string) {
    this.log = log;
    this.name = normalName(name, 'snapshot');
    this.sourceName = sourceName;
    this.supports = { discard: false, fua: 'native', sync: log.sync, persistent: log.persistent };
    this.#volumeNumber = volumeNumber;
    this.#subject = `${volumeSubject} at '${name}'`;
    const snapshot = log.findSnapshot(volumeNumber, this.name);
    if (!snapshot) throw new VarveError('VARVE_NOT_FOUND', `reading ${this.#subject}`, { detail: `there is no snapshot '${name}'` });
    const member = snapshot.members.find((candidate) => candidate.source === sourceName);
    if (!member)
      throw new VarveError('VARVE_NOT_FOUND', `reading ${this.#subject}`, { detail: `the snapshot does not have source '${sourceName}'` });
    this.#id = snapshot.id;
    this.createdAt = snapshot.createdAt;
    this.sizeBytes = member.sizeBytes;
  }

  /** Id in the log: stays the same for the snapshot's life. */
  get id(): number {
    return this.#id;
  }

  /** The space that holds the state. */
  get space(): number {
    this.#refresh();
    return this.#space;
  }

  /** Epoch at which that space shows it. */
  get epoch(): number {
    this.#refresh();
    return this.#epoch;
  }

  #refresh(): void {
    checkOpen(`reading ${this.#subject}`, this.#closed || this.log.closed);
    const { version } = this.log;
    if (this.#version === version) return;
    const snapshot = this.log.snapshots().find((candidate) => candidate.id === this.#id && candidate.volumeNumber === this.#volumeNumber);
    const member = snapshot?.members.find((candidate) => candidate.source === this.sourceName);
    if (!snapshot || !member) throw new VarveError('VARVE_NOT_FOUND', `reading ${this.#subject}`, { detail: 'the snapshot was deleted' });
    this.#space = member.space;
    this.#epoch = snapshot.epoch;
    this.#version = version;
  }

  #check(offset: number, into: Uint8Array): void {
    checkBytes('read', into);
    this.#refresh();
    checkRange(`read of ${this.#subject}`, this.sizeBytes, offset, into.length);
  }

  /** @throws RangeError, TypeError; VarveError VARVE_NOT_FOUND when the snapshot was deleted, VARVE_CORRUPT, VARVE_IO, VARVE_CLOSED */
  read(offset: number, into: Uint8Array, options?: { signal?: AbortSignal | undefined }): Promise<void> {
    try {
      this.#check(offset, into);
    } catch (error) {
      return Promise.reject(error);
    }
    return into.length === 0 ? Promise.resolve() : this.#read(offset, into, options?.signal);
  }

  async #read(offset: number, into: Uint8Array, signal: AbortSignal | undefined): Promise<void> {
    const { version } = this.log;
    await this.log.read(this.#space, this.#epoch, offset, into, this.#subject, signal);
    // Deleted meanwhile, it may have been read as holes in part.
    if (this.log.version !== version) this.#refresh();
  }

  readSync(offset: number, into: Uint8Array): void {
    this.#check(offset, into);
    if (into.length > 0) this.log.readSync(this.#space, this.#epoch, offset, into, this.#subject);
  }

  write(): Promise<void> {
    return Promise.reject(new VarveError('VARVE_READ_ONLY', `write of ${this.#subject}`));
  }

  writeSync(): void {
    throw new VarveError('VARVE_READ_ONLY', `write of ${this.#subject}`);
  }

  /** Nothing to do: a snapshot was durable when it was taken. */
  flush(): Promise<void> {
    return Promise.resolve();
  }

  flushSync(): void {
    // as `flush`
  }

  /** Closes this view; the snapshot stays. Idempotent. */
  close(): Promise<void> {
    this.#closed = true;
    return Promise.resolve();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
