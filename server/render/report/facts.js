"use strict";
// The report's state, colours, and the parts of the page that are no pictures.
// The page holds facts.js, views.js and page.js one after the other. Everything
// comes from the JSON in the page; all text enters it through textContent.
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
