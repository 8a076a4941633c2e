// What is on a device already. `init` and `add` refuse one that has something on it: a mistyped device name must not cost a disk.

import type { StorageDevice } from '../device/device.ts';
import { isZero, readEnds } from './blank.ts';

interface Signature {
  readonly name: string;
  /** Bytes from the start; below zero: from the end of the device. */
  readonly offset: number;
  readonly bytes: readonly number[];
}

export const VARVE_SIGNATURE = 'a storage device of a Varve pool';
/** Nothing that says whose it is: what is left of a member without its labels is so, too. */
export const UNKNOWN_DATA = 'data';
export const UNKNOWN_DATA_AT_END = 'data at its end';
const MD = [0xfc, 0x4e, 0x2b, 0xa9];
const LINUX_RAID = 'a member of a Linux software RAID (md)';

const VARVE = text('VARVELBL');

/** The first that fits is told: what lies above (a RAID, an encrypted volume) before what may shine through from below, tables of partitions last. */
const SIGNATURES: readonly Signature[] = [
  { name: LINUX_RAID, offset: 0, bytes: MD }, // metadata 1.1
  { name: LINUX_RAID, offset: 4096, bytes: MD }, // 1.2
  { name: 'a member of an Intel RAID', offset: -1024, bytes: text('Intel Raid ISM Cfg Sig.') },
  { name: 'a member of a DDF RAID', offset: -512, bytes: [0xde, 0x11, 0xde, 0x11] },
  { name: 'a LUKS volume', offset: 0, bytes: [...text('LUKS'), 0xba, 0xbe] },
  { name: 'a LUKS volume', offset: 16384, bytes: [...text('SKUL'), 0xba, 0xbe] }, // the second header of LUKS 2
  ...[0, 512, 1024, 1536].map((offset) => ({ name: 'an LVM physical volume', offset, bytes: text('LABELONE') })),
  {
    name: 'a bcache device',
    offset: 4096 + 24,
    bytes: [0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca, 0x82, 0x65, 0xf5, 0x7f, 0x48, 0xba, 0x6d, 0x81],
  },
  { name: 'a Ceph OSD', offset: 0, bytes: text('bluestore block device') },
  { name: 'an ext2, ext3 or ext4 file system', offset: 0x438, bytes: [0x53, 0xef] },
  { name: 'an XFS file system', offset: 0, bytes: text('XFSB') },
  { name: 'a btrfs file system', offset: 0x10040, bytes: text('_BHRfS_M') },
  { name: 'an F2FS file system', offset: 0x400, bytes: [0x10, 0x20, 0xf5, 0xf2] },
  { name: 'an EROFS file system', offset: 0x400, bytes: [0xe2, 0xe1, 0xf5, 0xe0] },
  { name: 'a NILFS2 file system', offset: 0x406, bytes: [0x34, 0x34] },
  { name: 'a JFS file system', offset: 0x8000, bytes: text('JFS1') },
  { name: 'a ReiserFS file system', offset: 0x10034, bytes: text('ReIsEr') },
  { name: 'an HFS+ file system', offset: 0x400, bytes: text('H+') },
  { name: 'an HFS+ file system', offset: 0x400, bytes: text('HX') },
  { name: 'an APFS container', offset: 32, bytes: text('NXSB') },
  { name: 'a squashfs file system', offset: 0, bytes: text('hsqs') },
  { name: 'an ISO 9660 file system', offset: 0x8001, bytes: text('CD001') },
  { name: 'an NTFS file system', offset: 3, bytes: text('NTFS    ') },
  { name: 'an exFAT file system', offset: 3, bytes: text('EXFAT   ') },
  { name: 'a FAT file system', offset: 54, bytes: text('FAT') },
  { name: 'a FAT file system', offset: 82, bytes: text('FAT32') },
  // At the end of the first page, whatever a page is on the machine that made it.
  ...[4096, 8192, 16384, 65536].map((page) => ({ name: 'swap space', offset: page - 10, bytes: text('SWAPSPACE2') })),
  { name: 'a qcow2 image', offset: 0, bytes: [0x51, 0x46, 0x49, 0xfb] },
  { name: 'a VMDK image', offset: 0, bytes: text('KDMV') },
  { name: 'an SQLite database', offset: 0, bytes: text('SQLite format 3') },
  { name: 'a GPT partition table', offset: 512, bytes: text('EFI PART') },
  { name: 'a GPT partition table', offset: 4096, bytes: text('EFI PART') },
  { name: 'a GPT partition table', offset: -512, bytes: text('EFI PART') },
  { name: 'a GPT partition table', offset: -4096, bytes: text('EFI PART') },
  { name: 'a boot sector or partition table', offset: 510, bytes: [0x55, 0xaa] },
];

const ZFS_UBERBLOCK = [0x0c, 0xb1, 0xba, 0x00];

/** What the device holds, in words, or null when nothing is seen: both its ends are zero. */
export async function foreignSignature(device: StorageDevice): Promise<string | null> {
  const { front, back, backAt } = await readEnds(device);
  if (isAt(front, 0, VARVE)) return VARVE_SIGNATURE;
  if (raidAtEnd(device.sizeBytes).some((at) => isAt(back, at - backAt, MD))) return LINUX_RAID;
  for (const { name, offset, bytes } of SIGNATURES) {
    if (offset >= 0 ? isAt(front, offset, bytes) : isAt(back, back.length + offset, bytes)) return name;
  }
  for (let offset = 128 * 1024; offset < front.length; offset += 1024)
    if (isAt(front, offset, ZFS_UBERBLOCK)) return 'a member of a ZFS pool';
  if (!isZero(front)) return UNKNOWN_DATA;
  return isZero(back) ? null : UNKNOWN_DATA_AT_END;
}

function isAt(bytes: Uint8Array, offset: number, wanted: readonly number[]): boolean {
  return wanted.every((byte, index) => bytes[offset + index] === byte);
}

/** Where md has metadata that lies at the end: 1.0 two blocks of 4 KiB before the end of the last whole one, 0.90 in the last whole 64 KiB but one at most. */
function raidAtEnd(sizeBytes: number): number[] {
  return [Math.floor(sizeBytes / 4096) * 4096 - 8192, Math.floor(sizeBytes / 65536) * 65536 - 65536];
}

function text(ascii: string): number[] {
  return Array.from(ascii, (character) => character.charCodeAt(0));
}
