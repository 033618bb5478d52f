// Finds a network among the tensors of a file, whoever wrote it, and gives its tensors the published names.

import { elementCount, isFloat, readFloat32, type TensorFile, type TensorInfo, toFloat64 } from "./tensor_file.ts";

/** Which of the two networks of a DINO checkpoint. */
export type NetworkName = "teacher" | "student";

/** A tensor of a network, read (and put together, where other tools split it) when asked for. */
export interface NetworkTensor {
  /** Extents, of what it is made into. */
  readonly shape: readonly number[];
  /** Names in the file that it is made of. */
  readonly sources: readonly string[];
  /** Its elements, row-major. */
  read(): Promise<Float32Array<ArrayBuffer>>;
}

/** A network of a file. */
export interface NetworkTensors {
  /** Where it is read from: must stay open. */
  readonly file: TensorFile;
  /** Whose names the file uses. */
  readonly layout: "DINO or timm" | "Hugging Face";
  /** What kind of network, by its tensors. */
  readonly family: "vit" | "resnet" | "xcit";
  /** What the names in the file begin with. */
  readonly prefix: string;
  /** By published names: `backbone.*`, and `head.*` if the file has a projection head. */
  readonly tensors: ReadonlyMap<string, NetworkTensor>;
  /** How many batches the running statistics of batch norms have seen, by published names, which end in `num_batches_tracked`. */
  readonly counts: ReadonlyMap<string, TensorInfo>;
  /** Names of the file's other tensors: optimizer states, the other network, classifiers. */
  readonly rest: readonly string[];
}

/**
 * Finds a network.
 *
 * Names may begin with any of the usual wrappers (`module.`, `backbone.`, `teacher.`, `state_dict.`, `vit.`, …) and be
 * those of the DINO release, timm, or transformers (ViT, DINOv2). Split queries, keys and values are joined, layer scales
 * are multiplied into the weights before them.
 *
 * @throws {SyntaxError} if there is none, or only the other of student and teacher
 */
export function findNetwork(file: TensorFile, network: NetworkName = "teacher"): NetworkTensors {
  const anchor = chooseAnchor(file, network);
  const { prefix, huggingFace } = anchor;
  const inside = prefix.endsWith("backbone.") ? prefix.slice(0, -"backbone.".length) : undefined;
  const found = new Map<string, NetworkTensor>();
  const counts = new Map<string, TensorInfo>();
  const rest: string[] = [];
  const add = (name: string, info: TensorInfo) => {
    if (isBatchCount(name) && !isFloat(info.dtype) && elementCount(info.shape) === 1) counts.set(name, info);
    else found.set(name, { shape: info.shape, sources: [info.name], read: () => readFloat32(file, info) });
  };
  for (const [name, info] of file.tensors) {
    if (name.startsWith(prefix)) {
      const short = name.slice(prefix.length);
      const ours = huggingFace ? fromHuggingFace(short) : short;
      if (ours === undefined || ours.startsWith("head.") || IGNORED.test(ours)) rest.push(name);
      else add(`backbone.${ours}`, info);
    } else if (inside !== undefined && name.startsWith(`${inside}head.`)) add(name.slice(inside.length), info);
    else rest.push(name);
  }
  for (const [name, { name: inFile }] of counts) { // one without its batch norm counts nothing
    if (found.has(name.replace(COUNT, ".running_mean"))) continue;
    counts.delete(name);
    rest.push(inFile);
  }
  placeRegisters(found);
  renameXcit(found);
  joinQkv(found);
  foldLayerScale(found);
  const family = anchor.resnet ? "resnet" : found.has("backbone.patch_embed.proj.0.0.weight") ? "xcit" : "vit";
  return { file, layout: huggingFace ? "Hugging Face" : "DINO or timm", family, prefix, tensors: found, counts, rest };
}

const COUNT = /\.num_batches_tracked$/;

/** Whether a tensor of this name counts the batches that a batch norm's running statistics have seen. */
export function isBatchCount(name: string): boolean {
  return COUNT.test(name);
}

/** The name of that count, by the name of the running mean. */
export function batchCountName(runningMean: string): string {
  return runningMean.replace(/\.running_mean$/, ".num_batches_tracked");
}

/** Reads how many batches the running statistics of a network have seen, by published names; files may lack them. */
export async function readBatchCounts({ file, counts }: NetworkTensors): Promise<Map<string, number>> {
  const read = new Map<string, number>();
  for (const [name, info] of counts) read.set(name, toFloat64(info.dtype, await file.read(info))[0]);
  return read;
}

/** Of DINOv2's masked images, timm's pooling heads, DeiT's distillation: no part of a backbone. */
const IGNORED = /^(mask_token|fc_norm\.|head_dist\.|classifier\.|fc\.)/;

interface Anchor {
  readonly prefix: string;
  readonly huggingFace: boolean;
  readonly resnet: boolean;
}

function chooseAnchor(file: TensorFile, network: NetworkName): Anchor {
  const anchors: Anchor[] = [];
  for (const name of file.tensors.keys()) {
    if (name.includes("optimizer")) continue; // moments have the names of their parameters
    const at = (suffix: string) => name === suffix || name.endsWith(`.${suffix}`);
    if (at("embeddings.cls_token")) {
      anchors.push({ prefix: name.slice(0, -"embeddings.cls_token".length), huggingFace: true, resnet: false });
    } else if (at("cls_token")) {
      anchors.push({ prefix: name.slice(0, -"cls_token".length), huggingFace: false, resnet: false });
    } else if (at("layer1.0.conv1.weight")) {
      anchors.push({ prefix: name.slice(0, -"layer1.0.conv1.weight".length), huggingFace: false, resnet: true });
    }
  }
  const other = network === "teacher" ? "student" : "teacher";
  const has = (prefix: string, word: string) => prefix.split(".").includes(word);
  const usable = anchors.filter(({ prefix }) => !has(prefix, other));
  // The one that was asked for; else the plainest name.
  usable.sort((a, b) => +has(b.prefix, network) - +has(a.prefix, network) || a.prefix.length - b.prefix.length);
  if (usable.length > 0) return usable[0];
  throw new SyntaxError(
    anchors.length > 0
      ? `${file.name}: holds no ${network}, only a ${other}: ask for the ${other}`
      : `${file.name}: holds no network: neither cls_token (ViT, XCiT) nor layer1.0.conv1.weight (ResNet) is among its ` +
        `${file.tensors.size} tensors`,
  );
}

const HUGGING_FACE: readonly (readonly [RegExp, string])[] = [
  [/^embeddings\.cls_token$/, "cls_token"],
  [/^embeddings\.mask_token$/, "mask_token"],
  [/^embeddings\.register_tokens$/, "register_tokens"],
  [/^embeddings\.position_embeddings$/, "pos_embed"],
  [/^embeddings\.patch_embeddings\.projection\.(weight|bias)$/, "patch_embed.proj.$1"],
  [/^encoder\.layer\.(\d+)\.(?:layernorm_before|norm1)\.(weight|bias)$/, "blocks.$1.norm1.$2"],
  [/^encoder\.layer\.(\d+)\.(?:layernorm_after|norm2)\.(weight|bias)$/, "blocks.$1.norm2.$2"],
  [/^encoder\.layer\.(\d+)\.attention\.attention\.(query|key|value)\.(weight|bias)$/, "blocks.$1.attn.$2.$3"],
  [/^encoder\.layer\.(\d+)\.attention\.output\.dense\.(weight|bias)$/, "blocks.$1.attn.proj.$2"],
  [/^encoder\.layer\.(\d+)\.(?:intermediate\.dense|mlp\.fc1)\.(weight|bias)$/, "blocks.$1.mlp.fc1.$2"],
  [/^encoder\.layer\.(\d+)\.(?:output\.dense|mlp\.fc2)\.(weight|bias)$/, "blocks.$1.mlp.fc2.$2"],
  [/^encoder\.layer\.(\d+)\.layer_scale([12])\.lambda1$/, "blocks.$1.ls$2.gamma"],
  [/^layernorm\.(weight|bias)$/, "norm.$1"],
];

/** The published name of a tensor of transformers' ViT or DINOv2; undefined for poolers and classifiers. */
function fromHuggingFace(name: string): string | undefined {
  for (const [pattern, ours] of HUGGING_FACE) if (pattern.test(name)) return name.replace(pattern, ours);
  return undefined;
}

/** timm calls registers otherwise, and leaves out the position of [CLS] beside them: it is part of [CLS]. */
function placeRegisters(tensors: Map<string, NetworkTensor>): void {
  const registers = tensors.get("backbone.reg_token"), pos = tensors.get("backbone.pos_embed");
  if (!registers) return;
  tensors.delete("backbone.reg_token");
  tensors.set("backbone.register_tokens", registers);
  if (pos?.shape.length !== 3 || !Number.isInteger(Math.sqrt(pos.shape[1]))) return;
  const [one, count, D] = pos.shape;
  const read = async () => {
    const data = await pos.read(), all = new Float32Array(data.length + D);
    all.set(data, D);
    return all;
  };
  tensors.set("backbone.pos_embed", { shape: [one, count + 1, D], sources: pos.sources, read });
}

/** timm calls the positions of XCiT otherwise. */
function renameXcit(tensors: Map<string, NetworkTensor>): void {
  for (const part of ["weight", "bias"]) {
    const theirs = `backbone.pos_embed.token_projection.${part}`, tensor = tensors.get(theirs);
    if (!tensor) continue;
    tensors.delete(theirs);
    tensors.set(`backbone.pos_embeder.token_projection.${part}`, tensor);
  }
}

/** transformers, and timm in class attention, keep three matrices where the release has one: rows of queries, keys, values. */
function joinQkv(tensors: Map<string, NetworkTensor>): void {
  for (const name of [...tensors.keys()]) {
    const match = /^(.*\.attn\.)(query|q)\.(weight|bias)$/.exec(name);
    if (!match) continue;
    const names = (match[2] === "q" ? ["q", "k", "v"] : ["query", "key", "value"]).map((part) =>
      `${match[1]}${part}.${match[3]}`
    );
    const parts = names.map((part) => tensors.get(part));
    // A missing or odd one stays as it is, and is reported as unexpected.
    if (parts.some((part) => part === undefined || part.shape.join() !== parts[0]!.shape.join())) continue;
    const whole = parts as NetworkTensor[];
    const joined: NetworkTensor = {
      shape: [3 * whole[0].shape[0], ...whole[0].shape.slice(1)],
      sources: whole.flatMap(({ sources }) => sources),
      read: async () => {
        const data = [await whole[0].read(), await whole[1].read(), await whole[2].read()];
        const all = new Float32Array(3 * data[0].length);
        data.forEach((part, i) => all.set(part, i * part.length));
        return all;
      },
    };
    names.forEach((part) => tensors.delete(part));
    tensors.set(`${match[1]}qkv.${match[3]}`, joined);
  }
}

/** x + γ·(W·h + b) is x + (γW)·h + γb: a layer scale needs no layer of its own. */
function foldLayerScale(tensors: Map<string, NetworkTensor>): void {
  for (const [name, gamma] of [...tensors]) {
    const match = /^(.*\.)ls([12])\.gamma$/.exec(name);
    if (!match) continue;
    const layer = `${match[1]}${match[2] === "1" ? "attn.proj" : "mlp.fc2"}`;
    const weight = tensors.get(`${layer}.weight`), bias = tensors.get(`${layer}.bias`);
    if (weight?.shape[0] !== gamma.shape[0] || bias?.shape[0] !== gamma.shape[0]) continue;
    for (const [part, tensor] of [[`${layer}.weight`, weight], [`${layer}.bias`, bias]] as const) {
      tensors.set(part, {
        shape: tensor.shape,
        sources: [...tensor.sources, ...gamma.sources],
        read: async () => {
          const data = await tensor.read(), scale = await gamma.read();
          const columns = data.length / scale.length;
          for (let i = 0; i < data.length; i++) data[i] *= scale[Math.floor(i / columns)];
          return data;
        },
      });
    }
    tensors.delete(name);
  }
}

/** A classifier on frozen features, as the linear evaluation of the release saves it. */
export interface LinearClassifier {
  /** [classes, features] */
  readonly weight: Float32Array<ArrayBuffer>;
  /** [classes] */
  readonly bias: Float32Array<ArrayBuffer>;
  /** Rows of the weight. */
  readonly classes: number;
  /** Columns of the weight. */
  readonly features: number;
}

/**
 * Reads the linear classifier of a file (`linear.weight` and `linear.bias`, with any prefix).
 *
 * @throws {SyntaxError} if there is none
 */
export async function readLinearClassifier(file: TensorFile): Promise<LinearClassifier> {
  for (const [name, weight] of file.tensors) {
    if (name !== "linear.weight" && !name.endsWith(".linear.weight")) continue;
    const bias = file.tensors.get(`${name.slice(0, -"weight".length)}bias`);
    const [classes, features] = weight.shape;
    if (weight.shape.length !== 2 || bias?.shape.join() !== String(classes)) continue;
    return { weight: await readFloat32(file, weight), bias: await readFloat32(file, bias), classes, features };
  }
  throw new SyntaxError(`${file.name}: holds no linear.weight [classes, features] with its linear.bias`);
}
