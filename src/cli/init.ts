import { DirectoryPool } from '../pool/directory.ts';
import { formatSize } from './output.ts';
import { RAID_LEVELS, type RaidLevel } from '../pool/raid.ts';
import { usage } from './parse.ts';
import type { Verb } from './verb.ts';

export const init: Verb = {
  name: 'init',
  usage: 'init POOL [--volume-size S] [--max-volumes N] [--raid LEVEL] [--strip-size S] [--device PATH …] [--force]',
  summary: 'makes a new pool',
  details: [
    'Without --device, storage volumes are files made in the pool directory on demand, sparse.',
    'With --raid, the devices are the members of one storage volume; without --device, each storage volume is as many files of --volume-size as',
    'the level needs at least (0 and 1: two, 5: three, 6 and 10: four): that mends damage, and does not outlive the disk that they are all on.',
  ],
  options: {
    'volume-size': { kind: 'size', value: 'S', help: 'size of a storage volume that is made on demand (1GiB)' },
    'max-volumes': {
      kind: 'count',
      value: 'N',
      help: 'with so many in the pool none is made on demand; `add` may go beyond, and raises it then',
    },
    raid: { kind: 'text', value: 'LEVEL', choices: RAID_LEVELS, help: `${RAID_LEVELS.join(' ')} (single)` },
    'strip-size': { kind: 'size', value: 'S', help: 'bytes of a strip, 4KiB to 1MiB (4KiB where there is parity, else 64KiB)' },
    device: { kind: 'text', value: 'PATH', many: true, help: 'a file or block device as storage volume; may be repeated' },
    force: { kind: 'flag', help: 'take devices that have something on them' },
  },
  positionals: [1, 1],
  async run(args, { output }) {
    let pool: DirectoryPool;
    try {
      pool = await DirectoryPool.init(args.at(0), {
        volumeSize: args.number('volume-size'),
        maxVolumes: args.number('max-volumes'),
        devices: args.texts('device'),
        raid: args.text('raid') as RaidLevel | undefined,
        stripSize: args.number('strip-size'),
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
    for (const text of status.notes) output.note(text);
    await output.result({ pool: status.pool, storageVolumes: status.storageVolumes }, () => [
      `pool ${status.pool.id} in ${status.pool.path}`,
      `${status.storageVolumes.length} storage volume${status.storageVolumes.length === 1 ? '' : 's'} of ${[...new Set(status.storageVolumes.map((volume) => formatSize(volume.sizeBytes)))].join(', ')}`,
    ]);
  },
};
