// The lookup table. Only re-exports.
export {
  EPOCH_NOW, KIND_ABSENT, KIND_HOLE, KIND_MAPPED, LEAF_DIRTY, LEAF_FLAGS, LEAF_HISTORY, LEAF_IMAGE, LEAF_NEWEST_CHANGE, LEAF_TOUCHED, SPACE_NONE,
  VOLUME_HOLE, leafBlocks, leafMask, leafShift,
} from './layout';
export {
  liveAdd, liveAttach, liveAttachRoom, liveClear, liveCount, liveDeathSequence, liveDetach, liveInRange, liveRemove, liveTotal,
} from './live';
export {
  SPACE_CURRENT, SPACE_EXTERNAL, SPACE_ROOM, historyEntries, leafCount, mappedBlocks, pinAdd, pinCount, pinEpoch, pinReferences, pinRemove, pinRoom,
  pinnedBetween, spaceCount, spaceCreate, spaceDepth, spaceFlag, spaceFlags, spaceIdNext, spaceNext, spaceParent, spaceParentEpoch, spacePointer,
  spaceResize, spaceSizeBytes, spaceUid, tableInitialize,
} from './space';
export { leafDropIfEmpty, leafFind, leafFindShape, leafMarkDirty, leafRoom, leafRoomPlain } from './leaf';
export { cursorLeaf, cursorShape, cursorSpace, leafCursorBegin, leafCursorNext, leafCursorNextDirty, leafCursorSet } from './cursor';
export { LEAF_NONE, leavesTotal } from './directory';
export { historyRoom, largestHistoryBytes } from './history';
export {
  foundBirth, foundBlock, foundSpace, foundVolume, lookupBatch, tableFind, tableOwns, tableResolve, tableExpect, tableResolveRange, tableWarm,
} from './lookup';
export { tableMove, tablePut, tableTrim, trimFirst } from './update';
export { spaceDestroy, sweepBegin, sweepStep, tableSweep } from './sweep';
export { mergeAllowed, mergeBegin, mergeStep, tableMerge } from './merge';
export { diffBegin, diffBlock, diffCount, diffKind, diffNext } from './diff';
export { recountBegin, recountStep, tableRecount } from './recount';
export { leafImageRead, leafImageRoom, leafImageSize, leafImageWrite } from './image';
export { gateBegin, gateEnd, gateSet, recovering } from './gate';
export { releasedImageTake } from './release';
export { squeezeStep, squeezeWanted } from './squeeze';
