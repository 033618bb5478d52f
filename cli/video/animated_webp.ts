// Joins still WebP images into one animated file: the container alone, so that a film needs no encoder of its own.

/** Largest side that the format can say. */
export const WEBP_MOST_PIXELS = 16383;

/** One frame. */
export interface WebpFrame {
  /** A still WebP file. */
  readonly still: Uint8Array;
  /** Milliseconds it is shown. */
  readonly duration: number;
}

/**
 * An animated WebP that repeats for ever.
 *
 * Layout: `RIFF size WEBP`, VP8X (that there is animation, and the size of all), ANIM (background and repetitions), and
 * an ANMF for each frame, around the chunks that hold its pixels.
 *
 * @throws {RangeError} if there is no frame
 * @throws {SyntaxError} if one of them is no still WebP
 */
export function animateWebp(
  frames: readonly WebpFrame[],
  height: number,
  width: number,
): Uint8Array<ArrayBuffer>[] {
  if (frames.length === 0) throw new RangeError("animated WebP: no frames");
  const size = [...bytes(width - 1, 3), ...bytes(height - 1, 3)];
  const parts = [
    chunk("VP8X", Uint8Array.of(ANIMATION, 0, 0, 0, ...size)),
    chunk("ANIM", Uint8Array.of(0, 0, 0, 255, 0, 0)), // on black; 0 repetitions stand for endless ones
    ...frames.map(({ still, duration }, i) => {
      const pixels = pixelChunks(still, i);
      const frame = new Uint8Array(16 + pixels.length);
      frame.set([...bytes(0, 6), ...size, ...bytes(duration, 3), OVERWRITE]);
      frame.set(pixels, 16);
      return chunk("ANMF", frame);
    }),
  ];
  const length = 4 + parts.reduce((sum, part) => sum + part.length, 0);
  return [Uint8Array.of(...ascii("RIFF"), ...bytes(length, 4), ...ascii("WEBP")), ...parts];
}

/** Flag of VP8X. */
const ANIMATION = 2;
/** Flag of ANMF: do not blend with what was there. */
const OVERWRITE = 2;

/** The chunks of a still file that are pixels. */
function pixelChunks(still: Uint8Array, i: number): Uint8Array {
  const name = (at: number) => String.fromCharCode(...still.subarray(at, at + 4));
  if (name(0) !== "RIFF" || name(8) !== "WEBP") throw new SyntaxError(`animated WebP: frame ${i} is no WebP file`);
  const view = new DataView(still.buffer, still.byteOffset, still.byteLength);
  const found: Uint8Array[] = [];
  for (let at = 12; at + 8 <= still.length;) {
    const end = at + 8 + view.getUint32(at + 4, true);
    const padded = end + end % 2;
    if (/^(VP8 |VP8L|ALPH)$/.test(name(at))) found.push(still.subarray(at, padded));
    at = padded;
  }
  if (found.length === 0) throw new SyntaxError(`animated WebP: frame ${i} holds no still image`);
  const joined = new Uint8Array(found.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of found) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}

/** Name, length, content, and a byte more where the length is odd. */
function chunk(name: string, content: Uint8Array): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(8 + content.length + content.length % 2);
  whole.set([...ascii(name), ...bytes(content.length, 4)]);
  whole.set(content, 8);
  return whole;
}

const ascii = (text: string) => Array.from(text, (c) => c.charCodeAt(0));

/** The lowest byte first. */
const bytes = (value: number, count: number) =>
  Array.from({ length: count }, (_, i) => Math.floor(value / 256 ** i) % 256);
