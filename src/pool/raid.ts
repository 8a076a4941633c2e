// RAID levels as users name them. What they mean is the core's business (assembly/stripe/geometry.ts); here are their names, the least
// members, and the strips that are chosen when nobody says.

export type RaidLevel = 'single' | '0' | '1' | '5' | '6' | '10';

/** In the order in which the core counts them. */
export const RAID_LEVELS: readonly RaidLevel[] = ['single', '0', '1', '5', '6', '10'];

export const MEMBERS_MIN: Readonly<Record<RaidLevel, number>> = { single: 1, '0': 2, '1': 2, '5': 3, '6': 4, '10': 4 };
export const MEMBERS_MAX = 32;

/** A strip is at most so large: 1 MiB. */
export const STRIP_BYTES_MAX = 1 << 20;

/**
 * Blocks of a strip when nobody says: one where there is parity, because a flush fills up to a whole stripe; 64 KiB where there is none, so that
 * a request of that size goes to one device. On `1` a strip has no meaning: members hold the same.
 */
export function defaultStripBlocks(level: RaidLevel): number {
  return level === '0' || level === '10' ? 16 : level === 'single' ? 0 : 1;
}

export function levelNumber(level: RaidLevel): number {
  return RAID_LEVELS.indexOf(level);
}

export function checkLevel(value: unknown, what: string): RaidLevel {
  if (typeof value === 'string' && (RAID_LEVELS as readonly string[]).includes(value)) return value as RaidLevel;
  throw new RangeError(`${what}: expected one of ${RAID_LEVELS.join(', ')}, got ${JSON.stringify(value)}`);
}

/** @throws RangeError naming how many it takes */
export function checkMembers(level: RaidLevel, count: number, what: string): void {
  const even = level === '10' && count % 2 !== 0;
  if (level === 'single' ? count === 1 : count >= MEMBERS_MIN[level] && count <= MEMBERS_MAX && !even) return;
  const expected =
    level === 'single' ? 'one device' : `${level === '10' ? 'an even number of' : 'from'} ${MEMBERS_MIN[level]} to ${MEMBERS_MAX} devices`;
  throw new RangeError(`${what}: RAID level ${level} takes ${expected}, got ${count}`);
}

/** Strips of data in a stripe: the share of its members that a storage volume gives. */
export function dataColumns(level: RaidLevel, members: number): number {
  return { single: 1, '0': members, '1': 1, '5': members - 1, '6': members - 2, '10': members / 2 }[level];
}
