// Attention and video segmentation on semi-synthetic photographs: cut-outs over photographs, so that the truth is exact.
//
//   deno run -A tests/evaluations/photographs.ts STAMPS GROUNDS OUT [PICTURES]
//
// STAMPS: Debian's tuxpaint-stamps-default, unpacked (dpkg-deb -x). GROUNDS: a folder of large photographs, such as
// usr/share/backgrounds/mate/nature of Debian's mate-backgrounds. A ViT learns from 2400 composites without labels or masks;
// things and grounds of the tests are others than those of the training.

import { join } from "node:path";
import { cutOuts, heldOut, photographs, readPhoto, writeStills, writeVideos } from "./compositions.ts";
import { dino, type Printed, trainOnce, writeUntrained } from "./dino.ts";
import { attentionPicture, videoPicture } from "./pictures.ts";

/** One core's worth of an hour: small crops and patches, many small updates. */
const TRAINING = [
  ..."--patch-size 8 --embed-dim 96 --depth 4 --num-heads 6 --init-std 0.1 --drop-path-rate 0".split(" "),
  ..."--out-dim 1024 --head-hidden-dim 256 --head-bottleneck-dim 64 --use-bn-in-head --freeze-last-layer 0".split(" "),
  ..."--epochs 12 --batch-size 16 --warmup-epochs 1 --lr 0.016 --weight-decay-end 0.04".split(" "),
  ..."--momentum-teacher 0.99 --global-crop-size 80 --local-crop-size 32".split(" "),
  ..."--local-crops-number 4 --local-crops-scale 0.05 0.3 --saveckp-freq 4".split(" "),
];

const IMAGE_SIZE = "192";

if (import.meta.main) {
  const [stamps, grounds, out, pictures] = Deno.args;
  if (out === undefined) throw new RangeError("wants STAMPS GROUNDS OUT: see the head of this file");
  const at = (...parts: string[]) => join(out, ...parts);
  if (!await Deno.stat(at("davis")).then(() => true, () => false)) {
    const things = heldOut(await cutOuts(stamps)), files = heldOut(await photographs(grounds, 800));
    const read = (list: readonly string[]) => Promise.all(list.map((file) => readPhoto(file, 600)));
    const [train, test] = [await read(files.train), await read(files.test)];
    await writeStills(at("train"), { things: things.train, grounds: train, count: 2400, side: 160, seed: 1 });
    await writeStills(at("test"), { things: things.test, grounds: test, count: 60, side: 192, seed: 2 });
    const film = { count: 8, frames: 24, height: 192, width: 320, seed: 3 };
    await writeVideos(at("davis"), { things: things.test, grounds: test, ...film });
  }
  const run = await trainOnce(at("run"), "--data", at("train", "images"), ...TRAINING);
  const untrained = await writeUntrained(run, at("untrained.safetensors"));

  const seen: Printed = await dino(
    ...["attention", run, "--data", at("test", "images"), "--masks", at("test", "masks"), "--image-size", IMAGE_SIZE],
    "--random-baseline",
  );
  const jaccard = (from: Printed) => ({
    "best head of each image": from.bestPerImage,
    "best single head": from.bestHead,
    "mean over heads": from.meanOverHeads,
  });
  console.table({ trained: jaccard(seen), untrained: jaccard(seen.baseline) });

  const films: Record<string, Printed> = {};
  for (const [name, weights] of [["trained", run], ["untrained", untrained]] as const) {
    const masks = at(`masks_${name}`);
    await Deno.remove(masks, { recursive: true }).catch(() => {});
    const measured = await dino(
      "video_segmentation",
      weights,
      "--data",
      at("davis"),
      "--imsize",
      "192",
      "--out",
      masks,
    );
    films[name] = { "J&F": measured["J&F"], J: measured.J, F: measured.F };
  }
  console.table(films);
  await Deno.writeTextFile(at("scores.json"), JSON.stringify({ attention: seen, films }, null, 2));

  if (pictures !== undefined) {
    await Deno.mkdir(pictures, { recursive: true });
    const looks = at("looks");
    await Deno.remove(looks, { recursive: true }).catch(() => {});
    // Twice the size is twice as many patches each way: finer maps of the same network.
    await dino("attention", run, "--data", at("test", "images"), "--image-size", "384", "--out", looks);
    await attentionPicture(looks, seen.scores, join(pictures, "attention.webp"));
    await videoPicture(at("davis"), at("masks_trained"), join(pictures, "video.webp"));
    const folder = at("davis", "JPEGImages", "480p");
    const [first] = [...Deno.readDirSync(folder)].map(({ name }) => name).sort();
    const film = ["--data", join(folder, first), "--video", join(pictures, "film.webp")];
    await dino("attention", run, ...film, "--image-size", IMAGE_SIZE, "--fps", "12");
  }
}
