// `varve/opfs`: `varve`, and what stands on the origin private file system of a browser. Its bundle has classes of its own, and the core without RAID: a
// pool of a browser has storage volumes of one file each.
export * from './index.ts';
export { OpfsDevice, type AccessHandle, type OpfsDeviceOptions } from './device/opfs.ts';
export { OpfsPool as StoragePool, type InitOpfsPoolOptions, type OpenOpfsPoolOptions } from './opfs/pool.ts';
export { exportPool } from './opfs/archive.ts';
export { connect, importPool, PoolClient, SnapshotClient, VolumeClient, type ConnectOptions } from './opfs/client.ts';
export { serve } from './opfs/owner.ts';
