// Asks all questions, one after the other, and prints one JSON document: the machine, the commit, and every answer. What each asks, and what not to
// conclude from it: docs/BENCHMARKING.md.
//
//   npm run bench                           half an hour, about 6 GB in the temporary directory, 8 GB of memory
//   node bench/main.ts --only flush,diffs   some of them
//   node bench/main.ts --toy                everything in seconds; the figures mean nothing
//   node bench/main.ts --directory D        measure the disk that D is on (the system's temporary directory)
//
// Each question has a process of its own, so that none is measured on the heap that another left behind.
import { execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { cpus, loadavg, release, tmpdir, totalmem } from 'node:os';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { BLOCK, GIB } from './harness/measure.ts';
import { round, type Question, type Result } from './harness/question.ts';
import { questions } from './questions.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const { values } = parseArgs({
  options: {
    only: { type: 'string' },
    toy: { type: 'boolean', default: false },
    directory: { type: 'string', default: tmpdir() },
    /** For the process of one question: prints its results alone. */
    answer: { type: 'string' },
  },
});
const core = new Uint8Array(readFileSync(`${ROOT}build/core.raid.wasm`));
const say = (line: string): void => void process.stderr.write(`${line}\n`);

function named(name: string): Question {
  const question = questions.find((each) => each.name === name);
  if (!question) throw new TypeError(`expected some of ${questions.map((each) => each.name).join(',')}, got '${name}'`);
  return question;
}

async function answer(question: Question): Promise<Result[]> {
  const directory = mkdtempSync(`${values.directory}/varve-bench-`);
  try {
    return await question.run({ toy: values.toy, directory, core, say });
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** The same in a process of its own. */
function answerApart(question: Question): Promise<Result[]> {
  const args = ['--answer', question.name, '--directory', values.directory, ...(values.toy ? ['--toy'] : [])];
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [...process.execArgv, fileURLToPath(import.meta.url), ...args], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let text = '';
    child.stdout.setEncoding('utf8').on('data', (part: string) => (text += part));
    child.once('error', reject);
    child.once('close', (code, signal) => {
      if (code === 0) resolve(JSON.parse(text) as Result[]);
      else reject(new Error(`${question.name}: ended with ${code ?? signal}`));
    });
  });
}

function git(...args: string[]): string {
  return execFileSync('git', args, { cwd: ROOT, encoding: 'utf8' }).trim();
}

if (values.answer !== undefined) {
  process.stdout.write(JSON.stringify(await answer(named(values.answer))));
} else {
  const asked = values.only === undefined ? questions : values.only.split(',').map(named);
  const begun = new Date();
  const loadBefore = loadavg()[0]!;
  const results: Result[] = [];
  for (const question of asked) {
    say(`${question.name}: ${question.asks}`);
    for (const given of await answerApart(question)) {
      const result = values.toy ? { ...given, met: null } : given;
      const { name, ours, unit, ratio, bar, met } = result;
      say(
        `  ${name}: ${ours} ${unit}${ratio === null ? '' : `, ratio ${ratio}`}${met === null ? '' : ` (${bar}: ${met ? 'met' : 'MISSED'})`}`,
      );
      results.push(result);
    }
  }
  const judged = results.filter((result) => result.met !== null);
  const document = {
    toy: values.toy,
    begun: begun.toISOString(),
    seconds: round((Date.now() - begun.getTime()) / 1000),
    commit: git('rev-parse', 'HEAD'),
    changedFiles: git('status', '--porcelain').split('\n').filter(Boolean).length,
    core: { bytes: core.length, sha256: createHash('sha256').update(core).digest('hex') },
    machine: {
      node: process.version,
      v8: process.versions.v8,
      platform: `${process.platform} ${release()} ${process.arch}`,
      cpu: cpus()[0]?.model ?? 'unknown',
      cpus: cpus().length,
      memoryGiB: round(totalmem() / GIB),
      load: [round(loadBefore), round(loadavg()[0]!)],
      blockBytes: BLOCK,
    },
    bars: {
      met: judged.filter((result) => result.met).length,
      missed: judged.filter((result) => !result.met).map((result) => result.name),
    },
    results,
  };
  console.log(JSON.stringify(document, null, 2));
}
