// Where massive values are: by layer, as a heat map, and for one head.

function unpack(packed) {
  const raw = atob(packed.data);
  const [heads, dims] = packed.shape;
  const values = new Float64Array(heads * dims);
  for (let i = 0; i < values.length; ++i)
    values[i] = (raw.charCodeAt(2 * i) + 256 * raw.charCodeAt(2 * i + 1))
      * packed.scale;
  return {heads, dims, values};
}

function wavelength(model, layer, dim) {
  const info = data.models[model], at = info.layers[layer];
  if (!at || at.rope === null) return null;
  const rope = info.rope[at.rope];
  const half = rope.rotary_dims / 2;
  return dim < rope.rotary_dims ? rope.wavelengths[dim % half] : null;
}

// Black over violet and orange to pale yellow: lightness grows all the way.
const STOPS = [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9],
               [252, 255, 164]];
function heatColour(share) {
  const place = Math.min(0.9999, Math.max(0, share)) * (STOPS.length - 1);
  const i = Math.floor(place), part = place - i;
  return "rgb(" + STOPS[i].map((low, c) =>
    Math.round(low + part * (STOPS[i + 1][c] - low))).join(",") + ")";
}

// What is chosen, and the norms that are shown: {heads, dims, values}.
const view = {norms: null};

function startValues() {
  for (const [name, label] of [["model", "Model"], ["arm", "Arm"],
                               ["point", "Tensor"], ["layer", "Layer"],
                               ["head", "Head"]])
    view[name] = choice("values", name, label, drawValues);
  view.model.offer(unique(data.layers.map(l => l.model)).map(m => [m, m]));
  byId("values").hidden = false;
  const canvas = byId("heat");
  canvas.addEventListener("mousemove", event => {
    const cell = cellAt(canvas, event);
    if (!cell) return hideTip();
    const text = describe(cell);
    byId("heat-read").textContent = text;
    showTip(event, text);
  });
  canvas.addEventListener("mouseleave", hideTip);
  canvas.addEventListener("click", event => {
    const cell = cellAt(canvas, event);
    if (cell) { view.head.value = cell.head; drawValues(); }
  });
  drawValues();
  drawTotals();
}

function cellAt(canvas, event) {
  if (!view.norms) return null;
  const box = canvas.getBoundingClientRect(), {heads, dims} = view.norms;
  const dim = Math.floor((event.clientX - box.left) / box.width * dims);
  const head = Math.floor((event.clientY - box.top) / box.height * heads);
  return dim >= 0 && dim < dims && head >= 0 && head < heads
    ? {head, dim} : null;
}

function describe({head, dim}) {
  const value = view.norms.values[head * view.norms.dims + dim];
  const turns = wavelength(view.model.value, Number(view.layer.value), dim);
  return `head ${head}, dim ${dim}: ${value.toFixed(2)} x its head's mean`
    + (value > data.lambda ? " (massive)" : "")
    + (turns === null ? "" : `; RoPE turns it once in ${turns.toFixed(0)} `
                             + "tokens");
}

function pointsOf(rows) {
  return Object.keys(POINTS).filter(p => rows.some(r => r.point === p));
}

function drawValues() {
  const rows = data.layers.filter(l => l.model === view.model.value);
  view.arm.offer(unique(rows.map(l => l.arm)).map(a => [a, a]));
  view.point.offer(pointsOf(rows).map(p => [p, pointName(p)]));
  view.layer.offer(unique(rows.filter(l => l.point === view.point.value)
    .map(l => l.layer)).map(l => [l, String(l)]));
  drawLayers(rows.filter(l => l.arm === view.arm.value));
  const packed = (data.norms[JSON.stringify(
    [view.model.value, view.arm.value, view.point.value])]
    || {})[view.layer.value];
  view.norms = packed ? unpack(packed) : null;
  view.head.offer(view.norms ? Array.from({length: view.norms.heads},
                                          (_, h) => [h, String(h)]) : []);
  drawHeat();
  drawHead();
}

function drawTotals() {
  table("totals-table", ["model", "arm", "tensor", "massive entries",
    "in dims that RoPE turns slowly", "layers with some"], data.totals.map(
    t => [t.model, t.arm, pointName(t.point), number(shown(t.massive_count)),
          number(t.low_frequency_share === null ? "–"
                 : percent(t.low_frequency_share)),
          number(`${t.layers_with} of ${t.layers}`)]));
  table("comparisons-table", ["model", "arm", "KL from clean, nats",
    "next tokens that change"], data.comparisons.map(
    c => [c.model, c.arm, number(shown(c.kl, 4)), number(percent(c.flips))]));
}

function drawHeat() {
  const canvas = byId("heat");
  canvas.hidden = !view.norms;
  byId("heat-title").textContent = view.norms
    ? `${pointName(view.point.value)} of layer ${view.layer.value}, arm `
      + `${view.arm.value}: heads down, dims across; norm over its head's mean`
    : "The norms of this arm are not kept.";
  if (!view.norms) return;
  const {heads, dims, values} = view.norms;
  const wide = Math.max(4, Math.min(15, Math.floor(1020 / dims)));
  const tall = Math.max(wide, Math.min(24, Math.floor(160 / heads)));
  canvas.width = dims * wide;
  canvas.height = heads * tall;
  const pen = canvas.getContext("2d");
  for (let h = 0; h < heads; ++h)
    for (let d = 0; d < dims; ++d) {
      const value = values[h * dims + d];
      pen.fillStyle = heatColour(value / (2 * data.lambda));
      pen.fillRect(d * wide, h * tall, wide, tall);
      if (value > data.lambda) {
        pen.strokeStyle = "#56b4e9";
        pen.lineWidth = 2;
        pen.strokeRect(d * wide + 1, h * tall + 1, wide - 2, tall - 2);
      }
    }
}

function drawHead() {
  const head = Number(view.head.value);
  byId("head-title").textContent = view.norms ? `Head ${head}: each dim` : "";
  if (!view.norms) return byId("head-chart").replaceChildren();
  const {dims, values} = view.norms, width = 1000, height = 170, left = 40;
  const own = Array.from(values.slice(head * dims, (head + 1) * dims));
  const most = Math.max(data.lambda * 1.1, ...own);
  const svg = newSvg("head-chart", width, height, "dims of a head");
  const y = value => height - 20 - value / most * (height - 30);
  own.forEach((value, dim) => {
    const bar = svgElement(svg, "rect", {
      class: "dim", x: left + dim * (width - left) / dims, y: y(value),
      width: Math.max(1, (width - left) / dims - 1),
      height: Math.max(0.5, y(0) - y(value)),
      fill: value > data.lambda ? COLOURS[1] : COLOURS[0]});
    hover(bar, describe({head, dim}));
  });
  svgElement(svg, "line", {class: "range", x1: left, x2: width,
    y1: y(data.lambda), y2: y(data.lambda), "stroke-dasharray": "5 4"});
  svgElement(svg, "text", {x: left - 4, y: y(data.lambda) + 4,
    "text-anchor": "end"}, `${data.lambda} x`);
  for (let d = 0; d < dims; d += Math.max(1, Math.round(dims / 16)))
    svgElement(svg, "text", {x: left + d * (width - left) / dims,
      y: height - 6}, String(d));
}

function drawLayers(rows) {
  const points = pointsOf(rows);
  const layers = 1 + Math.max(0, ...rows.map(r => r.layer));
  const most = Math.max(1, ...rows.map(r => r.massive_count));
  const width = 1000, height = 220, left = 46;
  const svg = newSvg("layers-chart", width, height, "massive entries by layer");
  const x = at => left + (at + 0.5) * (width - left) / layers;
  const y = count => height - 30 - count / most * (height - 60);
  for (const part of [0, 0.5, 1]) {
    svgElement(svg, "line", {class: "axis", x1: left, x2: width,
      y1: y(part * most), y2: y(part * most)});
    svgElement(svg, "text", {x: left - 6, y: y(part * most) + 4,
      "text-anchor": "end"}, (part * most).toFixed(1));
  }
  points.forEach((name, i) => {
    const own = rows.filter(r => r.point === name);
    svgElement(svg, "polyline", {fill: "none", stroke: COLOURS[i % 8],
      "stroke-width": 2,
      points: own.map(r => `${x(r.layer)},${y(r.massive_count)}`).join(" ")});
    for (const row of own) {
      const dot = svgElement(svg, "circle", {class: "dot", cx: x(row.layer),
        cy: y(row.massive_count), r: 4, fill: COLOURS[i % 8]});
      hover(dot, dotText(row));
      dot.addEventListener("click", () => {
        view.point.value = name; view.layer.value = row.layer; drawValues();
      });
    }
  });
  for (let at = 0; at < layers; at += Math.max(1, Math.round(layers / 20)))
    svgElement(svg, "text", {x: x(at), y: height - 12,
      "text-anchor": "middle"}, String(at));
  legend(svg, points.map(pointName), left);
}

function dotText(row) {
  return `layer ${row.layer}, ${pointName(row.point)}: `
    + `${row.massive_count.toFixed(2)} massive entries a prompt\n`
    + `largest ratio ${shown(row.ratio)}`
    + (row.top_dims.length
       ? `\ndims with most: ${row.top_dims.map(([dim]) => dim).join(", ")}` : "")
    + (row.no_rope ? "\nthis layer has no RoPE" : "");
}
