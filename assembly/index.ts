// The ABI: what the host calls. Re-exports only, so a change here is a change of the interface. This is the core without storage volumes of several
// members; raid.ts is the whole one.

export {
  exchange, configure, volumeAdd, volumeEvacuate, volumeState, volumeRemove, wantsVolume, canGiveVolume, policySet, growthDenied,
  growthAllowed, submit, step, planPointer, complete, ticketResult, failure, failureVolume, failureBlock, memoryDenied, memoryNeeded,
  backgroundWanted, sourceCount, sourceGet, snapshotCount, snapshotGet, currentEpoch, figure, volumeFigure, problemTake,
  diffBegin, diffNext, diffBlock, diffCount, diffKind,
} from './volume/boundary';
export { frameBuffer, frameDecode, frameEncode, frameSize } from './format/frame';
export { labelBackOffset, labelDecode, labelEncode, labelLayout } from './format/label';
