// A trained network, ready to be asked: features of images, and where it looks.

import type { Backend } from "../models/graph/backend.ts";
import { IMAGENET_NORMALIZATION, type Normalization } from "../models/graph/ops/augment.ts";
import { type Raster, raster } from "../models/image/raster.ts";
import { type BackboneConfig, cropMultiple, isResnetConfig, isXcitConfig } from "../models/backbone.ts";
import type { ResnetConfig } from "../models/resnet.ts";
import type { VitConfig } from "../models/vit.ts";
import type { XcitConfig } from "../models/xcit.ts";
import { type BackboneWeights, readBackbone } from "../models/weights/backbone_weights.ts";
import { openWeights, type WeightsSource } from "../models/weights/open.ts";
import { type Preprocessing, resizedTo, squareOf } from "../models/weights/preprocessing.ts";
import type { VitReading, WeightsReport } from "../models/weights/vit_weights.ts";
import { createDecoder, DecodeError } from "./data/decode.ts";
import type { DecodedImage, Decoder } from "./data/decoder.ts";
import { type AttentionMaps, attentionMaps } from "./eval/pictures/attention.ts";
import { uploadBackbone, type UploadedBackbone } from "./eval/backbone.ts";
import { CLS_FEATURES, ImageEncoder } from "./eval/encoder.ts";
import { resizeFor } from "./eval/features.ts";
import { fitShorterSide, normalizedPlanes, preparedRaster } from "./eval/image_planes.ts";

/** An image: the path of a file, its bytes, or its pixels. */
export type ImageInput = string | Uint8Array<ArrayBuffer> | DecodedImage;

/** How a network is loaded. */
export interface PretrainedOptions extends VitReading {
  /** Where it computes; it stays open when the network is disposed of. */
  readonly backend: Backend;
  /** Turns files into pixels; default: sharp in this process, loaded when the first file comes. */
  readonly decoder?: Decoder;
  /** What pixels are normalised by; default what a Hugging Face folder says, or ImageNet's, which DINO is trained with. */
  readonly normalization?: Normalization;
}

const IMAGE_KINDS = "give a file's path, its bytes, or { pixels, height, width }";
/** Images of one pass through the network. */
const BATCH = 16;

/** A network with its weights on a device. */
export class PretrainedNetwork {
  /** Its architecture. */
  readonly config: BackboneConfig;
  /** What of the file fitted, and what did not. */
  readonly report: WeightsReport;
  /** What is done to images, unless a call says otherwise. */
  readonly preprocessing: Preprocessing;
  readonly #uploaded: UploadedBackbone;
  readonly #encoder: ImageEncoder;
  readonly #decoder: Decoder;

  /**
   * Uploads weights.
   *
   * @param name of where they come from, for messages
   * @throws {SyntaxError} if one is missing or of another shape than the architecture says
   */
  constructor(
    { config, weights, report, preprocessing }: BackboneWeights,
    { backend, decoder = createDecoder(), normalization }: PretrainedOptions,
    name = "weights",
  ) {
    this.config = config;
    this.report = report;
    const prepared = preprocessing ?? usualPreprocessing(config.imageSize);
    this.preprocessing = normalization ? { ...prepared, normalization } : prepared;
    this.#uploaded = uploadBackbone(backend, { weights, backbone: config, path: name });
    this.#encoder = new ImageEncoder(backend, this.#uploaded.parameters, config);
    this.#decoder = decoder;
  }

  /**
   * Features of images: [CLS] of the last block, normalised by the final layer norm; a convolutional network's average over
   * its last map. Calls may overlap: they are answered one after the other.
   *
   * @param cropSize side of the central crop in pixels, after the shorter side is resized in proportion (256 for 224);
   *   default: what the file of weights says, or the size the network is made for
   * @returns a vector [embedDim] for each image, in order
   * @throws {DecodeError} for an image that cannot be decoded, naming it
   * @throws {TypeError} for what is no image
   */
  async features(images: readonly ImageInput[], cropSize?: number): Promise<Float32Array[]> {
    if (!Array.isArray(images)) throw new TypeError("features: wants a list of images, as in features([image])");
    const features: Float32Array[] = [];
    const side = cropSize ?? squareOf(this.preprocessing) ?? this.config.imageSize;
    const prepared = resizedTo(this.preprocessing, side);
    const D = this.config.embedDim, plane = this.config.inChannels * side * side;
    for (let start = 0; start < images.length; start += BATCH) {
      const batch = images.slice(start, start + BATCH);
      const planes = new Float32Array(batch.length * plane);
      for (const [i, image] of batch.entries()) {
        const pixels = await this.#pixels(image, start + i);
        // An image that has the crop's size already is taken as it is.
        const fitted = pixels.height === side && pixels.width === side ? pixels : preparedRaster(pixels, prepared);
        planes.set(normalizedPlanes(fitted, prepared.normalization), i * plane);
      }
      const { features: made } = await this.#encoder.encode(planes, batch.length, side, side, CLS_FEATURES);
      for (let i = 0; i < batch.length; i++) features.push(made!.slice(i * D, (i + 1) * D));
    }
    return features;
  }

  /**
   * What the last block's heads look at, in one image at its own proportions.
   *
   * @param shorterSide to which it is resized, in pixels, before its edges are cut to whole patches; null keeps its size
   * @param query the token that asks: 0 is [CLS], 1 the first patch
   * @throws {DecodeError} for an image that cannot be decoded
   * @throws {RangeError} if the image is smaller than a patch
   * @throws {TypeError} if the network has no attention over patches, or not of that token
   */
  async attention(
    image: ImageInput,
    { shorterSide = null, query = 0 }: { shorterSide?: number | null; query?: number } = {},
  ): Promise<AttentionMaps> {
    const pixels = await this.#pixels(image), multiple = cropMultiple(this.config);
    const shorter = shorterSide ?? Math.min(pixels.height, pixels.width);
    if (shorter < multiple) {
      throw new RangeError(
        `attention: a side of ${shorter} pixels is smaller than a patch of ${multiple}: enlarge the image`,
      );
    }
    const fitted = fitShorterSide(pixels, shorterSide, multiple);
    const planes = normalizedPlanes(fitted, this.preprocessing.normalization);
    const { attention, heads, gridHeight, gridWidth } = await this.#encoder.encode(
      planes,
      1,
      fitted.height,
      fitted.width,
      { attentionOf: query },
    );
    return attentionMaps(attention!, heads, gridHeight, gridWidth);
  }

  /** Frees weights and programs; the backend stays open. */
  dispose(): void {
    this.#encoder.dispose();
    this.#uploaded.dispose();
  }

  /** @param at its place in a list, to be named by */
  async #pixels(image: ImageInput, at = 0): Promise<Raster> {
    if (typeof image !== "string" && !(image instanceof Uint8Array)) {
      if (typeof image !== "object" || image === null) throw new TypeError(`image ${at} is ${image}: ${IMAGE_KINDS}`);
      return raster(image.pixels, image.height, image.width);
    }
    try {
      const { pixels, height, width } = await this.#decoder.decode(image);
      return raster(pixels, height, width);
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error;
      throw new DecodeError(`${typeof image === "string" ? image : `image ${at}`}: ${error.message}`, error.passing);
    }
  }
}

/** DINO's: the shorter side to 256 for a crop of 224, and in proportion. */
function usualPreprocessing(cropSize: number): Preprocessing {
  return {
    resize: { shorterSide: resizeFor(cropSize) },
    cropSize,
    interpolation: "bicubic",
    normalization: IMAGENET_NORMALIZATION,
  };
}

/**
 * A Vision Transformer.
 *
 * @example How alike two images are, and what the first patch of one looks at
 * ```ts
 * import { encodeSafetensors, headConfig, initialParameters, loadPretrained, openWasm, VisionTransformer, vitConfig, vitShapes } from "../mod.ts";
 *
 * // A network nobody has trained; a path such as "dino_deitsmall16_pretrain.pth" stands here otherwise.
 * const backbone = vitConfig({ embedDim: 64, depth: 1, numHeads: 1, patchSize: 16, imageSize: 32 });
 * const values = initialParameters({ backbone, head: headConfig({ inDim: 64, outDim: 2 }) }, 0);
 * const file = await encodeSafetensors(vitShapes(backbone).map(([name, shape]) => ({
 *   name, dtype: "F32", shape, bytes: () => new Uint8Array(values.get(`backbone.${name}`)!.buffer),
 * })));
 *
 * const backend = await openWasm({ threads: 1 });
 * const vit = await loadPretrained(file, { backend });
 * if (!(vit instanceof VisionTransformer)) throw new TypeError("not a Vision Transformer");
 * const grey = (value: number) => ({ pixels: new Uint8Array(32 * 48 * 3).fill(value), height: 32, width: 48 });
 * const [a, b] = await vit.features([grey(20), grey(200)]);
 * const cosine = a.reduce((sum, v, i) => sum + v * b[i], 0) / Math.hypot(...a) / Math.hypot(...b);
 * const { gridHeight, gridWidth } = await vit.attention(grey(20), { query: 1 });
 * console.log(Math.abs(cosine) <= 1.0001, gridHeight, gridWidth); // true 2 3
 * vit.dispose();
 * await backend.close();
 * ```
 */
export class VisionTransformer extends PretrainedNetwork {
  /** Its architecture. */
  declare readonly config: VitConfig;
}

/** A cross-covariance image transformer: its [CLS] alone attends to patches. */
export class XCiT extends PretrainedNetwork {
  /** Its architecture. */
  declare readonly config: XcitConfig;
}

/**
 * A residual network. Its features are the mean of its last map; it has no attention.
 *
 * @example Features of an image
 * ```ts
 * import { encodeSafetensors, loadPretrained, openWasm, ResNet, resnetBufferShapes, resnetConfig, resnetShapes } from "../mod.ts";
 *
 * // A network nobody has trained; a path such as "dino_resnet50_pretrain.pth" stands here otherwise.
 * const config = resnetConfig({ block: "basic", layers: [1, 1], basePlanes: 4 });
 * const shapes = [...resnetShapes(config), ...resnetBufferShapes(config)];
 * const values = (shape: number[]) => new Float32Array(shape.reduce((a, b) => a * b)).fill(0.5);
 * const file = await encodeSafetensors(shapes.map(([name, shape]) => ({
 *   name, dtype: "F32", shape, bytes: () => new Uint8Array(values(shape).buffer),
 * })));
 *
 * const backend = await openWasm({ threads: 1 });
 * const network = await loadPretrained(file, { backend });
 * const [features] = await network.features([{ pixels: new Uint8Array(48 * 64 * 3), height: 48, width: 64 }]);
 * console.log(network instanceof ResNet, features.length); // true 8
 * network.dispose();
 * await backend.close();
 * ```
 */
export class ResNet extends PretrainedNetwork {
  /** Its architecture. */
  declare readonly config: ResnetConfig;
}

/**
 * Loads a network from weights of any known format: official DINO files and other PyTorch files, safetensors,
 * Hugging Face folders, timm's names, ONNX, npz, and checkpoints of this project.
 *
 * @example Features of an image, and what the network looks at
 * ```ts
 * import { encodeSafetensors, initialParameters, loadPretrained, headConfig, openWasm, vitConfig, vitShapes } from "../mod.ts";
 *
 * // A network nobody has trained; a path such as "dino_deitsmall16_pretrain.pth" stands here otherwise.
 * const backbone = vitConfig({ embedDim: 64, depth: 1, numHeads: 1, patchSize: 16, imageSize: 32 });
 * const values = initialParameters({ backbone, head: headConfig({ inDim: 64, outDim: 2 }) }, 0);
 * const file = await encodeSafetensors(vitShapes(backbone).map(([name, shape]) => ({
 *   name, dtype: "F32", shape, bytes: () => new Uint8Array(values.get(`backbone.${name}`)!.buffer),
 * })));
 *
 * const backend = await openWasm({ threads: 1 });
 * const vit = await loadPretrained(file, { backend });
 * const image = { pixels: new Uint8Array(48 * 64 * 3), height: 48, width: 64 };
 * const [features] = await vit.features([image]);
 * const { heads, gridHeight, gridWidth } = await vit.attention(image);
 * console.log(features.length, heads, gridHeight, gridWidth); // 64 1 3 4
 * vit.dispose();
 * await backend.close();
 * ```
 *
 * @returns a {@linkcode VisionTransformer}, a {@linkcode ResNet} or an {@linkcode XCiT}, by what the file holds
 * @throws {SyntaxError} if the file is damaged or holds no complete network
 * @throws {TypeError} if it asks for more than tensors and plain data, or is of a kind that cannot be run
 * @throws {RangeError} if there is no such file
 */
export async function loadPretrained(source: WeightsSource, options: PretrainedOptions): Promise<PretrainedNetwork> {
  const file = await openWeights(source);
  try {
    const read = await readBackbone(file, options);
    const Network = isResnetConfig(read.config) ? ResNet : isXcitConfig(read.config) ? XCiT : VisionTransformer;
    return new Network(read, options, file.name);
  } finally {
    file.close();
  }
}
