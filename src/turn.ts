// Letting go of the thread. A caller that awaits what is answered at once never leaves the microtasks, and until it does no I/O completes, no timer fires.

/** Resolves in a task of its own, after I/O that has ended was heard of. */
export function nextTask(): Promise<void> {
  if (typeof setImmediate === 'function') return new Promise((resolve) => void setImmediate(resolve));
  // Browsers: a timer of 0 ms takes 4 ms once it is nested, a message does not.
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(0);
  });
}
