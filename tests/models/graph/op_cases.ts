// Operations with odd extents and random operands, to be run on any backend and compared with the float64 reference.
import { type AxisWeights, resample } from "../../../models/graph/ops/tokens.ts";
import type { Op } from "../../../models/graph/ops/mod.ts";
import { GROUP_COLUMNS, SEGMENT_COLUMNS } from "../../../models/graph/ops/optimizer.ts";
import { Program } from "../../../models/graph/program.ts";
import { size, type Tensor, tensor, type TensorData } from "../../../models/graph/tensor.ts";
import { bicubicAxis, bilinearAxis } from "../../../models/interpolate.ts";

/** float32's unit of rounding. */
const EPS = 2 ** -23;

/** One program, its operands, and how far a float32 result may be from the truth. */
export interface OpCase {
  readonly name: string;
  readonly program: Program;
  readonly inputs: readonly (readonly [Tensor, TensorData])[];
  readonly outputs: readonly Tensor[];
  /** Largest |got − truth| over max(1, largest |truth|) of the output. */
  readonly tolerance: number;
}

/** Uniform in [−1, 1), repeatable: a 32-bit linear congruential generator is enough for test data. */
export function noise(seed: number): () => number {
  let state = (seed * 2654435761 + 1) >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  };
}

/**
 * Makes operands and collects them; outputs start as NaN, so that an element left unwritten shows. Values are drawn when somebody
 * looks at them, in the order of the operands: most tests take a few of all cases.
 */
class Builder {
  readonly program: Program;
  readonly #drawn: (readonly [Tensor, TensorData])[] = [];
  readonly #pending: (() => readonly [Tensor, TensorData])[] = [];
  readonly outputs: Tensor[] = [];
  readonly #noise: () => number;

  constructor(readonly name: string, seed: number) {
    this.program = new Program(name);
    this.#noise = noise(seed);
  }

  get inputs(): readonly (readonly [Tensor, TensorData])[] {
    while (this.#drawn.length < this.#pending.length) this.#drawn.push(this.#pending[this.#drawn.length]());
    return this.#drawn;
  }

  /** An input of values `at(i)`, by default noise of the given magnitude. */
  input(name: string, shape: number[], at: number | ((i: number) => number) = 1): Tensor {
    const t = tensor(name, shape, "input");
    const value = typeof at === "number" ? () => at * this.#noise() : at;
    this.#pending.push(() => [t, Float32Array.from({ length: size(t) }, (_, i) => value(i))]);
    return t;
  }

  integers(name: string, shape: number[], values: number[]): Tensor {
    const t = tensor(name, shape, "input", "i32");
    this.#pending.push(() => [t, Int32Array.from(values)]);
    return t;
  }

  /** A result; give `initial` when the operation reads it before it writes. */
  output(name: string, shape: number[], initial?: number, dtype: "f32" | "i32" = "f32"): Tensor {
    const t = tensor(name, shape, "output", dtype);
    const start = initial === undefined ? () => NaN : () => initial * this.#noise();
    if (dtype === "f32") this.#pending.push(() => [t, Float32Array.from({ length: size(t) }, start)]);
    this.outputs.push(t);
    return t;
  }

  /** An operand that is also a result: updated in place. */
  inOut(name: string, shape: number[], at: number | ((i: number) => number) = 1): Tensor {
    const t = this.input(name, shape, at);
    this.outputs.push(t);
    return t;
  }

  done(tolerance: number, ...ops: Op[]): OpCase {
    for (const op of ops) this.program.emit(op);
    return Object.assign(this, { tolerance });
  }
}

let seed = 1;
const build = (name: string) => new Builder(name, seed++);

/** A sum of K products of rounded operands errs by about √K·ε of its terms' size; 4 leaves room for unlucky orders. */
const sumTolerance = (terms: number) => 4 * Math.sqrt(terms) * EPS;

/** Elementwise formulas with exp, erf or a division: some tens of roundings. */
const ELEMENTWISE = 40 * EPS;

function* matmulCases(): Generator<OpCase> {
  const plain = { transA: false, transB: false, epilogue: "none" as const, accumulate: false };
  const sizes = [[1, 1, 1], [3, 5, 7], [37, 65, 33], [17, 16, 64], [130, 34, 129], [64, 96, 1], [1, 257, 70]];
  for (const [m, n, k] of sizes) {
    for (const [transA, transB] of [[false, false], [false, true], [true, false], [true, true]]) {
      const b = build(`matmul ${m}×${n}×${k}${transA ? " Aᵀ" : ""}${transB ? " Bᵀ" : ""}`);
      const a = b.input("a", transA ? [k, m] : [m, k]), w = b.input("b", transB ? [n, k] : [k, n]);
      const c = b.output("c", [m, n]);
      yield b.done(sumTolerance(k), {
        kind: "matmul",
        in: { a, b: w },
        out: { c },
        attrs: { ...plain, transA, transB },
      });
    }
  }
  // Every epilogue, on a row count that two images of 37 tokens have.
  const [m, n, k] = [74, 51, 43];
  for (const epilogue of ["none", "gelu", "geluBackward"] as const) {
    for (const extras of ["bias", "residual", "scaled residual", "accumulate", "everything"] as const) {
      const b = build(`matmul ${epilogue} + ${extras}`);
      const all = extras === "everything";
      const a = b.input("a", [m, k]), w = b.input("b", [n, k]);
      const bias = all || extras === "bias" ? b.input("bias", [n], 3) : undefined;
      const residual = all || extras.endsWith("residual") ? b.input("residual", [m, n]) : undefined;
      const rowScale = all || extras.startsWith("scaled") ? b.input("rowScale", [2], (i) => [0, 1.25][i]) : undefined;
      const accumulate = all || extras === "accumulate";
      const pre = epilogue === "geluBackward" ? b.input("pre", [m, n], 4) : undefined;
      const c = b.output("c", [m, n], accumulate ? 1 : undefined);
      const preOut = epilogue === "gelu" ? b.output("preOut", [m, n]) : undefined;
      yield b.done(sumTolerance(k) + ELEMENTWISE, {
        kind: "matmul",
        in: { a, b: w, bias, residual, rowScale, pre },
        out: { c, pre: preOut },
        attrs: { transA: false, transB: true, epilogue, accumulate },
      });
    }
  }
  // A long inner extent (weight gradients of many tokens), plain and accumulated: what split-K must get right.
  for (const accumulate of [false, true]) {
    const b = build(`matmul weight gradient${accumulate ? " accumulated" : ""}`);
    const a = b.input("a", [1543, 19]),
      w = b.input("b", [1543, 35]),
      c = b.output("c", [19, 35], accumulate ? 1 : undefined);
    yield b.done(sumTolerance(1543), {
      kind: "matmul",
      in: { a, b: w },
      out: { c },
      attrs: { transA: true, transB: false, epilogue: "none", accumulate },
    });
  }
  const b = build("matmul with residual in place");
  const a = b.input("a", [21, 9]), w = b.input("b", [13, 9]), c = b.inOut("c", [21, 13]);
  yield b.done(sumTolerance(9), {
    kind: "matmul",
    in: { a, b: w, residual: c },
    out: { c },
    attrs: { ...plain, transB: true },
  });
}

function* elementwiseCases(): Generator<OpCase> {
  for (const n of [1, 63, 1025]) {
    let b = build(`add ${n}`);
    yield b.done(EPS, {
      kind: "add",
      in: { a: b.input("a", [n]), b: b.input("b", [n]) },
      out: { y: b.output("y", [n]) },
      attrs: {},
    });
    b = build(`copy ${n}`);
    yield b.done(0, { kind: "copy", in: { x: b.input("x", [n]) }, out: { y: b.output("y", [n]) }, attrs: {} });
    b = build(`gelu ${n}`);
    const wide = (i: number) => (i % 2 ? 1 : -1) * 10 ** ((i % 41) / 8 - 4); // 1e-4 … 12, both signs
    yield b.done(ELEMENTWISE, {
      kind: "gelu",
      in: { x: b.input("x", [n], wide) },
      out: { y: b.output("y", [n]) },
      attrs: {},
    });
    b = build(`geluBackward ${n}`);
    yield b.done(ELEMENTWISE, {
      kind: "geluBackward",
      in: { dy: b.input("dy", [n]), x: b.input("x", [n], wide) },
      out: { dx: b.output("dx", [n]) },
      attrs: { accumulate: false },
    });
  }
  let b = build("add in place");
  const a = b.inOut("a", [77]);
  yield b.done(EPS, { kind: "add", in: { a, b: b.input("b", [77]) }, out: { y: a }, attrs: {} });
  b = build("geluBackward accumulated");
  yield b.done(ELEMENTWISE, {
    kind: "geluBackward",
    in: { dy: b.input("dy", [77]), x: b.input("x", [77], 3) },
    out: { dx: b.output("dx", [77], 1) },
    attrs: { accumulate: true },
  });
  b = build("geluBackward in place");
  const dy = b.inOut("dy", [5, 33]);
  yield b.done(ELEMENTWISE, {
    kind: "geluBackward",
    in: { dy, x: b.input("x", [5, 33], 3) },
    out: { dx: dy },
    attrs: { accumulate: false },
  });
  b = build("scaleRows");
  yield b.done(EPS, {
    kind: "scaleRows",
    in: { x: b.input("x", [3 * 37, 21]), scale: b.input("scale", [3], (i) => [0, 1.1, 2][i]) },
    out: { y: b.output("y", [3 * 37, 21]) },
    attrs: {},
  });
  for (const [rows, columns] of [[1, 1], [37, 65], [1031, 5], [3, 300]]) {
    for (const accumulate of [false, true]) {
      b = build(`columnSum ${rows}×${columns}${accumulate ? " accumulated" : ""}`);
      yield b.done(sumTolerance(rows), {
        kind: "columnSum",
        in: { x: b.input("x", [rows, columns]) },
        out: { y: b.output("y", [columns], accumulate ? 1 : undefined) },
        attrs: { accumulate },
      });
    }
  }
  for (const n of [1, 100, 4099]) {
    b = build(`sum ${n}`);
    yield b.done(sumTolerance(n), {
      kind: "sum",
      in: { x: b.input("x", [n]) },
      out: { y: b.output("y", [1], 1) },
      attrs: { scale: -0.25, accumulate: n > 1 },
    });
  }
}

function* normCases(): Generator<OpCase> {
  for (const [rows, columns] of [[1, 3], [37, 65], [10, 384], [2, 1000]]) {
    const shifted = (b: Builder) => b.input("x", [rows, columns], (i) => Math.sin(i * i) * 2 + 0.7);
    let b = build(`layerNorm ${rows}×${columns}`);
    yield b.done(ELEMENTWISE, {
      kind: "layerNorm",
      in: { x: shifted(b), weight: b.input("weight", [columns]), bias: b.input("bias", [columns]) },
      out: { y: b.output("y", [rows, columns]), stats: b.output("stats", [rows, 2]) },
      attrs: { eps: 1e-6 },
    });
    for (const accumulate of [false, true]) {
      b = build(`layerNormBackward ${rows}×${columns}${accumulate ? " accumulated" : ""}`);
      const start = accumulate ? 1 : undefined;
      yield b.done(sumTolerance(Math.max(rows, columns)) + ELEMENTWISE, {
        kind: "layerNormBackward",
        in: {
          dy: b.input("dy", [rows, columns]),
          x: shifted(b),
          stats: b.input("stats", [rows, 2], (i) => i % 2 ? 0.7 : 0.2),
          weight: b.input("weight", [columns]),
        },
        out: {
          dx: b.output("dx", [rows, columns], start),
          dweight: b.output("dweight", [columns], start),
          dbias: b.output("dbias", [columns], start),
        },
        attrs: { accumulateX: accumulate, accumulateParams: accumulate },
      });
    }
    b = build(`layerNormBackward in place ${rows}×${columns}`);
    const dy = b.program.activation("dy", [rows, columns]), dx = b.program.activation("dx", [rows, columns]);
    yield b.done(
      sumTolerance(Math.max(rows, columns)) + ELEMENTWISE,
      { kind: "copy", in: { x: b.input("given", [rows, columns]) }, out: { y: dy }, attrs: {} },
      {
        kind: "layerNormBackward",
        in: {
          dy,
          x: shifted(b),
          stats: b.input("stats", [rows, 2], (i) => i % 2 ? 0.7 : 0.2),
          weight: b.input("weight", [columns]),
        },
        out: { dx, dweight: b.output("dweight", [columns]), dbias: b.output("dbias", [columns]) },
        attrs: { accumulateX: false, accumulateParams: false },
      },
      { kind: "copy", in: { x: dx }, out: { y: b.output("result", [rows, columns]) }, attrs: {} },
    );
    b = build(`l2Normalize ${rows}×${columns}`);
    const tiny = (i: number) => i < columns ? 0 : Math.cos(3 * i); // the first row has no length
    yield b.done(ELEMENTWISE, {
      kind: "l2Normalize",
      in: { x: b.input("x", [rows, columns], rows > 1 ? tiny : 1) },
      out: { y: b.output("y", [rows, columns]), norm: b.output("norm", [rows]) },
      attrs: { eps: 1e-12 },
    });
    for (const accumulate of [false, true]) {
      b = build(`l2NormalizeBackward ${rows}×${columns}${accumulate ? " accumulated" : ""}`);
      yield b.done(sumTolerance(columns) + ELEMENTWISE, {
        kind: "l2NormalizeBackward",
        in: {
          dy: b.input("dy", [rows, columns]),
          y: b.input("y", [rows, columns], 1 / Math.sqrt(columns)),
          norm: b.input("norm", [rows], (i) => i + 0.5),
        },
        out: { dx: b.output("dx", [rows, columns], accumulate ? 1 : undefined) },
        attrs: { eps: 1e-12, accumulate },
      });
    }
    b = build(`weightNorm ${rows}×${columns}`);
    yield b.done(ELEMENTWISE, {
      kind: "weightNorm",
      in: { v: b.input("v", [rows, columns]), gain: b.input("gain", [rows, 1], (i) => 0.5 + i / 7) },
      out: { weight: b.output("weight", [rows, columns]), norm: b.output("norm", [rows]) },
      attrs: {},
    });
    for (const accumulate of [false, true]) {
      b = build(`weightNormBackward ${rows}×${columns}${accumulate ? " accumulated" : ""}`);
      const start = accumulate ? 1 : undefined;
      const v = b.input("v", [rows, columns]);
      const values = b.inputs.at(-1)![1];
      yield b.done(sumTolerance(columns) + ELEMENTWISE, {
        kind: "weightNormBackward",
        in: {
          dweight: b.input("dweight", [rows, columns]),
          v,
          gain: b.input("gain", [rows, 1], (i) => 0.5 + i / 7),
          norm: b.input("norm", [rows], (i) => Math.hypot(...values.slice(i * columns, (i + 1) * columns))),
        },
        out: {
          dv: b.output("dv", [rows, columns], start),
          dgain: accumulate ? undefined : b.output("dgain", [rows, 1]),
        },
        attrs: { accumulate },
      });
    }
  }
  for (const [rows, channels] of [[2, 1], [6, 64], [129, 33]]) {
    for (const training of [true, false]) {
      let b = build(`batchNorm ${rows}×${channels}${training ? "" : " evaluation"}`);
      const runningMean = training ? b.inOut("runningMean", [channels]) : b.input("runningMean", [channels]);
      const positive = (i: number) => 0.5 + (i % 5) / 4;
      const runningVar = training
        ? b.inOut("runningVar", [channels], positive)
        : b.input("runningVar", [channels], positive);
      yield b.done(sumTolerance(rows) + ELEMENTWISE, {
        kind: "batchNorm",
        in: {
          x: b.input("x", [rows, channels], (i) => 3 + Math.sin(i * 7)),
          weight: b.input("weight", [channels]),
          bias: b.input("bias", [channels]),
          runningMean,
          runningVar,
        },
        out: {
          y: b.output("y", [rows, channels]),
          stats: b.output("stats", [2, channels]),
          ...(training ? { runningMean, runningVar } : {}),
        },
        attrs: { eps: 1e-5, momentum: 0.1, training },
      });
      b = build(`batchNormBackward ${rows}×${channels}${training ? "" : " evaluation"}`);
      const start = training ? undefined : 1;
      yield b.done(sumTolerance(rows) + ELEMENTWISE, {
        kind: "batchNormBackward",
        in: {
          dy: b.input("dy", [rows, channels]),
          x: b.input("x", [rows, channels]),
          stats: b.input("stats", [2, channels], (i) => i < channels ? 0.1 : 1.5),
          weight: b.input("weight", [channels]),
        },
        out: {
          dx: b.output("dx", [rows, channels], start),
          dweight: b.output("dweight", [channels], start),
          dbias: b.output("dbias", [channels], start),
        },
        attrs: { training, accumulateX: !training, accumulateParams: !training },
      });
    }
    yield* sharedBatchNormCases(rows, channels);
  }
}

/** What a batch norm of one of three ranks is made of. */
function* sharedBatchNormCases(rows: number, channels: number): Generator<OpCase> {
  const ranks = 3, tolerance = sumTolerance(rows) + ELEMENTWISE;
  const far = (i: number) => 3 + Math.sin(i * 7), positive = (i: number) => 0.5 + (i % 5) / 4;
  let b = build(`batchNormMoments ${rows}×${channels}`);
  yield b.done(tolerance, {
    kind: "batchNormMoments",
    in: { x: b.input("x", [rows, channels], far) },
    out: { moments: b.output("moments", [2, channels]) },
    attrs: {},
  });
  b = build(`batchNorm ${rows}×${channels} of ${ranks} ranks`);
  const runningMean = b.inOut("runningMean", [channels]), runningVar = b.inOut("runningVar", [channels], positive);
  const moments = (i: number) => Math.floor(i / channels) % 2 === 0 ? 3 + i % 4 / 4 : rows * positive(i);
  yield b.done(tolerance, {
    kind: "batchNorm",
    in: {
      x: b.input("x", [rows, channels], far),
      weight: b.input("weight", [channels]),
      bias: b.input("bias", [channels]),
      runningMean,
      runningVar,
      moments: b.input("moments", [ranks, 2, channels], moments),
    },
    out: { y: b.output("y", [rows, channels]), stats: b.output("stats", [2, channels]), runningMean, runningVar },
    attrs: { eps: 1e-5, momentum: 0.1, training: true },
  });
  for (const accumulate of [false, true]) {
    const start = accumulate ? 1 : undefined;
    const stats = (i: number) => i < channels ? 0.1 : 1.5;
    b = build(`batchNormSums ${rows}×${channels}${accumulate ? ", accumulating" : ""}`);
    yield b.done(tolerance, {
      kind: "batchNormSums",
      in: {
        dy: b.input("dy", [rows, channels]),
        x: b.input("x", [rows, channels]),
        stats: b.input("stats", [2, channels], stats),
      },
      out: {
        sums: b.output("sums", [2, channels]),
        dweight: b.output("dweight", [channels], start),
        dbias: b.output("dbias", [channels], start),
      },
      attrs: { accumulateParams: accumulate },
    });
    b = build(`batchNormBackward ${rows}×${channels} of ${ranks} ranks${accumulate ? ", accumulating" : ""}`);
    yield b.done(tolerance, {
      kind: "batchNormBackward",
      in: {
        dy: b.input("dy", [rows, channels]),
        x: b.input("x", [rows, channels]),
        stats: b.input("stats", [2, channels], stats),
        weight: b.input("weight", [channels]),
        sums: b.input("sums", [2, channels], Math.sqrt(rows * ranks)),
      },
      out: { dx: b.output("dx", [rows, channels], start) },
      attrs: { training: true, accumulateX: accumulate, accumulateParams: false, ranks },
    });
  }
}

/** What several ranks do, in a world of one: nothing. */
function* collectiveCases(): Generator<OpCase> {
  for (const shape of [[1], [7, 33]]) {
    let b = build(`allReduce [${shape}] of one rank`);
    const attrs = { ranks: 1 };
    yield b.done(0, { kind: "allReduce", in: { x: b.input("x", shape) }, out: { y: b.output("y", shape) }, attrs });
    b = build(`allGather [${shape}] of one rank`);
    const y = b.output("y", [1, ...shape]);
    yield b.done(0, { kind: "allGather", in: { x: b.input("x", shape) }, out: { y }, attrs });
  }
}

function* attentionCases(): Generator<OpCase> {
  for (
    const [images, tokens, heads, d, queries] of [
      [1, 1, 1, 4, 1],
      [2, 37, 3, 16, 37],
      [1, 197, 2, 64, 197],
      [3, 17, 2, 12, 1],
      [2, 65, 1, 40, 65],
      [1, 50, 3, 64, 1],
    ]
  ) {
    const attrs = { images, tokens, heads, queries };
    const D = heads * d, name = `${images}×${tokens} tokens, ${heads}×${d}, ${queries} queries`;
    let b = build(`attention ${name}`);
    yield b.done(ELEMENTWISE, {
      kind: "attention",
      in: { qkv: b.input("qkv", [images * tokens, 3 * D], 2) },
      out: { y: b.output("y", [images * queries, D]), lse: b.output("lse", [images, heads, queries]) },
      attrs,
    });
    // Backward on what a real forward gives: y and lse that belong to qkv.
    b = build(`attentionBackward ${name}`);
    const qkv = b.input("qkv", [images * tokens, 3 * D], 2);
    const y = b.output("y", [images * queries, D]), lse = b.output("lse", [images, heads, queries]);
    yield b.done(sumTolerance(tokens) + ELEMENTWISE, { kind: "attention", in: { qkv }, out: { y, lse }, attrs }, {
      kind: "attentionBackward",
      in: { dy: b.input("dy", [images * queries, D]), qkv, y, lse },
      out: { dqkv: b.output("dqkv", [images * tokens, 3 * D]) },
      attrs,
    });
    b = build(`attentionProbs ${name}`);
    const firstQuery = tokens - queries > 0 ? tokens - queries : 0;
    yield b.done(ELEMENTWISE, {
      kind: "attentionProbs",
      in: { qkv: b.input("qkv", [images * tokens, 3 * D], 2) },
      out: { probs: b.output("probs", [images, heads, queries, tokens]) },
      attrs: { ...attrs, firstQuery },
    });
  }
  const b = build("attention of scores beyond the range of exp");
  yield b.done(ELEMENTWISE, {
    kind: "attention",
    in: { qkv: b.input("qkv", [9, 3 * 8], 40) },
    out: { y: b.output("y", [9, 8]), lse: undefined },
    attrs: { images: 1, tokens: 9, heads: 1, queries: 9 },
  });
}

function* tokenCases(): Generator<OpCase> {
  for (const [B, C, H, W, patchSize] of [[1, 3, 8, 8, 8], [2, 3, 37, 45, 8], [3, 1, 5, 7, 1], [2, 4, 15, 16, 5]]) {
    const gridH = Math.floor(H / patchSize), gridW = Math.floor(W / patchSize);
    const patches = [B * gridH * gridW, C * patchSize ** 2];
    let b = build(`patchify ${[B, C, H, W]} by ${patchSize}`);
    yield b.done(0, {
      kind: "patchify",
      in: { image: b.input("image", [B, C, H, W]) },
      out: { patches: b.output("patches", patches) },
      attrs: { patchSize },
    });
    b = build(`unpatchify ${[B, C, H, W]} by ${patchSize}`);
    yield b.done(0, {
      kind: "unpatchify",
      in: { patches: b.input("patches", patches) },
      out: { image: b.output("image", [B, C, H, W]) },
      attrs: { patchSize },
    });
  }
  const tokenShapes = [[1, 1, 4, 1, 0], [3, 36, 33, 1, 0], [5, 16, 48, 5, 0], [3, 7, 9, 2, 1], [2, 6, 8, 0, 0]];
  for (const [images, n, D, L, own] of tokenShapes) {
    const shape = `${images}×${n}×${D}, ${L} leading${own ? " of each image" : ""}`;
    let b = build(`assembleTokens ${shape}`);
    const leads = own ? images * L : L;
    yield b.done(2 * EPS, {
      kind: "assembleTokens",
      in: {
        patches: b.input("patches", [images * n, D]),
        lead: L > 0 ? b.input("lead", [leads, D]) : undefined,
        pos: b.input("pos", [L + n, D]),
      },
      out: { x: b.output("x", [images * (L + n), D]) },
      attrs: { images },
    });
    for (const accumulate of [false, true]) {
      b = build(`assembleTokensBackward ${shape}${accumulate ? " accumulated" : ""}`);
      const start = accumulate ? 1 : undefined;
      yield b.done(sumTolerance(images), {
        kind: "assembleTokensBackward",
        in: { dx: b.input("dx", [images * (L + n), D]) },
        out: {
          dpatches: b.output("dpatches", [images * n, D]),
          dlead: L > 0 ? b.output("dlead", [leads, D], start) : undefined,
          dpos: b.output("dpos", [L + n, D], start),
        },
        attrs: { images, lead: L, leadPerImage: own === 1, accumulateLead: accumulate, accumulatePos: accumulate },
      });
    }
  }
  const axes: [string, AxisWeights, AxisWeights][] = [
    ["4×4 to 6×3", bicubicAxis(4, 6, 1.525), bicubicAxis(4, 3, 0.775)],
    ["14×14 to 6×6", bicubicAxis(14, 6, 6.1 / 14), bicubicAxis(14, 6, 6.1 / 14)],
    ["5×7 to 2×9 bilinear", bilinearAxis(5, 2, 0.4), bilinearAxis(7, 9, 9 / 7)],
    ["1×1 to 3×1", bicubicAxis(1, 3, 3.1), bicubicAxis(1, 1, 1.1)],
  ];
  for (const [name, y, x] of axes) {
    for (const lead of [0, 1]) {
      const b = build(`resample ${name}, ${lead} leading`);
      const source = b.input("x", [lead + y.in * x.in, 19]);
      resample(b.program, source, y, x, lead, b.output("y", [lead + y.out * x.out, 19]));
      yield b.done(ELEMENTWISE);
    }
  }
  const b = build("resample accumulated");
  const source = b.input("x", [10, 6]), target = b.output("y", [5, 6], 1);
  resample(b.program, source, bicubicAxis(3, 2, 0.7), bicubicAxis(3, 2, 0.7), 1, target);
  const op = b.program.ops[0] as Extract<Op, { kind: "resample" }>;
  b.program.ops[0] = { ...op, attrs: { lead: 1, accumulate: true } };
  yield b.done(ELEMENTWISE);
  for (const [start, stride, count, into] of [[0, 17, 5, 0], [2, 3, 7, 4], [0, 1, 12, 3]]) {
    const gather = build(`gatherRows ${start} + i·${stride}`);
    const rows = start + (count - 1) * stride + 3, attrs = { start, stride, count, target: into };
    yield gather.done(0, {
      kind: "gatherRows",
      in: { x: gather.input("x", [rows, 21]) },
      out: { y: gather.output("y", [count + into + 2, 21], 1) },
      attrs,
    });
    for (const accumulate of [false, true]) {
      const scatter = build(`scatterRows ${start} + i·${stride}${accumulate ? " accumulated" : ""}`);
      yield scatter.done(EPS, {
        kind: "scatterRows",
        in: { y: scatter.input("y", [count + into + 2, 21]) },
        out: { x: scatter.output("x", [rows, 21], accumulate ? 1 : undefined) },
        attrs: { ...attrs, accumulate },
      });
    }
  }
}

function* lossCases(): Generator<OpCase> {
  for (const [rows, K] of [[1, 2], [6, 65], [5, 4099]]) {
    const b = build(`centeredSoftmax ${rows}×${K}`);
    yield b.done(ELEMENTWISE, {
      kind: "centeredSoftmax",
      in: {
        logits: b.input("logits", [rows, K], 0.5),
        center: b.input("center", [K], 0.1),
        temperature: b.input("temperature", [1], () => 0.04),
      },
      out: { probs: b.output("probs", [rows, K]), entropy: b.output("entropy", [rows]) },
      attrs: {},
    });
  }
  const b = build("centeredSoftmax beyond the range of exp, in place");
  const logits = b.inOut("logits", [4, 33], 20);
  yield b.done(100 * ELEMENTWISE, { // arguments of ±500 lose 500 ulp before exp sees them
    kind: "centeredSoftmax",
    in: { logits, center: b.input("center", [33]), temperature: b.input("temperature", [1], () => 0.04) },
    out: { probs: logits },
    attrs: {},
  });
  const sizes: readonly number[][] = [[2, 2, 1, 5], [6, 2, 3, 65], [10, 2, 2, 4099], [3, 1, 2, 33], [1, 2, 3, 21, 1], [
    3,
    2,
    2,
    65,
    4,
  ]];
  for (const [views, globals, images, K, firstView] of sizes) {
    for (const withGradient of [true, false]) {
      const of = `${views} views${firstView === undefined ? "" : ` from ${firstView}`}, ${globals} global`;
      const b = build(`dinoLoss ${of}, ${images}×${K}${withGradient ? "" : ", loss only"}`);
      // Probabilities that sum to one, as the loss assumes.
      const weights = (i: number) => 2 * (1 + i % K) / (K * (K + 1));
      yield b.done(ELEMENTWISE * 4, {
        kind: "dinoLoss",
        in: {
          student: b.input("student", [views * images, K], 2),
          probs: b.input("probs", [globals * images, K], weights),
        },
        out: {
          dlogits: withGradient ? b.output("dlogits", [views * images, K]) : undefined,
          losses: b.output("losses", [views * images]),
        },
        attrs: { views, globals, images, temperature: 0.1, gradientScale: 1 / (images * globals * views), firstView },
      });
    }
  }
  for (const frozen of [undefined, 0, 1]) {
    const b = build(`centerUpdate${frozen === undefined ? "" : `, frozen = ${frozen}`}`);
    const center = b.inOut("center", [77]);
    yield b.done(4 * EPS, {
      kind: "centerUpdate",
      in: {
        sum: b.input("sum", [77], 20),
        center,
        frozen: frozen === undefined ? undefined : b.input("frozen", [1], () => frozen),
      },
      out: { center },
      attrs: { momentum: 0.9, rows: 12 },
    });
  }
}

function* optimizerCases(): Generator<OpCase> {
  const lengths = [7, 64, 1000, 1, 130, 3 * 5 * 33];
  const aligned = (n: number) => Math.ceil(n / 64) * 64;
  const total = lengths.reduce((sum, n) => sum + aligned(n), 0);
  const segmentsOf = () => {
    let offset = 0;
    const rows = lengths.flatMap((n, i) => {
      const row = [offset, n, i % 4, 0];
      offset += aligned(n);
      return row;
    });
    // A constant, as segmentTable() makes it: backends cut segments into blocks when they compile.
    return tensor("segments", [lengths.length, SEGMENT_COLUMNS], "constant", "i32", Int32Array.from(rows));
  };
  let b = build("gradientNorms");
  yield b.done(sumTolerance(1000), {
    kind: "gradientNorms",
    in: { grad: b.input("grad", [total]), param: b.input("param", [total]), segments: segmentsOf() },
    out: { norms: b.output("norms", [lengths.length, 4]) },
    attrs: {},
  });
  for (const method of ["adamw", "sgd", "lars"] as const) {
    for (const frozen of [0, 1]) {
      b = build(`optimizerUpdate ${method}${frozen ? ", frozen" : " with teacher"}`);
      const param = b.inOut("param", [total]), first = b.inOut("first", [total], 0.1);
      const second = method === "adamw" ? b.inOut("second", [total], (i) => 1e-3 + (i % 7) / 100) : undefined;
      const teacher = b.inOut("teacher", [total]);
      // Decayed and clipped; not decayed; resting; first update.
      const groups = [
        [0.05, 0.3, 0.1, 0.001, 2, 1, 0, 1],
        [0.05, 0, 0.19, 0.002, 0, 1, 0, 0],
        [0.05, 0.3, 0.1, 0.001, 2, 0, 0, 1],
        [0.01, 0.1, 0.1, 0.001, 1e-3, 1, 1, 1],
      ];
      yield b.done(ELEMENTWISE, {
        kind: "optimizerUpdate",
        in: {
          param,
          grad: b.input("grad", [total]),
          first,
          second,
          norms: b.input("norms", [lengths.length, 4], (i) => [9 + i, 4, -0.5, 0][i % 4]),
          groups: b.input("groups", [4, GROUP_COLUMNS], (i) => groups.flat()[i]),
          segments: segmentsOf(),
          teacher,
          teacherMomentum: b.input("lambda", [1], () => 0.99),
          frozen: b.input("frozen", [1], () => frozen),
        },
        out: { param, first, second, teacher },
        attrs: { method, beta1: 0.9, beta2: 0.999, eps: 1e-8, momentum: 0.9, eta: 0.001 },
      });
    }
  }
  for (const frozen of [undefined, 1]) {
    b = build(`ema${frozen ? ", frozen" : ""}`);
    const target = b.inOut("target", [771]);
    yield b.done(2 * EPS, {
      kind: "ema",
      in: {
        source: b.input("source", [771]),
        target,
        momentum: b.input("momentum", [1], () => 0.996),
        frozen: frozen === undefined ? undefined : b.input("frozen", [1], () => frozen),
      },
      out: { target },
      attrs: {},
    });
  }
  for (const [name, at, value] of [["finite", 0, 1], ["a NaN", 300, NaN], ["an infinity", 700, -Infinity]] as const) {
    b = build(`checkFinite: ${name}`);
    const flag = b.inOut("flag", [1], () => 0);
    const x = b.input("x", [701], (i) => i === at ? value : 1e38);
    yield b.done(0, { kind: "checkFinite", in: { x }, out: { flag }, attrs: {} });
  }
  b = build("checkFinite stays set");
  const flag = b.inOut("flag", [1], () => 1);
  yield b.done(0, { kind: "checkFinite", in: { x: b.input("x", [3]) }, out: { flag }, attrs: {} });
  b = build("record");
  yield b.done(0, {
    kind: "record",
    in: { values: b.input("values", [64]), row: b.input("row", [1], () => 2) },
    out: { ring: b.output("ring", [5, 64], 1) },
    attrs: {},
  });
}

function* convolutionCases(): Generator<OpCase> {
  // images, H, W, C, O, kernel, stride, padding: odd borders, windows that reach over both sides, a window of one pixel.
  const shapes = [
    [2, 7, 5, 3, 6, 7, 2, 3],
    [1, 6, 9, 4, 8, 3, 1, 1],
    [3, 5, 5, 8, 12, 3, 2, 1],
    [2, 7, 4, 5, 3, 1, 2, 0],
    [1, 2, 2, 1, 1, 3, 1, 1],
    [2, 9, 8, 20, 17, 2, 3, 0],
    [1, 19, 23, 16, 32, 3, 1, 1],
    [2, 60, 60, 8, 2, 7, 1, 3], // 11 MB of windows: more than are written out at a time
  ];
  for (const [images, height, width, C, O, kernel, stride, padding] of shapes) {
    const attrs = { images, height, width, stride, padding };
    const what = `${images}×${height}×${width}×${C} to ${O}, window ${kernel}, stride ${stride}`;
    const side = (n: number) => Math.floor((n + 2 * padding - kernel) / stride) + 1;
    const rows = images * height * width, rowsOut = images * side(height) * side(width);
    const weight = [O, C, kernel, kernel];
    for (const biased of [false, true]) {
      const b = build(`conv2d ${what}${biased ? " + bias" : ""}`);
      const bias = biased ? b.input("bias", [O], 3) : undefined;
      yield b.done(sumTolerance(C * kernel ** 2), {
        kind: "conv2d",
        in: { x: b.input("x", [rows, C]), weight: b.input("weight", weight), bias },
        out: { y: b.output("y", [rowsOut, O]) },
        attrs,
      });
    }
    for (const accumulate of [false, true]) {
      const start = accumulate ? 1 : undefined, named = `${what}${accumulate ? ", accumulated" : ""}`;
      let b = build(`conv2dInputGradient ${named}`);
      yield b.done(sumTolerance(O * kernel ** 2), {
        kind: "conv2dInputGradient",
        in: { dy: b.input("dy", [rowsOut, O]), weight: b.input("weight", weight) },
        out: { dx: b.output("dx", [rows, C], start) },
        attrs: { ...attrs, accumulate },
      });
      b = build(`conv2dWeightGradient ${named}`);
      yield b.done(sumTolerance(rowsOut), {
        kind: "conv2dWeightGradient",
        in: { dy: b.input("dy", [rowsOut, O]), x: b.input("x", [rows, C]) },
        out: { dweight: b.output("dweight", weight, start) },
        attrs: { ...attrs, accumulate },
      });
    }
  }
}

function* poolingCases(): Generator<OpCase> {
  for (const [images, height, width, C, kernel, stride, padding] of [[2, 7, 6, 5, 3, 2, 1], [1, 4, 9, 8, 2, 2, 0]]) {
    const attrs = { images, height, width, kernel, stride, padding };
    const side = (n: number) => Math.floor((n + 2 * padding - kernel) / stride) + 1;
    const rows = images * height * width, rowsOut = images * side(height) * side(width);
    const b = build(`maxPool ${images}×${height}×${width}×${C}, window ${kernel}`);
    yield b.done(0, {
      kind: "maxPool",
      // Halves repeat: of equals the first counts.
      in: { x: b.input("x", [rows, C], (i) => Math.round(Math.sin(i * i) * 2) / 2 - 3) },
      out: { y: b.output("y", [rowsOut, C]), tap: b.output("tap", [rowsOut, C], undefined, "i32") },
      attrs,
    });
    for (const accumulate of [false, true]) {
      const b = build(`maxPoolBackward ${kernel}${accumulate ? " accumulated" : ""}`);
      // Taps that some window in the middle of an image could have; what falls outside the image contributes nothing.
      const tap = b.integers("tap", [rowsOut, C], Array.from({ length: rowsOut * C }, (_, i) => i % kernel ** 2));
      yield b.done(9 * EPS, {
        kind: "maxPoolBackward",
        in: { dy: b.input("dy", [rowsOut, C]), tap },
        out: { dx: b.output("dx", [rows, C], accumulate ? 1 : undefined) },
        attrs: { ...attrs, accumulate },
      });
    }
  }
  for (const [images, pixels, C] of [[1, 1, 1], [3, 49, 33], [2, 1029, 8]]) {
    let b = build(`averagePool ${images}×${pixels}×${C}`);
    yield b.done(sumTolerance(pixels), {
      kind: "averagePool",
      in: { x: b.input("x", [images * pixels, C]) },
      out: { y: b.output("y", [images, C]) },
      attrs: { images },
    });
    for (const accumulate of [false, true]) {
      b = build(`averagePoolBackward ${images}×${pixels}×${C}${accumulate ? " accumulated" : ""}`);
      yield b.done(2 * EPS, {
        kind: "averagePoolBackward",
        in: { dy: b.input("dy", [images, C]) },
        out: { dx: b.output("dx", [images * pixels, C], accumulate ? 1 : undefined) },
        attrs: { images, accumulate },
      });
    }
  }
  for (const n of [1, 63, 1025]) {
    for (const residual of [false, true]) {
      const b = build(`relu ${n}${residual ? " + residual" : ""}`);
      yield b.done(EPS, {
        kind: "relu",
        in: { x: b.input("x", [n]), residual: residual ? b.input("residual", [n]) : undefined },
        out: { y: b.output("y", [n]) },
        attrs: {},
      });
    }
    for (const accumulate of [false, true]) {
      const b = build(`reluBackward ${n}${accumulate ? " accumulated" : ""}`);
      yield b.done(EPS, {
        kind: "reluBackward",
        in: { dy: b.input("dy", [n]), y: b.input("y", [n], (i) => Math.max(0, Math.sin(i * i))) },
        out: { dx: b.output("dx", [n], accumulate ? 1 : undefined) },
        attrs: { accumulate },
      });
    }
  }
  const b = build("relu in place");
  const x = b.inOut("x", [77]);
  yield b.done(EPS, { kind: "relu", in: { x, residual: b.input("residual", [77]) }, out: { y: x }, attrs: {} });
}

function* xcitCases(): Generator<OpCase> {
  for (
    const [images, height, width, C, k] of [[2, 5, 4, 7, 3], [1, 1, 6, 16, 3], [1, 6, 3, 33, 5], [3, 14, 14, 48, 3]]
  ) {
    const grid = { images, height, width }, rows = images * height * width, weight = [C, 1, k, k];
    for (const [flipped, accumulate, biased] of [[false, false, true], [true, false, false], [true, true, false]]) {
      const b = build(
        `depthwiseConv ${rows}×${C}, window ${k}${flipped ? " flipped" : ""}${accumulate ? " accumulated" : ""}`,
      );
      yield b.done(sumTolerance(k * k), {
        kind: "depthwiseConv",
        in: {
          x: b.input("x", [rows, C]),
          weight: b.input("weight", weight),
          bias: biased ? b.input("bias", [C]) : undefined,
        },
        out: { y: b.output("y", [rows, C], accumulate ? 1 : undefined) },
        attrs: { ...grid, flipped, accumulate },
      });
    }
    for (const accumulate of [false, true]) {
      const b = build(`depthwiseConvWeightGradient ${rows}×${C}, window ${k}${accumulate ? " accumulated" : ""}`);
      yield b.done(sumTolerance(rows), {
        kind: "depthwiseConvWeightGradient",
        in: { dy: b.input("dy", [rows, C]), x: b.input("x", [rows, C]) },
        out: { dweight: b.output("dweight", weight, accumulate ? 1 : undefined) },
        attrs: { ...grid, accumulate },
      });
    }
  }
  for (const [rows, C, groups] of [[1, 1, 0], [6, 33, 3], [12, 48, 2], [999, 5, 0]]) {
    const rowScale = (b: Builder) => groups ? b.input("rowScale", [groups]) : undefined;
    for (const residual of [false, true]) {
      const b = build(`layerScale ${rows}×${C}${groups ? " by groups" : ""}${residual ? " + residual" : ""}`);
      yield b.done(2 * EPS, {
        kind: "layerScale",
        in: {
          x: b.input("x", [rows, C]),
          gamma: b.input("gamma", [C]),
          residual: residual ? b.input("residual", [rows, C]) : undefined,
          rowScale: rowScale(b),
        },
        out: { y: b.output("y", [rows, C]) },
        attrs: {},
      });
    }
    for (const accumulate of [false, true]) {
      const b = build(`layerScaleBackward ${rows}×${C}${accumulate ? " accumulated" : ""}`);
      const start = accumulate ? 1 : undefined;
      yield b.done(sumTolerance(rows), {
        kind: "layerScaleBackward",
        in: {
          dy: b.input("dy", [rows, C]),
          x: b.input("x", [rows, C]),
          gamma: b.input("gamma", [C]),
          rowScale: rowScale(b),
        },
        out: { dx: b.output("dx", [rows, C], start), dgamma: b.output("dgamma", [C], start) },
        attrs: { accumulateX: accumulate, accumulateGamma: accumulate },
      });
    }
  }
  for (const [images, tokens, heads, d] of [[1, 1, 1, 1], [2, 6, 2, 5], [3, 37, 2, 16], [1, 196, 1, 48]]) {
    const attrs = { images, tokens, heads }, D = heads * d, rows = images * tokens;
    const shape = `${images}×${tokens} tokens, ${heads} heads of ${d}`;
    const temperature = (b: Builder) => b.input("temperature", [heads], (i) => 1.5 - i);
    let b = build(`crossCovariance ${shape}`);
    yield b.done(sumTolerance(tokens), {
      kind: "crossCovariance",
      in: { qkv: b.input("qkv", [rows, 3 * D]), temperature: temperature(b) },
      out: {
        y: b.output("y", [rows, D]),
        cosines: b.output("cosines", [images, heads, d, d]),
        norms: b.output("norms", [images, heads, 2, d]),
      },
      attrs,
    });
    for (const accumulate of [false, true]) {
      b = build(`crossCovarianceBackward ${shape}${accumulate ? " accumulated" : ""}`);
      // Cosines and norms need not be those of qkv for the arithmetic to be checked.
      yield b.done(sumTolerance(tokens * images), {
        kind: "crossCovarianceBackward",
        in: {
          dy: b.input("dy", [rows, D]),
          qkv: b.input("qkv", [rows, 3 * D]),
          temperature: temperature(b),
          cosines: b.input("cosines", [images, heads, d, d]),
          norms: b.input("norms", [images, heads, 2, d], (i) => 1 + Math.sin(i) ** 2),
        },
        out: {
          dqkv: b.output("dqkv", [rows, 3 * D]),
          dtemperature: b.output("dtemperature", [heads], accumulate ? 1 : undefined),
        },
        attrs: { ...attrs, accumulateTemperature: accumulate },
      });
    }
  }
}

function* neighbourCases(): Generator<OpCase> {
  for (const [rows, columns, k] of [[1, 1, 1], [5, 601, 20], [3, 33, 33], [2, 2500, 200]]) {
    const b = build(`topK ${k} of ${rows}×${columns}`);
    // Eighths repeat: ties must go to the smaller index.
    const x = b.input("scores", [rows, columns], (i) => Math.round(Math.sin(i * i) * 8 * columns) / (8 * columns));
    yield b.done(0, {
      kind: "topK",
      in: { scores: x },
      out: { values: b.output("values", [rows, k]), indices: b.output("indices", [rows, k], undefined, "i32") },
      attrs: { k },
    });
  }
}

/** Fresh cases: tensors belong to one backend's life only. */
export function opCases(): OpCase[] {
  seed = 1;
  return [
    ...matmulCases(),
    ...elementwiseCases(),
    ...normCases(),
    ...collectiveCases(),
    ...attentionCases(),
    ...tokenCases(),
    ...lossCases(),
    ...optimizerCases(),
    ...convolutionCases(),
    ...poolingCases(),
    ...xcitCases(),
    ...neighbourCases(),
  ];
}
