// Layers that transformers are made of, as ONNX nodes on weights that are in the graph under their own names.

import { OnnxFloat, type OnnxGraph } from "./onnx_graph.ts";

/** x·Wᵀ + b, with `name.weight` [out, in] and `name.bias`. */
export function linear(g: OnnxGraph, x: string, name: string, bias = true): string {
  const product = g.node("MatMul", [x, g.node("Transpose", [`${name}.weight`], { perm: [1, 0] })]);
  return bias ? g.node("Add", [product, `${name}.bias`]) : product;
}

/** Over the last axis, with `name.weight` and `name.bias`. */
export function layerNorm(g: OnnxGraph, x: string, name: string, epsilon: number, output?: string): string {
  const inputs = [x, `${name}.weight`, `${name}.bias`];
  return g.node("LayerNormalization", inputs, { axis: -1, epsilon: new OnnxFloat(epsilon) }, output);
}

/** With running statistics. */
export function batchNorm(g: OnnxGraph, x: string, name: string): string {
  const parts = ["weight", "bias", "running_mean", "running_var"].map((part) => `${name}.${part}`);
  return g.node("BatchNormalization", [x, ...parts], { epsilon: new OnnxFloat(1e-5) });
}

/** ½·x·(1 + erf(x/√2)): an operator of its own came only with opset 20. */
export function gelu(g: OnnxGraph, x: string): string {
  const erf = g.node("Erf", [g.node("Mul", [x, g.float(Math.SQRT1_2)])]);
  return g.node("Mul", [g.node("Mul", [x, g.float(0.5)]), g.node("Add", [erf, g.float(1)])]);
}

/** One extent of a value, as a scalar. */
export function extent(g: OnnxGraph, value: string, axis: number): string {
  return g.node("Gather", [g.node("Shape", [value]), g.integers(axis)], { axis: 0 });
}
