// Trainings that share each batch: the same run as one that has it whole, interrupted and resumed together, ended together.

import type { Communicator } from "../../models/graph/communicator.ts";
import type { Program } from "../../models/graph/program.ts";
import { rootOf, type Tensor } from "../../models/graph/tensor.ts";
import { readTrainingState } from "../../dino/run/checkpoint.ts";
import type { Config } from "../../dino/config.ts";
import { ranksInProcess } from "../../dino/ranks/in_process.ts";
import { train, type TrainOptions } from "../../dino/train.ts";
import { assert, assertAlmostEquals, assertEquals, assertRejects } from "../assert.ts";
import { inFolder } from "../in_folder.ts";
import { RoundingBackend } from "./rounding_backend.ts";
import { comparableLog, toyConfig, toyPixels, trainToy } from "./toy_run.ts";

/** Trains on ranks of this process with the reference backend. @param more options of one of them */
function trainTogether(
  size: number,
  config: Config,
  options: Partial<TrainOptions> = {},
  more: (rank: number) => Partial<TrainOptions> & { config?: Partial<Config> } = () => ({}),
) {
  return ranksInProcess(size).map(async (communicator) => {
    const { config: changes, ...others } = more(communicator.rank);
    const backend = (others.backend ?? new RoundingBackend()) as RoundingBackend;
    const events: string[] = [];
    const data = others.data ?? toyPixels();
    const onEvent: TrainOptions["onEvent"] = (event) => {
      events.push("message" in event && event.message ? `${event.type}: ${event.message}` : event.type);
      others.onEvent?.(event);
    };
    const all = { data, ...options, ...others, backend, communicator, onEvent };
    const result = await train({ ...config, ...changes }, all);
    return { result, backend, events };
  });
}

/** Rows of a log but for ends that were resumed from. */
async function finishedLog(out: string): Promise<Record<string, unknown>[]> {
  return (await comparableLog(out)).filter(({ kind, reason }) => kind !== "end" || reason === "finished");
}

/** Rows of two logs are equal but for rounding. */
async function compareLogs(got: string, truth: string, tolerance: number): Promise<void> {
  const [rows, expected] = [await finishedLog(got), await finishedLog(truth)];
  assertEquals(rows.map(({ kind, step }) => [kind, step]), expected.map(({ kind, step }) => [kind, step]));
  rows.forEach((row, i) => {
    for (const [key, value] of Object.entries(row)) {
      const true_ = expected[i][key];
      if (typeof value === "number") assertAlmostEquals(value, true_ as number, tolerance, `row ${i}, ${key}`);
      else assertEquals(value, true_, `row ${i}, ${key}`);
    }
  });
}

const LOG_TOLERANCE = 1e-4; // gradients are rounded to float32 before they are added, which AdamW can raise to 1e-5 in weights

Deno.test("ranks: two that share each batch log the run of one, and end with the same bits", () =>
  inFolder(async (folder) => {
    const config = toyConfig({ useBnInHead: true, localCropsNumber: 2 });
    const whole = await trainToy(config, { out: `${folder}/whole` });
    const runs = await Promise.all(trainTogether(2, config, { out: `${folder}/shared` }));
    await compareLogs(`${folder}/shared`, `${folder}/whole`, LOG_TOLERANCE);
    const [first, second] = runs.map(({ result: { state }, backend }) =>
      [state.student, state.teacher, state.first, state.second!, state.teacherBuffers].map(({ flat }) => [
        ...backend.at(flat),
      ])
    );
    assertEquals(first, second);
    const { result: { state }, backend } = whole;
    const truth = backend.at(state.teacher.flat);
    first[1].forEach((value, i) => assertAlmostEquals(value, truth[i], LOG_TOLERANCE, `weight ${i} of the teacher`));
    assertEquals(runs[0].result.knn.length, whole.result.knn.length);
    assertEquals(runs[1].result.knn, []); // the first rank evaluates
    assert(
      runs[0].events.some((e) => e.includes("2 ranks share each batch, 2 of 4 images each: 2 ranks in one process")),
    );
    assertEquals(runs[1].events.filter((e) => e === "checkpoint").length, 3); // known to all, written by one
  }));

Deno.test("ranks: parts of a batch are shared too", async () => {
  const config = toyConfig({ batchSize: 12, accumulate: 2, epochs: 2, knnEvery: 0 });
  const { result: { state }, backend } = await trainToy(config);
  const [, last] = await Promise.all(trainTogether(3, config));
  const truth = backend.at(state.student.flat), got = last.backend.at(last.result.state.student.flat);
  truth.forEach((value, i) => assertAlmostEquals(got[i], value, LOG_TOLERANCE, `weight ${i}`));
});

const short = { epochs: 1, knnEvery: 0, lr: 0.005 };
const convolutional = {
  "a ResNet": toyConfig({
    ...{ ...short, arch: "resnet18", embedDim: 16, depth: null, numHeads: null, patchSize: 16, dropPathRate: 0.1 },
    ...{ globalCropSize: 10, localCropSize: 7, optimizer: "sgd", useBnInHead: true },
  }),
  "an XCiT": toyConfig({
    ...{ ...short, arch: "xcit_nano_12_p8", patchSize: 8, depth: 1, globalCropSize: 16, localCropSize: 8 },
    ...{ optimizer: "sgd", useBnInHead: true },
  }),
};

for (const [name, config] of Object.entries(convolutional)) {
  Deno.test(`ranks: ${name} sees the statistics of the whole batch, whatever a rank computes again`, async () => {
    const { result: { state }, backend } = await trainToy(config);
    const kept = { config: { recompute: "never" } } as const, again = { config: { recompute: "always" } } as const;
    const runs = await Promise.all(trainTogether(2, config, {}, (rank) => rank === 0 ? kept : again));
    for (const arena of ["student", "teacherBuffers"] as const) {
      const truth = backend.at(state[arena].flat);
      const [first, second] = runs.map((run) => [...run.backend.at(run.result.state[arena].flat)]);
      assertEquals(first, second, "what is computed again is the same to the bit");
      truth.forEach((value, i) =>
        assertAlmostEquals(first[i], value, LOG_TOLERANCE * Math.max(1, Math.abs(value)), `${arena} ${i}`)
      );
    }
  });
}

Deno.test("ranks: a run that any of them was asked to stop is saved once, and resumes as if it had not", () =>
  inFolder(async (folder) => {
    const config = toyConfig({ useBnInHead: true, knnEvery: 1 });
    await Promise.all(trainTogether(2, config, { out: `${folder}/whole` }));
    for (const asked of [0, 1]) {
      const out = `${folder}/asked${asked}`, stop = new AbortController();
      const stopped = await Promise.all(trainTogether(2, config, { out }, (rank) => ({
        signal: rank === asked ? stop.signal : undefined,
        onEvent: (event) => event.type === "epoch" && rank === asked && setTimeout(() => stop.abort(), 1),
      })));
      assertEquals(stopped.map(({ result }) => result.reason), ["interrupted", "interrupted"]);
      assertEquals(stopped[0].result.step, stopped[1].result.step);
      const saved = await readTrainingState(`${out}/latest.safetensors`);
      assertEquals([saved.step, saved.backend], [stopped[0].result.step, "reference, 2 ranks"]);
      const resumed = await Promise.all(trainTogether(2, config, { out, resume: true }));
      assertEquals(resumed.map(({ result }) => result.reason), ["finished", "finished"]);
      // By the same ranks: to the bit.
      assertEquals(await finishedLog(out), await finishedLog(`${folder}/whole`));
    }
    // By another number of ranks: to rounding, and that is told.
    const out = `${folder}/other`;
    await Promise.all(trainTogether(2, { ...config, steps: 9 }, { out }));
    const { events } = await trainToy(config, { out, resume: true });
    const told = events.flatMap((e) => e.type === "notice" ? [e.message] : []).join("\n");
    assert(told.includes("computed on reference, 2 ranks and goes on with reference"), told);
    await compareLogs(out, `${folder}/whole`, LOG_TOLERANCE);
  }));

/** Does something before one of its runs. */
class Faulty extends RoundingBackend {
  runs = 0;

  constructor(readonly at_: number, readonly fault: (program: Program, backend: Faulty) => void) {
    super();
  }

  override async compile(program: Program, communicator?: Communicator) {
    const executable = await super.compile(program, communicator);
    return {
      ...executable,
      run: async () => {
        if (++this.runs === this.at_) this.fault(program, this);
        await executable.run();
      },
    };
  }
}

Deno.test("ranks: pixels that are not finite on one stop all of them, with the weights of the update before", async () => {
  const config = toyConfig({ knnEvery: 0, clipGrad: 0 });
  const poison = new Faulty(10, (program, backend) => {
    const { levels } = program.ops.find((op) => op.kind === "augment")!.in as { levels: Tensor };
    backend.at(rootOf(levels)).fill(NaN);
  });
  const runs = await Promise.all(trainTogether(2, config, {}, (rank) => rank === 1 ? { backend: poison } : {}));
  assertEquals(runs.map(({ result }) => [result.reason, result.step]), Array(2).fill(["non-finite", 9]));
  const [a, b] = runs.map(({ result, backend }) => [...backend.at(result.state.student.flat)]);
  assertEquals(a, b);
  assert(a.every(Number.isFinite));
});

Deno.test("ranks: one that fails ends the others, which name its reason and the last checkpoint", () =>
  inFolder(async (folder) => {
    const out = `${folder}/run`;
    const broken = new Faulty(10, () => {
      throw new Error("the device was lost");
    });
    const runs = trainTogether(2, toyConfig({ knnEvery: 0 }), { out }, (rank) => rank === 1 ? { backend: broken } : {});
    const [first, second] = await Promise.allSettled(runs);
    assert(first.status === "rejected" && second.status === "rejected");
    const last = `the last good one is ${out}/latest.safetensors of update 7: go on with --resume`;
    assertEquals(second.reason.message, `the device was lost; ${last}`);
    assertEquals(first.reason.message, `rank 1 failed: the device was lost; ${last}`);
  }));

Deno.test("ranks: what is not the same on all of them is refused by all, before anything is written", () =>
  inFolder(async (folder) => {
    const out = `${folder}/run`;
    const refuse = async (changes: Parameters<typeof trainTogether>[3], message: string, size = 2) => {
      const runs = trainTogether(size, toyConfig({ knnEvery: 0 }), { out }, changes);
      await Promise.all(runs.map((run) => assertRejects(() => run, Error, message)));
    };
    const onSecond = <T>(value: T) => (rank: number) => rank === 1 ? value : {};
    await refuse(onSecond({ config: { lr: 0.1 } }), "rank 1 has --lr 0.1 and rank 0 0.05");
    await refuse(onSecond({ data: toyPixels(30, 12) }), "rank 1 has other images than rank 0");
    const other = Object.assign(new RoundingBackend(), { fingerprint: "another" });
    await refuse(onSecond({ backend: other }), "rank 1 has another backend than rank 0, another instead of reference");
    await refuse(
      () => ({}),
      "--batch-size 4 cannot be split among 3 ranks: it counts the images of all of them: use 3 or 6",
      3,
    );
    assertEquals([...Deno.readDirSync(folder)].length, 0);
    await refuse(() => ({ resume: true }), "holds no run to resume");
    await refuse(() => ({ config: { init: `${folder}/nothing.safetensors` } }), "nothing.safetensors");
  }));
