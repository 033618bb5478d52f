// The first values of a run: drawn from the seed, or taken from a file; the teacher begins as the student.

import { type Arena, packSegments, type Segment } from "../models/graph/arena.ts";
import type { Backend } from "../models/graph/backend.ts";
import { initialBuffer, initialParameters } from "../models/init.ts";
import type { BatchCounts } from "./batch_counts.ts";
import type { Config } from "./config.ts";
import { loadWeights } from "./load_weights.ts";
import type { DinoState } from "./state.ts";

/**
 * Writes both networks; moments, center and metrics begin at zero.
 *
 * @returns sentences on what was taken from a file, and how many batches its running statistics have seen
 * @throws {RangeError} if the file's backbone has other shapes
 */
export async function initializeState(
  backend: Backend,
  state: DinoState,
  { seed, initStd, init }: Pick<Config, "seed" | "initStd" | "init">,
): Promise<{ notices: string[]; batchCounts: BatchCounts }> {
  const parameters = initialParameters(state.network, seed, initStd);
  const taken = init === null ? undefined : await takeWeights(init, state, parameters);
  for (const arena of [state.student, state.teacher]) {
    backend.write(arena.flat, packSegments(arena.segments, ({ name }) => parameters.get(name)!));
  }
  for (const arena of [state.studentBuffers, state.teacherBuffers]) {
    if (arena.segments.length === 0) continue;
    const fill = ({ name, length }: Segment) =>
      parameters.get(name) ?? new Float32Array(length).fill(initialBuffer(name));
    backend.write(arena.flat, packSegments(arena.segments, fill));
  }
  const fresh: (Arena | undefined)[] = [state.first, state.second, state.metrics];
  for (const arena of fresh) if (arena) backend.write(arena.flat, new Float32Array(arena.flat.shape[0]));
  backend.write(state.center, new Float32Array(state.center.shape[0]));
  const counts = [...taken?.batchCounts ?? []];
  const batchCounts = new Map(
    ["student", "teacher"].flatMap((role) => counts.map(([name, n]) => [`${role}.${name}`, n])),
  );
  return { notices: taken ? [taken.notice] : [], batchCounts };
}

async function takeWeights(path: string, state: DinoState, parameters: Map<string, Float32Array>) {
  const { backbone } = state.network;
  const wanted = "numHeads" in backbone ? { numHeads: backbone.numHeads } : undefined;
  const { weights, batchCounts, stated } = await loadWeights(path, "teacher", wanted);
  if (wanted && stated.numHeads !== undefined && stated.numHeads !== wanted.numHeads) {
    throw new RangeError(
      `--init ${path}: has ${stated.numHeads} attention heads, not ${wanted.numHeads}: use --num-heads ${stated.numHeads}`,
    );
  }
  const drawn = new Map(parameters);
  const differing: string[] = [];
  let heads = 0;
  for (const { name, shape } of [...state.student.segments, ...state.studentBuffers.segments]) {
    const found = weights.get(name);
    const same = found && found.shape.join() === shape.join();
    if (same) {
      parameters.set(name, found.data);
      if (name.startsWith("head.")) heads++;
    } else if (name.startsWith("backbone.")) {
      differing.push(found ? `${name} is [${found.shape}] there and [${shape}] here` : `${name} [${shape}] is missing`);
    }
  }
  if (differing.length > 0) {
    const shown = differing.slice(0, 5).join("; ") + (differing.length > 5 ? `; and ${differing.length - 5} more` : "");
    throw new RangeError(
      `--init ${path}: is of another architecture: ${shown}: choose --arch, --patch-size and sizes to match`,
    );
  }
  const all = [...state.student.segments, ...state.studentBuffers.segments]
    .filter(({ name }) => name.startsWith("head.")).length;
  if (heads === all) return { notice: `weights of ${path}: backbone and head`, batchCounts };
  for (const name of [...parameters.keys()].filter((name) => name.startsWith("head."))) { // half a head is none
    if (drawn.has(name)) parameters.set(name, drawn.get(name)!);
    else parameters.delete(name);
  }
  const ofBackbone = [...batchCounts].filter(([name]) => name.startsWith("backbone."));
  return { notice: `weights of ${path}: the backbone; the head begins anew`, batchCounts: new Map(ofBackbone) };
}
