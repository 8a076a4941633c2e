import { spawn } from 'node:child_process';
import { mkdtempSync, renameSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { PoolLock } from '../../src/pool/lock.ts';
import { programOf } from '../program.ts';

const directory = mkdtempSync(join(tmpdir(), 'varve-lock-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));
let count = 0;
const fresh = (): string => join(directory, `lock-${count++}`);
const code = (wanted: string) => expect.objectContaining({ code: wanted });

describe('the lock of a pool', () => {
  it('lets one writer in and nobody else', () => {
    const path = fresh();
    const lock = PoolLock.acquire(path, 'exclusive');
    expect(() => PoolLock.acquire(path, 'exclusive')).toThrow(code('VARVE_LOCKED'));
    expect(() => PoolLock.acquire(path, 'shared')).toThrow(code('VARVE_LOCKED'));
    expect(() => PoolLock.acquire(path, 'exclusive')).toThrow(/: the pool is open already, in this process or another$/);
    expect(() => PoolLock.acquire(path, 'shared')).toThrow(/: the pool is open for writing already, in this process or another$/);
    lock.release();
    lock.release();
    PoolLock.acquire(path, 'exclusive').release();
  });

  it('lets readers in together, and no writer beside them', () => {
    const path = fresh();
    const readers = [PoolLock.acquire(path, 'shared'), PoolLock.acquire(path, 'shared')];
    expect(() => PoolLock.acquire(path, 'exclusive')).toThrow(code('VARVE_LOCKED'));
    for (const reader of readers) reader.release();
    PoolLock.acquire(path, 'exclusive').release();
  });

  it('is ours no more when its file is deleted or replaced', () => {
    const path = fresh();
    const lock = PoolLock.acquire(path, 'exclusive');
    lock.check();
    unlinkSync(path);
    expect(() => lock.check()).toThrow(code('VARVE_FENCED'));
    const second = PoolLock.acquire(path, 'exclusive');
    expect(() => lock.check()).toThrow(code('VARVE_FENCED'));
    second.check();
    writeFileSync(`${path}.other`, '');
    renameSync(`${path}.other`, path);
    expect(() => second.check()).toThrow(code('VARVE_FENCED'));
    lock.release();
    second.release();
    expect(() => second.check()).toThrow(code('VARVE_FENCED'));
  });

  it('does not follow a symbolic link', () => {
    const path = fresh();
    symlinkSync(join(directory, 'elsewhere'), path);
    expect(() => PoolLock.acquire(path, 'exclusive')).toThrow(code('VARVE_IO'));
  });

  it('goes when the process that holds it is killed', async () => {
    const path = fresh();
    const program = `import { PoolLock } from '../../src/pool/lock.ts';
      PoolLock.acquire(${JSON.stringify(path)}, 'exclusive');
      console.log('held');
      setInterval(() => {}, 1000);`;
    const child = spawn(process.execPath, await programOf(program, `${path}.mjs`));
    await new Promise((resolve) => child.stdout.once('data', resolve));
    expect(() => PoolLock.acquire(path, 'exclusive')).toThrow(code('VARVE_LOCKED'));
    const gone = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await gone;
    PoolLock.acquire(path, 'exclusive').release();
  });
});
