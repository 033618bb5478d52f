// The memory planner: nothing alive overlaps, the peak is near the live bytes, buffers in place are really shared.
import { layoutSegments } from "../../../models/graph/arena.ts";
import { dropUnreadOutputs } from "../../../models/graph/autodiff.ts";
import { aligned, planMemory } from "../../../models/graph/plan.ts";
import { gelu } from "../../../models/graph/ops/elementwise.ts";
import { inputsOf, outputsOf, Program, tensorsOf } from "../../../models/graph/program.ts";
import { patchify } from "../../../models/graph/ops/tokens.ts";
import { byteLength, rootOf, tensor, view } from "../../../models/graph/tensor.ts";
import { headConfig } from "../../../models/dino_head.ts";
import { vitConfig } from "../../../models/vit.ts";
import { DinoState } from "../../../dino/state.ts";
import { stepPrograms } from "../../../dino/step.ts";
import { assert, assertEquals, assertThrows } from "../../assert.ts";

function trainingProgram(): Program {
  const network = {
    backbone: vitConfig({ imageSize: 32, patchSize: 8, embedDim: 48, depth: 3, numHeads: 3 }),
    head: headConfig({ inDim: 48, outDim: 64, hiddenDim: 64, bottleneckDim: 32 }),
  };
  const global = tensor("global", [6, 3, 32, 32], "input"), local = tensor("local", [12, 3, 16, 16], "input");
  const step = { images: 3, accumulate: 1, globals: 2, views: 6, studentTemp: 0.1, centerMomentum: 0.9 };
  return stepPrograms(new DinoState(network), step, (p) => {
    const group = (image: typeof global) => ({
      patches: patchify(p, image, 8),
      images: image.shape[0],
      height: image.shape[2],
      width: image.shape[3],
    });
    const teacher = [group(global)];
    return { teacher, student: [...teacher, group(local)] };
  }).parts[0];
}

Deno.test("plan: tensors that are alive together never overlap, except a declared in-place pair", () => {
  const program = trainingProgram();
  dropUnreadOutputs(program);
  const { offsets, arenaBytes } = planMemory(program);
  const spans = new Map<number, { first: number; last: number; bytes: number; name: string }>();
  program.ops.forEach((op, i) => {
    for (const t of tensorsOf(op)) {
      const root = rootOf(t);
      if (root.role !== "activation") continue;
      const span = spans.get(root.id) ?? { first: i, last: i, bytes: byteLength(root), name: root.name };
      span.last = i;
      spans.set(root.id, span);
    }
  });
  const all = [...spans].map(([id, span]) => ({ ...span, start: offsets.get(id)! }));
  let shared = 0;
  for (const a of all) {
    assert(a.start + a.bytes <= arenaBytes, `${a.name} ends beyond the arena`);
    for (const b of all) {
      if (a === b || a.start + a.bytes <= b.start || b.start + b.bytes <= a.start) continue;
      if (a.last < b.first || b.last < a.first) continue;
      const handover = a.last === b.first || b.last === a.first; // dies where the other is born: in place
      assert(handover && a.start === b.start, `${a.name} and ${b.name} overlap while both are alive`);
      shared++;
    }
  }
  assert(shared > 0, "no buffer is shared in place: the losses' gradient at least should be");
});

Deno.test("plan: the arena is at most 10 % above the live peak of a training step", () => {
  const program = trainingProgram();
  dropUnreadOutputs(program);
  const { arenaBytes } = planMemory(program);
  const last = new Map<number, number>();
  program.ops.forEach((op, i) => tensorsOf(op).forEach((t) => last.set(rootOf(t).id, i)));
  const alive = new Map<number, number>();
  let peak = 0;
  program.ops.forEach((op, i) => {
    for (const t of outputsOf(op)) {
      if (rootOf(t).role === "activation") alive.set(rootOf(t).id, aligned(byteLength(rootOf(t))));
    }
    peak = Math.max(peak, [...alive.values()].reduce((a, b) => a + b, 0));
    for (const t of [...inputsOf(op), ...outputsOf(op)]) if (last.get(rootOf(t).id) === i) alive.delete(rootOf(t).id);
  });
  assert(arenaBytes <= 1.1 * peak, `arena ${arenaBytes}, live peak ${peak}`);
});

Deno.test("dropUnreadOutputs keeps what backward reads and drops what only it would have read", () => {
  const p = new Program("p");
  const x = tensor("x", [4], "input");
  gelu(p, gelu(p, x));
  const training = trainingProgram();
  const before = training.ops.filter((op) => op.kind === "layerNorm").length;
  dropUnreadOutputs(training);
  const norms = training.ops.filter((op) => op.kind === "layerNorm");
  assertEquals(norms.length, before);
  const without = norms.filter((op) => op.kind === "layerNorm" && op.out.stats === undefined).length;
  assertEquals(without, 3 * 2 + 1, "the teacher's layer norms, one pass of three blocks, keep no statistics");
});

Deno.test("a view beyond its base or off alignment is refused with the numbers", () => {
  const base = tensor("base", [100], "state");
  assertThrows(() => view(base, "v", [40], 64), RangeError, "64…104");
  assertThrows(() => view(base, "v", [4], 3), RangeError, "256 bytes");
  assertThrows(() => tensor("t", [2, -1], "state"), RangeError, "-1");
  assertEquals(layoutSegments([["a", [3]], ["b", [65]], ["c", [1]]]).map((s) => s.offset), [0, 64, 192]);
});

Deno.test("plan: guests lie in gaps for as long as they are needed, and never enlarge the arena", () => {
  const program = trainingProgram();
  dropUnreadOutputs(program);
  const without = planMemory(program), count = program.ops.length;
  const guests = Array.from({ length: 12 }, (_, i) => {
    const first = Math.floor(i * count / 14);
    return { first, last: Math.min(count - 1, first + count / 6 | 0), bytes: 3000 + 700 * i };
  });
  const large = { first: 0, last: count - 1, bytes: without.arenaBytes };
  const plan = planMemory(program, { guests: [...guests, large] });
  assertEquals([plan.arenaBytes, plan.offsets], [without.arenaBytes, without.offsets]);
  assertEquals(plan.guests[guests.length], undefined, "one as large as the arena, for all of the program, has no gap");
  const alive = new Map<number, { first: number; last: number; bytes: number }>();
  program.ops.forEach((op, i) => {
    for (const t of tensorsOf(op)) {
      const root = rootOf(t);
      if (root.role !== "activation") continue;
      const span = alive.get(root.id) ?? { first: i, last: i, bytes: byteLength(root) };
      span.last = i;
      alive.set(root.id, span);
    }
  });
  const others = [...alive].map(([id, span]) => ({ ...span, offset: plan.offsets.get(id)! }));
  let placed = 0;
  for (const [i, guest] of guests.entries()) {
    const offset = plan.guests[i];
    if (offset === undefined) continue;
    placed++;
    assert(offset % 256 === 0 && offset + guest.bytes <= plan.arenaBytes);
    for (const other of others) {
      const apart = other.last < guest.first || guest.last < other.first;
      assert(
        apart || offset + guest.bytes <= other.offset || other.offset + other.bytes <= offset,
        `guest ${i} overlaps`,
      );
    }
    others.push({ ...guest, offset });
  }
  assert(placed > 0, "no guest found a gap");
});
