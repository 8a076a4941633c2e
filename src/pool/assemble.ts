// Makes a pool out of blank devices, and finds out what devices with labels are.

import type { CoreSource } from '../core/instantiate.ts';
import { isSyncDevice, type StorageDevice } from '../device/device.ts';
import { messageOf, VarveError } from '../errors.ts';
import { parseSize } from '../units.ts';
import type { LogGeometry } from '../volume/log.ts';
import {
  checkCatalogue,
  chooseCatalogue,
  encodeCatalogue,
  STORAGE_VOLUME_ID_MAX,
  ZERO_UUID,
  type Catalogue,
  type MemberRecord,
  type PoolSettings,
  type StorageVolumeRecord,
} from './catalogue.ts';
import type { PoolParts } from './keeper.ts';
import { checkGroup, labelGroup, makeStorageVolume, stripBlocksOf } from './make.ts';
import { FormatCodec, randomUuid } from './label.ts';
import { Member, writeCatalogue } from './member.ts';
import type { FoundDevice, PoolPlace } from './place.ts';
import { checkLevel, checkMembers, MEMBERS_MIN, type RaidLevel } from './raid.ts';

export interface PoolOptions {
  /** Offers `readSync`, `writeSync` and `flushSync` on volumes; all devices must have them. */
  readonly sync?: boolean | undefined;
  readonly readOnly?: boolean | undefined;
  /** The core; left out: the one that the bundle carries. */
  readonly core?: CoreSource | undefined;
  /**
   * When the pool is closed, gives the space of free segments back to the file system (holes) or the device (discards), where that is possible. Costs a
   * look at every log and some milliseconds for each gap. What cannot be given back is a note.
   */
  readonly discard?: boolean | undefined;
  /** How far a member that is being rebuilt is filled is committed each time after so many bytes of its storage volume: what a crash costs of it, at most. 512 MiB. */
  readonly rebuildPartBytes?: number | undefined;
  /** For tests: bounds and sizes of logs. */
  readonly geometry?: LogGeometry | undefined;
}

export interface CreatePoolOptions extends PoolOptions {
  /** Bytes of each storage volume that is made on demand: a number, or `'256MiB'`. */
  readonly volumeSize?: number | string | undefined;
  /** When the pool has so many storage volumes, none is made on demand. One that is added is taken all the same, and raises this to what there is then. */
  readonly maxVolumes?: number | undefined;
  /**
   * RAID level, `single` when left out. With devices they are the members of one storage volume; without, storage volumes made on demand have so
   * many members as the level needs at least (`members`), each of `volumeSize`.
   */
  readonly raid?: RaidLevel | undefined;
  /** Members of storage volumes made on demand. */
  readonly members?: number | undefined;
  /** Bytes of a strip: a power of two from 4 KiB to 1 MiB. Means nothing on `single`. */
  readonly stripSize?: number | string | undefined;
  /** For tests: blocks of a segment, 8 … 1024. */
  readonly segmentBlocks?: number | undefined;
  /** Gives a device for one more storage volume, or undefined. */
  readonly provide?: ((sizeBytes: number) => Promise<StorageDevice | undefined>) | undefined;
}

const MIB = 1 << 20;
export const DEFAULT_VOLUME_BYTES = 1024 * MIB;
/** With 64 KiB of catalogue 128 volumes of about 200 bytes leave room for as many virtual ones; with 1 MiB, 1024 do amply. */
export const DEFAULT_MAX_VOLUMES_SMALL = 128;
export const DEFAULT_MAX_VOLUMES = 1024;
const VOLUME_BYTES_MIN = MIB;

/** Labels the devices and commits the first catalogue. The devices are closed when it fails. */
export async function createParts(place: PoolPlace, devices: readonly FoundDevice[], options: CreatePoolOptions): Promise<PoolParts> {
  // Given devices are all that the pool has, unless it is said how large further ones are to be.
  const makes = place.make !== undefined && (devices.length === 0 || options.volumeSize !== undefined || options.provide !== undefined);
  const volumeSizeBytes = makes ? parseSize(options.volumeSize ?? DEFAULT_VOLUME_BYTES, 'volumeSize') : 0;
  if (makes && volumeSizeBytes < VOLUME_BYTES_MIN)
    throw new RangeError(`volumeSize: expected at least 1 MiB, got ${volumeSizeBytes} bytes`);
  const smallest = Math.min(...devices.map(({ device }) => device.sizeBytes), ...(makes ? [volumeSizeBytes] : []));
  const maxVolumes = options.maxVolumes ?? (smallest < DEFAULT_VOLUME_BYTES ? DEFAULT_MAX_VOLUMES_SMALL : DEFAULT_MAX_VOLUMES);
  if (!Number.isInteger(maxVolumes) || maxVolumes < 1 || maxVolumes > STORAGE_VOLUME_ID_MAX + 1) {
    throw new RangeError(`maxVolumes: expected a whole number from 1 to ${STORAGE_VOLUME_ID_MAX + 1}, got ${maxVolumes}`);
  }
  if (devices.length > maxVolumes) throw new RangeError(`maxVolumes: ${devices.length} devices are more than ${maxVolumes}`);
  checkSync(devices, options);

  const codec = await FormatCodec.create(options.core);
  const id = randomUuid();
  const segmentBlocks = options.segmentBlocks ?? 0;
  const generation = 1;
  const members: Member[] = [];
  const storageVolumes: StorageVolumeRecord[] = [];
  const level = checkLevel(options.raid ?? 'single', 'raid');
  const stripBlocks = stripBlocksOf(level, options.stripSize);
  const settings: PoolSettings = {
    volumeSizeBytes,
    maxVolumes,
    ...(level === 'single' || !makes
      ? {}
      : { raid: { level, members: options.members ?? (devices.length > 0 ? devices.length : MEMBERS_MIN[level]), stripBlocks } }),
  };
  if (settings.raid !== undefined) checkMembers(level, settings.raid.members, 'members');
  const groups = level === 'single' ? devices.map((device) => [device]) : devices.length > 0 ? [devices] : [];
  // All of them before the first is written to.
  for (const group of groups) checkGroup(codec, group, segmentBlocks, level, stripBlocks);
  for (const [volume, group] of groups.entries()) {
    storageVolumes.push(await labelGroup(codec, group, { pool: id, volume, generation, segmentBlocks }, level, stripBlocks, members));
  }
  if (members.length === 0) {
    // The catalogue lives on members: an empty pool has one storage volume, which the first virtual volume gets.
    if (place.make === undefined) throw new TypeError('a pool needs a device');
    storageVolumes.push(
      await makeStorageVolume(codec, place.make.bind(place), { pool: id, volume: 0, generation, segmentBlocks }, settings, members),
    );
  }
  const catalogue: Catalogue = checkCatalogue({
    settings,
    nextVolumeId: storageVolumes.length,
    storageVolumes,
    retired: [],
    logs: [],
    virtualVolumes: [],
    criteria: [],
    ancestors: [],
  });
  const nonce = randomUuid();
  const failed = await writeCatalogue(
    members,
    generation,
    codec.encodeFrame({ pool: id, generation, nonce, previous: ZERO_UUID, payload: encodeCatalogue(catalogue) }),
  );
  if (failed.size > 0) throw [...failed.values()][0];
  await place.remember?.(
    id,
    storageVolumes.flatMap((volume) => volume.devices),
  );
  return {
    codec,
    id,
    place,
    members,
    catalogue,
    generation,
    nonce,
    previous: ZERO_UUID,
    readOnly: false,
    segmentBlocks,
    notes: [],
    orphans: [],
    returned: [],
  };
}

/**
 * Reads labels and catalogues of what was found and decides what the pool is. Devices that do not belong to it are closed and noted.
 *
 * @param poolId the pool that is meant, when that is known
 */
export async function openParts(
  place: PoolPlace,
  devices: readonly FoundDevice[],
  options: PoolOptions,
  poolId?: string,
): Promise<PoolParts> {
  checkSync(devices, options);
  const codec = await FormatCodec.create(options.core);
  const notes: string[] = [];
  const seen: Member[] = [];
  let trouble: unknown;
  // Those whose front label is sound come first: they say where the others may have their back labels.
  const unread: FoundDevice[] = [];
  const read = async ({ device, path }: FoundDevice, last: boolean): Promise<void> => {
    try {
      const member = await Member.read(codec, device, path, last ? [...new Set(seen.map((other) => other.label.labelBackOffset))] : []);
      if (seen.some((other) => other.uuid === member.uuid)) {
        notes.push(`${path ?? member.uuid}: a copy of a device that is there already; left alone`);
        await device.close();
        return;
      }
      await member.readSlots(codec);
      seen.push(member);
    } catch (error) {
      if (!last) return void unread.push({ device, path });
      trouble ??= error;
      notes.push(messageOf(error));
      await device.close();
    }
  };
  for (const device of devices) await read(device, false);
  for (const device of unread.splice(0)) await read(device, true);
  const id = poolId ?? mostCommon(seen.map((member) => member.label.pool));
  const ours = seen.filter((member) => member.label.pool === id);
  if (id === undefined || ours.length === 0) {
    for (const member of seen) await member.device.close();
    throw trouble ?? new VarveError('VARVE_NOT_FOUND', 'opening the pool', { detail: 'there is no storage device of a pool' });
  }
  try {
    const { frame, catalogue } = chooseCatalogue(
      ours.map((member) => member.frames()),
      ours.map((member) => member.uuid),
    );
    const named = new Map(catalogue.storageVolumes.flatMap((volume) => volume.devices.map((device) => [device.uuid, volume] as const)));
    const retired = new Set(catalogue.retired.map((device) => device.uuid));
    const members: Member[] = [];
    const orphans: MemberRecord[] = [];
    const returned: Member[] = [];
    for (const member of seen) {
      const volume = member.label.pool === id ? named.get(member.uuid) : undefined;
      const record = volume?.devices.find((device) => device.uuid === member.uuid);
      // A spare may have the labels of the place that it was about to take.
      const inPlace = member.label.volume === volume?.id && volume.devices[member.label.member]?.uuid === member.uuid;
      if (volume !== undefined && (inPlace || volume.spare === true)) {
        // What was away holds what was true then.
        if (record?.state === 'missing' || record?.state === 'faulted') returned.push(member);
        else members.push(member);
        if (member.readOnlyFeatures && options.readOnly !== true) {
          throw new VarveError('VARVE_UNSUPPORTED', 'opening the pool for writing', {
            detail: `${member.path ?? member.uuid} has features that need a newer version of Varve to write`,
          });
        }
        continue;
      }
      await member.device.close();
      if (retired.has(member.uuid)) continue;
      const unborn = member.label.pool === id && member.slots.every((slot) => slot.frame === null && slot.problem === null);
      if (unborn) orphans.push({ uuid: member.uuid, path: member.path });
      notes.push(
        `${member.path ?? member.uuid}: not in the pool's catalogue; ${unborn ? 'its making was cut off, it holds nothing' : 'left alone'}`,
      );
    }
    for (const volume of catalogue.storageVolumes) {
      for (const device of volume.devices) {
        if (!members.some((member) => member.uuid === device.uuid))
          notes.push(
            `storage volume ${volume.id}: a member is ${returned.some((member) => member.uuid === device.uuid) ? device.state : 'missing'} (${device.path ?? device.uuid})`,
          );
      }
    }
    return {
      codec,
      id,
      place,
      members,
      catalogue,
      generation: frame.generation,
      nonce: frame.nonce,
      previous: frame.previous,
      readOnly: options.readOnly ?? false,
      segmentBlocks: 0,
      notes,
      orphans,
      returned,
    };
  } catch (error) {
    for (const member of seen) await member.device.close();
    throw error;
  }
}

function checkSync(devices: readonly FoundDevice[], options: PoolOptions): void {
  if (options.sync === true && !devices.every(({ device }) => isSyncDevice(device))) {
    throw new VarveError('VARVE_UNSUPPORTED', 'opening the pool in sync mode', { detail: 'a device does not work synchronously' });
  }
}

function mostCommon(values: readonly string[]): string | undefined {
  const counts = new Map<string, number>();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1])[0]?.[0];
}
