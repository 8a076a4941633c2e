// What is published of the core: small, closed, and without the faults that the tests plant. The small one knows storage volumes of one device only.
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { CoreExports } from '../../src/core/exports.ts';
import { instantiateCore } from '../../src/core/instantiate.ts';
import { MemoryDevice } from '../../src/device/memory.ts';
import { FormatCodec, randomUuid } from '../../src/pool/label.ts';
import { StoragePool } from '../../src/pool/pool.ts';

const bytes = readFileSync(new URL('../../build/core.wasm', import.meta.url));
const module = new WebAssembly.Module(bytes);
const whole = new WebAssembly.Module(readFileSync(new URL('../../build/core.raid.wasm', import.meta.url)));

describe('the published core', () => {
  it('imports nothing, the others nothing but abort', () => {
    expect(WebAssembly.Module.imports(module)).toEqual([]);
    expect(WebAssembly.Module.imports(whole)).toEqual([]);
    for (const other of ['checked', 'planted']) {
      const imports = WebAssembly.Module.imports(
        new WebAssembly.Module(readFileSync(new URL(`../../build/core.${other}.wasm`, import.meta.url))),
      );
      expect(imports).toEqual([{ module: 'env', name: 'abort', kind: 'function' }]);
    }
  });

  it('exports functions and its memory, nothing else', () => {
    const kinds = new Set(WebAssembly.Module.exports(module).map((one) => (one.name === 'memory' ? '' : one.kind)));
    expect(kinds).toEqual(new Set(['', 'function']));
  });

  it('has no planted fault in it', () => {
    // The text form names every global that is used: the switch of the planted faults is none of them.
    for (const name of ['core.wat', 'core.raid.wat']) {
      const text = readFileSync(new URL(`../../build/${name}`, import.meta.url), 'utf8');
      expect(text).toContain('(global $assembly/');
      expect(text).not.toContain('planted');
    }
    const planted = new WebAssembly.Module(readFileSync(new URL('../../build/core.planted.wasm', import.meta.url)));
    expect(WebAssembly.Module.exports(planted).map((one) => one.name)).toContain('plant');
  });

  it('takes no more than 64 KiB without RAID, which is what browsers get', () => {
    expect(bytes.length).toBeLessThanOrEqual(64 * 1024);
  });
});

describe('the core without RAID', () => {
  const UNSUPPORTED = 13;

  it('has all of the other one but what is for members, and for tests', () => {
    const names = (of: WebAssembly.Module): string[] => WebAssembly.Module.exports(of).map((one) => one.name);
    expect(
      names(whole)
        .filter((name) => !names(module).includes(name))
        .toSorted(),
    ).toEqual(['counter', 'faultWanted', 'memberSet', 'plant', 'scrubCancel', 'volumeTolerates']);
    expect(names(module).filter((name) => !names(whole).includes(name))).toEqual([]);
  });

  it('refuses a storage volume of another level', async () => {
    const fields = [2, 2, 1, 64, 64, 143_360, 131_072, 1_000_000] as const;
    for (let level = 0; level < 6; level++) {
      const members = [1, 2, 2, 3, 4, 4][level] as number;
      const small = await instantiateCore(module);
      const other = await instantiateCore(whole);
      const [id, , strip, blocks, count, data, front, back] = fields;
      const add = (core: CoreExports): number =>
        core.volumeAdd(id, level, members, strip, level === 3 || level === 4 ? 64 : blocks, count, data, front, back);
      expect([level, add(small), add(other)]).toEqual([level, level === 0 ? 0 : UNSUPPORTED, 0]);
    }
  });

  it('refuses labels and layouts of another level, and reads those of `single` as the other one does', async () => {
    const small = await FormatCodec.create(module);
    const other = await FormatCodec.create(whole);
    const uuid = randomUuid();
    const request = { pool: uuid, device: uuid, volume: 1, sizeBytes: 16 << 20, generation: 1 };
    const raid = { ...request, level: 3, members: 3, member: 1, stripBlocks: 1 };
    const { front } = other.encodeLabels(raid);
    expect(other.decodeLabel(front).ok).toBe(true);
    expect(small.decodeLabel(front)).toEqual({ ok: false, problem: 'features' });
    expect(() => small.encodeLabels(raid)).toThrow(expect.objectContaining({ code: 'VARVE_UNSUPPORTED' }) as Error);
    expect(small.encodeLabels(request)).toEqual(other.encodeLabels(request));
    expect(small.decodeLabel(other.encodeLabels(request).back)).toEqual(other.decodeLabel(other.encodeLabels(request).back));
  });

  it('opens no pool that has another level, and says so', async () => {
    const devices = Array.from({ length: 3 }, () => new MemoryDevice('4MiB'));
    const pool = await StoragePool.create(devices, { raid: '5' });
    const volume = await pool.createVolume('one', { size: '1MiB' });
    await volume.write(0, new Uint8Array(4096).fill(1));
    await volume.flush();
    const contents = devices.map(contentOf);
    await pool.close();
    const refused = contents.map(deviceOf);
    await expect(StoragePool.openDevices(refused, { core: module })).rejects.toMatchObject({ code: 'VARVE_UNSUPPORTED' });
    const again = await StoragePool.openDevices(contents.map(deviceOf), { core: whole });
    const block = new Uint8Array(4096);
    await (await again.volume('one')).read(0, block);
    expect(block.every((byte) => byte === 1)).toBe(true);
    await again.close();
  });
});

function contentOf(device: MemoryDevice): Uint8Array {
  const content = new Uint8Array(device.sizeBytes);
  device.readSync(0, content);
  return content;
}

function deviceOf(content: Uint8Array): MemoryDevice {
  const device = new MemoryDevice(content.length);
  device.writeSync(0, content);
  return device;
}
