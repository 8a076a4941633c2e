// What a pool says about itself: its status, what a check finds, and what is on its devices.

import { isVarveError, messageOf } from '../errors.ts';
import type { Log } from '../volume/log.ts';
import type { LogProblem } from '../volume/state.ts';
import { VirtualVolume } from '../volume/volume.ts';
import type { LogRecord, StorageVolumeState, VirtualVolumeRecord } from './catalogue.ts';
import type { Keeper } from './keeper.ts';
import { FRAME_HEADER_BYTES, LABEL_BYTES } from './label.ts';
import { Member } from './member.ts';
import type { PoolQuota } from './place.ts';
import type { VolumePolicy } from './policy.ts';
import { transcriptOf } from './transcript.ts';

/** The logs of the pool, as a report needs them. */
export interface Logs {
  /** @throws VarveError when it cannot be opened */
  open(record: VirtualVolumeRecord): Promise<Log>;
  /** The log if it is open. */
  opened(uuid: string): Log | undefined;
}

export interface PoolStatus {
  readonly pool: { readonly id: string; readonly path: string | null; readonly generation: number };
  readonly storageVolumes: readonly StorageVolumeStatus[];
  readonly virtualVolumes: readonly VirtualVolumeStatus[];
  readonly requests: readonly never[];
  readonly notes: readonly string[];
  /** In a browser: what the origin keeps and may keep, the bound of the pool's growth. */
  readonly quota?: PoolQuota;
}

export interface StorageVolumeStatus {
  readonly id: number;
  readonly state: StorageVolumeState;
  readonly virtualVolume: string | null;
  readonly raid: string;
  readonly sizeBytes: number;
  readonly usedBytes: number;
  readonly devices: readonly { readonly path: string | null; readonly state: 'online' | 'missing' | 'faulted' | 'rebuilding' }[];
}

export interface VirtualVolumeStatus {
  readonly name: string;
  readonly log: string;
  readonly sizeBytes: number;
  readonly mappedBytes: number;
  readonly liveBytes: number;
  readonly usedBytes: number;
  readonly storageVolumes: readonly number[];
  readonly snapshots: readonly { readonly name: string; readonly createdAt: string }[];
  readonly sources: readonly { readonly name: string; readonly sizeBytes: number; readonly limit: null }[];
  readonly policy: VolumePolicy;
  readonly createdAt: string;
  /** Why the volume cannot be used, or not be written any more (`VARVE_READ_ONLY`: a device failed). Of one that cannot be used at all the figures are 0. */
  readonly error?: { readonly code: string; readonly message: string };
}

export interface CheckOptions {
  readonly signal?: AbortSignal | undefined;
  /** Called with the name of each volume before it is checked. */
  readonly onProgress?: ((volume: string) => void) | undefined;
}

export interface CheckResult {
  readonly clean: boolean;
  readonly problems: readonly CheckProblem[];
  readonly notes: readonly string[];
}

export interface CheckProblem {
  readonly code: string;
  readonly where: string;
  readonly message: string;
}

export interface DescribedRange {
  readonly offset: number;
  readonly length: number;
  readonly what: string;
}

export interface PoolDescription {
  readonly lines: readonly string[];
  /** For a log that is open for writing only what the pool itself uses. */
  readonly devices: readonly { readonly volume: number; readonly path: string | null; readonly ranges: readonly DescribedRange[] }[];
}

export async function statusOf(keeper: Keeper, logs: Logs): Promise<PoolStatus> {
  const virtualVolumes: VirtualVolumeStatus[] = [];
  for (const record of keeper.catalogue.virtualVolumes) {
    if (keeper.find(record.name)?.log !== record.log) continue; // it was deleted while another was being opened
    virtualVolumes.push(await volumeStatus(keeper, logs, record));
  }
  const owner = new Map<number, LogRecord>();
  for (const log of keeper.catalogue.logs) for (const id of log.volumes) owner.set(id, log);
  return {
    pool: { id: keeper.id, path: keeper.place.path, generation: keeper.generation },
    storageVolumes: keeper.catalogue.storageVolumes.map((volume) => {
      const log = owner.get(volume.id);
      const open = log === undefined ? undefined : logs.opened(log.uuid);
      return {
        id: volume.id,
        // Faulted is a storage volume of which something cannot be read any more; one that does without a member is degraded, as its devices say.
        state: keeper.tolerates(volume, (device) => !keeper.members.has(device.uuid)) ? volume.state : 'faulted',
        virtualVolume: log === undefined ? null : (keeper.catalogue.virtualVolumes.find((record) => record.log === log.uuid)?.name ?? null),
        raid: volume.level,
        sizeBytes: volume.sizeBytes,
        usedBytes: open === undefined || open.closed || open.loop.dead ? 0 : open.volumeFigures(volume.id).usedBytes,
        devices: volume.devices.map((device) => ({
          path: keeper.locate(keeper.members.get(device.uuid)?.path ?? device.path),
          state: keeper.members.has(device.uuid)
            ? (device.state ?? ('online' as const))
            : device.state === 'faulted'
              ? ('faulted' as const)
              : ('missing' as const),
        })),
      };
    }),
    virtualVolumes,
    requests: [],
    notes: keeper.notes,
    ...(keeper.place.quota === undefined ? {} : { quota: await keeper.place.quota() }),
  };
}

async function volumeStatus(keeper: Keeper, logs: Logs, record: VirtualVolumeRecord): Promise<VirtualVolumeStatus> {
  const fixed = {
    name: record.name,
    log: record.log,
    storageVolumes: keeper.logRecord(record.log).volumes,
    policy: record.policy,
    createdAt: new Date(record.createdAt).toISOString(),
  };
  try {
    const log = await logs.open(record);
    const volume = new VirtualVolume(log, record.name, record.number);
    const figures = volume.figures();
    return {
      ...fixed,
      sizeBytes: figures.sizeBytes,
      mappedBytes: await volume.countMapped(),
      liveBytes: figures.liveBytes,
      usedBytes: figures.usedBytes,
      snapshots: volume
        .snapshots()
        .map((snapshot) => ({ name: snapshot.name, createdAt: snapshot.createdAt.toISOString(), automatic: snapshot.automatic })),
      sources: volume.sources().map((source) => ({ name: source.name, sizeBytes: source.sizeBytes, limit: null })),
      ...(figures.failedReadOnly && { error: told(log.loop.refusal(`write of '${record.name}'`)) }),
    };
  } catch (error) {
    return {
      ...fixed,
      sizeBytes: 0,
      mappedBytes: 0,
      liveBytes: 0,
      usedBytes: 0,
      snapshots: [],
      sources: [],
      error: told(error),
    };
  }
}

function told(error: unknown): { readonly code: string; readonly message: string } {
  return { code: isVarveError(error) ? error.code : 'VARVE_INTERNAL', message: messageOf(error) };
}

/** Verifies everything that is in use on every device: labels, catalogues, and all of every log. Changes nothing. */
export async function checkPool(keeper: Keeper, logs: Logs, options: CheckOptions): Promise<CheckResult> {
  const problems: CheckProblem[] = [];
  const notes = [...keeper.notes];
  for (const volume of keeper.catalogue.storageVolumes) {
    for (const device of volume.devices) {
      const member = keeper.members.get(device.uuid);
      if (member !== undefined && device.state === 'rebuilding')
        notes.push(`storage volume ${volume.id} (${member.path ?? member.uuid}): is being rebuilt`);
      const where = `storage volume ${volume.id} (${member?.path ?? device.path ?? device.uuid})`;
      if (member === undefined) {
        const degraded = volume.devices.length === 1 ? '' : ': the storage volume is degraded';
        problems.push({ code: 'VARVE_IO', where, message: `the device is ${device.state ?? 'missing'}${degraded}` });
        continue;
      }
      let seen: Member;
      try {
        seen = await Member.read(keeper.codec, member.device, member.path);
        await seen.readSlots(keeper.codec);
      } catch (error) {
        problems.push({ code: isVarveError(error) ? error.code : 'VARVE_IO', where, message: messageOf(error) });
        continue;
      }
      for (const [side, problem] of seen.labelProblems)
        problems.push({ code: 'VARVE_CORRUPT', where, message: `${side} label: ${problem}` });
      for (const slot of seen.slots) {
        const what = `${slot.side} catalogue, slot ${slot.slot === 0 ? 'A' : 'B'}`;
        if (slot.slot !== keeper.generation % 2) {
          // The older generation, or one that was being committed when its writer stopped: nothing depends on it.
          if (slot.problem !== null) notes.push(`${where}: ${what}: ${slot.problem}; the newer one is whole`);
        } else if (slot.problem !== null) problems.push({ code: 'VARVE_CORRUPT', where, message: `${what}: ${slot.problem}` });
        else if (slot.frame?.nonce !== keeper.nonce) notes.push(`${where}: ${what} is older than the pool's: a commit was cut off`);
      }
    }
  }
  for (const record of keeper.catalogue.logs) {
    options.signal?.throwIfAborted();
    const volume = keeper.catalogue.virtualVolumes.find((one) => one.log === record.uuid);
    if (volume === undefined) continue;
    options.onProgress?.(volume.name);
    try {
      const log = await logs.open(volume);
      for (const problem of await log.check(options.signal)) {
        const unreadable = problem.failure === 3;
        problems.push({
          code: unreadable ? 'VARVE_IO' : 'VARVE_CORRUPT',
          where: `volume '${volume.name}', storage volume ${problem.volume}, byte ${problem.offset} of its device`,
          message: `${problem.structure}: ${unreadable ? 'cannot be read' : problem.structure === 'mapping' ? 'nothing on the device backs it' : 'damaged'}`,
        });
      }
    } catch (error) {
      options.signal?.throwIfAborted();
      problems.push({ where: `volume '${volume.name}'`, ...told(error) });
    }
  }
  return { clean: problems.length === 0, problems, notes };
}

export interface ScrubPoolOptions {
  readonly signal?: AbortSignal | undefined;
  /** Called with the name of each volume, and how many of its segments have been looked at. */
  readonly onProgress?: ((volume: string, done: number, total: number) => void) | undefined;
}

export interface ScrubResult {
  /** Nothing was wrong, and nothing is. */
  readonly clean: boolean;
  /** Places that were wrong, and are mended. */
  readonly healed: readonly { readonly where: string; readonly what: string }[];
  readonly problems: readonly CheckProblem[];
  readonly notes: readonly string[];
}

/** Verifies every copy and parity of everything in use, and mends what is wrong. */
export async function scrubPool(keeper: Keeper, logs: Logs, options: ScrubPoolOptions): Promise<ScrubResult> {
  const problems: CheckProblem[] = [];
  const healed: { where: string; what: string }[] = [];
  await keeper.exclusive(async () => {
    for (const what of await keeper.mendLabels()) healed.push(what);
  });
  for (const volume of keeper.catalogue.storageVolumes) {
    for (const device of volume.devices) {
      if (keeper.members.has(device.uuid)) continue;
      const where = `storage volume ${volume.id} (${device.path ?? device.uuid})`;
      problems.push({ code: 'VARVE_IO', where, message: `the device is ${device.state ?? 'missing'}` });
    }
  }
  for (const record of keeper.catalogue.logs) {
    options.signal?.throwIfAborted();
    const volume = keeper.catalogue.virtualVolumes.find((one) => one.log === record.uuid);
    if (volume === undefined) continue;
    let callers: { readonly error: unknown } | undefined;
    try {
      const log = await logs.open(volume);
      const place = (problem: LogProblem): string =>
        `volume '${volume.name}', storage volume ${problem.volume}, byte ${problem.offset} of its members`;
      const found = await log.scrub({
        signal: options.signal,
        onProgress: (done, total) => {
          try {
            options.onProgress?.(volume.name, done, total);
          } catch (error) {
            callers = { error };
            throw error;
          }
        },
      });
      for (const one of found.mended) healed.push({ where: place(one), what: 'row' });
      for (const one of found.problems)
        problems.push({
          code: one.failure === 3 ? 'VARVE_IO' : 'VARVE_CORRUPT',
          where: place(one),
          message: `${one.structure}: beyond repair`,
        });
      // Storage volumes without redundancy, and what no copy is compared with: roots, and whether every mapping is backed.
      for (const one of await log.check(options.signal)) {
        if (found.problems.some((other) => other.volume === one.volume && other.block === one.block)) continue;
        problems.push({
          code: one.failure === 3 ? 'VARVE_IO' : 'VARVE_CORRUPT',
          where: place(one),
          message: `${one.structure}: ${one.failure === 3 ? 'cannot be read' : 'damaged'}`,
        });
      }
    } catch (error) {
      options.signal?.throwIfAborted();
      if (callers !== undefined) throw callers.error; // no problem of the pool's
      problems.push({ where: `volume '${volume.name}'`, ...told(error) });
    }
  }
  return { clean: problems.length === 0 && healed.length === 0, healed, problems, notes: keeper.notes };
}

/** What is on the devices, for people and for tests that look for damage: the bytes that the pool itself uses, and what the logs say. */
export async function describePool(keeper: Keeper, logs: Logs, signal: AbortSignal | undefined): Promise<PoolDescription> {
  const lines = [`pool ${keeper.id}, catalogue generation ${keeper.generation}, nonce ${keeper.nonce}, after ${keeper.previous}`];
  const devices: { volume: number; path: string | null; ranges: DescribedRange[] }[] = [];
  for (const volume of keeper.catalogue.storageVolumes) {
    for (const { uuid, path } of volume.devices) {
      const member = keeper.members.get(uuid);
      lines.push('', `storage volume ${volume.id}, ${volume.level}, ${volume.state}: ${member?.path ?? path ?? 'memory'}, device ${uuid}`);
      if (member === undefined) {
        lines.push('  missing');
        continue;
      }
      const { label } = member;
      lines.push(
        `  ${label.sizeBytes} bytes; ${label.segmentCount} segments of ${label.segmentBlocks} blocks from byte ${label.dataOffset}`,
        `  label        ${at(0)}  and ${at(label.labelBackOffset)}  format ${label.versionMajor}.${label.versionMinor}, named by generation ${label.generation}`,
        `  root slots   ${at(label.rootFrontOffset)}  and ${at(label.rootBackOffset)}`,
      );
      const ranges: DescribedRange[] = [
        { offset: 0, length: LABEL_BYTES, what: 'label' },
        { offset: label.labelBackOffset, length: LABEL_BYTES, what: 'label' },
      ];
      await member.readSlots(keeper.codec); // as they are now, not as they were when the pool was opened
      for (const slot of member.slots) {
        const offset = member.slotOffset(slot.side, slot.slot);
        const { frame } = slot;
        if (frame === null)
          lines.push(`  catalogue    ${at(offset)}  ${slot.side} ${slot.slot === 0 ? 'A' : 'B'}: ${slot.problem ?? 'blank'}`);
        else {
          const length = (FRAME_HEADER_BYTES + frame.payload.length + 4095) & ~4095;
          lines.push(
            `  catalogue    ${at(offset)}  ${slot.side} ${slot.slot === 0 ? 'A' : 'B'}: generation ${frame.generation}, ${frame.payload.length} bytes`,
          );
          if (frame.nonce === keeper.nonce) ranges.push({ offset, length, what: 'catalogue' });
        }
      }
      devices.push({ volume: volume.id, path: keeper.locate(member.path), ranges });
    }
  }
  for (const record of keeper.catalogue.virtualVolumes) {
    lines.push(
      '',
      `volume '${record.name}', log ${record.log}, number ${record.number}, on storage volumes ${keeper.logRecord(record.log).volumes.join(', ')}`,
    );
    const log = await logs.open(record);
    const figures = log.figures();
    lines.push(
      `  generation ${figures.generation}, incarnation ${figures.incarnation}, sequence ${figures.sequence}, durable ${figures.durableSequence}, ${figures.replayedEntries} entries replayed`,
      `  ${figures.segmentsHeld} of ${figures.segmentCount} segments held, ${figures.freeSegments} free, reserve ${figures.reserveSegments}; ${figures.liveBytes} live bytes`,
    );
    for (const source of log.sources())
      lines.push(`  source '${source.name}'  space ${source.space}, ${source.sizeBytes} bytes, ${source.mappedBytes} mapped`);
    for (const snapshot of log.snapshots()) {
      lines.push(
        `  snapshot '${snapshot.name}'  id ${snapshot.id}, epoch ${snapshot.epoch}, ${snapshot.createdAt.toISOString()}${snapshot.automatic ? ', automatic' : ''}`,
      );
      for (const member of snapshot.members) lines.push(`    source '${member.source}'  space ${member.space}, ${member.sizeBytes} bytes`);
    }
    if (!log.readOnly) continue; // what is in use does not hold still
    const used = (await log.usedRanges(signal)).toSorted((a, b) => a.volume - b.volume || a.offset - b.offset);
    for (const { volume, offset, bytes, structure } of used) {
      devices.find((device) => device.volume === volume)?.ranges.push({ offset, length: bytes, what: structure });
    }
    lines.push('', ...(await transcriptOf(log, used, signal)));
  }
  for (const { ranges } of devices) ranges.sort((a, b) => a.offset - b.offset);
  return { lines, devices };
}

/** An offset as a column. */
function at(offset: number): string {
  return `0x${offset.toString(16).padStart(10, '0')}`;
}
