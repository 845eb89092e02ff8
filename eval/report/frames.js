// Quality and bits of every frame, each codec at its point nearest in rate to the chosen one.

function drawFrames(state) {
  const quality = byId("frames-quality"), rate = byId("frames-rate"), words = byId("frames-points");
  quality.replaceChildren();
  rate.replaceChildren();
  words.replaceChildren();
  const matches = state.sequence && state.sequence.matches;
  byId("frames-point").disabled = !matches;
  byId("frames-said").hidden = !matches;
  if (!matches) {
    html("li", words, "Choose one sequence to see its frames.");
    return;
  }
  const row = matches.rows[byId("frames-point").value];
  const shown = [];
  data.codecs.forEach((codec, index) => {
    if (row[codec.name] === undefined || state.hidden.has(codec.name)) return;
    shown.push({ codec, index, point: state.sequence.points[codec.name][row[codec.name]] });
  });
  const { bpp } = state.sequence.points[matches.reference][row[matches.reference]];
  for (const { codec, index, point } of shown) {
    const to = codec.name === matches.reference ? "" : ` (rate ${rateTo(point.bpp, bpp)})`;
    const item = html("li", words);
    legendKey(index, item);
    item.append(`${codec.name} ${codec.parameter} ${point.level}: `
      + `${point.bpp.toFixed(4)} bpp${to}, ${inUnits(point.values[state.metric], state.metric, 2)}`
      + ofItsBits(point));
  }
  const charts = [
    frameChart(quality, shown, (p) => p.frame_values[state.metric], metricLabel(state.metric)),
    frameChart(rate, shown, (p) => p.frame_bytes && p.frame_bytes.map((n) => n * 8 / 1000),
      "kilobits of the frame", true),
  ].filter((one) => one !== null);
  followFrames(charts, shown, state);
}

// What share of a point's bits each part of the model takes, the largest first.
function ofItsBits({ frame_parts: parts }) {
  if (!parts) return "";
  const sums = Object.entries(parts).map(([name, bits]) => [name, bits.reduce((a, b) => a + b, 0)]);
  const all = sums.reduce((sum, [, bits]) => sum + bits, 0);
  sums.sort((a, b) => b[1] - a[1]);
  const said = sums.map(([name, bits]) => `${partName(name)} ${(100 * bits / all).toFixed(1)} %`);
  return `; of its bits ${said.join(", ")}`;
}

function partName(name) {
  return name.replace("_", " ");
}

// frame-point's options for a sequence: the points of its reference codec.
function fillFramePoints(state) {
  const matches = state.sequence && state.sequence.matches;
  if (!matches) return;
  const codec = data.codecs.find((one) => one.name === matches.reference);
  const points = state.sequence.points[codec.name];
  byId("frames-reference").textContent = `${codec.name} at`;
  const old = byId("frames-point").value;
  fill(byId("frames-point"),
    points.map((p, i) => [i, `${codec.parameter} ${p.level} (${p.bpp.toFixed(3)} bpp)`]),
    old === "" ? Math.floor(points.length / 2) : old);
}

function frameChart(holder, shown, valuesOf, label, fromZero = false) {
  const lines = shown.map(({ codec, index, point }) => ({ codec, index, values: valuesOf(point) }))
    .filter(({ values }) => values && values.some((value) => value !== null));
  if (!lines.length) return null;
  const all = lines.flatMap(({ values }) => values.filter((value) => value !== null));
  const count = Math.max(...lines.map(({ values }) => values.length));
  const drawn = chart(holder, {
    xs: [0, Math.max(count - 1, 1)],
    ys: fromZero ? [0, Math.max(...all) * 1.05] : extent(all, 0.05),
    xLabel: "frame", yLabel: label, height: 210, name: `${label}, frame by frame`,
  });
  for (const { codec, index, values } of lines) {
    const points = values.flatMap((v, i) => (v === null ? [] : [[drawn.x(i), drawn.y(v)]]));
    svg("path", { class: `curve frames s${colour(index)}`, d: path(points),
      "stroke-dasharray": dashes(index), "data-codec": codec.name }, drawn.root);
    for (let i = 0; i < points.length; i += Math.max(1, Math.floor(points.length / 8))) {
      marker(index, ...points[i], drawn.root, 3.5);
    }
  }
  return { ...drawn, count };
}

function followFrames(charts, shown, state) {
  let at = -1;
  const cursors = charts.map(({ root, box }) => svg("line", {
    class: "cursor", y1: box.top, y2: box.bottom, visibility: "hidden" }, root));
  const choose = (frame) => {
    at = frame;
    charts.forEach(({ x }, i) => {
      cursors[i].setAttribute("x1", x(frame));
      cursors[i].setAttribute("x2", x(frame));
      cursors[i].setAttribute("visibility", "visible");
    });
    byId("frames-said").textContent = `frame ${frame}: ` + shown.map(({ codec, point }) => {
      const values = point.frame_values[state.metric];
      const bytes = point.frame_bytes ? `, ${point.frame_bytes[frame]} bytes` : "";
      const type = point.frame_types[frame] ? ` ${point.frame_types[frame]}` : "";
      const parts = Object.entries(point.frame_parts || {}).filter(([, bits]) => bits[frame] > 0)
        .map(([name, bits]) => `${partName(name)} ${bits[frame]}`);
      const ofThem = parts.length ? ` (bits: ${parts.join(", ")})` : "";
      const value = values ? inUnits(values[frame], state.metric, 2) : "-";
      return `${codec.name}${type} ${value}${bytes}${ofThem}`;
    }).join("; ");
  };
  for (const { root, box, count } of charts) {
    const clamp = (frame) => Math.min(count - 1, Math.max(0, frame));
    root.addEventListener("pointermove", (event) => {
      const [ex] = placeIn(root, event);
      const share = (ex - box.left) / (box.right - box.left);
      choose(clamp(Math.round(share * Math.max(count - 1, 1))));
    });
    root.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      choose(at < 0 ? 0 : clamp(at + step));
    });
  }
}
