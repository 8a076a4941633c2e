// A pool, or a snapshot, as one stream of bytes: a tar archive (POSIX ustar), so that everybody has a program that looks into it.
//
//   varve.json         first: { "format": "varve-archive", "version": 1, "kind": "pool" | "snapshot", …, "files": [{ "name", "sizeBytes" }] }
//   the files          in the order of that list: of a pool its storage volumes, byte for byte; of a snapshot `snapshot.img`
//   checksums.json     last: { "crc32": { name: eight hexadecimal digits } } of each of the files
//
// A directory into which the archive of a pool was unpacked (`tar -xf`) is a pool. What is imported is taken only when it is whole: tar itself has sums of
// its headers only, and a download that was cut off has no `checksums.json`.
//
// The archive is hostile input: names are checked by whoever gives the sink, sizes must be those of the list, nothing is read into memory but a piece.

import { messageOf, VarveError } from '../errors.ts';
import { crc32 } from './crc32.ts';

export type ArchiveKind = 'pool' | 'snapshot';

/** A file that goes into an archive. */
export interface ArchiveSource {
  readonly name: string;
  readonly sizeBytes: number;
  read(offset: number, into: Uint8Array): Promise<void>;
}

/** Takes a file that comes out of one. */
export interface ArchiveTarget {
  write(offset: number, bytes: Uint8Array): Promise<void>;
  /** All of it has been written. */
  end(): Promise<void>;
}

export interface ArchiveHead {
  readonly kind: ArchiveKind;
  readonly about: Readonly<Record<string, unknown>>;
  readonly files: readonly { readonly name: string; readonly sizeBytes: number }[];
}

export interface ArchiveSink {
  /** Looks at what comes. Throws when it is not what is wanted. */
  begin(head: ArchiveHead): Promise<void>;
  file(name: string, sizeBytes: number): Promise<ArchiveTarget>;
}

const SECTOR = 512;
const PIECE_BYTES = 1 << 20;
const HEAD_NAME = 'varve.json';
const SUMS_NAME = 'checksums.json';
const JSON_BYTES_MAX = 16 << 20;
const FILES_MAX = 65534;
/** Eleven octal digits; what is larger is written in base 256, as GNU tar and bsdtar read it. */
const OCTAL_MAX = 8 ** 11 - 1;

/**
 * The archive of these files. They are read as the stream is; `done` is called once, when it has ended, was cancelled, or failed.
 */
export function archiveStream(
  kind: ArchiveKind,
  about: Readonly<Record<string, unknown>>,
  files: readonly ArchiveSource[],
  done: () => Promise<void> = () => Promise.resolve(),
): ReadableStream<Uint8Array<ArrayBuffer>> {
  const pieces = archivePieces(kind, about, files);
  // It may be cancelled while it ends.
  let ending: Promise<void> | undefined;
  const end = (): Promise<void> => (ending ??= done());
  return new ReadableStream<Uint8Array<ArrayBuffer>>({
    async pull(controller) {
      try {
        const { value, done: ended } = await pieces.next();
        if (ended !== true) return controller.enqueue(value);
        await end();
        controller.close();
      } catch (error) {
        await end();
        throw error;
      }
    },
    async cancel() {
      await pieces.return(undefined);
      await end();
    },
  });
}

async function* archivePieces(
  kind: ArchiveKind,
  about: Readonly<Record<string, unknown>>,
  files: readonly ArchiveSource[],
): AsyncGenerator<Uint8Array<ArrayBuffer>, void, undefined> {
  const list = files.map(({ name, sizeBytes }) => ({ name, sizeBytes }));
  yield* small(HEAD_NAME, { format: 'varve-archive', version: 1, kind, ...about, files: list });
  const sums: Record<string, string> = {};
  for (const file of files) {
    yield tarHeader(file.name, file.sizeBytes);
    let crc = 0;
    for (let at = 0; at < file.sizeBytes; at += PIECE_BYTES) {
      const piece = new Uint8Array(Math.min(PIECE_BYTES, file.sizeBytes - at));
      await file.read(at, piece);
      crc = crc32(crc, piece);
      yield piece;
    }
    if (file.sizeBytes % SECTOR !== 0) yield new Uint8Array(SECTOR - (file.sizeBytes % SECTOR));
    sums[file.name] = hex(crc);
  }
  yield* small(SUMS_NAME, { crc32: sums });
  yield new Uint8Array(2 * SECTOR);
}

function* small(name: string, content: unknown): Generator<Uint8Array<ArrayBuffer>, void, undefined> {
  const bytes = new TextEncoder().encode(`${JSON.stringify(content, undefined, 2)}\n`);
  yield tarHeader(name, bytes.length);
  const padded = new Uint8Array(Math.ceil(bytes.length / SECTOR) * SECTOR);
  padded.set(bytes);
  yield padded;
}

/** name 100 · mode 8 · uid 8 · gid 8 · size 12 · mtime 12 · checksum 8 · type 1 · link name 100 · "ustar\0" "00" · … */
function tarHeader(name: string, sizeBytes: number): Uint8Array<ArrayBuffer> {
  const header = new Uint8Array(SECTOR);
  const text = (at: number, value: string): void => header.set(new TextEncoder().encode(value), at);
  const octal = (at: number, digits: number, value: number): void => text(at, value.toString(8).padStart(digits, '0'));
  text(0, name);
  octal(100, 7, 0o600);
  octal(108, 7, 0);
  octal(116, 7, 0);
  if (sizeBytes <= OCTAL_MAX) octal(124, 11, sizeBytes);
  else {
    header[124] = 0x80;
    let rest = sizeBytes;
    for (let at = 135; at > 124 && rest > 0; at--, rest = Math.floor(rest / 256)) header[at] = rest % 256;
  }
  octal(136, 11, 0);
  text(156, '0');
  text(257, 'ustar\0' + '00');
  octal(148, 6, checksumOf(header));
  header[154] = 0;
  header[155] = 0x20;
  return header;
}

/** Sum of the bytes of a header, those of the sum itself as spaces. */
function checksumOf(header: Uint8Array): number {
  let sum = 0;
  for (let at = 0; at < SECTOR; at++) sum += at >= 148 && at < 156 ? 0x20 : (header[at] as number);
  return sum;
}

function hex(value: number): string {
  return value.toString(16).padStart(8, '0');
}

/**
 * Takes an archive apart. When it resolves, everything was there and every checksum held; when it rejects, the sink throws away what it has.
 * @throws VarveError VARVE_CORRUPT, VARVE_UNSUPPORTED, and what the sink throws
 */
export async function readArchive(stream: ReadableStream<Uint8Array>, sink: ArchiveSink): Promise<ArchiveHead> {
  const source = new Source(stream);
  try {
    const head = await readHead(source);
    await sink.begin(head);
    const sums = new Map<string, string>();
    for (const { name, sizeBytes } of head.files) {
      const entry = await readHeader(source);
      if (entry === undefined || entry.name !== name || entry.sizeBytes !== sizeBytes) {
        throw corrupt(
          `expected '${name}' of ${sizeBytes} bytes, got ${entry === undefined ? 'the end' : `'${entry.name}' of ${entry.sizeBytes}`}`,
        );
      }
      const target = await sink.file(name, sizeBytes);
      let crc = 0;
      for (let at = 0; at < sizeBytes;) {
        const piece = await source.take(Math.min(PIECE_BYTES, sizeBytes - at));
        crc = crc32(crc, piece);
        await target.write(at, piece);
        at += piece.length;
      }
      await source.take((SECTOR - (sizeBytes % SECTOR)) % SECTOR);
      await target.end();
      sums.set(name, hex(crc));
    }
    const told = await readSmall(source, SUMS_NAME);
    const crcs = told['crc32'];
    for (const [name, sum] of sums) {
      const wanted = typeof crcs === 'object' && crcs !== null ? (crcs as Record<string, unknown>)[name] : undefined;
      if (wanted !== sum) throw corrupt(`the checksum of '${name}' is ${sum}, the archive says ${String(wanted)}`);
    }
    await source.end();
    return head;
  } catch (error) {
    await source.cancel(error);
    throw error;
  }
}

async function readHead(source: Source): Promise<ArchiveHead> {
  const { format, version, kind, files, ...about } = await readSmall(source, HEAD_NAME);
  if (format !== 'varve-archive') throw corrupt(`'${HEAD_NAME}' does not say that it is one of Varve`);
  if (version !== 1) {
    throw new VarveError('VARVE_UNSUPPORTED', DOING, {
      detail: `it is of version ${String(version)}, expected 1: a newer Varve can read it`,
    });
  }
  if (kind !== 'pool' && kind !== 'snapshot') throw corrupt(`it is of the unknown kind '${String(kind)}'`);
  if (!Array.isArray(files) || files.length > FILES_MAX) throw corrupt('it has no list of files');
  const list = (files as unknown[]).map((file) => {
    const { name, sizeBytes } = (typeof file === 'object' && file !== null ? file : {}) as { name?: unknown; sizeBytes?: unknown };
    if (typeof name !== 'string' || !/^[\w.-]{1,99}$/.test(name)) throw corrupt(`it lists a file of the name ${JSON.stringify(name)}`);
    if (typeof sizeBytes !== 'number' || !Number.isSafeInteger(sizeBytes) || sizeBytes < 0) throw corrupt(`it gives '${name}' no size`);
    return { name, sizeBytes };
  });
  if (new Set(list.map((file) => file.name)).size !== list.length) throw corrupt('it lists a file twice');
  return { kind, about, files: list };
}

async function readSmall(source: Source, name: string): Promise<Record<string, unknown>> {
  const entry = await readHeader(source);
  if (entry === undefined || entry.name !== name || entry.sizeBytes > JSON_BYTES_MAX) throw corrupt(`expected '${name}'`);
  const bytes = await source.take(entry.sizeBytes);
  await source.take((SECTOR - (entry.sizeBytes % SECTOR)) % SECTOR);
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder().decode(bytes));
  } catch (error) {
    throw corrupt(`'${name}': ${messageOf(error)}`);
  }
  if (typeof value !== 'object' || value === null) throw corrupt(`'${name}' is no object`);
  return value as Record<string, unknown>;
}

async function readHeader(source: Source): Promise<{ name: string; sizeBytes: number } | undefined> {
  const header = await source.take(SECTOR);
  if (header.every((byte) => byte === 0)) return undefined;
  const text = (at: number, length: number): string => {
    const bytes = header.subarray(at, at + length);
    const end = bytes.indexOf(0);
    return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end)).trim();
  };
  if (text(257, 5) !== 'ustar') throw corrupt('expected the header of a tar file');
  if (Number.parseInt(text(148, 8), 8) !== checksumOf(header)) throw corrupt('the checksum of a tar header is wrong');
  let sizeBytes = 0;
  if (header[124] === 0x80) for (let at = 125; at < 136; at++) sizeBytes = sizeBytes * 256 + (header[at] as number);
  else sizeBytes = Number.parseInt(text(124, 12), 8);
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes < 0) throw corrupt('a tar header has no size');
  return { name: text(0, 100), sizeBytes };
}

const DOING = 'reading an archive';

function corrupt(detail: string): VarveError {
  return new VarveError('VARVE_CORRUPT', DOING, { detail });
}

/** The stream by numbers of bytes, whatever pieces it comes in. */
class Source {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  #rest = new Uint8Array(0) as Uint8Array;

  constructor(stream: ReadableStream<Uint8Array>) {
    this.#reader = stream.getReader();
  }

  /** Exactly so many bytes. @throws VarveError VARVE_CORRUPT when it ends before */
  async take(length: number): Promise<Uint8Array> {
    if (this.#rest.length >= length) return this.#cut(length);
    const bytes = new Uint8Array(length);
    let filled = 0;
    while (filled < length) {
      if (this.#rest.length === 0) {
        const { value, done } = await this.#reader.read();
        if (done) throw corrupt('it ends too early');
        if (!(value instanceof Uint8Array)) throw new TypeError(`${DOING}: expected a stream of Uint8Array, got ${typeof value}`);
        this.#rest = value;
        continue;
      }
      const part = this.#cut(Math.min(length - filled, this.#rest.length));
      bytes.set(part, filled);
      filled += part.length;
    }
    return bytes;
  }

  /** What follows is of no interest, but its sender wants it taken. */
  async end(): Promise<void> {
    while (!(await this.#reader.read()).done) continue;
  }

  async cancel(reason: unknown): Promise<void> {
    await this.#reader.cancel(reason).catch(() => undefined); // it failed by itself already
  }

  #cut(length: number): Uint8Array {
    const part = this.#rest.subarray(0, length);
    this.#rest = this.#rest.subarray(length);
    return part;
  }
}
