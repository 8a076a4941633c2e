// The one file that knows WebAssembly. A log has its own instance; instances share one compiled module.
//
// No loader: @assemblyscript/loader lifts strings, arrays and classes out of a managed heap, and the core has none of these (runtime `stub`, numbers
// across the boundary only); it is deprecated upstream as well. What is left of its job is the `abort` below, for the builds of the tests: a failed assertion
// of the published core is a plain trap, which reaches the caller as WebAssembly.RuntimeError.
import { inlineCore } from './inline.ts';
import type { CoreExports } from './exports.ts';

/** A `WebAssembly.Module`, which has nothing that TypeScript knows of. Its name is in the DOM library only, and the declarations have to hold without that. */
export type CoreModule = object;

type CoreBytes = Uint8Array<ArrayBuffer> | ArrayBuffer;

/** The core as bytes or compiled. */
export type CoreSource = Uint8Array<ArrayBuffer> | ArrayBuffer | CoreModule;

/** An assertion of the core failed: a bug of ours. Says where, which the published core does not. */
export class CoreAbort extends Error {
  override readonly name = 'CoreAbort';
}

let chosen: CoreSource | undefined;
let compiled: WebAssembly.Module | undefined;

/** Uses this core from now on where none is passed in. What `varve/slim` needs once, before anything is opened. It is looked at when it is first used. */
export function useCore(core: CoreSource): void {
  chosen = core;
  compiled = undefined;
}

/** The compiled core: the given one, or else the one of `useCore`, or else the one that the bundle carries. Compiled once. */
export async function compileCore(core?: CoreSource): Promise<CoreModule> {
  if (core) return compile(core);
  if (compiled !== undefined) return compiled;
  const asked = chosen;
  const module = await compile(asked ?? inlineCore());
  if (asked === chosen) compiled = module; // nobody has chosen another meanwhile
  return module;
}

/** As `compileCore`, in the same turn. Browsers refuse that outside of workers when a module is large. */
export function compileCoreSync(core?: CoreSource): CoreModule {
  if (core) return compileSync(core);
  compiled ??= compileSync(chosen ?? inlineCore());
  return compiled;
}

async function compile(core: CoreSource): Promise<WebAssembly.Module> {
  return core instanceof WebAssembly.Module ? core : WebAssembly.compile(core as CoreBytes);
}

function compileSync(core: CoreSource): WebAssembly.Module {
  return core instanceof WebAssembly.Module ? core : new WebAssembly.Module(core as CoreBytes);
}

/** A fresh instance. `Exports` is for those who add exports of their own to `CoreExports` (label and catalogue codecs). */
export async function instantiateCore<Exports extends object = CoreExports>(core?: CoreSource): Promise<Exports> {
  const { imports, bind } = makeImports();
  const instance = await WebAssembly.instantiate(await compileCore(core), imports);
  return bind(instance) as Exports;
}

export function instantiateCoreSync<Exports extends object = CoreExports>(core?: CoreSource): Exports {
  const { imports, bind } = makeImports();
  return bind(new WebAssembly.Instance(compileCoreSync(core), imports)) as Exports;
}

function makeImports(): { imports: WebAssembly.Imports; bind: (instance: WebAssembly.Instance) => WebAssembly.Exports } {
  let memory: WebAssembly.Memory | undefined;
  const abort = (message: number, file: number, line: number, column: number): void => {
    const what = memory ? readString(memory, message >>> 0) : '';
    const where = memory ? readString(memory, file >>> 0) : '';
    throw new CoreAbort(`${what || 'abort'} at ${where || 'the core'}:${line >>> 0}:${column >>> 0}`);
  };
  return {
    imports: { env: { abort } },
    bind: (instance) => {
      if (!instance.exports['exchange']) throw new TypeError('core: expected a core of Varve');
      memory = instance.exports['memory'] as WebAssembly.Memory;
      return instance.exports;
    },
  };
}

/** A static AssemblyScript string: UTF-16, its length in bytes in the word before it. Bounded, because after a bug anything may be there. */
function readString(memory: WebAssembly.Memory, pointer: number): string {
  const view = new DataView(memory.buffer);
  if (pointer < 4 || pointer > view.byteLength) return '';
  const bytes = Math.min(view.getUint32(pointer - 4, true), 1024, view.byteLength - pointer);
  let text = '';
  for (let at = 0; at + 1 < bytes; at += 2) text += String.fromCharCode(view.getUint16(pointer + at, true));
  return text;
}
