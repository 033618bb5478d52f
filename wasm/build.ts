// Compiles the AssemblyScript kernels and writes kernels.b64: `deno run -A wasm/build.ts`, or with --check to compare only.
import asc from "npm:assemblyscript@0.28.20/asc";
import binaryen from "npm:assemblyscript@0.28.20/binaryen";
import { microKernelDeclarations, microKernelSource } from "./micro_kernels.ts";

/** What the compiler takes; the memory is made by the host. */
const OPTIONS = [
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
  "--debug", // names, by which modules are linked
  "--disableWarning", // about pointers that would be wider in wasm64
];

/**
 * Compiles all kernels. Throws {SyntaxError} with the compiler's words when they do not compile.
 *
 * The micro-kernels are compiled by themselves and linked: from -O2 on WebAssembly's optimizer moves each multiply-add of
 * straight-line code down to where its sum is used, all loads come first, and registers run out (99 → 64 GFLOP/s); the
 * other kernels are slower below -O3 (norms of gradients 2.4 times).
 */
export async function buildKernels(): Promise<Uint8Array<ArrayBuffer>> {
  const micro = await compile("kernels/micro.ts", "-O1", microKernelSource());
  const others = await compile("kernels/runtime.ts", "-O3", microKernelDeclarations());
  return link(others, micro);
}

async function compile(entry: string, level: string, micro: string): Promise<Uint8Array> {
  const root = new URL("./", import.meta.url);
  let binary: Uint8Array | undefined;
  const { error, stderr } = await asc.main([entry, "--outFile", "kernels.wasm", level, ...OPTIONS], {
    readFile(name: string) {
      if (name === "kernels/micro.ts") return micro;
      try {
        return Deno.readTextFileSync(new URL(name, root));
      } catch {
        return null;
      }
    },
    writeFile(_name: string, contents: string | Uint8Array) {
      if (typeof contents !== "string") binary = contents;
    },
    listFiles: () => [],
  });
  if (error || !binary) throw new SyntaxError(`${entry} does not compile:\n${stderr.toString() || error?.message}`);
  return binary;
}

/** One module of two: the functions of `library`, all of them exported, take the place of what `program` imports of "micro". */
function link(program: Uint8Array, library: Uint8Array): Uint8Array<ArrayBuffer> {
  const linked = binaryen.readBinary(program), from = binaryen.readBinary(library);
  const imported = new Map(
    functionsOf(linked).filter(({ module }) => module === "micro").map(({ base, name }) => [base, name]),
  );
  for (const { name, params, results, vars, body } of functionsOf(from)) {
    const short = name.slice(name.lastIndexOf("/") + 1), known = imported.get(short);
    if (known) linked.removeFunction(known);
    linked.addFunction(known ?? name, params, results, vars, linked.copyExpression(body));
    linked.addFunctionExport(known ?? name, short);
  }
  linked.setFeatures(binaryen.Features.All);
  binaryen.setDebugInfo(false); // names have served
  const binary = Uint8Array.from(linked.emitBinary());
  if (!WebAssembly.validate(binary)) throw new SyntaxError("the linked kernels are not valid WebAssembly");
  linked.dispose();
  from.dispose();
  return binary;
}

function functionsOf(module: binaryen.Module): binaryen.FunctionInfo[] {
  return Array.from(
    { length: module.getNumFunctions() },
    (_, i) => binaryen.getFunctionInfo(module.getFunctionByIndex(i)),
  );
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
