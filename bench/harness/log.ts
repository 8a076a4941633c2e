// Logs without a pool: one storage volume of level `single` over one device, laid out as a pool would.
import { rmSync } from 'node:fs';
import type { SyncStorageDevice } from '../../src/device/device.ts';
import { FileDevice } from '../../src/device/file.ts';
import { Log, type LogGeometry, type LogVolume } from '../../src/volume/log.ts';
import { VirtualVolume } from '../../src/volume/volume.ts';
import type { Context } from './question.ts';
import { BLOCK } from './measure.ts';

const CATALOGUE_BYTES = 65536;
const ROOT_OFFSET = 4096 + 2 * CATALOGUE_BYTES;
/** Labels, catalogue and roots, in front and at the back. */
export const LABEL_AREA = ROOT_OFFSET + 8192;

const UUID = Uint8Array.from({ length: 16 }, (_, index) => index + 1);
const KEY = Uint8Array.from({ length: 16 }, (_, index) => 0xf0 ^ index);
/** Fixed: the log neither grows nor shrinks. */
const POLICY = { growAt: 0.95, compactTo: 0.8, shrinkBelow: 0.7, mode: 'fixed', volumesMin: 1, volumesMax: 1 } as const;

/** The whole device as one storage volume; segments as `init` would choose them. */
export function storageVolume(device: SyncStorageDevice, segmentBlocks = 1024): LogVolume {
  const sizeBytes = device.sizeBytes - (device.sizeBytes % BLOCK);
  const blocks = (sizeBytes - 2 * LABEL_AREA) / BLOCK;
  let segment = segmentBlocks;
  while (segment > 8 && blocks / segment < 32) segment /= 2;
  return {
    id: 0,
    level: 0,
    members: [device],
    stripBlocks: 1,
    segmentBlocks: segment,
    segmentCount: Math.floor(blocks / segment),
    dataOffset: LABEL_AREA,
    rootFrontOffset: ROOT_OFFSET,
    rootBackOffset: sizeBytes - LABEL_AREA + ROOT_OFFSET,
  };
}

/** Bytes of a device that holds so many segments. */
export function deviceBytes(segments: number, segmentBlocks = 1024): number {
  return segments * segmentBlocks * BLOCK + 2 * LABEL_AREA;
}

export interface LogChoice {
  readonly virtualBytes: number;
  readonly geometry?: LogGeometry;
  readonly segmentBlocks?: number;
  readonly sync?: boolean;
}

export interface Stand<Device extends SyncStorageDevice> {
  readonly device: Device;
  readonly log: Log;
  readonly volume: VirtualVolume;
}

/** A new log on a device, with one virtual volume. */
export async function createLog<Device extends SyncStorageDevice>(
  context: Context,
  device: Device,
  choice: LogChoice,
): Promise<Stand<Device>> {
  const { virtualBytes, geometry, segmentBlocks, sync = false } = choice;
  const volumes = [storageVolume(device, segmentBlocks)];
  const log = await Log.create({ name: 'bench', uuid: UUID, key: KEY, volumes, policy: POLICY, geometry, sync, core: context.core });
  await log.createSource(0, 'default', virtualBytes);
  return { device, log, volume: new VirtualVolume(log, 'bench', 0) };
}

export interface OpenChoice {
  readonly geometry?: LogGeometry | undefined;
  readonly segmentBlocks?: number | undefined;
  readonly sync?: boolean;
  readonly readOnly?: boolean;
}

export async function openLog<Device extends SyncStorageDevice>(
  context: Context,
  device: Device,
  choice: OpenChoice = {},
): Promise<Stand<Device>> {
  const { geometry, segmentBlocks, sync = false, readOnly = false } = choice;
  const volumes = [storageVolume(device, segmentBlocks)];
  const log = await Log.open({ name: 'bench', uuid: UUID, volumes, policy: POLICY, geometry, sync, readOnly, core: context.core });
  return { device, log, volume: new VirtualVolume(log, 'bench', 0) };
}

/**
 * A file of its own in the bench's directory, written from front to back and flushed: what is measured then is the steady state, in which neither the file
 * system allocates blocks nor the system pages for its cache. (On virtual machines the first touch of a page costs more than everything that is measured.)
 * What lies behind `writtenBytes` takes no space until it is written.
 */
export function newFile(context: Context, name: string, sizeBytes: number, writtenBytes = sizeBytes): FileDevice {
  const path = `${context.directory}/${name}`;
  rmSync(path, { force: true });
  const device = FileDevice.openSync(path, { create: 'exclusive', sizeBytes });
  const bytes = new Uint8Array(4 * 2 ** 20).fill(0xff);
  for (let at = 0; at < writtenBytes; at += bytes.length)
    device.writeSync(at, bytes.subarray(0, Math.min(bytes.length, writtenBytes - at)));
  device.flushSync();
  return device;
}

export async function dropFile(device: FileDevice): Promise<void> {
  await device.close();
  rmSync(device.path, { force: true });
}
