// Runs of bytes.

/** A call where others write memory.fill: three bytes of code less at each place. */
export function clear(at: usize, length: u32): void {
  memory.fill(at, 0, length);
}

export function bytesEqual(a: u32, b: u32, length: u32): bool {
  for (let i: u32 = 0; i < length; i++) if (load<u8>(a + i) != load<u8>(b + i)) return false;
  return true;
}

/** Adds to a u32 in a record. */
export function bump(record: u32, field: usize, by: i32): void {
  store<u32>(record + <u32>field, load<u32>(record + <u32>field) + by);
}
