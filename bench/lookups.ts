// Lookups over 16,000,000 random mappings: in batches of 1024, and one by one from JS; against a JS Map (what one would take) and a flat typed array as large
// as the address space (the floor: one load). Asked with leaves a quarter full, the mappings spread over 2^26 blocks, and with leaves nearly full.
import { ensure } from '../test/unit/table.support.ts';
import { compare, interleave, milliseconds } from './harness/measure.ts';
import { Digest, expectSame, round, type Context, type Question, type Result } from './harness/question.ts';
import { Table } from './harness/table.ts';
import { random } from './harness/workload.ts';

const EPOCH_NOW = 0xffffffff;
const BATCH = 1024;

/** A permutation of the numbers below 2^bits without a table of them: odd multipliers and shifted xors can be undone. */
function scatterOver(bits: number): (index: number) => number {
  const mask = 2 ** bits - 1;
  return (index) => {
    let x = Math.imul(index, 0x9e3779b1) & mask;
    x ^= x >>> (bits >> 1);
    x = Math.imul(x, 0x2c1b3c6d) & mask;
    return x ^ (x >>> (bits >> 1));
  };
}

async function measure(context: Context, fill: string, bits: number): Promise<Result[]> {
  const mappings = context.toy ? 40_000 : 16_000_000;
  const rounds = context.toy ? 1 : 9;
  const scatter = scatterOver(bits);
  const storageBlock = (index: number): number => Math.imul(index, 7) >>> 6;
  context.say(`lookups: mapping, ${fill}`);
  const table = new Table();
  const { core } = table;
  const insertion = table.map({
    count: mappings,
    virtualBlock: scatter,
    storageBlock,
    birth: (index) => 1 + Math.floor((index * 5) / mappings),
  });
  expectSame('lookups: mapped', core.mappedBlocks(0), mappings);
  const peer = new Map<number, number>();
  const floor = new Float64Array(2 ** bits);
  for (let index = 0; index < mappings; index++) {
    peer.set(scatter(index), storageBlock(index));
    floor[scatter(index)] = storageBlock(index);
  }
  const next = random(3);
  const queries = Float64Array.from({ length: context.toy ? 8192 : 2 ** 20 }, () => scatter(next(mappings)));
  ensure(core, 2 ** 20);
  const input = core.allocate(BATCH * 8);
  const output = core.allocate(BATCH * 16);
  const into = new Float64Array(core.memory.buffer, input, BATCH);
  const from = new Uint32Array(core.memory.buffer, output, BATCH * 4);

  // Each has its sum in a variable of its own: one captured from outside would be boxed at every addition.
  const batched = (): number => {
    let sum = 0;
    for (let done = 0; done < queries.length; done += BATCH) {
      into.set(queries.subarray(done, done + BATCH));
      core.lookupBatch(0, EPOCH_NOW, input, BATCH, output);
      for (let index = 0; index < BATCH; index++) sum = (sum + from[index * 4 + 2]!) >>> 0;
    }
    return sum;
  };
  const single = (): number => {
    let sum = 0;
    for (let index = 0; index < queries.length; index++) {
      core.findOne(0, queries[index]!);
      sum = (sum + ((core.foundBlock.value as number) >>> 0)) >>> 0;
    }
    return sum;
  };
  const inMap = (): number => {
    let sum = 0;
    for (let index = 0; index < queries.length; index++) sum = (sum + peer.get(queries[index]!)!) >>> 0;
    return sum;
  };
  const inArray = (): number => {
    let sum = 0;
    for (let index = 0; index < queries.length; index++) sum = (sum + floor[queries[index]!]!) >>> 0;
    return sum;
  };
  const sum = inArray();
  const timed = (what: string, run: () => number) => (): number => {
    let got = 0;
    const cost = milliseconds(() => (got = run()));
    expectSame(`lookups: sum of ${what}`, got, sum);
    return cost;
  };
  const costs = await interleave(rounds, {
    batched: timed('batches', batched),
    single: timed('single lookups', single),
    peer: timed('Map', inMap),
    floor: timed('Float64Array', inArray),
  });
  const hash = new Digest().add(mappings, sum).toString();
  const show = (cost: number): number => (cost * 1e6) / queries.length;
  const shared = { floor: costs.floor, peer: costs.peer, against: 'peer', unit: 'ns', show, hash } as const;
  return [
    compare({
      name: `lookups.batch.${fill}`,
      about: `a lookup in batches of ${BATCH} over ${mappings} random mappings, against a JS Map (peer) and a Float64Array (floor)`,
      ours: costs.batched,
      bar: '>= 5',
      also: { insertNs: round((insertion * 1e6) / mappings) },
      ...shared,
    }),
    compare({
      name: `lookups.single.${fill}`,
      about: 'the same lookups one by one from JS: two crossings into the core for each',
      ours: costs.single,
      ...shared,
    }),
  ];
}

export const question: Question = {
  name: 'lookups',
  asks: 'How fast is a block looked up?',
  async run(context): Promise<Result[]> {
    return [...(await measure(context, 'quarter', context.toy ? 18 : 26)), ...(await measure(context, 'full', context.toy ? 16 : 24))];
  },
};
