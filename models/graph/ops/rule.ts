// What every kind of operation must tell: its float64 reference, its gradient, what it may do in place.
import type { Program } from "../program.ts";
import type { Tensor } from "../tensor.ts";
import type { Op } from "./mod.ts";

/** Tensors by their role in an operation. */
export type Slots = { readonly [slot: string]: Tensor | undefined };

/** One operation of a program. `attrs` are known when the program is written; nothing in them changes from run to run. */
export interface Operation<Kind extends string, In extends Slots, Out extends Slots, Attrs extends object> {
  /** Its name, which backends switch on. */
  readonly kind: Kind;
  /** Tensors it reads. */
  readonly in: In;
  /** Tensors it writes. */
  readonly out: Out;
  /** What is fixed when the program is written. */
  readonly attrs: Attrs;
}

/** Where a gradient goes: write it, or add to what is there. */
export interface GradientTarget {
  /** The buffer of the gradient. */
  readonly tensor: Tensor;
  /** Whether it holds earlier contributions. */
  readonly accumulate: boolean;
}

/** What a gradient rule may ask for while it appends the backward operations of one operation. */
export interface GradientContext {
  /** The program to append to. */
  readonly program: Program;
  /** The gradient of an output of the operation, complete by now; undefined if nothing depends on it. */
  of(output: Tensor): Tensor | undefined;
  /** Whether anyone wants the gradient of `t`. */
  needs(t: Tensor | undefined): t is Tensor;
  /** Claims the buffer for a contribution to the gradient of `t`. The caller must emit the operation that writes it. */
  target(t: Tensor | undefined): GradientTarget | undefined;
  /**
   * Hands over a finished gradient buffer as the gradient of `t` (aliasing it when it is the first contribution).
   * Call last in a rule: later contributions to `t` will be added into that buffer.
   */
  donate(t: Tensor | undefined, gradient: Tensor): void;
  /** The operation that made `t`, if it is its only writer and `t` has exactly one reader. */
  soleProducer(t: Tensor): Op | undefined;
}

/** The rules of one kind of operation. */
export interface OpRule<O> {
  /**
   * Computes the operation in float64, as plainly as possible. Every buffer, whatever its element
   * type, is a Float64Array there; views are subarrays of their base.
   */
  reference(op: O, at: (t: Tensor) => Float64Array): void;
  /** Appends the operations that compute the gradients of the inputs from those of the outputs. */
  gradient?(op: O, g: GradientContext): void;
  /** Outputs that may be left out when nothing reads them. */
  readonly optionalOutputs?: readonly string[];
  /** Output slots that may occupy the memory of an input slot that dies here: element i is read before it is written. */
  readonly inPlace?: Readonly<Record<string, string>>;
  /** Output slots whose old contents matter (read-modify-write) even without an input slot for them. */
  readsOutput?(op: O): readonly string[];
}
