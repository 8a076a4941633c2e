// What a verb prints: one JSON document, or text for people; bytes; and progress, on stderr and only on a terminal.

import { fstatSync, writeSync } from 'node:fs';
import { formatSize } from '../units.ts';

const STDOUT = 1;
const CLEAR_LINE = '\r\u001b[K';

/** The reader of our output went away; nothing is wrong, there is only nobody left to tell. */
export class ReaderGone extends Error {
  override readonly name = 'ReaderGone';
}

export class Output {
  readonly json: boolean;
  readonly #progress: boolean;
  #gone: Error | null = null;
  /** Something was printed: a document that was begun cannot become another one. */
  #begun = false;
  #lineShown = false;
  #shownAt = 0;
  readonly #notes: string[] = [];
  /** Not by the stream: see `isWrittenItself`. */
  readonly #isWrittenItself = isWrittenItself();

  constructor(json: boolean) {
    this.json = json;
    this.#progress = process.stderr.isTTY === true;
    process.stdout.on('error', (error: NodeJS.ErrnoException) => {
      this.#gone =
        error.code === 'EPIPE' || error.code === 'ERR_STREAM_DESTROYED' ? new ReaderGone('the reader of the output is gone') : error;
    });
    // Nobody to complain to.
    process.stderr.on('error', () => undefined);
  }

  /** The result of a verb: `document` as JSON, with the notes if it has none of its own, or the lines. A reader that is gone changes nothing about
   *  it, nor about the exit status. */
  async result(document: object, lines: readonly string[] | (() => readonly string[])): Promise<void> {
    this.endProgress();
    const text = this.json ? [JSON.stringify(this.#withNotes(document), null, 2)] : typeof lines === 'function' ? lines() : lines;
    try {
      if (text.length > 0) await this.bytes(`${text.join('\n')}\n`);
    } catch (error) {
      if (!(error instanceof ReaderGone)) throw error;
    }
  }

  #withNotes(document: object): object {
    return this.#notes.length === 0 || Array.isArray(document) || 'notes' in document ? document : { ...document, notes: this.#notes };
  }

  /** Resolves when the bytes have left. @throws ReaderGone */
  async bytes(bytes: Uint8Array | string): Promise<void> {
    if (this.#gone !== null) throw this.#gone;
    this.#begun = true;
    if (this.#isWrittenItself) return writeAll(bytes);
    await new Promise<void>((resolve, reject) => {
      process.stdout.write(bytes, (error) => (error === null || error === undefined ? resolve() : reject(error)));
    }).catch((error: unknown) => {
      throw this.#gone ?? error;
    });
  }

  /** The document that says what failed; where one was begun, it stays cut off, which no reader of JSON takes for a whole one. */
  async failure(code: string, message: string): Promise<void> {
    const document = this.#withNotes({ error: { code, message } });
    if (this.json && !this.#begun) await this.bytes(`${JSON.stringify(document, null, 2)}\n`).catch(() => undefined);
  }

  error(message: string): void {
    this.endProgress();
    process.stderr.write(`varve: ${message}\n`);
  }

  /** Once, however often it is said. */
  note(message: string): void {
    if (this.#notes.includes(message)) return;
    this.#lineShown = false;
    this.#notes.push(message);
    note(message);
  }

  /** One line that is drawn over, ten times a second at most. */
  progress(what: string, doneBytes: number, totalBytes: number): void {
    if (!this.#progress) return;
    const now = Date.now();
    if (now - this.#shownAt < 100 && doneBytes < totalBytes) return;
    this.#shownAt = now;
    this.#lineShown = true;
    const percent = totalBytes === 0 ? 100 : Math.floor((doneBytes / totalBytes) * 100);
    process.stderr.write(`${CLEAR_LINE}${what}  ${String(percent).padStart(3)} %  ${formatSize(doneBytes)} of ${formatSize(totalBytes)}`);
  }

  endProgress(): void {
    if (!this.#lineShown) return;
    this.#lineShown = false;
    process.stderr.write(CLEAR_LINE);
  }
}

/**
 * Files and devices: of a file the stream takes a write that the disk has no room for in part for done, and to a block device it writes nothing at all, without
 * a word. Pipes, sockets and terminals are left to it.
 */
function isWrittenItself(): boolean {
  try {
    const stat = fstatSync(STDOUT);
    return stat.isFile() || stat.isBlockDevice() || (stat.isCharacterDevice() && process.stdout.isTTY !== true);
  } catch {
    return false; // closed: writing says so
  }
}

/** @throws what the system says, ENOSPC for one */
function writeAll(data: Uint8Array | string): void {
  const bytes = typeof data === 'string' ? new TextEncoder().encode(data) : data;
  for (let done = 0; done < bytes.length;) {
    const written = writeSync(STDOUT, bytes, done, bytes.length - done);
    if (written === 0) throw new Error('writing the output: expected some bytes to be taken, none were');
    done += written;
  }
}

/** Worth knowing, and no failure. */
export function note(message: string): void {
  process.stderr.write(`${process.stderr.isTTY === true ? CLEAR_LINE : ''}varve: note: ${shown(message)}\n`);
}

/** Rows as aligned columns; a column whose heading starts with `>` is aligned to the right. */
export function table(headings: readonly string[], rows: readonly (readonly string[])[], indent = ''): string[] {
  const right = headings.map((heading) => heading.startsWith('>'));
  const titles = headings.map((heading) => heading.replace(/^>/, ''));
  const widths = titles.map((title, column) => Math.max(width(title), ...rows.map((row) => width(row[column] ?? ''))));
  const line = (cells: readonly string[]): string =>
    (
      indent +
      cells
        .map((cell, column) => {
          const fill = ' '.repeat(Math.max(0, (widths[column] ?? 0) - width(cell)));
          return right[column] === true ? fill + cell : cell + fill;
        })
        .join('  ')
    ).trimEnd();
  return [line(titles), ...rows.map(line)];
}

function width(text: string): number {
  return [...text].length;
}

// eslint-disable-next-line no-control-regex -- controls are what is looked for
const CONTROLS = /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g;

/** Control characters made visible, for names that are shown on a terminal. */
export function shown(text: string): string {
  return text.replace(CONTROLS, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

export function shownTime(milliseconds: number): string {
  return new Date(milliseconds)
    .toISOString()
    .replace('T', ' ')
    .replace(/\.\d+Z$/, 'Z');
}

export { formatSize } from '../units.ts';
