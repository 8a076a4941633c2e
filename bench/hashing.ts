// The checksum of a block, as the core computes it (XXH64 in WebAssembly), over 4 KiB blocks that lie in a few MiB of its memory. The floor is a copy of the
// same blocks, which every block that goes through a log costs besides; the peers are what Node brings compiled: CRC-32 (zlib) and SHA-256.
import { createHash } from 'node:crypto';
import { crc32 } from 'node:zlib';
import { coreOf, ensure, tableModule } from '../test/unit/table.support.ts';
import { BLOCK, compare, interleave, median, MIB, mibPerSecond, milliseconds } from './harness/measure.ts';
import { Digest, expectSame, round, type Question, type Result } from './harness/question.ts';
import { noise } from './harness/workload.ts';

export const question: Question = {
  name: 'hashing',
  asks: 'How fast is a block hashed?',
  async run(context): Promise<Result[]> {
    const blocks = context.toy ? 64 : 2048;
    const passes = context.toy ? 1 : 16;
    const rounds = context.toy ? 1 : 15;
    const core = coreOf(tableModule(false));
    ensure(core, 2 * blocks * BLOCK + MIB);
    const pointer = core.allocateAligned(blocks * BLOCK, BLOCK);
    const target = core.allocateAligned(blocks * BLOCK, BLOCK);
    const bytes = new Uint8Array(core.memory.buffer, pointer, blocks * BLOCK);
    const copy = new Uint8Array(core.memory.buffer, target, blocks * BLOCK);
    bytes.set(noise(bytes.length, 1));
    const views = Array.from({ length: blocks }, (_, index) => bytes.subarray(index * BLOCK, (index + 1) * BLOCK));

    const digest = new Digest();
    for (let index = 0; index < blocks; index++) digest.add(String(BigInt.asUintN(64, core.xxh64(pointer + index * BLOCK, BLOCK, 7n))));
    const each = (work: (index: number) => void): number =>
      milliseconds(() => {
        for (let pass = 0; pass < passes; pass++) for (let index = 0; index < blocks; index++) work(index);
      });
    const costs = await interleave(rounds, {
      ours: () => each((index) => void core.xxh64(pointer + index * BLOCK, BLOCK, 7n)),
      floor: () => each((index) => copy.set(views[index]!, index * BLOCK)),
      peer: () => each((index) => void crc32(views[index]!)),
      sha256: () => each((index) => void createHash('sha256').update(views[index]!).digest()),
    });
    expectSame('hashing: copy', Buffer.compare(copy, bytes), 0);
    const show = mibPerSecond(blocks * passes * BLOCK);
    return [
      compare({
        name: 'hashing',
        about: 'XXH64 of 4 KiB blocks in the core, against zlib.crc32 (peer), a copy (floor) and SHA-256 (also)',
        ours: costs.ours,
        floor: costs.floor,
        peer: costs.peer,
        against: 'peer',
        unit: 'MiB/s',
        show,
        also: { sha256: round(show(median(costs.sha256))) },
        hash: digest.toString(),
      }),
    ];
  },
};
