// Block devices for tests: loop devices over sparse files, and zram. Root only. Whatever was attached is detached by `dispose`.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const PATH = `${process.env['PATH']}:/usr/sbin:/sbin`;

/** A program of the system; what it prints. */
export function system(program: string, ...args: string[]): string {
  return execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, PATH } }).trim();
}

export class BlockDevices {
  readonly directory = mkdtempSync(join(tmpdir(), 'varve-block-'));
  readonly #undo: (() => void)[] = [];
  #count = 0;

  /** A path at which there is nothing yet. */
  fresh(): string {
    return join(this.directory, `x${this.#count++}`);
  }

  /** A loop device over a sparse file. */
  loop(sizeBytes: number, sectorBytes: 512 | 4096 = 512, file = this.fresh()): string {
    writeFileSync(file, '', { flag: 'a' });
    if (statSync(file).size < sizeBytes) truncateSync(file, sizeBytes);
    const device = system('losetup', '-b', String(sectorBytes), '-f', '--show', file);
    this.#undo.push(() => system('losetup', '-d', device));
    return device;
  }

  zram(sizeBytes: number): string {
    const number = readFileSync('/sys/class/zram-control/hot_add', 'utf8').trim();
    this.#undo.push(() => writeFileSync('/sys/class/zram-control/hot_remove', number));
    writeFileSync(`/sys/block/zram${number}/disksize`, String(sizeBytes));
    return `/dev/zram${number}`;
  }

  onDispose(undo: () => void): void {
    this.#undo.push(undo);
  }

  dispose(): void {
    for (const undo of this.#undo.splice(0).toReversed()) undo();
    rmSync(this.directory, { recursive: true, force: true });
  }
}
