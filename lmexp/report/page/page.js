// Fills the page from the JSON in it: two charts by Vega, one table by hand. Text enters the document as text only.
const page = JSON.parse(document.getElementById("data").textContent);
const PAGE = 100; // rows shown before somebody asks for all

// Columns to rows: the table is stored by column, so that each name is in the file once.
const names = Object.keys(page.rows);
const rows = Array.from({ length: page.n_rows }, (_, i) =>
  Object.fromEntries(names.map((name) => [name, page.rows[name][i]])));

// ---- charts ----

for (const id of ["frontier", "curves"]) {
  const spec = { ...page.charts[id], datasets: { ...page.charts[id].datasets, rows, curves: page.curves } };
  vegaEmbed(`#${id}`, spec, { renderer: "svg", actions: false, bind: `#${id}-choices`, tooltip: { theme: "custom" } })
    .then((result) => { (window.views ??= {})[id] = result.view; });
}

// ---- table ----

const table = document.getElementById("table");
const search = document.getElementById("search");
const wide = document.getElementById("wide");
const more = document.getElementById("more");
let sort = page.sort;
let all = false;

// The formats of analysis/columns.py: SI prefixes, a number of decimals, or the value as it is.
function number(value, format) {
  if (format.endsWith("s")) return si(value);
  const digits = Number(format.match(/\.(\d+)f/)[1]);
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

function si(value) {
  if (!value) return String(value);
  const [mantissa, exponent] = value.toExponential(2).split("e").map(Number);
  const thousands = Math.min(Math.max(Math.trunc(exponent / 3), 0), 8);
  const shift = exponent - 3 * thousands;
  return (mantissa * 10 ** shift).toFixed(Math.max(2 - shift, 0)) + ["", ..."kMGTPEZY"][thousands];
}

function text(value, column) {
  if (value === null) return "–";
  if (column.name === "frontier") return value ? "●" : "";
  return column.format ? number(value, column.format) : String(typeof value === "number" ? +value.toPrecision(12) : value);
}

function element(tag, content, options = {}) {
  const made = Object.assign(document.createElement(tag), options);
  made.append(...[content].flat());
  return made;
}

// What a search looks through: every text of a row, whether its column is shown or not.
const words = rows.map((row) => names.map((name) => row[name] ?? "").join(" ").toLowerCase());

function compare(a, b) {
  if (a === null || b === null) return (a === null) - (b === null) || 0;
  const order = typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b;
  return sort.ascending ? order : -order;
}

function draw() {
  const columns = page.columns.filter((column) => wide.checked || column.lead);
  table.tHead.replaceChildren(element("tr", columns.map((column) => {
    const button = element("button", column.title, { type: "button", onclick: () => sortBy(column) });
    const unit = column.unit ? [element("small", column.unit)] : [];
    const head = element("th", [button, ...unit], { scope: "col", title: column.help });
    head.className = column.numeric ? "number" : "";
    if (sort.name === column.name) head.setAttribute("aria-sort", sort.ascending ? "ascending" : "descending");
    return head;
  })));

  const sought = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const found = rows.map((_, i) => i).filter((i) => sought.every((word) => words[i].includes(word)));
  found.sort((i, j) => compare(rows[i][sort.name], rows[j][sort.name]) || i - j);
  const shown = all ? found : found.slice(0, PAGE);
  table.tBodies[0].replaceChildren(...shown.map((i) => {
    const cells = columns.map((column) => {
      const head = column.name === "slug";
      const cell = element(head ? "th" : "td", text(rows[i][column.name], column), head ? { scope: "row" } : {});
      cell.className = column.numeric ? "number" : "";
      if (column.name === "frontier" && rows[i].frontier) cell.setAttribute("aria-label", "on the frontier");
      return cell;
    });
    return element("tr", cells, { className: rows[i].state === "done" ? "" : "unfinished" });
  }));
  const total = rows.length.toLocaleString("en");
  document.getElementById("count").value =
    shown.length === rows.length ? `${total} rows` : `${shown.length.toLocaleString("en")} of ${total} rows`;
  more.hidden = shown.length === found.length;
}

// The same heading again turns the order round; a new one starts with what is better, or with the smallest.
function sortBy(column) {
  const again = sort.name === column.name;
  sort = { name: column.name, ascending: again ? !sort.ascending : !column.higher_is_better };
  draw();
  const at = page.columns.filter((other) => wide.checked || other.lead).indexOf(column);
  table.tHead.rows[0].cells[at].querySelector("button").focus();
}

search.addEventListener("input", draw);
wide.addEventListener("change", draw);
more.addEventListener("click", () => { all = true; draw(); });
draw();
