// What the system tests share: the command line in processes of its own, bytes that look random, and how much of everything is done.
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { appendFileSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'vitest';
import { Random } from '../../src/testing/random.ts';

export const KIB = 1 << 10;
export const MIB = 1 << 20;
export const BLOCK = 4096;
export const MAIN = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));

/** `VARVE_SOAK=full`: the whole counts, for hours (scripts/soak.ts). */
export const FULL = process.env['VARVE_SOAK'] === 'full';

/** How often: a sample in `npm test`, everything in the soak. */
export function amount(sample: number, full: number): number {
  return FULL ? full : sample;
}

/** The same in every `npm test`, another in each soak; printed where a test fails. `VARVE_SEED` repeats one. */
export const SEED = Number(process.env['VARVE_SEED'] ?? (FULL ? Math.floor(Math.random() * 0x7fffffff) : 20261123));

/** Figures for docs/soak.json: one JSON line each, into the file that the soak names. */
export function record(part: string, figures: Readonly<Record<string, unknown>>): void {
  const file = process.env['VARVE_SOAK_FILE'];
  if (file) appendFileSync(file, `${JSON.stringify({ part, seed: SEED, ...figures })}\n`);
}

export class Workshop {
  readonly directory = mkdtempSync(join(tmpdir(), 'varve-system-'));
  #count = 0;

  /** A path at which there is nothing yet. */
  fresh(): string {
    return join(this.directory, `x${this.#count++}`);
  }

  /** `VARVE_KEEP=1` leaves everything there, to be looked at. */
  dispose(): void {
    if (process.env['VARVE_KEEP']) return void console.log(`left in ${this.directory}`);
    rmSync(this.directory, { recursive: true, force: true });
  }
}

export interface Ended {
  readonly status: number | null;
  readonly stdout: Buffer;
  readonly stderr: string;
}

export function varve(...args: string[]): Ended {
  const child = spawnSync(process.execPath, [MAIN, ...args], { maxBuffer: 256 * MIB });
  return { status: child.status, stdout: child.stdout, stderr: child.stderr.toString() };
}

/** The JSON document of a call that must succeed; of a pool that is not whole, there may be notes. */
export function json<T>(...args: string[]): T {
  const child = varve(...args, '--json');
  expect(child.stderr.replace(/^varve: note: .*\n/gm, ''), args.join(' ')).toBe('');
  expect(child.status, `${args.join(' ')}: ${child.stdout.toString()}`).toBe(0);
  return JSON.parse(child.stdout.toString()) as T;
}

/** The code of the error with which a call must fail. */
export function failure(...args: string[]): string {
  const child = varve(...args, '--json');
  expect(child.status, args.join(' ')).toBe(1);
  return (JSON.parse(child.stdout.toString()) as { error: { code: string } }).error.code;
}

export function start(...args: string[]): { child: ChildProcess; ended: Promise<number | null> } {
  const child = spawn(process.execPath, [MAIN, ...args], { stdio: 'ignore' });
  return { child, ended: new Promise((resolve) => child.once('exit', (code) => resolve(code))) };
}

/** Writes of a process into a pool's files, as their times tell: call it before the process starts, then wait for what it answers with. */
export function firstWrite(pool: string): () => Promise<void> {
  const times = (): string =>
    readdirSync(pool)
      .filter((name) => name.endsWith('.varve'))
      .map((name) => `${name} ${statSync(join(pool, name)).mtimeMs}`)
      .join();
  const before = times();
  return async () => {
    for (const begun = Date.now(); times() === before; await sleep(5)) {
      if (Date.now() - begun > 60_000) throw new Error(`nothing was written to ${pool}`);
    }
  };
}

export const sleep = (milliseconds: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Fills with bytes that the seed determines. */
export function noise(into: Uint8Array, seed: number): Uint8Array {
  const random = new Random(seed);
  const words = new DataView(into.buffer, into.byteOffset, into.byteLength);
  let at = 0;
  for (; at + 4 <= into.length; at += 4) words.setUint32(at, random.word(), true);
  for (; at < into.length; at++) into[at] = random.below(256);
  return into;
}

export function equal(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}
