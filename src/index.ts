// `varve`: everything that needs no platform.
export { isVarveError, VarveError, type VarveErrorCode, type VarveErrorOptions } from './errors.ts';
export { formatSize, formatSizeExactly, parseSize } from './units.ts';
export { checkName } from './names.ts';
export { compileCore, useCore, type CoreModule, type CoreSource } from './core/instantiate.ts';
export {
  isSyncDevice,
  syncDevice,
  type CallbackDevice,
  type DeviceSupports,
  type PromptDevice,
  type StorageDevice,
  type SyncStorageDevice,
  type WriteOptions,
} from './device/device.ts';
export { MemoryDevice } from './device/memory.ts';
export { SliceDevice } from './device/wrap/slice.ts';
export { ReadOnlyDevice } from './device/wrap/read-only.ts';
export { TraceDevice, type TraceEvent } from './device/wrap/trace.ts';
export { FaultDevice, type Fault, type FaultCall } from './device/wrap/fault.ts';
export {
  Log,
  type CreateLogOptions,
  type LogFigures,
  type LogGeometry,
  type LogOptions,
  type LogPolicy,
  type LogVolume,
  type LogVolumeFigures,
  type MemberState,
  type RebuildOptions,
  type RebuildResult,
  type ScrubOptions,
  type VolumeState,
} from './volume/log.ts';
export type { LoopHooks } from './volume/loop.ts';
export type { DiffRun, DiffState } from './volume/diff.ts';
export type { LogProblem, LogRange, SnapshotMember, SnapshotState, SourceState, Structure } from './volume/state.ts';
export { SnapshotView } from './volume/snapshot.ts';
export { DEFAULT_SOURCE, VolumeSource, type CallOptions, type VolumeWriteOptions } from './volume/source.ts';
export { VirtualVolume, type SnapshotInfo, type SnapshotOptions, type SourceInfo, type VolumeFigures } from './volume/volume.ts';
export { StoragePool, type CreateVolumeOptions, type ReplaceResult } from './pool/pool.ts';
export type { CreatePoolOptions, PoolOptions } from './pool/assemble.ts';
export type { StorageVolumeState } from './pool/catalogue.ts';
export type { FoundDevice, PoolQuota } from './pool/place.ts';
export type {
  CheckOptions,
  CheckProblem,
  CheckResult,
  DescribedRange,
  PoolDescription,
  PoolStatus,
  ScrubPoolOptions,
  ScrubResult,
  StorageVolumeStatus,
  VirtualVolumeStatus,
} from './pool/report.ts';
export type { VolumePolicy } from './pool/policy.ts';
export { RAID_LEVELS, type RaidLevel } from './pool/raid.ts';
export { replicate, type ReplicateOptions, type ReplicateProgress, type ReplicateResult } from './replication/replicate.ts';
export { restore, type RestoreOptions, type RestoreProgress, type RestoreResult } from './replication/restore.ts';
export { exportSnapshot, importSnapshot, type SnapshotSource, type SnapshotTarget } from './replication/snapshot-stream.ts';
