// The MPI that is installed, opened as a foreign library: its functions, and the handles that implementations encode differently.

/** Names an installation may have, by how its mpirun is recognised. */
const NAMES: Readonly<Record<string, Readonly<Record<"Open MPI" | "MPICH", readonly string[]>>>> = {
  linux: {
    "Open MPI": ["libmpi.so.40", "libmpi.so"],
    MPICH: ["libmpich.so.12", "libmpi.so.12", "libmpich.so", "libmpi.so"],
  },
  darwin: {
    "Open MPI": ["libmpi.dylib", "/opt/homebrew/lib/libmpi.dylib", "/usr/local/lib/libmpi.dylib"],
    MPICH: ["libmpich.dylib", "libmpi.dylib", "/opt/homebrew/lib/libmpi.dylib", "/usr/local/lib/libmpi.dylib"],
  },
  windows: { "Open MPI": ["msmpi.dll"], MPICH: ["msmpi.dll", "impi.dll"] },
};

/** Names the library, where it is not found by itself. */
export const LIBRARY_VARIABLE = "DENODINO_MPI";

/** MPI's rank for "whoever sends": a constant of the header. */
const ANY_SOURCE = { "Open MPI": -1, MPICH: -2 } as const;

/** MPICH and its relatives (Intel MPI, MVAPICH, MS-MPI) encode handles as numbers, the same in all of them. */
const MPICH_WORLD = 0x44000000;
const MPICH_BYTE = 0x4c00010d;

const THREAD_SERIALIZED = 2; // one call at a time, from any thread

/** Requests under way, which MPI writes into by their place. */
export type Requests = Uint8Array<ArrayBuffer>;

/** What is used of MPI; every call is made by one thread at a time, and none waits but the first and the last. */
export interface Mpi {
  /** Name and version, for people. */
  readonly version: string;
  /** Starts MPI: waits until all ranks do. */
  init(): Promise<void>;
  rank(): number;
  size(): number;
  /** Room for `count` requests. */
  requests(count: number): Requests;
  /** Starts to send; `data` must not change until the request is done. */
  send(data: Uint8Array, to: number, tag: number, requests: Requests, index: number): void;
  /** Starts to receive, from anybody if `from` is undefined. */
  receive(into: Uint8Array, from: number | undefined, tag: number, requests: Requests, index: number): void;
  /** Whether the first `count` requests are done. */
  test(requests: Requests, count: number): boolean;
  /** Ends MPI: waits until all ranks do. */
  finalize(): Promise<void>;
}

/**
 * Opens the library that DENODINO_MPI names, or the one that is installed.
 *
 * @throws {RangeError} if there is none, naming what was tried
 */
export function openMpi(kind: "Open MPI" | "MPICH", given = Deno.env.get(LIBRARY_VARIABLE)): Mpi {
  const installed = NAMES[Deno.build.os] ?? NAMES.linux;
  const others = kind === "MPICH" ? installed["Open MPI"] : installed.MPICH;
  const names = given ? [given] : [...new Set([...installed[kind], ...others])];
  const failures: string[] = [];
  for (const name of names) {
    try {
      return openLibrary(name);
    } catch (error) {
      failures.push(`${name} (${(error as Error).message.split("\n")[0]})`);
    }
  }
  throw new RangeError(
    `no MPI library could be opened; tried ${failures.join("; ")}: install Open MPI or MPICH, ` +
      `or name its shared library in ${LIBRARY_VARIABLE}`,
  );
}

function openLibrary(path: string): Mpi {
  const probe = Deno.dlopen(path, {
    MPI_Get_library_version: { parameters: ["buffer", "buffer"], result: "i32" },
    ompi_mpi_comm_world: { type: "pointer", optional: true },
    ompi_mpi_byte: { type: "pointer", optional: true },
  });
  const text = new Uint8Array(8192), length = new Int32Array(1);
  probe.symbols.MPI_Get_library_version(text, length);
  const version = new TextDecoder().decode(text.subarray(0, length[0])).replace(/\0/g, "").split(/[\n,]/)[0].trim();
  const { ompi_mpi_comm_world: world, ompi_mpi_byte: byte } = probe.symbols;
  return world && byte
    ? bind(path, version, ANY_SOURCE["Open MPI"], 8, "pointer", world, byte)
    : bind(path, version.replace(/\s+/g, " "), ANY_SOURCE.MPICH, 4, "i32", MPICH_WORLD, MPICH_BYTE);
}

/** A communicator or a type, as the implementation passes it. */
type Handle = Deno.PointerValue | number;

/** The functions, whatever a handle is. */
interface Functions {
  MPI_Init_thread(argc: null, argv: null, level: number, provided: Int32Array): Promise<number>;
  MPI_Finalize(): Promise<number>;
  MPI_Comm_rank(world: Handle, rank: Int32Array): number;
  MPI_Comm_size(world: Handle, size: Int32Array): number;
  MPI_Isend: Transfer;
  MPI_Irecv: Transfer;
  MPI_Testall(count: number, requests: Deno.PointerValue, flag: Int32Array, statuses: Uint8Array): number;
}

type Transfer = (
  data: Deno.PointerValue,
  count: number,
  type: Handle,
  rank: number,
  tag: number,
  world: Handle,
  request: Deno.PointerValue,
) => number;

/** @param handle how the implementation passes a communicator or a type; a request takes `requestBytes` */
function bind(
  path: string,
  version: string,
  anySource: number,
  requestBytes: number,
  handle: "pointer" | "i32",
  world: Handle,
  byte: Handle,
): Mpi {
  const transfer = {
    parameters: ["pointer", "i32", handle, "i32", "i32", handle, "pointer"],
    result: "i32",
  } as const;
  const ofWorld = { parameters: [handle, "buffer"], result: "i32" } as const;
  const library = Deno.dlopen(path, {
    MPI_Init_thread: { parameters: ["pointer", "pointer", "i32", "buffer"], result: "i32", nonblocking: true },
    MPI_Finalize: { parameters: [], result: "i32", nonblocking: true },
    MPI_Comm_rank: ofWorld,
    MPI_Comm_size: ofWorld,
    MPI_Isend: transfer,
    MPI_Irecv: transfer,
    MPI_Testall: { parameters: ["i32", "pointer", "buffer", "buffer"], result: "i32" },
  });
  const symbols = library.symbols as unknown as Functions;
  const check = (code: number, call: string) => {
    if (code !== 0) throw new Error(`${call} failed with code ${code} (${version})`);
  };
  const number = (call: "MPI_Comm_rank" | "MPI_Comm_size") => {
    const value = new Int32Array(1);
    check(symbols[call](world, value), call);
    return value[0];
  };
  const flag = new Int32Array(1);
  const statuses = new Map<number, Uint8Array<ArrayBuffer>>();
  const start = (
    call: "MPI_Isend" | "MPI_Irecv",
    data: Uint8Array,
    rank: number,
    tag: number,
    requests: Requests,
    index: number,
  ) => {
    const request = Deno.UnsafePointer.offset(pointerTo(requests)!, index * requestBytes);
    check(symbols[call](pointerTo(data), data.length, byte, rank, tag, world, request), call);
  };
  return {
    version,
    async init() {
      check(await symbols.MPI_Init_thread(null, null, THREAD_SERIALIZED, new Int32Array(1)), "MPI_Init_thread");
    },
    rank: () => number("MPI_Comm_rank"),
    size: () => number("MPI_Comm_size"),
    requests: (count) => new Uint8Array(new ArrayBuffer(count * requestBytes)),
    send: (data, to, tag, requests, index) => start("MPI_Isend", data, to, tag, requests, index),
    receive: (into, from, tag, requests, index) => start("MPI_Irecv", into, from ?? anySource, tag, requests, index),
    test(requests, count) {
      let room = statuses.get(count);
      if (!room) statuses.set(count, room = new Uint8Array(Math.max(1, count) * STATUS_BYTES));
      check(symbols.MPI_Testall(count, pointerTo(requests), flag, room), "MPI_Testall");
      return flag[0] !== 0;
    },
    async finalize() {
      check(await symbols.MPI_Finalize(), "MPI_Finalize");
    },
  };
}

/** More than any implementation's MPI_Status takes. */
const STATUS_BYTES = 64;

/** Where an array's bytes lie. Asking for its buffer moves them off V8's heap, where nothing else moves them. */
function pointerTo(array: Uint8Array): Deno.PointerValue {
  array.buffer;
  return Deno.UnsafePointer.of(array as Uint8Array<ArrayBuffer>);
}
