// The configuration: every field reads from words and JSON, every refusal names the value and the fix.

import { type Config, configFields, defaultConfig, refusedFlags } from "../../dino/config.ts";
import { architectureOf } from "../../dino/config/architecture.ts";
import { checkConfig, configFromJson, fitConfig } from "../../dino/config/check.ts";
import { checkField, type Field, flagOf, parseField } from "../../dino/config/field.ts";
import { allFields, findFlag } from "../../dino/config/flags.ts";
import { applyPreset, presets } from "../../dino/config/presets.ts";
import { assert, assertEquals, assertThrows } from "../assert.ts";

const facts = { images: 1000, shorterSide: 256 };

function check(changes: Partial<Config>, images = facts) {
  return checkConfig(fitConfig({ ...defaultConfig(), ...changes }, images), images);
}

Deno.test("config: every default is valid, and survives words and JSON", () => {
  for (const [key, field] of Object.entries(allFields) as [string, Field][]) {
    const flag = `--${flagOf(key)}`;
    checkField(flag, field, field.default);
    assert(field.advice.length > 0 && field.advice.length < 130, `${flag}: ${field.advice}`);
    if (field.kind === "boolean" || field.default === null) continue;
    const words = [field.default].flat().map(String);
    assertEquals(parseField(flag, field, words), field.default, flag);
  }
  assertEquals(configFromJson(JSON.parse(JSON.stringify(defaultConfig()))), defaultConfig());
});

Deno.test("config: flags are found with hyphens, underscores and the reference's names", () => {
  const key = (name: string) => findFlag(name).key;
  assertEquals(key("--teacher-temp"), "teacherTemp");
  assertEquals(key("--teacher_temp"), "teacherTemp");
  assertEquals(key("teacherTemp"), "teacherTemp");
  assertEquals(key("--data_path"), "data");
  assertEquals(key("--output_dir"), "out");
  assertEquals(key("--batch_size_per_gpu"), "batchSize");
  assertEquals(key("--use_bn_in_head"), "useBnInHead");
  assertEquals(key("--use_fp16"), "useFp16");
  const exif = findFlag("--no-exif");
  assertEquals([exif.key, exif.negated], ["exif", true]);
  assertEquals(findFlag("--dry_run").command, true);
  // Every flag of the reference's main script.
  const reference = "arch patch_size out_dim norm_last_layer momentum_teacher use_bn_in_head warmup_teacher_temp " +
    "teacher_temp warmup_teacher_temp_epochs use_fp16 weight_decay weight_decay_end clip_grad batch_size_per_gpu epochs " +
    "freeze_last_layer lr warmup_epochs min_lr optimizer drop_path_rate global_crops_scale local_crops_number " +
    "local_crops_scale data_path output_dir saveckp_freq seed num_workers";
  for (const name of reference.split(" ")) findFlag(`--${name}`);
});

Deno.test("config: unknown flags name the nearest, the launcher's say what replaces them", () => {
  assertThrows(() => findFlag("--teacher-tmp"), RangeError, "unknown flag --teacher-tmp: did you mean --teacher-temp?");
  assertThrows(() => findFlag("--ouptut_dir"), RangeError, "did you mean --output-dir?");
  assertThrows(() => findFlag("--zzzzzz"), RangeError, "--help");
  assertThrows(() => findFlag("--no-epochs"), RangeError, "unknown flag");
  assertThrows(() => findFlag("--dist_url"), RangeError, "leave it out");
  assertThrows(() => findFlag("--local_rank"), RangeError, "--adapter");
  for (const name of Object.keys(refusedFlags)) assert(!(name in allFields));
});

Deno.test("config: words that are no value are refused by name", () => {
  const parse = (key: keyof Config, ...words: string[]) =>
    parseField(`--${flagOf(key)}`, configFields[key] as Field, words);
  assertEquals(parse("normLastLayer"), true);
  assertEquals(parse("normLastLayer", "False"), false);
  assertEquals(parse("globalCropsScale", "0.25", "1."), [0.25, 1]);
  assertEquals(parse("lr", "5e-4"), 0.0005);
  assertEquals(parse("threads", "auto"), null);
  assertEquals(parse("nbKnn", "5", "20"), [5, 20]);
  assertThrows(() => parse("lr", "fast"), TypeError, "--lr fast: is not a number");
  assertThrows(() => parse("lr", "0x10"), TypeError, "0x10");
  assertThrows(() => parse("lr"), TypeError, "wants a value");
  assertThrows(() => parse("globalCropsScale", "0.4"), TypeError, "2 numbers");
  assertThrows(() => parse("epochs", "1.5"), RangeError, "whole number");
  assertThrows(() => parse("epochs", "0"), RangeError, "at least 1");
  assertThrows(() => parse("teacherTemp", "0"), RangeError, "above 0");
  assertThrows(() => parse("momentumTeacher", "1.1"), RangeError, "at most 1");
  assertThrows(() => parse("normLastLayer", "maybe"), TypeError, "true or false");
  assertThrows(() => parse("arch", "xcit_small"), RangeError, "vit_small");
});

Deno.test("config: JSON with another kind of value or an unknown key is refused", () => {
  assertEquals(configFromJson({ epochs: 3, "teacher-temp": 0.07, batch_size_per_gpu: 8 }).batchSize, 8);
  assertThrows(() => configFromJson([]), TypeError, "object");
  assertThrows(() => configFromJson({ epochs: "3" }), TypeError, "--epochs");
  assertThrows(() => configFromJson({ epochs: null }), TypeError, "--epochs");
  assertThrows(() => configFromJson({ epoch: 3 }), RangeError, "did you mean epochs?");
  assertThrows(() => configFromJson({ dist_url: "env://" }), RangeError, "leave it out");
});

Deno.test("config: values that do not go together are refused with the fix", () => {
  const refused: [Partial<Config>, string][] = [
    [{ patchSize: 10 }, "--local-crop-size"],
    [{ globalCropSize: 225 }, "use --global-crop-size 224"],
    [{ localCropSize: 90 }, "use --local-crop-size 80"],
    [{ embedDim: 100, numHeads: 3 }, "use --num-heads 2"],
    [{ mlpRatio: 1.001 }, "use --mlp-ratio 1"],
    [{ useFp16: true }, "--precision f16"],
    [{ batchSize: 2048 }, "larger than the data set of 1000 images: use --batch-size 512"],
    [{ batchSize: 64, accumulate: 7 }, "use 4"],
    [{ accumulate: 2, useBnInHead: true }, "--accumulate 1"],
    [{ epochs: 5, warmupEpochs: 10 }, "longer than the run of --epochs 5"],
    [{ warmupTeacherTempEpochs: 101 }, "--warmup-teacher-temp-epochs 101"],
    [{ globalCropsScale: [1, 0.4] }, "use 0.4 1"],
  ];
  for (const [changes, message] of refused) {
    // `auto` fits the crops to whatever patch, so only sizes that were asked for can disagree with it.
    const fixed = changes.patchSize ? { localCropSize: 96, ...changes } : changes;
    const error = assertThrows(() => check(fixed), RangeError);
    assert(error.message.includes(message), `${JSON.stringify(changes)}: ${error.message}`);
  }
  assertEquals(check({ batchSize: 128 }), []);
  assert(check({ teacherTemp: 0.1, batchSize: 128 })[0].includes("0.07"));
});

Deno.test("config: crops are the reference's for large images and fitted to small ones", () => {
  const sizes = (changes: Partial<Config>, shorterSide: number) => {
    const { globalCropSize, localCropSize } = fitConfig({ ...defaultConfig(), ...changes }, { images: 9, shorterSide });
    return [globalCropSize, localCropSize];
  };
  assertEquals(sizes({}, 500), [224, 96]);
  assertEquals(sizes({ patchSize: 8 }, 224), [224, 96]);
  assertEquals(sizes({ patchSize: 4 }, 32), [32, 12]);
  assertEquals(sizes({ patchSize: 4 }, 28), [28, 12]);
  assertEquals(sizes({ patchSize: 16 }, 10), [16, 16]);
  assertEquals(sizes({ patchSize: 4, globalCropSize: 64 }, 32), [64, 28]);
});

Deno.test("config: an XCiT has the patches of its name, and no registers", () => {
  const fitted = (changes: Partial<Config>) => fitConfig({ ...defaultConfig(), ...changes }, facts);
  assertEquals(fitted({ arch: "xcit_small_12_p8" }).patchSize, 8);
  assertEquals(fitted({ arch: "xcit_medium_24_p16" }).patchSize, 16);
  assertEquals(architectureOf(fitted({ arch: "xcit_medium_24_p16" })), { embedDim: 512, depth: 24, numHeads: 8 });
  const refuse = (changes: Partial<Config>, message: string) =>
    assertThrows(() => checkConfig(fitted(changes)), RangeError, message);
  refuse({ arch: "xcit_small_12_p16", patchSize: 8 }, "use --arch xcit_small_12_p8");
  refuse({ arch: "xcit_small_12_p16", registers: 4 }, "--registers 4");
  refuse({ arch: "xcit_small_12_p16", embedDim: 36, numHeads: 4 }, "--embed-dim 36");
  refuse({ arch: "xcit_small_12_p16", globalCropSize: 100 }, "not a multiple of --patch-size 16");
});

Deno.test("config: the warm-up is the reference's, or fits a run that is hardly longer", () => {
  const warmup = (changes: Partial<Config>) => fitConfig({ ...defaultConfig(), ...changes }, facts).warmupEpochs;
  assertEquals([100, 11, 10, 4, 2, 1].map((epochs) => warmup({ epochs })), [10, 10, 1, 1, 1, 0]);
  assertEquals(warmup({ epochs: 4, warmupEpochs: 0 }), 0);
});

Deno.test("config: an arch that is asked for brings its own width, blocks and heads, whatever the preset has", () => {
  const sized = (arch?: Config["arch"]) => architectureOf(applyPreset("sample", defaultConfig(), arch));
  assertEquals(sized(), { embedDim: 96, depth: 3, numHeads: 3 });
  assertEquals(sized("vit_base"), { embedDim: 768, depth: 12, numHeads: 12 });
  assertEquals(applyPreset("sample", defaultConfig(), "vit_base").patchSize, 8, "small images have small patches");
  // What lies below the preset stays.
  assertEquals(applyPreset("sample", { ...defaultConfig(), depth: 2 }, "vit_tiny").depth, 2);
});

Deno.test("config: every preset is valid for its images, and an unknown one names the nearest", () => {
  for (const name of Object.keys(presets)) {
    const images = { images: 4000, shorterSide: name.startsWith("vit-") ? 400 : 32 };
    const config = applyPreset(name, defaultConfig());
    checkConfig(fitConfig(config, images), images);
  }
  const { depth, patchSize, epochs } = applyPreset("sample", defaultConfig(), "resnet18");
  assertEquals([depth, patchSize, epochs], [null, 16, 10]);
  assertThrows(() => applyPreset("sampel", defaultConfig()), RangeError, "did you mean sample?");
  assertEquals(architectureOf({ ...defaultConfig(), arch: "deit_tiny" }), { embedDim: 192, depth: 12, numHeads: 3 });
});
