/**
 * Train and evaluate DINO (Caron et al. 2021, *Emerging Properties in Self-Supervised Vision Transformers*) on WebGPU, or on
 * SIMD WebAssembly where there is no GPU. No Python, no native code of its own, no network.
 *
 * A model is a function that writes a {@linkcode Program}; a {@linkcode Backend} compiles it once per shape; running it moves no
 * value back to JavaScript. {@linkcode train} puts a whole run together.
 *
 * Most needs are met by few of the exports:
 *
 * *A network that others trained*
 * - {@linkcode loadPretrained}: a file or folder of weights as a network that gives features and attention of images
 * - {@linkcode convertWeights}: between safetensors, PyTorch, Hugging Face, ONNX and npz
 *
 * *A device*
 * - {@linkcode openWebGpu}: a graphics card; {@linkcode describeAdapters} lists them
 * - {@linkcode openWasm}: the processor, on all its cores
 *
 * *Images*
 * - {@linkcode openPixels}: a folder, list or archive, decoded once into a cache
 * - {@linkcode pixelsFromMemory}: images that the program has itself; {@linkcode loadSample}: 5000 that come along
 *
 * *Training*
 * - {@linkcode train}: a whole run, with checkpoints and k-NN, that can be stopped and resumed
 * - {@linkcode defaultConfig}, {@linkcode presets}: its hyperparameters; {@linkcode configFields} says what each does
 * - {@linkcode loadWeights}: a network of one of its checkpoints; {@linkcode readTrainingState}: how far that is
 *
 * *Measuring a network*
 * - {@linkcode FeatureExtractor}: features of a data set, after {@linkcode uploadBackbone}
 * - {@linkcode evaluateKnn}, {@linkcode LinearProbe}, {@linkcode Finetuner}: accuracies on labelled images
 *
 * *Something new*
 * - {@linkcode Program}, {@linkcode tensor}, {@linkcode differentiate}: computations of one's own, with gradients
 * - {@linkcode ReferenceBackend}: what they should give, in float64
 *
 * The library spawns no process and opens no window. On the CPU it is about twice as fast in a process started with
 * `DENO_V8_FLAGS=--experimental-wasm-revectorize,--no-wasm-bounds-checks`; the backend's `description` says which mode it is in.
 *
 * @example Train a tiny network on the embedded sample for two updates
 * ```ts
 * import { defaultConfig, loadSample, openWasm, presets, train } from "./mod.ts";
 *
 * const backend = await openWasm({ threads: 1 });
 * const config = { ...defaultConfig(), ...presets.sample.values, depth: 1, steps: 2, knnEvery: 0 };
 * const result = await train(config, { backend, data: await loadSample("train", 64) });
 * console.log(`${result.step} updates on ${backend.description}`);
 * await backend.close();
 * ```
 *
 * @example Write, differentiate and run a program
 * ```ts
 * import { differentiate, linear, openWasm, Program, tensor } from "./mod.ts";
 *
 * const x = tensor("x", [2, 3], "input"), w = tensor("w", [1, 3], "param");
 * const seed = tensor("dy", [2, 1], "input"), dw = tensor("dw", [1, 3], "output");
 * const p = new Program("example");
 * differentiate(p, { seeds: [[linear(p, x, w), seed]], wrt: [[w, dw]] });
 *
 * const backend = await openWasm({ threads: 1 });
 * backend.write(x, Float32Array.of(1, 2, 3, 4, 5, 6));
 * backend.write(seed, Float32Array.of(1, 1));
 * await (await backend.compile(p)).run();
 * console.log(await backend.read(dw)); // [5, 7, 9], the column sums of x
 * await backend.close();
 * ```
 *
 * @module
 */

// The program layer.
export * from "./models/graph/tensor.ts";
export * from "./models/graph/arena.ts";
export * from "./models/graph/program.ts";
export * from "./models/graph/backend.ts";
export * from "./models/graph/communicator.ts";
export * from "./models/graph/plan.ts";
export * from "./models/graph/autodiff.ts";
export type { Recomputation } from "./models/graph/recompute.ts";
export * from "./models/graph/reference.ts";
export * from "./models/graph/ops/mod.ts";
export * from "./models/graph/ops/rule.ts";
export * from "./models/graph/ops/exports.ts";

// Models.
export * from "./models/vit.ts";
export * from "./models/backbone.ts";
export * from "./models/resnet.ts";
export * from "./models/xcit.ts";
export * from "./models/dino_head.ts";
export * from "./models/dino_network.ts";
export * from "./models/init.ts";
export * from "./models/rng.ts";
export * from "./models/interpolate.ts";
export * from "./models/image/crop.ts";
export * from "./models/image/raster.ts";
export * from "./models/image/resample.ts";
export * from "./models/image/color.ts";
export * from "./models/image/steps.ts";
export * from "./models/weights/safetensors.ts";
export * from "./models/weights/open.ts";
export * from "./models/weights/tensor_file.ts";
export * from "./models/weights/network.ts";
export * from "./models/weights/backbone_weights.ts";
export * from "./models/weights/preprocessing.ts";
export * from "./models/weights/vit_weights.ts";
export * from "./models/weights/resnet_weights.ts";
export * from "./models/weights/xcit_weights.ts";
export * from "./models/weights/convert.ts";
export * from "./models/weights/published.ts";
export * from "./models/weights/statistics.ts";

// Backends.
export * from "./wasm/mod.ts";
export type { TileShape } from "./wasm/micro_kernels.ts";
export {
  type AdapterSummary,
  type AttentionShape,
  type AttentionTuning,
  describeAdapters,
  type DeviceOptions,
  type LoweringLimits,
  type MatmulShape,
  openWebGpu,
  type PrologueUse,
  type TileName,
  type TuningCache,
  type TuningOptions,
  type TuningResult,
  type WebGpu,
  type WebGpuOptions,
} from "./gpu/mod.ts";

// The method.
export * from "./dino/config.ts";
export * from "./dino/config/architecture.ts";
export * from "./dino/config/check.ts";
export * from "./dino/config/field.ts";
export * from "./dino/config/presets.ts";
export * from "./dino/schedule.ts";
export * from "./dino/optimizer.ts";
export * from "./dino/state.ts";
export * from "./dino/step.ts";
export * from "./dino/train.ts";
export * from "./dino/ranks/collectives.ts";
export * from "./dino/ranks/in_process.ts";
export { type Share, WHOLE } from "./dino/ranks/ranks.ts";
export * from "./dino/config/networks.ts";
export * from "./dino/run/plan.ts";
export * from "./dino/crop_feed.ts";
export * from "./dino/run/metrics.ts";
export * from "./dino/run/events.ts";
export * from "./dino/batch_counts.ts";
export * from "./dino/run/checkpoint.ts";
export * from "./dino/load_weights.ts";
export * from "./dino/pretrained.ts";
export * from "./dino/monitor.ts";
export * from "./dino/eval/knn/knn.ts";
export * from "./dino/eval/knn/knn_eval.ts";
export * from "./dino/eval/knn/splits.ts";
export * from "./dino/eval/features.ts";

// Evaluations.
export * from "./dino/eval/backbone.ts";
export * from "./dino/eval/encoder.ts";
export * from "./dino/eval/image_planes.ts";
export * from "./dino/eval/linear/features.ts";
export * from "./dino/eval/linear/linear.ts";
export * from "./dino/eval/classification.ts";
export * from "./dino/eval/few_shot/logistic.ts";
export * from "./dino/eval/few_shot/few_shot.ts";
export * from "./dino/eval/finetune/finetune.ts";
export * from "./dino/eval/retrieval/descriptors.ts";
export * from "./dino/eval/retrieval/describe.ts";
export * from "./dino/eval/retrieval/whitening.ts";
export * from "./dino/eval/retrieval/retrieval.ts";
export * from "./dino/eval/retrieval/ground_truth.ts";
export * from "./dino/eval/retrieval/copy_detection.ts";
export * from "./dino/eval/video/video_segmentation.ts";
export * from "./dino/eval/video/affinity.ts";
export * from "./dino/eval/video/davis.ts";
export * from "./dino/eval/pictures/attention.ts";
export * from "./dino/eval/pictures/overlays.ts";
export * from "./dino/eval/pictures/object_masks.ts";
export * from "./dino/eval/pictures/tsne.ts";
export * from "./dino/eval/throughput.ts";
export * from "./dino/data/dataset.ts";
export * from "./dino/data/open.ts";
export * from "./dino/data/decoder.ts";
export * from "./dino/data/multicrop.ts";
export * from "./dino/data/sample.ts";
export * from "./dino/data/prefetch.ts";
export { createDecoder, DecodeError } from "./dino/data/decode.ts";
export { type MemoryImages, pixelsFromMemory } from "./dino/data/memory.ts";
