import { createReadStream, fstatSync } from 'node:fs';
import type { Readable } from 'node:stream';
import { formatSize } from './output.ts';
import { parseReference } from './parse.ts';
import { pickSource, POOL_OPTIONS, SOURCE_OPTION, withVolume, type Verb } from './verb.ts';

const STDIN = 0;
const CHUNK_BYTES = 1 << 20;

export const write: Verb = {
  name: 'write',
  usage: 'write POOL/VOLUME [--offset N] [--source NAME]',
  summary: 'writes bytes from stdin into a volume',
  details: ['Everything is durable when it exits. Bytes past the end of the volume are an error.'],
  options: { offset: { kind: 'size', value: 'N', help: 'first byte (0)' }, ...SOURCE_OPTION, ...POOL_OPTIONS },
  positionals: [1, 1],
  async run(args, { output, signal }) {
    const reference = parseReference(args.at(0), 'none');
    const start = args.number('offset') ?? 0;
    const done = await withVolume(reference, args, output, 'write', async (volume) => {
      const source = volume.source(pickSource(volume, null, args.text('source')));
      const { sizeBytes } = source;
      let offset = start;
      try {
        for await (const bytes of chunks(signal)) {
          if (offset + bytes.length > sizeBytes) {
            throw new RangeError(
              `writing '${args.at(0)}': expected at most ${Math.max(0, sizeBytes - start)} bytes at offset ${start} of a volume of ${sizeBytes}`,
            );
          }
          await source.write(offset, bytes, { signal });
          offset += bytes.length;
        }
        signal.throwIfAborted();
      } finally {
        // Also what came before trouble or Ctrl-C is kept.
        await source.flush();
      }
      return { offset: start, writtenBytes: offset - start };
    });
    await output.result(done, [`wrote ${formatSize(done.writtenBytes)} at ${done.offset}`]);
  },
};

/** Stdin. Of a block device or a directory the stream of the runtime is an empty one, without a word. */
function input(): Readable {
  const stat = fstatSync(STDIN);
  if (stat.isDirectory()) throw new Error('reading stdin: expected a file, a device or a pipe, got a directory');
  return stat.isBlockDevice() ? createReadStream('', { fd: STDIN, autoClose: false, highWaterMark: CHUNK_BYTES }) : process.stdin;
}

/** Stdin in pieces of 1 MiB, the last one shorter. */
async function* chunks(signal: AbortSignal): AsyncGenerator<Uint8Array, void, void> {
  const buffer = new Uint8Array(CHUNK_BYTES);
  let filled = 0;
  const stream = input();
  const stop = (): void => void stream.destroy();
  signal.addEventListener('abort', stop, { once: true });
  try {
    for await (const piece of stream as AsyncIterable<Uint8Array>) {
      for (let at = 0; at < piece.length;) {
        const count = Math.min(piece.length - at, CHUNK_BYTES - filled);
        buffer.set(piece.subarray(at, at + count), filled);
        at += count;
        filled += count;
        if (filled === CHUNK_BYTES) {
          yield buffer;
          filled = 0;
        }
      }
    }
    if (filled > 0) yield buffer.subarray(0, filled);
  } catch (error) {
    signal.throwIfAborted();
    throw error;
  } finally {
    signal.removeEventListener('abort', stop);
  }
}
