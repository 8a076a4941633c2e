// The ABI of the core with storage volumes of several members (RAID = 1): all of the other one's, and what is for members.

export * from './index';
export { counter, faultWanted, memberSet, plant, scrubCancel, volumeTolerates } from './volume/boundary';
