// The HTML of a map of images: one file that needs no network.

import { escapeHtml } from "./page.ts";
import { encodePng } from "./png.ts";
import script from "./map_page.js" with { type: "text" };

/** What a map shows. */
export interface MapPage {
  readonly title: string;
  readonly names: readonly string[];
  readonly labels?: ArrayLike<number>;
  readonly classNames?: readonly string[];
  /** Each [n, 2], of any extent. */
  readonly layouts: readonly { readonly name: string; readonly points: Float32Array }[];
  /** [n, side, side, 3] */
  readonly thumbnails: Uint8Array;
  readonly side: number;
}

const STYLE = `
:root { color-scheme: light dark; font: 15px/1.4 system-ui, sans-serif; }
body { margin: 0; height: 100vh; display: grid; grid-template-rows: auto 1fr; }
header { display: flex; flex-wrap: wrap; gap: .5em 1em; align-items: center; padding: .6em 1em; }
h1 { font-size: 1.1em; margin: 0; }
button { font: inherit; border: 1px solid #8888; border-radius: 1em; padding: .1em .8em; background: none; cursor: pointer; }
button[aria-pressed="false"] { opacity: .45; }
#layouts button[aria-pressed="true"], #pictures[aria-pressed="true"] { background: #4688; }
#legend button::before { content: "● "; color: var(--colour); }
canvas { width: 100%; height: 100%; min-height: 0; cursor: grab; touch-action: none; }
#tip { position: fixed; background: Canvas; border: 1px solid #8888; border-radius: 6px; padding: 6px; pointer-events: none; }
#tip div { background-repeat: no-repeat; }
#tip p { margin: .3em 0 0; font-size: .85em; max-width: 160px; overflow-wrap: anywhere; }
`;

/** The page. */
export function mapPage(page: MapPage): string {
  const { title, names, labels, classNames, layouts, thumbnails, side } = page;
  const columns = Math.ceil(Math.sqrt(names.length));
  const rows = Math.ceil(names.length / columns);
  const sprite = new Uint8Array(rows * side * columns * side * 3).fill(255);
  for (let i = 0; i < names.length; i++) {
    const left = (i % columns) * side, top = Math.floor(i / columns) * side;
    for (let y = 0; y < side; y++) {
      const from = (i * side + y) * side * 3;
      sprite.set(thumbnails.subarray(from, from + side * 3), ((top + y) * columns * side + left) * 3);
    }
  }
  const data = {
    names,
    labels: labels && Array.from(labels),
    classNames,
    side,
    columns,
    layouts: layouts.map(({ name, points }) => ({ name, points: unitSquare(points) })),
  };
  // "<" never occurs in the script element, whatever the file names hold.
  const json = JSON.stringify(data).replaceAll("<", "\\u003c");
  const png = encodePng(sprite, rows * side, columns * side).toBase64();
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>${escapeHtml(title)}</title>
<style>${STYLE}#tip div { width: ${2 * side}px; height: ${2 * side}px; image-rendering: pixelated; }</style>
<body>
<header><h1>${
    escapeHtml(title)
  }</h1><span id="layouts"></span><button id="pictures">pictures</button><span id="legend"></span></header>
<canvas></canvas>
<div id="tip" hidden><div></div><p></p></div>
<img id="sprite" alt="" hidden src="data:image/png;base64,${png}">
<script type="application/json" id="data">${json}</script>
<script>${script}</script>
</body>
</html>
`;
}

/** Points within −1 … 1, their middle at 0, to four digits. */
function unitSquare(points: Float32Array): number[] {
  const extent = (axis: 0 | 1) => {
    let min = Infinity, max = -Infinity;
    for (let i = axis; i < points.length; i += 2) [min, max] = [Math.min(min, points[i]), Math.max(max, points[i])];
    return [(min + max) / 2, (max - min) / 2 || 1];
  };
  const [[middleX, halfX], [middleY, halfY]] = [extent(0), extent(1)];
  const half = Math.max(halfX, halfY);
  return Array.from(points, (v, i) => Number(((v - (i % 2 ? middleY : middleX)) / half).toFixed(4)));
}
