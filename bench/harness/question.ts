// What a question is, and what an answer looks like.
//
// `ratio` always says how many times as fast (or as small) Varve is as what it is compared with: above 1 it wins. A bar is about `ratio` where there is
// one, else about `ours`. A floor is what the machine can do without Varve; a peer is what one would use instead.
import { createHash, type Hash } from 'node:crypto';

export interface Context {
  /** Sizes at which everything ends in seconds; the figures mean nothing then. */
  readonly toy: boolean;
  /** An empty directory for files, on the disk that is measured. Deleted afterwards. */
  readonly directory: string;
  /** The core's bytes. */
  readonly core: Uint8Array<ArrayBuffer>;
  /** Progress, for people: stderr. */
  readonly say: (line: string) => void;
}

export interface Result {
  readonly name: string;
  /** Median of the rounds. */
  readonly ours: number;
  readonly floor?: number;
  readonly peer?: number;
  readonly unit: string;
  /** Median of the rounds' own ratios: both sides of one round saw the same machine. Null: compared with nothing. */
  readonly ratio: number | null;
  /** `>= 0.8`: of the ratio; of `ours` where there is no ratio. */
  readonly bar: string | null;
  readonly met: boolean | null;
  readonly rounds: number;
  /** What was compared with what, in words. */
  readonly about: string;
  /** Lowest and highest ratio of a round. */
  readonly spread?: readonly [number, number];
  /** Other figures of the same run. */
  readonly also?: Readonly<Record<string, number>>;
  /** Of the data that came out. At toy size the test knows it. */
  readonly hash: string;
}

export interface Question {
  readonly name: string;
  /** One line. */
  readonly asks: string;
  run(context: Context): Promise<Result[]>;
}

export function round(value: number, digits = 3): number {
  if (!Number.isFinite(value)) return value;
  return Math.abs(value) >= 1000 ? Math.round(value) : Number(value.toPrecision(digits + 1));
}

export function meets(bar: string, value: number): boolean {
  const [comparison, limit] = bar.split(' ');
  if (comparison === '>=') return value >= Number(limit);
  if (comparison === '<=') return value <= Number(limit);
  if (comparison === '<') return value < Number(limit);
  throw new TypeError(`bar: expected '>= 0.8', '<= 3' or '< 1', got '${bar}'`);
}

/** The digest of whatever the run read back: numbers and bytes. */
export class Digest {
  readonly #hash: Hash = createHash('sha256');

  add(...values: (number | string | Uint8Array)[]): this {
    for (const value of values) this.#hash.update(typeof value === 'object' ? value : `${value};`);
    return this;
  }

  toString(): string {
    return this.#hash.copy().digest('hex').slice(0, 16);
  }
}

/** The run went wrong: what it read back is not what it wrote. */
export function expectSame(what: string, got: unknown, expected: unknown): void {
  if (got !== expected) throw new Error(`${what}: expected ${String(expected)}, got ${String(got)}`);
}
