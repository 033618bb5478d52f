// Every kernel within what any WebGPU device has: storage bindings, threads, workgroup memory, parameters.
import { LARGEST_PARAMS } from "../../gpu/executable.ts";
import type { LoweringLimits } from "../../gpu/limits.ts";
import { lower } from "../../gpu/lower.ts";
import type { Kernel } from "../../gpu/shader.ts";
import { withSubgroups } from "../../gpu/subgroups.ts";
import { matmulKernel } from "../../gpu/kernels/matmul.ts";
import { tileBytes, TILES } from "../../gpu/kernels/matmul_tiles.ts";
import { tilesFor } from "../../gpu/tuning/matmul.ts";
import { assert, assertEquals } from "../assert.ts";
import { opCases } from "../models/graph/op_cases.ts";

/** WebGPU's defaults, which no adapter is below. */
const LEAST = { bindings: 8, threads: 256, workgroupBytes: 16384 };
const limits: LoweringLimits = {
  bindingBytes: 2 ** 27,
  workgroupBytes: LEAST.workgroupBytes,
  fallback: false,
  subgroups: false,
  lanes: 0,
  prologues: "all",
};

const BYTES: Record<string, number> = { f32: 4, u32: 4, i32: 4, "atomic<u32>": 4, vec2f: 8, vec3f: 16, vec4f: 16 };

/** The value of an expression of whole numbers and constants, such as `256u / LANES`. */
function valueOf(expression: string, constants: ReadonlyMap<string, string>): number {
  const named = expression.replace(/[A-Za-z_]\w*/g, (name) => `(${valueOf(constants.get(name)!, constants)})`);
  const text = named.replace(/(\d)u\b/g, "$1");
  assert(/^[\d\s()+*/-]+$/.test(text), `${expression} is no whole number`);
  return Math.floor(Function(`return ${text}`)());
}

/** Threads and bytes of a workgroup, as the text declares them. */
function demands({ sources, constants = {} }: Kernel): { threads: number; bytes: number } {
  const code = sources.map(({ text }) => text.replace(/\/\/.*$/gm, "")).join("\n");
  const known = new Map(Object.entries(constants).map(([name, value]) => [name, String(value)]));
  for (const [, name, value] of code.matchAll(/^const (\w+)(?::\s*\w+)? = ([^;]+);/gm)) known.set(name, value);
  const types: Record<string, number> = { ...BYTES, V: /alias V = vec4f/.test(code) ? 16 : 4 };
  let bytes = 0;
  for (const [, type] of code.matchAll(/var<workgroup> \w+: ([^;]+);/g)) {
    let element = type, count = 1;
    for (let array = /^array<(.+), ([^,]+)>$/.exec(element); array; array = /^array<(.+), ([^,]+)>$/.exec(element)) {
      element = array[1];
      count *= valueOf(array[2], known);
    }
    assert(types[element] !== undefined, `of unknown size: ${type}`);
    bytes += types[element] * count;
  }
  const [, size] = /@workgroup_size\(([^)]+)\)/.exec(code)!;
  return { threads: size.split(",").reduce((product, each) => product * valueOf(each, known), 1), bytes };
}

Deno.test("kernels take no more bindings, threads and workgroup memory than every WebGPU device has", () => {
  const seen = new Set<string>();
  const check = (kernel: Kernel) => {
    const { threads, bytes } = demands(kernel);
    assert(threads <= LEAST.threads, `${kernel.name}: ${threads} threads`);
    assert(bytes <= LEAST.workgroupBytes, `${kernel.name}: ${bytes} bytes of workgroup memory`);
    seen.add(kernel.name);
  };
  for (const test of opCases()) {
    for (const { kernel, bindings, params: { u = [], f = [] } } of lower(test.program, limits).dispatches) {
      assert(bindings.length <= LEAST.bindings, `${kernel.name}: ${bindings.length} storage bindings`);
      assert(4 * (u.length + f.length) <= LARGEST_PARAMS, `${kernel.name}: ${u.length + f.length} parameters`);
      if (seen.has(kernel.name)) continue;
      check(kernel);
      if (withSubgroups(kernel) !== kernel) check(withSubgroups(kernel));
    }
  }
  for (const name of tilesFor(limits)) {
    const kernel = matmulKernel({
      tile: TILES[name],
      transA: false,
      transB: true,
      vector: true,
      gelu: true,
      split: false,
    });
    check(kernel);
    assertEquals(demands(kernel).bytes, tileBytes(TILES[name]), `what ${name} stages is what is planned for`);
  }
  assert(seen.size > 80, `only ${seen.size} kernels were looked at`);
});
