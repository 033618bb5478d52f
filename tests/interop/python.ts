// A Python with other people's libraries: finding it, running a script of this folder, comparing what the script left.

import { openWeights } from "../../models/weights/open.ts";
import { readFloat32 } from "../../models/weights/tensor_file.ts";
import { assert } from "../assert.ts";
import { largestDifference } from "../models/weights/toy_vit.ts";

/** A Python that imports what is wanted, or why there is none. */
export type Python = { readonly python: string; readonly reason?: undefined } | { readonly reason: string };

/**
 * The Python that DENODINO_PYTHON names, or one on the path.
 *
 * @param modules that it must import, such as `torch, numpy`
 * @param wanted what to install, for the message
 */
export async function findPython(modules: string, wanted: string): Promise<Python> {
  const named = Deno.env.get("DENODINO_PYTHON");
  for (const python of named ? [named] : ["python3", "python"]) {
    try {
      const { success, stderr } = await new Deno.Command(python, {
        args: ["-c", `import ${modules}`],
        stdout: "null",
        stderr: "piped",
      }).output();
      if (success) return { python };
      return { reason: `${python}: ${new TextDecoder().decode(stderr).trim().split("\n").at(-1)}` };
    } catch { /* not there */ }
  }
  return { reason: `no Python: set DENODINO_PYTHON to one with ${wanted}` };
}

/** Runs a script of this folder on a folder of files. @returns what it printed */
export async function runScript(found: Python, script: string, folder: string): Promise<string> {
  if (found.reason !== undefined) throw new Error(found.reason);
  const { success, stdout, stderr } = await new Deno.Command(found.python, {
    args: [new URL(script, import.meta.url).pathname, folder],
    env: { HF_HUB_OFFLINE: "1", TRANSFORMERS_VERBOSITY: "error", OMP_NUM_THREADS: "1" },
  }).output();
  assert(success, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout).trim();
}

/** Compares values of ours with the `.npy` files of a folder, and keeps a list of the differences. */
export class Comparison {
  readonly checked: string[] = [];

  /** @param tolerance largest difference that passes, unless said otherwise */
  constructor(readonly folder: string, readonly tolerance: number) {}

  async same(name: string, ours: Float32Array, tolerance = this.tolerance): Promise<void> {
    const theirs = await openWeights(`${this.folder}/${name}.npy`);
    try {
      const [info] = theirs.tensors.values();
      const difference = largestDifference(await readFloat32(theirs, info), ours);
      assert(difference <= tolerance, `${name}: differs by ${difference}`);
      this.checked.push(`${name} ${difference.toExponential(1)}`);
    } finally {
      theirs.close();
    }
  }
}
