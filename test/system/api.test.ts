// docs/API.md against the declarations that are published, by the compiler: its code is TypeScript, every export is in it, and whatever a declaration names
// can be imported from somewhere.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { API } from 'typescript/unstable/sync';
import { afterAll, describe, expect, it } from 'vitest';
import { Workshop } from './support.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const CANNOT_FIND_NAME = [2304, 2552];

const workshop = new Workshop();
const api = new API({ cwd: ROOT });
afterAll(() => {
  api.close();
  workshop.dispose();
});

/** Of package.json: specifier → declarations. */
const { exports } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { exports: Record<string, { types?: string }> };
const entries = Object.entries(exports).flatMap(([path, { types }]) =>
  types === undefined ? [] : [{ specifier: `varve${path.slice(1)}`, file: join(ROOT, types) }],
);

/** What each entry exports, as the compiler sees it. */
const exported = new Map<string, readonly string[]>();
const snapshot = api.updateSnapshot({ openFiles: entries.map(({ file }) => file) });
for (const { specifier, file } of entries) {
  const { program, checker } = snapshot.getDefaultProjectForFile(file)!;
  const module = checker.getSymbolAtLocation(program.getSourceFile(file)!)!;
  exported.set(
    specifier,
    checker.getExportsOfModule(module).map(({ name }) => name),
  );
}

/** Of docs/API.md: specifier → its section. */
const sections = new Map<string, string>();
for (const section of readFileSync(join(ROOT, 'docs/API.md'), 'utf8')
  .split(/^(?=## )/m)
  .slice(1))
  sections.set(/^## `(.*)`/.exec(section)?.[1] ?? '', section);

describe.each(entries)('the reference of $specifier', ({ specifier }) => {
  const section = sections.get(specifier) ?? '';

  it('has every export', () => {
    const named = [...section.matchAll(/^### (\w+)$/gm)].map(([, name]) => name as string);
    for (const [, names] of section.matchAll(/^Described under `.*?`: (.*)\.$/gm))
      named.push(...names!.split(', ').map((name) => name.slice(1, -1)));
    for (const [, other] of section.matchAll(/^Has what `(.*)` has too/gm)) named.push(...exported.get(other as string)!);
    expect([...new Set(named)].toSorted()).toEqual(exported.get(specifier)?.toSorted());
  });

  it('has declarations that parse, of what some entry exports', () => {
    const code = [...section.matchAll(/^```ts\n([^]*?)^```$/gm)].map(([, block]) => block as string).join('\n');
    const declared = code.replace(/^(?:abstract )?(?:class|interface|type|function|const|enum) /gm, 'export declare $&');
    const here = new Set([...declared.matchAll(/^export declare (?:abstract )?\w+ (\w+)/gm)].map(([, name]) => name));
    const imports: string[] = [];
    for (const { specifier: other, file } of entries) {
      const names = exported.get(other)!.filter((name) => !here.has(name));
      for (const name of names) here.add(name);
      imports.push(`import type { ${names.join(', ')} } from '${file}';\n`);
    }
    const file = join(workshop.directory, `${specifier.replace('/', '-')}.d.ts`);
    writeFileSync(file, imports.join('') + declared);
    const { program } = api.updateSnapshot({ openFiles: [file] }).getDefaultProjectForFile(file)!;
    expect(
      program.getSyntacticDiagnostics(file).map(({ text, pos }) => `${text} at ${(imports.join('') + declared).slice(pos, pos + 80)}`),
    ).toEqual([]);
    const missing = program.getSemanticDiagnostics(file).filter(({ code: number }) => CANNOT_FIND_NAME.includes(number));
    expect([...new Set(missing.map(({ text }) => text))]).toEqual([]);
  });
});
