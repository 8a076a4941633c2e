// Gives the space of free segments back to what is below: holes in files, discards on block devices.
//
// Only when nobody writes: the logs are closed, the lock is still ours. Each log is opened for reading once more and says which bytes are in use: exactly
// those of which one flipped bit would be found, so nothing ever looks at the rest. A segment without a byte in use is given back whole. The core need not
// plan it, and a segment that is being filled cannot be hit; the price is that it happens at the end of a session and not in the middle of one.
//
//   1. For each log: open it read-only, take its ranges, close it.
//   2. For each of its storage volumes, and for each that no log has: runs of segments in which no range begins or ends or lies.
//   3. Discard the longest runs.

import type { CoreSource } from '../core/instantiate.ts';
import { messageOf } from '../errors.ts';
import type { StorageDevice } from '../device/device.ts';
import { Log, type LogVolume } from '../volume/log.ts';
import type { Keeper } from './keeper.ts';
import { uuidBytes } from './label.ts';
import { dataColumns, RAID_LEVELS, type RaidLevel } from './raid.ts';

const BLOCK_BYTES = 4096;
/** A discard starts a program, 4 to 15 ms: so many take some seconds, and after a compaction the free segments lie together. */
const RUNS_MAX = 500;

interface Run {
  readonly volume: LogVolume;
  readonly device: StorageDevice;
  readonly offset: number;
  readonly bytes: number;
}

/** What cannot be given back is noted; it is no failure. @returns bytes given back, those included that were free below already */
export async function reclaim(keeper: Keeper, core: CoreSource | undefined): Promise<number> {
  const { catalogue } = keeper;
  const runs: Run[] = [];
  const isThere = (id: number): boolean => keeper.storageVolume(id).devices.every((device) => keeper.members.has(device.uuid));
  // Or what is read here may be newer than what a power cut leaves, which has something in other segments.
  for (const { device } of keeper.members.values()) await device.flush();
  for (const record of catalogue.logs) {
    if (!record.volumes.every(isThere)) continue;
    const volumes = record.volumes.map((id) => keeper.logVolume(keeper.storageVolume(id), []));
    const name = keeper.virtualVolumeOf(record.uuid)?.name ?? record.uuid;
    let log: Log | undefined;
    try {
      log = await Log.open({ name, uuid: uuidBytes(record.uuid), volumes, readOnly: true, core });
      const used = new Map<number, Set<number>>(volumes.map((volume) => [volume.id, new Set()]));
      for (const { volume: id, block, bytes } of await log.usedRanges()) {
        const volume = volumes.find((one) => one.id === id);
        if (volume === undefined) continue;
        const last = block + Math.ceil(bytes / BLOCK_BYTES) - 1;
        for (let at = Math.floor(block / volume.segmentBlocks); at <= last / volume.segmentBlocks; at++) used.get(id)?.add(at);
      }
      for (const volume of volumes) runs.push(...freeRuns(volume, used.get(volume.id) ?? new Set()));
    } catch (error) {
      // Damaged, say: what of it is in use is not known.
      keeper.note(`space of '${name}' was not given back: ${messageOf(error)}`);
    } finally {
      await log?.abandon();
    }
  }
  for (const volume of catalogue.storageVolumes) {
    if (volume.state === 'unassigned' && isThere(volume.id)) runs.push(...freeRuns(keeper.logVolume(volume, []), new Set()));
  }
  keeper.checkFence();
  let given = 0;
  const refused = new Set<StorageDevice>();
  for (const { volume, device, offset, bytes } of runs.toSorted((a, b) => b.bytes - a.bytes).slice(0, RUNS_MAX)) {
    if (device.discard === undefined || refused.has(device)) continue;
    try {
      await device.discard(offset, bytes);
      given += bytes;
    } catch (error) {
      refused.add(device);
      keeper.note(`storage volume ${volume.id}: its free space stays where it is: ${messageOf(error)}`);
    }
  }
  return given;
}

/** Runs of segments that hold nothing, on each member that can discard: a member's part of segments in a row is one piece. */
export function freeRuns(volume: LogVolume, used: ReadonlySet<number>): Run[] {
  const devices = volume.members.filter((device) => device?.supports.discard === true) as StorageDevice[];
  const level = RAID_LEVELS[volume.level] as RaidLevel;
  const partBytes = (volume.segmentBlocks / dataColumns(level, volume.members.length)) * BLOCK_BYTES;
  const runs: Run[] = [];
  for (let at = 0; at < volume.segmentCount;) {
    const begin = at;
    while (at < volume.segmentCount && !used.has(at)) at++;
    const offset = volume.dataOffset + begin * partBytes;
    if (at > begin) for (const device of devices) runs.push({ volume, device, offset, bytes: (at - begin) * partBytes });
    at++;
  }
  return runs;
}
