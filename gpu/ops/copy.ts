// Copies of 32-bit words of any type, and of floats from one storage type to another.
import { byteLength, size } from "../../models/graph/tensor.ts";
import type { OpOf } from "../../models/graph/ops/mod.ts";
import { kernel } from "../kernels/sources.ts";
import type { Lowering } from "../lowering.ts";

/** Threads of every elementwise workgroup. */
export const THREADS = 256;

export function lowerCopy(l: Lowering, op: OpOf<"copy">): void {
  if (l.isHalf(op.in.x) || l.isHalf(op.out.y)) {
    const count = size(op.out.y), width = count % 4 === 0 ? 4 : 1;
    const u = [count / width];
    l.emit(kernel("convert", { width }), [l.of(op.in.x), l.of(op.out.y)], { u }, Math.ceil(count / width / THREADS));
    return;
  }
  const bytes = byteLength(op.out.y);
  const words = Math.ceil(bytes / 4);
  const lastMask = bytes % 4 === 0 ? 0xffffffff : 2 ** (8 * (bytes % 4)) - 1;
  l.emit(kernel("copy"), [l.of(op.in.x), l.of(op.out.y)], { u: [words, lastMask] }, Math.ceil(words / THREADS));
}
