import { restore as restoreView } from '../replication/files.ts';
import { formatSize } from './output.ts';
import { parseReference } from './parse.ts';
import { pickSource, POOL_OPTIONS, SOURCE_OPTION, withVolume, type Verb } from './verb.ts';

export const restore: Verb = {
  name: 'restore',
  usage: 'restore POOL/VOLUME[@NAME] TARGET [--in-place] [--source NAME]',
  summary: 'puts the state of a volume or snapshot, whole, into a file or device',
  details: [
    'A new file is written beside TARGET and gets its name when it is whole and durable; blocks of zeroes stay holes.',
    'An existing file or device needs --in-place; then only what differs is written.',
  ],
  options: { 'in-place': { kind: 'flag', help: 'write into an existing file or device' }, ...SOURCE_OPTION, ...POOL_OPTIONS },
  positionals: [2, 2],
  async run(args, { output, signal }) {
    const reference = parseReference(args.at(0), 'allowed');
    const target = args.at(1);
    const result = await withVolume(reference, args, output, 'read', async (volume) => {
      const source = volume.source(pickSource(volume, reference.snapshot, args.text('source')));
      const view = reference.snapshot === null ? source : source.at(reference.snapshot);
      return restoreView(view, target, {
        inPlace: args.has('in-place'),
        signal,
        onProgress: (progress) => output.progress('restoring', progress.doneBytes, progress.totalBytes),
      });
    });
    await output.result({ target, ...result }, [
      `restored ${formatSize(result.sizeBytes)} to ${target}, wrote ${formatSize(result.writtenBytes)} in ${result.seconds.toFixed(1)} s`,
    ]);
  },
};
