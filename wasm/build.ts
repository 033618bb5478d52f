// Compiles the AssemblyScript kernels and writes kernels.b64: `deno run -A wasm/build.ts`, or with --check to compare only.
import asc from "npm:assemblyscript@0.28.20/asc";
import { microKernelSource } from "./micro_kernels.ts";

/** What the compiler takes; the memory is made by the host. */
const OPTIONS = [
  "-O3",
  "--noAssert",
  "--runtime",
  "stub",
  "--enable",
  "simd,relaxed-simd,threads",
  "--importMemory",
  "--sharedMemory",
  "--initialMemory",
  "1",
  "--maximumMemory",
  "65536",
  "--disableWarning", // about pointers that would be wider in wasm64
];

/** Compiles all kernels. Throws {SyntaxError} with the compiler's words when they do not compile. */
export async function buildKernels(): Promise<Uint8Array<ArrayBuffer>> {
  const root = new URL("./", import.meta.url);
  let binary: Uint8Array<ArrayBuffer> | undefined;
  const { error, stderr } = await asc.main(["kernels/runtime.ts", "--outFile", "kernels.wasm", ...OPTIONS], {
    readFile(name: string) {
      if (name === "kernels/micro.ts") return microKernelSource();
      try {
        return Deno.readTextFileSync(new URL(name, root));
      } catch {
        return null;
      }
    },
    writeFile(_name: string, contents: string | Uint8Array) {
      if (typeof contents !== "string") binary = Uint8Array.from(contents);
    },
    listFiles: () => [],
  });
  if (error || !binary) throw new SyntaxError(`kernels do not compile:\n${stderr.toString() || error?.message}`);
  return binary;
}

if (import.meta.main) {
  const base64 = (await buildKernels()).toBase64();
  const target = new URL("./kernels.b64", import.meta.url);
  if (Deno.args.includes("--check")) {
    const same = await Deno.readTextFile(target) === base64;
    console.log(same ? "kernels.b64 is up to date" : "kernels.b64 differs from its sources: run wasm/build.ts");
    if (!same) Deno.exit(1);
  } else {
    await Deno.writeTextFile(target, base64);
    console.log(`kernels.b64: ${base64.length} characters`);
  }
}
