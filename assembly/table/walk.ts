// All mappings of one leaf, current and history: what counting them anew and letting them die share.
import { HISTORY_BLOCK, HISTORY_BYTES, HISTORY_HEADER, HISTORY_VOLUME } from './history';
import { ENTRY_BYTES, ENTRY_VOLUME, LEAF_COUNT, LEAF_HEADER, LEAF_HISTORY, RUN_BLOCK, RUN_BYTES, RUN_VOLUME, SHAPE_DENSE, SHAPE_EXTENTS, SHAPE_MASK,
  VOLUME_ABSENT, leafBlocks, packedOverhead } from './layout';
import { liveAdd, liveAddEntries, liveRemove } from './live';

function visit(volume: u32, block: u32, add: bool, sequence: u64): void {
  if (volume >= VOLUME_ABSENT) return;
  if (add) liveAdd(volume, block);
  else liveRemove(volume, block, sequence);
}

/** Counts each mapping of the leaf as live (`add`), or as dead at `sequence`. */
export function leafCountLive(word: u32, add: bool, sequence: u64): void {
  const leaf = word & ~SHAPE_MASK;
  const shape = word & SHAPE_MASK;
  const amount = <u32>load<u16>(leaf, LEAF_COUNT);
  let at = leaf + LEAF_HEADER;
  if (shape == SHAPE_EXTENTS) {
    const end = at + amount * RUN_BYTES;
    for (; at < end; at += RUN_BYTES) {
      const next: u32 = at + RUN_BYTES < end ? <u32>load<u16>(at, RUN_BYTES) : leafBlocks;
      const volume = <u32>load<u16>(at, RUN_VOLUME);
      const block = load<u32>(at, RUN_BLOCK);
      const length = next - <u32>load<u16>(at);
      for (let k: u32 = 0; k < length; k++) visit(volume, block + k, add, sequence);
    }
  } else {
    if (shape != SHAPE_DENSE) at += packedOverhead;
    const end = at + (shape == SHAPE_DENSE ? leafBlocks : amount) * ENTRY_BYTES;
    if (RAID && add) liveAddEntries(at, end);
    else for (; at < end; at += ENTRY_BYTES) visit(load<u16>(at, ENTRY_VOLUME), load<u32>(at), add, sequence);
  }
  const history = load<u32>(leaf, LEAF_HISTORY);
  if (!history) return;
  at = history + HISTORY_HEADER;
  const end = at + load<u32>(history) * HISTORY_BYTES;
  for (; at < end; at += HISTORY_BYTES) visit(load<u16>(at, HISTORY_VOLUME), load<u32>(at, HISTORY_BLOCK), add, sequence);
}
