import { join } from "node:path";
import { framesOf } from "../../../cli/video/video_frames.ts";
import { assertEquals, assertRejects } from "../../assert.ts";
import { withFiles } from "../../dino/data/make_images.ts";

/** Stands in for ffmpeg: writes two frames where it is told to, or complains as ffmpeg does. */
const FFMPEG = `#!/bin/sh
for last in "$@"; do :; done
case "$5" in
  *broken*) echo "broken.mp4: Invalid data found when processing input" >&2; exit 1;;
esac
folder=$(dirname "$last")
echo one > "$folder/000001.png"
echo two > "$folder/000002.png"
`;

Deno.test({
  name: "frames of a video: a folder stays, a file goes through ffmpeg, its complaint names the file",
  ignore: Deno.build.os === "windows", // the stand-in is a shell script
  fn: () =>
    withFiles({ "film.mp4": "film", "broken.mp4": "film", "frames/0.png": "frame" }, async (folder) => {
      await Deno.writeTextFile(join(folder, "ffmpeg"), FFMPEG, { mode: 0o755 });
      const path = Deno.env.get("PATH") ?? "";
      const temporary = async () => await Deno.makeTempDir({ dir: folder });
      assertEquals(await framesOf(join(folder, "frames"), await temporary()), join(folder, "frames"));
      try {
        Deno.env.set("PATH", `${folder}:${path}`);
        const found = await framesOf(join(folder, "film.mp4"), await temporary());
        assertEquals([...Deno.readDirSync(found)].map(({ name }) => name).sort(), ["000001.png", "000002.png"]);
        await assertRejects(
          async () => await framesOf(join(folder, "broken.mp4"), await temporary()),
          RangeError,
          "broken.mp4: ffmpeg cannot read it: broken.mp4: Invalid data",
        );
        Deno.env.set("PATH", join(folder, "frames")); // a place without ffmpeg
        await assertRejects(
          async () => await framesOf(join(folder, "film.mp4"), await temporary()),
          RangeError,
          "film.mp4: reading a video takes ffmpeg",
        );
      } finally {
        Deno.env.set("PATH", path);
      }
      await assertRejects(
        async () => await framesOf(join(folder, "none.mp4"), await temporary()),
        RangeError,
        "none.mp4: no such video",
      );
    }),
});
