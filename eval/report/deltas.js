// The BD-rate table: sequences by anchors, sorted by any column; every doubt stands below it.

const FIELDS = {
  rate_percent: { label: "BD-rate, %", digits: 2, sign: true },
  rate_percent_akima: { label: "BD-rate by akima, %", digits: 2, sign: true },
  quality_db: { label: "BD quality, dB (VMAF: points)", digits: 3, sign: true },
  overlap: { label: "overlap of the quality ranges, %", digits: 0, factor: 100 },
};
const sorting = { column: null, falling: false };

function drawDeltas(state) {
  const table = byId("deltas");
  const remarks = byId("deltas-remarks");
  table.replaceChildren();
  remarks.replaceChildren();
  const shown = data.comparisons.filter(
    (one) => one.metric === state.metric && one.test === byId("deltas-test").value);
  if (!shown.length) {
    html("caption", table, "There is no comparison by this metric.");
    return;
  }
  const field = FIELDS[byId("deltas-field").value];
  const key = byId("deltas-field").value;
  const doubts = [];
  const names = [...new Set(shown.flatMap((one) => Object.keys(one.sequences)))];
  const rows = names.map((name) => ({
    name,
    values: shown.map((one) => valueOf(one.sequences[name], key, field)),
    notes: shown.map((one) => noteOf(one, name, doubts)),
  }));
  order(rows);
  const body = html("tbody");
  for (const row of rows) {
    const line = html("tr", body);
    rowHead(line, row.name);
    row.values.forEach((value, i) => cell(line, value, field, row.notes[i]));
  }
  table.append(head(shown, state), body);
  if (key === "rate_percent" || key === "quality_db") table.append(means(shown, key, field));
  doubtsBelow(remarks, shown, doubts);
}

function valueOf(delta, key, field) {
  const value = delta ? delta[key] : null;
  return value === null || value === undefined ? null : value * (field.factor || 1);
}

// The number of the doubt about one figure, or null; equal sentences share one.
function noteOf(comparison, name, doubts) {
  const delta = comparison.sequences[name];
  if (!delta) return null;
  const sentences = delta.error ? [delta.error] : delta.warnings;
  if (!sentences.length) return null;
  doubts.push(`${name}, against ${comparison.anchor}: ${sentences.join("; ")}`);
  return doubts.length;
}

function cell(line, value, field, note) {
  const text = value === null ? "none" : fixed(value, field.digits, field.sign);
  const place = html("td", line, text, { class: "number" });
  if (note !== null) {
    place.append(" ");
    html("a", place, "*", { href: `#doubt-${note}`, "aria-label": `remark ${note}` })
      .addEventListener("click", () => { byId("deltas-doubts").open = true; });
  }
}

function head(shown, state) {
  const line = html("tr", html("thead"));
  ["sequence", ...shown.map((one) => one.anchor)].forEach((title, column) => {
    const sorted = sorting.column === column;
    const place = html("th", line, null, {
      scope: "col", class: column ? "number" : "",
      "aria-sort": sorted ? (sorting.falling ? "descending" : "ascending") : "none",
    });
    html("button", place, title, { type: "button" }).addEventListener("click", () => {
      sorting.falling = sorted && !sorting.falling;
      sorting.column = column;
      drawDeltas(state);
      byId("deltas").querySelectorAll("th button")[column].focus();
    });
  });
  return line.parentNode;
}

function order(rows) {
  if (sorting.column === null) return;
  const way = sorting.falling ? -1 : 1;
  const value = (row) => (sorting.column ? row.values[sorting.column - 1] : row.name);
  rows.sort((a, b) => {
    const first = value(a), second = value(b);
    if (first === null || second === null || first === undefined || second === undefined) {
      return (first ?? null) === null ? ((second ?? null) === null ? 0 : 1) : -1;
    }
    return way * (first < second ? -1 : first > second ? 1 : 0);
  });
}

function means(shown, key, field) {
  const line = html("tr", html("tfoot"));
  html("th", line, "mean", { scope: "row" });
  for (const one of shown) {
    const value = key === "rate_percent" ? one.mean_rate_percent : one.mean_quality_db;
    cell(line, value, field, null);
  }
  return line.parentNode;
}

function doubtsBelow(remarks, shown, doubts) {
  const general = shown.flatMap((one) => one.warnings.map((text) => `${one.anchor}: ${text}`));
  if (general.length) {
    const list = html("ul", remarks);
    for (const text of general) html("li", list, text);
  }
  if (!doubts.length) return;
  const details = html("details", remarks, null, { id: "deltas-doubts" });
  html("summary", details, `* ${doubts.length} remarks on single figures`);
  const list = html("ol", details);
  doubts.forEach((text, i) => html("li", list, text, { id: `doubt-${i + 1}` }));
}
