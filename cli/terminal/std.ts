// What the command line takes from Deno's standard library, with types: its npm package carries none.
import { format as bytes } from "npm:deno-std@1.4.0/fmt/bytes.js";
import { format as duration } from "npm:deno-std@1.4.0/fmt/duration.js";

/** `86662656` -> `86.66 MB`. */
export const formatBytes = (count: number): string => bytes(count, { maximumFractionDigits: 2 });

/** `3725` -> `1h 2m 5s`. @param seconds rounded to whole ones */
export function formatSeconds(seconds: number): string {
  if (!Number.isFinite(seconds)) return "?";
  return seconds < 1 ? "0s" : duration(Math.round(seconds) * 1000, { ignoreZero: true });
}
