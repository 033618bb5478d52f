import { basename, join } from "node:path";
import { animateWebp } from "../../../cli/video/animated_webp.ts";
import { frameName, refuseUnwritableFilm, writeFilm } from "../../../cli/video/film.ts";
import { encodePng } from "../../../cli/report/png.ts";
import { framesOf, imagesIn, rateOf } from "../../../cli/video/video_frames.ts";
import { loadSharp } from "../../../dino/data/sharp.ts";
import { assert, assertAlmostEquals, assertEquals, assertRejects, assertThrows } from "../../assert.ts";
import { withFiles } from "../../dino/data/make_images.ts";

const hasFfmpeg = await new Deno.Command("ffmpeg", { args: ["-version"] }).output().then(
  ({ success }) => success,
  () => false,
);
if (!hasFfmpeg) console.log("film: real ffmpeg skipped: it is not installed");

/** Frames of one colour each, wide and of odd sides. */
async function writeFrames(folder: string, colours: readonly [number, number, number][]): Promise<void> {
  await Deno.mkdir(folder);
  for (const [i, colour] of colours.entries()) {
    const pixels = new Uint8Array(33 * 51 * 3).map((_, at) => colour[at % 3]);
    await Deno.writeFile(join(folder, frameName(i)), encodePng(pixels, 33, 51));
  }
}

const COLOURS: [number, number, number][] = [[200, 40, 40], [40, 200, 40], [40, 40, 200]];

const options = (rate: number, signal = new AbortController().signal) => {
  const told: number[] = [];
  return { rate, signal, told, progress: (done: number) => void told.push(done) };
};

const names = (folder: string) => [...Deno.readDirSync(folder)].map(({ name }) => name).sort();

Deno.test("film: an animated WebP holds every frame as it was, for its share of the time", async () => {
  await withFiles({}, async (folder) => {
    const frames = join(folder, "frames"), path = join(folder, "film.webp");
    await writeFrames(frames, COLOURS);
    const how = options(30);
    await writeFilm(path, frames, 3, how);
    assertEquals(how.told, [1, 2, 3]);
    const sharp = await loadSharp();
    const bytes = await Deno.readFile(path);
    const whole = await sharp(bytes, { pages: -1 }).metadata() as unknown as Record<string, unknown>;
    assertEquals([whole.pages, whole.width, whole.pageHeight, whole.loop], [3, 51, 33, 0]);
    assertEquals(whole.delay, [33, 34, 33]); // 100 ms in all
    for (const [page, colour] of COLOURS.entries()) {
      const { data } = await sharp(bytes, { page }).removeAlpha().raw().toBuffer({ resolveWithObject: true });
      for (let c = 0; c < 3; c++) assertAlmostEquals(data[3 * 700 + c], colour[c], 6); // lossy: a few levels
    }
    const stopped = new AbortController();
    stopped.abort();
    await assertRejects(() => writeFilm(join(folder, "no.webp"), frames, 3, options(30, stopped.signal)), DOMException);
    assertEquals(names(folder), ["film.webp", "frames"]);
  });
  assertThrows(() => animateWebp([], 1, 1), RangeError, "no frames");
  assertThrows(() => animateWebp([{ still: new Uint8Array(30), duration: 1 }], 1, 1), SyntaxError, "frame 0");
});

Deno.test("film: names that no film can have, missing folders and folders are refused", async () => {
  await withFiles({ "x.webp/frame.png": "x" }, async (folder) => {
    const refuse = (name: string, message: string) =>
      assertRejects(() => refuseUnwritableFilm("--video", join(folder, name)), RangeError, message);
    await refuse("film.doc", "end it in .webp, .mp4");
    await refuse("film", "end it in .webp, .mp4");
    await refuse("none/film.webp", "there is no folder");
    await refuse("x.webp", "is a folder: name a file");
    await refuseUnwritableFilm("--video", join(folder, "film.webp"));
    for (const name of ["f10.png", "f9.png", "f1.png"]) await Deno.writeTextFile(join(folder, name), "");
    assertEquals((await imagesIn(folder)).map((path) => basename(path)), ["f1.png", "f9.png", "f10.png"]);
  });
});

/** Writes half a film, then complains, hangs or is killed, by the name of the film. */
const FFMPEG = `#!/bin/sh
for last in "$@"; do :; done
[ "$last" = -version ] && exit 0
echo half > "$last"
echo frame=1
case "$FAKE_FFMPEG" in
  full) echo "av_interleaved_write_frame(): No space left on device" >&2; exit 1;;
  killed) kill -9 $$;;
  slow) exec sleep 60;;
esac
`;

Deno.test({
  name: "film: nothing is left where ffmpeg fails, is killed or is stopped, and the file is named",
  ignore: Deno.build.os === "windows", // the stand-in is a shell script
  fn: () =>
    withFiles({ "frames/000001.png": "x", "film.mp4": "the one before" }, async (folder) => {
      await Deno.mkdir(join(folder, "bin"));
      await Deno.writeTextFile(join(folder, "bin/ffmpeg"), FFMPEG, { mode: 0o755 });
      const [film, frames] = [join(folder, "film.mp4"), join(folder, "frames")];
      const path = Deno.env.get("PATH") ?? "";
      const kept = async () => {
        assertEquals(names(folder), ["bin", "film.mp4", "frames"]);
        assertEquals(await Deno.readTextFile(film), "the one before");
      };
      try {
        Deno.env.set("PATH", `${folder}/bin:${path}`);
        for (const [way, message] of [["full", "No space left"], ["killed", "SIGKILL"]]) {
          Deno.env.set("FAKE_FFMPEG", way);
          await assertRejects(
            () => writeFilm(film, frames, 1, options(25)),
            RangeError,
            `film.mp4: ffmpeg cannot write it`,
          );
          await assertRejects(() => writeFilm(film, frames, 1, options(25)), RangeError, message);
          await kept();
        }
        Deno.env.set("FAKE_FFMPEG", "slow");
        const stop = new AbortController();
        const how = { ...options(25, stop.signal), progress: () => stop.abort() };
        await assertRejects(() => writeFilm(film, frames, 1, how), DOMException);
        await kept();
        Deno.env.delete("FAKE_FFMPEG");
        await writeFilm(film, frames, 1, options(25));
        assertEquals((await Deno.readTextFile(film)).trim(), "half");
        Deno.env.set("PATH", frames); // a place without ffmpeg
        await assertRejects(() => refuseUnwritableFilm("--video", film), RangeError, "name a .webp");
        await refuseUnwritableFilm("--video", join(folder, "film.webp"));
      } finally {
        Deno.env.set("PATH", path);
        Deno.env.delete("FAKE_FFMPEG");
      }
    }),
});

Deno.test({
  name: `film: what ffmpeg writes it reads back, frames and rate${hasFfmpeg ? "" : " (skipped: no ffmpeg)"}`,
  ignore: !hasFfmpeg,
  fn: () =>
    withFiles({}, async (folder) => {
      const frames = join(folder, "frames");
      await writeFrames(frames, COLOURS);
      const sharp = await loadSharp();
      for (const name of ["film.mp4", "film.webm", "film.avi"]) {
        const path = join(folder, name);
        const how = options(12.5);
        await writeFilm(path, frames, 3, how);
        assertEquals(how.told.at(-1), 3);
        assertEquals(await rateOf(path), 12.5);
        const temporary = join(folder, `${name}.frames`);
        await Deno.mkdir(temporary);
        const found = await imagesIn(await framesOf(path, temporary));
        assertEquals(found.length, 3);
        for (const [i, file] of found.entries()) {
          const { data, info } = await sharp(await Deno.readFile(file)).raw().toBuffer({ resolveWithObject: true });
          assertEquals([info.height, info.width], [34, 52]); // made even
          for (let c = 0; c < 3; c++) assertAlmostEquals(data[3 * 700 + c], COLOURS[i][c], 12); // limited-range video
        }
      }
      assert(!names(folder).some((name) => name.startsWith(".denodino")));
    }),
});
