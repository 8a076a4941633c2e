// Builds dist/ out of src/ and the two published cores (made by scripts/build-core.ts):
//
//   index.js node.js testing.js cli.js     one bundle with shared chunks, so that a class is the same in `varve` and `varve/node`; the core is inlined
//   opfs.js                                a bundle of its own, with the core without RAID: no pool of a browser has several members
//   slim.js                                a bundle of its own, without a core
//   core.wasm core.raid.wasm               for slim: without and with RAID
//   types/                                 declarations, their imports rewritten from .ts to .js
//
//   node scripts/build.ts
import { execFileSync } from 'node:child_process';
import { chmodSync, copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build, type BuildOptions, type Metafile, type Plugin } from 'esbuild';

const root = fileURLToPath(new URL('..', import.meta.url));
const at = (...parts: string[]): string => join(root, ...parts);
const smallCore = at('build', 'core.wasm');
const wholeCore = at('build', 'core.raid.wasm');
const dist = at('dist');

/** Entries of the bundle that they share, by name. Those that need a platform are named; the others must not import a built-in module of Node. */
const ENTRIES: Readonly<Record<string, string>> = {
  index: 'src/index.ts',
  testing: 'src/testing.ts',
  node: 'src/node.ts',
  nbd: 'src/nbd.ts',
  cli: 'src/cli/main.ts',
};
/** Entries with a bundle of their own, and the core that it carries. */
const ALONE: Readonly<Record<string, { entry: string; core: string | undefined }>> = {
  opfs: { entry: 'src/opfs.ts', core: smallCore },
  slim: { entry: 'src/slim.ts', core: undefined },
};
const NODE_ONLY = new Set(['node', 'nbd', 'cli']);

/**
 * The core as a text of printable ASCII: its 89 most frequent bytes are a character each, every other byte is two, the first of which is one of the last two
 * characters. Compressed on its way, as every script is, that is as large as the bytes themselves compressed: of the core of 65.5 KB 33.5 KB by gzip, 31.0 by
 * Brotli (2026-11). Rejected, with the same figures: base64 41.5 and 38.1 (a byte has four ways to look, so little repeats); each byte the character of its
 * value 34.8 and 31.0, and a multiple where a bundler escapes what is not ASCII; base64 of deflated bytes 33.7 and 33.6, by Zopfli 32.0 and 31.9, and the
 * decompressor comes on top (the platforms' is asynchronous).
 */
const ALPHABET = Array.from({ length: 92 }, (_, index) => String.fromCharCode(35 + index)).filter((character) => character !== '\\');
const SINGLE = ALPHABET.length - 2;

function inlineModule(bytes: Uint8Array): string {
  const counts = new Uint32Array(256);
  for (const byte of bytes) counts[byte]!++;
  const frequent = Array.from(counts)
    .map((count, byte) => ({ count, byte }))
    .toSorted((a, b) => b.count - a.count)
    .slice(0, SINGLE)
    .map(({ byte }) => byte)
    .toSorted((a, b) => a - b);
  const order = [...frequent, ...Array.from(counts.keys()).filter((byte) => !frequent.includes(byte))];
  const written: string[] = [];
  order.forEach((byte, place) => {
    const behind = place - SINGLE;
    written[byte] =
      behind < 0 ? ALPHABET[place]! : ALPHABET[SINGLE + Math.floor(behind / ALPHABET.length)]! + ALPHABET[behind % ALPHABET.length]!;
  });
  const text = Array.from(bytes, (byte) => written[byte]).join('');
  // A character's place in the alphabet is its code less 35, and one less behind the backslash.
  return `const text = ${JSON.stringify(text)};
const place = (at) => text.charCodeAt(at) - (text.charCodeAt(at) > 92 ? 36 : 35);
export function inlineCore() {
  const order = [${frequent.join()}];
  for (let byte = 0; byte < 256; byte++) if (!order.includes(byte)) order.push(byte);
  const bytes = new Uint8Array(${bytes.length});
  for (let at = 0, from = 0; at < bytes.length; at++) {
    let index = place(from++);
    if (index >= ${SINGLE}) index = ${SINGLE} + (index - ${SINGLE}) * ${ALPHABET.length} + place(from++);
    bytes[at] = order[index];
  }
  return bytes;
}`;
}

/** Puts another file, or the bytes themselves, in the place of src/core/inline.ts. */
function inlined(core: string | undefined): Plugin {
  return {
    name: 'core',
    setup(setup) {
      setup.onLoad({ filter: /[/\\]core[/\\]inline\.ts$/ }, () =>
        core === undefined
          ? { contents: readFileSync(at('src/core/inline-none.ts')), loader: 'ts' }
          : {
              contents: inlineModule(readFileSync(core)),
              loader: 'js',
            },
      );
    },
  };
}

const common: BuildOptions = {
  absWorkingDir: root,
  bundle: true,
  format: 'esm',
  target: 'es2022',
  platform: 'neutral',
  outdir: dist,
  external: ['node:*'],
  // What a bundler makes smaller anyway is shipped small: half of a bundle is names and blanks (2026-11).
  minify: true,
  charset: 'utf8',
  legalComments: 'none',
  metafile: true,
  logLevel: 'warning',
};

/** An entry without Node in it works in a browser: checked over the chunks that it pulls in. */
function checkPlatformFree(metafile: Metafile): void {
  for (const [file, output] of Object.entries(metafile.outputs)) {
    const entry =
      Object.entries(ENTRIES).find(([, path]) => path === output.entryPoint)?.[0] ??
      Object.entries(ALONE).find(([, { entry }]) => entry === output.entryPoint)?.[0];
    if (entry === undefined || NODE_ONLY.has(entry)) continue;
    const seen = new Set<string>();
    const queue = [file];
    for (let next = queue.pop(); next !== undefined; next = queue.pop()) {
      if (seen.has(next)) continue;
      seen.add(next);
      for (const imported of metafile.outputs[next]?.imports ?? []) {
        if (imported.external) throw new Error(`${file} imports ${imported.path}: '${entry}' has to work without Node`);
        queue.push(imported.path);
      }
    }
  }
}

async function bundle(): Promise<void> {
  const entries = Object.entries(ENTRIES).filter(([, path]) => existsSync(at(path)));
  const main = await build({
    ...common,
    entryPoints: Object.fromEntries(entries),
    splitting: true,
    chunkNames: 'chunks/[name]-[hash]',
    plugins: [inlined(wholeCore)],
  });
  checkPlatformFree(main.metafile!);
  for (const [name, { entry, core }] of Object.entries(ALONE)) {
    const alone = await build({ ...common, entryPoints: { [name]: entry }, plugins: [inlined(core)] });
    checkPlatformFree(alone.metafile!);
  }
  copyFileSync(smallCore, join(dist, 'core.wasm'));
  copyFileSync(wholeCore, join(dist, 'core.raid.wasm'));
  const cli = join(dist, 'cli.js');
  if (existsSync(cli)) {
    const text = readFileSync(cli, 'utf8');
    if (!text.startsWith('#!')) writeFileSync(cli, `#!/usr/bin/env node\n${text}`);
    chmodSync(cli, 0o755);
  }
}

function declarations(): void {
  const config = at('build', 'tsconfig.types.json');
  const files = [...Object.values(ENTRIES), ...Object.values(ALONE).map(({ entry }) => entry)].filter(
    (path) => !path.startsWith('src/cli/') && existsSync(at(path)),
  );
  const compilerOptions = { noEmit: false, emitDeclarationOnly: true, declaration: true, rootDir: '../src', outDir: '../dist/types' };
  writeFileSync(
    config,
    JSON.stringify({ extends: '../tsconfig.json', compilerOptions, files: files.map((file) => `../${file}`), include: [] }, undefined, 2),
  );
  execFileSync(process.execPath, [at('node_modules/typescript/bin/tsc'), '-p', config], { cwd: root, stdio: 'inherit' });
  for (const file of readdirSync(join(dist, 'types'), { recursive: true, encoding: 'utf8' })) {
    if (!file.endsWith('.d.ts')) continue;
    const path = join(dist, 'types', file);
    writeFileSync(path, readFileSync(path, 'utf8').replaceAll(/((?:from|import)\s*\(?\s*['"]\.{1,2}\/[^'"]*)\.ts(['"])/g, '$1.js$2'));
  }
}

for (const core of [smallCore, wholeCore]) {
  if (existsSync(core)) continue;
  console.error(`${relative(root, core)} is not there: run \`npm run build:core\` first`);
  process.exit(1);
}
rmSync(dist, { recursive: true, force: true });
mkdirSync(dist, { recursive: true });
await bundle();
declarations();
for (const file of readdirSync(dist, { recursive: true, encoding: 'utf8' }).toSorted()) {
  const path = join(dist, file);
  if (/\.(js|wasm)$/.test(file)) console.log(`${relative(root, path)}: ${statSync(path).size} bytes`);
}
