// Messages between the owner of a pool and its clients, and the two ways that they go.
//
//   client                                     owner
//   { hello: session, wire }      ──────────►            on the pool's BroadcastChannel, or on the MessagePort of the tab's own worker
//                                 ◄──────────  { welcome: session, owner }
//   { id, call, … }               ──────────►            one call
//                                 ◄──────────  { id, ok | error | moved }
//   { ping }                      ──────────►
//                                 ◄──────────  { pong }
//                                 ◄──────────  { released: durable }       the owner gives the pool up; `durable`: nothing acknowledged is lost by it
//
// Within a tab a session runs over a MessagePort, which hands buffers over without a copy. Between tabs it runs over a BroadcastChannel of its own, whose
// name only the two know. Rejected: MessagePorts between tabs. Only a SharedWorker or a service worker can pass them on: one more program to deliver, not
// there in every browser, and one more party that can fail while a call is in flight.

import { messageOf, VarveError, type VarveErrorCode } from '../errors.ts';

export interface Wire {
  post(message: object, transfer?: Transferable[]): void;
  /** Set once. */
  onmessage: ((message: unknown) => void) | undefined;
  close(): void;
}

/** A BroadcastChannel as a wire. Buffers are copied. */
export class ChannelWire implements Wire {
  readonly #channel: BroadcastChannel;
  onmessage: ((message: unknown) => void) | undefined;

  constructor(name: string) {
    this.#channel = new BroadcastChannel(name);
    this.#channel.onmessage = ({ data }: MessageEvent<unknown>) => this.onmessage?.(data);
  }

  post(message: object): void {
    this.#channel.postMessage(message);
  }

  close(): void {
    this.#channel.close();
  }
}

/** A MessagePort as a wire: of one session among others on it, told apart by its name in each message. */
export class PortWire implements Wire {
  readonly #port: MessagePort;
  readonly #session: string;
  readonly #listener: (event: MessageEvent<unknown>) => void;
  onmessage: ((message: unknown) => void) | undefined;

  constructor(port: MessagePort, session: string) {
    this.#port = port;
    this.#session = session;
    this.#listener = ({ data }) => {
      if (isRecord(data) && data['session'] === session && isRecord(data['message'])) this.onmessage?.(data['message']);
    };
    port.addEventListener('message', this.#listener);
    port.start();
  }

  post(message: object, transfer: Transferable[] = []): void {
    this.#port.postMessage({ session: this.#session, message }, transfer);
  }

  close(): void {
    this.#port.removeEventListener('message', this.#listener);
  }
}

export type JsonRecord = Record<string, unknown>;

export function isRecord(value: unknown): value is JsonRecord {
  return typeof value === 'object' && value !== null;
}

// ——— names that pages of one origin share ———

export const channelName = (path: string): string => `varve:pool:${path}`;
export const wireName = (path: string, session: string): string => `varve:wire:${path}:${session}`;
/** Held by an owner for its term: who waits for it hears of its end, however it ends. */
export const ownerLockName = (path: string, owner: string): string => `varve:owner:${path}:${owner}`;
/** Held by a client for its session, for the same reason. */
export const sessionLockName = (path: string, session: string): string => `varve:session:${path}:${session}`;

// ——— errors across the wire ———

export interface WireError {
  readonly kind: 'varve' | 'range' | 'type' | 'other';
  readonly code?: string;
  readonly doing?: string;
  readonly message: string;
  readonly volume?: number | undefined;
  readonly block?: number | undefined;
}

export function encodeError(error: unknown): WireError {
  const message = messageOf(error);
  if (error instanceof VarveError) {
    return { kind: 'varve', code: error.code, doing: error.doing, message, volume: error.volume, block: error.block };
  }
  return { kind: error instanceof RangeError ? 'range' : error instanceof TypeError ? 'type' : 'other', message };
}

export function decodeError(error: WireError): Error {
  if (error.kind === 'range') return new RangeError(error.message);
  if (error.kind === 'type') return new TypeError(error.message);
  if (error.kind === 'other' || error.code === undefined) {
    return new VarveError('VARVE_INTERNAL', 'a call to the owner of the pool', { detail: error.message });
  }
  const { doing = '', message, volume, block } = error;
  const prefix = `${doing}: `;
  // The place is in the message already; VarveError would put it there a second time.
  return new VarveError(error.code as VarveErrorCode, doing, {
    detail: message.startsWith(prefix) ? message.slice(prefix.length).replace(/ \(storage volume \d+(?:, block \d+)?\)/, '') : message,
    volume,
    block,
  });
}
