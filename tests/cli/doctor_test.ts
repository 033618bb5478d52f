// The doctor: sound kernels pass on every backend, and a wrong one is found and named.

import { checkBackend, diagnose, type Verdict } from "../../cli/doctor/diagnosis.ts";
import { variantChecks, variantText } from "../../cli/doctor/variants.ts";
import { preferredMode } from "../../cli/processes/mode.ts";
import type { WebGpu } from "../../gpu/mod.ts";
import type { Backend } from "../../models/graph/backend.ts";
import { ReferenceBackend } from "../../models/graph/reference.ts";
import { assert, assertEquals, assertStringIncludes } from "../assert.ts";
import { onEachBackend } from "../backends.ts";
import { run } from "../ways/process.ts";

const DOCTOR = new URL("../../cli/doctor.ts", import.meta.url).pathname;

onEachBackend("the doctor finds nothing wrong with the operations of an update", async (backend) => {
  const checks = await checkBackend(backend);
  const off = checks.filter(({ error }) => !(error <= 2e-5)); // as the command has it
  assertEquals(off, []);
  assert(checks.length >= 30, `${checks.length} kinds were run`);
  assertEquals(checks.find(({ kind }) => kind === "augment")?.error, 0, "augmentation is exact");
}, { backends: ["wasm", "webgpu"] });

onEachBackend("the doctor compares every variant that a real adapter may choose", async (backend) => {
  const checks = await Array.fromAsync(variantChecks(backend as WebGpu));
  assertEquals(checks.flatMap(({ wrong }) => wrong), []);
  const names = new Set(checks.flatMap(({ micros }) => Object.keys(micros)));
  for (const name of ["32x32x8", "single", "stored"]) assert(names.has(name), `${[...names]}`);
  for (const check of checks) assertStringIncludes(variantText(check), `ok   ${check.what}: ${check.chosen}`);
}, { backends: ["webgpu"] });

/** A reference whose GELU is off by so much in one value. */
function brokenBackend(by: number): Backend {
  return new Proxy(new ReferenceBackend(), {
    get(target, key) {
      if (key !== "compile") {
        const value = Reflect.get(target, key);
        return typeof value === "function" ? value.bind(target) : value;
      }
      return async (program: Parameters<Backend["compile"]>[0]) => {
        const executable = await target.compile(program);
        return {
          ...executable,
          run: async () => {
            await executable.run();
            for (const op of program.ops) if (op.kind === "gelu") target.at(op.out.y)[3] += by;
          },
        };
      };
    },
  });
}

Deno.test("the doctor names the operation that is off, also in what another process reads", async () => {
  for (const by of [0.01, NaN]) {
    const { off, checks } = JSON.parse(JSON.stringify(
      await diagnose(brokenBackend(by), false, new AbortController().signal),
    ));
    assertEquals(off, ["gelu"]);
    assertEquals(checks.filter(({ ok }: Verdict) => !ok).map(({ kind }: Verdict) => kind), ["gelu"]);
  }
});

Deno.test("the doctor checks SIMD in the mode that commands compute in, and with --checked in the other", async () => {
  const doctor = (...flags: string[]) =>
    run(Deno.execPath(), ["run", "-A", DOCTOR, "--backend", "wasm", "--threads", "1", ...flags]);
  const [usual, checked, refused] = await Promise.all([
    doctor("--json"),
    doctor("--checked"),
    doctor("--precision", "f16"),
  ]);
  assertEquals([usual.code, checked.code, refused.code], [0, 0, 2], usual.err + checked.err);
  const { description, checks } = JSON.parse(usual.out);
  assertStringIncludes(description, preferredMode(false) === "turbo" ? ", turbo (" : ", stock (");
  assert(checks.length >= 30, `${checks.length} kinds were run`);
  assertStringIncludes(checked.out, ", stock (");
  assertStringIncludes(checked.out, "agree with float64");
  assertStringIncludes(refused.err, "doctor: --precision f16 with --backend wasm");
});
