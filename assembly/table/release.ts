// Leaf images that no leaf stands for any more: when a leaf that has one is freed, or goes to another space, the image's
// number is kept here until the checkpoint code asks for it. The list is made of the freed leaves themselves, each cut down
// to one node, so giving memory back never needs any.
//
//   node  next u32 │ image u32
import { allocate, free, resize } from '../std/allocator';
import { COUNT_IMAGE_RELEASED, count } from '../std/counters';
import { LEAF_IMAGE } from './layout';

let released: u32 = 0;

function push(node: u32, image: u32): void {
  store<u32>(node, released);
  store<u32>(node, image, 4);
  released = node;
  count(COUNT_IMAGE_RELEASED);
}

/** Frees a leaf's own memory (its history is gone already) and remembers its image. */
export function leafFree(leaf: u32): void {
  const image = load<u32>(leaf, LEAF_IMAGE);
  if (image) push(resize(leaf, 8), image);
  else free(leaf);
}

/** The leaf lives on but its image no longer stands for it. Needs room for one node. */
export function leafForgetImage(leaf: u32): void {
  const image = load<u32>(leaf, LEAF_IMAGE);
  if (!image) return;
  store<u32>(leaf, 0, LEAF_IMAGE);
  push(allocate(8), image);
}

/** One released image, 0 when there is none left. */
export function releasedImageTake(): u32 {
  const node = released;
  if (!node) return 0;
  const image = load<u32>(node, 4);
  released = load<u32>(node);
  free(node);
  return image;
}
