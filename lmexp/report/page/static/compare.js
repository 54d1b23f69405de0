// Two or more runs side by side: results, settings with those that differ first, and the loss curves in one chart.
const MAX_COMPARED = 8;
const comparison = byId("comparison");
let picked = []; // the ids of the runs, in the order in which they were picked

const rowOf = (run) => rows.findLast((row) => row.run_id === run);

function drawCompared() {
  byId("compare").hidden = !picked.length;
  byId("compare").disabled = picked.length < 2;
  byId("compare").textContent = picked.length < 2 ? "1 run picked; pick another to compare" : `Compare ${picked.length} runs`;
}

function pick(run) {
  picked = picked.includes(run) ? picked.filter((other) => other !== run) : [...picked, run];
  drawCompared();
  remember();
}

// The button in a run's details that picks it, or drops it again.
function pickButton(row) {
  const isPicked = picked.includes(row.run_id);
  const isFull = !isPicked && picked.length >= MAX_COMPARED;
  const words = isPicked ? "Drop from the comparison" : isFull ? `${MAX_COMPARED} runs are picked already` : "Pick to compare";
  const button = element("button", words, { type: "button", id: "pick", disabled: isFull });
  button.addEventListener("click", () => { pick(row.run_id); fillDetail(); byId("pick").focus(); });
  const open = element("button", `Compare ${picked.length} runs`, { type: "button", hidden: picked.length < 2 });
  open.addEventListener("click", () => { detail.close(); openComparison(); });
  return element("div", [button, open], { className: "choices" });
}

function openComparison() {
  fillComparison();
  if (!comparison.open) comparison.showModal();
  byId("comparison-name").focus();
  remember();
}

function fillComparison() {
  const runs = picked.map(rowOf);
  const head = (first) => [first, ...runs.map((row) => text(row.slug, {}))];
  const results = page.columns.filter((column) => column.name !== "slug" && column.name !== "frontier" && column.lead
    && !page.varied.includes(column.name) && runs.some((row) => (row[column.name] ?? null) !== null))
    .map((column) => [column.unit && column.numeric ? `${column.title} (${column.unit})` : column.title,
      ...runs.map((row) => cellText(row, column))]);
  const whole = runs.every((row) => row.run_id in page.details.runs);
  const settings = runs.map((row) => ({ ...(whole ? page.details.common : {}), ...configOf(row, whole) }));
  const keys = [...new Set(settings.flatMap(Object.keys))];
  const lines = keys.map((key) => [key, ...settings.map((known) => known[key] ?? "–")]);
  const differs = ([, first, ...others]) => others.some((value) => value !== first);
  const same = lines.filter((line) => !differs(line));
  const folded = element("details", [element("summary", `${amount(same.length, "setting")} with the same value`), tableOf(head("setting"), same)]);
  const apart = lines.filter(differs);
  byId("comparison-body").replaceChildren(
    element("h3", "Results"), tableOf(head("result"), results), ...sharedNote(runs),
    element("h3", "Settings that differ"),
    apart.length ? tableOf(head("setting"), apart) : element("p", "None.", { className: "note" }),
    ...(same.length ? [folded] : []),
    ...(whole ? [] : [element("p", "Only the swept values: this page does not hold the configs of all of these runs.", { className: "note" })]),
    ...comparedCurves(runs),
    element("div", runs.map((row) => {
      const drop = element("button", `Drop ${text(row.slug, {})}`, { type: "button" });
      drop.addEventListener("click", () => {
        pick(row.run_id);
        if (picked.length < 2) comparison.close();
        else { fillComparison(); byId("comparison-name").focus(); }
      });
      return drop;
    }), { className: "choices" }));
}

function comparedCurves(runs) {
  const curves = page.curves.filter((curve) => picked.includes(curve.run_id));
  if (!curves.length) return [element("h3", "Curves"), element("p", "No curves.", { className: "note" })];
  const place = element("figure", [], { className: "chart", id: "comparison-curves" });
  requestAnimationFrame(() => {
    if (!place.isConnected) return;
    const spec = dressed("curves", place, "svg");
    spec.datasets = { ...spec.datasets, curves, rows: runs.map((row) => ({ ...row })) };
    for (const { encoding } of spec.layer) {
      if (encoding?.color?.field === "group") {
        const domain = runs.map((row) => row.slug);
        encoding.color = { field: "slug", type: "nominal", scale: { ...encoding.color.scale, domain }, legend: { title: null, columns: 1, labelLimit: 300 } };
        delete encoding.shape;
      }
    }
    spec.height = 240;
    spec.description = "Losses of the compared runs as they trained";
    vegaEmbed(place, spec, { ...EMBED, renderer: "svg" });
  });
  const why = isMixed(runs, "loss") ? [element("p", page.mixed_curves, { className: "note" })] : [];
  return [element("h3", "Curves"), ...why, place];
}

byId("compare").addEventListener("click", openComparison);
byId("comparison-close").addEventListener("click", () => comparison.close());
comparison.addEventListener("click", (event) => { if (event.target === comparison) comparison.close(); });
comparison.addEventListener("close", () => { remember(); byId("compare").focus(); });
