// Decodes the commands of a plan. 32 bytes each, little-endian:
//
//    0        4        8                16       20       24       28       32
//    | op     | device | offset (f64)   | memory | length | flags  | 0      |

export const COMMAND_BYTES = 32;

export const OP = {
  READ: 1,
  WRITE: 2,
  FLUSH: 3,
  DISCARD: 4,
  /** client → memory */
  COPY_IN: 5,
  /** memory → client */
  COPY_OUT: 6,
  /** zeros → client */
  ZERO_OUT: 7,
} as const;

/** The first op that is performed in the same turn, without a device. */
export const OP_COPY_FIRST = OP.COPY_IN;

/** Flag of WRITE: through to the medium. */
export const FLAG_FUA = 1;

/** A decoded command; one object is filled again and again. */
export interface Command {
  op: number;
  /** Volume id × 32 + member. */
  device: number;
  /** Bytes on the device; for copies, bytes in the client's buffer. */
  offset: number;
  /** Address in the core's memory. */
  address: number;
  /** Bytes. */
  length: number;
  flags: number;
}

export function blankCommand(): Command {
  return { op: 0, device: 0, offset: 0, address: 0, length: 0, flags: 0 };
}

export function decodeCommand(view: DataView, at: number, into: Command): void {
  into.op = view.getUint32(at, true);
  into.device = view.getUint32(at + 4, true);
  into.offset = view.getFloat64(at + 8, true);
  into.address = view.getUint32(at + 16, true);
  into.length = view.getUint32(at + 20, true);
  into.flags = view.getUint32(at + 24, true);
}

/** For fakes and tests: the inverse of `decodeCommand`. */
export function encodeCommand(view: DataView, at: number, command: Command): void {
  view.setUint32(at, command.op, true);
  view.setUint32(at + 4, command.device, true);
  view.setFloat64(at + 8, command.offset, true);
  view.setUint32(at + 16, command.address, true);
  view.setUint32(at + 20, command.length, true);
  view.setUint32(at + 24, command.flags, true);
  view.setUint32(at + 28, 0, true);
}

/** Members of one storage volume: handle = volume × 32 + member. */
export const MEMBERS_MAX = 32;

export function deviceHandle(volume: number, member: number): number {
  return volume * MEMBERS_MAX + member;
}
