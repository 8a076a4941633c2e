// What changed between two states, as byte ranges.
//
// The core finds runs in bounded steps from a cursor. Between two batches the caller may write, or run another diff, and the core keeps one diff only:
// then this begins again at the block where it stopped; so it does when sources or snapshots have changed. A core that ignores the starting block is put up with: what was given already is skipped.

const BLOCK_BYTES = 4096;
/** Steps of the core between two turns of the event loop. */
const STEPS_PER_TURN = 256;

export interface DiffRun {
  /** Bytes. */
  readonly offset: number;
  /** Bytes; the last run ends with the state, so it need not be whole blocks. */
  readonly length: number;
  /** `hole`: reads zero, nothing is stored. */
  readonly kind: 'data' | 'hole';
}

/** One state of one space: `epoch` `EPOCH_NOW` is the current one. */
export interface DiffState {
  readonly space: number;
  readonly epoch: number;
  readonly sizeBytes: number;
}

export interface DiffCursor {
  /** From this block on. */
  begin(block: number): void;
  /** Nobody else began one since, and the states are where they were. */
  isOurs(): boolean;
  next(): { block: number; count: number; kind: 'data' | 'hole' } | 'more' | 'end';
}

export async function* diffRuns(
  cursor: DiffCursor,
  sizeBytes: number,
  signal: AbortSignal | undefined,
): AsyncGenerator<DiffRun, void, undefined> {
  const sizeBlocks = Math.ceil(sizeBytes / BLOCK_BYTES);
  let block = 0;
  /** Found and not given yet: the next run may continue it. */
  let start = 0;
  let end = 0;
  let kind: 'data' | 'hole' = 'data';
  const run = (): DiffRun => {
    const offset = start * BLOCK_BYTES;
    return { offset, length: Math.min(end * BLOCK_BYTES, sizeBytes) - offset, kind };
  };
  signal?.throwIfAborted();
  cursor.begin(0);
  for (let steps = 1; ; steps++) {
    if (steps % STEPS_PER_TURN === 0) {
      await nextTurn();
      signal?.throwIfAborted();
    }
    if (!cursor.isOurs()) cursor.begin(block);
    const found = cursor.next();
    if (found === 'more') continue;
    if (found === 'end' || found.block >= sizeBlocks) break;
    const from = Math.max(found.block, block);
    const to = Math.min(found.block + found.count, sizeBlocks);
    if (to <= from) continue;
    block = to;
    if (end > start && from === end && found.kind === kind) {
      end = to;
      continue;
    }
    if (end > start) {
      const ready = run();
      start = from;
      end = to;
      kind = found.kind;
      yield ready;
      signal?.throwIfAborted();
      continue;
    }
    start = from;
    end = to;
    kind = found.kind;
  }
  if (end > start) yield run();
}

/** Lets I/O and timers run. Browsers stretch nested time-outs to 4 ms; where there is something better it is used. */
function nextTurn(): Promise<void> {
  return new Promise((resolve) => (typeof setImmediate === 'function' ? setImmediate(resolve) : setTimeout(resolve, 0)));
}
