// --verbose tells what the device is; --webgpu dawn opens another implementation, or says why it cannot.

import { openBackend } from "../../../cli/device/backend.ts";
import { dawnGpu } from "../../../cli/device/dawn.ts";
import { assert, assertEquals, assertRejects, assertStringIncludes } from "../../assert.ts";

const adapter = await navigator.gpu?.requestAdapter();
if (!adapter) console.log("tests/cli/device/device_choice: skipped in part, no WebGPU adapter");

Deno.test({
  name: "--verbose: adapter, driver, subgroups, features and limits in lines; without it none",
  ignore: !adapter,
  // WebGPU objects outlive a test that closes its backend by a moment.
  sanitizeOps: false,
  sanitizeResources: false,
  fn: async () => {
    const choice = { backend: "webgpu", adapter: null, threads: null } as const;
    const quiet = await openBackend(choice);
    assertEquals(quiet.details, undefined);
    await quiet.backend.close();
    const { backend, details } = await openBackend({ ...choice, verbose: true });
    const text = details!.join("\n");
    for (const word of ["adapter 0", adapter!.info.description, "subgroups", "features", "maxBufferSize", "driver"]) {
      assertStringIncludes(text, word);
    }
    await backend.close();
    const simd = await openBackend({ backend: "wasm", adapter: null, threads: 1, verbose: true });
    assertEquals(simd.details, []);
    await simd.backend.close();
  },
});

Deno.test("--webgpu dawn: a package that cannot be loaded, one without adapters, and SIMD beside it are refused with the way out", async () => {
  await assertRejects(() => dawnGpu(() => Promise.reject(new Error("no network"))), Error, "could not be loaded");
  const none = { create: () => ({ requestAdapter: () => Promise.resolve(null) }) };
  const error = await assertRejects(() => dawnGpu(() => Promise.resolve(none)), Error, "Dawn finds no adapter");
  assertStringIncludes(error.message, "leave the flag out");
  const both = { backend: "wasm", adapter: null, threads: 1, webgpu: "dawn" } as const;
  await assertRejects(() => openBackend(both), RangeError, "use one of the two");
});

Deno.test("--webgpu dawn: what it finds is handed on", async () => {
  const gpu = { requestAdapter: () => Promise.resolve({}) } as unknown as GPU;
  const options: string[][] = [];
  assert(await dawnGpu(() => Promise.resolve({ create: (o: string[]) => (options.push(o), gpu) })) === gpu);
  assertEquals(options, [[]]);
});
