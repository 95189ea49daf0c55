"use strict";
const DATA = JSON.parse(document.getElementById("data").textContent);
const root = document.documentElement;
const NARROW = 620;

// Theme: the system's, until somebody chooses.
const themeButton = document.getElementById("theme");
function setTheme(theme) {
  root.dataset.theme = theme;
  themeButton.textContent = theme === "dark" ? "Light" : "Dark";
}
setTheme(window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
themeButton.addEventListener("click", () => {
  setTheme(root.dataset.theme === "dark" ? "light" : "dark");
  drawCharts();
  drawLens();
});
const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();

// Charts.
const logAxis = {};

function layoutOf(id, figure) {
  const narrow = window.innerWidth < NARROW;
  const ink = colour("--ink"), line = colour("--line");
  const layout = {...figure.layout, template: undefined};
  delete layout.template;
  const height = figure.layout.height || (id.endsWith("cost") || id.endsWith("difficulty") ? 440 : 340);
  const axis = {gridcolor: line, linecolor: line, zerolinecolor: line, automargin: true};
  for (const key of Object.keys(layout)) {
    if (/^[xy]axis/.test(key)) layout[key] = {...layout[key], ...axis};
  }
  for (const key of ["xaxis", "yaxis"]) layout[key] = {...axis, ...layout[key]};
  if (narrow && layout.xaxis2 && !id.endsWith("resources")) {
    // Panels beside each other are too small to read: one below the other.
    layout.xaxis = {...layout.xaxis, domain: [0, 1]};
    layout.xaxis2 = {...layout.xaxis2, domain: [0, 1], anchor: "y2"};
    layout.yaxis = {...layout.yaxis, domain: [0.58, 1]};
    layout.yaxis2 = {...layout.yaxis2, domain: [0, 0.42]};
  }
  Object.assign(layout, {
    height: narrow && layout.xaxis2 && !id.endsWith("resources") ? 620 : height + (narrow ? 120 : 0),
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: {color: ink, family: "system-ui, sans-serif", size: narrow ? 11 : 12.5},
    margin: {l: 56, r: 12, t: 16, b: 48},
    hoverlabel: {align: "left", bgcolor: colour("--panel"), bordercolor: line, font: {color: ink}},
    hovermode: "closest",
    dragmode: narrow ? false : "zoom",
    legend: narrow ? {orientation: "h", y: -0.25, font: {size: 11}} : {font: {size: 12}, tracegroupgap: 2},
  });
  if (id.endsWith("cost") && logAxis[id]) {
    const most = Math.max(1, ...figure.data.flatMap((trace) => trace.meta ? trace.meta.log_x : []));
    const ticks = [0.05, 0.125, 0.25, 0.5, 1];
    for (let tick = 2; tick <= most * 1.5; tick *= 2) ticks.push(tick);
    layout.xaxis = {...layout.xaxis, type: "log", range: [Math.log10(0.04), Math.log10(most * 1.5)],
      tickvals: ticks, ticktext: ticks.map((tick) => tick === 0.05 ? "0" : String(tick))};
  } else if (id.endsWith("cost")) {
    layout.xaxis = {...layout.xaxis, type: "linear", rangemode: "tozero"};
  }
  if (narrow && id.endsWith("resources")) {
    layout.xaxis = {...layout.xaxis, title: {text: "bytes"}};
    layout.xaxis2 = {...layout.xaxis2, title: {text: "steps/s"}};
  }
  if (narrow && id.endsWith("cost")) {
    layout.xaxis = {...layout.xaxis, title: {text: "effective memory (vectors)"}, tickangle: 0};
    if (layout.xaxis.ticktext) layout.xaxis.ticktext = layout.xaxis.ticktext.map((text, i) => i % 2 ? "" : text);
  }
  return layout;
}

function drawChart(id) {
  const element = document.getElementById(id);
  if (!element) return;
  const figure = DATA.figures[id];
  const shown = element.data || [];
  const data = figure.data.map((trace, i) => {
    const copy = {...trace};
    if (logAxis[id] && trace.meta && trace.meta.log_x) copy.x = trace.meta.log_x;
    if (shown[i] && shown[i].visible !== undefined) copy.visible = shown[i].visible;
    return copy;
  });
  element.style.minHeight = "0";
  Plotly.react(element, data, layoutOf(id, figure), {displaylogo: false, responsive: true, displayModeBar: false});
}
function drawCharts() { Object.keys(DATA.figures).forEach(drawChart); }
for (const box of document.querySelectorAll("input.log")) {
  box.addEventListener("change", () => { logAxis[box.dataset.chart] = box.checked; drawChart(box.dataset.chart); });
  // Memories differ by powers of two.
  box.checked = true;
  logAxis[box.dataset.chart] = true;
}
drawCharts();
let wasNarrow = window.innerWidth < NARROW;
window.addEventListener("resize", () => {
  const narrow = window.innerWidth < NARROW;
  if (narrow !== wasNarrow) { wasNarrow = narrow; drawCharts(); }
  drawLens();
});

// Memory lens.
let lens = null, step = 0, timer = null, pointed = null;
const get = (id) => document.getElementById(id);

function slotsOf(flat) {
  const slots = [];
  for (let i = 0; i < flat.length; i += 3) slots.push({step: flat[i], left: flat[i + 1], share: flat[i + 2] / 1000});
  return slots;
}

function chooseLens(i) {
  stop();
  lens = DATA.lenses[i];
  step = 0;
  pointed = null;
  document.querySelectorAll("[data-lens]").forEach((tab) => tab.setAttribute("aria-selected", String(tab.dataset.lens === String(i))));
  get("slider").max = lens.steps.length - 1;
  lens.longest = 1;
  for (const one of lens.steps) for (const flat of one.l) for (const slot of slotsOf(flat)) lens.longest = Math.max(lens.longest, slot.left);
  const layers = get("layers");
  layers.textContent = "";
  const n = lens.vectors ? 0 : lens.steps[0].l.length;
  for (let k = 0; k < n; k++) {
    const box = document.createElement("div");
    box.className = "layer";
    const title = document.createElement("span");
    title.textContent = n > 1 ? `layer ${k + 1}` : "past steps";
    const canvas = document.createElement("canvas");
    canvas.dataset.layer = k;
    canvas.setAttribute("role", "img");
    canvas.addEventListener("pointermove", (event) => point(canvas, event));
    canvas.addEventListener("pointerleave", () => { pointed = null; drawLens(); });
    box.append(title, canvas);
    layers.append(box);
  }
  drawLens();
}

const GUTTER = 34;

function point(canvas, event) {
  const width = canvas.clientWidth - GUTTER;
  const past = Math.floor((event.offsetX - GUTTER) / width * lens.steps.length);
  pointed = past >= 0 && past <= step ? past : null;
  drawLens();
}

function drawLens() {
  if (!lens) return;
  const now = lens.steps[step];
  const shown = pointed === null ? now : lens.steps[pointed];
  get("world").src = lens.pictures[shown.p];
  get("world").parentElement.classList.toggle("then", pointed !== null);
  get("slider").value = step;
  get("at").textContent = `${step} of ${lens.steps.length - 1}`;
  const last = step === lens.steps.length - 1;
  get("told").textContent = pointed === null
    ? `${last && !lens.cut ? "End: " : "Action: "}${now.a}. Value ${now.v.toFixed(2)}, effective memory ${now.e}.`
    : `As it was at step ${pointed}. Action: ${shown.a}.`;
  document.querySelectorAll("#layers canvas").forEach((canvas) => drawLayer(canvas, slotsOf(now.l[canvas.dataset.layer])));
  const none = lens.vectors ? `${lens.memory} has vectors of constant size (${lens.capacity} of the model's width) and no slots: nothing tells which steps it holds.`
    : lens.steps[0].l.length === 0 ? `${lens.memory} remembers nothing.` : "";
  let hint = none;
  if (!none && pointed !== null) {
    const flats = now.l.map((flat) => slotsOf(flat).find((slot) => slot.step === pointed));
    hint = flats.map((slot, k) => (flats.length > 1 ? `Layer ${k + 1}: ` : "") + (slot
      ? `step ${pointed} lasts ${slot.left < 0 ? "for ever" : slot.left + " more"}, ${(100 * slot.share).toFixed(1)} % of the attention`
      : `step ${pointed} is forgotten`)).join(". ") + ".";
  } else if (!none) {
    hint = "Above the line: attention now. Below: steps that each past step will still last. A dot is a step that is forgotten.";
  }
  get("hint").textContent = hint;
}

function drawLayer(canvas, slots) {
  const scale = window.devicePixelRatio || 1, width = canvas.clientWidth, height = 150, middle = 66;
  canvas.width = width * scale;
  canvas.height = height * scale;
  canvas.style.height = `${height}px`;
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const each = (width - GUTTER) / lens.steps.length, bar = Math.max(1, each * 0.82);
  const x = (past) => GUTTER + past * each;
  const up = middle - 8, down = height - middle - 18;
  pen.font = "10px system-ui, sans-serif";
  pen.fillStyle = colour("--faint");
  pen.textAlign = "right";
  pen.fillText("100 %", GUTTER - 4, 14);
  pen.fillText("0", GUTTER - 4, middle + 3);
  pen.fillText(String(lens.longest), GUTTER - 4, middle + down + 4);
  pen.textAlign = "center";
  const every = Math.max(1, Math.ceil(lens.steps.length / 8 / 5) * 5);
  for (let past = 0; past < lens.steps.length; past += every) pen.fillText(String(past), x(past) + bar / 2, height - 2);
  pen.strokeStyle = colour("--line");
  pen.beginPath();
  pen.moveTo(GUTTER, middle + 0.5);
  pen.lineTo(width, middle + 0.5);
  pen.stroke();
  const kept = new Set(slots.map((slot) => slot.step));
  pen.fillStyle = colour("--line");
  for (let past = 0; past <= step; past++) if (!kept.has(past)) pen.fillRect(x(past), middle + 3, bar, 2);
  for (const slot of slots) {
    const here = slot.step === pointed;
    // Zero has a bar, too: the step is still there.
    const life = slot.left < 0 ? 1 : slot.left / lens.longest;
    pen.fillStyle = lens.colour;
    pen.globalAlpha = here ? 1 : 0.55;
    pen.fillRect(x(slot.step), middle + 2, bar, Math.max(2, life * down));
    pen.globalAlpha = 1;
    pen.fillStyle = here ? colour("--ink") : colour("--accent");
    const share = slot.share * up;
    pen.fillRect(x(slot.step), middle - share, bar, share);
  }
  const shares = slots.reduce((sum, slot) => sum + slot.share, 0);
  canvas.setAttribute("aria-label", `${slots.length} of ${step + 1} steps are kept`);
  canvas.dataset.kept = slots.length;
  canvas.dataset.shares = shares.toFixed(2);
}

function go(to) {
  step = Math.min(Math.max(to, 0), lens.steps.length - 1);
  drawLens();
  if (step === lens.steps.length - 1) stop();
}
function stop() {
  clearInterval(timer);
  timer = null;
  if (get("play")) get("play").textContent = "Play";
}
function play() {
  if (timer) return stop();
  if (step === lens.steps.length - 1) step = 0;
  get("play").textContent = "Pause";
  timer = setInterval(() => go(step + 1), 120);
}
if (DATA.lenses.length) {
  document.querySelectorAll("[data-lens]").forEach((tab) => tab.addEventListener("click", () => chooseLens(Number(tab.dataset.lens))));
  get("back").addEventListener("click", () => { stop(); go(step - 1); });
  get("forth").addEventListener("click", () => { stop(); go(step + 1); });
  get("play").addEventListener("click", play);
  get("slider").addEventListener("input", () => { stop(); go(Number(get("slider").value)); });
  get("lens").addEventListener("keydown", (event) => {
    if (event.target.tagName === "INPUT") return;
    const moves = {ArrowLeft: () => { stop(); go(step - 1); }, ArrowRight: () => { stop(); go(step + 1); }};
    if (event.key === " " && event.target.tagName !== "BUTTON") moves[" "] = play;
    if (moves[event.key]) { event.preventDefault(); moves[event.key](); }
  });
  chooseLens(0);
}
