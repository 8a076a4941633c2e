// Planted faults: bugs on purpose, in the planted builds only (PLANTS = 1), so that the tests can show that they would
// catch them. Each site reads `if (PLANTS && planted == PLANT_X)`. Ids are given out in ranges: 1…31 the lookup table,
// 32…63 log and volume, 64… stripe and pool.
export const PLANT_NONE: u32 = 0;
export const PLANT_FREE_SNAPSHOT_BLOCK: u32 = 1; // a block that only a snapshot still sees is freed, not kept in the history
export const PLANT_TRIM_DROPS_HOLE: u32 = 2; // trim forgets the hole, so the parent's data shines through
export const PLANT_MOVE_UNCONDITIONAL: u32 = 3; // a move takes effect although the mapping changed meanwhile
export const PLANT_REPLAY_IGNORES_APPLIED: u32 = 4; // replay applies again what a leaf image already has
export const PLANT_LIVE_OFF_BY_ONE: u32 = 5; // one in 64 deaths is not counted

export const PLANT_SKIP_FILL_CHECK: u32 = 32; // seeds leave the fill sequence out: blocks of an earlier fill verify
export const PLANT_BAD_RECORD_ENDS_LOG: u32 = 33; // a bad record below durableSequence is taken as the end of the log
export const PLANT_NO_FLUSH_AT_OPEN: u32 = 34; // opening does not flush the members before the first append
export const PLANT_FLUSH_RETRIED: u32 = 35; // a failed flush is asked again in place and acknowledged
export const PLANT_REUSE_BEFORE_FLUSH: u32 = 36; // a segment is reused while the moves out of it are not flushed
export const PLANT_UNASSIGN_EARLY: u32 = 37; // a volume is given back while the other root slot still refers to it
export const PLANT_STALE_INCARNATION: u32 = 38; // records of an earlier life are replayed

export const PLANT_NO_PARITY: u32 = 64; // P and Q are not written
export const PLANT_WRONG_ROTATION: u32 = 65; // a lost strip is taken for the one beside it in every other stripe
export const PLANT_HEAL_UNVERIFIED: u32 = 66; // what is rebuilt is written back without a look at its checksum
export const PLANT_STALE_TRUSTED: u32 = 67; // a member that was away is read as if it had been there
export const PLANT_REBUILD_SKIPS: u32 = 68; // a rebuild leaves one segment out
export const PLANT_HEAL_REUSED: u32 = 69; // blocks are healed in segments that nothing holds, so that they may be others' by then

/**
 * No fault, and beside any: as the release is. Without it bounds are tight: all that a step takes comes from what it asked for, and too little traps
 * (std/allocator.ts); a root lists few segments (log/writer.ts).
 */
export const LOOSE: u32 = 256;

export let planted: u32 = PLANT_NONE;
export let strict: bool = true;

export function plant(id: u32): void {
  planted = id & 0xff;
  strict = (id & LOOSE) == 0;
}
