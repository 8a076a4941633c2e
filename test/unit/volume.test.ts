import { describe, expect, it } from 'vitest';
import { MemoryDevice } from '../../src/device/memory.ts';
import { isSyncDevice, type StorageDevice } from '../../src/device/device.ts';
import { FaultDevice } from '../../src/device/wrap/fault.ts';
import { VarveError } from '../../src/errors.ts';
import type { DiffRun } from '../../src/volume/diff.ts';
import { Log } from '../../src/volume/log.ts';
import { nextTask } from '../../src/turn.ts';
import { VirtualVolume } from '../../src/volume/volume.ts';
import { deviceConformance } from '../../src/testing/conformance.ts';
import { createLog, KEY, openLog, pattern, POLICY, readBack, storageVolume, UUID } from './log-fixture.ts';

const BLOCK = 4096;

async function all<T>(values: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = [];
  for await (const value of values) list.push(value);
  return list;
}

const blocks = (runs: DiffRun[]): [number, number, string][] =>
  runs.map(({ offset, length, kind }) => [offset / BLOCK, length / BLOCK, kind]);

/** Runs full when it is told so. */
class FullDevice extends MemoryDevice {
  full = false;
  override write(offset: number, from: Uint8Array): Promise<void> {
    return this.full ? Promise.reject(new VarveError('VARVE_NO_SPACE', 'writing')) : super.write(offset, from);
  }
}

/** Keeps writes back when it is told so, to fail them one by one. */
class HoldingDevice extends MemoryDevice {
  holding = false;
  readonly held: (() => void)[] = [];
  override write(offset: number, from: Uint8Array): Promise<void> {
    if (!this.holding) return super.write(offset, from);
    return new Promise((_, reject) => this.held.push(() => reject(new VarveError('VARVE_IO', 'writing'))));
  }
}

/** Keeps reads back when it is told so. */
class WaitingDevice extends MemoryDevice {
  waiting = false;
  readonly waiters: (() => void)[] = [];
  override async read(offset: number, into: Uint8Array): Promise<void> {
    if (this.waiting) await new Promise<void>((resolve) => this.waiters.push(resolve));
    return super.read(offset, into);
  }
  goOn(): void {
    this.waiting = false;
    for (const resume of this.waiters.splice(0)) resume();
  }
}

/** A log in which every read goes to the device, and waits. */
async function waiting(virtualBytes: number): Promise<{ device: WaitingDevice; log: Log; volume: VirtualVolume }> {
  const device = new WaitingDevice('16MiB');
  const made = await createLog({ devices: [device], virtualBytes });
  await made.volume.write(0, new Uint8Array(virtualBytes).fill(0xaa));
  await made.log.close();
  const { log, volume } = await openLog(made.volumes);
  await volume.read(0, new Uint8Array(1)); // sums are loaded
  device.waiting = true;
  return { device, log, volume };
}

deviceConformance(
  'a virtual volume',
  async () => {
    const { log, volume } = await createLog();
    return { device: volume, release: () => log.close() };
  },
  { describe, it },
  { anyRange: true },
);

deviceConformance(
  'a virtual volume in sync mode',
  async () => {
    const { log, volume } = await createLog({ sync: true });
    return { device: volume, release: () => log.close() };
  },
  { describe, it },
  { anyRange: true },
);

deviceConformance(
  'a snapshot view',
  async () => {
    const { log, volume } = await createLog();
    await volume.write(0, pattern(100_000, 1));
    await volume.snapshot('s');
    return { device: volume.at('s'), release: () => log.close() };
  },
  { describe, it },
  { anyRange: true, readOnly: true },
);

describe('a virtual volume', () => {
  it('reads zero where nothing was written', async () => {
    const { log, volume } = await createLog();
    expect((await readBack(volume, 12345, 99_999)).every((byte) => byte === 0)).toBe(true);
    expect(volume.sizeBytes).toBe(16 * 1024 * 1024);
    expect(volume.mappedBytes).toBe(0);
    await log.close();
  });

  it('shows flushed and unflushed writes alike', async () => {
    const { log, volume } = await createLog();
    const bytes = pattern(3_000_000, 2);
    await volume.write(5000, bytes);
    expect(await readBack(volume, 5000, bytes.length)).toEqual(bytes);
    await volume.flush();
    expect(await readBack(volume, 5000, bytes.length)).toEqual(bytes);
    await log.close();
  });

  it('discards: the range reads zero, and whole blocks are free', async () => {
    const { log, volume } = await createLog();
    await volume.write(0, pattern(16 * BLOCK, 3));
    expect(volume.mappedBytes).toBe(16 * BLOCK);
    await volume.discard(BLOCK + 100, 4 * BLOCK);
    const model = pattern(16 * BLOCK, 3);
    model.fill(0, BLOCK + 100, 5 * BLOCK + 100);
    expect(await readBack(volume, 0, model.length)).toEqual(model);
    expect(volume.mappedBytes).toBe(13 * BLOCK);
    await volume.trim(0, volume.sizeBytes);
    expect(volume.mappedBytes).toBe(0);
    await log.close();
  });

  it('is there again after it was closed, and after a crash as far as it was flushed', async () => {
    const { log, volume, volumes } = await createLog();
    const bytes = pattern(1_000_000, 4);
    await volume.write(777, bytes);
    await log.close();
    const second = await openLog(volumes);
    expect(await readBack(second.volume, 777, bytes.length)).toEqual(bytes);
    const more = pattern(500_000, 5);
    await second.volume.write(2_000_000, more);
    await second.volume.flush();
    await second.log.abandon();
    const third = await openLog(volumes);
    expect(await readBack(third.volume, 777, bytes.length)).toEqual(bytes);
    expect(await readBack(third.volume, 2_000_000, more.length)).toEqual(more);
    expect(third.log.figures().incarnation).toBeGreaterThan(1);
    await third.log.close();
  });

  it('closes idempotently; then everything rejects with VARVE_CLOSED', async () => {
    const { log, volume } = await createLog();
    await volume.write(0, pattern(100, 1));
    await Promise.all([log.close(), log.close()]);
    await expect(volume.read(0, new Uint8Array(1))).rejects.toMatchObject({ code: 'VARVE_CLOSED' });
    await expect(volume.write(0, new Uint8Array(1))).rejects.toMatchObject({ code: 'VARVE_CLOSED' });
    expect(() => volume.sizeBytes).toThrow(/closed/);
    await volume.close();
  });

  it('that failed does not close as if all were well', async () => {
    let lost: VarveError | undefined;
    const { log, volume } = await createLog({ fence: () => lost });
    await volume.write(0, pattern(BLOCK, 1));
    lost = new VarveError('VARVE_FENCED', 'flush');
    await expect(volume.flush()).rejects.toMatchObject({ code: 'VARVE_FENCED' });
    await expect(log.close()).rejects.toMatchObject({ code: 'VARVE_FENCED' });
    expect(log.closed).toBe(true);
  });

  it('resizes: what is cut off is gone for good', async () => {
    const { log, volume } = await createLog();
    await volume.write(0, new Uint8Array(100_000).fill(1));
    await volume.resize(50_001);
    expect(volume.sizeBytes).toBe(50_001);
    await expect(volume.read(50_001, new Uint8Array(1))).rejects.toBeInstanceOf(RangeError);
    await volume.resize('1MiB');
    const bytes = await readBack(volume, 0, 100_000);
    expect(bytes.subarray(0, 50_001).every((byte) => byte === 1)).toBe(true);
    expect(bytes.subarray(50_001).every((byte) => byte === 0)).toBe(true);
    await log.close();
  });

  it('opened for reading sees what was flushed and writes nothing', async () => {
    const { volume, log, volumes, devices } = await createLog();
    const bytes = pattern(100_000, 6);
    await volume.write(0, bytes);
    await volume.flush();
    await log.abandon();
    const guarded = devices.map(
      (device) =>
        new FaultDevice(device, (call) =>
          call.op === 'read' ? undefined : { kind: 'fail', error: new Error(`a ${call.op} in a log opened for reading`) },
        ),
    );
    const reader = await openLog(
      guarded.map((device, id) => ({ ...volumes[id]!, members: [device] })),
      { readOnly: true },
    );
    expect(await readBack(reader.volume, 0, bytes.length)).toEqual(bytes);
    await expect(reader.volume.write(0, bytes)).rejects.toMatchObject({ code: 'VARVE_READ_ONLY' });
    await reader.log.close();
  });

  describe('a long read', () => {
    const bytes = pattern(1024 * 1024, 9);
    const SEGMENT = 512;
    /** A MiB in the first record of a full segment and those after it; `fails` says which reads of it do, by slots of the segment. */
    async function onDevice(
      fails: (blocks: number, first: number) => boolean,
    ): Promise<{ volume: VirtualVolume; log: Log; reads: number[] }> {
      const { log, volume, volumes, devices } = await createLog({ size: '64MiB', segmentBlocks: SEGMENT });
      await volume.write(0, bytes);
      await volume.write(bytes.length, new Uint8Array(2 * bytes.length));
      await log.close();
      const reads: number[] = [];
      const guarded = new FaultDevice(devices[0]!, ({ op, offset, length }) => {
        const slot = ((offset - volumes[0]!.dataOffset) / BLOCK) % SEGMENT;
        if (op !== 'read' || slot < 2 || slot > 260) return undefined; // of the header, or of the footer, for the checksums
        reads.push(length / BLOCK);
        return fails(length / BLOCK, slot) ? { kind: 'fail' } : undefined;
      });
      const again = await openLog([{ ...volumes[0]!, members: [guarded] }], { readOnly: true });
      reads.length = 0;
      return { ...again, reads };
    }

    it('goes across the headers of records in one call', async () => {
      const { volume, log, reads } = await onDevice(() => false);
      expect(await readBack(volume, 0, bytes.length)).toEqual(bytes);
      expect(reads).toEqual([127 + 1 + 127 + 1 + 2]);
      await log.close();
    });

    it('does without the headers when they cannot be read', async () => {
      const header = 129; // of the second record with data; the first record of all made the source
      const { volume, log, reads } = await onDevice((count, first) => first <= header && first + count > header);
      expect(await readBack(volume, 0, bytes.length)).toEqual(bytes);
      expect(reads).toEqual([258, 127, 127, 2]);
      await log.close();
    });

    it('fails when a block that was asked for cannot be read, after one more try', async () => {
      const { volume, log, reads } = await onDevice((count, first) => first <= 130 && first + count > 130);
      await expect(volume.read(0, new Uint8Array(bytes.length))).rejects.toMatchObject({ code: 'VARVE_IO' });
      expect(reads).toEqual([258, 127, 127, 2]);
      expect(await readBack(volume, 0, 127 * BLOCK)).toEqual(bytes.subarray(0, 127 * BLOCK));
      await log.close();
    });
  });

  it('holds several sources', async () => {
    const { log, volume, volumes } = await createLog();
    const other = await volume.addSource('other', '1MiB');
    await volume.write(0, new Uint8Array(BLOCK).fill(1));
    await other.write(0, new Uint8Array(BLOCK).fill(2));
    expect((await readBack(volume, 0, 1))[0]).toBe(1);
    expect((await readBack(other, 0, 1))[0]).toBe(2);
    await expect(volume.addSource('other', 5)).rejects.toMatchObject({ code: 'VARVE_EXISTS' });
    await volume.snapshot('both');
    await volume.snapshot('one', { source: 'other' });
    expect(volume.snapshots().map(({ name, sources }) => [name, sources.map((source) => source.name)])).toEqual([
      ['both', ['default', 'other']],
      ['one', ['other']],
    ]);
    expect(() => volume.at('one')).toThrow(/does not have source 'default'/);
    await log.close();
    const again = await openLog(volumes);
    expect(again.volume.sources().map(({ name, sizeBytes }) => [name, sizeBytes])).toEqual([
      ['default', 16 * 1024 * 1024],
      ['other', 1024 * 1024],
    ]);
    expect((await readBack(again.volume.source('other').at('one'), 0, 1))[0]).toBe(2);
    expect(() => again.volume.source('none')).toThrow(/there is no such thing/);
    await again.volume.deleteSource('other');
    expect(again.volume.sources()).toHaveLength(1);
    await again.log.close();
  });

  it('takes an abort, and its buffer is the caller’s again', async () => {
    const { log, volume } = await createLog();
    await expect(volume.write(0, new Uint8Array(10), { signal: AbortSignal.abort() })).rejects.toMatchObject({ name: 'AbortError' });
    await volume.write(0, pattern(1_000_000, 1));
    await volume.flush();
    const controller = new AbortController();
    const into = new Uint8Array(1_000_000);
    const reading = volume.read(0, into, { signal: controller.signal });
    controller.abort();
    await reading.catch(() => undefined);
    const before = into.slice();
    await volume.flush();
    expect(into).toEqual(before);
    await log.close();
  });
});

describe('calls that meet', () => {
  it('what a resize cuts off stays cut off, whoever writes and resizes meanwhile', async () => {
    const { device, log, volume } = await waiting(7000);
    const cut = volume.resize(6000);
    await nextTask();
    const grown = volume.resize(20_000);
    const written = volume.write(6500, new Uint8Array(100).fill(0xbb));
    await nextTask();
    expect(device.waiters.length).toBe(1);
    device.goOn();
    await cut;
    await grown;
    const outcome = await written.then(
      () => 'written',
      (error: unknown) => error,
    );
    const bytes = await readBack(volume, 0, 20_000);
    const expected = new Uint8Array(20_000).fill(0xaa, 0, 6000);
    if (outcome === 'written') expected.fill(0xbb, 6500, 6600);
    else expect(outcome).toBeInstanceOf(RangeError);
    expect(Buffer.compare(bytes, expected)).toBe(0);
    await log.close();
  });

  it('a write to a source that is deleted does not reach the next one', async () => {
    const { device, log, volume } = await waiting(40_960);
    const written = volume.write(5000, new Uint8Array(100).fill(0xee));
    const outcome = written.then(
      () => 'written',
      (error: unknown) => error,
    );
    await nextTask();
    expect(device.waiters.length).toBe(1);
    await volume.deleteSource('default');
    const next = await volume.addSource('next', 40_960);
    await next.write(0, new Uint8Array(40_960).fill(0xbb));
    await next.flush();
    device.goOn();
    expect(await outcome).toMatchObject({ code: 'VARVE_NOT_FOUND' });
    expect((await readBack(next, 0, 40_960)).every((byte) => byte === 0xbb)).toBe(true);
    await log.close();
  });

  it('an aborted write whose buffer was transferred rejects, and nothing else happens', async () => {
    const { device, log, volume } = await waiting(8192);
    const control = new AbortController();
    const bytes = new Uint8Array(100).fill(1);
    const written = volume.write(10, bytes, { signal: control.signal });
    await nextTask();
    structuredClone(bytes, { transfer: [bytes.buffer] });
    control.abort(new Error('enough'));
    await expect(written).rejects.toThrow('enough');
    device.goOn();
    await volume.flush();
    const found = new Uint8Array(1);
    await volume.read(4096, found);
    expect(found[0]).toBe(0xaa);
    await log.close();
  });
});

describe('snapshots', () => {
  it('keep the state of their moment', async () => {
    const { log, volume, volumes } = await createLog();
    const first = pattern(200_000, 7);
    await volume.write(0, first);
    await volume.snapshot('first');
    const second = pattern(100_000, 8);
    await volume.write(50_000, second);
    await volume.snapshot('second', { createdAt: Date.UTC(2026, 10, 22) });
    await volume.discard(0, 200_000);

    const check = async (of: VirtualVolume): Promise<void> => {
      const both = first.slice();
      both.set(second, 50_000);
      expect(await readBack(of.at('first'), 0, first.length)).toEqual(first);
      expect(await readBack(of.at('second'), 0, both.length)).toEqual(both);
      expect((await readBack(of, 0, 200_000)).every((byte) => byte === 0)).toBe(true);
    };
    await check(volume);
    await log.checkpoint();
    await check(volume);
    await log.abandon(); // a snapshot is durable when its call returned, and so is what came with it; the discard is not
    const again = await openLog(volumes);
    expect(again.volume.snapshots().map((snapshot) => snapshot.name)).toEqual(['first', 'second']);
    expect(again.volume.snapshots()[1]!.createdAt).toEqual(new Date(Date.UTC(2026, 10, 22)));
    expect(await readBack(again.volume.at('first'), 0, first.length)).toEqual(first);
    await again.log.close();
  });

  it('have names that are unique, and errors for those that are not there', async () => {
    const { log, volume } = await createLog();
    await volume.snapshot('a');
    await expect(volume.snapshot('a')).rejects.toMatchObject({ code: 'VARVE_EXISTS' });
    await expect(volume.snapshot('a/b')).rejects.toBeInstanceOf(RangeError);
    await expect(volume.rollback('b')).rejects.toMatchObject({ code: 'VARVE_NOT_FOUND' });
    await expect(volume.deleteSnapshot('b')).rejects.toMatchObject({ code: 'VARVE_NOT_FOUND' });
    expect(() => volume.at('b')).toThrow(/there is no snapshot 'b'/);
    await log.close();
  });

  it('deleted, are gone, their views too; the others stay', async () => {
    const { log, volume } = await createLog();
    for (const [index, name] of ['a', 'b', 'c'].entries()) {
      await volume.write(0, pattern(BLOCK, index));
      await volume.snapshot(name);
    }
    const view = volume.at('b');
    await volume.deleteSnapshot('b');
    await expect(view.read(0, new Uint8Array(1))).rejects.toMatchObject({
      code: 'VARVE_NOT_FOUND',
      message: expect.stringContaining('was deleted'),
    });
    expect(await readBack(volume.at('a'), 0, BLOCK)).toEqual(pattern(BLOCK, 0));
    expect(await readBack(volume.at('c'), 0, BLOCK)).toEqual(pattern(BLOCK, 2));
    await log.close();
  });

  it('roll back, and forward again', async () => {
    const { log, volume, volumes } = await createLog();
    await volume.write(0, pattern(64 * BLOCK, 1));
    await volume.snapshot('monday');
    await volume.write(8 * BLOCK, pattern(8 * BLOCK, 2));
    await volume.resize('20MiB');
    const left = await volume.rollback('monday');
    expect(left).toMatch(/^before-monday-/);
    expect(volume.sizeBytes).toBe(16 * 1024 * 1024);
    expect(await readBack(volume, 0, 64 * BLOCK)).toEqual(pattern(64 * BLOCK, 1));
    expect(volume.snapshots().map(({ name, automatic }) => [name, automatic])).toEqual([
      ['monday', false],
      [left, true],
    ]);
    await volume.write(0, pattern(BLOCK, 3));
    expect(await readBack(volume.at('monday'), 0, BLOCK)).toEqual(pattern(BLOCK * 64, 1).subarray(0, BLOCK));
    await volume.rollback(left, { keepAs: 'undone' });
    expect(volume.sizeBytes).toBe(20 * 1024 * 1024);
    const model = pattern(64 * BLOCK, 1);
    model.set(pattern(8 * BLOCK, 2), 8 * BLOCK);
    expect(await readBack(volume, 0, model.length)).toEqual(model);
    await log.close();
    const again = await openLog(volumes);
    expect(await readBack(again.volume, 0, model.length)).toEqual(model);
    expect(await readBack(again.volume.at('undone'), 0, BLOCK)).toEqual(pattern(BLOCK, 3));
    await again.log.close();
  });
});

describe('a diff', () => {
  it('tells what changed, in ascending runs of one kind', async () => {
    const { log, volume } = await createLog();
    await volume.write(0, pattern(100 * BLOCK, 1));
    await volume.snapshot('a');
    await volume.write(10 * BLOCK, pattern(5 * BLOCK, 2));
    await volume.write(15 * BLOCK, pattern(5 * BLOCK, 3));
    await volume.discard(20 * BLOCK, 2 * BLOCK);
    await volume.write(2000 * BLOCK, pattern(BLOCK, 4));
    await volume.snapshot('b');
    await volume.write(0, pattern(1, 5));
    expect(blocks(await all(volume.diff('a', 'b')))).toEqual([
      [10, 10, 'data'],
      [20, 2, 'hole'],
      [2000, 1, 'data'],
    ]);
    expect(blocks(await all(volume.diff('b')))).toEqual([[0, 1, 'data']]);
    expect(blocks(await all(volume.diff('b', 'b')))).toEqual([]);
    expect(blocks(await all(volume.diff(null, 'a')))).toEqual([[0, 100, 'data']]);
    expect(() => volume.diff('a', 'x')).toThrow(/there is no snapshot 'x'/);
    await log.close();
  });

  it('ends with the state, though that is no whole block', async () => {
    const { log, volume } = await createLog({ virtualBytes: 10 * BLOCK + 100 });
    await volume.write(0, pattern(10 * BLOCK + 100, 1));
    expect(await all(volume.diff(null))).toEqual([{ offset: 0, length: 10 * BLOCK + 100, kind: 'data' }]);
    await log.close();
  });

  it('is not confused by another one, nor by writes meanwhile', async () => {
    const { log, volume } = await createLog();
    await volume.snapshot('a');
    for (let block = 0; block < 2000; block += 2) await volume.write(block * BLOCK, pattern(BLOCK, block));
    await volume.snapshot('b');
    const expected = await all(volume.diff('a', 'b'));
    expect(expected).toHaveLength(1000);
    const one = volume.diff('a', 'b');
    const two = volume.diff(null, 'b');
    const found: DiffRun[] = [];
    for (let count = 0; count < 1000; count++) {
      found.push((await one.next()).value as DiffRun);
      expect((await two.next()).value).toEqual(expected[count]);
      if (count % 100 === 0) await volume.write(count * BLOCK, pattern(2 * BLOCK, count));
    }
    expect(found).toEqual(expected);
    expect((await one.next()).done).toBe(true);
    await log.close();
  });

  it('over a rollback compares the states', async () => {
    const { log, volume } = await createLog();
    await volume.write(0, pattern(50 * BLOCK, 1));
    await volume.snapshot('a');
    await volume.write(10 * BLOCK, pattern(BLOCK, 2));
    await volume.snapshot('b');
    await volume.rollback('a');
    await volume.write(30 * BLOCK, pattern(BLOCK, 3));
    expect(blocks(await all(volume.diff('a')))).toEqual([[30, 1, 'data']]);
    expect(blocks(await all(volume.diff('b')))).toEqual([
      [10, 1, 'data'],
      [30, 1, 'data'],
    ]);
    await log.close();
  });

  it('fails when one of its snapshots is deleted under it, and goes on over other changes of snapshots', async () => {
    const { log, volume } = await createLog();
    await volume.snapshot('a');
    for (let block = 0; block < 2000; block += 2) await volume.write(block * BLOCK, pattern(BLOCK, block));
    await volume.snapshot('b');
    await volume.discard(0, 2000 * BLOCK);
    const expected = await all(volume.diff('a', 'b'));
    const found: DiffRun[] = [];
    for await (const run of volume.diff('a', 'b')) {
      found.push(run);
      if (found.length === 10) await volume.snapshot('c');
      if (found.length === 20) await volume.rollback('c', { keepAs: 'kept' });
      if (found.length === 30) await volume.deleteSnapshot('c');
    }
    expect(found).toEqual(expected);
    for (const name of ['a', 'b']) {
      const diff = volume.diff(name === 'a' ? 'a' : null, 'b');
      await diff.next();
      await volume.deleteSnapshot(name);
      await expect(all(diff)).rejects.toThrow(`snapshot '${name}' was deleted`);
    }
    await volume.write(0, pattern(BLOCK, 1));
    await volume.write(2 * BLOCK, pattern(BLOCK, 1));
    const diff = volume.diff(null);
    await diff.next();
    await volume.rollback('kept');
    await expect(all(diff)).rejects.toThrow(/was rolled back meanwhile/);
    await log.close();
  });

  it('can be aborted', async () => {
    const { log, volume } = await createLog();
    await expect(all(volume.diff(null, undefined, { signal: AbortSignal.abort() }))).rejects.toMatchObject({ name: 'AbortError' });
    await log.close();
  });
});

describe('a log', () => {
  it('takes many discards and then a large write, without a flush', async () => {
    const { log, volume } = await createLog({ size: '64MiB', virtualBytes: 32 * 1024 * 1024, segmentBlocks: 1024 });
    await volume.write(0, pattern(1_000_000, 1));
    await volume.flush();
    for (let block = 0; block < 120; block++) await volume.discard(block * BLOCK, BLOCK);
    const large = pattern(127 * BLOCK, 2);
    await volume.write(300 * BLOCK, large);
    await volume.flush();
    expect(await readBack(volume, 300 * BLOCK, large.length)).toEqual(large);
    expect((await readBack(volume, 0, 120 * BLOCK)).every((byte) => byte === 0)).toBe(true);
    await log.close();
  });

  it('goes on when it is overwritten many times: compaction makes room', async () => {
    const { log, volume, volumes } = await createLog({ size: '16MiB', virtualBytes: 8 * 1024 * 1024 });
    const model = new Map<number, number>();
    let state = 1;
    for (let count = 0; count < 12_000; count++) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      const block = (state >>> 8) % 1500;
      await volume.write(block * BLOCK, pattern(BLOCK, count));
      model.set(block, count);
      if (count % 64 === 63) await volume.flush();
    }
    for (const [block, seed] of model) expect(await readBack(volume, block * BLOCK, BLOCK)).toEqual(pattern(BLOCK, seed));
    const figures = volume.figures();
    expect(figures.liveBytes).toBeLessThan(figures.capacityBytes);
    expect(figures.movedBytes).toBeGreaterThan(0);
    expect(await log.check()).toEqual([]);
    await log.close();
    const reader = await openLog(volumes, { readOnly: true });
    expect(await reader.log.check()).toEqual([]);
    await reader.log.close();
  }, 60_000);

  it('full, fails the write with VARVE_NO_SPACE and nothing else; after a discard it goes on', async () => {
    const { log, volume, volumes } = await createLog({ size: '8MiB', virtualBytes: 64 * 1024 * 1024 });
    let written = 0;
    let error: unknown;
    try {
      for (; written < 4000; written++) await volume.write(written * BLOCK, pattern(BLOCK, written));
    } catch (reason) {
      error = reason;
    }
    expect(error).toMatchObject({ code: 'VARVE_NO_SPACE' });
    expect(written).toBeGreaterThan(800);
    expect(await readBack(volume, 0, BLOCK)).toEqual(pattern(BLOCK, 0));
    await volume.flush();
    await volume.discard(0, (written / 2) * BLOCK - (((written / 2) * BLOCK) % BLOCK));
    await volume.flush();
    await volume.write(0, pattern(BLOCK, 99));
    await log.close();
    const again = await openLog(volumes);
    expect(await readBack(again.volume, 0, BLOCK)).toEqual(pattern(BLOCK, 99));
    expect(await readBack(again.volume, (written - 1) * BLOCK, BLOCK)).toEqual(pattern(BLOCK, written - 1));
    await again.log.close();
  }, 60_000);

  it('writes again when its device has space again, without being told to flush', async () => {
    const device = new FullDevice('32MiB');
    const { log, volume, volumes } = await createLog({ devices: [device], geometry: { unflushedLimitBytes: 1 << 20 } });
    const chunk = 16 * BLOCK;
    device.full = true;
    let written = 0;
    let error: unknown;
    while (error === undefined && written < 200) {
      await volume.write(written * chunk, pattern(chunk, written)).then(
        () => written++,
        (reason: unknown) => (error = reason),
      );
    }
    expect(error).toMatchObject({ code: 'VARVE_NO_SPACE' });
    device.full = false;
    // The first ones may still be told of what failed before.
    for (let tries = 0; error !== undefined; tries++) {
      expect(tries).toBeLessThan(10);
      error = undefined;
      await volume.write(written * chunk, pattern(chunk, written)).catch((reason: unknown) => (error = reason));
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    await log.close();
    const again = await openLog(volumes);
    for (let at = 0; at <= written; at++) expect(await readBack(again.volume, at * chunk, chunk)).toEqual(pattern(chunk, at));
    await again.log.close();
  });

  it('outlives a device that fails once under a flush and a write-out at the same time', async () => {
    const device = new HoldingDevice('64MiB');
    const { log, volume, volumes } = await createLog({ devices: [device] });
    const chunk = 16 * BLOCK;
    const turn = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 10));
    // The memory grows now: later it would wait for the device.
    for (let at = 0; at < 48; at++) await volume.write(at * chunk, pattern(chunk, at + 48));
    await volume.flush();
    device.holding = true;
    await volume.write(0, pattern(chunk, 0));
    const flushed = volume.flush();
    await turn();
    expect(device.held).toHaveLength(1); // the flush's write
    let written = 1;
    for (; device.held.length < 2; written++) await volume.write(written * chunk, pattern(chunk, written)); // and those of the write-out
    expect(written).toBeLessThan(48);
    device.holding = false;
    for (const fail of device.held) {
      fail();
      await turn();
    }
    await flushed;
    expect(log.figures().failedReadOnly).toBe(false);
    await log.close();
    const again = await openLog(volumes);
    for (let at = 0; at < 48; at++)
      expect(await readBack(again.volume, at * chunk, chunk)).toEqual(pattern(chunk, at < written ? at : at + 48));
    await again.log.close();
  });

  it('grows by a storage volume when it needs one', async () => {
    const added: StorageDevice[] = [];
    const fixture = await createLog({
      size: '8MiB',
      virtualBytes: 64 * 1024 * 1024,
      growth: async () => {
        await Promise.resolve();
        if (added.length === 2) return false;
        const device = new MemoryDevice('8MiB');
        added.push(device);
        fixture.log.addVolume(storageVolume(added.length, device));
        return true;
      },
    });
    const { volume, log } = fixture;
    for (let block = 0; block < 3000; block++) await volume.write(block * BLOCK, pattern(BLOCK, block));
    expect(added.length).toBeGreaterThan(0);
    expect(log.volumes()).toHaveLength(1 + added.length);
    const volumes = log.volumes();
    await log.close();
    const again = await openLog([...volumes]);
    for (let block = 0; block < 3000; block += 37)
      expect(await readBack(again.volume, block * BLOCK, BLOCK)).toEqual(pattern(BLOCK, block));
    await again.log.close();
  }, 60_000);

  it('gives a storage volume back: evacuated, released, removed', async () => {
    const devices = [new MemoryDevice('16MiB'), new MemoryDevice('16MiB')];
    const { volume, log } = await createLog({ devices });
    const bytes = pattern(8 * 1024 * 1024, 1);
    await volume.write(0, bytes);
    await volume.flush();
    log.evacuateVolume(0);
    for (let turn = 0; turn < 10_000 && log.volumeState(0) !== 'released'; turn++) await nextTask();
    expect(log.volumeState(0)).toBe('released');
    log.removeVolume(0);
    await devices[0]!.close();
    expect(await readBack(volume, 0, bytes.length)).toEqual(bytes);
    const volumes = [...log.volumes()];
    await log.close();
    const again = await openLog(volumes);
    expect(await readBack(again.volume, 0, bytes.length)).toEqual(bytes);
    await again.log.close();
  }, 60_000);

  it('works synchronously from beginning to end', async () => {
    const device = new MemoryDevice('32MiB');
    const volumes = [storageVolume(0, device)];
    const log = Log.createSync({ name: 'v', uuid: UUID, key: KEY, volumes, policy: POLICY });
    await log.createSource(0, 'default', 1024 * 1024);
    const volume = new VirtualVolume(log, 'v', 0);
    expect(isSyncDevice(volume)).toBe(true);
    const bytes = pattern(70_000, 1);
    volume.writeSync(333, bytes, { fua: true });
    volume.flushSync();
    volume.discardSync(0, 400);
    const into = new Uint8Array(bytes.length);
    volume.readSync(333, into);
    const model = bytes.slice();
    model.fill(0, 0, 67);
    expect(into).toEqual(model);
    volume.flushSync();
    await log.abandon();
    const again = Log.openSync({ name: 'v', uuid: UUID, volumes, policy: POLICY });
    const into2 = new Uint8Array(bytes.length);
    new VirtualVolume(again, 'v', 0).readSync(333, into2);
    expect(into2).toEqual(model);
    await again.close();
  });

  it('finds damage when it reads, and when it checks', async () => {
    const { log, volume, volumes, devices } = await createLog();
    const bytes = pattern(256 * BLOCK, 1);
    await volume.write(0, bytes);
    await volume.flush();
    await log.checkpoint();
    // Somewhere in the medium is the block; one bit of it goes wrong.
    const device = devices[0]!;
    const needle = bytes.subarray(100 * BLOCK, 101 * BLOCK);
    const at = new Uint8Array(BLOCK);
    let found = -1;
    for (let offset = 0; offset + BLOCK <= device.sizeBytes; offset += BLOCK) {
      await device.read(offset, at);
      if (at.every((byte, index) => byte === needle[index])) {
        found = offset;
        break;
      }
    }
    expect(found).toBeGreaterThan(0);
    at[1234]! ^= 4;
    await device.write(found, at);
    await expect(readBack(volume, 100 * BLOCK, BLOCK)).rejects.toMatchObject({ code: 'VARVE_CORRUPT', volume: 0 });
    expect(await readBack(volume, 99 * BLOCK, BLOCK)).toEqual(bytes.subarray(99 * BLOCK, 100 * BLOCK));
    const problem = { failure: 2, structure: 'data', volume: 0, offset: found, bytes: BLOCK };
    expect(await log.check()).toMatchObject([problem]);
    await log.close();
    const reader = await openLog(volumes, { readOnly: true });
    expect(await reader.log.check()).toMatchObject([problem]);
    const ranges = await reader.log.usedRanges();
    expect(ranges.some((range) => range.structure === 'data' && range.offset <= found && found < range.offset + range.bytes)).toBe(true);
    await reader.log.close();
  });
});
