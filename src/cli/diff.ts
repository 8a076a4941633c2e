import { parseReference, usage, UsageError } from './parse.ts';
import { checkName } from '../names.ts';
import { pickSource, POOL_OPTIONS, SOURCE_OPTION, withVolume, type Verb } from './verb.ts';

/** Text is written in pieces of about this size. */
const PIECE_LENGTH = 64 * 1024;

export const diff: Verb = {
  name: 'diff',
  usage: 'diff POOL/VOLUME --from A [--to B] [--source NAME]',
  summary: 'prints the ranges that changed from snapshot A to B, or to now',
  details: ['Each line has offset and length in bytes, and whether the range holds data or is a hole now.'],
  options: {
    from: { kind: 'text', value: 'A', help: 'the earlier snapshot' },
    to: { kind: 'text', value: 'B', help: 'the later snapshot (now)' },
    ...SOURCE_OPTION,
    ...POOL_OPTIONS,
  },
  positionals: [1, 1],
  async run(args, { output, signal }) {
    const reference = parseReference(args.at(0), 'none');
    const given = args.text('from');
    if (given === undefined) throw new UsageError('--from is missing');
    const from = usage(() => checkName(given, 'snapshot'));
    const until = args.text('to');
    const to = until === undefined ? undefined : usage(() => checkName(until, 'snapshot'));
    await withVolume(reference, args, output, 'read', async (volume) => {
      const source = volume.source(pickSource(volume, to ?? null, args.text('source')));
      // Written as it is found: there may be millions of ranges.
      let text = output.json ? '[' : '';
      let first = true;
      for await (const { offset, length, kind } of source.diff(from, to, { signal })) {
        if (output.json) text += `${first ? '' : ','}\n  ${JSON.stringify({ offset, length, kind })}`;
        else text += `${String(offset).padStart(16)} ${String(length).padStart(14)}  ${kind}\n`;
        first = false;
        if (text.length >= PIECE_LENGTH) {
          await output.bytes(text);
          text = '';
        }
      }
      await output.bytes(output.json ? `${text}${first ? '' : '\n'}]\n` : text);
    });
  },
};
