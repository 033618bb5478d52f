// The report: what it says of runs that went well, badly or nowhere, and how a browser draws it.

import { inflateSync } from "node:zlib";
import { renderPage } from "../../cli/report/page.ts";
import { encodePng } from "../../cli/report/png.ts";
import { parseLog, reportOf } from "../../cli/report/run_report.ts";
import { defaultConfig } from "../../dino/config.ts";
import { assert, assertEquals, assertStringIncludes, assertThrows } from "../assert.ts";
import { testPixels } from "../dino/data/make_images.ts";

const RECORD = { config: { ...defaultConfig(), outDim: 256 }, data: { name: "</script><b>data", images: 10 } };

function log(steps: number, epochs: number): string {
  const rows: unknown[] = [];
  for (let step = 1; step <= steps; step++) {
    const scheduled = { lr: 1e-3, weight_decay: 0.04, momentum: 0.99, teacher_temp: 0.04 };
    rows.push({ kind: "step", step, epoch: 0, loss: 5 - step / steps, entropy: 4, kl: 1 - step / steps, ...scheduled });
  }
  const accuracies = [{ k: 20, top1: 47.25, top5: 80, top5Stable: 80 }];
  rows.push({ kind: "knn", network: "pixels", epochs: 0, step: 0, accuracies });
  for (let epoch = 0; epoch < epochs; epoch++) {
    const means = {
      train_loss: 5,
      train_lr: 1e-3,
      train_wd: 0.04,
      train_entropy: 4,
      train_kl: 1,
      train_momentum: 0.99,
    };
    const rest = { teacher_temp: 0.04, center_norm: 1, seconds: 2, images_per_second: 100, memory_bytes: 1 };
    rows.push({ kind: "epoch", epoch, step: epoch * 3 + 3, ...means, ...rest });
    for (const network of ["teacher", "student"]) {
      rows.push({ kind: "knn", network, epochs: epoch + 1, step: 3, accuracies });
    }
  }
  rows.push({ kind: "skipped", id: "<img>.jpg", reason: "empty file" });
  return rows.map((row) => JSON.stringify(row)).join("\n") + '\n{"kind":"st';
}

const page = (text: string) =>
  renderPage(reportOf("runs/first", RECORD, parseLog(text), {
    version: "0.0.0",
    backend: "SIMD",
    contactSheet: { png: encodePng(testPixels(20, 60), 20, 60), caption: "crops" },
  }));

Deno.test("report: carries its data, its library and nothing from a network", () => {
  const html = page(log(2000, 3));
  assertStringIncludes(html, "47.3 %");
  assertStringIncludes(html, "&lt;img&gt;.jpg");
  assert(!html.includes("</script><b>"), "a name ended a script");
  assert(!/(src|href)="(?!data:)/.test(html), "something is loaded");
  const charts = JSON.parse(/id="charts">(.*?)<\/script>/s.exec(html)![1]);
  const loss = charts.find(({ title }: { title: string }) => title === "Loss");
  assert(loss.x.length <= 600 && loss.x.at(-1) === 2000, "thinned to what can be seen, up to the last update");
  const entropy = charts.find(({ title }: { title: string }) => title === "Entropy and KL");
  assertEquals(entropy.series.map(({ label }: { label: string }) => label), ["teacher entropy", "KL", "ln K"]);
  assertEquals(entropy.series[2].values[0], Math.log(256));
  assertEquals(charts.length, 8);
});

Deno.test("report: a run that goes on is loaded again, one that ended is not; thousands of skipped images are not listed", () => {
  const end = '\n{"kind":"end","reason":"finished","step":2000,"epoch":3,"seconds":1}\n';
  const whole = log(20, 1).replace(/\n[^\n]*$/, "");
  assertStringIncludes(page(whole), "data-reload=");
  assert(!page(whole + end).includes("data-reload="));
  const skipped = Array.from({ length: 3000 }, (_, i) => `{"kind":"skipped","id":"a${i}.jpg","reason":"empty"}\n`);
  const html = page(skipped.join(""));
  assert(html.includes("a499.jpg") && !html.includes("a500.jpg") && html.includes("the first 500 of 3000"));
});

Deno.test("report: a run without rows has a page too", () => {
  const html = page("");
  assertStringIncludes(html, "Nothing has been logged yet");
  assertEquals(JSON.parse(/id="charts">(.*?)<\/script>/s.exec(html)![1]), []);
});

Deno.test("png: rows come back as they were, and wrong sizes are refused", () => {
  const [height, width] = [7, 5];
  const pixels = testPixels(height, width);
  const file = encodePng(pixels, height, width);
  const view = new DataView(file.buffer);
  assertEquals([view.getUint32(16), view.getUint32(20)], [width, height]);
  const rows = inflateSync(file.subarray(41, 41 + view.getUint32(33)));
  const back = new Uint8Array(pixels.length), stride = 3 * width;
  for (let i = 0; i < back.length; i++) {
    const y = Math.floor(i / stride);
    back[i] = rows[i + y + 1] + (y > 0 ? back[i - stride] : 0); // "up", the filter of every row
  }
  assertEquals(back, pixels);
  assertThrows(() => encodePng(pixels, 7, 6), RangeError, "7 × 6");
});

const CHROMIUM = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find((path) => {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
});
if (!CHROMIUM) console.log("report in a browser: skipped, there is no Chromium in /usr/bin");

Deno.test({
  name: "report: a browser draws every chart, on wide and narrow pages, in light and dark, without an error",
  ignore: !CHROMIUM,
  // The browser's pipes outlive its last page by a moment.
  sanitizeOps: false,
  sanitizeResources: false,
  fn: async () => {
    const { chromium } = await import("npm:playwright-core@1.65.1");
    const browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox", "--disable-gpu"] });
    const folder = await Deno.makeTempDir();
    try {
      for (const [text, charts] of [[log(50, 3), 8], [log(1, 1), 8], ["", 0]] as const) {
        await Deno.writeTextFile(`${folder}/report.html`, page(text));
        for (const [width, colorScheme] of [[1280, "light"], [390, "dark"]] as const) {
          const context = await browser.newContext({ viewport: { width, height: 900 }, colorScheme });
          const tab = await context.newPage();
          const problems: string[] = [];
          tab.on("pageerror", (error: Error) => problems.push(error.message));
          tab.on("console", (message: { type(): string; text(): string }) => {
            if (message.type() === "error") problems.push(message.text());
          });
          tab.on("request", (request: { url(): string }) => {
            if (!/^(file|data):/.test(request.url())) problems.push(`asked for ${request.url()}`);
          });
          await tab.goto(`file://${folder}/report.html`);
          assertEquals(await tab.locator(".u-over").count(), charts, problems.join("; "));
          const overflow: number = await tab.evaluate("document.documentElement.scrollWidth - innerWidth");
          assert(overflow <= 0, `${overflow} pixels stick out at width ${width}`);
          assertEquals(problems, []);
          await context.close();
        }
      }
    } finally {
      await browser.close();
      await Deno.remove(folder, { recursive: true });
    }
  },
});
