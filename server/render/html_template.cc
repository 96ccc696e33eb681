// SPDX-License-Identifier: Apache-2.0
#include "server/render/html_template.h"

namespace limpid::render {

// The policy forbids every request, so that even a mistake in the script could
// send nothing anywhere.
const char kHtmlHead[] = R"html(<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
      content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>)html";

const char kHtmlBody[] = R"html(</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto;
       max-width: 64rem; padding: 0 1rem; color: #1a1a1a; background: #fff; }
h1 { font-size: 1.5rem; margin: 0 0 .5rem; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
table { border-collapse: collapse; }
td, th { padding: .1rem 1rem .1rem 0; text-align: left; vertical-align: top; }
th { font-weight: 500; color: #555; }
td.number { font-variant-numeric: tabular-nums; text-align: right; }
.bar { display: inline-block; height: .7rem; background: #3465a4; }
#tokens { line-height: 2.1; }
.token { padding: .2rem .15rem; margin: 0 1px; border-radius: 3px;
         white-space: pre-wrap; unicode-bidi: isolate; cursor: default;
         display: inline-block; line-height: 1.3; max-width: 100%;
         font-family: ui-monospace, monospace; }
.token.position { outline: 2px solid #000; }
.token.chosen { outline: 2px dashed #000; }
canvas { border: 1px solid #999; image-rendering: pixelated; max-width: 100%; }
.legend { display: flex; gap: .5rem; align-items: center; color: #555; }
#status { min-height: 1.5em; font-family: ui-monospace, monospace;
          white-space: pre-wrap; }
input[type=range] { width: 20rem; max-width: 60%; vertical-align: middle; }
</style>
</head>
<body>
<h1 id="title"></h1>
<table id="facts"></table>
<section id="prediction"><h2>Prediction</h2>
<table id="candidates"></table></section>
<h2><span id="heading"></span>
<button id="back" hidden>show attribution</button></h2>
<div id="tokens"></div>
<canvas id="patches" hidden></canvas>
<div id="legend" class="legend"></div>
<p id="status"></p>
<section id="layers" hidden><h2>Layers</h2>
<p><label>Layer <input id="slider" type="range" min="0" value="0">
<output id="layer"></output></label></p>
<canvas id="picture"></canvas>
<div id="layer-legend" class="legend"></div>
<p id="hint"></p></section>
<script type="application/json" id="data">)html";

// All text enters the page through textContent.
const char kHtmlTail[] = R"html(</script>
<script>
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const isGrid = data.grid[0] > 0;
const format = (x) => x === null ? "not finite" : Number(x.toPrecision(4));

function colorOf(range, value) {
  if (value === null) return "#969696";
  const span = range.high - range.low;
  let t = range.scale === "diverging" ? 0.5 : 0;
  if (span > 0) t = Math.min(1, Math.max(0, (value - range.low) / span));
  return data.colors[range.scale][Math.round(255 * t)];
}
function textColor(color) {
  const part = (i) => {
    const x = parseInt(color.substr(1 + 2 * i, 2), 16) / 255;
    return x <= 0.04045 ? x / 12.92 : Math.pow((x + 0.055) / 1.055, 2.4);
  };
  const light = 0.2126 * part(0) + 0.7152 * part(1) + 0.0722 * part(2);
  return light > 0.179 ? "#000" : "#fff";
}
function add(parent, tag, text, className) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  parent.appendChild(element);
  return element;
}
function drawLegend(parent, range) {
  parent.textContent = "";
  add(parent, "span", format(range.low));
  const canvas = add(parent, "canvas");
  canvas.width = 256;
  canvas.height = 12;
  const context = canvas.getContext("2d");
  data.colors[range.scale].forEach((color, i) => {
    context.fillStyle = color;
    context.fillRect(i, 0, 1, 12);
  });
  add(parent, "span", format(range.high));
}
// Draws a matrix and returns its cell size in pixels.
function drawMatrix(canvas, rows, columns, valueAt, range, room) {
  const cell = Math.max(1, Math.min(48, Math.floor(room / Math.max(rows, columns))));
  canvas.width = columns * cell;
  canvas.height = rows * cell;
  const context = canvas.getContext("2d");
  for (let i = 0; i < rows; ++i) {
    for (let j = 0; j < columns; ++j) {
      context.fillStyle = colorOf(range, valueAt(i, j));
      context.fillRect(j * cell, i * cell, cell, cell);
    }
  }
}
function cellAt(canvas, event, rows, columns) {
  const box = canvas.getBoundingClientRect();
  const at = (offset, size, count) =>
      Math.min(count - 1, Math.max(0, Math.floor(offset / size * count)));
  return [at(event.clientY - box.top - 1, box.height - 2, rows),
          at(event.clientX - box.left - 1, box.width - 2, columns)];
}
const nameOf = (index, factor) => factor > 1
    ? index * factor + "\u2026" + (index * factor + factor - 1)
    : index + (data.tokens.length > index ? " \u201c" + data.tokens[index] + "\u201d" : "");

$("title").textContent = data.title;
for (const [name, value] of data.facts) {
  const row = add($("facts"), "tr");
  add(row, "th", name);
  add(row, "td", value);
}
if (data.predictions.length === 0) $("prediction").hidden = true;
for (const candidate of data.predictions) {
  const row = add($("candidates"), "tr");
  add(row, "td", candidate.piece || "#" + candidate.id);
  const share = candidate.probability === null ? 0 : candidate.probability;
  add(row, "td", (100 * share).toFixed(2) + " %", "number");
  const bar = add(add(row, "td"), "span", undefined, "bar");
  bar.style.width = Math.round(200 * Math.min(1, Math.max(0, share))) + "px";
  bar.title = "logit " + format(candidate.logit) + ", id " + candidate.id;
}

const tokenElements = [];
data.tokens.forEach((text, i) => {
  const element = add($("tokens"), "span", text, "token");
  if (i === data.position) element.classList.add("position");
  if (text.endsWith("\u21b5")) add($("tokens"), "br");
  element.addEventListener("mouseenter", () => {
    $("status").textContent = shown.name + ", token " + nameOf(i, 1) + ": " + format(shown.values[i]);
  });
  element.addEventListener("click", () => chooseRow(i));
  tokenElements.push(element);
});

const whole = {name: "attribution", values: data.attribution, range: data.range};
let shown = whole;
function show(view) {
  shown = view;
  $("back").hidden = view === whole;
  $("heading").textContent = view === whole ? "Attribution" : view.name;
  tokenElements.forEach((element, i) => {
    const value = i < view.values.length ? view.values[i] : null;
    const color = colorOf(view.range, value);
    element.style.background = color;
    element.style.color = textColor(color);
    element.title = format(value);
    element.classList.toggle("chosen", view.row === i);
  });
  drawLegend($("legend"), view.range);
}
if (isGrid) {
  const canvas = $("patches"), [rows, columns] = data.grid;
  canvas.hidden = false;
  drawMatrix(canvas, rows, columns, (i, j) => data.attribution[i * columns + j], data.range, 448);
  canvas.addEventListener("mousemove", (event) => {
    const [i, j] = cellAt(canvas, event, rows, columns);
    $("status").textContent = "patch " + i + ", " + j + ": " + format(data.attribution[i * columns + j]);
  });
}
show(whole);

// Layers: all rows as one picture, or the chosen layer's matrix.
const layers = data.layers;
const hasMatrices = layers.some((layer) => layer.bytes !== undefined);
let current = 0;
function valueIn(layer, i, j) {
  if (layer.row) return layer.row[j];
  if (!layer.values) layer.values = Uint8Array.from(atob(layer.bytes), (c) => c.charCodeAt(0));
  const step = layer.values[i * layer.columns + j];
  return step === 255 ? null : layer.range.low + (layer.range.high - layer.range.low) * step / 254;
}
const rowsOf = (layer) => layer.row ? 1 : layer.rows;
const columnsOf = (layer) => layer.row ? layer.row.length : layer.columns;
function chooseRow(i) {
  const layer = layers[current];
  if (!layer || isGrid || layer.row || layer.factor > 1 || i >= layer.rows) return;
  const values = data.tokens.map((_, j) => j < layer.columns ? valueIn(layer, i, j) : null);
  show({name: "Layer " + layer.layer + ", row of token " + nameOf(i, 1), values, range: layer.range, row: i});
}
function drawRows() {
  const columns = Math.max(...layers.map(columnsOf));
  // Each layer by its own range: layers differ by orders of magnitude.
  const canvas = $("picture");
  const width = Math.max(1, Math.min(32, Math.floor(960 / columns))), height = 16;
  canvas.width = columns * width;
  canvas.height = layers.length * height;
  const context = canvas.getContext("2d");
  layers.forEach((layer, i) => {
    for (let j = 0; j < columnsOf(layer); ++j) {
      context.fillStyle = colorOf(layer.range, valueIn(layer, 0, j));
      context.fillRect(j * width, i * height, width, height);
    }
    if (i === current) {
      context.strokeStyle = "#000";
      context.strokeRect(0.5, i * height + 0.5, columns * width - 1, height - 1);
    }
  });
}
function chooseLayer(index, recolor) {
  current = index;
  const layer = layers[index];
  $("slider").value = index;
  $("layer").textContent = layer.layer +
      (layer.error === null ? "" : " (reconstruction error " + format(layer.error) + ")");
  if (hasMatrices) {
    drawMatrix($("picture"), rowsOf(layer), columnsOf(layer), (i, j) => valueIn(layer, i, j), layer.range, 640);
  } else {
    drawRows();
  }
  drawLegend($("layer-legend"), layer.range);
  if (recolor && layer.row && !isGrid) {
    show({name: "Layer " + layer.layer, values: layer.row, range: layer.range});
  }
}
if (layers.length > 0) {
  $("layers").hidden = false;
  $("slider").max = layers.length - 1;
  $("slider").addEventListener("input", () => chooseLayer(Number($("slider").value), true));
  const picture = $("picture");
  const locate = (event) => {
    const layer = layers[current];
    return cellAt(picture, event, hasMatrices ? rowsOf(layer) : layers.length, columnsOf(layer));
  };
  picture.addEventListener("mousemove", (event) => {
    const [i, j] = locate(event);
    const layer = hasMatrices ? layers[current] : layers[i];
    const factor = layer.factor || 1;
    $("status").textContent = "layer " + layer.layer +
        (layer.row ? "" : ", row " + nameOf(i, factor)) +
        ", column " + nameOf(j, factor) + ": " + format(valueIn(layer, layer.row ? 0 : i, j));
  });
  picture.addEventListener("click", (event) => {
    const [i] = locate(event);
    if (hasMatrices) chooseRow(i); else chooseLayer(i, true);
  });
  const factor = Math.max(...layers.map((layer) => layer.factor || 1));
  $("hint").textContent = (hasMatrices
      ? "Rows are target positions, columns are source positions. Click a row to colour the tokens by it."
      : "One line per layer, each with its own colour range; columns are source positions. Move the slider to colour the tokens by a layer.") +
      (hasMatrices ? " Matrices are shown with 8 bits per entry." : "") +
      (factor > 1 ? " Each pixel is the largest of " + factor + " x " + factor + " entries." : "");
  $("back").addEventListener("click", () => show(whole));
  chooseLayer(0, false);
}
</script>
</body>
</html>
)html";

}  // namespace limpid::render
