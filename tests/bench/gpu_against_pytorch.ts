// Every figure of a graphics card in one run: `cli/bench.ts all --backend webgpu`, then PyTorch float32 (TF32 off) on the same card,
// as ratios, and what there is to reach.
// deno run -A tests/bench/gpu_against_pytorch.ts [--python VENV/bin/python] [--rounds 1] [--minutes 4] [--quick] [--device cuda] [--json FILE]
//
// On a machine with a card and no network, bring along: this folder without deno.lock (with it, Deno looks for the packages of
// every tool); Deno, one binary (npm's @deno/linux-x64-glibc has it); the DENO_DIR into which `deno cache --no-lock cli/bench.ts
// cli/processes/compute.ts` put 55 MB on a machine that has a network; on Linux libvulkan.so.1 (`dpkg -x` of Debian's libvulkan1,
// and its folder in LD_LIBRARY_PATH) beside the card's own driver, whose description VK_DRIVER_FILES names where the loader does
// not find it.
// Without --python, or where it lacks torch, only our own figures are printed. --minutes is what each side may take.
import { parseArgs } from "node:util";
import { median } from "./alternate.ts";

const { values } = parseArgs({
  options: {
    python: { type: "string" },
    rounds: { type: "string", default: "1" },
    minutes: { type: "string", default: "4" },
    quick: { type: "boolean", default: false },
    device: { type: "string", default: "cuda" },
    adapter: { type: "string" },
    json: { type: "string" },
  },
});
const root = new URL("../..", import.meta.url);

interface Row {
  readonly name: string;
  readonly shape: string;
  readonly median_ms?: number;
  readonly kernel_ms?: number;
  readonly host_share?: number;
  readonly gflops?: number;
  readonly gbytes_per_second?: number;
  readonly bound?: string;
  readonly roofline_ratio?: number;
  readonly memory_mb?: number;
  readonly peak_gpu_mb?: number | null;
  readonly note?: string;
}

/** What a command prints, even if it then failed or was ended: every figure of a card is worth having. */
async function rowsOf(command: string, args: readonly string[], minutes: number): Promise<Row[]> {
  const child = new Deno.Command(command, { args: [...args], cwd: root, stdout: "piped", stderr: "inherit" }).spawn();
  const ending = setTimeout(() => child.kill("SIGTERM"), 60_000 * minutes);
  const output = await child.output();
  clearTimeout(ending);
  try {
    return JSON.parse(new TextDecoder().decode(output.stdout));
  } catch {
    throw new Error(`${command} ${args.join(" ")}: exit ${output.code}`);
  }
}

async function save(): Promise<void> {
  if (values.json) await Deno.writeTextFile(values.json, JSON.stringify({ ours, theirs }, null, 1));
}

/** A shape without the words behind it, which the other side does not say. */
function keyOf({ name, shape }: Row): string {
  return name === "step" ? "step" : `${name} ${/^.*\]/.exec(shape)?.[0] ?? shape}`;
}

/** What is to be reached, by a row's name and shape; the share of the roofline measured in the same run. */
const AIMS: readonly { readonly rows: RegExp; readonly roofline: number }[] = [
  { rows: /^gemm \[4096, 4096\]/, roofline: 0.7 },
  { rows: /^gemm .*·/, roofline: 0.6 },
  { rows: /^(attention|norm|loss|optimizer) /, roofline: 0.8 },
];
const HOST_SHARE = 0.05, NEIGHBOURS_MS = 2000;

const quick = values.quick ? ["--quick"] : [];
const ours: Row[][] = [], theirs: Row[][] = [];
for (let round = 0; round < Number(values.rounds); round++) {
  const adapter = values.adapter ? ["--adapter", values.adapter] : [], minutes = Number(values.minutes);
  ours.push(
    await rowsOf(Deno.execPath(), [
      ...["run", "-A", "cli/bench.ts", "all", "--backend", "webgpu", "--json"],
      ...["--seconds", values.quick ? "0.01" : "1", "--minutes", String(minutes)],
      ...adapter,
      ...quick,
    ], minutes + 1),
  );
  await save();
  if (values.python === undefined) continue;
  const script = ["tests/bench/pytorch_gpu.py", "--device", values.device!, ...quick];
  try {
    theirs.push(await rowsOf(values.python, script, minutes));
    await save();
  } catch (error) {
    console.error(`without PyTorch: ${(error as Error).message}`);
  }
}
const shown = (value: number | undefined, digits = 2) => value === undefined ? "" : value.toFixed(digits);
const missed: string[] = [];
for (const { name, shape, note } of ours[0].filter(({ name }) => name === "device" || name === "tuned")) {
  console.log(`${name}: ${shape}${note ? ` (${note})` : ""}`);
}
console.log("| what | ours, ms | kernels, ms | of roofline | PyTorch, ms | ratio |\n|---|---|---|---|---|---|");
for (const [i, row] of ours[0].entries()) {
  if (row.name === "device" || row.name === "tuned") continue;
  if (row.shape === "left out") {
    missed.push(`${row.name}: left out: ${row.note}`);
    continue;
  }
  const key = keyOf(row);
  const all = (rounds: readonly Row[][]) => rounds.flatMap((rows) => rows.filter((other) => keyOf(other) === key));
  const mine = ours.map((rows) => rows[i]);
  const peers = all(theirs);
  const ms = row.median_ms === undefined ? undefined : median(mine.map((r) => r.median_ms!));
  const kernels = row.kernel_ms === undefined ? undefined : median(mine.map((r) => r.kernel_ms!));
  const share = row.roofline_ratio === undefined ? undefined : median(mine.map((r) => r.roofline_ratio!));
  const peer = peers.length === 0 ? undefined : median(peers.map((r) => r.median_ms!));
  const rate = [row.gflops && `${row.gflops} GFLOP/s`, row.gbytes_per_second && `${row.gbytes_per_second} GB/s`];
  console.log(
    `| ${row.name} ${row.shape}, ${rate.filter((text) => text).join(", ")} | ${shown(ms)} | ${shown(kernels, 3)} | ` +
      `${share === undefined ? "" : `${(100 * share).toFixed(0)} %`} | ${shown(peer)} | ` +
      `${ms === undefined || peer === undefined ? "" : shown(peer / ms)} |`,
  );
  const aim = AIMS.find(({ rows }) => rows.test(key))?.roofline;
  if (aim !== undefined && share !== undefined && share < aim) {
    missed.push(`${row.name} ${row.shape}: ${(100 * share).toFixed(0)} % of its roofline, to reach ${100 * aim} %`);
  }
  if (row.name === "knn" && ms !== undefined && ms > NEIGHBOURS_MS) {
    missed.push(`${row.name} ${row.shape}: ${(ms / 1000).toFixed(2)} s, to reach ${NEIGHBOURS_MS / 1000} s`);
  }
  if (row.name !== "step") continue;
  const js = median(mine.map((r) => r.host_share ?? 0));
  console.log(`JavaScript of a step: ${(100 * js).toFixed(1)} % of its time; memory ${shown(row.memory_mb, 0)} MB`);
  if (js > HOST_SHARE) missed.push(`JavaScript of a step: ${(100 * js).toFixed(1)} %, to reach ${100 * HOST_SHARE} %`);
  if (ms !== undefined && peer !== undefined && peer < ms) missed.push(`step: ${shown(peer / ms)} of PyTorch's speed`);
  const memory = peers[0]?.peak_gpu_mb;
  if (typeof memory !== "number") continue;
  const bytes = memory * 2 ** 20 / 1e6;
  console.log(`PyTorch's step: ${bytes.toFixed(0)} MB at its peak`);
  if (row.memory_mb! > bytes) missed.push(`step: ${shown(row.memory_mb, 0)} MB against PyTorch's ${bytes.toFixed(0)}`);
}
const halves = ["none", "saving"].map((use) =>
  ours[0].findIndex(({ name, shape }) => name === "prologues" && shape.startsWith(`${use}:`))
);
if (halves.every((i) => i >= 0)) {
  const [apart, together] = halves.map((i) => median(ours.map((rows) => rows[i].kernel_ms ?? rows[i].median_ms!)));
  const [before, after] = halves.map((i) => ours[0][i].note?.replace("activations of an update: ", ""));
  console.log(
    `prologues in products: half a block ${shown(apart, 3)} → ${shown(together, 3)} ms, ` +
      `activations of an update ${before} → ${after}`,
  );
}
const judged = !values.quick && !ours[0].some(({ name, shape }) => name === "device" && shape.includes("(software)"));
if (!judged) console.log("tiny sizes or a software adapter: nothing here says whether the aims are reached");
else if (missed.length === 0) console.log("everything is reached");
else console.log(`not reached:\n${missed.map((line) => `- ${line}`).join("\n")}`);
