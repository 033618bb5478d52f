// The networks that a configuration names.

import type { BackboneConfig } from "../models/backbone.ts";
import { headConfig } from "../models/dino_head.ts";
import type { NetworkConfig } from "../models/dino_network.ts";
import { vitConfig } from "../models/vit.ts";
import { architectureOf, type FittedConfig } from "./config_check.ts";

/** The student's and teacher's architecture. */
export function networkOf(config: FittedConfig): NetworkConfig {
  const backbone = backboneOf(config);
  const head = headConfig({
    inDim: backbone.embedDim,
    outDim: config.outDim,
    layers: config.headLayers,
    hiddenDim: config.headHiddenDim,
    bottleneckDim: config.headBottleneckDim,
    batchNorm: config.useBnInHead,
    normLastLayer: config.normLastLayer,
  });
  return { backbone, head };
}

/** The network whose features are wanted. */
export function backboneOf(config: FittedConfig): BackboneConfig {
  const { patchSize, mlpRatio, layerNormEps, registers, globalCropSize: imageSize } = config;
  const extras = registers > 0 ? { registers } : {};
  return vitConfig({ ...architectureOf(config), patchSize, mlpRatio, layerNormEps, imageSize, ...extras });
}
