// This project beside PyTorch on the same cores, in turn (A B A B …), as ratios of medians.
// deno run -A tests/bench/against_pytorch.ts [--python VENV/bin/python] [--rounds 3] [--threads 2] [--only gemm,step,resnet]
//   [--in-a-row 10]
// Without --python, PyTorch is installed once into the user's cache.
import { parseArgs } from "node:util";
import { bench, Comparison, header, json, type Row } from "./alternate.ts";
import { pythonWithTorch } from "./pytorch.ts";

const { values } = parseArgs({
  options: {
    python: { type: "string" },
    rounds: { type: "string", default: "3" },
    threads: { type: "string", default: String(navigator.hardwareConcurrency) },
    "in-a-row": { type: "string", default: "1" },
    only: { type: "string", default: "gemm,step,resnet" },
  },
});
const { threads } = values as { threads: string };
const python = await pythonWithTorch(values.python);
const rounds = Number(values.rounds), inARow = values["in-a-row"]!;

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

/** M, N, K of a shape such as `[4·197, 384]×[384, 1536] (fc1)`. */
function extents(shape: string): number[] {
  const numbers = shape.match(/^\[([\d·]+), (\d+)\]×\[\d+, (\d+)\]/);
  if (!numbers) throw new SyntaxError(`bench: the shape "${shape}" is not a product`);
  const [, rows, inner, columns] = numbers;
  return [rows.split("·").map(Number).reduce((a, b) => a * b), Number(columns), Number(inner)];
}

header(rounds, threads, "PyTorch");
const comparison = new Comparison();
if (values.only!.includes("gemm")) {
  for (let round = 0; round < rounds; round++) {
    const rows = await bench(threads, "gemm", "--arch", "vit_small", "--in-a-row", inARow);
    const shapes = rows.map((row) => extents(row.shape).join("x"));
    const flags = [
      "tests/bench/pytorch_gemm.py",
      "--threads",
      threads,
      "--shapes",
      shapes.join(),
      "--in-a-row",
      inARow,
    ];
    const peer = await json<Row>(python, flags);
    rows.forEach((row, i) =>
      comparison.add(
        `gemm ${row.shape}${inARow === "1" ? "" : `, ${inARow} in a row`}`,
        row.median_ms,
        peer[i].median_ms,
      )
    );
  }
  comparison.report();
}
if (values.only!.includes("step")) {
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
  for (let round = 0; round < rounds; round++) {
    const [ours] = await bench(threads, "forward", "--arch", "resnet50");
    const [theirs] = await json<Row>(python, ["tests/bench/pytorch_resnet.py", "--threads", threads]);
    comparison.add("forward ResNet-50, batch 4, 224 px", ours.median_ms, theirs.median_ms);
  }
  comparison.report();
}
