// What a tuner asks of a backend: to compile with kernels that it names, and to have its memory as it was.
import type { Backend, Executable, MemoryUse, Precision } from "../../models/graph/backend.ts";
import type { Communicator } from "../../models/graph/communicator.ts";
import type { Program } from "../../models/graph/program.ts";
import type { AttentionChooser } from "../attention_choice.ts";
import type { AdapterSummary } from "../device.ts";
import type { MatmulChooser } from "../kernels/matmul_tiles.ts";
import type { LoweringLimits } from "../limits.ts";

/** What a program is compiled with. */
export interface CompileOptions {
  /** Tiles of products; default the guess. */
  readonly matmul?: MatmulChooser;
  /** Kernels of attentions; default the guess. */
  readonly attention?: AttentionChooser;
  /** Ids of the tensors to keep as f16, persistent ones too; default what the precision asks for. */
  readonly kept?: ReadonlySet<number>;
  /** Other ranks of the run; default none. */
  readonly communicator?: Communicator;
}

/** A backend whose kernels can be compared. */
export interface Tunable extends Backend {
  /** What it runs on. */
  readonly adapter: AdapterSummary;
  /** What kernels are lowered for. */
  readonly limits: LoweringLimits;
  /** What activations and copies of weights are kept as. */
  readonly precision: Precision;
  /** Whether it runs on another implementation than the runtime's own. */
  readonly strict: boolean;
  /** Compiles with given variants of products and attention. */
  compileWith(program: Program, options?: CompileOptions): Promise<Executable>;
  /** Throws the error the device reported, if any. */
  check(): void;
  /** Arena and scratch space of the sizes they had, if they have grown since. */
  shrinkShared(before: MemoryUse): void;
}
