// Schedules at their seams; the whole curves are compared with the reference's by the parity command.

import { defaultConfig } from "../../dino/config.ts";
import { cosineAt, scaleLr, scheduledValues, teacherTempAt } from "../../dino/schedule.ts";
import { assertAlmostEquals, assertEquals, assertThrows } from "../assert.ts";

Deno.test("schedule: the warm-up starts at exactly 0 and gives the base value twice", () => {
  const options = { base: 0.002, final: 1e-6, total: 20, warmup: 5 };
  assertEquals([0, 4, 5].map((step) => cosineAt(step, options)), [0, 0.002, 0.002]);
  assertAlmostEquals(cosineAt(1, options), 0.0005, 1e-18);
  assertEquals(cosineAt(0, { ...options, warmup: 1 }), 0); // a single point is the first end
  assertEquals(cosineAt(0, { ...options, warmup: 0 }), 0.002);
});

Deno.test("schedule: the cosine passes its middle and never reaches its end", () => {
  const options = { base: 0.04, final: 0.4, total: 100 };
  assertAlmostEquals(cosineAt(50, options), 0.22, 1e-15);
  const last = cosineAt(99, options);
  assertAlmostEquals(last, 0.4 - 0.5 * 0.36 * (1 - Math.cos(Math.PI / 100)), 1e-15);
});

Deno.test("schedule: updates outside the run and endless warm-ups are refused", () => {
  assertThrows(() => cosineAt(20, { base: 1, final: 0, total: 20 }), RangeError, "update 20 is not one of 0 to 19");
  assertThrows(() => cosineAt(-1, { base: 1, final: 0, total: 20 }), RangeError);
  assertThrows(() => cosineAt(0, { base: 1, final: 0, total: 20, warmup: 21 }), RangeError, "exceeds the run");
});

Deno.test("schedule: the teacher temperature warms up an epoch at a time, both ends included", () => {
  const temps = [0, 1, 2, 3, 9].map((epoch) => teacherTempAt(epoch, 0.04, 0.07, 3));
  assertEquals(temps, [0.04, 0.05500000000000001, 0.07, 0.07, 0.07]); // the middle is numpy's, rounding and all
  assertEquals(teacherTempAt(0, 0.04, 0.07, 1), 0.04);
  assertEquals(teacherTempAt(0, 0.04, 0.07, 0), 0.07);
});

Deno.test("schedule: the learning rate scales with the batch, its end does not", () => {
  assertEquals(scaleLr(0.0005, 64), 0.000125);
  const config = { ...defaultConfig(), batchSize: 512, epochs: 2, warmupEpochs: 0, minLr: 1e-5, freezeLastLayer: 1 };
  const first = scheduledValues(config, 10, 0), last = scheduledValues(config, 10, 19);
  assertEquals([first.lr, first.lastLayerFrozen, last.lastLayerFrozen], [0.001, true, false]);
  assertAlmostEquals(last.lr, 1e-5, 1e-5);
});
