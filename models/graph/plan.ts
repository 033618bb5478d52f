// Liveness → offsets: where each activation lies in the arena, and the peak bytes, before a device is touched.
import { outputsOf, type Program, tensorsOf } from "./program.ts";
import { type Op, ruleOf } from "./ops/mod.ts";
import { byteLength, rootOf, type Tensor } from "./tensor.ts";

/** WebGPU's usual storage-offset alignment; also four cache lines. */
export const PLAN_ALIGNMENT = 256;

/** Bytes a program needs. */
export interface MemoryPlan {
  /** First byte of each activation in the arena, by the id of its root tensor. */
  readonly offsets: ReadonlyMap<number, number>;
  /** Size of the arena: the most activation bytes alive at once, with fragmentation. */
  readonly arenaBytes: number;
  /** Bytes of parameters, state, inputs, outputs and constants the program names. */
  readonly persistentBytes: number;
  /** The same, by role. */
  readonly persistentByRole: Readonly<Record<string, number>>;
  /** First byte of each guest in the arena; undefined for those that would not fit without enlarging it. */
  readonly guests: readonly (number | undefined)[];
}

/** A buffer that is only worth having where the arena has room for it anyway. */
export interface Guest {
  /** The first operation it is needed in. */
  readonly first: number;
  /** The last one. */
  readonly last: number;
  /** What it takes. */
  readonly bytes: number;
}

/** Bytes a tensor that owns its buffer takes; a backend may keep an activation in fewer than its elements have. */
export type BytesOf = (root: Tensor) => number;

interface Span {
  first: number;
  last: number;
  bytes: number;
  /** Bytes it is kept in over those of its elements. */
  density: number;
}

/** Bytes rounded up to the plan's alignment. */
export function aligned(bytes: number): number {
  return Math.ceil(bytes / PLAN_ALIGNMENT) * PLAN_ALIGNMENT;
}

/**
 * Assigns offsets to the activations of a program so that none that are alive together overlap.
 *
 * @param chunkBytes no activation crosses a multiple of this, so that the arena can be made of several buffers
 * @param bytesOf how an activation is kept; default as its elements are
 * @param guests placed in what gaps are left, those of most bytes first
 */
export function planMemory(
  program: Program,
  { chunkBytes = Infinity, bytesOf = byteLength, guests = [] }: {
    chunkBytes?: number;
    bytesOf?: BytesOf;
    guests?: readonly Guest[];
  } = {},
): MemoryPlan {
  const spans = liveSpans(program, bytesOf);
  const shared = shareInPlace(program, spans);
  const offsets = placeSpans([...new Set(shared.values())], chunkBytes);
  const result = new Map<number, number>();
  let arenaBytes = 0;
  for (const [id, span] of shared) {
    const offset = offsets.get(span)!;
    result.set(id, offset);
    arenaBytes = Math.max(arenaBytes, offset + span.bytes);
  }
  const persistentByRole: Record<string, number> = {};
  let persistentBytes = 0;
  for (const root of program.roots()) {
    if (root.role === "activation") continue;
    const bytes = aligned(byteLength(root));
    persistentByRole[root.role] = (persistentByRole[root.role] ?? 0) + bytes;
    persistentBytes += bytes;
  }
  const placed = placeGuests(guests, offsets, arenaBytes);
  return { offsets: result, arenaBytes, persistentBytes, persistentByRole, guests: placed };
}

/** First and last operation that touches each activation. */
function liveSpans(program: Program, bytesOf: BytesOf): Map<number, Span> {
  const spans = new Map<number, Span>();
  program.ops.forEach((op, i) => {
    for (const t of tensorsOf(op)) {
      const root = rootOf(t);
      if (root.role !== "activation") continue;
      const span = spans.get(root.id);
      if (span) span.last = i;
      else {
        const bytes = bytesOf(root);
        spans.set(root.id, { first: i, last: i, bytes: aligned(bytes), density: bytes / byteLength(root) });
      }
    }
  });
  return spans;
}

/** Lets an output take over the memory of an input that dies in the same operation, where the rule allows it. */
function shareInPlace(program: Program, spans: Map<number, Span>): Map<number, Span> {
  const shared = new Map(spans);
  program.ops.forEach((op, i) => {
    for (const [outSlot, inSlot] of Object.entries(ruleOf(op).inPlace ?? {})) {
      const output = slot(op.out, outSlot), input = slot(op.in, inSlot);
      if (!output || !input || output.base || input.base || output === input) continue;
      const from = shared.get(input.id), to = shared.get(output.id);
      if (!from || !to || from === to || from.last !== i || to.first !== i || from.bytes !== to.bytes) continue;
      if (from.density !== to.density) continue; // element i lies elsewhere
      if (ruleOf(op).readsOutput?.(op).includes(outSlot)) continue;
      if (readElsewhere(op, inSlot, from, shared)) continue;
      from.last = to.last;
      for (const [id, span] of shared) if (span === to) shared.set(id, from);
    }
  });
  return shared;
}

/** Whether another slot of the operation uses the same memory as `inSlot`. */
function readElsewhere(op: Op, inSlot: string, span: Span, shared: Map<number, Span>): boolean {
  return Object.entries(op.in as Record<string, Tensor | undefined>).some(([name, t]) =>
    name !== inSlot && t && shared.get(rootOf(t).id) === span
  ) || outputsOf(op).some((t) => shared.get(rootOf(t).id) === span);
}

function slot(record: object, name: string): Tensor | undefined {
  return (record as Record<string, Tensor | undefined>)[name];
}

/** A span and where it lies. */
interface Placed {
  readonly span: Guest;
  readonly offset: number;
}

/** Largest first, each at the lowest gap free for its whole life: within a few per cent of the live peak. */
function placeSpans(spans: Span[], chunkBytes: number): Map<Span, number> {
  const placed: Placed[] = [], offsets = new Map<Span, number>();
  const order = [...spans].sort((a, b) => b.bytes - a.bytes || a.first - b.first);
  for (const span of order) {
    const offset = lowestGap(span, placed, chunkBytes);
    placed.push({ span, offset });
    offsets.set(span, offset);
  }
  return offsets;
}

function lowestGap(span: Guest, placed: readonly Placed[], chunkBytes: number): number {
  const startIn = (offset: number, bytes: number) =>
    offset % chunkBytes + bytes > chunkBytes ? Math.ceil(offset / chunkBytes) * chunkBytes : offset;
  const busy = placed.filter(({ span: other }) => other.first <= span.last && span.first <= other.last);
  busy.sort((a, b) => a.offset - b.offset);
  let offset = 0;
  for (const { span: other, offset: start } of busy) {
    if (start - offset >= span.bytes) break;
    offset = startIn(Math.max(offset, start + other.bytes), span.bytes);
  }
  return offset;
}

function placeGuests(
  guests: readonly Guest[],
  offsets: ReadonlyMap<Span, number>,
  arenaBytes: number,
): (number | undefined)[] {
  const placed: Placed[] = [...offsets].map(([span, offset]) => ({ span, offset }));
  const result: (number | undefined)[] = guests.map(() => undefined);
  const order = [...guests.keys()].sort((a, b) => guests[b].bytes - guests[a].bytes || a - b);
  for (const i of order) {
    const span = { ...guests[i], bytes: aligned(guests[i].bytes) };
    const offset = lowestGap(span, placed, Infinity);
    if (offset + span.bytes > arenaBytes) continue;
    placed.push({ span, offset });
    result[i] = offset;
  }
  return result;
}
