// Frames of a video: of a file through ffmpeg where it is installed, of a folder in the order of the numbers in its names.

import { join } from "node:path";
import { isImageName } from "../../dino/data/decode.ts";

const VIDEO_NAME = /\.(mp4|m4v|mov|avi|mkv|webm|mpe?g)$/i;

/**
 * A folder with the frames: of a video file, in a new folder inside `temporary`; anything else is returned as it is.
 *
 * @throws {RangeError} if ffmpeg is not there, or cannot read the file
 */
export async function framesOf(path: string, temporary: string, signal?: AbortSignal): Promise<string> {
  if (!await isVideo(path)) return path;
  const folder = join(temporary, "frames");
  await Deno.mkdir(folder);
  const args = ["-nostdin", "-loglevel", "error", "-i", await Deno.realPath(path), join(folder, "%06d.png")];
  let output: Deno.CommandOutput;
  try {
    output = await new Deno.Command("ffmpeg", { args, stdin: "null", signal }).output();
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

/** Frames a second of a video file; undefined for anything else, and where ffprobe cannot tell. */
export async function rateOf(path: string): Promise<number | undefined> {
  if (!await isVideo(path)) return;
  const args = "-v error -select_streams v:0 -show_entries stream=r_frame_rate -of csv=p=0".split(" ");
  try {
    const { stdout } = await new Deno.Command("ffprobe", { args: [...args, path], stdin: "null" }).output();
    const [, whole, part] = /^(\d+)\/(\d+)/.exec(new TextDecoder().decode(stdout)) ?? [];
    const rate = Number(whole) / Number(part);
    return rate > 0 && rate < Infinity ? rate : undefined;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return;
    throw error;
  }
}

/**
 * The images of a folder; frame2.png stands before frame10.png.
 *
 * @throws {RangeError} if there is no such folder, or no image in it
 */
export async function imagesIn(folder: string): Promise<string[]> {
  const names: string[] = [];
  try {
    for await (const { name, isDirectory } of Deno.readDir(folder)) {
      if (!isDirectory && isImageName(name)) names.push(name);
    }
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) throw new RangeError(`${folder}: no such folder`);
    if (error instanceof Deno.errors.NotADirectory) {
      throw new RangeError(`${folder}: is a file: name a folder of images`);
    }
    throw error;
  }
  if (names.length === 0) throw new RangeError(`${folder}: holds no images`);
  const byNumber = new Intl.Collator("en", { numeric: true });
  return names.sort((a, b) => byNumber.compare(a, b) || (a < b ? -1 : 1)).map((name) => join(folder, name));
}

async function isVideo(path: string): Promise<boolean> {
  if (!VIDEO_NAME.test(path)) return false;
  const stat = await Deno.stat(path).catch(() => undefined);
  if (!stat) throw new RangeError(`${path}: no such video`);
  return !stat.isDirectory;
}
