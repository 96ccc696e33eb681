// What the canvas can show, and the numbers behind it.

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
