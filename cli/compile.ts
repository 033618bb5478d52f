// Builds the two binaries: `dino` with V8's turbo flags baked in, `dino-checked` with bounds checks, which lie side by side.

import { join } from "node:path";
import { integer, text } from "../dino/config/field.ts";
import { lockForBinary } from "./compile_lock.ts";
import { EXIT_FAILURE, exitStatus } from "./terminal/failure.ts";
import { parseFlags } from "./terminal/flags.ts";
import { helpText } from "./terminal/help.ts";
import { type Mode, TURBO_FLAGS } from "./processes/mode.ts";
import { formatBytes } from "./terminal/std.ts";

const GROUPS = [{
  title: "Flags",
  fields: {
    out: text("dist", "folder for the binaries"),
    target: text(null, "platform to build for, such as aarch64-apple-darwin; default: this one"),
    copies: integer(2, "2: turbo and checked; 1: turbo only", { min: 1, max: 2 }),
  },
}];

/** Runs the command; returns its exit status. */
export async function main(words: readonly string[]): Promise<number> {
  return await exitStatus("compile", async () => {
    const { given, help } = parseFlags(words, GROUPS);
    if (help) {
      console.log(
        helpText({ usage: "deno task compile [flags]", about: "Compiles the command line.", groups: GROUPS }),
      );
      return 0;
    }
    const { out = "dist", target, copies = 2 } = given as { out?: string; target?: string; copies?: number };
    await Deno.mkdir(out, { recursive: true });
    const extension = (target ?? Deno.build.target).includes("windows") ? ".exe" : "";
    const builds: [Mode, string][] = [["turbo", `dino${extension}`], ["checked", `dino-checked${extension}`]];
    for (const [mode, name] of builds.slice(0, copies)) {
      const path = join(out, name);
      if (!await compile(mode, path, target)) return EXIT_FAILURE;
      console.log(`${path}: ${mode}, ${formatBytes((await Deno.stat(path)).size)}`);
    }
    return 0;
  });
}

async function compile(mode: Mode, path: string, target?: string): Promise<boolean> {
  const root = new URL("../", import.meta.url);
  const lock = await Deno.makeTempFile({ suffix: ".lock" });
  try {
    await Deno.writeTextFile(lock, lockForBinary(await Deno.readTextFile(new URL("deno.lock", root))));
    const { code } = await new Deno.Command(Deno.execPath(), {
      args: [
        "compile",
        "--quiet",
        "--no-check",
        "--allow-all",
        "--unstable-raw-imports",
        "--unstable-webgpu",
        `--lock=${lock}`,
        ...target ? [`--target=${target}`] : [],
        ...mode === "turbo" ? [`--v8-flags=${TURBO_FLAGS}`] : [],
        `--output=${path}`,
        new URL("cli/main.ts", root).href,
        `--built=${mode}`,
      ],
      stdout: "inherit",
      stderr: "inherit",
    }).output();
    if (code !== 0) {
      console.error(
        "compile: failed. Where the base runtime cannot be downloaded, set DENORT_BIN to one of this Deno's version; " +
          "tests/get_compile_base.ts makes one of an older Deno from the npm registry.",
      );
    }
    return code === 0;
  } finally {
    await Deno.remove(lock);
  }
}

if (import.meta.main) Deno.exit(await main(Deno.args));
