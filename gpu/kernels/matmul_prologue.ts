// Writes what an operand's prologue adds to a product: its parameters and bindings, and what a thread loads and computes as it stages a tile.
import type { Prologue } from "../../models/graph/ops/matmul.ts";

/** How an operand is staged, as far as its prologue must know. */
export interface Staging {
  readonly operand: "a" | "b";
  /** Rows of the stored matrix run along the inner extent, its columns along the tile. */
  readonly kMajor: boolean;
  /** Four floats a load. */
  readonly vector: boolean;
  /** Loads of a thread a step; they lie in one column, `Fast0`, and in the rows `Slow0`, `Slow1`, … */
  readonly loads: number;
}

/** Pieces of a product's source. */
export interface ProloguePieces {
  /** Fields of `Params`. */
  readonly params: string;
  /** Bindings as `name: type`. */
  readonly bindings: readonly string[];
  readonly functions: string;
  /** Before the loop: what does not change with k. */
  readonly before: string;
  /** With the loads of a step. */
  readonly load: (declare: string) => string;
  /** The value of load i that is staged. */
  readonly staged: (i: number) => string;
}

/**
 * The pieces of a prologue. Arithmetic is that of the operation it stands for, in the same order, so a product has the same bits
 * either way. It happens as a tile is staged: what it needs travels with the operand, a step ahead. Elements beyond an edge are
 * zeros made into something finite, which the other operand's zeros take out of every sum.
 */
export function prologuePieces(kind: Prologue | undefined, staging: Staging): ProloguePieces {
  const { operand: x, kMajor, vector, loads } = staging;
  const each = Array.from({ length: loads }, (_, i) => i);
  const start = x === "a" ? "tileRow" : "tileColumn";
  const row = (i: number) => kMajor ? `k + ${x}Slow${i}` : `${start} + ${x}Slow${i}`;
  const column = kMajor ? `${start} + 4u * ${x}Fast0` : `k + 4u * ${x}Fast0`;
  /** Statements that belong with k or before the loop. */
  const placed = (withK: boolean, statements: (declare: string) => string) =>
    withK ? { before: "", load: statements } : { before: statements("let "), load: () => "" };
  switch (kind) {
    case undefined:
      return { ...NONE, staged: (i) => `${x}Next${i}` };
    case "gelu":
      return { ...NONE, functions: geluOf(x, vector), staged: (i) => `gelu_${x}(${x}Next${i})` };
    case "scaleRows": {
      const { before, load } = placed(
        kMajor,
        (declare) => each.map((i) => `  ${declare}${x}Factor${i} = factor_${x}(${row(i)});`).join("\n"),
      );
      return {
        params: `  ${x}FirstRow: u32, ${x}LastRow: u32, ${x}PerFactor: u32,\n`,
        bindings: [`${x}Rows: array<f32>`],
        functions: `fn factor_${x}(row: u32) -> f32 {
  return ${x}Rows[min(p.${x}FirstRow + row, p.${x}LastRow) / p.${x}PerFactor];
}
`,
        before,
        load,
        staged: (i) => `${x}Factor${i} * ${x}Next${i}`,
      };
    }
    case "layerNorm": {
      const stats = placed(
        kMajor,
        (declare) => each.map((i) => `  ${declare}${x}Stats${i} = stats_${x}(${row(i)});`).join("\n"),
      );
      const affine = placed(
        !kMajor,
        (declare) =>
          ["Weight", "Bias"].map((name) => `  ${declare}${x}${name}4 = ${name.toLowerCase()}_${x}(${column});`)
            .join("\n"),
      );
      return {
        params: `  ${x}FirstRow: u32, ${x}LastRow: u32, ${x}FirstColumn: u32, ${x}LastColumn: u32,\n`,
        bindings: [`${x}Rows: array<f32>`, `${x}Weight: array<V>`, `${x}Bias: array<V>`],
        functions: `fn stats_${x}(row: u32) -> vec2f {
  let at = 2u * min(p.${x}FirstRow + row, p.${x}LastRow);
  return vec2f(${x}Rows[at], ${x}Rows[at + 1u]);
}
${ofColumn(x, "Weight", vector)}${ofColumn(x, "Bias", vector)}`,
        before: `${stats.before}\n${affine.before}`,
        load: (declare) => `${stats.load(declare)}\n${affine.load(declare)}`,
        // As normalized.wgsl has it.
        staged: (i) => `fma((${x}Next${i} - ${x}Stats${i}.x) * ${x}Stats${i}.y, ${x}Weight4, ${x}Bias4)`,
      };
    }
  }
}

const NONE = { params: "", bindings: [], functions: "", before: "", load: () => "" };

function geluOf(x: string, vector: boolean): string {
  const value = vector ? "gelu(v)" : `vec4f(${[..."xyzw"].map((c) => `gelu(v.${c})`).join(", ")})`;
  return `fn gelu_${x}(v: vec4f) -> vec4f {
  return ${value};
}
`;
}

/** Four neighbours of a vector that goes with the columns. */
function ofColumn(x: string, name: "Weight" | "Bias", vector: boolean): string {
  const at = (i: number) => `min(p.${x}FirstColumn + column${i > 0 ? ` + ${i}u` : ""}, p.${x}LastColumn)`;
  const value = vector
    ? `${x}${name}[${at(0)} / 4u]`
    : `vec4f(${[0, 1, 2, 3].map((i) => `${x}${name}[${at(i)}]`).join(", ")})`;
  return `fn ${name.toLowerCase()}_${x}(column: u32) -> vec4f {
  return ${value};
}
`;
}
