// `dino convert`: weights from any format to any other; runs directly too.

import { pathExists } from "../dino/path_exists.ts";
import { boolean, choice, type Field, integer, number } from "../dino/config/field.ts";
import { type Conversion, convertWeights, formatOfPath, WEIGHT_FORMATS } from "../models/weights/convert.ts";
import { openWeights } from "../models/weights/open.ts";
import { describeReport } from "../models/weights/vit_weights.ts";
import { exitStatus } from "./terminal/failure.ts";
import { type FlagGroup, parseFlags } from "./terminal/flags.ts";
import { helpText } from "./terminal/help.ts";
import { givenArguments } from "./processes/mode.ts";
import { weightsPath } from "./terminal/weights_path.ts";

const what = {
  network: choice(["teacher", "student"], "teacher", "which network of a checkpoint", { aliases: ["checkpoint-key"] }),
  head: boolean(false, "take the projection head along (.pth, .safetensors, .npz)"),
  all: boolean(false, "every tensor under its own name, optimizer states and all, instead of one network"),
  numHeads: integer(null, "attention heads, where the file does not say; auto: one for 64 of its width", { min: 1 }),
  layerNormEps: number(null, "epsilon of the layer norms, where the file does not say; auto: 1e-6", { min: 0 }),
  imageSize: integer(null, "resample the position embedding for images of this side", { min: 1, unit: "pixels" }),
};
const how = {
  format: choice(["auto", ...WEIGHT_FORMATS], "auto", "auto: by the ending of OUT; a folder becomes Hugging Face's"),
  dtype: choice(["auto", "float32", "float16", "bfloat16"], "auto", "element type; auto: float32, with --all as it is"),
  fixedSize: boolean(false, "ONNX: only images of the native size, instead of any"),
  attention: boolean(false, "ONNX: an output for the last block's attention"),
  overwrite: boolean(false, "replace OUT if it is there"),
  quiet: boolean(false, "say nothing"),
  json: boolean(false, "print the result as JSON"),
};
const GROUPS: readonly FlagGroup[] = [{ title: "What", fields: what }, { title: "How", fields: how }];

type Values<F> = { readonly [K in keyof F]: F[K] extends Field<infer T> ? T : never };
type ConvertFlags = Values<typeof what & typeof how>;

/** Runs the command; returns its exit status. */
export async function main(words: readonly string[]): Promise<number> {
  return await exitStatus("convert", () => convertCommand(words));
}

async function convertCommand(words: readonly string[]): Promise<number> {
  const { given, positional, help } = parseFlags(words, GROUPS);
  if (help) {
    console.log(helpText({
      usage: "convert IN OUT [flags]",
      about:
        "Reads safetensors (also in shards), PyTorch files, Hugging Face folders, ONNX models, npz archives and runs; " +
        "writes .safetensors, .pth (.pt, .bin), .onnx, .npz, .npy, or a folder that transformers loads.",
      groups: GROUPS,
    }));
    return 0;
  }
  if (positional.length !== 2) throw new RangeError("wants two paths: convert IN OUT");
  const defaults = Object.fromEntries(Object.entries({ ...what, ...how }).map(([key, field]) => [key, field.default]));
  const flags = { ...defaults, ...given } as ConvertFlags;
  const [from, to] = positional;
  const format = flags.format === "auto" ? formatOfPath(to) : flags.format as Conversion["format"];
  if (!flags.overwrite && await pathExists(to)) {
    throw new RangeError(`${to}: is there already: choose another path, or --overwrite`);
  }
  const file = await openWeights(await weightsPath(from));
  try {
    const config = {
      ...(flags.numHeads === null ? {} : { numHeads: flags.numHeads }),
      ...(flags.layerNormEps === null ? {} : { layerNormEps: flags.layerNormEps }),
    };
    const result = await convertWeights(file, to, {
      format,
      config,
      network: flags.network,
      head: flags.head,
      all: flags.all,
      imageSize: flags.imageSize ?? undefined,
      dtype: flags.dtype === "auto" ? undefined : flags.dtype as Conversion["dtype"],
      fixedSize: flags.fixedSize,
      attention: flags.attention,
    });
    if (flags.json) console.log(JSON.stringify({ from, to, format, ...result }));
    else if (!flags.quiet) {
      const report = result.backbone ? `\n  ${describeReport(result.backbone.report)}` : "";
      console.log(`${to}: ${result.tensors} tensors, ${result.parameters} parameters as ${format}${report}`);
    }
    return 0;
  } finally {
    file.close();
  }
}

if (import.meta.main) Deno.exit(await main(givenArguments()));
