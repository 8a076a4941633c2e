// Many lives in one memory. A history instantiates the core some eight times, and an instance that brings its own memory costs: reserving it, growing it
// by 10 MiB, collecting it — half of the simulator's time (2026-11). So the module is rewritten to import its memory, and a worker uses one for all.
//
// Used memory is cleared up to where the last life's arena reached. The core must not care (nothing promises it zeros), and a seed that fails is run once
// more in fresh memory before anybody is told.
import type { CoreExports } from '../../src/core/exports.ts';
import { CoreAbort } from '../../src/core/instantiate.ts';
import { PAGE_BYTES } from '../../src/core/memory.ts';

/** Enough for tiny logs; one that needs more grows, and the memory is thrown away afterwards, so that every seed finds the same. */
const PAGES = 512;
const SECTION_IMPORT = 2;
const SECTION_MEMORY = 5;
/** Of the arena, beyond what was seen of it. */
const MARGIN_BYTES = 1 << 20;

/** The same module with its memory imported as env.memory instead of defined. The export of it stays. */
export function importingMemory(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const sections: { id: number; body: number[] }[] = [];
  let at = 8;
  while (at < bytes.length) {
    const id = bytes[at++] as number;
    let length = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = bytes[at++] as number;
      length += (byte & 127) * 2 ** shift;
      if (byte < 128) break;
    }
    sections.push({ id, body: Array.from(bytes.subarray(at, at + length)) });
    at += length;
  }
  const memory = sections.find((section) => section.id === SECTION_MEMORY);
  const imports = sections.find((section) => section.id === SECTION_IMPORT);
  if (!memory || !imports || memory.body[0] !== 1 || (imports.body[0] as number) > 126)
    throw new Error('expected a core that imports something and defines one memory');
  imports.body[0] = (imports.body[0] as number) + 1;
  imports.body.push(...field('env'), ...field('memory'), 2, ...memory.body.slice(1));
  const parts: number[] = [...bytes.subarray(0, 8)];
  for (const { id, body } of sections) {
    if (id === SECTION_MEMORY) continue;
    parts.push(id, ...leb(body.length));
    for (const byte of body) parts.push(byte);
  }
  return new Uint8Array(parts);
}

function field(name: string): number[] {
  return [name.length, ...name.split('').map((character) => character.charCodeAt(0))];
}

function leb(value: number): number[] {
  const bytes: number[] = [];
  do {
    bytes.push((value & 127) | (value > 127 ? 128 : 0));
    value = Math.floor(value / 128);
  } while (value > 0);
  return bytes;
}

/** Makes one life after the other. Only the newest may be used. */
export class Instances {
  readonly #module: WebAssembly.Module;
  readonly #imports: boolean;
  #memory: WebAssembly.Memory | undefined;
  /** Bytes from 0 that are not zero, at most. */
  #dirty = 0;
  #last: CoreExports | undefined;

  /** @param module a core, or one that imports its memory (`importingMemory`): then its instances share one */
  constructor(module: WebAssembly.Module) {
    this.#module = module;
    this.#imports = WebAssembly.Module.imports(module).some((entry) => entry.kind === 'memory');
  }

  /** To be called now and then: how far the arena reaches. */
  note(): void {
    if (this.#imports && this.#last) this.#dirty = Math.max(this.#dirty, this.#last.figure(13));
  }

  make(): CoreExports {
    if (this.#imports) {
      this.note();
      if (this.#memory && this.#memory.buffer.byteLength === PAGES * PAGE_BYTES) {
        new Uint8Array(this.#memory.buffer).fill(0, 0, Math.min(PAGES * PAGE_BYTES, this.#dirty + MARGIN_BYTES));
      } else this.#memory = new WebAssembly.Memory({ initial: PAGES, maximum: 65536 });
      this.#dirty = 0;
    }
    let exported: CoreExports['memory'] | undefined = this.#memory;
    const abort = (message: number, file: number, line: number, column: number): void => {
      const text = (pointer: number): string => {
        if (!exported || pointer < 4) return '';
        const view = new DataView(exported.buffer);
        return String.fromCharCode(
          ...Array.from({ length: Math.min(200, view.getUint32(pointer - 4, true) / 2) }, (_, i) => view.getUint16(pointer + i * 2, true)),
        );
      };
      throw new CoreAbort(`${text(message >>> 0) || 'abort'} at ${text(file >>> 0)}:${line >>> 0}:${column >>> 0}`);
    };
    const instance = new WebAssembly.Instance(this.#module, { env: { abort, ...(this.#memory ? { memory: this.#memory } : {}) } });
    this.#last = instance.exports as unknown as CoreExports;
    exported = this.#last.memory;
    return this.#last;
  }
}
