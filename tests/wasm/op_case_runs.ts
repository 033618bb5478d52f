// Runs every operation case on a CPU backend inside red zones; as a program, prints what went wrong as JSON.
import type { Backend } from "../../models/graph/backend.ts";
import { ReferenceBackend } from "../../models/graph/reference.ts";
import { openWasm } from "../../wasm/mod.ts";
import type { TileShape } from "../../wasm/micro_kernels.ts";
import { type OpCase, opCases } from "../models/graph/op_cases.ts";

/** Bytes before and after every buffer: more than any vector or tile reaches over. */
const RED_ZONE = 4096;

/** Outputs of a case, as bytes of their elements. */
export async function outputsOf(backend: Backend, test: OpCase): Promise<Float64Array[]> {
  for (const [t, data] of test.inputs) backend.write(t, data);
  const executable = await backend.compile(test.program);
  await executable.run();
  const results: Float64Array[] = [];
  for (const t of test.outputs) results.push(Float64Array.from(await backend.read(t)));
  executable.dispose();
  backend.free(...test.inputs.map(([t]) => t), ...test.outputs);
  return results;
}

/** What the cases should give: the same for every tile, and what takes longest. */
let truths: Promise<Float64Array[][]> | undefined;

async function truthOf(cases: readonly OpCase[]): Promise<Float64Array[][]> {
  const outputs: Float64Array[][] = [];
  for (const test of cases) outputs.push(await outputsOf(new ReferenceBackend(), test));
  return outputs;
}

/** Names of the cases that are wrong, with what is wrong. */
export async function failuresOf(options: { threads: number; tile?: TileShape }): Promise<string[]> {
  const failures: string[] = [];
  const backend = await openWasm({ ...options, redZone: RED_ZONE });
  try {
    const cases = opCases();
    for (const [n, truth] of (await (truths ??= truthOf(cases))).entries()) {
      const test = cases[n];
      const got = await outputsOf(backend, test).catch((error: Error) => error);
      if (got instanceof Error) failures.push(`${test.name}: ${got.message}`);
      else {
        got.forEach((values, i) => {
          const error = relativeError(values, truth[i]);
          if (!(error <= test.tolerance)) failures.push(`${test.name}: ${test.outputs[i].name} off by ${error}`);
        });
      }
    }
  } finally {
    await backend.close();
  }
  return failures;
}

/** Largest |got − truth| / max(1, max |truth|); infinite when an element is not a number. */
function relativeError(got: Float64Array, truth: Float64Array): number {
  let error = 0, largest = 1;
  for (let i = 0; i < truth.length; i++) {
    largest = Math.max(largest, Math.abs(truth[i]));
    const difference = Math.abs(got[i] - truth[i]);
    if (!(difference <= error)) error = Number.isNaN(difference) ? Infinity : difference;
  }
  return error / largest;
}

/** SHA-256 of the outputs of all cases, in hexadecimal: equal only when every bit is. */
export async function digestOf(threads: number): Promise<string> {
  const backend = await openWasm({ threads });
  const outputs: Float64Array[] = [];
  for (const test of opCases()) outputs.push(...await outputsOf(backend, test));
  await backend.close();
  const hash = await crypto.subtle.digest("SHA-256", await new Blob(outputs as BlobPart[]).arrayBuffer());
  return new Uint8Array(hash).toHex();
}

if (import.meta.main) {
  console.log(JSON.stringify({ digest: await digestOf(2), failures: await failuresOf({ threads: 2 }) }));
}
