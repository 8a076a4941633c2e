// Whose a descriptor is, and whether a block device is in use by the system.
//
// The lock is `flock`. Node has no call for it, so a child `flock` takes it on a descriptor that it inherits: the lock belongs to the open file that both
// share, stays when the child exits, and goes when this process does, however it ends. It is never taken by time-out.
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { messageOf, VarveError } from '../errors.ts';

export type LockMode = 'exclusive' | 'shared';

/**
 * Locks an open file for this process, at once or not at all.
 * @returns false when somebody else holds it in a way that excludes this
 * @throws VarveError VARVE_UNSUPPORTED when there is no `flock`, VARVE_IO
 */
export function lockDescriptor(doing: string, descriptor: number, mode: LockMode): boolean {
  let child;
  try {
    // The child sees our descriptor as its descriptor 3.
    child = spawnSync('flock', ['-n', mode === 'exclusive' ? '-x' : '-s', '3'], { stdio: ['ignore', 'ignore', 'pipe', descriptor] });
  } catch (cause) {
    child = { error: cause };
  }
  // Deno without the permission throws, or answers an empty object.
  if (child.error !== undefined || (child.status ?? child.signal ?? undefined) === undefined) {
    const why = child.error === undefined ? 'the runtime did not start it (Deno: --allow-run=flock)' : messageOf(child.error);
    const detail = `cannot run \`flock\` (a part of util-linux), which keeps other processes out: ${why}`;
    throw new VarveError('VARVE_UNSUPPORTED', doing, { detail, cause: child.error });
  }
  if (child.status === 0) return true;
  if (child.status === 1) return false;
  throw new VarveError('VARVE_IO', doing, {
    detail: `\`flock\` failed: ${String(child.stderr ?? '').trim() || `status ${child.status}, signal ${child.signal}`}`,
  });
}

/**
 * Gives the lock back before the descriptor is closed. Closing alone is not enough at once: a child that another thread is just starting has a copy of
 * every descriptor until it has become its program, and the lock is there until the last copy goes (seen for 300 ms on a busy machine, 2026-11).
 * When it does not work the lock goes with the last copy.
 */
export function unlockDescriptor(descriptor: number): void {
  try {
    spawnSync('flock', ['-u', '3'], { stdio: ['ignore', 'ignore', 'ignore', descriptor] });
  } catch {
    // closing does it, a little later
  }
}

/** Who uses the block device MAJOR:MINOR or a partition of it, in words, as far as Linux tells; undefined: nobody that it knows. */
export function systemUseOf(device: string): string | undefined {
  const sys = `/sys/dev/block/${device}`;
  const parts = [device];
  for (const name of entriesOf(sys)) {
    const part = textOf(`${sys}/${name}/dev`);
    if (/^\d+:\d+$/.test(part)) parts.push(part);
  }
  for (const line of textOf('/proc/self/mountinfo').split('\n')) {
    const [, , mounted = '', , point = '', ...rest] = line.split(' ');
    // btrfs gives a number of its own, that of no device: what it was mounted from tells.
    const source = rest[rest.indexOf('-') + 2] ?? '';
    if (parts.includes(mounted) || parts.includes(numberOf(source))) return `it is mounted at ${point}`;
  }
  // A file system of several devices names one of them as its source.
  for (const id of entriesOf('/sys/fs/btrfs')) {
    for (const name of entriesOf(`/sys/fs/btrfs/${id}/devices`))
      if (parts.includes(textOf(`/sys/fs/btrfs/${id}/devices/${name}/dev`))) return `it is a part of the mounted btrfs ${id}`;
  }
  for (const line of textOf('/proc/swaps').split('\n'))
    if (parts.includes(numberOf(line.split(/\s/)[0]))) return 'it is in use as swap space';
  for (const part of parts) {
    const [holder] = entriesOf(`/sys/dev/block/${part}/holders`);
    if (holder !== undefined) return `${holder} stands on it`;
  }
  return undefined;
}

/** As `systemUseOf`, of a regular file: a loop device stands on it, or the system swaps to it. */
export function systemUseOfFile(path: string): string | undefined {
  const own = statSync(path, { bigint: true });
  const isSame = (other: string): boolean => {
    try {
      const stat = statSync(other, { bigint: true });
      return stat.dev === own.dev && stat.ino === own.ino;
    } catch {
      return false; // it has another name by now, or none that is seen from here
    }
  };
  for (const name of entriesOf('/sys/block')) {
    const backing = name.startsWith('loop') ? textOf(`/sys/block/${name}/loop/backing_file`) : '';
    if (backing !== '' && isSame(backing)) return `/dev/${name} stands on it`;
  }
  for (const line of textOf('/proc/swaps').split('\n')) {
    const swap = line.split(/\s/)[0] ?? '';
    if (swap.startsWith('/') && isSame(unescaped(swap))) return 'it is in use as swap space';
  }
  return undefined;
}

/** A path as /proc writes it. */
function unescaped(written: string): string {
  return written.replace(/\\(\d{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}

/** Of the block device at a path as /proc writes it; '' when it is none. */
function numberOf(written = ''): string {
  if (!written.startsWith('/')) return '';
  try {
    const stat = statSync(unescaped(written));
    return stat.isBlockDevice() ? deviceNumber(stat.rdev) : '';
  } catch {
    return ''; // it has another name by now
  }
}

/** MAJOR:MINOR, as /sys has it. */
export function deviceNumber(rdev: number): string {
  // glibc's makedev: major in bits 8–19 and 32–63, minor in bits 0–7 and 20–31. Bits above 32 by division: JS shifts are 32 bits wide.
  const high = Math.floor(rdev / 2 ** 32);
  const low = rdev % 2 ** 32;
  const major = ((low >>> 8) & 0xfff) + (high & ~0xfff);
  const minor = (low & 0xff) | ((low >>> 12) & ~0xff);
  return `${major}:${minor}`;
}

function entriesOf(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return []; // no such thing, or no /sys
  }
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return '';
  }
}
