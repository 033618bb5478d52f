// Training inside one of several compute processes that mpirun started: joins the others, trains with them, leaves.

import { cpus } from "node:os";
import { communicate } from "../../dino/ranks/collectives.ts";
import type { Config } from "../../dino/config.ts";
import { flagOf } from "../../dino/config/field.ts";
import { LOCAL_FIELDS, Ranks } from "../../dino/ranks/ranks.ts";
import type { Communicator } from "../../models/graph/communicator.ts";
import type { ComputeContext } from "./job_context.ts";
import { EXIT_FAILURE, failureOf } from "../terminal/failure.ts";
import type { AbandonJob, FollowJob, TrainJob } from "../processes/messages.ts";
import { openMpi } from "../mpi/library.ts";
import { MpiTransport } from "../mpi/transport.ts";
import { coresOfRank, type World } from "../mpi/world.ts";
import { runTrainJob } from "./train_job.ts";

/** Flags that may differ between ranks besides what each machine has. */
const SHOWN_ONLY: ReadonlySet<string> = new Set(["json", "quiet", "verbose", "checked"]);

/** An mpirun may end all ranks as soon as one has ended: the others leave the first the time to say why. */
const LINGER_MS = 2000;

/** Runs the job of one rank; returns the exit status. What the first rank tells, the others keep to themselves. */
export async function runDistributed(
  job: TrainJob | FollowJob,
  context: ComputeContext,
): Promise<number> {
  const { world } = job.command === "train" ? job.distributed! : job;
  const isFirst = world.rank === 0;
  const communicator = await join(world, context.signal);
  try {
    const followed = await followFirst(job, new Ranks(communicator), context.signal);
    const { threads, notice } = coresOfRank(world, navigator.hardwareConcurrency, cpus().length);
    const config = { ...followed.config, threads: followed.config.threads ?? threads };
    if (notice && isFirst && followed.config.threads === null) context.tell({ type: "notice", message: notice });
    const tell: ComputeContext["tell"] = (event) => {
      if (isFirst || event.type === "checkpoint") context.tell(event);
    };
    const code = await runTrainJob({ ...followed, config }, { ...context, tell }, communicator);
    await communicator.close();
    return code;
  } catch (thrown) {
    const error = !isFirst && thrown instanceof Deno.errors.NotFound ? unseen(thrown) : thrown;
    const failure = failureOf(error);
    await communicator.abort(failure.message);
    if (isFirst || failure.stack) throw error;
    context.tell({ type: "failure", failure: { ...failure, message: "" } }); // the first rank was told, and tells it
    await new Promise((resolve) => setTimeout(resolve, LINGER_MS));
    return failure.exit || EXIT_FAILURE;
  }
}

/** The first rank names files as it sees them. */
function unseen({ message }: Error): Error {
  return new RangeError(
    `${message}: rank 0 sees it, this machine does not: use --data and --cache-dir in folders that all machines share`,
  );
}

/** Joins the others only to tell them why there is nothing to do. */
export async function abandon({ world, reason }: AbandonJob, { signal }: ComputeContext): Promise<number> {
  const communicator = await join(world, signal);
  await communicator.abort(reason);
  return EXIT_FAILURE;
}

async function join(world: World, signal: AbortSignal): Promise<Communicator> {
  const mpi = openMpi(world.kind);
  await unlessStopped(mpi.init(), signal);
  const communicator = communicate(new MpiTransport(mpi, signal));
  if (communicator.size === world.size) return communicator;
  throw new RangeError(
    `mpirun started ${world.size} ranks, the library found (${mpi.version}) knows of ${communicator.size}: ` +
      `it belongs to another MPI: name that of your mpirun in DENODINO_MPI`,
  );
}

/** The job of the first rank, which has looked at the images; each rank keeps what it was told of its own machine. */
async function followFirst(job: TrainJob | FollowJob, ranks: Ranks, signal: AbortSignal): Promise<TrainJob> {
  const first = await unlessStopped(ranks.share(job.command === "train" ? job : undefined), signal);
  if (job.command === "train") return job;
  const { given } = job;
  const firstGiven = first!.distributed!.given;
  for (const key of new Set([...Object.keys(given), ...Object.keys(firstGiven)])) {
    const [own, others] = [given, firstGiven].map((flags) => JSON.stringify(flags[key]));
    if (own === others || LOCAL_FIELDS.has(key) || SHOWN_ONLY.has(key)) continue;
    const say = (value: string | undefined) => value === undefined ? "not given" : value;
    throw new RangeError(
      `--${flagOf(key)} is ${say(own)} on rank ${ranks.communicator.rank} and ${say(others)} on rank 0: ` +
        "start all ranks with the same flags",
    );
  }
  const own = Object.entries(given).filter(([key]) => LOCAL_FIELDS.has(key) && key in first!.config);
  return { ...first!, config: { ...first!.config, ...Object.fromEntries(own) as Partial<Config> } };
}

/** What it resolves to, unless this process is asked to stop first. */
async function unlessStopped<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  work.catch(() => {});
  if (signal.aborted) throw signal.reason;
  const stopped = Promise.withResolvers<never>();
  const stop = () => stopped.reject(signal.reason);
  signal.addEventListener("abort", stop, { once: true });
  try {
    return await Promise.race([work, stopped.promise]);
  } finally {
    signal.removeEventListener("abort", stop);
  }
}
