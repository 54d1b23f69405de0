// The charts: Vega draws them from the page's specs, with what the reader has chosen put in.
const CANVAS = 1000; // more rows than these are drawn on a canvas: a document of as many marks is slow
const MOST_CURVES = 400;
const MOST_LINES = 1500;
const EMBED = { actions: false, tooltip: { theme: "custom" }, logLevel: 1 }; // errors: an empty selection is none

const views = {};
window.views = views; // for tests, and for the curious in a console
const brushed = ["scatter", "parallel"];

// The parameters of each chart that a reader chooses.
const parameters = () => ({
  ...chosen, logx: chosen.logx === "log", logy: chosen.logy === "log",
});

function dressed(name) {
  const ink = getComputedStyle(document.documentElement).color;
  const paper = getComputedStyle(document.documentElement).backgroundColor;
  const spec = JSON.parse(JSON.stringify(page.charts[name])
    .replaceAll('"currentColor"', JSON.stringify(ink)).replaceAll('"Canvas"', JSON.stringify(paper)));
  const values = parameters();
  for (const param of spec.params ?? []) if (param.name in values) param.value = values[param.name];
  for (const layer of spec.layer ?? []) {
    for (const param of layer.params ?? []) if (param.name in values && "value" in param) param.value = values[param.name];
    if (name !== "scatter") continue;
    if (layer.encoding?.x?.scale) layer.encoding.x.scale.type = chosen.logx;
    if (layer.encoding?.y?.scale) layer.encoding.y.scale.type = chosen.logy;
  }
  spec.datasets = { ...spec.datasets, ...dataOf(name) };
  return spec;
}

// Vega writes into what it is given, so each chart gets rows of its own.
function dataOf(name) {
  if (name === "curves") {
    const runs = new Set();
    for (const i of selected) if (runs.size < MOST_CURVES) runs.add(rows[i].run_id);
    const hidden = new Set(selected.map((i) => rows[i].run_id)).size - runs.size;
    byId("curves-note").textContent = [page.curves_note,
      hidden > 0 ? `The first ${MOST_CURVES} runs of the table are drawn; select fewer to see others.` : ""].join(" ").trim();
    return { curves: page.curves.filter((curve) => runs.has(curve.run_id)),
      rows: rows.filter((row) => runs.has(row.run_id)).map((row) => ({ ...row })) };
  }
  if (name === "parallel" && rows.length > MOST_LINES) {
    const drawn = new Set(selected.slice(0, MOST_LINES).map((i) => rows[i]));
    const step = Math.ceil(rows.length / 300); // some of the others, as a background
    for (let i = 0; i < rows.length; i += step) drawn.add(rows[i]);
    byId("parallel-note").textContent = ` The first ${MOST_LINES.toLocaleString("en")} selected runs of the table are drawn.`;
    return { rows: [...drawn].map((row) => ({ ...row })) };
  }
  if (name === "effects" || name === "heat") return { rows: selected.map((i) => ({ ...rows[i] })) };
  return { rows: rows.map((row) => ({ ...row })) };
}

// Embeds a chart anew: after a choice, or another colour scheme. Later calls win over earlier ones.
const latest = {};
async function draw(name) {
  const section = document.querySelector(`[data-chart=${name}]`);
  if (section) section.hidden = !(name in page.charts);
  if (!(name in page.charts)) return;
  const turn = latest[name] = (latest[name] ?? 0) + 1;
  const renderer = rows.length > CANVAS ? "canvas" : "svg";
  const made = element("div");
  const figure = byId(name);
  figure.style.minHeight = `${figure.offsetHeight}px`; // the page does not jump while a chart is made anew
  // Off the page first, so that the chart before stays in sight until this one is drawn.
  made.className = "drawn";
  figure.append(made);
  const { view } = await vegaEmbed(made, dressed(name), { ...EMBED, renderer });
  if (turn !== latest[name]) { view.finalize(); made.remove(); return; }
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
}

// One after the other, from the top: the first is there soon, and the page answers in between.
async function drawAll() {
  for (const name of ["scatter", "parallel", "effects", "heat", "curves"]) {
    await draw(name);
    await new Promise((done) => setTimeout(done));
  }
}

// Puts the selection into the charts without making them anew.
async function showSelection() {
  for (const [name, view] of Object.entries(views)) {
    for (const [data, values] of Object.entries(dataOf(name))) view.data(data, values);
    await view.runAsync();
  }
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
  view.signal("brush_x_1", x.map(view.scale("x"))).signal("brush_y_1", y.map(view.scale("y"))).runAsync();
}
