// The embedded sample: 4000 training and 1000 test images of Fashion-MNIST (see sample/COPYRIGHT), padded to 32×32.

import notice from "./sample/COPYRIGHT" with { type: "text" };
import trainImages from "./sample/train-images-idx3.b64" with { type: "text" };
import trainLabels from "./sample/train-labels-idx1.b64" with { type: "text" };
import testImages from "./sample/t10k-images-idx3.b64" with { type: "text" };
import testLabels from "./sample/t10k-labels-idx1.b64" with { type: "text" };
import type { PixelSource, Split } from "./dataset.ts";
import { idxPixels, readIdx } from "./idx.ts";

/** 28 is no multiple of the usual patch sizes; 32 is. */
const PADDED = 32;

/** Whose the sample's images are, and the licence they come under. */
export const SAMPLE_NOTICE: string = notice;

const CLASS_NAMES = [
  "T-shirt/top",
  "Trouser",
  "Pullover",
  "Dress",
  "Coat",
  "Sandal",
  "Shirt",
  "Sneaker",
  "Bag",
  "Ankle boot",
];

/** The sample's images as RGB, 32×32, with labels. */
export async function loadSample(split: Split, limit?: number): Promise<PixelSource> {
  const [images, labels] = split === "train" ? [trainImages, trainLabels] : [testImages, testLabels];
  return idxPixels({
    name: `Fashion-MNIST sample, ${split}`,
    images: await readIdx(Uint8Array.fromBase64(images), "sample images"),
    labels: await readIdx(Uint8Array.fromBase64(labels), "sample labels"),
    limit,
    pad: PADDED,
    classNames: CLASS_NAMES,
    locator: { kind: "sample", split, limit },
  });
}
