// Elements and line charts. Texts become text nodes only, never HTML.

function bytes(base64) {
  return Uint8Array.from(atob(base64), c => c.charCodeAt(0));
}

function node(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  Object.assign(made, attributes);
  return made;
}

function shape(tag, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) {
    made.setAttribute(name, value);
  }
  if (text !== undefined) made.textContent = text;
  return made;
}

function number(value, digits = 4) {
  return value === null || !Number.isFinite(value) ? "not finite"
      : String(Number(value.toPrecision(digits)));
}

const HEIGHT = 190, LEFT = 52, BOTTOM = 26, TOP = 8;

// Draws lines ({name, colour, values, marks}) over `places` into `parent`. The
// pointer calls read(text), a click choose(index).
function lines(parent, all, places, what, read, choose) {
  parent.replaceChildren();
  const width = Math.max(200, parent.clientWidth);
  const finite = all.flatMap(line => line.values).filter(
      value => value !== null && Number.isFinite(value));
  const low = finite.reduce((a, b) => Math.min(a, b), 0);
  const high = finite.reduce((a, b) => Math.max(a, b), low === 0 ? 1e-9 : 0);
  const x = i => LEFT + (width - LEFT - 8) * (places.length > 1
      ? i / (places.length - 1) : 0.5);
  const y = v => TOP + (HEIGHT - TOP - BOTTOM) * (1 - (v - low) / (high - low));
  const svg = shape("svg", {width: width, height: HEIGHT, role: "img",
                            "aria-label": what});
  for (const value of [low, (low + high) / 2, high]) {
    svg.append(shape("line", {class: "axis", x1: LEFT, x2: width - 8,
                              y1: y(value), y2: y(value)}));
    svg.append(shape("text", {x: LEFT - 6, y: y(value) + 4,
                              "text-anchor": "end"}, number(value, 3)));
  }
  const step = Math.ceil(places.length / Math.min(16, width / 40));
  for (let i = 0; i < places.length; i += step) {
    svg.append(shape("text", {x: x(i), y: HEIGHT - 8,
                              "text-anchor": "middle"}, String(places[i])));
  }
  for (const line of all) {
    let path = "", pen = "M";
    line.values.forEach((value, i) => {
      if (value === null || !Number.isFinite(value)) {
        pen = "M";
        return;
      }
      path += `${pen}${x(i).toFixed(1)},${y(value).toFixed(1)}`;
      if (pen === "M") path += "h0.01";
      pen = "L";
    });
    svg.append(shape("path", {class: "series", d: path, stroke: line.colour,
                              "stroke-linecap": "round"}));
  }
  const index = event => {
    const box = svg.getBoundingClientRect();
    const at = (event.clientX - box.left - LEFT) / (width - LEFT - 8)
        * (places.length - 1);
    return Math.min(places.length - 1, Math.max(0, Math.round(at) || 0));
  };
  svg.addEventListener("mousemove", event => {
    const i = index(event);
    read(`${what} ${places[i]}: ` + all.map(line => {
      const mark = line.marks?.[i] ? " (flipped)" : "";
      return `${line.name} ${number(line.values[i] ?? null)}${mark}`;
    }).join("; "));
  });
  if (choose) svg.addEventListener("click", event => choose(index(event)));
  const legend = node("div", "", {className: "legend"});
  for (const line of all) {
    const entry = node("span", line.name);
    entry.style.color = line.colour;
    legend.append(entry);
  }
  parent.append(svg, legend);
}
