// A run on disk: what was asked for, the log, and the checkpoints, under one format version.

import { pathExists } from "../path_exists.ts";
import { join } from "node:path";
import { writeTextAtomically } from "../../models/weights/atomic_file.ts";
import { readTrainingState, RUN_FORMAT } from "./checkpoint.ts";
import type { Config } from "../config.ts";
import { configFromJson } from "../config/check.ts";
import type { LogRow } from "./events.ts";

/** What `config.json` holds. */
export interface RunRecord {
  readonly format: number;
  /** Every hyperparameter, crop sizes fitted. */
  readonly config: Config;
  /** Of the images: a resumed run must find the same. */
  readonly data: { readonly name: string; readonly images: number; readonly fingerprint: string };
  readonly [more: string]: unknown;
}

const CONFIG = "config.json";
const LOG = "log.jsonl";
const LATEST = "latest.safetensors";
/** Held by whoever writes into the folder. The system lets go of it when the process ends, however it ends. */
const LOCK = ".lock";
const NUMBERED = /^checkpoint(\d{4,})\.safetensors$/;
/** What a run writes, and therefore what overwriting it removes. Caches of decoded images stay. */
const OURS = [CONFIG, LOG, LATEST, "report.html"];

/** A run folder. Nothing is written before {@linkcode RunFolder.create}. */
export class RunFolder {
  #log?: Deno.FsFile;
  #lock?: Deno.FsFile;

  private constructor(readonly path: string) {}

  /** The checkpoint from which a run resumes. */
  get latestPath(): string {
    return join(this.path, LATEST);
  }

  /** Path of a file in the folder. */
  file(name: string): string {
    return join(this.path, name);
  }

  /** True if the folder holds a run, finished or not. */
  static async holdsRun(path: string): Promise<boolean> {
    for await (const name of names(path)) if (name === CONFIG || name === LATEST || NUMBERED.test(name)) return true;
    return false;
  }

  /**
   * Makes the folder and tries out whether a run can be written into it, before hours are spent on its images.
   *
   * @throws {RangeError} if it cannot, or another process writes into it
   */
  static async tryOut(path: string): Promise<void> {
    const probe = join(path, `.probe-${crypto.randomUUID()}`);
    try {
      await Deno.mkdir(path, { recursive: true });
      await Deno.writeFile(probe, new Uint8Array(1));
      await Deno.remove(probe);
    } catch (error) {
      await Deno.remove(probe).catch(() => {});
      const reason = (error as Error).message.replace(/: \w+ '.*'$/s, ""); // without the probe's name
      throw new RangeError(`--out ${path}: cannot be written (${reason}): choose another folder`);
    }
    if (!await pathExists(join(path, LOCK))) return;
    const folder = new RunFolder(path);
    await folder.lock();
    folder.close();
  }

  /**
   * Makes the folder of a new run, locks it and writes its configuration.
   *
   * @param overwrite removes the run that is there
   * @throws {RangeError} if the folder holds a run and `overwrite` is false, or another process writes into it; nothing is
   * changed then
   */
  static async create(path: string, record: Omit<RunRecord, "format">, overwrite = false): Promise<RunFolder> {
    if (!overwrite && await RunFolder.holdsRun(path)) throw new RangeError(heldMessage(path));
    await Deno.mkdir(path, { recursive: true });
    const folder = new RunFolder(path);
    try {
      await folder.lock();
      if (await RunFolder.holdsRun(path)) { // again: somebody may have been faster
        if (!overwrite) throw new RangeError(heldMessage(path));
        for await (const name of names(path)) {
          if (OURS.includes(name) || NUMBERED.test(name)) await Deno.remove(join(path, name));
        }
      }
      await folder.writeRecord(record);
      folder.#log = await Deno.open(join(path, LOG), { write: true, create: true, truncate: true });
      return folder;
    } catch (error) {
      folder.close();
      throw error;
    }
  }

  /**
   * Keeps other processes from writing into the folder until {@linkcode RunFolder.close}, or the end of this process.
   *
   * @throws {RangeError} if another one does
   */
  async lock(): Promise<void> {
    const path = join(this.path, LOCK);
    const file = await Deno.open(path, { read: true, write: true, create: true });
    let free: boolean;
    try {
      free = await file.tryLock(true);
    } catch {
      free = true; // a file system without locks
    }
    if (free) {
      this.#lock = file;
      await file.truncate();
      await file.write(new TextEncoder().encode(`process ${Deno.pid}\n`));
      return;
    }
    file.close();
    const holder = await Deno.readTextFile(path).then((text) => text.trim(), () => "");
    throw new RangeError(
      `--out ${this.path}: another training writes into it${holder === "" ? "" : ` (${holder})`}: ` +
        "wait until it has ended, or choose another folder",
    );
  }

  /**
   * Opens the folder of an earlier run. A configuration that is lost or damaged is taken from the newest checkpoint that can
   * be read; nothing is written.
   *
   * @returns also `restored`, what to tell of that
   * @throws {RangeError} if there is no run, or one of another format version
   * @throws {SyntaxError} if its configuration cannot be read, and no checkpoint holds it either
   */
  static async open(path: string): Promise<{ folder: RunFolder; record: RunRecord; restored?: string }> {
    const folder = new RunFolder(path), file = folder.file(CONFIG);
    const found = await readRecord(file);
    if (typeof found === "string") {
      const checkpoints = await folder.resumable();
      if (found === MISSING && checkpoints.length === 0) {
        throw new RangeError(`--out ${path}: holds no run to resume: start one without --resume`);
      }
      const { from, config, data } = await newestState(checkpoints, `${file}: ${found}`);
      const record = { format: RUN_FORMAT, config: configFromJson(config), data };
      return { folder, record, restored: `${file}: ${found}: the configuration is taken from ${from}` };
    }
    if (found.format !== RUN_FORMAT) {
      throw new RangeError(
        `--out ${path}: is a run of format ${found.format}, this version reads ${RUN_FORMAT}: use the version it was made with`,
      );
    }
    return { folder, record: { ...found, config: configFromJson(found.config) } };
  }

  /**
   * Goes on with the log after its first `bytes`: what was written beyond a checkpoint is cut.
   *
   * @returns false if the log is shorter than that, and so lacks rows
   */
  async continueLog(bytes: number): Promise<boolean> {
    const file = await Deno.open(join(this.path, LOG), { read: true, write: true, create: true });
    const { size } = await file.stat();
    await file.truncate(Math.min(bytes, size));
    await file.seek(0, Deno.SeekMode.End);
    this.#log = file;
    return size >= bytes;
  }

  /** Rewrites the configuration, for a run that is resumed with another one. */
  async writeRecord(record: Omit<RunRecord, "format">): Promise<void> {
    await writeTextAtomically(
      join(this.path, CONFIG),
      JSON.stringify({ format: RUN_FORMAT, ...record }, null, 2) + "\n",
    );
  }

  /** Appends a row to the log. */
  async appendLog(row: LogRow): Promise<void> {
    const bytes = new TextEncoder().encode(JSON.stringify(row) + "\n");
    try {
      for (let done = 0; done < bytes.length;) done += await this.#log!.write(bytes.subarray(done));
    } catch (error) {
      throw new Error(`${this.file(LOG)}: ${(error as Error).message}`, { cause: error });
    }
  }

  /** Bytes of the log so far, safely on the disk. */
  async syncLog(): Promise<number> {
    await this.#log!.sync();
    return (await this.#log!.stat()).size;
  }

  /** Name of the checkpoint that stays after so many epochs. */
  numberedPath(epochs: number): string {
    return join(this.path, `checkpoint${String(epochs).padStart(4, "0")}.safetensors`);
  }

  /** Makes the latest checkpoint stay under the number of its epochs. */
  async keepLatest(epochs: number): Promise<string> {
    const path = this.numberedPath(epochs);
    const part = `${path}.part`;
    await Deno.remove(part).catch(() => {}); // of a process that was killed
    try {
      await Deno.link(this.latestPath, part); // costs no space: the next latest replaces the name, not the bytes
    } catch {
      await Deno.copyFile(this.latestPath, part); // file systems without links
    }
    await Deno.rename(part, path);
    return path;
  }

  /** Removes all but the newest `keep` numbered checkpoints; the latest is not one of them. */
  async prune(keep: number): Promise<void> {
    const numbered = (await this.checkpoints()).slice(0, -keep);
    for (const { path } of numbered) await Deno.remove(path);
  }

  /** Checkpoints to go on from, the best first: the latest, then those that stayed, newest first. */
  async resumable(): Promise<string[]> {
    const numbered = (await this.checkpoints()).map(({ path }) => path).reverse();
    return await pathExists(this.latestPath) ? [this.latestPath, ...numbered] : numbered;
  }

  /** Numbered checkpoints, oldest first. */
  async checkpoints(): Promise<{ epochs: number; path: string }[]> {
    const found: { epochs: number; path: string }[] = [];
    for await (const name of names(this.path)) {
      const match = NUMBERED.exec(name);
      if (match) found.push({ epochs: Number(match[1]), path: join(this.path, name) });
    }
    return found.sort((a, b) => a.epochs - b.epochs);
  }

  /** Ends writing. */
  close(): void {
    this.#log?.close();
    this.#lock?.close();
    this.#log = this.#lock = undefined;
  }
}

/** What to do about a folder that is taken. */
export function heldMessage(path: string): string {
  return `--out ${path}: holds another run: continue it with --resume, replace it with --overwrite, or choose another folder`;
}

const MISSING = "is missing";

/** What stands in a `config.json`, or what is wrong with it. */
async function readRecord(file: string): Promise<RunRecord | string> {
  let json: Partial<RunRecord> | null;
  try {
    json = JSON.parse(await Deno.readTextFile(file));
  } catch (error) {
    if (error instanceof SyntaxError) return `is not JSON (${error.message})`;
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return MISSING;
    throw error;
  }
  const isRecord = typeof json?.format === "number" && typeof json.config === "object" && json.config !== null;
  return isRecord ? json as RunRecord : "is not a run's configuration";
}

/** @throws {SyntaxError} beginning with `complaint` if no checkpoint can be read */
async function newestState(checkpoints: readonly string[], complaint: string) {
  const damaged: string[] = [];
  for (const from of checkpoints) {
    try {
      return { from, ...await readTrainingState(from) };
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      damaged.push(error.message);
    }
  }
  const alsoNot = damaged.length > 0
    ? `no checkpoint can be read either (${damaged[0]})`
    : "there is no checkpoint yet";
  throw new SyntaxError(`${complaint}, and ${alsoNot}: begin again with --overwrite, or choose another folder`);
}

async function* names(path: string): AsyncGenerator<string> {
  try {
    for await (const entry of Deno.readDir(path)) if (entry.isFile) yield entry.name;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return;
    if (error instanceof Deno.errors.NotADirectory) throw new RangeError(`--out ${path}: is a file: choose a folder`);
    throw error;
  }
}
