// A log on memory devices, as a pool would lay it out on volumes of level `single`.
import type { StorageDevice } from '../../src/device/device.ts';
import { MemoryDevice } from '../../src/device/memory.ts';
import { Log, type LogOptions, type LogVolume } from '../../src/volume/log.ts';
import { VirtualVolume } from '../../src/volume/volume.ts';

const CATALOGUE_BYTES = 65536;
const ROOT_OFFSET = 4096 + 2 * CATALOGUE_BYTES;
const LABEL_AREA = ROOT_OFFSET + 8192;

/** The whole device as one storage volume. */
export function storageVolume(id: number, device: StorageDevice, segmentBlocks?: number): LogVolume {
  const sizeBytes = device.sizeBytes - (device.sizeBytes % 4096);
  const blocks = (sizeBytes - 2 * LABEL_AREA) / 4096;
  let segment = segmentBlocks ?? 1024;
  while (segmentBlocks === undefined && segment > 8 && blocks / segment < 32) segment /= 2;
  return {
    id,
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

export const UUID = Uint8Array.from({ length: 16 }, (_, index) => index + 1);
export const KEY = Uint8Array.from({ length: 16 }, (_, index) => 0xf0 ^ index);

export const POLICY = { growAt: 0.95, compactTo: 0.8, shrinkBelow: 0.7, mode: 'auto', volumesMin: 1, volumesMax: 0 } as const;

export interface Fixture {
  readonly devices: StorageDevice[];
  readonly volumes: LogVolume[];
  readonly log: Log;
  readonly volume: VirtualVolume;
}

/** A new log with one virtual volume `v` of `virtualBytes`. */
export async function createLog(
  options: { size?: string; virtualBytes?: number; devices?: StorageDevice[]; segmentBlocks?: number } & Partial<LogOptions> = {},
): Promise<Fixture> {
  const { size = '32MiB', virtualBytes = 16 * 1024 * 1024, devices = [new MemoryDevice(size)], segmentBlocks, ...rest } = options;
  const volumes = devices.map((device, id) => storageVolume(id, device, segmentBlocks));
  const log = await Log.create({ name: 'v', uuid: UUID, key: KEY, volumes, policy: POLICY, ...rest });
  await log.createSource(0, 'default', virtualBytes);
  return { devices, volumes, log, volume: new VirtualVolume(log, 'v', 0) };
}

export async function openLog(volumes: LogVolume[], options: Partial<LogOptions> = {}): Promise<{ log: Log; volume: VirtualVolume }> {
  const log = await Log.open({ name: 'v', uuid: UUID, volumes, policy: POLICY, ...options });
  return { log, volume: new VirtualVolume(log, 'v', 0) };
}

/** The same bytes on another device: what a member was at this moment. */
export function copyOf(device: MemoryDevice): MemoryDevice {
  const bytes = new Uint8Array(device.sizeBytes);
  device.readSync(0, bytes);
  const copy = new MemoryDevice(device.sizeBytes);
  copy.writeSync(0, bytes);
  return copy;
}

export function pattern(length: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let state = (Math.imul(seed, 0x9e3779b1) + 1) >>> 0;
  for (let at = 0; at < length; at++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[at] = state >>> 24;
  }
  return bytes;
}

export async function readBack(device: StorageDevice, offset: number, length: number): Promise<Uint8Array> {
  const into = new Uint8Array(length).fill(0xa5);
  await device.read(offset, into);
  return into;
}
