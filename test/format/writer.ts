// Writes a random history into a pool directory, until it has done so many steps or is killed: what the reader in Python is tested with.
//
//   node test/format/writer.ts POOL SEED STEPS LEAF_BLOCKS SEGMENT_BLOCKS VOLUME_SIZE
//
// Tells one line of JSON for each thing that a reader must find (history.ts), and `{ "step" }` when a step is done.
import { existsSync, writeSync } from 'node:fs';
import { StoragePool } from '../../src/node.ts';
import { Random } from '../../src/testing/random.ts';
import { History, sha256, type Told } from './history.ts';

const [path = '', seed = '1', steps = '100', leafBlocks = '512', segmentBlocks = '16', volumeSize = '16MiB'] = process.argv.slice(2);
const tell = (line: Told): void => void writeSync(1, `${JSON.stringify(line)}\n`);

const geometry = { leafBlocks: Number(leafBlocks), checkpointEntries: 700, unflushedLimitBytes: 1 << 20 };
const pool = existsSync(path)
  ? await StoragePool.open(path, { geometry })
  : await StoragePool.init(path, { volumeSize, maxVolumes: 24, segmentBlocks: Number(segmentBlocks), geometry });
const history = await History.begin(pool, new Random(Number(seed)), tell);
for (let step = 0; step < Number(steps); step++) {
  await history.step();
  tell({ step });
}
await pool.close();
for (const [flushed, bytes] of history.contents) tell({ flushed, sha256: sha256(bytes) });
tell({ closed: true });
