// The reader's choices, and the page as it begins; where it is served, it asks for news.
const LABELS = {
  quality: "Quality", cost: "Cost", colour: "Colour and shape", against: "Against", down: "Down", across: "Across",
  part: "Runs of", logx: "Cost axis", logy: "Quality axis", show: "Show",
};
const TOUCHES = { // which charts a choice makes anew
  quality: ["scatter", "effects", "heat"], cost: ["scatter"], logx: ["scatter"], logy: ["scatter"],
  colour: ["scatter", "parallel", "curves"], show: ["scatter", "heat", "curves"], against: ["curves"], down: ["heat"], across: ["heat"],
};
const SCALES = [["log", "logarithmic"], ["linear", "linear"]];
const SHOWN = [["means", "means over seeds"], ["runs", "single runs"]];

const optionsOf = (name) => (name === "show" ? SHOWN : name === "part" ? partsOf(chosen.quality).map((part) => [part, part])
  : page.choices[name]?.options ?? SCALES);
const isOffered = (name) => (name !== "show" || settings.length > 0) && (name !== "part" || chosen.part !== null);

function drawChoices() {
  for (const place of document.querySelectorAll("[data-choices]")) {
    const names = place.dataset.choices.split(" ").filter(isOffered);
    place.replaceChildren(...names.map((name) => {
      const select = element("select", optionsOf(name).map(([value, label]) => element("option", label, { value })), { name, id: `choice-${name}` });
      select.value = chosen[name];
      select.addEventListener("change", () => {
        chosen[name] = select.value;
        const part = name === "part" ? null : chosen.part;
        choosePart();
        if (["quality", "cost", "show", "part"].includes(name)) { markFrontier(); changed(); }
        // A box means a part of the axes it was drawn on.
        if (["quality", "cost", "logx", "logy", "part"].includes(name) && isBox(chosen.brushes.scatter)) {
          delete chosen.brushes.scatter;
          changed();
        }
        bring(chosen.part === part ? TOUCHES[name] : CHARTS, ANEW);
        if (chosen.part !== part) { drawChoices(); byId(`choice-${name}`).focus(); } // the choice of a part comes and goes
        remember();
      });
      return element("span", [element("label", LABELS[name], { htmlFor: select.id }), select], { className: "choice" });
    }));
  }
}

// ---- what follows a change of the selection: the table at once, the charts when the browser has time ----

let waiting = null;

function changed() {
  chosen.shown = 100;
  select();
  drawTable();
  clearTimeout(waiting);
  waiting = setTimeout(() => bring(CHARTS, SELECTION), rows.length > CANVAS ? 150 : 0);
}

function clear() {
  chosen.search = byId("search").value = "";
  brushed.forEach(dropBox);
  changed();
}

byId("search").addEventListener("input", () => { chosen.search = byId("search").value; changed(); });
byId("clear").addEventListener("click", () => { clear(); byId("search").focus(); });
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !detail.open && isNarrowed()) clear();
});
DARK.addEventListener("change", () => { if (rows.length > CANVAS) drawAll(); }); // an SVG changes its ink by itself
NARROW.addEventListener("change", drawAll);

addEventListener("beforeprint", () => {
  const boxes = Object.entries(chosen.brushes).filter(([, box]) => isBox(box)).map(([name]) => `a box in the ${name} chart`);
  const by = [...(chosen.search.trim() ? [`the filter ${chosen.search.trim()}`] : []), ...boxes].join(" and ");
  byId("selection-on-paper").textContent = isNarrowed() ? `Selected by ${by}: ${byId("count").value}.`
    : chosen.part !== null ? `Shown: ${byId("count").value}.` : "";
});

// ---- while a sweep runs: the server that `lmexp report --serve` starts knows when there is news ----

const EVERY = 2000; // milliseconds

async function lookForNews() {
  const live = byId("live");
  try {
    const version = (await (await fetch("version", { cache: "no-store" })).json()).version;
    if (version !== page.version) await takeNews(await (await fetch("./", { cache: "no-store" })).text());
    live.textContent = "· live";
  } catch {
    live.textContent = "· the server is gone; this is the last state";
  }
  setTimeout(lookForNews, EVERY);
}

// Takes the data and the words of a newer page; what the reader has chosen stays as it is.
async function takeNews(source) {
  const fresh = new DOMParser().parseFromString(source, "text/html");
  const open = at === null ? null : rows[at].run_id;
  const before = page;
  load(JSON.parse(fresh.getElementById("data").textContent));
  for (const id of ["findings", "lead-words", "more-findings", "forecasts", "rest"]) byId(id).replaceChildren(...fresh.getElementById(id).children);
  select();
  const focus = document.activeElement?.closest("#table tr")?.dataset.i;
  drawTable();
  if (focus) table.tBodies[0].querySelector(`tr[data-i="${focus}"] button`)?.focus();
  const isNew = (what) => JSON.stringify(what(before)) !== JSON.stringify(what(page));
  if (isNew((of) => [of.choices, of.columns])) {
    drawChoices();
    drawColumnChoices();
  }
  arrange();
  for (const name of CHARTS) bring([name], isNew((of) => of.charts[name]) || isNew((of) => of.lead?.name) ? ANEW : DATA);
  await settle();
  const row = open && rows.findLast((known) => known.run_id === open);
  if (row && detail.open) { at = row.i; fillDetail(); }
}

load(page);
recall();
select();
drawChoices();
drawColumnChoices();
drawTable();
drawAll().then(() => { document.documentElement.dataset.ready = "true"; });
drawCompared();
openRecalled();
if (page.version) lookForNews();
