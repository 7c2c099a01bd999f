// The charts of a service's last hour: drawn from the API's figures, and again whenever the stream brings newer figures.
(() => {
  "use strict";

  const HEIGHT = 170;
  const COLOURS = 4;
  const board = document.querySelector("[data-figures]");
  const CHARTS = [
    { id: "chart-requests", lines: [["requests_per_second", ""]], unit: "/s", times: 1 },
    { id: "chart-errors", lines: [["error_rate", ""]], unit: " %", times: 100 },
    { id: "chart-latency", lines: [["p50", "p50"], ["p95", "p95"], ["p99", "p99"]], unit: " ms", times: 1000 },
  ];
  const DASHES = { p50: [2, 3], p95: [], p99: [6, 4] };
  const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
  let drawn = [];
  let until = "";

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  function named(revision) {
    return revision === null ? "gateway" : `r${revision}`;
  }

  function short(value) {
    return String(value >= 100 ? Math.round(value) : Number(value.toPrecision(3)));
  }

  // A value between two unknown ones makes no line: it is drawn as a point, so that rare requests are seen as well.
  function alone(chart, index) {
    const values = chart.data[index];
    return values.flatMap((value, at) => (value != null && values[at - 1] == null && values[at + 1] == null ? [at] : []));
  }

  function draw({ id, lines, unit, times: factor }, figures) {
    const place = document.getElementById(id);
    const readout = place.parentElement.querySelector(".readout");
    const times = figures.times.map((time) => Date.parse(time) / 1000);
    const data = [times];
    const series = [{}];
    figures.revisions.forEach((one, index) => {
      for (const [key, name] of lines) {
        data.push(one[key].map((value) => (value === null ? null : value * factor)));
        series.push({
          label: `${named(one.revision)} ${name}`.trim(),
          stroke: colour(`--series-${Math.min(index + 1, COLOURS)}`),
          width: 1.5,
          dash: DASHES[key],
          points: { show: false, filter: alone, size: 4 },
        });
      }
    });
    const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    const say = (chart) => {
      const at = chart.cursor.idx;
      const known = at == null ? [] : series.map((line, i) => [line.label, data[i][at]]).filter(([label, value]) => label && value != null);
      readout.textContent = known.length ? `${clock.format(times[at] * 1000)}: ${known.map(([label, value]) => `${label} ${short(value)}${unit}`).join(", ")}` : "";
    };
    const options = {
      width: place.clientWidth,
      height: HEIGHT,
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false } },
      scales: { y: { range: (chart, low, high) => [0, high > 0 ? high * 1.1 : 1] } },
      axes: [
        { ...axis, values: (chart, ticks) => ticks.map((tick) => clock.format(tick * 1000)), space: 70, size: 28 },
        { ...axis, values: (chart, ticks) => ticks.map((tick) => short(tick)), size: 46 },
      ],
      series,
      hooks: { setCursor: [say] },
    };
    place.replaceChildren();
    return new uPlot(options, data, place);
  }

  async function refresh() {
    const answer = await fetch(board.dataset.figures, { headers: { Accept: "application/json" } });
    if (!answer.ok) return;
    const figures = await answer.json();
    board.hidden = figures.revisions.length === 0;
    for (const chart of drawn) chart.destroy();
    drawn = board.hidden ? [] : CHARTS.map((chart) => draw(chart, figures));
  }

  function look() {
    const known = document.querySelector("[data-until]")?.dataset.until ?? "";
    if (known === until) return;
    until = known;
    refresh();
  }

  look();
  new MutationObserver(look).observe(document.getElementById("part-figures"), { attributes: true, childList: true, subtree: true });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", refresh);
  let width = board.clientWidth;
  new ResizeObserver(() => {
    if (board.clientWidth === width || board.hidden) return;
    width = board.clientWidth;
    drawn.forEach((chart, index) => chart.setSize({ width: document.getElementById(CHARTS[index].id).clientWidth, height: HEIGHT }));
  }).observe(board);
})();
