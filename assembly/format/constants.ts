// Numbers that several structures on disk share.

export const BLOCK_BYTES: u32 = 4096;
export const BLOCK_SHIFT: u32 = 12;
export const FORMAT_MAJOR: u16 = 1;
export const FORMAT_MINOR: u16 = 0;

/** No storage volume; also the volume of a hole. */
export const VOLUME_NONE: u32 = 0xffff;
export const SPACE_NONE: u32 = 0xffff;
export const EPOCH_CURRENT: u32 = 0xffffffff;
export const VIRTUAL_BLOCK_MAX: u64 = 1 << 40;
