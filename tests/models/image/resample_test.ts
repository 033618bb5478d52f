// Tap tables: those kept for whole axes are what is computed sample by sample.
import {
  type Axis,
  maxTaps,
  TAP_HEADER,
  tapHeaderWords,
  tapRowWords,
  tapWords,
  writeTaps,
} from "../../../models/image/resample.ts";
import { assertEquals } from "../../assert.ts";

Deno.test("tables of whole axes are those of their samples, the first time and again", () => {
  for (const [source, target] of [[1, 5], [37, 96], [301, 96], [224, 224]]) {
    for (const interpolation of ["bilinear", "bicubic", "lanczos"] as const) {
      for (const reversed of [false, true]) {
        const whole: Axis = { source, target, windowStart: 0, windowCount: target, reversed };
        const words = tapWords(whole, interpolation), stride = tapRowWords(maxTaps(source, target, interpolation));
        for (let time = 0; time < 2; time++) {
          const taps = new Int32Array(4 + words).fill(-7);
          assertEquals(writeTaps(taps, 4, whole, interpolation), stride);
          for (let i = 0; i < target; i++) {
            const one = { ...whole, windowStart: i, windowCount: 1 };
            const expected = new Int32Array(tapWords(one, interpolation));
            writeTaps(expected, 0, one, interpolation);
            const at = reversed ? target - 1 - i : i, row = 4 + tapHeaderWords(target) + at * stride;
            assertEquals(
              [...taps.subarray(4 + TAP_HEADER * at, 4 + TAP_HEADER * (at + 1)), ...taps.subarray(row, row + stride)],
              [...expected.subarray(0, TAP_HEADER), ...expected.subarray(tapHeaderWords(1))],
            );
          }
          assertEquals([...taps.subarray(0, 4)], [-7, -7, -7, -7]);
        }
      }
    }
  }
});
