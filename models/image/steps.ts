// Chains of single image operations, each run as part of the augmentation kernel of whatever backend is given.
import type { Backend } from "../graph/backend.ts";
import { Program } from "../graph/program.ts";
import {
  augment,
  augmentToLevels,
  IMAGENET_NORMALIZATION,
  type Normalization,
  pixelBuffer,
  pixelRoom,
} from "../graph/ops/augment.ts";
import { centralOffset, type CropParameters, CropPlanner, MAX_ADJUSTMENTS, plainCrop, shorterSideTo } from "./crop.ts";
import { emptyRaster, type Raster, raster } from "./raster.ts";
import { type Interpolation, maxTaps } from "./resample.ts";
import { thumbnail } from "./host_resize.ts";

/** One image operation, named and parameterised as the reference's transforms are. */
export type ImageStep =
  | {
    op: "resized_crop";
    top: number;
    left: number;
    height: number;
    width: number;
    size: number;
    interpolation: Interpolation;
  }
  | { op: "resize_shorter"; size: number; interpolation: Interpolation }
  | { op: "resize_exact"; height: number; width: number; interpolation: Interpolation }
  | { op: "center_crop"; size: number }
  | { op: "hflip" | "grayscale3" }
  | { op: "brightness" | "contrast" | "saturation" | "hue"; factor: number }
  | { op: "gaussian_blur"; radius: number }
  | { op: "solarize"; threshold: number }
  | { op: "thumbnail_lanczos"; max_size: number };

/** Order in which one pass of the kernel applies what it is given. */
const STAGE = { geometry: 0, window: 1, flip: 2, colors: 3, blur: 4, solarize: 5 } as const;

/** One pass of the kernel over one image, and how far its stages are filled. */
interface Pass {
  crop: CropParameters;
  height: number;
  width: number;
  stage: number;
}

/** A pass that changes nothing yet. */
function startPass(image: Raster): Pass {
  const { height, width } = image;
  return { crop: plainCrop(0, { top: 0, left: 0, height, width }), height, width, stage: -1 };
}

/**
 * Adds a step to a pass, if it can still be done in the same pass after what is there.
 *
 * @returns whether it could
 */
function addStep(pass: Pass, step: ImageStep): boolean {
  const { crop } = pass;
  switch (step.op) {
    case "resized_crop":
      if (pass.stage >= STAGE.geometry) return false;
      Object.assign(crop, {
        top: step.top,
        left: step.left,
        height: step.height,
        width: step.width,
        interpolation: step.interpolation,
      });
      pass.height = pass.width = step.size;
      pass.stage = STAGE.geometry;
      return true;
    case "resize_shorter":
    case "resize_exact": {
      if (pass.stage >= STAGE.geometry) return false;
      const to = step.op === "resize_exact" ? step : shorterSideTo(step.size, pass.height, pass.width);
      crop.interpolation = step.interpolation;
      pass.height = to.height;
      pass.width = to.width;
      pass.stage = STAGE.geometry;
      return true;
    }
    case "center_crop":
      if (pass.stage >= STAGE.window) return false;
      crop.resized = {
        height: pass.height,
        width: pass.width,
        top: centralOffset(pass.height, step.size),
        left: centralOffset(pass.width, step.size),
      };
      pass.height = pass.width = step.size;
      pass.stage = STAGE.window;
      return true;
    case "hflip":
      if (pass.stage >= STAGE.flip) return false;
      crop.flip = true;
      pass.stage = STAGE.flip;
      return true;
    case "gaussian_blur":
      if (pass.stage >= STAGE.blur) return false;
      crop.blurSigma = step.radius;
      pass.stage = STAGE.blur;
      return true;
    case "solarize":
      if (pass.stage >= STAGE.solarize) return false;
      crop.solarizeThreshold = step.threshold;
      pass.stage = STAGE.solarize;
      return true;
    case "thumbnail_lanczos":
      return false;
    default: {
      const kind = step.op === "grayscale3" ? "gray" : step.op;
      const full = crop.adjustments.length === MAX_ADJUSTMENTS ||
        (kind === "contrast" && crop.adjustments.some((a) => a.kind === "contrast"));
      if (pass.stage > STAGE.colors || full) return false;
      crop.adjustments.push({ kind, factor: "factor" in step ? step.factor : 1 });
      pass.stage = STAGE.colors;
      return true;
    }
  }
}

/**
 * Runs a chain of operations on one image: the backend's kernels do everything but thumbnails and padding.
 *
 * @throws {RangeError} on values a step cannot take, {TypeError} on a step that is not known
 */
export async function runImageSteps(backend: Backend, image: Raster, steps: readonly ImageStep[]): Promise<Raster> {
  const { image: before, pass } = await runAllButLast(backend, image, steps);
  return pass.stage < 0 ? before : await runPass(backend, before, pass);
}

/**
 * The same chain, its last pass normalised on the device.
 *
 * @returns f32 [3, height, width]
 */
export async function runNormalizedImageSteps(
  backend: Backend,
  image: Raster,
  steps: readonly ImageStep[],
  normalization: Normalization = IMAGENET_NORMALIZATION,
): Promise<{ data: Float32Array; height: number; width: number }> {
  const { image: before, pass } = await runAllButLast(backend, image, steps);
  const { height, width } = pass;
  const patch = height % 8 === 0 && width % 8 === 0 ? 8 : 1; // larger patches exercise the order of the store
  const patches = await runCrop(backend, before, pass, patch, normalization);
  const data = new Float32Array(3 * height * width);
  for (let i = 0; i < data.length; i++) {
    const x = i % width, y = Math.floor(i / width) % height, c = Math.floor(i / (width * height));
    const cell = Math.floor(y / patch) * (width / patch) + Math.floor(x / patch);
    data[i] = patches[((cell * 3 + c) * patch + y % patch) * patch + x % patch];
  }
  return { data, height, width };
}

async function runAllButLast(
  backend: Backend,
  image: Raster,
  steps: readonly ImageStep[],
): Promise<{ image: Raster; pass: Pass }> {
  let pass = startPass(image);
  const flush = async () => {
    if (pass.stage >= 0) image = await runPass(backend, image, pass);
    pass = startPass(image);
  };
  for (const step of steps) {
    if (!KNOWN_STEPS.has(step.op)) throw new TypeError(`image step "${step.op}" is not one of ${[...KNOWN_STEPS]}`);
    if (step.op === "thumbnail_lanczos") {
      await flush();
      image = thumbnail(image, step.max_size);
      pass = startPass(image);
      continue;
    }
    if (step.op === "center_crop" && (step.size > pass.height || step.size > pass.width)) {
      await flush();
      image = padToSize(image, step.size);
      pass = startPass(image);
    }
    if (!addStep(pass, step)) {
      await flush();
      addStep(pass, step);
    }
  }
  return { image, pass };
}

const KNOWN_STEPS: ReadonlySet<string> = new Set<ImageStep["op"]>([
  "resized_crop",
  "resize_shorter",
  "resize_exact",
  "center_crop",
  "hflip",
  "grayscale3",
  "brightness",
  "contrast",
  "saturation",
  "hue",
  "gaussian_blur",
  "solarize",
  "thumbnail_lanczos",
]);

/** Black around an image that is smaller than a centre crop; the odd pixel goes to the right and below. */
function padToSize(image: Raster, size: number): Raster {
  const padded = emptyRaster(Math.max(image.height, size), Math.max(image.width, size));
  const top = Math.floor((padded.height - image.height) / 2), left = Math.floor((padded.width - image.width) / 2);
  for (let y = 0; y < image.height; y++) {
    const row = image.data.subarray(y * image.width * 3, (y + 1) * image.width * 3);
    padded.data.set(row, ((top + y) * padded.width + left) * 3);
  }
  return padded;
}

async function runPass(backend: Backend, image: Raster, pass: Pass): Promise<Raster> {
  const levels = await runCrop(backend, image, pass, 0, IMAGENET_NORMALIZATION);
  return raster(Uint8Array.from(levels), pass.height, pass.width);
}

/** Compiles and runs the augmentation of one crop; patch size 0 asks for plain levels. */
async function runCrop(
  backend: Backend,
  image: Raster,
  { crop, height, width }: Pass,
  patchSize: number,
  normalization: Normalization,
): Promise<Float32Array> {
  const program = new Program("image steps");
  const pixels = pixelBuffer(image.data.length);
  const { resized = { height, width }, interpolation } = crop;
  const taps = Math.max(
    maxTaps(crop.height, resized.height, interpolation),
    maxTaps(crop.width, resized.width, interpolation),
  );
  const capacity = { count: 1, height, width, maxTaps: taps };
  const tensors = patchSize === 0
    ? augmentToLevels(program, pixels, capacity)
    : augment(program, pixels, capacity, patchSize, normalization, "output");
  const planner = new CropPlanner(capacity);
  const used = planner.plan(Int32Array.of(0, image.height, image.width), pixelRoom(pixels), [crop]);
  const executable = await backend.compile(program);
  backend.write(pixels, image.data);
  backend.write(tensors.table, planner.table);
  backend.write(tensors.taps, planner.taps.subarray(0, used));
  await executable.run();
  const result = await backend.read(tensors.crops) as Float32Array;
  executable.dispose();
  backend.free(pixels, tensors.table, tensors.taps, tensors.crops, tensors.levels);
  return result;
}
