import { VarveError } from '../errors.ts';
import type { PoolStatus, VirtualVolumeStatus } from '../pool/report.ts';
import { formatSize, shown, shownTime, table } from './output.ts';
import { poolOrVolume, POOL_OPTIONS, withPool, type Verb } from './verb.ts';

export const list: Verb = {
  name: 'list',
  usage: 'list POOL[/VOLUME]',
  summary: 'lists the volumes of a pool, or the snapshots of a volume',
  options: POOL_OPTIONS,
  positionals: [1, 1],
  async run(args, { output }) {
    const { pool: path, volume: name } = poolOrVolume(args.at(0));
    const status = await withPool(path, args, output, 'read', (pool) => pool.status());
    for (const volume of status.virtualVolumes)
      if (volume.error !== undefined) output.error(`volume '${shown(volume.name)}': ${volume.error.message}`);
    if (name === null) {
      await output.result({ virtualVolumes: status.virtualVolumes.map(entry) }, () => volumeLines(status));
      return status.virtualVolumes.some((volume) => volume.error !== undefined) ? 1 : 0;
    }
    const volume = status.virtualVolumes.find((one) => one.name === name.normalize('NFC'));
    if (volume === undefined) throw new VarveError('VARVE_NOT_FOUND', `listing '${name}'`, { detail: `the pool has no volume '${name}'` });
    await output.result(entry(volume), () => snapshotLines(volume));
    return volume.error === undefined ? 0 : 1;
  },
};

function entry(volume: VirtualVolumeStatus): object {
  const { name, sizeBytes, mappedBytes, snapshots, sources, createdAt, error } = volume;
  return { name, sizeBytes, mappedBytes, createdAt, sources, snapshots, ...(error === undefined ? {} : { error }) };
}

function volumeLines(status: PoolStatus): string[] {
  if (status.virtualVolumes.length === 0) return ['no volumes'];
  return table(
    ['VOLUME', '>SIZE', '>MAPPED', '>LIVE', '>SNAPSHOTS', 'CREATED'],
    status.virtualVolumes.map((volume) => [
      shown(volume.name),
      formatSize(volume.sizeBytes),
      formatSize(volume.mappedBytes),
      formatSize(volume.liveBytes),
      String(volume.snapshots.length),
      shownTime(Date.parse(volume.createdAt)),
    ]),
  );
}

function snapshotLines(volume: VirtualVolumeStatus): string[] {
  const lines =
    volume.sources.length > 1
      ? [
          ...table(
            ['SOURCE', '>SIZE'],
            volume.sources.map((source) => [shown(source.name), formatSize(source.sizeBytes)]),
          ),
          '',
        ]
      : [];
  if (volume.snapshots.length === 0) return [...lines, 'no snapshots'];
  return [
    ...lines,
    ...table(
      ['SNAPSHOT', 'CREATED'],
      volume.snapshots.map((snapshot) => [shown(snapshot.name), shownTime(Date.parse(snapshot.createdAt))]),
    ),
  ];
}
