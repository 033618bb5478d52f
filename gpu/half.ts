// Kernels on tensors that are kept as f16: the text of a kernel with some of its bindings loaded and stored as halves.
import type { Kernel } from "./shader.ts";

const DECLARATION = /(@group\(0\) @binding\((\d+)\) var<storage, read_write> (\w+): array<)(\w+)(>;)/g;

/** Comments write equations with the names and brackets of the code. */
const COMMENT = /\/\/.*$/gm;

/** A half beside the type that kernels compute with. */
const HALF: Readonly<Record<string, string>> = { f32: "f16", vec4f: "vec4<f16>", V: "HalfV" };

/**
 * The same kernel with f16 elements in the given bindings: what is loaded is widened, what is stored is rounded, and all
 * arithmetic stays f32. Storage is only ever named as `name[index]`, and written by `name[index] = …;` or `+=` and its like.
 *
 * A value beyond f16's largest, 65504, becomes infinite whatever the driver's conversion does (some truncate to 65504), so that
 * the guard against a diverged loss finds it.
 *
 * @param slots positions among the kernel's storage bindings, ascending
 * @throws {TypeError} if a binding has no half
 */
export function withHalfBindings(kernel: Kernel, slots: readonly number[]): Kernel {
  if (slots.length === 0) return kernel;
  const types = new Map<string, string>();
  let sources = kernel.sources.map(({ file, text }) => ({
    file,
    text: text.replace(COMMENT, "").replace(
      DECLARATION,
      (all, before: string, binding: string, name: string, type: string, after: string) => {
        if (!slots.includes(Number(binding) - 1)) return all;
        const half = HALF[type];
        if (!half) throw new TypeError(`webgpu: kernel ${kernel.name}: ${name} of ${type} cannot be kept as f16`);
        types.set(name, type);
        return before + half + after;
      },
    ),
  }));
  for (const [name, type] of types) {
    sources = sources.map(({ file, text }) => ({ file, text: convertUses(text, name, type) }));
  }
  const vector = kernel.sources.some(({ text }) => text.includes("alias V = vec4f;"));
  return {
    ...kernel,
    name: `${kernel.name} f16:${slots.join(",")}`,
    half: true,
    sources: [...sources, { file: "gpu/half.ts", text: helpers(new Set(types.values()), vector) }],
  };
}

/** Rounding of each type that is stored, and the half of V, which is one float or four. */
function helpers(types: ReadonlySet<string>, vector: boolean): string {
  const round = [...types].map((type) => `
fn round_${type}(v: ${type}) -> ${HALF[type]} {
  return ${HALF[type]}(select(v, v * 3.0e38, abs(v) >= ${type}(65520.0)));
}`);
  return (types.has("V") ? `alias HalfV = ${vector ? HALF.vec4f : HALF.f32};\n` : "") + round.join("\n");
}

/** Every load of `name` widened to `type`, every store rounded. */
function convertUses(text: string, name: string, type: string): string {
  const use = new RegExp(`(?<![.\\w])${name}\\[`, "g");
  let result = "", done = 0;
  for (const match of text.matchAll(use)) {
    if (match.index < done) continue; // inside the value of a store, which is converted with it
    const end = closing(text, match.index + name.length);
    const place = text.slice(match.index, end);
    const store = /^\s*([-+*/]?)=(?!=)\s*/.exec(text.slice(end, end + 8));
    result += text.slice(done, match.index);
    if (!store) {
      // An index may load from the same binding.
      const inner = convertUses(text.slice(match.index + name.length + 1, end - 1), name, type);
      result += `${type}(${name}[${inner}])`;
      done = end;
      continue;
    }
    const from = end + store[0].length, semicolon = text.indexOf(";", from);
    const value = convertUses(text.slice(from, semicolon), name, type);
    result += `${place} = round_${type}(${store[1] ? `${type}(${place}) ${store[1]} (${value})` : value})`;
    done = semicolon;
  }
  return result + text.slice(done);
}

/** One past the bracket that closes the one at `open`. */
function closing(text: string, open: number): number {
  let depth = 0;
  for (let i = open; i < text.length; i++) {
    if (text[i] === "[") depth++;
    else if (text[i] === "]" && --depth === 0) return i + 1;
  }
  throw new SyntaxError(`webgpu: a bracket without its partner in a kernel: ${text.slice(open, open + 40)}`);
}
