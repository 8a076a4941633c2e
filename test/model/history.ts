// Random histories: what a world is made of, and what is done in it, as plain data. A step names things by number, taken modulo what there is when it is
// performed, and brings its own seed for the order in which commands run; so a step can be left out and the others still mean the same: that is what
// `shrink` lives on.
import { Random } from '../../src/testing/random.ts';
import type { FaultKind } from '../../src/testing/simulated-device.ts';

export type Op =
  | 'write'
  | 'read'
  | 'readSnapshot'
  | 'trim'
  | 'flush'
  | 'snapshot'
  | 'deleteSnapshot'
  | 'rollback'
  | 'resize'
  | 'create'
  | 'delete'
  | 'checkpoint'
  | 'compact'
  | 'diff'
  | 'verify'
  | 'check'
  | 'crash'
  | 'reopen'
  | 'evacuate'
  | 'grow'
  | 'fault'
  | 'flip'
  | 'calm'
  | 'lose'
  | 'bring'
  | 'rebuild'
  | 'scrub'
  | 'rot';

export interface Step {
  readonly op: Op;
  /** Which one: source, snapshot, device. */
  readonly a: number;
  /** Where: sector, block, command. */
  readonly at: number;
  /** How much. */
  readonly count: number;
  /** What kind: bits that the op defines. */
  readonly flag: number;
  /** Is the next step made only when this one has ended? */
  readonly wait: boolean;
  /** Turns of the driver before the next step. */
  readonly turns: number;
  readonly seed: number;
}

/** `rot`: members hold wrong bytes, never so many that a level cannot do without them. */
export type Trouble = 'none' | 'failing' | 'damage' | 'rot';

/** What a storage volume is made of. */
export interface Raid {
  readonly level: number;
  readonly members: number;
  readonly strip: number;
  readonly segmentBlocks: number;
}

/** Seeds from here on make worlds of RAID volumes; those below mean what they meant before there were any. */
export const RAID_SEEDS = 1_000_000_000;
/** Seeds from here on are of RAID volumes whose segments are freed and filled again while scrubs look at them, which other seeds do not bring together. */
export const SCRUB_SEEDS = 4_200_000_000;

export interface Setup {
  readonly segmentBlocks: number;
  /** Segments of each device. */
  readonly segments: readonly number[];
  /** So many devices are storage volumes of the log from the start; the others are spare. */
  readonly assigned: number;
  readonly leafBlocks: number;
  readonly checkpointEntries: number;
  readonly unflushedLimitBytes: number;
  readonly sumsCacheBytes: number;
  /** In blocks. */
  readonly sources: readonly { readonly volume: number; readonly name: string; readonly blocks: number }[];
  readonly blocksMax: number;
  readonly disorder: number;
  readonly eagerness: number;
  readonly policy: {
    readonly growAt: number;
    readonly compactTo: number;
    readonly shrinkBelow: number;
    readonly mode: number;
    /** Storage volumes that are never given back by policy. */
    readonly volumesMin?: number;
  };
  readonly trouble: Trouble;
  readonly snapshotsMax: number;
  /** Of each storage volume; left out: all are single devices. */
  readonly raid?: readonly Raid[];
}

export interface History {
  readonly seed: number;
  readonly setup: Setup;
  readonly steps: readonly Step[];
}

/** Faults that a device under promises P1–P3 may have without being damaged. */
export const FAILURES: readonly FaultKind[] = ['readFails', 'writeFails', 'flushFails', 'full'];
/** Faults that leave something wrong on the medium, or show it once. */
export const DAMAGES: readonly FaultKind[] = ['writeLost', 'writeTorn', 'writeMisdirected', 'writeFlipped', 'readFlipped', 'readStale'];

type Weights = Partial<Record<Op, number>>;

/** Flag of a crash: none of these bits means that the process dies, and no power cut. */
export const CUT_KILL = 3;

/** What a history is mostly about. */
const THEMES: readonly { readonly name: string; readonly weight: number; readonly ops: Weights }[] = [
  { name: 'everything', weight: 4, ops: {} },
  { name: 'overwrite', weight: 3, ops: { write: 90, snapshot: 1, trim: 3, flush: 12, checkpoint: 3, compact: 4 } },
  { name: 'snapshots', weight: 2, ops: { snapshot: 12, deleteSnapshot: 8, rollback: 5, readSnapshot: 8, diff: 4, trim: 8, write: 60 } },
  { name: 'crashes', weight: 3, ops: { crash: 14, flush: 14, snapshot: 4 } },
  { name: 'space', weight: 2, ops: { evacuate: 4, grow: 4, compact: 6, write: 70, trim: 12, deleteSnapshot: 6 } },
  { name: 'fragments', weight: 1, ops: { write: 110, trim: 8, snapshot: 2 } }, // single blocks all over small sources
  { name: 'checkpoints', weight: 1, ops: { checkpoint: 14, crash: 9, flush: 10, trim: 10, snapshot: 9, deleteSnapshot: 5 } },
];

const USUAL: Readonly<Record<Op, number>> = {
  write: 50,
  read: 10,
  readSnapshot: 4,
  trim: 6,
  flush: 9,
  snapshot: 5,
  deleteSnapshot: 4,
  rollback: 2,
  resize: 1.5,
  create: 0.5,
  delete: 0.4,
  checkpoint: 1.5,
  compact: 3,
  diff: 1,
  verify: 1,
  check: 0.5,
  crash: 3,
  reopen: 1,
  evacuate: 1,
  grow: 0.7,
  fault: 0,
  flip: 0,
  calm: 0,
  lose: 0,
  bring: 0,
  rebuild: 0,
  scrub: 0,
  rot: 0,
};

const OPS = Object.keys(USUAL) as Op[];

/** The history of a seed. */
export function makeHistory(seed: number): History {
  const random = new Random(Math.imul(seed + 1, 0x9e3779b1));
  const trouble: Trouble = random.pick(['none', 'none', 'none', 'failing', 'damage'] as const);
  const theme = THEMES[random.weighted(THEMES.map((entry) => entry.weight))] as (typeof THEMES)[number];
  const made = makeSetup(random, trouble, theme.name);
  // Leaves with so much history that the image of one does not fit into a page: many snapshots of one source, and room for them.
  const heaped = theme.name === 'snapshots' && made.leafBlocks === 256;
  const slow = theme.name === 'checkpoints' ? { ...made, eagerness: Math.min(made.eagerness, 0.3) } : made;
  const setup = heaped ? { ...made, segments: made.segments.map((count) => 2 * count), snapshotsMax: made.snapshotsMax + 8 } : slow;
  const weights = OPS.map((op) => theme.ops[op] ?? USUAL[op]);
  if (trouble === 'failing') {
    weights[OPS.indexOf('fault')] = 6;
    weights[OPS.indexOf('calm')] = 3;
  }
  if (trouble === 'damage') {
    weights[OPS.indexOf('fault')] = 1;
    weights[OPS.indexOf('flip')] = 2;
    weights[OPS.indexOf('crash')] = 5;
    weights[OPS.indexOf('verify')] = 3;
  }
  // Addresses: anywhere, round and round, or mostly in one place. Round and round meets the same slot of a segment again and again.
  const single = theme.name === 'fragments';
  const picked = random.pick(['uniform', 'round', 'hot', 'mixed'] as const);
  // The same few blocks, again and again while a checkpoint images their leaves.
  const busy = theme.name === 'checkpoints';
  const pattern = single ? 'uniform' : busy ? 'hot' : picked;
  const cursors = setup.sources.map(() => 0);
  const alone = random.chance(0.4) && !busy; // one client, one call at a time
  const deep = theme.name === 'snapshots'; // much history under each block
  const large = random.chance(deep ? 0.6 : 0.3) && !single;
  const aligned = random.chance(0.7) || single;
  const length = random.between(60, random.chance(0.2) ? 250 : 130);
  const steps: Step[] = [];
  for (let i = 0; i < length; i++) {
    const op = OPS[random.weighted(weights)] as Op;
    const a = random.chance(single ? 0.7 : heaped ? 0.9 : deep ? 0.5 : 0) ? 0 : random.word();
    let count =
      8 *
      ((heaped && op === 'write') || (large && random.chance(deep ? 0.5 : 0.2))
        ? random.between(8, 40)
        : single
          ? random.chance(0.04)
            ? 16
            : 1
          : random.pick([1, 1, 1, 2, 3, 4, 6, 8]));
    let at = random.word();
    const source = setup.sources[a % setup.sources.length] as Setup['sources'][number];
    const shape = pattern === 'mixed' ? random.pick(['uniform', 'round', 'hot'] as const) : pattern;
    if (shape === 'hot') at = 8 * random.below(Math.min(8, source.blocks));
    if (shape === 'round' && op === 'write') {
      const index = a % setup.sources.length;
      at = (cursors[index] as number) % (source.blocks * 8);
      cursors[index] = at + count;
    }
    at -= at % 8;
    if (!aligned && random.chance(0.3)) {
      at += random.below(8);
      count = Math.max(1, count - random.below(8));
    }
    let flag = random.word();
    if (op === 'trim' && random.chance(0.15)) count = 1 << 20;
    if (op === 'crash') count = random.chance(0.3) ? 0 : random.below(random.pick([4, 20, 80]));
    if (op === 'fault') count = random.pick([0, 0, 1, 3, 10, 25]);
    if (op === 'write') flag = random.chance(0.06) ? 1 : 0;
    const turns = alone ? 0 : random.pick([0, 0, 1, 2, 5, 15]);
    steps.push({ op, a, at, count, flag, wait: alone || random.chance(0.3), turns, seed: random.word() });
    // A process that dies and a machine that loses its power soon after: what the new process found may have been in the page cache only.
    if (op === 'crash' && (flag & CUT_KILL) === 0 && random.chance(0.4)) {
      steps.push({ op, a, at, count: random.below(4), flag: CUT_KILL, wait: true, turns: 0, seed: random.word() });
    }
  }
  if (seed < RAID_SEEDS) return { seed, setup, steps };
  const history = withMembers({ seed, setup, steps }, random);
  if (seed >= SCRUB_SEEDS) return withScrubs(history, random);
  return seed % 8 === 5 ? withCutRebuilds(history, random) : history;
}

/** The same, with rebuilds that a crash cuts off and that go on: left to chance they are too rare, for three things must follow each other. */
function withCutRebuilds(history: History, random: Random): History {
  const ops = ['lose', 'rebuild', 'crash', 'crash'] as const;
  const steps: Step[] = [];
  let next = 0;
  let gap = 0;
  for (const step of history.steps) {
    steps.push(step);
    if (gap-- > 0) continue;
    gap = random.between(1, 8);
    const op = ops[next++ % ops.length] as (typeof ops)[number];
    steps.push({
      op,
      a: random.word(),
      at: random.word(),
      count: op === 'lose' ? 0 : op === 'rebuild' ? random.between(1, 7) : random.below(30),
      flag: random.word(),
      wait: false,
      turns: random.pick([0, 2, 10, 30]),
      seed: random.word(),
    });
  }
  return { ...history, steps };
}

/** Nothing but overwrites, flushes and checkpoints, beside scrubs, on one storage volume that keeps what it is told. */
function withScrubs(history: History, random: Random): History {
  const raid = random.pick([
    { level: LEVELS.raid1, members: 2, strip: 1, segmentBlocks: 8 },
    { level: LEVELS.raid5, members: 3, strip: 1, segmentBlocks: 16 },
    { level: LEVELS.raid6, members: 4, strip: 1, segmentBlocks: 16 },
    { level: LEVELS.raid10, members: 4, strip: 2, segmentBlocks: 12 },
  ] as const);
  const steps: Step[] = [];
  for (const given of history.steps) {
    if (!['write', 'read', 'trim', 'flush', 'checkpoint', 'compact'].includes(given.op)) continue;
    const beside = (op: Op, turns: number): Step => {
      return { op, a: 0, at: 0, count: 0, flag: op === 'scrub' ? random.word() : 0, wait: false, turns, seed: random.word() };
    };
    steps.push({ ...given, wait: false, turns: 10 });
    const count = steps.length;
    if (random.chance(0.25)) steps.push(beside('flush', 10));
    if (random.chance(0.08)) steps.push(beside('checkpoint', 10));
    if (random.chance(0.05) || count === 10) steps.push(beside('scrub', 40));
  }
  const setup: Setup = { ...history.setup, trouble: 'none', assigned: 1, segments: [28, 28], raid: [raid, raid] };
  return { seed: history.seed, setup, steps };
}

const LEVELS = { single: 0, raid0: 1, raid1: 2, raid5: 3, raid6: 4, raid10: 5 } as const;

/** The same history on storage volumes of several members, some of which go, come back, rot and are rebuilt. */
function withMembers(history: History, random: Random): History {
  const trouble: Trouble = random.pick(['none', 'none', 'failing', 'rot', 'rot'] as const);
  const only = random.chance(0.5) ? random.pick([LEVELS.raid1, LEVELS.raid5, LEVELS.raid6, LEVELS.raid10] as const) : undefined;
  const raid = history.setup.segments.map((): Raid => {
    const level =
      only ??
      random.pick([
        LEVELS.single,
        LEVELS.raid0,
        LEVELS.raid1,
        LEVELS.raid1,
        LEVELS.raid5,
        LEVELS.raid5,
        LEVELS.raid6,
        LEVELS.raid6,
        LEVELS.raid10,
      ]);
    const members = [1, random.between(2, 3), random.between(2, 3), random.between(3, 5), random.between(4, 6), 4][level] as number;
    const strip = level === LEVELS.single ? 1 : random.pick([1, 1, 1, 2, 4]);
    const columns = [1, members, 1, members - 1, members - 2, members / 2][level] as number;
    const stripe = columns * strip;
    const least = Math.max(Math.ceil(8 / stripe), 3);
    return { level, members, strip, segmentBlocks: stripe * random.between(least, Math.max(least, Math.floor(24 / stripe))) };
  });
  const often = random.pick([0.03, 0.06, 0.12]);
  const steps: Step[] = [];
  for (const given of history.steps) {
    // Faults and damage are drawn anew: what fits single devices would cost more members than a level can do without.
    const step = given.op === 'fault' || given.op === 'flip' ? { ...given, op: 'read' as const } : given;
    steps.push(step);
    if (!random.chance(often)) continue;
    const op = random.pick([
      'lose',
      'lose',
      'bring',
      'rebuild',
      'rebuild',
      'scrub',
      ...(trouble === 'rot' ? (['rot', 'rot', 'rot', 'scrub'] as const) : []),
      ...(trouble === 'failing' ? (['fault', 'fault', 'calm'] as const) : []),
    ] as const);
    steps.push({
      op,
      a: random.word(),
      at: random.word(),
      count: random.chance(0.5) ? 0 : random.below(30),
      flag: random.word(),
      wait: random.chance(0.4),
      turns: random.pick([0, 2, 10]),
      seed: random.word(),
    });
  }
  return { seed: history.seed, setup: { ...history.setup, trouble, raid }, steps };
}

function makeSetup(random: Random, trouble: Trouble, theme: string): Setup {
  // Many small volumes: the log soon gets beyond the two that hold its roots (and are flushed with them).
  const many = random.chance(0.25);
  const volumes = many ? 6 : random.between(3, 5);
  const segmentBlocks = random.chance(0.8) ? 8 : random.pick([9, 12, 16, 24]);
  const scale = 8 / segmentBlocks;
  const most = theme === 'space' ? 32 : 48;
  // Fewer than 24 segments in all are nearly all reserve; the label never makes fewer than 32 in one volume (of 8 blocks or more).
  const segments = Array.from({ length: volumes + 2 }, () =>
    many ? random.between(9, 13) : Math.max(24, Math.round(random.between(24, most) * scale)),
  );
  const tight = theme === 'space' || random.chance(0.25); // more to write than there is room for
  const sourceCount = random.between(3, 4);
  const blocksMax = theme === 'fragments' ? 32 : random.pick(theme === 'snapshots' ? [32, 96, 96] : [32, 48, 96]);
  const sources = Array.from({ length: sourceCount }, (_, i) => ({
    volume: i === 0 ? 1 : random.between(1, 2),
    name: `source${i}`,
    blocks: tight ? blocksMax : theme === 'fragments' ? 16 : random.between(12, blocksMax),
  }));
  return {
    segmentBlocks,
    segments,
    // Lies of one device must not reach every copy of the root.
    assigned: trouble === 'damage' || many ? volumes : random.pick([2, volumes, volumes]),
    leafBlocks: theme === 'fragments' ? 16 : random.pick(theme === 'snapshots' ? [16, 16, 256] : [16, 16, 16, 16, 16, 16, 32, 32, 64, 256]),
    checkpointEntries: random.pick([24, 64, 200, 1000]),
    unflushedLimitBytes: random.pick([65536, 131072, 1 << 20]),
    sumsCacheBytes: random.pick([256, 1024, 65536]),
    sources,
    blocksMax,
    disorder: random.pick([0, 0.3, 1, 1]),
    eagerness: random.pick([1, 1, 0.3, 0.05]),
    policy: {
      growAt: 0.95,
      compactTo: random.pick([0.5, 0.8]),
      shrinkBelow: 0.7,
      mode: random.chance(0.8) ? 0 : 1,
      volumesMin: many ? 5 : 1,
    },
    trouble,
    snapshotsMax: random.between(2, 7),
  };
}

/** A message without what differs from run to run of the same fault. */
export function signature(message: string): string {
  return message.replace(/\d+/g, '#').slice(0, 40);
}

/**
 * A smaller history that fails in the same way: steps left out (halves, quarters, … single ones), then made simpler one by one.
 * @param fails runs a history; answers with the message of its failure, or undefined
 */
export function shrink(history: History, fails: (history: History) => string | undefined, budget = 2000): History {
  const first = fails(history);
  if (first === undefined) return history;
  const wanted = signature(first);
  let best = history;
  let runs = 0;
  const tries = (candidate: History): boolean => {
    if (runs++ > budget) return false;
    const message = fails(candidate);
    if (message === undefined || signature(message) !== wanted) return false;
    best = candidate;
    return true;
  };
  for (let again = true; again && runs < budget;) {
    again = false;
    for (let size = Math.ceil(best.steps.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
      for (let start = 0; start < best.steps.length;) {
        const steps = best.steps.filter((_, i) => i < start || i >= start + size);
        if (tries({ ...best, steps })) again = true;
        else start += size;
      }
    }
    for (const change of [
      { disorder: 0 },
      { eagerness: 1 },
      { assigned: 2 },
      { segmentBlocks: 8 },
      { leafBlocks: 16 },
    ] as Partial<Setup>[]) {
      const [key] = Object.keys(change) as (keyof Setup)[];
      if (best.setup[key as keyof Setup] !== change[key as keyof Setup]) tries({ ...best, setup: { ...best.setup, ...change } });
    }
    for (let i = 0; i < best.steps.length; i++) {
      for (const change of [
        { wait: true, turns: 0 },
        { turns: 0 },
        { wait: true },
        { count: 8 },
        { at: 0 },
        { flag: 0 },
        { a: 0 },
      ] as Partial<Step>[]) {
        const step = best.steps[i] as Step;
        if (Object.entries(change).every(([key, value]) => step[key as keyof Step] === value)) continue;
        const steps = best.steps.map((other, j) => (j === i ? { ...other, ...change } : other));
        if (tries({ ...best, steps })) again = true;
      }
    }
  }
  return best;
}

const USUAL_STEP: Omit<Step, 'op' | 'seed'> = { a: 0, at: 0, count: 8, flag: 0, wait: true, turns: 0 };

/** A history as text, for keeping: what a step has in common with most is left out. */
export function writeHistory(history: History, note: string): string {
  const steps = history.steps.map((step) =>
    Object.fromEntries(Object.entries(step).filter(([key, value]) => (USUAL_STEP as Record<string, unknown>)[key] !== value)),
  );
  return JSON.stringify({ note, seed: history.seed, setup: history.setup, steps });
}

export function readHistory(text: string): History & { readonly note: string } {
  const { note, seed, setup, steps } = JSON.parse(text) as {
    note: string;
    seed: number;
    setup: Setup;
    steps: (Partial<Step> & { op: Op; seed: number })[];
  };
  return { note, seed, setup, steps: steps.map((step) => ({ ...USUAL_STEP, ...step })) };
}
