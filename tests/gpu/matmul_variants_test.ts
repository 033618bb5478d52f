// Every tile shape of the matrix product, forced, at extents around its edges, with each epilogue and with split inner extents.
import { type Tile, TILES } from "../../gpu/kernels/matmul_tiles.ts";
import type { MatmulOp } from "../../models/graph/ops/matmul.ts";
import { Program } from "../../models/graph/program.ts";
import { tensor } from "../../models/graph/tensor.ts";
import { assertAgrees } from "./compare.ts";
import { onGpu } from "./open.ts";

interface Shape {
  m: number;
  n: number;
  k: number;
  transA?: boolean;
  transB?: boolean;
  epilogue?: MatmulOp["attrs"]["epilogue"];
  accumulate?: boolean;
  splits?: number;
}

function extents(tile: Tile): Shape[] {
  const { bm, bn, bk, tm } = tile;
  const training: Shape[] = [
    // As training meets them: y = xWᵀ with GELU; dx = dW; dW = dᵀx, split and accumulated.
    { m: bm + 1, n: bn + 4, k: 2 * bk + 4, transB: true, epilogue: "gelu" },
    { m: bm - 1, n: bn, k: bk, epilogue: "geluBackward" },
    { m: bm + 4, n: bn - 4, k: 5 * bk - 1, transA: true, splits: 3, accumulate: true },
  ];
  if (tm === 8) return training.slice(bk === 16 ? 1 : 0); // a software adapter takes seconds to build each
  // Odd extents: one float at a time.
  return [...training, { m: bm + 1, n: bn + 1, k: bk + 1, transB: true }, {
    m: bm - 1,
    n: bn - 3,
    k: 7,
    transA: true,
    transB: true,
  }];
}

for (const [name, tile] of Object.entries(TILES)) {
  onGpu(`matmul tile ${name} agrees with the reference at its edges`, async (backend) => {
    for (const shape of extents(tile)) {
      const { m, n, k, transA = false, transB = false, epilogue = "none", accumulate = false, splits = 1 } = shape;
      backend.chooseMatmul = () => ({ tile, splits });
      const a = tensor("a", transA ? [k, m] : [m, k], "input"), b = tensor("b", transB ? [n, k] : [k, n], "input");
      const bias = tensor("bias", [n], "input"), residual = tensor("residual", [m, n], "input");
      const rowScale = tensor("rowScale", [m], "input");
      const preIn = tensor("pre", [m, n], "input"), preOut = tensor("pre", [m, n], "output");
      const c = tensor("c", [m, n], "state");
      const plain = epilogue === "none";
      const program = () => {
        const p = new Program("product");
        p.emit<MatmulOp>({
          kind: "matmul",
          in: {
            a,
            b,
            bias: plain ? undefined : bias,
            residual: plain ? undefined : residual,
            rowScale: plain ? undefined : rowScale,
            pre: epilogue === "geluBackward" ? preIn : undefined,
          },
          out: { c, pre: epilogue === "gelu" ? preOut : undefined },
          attrs: { transA, transB, epilogue, accumulate },
        });
        return p;
      };
      // Sums of k products of numbers below 1, each rounded: √k·ε typical, k·ε at worst.
      await assertAgrees(
        `${name} ${JSON.stringify(shape)}`,
        backend,
        program,
        [a, b, bias, residual, rowScale, preIn, c],
        epilogue === "gelu" ? [c, preOut] : [c],
        4 * Math.sqrt(k) * 2 ** -23,
      );
    }
  });
}
