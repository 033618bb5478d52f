// Sums and maxima over rows by subgroups: the same bits as through workgroup memory, for every kernel that has them.
import type { Kernel } from "../../gpu/shader.ts";
import { subgroupsInOrder } from "../../gpu/subgroups.ts";
import { lower } from "../../gpu/lower.ts";
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

const ROWS = "gpu/kernels/rows_subgroups.wgsl";

/** The kernel as a device with subgroups of this size runs it: what lanes read of each other goes through workgroup memory. */
function ofSize(size: number, kernel: Kernel): Kernel {
  const sources = kernel.sources.map(({ file, text }) => {
    if (file !== ROWS) return { file, text };
    const replaced = text.replaceAll("subgroupAdd(1u)", `${size}u`)
      .replace(/subgroupShuffleXor\((\w+), distance\)/g, "shuffled($1, row * LANES + lane, distance)");
    assert(!/subgroup(Add|Shuffle)/.test(replaced), replaced);
    return { file, text: `${replaced}\n${SHUFFLED}` };
  });
  return { ...kernel, name: `${kernel.name} of ${size}`, sources };
}

const SHUFFLED = `
var<workgroup> registers: array<f32, 256>;
fn shuffled(value: f32, thread: u32, distance: u32) -> f32 {
  registers[thread] = value;
  workgroupBarrier();
  let other = registers[thread ^ distance];
  workgroupBarrier();
  return other;
}`;

onGpu("rows summed by subgroups of any size have the same bits", async (backend) => {
  backend.limits = { ...backend.limits, fallback: false, lanes: 0 };
  const get = backend.pipelines.get.bind(backend.pipelines);
  const seen = new Set<string>();
  for (const test of opCases()) {
    // Each kernel once: a software adapter takes its time to build one.
    const { dispatches } = lower(test.program, { ...backend.limits, subgroups: true });
    const meeting = dispatches.map(({ kernel }) => kernel).filter(({ name }) => name.endsWith("/subgroups"));
    const lanes = (kernel: Kernel) => `${kernel.name.replace("/vec4", "")} ${kernel.constants?.LANES}`;
    if (meeting.every((kernel) => seen.has(lanes(kernel)))) continue;
    for (const kernel of meeting) seen.add(lanes(kernel));
    const results: unknown[] = [];
    for (const size of [0, 4, 32, 64, 128]) {
      backend.limits = { ...backend.limits, subgroups: size > 0 };
      backend.pipelines.get = (kernel, storage) =>
        get(kernel.sources.some(({ file }) => file === ROWS) ? ofSize(size, kernel) : kernel, storage);
      for (const [t, data] of test.inputs) backend.write(t, data);
      const executable = await backend.compile(test.program);
      await executable.run();
      executable.dispose();
      results.push(await Promise.all(test.outputs.map((t) => backend.read(t))));
      assertEquals(results.at(-1), results[0], `${test.name} in subgroups of ${size}`);
    }
    backend.free(...test.inputs.map(([t]) => t), ...test.outputs);
  }
  assert(seen.size >= 10, `only ${[...seen].sort()} were run`);
});
