// Kinds retrieval, multi_scale, copy_features and copy_detection.
import type { Backend } from "../../../models/graph/backend.ts";
import { l2Normalize } from "../../../models/graph/ops/norm.ts";
import { matmul } from "../../../models/graph/ops/matmul.ts";
import { patchify } from "../../../models/graph/ops/tokens.ts";
import { Program } from "../../../models/graph/program.ts";
import { clsAndGem, meanOverScales } from "../../../dino/eval/retrieval/descriptors.ts";
import { COPY_DETECTION_DEPTH, copydaysBlock, scoreCopies } from "../../../dino/eval/retrieval/copy_detection.ts";
import { deviceSearch } from "../../../dino/eval/knn/device_neighbours.ts";
import { normalizeRows } from "../../../dino/eval/knn/knn.ts";
import { rankRows } from "../../../dino/eval/retrieval/ranking.ts";
import { resizeBilinear } from "../../../dino/eval/resize_bilinear.ts";
import { type Protocol, PROTOCOLS, scoreRetrieval } from "../../../dino/eval/retrieval/retrieval.ts";
import { learnWhitening, whiten } from "../../../dino/eval/retrieval/whitening.ts";
import { finalNorm, vit, vitShapes } from "../../../models/vit.ts";
import type { GoldenCase } from "../golden_case.ts";
import { input, loadParameters, output, runOnce } from "../run_program.ts";
import { backboneOf } from "./vit.ts";

export async function retrieval(golden: GoldenCase, backend: Backend) {
  const { n_database, n_query, kappas, gnd } = golden.config;
  const p = new Program("retrieval");
  const database = input(backend, "database", golden.shape("database"), golden.floats("database"));
  const queries = input(backend, "queries", golden.shape("queries"), golden.floats("queries"));
  const similarity = output(p, matmul(p, l2Normalize(p, database), l2Normalize(p, queries), { transB: true }));
  await runOnce(backend, p);
  const found = await backend.read(similarity);
  golden.compare("output.similarity", found);
  const rankings = Array.from(
    { length: n_query },
    (_, q) => rankRows(Float32Array.from({ length: n_database }, (_, row) => found[row * n_query + q])),
  );
  golden.compare(
    "output.ranks",
    Int32Array.from({ length: n_database * n_query }, (_, i) => rankings[i % n_query][Math.floor(i / n_query)]),
  );
  for (const protocol of Object.keys(PROTOCOLS) as Protocol[]) {
    const score = scoreRetrieval(rankings, gnd, protocol, kappas);
    golden.compareScalar(`${protocol}.mAP`, score.meanAveragePrecision);
    golden.compareScalar(`${protocol}.AP`, score.averagePrecision);
    golden.compareScalar(`${protocol}.mP_at_k`, score.meanPrecisionAt);
    golden.compareScalar(`${protocol}.P_at_k`, score.precisionAt);
  }
}

export async function multiScale(golden: GoldenCase, backend: Backend) {
  const c = backboneOf(golden.config);
  const { parameters } = loadParameters(backend, golden, "param.", vitShapes(c));
  const [images, channels, height, width] = golden.shape("input");
  const descriptors: Float32Array[] = [];
  for (const scale of golden.config.scales as number[]) {
    const resized = scale === 1
      ? { data: golden.floats("input"), height, width }
      : resizeBilinear(golden.floats("input"), channels, height, width, scale);
    if (scale !== 1) golden.compare(`output.resized_${scale.toFixed(3)}`, resized.data);
    const p = new Program(`scale ${scale}`);
    const shape = [images, channels, resized.height, resized.width];
    const image = input(backend, "image", shape, resized.data);
    const batch = { patches: patchify(p, image, c.patchSize), images, height: resized.height, width: resized.width };
    const cls = output(p, finalNorm(p, parameters, c, vit(p, parameters, c, batch, { clsOnly: true }).blocks.at(-1)!));
    await runOnce(backend, p);
    descriptors.push(await backend.read(cls) as Float32Array);
  }
  golden.compare("output.feature", meanOverScales(descriptors));
}

export function copyFeatures(golden: GoldenCase): Promise<void> {
  const { dim, p, batch } = golden.config;
  const tokens = golden.floats("tokens");
  const perImage = tokens.length / batch;
  const all = Array.from(
    { length: batch },
    (_, i) => [...clsAndGem(tokens.subarray(i * perImage, (i + 1) * perImage), dim, p)],
  );
  golden.compare("output", all.flat());
  return Promise.resolve();
}

export async function copyDetection(golden: GoldenCase, backend: Backend) {
  const { dim, topk, blocks, original_files, strong_files, whit, pca_eps_factor } = golden.config;
  const options = { power: whit, floor: pca_eps_factor };
  const whitening = await learnWhitening(backend, golden.floats("whitening_features"), dim, options);
  golden.compare("output.mean", whitening.mean);
  golden.compare("output.cov", whitening.covariance);
  golden.compare("output.whitening_gram", gram(whitening.rows, dim));
  const database = normalizeRows(await whiten(backend, golden.floats("database"), whitening), dim);
  const queries = normalizeRows(await whiten(backend, golden.floats("queries"), whitening), dim);
  const p = new Program("similarity");
  const similarity = output(
    p,
    matmul(
      p,
      input(backend, "q", golden.shape("queries"), queries),
      input(backend, "d", golden.shape("database"), database),
      { transB: true },
    ),
  );
  await runOnce(backend, p);
  golden.compare("output.similarity", await backend.read(similarity));
  golden.check("depth", topk === COPY_DETECTION_DEPTH);
  const neighbours = await deviceSearch(backend)(queries, database, dim, topk);
  golden.compare("output.top", neighbours.indices);
  let start = 0;
  for (const { name, size } of blocks as { name: string; size: number }[]) {
    const files = name === "strong" ? strong_files : original_files;
    const score = scoreCopies(copydaysBlock(name, files, original_files), neighbours, start);
    golden.compareScalar(`mAP.${name}`, score.meanAveragePrecision);
    golden.compareScalar(`AP.${name}`, score.averagePrecision);
    start += size;
  }
}

/** RᵀR of [rows, dim]. */
function gram(rows: Float64Array, dim: number): Float64Array {
  const product = new Float64Array(dim * dim);
  for (let at = 0; at < rows.length; at += dim) {
    for (let i = 0; i < dim; i++) {
      for (let j = 0; j < dim; j++) product[i * dim + j] += rows[at + i] * rows[at + j];
    }
  }
  return product;
}
