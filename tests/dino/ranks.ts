// Opens a backend for each of several ranks of this process and runs the same on all of them at a time.
import type { Backend } from "../../models/graph/backend.ts";
import type { Communicator } from "../../models/graph/communicator.ts";
import { ranksInProcess } from "../../dino/ranks/in_process.ts";
import { BACKENDS, openBackendForTests } from "../backends.ts";

/** Runs on `count` ranks with a backend of one thread each; a rank that throws ends the others. */
export async function onRanks<T>(
  name: string,
  count: number,
  run: (backend: Backend, communicator: Communicator) => Promise<T>,
): Promise<T[]> {
  const results = await Promise.allSettled(
    ranksInProcess(count).map(async (communicator) => {
      const backend = await openBackendForTests(name, { threads: 1 });
      try {
        return await run(backend, communicator);
      } catch (error) {
        await communicator.abort(String(error));
        throw error;
      } finally {
        await backend.close();
      }
    }),
  );
  return results.map((result) => {
    if (result.status === "rejected") throw result.reason;
    return result.value;
  });
}

const gpu = await navigator.gpu?.requestAdapter();
if (!gpu) {
  console.log("ranks on WebGPU skipped: no adapter; install libvulkan1 and mesa-vulkan-drivers for a software one");
}

/** Registers a test for each backend there is. */
export function onEachKind(name: string, test: (backend: string) => Promise<void>): void {
  for (const backend of BACKENDS) {
    const ignore = backend === "webgpu" && !gpu;
    // WebGPU objects and worker threads outlive a test that closes its backend by a moment.
    Deno.test({
      name: `${name} [${backend}]`,
      ignore,
      sanitizeOps: false,
      sanitizeResources: false,
      fn: () => test(backend),
    });
  }
}
