// Performs a history on the real core over simulated devices, and compares with the reference model all the way: the host's part (catalogue, growth,
// release of storage volumes) is played here too, as dumbly as possible. `runHistory` answers with what broke, if anything, and what was met on the way.
//
// What is allowed to fail, and when:
//
//   NO_SPACE   a write, and operations that take space; never a read, trim, delete, flush, checkpoint, compaction, close (but when a device ran full)
//   IO         when a device failed a request in this life
//   READ_ONLY  after a device failed a request in this life; then the log is opened again
//   CORRUPT    when the medium was damaged on purpose, or a device lied
//   LIMIT      a rollback (chains are bounded)
//
// And after a power cut, or a death of the process, what is read back must be a cut through the order of the changes (src/testing/model.ts).
import { EPOCH_NOW, KIND, MEMBER, OPERATION, SPACE_NONE } from '../../src/core/exports.ts';
import type { CoreExports } from '../../src/core/exports.ts';
import { MEMBERS_MAX } from '../../src/core/plan.ts';
import { type Change, type ModelSnapshot, type ModelSource, type Observation, ReferenceModel } from '../../src/testing/model.ts';
import { Random } from '../../src/testing/random.ts';
import { BlockArena, SimulatedDevice } from '../../src/testing/simulated-device.ts';
import { Instances } from './instances.ts';
import { Driver, PowerCut, Ticket, Violation } from './driver.ts';
import { CUT_KILL, DAMAGES, FAILURES, type History, makeHistory, type Raid, type Setup, type Step } from './history.ts';

const SECTOR = 512;
const BLOCK = 4096;
const BLOCK_SECTORS = 8;
const DATA_OFFSET = 8192;
const OUTSTANDING_MAX = 6;
const COUNTERS = 96;
const BUFFER_BYTES = 96 * BLOCK;

const NO_SPACE = 1;
const CORRUPT = 2;
const IO = 3;
const NOT_FOUND = 6;
const EXISTS = 7;
const LIMIT = 8;
const READ_ONLY = 9;
const BUSY = 12;

export interface Outcome {
  readonly seed: number;
  /** What broke; undefined when nothing did. */
  readonly failure: string | undefined;
  /** The step that was being performed. */
  readonly step: number;
  /** Device commands performed. */
  readonly commands: number;
  /** The core's rare paths, summed over the lives. */
  readonly counters: Float64Array;
  /** The simulator's own. */
  readonly events: ReadonlyMap<string, number>;
}

export interface RunOptions {
  /** A planted fault; 0: none. */
  readonly plant?: number;
  readonly trace?: ((line: string) => void) | undefined;
  readonly onStep?: (index: number, step: Step) => void;
  /** Instead of the compiled core: makes a core for each life. */
  readonly makeCore?: () => CoreExports;
  /** The power goes after this many commands, counted from the first step. */
  readonly cutAfter?: number;
}

interface Place {
  readonly id: number;
  readonly device: number;
}

/** A member as the catalogue has it, which is always durable, and what became of its device. */
interface MemberState {
  readonly device: SimulatedDevice;
  state: 'online' | 'out' | 'rebuilding';
  /** It does not answer. */
  gone: boolean;
  /** It was asked for something while it was gone: it may be found faulty for that, though it is back. */
  missed: boolean;
  /** It goes after so many commands; −1: it stays. */
  goesIn: number;
  /** Failures of its device that the catalogue knows of, or a crash made forgotten: one more, and it is about to be faulted. */
  failures: number;
  /** Some of its bytes are wrong since the last scrub. */
  rotten: boolean;
  /** How often it was begun to be filled. A rebuild is of one filling: what was written between two of them it need not have met. */
  filling: number;
  /** Place up to which a filling that is done in parts has come: durable, as in a catalogue. */
  filled: number;
}

/** How often the device failed what it was asked to do. */
function failuresOf(device: SimulatedDevice): number {
  let sum = 0;
  for (const [kind, count] of device.fired) if (FAILURES.includes(kind)) sum += count;
  return sum;
}

const SINGLE: Raid = { level: 0, members: 1, strip: 1, segmentBlocks: 0 };
/** Of the core's figure(): the log turned read-only. */
const FAILED_READ_ONLY = 19;
/** Flush groups that one write which went to a wrong place may cover. */
const ASTRAY_GROUPS = 7;
const PLANT_STALE_TRUSTED = 67;
/** Of the core's plant(): bounds are not tighter than in the release. They are in every fourth history. */
const LOOSE = 256;

interface SourceRecord {
  readonly space: number;
  readonly volume: number;
  readonly sectors: number;
  readonly name: string;
}

interface SnapshotRecord {
  readonly id: number;
  readonly volume: number;
  readonly epoch: number;
  readonly createdAt: number;
  readonly automatic: boolean;
  readonly name: string;
  readonly members: readonly { readonly space: number; readonly sectors: number; readonly name: string }[];
}

/** A step that only says: alone, and now. */
/** More than all faults together that may be armed at one time: one that stays is damage. */
const READ_TRIES = 24;

const QUIET: Step = { op: 'calm', a: 0, at: 0, count: 0, flag: 0, wait: true, turns: 0, seed: 0 };

const arena = new BlockArena();
const buffers: Uint8Array[] = [];

export function runSeed(core: WebAssembly.Module | Instances | undefined, seed: number, options: RunOptions = {}): Outcome {
  return runHistory(core, makeHistory(seed), options);
}

export function runHistory(core: WebAssembly.Module | Instances | undefined, history: History, options: RunOptions = {}): Outcome {
  const world = new World(core instanceof WebAssembly.Module ? new Instances(core) : core, history, options);
  let failure: string | undefined;
  try {
    world.run();
  } catch (error) {
    if (error instanceof Ended) failure = undefined;
    else if (error instanceof Violation) failure = error.message;
    else if (error instanceof Error && (error.name === 'CoreAbort' || error instanceof WebAssembly.RuntimeError))
      failure = `trap: ${error.message}`;
    else throw error;
  } finally {
    world.dispose();
  }
  return { seed: history.seed, failure, step: world.at, commands: world.commands, counters: world.counters, events: world.events };
}

/** Damage was found and said when the log was opened: nothing more to see. */
class Ended extends Error {}
/** What nobody had flushed was on one member after a crash, and that went before an open for writing put it on the others. */
class TailLost extends Error {}

class World {
  at = -1;
  commands = 0;
  readonly counters = new Float64Array(COUNTERS);
  readonly events = new Map<string, number>();
  readonly #instances: Instances | undefined;
  readonly #history: History;
  readonly #setup: Setup;
  readonly #options: RunOptions;
  readonly #random = new Random(1);
  readonly #model: ReferenceModel;
  readonly #devices: SimulatedDevice[] = [];
  /** The members of each storage volume. */
  readonly #groups: MemberState[][] = [];
  readonly #memberOf = new Map<SimulatedDevice, MemberState>();
  /** The catalogue: which storage volumes the log has, in order. Kept by the host, always durable. */
  #assigned: Place[] = [];
  #nextVolume = 0;
  readonly #fuse = { left: -1 };
  #killOnly = false;
  #driver: Driver | undefined;
  #outstanding: Ticket[] = [];
  #names = 0;
  #creations = 0;
  #finishing = false;
  #readOnly = false;
  #flipped = false;
  #armed = 0;
  #firedBefore = 0;
  #lies = 0;
  #astray = 0;
  #lastDurable = 0;
  #closedLive = -1;
  /** Something happened after which more blocks may be live than the model can tell apart. */
  #blurred = false;
  readonly #observed: Observation;
  readonly #buffers = new Set<Uint8Array>();

  constructor(instances: Instances | undefined, history: History, options: RunOptions) {
    this.#instances = instances;
    this.#history = history;
    this.#setup = history.setup;
    this.#options = options;
    const units = (history.setup.sources.length + 3) * (history.setup.blocksMax * BLOCK_SECTORS + 1) + 200;
    this.#model = new ReferenceModel(units);
    this.#observed = { values: new Uint32Array(units), known: new Uint8Array(units) };
  }

  dispose(): void {
    for (const device of this.#devices) device.dispose();
    buffers.push(...this.#buffers);
  }

  run(): void {
    const { setup, steps } = this.#history;
    this.#random.reseed(this.#history.seed ^ 0x5bd1e995);
    if (setup.trouble === 'damage') this.#model.keptGroups = 16;
    setup.segments.forEach((_, group) => {
      const raid = this.#raid(group);
      const use = this.#random.below(3); // zeros, rubbish, some rubbish
      const members = Array.from({ length: raid.members }, () => {
        const device = new SimulatedDevice({ sizeBytes: this.#rootBack(group) + DATA_OFFSET, random: this.#random, arena });
        this.#devices.push(device);
        if (use) device.scribble(use === 1 ? 1 : 0.3);
        const member: MemberState = {
          device,
          state: 'online',
          gone: false,
          missed: false,
          goesIn: -1,
          failures: 0,
          rotten: false,
          filling: 0,
          filled: 0,
        };
        this.#memberOf.set(device, member);
        return member;
      });
      this.#groups.push(members);
    });
    for (let i = 0; i < setup.assigned; i++) this.#assign();
    this.#create();
    if (this.#options.cutAfter !== undefined) this.#fuse.left = this.#options.cutAfter;
    for (this.at = 0; this.at < steps.length; this.at++) {
      const step = steps[this.at] as Step;
      this.#random.reseed(step.seed);
      this.#options.onStep?.(this.at, step);
      const groups = this.#model.groups;
      try {
        if (this.#readOnly && this.#random.chance(0.3)) {
          this.#killOnly = this.#random.chance(0.5);
          throw new PowerCut();
        }
        this.#perform(step);
        this.#volumes();
        for (let i = 0; i < step.turns && this.#driver?.turn(); i++);
      } catch (error) {
        if (!(error instanceof PowerCut)) throw error;
        this.#lie(groups);
        this.#recover(step);
        continue;
      }
      this.#lie(groups);
      this.#instances?.note();
    }
    this.#finish();
  }

  // ---- lives ----

  #start(readOnly: boolean): Driver {
    const { setup } = this.#history;
    const driver = new Driver({
      core: this.#options.makeCore?.() ?? (this.#instances as Instances).make(),
      random: this.#random,
      fuse: this.#fuse,
      disorder: setup.disorder,
      eagerness: setup.eagerness,
      readOnly,
      plant: (this.#options.plant ?? 0) | (this.#history.seed % 4 === 0 ? 0 : LOOSE),
      grow: () => this.#growIfSpare(0.9),
      onFault: (handle) => this.#fault(handle),
      isGone: (device) => this.#isGone(device),
      onBackgroundFailed: (ticket) => this.#tolerate(`background ticket of kind ${ticket.kind}`, ticket, [], true),
    });
    driver.trace = this.#options.trace;
    const { core } = driver;
    core.configure(setup.leafBlocks, setup.checkpointEntries, setup.unflushedLimitBytes, setup.sumsCacheBytes);
    const { policy } = setup;
    core.policySet(policy.growAt, policy.compactTo, policy.shrinkBelow, policy.mode, policy.volumesMin ?? 1, 64);
    for (const place of this.#assigned) this.#addVolume(driver, place);
    this.#driver = driver;
    this.#readOnly = false;
    this.#firedBefore = this.#fired();
    this.#outstanding = [];
    for (const buffer of this.#buffers) buffers.push(buffer);
    this.#buffers.clear();
    return driver;
  }

  #addVolume(driver: Driver, place: Place): void {
    const members = this.#groups[place.device] as MemberState[];
    const segments = this.#setup.segments[place.device] as number;
    const raid = this.#raid(place.device);
    const status = driver.addGroup(
      place.id,
      raid.level,
      raid.strip,
      members.map((member) => member.device),
      raid.segmentBlocks,
      segments,
      DATA_OFFSET,
      0,
      this.#rootBack(place.device),
    );
    if (status !== 0) throw new Violation(`volumeAdd answers ${status}`);
    members.forEach((member, index) => {
      // Without a member: its absence is committed first.
      member.failures = failuresOf(member.device);
      member.missed = false;
      if (member.gone && member.state === 'online' && raid.level > 1) member.state = 'out';
      if (member.gone) member.filled = 0; // what is written from now on it does not get
      if (member.state !== 'online')
        driver.core.memberSet?.(place.id, index, member.state === 'out' || member.gone ? MEMBER.OUT : MEMBER.REBUILDING);
    });
  }

  #raid(group: number): Raid {
    return this.#setup.raid?.[group] ?? { ...SINGLE, segmentBlocks: this.#setup.segmentBlocks };
  }

  #rootBack(group: number): number {
    const { level, members, segmentBlocks } = this.#raid(group);
    const columns = [1, members, 1, members - 1, members - 2, members / 2][level] as number;
    return DATA_OFFSET + (((this.#setup.segments[group] as number) * segmentBlocks) / columns) * BLOCK;
  }

  /** Members that the level has to do without, were these lost as well. */
  #bears(group: number, also: readonly MemberState[]): boolean {
    const { level, members } = this.#raid(group);
    let lost = 0;
    (this.#groups[group] as MemberState[]).forEach((member, index) => {
      const failing = member.device.armed() || failuresOf(member.device) > member.failures;
      if (
        member.state !== 'online' ||
        member.gone ||
        member.missed ||
        member.goesIn >= 0 ||
        member.rotten ||
        failing ||
        also.includes(member)
      )
        lost |= 1 << index;
    });
    return (this.#driver as Driver).core.volumeTolerates?.(level, members, lost) === 1;
  }

  #fault(handle: number): void {
    const driver = this.#driver as Driver;
    const place = this.#assigned.find((other) => other.id === Math.floor(handle / MEMBERS_MAX));
    if (!place) throw new Violation(`a member of the unknown storage volume ${Math.floor(handle / MEMBERS_MAX)} is to be faulted`);
    const member = (this.#groups[place.device] as MemberState[])[handle % MEMBERS_MAX] as MemberState;
    if (!this.#finishing && this.#random.chance(0.05)) throw new PowerCut();
    member.state = 'out';
    member.failures = failuresOf(member.device);
    member.missed = false;
    this.#event('member faulted');
    if (!this.#finishing && this.#random.chance(0.05)) throw new PowerCut();
    driver.core.memberSet?.(place.id, handle % MEMBERS_MAX, MEMBER.OUT);
    driver.progressed();
  }

  #goneCount(): number {
    return [...this.#memberOf.values()].filter((member) => member.gone).length;
  }

  #isGone(device: SimulatedDevice): boolean {
    const member = this.#memberOf.get(device) as MemberState;
    if (member.goesIn >= 0 && member.goesIn-- === 0) {
      member.gone = true;
      this.#event('member lost');
    }
    if (member.gone) member.missed = true;
    return member.gone;
  }

  #end(): void {
    const core = this.#driver?.core;
    this.commands += this.#driver?.commands ?? 0;
    if (core) for (let i = 0; i < COUNTERS; i++) (this.counters[i] as number) += core.counter?.(i) ?? 0;
    this.#driver = undefined;
  }

  #identity(driver: Driver, key: boolean): void {
    const bytes = driver.exchange(32);
    for (let i = 0; i < 16; i++) bytes[i] = (this.#history.seed >>> ((i % 4) * 8)) ^ (i * 37) ^ this.#creations;
    if (key) for (let i = 16; i < 32; i++) bytes[i] = i * 91;
  }

  #create(): void {
    if (this.#random.chance(0.1)) this.#fuse.left = this.#random.below(12);
    let driver: Driver;
    for (;;) {
      driver = this.#start(false);
      this.#identity(driver, true);
      try {
        const created = driver.run(KIND.CREATE);
        if (created.state !== 'done') throw new Violation(`create fails with ${created.code}`);
        break;
      } catch (error) {
        if (!(error instanceof PowerCut)) throw error;
        this.#event('cut inside create');
        this.#creations++; // it was never there: another log is made in its place
        for (const device of this.#devices) device.crash();
      }
    }
    this.#fuse.left = -1;
    this.#lastDurable = driver.core.figure(10);
    for (const { volume, name, blocks } of this.#setup.sources) {
      const source = this.#model.source(volume, name, this.#setup.blocksMax * BLOCK_SECTORS);
      this.#structural(
        this.#model.beginCreate(`create ${name}`, source, blocks * BLOCK_SECTORS),
        OPERATION.CREATE_SOURCE,
        volume,
        blocks * BLOCK,
        0,
        name,
        () => true,
      );
    }
  }

  /** Opens. When it is damaged, says so, and may, the history ends. */
  #open(readOnly: boolean): void {
    for (let attempt = 0; ; attempt++) {
      const lostBefore = this.events.get('member lost') ?? 0;
      const driver = this.#start(readOnly);
      this.#identity(driver, false);
      const ticket = driver.run(KIND.OPEN, readOnly ? 1 : 0);
      if (ticket.state === 'done') {
        this.#lastDurable = driver.core.figure(10);
        return;
      }
      this.#end();
      if (ticket.code === CORRUPT && this.#isDamaged()) {
        this.#event('damage found at open');
        throw new Ended();
      }
      const device = ticket.code === IO || ticket.code === NO_SPACE || ticket.code === READ_ONLY;
      const lost = this.events.get('member lost') ?? 0;
      if (!device || attempt > 1 || (this.#fired() === this.#firedBefore && lost === lostBefore))
        throw new Violation(`open fails with ${ticket.code} (${ticket.place})`);
      this.#event('open failed for a device');
      this.#disarm();
      for (const other of this.#devices) other.kill();
    }
  }

  /** The power went, or the process died. */
  #recover(step: Step): void {
    this.#event(this.#killOnly ? 'kill' : 'power cut');
    if (this.#fuse.left === -1 && !this.#readOnly) this.#event('cut by fuse');
    let again = step.op === 'crash' ? [0, 0, 1, 2][(step.flag >>> 4) % 4]! : 0;
    this.#fuse.left = -1;
    for (;;) {
      this.#end();
      for (const device of this.#devices) {
        if (this.#killOnly) device.kill();
        else device.crash();
      }
      this.#killOnly = false;
      if (again-- > 0) {
        this.#fuse.left = this.#random.below(40);
        this.#killOnly = this.#random.chance(0.3);
      }
      try {
        let earlier: Uint32Array | undefined;
        const gone = this.#goneCount();
        if (this.#random.chance(0.1)) {
          this.#open(true);
          this.#event('read-only open after a cut');
          this.#goneAtOpen = gone;
          try {
            this.#observe();
            earlier = this.#observed.values.slice(0, this.#model.unitsUsed);
          } catch (error) {
            if (!(error instanceof TailLost)) throw error;
            this.#event('a tail went with its member');
          }
          this.#goneAtOpen = -1;
          this.#end();
        }
        this.#open(false);
        this.#volumes();
        this.#observe();
        if (
          earlier &&
          this.#setup.trouble === 'none' &&
          gone === this.#goneCount() &&
          earlier.some((value, unit) => value !== this.#observed.values[unit])
        ) {
          throw new Violation('P2: a read-only open and the open for writing after it find different states');
        }
        this.#lie(this.#model.groups);
        const broken = this.#model.adopt(this.#observed);
        if (broken) throw new Violation(`P1/P2: ${broken}`);
        this.#snapshots();
        this.#fuse.left = -1;
        this.#rebuildOn();
        return;
      } catch (error) {
        if (!(error instanceof PowerCut)) throw error;
        this.#event('cut inside recovery');
      }
    }
  }

  /** Closes cleanly, and opens again. */
  #reopen(step: Step, readOnly: boolean): void {
    const driver = this.#settle();
    this.#closedLive = -1;
    const ticket = driver.run(KIND.CLOSE);
    if (ticket.state === 'done') {
      this.#model.sealed();
      this.#event('clean close');
      if (!this.#isDamaged()) this.#closedLive = driver.core.figure(1);
    } else this.#tolerate('close', ticket, [], true);
    this.#end();
    for (const device of this.#devices) {
      if (step.flag & 1) device.crash();
      else device.kill();
    }
    this.#open(readOnly);
    this.#liveCounts();
    this.#observe();
    const broken = this.#model.adopt(this.#observed);
    if (broken) throw new Violation(`P1/P2 after a clean close: ${broken}`);
    this.#snapshots();
    if (!readOnly) this.#rebuildOn();
  }

  #liveCounts(): void {
    if (this.#closedLive < 0 || this.#isDamaged()) return;
    const live = (this.#driver as Driver).core.figure(1);
    if (live !== this.#closedLive) throw new Violation(`live counts: ${this.#closedLive} blocks when closed, ${live} when counted anew`);
    this.#closedLive = -1;
  }

  /** As many blocks are live as there are different ones in the sources and snapshots. Less is a loss, more a leak. */
  #distinct(): void {
    const model = this.#model;
    if (this.#isDamaged() || this.#options.makeCore) return;
    const seen = new Set<string>();
    const add = (source: ModelSource, values: Uint32Array): void => {
      for (let unit = source.first; unit < source.first + source.sectors; unit += BLOCK_SECTORS) {
        let key = `${unit}`;
        let zero = true;
        for (let i = unit; i < unit + BLOCK_SECTORS; i++) {
          key += ` ${values[i]}`;
          if (values[i] !== 0) zero = false;
        }
        if (!zero) seen.add(key);
      }
    };
    for (const source of model.sources) add(source, model.live.values);
    for (const snapshot of model.snapshots)
      if (model.present(snapshot)) for (const member of snapshot.members) add(member, snapshot.base.values);
    const live = (this.#driver as Driver).core.figure(1);
    if (live < seen.size || (live > seen.size && !this.#blurred)) {
      throw new Violation(`live counts: ${live} blocks are live, there are ${seen.size} different ones`);
    }
    this.#event(this.#blurred ? 'live at least' : 'live exactly');
  }

  #finish(): void {
    this.#finishing = true;
    this.#fuse.left = -1;
    this.#disarm();
    try {
      let driver = this.#settle();
      const flush = (): Ticket => {
        const since = this.#model.time;
        const ticket = driver.run(KIND.FLUSH);
        if (ticket.state === 'done') this.#flushed(since + 1);
        return ticket;
      };
      if (flush().state !== 'done' && !this.#readOnly) {
        const second = flush();
        if (second.state !== 'done' && second.code !== READ_ONLY && !this.#isDamaged())
          throw new Violation(`flush fails with ${second.code} though the devices work again`);
      }
      this.#verify();
      if (this.#driver !== driver) throw new Violation('a life too many');
      driver.drain();
      this.#verify();
      this.#distinct();
      if (this.#readOnly) this.#recover(QUIET);
      this.#reopen({ ...QUIET, flag: this.#random.word() }, true);
      driver = this.#driver as Driver;
      this.#check();
      this.#verify();
      this.#end();
    } catch (error) {
      if (error instanceof PowerCut) throw new Violation('a cut without a fuse');
      throw error;
    }
  }

  // ---- steps ----

  #perform(step: Step): void {
    const driver = this.#driver as Driver;
    while (this.#outstanding.length >= OUTSTANDING_MAX) driver.finish(this.#outstanding[0] as Ticket);
    const model = this.#model;
    switch (step.op) {
      case 'write':
      case 'trim':
      case 'read': {
        const source = this.#pickSource(step.a);
        if (!source) return;
        const size = model.sizeOf(source);
        const at = step.at % size;
        const count = Math.min(step.count, size - at, step.op === 'trim' ? size : BUFFER_BYTES / SECTOR);
        if (step.op === 'write') this.#write(source, at, count, step);
        else if (step.op === 'trim') this.#trim(source, at, count, step);
        else this.#read(source, at, Math.min(count * (1 + (step.flag & 3)), size - at), step);
        return;
      }
      case 'readSnapshot': {
        const snapshot = this.#pickSnapshot(step.a);
        if (!snapshot) return;
        const member = snapshot.members[step.flag % snapshot.members.length] as ModelSource;
        const size = snapshot.base.values[member.sizeUnit] as number;
        const at = step.at % size;
        this.#readSnapshot(snapshot, member, at, Math.min(step.count, size - at), step);
        return;
      }
      case 'flush': {
        const since = ++model.time;
        this.#go(driver.submit(KIND.FLUSH), step, (ticket) => {
          if (ticket.state === 'done') this.#flushed(since);
          else this.#tolerate('flush', ticket, [], true);
        });
        return;
      }
      case 'snapshot':
        this.#snapshot(step);
        return;
      case 'deleteSnapshot': {
        const snapshot = this.#pickSnapshot(step.a);
        if (snapshot) this.#deleteSnapshot(snapshot, step);
        return;
      }
      case 'rollback':
        this.#rollback(step);
        return;
      case 'resize': {
        const source = this.#pickSource(step.a);
        if (!source) return;
        this.#settle();
        let sectors = 1 + (step.at % source.sectors);
        if (step.flag & 1) sectors = Math.ceil(sectors / BLOCK_SECTORS) * BLOCK_SECTORS;
        if (sectors % BLOCK_SECTORS !== 0) this.#blurred = true; // the cut block stays mapped, also when what is left of it is zeros
        const space = this.#spaceOf(source);
        this.#structural(
          model.beginResize(`resize ${source.name}`, source, sectors),
          OPERATION.RESIZE,
          space,
          sectors * SECTOR,
          0,
          '',
          () => {
            return this.#sources().some((record) => record.space === space && record.sectors === sectors);
          },
        );
        return;
      }
      case 'create': {
        if (this.#alive().length >= 5 || !model.room(this.#setup.blocksMax * BLOCK_SECTORS + 200)) return;
        this.#settle();
        const name = `new${this.#names++}`;
        const volume = 1 + (step.a % 3);
        const blocks = 8 + (step.at % (this.#setup.blocksMax - 8));
        const source = model.source(volume, name, this.#setup.blocksMax * BLOCK_SECTORS);
        this.#structural(
          model.beginCreate(`create ${name}`, source, blocks * BLOCK_SECTORS),
          OPERATION.CREATE_SOURCE,
          volume,
          blocks * BLOCK,
          0,
          name,
          () => {
            return this.#sources().some((record) => record.volume === volume && record.name === name);
          },
        );
        return;
      }
      case 'delete': {
        if (this.#alive().length <= 3) return;
        const source = this.#pickSource(step.a);
        if (!source) return;
        this.#settle();
        const space = this.#spaceOf(source);
        this.#structural(model.beginDelete(`delete ${source.name}`, source), OPERATION.DELETE_SOURCE, space, 0, 0, '', () => {
          return !this.#sources().some((record) => record.space === space);
        });
        return;
      }
      case 'checkpoint':
      case 'compact': {
        const kind = step.op === 'checkpoint' ? KIND.CHECKPOINT : KIND.COMPACT;
        this.#go(driver.submit(kind, 0, kind === KIND.COMPACT ? 1 : 0), step, (ticket) => {
          if (ticket.state === 'done') this.#event(step.op);
          else this.#tolerate(step.op, ticket, [], true);
        });
        return;
      }
      case 'diff':
        this.#diff(step);
        return;
      case 'verify':
        this.#verify();
        return;
      case 'check':
        this.#settle();
        this.#check();
        return;
      case 'crash':
        this.#killOnly = (step.flag & CUT_KILL) === 0;
        if (step.count === 0) throw new PowerCut();
        this.#fuse.left = step.count;
        return;
      case 'reopen':
        this.#reopen(step, false);
        return;
      case 'evacuate':
        this.#evacuate(step);
        return;
      case 'grow':
        this.#growIfSpare(1);
        return;
      case 'fault': {
        const kinds = this.#setup.trouble === 'failing' ? FAILURES : DAMAGES;
        const kind = kinds[(step.flag >>> 3) % kinds.length] as (typeof kinds)[number];
        const place = this.#assigned[step.a % this.#assigned.length] as Place;
        // Lies on the devices of the roots could reach every copy of a root when there is only one of them.
        if (this.#setup.trouble === 'damage' && this.#assigned.length < 2) return;
        if (this.#setup.trouble === 'damage' && this.#armed++ > 1) return;
        const count = kind === 'writeLost' ? 1 + (step.at % 12) : this.#setup.trouble === 'failing' ? 1 + (step.at % 3) : 1;
        const members = this.#groups[place.device] as MemberState[];
        const member = members[(step.flag >>> 8) % members.length] as MemberState;
        if (this.#setup.raid && this.#raid(place.device).level > 1) {
          // A request that fails costs a member when it is a write: so many can be borne.
          if (kind === 'full' || !this.#bears(place.device, [member])) return;
        }
        member.device.arm(kind, step.count, count);
        return;
      }
      case 'flip': {
        if (this.#assigned.length < 2) return;
        const { device } = (
          this.#groups[(this.#assigned[step.a % this.#assigned.length] as Place).device] as MemberState[]
        )[0] as MemberState;
        const block = (step.flag & 0x300) !== 0 ? device.pickRecent(64) : device.pickWritten();
        if (block < 0) return;
        this.#flipped = true;
        this.#model.doubtedGroups++;
        this.#event('bit flipped');
        if (step.flag & 1) device.flip(block * BLOCK + (step.at % BLOCK), (step.flag >>> 4) & 7);
        else if (!device.regress(block)) device.flip(block * BLOCK + (step.at % 512), (step.flag >>> 4) & 7);
        return;
      }
      case 'calm':
        this.#disarm();
        return;
      case 'lose':
      case 'bring':
      case 'rebuild':
      case 'scrub':
      case 'rot':
        this.#members(step);
    }
  }

  // ---- members ----

  /** Members that were gone when a log with an unmended tail was opened for reading; −1: it is not. */
  #goneAtOpen = -1;
  /** Members that went away so far; they may be back again. */
  #losses = 0;

  #members(step: Step): void {
    const driver = this.#driver as Driver;
    const place = this.#assigned[step.a % this.#assigned.length] as Place;
    const group = this.#groups[place.device] as MemberState[];
    const index = (step.flag >>> 8) % group.length;
    const member = group[index] as MemberState;
    if (step.op === 'scrub') {
      const report = (step.flag & 7) === 0;
      if (this.#setup.trouble === 'rot') this.#settle(); // alone, so that all of it is on the devices
      const rotten = [...this.#memberOf.values()].filter((other) => other.rotten && !other.gone && other.state === 'online');
      const clean = rotten.length === 0 && !this.#hurt();
      const losses = this.#losses;
      const unread = this.#unread();
      this.#go(
        driver.submit(KIND.SCRUB, SPACE_NONE, report ? 1 : 0),
        { ...step, wait: step.wait || this.#setup.trouble === 'rot' },
        (ticket) => {
          if (ticket.state !== 'done') return this.#tolerate('scrub', ticket, [], true);
          const found = this.#findings();
          this.#event(report ? 'scrub that reports' : 'scrub');
          // What a checkpoint wrote that ended with the log is never written in a log that turned read-only.
          if (found.damage && driver.core.figure(FAILED_READ_ONLY) === 0) throw new Violation(`scrub cannot mend ${found.damage}`);
          if (found.healed && clean && losses === this.#losses && unread === this.#unread() && !this.#hurt())
            throw new Violation(`scrub mends ${found.healed} where nothing is wrong`);
          if (found.healed) this.#event('scrub mended');
          if (!report) for (const other of rotten) if (other.state === 'online' && !other.gone) other.rotten = false;
        },
      );
      return;
    }
    if (this.#raid(place.device).level < 2) return;
    if (step.op === 'lose') {
      if (member.gone || member.goesIn >= 0 || !this.#bears(place.device, [member])) return;
      member.goesIn = step.count;
      this.#losses++;
      return;
    }
    if (step.op === 'rot') {
      if (member.gone || member.state !== 'online' || (!member.rotten && !this.#bears(place.device, [member]))) return;
      const block = (step.flag & 0x60000) !== 0 ? member.device.pickRecent(64) : member.device.pickWritten();
      if (block < 0) return;
      member.rotten = true;
      this.#event('rot');
      if (step.flag & 1) member.device.flip(block * BLOCK + (step.at % BLOCK), (step.flag >>> 4) & 7);
      else if (!member.device.regress(block)) member.device.flip(block * BLOCK + (step.at % 512), (step.flag >>> 4) & 7);
      return;
    }
    // A member that is out comes back as it was, or another takes its place; in the end it is rebuilt.
    const away = group.findIndex((other) => other.gone || other.state !== 'online');
    if (away < 0) return;
    const back = group[away] as MemberState;
    if (step.op === 'bring') {
      if (!back.gone) return;
      back.gone = false;
      this.#event(back.state === 'online' ? 'member back unnoticed' : 'member back');
      return;
    }
    if (back.state === 'online') return;
    const goesOn = back.state === 'rebuilding' && !back.gone;
    if (back.gone) back.gone = false;
    else if (back.state === 'out' && step.flag & 1) back.device.scribble();
    if (this.#options.plant === PLANT_STALE_TRUSTED) {
      back.state = 'online';
      driver.core.memberSet?.(place.id, away, MEMBER.ONLINE);
      return;
    }
    back.rotten = false;
    back.device.disarm();
    back.state = 'rebuilding';
    if (!goesOn) {
      back.filling++;
      back.filled = 0;
    }
    driver.core.memberSet?.(place.id, away, MEMBER.REBUILDING);
    this.#event(goesOn && back.filled > 0 ? 'rebuild goes on' : 'rebuild begun');
    this.#rebuild(place, back, step, 0);
  }

  /** Rebuilds that were cut off in the middle go on by themselves, as a pool has it. */
  #rebuildOn(): void {
    for (const place of this.#assigned) {
      const back = (this.#groups[place.device] as MemberState[]).find((member) => member.state === 'rebuilding' && !member.gone);
      if (!back || back.filled === 0) continue;
      this.#event('rebuild goes on');
      const flag = this.#random.word();
      this.#rebuild(place, back, { ...QUIET, wait: false, count: this.#random.below(8), at: this.#random.word(), flag }, 0);
    }
  }

  /** Fills the members of a storage volume that are being rebuilt, in parts or all in one; `back` is online when that comes to an end. */
  #rebuild(place: Place, back: MemberState, step: Step, part: number): void {
    const driver = this.#driver as Driver;
    const group = this.#groups[place.device] as MemberState[];
    const filled = group
      .filter((member) => member.state === 'rebuilding' && !member.gone)
      .map((member) => ({ member, filling: member.filling }));
    const { filling } = back;
    const from = Math.min(...filled.map(({ member }) => member.filled));
    const ticket = driver.submit(KIND.SCRUB, place.id, 2, from, step.count === 0 ? 0 : 1 + (step.count % 7));
    this.#go(ticket, step, (ended) => {
      if (ended.state !== 'done') return this.#tolerate('rebuild', ended, [], true);
      const found = this.#findings();
      if (found.damage) throw new Violation(`rebuild cannot mend ${found.damage}`);
      if (!this.#assigned.includes(place)) return;
      const to = ended.result > 0 ? ended.result : 2 * (this.#setup.segments[place.device] as number);
      for (const one of filled) {
        const { member } = one;
        if (member.state === 'rebuilding' && member.filling === one.filling && !member.gone) member.filled = Math.max(member.filled, to);
      }
      if (back.state !== 'rebuilding' || back.filling !== filling || back.gone) return;
      if (ended.result > 0) {
        this.#event('rebuilt in part');
        if ((step.at >>> ((part * 3) % 30)) & 7) this.#rebuild(place, back, step, part + 1); // else another step goes on
        return;
      }
      back.state = 'online';
      driver.core.memberSet?.(place.id, group.indexOf(back), MEMBER.ONLINE);
      this.#event('rebuilt');
      if (step.flag & 16 && !this.#hurt()) this.#rebuiltWell(place.id);
    });
  }

  /** A member that was rebuilt is what it should be: a scrub finds nothing. */
  #rebuiltWell(volume: number): void {
    const driver = this.#driver as Driver;
    const losses = this.#losses;
    const unread = this.#unread();
    const ticket = driver.submit(KIND.SCRUB, volume, 1);
    this.#go(ticket, { ...QUIET, wait: false }, (ended) => {
      if (ended.state !== 'done') return this.#tolerate('scrub', ended, [], true);
      const found = this.#findings();
      if (found.damage) throw new Violation(`scrub after a rebuild cannot mend ${found.damage}`);
      if (found.healed && losses === this.#losses && unread === this.#unread() && !this.#hurt())
        throw new Violation(`P4: a member was rebuilt, and is not what it should be: ${found.healed}`);
      this.#event('rebuilt well');
    });
  }

  /** May a scrub find something that differs? Writes and flushes that a device failed, wrong bytes, and members that do not answer are all that excuses it. */
  #hurt(): boolean {
    return (
      this.#fired() > this.#unread() || [...this.#memberOf.values()].some((member) => member.gone || member.goesIn >= 0 || member.rotten)
    );
  }

  /** What a scrub, rebuild or check said: rows that were mended, and places where that was not possible. */
  #findings(): { healed: string; damage: string } {
    const driver = this.#driver as Driver;
    const found = { healed: '', damage: '' };
    while (driver.core.problemTake() !== 0) {
      const view = driver.view();
      const text = `code ${view.getUint32(0, true)} volume ${view.getUint32(4, true)} block ${view.getUint32(8, true)} kind ${view.getUint32(12, true)} offset ${view.getFloat64(16, true)}`;
      if (view.getUint32(0, true) === 0) found.healed ||= text;
      else found.damage ||= text;
    }
    return found;
  }

  /** Follows a ticket to its end, now or later. */
  #go(ticket: Ticket | number, step: Step, onEnd: (ticket: Ticket) => void, buffer?: Uint8Array): void {
    if (typeof ticket === 'number') {
      const refused = new Ticket(0, undefined, false);
      refused.state = 'failed';
      refused.code = ticket;
      onEnd(refused);
      if (buffer) this.#release(buffer);
      return;
    }
    this.#outstanding.push(ticket);
    ticket.onEnd = () => {
      this.#outstanding.splice(this.#outstanding.indexOf(ticket), 1);
      onEnd(ticket);
      if (buffer) this.#release(buffer);
    };
    if (step.wait) (this.#driver as Driver).finish(ticket);
  }

  /** All client calls have ended. */
  #settle(): Driver {
    const driver = this.#driver as Driver;
    while (this.#outstanding.length > 0) driver.finish(this.#outstanding[0] as Ticket);
    return driver;
  }

  #write(source: ModelSource, at: number, count: number, step: Step): void {
    const model = this.#model;
    const driver = this.#driver as Driver;
    const label = `#${this.at} write`;
    const stamp = model.stamps(count, label);
    const buffer = this.#buffer(count * SECTOR);
    const words = new Uint32Array(buffer.buffer, buffer.byteOffset, count * 128);
    for (let i = 0; i < count; i++) words.fill(stamp + i, i * 128, (i + 1) * 128);
    const change = model.beginWrite(label, source, at, count, stamp);
    const fua = (step.flag & 1) === 1;
    const ticket = driver.submit(KIND.WRITE, this.#spaceOf(source), fua ? 1 : 0, at * SECTOR, count * SECTOR, buffer);
    const end = (ended: Ticket): void => {
      if (ended.state === 'done') {
        model.acknowledge(change);
        if (fua) this.#durable(change);
      } else {
        if (typeof ticket === 'number') model.withdraw(change);
        else model.fail(change, true);
        this.#tolerate('write', ended, [NO_SPACE], true);
        if (ended.code === NO_SPACE) this.#refused();
      }
    };
    this.#go(ticket, step, end, buffer);
  }

  #trim(source: ModelSource, at: number, count: number, step: Step): void {
    const model = this.#model;
    const change = model.beginTrim(`#${this.at} trim`, source, at, count);
    const ticket = (this.#driver as Driver).submit(KIND.TRIM, this.#spaceOf(source), 0, at * SECTOR, count * SECTOR);
    const edges = at % BLOCK_SECTORS !== 0 || (at + count) % BLOCK_SECTORS !== 0;
    if (edges) this.#blurred = true; // zeros that are stored, and blocks written again as they were
    this.#go(ticket, step, (ended) => {
      if (ended.state === 'done') model.acknowledge(change);
      else {
        if (typeof ticket === 'number') model.withdraw(change);
        else model.fail(change, true);
        this.#tolerate('trim', ended, edges ? [NO_SPACE] : [], true);
      }
    });
  }

  #read(source: ModelSource, at: number, count: number, step: Step): void {
    const model = this.#model;
    const probe = model.probe(source.first + at, count);
    // Any byte range, now and then.
    const ragged = (step.flag & 0x70) === 0x70 && count > 1;
    const from = at * SECTOR + (ragged ? (step.flag >>> 6) % SECTOR : 0);
    const length = ragged ? Math.max(1, count * SECTOR - ((step.flag >>> 6) % SECTOR) - ((step.flag >>> 15) % SECTOR)) : count * SECTOR;
    const buffer = this.#buffer(length);
    const ticket = (this.#driver as Driver).submit(KIND.READ, this.#spaceOf(source), EPOCH_NOW, from, length, buffer);
    const end = (ended: Ticket): void => {
      model.endProbe(probe);
      if (ended.state === 'failed') {
        this.#tolerate('read', ended, [], true);
        return;
      }
      const what = `P3: read of ${source.name} at sector ${at}`;
      if (ragged) this.#compareRagged(what, buffer, from - at * SECTOR, length, source.first + at, (unit) => model.possible(probe, unit));
      else
        this.#compare(
          what,
          buffer,
          count,
          source.first + at,
          (unit, value) => model.allowed(probe, unit, value),
          (unit) => model.possible(probe, unit),
        );
    };
    this.#go(ticket, step, end, buffer);
  }

  #readSnapshot(snapshot: ModelSnapshot, member: ModelSource, at: number, count: number, step: Step): void {
    const model = this.#model;
    const record = this.#recordOf(snapshot);
    if (!record) return;
    const place = record.members.find((other) => other.name === member.name);
    if (!place) throw new Violation(`snapshot '${snapshot.name}' lacks its member '${member.name}'`);
    const buffer = this.#buffer(count * SECTOR);
    const ticket = (this.#driver as Driver).submit(KIND.READ, place.space, record.epoch, at * SECTOR, count * SECTOR, buffer);
    const end = (ended: Ticket): void => {
      if (!model.present(snapshot) || this.#goes(snapshot)) return; // deleted meanwhile
      if (ended.state === 'failed') {
        this.#tolerate('read of a snapshot', ended, [], true);
        return;
      }
      this.#event('snapshot read');
      const possible = (unit: number): number[] => model.possibleInSnapshot(snapshot, unit);
      this.#compare(
        `P3: read of ${member.name} in snapshot ${snapshot.name}`,
        buffer,
        count,
        member.first + at,
        (unit, value) => possible(unit).includes(value),
        possible,
      );
    };
    this.#go(ticket, step, end, buffer);
  }

  #snapshot(step: Step): void {
    const model = this.#model;
    const first = this.#pickSource(step.a);
    if (!first) return;
    const { volume } = first;
    const driver = this.#driver as Driver;
    const present = model.snapshots.filter((snapshot) => model.present(snapshot));
    if ((step.flag & 0x70) === 0x70) {
      const taken = present.find((snapshot) => snapshot.volume === volume && !this.#goes(snapshot));
      if (!taken) return;
      this.#payload(OPERATION.SNAPSHOT, volume, 1, SPACE_NONE, taken.name);
      this.#go(driver.submit(KIND.OPERATION), { ...step, wait: true }, (ended) => {
        if (ended.state === 'done') throw new Violation(`a second snapshot '${taken.name}' was made`);
        this.#tolerate('snapshot of a taken name', ended, [EXISTS], true);
      });
      return;
    }
    if (present.length >= this.#setup.snapshotsMax || !model.room(100)) return;
    const single = (step.flag & 0xc) === 0;
    if (!single && this.#sizesUnclear(volume)) return;
    const members = single ? [first] : this.#alive().filter((source) => source.volume === volume);
    if (
      members.some((member) =>
        model.running.some((change) => change.pieces.some((piece) => piece.assignments.some((entry) => entry.start === member.sizeUnit))),
      )
    )
      return;
    const name = `s${this.#names++}`;
    const snapshot = model.beginSnapshot(`snapshot ${name}`, volume, name, step.seed, members);
    this.#payload(OPERATION.SNAPSHOT, volume, step.seed, single ? this.#spaceOf(first) : SPACE_NONE, name);
    const ticket = driver.submit(KIND.OPERATION);
    this.#go(ticket, step, (ended) => {
      this.#operationEnded(snapshot.change, ticket, ended, 'snapshot', [NO_SPACE], () => this.#recordOf(snapshot) !== undefined);
    });
  }

  #deleteSnapshot(snapshot: ModelSnapshot, step: Step): void {
    const model = this.#model;
    const record = this.#recordOf(snapshot);
    if (!record || this.#goes(snapshot)) return;
    const change = model.beginDeleteSnapshot(`delete ${snapshot.name}`, snapshot);
    this.#payload(OPERATION.DELETE_SNAPSHOT, record.id, 0, 0, '');
    const ticket = (this.#driver as Driver).submit(KIND.OPERATION);
    this.#go(ticket, step, (ended) =>
      this.#operationEnded(change, ticket, ended, 'delete of a snapshot', [], () => this.#recordOf(snapshot) === undefined),
    );
  }

  #rollback(step: Step): void {
    const model = this.#model;
    const snapshot = this.#pickSnapshot(step.a);
    if (!snapshot || !model.room(100)) return;
    if (snapshot.members.some((member) => model.sizeOf(member) === 0)) return; // its source was deleted
    if (model.snapshots.filter((other) => model.present(other)).length > this.#setup.snapshotsMax + 1) return;
    this.#settle();
    if (!model.present(snapshot) || this.#sizesUnclear(snapshot.volume)) return; // the automatic one has all sources
    if (!this.#checkSnapshot(snapshot)) return; // what it holds is unknown: it is damaged
    this.#blurred = true; // what the new state hides of the old lives until the two are merged
    const record = this.#recordOf(snapshot) as SnapshotRecord;
    const name = `auto${this.#names++}`;
    const left = this.#alive().filter((source) => source.volume === snapshot.volume);
    const automatic = model.beginRollback(`rollback to ${snapshot.name}`, snapshot, name, step.seed, left);
    const driver = this.#driver as Driver;
    this.#payload(OPERATION.ROLLBACK, record.id, step.seed, 0, name);
    const ticket = driver.submit(KIND.OPERATION);
    this.#go(ticket, { ...step, wait: true }, (ended) => {
      this.#operationEnded(automatic.change, ticket, ended, 'rollback', [NO_SPACE, LIMIT], () => this.#recordOf(automatic) !== undefined);
    });
  }

  /** Structural changes are made alone: nothing else of the client's runs. */
  #structural(change: Change, op: number, a: number, b: number, c: number, name: string, visible: () => boolean): void {
    const driver = this.#driver as Driver;
    this.#payload(op, a, b, c, name);
    const ticket = driver.submit(KIND.OPERATION);
    this.#go(ticket, QUIET, (ended) => {
      this.#operationEnded(change, ticket, ended, change.label, op === OPERATION.DELETE_SOURCE ? [] : [NO_SPACE], visible);
    });
  }

  #operationEnded(change: Change, ticket: Ticket | number, ended: Ticket, what: string, codes: number[], visible: () => boolean): void {
    const model = this.#model;
    if (ended.state === 'done') {
      model.acknowledge(change);
      this.#durable(change);
      if (!visible()) throw new Violation(`${what} is not to be seen after its return`);
      return;
    }
    this.#tolerate(what, ended, codes, true);
    if (typeof ticket === 'number') model.withdraw(change);
    else if (visible()) model.acknowledge(change);
    else model.fail(change, change.label.startsWith('resize')); // what is cut off goes piece by piece
  }

  #evacuate(step: Step): void {
    const { core } = this.#driver as Driver;
    if (this.#assigned.length < 2) return;
    let id = core.canGiveVolume();
    if (id < 0 && (step.flag & 1) === 1) {
      const place = this.#assigned[step.a % this.#assigned.length] as Place;
      const left = core.figure(4) - core.volumeFigure(place.id, 0);
      // It must fit into what is left, with the reserve, and what is left must have room right now: the core itself gives no other volume.
      const free = core.figure(2) - (core.volumeFigure(place.id, 0) - core.volumeFigure(place.id, 1));
      if (
        left >= 2.5 * core.figure(3) &&
        free >= core.figure(3) &&
        core.figure(1) < 0.3 * (left - core.figure(3)) * (this.#setup.segmentBlocks - 2)
      )
        id = place.id;
    }
    if (id < 0 || core.volumeState(id) !== 1) return;
    if (this.#setup.trouble === 'damage' && this.#assigned.length <= 2) return;
    const status = core.volumeEvacuate(id);
    if (status !== 0) return;
    this.#event('evacuation begun');
    (this.#driver as Driver).watch = () => this.#volumes();
  }

  // ---- the host's part ----

  #assign(): Place | undefined {
    const free = this.#groups.findIndex((_, device) => !this.#assigned.some((place) => place.device === device));
    if (free < 0) return undefined;
    const place = { id: this.#nextVolume++, device: free }; // the pool never uses an id again
    this.#assigned.push(place);
    return place;
  }

  #growIfSpare(probability: number): boolean {
    if (!this.#random.chance(probability)) return false;
    const place = this.#assign();
    if (!place) return false;
    this.#event('grown');
    if (!this.#finishing && this.#random.chance(0.02)) throw new PowerCut(); // between the catalogue and the log
    this.#addVolume(this.#driver as Driver, place);
    return true;
  }

  /** Storage volumes that the log has left go back, and somebody else uses them. */
  #volumes(): void {
    const driver = this.#driver;
    if (!driver) return;
    for (const place of this.#assigned.slice()) {
      if (driver.core.volumeState(place.id) !== 3) continue;
      this.#assigned.splice(this.#assigned.indexOf(place), 1);
      this.#event('volume released');
      const next = this.#random.below(8);
      (this.#groups[place.device] as MemberState[]).forEach((member, index) => {
        driver.devices.delete(place.id * MEMBERS_MAX + index);
        if (next === 0) member.device.clear();
        else if (next > 1) member.device.scribble();
        Object.assign(member, { state: 'online', gone: false, goesIn: -1, rotten: false });
      });
      if (!this.#finishing && this.#random.chance(0.1)) throw new PowerCut(); // between the catalogue and the log
      const status = driver.core.volumeRemove(place.id);
      if (status !== 0) throw new Violation(`volumeRemove answers ${status}`);
    }
  }

  // ---- reading everything back ----

  /** Reads the current state of every source into `#observed`. */
  #observe(): void {
    const { values, known } = this.#observed;
    const model = this.#model;
    values.fill(0, 0, model.unitsUsed);
    known.fill(1, 0, model.unitsUsed);
    for (const record of this.#sources()) {
      const source = model.sources.find((other) => other.volume === record.volume && other.name === record.name);
      if (!source) throw new Violation(`there is a source '${record.name}' in volume ${record.volume} that nobody made`);
      if (record.sectors > source.sectors) throw new Violation(`source '${record.name}' has ${record.sectors} sectors`);
      values[source.sizeUnit] = record.sectors;
      this.#readWhole(record.space, EPOCH_NOW, record.sectors, source.first, `source ${record.name}`);
    }
    for (const record of this.#snapshotRecords()) {
      const snapshot = model.snapshots.find((other) => other.volume === record.volume && other.name === record.name);
      if (!snapshot) throw new Violation(`there is a snapshot '${record.name}' of volume ${record.volume} that nobody made`);
      if (record.createdAt !== snapshot.createdAt)
        throw new Violation(`snapshot '${record.name}' was created at ${record.createdAt}, expected ${snapshot.createdAt}`);
      if (record.automatic !== snapshot.automatic) throw new Violation(`snapshot '${record.name}': automatic is ${record.automatic}`);
      values[snapshot.presentUnit] = 1;
    }
  }

  #readWhole(space: number, epoch: number, sectors: number, firstUnit: number, what: string): void {
    const driver = this.#driver as Driver;
    const { values, known } = this.#observed;
    const chunk = this.#random.chance(0.7) ? 64 * BLOCK_SECTORS : BLOCK_SECTORS * this.#random.between(1, 64);
    const read = (at: number, count: number): boolean => {
      const buffer = this.#buffer(count * SECTOR);
      const ticket = driver.run(KIND.READ, space, epoch, at * SECTOR, count * SECTOR, buffer);
      if (ticket.state === 'done') this.#stamps(`P3: ${what} at sector ${at}`, buffer, count, firstUnit + at, values);
      else if (this.#goneAtOpen >= 0 && this.#goneAtOpen < this.#goneCount() && (ticket.code === CORRUPT || ticket.code === IO)) {
        this.#goneAtOpen = -1;
        throw new TailLost();
      } else this.#tolerate(`read of ${what} at sector ${at}`, ticket, [], false);
      this.#release(buffer);
      return ticket.state === 'done';
    };
    for (let at = 0; at < sectors; at += chunk) {
      const count = Math.min(chunk, sectors - at);
      if (read(at, count)) continue;
      for (let block = at; block < at + count; block += BLOCK_SECTORS) {
        const few = Math.min(BLOCK_SECTORS, at + count - block);
        let left = READ_TRIES;
        while (left > 0 && !read(block, few)) left--;
        if (left > 0) continue;
        if (!this.#isDamaged()) throw new Violation(`${what} at sector ${block} cannot be read`);
        known.fill(0, firstUnit + block, firstUnit + block + few);
        this.#event('damaged block refused');
      }
    }
  }

  /** All sources and snapshots are what the model says. */
  #verify(): void {
    this.#settle();
    const model = this.#model;
    this.#observe();
    const { values, known } = this.#observed;
    const wrong: number[] = [];
    for (const source of model.sources) {
      for (let unit = source.sizeUnit; unit < source.first + source.sectors; unit++) {
        if (known[unit] === 0) continue;
        if (!model.live.has(unit, values[unit] as number)) wrong.push(unit);
        else model.settle(unit, values[unit] as number);
      }
    }
    for (const snapshot of model.snapshots) {
      if (!model.live.has(snapshot.presentUnit, values[snapshot.presentUnit] as number)) wrong.push(snapshot.presentUnit);
    }
    if (wrong.length) throw new Violation(`P3: ${model.describe(this.#observed, model.live, wrong)}`);
    this.#snapshots();
    this.#event('verified');
  }

  #snapshots(): void {
    for (const snapshot of this.#model.snapshots) if (this.#model.present(snapshot)) this.#checkSnapshot(snapshot);
  }

  /** Reads a whole snapshot and compares; false when some of it cannot be read. */
  #checkSnapshot(snapshot: ModelSnapshot): boolean {
    const { values, known } = this.#observed;
    const record = this.#recordOf(snapshot);
    if (!record) throw new Violation(`snapshot '${snapshot.name}' is gone`);
    const scope = this.#model.scopeOf(snapshot);
    for (const [start, count] of scope) {
      values.fill(0, start, start + count);
      known.fill(1, start, start + count);
    }
    for (const member of snapshot.members) {
      const place = record.members.find((other) => other.name === member.name);
      if (!place) throw new Violation(`snapshot '${snapshot.name}' lacks its member '${member.name}'`);
      values[member.sizeUnit] = place.sectors;
      this.#readWhole(
        place.space,
        record.epoch,
        Math.min(place.sectors, member.sectors),
        member.first,
        `${member.name} in snapshot ${snapshot.name}`,
      );
    }
    const broken = this.#model.checkSnapshot(snapshot, this.#observed, scope);
    if (broken) throw new Violation(`P2/P3: ${broken}`);
    return scope.every(([start, count]) => known.subarray(start, start + count).every((flag) => flag === 1));
  }

  /** The stamps of whole sectors; each must be the same word all through. */
  #stamps(what: string, buffer: Uint8Array, count: number, firstUnit: number, into: Uint32Array): void {
    const words = new Uint32Array(buffer.buffer, buffer.byteOffset, count * 128);
    for (let sector = 0; sector < count; sector++) {
      const start = sector * 128;
      const stamp = words[start] as number;
      for (let i = start + 1; i < start + 128; i++) {
        if (words[i] !== stamp)
          throw new Violation(
            `${what}+${sector}: holds ${this.#model.labelOf(stamp)} and ${this.#model.labelOf(words[i] as number)} in one sector`,
          );
      }
      into[firstUnit + sector] = stamp;
    }
  }

  #compare(
    what: string,
    buffer: Uint8Array,
    count: number,
    firstUnit: number,
    allowed: (unit: number, value: number) => boolean,
    possible: (unit: number) => number[],
  ): void {
    const stamps = new Uint32Array(count);
    this.#stamps(what, buffer, count, 0, stamps);
    for (let i = 0; i < count; i++) {
      if (allowed(firstUnit + i, stamps[i] as number)) continue;
      const expected = possible(firstUnit + i).map((value) => this.#model.labelOf(value));
      throw new Violation(`${what}+${i}: holds ${this.#model.labelOf(stamps[i] as number)}, expected ${expected.join(' or ')}`);
    }
  }

  #compareRagged(
    what: string,
    buffer: Uint8Array,
    skip: number,
    length: number,
    firstUnit: number,
    possible: (unit: number) => number[],
  ): void {
    for (let done = 0; done < length;) {
      const sector = Math.floor((skip + done) / SECTOR);
      const end = Math.min(length, (sector + 1) * SECTOR - skip);
      const values = possible(firstUnit + sector);
      const fits = values.some((value) => {
        for (let i = done; i < end; i++) if (buffer[i] !== ((value >>> (((skip + i) % 4) * 8)) & 255)) return false;
        return true;
      });
      if (!fits)
        throw new Violation(`${what}+${sector} (ragged): expected ${values.map((value) => this.#model.labelOf(value)).join(' or ')}`);
      done = end;
    }
  }

  /** CHECK finds nothing, unless something was damaged. */
  #check(): void {
    const driver = this.#driver as Driver;
    let ticket = driver.run(KIND.CHECK);
    for (let again = 0; ticket.code === BUSY && again < 3; again++) {
      driver.drain(); // one job at a time
      ticket = driver.run(KIND.CHECK);
    }
    if (ticket.state === 'failed') {
      this.#tolerate('check', ticket, [], true);
      return;
    }
    const length = driver.core.problemTake();
    if (length === 0) return;
    const view = driver.view();
    const problem = `code ${view.getUint32(0, true)} volume ${view.getUint32(4, true)} block ${view.getUint32(8, true)} kind ${view.getUint32(12, true)}`;
    while (driver.core.problemTake() !== 0);
    if (this.#fired() > this.#firedBefore) return; // it may be a request that a device failed
    if ([...this.#memberOf.values()].some((member) => member.gone || member.rotten)) return; // a copy that is not there, or wrong
    if (!this.#isDamaged()) throw new Violation(`check reports a problem where there is none: ${problem}`);
    this.#event('damage found by check');
  }

  #diff(step: Step): void {
    const model = this.#model;
    this.#verify(); // so that everything holds one thing only
    const present = model.snapshots.filter((snapshot) => model.present(snapshot));
    const older = present[step.a % Math.max(1, present.length)];
    if (!older || this.#isDamaged()) return;
    const member = older.members[step.flag % older.members.length] as ModelSource;
    const others = present.filter((snapshot) => snapshot !== older && snapshot.members.includes(member));
    const newer = (step.flag & 0x100) === 0 ? undefined : others[step.at % Math.max(1, others.length)];
    if (!newer && model.sizeOf(member) === 0) return;
    const nothing = (step.flag & 0xe00) === 0;
    const recordA = this.#recordOf(older) as SnapshotRecord;
    const recordB = newer ? (this.#recordOf(newer) as SnapshotRecord) : undefined;
    const spaceOf = (record: SnapshotRecord): number =>
      (record.members.find((other) => other.name === member.name) as { space: number }).space;
    const { core } = this.#driver as Driver;
    const started = core.diffBegin(
      nothing ? SPACE_NONE : spaceOf(recordA),
      nothing ? 0 : recordA.epoch,
      recordB ? spaceOf(recordB) : this.#spaceOf(member),
      recordB ? recordB.epoch : EPOCH_NOW,
      0,
    );
    if (started !== 0) throw new Violation(`diffBegin fails with ${started}`);
    const blocks = member.sectors / BLOCK_SECTORS;
    const changed = new Uint8Array(blocks);
    for (let turns = 0, last = -1; ; turns++) {
      if (turns > 10_000) throw new Violation('hang: diff does not end');
      const answer = core.diffNext();
      if (answer === 0) break;
      if (answer === 3) continue;
      const block = core.diffBlock();
      const count = core.diffCount();
      if (block <= last || count < 1) throw new Violation(`diff: run ${block}+${count} after ${last}`);
      last = block + count - 1;
      changed.fill(core.diffKind(), Math.min(blocks, block), Math.min(blocks, block + count));
    }
    for (let block = 0; block < blocks; block++) {
      let same = true;
      let whole = true; // no zeros in it: zeroing what is zero already rewrites a block and changes nothing
      let zeroAfter = true;
      for (let unit = member.first + block * BLOCK_SECTORS; unit < member.first + (block + 1) * BLOCK_SECTORS; unit++) {
        const before = nothing ? 0 : (older.base.values[unit] as number);
        const after = (newer ? newer.base : model.live).values[unit] as number;
        if (before !== after) same = false;
        if (before === 0) whole = false;
        if (after !== 0) zeroAfter = false;
      }
      const said = changed[block] as number;
      if (said === 0 && !same) throw new Violation(`diff of ${member.name} misses block ${block}`);
      if (said === 2 && !zeroAfter) throw new Violation(`diff of ${member.name} calls block ${block} a hole`);
      if (said === 1 && same && whole) throw new Violation(`diff of ${member.name} names block ${block}, which is the same`);
    }
    this.#event('diff');
  }

  // ---- small things ----

  #alive(): ModelSource[] {
    return this.#model.sources.filter((source) => this.#model.sizeOf(source) > 0 && this.#model.live.single(source.sizeUnit));
  }

  /** Whether a resize, or a deletion, of one of the volume's sources failed so that it is seen only later what it is: who takes all sources would take it too. */
  #sizesUnclear(volume: number): boolean {
    return this.#model.sources.some((source) => source.volume === volume && !this.#model.live.single(source.sizeUnit));
  }

  #pickSource(a: number): ModelSource | undefined {
    const alive = this.#alive();
    return alive[a % Math.max(1, alive.length)];
  }

  /** One that is there and that nobody is making. */
  #pickSnapshot(a: number): ModelSnapshot | undefined {
    const present = this.#model.snapshots.filter(
      (snapshot) => this.#model.present(snapshot) && this.#model.live.single(snapshot.presentUnit),
    );
    return present[a % Math.max(1, present.length)];
  }

  /** Is it being deleted? */
  #goes(snapshot: ModelSnapshot): boolean {
    return this.#model.running.some((change) => change.label === `delete ${snapshot.name}`);
  }

  #spaceOf(source: ModelSource): number {
    const record = this.#sources().find((other) => other.volume === source.volume && other.name === source.name);
    if (!record) throw new Violation(`source '${source.name}' is gone`);
    return record.space;
  }

  #sources(): SourceRecord[] {
    const driver = this.#driver as Driver;
    const list: SourceRecord[] = [];
    const count = driver.core.sourceCount();
    for (let i = 0; i < count; i++) {
      if (driver.core.sourceGet(i) === 0) throw new Violation(`sourceGet(${i}) of ${count} answers nothing`);
      const view = driver.view();
      const bytes = view.getFloat64(8, true);
      if (bytes % SECTOR !== 0) throw new Violation(`a source of ${bytes} bytes`);
      list.push({
        space: view.getUint32(0, true),
        volume: view.getUint32(4, true),
        sectors: bytes / SECTOR,
        name: text(view, 32, view.getUint32(28, true)),
      });
    }
    return list;
  }

  #snapshotRecords(): SnapshotRecord[] {
    const list: SnapshotRecord[] = [];
    const count = (this.#driver as Driver).core.snapshotCount();
    for (let i = 0; i < count; i++) list.push(this.#snapshotRecord(i));
    return list;
  }

  #snapshotRecord(index: number): SnapshotRecord {
    const driver = this.#driver as Driver;
    if (driver.core.snapshotGet(index) === 0) throw new Violation(`snapshotGet(${index}) answers nothing`);
    const view = driver.view();
    const memberCount = view.getUint32(12, true);
    const nameLength = view.getUint32(28, true);
    let at = 32 + memberCount * 16;
    const name = text(view, at, nameLength);
    at += nameLength;
    const members: SnapshotRecord['members'][number][] = [];
    for (let i = 0; i < memberCount; i++) {
      const length = view.getUint32(32 + i * 16 + 4, true);
      members.push({
        space: view.getUint32(32 + i * 16, true),
        sectors: view.getFloat64(32 + i * 16 + 8, true) / SECTOR,
        name: text(view, at, length),
      });
      at += length;
    }
    return {
      id: view.getUint32(0, true),
      volume: view.getUint32(4, true),
      epoch: view.getUint32(8, true),
      createdAt: view.getFloat64(16, true),
      automatic: (view.getUint32(24, true) & 1) === 1,
      name,
      members,
    };
  }

  #recordOf(snapshot: ModelSnapshot): SnapshotRecord | undefined {
    return this.#snapshotRecords().find((record) => record.volume === snapshot.volume && record.name === snapshot.name);
  }

  #payload(op: number, a: number, b: number, c: number, name: string): void {
    const view = (this.#driver as Driver).view();
    view.setUint16(0, op, true);
    view.setUint16(2, name.length, true);
    view.setUint32(4, a, true);
    view.setFloat64(8, b, true);
    view.setUint32(16, c, true);
    view.setUint32(20, 0, true);
    for (let i = 0; i < name.length; i++) view.setUint8(24 + i, name.charCodeAt(i));
  }

  #buffer(length: number): Uint8Array {
    const whole = buffers.pop() ?? new Uint8Array(BUFFER_BYTES);
    const buffer = new Uint8Array(whole.buffer, 0, length);
    this.#buffers.add(buffer);
    return buffer;
  }

  #release(buffer: Uint8Array): void {
    if (this.#buffers.delete(buffer)) buffers.push(buffer);
  }

  #advanced(): boolean {
    const durable = (this.#driver as Driver).core.figure(10);
    const advanced = durable > this.#lastDurable;
    this.#lastDurable = durable;
    return advanced;
  }

  #flushed(since: number): void {
    this.#model.flushed(since, this.#advanced());
  }

  #durable(change: Change): void {
    this.#model.durable(change, this.#advanced());
  }

  #fired(): number {
    let sum = 0;
    for (const device of this.#devices) sum += failuresOf(device);
    return sum;
  }

  /** Reads that failed: a scrub counts a root that it cannot read as one to be mended, and nothing else differs by that. */
  #unread(): number {
    let sum = 0;
    for (const device of this.#devices) sum += device.fired.get('readFails') ?? 0;
    return sum;
  }

  /** What devices swallowed since is in doubt from here on. */
  #lie(groups: number): void {
    if (this.#setup.trouble !== 'damage') return;
    let lies = 0;
    let astray = 0;
    for (const device of this.#devices) {
      for (const [kind, count] of device.fired) if (DAMAGES.includes(kind)) lies += count;
      astray += device.fired.get('writeMisdirected') ?? 0;
    }
    if (lies === this.#lies) return;
    // One of several blocks may come to lie over the last groups, with all that tells of them.
    if (astray > this.#astray) this.#model.doubtedGroups += ASTRAY_GROUPS;
    this.#astray = astray;
    this.#lies = lies;
    this.#event('lie');
    this.#model.doubtedSince = Math.min(this.#model.doubtedSince, groups);
    this.#model.doubtedGroups++;
  }

  #isDamaged(): boolean {
    return (
      this.#flipped || (this.#setup.trouble === 'damage' && this.#devices.some((device) => DAMAGES.some((kind) => device.fired.has(kind))))
    );
  }

  #disarm(): void {
    for (const device of this.#devices) device.disarm();
  }

  /** Was it allowed to fail like that? */
  #tolerate(what: string, ticket: Ticket, codes: number[], count: boolean): void {
    const { code } = ticket;
    if (count) this.#event(`${what.replace(/[0-9]+/g, 'N')} failed with ${code}`);
    const device = this.#fired() > this.#firedBefore;
    if (codes.includes(code)) return;
    if (code === CORRUPT && this.#isDamaged()) return;
    if (code === NO_SPACE && (this.#isDamaged() || (device && this.#setup.trouble === 'failing'))) return;
    if (code === IO && device) return;
    if (code === READ_ONLY && (device || this.#isDamaged() || this.#readOnly)) {
      this.#readOnly = true;
      return;
    }
    if (code === NOT_FOUND && codes.includes(NOT_FOUND)) return;
    const core = this.#driver?.core;
    const space =
      code === NO_SPACE && core
        ? `; ${core.figure(2)} of ${core.figure(4)} segments free, reserve ${core.figure(3)}, ${core.figure(1)} of ${core.figure(0)} blocks live`
        : '';
    throw new Violation(`${what} fails with ${code} (${ticket.place}${space})`);
  }

  /** A write was refused for lack of space: was there none? */
  #refused(): void {
    const { core } = this.#driver as Driver;
    if (this.#fired() > this.#firedBefore || this.#isDamaged()) return;
    const [capacity, live, , reserve, segments] = [0, 1, 2, 3, 4].map((n) => core.figure(n)) as [number, number, number, number, number];
    // What is kept free is counted in segments: where they differ in size, copying may gain blocks enough and too few segments.
    const sizes = this.#assigned.map((place) => this.#raid(place.device).segmentBlocks);
    const mixed = Math.max(...sizes) > 2 * Math.min(...sizes);
    if (segments === 0 || segments < (mixed ? 5 : 2.5) * reserve || live >= (0.3 * capacity * (segments - reserve)) / segments) return;
    throw new Violation(`P5: a write is refused with ${live} blocks live of ${capacity} (reserve ${reserve} of ${segments} segments)`);
  }

  #event(name: string): void {
    this.events.set(name, (this.events.get(name) ?? 0) + 1);
  }
}

function text(view: DataView, at: number, length: number): string {
  let name = '';
  for (let i = 0; i < length; i++) name += String.fromCharCode(view.getUint8(at + i));
  return name;
}
