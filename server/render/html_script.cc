// SPDX-License-Identifier: Apache-2.0
//
// The script of the HTML report: draws everything from the JSON in the page.
#include "server/render/html_template.h"

namespace limpid::render {

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
// Draws a matrix that takes about `room` pixels per side.
function drawMatrix(canvas, rows, columns, valueAt, range, room) {
  const fitting = Math.floor(room / Math.max(rows, columns));
  const cell = Math.max(1, Math.min(48, fitting));
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
// A token's or block's name beside its value.
function nameOf(index, factor) {
  if (factor > 1) {
    return index * factor + "\u2026" + (index * factor + factor - 1);
  }
  const text = data.tokens[index];
  return index + (text === undefined ? "" : " \u201c" + text + "\u201d");
}

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
    $("status").textContent =
        shown.name + ", token " + nameOf(i, 1) + ": " + format(shown.values[i]);
  });
  element.addEventListener("click", () => chooseRow(i));
  tokenElements.push(element);
});

const whole = {
  name: "attribution", values: data.attribution, range: data.range};
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
  const valueAt = (i, j) => data.attribution[i * columns + j];
  drawMatrix(canvas, rows, columns, valueAt, data.range, 448);
  canvas.addEventListener("mousemove", (event) => {
    const [i, j] = cellAt(canvas, event, rows, columns);
    $("status").textContent =
        "patch " + i + ", " + j + ": " + format(valueAt(i, j));
  });
}
show(whole);

// Layers: all rows as one picture, or the chosen layer's matrix.
const layers = data.layers;
const hasMatrices = layers.some((layer) => layer.bytes !== undefined);
let current = 0;
function valueIn(layer, i, j) {
  if (layer.row) return layer.row[j];
  if (!layer.values) {
    layer.values = Uint8Array.from(atob(layer.bytes), (c) => c.charCodeAt(0));
  }
  const step = layer.values[i * layer.columns + j];
  const span = layer.range.high - layer.range.low;
  return step === 255 ? null : layer.range.low + span * step / 254;
}
const rowsOf = (layer) => layer.row ? 1 : layer.rows;
const columnsOf = (layer) => layer.row ? layer.row.length : layer.columns;
function chooseRow(i) {
  const layer = layers[current];
  if (!layer || isGrid || layer.row || layer.factor > 1 || i >= layer.rows) {
    return;
  }
  const values = data.tokens.map(
      (_, j) => j < layer.columns ? valueIn(layer, i, j) : null);
  const name = "Layer " + layer.layer + ", row of token " + nameOf(i, 1);
  show({name, values, range: layer.range, row: i});
}
function drawRows() {
  const columns = Math.max(...layers.map(columnsOf));
  // Each layer by its own range: layers differ by orders of magnitude.
  const canvas = $("picture");
  const height = 16;
  const width = Math.max(1, Math.min(32, Math.floor(960 / columns)));
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
      context.strokeRect(
          0.5, i * height + 0.5, columns * width - 1, height - 1);
    }
  });
}
function chooseLayer(index, recolor) {
  current = index;
  const layer = layers[index];
  $("slider").value = index;
  const error = layer.error === null
      ? "" : " (reconstruction error " + format(layer.error) + ")";
  $("layer").textContent = layer.layer + error;
  if (hasMatrices) {
    const valueAt = (i, j) => valueIn(layer, i, j);
    drawMatrix($("picture"), rowsOf(layer), columnsOf(layer), valueAt,
               layer.range, 640);
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
  $("slider").addEventListener(
      "input", () => chooseLayer(Number($("slider").value), true));
  const picture = $("picture");
  const locate = (event) => {
    const layer = layers[current];
    const rows = hasMatrices ? rowsOf(layer) : layers.length;
    return cellAt(picture, event, rows, columnsOf(layer));
  };
  picture.addEventListener("mousemove", (event) => {
    const [i, j] = locate(event);
    const layer = hasMatrices ? layers[current] : layers[i];
    const factor = layer.factor || 1;
    const value = valueIn(layer, layer.row ? 0 : i, j);
    $("status").textContent = "layer " + layer.layer +
        (layer.row ? "" : ", row " + nameOf(i, factor)) +
        ", column " + nameOf(j, factor) + ": " + format(value);
  });
  picture.addEventListener("click", (event) => {
    const [i] = locate(event);
    if (hasMatrices) chooseRow(i); else chooseLayer(i, true);
  });
  const factor = Math.max(...layers.map((layer) => layer.factor || 1));
  let hint = hasMatrices
      ? "Rows are target positions, columns are source positions. Click a " +
        "row to colour the tokens by it. Entries are shown with 8 bits each."
      : "One line per layer, each with its own colour range; columns are " +
        "source positions. Move the slider to colour the tokens by a layer.";
  if (factor > 1) {
    hint += " Each pixel is the largest of " + factor + " x " + factor +
        " entries.";
  }
  $("hint").textContent = hint;
  $("back").addEventListener("click", () => show(whole));
  chooseLayer(0, false);
}
</script>
</body>
</html>
)html";

}  // namespace limpid::render
