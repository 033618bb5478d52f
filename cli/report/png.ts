// Writes 8-bit RGB pixels or palette indices as a PNG file: the one image format that is written here, without a codec.
import { crc32, deflateSync } from "node:zlib";

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];

/** `length, name, data, checksum` as the format stores each of its parts. */
function chunk(name: string, data: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(12 + data.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, data.length);
  bytes.set(new TextEncoder().encode(name), 4);
  bytes.set(data, 8);
  view.setUint32(8 + data.length, crc32(bytes.subarray(4, 8 + data.length)));
  return bytes;
}

/**
 * A PNG of RGB pixels, [height, width, 3].
 *
 * @throws {RangeError} if `pixels` is not `height · width · 3` bytes
 */
export function encodePng(pixels: Uint8Array, height: number, width: number): Uint8Array<ArrayBuffer> {
  const stride = width * 3;
  if (pixels.length !== height * stride || height < 1 || width < 1) {
    throw new RangeError(`encodePng: ${pixels.length} bytes are not an RGB image of ${height} × ${width}`);
  }
  // Every row starts with the number of its filter; 2 stores the difference to the row above, which deflates well.
  const rows = new Uint8Array(height * (stride + 1));
  for (let y = 0; y < height; y++) {
    const at = y * (stride + 1);
    rows[at] = 2;
    for (let x = 0; x < stride; x++) {
      rows[at + 1 + x] = pixels[y * stride + x] - (y > 0 ? pixels[(y - 1) * stride + x] : 0);
    }
  }
  return assemble(height, width, RGB, [], rows);
}

/**
 * A PNG whose pixels are places in a palette, [height, width]: how masks of objects are kept.
 *
 * @param palette red, green and blue of up to 256 colours
 * @throws {RangeError} if `indices` is not `height · width` bytes, or one of them has no colour
 */
export function encodePalettePng(
  indices: Uint8Array,
  height: number,
  width: number,
  palette: Uint8Array,
): Uint8Array<ArrayBuffer> {
  if (indices.length !== height * width || height < 1 || width < 1) {
    throw new RangeError(`encodePalettePng: ${indices.length} bytes are not a mask of ${height} × ${width}`);
  }
  const colours = palette.length / 3;
  const largest = indices.reduce((a, b) => Math.max(a, b), 0);
  if (largest >= colours) throw new RangeError(`encodePalettePng: index ${largest} in a palette of ${colours} colours`);
  const rows = new Uint8Array(height * (width + 1)); // filter 0: differences of indices mean nothing
  for (let y = 0; y < height; y++) rows.set(indices.subarray(y * width, (y + 1) * width), y * (width + 1) + 1);
  return assemble(height, width, PALETTE, [chunk("PLTE", palette)], rows);
}

/** Colour types of the format. */
const RGB = 2, PALETTE = 3;

function assemble(
  height: number,
  width: number,
  colourType: number,
  between: readonly Uint8Array[],
  rows: Uint8Array,
): Uint8Array<ArrayBuffer> {
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header.set([8, colourType, 0, 0, 0], 8); // 8 bits, deflate, adaptive filters, not interlaced
  const parts = [
    Uint8Array.from(SIGNATURE),
    chunk("IHDR", header),
    ...between,
    chunk("IDAT", new Uint8Array(deflateSync(rows))),
    chunk("IEND", new Uint8Array(0)),
  ];
  const file = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    file.set(part, at);
    at += part.length;
  }
  return file;
}
