// One other library in a process of its own: prints its times as JSON. Started by against_peers.ts.
// deno run -A tests/bench/peer.ts PEER THREADS SECONDS [--gemm MxNxK,… --models DIR] [--features MODEL.onnx --batch 4 --size 224]

import process from "node:process";
import { parseArgs } from "node:util";

/** Packages by the name of the peer. Not literals of an import, so that nobody else's Deno fetches them. */
export const PEERS: Readonly<Record<string, readonly string[]>> = {
  "onnxruntime-node": ["npm:onnxruntime-node@1.30.0"],
  "onnxruntime-web": ["npm:onnxruntime-web@1.30.0"],
  "tfjs-wasm": ["npm:@tensorflow/tfjs@4.22.0", "npm:@tensorflow/tfjs-backend-wasm@4.22.0"],
  "jax-js": ["npm:@jax-js/jax@0.1.25"],
};

/** What a peer printed about one thing it did. */
export interface PeerRow {
  readonly name: string;
  readonly shape: string;
  readonly median_ms: number;
  /** Threads it says it uses. */
  readonly threads: string;
  /** Processor time over time that passed: cores it kept busy. */
  readonly cores: number;
}

/** A peer made ready: each function returns what to time. */
interface Peer {
  readonly threads: string;
  /** C[M, N] = A[M, K]·B[K, N], both given at run time. */
  gemm(m: number, n: number, k: number): Promise<() => unknown>;
  /** Features of a batch of pixels [batch, 3, size, size]; undefined where it cannot run ONNX. */
  features?(model: string, batch: number, size: number): Promise<() => unknown>;
}

// deno-lint-ignore no-explicit-any
type Untyped = any;

const noise = (length: number) => Float32Array.from({ length }, () => Math.random() * 2 - 1);

async function onnx(name: string, threads: number, models: string): Promise<Peer> {
  const loaded: Untyped = await import(PEERS[name][0]);
  const ort: Untyped = loaded.InferenceSession ? loaded : loaded.default;
  const options: Untyped = { intraOpNumThreads: threads, interOpNumThreads: 1, executionMode: "sequential" };
  if (name === "onnxruntime-web") {
    ort.env.wasm.numThreads = threads;
    options.executionProviders = ["wasm"];
  }
  const session = async (path: string, feeds: Untyped) => {
    const model = await ort.InferenceSession.create(await Deno.readFile(path), options);
    return () => model.run(feeds, model.outputNames.includes("features") ? ["features"] : undefined);
  };
  return {
    get threads() {
      return String(name === "onnxruntime-web" ? ort.env.wasm.numThreads : threads);
    },
    gemm: (m, n, k) =>
      session(`${models}/matmul.onnx`, {
        a: new ort.Tensor("float32", noise(m * k), [m, k]),
        b: new ort.Tensor("float32", noise(k * n), [k, n]),
      }),
    features: (path, batch, size) =>
      session(path, {
        pixel_values: new ort.Tensor("float32", noise(batch * 3 * size ** 2), [batch, 3, size, size]),
      }),
  };
}

async function tensorFlow(threads: number): Promise<Peer> {
  const tf: Untyped = await import(PEERS["tfjs-wasm"][0]);
  const backend: Untyped = await import(PEERS["tfjs-wasm"][1]);
  backend.setThreadsCount(threads);
  await tf.setBackend("wasm");
  await tf.ready();
  return {
    threads: String(backend.getThreadsCount()),
    gemm(m, n, k) {
      const a = tf.tensor2d(noise(m * k), [m, k]), b = tf.tensor2d(noise(k * n), [k, n]);
      return Promise.resolve(() => tf.matMul(a, b).dispose());
    },
  };
}

async function jax(threads: number): Promise<Peer> {
  // It starts as many workers as there are processors, and has no setting for it.
  Object.defineProperty(navigator, "hardwareConcurrency", { value: threads });
  const library: Untyped = await import(PEERS["jax-js"][0]);
  await library.init("wasm");
  library.defaultDevice("wasm");
  const np = library.numpy;
  return {
    threads: String(threads),
    gemm(m, n, k) {
      const a = np.array(noise(m * k)).reshape([m, k]), b = np.array(noise(k * n)).reshape([k, n]);
      return Promise.resolve(async () => {
        const c = np.matmul(a.ref, b.ref);
        await library.blockUntilReady(c);
        c.dispose();
      });
    },
  };
}

/** Runs it for about so many seconds after warming up, five times at least. */
async function time(run: () => unknown, seconds: number): Promise<Pick<PeerRow, "median_ms" | "cores">> {
  for (let i = 0; i < 2; i++) await run();
  const samples: number[] = [], begin = performance.now(), end = begin + 1000 * seconds;
  const before = process.cpuUsage();
  while (samples.length < 5 || performance.now() < end) {
    const start = performance.now();
    await run();
    samples.push(performance.now() - start);
  }
  const { user, system } = process.cpuUsage(before);
  const cores = (user + system) / 1000 / (performance.now() - begin);
  return { median_ms: samples.sort((a, b) => a - b)[samples.length >> 1], cores };
}

if (import.meta.main) {
  const { values, positionals: [name, threadsWord, secondsWord] } = parseArgs({
    allowPositionals: true,
    options: {
      gemm: { type: "string" },
      models: { type: "string" },
      features: { type: "string" },
      batch: { type: "string", default: "4" },
      size: { type: "string", default: "224" },
    },
  });
  const threads = Number(threadsWord), seconds = Number(secondsWord);
  const peer = name.startsWith("onnxruntime")
    ? await onnx(name, threads, values.models!)
    : name === "jax-js"
    ? await jax(threads)
    : await tensorFlow(threads);
  const rows: PeerRow[] = [];
  const add = async (what: string, shape: string, run: () => unknown) =>
    rows.push({ name: what, shape, ...await time(run, seconds), threads: peer.threads });
  for (const shape of values.gemm?.split(",") ?? []) {
    const [m, n, k] = shape.split("x").map(Number);
    await add("gemm", shape, await peer.gemm(m, n, k));
  }
  if (values.features && peer.features) {
    const batch = Number(values.batch), size = Number(values.size);
    await add("features", `${batch}x3x${size}x${size}`, await peer.features(values.features, batch, size));
  }
  await Deno.stdout.write(new TextEncoder().encode(`\n${JSON.stringify(rows)}\n`));
  Deno.exit(0); // workers of some peers would keep the process
}
