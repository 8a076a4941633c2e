// The lookup table alone, without a log around it: the core's own sources, built with what a bench needs to fill and ask it.
import { type TableCore, coreOf, ensure, tableModule } from '../../test/unit/table.support.ts';

export const LEAF_BLOCKS = 512;
const BATCH = 8192;

export interface Mappings {
  readonly count: number;
  readonly virtualBlock: (index: number) => number;
  readonly storageBlock: (index: number) => number;
  readonly birth: (index: number) => number;
}

/** What the arena holds: allocated with headers and slack, and its extent, which counts what lies free between allocations too. */
export interface Size {
  readonly used: number;
  readonly extent: number;
}

export interface Squeezed extends Size {
  readonly milliseconds: number;
  readonly extentBefore: number;
}

/** A table with one space in it. */
export class Table {
  readonly core: TableCore;
  readonly #buffer: number;

  constructor() {
    const core = coreOf(tableModule(false));
    ensure(core, 2 ** 20);
    core.tableInitialize(LEAF_BLOCKS);
    ensure(core, 2 ** 24);
    core.liveAttach(0, 1024, 2 ** 17);
    core.spaceCreate(0, 1n, 0xffff, 0, 2 ** 50);
    core.spaceFlag(0, 1, true);
    this.core = core;
    this.#buffer = core.allocate(BATCH * 16); // for good: freed, it would be a hole that the mappings did not make
  }

  /** Maps all of them, in their order. Answers the milliseconds that the core took. */
  map({ count, virtualBlock, storageBlock, birth }: Mappings): number {
    const { core } = this;
    let elapsed = 0;
    for (let done = 0; done < count; done += BATCH) {
      const batch = Math.min(BATCH, count - done);
      ensure(core, 2 ** 26);
      const doubles = new Float64Array(core.memory.buffer, this.#buffer, BATCH * 2);
      const words = new Uint32Array(core.memory.buffer, this.#buffer, BATCH * 4);
      for (let index = 0; index < batch; index++) {
        doubles[index * 2] = virtualBlock(done + index);
        words[index * 4 + 2] = storageBlock(done + index);
        words[index * 4 + 3] = birth(done + index);
      }
      const begin = performance.now();
      core.putMany(0, 0, this.#buffer, batch, done + 1);
      elapsed += performance.now() - begin;
    }
    return elapsed;
  }

  /** Takes the holes out, as a checkpoint does. */
  squeeze(): Squeezed {
    const extentBefore = this.core.heapExtentBytes();
    ensure(this.core, 2 ** 26);
    const begin = performance.now();
    if (this.core.squeezeWanted() !== 0) while (this.core.squeezeStep(0) !== 0);
    return { milliseconds: performance.now() - begin, extentBefore, ...this.size };
  }

  get size(): Size {
    return { used: this.core.heapUsedBytes(), extent: this.core.heapExtentBytes() };
  }
}
