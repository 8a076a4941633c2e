// An incremental log: one core instance, the storage volumes assigned to it, and the loop between them.
//
// The pool opens the devices, reads catalogue and labels, and makes a Log out of them; virtual volumes, sources and snapshot views stand on it.
// The log never closes a device and never reads a label. What the pool must do in which order:
//   grow     commit the catalogue with the new assignment → `addVolume`
//   shrink   `evacuateVolume` → (background) → `volumeState` is 'released' → commit the catalogue without it → `removeVolume`
import { EPOCH_NOW, KIND, MEMBER, OPERATION, SPACE_NONE, type CoreExports } from '../core/exports.ts';
import { instantiateCore, instantiateCoreSync, type CoreSource } from '../core/instantiate.ts';
import { CoreMemory } from '../core/memory.ts';
import { deviceHandle } from '../core/plan.ts';
import { isSyncDevice, type StorageDevice } from '../device/device.ts';
import { errorFromCore, VarveError } from '../errors.ts';
import { checkName } from '../names.ts';
import { diffRuns, type DiffRun, type DiffState } from './diff.ts';
import { Loop, type LoopHooks } from './loop.ts';
import {
  decodeFinding,
  decodeSnapshot,
  decodeSource,
  encodeOperation,
  type LogProblem,
  type LogRange,
  type SnapshotState,
  type SourceState,
} from './state.ts';

/** A storage volume assigned to a log: where it is, and its geometry as its label has it. */
export interface LogVolume {
  /** Volume identifier, 0 … 0xFFFD. */
  readonly id: number;
  /** 0 = `single`. */
  readonly level: number;
  /** Member devices in the order of the stripe map; undefined where one is missing. */
  readonly members: readonly (StorageDevice | undefined)[];
  /** What they are, as the catalogue has it; left out: all are online. One without a device is out. */
  readonly states?: readonly MemberState[] | undefined;
  /** Blocks of 4096 bytes in a strip; 1 for `single`. */
  readonly stripBlocks: number;
  readonly segmentBlocks: number;
  readonly segmentCount: number;
  /** Bytes from the start of each member to the data area. */
  readonly dataOffset: number;
  /** Bytes from the start of each member to root slot A, front and back; slot B follows 4096 later. */
  readonly rootFrontOffset: number;
  readonly rootBackOffset: number;
}

/** Zero or left out: the core's default. */
export interface LogGeometry {
  /** Blocks that one leaf of the lookup table covers: a power of two, 16 … 1024. Kept in the superblock. */
  readonly leafBlocks?: number;
  /** A checkpoint comes after so many entries. */
  readonly checkpointEntries?: number;
  /** With so much unflushed the core flushes by itself. */
  readonly unflushedLimitBytes?: number;
  /** Bound of the cache of checksums. */
  readonly sumsCacheBytes?: number;
}

/** When to grow, clean and shrink: shares from 0 to 1. */
export interface LogPolicy {
  readonly growAt: number;
  readonly compactTo: number;
  readonly shrinkBelow: number;
  /** `prompt` is for the growth hook to decide; to the core it is `auto`. */
  readonly mode: 'auto' | 'prompt' | 'fixed';
  readonly volumesMin: number;
  /** 0 = no maximum. */
  readonly volumesMax: number;
}

export interface LogOptions extends LoopHooks {
  /** For messages: what users call it. */
  readonly name: string;
  /** 16 bytes. */
  readonly uuid: Uint8Array;
  /** All that the catalogue assigns to the log, in the order of assignment. */
  readonly volumes: readonly LogVolume[];
  readonly geometry?: LogGeometry | undefined;
  readonly policy?: LogPolicy | undefined;
  /** Every call ends synchronously; all devices must work so. The asynchronous methods work too. */
  readonly sync?: boolean | undefined;
  /** Replays in memory, commits nothing. */
  readonly readOnly?: boolean | undefined;
  /** The core; left out: the one that the bundle carries, or that `useCore` gave. */
  readonly core?: CoreSource | undefined;
}

export interface CreateLogOptions extends LogOptions {
  /** 16 secret random bytes: keys the header checksums. */
  readonly key: Uint8Array;
}

/** `out`: missing or faulted, neither written nor read. `rebuilding`: written, not read. */
export type MemberState = 'online' | 'out' | 'rebuilding';
const MEMBER_NUMBER: Readonly<Record<MemberState, number>> = { online: MEMBER.ONLINE, out: MEMBER.OUT, rebuilding: MEMBER.REBUILDING };

export type VolumeState = 'unknown' | 'active' | 'evacuating' | 'released';
const VOLUME_STATES: readonly VolumeState[] = ['unknown', 'active', 'evacuating', 'released'];

/** The log in numbers; all since it was opened, but for the states. */
export interface LogFigures {
  readonly capacityBytes: number;
  readonly liveBytes: number;
  readonly usedBytes: number;
  readonly freeSegments: number;
  readonly reserveSegments: number;
  readonly segmentCount: number;
  readonly segmentsHeld: number;
  readonly dataBytesWritten: number;
  /** Headers, footers, pages, roots. */
  readonly metadataBytesWritten: number;
  readonly paddingBytesWritten: number;
  readonly movedBytes: number;
  /** Rebuilt from other members and written back. */
  readonly healedBytes: number;
  readonly sequence: number;
  readonly durableSequence: number;
  readonly incarnation: number;
  readonly generation: number;
  readonly checkpoints: number;
  readonly replayedEntries: number;
  readonly unflushedBytes: number;
  /** Of the core's memory. */
  readonly heapUsedBytes: number;
  readonly heapExtentBytes: number;
  /** A failure that could not be mended: nothing is written any more; what was acknowledged stays readable. */
  readonly failedReadOnly: boolean;
}

export interface ScrubOptions {
  readonly report?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Segments looked at, of all there are. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
}

export interface RebuildOptions extends ScrubOptions {
  /** The place where to begin: `next` of an earlier call. */
  readonly from?: number | undefined;
  /** Segments to be done in this call; 0 or left out: all. */
  readonly segments?: number | undefined;
}

export interface RebuildResult {
  readonly problems: LogProblem[];
  readonly mended: LogProblem[];
  /** The place where to go on; left out: all is done. */
  readonly next?: number | undefined;
}

export interface LogVolumeFigures {
  readonly segmentCount: number;
  readonly segmentsHeld: number;
  readonly liveBytes: number;
  /** Bytes of the segments that are held. */
  readonly usedBytes: number;
  readonly state: VolumeState;
}

const BLOCK_BYTES = 4096;
const EXCHANGE_BYTES = 65536;
const FINDING_BYTES = 32;

export class Log {
  readonly name: string;
  readonly uuid: Uint8Array;
  readonly sync: boolean;
  readonly readOnly: boolean;
  /** @internal */
  readonly loop: Loop;
  /** Counts changes of sources and snapshots: what was looked up under another version is looked up again. */
  version = 1;
  readonly #core: CoreExports;
  readonly #memory: CoreMemory;
  readonly #volumes = new Map<number, LogVolume>();
  readonly #subject: string;
  #closing: Promise<void> | undefined;
  #closed = false;
  #sources: readonly SourceState[] = [];
  #snapshots: readonly SnapshotState[] = [];
  #decoded = 0;
  /** Whose diff the core holds; another one begins anew where it stopped. */
  #diffOwner: object | undefined;

  private constructor(core: CoreExports, options: LogOptions) {
    this.#core = core;
    this.#memory = new CoreMemory(core.memory);
    this.loop = new Loop(core, this.#memory, options);
    this.name = options.name;
    this.uuid = bytes16(options.uuid, 'log uuid');
    this.sync = options.sync ?? false;
    this.readOnly = options.readOnly ?? false;
    this.#subject = `the log of '${options.name}'`;
    const { leafBlocks = 0, checkpointEntries = 0, unflushedLimitBytes = 0, sumsCacheBytes = 0 } = options.geometry ?? {};
    this.#succeed('configure', () => core.configure(leafBlocks, checkpointEntries, unflushedLimitBytes, sumsCacheBytes));
    for (const volume of options.volumes) this.addVolume(volume);
    if (options.policy) this.setPolicy(options.policy);
  }

  /**
   * Makes an empty log on storage volumes that nothing else uses: writes the first roots.
   * @throws VarveError VARVE_IO, VARVE_NO_SPACE
   */
  static async create(options: CreateLogOptions): Promise<Log> {
    const log = new Log(await instantiateCore(options.core), options);
    await log.#begin(() => log.loop.run(KIND.CREATE, 0, 0, createPayload(options), log.#subject));
    return log;
  }

  static createSync(options: CreateLogOptions): Log {
    const log = new Log(instantiateCoreSync(options.core), { ...options, sync: true });
    log.loop.runSync(KIND.CREATE, 0, 0, createPayload(options), log.#subject);
    return log;
  }

  /**
   * Opens a log: recovers what was flushed, and for writing commits a root with a new incarnation.
   * @throws VarveError VARVE_CORRUPT, VARVE_IO, VARVE_FENCED, VARVE_UNSUPPORTED (an unknown format)
   */
  static async open(options: LogOptions): Promise<Log> {
    const log = new Log(await instantiateCore(options.core), options);
    await log.#begin(() => log.loop.run(KIND.OPEN, log.readOnly ? 1 : 0, 0, log.uuid, log.#subject));
    return log;
  }

  static openSync(options: LogOptions): Log {
    const log = new Log(instantiateCoreSync(options.core), { ...options, sync: true });
    log.loop.runSync(KIND.OPEN, log.readOnly ? 1 : 0, 0, log.uuid, log.#subject);
    return log;
  }

  async #begin(first: () => Promise<unknown>): Promise<void> {
    try {
      await first();
    } catch (error) {
      this.loop.stop('VARVE_CLOSED');
      await this.loop.idle(); // the caller may close its devices now
      throw error;
    }
  }

  /** All devices keep what was flushed when the process ends. */
  get persistent(): boolean {
    for (const volume of this.#volumes.values())
      for (const member of volume.members) if (member && !member.supports.persistent) return false;
    return true;
  }

  get closed(): boolean {
    return this.#closed || this.#closing !== undefined;
  }

  // ——— storage volumes ———

  /** The storage volumes of the log, in the order of assignment. */
  volumes(): readonly LogVolume[] {
    return [...this.#volumes.values()];
  }

  /**
   * Gives the log a storage volume: before it is opened all that are assigned, later one by which it grows (the catalogue is committed first).
   * @throws VarveError VARVE_UNSUPPORTED when the log is synchronous and a member is not; VARVE_EXISTS, VARVE_LIMIT
   */
  addVolume(volume: LogVolume): void {
    const doing = `adding storage volume ${volume.id} to ${this.#subject}`;
    if (this.sync && volume.members.some((member) => member && !isSyncDevice(member))) {
      throw new VarveError('VARVE_UNSUPPORTED', doing, { detail: 'a member does not work synchronously' });
    }
    // Before the core hears of it: it may plan I/O on it at once.
    volume.members.forEach((member, index) => this.#setDevice(volume.id, index, member));
    this.#succeed(doing, () =>
      this.#core.volumeAdd(
        volume.id,
        volume.level,
        volume.members.length,
        volume.stripBlocks,
        volume.segmentBlocks,
        volume.segmentCount,
        volume.dataOffset,
        volume.rootFrontOffset,
        volume.rootBackOffset,
      ),
    );
    this.#volumes.set(volume.id, volume);
    volume.members.forEach((device, index) => {
      const state = device === undefined && volume.level > 0 ? 'out' : (volume.states?.[index] ?? 'online');
      if (state !== 'online') this.setMember(volume.id, index, state);
    });
    if (this.loop.opened) this.loop.progressed(true);
  }

  /** What a member is from now on; the catalogue says so already. */
  setMember(volumeId: number, member: number, state: MemberState): void {
    this.#succeed(
      `changing member ${member} of storage volume ${volumeId} of ${this.#subject}`,
      () => this.#core.memberSet?.(volumeId, member, MEMBER_NUMBER[state]) ?? 0,
    );
    if (this.loop.opened) this.loop.progressed();
  }

  /** Another device in the place of a member, or none. I/O that is in flight ends on the old one. */
  setDevice(volumeId: number, member: number, device: StorageDevice | undefined): void {
    const volume = this.#volumes.get(volumeId);
    if (!volume) throw new VarveError('VARVE_NOT_FOUND', `replacing a member of storage volume ${volumeId} of ${this.#subject}`);
    this.#volumes.set(volumeId, { ...volume, members: volume.members.with(member, device) });
    this.#setDevice(volumeId, member, device);
  }

  #setDevice(volumeId: number, member: number, device: StorageDevice | undefined): void {
    if (device) this.loop.devices.set(deviceHandle(volumeId, member), device);
    else this.loop.devices.delete(deviceHandle(volumeId, member));
  }

  /** Begins to move everything off a storage volume. Background tickets do it; the `changed` hook tells of progress. */
  evacuateVolume(id: number): void {
    this.#succeed(`evacuating storage volume ${id} of ${this.#subject}`, () => this.#core.volumeEvacuate(id));
    this.loop.progressed();
  }

  volumeState(id: number): VolumeState {
    return VOLUME_STATES[this.#call(() => this.#core.volumeState(id))] ?? 'unknown';
  }

  /** Takes a storage volume out. Its state must be `released`, and the catalogue committed without it. */
  removeVolume(id: number): void {
    this.#succeed(`removing storage volume ${id} from ${this.#subject}`, () => this.#core.volumeRemove(id));
    const volume = this.#volumes.get(id);
    this.#volumes.delete(id);
    volume?.members.forEach((_, index) => this.#setDevice(id, index, undefined));
    this.loop.progressed();
  }

  /** 0 no, 1 the policy says so, 2 a waiting write cannot proceed without one. */
  wantsVolume(): 0 | 1 | 2 {
    return this.#call(() => this.#core.wantsVolume()) as 0 | 1 | 2;
  }

  /** A storage volume that the policy would evacuate. */
  canGiveVolume(): number | undefined {
    const id = this.#call(() => this.#core.canGiveVolume()) | 0;
    return id < 0 ? undefined : id;
  }

  setPolicy(policy: LogPolicy): void {
    const { growAt, compactTo, shrinkBelow, mode, volumesMin, volumesMax } = policy;
    this.#call(() => this.#core.policySet(growAt, compactTo, shrinkBelow, mode === 'fixed' ? 1 : 0, volumesMin, volumesMax || 0xffffffff));
    if (this.loop.opened) this.loop.growthPossible();
  }

  /** The pool has more than when it said no: the growth hook is asked again. */
  growthPossible(): void {
    this.loop.growthPossible();
  }

  // ——— bytes ———

  /** Fills `into` from a space at an epoch (`EPOCH_NOW`: as it is). `subject` is for messages. */
  read(space: number, epoch: number, offset: number, into: Uint8Array, subject: string, signal?: AbortSignal): Promise<void> {
    return this.loop.transfer(KIND.READ, space, epoch, offset, into.length, into, subject, signal);
  }

  write(space: number, offset: number, from: Uint8Array, fua: boolean, subject: string, signal?: AbortSignal): Promise<void> {
    return this.loop.transfer(KIND.WRITE, space, fua ? 1 : 0, offset, from.length, from, subject, signal);
  }

  /** The range reads zero afterwards; whole blocks in it take no space any more. */
  trim(space: number, offset: number, length: number, subject: string, signal?: AbortSignal): Promise<void> {
    return this.loop.transfer(KIND.TRIM, space, 0, offset, length, undefined, subject, signal);
  }

  /** Everything acknowledged before the call is durable when it resolves. */
  flush(signal?: AbortSignal): Promise<void> {
    return this.loop.transfer(KIND.FLUSH, 0, 0, 0, 0, undefined, this.#subject, signal);
  }

  readSync(space: number, epoch: number, offset: number, into: Uint8Array, subject: string): void {
    this.loop.transferSync(KIND.READ, space, epoch, offset, into.length, into, subject);
  }

  writeSync(space: number, offset: number, from: Uint8Array, fua: boolean, subject: string): void {
    this.loop.transferSync(KIND.WRITE, space, fua ? 1 : 0, offset, from.length, from, subject);
  }

  trimSync(space: number, offset: number, length: number, subject: string): void {
    this.loop.transferSync(KIND.TRIM, space, 0, offset, length, undefined, subject);
  }

  flushSync(): void {
    this.loop.transferSync(KIND.FLUSH, 0, 0, 0, 0, undefined, this.#subject);
  }

  // ——— operations: durable when they resolve ———

  /** @returns the space of the new source. @throws VarveError VARVE_EXISTS, VARVE_LIMIT */
  createSource(volumeNumber: number, name: string, sizeBytes: number, signal?: AbortSignal): Promise<number> {
    const fields = { a: volumeNumber, b: sizeBytes, name: checkName(name, 'source') };
    return this.#operate(OPERATION.CREATE_SOURCE, fields, `source '${name}' of ${this.#subject}`, signal);
  }

  deleteSource(space: number, signal?: AbortSignal): Promise<number> {
    return this.#operate(OPERATION.DELETE_SOURCE, { a: space }, `a source of ${this.#subject}`, signal);
  }

  /** @param space only this source; left out: every source of the volume. @returns the snapshot's id. @throws VarveError VARVE_EXISTS, VARVE_LIMIT */
  snapshot(
    volumeNumber: number,
    name: string,
    options: { space?: number | undefined; createdAt?: number | undefined; signal?: AbortSignal | undefined } = {},
  ): Promise<number> {
    const { space = SPACE_NONE, createdAt = Date.now() } = options;
    const fields = { a: volumeNumber, b: createdAt, c: space, name: checkName(name, 'snapshot') };
    return this.#operate(OPERATION.SNAPSHOT, fields, `snapshot '${name}' of ${this.#subject}`, options.signal);
  }

  /** @throws VarveError VARVE_NOT_FOUND */
  deleteSnapshot(id: number, signal?: AbortSignal): Promise<number> {
    return this.#operate(OPERATION.DELETE_SNAPSHOT, { a: id }, `snapshot ${id} of ${this.#subject}`, signal);
  }

  /** A new virtual size; what is cut off is gone. */
  resize(space: number, sizeBytes: number, signal?: AbortSignal): Promise<number> {
    return this.#operate(OPERATION.RESIZE, { a: space, b: sizeBytes }, `the size of a source of ${this.#subject}`, signal);
  }

  /** Back to a snapshot; the state left is kept under `automaticName`. @returns the id of that automatic snapshot */
  rollback(snapshotId: number, automaticName: string, signal?: AbortSignal): Promise<number> {
    const fields = { a: snapshotId, b: Date.now(), name: checkName(automaticName, 'snapshot') };
    return this.#operate(OPERATION.ROLLBACK, fields, `rollback of ${this.#subject}`, signal);
  }

  async #operate(
    op: number,
    fields: Parameters<typeof encodeOperation>[1],
    subject: string,
    signal: AbortSignal | undefined,
  ): Promise<number> {
    try {
      // The core applies it in a step, and it is durable some I/O later: who holds a picture of before takes a new one from that step on.
      return await this.loop.run(KIND.OPERATION, 0, 0, encodeOperation(op, fields), subject, signal, () => void this.version++);
    } finally {
      this.version++; // also when it failed or was aborted: it may have been applied
    }
  }

  async checkpoint(): Promise<void> {
    await this.loop.run(KIND.CHECKPOINT, 0, 0, undefined, this.#subject);
  }

  /**
   * Compacts segments as long as there is something to gain.
   * @returns how many were compacted
   */
  async compact(
    options: { signal?: AbortSignal | undefined; onProgress?: ((segments: number) => void) | undefined } = {},
  ): Promise<number> {
    // Each victim is emptied once: more than twice all segments would be going round in circles.
    const most = 2 * this.figures().segmentCount;
    let segments = 0;
    while (segments < most && (await this.loop.run(KIND.COMPACT, 0, 1, undefined, this.#subject, options.signal)) !== 0) {
      segments++;
      options.onProgress?.(segments);
    }
    return segments;
  }

  /** Reads and verifies everything on disk that is in use, and changes nothing. What is not flushed yet is not on disk. Checkpoints wait meanwhile. */
  check(signal?: AbortSignal): Promise<LogProblem[]> {
    return this.#findings(0, signal);
  }

  /** The bytes in use: exactly those of which a check finds each flipped bit. */
  usedRanges(signal?: AbortSignal): Promise<LogRange[]> {
    return this.#findings(1, signal);
  }

  /**
   * Reads every slot in use on every member of the storage volumes that have something redundant, and mends what is wrong (`report`: only says so).
   * @returns what could not be mended, and the places that were, or would be
   */
  async scrub(options: ScrubOptions = {}): Promise<{ problems: LogProblem[]; mended: LogProblem[] }> {
    const { problems, mended } = await this.#mend(SPACE_NONE, options.report === true ? 1 : 0, options);
    return { problems, mended };
  }

  /**
   * Fills the members of a storage volume that are being rebuilt, all of it or in parts. When it resolves without `next` they are whole, and may be set online.
   * With `next`, what lies before that place is durable on them, and stays right while they are rebuilding, across closing and crashes too: a later call
   * goes on from there.
   */
  async rebuild(volumeId: number, options: RebuildOptions = {}): Promise<RebuildResult> {
    const { from = 0, segments = 0, ...rest } = options;
    const { result, ...found } = await this.#mend(volumeId, 2, rest, from, segments);
    return { ...found, next: result > 0 ? result : undefined };
  }

  /** Ends a scrub, which rejects with VARVE_CLOSED, or a rebuild, which resolves with `next` when it has done something. */
  cancelScrub(): void {
    this.#call(() => this.#core.scrubCancel?.());
  }

  async #mend(
    volumeId: number,
    mode: number,
    options: ScrubOptions,
    from = 0,
    segments = 0,
  ): Promise<{ problems: LogProblem[]; mended: LogProblem[]; result: number }> {
    if (this.#core.scrubCancel === undefined) return { problems: [], mended: [], result: 0 }; // a core without RAID: nothing is redundant
    const problems: LogProblem[] = [];
    const mended: LogProblem[] = [];
    let failure: { readonly error: unknown } | undefined;
    const take = (): void => {
      while (this.#core.problemTake() !== 0) {
        const finding = decodeFinding(this.#memory.slice(this.#core.exchange() >>> 0, FINDING_BYTES));
        (finding.failure === 0 ? mended : problems).push(finding);
      }
      if (failure !== undefined) return;
      try {
        options.onProgress?.(this.#core.figure(23), this.#core.figure(24));
      } catch (error) {
        // The caller's, and nothing of the log's: it ends the scrub, and not what steps it.
        failure = { error };
        queueMicrotask(stop);
      }
    };
    const stop = (): void => this.cancelScrub();
    options.signal?.addEventListener('abort', stop, { once: true });
    try {
      const result = await this.loop.run(KIND.SCRUB, volumeId, mode, undefined, this.#subject, undefined, take, from, segments);
      if (failure !== undefined) throw failure.error;
      return { problems, mended, result };
    } catch (error) {
      options.signal?.throwIfAborted();
      throw failure === undefined ? error : failure.error;
    } finally {
      options.signal?.removeEventListener('abort', stop);
    }
  }

  async #findings(mode: 0 | 1, signal: AbortSignal | undefined): Promise<LogProblem[]> {
    const findings: LogProblem[] = [];
    // The core keeps few of them: they are taken after each step.
    const take = (): void => {
      while (this.#core.problemTake() !== 0) findings.push(decodeFinding(this.#memory.slice(this.#core.exchange() >>> 0, FINDING_BYTES)));
    };
    await this.loop.run(KIND.CHECK, 0, mode, undefined, this.#subject, signal, take);
    return findings;
  }

  // ——— state ———

  get epoch(): number {
    return this.#call(() => this.#core.currentEpoch()) >>> 0;
  }

  /** All sources of all virtual volumes in the log, with figures of this moment. */
  sources(): readonly SourceState[] {
    const count = this.#call(() => this.#core.sourceCount());
    const sources: SourceState[] = [];
    for (let index = 0; index < count; index++) {
      const bytes = this.#exchanged((core) => core.sourceGet(index));
      if (bytes) sources.push(decodeSource(bytes));
    }
    return sources;
  }

  /** Mapped in the current state of a source, with what it stands on: that is counted, so it takes time in proportion. */
  async countMapped(source: SourceState, signal?: AbortSignal): Promise<number> {
    if (!source.standsOnAnother) return source.mappedBytes;
    let bytes = 0;
    for await (const { length, kind } of this.diff(() => ({ from: undefined, to: { ...source, epoch: EPOCH_NOW } }), signal))
      if (kind === 'data') bytes += Math.ceil(length / BLOCK_BYTES) * BLOCK_BYTES;
    return bytes;
  }

  /** All snapshots of all virtual volumes in the log, oldest first. */
  snapshots(): readonly SnapshotState[] {
    this.#decode();
    return this.#snapshots;
  }

  /** One source of a virtual volume; its `mappedBytes` may be old. */
  findSource(volumeNumber: number, name: string): SourceState | undefined {
    this.#decode();
    return this.#sources.find((source) => source.volumeNumber === volumeNumber && source.name === name);
  }

  findSnapshot(volumeNumber: number, name: string): SnapshotState | undefined {
    this.#decode();
    return this.#snapshots.find((snapshot) => snapshot.volumeNumber === volumeNumber && snapshot.name === name);
  }

  #decode(): void {
    if (this.#decoded === this.version) return;
    const { version } = this;
    this.#sources = this.sources();
    const count = this.#call(() => this.#core.snapshotCount());
    const snapshots: SnapshotState[] = [];
    for (let index = 0; index < count; index++) {
      const bytes = this.#exchanged((core) => core.snapshotGet(index));
      if (bytes) snapshots.push(decodeSnapshot(bytes));
    }
    this.#snapshots = snapshots;
    this.#decoded = version;
  }

  figures(): LogFigures {
    const figure = (n: number): number => this.#call(() => this.#core.figure(n));
    return {
      capacityBytes: figure(0) * BLOCK_BYTES,
      liveBytes: figure(1) * BLOCK_BYTES,
      usedBytes: [...this.#volumes.keys()].reduce((sum, id) => sum + this.volumeFigures(id).usedBytes, 0),
      freeSegments: figure(2),
      reserveSegments: figure(3),
      segmentCount: figure(4),
      segmentsHeld: figure(4) - figure(2),
      dataBytesWritten: (figure(5) - figure(8)) * BLOCK_BYTES,
      metadataBytesWritten: figure(6) * BLOCK_BYTES,
      paddingBytesWritten: figure(7) * BLOCK_BYTES,
      movedBytes: figure(8) * BLOCK_BYTES,
      healedBytes: figure(22) * BLOCK_BYTES,
      sequence: figure(9),
      durableSequence: figure(10),
      incarnation: figure(11),
      generation: figure(16),
      checkpoints: figure(18),
      replayedEntries: figure(15),
      unflushedBytes: figure(14) * BLOCK_BYTES,
      heapUsedBytes: figure(12),
      heapExtentBytes: figure(13),
      failedReadOnly: figure(19) !== 0,
    };
  }

  volumeFigures(id: number): LogVolumeFigures {
    const figure = (n: number): number => this.#call(() => this.#core.volumeFigure(id, n));
    const segmentsHeld = figure(1);
    return {
      segmentCount: figure(0),
      segmentsHeld,
      liveBytes: figure(2) * BLOCK_BYTES,
      usedBytes: segmentsHeld * (this.#volumes.get(id)?.segmentBlocks ?? 0) * BLOCK_BYTES,
      state: VOLUME_STATES[figure(3)] ?? 'unknown',
    };
  }

  /** A counter of a rare path, for tests. */
  counter(n: number): number {
    return this.#call(() => this.#core.counter?.(n) ?? 0);
  }

  /** Planted builds: switches a planted fault on, for tests of the tests. */
  plant(n: number): void {
    if (!this.#core.plant) throw new VarveError('VARVE_UNSUPPORTED', 'planting a fault', { detail: 'this build of the core has none' });
    this.#core.plant(n);
  }

  /**
   * What changed between two states, in ascending order, in runs of whole blocks; adjacent runs of one kind are one. `from` undefined: everything
   * that `to` maps. Between the states of two snapshots it is stable whatever is written meanwhile.
   * @param find looks the states up, at once and whenever sources or snapshots have changed: throws when one of them is gone
   */
  diff(
    find: () => { readonly from: DiffState | undefined; readonly to: DiffState },
    signal?: AbortSignal,
  ): AsyncGenerator<DiffRun, void, undefined> {
    const owner = {};
    let { from, to } = find();
    let version = this.version;
    const { sizeBytes } = to;
    return diffRuns(
      {
        begin: (block) => {
          this.#diffOwner = owner;
          ({ from, to } = find());
          version = this.version;
          const failure = this.#call(() => this.#core.diffBegin(from?.space ?? SPACE_NONE, from?.epoch ?? 0, to.space, to.epoch, block));
          if (failure !== 0) throw errorFromCore(failure, `diff of ${this.#subject}`);
        },
        isOurs: () => this.#diffOwner === owner && this.version === version,
        next: () => {
          const kind = this.#call(() => this.#core.diffNext());
          return kind === 1
            ? { block: this.#core.diffBlock(), count: this.#core.diffCount(), kind: this.#core.diffKind() === 2 ? 'hole' : 'data' }
            : kind === 0
              ? 'end'
              : 'more';
        },
      },
      sizeBytes,
      signal,
    );
  }

  // ——— the end ———

  /**
   * Waits for the calls that are under way, flushes, commits a clean root. Idempotent. The devices stay open: they are the pool's.
   * @throws VarveError also when the log has failed before: what was acknowledged and not flushed is lost then
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    try {
      if (!this.loop.dead) await this.loop.quiet();
      const failure = this.loop.failure(`closing ${this.#subject}`);
      if (failure !== undefined) throw failure;
      if (!this.loop.dead) await this.loop.run(KIND.CLOSE, 0, 0, undefined, this.#subject);
    } finally {
      await this.abandon();
    }
  }

  /** As if the process ended here: nothing more is written, what is in flight ends, all calls reject. For crashes in tests, and after errors. */
  async abandon(): Promise<void> {
    this.#closed = true;
    this.loop.stop('VARVE_CLOSED');
    await this.loop.idle();
  }

  // ——— the core ———

  #call<T>(call: () => T): T {
    return this.loop.guarded(this.#subject, call);
  }

  /** A call that returns a failure code, 0 for none. */
  #succeed(doing: string, call: () => number): void {
    const failure = this.#call(call);
    if (failure !== 0) throw errorFromCore(failure, doing);
  }

  /** A call that fills the exchange buffer and returns a length, 0 for nothing. The bytes are a view: decode at once. */
  #exchanged(call: (core: CoreExports) => number): Uint8Array | undefined {
    return this.#call(() => {
      const length = call(this.#core) >>> 0;
      if (length === 0 || length > EXCHANGE_BYTES) return undefined;
      return this.#memory.slice(this.#core.exchange() >>> 0, length);
    });
  }
}

export { EPOCH_NOW };

function bytes16(bytes: Uint8Array, what: string): Uint8Array {
  if (!(bytes instanceof Uint8Array)) throw new TypeError(`${what}: expected a Uint8Array of 16 bytes`);
  if (bytes.length !== 16) throw new RangeError(`${what}: expected 16 bytes, got ${bytes.length}`);
  return bytes.slice();
}

function createPayload(options: CreateLogOptions): Uint8Array {
  const payload = new Uint8Array(32);
  payload.set(bytes16(options.uuid, 'log uuid'), 0);
  payload.set(bytes16(options.key, 'log key'), 16);
  return payload;
}
