// A stream through a MessagePort, a piece at a time and only when it is asked for. (Not every browser can hand a stream over itself.)
//
//   reader                     writer
//   { pull }      ──────►
//                 ◄──────      { bytes } | { end } | { error }
//   { cancel }    ──────►

import { checkBytes } from '../device/device.ts';
import { decodeError, encodeError, isRecord, type WireError } from './wire.ts';

/** The stream that the other side of the port gives. */
export function pulledStream(port: MessagePort): ReadableStream<Uint8Array> {
  return new ReadableStream<Uint8Array>(
    {
      pull: (controller) =>
        new Promise<void>((resolve, reject) => {
          port.onmessage = ({ data }: MessageEvent<unknown>) => {
            if (!isRecord(data)) return;
            if (data['bytes'] instanceof Uint8Array) controller.enqueue(data['bytes']);
            else if (data['end'] === true) controller.close();
            else return reject(decodeError(data['error'] as WireError));
            resolve();
          };
          port.postMessage({ pull: true });
        }),
      cancel: () => port.postMessage({ cancel: true }),
    },
    { highWaterMark: 0 },
  );
}

/** Gives a stream to the other side of the port. @returns ends that: what was not asked for is given up */
export function servePulls(port: MessagePort, stream: ReadableStream<Uint8Array>): () => Promise<void> {
  const reader = stream.getReader();
  const stop = (): Promise<void> => reader.cancel().catch(() => undefined); // it failed by itself already
  port.onmessage = ({ data }: MessageEvent<unknown>) => {
    if (!isRecord(data)) return;
    if (data['cancel'] === true) return void stop();
    reader
      .read()
      .then(({ value, done }) => {
        if (!done) checkBytes('reading a stream', value);
        port.postMessage(done ? { end: true } : { bytes: value.slice() });
      })
      .catch((error: unknown) => port.postMessage({ error: encodeError(error) }));
  };
  return stop;
}
