// Compares every operation of a program, one at a time, between a backend and the float64 reference.
import { dropUnreadOutputs } from "./autodiff.ts";
import type { Backend } from "./backend.ts";
import { emitCopy } from "./ops/elementwise.ts";
import { type Op, type OpKind, ruleOf } from "./ops/mod.ts";
import { outputsOf, Program, tensorsOf } from "./program.ts";
import type { ReferenceBackend } from "./reference.ts";
import { hostArray, rootOf, type Tensor, tensor } from "./tensor.ts";

/** How one kind of operation fared. */
export interface OperationCheck {
  readonly kind: OpKind;
  /** Operations of different shapes that were run. */
  readonly checked: number;
  /** Largest difference in any output, in units of the largest magnitude of that output or of what it sums up. */
  readonly error: number;
  /** The output where that was. */
  readonly where: string;
}

/**
 * Runs each operation of `program` that differs in kind, shapes or attributes by itself on `backend`, on the operands it has in
 * the program, and compares what it writes.
 *
 * @param reference holds the operands of the program's start; the program is run on it as the check proceeds
 * @param seen what was checked already, in this program or in others, and is not run again
 */
export async function checkOperations(
  backend: Backend,
  program: Program,
  reference: ReferenceBackend,
  seen: Set<string> = new Set(),
): Promise<OperationCheck[]> {
  dropUnreadOutputs(program);
  const results = new Map<OpKind, OperationCheck>();
  for (const op of program.ops) {
    const signature = signatureOf(op);
    if (seen.has(signature)) {
      runRounded(op, reference);
      continue;
    }
    seen.add(signature);
    const { error, where } = await checkOne(backend, op, program.gradients, reference);
    const before = results.get(op.kind);
    const worse = !before || error > before.error;
    results.set(op.kind, {
      kind: op.kind,
      checked: (before?.checked ?? 0) + 1,
      error: worse ? error : before.error,
      where: worse ? where : before.where,
    });
  }
  return [...results.values()];
}

function signatureOf(op: Op): string {
  const slots = (record: object) =>
    Object.entries(record as Record<string, Tensor | undefined>).map(([slot, t]) => t && `${slot}[${t.shape}]`);
  return JSON.stringify([op.kind, op.attrs, slots(op.in), slots(op.out)]);
}

/** Runs an operation on the reference, and rounds what it wrote to what a device can hold. */
function runRounded(op: Op, reference: ReferenceBackend): void {
  ruleOf(op).reference(op, (t) => reference.at(t));
  for (const t of outputsOf(op)) {
    const values = reference.at(t);
    for (let i = 0; i < values.length; i++) values[i] = Math.fround(values[i]);
  }
}

/** Sums over rows may cancel to nothing (the bias before a batch norm has no gradient); what they sum sets the scale then. */
function largestSummand(op: Op, reference: ReferenceBackend): number {
  const summed = "dy" in op.in ? op.in.dy : op.kind === "columnSum" || op.kind === "sum" ? op.in.x : undefined;
  return summed ? reference.at(summed).reduce((a, b) => Math.max(a, Math.abs(b)), 1e-30) : 1e-30;
}

/** The operation on other tensors. */
function alone(op: Op, tensors: ReadonlyMap<number, Tensor>): Program {
  const program = new Program(op.kind);
  const mapped = (record: object) =>
    Object.fromEntries(
      Object.entries(record as Record<string, Tensor | undefined>).map(([slot, t]) => [slot, t && tensors.get(t.id)]),
    );
  program.emit({ ...op, in: mapped(op.in), out: mapped(op.out) } as Op);
  return program;
}

/** The same with what was an activation in between as an activation, since a backend may keep those as f16. */
function throughActivations(op: Op, copies: ReadonlyMap<number, Tensor>, gradients: ReadonlySet<number>): Program {
  const program = new Program(op.kind);
  const inner = new Map(copies);
  for (const t of tensorsOf(op)) {
    if (t.role !== "activation" || t.dtype !== "f32") continue;
    const made = program.activation(t.name, t.shape);
    if (gradients.has(rootOf(t).id)) program.gradients.add(made.id);
    inner.set(t.id, made);
  }
  const moved = [...inner].filter(([id, t]) => t !== copies.get(id));
  for (const [id, t] of moved) emitCopy(program, copies.get(id)!, t);
  program.append(alone(op, inner));
  for (const [id, t] of moved) {
    if (!outputsOf(op).some((output) => output.id === id)) continue;
    const wide = program.activation(t.name, t.shape); // what the host reads is copied from f32
    emitCopy(program, t, wide);
    emitCopy(program, wide, copies.get(id)!);
  }
  return program;
}

async function checkOne(
  backend: Backend,
  op: Op,
  gradients: ReadonlySet<number>,
  reference: ReferenceBackend,
): Promise<{ error: number; where: string }> {
  const copies = new Map<number, Tensor>();
  for (const t of tensorsOf(op)) {
    if (copies.has(t.id)) continue;
    const constant = t.role === "constant" && t.data !== undefined;
    const copy = constant ? t : tensor(t.name, t.shape, "state", t.dtype);
    copies.set(t.id, copy);
    if (constant) continue;
    const data = hostArray(t);
    data.set(reference.at(t));
    backend.write(copy, data);
  }
  const single = backend.precision === "f16" ? throughActivations(op, copies, gradients) : alone(op, copies);
  const summands = largestSummand(op, reference);
  const executable = await backend.compile(single);
  await executable.run();
  ruleOf(op).reference(op, (t) => reference.at(t));
  let error = 0, where = "";
  const written = await Promise.all(outputsOf(op).map((t) => backend.read(copies.get(t.id)!))); // a GPU waits once
  for (const [n, t] of outputsOf(op).entries()) {
    const got = written[n], truth = reference.at(t);
    let largest = summands, difference = 0;
    for (let i = 0; i < truth.length; i++) {
      largest = Math.max(largest, Math.abs(truth[i]));
      const d = Math.abs(got[i] - truth[i]);
      difference = Math.max(difference, Number.isNaN(d) ? Infinity : d);
      truth[i] = Math.fround(truth[i]);
    }
    if (difference / largest >= error) error = difference / largest, where = `${t.name} [${t.shape}]`;
  }
  executable.dispose();
  backend.free(...copies.values());
  return { error, where };
}
