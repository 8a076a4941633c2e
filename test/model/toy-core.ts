// A core to test the simulator with: it keeps every promise in the dumbest way, unless told to break one. Everything is a record in one chain over all
// storage volumes, nothing is ever cleaned, opening reads all of it. So the simulator must find nothing here, and each of the `Bug`s.
//
// A record: a header block (checksum of the whole, sequence, checksum of the record before, JSON of what happened), then whole blocks of data.
import type { CoreExports } from '../../src/core/exports.ts';
import { KIND, OPERATION, STATUS_BITS } from '../../src/core/exports.ts';
import { encodeCommand, MEMBERS_MAX, OP } from '../../src/core/plan.ts';

export type Bug =
  | 'none'
  | 'no flush'
  | 'flush one volume only'
  | 'no checksums'
  | 'acknowledges a failed flush'
  | 'snapshot by reference'
  | 'edges lose data'
  | 'forgets trims';

const BLOCK = 4096;
const EXCHANGE = 0;
const SLOT_BYTES = 1 << 20;
const SLOTS = 8;
const OPEN_AREA = SLOT_BYTES * (SLOTS + 1);
const RECORD_BLOCKS = 16;

interface Command {
  op: number;
  device: number;
  offset: number;
  address: number;
  length: number;
  flags: number;
}

interface Space {
  volume: number;
  name: string;
  size: number;
  blocks: Map<number, Uint8Array>;
}

interface Snapshot {
  id: number;
  volume: number;
  name: string;
  createdAt: number;
  automatic: boolean;
  members: { space: number; name: string; size: number; blocks: Map<number, Uint8Array> }[];
}

interface Entry {
  kind: 'write' | 'trim' | 'operation';
  space: number;
  first: number;
  count: number;
  payload?: { op: number; a: number; b: number; c: number; name: string; id: number };
}

interface Ticket {
  kind: number;
  space: number;
  epoch: number;
  offset: number;
  length: number;
  plan: Command[];
  failed: boolean;
  work: Generator<Command[], number, boolean>;
  result: number;
}

class Failure extends Error {
  readonly code: number;
  constructor(code: number) {
    super(`failure ${code}`);
    this.code = code;
  }
}

export function makeToyCore(bug: Bug = 'none'): CoreExports {
  const memory = new WebAssembly.Memory({ initial: OPEN_AREA / 65536 });
  const bytes = (): Uint8Array => new Uint8Array(memory.buffer);
  const view = (): DataView => new DataView(memory.buffer);
  const places: { id: number; block: number; offset: number; blocks: number }[] = [];
  let blocksTotal = 0;
  const spaces = new Map<number, Space>();
  let snapshots: Snapshot[] = [];
  let nextId = 1;
  const tickets: (Ticket | undefined)[] = Array.from({ length: SLOTS });
  let failureCode = 0;
  let needed = 0;
  // The chain.
  let head = 0; // where the next record goes
  let written = 0; // blocks before this one were handed to the devices
  let durable = 0;
  let previous = 1;
  let sequence = 0;
  const image: Uint8Array[] = []; // blocks that were appended and not written yet, from `written` on
  let failing = false;
  let lock: Ticket | undefined;
  let opened = false;

  const checksum = (data: Uint8Array, skip = 4): number => {
    const words = new Uint32Array(data.buffer, data.byteOffset + skip, (data.length - skip) >>> 2);
    let sum = 0x811c9dc5;
    for (const word of words) sum = Math.imul(sum ^ word, 0x01000193) ^ (sum >>> 15);
    return sum >>> 0;
  };

  const place = (block: number): { device: number; offset: number; left: number } => {
    const at = places.find((other) => block >= other.block && block < other.block + other.blocks) as (typeof places)[number];
    return { device: at.id * MEMBERS_MAX, offset: at.offset + (block - at.block) * BLOCK, left: at.block + at.blocks - block };
  };

  const apply = (entry: Entry, data: Uint8Array[]): void => {
    const space = spaces.get(entry.space);
    if (entry.kind === 'write') data.forEach((block, i) => space?.blocks.set(entry.first + i, block));
    else if (entry.kind === 'trim') {
      for (const block of space?.blocks.keys() ?? [])
        if (block >= entry.first && block < entry.first + entry.count) space?.blocks.delete(block);
    } else operate(entry.payload as NonNullable<Entry['payload']>);
  };

  const operate = ({ op, a, b, c, name, id }: NonNullable<Entry['payload']>): void => {
    nextId = Math.max(nextId, id + 1);
    if (op === OPERATION.CREATE_SOURCE) spaces.set(id, { volume: a, name, size: b, blocks: new Map() });
    else if (op === OPERATION.SNAPSHOT) {
      const members = [...spaces].filter(([number, space]) => space.volume === a && (c === 0xffff || c === number));
      const copy = (blocks: Map<number, Uint8Array>): Map<number, Uint8Array> =>
        bug === 'snapshot by reference' ? blocks : new Map(blocks);
      const list = members.map(([space, { name: source, size, blocks }]) => ({ space, name: source, size, blocks: copy(blocks) }));
      snapshots.push({ id, volume: a, name, createdAt: b, automatic: false, members: list });
    } else if (op === OPERATION.DELETE_SNAPSHOT) snapshots = snapshots.filter((snapshot) => snapshot.id !== a);
    else if (op === OPERATION.RESIZE) {
      const space = spaces.get(a) as Space;
      if (b < space.size) for (const block of space.blocks.keys()) if (block * BLOCK >= b) space.blocks.delete(block);
      const edge = space.blocks.get(Math.floor(b / BLOCK));
      if (edge && b < space.size)
        space.blocks.set(
          Math.floor(b / BLOCK),
          edge.map((byte, i) => (i < b % BLOCK ? byte : 0)),
        );
      space.size = b;
    } else if (op === OPERATION.ROLLBACK) {
      const target = snapshots.find((snapshot) => snapshot.id === a) as Snapshot;
      const left = [...spaces].filter(([, space]) => space.volume === target.volume);
      const members = left.map(([space, { name: source, size, blocks }]) => ({ space, name: source, size, blocks: new Map(blocks) }));
      for (const member of target.members) {
        const entry = left.find(([, space]) => space.name === member.name);
        if (!entry) continue;
        spaces.delete(entry[0]);
        spaces.set(entry[0] + 1000, { volume: target.volume, name: member.name, size: member.size, blocks: new Map(member.blocks) });
      }
      snapshots.push({ id, volume: target.volume, name, createdAt: b, automatic: true, members });
    } else if (op === OPERATION.DELETE_SOURCE) spaces.delete(a);
  };

  const append = (entry: Entry, data: Uint8Array[]): void => {
    const header = new Uint8Array(BLOCK);
    const json = JSON.stringify({ entry, blocks: data.length });
    const numbers = new DataView(header.buffer);
    numbers.setUint32(4, previous, true);
    numbers.setUint32(8, ++sequence, true);
    numbers.setUint32(12, json.length, true);
    numbers.setUint32(
      16,
      data.reduce((sum, block) => sum ^ checksum(block, 0), 7),
      true,
    );
    for (let i = 0; i < json.length; i++) header[20 + i] = json.charCodeAt(i);
    previous = checksum(header);
    numbers.setUint32(0, previous, true);
    image.push(header, ...data);
    head += 1 + data.length;
    apply(entry, data);
  };

  const room = (blocks: number, share: number): void => {
    if (head + blocks > blocksTotal * share) throw new Failure(1);
  };

  const slotOf = (ticket: Ticket): number => SLOT_BYTES * (1 + tickets.indexOf(ticket));

  function* flush(ticket: Ticket): Generator<Command[], void, boolean> {
    while (lock) yield [];
    if (failing) throw new Failure(9);
    lock = ticket;
    try {
      const target = head;
      while (written < target) {
        const plan: Command[] = [];
        let at = slotOf(ticket);
        let count = 0;
        while (written + count < target && count < 200) {
          const { device, offset } = place(written + count);
          bytes().set(image[count] as Uint8Array, at);
          plan.push({ op: OP.WRITE, device, offset, address: at, length: BLOCK, flags: 0 });
          at += BLOCK;
          count++;
        }
        if (!(yield plan)) failing = true;
        if (failing) throw new Failure(3);
        image.splice(0, count);
        written += count;
      }
      const devices = bug === 'flush one volume only' ? places.slice(0, 1) : places;
      if (
        bug !== 'no flush' &&
        durable < target &&
        !(yield devices.map(({ id }) => ({ op: OP.FLUSH, device: id * MEMBERS_MAX, offset: 0, address: 0, length: 0, flags: 0 })))
      ) {
        if (bug !== 'acknowledges a failed flush') {
          failing = true;
          throw new Failure(3);
        }
      }
      durable = Math.max(durable, target);
    } finally {
      lock = undefined;
    }
  }

  function* copy(op: number, ticket: Ticket, clientOffset: number, length: number, address: number): Generator<Command[], void, boolean> {
    if (length > 0) yield [{ op, device: 0, offset: clientOffset, address, length, flags: 0 }];
    void ticket;
  }

  function* write(ticket: Ticket): Generator<Command[], number, boolean> {
    if (failing) throw new Failure(9);
    if (!spaces.has(ticket.space)) throw new Failure(6);
    for (let done = 0; done < ticket.length;) {
      const from = ticket.offset + done;
      const length = Math.min(ticket.length - done, RECORD_BLOCKS * BLOCK - (from % BLOCK));
      yield* copy(OP.COPY_IN, ticket, done, length, slotOf(ticket));
      const first = Math.floor(from / BLOCK);
      const data: Uint8Array[] = [];
      const count = Math.ceil((from + length) / BLOCK) - first;
      room(count + 1, 0.8);
      for (let i = 0; i < count; i++) {
        const block = new Uint8Array(BLOCK);
        const old = spaces.get(ticket.space)?.blocks.get(first + i);
        if (old && bug !== 'edges lose data') block.set(old);
        const start = Math.max(from, (first + i) * BLOCK);
        const end = Math.min(from + length, (first + i + 1) * BLOCK);
        const source = slotOf(ticket) + start - from;
        block.set(bytes().subarray(source, source + end - start), start % BLOCK);
        data.push(block);
      }
      append({ kind: 'write', space: ticket.space, first, count }, data);
      done += length;
    }
    if (ticket.epoch === 1) yield* flush(ticket);
    return 0;
  }

  function* read(ticket: Ticket): Generator<Command[], number, boolean> {
    let blocks = spaces.get(ticket.space)?.blocks;
    if (ticket.epoch !== 0xffffffff)
      blocks = snapshots.find((snapshot) => snapshot.id === ticket.epoch)?.members.find((member) => member.space === ticket.space)?.blocks;
    if (!blocks) throw new Failure(6);
    const plan: Command[] = [];
    let at = slotOf(ticket);
    for (let done = 0; done < ticket.length;) {
      const from = ticket.offset + done;
      const length = Math.min(ticket.length - done, BLOCK - (from % BLOCK));
      const block = blocks.get(Math.floor(from / BLOCK));
      if (block) bytes().set(block.subarray(from % BLOCK, (from % BLOCK) + length), at);
      plan.push({ op: block ? OP.COPY_OUT : OP.ZERO_OUT, device: 0, offset: done, address: block ? at : 0, length, flags: 0 });
      at += length;
      done += length;
    }
    yield plan;
    return 0;
  }

  const trim = (ticket: Ticket): void => {
    if (failing) throw new Failure(9);
    const end = ticket.offset + ticket.length;
    if (bug === 'forgets trims') return;
    const edges = [ticket.offset, end].filter((at) => at % BLOCK !== 0).map((at) => Math.floor(at / BLOCK));
    for (const edge of new Set(edges)) {
      const old = spaces.get(ticket.space)?.blocks.get(edge);
      if (!old) continue;
      room(2, 1);
      const block = old.map((byte, i) => (edge * BLOCK + i >= ticket.offset && edge * BLOCK + i < end ? 0 : byte));
      append({ kind: 'write', space: ticket.space, first: edge, count: 1 }, [block]);
    }
    const first = Math.ceil(ticket.offset / BLOCK);
    const count = Math.floor(end / BLOCK) - first;
    if (count > 0) append({ kind: 'trim', space: ticket.space, first, count }, []);
  };

  function* operation(payload: NonNullable<Entry['payload']>, ticket: Ticket): Generator<Command[], number, boolean> {
    if (failing) throw new Failure(9);
    const taken =
      payload.op === OPERATION.SNAPSHOT && snapshots.some((snapshot) => snapshot.volume === payload.a && snapshot.name === payload.name);
    if (taken) throw new Failure(7);
    payload.id = nextId;
    append({ kind: 'operation', space: 0, first: 0, count: 0, payload }, []);
    yield* flush(ticket);
    return payload.id;
  }

  function* open(ticket: Ticket, readOnly: boolean): Generator<Command[], number, boolean> {
    if (
      !readOnly &&
      !(yield places.map(({ id }) => ({ op: OP.FLUSH, device: id * MEMBERS_MAX, offset: 0, address: 0, length: 0, flags: 0 })))
    )
      throw new Failure(3);
    const plan: Command[] = places.map((at) => ({
      op: OP.READ,
      device: at.id * MEMBERS_MAX,
      offset: at.offset,
      address: OPEN_AREA + at.block * BLOCK,
      length: at.blocks * BLOCK,
      flags: 0,
    }));
    if (!(yield plan)) throw new Failure(3);
    const all = bytes();
    const block = (at: number): Uint8Array => all.slice(OPEN_AREA + at * BLOCK, OPEN_AREA + (at + 1) * BLOCK);
    for (;;) {
      if (head >= blocksTotal) break;
      const header = block(head);
      const numbers = new DataView(header.buffer);
      if (numbers.getUint32(0, true) !== checksum(header) && (bug !== 'no checksums' || numbers.getUint32(8, true) !== sequence + 1)) break;
      if (numbers.getUint32(4, true) !== previous || numbers.getUint32(8, true) !== sequence + 1) break;
      let parsed: { entry: Entry; blocks: number };
      try {
        parsed = JSON.parse(String.fromCharCode(...header.subarray(20, 20 + numbers.getUint32(12, true)))) as typeof parsed;
      } catch {
        break;
      }
      const data = Array.from({ length: parsed.blocks }, (_, i) => block(head + 1 + i));
      if (bug !== 'no checksums' && numbers.getUint32(16, true) !== data.reduce((sum, bytesOf) => sum ^ checksum(bytesOf, 0), 7) >>> 0)
        break;
      sequence++;
      previous = checksum(header);
      head += 1 + parsed.blocks;
      apply(parsed.entry, data);
    }
    written = head;
    durable = head;
    opened = true;
    void ticket;
    return 0;
  }

  const start = (ticket: Ticket): Ticket['work'] | number => {
    const { kind } = ticket;
    if (kind === KIND.READ) return read(ticket);
    if (kind === KIND.WRITE) return write(ticket);
    if (kind === KIND.OPEN) return open(ticket, ticket.space === 1);
    if (kind === KIND.OPERATION) {
      const numbers = view();
      const nameLength = numbers.getUint16(EXCHANGE + 2, true);
      const name = String.fromCharCode(...bytes().subarray(EXCHANGE + 24, EXCHANGE + 24 + nameLength));
      const payload = {
        op: numbers.getUint16(EXCHANGE, true),
        a: numbers.getUint32(4, true),
        b: numbers.getFloat64(8, true),
        c: numbers.getUint32(16, true),
        name,
        id: 0,
      };
      return operation(payload, ticket);
    }
    return (function* (): Ticket['work'] {
      opened = true;
      if (kind === KIND.TRIM) trim(ticket);
      if (kind === KIND.FLUSH || kind === KIND.CLOSE || kind === KIND.CHECKPOINT) yield* flush(ticket);
      return 0;
    })();
  };

  const put = (name: string, at: number): number => {
    for (let i = 0; i < name.length; i++) bytes()[at + i] = name.charCodeAt(i);
    return at + name.length;
  };

  return {
    memory,
    exchange: () => EXCHANGE,
    configure: () => 0,
    scrubCancel: () => undefined,
    volumeTolerates: () => 0,
    volumeAdd: (id, _level, _members, _strip, segmentBlocks, segmentCount, dataOffset) => {
      if (opened) return 13;
      places.push({ id, block: blocksTotal, offset: dataOffset, blocks: segmentBlocks * segmentCount });
      blocksTotal += segmentBlocks * segmentCount;
      return 0;
    },
    submit: (kind, space, epoch, offset, length) => {
      const slot = tickets.findIndex((ticket) => !ticket);
      if (slot < 0) return -12;
      const ticket = { kind, space, epoch: epoch >>> 0, offset, length, plan: [], failed: false, result: 0 } as unknown as Ticket;
      tickets[slot] = ticket;
      ticket.work = start(ticket) as Ticket['work'];
      return slot;
    },
    step: (id) => {
      const ticket = tickets[id] as Ticket;
      const missing = OPEN_AREA + blocksTotal * BLOCK - memory.buffer.byteLength;
      if (ticket.kind === KIND.OPEN && missing > 0) {
        needed = Math.ceil(missing / 65536);
        return 3;
      }
      try {
        const next = ticket.work.next(!ticket.failed);
        ticket.failed = false;
        if (!next.done) {
          ticket.plan = next.value;
          if (next.value.length === 0) return 2;
          next.value.forEach((command, i) => encodeCommand(view(), slotOf(ticket) + SLOT_BYTES - 65536 + i * 32, command));
          return 1 | (next.value.length << STATUS_BITS);
        }
        ticket.result = next.value;
      } catch (error) {
        if (!(error instanceof Failure)) throw error;
        failureCode = error.code;
        tickets[id] = undefined;
        return 4;
      }
      tickets[id] = undefined;
      needed = ticket.result;
      return 0;
    },
    planPointer: (id) => slotOf(tickets[id] as Ticket) + SLOT_BYTES - 65536,
    complete: (id, _index, result) => {
      if (result !== 0) (tickets[id] as Ticket).failed = true;
    },
    ticketResult: () => needed,
    failure: () => failureCode,
    failureVolume: () => 0xffff,
    failureBlock: () => 0,
    memoryNeeded: () => needed,
    backgroundWanted: () => 0,
    wantsVolume: () => 0,
    growthDenied: () => {},
    volumeEvacuate: () => 13,
    volumeState: () => 1,
    volumeRemove: () => 13,
    canGiveVolume: () => -1,
    policySet: () => {},
    sourceCount: () => spaces.size,
    sourceGet: (index) => {
      const [space, { volume, name, size }] = [...spaces][index] as [number, Space];
      const numbers = view();
      numbers.setUint32(0, space, true);
      numbers.setUint32(4, volume, true);
      numbers.setFloat64(8, size, true);
      numbers.setFloat64(16, 0, true);
      numbers.setUint32(24, 0, true);
      numbers.setUint32(28, name.length, true);
      return put(name, 32);
    },
    snapshotCount: () => snapshots.length,
    snapshotGet: (index) => {
      const { id, volume, name, createdAt, automatic, members } = snapshots[index] as Snapshot;
      const numbers = view();
      numbers.setUint32(0, id, true);
      numbers.setUint32(4, volume, true);
      numbers.setUint32(8, id, true);
      numbers.setUint32(12, members.length, true);
      numbers.setFloat64(16, createdAt, true);
      numbers.setUint32(24, automatic ? 1 : 0, true);
      numbers.setUint32(28, name.length, true);
      let at = put(name, 32 + members.length * 16);
      members.forEach((member, i) => {
        numbers.setUint32(32 + i * 16, member.space, true);
        numbers.setUint32(36 + i * 16, member.name.length, true);
        numbers.setFloat64(40 + i * 16, member.size, true);
        at = put(member.name, at);
      });
      return at;
    },
    currentEpoch: () => nextId,
    figure: (n) => [blocksTotal, head, 0, 0, 0, 0, 0, 0, 0, sequence, durable][n] ?? 0,
    volumeFigure: () => 0,
    counter: () => 0,
    problemTake: () => 0,
    diffBegin: () => 13,
    diffNext: () => 0,
    diffBlock: () => 0,
    diffCount: () => 0,
    diffKind: () => 0,
  };
}
