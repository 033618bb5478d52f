// --backend auto: a real GPU if there is one, never a software adapter, and always the reason.

import { openBackend } from "../../../cli/device/backend.ts";
import { describeAdapters } from "../../../gpu/mod.ts";
import { assertEquals, assertStringIncludes } from "../../assert.ts";

Deno.test({
  name: "backend auto: takes WebGPU on a real adapter only, and says why",
  // WebGPU objects and worker threads outlive a test that closes its backend by a moment.
  sanitizeOps: false,
  sanitizeResources: false,
  fn: async () => {
    const adapters = await describeAdapters();
    const real = adapters.find(({ fallback }) => !fallback);
    const { backend, reason } = await openBackend({ backend: "auto", adapter: null, threads: 1 });
    assertEquals(backend.name, real ? "webgpu" : "wasm");
    assertStringIncludes(reason, real?.description ?? (adapters.length > 0 ? "software adapter" : "no WebGPU adapter"));
    await backend.close();
    const named = await openBackend({ backend: "wasm", adapter: null, threads: 1 });
    assertStringIncludes(named.reason, "--backend wasm");
    await named.backend.close();
  },
});
