// Builds the AssemblyScript core: `release` (what is published), `checked` (every bounds check, asserts, plants) and
// `planted` (release speed with the planted faults that the tests switch on). Prints the sizes.
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
}
for (const [target, file] of [
  ['release', 'core'],
  ['checked', 'core.checked'],
  ['planted', 'core.planted'],
] as const) {
  if (targets.includes(target)) console.log(`${target}: ${statSync(`${root}build/${file}.wasm`).size} bytes`);
}
