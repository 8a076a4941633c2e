// What no compiler checks: that imports point one way, that no file is dead, that nothing unfinished or private was left behind. Prints what it finds.
//
//   node scripts/tidy.ts
//
//   core   std ← abi, format, stripe ← log, table ← volume ← index ← raid     (assembly/testing/ stands beside index)
//   host   errors, units, names, aligned, turn ← device, core ← volume ← pool ← replication ← nbd, cli ← entries          (src/testing/ stands on devices)
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, posix } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('..', import.meta.url));

/** A layer may import from layers of a lower rank, and from itself. */
const CORE_RANKS: Readonly<Record<string, number>> = {
  std: 0,
  abi: 1,
  format: 1,
  stripe: 1,
  log: 2,
  table: 2,
  volume: 3,
  index: 4,
  raid: 5,
  testing: 4,
};
const HOST_RANKS: Readonly<Record<string, number>> = {
  errors: 0,
  units: 0,
  names: 0,
  aligned: 0,
  turn: 0,
  device: 1,
  core: 1,
  volume: 2,
  testing: 2,
  pool: 3,
  replication: 4,
  nbd: 5,
  opfs: 5,
  cli: 5,
  entry: 6,
};
/** The entries of the package: re-exports only. `core/inline-none.ts` takes the place of `inline.ts` in slim. */
const HOST_ENTRIES = ['src/index.ts', 'src/node.ts', 'src/opfs.ts', 'src/nbd.ts', 'src/testing.ts', 'src/slim.ts'];
/** The ABI without and with RAID. */
const CORE_ENTRIES = ['assembly/index.ts', 'assembly/raid.ts'];
const OTHER_ENTRIES = ['src/cli/main.ts', 'src/core/inline-none.ts'];

/** Imports between neighbours that are meant. One that is not used any more is a finding, too. */
const SEAMS: Readonly<Record<string, string>> = {
  'assembly/stripe/geometry.ts → assembly/format/constants.ts': 'the size of a block',
  'assembly/stripe/parity.ts → assembly/format/constants.ts': 'the size of a block',
  'assembly/format/label.ts → assembly/stripe/geometry.ts':
    'what members and strips a level may have, and how many blocks a row of strips holds',
  'assembly/log/volumes.ts → assembly/table/live.ts': 'a storage volume comes with its array of live counts, and goes with it',
};

const findings: string[] = [];
const find = (where: string, what: string): void => void findings.push(`${where}: ${what}`);

/** What git knows or would take: nothing built, nothing ignored. */
const files = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], { cwd: ROOT, encoding: 'utf8' })
  .split('\n')
  .filter((file) => file !== '' && existsSync(`${ROOT}${file}`))
  .toSorted();
const known = new Set(files);
const texts = new Map<string, string>();
function textOf(file: string): string {
  let text = texts.get(file);
  if (text === undefined) texts.set(file, (text = readFileSync(`${ROOT}${file}`, 'utf8')));
  return text;
}

const isSource = (file: string): boolean => file.endsWith('.ts') && !file.endsWith('.d.ts');

/** The project's files that a source file names: imports, re-exports, workers. */
function importsOf(file: string): string[] {
  const found: string[] = [];
  for (const match of textOf(file).matchAll(/(?:\bfrom\s*|\bimport\s*\(?\s*|\bnew URL\(\s*)(['"])(\.{1,2}\/[^'"\n]+)\1/g)) {
    if (match[2]?.includes('${')) continue; // a text that is written somewhere
    const target = posix.join(dirname(file), match[2] as string);
    const resolved = [target, `${target}.ts`].find((candidate) => known.has(candidate));
    if (resolved !== undefined) found.push(resolved);
    else if (!match[0].startsWith('new URL')) find(file, `imports '${match[2]}', which is not there`);
  }
  return found;
}

const imports = new Map<string, readonly string[]>();
for (const file of files) if (isSource(file)) imports.set(file, importsOf(file));

// ——— directions ———

/** The layer of a file: its folder, or for a file in the root of the sources its name. */
function layerOf(file: string): string {
  const [, first = '', ...rest] = file.split('/');
  if (rest.length > 0) return first;
  return HOST_ENTRIES.includes(file) ? 'entry' : first.replace(/\.ts$/, '');
}

function checkDirections(root: 'assembly' | 'src', ranks: Readonly<Record<string, number>>, seams: Set<string>): void {
  for (const [file, targets] of imports) {
    if (!file.startsWith(`${root}/`)) continue;
    const layer = layerOf(file);
    if (ranks[layer] === undefined) find(file, `the layer '${layer}' is not in STYLE's order`);
    for (const target of targets) {
      const seam = `${file} → ${target}`;
      if (SEAMS[seam] !== undefined) {
        seams.add(seam);
        continue;
      }
      if (!target.startsWith(`${root}/`)) {
        find(file, `imports ${target}, which is outside of ${root}/`);
        continue;
      }
      const other = layerOf(target);
      if (layer !== other && (ranks[other] ?? -1) >= (ranks[layer] ?? 0))
        find(file, `imports ${target}: '${layer}' does not stand on '${other}'`);
      if (other === 'testing' && layer !== 'testing' && file !== 'src/testing.ts') find(file, `imports ${target}, which is for tests`);
    }
  }
}

const seams = new Set<string>();
checkDirections('assembly', CORE_RANKS, seams);
checkDirections('src', HOST_RANKS, seams);
for (const seam of Object.keys(SEAMS)) if (!seams.has(seam)) find('scripts/tidy.ts', `nothing needs the seam ${seam} any more`);

// ——— entries only re-export ———

for (const file of [...HOST_ENTRIES, ...CORE_ENTRIES]) {
  if (!known.has(file)) continue;
  const rest = textOf(file)
    .replace(/\/\*[\s\S]*?\*\//g, '')
    .replace(/^\s*\/\/.*$/gm, '')
    .replace(/export (?:type )?(?:\{[^}]*\}|\*(?: as \w+)?) from '[^']+';/g, '')
    .trim();
  if (rest !== '') find(file, `has more than re-exports: ${rest.slice(0, 60)}`);
}

// ——— dead files ———

function reach(entries: readonly string[]): Set<string> {
  const seen = new Set<string>();
  const queue = [...entries];
  for (let next = queue.pop(); next !== undefined; next = queue.pop()) {
    if (seen.has(next)) continue;
    seen.add(next);
    queue.push(...(imports.get(next) ?? []));
  }
  return seen;
}

const isCoreTest = (file: string): boolean => file.startsWith('assembly/testing/');
const product = reach([...CORE_ENTRIES, ...HOST_ENTRIES, ...OTHER_ENTRIES]);
const commands = Object.values((JSON.parse(textOf('package.json')) as { scripts: Record<string, string> }).scripts).join('\n');
const sources = files.filter(isSource);
/** What somebody runs: tests, benches, examples, and scripts that package.json, a document or another program names. */
const programs = sources.filter(
  (file) =>
    file.endsWith('.test.ts') ||
    file === 'vitest.config.ts' ||
    file === 'test/browser/vitest.config.ts' ||
    /^(?:bench|examples)\/[^/]+\.ts$/.test(file) ||
    (/^(?:scripts|bench\/browser)\//.test(file) &&
      (commands.includes(file) || files.some((other) => other !== file && mentions(other, file)))),
);
function mentions(other: string, file: string): boolean {
  return /\.(?:ts|md|json|sh)$|^\.ci\//.test(other) && textOf(other).includes(file);
}
const used = reach(programs);
for (const file of sources) {
  const alive = isCoreTest(file)
    ? sources.some((other) => other !== file && (mentions(other, file) || imports.get(other)?.includes(file)))
    : /^(?:assembly|src)\//.test(file)
      ? product.has(file)
      : used.has(file);
  if (!alive) find(file, 'dead: no entry, test or script leads to it');
}

// ——— what should not be left behind ———

/** Written in pieces, so that this file does not find itself. */
const LEFTOVERS: readonly (readonly [RegExp, string, RegExp])[] = [
  [new RegExp(`\\b(?:${['FIX', 'ME'].join('')}|${['TO', 'DO'].join('')})\\b`), 'left unfinished', /\.(?:ts|json|md|sh)$|^\.ci\//],
  [new RegExp(`${['not', 'implemented'].join(' ')}`, 'i'), 'left unfinished', /\.ts$/],
  [new RegExp(`@${['ts', 'ignore'].join('-')}|@${['ts', 'nocheck'].join('-')}`), 'hides what the compiler says', /\.ts$/],
  [
    new RegExp(`\\b(?:it|test|describe)\\.(?:${['on', 'ly'].join('')}|${['sk', 'ip'].join('')}|to${'do'}|fails)\\b|\\bx(?:it|describe)\\(`),
    'a test that does not run',
    /^test\/.*\.ts$/,
  ],
  [/(?:^|[\s'"`(=])\/(?:home|root|Users|work)\/\w/, 'a path of one machine', /./],
  [
    /"resolved":\s*"(?!file:)/,
    'a download address: omit-lockfile-registry-resolved in .npmrc keeps them out',
    /(?:^|\/)package-lock\.json$/,
  ],
];

for (const file of files) {
  const patterns = LEFTOVERS.filter(([, , which]) => which.test(file));
  if (patterns.length === 0 || /\.(?:png|gz|zst|img|bin|wasm)$/.test(file)) continue;
  const text = textOf(file);
  for (const [pattern, what] of patterns) {
    if (!pattern.test(text)) continue;
    text.split('\n').forEach((line, index) => {
      if (pattern.test(line)) find(`${file}:${index + 1}`, `${what}: ${line.trim().slice(0, 100)}`);
    });
  }
}

for (const finding of findings) console.log(finding);
console.log(findings.length === 0 ? `tidy: ${files.length} files` : `tidy: ${findings.length} findings`);
process.exitCode = findings.length === 0 ? 0 : 1;
