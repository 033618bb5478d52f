// A backend in plain float64 TypeScript: the truth that kernels and gradients are tested against. It is slow on purpose.
import type { Backend, Executable, MemoryUse } from "./backend.ts";
import { dropUnreadOutputs } from "./autodiff.ts";
import { planMemory } from "./plan.ts";
import type { Program } from "./program.ts";
import { ALONE, type Communicator } from "./communicator.ts";
import { isCollective, referenceCollective, requireRanks } from "./ops/collective.ts";
import { ruleOf } from "./ops/mod.ts";
import { hostArray, rootOf, size, type Tensor, type TensorData } from "./tensor.ts";

/** Runs every operation by its float64 reference. */
export class ReferenceBackend implements Backend {
  /** Always `reference`. */
  readonly name = "reference";
  readonly description = "float64 reference, one thread";
  readonly fingerprint = "reference";
  /** Not counted. */
  readonly memory: MemoryUse = { persistent: 0, arena: 0, workspace: 0 };
  readonly #buffers = new Map<number, Float64Array>();

  /** Elements of a tensor, unrounded; activations of the last run included. */
  at(t: Tensor): Float64Array {
    const root = rootOf(t);
    let buffer = this.#buffers.get(root.id);
    if (!buffer) {
      buffer = new Float64Array(size(root));
      if (root.data) buffer.set(root.data);
      this.#buffers.set(root.id, buffer);
    }
    const start = t.offset ?? 0;
    return buffer.subarray(start, start + size(t));
  }

  // deno-lint-ignore require-await -- so that what it throws is a rejection
  async compile(program: Program, communicator: Communicator = ALONE): Promise<Executable> {
    requireRanks(program, communicator);
    dropUnreadOutputs(program);
    const plan = planMemory(program);
    return {
      program,
      plan,
      run: async () => {
        const at = (t: Tensor) => this.at(t);
        for (const op of program.ops) {
          if (isCollective(op)) await referenceCollective(op, at, communicator);
          else ruleOf(op).reference(op, at);
        }
      },
      dispose: () => {},
    };
  }

  write(t: Tensor, data: TensorData | Float64Array, offset = 0): void {
    this.at(t).set(data, offset);
  }

  read(t: Tensor): Promise<TensorData> {
    const result = hostArray(t);
    result.set(this.at(t));
    return Promise.resolve(result);
  }

  finish(): Promise<void> {
    return Promise.resolve();
  }

  free(...tensors: Tensor[]): void {
    for (const t of tensors) this.#buffers.delete(t.id);
  }

  close(): Promise<void> {
    this.#buffers.clear();
    return Promise.resolve();
  }
}
