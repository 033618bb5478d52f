import { join } from "node:path";
import { assert, assertEquals } from "../assert.ts";
import { withFiles } from "../dino/data/make_images.ts";
import { picture, writeClasses, writeCopies, writePicture, writeToyWeights, writeVideo } from "./evaluation_world.ts";

/** Commands that run at once: each starts processes of its own. */
const TOGETHER = 2;

Deno.test("evaluation commands: every mistake names its file or flag, ends with 2, and leaves nothing behind; one picture less may do no harm", async () => {
  await withFiles({}, async (folder) => {
    const at = (path: string) => join(folder, path);
    await writeToyWeights(at("toy.safetensors"));
    await writeToyWeights(at("other.safetensors"), 9);
    await writeClasses(folder, 2);
    await writePicture(at("foreign/z/0.png"), picture(20, 20, () => [9, 9, 9]), 20, 20);
    await writePicture(at("foreign/a/0.png"), picture(20, 20, () => [9, 9, 9]), 20, 20);
    await writeCopies(at("copies"));
    await writeVideo(at("davis"));
    await writeVideo(at("torn"));
    const frames = "JPEGImages/480p/square", masks = "davis/Annotations/480p/square";
    await Deno.writeFile(
      at(`torn/${frames}/00002.png`),
      (await Deno.readFile(at(`torn/${frames}/00002.png`))).slice(0, 300),
    );
    await writePicture(at("small/00000.png"), picture(5, 5, () => [9, 0, 0]), 5, 5);
    for (const i of [1, 2, 3]) await Deno.copyFile(at(`${masks}/0000${i}.png`), at(`small/0000${i}.png`));
    await Deno.writeTextFile(at("truth.json"), `{"imlist": ["200000"], "qimlist": ["201000"], "gnd": [{"easy": [4]}]}`);
    await Deno.writeTextFile(at("film.mp4"), "no film");
    await writePicture(at("a, b.png"), picture(20, 20, () => [9, 9, 9]), 20, 20);
    await Deno.writeTextFile(at("torn.png"), "");

    const run = async (words: string[]) => {
      const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
        args: [
          "run",
          "-A",
          "--quiet",
          import.meta.resolve("../../cli/main.ts"),
          ...words,
          "--backend",
          "wasm",
          "--json",
        ],
        cwd: folder,
      }).output();
      return { code, out: new TextDecoder().decode(stdout), err: new TextDecoder().decode(stderr) };
    };
    const built = await run(["search", "copies.index", "--data", "copies/original", "--weights", "toy.safetensors"]);
    assertEquals(built.code, 0, built.err);
    const before = [...Deno.readDirSync(folder)].map(({ name }) => name).sort();

    const toy = "toy.safetensors", labelled = [toy, "--data", "train", "--val", "foreign"];
    const mistakes: [words: string[], message: string][] = [
      // Classes that only one half has.
      [["knn", ...labelled], "foreign: z/0.png is of a class that train has no images of"],
      [["few_shot", ...labelled], "foreign: z/0.png"],
      [["linear", ...labelled, "--out", "probe.safetensors"], "foreign: z/0.png"],
      [["finetune", ...labelled, "--out", "tuned.safetensors"], "foreign: z/0.png"],
      // Masks of another size.
      [
        ["attention", toy, "--data", `davis/${frames}`, "--masks", "small", "--image-size", "64", "--out", "looks"],
        "00000.png: this mask is 5 × 5, its image 96 × 64",
      ],
      [
        ["video_segmentation", toy, "--frames", `davis/${frames}`, "--mask", "small/00000.png", "--out", "cut"],
        "small/00000.png: this mask is 5 × 5, its frame 96 × 64",
      ],
      // Frames and images that cannot be read.
      [["video_segmentation", toy, "--data", "torn", "--out", "cut"], `${frames}/00002.png cannot be read`],
      [
        ["attention", toy, "--data", `torn/${frames}`, "--masks", masks, "--image-size", "64"],
        "00002.png cannot be read",
      ],
      [["attention", toy, "--data", `torn/${frames}`, "--video", "f.webp"], `torn/${frames}/00002.png cannot be read`],
      [["attention", toy, "--data", "a, b.png", "--video", "copies"], "--video copies: no film has such a name"],
      [
        ["attention", toy, "--data", "a, b.png", "--image-size", "8", "--masks", "small", "--out", "deep/looks"],
        "small",
      ],
      [["video_segmentation", toy, "--frames", "film.mp4", "--mask", "small/00000.png", "--out", "cut"], "film.mp4: "],
      // An index of another model, or none at all; a ground truth of other images.
      [
        ["search", "copies.index", "copies/strong/200001.png", "--weights", "other.safetensors"],
        "copies.index: was built with other weights",
      ],
      [["search", "truth.json", "copies/strong/200001.png"], "truth.json: "],
      [["search", "copies.index", "none.png", "--sheet", "sheet.png"], "none.png: no such image"],
      [["search", "copies.index", "none.png", "a, b.png"], "search: none.png cannot be read: no such file"],
      [["search", "copies.index", "small", "--sheet", "small"], "--sheet small: name a .png file"],
      [["search", "copies.index", "torn.png"], "(torn.png: empty file)"],
      [["search", "small", "--data", "copies", "--weights", "toy.safetensors"], "small: is a folder: name a file"],
      [["search", "none/x", "--data", "copies", "--weights", "toy.safetensors"], "none/x: there is no folder none"],
      [["retrieval", toy, "--data", "copies", "--ground-truth", "truth.json"], "truth.json: no ground truth: query 0"],
      [["copy_detection", toy, "--data", "train"], "train: has no folder original/"],
      // What the reference's scripts take.
      [["linear", toy, "--avgpool_patchtokens", "true"], "--avgpool-patchtokens: say how: --patch-average interleaved"],
      [["knn", toy, "--dump_features", "d"], "--dump-features: features are written by: dino features"],
      // Results that could not be written.
      [["features", toy, "--data", "train", "--out", "none/f.npy"], "--out none/f.npy: there is no folder none"],
      [["map", toy, "--data", "train", "--out", "none/map.html"], "--out none/map.html: there is no folder none"],
      [["throughput", "--plot", "none/plot.svg"], "--plot none/plot.svg: there is no folder none"],
    ];
    const check = async ([words, message]: typeof mistakes[number]) => {
      const { code, out, err } = await run(words);
      assertEquals(code, 2, `${words.join(" ")}: ${err}`);
      assert(err.includes(message), `${words.join(" ")}: ${err}`);
      assertEquals(out, "");
    };
    const left = mistakes.values();
    await Promise.all(Array.from({ length: TOGETHER }, async () => {
      for (const mistake of left) await check(mistake);
    }));
    assertEquals([...Deno.readDirSync(folder)].map(({ name }) => name).sort(), before);

    // Where one picture less does no harm, it is named and counted, and the others are done.
    const data = ["--data", `torn/${frames}`];
    await Promise.all([
      ["attention", toy, ...data, "--image-size", "32", "--mean-only", "--out", "looks"],
      ["search", "torn.index", ...data, "--weights", toy],
    ].map(async (words) => {
      const { code, out, err } = await run(words);
      assertEquals(code, 0, err);
      const { images, skipped } = JSON.parse(out);
      assertEquals([images, skipped], [3, 1], out);
      assert(err.includes("skipped 00002.png: "), err);
    }));
    assertEquals([...Deno.readDirSync(at("looks"))].length, 3);
  });
});
