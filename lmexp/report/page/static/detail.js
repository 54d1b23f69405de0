// One run: how its config differs from another's, its curve, the end of its log, the command that repeats it.
const detail = byId("detail");
let at = null; // index of the row that is open
let baseline = null; // run_id; null is the best run of the table
let opener = null;

function openDetail(i, from = null) {
  if (!detail.open) opener = from;
  at = i;
  fillDetail();
  if (!detail.open) detail.showModal();
  byId("detail-name").focus();
  remember();
}

function fillDetail() {
  const row = rows[at];
  const told = page.details.runs[row.run_id];
  const place = selected.indexOf(at);
  byId("detail-name").textContent = text(row.slug, {});
  byId("place").value = place < 0 ? "not selected" : `${place + 1} of ${selected.length}`;
  byId("previous").disabled = place <= 0;
  byId("next").disabled = place < 0 || place + 1 >= selected.length;
  const state = row.state === "done" ? [] : [element("p", [row.state, row.reason ? `: ${row.reason}` : ""].join(""), { className: "headline" })];
  byId("detail-body").replaceChildren(...state, pickButton(row), ...factsOf(row), ...difference(row), ...allSettingsOf(told), ...answersOf(told), ...curveOf(row), ...logOf(told), ...commandOf(told));
}

function factsOf(row) {
  const columns = page.columns.filter((column) => column.lead && !["frontier", "slug"].includes(column.name)
    && (row[column.name] ?? null) !== null);
  return [element("dl", columns.flatMap((column) =>
    [element("dt", column.title), element("dd", `${cellText(row, column)} ${column.numeric ? column.unit : ""}`)]), { className: "facts" }), ...sharedNote([row])];
}

const sharedNote = (runs) => (runs.some((row) => row.shared) ? [element("p", SHARED_NOTE, { className: "note" })] : []);

// ---- config ----

const bestRow = () => rows.find((row) => row.i === best());
const best = () => {
  const { name, ascending } = page.sort;
  return rows.filter((row) => row.state === "done" && row[name] !== null)
    .sort((a, b) => compare(a[name], b[name], ascending))[0]?.i;
};

// A config as pairs; where the page has no config of a run, the swept values stand for it.
function configOf(row, whole) {
  const told = page.details.runs[row.run_id]?.config;
  if (told && whole) return told;
  return Object.fromEntries(page.varied.map((axis) => [axis, row[axis] === null ? "–" : String(row[axis])]));
}

function difference(row) {
  const base = rows.find((other) => other.run_id === baseline) ?? bestRow() ?? rows[0];
  const whole = row.run_id in page.details.runs && base.run_id in page.details.runs;
  const [theirs, ours] = [configOf(base, whole), configOf(row, whole)];
  const keys = [...new Set([...Object.keys(ours), ...Object.keys(theirs)])].filter((key) => ours[key] !== theirs[key]);
  const choice = element("select", [], { id: "baseline" });
  const few = selected.length > 500 ? [...new Set([base.i, row.i, ...selected.slice(0, 500)])] : [...new Set([base.i, ...selected])];
  for (const i of few) choice.append(element("option", text(rows[i].slug, {}), { value: rows[i].run_id }));
  choice.value = base.run_id;
  choice.addEventListener("change", () => { baseline = choice.value; fillDetail(); byId("baseline").focus(); });
  const shown = keys.length
    ? tableOf(["setting", "this run", "baseline"], keys.map((key) => [key, ours[key] ?? "–", theirs[key] ?? "–"]))
    : element("p", row.run_id === base.run_id ? "This run is the baseline." : "Nothing differs.", { className: "note" });
  const partly = whole ? [] : [element("p",
    "Only the swept values: this page holds the configs of the best, the frontier's and the failed runs.", { className: "note" })];
  return [element("h3", "Config, where it differs"),
    element("div", [element("label", "Baseline", { htmlFor: "baseline" }), choice], { className: "choices" }), shown, ...partly];
}

// Every setting of the run, numbers and texts, by its key.
function allSettingsOf(told) {
  const settings = Object.entries({ ...page.details.common, ...told?.config }).sort(([a], [b]) => (a < b ? -1 : 1));
  if (!told || !settings.length) return [];
  const folded = element("details", element("summary", `All ${settings.length} settings`), { className: "settings" });
  folded.addEventListener("toggle", () => folded.append(tableOf(["setting", "value"], settings)), { once: true });
  return [folded];
}

// ---- what it answered ----

function answersOf(told) {
  const { confusion, spans, examples } = told?.answers ?? {};
  const shown = [];
  if (confusion) {
    const head = ["right label \\ guessed", ...confusion.labels];
    shown.push(element("h3", "Labels, and what was guessed for them"),
      tableOf(head, confusion.labels.map((label, i) => [label, ...confusion.counts[i].map((n) => n.toLocaleString("en"))])));
  }
  if (spans) {
    const three = (value) => value.toFixed(3);
    shown.push(element("h3", "Types of spans"),
      tableOf(["type", "precision", "recall", "F1", "spans", "guessed"], Object.entries(spans).map(([type, of]) =>
        [type, three(of.precision), three(of.recall), three(of.f1), String(of.spans), String(of.guessed)])));
  }
  if (examples) {
    shown.push(element("h3", "Examples, wrong ones first"),
      tableOf(["text", "right", "guessed"], examples.map(({ input, gold, guess }) => [input, gold, guess])));
  }
  return shown;
}

function tableOf(headings, lines) {
  const head = element("tr", headings.map((word) => element("th", word, { scope: "col" })));
  const body = lines.map(([first, ...others]) => element("tr",
    [element("th", breakable(first), { scope: "row" }), ...others.map((value) => element("td", breakable(value)))]));
  return element("div", element("table", [element("thead", head), element("tbody", body)], { className: "wrap" }), { className: "scroll" });
}

// A word of more than 14 characters may break inside; html.py does the same.
function breakable(text) {
  if (typeof text !== "string") return text;
  return text.split(/(\S{15,})/).map((part, i) => i % 2 ? element("span", part, { className: "long" }) : part);
}

// ---- curve, log, command ----

function curveOf(row) {
  const curves = page.curves.filter((curve) => curve.run_id === row.run_id);
  if (!curves.length) return [element("h3", "Curve"), element("p", "No curve.", { className: "note" })];
  const place = element("figure", [], { className: "chart", id: "detail-curve" });
  requestAnimationFrame(() => {
    if (!place.isConnected) return;
    const spec = dressed("curves", place, "svg");
    spec.datasets = { ...spec.datasets, curves, rows: [{ ...row }] };
    spec.height = 200;
    spec.description = `Loss of ${row.slug} as it trained`;
    vegaEmbed(place, spec, { ...EMBED, renderer: "svg" });
  });
  return [element("h3", "Curve"), place];
}

function logOf(told) {
  if (!told) return [element("p", `Logs and configs of ${amount(page.details.left_out, "run")} are not in this file; lmexp logs shows them.`, { className: "note" })];
  const log = element("pre", told.log || "It printed nothing.", { tabIndex: 0 });
  log.setAttribute("role", "region");
  log.setAttribute("aria-label", "End of the log");
  return [element("h3", "End of the log"), log];
}

function commandOf(told) {
  if (!told) return [];
  const command = element("pre", told.command, { tabIndex: 0, className: "command" });
  command.setAttribute("role", "region");
  command.setAttribute("aria-label", "Command");
  return [element("h3", "To train it once more"), command];
}

// ---- moving ----

function step(by) {
  const place = selected.indexOf(at) + by;
  if (place >= 0 && place < selected.length) openDetail(selected[place]);
}

byId("previous").addEventListener("click", () => step(-1));
byId("next").addEventListener("click", () => step(1));
byId("close").addEventListener("click", () => detail.close());
detail.addEventListener("click", (event) => { if (event.target === detail) detail.close(); });
detail.addEventListener("keydown", (event) => {
  if (event.target.closest("select, pre")) return;
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
});
detail.addEventListener("close", () => {
  const row = table.tBodies[0].querySelector(`tr[data-i="${at}"] button`); // the row may have moved
  (opener?.isConnected ? opener : row)?.focus();
  at = opener = null;
  remember();
});
