// The canvas, on which all cells are drawn, the tokens, and what people do.

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
