// One stop of the round trip, under whatever runtime this is run: opens a pool, verifies every snapshot that is there, makes the next one.
//
//   RUNTIME test/browser/system/step.ts DIRECTORY NUMBER
import { StoragePool } from '../../../src/node.ts';
import { takeStep, verifySteps } from './steps.ts';

const [, , path, number] = process.argv;
if (path === undefined || number === undefined) throw new Error('expected the directory of a pool, and the number of the step');
const pool = await StoragePool.open(path);
const volume = await pool.volume('disk');
const wrong = await verifySteps(volume, Number(number) - 1);
await takeStep(volume, Number(number));
const { problems } = await pool.check();
await pool.close();
console.log(JSON.stringify({ wrong, problems: problems.length }));
