// The most similar patches within a window of earlier frames, found strip by strip so that no N × N matrix exists.

import type { Backend, Executable } from "../../../models/graph/backend.ts";
import { matmulExtents, type MatmulOp } from "../../../models/graph/ops/matmul.ts";
import type { TopKOp } from "../../../models/graph/ops/neighbours.ts";
import { gatherRows } from "../../../models/graph/ops/tokens.ts";
import { canViewRows, Program, rows } from "../../../models/graph/program.ts";
import { type Tensor, tensor, view } from "../../../models/graph/tensor.ts";
import { VIEW_ALIGNMENT } from "../../../models/graph/tensor.ts";
import { normalizeRows } from "../knn/knn.ts";

/** Extents of a search. */
export interface WindowSearchOptions {
  /** Rows of patches. */
  readonly gridHeight: number;
  /** Columns of patches. */
  readonly gridWidth: number;
  /** Features of a patch. */
  readonly dim: number;
  /** Frames that are held. */
  readonly slots: number;
  /** Patches in each direction; 0 searches whole frames. */
  readonly radius: number;
  /** Patches returned of each frame. */
  readonly k: number;
}

/** Cosines lie within ±1: less than this stands for a patch outside the window. */
const OUTSIDE = -4;

/** Elements of a row of results start at multiples of this many. */
const ALIGNED = VIEW_ALIGNMENT / 4;

/** One row of target patches against the source rows within reach. */
interface Strip {
  readonly row: number;
  readonly firstSource: number;
  readonly offset: number;
}

/** Holds the normalised patches of some frames on a device and searches them. */
export class WindowSearch {
  readonly #target: Tensor;
  readonly #slots: Tensor[];
  readonly #values: Tensor;
  readonly #indices: Tensor;
  readonly #constants: Tensor[] = [];
  readonly #strips: Strip[] = [];
  readonly #perSlot: number;
  readonly #k: number;
  #executable!: Executable;

  private constructor(readonly backend: Backend, readonly options: WindowSearchOptions) {
    const { gridHeight, gridWidth, dim, slots, radius } = options;
    const patches = gridHeight * gridWidth;
    this.#target = tensor("target", [patches, dim], "input");
    this.#slots = Array.from({ length: slots }, (_, i) => tensor(`slot${i}`, [patches, dim], "input"));
    const sourceRows = (row: number) => {
      const first = radius === 0 ? 0 : Math.max(0, row - radius);
      const last = radius === 0 ? gridHeight - 1 : Math.min(gridHeight - 1, row + radius);
      return [first, last - first + 1];
    };
    const fewest = Math.min(...Array.from({ length: gridHeight }, (_, row) => sourceRows(row)[1]));
    this.#k = Math.min(options.k, fewest * gridWidth);
    const stripLength = Math.ceil(gridWidth * this.#k / ALIGNED) * ALIGNED;
    for (let row = 0; row < gridHeight; row++) {
      this.#strips.push({ row, firstSource: sourceRows(row)[0], offset: row * stripLength });
    }
    this.#perSlot = gridHeight * stripLength;
    this.#values = tensor("values", [slots * this.#perSlot], "output");
    this.#indices = tensor("indices", [slots * this.#perSlot], "output", "i32");
  }

  /** Compiles a search. */
  static async create(backend: Backend, options: WindowSearchOptions): Promise<WindowSearch> {
    const search = new WindowSearch(backend, options);
    search.#executable = await backend.compile(search.#program());
    return search;
  }

  /** Results of each frame for each patch: at most what was asked, fewer where a frame has fewer. */
  get k(): number {
    return this.#k;
  }

  /**
   * Puts a frame into a slot.
   *
   * @param features [patches, dim], of any length: rows are normalised here
   */
  store(slot: number, features: Float32Array): void {
    this.backend.write(this.#slots[slot], normalizeRows(features, this.options.dim));
  }

  /**
   * Visits, for every patch of a frame, its most similar patches in the first `filled` slots.
   *
   * @param features [patches, dim]
   * @param visit told a patch, then for every slot in turn the similarities and the patches, best first; entries below −2
   *   lie outside the window
   */
  async search(
    features: Float32Array,
    filled: number,
    visit: (patch: number, slot: number, similarities: Float32Array, sources: Int32Array) => void,
  ): Promise<void> {
    const { gridWidth, dim } = this.options;
    this.backend.write(this.#target, normalizeRows(features, dim));
    await this.#executable.run();
    const values = await this.backend.read(this.#values) as Float32Array;
    const indices = await this.backend.read(this.#indices) as Int32Array;
    const sources = new Int32Array(this.#k);
    for (const { row, firstSource, offset } of this.#strips) {
      for (let x = 0; x < gridWidth; x++) {
        for (let slot = 0; slot < filled; slot++) {
          const at = slot * this.#perSlot + offset + x * this.#k;
          for (let i = 0; i < this.#k; i++) sources[i] = indices[at + i] + firstSource * gridWidth;
          visit(row * gridWidth + x, slot, values.subarray(at, at + this.#k), sources);
        }
      }
    }
  }

  /** Frees everything. */
  dispose(): void {
    this.#executable.dispose();
    this.backend.free(this.#target, ...this.#slots, this.#values, this.#indices, ...this.#constants);
  }

  #program(): Program {
    const { gridHeight, gridWidth, slots, radius } = this.options;
    const p = new Program("window search");
    const masks = new Map<number, Tensor>();
    for (const { row, firstSource, offset } of this.#strips) {
      const sourceRows = radius === 0 ? gridHeight : Math.min(gridHeight - 1, row + radius) - firstSource + 1;
      let mask = masks.get(sourceRows);
      if (radius > 0 && !mask) masks.set(sourceRows, mask = this.#columnMask(sourceRows));
      const a = rowsOf(p, this.#target, row * gridWidth, gridWidth);
      for (let slot = 0; slot < slots; slot++) {
        const b = rowsOf(p, this.#slots[slot], firstSource * gridWidth, sourceRows * gridWidth);
        const c = p.activation("similarity", [gridWidth, sourceRows * gridWidth]);
        const op = p.emit<MatmulOp>({
          kind: "matmul",
          in: { a, b, residual: mask },
          out: { c },
          attrs: { transA: false, transB: true, epilogue: "none", accumulate: false },
        });
        matmulExtents(op);
        const at = slot * this.#perSlot + offset;
        p.emit<TopKOp>({
          kind: "topK",
          in: { scores: c },
          out: {
            values: view(this.#values, "values", [gridWidth, this.#k], at),
            indices: view(this.#indices, "indices", [gridWidth, this.#k], at),
          },
          attrs: { k: this.#k },
        });
      }
    }
    return p;
  }

  /** 0 where a source column is within reach of the target column, {@linkcode OUTSIDE} elsewhere. */
  #columnMask(sourceRows: number): Tensor {
    const { gridWidth, radius } = this.options;
    const data = new Float32Array(gridWidth * sourceRows * gridWidth);
    for (let x = 0; x < gridWidth; x++) {
      for (let s = 0; s < sourceRows * gridWidth; s++) {
        if (Math.abs(s % gridWidth - x) > radius) data[x * sourceRows * gridWidth + s] = OUTSIDE;
      }
    }
    const mask = tensor("window", [gridWidth, sourceRows * gridWidth], "constant", "f32", data);
    this.#constants.push(mask);
    return mask;
  }
}

/** Whether a search of this radius looks at patch `source` for patch `target`; radius 0 looks at all. */
export function withinWindow(target: number, source: number, gridWidth: number, radius: number): boolean {
  if (radius === 0) return true;
  const dy = Math.floor(target / gridWidth) - Math.floor(source / gridWidth);
  const dx = target % gridWidth - source % gridWidth;
  return Math.abs(dy) <= radius && Math.abs(dx) <= radius;
}

function rowsOf(p: Program, t: Tensor, start: number, count: number): Tensor {
  return canViewRows(t, start) ? rows(t, start, count) : gatherRows(p, t, { start, count });
}
