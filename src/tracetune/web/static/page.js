// Keys for every page: "/" to the search field, j and k along rows marked data-row, Enter opens a row's first link,
// n and p to the next and the previous page or step.

const rows = () => [...document.querySelectorAll("[data-row]")];
const typing = (element) => element.closest("input, textarea, select, [contenteditable]") !== null;

function move(by) {
  const all = rows();
  if (!all.length) return;
  const focused = all.findIndex((row) => row.contains(document.activeElement));
  const at = focused >= 0 ? focused : all.findIndex((row) => row.matches("[aria-current]"));
  const next = all[Math.min(Math.max(at + by, 0), all.length - 1)];
  (next.matches("a, button, summary, [tabindex]") ? next : next.querySelector("a, button, summary"))?.focus();
  next.scrollIntoView({ block: "nearest" });
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
  if (event.key === "j") move(1);
  else if (event.key === "k") move(-1);
  else if (event.key === "n") document.querySelector("a[rel=next]")?.click();
  else if (event.key === "p") document.querySelector("a[rel=prev], a[rel=first]")?.click();
  else if (event.key === "/") {
    const search = document.querySelector("input[type=search]");
    if (!search) return;
    search.focus();
    event.preventDefault();
  }
});

// A form sends once: a second click while the answer is on its way would send it again.
document.addEventListener("submit", (event) => {
  if (event.target.method !== "post") return;
  if (event.target.dataset.sent) return event.preventDefault();
  const question = event.target.dataset.ask;
  if (question && !window.confirm(question)) return event.preventDefault();
  event.target.dataset.sent = "yes";
});
window.addEventListener("pageshow", () => document.querySelectorAll("form[data-sent]").forEach((form) => delete form.dataset.sent));
