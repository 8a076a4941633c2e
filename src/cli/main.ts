#!/usr/bin/env node
// `varve VERB …`: finds the verb, runs it, and turns how it ended into an exit status.
//
//   0  done      1  failed, or damage found, or stopped by Ctrl-C      2  wrong usage

import { isVarveError, messageOf } from '../errors.ts';
import { add } from './add.ts';
import { cat } from './cat.ts';
import { check } from './check.ts';
import { compact } from './compact.ts';
import { create } from './create.ts';
import { deleteVerb } from './delete.ts';
import { diff } from './diff.ts';
import { dump } from './dump.ts';
import { init } from './init.ts';
import { list } from './list.ts';
import { Output, ReaderGone, table } from './output.ts';
import { parseArguments, UsageError, type OptionSpecs } from './parse.ts';
import { replace } from './replace.ts';
import { replicate } from './replicate.ts';
import { resize } from './resize.ts';
import { restore } from './restore.ts';
import { rollback } from './rollback.ts';
import { scrub } from './scrub.ts';
import { onStop } from './signals.ts';
import { snapshot } from './snapshot.ts';
import { spare } from './spare.ts';
import { status } from './status.ts';
import { COMMON_OPTIONS, type Verb } from './verb.ts';
import { write } from './write.ts';

const VERBS: readonly Verb[] = [
  init,
  add,
  replace,
  spare,
  create,
  resize,
  replicate,
  snapshot,
  rollback,
  deleteVerb,
  list,
  status,
  diff,
  cat,
  write,
  restore,
  compact,
  check,
  scrub,
  dump,
];

const NOT_BUILT_YET = [
  'remove',
  'clone',
  'send',
  'receive',
  'policy',
  'requests',
  'answer',
  'criteria',
  'reserve',
  'release',
  'select',
  'serve',
  'watch',
];

async function main(argv: readonly string[]): Promise<number> {
  const [name, ...rest] = argv;
  const json = beforeDashes(rest).includes('--json');
  const output = new Output(json);
  const stop = new AbortController();
  const onSignal = (signal: NodeJS.Signals): void => {
    // Whoever asks twice does not want to wait: what was flushed is safe without a clean end.
    if (stop.signal.aborted) process.exit(1);
    stop.abort(new Error(`stopped by ${signal}`));
  };
  onStop(onSignal);
  try {
    if (name === undefined) throw new UsageError('a verb is missing; `varve --help` lists them');
    if (name === '--help' || name === '-h' || name === 'help') {
      const asked = VERBS.find((verb) => verb.name === rest[0]);
      await output.bytes(`${(asked === undefined ? overview() : help(asked)).join('\n')}\n`);
      return 0;
    }
    if (NOT_BUILT_YET.includes(name)) throw new UsageError(`\`${name}\` is not built yet`);
    const verb = VERBS.find((one) => one.name === name);
    if (verb === undefined) throw new UsageError(`there is no verb \`${name}\`; \`varve --help\` lists them`);
    if (beforeDashes(rest).some((word) => word === '--help' || word === '-h')) {
      await output.bytes(`${help(verb).join('\n')}\n`);
      return 0;
    }
    const [least, most] = verb.positionals;
    let args;
    try {
      args = parseArguments(rest, { ...verb.options, ...COMMON_OPTIONS }, least, most);
      if (json && verb.raw === true) throw new UsageError(`\`${verb.name}\` prints bytes, not a document`);
    } catch (error) {
      if (error instanceof UsageError) throw new UsageError(`${error.message}\nusage: varve ${verb.usage}`);
      throw error;
    }
    return (await verb.run(args, { output, signal: stop.signal })) ?? 0;
  } catch (error) {
    if (error instanceof ReaderGone) return 0; // it has had enough
    const usage = error instanceof UsageError;
    const message = stop.signal.aborted && error === stop.signal.reason ? `${messageOf(error)}; nothing is lost` : messageOf(error);
    output.error(message);
    const code = usage ? 'USAGE' : isVarveError(error) ? error.code : 'ERROR';
    await output.failure(code, message);
    if (error instanceof Error && isTracing()) process.stderr.write(`${error.stack}\n${causes(error)}`);
    return usage ? 2 : 1;
  }
}

function isTracing(): boolean {
  try {
    return process.env['VARVE_TRACE'] !== undefined;
  } catch {
    return false; // Deno without --allow-env: that is no reason to hide the error that is to be told
  }
}

function beforeDashes(words: readonly string[]): readonly string[] {
  const end = words.indexOf('--');
  return end < 0 ? words : words.slice(0, end);
}

function causes(error: Error): string {
  let text = '';
  for (let cause = error.cause; cause instanceof Error; cause = cause.cause) text += `caused by ${cause.stack}\n`;
  return text;
}

function overview(): string[] {
  return [
    'varve VERB …',
    '',
    'A volume is named POOL/VOLUME, a snapshot POOL/VOLUME@NAME; POOL is a path.',
    'Sizes take KiB, MiB, GiB and TiB. `varve VERB --help` tells more.',
    '',
    ...table(
      ['VERB', 'DOES'],
      VERBS.map((verb) => [verb.name, verb.summary]),
    ),
    '',
    `Not built yet: ${NOT_BUILT_YET.join(', ')}.`,
  ];
}

function help(verb: Verb): string[] {
  const specs: OptionSpecs = { ...verb.options, ...(verb.raw === true ? { help: COMMON_OPTIONS['help']! } : COMMON_OPTIONS) };
  const rows = Object.entries(specs).map(([name, spec]) => [`--${name}${spec.value === undefined ? '' : ` ${spec.value}`}`, spec.help]);
  return [
    `varve ${verb.usage}`,
    '',
    `${verb.summary.charAt(0).toUpperCase()}${verb.summary.slice(1)}.`,
    ...(verb.details ?? []),
    '',
    ...table(['OPTION', ''], rows).slice(1),
  ];
}

process.exit(await main(process.argv.slice(2)));
