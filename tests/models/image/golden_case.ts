// The stored outputs of Pillow that the augmentation must reproduce, read into memory.
import { bytesSource, readSafetensorsHeader } from "../../../models/weights/safetensors.ts";
import type { ImageStep } from "../../../models/image/steps.ts";
import { type Raster, raster } from "../../../models/image/raster.ts";

interface GoldenOp {
  key: string;
  input: string;
  steps: ImageStep[];
  to_tensor_normalize?: boolean;
  output: string;
  output_u8?: string;
}

/** One stored distribution of random boxes. */
export interface CropStatistics {
  scale: [number, number];
  ratio: [number, number];
  image: [number, number];
  n: number;
  stats: Record<string, { mean: number; std: number; quantiles: Record<string, number> }>;
}

/** The augmentation case: its operations, its expected values, its tensors by name. */
export interface AugmentCase {
  ops: GoldenOp[];
  normalization: { mean: number[]; deviation: number[] };
  // deno-lint-ignore no-explicit-any
  expected: Record<string, { value: any }>;
  bytes(name: string): Uint8Array<ArrayBuffer>;
  floats(name: string): Float32Array;
  ints(name: string): Int32Array;
  image(name: string): Raster;
  shape(name: string): number[];
}

/** Reads the case kept beside the tests. */
export async function readAugmentCase(): Promise<AugmentCase> {
  const folder = new URL("../../fixtures/golden/augment__landscape/", import.meta.url);
  const description = JSON.parse(await Deno.readTextFile(new URL("case.json", folder)));
  const file = await Deno.readFile(new URL("tensors.safetensors", folder));
  const header = await readSafetensorsHeader(bytesSource(file));
  const record = (name: string) => {
    const found = header.tensors.get(name);
    if (!found) throw new RangeError(`golden case: no tensor "${name}"`);
    return found;
  };
  const bytes = (name: string) => file.slice(record(name).start, record(name).start + record(name).byteLength);
  const { mean, std } = description.config;
  return {
    ops: description.config.ops,
    normalization: { mean, deviation: std },
    expected: description.expected,
    bytes,
    floats: (name) => new Float32Array(bytes(name).buffer),
    ints: (name) => new Int32Array(bytes(name).buffer),
    image: (name) => raster(bytes(name), record(name).shape[0], record(name).shape[1]),
    shape: (name) => [...record(name).shape],
  };
}
