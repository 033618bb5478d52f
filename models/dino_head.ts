// DINO's projection head: an MLP, an L2 bottleneck, and a weight-normed last layer.
import { batchNorm } from "./graph/ops/batch_norm.ts";
import { gelu } from "./graph/ops/elementwise.ts";
import { linear } from "./graph/ops/matmul.ts";
import { l2Normalize, weightNorm } from "./graph/ops/norm.ts";
import { type Program, require } from "./graph/program.ts";
import type { Tensor } from "./graph/tensor.ts";
import type { Parameters } from "./vit.ts";

/** Extents and options of the head. */
export interface HeadConfig {
  /** Width of the features. */
  readonly inDim: number;
  /** K, the number of prototypes. */
  readonly outDim: number;
  /** Linear layers before the bottleneck is normalised, at least 1. */
  readonly layers: number;
  /** Width between the linear layers. */
  readonly hiddenDim: number;
  /** Width of the L2-normalised vector. */
  readonly bottleneckDim: number;
  /** Batch norm after each linear layer but the last. */
  readonly batchNorm: boolean;
  /** Keeps the gains of the last layer at 1. */
  readonly normLastLayer: boolean;
}

/** Completes a configuration with the defaults of the reference. */
export function headConfig(config: Pick<HeadConfig, "inDim" | "outDim"> & Partial<HeadConfig>): HeadConfig {
  const full = { layers: 3, hiddenDim: 2048, bottleneckDim: 256, batchNorm: false, normLastLayer: true, ...config };
  require(full.layers >= 1, "head", () => `${full.layers} layers: use 1 or more`);
  return full;
}

/** Names of the linear layers and of the batch norms between them, as `nn.Sequential` numbers them. */
function mlpNames({ layers, batchNorm }: HeadConfig): { linear: string; norm?: string }[] {
  if (layers === 1) return [{ linear: "mlp" }];
  const stride = batchNorm ? 3 : 2; // Linear, (BatchNorm,) GELU
  return Array.from({ length: layers }, (_, i) => ({
    linear: `mlp.${i * stride}`,
    norm: batchNorm && i < layers - 1 ? `mlp.${i * stride + 1}` : undefined,
  }));
}

/** Names and shapes of the parameters. */
export function headShapes(c: HeadConfig): [name: string, shape: number[]][] {
  const names = mlpNames(c);
  const shapes = names.flatMap(({ linear, norm }, i): [string, number[]][] => {
    const inputs = i === 0 ? c.inDim : c.hiddenDim;
    const outputs = i === names.length - 1 ? c.bottleneckDim : c.hiddenDim;
    return [
      [`${linear}.weight`, [outputs, inputs]],
      [`${linear}.bias`, [outputs]],
      ...(norm ? [[`${norm}.weight`, [outputs]], [`${norm}.bias`, [outputs]]] as [string, number[]][] : []),
    ];
  });
  return [...shapes, ["last_layer.weight_g", [c.outDim, 1]], ["last_layer.weight_v", [c.outDim, c.bottleneckDim]]];
}

/** Names and shapes of the running statistics; none without batch norm. */
export function headBufferShapes(c: HeadConfig): [name: string, shape: number[]][] {
  return mlpNames(c).flatMap(({ norm }): [string, number[]][] =>
    norm ? [[`${norm}.running_mean`, [c.hiddenDim]], [`${norm}.running_var`, [c.hiddenDim]]] : []
  );
}

/** Logits [rows, K] and the L2-normalised bottleneck [rows, bottleneckDim] of features x [rows, inDim]. */
export function dinoHead(
  p: Program,
  params: Parameters,
  c: HeadConfig,
  x: Tensor,
  { training = true }: { training?: boolean } = {},
): { logits: Tensor; bottleneck: Tensor } {
  let h = x;
  for (const { linear: name, norm } of mlpNames(c)) {
    const last = name === mlpNames(c).at(-1)!.linear;
    h = linear(p, h, params(`${name}.weight`), params(`${name}.bias`), { gelu: !last && !norm });
    if (norm) {
      h = gelu(
        p,
        batchNorm(p, h, {
          weight: params(`${norm}.weight`),
          bias: params(`${norm}.bias`),
          runningMean: params(`${norm}.running_mean`),
          runningVar: params(`${norm}.running_var`),
        }, { training }),
      );
    }
  }
  const bottleneck = l2Normalize(p, h);
  const weight = weightNorm(p, params("last_layer.weight_v"), params("last_layer.weight_g")); // [K, bottleneckDim]
  return { logits: linear(p, bottleneck, weight), bottleneck };
}
