// A block device for code that cannot wait: every call ends before it returns, as SQLite and emulators want it.
//
//   bun examples/bun.ts POOL
import { StoragePool } from 'varve/node';

const [directory] = process.argv.slice(2);
if (directory === undefined) throw new TypeError('usage: bun.ts POOL');

await using pool = await StoragePool.init(directory, { volumeSize: '16MiB', sync: true });
const volume = await pool.createVolume('disk', { size: '1GiB' });
await pool.maintain(); // a spare storage volume: growth inside a synchronous call takes that and nothing else

const page = new Uint8Array(4096);
for (let block = 0; block < 2000; block++) {
  page.fill(block % 256);
  volume.writeSync(block * page.length, page);
}
volume.flushSync(); // durable
await volume.snapshot('before');
volume.writeSync(0, page.fill(0xff));
volume.readSync(0, page);
console.log(`now: ${page[0]}`);
await volume.at('before').read(0, page);
console.log(`before: ${page[0]}`);
