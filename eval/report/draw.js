// Axes, ticks, markers and numbers: what every chart of the page is drawn with.

const COLOURS = 7;
const SVG = "http://www.w3.org/2000/svg";

function svg(name, attributes = {}, parent = null, text = null) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== null) element.textContent = text;
  if (parent) parent.append(element);
  return element;
}

function html(name, parent = null, text = null, attributes = {}) {
  const element = document.createElement(name);
  if (text !== null) element.textContent = text;
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (parent) parent.append(element);
  return element;
}

// A heading of a row; its name may break after an underscore.
function rowHead(row, name) {
  const head = html("th", row, null, { scope: "row" });
  name.split("_").forEach((part, i) => head.append(...(i ? ["_", html("wbr"), part] : [part])));
}

const byId = (id) => document.getElementById(id);

// About `count` round values between low and high.
function linearTicks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((one) => one >= rough);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high * (1 + 1e-12); i++) {
    ticks.push(Number((i * step).toPrecision(12)));
  }
  return ticks;
}

// Round values of a logarithmic axis, at most `count`, from the finest set that keeps to it.
function logTicks(low, high, count) {
  const sets = [[1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9], [1, 1.5, 2, 3, 5, 7], [1, 2, 5], [1, 3], [1]];
  for (const set of sets) {
    const ticks = [];
    for (let p = Math.floor(Math.log10(low)); p <= Math.ceil(Math.log10(high)); p++) {
      for (const n of set) {
        const value = Number((n * 10 ** p).toPrecision(12));
        if (value >= low && value <= high) ticks.push(value);
      }
    }
    if (ticks.length <= count) return ticks;
  }
  return [];
}

// A map from values to pixels; `log`: by their logarithm.
function scale(low, high, from, to, log = false) {
  const f = log ? Math.log10 : (value) => value;
  const a = f(low), b = f(high);
  return (value) => from + ((f(value) - a) / (b - a)) * (to - from);
}

function extent(values, margin, log = false) {
  let low = Math.min(...values), high = Math.max(...values);
  if (log) {
    const factor = Math.max((high / low) ** margin, 1.05);
    return [low / factor, high * factor];
  }
  const room = Math.max((high - low) * margin, 1e-3 * Math.abs(high), 1e-9);
  return [low - room, high + room];
}

const colour = (index) => index % COLOURS;
const dashes = (index) => (index < COLOURS ? "" : "6 3");

// A marker of the codec's own shape around (x, y), so that colour alone decides nothing.
function marker(index, x, y, parent, r = 4.5) {
  const shapes = [
    () => svg("circle", { cx: x, cy: y, r }),
    () => svg("rect", { x: x - r + 0.5, y: y - r + 0.5, width: 2 * r - 1, height: 2 * r - 1 }),
    () => polygon([[0, -r], [r, r * 0.8], [-r, r * 0.8]]),
    () => polygon([[0, -r * 1.2], [r, 0], [0, r * 1.2], [-r, 0]]),
    () => polygon([[0, r], [r, -r * 0.8], [-r, -r * 0.8]]),
    () => polygon([[-r, -r], [0, -r * 0.4], [r, -r], [r * 0.4, 0], [r, r], [0, r * 0.4],
      [-r, r], [-r * 0.4, 0]]),
    () => svg("circle", { cx: x, cy: y, r: r * 0.6 }),
  ];
  const polygon = (corners) => svg("polygon", {
    points: corners.map(([dx, dy]) => `${x + dx},${y + dy}`).join(" "),
  });
  const shape = shapes[index % shapes.length]();
  shape.classList.add(`f${colour(index)}`, "marker");
  parent.append(shape);
  return shape;
}

// A codec's line and marker, as in a legend.
function legendKey(index, parent) {
  const key = svg("svg", { viewBox: "0 0 28 14", "aria-hidden": "true" }, parent);
  svg("line", { x1: 0, x2: 28, y1: 7, y2: 7, "stroke-width": 2, class: `s${colour(index)}`,
    "stroke-dasharray": dashes(index) }, key);
  marker(index, 14, 7, key);
}

function path(points) {
  return points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
}

// An empty chart in `holder`: axes with ticks and words. Returns its svg, maps and borders.
function chart(holder, { xs, ys, log = false, xLabel, yLabel, height, name }) {
  const width = Math.max(holder.clientWidth, 200);
  const box = { left: 46, right: width - 12, top: 22, bottom: height - 38 };
  const root = svg("svg", {
    viewBox: `0 0 ${width} ${height}`, height, role: "application", tabindex: 0,
    "aria-label": name,
  });
  const x = scale(...xs, box.left, box.right, log);
  const y = scale(...ys, box.bottom, box.top);
  const across = Math.max(3, Math.floor(width / 70));
  let written = -Infinity;
  for (const tick of log ? logTicks(...xs, across) : linearTicks(...xs, across)) {
    svg("line", { class: "grid", x1: x(tick), x2: x(tick), y1: box.top, y2: box.bottom }, root);
    if (x(tick) - written < 28) continue; // no room for its number
    written = x(tick);
    svg("text", { x: x(tick), y: box.bottom + 15, "text-anchor": "middle" }, root, tick);
  }
  for (const tick of linearTicks(...ys, Math.max(4, Math.floor(height / 50)))) {
    svg("line", { class: "grid", x1: box.left, x2: box.right, y1: y(tick), y2: y(tick) }, root);
    svg("text", { x: box.left - 6, y: y(tick) + 4, "text-anchor": "end" }, root, tick);
  }
  svg("text", { x: 4, y: 13 }, root, yLabel);
  svg("text", { x: box.right, y: height - 6, "text-anchor": "end" }, root, xLabel);
  holder.replaceChildren(root);
  return { root, x, y, box };
}

// Where an event is, in the units of the svg's drawing.
function placeIn(root, event) {
  const area = root.getBoundingClientRect();
  const [, , width, height] = root.getAttribute("viewBox").split(" ").map(Number);
  return [((event.clientX - area.left) / area.width) * width,
    ((event.clientY - area.top) / area.height) * height];
}

function fixed(value, digits, sign = false) {
  if (value === null || value === undefined) return "-";
  return (sign && value >= 0 ? "+" : "") + value.toFixed(digits);
}

const significant = (value) => (value >= 100 ? value.toFixed(0) : value.toPrecision(3));

// How far a rate is from the reference's: "-18 %".
const rateTo = (bpp, reference) => `${fixed((bpp / reference - 1) * 100, 0, true)} %`;

function fill(select, options, chosen) {
  select.replaceChildren();
  for (const [value, text] of options) html("option", select, text, { value });
  if (options.some(([value]) => String(value) === String(chosen))) select.value = chosen;
}
