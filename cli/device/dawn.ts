// Dawn, Chromium's WebGPU, in place of the runtime's own: a native add-on that is fetched when it is first asked for.

/** Not written where it is imported, so that nobody fetches 130 MB who did not ask, and no binary carries it. */
const PACKAGE = "npm:webgpu@0.6.2";

/**
 * Dawn's `GPU` object. Wants permission for foreign functions.
 *
 * @param load for tests
 * @throws {Error} if it cannot be loaded, or finds no adapter
 */
export async function dawnGpu(load: () => Promise<unknown> = () => import(PACKAGE)): Promise<GPU> {
  let gpu: GPU;
  try {
    const { create } = await load() as { create: (options: string[]) => GPU };
    gpu = create([]);
  } catch (error) {
    throw new Error(
      Deno.build.standalone
        ? "--webgpu dawn: a compiled binary does not include Dawn: run from source, or leave the flag out"
        : `--webgpu dawn: ${PACKAGE} could not be loaded (${
          (error as Error).message
        }): it is fetched from npm the first ` +
          "time, and wants a system it is built for; or leave the flag out",
      { cause: error },
    );
  }
  const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" }).catch(() => null);
  if (adapter) return gpu;
  throw new Error(
    "--webgpu dawn: Dawn finds no adapter that it supports (software ones and old drivers it refuses): update the driver, " +
      "or leave the flag out for the runtime's own WebGPU",
  );
}
