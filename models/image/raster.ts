// 8-bit RGB images on the host.

/** An image: `data` holds height × width × 3 bytes, row-major, red first. */
export interface Raster {
  /** The bytes. */
  readonly data: Uint8Array;
  /** Rows. */
  readonly height: number;
  /** Columns. */
  readonly width: number;
}

/**
 * An image around existing bytes.
 *
 * @throws {RangeError} if a side is not a positive whole number or the bytes are not height × width × 3
 * @throws {TypeError} if they are no bytes
 */
export function raster(data: Uint8Array, height: number, width: number): Raster {
  if (!(Number.isSafeInteger(height) && Number.isSafeInteger(width) && height > 0 && width > 0)) {
    throw new RangeError(`image of height ${height} and width ${width}: both sides must be whole numbers above 0`);
  }
  if (!(data instanceof Uint8Array || data as unknown instanceof Uint8ClampedArray)) {
    throw new TypeError(`image ${height}×${width}: wants its pixels as a Uint8Array, 3 bytes each`);
  }
  if (data.length !== height * width * 3) {
    throw new RangeError(`image ${height}×${width}: ${data.length} bytes, RGB takes ${height * width * 3}`);
  }
  return { data, height, width };
}

/** An image of zeros. */
export function emptyRaster(height: number, width: number): Raster {
  return raster(new Uint8Array(height * width * 3), height, width);
}
