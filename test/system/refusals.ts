// Which of the checks in the decoders does a fuzzer reach? A core in which each of them counts: a copy of assembly/ in which every `if (A || B) return false;`
// of a decoder has become one statement for A and one for B, each with a number. Compiled once, when the sources are newer.
import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
/** The file that is added to the copy. */
const COUNTER = 'format/refusal';

/** Where bytes from outside are decoded: whole files, or functions of a file. */
const DECODERS: readonly { readonly file: string; readonly functions?: readonly string[] }[] = [
  { file: 'format/label.ts', functions: ['labelDecode'] },
  { file: 'format/frame.ts', functions: ['frameSize', 'frameDecode'] },
  { file: 'format/root.ts' },
  { file: 'format/page.ts' },
  { file: 'format/record.ts' },
  { file: 'format/footer.ts' },
  { file: 'table/image.ts' },
  { file: 'volume/state.ts', functions: ['stateImageRead'] },
  { file: 'volume/checkpoint.ts', functions: ['segmentEntryRead'] },
  { file: 'volume/recover.ts' },
  { file: 'volume/replay.ts' },
];
const REFUSAL = String.raw`return (?:false|FORMAT_(?!OK)\w+|ROOT_(?!VALID)\w+|failAt(?:Slot)?\(ERROR_CORRUPT.*\));`;

export interface Refusal {
  /** file:line, and which part of the condition */
  readonly where: string;
  readonly condition: string;
}

export interface CountingCore {
  readonly module: WebAssembly.Module;
  readonly refusals: readonly Refusal[];
}

/** Parts of a condition that are joined by || outside of all brackets. */
export function alternatives(condition: string): string[] {
  const parts: string[] = [];
  let depth = 0;
  let start = 0;
  for (let at = 0; at < condition.length; at++) {
    const character = condition[at];
    if (character === '(' || character === '[') depth++;
    else if (character === ')' || character === ']') depth--;
    else if (depth === 0 && condition.startsWith('||', at)) {
      parts.push(condition.slice(start, at).trim());
      start = at + 2;
    }
    // a && b || c would be split rightly, too: && binds closer
  }
  parts.push(condition.slice(start).trim());
  return parts;
}

function instrument(text: string, file: string, functions: readonly string[] | undefined, refusals: Refusal[]): string {
  let inside = functions === undefined;
  const lines = text.split('\n').map((line, index) => {
    const begins = /^(?:export )?function (\w+)/.exec(line);
    if (begins && functions) inside = functions.includes(begins[1] as string);
    if (!inside) return line;
    const number = (condition: string): number => refusals.push({ where: `${file}:${index + 1}`, condition }) - 1;
    const whole = new RegExp(String.raw`^(\s*)if \((.*)\) (${REFUSAL})(\s*//.*)?$`).exec(line);
    if (whole) {
      const [, indent, condition, refusal] = whole as unknown as [string, string, string, string];
      return alternatives(condition)
        .map((part) => `${indent}if (${part}) { refuse(${number(part)}); ${refusal} }`)
        .join('\n');
    }
    return line.replace(
      new RegExp(String.raw`(^\s*|\) |else )(${REFUSAL})`),
      (_, before: string, refusal: string) => `${before}{ refuse(${number(line.trim())}); ${refusal} }`,
    );
  });
  const body = lines.join('\n');
  const at = body.indexOf('\nimport ');
  return `${body.slice(0, at)}\nimport { refuse } from '../${COUNTER}';${body.slice(at)}`;
}

function newest(directory: string): number {
  return Math.max(
    ...readdirSync(directory, { withFileTypes: true }).map((entry) => {
      const path = join(directory, entry.name);
      return entry.isDirectory() ? newest(path) : statSync(path).mtimeMs;
    }),
  );
}

export function countingCore(): CountingCore {
  const directory = join(ROOT, 'build', 'counting');
  const wasm = join(directory, 'core.wasm');
  const list = join(directory, 'refusals.json');
  const sources = join(ROOT, 'assembly');
  const made = existsSync(wasm) && existsSync(list) ? statSync(wasm).mtimeMs : 0;
  if (made < newest(sources) || made < statSync(fileURLToPath(import.meta.url)).mtimeMs) {
    rmSync(directory, { recursive: true, force: true });
    mkdirSync(directory, { recursive: true });
    cpSync(sources, join(directory, 'assembly'), { recursive: true });
    const refusals: Refusal[] = [];
    for (const { file, functions } of DECODERS) {
      const path = join(directory, 'assembly', file);
      writeFileSync(path, instrument(readFileSync(path, 'utf8'), file, functions, refusals));
    }
    writeFileSync(
      join(directory, 'assembly', `${COUNTER}.ts`),
      `const cells: usize = memory.data(${refusals.length * 4}, 4);\n` +
        'export function refuse(id: u32): void { store<u32>(cells + (id << 2), load<u32>(cells + (id << 2)) + 1); }\n' +
        'export function refusalGet(id: u32): u32 { return load<u32>(cells + (id << 2)); }\n',
    );
    const index = join(directory, 'assembly', 'raid.ts');
    writeFileSync(index, `${readFileSync(index, 'utf8')}export { refusalGet } from './${COUNTER}';\n`);
    execFileSync(
      process.execPath,
      [
        join(ROOT, 'node_modules/assemblyscript/bin/asc.js'),
        'assembly/raid.ts',
        '--config',
        'none',
        '--runtime',
        'stub',
        '-O2',
        '--enable',
        'simd',
        '--enable',
        'bulk-memory',
      ].concat([
        '--use',
        'PLANTS=0',
        '--use',
        'CHECKED=0',
        '--use',
        'RAID=1',
        '--initialMemory',
        '4',
        '--maximumMemory',
        '65536',
        '-o',
        wasm,
      ]),
      { cwd: directory, stdio: 'inherit' },
    );
    writeFileSync(list, JSON.stringify(refusals));
  }
  return { module: new WebAssembly.Module(readFileSync(wasm)), refusals: JSON.parse(readFileSync(list, 'utf8')) as Refusal[] };
}
