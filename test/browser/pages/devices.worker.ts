// The device conformance suite over an access handle, and what the engine does that the device has to know.
import { OpfsDevice, type AccessHandle } from '../../../src/device/opfs.ts';
import { deviceConformance } from '../../../src/testing/conformance.ts';
import { equal, failsWith, noise, ok, sameBytes } from '../worker/check.ts';
import { describe, it, serveTests } from '../worker/runner.ts';

const root = await navigator.storage.getDirectory();
let files = 0;
const fresh = (): string => `device-${files++}-${crypto.randomUUID()}`;
const dispose = (name: string): Promise<void> => root.removeEntry(name);

deviceConformance(
  'an OPFS file',
  async () => {
    const name = fresh();
    return {
      device: await OpfsDevice.open(root, name, { create: true, sizeBytes: '1MiB' }),
      reopen: () => OpfsDevice.open(root, name),
      release: () => dispose(name),
    };
  },
  { describe, it },
);
deviceConformance(
  'an OPFS file opened for reading',
  async () => {
    const name = fresh();
    const device = await OpfsDevice.open(root, name, { create: true, sizeBytes: 100_000 });
    await device.write(0, noise(99_840, 3));
    await device.close();
    return { device: await OpfsDevice.open(root, name, { readOnly: true }), release: () => dispose(name) };
  },
  { describe, it },
  { readOnly: true },
);

describe('an OPFS device', () => {
  it('has its whole size from the start, and zeros in it', async () => {
    const name = fresh();
    const device = await OpfsDevice.open(root, name, { create: 'exclusive', sizeBytes: '2MiB' });
    equal(device.sizeBytes, 2 << 20, 'size');
    const into = new Uint8Array(4096).fill(9);
    device.readSync((2 << 20) - 4096, into);
    sameBytes(into, new Uint8Array(4096), 'the end');
    await device.close();
    const file = await (await root.getFileHandle(name)).getFile();
    equal(file.size, 2 << 20, 'size of the file');
    await dispose(name);
  });

  it('says what is wrong with a name', async () => {
    const name = fresh();
    await failsWith('VARVE_NOT_FOUND', () => OpfsDevice.open(root, name));
    await (await OpfsDevice.open(root, name, { create: true, sizeBytes: 4096 })).close();
    await failsWith('VARVE_EXISTS', () => OpfsDevice.open(root, name, { create: 'exclusive', sizeBytes: 4096 }));
    await dispose(name);
  });

  it('waits while another handle has the file, and then gives up with VARVE_LOCKED', async () => {
    const name = fresh();
    const first = await OpfsDevice.open(root, name, { create: true, sizeBytes: 4096 });
    await failsWith('VARVE_LOCKED', () => OpfsDevice.open(root, name, { patienceMs: 100 }));
    setTimeout(() => void first.close(), 150);
    const second = await OpfsDevice.open(root, name);
    await second.close();
    await dispose(name);
  });

  it('gets the file of a worker that was terminated within two seconds', async () => {
    const name = fresh();
    const source = `
      const root = await navigator.storage.getDirectory();
      const file = await root.getFileHandle(${JSON.stringify(name)}, { create: true });
      globalThis.handle = await file.createSyncAccessHandle();
      postMessage(0);`;
    const url = URL.createObjectURL(new Blob([source], { type: 'text/javascript' }));
    const worker = new Worker(url, { type: 'module' });
    await new Promise((resolve) => (worker.onmessage = resolve));
    worker.terminate();
    const device = await OpfsDevice.open(root, name, { sizeBytes: 4096 });
    await device.close();
    URL.revokeObjectURL(url);
    await dispose(name);
  });

  it('takes the end of a file before its size for an I/O error', async () => {
    const name = fresh();
    const file = (await root.getFileHandle(name, { create: true })) as FileSystemFileHandle & {
      createSyncAccessHandle(): Promise<AccessHandle>;
    };
    const handle = await file.createSyncAccessHandle();
    handle.truncate(6000);
    const device = new OpfsDevice(name, handle, 8192);
    const error = await failsWith('VARVE_IO', () => device.readSync(4096, new Uint8Array(4096)));
    ok(error.message.includes('ends after 1904'), `the place of the end, got: ${error.message}`);
    await device.close();
    await dispose(name);
  });
});

serveTests();
