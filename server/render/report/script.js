"use strict";
// Draws everything from the JSON in the page. All text enters the page through
// textContent; all cells are drawn on one canvas.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const lineColors = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00",
                    "#56b4e9", "#7f7f7f", "#b59f00"];
const state = {run: 0, view: "", layer: 0, reduction: 0, opacity: 0.6,
               cell: null};
const run = () => data.runs[state.run];
function format(x) {
  if (x === null) return "not finite";
  return x !== 0 && Math.abs(x) < 1e-3 ? x.toExponential(2)
                                       : String(Number(x.toPrecision(4)));
}

// ---- colours -------------------------------------------------------------
const tables = {};
for (const [scale, colors] of Object.entries(data.colors)) {
  tables[scale] = colors.map((hex) => [1, 3, 5].map(
      (i) => parseInt(hex.substr(i, 2), 16)));
}
const notFinite = [150, 150, 150];
function rgbOf(range, value) {
  if (value === null) return notFinite;
  const span = range.high - range.low;
  let t = range.scale === "diverging" ? 0.5 : 0;
  if (span > 0) t = Math.min(1, Math.max(0, (value - range.low) / span));
  return tables[range.scale][Math.round(255 * t)];
}
const css = (rgb) => "rgb(" + rgb.join(",") + ")";
function textColor(rgb) {
  const part = (x) => {
    x /= 255;
    return x <= 0.04045 ? x / 12.92 : Math.pow((x + 0.055) / 1.055, 2.4);
  };
  const light = 0.2126 * part(rgb[0]) + 0.7152 * part(rgb[1]) +
      0.0722 * part(rgb[2]);
  return light > 0.179 ? "#000" : "#fff";
}
function showLegend(element, range) {
  const [low, bar, high] = element.children;
  low.textContent = format(range.low);
  high.textContent = format(range.high);
  const table = tables[range.scale];
  const stops = Array.from({length: 33}, (_, i) =>
      css(table[Math.round(i * 255 / 32)]));
  bar.style.background = "linear-gradient(to right," + stops.join(",") + ")";
}

// ---- small parts of the page -----------------------------------------------
function add(parent, tag, text, className) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  parent.appendChild(element);
  return element;
}
function addRow(table, name, value) {
  const row = add(table, "tr");
  add(row, "th", name);
  add(row, "td", value);
}
function showSides() {
  $("facts").textContent = "";
  for (const [name, value] of run().facts) addRow($("facts"), name, value);
  $("errors").textContent = "";
  for (const layer of run().layers) {
    if (layer.error === null) continue;
    addRow($("errors"), "reconstruction error, layer " + layer.layer,
           format(layer.error));
  }
  $("prediction").hidden = run().predictions.length === 0;
  $("candidates").textContent = "";
  for (const candidate of run().predictions) {
    const row = add($("candidates"), "tr");
    add(row, "td", candidate.piece ? "\u201c" + candidate.piece + "\u201d"
                                   : "#" + candidate.id);
    const share = candidate.probability === null ? 0 : candidate.probability;
    add(row, "td", (100 * share).toFixed(2) + " %", "number");
    const bar = add(add(row, "td"), "span", undefined, "bar");
    bar.style.width = Math.round(160 * Math.min(1, Math.max(0, share))) + "px";
    bar.title = "logit " + format(candidate.logit) + ", id " + candidate.id;
  }
}

// ---- faithfulness curves -----------------------------------------------------
function svg(parent, tag, attributes, text) {
  const element = document.createElementNS($("pattern").namespaceURI, tag);
  for (const [name, value] of Object.entries(attributes)) {
    element.setAttribute(name, value);
  }
  if (text !== undefined) element.textContent = text;
  parent.appendChild(element);
  return element;
}
function showChart(name) {
  const runs = data.runs.filter((one) => one.curves[name]);
  if (runs.length === 0) return;
  const figure = add($("charts"), "figure");
  figure.style.margin = 0;
  const chart = svg(figure, "svg", {width: 280, height: 190, role: "img",
                                    "aria-label": name + " curves"});
  svg(chart, "path", {"class": "axis", d: "M35 10V160H270"});
  svg(chart, "text", {x: 30, y: 16, "text-anchor": "end"}, "1");
  svg(chart, "text", {x: 30, y: 162, "text-anchor": "end"}, "0");
  svg(chart, "text", {x: 152, y: 180, "text-anchor": "middle"},
      name === "deletion" ? "share of tokens deleted"
                          : "share of tokens inserted");
  for (const one of runs) {
    const curve = one.curves[name];
    const points = curve.fraction.map((x, i) =>
        (35 + 235 * x) + "," + (160 - 150 * (curve.score[i] || 0)));
    const index = data.runs.indexOf(one);
    svg(chart, "polyline", {points: points.join(" "), fill: "none",
                            stroke: lineColors[index % lineColors.length],
                            "stroke-width": index === state.run ? 3 : 1.5});
  }
  const caption = add(figure, "figcaption");
  for (const one of runs) {
    const curve = one.curves[name];
    const line = add(caption, "div", name + " area " + format(curve.area) +
        ", random order " + format(curve.random) +
        (data.runs.length > 1 ? " (" + one.name + ")" : ""));
    line.style.color = data.runs.length > 1
        ? lineColors[data.runs.indexOf(one) % lineColors.length] : "";
  }
}
function showCurves() {
  $("charts").textContent = "";
  showChart("deletion");
  showChart("insertion");
  $("curves").hidden = !$("charts").firstChild;
}

// ---- matrices ------------------------------------------------------------------
// Bytes are unpacked when they are first looked at.
function valuesOf(layer, reduction) {
  if (reduction.row) return reduction.row;
  if (!reduction.unpacked) {
    const text = atob(reduction.bytes);
    reduction.unpacked = Uint8Array.from(text, (c) => c.charCodeAt(0));
  }
  return reduction.unpacked;
}
function valueIn(layer, reduction, i, j) {
  const values = valuesOf(layer, reduction);
  if (reduction.row) return values[j];
  const step = values[i * layer.columns + j], range = reduction.range;
  return step === 255
      ? null : range.low + (range.high - range.low) * step / 254;
}
const reductionOf = (layer) =>
    layer.reductions[Math.min(state.reduction, layer.reductions.length - 1)];
// The name of a token, or of the tokens that one cell stands for.
function nameOf(labels, index, factor) {
  if (factor > 1) {
    return index * factor + "\u2026" + (index * factor + factor - 1);
  }
  const text = labels[index];
  return index + (text === undefined ? "" : " \u201c" + text + "\u201d");
}

// A view says what the canvas shows: rows, columns, value(i, j), range(i),
// name(i, j), and what a chosen row colours the tokens by.
const views = {
  patches: {
    title: "Patches",
    offered: () => run().grid[0] > 0,
    make() {
      const [rows, columns] = run().grid;
      return {rows, columns, square: true, picture: true,
              value: (i, j) => run().attribution[i * columns + j],
              range: () => run().range,
              name: (i, j) => "patch in row " + i + ", column " + j,
              hint: "One cell per patch."};
    }
  },
  matrix: {
    title: "Matrix of a layer",
    offered: () => run().layers.some((layer) => layer.rows > 1),
    make() {
      const layer = run().layers[state.layer], reduction = reductionOf(layer);
      const factor = layer.factor;
      return {rows: layer.rows, columns: layer.columns, square: true,
              value: (i, j) => valueIn(layer, reduction, i, j),
              range: () => reduction.range,
              name: (i, j) => "layer " + layer.layer + ", row " +
                  nameOf(run().tokens, i, factor) + ", column " +
                  nameOf(run().tokens, j, factor),
              rowName: (i) => "Layer " + layer.layer + ", row " +
                  nameOf(run().tokens, i, factor),
              factor, hint: "Rows are target positions, columns are source " +
                  "positions. Click a row to colour the tokens by it. Values " +
                  "are kept in 254 steps." + (factor > 1
                      ? " A cell is the entry that stands out most of " +
                        factor + " x " + factor + "." : "")};
    }
  },
  layers: {
    title: "Layers and tokens",
    offered: () => run().layers.some((layer) => layer.rows === 1),
    make() {
      const layers = run().layers;
      return {rows: layers.length, factor: 1,
              columns: Math.max(...layers.map((layer) => layer.columns)),
              value: (i, j) => j < layers[i].columns
                  ? valueIn(layers[i], reductionOf(layers[i]), 0, j) : null,
              range: (i) => reductionOf(layers[i]).range,
              name: (i, j) => "layer " + layers[i].layer + ", column " +
                  nameOf(run().tokens, j, 1),
              rowName: (i) => "Layer " + layers[i].layer,
              hint: "A line per layer, each in its own range: layers differ by " +
                  "orders of magnitude. Click a line to colour the tokens by " +
                  "it."};
    }
  },
  runs: {
    title: "Explanations side by side",
    offered: () => data.comparison !== null,
    make() {
      const comparison = data.comparison;
      return {rows: comparison.values.length, tall: true,
              columns: comparison.values[0].length,
              value: (i, j) => comparison.values[i][j],
              range: (i) => comparison.ranges[i],
              name: (i, j) => data.runs[i].name + ", " + comparison.unit + " " +
                  nameOf(comparison.labels, j, 1),
              all: true, hint: "A line per explanation, each in its own range: " +
                  data.runs.map((one, i) => (i + 1) + " " + one.name)
                      .join("; ") + "."};
    }
  }
};

// ---- the canvas --------------------------------------------------------------------
const canvas = $("map"), context = canvas.getContext("2d");
const cells = document.createElement("canvas");
let picture = null, view = null, cellWidth = 1, cellHeight = 1;
// One pixel per cell; drawn anew only when other numbers are shown.
function drawCells() {
  cells.width = view.columns;
  cells.height = view.rows;
  const target = cells.getContext("2d");
  const image = target.createImageData(view.columns, view.rows);
  let at = 0;
  for (let i = 0; i < view.rows; ++i) {
    const range = view.range(i);
    for (let j = 0; j < view.columns; ++j, at += 4) {
      const rgb = rgbOf(range, view.value(i, j));
      image.data[at] = rgb[0];
      image.data[at + 1] = rgb[1];
      image.data[at + 2] = rgb[2];
      image.data[at + 3] = 255;
    }
  }
  target.putImageData(image, 0, 0);
  const fit = (room, count, most) =>
      Math.max(1, Math.min(most, Math.floor(room / count)));
  if (view.square) {
    cellWidth = cellHeight = fit(640, Math.max(view.rows, view.columns), 48);
  } else {
    cellWidth = fit(960, view.columns, 32);
    cellHeight = view.tall ? 28 : 16;
  }
  canvas.width = view.columns * cellWidth;
  canvas.height = view.rows * cellHeight;
}
// The cells, the picture under them and the cell that is looked at: a handful of
// calls, however many cells there are.
function paint() {
  context.imageSmoothingEnabled = false;
  context.globalAlpha = 1;
  if (view.picture && picture) {
    context.drawImage(picture, 0, 0, canvas.width, canvas.height);
    context.globalAlpha = state.opacity;
  }
  context.drawImage(cells, 0, 0, canvas.width, canvas.height);
  context.globalAlpha = 1;
  if (!state.cell) return;
  const [i, j] = state.cell;
  context.lineWidth = 1;
  context.strokeStyle = "#000";
  context.strokeRect(j * cellWidth - 0.5, -1, cellWidth + 1, canvas.height + 2);
  context.strokeRect(-1, i * cellHeight - 0.5, canvas.width + 2,
                     cellHeight + 1);
}
function look(i, j) {
  if (state.cell && state.cell[0] === i && state.cell[1] === j) return;
  state.cell = [i, j];
  paint();
  const lines = view.all
      ? data.runs.map((_, k) => view.name(k, j) + ": " + format(view.value(k, j)))
      : [view.name(i, j) + ": " + format(view.value(i, j))];
  $("status").textContent = lines.join("\n");
}
function showView() {
  const offered = Object.keys(views).filter((name) => views[name].offered());
  $("map-section").hidden = offered.length === 0;
  if (offered.length === 0) return;
  if (!offered.includes(state.view)) state.view = offered[0];
  const select = $("view");
  select.textContent = "";
  for (const name of offered) {
    const option = add(select, "option", views[name].title);
    option.value = name;
  }
  select.value = state.view;
  $("view-label").hidden = offered.length < 2;
  view = views[state.view].make();
  state.cell = null;
  const layers = run().layers, layer = layers[state.layer];
  $("map-heading").textContent = views[state.view].title;
  $("layer-label").hidden = state.view !== "matrix";
  $("layer").max = Math.max(0, layers.length - 1);
  $("layer").value = state.layer;
  $("layer-value").textContent = layer === undefined ? "" : layer.layer +
      (layer.error === null
           ? "" : " (reconstruction error " + format(layer.error) + ")");
  const reductions = layer === undefined ? [] : layer.reductions;
  $("reduction-label").hidden = reductions.length < 2 ||
      (state.view !== "matrix" && state.view !== "layers");
  $("reduction").textContent = "";
  reductions.forEach((reduction, i) => {
    add($("reduction"), "option", reduction.name).value = i;
  });
  $("reduction").value = state.reduction;
  $("opacity-label").hidden = !(view.picture && data.picture !== null);
  $("hint").textContent = view.hint;
  showLegend($("map-legend"), view.range(0));
  $("map-legend").hidden = !view.square;
  drawCells();
  paint();
}

// ---- tokens ------------------------------------------------------------------------
let tokenElements = [], shown = null;
function colorTokens(name, values, range, factor, row) {
  shown = {name, values, range, factor};
  $("back").hidden = row === undefined;
  $("heading").textContent = name;
  tokenElements.forEach((element, i) => {
    const at = Math.floor(i / factor);
    const rgb = rgbOf(range, at < values.length ? values[at] : null);
    element.style.background = css(rgb);
    element.style.color = textColor(rgb);
    element.classList.toggle("chosen", row !== undefined && row === at);
  });
  showLegend($("legend"), range);
}
const showAttribution = () =>
    colorTokens("Attribution", run().attribution, run().range, 1);
function chooseRow(i) {
  if (!view.rowName || i < 0 || i >= view.rows) return;
  const values = [];
  for (let j = 0; j < view.columns; ++j) values.push(view.value(i, j));
  colorTokens(view.rowName(i), values, view.range(i), view.factor,
              state.view === "matrix" ? i : -1);
}
function showTokens() {
  $("tokens").textContent = "";
  tokenElements = run().tokens.map((text, i) => {
    const element = add($("tokens"), "span", text, "token");
    element.dataset.index = i;
    if (i === run().position) element.classList.add("position");
    if (text.endsWith("\u21b5")) add($("tokens"), "br");
    return element;
  });
  const isGrid = run().grid[0] > 0;
  $("heading").parentElement.hidden = $("legend").hidden = isGrid;
  showAttribution();
}
function tokenOf(event) {
  const element = event.target.closest(".token");
  return element === null ? -1 : Number(element.dataset.index);
}
$("tokens").addEventListener("mouseover", (event) => {
  const i = tokenOf(event);
  if (i < 0) return;
  const at = Math.floor(i / shown.factor);
  $("status").textContent = shown.name + ", token " +
      nameOf(run().tokens, i, 1) + ": " +
      format(at < shown.values.length ? shown.values[at] : null);
});
$("tokens").addEventListener("click", (event) => {
  const i = tokenOf(event);
  if (i >= 0 && state.view === "matrix") chooseRow(Math.floor(i / view.factor));
});

// ---- what people do ------------------------------------------------------------------
function showRun() {
  state.layer = Math.min(state.layer, Math.max(0, run().layers.length - 1));
  $("run").value = state.run;
  showTokens();
  showView();
  showSides();
  showCurves();
}
function setLayer(index) {
  if (index < 0 || index >= run().layers.length) return;
  state.layer = index;
  showView();
  const layer = run().layers[index];
  $("status").textContent = "layer " + layer.layer;
}
function next(select) {
  if (select.options.length < 2) return;
  select.selectedIndex = (select.selectedIndex + 1) % select.options.length;
  select.dispatchEvent(new Event("change"));
}
function cellAt(event) {
  const box = canvas.getBoundingClientRect();
  const at = (offset, size, count) =>
      Math.min(count - 1, Math.max(0, Math.floor(offset / size * count)));
  return [at(event.clientY - box.top - 1, box.height - 2, view.rows),
          at(event.clientX - box.left - 1, box.width - 2, view.columns)];
}
canvas.addEventListener("mousemove", (event) => look(...cellAt(event)));
canvas.addEventListener("click", (event) => chooseRow(cellAt(event)[0]));
canvas.addEventListener("keydown", (event) => {
  const steps = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1],
                 ArrowRight: [0, 1]};
  const [i, j] = state.cell || [0, 0];
  if (event.key === "Enter") {
    chooseRow(i);
  } else if (steps[event.key]) {
    const [di, dj] = state.cell ? steps[event.key] : [0, 0];
    look(Math.min(view.rows - 1, Math.max(0, i + di)),
         Math.min(view.columns - 1, Math.max(0, j + dj)));
    event.preventDefault();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.target instanceof HTMLSelectElement && event.key.length === 1) {
    return;  // letters choose an entry there
  }
  const actions = {
    "[": () => setLayer(state.layer - 1), "]": () => setLayer(state.layer + 1),
    Escape: showAttribution, v: () => next($("view")), m: () => next($("run")),
    r: () => next($("reduction")), t: () => $("theme").click()};
  if (actions[event.key]) actions[event.key]();
});
$("layer").addEventListener("input", () => setLayer(Number($("layer").value)));
$("view").addEventListener("change", () => {
  state.view = $("view").value;
  showView();
});
$("reduction").addEventListener("change", () => {
  state.reduction = Number($("reduction").value);
  showView();
});
$("run").addEventListener("change", () => {
  state.run = Number($("run").value);
  showRun();
});
$("opacity").addEventListener("input", () => {
  state.opacity = Number($("opacity").value) / 100;
  paint();
});
$("back").addEventListener("click", showAttribution);
$("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme === undefined
      ? matchMedia("(prefers-color-scheme: dark)").matches
      : root.dataset.theme === "dark";
  root.dataset.theme = dark ? "light" : "dark";
});

$("title").textContent = data.title;
data.runs.forEach((one, i) => {
  add($("run"), "option", one.name).value = i;
});
$("run-label").hidden = data.runs.length < 2;
if (data.picture !== null) {
  state.opacity = data.picture.opacity;
  $("opacity").value = 100 * state.opacity;
  const image = new Image();
  image.onload = () => {
    picture = image;
    if (view !== null) paint();
  };
  image.src = data.picture.png;
}
showRun();
