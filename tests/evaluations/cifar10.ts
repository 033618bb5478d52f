// CIFAR-10: a small ViT learns without labels; k-NN, linear probe and fine-tuning against its untrained self and raw pixels.
//
//   deno run -A tests/evaluations/cifar10.ts CIFAR OUT [PICTURES]
//
// CIFAR: the folder of the binary version, https://www.cs.toronto.edu/~kriz/cifar.html.

import { join } from "node:path";
import { dino, type Printed, trainOnce, writeUntrained } from "./dino.ts";

const TRAINING = [
  ..."--limit 20000 --patch-size 8 --embed-dim 96 --depth 4 --num-heads 3 --init-std 0.1 --drop-path-rate 0".split(" "),
  ..."--out-dim 1024 --head-hidden-dim 256 --head-bottleneck-dim 64 --use-bn-in-head --freeze-last-layer 0".split(" "),
  ..."--epochs 8 --batch-size 32 --warmup-epochs 1 --lr 0.016 --weight-decay-end 0.04 --momentum-teacher 0.99".split(
    " ",
  ),
  ..."--local-crops-number 4 --local-crop-size 16 --local-crops-scale 0.1 0.5".split(" "),
  ..."--blur-prob-global1 0 --blur-prob-global2 0 --blur-prob-local 0 --knn-every 0".split(" "),
];

/** Images with labels for the probe and for fine-tuning. */
const LABELLED = "10000";

if (import.meta.main) {
  const [cifar, out, pictures] = Deno.args;
  if (out === undefined) throw new RangeError("wants CIFAR OUT: see the head of this file");
  const run = await trainOnce(join(out, "run"), "--data", cifar, ...TRAINING);
  const untrained = await writeUntrained(run, join(out, "untrained.safetensors"));
  const halves = ["--data", cifar, "--val", cifar];
  const table: Record<string, Record<string, number>> = {};
  for (const [name, weights] of [["trained", run], ["untrained", untrained]] as const) {
    const knn: Printed = await dino(
      "knn",
      weights,
      ...halves,
      "--nb-knn",
      "20",
      ...name === "trained" ? ["--pixels"] : [],
    );
    table[name] = { "k-NN": accuracy(knn, "teacher") };
    if (name === "trained") table["raw pixels"] = { "k-NN": accuracy(knn, "pixels") };
    const probe: Printed = await dino(
      ...[
        "linear",
        weights,
        ...halves,
        "--limit",
        LABELLED,
        "--no-augment",
        "--epochs",
        "60",
        "--lr",
        "0.01,0.03,0.1,0.3",
      ],
      ...["--out", join(out, `probe_${name}.safetensors`)],
    );
    table[name].linear = Math.max(...probe.scores.map(({ top1 }: { top1: number }) => top1));
    const tuned: Printed = await dino(
      ...[
        "finetune",
        weights,
        ...halves,
        "--limit",
        LABELLED,
        "--epochs",
        "20",
        "--lr",
        "0.004",
        "--rand-augment",
        "0",
      ],
      ...["--mixup", "0", "--cutmix", "0.5", "--erasing", "0", "--drop-path", "0"],
      ...["--out", join(out, `tuned_${name}.safetensors`)],
    );
    table[name]["fine-tuned"] = tuned.top1;
  }
  console.table(table);
  await Deno.writeTextFile(join(out, "scores.json"), JSON.stringify(table, null, 2));
  if (pictures !== undefined) {
    await dino("map", run, "--data", cifar, "--limit", "1000", "--out", join(out, "map.html"));
  }
}

function accuracy(printed: Printed, network: string): number {
  const found = [printed.results ?? printed].flat().find((each: Printed) => each.network === network);
  return found.accuracies[0].top1;
}
