// Every kernel before the strictest compiler and validator there is, Dawn's, which needs no graphics card for that: its null backend
// compiles, checks bindings and limits, and computes nothing. Fetches some 130 MB from npm.
// deno run -A --no-lock tests/gpu/dawn_kernels.ts
//
// To compute too: Debian's chromium brings SwiftShader, a second software adapter, which Dawn supports (llvmpipe may be too old for it):
// VK_DRIVER_FILES=/usr/lib/chromium/vk_swiftshader_icd.json deno run -A cli/doctor.ts --webgpu dawn
// Without --webgpu dawn, or with `deno test -A tests/gpu`, that is another driver and subgroup size under Deno's own WebGPU.
import { blockProgram, doctorPrograms } from "../../cli/doctor/programs.ts";
import { attentionCandidates } from "../../gpu/attention_choice.ts";
import { WebGpuBackend } from "../../gpu/backend.ts";
import { openDevice } from "../../gpu/device.ts";
import { TILES } from "../../gpu/kernels/matmul_tiles.ts";
import { tilesFor } from "../../gpu/tuning/matmul.ts";
import { opCases } from "../models/graph/op_cases.ts";

const PACKAGE = "npm:webgpu@0.6.2"; // as cli/device/dawn.ts has it
const { create } = await import(PACKAGE) as { create: (options: string[]) => GPU };
const gpu = create(["backend=null"]);
const failures = new Set<string>();
let compiled = 0, pipelines = 0;
for (const precision of ["f32", "f16"] as const) {
  const opened = await openDevice({ gpu, allowFallback: true, subgroups: false, precision });
  const backend = new WebGpuBackend(opened, { strict: true, precision });
  for (const fallback of [false, true]) {
    backend.limits = { ...backend.limits, fallback, prologues: fallback ? "none" : "all" };
    const tiles = tilesFor(backend.limits);
    let next = 0; // tiles and attention's kernels in turn
    const programs = [
      ...opCases().map(({ name, program }) => ({ name, program })),
      ...[...doctorPrograms()].map(({ program }, i) => ({ name: `doctor's program ${i}`, program })),
      { name: "half a block", program: blockProgram() },
    ];
    for (const { name, program } of programs) {
      try {
        const executable = await backend.compileWith(program, {
          matmul: fallback
            ? undefined
            : () => ({ tile: TILES[tiles[next++ % tiles.length]], splits: next % 3 ? 1 : 2 }),
          attention: (shape, limits) => {
            const candidates = attentionCandidates(shape, limits);
            return candidates[next++ % candidates.length];
          },
        });
        await executable.run();
        await backend.finish();
        executable.dispose();
        backend.free(...program.roots());
        compiled++;
      } catch (error) {
        failures.add(`${name} in ${precision}: ${(error as Error).message}`);
      }
    }
  }
  pipelines += backend.pipelines.count;
  await backend.close();
}
console.log(`${compiled} programs, ${pipelines} pipelines`);
for (const failure of failures) console.log(`- ${failure}`);
Deno.exit(failures.size > 0 || compiled < 1000 ? 1 : 0);
