// The report of a run folder, from its configuration and its log.

import { join } from "node:path";
import { type Config, configFields } from "../../dino/config.ts";
import type { LogRow, StepRow } from "../../dino/run/events.ts";
import { flagOf } from "../../dino/config/field.ts";
import { writeTextAtomically } from "../../models/weights/atomic_file.ts";
import { formatSeconds } from "../terminal/std.ts";
import { type Chart, renderPage, type ReportPage } from "./page.ts";

/** What the folder does not know of itself. */
export interface ReportExtras {
  readonly contactSheet?: ReportPage["contactSheet"];
  /** `SIMD, 2 threads, turbo`. */
  readonly backend?: string;
  readonly version: string;
}

/** How often a page of a run that goes on is loaded again. */
const RELOAD_SECONDS = 20;
/** Skipped images that are listed; the log has them all. */
const MOST_SKIPPED = 500;

/** Points a chart shows: more are averaged, and nobody sees more. */
const MOST_POINTS = 600;

/** Writes `report.html` into a run folder; a reader never sees half of one. */
export async function writeRunReport(folder: string, extras: ReportExtras): Promise<string> {
  const record = JSON.parse(await Deno.readTextFile(join(folder, "config.json"))) as {
    config: Config;
    data: { name: string; images: number };
  };
  const log = await Deno.readTextFile(join(folder, "log.jsonl")).catch(() => "");
  const path = join(folder, "report.html");
  await writeTextAtomically(path, renderPage(reportOf(folder, record, parseLog(log), extras)));
  return path;
}

/** Rows of a log; a last line that was not finished is left out. */
export function parseLog(text: string): LogRow[] {
  const rows: LogRow[] = [];
  for (const line of text.split("\n")) {
    if (line.trim() === "") continue;
    try {
      rows.push(JSON.parse(line));
    } catch {
      break; // the writer was killed here
    }
  }
  return rows;
}

/** What the page says of a run. */
export function reportOf(
  folder: string,
  { config, data }: { config: Config; data: { name: string; images: number } },
  rows: readonly LogRow[],
  extras: ReportExtras,
): ReportPage {
  const ofKind = <K extends LogRow["kind"]>(kind: K) =>
    rows.filter((row) => row.kind === kind) as (LogRow & { kind: K })[];
  const epochs = ofKind("epoch"), steps = thin(ofKind("step")), knn = ofKind("knn");
  const skipped = ofKind("skipped"), end = ofKind("end").at(-1);
  const last = epochs.at(-1);
  const lastKnn = knn.filter(({ network }) => network === "teacher").at(-1);
  const updates = Math.max(last?.step ?? 0, ofKind("step").at(-1)?.step ?? 0, end?.step ?? 0);
  const lnK = Math.log(config.outDim);
  const figures = [
    { name: "epochs", value: `${last ? last.epoch + 1 : 0} of ${config.epochs}` },
    { name: "updates", value: String(updates) },
    ...last
      ? [
        { name: "loss", value: last.train_loss.toFixed(3) },
        { name: "teacher entropy", value: `${last.train_entropy.toFixed(2)} of ${lnK.toFixed(2)}` },
        { name: "images/s", value: last.images_per_second.toPrecision(4) },
        { name: "time", value: formatSeconds(epochs.reduce((sum, { seconds }) => sum + seconds, 0)) },
      ]
      : [],
    ...lastKnn
      ? [{ name: `k-NN top-1, k = ${lastKnn.accuracies[0].k}`, value: `${lastKnn.accuracies[0].top1.toFixed(1)} %` }]
      : [],
  ];
  const notices = ofKind("warning").slice(-3).map(({ message }) => message);
  if (end?.reason === "non-finite" && end.message) notices.push(end.message);
  if (skipped.length > 0) {
    notices.push(
      skipped.length === 1
        ? "1 image could not be read and was skipped."
        : `${skipped.length} images could not be read and were skipped.`,
    );
  }
  return {
    title: `DINO ${config.arch.replace("vit_", "ViT-")}${
      /^(vit|deit)_/.test(config.arch) ? `/${config.patchSize}` : ""
    } · ${folder.split(/[\\/]/).filter(Boolean).at(-1)}`,
    subtitle: `${data.name}: ${data.images} images${extras.backend ? ` · ${extras.backend}` : ""}` +
      (end ? ` · ${ENDINGS[end.reason]}` : ""),
    notices,
    figures,
    charts: charts(config, lnK, steps, epochs, knn),
    contactSheet: extras.contactSheet,
    reloadSeconds: end ? undefined : RELOAD_SECONDS,
    tables: [
      {
        title: "Configuration",
        rows: Object.keys(configFields).map((key) => [flagOf(key), show(config[key as keyof Config])]),
      },
      ...skipped.length > 0
        ? [{
          title: skipped.length > MOST_SKIPPED
            ? `Skipped images: the first ${MOST_SKIPPED} of ${skipped.length}, all of them are in log.jsonl`
            : "Skipped images",
          rows: skipped.slice(0, MOST_SKIPPED).map(({ id, reason }) => [id, reason] as [string, string]),
        }]
        : [],
    ],
    footer: `denodino ${extras.version}`,
  };
}

const ENDINGS = {
  finished: "finished",
  steps: "stopped after the updates asked for",
  interrupted: "interrupted",
  "non-finite": "stopped by a loss that is not finite",
};

function charts(
  config: Config,
  lnK: number,
  steps: readonly StepRow[],
  epochs: readonly (LogRow & { kind: "epoch" })[],
  knn: readonly (LogRow & { kind: "knn" })[],
): Chart[] {
  const x = steps.map(({ step }) => step);
  const column = (label: string, value: (row: StepRow) => number) => ({ label, values: steps.map(value) });
  const overSteps = (title: string, note: string, series: Chart["series"]): Chart => (
    { title, note, xLabel: "update", x, series }
  );
  const networks = ["teacher", "student"] as const;
  const evaluated = [...new Set(knn.filter(({ network }) => network !== "pixels").map(({ epochs }) => epochs))]
    .sort((a, b) => a - b);
  const top1 = (network: string, at: number) =>
    knn.find((row) => row.network === network && row.epochs === at)?.accuracies[0].top1 ?? null;
  const pixels = knn.find(({ network }) => network === "pixels")?.accuracies[0].top1;
  return [
    overSteps("Loss", "Cross-entropy between teacher and student; it may rise while features improve.", [
      column("loss", (row) => row.loss),
    ]),
    overSteps(
      "Entropy and KL",
      "Collapse shows here: entropy at ln K is a uniform teacher, entropy at 0 a constant one, KL at 0 either.",
      [
        column("teacher entropy", (row) => row.entropy),
        column("KL", (row) => row.kl),
        { ...column("ln K", () => lnK), limit: true },
      ],
    ),
    {
      title: "k-NN",
      note: `Held-out images classified by their nearest neighbours, k = ${
        knn[0]?.accuracies[0].k ?? "?"
      }; top-1 in percent.`,
      xLabel: "epoch",
      x: evaluated,
      series: [
        ...networks.map((network) => ({ label: network, values: evaluated.map((at) => top1(network, at)) })),
        ...pixels === undefined ? [] : [{ label: "raw pixels", values: evaluated.map(() => pixels), limit: true }],
      ],
    },
    overSteps("Learning rate", "Linear warm-up, then cosine.", [column("learning rate", (row) => row.lr)]),
    overSteps("Weight decay", "Cosine.", [column("weight decay", (row) => row.weight_decay)]),
    overSteps("Teacher momentum", "Share of the old teacher in the new one; a cosine.", [
      column("momentum", (row) => row.momentum),
    ]),
    overSteps("Teacher temperature", "Lower is sharper; above 0.07 training tends to collapse.", [
      column("temperature", (row) => row.teacher_temp),
      { ...column("student temperature", () => config.studentTemp), limit: true },
    ]),
    {
      title: "Images per second",
      note: "Mean of each epoch, evaluations not counted.",
      xLabel: "epoch",
      x: epochs.map(({ epoch }) => epoch + 1),
      series: [{ label: "images/s", values: epochs.map((row) => row.images_per_second) }],
    },
  ];
}

/** Means of neighbours, so that no more rows are left than a chart can show. */
function thin(rows: readonly StepRow[]): StepRow[] {
  const group = Math.ceil(rows.length / MOST_POINTS);
  if (group <= 1) return [...rows];
  const thinned: StepRow[] = [];
  for (let i = 0; i < rows.length; i += group) {
    const part = rows.slice(i, i + group), last = part[part.length - 1];
    const mean = (key: "loss" | "entropy" | "kl") => part.reduce((sum, row) => sum + row[key], 0) / part.length;
    thinned.push({ ...last, loss: mean("loss"), entropy: mean("entropy"), kl: mean("kl") });
  }
  return thinned;
}

function show(value: unknown): string {
  if (Array.isArray(value)) {
    return value.map((each) => typeof each === "number" ? Number(each.toPrecision(6)) : each).join(" ");
  }
  return value === null ? "–" : String(value);
}
