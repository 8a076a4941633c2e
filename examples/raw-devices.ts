// A pool on block devices, past the page cache. What is on them is lost, so they must be blank; `force` takes others.
//
//   truncate -s 64M a b && losetup -f --show a && losetup -f --show b          # root; two devices to try it with
//   node examples/raw-devices.ts POOL /dev/loop0 /dev/loop1
//
// As it is, it wants Node 24: Node 20 takes no TypeScript, and neither 20 nor 22 knows `await using` (there `await pool.close()`, in a `finally`).
import { formatSize, isVarveError, RawDevice, StoragePool } from 'varve/node';

const [directory, ...devices] = process.argv.slice(2);
if (directory === undefined || devices.length === 0) throw new TypeError('usage: raw-devices.ts POOL DEVICE …');

for (const path of devices) {
  await using device = await RawDevice.open(path); // claimed: nobody else has it meanwhile
  const { logicalBlockBytes, physicalBlockBytes, discardGranularityBytes } = device.geometry;
  const discard = discardGranularityBytes > 0 ? `discards ${discardGranularityBytes}` : 'no discard';
  const blocks = `blocks of ${logicalBlockBytes} (${physicalBlockBytes}) bytes`;
  console.log(`${formatSize(device.sizeBytes)}, ${blocks}, ${discard}, ${device.direct ? 'direct' : 'buffered'}`);
}

// The directory holds the lock and a note of where the devices are; all else is on them.
await using pool = await StoragePool.init(directory, { devices });
const volume = await pool.createVolume('data', { size: '1GiB' });
await volume.write(0, new TextEncoder().encode('on the device itself'));
await volume.snapshot('first'); // durable

try {
  await RawDevice.open(devices[0] as string);
} catch (error) {
  console.log(isVarveError(error, 'VARVE_LOCKED') ? 'the pool has it' : error);
}
const text = new Uint8Array(20);
await volume.at('first').read(0, text);
console.log(new TextDecoder().decode(text));
