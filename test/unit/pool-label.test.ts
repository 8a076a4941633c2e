import { beforeAll, describe, expect, it } from 'vitest';
import fc from 'fast-check';
import { FormatCodec, formatUuid, randomUuid, uuidBytes } from '../../src/pool/label.ts';

const MIB = 1 << 20;
let codec: FormatCodec;
beforeAll(async () => {
  codec = await FormatCodec.create();
});

const request = (sizeBytes: number) => ({ pool: randomUuid(), device: randomUuid(), volume: 3, sizeBytes, generation: 7 });

it('labels are right after a catalogue of any size was coded', async () => {
  const codec = await FormatCodec.create();
  const uuid = randomUuid();
  for (const bytes of [1000, 5000, 20_000, 60_000]) {
    codec.encodeFrame({ pool: uuid, generation: 1, nonce: uuid, previous: uuid, payload: new Uint8Array(bytes).fill(1) });
    const { label } = codec.encodeLabels({ pool: uuid, device: uuid, volume: 7, generation: 3, segmentBlocks: 8, sizeBytes: 1 << 20 });
    expect([label.volume, label.generation, label.segmentBlocks, label.sizeBytes]).toEqual([7, 3, 8, 1 << 20]);
  }
});

describe('a label', () => {
  // The arithmetic by hand: D = 4096 + 2C + 8192, data area = size − 2D, segment = largest power of two ≤ 1024 that gives ≥ 32 segments, never under 8.
  it.each([
    { sizeBytes: 1 * MIB, slotBytes: 65536, dataOffset: 143_360, segmentBlocks: 8, segmentCount: 23 },
    { sizeBytes: 8 * MIB, slotBytes: 65536, dataOffset: 143_360, segmentBlocks: 32, segmentCount: 61 },
    { sizeBytes: 64 * MIB, slotBytes: 65536, dataOffset: 143_360, segmentBlocks: 256, segmentCount: 63 },
    { sizeBytes: 256 * MIB, slotBytes: 65536, dataOffset: 143_360, segmentBlocks: 1024, segmentCount: 63 },
    { sizeBytes: 1024 * MIB, slotBytes: 1_048_576, dataOffset: 2_109_440, segmentBlocks: 1024, segmentCount: 254 },
  ])('lays out $sizeBytes bytes', (wanted) => {
    const { label } = codec.encodeLabels(request(wanted.sizeBytes));
    expect(label).toMatchObject(wanted);
    expect(label.dataOffset + label.segmentCount * label.segmentBlocks * 4096).toBeLessThanOrEqual(label.labelBackOffset);
    expect(label).toMatchObject({
      catalogueFrontOffset: 4096,
      rootFrontOffset: 4096 + 2 * wanted.slotBytes,
      labelBackOffset: wanted.sizeBytes - wanted.dataOffset,
      catalogueBackOffset: wanted.sizeBytes - wanted.dataOffset + 4096,
      rootBackOffset: wanted.sizeBytes - 8192,
    });
  });

  it('rounds the size of the device down to blocks', () => {
    expect(codec.encodeLabels(request(8 * MIB + 4095)).label.sizeBytes).toBe(8 * MIB);
  });

  it('uses at most 2^32 − 1 blocks of a larger device', () => {
    const { label } = codec.encodeLabels(request(2 ** 52));
    expect(label.segmentBlocks * label.segmentCount).toBeLessThan(2 ** 32);
    expect(label.labelBackOffset + label.dataOffset).toBe(2 ** 52);
  });

  it('refuses a device that is too small', () => {
    expect(() => codec.encodeLabels(request(512 * 1024))).toThrow(expect.objectContaining({ code: 'VARVE_LIMIT' }));
    expect(() => codec.encodeLabels(request(0))).toThrow(expect.objectContaining({ code: 'VARVE_LIMIT' }));
  });

  it('is found at the back when the front is lost', () => {
    const { label, back } = codec.encodeLabels(request(8 * MIB));
    expect(codec.labelBackOffset(8 * MIB)).toBe(label.labelBackOffset);
    const parsed = codec.decodeLabel(back);
    expect(parsed.ok && parsed.value).toEqual({ ...label, side: 'back' });
    expect(codec.encodeSide(label, 'back')).toEqual(back);
  });

  it('shows any flipped bit', () => {
    const { front } = codec.encodeLabels(request(8 * MIB));
    for (let bit = 0; bit < front.length * 8; bit += 7) {
      const bytes = front.slice();
      bytes[bit >> 3]! ^= 1 << (bit & 7);
      expect(codec.decodeLabel(bytes).ok).toBe(false);
    }
  });

  it('says what is wrong in the order magic, bounds, checksum', () => {
    const { front } = codec.encodeLabels(request(8 * MIB));
    const spoilt = (...offsets: number[]): Uint8Array => {
      const bytes = front.slice();
      for (const offset of offsets) bytes[offset]! ^= 1;
      return bytes;
    };
    expect(codec.decodeLabel(spoilt(0, 12, 500))).toEqual({ ok: false, problem: 'magic' });
    expect(codec.decodeLabel(spoilt(12, 500))).toEqual({ ok: false, problem: 'bounds' });
    expect(codec.decodeLabel(spoilt(500))).toEqual({ ok: false, problem: 'checksum' });
  });

  it('answers any bytes', () => {
    const { front } = codec.encodeLabels(request(8 * MIB));
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(4095), fc.nat(255)), { minLength: 1, maxLength: 20 }), (changes) => {
        const bytes = front.slice();
        for (const [offset, value] of changes) bytes[offset] = value;
        const parsed = codec.decodeLabel(bytes);
        if (parsed.ok) expect(bytes).toEqual(front);
      }),
    );
  });
});

describe('a catalogue frame', () => {
  const frame = (length: number) => ({
    pool: randomUuid(),
    generation: 5,
    nonce: randomUuid(),
    previous: randomUuid(),
    payload: Uint8Array.from({ length }, (_, index) => index * 7),
  });

  it.each([0, 1, 3967, 3968, 3969, 100_000, 1_048_448])('reads back a payload of %i bytes', (length) => {
    const wanted = frame(length);
    const bytes = codec.encodeFrame(wanted);
    expect(bytes.length).toBe(Math.ceil((128 + length) / 4096) * 4096);
    expect(codec.frameSize(bytes.subarray(0, 4096), 1 << 20)).toBe(bytes.length);
    const parsed = codec.decodeFrame(bytes);
    expect(parsed.ok && parsed.value).toEqual(wanted);
  });

  it('shows any flipped bit, in its padding too', () => {
    const bytes = codec.encodeFrame(frame(500));
    for (let bit = 0; bit < bytes.length * 8; bit += 11) {
      const spoilt = bytes.slice();
      spoilt[bit >> 3]! ^= 1 << (bit & 7);
      expect(codec.decodeFrame(spoilt).ok).toBe(false);
    }
  });

  it('does not believe a length beyond its slot', () => {
    const bytes = codec.encodeFrame(frame(500));
    new DataView(bytes.buffer).setUint32(12, 0xffff_fff0, true);
    expect(codec.decodeFrame(bytes)).toEqual({ ok: false, problem: 'bounds' });
    expect(codec.frameSize(bytes, 65536)).toBe(0);
    expect(codec.frameSize(codec.encodeFrame(frame(70_000)).subarray(0, 4096), 65536)).toBe(0);
  });
});

describe('a uuid', () => {
  it('goes both ways', () => {
    const uuid = randomUuid();
    expect(formatUuid(uuidBytes(uuid))).toBe(uuid);
    expect(() => uuidBytes('nonsense')).toThrow(TypeError);
  });
});
