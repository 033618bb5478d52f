// Copies of 32-bit words, which also carry views to and from where they can be bound.
import { byteLength, bytesPerElement, type Tensor } from "../../models/graph/tensor.ts";
import type { OpOf } from "../../models/graph/ops/mod.ts";
import type { Binding } from "../dispatch.ts";
import { kernel } from "../kernels/sources.ts";
import type { Lowering } from "../lowering.ts";

/** Threads of every elementwise workgroup. */
export const THREADS = 256;

const COPY = kernel("copy");

/** y = x. */
export function lowerCopy(l: Lowering, op: OpOf<"copy">): void {
  emitWordCopy(l, op.out.y, l.of(op.in.x), l.of(op.out.y));
}

/** Copies the elements of `t` between two places, at least one of which may start before them. */
export function emitWordCopy(l: Lowering, t: Tensor, from: Binding, to: Binding): void {
  const bytes = byteLength(t);
  const words = Math.ceil(bytes / 4);
  const lastMask = bytes % 4 === 0 ? 0xffffffff : 2 ** (8 * (bytes % 4)) - 1;
  const u = [words, wordsBefore(t, from), wordsBefore(t, to), lastMask];
  l.emit(COPY, [from, to], { u }, Math.ceil(words / THREADS));
}

/** Words of a binding that precede the elements of `t`. */
function wordsBefore(t: Tensor, place: Binding): number {
  if (place.kind !== "tensor" || place.tensor.id !== t.id) return 0;
  const bytes = (t.offset ?? 0) * bytesPerElement(t.dtype) - place.offset;
  if (bytes % 4 !== 0) throw new TypeError(`webgpu: view ${t.name} of bytes starts ${bytes % 4} bytes into a word`);
  return bytes / 4;
}
