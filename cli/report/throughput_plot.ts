// A plot of images a second against memory, one line an architecture, one point a patch size.

import { escapeHtml } from "./page.ts";

/** What a point needs. */
export interface ThroughputPoint {
  readonly arch: string;
  readonly patchSize: number | null;
  readonly imagesPerSecond: number;
  readonly peakBytes: number;
}

const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT] = [640, 400, 70, 50, 40, 30];
const COLOURS = ["#3366cc", "#dc3912", "#109618", "#990099", "#ff9900"];

/** An SVG file; both axes are logarithmic. @param setting what was measured where, for the title */
export function throughputPlot(points: readonly ThroughputPoint[], setting: string): string {
  const x = logAxis(points.map((p) => p.imagesPerSecond), LEFT, WIDTH - RIGHT);
  const y = logAxis(points.map((p) => p.peakBytes / 2 ** 20), HEIGHT - BOTTOM, TOP);
  const grid = [
    ...x.ticks.map((t) => `<path d="M${x.at(t)} ${TOP}V${HEIGHT - BOTTOM}"/>`),
    ...y.ticks.map((t) => `<path d="M${LEFT} ${y.at(t)}H${WIDTH - RIGHT}"/>`),
  ];
  const labels = [
    ...x.ticks.map((t) => `<text x="${x.at(t)}" y="${HEIGHT - BOTTOM + 18}" text-anchor="middle">${t}</text>`),
    ...y.ticks.map((t) => `<text x="${LEFT - 8}" y="${y.at(t) + 4}" text-anchor="end">${t}</text>`),
  ];
  const lines = [...new Set(points.map((p) => p.arch))].map((arch, i) => {
    const of = points.filter((p) => p.arch === arch).map((p) => ({
      ...p,
      px: x.at(p.imagesPerSecond),
      py: y.at(p.peakBytes / 2 ** 20),
    }));
    const colour = COLOURS[i % COLOURS.length];
    return `<path d="M${
      of.map((p) => `${p.px} ${p.py}`).join("L")
    }" fill="none" stroke="${colour}" stroke-width="2"/>` +
      of.map((p) =>
        `<circle cx="${p.px}" cy="${p.py}" r="4" fill="${colour}"/>` +
        `<text x="${p.px + 7}" y="${p.py - 7}" fill="${colour}">${escapeHtml(arch)}${
          p.patchSize === null ? "" : `/${p.patchSize}`
        }</text>`
      ).join("");
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="sans-serif" font-size="12">
<rect width="${WIDTH}" height="${HEIGHT}" fill="#fff"/>
<text x="${LEFT}" y="22" font-size="13">${escapeHtml(setting)}</text>
<g stroke="#ddd">${grid.join("")}</g>
<g fill="#444">${labels.join("")}
<text x="${(LEFT + WIDTH - RIGHT) / 2}" y="${HEIGHT - 12}" text-anchor="middle">images a second</text>
<text transform="translate(16 ${
    (TOP + HEIGHT - BOTTOM) / 2
  }) rotate(-90)" text-anchor="middle">peak memory, MiB</text></g>
${lines.join("\n")}
</svg>
`;
}

function logAxis(values: readonly number[], from: number, to: number) {
  const low = Math.log10(Math.min(...values)) - 0.1, high = Math.log10(Math.max(...values)) + 0.15;
  const ticks: number[] = [];
  for (let power = Math.floor(low); power <= high; power++) {
    for (const step of [1, 2, 5]) {
      const tick = Number((step * 10 ** power).toPrecision(1));
      if (Math.log10(tick) >= low && Math.log10(tick) <= high) ticks.push(tick);
    }
  }
  const at = (value: number) => Number((from + (to - from) * (Math.log10(value) - low) / (high - low || 1)).toFixed(1));
  return { ticks, at };
}
