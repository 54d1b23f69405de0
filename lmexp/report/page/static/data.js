// The study in the page, what a reader has chosen of it, and how values are written. Text enters the document as
// text only. These files are one module, in the order of html.py.
let page = JSON.parse(document.getElementById("data").textContent);
let rows = [];
let settings = []; // the means over seeds, one object a setting; none if no setting has several seeds
let words = null; // what a search looks through: every text of a row, whether its column is shown or not

// All that a reader can choose; it outlives an update of the data.
const chosen = { show: "means", logx: "log", logy: "linear", search: "", brushes: {}, sort: page.sort, columns: null, shown: 100 };
let filterProblem = ""; // what is wrong with the filter's expression
let selected = []; // indices of the rows that pass filter and boxes, in the table's order
let shown = []; // indices of the points that are selected: of rows, or of settings; in the table's order
const SHARED_NOTE = "~ measured while other work was on the device.";
const HALF = "_ci95"; // ends the name of a number's half 95 % interval, as in analysis/groups.py

const byId = (id) => document.getElementById(id);

function load(data) {
  page = data;
  const names = Object.keys(page.rows);
  // Columns to rows: the table is stored by column, so that each name is in the file once.
  rows = Array.from({ length: page.n_rows }, (_, i) => {
    const row = { i, selected: true };
    for (const name of names) row[name] = page.rows[name][i];
    return row;
  });
  words = null; // until somebody searches
  settings = settingsOf(page.means);
  for (const [name, { value, options }] of Object.entries(page.choices)) {
    if (!options.some(([known]) => known === chosen[name])) chosen[name] = value;
  }
  choosePart();
  if (isMeans()) selectMeans();
  markFrontier();
}

// ---- parts: rows that must not be ranked together by the chosen quality, such as those of two texts; one is shown ----

const partsOf = (quality) => page.parts[page.rank_fields[quality]] ?? [];

// Keeps the chosen part if the chosen quality has it; else the first one is chosen, or none if all rows compare.
function choosePart() {
  const names = partsOf(chosen.quality);
  if (!names.includes(chosen.part)) chosen.part = names[0] ?? null;
}

// Whether a row or a setting is of the chosen part. One without a result is of every part.
function isInPart(row) {
  const at = row[page.rank_fields[chosen.quality]] ?? null;
  return chosen.part === null || at === null || partsOf(chosen.quality)[at] === chosen.part;
}

// Whether some of these rows must not be ranked together by a quality.
const isMixed = (some, quality) => partsOf(quality).length > 0
  && new Set(some.map((row) => row[page.rank_fields[quality]] ?? null).filter((at) => at !== null)).size > 1;

// ---- means over seeds: computed by analysis/groups.py; if a selection leaves out runs of a setting, here ----

const isMeans = () => settings.length > 0 && chosen.show === "means";
const points = () => (isMeans() ? settings : rows); // what scatter and table show

function settingsOf(means) {
  if (!means) return [];
  return means.members.map((members, i) => {
    const setting = { i, members, selected: true, partial: false };
    for (const [name, values] of Object.entries(means.rows)) setting[name] = values[i];
    for (const [name, halves] of Object.entries(means.half)) setting[name + HALF] = halves[i];
    for (const name of new Set(Object.values(page.rank_fields))) setting[name] = rows[members[0]][name];
    for (const row of members) rows[row].setting = setting;
    return setting;
  });
}

// The mean of a column over some rows and half its 95 % interval (Student's t); rows of one unit are one value.
function meanOf(name, members) {
  const units = new Map();
  for (const i of members) {
    if (rows[i][name] === null) continue;
    const unit = page.means.unit[i];
    units.set(unit, [...(units.get(unit) ?? []), rows[i][name]]);
  }
  return spreadOf([...units.values()].map(average));
}

const average = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

// The mean of independent values and half its 95 % interval, as analysis/effects/noise.py has them.
function spreadOf(values) {
  const n = values.length;
  if (!n) return { n, mean: null, half: null };
  const mean = average(values);
  if (n < 2) return { n, mean, half: null };
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (n - 1);
  return { n, mean, half: page.means.t[n - 2] * Math.sqrt(variance / n) };
}

// Lets each setting have the means over those of its runs that pass; returns whether a mean has changed.
function selectMeans() {
  let isChanged = false;
  for (const setting of settings) {
    const passed = setting.members.filter((i) => rows[i].passes !== false);
    setting.selected = passed.length > 0;
    const isPartial = setting.selected && passed.length < setting.members.length;
    if (!isPartial && !setting.partial) continue;
    const { i } = setting;
    isChanged = true;
    setting.partial = isPartial;
    for (const name of Object.keys(page.means.half)) {
      const { mean, half } = isPartial ? meanOf(name, passed)
        : { mean: page.means.rows[name][i], half: page.means.half[name][i] };
      setting[name] = mean;
      setting[name + HALF] = half;
    }
    setting.n = isPartial ? meanOf(page.choices.quality.value, passed).n : page.means.rows.n[i];
    setting.shared = isPartial ? passed.some((row) => rows[row].shared) : page.means.rows.shared[i];
  }
  return isChanged;
}

// A number of which less is better, from one of any column.
const lessIsBetter = (name, value) =>
  page.columns.find((column) => column.name === name)?.higher_is_better ? -value : value;

// Marks the frontier of the chosen axes: the rows with nothing at their cost or below that is better, and nothing
// cheaper that is as good. The first axes have the marks of the report, which may have been asked for more columns.
function markFrontier() {
  const { quality, cost } = chosen;
  const all = points();
  const marks = isMeans() ? page.means.rows : page.rows;
  const isFirst = quality === page.choices.quality.value && cost === page.choices.cost.value
    && !(isMeans() && settings.some((setting) => setting.partial));
  const known = all.filter((row) => row.state === "done" && row[quality] !== null && row[cost] !== null)
    .map((row) => ({ row, lost: lessIsBetter(quality, row[quality]), spent: lessIsBetter(cost, row[cost]) }))
    .sort((a, b) => a.spent - b.spent || a.lost - b.lost);
  const best = new Map(); // the best row so far of each group that compares
  for (const row of all) {
    row.frontier = isFirst && marks.frontier[row.i];
    if ("tied_with" in row) row.tied_with = isFirst ? marks.tied_with[row.i] : null; // tested for these axes alone
  }
  for (const each of isFirst ? [] : known) {
    const group = each.row[page.rank_fields[quality]];
    const before = best.get(group);
    const ties = before && each.spent === before.spent && each.lost === before.lost;
    each.row.frontier = !before || ties || each.lost < before.lost;
    if (each.row.frontier) best.set(group, each);
  }
  const title = (name) => page.choices[name].options.find(([value]) => value === chosen[name])[1];
  page.columns[0].help = `on the frontier of ${title("quality")} and ${title("cost")}`;
}

// ---- the selection: an expression in the filter (filter.js), a box in the scatter, a box in the parallel lines ----

const within = (value, [a, b]) => value !== null && value >= Math.min(a, b) && value <= Math.max(a, b);

function inScatter(row, box) {
  return row.state === "done" && within(row[chosen.cost], box.x) && within(row[chosen.quality], box.y);
}

function inParallel(row, box) {
  const crossed = page.lines.filter((_, i) => within(i, box.x));
  return row.state === "done" && crossed.every(({ key }) => within(row[key], box.y));
}

const isBox = (box) => Boolean(box && box.x && box.y);
const isNarrowed = () => Boolean(chosen.search.trim()) || Object.values(chosen.brushes).some(isBox);

function select() {
  const { test, problem } = filterOf(chosen.search);
  filterProblem = problem;
  const { scatter, parallel } = chosen.brushes;
  for (const row of rows) row.passes = isInPart(row) && test(row.i) && (!isBox(parallel) || inParallel(row, parallel));
  if (isMeans() && selectMeans()) markFrontier();
  for (const point of points()) {
    point.selected = (isMeans() ? point.selected : point.passes) && (!isBox(scatter) || inScatter(point, scatter));
  }
  if (isMeans()) for (const row of rows) row.selected = row.passes && (row.setting ? row.setting.selected : !isBox(scatter));
  selected = inOrder(rows);
  shown = isMeans() ? inOrder(settings) : selected;
}

function inOrder(all) {
  const { name, ascending } = chosen.sort;
  return all.filter((row) => row.selected).map((row) => row.i)
    .sort((i, j) => compare(all[i][name] ?? null, all[j][name] ?? null, ascending) || i - j);
}

const collator = new Intl.Collator("en", { numeric: true });

function compare(a, b, ascending) {
  if (a === null || b === null) return (a === null) - (b === null);
  const order = typeof a === "string" ? collator.compare(a, b) : a - b;
  return ascending ? order : -order;
}

// ---- how values are written: the formats of analysis/columns.py ----

const decimals = new Map();

function number(value, format) {
  if (format.endsWith("s")) return si(value);
  const significant = format.match(/\.(\d+)g/);
  if (significant) return String(Number(value.toPrecision(Number(significant[1]))));
  const digits = Number(format.match(/\.(\d+)f/)[1]);
  if (!decimals.has(digits)) {
    decimals.set(digits, new Intl.NumberFormat("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }));
  }
  return decimals.get(digits).format(value);
}

function si(value) {
  if (!value) return "0";
  const [mantissa, exponent] = value.toExponential(2).split("e").map(Number);
  if (exponent >= 18) return `${mantissa}e${exponent}`; // as papers write FLOPs
  const thousands = Math.max(Math.trunc(exponent / 3), 0);
  const shift = exponent - 3 * thousands;
  return (mantissa * 10 ** shift).toFixed(Math.max(2 - shift, 0)) + ["", ..."kMGTP"][thousands];
}

function text(value, column) {
  if (value === null || value === undefined) return "–";
  if (column.name === "frontier") return value ? "●" : "";
  if (column.format) return number(value, column.format);
  return String(typeof value === "number" ? +value.toPrecision(12) : value);
}

// A value of a run or a setting: a mean with half its 95 % interval, and ~ before what shared its device.
function cellText(row, column) {
  const value = row[column.name];
  const words = text(value, column);
  if (!column.numeric || value === null || value === undefined) return words;
  const mark = row.shared && column.device_bound ? "~" : "";
  const half = row[column.name + HALF];
  return mark + words + (half > 0 ? ` ± ${text(half, halfOf(column, value, half))}` : "");
}

// The format of an interval's half: that of the number, unless this leaves no digit of it.
function halfOf(column, value, half) {
  const isLost = column.format && !Number(number(half, column.format).replace(/[^\d.]/g, ""));
  return isLost || !column.format ? { ...column, format: ".2g" } : column;
}

// A number of things in words: 1 row, 1,200 rows.
const amount = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

function element(tag, content = [], options = {}) {
  const made = Object.assign(document.createElement(tag), options);
  made.append(...[content].flat());
  return made;
}
