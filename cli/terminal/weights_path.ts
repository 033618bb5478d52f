// What a person may name as weights: a file, a Hugging Face folder, or a run, which stands for its latest checkpoint.

import { integer } from "../../dino/config/field.ts";
import { RunFolder } from "../../dino/run/folder.ts";
import { isWeightsFolder } from "../../models/weights/huggingface.ts";
import { openWeights } from "../../models/weights/open.ts";

/** The flag that tells what no shape does. */
export const headsFields = {
  numHeads: integer(null, "attention heads, where the weights do not say; auto: those of the published networks", {
    min: 1,
  }),
};

/** What a person said of the heads. */
export function givenHeads({ numHeads }: { readonly numHeads: number | null }): { numHeads: number } | undefined {
  return numHeads === null ? undefined : { numHeads };
}

/**
 * The path to load from; weights that cannot be read are refused here, before images are decoded for them.
 *
 * @throws {RangeError} if there is nothing of the kind
 * @throws {SyntaxError | TypeError} if the file is no weights, or damaged
 */
export async function weightsPath(path: string): Promise<string> {
  const stat = await Deno.stat(path).catch(() => {
    throw new RangeError(`${path}: no such run folder or file of weights`);
  });
  const file = stat.isDirectory && !await isWeightsFolder(path) ? await checkpointOf(path) : path;
  (await openWeights(file)).close();
  return file;
}

async function checkpointOf(path: string): Promise<string> {
  if (!await RunFolder.holdsRun(path)) {
    throw new RangeError(`${path}: is neither a run folder nor one of weights: name a run, or a file of weights`);
  }
  const { folder } = await RunFolder.open(path);
  folder.close();
  const [file] = await folder.resumable();
  if (file === undefined) throw new RangeError(`${path}: this run has no checkpoint yet: wait for its first epoch`);
  return file;
}
