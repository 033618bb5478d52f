import { parseGroundTruth } from "../../../../dino/eval/retrieval/ground_truth.ts";
import { rmacRegions } from "../../../../dino/eval/retrieval/descriptors.ts";
import { copydaysBlock, scoreCopies } from "../../../../dino/eval/retrieval/copy_detection.ts";
import { averagePrecision } from "../../../../dino/eval/retrieval/ranking.ts";
import { scoreRetrieval } from "../../../../dino/eval/retrieval/retrieval.ts";
import { symmetricEigen } from "../../../../dino/eval/symmetric_eigen.ts";
import { deviceSearch } from "../../../../dino/eval/knn/device_neighbours.ts";
import { normalizeRows, searchNeighbours } from "../../../../dino/eval/knn/knn.ts";
import { learnWhitening, whiten } from "../../../../dino/eval/retrieval/whitening.ts";
import { CounterRandom, STREAM } from "../../../../models/rng.ts";
import { assert, assertAlmostEquals, assertEquals, assertThrows } from "../../../assert.ts";
import { onEachBackend } from "../../../backends.ts";

const bytes = (base64: string) => Uint8Array.fromBase64(base64);

Deno.test("retrieval ground truth: Python's pickle, numpy's arrays in it, and JSON say the same", () => {
  // Written by Python 3 with protocol 2: lists; then protocol 4: numpy 2's array in "easy".
  const plain = parseGroundTruth(
    bytes(
      "gAJ9cQAoWAYAAABpbWxpc3RxAV1xAihYAQAAAGFxA1gBAAAAYnEEWAEAAABjcQVlWAcAAABxaW1saXN0cQZdcQdYAQAAAHFxCGFYAwAAAGduZHEJXX" +
        "EKfXELKFgDAAAAYmJ4cQxdcQ0oRz/wAAAAAAAAR0AAAAAAAAAAR0A+gAAAAAAAR0BEAAAAAAAAZVgEAAAAZWFzeXEOXXEPSwBhWAQAAABoYXJk" +
        "cRBdcRFLAmFYBAAAAGp1bmtxEl1xE3VhdS4=",
    ),
    "p2",
  );
  assertEquals(plain, {
    images: ["a", "b", "c"],
    queries: ["q"],
    truths: [{ easy: [0], hard: [2], junk: [] }],
    boxes: [[1, 2, 30.5, 40]],
  });
  const arrays = parseGroundTruth(
    bytes(
      "gASVHgEAAAAAAAB9lCiMBmltbGlzdJRdlCiMAWGUjAFilIwBY5RljAdxaW1saXN0lF2UjAFxlGGMA2duZJRdlH2UKIwDYmJ4lF2UKEc/8AAAAAAA" +
        "AEdAAAAAAAAAAEdAPoAAAAAAAEdARAAAAAAAAGWMBGVhc3mUjBZudW1weS5fY29yZS5tdWx0aWFycmF5lIwMX3JlY29uc3RydWN0lJOUjAVudW1w" +
        "eZSMB25kYXJyYXmUk5RLAIWUQwFilIeUUpQoSwFLAoWUaBKMBWR0eXBllJOUjAJpOJSJiIeUUpQoSwOMATyUTk5OSv////9K/////0sAdJRiiUMQ" +
        "AAAAAAAAAAABAAAAAAAAAJR0lGKMBGhhcmSUXZRLAmGMBGp1bmuUXZR1YXUu",
    ),
    "p4",
  );
  assertEquals(arrays.truths[0].easy, [0, 1]);
  const json = JSON.stringify({ imlist: ["a"], qimlist: ["q"], gnd: [{ easy: [0], hard: [], junk: [] }] });
  assertEquals(parseGroundTruth(new TextEncoder().encode(json), "j").truths, [{ easy: [0], hard: [], junk: [] }]);
});

Deno.test("retrieval ground truth: code in a pickle, rows that do not exist and other files are refused by name", () => {
  const evil = bytes("gAJ9cQBYBgAAAGltbGlzdHEBY3Bvc2l4CnN5c3RlbQpxAlgEAAAAdHJ1ZXEDhXEEUnEFcy4=");
  assertThrows(() => parseGroundTruth(evil, "evil.pkl"), TypeError, "posix.system");
  const text = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));
  const gnd = { imlist: ["a"], qimlist: ["q"], gnd: [{ easy: [1], hard: [], junk: [] }] };
  assertThrows(() => parseGroundTruth(text(gnd), "gnd.json"), SyntaxError, "gnd.json: no ground truth: query 0: easy");
  assertThrows(() => parseGroundTruth(text({ ...gnd, gnd: [] }), "gnd.json"), SyntaxError, "describes 0 queries");
  assertThrows(() => parseGroundTruth(Uint8Array.of(1, 2, 3), "x"), SyntaxError, "x: no ground truth");
});

Deno.test("retrieval: a ranking that lacks a positive belongs to another database", () => {
  const truth = { easy: [5], hard: [], junk: [] };
  assertThrows(() => scoreRetrieval([[0, 1, 2]], [truth], "easy"), RangeError, "another database");
  assertEquals(scoreRetrieval([[0]], [{ easy: [], hard: [0], junk: [] }], "easy").averagePrecision, [NaN]);
});

Deno.test("copy detection: strong copies go by scene, other blocks by order, and a missing copy is an error", () => {
  const originals = ["original/200000.jpg", "original/200100.jpg"];
  assertEquals(copydaysBlock("strong", ["strong/200101.jpg", "strong/200002.jpg"], originals).originals, [[1], [0]]);
  assertThrows(() => copydaysBlock("crops/50", ["a.jpg"], originals), RangeError, "1 images, there are 2 originals");
  const block = { name: "x", files: ["q"], originals: [[3, 9]] };
  const neighbours = { k: 3, similarities: new Float32Array(3), indices: Int32Array.of(1, 3, 0) };
  // Found at position 1 of 2 positives; the other one is not among the first.
  assertAlmostEquals(scoreCopies(block, neighbours, 0).meanAveragePrecision, (0 + 1 / 2) / 2 / 2, 1e-12);
  assertEquals(averagePrecision([], 2), 0);
});

Deno.test("R-MAC regions cover the grid and stay inside it, at any aspect", () => {
  for (const [h, w] of [[1, 1], [1, 9], [3, 5], [14, 14], [30, 20], [60, 107]]) {
    for (const { top, left, height, width } of rmacRegions(h, w, 3)) {
      assert(top >= 0 && left >= 0 && height >= 1 && width >= 1 && top + height <= h && left + width <= w, `${h}×${w}`);
    }
  }
  assertEquals(rmacRegions(14, 14, 3).length, 1 + 1 + 4 + 9);
});

Deno.test("symmetric eigenvectors: orthonormal, descending, and they rebuild the matrix (n = 1 … 37, repeated values)", () => {
  const random = new CounterRandom(1, STREAM.evaluation);
  for (const [n, rank] of [[1, 1], [2, 2], [3, 1], [8, 3], [37, 37], [20, 0]]) {
    const a = new Float64Array(n * n);
    for (let r = 0; r < rank; r++) {
      const v = Float64Array.from({ length: n }, () => random.normal());
      for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) a[i * n + j] += v[i] * v[j] * (r % 2 ? -1 : 1);
    }
    if (n === 8) { for (let i = 0; i < n; i++) a[i * n + i] += 1; // five eigenvalues of exactly 1
     }
    const { values, vectors } = symmetricEigen(a, n);
    const scale = Math.max(1, ...values.map(Math.abs));
    for (let i = 0; i < n; i++) {
      if (i > 0) assert(values[i] <= values[i - 1]);
      for (let j = 0; j < n; j++) {
        let dot = 0, back = 0;
        for (let k = 0; k < n; k++) {
          dot += vectors[i * n + k] * vectors[j * n + k];
          back += values[k] * vectors[k * n + i] * vectors[k * n + j];
        }
        // float64 rotations: a few ulp for each of the n steps
        assertAlmostEquals(dot, i === j ? 1 : 0, 1e-13 * n);
        assertAlmostEquals(back, a[i * n + j], 1e-13 * n * scale);
      }
    }
  }
  assertThrows(() => symmetricEigen(Float64Array.of(NaN), 1), RangeError, "NaN");
});

Deno.test("symmetric eigenvectors: what rounding leaves of a matrix of low rank does not keep it from converging", () => {
  for (const [n, rank] of [[63, 4], [70, 4], [99, 4], [101, 2]]) { // fewer images than features
    const random = new CounterRandom(1, STREAM.evaluation);
    const a = new Float64Array(n * n);
    for (let r = 0; r < rank; r++) {
      const v = Float64Array.from({ length: n }, () => random.uniform(-0.5, 0.5));
      for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) a[i * n + j] += v[i] * v[j];
    }
    const { values, vectors } = symmetricEigen(a, n);
    assert(values[rank - 1] > 1);
    for (const value of values.subarray(rank)) assert(Math.abs(value) < 1e-13 * values[0], `${n}, ${rank}: ${value}`);
    for (let i = 0; i < n; i++) {
      let back = 0;
      for (let k = 0; k < n; k++) back += values[k] * vectors[k * n + i] * vectors[k * n + i];
      assertAlmostEquals(back, a[i * n + i], 1e-13 * values[0]);
    }
  }
});

onEachBackend(
  "whitening of centred features gives unit covariance, and fewer components on request",
  async (backend) => {
    const random = new CounterRandom(2, STREAM.evaluation);
    const [n, dim] = [1500, 5]; // more than one chunk
    const features = new Float32Array(n * dim);
    for (let i = 0; i < n; i++) {
      const common = random.normal();
      for (let d = 0; d < dim; d++) features[i * dim + d] = (d + 1) * random.normal() + common + 3;
    }
    const learned = await learnWhitening(backend, features, dim, { centered: true, components: 3 });
    const white = await whiten(backend, features, learned);
    for (let a = 0; a < 3; a++) {
      for (let b = 0; b < 3; b++) {
        let sum = 0;
        for (let i = 0; i < n; i++) sum += white[i * 3 + a] * white[i * 3 + b] / n;
        // float32 sums over a chunk of 1024, then divided by variances of at least 1
        assertAlmostEquals(sum, a === b ? 1 : 0, 2e-4);
      }
    }
  },
);

onEachBackend("whole rankings: every row of the database once, as the host ranks them", async (backend) => {
  const random = new CounterRandom(3, STREAM.evaluation);
  const [n, dim] = [1100, 3]; // more rows than a device selects
  const rows = (count: number) => normalizeRows(Float32Array.from({ length: count * dim }, () => random.normal()), dim);
  const database = rows(n), queries = rows(2);
  const found = await deviceSearch(backend)(queries, database, dim, n);
  assertEquals(new Set(found.indices.subarray(0, n)).size, n);
  const host = searchNeighbours(queries, database, dim, n);
  host.similarities.forEach((s, i) => assertAlmostEquals(found.similarities[i], s, 1e-6)); // products of unit rows
}, { backends: ["wasm", "webgpu"] });
