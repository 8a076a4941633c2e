// Whole browsers, driven from outside over their own protocols, without a driver between: the process can be killed at any moment, tabs can be closed and frozen, and
// (Chromium) given a quota.
//
//   Chromium   DevTools protocol: Target, Runtime, Page, Storage
//   Firefox    WebDriver BiDi: browsingContext, script
//
// Both listen on a port of the loopback that they choose themselves and print.
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CHROMIUM_ARGS, CHROMIUM_PATH, FIREFOX_PATH } from '../programs.ts';

export type Engine = 'chromium' | 'firefox';
export const ENGINES: readonly Engine[] = ['chromium', 'firefox'];

const START_MS = 60_000;
/** How long a tab of Firefox works, so that its process is known by that. */
const SPIN_MS = 400;

export interface BrowserOptions {
  /** A profile that exists already, or is to outlive the browser. */
  readonly profile?: string | undefined;
  /** Firefox: preferences. */
  readonly preferences?: Readonly<Record<string, string | number | boolean>> | undefined;
}

/** A tab: evaluates expressions (a promise is awaited, the value comes back as JSON). */
export interface Tab {
  evaluate<T>(expression: string): Promise<T>;
  close(): Promise<void>;
  /** Chromium: the page's life cycle, as the browser would change it; the freeze event fires first. Firefox: its process stops, and nothing tells it before. */
  freeze(): Promise<void>;
  thaw(): Promise<void>;
  /** The end of the tab's process. */
  crash(): Promise<void>;
}

/** A profile directory that the caller deletes. */
export function freshProfile(): string {
  return mkdtempSync(join(tmpdir(), 'varve-browser-'));
}

export abstract class Browser {
  readonly engine: Engine;
  readonly profile: string;
  readonly #ownsProfile: boolean;
  readonly #process: ChildProcess;
  readonly #exited: Promise<void>;

  protected constructor(engine: Engine, process_: ChildProcess, profile: string, ownsProfile: boolean) {
    this.engine = engine;
    this.profile = profile;
    this.#ownsProfile = ownsProfile;
    this.#process = process_;
    this.#exited = new Promise((resolve) => process_.once('exit', () => resolve()));
  }

  static async start(engine: Engine, options: BrowserOptions = {}): Promise<Browser> {
    const profile = options.profile ?? freshProfile();
    const owns = options.profile === undefined;
    return engine === 'chromium'
      ? ChromiumBrowser.startIn(profile, owns)
      : FirefoxBrowser.startIn(profile, owns, options.preferences ?? {});
  }

  protected get pid(): number {
    return this.#process.pid ?? 0;
  }

  abstract open(url: string): Promise<Tab>;
  /** Chromium: what the origin may keep. Firefox takes preferences instead, when it starts. */
  abstract setQuota(origin: string, bytes: number): Promise<void>;
  /** Chromium: what a user's consent would do. */
  abstract grantPersistence(origin: string): Promise<void>;

  /** SIGKILL for the browser and all of its processes. */
  async kill(): Promise<void> {
    const { pid } = this.#process;
    if (pid !== undefined && this.#process.exitCode === null && this.#process.signalCode === null) process.kill(-pid, 'SIGKILL');
    await this.#exited;
  }

  async dispose(): Promise<void> {
    await this.kill();
    if (this.#ownsProfile) removeProfile(this.profile);
  }
}

/** Processes of a killed browser may still be writing for a moment. */
export function removeProfile(profile: string): void {
  rmSync(profile, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
}

/** Starts it as the leader of a process group; resolves when it has printed where it listens. */
async function launch(path: string, args: readonly string[], says: RegExp): Promise<{ child: ChildProcess; url: string }> {
  const child = spawn(path, args, {
    detached: true,
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { ...process.env, HOME: tmpdir(), MOZ_HEADLESS: '1' },
  });
  let text = '';
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL');
      reject(new Error(`${path} did not start within ${START_MS} ms: ${text.slice(-500)}`));
    }, START_MS);
    child.stderr?.on('data', (bytes: Buffer) => {
      if (text.length > 65536) return;
      text += bytes.toString();
      const match = says.exec(text);
      if (match === null) return;
      clearTimeout(timer);
      resolve({ child, url: match[1] as string });
    });
    child.once('error', reject);
    child.once('exit', (code, signal) => {
      clearTimeout(timer);
      reject(new Error(`${path} ended with ${code ?? signal}: ${text.slice(-500)}`));
    });
  });
}

type Json = Record<string, unknown>;

/** Requests and answers by number, which both protocols have. */
class Protocol {
  readonly #socket: WebSocket;
  readonly #waiting = new Map<number, { resolve: (value: Json) => void; reject: (error: Error) => void }>();
  #count = 0;

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(String(data)) as { id?: number; result?: Json; error?: unknown; message?: string };
      if (message.id === undefined) return;
      const waiting = this.#waiting.get(message.id);
      this.#waiting.delete(message.id);
      if (message.error !== undefined) waiting?.reject(new Error(`${JSON.stringify(message.error)} ${message.message ?? ''}`));
      else waiting?.resolve(message.result ?? {});
    };
    socket.onclose = () => {
      for (const { reject } of this.#waiting.values()) reject(new Error('the browser is gone'));
      this.#waiting.clear();
    };
  }

  static async connect(url: string): Promise<Protocol> {
    const socket = new WebSocket(url);
    await new Promise((resolve, reject) => {
      socket.onopen = resolve;
      socket.onerror = () => reject(new Error(`no connection to ${url}`));
    });
    return new Protocol(socket);
  }

  send(method: string, params: Json, more: Json = {}): Promise<Json> {
    if (this.#socket.readyState !== WebSocket.OPEN) return Promise.reject(new Error('the browser is gone'));
    const id = ++this.#count;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#socket.send(JSON.stringify({ id, method, params, ...more }));
    });
  }
}

/** The expression's value as JSON, so that both protocols carry it in the same way. */
const wrapped = (expression: string): string => `(async () => JSON.stringify((await (${expression})) ?? null))()`;

class ChromiumBrowser extends Browser {
  readonly #protocol: Protocol;

  private constructor(child: ChildProcess, profile: string, owns: boolean, protocol: Protocol) {
    super('chromium', child, profile, owns);
    this.#protocol = protocol;
  }

  static async startIn(profile: string, owns: boolean): Promise<Browser> {
    // A profile that a killed browser left may name it as its user still.
    for (const name of ['SingletonLock', 'SingletonCookie', 'SingletonSocket']) rmSync(join(profile, name), { force: true });
    const args = ['--headless', ...CHROMIUM_ARGS, '--remote-debugging-port=0', `--user-data-dir=${profile}`, 'about:blank'];
    const { child, url } = await launch(CHROMIUM_PATH, args, /DevTools listening on (ws:\S+)/);
    return new ChromiumBrowser(child, profile, owns, await Protocol.connect(url));
  }

  async open(url: string): Promise<Tab> {
    const protocol = this.#protocol;
    const { targetId } = await protocol.send('Target.createTarget', { url: 'about:blank' });
    const { sessionId } = await protocol.send('Target.attachToTarget', { targetId, flatten: true });
    const send = (method: string, params: Json = {}): Promise<Json> => protocol.send(method, params, { sessionId });
    const evaluate = async <T>(expression: string): Promise<T> => {
      const answer = await send('Runtime.evaluate', { expression: wrapped(expression), awaitPromise: true, returnByValue: true });
      const thrown = answer['exceptionDetails'] as { exception?: { description?: string }; text?: string } | undefined;
      if (thrown !== undefined) throw new Error(thrown.exception?.description ?? thrown.text ?? 'it threw');
      return JSON.parse((answer['result'] as { value: string }).value) as T;
    };
    await send('Page.enable');
    await send('Page.navigate', { url });
    await loaded(evaluate, url);
    return {
      evaluate,
      close: async () => void (await protocol.send('Target.closeTarget', { targetId })),
      freeze: async () => void (await send('Page.setWebLifecycleState', { state: 'frozen' })),
      thaw: async () => void (await send('Page.setWebLifecycleState', { state: 'active' })),
      crash: async () => {
        void send('Page.crash').catch(() => undefined); // there is nobody to answer
        await new Promise((resolve) => setTimeout(resolve, 100));
      },
    };
  }

  async setQuota(origin: string, bytes: number): Promise<void> {
    const { targetInfos } = (await this.#protocol.send('Target.getTargets', {})) as unknown as {
      targetInfos: { type: string; targetId: string }[];
    };
    const page = targetInfos.find((target) => target.type === 'page');
    const { sessionId } = await this.#protocol.send('Target.attachToTarget', { targetId: page?.targetId, flatten: true });
    await this.#protocol.send('Storage.overrideQuotaForOrigin', { origin, quotaSize: bytes }, { sessionId });
  }

  async grantPersistence(origin: string): Promise<void> {
    await this.#protocol.send('Browser.grantPermissions', { origin, permissions: ['durableStorage'] });
  }
}

class FirefoxBrowser extends Browser {
  readonly #protocol: Protocol;

  private constructor(child: ChildProcess, profile: string, owns: boolean, protocol: Protocol) {
    super('firefox', child, profile, owns);
    this.#protocol = protocol;
  }

  static async startIn(profile: string, owns: boolean, preferences: Readonly<Record<string, string | number | boolean>>): Promise<Browser> {
    mkdirSync(profile, { recursive: true });
    for (const name of ['lock', '.parentlock']) rmSync(join(profile, name), { force: true });
    const all = {
      'browser.shell.checkDefaultBrowser': false,
      'browser.startup.page': 0,
      'browser.sessionstore.resume_from_crash': false,
      'toolkit.startup.max_resumed_crashes': -1,
      'datareporting.policy.dataSubmissionEnabled': false,
      'app.update.enabled': false,
      ...preferences,
    };
    const lines = Object.entries(all).map(([name, value]) => `user_pref(${JSON.stringify(name)}, ${JSON.stringify(value)});`);
    writeFileSync(join(profile, 'user.js'), `${lines.join('\n')}\n`);
    const args = ['--headless', '--no-remote', '--remote-debugging-port=0', '--profile', profile, 'about:blank'];
    const { child, url } = await launch(FIREFOX_PATH, args, /WebDriver BiDi listening on (ws:\S+)/);
    const protocol = await Protocol.connect(`${url}/session`);
    await protocol.send('session.new', { capabilities: {} });
    return new FirefoxBrowser(child, profile, owns, protocol);
  }

  async open(url: string): Promise<Tab> {
    const protocol = this.#protocol;
    const { context } = await protocol.send('browsingContext.create', { type: 'tab' });
    const evaluate = async <T>(expression: string): Promise<T> => {
      const answer = await protocol.send('script.evaluate', { expression: wrapped(expression), target: { context }, awaitPromise: true });
      if (answer['type'] !== 'success') throw new Error((answer['exceptionDetails'] as { text?: string } | undefined)?.text ?? 'it threw');
      return JSON.parse((answer['result'] as { value: string }).value) as T;
    };
    await protocol.send('browsingContext.navigate', { context, url, wait: 'complete' });
    /** The process of the tab: the one that works when the tab does. */
    const process_ = async (): Promise<number> => {
      const before = ticksOf(this.pid);
      await evaluate(`(() => { for (const end = performance.now() + ${SPIN_MS}; performance.now() < end;); })()`);
      const spent = [...ticksOf(this.pid)].map(([pid, ticks]) => ({ pid, ticks: ticks - (before.get(pid) ?? 0) }));
      const busiest = spent.toSorted((a, b) => b.ticks - a.ticks)[0];
      if (busiest === undefined || busiest.ticks === 0) throw new Error('no content process of Firefox was busy');
      return busiest.pid;
    };
    let stopped: number | undefined;
    return {
      evaluate,
      close: async () => void (await protocol.send('browsingContext.close', { context })),
      freeze: async () => {
        stopped = await process_();
        process.kill(stopped, 'SIGSTOP');
      },
      thaw: () => {
        if (stopped === undefined) return Promise.reject(new Error('it is not frozen'));
        process.kill(stopped, 'SIGCONT');
        stopped = undefined;
        return Promise.resolve();
      },
      crash: async () => void process.kill(await process_(), 'SIGKILL'),
    };
  }

  setQuota(): Promise<void> {
    return Promise.reject(new Error('Firefox takes its quota from preferences'));
  }

  grantPersistence(): Promise<void> {
    return Promise.reject(new Error('Firefox takes this from preferences'));
  }
}

/**
 * Processor time of Firefox's content processes, by process id. It tells nobody which of them has a tab: the one that works when the tab does.
 * (proc(5): the parent is field 4, time in user mode field 14; the name in field 2 may hold anything.)
 */
function ticksOf(parent: number): Map<number, number> {
  const found = new Map<number, number>();
  for (const name of readdirSync('/proc')) {
    const pid = Number(name);
    if (!Number.isInteger(pid)) continue;
    try {
      const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
        .replace(/^.*\) /s, '')
        .split(' ');
      const isTab = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replace(/\0+$/, '').endsWith('tab');
      if (isTab && isBelow(pid, parent)) found.set(pid, Number(fields[11]));
    } catch {
      // it has ended meanwhile
    }
  }
  return found;
}

/** Is one process a descendant of the other? (Content processes come from a fork server.) */
function isBelow(pid: number, ancestor: number): boolean {
  for (let at = pid; at > 1;) {
    if (at === ancestor) return true;
    at = Number(
      readFileSync(`/proc/${at}/stat`, 'utf8')
        .replace(/^.*\) /s, '')
        .split(' ')[1],
    );
  }
  return false;
}

async function loaded(evaluate: <T>(expression: string) => Promise<T>, url: string): Promise<void> {
  for (const end = Date.now() + START_MS; Date.now() < end;) {
    // While it navigates the context is torn down under the question.
    const state = await evaluate<string>(`location.href + ' ' + document.readyState`).catch(() => '');
    if (state === `${url} complete`) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`${url} was not loaded within ${START_MS} ms`);
}
