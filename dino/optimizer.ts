// Which parameters decay, which wait for the last layer's turn, and the row of scalars each group gets for an update.

import { GROUP, GROUP_COLUMNS } from "../models/graph/ops/optimizer.ts";
import type { Config } from "./config.ts";
import type { ScheduledValues } from "./schedule.ts";

/** Parameter groups by their row in the group table. */
export const PARAMETER_GROUP = {
  /** Weights: anything with two extents or more that is not a bias. */
  decayed: 0,
  /** Biases and whatever has one extent. */
  notDecayed: 1,
  /** The head's last layer, which rests for the first epochs and then starts with fresh moments; decayed. */
  lastLayer: 2,
  /** Never updated: the gain of a last layer that is kept normalised. */
  fixed: 3,
} as const;

/** Rows of the group table. */
export const PARAMETER_GROUPS = 4;

/**
 * The group of a parameter, by the reference's rule: names ending in `.bias` and one-dimensional tensors do not decay.
 * So `cls_token`, `pos_embed`, the patch convolution and both halves of the last layer do.
 *
 * @param name such as `backbone.blocks.0.attn.qkv.weight` or `head.last_layer.weight_v`
 */
export function parameterGroup(
  name: string,
  shape: readonly number[],
  { normLastLayer }: Pick<Config, "normLastLayer">,
): number {
  if (name.endsWith("last_layer.weight_g") && normLastLayer) return PARAMETER_GROUP.fixed;
  if (name.includes("last_layer.")) return PARAMETER_GROUP.lastLayer;
  return name.endsWith(".bias") || shape.length === 1 ? PARAMETER_GROUP.notDecayed : PARAMETER_GROUP.decayed;
}

/** What the update of a step needs besides the schedules. */
export type OptimizerConfig = Pick<Config, "optimizer" | "adamBeta1" | "adamBeta2" | "clipGrad">;

/** Updates each group has had: a resting group counts none, as PyTorch's optimizers do for a missing gradient. */
export class OptimizerSteps {
  readonly #steps: number[];

  /** Begins with no updates, or with `steps` of a checkpoint, one for each group. */
  constructor(readonly config: OptimizerConfig, steps: readonly number[] = Array(PARAMETER_GROUPS).fill(0)) {
    if (steps.length !== PARAMETER_GROUPS || !steps.every((n) => Number.isSafeInteger(n) && n >= 0)) {
      throw new RangeError(`optimizer steps [${steps}]: wants ${PARAMETER_GROUPS} whole numbers`);
    }
    this.#steps = [...steps];
  }

  /** Updates so far, by group. */
  get steps(): number[] {
    return [...this.#steps];
  }

  /**
   * Counts one update and writes its group table.
   *
   * @param into [PARAMETER_GROUPS, GROUP_COLUMNS]; made when missing
   */
  next(values: ScheduledValues, into: Float32Array = new Float32Array(PARAMETER_GROUPS * GROUP_COLUMNS)): Float32Array {
    const { adamBeta1, adamBeta2, clipGrad } = this.config;
    for (let group = 0; group < PARAMETER_GROUPS; group++) {
      const active = group === PARAMETER_GROUP.lastLayer ? !values.lastLayerFrozen : group !== PARAMETER_GROUP.fixed;
      if (active) this.#steps[group]++;
      const count = Math.max(1, this.#steps[group]); // a resting group divides by it without using the quotient
      const decays = group !== PARAMETER_GROUP.notDecayed;
      const row = into.subarray(group * GROUP_COLUMNS, (group + 1) * GROUP_COLUMNS);
      row[GROUP.lr] = values.lr;
      row[GROUP.weightDecay] = decays ? values.weightDecay : 0;
      row[GROUP.biasCorrection1] = 1 - adamBeta1 ** count;
      row[GROUP.biasCorrection2] = 1 - adamBeta2 ** count;
      row[GROUP.clip] = clipGrad;
      row[GROUP.active] = active ? 1 : 0;
      row[GROUP.first] = this.#steps[group] <= 1 ? 1 : 0;
      row[GROUP.adapt] = decays ? 1 : 0;
    }
    return into;
  }
}
