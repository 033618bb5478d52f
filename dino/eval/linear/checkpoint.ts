// Linear classifiers on disk: weights that others can use, and what a stopped probe needs to go on.

import {
  openFileSourceIfAny,
  readFloats,
  readSafetensorsHeader,
  type TensorToWrite,
  writeSafetensors,
} from "../../../models/weights/safetensors.ts";
import type { LinearProbeOptions, LinearWeights } from "./linear.ts";

/** A probe between two epochs. */
export interface ProbeState {
  readonly weights: readonly LinearWeights[];
  readonly momenta: readonly LinearWeights[];
  readonly steps: number;
  readonly epochs: number;
  /** Best top-1 so far of each classifier, in percent. */
  readonly best: readonly number[];
  /** Of everything else that must not change: images, backbone, crops, features. */
  readonly fingerprint: string;
}

const FORMAT = "denodino linear probe";

/**
 * Writes a probe. Classifier i is `i.linear.weight` and `i.linear.bias`; the first is `linear.weight` and `linear.bias`
 * too, which is what the reference's classifiers are called.
 */
export async function writeProbe(
  path: string,
  options: LinearProbeOptions,
  state: ProbeState,
  classNames?: readonly string[],
): Promise<void> {
  const { classes, dim } = options;
  const tensors: TensorToWrite[] = [];
  const add = (prefix: string, { weight, bias }: LinearWeights) => {
    const bytes = (a: Float32Array) => new Uint8Array(a.buffer, a.byteOffset, a.byteLength);
    tensors.push({ name: `${prefix}linear.weight`, dtype: "F32", shape: [classes, dim], bytes: () => bytes(weight) });
    tensors.push({ name: `${prefix}linear.bias`, dtype: "F32", shape: [classes], bytes: () => bytes(bias) });
  };
  add("", state.weights[state.best.indexOf(Math.max(...state.best))]);
  state.weights.forEach((each, i) => add(`${i}.`, each));
  state.momenta.forEach((each, i) => add(`momentum.${i}.`, each));
  const { steps, epochs, best, fingerprint } = state;
  const metadata: Record<string, string> = {
    format: FORMAT,
    state: JSON.stringify({ steps, epochs, best, fingerprint, options }),
  };
  if (classNames) metadata.classNames = JSON.stringify(classNames);
  await writeSafetensors(path, tensors, metadata);
}

/**
 * Reads a probe to go on with; undefined if there is no such file.
 *
 * @throws {RangeError} if it was trained on something else or otherwise
 * @throws {SyntaxError} if the file is damaged or no probe
 */
export async function readProbe(
  path: string,
  options: LinearProbeOptions,
  fingerprint: string,
): Promise<ProbeState | undefined> {
  const source = await openFileSourceIfAny(path);
  if (!source) return undefined;
  try {
    const { metadata, tensors } = await readSafetensorsHeader(source);
    if (metadata.format !== FORMAT) throw new SyntaxError(`${path}: holds no linear probe: name another --out`);
    const kept = JSON.parse(metadata.state);
    if (kept.fingerprint !== fingerprint || JSON.stringify(kept.options) !== JSON.stringify(options)) {
      throw new RangeError(
        `${path}: holds classifiers of other weights, images or hyperparameters: name another --out, or remove it`,
      );
    }
    const read = async (prefix: string): Promise<LinearWeights> => {
      const part = async (name: string) => {
        const record = tensors.get(`${prefix}linear.${name}`);
        if (!record) throw new SyntaxError(`${path}: ${prefix}linear.${name} is missing`);
        return await readFloats(source, record);
      };
      return { weight: await part("weight"), bias: await part("bias") };
    };
    const each = async (prefix: string) =>
      await Promise.all(options.learningRates.map((_, i) => read(`${prefix}${i}.`)));
    const { steps, epochs, best } = kept;
    return { weights: await each(""), momenta: await each("momentum."), steps, epochs, best, fingerprint };
  } finally {
    source.close!();
  }
}
