// Decodes what the core writes into the exchange buffer about a log's state, and encodes what it reads from there.
//
// source      0 u32 space · 4 u32 volume number · 8 f64 size · 16 f64 mapped bytes · 24 u32 flags (4 stands on another space) · 28 u32 name length · 32 name
// snapshot    0 u32 id · 4 u32 volume number · 8 u32 epoch · 12 u32 members · 16 f64 created at (ms) · 24 u32 flags · 28 u32 name length
//             32 members, each: u32 space · u32 source name length · f64 size          then the snapshot's name, then each member's source name
// operation   0 u16 op · 2 u16 name length · 4 u32 a · 8 f64 b · 16 u32 c · 20 u32 d · 24 name
// finding     0 u32 code (0: a range in use) · 4 u32 kind of structure · 8 u32 storage volume · 12 u32 block · 16 f64 device offset · 24 f64 bytes

/** One source (primary volume) of a virtual volume. */
export interface SourceState {
  /** The space that has the source's name now; another one after a rollback. */
  readonly space: number;
  /** Number of the virtual volume in this log; its name is in the catalogue. */
  readonly volumeNumber: number;
  readonly name: string;
  readonly sizeBytes: number;
  /** Mapped in the current state, without what it stands on. */
  readonly mappedBytes: number;
  /** After a rollback: what this space does not have itself, that one has. */
  readonly standsOnAnother: boolean;
}

/** One source as a snapshot holds it. */
export interface SnapshotMember {
  readonly space: number;
  readonly source: string;
  /** Size of that source at that moment. */
  readonly sizeBytes: number;
}

export interface SnapshotState {
  readonly id: number;
  readonly volumeNumber: number;
  readonly epoch: number;
  readonly name: string;
  readonly createdAt: Date;
  /** Made by a rollback, of the state that it left. */
  readonly automatic: boolean;
  readonly members: readonly SnapshotMember[];
}

export type Structure = 'root' | 'page' | 'header' | 'footer' | 'data' | 'mapping' | 'row' | 'structure';
const STRUCTURES: readonly Structure[] = ['structure', 'root', 'page', 'header', 'footer', 'data', 'mapping', 'row'];

/** A place on a device, and what is there. */
export interface LogRange {
  /** `mapping`: data that is mapped, and that no entry of its segment backs. */
  readonly structure: Structure;
  /** Storage volume. */
  readonly volume: number;
  /** Block in its data area. */
  readonly block: number;
  /** Bytes from the start of the device. */
  readonly offset: number;
  readonly bytes: number;
}

/** What a check found. */
export interface LogProblem extends LogRange {
  /** The core's failure code: 2 damaged, 3 cannot be read. */
  readonly failure: number;
}

const SOURCE_STANDS_ON_ANOTHER = 4;
const SNAPSHOT_AUTOMATIC = 1;
const decoder = new TextDecoder('utf-8');
const encoder = new TextEncoder();

function text(bytes: Uint8Array, at: number, length: number): string {
  return decoder.decode(bytes.slice(at, at + length)); // a copy: TextDecoder refuses views of shared and of some resizable buffers
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

export function decodeSource(bytes: Uint8Array): SourceState {
  const view = viewOf(bytes);
  return {
    space: view.getUint32(0, true),
    volumeNumber: view.getUint32(4, true),
    sizeBytes: view.getFloat64(8, true),
    mappedBytes: view.getFloat64(16, true),
    standsOnAnother: (view.getUint32(24, true) & SOURCE_STANDS_ON_ANOTHER) !== 0,
    name: text(bytes, 32, view.getUint32(28, true)),
  };
}

export function decodeSnapshot(bytes: Uint8Array): SnapshotState {
  const view = viewOf(bytes);
  const memberCount = view.getUint32(12, true);
  let at = 32 + 16 * memberCount;
  const name = text(bytes, at, view.getUint32(28, true));
  at += view.getUint32(28, true);
  const members: SnapshotMember[] = [];
  for (let index = 0; index < memberCount; index++) {
    const member = 32 + 16 * index;
    const length = view.getUint32(member + 4, true);
    members.push({ space: view.getUint32(member, true), source: text(bytes, at, length), sizeBytes: view.getFloat64(member + 8, true) });
    at += length;
  }
  return {
    id: view.getUint32(0, true),
    volumeNumber: view.getUint32(4, true),
    epoch: view.getUint32(8, true),
    createdAt: new Date(view.getFloat64(16, true)),
    automatic: (view.getUint32(24, true) & SNAPSHOT_AUTOMATIC) !== 0,
    name,
    members,
  };
}

export function decodeFinding(bytes: Uint8Array): LogProblem {
  const view = viewOf(bytes);
  return {
    failure: view.getUint32(0, true),
    volume: view.getUint32(4, true),
    block: view.getUint32(8, true),
    structure: STRUCTURES[view.getUint32(12, true)] ?? 'structure',
    offset: view.getFloat64(16, true),
    bytes: view.getFloat64(24, true),
  };
}

export function encodeOperation(op: number, fields: { a?: number; b?: number; c?: number; d?: number; name?: string }): Uint8Array {
  const name = encoder.encode(fields.name ?? '');
  const bytes = new Uint8Array(24 + name.length);
  const view = viewOf(bytes);
  view.setUint16(0, op, true);
  view.setUint16(2, name.length, true);
  view.setUint32(4, fields.a ?? 0, true);
  view.setFloat64(8, fields.b ?? 0, true);
  view.setUint32(16, fields.c ?? 0, true);
  view.setUint32(20, fields.d ?? 0, true);
  bytes.set(name, 24);
  return bytes;
}
