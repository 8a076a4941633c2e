// A pool on its way (P9): made in Chromium, exported, opened by Node, Deno and Bun one after the other, each of which adds a snapshot, exported again and
// imported in Firefox, which adds one, and back into Chromium. At every stop every snapshot is bit for bit what it has to be.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { exportPool, importPool } from '../../../src/node.ts';
import { engine } from '../../runtimes/engines.ts';
import { Browser, type Engine, type Tab } from './browser.ts';
import { Site } from './site.ts';
import { DISK_BYTES } from './states.ts';

const STEP = fileURLToPath(new URL('./step.ts', import.meta.url));
const directory = mkdtempSync(join(tmpdir(), 'varve-round-trip-'));
let site: Site;
beforeAll(async () => {
  site = await Site.start();
});
afterAll(async () => {
  await site.close();
  rmSync(directory, { recursive: true, force: true });
});

async function inBrowser(which: Engine, act: (tab: Tab) => Promise<void>): Promise<void> {
  const browser = await Browser.start(which);
  try {
    await act(await browser.open(site.url));
  } finally {
    await browser.dispose();
  }
}

it('Chromium, Node, Deno, Bun, Firefox, Chromium: every snapshot is bit-equal at every stop', async () => {
  await inBrowser('chromium', async (tab) => {
    await tab.evaluate(`tab.connect('trip', { create: { volumeSize: '4MiB' } })`);
    await tab.evaluate(`tab.create('disk', '${DISK_BYTES}')`);
    await tab.evaluate('tab.step(1)');
    await tab.evaluate('tab.step(2)');
    expect(await tab.evaluate('tab.verify(2)')).toEqual([]);
    await tab.evaluate(`tab.exportTo('first')`);
  });
  const pool = join(directory, 'pool');
  await importPool(pool, new Blob([site.files.get('first') as Uint8Array<ArrayBuffer>]).stream());
  let step = 2;
  for (const name of ['Node 24', 'Deno', 'Bun']) {
    const { program, arguments: args } = engine(name);
    const answer = execFileSync(program, [...args, STEP, pool, String(++step)], { encoding: 'utf8' });
    expect(JSON.parse(answer), name).toEqual({ wrong: [], problems: 0 });
  }
  site.files.set('second', new Uint8Array(await new Response(await exportPool(pool)).arrayBuffer()));
  await inBrowser('firefox', async (tab) => {
    await tab.evaluate(`tab.importFrom('second', 'trip')`);
    await tab.evaluate(`tab.connect('trip')`);
    expect(await tab.evaluate(`tab.verify(${step})`)).toEqual([]);
    expect(await tab.evaluate('tab.check()')).toBe(0);
    await tab.evaluate(`tab.step(${++step})`);
    await tab.evaluate(`tab.exportTo('third')`);
  });
  await inBrowser('chromium', async (tab) => {
    await tab.evaluate(`tab.importFrom('third', 'trip')`);
    await tab.evaluate(`tab.connect('trip')`);
    expect(await tab.evaluate(`tab.verify(${step})`)).toEqual([]);
    expect(await tab.evaluate('tab.check()')).toBe(0);
  });
});
