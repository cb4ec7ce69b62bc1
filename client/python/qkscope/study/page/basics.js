// Draws a study's results. All text comes from the results, which may be
// somebody else's, so it enters the page as text only, never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00",
                 "#56b4e9", "#7f7f7f", "#b8a800"];
const POINTS = {hook_q: "Q before RoPE", hook_rot_q: "Q",
                hook_k: "K before RoPE", hook_rot_k: "K", hook_v: "V"};
const byId = id => document.getElementById(id);
const pointName = point => POINTS[point] || point;
const unique = values => [...new Set(values)];
const percent = value => (100 * value).toFixed(1) + " %";
const shown = (value, digits = 2) =>
  value === null || value === undefined ? "–" : value.toFixed(digits);
const pShown = p => p === null ? "–" : p < 1e-4 ? p.toExponential(1)
                                                : p.toFixed(4);

function element(name, attributes = {}, text = null) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes))
    made.setAttribute(key, value);
  if (text !== null) made.textContent = text;
  return made;
}

function svgElement(parent, name, attributes = {}, text = null) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes))
    made.setAttribute(key, value);
  if (text !== null) made.textContent = text;
  parent.append(made);
  return made;
}

function newSvg(id, width, height, label) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label);
  byId(id).replaceChildren(svg);
  return svg;
}

function showTip(event, text) {
  const tip = byId("tip");
  tip.textContent = text;
  tip.hidden = false;
  tip.style.left = Math.min(event.clientX + 14,
                            innerWidth - tip.offsetWidth - 4) + "px";
  tip.style.top = Math.min(event.clientY + 14,
                           innerHeight - tip.offsetHeight - 4) + "px";
}
const hideTip = () => { byId("tip").hidden = true; };

function hover(target, text) {
  target.addEventListener("mousemove", event => showTip(event, text));
  target.addEventListener("mouseleave", hideTip);
}

// A labelled choice. `options`: [value, text] pairs. Keeps its value where the
// new options have it.
function choice(place, name, label, onChange) {
  const select = element("select", {id: `${place}-${name}`});
  const holder = element("label", {}, label);
  holder.append(select);
  byId(`${place}-controls`).append(holder);
  select.addEventListener("change", onChange);
  return {
    get value() { return select.value; },
    set value(value) { select.value = value; },
    offer(options) {
      const old = select.value;
      select.replaceChildren(...options.map(
        ([value, text]) => element("option", {value}, text)));
      if (options.some(([value]) => String(value) === old)) select.value = old;
      holder.hidden = options.length < 2;
    },
  };
}

function table(id, heads, rows) {
  const head = element("tr");
  head.append(...heads.map(text => element("th", {scope: "col"}, text)));
  byId(id).replaceChildren(head, ...rows.map(cells => {
    const row = element("tr");
    row.append(...cells.map(cell => {
      const [text, kind] = Array.isArray(cell) ? cell : [cell, ""];
      return element("td", kind ? {class: kind} : {}, text);
    }));
    return row;
  }));
  byId(id).hidden = rows.length === 0;
}
const number = text => [text, "number"];
