import { testsOfWorker } from '../worker/page.ts';

await testsOfWorker(new Worker(new URL('./devices.worker.ts', import.meta.url), { type: 'module' }));
