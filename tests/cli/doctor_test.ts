// The doctor: sound kernels pass on every backend, and a wrong one is found and named.

import { checkBackend } from "../../cli/doctor.ts";
import { variantChecks, variantText } from "../../cli/doctor/variants.ts";
import type { WebGpu } from "../../gpu/mod.ts";
import type { Backend } from "../../models/graph/backend.ts";
import { ReferenceBackend } from "../../models/graph/reference.ts";
import { assert, assertEquals, assertStringIncludes } from "../assert.ts";
import { onEachBackend } from "../backends.ts";

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

Deno.test("the doctor names the operation that is off", async () => {
  const sound = new ReferenceBackend();
  const broken: Backend = new Proxy(sound, {
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
            for (const op of program.ops) if (op.kind === "gelu") target.at(op.out.y)[3] += 0.01;
          },
        };
      };
    },
  });
  const off = (await checkBackend(broken)).filter(({ error }) => !(error <= 2e-5));
  assertEquals(off.map(({ kind }) => kind), ["gelu"]);
});
