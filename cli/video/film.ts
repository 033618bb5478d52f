// Writes frames as a film: an animated WebP, which takes no other program, or whatever ffmpeg makes of them.

import { dirname, join } from "node:path";
import { loadSharp } from "../../dino/data/sharp.ts";
import { writeFileAtomically } from "../../models/weights/atomic_file.ts";
import { animateWebp, WEBP_MOST_PIXELS, type WebpFrame } from "./animated_webp.ts";
import { refuseUnwritableFile } from "../evaluation/output_folder.ts";

/** Encoders by file name, with what makes them good enough for hard edges; the colours are what every player knows. */
const FFMPEG_QUALITY: Readonly<Record<string, readonly string[]>> = {
  mp4: ["-crf", "18", "-movflags", "+faststart"],
  m4v: ["-crf", "18", "-movflags", "+faststart"],
  mov: ["-crf", "18"],
  mkv: ["-crf", "18"],
  webm: ["-crf", "28", "-b:v", "0"],
  avi: ["-q:v", "3"],
};

/** WebP loses little at this one. */
const WEBP_QUALITY = 85;

const extensionOf = (path: string) => /\.(\w+)$/.exec(path)?.[1].toLowerCase() ?? "";

/**
 * Refuses a film that could not be written, before anything is computed for it.
 *
 * @throws {RangeError} naming file and flag: an unknown kind, a missing folder, no ffmpeg where it takes one
 */
export async function refuseUnwritableFilm(flag: string, path: string): Promise<void> {
  const extension = extensionOf(path);
  if (extension !== "webp" && !Object.hasOwn(FFMPEG_QUALITY, extension)) {
    const known = ["webp", ...Object.keys(FFMPEG_QUALITY)].map((name) => `.${name}`).join(", ");
    throw new RangeError(`${flag} ${path}: no film has such a name: end it in ${known}`);
  }
  await refuseUnwritableFile(`${flag} ${path}`, path);
  if (extension === "webp") return;
  try {
    await new Deno.Command("ffmpeg", { args: ["-version"], stdin: "null" }).output();
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new RangeError(
      `${flag} ${path}: writing a .${extension} takes ffmpeg, which is not installed: name a .webp, which takes nothing`,
    );
  }
}

/** How a film is written. */
export interface FilmOptions {
  /** Frames a second. */
  readonly rate: number;
  /** Ends it; nothing is left behind. */
  readonly signal: AbortSignal;
  /** Told how many frames are done. */
  readonly progress: (done: number, total: number) => void;
}

/**
 * Writes a film of the frames 000001.png, 000002.png … in a folder. It appears whole or not at all.
 *
 * @param count how many frames there are
 * @throws {RangeError} with ffmpeg's complaint
 */
export async function writeFilm(path: string, folder: string, count: number, options: FilmOptions): Promise<void> {
  if (extensionOf(path) === "webp") await writeWebpFilm(path, folder, count, options);
  else await writeWithFfmpeg(path, folder, count, options);
}

/** Name of frame `i`, counting from 0. */
export const frameName = (i: number): string => `${String(i + 1).padStart(6, "0")}.png`;

async function writeWebpFilm(
  path: string,
  folder: string,
  count: number,
  { rate, signal, progress }: FilmOptions,
): Promise<void> {
  const sharp = await loadSharp();
  const frames: WebpFrame[] = [];
  let [height, width] = [0, 0];
  for (let i = 0; i < count; i++) {
    signal.throwIfAborted();
    const frame = sharp(await Deno.readFile(join(folder, frameName(i))));
    if (i === 0) ({ height, width } = await frame.metadata());
    if (Math.max(height, width) > WEBP_MOST_PIXELS) {
      throw new RangeError(`${path}: frames of ${width} × ${height}: a WebP holds ${WEBP_MOST_PIXELS} each way`);
    }
    const still = await frame.webp({ quality: WEBP_QUALITY, smartSubsample: true }).toBuffer();
    // Whole milliseconds: rounding the moments, not the durations, keeps the length of the film.
    const moment = (frame: number) => Math.round(1000 * frame / rate);
    frames.push({ still, duration: moment(i + 1) - moment(i) });
    progress(i + 1, count);
  }
  await writeFileAtomically(path, async (write) => {
    for (const part of animateWebp(frames, height, width)) await write(part);
  });
}

async function writeWithFfmpeg(
  path: string,
  folder: string,
  count: number,
  { rate, signal, progress }: FilmOptions,
): Promise<void> {
  const extension = extensionOf(path);
  const real = join(await Deno.realPath(dirname(path)), `.denodino-${crypto.randomUUID()}.${extension}`);
  const args = [
    ...["-nostdin", "-loglevel", "error", "-y", "-framerate", String(rate), "-i", join(folder, "%06d.png")],
    // Half of the colours is kept in each direction, which takes even sides.
    ...["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p", ...FFMPEG_QUALITY[extension]],
    ...["-progress", "pipe:1", real],
  ];
  try {
    const child = new Deno.Command("ffmpeg", { args, stdin: "null", stdout: "piped", stderr: "piped", signal }).spawn();
    const complaint = new Response(child.stderr).text();
    let said = "";
    for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
      said = (said + text).slice(-1000);
      const frames = [...said.matchAll(/^frame=\s*(\d+)$/gm)].at(-1);
      if (frames) progress(Math.min(count, Number(frames[1])), count);
    }
    const { success, code, signal: ended } = await child.status;
    signal.throwIfAborted();
    if (!success) {
      const [reason] = (await complaint).trim().split("\n");
      throw new RangeError(`${path}: ffmpeg cannot write it: ${reason || (ended ?? `status ${code}`)}`);
    }
    await complaint;
    await Deno.rename(real, path);
    progress(count, count);
  } catch (error) {
    await Deno.remove(real).catch(() => {});
    throw error;
  }
}
