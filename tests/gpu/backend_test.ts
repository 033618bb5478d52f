// The backend around the kernels: arenas in chunks, views at odd places, bytes, limits, errors, profiles, repeatability.
import { WebGpuBackend } from "../../gpu/backend.ts";
import { plannedLimits, workspaceBytes } from "../../gpu/mod.ts";
import { describeAdapters, openDevice } from "../../gpu/device.ts";
import type { GpuExecutable } from "../../gpu/executable.ts";
import { fold } from "../../gpu/dispatch.ts";
import { Pacer } from "../../gpu/pace.ts";
import { withHalfBindings } from "../../gpu/half.ts";
import { kernel } from "../../gpu/kernels/sources.ts";
import { PipelineCache } from "../../gpu/shader.ts";
import { withSubgroups } from "../../gpu/subgroups.ts";
import { linear, matmul } from "../../models/graph/ops/matmul.ts";
import { centeredSoftmax } from "../../models/graph/ops/dino_loss.ts";
import { add, type CopyOp, emitCopy, gelu } from "../../models/graph/ops/elementwise.ts";
import { layerNorm } from "../../models/graph/ops/norm.ts";
import { Program } from "../../models/graph/program.ts";
import { size, tensor, view } from "../../models/graph/tensor.ts";
import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "../assert.ts";
import { assertAgrees, randomValues } from "./compare.ts";
import { onGpu, withDevice } from "./open.ts";

/** A chain of operations whose activations do not fit one small chunk together. */
function chain(x = tensor("x", [24, 64], "input"), y = tensor("y", [24, 64], "output")) {
  const weight = tensor("weight", [64, 64], "param"), bias = tensor("bias", [64], "param");
  const program = () => {
    const p = new Program("chain");
    let h = x;
    const kept = [];
    for (let i = 0; i < 4; i++) {
      h = linear(p, layerNorm(p, h, bias, bias, 1e-6), weight, bias, { gelu: true });
      kept.push(h);
    }
    emitCopy(p, kept.reduce((a, b) => add(p, a, b)), y);
    return p;
  };
  return { x, y, weight, bias, program };
}

onGpu("an arena of several small buffers gives the same results", async (backend) => {
  const { x, y, weight, bias, program } = chain();
  await assertAgrees("chain", backend, program, [x, weight, bias], [y], 1e-5);
  assert(backend.buffers.arenaBytes > backend.buffers.chunkBytes, "the arena has several chunks");
}, { chunkBytes: 8192 });

onGpu("an earlier program runs on when a later one makes the arena grow", async (backend) => {
  const small = chain(), x = tensor("x", [512, 64], "input"), y = tensor("y", [512, 64], "output");
  const first = await backend.compile(small.program());
  for (const t of [small.x, small.weight, small.bias]) backend.write(t, randomValues(size(t), 3));
  await first.run();
  const before = await backend.read(small.y);
  const larger = await backend.compile(chain(x, y).program());
  await larger.run();
  await first.run();
  assertEquals(await backend.read(small.y), before);
});

onGpu("memory bound once in a dispatch, as strict implementations want it, gives the same results", async (backend) => {
  const { x, y, weight, bias, program } = chain();
  await assertAgrees("chain", backend, program, [x, weight, bias], [y], 1e-5);
  // In place by name, with vectors and without.
  for (const columns of [64, 9]) {
    const t = tensor("t", [3, columns], "state"), other = tensor("other", [3, columns], "input");
    const inPlace = () => {
      const p = new Program("in place");
      p.emit({ kind: "add", in: { a: t, b: other }, out: { y: t }, attrs: {} });
      p.emit({ kind: "geluBackward", in: { dy: t, x: other }, out: { dx: t }, attrs: { accumulate: false } });
      p.emit({ kind: "l2Normalize", in: { x: t }, out: { y: t }, attrs: { eps: 1e-12 } });
      return p;
    };
    await assertAgrees("in place", backend, inPlace, [t, other], [t], 1e-6);
  }
  const executable = await backend.compile(program());
  for (const { bindings } of (executable as GpuExecutable).dispatches) {
    const named = bindings.filter((b) => b.kind === "tensor").map((b) => {
      const at = b.tensor.role === "activation" ? executable.plan.offsets.get((b.tensor.base ?? b.tensor).id)! : 0;
      return `${b.tensor.role === "activation" ? "arena" : b.tensor.id} ${at + b.offset}`;
    });
    assertEquals(new Set(named).size, named.length, named.join(", "));
  }
}, { strict: true });

onGpu("views are read and written where they lie", async (backend) => {
  const base = tensor("base", [4, 64], "state"), y = tensor("y", [2, 64], "output");
  const program = () => {
    const p = new Program("views");
    const first = view(base, "first", [1, 64], 0), last = view(base, "last", [7, 9], 3 * 64);
    p.emit<CopyOp>({ kind: "copy", in: { x: gelu(p, last) }, out: { y: view(y, "bottom", [7, 9], 64) }, attrs: {} });
    p.emit({ kind: "add", in: { a: view(base, "third", [1, 64], 128), b: first }, out: { y: first }, attrs: {} });
    return p;
  };
  await assertAgrees("views", backend, program, [base], [y, base], 1e-6);
});

onGpu("bytes are written and read at any offset, in order", async (backend) => {
  const pixels = tensor("pixels", [263], "input", "u8");
  const expected = new Uint8Array(263);
  let value = 1;
  for (const [offset, length] of [[0, 263], [1, 2], [3, 1], [5, 9], [14, 1], [20, 3], [2, 4], [255, 4]]) {
    const data = Uint8Array.from({ length }, () => value++);
    backend.write(pixels, data, offset);
    expected.set(data, offset);
    assertEquals(await backend.read(pixels), expected);
  }
  assertEquals(await backend.read(view(pixels, "part", [5], 256)), expected.slice(256, 261));
});

onGpu("writes, runs and reads take effect in the order they are asked for", async (backend) => {
  const x = tensor("x", [5], "input"), y = tensor("y", [5], "output");
  const p = new Program("copy");
  emitCopy(p, x, y);
  const copy = await backend.compile(p);
  const results = [];
  for (let i = 0; i < 5; i++) {
    backend.write(x, new Float32Array(5).fill(i));
    copy.run();
    results.push(backend.read(y));
  }
  assertEquals((await Promise.all(results)).map((r) => r[4]), [0, 1, 2, 3, 4]);
});

onGpu("the scratch space foretold without a device is what a device takes", async (backend) => {
  const a = tensor("a", [4096, 24], "input"), b = tensor("b", [4096, 40], "input"), c = tensor("c", [24, 40], "output");
  const make = () => {
    const p = new Program("gradient of a weight");
    matmul(p, a, b, { transA: true, into: c });
    return p;
  };
  const tile = { bm: 32, bn: 32, bk: 8, tm: 4, tn: 4 };
  backend.chooseMatmul = () => ({ tile, splits: 16 });
  await backend.compile(make());
  assertEquals(backend.memory.workspace, 16 * 24 * 40 * 4);
  backend.chooseMatmul = undefined;
  assert(workspaceBytes(make(), await plannedLimits({ allowFallback: true })) <= backend.memory.workspace);
  assertEquals(await plannedLimits({ allowFallback: true }), backend.limits);
  assert(workspaceBytes(make()) > 0, "a real adapter splits the inner extent");
});

onGpu("the same program run twice gives the same bits", async (backend) => {
  const { x, y, weight, bias, program } = chain();
  for (const t of [x, weight, bias]) backend.write(t, randomValues(size(t), 9));
  const executable = await backend.compile(program());
  await executable.run();
  const first = await backend.read(y);
  await executable.run();
  assertEquals(await backend.read(y), first);
});

onGpu("NaN and infinity are not swallowed on the way to the loss", async (backend) => {
  const logits = tensor("logits", [3, 300], "input"), center = tensor("center", [300], "state");
  const temperature = tensor("temperature", [1], "input"), out = tensor("out", [3, 300], "output");
  const p = new Program("softmax");
  emitCopy(p, centeredSoftmax(p, logits, center, temperature).probs, out);
  const executable = await backend.compile(p);
  const values = randomValues(900, 1, 200);
  values[7] = NaN;
  values[300 + 299] = Infinity;
  backend.write(logits, values);
  backend.write(temperature, Float32Array.of(0.04));
  await executable.run();
  const probs = await backend.read(out);
  assert(!probs.slice(0, 300).every(Number.isFinite), "a NaN logit shows");
  assert(!probs.slice(300, 600).every(Number.isFinite), "an infinite logit shows");
  const sum = (probs.slice(600) as Float32Array).reduce((a, b) => a + b, 0);
  assert(Math.abs(sum - 1) < 1e-5, `logits of ±5000 over the temperature still sum to ${sum}`);
});

onGpu("a profile has a time for each operation", async (backend) => {
  if (!backend.timestamps) return console.log("skipped: this adapter has no timestamp-query");
  const { program } = chain();
  const executable = await backend.compile(program());
  const micros = await executable.profile!();
  assertEquals(micros.length, executable.program.ops.length);
  assert(micros.every((t) => t >= 0) && micros.some((t) => t > 0));
});

onGpu("a tensor beyond the adapter's binding limit is refused with bytes and a fix", async (backend) => {
  backend.limits = { ...backend.limits, bindingBytes: 1024 };
  const { program } = chain();
  const error = await assertRejects(() => backend.compile(program()), RangeError, "binds at most 1024");
  assertStringIncludes(error.message, "smaller batch");
});

onGpu("writes of the wrong size or type are refused", (backend) => {
  const t = tensor("t", [4], "input");
  assertThrows(() => backend.write(t, new Float32Array(5)), RangeError, "exceed t");
  assertThrows(() => backend.write(t, new Uint8Array(4)), TypeError, "holds f32");
  assertThrows(() => backend.write(tensor("a", [4], "activation"), new Float32Array(4)), TypeError, "activation");
  return Promise.resolve();
});

withDevice("a kernel that does not compile is reported with its file and line", async ({ device }) => {
  const cache = new PipelineCache(device);
  const broken = {
    name: "broken",
    sources: [{ file: "one.wgsl", text: "// fine\n" }, { file: "two.wgsl", text: "\nnot wgsl" }],
  };
  await assertRejects(() => cache.get(broken, 1), Error, "two.wgsl:2");
  // What is put together, rewritten for halves and for subgroups still tells where a line came from.
  const file = "gpu/kernels/layer_norm.wgsl";
  const whole = kernel("layer_norm", { width: 4, with: ["rows"], constants: { LANES: 32 } });
  const line = whole.sources.find((source) => source.file === file)!.text.split("\n").indexOf("}");
  const sources = whole.sources.map((source) =>
    source.file === file ? { file, text: source.text.replace(/^}$/m, "undeclared;\n}") } : source
  );
  const rewritten = withSubgroups(withHalfBindings({ ...whole, sources }, [0]));
  const error = await assertRejects(() => cache.get({ ...rewritten, half: false }, 5), Error, "layer_norm");
  assertStringIncludes(error.message, `${file}:`);
  assert(line > 0 && new RegExp(`${file}:(${line}|${line + 1}|${line + 2})\\b`).test(error.message), error.message);
  device.destroy();
});

withDevice("a lost device is reported as such", async (opened) => {
  const backend = new WebGpuBackend(opened);
  opened.device.destroy();
  await new Promise((resolve) => setTimeout(resolve, 50));
  assertThrows(() => backend.check(), Error, "device was lost");
});

withDevice("an adapter that is not there is refused with those that are", async ({ device, summary }) => {
  device.destroy();
  const error = await assertRejects(() => openDevice({ adapter: "no such card" }), Error, "no such card");
  assertStringIncludes(error.message, summary.description);
  const adapters = await describeAdapters();
  if (adapters.every(({ fallback }) => fallback)) {
    await assertRejects(() => openDevice(), Error, "only a software adapter");
  }
});

Deno.test("no adapter at all is an error that says what to install", async () => {
  const gpu = { requestAdapter: () => Promise.resolve(null) } as unknown as GPU;
  await assertRejects(() => openDevice({ gpu }), Error, "libvulkan1");
});

Deno.test("a precision that the adapter lacks is refused before it is opened", async () => {
  const adapter = { features: new Set(), limits: {}, info: { description: "old card" } };
  const gpu = { requestAdapter: () => Promise.resolve(adapter) } as unknown as GPU;
  await assertRejects(() => plannedLimits({ gpu, precision: "f16" }), RangeError, '"old card" has no 16-bit floats');
  await assertRejects(() => openDevice({ gpu, precision: "f16" }), RangeError, "use precision f32");
});

Deno.test("workgroup counts fold into two dimensions within WebGPU's limit", () => {
  for (const groups of [1, 65535, 65536, 65537, 1_000_003, 65535 * 65535]) {
    const [x, y] = fold(groups);
    assert(x <= 65535 && y <= 65535 && x * y >= groups && x * y - groups < x + y, `${groups}: ${x}×${y}`);
  }
});

Deno.test("the host waits for the device about once a second", async () => {
  let now = 0, waits = 0;
  const step = 30; // milliseconds of device time a run
  let queued = 0;
  const pacer = new Pacer(() => {
    waits++;
    now += queued * step;
    queued = 0;
    return Promise.resolve();
  }, () => now);
  for (let i = 0; i < 330; i++) {
    queued++;
    await pacer.submitted();
    assert(queued <= 64 && queued * step <= 1500 + step, `${queued} runs of ${step} ms are queued`);
  }
  assert(waits < 20, `waited ${waits} times for ${330 * step} ms of work`);
  // Whoever reads every second, which waits too, spares the pacer its waits.
  const before = waits;
  for (let i = 0; i < 330; i++) {
    queued++;
    await pacer.submitted();
    if (queued * step < 1000) continue;
    now += queued * step;
    queued = 0;
    pacer.drained();
  }
  assertEquals(waits, before);
});
