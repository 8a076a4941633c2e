// A core that follows a script, and insists on the rules of the boundary: no step while commands of the plan are open, no completion twice, no growth
// while a device command is in flight.
import { KIND, RESULT, STATUS, STATUS_BITS, type TicketExports } from '../../src/core/exports.ts';
import { COMMAND_BYTES, encodeCommand, OP, type Command } from '../../src/core/plan.ts';

export interface FakeTicket {
  readonly id: number;
  readonly kind: number;
  readonly space: number;
  readonly epoch: number;
  readonly offset: number;
  readonly length: number;
  /** Of the commands of the last plan. */
  readonly results: number[];
}

export type FakeStep = { plan: Partial<Command>[] } | { memory: number } | { failed: number; volume?: number; block?: number } | 'wait';
/** Yields what `step` answers; returning is DONE with that result. */
export type FakeScript = (ticket: FakeTicket, core: FakeCore) => Generator<FakeStep, number | void>;

interface Running extends FakeTicket {
  readonly script: Generator<FakeStep, number | void>;
  planAddress: number;
  open: Set<number>;
}

const PLANS = 65536;
/** Where scripts may have their data. */
export const DATA = 131072;

export class FakeCore implements TicketExports {
  readonly memory = new WebAssembly.Memory({ initial: 4, maximum: 64 });
  readonly log: string[] = [];
  wanted: number[] = [];
  volumeWanted = 0;
  growthsDenied = 0;
  readOnly = false;
  memoriesDenied: number[] = [];
  ticketsMax = 64;
  readonly #script: FakeScript;
  readonly #tickets = new Map<number, Running>();
  #next = 0;
  #result = 0;
  #failure = { code: 0, volume: 0xffffffff, block: 0 };
  #pages = 0;
  #bytes = this.memory.buffer.byteLength;
  /** Device commands that the host has in flight or is about to start. */
  #inFlight = 0;

  constructor(script: FakeScript) {
    this.#script = script;
  }

  get running(): number {
    return this.#tickets.size;
  }

  exchange(): number {
    return 4096;
  }

  submit(kind: number, space: number, epoch: number, offset: number, length: number): number {
    if (this.#tickets.size >= this.ticketsMax) return -12;
    const id = this.#next++;
    const base = { id, kind, space, epoch, offset, length, results: [] };
    const ticket: Running = { ...base, script: undefined as never, planAddress: PLANS + (id % 32) * 2048, open: new Set() };
    (ticket as { script: Running['script'] }).script = this.#script(ticket, this);
    this.#tickets.set(id, ticket);
    return id;
  }

  step(id: number): number {
    const ticket = this.#tickets.get(id);
    if (!ticket) throw new Error(`step of ticket ${id}, which has ended`);
    if (ticket.open.size > 0) throw new Error(`step of ticket ${id} with ${ticket.open.size} commands open`);
    this.#checkGrowth();
    const { value, done } = ticket.script.next();
    if (done) {
      this.#tickets.delete(id);
      this.#result = value ?? 0;
      return STATUS.DONE;
    }
    if (value === 'wait') return STATUS.WAIT;
    if ('memory' in value) {
      this.#pages = value.memory;
      return STATUS.MEMORY;
    }
    if ('failed' in value) {
      this.#tickets.delete(id);
      this.#failure = { code: value.failed, volume: value.volume ?? 0xffffffff, block: value.block ?? 0 };
      return STATUS.FAILED;
    }
    ticket.results.length = 0;
    const view = new DataView(this.memory.buffer);
    value.plan.forEach((command, index) => {
      encodeCommand(view, ticket.planAddress + index * COMMAND_BYTES, {
        op: 0,
        device: 0,
        offset: 0,
        address: 0,
        length: 0,
        flags: 0,
        ...command,
      });
      if ((command.op ?? 0) >= OP.COPY_IN) {
        ticket.results[index] = RESULT.OK; // only what went wrong is told of copies
        return;
      }
      ticket.open.add(index);
      this.#inFlight++;
    });
    return STATUS.PLAN | (value.plan.length << STATUS_BITS);
  }

  planPointer(id: number): number {
    return this.#tickets.get(id)!.planAddress;
  }

  complete(id: number, index: number, result: number): void {
    const ticket = this.#tickets.get(id);
    if (!ticket) throw new Error(`completion of command ${index} of ticket ${id}, which has ended`);
    this.#checkGrowth();
    ticket.results[index] = result;
    if (ticket.open.delete(index)) this.#inFlight--;
    else if (result === RESULT.OK) throw new Error(`completion of command ${index} of ticket ${id}, which is not open`);
  }

  ticketResult(): number {
    return this.#result;
  }

  failure(): number {
    return this.#failure.code;
  }

  failureVolume(): number {
    return this.#failure.volume | 0; // as wasm gives it: signed
  }

  failureBlock(): number {
    return this.#failure.block;
  }

  memoryNeeded(): number {
    return this.#pages;
  }

  memoryDenied(id: number): void {
    this.memoriesDenied.push(id);
  }

  backgroundWanted(): number {
    return this.wanted[0] ?? 0;
  }

  wantsVolume(): number {
    return this.volumeWanted;
  }

  figure(n: number): number {
    return n === 19 && this.readOnly ? 1 : 0;
  }

  growthDenied(): void {
    this.growthsDenied++;
  }

  /** A growth is seen at the next call: nothing may have been in flight. */
  #checkGrowth(): void {
    const bytes = this.memory.buffer.byteLength;
    if (bytes === this.#bytes) return;
    this.#bytes = bytes;
    this.log.push(`grown to ${bytes / 65536} pages, ${this.#inFlight} in flight`);
    if (this.#inFlight > 0) throw new Error(`the memory grew with ${this.#inFlight} commands in flight`);
  }
}

/** Reads copy `length` bytes out of a fixed place after a device read; writes copy in. Others are done at once. */
export function* plainScript(ticket: FakeTicket): Generator<FakeStep, number | void> {
  if (ticket.kind === KIND.WRITE) yield { plan: [{ op: OP.COPY_IN, address: DATA, length: ticket.length }] };
  if (ticket.kind === KIND.READ) yield { plan: [{ op: OP.COPY_OUT, address: DATA, length: ticket.length }] };
}
