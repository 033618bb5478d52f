// Decodes one image in this process, to the 8-bit RGB that PIL's convert("RGB") gives (CMYK apart).

import { type DecodedImage, type DecodeOptions, type Decoder, MAX_PIXELS } from "./decoder.ts";
import { loadSharp, type Sharp, type SharpMetadata } from "./sharp.ts";

/** Encoded files beyond this many bytes are refused before they are read. */
export const MAX_ENCODED_BYTES = 512 * 2 ** 20;

/** Extensions of the formats that are decoded, without the dot. */
export const IMAGE_EXTENSIONS: readonly string[] = ["jpg", "jpeg", "jpe", "jfif", "png", "webp", "tif", "tiff", "gif"];

/** The formats that are decoded, in words. */
export const IMAGE_FORMATS = "JPEG, PNG, WebP, TIFF or GIF";

/** Whether a file's name promises an image that can be decoded. */
export function isImageName(name: string): boolean {
  const base = name.slice(name.lastIndexOf("/") + 1);
  // "._photo.jpg" is what macOS puts beside photo.jpg in archives: not an image.
  if (base.startsWith(".") || !base.includes(".")) return false;
  return IMAGE_EXTENSIONS.includes(base.slice(base.lastIndexOf(".") + 1).toLowerCase());
}

/** An image that cannot be turned into pixels; the message is the reason alone, without the image's name. */
export class DecodeError extends Error {
  /** Tells it from other errors. */
  override name = "DecodeError";

  /**
   * An error of that reason.
   *
   * @param passing the file could not be read, which says nothing of what is in it: worth another try
   */
  constructor(message: string, readonly passing = false) {
    super(message);
  }
}

/**
 * Decodes in this process with sharp. A file that crashes the decoder takes the process down with it: for images from
 * strangers use a decoder that works in another process.
 *
 * @param build which build of sharp; default the native one where it loads
 */
export function createDecoder(build?: "auto" | "native" | "wasm"): Decoder {
  return {
    parallel: 2,
    decode: async (image, options) => decodeImage(await loadSharp(build), await encodedBytes(image), options),
    measure: async (image, options) => measureImage(await loadSharp(build), await encodedBytes(image), options),
    close: () => {},
  };
}

/**
 * Decodes an image to 8-bit RGB: first frame, EXIF orientation applied, alpha dropped (not blended), 16 bits cut to 8,
 * grey repeated, colour profiles ignored: at original size the pixels of PIL's convert("RGB"). CMYK goes through a print
 * profile, PIL's does not.
 *
 * @throws {DecodeError} with the reason
 */
export async function decodeImage(
  sharp: Sharp,
  bytes: Uint8Array<ArrayBuffer>,
  options: DecodeOptions = {},
): Promise<DecodedImage> {
  const header = await readHeader(sharp, bytes, options);
  const S = options.shorterSide;
  try {
    let image = open(sharp, bytes, options);
    if (options.exif ?? true) image = image.autoOrient();
    const shrink = S !== undefined && Math.min(header.height, header.width) > S;
    if (shrink && header.hasAlpha) {
      // Resizing weighs colours by alpha, dropping alpha does not: drop it first.
      const { data, info } = await image.removeAlpha().toColourspace("srgb").raw().toBuffer({
        resolveWithObject: true,
      });
      image = sharp(data, { raw: { width: info.width, height: info.height, channels: info.channels } });
    }
    if (shrink) image = image.resize({ width: S, height: S, fit: "outside", withoutEnlargement: true });
    const { data, info } = await image.removeAlpha().toColourspace("srgb").raw().toBuffer({ resolveWithObject: true });
    const plain = new Uint8Array(data.buffer, data.byteOffset, data.length); // not node's Buffer
    const pixels = info.channels === 3 ? plain : toRGB(plain, info.channels);
    return { pixels, height: info.height, width: info.width };
  } catch (error) {
    throw reasonOf(error);
  }
}

/**
 * Height and width that `decodeImage` would return at original size, read from the header alone.
 *
 * @throws {DecodeError} with the reason
 */
export async function measureImage(
  sharp: Sharp,
  bytes: Uint8Array<ArrayBuffer>,
  options: DecodeOptions = {},
): Promise<{ height: number; width: number }> {
  const { height, width, orientation } = await readHeader(sharp, bytes, options);
  const turned = (options.exif ?? true) && (orientation ?? 1) >= 5; // 5 … 8 swap the axes
  return turned ? { height: width, width: height } : { height, width };
}

/** Reads a file to be decoded, refusing what no image needs. */
export async function encodedBytes(image: string | Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  if (typeof image !== "string") return image;
  try {
    const { size, isFile } = await Deno.stat(image);
    if (!isFile) throw new DecodeError("not a file");
    if (size > MAX_ENCODED_BYTES) throw new DecodeError(`${size} bytes: more than ${MAX_ENCODED_BYTES}`);
    return await Deno.readFile(image);
  } catch (error) {
    if (error instanceof DecodeError) throw error;
    const lossy = image.includes("\ufffd") ? ", or its name is not UTF-8: rename it" : "";
    if (error instanceof Deno.errors.NotFound) throw new DecodeError(`no such file${lossy}`, true);
    if (error instanceof Deno.errors.PermissionDenied) throw new DecodeError("permission denied", true);
    throw new DecodeError(reasonOf(error).message, true);
  }
}

async function readHeader(sharp: Sharp, bytes: Uint8Array, options: DecodeOptions): Promise<SharpMetadata> {
  // sharp reads more formats than these (SVG among them, which can name other files): decide by the first bytes.
  if (!hasImageSignature(bytes)) {
    throw new DecodeError(bytes.length === 0 ? "empty file" : `not a ${IMAGE_FORMATS} file`);
  }
  const maxPixels = options.maxPixels ?? MAX_PIXELS;
  try {
    const header = await open(sharp, bytes, { ...options, maxPixels: 0 }).metadata();
    if (!(header.width > 0 && header.height > 0)) throw new DecodeError("no pixels");
    if (header.width * header.height > maxPixels) {
      throw new DecodeError(`${header.width} × ${header.height} pixels: more than ${maxPixels}`);
    }
    return header;
  } catch (error) {
    throw reasonOf(error);
  }
}

function open(sharp: Sharp, bytes: Uint8Array, options: DecodeOptions) {
  return sharp(bytes, {
    failOn: "error", // a truncated file is an error, a warning is not: as in PIL
    limitInputPixels: options.maxPixels === 0 ? false : options.maxPixels ?? MAX_PIXELS,
    pages: 1,
    ignoreIcc: true,
  });
}

function hasImageSignature(bytes: Uint8Array): boolean {
  const text = String.fromCharCode(...bytes.subarray(0, 12));
  return text.startsWith("\xff\xd8\xff") || // JPEG
    text.startsWith("\x89PNG\r\n\x1a\n") ||
    text.startsWith("GIF87a") || text.startsWith("GIF89a") ||
    (text.startsWith("RIFF") && text.slice(8, 12) === "WEBP") ||
    /^(II[*+]\0|MM\0[*+])/.test(text); // TIFF and BigTIFF
}

/** 1 channel is repeated, a 2nd or 4th one is dropped. */
function toRGB(data: Uint8Array, channels: number): Uint8Array<ArrayBuffer> {
  const count = data.length / channels;
  const pixels = new Uint8Array(count * 3);
  const [g, b] = channels >= 3 ? [1, 2] : [0, 0];
  for (let i = 0; i < count; i++) {
    pixels[3 * i] = data[channels * i];
    pixels[3 * i + 1] = data[channels * i + g];
    pixels[3 * i + 2] = data[channels * i + b];
  }
  return pixels;
}

function reasonOf(error: unknown): DecodeError {
  if (error instanceof DecodeError) return error;
  const message = error instanceof Error ? error.message : String(error);
  // libvips repeats itself and breaks lines; the first is the cause.
  return new DecodeError(message.split("\n")[0].replace(/[\s:]+$/, "").slice(0, 200) || "unreadable");
}
