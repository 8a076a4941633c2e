// What a log holds on its devices, in words: its roots, then segment by segment the records and pages in it, with what of them is live. The core says which
// blocks are in use and vouches for them; between those lie records whose data died, which are shown as they are.
import type { Log, LogVolume } from '../volume/log.ts';
import type { LogRange } from '../volume/state.ts';
import { explain } from './explain.ts';

const BLOCK = 4096;
const RECORD_MAGIC = 0x31525656;

/** Lines about everything that `ranges` (all that is in use, from a log that is open for reading) name or lie beside. */
export async function transcriptOf(log: Log, ranges: readonly LogRange[], signal: AbortSignal | undefined): Promise<string[]> {
  const lines: string[] = [];
  for (const volume of log.volumes()) {
    const own = ranges.filter((range) => range.volume === volume.id);
    const segments = new Map<number, Map<number, LogRange>>();
    for (const range of own) {
      if (range.structure === 'root') {
        lines.push(`  volume ${volume.id}  ${at(range.offset)}  ${explain(await readBytes(volume, range.offset, BLOCK))}`);
        continue;
      }
      const segment = Math.floor(range.block / volume.segmentBlocks);
      let slots = segments.get(segment);
      if (slots === undefined) segments.set(segment, (slots = new Map()));
      slots.set(range.block - segment * volume.segmentBlocks, range);
    }
    for (const [segment, slots] of [...segments].toSorted(([a], [b]) => a - b)) {
      signal?.throwIfAborted();
      lines.push(...(volume.members.length > 1 ? slotLines(volume, segment, slots) : await segmentLines(volume, segment, slots)));
    }
  }
  return lines;
}

/** Of several members: which block is where only the core's stripe map knows, so what is in use is named, and not shown. */
function slotLines(volume: LogVolume, segment: number, slots: ReadonlyMap<number, LogRange>): string[] {
  return [
    `  volume ${volume.id} segment ${segment}`,
    ...[...slots]
      .toSorted(([a], [b]) => a - b)
      .map(([slot, { structure }]) => `    block ${segment * volume.segmentBlocks + slot}  ${structure}`),
  ];
}

async function segmentLines(volume: LogVolume, segment: number, slots: ReadonlyMap<number, LogRange>): Promise<string[]> {
  const offset = volume.dataOffset + segment * volume.segmentBlocks * BLOCK;
  const bytes = await readBytes(volume, offset, volume.segmentBlocks * BLOCK);
  const view = new DataView(bytes.buffer);
  const block = (slot: number): Uint8Array => bytes.subarray(slot * BLOCK, (slot + 1) * BLOCK);
  const lines = [`  volume ${volume.id} segment ${segment}`];
  const tell = (slot: number, what: string): void => void lines.push(`    ${at(offset + slot * BLOCK)}  ${what}`);
  if ([...slots.values()].some((range) => range.structure === 'page')) {
    for (const slot of [...slots.keys()].toSorted((a, b) => a - b)) tell(slot, explain(block(slot)));
    return lines;
  }
  const footer = [...slots].find(([, range]) => range.structure === 'footer')?.[0];
  const end = footer ?? volume.segmentBlocks;
  const last = Math.max(...slots.keys());
  for (let slot = 0; slot < end;) {
    if (view.getUint32(slot * BLOCK, true) !== RECORD_MAGIC || slot > last) break;
    const data = Math.min(view.getUint16(slot * BLOCK + 62, true), end - slot - 1);
    let live = 0;
    for (let i = 1; i <= data; i++) if (slots.has(slot + i)) live++;
    tell(slot, `${explain(block(slot))}${data > 0 ? `  ${live} of ${data} live` : ''}`);
    slot += 1 + data;
  }
  if (footer !== undefined) tell(footer, explain(block(footer)));
  return lines;
}

/** Of a storage volume of level `single`: its one member. */
async function readBytes(volume: LogVolume, offset: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(length);
  await volume.members[0]?.read(offset, bytes);
  return bytes;
}

function at(offset: number): string {
  return `0x${offset.toString(16).padStart(10, '0')}`;
}
