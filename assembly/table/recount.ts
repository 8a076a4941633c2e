// Counts every live block anew, after replay: the counts are not stored. It walks the leaves' arrays directly (26,000,000
// mappings in a fraction of a second) in steps, so that a host can do other things between them; nothing may change the
// table meanwhile.
import { cursorLeaf, cursorShape, cursorSpace, leafCursorBegin, leafCursorNext, leafCursorSet } from './cursor';
import { liveClear } from './live';
import { leafCountLive } from './walk';

let began: bool = false;
let atSpace: u32 = 0;
let atLeaf: u32 = 0;

export function recountBegin(): void {
  liveClear();
  began = false;
}

/** Counts so many leaves more; false when all are counted. */
export function recountStep(leaves: u32): bool {
  if (began) leafCursorSet(atSpace, atLeaf);
  else leafCursorBegin();
  for (let left = leaves; left > 0; left--) {
    const leaf = leafCursorNext();
    if (!leaf) return false;
    leafCountLive(leaf | cursorShape, true, 0);
    began = true;
    atSpace = cursorSpace;
    atLeaf = cursorLeaf;
  }
  return true;
}

export function tableRecount(): void {
  recountBegin();
  recountStep(0xffffffff);
}
