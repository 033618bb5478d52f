// At which sizes to measure: usual ones for a processor, those of the paper for a graphics card, tiny ones to try everything out.

/** Sizes of everything that is measured. */
export interface BenchSizes {
  readonly arch: string;
  readonly patchSize: number;
  readonly batchSize: number;
  readonly globalCropSize: number;
  readonly localCropSize: number;
  readonly localCropsNumber: number;
  readonly outDim: number;
  /** Extents of square products. */
  readonly cubes: readonly number[];
  /** Products of a run, each of operands of its own: one alone also waits for the threads, which an update does once a program. */
  readonly inARow: number;
  /** Attention besides that of the crops: tokens and images. */
  readonly attention: readonly (readonly [tokens: number, images: number])[];
  /** Queries, rows and width of a database, and how many neighbours. */
  readonly neighbours: readonly [queries: number, rows: number, dim: number, k: number];
  /** Bytes of the copy that bandwidth is measured by; far more than caches hold. */
  readonly copyBytes: number;
}

/** What `dino bench` measures. */
export const USUAL_SIZES: BenchSizes = {
  arch: "vit_tiny",
  patchSize: 16,
  batchSize: 4,
  globalCropSize: 224,
  localCropSize: 96,
  localCropsNumber: 8,
  outDim: 4096,
  cubes: [512, 1024],
  inARow: 1,
  attention: [],
  neighbours: [1000, 10_000, 384, 20],
  copyBytes: 2 ** 27,
};

/** What `dino bench all` measures on a graphics card: the paper's ViT-S/16 and an ImageNet of features. */
export const GPU_SIZES: BenchSizes = {
  ...USUAL_SIZES,
  arch: "vit_small",
  batchSize: 64,
  outDim: 65536,
  cubes: [1024, 4096],
  attention: [[785, 16]], // a crop of 224 pixels in patches of 8
  neighbours: [10_000, 1_281_167, 384, 20],
  copyBytes: 2 ** 29,
};

/** What `--quick` measures: every case within a minute or two, even on a software adapter. Its figures mean nothing. */
export const QUICK_SIZES: BenchSizes = {
  ...USUAL_SIZES,
  batchSize: 1,
  globalCropSize: 64,
  localCropSize: 32,
  localCropsNumber: 2,
  outDim: 512,
  cubes: [128],
  attention: [[101, 1]],
  neighbours: [100, 3000, 64, 20],
  copyBytes: 2 ** 22,
};
