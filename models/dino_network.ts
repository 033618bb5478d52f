// Backbone and head together, over crops of several sizes.
import type { Program } from "./graph/program.ts";
import type { Tensor } from "./graph/tensor.ts";
import {
  backboneBufferShapes,
  type BackboneConfig,
  backboneFeatures,
  backboneShapes,
  type PatchGroup,
} from "./backbone.ts";
import { dinoHead, headBufferShapes, type HeadConfig, headShapes } from "./dino_head.ts";
import type { Parameters } from "./vit.ts";

/** A student or a teacher. */
export interface NetworkConfig {
  /** What makes features. */
  readonly backbone: BackboneConfig;
  /** The projection head. */
  readonly head: HeadConfig;
}

/** Parameters as `backbone.*` and `head.*`, in checkpoint order. */
export function networkShapes({ backbone, head }: NetworkConfig): [name: string, shape: number[]][] {
  return [
    ...backboneShapes(backbone).map(([name, shape]): [string, number[]] => [`backbone.${name}`, shape]),
    ...headShapes(head).map(([name, shape]): [string, number[]] => [`head.${name}`, shape]),
  ];
}

/** Running statistics of batch norms; they follow no optimizer and no EMA. */
export function networkBufferShapes({ backbone, head }: NetworkConfig): [name: string, shape: number[]][] {
  return [
    ...backboneBufferShapes(backbone).map(([name, shape]): [string, number[]] => [`backbone.${name}`, shape]),
    ...headBufferShapes(head).map(([name, shape]): [string, number[]] => [`head.${name}`, shape]),
  ];
}

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
  const features = backboneFeatures(p, backbone, c.backbone, groups, { training });
  return { features, logits: dinoHead(p, head, c.head, features, { training }).logits };
}
