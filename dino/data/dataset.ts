// What a data set is: names, labels and order before decoding, pixels after it.

/** Decoded images side by side in one buffer, ready to be uploaded to a device in one copy. */
export interface PixelBatch {
  /** 8-bit RGB, each image [height, width, 3]; offsets and the total length are multiples of 4 bytes. */
  pixels: Uint8Array<ArrayBuffer>;
  /** [n, 3]: byte offset into `pixels`, height, width. */
  table: Int32Array<ArrayBuffer>;
}

/** Height and width of an image, in pixels. */
export interface ImageSize {
  /** Rows. */
  height: number;
  /** Columns. */
  width: number;
}

/** An image left out of a data set, and why. */
export interface SkippedImage {
  /** Its path inside the data set. */
  id: string;
  /** In a few words, without the path. */
  reason: string;
}

/**
 * Everything another process needs to open the same pixels again with `reopenPixels`: plain JSON, without decoding anything.
 */
export type PixelLocator =
  | { kind: "raw"; path: string; split: Split; limit?: number; pad?: number }
  | { kind: "packed"; view: string }
  | { kind: "sample"; split: Split; limit?: number }
  | { kind: "memory" }; // lives in this process only: cannot be opened again

/**
 * Images as 8-bit RGB pixels, in a fixed order, every one of them readable: what training and evaluation read.
 *
 * Made by `openPixels` (any path), `loadSample` or `pixelsFromMemory`.
 */
export interface PixelSource {
  /** For people: where the images came from. */
  readonly name: string;
  /** Number of images. */
  readonly length: number;
  /** Class of each image, 0 … classes − 1; absent where the data has none. */
  readonly labels?: Int32Array<ArrayBuffer>;
  /** Name of each class, where labels exist. */
  readonly classNames?: readonly string[];
  /** Changes when the images, their order or their labels do: a resumed run compares it. */
  readonly fingerprint: string;
  /** Images that could not be read and are therefore not counted in `length`. */
  readonly skipped: readonly SkippedImage[];
  /** How another process opens the same source. */
  readonly locator: PixelLocator;
  /** A stable name of image `i`: its path inside the data set. */
  id(i: number): string;
  /** Size of image `i` as `readBatch` returns it (after shrinking or padding). */
  size(i: number): ImageSize;
  /**
   * Reads images by index, in the order given; an index may occur twice.
   *
   * @param into used for the pixels when it is large enough, so that a loop need not allocate
   * @throws {RangeError} if an index is out of range or the batch exceeds 2 GiB
   */
  readBatch(indices: ArrayLike<number>, into?: Uint8Array<ArrayBuffer>): Promise<PixelBatch>;
  /** Lets go of open files; the source cannot be read afterwards. */
  close(): void;
}

/** Which half of a data set that ships in two; ignored by formats that do not. */
export type Split = "train" | "test";

/** What identifies the bytes of one image: when any of it changes, the image is decoded again. */
export interface EncodedEntry {
  /** The image's path inside the data set, unique in it. */
  id: string;
  /** What the cache is keyed by: an absolute path, with the member's name behind it inside an archive. */
  key: string;
  /** Bytes as stored. */
  bytes: number;
  /** Modification time of the file (or of its archive) in milliseconds since 1970. */
  mtime: number;
  /** A file of its own, that a decoder can open by itself. */
  path?: string;
}

/** Images still encoded (JPEG, PNG, …) in a fixed order: what a folder, a list or an archive is before decoding. */
export interface EncodedDataset {
  /** What the images come from. */
  readonly kind: "folder" | "list" | "tar" | "zip";
  /** For people: the path as given. */
  readonly name: string;
  /** Number of images. */
  readonly length: number;
  /** Class of each image, where there are classes. */
  readonly labels?: Int32Array<ArrayBuffer>;
  /** Name of each class. */
  readonly classNames?: readonly string[];
  /** Parts that could not be read at all: an archive cut off behind these images. */
  readonly damage?: readonly SkippedImage[];
  /** Pictures of kinds that are not decoded, and therefore not counted: `3 .bmp, 1 .heic`. */
  readonly foreign?: string;
  /** The order in which reading is cheap, where it matters. */
  readonly readOrder?: Uint32Array<ArrayBuffer>;
  /** What identifies image `i`. */
  entry(i: number): EncodedEntry;
  /** The encoded bytes of image `i`. */
  read(i: number): Promise<Uint8Array<ArrayBuffer>>;
  /** Lets go of open files. */
  close(): void;
}

/** What happens while a data set is opened, for whoever shows it to a person. */
export type DataEvent =
  | { type: "found"; name: string; kind: string; images: number; classes: number; foreign?: string }
  /** The cache's decision: `shorterSide` is null where the original size is kept. `bytes` is an estimate of the pixels. */
  | {
    type: "cache";
    directory: string | null;
    shorterSide: number | null;
    reason: string;
    bytes: number;
    budget: number;
    cached: number;
  }
  | { type: "progress"; done: number; total: number; skipped: number }
  | { type: "skipped"; id: string; reason: string };
