// The networks that a configuration names.

import type { BackboneConfig } from "../../models/backbone.ts";
import { headConfig } from "../../models/dino_head.ts";
import type { NetworkConfig } from "../../models/dino_network.ts";
import { RESNET_SIZES, resnetConfig } from "../../models/resnet.ts";
import { vitConfig } from "../../models/vit.ts";
import { xcitConfig } from "../../models/xcit.ts";
import { architectureOf, isResnet, isXcit, xcitOf } from "./architecture.ts";
import type { FittedConfig } from "../config.ts";

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
  if (isResnet(config.arch)) {
    const usual = resnetConfig(RESNET_SIZES[config.arch]),
      narrower = (config.embedDim ?? usual.embedDim) / usual.embedDim;
    return resnetConfig({ ...usual, basePlanes: usual.basePlanes * narrower, imageSize: config.globalCropSize });
  }
  const { patchSize, mlpRatio, layerNormEps, registers, globalCropSize: imageSize } = config;
  if (isXcit(config.arch)) {
    return xcitConfig({ ...xcitOf(config.arch), ...architectureOf(config), mlpRatio, layerNormEps, imageSize });
  }
  const extras = registers > 0 ? { registers } : {};
  return vitConfig({ ...architectureOf(config), patchSize, mlpRatio, layerNormEps, imageSize, ...extras });
}
