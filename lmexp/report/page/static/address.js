// The view in the address: what differs from the page as it begins, after the #. Who opens the address sees the same. The
// entry in the history is replaced, so that "back" leaves the page instead of undoing every letter of a filter. What an
// address says is taken only if it is one of the page's own columns, runs and options, or a number.
const QUIET = 200; // milliseconds without a change until the address follows
let asFirst = null; // the choices of the page as it begins
let later = null;
let written = location.hash; // if the address is another one, the browser has moved and has not said so yet

const choiceNames = () => [...document.querySelectorAll("[data-choices]")].flatMap((place) => place.dataset.choices.split(" "));

function hashOf() {
  const parts = [];
  const put = (key, value) => parts.push(`${key}=${encodeURIComponent(value)}`);
  for (const name of choiceNames()) if (chosen[name] !== asFirst[name] && chosen[name] !== null) put(name, chosen[name]);
  if (chosen.search.trim()) put("filter", chosen.search);
  for (const [name, box] of Object.entries(chosen.brushes)) if (isBox(box)) put(`box-${name}`, [...box.x, ...box.y].map((side) => +side.toPrecision(8)).join(" "));
  const { name, ascending } = chosen.sort;
  if (name !== page.sort.name || ascending !== page.sort.ascending) put("sort", (ascending ? "" : "-") + name);
  for (const column of page.columns) {
    const shown = chosen.columns?.[column.name] ?? column.lead;
    if (shown !== column.lead) put(shown ? "column" : "without", column.name);
  }
  for (const run of picked) put("compare", run);
  if (comparison.open) put("view", "compare");
  if (at !== null) put("run", rows[at].run_id);
  return parts.length ? `#${parts.join("&")}` : "";
}

function remember() {
  if (!asFirst) return;
  clearTimeout(later);
  later = setTimeout(() => {
    if (location.hash !== written) return;
    try { history.replaceState(null, "", hashOf() || location.pathname + location.search); } catch { /* a page without an address */ }
    written = location.hash;
  }, QUIET);
}

// Takes the choices of the address; everything that it does not name is as at first.
function recall() {
  asFirst ??= Object.fromEntries(choiceNames().map((name) => [name, chosen[name]]));
  written = location.hash;
  const told = new URLSearchParams(location.hash.slice(1));
  for (const name of choiceNames()) {
    chosen[name] = optionsOf(name).some(([value]) => value === told.get(name)) ? told.get(name) : asFirst[name];
  }
  choosePart();
  chosen.search = (told.get("filter") ?? "").slice(0, MAX_CHARACTERS);
  byId("search").value = chosen.search;
  chosen.brushes = {};
  for (const name of brushed) {
    const sides = (told.get(`box-${name}`) ?? "").split(" ").map(Number);
    const [x, y] = [sides.slice(0, 2), sides.slice(2)];
    const isDrawable = (pair, scale) => pair.every((side) => Number.isFinite(side) && (scale !== "log" || side > 0));
    const [across, up] = name === "scatter" ? [chosen.logx, chosen.logy] : ["linear", "linear"];
    if (sides.length === 4 && isDrawable(x, across) && isDrawable(y, up)) chosen.brushes[name] = { x, y };
  }
  const known = new Set(page.columns.map((column) => column.name));
  const sort = told.get("sort") ?? "";
  const name = known.has(sort) ? sort : sort.slice(1);
  chosen.sort = known.has(name) ? { name, ascending: name === sort } : page.sort;
  const changed = [...told].filter(([key, column]) => ["column", "without"].includes(key) && known.has(column) && column !== "slug");
  chosen.columns = changed.length ? Object.fromEntries(changed.map(([key, column]) => [column, key === "column"])) : null;
  const runs = new Set(rows.map((row) => row.run_id));
  picked = [...new Set(told.getAll("compare"))].filter((run) => runs.has(run)).slice(0, MAX_COMPARED);
  markFrontier();
}

// Opens the run or the comparison of the address, or closes what is open.
function openRecalled() {
  const told = new URLSearchParams(location.hash.slice(1));
  const row = rowOf(told.get("run"));
  if (told.get("view") === "compare" && picked.length > 1) openComparison();
  else if (comparison.open) comparison.close();
  if (row) openDetail(row.i);
  else if (detail.open) detail.close();
}

addEventListener("hashchange", () => {
  clearTimeout(later);
  recall();
  select();
  drawChoices();
  drawColumnChoices();
  drawTable();
  drawAll();
  drawCompared();
  openRecalled();
});

byId("copy").addEventListener("click", async () => {
  const button = byId("copy");
  try {
    await navigator.clipboard.writeText(location.href.split("#")[0] + hashOf());
    button.textContent = "Copied";
  } catch { // the browser does not let a page copy
    button.textContent = "Copy it from the address bar";
  }
  setTimeout(() => { button.textContent = "Copy link"; }, 2000);
});
