// Opens the backends that tests run on, and registers a test for each of them.
import type { Backend } from "../models/graph/backend.ts";
import { ReferenceBackend } from "../models/graph/reference.ts";

/** Names that {@link openBackendForTests} knows. */
export const BACKENDS = ["reference", "wasm", "webgpu"] as const;

/** One of {@link BACKENDS}. */
export type BackendName = (typeof BACKENDS)[number];

/** Opens a backend by name; on WebGPU any adapter will do, a software one too. */
export async function openBackendForTests(
  name: string,
  options: { threads?: number; precision?: "f32" | "f16" } = {},
): Promise<Backend> {
  if (options.precision === "f16" && name !== "webgpu") {
    throw new RangeError(`backend ${name} computes and stores in f32: use webgpu for precision f16`);
  }
  switch (name) {
    case "reference":
      return new ReferenceBackend();
    case "wasm": {
      const { openWasm } = await import("../wasm/mod.ts");
      return await openWasm({ threads: options.threads });
    }
    case "webgpu": {
      const { openWebGpu } = await import("../gpu/mod.ts");
      return await openWebGpu({ allowFallback: true, precision: options.precision });
    }
    default:
      throw new RangeError(`backend "${name}" is not known: use ${BACKENDS.join(", ")}`);
  }
}

let noGpu: string | undefined;
if (!(await navigator.gpu?.requestAdapter())) {
  noGpu = "no WebGPU adapter: install libvulkan1 and mesa-vulkan-drivers for a software one";
}

/**
 * Registers `name` once for each backend, with a fresh one that is closed afterwards.
 * Without an adapter the WebGPU test is ignored, and says so.
 */
export function onEachBackend(
  name: string,
  test: (backend: Backend) => Promise<void> | void,
  { backends = BACKENDS }: { backends?: readonly BackendName[] } = {},
): void {
  for (const backendName of backends) {
    const ignore = backendName === "webgpu" && noGpu !== undefined;
    Deno.test({
      name: `${name} [${backendName}]${ignore ? ` (skipped: ${noGpu})` : ""}`,
      ignore,
      // WebGPU objects and worker threads outlive a test that closes its backend by a moment.
      sanitizeOps: false,
      sanitizeResources: false,
      fn: async () => {
        const backend = await openBackendForTests(backendName);
        try {
          await test(backend);
        } finally {
          await backend.close();
        }
      },
    });
  }
}
