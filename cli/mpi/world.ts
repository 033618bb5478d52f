// Which of the ranks that mpirun started this process is, by the variables it was given; no library is opened for that.

/** Where a process stands among those started with it. */
export interface World {
  readonly rank: number;
  readonly size: number;
  /** Ranks on this machine. */
  readonly localSize: number;
  /** Whose mpirun it was, as far as its variables tell. */
  readonly kind: "Open MPI" | "MPICH";
}

/** Variables of Open MPI, and of the launchers that MPICH, Intel MPI and MS-MPI share. */
const VARIABLES = [
  {
    kind: "Open MPI",
    rank: "OMPI_COMM_WORLD_RANK",
    size: "OMPI_COMM_WORLD_SIZE",
    localSize: "OMPI_COMM_WORLD_LOCAL_SIZE",
  },
  { kind: "MPICH", rank: "PMI_RANK", size: "PMI_SIZE", localSize: "MPI_LOCALNRANKS" },
] as const;

/** How a run is distributed: as it was started, not at all, or by MPI in any case. */
export type Distribution = "auto" | "off" | "mpi";

/**
 * The world this process was started in; undefined where it shall train alone.
 *
 * @throws {RangeError} if MPI is asked for and nothing says which rank this is
 */
export function startedIn(
  distribution: Distribution,
  variable: (name: string) => string | undefined = (name) => Deno.env.get(name),
): World | undefined {
  if (distribution === "off") return undefined;
  for (const { kind, ...names } of VARIABLES) {
    const rank = Number(variable(names.rank)), size = Number(variable(names.size));
    if (!Number.isSafeInteger(rank) || !Number.isSafeInteger(size)) continue;
    if (size === 1 && distribution === "auto") return undefined;
    return { rank, size, kind, localSize: Number(variable(names.localSize)) || size };
  }
  if (distribution === "auto") return undefined;
  throw new RangeError(
    `--distributed mpi: none of ${VARIABLES.map(({ size }) => size).join(", ")} is set: ` +
      "start with mpirun -n 2 dino train …, or leave it out",
  );
}

/** Cores for each rank of this machine. @param cores this process may run on, @param all of the machine */
export function coresOfRank(
  { localSize }: World,
  cores: number = navigator.hardwareConcurrency,
  all: number = cores,
): { threads: number; notice?: string } {
  const share = Math.max(1, Math.floor(all / localSize));
  if (cores >= share) return { threads: share };
  return {
    threads: cores,
    notice: `mpirun keeps each rank on ${cores} of ${all} cores: --bind-to none lets a rank use ${share}`,
  };
}
