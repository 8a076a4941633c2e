// A site on the loopback with one page and one worker, bundled from the sources: what the tests do in a tab is what `pages/tab.ts` puts on `globalThis`.
import { build } from 'esbuild';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';
import { inlineCoreSource } from '../core-plugin.ts';

const SCRIPTS = {
  tab: fileURLToPath(new URL('./tab.ts', import.meta.url)),
  storage: fileURLToPath(new URL('../worker/storage.worker.ts', import.meta.url)),
  crash: fileURLToPath(new URL('./crash.worker.ts', import.meta.url)),
};

export interface SiteOptions {
  /** Scripts by name, each an entry from the sources; the page loads `tab.js`. Left out: those of the tests. */
  readonly scripts?: Readonly<Record<string, string>> | undefined;
  /** With the headers that make SharedArrayBuffer available. */
  readonly isolated?: boolean;
  /** Called with what a page posts to `/report`. */
  readonly onReport?: (body: string) => void;
}

export class Site {
  readonly url: string;
  readonly origin: string;
  /** What pages put and get under `/files/`. */
  readonly files: Map<string, Uint8Array>;
  readonly #server: Server;

  private constructor(server: Server, files: Map<string, Uint8Array>) {
    this.#server = server;
    this.files = files;
    this.origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    this.url = `${this.origin}/`;
  }

  static async start(options: SiteOptions = {}): Promise<Site> {
    const files = await bundle(options.scripts ?? SCRIPTS);
    const kept = new Map<string, Uint8Array>();
    const server = createServer((request, response) => {
      const path = (request.url ?? '/').split('?')[0] as string;
      if (options.isolated === true) {
        response.setHeader('Cross-Origin-Opener-Policy', 'same-origin');
        response.setHeader('Cross-Origin-Embedder-Policy', 'require-corp');
      }
      response.setHeader('Cache-Control', 'no-store');
      if (path === '/report' && request.method === 'POST') {
        let body = '';
        request.on('data', (bytes: Buffer) => (body += bytes.toString()));
        request.on('end', () => {
          options.onReport?.(body);
          response.end();
        });
        return;
      }
      if (path.startsWith('/files/')) {
        const name = path.slice('/files/'.length);
        if (request.method === 'GET') return response.end(kept.get(name));
        const pieces: Buffer[] = [];
        request.on('data', (bytes: Buffer) => pieces.push(bytes));
        request.on('end', () => {
          kept.set(name, Buffer.concat(pieces));
          response.end();
        });
        return;
      }
      const script = files.get(path.slice(1));
      if (script !== undefined) {
        response.setHeader('Content-Type', 'text/javascript');
        return response.end(script);
      }
      response.setHeader('Content-Type', 'text/html');
      response.statusCode = path === '/' ? 200 : 404;
      response.end(
        path === '/' ? '<!doctype html><meta charset="utf-8"><title>tab</title><script type="module" src="/tab.js"></script>' : '',
      );
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return new Site(server, kept);
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

/** Scripts by name. */
async function bundle(scripts: Readonly<Record<string, string>>): Promise<ReadonlyMap<string, string>> {
  const { outputFiles } = await build({
    entryPoints: { ...scripts },
    bundle: true,
    format: 'esm',
    target: 'es2022',
    write: false,
    outdir: '/',
    plugins: [
      {
        name: 'core',
        setup: (setup) => setup.onLoad({ filter: /[/\\]core[/\\]inline\.ts$/ }, () => ({ contents: inlineCoreSource(), loader: 'js' })),
      },
    ],
  });
  return new Map(outputFiles.map((file) => [file.path.replace(/^.*[/\\]/, ''), file.text]));
}
