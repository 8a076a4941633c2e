// Giving space back: holes in files, discards on block devices. Node has no call for either; two programs of util-linux have, and both take the
// descriptor that they inherit by its name in /proc, so that no path is looked up again. A spawn costs 4 to 15 ms (2026-11): for ranges of megabytes.
import { spawn, spawnSync } from 'node:child_process';
import { messageOf, VarveError } from '../errors.ts';

export function canPunch(): boolean {
  return process.platform === 'linux';
}

type Kind = 'file' | 'block';

/** The child sees our descriptor as its descriptor 3. */
const INHERITED = '/proc/self/fd/3';

function commandOf(kind: Kind, offset: number, length: number): [string, string[]] {
  // -f: the device is claimed, by us.
  if (kind === 'block') return ['blkdiscard', ['-f', '-o', String(offset), '-l', String(length), INHERITED]];
  return ['fallocate', ['--punch-hole', '-o', String(offset), '-l', String(length), INHERITED]];
}

/**
 * @param held one more descriptor that the child has until it ends: it goes on when this process is killed, and so does a lock on this one
 * @throws VarveError VARVE_UNSUPPORTED when the program, the device or the file system cannot
 */
export async function punch(fd: number, kind: Kind, offset: number, length: number, held: number | undefined): Promise<void> {
  const [program, args] = commandOf(kind, offset, length);
  await new Promise<void>((resolve, reject) => {
    let told = '';
    try {
      const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe', fd, held ?? 'ignore'] });
      child.stderr?.on('data', (piece: Buffer) => (told += piece.toString()));
      child.once('error', (cause) => reject(refused(program, offset, length, messageOf(cause), cause)));
      child.once('close', (status) => (status === 0 ? resolve() : reject(refused(program, offset, length, told))));
    } catch (cause) {
      reject(refused(program, offset, length, messageOf(cause), cause)); // Deno without the permission
    }
  });
}

export function punchSync(fd: number, kind: Kind, offset: number, length: number, held: number | undefined): void {
  const [program, args] = commandOf(kind, offset, length);
  let child;
  try {
    child = spawnSync(program, args, { stdio: ['ignore', 'ignore', 'pipe', fd, held ?? 'ignore'] });
  } catch (cause) {
    throw refused(program, offset, length, messageOf(cause), cause);
  }
  if (child.error !== undefined) throw refused(program, offset, length, messageOf(child.error), child.error);
  if (child.status !== 0) throw refused(program, offset, length, String(child.stderr ?? ''));
}

function refused(program: string, offset: number, length: number, detail: string, cause?: unknown): VarveError {
  const doing = `discard of ${length} bytes at ${offset}`;
  return new VarveError('VARVE_UNSUPPORTED', doing, {
    detail: `\`${program}\` (a part of util-linux): ${detail.trim() || 'it failed without a word'}`,
    cause,
  });
}
