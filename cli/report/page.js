// Draws the charts of a report in the browser, from the JSON that the page carries.
/* global uPlot */
(() => {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const plots = [];

  /** The value of a CSS custom property now: it differs between the light and the dark page. */
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

  // Updates and epochs are whole.
  const wholeSteps = [1, 10, 100, 1e3, 1e4, 1e5, 1e6, 1e7].flatMap((power) => [power, 2 * power, 5 * power]);

  const readable = (value) => {
    if (value === null || value === undefined) return "–";
    if (value === 0) return "0";
    const size = Math.abs(value);
    return size < 1e-3 ? value.toExponential(2) : size >= 1000 ? value.toFixed(0) : String(+value.toPrecision(4));
  };

  function options(chart, width) {
    const axis = {
      stroke: colour("quiet"),
      grid: { stroke: colour("grid"), width: 1 },
      ticks: { stroke: colour("grid"), width: 1 },
    };
    // One point draws no line: mark it. Many points would hide theirs.
    const points = (series) => ({ show: series.values.filter((v) => v !== null).length <= 60, size: 5 });
    return {
      width,
      height: Math.max(180, Math.min(260, Math.round(width * 0.5))),
      scales: { x: { time: false, range: chart.x.length === 1 ? [chart.x[0] - 1, chart.x[0] + 1] : undefined } },
      axes: [
        {
          ...axis,
          incrs: wholeSteps,
          label: chart.xLabel,
          labelSize: 20,
          size: 34,
          labelFont: "12px system-ui",
          font: "12px system-ui",
        },
        { ...axis, size: 62, font: "12px system-ui", values: (_, ticks) => ticks.map(readable) },
      ],
      series: [
        { label: chart.xLabel, value: (_, v) => readable(v) },
        ...chart.series.map((series, i) => ({
          label: series.label,
          stroke: series.limit ? colour("limit") : colour(`series-${(i % 4) + 1}`),
          width: series.limit ? 1.25 : 1.75,
          dash: series.limit ? [6, 4] : undefined,
          points: series.limit ? { show: chart.x.length === 1 } : points(series),
          spanGaps: true,
          value: (_, v) => readable(v),
        })),
      ],
      cursor: { y: false },
    };
  }

  function draw() {
    for (const plot of plots.splice(0)) plot.destroy();
    charts.forEach((chart, i) => {
      const place = document.getElementById(`chart-${i}`);
      if (place === null || chart.x.length === 0) return;
      plots.push(
        new uPlot(
          options(chart, place.clientWidth),
          [chart.x, ...chart.series.map((series) => series.values)],
          place,
        ),
      );
    });
  }

  draw();
  globalThis.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  let width = globalThis.innerWidth, waiting = 0;
  globalThis.addEventListener("resize", () => {
    if (globalThis.innerWidth === width) return; // phones resize when their address bar hides
    width = globalThis.innerWidth;
    clearTimeout(waiting);
    waiting = setTimeout(draw, 100);
  });
  const { dataset } = document.documentElement;
  if (dataset.reload) {
    setInterval(() => {
      if (document.visibilityState === "visible" && !document.querySelector("details[open]")) location.reload();
    }, 1000 * Number(dataset.reload));
  }
  dataset.drawn = String(plots.length);
})();
