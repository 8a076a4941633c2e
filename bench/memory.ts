// The memory of a mapped block and of a history entry. `ours` is by extent: the arena's whole length over what it holds, headers, slack and the holes between
// allocations counted, when the holes have been taken out as each checkpoint does. `also` has what is allocated, and the extent before.
//
// Blocks are mapped in random order over all leaves at once, which is the worst there is for an allocator: every leaf grows, step by step, at the same time.
import { plain } from './harness/measure.ts';
import { Digest, expectSame, round, type Context, type Question, type Result } from './harness/question.ts';
import { LEAF_BLOCKS, Table, type Size, type Squeezed } from './harness/table.ts';
import { permutation, random } from './harness/workload.ts';

const FILLS = [
  ['quarter', LEAF_BLOCKS / 4],
  ['half', LEAF_BLOCKS / 2],
  ['threeQuarters', (LEAF_BLOCKS / 4) * 3],
  ['full', LEAF_BLOCKS],
] as const;

/** Of what the table finds: its sizes may change with the core, its answers may not. */
function found({ core }: Table, blocks: number): Digest {
  const digest = new Digest().add(core.mappedBlocks(0), core.historyEntries(0));
  for (let block = 0; block < blocks; block += 61) digest.add(core.findOne(0, block), (core.foundBlock.value as number) >>> 0);
  return digest;
}

/** From one size of a table to another, its holes taken out at the end as a checkpoint does. */
function answer(name: string, about: string, bar: string, from: Size, to: Squeezed, count: number, digest: Digest): Result {
  const each = (bytes: number): number => round(bytes / count);
  const also = {
    used: each(to.used - from.used),
    beforeSqueeze: each(to.extentBefore - from.extent),
    squeezeMilliseconds: round(to.milliseconds),
    count,
  };
  return plain({ name, about, ours: (to.extent - from.extent) / count, bar, unit: 'bytes', also, hash: digest.toString() });
}

/** Mapped at random, with five births; where all are mapped, overwritten under three snapshots as well. */
function scattered(context: Context, name: string, fill: number): Result[] {
  const table = new Table();
  const leaves = context.toy ? 64 : 16_384;
  const next = random(5);
  const blocks = new Uint32Array(leaves * fill);
  for (let leaf = 0; leaf < leaves; leaf++) {
    const order = permutation(LEAF_BLOCKS, next);
    for (let index = 0; index < fill; index++) blocks[leaf * fill + index] = leaf * LEAF_BLOCKS + order[index]!;
  }
  const order = permutation(blocks.length, next);
  const before = table.size;
  table.map({
    count: blocks.length,
    virtualBlock: (index) => blocks[order[index]!]!,
    storageBlock: (index) => index * 3,
    birth: (index) => 1 + Math.floor((index * 5) / blocks.length),
  });
  expectSame('memory: mapped', table.core.mappedBlocks(0), blocks.length);
  const mapped = table.squeeze();
  const about = `bytes of memory for a mapped block, ${fill} of ${LEAF_BLOCKS} blocks of each leaf mapped in random order, holes counted`;
  const results = [answer(`memory.${name}`, about, '<= 12', before, mapped, blocks.length, found(table, leaves * LEAF_BLOCKS))];
  if (fill < LEAF_BLOCKS) return results;
  for (let epoch = 10; epoch < 13; epoch++) {
    table.core.pinAdd(0, epoch - 1);
    table.map({
      count: blocks.length / 2,
      virtualBlock: () => next(blocks.length),
      storageBlock: (index) => index,
      birth: () => epoch,
    });
  }
  const entries = table.core.historyEntries(0);
  const overwritten = table.squeeze();
  results.push(
    answer(
      'memory.history',
      'bytes of memory for a history entry: half as many random overwrites as there are blocks, under each of three snapshots',
      '<= 20',
      mapped,
      overwritten,
      entries,
      found(table, blocks.length),
    ),
  );
  return results;
}

function sequential(context: Context): Result {
  const table = new Table();
  const count = (context.toy ? 64 : 16_384) * LEAF_BLOCKS;
  const before = table.size;
  // A record holds 127 blocks; its header takes a slot before them.
  table.map({ count, virtualBlock: (index) => index, storageBlock: (index) => index + Math.floor(index / 127) + 1, birth: () => 1 });
  const after = table.squeeze();
  expectSame('memory: mapped', table.core.mappedBlocks(0), count);
  return answer(
    'memory.sequential',
    'bytes of memory for a block that was written in order',
    '<= 0.2',
    before,
    after,
    count,
    found(table, count),
  );
}

export const question: Question = {
  name: 'memory',
  asks: 'How much memory does a mapped block take?',
  async run(context): Promise<Result[]> {
    return [...FILLS.flatMap(([name, fill]) => scattered(context, name, fill)), sequential(context)];
  },
};
