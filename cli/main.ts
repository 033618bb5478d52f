// `dino`: picks a command and loads only that one.

import { nearestName } from "../dino/config/nearest_name.ts";
import { DECODER_COMMAND } from "./processes/decoder_pool.ts";
import { EXIT_STATUSES, EXIT_USAGE } from "./terminal/failure.ts";
import { COMPUTE_COMMAND } from "./processes/launch.ts";
import { givenArguments } from "./processes/mode.ts";
import { versionText } from "./terminal/version.ts";

/** A command's program: takes its words, returns its exit status. */
type Command = (words: readonly string[]) => Promise<number>;

// Literal imports, so that a compiled binary carries every command.
const COMMANDS: Readonly<Record<string, { about: string; load: () => Promise<Command> }>> = {
  train: { about: "train a Vision Transformer with DINO", load: async () => (await import("./train.ts")).main },
  knn: {
    about: "classify images by the nearest neighbours of their features",
    load: async () => (await import("./knn.ts")).main,
  },
  linear: {
    about: "train linear classifiers on frozen features",
    load: async () => (await import("./linear.ts")).main,
  },
  finetune: {
    about: "train the whole network on labelled images",
    load: async () => (await import("./finetune.ts")).main,
  },
  few_shot: {
    about: "accuracy from few labels: k-NN and logistic regression",
    load: async () => (await import("./few_shot.ts")).main,
  },
  features: {
    about: "write features of images to a file",
    load: async () => (await import("./features.ts")).main,
  },
  map: {
    about: "draw images on a plane by their features (t-SNE), as a page",
    load: async () => (await import("./map.ts")).main,
  },
  search: {
    about: "index images; find the nearest ones, and near-duplicates",
    load: async () => (await import("./search.ts")).main,
  },
  retrieval: {
    about: "score image retrieval: Revisited Oxford and Paris",
    load: async () => (await import("./retrieval.ts")).main,
  },
  copy_detection: {
    about: "score the finding of altered copies: Copydays",
    load: async () => (await import("./copy_detection.ts")).main,
  },
  video_segmentation: {
    about: "carry a first frame's masks through videos: DAVIS 2017",
    load: async () => (await import("./video_segmentation.ts")).main,
  },
  attention: {
    about: "draw what the network looks at",
    load: async () => (await import("./attention.ts")).main,
  },
  convert: {
    about: "write weights in another format: .pth, safetensors, Hugging Face, ONNX, npz",
    load: async () => (await import("./convert.ts")).main,
  },
  inspect: {
    about: "list the tensors of a file of weights",
    load: async () => (await import("./inspect.ts")).main,
  },
  throughput: {
    about: "images a second and memory of every architecture and patch size",
    load: async () => (await import("./throughput.ts")).main,
  },
  bench: {
    about: "measure kernels, steps and decoding on this machine",
    load: async () => (await import("./bench.ts")).main,
  },
  doctor: {
    about: "check every kernel on this machine against a float64 reference",
    load: async () => (await import("./doctor.ts")).main,
  },
};

// What a binary runs in the processes it starts from itself.
const HIDDEN: Readonly<Record<string, (words: string[]) => Promise<never>>> = {
  [COMPUTE_COMMAND]: async () => await (await import("./processes/compute.ts")).serveCompute(),
  [DECODER_COMMAND]: async (words) => await (await import("./processes/decoder.ts")).main(words),
};

/** Runs a command line; returns the exit status. */
export async function main(words: readonly string[]): Promise<number> {
  const [first, ...rest] = words;
  const name = first?.startsWith("-") ? first : first?.replaceAll("-", "_"); // video-segmentation will do
  if (name !== undefined && Object.hasOwn(HIDDEN, name)) return await HIDDEN[name](rest);
  if (name === "--version" || name === "-V" || name === "version") {
    console.log(versionText());
    return 0;
  }
  if (name === undefined || name === "--help" || name === "-h" || name === "help") {
    console.log(usage());
    return name === undefined ? EXIT_USAGE : 0;
  }
  if (!Object.hasOwn(COMMANDS, name)) {
    const nearest = nearestName(name, Object.keys(COMMANDS));
    const known = nearest ? `did you mean ${nearest}?` : `there are ${Object.keys(COMMANDS).join(", ")}`;
    console.error(`dino: unknown command ${name}: ${known}`);
    return EXIT_USAGE;
  }
  const command = await COMMANDS[name].load();
  return await command(rest);
}

function usage(): string {
  const lines = Object.entries(COMMANDS).map(([name, { about }]) => `  ${name.padEnd(20)}${about}`);
  return `Usage: dino COMMAND [flags]\n\n${
    lines.join("\n")
  }\n\ndino COMMAND --help tells more; dino --version says what this is.\n${EXIT_STATUSES}`;
}

if (import.meta.main) Deno.exit(await main(givenArguments()));
