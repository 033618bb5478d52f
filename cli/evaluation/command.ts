// An evaluation as data: its flags, which images it reads, what it computes of them in the compute process.

import type { BackboneConfig } from "../../models/backbone.ts";
import type { Backend } from "../../models/graph/backend.ts";
import type { Normalization } from "../../models/graph/ops/augment.ts";
import type { Parameters } from "../../models/vit.ts";
import type { Preprocessing } from "../../models/weights/preprocessing.ts";
import type { PixelSource, Split } from "../../dino/data/dataset.ts";
import type { Field } from "../../dino/config/field.ts";
import type { LoadedWeights, NetworkName } from "../../dino/load_weights.ts";

/** What --weights said. */
export interface WeightsFlag {
  readonly weights: string | null;
}

/** Values of a table of fields. */
export type Values<F> = { readonly [K in keyof F]: F[K] extends Field<infer T> ? T : never };

/** Images a command reads. */
export interface SourceRequest {
  /** Folder, list, archive or a single image; null for the embedded sample; for messages only where `files` are given. */
  readonly path: string | null;
  /** Image files one by one, in this order. */
  readonly files?: readonly string[];
  readonly split?: Split;
  readonly limit?: number;
  /** Leave it out where the data set at `path` has no test half. */
  readonly ifHalved?: boolean;
  /** Any unreadable image is an error: results would be about other images than people believe. */
  readonly strict?: boolean;
  /** At original size, as with `strict`, though it may take much disk. */
  readonly original?: boolean;
}

/** An evaluation as the command line sees it; what it computes runs in the compute process. */
export interface EvaluationCommand<F extends Readonly<Record<string, Field>>> {
  readonly name: string;
  readonly usage: string;
  readonly about: string;
  readonly after?: readonly string[];
  readonly fields: F;
  /** It needs no weights: `backbone`, `parameters` and `weightsPath` of its context are not there. */
  readonly weightless?: true;
  /** Finds weights among the words that are no flags; left out, the one word is the weights. What it returns as `words` reaches the other functions in `flags.words`. */
  readWords?(
    positional: readonly string[],
    flags: Values<F> & WeightsFlag,
  ): Promise<{ readonly weights: string; readonly words: readonly string[] }>;
  /** Which images it reads, by name. */
  sources(flags: Values<F>, extra: unknown): Readonly<Record<string, SourceRequest>>;
  /**
   * Reads what is neither weights nor images (ground truth), and checks flags; its result reaches `evaluate` as `extra`.
   * @param temporary a folder that goes away with the command
   * @param signal Ctrl-C
   */
  prepare?(flags: Values<F>, temporary: string, signal?: AbortSignal): Promise<unknown>;
  /** Computes. */
  evaluate(context: EvaluationContext, flags: Values<F>): Promise<EvaluationOutcome>;
  /** What takes other programs, once all is computed: here it may start some. */
  finish?(flags: Values<F>, extra: unknown, finishing: Finishing): Promise<void>;
}

/** What the end of an evaluation works with. */
export interface Finishing {
  /** Ctrl-C. */
  readonly signal: AbortSignal;
  /** Says how far it is. */
  readonly progress: (what: string, done: number, total: number) => void;
}

/** What an evaluation works with. */
export interface EvaluationContext {
  readonly backend: Backend;
  readonly backbone: BackboneConfig;
  readonly parameters: Parameters;
  /** What the file of weights says is done to images; a run's own is not among it. */
  readonly preprocessing?: Preprocessing;
  /** Of the run the weights come from, of their preprocessing, or ImageNet's. */
  readonly normalization: Normalization;
  /** Batches that running statistics have seen. */
  readonly batchCounts: LoadedWeights["batchCounts"];
  readonly weightsPath: string;
  /** Which network of a checkpoint they are. */
  readonly network: NetworkName;
  readonly sources: Readonly<Record<string, PixelSource>>;
  /** What `prepare` made. */
  readonly extra: unknown;
  readonly signal: AbortSignal;
  /** Says how far it is; throws when it shall stop. */
  readonly progress: (what: string, done: number, total: number) => void;
  readonly notice: (message: string) => void;
}

/** What an evaluation found. */
export interface EvaluationOutcome {
  /** For --json. */
  readonly value: Readonly<Record<string, unknown>>;
  /** For people. */
  readonly lines: readonly string[];
}
