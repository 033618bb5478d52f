// Mutates files of weights and holds the readers to their promise: a result or a clear error, soon, in little memory.
// As a program it soaks: deno run -A tests/models/weights/fuzz.ts [INPUTS] [SEED]

import { isUsersMistake } from "../../../cli/terminal/failure.ts";
import { CounterRandom, STREAM } from "../../../models/rng.ts";
import { vitConfig } from "../../../models/vit.ts";
import { convertWeights } from "../../../models/weights/convert.ts";
import { openWeights } from "../../../models/weights/open.ts";
import { describeLayout } from "../../../models/weights/published.ts";
import { bytesSource, encodeSafetensors, type TensorToWrite } from "../../../models/weights/safetensors.ts";
import { ELEMENT_BYTES, elementCount, toFloat64 } from "../../../models/weights/tensor_file.ts";
import { parsePreprocessing } from "../../../models/weights/preprocessing.ts";
import { readBackbone } from "../../../models/weights/backbone_weights.ts";
import { resnetBufferShapes, resnetConfig, resnetShapes } from "../../../models/resnet.ts";
import { xcitBufferShapes, xcitConfig, xcitShapes } from "../../../models/xcit.ts";
import { toyFile, toyTensors } from "./toy_vit.ts";

/** A file to be mutated. */
export interface Seed {
  readonly name: string;
  readonly bytes: Uint8Array;
}

/** What a run of the fuzzer saw. */
export interface FuzzResult {
  readonly inputs: number;
  readonly accepted: number;
  readonly refused: number;
  readonly slowestMs: number;
  /** Growth of the process, in bytes. */
  readonly grownBytes: number;
  /** Inputs that broke the promise: how to make them again, and what happened. */
  readonly failures: readonly string[];
}

/** Small files of every format that is read. */
export async function fuzzSeeds(): Promise<Seed[]> {
  const golden = new URL("../../fixtures/golden/", import.meta.url).pathname;
  const pth = async (name: string) => await Deno.readFile(`${golden}${name}`);
  const folder = await Deno.makeTempDir();
  try {
    const config = vitConfig({ embedDim: 6, depth: 1, numHeads: 2, patchSize: 2, imageSize: 4, mlpRatio: 1 });
    const tiny = await toyFile(config);
    const made: Seed[] = [];
    for (
      const [format, name] of [["pytorch", "a.pth"], ["onnx", "a.onnx"], ["npz", "a.npz"], [
        "safetensors",
        "a.safetensors",
      ]] as const
    ) {
      await convertWeights(tiny, `${folder}/${name}`, { format });
      made.push({ name, bytes: await Deno.readFile(`${folder}/${name}`) });
    }
    const one = toyTensors(config).slice(2, 3);
    const { writeNpy } = await import("../../../models/weights/npy.ts");
    await writeNpy(`${folder}/a.npy`, one[0]);
    const xcit = xcitConfig({ patchSize: 2, embedDim: 4, depth: 1, classDepth: 1, numHeads: 2, mlpRatio: 1 });
    const resnet = resnetConfig({ block: "basic", layers: [1], basePlanes: 2 });
    return [
      { name: "preprocessor.json", bytes: new TextEncoder().encode(PREPROCESSOR) },
      {
        name: "xcit.safetensors",
        bytes: await encodeSafetensors(zeros([...xcitShapes(xcit), ...xcitBufferShapes(xcit)])),
      },
      {
        name: "resnet.safetensors",
        bytes: await encodeSafetensors(zeros([...resnetShapes(resnet), ...resnetBufferShapes(resnet)])),
      },
      { name: "dtypes.pth", bytes: await pth("checkpoint_pth__dtypes/model.pth") },
      { name: "legacy.pth", bytes: await pth("checkpoint_pth__legacy/model.pth") },
      { name: "protocol4.pth", bytes: await pth("checkpoint_pth__protocol4/model.pth") },
      ...made,
      { name: "few.safetensors", bytes: await encodeSafetensors(one, { format: "pt" }) },
      { name: "a.npy", bytes: await Deno.readFile(`${folder}/a.npy`) },
      // np.savez_compressed(a=np.arange(300), b=np.zeros((4, 0)), c=np.ones(5, bool)) by numpy 2.
      { name: "compressed.npz", bytes: Uint8Array.fromBase64(COMPRESSED_NPZ) },
    ];
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const PREPROCESSOR = JSON.stringify({
  do_resize: true,
  size: { shortest_edge: 256 },
  do_center_crop: true,
  crop_size: { height: 224, width: 224 },
  resample: 3,
  rescale_factor: 1 / 255,
  image_mean: [0.485, 0.456, 0.406],
  image_std: [0.229, 0.224, 0.225],
});

function zeros(shapes: readonly (readonly [name: string, shape: number[]])[]): TensorToWrite[] {
  return shapes.map(([name, shape]) => {
    const bytes = () => new Uint8Array(shape.reduce((a, b) => a * b, 4));
    return { name, dtype: "F32", shape, bytes };
  });
}

/** Nothing here has any business taking this long; the machine may be busy. */
const MAX_MS = 5000;
/** Bytes a reader may ask a source for, for each byte there is, all readings of all its tensors together. */
const MAX_READ = { times: 64, plus: 2 ** 20 };

/** Runs `inputs` mutations, the same for the same seed. */
export async function fuzz(seeds: readonly Seed[], inputs: number, seed: number): Promise<FuzzResult> {
  const failures: string[] = [];
  let accepted = 0, refused = 0, slowestMs = 0;
  const before = Deno.memoryUsage().rss;
  for (let i = 0; i < inputs && failures.length < 20; i++) {
    const random = new CounterRandom(seed, STREAM.initialization);
    random.restart(i);
    const draw = (below: number) => random.integer(below);
    const { name, bytes } = seeds[i % seeds.length];
    const mutated = mutate(bytes, draw, seeds[draw(seeds.length)].bytes);
    const start = performance.now();
    let what = "", read = 0;
    try {
      const source = bytesSource(mutated, name);
      if (name.endsWith(".json")) readJson(mutated, name);
      else {
        read = await readEverything({
          ...source,
          read: (from, to) => {
            read += to - from;
            return source.read(from, to);
          },
        }, () => read);
      }
      accepted++;
    } catch (error) {
      refused++;
      if (!isUsersMistake(error)) what = String((error as Error).stack);
      else if (!(error as Error).message.startsWith(name)) what = `does not name the file: ${error}`;
    }
    const took = performance.now() - start;
    slowestMs = Math.max(slowestMs, took);
    if (took > MAX_MS) what ||= `took ${Math.round(took)} ms`;
    if (read > MAX_READ.times * mutated.length + MAX_READ.plus) what ||= `read ${read} of ${mutated.length} bytes`;
    if (what) failures.push(`input ${i} of seed ${seed}, from ${name}: ${what}`);
  }
  return { inputs, accepted, refused, slowestMs, grownBytes: Deno.memoryUsage().rss - before, failures };
}

/** What a folder says of its images; text that is no JSON object is refused before it comes here. */
function readJson(bytes: Uint8Array, name: string): void {
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    throw new SyntaxError(`${name}: is not JSON`);
  }
  if (typeof json !== "object" || json === null || Array.isArray(json)) throw new SyntaxError(`${name}: is no object`);
  const { resize, normalization } = parsePreprocessing(json as Record<string, unknown>, name);
  const numbers = [...Object.values(resize ?? {}), ...normalization.mean, ...normalization.deviation];
  if (!numbers.every((x) => typeof x === "number" && Number.isFinite(x))) {
    throw new Error(`${name}: let ${numbers} through`);
  }
}

/** Opens, describes, reads every tensor, and tries for a network, as inspect and convert would. */
async function readEverything(source: Parameters<typeof openWeights>[0], count: () => number): Promise<number> {
  const file = await openWeights(source);
  for (const info of file.tensors.values()) {
    const bytes = await file.read(info);
    if (bytes.length !== elementCount(info.shape) * ELEMENT_BYTES[info.dtype]) {
      throw new Error(`${info.name}: ${bytes.length} bytes for ${info.dtype} [${info.shape}]`);
    }
    toFloat64(info.dtype, bytes);
  }
  const { sentences } = await describeLayout(file);
  if (sentences.some((sentence) => /Vision Transformer |ResNet|XCiT/.test(sentence))) {
    await readBackbone(file, { imageSize: 8 });
  }
  return count();
}

/** One to four changes of the kinds that damage, carelessness and malice make. */
function mutate(bytes: Uint8Array, draw: (below: number) => number, other: Uint8Array): Uint8Array {
  let now: Uint8Array = bytes.slice();
  for (let changes = 1 + draw(4); changes > 0; changes--) {
    if (now.length < 16) return now;
    const at = draw(now.length), length = 1 + draw(16);
    const splice = (remove: number, insert: Uint8Array) => {
      const made = new Uint8Array(now.length - Math.min(remove, now.length - at) + insert.length);
      made.set(now.subarray(0, at));
      made.set(insert, at);
      made.set(now.subarray(at + remove), at + insert.length);
      now = made;
    };
    switch (draw(9)) {
      case 0:
        now[at] ^= 1 << draw(8);
        break;
      case 1:
        now[at] = [0, 1, 0x7f, 0x80, 0xff, 0x2e, 0x28, 0x7b][draw(8)];
        break;
      case 2: // a number somewhere becomes huge, or negative
        now.set(
          [[0xff, 0xff, 0xff, 0x7f], [0, 0, 0, 0x80], [0xff, 0xff, 0xff, 0xff], [0, 0, 0, 1]][draw(4)].slice(
            0,
            now.length - at,
          ),
          at,
        );
        break;
      case 3:
        now = now.slice(0, at);
        break;
      case 4:
        splice(length, new Uint8Array(0));
        break;
      case 5:
        splice(0, now.slice(at, at + length));
        break;
      case 6: {
        const from = draw(other.length);
        splice(length, other.slice(from, from + length));
        break;
      }
      case 7: { // a digit of a length, a shape, a header
        const digit = now.findIndex((byte, i) => i >= at && byte >= 0x30 && byte <= 0x39);
        if (digit >= 0) now[digit] = 0x30 + draw(10);
        break;
      }
      default: { // a piece is moved to where another was
        const from = draw(now.length);
        now.set(now.slice(from, from + Math.min(64, now.length - at)), at);
      }
    }
  }
  return now;
}

const COMPRESSED_NPZ =
  "UEsDBC0AAAAIAAAAIQBYMDR1//////////8FABQAYS5ucHkBABAA4AkAAAAAAABcAgAAAAAAAJ3VZ1sVBBgGYKaiDFFEEBCPDA8oFmWDSMuGlBpmA5PSCOGQFgEeiIbasp1NLUel7aVlZdPVcKcNR2k7TW3v6ajU67r9Az1f7ut9Pjxf3ylDK8qHVUZGtEaMD9aGmmvCwdJAsN/YkmBRIFjXGG4JVzdUNYZrQ/v7sur65tC+vnlMdVNo313Qt7i4qLAoMDHwv9M+QiIZxWjGMJZt2JZxbMcDg/FMYCKT2IHJ7MhOTGFnprIL05jOrsxgJrPYjdnszgB7MIe5zGM+ezLIAhayF3uziH14EA9mMQ/hoezLw3g4j+CRLOFRLOXR7Mf+PIbHcgCP4/E8gSdyIMt4Ek/mIA7mEJ7Ccg7lqRzG03g6z+CZrOBwnsURrOTZPIcjOYrnsornsZqjWcNahljH8zmGY3kBL2Q9L2IDG9nEcQyzmS28mK28hJfyMl7O8ZzAibyCV/IqXs1rOInX8jpezxt4I2/izbyFk3krb+PtvIN38i5O4VTezXs4jdM5gzN5L+/j/ZzF2XyAD/IhPsxH+Cgf4+N8gk/yKc7hXD7NZziPz/I5Ps/5fIEv8iW+zFf4KhdwIRdxMZfwNb7ON/gml3IZl3MFV3IVV/MtruFavs13+C7f4zqu5wZu5Pv8gJu4mR/yI37MT/gpP+Pn/IJbuJVfchu3cwe/4tf8ht/yO37PH/gjf+LP/IW/8jf+zj/4J//i39zJXdzNPfyH//I/Hnj8kYxiNGMYyzZsyzi2Y3vGM4GJTGIHJrMjOzGFnZnKLkxjOrsyg5nMYjdmszsD7MEc5jKP+ezJIAtYyF7szb1QSwMELQAAAAgAAAAhAAUQ2ur//////////wUAFABiLm5weQEAEACAAAAAAAAAAEYAAAAAAAAAm+wX6hsQychQxlCtnpJanFykbqWgbpNmoa6joJ6WX1RSlJgXn1+UkgoSd0vMKU4FihdnJBakAvkaJjoKBpo6CrUKZAMuAFBLAwQtAAAACAAAACEAEl0+sP//////////BQAUAGMubnB5AQAQAIUAAAAAAAAARwAAAAAAAACb7BfqGxDJyFDGUK2eklqcXKRupaBek2SorqOgnpZfVFKUmBefX5SSChJ3S8wpTgWKF2ckFqQC+RqmOpo6CrUKFAAuRhAAAFBLAQItAy0AAAAIAAAAIQBYMDR1XAIAAOAJAAAFAAAAAAAAAAAAAACAAQAAAABhLm5weVBLAQItAy0AAAAIAAAAIQAFENrqRgAAAIAAAAAFAAAAAAAAAAAAAACAAZMCAABiLm5weVBLAQItAy0AAAAIAAAAIQASXT6wRwAAAIUAAAAFAAAAAAAAAAAAAACAARADAABjLm5weVBLBQYAAAAAAwADAJkAAACOAwAAAAA=";

if (import.meta.main) {
  const [inputs = "10000", seed = String(Date.now() % 1e9)] = Deno.args;
  const start = performance.now();
  const result = await fuzz(await fuzzSeeds(), Number(inputs), Number(seed));
  console.log(`${inputs} inputs, seed ${seed}, ${Math.round((performance.now() - start) / 1000)} s:`, result);
  Deno.exit(result.failures.length > 0 ? 1 : 0);
}
