// Parameter groups as the reference forms them, and the scalars of frozen epochs.

import { defaultConfig } from "../../dino/config.ts";
import { OptimizerSteps, PARAMETER_GROUP, PARAMETER_GROUPS, parameterGroup } from "../../dino/optimizer.ts";
import { networkOf } from "../../dino/config/networks.ts";
import { networkShapes } from "../../models/dino_network.ts";
import { GROUP, GROUP_COLUMNS } from "../../models/graph/ops/optimizer.ts";
import { assertAlmostEquals, assertEquals, assertThrows } from "../assert.ts";

const fitted = { ...defaultConfig(), globalCropSize: 224, localCropSize: 96, warmupEpochs: 10 };

Deno.test("optimizer: a ViT-S has the reference's 55 decayed and 102 other tensors, 56 with a trainable gain", () => {
  const count = (normLastLayer: boolean) => {
    const counts = Array(PARAMETER_GROUPS).fill(0);
    for (const [name, shape] of networkShapes(networkOf(fitted))) {
      counts[parameterGroup(name, shape, { normLastLayer })]++;
    }
    const { decayed, notDecayed, lastLayer, fixed } = PARAMETER_GROUP;
    return [counts[decayed] + counts[lastLayer], counts[notDecayed], counts[fixed]];
  };
  assertEquals(count(true), [55, 102, 1]);
  assertEquals(count(false), [56, 102, 0]);
});

Deno.test("optimizer: class token and position embedding decay, norms and biases do not", () => {
  const group = (name: string, ...shape: number[]) => parameterGroup(name, shape, { normLastLayer: true });
  assertEquals(group("backbone.cls_token", 1, 1, 8), PARAMETER_GROUP.decayed);
  assertEquals(group("backbone.pos_embed", 1, 5, 8), PARAMETER_GROUP.decayed);
  assertEquals(group("backbone.norm.weight", 8), PARAMETER_GROUP.notDecayed);
  assertEquals(group("head.last_layer.weight_v", 16, 8), PARAMETER_GROUP.lastLayer);
});

Deno.test("optimizer: a frozen last layer counts no updates and starts afresh later", () => {
  const values = { lr: 0.1, weightDecay: 0.04, momentum: 0.9, teacherTemp: 0.04 };
  const optimizer = new OptimizerSteps(defaultConfig());
  optimizer.next({ ...values, lastLayerFrozen: true });
  const table = optimizer.next({ ...values, lastLayerFrozen: true });
  const at = (group: number, column: number) => table[group * GROUP_COLUMNS + column];
  assertEquals(optimizer.steps, [2, 2, 0, 0]);
  assertEquals([0, 1, 2, 3].map((group) => at(group, GROUP.active)), [1, 1, 0, 0]);
  assertAlmostEquals(at(0, GROUP.biasCorrection1), 1 - 0.9 ** 2, 1e-7);
  assertEquals(at(PARAMETER_GROUP.notDecayed, GROUP.weightDecay), 0);

  const resumed = new OptimizerSteps(defaultConfig(), optimizer.steps);
  resumed.next({ ...values, lastLayerFrozen: false }, table);
  assertEquals(resumed.steps, [3, 3, 1, 0]);
  assertEquals([at(2, GROUP.active), at(2, GROUP.first), at(0, GROUP.first)], [1, 1, 0]);
  assertAlmostEquals(at(2, GROUP.biasCorrection2), 1 - 0.999, 1e-7); // float32 table
  assertThrows(() => new OptimizerSteps(defaultConfig(), [1]), RangeError, "whole numbers");
});
