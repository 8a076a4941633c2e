// Makes storage volumes: labels on the devices that become their members. Nothing here commits; until a catalogue names them they hold nothing.

import { VarveError } from '../errors.ts';
import { parseSize } from '../units.ts';
import { ZERO_UUID, type MemberRecord, type PoolSettings, type StorageVolumeRecord } from './catalogue.ts';
import { randomUuid, type FormatCodec, type Label } from './label.ts';
import { Member, writeLabels } from './member.ts';
import type { FoundDevice, PoolPlace } from './place.ts';
import { checkMembers, defaultStripBlocks, levelNumber, STRIP_BYTES_MAX, type RaidLevel } from './raid.ts';

/**
 * Can the devices become the members of one storage volume? Nothing is written.
 *
 * @throws RangeError; VarveError `VARVE_LIMIT` when one is too small
 */
export function checkGroup(
  codec: FormatCodec,
  group: readonly FoundDevice[],
  segmentBlocks: number,
  level: RaidLevel,
  stripBlocks: number,
): void {
  checkMembers(level, group.length, 'devices');
  const smallest = group.reduce((least, each) => (each.device.sizeBytes < least.device.sizeBytes ? each : least));
  const place = { pool: ZERO_UUID, device: ZERO_UUID, volume: 0, member: 0, generation: 1 };
  const shape = { sizeBytes: smallest.device.sizeBytes, level: levelNumber(level), members: group.length, segmentBlocks, stripBlocks };
  codec.encodeLabels({ ...place, ...shape, path: smallest.path });
}

/** Writes labels on devices that become the members of one storage volume. */
export async function labelGroup(
  codec: FormatCodec,
  group: readonly FoundDevice[],
  shape: { readonly pool: string; readonly volume: number; readonly generation: number; readonly segmentBlocks: number },
  level: RaidLevel,
  stripBlocks: number,
  made: Member[],
): Promise<StorageVolumeRecord> {
  checkGroup(codec, group, shape.segmentBlocks, level, stripBlocks);
  const sizeBytes = Math.min(...group.map(({ device }) => device.sizeBytes));
  const records: MemberRecord[] = [];
  let size = 0;
  for (const [member, { device, path }] of group.entries()) {
    const uuid = randomUuid();
    const request = { ...shape, device: uuid, sizeBytes, level: levelNumber(level), members: group.length, member, stripBlocks };
    const label = await writeLabels(codec, device, request);
    made.push(Member.fresh(device, path, label));
    records.push({ uuid, path });
    size = volumeBytes(label);
  }
  return { id: shape.volume, state: 'unassigned', level, sizeBytes: size, devices: records };
}

/** Blocks of a strip as asked for, or as the level has them by default; none on `single`, where what is asked for has to be a strip's size all the same. */
export function stripBlocksOf(level: RaidLevel, stripSize: number | string | undefined): number {
  if (stripSize === undefined) return defaultStripBlocks(level);
  const bytes = parseSize(stripSize, 'stripSize');
  if (bytes < 4096 || bytes > STRIP_BYTES_MAX || (bytes & (bytes - 1)) !== 0)
    throw new RangeError(`stripSize: expected a power of two from 4 KiB to 1 MiB, got ${bytes} bytes`);
  return level === 'single' ? 0 : bytes / 4096;
}

/** Makes the devices of a new storage volume, labelled; they are in `made`, and in no catalogue yet. */
export async function makeStorageVolume(
  codec: FormatCodec,
  make: NonNullable<PoolPlace['make']>,
  shape: { readonly pool: string; readonly volume: number; readonly generation: number; readonly segmentBlocks: number },
  settings: PoolSettings,
  made: Member[],
): Promise<StorageVolumeRecord> {
  const { level, members, stripBlocks } = settings.raid ?? { level: 'single' as const, members: 1, stripBlocks: 0 };
  const devices: MemberRecord[] = [];
  let sizeBytes = 0;
  for (let member = 0; member < members; member++) {
    const uuid = randomUuid();
    let label: Label | undefined;
    const found = await make(shape.volume, uuid, settings.volumeSizeBytes, async (device) => {
      label = await writeLabels(codec, device, { ...shape, device: uuid, level: levelNumber(level), members, member, stripBlocks });
    });
    if (label === undefined) throw new VarveError('VARVE_INTERNAL', 'making a storage volume', { detail: 'a new device was not labelled' });
    made.push(Member.fresh(found.device, found.path, label));
    devices.push({ uuid, path: found.path });
    sizeBytes = volumeBytes(label);
  }
  return { id: shape.volume, state: 'unassigned', level, sizeBytes, devices };
}

/** What a storage volume counts for: the device on `single`, else what its segments hold. */
export function volumeBytes(label: Label): number {
  return label.level === 0 ? label.sizeBytes : label.segmentBlocks * label.segmentCount * 4096;
}
