// Reverse-mode differentiation: appends the backward operations of a program to it.
import { inputsOf, outputsOf, type Program } from "./program.ts";
import { type Op, ruleOf } from "./ops/mod.ts";
import { emitAddInto, emitCopy } from "./ops/elementwise.ts";
import type { GradientContext, GradientTarget } from "./ops/rule.ts";
import { type Recomputation, recompute } from "./recompute.ts";
import { rootOf, type Tensor } from "./tensor.ts";

/** Gradients to start from and gradients wanted. */
export interface Differentiation {
  /** Known gradients: [tensor, its gradient buffer], e.g. logits and what the loss operation wrote for them. */
  readonly seeds: ReadonlyArray<readonly [Tensor, Tensor]>;
  /** Wanted gradients: [parameter or input, buffer to write]. */
  readonly wrt: ReadonlyArray<readonly [Tensor, Tensor]>;
  /** Add to the wanted buffers instead of overwriting them (gradient accumulation over micro-batches). */
  readonly accumulate?: boolean;
  /** The first operation of the forward pass; default the first of the program. */
  readonly from?: number;
  /** What is computed again instead of being kept; default nothing. */
  readonly recompute?: Recomputation;
}

/**
 * Appends to `program` what computes the gradients of `wrt` from `seeds`. Buffers of `wrt` that nothing
 * contributes to are not written.
 */
export function differentiate(
  program: Program,
  { seeds, wrt, accumulate = false, from = 0, recompute: again = {} }: Differentiation,
): void {
  const forward = program.ops.slice(from), end = program.ops.length;
  const context = new Context(program, forward, seeds, wrt, accumulate);
  for (const op of forward.reverse()) {
    if (outputsOf(op).some((t) => context.of(t))) ruleOf(op).gradient?.(op, context);
  }
  for (const gradient of context.found()) program.gradients.add(rootOf(gradient).id);
  recompute(program, from, end, again);
}

class Context implements GradientContext {
  readonly #gradients = new Map<number, Tensor>();
  readonly #wanted = new Map<number, { buffer: Tensor; started: boolean }>();
  readonly #needed = new Set<number>();
  readonly #producers = new Map<number, Op | null>();
  readonly #readers = new Map<number, number>();

  constructor(
    readonly program: Program,
    forward: readonly Op[],
    seeds: Differentiation["seeds"],
    wrt: Differentiation["wrt"],
    accumulate: boolean,
  ) {
    for (const [t, gradient] of seeds) this.#gradients.set(t.id, gradient);
    for (const [t, buffer] of wrt) {
      this.#wanted.set(t.id, { buffer, started: accumulate });
      this.#needed.add(t.id);
    }
    for (const op of forward) {
      const inputs = inputsOf(op);
      for (const t of inputs) this.#readers.set(t.id, (this.#readers.get(t.id) ?? 0) + 1);
      if (!ruleOf(op).gradient) continue;
      const differentiable = inputs.some((t) => this.#needed.has(t.id));
      for (const t of outputsOf(op)) {
        this.#producers.set(t.id, this.#producers.has(t.id) ? null : op);
        if (differentiable) this.#needed.add(t.id);
      }
    }
  }

  found(): Iterable<Tensor> {
    return this.#gradients.values();
  }

  of(output: Tensor): Tensor | undefined {
    return this.#gradients.get(output.id);
  }

  needs(t: Tensor | undefined): t is Tensor {
    return t !== undefined && this.#needed.has(t.id);
  }

  target(t: Tensor | undefined): GradientTarget | undefined {
    if (!this.needs(t)) return undefined;
    const wanted = this.#wanted.get(t.id);
    if (wanted) {
      const accumulate = wanted.started;
      wanted.started = true;
      this.#gradients.set(t.id, wanted.buffer);
      return { tensor: wanted.buffer, accumulate };
    }
    const existing = this.#gradients.get(t.id);
    if (existing) return { tensor: existing, accumulate: true };
    const made = this.program.activation(`d(${t.name})`, t.shape);
    this.#gradients.set(t.id, made);
    return { tensor: made, accumulate: false };
  }

  donate(t: Tensor | undefined, gradient: Tensor): void {
    if (!this.needs(t)) return;
    if (!this.#wanted.has(t.id) && !this.#gradients.has(t.id)) {
      this.#gradients.set(t.id, gradient);
      return;
    }
    const { tensor, accumulate } = this.target(t)!;
    if (accumulate) emitAddInto(this.program, tensor, gradient);
    else emitCopy(this.program, gradient, tensor);
  }

  soleProducer(t: Tensor): Op | undefined {
    return this.#readers.get(t.id) === 1 ? this.#producers.get(t.id) ?? undefined : undefined;
  }
}

/** Removes optional outputs that nothing reads (what only a backward pass would have needed). */
export function dropUnreadOutputs(program: Program): void {
  const read = new Set(program.ops.flatMap(inputsOf).map((t) => (t.base ?? t).id));
  program.ops.forEach((op, i) => {
    const optional = ruleOf(op).optionalOutputs ?? [];
    const out = Object.fromEntries(
      (Object.entries(op.out) as [string, Tensor | undefined][]).filter(([slot, t]) =>
        !optional.includes(slot) || !t || t.role !== "activation" || read.has((t.base ?? t).id)
      ),
    );
    program.ops[i] = { ...op, out } as Op;
  });
}
