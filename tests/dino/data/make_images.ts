// Small images and folders of them, made on the spot for tests.

import { loadSharp, type SharpPipeline } from "../../../dino/data/sharp.ts";

/** Pixels that differ everywhere and compress badly: [height, width, channels]. */
export function testPixels(height: number, width: number, channels = 3, seed = 1): Uint8Array<ArrayBuffer> {
  const pixels = new Uint8Array(height * width * channels);
  let state = seed >>> 0 || 1;
  for (let i = 0; i < pixels.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    pixels[i] = state >>> 24;
  }
  return pixels;
}

/** A smooth picture, that lossy formats keep within a few levels. */
export function smoothPixels(height: number, width: number): Uint8Array<ArrayBuffer> {
  const pixels = new Uint8Array(height * width * 3);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      pixels.set(
        [40 + 150 * x / width, 60 + 120 * y / height, 100 + 50 * (x + y) / (width + height)],
        (y * width + x) * 3,
      );
    }
  }
  return pixels;
}

/** Encodes raw pixels; `how` ends the pipeline. */
export async function encode(
  pixels: Uint8Array | Uint16Array,
  [height, width, channels]: [number, number, number],
  how: (image: SharpPipeline) => SharpPipeline,
): Promise<Uint8Array<ArrayBuffer>> {
  const sharp = await loadSharp();
  const image = sharp(pixels as Uint8Array, { raw: { width, height, channels } });
  return new Uint8Array(await how(image).toBuffer());
}

/** A PNG of its own for each seed. */
export const png = (height: number, width: number, seed = 1) =>
  encode(testPixels(height, width, 3, seed), [height, width, 3], (image) => image.png());

/** A temporary folder with files in it (folders are made), given to `use` and removed afterwards. */
export async function withFiles(
  files: Record<string, Uint8Array | string>,
  use: (folder: string) => Promise<void>,
): Promise<void> {
  const folder = await Deno.realPath(await Deno.makeTempDir({ prefix: "denodino-test-" }));
  try {
    for (const [path, content] of Object.entries(files)) {
      await Deno.mkdir(`${folder}/${path}`.replace(/[^/]*$/, ""), { recursive: true });
      const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
      await Deno.writeFile(`${folder}/${path}`, bytes);
    }
    await use(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
