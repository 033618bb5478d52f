// Training end to end at toy size: resuming, accumulating, stopping, refusing.

import { weightsPath } from "../../cli/terminal/weights_path.ts";
import { readCheckpointCounts, readTrainingState } from "../../dino/run/checkpoint.ts";
import type { Config } from "../../dino/config.ts";
import { RunFolder, type RunRecord } from "../../dino/run/folder.ts";
import { train } from "../../dino/train.ts";
import type { PixelSource } from "../../dino/data/dataset.ts";
import type { Tensor } from "../../models/graph/tensor.ts";
import { assert, assertAlmostEquals, assertEquals, assertRejects } from "../assert.ts";
import { inFolder } from "../in_folder.ts";
import { comparableLog, toyConfig, toyPixels, trainToy } from "./toy_run.ts";
import { RoundingBackend } from "./rounding_backend.ts";

/** Aborts after an update has been reported. */
function interruptAt(step: number) {
  const controller = new AbortController();
  return {
    signal: controller.signal,
    stop: (made: number) => made >= step && controller.abort(new DOMException("stopped", "AbortError")),
  };
}

/** The same data source, which calls back as often as a batch is read. */
function watched(onRead: () => void) {
  const source = toyPixels();
  return {
    ...source,
    readBatch: (indices: ArrayLike<number>, into?: Uint8Array<ArrayBuffer>) => {
      onRead();
      return source.readBatch(indices, into);
    },
  };
}

Deno.test("train: a run logs steps, epochs and k-NN, and its last checkpoint holds its state", () =>
  inFolder(async (folder) => {
    const out = `${folder}/run`;
    const { result, events } = await trainToy(toyConfig(), { out });
    assertEquals([result.reason, result.step], ["finished", 21]);
    assertEquals(events.filter(({ type }) => type === "epoch").length, 3);
    const rows = await comparableLog(out);
    const kinds = (kind: string) => rows.filter((row) => row.kind === kind).length;
    assertEquals([kinds("step"), kinds("epoch"), kinds("knn"), kinds("end")], [7, 3, 8, 1]);
    const epoch = rows.find((row) => row.kind === "epoch")!;
    for (const key of ["train_loss", "train_lr", "train_wd", "epoch"]) assert(key in epoch, key);
    const { step, optimizerSteps } = await readTrainingState(`${out}/latest.safetensors`);
    assertEquals([step, optimizerSteps], [21, [21, 21, 14, 0]]); // the last layer rests for an epoch of seven
  }));

Deno.test("train: an interrupted run that is resumed logs what an uninterrupted one logs", () =>
  inFolder(async (folder) => {
    const whole = `${folder}/whole`;
    await trainToy(toyConfig(), { out: whole });
    // While the untrained network is evaluated, within an epoch, at its end, while a trained one is evaluated.
    const stopped = new Set<number>();
    for (const batches of [3, 15, 16, 18, 19, 25, 41, 50, 60]) {
      const out = `${folder}/cut${batches}`;
      const controller = new AbortController();
      let reads = 0;
      const data = watched(() => ++reads === batches && controller.abort(new Error("stop")));
      const first = await trainToy(toyConfig(), { out, data, signal: controller.signal });
      assertEquals(first.result.reason, "interrupted");
      stopped.add(first.result.step);
      const second = await trainToy(toyConfig(), { out, resume: true });
      assertEquals(second.result.reason, "finished");
      assertEquals(await comparableLog(out), await comparableLog(whole), `stopped after update ${first.result.step}`);
    }
    assert(stopped.has(0) && stopped.has(7) && stopped.size >= 5, `stopped after updates ${[...stopped]}`);
  }));

Deno.test("train: a run that died without a word resumes from its last checkpoint", () =>
  inFolder(async (folder) => {
    const whole = `${folder}/whole`, out = `${folder}/dead`;
    await trainToy(toyConfig(), { out: whole });
    // What a kill leaves behind: a log that ran ahead of the checkpoint, and half a checkpoint.
    await trainToy(toyConfig({ steps: 10, knnEvery: 1 }), { out });
    const config = JSON.parse(await Deno.readTextFile(`${out}/config.json`));
    assertEquals([config.format, config.config.steps], [1, 10]);
    await Deno.writeTextFile(`${out}/log.jsonl`, '{"kind":"step","step":12}\n{"kind":"st', { append: true });
    await Deno.writeTextFile(`${out}/latest.safetensors.part`, "half");
    await trainToy(toyConfig(), { out, resume: true });
    assertEquals(await comparableLog(out), await comparableLog(whole));
  }));

Deno.test("train: a crash within an epoch costs what came after the last timed checkpoint, and no more", () =>
  inFolder(async (folder) => {
    const whole = `${folder}/whole`, out = `${folder}/crashed`;
    await trainToy(toyConfig({ knnEvery: 0 }), { out: whole });
    let reads = 0;
    const crashing = {
      ...toyPixels(),
      readBatch: (...args: Parameters<PixelSource["readBatch"]>) =>
        ++reads === 14 ? Promise.reject(new Error("the disk is gone")) : toyPixels().readBatch(...args),
    };
    const config = toyConfig({ knnEvery: 0, saveMinutes: 1e-9 });
    await assertRejects(() => trainToy(config, { out, data: crashing }), Error, "the disk is gone");
    const { step, windowSums } = await readTrainingState(`${out}/latest.safetensors`);
    assert(step > 7 && step < 14 && step % 3 === windowSums.count, `saved after update ${step}`);
    await trainToy(toyConfig({ knnEvery: 0 }), { out, resume: true });
    assertEquals(await comparableLog(out), await comparableLog(whole));
  }));

Deno.test("train: a folder whose run has no checkpoint begins again", () =>
  inFolder(async (folder) => {
    const out = `${folder}/run`;
    await assertRejects(() => trainToy(toyConfig(), { out, resume: true }), RangeError, "holds no run to resume");
    const stop = interruptAt(0);
    stop.stop(0);
    await trainToy(toyConfig(), { out, signal: stop.signal });
    const { events, result } = await trainToy(toyConfig(), { out, resume: true });
    assertEquals(result.reason, "finished");
    assert(events.some((e) => e.type === "notice" && e.message.includes("begins again")));
  }));

Deno.test("train: every optimizer and every kind of head trains, and resumes with all it needs", () =>
  inFolder(async (folder) => {
    const variants: Partial<Config>[] = [
      { optimizer: "sgd", lr: 0.5 },
      { optimizer: "lars", lr: 5 },
      { useBnInHead: true },
      { headLayers: 1, normLastLayer: false, freezeLastLayer: 0 },
      { localCropsNumber: 0, dropPathRate: 0 },
    ];
    for (const [i, changes] of variants.entries()) {
      const config = toyConfig({ knnEvery: 0, epochs: 2, ...changes });
      const whole = `${folder}/whole${i}`, out = `${folder}/cut${i}`;
      await trainToy(config, { out: whole });
      await trainToy({ ...config, steps: 5 }, { out });
      await trainToy(config, { out, resume: true });
      assertEquals(await comparableLog(out), await comparableLog(whole), JSON.stringify(changes));
      const counts = await readCheckpointCounts(`${out}/latest.safetensors`);
      const batches = ["student", "teacher"].flatMap((role) =>
        [1, 4].map((i): [string, number] => [`${role}.head.mlp.${i}.num_batches_tracked`, 14])
      );
      assertEquals([...counts], config.useBnInHead ? batches : []); // one head pass an update
      assertEquals([...await readCheckpointCounts(`${whole}/latest.safetensors`)], [...counts]);
    }
  }));

Deno.test("train: accumulated parts make the same updates as the whole batch", async () => {
  const losses = async (changes: Partial<Config>) => {
    const config = toyConfig({ batchSize: 6, epochs: 2, knnEvery: 0, ...changes });
    const { result, backend } = await trainToy(config);
    return { weights: backend.at(result.state.teacher.flat).slice(), center: backend.at(result.state.center).slice() };
  };
  const whole = await losses({});
  for (const accumulate of [2, 3, 6]) {
    const parts = await losses({ accumulate });
    for (const key of ["weights", "center"] as const) {
      for (const [i, value] of whole[key].entries()) {
        // float32 gradients of parts are rounded before they are added: a few ulps, which AdamW can raise to 1e-5.
        assertAlmostEquals(parts[key][i], value, 2e-5, `${key} ${i} in ${accumulate} parts`);
      }
    }
  }
});

Deno.test("train: a non-finite loss leaves the weights of the update before and names the checkpoint", () =>
  inFolder(async (folder) => {
    const out = `${folder}/run`;
    const config = toyConfig({ knnEvery: 0, clipGrad: 0 });
    class Poisoned extends RoundingBackend {
      runs = 0;
      override async compile(program: Parameters<RoundingBackend["compile"]>[0]) {
        const executable = await super.compile(program);
        return {
          ...executable,
          run: async () => {
            const crops = program.ops.find((op) => op.kind === "augment")?.in as { levels: Tensor };
            if (++this.runs === 10) this.at(crops.levels).fill(NaN);
            await executable.run();
          },
        };
      }
    }
    const backend = new Poisoned();
    const events: string[] = [];
    const result = await train(config, { backend, data: toyPixels(), out, onEvent: (e) => events.push(e.type) });
    assertEquals([result.reason, result.step], ["non-finite", 9]);
    assert(result.message!.includes("update 9"), result.message);
    assert(result.message!.includes("learning rate") && result.message!.includes("of update 7"), result.message);
    assertEquals((await readTrainingState(`${out}/latest.safetensors`)).step, 7);
    assert(backend.at(result.state.student.flat).every(Number.isFinite));
    assert(backend.at(result.state.center).every(Number.isFinite));
    const healthy = new RoundingBackend();
    const nine = await train({ ...config, steps: 9 }, { backend: healthy, data: toyPixels() });
    assertEquals(backend.at(result.state.teacher.flat).slice(), healthy.at(nine.state.teacher.flat).slice());
  }));

Deno.test("train: checkpoints stay every N epochs, and only the last ones are kept", () =>
  inFolder(async (folder) => {
    const out = `${folder}/run`;
    await trainToy(toyConfig({ epochs: 5, saveckpFreq: 1, keep: 2, knnEvery: 0 }), { out });
    const names = [...Deno.readDirSync(out)].map(({ name }) => name).sort();
    assertEquals(names, [
      ".lock",
      "checkpoint0004.safetensors",
      "checkpoint0005.safetensors",
      "config.json",
      "latest.safetensors",
      "log.jsonl",
    ]);
    assertEquals((await readTrainingState(`${out}/checkpoint0004.safetensors`)).step, 28);
  }));

Deno.test("train: what cannot be resumed is refused with the reason, and nothing is lost", () =>
  inFolder(async (folder) => {
    const out = `${folder}/run`, path = `${out}/latest.safetensors`;
    const config = toyConfig({ knnEvery: 0 });
    await trainToy({ ...config, steps: 7 }, { out });
    const files = async () =>
      await Promise.all(
        ["config.json", "log.jsonl", "latest.safetensors"].map((name) => Deno.readFile(`${out}/${name}`)),
      );
    const before = await files();
    const resume = (changes: Partial<Config>, more = {}) =>
      trainToy({ ...config, ...changes }, { out, resume: true, ...more });

    await assertRejects(() => trainToy(config, { out }), RangeError, "--overwrite");
    await assertRejects(() => resume({ embedDim: 12 }), RangeError, "[1,1,8] there and [1,1,12] here");
    await assertRejects(() => resume({ depth: 3 }), RangeError, "blocks.2.norm1.weight [8] is missing");
    await assertRejects(() => resume({ epochs: 9 }), RangeError, "--reschedule");
    await assertRejects(() => resume({ lr: 0.01 }), RangeError, "the learning rate goes from");
    await assertRejects(() => resume({ batchSize: 5 }), RangeError, "--batch-size 5 instead of 4");
    await assertRejects(() => resume({}, { data: toyPixels(31) }), RangeError, "other images");
    await assertRejects(() => resume({ init: "x.safetensors" }), RangeError, "use one of the two");
    assertEquals(await files(), before);

    const whole = await Deno.readFile(path);
    await Deno.truncate(path, whole.length - 10);
    await assertRejects(() => resume({}), SyntaxError, "truncated");
    await Deno.writeFile(path, whole);
    const { events, result } = await resume({ epochs: 4, lr: 0.01 }, { reschedule: true });
    assertEquals([result.reason, result.step], ["finished", 28]);
    assert(events.some((e) => e.type === "notice" && e.message.includes("the learning rate goes from")));
  }));

Deno.test("train: a damaged checkpoint is passed over for the one before it, and that is told", () =>
  inFolder(async (folder) => {
    const out = `${folder}/run`, path = `${out}/latest.safetensors`;
    const config = toyConfig({ knnEvery: 0, saveckpFreq: 1 });
    await trainToy({ ...config, steps: 17 }, { out }); // two whole epochs, and three updates
    const whole = await Deno.readFile(path);
    const flipped = whole.slice(), zeroed = whole.slice();
    flipped[whole.length - 1000] ^= 1;
    zeroed.fill(0, whole.length - 1000);
    const damages: [string, Uint8Array<ArrayBuffer>, string][] = [
      ["nothing", new Uint8Array(0), "0 bytes are too few"],
      ["zeros", new Uint8Array(whole.length), "the header is not JSON"],
      ["half", whole.subarray(0, whole.length / 2), "truncated"],
      ["flipped", flipped, "checksum"],
      ["zeroed", zeroed, "checksum"],
    ];
    for (const [name, bytes, message] of damages) {
      const copy = `${folder}/${name}`;
      await Deno.mkdir(copy);
      for (const { name: file } of Deno.readDirSync(out)) await Deno.copyFile(`${out}/${file}`, `${copy}/${file}`);
      await Deno.writeFile(`${copy}/latest.safetensors`, bytes);
      const { events, result } = await trainToy({ ...config, steps: 15 }, { out: copy, resume: true });
      assertEquals(result.step, 15);
      const warning = events.find((event) => event.type === "warning");
      assert(warning?.type === "warning" && warning.message.includes(message), `${name}: ${warning?.message}`);
      assert(warning.message.includes("checkpoint0002.safetensors of update 14"), warning.message);
    }
    for (const file of ["latest", "checkpoint0001", "checkpoint0002"]) {
      await Deno.writeFile(`${out}/${file}.safetensors`, new Uint8Array(9));
    }
    await assertRejects(() => trainToy(config, { out, resume: true }), SyntaxError, "--overwrite");
  }));

Deno.test("train: a lost or damaged configuration is taken from the newest checkpoint, told, and written again", () =>
  inFolder(async (folder) => {
    const out = `${folder}/run`, path = `${out}/config.json`;
    const config = toyConfig({ knnEvery: 0, saveckpFreq: 1 });
    await trainToy({ ...config, steps: 8 }, { out });
    const whole = await Deno.readTextFile(path);
    const withoutSteps = (record: RunRecord) => ({ ...record, config: { ...record.config, steps: null } });
    const damages: [string | undefined, string][] = [
      [undefined, "is missing"],
      ["", "is not JSON"],
      [whole.slice(0, 100), "is not JSON"],
      ["null", "is not a run's configuration"],
      [`{"format": 1}`, "is not a run's configuration"],
    ];
    for (const [i, [text, what]] of damages.entries()) {
      await (text === undefined ? Deno.remove(path) : Deno.writeTextFile(path, text));
      const { record } = await RunFolder.open(out);
      assertEquals(withoutSteps(record), withoutSteps(JSON.parse(whole)), what);
      assertEquals(await weightsPath(out), `${out}/latest.safetensors`);
      const { events } = await trainToy({ ...config, steps: 9 + i }, { out, resume: true });
      const [warning] = events.filter((event) => event.type === "warning").map(({ message }) => message);
      assert(warning.includes(`${path}: ${what}`) && warning.includes("from " + out), warning);
      assertEquals((await RunFolder.open(out)).restored, undefined);
      assertEquals(withoutSteps(JSON.parse(await Deno.readTextFile(path))), withoutSteps(JSON.parse(whole)));
    }
    await Deno.writeTextFile(path, "{");
    await Deno.truncate(`${out}/latest.safetensors`, 9);
    assert((await RunFolder.open(out)).restored!.endsWith("checkpoint0001.safetensors"));
    await Deno.truncate(`${out}/checkpoint0001.safetensors`, 9);
    await assertRejects(() => RunFolder.open(out), SyntaxError, "no checkpoint can be read either");
    await Deno.remove(`${out}/latest.safetensors`);
    await Deno.remove(`${out}/checkpoint0001.safetensors`);
    await assertRejects(() => RunFolder.open(out), SyntaxError, "there is no checkpoint yet");
    await Deno.remove(path);
    await assertRejects(() => RunFolder.open(out), RangeError, "holds no run to resume");
  }));

Deno.test("train: two trainings do not write into one folder", () =>
  inFolder(async (folder) => {
    const out = `${folder}/run`, config = toyConfig({ knnEvery: 0, steps: 2 });
    await trainToy(config, { out });
    const holder = (await RunFolder.open(out)).folder;
    await holder.lock();
    const before = await Deno.readFile(`${out}/log.jsonl`);
    for (const more of [{ resume: true }, { overwrite: true }]) {
      await assertRejects(() => trainToy(config, { out, ...more }), RangeError, `process ${Deno.pid}`);
    }
    await assertRejects(() => RunFolder.tryOut(out), RangeError, "another training writes into it");
    assertEquals(await Deno.readFile(`${out}/log.jsonl`), before);
    holder.close();
    await trainToy({ ...config, steps: 3 }, { out, resume: true });
    await RunFolder.tryOut(out); // what ended holds nothing
  }));

Deno.test("train: a disk that takes no checkpoint stops the run and keeps the previous one", () =>
  inFolder(async (folder) => {
    const out = `${folder}/run`, path = `${out}/latest.safetensors`;
    const config = toyConfig({ knnEvery: 0 });
    await trainToy({ ...config, steps: 7 }, { out });
    const before = await Deno.readFile(path);
    await Deno.mkdir(`${path}.part/blocked`, { recursive: true }); // stands in for a full disk: it cannot be opened for writing
    const error = await assertRejects(
      () => trainToy(config, { out, resume: true }),
      Error,
      "checkpoint after update 14",
    );
    assert(error.message.includes("the last good one is") && error.message.includes("of update 7"), error.message);
    assertEquals(await Deno.readFile(path), before);
  }));

Deno.test("train: impossible configurations are refused before anything is written", () =>
  inFolder(async (folder) => {
    const out = `${folder}/run`;
    const refuse = (changes: Partial<Config>, message: string) =>
      assertRejects(() => trainToy(toyConfig(changes), { out }), RangeError, message);
    await refuse({ batchSize: 31 }, "larger than the data set of 30 images");
    await refuse({ globalCropSize: 9 }, "not a multiple");
    await refuse({ init: `${folder}/nothing.safetensors` }, "nothing.safetensors");
    assertEquals([...Deno.readDirSync(folder)].length, 0);
  }));

Deno.test("train: weights of a run start another one, in another head if it must be", () =>
  inFolder(async (folder) => {
    const out = `${folder}/run`;
    const config = toyConfig({ knnEvery: 0 });
    await trainToy({ ...config, steps: 7 }, { out });
    const init = `${out}/latest.safetensors`;
    const told = async (changes: Partial<Config>) => {
      const { events } = await trainToy({ ...config, init, steps: 1, ...changes });
      return events.flatMap((e) => e.type === "notice" ? [e.message] : []).join("\n");
    };
    assert((await told({})).includes("backbone and head"));
    assert((await told({ outDim: 20 })).includes("the head begins anew"));
    await assertRejects(() => told({ embedDim: 12 }), RangeError, "another architecture");
  }));
