// This project beside other libraries that compute in a JavaScript process, on the same cores, in turn (A B A B …).
// deno run -A tests/bench/against_peers.ts [--rounds 3] [--threads 1,2] [--only gemm,features] [--peers onnxruntime-node,…]
// Peers come from npm, pinned, into a temporary folder (--keep DIR: into that one, to be used again).
import { parseArgs } from "node:util";
import { TURBO_FLAGS } from "../../cli/processes/mode.ts";
import { vitConfig, vitShapes } from "../../models/vit.ts";
import { writeSafetensors } from "../../models/weights/safetensors.ts";
import { OnnxGraph } from "../../models/weights/onnx_graph.ts";
import { bench, Comparison, header, json } from "./alternate.ts";
import { type PeerRow, PEERS } from "./peer.ts";

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "3" },
    threads: { type: "string", default: "1,2" },
    only: { type: "string", default: "gemm,features" },
    peers: { type: "string", default: Object.keys(PEERS).join() },
    seconds: { type: "string", default: "0.7" },
    keep: { type: "string" },
  },
});
const rounds = Number(values.rounds), seconds = values.seconds!;
const folder = values.keep ?? await Deno.makeTempDir({ prefix: "denodino-peers-" });
await Deno.mkdir(folder, { recursive: true });

/** Products by [M, N, K], and where `cli/bench.ts gemm --arch vit_small --batch-size 8` shows the same. */
const PRODUCTS = new Map([
  ["512x512x512", "[512, 512]×[512, 512]"],
  ["1024x1024x1024", "[1024, 1024]×[1024, 1024]"],
  ["1576x1536x384", "[8·197, 384]×[384, 1536]"],
]);
/** Peers compiled to WebAssembly are measured as V8 comes, and with the flags this project's computing process has. */
const FLAGS = { DENO_V8_FLAGS: TURBO_FLAGS };

interface Contender {
  readonly peer: string;
  readonly mode: string;
  readonly env: Record<string, string>;
}

const contenders: Contender[] = values.peers!.split(",").flatMap((peer) =>
  peer === "onnxruntime-node"
    ? [{ peer, mode: "native", env: {} }]
    : [{ peer, mode: "stock V8", env: {} }, { peer, mode: "our V8 flags", env: FLAGS }]
);

/** Runs a peer; says which threads it had. */
function run({ peer, env }: Contender, threads: string, ...flags: string[]): Promise<PeerRow[]> {
  const args = ["run", "-A", "--no-lock", "--no-config", "tests/bench/peer.ts", peer, threads, seconds, ...flags];
  return json<PeerRow>(Deno.execPath(), args, { ...env, DENO_DIR: `${folder}/deno` });
}

/** A model of one product, and ViT-S/16 with random weights as `dino convert` writes it. */
async function writeModels(): Promise<void> {
  const graph = new OnnxGraph("product");
  const [a, b] = [graph.input("a", ["m", "k"]), graph.input("b", ["k", "n"])];
  graph.output(graph.node("MatMul", [a, b]), ["m", "n"]);
  await graph.write(`${folder}/matmul.onnx`, {});
  const shapes = vitShapes(vitConfig({ patchSize: 16, embedDim: 384, depth: 12, numHeads: 6 }));
  const path = `${folder}/vit_small.safetensors`;
  await writeSafetensors(
    path,
    shapes.map(([name, shape]) => ({ name, shape, dtype: "F32", bytes: () => noiseOf(name, shape) })),
  );
  const args = ["run", "-A", "cli/main.ts", "convert", path, `${folder}/vit_small.onnx`, "--overwrite"];
  const { success, stderr } = await new Deno.Command(Deno.execPath(), { args }).output();
  if (!success) throw new Error(`convert: ${new TextDecoder().decode(stderr)}`);
}

function noiseOf(name: string, shape: readonly number[]): Uint8Array {
  const length = shape.reduce((a, b) => a * b, 1);
  const values = Float32Array.from(
    { length },
    () => 0.06 * Math.random() - 0.03 + Number(name.endsWith("norm.weight")),
  );
  return new Uint8Array(values.buffer);
}

async function products(threads: string): Promise<void> {
  const comparison = new Comparison();
  const shapes = [...PRODUCTS.keys()].join();
  for (let round = 0; round < rounds; round++) {
    for (const contender of contenders) {
      const ours = await bench(threads, "gemm", "--arch", "vit_small", "--batch-size", "8", "--seconds", seconds);
      const theirs = await run(contender, threads, "--gemm", shapes, "--models", folder);
      for (const row of theirs) {
        const mine = ours.find(({ shape }) => shape.startsWith(PRODUCTS.get(row.shape)!))!;
        const thing = `gemm ${row.shape.replaceAll("x", "×")}`;
        comparison.add(about(thing, contender, row), mine.median_ms, row.median_ms);
      }
    }
  }
  comparison.report(withCores);
}

async function features(threads: string): Promise<void> {
  const comparison = new Comparison();
  for (let round = 0; round < rounds; round++) {
    for (const contender of contenders.filter(({ peer }) => peer.startsWith("onnxruntime"))) {
      const [ours] = await bench(threads, "forward", "--arch", "vit_small", "--batch-size", "4", "--seconds", seconds);
      const [row] = await run(contender, threads, "--features", `${folder}/vit_small.onnx`);
      comparison.add(about("features of ViT-S/16, 4×224 px", contender, row), ours.median_ms, row.median_ms);
    }
  }
  comparison.report(withCores);
}

/** Most cores each thing kept busy in any round: a peer may ask for threads and get none. */
const cores = new Map<string, number>();

/** The name of a comparison. */
function about(thing: string, { peer, mode }: Contender, row: PeerRow): string {
  const what = `${thing}: ${peer}, ${mode}, ${row.threads} thread${row.threads === "1" ? "" : "s"}`;
  cores.set(what, Math.max(cores.get(what) ?? 0, row.cores));
  return what;
}

const withCores = (what: string) => `${what} (${cores.get(what)!.toFixed(1)} cores busy)`;

try {
  await writeModels();
  for (const contender of contenders) await run(contender, "1"); // downloads, before anything is timed
  for (const threads of values.threads!.split(",")) {
    header(rounds, threads, "peer");
    if (values.only!.includes("gemm")) await products(threads);
    if (values.only!.includes("features")) await features(threads);
  }
} finally {
  if (values.keep === undefined) await Deno.remove(folder, { recursive: true });
}
