// Programs of a few lines that tests start in processes of their own, under the runtime that runs the test. Node 20 has no TypeScript, so they are bundled.
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

/** Where such a program is, as far as its imports go: beside the tests. */
const BESIDE = fileURLToPath(new URL('./unit/', import.meta.url));

/** Writes the program, with all that it imports, to `file`, and answers with the arguments that have this runtime run it. */
export async function programOf(source: string, file: string): Promise<string[]> {
  await build({
    stdin: { contents: source, resolveDir: BESIDE, loader: 'ts' },
    outfile: file,
    bundle: true,
    format: 'esm',
    platform: 'node',
    target: 'es2022',
    logLevel: 'warning',
  });
  return 'Deno' in globalThis ? ['run', '-A', '--no-lock', file] : [file];
}
