// `varve/node`: `varve`, and what stands on node:fs (Node, Deno and Bun).
export * from './index.ts';
export { FileDevice, syncDirectory, type FileDeviceOptions } from './device/file.ts';
export { RawDevice, type RawDeviceOptions, type RawGeometry } from './device/raw.ts';
export { DirectoryPool as StoragePool, type AddDevicesOptions, type InitPoolOptions, type OpenPoolOptions } from './pool/directory.ts';
export { exportPool, importPool } from './pool/directory-archive.ts';
export { replicate, restore, type RestorePathOptions } from './replication/files.ts';
