// A batch norm whose rows are spread over ranks against one that has them all.
import { differentiate } from "../../models/graph/autodiff.ts";
import { ALONE, type Communicator } from "../../models/graph/communicator.ts";
import type { Backend } from "../../models/graph/backend.ts";
import { batchNorm } from "../../models/graph/ops/batch_norm.ts";
import { emitAllReduce } from "../../models/graph/ops/collective.ts";
import { add, emitCopy } from "../../models/graph/ops/elementwise.ts";
import { relu } from "../../models/graph/ops/relu.ts";
import { Program } from "../../models/graph/program.ts";
import { tensor } from "../../models/graph/tensor.ts";
import { assertAlmostEquals, assertEquals, assertRejects } from "../assert.ts";
import { openBackendForTests } from "../backends.ts";
import { noise } from "../models/graph/op_cases.ts";
import { onEachKind, onRanks } from "./ranks.ts";

const C = 5, ROWS = 42;

/** Rows [from, from + rows) of the batch through two batch norms and back: y, dx, gradients and running statistics. */
async function pass(backend: Backend, communicator: Communicator, from: number, rows: number) {
  const at = noise(3), column = (i: number) => i % C;
  // Rows of one rank lie apart from those of another, so that statistics of a share would be quite wrong.
  const x = Float32Array.from({ length: ROWS * C }, (_, i) => 10 * column(i) + i / ROWS / C + at());
  const dy = Float32Array.from({ length: ROWS * C }, () => at());
  const p = new Program("batch norms", communicator.size);
  const share = (name: string, data: Float32Array) => {
    const t = tensor(name, [rows, C], "input");
    backend.write(t, data.subarray(from * C, (from + rows) * C));
    return t;
  };
  const filled = (name: string, value: (c: number) => number) => {
    const t = tensor(name, [C], "param");
    backend.write(t, Float32Array.from({ length: C }, (_, c) => value(c)));
    return t;
  };
  const norm = (n: number) => ({
    weight: filled(`weight${n}`, (c) => 1 + c / 4),
    bias: filled(`bias${n}`, (c) => c - 2),
    runningMean: filled(`runningMean${n}`, () => 1),
    runningVar: filled(`runningVar${n}`, () => 2),
  });
  const input = share("x", x), seed = share("dy", dy), first = norm(1), second = norm(2);
  const y = batchNorm(p, relu(p, batchNorm(p, input, first, { training: true })), second, { training: true });
  const result = tensor("y", [rows, C], "output"), dx = tensor("dx", [rows, C], "output");
  emitCopy(p, y, result);
  const gradients = [first.weight, first.bias, second.weight, second.bias].map((parameter) =>
    [parameter, tensor(`d${parameter.name}`, [C], "output")] as const
  );
  differentiate(p, { seeds: [[y, seed]], wrt: [[input, dx], ...gradients] });
  if (communicator.size > 1) { for (const [, gradient] of gradients) emitAllReduce(p, gradient); }
  const executable = await backend.compile(p, communicator);
  await executable.run();
  const read = async (t: Parameters<Backend["read"]>[0]) => [...await backend.read(t)];
  return {
    ofRows: { y: await read(result), dx: await read(dx) },
    ofAll: await Promise.all([
      ...gradients.map(([, gradient]) => gradient),
      ...[first, second].flatMap(({ runningMean, runningVar }) => [runningMean, runningVar]),
    ].map(read)),
  };
}

onEachKind("synchronised batch norm: ranks that share a batch see what one sees that has it all", async (kind) => {
  const alone = await openBackendForTests(kind, { threads: 2 });
  const whole = await pass(alone, ALONE, 0, ROWS);
  await alone.close();
  for (const size of [2, 3]) {
    const rows = ROWS / size;
    const shares = await onRanks(kind, size, (backend, c) => pass(backend, c, c.rank * rows, rows));
    for (const { ofAll } of shares) assertEquals(ofAll, shares[0].ofAll, "ranks differ"); // to the bit
    const check = (name: string, got: number[], truth: number[]) =>
      truth.forEach((value, i) =>
        // Sums of 42 terms in another order, in float32 around values of 40.
        assertAlmostEquals(got[i], value, 2e-5 * Math.max(1, Math.abs(value)), `${name} ${i} of ${size} ranks`)
      );
    check("y", shares.flatMap(({ ofRows }) => ofRows.y), whole.ofRows.y);
    check("dx", shares.flatMap(({ ofRows }) => ofRows.dx), whole.ofRows.dx);
    whole.ofAll.forEach((truth, i) => check(`tensor ${i}`, shares[0].ofAll[i], truth));
  }
});

onEachKind("programs of several ranks are compiled with as many, or refused", async (kind) => {
  const backend = await openBackendForTests(kind, { threads: 1 });
  const x = tensor("x", [3], "input"), p = new Program("two", 2);
  emitAllReduce(p, x);
  await assertRejects(() => backend.compile(p), RangeError, 'program "two" is written for 2 ranks');
  await backend.close();
});

onEachKind(
  "the gradient of a sum over ranks is the sum of the gradients, also where others were added",
  async (kind) => {
    const gradients = await onRanks(kind, 3, async (backend, communicator) => {
      const x = tensor("x", [2], "input"), dx = tensor("dx", [2], "output"), seed = tensor("dy", [2], "input");
      const p = new Program("sum", 3), summed = p.activation("Σx", [2]);
      emitAllReduce(p, x, summed);
      const y = add(p, summed, x); // x counts for every rank, and once more for its own
      differentiate(p, { seeds: [[y, seed]], wrt: [[x, dx]] });
      backend.write(seed, Float32Array.of(1, 10 ** communicator.rank));
      await (await backend.compile(p, communicator)).run();
      return [...await backend.read(dx)];
    });
    assertEquals(gradients, [[4, 112], [4, 121], [4, 211]]);
  },
);
