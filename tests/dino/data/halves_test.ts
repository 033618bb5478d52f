import { join } from "node:path";
import { hasTestHalf } from "../../../dino/data/halves.ts";
import { openPixels } from "../../../dino/data/open.ts";
import { assertEquals } from "../../assert.ts";
import { png, withFiles } from "./make_images.ts";

Deno.test("halves: folders, CIFAR and IDX files that bring images for testing, and what only looks like it", async () => {
  const image = await png(4, 4);
  const files = {
    "imagenet/train/a/1.png": image,
    "imagenet/train/b/2.png": image,
    "imagenet/val/a/3.png": image,
    "imagenet/val/b/4.png": image,
    "imagenet/readme.txt": "x",
    "deep/data/x/train/a/1.png": image,
    "deep/data/x/test/a/2.png": image,
    "three/train/1.png": image,
    "three/val/2.png": image,
    "three/extra/3.png": image,
    "classes/train/1.png": image, // trains, and rails
    "classes/rail/2.png": image,
    "flat/1.png": image,
    "flat/train/1.png": image,
    "flat/val/1.png": image,
    "cifar/cifar-10-batches-bin/data_batch_1.bin": new Uint8Array(3073),
    "cifar/cifar-10-batches-bin/test_batch.bin": new Uint8Array(3073),
    "half/train.bin": new Uint8Array(3074),
    "idx/train-images-idx3-ubyte": "x",
    "idx/t10k-images-idx3-ubyte": "x",
    "list.txt": "flat/1.png",
  };
  await withFiles(files, async (folder) => {
    const halved = ["imagenet", "deep", "cifar", "idx"];
    for (const name of [...halved, "three", "classes", "flat", "half", "list.txt", "none"]) {
      assertEquals([name, await hasTestHalf(join(folder, name))], [name, halved.includes(name)]);
    }
    const [train, test] = await Promise.all(
      (["train", "test"] as const).map((split) => openPixels(join(folder, "imagenet"), { split })),
    );
    const ids = ({ length, id }: typeof train) => Array.from({ length }, (_, i) => id(i));
    assertEquals([ids(train), ids(test)], [["train/a/1.png", "train/b/2.png"], ["val/a/3.png", "val/b/4.png"]]);
  });
});
