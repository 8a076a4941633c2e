// The lookup table: how fast, how large. Prints one JSON document.
//
//   node bench/table.ts [--toy]
//
// Lookups are compared in the same run with a JS Map and with a Float64Array as large as the address space (the floor: one
// dependent-free load each). `bytes` figures are what the arena holds (headers, slack, directory) divided by blocks; `extent`
// counts what lies free between allocations too.
import { type TableCore, coreOf, ensure, random, tableModule } from '../test/unit/table.support.ts';

const toy = process.argv.includes('--toy');
const module = tableModule(false);
const figures: Record<string, unknown> = { toy };

const round = (value: number, digits = 3): number => Number(value.toFixed(digits));

function open(volumes = 1): TableCore {
  const core = coreOf(module);
  ensure(core, 2 ** 20);
  core.tableInitialize(512);
  ensure(core, 2 ** 24);
  for (let volume = 0; volume < volumes; volume++) core.liveAttach(volume, 1024, 2 ** 17);
  core.spaceCreate(0, 1n, 0xffff, 0, 2 ** 50);
  core.spaceFlag(0, 1, true);
  return core;
}

const BATCH = 8192;

// Puts through a record buffer { vblock f64, block u32, birth u32 }; returns the nanoseconds a put.
function put(
  core: TableCore,
  count: number,
  at: (k: number) => number,
  blockOf: (k: number) => number,
  birthOf: (k: number) => number,
  records = false,
): number {
  ensure(core, 2 ** 20);
  const buffer = core.allocate(BATCH * 16);
  let elapsed = 0;
  for (let done = 0; done < count; done += BATCH) {
    const n = Math.min(BATCH, count - done);
    ensure(core, 2 ** 26);
    const doubles = new Float64Array(core.memory.buffer, buffer, BATCH * 2);
    const words = new Uint32Array(core.memory.buffer, buffer, BATCH * 4);
    for (let k = 0; k < n; k++) {
      doubles[k * 2] = at(done + k);
      words[k * 4 + 2] = blockOf(done + k);
      words[k * 4 + 3] = birthOf(done + k);
    }
    const begin = performance.now();
    if (records) core.putRecords(0, 0, buffer, n, done + 1);
    else core.putMany(0, 0, buffer, n, done + 1);
    elapsed += performance.now() - begin;
  }
  core.free(buffer);
  return (elapsed * 1e6) / count;
}

// --- lookups: leaves a quarter full, and full ---
for (const [name, bits] of [
  ['lookup_quarter', toy ? 18 : 26],
  ['lookup_full', toy ? 16 : 24],
] as const) {
  const mappings = toy ? 40_000 : 16_000_000;
  const odd = 0x9e3779b1;
  // Distinct random blocks: an odd multiplier and xorshifts permute the numbers below 2^bits.
  const mask = 2 ** bits - 1;
  const scatter = (k: number): number => {
    let x = Math.imul(k, odd) & mask;
    x ^= x >>> (bits >> 1);
    x = Math.imul(x, 0x2c1b3c6d) & mask;
    return x ^ (x >>> (bits >> 1));
  };
  const core = open();
  const before = [core.heapUsedBytes(), core.heapExtentBytes()];
  const putNs = put(
    core,
    mappings,
    scatter,
    (k) => Math.imul(k, 7) >>> 6,
    (k) => 1 + Math.floor((k * 5) / mappings),
  );
  const mapped = core.mappedBlocks(0);
  const queries = new Float64Array(toy ? 8192 : 2 ** 20);
  const next = random(3);
  for (let k = 0; k < queries.length; k++) queries[k] = scatter(next(mappings));
  const rounds = toy ? 1 : 6;
  // Each run keeps its sum in a variable of its own: one captured from outside would be boxed at every addition.
  const time = (run: () => number): { ns: number; sum: number } => {
    const sum = run();
    let best = Infinity;
    for (let k = 0; k < rounds; k++) {
      const begin = performance.now();
      run();
      best = Math.min(best, performance.now() - begin);
    }
    return { ns: (best * 1e6) / queries.length, sum };
  };
  ensure(core, 2 ** 20);
  const input = core.allocate(1024 * 8);
  const output = core.allocate(1024 * 16);
  const into = new Float64Array(core.memory.buffer, input, 1024);
  const from = new Uint32Array(core.memory.buffer, output, 4096);
  const batch = time(() => {
    let sum = 0;
    for (let done = 0; done < queries.length; done += 1024) {
      into.set(queries.subarray(done, done + 1024));
      core.lookupBatch(0, 0xffffffff, input, 1024, output);
      for (let k = 0; k < 1024; k++) sum = (sum + (from[k * 4 + 2] ?? 0)) >>> 0;
    }
    return sum;
  });
  const single = time(() => {
    let sum = 0;
    for (let k = 0; k < queries.length; k++) {
      core.findOne(0, queries[k] ?? 0);
      sum = (sum + ((core.foundBlock.value as number) >>> 0)) >>> 0;
    }
    return sum;
  });
  const map = new Map<number, number>();
  for (let k = 0; k < mappings; k++) map.set(scatter(k), Math.imul(k, 7) >>> 6);
  const inMap = time(() => {
    let sum = 0;
    for (let k = 0; k < queries.length; k++) sum = (sum + (map.get(queries[k] ?? 0) ?? 0)) >>> 0;
    return sum;
  });
  map.clear();
  const floor = new Float64Array(2 ** bits);
  for (let k = 0; k < mappings; k++) floor[scatter(k)] = Math.imul(k, 7) >>> 6;
  const inArray = time(() => {
    let sum = 0;
    for (let k = 0; k < queries.length; k++) sum = (sum + (floor[queries[k] ?? 0] ?? 0)) >>> 0;
    return sum;
  });
  figures[name] = {
    mappings: mapped,
    batchNs: round(batch.ns, 1),
    oneByOneNs: round(single.ns, 1),
    mapNs: round(inMap.ns, 1),
    float64ArrayNs: round(inArray.ns, 1),
    batchTimesMap: round(inMap.ns / batch.ns, 2),
    insertNs: round(putNs, 1),
    bytesPerBlock: round((core.heapUsedBytes() - (before[0] ?? 0)) / mapped),
    extentPerBlock: round((core.heapExtentBytes() - (before[1] ?? 0)) / mapped),
    sum: batch.sum,
    agree: [single, inMap, inArray].every((each) => each.sum === batch.sum),
  };
}

// --- bytes a block, leaves of several fills with five births, put in random order ---
for (const [name, fill] of [
  ['quarter', 128],
  ['half', 256],
  ['threeQuarters', 384],
  ['full', 512],
] as const) {
  const core = open();
  const leaves = toy ? 64 : 4096;
  const next = random(5);
  const blocks: number[] = [];
  for (let leaf = 0; leaf < leaves; leaf++) {
    const order = Uint32Array.from({ length: 512 }, (_, i) => i);
    for (let i = 0; i < fill; i++) {
      const j = i + next(512 - i);
      const swap = order[i] ?? 0;
      order[i] = order[j] ?? 0;
      order[j] = swap;
      blocks.push(leaf * 512 + (order[i] ?? 0));
    }
  }
  for (let i = blocks.length - 1; i > 0; i--) {
    const j = next(i + 1);
    const swap = blocks[i] ?? 0;
    blocks[i] = blocks[j] ?? 0;
    blocks[j] = swap;
  }
  const before = [core.heapUsedBytes(), core.heapExtentBytes()];
  put(
    core,
    blocks.length,
    (k) => blocks[k] ?? 0,
    (k) => k * 3,
    (k) => 1 + Math.floor((k * 5) / blocks.length),
  );
  figures[`bytes_${name}`] = {
    used: round((core.heapUsedBytes() - (before[0] ?? 0)) / blocks.length),
    extent: round((core.heapExtentBytes() - (before[1] ?? 0)) / blocks.length),
  };
  if (name === 'full') {
    // The history of the same leaves: a snapshot, then half of the blocks again, three times.
    const used = core.heapUsedBytes();
    const extent = core.heapExtentBytes();
    for (let epoch = 10; epoch < 13; epoch++) {
      core.pinAdd(0, epoch - 1);
      put(
        core,
        blocks.length / 2,
        () => next(leaves * 512),
        (k) => k,
        () => epoch,
      );
    }
    const entries = core.historyEntries(0);
    figures.bytes_history = {
      entries,
      used: round((core.heapUsedBytes() - used) / entries),
      extent: round((core.heapExtentBytes() - extent) / entries),
    };
  }
}
{
  const core = open();
  const blocks = (toy ? 64 : 4096) * 512;
  const before = [core.heapUsedBytes(), core.heapExtentBytes()];
  const ns = put(
    core,
    blocks,
    (k) => k,
    (k) => k + Math.floor(k / 127) + 1,
    () => 1,
  );
  figures.sequential = {
    putNs: round(ns, 1),
    used: round((core.heapUsedBytes() - (before[0] ?? 0)) / blocks, 4),
    extent: round((core.heapExtentBytes() - (before[1] ?? 0)) / blocks, 4),
  };
}

// --- 100 GiB of random mappings: replay and recount ---
{
  const core = open();
  const blocks = toy ? 2 ** 17 : 26_214_400;
  const next = random(9);
  put(
    core,
    blocks,
    (k) => k,
    (k) => Math.imul(k, 0x9e3779b1) >>> 5,
    () => 1,
  );
  const replay = toy ? 50_000 : 8_000_000;
  core.gateBegin(16);
  const recoveringNs = put(
    core,
    replay,
    () => next(blocks),
    (k) => k,
    () => 2,
    true,
  );
  core.gateEnd();
  const begin = performance.now();
  core.tableRecount();
  const recountMs = performance.now() - begin;
  const plainNs = put(
    core,
    replay / 2,
    () => next(blocks),
    (k) => k,
    () => 3,
  );
  const warmedNs = put(
    core,
    replay / 2,
    () => next(blocks),
    (k) => k,
    () => 3,
    true,
  );
  const hot = toy ? 4096 : 2 ** 15; // 64 leaves: in the cache
  const cachedNs = put(
    core,
    replay / 4,
    () => next(hot),
    (k) => k,
    () => 4,
  );
  figures.large = {
    mappings: core.mappedBlocks(0),
    replayPuts: replay,
    replayMs: round((recoveringNs * replay) / 1e6, 0),
    replayNsEach: round(recoveringNs, 1),
    recountMs: round(recountMs, 0),
    putNs: round(plainNs, 1),
    putWarmedNs: round(warmedNs, 1),
    putCachedNs: round(cachedNs, 1),
  };
  const images = (() => {
    ensure(core, 2 ** 20);
    const buffer = core.allocate(65536);
    let bytes = 0;
    const began = performance.now();
    for (let leaf = 0; leaf < blocks / 512; leaf++) bytes += core.leafImageWrite(0, leaf, buffer);
    const writeMs = performance.now() - began;
    core.spaceCreate(1, 2n, 0xffff, 0, 0);
    const length = core.leafImageWrite(0, 0, buffer);
    ensure(core, 2 ** 29);
    const reading = performance.now();
    for (let leaf = 0; leaf < blocks / 512; leaf++) if (!core.leafImageRead(1, leaf, buffer, length)) throw new Error('image refused');
    return { bytesPerBlock: round(bytes / blocks), writeMs: round(writeMs, 0), readMs: round(performance.now() - reading, 0) };
  })();
  figures.images = images;
  const trim = performance.now();
  core.tableTrim(0, 0n, 2n ** 40n, 5, 1n);
  figures.trimAllMs = round(performance.now() - trim, 1);
  const empty = performance.now();
  core.tableTrim(0, 2n ** 30n, 2n ** 40n - 2n ** 30n, 5, 1n);
  figures.trimNothingMs = round(performance.now() - empty, 3);
}
console.log(JSON.stringify(figures, null, 2));
