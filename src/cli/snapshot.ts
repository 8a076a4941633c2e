import { shown } from './output.ts';
import { parseReference } from './parse.ts';
import { pickSource, POOL_OPTIONS, SOURCE_OPTION, withVolume, type Verb } from './verb.ts';

export const snapshot: Verb = {
  name: 'snapshot',
  usage: 'snapshot POOL/VOLUME@NAME [--source NAME]',
  summary: 'keeps the state of this moment, of every source or of one',
  options: { ...SOURCE_OPTION, ...POOL_OPTIONS },
  positionals: [1, 1],
  async run(args, { output, signal }) {
    const reference = parseReference(args.at(0), 'required');
    const name = reference.snapshot ?? '';
    const createdAt = Date.now();
    await withVolume(reference, args, output, 'write', async (volume) => {
      const given = args.text('source');
      const source = given === undefined ? undefined : pickSource(volume, null, given);
      await volume.snapshot(name, { source, createdAt, signal });
    });
    await output.result({ name, createdAt: new Date(createdAt).toISOString() }, [`snapshot ${shown(name)}`]);
  },
};
