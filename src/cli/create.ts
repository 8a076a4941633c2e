import { checkPolicy } from '../pool/policy.ts';
import { parseVirtualSize } from '../units.ts';
import { formatSize } from './output.ts';
import { parseReference, usage, UsageError, type Arguments, type OptionSpecs } from './parse.ts';
import { POOL_OPTIONS, withPool, type Verb } from './verb.ts';

export const POLICY_OPTIONS: OptionSpecs = {
  'grow-at': { kind: 'share', value: 'P', help: 'grow when so much is used (0.95)' },
  'compact-to': { kind: 'share', value: 'P', help: 'compact instead of growing below so much live data (0.8)' },
  'shrink-below': { kind: 'share', value: 'P', help: 'give a storage volume back below so much live data (0.7)' },
  mode: { kind: 'text', value: 'MODE', choices: ['auto', 'prompt', 'fixed'], help: 'auto, prompt or fixed (auto)' },
  'min-volumes': { kind: 'count', value: 'N', help: 'least storage volumes (1)' },
  'max-volumes': { kind: 'count', value: 'N', help: 'most storage volumes (as many as the pool has)' },
};

export function policyOf(args: Arguments): ReturnType<typeof checkPolicy> {
  return usage(() =>
    checkPolicy({
      growAt: args.number('grow-at'),
      compactTo: args.number('compact-to'),
      shrinkBelow: args.number('shrink-below'),
      mode: args.text('mode'),
      minVolumes: args.number('min-volumes'),
      maxVolumes: args.number('max-volumes'),
    }),
  );
}

export function virtualSizeOf(args: Arguments): number {
  const size = args.number('size');
  if (size === undefined) throw new UsageError('--size is missing');
  return usage(() => parseVirtualSize(size, '--size'));
}

export const create: Verb = {
  name: 'create',
  usage: 'create POOL/VOLUME --size S [policy options]',
  summary: 'makes an empty virtual volume of this virtual size (thin)',
  options: { size: { kind: 'size', value: 'S', help: 'virtual size, at most 4096TiB' }, ...POLICY_OPTIONS, ...POOL_OPTIONS },
  positionals: [1, 1],
  async run(args, { output }) {
    const reference = parseReference(args.at(0), 'none');
    const size = virtualSizeOf(args);
    const policy = policyOf(args);
    const made = await withPool(reference.pool, args, output, 'write', async (pool) => {
      const volume = await pool.createVolume(reference.volume, { size, policy });
      return { name: volume.name, sizeBytes: volume.sizeBytes, policy };
    });
    await output.result(made, [`volume ${made.name}, ${formatSize(made.sizeBytes)} (thin)`]);
  },
};
