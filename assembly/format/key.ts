// The log's identity and secret, and the seeds of its checksums. Every checksum is XXH64 with a seed that says where and
// in which life the bytes belong, so that bytes of another place, another fill or another log do not verify:
//
//   block    XXH64(log uuid ‖ fillSequence ‖ virtual block ‖ slot ‖ birth)      40 bytes, known to anyone who reads the pool
//   header   XXH64(log key ‖ fillSequence ‖ incarnation ‖ volume ‖ block)       40 bytes, needs the secret key: a guest cannot forge it
//   page     XXH64(log key ‖ log uuid)                                          32 bytes; pages are named by pointers that hold their checksum

import { xxh64 } from '../std/checksum';
import { PLANT_SKIP_FILL_CHECK, planted } from '../std/plant';

/** 16 bytes of uuid, then 16 bytes of key. */
export const logIdentity: usize = memory.data(32);
const seedBytes: usize = memory.data(40);
export let pageSeed: u64 = 0;

export function identitySet(uuid: usize, key: usize): void {
  memory.copy(logIdentity, uuid, 16);
  memory.copy(logIdentity + 16, key, 16);
  memory.copy(seedBytes, logIdentity + 16, 16);
  memory.copy(seedBytes + 16, logIdentity, 16);
  pageSeed = xxh64(seedBytes as u32, 32, 0);
}

// Both seeds: 16 bytes of the identity, the fill, and what says the place.
function seed(identity: usize, fillSequence: u64, which: u64, first: u32, second: u32): u64 {
  if (PLANTS && planted == PLANT_SKIP_FILL_CHECK) fillSequence = 0;
  memory.copy(seedBytes, identity, 16);
  store<u64>(seedBytes, fillSequence, 16);
  store<u64>(seedBytes, which, 24);
  store<u32>(seedBytes, first, 32);
  store<u32>(seedBytes, second, 36);
  return xxh64(seedBytes as u32, 40, 0);
}

export function blockSeed(fillSequence: u64, slot: u32, virtualBlock: u64, birth: u32): u64 {
  return seed(logIdentity, fillSequence, virtualBlock, slot, birth);
}

export function headerSeed(fillSequence: u64, incarnation: u64, volume: u32, block: u32): u64 {
  return seed(logIdentity + 16, fillSequence, incarnation, volume, block);
}

/** Checksum of a structure that holds it in a u64 at `field`: computed with that field zero. */
export function sealedChecksum(pointer: u32, length: u32, field: u32, seed: u64): u64 {
  let kept = load<u64>(pointer + field);
  store<u64>(pointer + field, 0);
  let sum = xxh64(pointer, length, seed);
  store<u64>(pointer + field, kept);
  return sum;
}
