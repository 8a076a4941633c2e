// Getting blocks of a space at an epoch: the common part of reads, of read-modify-write and of copying.
//
//   1. Look the addresses up; pin the segments (so that they are not reused) and the buffers (so that they do not go).
//   2. Load the checksums of segments that are not in the cache.
//   3. Read runs of blocks into an aligned area, verify each against its checksum, seeded with its place.
//   4. A mismatch looks the address up again: if the block moved meanwhile all is read anew, else it is rebuilt from the other
//      members of the storage volume and written back; where that gives nothing it is damage.
//
// A request is an allocated record of `count` places of 24 bytes behind a head:
//   place: 0 u32 kind (0 absent, 1 hole, 2 on a device, 3 in a buffer)  4 u32 volume id  8 u32 block  12 u32 birth
//          16 u32 address of the content (kind 2, 3)  20 u32 buffer (kind 3)

import { bump } from '../std/bytes';
import { allocate, free, allocateBlocks } from '../std/allocator';
import { count as countPath } from '../std/counters';
import { xxh64 } from '../std/checksum';
import { PLANT_HEAL_REUSED, PLANT_HEAL_UNVERIFIED, planted, strict } from '../std/plant';
import { DONE, ERROR_CORRUPT, ERROR_IO, FAILED, PLAN, failAt, MEMORY, lacks } from '../abi/status';
import { READ, T_RESCUE, T_RESULT, planClear, planResult } from '../abi/ticket';
import { BLOCK_BYTES, BLOCK_SHIFT } from '../format/constants';
import { blockSeed } from '../format/key';
import { KIND_MAPPED, foundBirth, foundBlock, foundVolume, tableResolve, tableResolveRange } from '../table/index';
import {
  SEG_BUFFER, SEG_FILL, V_SEGMENT_BLOCKS, V_SEGMENT_COUNT, planBlocks, segmentOf, sumsOf, volumeById, SEG_USED, failAtSlot, segmentPin,
} from '../log/volumes';
import { B_ENTRIES, B_FILL, B_LOADED, B_PINS, slotAddress } from '../log/writer';
import { ENTRY_BYTES, entrySum } from '../format/record';
import { C_CORRUPT_FOUND, C_READ_RETRIED } from '../log/counting';
import { bufferRelease } from './flush';
import { rescueRun } from './striped';
import { SCAN_FAILED, scanFree, scanPlan, scanRoom, scanTake, sumsInstall } from './sums';

export const GATHER_BLOCKS_MAX: u32 = 256;
/**
 * A command may read across single blocks that nobody asked for: the header between the blocks of two records. So a MiB is one call where it was three, and
 * a call costs Firefox 50 to 350 µs (2026-11: reads of a MiB are 1.4 times as fast there). One for each 64 blocks; strict histories of the simulator are too
 * small for that.
 */
function gapsOf(count: u32): u32 { return count >> (PLANTS && strict ? 1 : 6); }
const SCAN_BATCH: u32 = 16;

const Q_SPACE: usize = 0;
const Q_EPOCH: usize = 4;
const Q_BLOCK: usize = 8; // u64
const Q_COUNT: usize = 16;
const Q_STATE: usize = 20;
const Q_AREA: usize = 24;
const Q_SCANS: usize = 28; // number of segments being scanned; after that, whether a command reads across a gap
const Q_RETRIES: usize = 32;
const Q_SOUND: usize = 36; // places before this one are verified
const Q_SCAN_LIST: usize = 40; // 16 × {u32 volume, u32 segment, u32 area}
const Q_HEAD: u32 = 240; // 40 + 16 * 12, rounded

export const PLACE_BYTES: u32 = 24;
export const KIND_BUFFER: u32 = 3;

export function gatherPlace(request: u32, index: u32): u32 {
  return request + Q_HEAD + index * PLACE_BYTES;
}

/** A request for up to GATHER_BLOCKS_MAX blocks, which is small: gatherRun asks for what is to be read into. */
export function gatherOpen(space: u32, epoch: u32, block: u64, count: u32): u32 {
  let request = allocate(Q_HEAD + count * PLACE_BYTES);
  store<u32>(request, space, Q_SPACE);
  store<u32>(request, epoch, Q_EPOCH);
  store<u64>(request, block, Q_BLOCK);
  store<u32>(request, count, Q_COUNT);
  store<u32>(request, 0, Q_STATE);
  store<u32>(request, 0, Q_AREA);
  store<u32>(request, 0, Q_RETRIES);
  return request;
}

/** Unpins and frees. */
export function gatherClose(request: u32): void {
  unpin(request);
  free(request);
}

/**
 * The area of the last request for one block, kept for the next: to cut out an aligned block and give it back is a tenth of what a cached 4 KiB read costs
 * in here (bench/random-reads.ts, 2026-11). 0: there is none.
 */
let spareArea: u32 = 0;

function unpin(request: u32): void {
  let state = load<u32>(request, Q_STATE);
  if (state == 0) return;
  for (let i: u32 = 0; i < load<u32>(request, Q_COUNT); i++) {
    let place = gatherPlace(request, i);
    let kind = load<u32>(place);
    if (kind == KIND_MAPPED) {
      let segment = segmentAt(place);
      segmentPin(segment, -1);
    } else if (kind == KIND_BUFFER) {
      let buffer = load<u32>(place, 20);
      bump(buffer, B_PINS, -1);
      bufferRelease(buffer);
    }
  }
  let area = load<u32>(request, Q_AREA);
  if (area && load<u32>(request, Q_COUNT) == 1 && !spareArea) spareArea = area;
  else free(area);
  store<u32>(request, 0, Q_AREA);
  store<u32>(request, 0, Q_STATE);
}

function segmentAt(place: u32): u32 {
  let volume = volumeById(load<u32>(place, 4));
  return segmentOf(volume, load<u32>(place, 8) / load<u32>(volume, V_SEGMENT_BLOCKS));
}

function lookUp(request: u32): u32 {
  let count = load<u32>(request, Q_COUNT);
  let places = request + Q_HEAD;
  let devices: u32 = 0;
  if (count == 1) {
    let kind = tableResolve(load<u32>(request, Q_SPACE), load<u64>(request, Q_BLOCK), load<u32>(request, Q_EPOCH));
    store<u32>(places, kind);
    store<u32>(places, foundVolume, 4);
    store<u32>(places, foundBlock, 8);
    store<u32>(places, foundBirth, 12);
  } else {
    let list = allocate(count * 16);
    tableResolveRange(load<u32>(request, Q_SPACE), load<u32>(request, Q_EPOCH), load<u64>(request, Q_BLOCK), count, list);
    for (let i: u32 = 0; i < count; i++) memory.copy(places + i * PLACE_BYTES, list + i * 16, 16);
    free(list);
  }
  for (let i: u32 = 0; i < count; i++) {
    let place = places + i * PLACE_BYTES;
    store<u64>(place, 0, 16);
    if (load<u32>(place) != KIND_MAPPED) continue;
    let block = load<u32>(place, 8);
    let volume = volumeById(load<u32>(place, 4));
    let segment: u32 = 0;
    let buffer: u32 = 0;
    let slot: u32 = 0;
    if (volume) {
      let segmentBlocks = load<u32>(volume, V_SEGMENT_BLOCKS);
      let index = block / segmentBlocks;
      slot = block - index * segmentBlocks;
      if (index < load<u32>(volume, V_SEGMENT_COUNT)) {
        segment = segmentOf(volume, index);
        buffer = load<u32>(segment, SEG_BUFFER);
      }
    }
    if (!segment || (buffer && slot >= load<u32>(buffer, B_FILL))) {
      // a mapping that leads nowhere, or to what is not written yet: images are checked, so this is damage that a checksum did not show
      for (let undo: u32 = i; undo < count; undo++) store<u32>(places + undo * PLACE_BYTES, 0);
      store<u32>(request, 1, Q_STATE);
      unpin(request);
      failAt(ERROR_CORRUPT, load<u32>(place, 4), block);
      return 0xffffffff;
    }
    if (buffer && slot >= load<u32>(buffer, B_LOADED)) {
      store<u32>(place, KIND_BUFFER);
      store<u32>(place, slotAddress(buffer, slot), 16);
      store<u32>(place, buffer, 20);
      bump(buffer, B_PINS, 1);
    } else {
      segmentPin(segment, 1);
      devices++;
    }
  }
  return devices;
}

/** Runs a request until its places have their contents. */
export function gatherRun(ticket: u32, request: u32): u32 {
  while (true) {
    let state = load<u32>(request, Q_STATE);
    let count = load<u32>(request, Q_COUNT);
    switch (state) {
    case 0: {
      let devices = lookUp(request);
      if (devices == 0xffffffff) return 4; // FAILED
      store<u32>(request, devices ? 1 : 4, Q_STATE);
      continue;
    }
    case 1: {
      // Checksums that are missing, a batch of segments at a time.
      planClear(ticket);
      let scans: u32 = 0;
      let room = (count + gapsOf(count)) << BLOCK_SHIFT;
      for (let i: u32 = 0; i < count && scans < SCAN_BATCH; i++) {
        let place = gatherPlace(request, i);
        if (load<u32>(place) != KIND_MAPPED) continue;
        let volume = volumeById(load<u32>(place, 4));
        let index = load<u32>(place, 8) / load<u32>(volume, V_SEGMENT_BLOCKS);
        if (sumsOf(segmentOf(volume, index)) || load<u32>(segmentOf(volume, index), SEG_BUFFER)) continue;
        let listed = false;
        for (let k: u32 = 0; k < scans; k++) {
          if (load<u32>(request + k * 12, Q_SCAN_LIST) == volume && load<u32>(request + k * 12, Q_SCAN_LIST + 4) == index) { listed = true; break; }
        }
        if (listed) continue;
        store<u32>(request + scans * 12, volume, Q_SCAN_LIST);
        store<u32>(request + scans * 12, index, Q_SCAN_LIST + 4);
        scans++;
        room += scanRoom(volume);
      }
      if (lacks(room)) return MEMORY;
      if (scans) {
        for (let k: u32 = 0; k < scans; k++) {
          let item = request + k * 12 + <u32>Q_SCAN_LIST;
          store<u32>(item, scanPlan(ticket, load<u32>(item), load<u32>(item, 4)), 8);
        }
        store<u32>(request, scans, Q_SCANS);
        store<u32>(request, 2, Q_STATE);
        return PLAN;
      }
      // All sums are here: read the blocks.
      let area: u32;
      if (count == 1 && spareArea) {
        area = spareArea;
        spareArea = 0;
      } else area = allocateBlocks(count + gapsOf(count));
      store<u32>(request, area, Q_AREA);
      if (RAID) store<u32>(request, 0, Q_SOUND);
      // Neighbours are one command. What a gap cannot be read for is read again without.
      let gaps = load<u32>(request, Q_RETRIES) ? 0 : gapsOf(count);
      let runVolume: u32 = 0;
      let runBlock: u32 = 0;
      let runAddress = area;
      let runLength: u32 = 0;
      let across: u32 = 0;
      for (let i: u32 = 0; i < count; i++) {
        let place = gatherPlace(request, i);
        if (load<u32>(place) == KIND_MAPPED) {
          let volume = volumeById(load<u32>(place, 4));
          let block = load<u32>(place, 8);
          let gap = block - runBlock - runLength;
          if (runVolume == volume && gap <= <u32>(gaps != 0) && block % load<u32>(volume, V_SEGMENT_BLOCKS) > gap) {
            gaps -= gap;
            across |= gap;
            runLength += gap;
          } else {
            if (runVolume) planBlocks(ticket, READ, runVolume, runBlock, runAddress, runLength);
            runAddress += runLength << BLOCK_SHIFT;
            runVolume = volume;
            runBlock = block;
            runLength = 0;
          }
          store<u32>(place, runAddress + (runLength++ << BLOCK_SHIFT), 16);
        }
      }
      planBlocks(ticket, READ, runVolume, runBlock, runAddress, runLength); // there is one, or there had been nothing to read
      store<u32>(request, across, Q_SCANS);
      store<u32>(request, 3, Q_STATE);
      return PLAN;
    }
    case 2: {
      let scans = load<u32>(request, Q_SCANS);
      let failed: u32 = 0;
      for (let k: u32 = 0; k < scans; k++) {
        let item = request + k * 12 + <u32>Q_SCAN_LIST;
        let volume = load<u32>(item);
        let index = load<u32>(item, 4);
        let segment = segmentOf(volume, index);
        if (sumsOf(segment)) { scanFree(load<u32>(item, 8)); continue; } // another ticket was faster
        let entries = scanTake(volume, index, load<u32>(item, 8), planResult(ticket, k));
        if (entries == SCAN_FAILED) failed = item;
        if (!entries || entries == SCAN_FAILED) continue;
        sumsInstall(segment, entries);
        free(entries);
      }
      if (failed) return failAtSlot(ERROR_IO, load<u32>(failed), load<u32>(failed, 4), 0);
      store<u32>(request, 1, Q_STATE);
      continue;
    }
    case 3: {
      let bad = verify(ticket, request);
      if (bad == 0xffffffff) { store<u32>(request, 4, Q_STATE); continue; }
      let place = gatherPlace(request, bad);
      let volume = load<u32>(place, 4);
      let block = load<u32>(place, 8);
      let kind = tableResolve(load<u32>(request, Q_SPACE), load<u64>(request, Q_BLOCK) + <u64>bad, load<u32>(request, Q_EPOCH));
      let gapFailed = load<u32>(request, Q_SCANS) && load<u32>(ticket, T_RESULT); // it may be what nobody asked for that cannot be read
      if ((gapFailed || sumsGone || kind != KIND_MAPPED || foundVolume != volume || foundBlock != block) && load<u32>(request, Q_RETRIES) < 8) {
        countPath(C_READ_RETRIED);
        bump(request, Q_RETRIES, 1);
        unpin(request);
        continue;
      }
      if (load<u32>(ticket, T_RESULT)) return failAt(ERROR_IO, volume, block);
      if (!RAID) {
        countPath(C_CORRUPT_FOUND);
        return failAt(ERROR_CORRUPT, volume, block);
      }
      store<u32>(request, bad, Q_SOUND);
      if (sumsGone || !expect(request, bad)) return failAt(ERROR_CORRUPT, volume, block);
      store<u32>(request, 5, Q_STATE);
      continue;
    }
    case 5: {
      if (!RAID) return FAILED; // not reached
      let bad = load<u32>(request, Q_SOUND);
      let place = gatherPlace(request, bad);
      let volume = volumeById(load<u32>(place, 4));
      let block = load<u32>(place, 8);
      let held = segmentAt(place);
      if (PLANTS && planted == PLANT_HEAL_REUSED && !load<u32>(ticket, T_RESCUE)) segmentPin(held, -1);
      let status = expect(request, bad) ? rescueRun(ticket, volume, block, load<u32>(place, 16), expectedSeed, expectedSum) : FAILED;
      if (status != DONE && status != FAILED) return status;
      if (PLANTS && planted == PLANT_HEAL_REUSED) segmentPin(held, 1);
      if (status == FAILED) {
        countPath(C_CORRUPT_FOUND);
        return failAt(ERROR_CORRUPT, load<u32>(place, 4), block);
      }
      if (PLANTS && planted == PLANT_HEAL_UNVERIFIED) bump(request, Q_SOUND, 1);
      store<u32>(request, 3, Q_STATE);
      continue;
    }
    default:
      return DONE;
    }
  }
}

/** The checksums went with their buffer while the blocks were read: they are loaded, and the blocks read, again. */
let sumsGone: bool = false;

/** Index of the first place whose content is not what its checksum says, or 0xFFFFFFFF. */
function verify(ticket: u32, request: u32): u32 {
  let failed = load<u32>(ticket, T_RESULT) != 0;
  sumsGone = false;
  for (let i: u32 = RAID ? load<u32>(request, Q_SOUND) : 0; i < load<u32>(request, Q_COUNT); i++) {
    let place = gatherPlace(request, i);
    if (load<u32>(place) != KIND_MAPPED) continue;
    if (failed || !expect(request, i)) return i; // when one of the reads failed the whole request did
    if (xxh64(load<u32>(place, 16), BLOCK_BYTES, expectedSeed) != expectedSum) return i;
  }
  return 0xffffffff;
}

let expectedSeed: u64 = 0;
let expectedSum: u64 = 0;
/** What the checksum of a place is, and its seed. False: nothing is known of it. */
function expect(request: u32, index: u32): bool {
  let place = gatherPlace(request, index);
  let volume = volumeById(load<u32>(place, 4));
  let segmentBlocks = load<u32>(volume, V_SEGMENT_BLOCKS);
  let block = load<u32>(place, 8);
  let slot = block % segmentBlocks;
  let segment = segmentOf(volume, block / segmentBlocks);
  let sums = sumsOf(segment);
  let buffer = load<u32>(segment, SEG_BUFFER);
  sumsGone = !sums && !buffer;
  if (sumsGone || slot >= <u32>load<u16>(segment, SEG_USED)) return false;
  expectedSum = sums ? load<u64>(sums + (slot << 3)) : entrySum(load<u32>(buffer, B_ENTRIES) + slot * ENTRY_BYTES);
  expectedSeed = blockSeed(load<u64>(segment, SEG_FILL), slot, load<u64>(request, Q_BLOCK) + <u64>index, load<u32>(place, 12));
  return true;
}

/** Whether place 0 still is what the table says: nobody wrote the block since it was gathered. */
export function gatherCurrent(request: u32): bool {
  let place = gatherPlace(request, 0);
  let kind = tableResolve(load<u32>(request, Q_SPACE), load<u64>(request, Q_BLOCK), load<u32>(request, Q_EPOCH));
  if (kind != KIND_MAPPED) return load<u32>(place) == kind;
  if (load<u32>(place) != KIND_MAPPED && load<u32>(place) != KIND_BUFFER) return false;
  return load<u32>(place, 4) == foundVolume && load<u32>(place, 8) == foundBlock && load<u32>(place, 12) == foundBirth;
}
