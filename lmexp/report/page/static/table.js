// The table: the selected rows, the columns that were asked for, as many rows as somebody wants to see.
const MORE = 400; // further rows at a time: the browser lays out as many at once

const table = byId("table");
const N = { name: "n", title: "runs", unit: "", help: "independent runs, over which the means are", format: "", numeric: true };
const opened = new Set(); // the settings whose runs are shown below their means

function shownColumns() {
  const columns = page.columns.filter((column) => chosen.columns?.[column.name] ?? column.lead);
  if (!isMeans()) return columns;
  const ofMeans = columns.filter(({ name }) => !["seed", "state"].includes(name));
  const last = ofMeans.findLastIndex(({ name }) => name === "slug" || page.varied.includes(name));
  return ofMeans.toSpliced(last + 1, 0, N);
}

function drawTable() {
  const columns = shownColumns();
  table.tHead.replaceChildren(element("tr", columns.map(heading)));
  const drawn = shown.slice(0, chosen.shown);
  table.tBodies[0].replaceChildren(...drawn.flatMap((i) => [tableRow(points()[i], columns), ...runsOf(i, columns)]));
  byId("more").hidden = drawn.length === shown.length;
  byId("more").textContent = `Show ${amount(Math.min(MORE, shown.length - drawn.length), "more row")}`;
  byId("count").value = counted();
  byId("clear").disabled = !isNarrowed();
  byId("table-notes").textContent = tableNotes();
  remember();
}

function counted() {
  const [all, what] = isMeans() ? [settings, "settings"] : [rows, "rows"];
  const total = all.filter(isInPart).length;
  const of = chosen.part === null ? "" : ` of ${chosen.part}`;
  if (!isNarrowed()) return (isMeans() ? `${amount(total, "setting")}, ${amount(rows.filter(isInPart).length, "run")}` : amount(total, "row")) + of;
  const partly = isMeans() && shown.some((i) => settings[i].partial) ? "; means over the selected runs" : "";
  return `${shown.length.toLocaleString("en")} of ${total.toLocaleString("en")} ${what}${of} selected${partly}${filterProblem && `: ${filterProblem}`}`;
}

function tableNotes() {
  const notes = [`● ${page.columns[0].help}${isMeans() ? ", by the means" : ""}.`];
  if (isMeans()) notes.push("Means over the runs of a setting, which differ in the seed alone, ± half of the 95 % interval (Student's t).");
  if (chosen.part !== null) notes.push(`Only runs of ${chosen.part}: the others do not compare with them by this quality. “${LABELS.part}” below the scatter chart chooses them.`);
  if (rows.some((row) => row.shared)) notes.push(SHARED_NOTE);
  notes.push("A dash means that the value was not measured.");
  notes.push(`Choose a heading to sort, ${isMeans() ? "a setting to see its runs, a run" : "a run"} to see its details.`);
  return notes.join(" ");
}

// The rows of a setting's runs, if the reader has opened it.
function runsOf(i, columns) {
  if (!isMeans() || !opened.has(settings[i].slug)) return [];
  return settings[i].members.filter((row) => rows[row].selected).map((row) => tableRow(rows[row], columns));
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
    const words = cellText(row, column);
    if (column.name === "slug") {
      const open = element("button", words, { type: "button", className: "open" });
      if (row.members) open.setAttribute("aria-expanded", String(opened.has(row.slug)));
      return element("th", open, { scope: "row", className: "name" });
    }
    const cell = element("td", words, { className: classOf(column) });
    if (column.name === "frontier" && row.frontier) cell.setAttribute("aria-label", "on the frontier");
    return cell;
  });
  const kind = row.members ? "setting" : isMeans() ? "member" : "";
  const made = element("tr", cells, { className: `${kind} ${row.state === "done" ? "" : "unfinished"}`.trim() });
  made.dataset[row.members ? "setting" : "i"] = row.i;
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

function toggleRuns(i) {
  const { slug } = settings[i];
  if (!opened.delete(slug)) opened.add(slug);
  drawTable();
  const button = table.tBodies[0].querySelector(`tr[data-setting="${i}"] button`);
  button?.focus();
}

// Shows the runs of a setting in the table, from a mark of a chart.
function showRuns(i) {
  chosen.shown = Math.max(chosen.shown, shown.indexOf(i) + 1);
  opened.delete(settings[i].slug);
  toggleRuns(i);
  table.tBodies[0].querySelector(`tr[data-setting="${i}"]`)?.scrollIntoView({ block: "center" });
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
  if (!row || String(getSelection())) return;
  if (row.dataset.setting) toggleRuns(Number(row.dataset.setting));
  else openDetail(Number(row.dataset.i), event.target.closest("button"));
});
