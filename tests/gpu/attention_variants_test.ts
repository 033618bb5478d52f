// Attention at token counts around its tiles, head widths with and without whole vectors, and small workgroup memories.
import { attention, type AttentionBackwardOp } from "../../models/graph/ops/attention.ts";
import { differentiate } from "../../models/graph/autodiff.ts";
import { Program } from "../../models/graph/program.ts";
import { tensor } from "../../models/graph/tensor.ts";
import { backwardBytes, chooseAttentionTile, forwardBytes } from "../../gpu/kernels/attention_tiles.ts";
import type { CopyOp } from "../../models/graph/ops/elementwise.ts";
import { assert, assertThrows } from "../assert.ts";
import { assertAgrees } from "./compare.ts";
import { onGpu } from "./open.ts";

/** [images, tokens, heads, width of a head, queries, workgroup memory, as on a software adapter] */
const CASES = [
  [2, 37, 3, 64, 37, 32768, false], // a local crop of DINO, with the tiles of a real adapter
  [1, 50, 1, 64, 50, 16384, true], // several tiles, little memory
  [2, 9, 2, 10, 9, 32768, true], // width without whole vectors
  [1, 41, 2, 12, 1, 32768, true], // only [CLS] asks
  [1, 19, 1, 100, 19, 32768, true], // width between groups of 32
] as const;

onGpu("attention and its gradient agree with the reference around the tiles", async (backend) => {
  for (const [images, tokens, heads, width, queries, workgroupBytes, fallback] of CASES) {
    backend.limits = { ...backend.limits, workgroupBytes, fallback, lanes: 0 };
    const D = heads * width;
    const qkv = tensor("qkv", [images * tokens, 3 * D], "input"), dqkv = tensor("dqkv", qkv.shape, "output");
    const dy = tensor("dy", [images * queries, D], "input"), y = tensor("y", dy.shape, "output");
    const program = () => {
      const p = new Program("attention");
      const made = attention(p, qkv, { images, tokens, heads, queries });
      differentiate(p, { seeds: [[made, dy]], wrt: [[qkv, dqkv]] });
      assert(
        p.ops.some((op) => op.kind satisfies string === ("attentionBackward" satisfies AttentionBackwardOp["kind"])),
      );
      p.emit<CopyOp>({ kind: "copy", in: { x: made }, out: { y }, attrs: {} });
      return p;
    };
    // Softmax of scores of order 1 and sums over at most 50 tokens.
    await assertAgrees(`${tokens} tokens of ${width}`, backend, program, [qkv, dy], [y, dqkv], 2e-6);
  }
});

Deno.test("attention tiles fit the memory they are given, and say so when none does", () => {
  for (const width of [8, 32, 64, 96, 128]) {
    for (const limit of [16384, 32768, 49152]) {
      for (const bytes of [forwardBytes, backwardBytes]) {
        const fits = bytes({ width, rq: 1, rk: 1 }) <= limit;
        if (!fits) continue;
        const tile = chooseAttentionTile(197, 197, width, bytes, limit);
        assert(bytes({ width, ...tile }) <= limit);
      }
    }
  }
  assertThrows(() => chooseAttentionTile(197, 197, 512, backwardBytes, 16384), RangeError, "use more heads");
});
