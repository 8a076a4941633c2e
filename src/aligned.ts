// Buffers whose first byte lies at the start of a page of the machine: the memories of wasm instances. O_DIRECT takes no others, and no engine tells where
// an ArrayBuffer lies, so whoever makes a memory says so here.

const ALIGNMENT_BYTES = 4096;
const buffers = new WeakSet<ArrayBufferLike>();

export function markAligned(buffer: ArrayBufferLike): void {
  buffers.add(buffer);
}

/** Do these bytes lie so that the machine can move them without a copy? */
export function isAligned(bytes: Uint8Array): boolean {
  return bytes.byteOffset % ALIGNMENT_BYTES === 0 && buffers.has(bytes.buffer);
}
