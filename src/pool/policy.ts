// When a log grows, cleans and shrinks, as the pool keeps it. Acting on it is the core's; this is the record and its bounds.

export interface VolumePolicy {
  /** Share of the segments in use from which on the log may ask for another storage volume. */
  readonly growAt: number;
  /** Share of live data under which the log compacts instead of growing. */
  readonly compactTo: number;
  /** A storage volume is given back when the rest would stay filled below this. */
  readonly shrinkBelow: number;
  /** `auto` grows by itself, `fixed` never; `prompt` asks: until answering is built it behaves as `fixed`. */
  readonly mode: 'auto' | 'prompt' | 'fixed';
  readonly minVolumes: number;
  /** 0: as many as the pool has. */
  readonly maxVolumes: number;
}

export const DEFAULT_POLICY: VolumePolicy = { growAt: 0.95, compactTo: 0.8, shrinkBelow: 0.7, mode: 'auto', minVolumes: 1, maxVolumes: 0 };

const COUNT_MAX = 0xfffe;

/**
 * The given parts of a policy over the defaults, checked; anything else in it is dropped.
 *
 * @throws TypeError, RangeError
 */
export function checkPolicy(given: { readonly [key: string]: unknown } | Partial<VolumePolicy> = {}): VolumePolicy {
  const asked = given as { readonly [key: string]: unknown };
  const growAt = share(asked, 'growAt');
  const compactTo = share(asked, 'compactTo');
  const shrinkBelow = share(asked, 'shrinkBelow');
  const mode = asked['mode'] ?? DEFAULT_POLICY.mode;
  if (mode !== 'auto' && mode !== 'prompt' && mode !== 'fixed')
    throw new RangeError(`policy mode must be auto, prompt or fixed, got ${String(mode)}`);
  const minVolumes = count(asked, 'minVolumes', 1);
  const maxVolumes = count(asked, 'maxVolumes', 0);
  if (maxVolumes !== 0 && maxVolumes < minVolumes)
    throw new RangeError(`policy maxVolumes (${maxVolumes}) is below minVolumes (${minVolumes})`);
  if (shrinkBelow >= growAt)
    throw new RangeError(`policy shrinkBelow (${shrinkBelow}) must be below growAt (${growAt}), or the log would grow and shrink in turn`);
  return { growAt, compactTo, shrinkBelow, mode, minVolumes, maxVolumes };
}

function share(asked: { readonly [key: string]: unknown }, key: 'growAt' | 'compactTo' | 'shrinkBelow'): number {
  const value = asked[key] ?? DEFAULT_POLICY[key];
  if (typeof value !== 'number') throw new TypeError(`policy ${key} must be a number, got ${typeof value}`);
  if (!(value > 0 && value <= 1)) throw new RangeError(`policy ${key} must be above 0 and at most 1, got ${value}`);
  return value;
}

function count(asked: { readonly [key: string]: unknown }, key: 'minVolumes' | 'maxVolumes', least: number): number {
  const value = asked[key] ?? DEFAULT_POLICY[key];
  if (typeof value !== 'number') throw new TypeError(`policy ${key} must be a number, got ${typeof value}`);
  if (!Number.isInteger(value) || value < least || value > COUNT_MAX)
    throw new RangeError(`policy ${key} must be a whole number from ${least} to ${COUNT_MAX}, got ${value}`);
  return value;
}
