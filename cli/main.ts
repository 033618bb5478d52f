// `dino`: picks a command and loads only that one.

import { nearestName } from "../dino/flags.ts";
import { DECODER_COMMAND } from "./decoder_pool.ts";
import { EXIT_USAGE } from "./failure.ts";
import { COMPUTE_COMMAND } from "./launch.ts";
import { givenArguments } from "./mode.ts";
import { versionText } from "./version.ts";

/** A command's program: takes its words, returns its exit status. */
type Command = (words: readonly string[]) => Promise<number>;

// Literal imports, so that a compiled binary carries every command.
const COMMANDS: Readonly<Record<string, { about: string; load: () => Promise<Command> }>> = {
  train: { about: "train a Vision Transformer with DINO", load: async () => (await import("./train.ts")).main },
  knn: {
    about: "classify images by the nearest neighbours of their features",
    load: async () => (await import("./knn.ts")).main,
  },
  bench: {
    about: "measure kernels, steps and decoding on this machine",
    load: async () => (await import("./bench.ts")).main,
  },
};

// What a binary runs in the processes it starts from itself.
const HIDDEN: Readonly<Record<string, (words: string[]) => Promise<never>>> = {
  [COMPUTE_COMMAND]: async () => await (await import("./compute.ts")).serveCompute(),
  [DECODER_COMMAND]: async (words) => await (await import("./decoder.ts")).main(words),
};

/** Runs a command line; returns the exit status. */
export async function main(words: readonly string[]): Promise<number> {
  const [name, ...rest] = words;
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
  const lines = Object.entries(COMMANDS).map(([name, { about }]) => `  ${name.padEnd(8)}${about}`);
  return `Usage: dino COMMAND [flags]\n\n${
    lines.join("\n")
  }\n\ndino COMMAND --help tells more; dino --version says what this is.`;
}

if (import.meta.main) Deno.exit(await main(givenArguments()));
