// XCiT against numbers stored from PyTorch: features, gradients, running statistics; and its published sizes.

import type { Backend } from "../../models/graph/backend.ts";
import { differentiate } from "../../models/graph/autodiff.ts";
import { emitCopy } from "../../models/graph/ops/elementwise.ts";
import { patchify } from "../../models/graph/ops/tokens.ts";
import { Program } from "../../models/graph/program.ts";
import { type Tensor, tensor } from "../../models/graph/tensor.ts";
import { openWeights } from "../../models/weights/open.ts";
import { readFloat32 } from "../../models/weights/tensor_file.ts";
import {
  xcit,
  XCIT_SIZES,
  xcitBufferShapes,
  type XcitConfig,
  xcitConfig,
  xcitGrid,
  xcitShapes,
} from "../../models/xcit.ts";
import { assert, assertEquals, assertThrows } from "../assert.ts";
import { onEachBackend } from "../backends.ts";

const SMALL = xcitConfig({ patchSize: 8, embedDim: 16, depth: 1, numHeads: 2, imageSize: 16 });

/** Largest difference over the largest magnitude that was wanted. */
function relativeError(got: ArrayLike<number>, wanted: Float32Array): number {
  let difference = 0, largest = 1e-3;
  for (let i = 0; i < wanted.length; i++) {
    largest = Math.max(largest, Math.abs(wanted[i]));
    difference = Math.max(difference, Number.isNaN(got[i]) ? Infinity : Math.abs(got[i] - wanted[i]));
  }
  return difference / largest;
}

async function compare(backend: Backend, training: boolean): Promise<void> {
  const file = await openWeights(new URL("../fixtures/xcit/xcit.safetensors", import.meta.url));
  const stored = (name: string) => readFloat32(file, file.tensors.get(name)!);
  const parameters = new Map<string, Tensor>();
  for (const [name, shape] of [...xcitShapes(SMALL), ...xcitBufferShapes(SMALL)]) {
    assertEquals([...file.tensors.get(name)!.shape], shape, name);
    const t = tensor(name, shape, "param");
    backend.write(t, await stored(name));
    parameters.set(name, t);
  }
  const [images, , height, width] = file.tensors.get("images")!.shape; // ragged: 17 × 40
  const image = tensor("image", [images, 3, height, width], "input"), seed = tensor("seed", [images, 16], "input");
  backend.write(image, await stored("images"));
  backend.write(seed, await stored("seed"));
  const p = new Program("xcit");
  const batch = { patches: patchify(p, image, 1), images, height, width };
  const features = xcit(p, (name) => parameters.get(name)!, SMALL, batch, { training });
  const out = tensor("features", features.shape, "output");
  emitCopy(p, features, out);
  const gradients = xcitShapes(SMALL).map(([name, shape]) => [name, tensor(`d(${name})`, shape, "output")] as const);
  if (training) {
    differentiate(p, { seeds: [[features, seed]], wrt: gradients.map(([name, d]) => [parameters.get(name)!, d]) });
  }
  await (await backend.compile(p)).run();
  // Outputs of a layer norm, of the order of 1, behind sums of a few hundred float32 products on both sides.
  const off = relativeError(await backend.read(out), await stored(training ? "trained" : "evaluated"));
  assert(off < 2e-5, `features off by ${off}`);
  if (!training) return;
  for (const [name, gradient] of gradients) {
    // Through three batch norms over 30 to 340 pixels: float32 on both sides, relative to the tensor's largest.
    const off = relativeError(await backend.read(gradient), await stored(`gradient.${name}`));
    assert(off < 5e-4, `gradient of ${name} off by ${off}`);
  }
  for (const [name] of xcitBufferShapes(SMALL)) {
    const off = relativeError(await backend.read(parameters.get(name)!), await stored(`after.${name}`));
    assert(off < 1e-5, `${name} off by ${off}`);
  }
  file.close();
}

onEachBackend("XCiT: features, gradients and running statistics are PyTorch's", async (backend) => {
  await compare(backend, false);
  await compare(backend, true);
});

Deno.test("XCiT: as many parameters as published", () => {
  const elements = (config: XcitConfig) =>
    xcitShapes(config).reduce((sum, [, shape]) => sum + shape.reduce((a, b) => a * b, 1), 0);
  const counts: [keyof typeof XCIT_SIZES, number, number][] = [
    ["xcit_small_12", 16, 25_868_304],
    ["xcit_small_12", 8, 25_828_032],
    ["xcit_medium_24", 16, 83_882_752],
    ["xcit_medium_24", 8, 83_810_624],
  ];
  for (const [arch, patchSize, count] of counts) {
    assertEquals(elements(xcitConfig({ ...XCIT_SIZES[arch], patchSize })), count, `${arch}_p${patchSize}`);
  }
});

Deno.test("XCiT: grids round up, and what cannot be halved is refused", () => {
  assertEquals(xcitGrid({ patchSize: 16 }, 224, 97), [14, 7]);
  assertEquals(xcitGrid({ patchSize: 8 }, 1, 9), [1, 2]);
  const base = { embedDim: 16, depth: 1, numHeads: 2 };
  assertThrows(() => xcitConfig({ ...base, patchSize: 12 }), RangeError, "power of two");
  assertThrows(() => xcitConfig({ ...base, patchSize: 8, numHeads: 3 }), RangeError, "not a multiple of numHeads 3");
});
