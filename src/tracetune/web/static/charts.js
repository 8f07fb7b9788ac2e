// Charts of uPlot in the page's own colours: one look, a shared cursor, smoothing, values read out in the caption.
/* global uPlot */

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const colour = (place) => css(`--c${Math.min(place + 1, 8)}`);

export function told(value) {
  if (value === null || value === undefined) return "–";
  if (Number.isInteger(value) || (Math.abs(value) >= 1000 && Math.abs(value) < 1e15)) return Math.round(value).toLocaleString("en");
  // The server writes small numbers so too (`wording.number`).
  if (value !== 0 && Math.abs(value) < 1e-4) return Number(value.toPrecision(4)).toExponential().replace(/e([+-])(\d)$/, "e$10$2");
  return String(Number(value.toPrecision(4)));
}

// An exponential mean, corrected for its start; gaps stay gaps.
export function smoothed(values, weight) {
  if (!weight) return values;
  let mean = 0, share = 0;
  return values.map((value) => {
    if (value === null) return null;
    mean = weight * mean + (1 - weight) * value;
    share = weight * share + (1 - weight);
    return mean / share;
  });
}

function axis(space) {
  return {
    stroke: () => css("--muted"), font: "11px system-ui, sans-serif", space, gap: 4,
    grid: { stroke: () => css("--line"), width: 1 }, ticks: { show: false },
    values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : told(tick))),
  };
}

// Room for the longest label of a vertical axis.
const room = (_, labels) => Math.max(30, 10 + 6.4 * Math.max(0, ...(labels ?? []).map((label) => label.length)));

// A level line gets room above and below instead of uPlot's 0 to 100.
function range(_, low, high) {
  if (low === null) return [0, 1];
  if (low !== high) return uPlot.rangeNum(low, high, 0.08, true);
  const room = Math.abs(low) / 4 || 0.5;
  return [low - room, high + room];
}

// `lines` are {label, band?}; `pick` is told the step that was clicked, `read` the index under the cursor or null.
export function chart(element, lines, { pick, read } = {}) {
  const series = [{}];
  const bands = [];
  lines.forEach((_, place) => {
    const stroke = () => colour(place);
    // The raw line stays visible, faint, behind the smoothed one.
    series.push({ stroke: () => colour(place) + "55", width: 1, spanGaps: true, points: { show: false } });
    series.push({ stroke, width: 1.8, spanGaps: true, points: { show: (u) => u.data[0].length < 30, size: 5, fill: stroke } });
  });
  if (lines[0].band) {
    const edge = { stroke: "transparent", width: 0, points: { show: false } };
    bands.push({ series: [series.length, series.length + 1], fill: () => colour(0) + "26" });
    series.push(edge, edge);
  }
  const plot = new uPlot({
    width: Math.max(element.clientWidth, 120), height: element.clientHeight || 180,
    padding: [8, 6, 0, 0], legend: { show: false }, scales: { x: { time: false }, y: { range } },
    series, bands, axes: [{ ...axis(60), size: 22 }, { ...axis(34), size: room }],
    cursor: { sync: { key: "steps" }, drag: { x: true, y: false }, points: { show: false } },
    hooks: { setCursor: [(u) => read?.(u.cursor.idx ?? null)] },
  }, [[], ...series.slice(1).map(() => [])], element);
  new ResizeObserver(() => {
    if (element.clientWidth > 60) plot.setSize({ width: element.clientWidth, height: element.clientHeight || 180 });
  }).observe(element);
  if (pick) {
    element.classList.add("pick");
    let at = 0;
    plot.over.addEventListener("mousedown", (event) => { at = event.clientX; });
    plot.over.addEventListener("mouseup", (event) => {
      const step = plot.data[0][plot.cursor.idx];
      if (Math.abs(event.clientX - at) < 4 && step !== undefined) pick(step);
    });
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plot.redraw());
  return {
    set(steps, columns, band, weight = 0) {
      const data = [steps];
      for (const column of columns) data.push(weight ? column : column.map(() => null), smoothed(column, weight));
      if (lines[0].band) {
        const middle = smoothed(columns[0], weight), half = smoothed(band, weight);
        const edge = (sign) => middle.map((value, place) => (value === null || half[place] === null ? null : value + sign * half[place]));
        data.push(edge(1), edge(-1));
      }
      plot.setData(data);
    },
  };
}

export function numbers(rows, name) {
  return rows.map((row) => (typeof row[name] === "number" ? row[name] : null));
}
