// The study in the page, what a reader has chosen of it, and how values are written. Text enters the document as
// text only. These files are one module, in the order of html.py.
let page = JSON.parse(document.getElementById("data").textContent);
let rows = [];
let words = null; // what a search looks through: every text of a row, whether its column is shown or not

// All that a reader can choose; it outlives an update of the data.
const chosen = { logx: "log", logy: "linear", search: "", brushes: {}, sort: page.sort, columns: null, shown: 100 };
let filterProblem = ""; // what is wrong with the filter's expression
let selected = []; // indices of the rows that pass filter and boxes, in the table's order

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
  for (const [name, { value, options }] of Object.entries(page.choices)) {
    if (!options.some(([known]) => known === chosen[name])) chosen[name] = value;
  }
  markFrontier();
}

// A number of which less is better, from one of any column.
const lessIsBetter = (name, value) =>
  page.columns.find((column) => column.name === name)?.higher_is_better ? -value : value;

// Marks the frontier of the chosen axes: the rows with nothing at their cost or below that is better, and nothing
// cheaper that is as good. The first axes have the marks of the report, which may have been asked for more columns.
function markFrontier() {
  const { quality, cost } = chosen;
  const isFirst = quality === page.choices.quality.value && cost === page.choices.cost.value;
  const known = rows.filter((row) => row.state === "done" && row[quality] !== null && row[cost] !== null)
    .map((row) => ({ row, lost: lessIsBetter(quality, row[quality]), spent: lessIsBetter(cost, row[cost]) }))
    .sort((a, b) => a.spent - b.spent || a.lost - b.lost);
  const best = new Map(); // the best row so far of each group that compares
  for (const row of rows) {
    row.frontier = isFirst && page.rows.frontier[row.i];
    if ("tied_with" in row) row.tied_with = isFirst ? page.rows.tied_with[row.i] : null; // tested for these axes alone
  }
  for (const each of isFirst ? [] : known) {
    const group = each.row[page.rank_fields[quality]];
    const before = best.get(group);
    const ties = before && each.spent === before.spent && each.lost === before.lost;
    each.row.frontier = !before || ties || each.lost < before.lost;
    if (each.row.frontier) best.set(group, each);
  }
  const title = (name) => page.choices[name].options.find(([value]) => value === chosen[name])[1];
  page.columns[0].help = isFirst ? "on the frontier" : `on the frontier of ${title("quality")} and ${title("cost")}`;
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
const picks = { scatter: inScatter, parallel: inParallel };
const isNarrowed = () => Boolean(chosen.search.trim()) || Object.values(chosen.brushes).some(isBox);

function select() {
  const { test, problem } = filterOf(chosen.search);
  filterProblem = problem;
  const boxes = Object.entries(chosen.brushes).filter(([, box]) => isBox(box));
  selected = [];
  for (const row of rows) {
    row.selected = test(row.i) && boxes.every(([name, box]) => picks[name](row, box));
    if (row.selected) selected.push(row.i);
  }
  const { name, ascending } = chosen.sort;
  selected.sort((i, j) => compare(rows[i][name], rows[j][name], ascending) || i - j);
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
  if (!value || Math.abs(value) >= 1e27) return String(Number(value.toPrecision(3))); // beyond the last prefix, yotta
  const [mantissa, exponent] = value.toExponential(2).split("e").map(Number);
  const thousands = Math.min(Math.max(Math.trunc(exponent / 3), 0), 8);
  const shift = exponent - 3 * thousands;
  return (mantissa * 10 ** shift).toFixed(Math.max(2 - shift, 0)) + ["", ..."kMGTPEZY"][thousands];
}

function text(value, column) {
  if (value === null || value === undefined) return "–";
  if (column.name === "frontier") return value ? "●" : "";
  if (column.format) return number(value, column.format);
  return String(typeof value === "number" ? +value.toPrecision(12) : value);
}

function element(tag, content = [], options = {}) {
  const made = Object.assign(document.createElement(tag), options);
  made.append(...[content].flat());
  return made;
}
