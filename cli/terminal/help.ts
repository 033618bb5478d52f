// --help, laid out from the tables of fields.

import { boundsOf, type Field, flagOf } from "../../dino/config/field.ts";
import type { FlagGroup } from "./flags.ts";

/** What --help says besides the flags. */
export interface HelpText {
  /** `dino train [flags]` */
  readonly usage: string;
  readonly about: string;
  readonly groups: readonly FlagGroup[];
  /** Paragraphs after the flags. */
  readonly after?: readonly string[];
}

const NAME_WIDTH = 34;

/** The text of --help. @param columns of the terminal */
export function helpText({ usage, about, groups, after = [] }: HelpText, columns = terminalColumns()): string {
  const width = Math.max(60, Math.min(columns, 120));
  const parts = [`Usage: ${usage}`, ...wrap(about, width)];
  for (const { title, fields } of groups) {
    parts.push("", `${title}:`);
    for (const [key, field] of Object.entries(fields)) parts.push(...describe(key, field, width));
  }
  for (const paragraph of after) parts.push("", ...paragraph.split("\n").flatMap((line) => wrapIndented(line, width)));
  return parts.join("\n") + "\n";
}

function describe(key: string, field: Field, width: number): string[] {
  const name = `  --${flagOf(key)}${placeholder(field)}`;
  const facts: string[] = [];
  if (field.kind === "choice") facts.push(field.choices!.join(" | "));
  const bounds = boundsOf(field);
  if (bounds) facts.push(bounds);
  if (field.kind === "boolean" ? field.default === true : field.default !== null) {
    facts.push(`default ${defaultOf(field)}`);
  }
  if (field.aliases.length > 0) facts.push(`also ${field.aliases.map((alias) => `--${alias}`).join(", ")}`);
  const lines = wrap(`${field.advice}${facts.length > 0 ? ` [${facts.join("; ")}]` : ""}`, width - NAME_WIDTH);
  const padded = lines.map((line) => " ".repeat(NAME_WIDTH) + line);
  if (name.length < NAME_WIDTH - 1) padded[0] = name.padEnd(NAME_WIDTH) + lines[0];
  else padded.unshift(name);
  return padded;
}

function placeholder(field: Field): string {
  switch (field.kind) {
    case "boolean":
      return "";
    case "choice":
      return " NAME";
    case "text":
      return " TEXT";
    case "numbers":
      return " N".repeat((field.default as readonly number[]).length);
    case "integers":
      return " N…";
    default:
      return ` ${field.unit?.toUpperCase() ?? "N"}`;
  }
}

function defaultOf(field: Field): string {
  const value = field.default;
  if (Array.isArray(value)) return value.map((each) => Number(each.toPrecision(4))).join(" ");
  return String(value);
}

function terminalColumns(): number {
  try {
    return Deno.consoleSize().columns;
  } catch {
    return 100; // not a terminal
  }
}

/** Keeps a line's indentation; what does not fit goes on below it, further in. */
function wrapIndented(line: string, width: number): string[] {
  const [indent] = /^ */.exec(line)!;
  return wrap(line.slice(indent.length), width - indent.length - 2)
    .map((part, i) => indent + (i > 0 && indent !== "" ? "  " : "") + part);
}

function wrap(text: string, width: number): string[] {
  const lines = [""];
  for (const word of text.split(" ")) {
    const line = lines[lines.length - 1];
    if (line !== "" && line.length + 1 + word.length > width) lines.push(word);
    else lines[lines.length - 1] = line === "" ? word : `${line} ${word}`;
  }
  return lines;
}
