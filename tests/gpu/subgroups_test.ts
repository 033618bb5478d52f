// Sums and maxima over rows by subgroups: the same bits as through workgroup memory, for every kernel that has them.
import { subgroupsInOrder } from "../../gpu/subgroups.ts";
import { lower } from "../../gpu/lowering.ts";
import { assert, assertEquals } from "../assert.ts";
import { opCases } from "../models/graph/op_cases.ts";
import { onGpu, withDevice } from "./open.ts";

withDevice("the device tells whether its subgroups lie in order", async ({ device, subgroups }) => {
  if (!subgroups) console.log("skipped: this adapter grants no subgroups");
  else assertEquals(await subgroupsInOrder(device), true);
  device.destroy();
});

onGpu("rows summed by subgroups have the bits of rows summed in workgroup memory", async (backend) => {
  if (!backend.device.features.has("subgroups")) return console.log("skipped: this adapter grants no subgroups");
  const seen = new Set<string>();
  // As on a real adapter, with 32 or 256 threads a row.
  backend.limits = { ...backend.limits, fallback: false, lanes: 0 };
  for (const test of opCases()) {
    const names = lower(test.program, { ...backend.limits, subgroups: true }).dispatches.map(({ kernel }) =>
      kernel.name
    );
    const meeting = names.filter((name) => name.endsWith("/subgroups"));
    if (meeting.length === 0) continue;
    for (const name of meeting) seen.add(name.replace("/vec4", ""));
    const results: unknown[] = [];
    for (const subgroups of [false, true]) {
      backend.limits = { ...backend.limits, subgroups };
      for (const [t, data] of test.inputs) backend.write(t, data);
      await (await backend.compile(test.program)).run();
      results.push(await Promise.all(test.outputs.map((t) => backend.read(t))));
    }
    assertEquals(results[1], results[0], test.name);
    backend.free(...test.inputs.map(([t]) => t), ...test.outputs);
  }
  assert(seen.size >= 10, `only ${[...seen].sort()} were run`);
});
