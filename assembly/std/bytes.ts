// Zeroes in the arena. A call where others write memory.fill: three bytes of code less at each place.

export function clear(at: usize, length: u32): void {
  memory.fill(at, 0, length);
}
