// What the doctor does on a backend: every operation against float64, and every variant of a kernel against the others.

import type { WebGpu } from "../../gpu/mod.ts";
import type { Backend } from "../../models/graph/backend.ts";
import { checkOperations, type OperationCheck } from "../../models/graph/check_operations.ts";
import { cropsProgram } from "./crops.ts";
import { blockProgram, doctorPrograms, prepared } from "./programs.ts";
import { type VariantCheck, variantChecks } from "./variants.ts";

/**
 * float32 rounds each value to 6e-8 of it; operations here add up at most a few hundred, and softmax and norms divide by such sums.
 * A kernel that is wrong is off by a hundredth or more.
 */
const TOLERANCE = 2e-5;

/** f16 rounds each stored value to 2⁻¹¹ of it, operands and results; twice that where a driver truncates. */
const F16_TOLERANCE = 2 ** -7;

/** A kind of operation as it is told to another process. */
export interface Verdict extends Omit<OperationCheck, "error"> {
  readonly ok: boolean;
  /** null where it is not finite, which JSON cannot say. */
  readonly error: number | null;
}

/** How a backend fared. */
export interface Diagnosis {
  /** Of the largest value. */
  readonly tolerance: number;
  readonly checks: readonly Verdict[];
  readonly variants: readonly VariantCheck[];
  /** Names of what is off. */
  readonly off: readonly string[];
}

/**
 * Checks a backend.
 *
 * @param allVariants also those that a software adapter never chooses
 */
export async function diagnose(backend: Backend, allVariants: boolean, signal: AbortSignal): Promise<Diagnosis> {
  const tolerance = backend.precision === "f16" ? F16_TOLERANCE : TOLERANCE;
  const checks = (await checkBackend(backend, signal)).map(({ error, ...rest }) => ({
    ...rest,
    error: Number.isFinite(error) ? error : null,
    ok: error <= tolerance,
  }));
  const variants = await checkVariants(backend, allVariants, signal);
  const wrong = variants.flatMap(({ what, wrong }) => wrong.map((name) => `${what} by ${name}`));
  const off = [...checks.filter(({ ok }) => !ok).map(({ kind }) => kind), ...wrong];
  return { tolerance, checks, variants, off };
}

/** Every operation of the doctor's programs on a backend; the worst of each kind. */
export async function checkBackend(backend: Backend, signal?: AbortSignal): Promise<OperationCheck[]> {
  const worst = new Map<string, OperationCheck>();
  const programs = [...doctorPrograms(), await cropsProgram()];
  if (backend.name === "webgpu") {
    const { movePrologues } = await import("../../gpu/mod.ts");
    programs.push(prepared(movePrologues(blockProgram(), "all")));
  }
  const seen = new Set<string>(); // programs have operations in common
  for (const { program, reference } of programs) {
    signal?.throwIfAborted();
    for (const check of await checkOperations(backend, program, reference, seen)) {
      const before = worst.get(check.kind);
      const checked = check.checked + (before?.checked ?? 0);
      worst.set(check.kind, { ...(before && before.error >= check.error ? before : check), checked });
    }
  }
  return [...worst.values()].sort((a, b) => b.error - a.error);
}

/** Every variant of the kernels on a real adapter; software ones, which use others, are asked for it. */
async function checkVariants(backend: Backend, asked: boolean, signal: AbortSignal): Promise<VariantCheck[]> {
  if (backend.name !== "webgpu" || (backend as WebGpu).adapter.fallback && !asked) return [];
  const checks: VariantCheck[] = [];
  for await (const check of variantChecks(backend as WebGpu)) {
    checks.push(check);
    signal.throwIfAborted();
  }
  return checks;
}
