// Planned bytes are used bytes, and what does not fit is made to fit or refused with what would.

import { fitRecomputation, programsOf } from "../../../dino/memory/fit.ts";
import { recomputations } from "../../../dino/memory/recomputations.ts";
import { estimateMemory, planRun } from "../../../dino/run/plan.ts";
import { train } from "../../../dino/train.ts";
import { WebGpuBackend } from "../../../gpu/backend.ts";
import { OutOfMemoryError } from "../../../models/graph/backend.ts";
import { openWasm, workspaceBytes } from "../../../wasm/mod.ts";
import { withDevice } from "../../gpu/open.ts";
import { assert, assertEquals, assertRejects, assertStringIncludes } from "../../assert.ts";
import { toyConfig, toyPixels } from "../toy_run.ts";

const quiet = { sanitizeOps: false, sanitizeResources: false }; // workers end a moment after their backend is closed
const config = toyConfig({
  embedDim: 64,
  depth: 6,
  mlpRatio: 4,
  patchSize: 2,
  globalCropSize: 32,
  localCropSize: 16,
  localCropsNumber: 2,
  batchSize: 16,
  epochs: 1,
  knnEvery: 0,
});
const data = () => toyPixels(16, 40);

/** Bytes a plan asks for, scratch for `threads` included. */
function planned(recompute: ReturnType<typeof recomputations>[number] | undefined, threads: number): number {
  const plan = { ...planRun(config, data()), recompute };
  return estimateMemory(plan).total + Math.max(...programsOf(plan).map((p) => workspaceBytes(p, { threads })));
}

Deno.test("memory: the bytes that are planned are those the CPU backend holds after compiling", quiet, async () => {
  for (const recompute of [undefined, ...recomputations(config).slice(1)]) {
    const backend = await openWasm({ threads: 2, maximumBytes: 2 ** 28 });
    try {
      const plan = { ...planRun(config, data()), recompute };
      for (const program of programsOf(plan)) await backend.compile(program);
      const { persistent, arena, workspace } = backend.memory;
      const { activations } = estimateMemory(plan);
      assertEquals(arena, activations, "activations");
      const used = persistent + arena + workspace;
      // Op lists and the rounding of every buffer to 256 bytes are not planned for.
      assert(used >= planned(recompute, 2) && used < planned(recompute, 2) + 2e5, `${used}, ${planned(recompute, 2)}`);
    } finally {
      await backend.close();
    }
  }
});

Deno.test("memory: what lacks is computed again, and only as much as lacks", quiet, async () => {
  const choices = recomputations(config);
  for (const [i, wanted] of choices.slice(0, 3).entries()) {
    const maximumBytes = Math.ceil((planned(wanted, 1) + 3e5) / 65536) * 65536; // whole pages, the guard and op lists
    const backend = await openWasm({ threads: 1, maximumBytes });
    try {
      const fitted = await fitRecomputation(planRun(config, data()), backend);
      assertEquals(fitted.recompute, i === 0 ? undefined : wanted);
      if (i === 0) continue;
      assertStringIncludes(fitted.notices.at(-1)!, "computed again in the backward pass");
      const never = { ...config, recompute: "never" as const };
      const refused = await assertRejects(() => train(never, { backend, data: data() }), OutOfMemoryError, "bytes");
      assertStringIncludes(refused.message, "--recompute always");
      if (i === 1) continue;
      const { reason } = await train(config, { backend, data: data() });
      assertEquals(reason, "finished");
    } finally {
      await backend.close();
    }
  }
});

Deno.test(
  "memory: a run that nothing computed again makes fit is refused with the parts, chunks and batch that fit",
  quiet,
  async () => {
    const large = { ...config, batchSize: 64 }, images = toyPixels(64, 40);
    const least = estimateMemory({ ...planRun(large, images), recompute: recomputations(large).at(-1) }).total;
    // Where the last buffers have no room, activations had; where the first share fits, not even those.
    for (const share of [0.7, 0.98]) {
      const backend = await openWasm({ threads: 1, maximumBytes: Math.floor(share * least / 65536) * 65536 });
      try {
        const refused = await assertRejects(
          () => train(large, { backend, data: images }),
          OutOfMemoryError,
          "what fits",
        );
        const found = [...refused.message.matchAll(/--(accumulate|crop-chunk|batch-size) (\d+)/g)];
        assertEquals(found.map(([, flag]) => flag), ["accumulate", "crop-chunk", "batch-size"], refused.message);
        for (const [, flag, value] of found) {
          const key = flag.replace(/-(.)/g, (_, c) => c.toUpperCase());
          const fits = await fitRecomputation(planRun({ ...large, [key]: Number(value) }, images), backend);
          const programs = programsOf(fits);
          for (const program of programs) (await backend.compile(program)).dispose();
          for (const program of programs) backend.free(...program.roots());
        }
      } finally {
        await backend.close();
      }
    }
  },
);

withDevice("memory: what a GPU lacks is computed again there too", async (opened) => {
  const [kept, light] = recomputations(config).slice(0, 2);
  const bytes = (recompute: typeof kept) => estimateMemory({ ...planRun(config, data()), recompute }).total;
  const backend = new WebGpuBackend(opened, { maximumBytes: (bytes(kept) + bytes(light)) / 2 });
  assertEquals((await fitRecomputation(planRun(config, data()), backend)).recompute, light);
  await backend.close();
});
