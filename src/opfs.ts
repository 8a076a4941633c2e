// `varve/opfs`: pools on the origin private file system of a browser, and the words of `varve` that their users need. What else `varve` has (wrappers of
// devices, replication, streams of snapshots) a page takes from there: it would pay for it here without asking. Its bundle has
// classes of its own, and the core without RAID: a pool of a browser has storage volumes of one file each.
export { isVarveError, VarveError, type VarveErrorCode, type VarveErrorOptions } from './errors.ts';
export { formatSize, formatSizeExactly, parseSize } from './units.ts';
export { checkName } from './names.ts';
export { compileCore, useCore, type CoreModule, type CoreSource } from './core/instantiate.ts';
export {
  isSyncDevice,
  syncDevice,
  type DeviceSupports,
  type StorageDevice,
  type SyncStorageDevice,
  type WriteOptions,
} from './device/device.ts';
export { OpfsDevice, type AccessHandle, type OpfsDeviceOptions } from './device/opfs.ts';
export type { DiffRun } from './volume/diff.ts';
export { SnapshotView } from './volume/snapshot.ts';
export { DEFAULT_SOURCE, VolumeSource, type CallOptions, type VolumeWriteOptions } from './volume/source.ts';
export { VirtualVolume, type SnapshotInfo, type SnapshotOptions, type SourceInfo, type VolumeFigures } from './volume/volume.ts';
export type { CreateVolumeOptions, ReplaceResult } from './pool/pool.ts';
export type { PoolOptions } from './pool/assemble.ts';
export type { StorageVolumeState } from './pool/catalogue.ts';
export type { PoolQuota } from './pool/place.ts';
export type {
  CheckOptions,
  CheckProblem,
  CheckResult,
  DescribedRange,
  PoolDescription,
  PoolStatus,
  StorageVolumeStatus,
  VirtualVolumeStatus,
} from './pool/report.ts';
export type { VolumePolicy } from './pool/policy.ts';
export { OpfsPool as StoragePool, type InitOpfsPoolOptions, type OpenOpfsPoolOptions } from './opfs/pool.ts';
export { exportPool } from './opfs/archive.ts';
export { connect, importPool, PoolClient, SnapshotClient, VolumeClient, type ConnectOptions } from './opfs/client.ts';
export { serve } from './opfs/owner.ts';
