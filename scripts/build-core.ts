// Builds the AssemblyScript core: `release` and `raid` (what is published: without and with storage volumes of several members), `checked` (every bounds check, asserts, plants) and
// `planted` (release speed with the planted faults that the tests switch on). Prints the sizes.
//
// The releases import nothing: `abort=` in asconfig.json makes a failed assertion a plain trap, without the texts of file names. And they go through
// wasm-opt once more where size counts: asc does not hoist constants that a function repeats, nor optimise the stack code that it writes; together 1.1 KB.
// The core with RAID goes without, and is less small by 2 KB: it is for programs that keep large logs, and opening one takes an eighth longer with -Oz, and a sixth with a
// shrinkLevel of 2 (2026-11).
//
//   node scripts/build-core.ts [target …]
import { execFileSync } from 'node:child_process';
import { mkdirSync, statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const targets = process.argv.length > 2 ? process.argv.slice(2) : ['release', 'raid', 'checked', 'planted'];
mkdirSync(`${root}build`, { recursive: true });
for (const target of targets) {
  const entry = target === 'release' ? 'assembly/index.ts' : 'assembly/raid.ts';
  execFileSync(process.execPath, [`${root}node_modules/assemblyscript/bin/asc.js`, entry, '--target', target], {
    cwd: root,
    stdio: 'inherit',
  });
  if (target === 'release') {
    const wasm = `${root}build/core.wasm`;
    const features = ['simd', 'bulk-memory', 'bulk-memory-opt', 'nontrapping-float-to-int', 'sign-ext', 'mutable-globals'];
    const passes = [
      '-Oz',
      '--converge',
      '--simplify-locals-nostructure',
      '--coalesce-locals-learning',
      '--reorder-locals',
      '--const-hoisting',
      '--remove-unused-brs',
      '--vacuum',
    ];
    const flags = [...features.map((feature) => `--enable-${feature}`), ...passes];
    execFileSync(process.execPath, [`${root}node_modules/binaryen/bin/wasm-opt`, wasm, ...flags, '-o', wasm], { stdio: 'inherit' });
  }
}
for (const [target, file] of [
  ['release', 'core'],
  ['raid', 'core.raid'],
  ['checked', 'core.checked'],
  ['planted', 'core.planted'],
] as const) {
  if (targets.includes(target)) console.log(`${target}: ${statSync(`${root}build/${file}.wasm`).size} bytes`);
}
