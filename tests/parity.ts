// Compares this project with numbers of the reference: deno run -A tests/parity.ts DIR [--backend wasm|webgpu] [--precision f16] [--kernels gpu] [--json] [--kinds a,b]
import { parseArgs } from "node:util";
import type { WebGpu } from "../gpu/mod.ts";
import { openBackendForTests } from "./backends.ts";
import { type CaseResult, F16_SLACK, readIndex, runCase } from "./parity/golden_folder.ts";

const USAGE =
  "usage: parity.ts DIR [--backend wasm|webgpu|reference] [--precision f32|f16] [--kernels gpu] [--threads N] [--kinds a,b] [--json]";

function options() {
  try {
    return parseArgs({
      args: Deno.args,
      allowPositionals: true,
      options: {
        backend: { type: "string", default: "wasm" },
        precision: { type: "string", default: "f32" },
        kernels: { type: "string" },
        threads: { type: "string" },
        kinds: { type: "string" },
        json: { type: "boolean", default: false },
      },
    });
  } catch (error) {
    console.error(`parity: ${(error as Error).message}\n${USAGE}`);
    Deno.exit(2);
  }
}

function line(r: CaseResult): string {
  const number = (x: number) => x === 0 ? "0" : x.toExponential(2);
  const worst = r.worst
    ? `${number(r.worst.error).padStart(9)} ≤ ${number(r.worst.tolerance).padEnd(9)} ${r.worst.name}`
    : "";
  const verdict = r.passed ? "ok  " : "FAIL";
  const more = [
    ...(r.worst?.note ? [r.worst.note] : []),
    ...(r.problem ? [r.problem] : []),
    ...(r.failures.length ? [`${r.failures.length} of ${r.comparisons} failed`] : []),
  ].map((text) => ` (${text})`).join("");
  return `${verdict} ${r.name.padEnd(36)} ${r.backend.padEnd(7)} ${worst}${more}`;
}

const { values, positionals } = options();
if (positionals.length !== 1) {
  console.error(USAGE);
  Deno.exit(2);
}
const [folder] = positionals;
try {
  const entries = await readIndex(folder, values.kinds?.split(",").map((kind) => kind.trim()).filter(Boolean));
  const threads = values.threads === undefined ? undefined : Number(values.threads);
  const { precision } = values;
  if (precision !== "f32" && precision !== "f16") throw new RangeError(`--precision ${precision}: use f32 or f16`);
  const backend = await openBackendForTests(values.backend!, { threads, precision });
  if (values.kernels !== undefined) {
    if (values.kernels !== "gpu" || backend.name !== "webgpu") {
      throw new RangeError("--kernels gpu goes with --backend webgpu");
    }
    // On a software adapter too, products and attention as graphics cards compute them; little workgroup memory keeps tiles small,
    // since large ones take such an adapter seconds to build.
    const gpu = backend as WebGpu;
    gpu.limits = { ...gpu.limits, fallback: false, lanes: 0, workgroupBytes: 9728, prologues: "saving" };
  }
  const slack = precision === "f16" ? F16_SLACK : 0;
  if (!values.json) console.log(`${backend.description}\n     ${"case".padEnd(36)} ran on  worst error ≤ tolerance`);
  const results: CaseResult[] = [];
  for (const entry of entries) {
    results.push(await runCase(folder, entry, backend, slack));
    if (!values.json) console.log(line(results.at(-1)!));
  }
  await backend.close();
  const failed = results.filter((r) => !r.passed);
  if (values.json) {
    console.log(JSON.stringify({ backend: values.backend, description: backend.description, results }, null, 1));
  } else console.log(`${results.length - failed.length} passed, ${failed.length} failed`);
  Deno.exit(failed.length || results.length === 0 ? 1 : 0);
} catch (error) {
  console.error(`parity: ${(error as Error).message}`);
  Deno.exit(2);
}
