import { shown } from './output.ts';
import { POOL_OPTIONS, withPool, type Verb } from './verb.ts';

export const scrub: Verb = {
  name: 'scrub',
  usage: 'scrub POOL',
  summary: 'verifies every copy and parity of everything in use, and mends what is wrong; exit status 1 when something cannot be mended',
  options: POOL_OPTIONS,
  positionals: [1, 1],
  async run(args, { output, signal }) {
    const onProgress = (volume: string, done: number, total: number): void => output.progress(`scrubbing ${shown(volume)}`, done, total);
    const result = await withPool(args.at(0), args, null, 'write', (pool) => pool.scrub({ signal, onProgress }));
    await output.result(result, () => [
      ...result.problems.map((problem) => `${problem.code}  ${shown(problem.where)}: ${shown(problem.message)}`),
      ...result.notes.map((note) => `note: ${shown(note)}`),
      result.clean
        ? 'clean'
        : `${result.healed.length} healed, ${result.problems.length} problem${result.problems.length === 1 ? '' : 's'}`,
    ]);
    return result.problems.length === 0 ? 0 : 1;
  },
};
