// This project beside PyTorch on the same cores, in turn (A B A B …), as ratios of medians.
// deno run -A tests/bench/against_pytorch.ts --python VENV/bin/python [--rounds 3] [--threads 2] [--only gemm,step]
// (python needs torch; on a machine with Debian's python: python3 -m venv V && V/bin/pip install torch)
import { parseArgs } from "node:util";

const { values } = parseArgs({
  options: {
    python: { type: "string", default: "python3" },
    rounds: { type: "string", default: "3" },
    threads: { type: "string", default: String(navigator.hardwareConcurrency) },
    only: { type: "string", default: "gemm,step" },
  },
});
const { python, threads } = values;
const rounds = Number(values.rounds);
const root = new URL("../..", import.meta.url);

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

interface Row {
  shape: string;
  median_ms: number;
  gflops?: number;
  peak_rss_mb?: number;
}

/** Runs a command and parses the JSON it prints; memory is that of the largest process, where the kernel tells. */
async function json(command: string, args: string[]): Promise<Row[]> {
  const output = await new Deno.Command(command, { args, cwd: root, stderr: "null" }).output();
  if (!output.success) throw new Error(`${command} ${args.join(" ")}: exit ${output.code}`);
  const parsed = JSON.parse(new TextDecoder().decode(output.stdout));
  return Array.isArray(parsed) ? parsed : [parsed];
}

const bench = (...args: string[]) =>
  json(Deno.execPath(), ["run", "-A", "cli/bench.ts", ...args, "--backend", "wasm", "--threads", threads!, "--json"]);
const median = (numbers: number[]) => numbers.sort((a, b) => a - b)[Math.floor(numbers.length / 2)];

function report(name: string, ours: number[], theirs: number[], unit: string) {
  const ratios = ours.map((ms, i) => theirs[i] / ms);
  const spread = `${Math.min(...ratios).toFixed(2)}–${Math.max(...ratios).toFixed(2)}`;
  console.log(
    `| ${name} | ${median([...ours]).toFixed(1)} ${unit} | ${median([...theirs]).toFixed(1)} ${unit} | ` +
      `${median(ratios).toFixed(2)} (${spread}) |`,
  );
}

/** M, N, K of a shape such as `[4·197, 384]×[384, 1536] (fc1)`. */
function extents(shape: string): number[] {
  const numbers = shape.match(/^\[([\d·]+), (\d+)\]×\[\d+, (\d+)\]/);
  if (!numbers) throw new SyntaxError(`bench: the shape "${shape}" is not a product`);
  const [, rows, inner, columns] = numbers;
  return [rows.split("·").map(Number).reduce((a, b) => a * b), Number(columns), Number(inner)];
}

console.log(`${rounds} rounds in turn, ${threads} threads; a ratio above 1 means that this project is faster`);
console.log("| what | ours | PyTorch | ratio, median (range) |\n|---|---|---|---|");
if (values.only!.includes("gemm")) {
  const ours = new Map<string, number[]>(), theirs = new Map<string, number[]>();
  for (let round = 0; round < rounds; round++) {
    const rows = await bench("gemm", "--arch", "vit_small");
    const shapes = rows.map((row) => extents(row.shape).join("x"));
    const peer = await json(python!, ["tests/bench/pytorch_gemm.py", "--threads", threads!, "--shapes", shapes.join()]);
    rows.forEach((row, i) => {
      ours.set(row.shape, [...ours.get(row.shape) ?? [], row.median_ms]);
      theirs.set(row.shape, [...theirs.get(row.shape) ?? [], peer[i].median_ms]);
    });
  }
  for (const [shape, times] of ours) report(`gemm ${shape}`, times, theirs.get(shape)!, "ms");
}
if (values.only!.includes("step")) {
  for (const { name, ours: flags, theirs: peerFlags } of STEPS) {
    const ours: number[] = [], theirs: number[] = [];
    let memory = 0;
    for (let round = 0; round < rounds; round++) {
      ours.push((await bench("step", ...flags.split(" ")))[0].median_ms);
      const [peer] = await json(python!, [
        "tests/bench/pytorch_step.py",
        "--threads",
        threads!,
        ...peerFlags.split(" "),
      ]);
      theirs.push(peer.median_ms);
      memory = peer.peak_rss_mb ?? 0;
    }
    report(`step ${name} (PyTorch peak ${memory.toFixed(0)} MB)`, ours, theirs, "ms");
  }
}
