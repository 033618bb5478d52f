// The HTML of a report: one file that needs no network, with its data, its styles and its chart library inside.
import uplotScript from "npm:uplot@1.6.32/dist/uPlot.iife.min.js" with { type: "text" };
import uplotStyle from "npm:uplot@1.6.32/dist/uPlot.min.css" with { type: "text" };
import uplotLicense from "npm:uplot@1.6.32/LICENSE" with { type: "text" };
import pageScript from "./page.js" with { type: "text" };
import pageStyle from "./page.css" with { type: "text" };

/** One chart: every series has as many values as `x`; null where nothing was measured. */
export interface Chart {
  title: string;
  /** What a reader should look for. */
  note: string;
  xLabel: string;
  x: number[];
  /** `limit`: a line to compare with, drawn dashed. */
  series: { label: string; values: (number | null)[]; limit?: boolean }[];
}

/** Everything a report shows, in the order shown. */
export interface ReportPage {
  title: string;
  subtitle: string;
  /** Something the reader must know first: why the run stopped, what could not be read. */
  notices: string[];
  figures: { name: string; value: string }[];
  charts: Chart[];
  /** A PNG of augmented crops, with the words under it. */
  contactSheet?: { png: Uint8Array<ArrayBuffer>; caption: string };
  /** The page changes yet: a browser that shows it loads it again every so many seconds, unless a table is being read. */
  reloadSeconds?: number;
  /** Rows of names and values behind a fold, as the configuration is. */
  tables: { title: string; rows: [string, string][] }[];
  footer: string;
}

/** Text as HTML text or as an attribute's value. */
export function escapeHtml(text: string): string {
  const entities: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
  return text.replace(/[&<>"']/g, (character) => entities[character]);
}

/** JSON that cannot end the script element it stands in; NaN and infinities become null. */
function embeddedJson(value: unknown): string {
  return JSON.stringify(value).replaceAll("<", "\\u003c").replaceAll("\u2028", "\\u2028");
}

/** The page as one string of HTML. */
export function renderPage(page: ReportPage): string {
  const text = escapeHtml;
  const drawn = page.charts.filter((chart) => chart.x.length > 0);
  const contactSheet = page.contactSheet === undefined ? "" : `
    <figure class="card wide">
      <h2>Augmented crops</h2>
      <div class="scroll"><img alt="A contact sheet of augmented crops" src="data:image/png;base64,${page.contactSheet.png.toBase64()}"></div>
      <figcaption>${text(page.contactSheet.caption)}</figcaption>
    </figure>`;
  return `<!doctype html>
<html lang="en"${page.reloadSeconds === undefined ? "" : ` data-reload="${page.reloadSeconds}"`}>
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${text(page.title)}</title>
<style>
${uplotStyle}
${pageStyle}
</style>
</head>
<body>
<main>
  <h1>${text(page.title)}</h1>
  <p class="quiet">${text(page.subtitle)}</p>
  ${page.notices.map((notice) => `<p class="card notice">${text(notice)}</p>`).join("\n  ")}
  <dl class="figures">
    ${page.figures.map(({ name, value }) => `<div><dt>${text(name)}</dt><dd>${text(value)}</dd></div>`).join("\n    ")}
  </dl>
  ${drawn.length === 0 ? `<p class="card">Nothing has been logged yet.</p>` : ""}
  <div class="charts">
    ${
    drawn.map((chart, i) =>
      `<section class="card"><h2>${text(chart.title)}</h2><p class="quiet">${text(chart.note)}</p>` +
      `<div class="plot" id="chart-${i}"></div></section>`
    ).join("\n    ")
  }
  </div>${contactSheet}
  ${
    page.tables.map(({ title, rows }) =>
      `<details class="card wide"><summary>${text(title)}</summary><div class="scroll"><table>` +
      rows.map(([name, value]) =>
        `<tr><th scope="row" class="wrap">${text(name)}</th><td class="wrap">${text(value)}</td></tr>`
      )
        .join("") +
      `</table></div></details>`
    ).join("\n  ")
  }
  <noscript><p class="card notice">The charts are drawn by a script, which this browser has switched off.</p></noscript>
  <footer class="quiet">${text(page.footer)}</footer>
</main>
<script type="application/json" id="charts">${embeddedJson(drawn)}</script>
<script>
/*
${uplotLicense.replaceAll("*/", "* /")}
*/
${uplotScript.replaceAll("</script", "<\\/script")}
</script>
<script>
${pageScript}
</script>
</body>
</html>
`;
}
