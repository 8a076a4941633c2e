import { describe, expect, it, vi } from 'vitest';
import { KIND } from '../../src/core/exports.ts';
import { CoreMemory } from '../../src/core/memory.ts';
import { deviceHandle, OP } from '../../src/core/plan.ts';
import type { StorageDevice } from '../../src/device/device.ts';
import { MemoryDevice } from '../../src/device/memory.ts';
import { FaultDevice } from '../../src/device/wrap/fault.ts';
import { isVarveError, VarveError } from '../../src/errors.ts';
import { Loop, type LoopOptions } from '../../src/volume/loop.ts';
import { DATA, FakeCore, plainScript, type FakeScript } from './fake-core.ts';

const DEVICE = deviceHandle(0, 0);

function make(script: FakeScript, options: LoopOptions = {}, device: StorageDevice = new MemoryDevice('1MiB')) {
  const core = new FakeCore(script);
  const memory = new CoreMemory(core.memory);
  const loop = new Loop(core, memory, options);
  loop.devices.set(DEVICE, device);
  return { core, memory, loop, device };
}

function bytes(length: number, value: number): Uint8Array {
  return new Uint8Array(length).fill(value);
}

const write = (loop: Loop, buffer: Uint8Array, signal?: AbortSignal): Promise<void> =>
  loop.transfer(KIND.WRITE, 1, 0, 0, buffer.length, buffer, "'v'", signal);
const read = (loop: Loop, buffer: Uint8Array, signal?: AbortSignal): Promise<void> =>
  loop.transfer(KIND.READ, 1, 0xffffffff, 0, buffer.length, buffer, "'v'", signal);
const flush = (loop: Loop): Promise<void> => loop.transfer(KIND.FLUSH, 0, 0, 0, 0, undefined, "'v'", undefined);

/** A device whose calls end when they are told to. */
class HeldDevice extends MemoryDevice {
  readonly held: (() => void)[] = [];
  override write(offset: number, from: Uint8Array): Promise<void> {
    return new Promise((resolve) => this.held.push(() => resolve(super.write(offset, from))));
  }
  override flush(): Promise<void> {
    return new Promise((resolve) => this.held.push(resolve));
  }
}

const turns = async (count = 8): Promise<void> => {
  for (let turn = 0; turn < count; turn++) await Promise.resolve();
};

describe('the plan loop', () => {
  it('performs a plan of copies in the turn of the call', async () => {
    const { core, loop, memory } = make(plainScript);
    const from = bytes(4096, 7);
    const written = write(loop, from);
    expect(core.running).toBe(0);
    expect(memory.bytes[DATA]).toBe(7);
    from.fill(9);
    await written;
    expect(memory.bytes[DATA + 4095]).toBe(7);
    const into = bytes(4096, 0);
    await read(loop, into);
    expect(into.every((byte) => byte === 7)).toBe(true);
  });

  it('copies to and from the place in the buffer that the command names', async () => {
    const { loop } = make(function* (ticket) {
      if (ticket.kind === KIND.WRITE) {
        yield { plan: [{ op: OP.COPY_IN, offset: 0, address: DATA, length: 100 }] };
        yield { plan: [{ op: OP.COPY_IN, offset: 100, address: DATA + 100, length: 50 }] };
      } else {
        yield {
          plan: [
            { op: OP.COPY_OUT, offset: 0, address: DATA, length: 120 },
            { op: OP.ZERO_OUT, offset: 120, length: 30 },
          ],
        };
      }
    });
    await write(
      loop,
      Uint8Array.from({ length: 150 }, (_, index) => index),
    );
    const into = bytes(150, 255);
    await read(loop, into);
    expect([...into]).toEqual(Array.from({ length: 150 }, (_, index) => (index < 120 ? index : 0)));
  });

  it('performs device commands of one plan in parallel and steps when all have ended', async () => {
    const device = new HeldDevice('1MiB');
    const { loop } = make(
      function* () {
        yield {
          plan: [
            { op: OP.WRITE, device: DEVICE, offset: 0, address: DATA, length: 4096 },
            { op: OP.WRITE, device: DEVICE, offset: 8192, address: DATA, length: 4096 },
          ],
        };
        yield { plan: [{ op: OP.FLUSH, device: DEVICE }] };
      },
      {},
      device,
    );
    const flushed = flush(loop);
    expect(device.held.length).toBe(2);
    expect(loop.inFlight).toBe(2);
    device.held[1]!();
    await turns();
    expect(device.held.length).toBe(2);
    device.held[0]!();
    await turns();
    expect(device.held.length).toBe(3);
    device.held[2]!();
    await flushed;
    expect(loop.inFlight).toBe(0);
  });

  it('tells the core of a failed command and hands the device’s error on as the cause', async () => {
    const seen: number[][] = [];
    const { loop } = make(
      function* (ticket) {
        yield { plan: [{ op: OP.WRITE, device: DEVICE, address: DATA, length: 4096 }] };
        seen.push([...ticket.results]);
        yield { failed: 3, volume: 0, block: 17 };
      },
      {},
      new FaultDevice(new MemoryDevice('1MiB'), () => ({ kind: 'fail' })),
    );
    const error = await flush(loop).catch((reason: unknown) => reason);
    expect(seen).toEqual([[1]]);
    expect(error).toBeInstanceOf(VarveError);
    expect(error).toMatchObject({ code: 'VARVE_IO', volume: 0, block: 17, doing: "flush of 'v'" });
    expect((error as Error).cause).toMatchObject({ code: 'VARVE_IO' });
  });

  it.each([false, true])(
    'remembers what made the log read-only: later refusals and the close have it as cause (sync: %s)',
    async (sync) => {
      let failing: 'write' | 'read' | undefined;
      let tried = 0;
      const device = new FaultDevice(new MemoryDevice('1MiB'), ({ op }) =>
        op === failing ? { kind: 'fail', error: new Error(`EIO ${tried++}`) } : undefined,
      );
      const plan = (op: number): { plan: object[] } => ({ plan: [{ op, device: DEVICE, address: DATA, length: 4096 }] });
      const { loop } = make(
        function* (ticket, core) {
          if (ticket.kind === KIND.READ || !core.readOnly) yield plan(ticket.kind === KIND.READ ? OP.READ : OP.WRITE);
          if (core.readOnly) yield { failed: ticket.kind === KIND.READ || ticket.kind === KIND.CLOSE ? 3 : 9 };
          if (ticket.results.includes(1)) {
            core.readOnly = true;
            yield { failed: 3 };
          }
        },
        { sync },
        device,
      );
      const error = (call: Promise<unknown>): Promise<Error> =>
        call.then(
          () => expect.unreachable(),
          (reason: unknown) => reason as Error,
        );
      failing = 'write';
      const first = await error(flush(loop));
      expect(first).toMatchObject({ code: 'VARVE_IO', message: "flush of 'v': a storage device failed" });
      expect(first.cause).toMatchObject({ message: 'EIO 0' });
      failing = 'read';
      expect((await error(read(loop, bytes(4096, 0)))).cause).toMatchObject({ message: 'EIO 1' }); // its own
      for (const [call, code] of [
        [(): Promise<unknown> => write(loop, bytes(4096, 1)), 'VARVE_READ_ONLY'],
        [(): Promise<unknown> => flush(loop), 'VARVE_READ_ONLY'],
        [(): Promise<unknown> => loop.run(KIND.CLOSE, 0, 0, undefined, 'the log'), 'VARVE_IO'],
      ] as const) {
        const later = await error(call());
        expect(later).toMatchObject({ code, message: /: it is read-only since a storage device failed; open the pool again$/ });
        expect(later.cause).toBe(first.cause);
      }
    },
  );

  it('makes a short read in the call where the device can, and asks for it once more in the other way where it cannot', async () => {
    class Prompt extends MemoryDevice {
      prompt = true;
      readonly calls: string[] = [];
      readPrompt(offset: number, into: Uint8Array): boolean {
        this.calls.push('prompt');
        if (this.prompt) this.readSync(offset, into);
        return this.prompt;
      }
      override read(offset: number, into: Uint8Array): Promise<void> {
        this.calls.push('read');
        return super.read(offset, into);
      }
    }
    const device = new Prompt('1MiB');
    device.writeSync(4096, bytes(4096, 5));
    const { core, loop } = make(
      function* (ticket) {
        if (ticket.kind !== KIND.READ) return;
        yield { plan: [{ op: OP.READ, device: DEVICE, offset: 4096, address: DATA, length: 4096 }] };
        expect(ticket.results).toEqual([0]);
        yield { plan: [{ op: OP.COPY_OUT, address: DATA, length: 4096 }] };
      },
      {},
      device,
    );
    await flush(loop); // nothing is left to do: reads go straight through from here on
    for (const prompt of [true, false, true]) {
      device.prompt = prompt;
      device.calls.length = 0;
      const into = bytes(4096, 0);
      const done = read(loop, into);
      expect(core.running).toBe(prompt ? 0 : 1);
      expect(loop.inFlight).toBe(prompt ? 0 : 1);
      await done;
      expect(device.calls).toEqual(prompt ? ['prompt'] : ['prompt', 'read']);
      expect(into).toEqual(bytes(4096, 5));
    }
    expect(core.running).toBe(0);
  });

  it('goes on with a read that is not as usual from where it is', async () => {
    for (const sync of [false, true]) {
      const ends = ['zeros', 'failed', 'pair', 'part', 'lost'];
      let end = '';
      const device = new FaultDevice(new MemoryDevice('1MiB'), () => (end === 'failed' ? { kind: 'fail' } : undefined));
      const { core, loop } = make(
        function* (ticket) {
          if (ticket.kind !== KIND.READ) return;
          const address = end === 'part' ? core.memory.buffer.byteLength - 4096 : DATA; // there is nothing behind the part
          const one = { op: OP.READ, device: end === 'lost' ? DEVICE + 32 : DEVICE, address, length: 4096 };
          if (end === 'zeros') return void (yield { plan: [{ op: OP.ZERO_OUT, length: 8192 }] });
          yield { plan: end === 'pair' ? [one, { ...one, offset: 4096, address: DATA + 4096 }] : [one] };
          if (ticket.results.some((result) => result !== 0)) return void (yield { failed: 3, volume: 0, block: 9 });
          yield { plan: [{ op: OP.COPY_OUT, address, length: end === 'part' ? 4096 : 8192 }] };
          if (end === 'part') yield { plan: [{ op: OP.COPY_OUT, offset: 4096, address, length: 4096 }] };
        },
        { sync },
        device,
      );
      await flush(loop);
      for (end of ends) {
        const into = bytes(8192, 255);
        const ended: unknown = await read(loop, into).then(
          () => undefined,
          (reason: unknown) => reason,
        );
        if (end === 'failed' || end === 'lost') expect(ended).toMatchObject({ code: 'VARVE_IO', block: 9, cause: { code: 'VARVE_IO' } });
        else expect(ended).toBeUndefined();
        if (ended === undefined) expect(into).toEqual(bytes(8192, 0));
        expect(core.running).toBe(0);
      }
    }
  });

  it('a trap in a read that goes straight through ends the log', async () => {
    for (const sync of [false, true]) {
      const { loop } = make(
        function* (ticket) {
          if (ticket.kind === KIND.READ) throw new Error('a trap');
          yield { plan: [] };
        },
        { sync },
      );
      await flush(loop);
      const error = await read(loop, bytes(4096, 0)).catch((reason: unknown) => reason);
      expect(error).toMatchObject({ code: 'VARVE_INTERNAL' });
      expect(loop.dead).toBe(true);
    }
  });

  it('tells a full device from a broken one', async () => {
    const full = Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' });
    for (const sync of [false, true]) {
      const results: number[] = [];
      const { loop } = make(
        function* (ticket) {
          yield { plan: [{ op: OP.WRITE, device: DEVICE, address: DATA, length: 4096 }] };
          results.push(...ticket.results);
        },
        { sync },
        new FaultDevice(new MemoryDevice('1MiB'), () => ({ kind: 'fail', error: full })),
      );
      await flush(loop);
      expect(results).toEqual([2]);
    }
  });

  it('takes a device that is not there for a failed one', async () => {
    const { loop } = make(function* (ticket) {
      yield { plan: [{ op: OP.READ, device: deviceHandle(5, 2), address: DATA, length: 4096 }] };
      yield { failed: ticket.results[0] === 1 ? 3 : 13 };
    });
    await expect(read(loop, bytes(4096, 0))).rejects.toMatchObject({ code: 'VARVE_IO', cause: { message: /storage volume 5, member 2/ } });
  });

  it('steps a waiting ticket again after any progress', async () => {
    let open = false;
    const { loop } = make(function* (ticket) {
      if (ticket.kind === KIND.WRITE) while (!open) yield 'wait';
      else {
        yield { plan: [{ op: OP.FLUSH, device: DEVICE }] };
        open = true;
      }
    });
    const flushed = flush(loop);
    const written = [write(loop, bytes(16, 1)), write(loop, bytes(16, 2))];
    await flushed;
    await Promise.all(written);
  });

  it('lets those that wait go first come, first served', async () => {
    const order: number[] = [];
    let free = 0;
    const { loop } = make(function* (ticket) {
      if (ticket.kind === KIND.WRITE) {
        while (free === 0) yield 'wait';
        free--;
        order.push(ticket.offset);
      } else {
        yield { plan: [{ op: OP.FLUSH, device: DEVICE }] };
        free++;
      }
    });
    const flushes = [flush(loop), flush(loop), flush(loop)];
    const writes = [1, 2, 3].map((offset) => loop.transfer(KIND.WRITE, 1, 0, offset, 16, bytes(16, 1), "'v'", undefined));
    await Promise.all([...flushes, ...writes]);
    expect(order).toEqual([1, 2, 3]);
  });

  it('reports a deadlock as VARVE_BUSY and never hangs', async () => {
    const { loop } = make(function* (ticket) {
      if (ticket.kind === KIND.WRITE) for (;;) yield 'wait';
    });
    await expect(write(loop, bytes(16, 1))).rejects.toMatchObject({ code: 'VARVE_BUSY' });
    await flush(loop); // others go on
    const { loop: sync } = make(
      function* () {
        for (;;) yield 'wait';
      },
      { sync: true },
    );
    expect(() => sync.transferSync(KIND.WRITE, 1, 0, 0, 16, bytes(16, 1), "'v'")).toThrow(/cannot proceed/);
  });

  it('lets I/O complete under a caller that awaits answer after answer', async () => {
    const { device, loop } = make(function* (ticket) {
      if (ticket.kind === KIND.WRITE) yield { plan: [{ op: OP.COPY_IN, address: DATA, length: ticket.length }] };
      if (ticket.kind === KIND.FLUSH) yield { plan: [{ op: OP.FLUSH, device: DEVICE }] };
    });
    device.flush = () => new Promise((resolve) => void setImmediate(resolve));
    let flushed = false;
    const flushing = flush(loop).then(() => (flushed = true));
    let writes = 0;
    while (!flushed && writes < 4000) {
      await write(loop, bytes(4096, 1));
      writes++;
    }
    await flushing;
    expect(writes).toBeLessThan(2 * 256 + 2); // twice 1 MiB
    expect(writes).toBeGreaterThan(100);
  });

  it('queues what the core has no room for', async () => {
    const { core, loop } = make(function* () {
      yield { plan: [{ op: OP.FLUSH, device: DEVICE }] };
    });
    core.ticketsMax = 2;
    await Promise.all(Array.from({ length: 20 }, () => flush(loop)));
    expect(core.running).toBe(0);
  });

  it('reports failures of submit', async () => {
    const { core, loop } = make(plainScript);
    core.submit = () => -9;
    await expect(write(loop, bytes(16, 1))).rejects.toMatchObject({ code: 'VARVE_READ_ONLY' });
    core.submit = () => -11;
    await expect(write(loop, bytes(16, 1))).rejects.toBeInstanceOf(RangeError);
    core.submit = () => -12; // busy, and nothing that could make room
    await expect(write(loop, bytes(16, 1))).rejects.toMatchObject({ code: 'VARVE_BUSY' });
  });

  it('hands the payload to the exchange buffer and the result back', async () => {
    const { core, loop } = make(function* (ticket, fake) {
      expect(ticket.kind).toBe(KIND.OPERATION);
      expect(new Uint8Array(fake.memory.buffer)[4096 + 2]).toBe(33);
      yield { plan: [{ op: OP.FLUSH, device: DEVICE }] };
      return 42;
    });
    await expect(loop.run(KIND.OPERATION, 0, 0, Uint8Array.of(11, 22, 33), "'v'")).resolves.toBe(42);
    expect(core.running).toBe(0);
  });
});

describe('the memory of the core', () => {
  it('grows at once when nothing is in flight, by at least an eighth, and the views are made anew', async () => {
    const { core, loop, memory } = make(function* () {
      yield { memory: 1 };
      yield { plan: [{ op: OP.COPY_IN, address: 4 * 65536, length: 16 }] };
    });
    core.memory.grow(28); // 32 pages: an eighth is 4
    const grown = new Loop(core, new CoreMemory(core.memory));
    await write(grown, bytes(16, 3));
    expect(core.memory.buffer.byteLength).toBe(36 * 65536);
    void loop;
    void memory;
  });

  it('drains the I/O of all tickets before it grows', async () => {
    const device = new HeldDevice('1MiB');
    const { core, loop } = make(
      function* (ticket) {
        if (ticket.kind === KIND.FLUSH) {
          yield { plan: [{ op: OP.WRITE, device: DEVICE, address: DATA, length: 4096 }] };
          yield { plan: [{ op: OP.WRITE, device: DEVICE, address: DATA, length: 4096 }] };
        } else {
          yield { memory: 3 };
          yield { plan: [{ op: OP.COPY_IN, address: 4 * 65536 + 16, length: 16 }] };
        }
      },
      {},
      device,
    );
    const flushed = [flush(loop), flush(loop)];
    const written = write(loop, bytes(16, 5));
    await turns();
    device.held[0]!();
    await turns();
    expect(device.held.length).toBe(2); // the first flush does not start its second plan meanwhile
    expect(core.memory.buffer.byteLength).toBe(4 * 65536);
    const late = write(loop, bytes(16, 6)); // comes while it drains
    device.held[1]!();
    await turns();
    await written;
    for (let index = 2; index < 4; index++) {
      device.held[index]!();
      await turns();
    }
    await Promise.all([...flushed, late]); // the late one drained them once more
    expect(core.log).toEqual(['grown to 7 pages, 0 in flight', 'grown to 10 pages, 0 in flight']);
  });

  it('tells the core when there is no more, and the ticket fails by itself', async () => {
    const { core, loop } = make(function* (ticket) {
      if (ticket.kind === KIND.WRITE) {
        yield { memory: 1000 }; // the fake's maximum is 64
        yield { failed: 8 };
      }
    });
    await expect(write(loop, bytes(16, 1))).rejects.toMatchObject({ code: 'VARVE_LIMIT' });
    expect(core.memoriesDenied).toEqual([0]);
    await flush(loop);
  });

  it('does not ask the same in vain for ever', async () => {
    const { loop } = make(function* () {
      for (;;) yield { memory: 1000 };
    });
    await expect(write(loop, bytes(16, 1))).rejects.toMatchObject({ code: 'VARVE_INTERNAL' });
  });
});

describe('background tickets', () => {
  it('are started when the core wants them, one of a kind at a time', async () => {
    const started: number[] = [];
    let most = 0;
    let running = 0;
    const { core, loop } = make(function* (ticket, fake) {
      if (ticket.kind !== KIND.WRITEOUT) return;
      started.push(ticket.kind);
      running++;
      most = Math.max(most, running);
      yield { plan: [{ op: OP.WRITE, device: DEVICE, address: DATA, length: 4096 }] };
      running--;
      if (started.length === 3) fake.wanted = [];
    });
    core.wanted = [KIND.WRITEOUT];
    await flush(loop);
    await loop.idle();
    await turns(32);
    await loop.idle();
    expect(started.length).toBe(3);
    expect(most).toBe(1);
  });

  it('make room for those that wait', async () => {
    for (const sync of [false, true]) {
      let room = false;
      const { core, loop } = make(
        function* (ticket, fake) {
          if (ticket.kind === KIND.COMPACT) {
            yield { plan: [{ op: OP.READ, device: DEVICE, address: DATA, length: 4096 }] };
            room = true;
            fake.wanted = [];
            return 1;
          }
          while (!room) {
            fake.wanted = [KIND.COMPACT];
            yield 'wait';
          }
          return 0;
        },
        { sync },
      );
      if (sync) loop.transferSync(KIND.WRITE, 1, 0, 0, 16, bytes(16, 1), "'v'");
      else await write(loop, bytes(16, 1));
      expect(core.running).toBe(0);
    }
  });

  it('that fail again and again neither spin nor hang: those that wait get the failure', async () => {
    let tries = 0;
    const failures: Error[] = [];
    const { core, loop } = make(
      function* (ticket) {
        if (ticket.kind === KIND.WRITEOUT) {
          tries++;
          yield { plan: [{ op: OP.WRITE, device: DEVICE, address: DATA, length: 4096 }] };
          yield { failed: 3 };
        }
        if (ticket.kind === KIND.WRITE) for (;;) yield 'wait';
      },
      { backgroundFailed: (error) => failures.push(error) },
    );
    core.wanted = [KIND.WRITEOUT];
    await expect(write(loop, bytes(16, 1))).rejects.toMatchObject({ code: 'VARVE_IO', message: /what it waits for failed/ });
    expect(tries).toBeLessThan(4);
    expect(failures.length).toBe(tries);
  });

  it('that find nothing to do are not started again before something else happens', async () => {
    let started = 0;
    const { core, loop } = make(function* (ticket) {
      if (ticket.kind === KIND.COMPACT) started++;
      else yield { plan: [] };
    });
    core.wanted = [KIND.COMPACT];
    await flush(loop);
    expect(started).toBeLessThanOrEqual(2);
    await flush(loop);
    expect(started).toBeLessThanOrEqual(4);
  });

  it('that found nothing to do are started again before those that wait are given up', async () => {
    let flushes = 0;
    const { core, loop } = make(function* (ticket) {
      if (ticket.kind === KIND.WRITE) while (flushes < 2) yield 'wait';
      if (ticket.kind !== KIND.FLUSH || ++flushes < 2) return; // the first finds that another flush had covered all
      core.wanted = [];
      yield { plan: [{ op: OP.FLUSH, device: DEVICE }] };
    });
    core.wanted = [KIND.FLUSH];
    await write(loop, bytes(16, 1));
    expect(flushes).toBe(2);
  });

  it('do not take over a synchronous call', () => {
    let started = 0;
    const { core, loop } = make(
      function* (ticket) {
        if (ticket.kind === KIND.COMPACT) {
          started++;
          yield { plan: [{ op: OP.READ, device: DEVICE, address: DATA, length: 4096 }] };
        }
      },
      { sync: true },
    );
    core.wanted = [KIND.COMPACT]; // for ever
    loop.transferSync(KIND.FLUSH, 0, 0, 0, 0, undefined, "'v'");
    expect(started).toBe(1);
  });
});

describe('growth', () => {
  const waiting: FakeScript = function* (ticket, core) {
    if (ticket.kind !== KIND.WRITE) return;
    while (core.volumeWanted !== 0) {
      if (core.growthsDenied > 0) {
        yield { failed: 1 };
        return;
      }
      yield 'wait';
    }
  };

  it('is asked for once, and the waiting write goes on when it is granted', async () => {
    let asked = 0;
    const { core, loop } = make(waiting, {
      growth: async () => {
        asked++;
        await turns(3);
        core.volumeWanted = 0;
        loop.progressed(true);
        return true;
      },
    });
    core.volumeWanted = 2;
    await Promise.all([write(loop, bytes(16, 1)), write(loop, bytes(16, 2))]);
    expect(asked).toBe(1);
    expect(core.growthsDenied).toBe(0);
  });

  it('denied, the waiting write fails with VARVE_NO_SPACE', async () => {
    const { core, loop } = make(waiting, { growth: () => Promise.resolve(false) });
    core.volumeWanted = 2;
    await expect(write(loop, bytes(16, 1))).rejects.toMatchObject({ code: 'VARVE_NO_SPACE' });
    expect(core.growthsDenied).toBe(1);
  });

  it('that is promised and not done counts as denied', async () => {
    const { core, loop } = make(waiting, { growth: () => Promise.resolve(true) });
    core.volumeWanted = 2;
    await expect(write(loop, bytes(16, 1))).rejects.toMatchObject({ code: 'VARVE_NO_SPACE' });
  });

  it('whose hook throws counts as denied, and the error is told', async () => {
    const told = vi.fn();
    const { core, loop } = make(waiting, { growth: () => Promise.reject(new Error('no catalogue')), backgroundFailed: told });
    core.volumeWanted = 2;
    await expect(write(loop, bytes(16, 1))).rejects.toMatchObject({ code: 'VARVE_NO_SPACE' });
    expect(told).toHaveBeenCalledOnce();
  });

  it('wanted by policy and denied is not asked for with each write', async () => {
    const growth = vi.fn(() => Promise.resolve(false));
    const { core, loop } = make(plainScript, { growth });
    core.volumeWanted = 1;
    for (let count = 0; count < 5; count++) {
      await write(loop, bytes(16, 1));
      await turns();
    }
    expect(growth).toHaveBeenCalledOnce();
    loop.growthPossible();
    await turns();
    expect(growth).toHaveBeenCalledTimes(2);
  });

  it('denied before it became possible is asked for again', async () => {
    let asked = 0;
    const { core, loop } = make(waiting, {
      growth: async () => {
        if (++asked === 1) {
          await turns(2);
          loop.growthPossible(); // while the no is on its way
          return false;
        }
        core.volumeWanted = 0;
        loop.progressed(true);
        return true;
      },
    });
    core.volumeWanted = 2;
    await write(loop, bytes(16, 1));
    expect(asked).toBe(2);
    expect(core.growthsDenied).toBe(0);
  });

  it('in a synchronous call takes only what is there', () => {
    const { core, loop } = make(waiting, {
      sync: true,
      growth: () => Promise.reject(new Error('never asked')),
      growthSync: () => {
        core.volumeWanted = 0;
        loop.progressed(true);
        return true;
      },
    });
    core.volumeWanted = 2;
    loop.transferSync(KIND.WRITE, 1, 0, 0, 16, bytes(16, 1), "'v'");
    expect(core.growthsDenied).toBe(0);
  });
});

describe('a bug in the core', () => {
  it('kills the log: everything rejects with VARVE_INTERNAL, nothing is called any more', async () => {
    const device = new HeldDevice('1MiB');
    const { core, loop } = make(
      function* (ticket) {
        if (ticket.kind === KIND.READ) throw new WebAssembly.RuntimeError('unreachable');
        yield { plan: [{ op: OP.WRITE, device: DEVICE, address: DATA, length: 4096 }] };
      },
      {},
      device,
    );
    const flushed = flush(loop);
    const failed = flushed.catch((reason: unknown) => reason);
    await expect(read(loop, bytes(16, 0))).rejects.toMatchObject({ code: 'VARVE_INTERNAL', message: /unreachable/ });
    expect(await failed).toMatchObject({ code: 'VARVE_INTERNAL', cause: { message: 'unreachable' } });
    const step = vi.spyOn(core, 'step');
    const submit = vi.spyOn(core, 'submit');
    await expect(write(loop, bytes(16, 0))).rejects.toMatchObject({ code: 'VARVE_INTERNAL' });
    const idle = loop.idle();
    device.held[0]!();
    await idle;
    expect(step).not.toHaveBeenCalled();
    expect(submit).not.toHaveBeenCalled();
    expect(loop.dead).toBe(true);
  });

  it('in a completion rejects the client that waits for it', async () => {
    const { loop } = make(function* () {
      yield { plan: [{ op: OP.FLUSH, device: DEVICE }] };
      throw new WebAssembly.RuntimeError('unreachable');
    });
    await expect(flush(loop)).rejects.toMatchObject({ code: 'VARVE_INTERNAL' });
  });

  it('in a synchronous call throws', () => {
    const { loop } = make(
      function* () {
        yield { plan: [] };
        throw new WebAssembly.RuntimeError('unreachable');
      },
      { sync: true },
    );
    expect(() => loop.transferSync(KIND.FLUSH, 0, 0, 0, 0, undefined, "'v'")).toThrow(/a bug in Varve/);
  });
});

describe('a lock that is lost', () => {
  it('is seen before the device is flushed, and ends the log', async () => {
    for (const sync of [false, true]) {
      const device = new MemoryDevice('1MiB');
      const flushDevice = vi.spyOn(device, sync ? 'flushSync' : 'flush');
      const { loop } = make(
        function* () {
          yield { plan: [{ op: OP.FLUSH, device: DEVICE }] };
        },
        { sync, fence: () => new VarveError('VARVE_FENCED', 'flush') },
        device,
      );
      if (sync) expect(() => loop.transferSync(KIND.FLUSH, 0, 0, 0, 0, undefined, "'v'")).toThrow(/taken over/);
      else await expect(flush(loop)).rejects.toMatchObject({ code: 'VARVE_FENCED' });
      expect(flushDevice).not.toHaveBeenCalled();
      await expect(flush(loop)).rejects.toMatchObject({ code: 'VARVE_FENCED' });
    }
  });
});

describe('a hook that throws', () => {
  it('when it hears of a change does not end the process', async () => {
    const told = vi.fn();
    const changed = vi.fn(() => {
      throw new Error('the pool is confused');
    });
    const { loop } = make(plainScript, { changed, backgroundFailed: told });
    await loop.run(KIND.CHECKPOINT, 0, 0, undefined, "'v'");
    await turns();
    expect(changed).toHaveBeenCalledOnce();
    expect(told).toHaveBeenCalledWith(new Error('the pool is confused'));
  });
});

describe('a client that gives up', () => {
  const slow: FakeScript = function* (ticket) {
    yield { plan: [{ op: OP.FLUSH, device: DEVICE }] };
    yield { plan: [{ op: ticket.kind === KIND.WRITE ? OP.COPY_IN : OP.COPY_OUT, address: DATA, length: ticket.length }] };
  };

  it('before the call changes nothing', async () => {
    const { core, loop } = make(slow);
    const submit = vi.spyOn(core, 'submit');
    await expect(write(loop, bytes(16, 1), AbortSignal.abort(new Error('no')))).rejects.toThrow('no');
    expect(submit).not.toHaveBeenCalled();
  });

  it('has its buffer to itself at once; the write goes on with the bytes of the moment', async () => {
    const device = new HeldDevice('1MiB');
    const { core, loop, memory } = make(slow, {}, device);
    const controller = new AbortController();
    const from = bytes(16, 4);
    const written = write(loop, from, controller.signal);
    controller.abort();
    from.fill(99);
    await expect(written).rejects.toMatchObject({ name: 'AbortError' });
    device.held[0]!();
    await turns();
    expect(core.running).toBe(0);
    expect(memory.bytes[DATA]).toBe(4);
  });

  it('does not find a read in its buffer later', async () => {
    const device = new HeldDevice('1MiB');
    const { core, loop, memory } = make(slow, {}, device);
    memory.bytes.fill(8, DATA, DATA + 16);
    const controller = new AbortController();
    const into = bytes(16, 1);
    const done = read(loop, into, controller.signal);
    controller.abort();
    await expect(done).rejects.toMatchObject({ name: 'AbortError' });
    device.held[0]!();
    await turns();
    expect(core.running).toBe(0);
    expect(into.every((byte) => byte === 1)).toBe(true);
  });

  it('while it is queued is never submitted', async () => {
    const device = new HeldDevice('1MiB');
    const { core, loop } = make(slow, {}, device);
    core.ticketsMax = 1;
    const first = write(loop, bytes(16, 1));
    const controller = new AbortController();
    const second = write(loop, bytes(16, 2), controller.signal);
    controller.abort();
    await expect(second).rejects.toMatchObject({ name: 'AbortError' });
    const submit = vi.spyOn(core, 'submit');
    device.held[0]!();
    await first;
    expect(submit).not.toHaveBeenCalled();
  });

  it('and takes its buffer away gets a TypeError, and nothing strange is written', async () => {
    const device = new HeldDevice('1MiB');
    const { core, loop, memory } = make(slow, {}, device);
    memory.bytes.fill(8, DATA, DATA + 16);
    const from = bytes(16, 4);
    const written = write(loop, from);
    structuredClone(from.buffer, { transfer: [from.buffer as ArrayBuffer] });
    device.held[0]!();
    await expect(written).rejects.toBeInstanceOf(TypeError);
    expect(memory.bytes.subarray(DATA, DATA + 16).every((byte) => byte === 0)).toBe(true);
    expect(core.running).toBe(0);
    expect(loop.dead).toBe(false);
  });

  it('leaves no listener behind', async () => {
    const { loop } = make(slow);
    const controller = new AbortController();
    const remove = vi.spyOn(controller.signal, 'removeEventListener');
    await write(loop, bytes(16, 1), controller.signal);
    expect(remove).toHaveBeenCalledOnce();
  });
});

describe('the end', () => {
  it('quiet comes when no client waits, idle when no command is in flight', async () => {
    const device = new HeldDevice('1MiB');
    const { loop } = make(
      function* () {
        yield { plan: [{ op: OP.FLUSH, device: DEVICE }] };
      },
      {},
      device,
    );
    const order: string[] = [];
    const flushed = flush(loop).then(() => order.push('flushed'));
    const quiet = loop.quiet().then(() => order.push('quiet'));
    await turns();
    expect(order).toEqual([]);
    device.held[0]!();
    await Promise.all([flushed, quiet]);
    expect(order.toSorted()).toEqual(['flushed', 'quiet']);
    await loop.idle();
  });

  it('stopped, it rejects those that wait and steps nothing', async () => {
    const device = new HeldDevice('1MiB');
    const { core, loop } = make(
      function* () {
        yield { plan: [{ op: OP.FLUSH, device: DEVICE }] };
      },
      {},
      device,
    );
    const flushed = flush(loop);
    loop.stop('VARVE_CLOSED');
    await expect(flushed).rejects.toMatchObject({ code: 'VARVE_CLOSED' });
    const complete = vi.spyOn(core, 'complete');
    device.held[0]!();
    await loop.idle();
    expect(complete).not.toHaveBeenCalled();
    expect(isVarveError(await write(loop, bytes(16, 1)).catch((reason: unknown) => reason), 'VARVE_CLOSED')).toBe(true);
  });

  it('refuses synchronous calls where the log is asynchronous', () => {
    const { loop } = make(plainScript);
    expect(() => loop.transferSync(KIND.FLUSH, 0, 0, 0, 0, undefined, "'v'")).toThrow(VarveError);
  });

  it('in sync mode the asynchronous calls work too', async () => {
    const { loop } = make(plainScript, { sync: true });
    await write(loop, bytes(16, 9));
    const into = bytes(16, 0);
    await read(loop, into);
    expect(into[15]).toBe(9);
  });
});
