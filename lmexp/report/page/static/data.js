// The study in the page, what a reader has chosen of it, and how values are written. Text enters the document as
// text only. These files are one module, in the order of html.py.
let page = JSON.parse(document.getElementById("data").textContent);
let rows = [];
let words = null; // what a search looks through: every text of a row, whether its column is shown or not

// All that a reader can choose; it outlives an update of the data.
const chosen = { logx: "log", logy: "linear", search: "", brushes: {}, sort: page.sort, columns: null, shown: 100 };
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
  for (const row of rows) row.frontier = isFirst && page.rows.frontier[row.i];
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

// ---- the selection: words and conditions in the filter, a box in the scatter, a box in the parallel lines ----

const CONDITION = /^([^<>=!]+)(<=|>=|!=|==?|<|>)(.+)$/;

function textOf(i) {
  if (!words) {
    const told = page.columns.map((column) => column.name).filter((name) => name !== "frontier");
    words = rows.map((row) => told.map((name) => row[name] ?? "").join(" ").toLowerCase());
  }
  return words[i];
}

const wordsIn = (text) => text.toLowerCase().split(/\s+/).filter(Boolean);
const namesOf = ({ name, title }) =>
  [name, title, name.split(".").pop()].map((known) => known.toLowerCase().replaceAll(" ", "_"));
const columnOf = (parts) => parts && page.columns.find((column) => namesOf(column).includes(parts[1]));

// What to say of a condition whose column is not there: no row can match it.
function problemOf(text) {
  for (const word of wordsIn(text)) {
    const parts = word.match(CONDITION);
    if (!parts || columnOf(parts) || rows.some((_, i) => textOf(i).includes(word))) continue;
    const known = page.columns.flatMap(namesOf).map((name) => [distance(parts[1], name), name]);
    const [changes, nearest] = known.reduce((best, other) => (other[0] < best[0] ? other : best));
    return `no column '${parts[1]}'` + (changes <= parts[1].length / 2 ? `; did you mean '${nearest}'?` : "");
  }
  return "";
}

// How many letters must be put in, left out or replaced to get from one word to the other (Levenshtein).
function distance(one, other) {
  let row = [...Array(other.length + 1).keys()];
  for (let i = 1; i <= one.length; i++) {
    const next = [i];
    for (let j = 1; j <= other.length; j++) {
      next.push(Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + (one[i - 1] !== other[j - 1])));
    }
    row = next;
  }
  return row[other.length];
}

function terms(text) {
  return wordsIn(text).map((word) => {
    const parts = word.match(CONDITION);
    const column = columnOf(parts);
    if (!column) return (i) => textOf(i).includes(word);
    const sign = parts[2] === "==" ? "=" : parts[2];
    const wanted = parts[3].replace(/^(['"])(.*)\1$/, "$2");
    const number = Number(wanted);
    return (i) => {
      const value = rows[i][column.name];
      if (value === null) return false;
      if (column.numeric && !Number.isNaN(number)) {
        return { "<": value < number, "<=": value <= number, ">": value > number, ">=": value >= number,
          "=": value === number, "!=": value !== number }[sign];
      }
      const same = String(value).toLowerCase() === wanted;
      return sign === "!=" ? !same : sign === "=" && same;
    };
  });
}

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
  const tests = terms(chosen.search);
  const boxes = Object.entries(chosen.brushes).filter(([, box]) => isBox(box));
  selected = [];
  for (const row of rows) {
    row.selected = tests.every((test) => test(row.i)) && boxes.every(([name, box]) => picks[name](row, box));
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
