// Backbone and head together, over crops of several sizes.
import { gatherRows } from "./graph/ops/tokens.ts";
import type { Program } from "./graph/program.ts";
import type { Tensor } from "./graph/tensor.ts";
import { dinoHead, headBufferShapes, type HeadConfig, headShapes } from "./dino_head.ts";
import { finalNorm, type Parameters, type PatchBatch, vit, type VitConfig, type VitOptions, vitShapes } from "./vit.ts";

/** A student or a teacher. */
export interface NetworkConfig {
  /** The ViT. */
  readonly backbone: VitConfig;
  /** The projection head. */
  readonly head: HeadConfig;
}

/** Parameters as `backbone.*` and `head.*`, in checkpoint order. */
export function networkShapes({ backbone, head }: NetworkConfig): [name: string, shape: number[]][] {
  return [
    ...vitShapes(backbone).map(([name, shape]): [string, number[]] => [`backbone.${name}`, shape]),
    ...headShapes(head).map(([name, shape]): [string, number[]] => [`head.${name}`, shape]),
  ];
}

/** Running statistics of the head's batch norms; they follow no optimizer and no EMA. */
export function networkBufferShapes({ head }: NetworkConfig): [name: string, shape: number[]][] {
  return headBufferShapes(head).map(([name, shape]) => [`head.${name}`, shape]);
}

/** Consecutive crops of one size, which share a pass through the backbone. */
export type PatchGroup = PatchBatch & Pick<VitOptions, "dropPath">;

/**
 * One backbone pass per group, one head pass over all rows (which matters for batch norm).
 * Rows are in the order of the groups, and inside a group in the order of its images (view-major).
 *
 * @returns features [rows, D] after the final norm, and logits [rows, K]
 */
export function multiCrop(
  p: Program,
  params: Parameters,
  c: NetworkConfig,
  groups: readonly PatchGroup[],
  { training = true }: { training?: boolean } = {},
): { features: Tensor; logits: Tensor } {
  const backbone: Parameters = (name) => params(`backbone.${name}`);
  const head: Parameters = (name) => params(`head.${name}`);
  const tokens = groups.map((group) =>
    vit(p, backbone, c.backbone, group, { clsOnly: true, dropPath: group.dropPath }).blocks.at(-1)! // [images, D]
  );
  const features = finalNorm(p, backbone, c.backbone, concatRows(p, tokens, c.backbone.embedDim));
  return { features, logits: dinoHead(p, head, c.head, features, { training }).logits };
}

function concatRows(p: Program, parts: Tensor[], columns: number): Tensor {
  if (parts.length === 1) return parts[0];
  const total = parts.reduce((sum, part) => sum + part.shape[0], 0);
  const all = p.activation("cls", [total, columns]);
  let target = 0;
  for (const part of parts) {
    gatherRows(p, part, { count: part.shape[0], target }, all);
    target += part.shape[0];
  }
  return all;
}
