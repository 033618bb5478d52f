// Kinds video_seg, davis_metrics and attention_mask.
import { resizeMaskNearest } from "../../../models/image/host_resize.ts";
import type { Backend } from "../../../models/graph/backend.ts";
import { withinWindow } from "../../../dino/eval/video/affinity.ts";
import { attentionMaps, massMasks, upsampleNearest } from "../../../dino/eval/pictures/attention.ts";
import { boundaryOf, boundaryRadius, measureFrame } from "../../../dino/eval/video/davis.ts";
import { labelPixels, MaskPropagation, upsampleMask } from "../../../dino/eval/video/video_segmentation.ts";
import type { GoldenCase } from "../golden_case.ts";

export async function videoSeg(golden: GoldenCase, backend: Backend) {
  const c = golden.config;
  const { grid_h: gridHeight, grid_w: gridWidth, dim, n_classes: classes, patch_size: patch } = c;
  const patches = gridHeight * gridWidth;
  const radius = c.size_mask_neighborhood;
  golden.compare(
    "output.neighborhood",
    Uint8Array.from(
      { length: patches * patches },
      (_, i) => withinWindow(Math.floor(i / patches), i % patches, gridWidth, radius) ? 1 : 0,
    ),
  );
  const features = golden.floats("features");
  const frame = (t: number) => features.subarray(t * patches * dim, (t + 1) * patches * dim);
  const options = { gridHeight, gridWidth, dim, classes, radius, k: c.topk, temperature: c.temperature };
  const propagation = await MaskPropagation.create(backend, { ...options, lastFrames: c.n_last_frames });
  propagation.start(frame(0), golden.floats("first_mask"));
  const H = gridHeight * patch, W = gridWidth * patch;
  for (let t = 1; t < c.n_frames; t++) {
    const soft = await propagation.next(frame(t));
    golden.compare(`output.frame${t}.soft`, soft);
    const scores = upsampleMask(soft, classes, gridHeight, gridWidth, patch);
    if (golden.has(`output.frame${t}.upsampled`)) golden.compare(`output.frame${t}.upsampled`, scores);
    const labels = labelPixels(scores, classes);
    // Pixels too close to call take the reference's label; the others must have it.
    const uncertain = golden.data(`output.frame${t}.seg_uncertain`), truth = golden.data(`output.frame${t}.seg`);
    golden.compare(`output.frame${t}.seg_uncertain`, uncertain);
    uncertain.forEach((flag, i) => flag && (labels[i] = truth[i]));
    golden.compare(`output.frame${t}.seg`, labels);
    golden.compare(`output.frame${t}.seg_orig`, resizeMaskNearest(labels, H, W, c.orig_h, c.orig_w));
  }
  propagation.dispose();
}

export function davisMetrics(golden: GoldenCase): Promise<void> {
  const { height, width, n_pairs, bound_th } = golden.config;
  const masks = (name: string) => Uint8Array.from(golden.data(name));
  const pixels = height * width;
  const predicted = masks("pred"), truth = masks("gt");
  const part = (all: Uint8Array, i: number) => all.subarray(i * pixels, (i + 1) * pixels);
  const boundaries = (all: Uint8Array) =>
    Array.from({ length: n_pairs }, (_, i) => [...boundaryOf(part(all, i), height, width)]).flat();
  golden.compare("output.boundary_pred", boundaries(predicted));
  golden.compare("output.boundary_gt", boundaries(truth));
  golden.compareScalar("dilation_radius", boundaryRadius(height, width, bound_th));
  for (let i = 0; i < n_pairs; i++) {
    const measures = measureFrame(part(predicted, i), part(truth, i), height, width, bound_th);
    golden.compareScalar(`pair${i}`, { ...measures, J_and_F: (measures.J + measures.F) / 2 });
  }
  return Promise.resolve();
}

export function attentionMask(golden: GoldenCase): Promise<void> {
  const { heads, grid_h, grid_w, patch_size, thresholds } = golden.config;
  const tokens = grid_h * grid_w + 1;
  const all = golden.floats("attn");
  const cls = Float32Array.from(
    { length: heads * tokens },
    (_, i) => all[Math.floor(i / tokens) * tokens * tokens + i % tokens],
  );
  const maps = attentionMaps(cls, heads, grid_h, grid_w);
  golden.compare("output.maps", maps.maps);
  if (golden.has("output.maps.upsampled")) {
    golden.compare("output.maps.upsampled", upsampleNearest(maps.maps, grid_h, grid_w, patch_size));
  }
  for (const share of thresholds as number[]) {
    const masks = massMasks(maps, share);
    golden.compare(`output.mask_${share}`, masks);
    const upsampled = `output.mask_${share}.upsampled`;
    if (golden.has(upsampled)) golden.compare(upsampled, upsampleNearest(masks, grid_h, grid_w, patch_size));
  }
  return Promise.resolve();
}
