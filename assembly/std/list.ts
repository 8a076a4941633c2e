// Lists of words (pointers, mostly): an array in the arena, whose address, length and capacity are the owner's.

/** A capacity for one more than `capacity`: doubled, from 8 on. */
export function capacityAfter(capacity: u32): u32 {
  return capacity ? capacity * 2 : 8;
}

/** Takes `word` out of the first `length` of a list, the ones behind it move up; answers how many are left. */
export function listRemove(list: u32, length: u32, word: u32): u32 {
  for (let i: u32 = 0; i < length; i++, list += 4) {
    if (load<u32>(list) != word) continue;
    memory.copy(list, list + 4, (length - i - 1) << 2);
    return length - 1;
  }
  return length;
}
