// Builds the AssemblyScript core: `release` (what is published), `checked` (every bounds check, asserts, plants) and
// `planted` (release speed with the planted faults that the tests switch on). Prints the sizes.
//
// The release imports nothing: `abort=` in asconfig.json makes a failed assertion a plain trap, without the texts of file names. And it goes through
// wasm-opt once more: asc does not hoist constants that a function repeats, nor optimise the stack code that it writes; together 1.1 KB.
//
//   node scripts/build-core.ts [target …]
import { execFileSync } from 'node:child_process';
import { mkdirSync, statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const targets = process.argv.length > 2 ? process.argv.slice(2) : ['release', 'checked', 'planted'];
mkdirSync(`${root}build`, { recursive: true });
for (const target of targets) {
  execFileSync(process.execPath, [`${root}node_modules/assemblyscript/bin/asc.js`, 'assembly/index.ts', '--target', target], {
    cwd: root,
    stdio: 'inherit',
  });
  if (target === 'release') {
    const wasm = `${root}build/core.wasm`;
    const features = ['simd', 'bulk-memory', 'bulk-memory-opt', 'nontrapping-float-to-int', 'sign-ext', 'mutable-globals'];
    const flags = [...features.map((feature) => `--enable-${feature}`), '-Oz', '--const-hoisting'];
    execFileSync(process.execPath, [`${root}node_modules/binaryen/bin/wasm-opt`, wasm, ...flags, '-o', wasm], { stdio: 'inherit' });
  }
}
for (const [target, file] of [
  ['release', 'core'],
  ['checked', 'core.checked'],
  ['planted', 'core.planted'],
] as const) {
  if (targets.includes(target)) console.log(`${target}: ${statSync(`${root}build/${file}.wasm`).size} bytes`);
}
