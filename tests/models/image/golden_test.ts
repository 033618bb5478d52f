// Every stored output of Pillow and torchvision, bit for bit, from the reference of the augmentation.
import { ReferenceBackend } from "../../../models/graph/reference.ts";
import { resizeMaskNearest } from "../../../models/image/host_resize.ts";
import { assert, assertEquals } from "../../assert.ts";
import { checkAugmentCase } from "./check_case.ts";
import { readAugmentCase } from "./golden_case.ts";

Deno.test("the reference reproduces every stored augmentation bit for bit", async () => {
  const checked = await checkAugmentCase(new ReferenceBackend(), { levels: 0, normalized: 0 });
  assert(checked > 50);
});

Deno.test("nearest-neighbour masks equal Pillow's", async () => {
  const golden = await readAugmentCase();
  const mask = golden.bytes("mask"), [height, width] = golden.shape("mask");
  for (let i = 0; i < 4; i++) {
    const [toHeight, toWidth] = golden.shape(`output.mask_nearest${i}`);
    const resized = resizeMaskNearest(mask, height, width, toHeight, toWidth);
    assertEquals(resized, golden.bytes(`output.mask_nearest${i}`));
  }
});
