import { shown } from './output.ts';
import { parseReference } from './parse.ts';
import { POOL_OPTIONS, withVolume, type Verb } from './verb.ts';

export const rollback: Verb = {
  name: 'rollback',
  usage: 'rollback POOL/VOLUME@NAME',
  summary: 'puts the volume back to a snapshot',
  details: ['The state that it leaves is kept as a snapshot of its own, so a rollback can be undone.'],
  options: POOL_OPTIONS,
  positionals: [1, 1],
  async run(args, { output, signal }) {
    const reference = parseReference(args.at(0), 'required');
    const name = reference.snapshot ?? '';
    const keptAs = await withVolume(reference, args, output, 'write', (volume) => volume.rollback(name, { signal }));
    await output.result({ snapshot: name, keptAs }, [
      `volume ${shown(reference.volume)} is back at ${shown(name)}`,
      `the state that it left is ${shown(keptAs)}`,
    ]);
  },
};
