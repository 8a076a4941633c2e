// Unit and suite tests are short. What goes through whole programs, kills processes or takes minutes is in test/system and has its own project.
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    pool: 'threads', // `forks` fails in Bun
    maxWorkers: 2,
    watch: false,
    reporters: ['default'],
    setupFiles: [fileURLToPath(new URL('./test/setup.ts', import.meta.url))],
    projects: [
      { extends: true, test: { name: 'unit', include: ['test/**/*.test.ts'], exclude: ['test/system/**', 'test/browser/**'], testTimeout: 120_000 } },
      { extends: true, test: { name: 'system', include: ['test/system/**/*.test.ts'], testTimeout: 600_000, hookTimeout: 120_000 } },
    ],
  },
});
