// The bench in real browsers: `npm run bench:browser`. One JSON document on stdout, a table on stderr; exit status 1 when a bar is missed.
//
//   node bench/browser/main.ts [--engine chromium] [--rounds 7] [--toy] [--report FILE]
//
// All figures of an engine come from one run of it, in turns, with the raw handle measured beside the volume in each round. What not to conclude: anything
// from absolute figures (machines are shared), or about devices (a flush in a browser ends in the system's cache or on the disk as the system likes).
import { writeFileSync } from 'node:fs';
import { availableParallelism, cpus } from 'node:os';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Browser, ENGINES, type Engine } from '../../test/browser/system/browser.ts';
import { Site } from '../../test/browser/system/site.ts';
import { median } from '../harness/measure.ts';
import type { BenchAnswer } from './bench.worker.ts';
import type { ClientAnswer } from './tab.ts';

const MIB = 1 << 20;
/** Speed of the volume as a share of the raw handle's, at least. */
const BARS: Readonly<Record<Engine, Readonly<Record<string, number>>>> = {
  chromium: { 'random 4 KiB writes, a flush every 32': 2, 'sequential 1 MiB writes': 0.7, 'sequential 1 MiB reads': 0.5 },
  firefox: { 'random 4 KiB writes, a flush every 32': 5, 'sequential 1 MiB writes': 0.7, 'sequential 1 MiB reads': 0.5 },
};

const { values } = parseArgs({
  options: {
    engine: { type: 'string', multiple: true, default: [...ENGINES] },
    rounds: { type: 'string', default: '7' },
    toy: { type: 'boolean', default: false },
    report: { type: 'string' },
  },
});
for (const engine of values.engine)
  if (!(ENGINES as readonly string[]).includes(engine)) throw new Error(`--engine: expected one of ${ENGINES.join(' ')}, got ${engine}`);

interface Line {
  readonly name: string;
  readonly unit: string;
  readonly raw?: number;
  readonly volume: number;
  /** Median of the rounds' ratios of speed, volume to raw. */
  readonly ratio?: number;
  readonly bar?: number;
  readonly met?: boolean;
}

const scripts = {
  tab: fileURLToPath(new URL('./tab.ts', import.meta.url)),
  bench: fileURLToPath(new URL('./bench.worker.ts', import.meta.url)),
  storage: fileURLToPath(new URL('../../test/browser/worker/storage.worker.ts', import.meta.url)),
};

async function measure(engine: Engine): Promise<Line[]> {
  const site = await Site.start({ scripts });
  const browser = await Browser.start(engine);
  try {
    const tab = await browser.open(site.url);
    const request = values.toy
      ? { rounds: 1, sizeBytes: 16 * MIB, calls: 256 }
      : { rounds: Number(values.rounds), sizeBytes: 64 * MIB, calls: 4096 };
    const answer = await tab.evaluate<BenchAnswer>(`bench.run(${JSON.stringify(request)})`);
    const lines: Line[] = answer.measured.map(({ name, raw, volume, work, unit }) => {
      const speed = (milliseconds: number): number => (unit === 'bytes' ? work / MIB : work) / (milliseconds / 1000);
      const ratio = median(raw.map((cost, round) => cost / (volume[round] as number)));
      const bar = BARS[engine][name];
      return {
        name,
        unit: unit === 'bytes' ? 'MiB/s' : 'calls/s',
        raw: speed(median(raw)),
        volume: speed(median(volume)),
        ratio,
        ...(bar === undefined ? {} : { bar, met: ratio >= bar }),
      };
    });
    lines.push({ name: 'snapshot with its flush', unit: 'ms', volume: median(answer.snapshot) });
    lines.push({ name: 'reopening the pool and its volume', unit: 'ms', volume: median(answer.reopen) });
    for (const other of [false, true]) {
      const through = await tab.evaluate<ClientAnswer>(`bench.client(${other}, ${values.toy ? 64 : 1024}, ${values.toy ? 4 : 64})`);
      const who = other ? 'from another tab' : 'from the owner’s page';
      lines.push({ name: `${who}: 4 KiB writes, 32 at once and a flush`, unit: 'calls/s', volume: through.writes });
      lines.push({ name: `${who}: 4 KiB reads, 32 at once`, unit: 'calls/s', volume: through.reads });
      lines.push({ name: `${who}: 1 MiB writes`, unit: 'MiB/s', volume: through.writeSpeed });
      lines.push({ name: `${who}: 1 MiB reads`, unit: 'MiB/s', volume: through.readSpeed });
    }
    return lines;
  } finally {
    await browser.dispose();
    await site.close();
  }
}

const engines: Record<string, Line[]> = {};
for (const engine of values.engine as Engine[]) {
  engines[engine] = await measure(engine);
  console.error(`\n${engine}`);
  for (const { name, unit, raw, volume, ratio, bar, met } of engines[engine]) {
    const figures = raw === undefined ? `${round(volume)} ${unit}` : `${round(volume)} ${unit}, raw ${round(raw)}: ${ratio?.toFixed(2)} ×`;
    console.error(`  ${name.padEnd(62)} ${figures}${bar === undefined ? '' : ` (bar ${bar} ×: ${met ? 'met' : 'MISSED'})`}`);
  }
}
function round(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toFixed(2);
}

const document = JSON.stringify(
  {
    date: new Date().toISOString().slice(0, 10),
    machine: `${availableParallelism()} × ${cpus()[0]?.model ?? 'unknown'}`,
    toy: values.toy,
    engines,
  },
  undefined,
  2,
);
console.log(document);
if (values.report !== undefined) writeFileSync(values.report, `${document}\n`);
// A toy run shows that it runs, and its ratios mean nothing.
process.exitCode = values.toy || Object.values(engines).every((lines) => lines.every((line) => line.met !== false)) ? 0 : 1;
