// The k largest scores of a row, by insertion: few candidates pass the threshold once the list has filled.
import { word } from "./step";

/** Arguments: scores, values, indices, earlier values, earlier indices or 0, columns, k, index of the first column. A chunk is a row. */
export function topK(step: usize, chunk: u32): void {
  const columns = word(step, 5), k = word(step, 6), first = word(step, 7);
  const row = word(step, 0) + (<usize>chunk * columns << 2);
  const values = word(step, 1) + (<usize>chunk * k << 2), indices = word(step, 2) + (<usize>chunk * k << 2);
  let count: u32 = 0, threshold: f32 = -Infinity;
  if (word(step, 3) != 0) {
    const bytes = <usize>k << 2, at = <usize>chunk * bytes;
    memory.copy(values, word(step, 3) + at, bytes);
    memory.copy(indices, word(step, 4) + at, bytes);
    count = k;
    threshold = load<f32>(values + bytes - 4);
  }
  for (let i: u32 = 0; i < columns; i++) {
    const v = load<f32>(row + (<usize>i << 2));
    if (count == k && !(v > threshold)) continue; // equal scores keep the earlier index
    let slot = count < k ? count++ : k - 1;
    for (; slot > 0 && v > load<f32>(values + (<usize>(slot - 1) << 2)); slot--) {
      const p = <usize>slot << 2;
      store<f32>(values + p, load<f32>(values + p - 4));
      store<u32>(indices + p, load<u32>(indices + p - 4));
    }
    store<f32>(values + (<usize>slot << 2), v);
    store<u32>(indices + (<usize>slot << 2), first + i);
    threshold = load<f32>(values + (<usize>(k - 1) << 2));
  }
}
