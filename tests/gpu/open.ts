// A WebGPU backend for tests: any adapter will do; without one a test is skipped and says so.
import { openDevice, type OpenedDevice } from "../../gpu/device.ts";
import { WebGpuBackend } from "../../gpu/backend.ts";

const adapter = await navigator.gpu?.requestAdapter();
if (!adapter) {
  console.log("tests/gpu: skipped, no WebGPU adapter (libvulkan1 and mesa-vulkan-drivers give a software one)");
}

/** Registers a test that needs a device, opened for it and closed after it. */
export function onGpu(name: string, test: (backend: WebGpuBackend) => Promise<void>, options = {}): void {
  withDevice(name, async (opened) => {
    const backend = new WebGpuBackend(opened, options);
    try {
      await test(backend);
    } finally {
      await backend.close();
    }
  });
}

if (adapter && !adapter.features.has("shader-f16" as GPUFeatureName)) {
  console.log("tests/gpu: tests of f16 skipped, the adapter has no 16-bit floats (shader-f16)");
}

/** Registers a test that needs a device which stores f16. */
export function onHalfGpu(name: string, test: (backend: WebGpuBackend) => Promise<void>, options = {}): void {
  Deno.test({
    name,
    ignore: !adapter?.features.has("shader-f16" as GPUFeatureName),
    sanitizeOps: false,
    sanitizeResources: false,
    fn: async () => {
      const opened = await openDevice({ allowFallback: true, precision: "f16" });
      const backend = new WebGpuBackend(opened, { precision: "f16", ...options });
      try {
        await test(backend);
      } finally {
        await backend.close();
      }
    },
  });
}

/** Registers a test that is handed a fresh device. */
export function withDevice(name: string, test: (opened: OpenedDevice) => Promise<void>): void {
  Deno.test({
    name,
    ignore: !adapter,
    // WebGPU objects outlive a test that closes its device by a moment.
    sanitizeOps: false,
    sanitizeResources: false,
    fn: async () => await test(await openDevice({ allowFallback: true })),
  });
}
