// The core's ABI, as TypeScript sees it (assembly/index.ts is the other side). Numbers only: u32 or f64.
// An u32 comes back signed from wasm; where it can be above 2^31 (pointers, ids) the caller says `>>> 0`.

/** What `submit` is asked for. */
export const KIND = {
  CREATE: 1,
  OPEN: 2,
  READ: 3,
  WRITE: 4,
  TRIM: 5,
  FLUSH: 7,
  OPERATION: 8,
  CHECKPOINT: 9,
  COMPACT: 10,
  CLOSE: 11,
  WRITEOUT: 12,
  ROOT: 13,
  MERGE: 14,
  CHECK: 15,
  /** Space: a storage volume, or 0xFFFF: all. Epoch: 0 heals, 1 only reports, 2 rebuilds the members that are being rebuilt: from the place in offset, as many
   *  segments as length says (0: all); its result is the place where to go on, 0 when it is done. */
  SCRUB: 16,
} as const;

/** What a member of a storage volume is to the core. */
export const MEMBER = { ONLINE: 1, OUT: 2, REBUILDING: 3, DENIED: 4 } as const;

/** One more than the largest kind. */
export const KIND_LIMIT = 17;

/** What `step` answers in its low bits; above them, with PLAN, the number of commands. */
export const STATUS = { DONE: 0, PLAN: 1, WAIT: 2, MEMORY: 3, FAILED: 4 } as const;
export const STATUS_BITS = 3;
export const STATUS_MASK = 2 ** STATUS_BITS - 1;

/** What `complete` is told. */
export const RESULT = { OK: 0, IO: 1, NO_SPACE: 2 } as const;

/** The kinds of OPERATION. */
export const OPERATION = { CREATE_SOURCE: 1, SNAPSHOT: 2, DELETE_SNAPSHOT: 3, RESIZE: 4, ROLLBACK: 5, MERGE: 6, DELETE_SOURCE: 7 } as const;

/** The epoch that means "now". */
export const EPOCH_NOW = 0xffffffff;
/** The space that means "none". */
export const SPACE_NONE = 0xffff;

/** A `WebAssembly.Memory`, as far as it is used. Only the DOM library of TypeScript declares that namespace, and the declarations have to hold without it. */
export interface CoreMemoryObject {
  readonly buffer: ArrayBuffer;
  grow(pages: number): number;
}

/** Tickets: all that the plan loop needs. */
export interface TicketExports {
  readonly memory: CoreMemoryObject;
  /** Pointer to a buffer of 64 KiB for names, keys and batches. */
  exchange(): number;
  /** A ticket ≥ 0, or −(failure code); LIMIT and BUSY: no room for one more ticket now. Reads the exchange buffer when the kind has a payload. */
  submit(kind: number, space: number, epoch: number, offset: number, length: number): number;
  step(ticket: number): number;
  planPointer(ticket: number): number;
  /** How a command of the plan ended. Copies that went well need not be told. */
  complete(ticket: number, index: number, result: number): void;
  /** Of the last ticket that was DONE. */
  ticketResult(ticket: number): number;
  /** Of the last FAILED step: code, storage volume (0xFFFFFFFF: none), block. */
  failure(): number;
  failureVolume(): number;
  failureBlock(): number;
  /** Pages that the last MEMORY step asks for. */
  memoryNeeded(): number;
  /** The host could not grow the memory: the ticket's next step fails with LIMIT. */
  memoryDenied?(ticket: number): void;
  /** The kind of background ticket that the core wants driven now; 0 = none. */
  backgroundWanted(): number;
  /** 0 no, 1 the policy says so, 2 a waiting write cannot proceed without it. */
  wantsVolume(): number;
  /** A member that failed a write and can be done without, as a handle: to be faulted, in the catalogue and then by `memberSet`. −1: none. */
  faultWanted?(): number;
  /** What a member is from now on (`MEMBER`); the catalogue says so already. */
  memberSet?(id: number, member: number, state: number): number;
  growthDenied(): void;
  /** Takes `growthDenied` back: the pool has more now. */
  growthAllowed?(): void;
  /** The log in numbers: `Log.figures`. */
  figure(n: number): number;
}

export interface CoreExports extends TicketExports {
  configure(leafBlocks: number, checkpointEntries: number, unflushedLimitBytes: number, sumsCacheBytes: number): number;
  volumeAdd(
    id: number,
    level: number,
    members: number,
    stripBlocks: number,
    segmentBlocks: number,
    segmentCount: number,
    dataOffset: number,
    rootFrontOffset: number,
    rootBackOffset: number,
  ): number;
  /** Whether a storage volume can do without the members in the mask. This one, `faultWanted`, `memberSet` and SCRUB are not in a core without RAID. */
  volumeTolerates?(level: number, members: number, lost: number): number;
  /** Ends the scrub or rebuild that is under way: with CLOSED, or a rebuild that has done something with the place where to go on. */
  scrubCancel?(): void;
  volumeEvacuate(id: number): number;
  /** 0 unknown, 1 active, 2 evacuating, 3 released. */
  volumeState(id: number): number;
  volumeRemove(id: number): number;
  /** A storage volume that the policy would evacuate, or −1. */
  canGiveVolume(): number;
  policySet(growAt: number, compactTo: number, shrinkBelow: number, mode: number, volumesMin: number, volumesMax: number): void;

  sourceCount(): number;
  sourceGet(index: number): number;
  snapshotCount(): number;
  snapshotGet(index: number): number;
  currentEpoch(): number;
  volumeFigure(id: number, n: number): number;
  counter?(n: number): number;
  /** One finding of CHECK into the exchange buffer, its length; 0: no more. To be taken after each step. */
  problemTake(): number;

  diffBegin(spaceA: number, epochA: number, spaceB: number, epochB: number, fromBlock: number): number;
  diffNext(): number;
  diffBlock(): number;
  diffCount(): number;
  diffKind(): number;

  /** Planted builds only: switches one planted fault on (0: none); 256 beside it: bounds are not tighter than in the release. */
  plant?(n: number): void;
}
