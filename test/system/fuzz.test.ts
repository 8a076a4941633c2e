// Hostile bytes: every decoder, fed with noise and with forgeries whose checksums are right. Typed errors in bounded time and memory, whatever comes (P7).
//
//   logs         roots, page trees, leaf images, state, segment table, records, footers: forged and sealed again, then opened, read, checked, written
//   pools        labels, catalogue frames and the JSON in them: the same through StoragePool
//
// A case is a number: VARVE_CASE=123 runs that one alone.
import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { compileCore, isVarveError, StoragePool } from '../../src/index.ts';
import { instantiateCoreSync } from '../../src/core/instantiate.ts';
import { Random } from '../../src/testing/random.ts';
import { mutate, sealedSum } from './forge.ts';
import { aims, LIMITS, makeBases, tryForgery, type Trial, tryOn } from './forgeries.ts';
import { amount, BLOCK, FULL, record, SEED } from './support.ts';
import { countingCore } from './refusals.ts';
import { BytesDevice, makeTinyPool } from './tiny-pool.ts';

const FORGERIES = amount(1500, 20_000);
const POOLS = amount(1500, 20_000);
const timeout = FULL ? 14_400_000 : 200_000;
const ONE = process.env['VARVE_CASE'];

/** What a pool may answer to made-up bytes. Not VARVE_INTERNAL: that is a trap. */
const ANSWERS = new Set([
  'VARVE_CORRUPT',
  'VARVE_UNSUPPORTED',
  'VARVE_NOT_FOUND',
  'VARVE_FENCED',
  'VARVE_IO',
  'VARVE_LIMIT',
  'VARVE_READ_ONLY',
]);

const cores = ['core', 'core.checked']
  .map((name) => ({ name, file: new URL(`../../build/${name}.wasm`, import.meta.url) }))
  .filter(({ file }) => existsSync(file));

describe.each(cores)('forged logs and $name', ({ name, file }) => {
  const module = new WebAssembly.Module(readFileSync(file));
  const count = name === 'core' ? FORGERIES : Math.ceil(FORGERIES / 3);

  it(`never trap, hang or flood it: ${count} cases from ${SEED}`, { timeout }, () => {
    const bases = makeBases(module);
    const first = ONE === undefined ? SEED : Number(ONE);
    const broken: Trial[] = [];
    const opened = new Map<number, number>();
    const kinds = new Set<string>();
    let pages = 0;
    let slowest = 0;
    for (let at = first; at < first + (ONE === undefined ? count : 1); at++) {
      const begun = performance.now();
      const trial = tryForgery(module, bases, at);
      slowest = Math.max(slowest, performance.now() - begun);
      pages = Math.max(pages, trial.pages);
      for (const kind of trial.kinds) kinds.add(kind);
      opened.set(trial.opened[0], (opened.get(trial.opened[0]) ?? 0) + 1);
      if (trial.broken !== undefined) broken.push(trial);
    }
    record('fuzz', {
      core: name,
      forgeries: count,
      opened: Object.fromEntries(opened),
      pagesMost: pages,
      slowestMilliseconds: Math.round(slowest),
      broken: broken.length,
    });
    const told = broken
      .slice(0, 10)
      .map((trial) => `case ${trial.seed} (${trial.base}: ${trial.kinds.join(', ')}) ${trial.at}: ${trial.broken}`);
    expect(told.join('\n'), `${broken.length} of ${count}`).toBe('');
    expect(pages).toBeLessThanOrEqual(LIMITS.pages);
    if (ONE !== undefined) return;
    expect(kinds).toEqual(new Set(['root', 'index', 'state', 'segments', 'leaves', 'header', 'footer']));
    // Neither all refused nor all accepted: the forgeries go deep.
    expect(opened.get(0) ?? 0).toBeGreaterThan(count / 10);
    expect(opened.get(2) ?? 0).toBeGreaterThan(count / 10);
  });
});

interface Codecs {
  readonly memory: WebAssembly.Memory;
  exchange(): number;
  labelDecode(from: number, fields: number): number;
  labelLayout(fields: number): number;
  labelEncode(fields: number, into: number): void;
  frameSize(from: number, capacity: number): number;
  frameDecode(from: number, capacity: number, fields: number): number;
  frameEncode(fields: number, into: number): number;
}

const FIELDS_BYTES = 4096;
const FORMAT_MOST = 6;
/** Blocks of the largest frame that is tried. */
const FRAME_BLOCKS = 3;

/** Labels and frames against their codecs alone. They lie at the very end of the memory: whoever reads on traps. */
class CodecFuzzer {
  readonly #codecs: Codecs;
  readonly #label: Uint8Array;
  readonly #frame: Uint8Array;
  readonly answers = new Map<string, number>();

  constructor(module: WebAssembly.Module) {
    this.#codecs = instantiateCoreSync<Codecs & object>(module);
    this.#codecs.memory.grow(1);
    const fields = this.#end(FIELDS_BYTES + BLOCK);
    const numbers = new DataView(this.#codecs.memory.buffer, fields, FIELDS_BYTES);
    for (const [at, value] of [
      [112, 1],
      [120, 1],
      [152, 1 << 20],
      [216, 1],
      [224, 1],
    ] as const)
      numbers.setFloat64(at, value, true);
    this.#codecs.labelLayout(fields);
    this.#codecs.labelEncode(fields, fields + FIELDS_BYTES);
    this.#label = new Uint8Array(this.#codecs.memory.buffer).slice(fields + FIELDS_BYTES, fields + FIELDS_BYTES + BLOCK);
    const room = this.#end(FIELDS_BYTES + FRAME_BLOCKS * BLOCK);
    new Uint8Array(this.#codecs.memory.buffer, room).fill(0x20);
    const frame = new DataView(this.#codecs.memory.buffer, room, FIELDS_BYTES);
    frame.setFloat64(48, 5, true);
    frame.setFloat64(56, 2 * BLOCK, true);
    const bytes = this.#codecs.frameEncode(room, room + FIELDS_BYTES);
    this.#frame = new Uint8Array(this.#codecs.memory.buffer).slice(room + FIELDS_BYTES, room + FIELDS_BYTES + bytes);
  }

  get exports(): object {
    return this.#codecs;
  }

  #end(bytes: number): number {
    return this.#codecs.memory.buffer.byteLength - bytes;
  }

  run(at: number): void {
    const random = new Random(at);
    const frame = random.chance(0.5);
    let bytes = (frame ? this.#frame : this.#label).slice();
    if (random.chance(0.1)) for (let i = 0; i < bytes.length; i++) bytes[i] = random.below(256);
    else if (!frame && random.chance(0.02)) {
      // Several members, and segments that are no whole stripes.
      const fields = new DataView(bytes.buffer);
      fields.setUint8(99, 3);
      fields.setUint8(100, random.pick([2, 4]));
      fields.setUint32(104, 1, true);
      fields.setUint32(108, 8 + random.below(60), true);
    } else
      for (let changes = 1 + random.below(3); changes > 0; changes--)
        mutate(bytes, 0, random.chance(0.9) ? (frame ? 128 : 192) : bytes.length, 8, random);
    if (frame && random.chance(0.1)) bytes = bytes.slice(0, random.pick([0, 8, 127, 128, 4096, 8192]));
    if (bytes.length >= 24 && random.chance(0.9))
      new DataView(bytes.buffer).setBigUint64(16, sealedSum(frame ? padded(bytes) : bytes, 16, 0n), true);
    const from = this.#end(bytes.length);
    const fields = this.#end(bytes.length + FIELDS_BYTES) & ~7;
    new Uint8Array(this.#codecs.memory.buffer).set(bytes, from);
    let answer: number;
    if (frame) {
      if (bytes.length >= 128) {
        const size = this.#codecs.frameSize(from, bytes.length) >>> 0;
        if (size > bytes.length) expect.fail(`case ${at}: a frame of ${size} bytes in ${bytes.length}`);
      }
      answer = this.#codecs.frameDecode(from, bytes.length, fields);
    } else answer = this.#codecs.labelDecode(from, fields);
    if (!(answer >= 0 && answer <= FORMAT_MOST)) expect.fail(`case ${at}: answer ${answer}`);
    const name = `${frame ? 'frame' : 'label'} ${answer}`;
    this.answers.set(name, (this.answers.get(name) ?? 0) + 1);
  }
}

/** What the checksum of a frame covers: header, payload and padding, as its length says. */
function padded(bytes: Uint8Array): Uint8Array {
  const length = new DataView(bytes.buffer).getUint32(12, true);
  const whole = Math.ceil((128 + length) / BLOCK) * BLOCK;
  return whole <= bytes.length ? bytes.subarray(0, whole) : bytes;
}

const CODECS = amount(60_000, 2_000_000);

describe('labels and catalogue frames', () => {
  it(`are refused for a reason, and nothing behind them is read: ${CODECS} cases from ${SEED}`, { timeout }, () => {
    const fuzzer = new CodecFuzzer(new WebAssembly.Module(readFileSync((cores[0] as (typeof cores)[number]).file)));
    const first = ONE === undefined ? SEED : Number(ONE);
    for (let at = first; at < first + (ONE === undefined ? CODECS : 1); at++) fuzzer.run(at);
    record('fuzz', { codecs: CODECS, answers: Object.fromEntries(fuzzer.answers) });
    if (ONE !== undefined) return;
    for (const code of [0, 1, 2, 3, 4, 6])
      for (const what of ['label', 'frame']) expect(fuzzer.answers.get(`${what} ${code}`) ?? 0, `${what} ${code}`).toBeGreaterThan(0);
  });
});

/** Checks that no forgery can reach, and why. By file and condition, because lines move. */
const UNREACHABLE: readonly (readonly [file: string, condition: string, reason: string])[] = [
  ['volume/recover.ts', '<f64>slots * 64 > 1073741824', 'needs a log on more than 64 GiB: the bound by its blocks comes first'],
  ['volume/recover.ts', '!loadedState()', 'a state that could not be read has failed before'],
  ['volume/replay.ts', 'footerBlock);', 'it was verified a moment ago: only a device that changes its mind gets here'],
  ['volume/replay.ts', 'it was sound a moment ago', 'only a device that changes its mind gets here'],
  ['volume/replay.ts', 'entryKind(entry) != SLOT_HEADER', 'footerVerify has walked the same entries'],
  ['table/image.ts', 'existing && load<u32>(existing)', 'a leaf that is there already is passed over before'],
  ['format/label.ts', '!RAID && level > 1', 'only in the core without RAID: test/system/core-limits.test.ts'],
  ['volume/replay.ts', 'load<u64>(at, K_FIRST) > applied', 'no refusal: the turn of the padding has not come'],
  ['volume/recover.ts', '!volume', 'planPage: nodes that name other places are refused when they are loaded (nodeInside)'],
  ['volume/recover.ts', 'block / load<u32>(volume, V_SEGMENT_BLOCKS) >= load<u32>(volume, V_SEGMENT_COUNT)', 'planPage: the same'],
  ['volume/recover.ts', 'return failAt(ERROR_CORRUPT, 0xffffffff, 2);', 'planPage does not refuse: the same'],
  ['volume/recover.ts', 'first && !planPage(', 'planPage does not refuse: the same'],
  ['volume/state.ts', '!spaceCreate(', 'what it refuses, a taken number or a parent that is not there, was looked at before'],
  ['format/root.ts', 'return ROOT_BLANK;', 'slots of a log that exists hold roots'],
];

describe('the checks in the decoders', () => {
  const count = amount(1500, 30_000);
  it(`are reached, each of them, by ${count} forgeries`, { timeout }, () => {
    const { module, refusals } = countingCore();
    const hits = new Float64Array(refusals.length);
    const take = (exports: object): void => {
      const { refusalGet } = exports as { refusalGet: (id: number) => number };
      for (let id = 0; id < hits.length; id++) hits[id] = (hits[id] as number) + refusalGet(id);
    };
    const bases = makeBases(module);
    for (let at = SEED; at < SEED + count; at++) tryForgery(module, bases, at, ({ core }) => take(core));
    let aimed = 0;
    for (const base of bases) {
      for (const [index, aim] of aims(base).entries()) {
        if (!FULL && index % 24 !== SEED % 24) continue;
        aimed++;
        const { broken } = tryOn(module, base, SEED + index, aim, ({ core }) => take(core));
        if (broken !== undefined) expect.fail(`aim ${index} at '${base.name}': ${broken}`);
      }
    }
    const codecs = new CodecFuzzer(module);
    for (let at = SEED; at < SEED + 20 * count; at++) codecs.run(at);
    take(codecs.exports);
    const excused = (refusal: { where: string; condition: string }): boolean =>
      UNREACHABLE.some(
        ([file, condition]) =>
          refusal.where.startsWith(`${file}:`) &&
          (refusal.condition === condition || (condition.length > 8 && refusal.condition.includes(condition))),
      );
    const missed = refusals
      .filter((refusal, id) => hits[id] === 0 && !excused(refusal))
      .map(({ where, condition }) => `${where} ${condition}`);
    const reached = refusals.length - missed.length;
    console.log(`${reached} of ${refusals.length} checks in the decoders reached`);
    record('fuzz', { checksInDecoders: refusals.length, aimed, reached, missed, leastHits: Math.min(...hits.filter((hit) => hit > 0)) });
    if (FULL) expect(missed).toEqual([]);
    else expect(reached).toBeGreaterThan(refusals.length * 0.75);
  });
});

/** Any JSON value, seldom a sensible one. */
function anything(random: Random, depth = 0): unknown {
  switch (random.below(depth > 3 ? 8 : 10)) {
    case 0:
      return null;
    case 1:
      return random.chance(0.5);
    case 2:
      return random.pick([0, -1, 1, 0.5, 65534, 65535, 65536, 2 ** 31, 2 ** 32, 2 ** 53, 1e308, -1e308]);
    case 3:
      return '';
    case 4:
      return 'x'.repeat(random.below(3000));
    case 5:
      return random.pick(['__proto__', '../../etc', '/dev/zero', 'a/b', 'a@b', '\u0000', '\ud800', '00000000-0000-0000-0000-000000000000']);
    case 6:
      return random.word();
    case 7:
      return [];
    case 8:
      return Array.from({ length: random.below(20) }, () => anything(random, depth + 1));
    default:
      return Object.fromEntries(
        Array.from({ length: random.below(6) }, () => [String(anything(random, 9)).slice(0, 20), anything(random, depth + 1)]),
      );
  }
}

/** Changes one place somewhere inside. */
function mutateJson(value: unknown, random: Random): unknown {
  if (random.chance(0.15) || typeof value !== 'object' || value === null) return anything(random);
  if (Array.isArray(value)) {
    const copy: unknown[] = [...(value as unknown[])];
    const at = random.below(copy.length);
    if (copy.length > 0 && random.chance(0.2)) copy.splice(at, 1);
    else if (copy.length > 0 && random.chance(0.25)) copy.push(copy[at]);
    else if (random.chance(0.1)) return Array.from({ length: 70_000 }, () => 0);
    else copy[at] = mutateJson(copy[at], random);
    return copy;
  }
  const copy: Record<string, unknown> = { ...(value as Record<string, unknown>) };
  const keys = Object.keys(copy);
  const key = keys.length === 0 ? 'more' : random.pick(keys);
  if (random.chance(0.1)) delete copy[key];
  else copy[key] = mutateJson(copy[key], random);
  return copy;
}

describe('forged pools', () => {
  it(`give a typed error or an answer: ${POOLS} cases from ${SEED}`, { timeout }, async () => {
    const core = await compileCore();
    const tiny = await makeTinyPool(7, true, core);
    const labels: number[][] = [];
    const frames: number[][] = [];
    const described = await StoragePool.openDevices(
      tiny.devices.map((bytes) => new BytesDevice(bytes.slice())),
      { readOnly: true, core },
    );
    for (const { ranges } of (await described.describe()).devices) {
      labels.push(ranges.filter((range) => range.what === 'label').map((range) => range.offset));
      frames.push(ranges.filter((range) => range.what === 'catalogue').map((range) => range.offset));
    }
    await described.close();

    const codes = new Map<string, number>();
    const tell = (code: string): void => void codes.set(code, (codes.get(code) ?? 0) + 1);
    let slowest = 0;
    const first = ONE === undefined ? SEED : Number(ONE);
    for (let at = first; at < first + (ONE === undefined ? POOLS : 1); at++) {
      const random = new Random(at);
      const devices = tiny.devices.map((bytes) => bytes.slice());
      const everywhere = random.chance(0.7); // all copies alike, so that no sound one heals it
      const frame = random.chance(0.6);
      const forged: Uint8Array[] = [];
      devices.forEach((bytes, index) => {
        for (const offset of (frame ? frames : labels)[index] ?? []) forged.push(bytes.subarray(offset, offset + BLOCK));
      });
      const how = random.below(4);
      const shared = random.word();
      for (const bytes of everywhere ? forged : [random.pick(forged)]) {
        const own = new Random(shared);
        const fields = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
        if (how === 0) for (let i = own.chance(0.5) ? 24 : 0; i < BLOCK; i++) bytes[i] = own.below(256);
        else if (frame && how >= 2) {
          const length = fields.getUint32(12, true);
          const text = new TextDecoder().decode(bytes.subarray(128, 128 + length));
          let payload: Uint8Array;
          if (own.chance(0.8)) payload = new TextEncoder().encode(JSON.stringify(mutateJson(JSON.parse(text), own)));
          else {
            payload = bytes.slice(128, 128 + length);
            for (let changes = 1 + own.below(4); changes > 0; changes--) payload[own.below(length)] = own.below(256);
          }
          payload = payload.subarray(0, BLOCK - 128);
          bytes.fill(0, 128);
          bytes.set(payload, 128);
          fields.setUint32(12, payload.length, true);
        } else for (let changes = 1 + own.below(3); changes > 0; changes--) mutate(bytes, 0, frame ? 128 : 192, 16, own);
        if (!random.chance(0.1)) fields.setBigUint64(16, sealedSum(bytes, 16, 0n), true);
      }
      const begun = performance.now();
      try {
        const readOnly = random.chance(0.5);
        const pool = await StoragePool.openDevices(
          devices.map((bytes) => new BytesDevice(bytes)),
          { readOnly, core },
        );
        try {
          const status = await pool.status();
          for (const volume of status.virtualVolumes) if (volume.error) tell(`volume ${volume.error.code}`);
          for (const problem of (await pool.check()).problems)
            if (!ANSWERS.has(problem.code)) expect.fail(`case ${at}: check: ${problem.code} ${problem.message}`);
          for (const name of pool.volumes) {
            const volume = await pool.volume(name);
            const some = new Uint8Array(Math.min(volume.sizeBytes, BLOCK));
            await volume.read(0, some);
            if (!readOnly) await volume.write(0, some);
          }
        } finally {
          await pool.close();
        }
        tell('opened');
      } catch (error) {
        if (!isVarveError(error) || !ANSWERS.has(error.code)) throw new Error(`case ${at}: ${String(error)}`, { cause: error });
        tell(error.code);
      }
      slowest = Math.max(slowest, performance.now() - begun);
    }
    record('fuzz', { pools: POOLS, answers: Object.fromEntries(codes), slowestMilliseconds: Math.round(slowest) });
    for (const code of codes.keys()) if (code.startsWith('volume ')) expect(ANSWERS).toContain(code.slice(7));
    expect(slowest).toBeLessThan(5000);
    if (ONE === undefined) expect(codes.get('opened') ?? 0).toBeGreaterThan(POOLS / 20);
  });
});
