// `varve/slim`: `varve` without the core inside. Give it one before anything is opened: `useCore(bytes)`, with the bytes of `varve/core.wasm`, or of
// `varve/core.raid.wasm` where storage volumes have several devices.
export * from './index.ts';
