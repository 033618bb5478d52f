// The launcher: what it makes of compute processes that refuse, crash, complain or say nothing.

import { launch } from "../../../cli/processes/launch.ts";
import type { ComputeEvent, Job } from "../../../cli/processes/messages.ts";
import { flagsFor, type Mode, TURBO_FLAGS } from "../../../cli/processes/mode.ts";
import { HANG_UP_IS_IGNORED } from "../../../cli/processes/signals.ts";
import { assertEquals, assertStringIncludes } from "../../assert.ts";

const READY = `console.log(JSON.stringify({ type: "ready", mode: "turbo" }));`;

/** Launches programs in place of the compute process: the first in turbo mode, the second with bounds checks. */
async function launched(turbo: string, checked = turbo, wanted = false) {
  const events: ComputeEvent[] = [], notices: string[] = [], errors: string[] = [], modes: Mode[] = [];
  const code = await launch({ command: "none", device: {} } as unknown as Job, {
    checked: wanted,
    onEvent: (event) => events.push(event),
    onNotice: (message) => notices.push(message),
    onError: (line) => errors.push(line),
    command: (mode) => {
      modes.push(mode);
      const args = ["eval", mode === "turbo" ? turbo : checked];
      return new Deno.Command(Deno.execPath(), { args, stdin: "piped", stdout: "piped", stderr: "piped" });
    },
  });
  return { code, events, notices: notices.join("\n"), errors, modes };
}

const onX86 = { ignore: Deno.build.arch !== "x86_64" };
if (onX86.ignore) console.log("launch: turbo mode skipped, this processor has none");

Deno.test({
  name: "launch: V8 flags that are refused fall back to bounds checks, and what was said of them is not shown",
  ...onX86,
  fn: async () => {
    const { code, modes, notices, errors } = await launched(`console.error("bad flag"); Deno.exit(1)`, READY);
    assertEquals([code, modes, errors], [0, ["turbo", "checked"], []]);
    assertStringIncludes(notices, "going on with bounds checks");
  },
});

Deno.test("launch: a process that fails in both modes says why", async () => {
  const { code, errors } = await launched(`console.error("no such thing"); Deno.exit(3)`);
  assertEquals([code, errors], [3, ["no such thing"]]);
});

Deno.test({
  name: "launch: a segmentation fault in turbo mode is told as what it is, with the way to find it",
  ignore: onX86.ignore || Deno.build.os === "windows",
  fn: async () => {
    const { code, notices, modes } = await launched(`${READY} Deno.exit(139)`); // what a shell says of the signal
    assertEquals([code, modes], [1, ["turbo"]]);
    assertStringIncludes(notices, "--checked");
  },
});

Deno.test({
  name: "launch: SIGTERM and a hang-up have their statuses, whether the process heeds them or is ended",
  ignore: Deno.build.os === "windows",
  fn: async () => {
    const heeds = `Deno.addSignalListener("SIGTERM", () => Deno.exit(143));`;
    for (const [signal, status] of [["SIGTERM", 143], ["SIGHUP", 129]] as const) { // Ctrl-C would end the tests too
      if (signal === "SIGHUP" && HANG_UP_IS_IGNORED) continue; // these tests run under nohup
      for (const listeners of [heeds, ""]) {
        const program = `${listeners} ${READY} Deno.kill(Deno.ppid, "${signal}"); setTimeout(() => {}, 20_000);`;
        const { code } = await launched(program);
        assertEquals(code, status, `${signal} ${listeners}`);
      }
    }
  },
});

Deno.test("launch: events come through, stderr too but for what only alarms, and --checked never starts turbo", async () => {
  const program = `${READY}
    console.error("error: XDG_RUNTIME_DIR is invalid");
    console.log(JSON.stringify({ type: "notice", message: "hello" }));
    console.error("look");
    const { value } = await Deno.stdin.readable.getReader().read();
    console.log(JSON.stringify({ type: "notice", message: JSON.parse(new TextDecoder().decode(value)).command }));
    Deno.exit(2)`;
  const { code, events, errors, modes } = await launched(program, program, true);
  assertEquals([code, modes, errors], [2, ["checked"], ["look"]]);
  assertEquals(events.slice(1), [{ type: "notice", message: "hello" }, { type: "notice", message: "none" }]);
});

/** Reads a word of WebAssembly's memory beyond its end. */
const BEYOND = `
  const code = [0, 97, 115, 109, 1, 0, 0, 0, 1, 6, 1, 96, 1, 127, 1, 127, 3, 2, 1, 0, 5, 3, 1, 0, 1, 7, 5, 1, 1, 102, 0, 0, 10, 9, 1, 7, 0, 32, 0, 40, 2, 0, 11];
  const instance = new WebAssembly.Instance(new WebAssembly.Module(new Uint8Array(code)));
  try {
    instance.exports.f(70000);
  } catch (error) {
    console.log(error.message);
  }`;

Deno.test({
  name: "launch: --checked keeps bounds checks where the shell exports what the library's docs say",
  ...onX86,
  fn: async () => {
    assertEquals([flagsFor("checked", undefined), flagsFor("checked", "")], [undefined, undefined]);
    assertEquals(flagsFor("checked", "--expose-gc"), "--expose-gc");
    assertEquals(flagsFor("turbo", "--expose-gc"), `--expose-gc,${TURBO_FLAGS}`);
    for (const exported of [TURBO_FLAGS, TURBO_FLAGS.replaceAll(/(?<=\w)-/g, "_")]) {
      const env = { DENO_V8_FLAGS: flagsFor("checked", exported)! };
      const { stdout } = await new Deno.Command(Deno.execPath(), { args: ["eval", BEYOND], env }).output();
      assertStringIncludes(new TextDecoder().decode(stdout), "out of bounds");
    }
  },
});
