// Decoding: every format, orientation, depth and channel count to 8-bit RGB, and what is refused.

import { createDecoder, DecodeError, decodeImage, isImageName, measureImage } from "../../../dino/data/decode.ts";
import { isWasmSharp, loadSharp } from "../../../dino/data/sharp.ts";
import { assert, assertEquals, assertRejects } from "../../assert.ts";
import { encode, smoothPixels, testPixels } from "./make_images.ts";

const H = 5, W = 7;

async function decoded(bytes: Uint8Array<ArrayBuffer>, options = {}) {
  const image = await decodeImage(await loadSharp(), bytes, options);
  assertEquals(image.pixels.length, image.height * image.width * 3);
  return image;
}

function worst(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let worst = 0;
  for (let i = 0; i < a.length; i++) worst = Math.max(worst, Math.abs(a[i] - b[i]));
  return worst;
}

Deno.test("decode keeps lossless formats to the bit", async () => {
  const pixels = testPixels(H, W);
  for (
    const bytes of [
      await encode(pixels, [H, W, 3], (image) => image.png()),
      await encode(pixels, [H, W, 3], (image) => image.webp({ lossless: true })),
      await encode(pixels, [H, W, 3], (image) => image.tiff({ compression: "lzw" })),
    ]
  ) {
    assertEquals(await decoded(bytes), { pixels, height: H, width: W });
  }
});

Deno.test("decode reads JPEG and GIF within their losses", async () => {
  const pixels = smoothPixels(24, 32);
  const jpeg = await decoded(await encode(pixels, [24, 32, 3], (image) => image.jpeg({ quality: 95 })));
  assert(worst(jpeg.pixels, pixels) <= 8, "JPEG of quality 95: subsampled colour of a smooth ramp");
  const flat = new Uint8Array(12 * 9 * 3).fill(200); // one colour survives a palette
  assertEquals((await decoded(await encode(flat, [12, 9, 3], (image) => image.gif()))).pixels, flat);
});

Deno.test("decode turns pictures upright by EXIF, unless told not to", async () => {
  const pixels = testPixels(H, W);
  const at = (y: number, x: number) => [...pixels.subarray((y * W + x) * 3, (y * W + x) * 3 + 3)];
  // Orientation 6: the stored picture is turned a quarter clockwise to be seen.
  const bytes = await encode(pixels, [H, W, 3], (image) => image.withMetadata({ orientation: 6 }).png());
  const turned = await decoded(bytes);
  assertEquals([turned.height, turned.width], [W, H]);
  assertEquals([...turned.pixels.subarray(0, 3)], at(H - 1, 0));
  assertEquals([...turned.pixels.subarray(-3)], at(0, W - 1));
  assertEquals(await measureImage(await loadSharp(), bytes), { height: W, width: H });
  assertEquals(await decoded(bytes, { exif: false }), { pixels, height: H, width: W });
  assertEquals(await measureImage(await loadSharp(), bytes, { exif: false }), { height: H, width: W });
});

Deno.test("decode repeats grey, drops alpha without blending, cuts 16 bits to the upper 8", async () => {
  const grey = testPixels(H, W, 1);
  const repeated = Uint8Array.from({ length: H * W * 3 }, (_, i) => grey[Math.floor(i / 3)]);
  const greyPng = await encode(grey, [H, W, 1], (image) => image.toColourspace("b-w").png());
  assertEquals((await decoded(greyPng)).pixels, repeated);

  const rgba = testPixels(H, W, 4);
  for (let i = 3; i < rgba.length; i += 8) rgba[i] = 0; // every other pixel fully transparent
  const rgb = Uint8Array.from({ length: H * W * 3 }, (_, i) => rgba[Math.floor(i / 3) * 4 + i % 3]);
  assertEquals((await decoded(await encode(rgba, [H, W, 4], (image) => image.png()))).pixels, rgb);

  const deep = Uint16Array.from({ length: H * W * 3 }, (_, i) => (i * 1201 + 7) & 0xffff);
  const deepPng = await encode(deep, [H, W, 3], (image) => image.toColourspace("rgb16").png());
  assertEquals((await decoded(deepPng)).pixels, Uint8Array.from(deep, (value) => value >> 8));

  const deepGrey = deep.slice(0, H * W);
  const deepGreyPng = await encode(deepGrey, [H, W, 1], (image) => image.toColourspace("grey16").png());
  assertEquals(
    (await decoded(deepGreyPng)).pixels,
    Uint8Array.from({ length: H * W * 3 }, (_, i) => deepGrey[Math.floor(i / 3)] >> 8),
  );
});

Deno.test("decode converts CMYK to RGB", async () => {
  const red = new Uint8Array(16 * 16 * 3).map((_, i) => i % 3 === 0 ? 220 : 30);
  const bytes = await encode(red, [16, 16, 3], (image) => image.toColourspace("cmyk").jpeg({ quality: 100 }));
  const [r, g, b] = (await decoded(bytes)).pixels;
  assert(r > 150 && g < 110 && b < 110, `a red stays red through print colours: ${[r, g, b]}`);
});

Deno.test("decode shrinks the shorter side and never enlarges", async () => {
  const bytes = await encode(smoothPixels(90, 150), [90, 150, 3], (image) => image.png());
  const small = await decoded(bytes, { shorterSide: 30 });
  assertEquals([small.height, small.width], [30, 50]);
  // A smooth ramp shrinks to a smooth ramp: 3 levels are its slope over half a small pixel, and rounding.
  assert(worst(small.pixels.subarray(30, 60), smoothPixels(30, 50).subarray(30, 60)) <= 3);
  assertEquals((await decoded(bytes, { shorterSide: 91 })).height, 90);

  // Colours under full transparency count like any others, also when shrinking.
  const rgba = new Uint8Array(40 * 40 * 4).fill(180).map((value, i) => i % 4 === 3 ? 0 : value);
  const hidden = await decoded(await encode(rgba, [40, 40, 4], (image) => image.png()), { shorterSide: 10 });
  assertEquals(hidden.pixels, new Uint8Array(10 * 10 * 3).fill(180));
});

Deno.test("decode refuses what is not a readable image, and says why", async () => {
  const sharp = await loadSharp();
  const refuse = async (bytes: Uint8Array<ArrayBuffer>, reason: string, options = {}) => {
    await assertRejects(() => decodeImage(sharp, bytes, options), DecodeError, reason);
  };
  await refuse(new Uint8Array(0), "empty file");
  await refuse(new TextEncoder().encode("<svg xmlns='http://www.w3.org/2000/svg'/>"), "not a JPEG, PNG");
  await refuse(new TextEncoder().encode("BM a bitmap"), "not a JPEG, PNG");
  const jpeg = await encode(testPixels(64, 64), [64, 64, 3], (image) => image.jpeg());
  await refuse(jpeg.slice(0, jpeg.length / 2), "premature end");
  await refuse(jpeg.slice(0, 20), "");
  const png = await encode(testPixels(64, 64), [64, 64, 3], (image) => image.png());
  await refuse(png.slice(0, png.length / 2), "");
  await refuse(png, "64 × 64 pixels: more than 4095", { maxPixels: 4095 });
});

Deno.test("decode refuses a header that promises 50000 × 50000 pixels before it takes the memory", async () => {
  const bytes = await encode(new Uint8Array(3), [1, 1, 3], (image) => image.png());
  const view = new DataView(bytes.buffer);
  view.setUint32(16, 50000);
  view.setUint32(20, 50000);
  view.setUint32(29, crc32(bytes.subarray(12, 29))); // so that only the size is wrong with it
  await assertRejects(async () => decodeImage(await loadSharp(), bytes), DecodeError, "50000 × 50000 pixels");
});

Deno.test("decode names a file that is missing or a folder", async () => {
  const decoder = createDecoder();
  await assertRejects(() => decoder.decode("/nonexistent/image.png"), DecodeError, "no such file");
  await assertRejects(() => decoder.decode(Deno.cwd()), DecodeError, "not a file");
});

Deno.test("image names are told by their extension, hidden files are not images", () => {
  assertEquals(["a.JPG", "b/c.d/e.jpeg", "x.tif", "y.webp"].map(isImageName), [true, true, true, true]);
  assertEquals(["a.txt", "jpg", "b.jpg/readme", ".hidden.png", "a/._b.jpg"].map(isImageName), Array(5).fill(false));
});

Deno.test("the native sharp is taken where it loads", async () => {
  if (Deno.env.get("DENODINO_SHARP") === "wasm") return;
  const wasm = isWasmSharp(await loadSharp());
  if (wasm) console.log("sharp has no native library for this machine: its WebAssembly build was tested instead");
});

function crc32(bytes: Uint8Array): number {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let k = 0; k < 8; k++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  }
  return ~crc >>> 0;
}
