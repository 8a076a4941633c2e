// Golden transcripts: a few commands, and what `varve dump` says afterwards. They teach the format, and show every change of it in a diff. What differs
// from run to run (uuids, nonces, times) is replaced by its number in order of appearance. After a change that is meant: VARVE_GOLDEN=write.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { afterAll, describe, expect, it } from 'vitest';
import { json, MAIN, varve, Workshop } from './support.ts';

const DIRECTORY = new URL('../golden/', import.meta.url);
const workshop = new Workshop();
afterAll(() => workshop.dispose());

/** `fill VOLUME OFFSET LENGTH CHARACTER` is `varve write` with so many of that character on its input. */
function perform(line: string, pool: string): void {
  const words = line.split(' ').map((word) => word.replace('POOL', pool));
  if (words[0] !== 'fill') {
    json(...words);
    return;
  }
  const [, volume = '', offset = '', length = '', character = ''] = words;
  const input = character.repeat(Number(length));
  const child = spawnSync(process.execPath, [MAIN, 'write', volume, '--offset', offset], { input });
  expect(child.status, `${line}: ${child.stderr.toString()}`).toBe(0);
}

function settled(text: string): string {
  const seen = new Map<string, string>();
  return text
    .replaceAll(/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g, (uuid) => {
      if (/^[0-]+$/.test(uuid)) return 'none';
      if (!seen.has(uuid)) seen.set(uuid, `uuid${seen.size + 1}`);
      return seen.get(uuid) as string;
    })
    .replaceAll(/(volume-\d+)-[0-9a-f]{8}/g, '$1-…')
    .replaceAll(/\d{4}-\d\d-\d\dT[0-9:.]+Z/g, 'TIME')
    .replaceAll(/(\[operation \d: (?:snapshot|rollback) .*? b) \d+/g, '$1 TIME')
    .replaceAll(/'before [^']*'/g, "'AUTOMATIC'");
}

describe('varve dump', () => {
  it.each(readdirSync(DIRECTORY).filter((name) => name.endsWith('.txt')))('says what it said before: %s', (name) => {
    const file = new URL(name, DIRECTORY);
    const [script = '', expected = ''] = readFileSync(file, 'utf8').split('---\n');
    const pool = workshop.fresh();
    for (const line of script.split('\n')) if (line !== '' && !line.startsWith('#')) perform(line, pool);
    const { status, stdout } = varve('dump', pool);
    expect(status).toBe(0);
    const dump = settled(stdout.toString());
    if (process.env['VARVE_GOLDEN'] === 'write') writeFileSync(file, `${script}---\n${dump}`);
    else expect(dump).toBe(expected);
  });
});
