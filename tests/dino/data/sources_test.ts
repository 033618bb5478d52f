// Data sets by kind: CIFAR, IDX, folders, lists; their order, labels and splits, and what damaged ones say.

import { gzipSync } from "node:zlib";
import { arrangePaths } from "../../../dino/data/class_folders.ts";
import type { DataEvent } from "../../../dino/data/dataset.ts";
import { openPixels, reopenPixels } from "../../../dino/data/open.ts";
import { pixelsFromMemory } from "../../../dino/data/memory.ts";
import { parseList } from "../../../dino/data/list.ts";
import { prefetch } from "../../../dino/data/prefetch.ts";
import { loadSample, SAMPLE_NOTICE } from "../../../dino/data/sample.ts";
import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "../../assert.ts";
import { png, testPixels, withFiles } from "./make_images.ts";

/** Records of CIFAR-10: label i % 10, red i, green i + 1, blue i + 2, the first pixel of each plane 255. */
function cifarFile(count: number, first: number, labelBytes: number[] = []): Uint8Array {
  const record = labelBytes.length + 1 + 3072;
  const bytes = new Uint8Array(count * record);
  for (let i = 0; i < count; i++) {
    const at = i * record, planes = at + labelBytes.length + 1;
    bytes.set([...labelBytes, (first + i) % 10], at);
    for (let c = 0; c < 3; c++) bytes.fill(first + i + c, planes + 1024 * c, planes + 1024 * (c + 1));
    bytes[planes] = 255;
  }
  return bytes;
}

function idx(dims: number[], data: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(4 + 4 * dims.length + data.length);
  bytes.set([0, 0, 8, dims.length]);
  const view = new DataView(bytes.buffer);
  dims.forEach((dim, i) => view.setUint32(4 + 4 * i, dim));
  bytes.set(data, 4 + 4 * dims.length);
  return bytes;
}

Deno.test("CIFAR-10 gives interleaved pixels, labels and names by split", async () => {
  const files = {
    "cifar-10-batches-bin/data_batch_1.bin": cifarFile(3, 0),
    "cifar-10-batches-bin/data_batch_2.bin": cifarFile(3, 3),
    "cifar-10-batches-bin/test_batch.bin": cifarFile(2, 50),
    "cifar-10-batches-bin/batches.meta.txt": "airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n",
  };
  await withFiles(files, async (folder) => {
    const train = await openPixels(folder);
    assertEquals([train.length, train.id(4), train.classNames?.[3]], [6, "train/4", "cat"]);
    assertEquals([...train.labels!], [0, 1, 2, 3, 4, 5]);
    const { pixels, table } = await train.readBatch([4, 0]);
    assertEquals([...table], [0, 32, 32, 3072, 32, 32]);
    assertEquals([...pixels.subarray(0, 6)], [255, 5, 6, 4, 5, 6]);
    const test = await openPixels(folder, { split: "test", limit: 1 });
    assertEquals([test.length, test.labels![0]], [1, 0]);
    const again = await reopenPixels(train.locator);
    assertEquals([again.length, again.fingerprint], [train.length, train.fingerprint]);
    assert(test.fingerprint !== train.fingerprint);
  });
});

Deno.test("CIFAR-100 takes the fine label; a cut file and a missing split are named", async () => {
  await withFiles({ "train.bin": cifarFile(2, 7, [19]) }, async (folder) => {
    assertEquals([...(await openPixels(folder)).labels!], [7, 8]);
    await assertRejects(() => openPixels(folder, { split: "test" }), RangeError, "CIFAR-100 without its test files");
    await Deno.truncate(`${folder}/train.bin`, 4000);
    await assertRejects(() => openPixels(folder), SyntaxError, "train.bin: 4000 bytes");
  });
});

Deno.test("IDX reads grey images, gzipped or not, with labels, padded when asked", async () => {
  const images = testPixels(4 * 3, 5, 1); // 4 images of 3×5
  const labels = Uint8Array.of(2, 0, 1, 2);
  const files = {
    "train-images-idx3-ubyte.gz": gzipSync(idx([4, 3, 5], images)),
    "train-labels-idx1-ubyte": idx([4], labels),
    "t10k-images-idx3-ubyte": idx([1, 3, 5], images.subarray(0, 15)),
  };
  await withFiles(files, async (folder) => {
    const train = await openPixels(folder);
    assertEquals([train.length, train.classNames?.length, [...train.labels!]], [4, 3, [2, 0, 1, 2]]);
    const { pixels } = await train.readBatch([1]);
    assertEquals([...pixels.subarray(0, 6)], [images[15], images[15], images[15], images[16], images[16], images[16]]);
    const padded = await openPixels(`${folder}/train-images-idx3-ubyte.gz`, { pad: 8, limit: 2 });
    assertEquals([padded.length, padded.size(1)], [2, { height: 8, width: 8 }]);
    const batch = await padded.readBatch([1]);
    const at = (y: number, x: number) => batch.pixels[(y * 8 + x) * 3];
    assertEquals([at(1, 1), at(2, 1), at(2, 0), at(4, 5), at(5, 5)], [0, images[15], 0, images[29], 0]);
    assertEquals((await openPixels(folder, { split: "test" })).labels, undefined);
  });
});

Deno.test("IDX files that are cut, foreign or do not match are refused by name", async () => {
  const refused = async (files: Record<string, Uint8Array>, message: string) => {
    await withFiles(files, async (folder) => {
      const error = await assertRejects(() => openPixels(folder), SyntaxError, message);
      assertStringIncludes(error.message, folder);
    });
  };
  const good = idx([2, 3, 3], new Uint8Array(18));
  await refused({ "train-images-idx3-ubyte": good.subarray(0, 30) }, "30 bytes, but shape [2,3,3] needs 34");
  await refused({ "train-images-idx3-ubyte": new Uint8Array(40).fill(7) }, "not an IDX file");
  await refused({ "train-images-idx3-ubyte.gz": gzipSync(good).subarray(0, 30) }, "cannot be unpacked");
  await withFiles(
    { "train-images-idx3-ubyte": good, "train-labels-idx1-ubyte": idx([3], new Uint8Array(3)) },
    async (folder) =>
      void await assertRejects(() => openPixels(folder), SyntaxError, "2 images but labels of shape [3]"),
  );
});

Deno.test("the sample has 4000 and 1000 labelled images of 32 × 32, and its notice", async () => {
  const train = await loadSample("train"), test = await loadSample("test");
  assertEquals([train.length, test.length, train.classNames?.length], [4000, 1000, 10]);
  assertEquals([train.size(0), new Set(test.labels).size], [{ height: 32, width: 32 }, 10]);
  const { pixels } = await train.readBatch([0]);
  assertEquals([...pixels.subarray(0, 2 * 32 * 3)].every((value) => value === 0), true, "two rows of padding");
  assert(pixels.some((value) => value > 200), "a garment within");
  assertStringIncludes(SAMPLE_NOTICE, "Permission is hereby granted");
  assertEquals((await reopenPixels((await loadSample("test", 7)).locator)).length, 7);
});

Deno.test("a folder gives images in path order, class folders as labels, unreadable ones skipped by name", async () => {
  const files = {
    "cat/2.png": await png(4, 6, 2),
    "cat/10.png": await png(5, 5, 3),
    "Dog/1.png": await png(3, 3, 4),
    "Dog/broken.png": (await png(8, 8)).subarray(0, 40),
    "Dog/empty.jpg": new Uint8Array(0),
    "Dog/.hidden.png": await png(2, 2),
    "readme.txt": "not an image",
  };
  await withFiles(files, async (folder) => {
    const events: string[] = [];
    const source = await openPixels(folder, {
      onEvent: (event) => event.type === "skipped" && events.push(`${event.id}: ${event.reason}`),
    });
    assertEquals(Array.from({ length: 3 }, (_, i) => source.id(i)), ["Dog/1.png", "cat/10.png", "cat/2.png"]);
    assertEquals([[...source.labels!], source.classNames], [[0, 1, 1], ["Dog", "cat"]]);
    assertEquals(source.skipped.map(({ id }) => id), ["Dog/broken.png", "Dog/empty.jpg"]);
    assertEquals(events.length, 2);
    assert(events.includes("Dog/empty.jpg: empty file"), events.join());
    const { pixels, table } = await source.readBatch([2, 0, 2]);
    assertEquals([...table], [0, 4, 6, 72, 3, 3, 100, 4, 6]); // 27 bytes take 28
    assertEquals(pixels.subarray(100, 172), testPixels(4, 6, 3, 2));
    assertEquals(pixels.subarray(72, 99), testPixels(3, 3, 3, 4));
    assertEquals((await openPixels(folder, { limit: 1 })).length, 1);
  });
});

Deno.test("folders that are missing, empty or hold nothing readable say so", async () => {
  await assertRejects(() => openPixels("/nonexistent/photos"), Deno.errors.NotFound, "/nonexistent/photos: no such");
  await withFiles({ "notes.txt": "", "data.bin": "x" }, async (folder) => {
    await assertRejects(() => openPixels(folder), RangeError, "no image file in it");
    await assertRejects(() => openPixels(`${folder}/data.bin`), RangeError, "not a data set");
    await assertRejects(() => openPixels(`${folder}/notes.txt`), RangeError, "lists no image");
    await assertRejects(() => openPixels(folder, { limit: 0 }), RangeError, "limit is 0");
  });
  await withFiles({ "a.png": "nonsense", "b.png": "" }, async (folder) => {
    await assertRejects(() => openPixels(folder), RangeError, "none of its 2 images can be read (a.png: not a JPEG");
  });
});

Deno.test("pictures of kinds that are not decoded are counted, in words", async () => {
  const files = {
    "data/a.png": await png(3, 3),
    "data/b.bmp": "",
    "data/c/d.BMP": "",
    "data/e.heic": "",
    "x/f.dcm": "",
  };
  await withFiles(files, async (folder) => {
    const events: DataEvent[] = [];
    (await openPixels(`${folder}/data`, { onEvent: (event) => events.push(event) })).close();
    const [found] = events;
    assert(found.type === "found" && found.images === 1, JSON.stringify(found));
    assertEquals(found.foreign?.split(", ").sort(), ["1 .heic", "2 .bmp"]);
    await assertRejects(() => openPixels(`${folder}/x`), RangeError, "it has 1 .dcm, which are not decoded");
  });
});

Deno.test("links are followed, one that leads back up does not go round", async () => {
  if (Deno.build.os === "windows") return console.log("skipped: making links needs rights on Windows");
  await withFiles({ "data/a/1.png": await png(2, 2, 1), "else/2.png": await png(2, 2, 2) }, async (folder) => {
    await Deno.symlink(`${folder}/else`, `${folder}/data/b`);
    await Deno.symlink(`${folder}/data`, `${folder}/data/a/up`);
    await Deno.symlink(`${folder}/gone`, `${folder}/data/nothing.png`);
    const source = await openPixels(`${folder}/data`);
    assertEquals([source.id(0), source.id(1), source.length], ["a/1.png", "b/2.png", 2]);
  });
});

Deno.test("paths tell splits and classes", () => {
  const arrange = (paths: string[], split: "train" | "test" = "train") => {
    const { order, labels, classNames } = arrangePaths(paths, split);
    return { ids: Array.from(order, (i) => paths[i]), labels: labels && [...labels], classNames };
  };
  const imagenet = ["set/val/b/3.jpg", "set/train/b/1.jpg", "set/train/a/2.jpg", "set/val/a/4.jpg"];
  assertEquals(arrange(imagenet), {
    ids: ["set/train/a/2.jpg", "set/train/b/1.jpg"],
    labels: [0, 1],
    classNames: ["a", "b"],
  });
  assertEquals(arrange(imagenet, "test").ids, ["set/val/a/4.jpg", "set/val/b/3.jpg"]);
  // One shared folder, or files beside folders, are no classes.
  assertEquals(arrange(["x/2.jpg", "x/1.jpg"]), {
    ids: ["x/1.jpg", "x/2.jpg"],
    labels: undefined,
    classNames: undefined,
  });
  assertEquals(arrange(["a/1.jpg", "b/1.jpg", "top.jpg"]).labels, undefined);
  // The class is the first folder, whatever lies below; code units decide, not a language.
  assertEquals(arrange(["é/1.jpg", "z/deep/1.jpg", "Z/1.jpg"]).classNames, ["Z", "z", "é"]);
});

Deno.test("a list keeps its order, takes labels as numbers or names, and names a bad line", async () => {
  const files = {
    "images/a b.png": await png(2, 2, 1),
    "c.png": await png(3, 2, 2),
    "list.txt": "# mine\nc.png 4\n\nimages/a b.png 1\n",
  };
  await withFiles(files, async (folder) => {
    const source = await openPixels(`${folder}/list.txt`);
    assertEquals([source.id(0), source.id(1)], ["c.png", "images/a b.png"]);
    assertEquals([[...source.labels!], source.classNames?.length], [[4, 1], 5]);
    await Deno.writeTextFile(`${folder}/list.txt`, "c.png\nmissing.png\n");
    const partly = await openPixels(`${folder}/list.txt`);
    assertEquals([partly.labels, partly.skipped], [undefined, [{ id: "missing.png", reason: "no such file" }]]);
  });
  assertEquals(parseList("\uFEFFa.jpg\tcat\r\nb c.jpg\tbig dog\r\n", "l"), {
    ids: ["a.jpg", "b c.jpg"],
    labels: ["cat", "big dog"],
  });
  assertEquals(parseList("a.jpg,cat\nb.jpg , dog\n", "l"), { ids: ["a.jpg", "b.jpg"], labels: ["cat", "dog"] });
  assertEquals(parseList("my photo 7.jpg\n", "l"), { ids: ["my photo 7.jpg"] });
  assertThrows(() => parseList("a.jpg 1\nb.jpg\n", "l"), SyntaxError, "line 2 has no label");
  assertThrows(() => parseList("a.jpg\nb.jpg 1\n", "l"), SyntaxError, 'line 2 has the label "1"');
  assertThrows(() => parseList("a.jpg\na.jpg\n", "l"), SyntaxError, "line 2 names a.jpg a second time");
});

Deno.test("pixels in memory check their lengths and their indices", async () => {
  const source = pixelsFromMemory({ name: "m", height: 2, width: 3, channels: 3, data: new Uint8Array(36) });
  assertEquals(source.length, 2);
  await assertRejects(() => source.readBatch([2]), RangeError, "no image 2, of 2");
  await assertRejects(() => source.readBatch([0.5]), RangeError, "no image 0.5");
  assertThrows(
    () => pixelsFromMemory({ name: "m", height: 2, width: 3, channels: 3, data: new Uint8Array(35) }),
    RangeError,
    "35 bytes",
  );
  await assertRejects(() => reopenPixels(source.locator), TypeError, "in the memory of another process");
});

Deno.test("a batch uses the buffer it is given when that suffices", async () => {
  const source = await loadSample("train", 3);
  const into = new Uint8Array(3 * 3072);
  assertEquals((await source.readBatch([0, 1], into)).pixels.buffer === into.buffer, true);
  assertEquals((await source.readBatch([0, 1, 2, 0], into)).pixels.buffer === into.buffer, false);
});

Deno.test("prefetch gives batches in order, and passes an error on where it happened", async () => {
  const source = await loadSample("train", 10);
  const batches = Array.from({ length: 7 }, (_, i) => [i, i + 1, 9 - i]);
  let n = 0;
  for await (const { indices, pixels } of prefetch(source, batches, 3)) {
    assertEquals(indices, batches[n]);
    assertEquals(pixels, (await source.readBatch(batches[n++])).pixels);
  }
  assertEquals(n, 7);
  const bad = prefetch(source, [[1], [99], [2]]);
  assertEquals((await bad.next()).value!.indices, [1]);
  await assertRejects(() => bad.next(), RangeError, "no image 99");
});
