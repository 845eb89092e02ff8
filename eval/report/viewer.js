// Two pictures of one frame with a movable border, as they are or as their error to the original.

const images = new Map();
let generation = 0; // of drawings: an older one that is still loading must not draw

function imageOf(key) {
  if (!images.has(key)) {
    images.set(key, new Promise((resolve, reject) => {
      const image = new Image();
      image.onload = () => resolve(image);
      image.onerror = () => reject(new Error(`picture ${key} cannot be shown`));
      image.src = pictures[key];
    }));
  }
  return images.get(key);
}

const nameOf = (picture) => picture.codec || "original";

function viewerSet(state) {
  return (data.viewer || []).find((one) => state.sequence && one.sequence === state.sequence.name);
}

// A new sequence: other pictures to choose from, ours against the original to begin with.
function fillViewer(state) {
  const set = viewerSet(state);
  byId("viewer").hidden = !set;
  byId("viewer-none").hidden = Boolean(set) || !data.viewer;
  byId("viewer-none").textContent = state.sequence
    ? "There are no pictures of this sequence." : "Choose one sequence to see its pictures.";
  if (!set) return;
  const options = set.pictures.map((picture) => [nameOf(picture), nameOf(picture)]);
  const [left, right] = [byId("viewer-left"), byId("viewer-right")];
  fill(left, options, left.value || "original");
  fill(right, options, right.value || set.reference);
  viewerTable(set);
}

async function drawViewer(state) {
  const set = viewerSet(state);
  if (!set) return;
  const mine = ++generation;
  const zoom = byId("viewer-zoom").value, gain = Number(byId("viewer-show").value);
  const stage = byId("viewer-stage");
  stage.style.width = zoom === "fit" ? "100%" : `${set.width * zoom}px`;
  stage.style.maxWidth = zoom === "fit" ? `${set.width * 2}px` : "none";
  byId("viewer-slider").style.maxWidth = `${set.width * (zoom === "fit" ? 2 : zoom)}px`;
  const original = await imageOf(set.pictures[0].key);
  for (const side of ["left", "right"]) {
    const name = byId(`viewer-${side}`).value;
    const picture = set.pictures.find((one) => nameOf(one) === name);
    const image = await imageOf(picture.key);
    if (mine !== generation) return;
    const canvas = byId(`viewer-${side}-canvas`);
    canvas.width = set.width;
    canvas.height = set.height;
    canvas.setAttribute("aria-label",
      `${gain ? "error of " : ""}${name}, frame ${set.frame} of ${set.sequence}`);
    paint(canvas, image, original, gain);
  }
  byId("viewer-scale").textContent = `Frame ${set.frame}, ${set.width}x${set.height} pixels of it. `
    + (gain ? `Error: absolute difference to the original in R, G and B, times ${gain}; full `
      + `brightness is a difference of ${Math.ceil(255 / gain)} of 255 or more. `
      : "") + ["left", "right"].map((side) => sideWords(set, side)).join(" ");
  moveBorder();
}

// "Left: lite at 32, 0.4046 bpp, 31.98 dB PSNR RGB." of the whole sequence.
function sideWords(set, side) {
  const picture = set.pictures.find((one) => nameOf(one) === byId(`viewer-${side}`).value);
  const place = side === "left" ? "Left" : "Right";
  if (!picture.codec) return `${place}: original.`;
  const reference = set.pictures.find((one) => one.codec === set.reference);
  const to = reference && picture !== reference
    ? ` (rate ${rateTo(picture.bpp, reference.bpp)})` : "";
  return `${place}: ${picture.codec} at ${picture.level}, ${picture.bpp.toFixed(4)} bpp${to}, `
    + `${fixed(picture.psnr, 2)} dB PSNR RGB.`;
}

function paint(canvas, image, original, gain) {
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  if (!gain) return;
  const decoded = context.getImageData(0, 0, canvas.width, canvas.height);
  context.drawImage(original, 0, 0);
  const source = context.getImageData(0, 0, canvas.width, canvas.height).data;
  const values = decoded.data; // clamped to 0..255 by its type
  for (let i = 0; i < values.length; i++) {
    if (i % 4 !== 3) values[i] = Math.abs(values[i] - source[i]) * gain;
  }
  context.putImageData(decoded, 0, 0);
}

function moveBorder() {
  const share = byId("viewer-slider").value;
  byId("viewer-right-canvas").style.clipPath = `inset(0 0 0 ${share}%)`;
  byId("viewer-line").style.left = `${share}%`;
}

function viewerTable(set) {
  const table = byId("viewer-table");
  table.replaceChildren();
  html("caption", table, `At matched rate, frame ${set.frame}`);
  const titles = ["codec", "level", "bpp", "rate to " + set.reference, "PSNR RGB, dB",
    "frame", "its bytes", "its PSNR RGB, dB", "its PSNR Y, dB"];
  const line = html("tr", html("thead", table));
  titles.forEach((title, i) => html("th", line, title, {
    scope: "col", class: i ? "number" : "" }));
  const body = html("tbody", table);
  const reference = set.pictures.find((one) => one.codec === set.reference);
  for (const picture of set.pictures.filter((one) => one.codec)) {
    const row = html("tr", body);
    const to = reference ? rateTo(picture.bpp, reference.bpp) : "-";
    html("th", row, picture.codec, { scope: "row" });
    for (const text of [picture.level, picture.bpp.toFixed(4), to, fixed(picture.psnr, 2),
      picture.frame.type || "-", picture.frame.bytes ?? "-", fixed(picture.frame.psnr_rgb, 2),
      fixed(picture.frame.psnr_y, 2)]) {
      html("td", row, text, { class: "number" });
    }
  }
  const remarks = byId("viewer-remarks");
  remarks.replaceChildren();
  for (const picture of set.pictures.filter((one) => one.remark)) {
    html("li", remarks, `${picture.codec}: ${picture.remark}`);
  }
}

function listenViewer(state) {
  const slider = byId("viewer-slider");
  slider.addEventListener("input", moveBorder);
  for (const id of ["viewer-left", "viewer-right", "viewer-show", "viewer-zoom"]) {
    byId(id).addEventListener("change", () => drawViewer(state));
  }
  const stage = byId("viewer-stage");
  const follow = (event) => {
    const area = stage.getBoundingClientRect();
    slider.value = ((event.clientX - area.left) / area.width) * 100;
    moveBorder();
  };
  stage.addEventListener("pointerdown", (event) => {
    stage.setPointerCapture(event.pointerId);
    follow(event);
  });
  stage.addEventListener("pointermove", (event) => { if (event.buttons & 1) follow(event); });
}
