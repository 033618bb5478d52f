// Kinds checkpoint_pth and checkpoint_hostile: what PyTorch files hold, and which of them must be refused.
import { NumpyScalar } from "../../../models/weights/plain_globals.ts";
import { PickleObject, PickleTuple } from "../../../models/weights/pickle.ts";
import { findNetwork } from "../../../models/weights/network.ts";
import { compareVit, inferVit } from "../../../models/weights/vit_weights.ts";
import { openPytorch } from "../../../models/weights/pytorch.ts";
import { PytorchTensor } from "../../../models/weights/pytorch_tensor.ts";
import { openFileSource, type SafetensorsDType } from "../../../models/weights/safetensors.ts";
import { type TensorFile, toFloat64 } from "../../../models/weights/tensor_file.ts";
import type { GoldenCase } from "../golden_case.ts";

async function open(path: string): Promise<TensorFile> {
  const source = await openFileSource(path);
  try {
    return await openPytorch(source);
  } catch (error) {
    source.close!();
    throw error;
  }
}

export async function checkpointPth(golden: GoldenCase) {
  const file = await open(`${golden.folder}/${golden.config.file}`);
  try {
    for (const [name, { shape, dtype }] of Object.entries(golden.tensors)) {
      const info = file.tensors.get(name);
      const same = info?.dtype === dtype && info.shape.join() === shape.join();
      golden.check(`${name} dtype and shape`, same, 0, 0, info && `${info.dtype} [${info.shape}]`);
      if (info) golden.compare(name, toFloat64(info.dtype, await file.read(info)));
    }
    const order = golden.expected.paths.value as string[];
    golden.check("paths", [...file.tensors.keys()].join() === order.join());
    for (const name of Object.keys(golden.expected).filter((name) => name.startsWith("load"))) {
      checkLoad(golden, file, name);
    }
    golden.check("structure", same(structure(file.object), golden.expected.structure.value));
  } finally {
    file.close();
  }
}

/** Which tensors the reference's loader took, missed and left, once prefixes are gone. */
function checkLoad(golden: GoldenCase, file: TensorFile, name: string) {
  const { checkpoint_key, keys_after_prefix_removal, missing_in_file, not_used_by_backbone } = golden.expected[name]
    // deno-lint-ignore no-explicit-any
    .value as any;
  const network = findNetwork(file, checkpoint_key ?? undefined);
  const { num_heads, ln_eps } = golden.expected.backbone.value as { num_heads: number; ln_eps: number };
  const { config } = inferVit(network, { numHeads: num_heads, layerNormEps: ln_eps });
  const report = compareVit(network, config);
  const text = (names: string[]) => names.map((name) => name.replace(/^backbone\./, "")).sort().join();
  const found = [...network.tensors.keys(), ...network.counts.keys()];
  const heads = found.filter((name) => name.startsWith("head."));
  golden.check(`${name} keys`, text(found) === text(keys_after_prefix_removal));
  golden.check(`${name} missing`, text([...report.missing]) === text(missing_in_file));
  golden.check(`${name} not used`, text(heads) === text(not_used_by_backbone));
  const { img_size, patch_size, in_chans, embed_dim, depth, mlp_ratio, qkv_bias } = golden.expected.backbone
    // deno-lint-ignore no-explicit-any
    .value as any;
  const extents = [
    config.imageSize,
    config.patchSize,
    config.inChannels,
    config.embedDim,
    config.depth,
    config.mlpRatio,
  ];
  const wanted = [img_size, patch_size, in_chans, embed_dim, depth, mlp_ratio];
  golden.check(`${name} architecture`, extents.join() === wanted.join() && config.qkvBias === qkv_bias);
}

const TORCH_NAMES: Readonly<Record<SafetensorsDType, string>> = {
  F64: "float64",
  F32: "float32",
  F16: "float16",
  BF16: "bfloat16",
  I64: "int64",
  I32: "int32",
  I16: "int16",
  I8: "int8",
  U8: "uint8",
  BOOL: "bool",
  U16: "uint16",
  U32: "uint32",
  U64: "uint64",
};

/** The object as case.json writes it. */
function structure(value: unknown): unknown {
  const record = (map: Map<unknown, unknown>) =>
    Object.fromEntries([...map].map(([key, child]) => [String(key), structure(child)]));
  if (value instanceof PytorchTensor) return { $tensor: [TORCH_NAMES[value.dtype], [...value.shape]] };
  if (value instanceof NumpyScalar) return { $numpy_scalar: value.value, dtype: value.dtype };
  if (value instanceof PickleTuple) return { $tuple: value.items.map(structure) };
  if (value instanceof PickleObject) return { $namespace: record(value.fields) };
  if (value instanceof Map) return record(value);
  if (Array.isArray(value)) return value.map(structure);
  return typeof value === "bigint" ? Number(value) : value; // JSON.parse made a number of it, too
}

function same(a: unknown, b: unknown): boolean {
  const sorted = (_key: string, value: unknown) =>
    value && typeof value === "object" && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).sort(([x], [y]) => x < y ? -1 : 1))
      : value;
  return JSON.stringify(a, sorted) === JSON.stringify(b, sorted);
}

export async function checkpointHostile(golden: GoldenCase) {
  for (const { file: name, must_reject, w } of golden.config.files) {
    let outcome: string | undefined, values: number[] | undefined, clear = true;
    try {
      const file = await open(`${golden.folder}/${name}`);
      try {
        // A reader may as well refuse when the elements are asked for.
        for (const info of file.tensors.values()) values = [...toFloat64(info.dtype, await file.read(info))];
      } finally {
        file.close();
      }
    } catch (error) {
      outcome = String(error);
      clear = (error instanceof SyntaxError || error instanceof TypeError) && outcome.includes(name);
    }
    const passed = must_reject ? outcome !== undefined && clear : values?.join() === w.flat().join();
    golden.check(name, passed, 0, 0, outcome ?? "was accepted");
  }
}
