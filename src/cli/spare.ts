import type { DirectoryPool } from '../pool/directory.ts';
import { shown } from './output.ts';
import { UsageError } from './parse.ts';
import { untilStopped, withPool, type Verb } from './verb.ts';

export const spare: Verb = {
  name: 'spare',
  usage: 'spare POOL --device PATH [--failed-only] [--force]',
  summary: 'adds a device that takes the place of a member that fails or is missing, by itself',
  details: [
    'It does so as soon as a write or flush fails on a member, and when the pool is opened for writing and one is not there. With --failed-only one that is',
    'not there, unplugged perhaps, keeps its place: when it is back, it is rebuilt. One that comes back after a spare took its place is left alone.',
  ],
  options: {
    device: { kind: 'text', value: 'PATH', help: 'a file or block device' },
    'failed-only': { kind: 'flag', help: 'not for members that are merely missing' },
    force: { kind: 'flag', help: 'take a device that has something on it' },
  },
  positionals: [1, 1],
  async run(args, { output, signal }) {
    const device = args.text('device');
    if (device === undefined) throw new UsageError('--device is missing: say which device is the spare');
    const id = await withPool(args.at(0), args.without('device'), output, 'write', (pool) =>
      untilStopped(pool, signal, () =>
        (pool as DirectoryPool).addSpareDevice(device, { force: args.has('force'), only: args.has('failed-only') ? 'faulted' : undefined }),
      ),
    );
    await output.result({ id, device }, [`${shown(device)} is a spare`]);
  },
};
