// What is on a device already. `init` and `add` refuse one that has something on it: a mistyped device name must not cost a disk.

import type { StorageDevice } from '../device/device.ts';

/** The first and the last of a device, where labels, partition tables and superblocks are. */
const LOOK_BYTES = 128 * 1024;

interface Signature {
  readonly name: string;
  readonly offset: number;
  readonly bytes: readonly number[];
}

export const VARVE_SIGNATURE = 'a storage device of a Varve pool';

const SIGNATURES: readonly Signature[] = [
  { name: VARVE_SIGNATURE, offset: 0, bytes: text('VARVELBL') },
  { name: 'a GPT partition table', offset: 512, bytes: text('EFI PART') },
  { name: 'a GPT partition table', offset: 4096, bytes: text('EFI PART') },
  { name: 'an ext2, ext3 or ext4 file system', offset: 0x438, bytes: [0x53, 0xef] },
  { name: 'an XFS file system', offset: 0, bytes: text('XFSB') },
  { name: 'a btrfs file system', offset: 0x10040, bytes: text('_BHRfS_M') },
  { name: 'a LUKS volume', offset: 0, bytes: text('LUKS') },
  { name: 'an LVM physical volume', offset: 512, bytes: text('LABELONE') },
  { name: 'swap space', offset: 4086, bytes: text('SWAPSPACE2') },
  { name: 'a squashfs file system', offset: 0, bytes: text('hsqs') },
  { name: 'a qcow2 image', offset: 0, bytes: [0x51, 0x46, 0x49, 0xfb] },
  { name: 'an NTFS file system', offset: 3, bytes: text('NTFS    ') },
  { name: 'an SQLite database', offset: 0, bytes: text('SQLite format 3') },
  { name: 'a boot sector or partition table', offset: 510, bytes: [0x55, 0xaa] },
];

/** What the device holds, in words, or null when nothing is seen: both its ends are zero. */
export async function foreignSignature(device: StorageDevice): Promise<string | null> {
  const alignment = Math.max(device.blockSize, 4096);
  const length = Math.min(LOOK_BYTES, Math.floor(device.sizeBytes / alignment) * alignment);
  if (length === 0) return null;
  const bytes = new Uint8Array(length);
  await device.read(0, bytes);
  for (const { name, offset, bytes: wanted } of SIGNATURES) {
    if (wanted.every((byte, index) => bytes[offset + index] === byte)) return name;
  }
  if (bytes.some((byte) => byte !== 0)) return 'data';
  await device.read(Math.floor((device.sizeBytes - length) / alignment) * alignment, bytes);
  return bytes.some((byte) => byte !== 0) ? 'data at its end' : null;
}

function text(ascii: string): number[] {
  return Array.from(ascii, (character) => character.charCodeAt(0));
}
