// What is shown of a run: a bar on a terminal, plain lines elsewhere, JSON lines when asked, or nearly nothing.

import type { DataEvent } from "../../dino/data/dataset.ts";
import type { KnnRow, StartEvent, StepEvent } from "../../dino/run/events.ts";
import type { ComputeEvent } from "../processes/messages.ts";
import { printable, printableLine } from "./printable.ts";
import { formatBytes, formatSeconds } from "./std.ts";

/** Everything that can be shown. */
export type ShownEvent =
  | ComputeEvent
  | ({ readonly source: "data" } & DataEvent)
  | { readonly type: "report"; readonly path: string };

/** How much is shown, and in which form. */
export interface ProgressOptions {
  readonly json: boolean;
  readonly quiet: boolean;
  /** Name before what went wrong: `train: …`. */
  readonly command?: string;
  /** Draw a bar; default: stdout is a terminal. */
  readonly terminal?: boolean;
  /** Columns of the terminal; default: as many as it has at that moment. */
  readonly columns?: () => number;
  /** Receives the text; default stdout and stderr. */
  readonly write?: (text: string, to: "out" | "err") => void;
}

/** Seconds between two lines about progress where there is no terminal. */
const LINE_SECONDS = 10;

/** Images that are named as they are skipped; a terminal full of them hides everything else. */
const MOST_SKIPPED = 100;

/** Shows events. */
export class Progress {
  readonly #terminal: boolean;
  readonly #write: (text: string, to: "out" | "err") => void;
  #start?: StartEvent;
  #bar = "";
  #lastLine = -Infinity;
  readonly #skipped = new Set<string>();

  constructor(readonly options: ProgressOptions) {
    this.#terminal = options.terminal ?? Deno.stdout.isTerminal();
    this.#write = options.write ?? writeStandard;
  }

  /** Shows an event in the form asked for. */
  show(event: ShownEvent): void {
    if (this.options.json) {
      if (event.type === "crops") return; // a picture is of no use in a stream of lines
      this.#tell(JSON.stringify(event) + "\n", "out");
      if (event.type === "warning" || event.type === "failure") this.#showFailure(event);
      return;
    }
    if ("source" in event) return this.#showData(event);
    switch (event.type) {
      case "backend":
        this.line(`computing on ${event.name}: ${event.description} (${event.reason})`);
        for (const line of event.details ?? []) this.line(`  ${line}`);
        return;
      case "start":
        this.#start = event;
        return this.#showStart(event);
      case "step":
        return this.#progress(
          (width) => this.#stepText(event, width),
          event.step / (this.#start?.lastStep ?? event.step),
        );
      case "epoch": {
        const { row } = event;
        return this.line(
          `epoch ${row.epoch + 1}/${this.#start?.epochs}: loss ${row.train_loss.toFixed(4)}, entropy ${
            row.train_entropy.toFixed(3)
          }, KL ${row.train_kl.toFixed(3)}, ${row.images_per_second.toFixed(1)} images/s, ${
            formatSeconds(row.seconds)
          }`,
        );
      }
      case "knn":
        return this.line(`  ${knnText(event.row)}`);
      case "evaluating":
        return this.#progress(() => `${event.what} ${event.done}/${event.total}`, event.done / event.total);
      case "skipped":
        return this.#showSkipped(event);
      case "notice":
        return this.line(event.message);
      case "warning":
        return this.warn(event.message);
      case "failure":
        return this.#showFailure(event);
      case "report":
        return this.line(`report: ${event.path}`);
    }
  }

  /** A line of its own, above the bar. */
  line(text: string): void {
    if (this.options.quiet || this.options.json) return;
    this.#clear();
    this.#tell(printable(text) + "\n", "out");
    this.#redraw();
  }

  /** A line that is shown whatever was asked for. */
  result(text: string): void {
    if (this.options.json) return;
    this.#clear();
    this.#write(printable(text) + "\n", "out");
  }

  /** A line on stderr. */
  warn(text: string): void {
    this.#clear();
    this.#tell(printable(text) + "\n", "err");
    this.#redraw();
  }

  /** Tells of pictures that take no part. */
  warnOfForeign({ name, foreign }: DataEvent & { readonly type: "found" }): void {
    if (foreign) this.warn(`${name}: left out, because they are not decoded: ${foreign}`);
  }

  /** Takes the bar away. */
  close(): void {
    this.#clear();
    this.#bar = "";
  }

  #showData(event: { readonly source: "data" } & DataEvent): void {
    switch (event.type) {
      case "found":
        this.line(
          `${event.name}: ${counted(event.images, "image")}` +
            (event.classes > 0 ? ` in ${counted(event.classes, "class", "classes")}` : ""),
        );
        return this.warnOfForeign(event);
      case "cache":
        return this.line(
          `decoding into ${event.directory ?? "memory"}: ` +
            (event.shorterSide === null
              ? "at original size"
              : `shorter side ${event.shorterSide} pixels (${event.reason})`) +
            `, about ${formatBytes(event.bytes)}${event.cached > 0 ? `; ${event.cached} are there already` : ""}`,
        );
      case "progress":
        if (event.done === event.total) {
          this.close();
          this.#lastLine = -Infinity;
          return;
        }
        return this.#progress(
          () => `decoding ${event.done}/${event.total}${event.skipped > 0 ? `, ${event.skipped} skipped` : ""}`,
          event.done / event.total,
        );
      case "skipped":
        return this.#showSkipped(event);
    }
  }

  /** Whoever decodes and whoever trains both tell of an image that is left out. */
  #showSkipped({ id, reason }: { readonly id: string; readonly reason: string }): void {
    if (this.#skipped.has(id)) return;
    this.#skipped.add(id);
    if (this.#skipped.size > MOST_SKIPPED) return;
    if (this.#skipped.size === MOST_SKIPPED) return this.warn("skipped: more images, which are no longer named here");
    this.warn(`skipped ${printableLine(id)}: ${reason}`);
  }

  #showStart(event: StartEvent): void {
    const { parameters: { backbone, head } } = event;
    this.line(
      counted(event.images, "image") +
        (event.classes > 0 ? ` in ${counted(event.classes, "class", "classes")}` : "") +
        `, ${counted(event.epochs, "epoch")} of ${counted(event.stepsPerEpoch, "update")} of ` +
        `${counted(event.batchSize, "image")}; ` +
        `${millions(backbone)} parameters and a head of ${millions(head)} with ${event.outDim} prototypes ` +
        `(ln K = ${Math.log(event.outDim).toFixed(2)}); crops of ${event.globalCropSize} and ${event.localCropSize}; ` +
        `a checkpoint takes ${formatBytes(event.checkpointBytes)}`,
    );
    const { resumedAt, lastStep } = event;
    if (resumedAt >= lastStep) this.line(`update ${resumedAt} of ${lastStep} is made already: nothing is left to do`);
    else if (resumedAt > 0) this.line(`going on after update ${resumedAt} of ${lastStep}`);
  }

  /** What a narrow terminal has no room for goes, the least important first: how long it takes stays. */
  #stepText(event: StepEvent, width: number): string {
    const { epochs, lastStep } = this.#start ?? { epochs: 0, lastStep: 0 };
    const parts: [text: string, importance: number][] = [
      [`epoch ${event.epoch + 1}/${epochs}`, 5],
      [`update ${event.step}/${lastStep}`, 4],
      [`${event.imagesPerSecond.toFixed(event.imagesPerSecond < 100 ? 1 : 0)} img/s`, 3],
      [`loss ${event.loss.toFixed(3)}`, 6],
      [`H ${event.entropy.toFixed(3)}`, 2],
      [`KL ${event.kl.toFixed(3)}`, 1],
      [`lr ${event.lr.toExponential(2)}`, 0],
      [`${formatSeconds(event.secondsLeft)} left`, 7],
    ];
    for (let least = 0;; least++) {
      const text = parts.filter(([, importance]) => importance >= least).map(([part]) => part).join(" ");
      if (text.length < width || least === parts.length - 1) return text;
    }
  }

  #progress(text: (width: number) => string, fraction: number): void {
    if (this.options.quiet) return;
    if (this.#terminal) {
      this.#clear();
      const width = (this.options.columns ?? columns)();
      this.#bar = fitBar(text(width), fraction, width);
      this.#redraw();
    } else if (performance.now() - this.#lastLine > LINE_SECONDS * 1000) {
      this.#lastLine = performance.now();
      this.#tell(text(Infinity) + "\n", "out");
    }
  }

  #showFailure(event: ComputeEvent & { type: "failure" | "warning" }): void {
    if (event.type === "warning") return this.warn(event.message);
    const { stack } = event.failure;
    const message = `${this.options.command ? `${this.options.command}: ` : ""}${event.failure.message}`;
    this.warn(stack ? `${message}\n${stack.split("\n").slice(1).join("\n")}` : message);
  }

  /** Writes news, on which nothing depends: a run of days goes on though the disk that its log is sent to is full. */
  #tell(text: string, to: "out" | "err"): void {
    try {
      this.#write(text, to);
    } catch { /* a result that cannot be written is an error, news is not */ }
  }

  #clear(): void {
    if (this.#bar !== "") this.#tell("\r\x1b[2K", "out");
  }

  #redraw(): void {
    if (this.#bar !== "") this.#tell(this.#bar, "out");
  }
}

/** `teacher after 3 epochs: k-NN top-1 47.2 % (k = 20), top-5 88.1 %` */
export function knnText({ network, epochs, accuracies }: KnnRow): string {
  const subject = network === "pixels"
    ? "raw pixels"
    : epochs === 0
    ? `untrained ${network}`
    : `${network} after ${Number(epochs.toFixed(2))} epoch${epochs === 1 ? "" : "s"}`;
  const [{ k, top1, top5 }] = accuracies;
  return `${subject}: k-NN top-1 ${top1.toFixed(1)} %, top-5 ${top5.toFixed(1)} % (k = ${k})`;
}

/** A bar and its words in one line of a terminal. */
export function fitBar(text: string, fraction: number, width: number): string {
  const room = Math.min(30, width - text.length - 7);
  if (room < 6) return text.slice(0, Math.max(0, width - 1));
  const full = Math.round(Math.max(0, Math.min(1, fraction)) * room);
  return `${"━".repeat(full)}${"─".repeat(room - full)} ${(fraction * 100).toFixed(0).padStart(3)}% ${text}`;
}

function counted(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`;
}

function millions(count: number): string {
  return count < 1e5 ? String(count) : `${(count / 1e6).toFixed(count < 1e7 ? 2 : 1)} M`;
}

function columns(): number {
  try {
    return Deno.consoleSize().columns;
  } catch {
    return 100;
  }
}

function writeStandard(text: string, to: "out" | "err"): void {
  const bytes = new TextEncoder().encode(text);
  const stream = to === "out" ? Deno.stdout : Deno.stderr;
  try {
    for (let done = 0; done < bytes.length;) done += stream.writeSync(bytes.subarray(done));
  } catch (error) {
    // Whoever read along has left, as `head` does, or the terminal is closed: a run of days goes on without an audience.
    if (!(error instanceof Deno.errors.BrokenPipe) && (error as { code?: string }).code !== "EIO") throw error;
  }
}
