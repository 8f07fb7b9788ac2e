// Several runs' curves over one axis of steps, from the page's JSON twin.
import { chart, told } from "./charts.js";

const curves = document.getElementById("curves");
document.documentElement.classList.add("scripted");

// Runs log at different steps: one axis holds them all, and a run has a gap where it logged nothing.
function aligned(runs, ids) {
  const at = ids.map((id) => new Map(runs[id] ?? []));
  const steps = [...new Set(at.flatMap((points) => [...points.keys()]))].sort((a, b) => a - b);
  return [steps, at.map((points) => steps.map((step) => points.get(step) ?? null))];
}

async function draw() {
  const ids = curves.dataset.ids.split(",");
  const answer = await fetch(`/api/runs/compare?ids=${ids.join(",")}`, { headers: { Accept: "application/json" } });
  if (!answer.ok) return;
  const { series } = await answer.json();
  const slider = document.getElementById("smooth");
  const all = [...curves.querySelectorAll("figure.chart")].map((figure) => {
    const [steps, columns] = aligned(series[figure.dataset.metric] ?? {}, ids);
    const values = [...figure.querySelectorAll(".value")];
    const canvas = figure.querySelector(".canvas");
    const read = (place) => columns.forEach((column, run) => {
      values[run].textContent = told(place === null ? column.findLast((value) => value !== null) : column[place]);
    });
    const drawn = chart(canvas, ids.map(() => ({})), { read });
    return () => { drawn.set(steps, columns, null, Number(slider.value)); read(null); };
  });
  const again = () => all.forEach((redraw) => redraw());
  again();
  slider.addEventListener("input", again);
}

if (curves) draw();
