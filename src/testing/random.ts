// Numbers that look random and are the same on every machine for the same seed: xoshiro128**, seeded by splitmix32.
// Blackman and Vigna, "Scrambled linear pseudorandom number generators" (2018). Not for secrets.

/** A stream of numbers that its seed determines. */
export class Random {
  #a = 0;
  #b = 0;
  #c = 0;
  #d = 0;

  /** @param seed any number; its low 32 bits count */
  constructor(seed: number) {
    this.reseed(seed);
  }

  /** Starts again as `new Random(seed)` would. */
  reseed(seed: number): void {
    let state = seed | 0;
    const next = (): number => {
      state = (state + 0x9e3779b9) | 0;
      let z = state;
      z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
      z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
      return z ^ (z >>> 15);
    };
    this.#a = next();
    this.#b = next();
    this.#c = next();
    this.#d = next() || 1;
  }

  /** 0 … 2^32 − 1 */
  word(): number {
    const five = Math.imul(this.#b, 5);
    const result = Math.imul((five << 7) | (five >>> 25), 9);
    const t = this.#b << 9;
    this.#c ^= this.#a;
    this.#d ^= this.#b;
    this.#b ^= this.#c;
    this.#a ^= this.#d;
    this.#c ^= t;
    this.#d = (this.#d << 11) | (this.#d >>> 21);
    return result >>> 0;
  }

  /** 0 … n − 1; 0 when n is below 1. Biased by less than n / 2^32. */
  below(n: number): number {
    return n < 1 ? 0 : Math.floor((this.word() / 0x100000000) * n);
  }

  /** low … high, both included */
  between(low: number, high: number): number {
    return low + this.below(high - low + 1);
  }

  /** True with this probability. */
  chance(probability: number): boolean {
    return this.word() < probability * 0x100000000;
  }

  /** One of the items; throws when there is none. */
  pick<T>(items: readonly T[]): T {
    if (items.length === 0) throw new RangeError('pick: expected at least one item');
    return items[this.below(items.length)] as T;
  }

  /** An index, each as likely as its weight says. */
  weighted(weights: readonly number[]): number {
    let total = 0;
    for (const weight of weights) total += weight;
    let at = (this.word() / 0x100000000) * total;
    for (let index = 0; index < weights.length; index++) {
      at -= weights[index] as number;
      if (at < 0) return index;
    }
    return weights.length - 1;
  }

  /** In place (Fisher and Yates). */
  shuffle<T>(items: T[]): T[] {
    for (let i = items.length - 1; i > 0; i--) {
      const j = this.below(i + 1);
      const item = items[i] as T;
      items[i] = items[j] as T;
      items[j] = item;
    }
    return items;
  }
}
