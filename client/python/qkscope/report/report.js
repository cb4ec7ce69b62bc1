// The explorer of a report; assemble.py puts it into a function, after
// report_drawing.js. The page's element #data holds, as JSON:
//   lambda       what massive means: norms over lambda times their head's mean
//   colours      256 colours, base64, 3 bytes each
//   series       a tensor of an arm each: data is base64 of 16-bit codes, whose
//                value is code / 65534 * scale of the layer; 65535: not finite
//   comparisons  an arm each, by position; null: not finite
// Texts of the data become text nodes only, never HTML.

const LARGEST = 65534;
const byId = id => document.getElementById(id);
const data = JSON.parse(byId("data")?.textContent ?? "null");
const explorer = byId("explorer");
if (!data || !explorer) return;
const read = text => { byId("reading").textContent = text; };
const colours = bytes(data.colours);
const state = {series: null, layer: 0, head: 0, at: null};

function codes(series) {
  if (!series.codes) {
    const raw = bytes(series.data);
    series.codes = new DataView(raw.buffer);
    series.data = null;
  }
  return series.codes;
}

// ------------------------------------------------------------------- matrices

function norm(layer, head, dim) {
  const code = codes(state.series).getUint16(
      2 * (layer.offset + head * layer.dims + dim), true);
  return code > LARGEST ? NaN : code / LARGEST * layer.scale;
}

function ratio(layer, head, dim) {
  const mean = layer.means?.[head];
  return mean ? norm(layer, head, dim) / mean : mean === 0 ? 0 : NaN;
}

const hasRatios = () => state.series.layers.every(layer => layer.means);
const isRelative = () => byId("relative").checked && hasRatios();

// A map's cells: `value` of (row, column), undefined where there is none, and
// [layer, head, dim] of it.
function layerMap() {
  const layer = state.series.layers[state.layer];
  return {
    rows: layer.heads, columns: layer.dims, selected: state.head,
    value: (row, column) => (isRelative() ? ratio : norm)(layer, row, column),
    cell: (row, column) => [layer, row, column],
    rowName: row => String(layer.names[row]),
    choose: row => { state.head = row; },
  };
}

function headMap() {
  const layers = state.series.layers;
  const there = layer => state.head < layer.heads;
  return {
    rows: layers.length, selected: state.layer,
    columns: Math.max(...layers.map(layer => layer.dims)),
    value: (row, column) => there(layers[row]) && column < layers[row].dims
        ? (isRelative() ? ratio : norm)(layers[row], state.head, column)
        : undefined,
    cell: (row, column) => [layers[row], state.head, column],
    rowName: row => String(layers[row].layer),
    choose: row => { state.layer = row; },
  };
}

function describe(map, row, column) {
  const [layer, head, dim] = map.cell(row, column);
  if (map.value(row, column) === undefined) return "";
  const {headWord, dimGroup, headGroup} = state.series;
  const first = dim * dimGroup;
  const dims = dimGroup > 1 ? `dims ${first} to ${first + dimGroup - 1}`
      : `dim ${dim}`;
  let text = `layer ${layer.layer}, ${headWord} ${layer.names[head]}`
      + `${headGroup > 1 ? " and following" : ""}, ${dims}: `
      + `norm ${number(norm(layer, head, dim))}`;
  const relative = ratio(layer, head, dim);
  if (layer.means && Number.isFinite(relative)) {
    text += `, ${number(relative, 3)} times its head's mean`
        + (relative > data.lambda ? ", massive" : "");
  }
  return text;
}

function isMassive(map, row, column) {
  if (map.value(row, column) === undefined) return false;
  return ratio(...map.cell(row, column)) > data.lambda;
}

function largest(map) {
  let most = 0;
  for (let row = 0; row < map.rows; row++) {
    for (let column = 0; column < map.columns; column++) {
      const value = map.value(row, column);
      if (value > most && Number.isFinite(value)) most = value;
    }
  }
  return most || 1;
}

function pixels(map, most) {
  const image = new ImageData(map.columns, map.rows);
  for (let row = 0; row < map.rows; row++) {
    for (let column = 0; column < map.columns; column++) {
      const value = map.value(row, column);
      const at = 4 * (row * map.columns + column);
      if (value === undefined) continue;  // transparent
      const share = Math.min(1, Math.max(0, value / most));
      const place = 3 * Math.round(255 * share);
      const rgb = Number.isFinite(value) ? colours.slice(place, place + 3)
          : [154, 154, 154];
      image.data.set([...rgb, 255], at);
    }
  }
  return image;
}

// Room for the labels of rows and columns, in CSS pixels.
const MARGIN_LEFT = 44, MARGIN_BOTTOM = 18;

function paint(canvas, map) {
  canvas.map = map;
  const scale = window.devicePixelRatio || 1;
  const width = Math.max(1, canvas.clientWidth - MARGIN_LEFT);
  const height = Math.max(1, canvas.clientHeight - MARGIN_BOTTOM);
  canvas.width = Math.round((width + MARGIN_LEFT) * scale);
  canvas.height = Math.round((height + MARGIN_BOTTOM) * scale);
  const most = largest(map);
  const small = document.createElement("canvas");
  small.width = map.columns;
  small.height = map.rows;
  small.getContext("2d").putImageData(pixels(map, most), 0, 0);
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  context.translate(MARGIN_LEFT, 0);
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, width, height);
  frames(context, map, width / map.columns, height / map.rows);
  labels(context, map, width / map.columns, height / map.rows);
  return most;
}

function labels(context, map, width, height) {
  const style = getComputedStyle(document.documentElement);
  context.fillStyle = style.getPropertyValue("--soft");
  context.font = "11px system-ui, sans-serif";
  context.textAlign = "right";
  context.textBaseline = "middle";
  const every = (count, size, room) => Math.ceil(count / (size * count / room));
  for (let row = 0; row < map.rows; row += every(map.rows, height, 13)) {
    context.fillText(map.rowName(row), -5, (row + 0.5) * height);
  }
  context.textAlign = "center";
  context.textBaseline = "top";
  const below = map.rows * height + 4;
  for (let column = 0; column < map.columns;
       column += 4 * every(map.columns, width, 9)) {
    context.fillText(String(column * state.series.dimGroup),
                     (column + 0.5) * width, below);
  }
}

function frames(context, map, width, height) {
  const style = getComputedStyle(document.documentElement);
  context.strokeStyle = style.getPropertyValue("--mark");
  context.lineWidth = Math.min(2, width / 3, height / 3);
  for (let row = 0; row < map.rows; row++) {
    for (let column = 0; column < map.columns; column++) {
      if (isMassive(map, row, column)) {
        context.strokeRect(column * width, row * height, width, height);
      }
    }
  }
  context.strokeStyle = "#ffffff";
  context.lineWidth = 1;
  context.strokeRect(0.5, map.selected * height + 0.5,
                     map.columns * width - 1, Math.max(1, height - 1));
}

function listenToMap(canvas) {
  const readCell = (row, column) => {
    state.at = [canvas.id, row, column];
    read(describe(canvas.map, row, column));
  };
  const place = event => {
    const box = canvas.getBoundingClientRect();
    const part = (from, size, count) => Math.min(
        count - 1, Math.max(0, Math.floor(from / size * count)));
    const width = canvas.clientWidth - MARGIN_LEFT;
    const height = canvas.clientHeight - MARGIN_BOTTOM;
    return [part(event.clientY - box.top - canvas.clientTop, height,
                 canvas.map.rows),
            part(event.clientX - box.left - canvas.clientLeft - MARGIN_LEFT,
                 width, canvas.map.columns)];
  };
  canvas.addEventListener("mousemove", event => readCell(...place(event)));
  canvas.addEventListener("click", event => {
    canvas.map.choose(place(event)[0]);
    draw();
  });
  const steps = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1],
                 ArrowRight: [0, 1]};
  canvas.addEventListener("keydown", event => {
    const step = steps[event.key];
    if (!step) return;
    event.preventDefault();
    const {rows, columns, selected} = canvas.map;
    const column = state.at?.[0] === canvas.id ? state.at[2] : 0;
    const row = Math.min(rows - 1, Math.max(0, selected + step[0]));
    canvas.map.choose(row);
    draw();
    readCell(row, Math.min(columns - 1, Math.max(0, column + step[1])));
  });
}

const ofArm = () => data.series.filter(s => s.arm === byId("arm").value);

function drawLayerLines() {
  const which = byId("statistic").value;
  const shown = ofArm();
  const places = [...new Set(shown.flatMap(
      s => s.layers.map(layer => layer.layer)))].sort((a, b) => a - b);
  const all = shown.slice(0, 12).map((series, i) => {
    const found = new Map(series.layers.map(l => [l.layer, l[which]]));
    return {name: series.label,
            colour: i < 3 ? `var(--s${i})` : `hsl(${(i * 67) % 360} 55% 50%)`,
            values: places.map(place => found.get(place) ?? null)};
  });
  lines(byId("layer-lines"), all, places, "layer", read, i => {
    const row = state.series.layers.findIndex(l => l.layer === places[i]);
    if (row >= 0) state.layer = row;
    draw();
  });
}

function drawPositionLines() {
  if (!byId("position-lines")) return;
  const measure = byId("measure").value;
  const isKl = measure === "kl";
  const shown = data.comparisons.filter(
      c => !isKl || c.arm !== c.baseline || data.comparisons.length === 1);
  // The first token has no log-probability.
  const from = isKl ? 0 : 1;
  const count = Math.max(0, ...shown.map(c => c[measure].length));
  const places = Array.from({length: Math.max(0, count - from)},
                            (_, i) => i + from);
  lines(byId("position-lines"), shown.map(c => ({
    name: c.arm, colour: c.colour, values: c[measure].slice(from),
    marks: isKl ? c.flip : null,
  })), places, "position", read, null);
}

// ------------------------------------------------------------------- controls

function fill(select, texts) {
  select.replaceChildren(...texts.map(
      ([value, text]) => node("option", text, {value: String(value)})));
}

function fillTensors() {
  const before = byId("tensor").selectedOptions[0]?.textContent;
  const shown = ofArm();
  fill(byId("tensor"), shown.map((series, i) => [i, series.label]));
  const same = shown.findIndex(series => series.label === before);
  byId("tensor").value = String(Math.max(0, same));
}

function draw() {
  const series = ofArm()[Number(byId("tensor").value)];
  const wanted = state.series?.layers[state.layer]?.layer;
  if (series !== state.series) {
    // The same layer of the other tensor, if it is there.
    const same = series.layers.findIndex(layer => layer.layer === wanted);
    state.layer = Math.max(0, same);
    state.series = series;
  }
  const layer = series.layers[state.layer];
  state.head = Math.min(state.head, layer.heads - 1);
  byId("layer").max = String(series.layers.length - 1);
  byId("layer").value = String(state.layer);
  byId("layer-name").textContent = ` ${layer.layer}`;
  fill(byId("head"), layer.names.map((name, i) => [i, name]));
  byId("head").value = String(state.head);
  byId("relative").disabled = !hasRatios();
  byId("layer-title").textContent = `${series.label}, layer ${layer.layer}, `
      + `${series.arm}: ${series.headWord}s (rows) by dims`;
  byId("head-title").textContent = `${series.label}, ${series.headWord} `
      + `${layer.names[state.head]}: layers (rows) by dims`;
  const most = paint(byId("layer-map"), layerMap());
  paint(byId("head-map"), headMap());
  byId("layer-map").setAttribute("aria-label", byId("layer-title").textContent);
  byId("head-map").setAttribute("aria-label", byId("head-title").textContent);
  byId("scale").textContent = `Black is 0, yellow ${number(most, 3)} `
      + (isRelative() ? "times the head's mean" : "(L2 norm over tokens)")
      + `; grey is not finite; frames are massive: over ${data.lambda} times `
      + `the mean. ${layer.massive} in this layer.`;
  drawLayerLines();
}

function start() {
  explorer.hidden = false;
  if (data.series.length) {
    const arms = [...new Set(data.series.map(series => series.arm))];
    fill(byId("arm"), arms.map(arm => [arm, arm]));
    fillTensors();
    // Begin where there is most to see.
    const first = ofArm()[0];
    const most = Math.max(...first.layers.map(layer => layer.massive));
    state.series = first;
    state.layer = first.layers.findIndex(layer => layer.massive === most);
    byId("arm").addEventListener("change", () => { fillTensors(); draw(); });
    byId("tensor").addEventListener("change", draw);
    byId("relative").addEventListener("change", draw);
    byId("statistic").addEventListener("change", drawLayerLines);
    byId("layer").addEventListener("input", event => {
      state.layer = Number(event.target.value);
      draw();
    });
    byId("head").addEventListener("change", event => {
      state.head = Number(event.target.value);
      draw();
    });
    listenToMap(byId("layer-map"));
    listenToMap(byId("head-map"));
  }
  byId("measure")?.addEventListener("change", drawPositionLines);
  const all = () => {
    if (data.series.length) draw();
    drawPositionLines();
  };
  all();
  new ResizeObserver(all).observe(explorer);
}

start();
