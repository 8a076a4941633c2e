import { shown } from './output.ts';
import { parseReference } from './parse.ts';
import { POOL_OPTIONS, withPool, type Verb } from './verb.ts';

export const deleteVerb: Verb = {
  name: 'delete',
  usage: 'delete POOL/VOLUME[@NAME]',
  summary: 'deletes a volume with all its snapshots, or one snapshot',
  options: POOL_OPTIONS,
  positionals: [1, 1],
  async run(args, { output, signal }) {
    const reference = parseReference(args.at(0), 'allowed');
    const { volume: name, snapshot } = reference;
    await withPool(reference.pool, args, output, 'write', async (pool) => {
      if (snapshot === null) await pool.deleteVolume(name);
      else await (await pool.volume(name)).deleteSnapshot(snapshot, { signal });
    });
    await output.result({ volume: name, snapshot }, [
      snapshot === null ? `deleted volume ${shown(name)}` : `deleted snapshot ${shown(snapshot)} of ${shown(name)}`,
    ]);
  },
};
