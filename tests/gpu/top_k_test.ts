// Selections longer than what llvmpipe loops in one invocation, which is where one kernel that both chose and ranked went wrong.
import { topK } from "../../models/graph/ops/neighbours.ts";
import { Program } from "../../models/graph/program.ts";
import { tensor } from "../../models/graph/tensor.ts";
import { assertEquals } from "../assert.ts";
import { randomValues } from "./compare.ts";
import { onGpu } from "./open.ts";

onGpu("the 5000 and the 8192 largest of a row are right, in order", async (backend) => {
  const columns = 10_007;
  for (const k of [5000, 8192]) {
    // A thousand different values: ties everywhere.
    const values = randomValues(columns, k).map((value) => Math.round(500 * value));
    const scores = tensor("scores", [1, columns], "input");
    const p = new Program("selection");
    const found = topK(p, scores, k);
    backend.write(scores, values);
    const executable = await backend.compile(p);
    await executable.run();
    const order = Array.from(values.keys()).sort((a, b) => values[b] - values[a] || a - b).slice(0, k);
    assertEquals(await backend.read(found.indices), Int32Array.from(order));
    assertEquals(await backend.read(found.values), Float32Array.from(order, (i) => values[i]));
  }
});
