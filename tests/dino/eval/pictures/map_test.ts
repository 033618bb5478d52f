import { mapPage } from "../../../../cli/report/map_page.ts";
import { principalComponents } from "../../../../dino/eval/pictures/principal_components.ts";
import { tsneMap } from "../../../../dino/eval/pictures/tsne.ts";
import { CounterRandom, STREAM } from "../../../../models/rng.ts";
import { assert, assertAlmostEquals, assertEquals, assertRejects } from "../../../assert.ts";

function clusters(count: number, dim: number) {
  const random = new CounterRandom(1, STREAM.evaluation);
  return Float32Array.from(
    { length: count * dim },
    (_, i) => 0.1 * random.normal() + (i % dim === Math.floor(i / dim) % 3 ? 5 : 0),
  );
}

Deno.test("t-SNE keeps clusters together, and the same rows give the same map", async () => {
  const points = await tsneMap(clusters(45, 8), 8, { iterations: 150, perplexity: 5 });
  const distance = (a: number, b: number) =>
    Math.hypot(points[2 * a] - points[2 * b], points[2 * a + 1] - points[2 * b + 1]);
  let inside = 0, across = 0;
  for (let i = 0; i < 42; i++) {
    inside += distance(i, i + 3);
    across += distance(i, i + 1);
  }
  assert(across > 3 * inside, `${across} > 3 · ${inside}`);
  assertEquals(await tsneMap(clusters(45, 8), 8, { iterations: 150, perplexity: 5 }), points);
  await assertRejects(() => tsneMap(new Float32Array(16), 8), RangeError, "at least three");
});

Deno.test("principal components: variances descend, directions are uncorrelated", () => {
  const rows = principalComponents(clusters(45, 8), 8, 3);
  const product = (a: number, b: number) => {
    let sum = 0;
    for (let i = 0; i < 45; i++) sum += rows[3 * i + a] * rows[3 * i + b];
    return sum / 45;
  };
  assert(product(0, 0) >= product(1, 1) && product(1, 1) > 10 * product(2, 2), "three clusters span two directions");
  assertAlmostEquals(product(0, 1), 0, 1e-4); // projections are rounded to float32
});

Deno.test("the page of a map holds hostile file names as text", () => {
  const page = mapPage({
    title: "<b>",
    names: ["</script><script>alert(1)</script>", "b"],
    labels: [0, 1],
    classNames: ["x", "<y>"],
    layouts: [{ name: "one", points: Float32Array.of(0, 0, 3, 1) }],
    thumbnails: new Uint8Array(2 * 4 * 4 * 3),
    side: 4,
  });
  assertEquals(page.match(/<script/g)!.length, 2);
  assert(page.includes("&lt;b&gt;") && !page.includes("alert(1)</script>"));
  const data = JSON.parse(/id="data">(.*?)<\/script>/s.exec(page)![1]);
  assertEquals(data.layouts[0].points, [-1, -0.3333, 1, 0.3333]);
});
