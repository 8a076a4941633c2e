// CRC-32 as gzip and zip have it (polynomial 0xEDB88320, reflected), eight bytes at a step: what people can check with programs that they have.

const TABLES = makeTables();

function makeTables(): Uint32Array {
  const tables = new Uint32Array(8 * 256);
  for (let byte = 0; byte < 256; byte++) {
    let value = byte;
    for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
    tables[byte] = value;
  }
  // Table n: the effect of a byte that n more bytes follow.
  for (let table = 1; table < 8; table++) {
    for (let byte = 0; byte < 256; byte++) {
      const before = tables[(table - 1) * 256 + byte] as number;
      tables[table * 256 + byte] = (before >>> 8) ^ (tables[before & 255] as number);
    }
  }
  return tables;
}

/** @param crc what was returned for the bytes before; 0 at the start */
export function crc32(crc: number, bytes: Uint8Array): number {
  const t = TABLES;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let value = ~crc >>> 0;
  let at = 0;
  for (; at + 8 <= bytes.length; at += 8) {
    const low = (value ^ view.getUint32(at, true)) >>> 0;
    const high = view.getUint32(at + 4, true);
    value =
      (t[0x700 + (low & 255)] as number) ^
      (t[0x600 + ((low >>> 8) & 255)] as number) ^
      (t[0x500 + ((low >>> 16) & 255)] as number) ^
      (t[0x400 + (low >>> 24)] as number) ^
      (t[0x300 + (high & 255)] as number) ^
      (t[0x200 + ((high >>> 8) & 255)] as number) ^
      (t[0x100 + ((high >>> 16) & 255)] as number) ^
      (t[high >>> 24] as number);
  }
  for (; at < bytes.length; at++) value = (value >>> 8) ^ (t[(value ^ (bytes[at] as number)) & 255] as number);
  return ~value >>> 0;
}
