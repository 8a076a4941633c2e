// The reference model: what a log of virtual volumes must look like from outside, with nothing in it but arrays.
//
// The smallest piece that is told apart is a *unit*: one sector of 512 bytes of one source, the size of a source, or whether a snapshot is there. A unit
// holds a number: for sectors the *stamp* that fills its 128 words (0: zeros), so that every sector ever written is unique and tells who wrote it.
//
// A *change* is anything that alters units: a write, a trim, a resize, a snapshot's coming or going, a rollback. It begins when it is submitted and ends
// when it is acknowledged (or fails, or never, when the power goes first), and consists of pieces that happen one after the other: after a power cut some
// of its pieces may be there and others not. Promise P2 is about the order of changes: A precedes B when A was acknowledged before B was submitted;
// else they are concurrent, and either may come first. So:
//
//   reading       a unit holds what the last change before the read wrote, or what a change concurrent with the read wrote (`allowed`);
//   a snapshot    is a cut through that order, somewhere between its submission and its acknowledgement (`checkSnapshot`);
//   a power cut   leaves a cut that holds everything durable (`adopt`). `findCut` says whether there is one that explains what is read back.

/** Where a run of units gets its numbers: `values`, or stamps that count up from `first`, or zeros (`first` 0). */
export interface Assignment {
  readonly start: number;
  readonly count: number;
  readonly first: number;
  readonly values?: Uint32Array | undefined;
}

export interface Piece {
  /** A piece is there after a cut only when all pieces of lower rank are. */
  readonly rank: number;
  readonly assignments: readonly Assignment[];
}

export interface Change {
  readonly label: string;
  readonly pieces: readonly Piece[];
  readonly submitted: number;
  /** When it was acknowledged or failed; infinite while it runs. */
  ended: number;
  state: 'running' | 'acknowledged' | 'failed';
  /** The flush group that made it durable; infinite: not durable. 0: beyond any doubt (a clean close). */
  group: number;
}

export interface ModelSource {
  readonly volume: number;
  readonly name: string;
  readonly sizeUnit: number;
  /** Its sectors are the units `first` … `first + sectors − 1`, whether inside its present size or not (then zero). */
  readonly first: number;
  readonly sectors: number;
}

export interface ModelSnapshot {
  readonly volume: number;
  readonly name: string;
  readonly createdAt: number;
  readonly automatic: boolean;
  readonly presentUnit: number;
  readonly members: readonly ModelSource[];
  /** The change that makes it. */
  readonly change: Change;
  /** All units as they were when it was submitted. */
  base: Candidates;
  /** Changes that ran while it was made; empty once its contents were read and matched. */
  concurrent: Change[];
}

/** A read in progress: what the units that it may see held when it began. */
export interface Probe {
  readonly start: number;
  readonly count: number;
  readonly overwritten: Map<number, number[]>;
}

/** What was read back: a number for each unit, and whether it could be read at all. */
export interface Observation {
  readonly values: Uint32Array;
  readonly known: Uint8Array;
}

export interface Candidate {
  readonly value: number;
  readonly ended: number;
}

const NEVER = Number.POSITIVE_INFINITY;
/** Choices of pieces that one cut is tried with: far more than any that was ever explained needed. */
const ATTEMPTS_MAX = 5000;

function valueAt(assignment: Assignment, unit: number): number {
  const index = unit - assignment.start;
  if (assignment.values) return assignment.values[index] as number;
  return assignment.first === 0 ? 0 : assignment.first + index;
}

/** What each unit may hold: one number nearly always, several where concurrent changes met. */
export class Candidates {
  readonly values: Uint32Array;
  readonly #ended: Uint32Array; // + 1: 0 is before everything
  readonly #several: Map<number, Candidate[]>;

  constructor(units: number, from?: Candidates) {
    this.values = new Uint32Array(units);
    this.#ended = new Uint32Array(units);
    this.#several = new Map();
    if (from) {
      this.values.set(from.values.subarray(0, units));
      this.#ended.set(from.#ended.subarray(0, units));
      for (const [unit, list] of from.#several) this.#several.set(unit, list);
    }
  }

  clone(units = this.values.length): Candidates {
    return new Candidates(units, this);
  }

  has(unit: number, value: number): boolean {
    if (this.values[unit] === value) return true;
    const list = this.#several.get(unit);
    return list !== undefined && list.some((candidate) => candidate.value === value);
  }

  /** Holds exactly one number. */
  single(unit: number): boolean {
    return !this.#several.has(unit);
  }

  list(unit: number): readonly Candidate[] {
    return this.#several.get(unit) ?? [{ value: this.values[unit] as number, ended: (this.#ended[unit] as number) - 1 }];
  }

  /** It is this and nothing else. */
  settle(unit: number, value: number, ended: number = -1): void {
    if (this.#several.size) this.#several.delete(unit);
    this.values[unit] = value;
    this.#ended[unit] = ended + 1;
  }

  /** One more thing that it may be. */
  suggest(unit: number, value: number, ended: number): void {
    if (this.has(unit, value)) return;
    this.#several.set(unit, [...this.list(unit), { value, ended }]);
  }

  /** The whole change took place, and so ended all that ended before it began. */
  apply(change: Change): void {
    for (const piece of change.pieces) {
      for (const assignment of piece.assignments) {
        for (let unit = assignment.start; unit < assignment.start + assignment.count; unit++) {
          this.#put(unit, valueAt(assignment, unit), change);
        }
      }
    }
  }

  #put(unit: number, value: number, change: Change): void {
    if (!this.#several.has(unit) && (this.#ended[unit] as number) <= change.submitted) {
      this.values[unit] = value;
      this.#ended[unit] = change.ended + 1;
      return;
    }
    const list = this.list(unit).filter((candidate) => candidate.ended >= change.submitted);
    if (list.length === 0) this.settle(unit, value, change.ended);
    else {
      this.#several.set(unit, [...list, { value, ended: change.ended }]);
      this.values[unit] = value;
      this.#ended[unit] = change.ended + 1;
    }
  }

  /** The change failed: any piece of it may have taken place. */
  suggestAll(change: Change): void {
    for (const piece of change.pieces) {
      for (const assignment of piece.assignments) {
        for (let unit = assignment.start; unit < assignment.start + assignment.count; unit++)
          this.suggest(unit, valueAt(assignment, unit), change.ended);
      }
    }
  }
}

/** What a change would leave in a unit; −1 when it leaves it alone. */
function writes(change: Change, unit: number): number {
  for (const piece of change.pieces) {
    for (const assignment of piece.assignments) {
      if (unit >= assignment.start && unit < assignment.start + assignment.count) return valueAt(assignment, unit);
    }
  }
  return -1;
}

export interface Cut {
  /** How many of the changes, in order of submission, may have begun. */
  readonly begun: number;
  /** Undefined: it explains everything. Else the units that it cannot explain, of the best cut there is. */
  readonly unexplained: readonly number[] | undefined;
}

/**
 * Is there a cut through the order of `changes` (by submission) that explains the observation? It must hold every change for which `must` answers true.
 * Units outside of `scope` ([start, count]) are left out.
 *
 * All changes acknowledged before the last one that began have taken place; the others that began, the *frontier*, were all running at that moment, so
 * they are concurrent with each other, and each may have come as far as one of its pieces. The frontier is small; `explain` tries it out.
 */
export function findCut(
  base: Candidates,
  changes: readonly Change[],
  observation: Observation,
  must: (change: Change) => boolean,
  scope: readonly (readonly [number, number])[],
): Cut {
  const state = base.clone();
  const inScope = new Uint8Array(observation.values.length);
  const wrong = new Set<number>();
  for (const [start, count] of scope) {
    for (let unit = start; unit < start + count; unit++) {
      if (observation.known[unit] === 0) continue;
      inScope[unit] = 1;
      if (!state.has(unit, observation.values[unit] as number)) wrong.add(unit);
    }
  }
  const recheck = (change: Change): void => {
    for (const piece of change.pieces) {
      for (const assignment of piece.assignments) {
        for (let unit = assignment.start; unit < assignment.start + assignment.count; unit++) {
          if (inScope[unit] === 0) continue;
          if (state.has(unit, observation.values[unit] as number)) wrong.delete(unit);
          else wrong.add(unit);
        }
      }
    }
  };
  let fewest = 0;
  for (let i = 0; i < changes.length; i++) if (must(changes[i] as Change)) fewest = i + 1;
  const byEnd = changes.filter((change) => change.ended !== NEVER).sort((a, b) => a.ended - b.ended);
  let full = 0;
  let best: number[] = [];
  let bestCount = NEVER;
  let bestBegun = 0;
  const frontier: Change[] = [];
  for (let begun = 0; begun <= changes.length; begun++) {
    const newest = begun === 0 ? undefined : (changes[begun - 1] as Change);
    if (newest) {
      frontier.push(newest);
      while (full < byEnd.length && (byEnd[full] as Change).ended < newest.submitted) {
        const change = byEnd[full++] as Change;
        if (change.state === 'failed') state.suggestAll(change);
        else state.apply(change);
        recheck(change);
        frontier.splice(frontier.indexOf(change), 1);
      }
    }
    if (begun < fewest) continue;
    const left = explain(state, frontier, observation, must, inScope, wrong);
    if (left === undefined) return { begun, unexplained: undefined };
    if (left.count < bestCount) {
      best = left.units;
      bestCount = left.count;
      bestBegun = begun;
    }
  }
  return { begun: bestBegun, unexplained: best };
}

/** Undefined when some choice of pieces of the frontier explains the observation; else (some of) the units that are left, and how many they are. */
function explain(
  state: Candidates,
  frontier: readonly Change[],
  observation: Observation,
  must: (change: Change) => boolean,
  inScope: Uint8Array,
  wrong: ReadonlySet<number>,
): { units: number[]; count: number } | undefined {
  const hopeless = (unit: number): boolean => frontier.every((change) => writes(change, unit) < 0);
  for (const unit of wrong) {
    if (!hopeless(unit)) continue;
    if (wrong.size > 4096) return { units: [unit], count: wrong.size };
    const units = [...wrong].filter(hopeless);
    return { units: units.slice(0, 64), count: units.length };
  }
  const touched = new Map<number, { change: Change; piece: Piece; value: number }[]>();
  for (const change of frontier) {
    for (const piece of change.pieces) {
      for (const assignment of piece.assignments) {
        for (let unit = assignment.start; unit < assignment.start + assignment.count; unit++) {
          if (inScope[unit] === 0) continue;
          const list = touched.get(unit);
          const entry = { change, piece, value: valueAt(assignment, unit) };
          if (list) list.push(entry);
          else touched.set(unit, [entry]);
        }
      }
    }
  }

  const included = new Set<Piece>();
  const include = (change: Change, piece: Piece, into: Set<Piece>): void => {
    into.add(piece);
    for (const other of change.pieces) if (other.rank < piece.rank) into.add(other);
  };
  for (const change of frontier) if (must(change)) for (const piece of change.pieces) included.add(piece);

  let left: number[] = [];
  let budget = ATTEMPTS_MAX;
  const attempt = (pieces: Set<Piece>, depth: number): boolean => {
    budget--;
    for (;;) {
      let again = false;
      for (const [unit, list] of touched) {
        const seen = observation.values[unit] as number;
        let ok = false;
        let lastEnd = -1; // included pieces end what ended before their change began
        for (const entry of list) {
          if (!pieces.has(entry.piece)) continue;
          if (entry.value === seen) ok = true;
          lastEnd = Math.max(lastEnd, entry.change.submitted);
        }
        if (!ok) ok = state.list(unit).some((candidate) => candidate.value === seen && candidate.ended >= lastEnd);
        if (ok) continue;
        const options = list.filter((entry) => entry.value === seen && !pieces.has(entry.piece));
        if (options.length === 0 || depth > 8 || budget <= 0) {
          left = [unit];
          return false;
        }
        if (options.length === 1) {
          include((options[0] as (typeof options)[0]).change, (options[0] as (typeof options)[0]).piece, pieces);
          again = true;
          break;
        }
        // Overlapping trims all leave zeros: mostly it was all of them.
        const all = new Set(pieces);
        for (const option of options) include(option.change, option.piece, all);
        if (attempt(all, depth)) return true;
        return options.some((option) => {
          const more = new Set(pieces);
          include(option.change, option.piece, more);
          return attempt(more, depth + 1);
        });
      }
      if (!again) return true;
    }
  };
  return attempt(included, 0) ? undefined : { units: left, count: left.length };
}

export class ReferenceModel {
  /** Counts submissions and endings. */
  time = 0;
  /** Flush groups so far: see `flushed`. */
  groups = 0;
  /**
   * The last so many flush groups may be gone after a power cut: 0, or 1 where the medium was damaged (on a level without redundancy, damage inside the
   * very last flush group cannot be told from a torn write).
   */
  doubtedGroups = 0;
  /** So many of the last flush groups are kept apart, because doubts about them may still come up. */
  keptGroups = 0;
  /** So may be all groups from this one on: the device has lied since. */
  doubtedSince = NEVER;
  sources: ModelSource[] = [];
  snapshots: ModelSnapshot[] = [];
  /** What the units hold now. */
  live: Candidates;
  /** What they held before all of `changes`. */
  #base: Candidates;
  /** Since the last moment at which all was durable and nothing ran; by submission. */
  changes: Change[] = [];
  readonly #probes = new Set<Probe>();
  #making: ModelSnapshot[] = [];
  #unitsUsed = 0;
  readonly #unitsMax: number;
  #nextStamp = 1;
  #stamps: { first: number; count: number; label: string }[] = [];
  #groupClosed = -1;

  /** @param unitsMax room for the units of all sources (their sectors and a size each) and one for each snapshot ever made */
  constructor(unitsMax: number) {
    this.#unitsMax = unitsMax;
    this.live = new Candidates(unitsMax);
    this.#base = new Candidates(unitsMax);
  }

  get unitsUsed(): number {
    return this.#unitsUsed;
  }

  get running(): Change[] {
    return this.changes.filter((change) => change.state === 'running');
  }

  unit(): number {
    if (this.#unitsUsed === this.#unitsMax) throw new RangeError(`model: expected at most ${this.#unitsMax} units`);
    return this.#unitsUsed++;
  }

  /** Is there room for so many more? */
  room(units: number): boolean {
    return this.#unitsUsed + units <= this.#unitsMax;
  }

  /** A source that is not there yet: its size is 0 until a change sets it. */
  source(volume: number, name: string, sectors: number): ModelSource {
    const sizeUnit = this.unit();
    if (!this.room(sectors)) throw new RangeError(`model: expected at most ${this.#unitsMax} units`);
    const source = { volume, name, sizeUnit, first: this.#unitsUsed, sectors };
    this.#unitsUsed += sectors;
    this.sources.push(source);
    return source;
  }

  /** In sectors; 0 when it is not there. */
  sizeOf(source: ModelSource): number {
    return this.live.values[source.sizeUnit] as number;
  }

  present(snapshot: ModelSnapshot): boolean {
    return this.live.values[snapshot.presentUnit] === 1;
  }

  /** Stamps that nobody used: the first of `count`. */
  stamps(count: number, label: string): number {
    const first = this.#nextStamp;
    this.#nextStamp += count;
    this.#stamps.push({ first, count, label });
    return first;
  }

  begin(label: string, pieces: readonly Piece[]): Change {
    const change: Change = { label, pieces, submitted: ++this.time, ended: NEVER, state: 'running', group: NEVER };
    this.changes.push(change);
    for (const snapshot of this.#making) snapshot.concurrent.push(change);
    return change;
  }

  /** A write of `count` sectors at sector `at`; blocks are its pieces. */
  beginWrite(label: string, source: ModelSource, at: number, count: number, firstStamp: number, blockSectors = 8): Change {
    return this.begin(
      label,
      byBlock(at, count, blockSectors).map(([start, length], rank) => ({
        rank,
        assignments: [{ start: source.first + start, count: length, first: firstStamp + start - at }],
      })),
    );
  }

  /** Zeros; its pieces come in any order. */
  beginTrim(label: string, source: ModelSource, at: number, count: number, blockSectors = 8): Change {
    return this.begin(label, zeros(source, at, count, blockSectors, 0));
  }

  /** A new size in sectors. The tail that is cut off is zeroed first. */
  beginResize(label: string, source: ModelSource, sectors: number, blockSectors = 8): Change {
    const size = this.sizeOf(source);
    const tail = sectors < size ? zeros(source, sectors, size - sectors, blockSectors, 0) : [];
    return this.begin(label, [...tail, { rank: 1, assignments: [one(source.sizeUnit, sectors)] }]);
  }

  beginCreate(label: string, source: ModelSource, sectors: number): Change {
    return this.begin(label, [{ rank: 0, assignments: [one(source.sizeUnit, sectors)] }]);
  }

  beginDelete(label: string, source: ModelSource): Change {
    return this.begin(label, [
      { rank: 0, assignments: [one(source.sizeUnit, 0), { start: source.first, count: source.sectors, first: 0 }] },
    ]);
  }

  beginSnapshot(label: string, volume: number, name: string, createdAt: number, members: readonly ModelSource[]): ModelSnapshot {
    const presentUnit = this.unit();
    const running = this.running;
    const base = this.live.clone(this.#unitsUsed);
    const change = this.begin(label, [{ rank: 0, assignments: [one(presentUnit, 1)] }]);
    const snapshot: ModelSnapshot = { volume, name, createdAt, automatic: false, presentUnit, members, change, base, concurrent: running };
    this.snapshots.push(snapshot);
    this.#making.push(snapshot);
    return snapshot;
  }

  beginDeleteSnapshot(label: string, snapshot: ModelSnapshot): Change {
    return this.begin(label, [{ rank: 0, assignments: [one(snapshot.presentUnit, 0)] }]);
  }

  /** Puts the members back to the snapshot's contents, and keeps what `left` are now as an automatic snapshot. No other change may be running. */
  beginRollback(
    label: string,
    snapshot: ModelSnapshot,
    automaticName: string,
    createdAt: number,
    left: readonly ModelSource[],
  ): ModelSnapshot {
    const presentUnit = this.unit();
    const assignments: Assignment[] = [one(presentUnit, 1)];
    for (const member of snapshot.members) {
      assignments.push(one(member.sizeUnit, snapshot.base.values[member.sizeUnit] as number));
      const values = snapshot.base.values.slice(member.first, member.first + member.sectors);
      assignments.push({ start: member.first, count: member.sectors, first: 0, values });
    }
    const base = this.live.clone(this.#unitsUsed);
    const change = this.begin(label, [{ rank: 0, assignments }]);
    const { volume } = snapshot;
    const automatic = { volume, name: automaticName, createdAt, automatic: true, presentUnit, members: left, change, base, concurrent: [] };
    this.snapshots.push(automatic);
    return automatic;
  }

  acknowledge(change: Change): void {
    change.ended = ++this.time;
    change.state = 'acknowledged';
    this.#remember(change);
    this.live.apply(change);
    this.#finishMaking(change);
  }

  /** It failed. `visible`: parts of it may be seen already; else only a power cut may bring it to light. */
  fail(change: Change, visible: boolean): void {
    change.ended = ++this.time;
    change.state = 'failed';
    if (visible) {
      this.#remember(change);
      this.live.suggestAll(change);
    }
    this.#finishMaking(change);
  }

  /** It never began: refused at once. */
  withdraw(change: Change): void {
    this.changes.splice(this.changes.indexOf(change), 1);
    this.#finishMaking(change);
    for (const snapshot of this.snapshots) {
      const index = snapshot.concurrent.indexOf(change);
      if (index >= 0) snapshot.concurrent.splice(index, 1);
    }
    this.snapshots = this.snapshots.filter((snapshot) => snapshot.change !== change);
  }

  /**
   * A flush that was submitted at `since` returned: everything acknowledged before is durable.
   * @param advanced whether it made anything durable that was not before: then it ends a flush group
   */
  flushed(since: number, advanced = true): void {
    if (advanced && since > this.#groupClosed) this.groups++;
    if (advanced) this.#groupClosed = ++this.time;
    for (const change of this.changes) {
      if (change.state === 'acknowledged' && change.ended < since && change.group === NEVER) change.group = this.groups;
    }
    this.#forget();
  }

  /** This change is durable, and so all that precedes it. */
  durable(change: Change, advanced = true): void {
    this.flushed(change.submitted, advanced);
    if (change.group === NEVER) change.group = this.groups;
    this.#forget();
  }

  /** Everything acknowledged is durable beyond any doubt. */
  sealed(): void {
    for (const change of this.changes) if (change.state === 'acknowledged') change.group = 0;
    this.doubtedSince = NEVER;
    this.doubtedGroups = 0;
    this.#forget();
  }

  /** Must it be there after a power cut? */
  mustSurvive(change: Change): boolean {
    return change.group === 0 || (change.group <= this.groups - this.doubtedGroups && change.group < this.doubtedSince);
  }

  /** A read of these units begins. */
  probe(start: number, count: number): Probe {
    const probe: Probe = { start, count, overwritten: new Map() };
    this.#probes.add(probe);
    return probe;
  }

  endProbe(probe: Probe): void {
    this.#probes.delete(probe);
  }

  /** May a read that began with `probe` and ends now see this? */
  allowed(probe: Probe | undefined, unit: number, value: number): boolean {
    if (this.live.has(unit, value)) return true;
    if (probe?.overwritten.get(unit)?.includes(value)) return true;
    for (const change of this.changes) if (change.state === 'running' && writes(change, unit) === value) return true;
    return false;
  }

  /** All that a read that began with `probe` and ends now may see. */
  possible(probe: Probe | undefined, unit: number): number[] {
    const list = this.live.list(unit).map((candidate) => candidate.value);
    list.push(...(probe?.overwritten.get(unit) ?? []));
    for (const change of this.changes) if (change.state === 'running' && writes(change, unit) >= 0) list.push(writes(change, unit));
    return list;
  }

  /** The same of a snapshot. */
  possibleInSnapshot(snapshot: ModelSnapshot, unit: number): number[] {
    const list = snapshot.base.list(unit).map((candidate) => candidate.value);
    for (const change of snapshot.concurrent) if (writes(change, unit) >= 0) list.push(writes(change, unit));
    return list;
  }

  /** Nothing runs, and this was read: from now on it is nothing else. */
  settle(unit: number, value: number): void {
    if (!this.live.single(unit) && this.live.has(unit, value)) this.live.settle(unit, value, this.time);
  }

  /** The units of a snapshot, or those of some of its members. */
  scopeOf(snapshot: ModelSnapshot, members: readonly ModelSource[] = snapshot.members): [number, number][] {
    return members.flatMap((member): [number, number][] => [
      [member.sizeUnit, 1],
      [member.first, member.sectors],
    ]);
  }

  /**
   * Compares what was read of a whole snapshot, and keeps it, so that it must be read the same ever after.
   * @returns undefined, or what is wrong
   */
  checkSnapshot(
    snapshot: ModelSnapshot,
    observation: Observation,
    scope: readonly (readonly [number, number])[] = this.scopeOf(snapshot),
  ): string | undefined {
    const cut = findCut(snapshot.base, snapshot.concurrent, observation, () => false, scope);
    if (cut.unexplained)
      return `snapshot '${snapshot.name}' is no state of between its submission and its return: ${this.describe(observation, snapshot.base, cut.unexplained)}`;
    let unknown = false;
    for (const [start, count] of scope) {
      for (let unit = start; unit < start + count; unit++) {
        if (observation.known[unit]) snapshot.base.settle(unit, observation.values[unit] as number);
        else unknown = true;
      }
    }
    if (!unknown) snapshot.concurrent = [];
    return undefined;
  }

  /**
   * The power came back and this was read: is it a cut that holds all that must have survived? If so it is what the model holds from now on, and durable.
   * @returns undefined, or what is wrong
   */
  adopt(observation: Observation): string | undefined {
    const must = (change: Change): boolean => this.mustSurvive(change);
    const cut = findCut(this.#base, this.changes, observation, must, [[0, this.#unitsUsed]]);
    if (cut.unexplained) {
      const durable = this.changes.filter(must).length;
      return `no cut through ${this.changes.length} changes (${durable} of them durable) explains what is there; nearest after ${cut.begun}: ${this.describe(observation, this.live, cut.unexplained)}`;
    }
    const live = this.#base.clone();
    for (const change of this.changes)
      if (change.ended !== NEVER && change.ended < ((this.changes[cut.begun - 1] as Change | undefined)?.submitted ?? 0))
        live.apply(change);
    for (let unit = 0; unit < this.#unitsUsed; unit++) {
      if (observation.known[unit]) live.settle(unit, observation.values[unit] as number);
      else for (const change of this.changes) if (writes(change, unit) >= 0) live.suggest(unit, writes(change, unit), change.ended);
    }
    this.live = live;
    this.#base = live.clone();
    this.changes = [];
    this.doubtedSince = NEVER;
    this.doubtedGroups = 0;
    this.#probes.clear();
    this.#making = [];
    this.snapshots = this.snapshots.filter((snapshot) => this.present(snapshot));
    this.sources = this.sources.filter(
      (source) => this.sizeOf(source) > 0 || this.snapshots.some((snapshot) => snapshot.members.includes(source)),
    );
    return undefined;
  }

  /** Who wrote this stamp? */
  labelOf(value: number): string {
    if (value === 0) return 'zeros';
    for (let i = this.#stamps.length - 1; i >= 0; i--) {
      const run = this.#stamps[i] as { first: number; count: number; label: string };
      if (value >= run.first) return value < run.first + run.count ? `${run.label}[${value - run.first}]` : `?${value}`;
    }
    return `?${value}`;
  }

  nameOf(unit: number): string {
    for (const source of this.sources) {
      if (unit === source.sizeUnit) return `size of ${source.volume}/${source.name}`;
      if (unit >= source.first && unit < source.first + source.sectors)
        return `${source.volume}/${source.name} sector ${unit - source.first}`;
    }
    for (const snapshot of this.snapshots)
      if (unit === snapshot.presentUnit) return `presence of snapshot ${snapshot.volume}@${snapshot.name}`;
    return `unit ${unit}`;
  }

  describe(observation: Observation, expected: Candidates, units: readonly number[]): string {
    const shown = units.slice(0, 4).map((unit) => {
      const plain = this.nameOf(unit).includes('sector');
      const show = (value: number): string => (plain ? this.labelOf(value) : `${value}`);
      const list = expected.list(unit).map((candidate) => show(candidate.value));
      return `${this.nameOf(unit)} holds ${show(observation.values[unit] as number)}, expected ${list.join(' or ')}`;
    });
    return shown.join('; ') + (units.length > 4 ? `; and ${units.length - 4} more` : '');
  }

  #finishMaking(change: Change): void {
    if (this.#making.length) this.#making = this.#making.filter((snapshot) => snapshot.change !== change);
  }

  #remember(change: Change): void {
    for (const probe of this.#probes) {
      for (const piece of change.pieces) {
        for (const assignment of piece.assignments) {
          const from = Math.max(assignment.start, probe.start);
          const to = Math.min(assignment.start + assignment.count, probe.start + probe.count);
          for (let unit = from; unit < to; unit++) {
            const list = probe.overwritten.get(unit) ?? [];
            for (const candidate of this.live.list(unit)) list.push(candidate.value);
            probe.overwritten.set(unit, list);
          }
        }
      }
    }
  }

  /** Changes that all others come after, and that will survive whatever happens, need not be kept apart any more. */
  #forget(): void {
    let keep = 0;
    let latest = 0;
    let gone = 0;
    for (const change of this.changes) {
      if (latest < change.submitted) gone = keep;
      if (change.state === 'running') break;
      if (
        change.state === 'acknowledged' &&
        !(this.mustSurvive(change) && (change.group === 0 || change.group <= this.groups - this.keptGroups))
      )
        break;
      latest = Math.max(latest, change.ended);
      keep++;
    }
    if (keep === this.changes.length) gone = keep;
    if (gone === 0 || this.changes.slice(0, gone).every((change) => change.state === 'failed')) return;
    const old = this.changes.splice(0, gone).sort((a, b) => a.ended - b.ended);
    for (const change of old) {
      if (change.state === 'failed') this.#base.suggestAll(change);
      else this.#base.apply(change);
    }
  }
}

function one(unit: number, value: number): Assignment {
  return { start: unit, count: 1, first: 0, values: Uint32Array.of(value) };
}

function byBlock(at: number, count: number, blockSectors: number): [number, number][] {
  const runs: [number, number][] = [];
  for (let start = at; start < at + count;) {
    const end = Math.min(at + count, (Math.floor(start / blockSectors) + 1) * blockSectors);
    runs.push([start, end - start]);
    start = end;
  }
  return runs;
}

function zeros(source: ModelSource, at: number, count: number, blockSectors: number, rank: number): Piece[] {
  return byBlock(at, count, blockSectors).map(([start, length]) => ({
    rank,
    assignments: [{ start: source.first + start, count: length, first: 0 }],
  }));
}
