// The frame around a catalogue: it says which pool, which generation and which history the JSON in it belongs to, and that
// it is whole. A frame fills one catalogue slot from its start and is padded with zeroes to 4096 bytes; the checksum covers
// the padding too, so a flipped bit anywhere in it is found.
//
//     0   8  magic "VARVECAT"
//     8   2  version, major          10   2  version, minor
//    12   4  payload, bytes
//    16   8  checksum: XXH64 of header, payload and padding, this field taken as 0
//    24   8  generation: counts commits, never 0
//    32  16  nonce: random, new with each commit
//    48  16  previous nonce: of the catalogue that this one replaced; zero in the first
//    64  16  pool uuid
//    80  48  reserved, zero
//   128   …  payload: the catalogue as UTF-8 JSON, then zeroes to a multiple of 4096

import { allocateAligned, available } from '../std/allocator';
import { sealedChecksum } from './key';
import { FORMAT_BOUNDS, FORMAT_CHECKSUM, FORMAT_FIELDS, FORMAT_MAGIC, FORMAT_OK, FORMAT_VERSION } from './result';
import { clear } from '../std/bytes';

export const FRAME_MAGIC: u64 = (<u64>0x54414345 << 32) | 0x56524156; // "VARVECAT"
export const FRAME_VERSION_MAJOR: u32 = 1;
export const FRAME_VERSION_MINOR: u32 = 0;
export const FRAME_HEADER_BYTES: u32 = 128;

const OFFSET_MAGIC: usize = 0;
const OFFSET_MAJOR: usize = 8;
const OFFSET_MINOR: usize = 10;
const OFFSET_LENGTH: usize = 12;
const OFFSET_CHECKSUM: usize = 16;
const OFFSET_GENERATION: usize = 24;
const OFFSET_NONCE: usize = 32;
const OFFSET_PREVIOUS: usize = 48;
const OFFSET_POOL: usize = 64;
const OFFSET_RESERVED: usize = 80;

/** A frame as the host sees it: three uuids and then f64 numbers. */
export const FRAME_FIELDS_BYTES: u32 = 80;
const FIELD_POOL: usize = 0;
const FIELD_NONCE: usize = 16;
const FIELD_PREVIOUS: usize = 32;
const FIELD_GENERATION: usize = 48;
const FIELD_LENGTH: usize = 56;
const FIELD_MAJOR: usize = 64;
const FIELD_MINOR: usize = 72;

const EXACT_MAX: u64 = 0x1fffffffffffff;
/** The largest catalogue slot is 1 MiB; the fields travel in front of it in the same buffer. */
const BUFFER_BYTES_MAX: u32 = (1 << 20) + 8192;

let buffer: u32 = 0;
let bufferBytes: u32 = 0;

/**
 * A place in memory, aligned to 4096, in which labels and frames are coded; it stays the instance's, and the next call may give another one.
 * 0 when the memory must grow first: by `bytes` and a little, then ask again.
 */
export function frameBuffer(bytes: u32): u32 {
  assert(bytes <= BUFFER_BYTES_MAX);
  if (bytes <= bufferBytes) return buffer;
  if (available() < bytes + 3 * 4096) return 0;
  buffer = allocateAligned(bytes, 4096);
  bufferBytes = bytes;
  return buffer;
}

function paddedBytes(payloadBytes: u32): u32 {
  return (FRAME_HEADER_BYTES + payloadBytes + 4095) & ~4095;
}

function frameChecksum(frame: usize, bytes: u32): u64 {
  return sealedChecksum(<u32>frame, bytes, <u32>OFFSET_CHECKSUM, 0);
}

/** Completes the frame at `into`, whose payload is in place behind the header. Returns its bytes on the device, padding included. */
export function frameEncode(fields: u32, into: u32): u32 {
  const f = <usize>fields;
  const frame = <usize>into;
  const length = <u32>load<f64>(f + FIELD_LENGTH);
  const bytes = paddedBytes(length);
  clear(frame, FRAME_HEADER_BYTES);
  clear(frame + FRAME_HEADER_BYTES + length, bytes - FRAME_HEADER_BYTES - length);
  store<u64>(frame + OFFSET_MAGIC, FRAME_MAGIC);
  store<u16>(frame + OFFSET_MAJOR, <u16>FRAME_VERSION_MAJOR);
  store<u16>(frame + OFFSET_MINOR, <u16>FRAME_VERSION_MINOR);
  store<u32>(frame + OFFSET_LENGTH, length);
  store<u64>(frame + OFFSET_GENERATION, <u64>load<f64>(f + FIELD_GENERATION));
  memory.copy(frame + OFFSET_NONCE, f + FIELD_NONCE, 32); // and the previous one
  memory.copy(frame + OFFSET_POOL, f + FIELD_POOL, 16);
  store<u64>(frame + OFFSET_CHECKSUM, frameChecksum(frame, bytes));
  return bytes;
}

/** Bytes that the frame whose first 4096 bytes are at `from` claims to have, or 0 when there is no frame or it could not be in a slot of `capacity` bytes. */
export function frameSize(from: u32, capacity: u32): u32 {
  if (load<u64>(<usize>from + OFFSET_MAGIC) != FRAME_MAGIC) return 0;
  const length = load<u32>(<usize>from + OFFSET_LENGTH);
  if (length > capacity - FRAME_HEADER_BYTES) return 0;
  const bytes = paddedBytes(length);
  return bytes > capacity ? 0 : bytes;
}

/** Reads the frame at the start of `capacity` bytes that nobody vouches for. The payload stays where it is, behind the header. */
export function frameDecode(from: u32, capacity: u32, fields: u32): u32 {
  const frame = <usize>from;
  if (capacity < FRAME_HEADER_BYTES) return FORMAT_BOUNDS;
  if (load<u64>(frame + OFFSET_MAGIC) != FRAME_MAGIC) return FORMAT_MAGIC;
  const length = load<u32>(frame + OFFSET_LENGTH);
  if (length > capacity - FRAME_HEADER_BYTES) return FORMAT_BOUNDS;
  const bytes = paddedBytes(length);
  if (bytes > capacity) return FORMAT_BOUNDS;
  if (load<u64>(frame + OFFSET_CHECKSUM) != frameChecksum(frame, bytes)) return FORMAT_CHECKSUM;

  const f = <usize>fields;
  clear(f, FRAME_FIELDS_BYTES);
  const major: u32 = load<u16>(frame + OFFSET_MAJOR);
  const minor: u32 = load<u16>(frame + OFFSET_MINOR);
  store<f64>(f + FIELD_MAJOR, <f64>major);
  store<f64>(f + FIELD_MINOR, <f64>minor);
  if (major != FRAME_VERSION_MAJOR) return FORMAT_VERSION;
  if (minor <= FRAME_VERSION_MINOR) {
    for (let at: usize = OFFSET_RESERVED; at < FRAME_HEADER_BYTES; at += 8) if (load<u64>(frame + at) != 0) return FORMAT_FIELDS;
  }
  const generation = load<u64>(frame + OFFSET_GENERATION);
  if (generation == 0 || generation > EXACT_MAX) return FORMAT_FIELDS;
  memory.copy(f + FIELD_POOL, frame + OFFSET_POOL, 16);
  memory.copy(f + FIELD_NONCE, frame + OFFSET_NONCE, 32); // and the previous one
  store<f64>(f + FIELD_GENERATION, <f64>generation);
  store<f64>(f + FIELD_LENGTH, <f64>length);
  return FORMAT_OK;
}
