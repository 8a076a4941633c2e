import type { DirectoryPool } from '../pool/directory.ts';
import { RAID_LEVELS, type RaidLevel } from '../pool/raid.ts';
import { usage, UsageError } from './parse.ts';
import { withPool, type Verb } from './verb.ts';

export const add: Verb = {
  name: 'add',
  usage: 'add POOL --device PATH … [--raid LEVEL] [--strip-size S] [--force]',
  summary: 'adds a storage volume over these devices',
  options: {
    device: { kind: 'text', value: 'PATH', many: true, help: 'a file or block device; several are the members of one storage volume' },
    raid: { kind: 'text', value: 'LEVEL', choices: RAID_LEVELS, help: `${RAID_LEVELS.join(' ')} (single)` },
    'strip-size': { kind: 'size', value: 'S', help: 'bytes of a strip, 4KiB to 1MiB' },
    force: { kind: 'flag', help: 'take devices that have something on them' },
  },
  positionals: [1, 1],
  async run(args, { output }) {
    const devices = args.texts('device');
    if (devices.length === 0) throw new UsageError('--device is missing: say which devices are added');
    const raid = (args.text('raid') ?? 'single') as RaidLevel;
    const id = await withPool(args.at(0), args.without('device'), output, 'write', async (pool) => {
      try {
        return await (pool as DirectoryPool).addDevices(devices, { raid, stripSize: args.number('strip-size'), force: args.has('force') });
      } catch (error) {
        return usage((): never => {
          throw error;
        });
      }
    });
    await output.result({ id, raid, devices }, [
      `storage volume ${id}: RAID level ${raid} over ${devices.length} device${devices.length === 1 ? '' : 's'}`,
    ]);
  },
};
