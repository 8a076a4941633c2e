import { testsOfWorker } from '../worker/page.ts';

await testsOfWorker(new Worker(new URL('./pool.worker.ts', import.meta.url), { type: 'module' }));
