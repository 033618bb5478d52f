// The reference's numbers, on every backend: a subset that travels with the project, and the whole set where it is at hand.
import { assert } from "./assert.ts";
import { onEachBackend } from "./backends.ts";
import { readIndex, runCase } from "./parity/golden_folder.ts";
import { KINDS } from "./parity/kinds/mod.ts";

const subset = new URL("fixtures/golden", import.meta.url).pathname;

/** A larger set of the same layout: named by DENODINO_GOLDEN, or beside the checkout. */
function wholeSet(): string | undefined {
  const beside = new URL("../../shared/golden", import.meta.url).pathname;
  for (const folder of [Deno.env.get("DENODINO_GOLDEN"), beside]) {
    try {
      if (folder && Deno.statSync(`${folder}/index.json`).isFile) return folder;
    } catch { /* not there */ }
  }
}

const folder = wholeSet() ?? subset;
if (folder === subset) {
  console.log("golden cases: the subset in tests/fixtures; set DENODINO_GOLDEN to run a whole set");
}
const entries = (await readIndex(folder)).filter((entry) => entry.kind in KINDS);

for (const kind of Object.keys(KINDS)) {
  const cases = entries.filter((entry) => entry.kind === kind);
  if (cases.length === 0 && folder === subset) {
    const name = `golden ${kind} (skipped: the subset that travels has no case of it; set DENODINO_GOLDEN)`;
    Deno.test({ name, ignore: true, fn: () => {} });
    continue;
  }
  onEachBackend(`golden ${kind}: ${cases.length} case(s)`, async (backend) => {
    assert(cases.length > 0, `no case of kind ${kind} in ${folder}`);
    for (const entry of cases) {
      const result = await runCase(folder, entry, backend);
      const failures = result.failures.map((f) => `${f.name}: ${f.error} > ${f.tolerance}`).slice(0, 10).join("\n");
      assert(result.passed, `${entry.name}: ${result.problem ?? ""}\n${failures}`);
    }
  }, KINDS[kind].host ? { backends: ["reference"] } : {});
}

Deno.test("golden: a kind that is not known, a case that is not there and a result left out all fail", async () => {
  const { ReferenceBackend } = await import("../models/graph/reference.ts");
  const backend = new ReferenceBackend();
  assert(!(await runCase(subset, { name: "x", kind: "never_heard_of" }, backend)).passed);
  assert(!(await runCase(subset, { name: "absent", kind: "schedules" }, backend)).passed);
  // A vit_forward case run as if it were interpolation computes nothing of what is listed.
  assert(!(await runCase(subset, { name: "dino_loss__2g4l", kind: "schedules" }, backend)).passed);
});
