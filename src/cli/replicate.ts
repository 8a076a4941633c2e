import { FileDevice } from '../device/file.ts';
import { checkName } from '../names.ts';
import { replicate as replicateDevice } from '../replication/replicate.ts';
import { formatSize } from './output.ts';
import { parseReference, usage, UsageError } from './parse.ts';
import { pickSource, POOL_OPTIONS, sayingWhoseSpace, SOURCE_OPTION, withPool, type Verb } from './verb.ts';

export const replicate: Verb = {
  name: 'replicate',
  usage: 'replicate SOURCE POOL/VOLUME [--snapshot NAME] [--source NAME] [--compare bytes|checksum]',
  summary: "brings the volume up to the source's state and takes a snapshot",
  details: [
    'SOURCE is a regular file or block device. The first run copies everything but zeroes, later ones only what changed.',
    'The volume is made if it is not there. A run that was cut off goes on where it stopped when it is repeated.',
  ],
  options: {
    snapshot: { kind: 'text', value: 'NAME', help: 'name of the snapshot (the UTC time)' },
    ...SOURCE_OPTION,
    compare: {
      kind: 'text',
      value: 'HOW',
      choices: ['bytes', 'checksum'],
      help: 'how changed blocks are found: bytes or checksum (bytes)',
    },
    baseline: { kind: 'text', value: 'PATH', help: 'a full image to stand on (not built yet)' },
    ...POOL_OPTIONS,
  },
  positionals: [2, 2],
  async run(args, { output, signal }) {
    const reference = parseReference(args.at(1), 'none');
    if (args.has('baseline')) throw new UsageError('--baseline is not built yet');
    const given = args.text('snapshot');
    const snapshot = given === undefined ? undefined : usage(() => checkName(given, 'snapshot'));
    const named = args.text('source');
    const wanted = named === undefined ? undefined : usage(() => checkName(named, 'source'));
    const compare = args.text('compare') as 'bytes' | 'checksum' | undefined;
    // Before the pool is touched: a source that is not there must not leave an empty volume behind.
    const primary = await FileDevice.open(args.at(0), { readOnly: true });
    try {
      const result = await withPool(reference.pool, args, output, 'write', async (pool) => {
        const volume = pool.has(reference.volume)
          ? await pool.volume(reference.volume)
          : await pool.createVolume(reference.volume, { size: primary.sizeBytes, source: wanted });
        const source = wanted ?? pickSource(volume, null, undefined);
        return sayingWhoseSpace(pool, volume, () =>
          replicateDevice(primary, volume, {
            snapshot,
            source,
            compare,
            signal,
            onProgress: (progress) =>
              output.progress(`replicating, ${formatSize(progress.changedBytes)} changed`, progress.scannedBytes, progress.totalBytes),
          }),
        );
      });
      await output.result(result, [
        `snapshot ${result.snapshot}`,
        `scanned ${formatSize(result.scannedBytes)}, changed ${formatSize(result.changedBytes)}, wrote ${formatSize(result.writtenBytes)} (and ${formatSize(result.metadataBytes)} of metadata) in ${result.seconds.toFixed(1)} s`,
      ]);
    } finally {
      await primary.close();
    }
  },
};
