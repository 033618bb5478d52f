// `dino doctor`: runs the kernels on this machine against a float64 reference and tells how far off they are; runs directly too.

import { deviceFields, VERBOSE_ADVICE } from "../dino/config.ts";
import { boolean, type Field } from "../dino/field.ts";
import type { WebGpu } from "../gpu/mod.ts";
import type { Backend } from "../models/graph/backend.ts";
import { checkOperations, type OperationCheck } from "../models/graph/check_operations.ts";
import { openBackend } from "./backend.ts";
import { doctorPrograms } from "./doctor_programs.ts";
import { exitStatus } from "./failure.ts";
import { type FlagGroup, parseFlags } from "./flags.ts";
import { helpText } from "./help.ts";
import type { DeviceChoice } from "./messages.ts";
import { givenArguments } from "./mode.ts";

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
        "float64 reference. Exits 1 if any is off.",
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
    const { description } = opened.backend;
    if (flags.json) {
      console.log(JSON.stringify({ backend: opened.backend.name, description, tolerance, checks }));
    } else {
      console.log(`${description} (${opened.reason})`);
      for (const line of opened.details ?? []) console.log(`  ${line}`);
      for (const line of table(checks, tolerance)) console.log(line);
      for (const line of await tileTable(opened.backend)) console.log(line);
      console.log(
        off.length === 0
          ? `all ${checks.length} kinds of operation agree with float64 within ${tolerance} of their largest value`
          : `${off.map(({ kind }) => kind).join(", ")}: off on this driver; update it, or use --backend wasm`,
      );
    }
    return off.length === 0 ? 0 : 1;
  } finally {
    await opened.backend.close();
  }
}

/** Every operation of the doctor's programs on a backend; the worst of each kind. */
export async function checkBackend(backend: Backend): Promise<OperationCheck[]> {
  const worst = new Map<string, OperationCheck>();
  for (const { program, reference } of doctorPrograms()) {
    for (const check of await checkOperations(backend, program, reference)) {
      const before = worst.get(check.kind);
      const checked = check.checked + (before?.checked ?? 0);
      worst.set(check.kind, { ...(before && before.error >= check.error ? before : check), checked });
    }
  }
  return [...worst.values()].sort((a, b) => b.error - a.error);
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

/** Products of ViT-S/16: fc1 of 8 images, its input's gradient, its weight's gradient. */
const PRODUCTS = [
  { m: 8 * 197, n: 1536, k: 384, transA: false, transB: true },
  { m: 8 * 197, n: 384, k: 1536, transA: false, transB: false },
  { m: 1536, n: 384, k: 8 * 197, transA: true, transB: false },
];

/** How fast each tile is on a real adapter; tiles whose results are wrong there are named. Software adapters do not use tiles. */
async function tileTable(backend: Backend): Promise<string[]> {
  if (backend.name !== "webgpu" || (backend as WebGpu).adapter.fallback) return [];
  const lines: string[] = [];
  for (const product of PRODUCTS) {
    const { chosen, micros, wrong } = await (backend as WebGpu).compareTiles(product);
    const { m, n, k } = product;
    const tflops = (us: number) => (2 * m * n * k / us / 1e6).toFixed(1);
    const times = Object.entries(micros).map(([name, us]) => `${name} ${tflops(us!)}`).join(", ");
    lines.push(
      `tiles of ${m}×${n}×${k}, TFLOP/s: ${times}; chosen ${chosen}${wrong.length ? `; wrong: ${wrong}` : ""}`,
    );
  }
  return lines;
}

if (import.meta.main) Deno.exit(await main(givenArguments()));
