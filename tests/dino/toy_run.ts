// A run small enough for the float64 reference backend: thirty images of 10 pixels, a transformer of width 8.

import { type Config, defaultConfig } from "../../dino/config.ts";
import type { PixelSource } from "../../dino/data/dataset.ts";
import { pixelsFromMemory } from "../../dino/data/memory.ts";
import { train, type TrainOptions, type TrainResult } from "../../dino/train.ts";
import type { TrainEvent } from "../../dino/run/events.ts";
import { RoundingBackend } from "./rounding_backend.ts";
import { CounterRandom, STREAM } from "../../models/rng.ts";

/** Noise around one of three colours, the image's class. */
export function toyPixels(count = 30, side = 10): PixelSource {
  const random = new CounterRandom(7, STREAM.evaluation);
  const labels = Int32Array.from({ length: count }, (_, i) => i % 3);
  const data = new Uint8Array(count * side * side * 3);
  for (let i = 0; i < data.length; i++) {
    const image = Math.floor(i / (side * side * 3));
    data[i] = (i % 3 === labels[image] ? 150 : 50) + random.integer(80);
  }
  return pixelsFromMemory({ name: "toy", height: side, width: side, channels: 3, data, labels });
}

/** Three epochs of seven updates. */
export function toyConfig(changes: Partial<Config> = {}): Config {
  return {
    ...defaultConfig(),
    patchSize: 4,
    embedDim: 8,
    depth: 2,
    numHeads: 2,
    mlpRatio: 2,
    outDim: 12,
    headHiddenDim: 8,
    headBottleneckDim: 4,
    dropPathRate: 0.2,
    globalCropSize: 8,
    localCropSize: 4,
    localCropsNumber: 1,
    epochs: 3,
    batchSize: 4,
    warmupEpochs: 1,
    lr: 0.05,
    nbKnn: [3, 50],
    logEvery: 3,
    ...changes,
  };
}

/** Everything a run told, and how it ended. */
export interface ToyRun {
  readonly result: TrainResult;
  readonly events: TrainEvent[];
  readonly backend: RoundingBackend;
}

/** Rows of a run's log without what may differ between two runs: time, throughput and memory. */
export async function comparableLog(out: string): Promise<Record<string, unknown>[]> {
  const lines = (await Deno.readTextFile(`${out}/log.jsonl`)).trimEnd().split("\n");
  return lines.map((line) => {
    const { seconds: _s, images_per_second: _i, memory_bytes: _m, ...row } = JSON.parse(line);
    return row;
  });
}

/** Trains on the reference backend. */
export async function trainToy(config: Config, options: Partial<TrainOptions> = {}): Promise<ToyRun> {
  const backend = new RoundingBackend();
  const events: TrainEvent[] = [];
  const result = await train(config, {
    backend,
    data: toyPixels(),
    ...options,
    onEvent: (event) => {
      events.push(event);
      options.onEvent?.(event);
    },
  });
  return { result, events, backend };
}
