import { isVarveError } from '../errors.ts';
import { isPool } from '../pool/directory.ts';
import type { CheckResult } from '../pool/report.ts';
import { shown } from './output.ts';
import { POOL_OPTIONS, withPool, type Verb } from './verb.ts';

const FINDINGS: ReadonlySet<string> = new Set(['VARVE_CORRUPT', 'VARVE_IO', 'VARVE_FENCED', 'VARVE_UNSUPPORTED']);

export const check: Verb = {
  name: 'check',
  usage: 'check POOL [--repair]',
  summary: 'verifies everything that is in use on disk; exit status 1 when something is damaged',
  details: ['Nothing is written unless --repair is given.'],
  options: { repair: { kind: 'flag', help: 'mend what can be mended: labels, catalogues, a commit that was cut off' }, ...POOL_OPTIONS },
  positionals: [1, 1],
  async run(args, { output, signal }) {
    const onProgress = (volume: string): void => output.progress(`checking ${shown(volume)}`, 0, 1);
    let result: CheckResult;
    try {
      result = await withPool(args.at(0), args, null, args.has('repair') ? 'write' : 'read', (pool) => pool.check({ signal, onProgress }));
    } catch (error) {
      // A pool that is too damaged to be opened is what a check is there to find.
      const isFinding = isVarveError(error) && (FINDINGS.has(error.code) || (error.code === 'VARVE_NOT_FOUND' && isPool(args.at(0))));
      if (!isFinding) throw error;
      result = { clean: false, problems: [{ code: error.code, where: args.at(0), message: error.message }], notes: [] };
    }
    await output.result(result, () => [
      ...result.problems.map((problem) => `${problem.code}  ${shown(problem.where)}: ${shown(problem.message)}`),
      ...result.notes.map((note) => `note: ${shown(note)}`),
      result.clean ? 'clean' : `${result.problems.length} problem${result.problems.length === 1 ? '' : 's'}`,
    ]);
    return result.clean ? 0 : 1;
  },
};
