// Flags: every way of writing them, and what mistakes are told.

import { parseFlags } from "../../../cli/terminal/flags.ts";
import { helpText } from "../../../cli/terminal/help.ts";
import { fieldGroups, refusedFlags } from "../../../dino/config.ts";
import { flagOf } from "../../../dino/config/field.ts";
import { assert, assertEquals, assertStringIncludes, assertThrows } from "../../assert.ts";

const parse = (...words: string[]) => parseFlags(words, fieldGroups, refusedFlags);

Deno.test("flags: hyphens, underscores, inline values and aliases name the same thing", () => {
  const expected = { data: "images", batchSize: 8, teacherTemp: 0.05 };
  assertEquals(parse("--data", "images", "--batch-size", "8", "--teacher-temp", "0.05").given, expected);
  assertEquals(parse("--data_path=images", "--batch_size_per_gpu=8", "--teacher_temp=5e-2").given, expected);
  assertEquals(parse("--data=a=b").given, { data: "a=b" });
});

Deno.test("flags: booleans stand alone, take a word, or are negated", () => {
  assertEquals(parse("--norm_last_layer", "false", "--resume").given, { normLastLayer: false, resume: true });
  assertEquals(parse("--use-bn-in-head", "True", "--no-exif").given, { useBnInHead: true, exif: false });
  assertEquals(parse("--resume", "--out", "x").given, { resume: true, out: "x" });
  assertThrows(() => parse("--no-exif=true"), TypeError, "takes no value");
  assertThrows(() => parse("--exif=maybe"), TypeError, "wants true or false");
});

Deno.test("flags: ranges are two values, lists are several", () => {
  assertEquals(parse("--global_crops_scale", "0.4", "1.", "--seed", "3").given, {
    globalCropsScale: [0.4, 1],
    seed: 3,
  });
  assertEquals(parse("--local-crops-scale=.05,.4").given, { localCropsScale: [0.05, 0.4] });
  assertEquals(parse("--nb-knn", "10", "20", "--json").given, { nbKnn: [10, 20], json: true });
  assertThrows(() => parse("--global-crops-scale", "0.4"), TypeError, "wants 2 numbers");
  assertThrows(() => parse("--nb-knn", "--json"), TypeError, "--nb-knn");
});

Deno.test("flags: values that begin with a hyphen are numbers; words without a flag are positional", () => {
  assertThrows(() => parse("--lr", "-1"), RangeError, "--lr -1");
  assertEquals(parse("run", "--seed", "1", "--", "--data").positional, ["run", "--data"]);
  assertEquals(parse("--epochs", "5", "--epochs", "6").given, { epochs: 6 });
});

Deno.test("flags: a mistake names the nearest flag, or what replaces one of the reference's launcher", () => {
  assertThrows(
    () => parse("--teacher-tmp", "1"),
    RangeError,
    "unknown flag --teacher-tmp: did you mean --teacher-temp?",
  );
  assertThrows(() => parse("--frobnicate"), RangeError, "--help lists them all");
  assertThrows(() => parse("--dist_url", "env://"), RangeError, "mpirun -n 4 dino train");
  assertThrows(() => parse("--epochs"), TypeError, "wants a value");
  assertThrows(() => parse("--epochs", "1.5"), RangeError, "whole number");
  assertThrows(() => parse("--arch", "resnet"), RangeError, "is not one of");
});

Deno.test("flags: --help shows every flag within the width of the terminal", () => {
  const text = helpText({ usage: "train", about: "x", groups: fieldGroups }, 80);
  for (const { fields } of fieldGroups) {
    for (const key of Object.keys(fields)) assertStringIncludes(text, `--${flagOf(key)}`);
  }
  for (const line of text.split("\n")) assert(line.length <= 80, line);
  assert(parse("--seed", "1", "--help", "--nonsense").help);
});
