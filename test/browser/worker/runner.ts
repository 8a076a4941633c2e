// Tests inside a dedicated worker, where alone the synchronous access handles are. Vitest's browser mode runs test files in the page, so the sentences are
// collected in the worker and handed to the page, which makes a vitest test of each and has it run in the worker: one by one, told as its own.
//
//   page     testsOfWorker(new Worker(…))          top-level await: asks for the sentences, then describes them
//   worker   describe(…), it(…); serveTests()
//
// A worker has no test framework: assertions come from the conformance suite itself, or from `check.ts`.

export interface WorkerTest {
  readonly path: readonly string[];
  readonly body: () => unknown;
}

const tests: WorkerTest[] = [];
const path: string[] = [];

export function describe(name: string, body: () => void): void {
  path.push(name);
  try {
    body();
  } finally {
    path.pop();
  }
}

export function it(name: string, body: () => unknown): void {
  tests.push({ path: [...path, name], body });
}

export type RunnerRequest = { readonly list: true } | { readonly run: number };
export type RunnerAnswer =
  | { readonly list: readonly (readonly string[])[] }
  | { readonly run: number; readonly error: { readonly message: string; readonly stack: string } | null };

const scope = globalThis as unknown as { onmessage: (event: MessageEvent<RunnerRequest>) => void; postMessage(answer: RunnerAnswer): void };
let ready: (() => void) | undefined;
/** A worker's file may wait for something at its top; a message that comes meanwhile finds no listener but one that this module has made already. */
const complete = new Promise<void>((resolve) => (ready = resolve));
scope.onmessage = ({ data }) => void complete.then(() => answer(data));

function answer(request: RunnerRequest): void {
  if ('list' in request) return scope.postMessage({ list: tests.map((test) => test.path) });
  const test = tests[request.run];
  Promise.resolve()
    .then(() => test?.body())
    .then(
      () => scope.postMessage({ run: request.run, error: null }),
      (error: unknown) => {
        const known = error instanceof Error ? error : new Error(String(error));
        scope.postMessage({ run: request.run, error: { message: `${known.name}: ${known.message}`, stack: known.stack ?? '' } });
      },
    );
}

/** To be called last in a worker's file. */
export function serveTests(): void {
  ready?.();
}
