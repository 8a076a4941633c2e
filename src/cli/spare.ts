import type { DirectoryPool } from '../pool/directory.ts';
import { shown } from './output.ts';
import { UsageError } from './parse.ts';
import { withPool, type Verb } from './verb.ts';

export const spare: Verb = {
  name: 'spare',
  usage: 'spare POOL --device PATH [--force]',
  summary: 'adds a device that takes the place of a member that fails, by itself',
  options: {
    device: { kind: 'text', value: 'PATH', help: 'a file or block device' },
    force: { kind: 'flag', help: 'take a device that has something on it' },
  },
  positionals: [1, 1],
  async run(args, { output }) {
    const device = args.text('device');
    if (device === undefined) throw new UsageError('--device is missing: say which device is the spare');
    const id = await withPool(args.at(0), args.without('device'), 'write', (pool) =>
      (pool as DirectoryPool).addSpareDevice(device, { force: args.has('force') }),
    );
    await output.result({ id, device }, [`${shown(device)} is a spare`]);
  },
};
