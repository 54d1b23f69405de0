// What changes in a chart that a phone shows: labels stand above their marks, not beside them, and nothing scrolls
// sideways. A chart is wide again as soon as the window is.
const NARROW = matchMedia("(max-width: 600px)");
const LETTER = 6.2; // pixels of a letter in a chart, on average
const ROW = 50; // pixels of a row of the effects: a line of words, and the marks below it
const WORDS_ABOVE = 20; // pixels from the middle of the marks up to the middle of the words
const LINE = 58; // pixels between two lines of the parallel coordinates

const isTurned = () => NARROW.matches; // whether the parallel lines run from the top to the bottom

function narrowed(name, spec, width) {
  if (!NARROW.matches) return spec;
  spec.config.legend = { ...spec.config.legend, columnPadding: 12 };
  spec.config.padding = { ...spec.config.padding, right: 8 };
  for (const { encoding } of spec.layer ?? []) fixColumns(encoding ?? {}, width);
  if (name === "effects") labelsAbove(spec, width);
  if (name === "parallel") turn(spec, width);
  return spec;
}

// A legend whose columns follow the width grows after its room is measured, and would be cut off at the top.
function fixColumns({ color, shape, fill }, width) {
  const longest = Math.max(...rows.map((row) => String(row[chosen.colour] ?? "").length));
  const fitting = Math.max(1, Math.floor((width - 60) / (34 + 7 * longest)));
  for (const legend of [color, shape, fill, fill?.condition].map((channel) => channel?.legend)) {
    if (legend?.columns) legend.columns = legend.type === "symbol" ? 2 : fitting; // shades have short names
  }
}

function labelsAbove(spec, width) {
  for (const layer of spec.layer) {
    const axis = layer.encoding?.y?.axis;
    if (!axis) continue;
    Object.assign(axis, { labelAlign: "left", labelPadding: 0, labelOffset: -WORDS_ABOVE, labelLimit: width - 30, minExtent: 0, maxExtent: 0 });
    layer.encoding.x.axis = { ...layer.encoding.x.axis, tickCount: 4 };
  }
  spec.height = ROW * effectLabels().length;
}

function turn(spec, width) {
  const titles = spec.layer.findIndex((layer) => layer.encoding.text?.field === "title");
  const rim = { stroke: "var(--paper)", strokeWidth: 4, strokeJoin: "round" }; // keeps a title readable where lines pass
  spec.layer.splice(titles, 0, { ...structuredClone(spec.layer[titles]), mark: { ...spec.layer[titles].mark, ...rim } });
  for (const layer of spec.layer) {
    const { x, y } = layer.encoding;
    // The first line is the top one.
    layer.encoding = { ...layer.encoding, y: { ...x, scale: { ...x.scale, domain: [-0.35, page.lines.length - 0.55], reverse: true } } };
    if (y) layer.encoding.x = { ...y, scale: { ...y.scale, domain: [-0.02, 1.02] } };
    else delete layer.encoding.x;
    if (layer.mark.type !== "text") continue;
    const ends = "datum.y < 0.1 ? 'left' : datum.y > 0.9 ? 'right' : 'center'";
    if (layer.encoding.text.field === "title") {
      delete layer.encoding.x;
      Object.assign(layer.mark, { align: "left", x: 0, dx: 0, dy: -10, limit: width - 30 });
    } else {
      Object.assign(layer.mark, { align: { expr: ends }, dx: 0, dy: 11, limit: width / 2 - 20 });
      layer.data = { values: page.lines.flatMap((line, i) => roomyTicks(line.ticks, width).map(([y, label]) => ({ x: i, y, label }))) };
    }
  }
  spec.height = LINE * page.lines.length;
}

// The labels of a line that do not run into each other: the ends, and those between for which there is room.
function roomyTicks(ticks, width) {
  const sorted = [...ticks].sort(([a], [b]) => a - b);
  const span = ([at, label]) => {
    const long = Math.min(label.length * LETTER, width / 2 - 20) + 10;
    const start = at < 0.1 ? at * width : at > 0.9 ? at * width - long : at * width - long / 2;
    return [start, start + long];
  };
  const kept = sorted.slice(-1).concat(sorted.length > 1 ? sorted.slice(0, 1) : []);
  for (const tick of sorted.slice(1, -1)) {
    const [start, end] = span(tick);
    if (kept.every((other) => span(other)[1] <= start || span(other)[0] >= end)) kept.push(tick);
  }
  return kept;
}
