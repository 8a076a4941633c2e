// Where a pool's devices come from and go to: files in a directory (directory.ts), or whatever a caller gives.

import type { StorageDevice } from '../device/device.ts';
import { VarveError } from '../errors.ts';
import type { MemberRecord } from './catalogue.ts';

/** A device that was found, and where. */
export interface FoundDevice {
  readonly device: StorageDevice;
  readonly path: string | null;
}

/** What the platform lets this origin keep. */
export interface PoolQuota {
  /** Everything that the origin keeps, not only the pool. */
  readonly usageBytes: number;
  readonly quotaBytes: number;
  /** The platform does not take it away when it needs room. */
  readonly persisted: boolean;
}

/** Where the pool's devices come from and go to. */
export interface PoolPlace {
  /** The pool's own path, or null. */
  readonly path: string | null;
  /** Makes a device for a new storage volume. `prepare` writes labels and flushes; after that the device's existence is made durable. */
  make?(id: number, uuid: string, sizeBytes: number, prepare: (device: StorageDevice) => Promise<void>): Promise<FoundDevice>;
  /** Where a member's path is, for people and programs outside. */
  locate?(path: string): string;
  /** Was this made by `make`, so that it may be deleted when it is empty? */
  owns?(path: string | null): boolean;
  /** Deletes a device that the catalogue does not name any more; it is closed already. */
  remove?(path: string, uuid: string): Promise<void>;
  /** The error when the lock is no longer ours. */
  fence?(): VarveError | undefined;
  /** Set by the pool; called when a write found the lock lost, before the write rejects. */
  onLost?: ((error: VarveError) => void) | undefined;
  /** The members have changed: a cache of their paths may be written. */
  remember?(pool: string, members: readonly MemberRecord[]): Promise<void>;
  /** The bound that the platform sets, where it sets one. */
  quota?(): Promise<PoolQuota>;
  /** Everything is closed. */
  release(): void | Promise<void>;
}

/** Devices that the caller gave, and perhaps gives more of. */
export class GivenPlace implements PoolPlace {
  readonly path = null;
  readonly make?: NonNullable<PoolPlace['make']>;

  constructor(provide: ((sizeBytes: number) => Promise<StorageDevice | undefined>) | undefined) {
    if (provide === undefined) return;
    this.make = async (_id, _uuid, sizeBytes, prepare) => {
      const device = await provide(sizeBytes);
      if (device === undefined) throw new VarveError('VARVE_NO_SPACE', 'adding a storage volume');
      await prepare(device);
      return { device, path: null };
    };
  }

  release(): void {
    // the devices are closed, and that is all there is
  }
}
