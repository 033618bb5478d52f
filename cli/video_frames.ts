// Frames of a video file, through ffmpeg where it is installed.

import { join } from "node:path";

const VIDEO_NAME = /\.(mp4|m4v|mov|avi|mkv|webm|mpe?g)$/i;

/**
 * A folder with the frames: of a video file, in a new folder inside `temporary`; anything else is returned as it is.
 *
 * @throws {RangeError} if ffmpeg is not there, or cannot read the file
 */
export async function framesOf(path: string, temporary: string): Promise<string> {
  if (!VIDEO_NAME.test(path)) return path;
  const stat = await Deno.stat(path).catch(() => undefined);
  if (!stat) throw new RangeError(`${path}: no such video`);
  if (stat.isDirectory) return path;
  const folder = join(temporary, "frames");
  await Deno.mkdir(folder);
  const args = ["-nostdin", "-loglevel", "error", "-i", await Deno.realPath(path), join(folder, "%06d.png")];
  let output: Deno.CommandOutput;
  try {
    output = await new Deno.Command("ffmpeg", { args, stdin: "null" }).output();
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new RangeError(`${path}: reading a video takes ffmpeg, which is not installed: name a folder of frames`);
  }
  if (!output.success) {
    const [reason] = new TextDecoder().decode(output.stderr).trim().split("\n");
    throw new RangeError(`${path}: ffmpeg cannot read it: ${reason}`);
  }
  return folder;
}
