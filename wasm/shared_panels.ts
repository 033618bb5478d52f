// Weights that several products of a program read, student crops of every size, say, are packed once and kept until the last.
import { matmulExtents } from "../models/graph/ops/matmul.ts";
import type { Op } from "../models/graph/ops/mod.ts";
import { type Guest, type MemoryPlan, planMemory } from "../models/graph/plan.ts";
import { asMatrix, outputsOf, type Program } from "../models/graph/program.ts";
import { rootOf } from "../models/graph/tensor.ts";
import { packsPanels, panelBytes } from "./ops/matmul.ts";

/** Packed panels of b that a product finds, or leaves for those after it. */
export interface SharedPanels {
  /** First byte in the arena. */
  readonly offset: number;
  readonly bytes: number;
  /** Whether an earlier product has packed them. */
  readonly packed: boolean;
}

/** Plans the memory of a program, and which products share panels: those whose panels find a gap in the arena, which never grows. */
export function planWithPanels(program: Program): { plan: MemoryPlan; panels: ReadonlyMap<Op, SharedPanels> } {
  const readers = readersOf(program);
  const guests = readers.map((ops): Guest => {
    const { n, k } = matmulExtents(ops[0].op);
    return { first: ops[0].index, last: ops[ops.length - 1].index, bytes: panelBytes(n, k) };
  });
  const plan = planMemory(program, { guests });
  const panels = new Map<Op, SharedPanels>();
  readers.forEach((ops, i) => {
    const offset = plan.guests[i];
    if (offset === undefined) return;
    ops.forEach(({ op }, j) => panels.set(op, { offset, bytes: guests[i].bytes, packed: j > 0 }));
  });
  return { plan, panels };
}

interface Reader {
  readonly op: Op & { kind: "matmul" };
  readonly index: number;
}

/** Products that read the same b in the same layout while nothing writes to it, where there are several. */
function readersOf(program: Program): Reader[][] {
  const groups: Reader[][] = [];
  const open = new Map<number, Map<string, Reader[]>>(); // by buffer, then by what is read of it
  program.ops.forEach((op, index) => {
    if (op.kind === "matmul" && packsPanels(op)) {
      const { b } = op.in, root = rootOf(b).id;
      const key = `${b.offset ?? 0} ${asMatrix(b)} ${op.attrs.transB}`;
      const ofBuffer = open.get(root) ?? new Map<string, Reader[]>();
      open.set(root, ofBuffer);
      let group = ofBuffer.get(key);
      if (!group) {
        ofBuffer.set(key, group = []);
        groups.push(group);
      }
      group.push({ op, index });
    }
    for (const t of outputsOf(op)) open.delete(rootOf(t).id);
  });
  return groups.filter((group) => group.length > 1);
}
