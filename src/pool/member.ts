// One member device of a pool: its labels, and the catalogue slots on its front and back.
//
// Reading trusts nothing and changes nothing; what is wrong is collected for the pool to judge. Writing is in the order
//   front slot of all members → flush of all → back slot of all → flush of all
// so that whenever it is cut off, one side of every member is whole (`writeCatalogue`).

import { syncDevice, type StorageDevice } from '../device/device.ts';
import { messageOf, VarveError } from '../errors.ts';
import type { FrameSeen } from './catalogue.ts';
import { FencedDevice } from './fenced.ts';
import { LABEL_BYTES, type FormatCodec, type Frame, type Label, type LabelRequest } from './label.ts';

const SIDES = ['front', 'back'] as const;
export type Side = (typeof SIDES)[number];

/** What one catalogue slot holds. */
export interface SlotSeen {
  readonly side: Side;
  readonly slot: 0 | 1;
  /** The frame, or null: nothing was ever written there, or it is damaged (`problem`). */
  readonly frame: Frame | null;
  readonly problem: string | null;
}

export class Member {
  readonly device: StorageDevice;
  /** Where the device is, as the catalogue keeps it. */
  readonly path: string | null;
  readonly label: Label;
  /** Sides whose label is not as it should be, and why. */
  readonly labelProblems: ReadonlyMap<Side, string>;
  slots: readonly SlotSeen[] = [];

  private constructor(device: StorageDevice, path: string | null, label: Label, labelProblems: ReadonlyMap<Side, string>) {
    this.device = device;
    this.path = path;
    this.label = label;
    this.labelProblems = labelProblems;
  }

  /** For a device whose labels were written just now. */
  static fresh(device: StorageDevice, path: string | null, label: Label): Member {
    return new Member(device, path, label, new Map());
  }

  /**
   * Reads the labels of a device.
   *
   * @param backOffsets where its back label may be besides the end of the device: where other members have theirs
   * @throws VarveError `VARVE_NOT_FOUND` when it carries none, `VARVE_CORRUPT` when both are damaged, `VARVE_UNSUPPORTED` for a version or feature
   * that this build does not know, `VARVE_IO`.
   */
  static async read(codec: FormatCodec, device: StorageDevice, path: string | null, backOffsets: readonly number[] = []): Promise<Member> {
    const doing = `reading the label of ${path ?? 'a storage device'}`;
    const bytes = new Uint8Array(LABEL_BYTES);
    const problems = new Map<Side, string>();
    const labels = new Map<Side, Label>();
    const readSide = async (side: Side, offset: number): Promise<void> => {
      if (offset < 0 || offset + LABEL_BYTES > device.sizeBytes) return void problems.set(side, 'the device is too small for it');
      try {
        await device.read(offset, bytes);
      } catch (error) {
        return void problems.set(side, messageOf(error));
      }
      const parsed = codec.decodeLabel(bytes);
      if (!parsed.ok) {
        if (parsed.problem === 'version' || parsed.problem === 'features') {
          throw new VarveError('VARVE_UNSUPPORTED', doing, {
            detail:
              parsed.problem === 'version'
                ? 'it needs a newer version of Varve (unknown format version)'
                : 'it needs a newer version of Varve, or a core with RAID (unknown feature)',
          });
        }
        problems.set(side, parsed.problem === 'magic' ? 'there is none' : `its ${parsed.problem} is wrong`);
      } else if (parsed.value.side !== side) problems.set(side, `it is the ${parsed.value.side} label`);
      else {
        problems.delete(side);
        labels.set(side, parsed.value);
      }
    };

    await readSide('front', 0);
    const front = labels.get('front');
    await readSide('back', front?.labelBackOffset ?? codec.labelBackOffset(device.sizeBytes));
    // A member of several has the size of the smallest in its labels: where its end is, only its fellows know.
    for (const offset of labels.size > 0 ? [] : backOffsets) {
      await readSide('back', offset);
      if (labels.size > 0) break;
    }
    const back = labels.get('back');
    const label = front ?? back;
    if (label === undefined) {
      if (problems.get('front') === 'there is none' || problems.get('front') === 'the device is too small for it') {
        throw new VarveError('VARVE_NOT_FOUND', doing, { detail: 'it is no storage device of a pool' });
      }
      throw new VarveError('VARVE_CORRUPT', doing, { detail: `front: ${problems.get('front')}; back: ${problems.get('back')}` });
    }
    if (front !== undefined && back !== undefined && !sameLabel(front, back)) {
      problems.set('back', 'it does not agree with the front one');
    }
    if (label.sizeBytes > device.sizeBytes) {
      throw new VarveError('VARVE_CORRUPT', doing, {
        detail: `the device has ${device.sizeBytes} bytes, its label says ${label.sizeBytes}`,
      });
    }
    return new Member(device, path, label, problems);
  }

  get uuid(): string {
    return this.label.device;
  }

  get readOnlyFeatures(): boolean {
    return this.label.readOnlyFeatures;
  }

  /** The sides whose label is not what it should be. */
  async wrongSides(codec: FormatCodec): Promise<Side[]> {
    const wrong: Side[] = [];
    const bytes = new Uint8Array(LABEL_BYTES);
    for (const side of SIDES) {
      const right = codec.encodeSide(this.label, side);
      try {
        await this.device.read(side === 'front' ? 0 : this.label.labelBackOffset, bytes);
      } catch {
        wrong.push(side); // what cannot be read is written anew
        continue;
      }
      if (bytes.some((byte, index) => byte !== right[index])) wrong.push(side);
    }
    return wrong;
  }

  /** Reads all four catalogue slots, without judging. */
  async readSlots(codec: FormatCodec): Promise<void> {
    const slots: SlotSeen[] = [];
    for (const side of SIDES) for (const slot of [0, 1] as const) slots.push(await this.#readSlot(codec, side, slot));
    this.slots = slots;
  }

  /** The valid frames that belong to this pool. */
  frames(): FrameSeen[] {
    return this.slots.flatMap((slot) => (slot.frame === null ? [] : [slot.frame]));
  }

  slotOffset(side: Side, generation: number): number {
    const start = side === 'front' ? this.label.catalogueFrontOffset : this.label.catalogueBackOffset;
    return start + (generation % 2) * this.label.slotBytes;
  }

  async #readSlot(codec: FormatCodec, side: Side, slot: 0 | 1): Promise<SlotSeen> {
    const offset = this.slotOffset(side, slot);
    try {
      const head = new Uint8Array(4096);
      await this.device.read(offset, head);
      const size = codec.frameSize(head, this.label.slotBytes);
      if (size === 0) return { side, slot, frame: null, problem: head.every((byte) => byte === 0) ? null : 'it is no catalogue' };
      let bytes = head;
      if (size > head.length) {
        bytes = new Uint8Array(size);
        await this.device.read(offset, bytes);
      }
      const parsed = codec.decodeFrame(bytes);
      if (!parsed.ok) return { side, slot, frame: null, problem: `its ${parsed.problem} is wrong` };
      if (parsed.value.pool !== this.label.pool) return { side, slot, frame: null, problem: 'it belongs to another pool' };
      if (parsed.value.generation % 2 !== slot) return { side, slot, frame: null, problem: 'it is in the wrong slot' };
      return { side, slot, frame: parsed.value, problem: null };
    } catch (error) {
      return { side, slot, frame: null, problem: messageOf(error) };
    }
  }
}

/** Writes both labels of a new device, clears its catalogue slots, and flushes. */
export async function writeLabels(
  codec: FormatCodec,
  device: StorageDevice,
  request: Omit<LabelRequest, 'sizeBytes'> & { readonly sizeBytes?: number },
): Promise<Label> {
  const { label, front, back } = codec.encodeLabels({ ...request, sizeBytes: request.sizeBytes ?? device.sizeBytes });
  const blank = new Uint8Array(4096);
  const offsets = [label.catalogueFrontOffset, label.catalogueBackOffset];
  for (const offset of offsets) {
    // A frame of an earlier life would be read as one of this pool's only if its uuid were the same; zeroes spare the reader the question.
    await device.write(offset, blank);
    await device.write(offset + label.slotBytes, blank);
  }
  await device.write(label.labelBackOffset, back);
  await device.flush();
  await device.write(0, front);
  await device.flush();
  return label;
}

// A log may be writing to the same device: what either is told of a failure the other must hear as well.
function write(device: StorageDevice, offset: number, bytes: Uint8Array): Promise<void> {
  return device instanceof FencedDevice ? device.writeOwn(offset, bytes) : device.write(offset, bytes);
}

function flush(device: StorageDevice): Promise<void> {
  return device instanceof FencedDevice ? device.flushOwn() : device.flush();
}

/**
 * Puts one frame on all members; when it resolves it is durable on both sides of each, but for those that it answers with, and why. One that failed
 * is not asked again.
 */
export async function writeCatalogue(members: readonly Member[], generation: number, frame: Uint8Array): Promise<Map<Member, unknown>> {
  const failed = new Map<Member, unknown>();
  const all = async (step: (member: Member) => Promise<void>): Promise<void> => {
    const left = members.filter((member) => !failed.has(member));
    const results = await Promise.allSettled(left.map(step)); // none may still be writing when the caller goes on
    results.forEach((result, index) => {
      if (result.status === 'rejected') failed.set(left[index]!, result.reason);
    });
  };
  for (const side of SIDES) {
    await all((member) => write(member.device, member.slotOffset(side, generation), frame));
    await all((member) => flush(member.device));
  }
  return failed;
}

/** The same in this turn, on devices that can. */
export function writeCatalogueSync(members: readonly Member[], generation: number, frame: Uint8Array): void {
  const devices = members.map((member) => ({ member, device: syncDevice(member.device, 'committing the catalogue') }));
  for (const side of SIDES) {
    for (const { member, device } of devices) {
      const offset = member.slotOffset(side, generation);
      if (device instanceof FencedDevice) device.writeOwnSync(offset, frame);
      else device.writeSync(offset, frame);
    }
    for (const { device } of devices) {
      if (device instanceof FencedDevice) device.flushOwnSync();
      else device.flushSync();
    }
  }
}

/** The label of one side, mended from the other one. */
export async function writeLabel(codec: FormatCodec, member: Member, side: Side): Promise<void> {
  const offset = side === 'front' ? 0 : member.label.labelBackOffset;
  await write(member.device, offset, codec.encodeSide(member.label, side));
  await flush(member.device);
}

function sameLabel(a: Label, b: Label): boolean {
  return (
    a.pool === b.pool &&
    a.device === b.device &&
    a.volume === b.volume &&
    a.member === b.member &&
    a.members === b.members &&
    a.level === b.level &&
    a.stripBlocks === b.stripBlocks &&
    a.segmentBlocks === b.segmentBlocks &&
    a.segmentCount === b.segmentCount &&
    a.sizeBytes === b.sizeBytes &&
    a.slotBytes === b.slotBytes
  );
}
