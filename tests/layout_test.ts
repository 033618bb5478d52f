// The shape of the house: who may import whom, and what the platform's rules forbid.
import { assert, assertEquals } from "./assert.ts";

const root = new URL("../", import.meta.url);

/** Folders a folder may import besides itself. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  models: [],
  gpu: ["models"],
  wasm: ["models"],
  dino: ["models"],
  cli: ["models", "gpu", "wasm", "dino", "mod.ts", "deno.json"],
  "mod.ts": ["models", "gpu", "wasm", "dino"],
};

interface ModuleInfo {
  specifier: string;
  dependencies?: { specifier: string; code?: { specifier?: string }; type?: { specifier?: string } }[];
}

/** The module graph below one entry point. */
async function graphOf(entry: string): Promise<ModuleInfo[]> {
  const { stdout, success } = await new Deno.Command(Deno.execPath(), {
    args: ["info", "--json", entry],
    cwd: root,
    stderr: "null",
  }).output();
  assert(success, `deno info ${entry} failed`);
  return JSON.parse(new TextDecoder().decode(stdout)).modules;
}

/** The top-level folder or file of a local module; undefined for packages and text. */
function floorOf(specifier: string): string | undefined {
  return specifier.startsWith(root.href) ? specifier.slice(root.href.length).split("/")[0] : undefined;
}

const modules = (await Promise.all(["mod.ts", "cli/main.ts", "cli/train.ts", "cli/processes/decoder.ts"].map(graphOf)))
  .flat();

Deno.test("layout: imports go down the house only", () => {
  const wrong = new Set<string>();
  let arrows = 0;
  for (const module of modules) {
    const from = floorOf(module.specifier);
    if (!from) continue;
    for (const dependency of module.dependencies ?? []) {
      const target = dependency.code?.specifier ?? dependency.type?.specifier;
      const to = target && floorOf(target);
      if (!to || to === from) continue;
      arrows++;
      assert(from in MAY_IMPORT, `${from} is not a floor of the house`);
      if (!MAY_IMPORT[from].includes(to)) {
        wrong.add(`${module.specifier.slice(root.href.length)} imports ${dependency.specifier}`);
      }
    }
  }
  assert(arrows > 50, `only ${arrows} imports between floors were seen: the graph was not read`);
  assertEquals([...wrong], []);
});

Deno.test("layout: imports run in a circle among the operations only, which name each other in a program", () => {
  const imports = new Map<string, Set<string>>();
  for (const { specifier, dependencies = [] } of modules) {
    if (!floorOf(specifier)) continue;
    const targets = dependencies.flatMap(({ code, type }) => [code?.specifier, type?.specifier]);
    imports.set(specifier, new Set(targets.filter((target) => target !== undefined)));
  }
  const reachesItself = (file: string) => {
    const seen = new Set<string>(), queue = [file];
    for (const next of queue) {
      const fresh = [...imports.get(next) ?? []].filter((target) => !seen.has(target));
      for (const target of fresh) seen.add(target), queue.push(target);
    }
    return seen.has(file);
  };
  const circular = [...imports.keys()].filter(reachesItself).map((specifier) => specifier.slice(root.href.length));
  assert(circular.includes("models/graph/program.ts"), "no circle was seen at all: the graph was not read");
  assertEquals(circular.filter((file) => !/^models\/graph\/(ops\/|program\.ts$)/.test(file)), []);
});

Deno.test("layout: no bare specifier and no loose version in what people run or import", () => {
  const wrong = new Set<string>();
  for (const module of modules) {
    if (!floorOf(module.specifier)) continue;
    for (const { specifier } of module.dependencies ?? []) {
      const pinned = /^npm:(@[^/]+\/)?[^@/]+@\d+\.\d+\.\d+/.test(specifier);
      if (!/^(\.{1,2}\/|node:)/.test(specifier) && !pinned) wrong.add(`${module.specifier}: ${specifier}`);
    }
  }
  assertEquals([...wrong], []);
});

const tracked = await filesOfProject();
if (!tracked) console.log("layout: git does not list this folder's files: its top level is not checked");

Deno.test({
  name: "layout: the top level holds the agreed names only",
  ignore: !tracked,
  fn: () => {
    const agreed = new Set(
      "cli dino gpu models tests wasm mod.ts deno.json deno.lock README.md LICENSE CHANGELOG.md CONTRIBUTING.md .ci .github .gitignore"
        .split(" "),
    );
    const names = new Set(tracked!.map((path) => path.split("/")[0]));
    assertEquals([...names].filter((name) => !agreed.has(name)), []);
  },
});

/** What belongs to the project, since people may keep runs and images beside it. */
async function filesOfProject(): Promise<string[] | undefined> {
  try {
    const git = new Deno.Command("git", { args: ["ls-files"], cwd: root, stderr: "null" });
    const paths = new TextDecoder().decode((await git.output()).stdout).split("\n").filter((path) => path !== "");
    return paths.length > 0 ? paths : undefined;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined; // no git
    throw error;
  }
}
