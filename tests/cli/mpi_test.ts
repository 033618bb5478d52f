// Training under mpirun, where there is one; and what is known of a world before any library is opened.

import { readTrainingState } from "../../dino/run/checkpoint.ts";
import { openMpi } from "../../cli/mpi/library.ts";
import { MpiTransport } from "../../cli/mpi/transport.ts";
import type { Mpi } from "../../cli/mpi/library.ts";
import { coresOfRank, startedIn } from "../../cli/mpi/world.ts";
import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "../assert.ts";

const root = new URL("../../", import.meta.url);

/** Settings of Open MPI for machines where tests run: as root, on fewer cores than ranks. Others ignore them. */
const SETTINGS = {
  OMPI_ALLOW_RUN_AS_ROOT: "1",
  OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: "1",
  OMPI_MCA_rmaps_base_oversubscribe: "1",
  OMPI_MCA_hwloc_base_binding_policy: "none",
  XDG_RUNTIME_DIR: Deno.env.get("XDG_RUNTIME_DIR") ?? "/tmp",
};

/** Why nothing can be run; undefined if it can. */
function obstacle(): string | undefined {
  try {
    const { success } = new Deno.Command("mpirun", { args: ["--version"], stdout: "null", stderr: "null" })
      .outputSync();
    if (!success) return "mpirun fails";
    openMpi("Open MPI");
  } catch (error) {
    return error instanceof Deno.errors.NotFound ? "there is no mpirun" : (error as Error).message;
  }
}

const missing = obstacle();
if (missing) console.log(`training under mpirun skipped: ${missing}`);

const TRAIN = ["deno", "run", "--allow-all", "cli/train.ts"];

/** Runs a command line of mpirun in the project's folder. */
async function mpirun(args: readonly string[]): Promise<{ code: number; text: string }> {
  const env = { ...SETTINGS, PATH: `${Deno.execPath().replace(/\/[^/]*$/, "")}:${Deno.env.get("PATH")}` };
  const { code, stdout, stderr } = await new Deno.Command("mpirun", { args: [...args], cwd: root, env }).output();
  return { code, text: new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr) };
}

Deno.test({
  name: "mpi: two ranks train one run: one report, one folder, a checkpoint that one rank goes on from",
  ignore: missing !== undefined,
  fn: async () => {
    const folder = await Deno.makeTempDir();
    try {
      const out = `${folder}/run`;
      const flags = ["--out", out, "--backend", "wasm", "--limit", "64", "--batch-size", "16", "--depth", "1"];
      const go = [...flags, "--epochs", "2", "--knn-every", "2", "--out-dim", "32"];
      const { code, text } = await mpirun(["-n", "2", ...TRAIN, ...go, "--steps", "4"]);
      assertEquals(code, 0, text);
      const times = (words: string) => text.split(words).length - 1;
      assertEquals([times("computing on wasm"), times("epoch 1/2:")], [1, 1], text);
      assertStringIncludes(text, "2 ranks share each batch, 8 of 16 images each: Open MPI");
      const saved = await readTrainingState(`${out}/latest.safetensors`);
      assertEquals([saved.step, saved.backend.endsWith(", 2 ranks")], [4, true]);
      const resumed = await new Deno.Command(Deno.execPath(), {
        args: [...TRAIN.slice(1), "--resume", "--out", out],
        cwd: root,
        env: SETTINGS,
      }).output();
      const told = new TextDecoder().decode(resumed.stdout);
      assertEquals(resumed.code, 0, told + new TextDecoder().decode(resumed.stderr));
      assertStringIncludes(told, "2 ranks and goes on with wasm");
      assertEquals(told.split("\nteacher after 2 epochs: k-NN").length - 1, 1, told);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});

Deno.test({
  name: "mpi: ranks that were started with different flags are refused, and a batch that cannot be shared",
  ignore: missing !== undefined,
  fn: async () => {
    const folder = await Deno.makeTempDir();
    try {
      const flags = ["--out", `${folder}/run`, "--backend", "wasm", "--limit", "64", "--batch-size", "16"];
      const other = await mpirun(["-n", "1", ...TRAIN, ...flags, ":", "-n", "1", ...TRAIN, ...flags, "--lr", "0.1"]);
      assert(other.code !== 0);
      assertStringIncludes(other.text, "rank 1 failed: --lr is 0.1 on rank 1 and not given on rank 0");
      const third = await mpirun(["-n", "3", ...TRAIN, ...flags]);
      assertStringIncludes(third.text, "--batch-size 16 cannot be split among 3 ranks");
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});

Deno.test("mpi: a library that is not there is named with all that was tried", () => {
  const error = assertThrows(() => openMpi("Open MPI", "/no/such/libmpi.so"), RangeError, "/no/such/libmpi.so (");
  assertStringIncludes(error.message, "DENODINO_MPI");
});

Deno.test("mpi: the world is what mpirun's variables say, unless it is switched off", () => {
  const variables = (values: Record<string, string>) => (name: string) => values[name];
  const open = variables({
    OMPI_COMM_WORLD_RANK: "3",
    OMPI_COMM_WORLD_SIZE: "4",
    OMPI_COMM_WORLD_LOCAL_SIZE: "2",
  });
  const world = startedIn("auto", open)!;
  assertEquals(world, { rank: 3, size: 4, localSize: 2, kind: "Open MPI" });
  assertEquals(startedIn("off", open), undefined);
  assertEquals(startedIn("auto", variables({ PMI_RANK: "0", PMI_SIZE: "2" })), {
    rank: 0,
    size: 2,
    localSize: 2,
    kind: "MPICH",
  });
  assertEquals(startedIn("auto", variables({})), undefined);
  assertEquals(startedIn("auto", variables({ PMI_RANK: "0", PMI_SIZE: "1" })), undefined);
  assertThrows(() => startedIn("mpi", variables({})), RangeError, "mpirun -n 2 dino train");
  assertEquals(coresOfRank(world, 8, 8), { threads: 4 });
  assertEquals(coresOfRank(world, 1, 8).threads, 1);
  assertStringIncludes(coresOfRank(world, 1, 8).notice!, "--bind-to none");
});

/** An MPI whose other rank never answers, but for what `heard` puts into the first receipt. */
function deafMpi(heard = ""): Mpi {
  let farewell: Uint8Array | undefined;
  return {
    version: "none",
    init: () => Promise.resolve(),
    rank: () => 0,
    size: () => 2,
    requests: (count) => new Uint8Array(count),
    send: () => {},
    receive: (into) => void (farewell ??= into),
    test(_requests, count) {
      if (count !== 1 || heard === "") return false;
      farewell!.set(new TextEncoder().encode(heard));
      return true;
    },
    finalize: () => Promise.resolve(),
  };
}

Deno.test("mpi: whoever waits hears why another rank failed", async () => {
  const transport = new MpiTransport(deafMpi("rank 1 failed: no memory"));
  const nothing = [undefined, new Uint8Array(3)];
  await assertRejects(() => transport.exchange(nothing, nothing), Error, "rank 1 failed: no memory");
  await assertRejects(() => transport.exchange(nothing, nothing), Error, "no memory");
  await transport.close(); // waits for nobody
});
