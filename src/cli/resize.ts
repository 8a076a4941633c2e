import { virtualSizeOf } from './create.ts';
import { formatSize } from './output.ts';
import { parseReference } from './parse.ts';
import { pickSource, POOL_OPTIONS, SOURCE_OPTION, withVolume, type Verb } from './verb.ts';

export const resize: Verb = {
  name: 'resize',
  usage: 'resize POOL/VOLUME --size S [--source NAME]',
  summary: 'gives a virtual volume a new virtual size',
  details: ['What lies beyond a smaller size is gone from the current state; snapshots keep it.'],
  options: { size: { kind: 'size', value: 'S', help: 'virtual size, at most 4096TiB' }, ...SOURCE_OPTION, ...POOL_OPTIONS },
  positionals: [1, 1],
  async run(args, { output, signal }) {
    const reference = parseReference(args.at(0), 'none');
    const size = virtualSizeOf(args);
    const done = await withVolume(reference, args, output, 'write', async (volume) => {
      const source = volume.source(pickSource(volume, null, args.text('source')));
      const before = source.sizeBytes;
      await source.resize(size, { signal });
      return { name: volume.name, source: source.sourceName, sizeBytes: source.sizeBytes, previousSizeBytes: before };
    });
    await output.result(done, [`volume ${done.name}: ${formatSize(done.previousSizeBytes)} → ${formatSize(done.sizeBytes)}`]);
  },
};
