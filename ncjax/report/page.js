// Draws charts in place of their first pictures, as wide as the page is, and lets tables sort and fold.
"use strict";

const PHONE = 560; // pixels of a narrow page
const ERRORS = 1; // what Vega logs
const BESIDE = 72; // pixels of axis and legend beside a panel

// Panels below each other where there is no room beside, and none wider than the page.
function fit(spec, room) {
  const panels = spec.concat || spec.hconcat || spec.vconcat || [];
  if (spec.concat && typeof spec.columns === "number") {
    const widest = Math.max(...panels.map((panel) => panel.width || 300));
    spec.columns = Math.max(1, Math.min(spec.columns, Math.floor(room / (widest + BESIDE))));
  }
  panels.forEach((panel) => fit(panel, room));
  if (typeof spec.width === "number" && spec.width > room - BESIDE) {
    const width = Math.max(120, room - 2.2 * BESIDE);
    if (spec.height === spec.width) spec.height = width;
    spec.width = width;
  }
  return spec;
}

async function draw(figure) {
  const place = figure.querySelector(".chart");
  const room = place.clientWidth;
  const spec = fit(JSON.parse(figure.querySelector("script").textContent), room);
  if (room < PHONE) {
    spec.config.axis.labelLimit = 110;
    spec.config.title.limit = room - 20;
    spec.config.legend = { ...spec.config.legend, labelLimit: (room - 90) / 2 };
  }
  const target = document.createElement("div");
  place.append(target);
  figure.room = room;
  figure.result?.finalize();
  figure.result = await vegaEmbed(target, spec, { renderer: "svg", actions: false, logLevel: ERRORS });
  place.replaceChildren(target);
  figure.dataset.drawn = "yes";
}

function offerPicture(figure) {
  const link = figure.querySelector("a[data-svg]");
  link.addEventListener("click", () => {
    const picture = figure.querySelector(".chart svg").cloneNode(true);
    picture.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    const text = new XMLSerializer().serializeToString(picture).replaceAll("currentColor", "#000000");
    link.href = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
  });
}

function sortBy(table, heading, column) {
  const down = heading.getAttribute("aria-sort") !== "descending";
  table.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  const key = (line) => line.cells[column].dataset.value ?? line.cells[column].textContent.trim();
  const isNumber = (text) => text !== "" && Number.isFinite(Number(text));
  const lines = [...table.tBodies[0].rows].sort((a, b) => {
    const [one, other] = [key(a), key(b)];
    if (isNumber(one) !== isNumber(other)) return isNumber(one) ? -1 : 1; // what has no number stays below
    const order = isNumber(one) ? Number(one) - Number(other) : one.localeCompare(other);
    return down ? -order : order;
  });
  table.tBodies[0].append(...lines);
}

function fold(table, button) {
  const open = button.getAttribute("aria-expanded") !== "true";
  button.setAttribute("aria-expanded", String(open));
  const cells = [...table.querySelectorAll(`[data-group="${button.dataset.folds}"]`)];
  cells.forEach((cell) => cell.classList.toggle("folded", !open));
  const heading = button.closest("th");
  heading.colSpan = open ? Number(heading.dataset.span) : 1;
  hint(table);
}

// Says so where a table is wider than its place.
function hint(table) {
  const place = table.closest(".scroll");
  const note = place.previousElementSibling;
  if (note?.classList.contains("hint")) note.hidden = place.scrollWidth <= place.clientWidth + 1;
}

const tables = [...document.querySelectorAll("table")];
for (const table of tables) {
  table.querySelectorAll("button[data-column]").forEach((button) =>
    button.addEventListener("click", () => sortBy(table, button.closest("th"), Number(button.dataset.column))));
  table.querySelectorAll("button[data-folds]").forEach((button) => {
    button.addEventListener("click", () => fold(table, button));
    if (window.innerWidth < PHONE) fold(table, button);
  });
  hint(table);
}
const figures = [...document.querySelectorAll("figure[data-chart]")];
figures.forEach(offerPicture);
const drawAll = async () => {
  for (const figure of figures) await draw(figure);
  document.documentElement.dataset.ready = "yes";
};
drawAll();
let waiting;
window.addEventListener("resize", () => {
  clearTimeout(waiting);
  waiting = setTimeout(() => {
    tables.forEach(hint);
    figures.filter((figure) => Math.abs(figure.room - figure.querySelector(".chart").clientWidth) > 40).forEach(draw);
  }, 300);
});
