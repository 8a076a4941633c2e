// Writes docs/API.md: every export of every entry, with its docstring and its declaration, out of dist/types (made by scripts/build.ts).
//
//   node scripts/api.ts            writes it
//   node scripts/api.ts --check    fails when it is not as it would be written
//
// No documentation generator works with TypeScript 7, which has no API for them (2026-11). Declarations are regular enough to be read line by line: each
// begins in the first column, with its docstring above it, and ends with the first line that begins so again (parts of a union a space later): a `}`, or, where
// there may be several of those, a line that ends with `;`. test/system/api.test.ts has the compiler read what comes out.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const TARGET = join(ROOT, 'docs', 'API.md');
const TYPES = join(ROOT, 'dist', 'types');

interface Entry {
  readonly specifier: string;
  readonly file: string;
}

interface Declared {
  readonly kind: string;
  readonly doc: readonly string[];
  readonly lines: readonly string[];
  readonly file: string;
}

/** The entries that package.json exports, in its order. */
function entries(): Entry[] {
  const { exports } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
    exports: Record<string, string | { types: string }>;
  };
  return Object.entries(exports).flatMap(([path, target]) =>
    typeof target === 'string' ? [] : [{ specifier: `varve${path.slice(1)}`, file: join(ROOT, target.types) }],
  );
}

/** What a declaration file exports: name → the file that declares it and its name there. */
function exportsOf(file: string): Map<string, { file: string; name: string }> {
  const found = new Map<string, { file: string; name: string }>();
  const text = readFileSync(file, 'utf8');
  for (const [, names, from] of text.matchAll(/^export (?:type )?(\{[^}]*\}|\*) from '([^']+)';$/gm)) {
    const target = join(dirname(file), (from as string).replace(/\.js$/, '.d.ts'));
    if (names === '*') {
      for (const [name, where] of exportsOf(target)) if (!found.has(name)) found.set(name, where);
      continue;
    }
    for (const part of (names as string).slice(1, -1).split(',')) {
      const [, inside, outside] = /^\s*(?:type )?(\w+)(?: as (\w+))?\s*$/.exec(part) ?? [];
      if (inside !== undefined) found.set(outside ?? inside, { file: target, name: inside });
    }
  }
  return found;
}

const HEAD = /^export (?:declare )?(?:abstract )?(class|interface|type|function|const|enum) (\w+)/;

/** All declarations of a file by name; overloads of a function together. */
function declarationsOf(file: string): Map<string, Declared> {
  const found = new Map<string, Declared>();
  const lines = readFileSync(file, 'utf8').split('\n');
  let doc: string[] = [];
  for (let at = 0; at < lines.length; at++) {
    const line = lines[at] as string;
    if (line.startsWith('/**')) {
      const begin = at;
      while (!(lines[at] as string).includes('*/')) at++;
      doc = lines.slice(begin, at + 1);
      continue;
    }
    const [, kind, name] = HEAD.exec(line) ?? [];
    if (kind === undefined || name === undefined) {
      if (line.trim() !== '') doc = [];
      continue;
    }
    const begin = at;
    at = endOf(lines, begin);
    const before = found.get(name);
    found.set(name, {
      kind,
      doc: before?.doc ?? textOf(doc),
      lines: [...(before?.lines ?? []), ...publicPart(lines.slice(begin, at + 1))],
      file,
    });
    doc = [];
  }
  return found;
}

/** The last line of the declaration that begins here. */
function endOf(lines: readonly string[], begin: number): number {
  const first = lines[begin] as string;
  if (/[;}]$/.test(first)) return begin;
  const end = /^export (?:declare )?(?:abstract )?(?:class|interface|enum) /.test(first) ? /^\}$/ : /^ ?[^\s*].*;$/;
  for (let at = begin + 1; at < lines.length; at++) if (end.test(lines[at] as string)) return at;
  throw new Error(`'${first}' has no end`);
}

/** The last line of the member of a class or interface that begins here. */
function endOfMember(lines: readonly string[], begin: number): number {
  const indent = /^\s*/.exec(lines[begin] as string)?.[0].length ?? 0;
  for (let at = begin; at < lines.length; at++) {
    const line = lines[at] as string;
    if (line.endsWith(';') && !/\s/.test(line[indent] ?? '')) return at;
  }
  throw new Error(`'${lines[begin]}' has no end`);
}

/** Without what is private: `#private`, `private constructor`, and members marked @internal. */
function publicPart(lines: readonly string[]): string[] {
  const kept: string[] = [];
  for (let at = 0; at < lines.length; at++) {
    let line = lines[at] as string;
    const comment: string[] = [];
    if (line.trimStart().startsWith('/**')) {
      for (comment.push(line); !line.includes('*/'); comment.push(line)) line = lines[++at] as string;
      line = lines[++at] as string;
    }
    if (/^\s*(?:#private;|private )/.test(line) || comment.some((text) => text.includes('@internal'))) {
      at = endOfMember(lines, at);
      continue;
    }
    kept.push(...comment, line.replace(/^export (?:declare )?/, '').trimEnd());
  }
  return kept;
}

/** The words of a docstring. */
function textOf(doc: readonly string[]): string[] {
  const text = doc
    .join('\n')
    .replace(/^\/\*\*\s?/, '')
    .replace(/\s*\*\/$/, '')
    .split('\n')
    .map((line) => line.replace(/^\s*\*\s?/, '').trimEnd());
  while (text[0] === '') text.shift();
  while (text.at(-1) === '') text.pop();
  return text.map((line, at) => line.replace(/^@(\w+)\s*/, (_, tag: string) => `${(text[at - 1] ?? '') === '' ? '' : '\n'}*${tag}:* `));
}

function pages(): string {
  const out: string[] = [
    '# API reference',
    '',
    'Every export of every entry, out of the docstrings (`npm run docs` writes this file). How things are used is in the [README](../README.md).',
    '',
  ];
  const declared = new Map<string, Map<string, Declared>>();
  const placed = new Map<string, string>();
  const namesOf = new Map<string, readonly string[]>();
  for (const { specifier, file } of entries()) {
    const own: [string, Declared][] = [];
    const shared = new Map<string, string[]>();
    const exported = exportsOf(file);
    const names = [...exported].map(([name]) => name);
    for (const [name, where] of exported) {
      let known = declared.get(where.file);
      if (known === undefined) declared.set(where.file, (known = declarationsOf(where.file)));
      const found = known.get(where.name);
      if (found === undefined) throw new Error(`${specifier} exports ${name}, and ${relative(ROOT, where.file)} does not declare it`);
      const key = `${where.file} ${where.name}`;
      const earlier = placed.get(key);
      if (earlier === undefined) {
        placed.set(key, specifier);
        own.push([name, found]);
      } else shared.set(earlier, [...(shared.get(earlier) ?? []), name]);
    }
    out.push(`## \`${specifier}\``, '');
    for (const [earlier, taken] of shared) {
      const all = (namesOf.get(earlier) ?? []).every((name) => names.includes(name));
      const list = taken.toSorted().map((name) => `\`${name}\``);
      out.push(all ? `Has what \`${earlier}\` has too, where it is described.` : `Described under \`${earlier}\`: ${list.join(', ')}.`, '');
    }
    namesOf.set(specifier, names);
    for (const [name, { doc, lines }] of own.toSorted(([a], [b]) => (a < b ? -1 : 1))) {
      out.push(`### ${name}`, '', ...(doc.length > 0 ? [...doc, ''] : []), '```ts', ...lines, '```', '');
    }
  }
  return `${out.join('\n').trimEnd()}\n`;
}

if (!existsSync(TYPES)) {
  console.error('dist/types is not there: run `npm run build` first');
  process.exit(1);
}
const text = pages();
if (process.argv.includes('--check')) {
  if (!existsSync(TARGET) || readFileSync(TARGET, 'utf8') !== text) {
    console.error('docs/API.md is not what the docstrings say: run `npm run docs`');
    process.exitCode = 1;
  }
} else {
  writeFileSync(TARGET, text);
  console.log(`docs/API.md: ${text.length} characters`);
}
