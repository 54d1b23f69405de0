// The table: the selected rows, the columns that were asked for, as many rows as somebody wants to see.
const MORE = 400; // further rows at a time: the browser lays out as many at once

const table = byId("table");
const shownColumns = () => page.columns.filter((column) => chosen.columns?.[column.name] ?? column.lead);

function drawTable() {
  const columns = shownColumns();
  table.tHead.replaceChildren(element("tr", columns.map(heading)));
  const shown = selected.slice(0, chosen.shown);
  table.tBodies[0].replaceChildren(...shown.map((i) => tableRow(rows[i], columns)));
  byId("more").hidden = shown.length === selected.length;
  byId("more").textContent = `Show ${Math.min(MORE, selected.length - shown.length)} more rows`;
  const total = rows.length.toLocaleString("en");
  byId("count").value = isNarrowed()
    ? `${selected.length.toLocaleString("en")} of ${total} rows selected${filterProblem && `: ${filterProblem}`}` : `${total} rows`;
  byId("clear").disabled = !isNarrowed();
}

function heading(column) {
  const button = element("button", column.title, { type: "button", onclick: () => sortBy(column) });
  if (column.name === "frontier") button.setAttribute("aria-label", "on the frontier");
  const unit = column.unit ? [element("small", column.unit)] : [];
  const head = element("th", [button, ...unit], { scope: "col", title: column.help });
  head.className = classOf(column);
  if (chosen.sort.name === column.name) head.setAttribute("aria-sort", chosen.sort.ascending ? "ascending" : "descending");
  return head;
}

function tableRow(row, columns) {
  const cells = columns.map((column) => {
    const words = text(row[column.name], column);
    if (column.name === "slug") {
      const open = element("button", words, { type: "button", className: "open" });
      return element("th", open, { scope: "row", className: "name" });
    }
    const cell = element("td", words, { className: classOf(column) });
    if (column.name === "frontier" && row.frontier) cell.setAttribute("aria-label", "on the frontier");
    return cell;
  });
  const made = element("tr", cells, { className: row.state === "done" ? "" : "unfinished" });
  made.dataset.i = row.i;
  return made;
}

const classOf = (column) =>
  column.name === "frontier" ? "mark" : column.name === "slug" ? "name" : column.numeric ? "number" : "";

// The same heading again turns the order round; a new one starts with what is better, or with the smallest.
function sortBy(column) {
  const again = chosen.sort.name === column.name;
  chosen.sort = { name: column.name, ascending: again ? !chosen.sort.ascending : !column.higher_is_better };
  select();
  drawTable();
  table.tHead.rows[0].cells[shownColumns().indexOf(column)].querySelector("button").focus();
}

function drawColumnChoices() {
  byId("columns-shown").replaceChildren(byId("columns-shown").firstElementChild, ...page.columns.map((column) => {
    const box = element("input", [], { type: "checkbox", checked: chosen.columns?.[column.name] ?? column.lead });
    box.disabled = column.name === "slug";
    box.addEventListener("change", () => {
      chosen.columns = { ...chosen.columns, [column.name]: box.checked };
      drawTable();
    });
    const title = column.name === "frontier" ? "on the frontier" : column.title;
    return element("label", [box, ` ${title}`], { className: "check", title: column.help });
  }));
}

function choose(columns) {
  chosen.columns = columns;
  drawColumnChoices();
  drawTable();
}

byId("all-columns").addEventListener("click", () =>
  choose(Object.fromEntries(page.columns.map((column) => [column.name, true]))));
byId("lead-columns").addEventListener("click", () => choose(null));
byId("more").addEventListener("click", () => {
  const first = chosen.shown;
  chosen.shown += MORE;
  drawTable();
  table.tBodies[0].rows[first].querySelector("button").focus(); // the first of those that came
});
table.tBodies[0].addEventListener("click", (event) => {
  const row = event.target.closest("tr");
  if (row && !String(getSelection())) openDetail(Number(row.dataset.i), event.target.closest("button"));
});
