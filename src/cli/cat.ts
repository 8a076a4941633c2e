import { parseReference } from './parse.ts';
import { readAhead } from '../replication/read-ahead.ts';
import { pickSource, POOL_OPTIONS, SOURCE_OPTION, withVolume, type Verb } from './verb.ts';

export const cat: Verb = {
  name: 'cat',
  usage: 'cat POOL/VOLUME[@NAME] [--offset N] [--length N] [--source NAME]',
  summary: 'writes bytes of a volume or snapshot to stdout',
  options: {
    offset: { kind: 'size', value: 'N', help: 'first byte (0)' },
    length: { kind: 'size', value: 'N', help: 'how many (to the end)' },
    ...SOURCE_OPTION,
    ...POOL_OPTIONS,
  },
  positionals: [1, 1],
  raw: true,
  async run(args, { output, signal }) {
    const reference = parseReference(args.at(0), 'allowed');
    await withVolume(reference, args, output, 'read', async (volume) => {
      const source = volume.source(pickSource(volume, reference.snapshot, args.text('source')));
      const device = reference.snapshot === null ? source : source.at(reference.snapshot);
      const offset = args.number('offset') ?? 0;
      const length = args.number('length') ?? device.sizeBytes - offset;
      if (length < 0 || offset + length > device.sizeBytes) {
        throw new RangeError(
          `reading '${args.at(0)}': expected a range inside ${device.sizeBytes} bytes, got offset ${offset}, length ${Math.max(0, length)}`,
        );
      }
      for await (const chunk of readAhead(device, offset + length, signal, offset)) await output.bytes(chunk.bytes);
    });
  },
};
