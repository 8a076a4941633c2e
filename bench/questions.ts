// All questions, in the order in which they are asked.
import { question as amplification } from './amplification.ts';
import { question as blockStores } from './block-stores.ts';
import { question as diffs } from './diffs.ts';
import { question as direct } from './direct.ts';
import { question as flush } from './flush.ts';
import type { Question } from './harness/question.ts';
import { question as hashing } from './hashing.ts';
import { question as lookups } from './lookups.ts';
import { question as memory } from './memory.ts';
import { question as metadata } from './metadata.ts';
import { question as raid } from './raid.ts';
import { question as randomReads } from './random-reads.ts';
import { question as randomWrites } from './random-writes.ts';
import { question as reopen } from './reopen.ts';
import { question as sequential } from './sequential.ts';
import { question as snapshots } from './snapshots.ts';

export const questions: readonly Question[] = [
  hashing,
  lookups,
  memory,
  sequential,
  randomWrites,
  randomReads,
  flush,
  direct,
  blockStores,
  snapshots,
  diffs,
  metadata,
  amplification,
  reopen,
  raid,
];
