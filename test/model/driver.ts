// Drives one life of the core without the host: no promises, no threads, no pool. Tickets are stepped, and the commands of their plans performed, one at
// a time in an order that the seed chooses, so a run is the same every time, and the power can go after any command.
//
//   submit ──► ready ──step──► PLAN ──► commands ──all performed──► ready
//                │  ▲
//                │  └── progress of another ── waiting        (WAIT)
//                └──► DONE / FAILED
//
// Everything here that throws a `Violation` is a promise broken; `PowerCut` ends the life.
import type { CoreExports } from '../../src/core/exports.ts';
import { EPOCH_NOW, KIND, KIND_LIMIT, STATUS, STATUS_BITS, STATUS_MASK } from '../../src/core/exports.ts';
import { CoreMemory } from '../../src/core/memory.ts';
import { blankCommand, COMMAND_BYTES, type Command, decodeCommand, FLAG_FUA, MEMBERS_MAX, OP, OP_COPY_FIRST } from '../../src/core/plan.ts';
import type { Random } from '../../src/testing/random.ts';
import type { SimulatedDevice } from '../../src/testing/simulated-device.ts';

import { explain } from '../../src/pool/explain.ts';

export class Violation extends Error {
  override readonly name = 'Violation';
}

/** Not an error: the power goes after this command. */
export class PowerCut extends Error {
  override readonly name = 'PowerCut';
}

export class Ticket {
  id = -1;
  readonly kind: number;
  readonly buffer: Uint8Array | undefined;
  readonly background: boolean;
  outstanding = 0;
  parked = false;
  state: 'running' | 'done' | 'failed' = 'running';
  /** Of a failed one. */
  code = 0;
  place = '';
  result = 0;
  onEnd: ((ticket: Ticket) => void) | undefined;

  constructor(kind: number, buffer: Uint8Array | undefined, background: boolean) {
    this.kind = kind;
    this.buffer = buffer;
    this.background = background;
  }
}

interface Issued extends Command {
  readonly ticket: Ticket;
  readonly index: number;
}

export interface DriverOptions {
  readonly core: CoreExports;
  readonly random: Random;
  /** Commands until the power goes; below 0: it stays. Counts down over several lives. */
  readonly fuse: { left: number };
  /** 0: tickets and commands one after the other; 1: in any order. */
  readonly disorder: number;
  /** How eagerly background work is begun, 0 … 1; when nothing else can proceed it always is. */
  readonly eagerness: number;
  readonly readOnly: boolean;
  readonly plant: number;
  /** The core wants a storage volume: adds one, or answers false. `urgent`: a write waits for it. */
  readonly grow: (urgent: boolean) => boolean;
  readonly onBackgroundFailed: (ticket: Ticket) => void;
  /** A member (a handle) failed a write and can be done without: commits that it is out. */
  readonly onFault?: ((handle: number) => void) | undefined;
  /** Called before each command of a device; true: the device is not there. */
  readonly isGone?: ((device: SimulatedDevice) => boolean) | undefined;
}

const TURNS_MAX = 400_000;
const COPIES_MAX = 10_000;
const RETRIES_MAX = 8;
const KIND_NAMES = [
  '?',
  'create',
  'open',
  'read',
  'write',
  'trim',
  '?',
  'flush',
  'operation',
  'checkpoint',
  'compact',
  'close',
  'writeout',
  'root',
  '?',
  'check',
  'scrub',
];

export class Driver {
  readonly core: CoreExports;
  readonly devices = new Map<number, SimulatedDevice>();
  /** Commands performed. */
  commands = 0;
  trace: ((line: string) => void) | undefined;
  /** Called after every turn. */
  watch: (() => void) | undefined;
  readonly #options: DriverOptions;
  readonly #memory: CoreMemory;
  readonly #exchange: number;
  #ready: Ticket[] = [];
  #waiting: Ticket[] = [];
  #issued: Issued[] = [];
  /** Performed, and the core does not know yet. */
  #reports: { readonly command: Issued; readonly result: number }[] = [];
  readonly #background = new Uint8Array(KIND_LIMIT);
  /** Per kind: the count of foreground tickets at which a background ticket failed or found nothing to do; not tried again before the next one. */
  readonly #held = new Int32Array(KIND_LIMIT).fill(-1);
  #foreground = 0;
  #denied = false;
  /** Since a foreground ticket ended. */
  #retries = 0;

  constructor(options: DriverOptions) {
    this.#options = options;
    this.core = options.core;
    this.#memory = new CoreMemory(this.core.memory);
    this.#exchange = this.core.exchange() >>> 0;
    this.core.plant?.(options.plant);
  }

  get idle(): boolean {
    return this.#ready.length + this.#waiting.length + this.#issued.length + this.#reports.length === 0;
  }

  /** Bytes of the exchange buffer; taken anew each time, because the memory may have grown. */
  exchange(length = 65536): Uint8Array {
    return this.#memory.bytes.subarray(this.#exchange, this.#exchange + length);
  }

  view(): DataView {
    return new DataView(this.core.memory.buffer, this.#exchange, 65536);
  }

  addVolume(
    id: number,
    device: SimulatedDevice,
    segmentBlocks: number,
    segmentCount: number,
    dataOffset: number,
    rootFront: number,
    rootBack: number,
  ): number {
    return this.addGroup(id, 0, 1, [device], segmentBlocks, segmentCount, dataOffset, rootFront, rootBack);
  }

  addGroup(
    id: number,
    level: number,
    strip: number,
    members: readonly SimulatedDevice[],
    segmentBlocks: number,
    segmentCount: number,
    dataOffset: number,
    rootFront: number,
    rootBack: number,
  ): number {
    members.forEach((device, member) => this.devices.set(id * MEMBERS_MAX + member, device));
    const status = this.core.volumeAdd(id, level, members.length, strip, segmentBlocks, segmentCount, dataOffset, rootFront, rootBack);
    this.#sync();
    this.#progress();
    this.#denied = false;
    return status;
  }

  /** A ticket, or the failure code with which it was refused. */
  submit(kind: number, space = 0, epoch = 0, offset = 0, length = 0, buffer?: Uint8Array, background = false): Ticket | number {
    if (!background) this.#foreground++;
    const id = this.core.submit(kind, space, epoch >>> 0, offset, length);
    if (this.trace)
      this.trace(
        `submit ${KIND_NAMES[kind]} space ${space} epoch ${epoch === EPOCH_NOW ? 'now' : epoch} ${offset}+${length}${background ? ' (background)' : ''} = ${id}`,
      );
    if (id < 0) return -id;
    const ticket = new Ticket(kind, buffer, background);
    ticket.id = id;
    this.#ready.push(ticket);
    return ticket;
  }

  /** Submits and drives it to its end; answers 0 or the failure code. */
  run(kind: number, space = 0, epoch = 0, offset = 0, length = 0, buffer?: Uint8Array): Ticket {
    const ticket = this.submit(kind, space, epoch, offset, length, buffer);
    if (typeof ticket === 'number') {
      const refused = new Ticket(kind, buffer, false);
      refused.state = 'failed';
      refused.code = ticket;
      return refused;
    }
    this.finish(ticket);
    return ticket;
  }

  finish(ticket: Ticket): void {
    for (let turns = 0; ticket.state === 'running'; turns++) {
      if (turns > TURNS_MAX) throw new Violation(`hang: ${KIND_NAMES[ticket.kind]} has not ended after ${TURNS_MAX} turns`);
      if (!this.turn())
        throw new Violation(
          `hang: ${KIND_NAMES[ticket.kind]} waits for nothing (${this.#waiting.map((t) => KIND_NAMES[t.kind]).join(', ')} wait)`,
        );
    }
  }

  /** Until nothing is left to do, background work included. */
  drain(): void {
    for (let turns = 0; this.turn(); turns++)
      if (turns > TURNS_MAX) throw new Violation(`hang: background work has not ended after ${TURNS_MAX} turns`);
  }

  /** One step of one ticket, or one command. False when there was nothing to do. */
  turn(): boolean {
    const { random, disorder, eagerness } = this.#options;
    if (eagerness >= 1 || random.chance(eagerness)) this.#poll();
    if (this.#open === 0 && !this.#unstick()) return false;
    let chosen = disorder > 0 && random.chance(disorder) ? random.below(this.#open) : 0;
    if (chosen < this.#ready.length) {
      const ticket = this.#ready[chosen] as Ticket;
      this.#ready.splice(chosen, 1);
      this.#step(ticket);
    } else if ((chosen -= this.#ready.length) < this.#issued.length) {
      const command = this.#issued[chosen] as Issued;
      this.#issued.splice(chosen, 1);
      const report = { command, result: this.#execute(command) };
      // Answers do not come in the order in which requests were performed.
      if (disorder > 0 && random.chance(disorder * 0.3)) this.#reports.push(report);
      else this.#report(report);
    } else {
      const report = this.#reports[chosen - this.#issued.length] as { command: Issued; result: number };
      this.#reports.splice(chosen - this.#issued.length, 1);
      this.#report(report);
    }
    this.watch?.();
    return true;
  }

  #step(ticket: Ticket): void {
    const { core } = this;
    for (let copies = 0; copies < COPIES_MAX; copies++) {
      const answer = core.step(ticket.id);
      const status = answer & STATUS_MASK;
      this.#sync();
      if (this.trace)
        this.trace(
          `step ${ticket.id} ${KIND_NAMES[ticket.kind]} = ${['done', 'plan', 'wait', 'memory', 'failed'][status]}${status === STATUS.FAILED ? ` ${core.failure()}` : ''}`,
        );
      const fault = core.faultWanted?.() ?? -1;
      if (fault >= 0) this.#options.onFault?.(fault);
      if (status === STATUS.WAIT) {
        // It may have got further before it came to wait, so it is news to the others; unless it waited all the time.
        if (!ticket.parked) this.#progress();
        ticket.parked = true;
        this.#waiting.push(ticket);
        if (fault >= 0) {
          // What waited for this gets further now, and may come to wait for something else: that is news to the others.
          for (const waiting of this.#waiting) waiting.parked = false;
          this.#progress();
        }
        return;
      }
      ticket.parked = false;
      this.#progress();
      if (status === STATUS.DONE || status === STATUS.FAILED) {
        this.#end(ticket, status);
        return;
      }
      if (status === STATUS.MEMORY) {
        const pages = core.memoryNeeded();
        if (pages < 1 || !this.#memory.grow(pages))
          throw new Violation(`memory: the core asks for ${pages} pages and has ${this.#memory.pages}`);
        continue;
      }
      if (status !== STATUS.PLAN) throw new Violation(`step answers ${status}`);
      if (this.#plan(ticket, answer >>> STATUS_BITS)) return;
    }
    throw new Violation(`hang: ${KIND_NAMES[ticket.kind]} plans copies for ever`);
  }

  /** Issues the plan's commands; false when they are copies only, which are made at once and followed by the next step in the same turn. */
  #plan(ticket: Ticket, count: number): boolean {
    const pointer = this.core.planPointer(ticket.id) >>> 0;
    const commands: Issued[] = [];
    let device = false;
    for (let index = 0; index < count; index++) {
      const command: Issued = { ...blankCommand(), ticket, index };
      decodeCommand(this.#memory.view, pointer + index * COMMAND_BYTES, command);
      if (command.op < OP.READ || command.op > OP.ZERO_OUT) throw new Violation(`plan: unknown op ${command.op}`);
      if (command.address + command.length > this.#memory.bytes.length) throw new Violation('plan: outside of the memory');
      if (command.op < OP_COPY_FIRST) device = true;
      if (command.op === OP.WRITE) this.#checkWrite(command);
      commands.push(command);
    }
    if (count === 0) {
      this.#ready.push(ticket); // it has no wish but to let others come in between
      return true;
    }
    if (!device) {
      for (const command of commands) this.core.complete(ticket.id, command.index, this.#execute(command));
      return false;
    }
    ticket.outstanding = count;
    this.#issued.push(...commands);
    return true;
  }

  #checkWrite(command: Issued): void {
    if (this.#options.readOnly) throw new Violation('a read-only life writes');
    if (command.offset % 4096 !== 0 || command.length % 4096 !== 0 || command.length === 0)
      throw new Violation(`plan: write of ${command.length} at ${command.offset}`);
    for (const other of this.#issued) {
      if (other.op !== OP.WRITE || other.device !== command.device) continue;
      if (other.offset < command.offset + command.length && command.offset < other.offset + other.length) {
        throw new Violation(`order: two writes in flight over device ${command.device} at ${command.offset}`);
      }
    }
  }

  /** Things that may happen next. */
  get #open(): number {
    return this.#ready.length + this.#issued.length + this.#reports.length;
  }

  #report({ command, result }: { command: Issued; result: number }): void {
    const { ticket } = command;
    this.core.complete(ticket.id, command.index, result);
    this.#sync();
    if (--ticket.outstanding === 0) this.#ready.push(ticket);
  }

  #execute(command: Issued): number {
    const { ticket, op, length } = command;
    const bytes = this.#memory.bytes.subarray(command.address, command.address + length);
    if (op >= OP_COPY_FIRST) {
      const { buffer } = ticket;
      if (!buffer || command.offset + length > buffer.length)
        throw new Violation(`plan: outside of the client's buffer (${command.offset}+${length})`);
      if (op === OP.COPY_IN) bytes.set(buffer.subarray(command.offset, command.offset + length));
      else if (op === OP.COPY_OUT) buffer.set(bytes, command.offset);
      else buffer.fill(0, command.offset, command.offset + length);
      return 0;
    }
    const device = this.devices.get(command.device);
    if (!device) throw new Violation(`plan: op ${op} on the unknown device ${command.device}`);
    if (op !== OP.FLUSH && command.offset + length > device.sizeBytes)
      throw new Violation(`plan: op ${op} beyond the end of device ${command.device}`);
    if (this.#options.readOnly && op !== OP.READ) throw new Violation(`a read-only life performs op ${op}`);
    let result: number;
    if (this.#options.isGone?.(device)) result = 1;
    else if (op === OP.READ) result = device.readResult(command.offset, bytes);
    else if (op === OP.WRITE) {
      // A power cut in the midst of a write through to the medium leaves any part of it.
      const through = (command.flags & FLAG_FUA) !== 0 && this.#options.fuse.left !== 0;
      result = through ? device.throughResult(command.offset, bytes) : device.writeResult(command.offset, bytes);
    } else if (op === OP.FLUSH) result = device.flushResult();
    else result = device.discardResult(command.offset, length);
    this.commands++;
    if (this.trace) {
      const verb = ['', 'read', 'write', 'flush', 'discard'][op];
      const where = `volume ${Math.floor(command.device / MEMBERS_MAX)}.${command.device % MEMBERS_MAX} ${command.offset}+${length} for ${ticket.id}`;
      const what = op === OP.READ || op === OP.WRITE ? ` ${explain(bytes)}` : '';
      this.trace(`  ${verb} ${where}${result ? ` FAILS ${result}` : ''}${what}`);
    }
    if (this.#options.fuse.left >= 0 && this.#options.fuse.left-- === 0) throw new PowerCut();
    return result;
  }

  #end(ticket: Ticket, status: number): void {
    const { core } = this;
    ticket.state = status === STATUS.DONE ? 'done' : 'failed';
    if (status === STATUS.DONE) ticket.result = core.ticketResult(ticket.id);
    else {
      ticket.code = core.failure();
      ticket.place = `volume ${core.failureVolume() >>> 0} block ${core.failureBlock() >>> 0}`;
    }
    if (ticket.background) {
      this.#background[ticket.kind] = 0;
      if (ticket.state === 'failed' || (ticket.kind === KIND.COMPACT && ticket.result === 0)) this.#held[ticket.kind] = this.#foreground;
      if (ticket.state === 'failed') this.#options.onBackgroundFailed(ticket);
    } else {
      this.#foreground++;
      this.#retries = 0;
    }
    ticket.onEnd?.(ticket);
    if (this.#options.random.chance(this.#options.eagerness)) this.#poll();
  }

  /** What tickets wait for may have come. */
  progressed(): void {
    for (const waiting of this.#waiting) waiting.parked = false;
    this.#progress();
  }

  #progress(): void {
    if (this.#waiting.length === 0) return;
    this.#ready.push(...this.#waiting);
    this.#waiting = [];
  }

  /** Begins the background work that the core wants, and asks whether it wants to grow. Answers whether anything changed. */
  #poll(): boolean {
    if (this.#options.readOnly) return false;
    let changed = false;
    for (;;) {
      const kind = this.core.backgroundWanted();
      if (kind === 0 || this.#background[kind] || this.#held[kind] === this.#foreground) break;
      const ticket = this.submit(kind, 0, 0, 0, 0, undefined, true);
      if (typeof ticket === 'number') {
        this.#held[kind] = this.#foreground;
        break;
      }
      this.#background[kind] = 1;
      changed = true;
    }
    const wants = this.core.wantsVolume();
    if (wants === 2 || (wants === 1 && !this.#denied)) {
      if (this.#options.grow(wants === 2)) changed = true;
      else this.#denied = true;
    }
    return changed;
  }

  /** Tickets wait and nothing moves: is there background work, or a volume to be had? What failed in the background is tried again, a few times. */
  #unstick(): boolean {
    let polled = this.#poll();
    if (this.#open > 0) return true;
    if (this.#waiting.length === 0) return false;
    if (!polled && this.core.wantsVolume() === 2) {
      this.core.growthDenied();
      polled = true;
    }
    if (!polled && this.#retries < RETRIES_MAX) {
      this.#retries++;
      this.#held.fill(-1);
      polled = this.#poll();
    }
    if (!polled) return false;
    this.#progress();
    return true;
  }

  #sync(): void {
    if (this.#memory.bytes.buffer !== this.core.memory.buffer) throw new Violation('memory: the core grew it by itself');
  }
}
