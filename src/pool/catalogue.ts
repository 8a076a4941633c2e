// The catalogue: what the pool consists of, and to which log each storage volume belongs.
//
// It is JSON in a checksummed frame (assembly/format/frame.ts), in two slots on the front and two on the back of each member
// device. A commit of generation g goes to slot g mod 2, so the other slot keeps generation g − 1 until the commit is whole.
// Each frame carries a random nonce and the nonce before it; the JSON keeps a bounded list of older ones. So of two members
// with different catalogues it can be said whether one is merely behind, or whether both went on alone (`VARVE_FENCED`).
//
// Everything here is pure: text in, typed record out, and a choice among what the members say. The text is hostile: every
// field is checked for type, bounds and mutual consistency before anything uses it, and unknown fields are dropped.

import { messageOf, VarveError } from '../errors.ts';
import { checkName } from '../names.ts';
import { checkPolicy, DEFAULT_POLICY, type VolumePolicy } from './policy.ts';
import { checkMembers, MEMBERS_MAX, RAID_LEVELS, STRIP_BYTES_MAX, type RaidLevel } from './raid.ts';

export type StorageVolumeState = 'unassigned' | 'reserved' | 'assigned' | 'faulted';

/** `missing` was not there, `faulted` failed a write, `rebuilding` is being filled: none of them is read. */
export type MemberRecordState = 'online' | 'missing' | 'faulted' | 'rebuilding';

/** One member device of a storage volume. */
export interface MemberRecord {
  readonly uuid: string;
  /** Where it was last seen: a file name in the pool directory, an absolute path that the caller named, or null (memory). A hint, never trusted. */
  readonly path: string | null;
  /** Left out: online. */
  readonly state?: MemberRecordState;
  /** Of one that is not online: the first generation that says so. A catalogue on it that is as new is of another history. */
  readonly since?: number;
  /**
   * Of one that is online, and was not there when a catalogue was committed (nothing that it holds can have changed without it): nonces of the catalogues one
   * of which it has, however many have been committed since.
   */
  readonly carries?: readonly string[];
  /** Of one that is being rebuilt: the place up to which it is filled (Log.rebuild); left out: 0. */
  readonly filled?: number;
}

export interface StorageVolumeRecord {
  readonly id: number;
  readonly state: StorageVolumeState;
  readonly level: RaidLevel;
  readonly sizeBytes: number;
  /** In the order of the stripe map. */
  readonly devices: readonly MemberRecord[];
  /** A reserved device that takes the place of a member that fails. */
  readonly spare?: true;
  /** Of a spare that does not take the place of one that is merely missing. */
  readonly spareOf?: 'faulted';
}

export interface LogRecord {
  readonly uuid: string;
  /** Volume ids in the order in which they were assigned: the order in which the log fills them. */
  readonly volumes: readonly number[];
}

export interface VirtualVolumeRecord {
  readonly name: string;
  readonly log: string;
  /** The volume's number inside its log. */
  readonly number: number;
  readonly policy: VolumePolicy;
  /** Milliseconds. */
  readonly createdAt: number;
}

export interface PoolSettings {
  /** Size of a storage volume that is made on demand; 0 when none are. */
  readonly volumeSizeBytes: number;
  readonly maxVolumes: number;
  /** What storage volumes that are made on demand are; left out: single devices. */
  readonly raid?: { readonly level: RaidLevel; readonly members: number; readonly stripBlocks: number };
}

export interface Catalogue {
  readonly settings: PoolSettings;
  /**
   * The id that the next new storage volume gets: ids are not used again, for a log's root may still know the one before. When all have been used, free
   * ones are taken after all; by then their roots are long gone.
   */
  readonly nextVolumeId: number;
  readonly storageVolumes: readonly StorageVolumeRecord[];
  /** Devices that the pool gave up, until their files are gone. */
  readonly retired: readonly MemberRecord[];
  readonly logs: readonly LogRecord[];
  readonly virtualVolumes: readonly VirtualVolumeRecord[];
  /** Snapshot criteria; reserved. */
  readonly criteria: readonly never[];
  /** Nonces of earlier generations, newest first, without the previous one, which the frame carries. */
  readonly ancestors: readonly string[];
}

export const STORAGE_VOLUME_ID_MAX = 0xfff0;
export const VOLUME_NUMBER_MAX = 0xffff;
/** A member that was away for more commits than this is taken for a stranger; 64 × 34 bytes are 2 KiB of the 64 KiB slot. */
export const ANCESTORS_MAX = 64;
/** One that is away may have the last catalogue before that, or one of two that a failed commit and its taking back were to replace. */
export const CARRIES_MAX = 3;
const PATH_LENGTH_MAX = 4096;
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const MEMBER_STATES: readonly MemberRecordState[] = ['online', 'missing', 'faulted', 'rebuilding'];
const STATES: readonly StorageVolumeState[] = ['unassigned', 'reserved', 'assigned', 'faulted'];

/** The payload of a frame. The shape is the record's own, so that a person with a hex dump can read it. */
export function encodeCatalogue(catalogue: Catalogue): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(catalogue));
}

/** @throws VarveError `VARVE_CORRUPT` naming the field when the bytes are no catalogue. */
export function decodeCatalogue(payload: Uint8Array): Catalogue {
  let text: string;
  let value: unknown;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(payload);
    value = JSON.parse(text);
  } catch (cause) {
    throw corrupt('', 'is no UTF-8 JSON', cause);
  }
  return checkCatalogue(value);
}

export function checkCatalogue(value: unknown): Catalogue {
  const root = object(value, '');
  const settings = object(root['settings'], 'settings');
  const catalogue: Catalogue = {
    settings: {
      volumeSizeBytes: integer(settings['volumeSizeBytes'], 'settings.volumeSizeBytes', 0, Number.MAX_SAFE_INTEGER),
      maxVolumes: integer(settings['maxVolumes'], 'settings.maxVolumes', 1, STORAGE_VOLUME_ID_MAX + 1),
      ...(settings['raid'] === undefined ? {} : { raid: raid(settings['raid'], 'settings.raid') }),
    },
    nextVolumeId: integer(root['nextVolumeId'], 'nextVolumeId', 0, STORAGE_VOLUME_ID_MAX + 1),
    storageVolumes: list(root['storageVolumes'], 'storageVolumes', STORAGE_VOLUME_ID_MAX + 1, storageVolume),
    // A member that left is remembered until its file is deleted, normally by the next commit. All of a volume leave in one.
    retired: list(root['retired'], 'retired', STORAGE_VOLUME_ID_MAX + 1, member),
    logs: list(root['logs'], 'logs', STORAGE_VOLUME_ID_MAX + 1, log),
    virtualVolumes: list(root['virtualVolumes'], 'virtualVolumes', STORAGE_VOLUME_ID_MAX + 1, virtualVolume),
    criteria: [],
    ancestors: list(root['ancestors'], 'ancestors', ANCESTORS_MAX, uuid),
  };
  checkRelations(catalogue);
  return catalogue;
}

/** What the fields promise each other: ids, uuids and names are unique; each assigned volume belongs to exactly one log. */
function checkRelations(catalogue: Catalogue): void {
  const volumes = new Map<number, StorageVolumeRecord>();
  const devices = new Set<string>();
  for (const volume of catalogue.storageVolumes) {
    if (volumes.has(volume.id)) throw corrupt('storageVolumes', `name volume ${volume.id} twice`);
    volumes.set(volume.id, volume);
    for (const device of volume.devices) {
      if (devices.has(device.uuid)) throw corrupt('storageVolumes', `name device ${device.uuid} twice`);
      devices.add(device.uuid);
    }
  }
  for (const device of catalogue.retired) if (devices.has(device.uuid)) throw corrupt('retired', `names ${device.uuid}, which is in use`);
  const logs = new Set<string>();
  const owned = new Set<number>();
  for (const record of catalogue.logs) {
    if (logs.has(record.uuid)) throw corrupt('logs', `name ${record.uuid} twice`);
    logs.add(record.uuid);
    for (const id of record.volumes) {
      const volume = volumes.get(id);
      if (volume === undefined) throw corrupt('logs', `name volume ${id}, which the pool does not have`);
      if (volume.state !== 'assigned' && volume.state !== 'faulted') throw corrupt('logs', `name volume ${id}, which is ${volume.state}`);
      if (owned.has(id)) throw corrupt('logs', `assign volume ${id} twice`);
      owned.add(id);
    }
  }
  for (const volume of volumes.values()) {
    if (volume.state === 'assigned' && !owned.has(volume.id)) throw corrupt('storageVolumes', `volume ${volume.id} is assigned to no log`);
  }
  const names = new Set<string>();
  const numbers = new Set<string>();
  for (const record of catalogue.virtualVolumes) {
    if (names.has(record.name)) throw corrupt('virtualVolumes', `name ${JSON.stringify(record.name)} twice`);
    names.add(record.name);
    if (!logs.has(record.log))
      throw corrupt('virtualVolumes', `${JSON.stringify(record.name)} is in log ${record.log}, which the pool does not have`);
    const key = `${record.log}/${record.number}`;
    if (numbers.has(key)) throw corrupt('virtualVolumes', `number ${record.number} of log ${record.log} is there twice`);
    numbers.add(key);
  }
}

function storageVolume(value: unknown, where: string): StorageVolumeRecord {
  const record = object(value, where);
  const state = record['state'];
  if (!STATES.includes(state as StorageVolumeState)) throw corrupt(`${where}.state`, `is none of ${STATES.join(', ')}`);
  const level = levelOf(record['level'], `${where}.level`);
  const devices = list(record['devices'], `${where}.devices`, MEMBERS_MAX, member);
  checkCount(level, devices.length, `${where}.devices`);
  if (record['spare'] !== undefined && (record['spare'] !== true || level !== 'single' || state !== 'reserved'))
    throw corrupt(`${where}.spare`, 'is no reserved single device');
  if (record['spareOf'] !== undefined && (record['spareOf'] !== 'faulted' || record['spare'] !== true))
    throw corrupt(`${where}.spareOf`, "is not 'faulted', or this is no spare");
  return {
    id: integer(record['id'], `${where}.id`, 0, STORAGE_VOLUME_ID_MAX),
    state: state as StorageVolumeState,
    level,
    sizeBytes: integer(record['sizeBytes'], `${where}.sizeBytes`, 1, Number.MAX_SAFE_INTEGER),
    devices,
    ...(record['spare'] === true ? { spare: true as const } : {}),
    ...(record['spareOf'] === 'faulted' ? { spareOf: 'faulted' as const } : {}),
  };
}

function levelOf(value: unknown, where: string): RaidLevel {
  if (!(RAID_LEVELS as readonly unknown[]).includes(value)) throw corrupt(where, 'is none that this version knows');
  return value as RaidLevel;
}

function checkCount(level: RaidLevel, count: number, where: string): void {
  try {
    checkMembers(level, count, where);
  } catch (cause) {
    throw corrupt(where, `do not fit: ${messageOf(cause)}`, cause);
  }
}

function raid(value: unknown, where: string): NonNullable<PoolSettings['raid']> {
  const record = object(value, where);
  const level = levelOf(record['level'], `${where}.level`);
  const members = integer(record['members'], `${where}.members`, 1, MEMBERS_MAX);
  checkCount(level, members, `${where}.members`);
  return { level, members, stripBlocks: integer(record['stripBlocks'], `${where}.stripBlocks`, 0, STRIP_BYTES_MAX / 4096) };
}

function member(value: unknown, where: string): MemberRecord {
  const record = object(value, where);
  const path = record['path'];
  if (path !== null && (typeof path !== 'string' || path.length === 0 || path.length > PATH_LENGTH_MAX || path.includes('\0'))) {
    throw corrupt(`${where}.path`, 'is no path');
  }
  const state = record['state'];
  const known = { uuid: uuid(record['uuid'], `${where}.uuid`), path };
  if (state === undefined || state === 'online') {
    if (record['carries'] === undefined) return known;
    return { ...known, carries: list(record['carries'], `${where}.carries`, CARRIES_MAX, uuid) };
  }
  if (!MEMBER_STATES.includes(state as MemberRecordState)) throw corrupt(`${where}.state`, `is none of ${MEMBER_STATES.join(', ')}`);
  const since = integer(record['since'], `${where}.since`, 1, Number.MAX_SAFE_INTEGER);
  if (state !== 'rebuilding' || record['filled'] === undefined) return { ...known, state: state as MemberRecordState, since };
  return { ...known, state, since, filled: integer(record['filled'], `${where}.filled`, 0, 2 ** 33) };
}

function log(value: unknown, where: string): LogRecord {
  const record = object(value, where);
  const volumes = list(record['volumes'], `${where}.volumes`, STORAGE_VOLUME_ID_MAX + 1, (id, at) =>
    integer(id, at, 0, STORAGE_VOLUME_ID_MAX),
  );
  if (volumes.length === 0) throw corrupt(`${where}.volumes`, 'is empty');
  return { uuid: uuid(record['uuid'], `${where}.uuid`), volumes };
}

function virtualVolume(value: unknown, where: string): VirtualVolumeRecord {
  const record = object(value, where);
  const name = volumeName(record['name'], `${where}.name`);
  let policy: VolumePolicy;
  try {
    policy = checkPolicy({ ...DEFAULT_POLICY, ...object(record['policy'], `${where}.policy`) });
  } catch (cause) {
    throw corrupt(`${where}.policy`, `is none: ${messageOf(cause)}`, cause);
  }
  return {
    name,
    log: uuid(record['log'], `${where}.log`),
    number: integer(record['number'], `${where}.number`, 0, VOLUME_NUMBER_MAX),
    policy,
    createdAt: integer(record['createdAt'], `${where}.createdAt`, 0, 8.64e15),
  };
}

function volumeName(value: unknown, where: string): string {
  let name: string;
  try {
    name = checkName(value as string, 'volume');
  } catch (cause) {
    throw corrupt(where, `is none: ${messageOf(cause)}`, cause);
  }
  if (name !== value) throw corrupt(where, 'is not in Unicode normal form C');
  return name;
}

// ---- which catalogue counts ----

/** One valid frame as some member had it. */
export interface FrameSeen {
  readonly generation: number;
  readonly nonce: string;
  readonly previous: string;
  readonly payload: Uint8Array;
}

export interface Chosen {
  readonly frame: FrameSeen;
  readonly catalogue: Catalogue;
}

/**
 * The newest catalogue that any member holds, if every other is one of its ancestors.
 *
 * `members` has for each member the valid frames found on it, and `uuids` whose they are. A member's word is its newest frame; it is an ancestor when its
 * nonce is the chosen one's, its previous one, or in its list of older ones. A member that the chosen one does not name, and that is older
 * than its list reaches back, is not heard: nothing rests on it, and it can no more be said which history it is of.
 *
 * @param uuids the members' own, in the same order
 * @throws VarveError `VARVE_FENCED` when two members went on without each other, `VARVE_CORRUPT` when there is no whole catalogue.
 */
export function chooseCatalogue(members: readonly (readonly FrameSeen[])[], uuids: readonly string[] = []): Chosen {
  const newest = members.map((frames) =>
    frames.reduce<FrameSeen | null>((best, frame) => (best === null || frame.generation > best.generation ? frame : best), null),
  );
  const frame = newest.reduce<FrameSeen | null>(
    (best, one) => (one !== null && (best === null || one.generation > best.generation) ? one : best),
    null,
  );
  if (frame === null) throw new VarveError('VARVE_CORRUPT', 'opening the pool', { detail: 'none of its devices has a whole catalogue' });
  const catalogue = decodeCatalogue(frame.payload);
  const line = new Set([frame.nonce, frame.previous, ...catalogue.ancestors]);
  const records = new Map(catalogue.storageVolumes.flatMap((volume) => volume.devices.map((device) => [device.uuid, device] as const)));
  const oldestKnown = frame.generation - 1 - catalogue.ancestors.length;
  for (const [index, one] of newest.entries()) {
    if (one === null || line.has(one.nonce)) continue;
    const uuid = uuids[index];
    const record = uuid === undefined ? undefined : records.get(uuid);
    // Away for longer than the list of ancestors goes back. What is online is believed, so it must have the very catalogue; of what is rebuilt, or not in use, it is
    // enough that it has nothing as new as the catalogue that dropped it.
    if (record !== undefined && record.state === undefined) {
      if (record.carries?.includes(one.nonce) === true) continue;
    } else if (uuid !== undefined && one.generation < Math.min(record?.since ?? oldestKnown, oldestKnown)) continue;
    const detail = `two of its devices carry catalogues of different histories (generations ${frame.generation} and ${one.generation}): each was used without the other`;
    throw new VarveError('VARVE_FENCED', 'opening the pool', { detail });
  }
  return { frame, catalogue };
}

/** The ancestors that the catalogue after `frame` lists: its predecessor's predecessor and before. */
export function nextAncestors(frame: { readonly previous: string }, catalogue: Catalogue): string[] {
  if (frame.previous === ZERO_UUID) return [];
  return [frame.previous, ...catalogue.ancestors].slice(0, ANCESTORS_MAX);
}

export const ZERO_UUID = '00000000-0000-0000-0000-000000000000';

// ---- checked access to unknown values ----

function object(value: unknown, where: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw corrupt(where, 'is no object');
  return value as Record<string, unknown>;
}

function list<T>(value: unknown, where: string, countMax: number, check: (item: unknown, where: string) => T): T[] {
  if (!Array.isArray(value)) throw corrupt(where, 'is no list');
  if (value.length > countMax) throw corrupt(where, `has more than ${countMax} entries`);
  return value.map((item, index) => check(item, `${where}[${index}]`));
}

function integer(value: unknown, where: string, least: number, most: number): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < least || value > most) {
    throw corrupt(where, `is no whole number from ${least} to ${most}`);
  }
  return value;
}

function uuid(value: unknown, where: string): string {
  if (typeof value !== 'string' || !UUID.test(value)) throw corrupt(where, 'is no uuid');
  return value;
}

function corrupt(where: string, problem: string, cause?: unknown): VarveError {
  return new VarveError('VARVE_CORRUPT', 'reading the catalogue', {
    detail: `${where === '' ? 'it' : where} ${problem}`,
    cause,
  });
}
