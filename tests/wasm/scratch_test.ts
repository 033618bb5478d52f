// Kernels with private scratch ask for enough of it: each case has a backend of its own, so that none profits from another.
import { Program } from "../../models/graph/program.ts";
import { type Tensor, tensor } from "../../models/graph/tensor.ts";
import { openWasm } from "../../wasm/mod.ts";
import type { TileShape } from "../../wasm/micro_kernels.ts";

const TILES: TileShape[] = [{ rows: 4, columns: 8 }, { rows: 5, columns: 16 }];

/** Images, tokens, heads, queries, head width: padding exact, just missed, none; one query; more queries than a block. */
const ATTENTION = [[1, 197, 1, 197, 64], [1, 128, 2, 128, 64], [1, 300, 1, 1, 64], [2, 17, 3, 17, 48], [
  1,
  121,
  1,
  121,
  112,
]];

/** m, n, k around the borders of chunks, tiles and panels. */
const PRODUCTS = [[241, 512, 385], [480, 1536, 40], [481, 65, 700], [7, 64, 64], [100, 16, 4096]];

function* programs(): Generator<Program> {
  for (const [images, tokens, heads, queries, d] of ATTENTION) {
    const input = (name: string, rows: number, columns: number) => tensor(name, [rows, columns], "input");
    const qkv = input("qkv", images * tokens, 3 * heads * d), dqkv = input("dqkv", images * tokens, 3 * heads * d);
    const y = input("y", images * queries, heads * d), dy = input("dy", images * queries, heads * d);
    const lse = tensor("lse", [images, heads, queries], "input"), attrs = { images, tokens, heads, queries };
    const forward = new Program(`attention of ${tokens} × ${d}`), backward = new Program(`${forward.name}, backward`);
    forward.emit({ kind: "attention", in: { qkv }, out: { y, lse }, attrs });
    backward.emit({ kind: "attentionBackward", in: { dy, qkv, y, lse }, out: { dqkv }, attrs });
    yield forward;
    yield backward;
  }
  for (const [m, n, k] of PRODUCTS) {
    for (const [transA, transB, epilogue] of [[false, true, "gelu"], [true, false, "none"]] as const) {
      const operand = (name: string, rows: number, columns: number, transposed: boolean): Tensor =>
        tensor(name, transposed ? [columns, rows] : [rows, columns], "input");
      const a = operand("a", m, k, transA), b = operand("b", k, n, transB), c = operand("c", m, n, false);
      const p = new Program(`${m}×${n}×${k} ${epilogue}`);
      p.emit({ kind: "matmul", in: { a, b }, out: { c }, attrs: { transA, transB, epilogue, accumulate: false } });
      yield p;
    }
  }
}

Deno.test({
  name: "attention and matrix products stay inside the scratch they ask for",
  sanitizeOps: false,
  sanitizeResources: false,
  async fn() {
    for (const tile of TILES) {
      for (const program of programs()) {
        const backend = await openWasm({ threads: 1, tile, redZone: 256, maximumBytes: 2 ** 27 });
        await (await backend.compile(program)).run(); // rejects if a kernel wrote where it should not
        await backend.close();
      }
    }
  },
});
