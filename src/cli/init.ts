import { DirectoryPool } from '../pool/directory.ts';
import { formatSize } from './output.ts';
import { usage, UsageError } from './parse.ts';
import type { Verb } from './verb.ts';

const LEVELS = ['single', '0', '1', '5', '6', '10'] as const;

export const init: Verb = {
  name: 'init',
  usage: 'init POOL [--volume-size S] [--max-volumes N] [--raid LEVEL] [--device PATH …] [--force]',
  summary: 'makes a new pool',
  details: ['Without --device, storage volumes are files made in the pool directory on demand, sparse.'],
  options: {
    'volume-size': { kind: 'size', value: 'S', help: 'size of a storage volume that is made on demand (1GiB)' },
    'max-volumes': { kind: 'count', value: 'N', help: 'most storage volumes that the pool may have' },
    raid: { kind: 'text', value: 'LEVEL', choices: LEVELS, help: `${LEVELS.join(' ')} (single)` },
    device: { kind: 'text', value: 'PATH', many: true, help: 'a file or block device as storage volume; may be repeated' },
    force: { kind: 'flag', help: 'take devices that have something on them' },
  },
  positionals: [1, 1],
  async run(args, { output }) {
    const level = args.text('raid') ?? 'single';
    if (level !== 'single') throw new UsageError(`--raid ${level} is not built yet; only single is`);
    let pool: DirectoryPool;
    try {
      pool = await DirectoryPool.init(args.at(0), {
        volumeSize: args.number('volume-size'),
        maxVolumes: args.number('max-volumes'),
        devices: args.texts('device'),
        force: args.has('force'),
      });
    } catch (error) {
      // What these numbers can be is known to the pool alone.
      return usage(() => {
        throw error;
      });
    }
    const status = await pool.status();
    await pool.close();
    await output.result({ pool: status.pool, storageVolumes: status.storageVolumes }, () => [
      `pool ${status.pool.id} in ${status.pool.path}`,
      `${status.storageVolumes.length} storage volume${status.storageVolumes.length === 1 ? '' : 's'} of ${[...new Set(status.storageVolumes.map((volume) => formatSize(volume.sizeBytes)))].join(', ')}`,
    ]);
  },
};
