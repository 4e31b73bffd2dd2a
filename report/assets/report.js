// Draws the page's charts with uPlot, sorts its tables, switches its colours. Everything it shows is in the page already.
"use strict";
(() => {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  // Okabe and Ito's colours, those first that stand out on both grounds; dashes tell lines apart without colour.
  const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a8a00", "#999999"];
  const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3]];
  const drawn = [];

  const digits = (value) => (value < 9.995 ? value.toFixed(2) : value < 99.95 ? value.toFixed(1) : value.toFixed(0));
  const time = (ns) => {
    if (ns < 1e3) return `${Math.round(ns)} ns`;
    if (ns < 999.5e3) return `${digits(ns / 1e3)} us`;
    if (ns < 999.5e6) return `${digits(ns / 1e6)} ms`;
    return `${digits(ns / 1e9)} s`;
  };
  const tidy = (text) => text.replace(/(\.\d*?)0+(?= |$)/, "$1").replace(/\.(?= |$)/, "");
  const plain = (value) => (Math.abs(value) >= 1e6 ? tidy(`${(value / 1e6).toPrecision(4)}`) + " M"
    : Number(value.toPrecision(6)).toLocaleString("en"));
  const quantile = (inverse) => `${Number((100 - 100 / inverse).toFixed(4))} %`;
  const names = (chart) => (value) => (chart.marks.find((mark) => mark.x === value) || { label: "" }).label;
  const write = (chart, unit) => (value) => {
    if (value == null) return "-";
    return { ns: time, quantile, number: plain, seconds: (s) => `${plain(s)} s`, name: names(chart) }[unit](value);
  };

  // One column of x for all lines, with gaps where a line has no point: what uPlot wants.
  const align = (chart) => {
    const xs = [...new Set(chart.series.flatMap((line) => line.points.map((point) => point.x)))].sort((a, b) => a - b);
    const index = new Map(xs.map((x, at) => [x, at]));
    const columns = [xs];
    for (const line of chart.series) {
      const column = new Array(xs.length).fill(undefined);
      // Two dots of a line may share an x; the later one stands, and the figures below the chart have both.
      for (const point of line.points) column[index.get(point.x)] = point.y;
      columns.push(column);
    }
    return columns;
  };

  const range = (scale) => (u, low, high) => {
    if (low == null) return [1, 10];
    if (scale === "log") return [low / 1.15, high * 1.15];
    const room = (high - low || Math.abs(high) || 1) * 0.06;
    return [low - room, high + room];
  };
  // Upwards, straight scales begin at nothing unless the lines are far from it: then their differences would be lost.
  const upwards = (chart) => (u, lowest, highest) => {
    const scale = chart.y.scale;
    if (lowest == null) return range(scale)(u, lowest, highest);
    // Intervals belong to the picture.
    const ends = chart.series.flatMap((line) => line.points.flatMap((point) => [point.low, point.high])).filter((end) => end != null);
    const [low, high] = [Math.min(lowest, ...ends), Math.max(highest, ...ends)];
    if (scale === "log") return range(scale)(u, low, high);
    return low > 0.6 * high ? range(scale)(u, low, high) : [0, high * 1.08];
  };

  const marksAndIntervals = (chart, ink) => (u) => {
    const { ctx, bbox } = u;
    const dpr = devicePixelRatio || 1;
    ctx.save();
    ctx.font = `${12 * dpr}px system-ui, sans-serif`;
    if (chart.x.unit !== "name") {
      chart.marks.forEach((mark, at) => {
        const x = u.valToPos(mark.x, "x", true);
        if (x < bbox.left || x > bbox.left + bbox.width) return;
        ctx.strokeStyle = ctx.fillStyle = ink("--faint");
        ctx.setLineDash([4 * dpr, 4 * dpr]);
        ctx.beginPath();
        ctx.moveTo(x, bbox.top);
        ctx.lineTo(x, bbox.top + bbox.height);
        ctx.stroke();
        const left = x > bbox.left + bbox.width * 0.8;
        ctx.textAlign = left ? "right" : "left";
        ctx.fillText(mark.label, x + (left ? -4 : 4) * dpr, bbox.top + (14 + 14 * (at % 4)) * dpr);
      });
    }
    ctx.setLineDash([]);
    chart.series.forEach((line, at) => {
      if (!u.series[at + 1].show) return;
      ctx.strokeStyle = COLOURS[at % COLOURS.length];
      ctx.lineWidth = 1.5 * dpr;
      for (const point of line.points) {
        if (point.low == null || point.high == null) continue;
        const [x, from, to] = [u.valToPos(point.x, "x", true), u.valToPos(point.low, "y", true), u.valToPos(point.high, "y", true)];
        ctx.beginPath();
        ctx.moveTo(x, from);
        ctx.lineTo(x, to);
        for (const end of [from, to]) { ctx.moveTo(x - 4 * dpr, end); ctx.lineTo(x + 4 * dpr, end); }
        ctx.stroke();
      }
    });
    ctx.restore();
  };

  const draw = (element) => {
    const chart = charts[element.dataset.chart];
    const style = getComputedStyle(document.documentElement);
    const ink = (name) => style.getPropertyValue(name).trim();
    const axis = (of, extra) => ({
      stroke: ink("--faint"),
      grid: { stroke: ink("--rule"), width: 1 },
      ticks: { stroke: ink("--rule"), width: 1 },
      label: of.label,
      labelSize: 24,
      labelFont: "13px system-ui, sans-serif",
      font: "12px system-ui, sans-serif",
      values: (u, splits) => splits.map((value) => (value == null ? null : write(chart, of.unit)(value))),
      ...extra,
    });
    // A logarithmic axis is labelled at powers of ten, and at 2 and 5 times those where there are too few of them.
    const decades = (of) => (of.scale !== "log" ? {} : {
      splits: (u, at, low, high) => {
        const ticks = (factors) => {
          const found = [];
          for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
            found.push(...factors.map((factor) => Number(`${factor}e${power}`)).filter((tick) => low <= tick && tick <= high));
          }
          return found;
        };
        const tens = ticks([1]);
        return tens.length < 3 ? ticks([1, 2, 5]) : tens;
      },
      filter: (u, splits) => splits,
    });
    const byName = chart.x.unit !== "name" ? {} : {
      splits: () => chart.marks.map((mark) => mark.x),
      filter: (u, splits) => splits,
    };
    const old = drawn[element.dataset.chart];
    if (old) old.destroy();
    const plot = new uPlot({
      width: Math.max(240, element.clientWidth),
      height: 320,
      scales: {
        x: { time: false, distr: chart.x.scale === "log" ? 3 : 1, range: range(chart.x.scale) },
        y: { distr: chart.y.scale === "log" ? 3 : 1, range: upwards(chart) },
      },
      axes: [
        axis(chart.x, { ...decades(chart.x), space: 60, ...byName }),
        axis(chart.y, { ...decades(chart.y), size: 72 }),
      ],
      series: [
        { label: chart.x.label, value: (u, value) => write(chart, chart.x.unit)(value) },
        ...chart.series.map((line, at) => ({
          label: line.name,
          stroke: COLOURS[at % COLOURS.length],
          width: line.dots ? 0 : 2,
          dash: DASHES[Math.floor(at / 2) % DASHES.length],
          spanGaps: true,
          paths: line.dots ? () => null : line.steps ? uPlot.paths.stepped({ align: 1 }) : undefined,
          fill: line.steps ? COLOURS[at % COLOURS.length] + "33" : undefined,
          points: { show: line.dots || (!line.steps && line.points.length < 40), size: line.dots ? 8 : 5, fill: COLOURS[at % COLOURS.length] },
          value: (u, value) => write(chart, chart.y.unit)(value),
        })),
      ],
      cursor: { drag: { x: true, y: false } },
      legend: { live: true },
      hooks: { draw: [marksAndIntervals(chart, ink)] },
    }, align(chart), element);
    drawn[element.dataset.chart] = plot;
  };

  const elements = [...document.querySelectorAll("[data-chart]")];
  const all = () => elements.forEach(draw);
  all();

  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    elements.forEach((element) => drawn[element.dataset.chart].setSize({ width: Math.max(240, element.clientWidth), height: 320 }));
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", all);
  document.getElementById("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    all();
  });

  // Left and right move from point to point; the legend below says the values.
  elements.forEach((element) => element.addEventListener("keydown", (event) => {
    const plot = drawn[element.dataset.chart];
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const last = plot.data[0].length - 1;
    const from = plot.cursor.idx == null ? (step > 0 ? -1 : last + 1) : plot.cursor.idx;
    const index = Math.min(last, Math.max(0, from + step));
    plot.setCursor({ left: plot.valToPos(plot.data[0][index], "x"), top: plot.over.clientHeight / 2 });
  }));

  // A click sorts by a column, a second one the other way round; what is unknown stays at the end.
  document.querySelectorAll("table.sortable").forEach((table) => {
    const heads = [...table.querySelectorAll("thead th")];
    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const body = table.tBodies[0];
      const key = (row) => {
        const cell = row.cells[column];
        return cell.dataset.number !== undefined ? Number(cell.dataset.number) : cell.textContent;
      };
      const unknown = (value) => value === "-";
      const rows = [...body.rows].sort((one, other) => {
        const [a, b] = [key(one), key(other)];
        if (unknown(a) || unknown(b)) return unknown(a) - unknown(b);
        const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
        return down ? -order : order;
      });
      body.append(...rows);
    }));
  });
})();
