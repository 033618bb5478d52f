// Decoding: JPEGs of a photograph's size in decoder processes, as training decodes them.

import { loadSharp } from "../../dino/data/sharp.ts";
import { DecoderPool } from "../processes/decoder_pool.ts";
import { checkedBinary } from "../processes/launch.ts";
import type { BenchRow } from "../processes/messages.ts";
import { noise, time } from "./case.ts";

const HEIGHT = 1024, WIDTH = 1536;
/** Shorter side that a cache keeps for crops of 224. */
const SHORTER_SIDE = 448;

/** Rows for decoding at original size, and shrunk while decoding. */
export async function* decodeRows(seconds: number): AsyncGenerator<BenchRow> {
  const sharp = await loadSharp();
  // Noise on a grid of 8 pixels, smoothed by the resize: about as many bytes as a photograph.
  const raw = { width: WIDTH / 8, height: HEIGHT / 8, channels: 3 };
  const coarse = Uint8Array.from(noise(raw.width * raw.height * 3), (value) => 128 + 100 * value);
  const jpeg = new Uint8Array(
    await sharp(coarse, { raw }).resize({ width: WIDTH, height: HEIGHT, fit: "fill" }).jpeg({ quality: 95 }).toBuffer(),
  );
  const pool = new DecoderPool({ executable: checkedBinary() });
  try {
    for (const shorterSide of [undefined, SHORTER_SIDE]) {
      const images = 4 * pool.parallel;
      const run = async () => {
        await Promise.all(Array.from({ length: images }, () => pool.decode(jpeg.slice(), { shorterSide })));
      };
      const { median, p10, p90 } = await time({ run }, seconds);
      const each = (milliseconds: number) => Number((milliseconds / images).toPrecision(4));
      yield {
        name: "decode",
        shape: `JPEG ${HEIGHT}×${WIDTH}, ${(jpeg.length / 1e6).toFixed(2)} MB` +
          (shorterSide ? ` to a shorter side of ${shorterSide}` : "") + `, ${pool.parallel} processes`,
        backend: "sharp",
        mode: "checked",
        threads: pool.parallel,
        median_ms: each(median),
        p10_ms: each(p10),
        p90_ms: each(p90),
        images_per_second: Number((1000 * images / median).toPrecision(4)),
      };
    }
  } finally {
    await pool.close();
  }
}
