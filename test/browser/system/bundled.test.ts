// What somebody does who reads the README: a new Vite project in TypeScript, the packed tarball installed, the snippet pasted; served by the development
// server, and built for production; each loaded in a real browser. The snippet is the README's, taken out of it here.
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as vite from 'vite';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Browser, ENGINES } from './browser.ts';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
const directory = mkdtempSync(join(tmpdir(), 'varve-vite-'));
const project = join(directory, 'app');
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** The code blocks of the README that begin with a comment of a file's name, by that name. */
function snippets(): Map<string, string> {
  const found = new Map<string, string>();
  for (const [, code = ''] of readFileSync(join(ROOT, 'README.md'), 'utf8').matchAll(/^```ts\n([\s\S]*?)^```$/gm)) {
    const name = /^\/\/ ([\w.-]+\.ts)\b/.exec(code)?.[1];
    if (name !== undefined) found.set(name, code);
  }
  return found;
}

beforeAll(() => {
  const [packed] = JSON.parse(
    execFileSync('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', directory], { cwd: ROOT, encoding: 'utf8' }),
  ) as [{ filename: string }];
  mkdirSync(join(project, 'src'), { recursive: true });
  writeFileSync(join(project, 'package.json'), JSON.stringify({ name: 'vite-vanilla-ts', private: true, type: 'module' }));
  execFileSync('npm', ['install', '--offline', '--no-audit', '--no-fund', join(directory, packed.filename)], {
    cwd: project,
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  writeFileSync(
    join(project, 'index.html'),
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>app</title></head><body><script type="module" src="/src/main.ts"></script></body></html>',
  );
  const code = snippets();
  for (const name of ['main.ts', 'storage.worker.ts']) {
    const text = code.get(name);
    if (text === undefined) throw new Error(`the README has no snippet of '${name}'`);
    writeFileSync(join(project, 'src', name), text);
  }
  // As it is pasted, it also passes the compiler with the package's own types.
  writeFileSync(
    join(project, 'tsconfig.json'),
    JSON.stringify({
      compilerOptions: {
        target: 'ES2022',
        module: 'ESNext',
        moduleResolution: 'bundler',
        lib: ['ES2022', 'DOM', 'ESNext.Disposable'],
        strict: true,
        noEmit: true,
        skipLibCheck: false,
        types: [],
      },
      include: ['src'],
    }),
  );
  execFileSync(process.execPath, [join(ROOT, 'node_modules/typescript/bin/tsc'), '-p', project], {
    stdio: ['ignore', 'inherit', 'inherit'],
  });
}, 120_000);

/** Loads the page twice: the second time it finds what the first kept. */
async function visit(url: string): Promise<void> {
  for (const engine of ENGINES) {
    const browser = await Browser.start(engine);
    try {
      for (const visits of [1, 2]) {
        const tab = await browser.open(url);
        let text = '';
        for (const end = Date.now() + 30_000; Date.now() < end && !text.includes('visits');) {
          text = await tab.evaluate<string>('document.body.textContent').catch(() => ''); // the development server may load it anew
          await new Promise((resolve) => setTimeout(resolve, 50));
        }
        expect(text, engine).toContain(`${visits} visits`);
        await tab.close();
      }
    } finally {
      await browser.dispose();
    }
  }
}

describe('a new Vite project with the README’s snippet', () => {
  it('works with the development server', async () => {
    const server = await vite.createServer({ root: project, configFile: false, logLevel: 'error', server: { host: '127.0.0.1', port: 0 } });
    try {
      await server.listen();
      await visit(server.resolvedUrls?.local[0] as string);
    } finally {
      await server.close();
    }
  });

  it('works as it is built for production', async () => {
    await vite.build({ root: project, configFile: false, logLevel: 'error' });
    const server = await vite.preview({ root: project, configFile: false, logLevel: 'error', preview: { host: '127.0.0.1', port: 0 } });
    try {
      await visit(server.resolvedUrls?.local[0] as string);
    } finally {
      await server.close();
    }
  });
});
