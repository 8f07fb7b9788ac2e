// A run's page while it is read: charts that can be smoothed and clicked, metrics and log as they come.
import { chart, numbers, told } from "./charts.js";

const EVERY_MS = 2000;
const LEAVING_MS = 10_000;
const MAX_LOG_CHARS = 400_000;
const ENDED = ["finished", "failed", "cancelled"];
const curves = document.getElementById("curves");
const log = document.getElementById("log");
document.documentElement.classList.add("scripted");

async function metrics(run, after) {
  const answer = await fetch(`/api/runs/${run}/metrics?after_step=${after}`, { headers: { Accept: "application/json" } });
  return answer.ok ? (await answer.json()).data : [];
}

function figures(rows, weight, pick) {
  return [...curves.querySelectorAll("figure.chart")].map((figure) => {
    const lines = JSON.parse(figure.dataset.series);
    const values = [...figure.querySelectorAll(".value")];
    const canvas = figure.querySelector(".canvas");
    let kept = [];
    const read = (place) => lines.forEach(([name], line) => {
      const column = numbers(rows, name);
      values[line].textContent = told(place === null ? column.findLast((value) => value !== null) : column[kept[place]]);
    });
    const drawn = chart(canvas, lines.map(() => ({ band: figure.dataset.band })), { pick, read });
    // A metric measured now and then is joined over its gaps: a chart keeps only the steps it has.
    const draw = () => {
      const all = lines.map(([name]) => numbers(rows, name));
      kept = rows.map((_, place) => place).filter((place) => all.some((column) => column[place] !== null));
      const of = (column) => kept.map((place) => column[place]);
      const band = figure.dataset.band ? of(numbers(rows, figure.dataset.band)) : null;
      drawn.set(kept.map((place) => rows[place].step), all.map(of), band, weight());
      read(null);
    };
    return { draw };
  });
}

// A page that somebody is leaving is not loaded once more: that would take the click back. (A download leaves nothing.)
let leftAt = 0;
addEventListener("beforeunload", () => { leftAt = Date.now(); });

function reload() {
  if (Date.now() - leftAt < LEAVING_MS) return false;
  location.reload();
  return true;
}

async function follow() {
  const { run, kind, live } = curves.dataset;
  const slider = document.getElementById("smooth");
  const rows = await metrics(run, 0);
  const pick = kind === "grpo" ? (step) => { location.href = `/runs/${run}/rollouts?step=${step}`; } : null;
  const all = figures(rows, () => Number(slider.value), pick);
  const draw = () => all.forEach((figure) => figure.draw());
  draw();
  slider.addEventListener("input", draw);
  if (live !== "yes") return;
  let isStale = false;
  const timer = setInterval(async () => {
    const fresh = await metrics(run, rows.at(-1)?.step ?? 0).catch(() => []);
    rows.push(...fresh);
    // Charts are laid out by the server; the first step and a new metric lay them out anew.
    const known = new Set(all.length ? [...curves.querySelectorAll("figure.chart")].flatMap((figure) => JSON.parse(figure.dataset.series).map(([name]) => name)) : []);
    const news = fresh.some((row) => Object.keys(row).some((name) => name.startsWith("validation_") && !known.has(name)));
    isStale ||= news || (fresh.length && !all.length);
    if (isStale && reload()) clearInterval(timer);
    else if (fresh.length) draw();
  }, EVERY_MS);
}

function tail() {
  const { run, offset, live } = log.dataset;
  log.scrollTop = log.scrollHeight;
  if (live !== "yes") return;
  const state = document.getElementById("log-state");
  const source = new EventSource(`/api/runs/${run}/logs?offset=${offset}`);
  source.addEventListener("open", () => { state.textContent = "following"; });
  source.addEventListener("error", () => { state.textContent = "reconnecting"; });
  // An end of the service is not the run's: the browser connects again by itself.
  source.addEventListener("end", (event) => {
    if (!ENDED.includes(JSON.parse(event.data).state)) return;
    state.textContent = "";
    source.close();
  });
  source.addEventListener("message", (event) => {
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    log.append(event.data + "\n");
    if (log.textContent.length > MAX_LOG_CHARS) log.textContent = log.textContent.slice(-MAX_LOG_CHARS / 2);
    if (atEnd) log.scrollTop = log.scrollHeight;
  });
}

// What may be done with a run, and its last charts, are the server's to say: its end loads the page once more.
function finish() {
  const state = () => document.getElementById("status")?.dataset.state;
  if (ENDED.includes(state())) return;
  const timer = setInterval(() => {
    if (ENDED.includes(state()) && reload()) clearInterval(timer);
  }, EVERY_MS / 4);
}

finish();
if (curves) follow();
if (log) tail();
