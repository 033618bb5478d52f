// Program → list of steps: each operation becomes one or a few, with addresses and extents filled in.
import { dropUnreadOutputs } from "../models/graph/autodiff.ts";
import type { Op } from "../models/graph/ops/mod.ts";
import { aligned, type MemoryPlan } from "../models/graph/plan.ts";
import { Program } from "../models/graph/program.ts";
import { byteLength, bytesPerElement, rootOf, type Tensor } from "../models/graph/tensor.ts";
import type { Code } from "./codes.ts";
import { StepField, StepFlag } from "./codes.ts";
import { planWithPanels, type SharedPanels } from "./shared_panels.ts";
import type { AnyLowering, Lowering, Lowerings } from "./lowering.ts";
import { allocated, type Layout } from "./memory.ts";
import { attentionLowerings } from "./ops/attention.ts";
import { augmentLowerings } from "./ops/augment.ts";
import { batchNormLowerings } from "./ops/batch_norm.ts";
import { convolutionLowerings } from "./ops/convolution.ts";
import { elementwiseLowerings } from "./ops/elementwise.ts";
import { lossLowerings } from "./ops/loss.ts";
import { matmulLowerings } from "./ops/matmul.ts";
import { normLowerings } from "./ops/norm.ts";
import { optimizerLowerings } from "./ops/optimizer.ts";
import { poolingLowerings } from "./ops/pooling.ts";
import { tokenLowerings } from "./ops/tokens.ts";
import { xcitLowerings } from "./ops/xcit.ts";

const lowerings: Lowerings = {
  // No step: the run stops there, and the host carries the operand to the other ranks.
  allReduce: () => {},
  allGather: () => {},
  ...matmulLowerings,
  ...elementwiseLowerings,
  ...normLowerings,
  ...batchNormLowerings,
  ...attentionLowerings,
  ...tokenLowerings,
  ...lossLowerings,
  ...optimizerLowerings,
  ...augmentLowerings,
  ...convolutionLowerings,
  ...poolingLowerings,
  ...xcitLowerings,
};

/** One step, before it is written to the shared memory. */
export interface Step {
  readonly code: Code;
  readonly chunks: number;
  readonly args: readonly number[];
  /** Index of the operation it belongs to. */
  readonly op: number;
}

/** What the steps need beside tensors. */
export interface StepList {
  readonly steps: readonly Step[];
  /** Bytes of scratch that steps of one operation share. */
  readonly workspaceBytes: number;
  /** Bytes of private scratch of a thread. */
  readonly scratchBytes: number;
}

/** What lowering depends on beside the program. */
export interface Machine {
  readonly threads: number;
  readonly tileColumns: number;
}

/** Where things lie; without it a list is only good for counting. */
export interface Addresses {
  /** Of the root of a tensor. */
  root(root: Tensor): number;
  /** Of a place in the arena. */
  inArena(offset: number, bytes: number): number;
  readonly workspace: number;
}

const NOWHERE: Addresses = { root: () => 0, inArena: () => 0, workspace: 0 };

/** Lowers every operation. `panels`: what products share, as {@link planWithPanels} found. */
export function lower(
  program: Program,
  machine: Machine,
  panels: ReadonlyMap<Op, SharedPanels>,
  addresses: Addresses = NOWHERE,
): StepList {
  const steps: Step[] = [];
  let workspaceBytes = 0, scratchBytes = 0;
  program.ops.forEach((op, index) => {
    let used = 0;
    const to: Lowering = {
      ...machine,
      at: (t) => t ? addresses.root(rootOf(t)) + (t.offset ?? 0) * bytesPerElement(t.dtype) : 0,
      panels(op) {
        const shared = panels.get(op);
        return shared && { address: addresses.inArena(shared.offset, aligned(shared.bytes)), packed: shared.packed };
      },
      workspace(bytes) {
        const start = addresses.workspace + used;
        used += allocated(bytes);
        workspaceBytes = Math.max(workspaceBytes, used);
        return start;
      },
      scratch: (bytes) => scratchBytes = Math.max(scratchBytes, bytes),
      step(code, chunks, args) {
        if (chunks > 0) steps.push({ code, chunks, args, op: index });
      },
    };
    loweringOf(op)(op, to);
  });
  return { steps, workspaceBytes, scratchBytes };
}

function loweringOf(op: Op): AnyLowering {
  const found = lowerings[op.kind];
  if (!found) throw new TypeError(`wasm: no kernel for operation "${op.kind}"`);
  return found as AnyLowering;
}

/** Bytes of kernels' own scratch that a program takes on this backend, all threads together; opens nothing. */
export function workspaceBytes(program: Program, { threads }: { threads: number }): number {
  const copy = new Program(program.name).append(program);
  dropUnreadOutputs(copy);
  const { workspaceBytes, scratchBytes } = lower(copy, { threads, tileColumns: 16 }, planWithPanels(copy).panels);
  return allocated(workspaceBytes) + threads * allocated(scratchBytes);
}

/** Address of an activation's root by the plan. */
export function activationAddress(layout: Layout, plan: MemoryPlan, root: Tensor): number {
  return layout.activationAddress(plan.offsets.get(root.id)!, aligned(byteLength(root)));
}

/** Steps of a single chunk are left to one thread, and only the last of several in a row is waited for. */
export function writeSteps(words: Uint32Array, steps: readonly Step[], threads: number): void {
  const perStep = StepField.bytes / 4;
  steps.forEach(({ code, chunks, args }, i) => {
    const solo = chunks === 1 || threads === 1;
    const next = steps[i + 1];
    const nextSolo = next !== undefined && (next.chunks === 1 || threads === 1);
    const barrier = threads > 1 && !(solo && (nextSolo || !next));
    const start = i * perStep;
    words.fill(0, start, start + perStep);
    words[start + StepField.code / 4] = code;
    words[start + StepField.chunks / 4] = chunks;
    words[start + StepField.flags / 4] = (solo ? StepFlag.solo : 0) | (barrier ? StepFlag.barrier : 0);
    words.set(args, start + StepField.arguments / 4);
  });
}
