// The recovery gate. A leaf image knows the log sequence up to which it has everything (its applied sequence); images of
// one checkpoint were made at different moments, so replay starts at the oldest and passes over a leaf while the log is
// still behind what that leaf's image has.
//
// The applied sequences live in an array that exists only during recovery; a leaf's `applied` word is 1 + its index there,
// 0 for a leaf without an image (applied = 0: everything is replayed into it). Outside recovery the word means nothing.
// An instance recovers once.
import { allocate, free, resize } from '../std/allocator';
import { COUNT_GATE_SKIP, count } from '../std/counters';
import { PLANT_REPLAY_IGNORES_APPLIED, planted } from '../std/plant';
import { LEAF_APPLIED } from './layout';

export let recovering: bool = false;

let sequences: u32 = 0;
let gateCapacity: u32 = 0;
let gateCount: u32 = 0;
let most: u64 = 0; // the highest applied sequence: behind it no leaf has anything already

/** Recovery begins; room for `capacity` leaf images (8 bytes each), more are added as they come. */
export function gateBegin(capacity: u32): void {
  recovering = true;
  gateCapacity = capacity < 16 ? 16 : capacity;
  gateCount = 0;
  if (RAID) most = 0;
  sequences = allocate(gateCapacity * 8);
}

export function gateSet(leaf: u32, appliedSequence: u64): void {
  assert(recovering);
  let index = load<u32>(leaf, LEAF_APPLIED);
  if (!index) {
    if (gateCount == gateCapacity) {
      gateCapacity += gateCapacity >> 1;
      sequences = resize(sequences, gateCapacity * 8);
    }
    index = ++gateCount;
    store<u32>(leaf, index, LEAF_APPLIED);
  }
  store<u64>(sequences + (index - 1) * 8, appliedSequence);
  if (RAID && appliedSequence > most) most = appliedSequence;
}

export function gateEnd(): void {
  recovering = false;
  free(sequences);
  sequences = 0;
}

/** Whether the leaf's image has the change with this sequence already. Asked only while recovering. */
export function gateHas(leaf: u32, sequence: u64): bool {
  if (RAID && sequence > most) return false;
  const index = load<u32>(leaf, LEAF_APPLIED);
  if (!index || load<u64>(sequences + (index - 1) * 8) < sequence) return false;
  if (PLANTS && planted == PLANT_REPLAY_IGNORES_APPLIED) return false;
  count(COUNT_GATE_SKIP);
  return true;
}
