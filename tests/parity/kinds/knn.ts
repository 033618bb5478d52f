// Kind knn: the weighted vote, with similarities and neighbours from the backend.
import type { Backend } from "../../../models/graph/backend.ts";
import { l2Normalize } from "../../../models/graph/ops/norm.ts";
import { matmul } from "../../../models/graph/ops/matmul.ts";
import { topK } from "../../../models/graph/ops/neighbours.ts";
import { Program } from "../../../models/graph/program.ts";
import { knnAccuracy, knnPredictions, voteKnn } from "../../../dino/eval/knn/knn.ts";
import type { GoldenCase } from "../golden_case.ts";
import { input, output, runOnce } from "../run_program.ts";

export async function knn(golden: GoldenCase, backend: Backend) {
  const { ks, temperature, num_classes, n_train } = golden.config;
  const train = input(backend, "train", golden.shape("train_features"), golden.floats("train_features"));
  const test = input(backend, "test", golden.shape("test_features"), golden.floats("test_features"));
  const p = new Program("knn");
  const bank = l2Normalize(p, train);
  const normalized = output(p, bank);
  const { values, indices } = topK(
    p,
    matmul(p, l2Normalize(p, test), bank, { transB: true }),
    Math.min(Math.max(...ks), n_train),
  );
  await runOnce(backend, p);
  golden.compare("output.train_normalized", await backend.read(normalized));
  const neighbours = {
    k: values.shape[1],
    similarities: await backend.read(values) as Float32Array,
    indices: await backend.read(indices) as Int32Array,
  };
  const trainLabels = golden.data("train_labels"), testLabels = golden.data("test_labels");
  for (const k of ks as number[]) {
    const scores = voteKnn(neighbours, trainLabels, num_classes, Math.min(k, n_train), temperature);
    golden.compare(`output.k${k}.scores`, scores);
    golden.compare(`output.k${k}.pred`, knnPredictions(scores, num_classes));
    const { top1, top5, top5Stable } = knnAccuracy(scores, testLabels, num_classes, k);
    golden.compareScalar(`k${k}.top1`, top1);
    golden.compareScalar(`k${k}.top5_positive_only`, top5);
    golden.compareScalar(`k${k}.top5_stable`, top5Stable);
    // What the reference's unstable sort made of classes without votes: the notes of the case say which of ours it equals.
    golden.compareScalar(`k${k}.top5_reference_num_classes_1000`, top5);
    golden.compareScalar(`k${k}.top5_reference_num_classes_${num_classes}`, top5Stable);
  }
}
