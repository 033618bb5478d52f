// Kernels keep off WGSL's reserved words: Deno's compiler overlooks some of them, others refuse every one.
import { attentionKeyGradientKernel, attentionQueryGradientKernel } from "../../gpu/kernels/attention_backward.ts";
import { attentionForwardKernel } from "../../gpu/kernels/attention_forward.ts";
import { laneProductKernel } from "../../gpu/kernels/lane_product.ts";
import { matmulKernel } from "../../gpu/kernels/matmul.ts";
import { TILES } from "../../gpu/kernels/matmul_tiles.ts";
import { assemble } from "../../gpu/shader.ts";
import { assertEquals } from "../assert.ts";

/** https://www.w3.org/TR/WGSL/#reserved-words */
const RESERVED = new Set(
  `NULL Self abstract active alignas alignof as asm asm_fragment async attribute auto await become cast catch class
  co_await co_return co_yield coherent column_major common compile compile_fragment concept const_cast consteval
  constexpr constinit crate debugger decltype delete demote demote_to_helper do dynamic_cast enum explicit export extends
  extern external fallthrough filter final finally friend from fxgroup get goto groupshared highp impl implements import
  inline instanceof interface layout lowp macro macro_rules match mediump meta mod module move mut mutable namespace new
  nil noexcept noinline nointerpolation non_coherent noncoherent noperspective null nullptr of operator package packoffset
  partial pass patch pixelfragment precise precision premerge priv protected pub public readonly ref regardless register
  reinterpret_cast require resource restrict self set shared sizeof smooth snorm static static_assert static_cast std
  subroutine super target template this thread_local throw trait try type typedef typeid typename typeof union unless
  unorm unsafe unsized use using varying virtual volatile wgsl where with writeonly yield`.split(/\s+/),
);

function reservedWords(code: string): string[] {
  const words = code.replace(/\/\/.*$/gm, "").match(/[A-Za-z_]\w*/g) ?? [];
  return [...new Set(words.filter((word) => RESERVED.has(word)))];
}

Deno.test("no kernel uses a reserved word", async () => {
  const found: Record<string, string[]> = {};
  const check = (name: string, code: string) => {
    const words = reservedWords(code);
    if (words.length > 0) found[name] = words;
  };
  const folder = new URL("../../gpu/kernels/", import.meta.url);
  for await (const { name } of Deno.readDir(folder)) {
    if (name.endsWith(".wgsl")) check(name, await Deno.readTextFile(new URL(name, folder)));
  }
  const variant = { transA: false, transB: true, vector: false, gelu: true, split: false };
  const attention = { width: 10, rq: 2, rk: 3 };
  for (
    const kernel of [
      matmulKernel({ tile: TILES["64x64x16"], ...variant }),
      laneProductKernel(8),
      attentionForwardKernel(attention),
      attentionQueryGradientKernel(attention),
      attentionKeyGradientKernel(attention),
    ]
  ) check(kernel.name, assemble(kernel).code);
  assertEquals(found, {});
});
