// Random crops against the reference's draws: the same distribution, and the same box where no draw fits.
import { CounterRandom, STREAM } from "../../../models/rng.ts";
import { type Box, drawBox } from "../../../dino/data/multicrop.ts";
import type { GoldenCase } from "../golden_case.ts";

interface DrawStatistics {
  scale: [number, number];
  ratio: [number, number];
  image: [height: number, width: number];
}

/** Standard errors of a mean that 2000 draws may be away: a fixed seed, so this is no lottery. */
const MEAN_SIGMAS = 4;

/** Compares box draws of every `rrc_*` entry. */
export function compareCropDraws(golden: GoldenCase) {
  for (const [name, { value }] of Object.entries(golden.expected)) {
    if (name === "rrc_fallback") {
      for (const { height, width, scale, ratio, box_top_left_height_width } of value as FallbackBox[]) {
        const box = draw(0, height, width, scale, ratio);
        const same = `${[box.top, box.left, box.height, box.width]}` === `${box_top_left_height_width}`;
        golden.check(`${name} ${height}×${width}`, same);
      }
    } else if (name.startsWith("rrc_")) compareDistribution(golden, name, value as DrawStatistics);
  }
}

interface FallbackBox {
  height: number;
  width: number;
  scale: [number, number];
  ratio: [number, number];
  box_top_left_height_width: number[];
}

function draw(image: number, height: number, width: number, scale: number[], ratio: number[]): Box {
  const random = new CounterRandom(1, STREAM.augmentation, 0, image, 0);
  return drawBox(random, height, width, scale, ratio, { top: 0, left: 0, height: 0, width: 0 });
}

function compareDistribution(
  golden: GoldenCase,
  name: string,
  { scale, ratio, image: [height, width] }: DrawStatistics,
) {
  const sample = `output.${name}_draws`;
  const [count] = golden.shape(sample), theirs = golden.data(sample);
  const description = golden.tensors[sample] as unknown as Record<string, number>;
  const criticalKey = Object.keys(description).find((key) => key.startsWith("ks_two_sample_critical"))!;
  const critical = description[criticalKey];
  const ours = Array.from({ length: count }, (_, i) => draw(i, height, width, scale, ratio));
  const measures: Record<string, (b: Box) => number> = {
    area: (b) => b.height * b.width / (height * width),
    aspect: (b) => b.width / b.height,
    top: (b) => b.top,
    left: (b) => b.left,
  };
  const boxes = Array.from({ length: count }, (_, i) => {
    const [top, left, h, w] = theirs.subarray(4 * i);
    return { top, left, height: h, width: w };
  });
  for (const [measure, of] of Object.entries(measures)) {
    const distance = kolmogorovSmirnov(ours.map(of), boxes.map(of));
    golden.check(`${name} ${measure}`, distance <= critical, distance, critical, "Kolmogorov–Smirnov");
  }
  // deno-lint-ignore no-explicit-any
  const statistics = (golden.expected[name].value as any).stats?.area_fraction;
  if (statistics) {
    const mean = ours.map(measures.area).reduce((a, b) => a + b, 0) / count;
    const tolerance = MEAN_SIGMAS * statistics.standard_error_of_mean_for_2000_draws * Math.sqrt(2000 / count);
    const error = Math.abs(mean - statistics.mean);
    golden.check(`${name} mean area`, error <= tolerance, error, tolerance);
  }
}

/** Largest distance between two empirical distribution functions. */
function kolmogorovSmirnov(a: number[], b: number[]): number {
  const left = [...a].sort((x, y) => x - y), right = [...b].sort((x, y) => x - y);
  let i = 0, j = 0, distance = 0;
  while (i < left.length && j < right.length) {
    const value = Math.min(left[i], right[j]);
    while (left[i] === value) i++;
    while (right[j] === value) j++;
    distance = Math.max(distance, Math.abs(i / left.length - j / right.length));
  }
  return distance;
}
