// What a parser says about bytes that came from a device. The order is the order in which they are checked.

export const FORMAT_OK: u32 = 0;
/** The magic is not there: blank, or somebody else's. */
export const FORMAT_MAGIC: u32 = 1;
/** A length or size that cannot be. */
export const FORMAT_BOUNDS: u32 = 2;
export const FORMAT_CHECKSUM: u32 = 3;
/** Whole, and written by a version that this one does not know. */
export const FORMAT_VERSION: u32 = 4;
/** Whole, and in need of a feature that this one does not know. */
export const FORMAT_FEATURES: u32 = 5;
/** Whole, and of our version, but its fields contradict each other. */
export const FORMAT_FIELDS: u32 = 6;
