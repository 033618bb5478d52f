// Matrix products beside MKL, OpenBLAS and oneDNN: everybody has a short turn a round, because a machine's speed drifts by a third
// within minutes, and rounds in which other programs kept it busy do not count.

import { MODE_VARIABLE, preferredMode, TURBO_FLAGS } from "../../cli/processes/mode.ts";
import { type Answer, type Question, Side } from "./side.ts";

/** Of ViT-S/16 at batch 4: what the layers of a block compute. */
const PRODUCTS: readonly (readonly [name: string, m: number, n: number, k: number])[] = [
  ["[512, 512]×[512, 512]", 512, 512, 512],
  ["[1024, 1024]×[1024, 1024]", 1024, 1024, 1024],
  ["[4·197, 384]×[384, 1152] (qkv)", 788, 1152, 384],
  ["[4·197, 384]×[384, 384] (proj)", 788, 384, 384],
  ["[4·197, 384]×[384, 1536] (fc1)", 788, 1536, 384],
  ["[4·197, 1536]×[1536, 384] (fc2)", 788, 384, 1536],
];
/** Of a turn. */
const SECONDS = 0.1;
/** After a peer's turn: threads of OpenBLAS and OpenMP look for more work for up to 0.1 s, at the cost of whoever is next. */
const PAUSE_MS = 150;
/**
 * Of the cores asked for, what every peer must have kept busy in a round that counts: 0.95 to 1 where nothing else runs, below 0.7
 * beside a busy program, where threads that wait spinning lose up to five times as much as ours. Ours are not asked: a core
 * that they leave idle is their own fault.
 */
const CALM = 0.8;
/** Rounds at most, for each that is to count. */
const TRIES = 3;

/** Among the contenders. */
const OURS = 0;

/** With how many threads, how many rounds are to count, and how many products each run is. */
export interface ProductsOptions {
  readonly threads: number;
  readonly rounds: number;
  readonly inARow: number;
}

/** Prints a table: for each product this project's speed, and each library's time over ours. */
export async function compareProducts(python: string, options: ProductsOptions): Promise<void> {
  const { threads, rounds, inARow } = options;
  const ours = ourSide(threads), theirs = new Side(python, ["tests/bench/pytorch_gemm.py", "--threads", `${threads}`]);
  const { libraries: own } = await ours.introduction(), { libraries: others, missing } = await theirs.introduction();
  for (const [name, version] of Object.entries({ ...own, ...others })) console.log(`${name}: ${version}`);
  for (const [name, reason] of Object.entries(missing)) console.log(`${name} is missing: ${reason}`);
  console.log(
    `${rounds} calm rounds in turn, ${threads} threads, ${inARow} in a row; a ratio above 1 means that this project is ` +
      "faster: median (quartiles), and of the best times",
  );
  const columns = ["x·Wᵀ", "calm rounds", "ours, GFLOP/s (best)", ...Object.keys(others), ...Object.keys(missing)];
  console.log(`| ${columns.join(" | ")} |\n|${"---|".repeat(columns.length)}`);
  const contenders = [
    ...Object.keys(own).map((library) => ({ library, side: ours, pause: 0 })),
    ...Object.keys(others).map((library) => ({ library, side: theirs, pause: PAUSE_MS })),
  ];
  for (const [name, ...shape] of PRODUCTS) {
    const { calm, tried } = await measure(contenders, shape, options);
    const [mine, ...peers] = contenders.map((_, i) => calm.map((answers) => answers[i]));
    const cells = [name, `${calm.length} of ${tried}`];
    if (calm.length > 0) {
      const [m, n, k] = shape, speed = (ms: number) => (2 * m * n * k * inARow / ms / 1e6).toFixed(0);
      const median = quantile(mine.map(({ median_ms }) => median_ms), 0.5);
      cells.push(`${speed(median)} (${speed(best(mine))})`, ...peers.map((turns) => ratios(mine, turns)));
      cells.push(...Object.keys(missing).map(() => "missing"));
    }
    console.log(`| ${cells.join(" | ")} |`);
  }
  await ours.end();
  await theirs.end();
}

/** This project, started as its commands start what computes. */
function ourSide(threads: number): Side {
  const mode = preferredMode(false), env: Record<string, string> = { [MODE_VARIABLE]: mode };
  if (mode === "turbo") env.DENO_V8_FLAGS = TURBO_FLAGS;
  return new Side(Deno.execPath(), ["run", "-A", "tests/bench/products.ts", `${threads}`], env);
}

interface Contender {
  readonly library: string;
  readonly side: Side;
  /** Milliseconds after its turn. */
  readonly pause: number;
}

/** Rounds that count, each with the contenders' answers in their order; whose turn is first goes round. */
async function measure(
  contenders: readonly Contender[],
  shape: Question["shape"],
  { threads, rounds, inARow }: ProductsOptions,
): Promise<{ calm: Answer[][]; tried: number }> {
  const enough = CALM * Math.min(threads, navigator.hardwareConcurrency);
  const calm: Answer[][] = [];
  let tried = -1; // the first round makes operands and compiles
  while (calm.length < rounds && tried < TRIES * rounds) {
    const answers: Answer[] = [];
    for (let turn = 0; turn < contenders.length; turn++) {
      const next = (tried + 1 + turn) % contenders.length, { library, side, pause } = contenders[next];
      answers[next] = await side.turn({ library, shape, in_a_row: inARow, seconds: SECONDS });
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
    if (++tried > 0 && answers.every(({ cores }, i) => i === OURS || cores >= enough)) calm.push(answers);
  }
  return { calm, tried };
}

/** Their time over ours, round by round, and of the best runs of all rounds. */
function ratios(ours: readonly Answer[], theirs: readonly Answer[]): string {
  const byRound = ours.map(({ median_ms }, round) => theirs[round].median_ms / median_ms);
  const [low, middle, high] = [0.25, 0.5, 0.75].map((fraction) => quantile(byRound, fraction).toFixed(2));
  return `${middle} (${low}–${high}), best ${(best(theirs) / best(ours)).toFixed(2)}`;
}

const best = (turns: readonly Answer[]) => Math.min(...turns.map(({ best_ms }) => best_ms));

function quantile(numbers: readonly number[], fraction: number): number {
  const sorted = [...numbers].sort((a, b) => a - b), at = (numbers.length - 1) * fraction, below = Math.floor(at);
  return sorted[below] + (at - below) * (sorted[Math.ceil(at)] - sorted[below]);
}
