// Weights packed once for several products: the same bits as packed for each, no byte more, packed again after a write.
import { linear, matmul } from "../../models/graph/ops/matmul.ts";
import { add, emitCopy } from "../../models/graph/ops/elementwise.ts";
import { planMemory } from "../../models/graph/plan.ts";
import { Program } from "../../models/graph/program.ts";
import { size, type Tensor, tensor } from "../../models/graph/tensor.ts";
import { openWasm, workspaceBytes } from "../../wasm/mod.ts";
import { planWithPanels } from "../../wasm/shared_panels.ts";
import { assert, assertEquals } from "../assert.ts";

const noise = (n: number, seed: number) => Float32Array.from({ length: n }, (_, i) => Math.sin(i * 1.7 + seed));

/** Two groups of rows pass through two layers; the first layer's weight is doubled before the second group if asked. */
function layers(rows: readonly number[], doubled = false) {
  const D = 40, w1 = tensor("w1", [72, D], "param"), w2 = tensor("w2", [D, 72], "param");
  const inputs = rows.map((m, i) => tensor(`x${i}`, [m, D], "input"));
  const outputs = rows.map((m, i) => tensor(`y${i}`, [m, D], "output"));
  const p = new Program("layers");
  inputs.forEach((x, i) => {
    if (doubled && i === 1) p.emit({ kind: "add", in: { a: w1, b: w1 }, out: { y: w1 }, attrs: {} });
    // As wide in between as the panels are large, so that the arena has gaps for them.
    const wide = add(p, matmul(p, x, tensor("wide", [D, 300], "param")), tensor("zero", [rows[i], 300], "constant"));
    const y = linear(p, linear(p, x, w1, undefined, { gelu: true }), w2);
    emitCopy(p, y, outputs[i]);
    emitCopy(p, wide, tensor("kept", wide.shape, "output"));
  });
  return { p, w1, w2, inputs, outputs };
}

async function results(rows: readonly number[], doubled: boolean, threads: number): Promise<Float32Array[]> {
  const backend = await openWasm({ threads, redZone: 256 });
  const { p, w1, w2, inputs, outputs } = layers(rows, doubled);
  backend.write(w1, noise(size(w1), 1));
  backend.write(w2, noise(size(w2), 2));
  inputs.forEach((x, i) => backend.write(x, noise(size(x), 3 + i)));
  const told = workspaceBytes(p, { threads });
  const executable = await backend.compile(p);
  assertEquals(backend.memory.workspace, told);
  await executable.run();
  backend.write(w2, noise(size(w2), 9)); // what the host writes is packed anew
  if (doubled) backend.write(w1, noise(size(w1), 1));
  await executable.run();
  const read = await Promise.all(outputs.map((y: Tensor) => backend.read(y)));
  await backend.close();
  return read as Float32Array[];
}

Deno.test("shared panels: products of one weight share them until it is written, and the arena does not grow", () => {
  const { p } = layers([500, 490, 20]);
  const { plan, panels } = planWithPanels(p);
  assertEquals(plan.arenaBytes, planMemory(p).arenaBytes);
  const [first, second] = [
    [...panels.values()].filter(({ packed }) => !packed),
    [...panels.values()].filter((s) => s.packed),
  ];
  assert(first.length > 0, "no weight found room");
  assertEquals(second.length, 2 * first.length);
  for (const { offset, bytes } of panels.values()) assert(offset + bytes <= plan.arenaBytes);
  const rewritten = planWithPanels(layers([500, 490], true).p);
  assertEquals(
    [...rewritten.panels.values()].map(({ packed }) => packed),
    [false, true],
    "the doubled weight is not shared",
  );
});

Deno.test({
  name: "shared panels: the same bits as products that pack for themselves, with any number of threads",
  sanitizeOps: false, // worker threads outlive the test that closes them by a moment
  sanitizeResources: false,
  async fn() {
    for (const doubled of [false, true]) {
      const rows = [500, 490];
      const alone = (await results([500], false, 1))[0];
      const [one, two] = [await results(rows, doubled, 1), await results(rows, doubled, 2)];
      assertEquals(one[0], alone);
      assertEquals(one, two);
      if (!doubled) continue;
      const undoubled = await results(rows, false, 1);
      assert(one[1].some((v, i) => v !== undoubled[1][i]), "panels of the old weight were used");
    }
  },
});
