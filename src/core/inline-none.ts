// Takes the place of inline.ts in `varve/slim`.

export function inlineCore(): Uint8Array<ArrayBuffer> {
  throw new TypeError(
    'varve/slim: expected the core: call useCore(bytes) with the bytes of varve/core.wasm (or varve/core.raid.wasm) first, or pass `core`',
  );
}
