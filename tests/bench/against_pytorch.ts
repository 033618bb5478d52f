// This project beside PyTorch on the same cores, in turn (A B A B …), as medians of ratios; products beside OpenBLAS too.
// deno run -A tests/bench/against_pytorch.ts [--python VENV/bin/python] [--rounds N] [--threads 2] [--only gemm,step,resnet]
//   [--in-a-row 10]
// Unless --rounds says otherwise, 20 short rounds of products, and 3 of what starts processes anew each round.
// Without --python, PyTorch is installed once into the user's cache.
import { parseArgs } from "node:util";
import { bench, Comparison, header, json, type Row } from "./alternate.ts";
import { compareProducts } from "./products_in_turn.ts";
import { pythonWithTorch } from "./pytorch.ts";

const { values } = parseArgs({
  options: {
    python: { type: "string" },
    rounds: { type: "string" },
    threads: { type: "string", default: String(navigator.hardwareConcurrency) },
    "in-a-row": { type: "string", default: "1" },
    only: { type: "string", default: "gemm,step,resnet" },
  },
});
const { threads } = values as { threads: string };
const python = await pythonWithTorch(values.python);

/** Steps to compare: ours by the flags of `cli/bench.ts`, theirs by those of `pytorch_step.py`. */
const STEPS = [
  {
    name: "ViT-Ti/16, batch 4, 2×224 + 8×96, K 4096",
    ours: "--arch vit_tiny",
    theirs: "--embed-dim 192 --num-heads 3",
  },
  {
    name: "ViT-S/16, batch 4, 2×224 + 8×96, K 4096",
    ours: "--arch vit_small",
    theirs: "--embed-dim 384 --num-heads 6",
  },
  {
    name: "ViT-Ti/4, batch 4, 2×32 + 6×16, K 4096",
    ours: "--arch vit_tiny --patch-size 4 --crops 2x32+6x16",
    theirs:
      "--embed-dim 192 --num-heads 3 --patch-size 4 --global-crop-size 32 --local-crop-size 16 --local-crops-number 6",
  },
];

if (values.only!.includes("gemm")) {
  const inARow = Number(values["in-a-row"]);
  await compareProducts(python, { threads: Number(threads), rounds: Number(values.rounds ?? 20), inARow });
}
const rounds = Number(values.rounds ?? 3), comparison = new Comparison();
if (values.only!.includes("step")) {
  header(rounds, threads, "PyTorch");
  for (const { name, ours: flags, theirs: peerFlags } of STEPS) {
    const peaks = { ours: 0, theirs: 0 };
    for (let round = 0; round < rounds; round++) {
      const [ours] = await bench(threads, "step", ...flags.split(" "));
      const args = ["tests/bench/pytorch_step.py", "--threads", threads, ...peerFlags.split(" ")];
      const [theirs] = await json<Row>(python, args);
      comparison.add(`step ${name}`, ours.median_ms, theirs.median_ms);
      peaks.ours = Math.max(peaks.ours, ours.peak_rss_mb ?? 0);
      peaks.theirs = Math.max(peaks.theirs, theirs.peak_rss_mb ?? 0);
    }
    comparison.report((what) =>
      `${what} (peak memory ours ${peaks.ours.toFixed(0)} MB, PyTorch's ${peaks.theirs.toFixed(0)} MB)`
    );
  }
}
if (values.only!.includes("resnet")) {
  header(rounds, threads, "PyTorch");
  for (let round = 0; round < rounds; round++) {
    const [ours] = await bench(threads, "forward", "--arch", "resnet50");
    const [theirs] = await json<Row>(python, ["tests/bench/pytorch_resnet.py", "--threads", threads]);
    comparison.add("forward ResNet-50, batch 4, 224 px", ours.median_ms, theirs.median_ms);
  }
  comparison.report();
}
