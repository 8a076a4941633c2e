import { describe, expect, test } from 'vitest';
import { type Change, type ModelSource, type Observation, ReferenceModel } from '../../src/testing/model.ts';

const UNITS = 200;

function make(): { model: ReferenceModel; source: ModelSource } {
  const model = new ReferenceModel(UNITS);
  const source = model.source(1, 'a', 64);
  const change = model.beginCreate('create', source, 64);
  model.acknowledge(change);
  model.sealed();
  return { model, source };
}

function write(model: ReferenceModel, source: ModelSource, at: number, count: number, acknowledge = true): Change & { stamp: number } {
  const stamp = model.stamps(count, `w${model.time}`);
  const change = model.beginWrite('write', source, at, count, stamp);
  if (acknowledge) model.acknowledge(change);
  return Object.assign(change, { stamp });
}

/** What is there after a cut: the size, and these stamps from these sectors on. */
function seen(source: ModelSource, runs: readonly [at: number, first: number, count: number][]): Observation {
  const values = new Uint32Array(UNITS);
  values[source.sizeUnit] = 64;
  for (const [at, first, count] of runs) for (let i = 0; i < count; i++) values[source.first + at + i] = first === 0 ? 0 : first + i;
  return { values, known: new Uint8Array(UNITS).fill(1) };
}

describe('reading', () => {
  test('a unit holds what was acknowledged last, and nothing else', () => {
    const { model, source } = make();
    const a = write(model, source, 0, 16);
    const b = write(model, source, 8, 8);
    expect(model.allowed(undefined, source.first, a.stamp)).toBe(true);
    expect(model.allowed(undefined, source.first + 8, b.stamp)).toBe(true);
    expect(model.allowed(undefined, source.first + 8, a.stamp + 8)).toBe(false);
    expect(model.allowed(undefined, source.first + 16, 0)).toBe(true);
  });

  test('a read that runs beside a write may see either', () => {
    const { model, source } = make();
    const a = write(model, source, 0, 8);
    const probe = model.probe(source.first, 8);
    const b = write(model, source, 0, 8, false);
    expect(model.allowed(probe, source.first, a.stamp)).toBe(true);
    expect(model.allowed(probe, source.first, b.stamp)).toBe(true);
    model.acknowledge(b);
    expect(model.allowed(probe, source.first, a.stamp)).toBe(true);
    expect(model.allowed(undefined, source.first, a.stamp)).toBe(false);
    model.endProbe(probe);
  });

  test('of two concurrent writes either may be the last, until a third settles it or it was read', () => {
    const { model, source } = make();
    const a = write(model, source, 0, 8, false);
    const b = write(model, source, 0, 8, false);
    model.acknowledge(b);
    model.acknowledge(a);
    expect(model.allowed(undefined, source.first, a.stamp)).toBe(true);
    expect(model.allowed(undefined, source.first, b.stamp)).toBe(true);
    expect(model.allowed(undefined, source.first, 0)).toBe(false);
    model.settle(source.first, b.stamp);
    expect(model.allowed(undefined, source.first, a.stamp)).toBe(false);
    const c = write(model, source, 0, 8);
    expect(model.allowed(undefined, source.first + 1, c.stamp + 1)).toBe(true);
    expect(model.allowed(undefined, source.first + 1, a.stamp + 1)).toBe(false);
  });

  test('a failed write may have come to pass or not', () => {
    const { model, source } = make();
    const a = write(model, source, 0, 8);
    const b = write(model, source, 0, 8, false);
    model.fail(b, true);
    expect(model.allowed(undefined, source.first, a.stamp)).toBe(true);
    expect(model.allowed(undefined, source.first, b.stamp)).toBe(true);
  });
});

describe('power cuts', () => {
  test('any prefix of writes one after the other is a cut; a later one without the earlier is not', () => {
    const runs = (model: ReferenceModel, source: ModelSource): [number, number, number][] =>
      [0, 8, 16].map((at) => [at, write(model, source, at, 8).stamp, 8]);
    for (const count of [0, 1, 2, 3]) {
      const { model, source } = make();
      expect(model.adopt(seen(source, runs(model, source).slice(0, count)))).toBeUndefined();
    }
    const { model, source } = make();
    expect(model.adopt(seen(source, runs(model, source).slice(1)))).toContain('no cut');
  });

  test('what was flushed must be there', () => {
    const { model, source } = make();
    const a = write(model, source, 0, 8);
    const since = ++model.time;
    const b = write(model, source, 8, 8);
    model.flushed(since);
    expect(model.adopt(seen(source, [[0, a.stamp, 8]]))).toBeUndefined();
    const other = make();
    write(other.model, other.source, 0, 8);
    other.model.flushed(++other.model.time);
    expect(other.model.adopt(seen(other.source, []))).toContain('no cut');
    expect(b.stamp).toBeGreaterThan(a.stamp);
  });

  test('a durable change brings all that precedes it, but not what ran beside it', () => {
    const { model, source } = make();
    const a = write(model, source, 0, 8);
    const b = write(model, source, 8, 8, false);
    const c = write(model, source, 16, 8);
    model.acknowledge(b);
    model.durable(c);
    expect(
      model.adopt(
        seen(source, [
          [0, a.stamp, 8],
          [16, c.stamp, 8],
        ]),
      ),
    ).toBeUndefined();
    const other = make();
    write(other.model, other.source, 0, 8);
    const d = write(other.model, other.source, 16, 8);
    other.model.durable(d);
    expect(other.model.adopt(seen(other.source, [[16, d.stamp, 8]]))).toContain('no cut');
  });

  test('a large write may be cut at a block, from the front', () => {
    const { model, source } = make();
    const a = write(model, source, 0, 24, false);
    expect(model.adopt(seen(source, [[0, a.stamp, 16]]))).toBeUndefined();
    const other = make();
    const b = write(other.model, other.source, 0, 24, false);
    expect(other.model.adopt(seen(other.source, [[8, b.stamp + 8, 16]]))).toContain('no cut');
    const torn = make();
    const c = write(torn.model, torn.source, 0, 24, false);
    expect(torn.model.adopt(seen(torn.source, [[0, c.stamp, 4]]))).toContain('no cut');
  });

  test('concurrent writes may come in either order, each cut anywhere', () => {
    for (const [first, second] of [
      [true, false],
      [false, true],
      [true, true],
      [false, false],
    ] as const) {
      const { model, source } = make();
      const a = write(model, source, 0, 8, false);
      const b = write(model, source, 8, 8, false);
      model.acknowledge(b);
      const runs: [number, number, number][] = [];
      if (first) runs.push([0, a.stamp, 8]);
      if (second) runs.push([8, b.stamp, 8]);
      expect(model.adopt(seen(source, runs))).toBeUndefined();
    }
  });

  test('a trim that ran beside a write explains zeros, and one that came before it does not', () => {
    const { model, source } = make();
    write(model, source, 0, 8);
    const trim = model.beginTrim('trim', source, 0, 8);
    model.acknowledge(trim);
    const b = write(model, source, 8, 8);
    expect(model.adopt(seen(source, [[8, b.stamp, 8]]))).toBeUndefined();
    const other = make();
    const earlier = other.model.beginTrim('trim', other.source, 0, 8);
    other.model.acknowledge(earlier);
    write(other.model, other.source, 0, 8);
    const last = write(other.model, other.source, 8, 8);
    expect(other.model.adopt(seen(other.source, [[8, last.stamp, 8]]))).toContain('no cut');
  });

  test('a size that shrinks takes the tail with it, zeroed first', () => {
    const { model, source } = make();
    const a = write(model, source, 0, 64);
    model.flushed(++model.time);
    model.beginResize('resize', source, 32);
    expect(model.adopt(seen(source, [[0, a.stamp, 40]]))).toBeUndefined(); // half of the tail zeroed, the size not changed yet
    const other = make();
    const b = write(other.model, other.source, 0, 64);
    other.model.flushed(++other.model.time);
    other.model.beginResize('resize', other.source, 32);
    const observation = seen(other.source, [[0, b.stamp, 64]]);
    observation.values[other.source.sizeUnit] = 32;
    expect(other.model.adopt(observation)).toContain('no cut'); // the size without the zeros
  });

  test('in doubt, the last flush group may be gone, and no more', () => {
    for (const [kept, fine] of [
      [2, true],
      [1, true],
      [0, false],
    ] as const) {
      const { model, source } = make();
      model.doubtedGroups = 1;
      const runs: [number, number, number][] = [0, 8].map((at) => {
        const { stamp } = write(model, source, at, 8);
        model.flushed(++model.time);
        return [at, stamp, 8];
      });
      const answer = model.adopt(seen(source, runs.slice(0, kept)));
      expect(answer === undefined).toBe(fine);
    }
  });

  test('what could not be read fits everything', () => {
    const { model, source } = make();
    write(model, source, 0, 8);
    model.flushed(++model.time);
    const observation = seen(source, []);
    observation.known.fill(0, source.first, source.first + 8);
    expect(model.adopt(observation)).toBeUndefined();
  });
});

describe('snapshots', () => {
  test('hold what was there when they were taken, while writing goes on', () => {
    const { model, source } = make();
    const a = write(model, source, 0, 8);
    const snapshot = model.beginSnapshot('snapshot', 1, 's', 5, [source]);
    model.acknowledge(snapshot.change);
    write(model, source, 0, 8);
    expect(model.checkSnapshot(snapshot, seen(source, [[0, a.stamp, 8]]))).toBeUndefined();
    expect(model.checkSnapshot(snapshot, seen(source, []))).toContain("snapshot 's'");
  });

  test('a write beside it may be in it; once read, it is so for ever', () => {
    const { model, source } = make();
    const a = write(model, source, 0, 8, false);
    const snapshot = model.beginSnapshot('snapshot', 1, 's', 5, [source]);
    const b = write(model, source, 8, 8);
    model.acknowledge(snapshot.change);
    const c = write(model, source, 16, 8);
    model.acknowledge(a);
    expect(model.checkSnapshot(snapshot, seen(source, [[16, c.stamp, 8]]))).toBeDefined();
    expect(model.checkSnapshot(snapshot, seen(source, [[8, b.stamp, 8]]))).toBeUndefined();
    expect(
      model.checkSnapshot(
        snapshot,
        seen(source, [
          [0, a.stamp, 8],
          [8, b.stamp, 8],
        ]),
      ),
    ).toBeDefined();
  });

  test('is a cut as well: not the later of two writes without the earlier', () => {
    const { model, source } = make();
    const snapshot = model.beginSnapshot('snapshot', 1, 's', 5, [source]);
    write(model, source, 0, 8);
    const b = write(model, source, 8, 8);
    model.acknowledge(snapshot.change);
    expect(model.checkSnapshot(snapshot, seen(source, [[8, b.stamp, 8]]))).toBeDefined();
  });

  test('one that was not acknowledged is there after a cut or not, with all that precedes it', () => {
    for (const there of [0, 1]) {
      const { model, source } = make();
      const a = write(model, source, 0, 8);
      const snapshot = model.beginSnapshot('snapshot', 1, 's', 5, [source]);
      const observation = seen(source, [[0, a.stamp, 8]]);
      observation.values[snapshot.presentUnit] = there;
      expect(model.adopt(observation)).toBeUndefined();
      expect(model.snapshots).toHaveLength(there);
    }
    const { model, source } = make();
    write(model, source, 0, 8);
    const snapshot = model.beginSnapshot('snapshot', 1, 's', 5, [source]);
    const observation = seen(source, []);
    observation.values[snapshot.presentUnit] = 1;
    expect(model.adopt(observation)).toContain('no cut');
  });

  test('a rollback puts the contents back and keeps those that were left', () => {
    const { model, source } = make();
    const a = write(model, source, 0, 8);
    const snapshot = model.beginSnapshot('snapshot', 1, 's', 5, [source]);
    model.acknowledge(snapshot.change);
    const b = write(model, source, 0, 16);
    const automatic = model.beginRollback('rollback', snapshot, 'auto', 6, [source]);
    model.acknowledge(automatic.change);
    expect(model.allowed(undefined, source.first, a.stamp)).toBe(true);
    expect(model.allowed(undefined, source.first + 8, 0)).toBe(true);
    expect(model.checkSnapshot(automatic, seen(source, [[0, b.stamp, 16]]))).toBeUndefined();
  });
});
