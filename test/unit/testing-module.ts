// Builds of parts of the core for their own tests: assembly/testing/NAME.ts, made once, when its sources are newer.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, renameSync, statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));

function newest(directory: string): number {
  return Math.max(
    ...readdirSync(directory, { withFileTypes: true }).map((entry) =>
      entry.isDirectory() ? newest(`${directory}/${entry.name}`) : statSync(`${directory}/${entry.name}`).mtimeMs,
    ),
  );
}

/** Compiles assembly/testing/NAME.ts unless it is up to date; returns the module. */
export function testingModule(name: string, planted = true): WebAssembly.Module {
  const out = `${root}build/${name}${planted ? '.planted' : ''}.wasm`;
  const sources = Math.max(...['std', 'format', 'stripe', 'table', 'testing'].map((part) => newest(`${root}assembly/${part}`)));
  if (!existsSync(out) || statSync(out).mtimeMs < sources) {
    mkdirSync(`${root}build`, { recursive: true });
    const temporary = `${out}.${crypto.randomUUID()}.wasm`;
    execFileSync(
      process.execPath,
      [
        `${root}node_modules/assemblyscript/bin/asc.js`,
        `assembly/testing/${name}.ts`,
        '--config',
        'none',
        '--runtime',
        'stub',
        '-O3',
        '--shrinkLevel',
        '1',
        '--enable',
        'simd',
        '--enable',
        'bulk-memory',
        '--use',
        `PLANTS=${planted ? 1 : 0}`,
        '--use',
        'CHECKED=0',
        '--use',
        'RAID=1',
        '--initialMemory',
        '4',
        '--maximumMemory',
        '65536',
        '-o',
        temporary,
      ],
      { cwd: root, stdio: 'inherit' },
    );
    renameSync(temporary, out);
  }
  return new WebAssembly.Module(readFileSync(out));
}
