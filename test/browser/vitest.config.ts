// Tests in browsers, apart from the others because they share two engines and their profiles:
//
//   pages     in a page of Chromium and of Firefox, and in workers of it (vitest's browser mode)
//   system    whole browsers from outside: tabs, freezing, quotas, kills
//
//   node node_modules/vitest/vitest.mjs run --config test/browser/vitest.config.ts [--project 'pages (chromium)']
import { playwright } from '@vitest/browser-playwright';
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';
import { inlineCorePlugin } from './core-plugin.ts';
import { CHROMIUM_ARGS, CHROMIUM_PATH, FIREFOX_PATH } from './programs.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const cache = (name: string): string => fileURLToPath(new URL(`../../build/browsers/${name}`, import.meta.url));
const isolated = { 'Cross-Origin-Opener-Policy': 'same-origin', 'Cross-Origin-Embedder-Policy': 'require-corp' };

export default defineConfig({
  root,
  test: {
    watch: false,
    reporters: ['default'],
    projects: [
      {
        root,
        plugins: [inlineCorePlugin()],
        worker: { format: 'es', plugins: () => [inlineCorePlugin()] },
        server: { headers: isolated },
        cacheDir: 'build/browsers/vite',
        optimizeDeps: { include: ['fast-check'] },
        test: {
          name: 'pages',
          include: ['test/browser/pages/*.test.ts'],
          testTimeout: 60_000,
          hookTimeout: 60_000,
          fileParallelism: false,
          browser: {
            enabled: true,
            headless: true,
            ui: false,
            screenshotFailures: false,
            instances: [
              {
                browser: 'chromium',
                // Without a profile of its own Chromium keeps OPFS in memory, and thirty times slower.
                provider: playwright({
                  persistentContext: cache('chromium'),
                  launchOptions: { executablePath: CHROMIUM_PATH, args: CHROMIUM_ARGS },
                }),
              },
              {
                browser: 'firefox',
                provider: playwright({
                  persistentContext: cache('firefox'),
                  launchOptions: { channel: 'moz-firefox', executablePath: FIREFOX_PATH },
                }),
              },
            ],
          },
        },
      },
      {
        root,
        test: {
          name: 'system',
          include: ['test/browser/system/*.test.ts'],
          testTimeout: 240_000,
          hookTimeout: 120_000,
          fileParallelism: false,
        },
      },
    ],
  },
});
