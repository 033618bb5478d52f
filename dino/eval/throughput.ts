// Images a second and peak memory of a forward pass: the columns of the paper's tables that depend on the machine.

import {
  backboneBufferShapes,
  type BackboneConfig,
  backboneFeatures,
  backboneShapes,
  gridOf,
  inputPatch,
  isResnetConfig,
  isXcitConfig,
} from "../../models/backbone.ts";
import type { Backend } from "../../models/graph/backend.ts";
import { emitCopy } from "../../models/graph/ops/elementwise.ts";
import { Program } from "../../models/graph/program.ts";
import { xcitMultiplications } from "../../models/xcit.ts";
import { type Tensor, tensor } from "../../models/graph/tensor.ts";
import { resnetMultiplications, resnetSides } from "../../models/resnet.ts";
import type { VitConfig } from "../../models/vit.ts";

/** A measured architecture. */
export interface Throughput {
  /** Numbers the network holds. */
  readonly parameters: number;
  /** Multiplications and additions of one image, in 10⁹. */
  readonly gflops: number;
  /** Patches and [CLS]. */
  readonly tokens: number;
  /** Median over runs. */
  readonly imagesPerSecond: number;
  /** Bytes of weights, activations and scratch space together. */
  readonly peakBytes: number;
}

/** Fewest runs that are timed, after one that is not. */
const FEWEST_RUNS = 3;

/**
 * Times features of [CLS] of images of one size.
 *
 * @param seconds of measuring; one pass is made even if it takes longer
 * @throws {RangeError} if the device cannot hold it
 */
export async function measureThroughput(
  backend: Backend,
  config: BackboneConfig,
  { imageSize, batch, seconds, signal }: { imageSize: number; batch: number; seconds: number; signal?: AbortSignal },
): Promise<Throughput> {
  const before = backend.memory;
  const parameters = new Map<string, Tensor>();
  for (const [name, shape] of [...backboneShapes(config), ...backboneBufferShapes(config)]) {
    const t = tensor(name, shape, "param");
    // Not zeros: a softmax over equal scores, and numbers too small to be normal, would take another time.
    const shift = name.endsWith(".running_var") ? 1 : 0; // a variance is not negative
    backend.write(t, Float32Array.from({ length: length(shape) }, (_, i) => shift + 0.02 * Math.sin(i + 1)));
    parameters.set(name, t);
  }
  const p = new Program("throughput");
  const patch = inputPatch(config), cut = Math.floor(imageSize / patch);
  const patches = tensor("patches", [batch * cut * cut, config.inChannels * patch * patch], "input");
  const crops = { patches, images: batch, height: imageSize, width: imageSize };
  const lookUp = (name: string) => parameters.get(name)!;
  const features = backboneFeatures(p, lookUp, config, [crops], { training: false });
  const out = tensor("features", features.shape, "output");
  emitCopy(p, features, out);
  const executable = await backend.compile(p);
  try {
    backend.write(patches, Float32Array.from({ length: length(patches.shape) }, (_, i) => Math.sin(i)));
    await executable.run();
    await backend.finish();
    const times: number[] = [];
    for (const start = performance.now(); times.length < FEWEST_RUNS || performance.now() - start < 1000 * seconds;) {
      signal?.throwIfAborted();
      const from = performance.now();
      await executable.run();
      await backend.finish();
      times.push(performance.now() - from);
      if (performance.now() - start > 3000 * seconds) break;
    }
    const median = times.sort((a, b) => a - b)[Math.floor(times.length / 2)];
    const { persistent, workspace } = backend.memory;
    return {
      parameters: backboneShapes(config).reduce((sum, [, shape]) => sum + length(shape), 0),
      gflops: forwardFlops(config, imageSize) / 1e9,
      tokens: tokensOf(config, imageSize),
      imagesPerSecond: 1000 * batch / median,
      // The backend's own arena is as large as the largest program so far.
      peakBytes: persistent - before.persistent + executable.plan.arenaBytes + workspace,
    };
  } finally {
    executable.dispose();
    backend.free(patches, out, ...parameters.values());
  }
}

/** Tokens of a square image of `imageSize` pixels, [CLS] included; pixels of the last map of a network without tokens. */
function tokensOf(config: BackboneConfig, imageSize: number): number {
  if (isResnetConfig(config)) return resnetSides(config, imageSize).at(-1)! ** 2;
  const [rows, columns] = gridOf(config, imageSize, imageSize);
  return rows * columns + 1;
}

/** Twice the multiplications of the products in a forward pass of one square image. */
export function forwardFlops(config: BackboneConfig, imageSize: number): number {
  if (isResnetConfig(config)) return 2 * resnetMultiplications(config, imageSize);
  if (isXcitConfig(config)) return 2 * xcitMultiplications(config, imageSize);
  const { embedDim: D, depth, mlpRatio, patchSize, inChannels }: VitConfig = config;
  const tokens = tokensOf(config, imageSize);
  const block = 4 * D * D + 2 * mlpRatio * D * D;
  return 2 * (depth * (tokens * block + 2 * tokens * tokens * D) + (tokens - 1) * inChannels * patchSize ** 2 * D);
}

const length = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);
