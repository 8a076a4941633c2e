// Puts the bytes of the core in the place of src/core/inline.ts, as the package does (scripts/build.ts): a browser has no file to read them from.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const CORE = fileURLToPath(new URL('../../build/core.wasm', import.meta.url));

export function inlineCoreSource(): string {
  const text = readFileSync(CORE).toString('base64');
  return `const text = ${JSON.stringify(text)};
export function inlineCore() { return Uint8Array.from(atob(text), (character) => character.charCodeAt(0)); }`;
}

/** For Vite. */
export function inlineCorePlugin(): { name: string; enforce: 'pre'; load(id: string): string | undefined } {
  return {
    name: 'varve-core',
    enforce: 'pre',
    load: (id) => (/[/\\]src[/\\]core[/\\]inline\.ts(?:\?|$)/.test(id) ? inlineCoreSource() : undefined),
  };
}
