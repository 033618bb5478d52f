// Program → dispatches, without a device: so that scratch bytes are known before one is opened.
import { dropUnreadOutputs } from "../models/graph/autodiff.ts";
import type { Precision } from "../models/graph/backend.ts";
import { planMemory } from "../models/graph/plan.ts";
import type { Program } from "../models/graph/program.ts";
import { type AttentionChooser, guessAttention, hungriestAttention } from "./attention_choice.ts";
import { chooseTile, type MatmulChooser } from "./kernels/matmul_tiles.ts";
import { DEFAULT_LIMITS, type LoweringLimits } from "./limits.ts";
import { type Lowered, Lowering } from "./lowering.ts";
import { lowerOp } from "./ops/mod.ts";
import { movePrologues } from "./prologues.ts";
import { type Stored, storedBytes, storedProgram } from "./storage.ts";
import { inTiles } from "./tiles.ts";

/**
 * Lowers every operation of `program`, whose unread outputs have been dropped.
 *
 * @param halves ids of the tensors that are kept as f16
 */
export function lower(
  program: Program,
  limits: LoweringLimits,
  chooseMatmul: MatmulChooser = chooseTile,
  halves: ReadonlySet<number> = new Set(),
  chooseAttention: AttentionChooser = guessAttention,
): Lowered {
  const lowering = new Lowering(limits, chooseMatmul, halves, chooseAttention);
  for (const [i, op] of program.ops.entries()) {
    for (const part of inTiles(op, limits.bindingBytes, lowering.bytesOf)) {
      lowering.begin(i);
      lowerOp(lowering, part);
    }
  }
  return lowering;
}

/**
 * Scratch bytes a program takes at most on this backend, whatever a tuner chooses, besides persistent tensors and the activation
 * arena. Needs no device.
 */
export function workspaceBytes(
  program: Program,
  limits: Partial<LoweringLimits> = {},
  precision: Precision = "f32",
): number {
  const all = { ...DEFAULT_LIMITS, ...limits };
  const stored = prepareProgram(program, all, precision);
  return lower(stored.program, all, chooseTile, stored.halves, hungriestAttention).scratchBytes;
}

/** Bytes of the arena that a program's activations share on this backend. Needs no device. */
export function arenaBytes(
  program: Program,
  precision: Precision = "f32",
  limits: Partial<LoweringLimits> = {},
): number {
  const stored = prepareProgram(program, { ...DEFAULT_LIMITS, ...limits }, precision);
  return planMemory(stored.program, { bytesOf: (root) => storedBytes(root, stored.halves) }).arenaBytes;
}

/** The program as this backend runs it: unread outputs dropped, operations moved into products, weights copied to halves. */
export function prepareProgram(
  program: Program,
  { prologues }: Pick<LoweringLimits, "prologues">,
  precision: Precision,
): Stored {
  dropUnreadOutputs(program);
  return storedProgram(movePrologues(program, prologues), precision);
}
