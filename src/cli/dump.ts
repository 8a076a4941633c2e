import { POOL_OPTIONS, withPool, type Verb } from './verb.ts';

export const dump: Verb = {
  name: 'dump',
  usage: 'dump POOL [--ranges]',
  summary: 'prints what is on disk, annotated; with --ranges the bytes that are in use',
  options: { ranges: { kind: 'flag', help: 'list the byte ranges that are in use, by device' }, ...POOL_OPTIONS },
  positionals: [1, 1],
  async run(args, { output, signal }) {
    const description = await withPool(args.at(0), args, output, 'read', (pool) => pool.describe({ signal }));
    if (args.has('ranges')) {
      const ranges = description.devices.flatMap((device) => device.ranges.map((range) => ({ path: device.path, ...range })));
      await output.result(ranges, () => ranges.map((range) => `${range.path ?? 'memory'} ${range.offset} ${range.length} ${range.what}`));
      return;
    }
    await output.result(description, () => description.lines);
  },
};
