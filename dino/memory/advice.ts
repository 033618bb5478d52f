// What of a run that a device refused would fit there, found out by trying.

import { type Backend, OutOfMemoryError } from "../../models/graph/backend.ts";
import type { Config } from "../config.ts";
import { GLOBAL_VIEWS } from "../data/multicrop.ts";
import { programsOf } from "./fit.ts";
import type { RunPlan } from "../run/plan.ts";

type Change = Partial<Pick<Config, "recompute" | "accumulate" | "cropChunk" | "precision" | "batchSize">>;

/** Changes of a configuration that take less memory, the gentlest first of each kind. */
function* smaller(
  { recompute, batchSize, accumulate, cropChunk, localCropsNumber, precision, useBnInHead }: Config,
  ranks: number,
): Generator<[kind: string, Change]> {
  if (recompute === "never") yield ["recompute", { recompute: "always" }];
  const images = batchSize / accumulate / ranks;
  // Parts add up to the same update, but for batch norm, which would see fewer images.
  for (let parts = 2; parts <= images && !useBnInHead; parts++) {
    if (images % parts === 0) yield ["accumulate", { accumulate: accumulate * parts }];
  }
  const views = Math.min(cropChunk ?? Infinity, GLOBAL_VIEWS + localCropsNumber);
  for (let chunk = views - 1; chunk >= 1 && !useBnInHead; chunk--) yield ["chunk", { cropChunk: chunk }];
  if (precision === "f32") yield ["precision", { precision: "f16" }];
  for (let batch = Math.floor(batchSize / 2); batch >= 1; batch = Math.floor(batch / 2)) {
    if (batch % ranks === 0) yield ["batch", { batchSize: batch, accumulate: 1 }];
  }
}

const FLAGS = {
  recompute: "--recompute",
  accumulate: "--accumulate",
  cropChunk: "--crop-chunk",
  batchSize: "--batch-size",
  precision: "--precision",
};

/** Flags that would make a run fit, such as `--accumulate 4`; none if nothing does or the backend cannot tell. */
export async function whatFits(plan: RunPlan, backend: Pick<Backend, "name" | "holds">): Promise<string[]> {
  const found = new Map<string, string>();
  if (!backend.holds) return [];
  for (const [kind, change] of smaller(plan.config, plan.share?.size ?? 1)) {
    if (found.has(kind) || kind === "precision" && backend.name !== "webgpu") continue;
    const programs = programsOf({ ...plan, config: { ...plan.config, ...change } });
    if (!await backend.holds(programs, change.precision)) continue;
    const flags = Object.entries(change).filter(([key, value]) => plan.config[key as keyof Change] !== value);
    found.set(kind, flags.map(([key, value]) => `${FLAGS[key as keyof Change]} ${value}`).join(" "));
  }
  return [...found.values()];
}

/** What is said where not even one image fits: the networks are too large then, not the batch. */
export const NOTHING_FITS = "not even a batch of one image fits: use a smaller --arch, --out-dim or crop";

/** An error of compiling a run, with what would fit if memory was what lacked. */
export async function withWhatFits(error: unknown, plan: RunPlan, backend: Backend): Promise<unknown> {
  if (!(error instanceof OutOfMemoryError) || !backend.holds) return error;
  const fits = await whatFits(plan, backend).catch(() => undefined);
  if (!fits) return error;
  const advice = fits.length > 0 ? `what fits: ${fits.join(", or ")}` : NOTHING_FITS;
  return new OutOfMemoryError(`${error.message}; ${advice}`, { cause: error });
}
