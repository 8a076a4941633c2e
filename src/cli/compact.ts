import { formatSize } from './output.ts';
import { parseReference } from './parse.ts';
import { POOL_OPTIONS, withVolume, type Verb } from './verb.ts';

export const compact: Verb = {
  name: 'compact',
  usage: 'compact POOL/VOLUME',
  summary: 'gathers live data, and gives storage volumes back that are not needed',
  details: [
    'Free space goes back to the file system as holes, or to the device as discards, where they take it (Linux; fallocate, blkdiscard).',
  ],
  options: POOL_OPTIONS,
  positionals: [1, 1],
  async run(args, { output, signal }) {
    const reference = parseReference(args.at(0), 'none');
    const result = await withVolume(reference, args, output, 'reclaim', async (volume, pool) => {
      const before = volume.figures();
      const segments = await volume.compact({ signal, onProgress: (done) => output.progress('compacting', done, before.segmentsHeld) });
      await pool.maintain({ signal });
      const after = volume.figures();
      return {
        segments,
        movedBytes: after.movedBytes - before.movedBytes,
        usedBytesBefore: before.usedBytes,
        usedBytes: after.usedBytes,
        liveBytes: after.liveBytes,
        storageVolumes: volume.log.volumes().length,
      };
    });
    await output.result(result, [
      `compacted ${result.segments} segments: ${formatSize(result.usedBytesBefore)} → ${formatSize(result.usedBytes)} used for ${formatSize(result.liveBytes)} of live data`,
    ]);
  },
};
