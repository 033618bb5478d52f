// Dispatches for implementations that enforce WebGPU's rule against two writable bindings of the same memory.
import { rootOf } from "../models/graph/tensor.ts";
import { type Binding, type Dispatch, NOTHING } from "./dispatch.ts";
import type { Kernel } from "./shader.ts";

/**
 * The same dispatch with every piece of memory bound once: where an output lies on an input, the kernel's text names the
 * input's binding instead. Deno's wgpu lets both be bound; the standard does not, and Dawn refuses it.
 *
 * @param offsets the plan of the program
 */
export function bindOnce(dispatch: Dispatch, offsets: ReadonlyMap<number, number>): Dispatch {
  const bindings = [...dispatch.bindings];
  let { kernel } = dispatch;
  for (let later = 1; later < bindings.length; later++) {
    const range = rangeOf(bindings[later], offsets);
    const earlier = range && bindings.findIndex((b, i) => {
      const other = i < later ? rangeOf(b, offsets) : undefined;
      return other && other.memory === range.memory && other.start < range.end && range.start < other.end;
    });
    if (earlier === undefined || earlier < 0) continue;
    const other = rangeOf(bindings[earlier], offsets)!;
    if (other.start !== range!.start) {
      throw new RangeError(`webgpu: kernel ${kernel.name}: slots ${earlier} and ${later} share memory in part only`);
    }
    kernel = mergeBindings(kernel, earlier, later);
    bindings[later] = NOTHING;
  }
  return { ...dispatch, kernel, bindings };
}

interface Range {
  readonly memory: string;
  readonly start: number;
  readonly end: number;
}

function rangeOf(binding: Binding, offsets: ReadonlyMap<number, number>): Range | undefined {
  if (binding.kind === "scratch") {
    return { memory: "scratch", start: binding.offset, end: binding.offset + binding.bytes };
  }
  if (binding.kind !== "tensor") return undefined;
  const root = rootOf(binding.tensor);
  const inArena = root.role === "activation";
  const start = binding.offset + (inArena ? offsets.get(root.id)! : 0);
  return { memory: inArena ? "arena" : `tensor ${root.id}`, start, end: start + binding.bytes };
}

const DECLARATION = /@group\(0\) @binding\((\d+)\) var<storage, read_write> (\w+): ([^;]+);/g;

/** The kernel with slot `later` gone and its name standing for slot `earlier`. Storage is only ever named as `name[…]`. */
function mergeBindings(kernel: Kernel, earlier: number, later: number): Kernel {
  const declared = new Map<number, { name: string; type: string }>();
  for (const { text } of kernel.sources) {
    for (const [, binding, name, type] of text.matchAll(DECLARATION)) declared.set(Number(binding) - 1, { name, type });
  }
  const kept = declared.get(earlier)!, dropped = declared.get(later)!;
  if (kept.type !== dropped.type) {
    throw new TypeError(`webgpu: kernel ${kernel.name}: ${kept.name} is ${kept.type}, ${dropped.name} ${dropped.type}`);
  }
  const use = new RegExp(`(?<![.\\w])${dropped.name}\\[`, "g");
  const sources = kernel.sources.map(({ file, text }) => ({
    file,
    text: text.replace(DECLARATION, (all, binding) => Number(binding) - 1 === later ? "" : all)
      .replace(use, `${kept.name}[`),
  }));
  return { ...kernel, name: `${kernel.name} ${dropped.name}=${kept.name}`, sources };
}
