import { formatSize, shown, table } from './output.ts';
import { POOL_OPTIONS, withPool, type Verb } from './verb.ts';

export const status: Verb = {
  name: 'status',
  usage: 'status POOL',
  summary: 'shows the pool, its storage volumes and their use',
  options: POOL_OPTIONS,
  positionals: [1, 1],
  async run(args, { output }) {
    const found = await withPool(args.at(0), args, null, 'read', (pool) => pool.status());
    await output.result(found, () => {
      const lines = [`pool ${found.pool.id}`, `  in ${found.pool.path}, catalogue generation ${found.pool.generation}`, ''];
      lines.push(
        ...table(
          ['>ID', 'STATE', 'VOLUME', 'RAID', '>SIZE', '>USED', 'DEVICES'],
          found.storageVolumes.map((volume) => [
            String(volume.id),
            volume.state,
            volume.virtualVolume === null ? '-' : shown(volume.virtualVolume),
            volume.raid,
            formatSize(volume.sizeBytes),
            formatSize(volume.usedBytes),
            volume.devices
              .map((device) => `${shown(device.path ?? 'memory')}${device.state === 'online' ? '' : ` (${device.state})`}`)
              .join(', '),
          ]),
        ),
      );
      if (found.virtualVolumes.length > 0) {
        lines.push(
          '',
          ...table(
            ['VOLUME', '>SIZE', '>MAPPED', '>LIVE', '>USED', '>SNAPSHOTS', 'MODE'],
            found.virtualVolumes.map((volume) => [
              shown(volume.name),
              formatSize(volume.sizeBytes),
              formatSize(volume.mappedBytes),
              formatSize(volume.liveBytes),
              formatSize(volume.usedBytes),
              String(volume.snapshots.length),
              volume.policy.mode,
            ]),
          ),
        );
      }
      for (const note of found.notes) lines.push('', `note: ${shown(note)}`);
      return lines;
    });
    for (const volume of found.virtualVolumes)
      if (volume.error !== undefined) output.error(`volume '${shown(volume.name)}': ${volume.error.message}`);
    return found.virtualVolumes.some((volume) => volume.error !== undefined) ? 1 : 0;
  },
};
