// The name of a storage volume that a pool makes as a file of its own, in a directory of any kind:
//
//   volume-0003-5fa0c2d1.varve        id and start of the device uuid
//
// The name says whose file it is, so that a catalogue cannot have another member's deleted.

export const MEMBER_FILE = /^volume-\d{4,5}-[0-9a-f]{8}\.varve$/;

export function memberFileName(id: number, uuid: string): string {
  return `volume-${String(id).padStart(4, '0')}-${uuid.slice(0, 8)}.varve`;
}

/** Is this the file that the pool made for the device of this uuid? */
export function isFileOfMember(name: string, uuid: string): boolean {
  return MEMBER_FILE.test(name) && name.endsWith(`-${uuid.slice(0, 8)}.varve`);
}
