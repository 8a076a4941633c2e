// Storage volumes of the table's tests: one with segments of a power of two, one without, ids far apart.
export const VOLUMES = [3, 700] as const;
export const SEGMENTS = [
  [64, 4096],
  [1000, 300],
] as const;
export const EPOCH_NOW = 0xffffffff;
export const NONE = 0xffff;
