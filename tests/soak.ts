// What takes longer than a test should: the sample preset to its end, once in one go and once killed again and again.
// Usage: deno task soak [flags of train]

import { assert, assertEquals } from "./assert.ts";

const TRAIN = new URL("../cli/train.ts", import.meta.url).pathname;
const KILLS = 6;

/** Rows of a log without what depends on the clock or the machine's memory. */
async function comparableLog(out: string): Promise<string[]> {
  const lines = (await Deno.readTextFile(`${out}/log.jsonl`)).trim().split("\n");
  return lines.map((line) => {
    const { seconds: _s, images_per_second: _i, memory_bytes: _m, ...row } = JSON.parse(line);
    return JSON.stringify(row);
  });
}

function train(args: readonly string[]): Deno.ChildProcess {
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", TRAIN, ...args, ...Deno.args],
    stdin: "null",
    stdout: "inherit",
  }).spawn();
}

const folder = await Deno.makeTempDir({ prefix: "denodino-soak-" });
try {
  const whole = `${folder}/whole`, killed = `${folder}/killed`;
  const started = performance.now();
  assertEquals((await train(["--out", whole]).status).code, 0);
  const seconds = (performance.now() - started) / 1000;
  console.log(`uninterrupted: ${seconds.toFixed(0)} s`);

  let child = train(["--out", killed, "--quiet"]);
  for (let kill = 0; kill < KILLS; kill++) {
    await new Promise((resolve) => setTimeout(resolve, 1000 * seconds * (0.5 + Math.random()) / (KILLS + 1)));
    const signal = kill % 2 === 0 ? "SIGKILL" : "SIGINT";
    console.log(`${signal}`);
    try {
      child.kill(signal);
    } catch { /* it was done */ }
    await child.status;
    await new Promise((resolve) => setTimeout(resolve, 5000)); // a trainer whose launcher was killed saves first
    child = train(["--out", killed, "--resume", "--quiet"]);
  }
  assertEquals((await child.status).code, 0);
  const [a, b] = [await comparableLog(whole), await comparableLog(killed)];
  assertEquals(b, a, "the log of the killed run differs from that of the uninterrupted one");

  const knn = a.map((row) => JSON.parse(row)).filter(({ kind, network }) => kind === "knn" && network === "teacher");
  const top1 = knn.map(({ accuracies }) => accuracies[0].top1);
  console.log(`k-NN top-1 of the teacher: ${top1.join(", ")}`);
  assert(top1.at(-1) > top1[0], `the trained teacher (${top1.at(-1)}) is no better than the untrained (${top1[0]})`);
  console.log("soak: passed");
} finally {
  await Deno.remove(folder, { recursive: true });
}
