// The runtimes that Varve is for, each out of its npm package: what `npm test` runs the suites and the command line under.
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export interface Engine {
  readonly name: string;
  readonly program: string;
  /** Between the program and the file that it is to run. */
  readonly arguments: readonly string[];
}

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const HERE = fileURLToPath(new URL('.', import.meta.url));
const NODE_20 = join(HERE, 'node_modules', '.bin', 'node');
const installed = (name: string): string => join(ROOT, 'node_modules', '.bin', name);

export const ENGINES: readonly Engine[] = [
  { name: 'Node 24', program: installed('node'), arguments: [] },
  { name: 'Node 20', program: NODE_20, arguments: [] },
  { name: 'Deno', program: installed('deno'), arguments: ['run', '-A', '--no-lock'] },
  { name: 'Bun', program: installed('bun'), arguments: ['--bun'] },
];

export function engine(name: string): Engine {
  const found = ENGINES.find((one) => one.name === name);
  if (found === undefined) throw new TypeError(`expected one of ${ENGINES.map((one) => one.name).join(', ')}, got '${name}'`);
  return found;
}

/** Node 20 has a package.json of its own: two packages with a program of one name do not fit into one node_modules. */
export function installNode20(): void {
  if (existsSync(NODE_20)) return;
  execFileSync('npm', ['ci', '--no-audit', '--no-fund'], { cwd: HERE, stdio: ['ignore', 'ignore', 'inherit'] });
}
