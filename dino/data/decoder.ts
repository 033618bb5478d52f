// What turns encoded images into pixels: the interface, behind which are this process or a pool of others.

/** One decoded image: 8-bit RGB, [height, width, 3]. */
export interface DecodedImage {
  /** [height, width, 3] */
  pixels: Uint8Array<ArrayBuffer>;
  /** Rows. */
  height: number;
  /** Columns. */
  width: number;
}

/** How images are decoded; part of the cache's key. */
export interface DecodeOptions {
  /** Turn the picture upright as its EXIF orientation says. Default true; false is what PIL's `open` does. */
  exif?: boolean;
  /** Shrink so that the shorter side has this many pixels; smaller images stay as they are. Default: original size. */
  shorterSide?: number;
  /** Refuse images with more pixels than this before decoding them. Default `MAX_PIXELS`. */
  maxPixels?: number;
}

/** Height × width beyond which an image is refused: a header can promise more memory than a machine has. */
export const MAX_PIXELS = 200e6; // a 200-megapixel photograph; 600 MB decoded

/** Decoding does not work at all: not the fault of an image, so none is skipped for it. */
export class DecoderFailure extends Error {
  /** Tells it from other errors. */
  override name = "DecoderFailure";
}

/**
 * Decodes images, here or elsewhere. `decode` and `measure` reject with an error whose message says why the image is
 * unreadable, or with a `DecoderFailure`.
 */
export interface Decoder {
  /** Decodes worth having in flight at once. */
  readonly parallel: number;
  /**
   * Decodes one image.
   *
   * @param image a file's path, or its bytes
   */
  decode(image: string | Uint8Array<ArrayBuffer>, options?: DecodeOptions): Promise<DecodedImage>;
  /** Height and width as `decode` at original size would return them, from the header alone. */
  measure(image: string | Uint8Array<ArrayBuffer>, options?: DecodeOptions): Promise<{ height: number; width: number }>;
  /** Ends what the decoder started. */
  close(): void | Promise<void>;
}
