// Makes a small pool with a bit of everything, as an archive. Each released format has one here, made once and kept for ever: later versions must open it
// (test/unit/fixtures.test.ts).
//
//   node scripts/make-fixture.ts test/fixtures/pool-1.0.tar.gz
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { exportPool, StoragePool } from '../src/node.ts';
import { FIXTURE, stateAfter } from '../test/fixtures/states.ts';

const target = process.argv[2];
if (target === undefined) throw new Error('expected the file to write');
const directory = mkdtempSync(join(tmpdir(), 'varve-fixture-'));
try {
  const path = join(directory, 'pool');
  const pool = await StoragePool.init(path, { volumeSize: '1MiB' });
  const volume = await pool.createVolume('disk', { size: FIXTURE.sizeBytes });
  let before = new Uint8Array(FIXTURE.sizeBytes);
  for (const [step, name] of FIXTURE.snapshots.entries()) {
    const state = stateAfter(step + 1);
    for (let at = 0; at < state.length; at += 4096) {
      const block = state.subarray(at, at + 4096);
      if (Buffer.compare(block, before.subarray(at, at + 4096)) === 0) continue;
      if (block.every((byte) => byte === 0)) await volume.discard(at, 4096);
      else await volume.write(at, block);
    }
    if (step === 1) await volume.flush();
    await volume.snapshot(name);
    before = state;
  }
  await volume.rollback(FIXTURE.snapshots[0], { keepAs: 'left' });
  const second = await pool.createVolume('Zweite – ½', { size: 8192 });
  await second.write(100, new TextEncoder().encode('second'));
  await pool.close();
  const pieces: Uint8Array[] = [];
  for await (const piece of await exportPool(path)) pieces.push(piece);
  writeFileSync(target, gzipSync(Buffer.concat(pieces), { level: 9 }));
} finally {
  rmSync(directory, { recursive: true, force: true });
}
