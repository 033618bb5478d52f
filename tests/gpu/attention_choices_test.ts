// Every kernel that a tuner may choose for an attention, forced: it agrees with the reference, and none changes a bit.
import { attentionCandidates, type AttentionChoice, attentionChoiceName } from "../../gpu/attention_choice.ts";
import type { WebGpuBackend } from "../../gpu/backend.ts";
import { DEFAULT_LIMITS } from "../../gpu/mod.ts";
import { compareAttention } from "../../gpu/tuning/attention.ts";
import { Tuner, type TuningCache } from "../../gpu/autotune.ts";
import { TuningOperands } from "../../gpu/tuning/operands.ts";
import { workspaceBytes } from "../../gpu/mod.ts";
import { attention } from "../../models/graph/ops/attention.ts";
import { differentiate } from "../../models/graph/autodiff.ts";
import type { CopyOp } from "../../models/graph/ops/elementwise.ts";
import { Program } from "../../models/graph/program.ts";
import { tensor } from "../../models/graph/tensor.ts";
import { assert, assertEquals, assertRejects } from "../assert.ts";
import { assertAgrees, randomValues } from "./compare.ts";
import { onGpu } from "./open.ts";

/** [images, tokens, heads, width of a head, queries] */
const CASES = [
  [3, 20, 3, 16, 20], // one tile holds all; an odd number of heads for workgroups that take two
  [2, 13, 2, 10, 13], // without whole vectors
  [2, 11, 2, 12, 1], // only [CLS] asks
  [2, 45, 2, 8, 45], // more tokens than a single tile holds
] as const;

/** As on a real adapter, but for little workgroup memory: large tiles take a software adapter many seconds to build. */
function asReal(backend: WebGpuBackend): void {
  backend.limits = { ...backend.limits, workgroupBytes: 9728, fallback: false, lanes: 0 };
}

/** The guess, another tile, and one of every other kind: each takes seconds to build. */
function ofEachKind(choices: readonly AttentionChoice[]): AttentionChoice[] {
  const kind = (c: AttentionChoice) => c.kind === "tiles" && c.together > 1 ? "together" : c.kind;
  return choices.filter((c, i) => choices.findIndex((other) => kind(other) === kind(c)) === i || i === 1);
}

onGpu("kernels of attention agree with the reference and with each other, bit by bit", async (backend) => {
  asReal(backend);
  const seen = new Set<string>();
  for (const [images, tokens, heads, width, queries] of CASES) {
    const D = heads * width;
    const qkv = tensor("qkv", [images * tokens, 3 * D], "input"), dqkv = tensor("dqkv", qkv.shape, "output");
    const dy = tensor("dy", [images * queries, D], "input"), y = tensor("y", dy.shape, "output");
    const program = () => {
      const p = new Program("attention");
      const made = attention(p, qkv, { images, tokens, heads, queries });
      differentiate(p, { seeds: [[made, dy]], wrt: [[qkv, dqkv]] });
      p.emit<CopyOp>({ kind: "copy", in: { x: made }, out: { y }, attrs: {} });
      return p;
    };
    const shape = { images, tokens, heads, width, queries };
    const forward = ofEachKind(attentionCandidates({ ...shape, backward: false }, backend.limits));
    const backward = ofEachKind(attentionCandidates({ ...shape, backward: true }, backend.limits));
    // Not every pair: each forward kernel and each backward one.
    const pairs = Array.from(
      { length: Math.max(forward.length, backward.length) },
      (_, i): [AttentionChoice, AttentionChoice] => [
        forward[i % forward.length],
        backward[i % backward.length],
      ],
    );
    const first: Float32Array[] = [];
    for (const [i, [f, b]] of pairs.entries()) {
      const names = `${tokens} tokens of ${width}, ${attentionChoiceName(f)} and ${attentionChoiceName(b)}`;
      for (const choice of [f, b]) {
        seen.add(choice.kind + (choice.kind === "tiles" && choice.together > 1 ? " together" : ""));
      }
      backend.chooseAttention = (shape) => shape.backward ? b : f;
      if (i === 0) await assertAgrees(names, backend, program, [qkv, dy], [y, dqkv], 2e-6);
      backend.write(qkv, randomValues(images * tokens * 3 * D, 1));
      backend.write(dy, randomValues(images * queries * D, 2));
      const executable = await backend.compile(program());
      await executable.run();
      for (const [n, t] of [y, dqkv].entries()) {
        const got = await backend.read(t) as Float32Array;
        if (i === 0) first.push(got);
        else assertEquals(got, first[n], `${names}: ${t.name}`);
      }
      executable.dispose();
    }
    backend.free(qkv, dy, y, dqkv);
  }
  assertEquals([...seen].sort(), ["single", "stored", "tiles", "tiles together"]);
});

onGpu("attention that is wrong on a driver may not win, and the tuner remembers what did", async (backend) => {
  asReal(backend);
  const shape = { backward: true, images: 2, tokens: 9, heads: 2, width: 8, queries: 9 };
  const candidates = attentionCandidates(shape, backend.limits);
  const operands = new TuningOperands(backend);
  const sound = await compareAttention(operands, shape, candidates);
  assertEquals(sound.wrong, []);
  assertEquals(Object.keys(sound.micros).sort(), candidates.map(attentionChoiceName).sort());
  const { compileWith } = backend;
  backend.compileWith = async (program, options = {}) => {
    // As a driver's fault would: another number of images.
    const broken = options.attention?.(shape, backend.limits).kind === "stored";
    const executable = await compileWith.call(backend, program, options);
    if (!broken) return executable;
    return new Proxy(executable, {
      get: (target, key) => {
        const value = key === "run" ? () => Promise.resolve() : Reflect.get(target, key, target);
        return typeof value === "function" ? value.bind(target) : value;
      },
    });
  };
  const some = candidates.filter(({ kind }) => kind !== "tiles");
  const result = await compareAttention(operands, shape, [some.find(({ kind }) => kind === "stored")!, ...some]);
  assertEquals([result.wrong.includes("stored"), result.chosen], [true, "single"]);
  const stored = candidates.filter(({ kind }) => kind === "stored");
  await assertRejects(() => compareAttention(operands, shape, stored), Error, "every attention kernel");
  backend.compileWith = compileWith;

  let saved: string | undefined;
  const cache: TuningCache = {
    load: () => Promise.resolve(saved),
    save: (text) => Promise.resolve(void (saved = text)),
  };
  const program = () => {
    const p = new Program("attention");
    attention(p, tensor("qkv", [18, 48], "input"), { images: 2, tokens: 9, heads: 2, queries: 9 });
    return p;
  };
  const first = new Tuner(backend, { cache, seconds: 60 });
  await first.prepare(program());
  assertEquals(first.attention.length, 1);
  const second = new Tuner(backend, { cache });
  await second.prepare(program());
  assertEquals(second.attention.length, 0, "nothing is left to measure");
  const forward = { ...shape, backward: false };
  assertEquals(attentionChoiceName(second.chooseAttention(forward, backend.limits)), first.attention[0].chosen);
});

onGpu("room that an attention may take, once its kernels are compared, is counted before", async (backend) => {
  backend.limits = { ...backend.limits, workgroupBytes: 32768, fallback: false, lanes: 0 };
  const [images, tokens, heads, width] = [8, 197, 6, 16], D = heads * width;
  const qkv = tensor("qkv", [images * tokens, 3 * D], "input"), dqkv = tensor("dqkv", qkv.shape, "output");
  const dy = tensor("dy", [images * tokens, D], "input");
  const p = new Program("attention");
  const made = attention(p, qkv, { images, tokens, heads, queries: tokens });
  differentiate(p, { seeds: [[made, dy]], wrt: [[qkv, dqkv]] });
  const stored = 2 * 4 * images * heads * tokens * 200, guessed = await backend.holds([p]);
  backend.tuner = new Tuner(backend, { seconds: 0 });
  assertEquals([guessed, await backend.holds([p])], [true, false]);
  assert(workspaceBytes(p, { ...backend.limits }) > stored, "a plan counts it too");
}, { maximumBytes: 14_000_000 });

Deno.test("long sequences never store their scores", () => {
  const limits = DEFAULT_LIMITS;
  for (const tokens of [785, 3601]) {
    const shape = { backward: true, images: 2, tokens, heads: 6, width: 64, queries: tokens };
    assert(attentionCandidates(shape, limits).every(({ kind }) => kind === "tiles"));
  }
  const names = (tokens: number, backward: boolean) =>
    attentionCandidates({ backward, images: 2, tokens, heads: 6, width: 64, queries: tokens }, limits).map(
      attentionChoiceName,
    );
  assert(
    names(37, true).includes("single") && names(37, true).includes("stored") && names(197, true).includes("stored"),
  );
  assert(names(37, false).some((name) => name.endsWith("+2")), `${names(37, false)}`);
});
