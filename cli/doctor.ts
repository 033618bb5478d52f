// `dino doctor`: runs the kernels on this machine against a float64 reference and tells how far off they are; runs directly too.

import { deviceFields, VERBOSE_ADVICE } from "../dino/config.ts";
import { boolean, type Field } from "../dino/config/field.ts";
import type { WebGpu } from "../gpu/mod.ts";
import type { Backend } from "../models/graph/backend.ts";
import { checkOperations, type OperationCheck } from "../models/graph/check_operations.ts";
import { openBackend } from "./device/backend.ts";
import { cropsProgram } from "./doctor/crops.ts";
import { blockProgram, doctorPrograms, prepared } from "./doctor/programs.ts";
import { type VariantCheck, variantChecks, variantText } from "./doctor/variants.ts";
import { exitStatus } from "./terminal/failure.ts";
import { type FlagGroup, parseFlags } from "./terminal/flags.ts";
import { helpText } from "./terminal/help.ts";
import type { DeviceChoice } from "./processes/messages.ts";
import { givenArguments } from "./processes/mode.ts";

/**
 * float32 rounds each value to 6e-8 of it; operations here add up at most a few hundred, and softmax and norms divide by such sums.
 * A kernel that is wrong is off by a hundredth or more.
 */
const TOLERANCE = 2e-5;

/** f16 rounds each stored value to 2⁻¹¹ of it, operands and results; twice that where a driver truncates. */
const F16_TOLERANCE = 2 ** -7;

const { backend, adapter, threads, webgpu, precision } = deviceFields;
const command = {
  json: boolean(false, "print the result as JSON"),
  variants: boolean(false, "compare every variant of the kernels on a software adapter too, at small sizes"),
  verbose: boolean(false, VERBOSE_ADVICE),
};
const GROUPS: readonly FlagGroup[] = [
  { title: "Device", fields: { backend, adapter, threads, webgpu, precision } },
  { title: "Command", fields: command },
];

type Values<F> = { readonly [K in keyof F]: F[K] extends Field<infer T> ? T : never };

/** Runs the command; returns its exit status: 1 when a kernel is off. */
export async function main(words: readonly string[]): Promise<number> {
  return await exitStatus("doctor", () => doctorCommand(words));
}

async function doctorCommand(words: readonly string[]): Promise<number> {
  const { given, positional, help } = parseFlags(words, GROUPS);
  if (help) {
    console.log(helpText({
      usage: "doctor [flags]",
      about:
        "Runs the operations of an update and of evaluation on this machine, one at a time, and compares each with a " +
        "float64 reference; on a GPU also every kernel variant that may be chosen there, with its time. Exits 1 if any is off.",
      groups: GROUPS,
    }));
    return 0;
  }
  if (positional.length > 0) throw new RangeError(`takes no words, got ${positional[0]}`);
  const fields = { backend, adapter, threads, webgpu, precision, ...command };
  const defaults = Object.fromEntries(Object.entries(fields).map(([key, field]) => [key, field.default]));
  const flags = { ...defaults, ...given } as unknown as Values<typeof command> & DeviceChoice;
  const opened = await openBackend(flags);
  try {
    const checks = await checkBackend(opened.backend);
    const tolerance = flags.precision === "f16" ? F16_TOLERANCE : TOLERANCE;
    const off = checks.filter(({ error }) => !(error <= tolerance));
    const variants = await checkVariants(opened.backend, flags.variants);
    const wrong = variants.flatMap(({ what, wrong }) => wrong.map((name) => `${what} by ${name}`));
    const { description } = opened.backend;
    if (flags.json) {
      console.log(JSON.stringify({ backend: opened.backend.name, description, tolerance, checks, variants }));
    } else {
      console.log(`${description} (${opened.reason})`);
      for (const line of opened.details ?? []) console.log(`  ${line}`);
      for (const line of table(checks, tolerance)) console.log(line);
      for (const variant of variants) console.log(variantText(variant));
      console.log(
        off.length + wrong.length === 0
          ? `all ${checks.length} kinds of operation agree with float64 within ${tolerance} of their largest value`
          : `${
            [...off.map(({ kind }) => kind), ...wrong].join(", ")
          }: off on this driver; update it, or use --backend wasm`,
      );
    }
    return off.length + wrong.length === 0 ? 0 : 1;
  } finally {
    await opened.backend.close();
  }
}

/** Every operation of the doctor's programs on a backend; the worst of each kind. */
export async function checkBackend(backend: Backend): Promise<OperationCheck[]> {
  const worst = new Map<string, OperationCheck>();
  const programs = [...doctorPrograms(), await cropsProgram()];
  if (backend.name === "webgpu") {
    const { movePrologues } = await import("../gpu/mod.ts");
    programs.push(prepared(movePrologues(blockProgram(), "all")));
  }
  const seen = new Set<string>(); // programs have operations in common
  for (const { program, reference } of programs) {
    for (const check of await checkOperations(backend, program, reference, seen)) {
      const before = worst.get(check.kind);
      const checked = check.checked + (before?.checked ?? 0);
      worst.set(check.kind, { ...(before && before.error >= check.error ? before : check), checked });
    }
  }
  return [...worst.values()].sort((a, b) => b.error - a.error);
}

/** Every variant of the kernels on a real adapter; software ones, which use others, are asked for it. */
async function checkVariants(backend: Backend, asked: boolean): Promise<VariantCheck[]> {
  if (backend.name !== "webgpu" || (backend as WebGpu).adapter.fallback && !asked) return [];
  return await Array.fromAsync(variantChecks(backend as WebGpu));
}

function* table(checks: readonly OperationCheck[], tolerance: number): Generator<string> {
  yield "     operation                cases   worst error   where";
  for (const { kind, checked, error, where } of checks) {
    const verdict = error <= tolerance ? "ok  " : "OFF ";
    yield `${verdict} ${kind.padEnd(23)} ${String(checked).padStart(6)} ${
      error.toExponential(2).padStart(13)
    }   ${where}`;
  }
}

if (import.meta.main) Deno.exit(await main(givenArguments()));
