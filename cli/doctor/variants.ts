// Every kernel variant that the WebGPU tuner may choose, on this driver: how fast each is, and whether it computes rightly.

import type { AttentionShape, MatmulShape, WebGpu } from "../../gpu/mod.ts";

/** What a comparison of variants found. */
export interface VariantCheck {
  /** Which product or attention. */
  readonly what: string;
  readonly chosen: string;
  /** Microseconds of each that computes rightly. */
  readonly micros: Readonly<Record<string, number>>;
  readonly wrong: readonly string[];
}

/** Products of ViT-S/16: fc1 of 8 images, its input's gradient, its weight's gradient. */
const PRODUCTS: readonly MatmulShape[] = [
  { m: 8 * 197, n: 1536, k: 384, transA: false, transB: true },
  { m: 8 * 197, n: 384, k: 1536, transA: false, transB: false },
  { m: 1536, n: 384, k: 8 * 197, transA: true, transB: false },
  // With what their operands go through on the way in: fc1 behind its norm, both gradients of fc2's inputs.
  { m: 8 * 197, n: 1536, k: 384, transA: false, transB: true, prologueA: "layerNorm" },
  { m: 384, n: 1536, k: 8 * 197, transA: true, transB: false, prologueA: "scaleRows", prologueB: "gelu" },
  { m: 1536, n: 384, k: 8 * 197, transA: true, transB: false, prologueB: "layerNorm" },
];
/** Small ones that a software adapter, which builds a large tile for seconds, computes at once. */
const SMALL_PRODUCTS: readonly MatmulShape[] = [
  { m: 70, n: 68, k: 36, transA: false, transB: true },
  { m: 36, n: 68, k: 70, transA: true, transB: false },
  { m: 70, n: 68, k: 36, transA: false, transB: true, prologueA: "layerNorm" },
  { m: 36, n: 68, k: 70, transA: true, transB: false, prologueA: "scaleRows", prologueB: "gelu" },
];

const both = (shape: Omit<AttentionShape, "backward">) => [false, true].map((backward) => ({ ...shape, backward }));
/** Global and local crops of ViT-S/16, and a crop of ViT-S/8. */
const ATTENTIONS: readonly AttentionShape[] = [[197, 16], [37, 64], [785, 2]]
  .flatMap(([tokens, images]) => both({ images, heads: 6, tokens, queries: tokens, width: 64 }));
const SMALL_ATTENTIONS = both({ images: 2, heads: 2, tokens: 11, queries: 11, width: 8 });

/** Compares every variant; on a software adapter at small sizes, with the kernels of real ones. */
export async function* variantChecks(backend: WebGpu): AsyncGenerator<VariantCheck> {
  const { limits, adapter: { fallback } } = backend;
  // Little workgroup memory, so that attention's tiles are small there.
  if (fallback) backend.limits = { ...limits, fallback: false, lanes: 0, workgroupBytes: 9728 };
  try {
    for (const shape of fallback ? SMALL_PRODUCTS : PRODUCTS) {
      const { chosen, micros, wrong } = await backend.compareTiles(shape);
      const { m, n, k, transA, transB, prologueA, prologueB } = shape;
      const through = [prologueA && `${prologueA} of a`, prologueB && `${prologueB} of b`].filter(Boolean).join(", ");
      const what = `product ${m}×${n}×${k} ${transA ? "T" : "N"}${transB ? "T" : "N"}${through && ` with ${through}`}`;
      yield { what, chosen, micros, wrong };
    }
    for (const shape of fallback ? SMALL_ATTENTIONS : ATTENTIONS) {
      const { chosen, micros, wrong } = await backend.compareAttention(shape);
      const what = `attention ${shape.backward ? "backward" : "forward"}, ${shape.tokens} tokens`;
      yield { what, chosen, micros, wrong };
    }
  } finally {
    backend.limits = limits;
  }
}

/** One line of a comparison. */
export function variantText({ what, chosen, micros, wrong }: VariantCheck): string {
  const times = Object.entries(micros).map(([name, us]) => `${name} ${us.toPrecision(3)} µs`).join(", ");
  return `${wrong.length > 0 ? "OFF " : "ok  "} ${what}: ${chosen} (${times})${
    wrong.length > 0 ? `; wrong: ${wrong.join(", ")}` : ""
  }`;
}
