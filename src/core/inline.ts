// The core's bytes. When run from the sources (tests, scripts, benches) they are read from build/; a bundle replaces this whole file by one that
// carries the bytes (scripts/build.ts), so that it works in every runtime and bundler without a file beside it. `varve/opfs` gets the core without RAID,
// `varve/slim` none.

/**
 * @throws Error when the core has not been built (`npm run build:core`)
 */
export function inlineCore(): Uint8Array<ArrayBuffer> {
  const { readFileSync } = process.getBuiltinModule('node:fs');
  const flavour = process.env['VARVE_CORE'] ?? 'raid'; // 'checked' and 'planted' are builds for tests; '' is the core without RAID
  const url = new URL(`../../build/core${flavour ? `.${flavour}` : ''}.wasm`, import.meta.url);
  return new Uint8Array(readFileSync(url));
}
