// A storage pool: storage volumes, the catalogue that says whose they are, and the logs that stand on them.
//
// Everything that changes the catalogue runs under one mutex (keeper.ts), and in these orders, each step durable before the next:
//
//   create   new storage volume: file, labels, its directory → the log's first roots and its source → catalogue with volume, log and name
//   grow     new storage volume: file, labels, its directory → catalogue with the volume assigned → the core hears of it
//   shrink   the core moves everything off and commits roots without it → catalogue without it (its file in `retired`) → the core forgets it →
//            the file is deleted
//   delete   the log stops → catalogue without name, log and volumes (their files in `retired`) → the files are deleted
//   heal     labels of one side from the other → the catalogue anew on both sides of every member
//   fault    catalogue with the member faulted → the core hears of it, and acknowledges what waited
//   replace  labels on the new device → catalogue with it as a member that is being rebuilt → the core writes to it → everything in use is copied or
//            computed → catalogue with it online → the core reads it
//
// So a file that the catalogue does not name holds nothing, a file that it names exists with its labels, and no volume belongs to two logs.
//
// Nothing here knows files. Where devices come from is a `PoolPlace`'s business (directory.ts for files).

import type { StorageDevice } from '../device/device.ts';
import { isVarveError, messageOf, VarveError } from '../errors.ts';
import { checkName, normalName } from '../names.ts';
import { parseVirtualSize } from '../units.ts';
import { Log, type LogPolicy, type LogVolume } from '../volume/log.ts';
import { DEFAULT_SOURCE } from '../volume/source.ts';
import { VirtualVolume } from '../volume/volume.ts';
import { createParts, openParts, type CreatePoolOptions, type PoolOptions } from './assemble.ts';
import type { Catalogue, MemberRecord, StorageVolumeRecord, VirtualVolumeRecord } from './catalogue.ts';
import { byId, Keeper, type PoolParts } from './keeper.ts';
import { randomUuid, uuidBytes } from './label.ts';
import { Member } from './member.ts';
import { stripBlocksOf } from './make.ts';
import { GivenPlace, type FoundDevice } from './place.ts';
import { checkPolicy, type VolumePolicy } from './policy.ts';
import { checkLevel, type RaidLevel } from './raid.ts';
import { reclaim } from './reclaim.ts';
import {
  checkPool,
  describePool,
  scrubPool,
  statusOf,
  type CheckOptions,
  type CheckResult,
  type Logs,
  type PoolDescription,
  type PoolStatus,
  type ScrubPoolOptions,
  type ScrubResult,
} from './report.ts';

export interface CreateVolumeOptions {
  /** Virtual size, at most 2^52 bytes (4096 TiB); 0 or left out: adopted from what is replicated into it. */
  readonly size?: number | string | undefined;
  readonly policy?: Partial<VolumePolicy> | undefined;
  /** Name of its one source. A volume whose source is not `default` is used through `volume.source(name)`. */
  readonly source?: string | undefined;
}

/** A log that is open, or being opened. */
interface OpenLog {
  readonly uuid: string;
  readonly opening: Promise<Log>;
  log: Log | undefined;
  /** It is being made under the mutex: what it asks for in that time must not wait for the mutex. */
  creating: boolean;
  /** The members that failed in that time, one commit after the other; nothing else is committed before the last of them. */
  faulting: Promise<unknown>;
  /** Before the catalogue names it, a log must not grow. */
  growing: boolean;
  /** A storage volume that is being emptied. */
  evacuating: number | undefined;
  readonly waiters: (() => void)[];
  backgroundError: Error | undefined;
  /** Members are being filled. */
  rebuilding: Promise<void> | undefined;
  /** What the rebuilds since it was opened could not do. */
  unfilledBytes: number;
  damagedBytes: number;
}

export interface ReplaceResult {
  /** Bytes of the new device that could not be filled: what they are made of cannot be read now. `scrub` fills them when it can be. */
  readonly unfilledBytes: number;
  /** Bytes of blocks that no member, and nothing that the others can be combined to, has whole: they were lost before. `check` names them. */
  readonly damagedBytes: number;
}

const BLOCK_BYTES = 4096;
/** A few seconds' work: a commit of the catalogue after it costs next to nothing, and so much at most is done again after a crash. */
const REBUILD_PART_BYTES = 512 * 1048576;

/** An evacuation that does not free a segment in this time is stuck. */
const EVACUATION_PATIENCE_MS = 30_000;
/** One that stands still for so long is helped by a checkpoint. */
const EVACUATION_PUSH_MS = 300;

export class StoragePool extends EventTarget {
  readonly sync: boolean;
  readonly #keeper: Keeper;
  readonly #options: PoolOptions;
  readonly #logs = new Map<string, OpenLog>();
  readonly #stop = new AbortController();
  /** Logs whose volume is being deleted: opened again now, they would write to storage volumes that are another's by then. */
  readonly #deleting = new Set<string>();
  #closing: Promise<void> | undefined;

  /** @internal */
  protected constructor(parts: PoolParts, options: PoolOptions) {
    super();
    this.#keeper = new Keeper(parts);
    this.#options = options;
    this.sync = options.sync ?? false;
    this.#keeper.onOut = (volumeId, member) => this.#logOf(volumeId)?.setMember(volumeId, member, 'out');
    // No log goes on without the lock: what is not durable yet is not to be written by us any more.
    parts.place.onLost = (error) => {
      for (const { log } of this.#logs.values()) log?.loop.stop(error.code, error.message, error);
    };
  }

  /**
   * A new pool on these devices: each a storage volume, or all of them one of a RAID level; what was on them is lost. Closing the pool closes them.
   *
   * @throws VarveError `VARVE_LIMIT` when a device is too small (1 MiB is enough), `VARVE_IO`
   */
  static async create(devices: readonly StorageDevice[], options: CreatePoolOptions = {}): Promise<StoragePool> {
    return new StoragePool(await createParts(new GivenPlace(options.provide), devices.map(unnamed), options), options);
  }

  /**
   * The pool on these devices. Closing the pool closes them.
   *
   * @throws VarveError `VARVE_NOT_FOUND`, `VARVE_CORRUPT`, `VARVE_FENCED`, `VARVE_UNSUPPORTED`, `VARVE_IO`
   */
  static async openDevices(
    devices: readonly StorageDevice[],
    options: PoolOptions & Pick<CreatePoolOptions, 'provide'> = {},
  ): Promise<StoragePool> {
    const pool = new StoragePool(await openParts(new GivenPlace(options.provide), devices.map(unnamed), options), options);
    await pool.settle();
    return pool;
  }

  get id(): string {
    return this.#keeper.id;
  }

  get readOnly(): boolean {
    return this.#keeper.readOnly;
  }

  get path(): string | null {
    return this.#keeper.place.path;
  }

  /** Counts commits of the catalogue. */
  get generation(): number {
    return this.#keeper.generation;
  }

  /** Things worth knowing that are no damage. */
  get notes(): readonly string[] {
    return this.#keeper.notes;
  }

  /** With so many storage volumes in the pool none is made on demand. */
  get maxVolumes(): number {
    return this.#keeper.catalogue.settings.maxVolumes;
  }

  /** Names of the virtual volumes, in order of creation. */
  get volumes(): readonly string[] {
    return this.#keeper.catalogue.virtualVolumes.map((record) => record.name);
  }

  // ——— virtual volumes ———

  /**
   * A new virtual volume, thin: it takes one storage volume now and more when it needs them.
   *
   * @throws VarveError `VARVE_EXISTS`, `VARVE_NO_SPACE` when the pool has no storage volume to give
   * @throws RangeError when the size is above 2^52 bytes
   */
  async createVolume(name: string, options: CreateVolumeOptions = {}): Promise<VirtualVolume> {
    const normal = checkName(name, 'volume');
    const policy = checkPolicy(options.policy);
    const sizeBytes = parseVirtualSize(options.size ?? 0, 'virtual size');
    const source = checkName(options.source ?? DEFAULT_SOURCE, 'source');
    const doing = `creating volume '${normal}'`;
    this.#checkWritable(doing);
    return this.#keeper.exclusive(async () => {
      if (this.#keeper.find(normal) !== undefined) throw new VarveError('VARVE_EXISTS', doing);
      const made: Member[] = [];
      const uuid = randomUuid();
      let open: OpenLog | undefined;
      try {
        const volumes: StorageVolumeRecord[] = [];
        for (let count = 0; count < policy.minVolumes; count++) volumes.push(await this.#keeper.takeVolume(doing, volumes, made));
        open = this.#startLog(uuid, normal, (hooks) =>
          Log.create({
            ...hooks,
            name: normal,
            uuid: uuidBytes(uuid),
            key: globalThis.crypto.getRandomValues(new Uint8Array(16)),
            volumes: volumes.map((volume) => this.#keeper.logVolume(volume, made)),
            policy: corePolicy(policy, this.#keeper.catalogue),
          }),
        );
        open.creating = true; // nothing of it runs before the next turn
        const log = await open.opening;
        await log.createSource(0, source, sizeBytes);
        open.creating = false;
        await open.faulting;
        await this.#keeper.commit((catalogue) => {
          const ids = new Set(volumes.map((volume) => volume.id));
          // As they are by now: a member may have failed meanwhile.
          const taken = volumes.map((volume) => assigned(catalogue.storageVolumes.find(({ id }) => id === volume.id) ?? volume));
          return {
            ...catalogue,
            storageVolumes: [...catalogue.storageVolumes.filter((volume) => !ids.has(volume.id)), ...taken].sort(byId),
            logs: [...catalogue.logs, { uuid, volumes: volumes.map((volume) => volume.id) }],
            virtualVolumes: [...catalogue.virtualVolumes, { name: normal, log: uuid, number: 0, policy, createdAt: Date.now() }],
          };
        }, made);
        open.growing = true;
        log.growthPossible();
        return new VirtualVolume(log, normal, 0);
      } catch (error) {
        await open?.opening.then((log) => log.abandon()).catch(() => undefined);
        await open?.faulting;
        this.#logs.delete(uuid);
        if (!this.#keeper.isNamed(made)) for (const member of made) await this.#keeper.discardMember(member);
        throw error;
      }
    });
  }

  /**
   * Deletes a virtual volume with all its snapshots, and gives its storage volumes back.
   *
   * @throws VarveError `VARVE_NOT_FOUND`
   */
  async deleteVolume(name: string): Promise<void> {
    const normal = normalName(name, 'volume');
    const doing = `deleting volume '${normal}'`;
    this.#checkWritable(doing);
    // One that is being opened may need the mutex for that.
    await this.#logs.get(this.#keeper.need(normal, doing).log)?.opening.catch(() => undefined);
    await this.#keeper.exclusive(async () => {
      const record = this.#keeper.need(normal, doing);
      if (this.#keeper.catalogue.virtualVolumes.some((other) => other.log === record.log && other.name !== record.name)) {
        throw new VarveError('VARVE_UNSUPPORTED', doing, { detail: 'another volume shares its log' });
      }
      const open = this.#logs.get(record.log);
      this.#logs.delete(record.log);
      this.#deleting.add(record.log);
      try {
        await open?.opening.then((log) => log.abandon()).catch(() => undefined);
        const ids = new Set(this.#keeper.logRecord(record.log).volumes);
        const given = await this.#keeper.commitWithout(ids, (catalogue) => ({
          ...catalogue,
          logs: catalogue.logs.filter((log) => log.uuid !== record.log),
          virtualVolumes: catalogue.virtualVolumes.filter((volume) => volume.name !== record.name),
        }));
        await this.#keeper.removeRetired(given);
      } finally {
        // When it failed, the volume is still there; when nobody knows whether it failed, it must not be written to.
        if (!this.#keeper.stuck) this.#deleting.delete(record.log);
      }
    });
    for (const { log } of this.#logs.values()) log?.growthPossible();
  }

  /**
   * A virtual volume, its log opened when this is the first call for it. Each call gives a handle of its own.
   *
   * @throws VarveError `VARVE_NOT_FOUND`, `VARVE_CORRUPT`, `VARVE_IO`
   */
  async volume(name: string): Promise<VirtualVolume> {
    const doing = `opening volume '${name}'`;
    this.#checkOpen(doing);
    const record = this.#keeper.need(normalName(name, 'volume'), doing);
    const log = await this.#openLog(record);
    return new VirtualVolume(log, record.name, record.number);
  }

  has(name: string): boolean {
    return this.#keeper.find(normalName(name, 'volume')) !== undefined;
  }

  /** Which volume it is, whatever else had the name before. @internal */
  logOf(name: string): string {
    return this.#keeper.need(name, `looking for '${name}'`).log;
  }

  policyOf(name: string): VolumePolicy {
    return this.#keeper.need(normalName(name, 'volume'), `reading the policy of '${name}'`).policy;
  }

  // ——— figures ———

  async status(): Promise<PoolStatus> {
    this.#checkOpen('reading the status');
    return statusOf(this.#keeper, this.#reported());
  }

  /** Verifies everything that is in use on every device: labels, catalogues, and all of every log. Changes nothing. */
  async check(options: CheckOptions = {}): Promise<CheckResult> {
    this.#checkOpen('checking the pool');
    return checkPool(this.#keeper, this.#reported(), options);
  }

  /** What is on the devices, for people and for tests that look for damage: the bytes that the pool itself uses, and what the logs say. */
  async describe(options: { readonly signal?: AbortSignal | undefined } = {}): Promise<PoolDescription> {
    this.#checkOpen('describing the pool');
    return describePool(this.#keeper, this.#reported(), options.signal);
  }

  #reported(): Logs {
    return { open: (record) => this.#openLog(record), opened: (uuid) => this.#logs.get(uuid)?.log };
  }

  // ——— maintenance ———

  /**
   * Does what is otherwise left to the background or to the next call: gives storage volumes back that are not needed, and (in sync mode) makes the spare
   * that growth inside a synchronous call needs.
   */
  async maintain(options: { readonly signal?: AbortSignal | undefined } = {}): Promise<void> {
    this.#checkWritable('maintaining the pool');
    for (const open of Array.from(this.#logs.values())) {
      const log = await open.opening;
      while (!log.closed && !log.loop.dead) {
        options.signal?.throwIfAborted();
        this.#consider(open);
        if (open.evacuating === undefined) break;
        if (!(await this.#evacuated(open, options.signal))) break;
      }
    }
    if (this.sync && this.#keeper.catalogue.virtualVolumes.some((record) => this.#mayGrow(record))) {
      await this.#keeper.exclusive(() => this.#keeper.makeSpare());
      // A log that was refused one does not ask again by itself; one that takes this spare at once leaves none for the next call.
      for (const { log } of this.#logs.values()) log?.growthPossible();
      await this.#keeper.exclusive(() => this.#keeper.makeSpare());
    }
  }

  async close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    const errors: unknown[] = [];
    const attempt = async (step: () => unknown): Promise<void> => {
      try {
        await step();
      } catch (error) {
        errors.push(error);
      }
    };
    this.#stop.abort();
    // Growth that is under way ends first; new calls are refused from now on.
    await this.#keeper.idle();
    for (const open of this.#logs.values()) {
      const log = await open.opening.catch(() => undefined);
      if (log === undefined) continue;
      open.growing = !this.readOnly;
      await open.rebuilding;
      await attempt(() => (this.readOnly ? log.abandon() : log.close()));
    }
    await this.#keeper.idle();
    if (this.#options.discard === true && !this.readOnly && errors.length === 0)
      await attempt(() => reclaim(this.#keeper, this.#options.core));
    for (const member of [...this.#keeper.members.values(), ...this.#keeper.away.values()]) await attempt(() => member.device.close());
    await attempt(() => this.#keeper.place.release());
    // That there was no room for a checkpoint is the least of what may have gone wrong.
    if (errors.length > 0) throw errors.find((error) => !isVarveError(error, 'VARVE_NO_SPACE')) ?? errors[0];
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /**
   * After opening for writing: mends what opening has found, completes a commit that was cut off, deletes what the pool gave up.
   * @internal
   */
  protected async settle(): Promise<void> {
    if (this.readOnly) return;
    await this.#keeper.exclusive(() => this.#keeper.settle());
    // Members that are not there now; and one may have failed before a crash that came before the spare.
    await this.#takeSpares();
  }

  // ——— logs ———

  async #openLog(record: VirtualVolumeRecord): Promise<Log> {
    let open = this.#logs.get(record.log);
    if (open === undefined) {
      if (this.#deleting.has(record.log))
        throw new VarveError('VARVE_NOT_FOUND', `opening volume '${record.name}'`, { detail: 'it is being deleted' });
      const volumes = this.#keeper.logRecord(record.log).volumes.map((id) => this.#keeper.storageVolume(id));
      const absent = (device: MemberRecord): boolean => !this.#keeper.members.has(device.uuid);
      const missing = volumes.find((volume) => !this.#keeper.tolerates(volume, absent));
      if (missing !== undefined) {
        const names = missing.devices
          .filter((device) => device.state !== undefined || absent(device))
          .map((device) => device.path ?? device.uuid);
        const detail =
          missing.devices.length === 1
            ? `storage volume ${missing.id} is missing (${names.join(', ')})`
            : `storage volume ${missing.id} (RAID level ${missing.level}, ${missing.devices.length} members) cannot do without all of: ${names.join(', ')}`;
        throw new VarveError('VARVE_IO', `opening volume '${record.name}'`, { detail });
      }
      const current = (): LogVolume[] =>
        this.#keeper.logRecord(record.log).volumes.map((id) => this.#keeper.logVolume(this.#keeper.storageVolume(id), []));
      open = this.#startLog(record.log, record.name, async (hooks) => {
        const options = {
          ...hooks,
          name: record.name,
          uuid: uuidBytes(record.log),
          policy: corePolicy(record.policy, this.#keeper.catalogue),
        };
        try {
          return await Log.open({ ...options, volumes: current() });
        } catch (error) {
          // A member that went in the middle of opening may have taken the unflushed tail with it: the next open goes without both.
          if (!isVarveError(error, 'VARVE_IO') || volumes.every((volume) => volume.devices.length === 1)) throw error;
          return Log.open({ ...options, volumes: current() });
        }
      });
      open.growing = !this.readOnly;
    }
    try {
      return await open.opening;
    } catch (error) {
      this.#logs.delete(record.log); // the next call tries again
      throw error;
    }
  }

  #startLog(
    uuid: string,
    name: string,
    start: (hooks: Omit<Parameters<typeof Log.open>[0], 'name' | 'uuid' | 'volumes'>) => Promise<Log>,
  ): OpenLog {
    // `growth` and `changed` are called no earlier than in the next turn of a log that is being opened: `open` is complete then.
    const open: { -readonly [K in keyof OpenLog]: OpenLog[K] } = {
      uuid,
      opening: undefined as unknown as Promise<Log>,
      log: undefined,
      creating: false,
      faulting: Promise.resolve(),
      growing: false,
      evacuating: undefined,
      waiters: [],
      backgroundError: undefined,
      rebuilding: undefined,
      unfilledBytes: 0,
      damagedBytes: 0,
    };
    this.#logs.set(uuid, open);
    open.opening = start({
      sync: this.sync,
      readOnly: this.readOnly,
      geometry: this.#options.geometry,
      core: this.#options.core,
      growth: this.readOnly ? undefined : () => this.#grow(open),
      growthSync: this.readOnly ? undefined : () => this.#growSync(open),
      fault: this.readOnly ? undefined : (volumeId, member) => this.#fault(open, volumeId, member),
      faultSync: this.readOnly ? undefined : (volumeId, member) => this.#faultSync(volumeId, member),
      fence: () => this.#keeper.place.fence?.(),
      changed: this.readOnly ? undefined : () => this.#changed(open),
      backgroundFailed: (error) => {
        open.backgroundError = error;
        this.#wake(open);
        this.#keeper.note(`volume '${name}': ${messageOf(error)}`);
      },
    }).then((log) => {
      open.log = log;
      if (open.growing) log.growthPossible();
      if (!this.readOnly) this.#rebuild(open);
      return log;
    });
    // Its caller awaits it; a second one may come too late to be the first to catch.
    open.opening.catch(() => undefined);
    return open;
  }

  // ——— members ———

  /** Opens every log: what is on a member that is to be filled is known to its log alone. */
  async #openLogs(): Promise<void> {
    for (const record of this.#keeper.catalogue.virtualVolumes) await this.#openLog(record);
  }

  #logOf(volumeId: number): Log | undefined {
    for (const { uuid, log } of this.#logs.values()) {
      if (log !== undefined && this.#keeper.catalogue.logs.find((record) => record.uuid === uuid)?.volumes.includes(volumeId)) return log;
    }
    return undefined;
  }

  /** A log's member failed a write: it is out when this resolves. A spare takes its place, if there is one. */
  async #fault(open: OpenLog, volumeId: number, member: number): Promise<boolean> {
    const fault = async (): Promise<boolean> => {
      const record = this.#keeper.memberAt(volumeId, member);
      if (record.state === 'faulted') return true;
      await this.#keeper.setStates(new Set([record.uuid]), 'faulted');
      this.#keeper.note(`storage volume ${volumeId}: member ${member} (${record.path ?? record.uuid}) failed and is faulted`);
      queueMicrotask(
        () =>
          void this.#takeSpare(volumeId, record.uuid).catch((error: unknown) => this.#keeper.note(`taking a spare: ${messageOf(error)}`)),
      );
      return true;
    };
    if (!open.creating) return this.#keeper.exclusive(fault);
    const turn = open.faulting.then(fault);
    open.faulting = turn.catch(() => undefined);
    return turn;
  }

  #faultSync(volumeId: number, member: number): boolean {
    if (this.#keeper.busy) return false;
    const record = this.#keeper.memberAt(volumeId, member);
    this.#keeper.setStatesSync(new Set([record.uuid]), 'faulted');
    this.#keeper.note(`storage volume ${volumeId}: member ${member} (${record.path ?? record.uuid}) failed and is faulted`);
    return true;
  }

  /** Fills the members of the log's storage volumes that are being rebuilt, one storage volume after the other. */
  #rebuild(open: OpenLog, onProgress?: (done: number, total: number) => void): void {
    const previous = open.rebuilding ?? Promise.resolve();
    const next = previous.then(async () => {
      for (;;) {
        const { log } = open;
        const record = this.#keeper.catalogue.logs.find((one) => one.uuid === open.uuid);
        if (log === undefined || log.closed || log.loop.dead || record === undefined || this.#stop.signal.aborted) return;
        const volume = record.volumes.map((id) => this.#keeper.storageVolume(id)).find((one) => one.devices.some(isRebuilding));
        if (volume === undefined) return;
        const filling = volume.devices.filter(isRebuilding);
        const members = new Set(filling.map((device) => device.uuid));
        // From where the least of them is filled. What is done is committed now and then, so that a crash costs no more than a part.
        const from = Math.min(...filling.map((device) => device.filled ?? 0));
        const segmentBytes = this.#keeper.logVolume(volume, []).segmentBlocks * BLOCK_BYTES;
        const segments = Math.max(1, Math.ceil((this.#options.rebuildPartBytes ?? REBUILD_PART_BYTES) / segmentBytes));
        const { problems, next } = await log.rebuild(volume.id, { signal: this.#stop.signal, onProgress, from, segments });
        const passedOver = new Set(problems.filter(({ structure }) => structure === 'row').map(({ offset }) => offset));
        for (const { structure, block, offset, bytes } of problems) {
          const unfilled = structure === 'row';
          if (unfilled) open.unfilledBytes += bytes;
          else if (!passedOver.has(offset)) open.damagedBytes += bytes;
          const where = unfilled ? `${bytes} bytes at ${offset} of each member` : `block ${block}`;
          this.#keeper.note(`storage volume ${volume.id}, ${where}: could not be rebuilt (${structure})`);
        }
        await this.#keeper.exclusive(() =>
          next === undefined ? this.#online(volume.id, members) : this.#keeper.setFilled(volume.id, members, next),
        );
      }
    });
    const mine = next.catch((error: unknown) => {
      if (!this.#stop.signal.aborted && !isVarveError(error, 'VARVE_CLOSED')) this.#keeper.note(`rebuilding: ${messageOf(error)}`);
    });
    open.rebuilding = mine;
  }

  /** Members that have been filled are read from now on. Only under the mutex. */
  async #online(volumeId: number, uuids: ReadonlySet<string>): Promise<void> {
    const { devices } = this.#keeper.storageVolume(volumeId);
    const whole = devices.filter((device) => isRebuilding(device) && uuids.has(device.uuid)).map((device) => device.uuid);
    if (whole.length === 0) return;
    await this.#keeper.setStates(new Set(whole), 'online');
    const log = this.#logOf(volumeId);
    // One that did not take the catalogue is out already.
    this.#keeper.storageVolume(volumeId).devices.forEach((device, index) => {
      if (whole.includes(device.uuid) && device.state === undefined) log?.setMember(volumeId, index, 'online');
    });
  }

  /**
   * One more storage volume over these devices, free for any volume; what was on them is lost. Closing the pool closes them.
   *
   * @returns its id
   * @throws VarveError `VARVE_LIMIT`, RangeError when the level does not take so many
   */
  async addStorageVolume(
    devices: readonly FoundDevice[],
    options: { readonly raid?: RaidLevel | undefined; readonly stripSize?: number | string | undefined } = {},
  ): Promise<number> {
    const doing = 'adding a storage volume';
    this.#checkWritable(doing);
    const level = checkLevel(options.raid ?? 'single', 'raid');
    const id = await this.#keeper.exclusive(() => this.#keeper.addVolume(doing, devices, level, stripBlocksOf(level, options.stripSize)));
    for (const { log } of this.#logs.values()) log?.growthPossible();
    return id;
  }

  /**
   * A device that takes the place of a member that fails, or is missing when the pool is opened for writing, by itself.
   *
   * @param options.only `'faulted'`: not of one that is missing, which may have been unplugged, and is rebuilt when it comes back. (One that returns after a spare
   *   has its place is no member any more, and left alone.)
   * @returns the id of the storage volume that it is until then
   */
  async addSpare(device: FoundDevice, options: { readonly only?: 'faulted' | undefined } = {}): Promise<number> {
    const doing = 'adding a spare';
    this.#checkWritable(doing);
    const id = await this.#keeper.exclusive(() => this.#keeper.addVolume(doing, [device], 'single', 0, options.only ?? 'out'));
    try {
      await this.#openLogs();
      await this.#takeSpares();
    } catch (error) {
      // It is a spare now, whatever keeps it from taking a place.
      this.#keeper.note(`taking a spare: ${messageOf(error)}`);
    }
    return id;
  }

  /**
   * Puts a device in the place of a member, failed or living, and fills it. Resolves when it is whole, so that the pool bears as much as before, but for single
   * places that could not be read.
   *
   * @param member path or uuid of the member that goes
   * @throws VarveError `VARVE_NOT_FOUND`, `VARVE_LIMIT` when the device is too small, `VARVE_UNSUPPORTED` when the level cannot do without the member
   */
  async replaceMember(
    volumeId: number,
    member: string,
    device: FoundDevice,
    options: { readonly onProgress?: ((done: number, total: number) => void) | undefined } = {},
  ): Promise<ReplaceResult> {
    const doing = `replacing a member of storage volume ${volumeId}`;
    this.#checkWritable(doing);
    await this.#openLogs();
    const placed = await this.#keeper.exclusive(async () => {
      const { index, old } = await this.#keeper.replaceMember(doing, volumeId, member, device);
      const { uuid } = this.#keeper.memberAt(volumeId, index);
      const log = this.#logOf(volumeId);
      log?.setMember(volumeId, index, 'out');
      log?.setDevice(volumeId, index, device.device);
      log?.setMember(volumeId, index, 'rebuilding');
      await log?.loop.idle(); // nothing is in flight on the one that goes
      await this.#keeper.removeRetired(old);
      return uuid;
    });
    const result = await this.#refill(volumeId, options.onProgress);
    if (this.#keeper.storageVolume(volumeId).devices.some(({ uuid, state }) => uuid === placed && state !== undefined))
      throw new VarveError('VARVE_IO', doing, { detail: 'the new device failed, and is out' });
    return result;
  }

  /** Fills what is to be filled of a storage volume; one that no log uses has nothing to be filled with. */
  async #refill(volumeId: number, onProgress?: (done: number, total: number) => void): Promise<ReplaceResult> {
    const log = this.#logOf(volumeId);
    const open = [...this.#logs.values()].find((one) => one.log === log && log !== undefined);
    if (open === undefined) {
      const owned = this.#keeper.catalogue.logs.some((record) => record.volumes.includes(volumeId));
      const rebuilding = this.#keeper
        .storageVolume(volumeId)
        .devices.filter(isRebuilding)
        .map((device) => device.uuid);
      if (!owned) await this.#keeper.exclusive(() => this.#online(volumeId, new Set(rebuilding)));
      return { unfilledBytes: 0, damagedBytes: 0 };
    }
    const { unfilledBytes, damagedBytes } = open;
    this.#rebuild(open, onProgress);
    await open.rebuilding;
    if (this.#keeper.storageVolume(volumeId).devices.some(isRebuilding))
      throw new VarveError('VARVE_IO', `rebuilding storage volume ${volumeId}`, {
        detail: this.#keeper.notes.at(-1) ?? 'it did not come to an end',
      });
    return { unfilledBytes: open.unfilledBytes - unfilledBytes, damagedBytes: open.damagedBytes - damagedBytes };
  }

  /** Takes a member out, so that its device can be used anew: it is neither written nor read from now on. Resolves when its device is closed. */
  async faultMember(volumeId: number, member: string): Promise<void> {
    const doing = `taking a member out of storage volume ${volumeId}`;
    this.#checkWritable(doing);
    await this.#keeper.exclusive(async () => {
      const { index, record, volume } = this.#keeper.findMember(doing, volumeId, member);
      if (record.state === undefined && !this.#keeper.tolerates(volume, (one) => one === record))
        throw new VarveError('VARVE_UNSUPPORTED', doing, { detail: `RAID level ${volume.level} cannot do without '${member}' now` });
      if (record.state !== 'faulted') await this.#keeper.setStates(new Set([record.uuid]), 'faulted');
      const log = this.#logOf(volumeId);
      log?.setMember(volumeId, index, 'out');
      await log?.loop.idle();
      await this.#keeper.closeAway(record.uuid);
    });
  }

  /**
   * Whether the catalogue counts on this device: then it is the pool's, and closed with it.
   * @internal
   */
  protected holds(device: StorageDevice): boolean {
    return [...this.#keeper.members.values(), ...this.#keeper.away.values()].some((member) => member.device === device);
  }

  /**
   * Whether the pool has a device open that it found at this path.
   * @internal
   */
  protected isAt(path: string): boolean {
    return [...this.#keeper.members.values(), ...this.#keeper.away.values()].some((member) => this.#keeper.locate(member.path) === path);
  }

  /**
   * The device that a member is on, if it is there.
   * @throws VarveError `VARVE_NOT_FOUND`
   * @internal
   */
  protected deviceOf(doing: string, volumeId: number, named: string): { readonly uuid: string; readonly isOpen: boolean } {
    const { uuid } = this.#keeper.findMember(doing, volumeId, named).record;
    return { uuid, isOpen: this.#keeper.members.has(uuid) || this.#keeper.away.has(uuid) };
  }

  /**
   * Whether the device has the labels of this member of the pool.
   * @internal
   */
  protected async carries(device: StorageDevice, uuid: string): Promise<boolean> {
    try {
      const { label } = await Member.read(this.#keeper.codec, device, null);
      return label.pool === this.id && label.device === uuid;
    } catch (error) {
      if (isVarveError(error)) return false;
      throw error;
    }
  }

  /** Makes a device in the pool's place for a member of this storage volume, where the pool makes its own. */
  protected async makeMember(volumeId: number): Promise<FoundDevice> {
    return this.#keeper.makeMember(volumeId);
  }

  /** Spares for all members that are out, as far as there are any. */
  async #takeSpares(): Promise<void> {
    const out = this.#keeper.catalogue.storageVolumes.flatMap(({ id, devices }) =>
      devices.filter(({ state }) => state === 'missing' || state === 'faulted').map(({ uuid }) => ({ id, uuid })),
    );
    for (const { id, uuid } of out) await this.#takeSpare(id, uuid);
  }

  async #takeSpare(volumeId: number, uuid: string): Promise<void> {
    if (this.#closing !== undefined) return;
    const taken = await this.#keeper.exclusive(async () => {
      const found = await this.#keeper.takeSpare(volumeId, uuid);
      if (found === undefined) return false;
      const log = this.#logOf(volumeId);
      log?.setDevice(volumeId, found.index, found.device);
      log?.setMember(volumeId, found.index, 'rebuilding');
      return true;
    });
    if (taken) await this.#refill(volumeId);
  }

  /** Verifies every copy and parity of everything in use, labels and catalogues too, and mends what is wrong. */
  async scrub(options: ScrubPoolOptions = {}): Promise<ScrubResult> {
    this.#checkWritable('scrubbing the pool');
    await this.#openLogs();
    for (const open of this.#logs.values()) await open.rebuilding; // what is being filled is looked at, too
    return scrubPool(this.#keeper, this.#reported(), options);
  }

  // ——— growing ———

  async #grow(open: OpenLog): Promise<boolean> {
    if (!open.growing) return false;
    return this.#keeper.exclusive(async () => {
      const record = this.#keeper.virtualVolumeOf(open.uuid);
      const { log } = open;
      // A log that is only being opened gets its chance when it is open.
      if (record === undefined || log === undefined || log.loop.dead || !this.#mayGrow(record)) return false;
      const made: Member[] = [];
      const doing = `growing '${record.name}'`;
      let volume: StorageVolumeRecord;
      try {
        volume = await this.#keeper.takeVolume(doing, [], made);
        await this.#keeper.commit((catalogue) => withAssigned(catalogue, volume, open.uuid), made);
      } catch (error) {
        if (!this.#keeper.isNamed(made)) for (const member of made) await this.#keeper.discardMember(member);
        if (!isVarveError(error, 'VARVE_NO_SPACE')) throw error;
        if (error.cause !== undefined) this.#keeper.note(messageOf(error)); // not the pool's bound: a device or file system has none
        return false;
      }
      log.addVolume(this.#keeper.logVolume(volume, made));
      return true;
    });
  }

  /** Inside a synchronous call: only from a spare, and only when nobody else is changing the catalogue. */
  #growSync(open: OpenLog): boolean {
    const record = this.#keeper.virtualVolumeOf(open.uuid);
    const spare = this.#keeper.spare([]);
    if (
      !open.growing ||
      this.#keeper.busy ||
      record === undefined ||
      open.log === undefined ||
      spare === undefined ||
      !this.#mayGrow(record)
    )
      return false;
    this.#keeper.commitSync((catalogue) => withAssigned(catalogue, spare, open.uuid));
    open.log.addVolume(this.#keeper.logVolume(spare, []));
    return true;
  }

  #mayGrow(record: VirtualVolumeRecord): boolean {
    // `prompt` asks somebody first; until answering is built nobody answers.
    if (record.policy.mode !== 'auto') return false;
    return record.policy.maxVolumes === 0 || this.#keeper.logRecord(record.log).volumes.length < record.policy.maxVolumes;
  }

  // ——— shrinking ———

  #changed(open: OpenLog): void {
    this.#consider(open);
    this.#wake(open);
  }

  /** Begins to empty a storage volume that the log can give, or gives back one that is empty. */
  #consider(open: OpenLog): void {
    const { log } = open;
    if (log === undefined || log.closed || log.loop.dead || this.#closing !== undefined || !open.growing) return;
    if (open.evacuating === undefined) {
      const id = log.canGiveVolume();
      if (id === undefined) return;
      open.evacuating = id;
      open.backgroundError = undefined;
      log.evacuateVolume(id);
    }
    if (log.volumeState(open.evacuating) === 'released') {
      void this.#keeper
        .exclusive(() => this.#giveBack(open))
        .catch((error: unknown) => {
          this.#keeper.note(`giving back a storage volume: ${messageOf(error)}`);
          open.backgroundError = error instanceof Error ? error : new Error(messageOf(error));
          this.#wake(open);
        });
    }
  }

  async #giveBack(open: OpenLog): Promise<void> {
    const { log, evacuating: id } = open;
    if (log === undefined || id === undefined || log.closed || log.loop.dead || log.volumeState(id) !== 'released') return;
    let given: readonly MemberRecord[];
    try {
      given = await this.#keeper.commitWithout(new Set([id]), (catalogue) => ({
        ...catalogue,
        logs: catalogue.logs.map((record) =>
          record.uuid === open.uuid ? { ...record, volumes: record.volumes.filter((volume) => volume !== id) } : record,
        ),
      }));
    } catch (error) {
      // Committed half, the next open may find the storage volume to be the log's or not. So the log does without it from now on; left released it would be
      // filled again when the log is closed. (`evacuating` stays, and with it no other one is given back: the roots of both catalogues' views are found.)
      if (this.#keeper.stuck) log.removeVolume(id);
      throw error;
    }
    log.removeVolume(id);
    open.evacuating = undefined;
    await this.#keeper.removeRetired(given);
    this.#wake(open);
    for (const other of this.#logs.values()) if (other !== open) other.log?.growthPossible();
  }

  #wake(open: OpenLog): void {
    for (const wake of open.waiters.splice(0)) wake();
  }

  /** Waits until the storage volume that is being emptied is given back. False when that does not come to an end. */
  async #evacuated(open: OpenLog, signal: AbortSignal | undefined): Promise<boolean> {
    const id = open.evacuating;
    let since = Date.now();
    let pushedAt = since;
    let held = Number.POSITIVE_INFINITY;
    while (id !== undefined && open.evacuating === id) {
      signal?.throwIfAborted();
      const { log } = open;
      if (log === undefined || log.closed || log.loop.dead || open.backgroundError !== undefined) return false;
      const now = log.volumeFigures(id).segmentsHeld;
      if (now < held) {
        held = now;
        since = Date.now();
        pushedAt = since;
      } else if (Date.now() - since > EVACUATION_PATIENCE_MS) {
        this.#keeper.note(`storage volume ${id} is not empty yet: moving its data off does not go on`);
        return false;
      } else if (Date.now() - pushedAt > EVACUATION_PUSH_MS) {
        // What is left lies in the range that would be replayed after a crash, and is moved only when a checkpoint has gone beyond it.
        await log.checkpoint();
        pushedAt = Date.now();
      }
      this.#consider(open);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 50);
        open.waiters.push(() => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
    return true;
  }

  // ——— small things ———

  #checkOpen(doing: string): void {
    if (this.#closing !== undefined) throw new VarveError('VARVE_CLOSED', doing);
  }

  #checkWritable(doing: string): void {
    this.#checkOpen(doing);
    if (this.readOnly) throw new VarveError('VARVE_READ_ONLY', doing);
    this.#keeper.checkFence();
  }
}

function corePolicy(policy: VolumePolicy, catalogue: Catalogue): LogPolicy {
  return {
    growAt: policy.growAt,
    compactTo: policy.compactTo,
    shrinkBelow: policy.shrinkBelow,
    mode: policy.mode,
    volumesMin: policy.minVolumes,
    volumesMax: policy.maxVolumes === 0 ? catalogue.settings.maxVolumes : policy.maxVolumes,
  };
}

function withAssigned(catalogue: Catalogue, volume: StorageVolumeRecord, log: string): Catalogue {
  return {
    ...catalogue,
    storageVolumes: [...catalogue.storageVolumes.filter((other) => other.id !== volume.id), assigned(volume)].sort(byId),
    logs: catalogue.logs.map((record) => (record.uuid === log ? { ...record, volumes: [...record.volumes, volume.id] } : record)),
  };
}

function isRebuilding(device: MemberRecord): boolean {
  return device.state === 'rebuilding';
}

function assigned(volume: StorageVolumeRecord): StorageVolumeRecord {
  return { ...volume, state: 'assigned' };
}

function unnamed(device: StorageDevice): FoundDevice {
  return { device, path: null };
}
