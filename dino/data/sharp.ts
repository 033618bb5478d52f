// Loads sharp: its native library where there is one, else its WebAssembly build, which also works inside a compiled binary.

import Module from "node:module";
import process from "node:process";
import { fileURLToPath } from "node:url";
// Only to bring the package into the module graph: the binding itself cannot be imported, only required.
import "npm:@img/sharp-wasm32@0.35.5/versions" with { type: "json" };

/** What is known about an image from its header. */
export interface SharpMetadata {
  format?: string;
  width: number;
  height: number;
  channels?: number;
  hasAlpha?: boolean;
  orientation?: number;
  pages?: number;
}

/** Raw pixels as sharp hands them out. */
export interface SharpRaw {
  data: Uint8Array<ArrayBuffer>;
  info: { width: number; height: number; channels: number };
}

/** The part of a sharp pipeline used here. */
export interface SharpPipeline {
  metadata(): Promise<SharpMetadata>;
  autoOrient(): SharpPipeline;
  resize(options: Record<string, unknown>): SharpPipeline;
  removeAlpha(): SharpPipeline;
  toColourspace(space: string): SharpPipeline;
  raw(options?: { depth?: string }): SharpPipeline;
  timeout(options: { seconds: number }): SharpPipeline;
  withMetadata(options: { orientation?: number }): SharpPipeline;
  jpeg(options?: Record<string, unknown>): SharpPipeline;
  png(options?: Record<string, unknown>): SharpPipeline;
  webp(options?: Record<string, unknown>): SharpPipeline;
  gif(options?: Record<string, unknown>): SharpPipeline;
  tiff(options?: Record<string, unknown>): SharpPipeline;
  toBuffer(): Promise<Uint8Array<ArrayBuffer>>;
  toBuffer(options: { resolveWithObject: true }): Promise<SharpRaw>;
}

/** sharp itself: opens bytes or raw pixels as a pipeline. */
export interface Sharp {
  (input: Uint8Array | Record<string, unknown>, options?: Record<string, unknown>): SharpPipeline;
  cache(enabled: boolean): unknown;
  concurrency(threads?: number): number;
  versions: Record<string, string>;
}

/** Which build of sharp: "auto" prefers the native one. */
export type SharpBuild = "auto" | "native" | "wasm";

let loaded: Promise<Sharp> | undefined;

/**
 * Loads sharp once; later calls return the same.
 *
 * @param build default: the variable DENODINO_SHARP where it may be read, else "auto"
 * @throws {Error} if the build asked for cannot be loaded here
 */
export function loadSharp(build?: SharpBuild): Promise<Sharp> {
  return loaded ??= load(build ?? requestedBuild());
}

/** Whether the WebAssembly build of sharp is the one loaded. */
export const isWasmSharp = (sharp: Sharp): boolean => sharp.versions.emscripten !== undefined;

function requestedBuild(): SharpBuild {
  if (Deno.permissions.querySync({ name: "env", variable: "DENODINO_SHARP" }).state !== "granted") return "auto";
  const value = Deno.env.get("DENODINO_SHARP") || "auto";
  if (value === "auto" || value === "native" || value === "wasm") return value;
  throw new RangeError(`DENODINO_SHARP is ${JSON.stringify(value)}: use auto, native or wasm`);
}

async function load(build: SharpBuild): Promise<Sharp> {
  // A binary cannot load the native library: its shared objects are not found from there.
  const wasm = build === "wasm" || (build === "auto" && Deno.build.standalone);
  const restore = wasm ? answerBindingsWithWasm() : () => {};
  const restoreWarnings = silenceDeprecations();
  try {
    const module = await import("npm:sharp@0.35.5");
    const sharp = module.default as unknown as Sharp;
    if (build === "native" && isWasmSharp(sharp)) {
      throw new Error("sharp: no native library loads on this machine: use DENODINO_SHARP=wasm or auto");
    }
    sharp.cache(false); // an image is decoded once
    return sharp;
  } finally {
    restoreWarnings();
    restore();
  }
}

/** sharp asks for the binding of its platform by name; for the time of loading, every such name means the wasm one. */
function answerBindingsWithWasm(): () => void {
  const binding = fileURLToPath(import.meta.resolve("npm:@img/sharp-wasm32@0.35.5/sharp.node"));
  const loader = Module as unknown as { _resolveFilename(this: unknown, request: string, ...rest: unknown[]): string };
  const original = loader._resolveFilename;
  loader._resolveFilename = function (request, ...rest) {
    return /^@img\/sharp-.*\/sharp\.node$/.test(request) ? binding : original.call(this, request, ...rest);
  };
  return () => loader._resolveFilename = original;
}

/** The wasm build assigns an object to process.env while it starts (DEP0104): true, and nothing a user can act on. */
function silenceDeprecations(): () => void {
  const flags = process as unknown as { noDeprecation?: boolean };
  const before = flags.noDeprecation;
  flags.noDeprecation = true;
  return () => flags.noDeprecation = before;
}
