// Test-only entry: the table and std with what their tests look at from inside. The production entry is assembly/index.ts.
import { directoryNext, slotFind } from '../table/directory';
import { HISTORY_BIRTH, HISTORY_BYTES, HISTORY_CAPACITY, HISTORY_DEATH, HISTORY_HEADER } from '../table/history';
import { ENTRY_BIRTH, ENTRY_BYTES, ENTRY_VOLUME, LEAF_CAPACITY, LEAF_COUNT, LEAF_HEADER, LEAF_HISTORY, LEAF_NEWEST_CHANGE, RUN_BYTES,
  SHAPE_EXTENTS, SHAPE_MASK, SHAPE_PACKED, VOLUME_ABSENT, leafBlocks, packedOverhead } from '../table/layout';
import { leafExpand, measure, measuredPresent, measuredRuns, scratchOther } from '../table/leaf';
import { SPACE_HISTORY, SPACE_LEAVES, SPACE_MAPPED, spaceNext, spacePointer } from '../table/space';
import { tableExpect, tableFind, tableWarm } from '../table/lookup';
import { tablePut } from '../table/update';
import { usableSize } from '../std/allocator';

export {
  allocate, allocateAligned, allocatorInitialize, allocatorVerify, available, free, heapExtentBytes, heapUsedBytes, resize, usableSize,
} from '../std/allocator';
export { xxh64 } from '../std/checksum';
export { count, counterGet } from '../std/counters';
export { plant } from '../std/plant';
export * from '../table/index';

/** Checks every rule of every leaf; 0, or 1000 × the number of the rule + its space. */
export function tableVerify(): u32 {
  for (let id = spaceNext(0); id != 0xffff; id = spaceNext(id + 1)) {
    const rule = verifySpace(spacePointer(id));
    if (rule) return rule * 1000 + id;
  }
  return 0;
}

function verifySpace(space: u32): u32 {
  let leaves: u32 = 0;
  let mapped: u32 = 0;
  let entries: u32 = 0;
  for (let index = directoryNext(space, 0); index != 0xffffffff; index = directoryNext(space, index + 1)) {
    leaves++;
    const word = load<u32>(slotFind(space, index));
    const shape = word & SHAPE_MASK;
    const leaf = word & ~SHAPE_MASK;
    const amount = <u32>load<u16>(leaf, LEAF_COUNT);
    const capacity = <u32>load<u16>(leaf, LEAF_CAPACITY);
    const usable = usableSize(leaf);
    if (shape < 1 || shape > 3) return 1;
    if (amount > capacity) return 2;
    const body = shape == SHAPE_EXTENTS ? capacity * RUN_BYTES : (shape == SHAPE_PACKED ? packedOverhead : 0) + capacity * ENTRY_BYTES;
    if (LEAF_HEADER + body > usable) return 3;
    leafExpand(word, scratchOther);
    measure(scratchOther);
    if (amount != (shape == SHAPE_EXTENTS ? measuredRuns : measuredPresent)) return 4;
    const newest = load<u32>(leaf, LEAF_NEWEST_CHANGE);
    for (let i: u32 = 0; i < leafBlocks; i++) {
      const at = scratchOther + i * ENTRY_BYTES;
      const volume = <u32>load<u16>(at, ENTRY_VOLUME);
      if (volume < VOLUME_ABSENT) mapped++;
      else if (load<u32>(at)) return 5;
      if (load<u32>(at, ENTRY_BIRTH) > newest) return 6;
      if (volume == VOLUME_ABSENT ? load<u32>(at, ENTRY_BIRTH) : !load<u32>(at, ENTRY_BIRTH)) return 7;
    }
    const history = load<u32>(leaf, LEAF_HISTORY);
    if (!history) continue;
    const n = load<u32>(history);
    entries += n;
    if (!n) return 8;
    if (n > load<u32>(history, HISTORY_CAPACITY) || HISTORY_HEADER + load<u32>(history, HISTORY_CAPACITY) * HISTORY_BYTES > usableSize(history)) return 9;
    for (let k: u32 = 0; k < n; k++) {
      const at = history + HISTORY_HEADER + k * HISTORY_BYTES;
      const i = <u32>load<u16>(at);
      const birth = load<u32>(at, HISTORY_BIRTH);
      const death = load<u32>(at, HISTORY_DEATH);
      if (i >= leafBlocks || birth >= death || death > newest) return 10;
      if (k) {
        const before = at - HISTORY_BYTES;
        const j = <u32>load<u16>(before);
        if (j > i || (j == i && load<u32>(before, HISTORY_DEATH) > birth)) return 11;
      }
      const current = scratchOther + i * ENTRY_BYTES;
      if (load<u16>(current, ENTRY_VOLUME) != VOLUME_ABSENT && load<u32>(current, ENTRY_BIRTH) < death) return 12;
    }
  }
  if (leaves != load<u32>(space, SPACE_LEAVES)) return 13;
  if (mapped != load<u32>(space, SPACE_MAPPED)) return 14;
  return entries == load<u32>(space, SPACE_HISTORY) ? 0 : 15;
}

/** For benches: `count` puts of { vblock f64, block u32, birth u32 } without a crossing for each. */
export function putMany(space: u32, volume: u32, records: u32, count: u32, sequence: f64): void {
  for (let k: u32 = 0; k < count; k++) {
    const at = records + k * 16;
    tablePut(space, <u64>load<f64>(at), volume, load<u32>(at, 8), load<u32>(at, 12), <u64>sequence + k);
  }
}

/** For benches: one block without a BigInt. */
export function findOne(space: u32, vblock: f64): u32 {
  return tableFind(space, <u64>vblock, 0xffffffff);
}

/** For benches: what a replay would do: a record of up to 127 entries is warmed, then applied. */
export function putRecords(space: u32, volume: u32, records: u32, count: u32, sequence: f64): void {
  for (let done: u32 = 0; done < count; done += 127) {
    const n = min<u32>(127, count - done);
    for (let k: u32 = 0; k < n; k++) tableExpect(space, <u64>load<f64>(records + (done + k) * 16));
    tableWarm();
    putMany(space, volume, records + done * 16, n, sequence + done);
  }
}
