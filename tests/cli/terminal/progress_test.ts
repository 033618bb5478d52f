// Progress: a bar that fits, plain lines, JSON lines, silence.

import { shellWord } from "../../../cli/terminal/printable.ts";
import { fitBar, Progress, type ShownEvent } from "../../../cli/terminal/progress.ts";
import { assert, assertEquals, assertStringIncludes } from "../../assert.ts";

const STEP: ShownEvent = {
  type: "step",
  step: 5,
  epoch: 0,
  loss: 5.5,
  entropy: 5,
  kl: 0.5,
  lr: 1e-3,
  weightDecay: 0.04,
  momentum: 0.99,
  teacherTemp: 0.04,
  imagesPerSecond: 123.4,
  secondsLeft: 61,
};
const SKIPPED: ShownEvent = { type: "skipped", id: "a.jpg", reason: "empty" };

function shown(
  options: { json?: boolean; quiet?: boolean; terminal?: boolean; columns?: () => number },
  events: ShownEvent[],
) {
  const written = { out: "", err: "" };
  const progress = new Progress({
    json: false,
    quiet: false,
    terminal: false,
    ...options,
    write: (text, to) => written[to] += text,
  });
  for (const event of events) progress.show(event);
  progress.result("done");
  return written;
}

Deno.test("progress: a line tells rate, loss, entropy, KL, learning rate and time left", () => {
  const { out, err } = shown({}, [STEP, STEP, SKIPPED]);
  for (const part of ["123 img/s", "loss 5.500", "H 5.000", "KL 0.500", "1.00e-3", "1m 1s left"]) {
    assertStringIncludes(out, part);
  }
  assertEquals(out.split("\n").length, 3, "one line in ten seconds, and the result");
  assertStringIncludes(err, "a.jpg: empty");
});

Deno.test("progress: on a terminal the bar is rewritten in place", () => {
  const { out } = shown({ terminal: true }, [STEP, STEP]);
  assertStringIncludes(out, "\r\x1b[2K");
  for (const width of [10, 40, 80, 200]) {
    for (const fraction of [0, 0.5, 1]) assert(fitBar("x".repeat(60), fraction, width).length <= width);
  }
});

Deno.test("progress: on a narrow terminal the time left stays, and no line is wider", () => {
  for (const columns of [20, 40, 60, 80, 120]) {
    const { out } = shown({ terminal: true, columns: () => columns }, [STEP]);
    const [bar] = out.split("\r");
    assert(bar.length < columns && bar.includes("1m 1s left"), `${columns}: ${bar}`);
  }
});

Deno.test("progress: a file's name does not steer the terminal", () => {
  const { err } = shown({}, [{ type: "skipped", id: "a\n\x1b[2J\x9b\u202e.jpg", reason: "empty" }]);
  assertEquals(err, "skipped a\\n\\u001b[2J\\u009b\\u202e.jpg: empty\n");
});

Deno.test("progress: JSON lines carry every event, quiet only warnings and the result", () => {
  const json = shown({ json: true }, [STEP, SKIPPED]).out.trim().split("\n").map((line) => JSON.parse(line));
  assertEquals(json.map(({ type }) => type), ["step", "skipped"]);
  const quiet = shown({ quiet: true }, [STEP, { type: "notice", message: "x" }, SKIPPED]);
  assertEquals([quiet.out, quiet.err], ["done\n", "skipped a.jpg: empty\n"]);
});

Deno.test("a path in a message can be pasted into a shell", () => {
  assertEquals(["runs/a-1.b", "my run", "it's"].map(shellWord), ["runs/a-1.b", "'my run'", "'it'\\''s'"]);
});
