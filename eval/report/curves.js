// The RD curves: one line a codec, the point under the pointer or the arrow keys told in words.

function curvesOf(state) {
  const curves = [];
  data.codecs.forEach((codec, index) => {
    if (state.hidden.has(codec.name)) return;
    const points = state.sequence === null
      ? data.average[codec.name][state.metric].map(([bpp, value]) => ({ bpp, value }))
      : (state.sequence.points[codec.name] || [])
        .map((point) => ({ ...point, value: point.values[state.metric] }))
        .filter((point) => point.value !== null);
    if (points.length) curves.push({ codec, index, points });
  });
  return curves;
}

function drawCurves(state) {
  const holder = byId("curves");
  const curves = curvesOf(state);
  const all = curves.flatMap((curve) => curve.points);
  if (!all.length) {
    holder.replaceChildren();
    html("p", holder, "No codec that is shown has a point of this metric here.");
    return;
  }
  const { root, x, y } = chart(holder, {
    xs: state.log ? extent(all.map((p) => p.bpp), 0.05, true)
      : [0, Math.max(...all.map((p) => p.bpp)) * 1.05],
    ys: extent(all.map((p) => p.value), 0.06),
    log: state.log,
    xLabel: state.log ? "bits per pixel (log)" : "bits per pixel",
    yLabel: metricLabel(state.metric),
    height: holder.clientWidth < 600 ? 320 : 420,
    name: `RD curves, ${metricLabel(state.metric)}, ${sequenceName(state)}`,
  });
  const places = [];
  for (const { codec, index, points } of curves) {
    const line = points.map((point) => [x(point.bpp), y(point.value)]);
    svg("path", { class: `curve s${colour(index)}`, d: path(line),
      "stroke-dasharray": dashes(index), "data-codec": codec.name }, root);
    line.forEach(([px, py], i) => {
      marker(index, px, py, root);
      places.push({ px, py, codec, point: points[i] });
    });
  }
  followPoints(root, places, state);
}

function followPoints(root, places, state) {
  const halo = svg("circle", { class: "halo", r: 9, visibility: "hidden" }, root);
  let at = -1;
  const choose = (i) => {
    at = i;
    const { px, py, codec, point } = places[i];
    halo.setAttribute("cx", px);
    halo.setAttribute("cy", py);
    halo.setAttribute("visibility", "visible");
    byId("curves-said").textContent = pointWords(codec, point, state.metric);
  };
  root.addEventListener("pointermove", (event) => {
    const [ex, ey] = placeIn(root, event);
    const away = places.map(({ px, py }) => Math.hypot(px - ex, py - ey));
    choose(away.indexOf(Math.min(...away)));
  });
  root.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    choose(at < 0 ? 0 : (at + step + places.length) % places.length);
  });
}

function pointWords(codec, point, metric) {
  const quality = `${inUnits(point.value, metric, 3)} (${metricLabel(metric)})`;
  const rate = `${point.bpp.toFixed(4)} bits per pixel`;
  if (point.level === undefined) return `${codec.name}, mean of sequences: ${rate}, ${quality}`;
  const ssim = metric === "ms_ssim" ? `, MS-SSIM ${fixed(point.ms_ssim, 5)}` : "";
  return `${codec.name} ${codec.parameter} ${point.level}: ${rate}, `
    + `${fixed(point.kbps, 1)} kbit/s, ${point.bytes ?? "-"} bytes, ${quality}${ssim}`;
}

function drawLegend(state, changed) {
  const legend = byId("legend");
  data.codecs.forEach((codec, index) => {
    const label = html("label", legend);
    const box = html("input", label, null, { type: "checkbox", "data-codec": codec.name });
    box.checked = true;
    legendKey(index, label);
    label.append(codec.name);
    box.addEventListener("change", () => {
      if (box.checked) state.hidden.delete(codec.name);
      else state.hidden.add(codec.name);
      changed();
    });
  });
}
