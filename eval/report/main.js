// State, its controls, and what is drawn anew when it changes.

const data = JSON.parse(byId("data").textContent);
const pictures = JSON.parse(byId("pictures").textContent);

const state = {
  sequence: data.sequences[0] || null, // null: the average of all
  metric: data.metrics.some((one) => one.id === "psnr_rgb") ? "psnr_rgb" : data.metrics[0].id,
  log: true,
  hidden: new Set(),
};

const metricLabel = (id) => data.metrics.find((one) => one.id === id).label;
// "33.000 dB", VMAF without a unit.
const inUnits = (value, id, digits) =>
  `${fixed(value, digits)} ${data.metrics.find((one) => one.id === id).unit}`.trimEnd();
const sequenceName = () => (state.sequence ? state.sequence.name : "average of the sequences");

function drawCharts() {
  drawCurves(state);
  drawFrames(state);
}

function changeSequence() {
  const chosen = byId("sequence").value;
  state.sequence = chosen === "average" ? null : data.sequences[Number(chosen)];
  fillFramePoints(state);
  fillViewer(state);
  drawCharts();
  drawViewer(state);
}

fill(byId("sequence"), [
  ...data.sequences.map((one, i) => [i, one.name]),
  ...(data.average ? [["average", `average of ${data.sequences.length} sequences`]] : []),
], 0);
fill(byId("metric"), data.metrics.map((one) => [one.id, one.label]), state.metric);
const tests = [...new Set(data.comparisons.map((one) => one.test))];
fill(byId("deltas-test"), tests.map((name) => [name, name]), tests[0]);
fill(byId("deltas-field"), Object.entries(FIELDS).map(([id, one]) => [id, one.label]));

byId("sequence").addEventListener("change", changeSequence);
byId("metric").addEventListener("change", () => {
  state.metric = byId("metric").value;
  drawCharts();
  drawDeltas(state);
});
byId("log-rate").addEventListener("change", () => {
  state.log = byId("log-rate").checked;
  drawCurves(state);
});
for (const id of ["deltas-test", "deltas-field"]) {
  byId(id).addEventListener("change", () => drawDeltas(state));
}
byId("frames-point").addEventListener("change", () => drawFrames(state));
drawLegend(state, drawCharts);
listenViewer(state);
changeSequence();
drawDeltas(state);

let drawnAt = byId("curves").clientWidth;
new ResizeObserver(() => {
  if (byId("curves").clientWidth === drawnAt) return;
  drawnAt = byId("curves").clientWidth;
  drawCharts();
}).observe(byId("curves"));
