// What an update computes again, and what it computes chunk by chunk: the same numbers in less memory.

import { dropUnreadOutputs } from "../../models/graph/autodiff.ts";
import { planMemory } from "../../models/graph/plan.ts";
import type { Recomputation } from "../../models/graph/recompute.ts";
import type { Config } from "../../dino/config.ts";
import { recomputations } from "../../dino/memory/recomputations.ts";
import { planRun, setUpStep } from "../../dino/run/plan.ts";
import { assert, assertEquals, assertThrows } from "../assert.ts";
import { onEachBackend } from "../backends.ts";
import { onHalfGpu } from "../gpu/open.ts";
import { toyConfig, toyPixels } from "./toy_run.ts";
import { SIZES, update } from "./toy_update.ts";

/** Bytes of activations of an update. */
function arena(changes: Partial<Config>, recompute?: Recomputation): number {
  const plan = planRun(toyConfig({ ...SIZES, ...changes }), toyPixels(6, 20));
  const [program] = setUpStep({ ...plan, recompute }).programs.parts;
  dropUnreadOutputs(program);
  return planMemory(program).arenaBytes;
}

onEachBackend("recomputation: two updates are the same to the bit, whatever is computed again", async (backend) => {
  const kept = await update(backend, {}, {});
  assert(Number.isFinite(kept.loss) && kept.loss > 0);
  for (const choice of recomputations({ precision: "f32" }).slice(1)) {
    assertEquals(await update(backend, {}, choice), kept, JSON.stringify(choice));
  }
}, { backends: ["wasm", "webgpu"] });

onEachBackend(
  "crop chunks: the loss of all views at once, and its gradients but for the order of sums",
  async (backend) => {
    const whole = await update(backend, {}, {});
    for (const cropChunk of [1, 2, 4]) {
      const chunks = await update(backend, { cropChunk }, {});
      // Two updates, the second from weights that differ by the rounding of the first: Adam divides by gradients near nothing.
      const largest = Math.max(...whole.gradients.map(Math.abs));
      chunks.gradients.forEach((g, i) => assert(Math.abs(g - whole.gradients[i]) < 1e-3 * largest, `gradient ${i}`));
      assert(Math.abs(chunks.loss - whole.loss) < 1e-4 * whole.loss, `loss ${chunks.loss} instead of ${whole.loss}`);
      chunks.center.forEach((c, i) => assert(Math.abs(c - whole.center[i]) < 1e-5, `center ${i}`));
      assertEquals(await update(backend, { cropChunk }, recomputations({ precision: "f32" }).at(-1)), chunks);
    }
  },
  { backends: ["wasm", "webgpu"] },
);

onHalfGpu("recomputation: the same to the bit where activations are stored as f16", async (backend) => {
  // 24 crops of 17 tokens: enough rows for copies of the weights in halves.
  const wide: Partial<Config> = { precision: "f16", batchSize: 6 };
  const kept = await update(backend, wide, {});
  const [, ...choices] = recomputations({ precision: "f16" });
  for (const choice of [choices[0], choices.at(-1)!]) assertEquals(await update(backend, wide, choice), kept);
});

onEachBackend("recomputation: two updates of networks with batch norms are the same to the bit", async (backend) => {
  const others: Partial<Config>[] = [
    { arch: "resnet18", embedDim: 16, globalCropSize: 32, localCropSize: 32, localCropsNumber: 1 },
    {
      arch: "xcit_nano_12_p8",
      patchSize: 16,
      embedDim: 16,
      depth: 2,
      numHeads: 2,
      globalCropSize: 32,
      localCropSize: 16,
    },
  ];
  for (const other of others) {
    const network = { ...other, depth: other.depth ?? null, numHeads: other.numHeads ?? null, dropPathRate: 0.1 };
    const kept = await update(backend, network, {});
    const [, light, ...others] = recomputations({ precision: "f32" }), all = others.at(-1)!;
    for (const choice of [light, all]) assertEquals(await update(backend, network, choice), kept, other.arch);
    assert(arena(network, all) < 0.9 * arena(network, {}), other.arch);
  }
}, { backends: ["wasm"] });

Deno.test("recomputation: each choice takes less memory than the one before", () => {
  const sizes = recomputations({ precision: "f32" }).map((choice) => arena({ depth: 8 }, choice));
  for (let i = 1; i < sizes.length; i++) assert(sizes[i] < sizes[i - 1], sizes.join(" "));
  assert(sizes.at(-1)! < 0.5 * sizes[0], sizes.join(" "));
});

Deno.test("crop chunks: fewer views at a time take less memory; batch norm in the head refuses them", () => {
  const sizes = [null, 2, 1].map((cropChunk) => arena({ cropChunk }));
  assert(sizes[1] < sizes[0] && sizes[2] < sizes[1], sizes.join(" "));
  assertThrows(() => arena({ cropChunk: 2, useBnInHead: true }), RangeError, "--crop-chunk 2");
});
