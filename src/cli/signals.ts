// Signals that whoever started the program wants ignored: `nohup`, and a script that has `trap '' HUP`.

import { readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { basename } from 'node:path';

const STOPPING = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** Calls `stop` for signals that ask to stop, but for those that are to be ignored. */
export function onStop(stop: (signal: NodeJS.Signals) => void): void {
  for (const signal of STOPPING) process.on(signal, isIgnored(signal) ? () => undefined : stop);
}

/**
 * Node makes all signals what they are by default before any of the program runs (24, 2026-11), and there is no telling what they were. Of SIGHUP there are
 * traces: the shell says what it was told to start, and what a script ignores it ignores itself. Deno is not asked: with permissions for a program's own files
 * it would ask its user for these.
 */
function isIgnored(signal: (typeof STOPPING)[number]): boolean {
  if (process.versions['deno'] !== undefined) return false;
  if (ignores('self', signal)) return true;
  return signal === 'SIGHUP' && (basename(process.env['_'] ?? '') === 'nohup' || ignores(process.ppid, signal));
}

/** Linux tells what a process ignores. */
function ignores(pid: number | 'self', signal: (typeof STOPPING)[number]): boolean {
  try {
    const mask = /^SigIgn:\s*([0-9a-f]+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? '0';
    return ((BigInt(`0x${mask}`) >> BigInt(constants.signals[signal] - 1)) & 1n) === 1n;
  } catch {
    return false; // no /proc
  }
}
