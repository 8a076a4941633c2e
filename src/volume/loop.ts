// The loop that joins core and devices; besides src/volume the host knows only one of the two. It decides nothing: each operation is a ticket.
//
//   1. `submit` gives the ticket a number (or a failure, BUSY: the core has no room for more tickets, so it is queued here).
//   2. `step` answers with one of
//        PLAN    commands. Copies between the client's buffer and the core's memory are made in the same turn; device commands are started, in any
//                order and in parallel (async), or performed one by one (sync). When each has been `complete`d, step again.
//        WAIT    others must progress first. Parked; stepped again after any progress of any ticket.
//        MEMORY  the core wants pages. Views of memory die when it grows, so nothing is stepped until the I/O of all tickets has ended; then grow.
//        DONE, FAILED  the client's promise settles; the core has freed the ticket.
//   3. After progress: queued and parked tickets again, then background tickets that the core wants (one of each kind at a time), then growth.
//   4. When all tickets are parked, nothing is in flight and nobody outside is to answer, no progress will ever come: the clients get VARVE_BUSY
//      (or the failure of the background ticket that was meant to make room). Never a hang.
//
// Asynchronous and synchronous differ in two places only: `#start…` against `#performSync`, and growth. In sync mode every ticket ends in the call.
//
// A client that gives up (abort, deadlock) leaves an *orphan*: the core has no cancel, so the ticket runs on, with a private copy of what it still had
// to write, or with nowhere to put what it reads.
//
// An exception out of the core is a bug of ours. The log is then dead: nothing is called any more, everything rejects with VARVE_INTERNAL.
import { KIND, KIND_LIMIT, MEMBER, RESULT, STATUS, STATUS_BITS, STATUS_MASK, type TicketExports } from '../core/exports.ts';
import type { CoreMemory } from '../core/memory.ts';
import { blankCommand, COMMAND_BYTES, decodeCommand, FLAG_FUA, MEMBERS_MAX, OP, OP_COPY_FIRST, type Command } from '../core/plan.ts';
import { isCallbackDevice, isPromptDevice, isSyncDevice, type StorageDevice } from '../device/device.ts';
import { CORE_BUSY, CORE_LIMIT, errorFromCore, isVarveError, messageOf, VarveError, type VarveErrorCode } from '../errors.ts';
import { nextTask } from '../turn.ts';

/** What the owner of the log answers or is told. None may call back into the log in the same turn, but for `Log.addVolume` in the growth hooks. */
export interface LoopHooks {
  /** The core wants a storage volume: add one (`Log.addVolume`) and resolve with true, or with false when there is none to be had. May take long. */
  growth?: (() => Promise<boolean>) | undefined;
  /** The same inside a synchronous call: only from a spare made beforehand. */
  growthSync?: (() => boolean) | undefined;
  /** A member failed a write and can be done without: commit that it is out, and resolve with true. Whatever waits for it is acknowledged after that. */
  fault?: ((volumeId: number, member: number) => Promise<boolean>) | undefined;
  /** The same inside a synchronous call. */
  faultSync?: ((volumeId: number, member: number) => boolean) | undefined;
  /** Asked before each flush of a device: the error when the writer's lock is no longer ours. The log is dead then. */
  fence?: (() => VarveError | undefined) | undefined;
  /** A background ticket failed. The core knows, and goes on as well as it can. */
  backgroundFailed?: ((error: Error) => void) | undefined;
  /** A checkpoint, compaction or operation is done: figures and states of storage volumes may have changed. At most once a turn, in a turn of its own. */
  changed?: (() => void) | undefined;
}

export interface LoopOptions extends LoopHooks {
  readonly sync?: boolean | undefined;
}

const PLAN_OF_ONE = STATUS.PLAN | (1 << STATUS_BITS);

const VERB: readonly string[] = [
  '',
  'create',
  'open',
  'read',
  'write',
  'discard',
  '',
  'flush',
  'change',
  'checkpoint',
  'compaction',
  'close',
  'write-out',
  'root',
  'merge',
  'check',
  'scrub',
];
const RESOLVED = Promise.resolve();
const FLIGHTS_KEPT = 64;
/** Longer reads take the time of several trips to the thread pool, and there they do not hold the program up. */
const PROMPT_BYTES = 16384;
/** `failureVolume` from here on: the failure has no place. */
const VOLUME_LIMIT = 0xfffe;
/** The figure that is 1 when a device's failure has made the log read-only. */
const FAILED_READ_ONLY = 19;
const NO_PAYLOAD = undefined;
/**
 * Transfers answered at once before the thread is let go of. A writer in a loop of awaits otherwise holds it for the whole 64 MiB until the core makes it
 * wait, and nothing is written out meanwhile: 0.63 against 0.85 of a raw file's speed (bench/sequential.ts, 2026-11). 1 MiB takes the core 150 µs.
 */
const TASK_BYTES = 2 ** 20;

class Ticket {
  id = -1;
  kind: number;
  space: number;
  epoch: number;
  offset: number;
  length: number;
  /** Whose: for messages. */
  subject: string;
  readonly background: boolean;
  /** Undefined: nothing to copy from or to (any more). */
  buffer: Uint8Array | undefined;
  payload: Uint8Array | undefined;
  /** Device commands of the present plan that have not ended. */
  pending = 0;
  /** Its last step answered WAIT. */
  parked = false;
  /** It has done I/O. */
  worked = false;
  /** Its read was tried in the call, in vain. */
  slow = false;
  /** Its growth of the memory was denied. */
  denied = false;
  /** The core has freed it. */
  ended = false;
  /** The client knows how it ended, or has given up. */
  settled = false;
  result = 0;
  error: unknown = undefined;
  /** The client's own mistake, found on the way: it rejects with this when the ticket is done. */
  clientError: Error | undefined = undefined;
  /** The last device error. */
  cause: unknown = undefined;
  /** Of the client's promise, when it has one. */
  resolve: ((result: number) => void) | undefined = undefined;
  reject: ((error: unknown) => void) | undefined = undefined;
  /** Takes the listener off the client's signal. */
  forget: (() => void) | undefined = undefined;
  /** Called after each step, to take what the step left in the core. */
  afterStep: (() => void) | undefined = undefined;

  constructor(
    kind: number,
    space: number,
    epoch: number,
    offset: number,
    length: number,
    buffer: Uint8Array | undefined,
    subject: string,
    background: boolean,
  ) {
    this.kind = kind;
    this.space = space;
    this.epoch = epoch;
    this.offset = offset;
    this.length = length;
    this.buffer = buffer;
    this.payload = NO_PAYLOAD;
    this.subject = subject;
    this.background = background;
  }

  /** As new, for another transfer: only after it ended well in the call that submitted it, when nobody else knows it. */
  renew(kind: number, space: number, epoch: number, offset: number, length: number, buffer: Uint8Array | undefined, subject: string): this {
    this.kind = kind;
    this.space = space;
    this.epoch = epoch;
    this.offset = offset;
    this.length = length;
    this.buffer = buffer;
    this.subject = subject;
    this.id = -1;
    this.parked = false;
    this.worked = false;
    this.slow = false;
    this.denied = false;
    this.ended = false;
    this.settled = false;
    this.clientError = undefined;
    this.cause = undefined;
    return this;
  }

  get doing(): string {
    const verb = VERB[this.kind] || `ticket of kind ${this.kind}`;
    const range =
      this.kind === KIND.READ || this.kind === KIND.WRITE || this.kind === KIND.TRIM ? ` of ${this.length} bytes at ${this.offset}` : '';
    return `${this.background ? 'background ' : ''}${verb}${range} of ${this.subject}`;
  }
}

/** A device command in flight. It serves one after the other: `ended` goes out bare to devices that answer in callbacks, once for each. */
class Flight {
  ticket: Ticket | undefined;
  index = 0;
  op = 0;
  readonly ended: (error: unknown) => void;

  constructor(landed: (flight: Flight, error: unknown) => void) {
    this.ended = (error) => landed(this, error);
  }
}

export class Loop {
  /** By handle: volume id × 32 + member. */
  readonly devices = new Map<number, StorageDevice>();
  readonly sync: boolean;
  readonly #core: TicketExports;
  readonly #memory: CoreMemory;
  readonly #hooks: LoopHooks;
  readonly #command: Command = blankCommand();

  /** Refused with BUSY, or came while the I/O drains. */
  #queue: Ticket[] = [];
  #waiting: Ticket[] = [];
  /** Tickets that outlived the turn in which they were submitted. */
  readonly #open = new Set<Ticket>();
  readonly #running = new Uint32Array(KIND_LIMIT);
  #inFlight = 0;

  #draining = false;
  /** While draining: those that asked for memory, and those whose plan ended meanwhile. */
  #starved: Ticket[] = [];
  #starvedPages = 0;
  #ready: Ticket[] = [];

  /** Of the last transfer that ended well in the call that submitted it, for the next. */
  #spareTicket: Ticket | undefined;
  readonly #landedFlights: Flight[] = [];

  /** Answered at once since I/O was last heard of. */
  #answeredBytes = 0;
  #nextTask: Promise<void> | undefined;

  #pumping = false;
  /** Something progressed since the parked tickets were last stepped. */
  #moved = false;
  /**
   * The last pump found nothing to do, and nobody who waits. A read that ends changes nothing about that, so it does without a pump: 0.2 of the 2 µs that
   * a cached 4 KiB read costs beside the system's (bench/random-reads.ts, 2026-11).
   */
  #calm = false;
  /** Counts progress of foreground tickets. */
  #foregroundMoves = 0;
  /** Counts background tickets that did something. */
  #backgroundMoves = 0;
  /** Sum of both when the background tickets that are held were last given another chance. */
  #lastResort = -1;
  #submitted = 0;
  /** CLOSE is done: nothing is wanted any more. */
  #closed = false;
  /** By kind: the count of foreground moves at which a background ticket failed or found nothing to do. It is not tried again before the next one. */
  readonly #held = new Float64Array(KIND_LIMIT).fill(-1);
  #backgroundError: unknown = undefined;
  /** The last error of a write or flush before the log became read-only, if it is: what made it so. */
  #writeError: unknown = undefined;

  #growing = false;
  /** Handles of members that are being faulted. */
  readonly #faults = new Set<number>();
  /** While an answer was on its way, somebody said that growth is possible: a *no* is of before. */
  #askAgain = false;
  #volumesAdded = 0;
  #denied = 0;
  #deniedAt = -1;

  #dead: { code: VarveErrorCode; detail: string | undefined; cause: unknown } | undefined;
  #idleWaiters: (() => void)[] = [];
  #quietWaiters: (() => void)[] = [];
  #changedScheduled = false;

  constructor(core: TicketExports, memory: CoreMemory, options: LoopOptions = {}) {
    this.#core = core;
    this.#memory = memory;
    this.#hooks = options;
    this.sync = options.sync ?? false;
  }

  /** Device commands in flight. */
  get inFlight(): number {
    return this.#inFlight;
  }

  /** The first ticket was submitted. */
  get opened(): boolean {
    return this.#submitted > 0;
  }

  /** Everything rejects from now on. */
  get dead(): boolean {
    return this.#dead !== undefined;
  }

  /** Why everything rejects, when that was not asked for (`stop` with VARVE_CLOSED). */
  failure(doing: string): VarveError | undefined {
    return this.#dead === undefined || this.#dead.code === 'VARVE_CLOSED' ? undefined : this.#deadError(doing);
  }

  /** Of a log that a device's failure has made read-only: why it does not do this. */
  refusal(doing: string, code: VarveErrorCode = 'VARVE_READ_ONLY'): VarveError {
    return new VarveError(code, doing, {
      detail: 'it is read-only since a storage device failed; open the pool again',
      cause: this.#writeError,
    });
  }

  /** Moves bytes (READ, WRITE, TRIM, FLUSH). Resolves without a promise of its own when the core could answer in this turn. */
  transfer(
    kind: number,
    space: number,
    epoch: number,
    offset: number,
    length: number,
    buffer: Uint8Array | undefined,
    subject: string,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    if (signal?.aborted) return Promise.reject(signal.reason);
    const ticket = this.#ticketFor(kind, space, epoch, offset, length, buffer, subject);
    if (kind === KIND.READ) this.#startRead(ticket);
    else this.#start(ticket);
    if (!ticket.settled) return this.#promise(ticket, signal) as Promise<unknown> as Promise<void>;
    if (ticket.error !== undefined) return Promise.reject(ticket.error);
    this.#spareTicket = ticket;
    return this.#answered(length);
  }

  /** The answer to a transfer that was done at once: in a later task when so much was answered in this one that I/O and timers starve. */
  #answered(length: number): Promise<void> {
    this.#answeredBytes += length;
    if (this.#answeredBytes < TASK_BYTES) return RESOLVED;
    this.#nextTask ??= nextTask().then(() => {
      this.#nextTask = undefined;
      this.#answeredBytes = 0;
    });
    return this.#nextTask;
  }

  /** As `transfer`; ends in this call. Only in sync mode. */
  transferSync(
    kind: number,
    space: number,
    epoch: number,
    offset: number,
    length: number,
    buffer: Uint8Array | undefined,
    subject: string,
  ): void {
    const ticket = this.#ticketFor(kind, space, epoch, offset, length, buffer, subject);
    this.#runSync(ticket);
    this.#spareTicket = ticket;
  }

  #ticketFor(
    kind: number,
    space: number,
    epoch: number,
    offset: number,
    length: number,
    buffer: Uint8Array | undefined,
    subject: string,
  ): Ticket {
    const spare = this.#spareTicket;
    this.#spareTicket = undefined;
    return (
      spare?.renew(kind, space, epoch, offset, length, buffer, subject) ??
      new Ticket(kind, space, epoch, offset, length, buffer, subject, false)
    );
  }

  /**
   * Any other ticket. Resolves with the ticket's result.
   * @param payload goes to the exchange buffer
   * @param afterStep is called after each step, to take what the step left in the core
   */
  run(
    kind: number,
    space: number,
    epoch: number,
    payload: Uint8Array | undefined,
    subject: string,
    signal?: AbortSignal,
    afterStep?: () => void,
    offset = 0,
    length = 0,
  ): Promise<number> {
    if (signal?.aborted) return Promise.reject(signal.reason);
    const ticket = new Ticket(kind, space, epoch, offset, length, undefined, subject, false);
    ticket.payload = payload;
    ticket.afterStep = afterStep;
    this.#start(ticket);
    if (!ticket.settled) return this.#promise(ticket, signal);
    return ticket.error === undefined ? Promise.resolve(ticket.result) : Promise.reject(ticket.error);
  }

  runSync(kind: number, space: number, epoch: number, payload: Uint8Array | undefined, subject: string): number {
    const ticket = new Ticket(kind, space, epoch, 0, 0, undefined, subject, false);
    ticket.payload = payload;
    return this.#runSync(ticket);
  }

  /** Something outside changed what tickets wait for (a storage volume was added). */
  progressed(volumeAdded = false): void {
    if (volumeAdded) {
      this.#volumesAdded++;
      this.#denied = 0;
    }
    this.#moved = true;
    this.#foregroundMoves++;
    this.#guardedPump();
  }

  /** Asks for growth again although it was denied: the pool has more now. */
  growthPossible(): void {
    if (this.#dead) return;
    this.#denied = 0;
    this.#askAgain = this.#growing;
    this.guarded('the log', () => this.#core.growthAllowed?.());
    this.progressed();
  }

  /** Runs the core outside of a ticket: an exception is a bug and kills the log, as in a ticket. */
  guarded<T>(subject: string, call: () => T): T {
    if (this.#dead) throw this.#deadError(subject);
    try {
      return call();
    } catch (trap) {
      this.#trapped(trap);
      throw this.#deadError(subject);
    }
  }

  /** From now on nothing is stepped, and all calls (waiting ones too) reject with this code. I/O in flight ends by itself: see `idle`. */
  stop(code: VarveErrorCode, detail?: string, cause?: unknown): void {
    if (this.#dead) return;
    this.#dead = { code, detail, cause };
    const abandoned = new Set([...this.#open, ...this.#queue, ...this.#waiting, ...this.#starved, ...this.#ready]);
    this.#open.clear();
    this.#queue = [];
    this.#waiting = [];
    this.#starved = [];
    this.#ready = [];
    for (const ticket of abandoned) this.#settle(ticket, this.#deadError(ticket.doing));
    this.#wakeQuiet();
  }

  /** Resolves when no device command is in flight. */
  idle(): Promise<void> {
    return this.#inFlight === 0 ? RESOLVED : new Promise((resolve) => this.#idleWaiters.push(resolve));
  }

  /** Resolves when no client waits for a ticket. */
  quiet(): Promise<void> {
    return this.#isQuiet() ? RESOLVED : new Promise((resolve) => this.#quietWaiters.push(resolve));
  }

  // ——— one ticket ———

  #start(ticket: Ticket): void {
    if (this.#dead) return this.#settle(ticket, this.#deadError(ticket.doing));
    try {
      if (this.#draining || this.#queue.length > 0) this.#queue.push(ticket);
      else if (this.#submit(ticket)) {
        this.#advance(ticket);
        if (!ticket.ended) this.#open.add(ticket);
      } else if (!ticket.ended) this.#queue.push(ticket);
      this.#pumpAfter(ticket);
    } catch (trap) {
      this.#trapped(trap);
    }
    if (this.#dead && !ticket.settled) this.#settle(ticket, this.#deadError(ticket.doing)); // it was in no list yet
  }

  #runSync(ticket: Ticket): number {
    if (!this.sync) throw new VarveError('VARVE_UNSUPPORTED', ticket.doing, { detail: 'the pool is not open in sync mode' });
    if (ticket.kind === KIND.READ) this.#startRead(ticket);
    else this.#start(ticket);
    if (!ticket.settled) this.#giveUp(ticket, new VarveError('VARVE_BUSY', ticket.doing)); // what it waits for only an asynchronous answer can bring
    if (ticket.error !== undefined) throw ticket.error;
    return ticket.result;
  }

  /**
   * `#start` of a read in straight line, as almost all of them go: a command for one device that is performed in the call, a copy of everything, done. Whatever
   * comes otherwise goes on in `#advance`, from where it is. A cached 4 KiB read has some 1.4 µs beside the system's, and this saves 0.2 of them
   * (bench/random-reads.ts, 2026-11).
   */
  #startRead(ticket: Ticket): void {
    if (!this.#calm || this.#draining || this.#dead || this.#queue.length > 0) return this.#start(ticket);
    const core = this.#core;
    try {
      const id = core.submit(KIND.READ, ticket.space, ticket.epoch, ticket.offset, ticket.length);
      if (id < 0) return this.#start(ticket); // it is refused again, and heard of there
      this.#submitted++;
      ticket.id = id;
      let status = core.step(id);
      if (status === PLAN_OF_ONE && this.#readAtOnce(ticket)) status = core.step(id);
      if (status === PLAN_OF_ONE && this.#copyAtOnce(ticket)) status = core.step(id);
      if (status === STATUS.DONE) {
        // Nobody knows of it, so nobody is to be told.
        ticket.ended = true;
        ticket.settled = true;
        ticket.buffer = undefined;
        this.#moved = true;
        this.#foregroundMoves++;
        return;
      }
      this.#running[KIND.READ]!++;
      this.#advance(ticket, status);
      if (!ticket.ended) this.#open.add(ticket);
      this.#pumpAfter(ticket);
    } catch (trap) {
      this.#trapped(trap);
    }
    if (this.#dead && !ticket.settled) this.#settle(ticket, this.#deadError(ticket.doing)); // it was in no list yet
  }

  /** Performs the only command of a plan, if it is a read that this call can make. */
  #readAtOnce(ticket: Ticket): boolean {
    const { view } = this.#memory;
    const at = this.#core.planPointer(ticket.id) >>> 0;
    const length = view.getUint32(at + 20, true);
    if (view.getUint32(at, true) !== OP.READ || length > PROMPT_BYTES) return false;
    const device = this.devices.get(view.getUint32(at + 4, true));
    if (device === undefined) return false;
    const into = this.#memory.slice(view.getUint32(at + 16, true), length);
    const offset = view.getFloat64(at + 8, true);
    let result: number = RESULT.OK;
    if (!this.sync) {
      ticket.slow = !(isPromptDevice(device) && device.readPrompt(offset, into));
      if (ticket.slow) return false;
    } else if (isSyncDevice(device)) {
      try {
        device.readSync(offset, into);
      } catch (error) {
        ticket.cause = error;
        result = resultOf(error);
      }
    } else return false;
    this.#core.complete(ticket.id, 0, result);
    return true;
  }

  /** Performs the only command of a plan, if it is the copy of all that was asked for. */
  #copyAtOnce({ id, buffer, length }: Ticket): boolean {
    const { view } = this.#memory;
    const at = this.#core.planPointer(id) >>> 0;
    if (buffer === undefined || buffer.length !== length) return false;
    if (view.getUint32(at, true) !== OP.COPY_OUT || view.getUint32(at + 20, true) !== length) return false;
    buffer.set(this.#memory.slice(view.getUint32(at + 16, true), length));
    return true;
  }

  /** @returns false when the core refused: failed for good (`ended`), or to be tried again */
  #submit(ticket: Ticket): boolean {
    const core = this.#core;
    if (ticket.payload !== undefined) this.#memory.bytes.set(ticket.payload, core.exchange() >>> 0);
    const id = core.submit(ticket.kind, ticket.space, ticket.epoch, ticket.offset, ticket.length);
    this.#submitted++;
    if (id >= 0) {
      ticket.id = id;
      this.#running[ticket.kind]!++;
      return true;
    }
    // No room for one more ticket: later, if there are others whose end makes room.
    if ((id === -CORE_BUSY || id === -CORE_LIMIT) && (this.#open.size > 0 || this.#inFlight > 0)) return false;
    ticket.ended = true;
    this.#settle(ticket, errorFromCore(-id, ticket.doing));
    return false;
  }

  /**
   * Steps a ticket as far as it goes.
   * @param status what its last step answered, when that was not heard yet
   * @returns whether it progressed
   */
  #advance(ticket: Ticket, status = this.#core.step(ticket.id)): boolean {
    const core = this.#core;
    let progressed = false;
    for (; ; status = core.step(ticket.id)) {
      if (ticket.afterStep !== undefined) ticket.afterStep();
      switch (status & STATUS_MASK) {
        case STATUS.PLAN:
          progressed = true;
          ticket.parked = false;
          if (this.#perform(ticket, status >>> STATUS_BITS)) continue;
          break;
        case STATUS.DONE:
          if (ticket.kind > KIND.FLUSH) ticket.result = core.ticketResult(ticket.id);
          this.#end(ticket, ticket.clientError);
          progressed = true;
          break;
        case STATUS.WAIT:
          // The step may have given something up (a flush that it finished, say) before it came to wait for something
          // else: whoever waits for that is stepped again.
          if (!ticket.parked) this.#moved = true;
          ticket.parked = true;
          this.#waiting.push(ticket);
          this.#askForFault();
          break;
        case STATUS.MEMORY: {
          const pages = core.memoryNeeded() >>> 0 || 1;
          progressed = true;
          if (this.#inFlight === 0) {
            this.#grow(ticket, pages);
            continue;
          }
          this.#draining = true;
          this.#starved.push(ticket);
          this.#starvedPages += pages;
          break;
        }
        case STATUS.FAILED: {
          const volume = core.failureVolume() >>> 0;
          const place = volume >= VOLUME_LIMIT ? undefined : { volume, block: core.failureBlock() >>> 0 };
          const error = errorFromCore(core.failure(), ticket.doing, place, ticket.cause);
          const refused = isVarveError(error, 'VARVE_READ_ONLY') || (ticket.kind === KIND.CLOSE && core.figure(FAILED_READ_ONLY) !== 0);
          this.#end(ticket, refused ? this.refusal(ticket.doing, (error as VarveError).code) : error);
          progressed = true;
          break;
        }
        default:
          throw new Error(`step answered ${status}`);
      }
      if (progressed) {
        this.#moved = true;
        if (!ticket.background) this.#foregroundMoves++;
      }
      return progressed;
    }
  }

  #end(ticket: Ticket, error: Error | undefined): void {
    ticket.ended = true;
    this.#running[ticket.kind]!--;
    this.#open.delete(ticket);
    if (ticket.background) {
      if (error !== undefined || !ticket.worked) this.#held[ticket.kind] = this.#foregroundMoves;
      if (error !== undefined) {
        this.#backgroundError = error;
        this.#hooks.backgroundFailed?.(error);
      } else {
        this.#backgroundError = undefined;
        if (ticket.worked) this.#backgroundMoves++;
      }
    }
    if (ticket.kind === KIND.CLOSE && error === undefined) this.#closed = true;
    if (ticket.kind > KIND.FLUSH) this.#scheduleChanged();
    this.#settle(ticket, error);
  }

  #settle(ticket: Ticket, error: unknown): void {
    if (ticket.settled) return;
    ticket.settled = true;
    ticket.error = error;
    ticket.buffer = undefined;
    ticket.forget?.();
    if (error === undefined) ticket.resolve?.(ticket.result);
    else ticket.reject?.(error);
    if (this.#quietWaiters.length > 0) this.#wakeQuiet();
  }

  #promise(ticket: Ticket, signal: AbortSignal | undefined): Promise<number> {
    if (signal) {
      const abort = (): void => this.#giveUp(ticket, signal.reason);
      signal.addEventListener('abort', abort, { once: true });
      ticket.forget = () => signal.removeEventListener('abort', abort);
    }
    return new Promise((resolve, reject) => {
      ticket.resolve = resolve;
      ticket.reject = reject;
    });
  }

  /** The client goes away; the ticket goes on without touching the client's buffer. */
  #giveUp(ticket: Ticket, reason: unknown): void {
    if (ticket.settled) return;
    const { buffer } = ticket;
    // One that was transferred cannot be copied, and is no use: #copy says what becomes of the write.
    const rest = ticket.kind === KIND.WRITE && ticket.id >= 0 ? (buffer?.length === ticket.length ? buffer.slice() : buffer) : undefined;
    if (ticket.id < 0) {
      ticket.ended = true;
      this.#queue = this.#queue.filter((other) => other !== ticket);
    }
    this.#settle(ticket, reason);
    ticket.buffer = rest;
  }

  // ——— plans ———

  /** Performs a plan, or starts it. @returns true when it is all done, so that the ticket is to be stepped again in this turn */
  #perform(ticket: Ticket, count: number): boolean {
    const core = this.#core;
    const command = this.#command;
    let address = core.planPointer(ticket.id) >>> 0;
    for (let index = 0; index < count; index++, address += COMMAND_BYTES) {
      decodeCommand(this.#memory.view, address, command);
      if (command.op >= OP_COPY_FIRST) {
        const result = this.#copy(ticket, command);
        if (result !== RESULT.OK) core.complete(ticket.id, index, result);
      } else if (this.#dead) return false;
      else if (command.op === OP.READ && !this.sync && !ticket.slow && this.#readPrompt(ticket, command))
        core.complete(ticket.id, index, RESULT.OK);
      else if (this.sync) core.complete(ticket.id, index, this.#performSync(ticket, command));
      else this.#startCommand(ticket, index, command);
    }
    return ticket.pending === 0 && !this.#dead;
  }

  #copy(ticket: Ticket, command: Command): number {
    const { buffer } = ticket;
    const { op, offset, address, length } = command;
    if (buffer === undefined) return op === OP.COPY_IN ? RESULT.IO : RESULT.OK; // an orphan's bytes go nowhere
    const { bytes } = this.#memory;
    if (buffer.length !== ticket.length) {
      // Detached (transferred) or resized under the call. The core has no cancel, so a write goes on with zeros; the client gets the error.
      ticket.clientError ??= new TypeError(
        `${ticket.doing}: expected the buffer to stay as it is until the call ends, its length is ${buffer.length} now`,
      );
      if (op === OP.COPY_IN) bytes.fill(0, address, address + length);
      return RESULT.OK;
    }
    if (op === OP.COPY_IN) bytes.set(length === buffer.length ? buffer : buffer.subarray(offset, offset + length), address);
    else if (op === OP.COPY_OUT) buffer.set(this.#memory.slice(address, length), offset);
    else if (op === OP.ZERO_OUT) buffer.fill(0, offset, offset + length);
    else throw new Error(`the core planned the unknown command ${op}`);
    return RESULT.OK;
  }

  /** Short reads that come from memory anyway. */
  #readPrompt(ticket: Ticket, command: Command): boolean {
    const { offset, address, length } = command;
    if (length > PROMPT_BYTES) return false;
    const device = this.devices.get(command.device);
    if (device === undefined || !isPromptDevice(device) || !device.readPrompt(offset, this.#memory.slice(address, length))) return false;
    ticket.worked = true;
    return true;
  }

  #startCommand(ticket: Ticket, index: number, command: Command): void {
    const { op, offset, address, length } = command;
    if ((op === OP.FLUSH || (command.flags & FLAG_FUA) !== 0) && this.#fenced()) return;
    ticket.pending++;
    ticket.worked = true;
    this.#inFlight++;
    const flight = this.#landedFlights.pop() ?? new Flight(this.#landed);
    flight.ticket = ticket;
    flight.index = index;
    flight.op = op;
    const { ended } = flight;
    let performed: Promise<void>;
    try {
      const device = this.#device(command.device);
      switch (op) {
        case OP.READ:
          if (isCallbackDevice(device)) return device.readThen(offset, this.#memory.slice(address, length), ended);
          performed = device.read(offset, this.#memory.slice(address, length));
          break;
        case OP.WRITE: {
          const fua = (command.flags & FLAG_FUA) !== 0;
          if (!fua && isCallbackDevice(device)) return device.writeThen(offset, this.#memory.slice(address, length), ended);
          performed = device.write(offset, this.#memory.slice(address, length), fua ? { fua } : undefined);
          break;
        }
        case OP.FLUSH:
          performed = device.flush();
          break;
        case OP.DISCARD:
          performed = device.discard?.(offset, length) ?? RESOLVED;
          break;
        default:
          throw new VarveError('VARVE_INTERNAL', ticket.doing, { detail: `the core planned the unknown command ${op}` });
      }
    } catch (error) {
      performed = Promise.reject(error);
    }
    performed.then(
      () => ended(undefined),
      (error: unknown) => ended(error ?? new Error('the device gave no reason')),
    );
  }

  readonly #landed = (flight: Flight, error: unknown): void => {
    const { ticket, index, op } = flight;
    if (ticket === undefined) return this.stop('VARVE_INTERNAL', 'a device answered a command twice', error);
    flight.ticket = undefined;
    if (this.#landedFlights.length < FLIGHTS_KEPT) this.#landedFlights.push(flight);
    if (error !== undefined) this.#failed(ticket, op, error);
    this.#completed(ticket, index, error === undefined ? RESULT.OK : resultOf(error));
  };

  #performSync(ticket: Ticket, command: Command): number {
    const { offset, address, length } = command;
    ticket.worked = true;
    try {
      const device = this.#device(command.device);
      if (!isSyncDevice(device))
        throw new VarveError('VARVE_UNSUPPORTED', ticket.doing, { detail: 'the device does not work synchronously' });
      switch (command.op) {
        case OP.READ:
          device.readSync(offset, this.#memory.slice(address, length));
          break;
        case OP.WRITE:
          if ((command.flags & FLAG_FUA) === 0) device.writeSync(offset, this.#memory.slice(address, length));
          else if (!this.#fenced()) device.writeSync(offset, this.#memory.slice(address, length), { fua: true });
          break;
        case OP.FLUSH:
          if (!this.#fenced()) device.flushSync();
          break;
        case OP.DISCARD:
          device.discardSync?.(offset, length);
          break;
        default:
          throw new VarveError('VARVE_INTERNAL', ticket.doing, { detail: `the core planned the unknown command ${command.op}` });
      }
    } catch (error) {
      this.#failed(ticket, command.op, error);
      return resultOf(error);
    }
    return RESULT.OK;
  }

  #failed(ticket: Ticket, op: number, error: unknown): void {
    ticket.cause = error;
    if (op !== OP.READ && this.#core.figure(FAILED_READ_ONLY) === 0) this.#writeError = error;
  }

  #device(handle: number): StorageDevice {
    const device = this.devices.get(handle);
    if (device) return device;
    throw new VarveError('VARVE_IO', `use of storage volume ${Math.floor(handle / 32)}, member ${handle % 32}`, {
      detail: 'the device is missing',
    });
  }

  #fenced(): boolean {
    const error = this.#hooks.fence?.();
    if (error === undefined) return false;
    this.stop(error.code, error.message, error);
    return true;
  }

  #completed(ticket: Ticket, index: number, result: number): void {
    this.#answeredBytes = 0;
    this.#inFlight--;
    ticket.pending--;
    if (!this.#dead) {
      try {
        this.#core.complete(ticket.id, index, result);
        if (ticket.pending === 0) {
          if (this.#draining) this.#ready.push(ticket);
          else this.#advance(ticket);
        }
        if (this.#draining && this.#inFlight === 0) this.#drained();
        if (ticket.pending === 0) this.#pumpAfter(ticket);
      } catch (trap) {
        this.#trapped(trap);
      }
    }
    if (this.#inFlight === 0 && this.#idleWaiters.length > 0) {
      for (const wake of this.#idleWaiters.splice(0)) wake();
    }
  }

  // ——— memory ———

  #drained(): void {
    const starved = this.#starved;
    const ready = this.#ready;
    const pages = this.#starvedPages;
    this.#draining = false;
    this.#starved = [];
    this.#ready = [];
    this.#starvedPages = 0;
    // Together if that is to be had; otherwise each ticket asks again, and is denied by itself.
    this.#memory.grow(pages);
    for (const ticket of [...starved, ...ready]) {
      if (this.#draining) this.#ready.push(ticket); // one of them started I/O and the next asked for memory
      else this.#advance(ticket);
    }
  }

  #grow(ticket: Ticket, pages: number): void {
    if (this.#memory.grow(pages)) return;
    if (ticket.denied || !this.#core.memoryDenied) throw new Error(`the core needs ${pages} more pages of memory than there are`);
    ticket.denied = true;
    this.#core.memoryDenied(ticket.id);
  }

  // ——— all tickets ———

  #guardedPump(): void {
    if (this.#dead) return;
    try {
      this.#pump();
    } catch (trap) {
      this.#trapped(trap);
    }
  }

  #pumpAfter(ticket: Ticket): void {
    if (this.#calm && ticket.kind === KIND.READ && ticket.ended && !this.#draining) return;
    this.#pump();
  }

  #pump(): void {
    this.#calm = false;
    if (this.#pumping) {
      this.#moved = true;
      return;
    }
    this.#pumping = true;
    try {
      let started = 0; // kinds of background tickets started in this call, as bits
      while (!this.#dead && !this.#draining) {
        let moved = this.#queue.length > 0 && this.#retryQueue();
        if (this.#moved) {
          this.#moved = false;
          if (this.#waiting.length > 0 && this.#retryWaiting()) moved = true;
        }
        if (this.#dead || this.#draining) return;
        const kind = this.#closed ? 0 : this.#core.backgroundWanted();
        // A synchronous call does not pay for more than one background ticket of a kind, unless it waits for them.
        if (kind !== 0 && (!this.sync || this.#waiting.length > 0 || (started & (1 << kind)) === 0) && this.#startBackground(kind)) {
          started |= 1 << kind;
          moved = true;
        }
        if (!this.#closed && this.#askForVolume()) moved = true;
        if (moved || this.#moved) continue;
        if (this.#waiting.length === 0 && this.#queue.length === 0) {
          this.#calm = kind === 0 && !this.#growing;
          return;
        }
        if (this.#inFlight > 0 || this.#growing || this.#faults.size > 0) return;
        // What is held back is tried once more before all is given up: a flush that found nothing to do, because another had just covered it, may be
        // what is waited for by now.
        const moves = this.#foregroundMoves + this.#backgroundMoves;
        if (this.#lastResort === moves) return this.#breakDeadlock();
        this.#lastResort = moves;
        this.#held.fill(-1);
      }
    } finally {
      this.#pumping = false;
    }
  }

  #retryQueue(): boolean {
    let moved = false;
    while (this.#queue.length > 0 && !this.#draining && !this.#dead) {
      const ticket = this.#queue[0]!;
      if (!this.#submit(ticket) && !ticket.ended) break;
      this.#queue.shift();
      moved = true;
      if (ticket.ended) continue;
      this.#open.add(ticket);
      this.#advance(ticket);
    }
    return moved;
  }

  /** Steps each parked ticket once, first come first served; those that still wait are parked again, in order. */
  #retryWaiting(): boolean {
    const waiting = this.#waiting;
    this.#waiting = [];
    let moved = false;
    for (let index = 0; index < waiting.length; index++) {
      if (this.#dead) return true;
      if (this.#draining) {
        this.#waiting.push(...waiting.slice(index));
        this.#moved = true;
        return true;
      }
      if (this.#advance(waiting[index]!)) moved = true;
    }
    return moved;
  }

  #startBackground(kind: number): boolean {
    if (this.#running[kind]! > 0 || this.#held[kind] === this.#foregroundMoves) return false;
    const ticket = new Ticket(kind, 0, 0, 0, 0, undefined, 'the log', true);
    ticket.settled = true; // nobody waits for it
    if (!this.#submit(ticket)) {
      this.#held[kind] = this.#foregroundMoves;
      return false;
    }
    this.#open.add(ticket);
    this.#advance(ticket);
    return true;
  }

  /** @returns whether something changed in this turn */
  #askForVolume(): boolean {
    const want = this.#core.wantsVolume();
    if (want === 0) {
      this.#denied = 0;
      return false;
    }
    // Denied is denied until the need is over (policy), or until somebody submits anew (a write that cannot proceed).
    if (this.#growing || (want === 1 && this.#denied >= 1) || (want === 2 && this.#denied === 2 && this.#deniedAt === this.#submitted))
      return false;
    const added = this.#volumesAdded;
    if (this.sync || !this.#hooks.growth) {
      let granted = false;
      try {
        granted = (this.sync && this.#hooks.growthSync?.()) || false;
      } catch (error) {
        this.#hooks.backgroundFailed?.(error as Error);
      }
      this.#volumeAnswer(want, granted && this.#volumesAdded > added);
      return true;
    }
    this.#growing = true;
    const answer = (granted: boolean): void => {
      this.#growing = false;
      if (this.#dead) return;
      const again = this.#askAgain;
      this.#askAgain = false;
      try {
        if (granted || !again) this.#volumeAnswer(want, granted && this.#volumesAdded > added);
        else this.#moved = true;
        this.#pump();
      } catch (trap) {
        this.#trapped(trap);
      }
    };
    let asked: Promise<boolean>;
    try {
      asked = this.#hooks.growth();
    } catch (error) {
      asked = Promise.reject(error);
    }
    asked.then(answer, (error: unknown) => {
      this.#hooks.backgroundFailed?.(error as Error);
      answer(false);
    });
    return false;
  }

  /** A ticket waits: does it wait for a member to be faulted? */
  #askForFault(): void {
    const handle = this.#core.faultWanted?.() ?? -1;
    if (handle < 0 || this.#faults.has(handle)) return;
    const volume = Math.floor(handle / MEMBERS_MAX);
    const member = handle % MEMBERS_MAX;
    const answer = (out: boolean): void => {
      this.#faults.delete(handle);
      if (this.#dead) return;
      this.#core.memberSet?.(volume, member, out ? MEMBER.OUT : MEMBER.DENIED);
      // What waited for this gets further now, and may come to wait for something else: that is news to the others.
      for (const ticket of this.#waiting) ticket.parked = false;
      this.#moved = true;
      this.#foregroundMoves++;
    };
    const failed = (error: unknown): void => {
      this.#hooks.backgroundFailed?.(error as Error);
      answer(false);
    };
    this.#faults.add(handle);
    if (this.sync || !this.#hooks.fault) {
      try {
        answer((this.sync && this.#hooks.faultSync?.(volume, member)) || false);
      } catch (error) {
        failed(error);
      }
      return;
    }
    this.#hooks
      .fault(volume, member)
      .then(answer, failed)
      .finally(() => this.#guardedPump());
  }

  #volumeAnswer(want: number, granted: boolean): void {
    this.#moved = true;
    this.#foregroundMoves++;
    if (granted) {
      this.#denied = 0;
      return;
    }
    this.#denied = want;
    this.#deniedAt = this.#submitted;
    this.#core.growthDenied();
  }

  /** Everything is parked and nothing can come: the clients are told, their tickets stay as orphans. */
  #breakDeadlock(): void {
    const stuck = [...this.#waiting, ...this.#queue].filter((ticket) => !ticket.settled);
    for (const ticket of stuck) {
      const failure = this.#backgroundError;
      const code = failure instanceof VarveError ? failure.code : 'VARVE_BUSY';
      const detail = failure === undefined ? undefined : `what it waits for failed: ${messageOf(failure)}`;
      this.#giveUp(ticket, new VarveError(code, ticket.doing, { detail, cause: failure }));
    }
  }

  // ——— the end ———

  #isQuiet(): boolean {
    if (this.#queue.length > 0) return false;
    for (const ticket of this.#open) if (!ticket.settled) return false;
    return true;
  }

  #wakeQuiet(): void {
    if (this.#quietWaiters.length === 0 || !this.#isQuiet()) return;
    for (const wake of this.#quietWaiters.splice(0)) wake();
  }

  #trapped(trap: unknown): void {
    this.stop(
      'VARVE_INTERNAL',
      `a bug in Varve (${messageOf(trap)}); nothing more is read or written through this log, and what was flushed is safe`,
      trap,
    );
  }

  #deadError(doing: string): VarveError {
    const { code, detail, cause } = this.#dead!;
    return new VarveError(code, doing, { detail, cause });
  }

  #scheduleChanged(): void {
    if (!this.#hooks.changed || this.#changedScheduled) return;
    this.#changedScheduled = true;
    queueMicrotask(() => {
      this.#changedScheduled = false;
      if (this.#dead) return;
      try {
        this.#hooks.changed?.();
      } catch (error) {
        this.#hooks.backgroundFailed?.(error as Error); // there is no caller: thrown, it would end the process
      }
    });
  }
}

/** What the core is told of a device's error. A full device is not damage. Errors of foreign devices are known by their POSIX or DOM names. */
function resultOf(error: unknown): number {
  if (!(error instanceof Error)) return RESULT.IO;
  const code = 'code' in error ? error.code : undefined;
  return code === 'VARVE_NO_SPACE' || code === 'ENOSPC' || code === 'EDQUOT' || error.name === 'QuotaExceededError'
    ? RESULT.NO_SPACE
    : RESULT.IO;
}
