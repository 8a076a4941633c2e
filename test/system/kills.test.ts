// `replicate`, killed at random moments in processes of its own. SIGKILL is no power cut (what was written stays in the page cache; power cuts are
// simulated): it is the end of a process at any instruction, with its lock, its child processes and its half of a commit.
//
// After each kill: nobody holds the lock; `check` is clean; every earlier snapshot restores bit for bit; the volume is partly the old and partly the new
// state, block by block; and the next run writes exactly the blocks that the killed one did not get done.
import { spawn } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, statSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { isVarveError, replicate, StoragePool } from '../../src/node.ts';
import { FileDevice } from '../../src/device/file.ts';
import { MemoryDevice } from '../../src/device/memory.ts';
import { restore } from '../../src/replication/restore.ts';
import { Random } from '../../src/testing/random.ts';
import { amount, BLOCK, equal, FULL, json, MAIN, MIB, noise, record, SEED, sleep, start, Workshop } from './support.ts';

const workshop = new Workshop();
afterAll(() => workshop.dispose());

const IMAGE_BYTES = 20 * MIB;
const BLOCKS = IMAGE_BYTES / BLOCK;
/** Earlier snapshots that are kept, and restored after each kill. */
const KEPT = 3;
const KILLS = amount(20, 200);

/** Changes about a third of the blocks: most to something new, some to zeroes. */
function change(image: Uint8Array, random: Random): void {
  for (let block = 0; block < BLOCKS; block++) {
    const part = image.subarray(block * BLOCK, (block + 1) * BLOCK);
    if (random.chance(0.05)) part.fill(0);
    else if (random.chance(0.3)) noise(part, random.word());
  }
}

const ZEROES = new Uint8Array(BLOCK);

describe('a killed replication', () => {
  it(`leaves nothing behind but what it got done, ${KILLS} times (seed ${SEED})`, { timeout: FULL ? 7_200_000 : 400_000 }, async () => {
    const random = new Random(SEED);
    const pool = workshop.fresh();
    const primary = workshop.fresh();
    json('init', pool, '--volume-size', '16MiB');
    const image = noise(new Uint8Array(IMAGE_BYTES), random.word());
    writeFileSync(primary, image);
    json('replicate', primary, `${pool}/disk`, '--snapshot', 's0');
    const snapshots: { name: string; bytes: Uint8Array }[] = [{ name: 's0', bytes: image.slice() }];

    // How long a run takes, to kill within it.
    const runs: number[] = [];
    const measure = async (): Promise<void> => {
      const begun = performance.now();
      json('replicate', primary, `${pool}/disk`, '--snapshot', `timed${runs.length}`);
      runs.push(performance.now() - begun);
      await Promise.resolve();
    };
    change(image, random);
    writeFileSync(primary, image);
    await measure();
    snapshots.push({ name: 'timed0', bytes: image.slice() });
    // Between the two, in milliseconds, a run is in the middle of its work. They follow what kills find: one before anything was written moves the first, one after all the second.
    let low = 0.25 * (runs[0] as number);
    let high = 1.1 * (runs[0] as number);

    let midway = 0;
    let untouched = 0;
    let finished = 0;
    let locked = 0;
    for (let kill = 0; kill < KILLS; kill++) {
      change(image, random);
      writeFileSync(primary, image);
      const name = `s${kill + 1}`;
      // A process needs a moment before it does anything: most kills come after that.
      const share = random.below(1000) / 1000;
      const moment = random.chance(0.1) ? 1.2 * high * share : low + (high - low) * share;
      const untouchedSince = lastWritten(pool);
      const { child, ended } = start('replicate', primary, `${pool}/disk`, '--snapshot', name);
      await sleep(moment);
      if (kill % 5 === 0 && lastWritten(pool) !== untouchedSince && child.exitCode === null && (await whoHolds(pool)) === 'VARVE_LOCKED')
        locked++;
      child.kill('SIGKILL');
      const code = await ended;

      // Nobody holds it now, and nothing is damaged; all that was kept is as it was.
      const opened = await StoragePool.open(pool, { readOnly: true });
      const check = await opened.check();
      expect(check.problems, `kill ${kill} after ${moment.toFixed(0)} ms`).toEqual([]);
      const volume = await opened.volume('disk');
      const there = volume.snapshots().some((snapshot) => snapshot.name === name);
      for (const snapshot of snapshots) {
        const target = new MemoryDevice(IMAGE_BYTES);
        await restore(volume.at(snapshot.name), target);
        const restored = new Uint8Array(IMAGE_BYTES);
        await target.read(0, restored);
        expect(equal(restored, snapshot.bytes), `snapshot ${snapshot.name} after kill ${kill}`).toBe(true);
      }
      const now = new Uint8Array(IMAGE_BYTES);
      await volume.read(0, now);
      await opened.close();

      const before = (snapshots.at(-1) as { bytes: Uint8Array }).bytes;
      let left = 0;
      let done = 0;
      for (let at = 0; at < IMAGE_BYTES; at += BLOCK) {
        const wanted = image.subarray(at, at + BLOCK);
        const present = now.subarray(at, at + BLOCK);
        const old = before.subarray(at, at + BLOCK);
        if (equal(wanted, present)) done += equal(wanted, old) ? 0 : 1;
        else {
          expect(equal(present, old), `kill ${kill}: block ${at / BLOCK} is neither old nor new`).toBe(true);
          if (!equal(wanted, ZEROES)) left += BLOCK;
        }
      }
      if (there) {
        finished++;
        if (moment > (low + high) / 2) high -= 0.1 * (high - low);
        expect(left).toBe(0);
      } else {
        expect(code, 'a run that says it is done has its snapshot').not.toBe(0);
        if (done === 0) {
          untouched++;
          if (moment < (low + high) / 2) low += 0.1 * (high - low);
        } else {
          midway++;
          low -= 0.05 * (high - low);
          high += 0.05 * (high - low);
        }
        // What was there already is not written again.
        const writer = await StoragePool.open(pool);
        const device = await FileDevice.open(primary, { readOnly: true });
        const result = await replicate(device, await writer.volume('disk'), { snapshot: name });
        expect(result.writtenBytes, `written after kill ${kill}`).toBe(left);
        await device.close();
        await writer.close();
      }
      snapshots.push({ name, bytes: image.slice() });
      if (snapshots.length > KEPT) {
        const [oldest] = snapshots.splice(0, 1);
        json('delete', `${pool}/disk@${(oldest as { name: string }).name}`);
      }
      if (kill % 25 === 24) json('compact', `${pool}/disk`);
    }
    record('kills', { kills: KILLS, midway, untouched, finished, sawLocked: locked });
    // How many kills fall into the middle depends on the machine: a sample only shows the figure, the full count asks for a quarter.
    if (KILLS >= 100)
      expect(midway, `${KILLS} kills: ${midway} midway, ${untouched} before anything, ${finished} after all`).toBeGreaterThan(KILLS / 4);
    if (KILLS >= 100) expect(locked).toBeGreaterThan(0);
    expect(json('check', pool)).toMatchObject({ clean: true });
  });

  it('keeps a second process out while it runs, and nobody afterwards', async () => {
    const pool = workshop.fresh();
    const primary = workshop.fresh();
    json('init', pool, '--volume-size', '64MiB');
    writeFileSync(primary, noise(new Uint8Array(MIB), 1));
    const descriptor = openSync(primary, 'r+');
    writeSync(descriptor, 'the end', 3 * 1024 * MIB); // sparse: takes a while to read
    closeSync(descriptor);
    const before = lastWritten(pool);
    const { child, ended } = start('replicate', primary, `${pool}/disk`);
    while (lastWritten(pool) === before && child.exitCode === null) await sleep(5);
    expect(await whoHolds(pool)).toBe('VARVE_LOCKED');
    child.kill('SIGKILL');
    await ended;
    expect(await whoHolds(pool)).toBe('');
    expect(json('check', pool)).toMatchObject({ clean: true });
  });

  it('keeps others out as long as a program that it started gives back space', async () => {
    const pool = workshop.fresh();
    json('init', pool, '--volume-size', '16MiB');
    json('create', `${pool}/disk`, '--size', '1MiB');
    // One that takes its time.
    const programs = workshop.fresh();
    const begun = workshop.fresh();
    const go = workshop.fresh();
    mkdirSync(programs);
    const script = `#!/bin/sh\ntouch '${begun}'\nfor try in $(seq 200); do [ -e '${go}' ] || sleep 0.05; done\nPATH="$WITHOUT" exec fallocate "$@"\n`;
    writeFileSync(join(programs, 'fallocate'), script, { mode: 0o755 });
    const { PATH } = process.env;
    const child = spawn(process.execPath, [MAIN, 'compact', `${pool}/disk`], {
      stdio: 'ignore',
      env: { ...process.env, WITHOUT: PATH, PATH: `${programs}:${PATH}` },
    });
    const ended = new Promise((resolve) => child.once('exit', resolve));
    while (!existsSync(begun) && child.exitCode === null) await sleep(5);
    child.kill('SIGKILL');
    await ended;
    expect(await whoHolds(pool)).toBe('VARVE_LOCKED');
    writeFileSync(go, '');
    for (let tries = 0; tries < 200 && (await whoHolds(pool)) !== ''; tries++) await sleep(20);
    expect(await whoHolds(pool)).toBe('');
    expect(json('check', pool)).toMatchObject({ clean: true });
  });
});

/**
 * When one of the pool's files was last written, in nanoseconds. Who writes holds the lock; to ask for the lock takes it for a moment and
 * would keep out whom it asks about, so the tests wait for this first.
 */
function lastWritten(pool: string): bigint {
  const times = readdirSync(pool)
    .filter((name) => name.endsWith('.varve'))
    .map((name) => statSync(join(pool, name), { bigint: true, throwIfNoEntry: false })?.mtimeNs ?? 0n);
  return times.reduce((latest, time) => (time > latest ? time : latest), 0n);
}

/** The code of the error with which the pool cannot be opened for writing, or nothing. */
async function whoHolds(pool: string): Promise<string> {
  try {
    await (await StoragePool.open(pool)).close();
    return '';
  } catch (error) {
    if (!isVarveError(error)) throw error;
    return error.code;
  }
}
