// Every question of the benches at toy size: that it works, that it reads back what it wrote (each question checks that itself), and that it measures the same
// work in every run, which the hashes of what came out tell. Not how fast: the figures mean nothing at this size.
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { meets } from '../../bench/harness/question.ts';
import { questions } from '../../bench/questions.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** Of what each question read back at toy size. A change here means that the workload changed: figures of before and after do not compare. */
const HASHES: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  hashing: {
    hashing: '38243b2f1290e8ca',
  },
  lookups: {
    'lookups.batch.quarter': '0515510e173a2022',
    'lookups.single.quarter': '0515510e173a2022',
    'lookups.batch.full': '0515510e173a2022',
    'lookups.single.full': '0515510e173a2022',
  },
  memory: {
    'memory.quarter': 'b0b0a4a1b92c0586',
    'memory.half': 'fc6dcb5587927e01',
    'memory.threeQuarters': '2dcff1ce30cf2df5',
    'memory.full': 'c1a74391a89614bc',
    'memory.history': '66ed0f27d89faa1c',
    'memory.sequential': '6517c25554f951f4',
  },
  sequential: {
    'sequential.write.depth1': 'e084816180735af1',
    'sequential.read.depth1': 'e084816180735af1',
    'sequential.write.depth4': 'a84be5f4607e9e7a',
    'sequential.read.depth4': 'a84be5f4607e9e7a',
  },
  'random-writes': {
    'random-writes.append': '7aa43d3bbeaeb23a',
    'random-writes.in-place': '7aa43d3bbeaeb23a',
  },
  'random-reads': {
    'random-reads.sync': '43ec7dbd4cfe4b9a',
    'random-reads.depth32': '43ec7dbd4cfe4b9a',
  },
  flush: {
    'flush.small': 'd96dc7301329fb0b',
    'flush.large': 'd96dc7301329fb0b',
  },
  direct: {
    'direct.loop.random': '22d91c9962b789d9',
    'direct.loop.sequential': '22d91c9962b789d9',
    'direct.file.random': '22d91c9962b789d9',
    'direct.file.sequential': '22d91c9962b789d9',
  },
  'block-stores': {
    'block-stores.sequential-write.sqlite': '8387f0c07e1fd7ab',
    'block-stores.sequential-write.level': '8387f0c07e1fd7ab',
    'block-stores.sequential-read.sqlite': '8387f0c07e1fd7ab',
    'block-stores.sequential-read.level': '8387f0c07e1fd7ab',
    'block-stores.random-write.sqlite': 'a53e364a4b0ab5c0',
    'block-stores.random-write.level': 'a53e364a4b0ab5c0',
    'block-stores.random-read.sqlite': 'a53e364a4b0ab5c0',
    'block-stores.random-read.level': 'a53e364a4b0ab5c0',
  },
  snapshots: {
    'snapshots.1MiB': '86457b032c40c77a',
    'snapshots.4MiB': 'ba80e9b6bc8e2745',
  },
  diffs: {
    'diffs.1': '6e0e795318b91293',
    'diffs.64': '41a8493c3e449521',
  },
  metadata: {
    metadata: 'b6ba44ef7d9c58ba',
  },
  amplification: {
    'amplification.uniform70': '51de3eeed1d70c25',
    'amplification.uniform80': 'a77bec2fef96c4f1',
    'amplification.uniform90': '6c3f740bf6524e5f',
    'amplification.zipf70': '0681bb11fad965f4',
    'amplification.zipf80': 'f9ac2ed6a9320e10',
    'amplification.zipf90': '5562bfae83c9d545',
  },
  reopen: {
    reopen: 'a59e6ec77d6388fc',
  },
  raid: {
    'raid.parity': '704b549bd9eb3485',
    'raid.parityPQ': '704b549bd9eb3485',
    'raid.map': '31efcfa3f1332760',
    'raid.write0': '5d600f21a5ead93c',
    'raid.write1': '5d600f21a5ead93c',
    'raid.write5': '5d600f21a5ead93c',
    'raid.degraded5': '5d600f21a5ead93c',
    'raid.rebuild5': '5d600f21a5ead93c',
    'raid.write6': '5d600f21a5ead93c',
    'raid.degraded6': '5d600f21a5ead93c',
    'raid.rebuild6': '5d600f21a5ead93c',
    'raid.write10': '5d600f21a5ead93c',
    'raid.padding': '7fa54663fa8bd044',
    'raid.files.write0': '5d600f21a5ead93c',
    'raid.files.write1': '5d600f21a5ead93c',
    'raid.files.write5': '5d600f21a5ead93c',
    'raid.files.degraded5': '5d600f21a5ead93c',
    'raid.files.rebuild5': '5d600f21a5ead93c',
    'raid.files.write6': '5d600f21a5ead93c',
    'raid.files.degraded6': '5d600f21a5ead93c',
    'raid.files.rebuild6': '5d600f21a5ead93c',
    'raid.files.write10': '5d600f21a5ead93c',
  },
};

describe('benches at toy size', () => {
  const core = new Uint8Array(readFileSync(`${ROOT}build/core.raid.wasm`));

  test('every file in bench/ is a question that is asked', () => {
    const files = readdirSync(`${ROOT}bench`).filter((file) => file.endsWith('.ts') && !['main.ts', 'questions.ts'].includes(file));
    expect(questions.map(({ name }) => `${name}.ts`).toSorted()).toEqual(files.toSorted());
  });

  for (const question of questions) {
    test(`${question.name}: ${question.asks}`, { timeout: 120_000 }, async () => {
      const directory = mkdtempSync(`${tmpdir()}/varve-bench-`);
      try {
        const results = await question.run({ toy: true, directory, core, say: () => {} });
        expect(Object.fromEntries(results.map(({ name, hash }) => [name, hash]))).toEqual(HASHES[question.name]);
        for (const { name, ours, floor, peer, ratio, bar, met, rounds, about } of results) {
          expect(name.startsWith(question.name)).toBe(true);
          for (const value of [ours, floor, peer]) if (value !== undefined) expect(Number.isFinite(value) && value >= 0, name).toBe(true);
          expect(ratio === null, `${name}: a ratio needs a floor or a peer`).toBe(floor === undefined && peer === undefined);
          if (bar !== null) expect(met, `${name}: ${bar}`).toBe(meets(bar, ratio ?? ours));
          expect(rounds).toBeGreaterThan(0);
          expect(about).not.toBe('');
        }
        expect(
          readdirSync(directory).filter((file) => file.endsWith('.varve') || file.endsWith('.raw')),
          'files left behind',
        ).toEqual([]);
      } finally {
        rmSync(directory, { recursive: true, force: true });
      }
    });
  }
});
