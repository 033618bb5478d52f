// Tells whether a file is one of the published layouts: which network, which size, which names.

import { VIT_SIZES } from "../vit.ts";
import { findNetwork, type NetworkTensors, readLinearClassifier } from "./network.ts";
import { elementCount, type TensorFile } from "./tensor_file.ts";
import { RESNET_SIZES, resnetConfig } from "../resnet.ts";
import { compareResnet, inferResnet } from "./resnet_weights.ts";
import { XCIT_SIZES } from "../xcit.ts";
import { compareXcit, inferXcit } from "./xcit_weights.ts";
import { compareVit, describeReport, inferVit, type VitReading, type WeightsReport } from "./vit_weights.ts";

/** What a file is, in sentences, and whether it is what the DINO release publishes. */
export interface LayoutDescription {
  /** One on each network, and on a linear classifier. */
  readonly sentences: readonly string[];
  /** The tensors of each network held against what it needs: teacher and student of a full checkpoint, else one. */
  readonly reports: readonly { readonly network: string; readonly report: WeightsReport }[];
  /** The published file whose tensors these are, and by what it is known; undefined if there is none. */
  readonly published?: { readonly file: string; readonly by: "names and shapes" };
}

/** Names of the release's Vision Transformers, by architecture and patch size. */
const VIT_FILES: Readonly<Record<string, string>> = {
  "vit_small/16": "dino_deitsmall16",
  "vit_small/8": "dino_deitsmall8",
  "vit_base/16": "dino_vitbase16",
  "vit_base/8": "dino_vitbase8",
};

/** Sizes of the release's XCiTs; each has patches of 16 and of 8. */
const XCIT_FILES: readonly string[] = ["xcit_small_12", "xcit_medium_24"];

/**
 * Describes the networks of a file; never throws for a file that merely holds none.
 *
 * @param given what the file cannot tell about a ViT
 */
export async function describeLayout(file: TensorFile, given: VitReading["config"] = {}): Promise<LayoutDescription> {
  const linear = await readLinearClassifier(file).catch(() => undefined);
  const sentences = linear ? [`a linear classifier of ${linear.classes} classes on ${linear.features} features`] : [];
  let published: LayoutDescription["published"];
  const reports: { network: string; report: WeightsReport }[] = [];
  const full = ["student", "teacher"].every((role) =>
    [...file.tensors.keys()].some((name) => name.startsWith(`${role}.`))
  );
  for (const role of full ? ["teacher", "student"] as const : ["teacher"] as const) {
    let network: NetworkTensors;
    try {
      network = findNetwork(file, role);
    } catch (error) {
      const student = onlyStudent(file);
      if (!student) {
        if (!linear) sentences.push((error as Error).message.replace(`${file.name}: `, ""));
        continue;
      }
      network = student;
    }
    const { sentence, name, report } = describeNetwork(network, given, full ? role : undefined);
    sentences.push(sentence);
    if (report) reports.push({ network: full ? role : network.family, report });
    if (name && network.layout === "DINO or timm") {
      const bare = network.prefix === "" && report!.unexpected.length === 0;
      const by = "names and shapes";
      if (bare) published = { file: `${name}_pretrain.pth`, by };
      else if (full) published = { file: `${name}_pretrain_full_checkpoint.pth`, by };
    }
  }
  return { sentences, reports, published };
}

function onlyStudent(file: TensorFile): NetworkTensors | undefined {
  try {
    return findNetwork(file, "student");
  } catch {
    return undefined;
  }
}

/** A sentence, the published file it would be, and the report. */
interface Described {
  readonly sentence: string;
  readonly name?: string;
  readonly report?: WeightsReport;
}

function describeNetwork(network: NetworkTensors, given: VitReading["config"], role?: string): Described {
  const head = [...network.tensors.keys()].some((name) => name.startsWith("head.")) ? ", with a projection head" : "";
  const names = network.prefix === "" ? network.layout : `${network.layout}, behind "${network.prefix}"`;
  /** Sentence on how many parameters there are: those of the network, if it is known what belongs to it. */
  const ending = (report?: WeightsReport) => {
    const isParameter = ([name]: readonly [string, unknown]) =>
      (report ? report.matched.includes(name) : name.startsWith("backbone.")) && !/\.running_(mean|var)$/.test(name);
    const count = [...network.tensors].filter(isParameter).reduce((sum, [, { shape }]) => sum + elementCount(shape), 0);
    return `${count.toLocaleString("en").replaceAll(",", " ")} parameters${head}; names as in ${names}`;
  };
  const whose = role ? `${role}: ` : "";
  try {
    if (network.family === "resnet") {
      const { sentence, ...rest } = describeResnet(network);
      return { sentence: `${whose}${sentence}: ${ending(rest.report)}`, ...rest };
    }
    if (network.family === "xcit") {
      const { sentence, ...rest } = describeXcit(network, given);
      return { sentence: `${whose}${sentence}: ${ending(rest.report)}`, ...rest };
    }
    const { config, notices } = inferVit(network, given);
    const report = compareVit(network, config, notices);
    const whole = report.missing.length === 0 && report.shapeDifferences.length === 0;
    const size = Object.entries(VIT_SIZES).find(([, s]) => s.embedDim === config.embedDim && s.depth === config.depth);
    const native = size !== undefined && config.mlpRatio === 4 && config.qkvBias && config.imageSize === 224;
    const what = `a Vision Transformer ${size ? `${size[0]}, ` : ""}${config.embedDim} wide, ${config.depth} blocks, ` +
      `${config.numHeads} heads, patches of ${config.patchSize}, images of ${config.imageSize}`;
    const trouble = whole ? "" : `; not complete: ${describeReport(report)}`;
    const guessed = notices.length > 0 ? `; ${notices.join("; ")}` : "";
    return {
      sentence: `${whose}${what}: ${ending(report)}${whole ? guessed : trouble}`,
      name: whole && native ? VIT_FILES[`${size[0]}/${config.patchSize}`] : undefined,
      report,
    };
  } catch (error) {
    return { sentence: `${whose}${(error as Error).message.replace(`${network.file.name}: `, "")}; ${ending()}` };
  }
}

function describeResnet(network: NetworkTensors): Described {
  const config = inferResnet(network), report = compareResnet(network, config);
  const { block, layers, basePlanes, innerWidth, embedDim } = config;
  const size = Object.entries(RESNET_SIZES).find(([, size]) => {
    const known = resnetConfig(size);
    return known.block === block && known.layers.join() === layers.join() && known.basePlanes === basePlanes &&
      known.innerWidth === innerWidth;
  })?.[0];
  const whole = report.missing.length === 0 && report.shapeDifferences.length === 0;
  const trouble = whole ? "" : `; not complete: ${describeReport(report)}`;
  return {
    sentence: `a ResNet ${size ? `${size}, ` : ""}${embedDim} wide, ${layers.join(" + ")} ${block} blocks${trouble}`,
    name: whole && size === "resnet50" && config.inChannels === 3 ? "dino_resnet50" : undefined,
    report,
  };
}

function describeXcit(network: NetworkTensors, given: VitReading["config"]): Described {
  const config = inferXcit(network, given), report = compareXcit(network, config);
  const { embedDim, depth, classDepth, numHeads, patchSize } = config;
  const size = Object.entries(XCIT_SIZES).find(([, s]) =>
    s.embedDim === embedDim && s.depth === depth && s.numHeads === numHeads
  )?.[0];
  const whole = report.missing.length === 0 && report.shapeDifferences.length === 0;
  const trouble = whole ? "" : `; not complete: ${describeReport(report)}`;
  // timm's files of the same networks have other names for the positions.
  const released = [...network.file.tensors.keys()].some((name) => name.endsWith("pos_embeder.token_projection.bias"));
  const native = whole && released && classDepth === 2 && config.inChannels === 3 && XCIT_FILES.includes(size ?? "");
  return {
    sentence: `an XCiT ${size ? `${size}_p${patchSize}, ` : ""}${embedDim} wide, ${depth} + ${classDepth} blocks, ` +
      `${numHeads} heads, patches of ${patchSize}${trouble}`,
    name: native ? `dino_${size}_p${patchSize}` : undefined,
    report,
  };
}
