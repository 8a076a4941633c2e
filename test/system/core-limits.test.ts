// What is published of the core: small, closed, and without the faults that the tests plant.
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';

const bytes = readFileSync(new URL('../../build/core.wasm', import.meta.url));
const module = new WebAssembly.Module(bytes);

describe('the published core', () => {
  it('imports nothing, the others nothing but abort', () => {
    expect(WebAssembly.Module.imports(module)).toEqual([]);
    for (const other of ['checked', 'planted']) {
      const imports = WebAssembly.Module.imports(
        new WebAssembly.Module(readFileSync(new URL(`../../build/core.${other}.wasm`, import.meta.url))),
      );
      expect(imports).toEqual([{ module: 'env', name: 'abort', kind: 'function' }]);
    }
  });

  it('exports functions and its memory, nothing else', () => {
    const kinds = new Set(WebAssembly.Module.exports(module).map((one) => (one.name === 'memory' ? '' : one.kind)));
    expect(kinds).toEqual(new Set(['', 'function']));
  });

  it('has no planted fault in it', () => {
    // The text form names every global that is used: the switch of the planted faults is none of them.
    const text = readFileSync(new URL('../../build/core.wat', import.meta.url), 'utf8');
    expect(text).toContain('(global $assembly/');
    expect(text).not.toContain('planted');
    const planted = new WebAssembly.Module(readFileSync(new URL('../../build/core.planted.wasm', import.meta.url)));
    expect(WebAssembly.Module.exports(planted).map((one) => one.name)).toContain('plant');
  });

  it('takes no more than 81 KiB', () => {
    // The bar is 64 KiB; this bound keeps it from growing on the way there (docs/DESIGN.md).
    expect(bytes.length).toBeLessThanOrEqual(81 * 1024);
  });
});
