// What a verb is, and what several of them do alike: open the pool and close it whatever happens, pick a source, tell progress.

import { DirectoryPool, isPool, type OpenPoolOptions } from '../pool/directory.ts';
import type { StoragePool } from '../pool/pool.ts';
import type { VirtualVolume } from '../volume/volume.ts';
import { isVarveError, messageOf, VarveError } from '../errors.ts';
import { note, type Output } from './output.ts';
import { UsageError, type Arguments, type OptionSpecs, type Reference } from './parse.ts';

export interface Context {
  readonly output: Output;
  /** Aborted by Ctrl-C. */
  readonly signal: AbortSignal;
}

export interface Verb {
  readonly name: string;
  /** What follows `varve`. */
  readonly usage: string;
  /** One sentence without its stop. */
  readonly summary: string;
  /** More lines for the help. */
  readonly details?: readonly string[];
  readonly options: OptionSpecs;
  /** Least and most positional arguments. */
  readonly positionals: readonly [number, number];
  /** Its output is no document, so `--json` is wrong. */
  readonly raw?: boolean;
  /** @returns the exit status; 0 when it returns nothing */
  run(args: Arguments, context: Context): Promise<number | void>;
}

export const SOURCE_OPTION: OptionSpecs = { source: { kind: 'text', value: 'NAME', help: 'the source; needed where there are several' } };

/** Every verb has these. */
export const COMMON_OPTIONS: OptionSpecs = {
  json: { kind: 'flag', help: 'print one JSON document' },
  help: { kind: 'flag', help: 'print this' },
};

/** Verbs that open a pool have this one. */
export const POOL_OPTIONS: OptionSpecs = {
  device: { kind: 'text', value: 'PATH', many: true, help: 'where a device outside of the pool directory is now; may be repeated' },
};

/** `reclaim`: writes, and gives free space back in the end. */
export type Mode = 'read' | 'write' | 'reclaim';

/**
 * Opens the pool, does something with it, and closes it, also when that failed. What verbs do is durable before it is closed; so when there is no room for the
 * checkpoints that make the next open quick, that is a note.
 *
 * @param output is told the pool's notes; null: they are in the verb's result
 */
export async function withPool<T>(
  path: string,
  args: Arguments,
  output: Output | null,
  mode: Mode,
  use: (pool: StoragePool) => Promise<T>,
): Promise<T> {
  const options = { readOnly: mode === 'read', discard: mode === 'reclaim', devices: args.texts('device') };
  const pool = await DirectoryPool.open(path, options);
  let told = 0;
  const tellNotes = (): void => {
    for (; output !== null && told < pool.notes.length; told++) output.note(pool.notes[told]!);
  };
  tellNotes();
  let result: T;
  try {
    result = await use(pool);
  } catch (error) {
    await pool.close().catch(() => undefined); // the first error is the one to tell
    tellNotes();
    throw error;
  }
  try {
    await pool.close().finally(tellNotes);
  } catch (error) {
    if (!isVarveError(error, 'VARVE_NO_SPACE')) throw error;
    const text = `${messageOf(error)}; all that was done is durable, and the next open for writing needs some more time`;
    if (output === null) note(text);
    else output.note(text);
    if (mode === 'reclaim' && wasWrite(error)) await reclaim(path, options);
  }
  return result;
}

/**
 * Does something with a volume. When the core had no space for it, says who gives it no more. Where a device has none, that is the error's cause, or a note: of what
 * was written in the background.
 */
export async function sayingWhoseSpace<T>(pool: StoragePool, volume: VirtualVolume, use: () => Promise<T>): Promise<T> {
  try {
    return await use();
  } catch (error) {
    // Only what the core says of itself: others say what has no room.
    if (!isVarveError(error, 'VARVE_NO_SPACE') || error.cause !== undefined || error.message !== `${error.doing}: no space left`)
      throw error;
    if (pool.notes.some((text) => text.includes('no space left ('))) throw error;
    const { mode, maxVolumes } = pool.policyOf(volume.name);
    const count = volume.log.volumes().length;
    const why =
      mode !== 'auto'
        ? `its policy (mode ${mode}) gives the volume no more than its ${counted(count)}`
        : maxVolumes > 0 && count >= maxVolumes
          ? `its policy gives the volume no more than ${counted(maxVolumes)}`
          : count >= pool.maxVolumes
            ? `the pool makes no more than ${counted(pool.maxVolumes)}`
            : `the pool has no storage volume to give beyond the volume's ${counted(count)}`;
    throw new VarveError('VARVE_NO_SPACE', error.doing, { detail: `no space left: ${why}` });
  }
}

function counted(storageVolumes: number): string {
  return `${storageVolumes} storage volume${storageVolumes === 1 ? '' : 's'}`;
}

/** A write was refused, no flush: what can be read is what is there, so that what is free in it is free. */
function wasWrite(error: unknown): boolean {
  let last = error;
  while (last instanceof Error && last.cause !== undefined) last = last.cause;
  return (last as NodeJS.ErrnoException).syscall === 'write';
}

/** Space that is given back may be the room that was missing: by a pool that has nothing to write before. */
async function reclaim(path: string, options: OpenPoolOptions): Promise<void> {
  try {
    await (await DirectoryPool.open(path, options)).close();
  } catch (error) {
    note(`free space was not given back: ${messageOf(error)}`);
  }
}

/** For what fills a device and takes no signal: Ctrl-C closes the pool under it. The next open for writing goes on with the filling. */
export async function untilStopped<T>(pool: StoragePool, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  const stop = (): void => void pool.close().catch(() => undefined); // told by the next close
  signal.addEventListener('abort', stop, { once: true });
  try {
    signal.throwIfAborted();
    const result = await work();
    signal.throwIfAborted();
    return result;
  } catch (error) {
    signal.throwIfAborted();
    throw error;
  } finally {
    signal.removeEventListener('abort', stop);
  }
}

export async function withVolume<T>(
  reference: Reference,
  args: Arguments,
  output: Output,
  mode: Mode,
  use: (volume: VirtualVolume, pool: StoragePool) => Promise<T>,
): Promise<T> {
  return withPool(reference.pool, args, output, mode, async (pool) => {
    const volume = await pool.volume(reference.volume);
    return sayingWhoseSpace(pool, volume, () => use(volume, pool));
  });
}

/**
 * The source that is meant.
 *
 * @throws UsageError when there are several and none is named; VarveError `VARVE_NOT_FOUND` when the named one is not there
 */
export function pickSource(volume: VirtualVolume, snapshot: string | null, given: string | undefined): string {
  const doing = `looking for a source of '${volume.name}'`;
  let names: readonly string[];
  if (snapshot === null) names = volume.sources().map((source) => source.name);
  else {
    const found = volume.snapshots().find((one) => one.name === snapshot);
    if (found === undefined) throw new VarveError('VARVE_NOT_FOUND', doing, { detail: `there is no snapshot '${snapshot}'` });
    names = found.sources.map((source) => source.name);
  }
  if (given !== undefined) {
    const normal = given.normalize('NFC');
    if (names.includes(normal)) return normal;
    throw new VarveError('VARVE_NOT_FOUND', doing, {
      detail: `there is no source '${given}'; it has ${names.map((name) => `'${name}'`).join(', ') || 'none'}`,
    });
  }
  const [only] = names;
  if (only === undefined) throw new VarveError('VARVE_NOT_FOUND', doing, { detail: 'it has none' });
  if (names.length > 1) throw new UsageError(`'${volume.name}' has several sources: say which by --source (${names.join(', ')})`);
  return only;
}

/** POOL, or POOL/VOLUME: a path that is a pool is the pool. */
export function poolOrVolume(text: string): { readonly pool: string; readonly volume: string | null } {
  const trimmed = text.replace(/\/+$/, '') || '/';
  if (trimmed !== text || isPool(trimmed)) return { pool: trimmed, volume: null };
  const slash = trimmed.lastIndexOf('/');
  const parent = slash === 0 ? '/' : trimmed.slice(0, slash);
  if (slash > 0 && isPool(parent)) return { pool: parent, volume: trimmed.slice(slash + 1) };
  return { pool: trimmed, volume: null };
}
