// The charts: Vega draws them from the page's specs, with what the reader has chosen put in. With many rows a chart
// is drawn when it is scrolled to, and follows the selection when it is in sight.
const BELOW = ["scatter", "parallel", "effects", "heat", "curves"]; // from the top of the page
let CHARTS = BELOW; // with the lead first: the chart that shows the answer
const CANVAS = 1000; // more rows than these are drawn on a canvas: a document of as many marks is slow
const DARK = matchMedia("(prefers-color-scheme: dark)");
const NEAR = 100; // pixels from the window at which a chart counts as in sight
const LEAD = { least: 280, most: 400, frame: 130, below: 24, narrow: 600 }; // pixels: its height, axes and title, what is free below
const MAX_CURVES = 400;
const MAX_LINES = 800;
const EMBED = { actions: false, tooltip: { theme: "custom", formatTooltip: tooltip }, logLevel: 1 }; // errors: an empty selection is none

const views = {};
window.views = views; // for tests, and for the curious in a console
const brushed = ["scatter", "parallel"];

// The parameters of each chart that a reader chooses.
const parameters = () => ({
  ...chosen, logx: chosen.logx === "log", logy: chosen.logy === "log",
});

// The spec of a chart that is as wide as a figure. In an SVG, ink and paper are the page's own colours, so that they follow
// it, on paper too; a canvas has them as they are now.
function dressed(name, figure, renderer) {
  const { color, backgroundColor } = getComputedStyle(document.documentElement);
  const [ink, paper] = renderer === "svg" ? ["currentColor", "var(--paper)"] : [color, backgroundColor];
  const spec = JSON.parse(JSON.stringify(page.charts[name])
    .replaceAll('"currentColor"', JSON.stringify(ink)).replaceAll('"Canvas"', JSON.stringify(paper)));
  const values = parameters();
  const legend = chosen.colour === "none" ? null : page.choices.colour.options.find(([value]) => value === chosen.colour)[1];
  for (const param of spec.params ?? []) if (param.name in values) param.value = values[param.name];
  for (const layer of spec.layer ?? []) {
    for (const param of layer.params ?? []) if (param.name in values && "value" in param) param.value = values[param.name];
    for (const channel of ["color", "shape"]) if (layer.encoding?.[channel]?.legend) layer.encoding[channel].legend.title = legend;
    if (layer.encoding?.fill?.condition?.legend) layer.encoding.fill.condition.legend.title = legend;
    if (name !== "scatter") continue;
    if (layer.encoding?.x?.scale) layer.encoding.x.scale = scaled(layer.encoding.x.scale, chosen.logx);
    if (layer.encoding?.y?.scale) layer.encoding.y.scale = scaled(layer.encoding.y.scale, chosen.logy);
  }
  if (name === "effects") showLabels(spec, effectLabels());
  if (name === page.lead?.name) fitToFirstScreen(spec);
  if (byId("lead-title") && name === page.lead?.name) delete spec.title;
  spec.datasets = { ...spec.datasets, ...dataOf(name) };
  return narrowed(name, spec, figure.clientWidth);
}

// The effects have a row for each label, if there are any.
function showLabels(spec, labels) {
  const of = (layer) => layer.encoding?.y?.scale;
  const all = spec.layer.find(of)?.encoding.y.scale.domain.length;
  if (!labels.length || labels.length === all) return;
  for (const layer of spec.layer.filter(of)) layer.encoding.y.scale.domain = labels;
  spec.height *= labels.length / all;
}

// A logarithmic scale has no zero to begin at.
const scaled = ({ zero, ...scale }, type) => (type === "log" ? { ...scale, type } : { ...scale, zero, type });

// The chart that shows the answer has the height that the first screen has left, with its labels and legend. One that
// has rows, as the effects have, is no higher than its rows need. A phone has no room to fit it into.
function fitToFirstScreen(spec) {
  if (byId("lead").clientWidth < LEAD.narrow) return;
  const left = innerHeight - (byId("lead").getBoundingClientRect().top + scrollY) - LEAD.below;
  const most = spec.height < LEAD.least ? spec.height + LEAD.frame : Math.max(LEAD.most, spec.height);
  spec.autosize = { type: "fit", contains: "padding" };
  spec.height = Math.min(Math.max(left, LEAD.least), most);
}

// Puts the chart that shows the answer below it. A chart that has a section of its own leaves it, with its notes and
// choices, and goes back if another one takes its place.
function placeLead() {
  const lead = byId("lead");
  const name = page.lead?.name;
  const home = lead.dataset.home;
  if (lead.firstElementChild && lead.dataset.name !== name) {
    const [figure, ...others] = [...lead.children];
    if (home) document.querySelector(`[data-chart=${home}]`).append(...others, figure);
    lead.replaceChildren();
  }
  CHARTS = name ? [name, ...BELOW.filter((other) => other !== name)] : BELOW;
  if (!name || lead.firstElementChild) return;
  const section = document.querySelector(`[data-chart=${name}]`);
  lead.dataset.name = name;
  lead.dataset.home = section ? name : "";
  if (section) {
    lead.append(byId(name), ...section.querySelectorAll(":scope > :not(h2, figure)"));
  } else {
    // Its title is text of the page, which breaks into lines where a chart would cut it off.
    lead.append(element("p", JSON.parse(page.charts[name].title.text.expr), { className: "note", id: "lead-title" }),
      element("figure", [], { id: name, className: "chart" }));
    approach.observe(byId(name));
  }
  byId(name).setAttribute("aria-describedby", "lead-words");
}

// The columns that each chart reads. Vega copies rows again and again, so a chart gets no other.
const READS = {
  scatter: () => ["label", "n", "frontier", page.rank_fields[chosen.quality], chosen.colour,
    chosen.cost, chosen.quality, chosen.cost + HALF, chosen.quality + HALF],
  parallel: () => [chosen.colour, ...page.lines.map((line) => line.key)],
  heat: () => ["n", chosen.quality, chosen.down, chosen.across],
  curves: () => [chosen.colour],
};

// Vega writes into what it is given, so each chart gets rows of its own: those that have a result.
function rowsFor(name, given) {
  const columns = ["i", "run_id", "slug", "state", "selected", ...(READS[name]?.() ?? page.lead.reads)];
  return given.filter((row) => row.state === "done" || name === "curves").map((row) => {
    const made = {};
    for (const column of columns) made[column] = row[column];
    return made;
  });
}

function dataOf(name) {
  if (name === "curves") {
    const [all, curves, what] = isMeans() ? [settings, meanCurves(), "settings"] : [rows, page.curves, "runs"];
    const drawn = new Set();
    for (const i of shown) if (drawn.size < MAX_CURVES) drawn.add(all[i].run_id);
    const hidden = new Set(shown.map((i) => all[i].run_id)).size - drawn.size;
    const isOfLosses = isMixed(all.filter((row) => drawn.has(row.run_id)), "loss");
    byId("curves-note").textContent = [isOfLosses ? page.mixed_curves : "", page.curves_note,
      isMeans() ? "Each curve is the mean over the runs of a setting; bars are 95 % intervals." : "",
      hidden > 0 ? `The first ${MAX_CURVES} ${what} of the table are drawn; select fewer to see others.` : ""].join(" ").trim();
    return { curves: curves.filter((curve) => drawn.has(curve.run_id)),
      rows: rowsFor(name, all.filter((row) => drawn.has(row.run_id))) };
  }
  if (name === "scatter") return { rows: rowsFor(name, points().filter(isInPart)) };
  if (name === "parallel") return { rows: parallelRows() };
  if (name === "effects") return { pairs: selectedPairs() };
  return { rows: rowsFor(name, name === "heat" ? heatPoints() : rows) };
}

// The rows that the parallel lines are of, all or the first selected ones. Their quality is always that of the command: if
// they must not be ranked by it, as after another quality was chosen, its line has no marks.
function parallelRows() {
  const all = rows.filter(isInPart);
  let drawn = all;
  if (all.length > MAX_LINES) {
    const step = Math.ceil(all.length / 200); // some of the others, as a background
    drawn = [...new Set([...selected.slice(0, MAX_LINES).map((i) => rows[i]), ...all.filter((_, i) => i % step === 0)])];
  }
  byId("parallel-note").textContent = all.length > MAX_LINES ? ` The first ${MAX_LINES.toLocaleString("en")} selected runs of the table are drawn.` : "";
  const quality = page.choices.quality.value;
  const made = rowsFor("parallel", drawn);
  const line = isMixed(drawn, quality) && page.lines.find((known) => known.name === quality);
  return line ? made.map((row) => ({ ...row, [line.key]: null })) : made;
}

// What the heat map takes the mean of: settings, each once however many seeds it has; runs if the seed is an axis.
function heatPoints() {
  const isOfRuns = !isMeans() || [chosen.down, chosen.across].includes("seed");
  return isOfRuns ? selected.map((i) => rows[i]) : settings.filter((setting) => setting.selected);
}

// The mean curves of the settings: of one with some of its runs selected, the mean over these.
function meanCurves() {
  return page.means.curves.map((curve) => {
    const setting = settings.find((known) => known.run_id === curve.run_id);
    if (!setting.partial) return curve;
    const runs = new Set(setting.members.filter((i) => rows[i].passes).map((i) => rows[i].run_id));
    const parts = page.curves.filter((part) => runs.has(part.run_id) && part.kind === curve.kind);
    const spreads = (name) => curve.tokens.map((tokens) => {
      const values = parts.map((part) => part[name][part.tokens.indexOf(tokens)]);
      return spreadOf(values.includes(null) ? [] : values);
    });
    const means = Object.fromEntries(["flops", "seconds", "dollars"].map((name) => [name, spreads(name).map(({ mean }) => mean)]));
    const losses = spreads("loss");
    // Not a copy of the curve: a copy has its hidden number, by which Vega would take it for the curve itself.
    const { run_id, kind, tokens } = curve;
    return { run_id, kind, tokens, ...means, loss: losses.map(({ mean }) => mean), half: losses.map(({ half }) => half) };
  });
}

// The labels of the effects on the chosen quality, of the rows of the chosen part.
const effectLabels = () => [...new Set(page.effects.filter(({ before, half_of_one_pair }) =>
  chosen.quality in half_of_one_pair && isInPart(rows[before[0]])).map(({ label }) => label))];

// What each pair of selected runs changes in the chosen quality. Which runs are pairs is found by analysis/effects.
function selectedPairs() {
  const pairs = [];
  for (const { label, before, after, half_of_one_pair } of page.effects) {
    if (!(chosen.quality in half_of_one_pair)) continue;
    before.forEach((i, pair) => {
      const [first, second] = [rows[i], rows[after[pair]]];
      if (first.selected && second.selected) {
        pairs.push({ label, pair, change: second[chosen.quality] - first[chosen.quality] });
      }
    });
  }
  return pairs;
}

// A mark of the scatter names its row; the words are found when somebody asks, not for all marks beforehand.
function tooltip(value, sanitize) {
  const lines = "row" in value ? wordsOf(value.setting ? settings[value.row] : rows[value.row]) : Object.entries(value);
  return `<table>${lines.map(([key, words]) =>
    `<tr><td class="key">${sanitize(key)}</td><td class="value">${sanitize(words)}</td></tr>`).join("")}</table>`;
}

const wordsOf = (row) => [[row.members ? "mean of" : "run", row.slug], ...(row.members ? [["runs", row.n]] : []), ...page.told.filter((name) => !row.members || name !== "seed").map((name) => {
  const column = page.columns.find((known) => known.name === name);
  return [column.unit ? `${column.title} (${column.unit})` : column.title, cellText(row, column)];
})];

// ---- what is to be done: each chart may have to take the selection, to take new rows, or to be made anew ----

const SELECTION = 1, DATA = 2, ANEW = 3;
const due = {};
let busy = Promise.resolve();

// One after the other, from the top: the first is there soon, and the page answers in between.
function bring(names, need) {
  for (const name of names) if (name in page.charts) due[name] = Math.max(due[name] ?? 0, need);
  return settle();
}

function settle() {
  busy = busy.then(async () => {
    for (const name of CHARTS) {
      if (!due[name] || !inSight(name)) continue;
      const need = due[name];
      delete due[name];
      await (need === ANEW || !views[name] ? draw(name) : fill(name, need));
      await new Promise((done) => setTimeout(done));
    }
  });
  return busy;
}
window.settle = settle; // as `views`

function inSight(name) {
  if (rows.length <= CANVAS) return true;
  const { top, bottom } = byId(name).getBoundingClientRect();
  return bottom > -NEAR && top < innerHeight + NEAR;
}

const approach = new IntersectionObserver(settle, { rootMargin: `${NEAR}px` });
for (const name of BELOW) approach.observe(byId(name));

// Gives each chart its place: the lead below the answer, the others in sections, without those that are not there.
function arrange() {
  placeLead();
  for (const name of CHARTS) {
    const section = document.querySelector(`[data-chart=${name}]`);
    if (section) section.hidden = !(name in page.charts) || name === page.lead?.name;
    // The room of a chart that is not there yet: the page does not jump.
    if (!views[name] && name in page.charts) byId(name).style.minHeight = `${page.charts[name].height + (name === page.lead?.name ? 0 : 100)}px`;
  }
}

function drawAll() {
  arrange();
  return bring(CHARTS, ANEW);
}

// Puts rows into a chart without making it anew. The scatter has all rows: those that change are told to it.
function fill(name, need) {
  const view = views[name];
  if (name === "scatter" && need === SELECTION && !isMeans()) {
    const now = (row) => rows[row.i].selected;
    view.change("rows", view.changeset().modify((row) => row.selected !== now(row), "selected", now));
  } else {
    for (const [data, values] of Object.entries(dataOf(name))) view.data(data, values);
  }
  return view.runAsync();
}

// Embeds a chart anew: after a choice, or another colour scheme.
async function draw(name) {
  const renderer = rows.length > CANVAS ? "canvas" : "svg";
  const made = element("div");
  const figure = byId(name);
  figure.style.minHeight = `${figure.offsetHeight}px`; // the page does not jump while a chart is made anew
  // Off the page first, so that the chart before stays in sight until this one is drawn.
  made.className = "drawn";
  figure.append(made);
  const { view } = await vegaEmbed(made, dressed(name, figure, renderer), { ...EMBED, renderer });
  views[name]?.finalize();
  figure.replaceChildren(made);
  figure.style.minHeight = "";
  views[name] = view;
  describe(name, made);
  if (brushed.includes(name)) {
    view.addSignalListener("brush", (_, box) => brush(name, box));
    if (isBox(chosen.brushes[name])) restoreBox(name, view);
  }
  view.addEventListener("click", (event, item) => {
    const setting = isMeans() && item?.datum?.run_id && settings.find((known) => known.run_id === item.datum.run_id);
    if (setting) return showRuns(setting.i);
    const run = item?.datum?.run_id && rows.find((row) =>
      item.datum.i === undefined ? row.run_id === item.datum.run_id : row.i === item.datum.i);
    if (run) openDetail(run.i);
  });
}

// A canvas has no text of its own, so the figure says what it shows and where the same is in words.
function describe(name, made) {
  const said = page.charts[name].description;
  const drawn = made.querySelector("canvas, svg");
  drawn.setAttribute("aria-label", `${said}. The table of all runs holds the same values.`);
  drawn.setAttribute("role", drawn.tagName === "CANVAS" ? "img" : "group");
  drawn.classList.toggle("pale", drawn.tagName === "CANVAS" && DARK.matches); // the ink, which paper cannot show
}

// ---- boxes: `brush` is Vega-Lite's, in values; `brush_x_1` and `brush_y_1` are its sides in pixels ----

function brush(name, box) {
  const now = isBox(box) ? { x: [...box.x], y: [...box.y] } : null;
  if (JSON.stringify(now) === JSON.stringify(chosen.brushes[name] ?? null)) return;
  chosen.brushes[name] = now;
  changed();
}

function dropBox(name) {
  delete chosen.brushes[name];
  views[name]?.signal("brush_x_1", []).signal("brush_y_1", []).runAsync();
}

function restoreBox(name, view) {
  const { x, y } = chosen.brushes[name];
  const [across, up] = name === "parallel" && isTurned() ? [y, x] : [x, y];
  view.signal("brush_x_1", across.map(view.scale("x"))).signal("brush_y_1", up.map(view.scale("y"))).runAsync();
}

// ---- on paper, charts that were never in sight, or have changed since, are there too. Drawing waits for nothing from
// outside the page, so the browser is done with it before it makes the paper ----

addEventListener("beforeprint", () => {
  for (const name of CHARTS.filter((known) => known in page.charts && (due[known] || !views[known]))) {
    delete due[name];
    draw(name).then(() => views[name].width(PAPER).resize().run());
  }
});
