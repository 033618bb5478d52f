// Runs every test, the examples in the library's docstrings among them, and ends with one plain line that counts them.
// Usage: deno run -A tests/run.ts [arguments of `deno test`]

const ANSI = new RegExp(`${String.fromCharCode(27)}\\[[0-9;]*m`, "g"); // colours

const child = new Deno.Command(Deno.execPath(), {
  args: [
    "test",
    "--allow-all",
    "--no-check",
    ...Deno.args.length > 0 ? Deno.args : ["--doc", ...await withExamples(), "tests/"],
  ],
  cwd: new URL("..", import.meta.url),
  // Vulkan's loader complains wherever nobody is logged in at a screen; any folder will do.
  env: { XDG_RUNTIME_DIR: Deno.env.get("XDG_RUNTIME_DIR") ?? "/tmp" },
  stdout: "piped",
  stderr: "inherit",
}).spawn();
let last = "";
const decoder = new TextDecoder();
for await (const part of child.stdout) {
  Deno.stdout.writeSync(part);
  last = (last + decoder.decode(part, { stream: true })).slice(-4000);
}
const { code, signal } = await child.status;
const summary = /(\d+) passed[^|]*\| (\d+) failed(?:.*?\| (\d+) ignored)?/g;
const found = [...last.replace(ANSI, "").matchAll(summary)].at(-1);
if (found) console.log(`${found[1]} passed, ${found[2]} failed, ${found[3] ?? 0} skipped`);
else console.log("the tests did not run to their end");
// Three times in some hundred runs on a loaded machine the C library aborted a process that was ending, every test passed and
// counted: Mesa's software adapter is torn down while its threads live. That is told, and is no failed test.
const abortedAtExit = signal === "SIGABRT" && found !== undefined && found[2] === "0";
if (abortedAtExit) console.error("every test passed, but the process was aborted while it ended (see tests/run.ts)");
Deno.exit(abortedAtExit ? 0 : code);

/** Files of the library whose docstrings have examples: `deno test --doc` does not follow what they re-export. */
async function withExamples(folders: readonly string[] = ["models", "gpu", "wasm", "dino"]): Promise<string[]> {
  const found = ["mod.ts"];
  const look = async (folder: string) => {
    for await (const { name, isDirectory } of Deno.readDir(new URL(`../${folder}`, import.meta.url))) {
      const path = `${folder}/${name}`;
      if (isDirectory) await look(path);
      else if (
        name.endsWith(".ts") && (await Deno.readTextFile(new URL(`../${path}`, import.meta.url))).includes(" * ```ts")
      ) {
        found.push(path);
      }
    }
  };
  for (const folder of folders) await look(folder);
  return found.sort();
}
