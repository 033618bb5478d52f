import { join } from "node:path";
import { command as attention } from "../../cli/attention.ts";
import { command as copyDetection } from "../../cli/copy_detection.ts";
import type { EvaluationCommand } from "../../cli/evaluation/command.ts";
import { command as features } from "../../cli/features.ts";
import { command as linear } from "../../cli/linear.ts";
import { command as retrieval } from "../../cli/retrieval.ts";
import { command as search } from "../../cli/search.ts";
import { command as videoSegmentation } from "../../cli/video_segmentation.ts";
import type { PixelSource } from "../../dino/data/dataset.ts";
import { isImageName } from "../../dino/data/decode.ts";
import { hasTestHalf } from "../../dino/data/halves.ts";
import { openPixels } from "../../dino/data/open.ts";
import { loadSharp } from "../../dino/data/sharp.ts";
import { uploadBackbone } from "../../dino/eval/backbone.ts";
import { nearDuplicates } from "../../dino/eval/retrieval/image_index.ts";
import { loadWeights } from "../../dino/load_weights.ts";
import type { Backend } from "../../models/graph/backend.ts";
import { IMAGENET_NORMALIZATION } from "../../models/graph/ops/augment.ts";
import { openFileSource, readFloats, readSafetensorsHeader } from "../../models/weights/safetensors.ts";
import { assert, assertAlmostEquals, assertEquals, assertRejects } from "../assert.ts";
import { onEachBackend } from "../backends.ts";
import { writePytorch } from "../../models/weights/pytorch_write.ts";
import { withFiles } from "../dino/data/make_images.ts";
import {
  picture,
  TOY_VIT,
  writeClasses,
  writeCopies,
  writePicture,
  writeToyWeights,
  writeVideo,
} from "./evaluation_world.ts";

/** Runs a command's own code in this process: what its compute process would do, without starting one. */
async function evaluate(
  backend: Backend,
  folder: string,
  // deno-lint-ignore no-explicit-any
  command: EvaluationCommand<any>,
  given: Record<string, unknown>,
  // deno-lint-ignore no-explicit-any
): Promise<any> {
  const defaults = Object.fromEntries(
    Object.entries(command.fields as Record<string, { default: unknown }>).map(([key, field]) => [key, field.default]),
  );
  // deno-lint-ignore no-explicit-any
  const flags = { ...defaults, ...given } as any;
  const extra = await command.prepare?.(flags, folder) ?? null;
  const sources: Record<string, PixelSource> = {};
  for (const [name, { path, split, files, strict, ifHalved }] of Object.entries(command.sources(flags, extra))) {
    if (ifHalved && !await hasTestHalf(path!)) continue;
    sources[name] = await openPixels(path!, { split, files: files ?? (isImageName(path!) ? [path!] : undefined) });
    assert(!strict || sources[name].skipped.length === 0);
  }
  const loaded = await loadWeights(join(folder, "toy.safetensors"));
  const uploaded = uploadBackbone(backend, loaded);
  try {
    const outcome = await command.evaluate({
      backend,
      backbone: loaded.backbone,
      parameters: uploaded.parameters,
      normalization: IMAGENET_NORMALIZATION,
      batchCounts: loaded.batchCounts,
      weightsPath: loaded.path,
      network: "teacher",
      sources,
      extra,
      signal: new AbortController().signal,
      progress: () => {},
      notice: () => {},
    }, flags);
    await command.finish?.(flags, extra, { signal: new AbortController().signal, progress: () => {} });
    return JSON.parse(JSON.stringify(outcome.value));
  } finally {
    uploaded.dispose();
    for (const source of Object.values(sources)) source.close();
  }
}

async function readFeatures(path: string) {
  const source = await openFileSource(path);
  const { tensors, metadata } = await readSafetensorsHeader(source);
  const record = tensors.get("features")!;
  const data = await readFloats(source, record);
  source.close!();
  return { data, shape: record.shape, names: JSON.parse(metadata.names) as string[] };
}

const world = (use: (folder: string) => Promise<void>) =>
  withFiles({}, async (folder) => {
    await writeToyWeights(join(folder, "toy.safetensors"));
    await use(folder);
  });

onEachBackend("features and linear: files hold every image, whatever path computed them", async (backend) => {
  await world(async (folder) => {
    await writeClasses(folder);
    const [data, val] = [join(folder, "train"), join(folder, "val")];
    const out = (name: string) => join(folder, name);
    const first = await evaluate(backend, folder, features, { data, out: out("cls.safetensors") });
    assertEquals(first.shape, [18, TOY_VIT.embedDim]);
    await evaluate(backend, folder, features, { data, out: out("tokens.safetensors"), tokens: true, limit: 4 });
    const cls = await readFeatures(out("cls.safetensors")), tokens = await readFeatures(out("tokens.safetensors"));
    assertEquals([tokens.shape, tokens.names], [[4, 17, 128], cls.names.slice(0, 4)]);
    // The device resizes in one path, the host in the other: the same 8-bit pixels, so the same [CLS].
    for (let i = 0; i < 4; i++) {
      for (let d = 0; d < 128; d++) {
        assertAlmostEquals(tokens.data[i * 17 * 128 + d], cls.data[i * 128 + d], 1e-4);
      }
    }
    const npy = { data, out: out("f.npy"), keepAspect: true, multiscale: true, cropSize: 32, limit: 2 };
    await evaluate(backend, folder, features, npy);
    assertEquals(JSON.parse(await Deno.readTextFile(out("f.json"))).names.length, 2);

    const probe = { data, val, epochs: 2, lr: "0.1,1", batchSize: 8, lastBlocks: 2, out: out("probe.safetensors") };
    const result = await evaluate(backend, folder, linear, probe);
    assertEquals(result.scores.length, 2);
    assert(result.scores[1].top1 > 50, "three classes of stripes are easy");
    const again = await evaluate(backend, folder, linear, probe); // complete: only scored
    assertEquals(again.scores.map((s: { top1: number }) => s.top1), result.scores.map((s: { top1: number }) => s.top1));
    const once = await evaluate(backend, folder, linear, { ...probe, out: null, augment: false });
    const halves = await evaluate(backend, folder, linear, { ...probe, data: folder, val: null, out: null, epochs: 1 });
    assert(halves.split.startsWith("6 images of "), `${halves.split}: those of val/, not a tenth`);
    assertEquals(once.dim, 256);
    const weightsLinear = out("probe.safetensors"),
      scored = { data: val, evaluate: true, weightsLinear, lastBlocks: 2 };
    const best = Math.max(...result.scores.map((s: { top1: number }) => s.top1));
    assertEquals((await evaluate(backend, folder, linear, scored)).top1, best);
    // As the release writes one: a state dict behind a wrapper's name, its width alone telling the features.
    const released = out("linearweights.pth");
    const floats = (values: Float32Array) => () => new Uint8Array(values.buffer);
    const entry = (name: string, shape: number[], values: Float32Array) =>
      [name, { name, dtype: "F32" as const, shape, bytes: floats(values) }] as const;
    await writePytorch(
      released,
      new Map([[
        "state_dict",
        new Map([
          entry("module.linear.weight", [3, 256], Float32Array.from({ length: 768 }, (_, i) => Math.sin(i))),
          entry("module.linear.bias", [3], Float32Array.of(0, 100, 0)),
        ]),
      ]]),
    );
    const biased = { data: val, evaluate: true, weightsLinear: released };
    const third = await evaluate(backend, folder, linear, biased);
    assertEquals([third.classes, third.lastBlocks, third.patchAverage], [3, 1, "interleaved"]);
    assertAlmostEquals(third.top1, 100 / 3, 1e-9); // one class for all images
    const refused = (changes: object, message: string) =>
      assertRejects(() => evaluate(backend, folder, linear, { ...biased, ...changes }), RangeError, message);
    await refused({ lastBlocks: 1 }, "expects 256 features");
    await refused({ weightsLinear: null }, "name its file");
    await refused({ evaluate: false }, "goes with --evaluate");
    await writePicture(join(val, "z/0.png"), picture(20, 20, () => [9, 9, 9]), 20, 20);
    await assertRejects(() => evaluate(backend, folder, linear, { ...probe, out: null }), RangeError, "z/0.png");
    await refused({}, "tells 3 classes apart");
  });
}, { backends: ["wasm", "webgpu"] });

onEachBackend("retrieval and copy detection: copies are found, mistakes are named", async (backend) => {
  await world(async (folder) => {
    await writeCopies(folder);
    await writeClasses(join(folder, "others"), 2);
    const data = join(folder, "copies");
    await Deno.mkdir(data);
    for (const part of ["original", "jpegqual", "strong"]) await Deno.rename(join(folder, part), join(data, part));
    const copies = await evaluate(backend, folder, copyDetection, {
      data,
      imsize: 32,
      whitening: join(folder, "others"),
      distractors: join(folder, "others"),
    });
    assertEquals(copies.database, 4 + 6);
    assertEquals(copies.blocks.map((b: { name: string }) => b.name), ["original", "jpegqual/15", "strong"]);
    for (const { mAP } of copies.blocks.slice(0, 2)) assertEquals(mAP, 1);

    const groundTruth = join(folder, "gnd.json");
    const gnd = {
      imlist: ["200000", "201000", "202000"],
      qimlist: ["200001", "201001"],
      gnd: [{ easy: [0], hard: [2], junk: [] }, { easy: [1], hard: [], junk: [0], bbx: [0, 0, 9, 9] }],
    };
    await Deno.writeTextFile(groundTruth, JSON.stringify(gnd));
    for (const descriptor of ["cls", "rmac"]) {
      const flags = { data, groundTruth, descriptor, multiscale: true, imsize: 64 };
      const found = await evaluate(backend, folder, retrieval, flags);
      assertEquals(found.easy.AP, [1, 1]);
      assertEquals(found.hard.AP.length, 2);
    }
    await assertRejects(
      () => evaluate(backend, folder, retrieval, { data, groundTruth, cropQueries: true }),
      RangeError,
      "no boxes",
    );
    const index = join(folder, "index.safetensors"), sheet = join(folder, "sheet.png");
    const query = join(data, "strong/201001.png");
    const built = { data: join(data, "original"), words: [index, query], k: 2, duplicates: 0.1, sheet };
    const searched = await evaluate(backend, folder, search, built);
    assertEquals(searched.results[0].nearest[0].name, "201000.png");
    const same = nearDuplicates({
      k: 2,
      similarities: Float32Array.of(1, 0.9, 1, 0.9),
      indices: Int32Array.of(0, 1, 1, 0),
    }, 0.8);
    assertEquals(same.map(({ first, second }) => [first, second]), [[0, 1]]);
    assert(searched.duplicates.every(({ similarity }: { similarity: number }) => similarity >= 0.1));
    assertEquals([...(await Deno.readFile(sheet)).subarray(1, 4)], [..."PNG"].map((c) => c.charCodeAt(0)));
    const again = await evaluate(backend, folder, search, { words: [index, join(data, "strong")], k: 99 });
    assertEquals([again.results.length, again.results[0].nearest.length], [4, 4]);
    await writeToyWeights(join(folder, "toy.safetensors"), 4);
    await assertRejects(
      () => evaluate(backend, folder, search, { words: [index, query] }),
      RangeError,
      "other weights",
    );
    await Deno.remove(join(data, "strong/201001.png"));
    await assertRejects(
      () => evaluate(backend, folder, retrieval, { data, groundTruth }),
      RangeError,
      "no image called 201001",
    );
  });
}, { backends: ["wasm", "webgpu"] });

onEachBackend(
  "video segmentation and attention: masks follow, pictures appear whole or not at all",
  async (backend) => {
    await world(async (folder) => {
      const data = join(folder, "davis");
      await writeVideo(data);
      const out = join(folder, "masks");
      const result = await evaluate(backend, folder, videoSegmentation, { data, out, imsize: 64 });
      assertEquals([result.frames, result.objects], [4, 1]);
      assert(result.J > 0.5, `J ${result.J}`);
      assertEquals([...Deno.readDirSync(join(out, "square"))].length, 4);
      await assertRejects(() => evaluate(backend, folder, videoSegmentation, { data, out }), RangeError, "holds files");

      const images = join(data, "JPEGImages/480p/square"), masks = join(data, "Annotations/480p/square");
      const drawn = join(folder, "drawn");
      const flags = {
        data: images,
        out: drawn,
        imageSize: 64,
        keepAspect: true,
        masks,
        query: "0.4,0.5",
        randomBaseline: true,
      };
      const looked = await evaluate(backend, folder, attention, flags);
      assertEquals(looked.scores.length, 4);
      assert(looked.baseline.bestPerImage >= 0);
      await Deno.writeTextFile(join(folder, "film.mp4"), "not a video");
      const film = { ...flags, data: join(folder, "film.mp4"), out: join(folder, "film") };
      await assertRejects(() => evaluate(backend, folder, attention, film), RangeError, "ffmpeg");
      assert(looked.bestPerImage >= looked.bestHead && looked.bestHead >= looked.meanOverHeads);
      assertEquals([...Deno.readDirSync(join(drawn, "00001"))].length, 2 + 2 * TOY_VIT.numHeads + 1);

      const filmed = join(folder, "filmed.webp");
      const filming = { data: images, video: filmed, imageSize: 32, view: "heads", fps: 10 };
      const { video, fps, images: frames } = await evaluate(backend, folder, attention, filming);
      assertEquals([video, fps, frames], [filmed, 10, 4]);
      const sharp = await loadSharp();
      const { pages, width } = await sharp(await Deno.readFile(filmed), { pages: -1 }).metadata();
      assertEquals([pages, width], [4, 48 + 4 + 48]);
      const refuse = (changes: object, message: string) =>
        assertRejects(() => evaluate(backend, folder, attention, { ...filming, ...changes }), RangeError, message);
      await refuse({ head: 2 }, "--head 2: there are heads 0 to 1");
      await refuse({ video: null, out: join(folder, "no") }, "--fps goes with --video");
      await writePicture(join(images, "00002a.png"), picture(64, 64, () => [0, 0, 0]), 64, 64);
      await refuse({}, "00002a.png: becomes 32 × 32, the frames before 48 × 32");
      await Deno.remove(join(images, "00002a.png"));

      // A mask of another size in the middle: nothing is left, not even of the first frames.
      await writePicture(join(masks, "00002.png"), picture(5, 5, () => [0, 0, 0]), 5, 5);
      const broken = { data, out: join(folder, "broken"), imsize: 64 };
      await assertRejects(() => evaluate(backend, folder, videoSegmentation, broken), RangeError, "this mask is 5 × 5");
      assert(![...Deno.readDirSync(folder)].some(({ name }) => name.startsWith("broken")));
      await assertRejects(
        () => evaluate(backend, folder, attention, { ...flags, query: "2,2" }),
        RangeError,
        "0.5,0.3",
      );
    });
  },
  { backends: ["wasm", "webgpu"] },
);

Deno.test("evaluation commands run as processes: JSON on success, exit 2 with the reason otherwise", async () => {
  await world(async (folder) => {
    await writeClasses(folder, 2);
    const dino = async (...words: string[]) => {
      const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
        args: ["run", "-A", "--quiet", import.meta.resolve("../../cli/main.ts"), ...words],
        cwd: folder,
      }).output();
      const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
      return { code, out: text(stdout), err: text(stderr) };
    };
    const good = await dino("features", "toy.safetensors", "--data", "train", "--json", "--backend", "wasm");
    assertEquals([good.code, JSON.parse(good.out).shape], [0, [6, 128]]);
    const wrong: [string[], string][] = [
      [["video-segmentation", "toy.safetensors", "--out", "v", "--data", "train"], "ImageSets"],
      [["features", "none.safetensors"], "none.safetensors: no such run folder or file of weights"],
      [["attention", "toy.safetensors", "--data", "train", "--out", "train"], "holds files already"],
    ];
    for (const [words, message] of wrong) {
      const { code, err } = await dino(...words);
      assertEquals(code, 2, err);
      assert(err.includes(message), err);
    }
    assert(![...Deno.readDirSync(folder)].some(({ name }) => name === "v"));
  });
});
