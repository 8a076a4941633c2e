// What a segment's slots hold, read back from the device: from its footer, or, where it has none or a bad one, from the
// headers of its records. Both give the same array of slot entries (24 bytes each, as in the footer).
//
// Used by cold reads (for the checksums), by compaction and check (for everything). A sub-operation of a ticket, one
// segment at a time: scanPlan, perform, scanTake; scanTake may ask for a second round when the footer does not verify.

import { allocate, free, allocateZeroed, allocateBlocks } from '../std/allocator';
import { count } from '../std/counters';
import { READ } from '../abi/ticket';
import { BLOCK_BYTES, BLOCK_SHIFT } from '../format/constants';
import { FOOTER_FIXED_BYTES, F_USED, footerVerify } from '../format/footer';
import {
  ENTRY_BYTES, ENTRY_DATA, ENTRY_MOVED, ENTRY_TRIM, RECORD_FIXED_BYTES, RECORD_OPERATION, R_ENTRIES, R_KIND, entryBirth, entryBlock, entryKind,
  entrySpace, recordSlots, recordVerify,
} from '../format/record';
import {
  SEG_FILL, SEG_FLAGS, SEG_HAS_FOOTER, SEG_UNREAD, SEG_USED, V_DATA_SLOTS, V_FOOTER_BLOCKS, V_ID, V_SEGMENT_BLOCKS, CHECK_FOOTER, CHECK_HEADERS,
  blockOf, planChecked, segmentOf, sumsMake,
} from '../log/volumes';
import { slotHeaderWrite } from '../log/writer';
import { spacePointer, tableOwns } from '../table/index';
import { spaceForward } from './state';
import { C_FOOTERLESS_READ } from '../log/counting';

export const SCAN_FAILED: u32 = 0xffffffff;
const SCAN_HEADERS: u32 = 1;

/** Up to where the headers that scanTake() took last were sound. */
export let scanEnd: u32 = 0;

export function scanIsHeaders(scan: u32): bool { return (scan & SCAN_HEADERS) != 0; }
export function scanFree(scan: u32): void { free(scan & ~SCAN_HEADERS); }

/** Memory that scanning a segment takes. */
export function scanRoom(volume: u32): u32 {
  return load<u32>(volume, V_SEGMENT_BLOCKS) * (BLOCK_BYTES + ENTRY_BYTES) + 4 * BLOCK_BYTES;
}

/** Plans the read of the footer, or of the used slots; answers the aligned memory that it goes to, | 1 when it is the slots. */
export function scanPlan(ticket: u32, volume: u32, index: u32): u32 {
  let segment = segmentOf(volume, index);
  let footer = (load<u8>(segment, SEG_FLAGS) & <u8>(SEG_HAS_FOOTER | SEG_UNREAD)) == <u8>SEG_HAS_FOOTER;
  let first = footer ? load<u32>(volume, V_DATA_SLOTS) : 0;
  let blocks = footer ? load<u32>(volume, V_FOOTER_BLOCKS) : max(<u32>load<u16>(segment, SEG_USED), 1);
  let area = allocateBlocks(blocks);
  planChecked(ticket, READ, volume, blockOf(volume, index, first), area, blocks, footer ? CHECK_FOOTER : CHECK_HEADERS, segment + <u32>SEG_FILL);
  return footer ? area : area | SCAN_HEADERS;
}

/**
 * Takes what was read: answers an allocated array of `used` slot entries; slots of which nothing sound was found are
 * zero. Answers 0 when the footer did not verify: plan again, the headers are read then. SCAN_FAILED: the read failed.
 */
export function scanTake(volume: u32, index: u32, scan: u32, result: u32): u32 {
  let area = scan & ~SCAN_HEADERS; // what it was planned as: another ticket may have changed the flags since
  let segment = segmentOf(volume, index);
  let used = <u32>load<u16>(segment, SEG_USED);
  let id = load<u32>(volume, V_ID);
  let flags = load<u8>(segment, SEG_FLAGS);
  let fill = load<u64>(segment, SEG_FILL);
  if (result) {
    // A footer that cannot be read now is not lost: the headers serve this once. If they cannot be read either, it is the device.
    free(area);
    if (scan & SCAN_HEADERS) {
      store<u8>(segment, flags & ~(<u8>SEG_UNREAD), SEG_FLAGS);
      return SCAN_FAILED;
    }
    store<u8>(segment, flags | <u8>SEG_UNREAD, SEG_FLAGS);
    return 0;
  }
  if (!(scan & SCAN_HEADERS)) {
    let dataSlots = load<u32>(volume, V_DATA_SLOTS);
    let sound = footerVerify(area, load<u32>(volume, V_FOOTER_BLOCKS), id, blockOf(volume, index, dataSlots), dataSlots, fill) && <u32>load<u16>(area, F_USED) == used;
    if (!sound) {
      free(area);
      store<u8>(segment, flags & ~(<u8>SEG_HAS_FOOTER), SEG_FLAGS);
      return 0;
    }
    let entries = allocate(used * ENTRY_BYTES + 8);
    memory.copy(entries, area + FOOTER_FIXED_BYTES, used * ENTRY_BYTES);
    free(area);
    return entries;
  }
  count(C_FOOTERLESS_READ);
  store<u8>(segment, flags & ~(<u8>SEG_UNREAD), SEG_FLAGS);
  let entries = allocateZeroed(used * ENTRY_BYTES + 8);
  scanEnd = headersToEntries(area, volume, index, used, fill, entries);
  free(area);
  return entries;
}

/** Walks the records in [0, used) of a segment's image in memory; answers the slot where the walk ended. */
export function headersToEntries(area: u32, volume: u32, index: u32, used: u32, fill: u64, entries: u32): u32 {
  let id = load<u32>(volume, V_ID);
  let slot: u32 = 0;
  while (slot < used) {
    let header = area + (slot << BLOCK_SHIFT);
    if (!recordVerify(header, id, blockOf(volume, index, slot), slot, used - slot, fill)) break;
    recordToEntries(header, slot, entries);
    slot += recordSlots(header);
  }
  return slot;
}

/** Slot entries of one record: its header's, then its data blocks'. */
export function recordToEntries(header: u32, slot: u32, entries: u32): void {
  slotHeaderWrite(entries + slot * ENTRY_BYTES, header);
  if (load<u8>(header, R_KIND) == <u8>RECORD_OPERATION) return;
  let place = slot + 1;
  for (let i: u32 = 0; i < <u32>load<u16>(header, R_ENTRIES); i++) {
    let entry = header + RECORD_FIXED_BYTES + i * ENTRY_BYTES;
    if (entryKind(entry) == ENTRY_TRIM) continue;
    memory.copy(entries + place * ENTRY_BYTES, entry, ENTRY_BYTES);
    place++;
  }
}

/** Puts the checksums of slot entries into the cache. */
export function sumsInstall(segment: u32, entries: u32): void {
  let used = <u32>load<u16>(segment, SEG_USED);
  let sums = sumsMake(segment, used);
  for (let slot: u32 = 0; slot < used; slot++) store<u64>(sums + (slot << 3), load<u64>(entries + slot * ENTRY_BYTES, 16));
}

/** Whether a mapping refers to the slot, which its entry says whom it belongs to. */
export function slotLive(volume: u32, index: u32, entries: u32, slot: u32): bool {
  let entry = entries + slot * ENTRY_BYTES;
  let kind = entryKind(entry);
  if (kind != ENTRY_DATA && kind != ENTRY_MOVED) return false;
  let space = spaceForward(entrySpace(entry));
  return spacePointer(space) != 0 && tableOwns(space, entryBlock(entry), entryBirth(entry), load<u32>(volume, V_ID), blockOf(volume, index, slot));
}
