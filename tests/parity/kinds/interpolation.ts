// Kind interpolation: torch's bicubic and bilinear resampling with an explicit scale, and its gradient.
import { differentiate } from "../../../models/graph/autodiff.ts";
import type { Backend } from "../../../models/graph/backend.ts";
import { resample } from "../../../models/graph/ops/tokens.ts";
import { Program } from "../../../models/graph/program.ts";
import { tensor } from "../../../models/graph/tensor.ts";
import { bicubicAxis, bilinearAxis } from "../../../models/interpolate.ts";
import type { GoldenCase } from "../golden_case.ts";
import { input, output, runOnce } from "../run_program.ts";

export async function interpolation(golden: GoldenCase, backend: Backend) {
  for (const { key, mode, input_shape, scale_factor, output_hw } of golden.config.cases) {
    const [N, C, H, W] = input_shape;
    const [outH, outW] = output_hw;
    const axis = mode === "bicubic" ? bicubicAxis : bilinearAxis;
    const planes = N * C;
    const x = input(backend, "x", [H * W, planes], transpose(golden.floats(`${key}.input`), planes, H * W));
    const d = input(
      backend,
      "d",
      [outH * outW, planes],
      transpose(golden.floats(`${key}.cotangent`), planes, outH * outW),
    );
    const dx = tensor("dx", [H * W, planes], "output");
    const p = new Program("interpolation");
    const y = resample(p, x, axis(H, outH, scale_factor[0]), axis(W, outW, scale_factor[1]), 0);
    const result = output(p, y);
    differentiate(p, { seeds: [[y, d]], wrt: [[x, dx]] });
    await runOnce(backend, p);
    const back = async (t: typeof dx, cells: number) => transpose(await backend.read(t) as Float32Array, cells, planes);
    golden.compare(`${key}.output`, await back(result, outH * outW));
    golden.compare(`${key}.grad`, await back(dx, H * W));
  }
}

/** [rows, columns] → [columns, rows]. */
function transpose(data: Float32Array, rows: number, columns: number): Float32Array {
  return Float32Array.from(data, (_, i) => data[(i % rows) * columns + Math.floor(i / rows)]);
}
