// WebKitGTK, as far as its engine goes: the core, the pool on memory, the client without an owner, asynchronous OPFS; and that it has no synchronous access
// handles, which is why there is no more.
//
// MiniBrowser runs in an X server without a screen and loads a page that does everything by itself and posts what it saw. (Not through its WebDriver: an
// automated session is ephemeral, and has no origin private file system at all.)
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { MINI_BROWSER_PATH, XVFB_PATH } from '../programs.ts';
import { Site } from './site.ts';
import type { WebkitReport } from './webkit-tab.ts';

const FEATURES = '+FileSystem,+AccessHandle,+FileSystemWritableStream,+StorageAPI,+StorageAPIEstimate';
const PATIENCE_MS = 90_000;

describe('WebKitGTK', () => {
  const directory = mkdtempSync(join(tmpdir(), 'varve-webkit-'));
  const children: ChildProcess[] = [];
  let site: Site;
  let report: WebkitReport;

  beforeAll(async () => {
    let reported = (_body: string): void => undefined;
    const scripts = {
      tab: fileURLToPath(new URL('./webkit-tab.ts', import.meta.url)),
      storage: fileURLToPath(new URL('../worker/storage.worker.ts', import.meta.url)),
    };
    site = await Site.start({ scripts, onReport: (body) => reported(body) });
    const xvfb = spawn(XVFB_PATH, ['-displayfd', '3', '-screen', '0', '800x600x24', '-nolisten', 'tcp'], {
      stdio: ['ignore', 'ignore', 'ignore', 'pipe'],
      detached: true,
    });
    children.push(xvfb);
    const display = await new Promise<string>((resolve, reject) => {
      xvfb.stdio[3]?.once('data', (bytes: Buffer) => resolve(bytes.toString().trim()));
      xvfb.once('exit', () => reject(new Error('Xvfb ended')));
      xvfb.once('error', reject);
    });
    report = await new Promise<WebkitReport>((resolve, reject) => {
      reported = (body) => resolve(JSON.parse(body) as WebkitReport);
      const timer = setTimeout(() => reject(new Error(`no report within ${PATIENCE_MS} ms`)), PATIENCE_MS);
      timer.unref();
      const browser = spawn(MINI_BROWSER_PATH, [`--features=${FEATURES}`, site.url], {
        detached: true,
        stdio: 'ignore',
        env: {
          ...process.env,
          DISPLAY: `:${display}`,
          HOME: directory,
          XDG_CACHE_HOME: join(directory, 'cache'),
          XDG_DATA_HOME: join(directory, 'data'),
          WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS: '1', // the tests run as root
        },
      });
      children.push(browser);
      browser.once('error', reject);
      browser.once('exit', (code, signal) => reject(new Error(`MiniBrowser ended with ${code ?? signal}`)));
    });
  }, PATIENCE_MS + 30_000);

  afterAll(async () => {
    for (const { pid, exitCode, signalCode } of children.toReversed()) {
      if (pid !== undefined && exitCode === null && signalCode === null) process.kill(-pid, 'SIGKILL');
    }
    await site?.close();
    rmSync(directory, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  });

  it('runs the core: a pool on memory devices, snapshots, reopening', () => {
    expect(report.pool).toEqual({ snapshot: true, present: true, problems: 0 });
  });

  it('has an origin private file system, and no synchronous access handles in it', () => {
    expect(report.directory).toBe('ok');
    expect(report.handles).toBe('NotSupportedError');
  });

  it('has Web Locks, and they lock a pool', () => {
    expect(report.lock).toBe('ok');
  });

  it('says that it is not supported where a pool in its file system is asked for, and that nobody owns one', () => {
    expect(report.connect).toBe('VARVE_UNSUPPORTED');
    expect(report.nobody).toBe('VARVE_LOCKED');
  });

  it('writes an archive and takes it apart', () => {
    expect(report.archive).toBe('ok');
  });
});
