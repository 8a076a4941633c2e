// Arguments: options, sizes, and the names of volumes and snapshots. What is wrong with them is a `UsageError`: exit status 2.

import { checkName } from '../names.ts';
import { parseSize } from '../units.ts';
import { messageOf } from '../errors.ts';

/** Wrong usage: exit status 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

export interface OptionSpec {
  /** `flag` takes no value. `share` is a number above 0 and at most 1, or a percentage (`95%`). */
  readonly kind: 'flag' | 'text' | 'size' | 'count' | 'share';
  /** What stands for the value in the help: `S`, `PATH`. */
  readonly value?: string;
  readonly help: string;
  /** May be given several times. */
  readonly many?: boolean;
  /** The only texts that it takes. */
  readonly choices?: readonly string[];
}

export type OptionSpecs = { readonly [name: string]: OptionSpec };

export class Arguments {
  readonly positionals: readonly string[];
  readonly #values: ReadonlyMap<string, readonly (string | number | true)[]>;

  constructor(positionals: readonly string[], values: ReadonlyMap<string, readonly (string | number | true)[]>) {
    this.positionals = positionals;
    this.#values = values;
  }

  /** The positional argument; there is one, because the number was checked. */
  at(index: number): string {
    return this.positionals[index] ?? '';
  }

  /** Positional arguments. */
  get count(): number {
    return this.positionals.length;
  }

  /** The same without one of the options: where its name means something else to others. */
  without(name: string): Arguments {
    return new Arguments(this.positionals, new Map([...this.#values].filter(([key]) => key !== name)));
  }

  has(name: string): boolean {
    return this.#values.has(name);
  }

  text(name: string): string | undefined {
    return this.#values.get(name)?.at(-1) as string | undefined;
  }

  number(name: string): number | undefined {
    return this.#values.get(name)?.at(-1) as number | undefined;
  }

  texts(name: string): readonly string[] {
    return (this.#values.get(name) ?? []) as readonly string[];
  }
}

/**
 * Splits arguments into positionals and options. `--name value`, `--name=value`; `--` ends the options.
 *
 * @param least least number of positionals; @param most most number of them
 * @throws UsageError
 */
export function parseArguments(argv: readonly string[], specs: OptionSpecs, least: number, most: number): Arguments {
  const positionals: string[] = [];
  const values = new Map<string, (string | number | true)[]>();
  for (let index = 0; index < argv.length; index++) {
    const word = argv[index] ?? '';
    if (word === '--') {
      positionals.push(...argv.slice(index + 1));
      break;
    }
    if (!word.startsWith('--')) {
      if (word.startsWith('-') && word.length > 1) throw new UsageError(`unknown option ${word}`);
      positionals.push(word);
      continue;
    }
    const equals = word.indexOf('=');
    const name = equals < 0 ? word.slice(2) : word.slice(2, equals);
    const spec = Object.hasOwn(specs, name) ? specs[name] : undefined;
    if (spec === undefined) throw new UsageError(`unknown option --${name}`);
    if (values.has(name) && spec.many !== true) throw new UsageError(`--${name} is given twice`);
    let value: string | number | true = true;
    if (spec.kind === 'flag') {
      if (equals >= 0) throw new UsageError(`--${name} takes no value`);
    } else {
      const given = equals < 0 ? argv[++index] : word.slice(equals + 1);
      if (given === undefined) throw new UsageError(`--${name} needs a value`);
      value = optionValue(name, spec, given);
    }
    values.set(name, [...(values.get(name) ?? []), value]);
  }
  // An empty path would be the working directory.
  if (positionals.includes('')) throw new UsageError('an argument is empty');
  if (positionals.length < least) throw new UsageError('an argument is missing');
  if (positionals.length > most) throw new UsageError(`too many arguments: ${positionals.slice(most).join(' ')}`);
  return new Arguments(positionals, values);
}

function optionValue(name: string, spec: OptionSpec, given: string): string | number {
  switch (spec.kind) {
    case 'size':
      return usage(() => parseSize(given, `--${name}`));
    case 'count': {
      if (!/^\d{1,15}$/.test(given)) throw new UsageError(`--${name}: expected a whole number, got ${JSON.stringify(given)}`);
      return Number(given);
    }
    case 'share': {
      const match = /^(\d{1,3}(?:\.\d{1,6})?)(%?)$/.exec(given);
      const value = match === null ? Number.NaN : match[2] === '%' ? Number(match[1]) / 100 : Number(match[1]);
      if (!(value > 0 && value <= 1)) throw new UsageError(`--${name}: expected a share such as 0.95 or 95%, got ${JSON.stringify(given)}`);
      return value;
    }
    default:
      if (given === '') throw new UsageError(`--${name} is empty`);
      if (spec.choices !== undefined && !spec.choices.includes(given)) {
        throw new UsageError(`--${name}: expected one of ${spec.choices.join(', ')}, got ${JSON.stringify(given)}`);
      }
      return given;
  }
}

/** POOL/VOLUME or POOL/VOLUME@NAME, taken apart. */
export interface Reference {
  readonly pool: string;
  readonly volume: string;
  readonly snapshot: string | null;
}

/**
 * POOL is a path, the last part after the last `/` is the volume, and a snapshot's name follows an `@` in it.
 *
 * @param snapshot whether a snapshot must, may or must not be named
 * @throws UsageError
 */
export function parseReference(text: string, snapshot: 'required' | 'allowed' | 'none'): Reference {
  const slash = text.lastIndexOf('/');
  const wanted = snapshot === 'required' ? 'POOL/VOLUME@SNAPSHOT' : snapshot === 'allowed' ? 'POOL/VOLUME[@SNAPSHOT]' : 'POOL/VOLUME';
  if (slash < 0 || slash === text.length - 1) throw new UsageError(`expected ${wanted}, got ${JSON.stringify(text)}`);
  const pool = slash === 0 ? '/' : text.slice(0, slash);
  const last = text.slice(slash + 1);
  const at = last.indexOf('@');
  if (at >= 0 && snapshot === 'none') throw new UsageError(`expected ${wanted}, got ${JSON.stringify(text)}`);
  if (at < 0 && snapshot === 'required') throw new UsageError(`expected ${wanted}, got ${JSON.stringify(text)}`);
  const volume = usage(() => checkName(at < 0 ? last : last.slice(0, at), 'volume'));
  return { pool, volume, snapshot: at < 0 ? null : usage(() => checkName(last.slice(at + 1), 'snapshot')) };
}

/** Makes what a bad argument throws a matter of usage. */
export function usage<T>(check: () => T): T {
  try {
    return check();
  } catch (cause) {
    if (cause instanceof TypeError || cause instanceof RangeError) throw new UsageError(messageOf(cause), { cause });
    throw cause;
  }
}
