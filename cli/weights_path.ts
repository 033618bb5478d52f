// What a person may name as weights: a file, a Hugging Face folder, or a run, which stands for its latest checkpoint.

import { integer } from "../dino/field.ts";
import { RunFolder } from "../dino/run_folder.ts";
import { isWeightsFolder } from "../models/weights/huggingface.ts";

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
 * The path to load from.
 *
 * @throws {RangeError} if there is nothing of the kind
 */
export async function weightsPath(path: string): Promise<string> {
  const stat = await Deno.stat(path).catch(() => {
    throw new RangeError(`${path}: no such run folder or file of weights`);
  });
  if (!stat.isDirectory || await isWeightsFolder(path)) return path;
  const { folder } = await RunFolder.open(path).catch((error) => {
    throw new RangeError(
      `${path}: is neither a run folder nor one of weights: ${(error as Error).message.replace(`${path}: `, "")}`,
    );
  });
  folder.close();
  return folder.latestPath;
}
