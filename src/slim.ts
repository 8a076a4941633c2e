// `varve/slim`: `varve` without the core inside. Give it one before anything is opened: `useCore(bytes)`, with the bytes of `varve/core.wasm`.
export * from './index.ts';
