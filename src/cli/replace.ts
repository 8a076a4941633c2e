import type { DirectoryPool } from '../pool/directory.ts';
import { formatSize, shown } from './output.ts';
import { UsageError } from './parse.ts';
import { untilStopped, withPool, type Verb } from './verb.ts';

export const replace: Verb = {
  name: 'replace',
  usage: 'replace POOL --volume ID --device OLD [NEW] [--force]',
  summary: 'puts a device in the place of a member, failed or living, and fills it',
  details: [
    'NEW may be OLD: what is there is made anew. Without NEW it is a file in the pool directory. OLD is a path as `status` shows it, or a uuid.',
    'Cut off while it fills, it goes on when the pool is next opened for writing. Cut off before, it is to be called again; where NEW is OLD the member may',
    'be out then, and need --force. Exit status 1 when something could not be filled, or was damaged before.',
  ],
  options: {
    volume: { kind: 'count', value: 'ID', help: 'the storage volume' },
    device: { kind: 'text', value: 'OLD', help: 'the member that goes' },
    force: { kind: 'flag', help: 'take a device that has something on it' },
  },
  positionals: [1, 2],
  async run(args, { output, signal }) {
    const volume = args.number('volume');
    const old = args.text('device');
    if (volume === undefined || old === undefined) throw new UsageError('--volume and --device are missing: say which member goes');
    const path = args.count > 1 ? args.at(1) : undefined;
    const onProgress = (done: number, total: number): void => output.progress('rebuilding', done, total);
    const result = await withPool(args.at(0), args.without('device'), output, 'write', (pool) =>
      untilStopped(pool, signal, () => (pool as DirectoryPool).replaceDevice(volume, old, path, { force: args.has('force'), onProgress })),
    );
    const { unfilledBytes, damagedBytes } = result;
    const whole = unfilledBytes === 0 && damagedBytes === 0;
    const lines = [
      `storage volume ${volume}: ${shown(path ?? 'a new file')} is in the place of ${shown(old)}${whole ? ', and whole' : ''}`,
    ];
    if (unfilledBytes > 0)
      lines.push(
        `${formatSize(unfilledBytes)} could not be filled: what they are made of cannot be read now; \`varve scrub\` fills them when it can be`,
      );
    if (damagedBytes > 0) lines.push(`${formatSize(damagedBytes)} were damaged beyond repair before: \`varve check\` names them`);
    await output.result({ volume, old, new: path ?? null, ...result }, lines);
    return whole ? 0 : 1;
  },
};
