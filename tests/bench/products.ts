// This project's matrix products, measured in short turns: answers lines as pytorch_gemm.py does. Started by products_in_turn.ts.
// deno run -A tests/bench/products.ts THREADS

import process from "node:process";
import { noise } from "../../cli/bench/case.ts";
import { keep } from "../../cli/bench/kernels.ts";
import { openBackend } from "../../cli/device/backend.ts";
import { lines } from "../../cli/processes/launch.ts";
import type { Executable } from "../../models/graph/backend.ts";
import { linear } from "../../models/graph/ops/matmul.ts";
import { Program } from "../../models/graph/program.ts";
import { size, type Tensor, tensor } from "../../models/graph/tensor.ts";
import type { Answer, Introduction, Question } from "./side.ts";

const { backend } = await openBackend({ backend: "wasm", adapter: null, threads: Number(Deno.args[0]) });
const print = (value: Introduction | Answer) => console.log(JSON.stringify(value));

/** Products as one program. */
async function made({ shape: [m, n, k], in_a_row }: Question): Promise<{ executable: Executable; operands: Tensor[] }> {
  const p = new Program("products"), operands: Tensor[] = [];
  for (let i = 0; i < in_a_row; i++) {
    const x = tensor(`x ${i}`, [m, k], "input"), w = tensor(`w ${i}`, [n, k], "param");
    keep(p, linear(p, x, w));
    operands.push(x, w);
  }
  operands.forEach((t, i) => backend.write(t, noise(size(t), i + 1)));
  return { executable: await backend.compile(p), operands };
}

async function measured(executable: Executable, seconds: number): Promise<Answer> {
  await executable.run(); // wakes the threads, fills the caches
  const times: number[] = [], begin = performance.now(), end = begin + 1000 * seconds, before = process.cpuUsage();
  while (times.length < 3 || performance.now() < end) {
    const start = performance.now();
    await executable.run();
    times.push(performance.now() - start);
  }
  const { user, system } = process.cpuUsage(before), cores = (user + system) / 1000 / (performance.now() - begin);
  times.sort((a, b) => a - b);
  return { median_ms: times[times.length >> 1], best_ms: times[0], cores };
}

print({ libraries: { denodino: backend.description }, missing: {} });
let current: { of: string } & Awaited<ReturnType<typeof made>> | undefined;
for await (const line of lines(Deno.stdin.readable)) {
  const question = JSON.parse(line) as Question;
  const of = `${question.shape}, ${question.in_a_row}`;
  if (current?.of !== of) {
    current?.executable.dispose();
    backend.free(...current?.operands ?? []);
    current = { of, ...await made(question) };
  }
  print(await measured(current.executable, question.seconds));
}
await backend.close();
