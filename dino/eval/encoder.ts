// A frozen backbone for images of any size: features, patch tokens, and the attention of one query.

import type { Backend, Executable } from "../../models/graph/backend.ts";
import { emitCopy } from "../../models/graph/ops/elementwise.ts";
import { patchify } from "../../models/graph/ops/tokens.ts";
import { Program } from "../../models/graph/program.ts";
import { type Tensor, tensor } from "../../models/graph/tensor.ts";
import {
  type BackboneConfig,
  cropMultiple,
  gridOf,
  inputPatch,
  isXcitConfig,
  requireVit,
} from "../../models/backbone.ts";
import { xcit } from "../../models/xcit.ts";
import { finalNorm, type Parameters, patchesFrom, vit } from "../../models/vit.ts";
import { frozenFeatures, type LinearFeatureOptions, linearFeatures } from "./linear/features.ts";

/** What to compute; what is left out costs nothing. */
export interface Wanted {
  /** Features of each image; [CLS] of the last block is `{ lastBlocks: 1, patchAverage: "none" }`. */
  readonly features?: LinearFeatureOptions;
  /** All tokens of the last block, through the final norm. */
  readonly tokens?: boolean;
  /** The last block's attention of this token over all: 0 is [CLS], 1 the first patch. */
  readonly attentionOf?: number;
}

/** What was computed, for n images. */
export interface Encoded {
  /** Rows of patches; of pixels where there are none. */
  readonly gridHeight: number;
  /** Columns of patches, or pixels. */
  readonly gridWidth: number;
  /** [n, F] */
  readonly features?: Float32Array;
  /** [n, 1 + gridHeight · gridWidth, D] */
  readonly tokens?: Float32Array;
  /** [n, heads, 1 + gridHeight · gridWidth], softmaxed */
  readonly attention?: Float32Array;
  /** Heads of {@linkcode attention}; 0 in a network without. */
  readonly heads: number;
}

/** Features of [CLS] alone. */
export const CLS_FEATURES: Wanted = { features: { lastBlocks: 1, patchAverage: "none" } };

/** Sizes whose programs are kept: a folder of photographs has a few, and every one of them costs memory. */
const KEPT_PROGRAMS = 8;

interface Compiled {
  readonly executable: Executable;
  readonly image: Tensor;
  readonly outputs: Partial<Record<"features" | "tokens" | "attention", Tensor>>;
}

/** Runs one backbone on images of any size, compiling a program for each size it meets. */
export class ImageEncoder {
  readonly #compiled = new Map<string, Compiled>();

  /** Calls take turns: a program has one input and one output. */
  #turn: Promise<unknown> = Promise.resolve();
  #disposed = false;

  /** Compiles nothing yet. */
  constructor(readonly backend: Backend, readonly parameters: Parameters, readonly config: BackboneConfig) {}

  /**
   * Encodes images of one size; calls that overlap are made one after the other.
   *
   * @param planes [images, channels, height, width], normalised; what exceeds whole patches is left out
   * @throws {RangeError} if an image is smaller than a patch
   * @throws {TypeError} if tokens or attention are wanted of a network that has none
   */
  encode(planes: Float32Array, images: number, height: number, width: number, wanted: Wanted): Promise<Encoded> {
    const result = this.#turn.then(() => this.#encode(planes, images, height, width, wanted));
    this.#turn = result.catch(() => {});
    return result;
  }

  async #encode(
    planes: Float32Array,
    images: number,
    height: number,
    width: number,
    wanted: Wanted,
  ): Promise<Encoded> {
    this.#refuseDisposed();
    const { inChannels } = this.config, patchSize = cropMultiple(this.config);
    if (height < patchSize || width < patchSize) {
      throw new RangeError(`image of ${width} × ${height} pixels is smaller than a patch of ${patchSize}: enlarge it`);
    }
    if (planes.length !== images * inChannels * height * width) {
      throw new RangeError(`encode: ${planes.length} values for ${images} images of ${height}×${width}`);
    }
    const { executable, image, outputs } = await this.#program(images, height, width, wanted);
    this.#refuseDisposed(); // while it was compiled: its weights are zeros by now
    this.backend.write(image, planes);
    await executable.run();
    const read = async (t?: Tensor) => t && await this.backend.read(t) as Float32Array;
    const [gridHeight, gridWidth] = gridOf(this.config, height, width);
    const registers = "family" in this.config ? 0 : this.config.registers ?? 0;
    return {
      gridHeight,
      gridWidth,
      heads: "numHeads" in this.config ? this.config.numHeads : 0,
      features: await read(outputs.features),
      tokens: withoutRegisters(
        await read(outputs.tokens),
        registers,
        outputs.tokens?.shape[0]! / images,
        this.config.embedDim,
      ),
      attention: withoutRegisters(await read(outputs.attention), registers, outputs.attention?.shape[3]!, 1),
    };
  }

  #refuseDisposed(): void {
    if (this.#disposed) throw new Error("encode: the network was disposed of: load it again");
  }

  /** Frees what was compiled; calls that wait are refused. */
  dispose(): void {
    this.#disposed = true;
    for (const compiled of this.#compiled.values()) this.#free(compiled);
    this.#compiled.clear();
  }

  async #program(images: number, height: number, width: number, wanted: Wanted): Promise<Compiled> {
    const key = JSON.stringify([images, height, width, wanted]);
    let compiled = this.#compiled.get(key);
    if (compiled) this.#compiled.delete(key); // to put it last
    else compiled = await this.#compile(images, height, width, wanted);
    this.#compiled.set(key, compiled);
    for (const [oldest, program] of this.#compiled) {
      if (this.#compiled.size <= KEPT_PROGRAMS) break;
      this.#compiled.delete(oldest);
      this.#free(program);
    }
    return compiled;
  }

  async #compile(images: number, height: number, width: number, wanted: Wanted): Promise<Compiled> {
    const { config, parameters } = this;
    const { features, tokens: wantsTokens, attentionOf } = wanted;
    const p = new Program(`encode ${height}×${width}`);
    const image = tensor("image", [images, config.inChannels, height, width], "input");
    const batch = { patches: patchify(p, image, inputPatch(config)), images, height, width };
    if (isXcitConfig(config) && attentionOf === 0 && !wantsTokens && !features) {
      const [rows, columns] = gridOf(config, height, width);
      const attention = tensor("attention", [images, config.numHeads, 1, 1 + rows * columns], "output");
      xcit(p, parameters, config, batch, { training: false, attention });
      return { executable: await this.backend.compile(p), image, outputs: { attention } };
    }
    if ("family" in config) {
      if (attentionOf && isXcitConfig(config)) {
        throw new TypeError(`attention of token ${attentionOf}: in an XCiT [CLS] alone attends to tokens: ask for 0`);
      }
      if (wantsTokens || attentionOf !== undefined) {
        requireVit(config, attentionOf === undefined ? "patch tokens" : "attention");
      }
      const own = copied(p, "features", frozenFeatures(p, parameters, config, batch, features));
      return { executable: await this.backend.compile(p), image, outputs: { features: own } };
    }
    const first = patchesFrom(config);
    const tokens = first + Math.floor(height / config.patchSize) * Math.floor(width / config.patchSize);
    const outputs: { -readonly [K in keyof Compiled["outputs"]]: Tensor } = {};
    if (attentionOf !== undefined) {
      outputs.attention = tensor("attention", [images, config.numHeads, 1, tokens], "output");
    }
    const clsOnly = !wantsTokens && features?.patchAverage !== "concatenated" &&
      features?.patchAverage !== "interleaved" && (features?.lastBlocks ?? 1) === 1;
    const result = vit(p, parameters, config, batch, {
      clsOnly,
      attention: outputs.attention,
      firstQuery: attentionOf && attentionOf + first - 1, // registers lie between [CLS] and the patches
    });
    if (features) {
      const made = clsOnly
        ? finalNorm(p, parameters, config, result.blocks.at(-1)!)
        : linearFeatures(p, parameters, config, result, images, features);
      outputs.features = copied(p, "features", made);
    }
    if (wantsTokens) outputs.tokens = copied(p, "tokens", finalNorm(p, parameters, config, result.blocks.at(-1)!));
    return { executable: await this.backend.compile(p), image, outputs };
  }

  #free({ executable, image, outputs }: Compiled): void {
    executable.dispose();
    this.backend.free(image, ...Object.values(outputs));
  }
}

/** Rows of `width` values, `tokens` to a group, without those of the registers behind each group's first. */
function withoutRegisters(data: Float32Array | undefined, registers: number, tokens: number, width: number) {
  if (!data || registers === 0) return data;
  const groups = data.length / (tokens * width), kept = tokens - registers;
  const rest = new Float32Array(groups * kept * width);
  for (let g = 0; g < groups; g++) {
    const from = g * tokens * width, to = g * kept * width;
    rest.set(data.subarray(from, from + width), to);
    rest.set(data.subarray(from + (1 + registers) * width, from + tokens * width), to + width);
  }
  return rest;
}

function copied(p: Program, name: string, t: Tensor): Tensor {
  const out = tensor(name, t.shape, "output");
  emitCopy(p, t, out);
  return out;
}
