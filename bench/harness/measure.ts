// Rounds, medians and ratios. Machines are shared and noisy: each round measures every contestant once, one right after the other, in an order that turns
// with the rounds, and what is reported is the median of the rounds' ratios, not a ratio of bests.
import { meets, round, type Result } from './question.ts';

/** Does its work once, and answers what that cost, in any unit: lower is better. What it only prepares it leaves out. */
export type Contestant = () => number | Promise<number>;

export type Costs<Name extends string> = Readonly<Record<Name, readonly number[]>>;

/**
 * Measures all contestants `rounds` times, after one round that does not count.
 */
export async function interleave<Name extends string>(
  rounds: number,
  contestants: Readonly<Record<Name, Contestant>>,
): Promise<Costs<Name>> {
  const names = Object.keys(contestants) as Name[];
  const costs = Object.fromEntries(names.map((name) => [name, [] as number[]])) as Record<Name, number[]>;
  for (let index = -1; index < rounds; index++) {
    for (let turn = 0; turn < names.length; turn++) {
      const name = names[(turn + index + 1) % names.length]!;
      const cost = await contestants[name]();
      if (index >= 0) costs[name].push(cost);
    }
  }
  return costs;
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

export function milliseconds(work: () => void): number {
  const begin = performance.now();
  work();
  return performance.now() - begin;
}

export async function millisecondsOf(work: () => Promise<unknown>): Promise<number> {
  const begin = performance.now();
  await work();
  return performance.now() - begin;
}

export interface Comparison {
  readonly name: string;
  readonly about: string;
  /** Cost of each round. */
  readonly ours: readonly number[];
  readonly floor?: readonly number[] | undefined;
  readonly peer?: readonly number[] | undefined;
  /** Which of the two the ratio is about. */
  readonly against: 'floor' | 'peer';
  readonly bar?: string;
  readonly unit: string;
  /** A cost in the unit reported: milliseconds into MiB/s, say. */
  readonly show?: (cost: number) => number;
  readonly also?: Readonly<Record<string, number>>;
  readonly hash: string;
}

/** A result out of costs measured by `interleave`. */
export function compare({ name, about, ours, floor, peer, against, bar, unit, show = (cost) => cost, also, hash }: Comparison): Result {
  const other = (against === 'floor' ? floor : peer) ?? [];
  const ratios = ours.map((cost, index) => other[index]! / cost);
  const ratio = median(ratios);
  return {
    name,
    ours: round(show(median(ours))),
    ...(floor ? { floor: round(show(median(floor))) } : {}),
    ...(peer ? { peer: round(show(median(peer))) } : {}),
    unit,
    ratio: round(ratio),
    bar: bar ?? null,
    met: bar === undefined ? null : meets(bar, ratio),
    rounds: ours.length,
    about,
    spread: [round(Math.min(...ratios)), round(Math.max(...ratios))],
    ...(also ? { also } : {}),
    hash,
  };
}

export interface Plain {
  readonly name: string;
  readonly about: string;
  readonly ours: readonly number[] | number;
  readonly bar?: string;
  readonly unit: string;
  readonly also?: Readonly<Record<string, number>>;
  readonly hash: string;
}

/** A result that is compared with nothing but its bar. */
export function plain({ name, about, ours, bar, unit, also, hash }: Plain): Result {
  const values = typeof ours === 'number' ? [ours] : ours;
  const value = median(values);
  return {
    name,
    ours: round(value),
    unit,
    ratio: null,
    bar: bar ?? null,
    met: bar === undefined ? null : meets(bar, value),
    rounds: values.length,
    about,
    ...(also ? { also } : {}),
    hash,
  };
}

export const MIB = 2 ** 20;
export const GIB = 2 ** 30;
export const BLOCK = 4096;

/** For `show`: the cost is milliseconds for so many bytes. */
export const mibPerSecond = (bytes: number) => (cost: number) => bytes / MIB / (cost / 1000);
export const thousandsPerSecond = (operations: number) => (cost: number) => operations / cost;
export const microsecondsEach = (operations: number) => (cost: number) => (cost * 1000) / operations;
