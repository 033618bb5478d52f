// `dino doctor`: runs the kernels on this machine against a float64 reference and tells how far off they are; runs directly too.

import { deviceFields, VERBOSE_ADVICE } from "../dino/config.ts";
import { boolean, type Field } from "../dino/config/field.ts";
import type { Verdict } from "./doctor/diagnosis.ts";
import { variantText } from "./doctor/variants.ts";
import { launch } from "./processes/launch.ts";
import { type ComputeEvent, type DeviceChoice, deviceOf, type DoctorJob } from "./processes/messages.ts";
import { givenArguments } from "./processes/mode.ts";
import { exitStatus } from "./terminal/failure.ts";
import { type FlagGroup, parseFlags } from "./terminal/flags.ts";
import { helpText } from "./terminal/help.ts";
import { Progress } from "./terminal/progress.ts";

const { backend, adapter, threads, webgpu, precision } = deviceFields;
const command = {
  json: boolean(false, "print the result as JSON"),
  variants: boolean(false, "compare every variant of the kernels on a software adapter too, at small sizes"),
  checked: boolean(
    false,
    "check the kernels as the same flag of other commands runs them: with WebAssembly's bounds checks",
  ),
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
  const progress = new Progress({ command: "doctor", json: false, quiet: flags.json });
  const job: DoctorJob = { command: "doctor", device: deviceOf(flags), variants: flags.variants };
  return await launch(job, {
    checked: flags.checked,
    onNotice: (message) => progress.warn(message),
    onEvent: (event) => {
      if (event.type !== "diagnosis") return progress.show(event);
      if (flags.json) console.log(JSON.stringify(jsonOf(event)));
      else for (const line of textOf(event)) progress.result(line);
    },
  });
}

type Told = ComputeEvent & { readonly type: "diagnosis" };

function jsonOf({ name: backend, description, tolerance, checks, variants }: Told) {
  return { backend, description, tolerance, checks, variants };
}

function* textOf(told: Told): Generator<string> {
  const { name, description, reason, details = [], tolerance, checks, variants, off } = told;
  yield `${description} (${reason})`;
  for (const line of details) yield `  ${line}`;
  yield* table(checks);
  for (const variant of variants) yield variantText(variant);
  if (off.length === 0) {
    yield `all ${checks.length} kinds of operation agree with float64 within ${tolerance} of their largest value`;
  } else {
    const advice = name === "wasm"
      ? "off on this processor; see whether it is with --checked, and report it"
      : "off on this driver; update it, or use --backend wasm";
    yield `${off.join(", ")}: ${advice}`;
  }
}

function* table(checks: readonly Verdict[]): Generator<string> {
  yield "     operation                cases   worst error   where";
  for (const { kind, checked, error, where, ok } of checks) {
    const verdict = ok ? "ok  " : "OFF ";
    yield `${verdict} ${kind.padEnd(23)} ${String(checked).padStart(6)} ${
      (error?.toExponential(2) ?? "not finite").padStart(13)
    }   ${where}`;
  }
}

if (import.meta.main) Deno.exit(await main(givenArguments()));
