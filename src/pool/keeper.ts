// The one who changes the catalogue. It holds the members, and every change goes through its mutex and is durable on all of them before it counts.
//
// A commit that failed half-way is taken back by committing the old content again; when that fails too, nothing is committed any more until the pool is
// opened again: either content is whole on disk then, and both are true.

import type { StorageDevice } from '../device/device.ts';
import { isVarveError, messageOf, VarveError } from '../errors.ts';
import type { LogVolume } from '../volume/log.ts';
import {
  CARRIES_MAX,
  checkCatalogue,
  encodeCatalogue,
  nextAncestors,
  STORAGE_VOLUME_ID_MAX,
  ZERO_UUID,
  type Catalogue,
  type LogRecord,
  type MemberRecord,
  type MemberRecordState,
  type StorageVolumeRecord,
  type VirtualVolumeRecord,
} from './catalogue.ts';
import { FRAME_HEADER_BYTES, randomUuid, type FormatCodec, type Label } from './label.ts';
import { writeCatalogue, writeCatalogueSync, writeLabel, writeLabels, Member } from './member.ts';
import type { FoundDevice, PoolPlace } from './place.ts';
import { levelNumber, type RaidLevel } from './raid.ts';
import { labelGroup, makeStorageVolume } from './make.ts';

/** What a keeper starts with. */
export interface PoolParts {
  readonly codec: FormatCodec;
  readonly id: string;
  readonly place: PoolPlace;
  readonly members: readonly Member[];
  readonly catalogue: Catalogue;
  readonly generation: number;
  readonly nonce: string;
  readonly previous: string;
  readonly readOnly: boolean;
  readonly segmentBlocks: number;
  readonly notes: readonly string[];
  /** Devices of this pool that no catalogue ever named: their making was cut off. */
  readonly orphans: readonly MemberRecord[];
  /** Members that are there and were away: what they hold is old. */
  readonly returned: readonly Member[];
}

/** What a spare is there for: members that are out, or only those that failed. */
export type SpareKind = 'out' | 'faulted';

/** Trouble that repeats itself must not fill the memory. */
const NOTES_MAX = 1000;

interface NextCatalogue {
  readonly catalogue: Catalogue;
  readonly generation: number;
  readonly nonce: string;
  readonly previous: string;
  readonly frame: Uint8Array;
}

export class Keeper {
  readonly id: string;
  readonly readOnly: boolean;
  readonly codec: FormatCodec;
  readonly place: PoolPlace;
  /** Those that carry the catalogue: online, or being rebuilt. */
  readonly members = new Map<string, Member>();
  /** Devices that are open and belong to members that are out. */
  readonly away = new Map<string, Member>();
  /** A member was found to fail while the catalogue was committed, and is out: its log is to hear of it. */
  onOut: ((volumeId: number, member: number) => void) | undefined;
  /** Things worth knowing that are no damage. */
  readonly notes: string[];
  readonly #segmentBlocks: number;
  #orphans: readonly MemberRecord[];
  /** Steps that hold or wait for the mutex. */
  #busy = 0;
  #mutex: Promise<unknown> = Promise.resolve();
  #catalogue: Catalogue;
  #generation: number;
  #nonce: string;
  #previous: string;
  /** Online members that were not there when catalogues were committed, and have not taken one since: the nonce of the one that they have, if it is whole. */
  readonly #returning = new Map<string, string | undefined>();
  /** Why nothing can be committed any more. */
  #stuck: Error | undefined;

  constructor(parts: PoolParts) {
    this.id = parts.id;
    this.readOnly = parts.readOnly;
    this.codec = parts.codec;
    this.place = parts.place;
    this.#segmentBlocks = parts.segmentBlocks;
    for (const member of parts.members) this.members.set(member.uuid, member);
    for (const member of parts.returned) this.away.set(member.uuid, member);
    this.#catalogue = parts.catalogue;
    this.#generation = parts.generation;
    this.#nonce = parts.nonce;
    this.#previous = parts.previous;
    for (const { devices } of parts.catalogue.storageVolumes) {
      for (const { uuid, carries } of devices) {
        const member = this.members.get(uuid);
        if (carries === undefined || member === undefined) continue;
        const [newest] = member.frames().sort((a, b) => b.generation - a.generation);
        this.#returning.set(uuid, newest?.nonce);
      }
    }
    this.notes = [...parts.notes];
    this.#orphans = parts.orphans;
  }

  get catalogue(): Catalogue {
    return this.#catalogue;
  }

  get generation(): number {
    return this.#generation;
  }

  get nonce(): string {
    return this.#nonce;
  }

  get previous(): string {
    return this.#previous;
  }

  /** A commit failed half-way, and could not be taken back: the next open finds the one catalogue or the other. */
  get stuck(): boolean {
    return this.#stuck !== undefined;
  }

  /** Somebody holds or waits for the mutex. */
  get busy(): boolean {
    return this.#busy > 0;
  }

  /** Resolves when everybody who waits now has had his turn. */
  async idle(): Promise<void> {
    await this.#mutex;
  }

  // ——— looking things up ———

  find(name: string): VirtualVolumeRecord | undefined {
    return this.#catalogue.virtualVolumes.find((record) => record.name === name);
  }

  need(name: string, doing: string): VirtualVolumeRecord {
    const record = this.find(name);
    if (record === undefined) throw new VarveError('VARVE_NOT_FOUND', doing, { detail: `the pool has no volume '${name}'` });
    return record;
  }

  virtualVolumeOf(log: string): VirtualVolumeRecord | undefined {
    return this.#catalogue.virtualVolumes.find((record) => record.log === log);
  }

  logRecord(uuid: string): LogRecord {
    const record = this.#catalogue.logs.find((log) => log.uuid === uuid);
    if (record === undefined) throw new VarveError('VARVE_INTERNAL', `looking for log ${uuid}`);
    return record;
  }

  storageVolume(id: number): StorageVolumeRecord {
    const volume = this.#catalogue.storageVolumes.find((one) => one.id === id);
    if (volume === undefined) throw new VarveError('VARVE_INTERNAL', `looking for storage volume ${id}`);
    return volume;
  }

  logVolume(volume: StorageVolumeRecord, made: readonly Member[]): LogVolume {
    const members = volume.devices.map((device) => this.members.get(device.uuid) ?? made.find((member) => member.uuid === device.uuid));
    const label = members.find((member) => member !== undefined)?.label;
    if (label === undefined) throw new VarveError('VARVE_IO', `using storage volume ${volume.id}`, { detail: 'its device is missing' });
    return {
      id: volume.id,
      level: label.level,
      members: members.map((member) => member?.device),
      states: volume.devices.map((device, index) =>
        members[index] === undefined ? 'out' : device.state === 'rebuilding' ? 'rebuilding' : device.state === undefined ? 'online' : 'out',
      ),
      stripBlocks: Math.max(1, label.stripBlocks), // a strip of `single` is a block
      segmentBlocks: label.segmentBlocks,
      segmentCount: label.segmentCount,
      dataOffset: label.dataOffset,
      rootFrontOffset: label.rootFrontOffset,
      rootBackOffset: label.rootBackOffset,
    };
  }

  note(text: string): void {
    if (this.notes.length < NOTES_MAX && !this.notes.includes(text)) this.notes.push(text);
  }

  locate(path: string | null): string | null {
    return path === null ? null : (this.place.locate?.(path) ?? path);
  }

  // ——— storage volumes ———

  spare(taken: readonly StorageVolumeRecord[]): StorageVolumeRecord | undefined {
    return this.#catalogue.storageVolumes.find(
      (volume) =>
        volume.state === 'unassigned' &&
        !taken.some((other) => other.id === volume.id) &&
        volume.devices.every((device) => this.members.has(device.uuid) && device.state === undefined),
    );
  }

  /** An unassigned storage volume, or a new one, which then is in `made` and in no catalogue yet. */
  async takeVolume(doing: string, taken: readonly StorageVolumeRecord[], made: Member[]): Promise<StorageVolumeRecord> {
    const spare = this.spare(taken);
    if (spare !== undefined) return spare;
    const { settings, storageVolumes } = this.#catalogue;
    const fresh = taken.filter((volume) => !storageVolumes.some((other) => other.id === volume.id)).length;
    if (storageVolumes.length + fresh >= settings.maxVolumes && settings.volumeSizeBytes !== 0) {
      const detail = `the pool has all of its ${settings.maxVolumes} storage volumes and none of them is free`;
      throw new VarveError('VARVE_NO_SPACE', doing, { detail });
    }
    return this.#makeVolume(doing, taken, made);
  }

  async #makeVolume(doing: string, taken: readonly StorageVolumeRecord[], made: Member[]): Promise<StorageVolumeRecord> {
    const { settings, storageVolumes } = this.#catalogue;
    if (this.place.make === undefined || settings.volumeSizeBytes === 0) {
      throw new VarveError('VARVE_NO_SPACE', doing, { detail: 'the pool has no free storage volume' });
    }
    const used = new Set([...storageVolumes, ...taken].map((volume) => volume.id));
    let id = Math.max(this.#catalogue.nextVolumeId, ...taken.map((volume) => volume.id + 1));
    if (id > STORAGE_VOLUME_ID_MAX) for (id = 0; used.has(id);) id++;
    if (id > STORAGE_VOLUME_ID_MAX) throw new VarveError('VARVE_LIMIT', doing, { detail: 'there are no more storage volume ids' });
    this.checkFence();
    const shape = { pool: this.id, volume: id, generation: this.#generation + 1, segmentBlocks: this.#segmentBlocks };
    return makeStorageVolume(this.codec, this.place.make.bind(this.place), shape, settings, made);
  }

  /** One more storage volume over given devices. Only under the mutex. @returns its id */
  async addVolume(
    doing: string,
    devices: readonly FoundDevice[],
    level: RaidLevel,
    stripBlocks: number,
    spare: SpareKind | undefined = undefined,
  ): Promise<number> {
    if (devices.length === 0) throw new TypeError(`${doing}: expected a device`);
    const { storageVolumes, nextVolumeId } = this.#catalogue;
    if (nextVolumeId > STORAGE_VOLUME_ID_MAX)
      throw new VarveError('VARVE_LIMIT', doing, { detail: 'there are no more storage volume ids' });
    const made: Member[] = [];
    const shape = { pool: this.id, volume: nextVolumeId, generation: this.#generation + 1, segmentBlocks: this.#segmentBlocks };
    const volume = await labelGroup(this.codec, devices, shape, level, stripBlocks, made);
    const record: StorageVolumeRecord =
      spare === undefined ? volume : { ...volume, state: 'reserved', spare: true, ...(spare === 'faulted' ? { spareOf: spare } : {}) };
    const most = Math.max(this.#catalogue.settings.maxVolumes, storageVolumes.length + 1); // what the owner adds is no overuse
    await this.commit(
      (catalogue) => ({
        ...catalogue,
        settings: { ...catalogue.settings, maxVolumes: most },
        storageVolumes: [...catalogue.storageVolumes, record].sort(byId),
      }),
      made,
    );
    return volume.id;
  }

  /** The labels of a device that takes a member's place. */
  async #labelMember(doing: string, volume: StorageVolumeRecord, index: number, device: StorageDevice, uuid: string): Promise<Label> {
    const fellow = volume.devices
      .map((one) => this.members.get(one.uuid) ?? this.away.get(one.uuid))
      .find((one) => one !== undefined)?.label;
    if (fellow === undefined) throw new VarveError('VARVE_IO', doing, { detail: 'no member is there to say how it is laid out' });
    if (device.sizeBytes < fellow.sizeBytes)
      throw new VarveError('VARVE_LIMIT', doing, {
        detail: `the device has ${device.sizeBytes} bytes, the other members need ${fellow.sizeBytes}`,
      });
    return writeLabels(this.codec, device, { ...fellow, device: uuid, member: index, generation: this.#generation + 1 });
  }

  /** @throws VarveError `VARVE_NOT_FOUND` naming the members that there are */
  findMember(doing: string, volumeId: number, named: string): { index: number; record: MemberRecord; volume: StorageVolumeRecord } {
    const volume = this.#catalogue.storageVolumes.find((one) => one.id === volumeId);
    if (volume === undefined) throw new VarveError('VARVE_NOT_FOUND', doing, { detail: 'the pool has no such storage volume' });
    const paths = (one: MemberRecord): (string | null)[] => [
      one.path,
      this.members.get(one.uuid)?.path ?? null,
      this.away.get(one.uuid)?.path ?? null,
    ];
    const index = volume.devices.findIndex(
      (one) => one.uuid === named || paths(one).some((path) => path !== null && (path === named || this.locate(path) === named)),
    );
    const record = volume.devices[index];
    if (record !== undefined) return { index, record, volume };
    const members = volume.devices.map((one) => one.path ?? one.uuid).join(', ');
    throw new VarveError('VARVE_NOT_FOUND', doing, { detail: `'${named}' is none of its members (${members})` });
  }

  /** Closes the device of a member that is out. */
  async closeAway(uuid: string): Promise<void> {
    const member = this.away.get(uuid);
    this.away.delete(uuid);
    await member?.device.close();
  }

  async makeMember(volumeId: number): Promise<FoundDevice> {
    const doing = `making a member of storage volume ${volumeId}`;
    const volume = this.storageVolume(volumeId);
    const fellow = volume.devices.map((one) => this.members.get(one.uuid)).find((one) => one !== undefined)?.label;
    if (this.place.make === undefined || fellow === undefined)
      throw new VarveError('VARVE_UNSUPPORTED', doing, { detail: 'name a device' });
    this.checkFence();
    // Its labels are written when it takes the member's place.
    return this.place.make(volumeId, randomUuid(), fellow.sizeBytes, () => Promise.resolve());
  }

  /** Puts a device in a member's place: it carries the catalogue, which says that it is being rebuilt. Only under the mutex. */
  async replaceMember(
    doing: string,
    volumeId: number,
    named: string,
    { device, path }: FoundDevice,
  ): Promise<{ index: number; old: readonly MemberRecord[] }> {
    const { index, record: old, volume } = this.findMember(doing, volumeId, named);
    if (!this.tolerates(volume, (one) => one === old)) {
      throw new VarveError('VARVE_UNSUPPORTED', doing, {
        detail: `RAID level ${volume.level} cannot do without '${named}' now, and what it holds would have to come from it`,
      });
    }
    const uuid = randomUuid();
    const label = await this.#labelMember(doing, volume, index, device, uuid);
    const member = Member.fresh(device, path, label);
    const gone = this.members.get(old.uuid);
    if (gone !== undefined) {
      this.members.delete(old.uuid);
      this.away.set(old.uuid, gone);
    }
    const since = this.#generation + 1;
    const retired = this.place.owns?.(gone?.path ?? old.path) === true ? [{ uuid: old.uuid, path: gone?.path ?? old.path }] : [];
    await this.commit(
      (catalogue) => ({
        ...catalogue,
        storageVolumes: catalogue.storageVolumes.map((one) =>
          one.id === volumeId ? { ...one, devices: one.devices.with(index, { uuid, path, state: 'rebuilding' as const, since }) } : one,
        ),
        retired: [...catalogue.retired, ...retired],
      }),
      [member],
    );
    // The commit may have put it out: then nothing is as whole as before.
    if (!this.members.has(uuid))
      throw new VarveError('VARVE_IO', doing, { detail: 'the new device did not take the catalogue, and is faulted' });
    return { index, old: retired.length > 0 ? retired : [{ uuid: old.uuid, path: null }] };
  }

  /** A spare that is large enough takes the place of a member that is out. Only under the mutex. */
  async takeSpare(volumeId: number, uuid: string): Promise<{ index: number; device: StorageDevice } | undefined> {
    const volume = this.storageVolume(volumeId);
    const index = volume.devices.findIndex((device) => device.uuid === uuid && (device.state === 'missing' || device.state === 'faulted'));
    const size = volume.devices.map((device) => this.members.get(device.uuid)?.label.sizeBytes ?? 0).find((bytes) => bytes > 0);
    const spare = this.#catalogue.storageVolumes.find((one) => {
      if (one.spareOf !== undefined && volume.devices[index]?.state !== one.spareOf) return false;
      const member = one.spare === true ? this.members.get(one.devices[0]?.uuid ?? '') : undefined;
      return member !== undefined && size !== undefined && member.device.sizeBytes >= size;
    });
    const old = spare === undefined ? undefined : this.members.get(spare.devices[0]!.uuid);
    if (index < 0 || spare === undefined || old === undefined) return undefined;
    // It keeps its uuid: cut off between labels and catalogue it is the spare still, and is taken again.
    const label = await this.#labelMember('taking a spare', volume, index, old.device, old.uuid);
    const member = Member.fresh(old.device, old.path, label);
    const since = this.#generation + 1;
    await this.commit(
      (catalogue) => ({
        ...catalogue,
        storageVolumes: catalogue.storageVolumes
          .filter((one) => one.id !== spare.id)
          .map((one) =>
            one.id === volumeId
              ? { ...one, devices: one.devices.with(index, { uuid: old.uuid, path: old.path, state: 'rebuilding' as const, since }) }
              : one,
          ),
      }),
      [member],
    );
    if (!this.members.has(old.uuid)) return undefined; // it did not take the catalogue, and is faulted itself
    this.note(`storage volume ${volumeId}: the spare ${old.path ?? old.uuid} takes the place of member ${index}`);
    return { index, device: old.device };
  }

  async makeSpare(): Promise<void> {
    if (this.spare([]) !== undefined) return;
    const made: Member[] = [];
    try {
      const volume = await this.takeVolume('making a spare storage volume', [], made);
      await this.commit((catalogue) => ({ ...catalogue, storageVolumes: [...catalogue.storageVolumes, volume].sort(byId) }), made);
    } catch (error) {
      if (!this.isNamed(made)) for (const member of made) await this.discardMember(member);
      if (!isVarveError(error, 'VARVE_NO_SPACE')) throw error;
    }
  }

  // ——— commits ———

  /** One at a time, in order. */
  exclusive<T>(step: () => Promise<T>): Promise<T> {
    this.#busy++;
    const turn = this.#mutex.then(step, step).finally(() => {
      this.#busy--;
    });
    this.#mutex = turn.catch(() => undefined);
    return turn;
  }

  /** Only under the mutex. `made` joins the members when the commit is durable. */
  async commit(change: (catalogue: Catalogue) => Catalogue, made: readonly Member[]): Promise<void> {
    const next = this.#nextCatalogue(change(this.#catalogue), made);
    const members = [...this.members.values(), ...made];
    const failed = await writeCatalogue(members, next.generation, next.frame);
    if (failed.size > 0 && !this.#bears(next.catalogue, [...failed.keys()])) {
      const error = [...failed.values()][0];
      await this.#takeBack(members, next, error);
      throw asVarveError(error, 'committing the catalogue');
    }
    this.#adopt(next, made);
    if (failed.size > 0) {
      // What can be done without is out, and the catalogue says so before anybody relies on it.
      for (const [member, error] of failed) {
        this.note(`${member.path ?? member.uuid}: did not take the catalogue and is faulted: ${messageOf(error)}`);
        this.members.delete(member.uuid);
        this.away.set(member.uuid, member);
      }
      const uuids = new Set([...failed.keys()].map((member) => member.uuid));
      await this.commit((catalogue) => withStates(catalogue, uuids, 'faulted', this.#generation + 1), []);
      for (const member of failed.keys()) this.onOut?.(member.label.volume, member.label.member);
      return;
    }
    await this.remember();
  }

  /** Can the pool go on without these members as well? */
  #bears(catalogue: Catalogue, failed: readonly Member[]): boolean {
    const uuids = new Set(failed.map((member) => member.uuid));
    if ([...this.members.keys()].every((uuid) => uuids.has(uuid))) return false;
    return catalogue.storageVolumes.every(
      (volume) => !volume.devices.some((device) => uuids.has(device.uuid)) || this.tolerates(volume, (device) => uuids.has(device.uuid)),
    );
  }

  /** Can everything on the storage volume be read from the members that are online, without those that are named too? */
  tolerates(volume: StorageVolumeRecord, without: (device: MemberRecord) => boolean): boolean {
    let lost = 0;
    volume.devices.forEach((device, index) => {
      if (device.state !== undefined || without(device)) lost = (lost | (2 ** index)) >>> 0;
    });
    return this.codec.tolerates(levelNumber(volume.level), volume.devices.length, lost);
  }

  /** The member that a core calls so. */
  memberAt(volumeId: number, member: number): MemberRecord {
    const record = this.storageVolume(volumeId).devices[member];
    if (record === undefined) throw new VarveError('VARVE_INTERNAL', `looking for member ${member} of storage volume ${volumeId}`);
    return record;
  }

  /** Members are faulted, being rebuilt, or online from now on. Only under the mutex. */
  async setStates(uuids: ReadonlySet<string>, state: MemberRecordState, joining: readonly Member[] = []): Promise<void> {
    this.#part(uuids, state);
    await this.commit((catalogue) => withStates(catalogue, uuids, state, this.#generation + 1), joining);
  }

  /** Members that are being rebuilt are filled up to a place, which is durable on them: so much is not done again. Only under the mutex. */
  async setFilled(volumeId: number, uuids: ReadonlySet<string>, place: number): Promise<void> {
    const filled = (device: MemberRecord): MemberRecord =>
      device.state === 'rebuilding' && uuids.has(device.uuid) ? { ...device, filled: Math.max(place, device.filled ?? 0) } : device;
    const { devices } = this.storageVolume(volumeId);
    if (!devices.some((device) => filled(device) !== device)) return;
    await this.commit(
      (catalogue) => ({
        ...catalogue,
        storageVolumes: catalogue.storageVolumes.map((one) => (one.id === volumeId ? { ...one, devices: one.devices.map(filled) } : one)),
      }),
      [],
    );
  }

  setStatesSync(uuids: ReadonlySet<string>, state: MemberRecordState): void {
    this.#part(uuids, state);
    this.commitSync((catalogue) => withStates(catalogue, uuids, state, this.#generation + 1));
  }

  /** One that is out does not carry the catalogue. */
  #part(uuids: ReadonlySet<string>, state: MemberRecordState): void {
    if (state !== 'faulted' && state !== 'missing') return;
    for (const uuid of uuids) {
      const member = this.members.get(uuid);
      if (member === undefined) continue;
      this.members.delete(uuid);
      this.away.set(uuid, member);
    }
  }

  commitSync(change: (catalogue: Catalogue) => Catalogue): void {
    const next = this.#nextCatalogue(change(this.#catalogue), []);
    try {
      writeCatalogueSync([...this.members.values()], next.generation, next.frame);
    } catch (error) {
      this.#stuck = error instanceof Error ? error : new Error(messageOf(error));
      throw asVarveError(error, 'committing the catalogue');
    }
    this.#adopt(next, []);
  }

  #nextCatalogue(content: Catalogue, made: readonly Member[]): NextCatalogue {
    const doing = 'committing the catalogue';
    this.#checkOpenForCommit(doing);
    const generation = this.#generation + 1;
    const nonce = randomUuid();
    const previous = this.#generation === 0 ? ZERO_UUID : this.#nonce;
    const nextVolumeId = Math.max(content.nextVolumeId, ...content.storageVolumes.map((volume) => volume.id + 1));
    const attended = (device: MemberRecord): MemberRecord => this.#attended(device, nonce, made);
    const storageVolumes = content.storageVolumes.map((volume) => ({ ...volume, devices: volume.devices.map(attended) }));
    const ancestors = nextAncestors({ previous: this.#previous }, this.#catalogue);
    const catalogue = checkCatalogue({ ...content, nextVolumeId, storageVolumes, ancestors });
    const payload = encodeCatalogue(catalogue);
    const room = Math.min(...[...this.members.values(), ...made].map((member) => member.label.slotBytes)) - FRAME_HEADER_BYTES;
    if (payload.length > room) {
      throw new VarveError('VARVE_LIMIT', doing, { detail: `it has ${payload.length} bytes, and the devices have room for ${room}` });
    }
    return {
      catalogue,
      generation,
      nonce,
      previous,
      frame: this.codec.encodeFrame({ pool: this.id, generation, nonce, previous, payload }),
    };
  }

  /**
   * The record of an online member in the catalogue with this nonce. When one is there again, the first commit may reach it or not: only the next, which finds
   * that one on it, may forget.
   */
  #attended(device: MemberRecord, nonce: string, made: readonly Member[]): MemberRecord {
    const { uuid, path, state, carries } = device;
    if (state !== undefined) return device;
    if (!this.members.has(uuid) && !made.some((member) => member.uuid === uuid))
      return { uuid, path, carries: carries ?? [this.#nonce, this.#previous, ...this.#catalogue.ancestors].slice(0, CARRIES_MAX) };
    if (!this.#returning.has(uuid)) return { uuid, path };
    const has = this.#returning.get(uuid);
    return { uuid, path, carries: has === undefined ? [nonce] : [has, nonce] };
  }

  #adopt(next: NextCatalogue, made: readonly Member[]): void {
    this.#catalogue = next.catalogue;
    this.#generation = next.generation;
    this.#previous = next.previous;
    this.#nonce = next.nonce;
    this.#returning.clear();
    for (const member of made) this.members.set(member.uuid, member);
  }

  /** Some members may have the failed catalogue: the old content follows it as a commit of its own. */
  async #takeBack(members: readonly Member[], failed: NextCatalogue, error: unknown): Promise<void> {
    const old = this.#catalogue;
    this.#catalogue = { ...old, ancestors: failed.catalogue.ancestors };
    const kept = members.filter((member) => this.members.has(member.uuid));
    this.#generation = failed.generation;
    this.#previous = failed.previous;
    this.#nonce = failed.nonce;
    try {
      const next = this.#nextCatalogue(old, []);
      const again = await writeCatalogue(kept, next.generation, next.frame);
      if (again.size > 0) throw [...again.values()][0];
      this.#adopt(next, []);
    } catch {
      this.#catalogue = old;
      this.#stuck = error instanceof Error ? error : new Error(messageOf(error));
    }
  }

  /** Commits without these storage volumes: those that the pool made are retired, the others are free again. Only under the mutex. */
  async commitWithout(ids: ReadonlySet<number>, change: (catalogue: Catalogue) => Catalogue): Promise<readonly MemberRecord[]> {
    const given: MemberRecord[] = [];
    for (const volume of this.#catalogue.storageVolumes) {
      if (!ids.has(volume.id)) continue;
      for (const device of volume.devices) {
        const member = this.members.get(device.uuid);
        const path = member === undefined ? device.path : member.path;
        if (this.place.owns?.(path) === true) given.push({ uuid: device.uuid, path });
      }
    }
    // The catalogue lives on members. When the last ones go, a new one, which takes no room, comes before; if that cannot be had, one stays.
    const made: Member[] = [];
    const spares: StorageVolumeRecord[] = [];
    if (given.length > 0 && [...this.members.keys()].every((uuid) => given.some((device) => device.uuid === uuid))) {
      try {
        spares.push(await this.#makeVolume('keeping a storage volume', [], made));
      } catch (error) {
        if (!isVarveError(error, 'VARVE_NO_SPACE')) throw error;
        const kept = given.at(-1)?.uuid;
        const whole = this.#catalogue.storageVolumes.find((volume) => volume.devices.some((device) => device.uuid === kept));
        for (const device of whole?.devices ?? []) {
          const index = given.findIndex((one) => one.uuid === device.uuid);
          if (index >= 0) given.splice(index, 1);
        }
      }
    }
    const gone = new Set(given.map((device) => device.uuid));
    const without = (catalogue: Catalogue): Catalogue => {
      const changed = change(catalogue);
      const left = changed.storageVolumes.flatMap((volume) => {
        if (!ids.has(volume.id)) return [volume];
        return volume.devices.some((device) => gone.has(device.uuid)) ? [] : [{ ...volume, state: 'unassigned' as const }];
      });
      return { ...changed, storageVolumes: [...left, ...spares].sort(byId), retired: [...changed.retired, ...given] };
    };
    try {
      await this.commit(without, made);
    } catch (error) {
      if (!this.isNamed(made)) for (const member of made) await this.discardMember(member);
      throw error;
    }
    return given;
  }

  /** Deletes the files of retired devices and forgets them. What cannot be deleted now stays retired. Only under the mutex. */
  async removeRetired(devices: readonly MemberRecord[]): Promise<void> {
    const done = new Set<string>();
    for (const { uuid, path } of devices) {
      const member = this.members.get(uuid) ?? this.away.get(uuid);
      this.members.delete(uuid);
      this.away.delete(uuid);
      try {
        await member?.device.close();
        const where = member === undefined ? path : member.path;
        if (where !== null && this.place.owns?.(where) === true) await this.place.remove?.(where, uuid);
        done.add(uuid);
      } catch (error) {
        this.note(`${path ?? uuid}: not deleted yet: ${messageOf(error)}`);
      }
    }
    if (done.size > 0)
      await this.commit((catalogue) => ({ ...catalogue, retired: catalogue.retired.filter((device) => !done.has(device.uuid)) }), []);
  }

  /** A device that no catalogue ever named. */
  async discardMember(member: Member): Promise<void> {
    try {
      await member.device.close();
      if (member.path !== null && this.place.owns?.(member.path) === true) await this.place.remove?.(member.path, member.uuid);
    } catch (error) {
      this.note(`${member.path ?? member.uuid}: not deleted: ${messageOf(error)}`);
    }
  }

  /** May a catalogue on disk name these? Then they must stay. */
  isNamed(made: readonly Member[]): boolean {
    return this.#stuck !== undefined || made.some((member) => this.members.has(member.uuid));
  }

  async remember(): Promise<void> {
    if (this.readOnly) return;
    const members = this.#catalogue.storageVolumes.flatMap((volume) =>
      volume.devices.map((device) => ({ uuid: device.uuid, path: this.members.get(device.uuid)?.path ?? device.path })),
    );
    try {
      await this.place.remember?.(this.id, members);
    } catch (error) {
      this.note(`the cache of member paths was not written: ${messageOf(error)}`);
    }
  }

  #checkOpenForCommit(doing: string): void {
    if (this.readOnly) throw new VarveError('VARVE_READ_ONLY', doing);
    if (this.#stuck !== undefined) {
      throw new VarveError('VARVE_READ_ONLY', doing, {
        detail: 'an earlier commit failed half-way; open the pool again',
        cause: this.#stuck,
      });
    }
    this.checkFence();
  }

  checkFence(): void {
    const fenced = this.place.fence?.();
    if (fenced !== undefined) throw fenced;
  }

  /** Looks at labels and catalogues as they are now, and writes anew what is wrong. Only under the mutex. */
  async mendLabels(): Promise<{ where: string; what: string }[]> {
    const healed: { where: string; what: string }[] = [];
    let mend = false;
    for (const member of this.members.values()) {
      const where = `storage volume ${member.label.volume} (${member.path ?? member.uuid})`;
      for (const side of await member.wrongSides(this.codec)) {
        await writeLabel(this.codec, member, side);
        healed.push({ where, what: `${side} label` });
      }
      await member.readSlots(this.codec);
      for (const slot of member.slots) {
        if (slot.slot !== this.#generation % 2 || slot.frame?.nonce === this.#nonce) continue;
        healed.push({ where, what: `${slot.side} catalogue` });
        mend = true;
      }
    }
    if (mend) await this.commit((catalogue) => catalogue, []);
    return healed;
  }

  /** Absence is committed before anything is written without a member; one that comes back is to be rebuilt. */
  async #settleMembers(): Promise<void> {
    const missing = new Set<string>();
    const rebuilding = new Set<string>();
    for (const volume of this.#catalogue.storageVolumes) {
      const absent = (device: MemberRecord): boolean => device.state === undefined && !this.members.has(device.uuid);
      if (volume.devices.some(absent) && this.tolerates(volume, absent)) {
        for (const device of volume.devices) if (absent(device)) missing.add(device.uuid);
      }
      for (const device of volume.devices) {
        if (device.state === 'rebuilding' && !this.members.has(device.uuid)) missing.add(device.uuid);
        if (device.state === 'missing' && this.away.has(device.uuid) && this.tolerates(volume, (other) => absent(other)))
          rebuilding.add(device.uuid);
      }
    }
    if (missing.size > 0) await this.setStates(missing, 'missing');
    if (rebuilding.size === 0) return;
    const joining = [...rebuilding].flatMap((uuid) => this.away.get(uuid) ?? []);
    for (const member of joining) {
      this.away.delete(member.uuid);
      this.note(`${member.path ?? member.uuid}: was away, and is rebuilt`);
    }
    await this.setStates(rebuilding, 'rebuilding', joining);
  }

  /**
   * After opening for writing: mends labels, completes a commit that was cut off, deletes what the pool gave up. Only under the mutex.
   */
  async settle(): Promise<void> {
    let mend = false;
    await this.#settleMembers();
    for (const member of this.members.values()) {
      for (const side of member.labelProblems.keys()) {
        await writeLabel(this.codec, member, side);
        this.note(`${member.path ?? member.uuid}: the ${side} label was damaged and has been mended`);
      }
      const slots = member.slots.filter((slot) => slot.slot === this.#generation % 2);
      if (slots.some((slot) => slot.frame?.nonce !== this.#nonce)) mend = true;
    }
    if (mend) await this.commit((catalogue) => catalogue, []);
    for (const { uuid, path } of this.#orphans) {
      if (path !== null && this.place.owns?.(path) === true) await this.place.remove?.(path, uuid);
    }
    this.#orphans = [];
    if (this.#catalogue.retired.length > 0) await this.removeRetired(this.#catalogue.retired);
    await this.remember();
  }
}

/** The catalogue with these members in this state from a generation on. */
export function withStates(catalogue: Catalogue, uuids: ReadonlySet<string>, state: MemberRecordState, since: number): Catalogue {
  return {
    ...catalogue,
    storageVolumes: catalogue.storageVolumes.map((volume) => ({
      ...volume,
      // How far one was filled says nothing any more.
      devices: volume.devices.map((device) => {
        const { uuid, path } = device;
        if (!uuids.has(uuid)) return device;
        if (state === 'online') return { uuid, path };
        return { uuid, path, state, since };
      }),
    })),
  };
}

function asVarveError(error: unknown, doing: string): VarveError {
  if (isVarveError(error)) return error;
  const code = (error as NodeJS.ErrnoException | null)?.code;
  return new VarveError(code === 'ENOSPC' || code === 'EDQUOT' ? 'VARVE_NO_SPACE' : 'VARVE_IO', doing, {
    detail: messageOf(error),
    cause: error,
  });
}

export function byId(a: { readonly id: number }, b: { readonly id: number }): number {
  return a.id - b.id;
}
